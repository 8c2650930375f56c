"""The one exception type that users of Veil are meant to see, and the rule for seeds, which all parts share."""

from __future__ import annotations

import operator
from typing import Any


class InputError(ValueError):
    """The caller's mistake: a bad file, label, option or value.

    The message is one line that names the thing, the rule and the value given. The command line prints it as it is
    and exits with 2; every other exception is our fault and exits with 1.
    """


def checked_seed(seed: Any) -> int:
    """A seed as a plain integer; raises InputError unless it is one in 0 .. 2**31 - 1."""
    try:
        value = operator.index(seed)
    except TypeError:
        value = -1
    if isinstance(seed, bool) or not 0 <= value < 2**31:
        raise InputError(f"seed: must be a whole number in 0 .. 2**31 - 1, got {seed!r}")
    return value
