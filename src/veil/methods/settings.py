"""Settings of a method: each declared once with its bounds beside it, read from text, and checked all at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from veil.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Bound:
    """What a setting must keep to, in words and as a test; NaN keeps to nothing."""

    words: str
    holds: Callable[[Any], bool]


def at_least(low: float) -> Bound:
    return Bound(f"must be >= {low:g}", lambda value: value >= low)


def at_most(high: float) -> Bound:
    return Bound(f"must be <= {high:g}", lambda value: value <= high)


def within(interval: str) -> Bound:
    """Between two numbers, written as in mathematics: ``[0, 1)`` holds 0 but not 1."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    closed = interval[0] == "[", interval[-1] == "]"
    words = f"must lie in {interval}" if any(closed) else f"must lie between {low:g} and {high:g}"
    return Bound(words, lambda x: (low < x or (closed[0] and x == low)) and (x < high or (closed[1] and x == high)))


def one_of(*values: Any) -> Bound:
    return Bound(f"must be one of {', '.join(map(str, values))}", lambda value: value in values)


EVEN = Bound("must be even", lambda value: value % 2 == 0)

Weight = Annotated[float, at_least(0)]
Share = Annotated[float, within("[0, 1)")]
Rate = Annotated[float, at_least(1e-8)]
"""A learning rate, or another number that must not be 0."""
Steps = Annotated[int, at_least(0)]
Count = Annotated[int, at_least(1)]


def checked(method: str) -> Callable[[type[T]], type[T]]:
    """Makes a class of settings, which is to become a dataclass, refuse what is out of bounds, in one line.

    What must hold between settings, its method ``problems`` yields where it does not.
    """

    def decorate(settings: type[T]) -> type[T]:
        def check(self: T) -> None:
            wrong = [*out_of_bounds(self), *getattr(self, "problems", tuple)()]
            if wrong:
                raise InputError(f"{method}: {'; '.join(wrong)}")

        settings.__post_init__ = check  # type: ignore[attr-defined]
        return settings

    return decorate


def out_of_bounds(config: Any) -> Iterator[str]:
    """What is to be said of each setting that does not keep to the first of its bounds."""
    kind: Any = type(config)
    for name, bounds in _bounds(kind).items():
        value = getattr(config, name)
        broken = next((bound for bound in bounds if not bound.holds(value)), None)
        if broken is not None:
            yield f"{name}: {broken.words}, got {value!r}"


@cache
def _bounds(settings: Any) -> dict[str, tuple[Bound, ...]]:
    bounds: dict[str, tuple[Bound, ...]] = {}
    for name, hint in get_type_hints(settings, include_extras=True).items():
        if get_origin(hint) is Literal:
            bounds[name] = (one_of(*get_args(hint)),)
        elif get_origin(hint) is Annotated:
            bounds[name] = tuple(bound for bound in hint.__metadata__ if isinstance(bound, Bound))
    return bounds


def listed(text: str) -> list[str]:
    """The names of a setting that holds several, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def is_text(kind: Any) -> bool:
    """Whether a setting of this type holds text."""
    return kind is str or get_origin(kind) is Literal


def of_kind(name: str, value: Any, kind: Any) -> Any:
    """A value that is no string, where it is of the setting's type; 2.0 is the integer 2."""
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"{name}: must be true or false, got {value!r}")
    elif kind in _NUMBERS:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or (kind is int and value != int(value)):
            raise InputError(f"{name}: must be {_NUMBERS[kind]}, got {value!r}")
        value = int(value) if kind is int else value
    elif is_text(kind):
        raise InputError(f"{name}: must be text, got {value!r}")
    return value


def from_text(name: str, text: str, kind: Any) -> Any:
    """A setting's value, read as its type."""
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise InputError(f"{name}: must be true or false, got {text!r}")
        return words[text.lower()]
    if kind in _NUMBERS:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{name}: must be {_NUMBERS[kind]}, got {text!r}")
        return number
    return text


_NUMBERS = {int: "an integer", float: "a finite number"}
