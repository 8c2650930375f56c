"""Parquet files that others made, opened within bounds; and folders of them, each of which is one table.

A few bytes of Parquet may stand for any number of rows: nothing, or one value, is written once for all of them. What a
file says that it holds is therefore compared with its size before it is read; and text is read as the different words
that there are and the places where they stand (Arrow's dictionaries), which takes no more than the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from veil.errors import InputError
from veil.foreign import MOST_LETTERS, is_system, most_unpacked, one_line, opened

SUFFIXES = (".parquet", ".pq")

FREE_ROWS, FREE_VALUES, LISTED = 1 << 20, 1 << 25, 16
"""Rows, and values of rows that are read at a time, that a file of any size may have.

Beyond that each byte of it may stand for one row, and :data:`LISTED` values: real rows differ, names and vectors more
than anything.
"""


def shards(path: Path) -> list[Path]:
    """The Parquet files that a table is made of: the file itself, or those below a folder in the order of their paths.

    Hidden files, and folders that systems and tools keep for themselves, are no part of it.

    Raises:
        InputError: The folder holds none or cannot be read, or a link in it leads elsewhere.
    """
    if not path.is_dir():
        return [path]
    root, found, waiting = path.resolve(), [], [path]
    try:
        while waiting:
            for entry in waiting.pop().iterdir():
                if entry.is_dir() and not is_system(entry.name):
                    if entry.is_symlink():
                        raise InputError(f"{entry}: is a link to a folder, and is not followed; copy what it leads to")
                    waiting.append(entry)
                elif entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and not entry.is_dir():
                    if entry.is_symlink() and not entry.resolve().is_relative_to(root):
                        raise InputError(f"{entry}: is a link that leads out of {path}, and is not followed; copy it")
                    found.append(entry)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from None
    if not found:
        raise InputError(f"{path}: is a folder that holds no file *.parquet")
    return sorted(found, key=lambda file: file.relative_to(path).as_posix())


def size_of(path: Path) -> int:
    """Bytes of a table's files."""
    return sum(file.stat().st_size for file in shards(path))


def check_alike(path: Path, schema: pa.Schema, first: Path, wanted: pa.Schema) -> None:
    """Raises InputError unless a file of a table has the columns, and their types, that the table's first one has."""
    for name in [*wanted.names, *schema.names]:
        here, there = (_kind(each, name) for each in (schema, wanted))
        if here != there:
            got, other = (f"is {kind}" if kind is not None else "is missing" for kind in (here, there))
            raise InputError(
                f"{path}: must have the columns of all files of its table: {name} {got}, and {other} in {first.name}"
            )


def _kind(schema: pa.Schema, name: str) -> pa.DataType | None:
    """A column's type, of dictionaries that of their values; None where there is no such column."""
    kind = schema.field(name).type if name in schema.names else None
    return kind.value_type if kind is not None and pa.types.is_dictionary(kind) else kind


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever pyarrow says of a damaged file inside becomes one line."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, KeyError, OverflowError, pa.ArrowException) as error:
        # Its words may be text of the file, in whatever encoding.
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from None


@contextmanager
def open_parquet(path: Path) -> Iterator[tuple[pq.ParquetFile, pa.Schema]]:
    """A file that may be read, whose columns of text come as dictionaries; and its columns' types as they were written.

    Files whose names, of columns above all, are no UTF-8 are damaged.

    Raises:
        InputError: The file cannot be read; or it unpacks to more than a file of its size may, or says that it has more
            rows.
    """
    with reading(path), opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        source = _source(path, file.fileno())
        # Buffered, because groups of rows are else read whole; not mapped, as mapped pages count as memory in use.
        options: dict[str, Any] = {"buffer_size": 1 << 18, "pre_buffer": False}
        first = pq.ParquetFile(source, **options)
        schema = first.schema_arrow
        _check_size(path, first.metadata, size)
        _check_chunks(source, first.metadata)
        if long := next((name for name in schema.names if len(name) > MOST_LETTERS), ""):
            raise InputError(f"{path}: names of columns have at most {MOST_LETTERS:,} letters, got {len(long):,}")
        texts = {f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)}
        texts |= {f"{f.name}.path" for f in schema if _has_path(f.type)}
        if plain := _undictionaried(first.metadata, texts):
            _check_undictionaried(path, first, sorted(plain), size)
        yield pq.ParquetFile(source, metadata=first.metadata, read_dictionary=sorted(texts - plain), **options), schema


def _source(path: Path, handle: int) -> str:
    """What Arrow opens by itself.

    Of a file that Python opened, threads of Arrow's would read with Python's lock, and end the process where they take
    it while that ends. Names that are no UTF-8, which Arrow opens no file by, there are on systems with ``/dev/fd``.
    """
    try:
        return str(path).encode().decode()
    except UnicodeEncodeError:
        return f"/dev/fd/{handle}"


_DELTA = {"DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"}
_AT_ONCE = 64  # rows, each of which may be as long as the file


def _has_path(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index("path") >= 0)


def _undictionaried(about: pq.FileMetaData, texts: set[str]) -> set[str]:
    """Columns of text of which Arrow reads no dictionaries: written as what each shares with the one before, say."""
    places = {j: path for j in range(about.num_columns) if (path := about.schema.column(j).path) in texts}
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    return {path for j, path in places.items() if any(_DELTA & {*group.column(j).encodings} for group in groups)}


def _check_undictionaried(path: Path, file: pq.ParquetFile, columns: list[str], size: int) -> None:
    """Raises InputError where such columns are longer than a file of its size may unpack to; they are read once."""
    unpacked = 0
    for batch in file.iter_batches(_AT_ONCE, columns=columns):
        unpacked += batch.nbytes
        if unpacked > (most := most_unpacked(size)):
            raise InputError(f"{path}: must unpack to at most {most:,} bytes from {size:,}, got more")


def _check_size(path: Path, about: pq.FileMetaData, size: int) -> None:
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    if about.num_rows < 0 or sum(group.num_rows for group in groups) != about.num_rows:
        raise InputError(f"{path}: cannot be read (its groups of rows do not make up the {about.num_rows:,} of all)")
    if about.num_rows > FREE_ROWS + size:
        raise InputError(
            f"{path}: must have at most {FREE_ROWS + size:,} rows in {size:,} bytes, got {about.num_rows:,}"
        )
    unpacked = sum(group.total_byte_size for group in groups)
    if unpacked > (most := most_unpacked(size)):
        raise InputError(f"{path}: must unpack to at most {most:,} bytes from {size:,}, got {unpacked:,}")


def _check_chunks(source: str, about: pq.FileMetaData) -> None:
    """Raises OSError where what the file says of a chunk, a column's part of a group of rows, contradicts itself.

    Asked for such a chunk, Arrow's metadata end the process. A reader that is to prefetch them looks at all of them
    first, and says so; of no rows it reads nothing. (Its public methods read one at least, which may be of any length.)
    """
    reader = pq.ParquetFile(source, metadata=about, pre_buffer=True, buffer_size=1 << 18).reader
    for _ in reader.iter_batches(0, row_groups=range(about.num_row_groups), column_indices=range(about.num_columns)):
        pass


def check_lists(path: Path, file: pq.ParquetFile, column: str, rows: int) -> None:
    """Raises InputError for a column of lists with more values than a file of its size may have among so many rows.

    All lists of a group of rows may be those of a few of them.
    """
    about = file.metadata
    most = FREE_VALUES + LISTED * path.stat().st_size
    seen = values = 0
    for i in range(about.num_row_groups):
        group = about.row_group(i)
        chunks = (group.column(j) for j in range(group.num_columns))
        values += sum(chunk.num_values for chunk in chunks if chunk.path_in_schema.split(".", 1)[0] == column)
        seen += group.num_rows
        if values > most:
            raise InputError(
                f"{path}: {column} must have at most {most:,} values in groups of rows that are read at a time, got "
                f"{values:,} in {seen:,} rows; write smaller groups"
            )
        if seen >= rows:
            seen = values = 0


def check_expanded(path: Path, what: str, letters: int) -> None:
    """Raises InputError where text, written out for each row, would take more letters than a file of its size may."""
    if letters <= most_unpacked(0) // 2:  # of most, whose size need not be asked for
        return
    most = most_unpacked(size_of(path)) // 2
    if letters > most:
        raise InputError(f"{path}: {what} must have at most {most:,} letters in all, got {letters:,}")


CURVES = pa.schema([("step", pa.int64()), ("stage", pa.string()), ("player", pa.string()), ("loss", pa.float64())])
"""The columns of a file of training losses."""


def read_curves(path: Path) -> pa.Table:
    """Training losses: a table of the columns and types :data:`CURVES`; raises as :func:`read_typed`."""
    return read_typed(path, CURVES)


def read_typed(path: Path, wanted: pa.Schema) -> pa.Table:
    """A table of some columns and types, of which the texts come as dictionaries.

    Raises:
        InputError: As :func:`open_parquet`; or a column is missing, or of another kind.
    """
    with open_parquet(path) as (file, schema):
        if missing := [name for name in wanted.names if name not in schema.names]:
            raise InputError(f"{path}: has no column {missing[0]}")
        table = validated(file.read(columns=wanted.names))
        columns = [_typed(table[field.name], field.type) for field in wanted]
        return pa.table([column.unify_dictionaries().combine_chunks() for column in columns], names=wanted.names)


def validated(table: pa.Table) -> pa.Table:
    """The table; raises ArrowInvalid where its values are none of their types: bytes that are no UTF-8, say."""
    table.validate(full=True)
    return table


def _typed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """A column of a type, or of dictionaries of texts where that is text."""
    if not pa.types.is_string(kind):
        return column.cast(kind)
    texts = pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type)
    return column if texts else column.cast(kind).dictionary_encode()
