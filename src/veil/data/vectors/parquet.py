"""Vectors in Parquet, a file or a folder of them: a column of lists of floats, or a column for each value."""

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
from veil.data.classes import few
from veil.data.tablefile import classes_of, plain_columns, rows_from, whole_columns
from veil.data.vectors.choice import dimensions_of, vector_columns
from veil.data.vectors.file import BATCH, Rows, VectorFile, Wanted, float32
from veil.errors import InputError
from veil.parquet import check_alike, check_lists, open_parquet, shards


def open_parquet_vectors(path: Path, wanted: Wanted) -> VectorFile:
    """The vectors of a file, or of a folder of files with the same columns, one behind the other."""
    files = shards(path)
    with open_parquet(files[0]) as (_, schema):
        if twice := kinds.repeated(schema.names):
            raise InputError(f"{files[0]}: column {twice!r} stands there more than once")
        columns = {f.name: f.type for f in schema}
        vectors = [name for name, kind in columns.items() if _is_list(kind) and pa.types.is_floating(kind.value_type)]
        floats = [name for name, kind in columns.items() if pa.types.is_floating(kind)]
        numbers = [name for name, kind in columns.items() if name in floats or pa.types.is_integer(kind)]
        if not vectors and len(floats) < 2 and (images := kinds.images(columns)):
            raise InputError(f"{path}: holds no vectors, but images ({few(images)}); the layout parquet packs them")
        chosen = vector_columns(path, vectors, floats, numbers, wanted)
    lists = _is_list(columns[chosen[0]])
    counts, widths = [], {}
    for each in files:
        with open_parquet(each) as (file, other):
            check_alike(each, other, files[0], schema)
            if classes_of(other) != classes_of(schema):
                raise InputError(f"{each}: must name the classes that {files[0].name} names, got others")
            if lists:
                check_lists(each, file, chosen[0], BATCH)
            counts.append(file.metadata.num_rows)
            if counts[-1]:
                widths[each] = _common_length(file, chosen[0]) if lists else len(chosen)
    width = next(iter(widths.values()), 0)
    if odd := next((each for each, other in widths.items() if other != width), None):
        raise InputError(f"{odd}: {chosen[0]} must have {width} values as in {next(iter(widths))}, got {widths[odd]}")
    key, others, aside = wanted.sorted_out(path, {name: kind for name, kind in columns.items() if name not in chosen})
    return VectorFile(
        path=path, form="list" if lists else "columns", n=sum(counts), width=width, key=key, others=tuple(others),
        aside=tuple(aside), dimensions=dimensions_of(chosen, lists), _reader=_Parquet(files, chosen),
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
    files: Sequence[Path]
    chosen: list[str]

    def rows(self, start: int, size: int, columns: Sequence[str], width: int) -> Rows:
        for table in _even(self.files, start, size, [*columns, *self.chosen]):
            cells = {name: table.column(name).combine_chunks() for name in columns}
            if _is_list(table.schema.field(self.chosen[0]).type):
                yield cells, *_unpacked(table.column(self.chosen[0]).combine_chunks(), width)
            else:
                values = np.empty((len(table), width), np.float32)
                for i, name in enumerate(self.chosen):
                    values[:, i] = float32(table.column(name).to_numpy())
                yield cells, values, None

    def names(self, key: str, size: int) -> Iterator[pa.Array]:
        return (table.column(key).combine_chunks() for table in _even(self.files, 0, size, [key]))

    def columns(self, names: Sequence[str], n: int) -> dict[str, pa.ChunkedArray | pa.Array]:
        return whole_columns(self.files, names)


def _even(files: Sequence[Path], start: int, size: int, columns: list[str]) -> Iterator[pa.Table]:
    """Tables of ``size`` rows (the last may be shorter) from row ``start`` on, across row groups and files."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in rows_from(files, start, size, columns):
        held.append(plain_columns(batch, columns))
        count += len(batch)
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
