"""The one exception type that users of Veil are meant to see."""

from __future__ import annotations


class InputError(ValueError):
    """The caller's mistake: a bad file, label, option or value.

    The message is one line that names the thing, the rule and the value given. The command line prints it as it is
    and exits with 2; every other exception is our fault and exits with 1.
    """
