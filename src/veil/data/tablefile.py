"""Rows and columns of tables in Parquet, of one file or of several with the same columns, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from veil.data.columns import has_path, leaf
from veil.errors import InputError
from veil.foreign import TEXTS, parsed_json
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
    """Whole columns that hold names or labels, text as dictionaries; words where numbers stand for classes.

    Raises:
        InputError: A number stands for no class.
    """
    batches: list[pa.RecordBatch] = []
    for path in files if names else ():
        with open_parquet(path) as (file, schema):
            wanted = [leaf(schema, name) for name in names]
            some = [file.read_row_groups([], columns=wanted)]  # of whose type all are
            some += [file.read_row_group(group, columns=wanted) for group in range(file.num_row_groups)]  # as above
            each = [batch for table in some for batch in _batches(table)]
            batches += _in_words(path, each, names, classes_of(schema))
    table = pa.Table.from_batches(batches) if batches else pa.table({})
    return {name: table.column(name).unify_dictionaries() for name in names}


def _batches(table: pa.Table) -> list[pa.RecordBatch]:
    empty = pa.record_batch([pa.array([], field.type) for field in table.schema], schema=table.schema)
    return validated(table).to_batches() or [empty]


def _in_words(
    path: Path, batches: Sequence[pa.RecordBatch], names: Sequence[str], classes: Mapping[str, Sequence[str]]
) -> Iterator[pa.RecordBatch]:
    """The columns of a file as plain ones, in words where numbers stand for classes; -1 is none, as Hugging Face says.

    Raises:
        InputError: A number stands for no class.
    """
    row = 0
    for batch in batches:
        columns = plain_columns(batch, names).columns
        for i, words in ((i, classes[name]) for i, name in enumerate(names) if name in classes):
            codes = columns[i].cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
            if np.any(strange := (codes < -1) | (codes >= len(words))):
                odd = int(np.argmax(strange))
                raise InputError(
                    f"{path}: row {row + odd}: {names[i]} must be -1 to {len(words) - 1}, as it has {len(words)} "
                    f"classes, got {codes[odd]}"
                )
            indices = pa.array(codes.astype(np.int32), mask=codes < 0)
            columns[i] = pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.string()))
        yield pa.record_batch(columns, names=list(names))
        row += len(batch)


def features_of(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What Hugging Face's libraries say of the columns; nothing where they say nothing that can be understood."""
    try:
        said = parsed_json((schema.metadata or {}).get(b"huggingface", b"{}").decode())
        features = said.get("info", {}).get("features", {}).items()
    except (ValueError, AttributeError):
        return {}
    return {name: feature for name, feature in features if isinstance(feature, dict)}


def classes_of(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of the classes that whole numbers stand for, by column, as Hugging Face's libraries say."""
    labels = {
        name: said.get("names") for name, said in features_of(schema).items() if said.get("_type") == "ClassLabel"
    }
    return {
        name: words for name, words in labels.items()
        if words and TEXTS[1](words) and name in schema.names and pa.types.is_integer(schema.field(name).type)
    }  # fmt: skip


def plain_columns(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """The columns in this order: of structs the paths, and text as dictionaries, however their file was written."""
    return pa.record_batch([_plain(batch.column(name)) for name in columns], names=list(columns))


def _plain(column: pa.Array) -> pa.Array:
    if has_path(column.type):
        column = pc.struct_field(column, "path")
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return column.dictionary_encode() if is_text else column
