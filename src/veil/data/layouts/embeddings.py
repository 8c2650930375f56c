"""The layout ``embeddings``: vectors that someone else's model made, in a Parquet or npz file, with labels.

Parquet: the vectors are a column of lists of floats (of fixed size or not), or, where there is none, all columns of
floats in their order. npz: the array ``vectors``, or the only array of floats with two axes. The setting ``column``
names another column or array. A column (or array with one axis) ``source``, ``name``, ``file``, ``filename``, ``path``
or ``image`` names the rows; where there is none their numbers do. ``split`` prescribes the splits; all others are
labels.

A separate file of labels (CSV or Parquet) is joined on the rows' names, as in the layout ``folder``; another pack may
stand in its place, for its labels, splits and pairs, so that an embedding of the images of a pack is split as they are.

Vectors are stored as float32. A row with a NaN, an infinity, only zeros, or another width is listed in ``skipped.csv``.
Parquet files are read piece by piece, whatever their length; npz files are read whole.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from veil.data.layouts import table as tables
from veil.data.layouts.listing import Item, Listing, Options, Pair, check_options
from veil.errors import InputError

KEYS = ("source", "name", "file", "filename", "path", "image")
BATCH = 4096

Batches = Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]
"""Vectors ``(n, d)`` and, for each, how many values its row has (what is missing or too much is not in the array)."""


def read(source: Path, options: Options) -> Listing:
    """Lists the vectors of a file; raises InputError where it holds none or labels do not fit."""
    check_options("embeddings", options, {"column": None}, labels=True)
    if not source.is_file():
        raise InputError(f"{source}: {'not a file' if source.exists() else 'no such file'}; must be .parquet or .npz")
    column = options.settings.get("column")
    kinds: dict[str, Callable[[Path, str | None], tuple[tables.Table, int, Batches]]] = {
        ".parquet": _parquet,
        ".pq": _parquet,
        ".npz": _npz,
    }
    if source.suffix.lower() not in kinds:
        raise InputError(f"{source}: must end in .parquet or .npz")
    own, n, batches = kinds[source.suffix.lower()](source, column)
    names = own.names if own.key else [str(i) for i in range(n)]
    notes = list(own.notes)
    if not own.key:
        notes.append(f"{source.name} does not name its rows; their numbers do.")
    other, rows, pairs = None, np.full(n, -1, np.int64), None
    if options.labels is not None:
        if not own.key:
            raise InputError(f"{source}: names its rows in no column ({', '.join(KEYS)}) to join labels on")
        other = tables.read(options.labels, KEYS)
        rows = tables.join(other, names)
        notes += [*other.notes, *tables.join_notes(other, names, rows, "vectors")]
        both = sorted(own.codes.keys() & other.codes.keys())
        both += ["split"] if own.split is not None and other.split is not None else []
        if both:
            raise InputError(f"{options.labels}: has a column {both[0]}, and so has {source}; keep one of them")
        pairs = _translate(other, names, rows)

    def items() -> Iterator[Item]:
        i = 0
        for vectors, widths in batches:
            width = vectors.shape[1]
            finite = np.asarray(np.isfinite(vectors).all(axis=1)).tolist()
            filled = np.asarray(vectors.any(axis=1)).tolist()
            for vector, has, good, some in zip(vectors, widths.tolist(), finite, filled, strict=True):
                problem = "" if good else "a NaN or infinite value"
                problem = problem if some else "only zeros"
                problem = f"{has} values where others have {width}" if has != width else problem
                labels, split, missing = own.row(i), *own.split_of(i)
                if other is not None:
                    labels |= other.row(int(rows[i]))
                    if other.split is not None:
                        split, missing = other.split_of(int(rows[i]))
                yield Item(names[i], vector, labels, split, problem or missing)
                i += 1

    attributes = (*own.codes, *(other.codes if other is not None else ()))
    return Listing(items=items(), count=n, attributes=attributes, kind="vectors", pairs=pairs, notes=tuple(notes))


def _translate(table: tables.Table, names: list[str], rows: NDArray[np.int64]) -> list[Pair] | None:
    """A table's pairs by the names that the vectors have."""
    if table.pairs is None:
        return None
    name = {table.names[row]: names[i] for i, row in enumerate(rows.tolist()) if row >= 0}
    return [(name.get(a, a), name.get(b, b), same, fold) for a, b, same, fold in table.pairs]


def _parquet(path: Path, column: str | None) -> tuple[tables.Table, int, Batches]:
    try:
        # ParquetFile rather than read_table: names of folders above the file (such as a=b) are no columns of it.
        file = pq.ParquetFile(path, memory_map=True)
        schema = file.schema_arrow
        chosen = _vector_columns(path, schema, column)
        others = [name for name in schema.names if name not in chosen]
        held = file.read(columns=others) if others else pa.table({})
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    twice = [name for name in schema.names if schema.names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: column {twice[0]!r} stands there more than once")
    own = tables.build(path, {name: held.column(name) for name in others}, KEYS)
    return own, file.metadata.num_rows, _batches(path, file, chosen)


def _vector_columns(path: Path, schema: pa.Schema, column: str | None) -> list[str]:
    """The one column of lists of floats, or the columns of floats."""
    lists = [f.name for f in schema if _is_list(f.type) and pa.types.is_floating(f.type.value_type)]
    if column is not None:
        if column not in lists:
            raise InputError(f"{path}: column {column!r} is not one of lists of floats ({', '.join(lists) or 'none'})")
        return [column]
    if len(lists) > 1:
        raise InputError(f"{path}: several columns hold lists of floats ({', '.join(lists)}); set column to one")
    floats = [f.name for f in schema if pa.types.is_floating(f.type)]
    if not lists and len(floats) < 2:
        raise InputError(f"{path}: no column of lists of floats, and not two columns of floats or more")
    return lists or floats


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _batches(path: Path, file: pq.ParquetFile, chosen: list[str]) -> Batches:
    """Vectors by the batch; the width is what most rows of the first batch have."""
    width = 0
    try:
        for batch in file.iter_batches(BATCH, columns=chosen):
            if not _is_list(batch.schema.field(0).type):
                stack = [_floats(batch.column(name)) for name in chosen]
                yield np.stack(stack, axis=1), np.full(len(batch), len(chosen))
                continue
            column = batch.column(0)
            lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            # A null in a list of fixed size has a length all the same.
            lengths[column.is_null().to_numpy(zero_copy_only=False)] = 0
            width = width or Counter(lengths.tolist()).most_common(1)[0][0]
            vectors = np.zeros((len(batch), width), np.float32)
            whole = lengths == width
            flat = _floats(column.filter(pa.array(whole)).flatten())
            vectors[whole] = flat.reshape(-1, width)
            yield vectors, lengths
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None


def _floats(column: pa.Array) -> NDArray[np.float32]:
    """float32, null as NaN, what is too large as an infinity."""
    with np.errstate(over="ignore"):
        values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return values.astype(np.float32)


def _npz(path: Path, column: str | None) -> tuple[tables.Table, int, Batches]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    matrices = [n for n, a in arrays.items() if a.ndim == 2 and np.issubdtype(a.dtype, np.floating)]
    chosen = column or ("vectors" if "vectors" in matrices else matrices[0] if len(matrices) == 1 else None)
    if chosen is None or chosen not in matrices:
        raise InputError(
            f"{path}: {'no array' if chosen is None else f'array {chosen!r} is not one'} of floats with two axes "
            f"to take (there are: {', '.join(matrices) or 'none'})"
        )
    vectors = arrays.pop(chosen)
    if 0 in vectors.shape:
        raise InputError(f"{path}: array {chosen} is {vectors.shape} and holds nothing")
    columns = {}
    for name, array in arrays.items():
        if array.shape != vectors.shape[:1] or array.dtype.kind not in "USbiuf":
            raise InputError(f"{path}: array {name} is {array.dtype} {array.shape}; must be {len(vectors)} labels")
        try:
            columns[name] = pa.array(np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array)
        except UnicodeDecodeError:
            raise InputError(f"{path}: array {name} holds bytes that are not UTF-8") from None

    def batches() -> Batches:
        for start in range(0, len(vectors), BATCH):
            with np.errstate(over="ignore"):
                piece = vectors[start : start + BATCH].astype(np.float32)
            yield piece, np.full(len(piece), vectors.shape[1])

    return tables.build(path, columns, KEYS), len(vectors), batches()
