"""The layout ``utkface``: UTKFace (Zhang, Song and Qi 2017), whose files' names say all that is known of them.

The source is a folder of images, at any depth, aligned and cropped or in the wild::

    UTKFace/26_1_2_20170116171048641.jpg.chip.jpg      [age]_[gender]_[race]_[date].jpg, with .chip.jpg or without
    part1/1_0_0_20161219140623097.jpg

Labels: ``gender`` (0 is ``male``, 1 ``female``), ``race`` (0 to 4: ``White``, ``Black``, ``Asian``, ``Indian``,
``Others``) and ``age`` in the groups of the layout ``fairface``. Nobody knows who is seen.

The published set has names that lack a field. Where one is empty that label is unknown; where there are but three,
nothing tells which one is missing, and gender and race are unknown. Images of other names are skipped and listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from veil.data.layouts.fairface import age_group
from veil.data.layouts.folder import walk
from veil.data.layouts.listing import Item, Listing, Options, Remarks, check_options, clean
from veil.errors import InputError

ATTRIBUTES = ("gender", "race", "age")
GENDERS = {"0": "male", "1": "female"}
RACES = {"0": "White", "1": "Black", "2": "Asian", "3": "Indian", "4": "Others"}
OLDEST = 150
FORM = "[age]_[gender]_[race]_[date].jpg"

# What stands behind the date, such as the ending, is of no concern: the published set has names that are damaged there.
_NAME = re.compile(r"(\d{1,3})_(?:(\d?)_(\d?)|\d?)_\d{8,20}\D.*", re.ASCII | re.S)


def read(source: Path, options: Options) -> Listing:
    """Lists UTKFace's images; raises InputError where no name is of its form."""
    check_options("utkface", options, {}, labels=False)
    if not source.is_dir():
        raise InputError(f"{source}: {'not a folder' if source.exists() else 'no such folder'}")
    entries, aside = walk(source)
    remarks = Remarks(notes=aside.notes())
    labels = [_labels(clean(name)) for name, _ in entries]
    named = sum(each is not None for each in labels)
    if not named:
        raise InputError(f"{source}: holds no image that is named {FORM}")
    for name in ATTRIBUTES:
        unknown = sum(each is not None and each[name] is None for each in labels)
        remarks.lost(f"{unknown} names of images do not tell the label {name}; it is unknown.", unknown, named)

    def items() -> Iterator[Item]:
        for (name, problem), known in zip(entries, labels, strict=True):
            lost = "" if known is not None else f"not named {FORM}"
            yield Item(clean(name), source / name, known or {}, None, problem or lost)

    return Listing(
        items=items(), count=len(entries), attributes=ATTRIBUTES, notes=remarks.notes, warnings=remarks.warnings
    )


def _labels(path: str) -> dict[str, str | None] | None:
    """What an image's name tells; None where it is of another form."""
    match = _NAME.fullmatch(path.rpartition("/")[2])
    if match is None or int(match[1]) > OLDEST:
        return None
    gender, race = GENDERS.get(match[2] or ""), RACES.get(match[3] or "")
    return {"gender": gender, "race": race, "age": age_group(int(match[1]))}
