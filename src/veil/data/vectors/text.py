"""Vectors in CSV: lists written out in one column, or a column for each value."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from veil.data import columns as kinds
from veil.data.classes import NOTHING
from veil.data.columns import Kind
from veil.data.csvfile import CsvFile, open_csv
from veil.data.vectors.choice import dimensions_of, numbered, vector_columns
from veil.data.vectors.file import BATCH, Rows, VectorFile, Wanted, float32
from veil.errors import InputError


def open_csv_vectors(path: Path, wanted: Wanted) -> VectorFile:
    file = open_csv(path)
    rows = _CsvRows(file, keyed=wanted.named and bool(kinds.key_columns(file.header)))
    lines = rows.walk()
    sample = list(islice(lines, BATCH))
    n = len(sample) + sum(1 for _ in lines)  # which reads all lines: each must have its cells
    columns = dict(zip(file.header, zip(*sample, strict=True), strict=True)) if sample else {}
    filled = {name: [cell for cell in cells if not _nothing(cell)] for name, cells in columns.items() if name}
    numbers = [name for name, cells in filled.items() if cells and all(_number(cell) is not None for cell in cells)]
    fractions = {name for name in numbers if any(_fraction(cell) for cell in filled[name])}
    for group in numbered(numbers).values():  # one of them may happen to hold whole numbers only
        if len(group) > 1 and fractions & set(group):
            fractions |= set(group)
    known = set(numbers)
    lists = [name for name in filled if name not in known and _are_lists(filled[name])]
    try:
        chosen = vector_columns(
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
    kinds_of: dict[str, Kind] = {name: pa.string() for name in file.header if name and name not in taken}
    kinds_of |= dict.fromkeys((name for name in lists if name not in taken), "lists")
    key, others, aside = wanted.sorted_out(path, kinds_of)
    aside += [("", "text")] if "" in file.header else []
    return VectorFile(
        path=path, form="list" if one else "columns", n=n, width=width, key=key, others=tuple(others),
        aside=tuple(aside), dimensions=dimensions_of(chosen, one), _reader=_Csv(rows, chosen, one),
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
            cells = {name: self._column(name, some, first) for name in columns}
            if not self.lists:
                yield cells, self._floats([[line[i] for i in places] for line in some]), None
                continue
            each = [_values(line[places[0]]) or [] for line in some]
            values = np.zeros((len(some), width), np.float32)
            for row, numbers in enumerate(each):
                if len(numbers) == width:
                    values[row] = float32(np.array(numbers))
            yield cells, values, np.array([len(numbers) for numbers in each], np.int64)

    @staticmethod
    def _floats(rows: list[list[str]]) -> NDArray[np.float32]:
        """Numbers, NaN where a cell holds none."""
        try:
            if not any("_" in cell for cells in rows for cell in cells):
                return float32(np.array([list(map(float, cells)) for cells in rows]))
        except ValueError:
            pass
        numbers = [[_number(cell) for cell in cells] for cells in rows]
        return float32(np.array([[math.nan if number is None else number for number in row] for row in numbers]))

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
