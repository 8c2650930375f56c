"""Files of vectors, read piece by piece: Parquet, npz, npy and CSV.

Memory does not grow with the number of rows, whatever the size of the file's row groups; the exceptions are npy arrays
in Fortran order, whose rows do not lie together and which are read whole, and 8 bytes a row to find repeated names.

- Parquet: the vectors are a column of lists of floats (of fixed size or not). Where there is none, they are the columns
  of floats that share a name and differ in a number at its end (``v0`` ... ``v127``), or, if no columns do, all columns
  of floats; in the order of the file.
- CSV: in the same way; a column is one of floats if one of its first cells has a fraction or an exponent (or one of
  those numbered like it), and lists are written ``[0.1, 0.2]``, ``[0.1 0.2]`` or ``0.1 0.2``.
- A folder: all Parquet files below it, in the order of their paths, as one table. All must have the same columns.
- npz: the array ``vectors`` or ``releases``, or the only array of floats with two axes.
- npy: the array, of floats with two axes.

What names the rows, and which other columns may be labels, :mod:`veil.data.columns` says; the rest is left aside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from veil.data.csvfile import SUFFIXES as CSV_SUFFIXES
from veil.data.vectors.arrays import open_npy, open_npz
from veil.data.vectors.file import BATCH, Block, VectorFile, Wanted, readable
from veil.data.vectors.parquet import open_parquet_vectors
from veil.data.vectors.text import open_csv_vectors
from veil.errors import InputError
from veil.parquet import FREE_VALUES, LISTED, size_of
from veil.parquet import SUFFIXES as PARQUET_SUFFIXES

__all__ = ["SUFFIXES", "Block", "VectorFile", "open_vectors"]

SUFFIXES = (*PARQUET_SUFFIXES, ".npz", ".npy", *CSV_SUFFIXES)


def open_vectors(
    path: Path, column: str | None = None, *, dimensions: Sequence[str] = (), named: bool = True
) -> VectorFile:
    """Finds the vectors in a file.

    Args:
        path: Must end in one of :data:`SUFFIXES`, or be a folder of Parquet files, which are read as one.
        column: The column of lists, the shared name of the numbered columns, several columns of numbers as ``A,B,C``,
            or the array, where it is not clear.
        dimensions: The columns that the values of vectors must stand in, in this order, where each has its own.
        named: Whether a column may name the rows; else their numbers do.

    Raises:
        InputError: If the file is missing or damaged, or holds no vectors, or several with none chosen; if it lacks
            one of the dimensions, or has a column beside them; or if what should name its rows cannot.
    """
    if not (path.is_file() or path.is_dir()):
        got = "not a file" if path.exists() else "no such file"
        raise InputError(f"{path}: {got}; must be a .parquet, .npz, .npy or .csv, or a folder of .parquet")
    openers: dict[str, Callable[[Path, Wanted], VectorFile]] = {
        **dict.fromkeys(PARQUET_SUFFIXES, open_parquet_vectors),
        ".npz": open_npz,
        ".npy": open_npy,
        **dict.fromkeys(CSV_SUFFIXES, open_csv_vectors),
    }
    opener = open_parquet_vectors if path.is_dir() else openers.get(path.suffix.lower())
    if opener is None:
        raise InputError(f"{path}: must end in .parquet, .npz, .npy or .csv")
    with readable(path):
        wanted = Wanted(column=column, dimensions=tuple(dimensions), named=named)
        file = opener(path, wanted)
        values, size = min(file.n, BATCH) * file.width, size_of(path)
        if values > (most := FREE_VALUES + LISTED * size):
            raise InputError(
                f"{path}: {min(file.n, BATCH):,} rows must have at most {most:,} values in {size:,} bytes, got "
                f"{values:,}"
            )
    return file
