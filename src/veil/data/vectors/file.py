"""A file of vectors as all kinds of them are read: rows in blocks, with their names and what is wrong with them."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from veil.data import columns as kinds
from veil.data.classes import few
from veil.data.columns import Kind, plain
from veil.errors import InputError
from veil.foreign import one_line

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


class Reader(Protocol):
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
    _reader: Reader = field(repr=False)

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
        with readable(self.path):
            for cells, vectors, lengths in self._reader.rows(start, size, [*key, *columns], self.width):
                if key:
                    names = kinds.names(cells[self.key], self.key, self.path, start)
                else:
                    names = pa.array([str(i) for i in range(start, start + len(vectors))], pa.string())
                others = {name: cells[name] for name in columns}
                problems = _problems(vectors, lengths)
                yield Block(start=start, names=names, vectors=vectors, problems=problems, columns=others)
                start += len(vectors)

    def columns(self, names: Sequence[str]) -> dict[str, pa.ChunkedArray | pa.Array]:
        """Whole columns beside the vectors; raises InputError for arrays that hold no labels."""
        with readable(self.path):
            return self._reader.columns(names, self.n)

    def repeated(self) -> str | None:
        """A name that stands in the file more than once, as names are compared; None where all differ."""
        if not self.key:
            return None
        with readable(self.path):  # which has fewer rows than it says, perhaps
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
        with readable(self.path):
            for some in self._reader.names(self.key, BATCH):
                names = kinds.names(some, self.key, self.path, start)
                start += len(names)
                yield from names.to_pylist()


@dataclass(frozen=True, kw_only=True)
class Wanted:
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


@contextmanager
def readable(path: Path) -> Iterator[None]:
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


def float32(values: NDArray[Any]) -> NDArray[np.float32]:
    # What is too large becomes an infinity, which is then a problem of its row.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values, np.float32)
