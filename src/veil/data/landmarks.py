"""Landmarks: where the eyes of a data set's faces are, as a CSV file of the user's says.

The header names the columns ``path`` (or another of :data:`veil.data.columns.IMAGE_KEYS`), ``left_eye_x``,
``left_eye_y``, ``right_eye_x`` and ``right_eye_y``, in any order, among any others, with ``_`` between their words or
without. CelebA's lists of landmarks are such files. ``path`` is the row's name in
the pack, its ``source``: for a folder of images the path inside that folder. Places are pixels of the upright image,
counted from the middle of its upper left pixel; fractions of pixels are welcome. The left eye is the one on the left of
the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from veil.data import sidecar
from veil.data.columns import plain
from veil.data.decode import Eyes
from veil.data.layouts.listing import Item
from veil.data.packfile import sha256
from veil.errors import InputError

PLACES = ("left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y")


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """A file of landmarks.

    Attributes:
        path: The file.
        eyes: The eyes by the row's path, as :func:`veil.data.columns.plain` writes it.
    """

    path: Path
    eyes: Mapping[str, Eyes]

    @property
    def digest(self) -> str:
        """The SHA-256 of the file."""
        return sha256(self.path)

    def through(self, items: Iterator[Item]) -> Iterator[Item]:
        """Each item with its eyes in place of a crop, or with why it has none as its problem."""
        for item in items:
            if isinstance(item.data, np.ndarray):
                raise InputError(f"landmarks {self.path}: only encoded images are aligned, and {item.source!r} is an "
                                 "array")  # fmt: skip
            eyes, problem = self.of(item.source)
            yield replace(item, crop=None, eyes=eyes, problem=item.problem or problem)

    def of(self, name: str) -> tuple[Eyes | None, str]:
        """The eyes of the image of that name and "", or None and why there are none."""
        eyes = self.eyes.get(plain(name))
        return eyes, "" if eyes is not None else f"no row in {self.path.name}, which tells where eyes are"


def read_landmarks(path: str | Path) -> Landmarks:
    """Reads a file of landmarks.

    Raises:
        InputError: The file cannot be read, lacks a column, or holds no row; a path is missing or stands there twice;
            a place is no finite number, or the same for both eyes; or left and right are exchanged.
    """
    path = Path(path)
    eyes = {name: _eyes(row, cells) for row, name, cells in sidecar.read(path, PLACES, "the file of landmarks")}
    # A single face may well stand on its head, but not most of them.
    exchanged = sum(e.left_x > e.right_x for e in eyes.values())
    if 2 * exchanged > len(eyes):
        raise InputError(
            f"{path}: left_eye must be the eye on the left of the picture, got one to the right of right_eye in "
            f"{exchanged} of {len(eyes)} rows; exchange the two"
        )
    return Landmarks(path=path, eyes=eyes)


def _eyes(row: str, cells: Mapping[str, str]) -> Eyes:
    """The eyes of a row."""
    places = []
    for column in PLACES:
        try:
            value = float(cells[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{row}: {column} must be a finite number of pixels, got {cells[column]!r}")
        places.append(value)
    eyes = Eyes(*places)
    if (eyes.left_x, eyes.left_y) == (eyes.right_x, eyes.right_y):
        raise InputError(f"{row}: the eyes must lie at two places, got {eyes.left_x:g}, {eyes.left_y:g} for both")
    return eyes
