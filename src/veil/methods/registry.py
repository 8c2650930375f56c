"""The methods by name, and what each takes and needs; their algorithms, and torch, are imported when first used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

from veil.errors import InputError

Kind = Literal["images", "vectors"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method, as far as it can be told without its algorithm.

    Attributes:
        name: What it is called.
        home: Where its algorithm is, ``module:name``.
        presets: Names of its presets; the first is the default.
        takes: Kinds of packs that it learns from.
        takes_base: Whether it may work on another method's releases.
        hides: Whether it needs labels to hide; a method that hides the picture itself needs none.
        noise: Whether it has a setting ``noise``, the norm of keyed noise, of which a frontier can be measured.
        frontier: Presets whose frontier is measured unless that is declined.
        references: Presets that protect nothing, or only in part, for comparison: reports call them baselines.
        strength: The setting that weighs hiding, where fitting is quick enough to try several under a budget.
        files: Settings that name a file, or the folder of a release, to learn from: what they hold counts, not where
            they lie, and a release does not hold them.
    """

    name: str
    home: str
    presets: tuple[str, ...]
    takes: tuple[Kind, ...] = ("images", "vectors")
    takes_base: bool = False
    hides: bool = True
    noise: bool = False
    frontier: frozenset[str] = frozenset()
    references: frozenset[str] = frozenset()
    strength: str | None = None
    files: frozenset[str] = frozenset()

    @cached_property
    def algorithm(self) -> Any:
        """A :class:`veil.methods.protocol.Algorithm`, whose type knows releases, which look methods up here."""
        module, name = self.home.split(":")
        return getattr(import_module(module), name)

    def role(self, preset: str) -> Literal["baseline", "method"]:
        """What reports call a release of this preset."""
        return "baseline" if preset in self.references else "method"


_ALL = (
    Method(
        name="aia",
        home="veil.methods.aia:ALGORITHM",
        presets=("paper", "original", "without-task"),
        references=frozenset({"original", "without-task"}),
    ),
    Method(
        name="deep",
        home="veil.methods.deep:ALGORITHM",
        presets=("default", "unprotected"),
        noise=True,
        references=frozenset({"unprotected"}),
    ),
    Method(
        name="template",
        home="veil.methods.template:ALGORITHM",
        presets=("default", "erased", "aligned", "noise"),
        takes=("vectors",),
        noise=True,
        frontier=frozenset({"default", "erased"}),
        references=frozenset({"aligned", "noise"}),
        strength="hide",
    ),
    Method(
        name="mi",
        home="veil.methods.mi:ALGORITHM",
        presets=("default", "paper"),
        takes=("images",),
    ),
    Method(
        name="substitution",
        home="veil.methods.substitution:ALGORITHM",
        presets=("default", "unguided", "handwriting"),
    ),
    Method(
        name="inversion",
        home="veil.methods.inversion:ALGORITHM",
        presets=("default", "adversarial", "unprotected", "paper"),
        takes=("images",),
        hides=False,
        references=frozenset({"unprotected"}),
        files=frozenset({"weights", "perceptual_weights"}),
    ),
    Method(
        name="san",
        home="veil.methods.san:ALGORITHM",
        presets=("default", "hardened", "paper"),
        takes=("images",),
        files=frozenset({"matcher"}),
    ),
    Method(
        name="leace",
        home="veil.methods.leace:ALGORITHM",
        presets=("default",),
        takes_base=True,
        references=frozenset({"default"}),
    ),
    Method(
        name="random",
        home="veil.methods.random:ALGORITHM",
        presets=("default",),
        takes_base=True,
        references=frozenset({"default"}),
    ),
)

METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _ALL})
"""What ``veil fit`` offers. There is no other registry."""


def method_named(name: str) -> Method:
    """A method of :data:`METHODS`; raises InputError where there is none of this name."""
    if not isinstance(name, str) or name not in METHODS:
        raise InputError(f"method: must be one of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]
