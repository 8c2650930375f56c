"""A pack's folder: its files, read back and checked before they are believed."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from veil.data import about, framing
from veil.data.splits import SPLITS
from veil.errors import InputError, printable_json
from veil.foreign import (
    LIST,
    LISTS_OF_TEXTS,
    OBJECT,
    REALS,
    SHA256,
    TEXT,
    TEXTS,
    Header,
    Rule,
    among,
    check_fields,
    each,
    either,
    is_real,
    is_whole,
    one_line,
    opened,
    parsed_json,
    read_json,
    real,
    whole,
)
from veil.parquet import check_expanded, open_parquet, validated

SCHEMA = 1
RESERVED = ("source", "split")
"""Columns of ``labels.parquet`` that are no labels."""
CHECKED = "checked.json"
MARKS = "veil.predicted"
"""In the metadata of a Parquet file what ``predicted`` is in ``pack.json``."""


def read_meta(path: Path) -> dict[str, Any]:
    """``pack.json``, with the keys and types that the rest relies on."""
    if not path.is_dir():
        raise InputError(f"{path}: {'not a pack (a file)' if path.exists() else 'no such folder'}")
    card = path / "pack.json"
    try:
        meta = read_json(card)
    except FileNotFoundError:
        raise InputError(f"{path}: not a pack (it has no pack.json)") from None
    except OSError as error:
        raise InputError(f"{card}: cannot be read ({one_line(error)})") from None
    if not isinstance(meta, dict) or "schema" not in meta:
        raise InputError(f"{card}: not the description of a pack (no schema)")
    if meta["schema"] != SCHEMA or isinstance(meta["schema"], bool):
        raise InputError(f"{card}: schema {meta['schema']!r}; this version of Veil reads {SCHEMA}")
    try:
        check_fields(meta, "", _CARD, _NEEDED)
        for name, entry in meta["files"].items():
            check_fields(entry, f"files.{name}", _FILE, list(_FILE))
        if meta.get("pictures") is not None:
            check_fields(meta["pictures"], "pictures", framing.RULES, list(framing.RULES))
        check_marks(meta.get("predicted", {}), list(meta["classes"]))
        about.check(meta.get("about", {}))
    except ValueError as error:
        raise InputError(f"{card}: damaged ({one_line(error)})") from None
    return dict(meta)


def _is_crop(x: Any) -> bool:
    inside = isinstance(x, list | tuple) and len(x) == 4 and all(is_real(side, 0, 1) for side in x)
    return inside and x[0] < x[2] and x[1] < x[3]


CROP: Rule = ("left, top, right and bottom as fractions, left < right and top < bottom", _is_crop)
_CARD: Mapping[str, Rule] = {
    "schema": whole(SCHEMA, SCHEMA),
    **dict.fromkeys(("veil", "layout"), TEXT),
    "kind": among("images", "vectors"),
    "shape": each("whole numbers, the sides of an array", lambda x: is_whole(x, 0)),
    "size": either(whole(1, 2**16)),
    "channels": either(whole(1, 3)),
    "crop": either(CROP),
    **dict.fromkeys(("pictures", "decoder"), either(OBJECT)),
    "aligned": either(LIST),
    **dict.fromkeys(("seed", "skipped"), whole(0)),
    "disjoint_by": either(TEXT),
    **dict.fromkeys(("columns", "warnings", "notes"), TEXTS),
    "fractions": either(REALS),
    **dict.fromkeys(("splits", "files"), OBJECT),
    "classes": LISTS_OF_TEXTS,
    **dict.fromkeys(("predicted", "about"), OBJECT),
}
"""What stands in ``pack.json``."""
_MARK: Mapping[str, Rule] = {"file": TEXT, "sha256": SHA256, "confidence": real(0, 1)}
"""What it says of a label that a classifier guessed: :class:`veil.data.pack.Predicted`."""
_NEEDED = ("kind", "shape", "classes", "files")
_FILE: Mapping[str, Rule] = {"bytes": whole(0), "sha256": SHA256}


def check_files(path: Path, meta: Mapping[str, Any], verify: bool) -> None:
    """Sizes, and SHA-256 on demand and where a file's time is not the one that is known, against ``pack.json``."""
    data = "vectors.npy" if meta["kind"] == "vectors" else "images.npy"
    known, seen = read_checked(path), {}
    for name in sorted({data, "labels.parquet", *meta["files"]}):
        if name not in meta["files"] or name not in (data, "labels.parquet", "pairs.npy"):
            raise InputError(f"{path / 'pack.json'}: damaged (its list of files has a wrong entry for {name!r})")
        try:
            stat = (path / name).stat()
        except OSError:
            raise InputError(f"{path}: the pack is incomplete: {name} is missing") from None
        size, digest = meta["files"][name]["bytes"], meta["files"][name]["sha256"]
        if stat.st_size != size:
            raise InputError(f"{path / name}: {stat.st_size} bytes, but {size} were written")
        seen[name] = [size, stat.st_mtime_ns, digest]
        if (verify or known.get(name) != seen[name]) and sha256(path / name) != digest:
            raise InputError(f"{path / name}: its SHA-256 is not the one in pack.json; the file was changed")
    if seen != known:
        write_checked(path, seen)


def check_marks(marks: Any, labels: Sequence[str]) -> None:
    """Raises ValueError for what does not say of some of these labels by what they were guessed."""
    check_fields(marks, "predicted", dict.fromkeys(labels, OBJECT))
    for name, mark in marks.items():
        check_fields(mark, f"predicted.{name}", _MARK, list(_MARK))


def marks_in(path: Path, labels: Sequence[str]) -> dict[str, Any]:
    """The labels of a Parquet file that were guessed, and by what, as its metadata says; raises InputError."""
    if not path.is_file() or path.suffix.lower() not in (".parquet", ".pq"):
        return {}
    with open_parquet(path) as (_, schema):
        text = (schema.metadata or {}).get(MARKS.encode())
    try:
        marks = {} if text is None else parsed_json(text.decode())
        check_marks(marks, labels)
    except ValueError as error:
        raise InputError(f"{path}: its metadata {MARKS} is damaged ({one_line(error)})") from None
    return dict(marks)


def seal(folder: Path, meta: Mapping[str, Any], names: Sequence[str]) -> None:
    """Writes ``pack.json``, with the sizes and hashes of these files, and what is known of them, last."""
    seen = {n: [(folder / n).stat().st_size, (folder / n).stat().st_mtime_ns, sha256(folder / n)] for n in names}
    held = {n: {"bytes": size, "sha256": digest} for n, (size, _, digest) in seen.items()}
    text = json.dumps({**meta, "files": held}, indent=1, ensure_ascii=False)
    (folder / "pack.json").write_text(printable_json(text) + "\n", "utf-8")
    write_checked(folder, seen)


def read_checked(path: Path) -> dict[str, Any]:
    """What is known of the files; nothing where that cannot be read, for then they are."""
    try:
        known = read_json(path / CHECKED)
    except (OSError, InputError):
        return {}
    return known if isinstance(known, dict) else {}


def write_checked(path: Path, seen: Mapping[str, Sequence[Any]]) -> None:
    """Keep the size, time of change (ns) and SHA-256 of a pack's files, by name, where the folder can be written to."""
    temporary = path / f".{CHECKED}.{secrets.token_hex(4)}"
    with suppress(OSError):
        try:
            temporary.write_text(json.dumps(seen, sort_keys=True) + "\n", "utf-8")
            temporary.replace(path / CHECKED)
        finally:
            temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mapped(path: Path) -> NDArray[Any]:
    try:
        with opened(path) as file:
            header = Header.read(file, os.fstat(file.fileno()).st_size)
        if header.fortran:
            raise InputError(f"{path}: its rows do not lie one after the other (Fortran order)")
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except InputError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not an array of numbers, or cut off ({one_line(error)})") from None
    return array


def read_labels(
    path: Path, classes: Mapping[str, list[str]], n: int
) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int8], NDArray[Any]]:
    """Codes per label, the split and the sources."""
    with open_parquet(path) as (file, schema):
        columns, rows = schema.names, file.metadata.num_rows
        if sorted(columns) != sorted([*RESERVED, *classes]):
            raise InputError(f"{path}: columns {columns} where pack.json expects {[*RESERVED, *classes]}")
        if rows != n:
            raise InputError(f"{path}: {rows} rows for {n} images or vectors")
        table = validated(file.read())
    source = table["source"].combine_chunks()
    if not (pa.types.is_dictionary(source.type) and pa.types.is_string(source.type.value_type)) or source.null_count:
        raise InputError(f"{path}: column source must be a text in each row, got {source.type}")
    longest = pc.max(pc.utf8_length(source.dictionary)).as_py() or 0
    check_expanded(path, "column source", n * longest)  # as many for each as for the longest
    split = _codes(path, "split", table["split"], SPLITS)
    if np.any(split < 0):
        raise InputError(f"{path}: row {int(np.argmin(split))} has no split")
    labels = {name: _codes(path, name, table[name], names) for name, names in classes.items()}
    return labels, split.astype(np.int8), np.asarray(source.to_pylist(), dtype=np.str_)


def _codes(path: Path, name: str, column: pa.ChunkedArray, classes: Sequence[str]) -> NDArray[np.int64]:
    """A dictionary column as codes into ``classes``, whatever order the file's own dictionary has."""
    code = {c: i for i, c in enumerate(classes)}
    out = np.full(len(column), -1, np.int64)
    start = 0
    for chunk in column.chunks:
        if not pa.types.is_dictionary(chunk.type) or not pa.types.is_string(chunk.type.value_type):
            raise InputError(f"{path}: column {name} is {chunk.type}, not a dictionary of strings")
        words = chunk.dictionary.to_pylist()
        unknown = [w for w in words if w not in code]
        if unknown:
            raise InputError(f"{path}: column {name} holds {unknown[0]!r}, which pack.json does not list")
        table = np.array([code[w] for w in words] or [-1], np.int64)
        picked = chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        out[start : start + len(chunk)] = np.where(picked < 0, -1, table[picked])
        start += len(chunk)
    return out


def check_pairs(pairs: NDArray[Any], n: int, name: str) -> None:
    if pairs.dtype != np.int64 or pairs.ndim != 2 or pairs.shape[1] != 4:
        raise InputError(f"{name}: {pairs.dtype} {pairs.shape} is not int64 (P, 4)")
    if len(pairs) and (pairs.min() < 0 or pairs[:, :2].max() >= n or pairs[:, 2].max() > 1):
        raise InputError(f"{name}: rows must lie in 0..{n - 1}, 'same' must be 0 or 1, folds must not be negative")
