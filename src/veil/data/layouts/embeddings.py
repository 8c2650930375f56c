"""The layout ``embeddings``: vectors that someone else's model made, with labels: a Parquet, npz, npy or CSV file, or
a folder of Parquet files.

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

from veil.data.columns import KEYS
from veil.data.layouts import table as tables
from veil.data.layouts.joined import joined
from veil.data.layouts.listing import Item, Listing, Options, Remarks, check_options
from veil.data.vectors import open_vectors


def read(source: Path, options: Options) -> Listing:
    """Lists the vectors of a file; raises InputError where it holds none or labels do not fit."""
    check_options("embeddings", options, {"column": None, "names": ("numbers",)}, labels=True)
    file = open_vectors(source, options.settings.get("column"), named="names" not in options.settings)
    n = file.n
    tables.check_width(source, file.others)
    own = tables.build(source, file.columns([*([file.key] if file.key else []), *file.others]), KEYS, file.aside)
    names = own.names if own.key else [str(i) for i in range(n)]
    remarks = Remarks(notes=[file.note] if file.note else [])
    labels = joined(own, names, options.labels, remarks, named=bool(own.key), what="vectors")
    if not own.key:
        remarks.notes.append(f"{source.name!r} does not name its rows; their numbers do.")

    def items() -> Iterator[Item]:
        for block in file.blocks(named=False):
            for place, vector in enumerate(block.vectors):
                known, split, missing = labels.of(block.start + place)
                yield Item(names[block.start + place], vector, known, split, block.problems.get(place, missing))

    return Listing(
        items=items(), count=n, attributes=labels.attributes, kind="vectors", pairs=labels.pairs, notes=remarks.notes,
        warnings=remarks.warnings, columns=file.dimensions, predicted=labels.predicted,
    )  # fmt: skip
