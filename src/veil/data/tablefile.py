"""Rows and columns of tables in Parquet, of one file or of several with the same columns, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from veil.data.columns import has_path, leaf
from veil.parquet import open_parquet, validated


def rows_from(
    files: Sequence[Path],
    start: int,
    size: int,
    columns: Sequence[str],
    part: Callable[[pa.Schema, str], str] = leaf,
) -> Iterator[pa.RecordBatch]:
    """Columns of the rows from ``start`` on, in batches of at most ``size``; ``part`` says what is read of each."""
    for path in files:
        with open_parquet(path) as (file, schema):
            wanted = [part(schema, name) for name in columns]
            for group in range(file.num_row_groups):  # one by one, as Arrow joins no parts of structs
                if start >= (count := file.metadata.row_group(group).num_rows):
                    start -= count
                    continue
                for batch in file.iter_batches(size, row_groups=[group], columns=wanted):
                    batch.validate(full=True)
                    if start < len(batch):
                        yield batch.slice(start)
                    start -= min(start, len(batch))


def whole_columns(files: Sequence[Path], names: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    """Whole columns that hold names or labels, text as dictionaries."""
    batches = []
    for path in files if names else ():
        with open_parquet(path) as (file, schema):
            wanted = [leaf(schema, name) for name in names]
            for group in range(file.num_row_groups):  # as above
                table = validated(file.read_row_group(group, columns=wanted))
                batches += [plain_columns(batch, names) for batch in table.to_batches()]
            batches.append(plain_columns(_no_rows(file.read_row_groups([], columns=wanted).schema), names))
    table = pa.Table.from_batches(batches) if batches else pa.table({})
    return {name: table.column(name).unify_dictionaries() for name in names}


def plain_columns(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """The columns in this order: of structs the paths, and text as dictionaries, however their file was written."""
    return pa.record_batch([_plain(batch.column(name)) for name in columns], names=list(columns))


def _plain(column: pa.Array) -> pa.Array:
    if has_path(column.type):
        column = pc.struct_field(column, "path")
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return column.dictionary_encode() if is_text else column


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.record_batch([pa.array([], field.type) for field in schema], schema=schema)
