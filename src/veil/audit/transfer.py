"""Transfer: what attackers, and matchers, that know only originals make of releases that are images.

Releases that look like ordinary faces meet systems that were never told of them: classifiers and matchers trained on
originals. They show what a protector does to such systems, off the shelf; the other attackers of the audit, trained on
releases, show what it does to somebody who knows it. A release that turns a class around takes in the former alone:
their figure falls below chance, and whoever knows that reads its opposite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil import metrics
from veil.audit import verification
from veil.audit.attackers import ATTACKERS, DidNotConverge, Problem, Score, decision, siamese
from veil.audit.findings import Finding
from veil.audit.intervals import balanced_accuracy_interval, rate_interval
from veil.data.pack import Pack
from veil.errors import InputError

CLASSIFIERS = ("RBF SVM", "six convolutions", "residual CNN", "plain CNN")
"""Attackers of :data:`veil.audit.attackers.ATTACKERS` that learn from originals."""
MATCHER = "siamese, of originals"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Images ``(N, H, W[, 3])`` that originals of the same shape were released as."""

    name: str
    x: NDArray[Any]


def classified(
    originals: NDArray[Any],
    releases: Sequence[Shown],
    pack: Pack,
    target: str,
    *,
    attack_on: Sequence[str],
    effort: str,
    seed: int,
    level: float,
) -> dict[str, list[Finding]]:
    """What classifiers that learned a label from originals read from releases, for each of them.

    Thresholds are set on originals, too. The classifier that reads the ``calibrate`` originals best is marked.

    Args:
        originals: uint8 images ``(N, H, W[, 3])``.
        releases: Of the same shape; the originals may be among them.
        pack: Labels and splits.
        target: The label.
        attack_on: Splits whose originals they learn from.
        effort: ``"quick"``, ``"standard"`` or ``"strong"``.
        seed: Seeds classifiers and bootstrap.
        level: Coverage of the intervals.
    """
    y, classes = pack.label(target), len(pack.classes[target])
    train, check, test = (pack.rows(*s, known=(target,)) for s in (tuple(attack_on), ("calibrate",), ("test",)))
    people = pack.label("identity")[test] if "identity" in pack.labels and target != "identity" else None
    problem = Problem(
        x=originals[train], y=y[train], x_validation=originals[check], y_validation=y[check], classes=classes,
        seed=seed, effort=effort,
    )  # fmt: skip
    fitted: dict[str, tuple[Score, NDArray[Any]]] = {}
    failed: dict[str, str] = {}
    for name in CLASSIFIERS:
        try:
            score = ATTACKERS[name](problem)
            fitted[name] = (score, score(problem.x_validation))
        except DidNotConverge as error:
            failed[name] = str(error)
    decide = {name: decision(seen, y[check], classes) for name, (_, seen) in fitted.items()}
    quality = {
        name: metrics.balanced_accuracy(y[check], decide[name](seen), classes=classes)
        for name, (_, seen) in fitted.items()
    }
    best = max(quality, key=lambda name: quality[name], default=None)
    common: dict[str, Any] = {
        "code": "attribute.transfer_balanced_accuracy", "target": target, "role": "attack", "level": level,
        "chance": 1 / classes,
    }  # fmt: skip
    found: dict[str, list[Finding]] = {}
    for release in releases:
        figures = []
        for name, (score, _) in fitted.items():
            predicted = decide[name](score(release.x[test]))
            value, low, high = balanced_accuracy_interval(
                y[test], predicted, people, classes=classes, seed=seed, level=level
            )
            turned = "below chance: its opposite is right more often" if high < 1 / classes else ""
            figures.append(
                Finding(release=release.name, attacker=name, value=value, low=low, high=high, n=len(test),
                        worst=name == best, note=turned, **common)
            )  # fmt: skip
        figures += [
            Finding(release=release.name, attacker=name, n=len(test), status="did_not_converge", note=why, **common)
            for name, why in failed.items()
        ]
        found[release.name] = figures
    return found


def matched(
    originals: NDArray[Any],
    releases: Sequence[Shown],
    pack: Pack,
    *,
    attack_on: Sequence[str],
    effort: str,
    seed: int,
    level: float,
) -> dict[str, list[Finding]]:
    """How well a matcher that learned from originals compares releases with each other, and with originals.

    Arguments as for :func:`classified`; nothing where people are too few to learn from.
    """
    identity = pack.label("identity")
    train, check, test = (pack.rows(*s, known=("identity",)) for s in (tuple(attack_on), ("calibrate",), ("test",)))
    problem = Problem(
        x=originals[train], y=identity[train], x_validation=originals[check], y_validation=identity[check],
        classes=len(pack.classes["identity"]), seed=seed, effort=effort,
    )  # fmt: skip
    try:
        embed = siamese(problem)
    except (DidNotConverge, InputError):
        return {}
    pairs = verification.sample_pairs(test, identity, seed=seed, max_pairs=50_000)
    known = np.unique(np.concatenate([pairs.a, pairs.b]))
    place = np.searchsorted(known, pairs.a), np.searchsorted(known, pairs.b)
    real = embed(originals[known])
    found: dict[str, list[Finding]] = {}
    for release in releases:
        drawn = embed(release.x[known])
        figures = []
        for code, sides in (("verification.transfer_auc", (drawn, drawn)), ("verification.mixed_auc", (drawn, real))):
            both = np.concatenate(sides)
            moved = verification.Pairs(
                a=place[0], b=place[1] + len(known), same=pairs.same, group_a=pairs.group_a, group_b=pairs.group_b
            )
            auc = verification.verify(
                verification.scores(both, moved), moved, None, None, seed=seed, level=level, replicates=100, fars=()
            )[0]
            figure = auc.finding(release=release.name, attacker=MATCHER, worst=True)
            figures.append(replace(figure, code=code))
        found[release.name] = figures
    return found


def likeness(originals: NDArray[Any], release: Shown, pack: Pack, *, seed: int, level: float) -> list[Finding]:
    """SSIM and PSNR of releases to their originals, on ``test``."""
    rows = pack.rows("test")
    people = pack.label("identity")[rows] if "identity" in pack.labels else None
    a, b = release.x[rows], np.asarray(originals[rows])
    out = []
    for code, values in (("utility.ssim", metrics.ssim(a, b)), ("utility.psnr", metrics.psnr(a, b))):
        value, low, high = rate_interval(values, people, seed=seed, level=level)
        out.append(
            Finding(code=code, release=release.name, target="image", attacker="pixels", role="utility", value=value,
                    low=low, high=high, level=level, n=len(rows), chance=0.0, worst=True)
        )  # fmt: skip
    return out
