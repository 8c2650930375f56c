"""Tables of encoded images in Parquet, as Hugging Face keeps them: a file, or a folder of files with the same columns.

An image is a struct of ``bytes`` and ``path``, or bytes alone. It is never looked for at its path: whoever made the
table could name any file of the reader's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from veil.data import columns as kinds
from veil.data.classes import few
from veil.data.columns import Kind, plain
from veil.data.decode import MAX_BYTES
from veil.data.tablefile import classes_of, features_of, rows_from, whole_columns
from veil.errors import InputError
from veil.foreign import most_unpacked
from veil.parquet import check_alike, open_parquet, reading, shards, size_of

Encoded = tuple[bytes | None, str]
"""An encoded image and "", or None and why there is none."""


@dataclass(frozen=True, kw_only=True)
class ImageTable:
    """A table of images; nothing of it is read before it is asked for.

    Attributes:
        path: The file or folder.
        files: What it is made of.
        n: Number of rows.
        column: The column of images.
        keys: Columns that may name rows, the first best.
        labels: Columns that may be labels.
        aside: The other columns, and what they hold.
    """

    path: Path
    files: Sequence[Path]
    n: int
    column: str
    keys: tuple[str, ...]
    labels: tuple[str, ...]
    aside: tuple[tuple[str, Kind], ...]

    def images(self, start: int = 0) -> Iterator[Encoded]:
        """The images of the rows from ``start`` on: one at a time, as each may be as large as any.

        Raises:
            InputError: The file is damaged; or one image stands there so often that all are more than it may unpack to.
        """
        size, read = size_of(self.path), 0
        with reading(self.path):
            for batch in rows_from(self.files, start, 1, [self.column], _bytes_alone):
                data, problem = _encoded(batch.column(0)[0].as_py())
                read += len(data or b"")
                if read > (most := most_unpacked(size)):
                    raise InputError(f"{self.path}: must unpack to at most {most:,} bytes from {size:,}, got more")
                yield data, problem

    def names(self) -> tuple[str, list[str]]:
        """The first column that gives every row a name of its own, and the names; "" and numbers where none does."""
        with reading(self.path):
            for key in self.keys:
                column = whole_columns(self.files, [key])[key]
                try:
                    names = kinds.names(column, key, self.path).to_pylist()
                except InputError:  # of a row that has no name, or too long a one
                    continue
                if len({plain(name) for name in names}) == self.n:
                    return key, names
        return "", self.numbers()

    def numbers(self) -> list[str]:
        """The rows' numbers, for names."""
        return [str(row) for row in range(self.n)]

    def columns(self) -> dict[str, pa.ChunkedArray]:
        """The labels; raises InputError where a number stands for no class."""
        with reading(self.path):
            return whole_columns(self.files, self.labels)


def open_images(path: Path, column: str | None = None) -> ImageTable:
    """Finds the images in a Parquet file, or in a folder of such files.

    Args:
        path: The file or folder.
        column: The column of images, where there are several.

    Raises:
        InputError: If there is no such file, it is damaged or no Parquet, holds no images, or several columns of them
            with none chosen; or if the files of a folder do not have the same columns and classes.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    files = shards(path)
    n = 0
    for each in files:
        with open_parquet(each) as (file, schema):
            if each == files[0]:
                first, features = schema, features_of(schema)
            check_alike(each, schema, files[0], first)
            if classes_of(schema) != classes_of(first):
                raise InputError(f"{each}: must name the classes that {files[0].name} names, got others")
            n += file.metadata.num_rows
    if twice := kinds.repeated(first.names):
        raise InputError(f"{path}: column {twice!r} stands there more than once")
    columns = {field.name: field.type for field in first}
    chosen = _chosen(path, columns, features, column)
    rest: dict[str, Kind] = {name: kind for name, kind in columns.items() if name != chosen}
    named = kinds.key_columns(rest)
    keys = [name for name in named if kinds.can_name(rest[name]) and not kinds.has_path(rest[name])]
    if kinds.has_path(columns[chosen]) and kinds.can_name(columns[chosen]):
        keys.append(chosen)
    labels = [
        name for name, kind in rest.items()
        if kinds.can_label(kind) and not pa.types.is_floating(kind) and name not in named
        and not name.startswith("__index_level_")
    ]  # fmt: skip
    aside = [(name, kind) for name, kind in rest.items() if name not in {*keys, *labels}]
    return ImageTable(
        path=path, files=files, n=n, column=chosen, keys=tuple(keys), labels=tuple(labels),
        aside=tuple(aside),
    )  # fmt: skip


def _chosen(path: Path, columns: Mapping[str, Any], features: Mapping[str, Any], column: str | None) -> str:
    """The column of images."""
    several = [name for name in kinds.images(columns) if features.get(name, {}).get("_type", "Image") == "Image"]
    if column is not None:
        if not kinds.is_images(columns.get(column, "")):
            raise InputError(f"{path}: column {column!r} is none of images ({few(several) or 'there is none'})")
        return column
    if len(several) > 1:
        raise InputError(f"{path}: several columns hold images ({few(several)}); set image to one")
    if not several:
        there = few([f"{name} ({kind})" for name, kind in columns.items()])
        raise InputError(f"{path}: no column holds images, as bytes or as structs of bytes and path; it has {there}")
    return several[0]


def _bytes_alone(schema: pa.Schema, name: str) -> str:
    return f"{name}.bytes" if pa.types.is_struct(schema.field(name).type) else name


def _encoded(value: Any) -> Encoded:
    if value is None:
        return None, "no image"
    data = value["bytes"] if isinstance(value, dict) else value
    if data is None:
        return None, "no bytes of an image; a file that its path names is never opened"
    return (data, "") if len(data) <= MAX_BYTES else (None, f"more than {MAX_BYTES // 2**20} MiB")
