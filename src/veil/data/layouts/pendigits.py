"""The layout ``pendigits``: Pen-Based Recognition of Handwritten Digits (Alimoglu and Alpaydin 1996), as UNIPEN files.

The source is a folder that holds ``pendigits-orig.tra`` (30 writers), ``pendigits-orig.tes`` (14 others, numbered from
1 again: 30 is added), or both. In them a digit reads::

    .SEGMENT DIGIT 17 ? "8"
    .COMMENT 8 12 224        its digit, its writer, which of the writer's samples
    .PEN_DOWN
     267 333                 points on a tablet, x to the right, y up, in 0 .. 500
    .PEN_UP
    .DT 100

Strokes are drawn as white lines on black, without steps at their edges. Labels: ``writer``, ``digit``, and three of the
style, read off the pen: ``strokes`` (one, several), ``slant`` (upright, leaning, slanted: how far what was drawn
downwards leans to the right) and ``width`` (narrow, medium, wide: of the box around it, for its height).

Settings: ``files`` (``train``, ``test``, or ``both``), and ``mode``: ``normalised`` (each digit fills the image) or
``absolute`` (the image is the tablet).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from veil.data.layouts.listing import Item, Listing, Options, check_options, is_count, own
from veil.errors import InputError

FILES = {"train": ("pendigits-orig.tra", 0), "test": ("pendigits-orig.tes", 30)}
"""File of each part, and what is added to its writers' numbers."""
TABLET = 500
"""Largest coordinate."""

_FINE = 8  # subpixels to a pixel, each way
_LINE = 0.09  # width of a line, in widths of the image
_MARGIN = 0.08  # around a digit that fills the image
_LEANING, _SLANTED = 3.0, 9.0  # degrees to the right of upright
_NARROW, _WIDE = 0.55, 0.73  # widths of the box, in heights
LABELS = ("writer", "digit", "strokes", "slant", "width")


@dataclass(frozen=True, slots=True)
class Digit:
    """One sample: its labels' words, and the points ``(n, 2)`` of each stroke, y down from 0."""

    writer: str
    digit: str
    strokes: tuple[NDArray[np.float64], ...]


def read(source: Path, options: Options) -> Listing:
    """Lists the digits of the files that are there; raises InputError where none is, or one is no UNIPEN file."""
    check_options("pendigits", options, {"files": ("both", *FILES), "mode": ("normalised", "absolute")}, labels=False)
    if options.channels != 1:
        raise InputError(f"pendigits: its images are grey, so channels must be 1, got {options.channels}")
    part = options.settings.get("files", "both")
    wanted = {name: FILES[name] for name in (FILES if part == "both" else (part,))}
    there = {name: source / file for name, (file, _) in wanted.items() if (source / file).is_file()}
    if not there or (part != "both" and part not in there):
        raise InputError(f"{source}: holds no {' and no '.join(file for file, _ in wanted.values())}")
    texts = {name: _text(own(path, source)) for name, path in there.items()}
    notes = [f"{FILES[name][0]} is not there." for name in wanted if name not in there]

    def items() -> Iterator[Item]:
        absolute = options.settings.get("mode") == "absolute"
        for name, segments in texts.items():
            file, offset = FILES[name]
            for number, segment in enumerate(segments):
                item = f"{file}/{number:05d}"
                try:
                    digit = _digit(segment, offset)
                except ValueError as error:
                    yield Item(item, None, problem=str(error))
                    continue
                yield Item(item, draw(digit, options.size, absolute=absolute), labels(digit))

    return Listing(items=items(), count=sum(map(len, texts.values())), attributes=LABELS, notes=tuple(notes))


def labels(digit: Digit) -> dict[str, str | None]:
    """The words of :data:`LABELS`."""
    x, y = np.concatenate(digit.strokes).T
    ratio = np.ptp(x) / max(np.ptp(y), 1)
    lean = slant(digit)
    return {
        "writer": digit.writer,
        "digit": digit.digit,
        "strokes": "one" if len(digit.strokes) == 1 else "several",
        "slant": "upright" if lean < _LEANING else "slanted" if lean > _SLANTED else "leaning",
        "width": "narrow" if ratio < _NARROW else "wide" if ratio > _WIDE else "medium",
    }


def slant(digit: Digit) -> float:
    """Degrees by which what was drawn downwards leans to the right of upright, weighted by length; 0 if nothing was."""
    moves = np.concatenate([np.diff(stroke, axis=0) for stroke in digit.strokes])
    down = moves[moves[:, 1] > 2 * np.abs(moves[:, 0])]  # the downstrokes proper: steeper than 1 to 2
    total = down.sum(0)
    return math.degrees(math.atan2(-total[0], total[1])) if len(down) else 0.0


def draw(digit: Digit, size: int, *, absolute: bool = False) -> NDArray[np.uint8]:
    """The digit, white on black, uint8 ``(size, size)``; in its place on the tablet, or filling the image, centred."""
    points = np.concatenate(digit.strokes)
    if absolute:
        scale, shift = 1 / TABLET, np.zeros(2)
    else:
        low, high = points.min(0), points.max(0)
        scale = (1 - 2 * _MARGIN) / max(float((high - low).max()), 1.0)
        shift = 0.5 - scale * (low + high) / 2
    side = size * _FINE
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    line = max(round(_LINE * side), 1)
    for stroke in digit.strokes:
        path = [(x, y) for x, y in (scale * stroke + shift) * side]
        pen.line(path, fill=255, width=line, joint="curve")
        for x, y in (path[0], path[-1]):  # round ends, and a dot where there is one point
            pen.ellipse((x - line / 2, y - line / 2, x + line / 2, y + line / 2), fill=255)
    return np.asarray(canvas.reduce(_FINE))


def _text(path: Path) -> list[list[str]]:
    """The lines of each segment of a UNIPEN file."""
    try:
        text = path.read_text("latin-1")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    head, *segments = text.split(".SEGMENT DIGIT")
    if not segments or len(head) > 10_000:
        raise InputError(f"{path}: not a UNIPEN file of digits: it has no line .SEGMENT DIGIT near its beginning")
    return [segment.splitlines() or [""] for segment in segments]


def _digit(lines: list[str], offset: int) -> Digit:
    """One segment; raises ValueError, with words for ``skipped.csv``, for one that is malformed or cut short."""
    parts = lines[0].rsplit('"', 2)
    comment = next((line.split() for line in lines if line.startswith(".COMMENT")), [])
    if len(comment) != 4 or not all(map(is_count, comment[1:])):
        raise ValueError("its line .COMMENT must give digit, writer and number")
    if len(parts) != 3 or parts[1] != comment[1]:
        raise ValueError(
            f"its digit is {parts[1] if len(parts) == 3 else 'missing'} in .SEGMENT, {comment[1]} in .COMMENT"
        )
    strokes: list[list[tuple[int, int]]] = []
    down = False
    for line in lines[1:]:
        if line.startswith(".PEN_DOWN"):
            strokes.append([])
            down = True
        elif line.startswith(".PEN_UP"):
            down = False
        elif down:
            words = line.split()
            if len(words) != 2 or not all(is_count(word.removeprefix("-")) for word in words):
                raise ValueError(f"a point must be two whole numbers, got {line.strip()!r}")
            x, y = (min(max(int(word), 0), TABLET) for word in words)
            strokes[-1].append((x, TABLET - y))
    if down:
        raise ValueError("it ends with the pen down; the file was cut off")
    drawn = tuple(np.array(stroke, np.float64) for stroke in strokes if stroke)
    if not drawn:
        raise ValueError("it has no points")
    return Digit(str(int(comment[2]) + offset), comment[1], drawn)
