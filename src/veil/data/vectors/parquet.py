"""Vectors in Parquet: a column of lists of floats, or a column for each value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from veil.data import columns as kinds
from veil.data.columns import leaf
from veil.data.vectors.choice import dimensions_of, vector_columns
from veil.data.vectors.file import BATCH, Rows, VectorFile, Wanted, float32
from veil.errors import InputError
from veil.parquet import check_lists, open_parquet, validated


def open_parquet_vectors(path: Path, wanted: Wanted) -> VectorFile:
    with open_parquet(path) as (file, schema):
        n = file.metadata.num_rows
        if twice := kinds.repeated(schema.names):
            raise InputError(f"{path}: column {twice!r} stands there more than once")
        chosen = vector_columns(
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
        aside=tuple(aside), dimensions=dimensions_of(chosen, lists), _reader=_Parquet(path, chosen),
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
            cells = {name: table.column(name).combine_chunks() for name in columns}
            if _is_list(table.schema.field(self.chosen[0]).type):
                yield cells, *_unpacked(table.column(self.chosen[0]).combine_chunks(), width)
            else:
                values = np.empty((len(table), width), np.float32)
                for i, name in enumerate(self.chosen):
                    values[:, i] = float32(table.column(name).to_numpy())
                yield cells, values, None

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
        return float32(column.flatten().to_numpy(zero_copy_only=False)).reshape(-1, width), lengths
    vectors = np.zeros((len(column), width), np.float32)
    vectors[whole] = float32(column.filter(pa.array(whole)).flatten().to_numpy(zero_copy_only=False)).reshape(-1, width)
    return vectors, lengths
