"""What a pack's rows have besides their pixels: names, labels, splits and pairs, gathered row by row, then written."""

from __future__ import annotations

import array
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from veil.data import splits
from veil.data.classes import class_name, few
from veil.data.columns import plain
from veil.data.layouts.listing import Item, Pair, Remarks
from veil.data.pack import SPLITS
from veil.data.packfile import RESERVED
from veil.errors import InputError

SOURCES_AT_ONCE = 2**16


@dataclass
class Rows:
    """What the rows that were packed have besides their pixels; a few bytes per row."""

    attributes: tuple[str, ...]
    shape: tuple[int, ...] = ()
    sources: list[pa.Array] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    labels: dict[str, array.array[int]] = field(default_factory=dict)
    codes: dict[str, dict[str, int]] = field(default_factory=dict)
    skipped: int = 0
    remarks: Remarks = field(default_factory=Remarks)
    uprights: array.array[int] = field(default_factory=lambda: array.array("i"))
    _names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in self.attributes:
            if name in RESERVED:
                raise InputError(f"label name {name!r}: {' and '.join(RESERVED)} are not free for labels")
        self.labels = {name: array.array("i") for name in self.attributes}
        self.codes = {name: {} for name in self.attributes}

    def add(self, item: Item) -> None:
        self._names.append(item.source)
        self.uprights.extend(item.upright or ())
        if len(self._names) == SOURCES_AT_ONCE:
            self.flush()
        self.splits.append(item.split)
        assert item.labels.keys() <= self.labels.keys(), f"{item.source}: labels {item.labels.keys()} not announced"
        for name, codes in self.labels.items():
            value = class_name(item.labels.get(name))
            known = self.codes[name]
            codes.append(-1 if value is None else known.setdefault(value, len(known)))

    def flush(self) -> None:
        self.sources.append(pa.array(self._names, pa.string()))
        self._names = []


def split_of(
    rows: Rows, seed: int, fractions: Sequence[float], disjoint: bool, several: bool = False
) -> tuple[NDArray[np.int8], bool]:
    """The splits, and whether the data set prescribes them; ``several``: rows are ``NAME#1`` and so on of photographs,
    each of which then stays in one split.
    """
    n = rows.shape[0]
    identity = np.array(_ranked(rows, "identity")[0] if "identity" in rows.labels else np.full(n, -1))
    given = sum(split is not None for split in rows.splits)
    if given == 0:
        groups = identity if disjoint else np.full(n, -1)
        return splits.assign(_with_photographs(rows, groups) if several else groups, seed, fractions), False
    if given < n:
        raise InputError(f"split: given for {given} of {n} rows; give it for all of them or for none")
    split = splits.parse([s for s in rows.splits if s is not None])
    if disjoint:
        order = np.lexsort((split, identity))
        same = (np.diff(identity[order]) == 0) & (np.diff(split[order]) != 0) & (identity[order][1:] >= 0)
        if np.any(same):
            row = order[int(np.argmax(same))]
            name = _ranked(rows, "identity")[1][identity[row]]
            raise InputError(
                f"split: identity {name!r} stands in several splits ({int(same.sum())} such cases); "
                "splits must be disjoint by identity unless identity is itself the private attribute"
            )
    return split, True


def _with_photographs(rows: Rows, groups: NDArray[Any]) -> NDArray[np.int64]:
    """Groups of rows, those of one photograph together: it has light, camera and company in common.

    At most one face of a photograph has a known group; the others join it. Where none has, they are one of their own.
    """
    names = itertools.chain.from_iterable(chunk.to_pylist() for chunk in rows.sources)
    _, photograph = np.unique([name.rpartition("#")[0] for name in names], return_inverse=True)
    of = photograph + groups.max(initial=-1) + 1
    joined = np.full(photograph.max() + 1, -1, np.int64)
    joined[photograph[groups >= 0]] = groups[groups >= 0]
    return np.where(joined[photograph] >= 0, joined[photograph], of)


def _ranked(rows: Rows, name: str) -> tuple[NDArray[np.int32], list[str]]:
    """A label's codes into its sorted class names (codes are given in the order of appearance at first)."""
    classes = sorted(rows.codes[name])
    rank = np.full(len(classes) + 1, -1, np.int32)  # the last entry serves code -1
    for place, word in enumerate(classes):
        rank[rows.codes[name][word]] = place
    return rank[np.array(rows.labels[name], np.int32)], classes


def write_labels(folder: Path, rows: Rows, split: NDArray[np.int8]) -> dict[str, list[str]]:
    """Writes ``labels.parquet``; returns the class names of each label."""
    source = pa.chunked_array(rows.sources, pa.string())
    counts = source.value_counts()
    if len(counts) < len(source):
        twice = next(c["values"].as_py() for c in counts if c["counts"].as_py() > 1)
        raise InputError(f"source {twice!r} stands in the data set more than once; sources must be unique")
    labels = {name: _ranked(rows, name) for name in rows.attributes}
    for name, (codes, _) in labels.items():
        unknown = int(np.sum(codes < 0))
        rows.remarks.lost(f"{name} is unknown in {unknown} of {len(codes)} rows.", unknown, len(codes))
    write_table(folder, source, split, labels)
    return {name: classes for name, (_, classes) in labels.items()}


def write_table(
    folder: Path,
    source: pa.ChunkedArray,
    split: NDArray[np.int8],
    labels: Mapping[str, tuple[NDArray[Any], Sequence[str]]],
) -> None:
    """Writes ``labels.parquet``: names ``(N,)`` and splits of the rows, and each label's codes ``(N,)`` and classes."""
    columns: dict[str, Any] = {"source": source}
    columns["split"] = pa.DictionaryArray.from_arrays(pa.array(split.astype(np.int32)), pa.array(SPLITS))
    for name, (codes, classes) in labels.items():
        indices = pa.array(codes, pa.int32(), mask=codes < 0)
        columns[name] = pa.DictionaryArray.from_arrays(indices, pa.array(list(classes), pa.string()))
    pq.write_table(pa.table(columns), folder / "labels.parquet", compression="zstd")


def write_pairs(folder: Path, rows: Rows, pairs: list[Pair] | None) -> None:
    """Writes ``pairs.npy`` as row numbers; notes how many pairs are lost."""
    if not pairs:
        return
    paired = [(plain(a), plain(b), same, fold) for a, b, same, fold in pairs]
    wanted = set(itertools.chain.from_iterable(pair[:2] for pair in paired))
    names = map(plain, itertools.chain.from_iterable(chunk.to_pylist() for chunk in rows.sources))
    row = {name: i for i, name in enumerate(names) if name in wanted}
    table = [(row[a], row[b], int(same), fold) for a, b, same, fold in paired if a in row and b in row]
    np.save(folder / "pairs.npy", np.array(table, np.int64).reshape(-1, 4))
    lost = len(pairs) - len(table)
    if lost:
        missing = few([repr(name) for name in sorted(wanted - row.keys())], 3)
        rows.remarks.lost(
            f"{lost} of {len(pairs)} pairs name images that are not in the pack: {missing}.", lost, len(pairs)
        )
