"""Files of scores: for each comparison whether it is of one person, how alike its two sides are, and who they are.

CSV or Parquet with the columns ``mated`` (1 or 0) and ``score`` (higher meaning more alike), and, where it is known who
is compared, ``person_a`` and ``person_b``. Other columns are passed over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from veil import parquet
from veil.data import csvfile
from veil.data.csvfile import open_csv
from veil.errors import InputError, printable
from veil.foreign import opened, shown

MATED, SCORE, PEOPLE = "mated", "score", ("person_a", "person_b")
SUFFIXES = (*csvfile.SUFFIXES, *parquet.SUFFIXES)
MOST_PAIRS = 5_000_000
_PART = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Scores:
    """P comparisons.

    Attributes:
        mated: bool ``(P,)`` true where both sides show one person.
        score: float64 ``(P,)``, higher meaning more alike.
        people: int64 ``(P, 2)`` codes from 0 of the two persons; None where nobody knows.
    """

    mated: NDArray[np.bool_]
    score: NDArray[np.float64]
    people: NDArray[np.int64] | None = None


def read_scores(path: Path) -> Scores:
    """The comparisons of a file, at least one of each kind.

    Raises:
        InputError: In one line, for a file that cannot be read, lacks a column, or holds anything but that; for one
            kind alone, more than :data:`MOST_PAIRS` pairs, and people who contradict ``mated``.
    """
    if path.suffix.lower() in parquet.SUFFIXES:
        mated, score, people = _from_parquet(path)
    else:
        mated, score, people = _from_csv(path)
    if not len(mated):
        raise InputError(f"{path}: holds no comparisons")
    for column, values, holds, rule in (
        (MATED, mated, np.isin(mated, (0, 1)), "1 (one person) or 0 (two)"),
        (SCORE, score, np.isfinite(score), "a finite number"),
    ):
        if len(wrong := np.flatnonzero(~holds)):
            raise InputError(f"{path}: {column} must be {rule}, got {values[wrong[0]]:g} in row {wrong[0] + 1:,}")
    same = mated == 1
    if same.all() or not same.any():
        raise InputError(f"{path}: {MATED} must be 1 in some rows and 0 in others, got {int(same[0])} in all")
    if people is not None and len(wrong := np.flatnonzero((people[:, 0] == people[:, 1]) != same)):
        row, said = int(wrong[0]), "1" if same[wrong[0]] else "0"
        one = "not one" if same[row] else "one"
        rule = f"must be 1 where {' and '.join(PEOPLE)} are one"
        raise InputError(f"{path}: {MATED} {rule}, got {said} in row {row + 1:,}, whose people are {one}")
    return Scores(mated=same, score=score, people=people)


def write_scores(file: TextIO, scores: Scores) -> None:
    """The comparisons as CSV that :func:`read_scores` reads; people by numbers."""
    people = scores.people
    file.write(",".join([MATED, SCORE, *(() if people is None else PEOPLE)]) + "\n")
    for row in range(len(scores.mated)):
        who = "" if people is None else f",{people[row, 0]},{people[row, 1]}"
        file.write(f"{int(scores.mated[row])},{scores.score[row]:.9g}{who}\n")


def fingerprint(path: Path) -> str:
    """SHA-256 of a file."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


Columns = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64] | None]


def _wanted(path: Path, there: Sequence[str], doubt: str = "") -> list[str]:
    for name in (MATED, SCORE):
        if name not in there:
            got = ", ".join(printable(each) for each in there[:10]) or "none"
            raise InputError(f"{path}: needs the columns {MATED} and {SCORE}, its columns are {got}{doubt}")
    known = [name for name in PEOPLE if name in there]
    if len(known) == 1:
        raise InputError(f"{path}: {' and '.join(PEOPLE)} must both be there, or neither, got {known[0]} alone")
    return [MATED, SCORE, *known]


def _check_many(path: Path, rows: int) -> None:
    if rows > MOST_PAIRS:
        raise InputError(f"{path}: may hold at most {MOST_PAIRS:,} comparisons, got more; draw some of them")


def _from_csv(path: Path) -> Columns:
    file = open_csv(path)
    wanted = _wanted(path, file.header, file.doubt)
    places, rows = [file.places[name] for name in wanted], file.records(keyed=False)
    parts: list[list[NDArray[Any]]] = [[] for _ in wanted]
    codes: dict[str, int] = {}
    start = 0
    while cells := list(islice(rows, _PART)):
        for place, name, part in zip(places, wanted, parts, strict=True):
            column = [row[place] for row in cells]
            part.append(_numbered(column, codes) if name in PEOPLE else _numbers(path, name, column, start))
        start += len(cells)
        _check_many(path, start)
    mated, score, *people = (np.concatenate(part) if part else np.empty(0) for part in parts)
    return mated, score, np.column_stack(people) if people else None


def _numbered(names: Sequence[Any], codes: dict[str, int]) -> NDArray[np.int64]:
    """Codes of names, which new ones are added to."""
    return np.array([codes.setdefault(str(name), len(codes)) for name in names], np.int64)


def _numbers(path: Path, name: str, cells: Sequence[str], start: int) -> NDArray[np.float64]:
    try:
        return np.array([float(cell) for cell in cells])
    except ValueError:
        row = next(i for i, cell in enumerate(cells) if not _is_number(cell))
        raise InputError(
            f"{path}: {name} must be a number, got {shown(cells[row])} in row {start + row + 1:,}"
        ) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _from_parquet(path: Path) -> Columns:
    with parquet.open_parquet(path) as (file, schema):
        wanted = _wanted(path, schema.names)
        _check_many(path, file.metadata.num_rows)
        table = parquet.validated(file.read(columns=wanted))
        for name in wanted:
            kind, empty = schema.field(name).type, table[name].null_count
            plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
            if name not in PEOPLE and not plain:
                raise InputError(f"{path}: {name} must be numbers, got {kind}")
            if empty:
                raise InputError(f"{path}: {name} must be there in each row, and is missing in {empty:,}")
        mated, score = (table[name].cast(pa.float64()).to_numpy() for name in (MATED, SCORE))
        codes: dict[str, int] = {}
        people = [_coded(path, name, table[name], codes) for name in PEOPLE if name in wanted]
    return mated, score, np.column_stack(people) if people else None


def _coded(path: Path, name: str, column: pa.ChunkedArray, codes: dict[str, int]) -> NDArray[np.int64]:
    """Codes of the names, or numbers, of a column; each that differs is read once."""
    if pa.types.is_integer(column.type):
        values, places = np.unique(column.to_numpy(), return_inverse=True)
        return _numbered(values.tolist(), codes)[places.reshape(len(column))]
    if not (pa.types.is_dictionary(column.type) or pa.types.is_string(column.type)):
        raise InputError(f"{path}: {name} must be texts or whole numbers, got {column.type}")
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    whole = encoded.unify_dictionaries().combine_chunks()
    taken: NDArray[np.int64] = _numbered(whole.dictionary.to_pylist(), codes)[whole.indices.to_numpy()]
    return taken
