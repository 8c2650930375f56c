"""Files of vectors, read piece by piece: Parquet, npz, npy and CSV.

Memory does not grow with the number of rows, whatever the size of the file's row groups; the exceptions are npy arrays
in Fortran order, whose rows do not lie together and which are read whole, and 8 bytes a row to find repeated names.

- Parquet: the vectors are a column of lists of floats (of fixed size or not). Where there is none, they are the columns
  of floats that share a name and differ in a number at its end (``v0`` ... ``v127``), or, if no columns do, all columns
  of floats; in the order of the file.
- CSV: in the same way; a column is one of floats if one of its first cells has a fraction or an exponent (or one of
  those numbered like it), and lists are written ``[0.1, 0.2]``, ``[0.1 0.2]`` or ``0.1 0.2``.
- npz: the array ``vectors`` or ``releases``, or the only array of floats with two axes.
- npy: the array, of floats with two axes.

What names the rows, and which other columns may be labels, :mod:`veil.data.columns` says; the rest is left aside.
"""

from __future__ import annotations

import lzma
import math
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from veil.data import columns as kinds
from veil.data.classes import NOTHING, few
from veil.data.columns import Kind, leaf, nfc, plain
from veil.data.csvfile import SUFFIXES as CSV_SUFFIXES
from veil.data.csvfile import CsvFile, open_csv
from veil.errors import InputError
from veil.foreign import MOST_LETTERS, Header, NoPlainArray, check_archive, one_line, opened
from veil.parquet import FREE_ROWS, FREE_VALUES, LISTED, check_lists, open_parquet, validated

SUFFIXES = (".parquet", ".pq", ".npz", ".npy", *CSV_SUFFIXES)
BATCH = 4096

USUAL = ("vectors", "releases", "vector", "release", "embeddings", "embedding", "emb", "features", "feature")
"""Names of columns of lists, or arrays, of which one is taken among several."""

Form = Literal["list", "columns", "npz", "npy"]
"""How vectors lie in a file: a table with a column of lists, or with a column a value (Parquet or CSV); npz, npy."""


Rows = Iterator[tuple[dict[str, pa.Array], NDArray[np.float32], NDArray[np.int64] | None]]
"""The columns asked for; vectors; and how many values each row has, where rows may differ."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows that follow one another.

    Attributes:
        start: Number of the first.
        names: Strings ``(m,)``: the rows' names, or their numbers where the file does not name them.
        vectors: float32 ``(m, d)``; what a row has too much or too little of is left out, what is null is NaN.
        problems: Why rows cannot be used, by their place in the block.
        columns: Others that were asked for, ``(m,)`` each.
    """

    start: int
    names: pa.Array
    vectors: NDArray[np.float32]
    problems: dict[int, str]
    columns: Mapping[str, pa.Array]


class _Reader(Protocol):
    """What differs between the kinds of files."""

    def rows(self, start: int, size: int, columns: Sequence[str], width: int) -> Rows: ...

    def names(self, key: str, size: int) -> Iterator[pa.Array]: ...

    def columns(self, names: Sequence[str], n: int) -> dict[str, pa.ChunkedArray | pa.Array]: ...


@dataclass(frozen=True, kw_only=True)
class VectorFile:
    """A file of vectors; nothing of it is read before it is asked for.

    Attributes:
        path: The file.
        form: How the vectors lie in it.
        n: Number of rows.
        width: Values in a row: in most of the first rows, where rows may differ.
        key: The column that names the rows; "" where there is none.
        others: The columns beside vectors and key that may be labels.
        aside: The columns that are neither, and what they hold.
        dimensions: Names, in NFC, of the columns that the values stand in, where each stands in its own.
    """

    path: Path
    form: Form
    n: int
    width: int
    key: str
    others: tuple[str, ...]
    aside: tuple[tuple[str, Kind], ...] = ()
    dimensions: tuple[str, ...] = ()
    _reader: _Reader = field(repr=False)

    @property
    def note(self) -> str:
        """Which columns the values stand in; "" where they are not columns of their own."""
        if not self.dimensions:
            return ""
        return f"Vectors are {self.width} columns of {self.path.name!r}: {few(self.dimensions)}."

    def blocks(
        self, start: int = 0, size: int = BATCH, *, named: bool = True, columns: Sequence[str] = ()
    ) -> Iterator[Block]:
        """The rows from ``start`` on, ``size`` at a time; by their numbers alone unless ``named``.

        Raises:
            InputError: If the file is damaged, or a row has no name where others have one, or too long a one.
        """
        key = [self.key] if named and self.key else []
        with _readable(self.path):
            for found, vectors, lengths in self._reader.rows(start, size, [*key, *columns], self.width):
                if key:
                    names = kinds.names(found[self.key], self.key, self.path, start)
                else:
                    names = pa.array([str(i) for i in range(start, start + len(vectors))], pa.string())
                others = {name: found[name] for name in columns}
                problems = _problems(vectors, lengths)
                yield Block(start=start, names=names, vectors=vectors, problems=problems, columns=others)
                start += len(vectors)

    def columns(self, names: Sequence[str]) -> dict[str, pa.ChunkedArray | pa.Array]:
        """Whole columns beside the vectors; raises InputError for arrays that hold no labels."""
        with _readable(self.path):
            return self._reader.columns(names, self.n)

    def repeated(self) -> str | None:
        """A name that stands in the file more than once, as names are compared; None where all differ."""
        if not self.key:
            return None
        with _readable(self.path):  # which has fewer rows than it says, perhaps
            hashes = np.fromiter((hash(plain(name)) for name in self.names()), np.int64, self.n)
        hashes.sort()
        twice = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        names = map(plain, self.names())
        counts = Counter(name for name in names if hash(name) in twice) if twice else Counter()
        return next((name for name, count in counts.items() if count > 1), None)  # equal hashes may be of other names

    def names(self) -> Iterator[str]:
        """The rows' names alone, or their numbers where the file does not name them."""
        if not self.key:
            yield from map(str, range(self.n))
            return
        start = 0
        with _readable(self.path):
            for some in self._reader.names(self.key, BATCH):
                names = kinds.names(some, self.key, self.path, start)
                start += len(names)
                yield from names.to_pylist()


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What is asked of a file; as for :func:`open_vectors`."""

    column: str | None
    dimensions: tuple[str, ...]
    named: bool

    def sorted_out(self, path: Path, columns: Mapping[str, Kind]) -> tuple[str, list[str], list[tuple[str, Kind]]]:
        """As :func:`veil.data.columns.sorted_out`; where rows go by their numbers, columns of names are left aside."""
        if self.named:
            return kinds.sorted_out(path, columns)
        names = kinds.key_columns(columns)
        rest = {name: kind for name, kind in columns.items() if name not in names}
        _, others, aside = kinds.sorted_out(path, rest, ())
        return "", others, [*aside, *((name, columns[name]) for name in names)]


def open_vectors(
    path: Path, column: str | None = None, *, dimensions: Sequence[str] = (), named: bool = True
) -> VectorFile:
    """Finds the vectors in a file.

    Args:
        path: Must end in one of :data:`SUFFIXES`.
        column: The column of lists, the shared name of the numbered columns, several columns of numbers as ``A,B,C``,
            or the array, where it is not clear.
        dimensions: The columns that the values of vectors must stand in, in this order, where each has its own.
        named: Whether a column may name the rows; else their numbers do.

    Raises:
        InputError: If the file is missing or damaged, or holds no vectors, or several with none chosen; if it lacks
            one of the dimensions, or has a column beside them; or if what should name its rows cannot.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: {'not a file' if path.exists() else 'no such file'}; must be a .parquet, .npz, .npy or .csv"
        )
    openers: dict[str, Callable[[Path, _Wanted], VectorFile]] = {
        ".parquet": _open_parquet,
        ".pq": _open_parquet,
        ".npz": _open_npz,
        ".npy": _open_npy,
        **dict.fromkeys(CSV_SUFFIXES, _open_csv),
    }
    if path.suffix.lower() not in openers:
        raise InputError(f"{path}: must end in .parquet, .npz, .npy or .csv")
    with _readable(path):
        wanted = _Wanted(column=column, dimensions=tuple(dimensions), named=named)
        found = openers[path.suffix.lower()](path, wanted)
        values, size = min(found.n, BATCH) * found.width, path.stat().st_size
        if values > (most := FREE_VALUES + LISTED * size):
            raise InputError(
                f"{path}: {min(found.n, BATCH):,} rows must have at most {most:,} values in {size:,} bytes, got "
                f"{values:,}"
            )
    return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what libraries say of damaged files into one line."""
    try:
        yield
    except InputError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        OverflowError,
        RuntimeError,  # of zipfile, for members that are encrypted
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        pa.ArrowException,
    ) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from None


def _problems(vectors: NDArray[np.float32], lengths: NDArray[np.int64] | None) -> dict[int, str]:
    width = vectors.shape[1]
    with np.errstate(invalid="ignore"):  # of a NaN that signals
        blank = np.flatnonzero(~vectors.any(1)).tolist()
    out = dict.fromkeys(np.flatnonzero(~np.isfinite(vectors).all(1)).tolist(), "a NaN or infinite value")
    out |= dict.fromkeys(blank, "only zeros")
    if lengths is not None:
        wrong = np.flatnonzero(lengths != width)
        out |= {int(row): f"{lengths[row]} values where others have {width}" for row in wrong}
    return dict(sorted(out.items()))


def _float32(values: NDArray[Any]) -> NDArray[np.float32]:
    # What is too large becomes an infinity, which is then a problem of its row.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values, np.float32)


# -- tables -----------------------------------------------------------------------------------------------------------


def _vector_columns(
    path: Path, lists: Sequence[str], floats: Sequence[str], numbers: Sequence[str], wanted: _Wanted
) -> list[str]:
    """The columns of a table that are its vectors, in the order that is wanted.

    Args:
        path: For messages.
        lists: Columns of lists of floats.
        floats: Columns of floats.
        numbers: Columns of any numbers, which may be chosen by their names.
        wanted: What is asked of the file.
    """
    there = {nfc(name).strip(): name for name in numbers}
    dimensions = [there.get(name, "") for name in wanted.dimensions]
    try:
        chosen = _chosen(path, lists, floats, numbers, wanted.column)
    except InputError:
        if not dimensions or "" in dimensions or wanted.column is not None:
            raise
        chosen = dimensions  # of whole numbers, say: their names say enough
    if not dimensions or chosen[0] in lists:
        return chosen
    missing = [name for name in wanted.dimensions if name not in there]
    if wanted.column is not None:
        missing = [name for name in wanted.dimensions if there.get(name) not in chosen]
    wanted_names = set(dimensions)
    foreign = [name for name in chosen if name not in wanted_names]
    if missing or foreign:
        said = [f"missing: {few(missing)}"] * bool(missing) + [f"none of them: {few(foreign)}"] * bool(foreign)
        raise InputError(
            f"{path}: its vectors must be the columns {few(wanted.dimensions)} that the release was fitted on; "
            f"{'; '.join(said)}; set column to the right ones, A,B,..."
        )
    return dimensions


def _chosen(
    path: Path, lists: Sequence[str], floats: Sequence[str], numbers: Sequence[str], column: str | None
) -> list[str]:
    """The columns that are vectors by what the user chose, or by themselves."""
    groups = {stem: names for stem, names in _numbered(floats).items() if len(names) > 1}
    if column is not None and column not in lists and "," in column:
        chosen = [name.strip() for name in column.split(",")]
        known = set(numbers)
        if strange := [name for name, count in Counter(chosen).items() if count > 1 or name not in known]:
            raise InputError(
                f"{path}: columns {column}: each must be one of numbers, named once ({few(list(numbers)) or 'none'}), "
                f"got {strange[0]!r}"
            )
        return chosen
    if column is not None:
        if column not in lists and column not in groups:
            there = ", ".join([*lists, *(f"{stem}0..." for stem in groups)]) or "none"
            raise InputError(f"{path}: column {column!r} is not one of lists of floats, or several numbered ({there})")
        return [column] if column in lists else groups[column]
    if len(lists) > 1:
        usual = [name for name in lists if name.casefold() in USUAL]
        if len(usual) == 1:
            return usual
        raise InputError(f"{path}: several columns hold lists of floats ({', '.join(lists)}); set column to one")
    if not lists and len(groups) > 1:
        names = ", ".join(f"{group[0]}..." for group in groups.values())
        raise InputError(f"{path}: several rows of numbered columns hold floats ({names}); set column to one's name")
    if not lists and len(floats) < 2:
        raise InputError(f"{path}: no column of lists of floats, and not two columns of floats or more")
    return list(lists) or next(iter(groups.values()), list(floats))


def _numbered(columns: Iterable[str]) -> dict[str, list[str]]:
    """Columns whose names end in a number, by what stands before it.

    In the order of their numbers, which say what dimension they are, wherever the columns stand.
    """
    groups: dict[str, list[str]] = {}
    for name in columns:
        if number := re.fullmatch(r"(.*?)\d+", name, re.S):
            groups.setdefault(number[1], []).append(name)
    return {stem: sorted(names, key=lambda name: int(name[len(stem) :])) for stem, names in groups.items()}


def _dimensions(chosen: Sequence[str], lists: bool) -> tuple[str, ...]:
    return () if lists else tuple(nfc(name).strip() for name in chosen)


# -- Parquet ----------------------------------------------------------------------------------------------------------


def _open_parquet(path: Path, wanted: _Wanted) -> VectorFile:
    with open_parquet(path) as (file, schema):
        n = file.metadata.num_rows
        if twice := kinds.repeated(schema.names):
            raise InputError(f"{path}: column {twice!r} stands there more than once")
        chosen = _vector_columns(
            path,
            [f.name for f in schema if _is_list(f.type) and pa.types.is_floating(f.type.value_type)],
            [f.name for f in schema if pa.types.is_floating(f.type)],
            [f.name for f in schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)],
            wanted,
        )
        lists = _is_list(schema.field(chosen[0]).type)
        if lists:
            check_lists(path, file, chosen[0], BATCH)
        width = _common_length(file, chosen[0]) if lists else len(chosen)
    taken = set(chosen)
    key, others, aside = wanted.sorted_out(path, {f.name: f.type for f in schema if f.name not in taken})
    return VectorFile(
        path=path, form="list" if lists else "columns", n=n, width=width, key=key, others=tuple(others),
        aside=tuple(aside), dimensions=_dimensions(chosen, lists), _reader=_Parquet(path, chosen),
    )  # fmt: skip


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lengths(column: pa.Array) -> NDArray[np.int64]:
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    if column.null_count:  # a null in a list of fixed size has a length all the same
        lengths[column.is_null().to_numpy(zero_copy_only=False)] = 0
    return cast("NDArray[np.int64]", lengths)


def _common_length(file: Any, column: str) -> int:
    kind = file.schema_arrow.field(column).type
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    first = next(file.iter_batches(BATCH, columns=[column]), None)
    lengths = _lengths(first.column(0)) if first is not None else np.zeros(0, np.int64)
    return int(Counter(lengths.tolist()).most_common(1)[0][0]) if len(lengths) else 0


@dataclass(frozen=True)
class _Parquet:
    path: Path
    chosen: list[str]

    def rows(self, start: int, size: int, columns: Sequence[str], width: int) -> Rows:
        for table in _even(self.path, start, size, [*columns, *self.chosen]):
            found = {name: table.column(name).combine_chunks() for name in columns}
            if _is_list(table.schema.field(self.chosen[0]).type):
                yield found, *_unpacked(table.column(self.chosen[0]).combine_chunks(), width)
            else:
                values = np.empty((len(table), width), np.float32)
                for i, name in enumerate(self.chosen):
                    values[:, i] = _float32(table.column(name).to_numpy())
                yield found, values, None

    def names(self, key: str, size: int) -> Iterator[pa.Array]:
        return (table.column(key).combine_chunks() for table in _even(self.path, 0, size, [key]))

    def columns(self, names: Sequence[str], n: int) -> dict[str, pa.ChunkedArray | pa.Array]:
        with open_parquet(self.path) as (file, schema):
            table = file.read(columns=[leaf(schema, name) for name in names]) if names else pa.table({})
            return {name: validated(table).column(name) for name in names}


def _even(path: Path, start: int, size: int, columns: list[str]) -> Iterator[pa.Table]:
    """Tables of ``size`` rows (the last may be shorter) from row ``start`` on, across row groups of any size."""
    with open_parquet(path) as (file, schema):
        groups = list(range(file.num_row_groups))
        while groups and start >= file.metadata.row_group(groups[0]).num_rows:
            start -= file.metadata.row_group(groups.pop(0)).num_rows
        held: list[pa.RecordBatch] = []
        count = 0
        wanted = [leaf(schema, name) for name in columns]
        for batch in file.iter_batches(size, row_groups=groups, columns=wanted):
            batch.validate(full=True)
            if start >= len(batch):
                start -= len(batch)
                continue
            held.append(batch.slice(start))
            count += len(batch) - start
            start = 0
            while count >= size:
                table = pa.Table.from_batches(held)
                yield table.slice(0, size)
                held, count = table.slice(size).to_batches(), count - size
        if count:
            yield pa.Table.from_batches(held)


def _unpacked(column: pa.Array, width: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors of a column of lists, zeros where the row has another width; and how many values each row has."""
    lengths = _lengths(column)
    whole = lengths == width
    if whole.all():
        return _float32(column.flatten().to_numpy(zero_copy_only=False)).reshape(-1, width), lengths
    vectors = np.zeros((len(column), width), np.float32)
    vectors[whole] = _float32(column.filter(pa.array(whole)).flatten().to_numpy(zero_copy_only=False)).reshape(
        -1, width
    )
    return vectors, lengths


# -- CSV --------------------------------------------------------------------------------------------------------------


def _open_csv(path: Path, wanted: _Wanted) -> VectorFile:
    file = open_csv(path)
    rows = _CsvRows(file, keyed=wanted.named and bool(kinds.key_columns(file.header)))
    lines = rows.walk()
    sample = list(islice(lines, BATCH))
    n = len(sample) + sum(1 for _ in lines)  # which reads all lines: each must have its cells
    columns = dict(zip(file.header, zip(*sample, strict=True), strict=True)) if sample else {}
    filled = {name: [cell for cell in cells if not _nothing(cell)] for name, cells in columns.items() if name}
    numbers = [name for name, cells in filled.items() if cells and all(_number(cell) is not None for cell in cells)]
    fractions = {name for name in numbers if any(_fraction(cell) for cell in filled[name])}
    for group in _numbered(numbers).values():  # one of them may happen to hold whole numbers only
        if len(group) > 1 and fractions & set(group):
            fractions |= set(group)
    known = set(numbers)
    lists = [name for name in filled if name not in known and _are_lists(filled[name])]
    try:
        chosen = _vector_columns(
            path,
            [name for name in lists if any(_fraction(cell) for cell in filled[name])],
            [name for name in numbers if name in fractions],
            numbers,
            wanted,
        )
    except InputError:
        if short := next((name for name, cells in filled.items() if any("..." in cell for cell in cells)), None):
            raise InputError(f"{path}: lists in column {short} were cut short (...) when they were written") from None
        if comma := next((name for name, cells in filled.items() if cells and all(map(_COMMA.fullmatch, cells))), None):
            raise InputError(f"{path}: numbers of column {comma} have decimal commas; write them with points") from None
        raise
    one = chosen[0] in lists
    width = _csv_width(filled[chosen[0]]) if one else len(chosen)
    taken = set(chosen)
    found: dict[str, Kind] = {name: pa.string() for name in file.header if name and name not in taken}
    found |= dict.fromkeys((name for name in lists if name not in taken), "lists")
    key, others, aside = wanted.sorted_out(path, found)
    aside += [("", "text")] if "" in file.header else []
    return VectorFile(
        path=path, form="list" if one else "columns", n=n, width=width, key=key, others=tuple(others),
        aside=tuple(aside), dimensions=_dimensions(chosen, one), _reader=_Csv(rows, chosen, one),
    )  # fmt: skip


@dataclass(frozen=True)
class _CsvRows:
    """The rows of a CSV file; ``keyed`` where they have names."""

    file: CsvFile
    keyed: bool

    def walk(self) -> Iterator[list[str]]:
        """The rows' cells; without empty rows at the end of the file."""
        empty: list[list[str]] = []
        for cells in self.file.records(self.keyed):
            if any(cells):
                yield from empty
                empty = []
                yield cells
            else:
                empty.append(cells)


def _nothing(cell: str) -> bool:
    return not cell or cell.casefold() in NOTHING


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)  # Python reads 1_000, and nobody else does
    except ValueError:
        return None


_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")


def _fraction(cell: str) -> bool:
    """Whether a cell holds a number, or numbers, with a fraction or an exponent."""
    return any(letter in cell for letter in ".eE")


def _are_lists(cells: Sequence[str]) -> bool:
    """Whether cells are lists of numbers: in brackets, or of several, some of them with a fraction."""
    values = [_values(cell) for cell in cells]
    if not cells or any(row is None for row in values):
        return False
    bare = [row for row, cell in zip(values, cells, strict=True) if cell[0] not in "[("]
    # A decimal comma makes no list of two: what is meant as a list has points somewhere.
    return not bare or (all(row is not None and len(row) > 1 for row in bare) and any("." in cell for cell in cells))


def _values(cell: str) -> list[float] | None:
    """The numbers of a list such as ``[0.1, 0.2]``; None where it is none."""
    inside = cell[1:-1] if (cell[:1], cell[-1:]) in (("[", "]"), ("(", ")")) else cell
    numbers = [_number(word) for word in re.split(r"\s*[,;]\s*|\s+", inside.strip())] if inside.strip() else []
    return None if any(number is None for number in numbers) else cast("list[float]", numbers)


def _csv_width(cells: Sequence[str]) -> int:
    return int(Counter(len(_values(cell) or ()) for cell in cells).most_common(1)[0][0])


@dataclass(frozen=True)
class _Csv:
    source: _CsvRows
    chosen: list[str]
    lists: bool

    def rows(self, start: int, size: int, columns: Sequence[str], width: int) -> Rows:
        places = [self.source.file.places[name] for name in self.chosen]
        for first, some in self._batches(start, size):
            found = {name: self._column(name, some, first) for name in columns}
            if not self.lists:
                yield found, self._floats([[cells[i] for i in places] for cells in some]), None
                continue
            each = [_values(cells[places[0]]) or [] for cells in some]
            values = np.zeros((len(some), width), np.float32)
            for row, numbers in enumerate(each):
                if len(numbers) == width:
                    values[row] = _float32(np.array(numbers))
            yield found, values, np.array([len(numbers) for numbers in each], np.int64)

    @staticmethod
    def _floats(rows: list[list[str]]) -> NDArray[np.float32]:
        """Numbers, NaN where a cell holds none."""
        try:
            if not any("_" in cell for cells in rows for cell in cells):
                return _float32(np.array([list(map(float, cells)) for cells in rows]))
        except ValueError:
            pass
        numbers = [[_number(cell) for cell in cells] for cells in rows]
        return _float32(np.array([[math.nan if number is None else number for number in row] for row in numbers]))

    def names(self, key: str, size: int) -> Iterator[pa.Array]:
        return (self._column(key, some, first) for first, some in self._batches(0, size))

    def columns(self, names: Sequence[str], n: int) -> dict[str, pa.ChunkedArray | pa.Array]:
        chunks: dict[str, list[pa.Array]] = {name: [] for name in names}
        for first, some in self._batches(0, BATCH) if names else ():
            for name in names:
                chunks[name].append(self._column(name, some, first))
        return {name: pa.chunked_array(parts, pa.string()) for name, parts in chunks.items()}

    def _batches(self, start: int, size: int) -> Iterator[tuple[int, list[list[str]]]]:
        lines = islice(self.source.walk(), start, None)
        while some := list(islice(lines, size)):
            yield start, some
            start += len(some)

    def _column(self, name: str, some: Sequence[list[str]], start: int) -> pa.Array:
        place = self.source.file.places[name]
        return self.source.file.column(name, [cells[place] for cells in some], start)


# -- npz and npy ------------------------------------------------------------------------------------------------------


def _kind(header: Header, n: int) -> Kind:
    """An array's type if it has a value for each of n rows, else words that say what it is."""
    dtype = header.dtype
    letters = dtype.itemsize // (4 if dtype.kind == "U" else 1)
    if header.shape != (n,) or (dtype.kind in "US" and letters > 4 * MOST_LETTERS):
        return f"{dtype} {header.shape}"
    usual = {"U": pa.string(), "S": pa.string(), "i": pa.int64(), "u": pa.uint64(), "f": pa.float64()}
    return {**usual, "b": pa.bool_()}.get(dtype.kind, str(dtype))


def _is_vectors(header: Header) -> bool:
    return len(header.shape) == 2 and np.issubdtype(header.dtype, np.floating)


def _slices(file: IO[bytes], start: int, size: int) -> Iterator[NDArray[Any]]:
    """Rows of an array from ``start`` on, ``size`` at a time, from a file that stands at its beginning."""
    header = Header.read(file)
    n = header.shape[0]
    if header.fortran and len(header.shape) > 1:
        values = np.frombuffer(_exactly(file, int(np.prod(header.shape)) * header.dtype.itemsize), header.dtype)
        values = values.reshape(header.shape, order="F")
        yield from (values[i : i + size] for i in range(start, n, size))
        return
    width = int(np.prod(header.shape[1:])) * header.dtype.itemsize
    file.seek(start * width, 1)
    for i in range(start, n, size):
        rows = min(size, n - i)
        yield np.frombuffer(_exactly(file, rows * width), header.dtype).reshape(rows, *header.shape[1:])


def _exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError("it ends before its last row")
    return data


def _open_npy(path: Path, wanted: _Wanted) -> VectorFile:
    if wanted.column is not None:
        raise InputError(f"{path}: is one array and has no column {wanted.column!r} to choose")
    with opened(path) as file:
        header = Header.read(file, os.fstat(file.fileno()).st_size)
    if not _is_vectors(header):
        raise InputError(f"{path}: must hold floats with two axes, got {header.dtype} {header.shape}")
    _check_filled(path, "the array", header)
    n, width = header.shape
    return VectorFile(path=path, form="npy", n=n, width=width, key="", others=(), _reader=_Npy(path))


def _check_filled(path: Path, what: str, header: Header) -> None:
    if 0 in header.shape:
        raise InputError(f"{path}: {what} is {header.shape} and holds nothing")


@dataclass(frozen=True)
class _Npy:
    path: Path

    def rows(self, start: int, size: int, columns: Sequence[str], width: int) -> Rows:
        with self.path.open("rb") as file:
            for values in _slices(file, start, size):
                yield {}, _float32(values), None

    def names(self, key: str, size: int) -> Iterator[pa.Array]:
        return iter(())

    def columns(self, names: Sequence[str], n: int) -> dict[str, pa.ChunkedArray | pa.Array]:
        return {}


def _open_npz(path: Path, wanted: _Wanted) -> VectorFile:
    headers: dict[str, Header] = {}
    odd: dict[str, Kind] = {}
    with opened(path) as whole, zipfile.ZipFile(whole) as archive:
        size = os.fstat(whole.fileno()).st_size
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name == entry.filename:
                odd[name] = "no array"
                continue
            with archive.open(entry) as file:
                try:
                    headers[name] = Header.read(file, entry.file_size)
                except NoPlainArray as error:
                    odd[name] = str(error)
    matrices = [name for name, header in headers.items() if _is_vectors(header)]
    usual = [name for name in USUAL if name in matrices]
    chosen = wanted.column or (usual[0] if usual else matrices[0] if len(matrices) == 1 else None)
    if chosen is None or chosen not in matrices:
        unfit = {name: f"{header.dtype} {header.shape}" for name, header in headers.items() if name not in matrices}
        there = ", ".join([*matrices, *(f"{name}: {kind}" for name, kind in (unfit | odd).items())]) or "none"
        raise InputError(
            f"{path}: {'no array' if chosen is None else f'array {chosen!r} is not one'} of floats with two axes "
            f"to take (there are: {there})"
        )
    _check_filled(path, f"array {chosen}", headers[chosen])
    check_archive(path, archive, "" if headers[chosen].fortran else f"{chosen}.npy")  # by its list, which was read
    n, width = headers[chosen].shape
    if n > FREE_ROWS + size:
        raise InputError(f"{path}: must have at most {FREE_ROWS + size:,} rows in {size:,} bytes, got {n:,}")
    kinds_of = odd | {name: _kind(header, n) for name, header in headers.items() if name != chosen}
    key, others, aside = wanted.sorted_out(path, kinds_of)
    return VectorFile(
        path=path, form="npz", n=n, width=width, key=key, others=tuple(others), aside=tuple(aside),
        _reader=_Npz(path, chosen),
    )  # fmt: skip


@dataclass(frozen=True)
class _Npz:
    path: Path
    chosen: str

    def rows(self, start: int, size: int, columns: Sequence[str], width: int) -> Rows:
        others = [self.names(name, size, start) for name in columns]
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.chosen}.npy") as file:
            for values, *found in zip(_slices(file, start, size), *others, strict=True):
                yield dict(zip(columns, found, strict=True)), _float32(values), None

    def names(self, key: str, size: int, start: int = 0) -> Iterator[pa.Array]:
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{key}.npy") as file:
            for values in _slices(file, start, size):
                yield self._column(key, values)

    def columns(self, names: Sequence[str], n: int) -> dict[str, pa.ChunkedArray | pa.Array]:
        out = {}
        with zipfile.ZipFile(self.path) as archive:
            for name in names:
                with archive.open(f"{name}.npy") as file:
                    out[name] = self._column(name, np.lib.format.read_array(file, allow_pickle=False))
        return out

    def _column(self, name: str, values: NDArray[Any]) -> pa.Array:
        """Text or numbers; bytes are read as UTF-8, and numbers in this machine's order of bytes."""
        if values.dtype.kind == "S":
            try:
                return pa.array(np.char.decode(values, "utf-8"))
            except UnicodeDecodeError:
                raise InputError(f"{self.path}: array {name} holds bytes that are not UTF-8") from None
        if values.dtype.kind == "f" and values.dtype.itemsize > 8:
            values = values.astype(np.float64)
        return pa.array(values.astype(values.dtype.newbyteorder("="), copy=False))
