"""The layout ``folder``: any tree of images, with a CSV or Parquet file of labels or without one.

The file of labels has a column ``source``, ``file``, ``filename``, ``path`` or ``image`` that names the image: its path
inside the folder (or inside the folder that the file lies in), or the file's name alone where that is unique. A column
``split`` prescribes the splits; every other column is a label, ``identity`` the one that says who is seen; an empty
cell, ``NA`` or ``NaN`` in CSV, null or NaN in Parquet, is unknown. Another pack may stand in its place, for its labels
and splits. Where no file is named, ``labels.csv`` or ``labels.parquet`` at the top of the folder is taken if there is
one.

Images without a row stay, with unknown labels, unless the file prescribes splits. The setting ``identity=folder`` makes
the name of the folder that an image lies in its ``identity``.

Links to files are followed only to places inside the folder, links to folders never; both end up in ``skipped.csv``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from veil.data.decode import SUFFIXES
from veil.data.layouts import table as tables
from veil.data.layouts.listing import Item, Listing, Options, check_options, clean
from veil.errors import InputError


def read(source: Path, options: Options) -> Listing:
    """Lists the images below ``source``; raises InputError where it is no folder or the labels do not fit."""
    check_options("folder", options, {"identity": ("folder",)}, labels=True)
    if not source.is_dir():
        raise InputError(f"{source}: {'not a folder' if source.exists() else 'no such folder'}")
    found, others = walk(source)
    notes = [f"{others} files are no images by their name's ending and were left aside."] if others else []
    names = [clean(name) for name, _ in found]
    path = options.labels or _labels_file(source)
    table = None
    if path is not None:
        table = tables.read(path)
        rows = tables.join(table, names, _prefix(source, path))
        notes += [f"Labels were read from {path.name}.", *table.notes, *tables.join_notes(table, names, rows, "images")]
    by_folder = options.settings.get("identity") == "folder"
    if by_folder and table is not None and "identity" in table.codes:
        raise InputError(f"{table.path}: has a column identity already; leave out the setting identity=folder")
    if table is None and not by_folder:
        notes.append("There is no file of labels: all images are without labels.")

    def items() -> Iterator[Item]:
        for i, (name, problem) in enumerate(found):
            labels = table.row(rows[i]) if table is not None else {}
            split, missing = table.split_of(rows[i]) if table is not None else (None, "")
            if by_folder:
                labels["identity"] = names[i].rpartition("/")[0].rpartition("/")[2] or None
            yield Item(names[i], source / name, labels, split, problem or missing)

    attributes = (*(table.codes if table is not None else ()), *(("identity",) if by_folder else ()))
    pairs = table.pairs if table is not None else None
    return Listing(items=items(), count=len(found), attributes=attributes, pairs=pairs, notes=tuple(notes))


def walk(source: Path) -> tuple[list[tuple[str, str]], int]:
    """The images below a folder, in the order of their names, and how many other files there are.

    Returns:
        Path inside the folder (with ``/``) and "", or why the file or folder is not read; the number of other files.
    """
    root = source.resolve()
    found: list[tuple[str, str]] = []
    others = 0
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        folders = []
        try:
            with os.scandir(source / inside) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            found.append((inside, f"folder cannot be read ({error.strerror or error})"))
            continue
        for entry in listed:
            name = f"{inside}/{entry.name}" if inside else entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif entry.is_symlink() and entry.is_dir():
                    found.append((name, "a link to a folder; links to folders are not followed"))
                elif not entry.name.lower().endswith(SUFFIXES):
                    others += 1
                elif entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
                    found.append((name, "a link that leads out of the folder"))
                elif not entry.is_file():
                    found.append((name, "not a regular file"))
                else:
                    found.append((name, ""))
            except OSError as error:  # links that lead to themselves, say
                found.append((name, f"cannot be read ({error.strerror or error})"))
            except RuntimeError:  # what resolve() raises of them before Python 3.13
                found.append((name, "cannot be read (a loop of links)"))
        waiting += reversed(folders)
    return found, others


def _labels_file(source: Path) -> Path | None:
    there = [source / name for name in ("labels.csv", "labels.parquet") if (source / name).is_file()]
    if len(there) > 1:
        raise InputError(f"{source}: holds labels.csv and labels.parquet; name the file of labels to use")
    return there[0] if there else None


def _prefix(source: Path, labels: Path) -> str:
    """The way from the labels' folder to the images, for labels that name images from there."""
    root, base = source.resolve(), labels.resolve().parent
    return root.relative_to(base).as_posix() if root != base and root.is_relative_to(base) else ""
