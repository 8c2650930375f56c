"""What a method is to the rest of Veil: its settings and three functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from torch import nn

from veil.data.pack import Pack, few
from veil.engine import Run
from veil.errors import InputError
from veil.foreign import is_whole, shown
from veil.release import MOST_JOINT, Contract, Release


class Fit(Protocol):
    """``fit(config, pack, private=..., utility=...)`` trains on the ``protect`` split and returns a frozen release."""

    def __call__(
        self,
        config: Any,
        pack: Pack,
        *,
        private: list[str],
        utility: str = "identity",
        seed: int = 0,
        run: Run | None = None,
        key: bytes | None = None,
        base: Release | None = None,
    ) -> Release: ...


class Build(Protocol):
    """From a configuration (or its plain values) and a contract to a network without trained weights."""

    def __call__(self, config: Any, contract: Contract) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method.

    Attributes:
        config: Its frozen dataclass of settings.
        presets: Named settings; the first is the default.
        fit: Trains it.
        build: Makes its encoder.
        build_decoder: Makes its decoder; None for a method without one.
        build_classifier: Makes the classifier of what it keeps; None for a method without one.
        hides: Whether it needs labels to hide; a method that hides the picture itself needs none.
        references: Presets that protect nothing, or only in part, for comparison: reports call them baselines.
        strength: The setting that weighs hiding, where fitting is quick enough to try several under a budget.
        files: Settings that name a file, or the folder of a release, to learn from: what they hold counts, not where
            they lie.
    """

    config: type[Any]
    presets: Mapping[str, Any]
    fit: Fit
    build: Build
    build_decoder: Build | None = None
    build_classifier: Build | None = None
    hides: bool = True
    references: frozenset[str] = frozenset()
    strength: str | None = None
    files: frozenset[str] = frozenset()

    def role(self, preset: str) -> Literal["baseline", "method"]:
        """What reports call a release of this preset."""
        return "baseline" if preset in self.references else "method"

    def configured(self, preset: str | None, settings: Mapping[str, Any]) -> Any:
        """A preset with some settings changed.

        Args:
            preset: Name of a preset; the first if None.
            settings: Values by field name; strings are read as the field's type, NumPy's numbers, which a search over
                settings draws, as Python's.

        Raises:
            InputError: For a preset, setting or value that does not exist.
        """
        preset = preset if preset is not None else next(iter(self.presets))
        if preset not in self.presets:
            raise InputError(f"preset: must be one of {', '.join(self.presets)}, got {preset!r}")
        values = {f.name: getattr(self.presets[preset], f.name) for f in fields(self.config)}
        hints = get_type_hints(self.config)
        for name, value in settings.items():
            if name not in values:
                raise InputError(f"setting: must be one of {', '.join(values)}, got {name!r}")
            value = value.item() if isinstance(value, np.generic) else value  # what JSON can keep
            read = _parsed if isinstance(value, str) else _fitting
            values[name] = read(name, value, hints[name])
        return self.config(**values)

    def read(self, raw: Mapping[str, Any]) -> Any:
        """The configuration that a release holds: each setting there, and of its kind.

        Raises:
            InputError: For a setting that is missing, foreign, of another kind or out of range.
        """
        hints = get_type_hints(self.config)
        if odd := sorted(hints.keys() ^ raw.keys()):
            raise InputError(f"config: must hold {', '.join(hints)}; {odd[0]} is missing, or none of them")
        for name, value in raw.items():
            text = hints[name] is str or get_origin(hints[name]) is Literal
            if isinstance(value, str) != text:
                raise InputError(f"{name}: must be {'' if text else 'no '}text, got {shown(value)}")
            if hints[name] is int and not is_whole(value):
                raise InputError(f"{name}: must be an integer, got {shown(value)}")
            if not text:
                _fitting(name, value, hints[name])
        return self.config(**raw)


def too_small(config: Any, least: Mapping[str, float]) -> list[str]:
    """What a method's ``Config`` says of settings below their least values, or NaN; nothing of those in range."""
    return [
        f"{name}: must be >= {value:g}, got {getattr(config, name)!r}"
        for name, value in least.items()
        if not getattr(config, name) >= value
    ]


def not_among(config: Any, allowed: Mapping[str, Sequence[Any]]) -> list[str]:
    """What a method's ``Config`` says of settings that are none of their allowed values; nothing of the others."""
    return [
        f"{name}: must be one of {', '.join(map(str, values))}, got {getattr(config, name)!r}"
        for name, values in allowed.items()
        if getattr(config, name) not in values
    ]


def require_classes(pack: Pack, rows: NDArray[np.int64], labels: Sequence[str]) -> None:
    """Whether every class occurs among the rows to learn from, which know all of some labels; of people, two.

    ``Pack.require`` looks at each label by itself: rows that know one of them may be those that do not know another.

    Raises:
        InputError: With the label, and the classes that are not there.
    """
    problems = []
    for name in labels:
        there = np.unique(pack.label(name)[rows])
        missing = [repr(c) for code, c in enumerate(pack.classes[name]) if code not in there]
        if missing if name != "identity" else len(there) < 2:
            problems.append(f"label {name}: no row of class {few(missing)}")
    if problems:
        raise InputError(f"{'; '.join(problems)} among the rows of split protect that know all of {', '.join(labels)}")


def refuse_people(method: str, private: Sequence[str]) -> None:
    """Who somebody is cannot be hidden by what is shipped for each class: it would be each person's own, with a name.

    Raises:
        InputError: If identity is among the private labels.
    """
    if "identity" in private:
        raise InputError(
            f"{method}: private must not be identity where a release holds something of each class, for a class is one "
            "person; method substitution, or template with preset erased, can hide it"
        )


def refuse_many(method: str, pack: Pack, private: Sequence[str]) -> None:
    """What is shipped for each joint class of private labels must fit: their number is the product of the classes'.

    Raises:
        InputError: For more than :data:`veil.release.MOST_JOINT` joint classes.
    """
    joint = math.prod(len(pack.classes[name]) for name in private)
    if joint > MOST_JOINT:
        raise InputError(
            f"{method}: private labels make at most {MOST_JOINT:,} joint classes, each with something of its own; the "
            f"{len(private)} named make {joint:,}"
        )


def listed(text: str) -> list[str]:
    """The names of a setting that holds several, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _fitting(name: str, value: Any, kind: Any) -> Any:
    """A value that is no string, where it is of the setting's kind; 2.0 is the integer 2."""
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"{name}: must be true or false, got {value!r}")
    elif kind in (int, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or (kind is int and value != int(value)):
            raise InputError(f"{name}: must be {_KINDS[kind]}, got {value!r}")
        value = int(value) if kind is int else value
    elif kind is str or get_origin(kind) is Literal:
        raise InputError(f"{name}: must be text, got {value!r}")
    return value


def _parsed(name: str, text: str, kind: Any) -> Any:
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise InputError(f"{name}: must be true or false, got {text!r}")
        return words[text.lower()]
    if kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{name}: must be {_KINDS[kind]}, got {text!r}")
        return number
    return text


_KINDS = {int: "an integer", float: "a finite number"}
