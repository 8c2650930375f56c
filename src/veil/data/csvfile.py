"""CSV files as programs write them: read whatever the dialect, or refused in one line; never half understood.

Separators are commas, semicolons, tabs or bars, as the header and the lines below it show, or as a first line ``sep=;``
says; in lists of images (:mod:`veil.data.spaced`) also spaces. Cells may stand in double quotes (single ones, where
these stand around all cells of a column), with spaces before and after them. The text is UTF-8, or UTF-16 or UTF-32 as
their marks say. Every line must have as many cells as the header: a cell too many or too few would give labels to
others than they are meant for.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from veil.data.columns import nfc, repeated
from veil.data.spaced import Spaces, seems_separated, spaced
from veil.errors import InputError, printable
from veil.foreign import MOST_LETTERS, one_line, opened

SUFFIXES = (".csv", ".tsv")
SEPARATORS = (",", ";", "\t", "|")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # and their wide forms
_SAMPLE = 50  # lines that show the dialect
_MOST_LINES, _MOST_QUOTED = 10_000, 1 << 20  # of a cell that holds line breaks
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHERS = {
    b"PK\x03\x04": "an archive, or a workbook: save it as CSV",
    b"\xd0\xcf\x11\xe0": "a workbook: save it as CSV",
    b"PAR1": "Parquet: let its name end in .parquet",
    b"\x1f\x8b": "compressed: unpack it",
    b"BZh": "compressed: unpack it",
    b"\xfd7zXZ": "compressed: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed: unpack it",
}

Line = tuple[int, list[str]]
"""A line's number in the file, from 1, and its cells, without spaces around them."""


@dataclass(frozen=True)
class _Dialect:
    separator: str
    quote: str = '"'
    _cell: re.Pattern[str] = field(init=False, repr=False)
    _open: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        s, q = re.escape(self.separator), self.quote
        blank = r"[ \xa0]*+" if self.separator == "\t" else r"[ \t\xa0]*+"
        cell = rf"{blank}(?:{q}((?:[^{q}]|{q}{q})*+){q}{blank}|((?!{q})[^{s}\n]*+))({s}|\Z)"
        object.__setattr__(self, "_cell", re.compile(cell))
        object.__setattr__(self, "_open", re.compile(rf"{blank}{q}(?:[^{q}]|{q}{q})*+\Z"))

    def split(self, text: str) -> list[str] | None:
        """The cells of a line; None where it ends inside a quote. Raises ValueError where quotes are misplaced."""
        if self.quote not in text:
            return [cell.strip() for cell in text.split(self.separator)]
        cells, place, more = [], 0, self.separator
        while more:
            match = self._cell.match(text, place)
            if match is None:
                if self._open.match(text, place):
                    return None
                raise ValueError(f"a cell must end with its closing quote, got {text[place : place + 40].strip()!r}")
            quoted, bare, more = match.groups()
            cells.append((bare if quoted is None else quoted.replace(2 * self.quote, self.quote)).strip())
            place = match.end()
        return cells


@dataclass(frozen=True, kw_only=True)
class CsvFile:
    """A CSV file whose dialect is known; :meth:`records` reads it piece by piece.

    Attributes:
        path: The file.
        header: Names of the columns, in NFC; "" for one without a name.
        announced: How many rows a list says that it has; None where it does not.
        doubt: What is said of its separators where a column is missing and its cells may be separated by others.
    """

    path: Path
    header: tuple[str, ...]
    announced: int | None = None
    doubt: str = ""
    _encoding: str = field(repr=False)
    _dialect: _Dialect | Spaces = field(repr=False)
    _below: int = field(repr=False)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Where each column stands."""
        return {name: place for place, name in enumerate(self.header)}

    def records(self, keyed: bool) -> Iterator[list[str]]:
        """The rows' cells.

        A blank line is no row; but where rows are told by their order alone it is an empty cell in a file of one
        column, and refused between the rows of one of several.

        Args:
            keyed: Whether a column names the rows; those without any cell are then left out.

        Raises:
            InputError: A line has another number of cells than the header, or misplaced quotes, or cannot be read.
        """
        blank = rows = 0
        for number, cells in self._lines():
            rows += bool(cells)
            if keyed:
                if any(cells):
                    yield cells
            elif cells or len(self.header) == 1:
                if blank:
                    raise InputError(
                        f"{self.path}: line {blank} must be a row of {len(self.header)} cells, as the rows have no "
                        "names, got a blank line"
                    )
                yield cells or [""]
            else:
                blank = blank or number
        if self.announced is not None and self.announced != rows:
            raise InputError(
                f"{self.path}: {rows:,} rows, but its first line announces {self.announced:,}; the file was cut off"
            )

    def _lines(self) -> Iterator[Line]:
        """The lines below the header; no cells of those that are blank."""
        with _readable(self.path), self.path.open(encoding=self._encoding, newline="") as file:
            for number, cells in _cells(self.path, islice(enumerate(file, 1), self._below, None), self._dialect):
                if cells and len(cells) != len(self.header):
                    raise InputError(
                        f"{self.path}: line {number} must have {len(self.header)} cells as the header, got {len(cells)}"
                    )
                yield number, cells

    def column(self, name: str, cells: Sequence[str], start: int = 0) -> pa.Array:
        """Cells of a column of words; raises InputError where one holds a line break, as prose does, or open quotes."""
        column = pa.array(cells, pa.string())
        if (row := pc.index(pc.match_substring(column, "\n"), True).as_py()) >= 0:
            raise InputError(
                f"{self.path}: column {name} of row {start + row} holds a line break: a quote may have been left open"
            )
        return column


def open_csv(path: Path) -> CsvFile:
    """Reads the header of a CSV file, and finds out in which dialect it is written.

    Raises:
        InputError: The file cannot be read, is empty or no text, or its header names one column twice; or its lines can
            be read in several ways.
    """
    with _readable(path):
        encoding = _encoding(path)
        with path.open(encoding=encoding, newline="") as file:
            number, said, sample = _sample(path, enumerate(file, 1))
        if not said and (listed := spaced(sample, path.stem)):
            numbers = [n for n, line in enumerate(sample, number) if line.strip()]
            return CsvFile(
                path=path, header=_header(path, listed.header), announced=listed.count, _encoding=encoding,
                _dialect=Spaces(), _below=numbers[listed.above - 1] if listed.above else 0,
            )  # fmt: skip
        dialect = _dialect(path, sample, said)
        below, header = next(_cells(path, iter([(number, sample[0])]), dialect), (0, []))
    doubt = ""
    if len(header) == 1 and (seen := seems_separated(sample, SEPARATORS)):
        expected = f"{said!r}, as its first line says" if said else "commas, semicolons, tabs or bars"
        doubt = f"; its cells must be separated by {expected}, and seem to be by {seen}"
    return CsvFile(
        path=path, header=_header(path, header), doubt=doubt, _encoding=encoding, _dialect=dialect, _below=below
    )


def _sample(path: Path, lines: Iterator[tuple[int, str]]) -> tuple[int, str, list[str]]:
    """The number of the first line of a table; the separator that a line above it says, or ""; and some lines."""
    number, first = next(((n, line) for n, line in lines if line.strip()), (0, ""))
    if not first:
        raise InputError(f"{path}: empty")
    if said := re.fullmatch(r"\"?sep=(.)\"?\s*", first, re.I | re.S):
        number, first = next(((n, line) for n, line in lines if line.strip()), (0, ""))
    sample = [first, *(line for _, line in islice(lines, _SAMPLE))]
    return number, said[1] if said else "", [line.rstrip("\r\n") for line in sample]


def _header(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The names of columns, in NFC; raises InputError where they cannot be told apart."""
    header = [nfc(name) for name in names]
    if not any(header):
        raise InputError(f"{path}: empty")
    if long := next((name for name in header if len(name) > MOST_LETTERS), ""):
        raise InputError(f"{path}: names of columns have at most {MOST_LETTERS:,} letters, got {len(long):,}")
    if twice := repeated(header):
        raise InputError(f"{path}: column {twice!r} stands there more than once")
    return tuple(header)


def cell(text: str) -> str:
    """Text for a cell that people open with a spreadsheet: none of it is taken for a formula, nor commands a terminal.

    What begins as a formula has a ``'`` in front.
    """
    return printable(f"'{text}" if text.startswith(_FORMULA) else text)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        where = f"line {_undecodable(path)}" if error.encoding == "utf-8" else one_line(error)
        raise InputError(f"{path}: cannot be read: {where}: must be UTF-8 text, or UTF-16 with its mark") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from None


def _undecodable(path: Path) -> int:
    """The number of the first line that is no UTF-8."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(1 << 12)
    for magic, what in _OTHERS.items():
        if start.startswith(magic):
            raise InputError(f"{path}: cannot be read: must be CSV, got {what}")
    marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    if marked is None and b"\0" in start:
        # Text of two bytes a letter has a zero in every other place, where its letters are Latin ones.
        halves = {"utf-16-le": start[1::2], "utf-16-be": start[::2]}
        marked = next((name for name, half in halves.items() if half.count(0) > 0.9 * len(half)), None)
        if marked is None:
            raise InputError(f"{path}: cannot be read: must be text, got bytes that are 0")
    return marked or "utf-8"


def _cells(path: Path, lines: Iterator[tuple[int, str]], dialect: _Dialect | Spaces) -> Iterator[Line]:
    """The numbers and cells of lines; no cells of a blank one. A quote may go on over several lines."""
    for number, line in lines:
        text = line.rstrip("\r\n")
        if not text.strip() and dialect.separator not in text:
            yield number, []
            continue
        try:
            cells = dialect.split(text)
            more = 0
            while cells is None:
                _, line = next(lines, (0, ""))
                more += 1
                if not line or more > _MOST_LINES or len(text) > _MOST_QUOTED:
                    raise ValueError("a quote is left open")
                text += "\n" + line.rstrip("\r\n")
                cells = dialect.split(text) if dialect.quote in line else None
        except ValueError as error:
            if isinstance(error, UnicodeDecodeError):
                raise
            raise InputError(f"{path}: line {number}: {error}") from None
        yield number, cells


def _dialect(path: Path, sample: Sequence[str], separator: str) -> _Dialect:
    """How the sample's lines, the first of which is the header, are to be read."""
    separators = (separator,) if separator else SEPARATORS
    if sample[0].lstrip().startswith("'"):
        return _separated(path, sample, separators, "'")
    dialect = _separated(path, sample, separators, '"')
    columns = zip(*(row for row in _tried(sample, dialect)[1:] if row), strict=False)
    # Single quotes are apostrophes unless they stand around all cells of a column.
    if any(_all_quoted(cells) for cells in columns):
        return _separated(path, sample, separators, "'")
    return dialect


def _separated(path: Path, sample: Sequence[str], separators: Sequence[str], quote: str) -> _Dialect:
    """The dialect whose separator cuts every line into as many cells as the header: as many as can be."""
    counts: dict[_Dialect, int] = {}
    ragged: dict[_Dialect, int] = {}
    for separator in separators:
        dialect = _Dialect(separator, quote)
        rows = _tried(sample, dialect)
        widths = {len(row) for row in rows if row}
        (counts if len(widths) == 1 else ragged)[dialect] = len(rows[0]) if rows else 0
    best = max(counts.values(), default=0)
    if best < 2 and ragged:  # the line that does not fit is then told of
        return max(ragged, key=lambda dialect: ragged[dialect])
    chosen = [dialect for dialect, count in counts.items() if count == best]
    if best > 1 and len(chosen) > 1:
        either = " or ".join(repr(dialect.separator) for dialect in chosen)
        raise InputError(f"{path}: its cells may be separated by {either}; say which in a first line such as sep=,")
    return chosen[0]


def _tried(sample: Sequence[str], dialect: _Dialect) -> list[list[str]]:
    """The sample's rows as far as they can be read; a cell that the sample's end cuts off is left out."""
    rows: list[list[str]] = []
    lines = iter(sample)
    for line in lines:
        try:
            cells = dialect.split(line) if line.strip() or dialect.separator in line else []
            while cells is None:
                line += "\n" + next(lines)
                cells = dialect.split(line)
        except StopIteration:
            break
        except ValueError:
            rows.append([""] * (len(rows[0]) + 1 if rows else 1))  # of no width that fits
            continue
        rows.append(cells)
    return rows


def _all_quoted(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(len(cell) > 1 and cell[0] == cell[-1] == "'" for cell in filled)
