"""From values of labels to classes and their codes; and how messages name a few of many."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.data.columns import nfc
from veil.errors import InputError

NOTHING = frozenset(
    (
        "na", "n/a", "n.a.", "#n/a", "<na>", "nan", "null", "none", "nil", "unknown", "undefined", "missing", "\\n",
        "-", "--", "?",
    )
)  # fmt: skip
"""Words that mean that a label is unknown, in small letters."""


def few(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def nameless(note: str) -> str:
    """A note without names of rows and files, nor paths: an ellipsis stands in their places.

    Names stand in notes as ``repr`` writes them, in quotes, by which they are told from the rest; so do those in errors
    of the system. A word with a ``/`` or a ``\\`` is taken for a path.
    """
    return _PATH.sub("\N{HORIZONTAL ELLIPSIS}", _QUOTED.sub("\N{HORIZONTAL ELLIPSIS}", note))


_QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
_PATH = re.compile(r"(?<![^\s(=])(?!\d+/\d+\b)[^\s(),;]*[/\\][^\s),;]*[^\s),;:.]")


def class_name(value: Any) -> str | None:
    """The class that a label's value names, or None where it is unknown (None, "", NaN; pandas' NA and NaT).

    Booleans become ``no``/``yes``; numbers without a fraction lose their ``.0``, which they often owe to a NaN
    elsewhere in their column. Text is brought into NFC.
    """
    if isinstance(value, str):  # first, as most are
        return nfc(value).strip() or None
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # by name, as pandas is not needed
        return None
    if getattr(value, "ndim", None) == 0 and not isinstance(value, np.datetime64 | np.timedelta64):
        value = value.item()  # of NumPy's scalars, and of tensors of one value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return None
        return str(int(value)) if float(value).is_integer() else str(float(value))
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    if isinstance(value, list | tuple | set | dict) or getattr(value, "ndim", False):
        raise InputError(f"labels: a value must be a string, a number or a boolean, got a {type(value).__name__}")
    return nfc(str(value)).strip() or None


_DECIMAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?", re.ASCII)


def column_classes(values: Iterable[Any]) -> dict[Any, str | None]:
    """The class of each of a column's values, None where it is unknown: the same, whatever kind of file it comes from.

    Beside what :func:`class_name` says, the words of :data:`NOTHING` are unknown. What files of text spell is read as
    what it stands for where that holds for all that is known in the column: ``True`` and ``FALSE`` are booleans,
    numbers without a fraction lose their ``.0``.
    """
    names = {value: class_name(value) for value in values}
    names = {value: None if name is not None and name.casefold() in NOTHING else name for value, name in names.items()}
    known = {name for name in names.values() if name is not None}
    if {name.casefold() for name in known} <= {"true", "false"}:
        return {value: name and told_class(name, ("no", "yes")) for value, name in names.items()}
    if all(_DECIMAL.fullmatch(name) for name in known):
        return {value: name and _whole(name) for value, name in names.items()}
    return names


def told_class(value: Any, classes: Sequence[str]) -> str | None:
    """Which of a label's classes a single value names, as :func:`column_classes` would find it in a column of them."""
    name = class_name(value)
    if name is None or name in classes:
        return name
    if name.casefold() in ("true", "false") and set(classes) <= {"no", "yes"}:
        return "yes" if name.casefold() == "true" else "no"
    if _DECIMAL.fullmatch(name) and _whole(name) in classes:
        return _whole(name)
    return None if name.casefold() in NOTHING else name


def _whole(number: str) -> str:
    """A decimal number's text without a fraction that is zero."""
    whole, _, fraction = number.partition(".")
    return number if fraction.strip("0") else "0" if whole == "-0" else whole


def encode(values: Any) -> tuple[NDArray[np.int64], tuple[str, ...], int]:
    """Codes ``(N,)`` (-1 for unknown), the sorted class names, and how many values are words of :data:`NOTHING`.

    ``values`` are N, in a sequence, an array or a tensor.
    """
    names = [class_name(value) for value in (values.tolist() if hasattr(values, "detach") else values)]
    class_of = column_classes(set(names))
    classes = tuple(sorted({name for name in class_of.values() if name is not None}))
    code: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    code[None] = -1
    codes = np.fromiter((code[class_of[name]] for name in names), np.int64, len(names))
    return codes, classes, sum(name is not None and class_of[name] is None for name in names)


def nothing_note(name: str, count: int) -> str:
    """A note that values of a label are words for nothing."""
    return f"{name}: {count} values are words for nothing, such as NULL, and are taken as unknown."
