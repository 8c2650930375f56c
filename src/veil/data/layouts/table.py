"""Tables of labels: CSV, Parquet or another pack, and how their rows find the images they speak of."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from veil.data.layouts.listing import Pair, clean
from veil.data.pack import SPLITS, Pack, class_name, few
from veil.errors import InputError

KEYS = ("source", "file", "filename", "path", "image")
"""Columns that may name the image, the first that is there wins."""

UNKNOWN = ["", "NA", "NaN", "nan"]
"""Cells of a CSV file that mean that a label is unknown."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Labels by row.

    Attributes:
        path: Where they come from.
        key: The column that names the rows' sources; "" where there is none.
        names: The rows' sources; the row numbers where there is no key.
        codes: For each label int32 ``(N,)``, -1 for unknown.
        classes: For each label its class names.
        split: The rows' splits, or None where the table has no such column.
        pairs: A pack's pairs, by its sources.
        notes: What was left out.
    """

    path: Path
    key: str
    names: list[str]
    codes: dict[str, NDArray[np.int32]]
    classes: dict[str, list[str]]
    split: list[str | None] | None = None
    pairs: list[Pair] | None = None
    notes: tuple[str, ...] = ()

    def row(self, i: int) -> dict[str, str | None]:
        """The labels of row i; of no row (all unknown) where i is -1."""
        if i < 0:
            return {}
        return {name: self.classes[name][c] if (c := codes[i]) >= 0 else None for name, codes in self.codes.items()}

    def split_of(self, i: int) -> tuple[str | None, str]:
        """The split that row i prescribes, and what is wrong where this table prescribes splits but not this one."""
        if self.split is None:
            return None, ""
        name = clean(self.path.name)
        if i < 0:
            return None, f"no row in {name}, which prescribes the splits"
        split = self.split[i]
        return split, "" if split else f"no split in {name}, which prescribes the splits"


def read(path: Path, keys: Sequence[str] = KEYS, *, rows: int | None = None) -> Table:
    """Reads a CSV or Parquet file, or takes the labels, splits and pairs of another pack.

    Args:
        path: The file, or the pack's folder.
        keys: Columns that may name the rows' sources.
        rows: How many rows a file without a key column must have to be taken row by row; None to refuse such a file.

    Raises:
        InputError: The file cannot be read, has no key column, names one source twice, or a split that is none.
    """
    if path.is_dir():
        return _of_pack(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file of labels")
    try:
        columns = _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _csv(path)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    table = build(path, columns, keys)
    if not table.key and rows is None:
        raise InputError(f"{path}: no column names the image ({', '.join(keys)}); it has {few(list(columns), 8)}")
    if not table.key and len(table.names) != rows:
        raise InputError(f"{path}: names no rows, so it must have {rows} of them, got {len(table.names)}")
    return table


def build(path: Path, columns: Mapping[str, pa.ChunkedArray | pa.Array], keys: Sequence[str]) -> Table:
    """A table out of columns; the first key column names the rows, ``split`` prescribes, the others are labels."""
    present = [key for key in keys if key in columns]
    key = present[0] if present else ""
    n = len(next(iter(columns.values()))) if columns else 0
    names = [str(i) for i in range(n)]
    if key:
        names = _names(path, key, columns[key])
    notes = [f"Column {column} of {path.name} is not used as a label." for column in present[1:]]
    codes, classes = {}, {}
    for name, column in columns.items():
        if name in present:
            continue
        if not name:
            notes.append(f"A column of {path.name} has no name and is not used.")
            continue
        codes[name], classes[name] = _encode(path, name, column)
    split = None
    if "split" in codes:
        words, which = classes.pop("split"), codes.pop("split")
        for word in words:
            if word not in SPLITS:
                raise InputError(f"{path}: split {word!r} must be one of {', '.join(SPLITS)}")
        split = [words[c] if c >= 0 else None for c in which.tolist()]
    return Table(path=path, key=key, names=names, codes=codes, classes=classes, split=split, notes=tuple(notes))


def join(table: Table, names: Sequence[str], prefix: str = "") -> NDArray[np.int64]:
    """For each of the sources the row of the table that speaks of it, -1 where none does.

    A row speaks of a source if its key is the source's name, or ``prefix/`` and that name; else, if one of the two has
    no folder, by the file's name alone, provided that this is unique among what is left on both sides.
    """
    index = {_plain(name): row for row, name in enumerate(table.names)}
    found = np.full(len(names), -1, np.int64)
    for i, name in enumerate(names):
        row = index.get(name, -1)
        found[i] = index.get(f"{prefix}/{name}", -1) if row < 0 and prefix else row
    left = _unique_by_file((i, names[i]) for i in np.flatnonzero(found < 0).tolist())
    used = set(found.tolist())
    unused = _unique_by_file((row, name) for name, row in index.items() if row not in used)
    for file, row in unused.items():
        i = left.get(file, -1)
        if row >= 0 and i >= 0 and ("/" not in names[i] or "/" not in _plain(table.names[row])):
            found[i] = row
    return found


def join_notes(table: Table, names: Sequence[str], found: NDArray[np.int64], what: str) -> list[str]:
    """What the join left over on both sides; raises InputError where nothing was joined."""
    if len(names) and len(table.names) and not np.any(found >= 0):
        raise InputError(
            f"{table.path}: none of its rows names one of the {what} (its column {table.key} holds "
            f"{table.names[0]!r}; the first of the {what} is {names[0]!r})"
        )
    notes = []
    without = np.flatnonzero(found < 0)
    if len(without):
        notes.append(f"{len(without)} of the {what} have no row in {table.path.name} (the first: {names[without[0]]}).")
    spare = np.setdiff1d(np.arange(len(table.names)), found)
    if len(spare):
        notes.append(
            f"{len(spare)} rows of {table.path.name} name none of the {what} (the first: {table.names[spare[0]]})."
        )
    return notes


def _plain(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _unique_by_file(entries: Any) -> dict[str, int]:
    """File name to number, or to -1 where several share the file name."""
    out: dict[str, int] = {}
    for number, name in entries:
        file = name.rpartition("/")[2]
        out[file] = number if file not in out else -1
    return out


MOST_LETTERS = 1024
"""Of a name: arrays of names take as much for each as for the longest."""


def _names(path: Path, key: str, column: pa.ChunkedArray | pa.Array) -> list[str]:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise InputError(f"{path}: row {row + 1} names no {key}")
    names = [str(name) for name in column.to_pylist()]
    if (longest := max(map(len, names), default=0)) > MOST_LETTERS:
        row = next(row for row, name in enumerate(names) if len(name) == longest)
        raise InputError(f"{path}: {key} of row {row} has {longest:,} characters; names have at most {MOST_LETTERS:,}")
    seen: set[str] = set()
    for name in names:
        if _plain(name) in seen:
            raise InputError(f"{path}: {name!r} stands in column {key} more than once")
        seen.add(_plain(name))
    return names


def _encode(path: Path, name: str, column: pa.ChunkedArray | pa.Array) -> tuple[NDArray[np.int32], list[str]]:
    """Codes and class names of a column of strings, numbers or booleans."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    plain = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_floating)
    if pa.types.is_null(kind):
        return np.full(len(column), -1, np.int32), []
    if not pa.types.is_boolean(kind) and not any(test(kind) for test in plain):
        raise InputError(f"{path}: column {name} is {kind}; labels are strings, numbers or booleans")
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = column.dictionary_encode()
    words = [class_name(value) for value in encoded.dictionary.to_pylist()]
    classes = sorted({word for word in words if word is not None})
    code = {word: i for i, word in enumerate(classes)}
    table = np.array([*(-1 if word is None else code[word] for word in words), -1], np.int32)
    return table[encoded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)], classes


def _parquet(path: Path) -> dict[str, pa.ChunkedArray]:
    # ParquetFile rather than read_table: names of folders above the file (such as a=b) are no columns of it.
    with path.open("rb") as file:  # pyarrow itself opens no path that is not UTF-8
        table = pq.ParquetFile(file).read()
    return _columns(path, table.column_names, table)


def _csv(path: Path) -> dict[str, pa.ChunkedArray]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        delimiter = max(",;\t", key=first.count)
        file.seek(0)
        header = next(csv.reader(file, delimiter=delimiter), [])
    if not header:
        raise InputError(f"{path}: empty")
    _check_unique(path, header)
    with path.open("rb") as data:
        table = pacsv.read_csv(
            data,
            read_options=pacsv.ReadOptions(use_threads=False),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(column_types={name: pa.string() for name in header}),
        )
    for name, column in zip(table.column_names, table.columns, strict=True):
        if (place := pc.index(pc.match_substring(column, "\n"), True).as_py()) >= 0:
            raise InputError(
                f"{path}: column {name} of row {place} holds a line break: a quote may have been left open"
            )
    table = pa.table([_known(column) for column in table.columns], names=table.column_names)
    return _columns(path, header, table)


def _known(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of strings, null where they mean unknown, with spaces around them or without."""
    unknown = pc.is_in(pc.utf8_trim_whitespace(column), value_set=pa.array(UNKNOWN))
    return pc.if_else(unknown, pa.scalar(None, pa.string()), column)


def _columns(path: Path, header: Sequence[str], table: pa.Table) -> dict[str, pa.ChunkedArray]:
    _check_unique(path, header)
    return {name.strip(): table.column(i) for i, name in enumerate(header)}


def _check_unique(path: Path, header: Sequence[str]) -> None:
    names = [name.strip() for name in header]
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: column {twice[0]!r} stands there more than once")


def _of_pack(path: Path) -> Table:
    pack = Pack.open(path)
    names = pack.sources.tolist()
    pairs = None
    if pack.pairs is not None:
        pairs = [(names[a], names[b], bool(same), fold) for a, b, same, fold in pack.pairs.tolist()]
    return Table(
        path=path,
        key="source",
        names=names,
        codes={name: codes.astype(np.int32) for name, codes in pack.labels.items()},
        classes={name: list(classes) for name, classes in pack.classes.items()},
        split=[SPLITS[code] for code in pack.split.tolist()],
        pairs=pairs,
    )
