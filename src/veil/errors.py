"""What all parts share: the one exception type that users of Veil are meant to see, the rule for seeds, and how text
that comes from files is shown.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any

_UNSEEN = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""What JSON leaves as it is: controls of terminals, and such as turn the direction of what follows; halves of letters,
which no file can hold."""


MOST_LETTERS = 2000
"""Of a message."""


class InputError(ValueError):
    """The caller's mistake: a bad file, label, option or value.

    The message is one line that names the thing, the rule and the value given. The command line prints it as it is
    and exits with 2; every other exception is our fault and exits with 1. Line breaks, which names and values may hold,
    are blanks in it, and of what is longer than :data:`MOST_LETTERS` the middle is left out.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(part for part in map(str.strip, str(message).splitlines()) if part)
        if len(line) > MOST_LETTERS:
            line = f"{line[: MOST_LETTERS * 2 // 3]} ... {line[-MOST_LETTERS // 4 :]}"
        super().__init__(line)


def checked_seed(seed: Any) -> int:
    """A seed as a plain integer; raises InputError unless it is one in 0 .. 2**31 - 1."""
    try:
        value = operator.index(seed)
    except TypeError:
        value = -1
    if isinstance(seed, bool) or not 0 <= value < 2**31:
        raise InputError(f"seed: must be a whole number in 0 .. 2**31 - 1, got {seed!r}")
    return value


def checked_path(name: str, path: Any) -> Path:
    """A path that was given as an argument of that name; raises InputError for what is none."""
    if not isinstance(path, str | os.PathLike) or not str(path):
        kind = type(path).__name__
        raise InputError(f"{name}: must be a path, got {'nothing' if path is None or isinstance(path, str) else kind}")
    return Path(path)


def checked_jobs(jobs: int | None) -> int | None:
    """A number of processes or threads, None for as many as there are processors; raises InputError below 1."""
    if jobs is not None:
        check_whole("jobs", jobs)
        if jobs < 1:
            raise InputError(f"jobs: must be at least 1, got {jobs}")
    return jobs


def check_type(name: str, value: Any, kinds: type | tuple[type, ...], words: str) -> None:
    """Raises InputError where an argument of that name is of none of these types, which words say."""
    if not isinstance(value, kinds):
        got = "None" if value is None else repr(value) if isinstance(value, str) else type(value).__name__
        raise InputError(f"{name}: must be {words}, got {got}")


def check_whole(name: str, value: Any) -> None:
    """Raises InputError unless an argument of that name is a whole number."""
    check_type(name, None if isinstance(value, bool) else value, Integral, "a whole number")


def checked_names(name: str, value: Any) -> list[str]:
    """Names, of labels say, that were given as an argument; raises InputError for what is no list of texts."""
    if isinstance(value, str):
        raise InputError(f"{name}: must be a list of names, got the text {value!r}")
    check_type(name, value, Iterable, "a list of names")
    names = list(value)
    if strange := [type(each).__name__ for each in names if not isinstance(each, str)]:
        raise InputError(f"{name}: must be a list of names, got one of {strange[0]}")
    return names


def printable(text: str) -> str:
    """A line of text without characters that command a terminal or turn its direction: they are written as ``\\x1b``.

    Names of files and labels may hold anything; shown as they are, they could clear a screen, or pass for other words.
    """
    return re.sub(rf"[\x00-\x1f{_UNSEEN}]", lambda found: ascii(found[0])[1:-1], text)


def printable_json(text: str) -> str:
    """JSON that means the same and holds no such character, but for line breaks between its values."""
    return re.sub(f"[{_UNSEEN}]", lambda found: f"\\u{ord(found[0]):04x}", text)
