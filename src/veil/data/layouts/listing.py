"""What a layout hands to the packer: an iterator of items and what is known about them beforehand."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from veil.data.decode import Box, Eyes, Pixels
from veil.errors import InputError

Pair = tuple[str, str, bool, int]
"""Source a, source b, whether both show the same person, fold (from 0)."""


LOSS = 0.05
"""The share of rows, labels or pairs from which on a loss of them is a warning; below it is a note."""

NO_LABELS = "There is no file of labels: all images are without labels (`veil label` has a classifier guess some)."
"""The warning of a pack of which nothing is known."""


@dataclass(frozen=True)
class Remarks:
    """What the user should know of a data set, one sentence each; what is lost stands out.

    Attributes:
        notes: How the data set was read, defects handled, small losses.
        warnings: Losses that change what the data say.
    """

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def lost(self, sentence: str, part: int, whole: int) -> None:
        """Says that ``part`` of ``whole`` is lost, where it is: as a warning or, below :data:`LOSS`, as a note."""
        if part:
            (self.warnings if part >= LOSS * whole else self.notes).append(sentence)


@dataclass(frozen=True, slots=True)
class Item:
    """One row of a data set, before decoding.

    Attributes:
        source: The row's name, unique in the data set: a path inside the source with ``/`` between its parts, say.
        data: An encoded image (bytes), the path of one (read later, by the thread that decodes it), or an array that
            needs no decoding: uint8 ``(H, W)`` or ``(H, W, 3)`` at the size asked for, or float32 ``(d,)``. None only
            where ``problem`` is given.
        labels: Class name per label; None, or no entry, where it is unknown.
        split: One of ``veil.data.pack.SPLITS`` where the data set prescribes it, for all items or for none.
        problem: Why this item cannot be packed; it is then listed in ``skipped.csv`` and counted.
        crop: This encoded image's own crop; it takes the place of the listing's, but not of the user's.
        eyes: Where this encoded image's eyes are, where the user gives them; it is then aligned in place of cropped.
        upright: Width and height of the picture that was decoded, where all are cut in the same way.
    """

    source: str
    data: bytes | Path | NDArray[Any] | None
    labels: Mapping[str, str | None] = field(default_factory=dict)
    split: str | None = None
    problem: str = ""
    crop: Pixels | None = None
    eyes: Eyes | None = None
    upright: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked of a layout.

    Attributes:
        size: Side of the square images to make, in pixels.
        channels: 1 (grey) or 3 (RGB).
        labels: A CSV or Parquet file of labels, where the layout takes one.
        seed: For layouts that draw their images.
        settings: The layout's own settings, by name; a layout refuses names it does not know.
    """

    size: int = 64
    channels: int = 1
    labels: Path | None = None
    seed: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The items of a data set and what is known about them before they are read.

    Attributes:
        items: The items, read as they are asked for; can be walked once.
        count: How many items there will be, or None.
        attributes: The names of all labels; ``"identity"`` says who is seen, where that is known.
        kind: ``"images"`` or ``"vectors"``.
        crop: The crop to use when the user names none; None for the largest centred square.
        pairs: The data set's own protocol of pairs, by source names.
        notes: What the user should know: defects handled, rows without labels and the like. One sentence each.
        warnings: What is lost, in the same way.
        columns: Names of the columns that the vectors' values stood in, where each stood in its own.
        predicted: Of the labels those that a classifier guessed, and by what.
        prescribed: Whether items have splits.
    """

    items: Iterator[Item]
    count: int | None
    attributes: tuple[str, ...]
    kind: Literal["images", "vectors"] = "images"
    crop: Box | None = None
    pairs: list[Pair] | None = None
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    columns: tuple[str, ...] = ()
    predicted: Mapping[str, Any] = field(default_factory=dict)
    prescribed: bool = False


def check_options(layout: str, options: Options, settings: Mapping[str, tuple[str, ...] | None], labels: bool) -> None:
    """Raises InputError for what a layout does not take.

    Args:
        layout: Its name.
        options: What the user asked for.
        settings: The settings that it knows, each with its values, or None where any value is.
        labels: Whether it takes a file of labels.
    """
    for name, value in options.settings.items():
        if name not in settings:
            raise InputError(f"{layout}: no setting {name!r}; it has {', '.join(settings) or 'none'}")
        values = settings[name]
        if values is not None and value not in values:
            raise InputError(f"{layout}: setting {name} is {value!r}; must be one of {', '.join(values)}")
    if options.labels is not None and not labels:
        raise InputError(f"{layout}: brings its own labels and takes no file of them ({options.labels})")


def only(source: Path, there: Sequence[Path]) -> Path:
    """The one of several places that could be meant; raises InputError, with their names, where they are several."""
    if len(there) > 1:
        named = ", ".join(clean(str(path)) for path in there)
        raise InputError(f"{clean(str(source))}: any of {named} could be meant; name one, or move the others away")
    return there[0]


def own(path: Path, source: Path) -> Path:
    """A file of text that lies in a data set; raises InputError for a link that leads out of it.

    Whoever made the data set could name any file of the reader's by such a link, whose lines then come back as labels
    and in messages.
    """
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(source)):  # which raises nothing for loops
        raise InputError(
            f"{clean(str(path))}: is a link that leads out of its folder, and is not followed; copy the file"
        )
    return path


def is_count(word: str) -> bool:
    """Whether a word is a whole number of at least 0 that Python reads, and of a size that counts have."""
    return len(word) < 10 and word.isascii() and word.isdigit()


def clean(name: str) -> str:
    """A file's name as text: bytes that are not UTF-8 are written out as ``\\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_utf8(path: Path, what: str = "a name") -> None:
    """Raises InputError for a path that is not UTF-8: pyarrow opens no file by it."""
    if (shown := clean(str(path))) != str(path):
        raise InputError(f"{shown}: {what} must be UTF-8")
