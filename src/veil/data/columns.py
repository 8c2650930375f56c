"""What the columns of a table may hold: names of rows, labels, or neither; and how their text is compared.

Names go along with releases, so only what is meant to be read as a name is one: text, whole numbers and UUIDs, and of a
struct its ``path`` (Hugging Face's images are structs of ``bytes`` and ``path``). Anything else, a picture's bytes
above all, is refused by name. Text is compared in Unicode's form NFC, as systems write one name in several ways.

Rows are counted from 0 in every message, lines of text files from 1.
"""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from veil.errors import InputError
from veil.foreign import MOST_LETTERS
from veil.parquet import check_expanded

IMAGE_KEYS = (
    "source", "file", "filename", "filepath", "path", "image", "imageid", "imagename", "imagefile", "imagepath",
)  # fmt: skip
"""Columns that may name images, as :func:`key_columns` reads their names; the first that is there wins."""

KEYS = ("source", "name", *IMAGE_KEYS[1:])
"""Columns, or arrays with one axis, that may name vectors."""


def nfc(text: str) -> str:
    """Text in the form in which it is compared."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def plain(name: str) -> str:
    """A name as it is compared: with ``/`` between the parts of a path and no ``./`` before it, in NFC."""
    return nfc(name.replace("\\", "/").removeprefix("./"))


def key_columns(columns: Iterable[str], keys: Sequence[str] = KEYS) -> list[str]:
    """Those of the columns that may name rows, by their rank in ``keys``; ``File_Name`` is ``filename``."""
    read = [(re.sub(r"[\s_-]", "", nfc(column).casefold()), column) for column in columns]
    return [column for key in keys for short, column in read if short == key]


def repeated(columns: Iterable[str]) -> str:
    """The first name that several columns have; "" where none does, or only those without a name."""
    return next((name for name, count in Counter(columns).items() if name and count > 1), "")


Kind: TypeAlias = "pa.DataType | str"
"""The type of a column; or, where it has none of Arrow's, words that say what it is."""


def can_name(kind: Kind) -> bool:
    """Whether a column of this type can name rows."""
    if isinstance(kind, str):
        return False
    if pa.types.is_struct(kind):
        return has_path(kind) and _is_text(_plain_type(kind.field("path").type))
    kind = _plain_type(kind)
    return _is_text(kind) or _is_uuid(kind) or _is_whole(kind)


def can_label(kind: Kind) -> bool:
    """Whether a column of this type can be a label."""
    if isinstance(kind, str):
        return False
    kind = _plain_type(kind)
    tests = (pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    return _is_text(kind) or _is_uuid(kind) or _is_whole(kind) or any(test(kind) for test in tests)


def has_path(kind: Kind) -> bool:
    """Whether a type is a struct with a field ``path``."""
    return isinstance(kind, pa.DataType) and pa.types.is_struct(kind) and kind.get_field_index("path") >= 0


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, getattr(pa.types, "is_string_view", lambda _: False))
    return any(test(kind) for test in tests)


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0))


def _is_uuid(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


def is_images(kind: Kind) -> bool:
    """Whether a column of this type can hold encoded images: bytes, or structs of bytes as Hugging Face writes them."""
    if not isinstance(kind, str) and pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return _is_bytes(kind)


def images(columns: Mapping[str, Kind]) -> list[str]:
    """The columns of encoded images: those of structs; if there is none, those of bytes."""
    both = [name for name, kind in columns.items() if is_images(kind)]
    return [name for name in both if not _is_bytes(columns[name])] or both


def _is_bytes(kind: Kind) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, getattr(pa.types, "is_binary_view", lambda _: False))
    return not isinstance(kind, str) and any(test(kind) for test in tests)


def usual(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column of names or labels as text, numbers, booleans or nulls: what is packed otherwise is unpacked."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(column.type):
        column = pa.DictionaryArray.from_arrays(column.indices, usual(column.dictionary)).dictionary_decode()
    if _is_uuid(column.type):
        words = [None if v is None else str(v if isinstance(v, uuid.UUID) else uuid.UUID(bytes=v)) for v in
                 column.to_pylist()]  # fmt: skip
        return pa.array(words, pa.string())
    if pa.types.is_float16(column.type):
        return column.cast(pa.float32())
    return column.cast(pa.string()) if _is_text(column.type) else column


def names(column: pa.ChunkedArray | pa.Array, key: str, path: Path, start: int = 0) -> pa.Array:
    """A key column's names: strings ``(n,)``, as they stand there.

    Args:
        column: Of a type that :func:`can_name` rows.
        key: Its name, for messages.
        path: The file, for messages.
        start: Number of its first row.

    Raises:
        InputError: A row has no name, or one of more than :data:`MOST_LETTERS` letters.
    """
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "path")
    places = column.indices if pa.types.is_dictionary(column.type) else None
    words = usual(column if places is None else column.dictionary).cast(pa.string())
    missing = pc.or_kleene(words.is_null(), pc.equal(pc.utf8_trim_whitespace(words), ""))
    lengths = pc.utf8_length(words)
    if places is not None:
        missing, lengths = (values.take(places) for values in (missing, lengths))
    if (row := pc.index(pc.fill_null(missing, True), True).as_py()) >= 0:
        raise InputError(f"{path}: row {start + row} names no {key}")
    longest = pc.max(lengths).as_py() or 0
    if longest > MOST_LETTERS:
        row = start + pc.index(lengths, longest).as_py()
        raise InputError(f"{path}: {key} of row {row} has {longest:,} characters; names have at most {MOST_LETTERS:,}")
    if places is None:
        return words
    check_expanded(path, key, pc.sum(lengths).as_py() or 0)  # one long name may stand there a million times
    return words.take(places)


def sorted_out(
    path: Path, columns: Mapping[str, Kind], keys: Sequence[str] = KEYS
) -> tuple[str, list[str], list[tuple[str, Kind]]]:
    """The column that names the rows, or "", those that may be labels, and the others with their types.

    Raises:
        InputError: Where none of the columns that by their names should name the rows can.
    """
    present = key_columns(columns, keys)
    key = next((name for name in present if can_name(columns[name])), "")
    if present and not key:
        raise InputError(
            f"{path}: {present[0]} must name the rows by text, whole numbers, UUIDs or a struct with a path, got "
            f"{columns[present[0]]}; leave it out, name them in another column, or go by row numbers"
            + ("; its images are packed by the layout parquet" if present[0] in images(columns) else "")
        )
    unfit = {name for name in present if not can_name(columns[name])}
    unfit |= {name for name in columns if name.startswith("__index_level_")}  # pandas' own numbers of rows
    others = [name for name, kind in columns.items() if name != key and name not in unfit and can_label(kind)]
    taken = {key, *others}
    rest: list[tuple[str, Kind]] = [(name, kind) for name, kind in columns.items() if name not in taken]
    return key, others, rest


def leaf(schema: pa.Schema, name: str) -> str:
    """What Parquet is asked for to read a column of names or labels: of a struct with a path only that."""
    return f"{name}.path" if has_path(schema.field(name).type) else name


def aside(path: Path, columns: Sequence[tuple[str, Kind]]) -> str:
    """A note of columns that are neither vector, name nor label."""
    shown = ", ".join(f"{name or 'one without a name'} ({kind})" for name, kind in columns)
    return f"Left aside of {path.name!r}, as neither vectors, names nor labels: {shown}."
