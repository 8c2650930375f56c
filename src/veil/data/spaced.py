"""Lists of images in text, with spaces between the cells, as CelebA and others have them: what their first lines tell.

A list without a header gives an image and one word a line, such as ``identity_CelebA.txt``; the list's name is then the
word's. One with a header may have a line before it that says how many images there are, and its header need not name
the column of images, as in ``list_attr_celeba.txt`` and ``list_landmarks_celeba.txt``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from veil.data.decode.formats import kind_of

IMAGE = "image"
"""What the column of images is called where the list does not say."""


@dataclass(frozen=True)
class Spaces:
    """A dialect: cells are separated by any number of spaces, and have no quotes."""

    separator = " "
    quote = '"'

    def split(self, text: str) -> list[str]:
        return text.split()


@dataclass(frozen=True, kw_only=True)
class Spaced:
    """The columns of a list, how many lines that are not blank stand above its rows, and how many rows it announces."""

    header: tuple[str, ...]
    above: int
    count: int | None = None


def spaced(sample: Sequence[str], stem: str) -> Spaced | None:
    """What a list's first lines tell, of a file whose name without its ending is ``stem``; None where it is no list.

    Whatever could be CSV is none: a separator in any line, or a line that does not begin with an image's name.
    """
    rows = [line.split() for line in sample if line.strip()]
    count = None
    if rows and len(rows[0]) == 1 and len(rows[0][0]) < 10 and rows[0][0].isdecimal() and rows[0][0].isascii():
        count, rows = int(rows[0][0]), rows[1:]
    if any(mark in line for line in sample for mark in ",;\t|\"'") or not rows:
        return None
    above = 0 if count is None else 1
    header: list[str] = [IMAGE, "identity" if stem.casefold().startswith("identity") else stem]
    if kind_of(rows[0][0]) is None:
        header, rows, above = rows[0], rows[1:], above + 1
    widths = {len(row) for row in rows}
    if len(widths) != 1 or not all(kind_of(row[0]) is not None for row in rows):
        return None
    width = widths.pop()
    header = [IMAGE, *header] if width == len(header) + 1 else header
    if width != len(header) or width < 2:
        return None
    return Spaced(header=tuple(header), above=above, count=count)


def seems_separated(sample: Sequence[str], separators: Sequence[str]) -> str:
    """What seems to separate the cells of a table that was read as one column, in words; "" where nothing does."""
    lines = [line for line in sample if line.strip()]
    marks = {**{mark: repr(mark) for mark in separators}, " ": "spaces", ":": "colons", "^": "'^'", "~": "'~'"}
    for mark, words in marks.items():
        widths = {len(line.split() if mark == " " else line.split(mark)) for line in lines}
        if len(lines) > 1 and len(widths) == 1 and widths.pop() > 1:
            return words
    return ""
