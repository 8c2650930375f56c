"""What shapes and sizes a pack's pictures had, and whether others differ so widely that a crop finds other things.

Veil looks for no faces. A release sees of every new picture the part that it saw of the training pack's: the same
fractions, or the largest centred square. In pictures of people from head to foot that is not where the face is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from veil.foreign import Rule, is_real

SHAPE, SIZE = 1.25, 4.0
"""Factors beyond the training pack's range (of 90 % of its pictures) at which a shape or a size is another."""
_QUANTILES = (0.05, 0.5, 0.95)
_THREE: Rule = (
    "three numbers above 0",
    lambda x: isinstance(x, list) and len(x) == 3 and all(is_real(q, 0) and q > 0 for q in x),
)
RULES: Mapping[str, Rule] = {"shape": _THREE, "short_side": _THREE}
"""What :func:`described` says, as a file may keep it."""


def described(sizes: ArrayLike) -> dict[str, list[float]]:
    """Quantiles (5, 50 and 95 %) of the shapes, width to height, and of the shorter sides of pictures.

    Args:
        sizes: Widths and heights in pixels, ``(n, 2)``, n >= 1.
    """
    both = np.asarray(sizes, np.float64)
    values = {"shape": both[:, 0] / both[:, 1], "short_side": both.min(1)}
    return {name: [round(float(q), 4) for q in np.quantile(each, _QUANTILES)] for name, each in values.items()}


def doubt(what: str, known: Mapping[str, Any], new: Mapping[str, Sequence[float]], crop: Sequence[float] | None) -> str:
    """A warning where the middle one of new pictures is of another shape or size than those that are known; else "".

    Args:
        what: What the new pictures are called.
        known: Those of a training pack, as :func:`described` says it.
        new: The new ones, in the same way.
        crop: Left, top, right, bottom of what is cut from each, as fractions; None for the largest centred square.
    """
    shapes, sides = known["shape"], known["short_side"]
    shape, side = new["shape"][1], new["short_side"][1]
    alike = shapes[0] / SHAPE <= shape <= shapes[2] * SHAPE and sides[0] / SIZE <= side <= sides[2] * SIZE
    if alike:
        return ""
    cut = "the largest centred square"
    if crop is not None:
        left, top, right, bottom = (f"{100 * value:.0f}" for value in crop)
        cut = f"what lies from {left} to {right} % across and from {top} to {bottom} % down"
    return (
        f"{what}: its pictures differ in shape or size from those that the release was fitted on: width to height "
        f"{shape:.2f} (there {_range(shapes, 2)}), shorter side {side:.0f} pixels (there {_range(sides, 0)}). Faces "
        f"are not looked for: {cut} is taken of each, as it was there. Cut these pictures as those were, or have faces "
        "aligned by their eyes (--landmarks), from the pack on."
    )


def _range(quantiles: Sequence[float], digits: int) -> str:
    low, high = (f"{value:.{digits}f}" for value in (quantiles[0], quantiles[2]))
    return low if low == high else f"{low} to {high}"
