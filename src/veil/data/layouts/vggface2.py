"""The layout ``vggface2``: VGGFace2 (Cao et al. 2018), its loosely cropped images.

The source holds ``train/`` and ``test/``, or one of them, at the top or in ``data/``, each with a folder per person::

    train/n000002/0001_01.jpg      <class>/<image>_<face>.jpg
    test/n000001/0001_01.jpg

and, at the top or in ``meta/``, what there is of ``identity_meta.csv`` (label ``gender``: ``female``, ``male``) and of
``bb_landmark/loose_bb_train.csv`` and ``loose_bb_test.csv`` (the boxes of the faces, in pixels of these images).
``identity`` is the person's class. ``train`` and ``test``, which have no person in common, are the label ``partition``
and no more, as in the layout ``celeba``: Veil draws its own four splits from the people of both.

An image is cropped to its face's box. Where it has none, the default crop is the middle half of the image, each way:
the loose crops were made by extending each box by its own size. A crop that the user names replaces both.

Images are listed person by person: beside the boxes (24 bytes each), memory does not grow with their number.
"""

from __future__ import annotations

import array
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from veil.data.decode import Box, Pixels, kind_of
from veil.data.layouts.folder import Aside, walk
from veil.data.layouts.listing import Item, Listing, Options, Remarks, check_options, clean, only, own
from veil.errors import InputError
from veil.foreign import is_system

CROP: Box = (0.25, 0.25, 0.75, 0.75)
PARTITIONS = ("train", "test")
GENDERS = {"f": "female", "m": "male"}

_CLASS = re.compile(r"n\d{1,8}", re.ASCII)
_FACE = re.compile(r"n(\d{1,8})/(\d{1,6})_(\d{1,4})", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,6}(\.\d+)?", re.ASCII)


def read(source: Path, options: Options) -> Listing:
    """Lists VGGFace2's images; raises InputError where there are none or a list is malformed."""
    check_options("vggface2", options, {}, labels=False)
    root = _root(source)
    partitions = {name: _partition(root / name) for name in PARTITIONS if (root / name).is_dir()}
    meta = _annotation(source, "identity_meta.csv")
    genders = {} if meta is None else _genders(meta)
    lists = {name: _annotation(source, f"bb_landmark/loose_bb_{name}.csv") for name in partitions}
    boxes = {name: _boxes(path) for name, path in lists.items()}
    count = images = boxed = 0
    aside = sum((partition.aside for partition in partitions.values()), Aside())
    for name, partition in partitions.items():
        count += len(partition.strays)
        for person in partition.folders:
            entries, left = walk(root / name / person)
            count, aside = count + len(entries), aside + left
            if _CLASS.fullmatch(person):
                files = [file for file, problem in entries if not problem]
                images += len(files)
                boxed += sum(boxes[name].of(f"{person}/{file}") is not None for file in files)
    if not images:
        raise InputError(f"{source}: holds no image in a folder train/n000002/ or test/n000001/, one per person")
    people = {person for partition in partitions.values() for person in partition.folders if _CLASS.fullmatch(person)}
    remarks = Remarks(notes=aside.notes())
    notes = remarks.notes
    _compare(remarks, people, meta, genders)
    notes += [f"loose_bb_{name}.csv is not there." for name, path in lists.items() if path is None]
    if boxed:
        notes.append(f"{boxed} images are cropped to the boxes of their faces, where no crop is named.")
    if boxed < images:
        notes.append(f"{images - boxed} images have no box; their default crop is the middle half of the image.")

    def items() -> Iterator[Item]:
        for name, partition in partitions.items():
            for stray, problem in partition.strays:
                yield Item(clean(f"{name}/{stray}"), None, problem=problem)
            for person in partition.folders:
                known = _CLASS.fullmatch(person) is not None
                labels: dict[str, str | None] = {"identity": person, "partition": name} if known else {}
                if known and genders:
                    labels["gender"] = genders.get(person)
                lost = "" if known else "not in a person's folder nXXXXXX"
                for file, problem in walk(root / name / person)[0]:
                    path = f"{person}/{file}"
                    box = boxes[name].of(path)
                    yield Item(clean(f"{name}/{path}"), root / name / path, labels, None, problem or lost, box)

    attributes = ("identity", *(("gender",) if genders else ()), "partition")
    return Listing(items=items(), count=count, attributes=attributes, crop=CROP, notes=notes, warnings=remarks.warnings)


@dataclass(frozen=True)
class _Partition:
    """What ``train`` or ``test`` holds: its folders, images beside them and why they are not read, what is aside."""

    folders: list[str]
    strays: list[tuple[str, str]]
    aside: Aside


@dataclass(frozen=True)
class _Boxes:
    """The boxes of a partition: sorted keys ``(N,)`` and float32 ``(N, 4)`` of left, top, width, height in pixels."""

    keys: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    values: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    def of(self, path: str) -> Pixels | None:
        """The box of an image ``n000002/0001_01.jpg``."""
        key = _key(path.rpartition(".")[0])
        i = int(np.searchsorted(self.keys, key)) if key >= 0 else len(self.keys)
        if i == len(self.keys) or self.keys[i] != key:
            return None
        left, top, width, height = self.values[i].tolist()
        return Pixels(left, top, left + width, top + height)


def _key(name: str) -> int:
    """A face's class, image and face numbers in one integer below 2**63; -1 for a name of another form."""
    face = _FACE.fullmatch(name)
    return -1 if face is None else (int(face[1]) * 10**6 + int(face[2])) * 10**4 + int(face[3])


def _root(source: Path) -> Path:
    """The folder that holds ``train`` or ``test``."""
    if not source.is_dir():
        raise InputError(f"{source}: {'not a folder' if source.exists() else 'no such folder'}")
    there = [f for f in (source, source / "data") if any((f / name).is_dir() for name in PARTITIONS)]
    if there:
        return only(source, there)
    archives = (base / f"vggface2_{name}.tar.gz" for base in (source, source / "data") for name in PARTITIONS)
    packed = next((path.name for path in archives if path.is_file()), None)
    raise InputError(f"{source}: holds no folder train or test{'' if packed is None else f'; unpack {packed} first'}")


def _partition(path: Path) -> _Partition:
    folders: list[str] = []
    strays: list[tuple[str, str]] = []
    others = hidden = 0
    systems: list[str] = []
    try:
        with os.scandir(path) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    for entry in listed:
        try:
            if entry.is_dir() and is_system(entry.name):
                systems.append(f"{path.name}/{entry.name}")
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif entry.is_dir():
                strays.append((entry.name, "a link to a folder; links to folders are not followed"))
            elif entry.name.startswith("."):
                hidden += 1
            elif kind_of(entry.name) is not None:
                strays.append((entry.name, "not in a person's folder nXXXXXX"))
            else:
                others += 1
        except OSError as error:  # links that lead to themselves, say
            strays.append((entry.name, f"cannot be read ({error.strerror or error})"))
    return _Partition(folders, strays, Aside(others, hidden, tuple(systems)))


def _annotation(source: Path, name: str) -> Path | None:
    """A list, wherever the published archives put it."""
    there = [path for path in (source / name, source / "meta" / name) if path.is_file()]
    return own(only(source, there), source) if there else None


def _compare(remarks: Remarks, people: set[str], meta: Path | None, genders: dict[str, str]) -> None:
    """Says what the list of people leaves open; raises InputError where it speaks of none of them."""
    if meta is None:
        remarks.notes.append("There is no label gender: identity_meta.csv is not there.")
        return
    if not people & genders.keys():
        raise InputError(f"{meta}: names none of the people whose folders are there (the first: {min(people)})")
    without, spare = len(people - genders.keys()), len(genders.keys() - people)
    remarks.lost(f"{without} people have no row in {meta.name}; their gender is unknown.", without, len(people))
    if spare:  # whoever takes a part of the people keeps the list of all
        remarks.notes.append(f"{spare} rows of {meta.name} name people without a folder.")


def _lines(path: Path, header: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """The numbers and fields of the lines that are not empty, below a header that must begin and end as said."""
    number = 0
    try:
        # Names of people, which are not used, are the only text that is not ASCII.
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, 1):
                fields = [word.strip().strip('"').strip() for word in line.split(",")]
                if number == 1 and tuple(fields) != header:
                    raise InputError(f"{path}: its first line must be {','.join(header)}")
                if number > 1 and line.strip():
                    yield number, fields
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if number == 0:
        raise InputError(f"{path}: empty")


def _genders(path: Path) -> dict[str, str]:
    """Gender by class. A name may hold commas and quotes, so a row is read from its two ends."""
    header = ("Class_ID", "Name", "Sample_Num", "Flag", "Gender")
    genders: dict[str, str] = {}
    for number, fields in _lines(path, header):
        person, gender = fields[0], fields[-1]
        if len(fields) < len(header) or not _CLASS.fullmatch(person) or gender not in GENDERS:
            raise InputError(
                f"{path}: line {number} must begin with a class such as n000001, end with f or m and have "
                f"{len(header)} fields, got {person!r}, {gender!r} and {len(fields)}"
            )
        if person in genders:
            raise InputError(f"{path}: line {number} names {person} a second time")
        genders[person] = GENDERS[gender]
    return genders


def _boxes(path: Path | None) -> _Boxes:
    """The boxes of a list; none where there is no list."""
    if path is None:
        return _Boxes()
    keys, values = array.array("q"), array.array("f")
    for number, fields in _lines(path, ("NAME_ID", "X", "Y", "W", "H")):
        key = _key(fields[0])
        if len(fields) != 5 or key < 0 or not all(map(_NUMBER.fullmatch, fields[1:])):
            raise InputError(
                f"{path}: line {number} must give a face such as n000002/0001_01 and four numbers, "
                f"got {','.join(fields)[:80]!r}"
            )
        keys.append(key)
        values.extend(map(float, fields[1:]))
    order = np.argsort(np.array(keys), kind="stable")
    ordered = np.array(keys, np.int64)[order]
    same = np.flatnonzero(np.diff(ordered) == 0)
    if len(same):
        person, face = divmod(int(ordered[same[0]]), 10**10)
        image, face = divmod(face, 10**4)
        raise InputError(f"{path}: names n{person:06d}/{image:04d}_{face:02d} more than once")
    return _Boxes(ordered, np.array(values, np.float32).reshape(-1, 4)[order])
