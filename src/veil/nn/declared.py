"""What a network of an ONNX file asks of its pictures, as its user or the file itself declares it.

A declaration is a text for each of :data:`SETTINGS`. A file holds its own in its metadata (``metadata_props``), under
the same names after ``veil.``, and ``classes`` without it, too, where that can be read; what the user declares counts
for more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from veil.data.decode import Places
from veil.errors import InputError
from veil.foreign import parsed_json

PREFIX = "veil."
"""Of the names in a file's metadata."""
COLOURS = {"rgb": 3, "bgr": 3, "grey": 1}
"""Orders of colours, and how many channels they have."""
MOST_SIDE = 4096
"""Pixels of a side."""

FORMS: Mapping[str, Mapping[str, str]] = {
    # Middles of the eyes among InsightFace's five points, (38.2946, 51.6963) and (73.5318, 51.5014) of 112 pixels,
    # which are counted from the middle of the first; fractions count from its corner.
    "arcface": {"colours": "rgb", "mean": "127.5", "std": "127.5", "eyes": "0.34638:0.46604:0.66100:0.46430"},
    "imagenet": {"colours": "rgb", "mean": "123.675:116.28:103.53", "std": "58.395:57.12:57.375", "eyes": "none"},
}
"""Declarations that many files share, by name; each may be changed by further settings."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a network is shown.

    Attributes:
        size: Width and height in pixels; None where the file fixes them.
        colours: One of :data:`COLOURS`; None for RGB, or grey where the file has one channel.
        mean: What is subtracted from values 0 .. 255, for each channel or for all.
        std: What they are divided by then.
        eyes: Where the eyes of a face must lie; None where faces are shown as they are.
        classes: Names of what a classifier tells, in the order of its logits.
    """

    size: tuple[int, int] | None = None
    colours: str | None = None
    mean: tuple[float, ...] = (127.5,)
    std: tuple[float, ...] = (127.5,)
    eyes: Places | None = None
    classes: tuple[str, ...] = ()


def declaration(path: object, metadata: Mapping[str, str], declared: Mapping[str, str]) -> Declaration:
    """What holds for a file: its metadata, and before them what the user declares.

    Raises:
        InputError: For a setting that is none, or whose text says nothing; all problems in one line.
    """
    own = {name.removeprefix(PREFIX): text for name, text in metadata.items() if name.startswith(PREFIX)}
    if "classes" not in own and _are_classes(metadata.get("classes", "")):
        own["classes"] = metadata["classes"]
    texts: dict[str, str] = {}
    problems = []
    for prefix, given in ((f"its metadata's {PREFIX}", own), ("", declared)):
        settings = {name: text.strip() for name, text in given.items()}
        form = settings.pop("form", None)
        if form is not None and form not in FORMS:
            problems.append(f"{prefix}form must be one of {', '.join(FORMS)}, got {form!r}")
        strange = [name for name in settings if name not in SETTINGS]
        problems += [f"{prefix}{name} is no setting ({', '.join(['form', *SETTINGS])})" for name in strange]
        texts |= dict(FORMS.get(form or "", {})) | settings
    values: dict[str, Any] = {}
    for name, (words, read) in SETTINGS.items():
        if name not in texts:
            continue
        try:
            values[name] = read(texts[name])
        except ValueError:
            problems.append(f"{name} must be {words}, got {texts[name]!r}")
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}")
    return Declaration(**values)


# -- reading texts ----------------------------------------------------------------------------------------------------


def _size(text: str) -> tuple[int, int]:
    parts = [int(part) for part in text.lower().split("x") if re.fullmatch(r"\d{1,4}", part, re.ASCII)]
    if len(parts) != text.lower().count("x") + 1 or len(parts) > 2 or not all(1 <= side <= MOST_SIDE for side in parts):
        raise ValueError
    return parts[0], parts[-1]


def _colours(text: str) -> str:
    if text.lower() not in COLOURS:
        raise ValueError
    return text.lower()


def _numbers(least: float) -> Callable[[str], tuple[float, ...]]:
    """Reads one number, or three between colons, each from ``least`` to 255."""

    def read(text: str) -> tuple[float, ...]:
        values = tuple(float(part) for part in text.split(":"))
        if len(values) not in (1, 3) or not all(math.isfinite(v) and least <= v <= 255 for v in values):
            raise ValueError
        return values

    return read


def _eyes(text: str) -> Places | None:
    if text.lower() == "none":
        return None
    a, b, c, d = (float(part) for part in text.split(":"))
    if not (0 <= a < c <= 1 and 0 <= b <= 1 and 0 <= d <= 1 and c - a >= _NEAREST):
        raise ValueError
    return (a, b), (c, d)


_NEAREST = 0.01  # between both eyes, as a share of the side: a face must not fill a hundred times the picture


def _classes(text: str) -> tuple[str, ...]:
    names = parsed_json(text) if text.startswith(("[", "{")) else text.split(",")
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError
    return tuple(name.strip() for name in names)


def _are_classes(text: str) -> bool:
    """Whether a text of a file that was not made for Veil names classes as Veil reads them."""
    try:
        return bool(_classes(text.strip()))
    except ValueError:
        return False


SETTINGS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "size": (f"a side, or WIDTHxHEIGHT, in 1 .. {MOST_SIDE} pixels", _size),
    "colours": (f"one of {', '.join(COLOURS)}", _colours),
    "mean": ("a number in 0 .. 255, of pixels as they are, or three (A:B:C)", _numbers(0.0)),
    "std": ("a number in 1 .. 255, of pixels as they are, or three (A:B:C)", _numbers(1.0)),
    "eyes": ("LEFT_X:LEFT_Y:RIGHT_X:RIGHT_Y as fractions of the side, the left eye on the left, or none", _eyes),
    "classes": ("names, as a list of JSON or separated by commas", _classes),
}
"""What can be declared: what its text must be, and what reads it; beside them ``form``, a name of :data:`FORMS`."""
