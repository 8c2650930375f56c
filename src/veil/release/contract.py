"""What goes into a release and what comes out: its contract."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from veil.data.classes import few
from veil.data.pack import Pack
from veil.data.packfile import CROP
from veil.errors import InputError
from veil.foreign import (
    FLAG,
    LISTS_OF_TEXTS,
    TEXTS,
    Rule,
    among,
    check_fields,
    either,
    is_whole,
    real,
    whole,
)
from veil.release.draws import LENGTH, MOST_TURNED

MOST_JOINT = 1024
"""Joint classes of private labels for each of which a release can hold something of its own."""


def _sides(least: int, most: int) -> Rule:
    """Sides of an array of so many axes."""

    def fits(x: Any) -> bool:
        sides = isinstance(x, list | tuple) and least <= len(x) <= most and all(is_whole(side, 1) for side in x)
        return sides and math.prod(x) <= MOST_VALUES

    return f"{least} to {most} whole numbers that make at most {MOST_VALUES:,} values", fits


MOST_VALUES = 3 * 2**26  # of one input, or one release: those of the largest picture that is decoded
CONTRACT_RULES: Mapping[str, Rule] = {
    "kind": among("images", "vectors"),
    "shape": _sides(1, 3),
    "k": whole(1, MOST_VALUES),
    "image": either(_sides(2, 3)),
    "support": whole(0, 2**31),
    "feature_map": either(_sides(3, 3)),
    "noise": real(0, 1e6),
    "length": real(1e-6, 1e6),
    "replace": real(0, 1),
    "crop": either(CROP),
    "columns": TEXTS,
    **dict.fromkeys(("draw", "aligned", "direction", "asks", "chooses", "renew"), FLAG),
    **dict.fromkeys(("classes", "keeps"), LISTS_OF_TEXTS),
}
"""The fields of a contract in ``release.json``."""


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What goes in and what comes out.

    Attributes:
        kind: ``"images"`` (uint8) or ``"vectors"`` (float32).
        shape: Of one input: ``(H, W)``, ``(H, W, 3)`` or ``(d,)``.
        k: Width of a released vector; values of a released image.
        image: Shape of a released image, ``(H, W)`` or ``(H, W, 3)``, uint8; None where vectors are released.
        support: Number K of values that a release can take at all; 0 where there is no such number. The encoder then
            gives log-probabilities ``(B, K)`` and holds the values as ``substitutes`` ``(K, ...)``.
        draw: Whether a keyed draw from the probabilities chooses among the substitutes; else the likeliest is released.
        feature_map: ``(C, H, W)`` where the vector is a flattened map, which it is no more once it was turned.
        noise: Norm of the keyed noise relative to the unit-length release; 0 for a deterministic encoder.
        length: Distance of unit-length releases over which that noise changes; see :mod:`veil.release.draws`.
        replace: Share of each vector's values that a keyed draw from U[0, 1] replaces (the Random baseline).
        renew: Whether released vectors are turned by an orthogonal matrix of the key, so that those of another key do
            not match them.
        crop: The crop of the training pack (left, top, right, bottom as fractions of the image), for files to come.
        aligned: Whether the faces of the training pack were aligned by their eyes, as files to come must then be.
        columns: Names of the columns that the training pack's vectors stood in, a value each, in their order; files to
            come must have the same. Empty where they stood in none of their own.
        direction: Whether only the direction of an input vector counts; one of length 0 is then refused.
        classes: Class names of the private attributes, where the encoder moves each class by itself.
        asks: Whether the encoder takes those classes with an input where they are known; it guesses them otherwise.
        chooses: Whether it may be chosen for each input which of those attributes are hidden.
        keeps: Labels that the release's own classifier reads, and their class names; none where it has no classifier.
    """

    kind: Literal["images", "vectors"]
    shape: tuple[int, ...]
    k: int
    image: tuple[int, ...] | None = None
    support: int = 0
    draw: bool = False
    feature_map: tuple[int, int, int] | None = None
    noise: float = 0.0
    length: float = LENGTH
    replace: float = 0.0
    renew: bool = False
    crop: tuple[float, float, float, float] | None = None
    aligned: bool = False
    columns: tuple[str, ...] = ()
    direction: bool = False
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    asks: bool = False
    chooses: bool = False
    keeps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @staticmethod
    def read(raw: Any) -> Contract:
        """A contract from the plain values that JSON keeps; raises ValueError for what cannot be one."""
        check_fields(raw, "contract", CONTRACT_RULES, ("kind", "shape", "k"))
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
        for key in ("classes", "keeps"):
            values[key] = {name: tuple(names) for name, names in raw.get(key, {}).items()}
        contract = Contract(**values)
        contract._check()
        return contract

    def _check(self) -> None:
        """Raises ValueError where its parts contradict each other."""
        fits = len(self.shape) == 1 if self.kind == "vectors" else len(self.shape) == 2 or self.shape[2:] == (3,)
        if not fits:
            raise ValueError(f"contract.shape must be that of {self.kind}, got {self.shape}")
        for name, shape in (("image", self.image), ("feature_map", self.feature_map)):
            if shape is not None and math.prod(shape) != self.k:
                raise ValueError(f"contract.{name} must hold {self.k:,} values, got {shape}")
        if self.columns and (len(self.columns),) != self.shape:
            raise ValueError(f"contract.columns must name {self.shape} values, got {len(self.columns)}")
        if self.draw and not self.support:
            raise ValueError("contract.draw needs a support of finitely many values, got none")
        if (self.asks or self.chooses) and not self.classes:
            raise ValueError("contract.asks and contract.chooses need classes, got none")
        if (self.noise or self.replace) and (self.support or self.image is not None):
            raise ValueError("contract.noise and contract.replace are of vectors, got images or finitely many values")
        if self.renew and (why := self.not_turned):
            raise ValueError(f"contract.renew: {why}")
        if not 1 <= (joint := math.prod(len(names) for names in self.classes.values())) <= MOST_JOINT:
            raise ValueError(f"contract.classes must make 1 to {MOST_JOINT:,} joint classes, got {joint:,}")

    @property
    def told(self) -> Mapping[str, tuple[str, ...]]:
        """Private attributes that may be told with an input, and their class names."""
        return self.classes if self.asks else {}

    @property
    def draws(self) -> bool:
        """Whether something about a single release is drawn from its key."""
        return self.noise > 0 or self.replace > 0 or self.draw

    @property
    def keyed(self) -> bool:
        return self.draws or self.renew

    @property
    def not_turned(self) -> str:
        """Why its releases cannot be turned by a matrix; "" where they can."""
        if self.image is not None:
            return f"only vectors can be turned, and these are images {self.image}"
        if not 2 <= self.k <= MOST_TURNED:
            return f"must be of 2 to {MOST_TURNED:,} values, got {self.k:,}"
        return ""

    def turned(self, renew: bool) -> Contract:
        """The same, with releases that are turned by the key's matrix where ``renew`` asks for it.

        Raises:
            InputError: Where they cannot be.
        """
        if renew and self.not_turned:
            raise InputError(f"renew: {self.not_turned}")
        return replace(self, renew=renew)

    def check_framing(self, pack: Pack, name: str) -> None:
        """Refuse a pack that was cut otherwise than the training pack; of one made in memory nothing need be known.

        Raises:
            InputError: Where eyes were aligned in either and not in the other, or the values of vectors stood in other
                columns, or in another order; it begins with ``name``.
        """
        if "aligned" in pack.meta and pack.framing["aligned"] != self.aligned:
            here, there = ("aligned", "not aligned") if self.aligned else ("not aligned", "aligned")
            raise InputError(
                f"{name}: the release was fitted on faces that were {here} by their eyes, the pack's {there}"
            )
        columns = pack.framing["columns"]
        if columns and self.columns and columns != self.columns:
            raise InputError(
                f"{name}: the release was fitted on the columns {few(self.columns)}, the pack's are {few(columns)}; "
                "pack those columns, in their order (--set column=A,B,...)"
            )

    def empty(self, n: int) -> NDArray[Any]:
        """Room for n releases: uint8 ``(n, H, W[, 3])`` or float32 ``(n, k)``."""
        return np.empty((n, self.k), np.float32) if self.image is None else np.empty((n, *self.image), np.uint8)
