"""Fresh networks and tables that read a label from releases, with intervals; the examples of released images use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.auditing.attackers import ATTACKERS
from veil.auditing.intervals import balanced_accuracy_interval
from veil.auditing.metrics import balanced_accuracy
from veil.auditing.problem import Problem
from veil.data.pack import Pack

Figure = dict[str, Any]
"""``value``, ``low``, ``high`` (95 %, clustered by person where people are known), ``attacker``, ``n``."""


def read(
    x: NDArray[Any],
    pack: Pack,
    label: str,
    attackers: Sequence[str],
    *,
    learn: Sequence[str] = ("protect",),
    effort: str = "standard",
    seed: int = 0,
) -> Figure:
    """Balanced accuracy on ``test`` of the attacker that is best on ``calibrate``; all learn from scratch.

    Args:
        x: Releases of the pack's rows.
        pack: Labels and splits.
        label: What is read.
        attackers: Names in ``veil.auditing.attackers.ATTACKERS``.
        learn: Splits that attackers learn from.
        effort: Theirs.
        seed: Theirs.
    """
    y, classes = pack.label(label), len(pack.classes[label])
    train, validation, test = (pack.rows(*s, known=(label,)) for s in (tuple(learn), ("calibrate",), ("test",)))
    problem = Problem(
        x=x[train], y=y[train], x_validation=x[validation], y_validation=y[validation], classes=classes, seed=seed,
        effort=effort,
    )  # fmt: skip
    scores = {name: ATTACKERS[name](problem) for name in attackers}

    def quality(name: str) -> float:
        return balanced_accuracy(y[validation], scores[name](x[validation]).argmax(1), classes=classes)

    best = max(attackers, key=quality)
    people = pack.labels["identity"][test] if "identity" in pack.labels and label != "identity" else None
    value, low, high = balanced_accuracy_interval(y[test], scores[best](x[test]).argmax(1), people, classes=classes)
    return {"value": value, "low": low, "high": high, "attacker": best, "n": len(test)}


def mean(figures: Sequence[Figure], digits: int = 3) -> str:
    """Mean over the seeds, with the mean limits of their intervals in brackets."""
    value, low, high = (float(np.mean([f[k] for f in figures])) for k in ("value", "low", "high"))
    return f"{value:.{digits}f} ({low:.{digits}f} - {high:.{digits}f})"
