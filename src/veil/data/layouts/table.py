"""Tables of labels: CSV, Parquet or another pack, and how their rows find the images they speak of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from veil.data import columns as kinds
from veil.data.classes import column_classes, few, nothing_note
from veil.data.columns import IMAGE_KEYS, key_columns, nfc, plain
from veil.data.csvfile import CsvFile, open_csv
from veil.data.decode import kind_of
from veil.data.layouts.listing import Pair, Remarks, clean
from veil.data.pack import SPLITS, Pack, Predicted
from veil.data.tablefile import whole_columns
from veil.errors import InputError
from veil.foreign import MOST_LETTERS
from veil.parquet import open_parquet, reading

_MOST_COLUMNS = 4096
_ROWS = 1 << 16  # of a CSV file that are held as lists at a time

Columns = Mapping[str, pa.ChunkedArray | pa.Array]


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
        predicted: Of a pack's labels those that a classifier guessed, and by what.
    """

    path: Path
    key: str
    names: list[str]
    codes: dict[str, NDArray[np.int32]]
    classes: dict[str, list[str]]
    split: list[str | None] | None = None
    pairs: list[Pair] | None = None
    notes: tuple[str, ...] = ()
    predicted: Mapping[str, Predicted] = field(default_factory=dict)

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

    def pairs_of(self, names: Sequence[str], rows: NDArray[np.int64]) -> list[Pair] | None:
        """The pairs by the names of the sources that :func:`join` gave these rows."""
        if self.pairs is None:
            return None
        name = {self.names[row]: names[i] for i, row in enumerate(rows.tolist()) if row >= 0}
        return [(name.get(a, a), name.get(b, b), same, fold) for a, b, same, fold in self.pairs]


def read(path: Path, keys: Sequence[str] = IMAGE_KEYS, *, rows: int | None = None) -> Table:
    """Reads a CSV or Parquet file, or takes the labels, splits and pairs of another pack.

    Args:
        path: The file, or the pack's folder.
        keys: Columns that may name the rows' sources, as :func:`veil.data.columns.key_columns` reads them.
        rows: How many rows a file without a key column must have to be taken row by row; None to refuse such a file.

    Raises:
        InputError: The file cannot be read, has no key column or one that cannot name rows, names one source twice, or
            a split that is none.
    """
    if path.is_dir():
        return _of_pack(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file of labels")
    if path.suffix.lower() in (".parquet", ".pq"):
        columns, aside = _parquet(path, keys)
        doubt = ""
    else:
        file = open_csv(path)
        columns, aside, doubt = _csv(file, keys, rows), [], file.doubt
    table = build(path, columns, keys, aside)
    if not table.key and rows is None:
        there = few(list(columns), 8)
        raise InputError(f"{path}: no column names the image ({', '.join(keys)}); it has {there}{doubt}")
    if not table.key and len(table.names) != rows:
        raise InputError(f"{path}: names no rows, so it must have {rows} of them, got {len(table.names)}")
    return table


def build(path: Path, columns: Columns, keys: Sequence[str], aside: Sequence[tuple[str, kinds.Kind]] = ()) -> Table:
    """A table out of columns; the first key column names the rows, ``split`` prescribes, the others are labels.

    Args:
        path: Where they come from.
        columns: Of types that :mod:`veil.data.columns` takes for names or labels.
        keys: Columns that may name the rows.
        aside: Other columns that were left aside, and their types.
    """
    present = key_columns(columns, keys)
    key = present[0] if present else ""
    n = len(next(iter(columns.values()))) if columns else 0
    check_width(path, columns)
    names = [str(i) for i in range(n)]
    if key:
        names = _names(path, key, columns[key])
    notes = [f"Column {column!r} of {path.name!r} is not used as a label." for column in present[1:]]
    aside = list(aside)
    codes: dict[str, NDArray[np.int32]] = {}
    classes: dict[str, list[str]] = {}
    for column, values in columns.items():
        name = nfc(column).strip()
        if column in present:
            continue
        if not name:
            notes.append(f"A column of {path.name!r} has no name and is not used.")
            continue
        if name in codes:
            raise InputError(f"{path}: column {name!r} stands there more than once")
        numbers, words, nothing = _encode(values)
        if max(map(len, words), default=0) > MOST_LETTERS:
            aside.append((column, f"text of more than {MOST_LETTERS:,} letters"))
            continue
        codes[name], classes[name] = numbers, words
        notes += [nothing_note(name, nothing)] if nothing else []
    split = None
    if "split" in codes:
        words, which = classes.pop("split"), codes.pop("split")
        for word in words:
            if word not in SPLITS:
                raise InputError(f"{path}: split {word!r} must be one of {', '.join(SPLITS)}")
        split = [words[c] if c >= 0 else None for c in which.tolist()]
    notes += [kinds.aside(path, aside)] if aside else []
    return Table(path=path, key=key, names=names, codes=codes, classes=classes, split=split, notes=tuple(notes))


def check_width(path: Path, columns: Sized) -> None:
    """Raises InputError for more columns than a data set has labels."""
    if len(columns) > _MOST_COLUMNS:
        raise InputError(
            f"{path}: must have at most {_MOST_COLUMNS:,} columns of names and labels, got {len(columns):,}"
        )


def join(table: Table, names: Sequence[str], prefix: str = "") -> NDArray[np.int64]:
    """For each of the sources the row of the table that speaks of it, -1 where none does.

    A row speaks of a source if its key is the source's name, or ``prefix/`` and that name; else, if one of the two has
    no folder, by the file's name alone, provided that this is unique among what is left on both sides. Where no row
    speaks of any source so, names are taken without their endings, which identifiers of images often lack. Names are
    compared as :func:`veil.data.columns.plain` writes them.
    """
    rows, wanted = [plain(name) for name in table.names], [plain(name) for name in names]
    places = _joined(rows, wanted, nfc(prefix))
    if np.any(places >= 0) or not any(map(_is_file, wanted)) or any(map(_is_file, rows)):
        return places
    stems = [name.rpartition(".")[0] if _is_file(name) else name for name in wanted]
    return places if len(set(stems)) < len(stems) else _joined(rows, stems, nfc(prefix))


def _is_file(name: str) -> bool:
    return kind_of(name) is not None


def _joined(rows: Sequence[str], wanted: Sequence[str], prefix: str) -> NDArray[np.int64]:
    """For each name that is wanted its row, -1 where it has none."""
    index = {name: row for row, name in enumerate(rows)}
    places = np.full(len(wanted), -1, np.int64)
    for i, name in enumerate(wanted):
        row = index.get(name, -1)
        places[i] = index.get(f"{prefix}/{name}", -1) if row < 0 and prefix else row
    left = _unique_by_file((i, wanted[i]) for i in np.flatnonzero(places < 0).tolist())
    used = set(places.tolist())
    unused = _unique_by_file((row, name) for name, row in index.items() if row not in used)
    for file, row in unused.items():
        i = left.get(file, -1)
        if row >= 0 and i >= 0 and ("/" not in wanted[i] or "/" not in rows[row]):
            places[i] = row
    return places


def tell_join(
    remarks: Remarks,
    table: Table,
    names: Sequence[str],
    places: NDArray[np.int64],
    what: str,
    refused: Sequence[bool] | None = None,
) -> None:
    """Says what the join left over on both sides; raises InputError where nothing was joined.

    Args:
        remarks: Takes what is said.
        table: Whose rows were joined.
        names: ``(n,)`` that rows may name.
        found: ``(n,)`` each one's row, or -1.
        what: What the names are of.
        refused: ``(n,)`` true for those that are not read, of which nothing is said here.
    """
    known = np.ones(len(names), bool) if refused is None else ~np.array(refused, bool)
    without = np.flatnonzero((places < 0) & known)
    if known.any() and len(table.names) and not np.any(places >= 0):
        raise InputError(
            f"{table.path}: none of its rows names one of the {what} (its column {table.key} holds "
            f"{table.names[0]!r}; the first of the {what} is {names[without[0]]!r})"
        )
    if len(without):
        remarks.lost(
            f"{len(without)} of the {what} have no row in {table.path.name!r} (the first: {names[without[0]]!r}).",
            len(without),
            int(known.sum()),
        )
    spare = np.setdiff1d(np.arange(len(table.names)), places)
    if len(spare):
        remarks.notes.append(
            f"{len(spare)} rows of {table.path.name!r} name none of the {what} (the first: {table.names[spare[0]]!r})."
        )


def _unique_by_file(entries: Iterable[tuple[int, str]]) -> dict[str, int]:
    """File name to number, or to -1 where several share the file name."""
    out: dict[str, int] = {}
    for number, name in entries:
        file = name.rpartition("/")[2]
        out[file] = number if file not in out else -1
    return out


def _names(path: Path, key: str, column: pa.ChunkedArray | pa.Array) -> list[str]:
    names: list[str] = kinds.names(column, key, path).to_pylist()
    seen: set[str] = set()
    for name in names:
        short = plain(name)
        if short in seen:
            raise InputError(f"{path}: {name!r} stands in column {key} more than once")
        seen.add(short)
    return names


def _encode(column: pa.ChunkedArray | pa.Array) -> tuple[NDArray[np.int32], list[str], int]:
    """Codes and class names of a column that can be a label, and how many of its rows hold words for nothing."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_null(column.type):
        return np.full(len(column), -1, np.int32), [], 0
    encoded = column if pa.types.is_dictionary(column.type) else kinds.usual(column).dictionary_encode()
    values = kinds.usual(encoded.dictionary).to_pylist()
    class_of = column_classes(value for value in values if value == value)  # a NaN is unequal to itself
    words = [class_of.get(value) for value in values]
    classes = sorted({word for word in words if word is not None})
    code = {word: i for i, word in enumerate(classes)}
    table = np.array([*(-1 if word is None else code[word] for word in words), -1], np.int32)
    places = encoded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
    void = np.array([isinstance(v, str) and bool(v.strip()) and w is None for v, w in zip(values, words, strict=True)])
    nothing = int(np.append(void, False)[places].sum())
    return table[places], classes, nothing


def _parquet(path: Path, keys: Sequence[str]) -> tuple[dict[str, pa.ChunkedArray], list[tuple[str, kinds.Kind]]]:
    """The columns that are names or labels; the others are not read, and told with their types."""
    with open_parquet(path) as (_, schema):
        if twice := kinds.repeated(name.strip() for name in schema.names):
            raise InputError(f"{path}: column {twice!r} stands there more than once")
        key, others, aside = kinds.sorted_out(path, {field.name: field.type for field in schema}, keys)
        taken = [*([key] if key else []), *others]
    check_width(path, taken)
    with reading(path):
        return whole_columns([path], taken), aside


def _csv(file: CsvFile, keys: Sequence[str], rows: int | None) -> dict[str, pa.ChunkedArray]:
    """All columns as text. Blank lines of a file with one column are rows, but for those beyond the number of rows."""
    check_width(file.path, file.header)
    keyed = bool(key_columns(file.header, keys))
    lines = file.records(keyed)
    chunks: list[list[pa.Array]] = []
    count = 0
    while some := list(islice(lines, _ROWS)):
        columns = zip(file.header, zip(*some, strict=True), strict=True)
        chunks.append([file.column(name, cells, count) for name, cells in columns])
        count += len(some)
    table = {name: pa.chunked_array([chunk[i] for chunk in chunks], pa.string()) for i, name in enumerate(file.header)}
    if rows is not None and len(table) == 1 and not keyed:
        ((name, column),) = table.items()
        while len(column) > rows and column[-1].as_py() == "":
            column = column.slice(0, len(column) - 1)
        table[name] = column
    if file.announced is not None:
        table = {name: _yes_or_no(column) for name, column in table.items()}
    return table


def _yes_or_no(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in words where it holds -1 and 1 alone, as CelebA's lists of attributes do."""
    if not set(pc.unique(column).to_pylist()) <= {"-1", "1"}:
        return column
    return pc.if_else(pc.equal(column, "1"), "yes", "no")


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
        predicted=pack.predicted,
    )
