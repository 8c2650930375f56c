"""Landmarks: where the eyes of a data set's faces are, as a CSV file of the user's says; Veil finds none by itself.

The header names the columns ``path``, ``left_eye_x``, ``left_eye_y``, ``right_eye_x`` and ``right_eye_y``, in any
order and among any others. ``path`` is the row's name in the pack, its ``source``: for a folder of images the path
inside that folder. Places are pixels of the upright image, counted from the middle of its upper left pixel; fractions
of pixels are welcome. The left eye is the one on the left of the picture.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from veil.data.decode import Eyes
from veil.errors import InputError

PLACES = ("left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y")
COLUMNS = ("path", *PLACES)


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """A file of landmarks.

    Attributes:
        path: The file.
        eyes: The eyes by the row's path, as :func:`plain` writes it.
    """

    path: Path
    eyes: Mapping[str, Eyes]

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
    eyes: dict[str, Eyes] = {}
    lines: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            where = _header(path, next(rows, []))
            for row in rows:
                if not row:
                    continue
                name, found = _row(f"{path}: line {rows.line_num}", row, where)
                if name in eyes:
                    raise InputError(
                        f"{path}: line {rows.line_num}: path must stand there once, got {name!r} as in "
                        f"line {lines[name]}"
                    )
                eyes[name], lines[name] = found, rows.line_num
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        words = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(f"{path}: the file of landmarks cannot be read ({words})") from None
    if not eyes:
        raise InputError(f"{path}: must have a row for each image, got none")
    # A single face may well stand on its head, but not most of them.
    exchanged = sum(e.left_x > e.right_x for e in eyes.values())
    if 2 * exchanged > len(eyes):
        raise InputError(
            f"{path}: left_eye must be the eye on the left of the picture, got one to the right of right_eye in "
            f"{exchanged} of {len(eyes)} rows; exchange the two"
        )
    return Landmarks(path=path, eyes=eyes)


def _header(path: Path, header: list[str]) -> dict[str, int]:
    """The place of each column in a row."""
    names = [name.strip() for name in header]
    for column in COLUMNS:
        if names.count(column) != 1:
            got = "twice or more" if column in names else f"only {', '.join(names) or 'an empty line'}"
            raise InputError(f"{path}: its header must name the column {column} once, got {got}")
    return {column: names.index(column) for column in COLUMNS}


def _row(line: str, row: list[str], where: Mapping[str, int]) -> tuple[str, Eyes]:
    """The path and the eyes of a row."""
    cells = {column: row[i].strip() if i < len(row) else "" for column, i in where.items()}
    if not cells["path"]:
        raise InputError(f"{line}: path must name an image, got nothing")
    places = []
    for column in PLACES:
        try:
            value = float(cells[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{line}: {column} must be a finite number of pixels, got {cells[column]!r}")
        places.append(value)
    eyes = Eyes(*places)
    if (eyes.left_x, eyes.left_y) == (eyes.right_x, eyes.right_y):
        raise InputError(f"{line}: the eyes must lie at two places, got {eyes.left_x:g}, {eyes.left_y:g} for both")
    return plain(cells["path"]), eyes


def plain(name: str) -> str:
    """A path with ``/`` between its parts and no ``./`` before it, whatever system wrote it down."""
    return name.replace("\\", "/").removeprefix("./")
