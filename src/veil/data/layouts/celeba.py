"""The layout ``celeba``: CelebFaces Attributes (Liu et al. 2015), aligned and cropped, or in the wild.

The source holds ``img_align_celeba/`` (or the images twice nested, as some archives unpack, or below ``Img/``) and, at
the top or in ``Anno/`` and ``Eval/``, ``list_attr_celeba.txt`` (one label per attribute, classes ``no`` and ``yes``;
``Male`` also gives ``gender``), and what there is of ``identity_CelebA.txt`` (label ``identity``) and
``list_eval_partition.txt`` (label ``partition``: ``train``, ``validation``, ``test``; Veil draws its own four splits).
Files of the same names ending in ``.csv``, with a header, are read too.

Of the images in the wild, ``img_celeba/``, which may lie there in place of the aligned ones, faces lie anywhere: they
have no crop, but may be aligned, by found faces or by ``list_landmarks_celeba.txt``. Where both are there, the setting
``images=img_celeba`` or ``images=img_align_celeba`` chooses.

The default crop of aligned images is a square of 120 pixels around the face, columns 29 to 149 and rows 61 to 181 of
178 x 218 pixels: the eyes lie 42 % down and 40 pixels apart, about as in the default crop of the layout ``lfw``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from veil.data.decode import Box
from veil.data.layouts.folder import holds_images, walk
from veil.data.layouts.listing import Item, Listing, Options, Remarks, check_options, clean, is_count, only, own
from veil.errors import InputError

CROP: Box = (29 / 178, 61 / 218, 149 / 178, 181 / 218)
ALIGNED, WILD = "img_align_celeba", "img_celeba"
PARTITIONS = {"0": "train", "1": "validation", "2": "test"}


def read(source: Path, options: Options) -> Listing:
    """Lists CelebA's images; raises InputError where a part is missing or malformed."""
    check_options("celeba", options, {"images": (ALIGNED, WILD)}, labels=False)
    images = _images(source, options.settings.get("images"))
    entries, aside = walk(images)
    remarks = Remarks(notes=aside.notes())
    wild = images.name == WILD
    if wild:
        remarks.notes.append(
            f"Faces lie anywhere in the images of {WILD}: align them by found faces, or by list_landmarks_celeba.txt."
        )
    path = _annotation(source, "list_attr_celeba")
    if path is None:
        raise InputError(f"{source}: holds no list_attr_celeba.txt, at the top or one folder down")
    attributes = _attributes(path)
    identity = _words(_annotation(source, "identity_CelebA"))
    partition = _words(_annotation(source, "list_eval_partition"))
    for words, what in ((identity, "identity_CelebA.txt"), (partition, "list_eval_partition.txt")):
        if not words:
            remarks.notes.append(f"{what} is not there, and so is its label.")
    for name, word in partition.items():
        if word not in PARTITIONS:
            raise InputError(f"{source}: partition of {name} is {word!r}; must be 0, 1 or 2")
    names = [clean(name) for name, _ in entries]
    files = {name.rpartition("/")[2] for name in names}
    if not files & attributes.row.keys():
        raise InputError(f"{path}: names none of the images in {images}")
    without, spare = len(files - attributes.row.keys()), len(attributes.row.keys() - files)
    remarks.lost(f"{without} images have no row in {path.name}; their attributes are unknown.", without, len(files))
    if spare:  # whoever takes a part of the set keeps its lists
        remarks.notes.append(f"{spare} rows of {path.name} name no image.")

    def items() -> Iterator[Item]:
        for (raw, problem), name in zip(entries, names, strict=True):
            file = name.rpartition("/")[2]
            labels = attributes.of(file)
            if identity:
                labels["identity"] = identity.get(file)
            if partition:
                labels["partition"] = PARTITIONS.get(partition.get(file, ""))
            yield Item(name, images / raw, labels, None, problem)

    labels = [*(["identity"] if identity else []), *attributes.labels, *(["partition"] if partition else [])]
    return Listing(
        items=items(), count=len(entries), attributes=tuple(labels), crop=None if wild else CROP,
        notes=remarks.notes, warnings=remarks.warnings,
    )  # fmt: skip


@dataclass(frozen=True)
class _Attributes:
    """The table of attributes: names, int8 ``(N, A)`` of -1 and 1, and the row of each image."""

    names: list[str]
    values: NDArray[np.int8]
    row: dict[str, int]

    @property
    def labels(self) -> list[str]:
        return [*(["gender"] if "Male" in self.names else []), *self.names]

    def of(self, file: str) -> dict[str, str | None]:
        i = self.row.get(file)
        if i is None:
            return {}
        labels: dict[str, str | None] = {
            name: "yes" if value > 0 else "no" for name, value in zip(self.names, self.values[i].tolist(), strict=True)
        }
        if "Male" in labels:
            labels["gender"] = "male" if labels["Male"] == "yes" else "female"
        return labels


def _images(source: Path, asked: str | None) -> Path:
    """The folder that directly holds the images: the one that is asked for, or the only one."""
    if not source.is_dir():
        raise InputError(f"{source}: {'not a folder' if source.exists() else 'no such folder'}")
    names = (asked,) if asked else (ALIGNED, WILD)
    there = {name: folders for name in names if (folders := [f for f in _places(source, name) if f.is_dir()])}
    if len(there) > 1:
        raise InputError(f"{source}: holds {ALIGNED} and {WILD}; set images to one")
    for folders in there.values():
        return only(source, [folder for folder in folders if holds_images(folder)] or folders[:1])
    packed = (f"{folder}.zip" for name in names for folder in (source / name, source / "Img" / name))
    zipped = next((Path(path).name for path in packed if Path(path).is_file()), "")
    raise InputError(f"{source}: holds no folder {' or '.join(names)}{f'; unpack {zipped} first' if zipped else ''}")


def _places(source: Path, name: str) -> tuple[Path, ...]:
    """Where a folder of images may lie, as archives unpack."""
    return source / name / name, source / name, source / "Img" / name / name, source / "Img" / name


def _annotation(source: Path, name: str) -> Path | None:
    """An annotation file, wherever the usual archives put it."""
    folders = (source, source / "Anno", source / "Eval")
    files = [folder / f"{name}{ending}" for folder in folders for ending in (".txt", ".csv")]
    there = [path for path in files if path.is_file()]
    return own(only(source, there), source) if there else None


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The numbers and fields of the lines that are not empty."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                fields = line.replace(",", " ").split()
                if fields:
                    yield number, fields
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _attributes(path: Path) -> _Attributes:
    """Reads the attributes: a line with the count (not in .csv), one with the names, then an image and -1 or 1 each."""
    rows = _rows(path)
    names = next(rows, (0, []))[1]
    count = None
    if len(names) == 1 and is_count(names[0]):
        count = int(names[0])
        names = next(rows, (0, []))[1]
    names = names[1:] if names and names[0] in ("image_id", "image", "file", "filename") else names
    if not names or len(set(names)) < len(names) or {"identity", "gender", "partition"} & set(names):
        raise InputError(f"{path}: its header must name the attributes, each once")
    row: dict[str, int] = {}
    values = []
    for number, (file, *words) in rows:
        if len(words) != len(names) or not set(words) <= {"-1", "1"}:
            raise InputError(f"{path}: line {number} must give an image and {len(names)} values, -1 or 1")
        if file in row:
            raise InputError(f"{path}: line {number} names {file} a second time")
        row[file] = len(row)
        values.append(np.array([word == "1" for word in words], np.int8) * np.int8(2) - np.int8(1))
    if count is not None and count != len(row):
        raise InputError(f"{path}: {len(row)} images, but its first line announces {count}; the file was cut off")
    return _Attributes(names, np.array(values, np.int8).reshape(-1, len(names)), row)


def _words(path: Path | None) -> dict[str, str]:
    """A list of images and one word each; empty where there is no list."""
    if path is None:
        return {}
    words: dict[str, str] = {}
    for number, fields in _rows(path):
        if number == 1 and path.suffix == ".csv":
            continue
        if len(fields) != 2 or fields[0] in words:
            raise InputError(f"{path}: line {number} must give an image, once, and one value")
        words[fields[0]] = fields[1]
    return words
