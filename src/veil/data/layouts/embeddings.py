"""The layout ``embeddings``: vectors that someone else's model made, in a Parquet, npz, npy or CSV file, with labels.

Where the vectors are in a file, and which column names its rows, ``veil.data.vectors`` says; the setting ``column``
names another column or array, or several columns, and ``names=numbers`` names rows by their numbers. ``split``
prescribes the splits; all other columns, or arrays with one axis, are labels, but for those whose type is none of a
label's.

A separate file of labels (CSV or Parquet) is joined on the rows' names, as in the layout ``folder``, or row by row
where neither it nor the vectors name their rows; another pack may stand in its place, for its labels, splits and pairs,
so that an embedding of the images of a pack is split as they are.

Vectors are stored as float32. A row with a NaN, an infinity, only zeros, or another width is listed in ``skipped.csv``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from veil.data.classes import few
from veil.data.columns import KEYS
from veil.data.layouts import table as tables
from veil.data.layouts.listing import Item, Listing, Options, Remarks, check_options
from veil.data.packfile import marks_in
from veil.data.vectors import open_vectors
from veil.errors import InputError


def read(source: Path, options: Options) -> Listing:
    """Lists the vectors of a file; raises InputError where it holds none or labels do not fit."""
    check_options("embeddings", options, {"column": None, "names": ("numbers",)}, labels=True)
    file = open_vectors(source, options.settings.get("column"), named="names" not in options.settings)
    n = file.n
    tables.check_width(source, file.others)
    own = tables.build(source, file.columns([*([file.key] if file.key else []), *file.others]), KEYS, file.aside)
    names = own.names if own.key else [str(i) for i in range(n)]
    remarks = Remarks(notes=[*([file.note] if file.note else []), *own.notes])
    if not own.key:
        remarks.notes.append(f"{source.name!r} does not name its rows; their numbers do.")
    other, rows, pairs = None, np.full(n, -1, np.int64), None
    if options.labels is not None:
        other = tables.read(options.labels, KEYS, rows=None if own.key else n)
        odd = set() if own.key else set(other.names) - set(names)
        if 0 < len(odd) < len(other.names):  # counted from 1, say: every label would be its neighbour's
            raise InputError(
                f"{options.labels}: {source} does not name its rows, so {other.key} must be their numbers, "
                f"0 to {n - 1}, got {few(sorted(odd), 2)}"
            )
        rows = tables.join(other, names)
        remarks.notes.extend(other.notes)
        tables.tell_join(remarks, other, names, rows, "vectors")
        both = sorted(own.codes.keys() & other.codes.keys())
        both += ["split"] if own.split is not None and other.split is not None else []
        if both:
            raise InputError(f"{options.labels}: has a column {both[0]}, and so has {source}; keep one of them")
        pairs = other.pairs_of(names, rows)

    def items() -> Iterator[Item]:
        for block in file.blocks(named=False):
            for place, vector in enumerate(block.vectors):
                i = block.start + place
                labels, split, missing = own.row(i), *own.split_of(i)
                if other is not None:
                    labels |= other.row(int(rows[i]))
                    if other.split is not None:
                        split, missing = other.split_of(int(rows[i]))
                yield Item(names[i], vector, labels, split, block.problems.get(place, missing))

    marks = marks_in(source, [*own.codes]) | dict({} if other is None else other.predicted)
    attributes = (*own.codes, *(other.codes if other is not None else ()))
    return Listing(
        items=items(), count=n, attributes=attributes, kind="vectors", pairs=pairs, notes=remarks.notes,
        warnings=remarks.warnings, columns=file.dimensions, predicted=marks,
    )  # fmt: skip
