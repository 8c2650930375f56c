"""The layout ``fairface``: FairFace (Karkkainen and Joo 2021), with its lists of labels.

The source holds ``train/`` and ``val/``, or one of them, at the top or one folder down, and in it or beside it what
there is of the two lists; the source may also be ``train/`` or ``val/`` itself::

    fairface-img-margin025-trainval/train/1.jpg
    fairface-img-margin025-trainval/val/1.jpg
    fairface_label_train.csv                        file,age,gender,race,service_test
    fairface_label_val.csv

Labels: ``age`` (:data:`AGES`), ``gender`` (in small letters, as in other layouts), ``race``, ``service_test`` where it
is there, and ``partition`` (``train``, ``validation``); Veil draws its own four splits. Nobody knows who is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from veil.data.columns import plain
from veil.data.layouts import table as tables
from veil.data.layouts.folder import inner_folders, walk
from veil.data.layouts.listing import Item, Listing, Options, Remarks, check_options, clean, only, own
from veil.data.layouts.table import Table
from veil.errors import InputError

PARTITIONS = {"train": "train", "val": "validation"}
LABELS = ("age", "gender", "race")
AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
"""The groups of ages; the last begins at 70."""


def age_group(years: int) -> str:
    """The group of an age in years."""
    return AGES[0] if years < 3 else AGES[1] if years < 10 else AGES[min(years // 10 + 1, len(AGES) - 1)]


def read(source: Path, options: Options) -> Listing:
    """Lists FairFace's images; raises InputError where there are none, or no list, or a malformed one."""
    check_options("fairface", options, {}, labels=False)
    root, partitions = _root(source)
    lists = {path: tables.read(path, ("file",)) for path in _lists(source, root)}
    rows = _rows(lists)
    remarks = Remarks()
    entries: list[tuple[str, str]] = []
    for name in partitions:
        inside, aside = walk(root / name)
        entries += [(f"{name}/{file}", problem) for file, problem in inside]
        remarks.notes.extend(aside.notes())
    names = [clean(name) for name, _ in entries]
    there = {name for name, (_, problem) in zip(names, entries, strict=True) if not problem}
    if not there & rows.keys():
        raise InputError(f"{next(iter(lists))}: names none of the images in {root}")
    without, spare = len(there - rows.keys()), len(rows.keys() - set(names))
    remarks.lost(f"{without} images have no row in the lists; their labels are unknown.", without, len(there))
    if spare:  # whoever takes a part of the set keeps its lists
        remarks.notes.append(f"{spare} rows of the lists name no image.")
    attributes = dict.fromkeys(name for table in lists.values() for name in table.codes)

    def items() -> Iterator[Item]:
        for (path, problem), name in zip(entries, names, strict=True):
            labels: dict[str, str | None] = {"partition": PARTITIONS[name.partition("/")[0]]}
            if name in rows:
                table, row = rows[name]
                labels |= table.row(row)
                labels["gender"] = (labels["gender"] or "").casefold() or None
            yield Item(name, root / path, labels, None, problem)

    return Listing(
        items=items(), count=len(entries), attributes=(*attributes, "partition"), notes=remarks.notes,
        warnings=remarks.warnings,
    )  # fmt: skip


def _root(source: Path) -> tuple[Path, Sequence[str]]:
    """The folder that holds ``train`` and ``val``, and those of them that are read."""
    if not source.is_dir():
        raise InputError(f"{source}: {'not a folder' if source.exists() else 'no such folder'}")
    folders = [source, *inner_folders(source)]
    if there := [folder for folder in folders if any((folder / name).is_dir() for name in PARTITIONS)]:
        root = only(source, there)
        return root, [name for name in PARTITIONS if (root / name).is_dir()]
    if (itself := source.absolute()).name in PARTITIONS:
        return itself.parent, [itself.name]
    raise InputError(f"{source}: holds no folder train or val, at the top or one folder down")


def _lists(source: Path, root: Path) -> list[Path]:
    """The lists that are there, in the source, beside the images or beside both."""
    folders = list(dict.fromkeys(folder.absolute() for folder in (source, root, source.absolute().parent)))
    found = []
    for name in (f"fairface_label_{partition}.csv" for partition in PARTITIONS):
        if there := [path for path in (folder / name for folder in folders) if path.is_file()]:
            found.append(own(only(source, there), there[0].parent))
    if not found:
        raise InputError(f"{source}: holds no fairface_label_train.csv or fairface_label_val.csv, in it or beside it")
    return found


def _rows(lists: Mapping[Path, Table]) -> dict[str, tuple[Table, int]]:
    """The table and the row that speak of each image."""
    rows: dict[str, tuple[Table, int]] = {}
    for path, table in lists.items():
        if missing := [name for name in LABELS if name not in table.codes]:
            raise InputError(f"{path}: must have the columns file, {', '.join(LABELS)}; {missing[0]} is missing")
        for row, name in enumerate(map(plain, table.names)):
            if name in rows:
                raise InputError(f"{path}: names {name} a second time")
            rows[name] = (table, row)
    return rows
