"""The layout ``parquet``: images in a Parquet file, or in a folder of such files, as Hugging Face keeps them.

A folder is one table, of all files ``.parquet`` and ``.pq`` below it in the order of their paths::

    data/train-00000-of-00002.parquet
    data/train-00001-of-00002.parquet

One column holds the encoded images: structs of ``bytes`` and ``path``, or bytes alone. Where several do, the setting
``image`` names one. Rows are named by the first column that gives every row a name of its own, of those that may
(:data:`veil.data.columns.KEYS`) and the images' own ``path``; else, or with ``names=numbers``, by their numbers,
counted from 0 through all files. ``split`` prescribes the splits. All other columns of text, whole numbers and
booleans are labels, ``identity`` the one that says who is seen; whole numbers that stand for classes, as the metadata
``huggingface`` of the file say, have the classes' names. Floats, lists and structs are left aside by name.

A separate file of labels is joined as in the layout ``embeddings``. A row without an image, or with the path of one in
place of its bytes, is listed in ``skipped.csv``: what a path names is never opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from veil.data.classes import few
from veil.data.imagetable import open_images
from veil.data.layouts import table as tables
from veil.data.layouts.joined import joined
from veil.data.layouts.listing import Item, Listing, Options, Remarks, check_options


def read(source: Path, options: Options) -> Listing:
    """Lists the images of a table; raises InputError where it holds none or labels do not fit."""
    check_options("parquet", options, {"image": None, "names": ("numbers",)}, labels=True)
    table = open_images(source, options.settings.get("image"))
    tables.check_width(source, table.labels)
    numbered = "names" in options.settings
    key, names = ("", table.numbers()) if numbered else table.names()
    own = tables.build(source, table.columns(), (), table.aside)
    files = f", {len(table.files):,} files" if source.is_dir() else ""
    remarks = Remarks(notes=[f"Images are the column {table.column!r} of {source.name!r}{files}."])
    if key:
        remarks.notes.append(f"Rows are named by the column {key!r}.")
    elif table.keys and not numbered:
        remarks.notes.append(f"No column gives every row a name of its own ({few(table.keys)} do not); numbers do.")
    else:
        remarks.notes.append(f"{source.name!r} does not name its rows; their numbers do.")
    if spare := [name for name in table.keys if name not in (key, table.column)]:
        remarks.notes.append(f"Left aside, as they could name rows: {few(spare)}.")
    labels = joined(own, names, options.labels, remarks, named=bool(key), what="images")

    def items() -> Iterator[Item]:
        for i, (data, problem) in enumerate(table.images()):
            known, split, missing = labels.of(i)
            yield Item(names[i], data, known, split, problem or missing)

    return Listing(
        items=items(), count=table.n, attributes=labels.attributes, pairs=labels.pairs, notes=remarks.notes,
        warnings=remarks.warnings, predicted=labels.predicted,
    )  # fmt: skip
