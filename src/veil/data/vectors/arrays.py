"""Vectors in npz and npy: arrays of floats with two axes."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from veil.data.columns import Kind
from veil.data.vectors.file import USUAL, Rows, VectorFile, Wanted, float32
from veil.errors import InputError
from veil.foreign import MOST_LETTERS, Header, NoPlainArray, check_archive, opened
from veil.parquet import FREE_ROWS


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


def open_npy(path: Path, wanted: Wanted) -> VectorFile:
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
                yield {}, float32(values), None

    def names(self, key: str, size: int) -> Iterator[pa.Array]:
        return iter(())

    def columns(self, names: Sequence[str], n: int) -> dict[str, pa.ChunkedArray | pa.Array]:
        return {}


def open_npz(path: Path, wanted: Wanted) -> VectorFile:
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
            for values, *cells in zip(_slices(file, start, size), *others, strict=True):
                yield dict(zip(columns, cells, strict=True)), float32(values), None

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
