"""Files of vectors, read piece by piece: Parquet, npz and npy.

Memory does not grow with the number of rows, whatever the size of the file's row groups; the exceptions are npy arrays
in Fortran order, whose rows do not lie together and which are read whole, and 8 bytes a row to find repeated names.

- Parquet: the vectors are a column of lists of floats (of fixed size or not). Where there is none, they are the columns
  of floats that share a name and differ in a number at its end (``v0`` ... ``v127``), or, if no columns do, all columns
  of floats; in the order of the file.
- npz: the array ``vectors`` or ``releases``, or the only array of floats with two axes.
- npy: the array, of floats with two axes.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from veil.errors import InputError

KEYS = ("source", "name", "file", "filename", "path", "image")
"""Columns, or arrays with one axis, that may name the rows; the first that is there wins."""

SUFFIXES = (".parquet", ".pq", ".npz", ".npy")
BATCH = 4096

Form = Literal["list", "columns", "npz", "npy"]
"""How vectors lie in a file: Parquet with a column of lists, Parquet with a column a value, npz, npy."""


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
        others: The columns beside vectors and key.
    """

    path: Path
    form: Form
    n: int
    width: int
    key: str
    others: tuple[str, ...]
    _reader: _Reader = field(repr=False)

    def blocks(
        self, start: int = 0, size: int = BATCH, *, named: bool = True, columns: Sequence[str] = ()
    ) -> Iterator[Block]:
        """The rows from ``start`` on, ``size`` at a time; by their numbers alone unless ``named``.

        Raises:
            InputError: If the file is damaged, or a row has no name where others have one.
        """
        key = [self.key] if named and self.key else []
        with _readable(self.path):
            for found, vectors, lengths in self._reader.rows(start, size, [*key, *columns], self.width):
                if key:
                    names = _strings(found[self.key])
                else:
                    names = pa.array([str(i) for i in range(start, start + len(vectors))], pa.string())
                if names.null_count:
                    row = start + names.is_null().to_pylist().index(True)
                    raise InputError(f"{self.path}: row {row + 1} names no {self.key}")
                others = {name: found[name] for name in columns}
                problems = _problems(vectors, lengths)
                yield Block(start=start, names=names, vectors=vectors, problems=problems, columns=others)
                start += len(vectors)

    def columns(self, names: Sequence[str]) -> dict[str, pa.ChunkedArray | pa.Array]:
        """Whole columns beside the vectors; raises InputError for arrays that hold no labels."""
        with _readable(self.path):
            return self._reader.columns(names, self.n)

    def repeated(self) -> str | None:
        """A name that stands in the file more than once; None where all differ."""
        if not self.key:
            return None
        hashes = np.fromiter((hash(name) for name in self.names()), np.int64, self.n)
        hashes.sort()
        twice = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        counts = Counter(name for name in self.names() if hash(name) in twice) if twice else Counter()
        return next((name for name, count in counts.items() if count > 1), None)  # equal hashes may be of other names

    def names(self) -> Iterator[str]:
        """The rows' names alone, or their numbers where the file does not name them."""
        if not self.key:
            yield from map(str, range(self.n))
            return
        with _readable(self.path):
            for names in self._reader.names(self.key, BATCH):
                yield from _strings(names).to_pylist()


def open_vectors(path: Path, column: str | None = None) -> VectorFile:
    """Finds the vectors in a file.

    Args:
        path: Must end in one of :data:`SUFFIXES`.
        column: The column of lists, the shared name of the numbered columns, or the array, where it is not clear.

    Raises:
        InputError: If the file is missing or damaged, or holds no vectors, or several with none chosen.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: {'not a file' if path.exists() else 'no such file'}; must be a .parquet, .npz or .npy"
        )
    kinds: dict[str, Callable[[Path, str | None], VectorFile]] = {
        ".parquet": _open_parquet,
        ".pq": _open_parquet,
        ".npz": _open_npz,
        ".npy": _open_npy,
    }
    if path.suffix.lower() not in kinds:
        raise InputError(f"{path}: must end in .parquet, .npz or .npy")
    with _readable(path):
        return kinds[path.suffix.lower()](path, column)


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
        NotImplementedError,
        zipfile.BadZipFile,
        pa.ArrowException,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: cannot be read ({reason})") from None


def _problems(vectors: NDArray[np.float32], lengths: NDArray[np.int64] | None) -> dict[int, str]:
    width = vectors.shape[1]
    out = dict.fromkeys(np.flatnonzero(~np.isfinite(vectors).all(1)).tolist(), "a NaN or infinite value")
    out |= dict.fromkeys(np.flatnonzero(~vectors.any(1)).tolist(), "only zeros")
    if lengths is not None:
        wrong = np.flatnonzero(lengths != width)
        out |= {int(row): f"{lengths[row]} values where others have {width}" for row in wrong}
    return dict(sorted(out.items()))


def _float32(values: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what is too large becomes an infinity, which is then a problem of its row
        return np.asarray(values, np.float32)


# -- Parquet ----------------------------------------------------------------------------------------------------------


def _open_parquet(path: Path, column: str | None) -> VectorFile:
    with _parquet(path) as file:
        schema, n = file.schema_arrow, file.metadata.num_rows
        twice = [name for name in schema.names if schema.names.count(name) > 1]
        if twice:
            raise InputError(f"{path}: column {twice[0]!r} stands there more than once")
        chosen = _vector_columns(path, schema, column)
        lists = _is_list(schema.field(chosen[0]).type)
        width = _common_length(file, chosen[0]) if lists else len(chosen)
    rest = [name for name in schema.names if name not in chosen]
    key = next((name for name in KEYS if name in rest), "")
    return VectorFile(
        path=path, form="list" if lists else "columns", n=n, width=width, key=key,
        others=tuple(name for name in rest if name != key), _reader=_Parquet(path, chosen),
    )  # fmt: skip


def _parquet(path: Path) -> pq.ParquetFile:
    # ParquetFile rather than read_table: names of folders above the file (such as a=b) are no columns of it. Buffered,
    # because row groups are else read whole; not mapped, because mapped pages count as memory in use.
    return pq.ParquetFile(path, buffer_size=1 << 18, pre_buffer=False)


def _vector_columns(path: Path, schema: pa.Schema, column: str | None) -> list[str]:
    lists = [f.name for f in schema if _is_list(f.type) and pa.types.is_floating(f.type.value_type)]
    floats = [f.name for f in schema if pa.types.is_floating(f.type)]
    groups: dict[str, list[str]] = {}
    for name in floats:
        if number := re.fullmatch(r"(.*?)\d+", name, re.S):
            groups.setdefault(number[1], []).append(name)
    # By their numbers, which say what dimension they are, wherever the columns stand.
    groups = {
        stem: sorted(names, key=lambda name: int(name[len(stem) :])) for stem, names in groups.items() if len(names) > 1
    }
    if column is not None:
        if column not in lists and column not in groups:
            there = ", ".join([*lists, *(f"{stem}0..." for stem in groups)]) or "none"
            raise InputError(f"{path}: column {column!r} is not one of lists of floats, or several numbered ({there})")
        return [column] if column in lists else groups[column]
    if len(lists) > 1:
        raise InputError(f"{path}: several columns hold lists of floats ({', '.join(lists)}); set column to one")
    if not lists and len(groups) > 1:
        names = ", ".join(f"{group[0]}..." for group in groups.values())
        raise InputError(f"{path}: several rows of numbered columns hold floats ({names}); set column to one's name")
    if not lists and len(floats) < 2:
        raise InputError(f"{path}: no column of lists of floats, and not two columns of floats or more")
    return lists or next(iter(groups.values()), floats)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lengths(column: pa.Array) -> NDArray[np.int64]:
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    if column.null_count:  # a null in a list of fixed size has a length all the same
        lengths[column.is_null().to_numpy(zero_copy_only=False)] = 0
    return cast("NDArray[np.int64]", lengths)


def _common_length(file: pq.ParquetFile, column: str) -> int:
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
        with _parquet(self.path) as file:
            table = file.read(columns=list(names)) if names else pa.table({})
            return {name: table.column(name) for name in names}


def _even(path: Path, start: int, size: int, columns: list[str]) -> Iterator[pa.Table]:
    """Tables of ``size`` rows (the last may be shorter) from row ``start`` on, across row groups of any size."""
    with _parquet(path) as file:
        groups = list(range(file.num_row_groups))
        while groups and start >= file.metadata.row_group(groups[0]).num_rows:
            start -= file.metadata.row_group(groups.pop(0)).num_rows
        held: list[pa.RecordBatch] = []
        count = 0
        for batch in file.iter_batches(size, row_groups=groups, columns=columns):
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


def _strings(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.cast(pa.string())
    return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())


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


# -- npz and npy ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Header:
    """What stands before the values of an npy file, or of one inside an npz file."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @staticmethod
    def read(file: IO[bytes], size: int | None = None) -> _Header:
        """Of a file that stands at its beginning; with its size in bytes, one that holds less than it says is refused.

        Nothing may be asked for on the word of a header alone: memory for 10^15 rows, say.
        """
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of npy is for names of fields, and holds no plain array")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        header = _Header(*read(file))
        if header.dtype.hasobject:
            raise ValueError("it holds pickled objects, which are never loaded")
        if any(side < 0 for side in header.shape):
            raise ValueError(f"its shape must have no negative side, got {header.shape}")
        if size is not None and math.prod(header.shape) * header.dtype.itemsize > size - file.tell():
            raise EOFError("it ends before its last row")
        return header

    @property
    def is_vectors(self) -> bool:
        return len(self.shape) == 2 and np.issubdtype(self.dtype, np.floating)


def _slices(file: IO[bytes], start: int, size: int) -> Iterator[NDArray[Any]]:
    """Rows of an array from ``start`` on, ``size`` at a time, from a file that stands at its beginning."""
    header = _Header.read(file)
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


def _open_npy(path: Path, column: str | None) -> VectorFile:
    if column is not None:
        raise InputError(f"{path}: is one array and has no column {column!r} to choose")
    with path.open("rb") as file:
        header = _Header.read(file, path.stat().st_size)
    if not header.is_vectors:
        raise InputError(f"{path}: must hold floats with two axes, got {header.dtype} {header.shape}")
    _check_filled(path, "the array", header)
    n, width = header.shape
    return VectorFile(path=path, form="npy", n=n, width=width, key="", others=(), _reader=_Npy(path))


def _check_filled(path: Path, what: str, header: _Header) -> None:
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


def _open_npz(path: Path, column: str | None) -> VectorFile:
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                headers[entry.filename.removesuffix(".npy")] = _Header.read(file, entry.file_size)
    matrices = [name for name, header in headers.items() if header.is_vectors]
    usual = [name for name in ("vectors", "releases") if name in matrices]
    chosen = column or (usual[0] if usual else matrices[0] if len(matrices) == 1 else None)
    if chosen is None or chosen not in matrices:
        raise InputError(
            f"{path}: {'no array' if chosen is None else f'array {chosen!r} is not one'} of floats with two axes "
            f"to take (there are: {', '.join(matrices) or 'none'})"
        )
    _check_filled(path, f"array {chosen}", headers[chosen])
    n, width = headers[chosen].shape
    rest = [name for name in headers if name != chosen]
    key = next((name for name in KEYS if name in rest), "")
    if key and headers[key].shape != (n,):
        raise InputError(f"{path}: array {key} must name its {n} rows, got shape {headers[key].shape}")
    return VectorFile(
        path=path, form="npz", n=n, width=width, key=key, others=tuple(name for name in rest if name != key),
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
                yield pa.array(_decoded(values))

    def columns(self, names: Sequence[str], n: int) -> dict[str, pa.ChunkedArray | pa.Array]:
        out = {}
        with zipfile.ZipFile(self.path) as archive:
            for name in names:
                with archive.open(f"{name}.npy") as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                if array.shape != (n,) or array.dtype.kind not in "USbiuf":
                    raise InputError(f"{self.path}: array {name} is {array.dtype} {array.shape}; must be {n} labels")
                try:
                    out[name] = pa.array(_decoded(array))
                except UnicodeDecodeError:
                    raise InputError(f"{self.path}: array {name} holds bytes that are not UTF-8") from None
        return out


def _decoded(array: NDArray[Any]) -> NDArray[Any]:
    return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
