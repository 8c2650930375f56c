"""Verification: how well releases tell whether two images show the same person.

Pairs of images are scored, higher meaning more alike, and the scores of genuine (same person) and impostor pairs give
ROC figures. Each pair has an influence on a figure (see :mod:`veil.auditing.intervals`). Pairs that share a person are
not independent, so the variance is the sum over all two pairs with a person in common of the product of their
influences (Fafchamps & Gubert, "The formation of risk sharing networks", J. Dev. Econ. 83, 2007): squares of the
persons' sums, less those of the impostor pairs of the same two persons, which both of them hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.auditing import intervals, metrics
from veil.auditing.intervals import UNDEFINED, Interval
from veil.auditing.pairs import Floats, Pairs, Shared
from veil.auditing.task import contribution, rows_of
from veil.findings import Finding, Measurement
from veil.findings.contributions import Contribution

FARS = (0.01, 0.001)
IMPOSTORS_AT_FAR = 10
"""TAR at a FAR is reported where at least so many impostor pairs are expected to be accepted."""
FOLDS = 10


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A verification figure, ready to become a finding.

    Attributes:
        code: As in :data:`veil.findings.codes.CODES`.
        interval: The figure and its limits; NaN where the status is not ``"ok"``.
        n: Number of pairs.
        chance: The figure of scores that know nothing.
        level: Coverage of the interval.
        status: ``"ok"`` or ``"not_applicable"``.
        note: How many pairs of each kind and persons, or why there is no figure.
        influence: ``(P,)`` by how much the figure moves with each pair, for differences between releases; empty where
            there is none.
        shared: Who is in the pairs; None where there is no influence.
    """

    code: str
    interval: Interval
    n: int
    chance: float
    level: float
    status: str = "ok"
    note: str = ""
    influence: Floats = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    shared: Shared | None = field(default=None, repr=False, compare=False)

    def contribution(self, finding: Finding) -> Contribution | None:
        """What persons contribute to it, as a finding."""
        if self.shared is None:
            return None
        rows = rows_of(self.shared.first, self.shared.second)
        return contribution(finding, rows, self.shared.sums(self.influence))

    def finding(
        self, *, release: str, attacker: str, role: str = "utility", target: str = "identity", worst: bool = False
    ) -> Finding:
        """The figure as a finding."""
        pairs = Measurement(release=release, target=target, attacker=attacker, role=role, n=self.n, level=self.level)
        if self.status != "ok":
            return pairs.missing(self.code, self.status, self.note, chance=self.chance, worst=worst)
        return pairs.measured(self.code, self.interval, chance=self.chance, worst=worst, note=self.note)


def _counts(pairs: Pairs) -> str:
    genuine = int(pairs.same.sum())
    return f"{genuine:,} genuine and {len(pairs) - genuine:,} impostor pairs of {pairs.shared.people:,} people"


def verify(
    scores: NDArray[Any],
    pairs: Pairs,
    calibrate_scores: NDArray[Any] | None,
    calibrate_pairs: Pairs | None,
    *,
    level: float = 0.95,
    fars: Sequence[float] = FARS,
) -> list[Figure]:
    """AUC, EER, TAR at each FAR and accuracy of scored pairs, with intervals clustered by person.

    The accuracy's threshold is chosen on the calibrate pairs and held fixed; those of EER and TAR move with the people
    of the test pairs, which their intervals hold. Figures of different releases on the same pairs are paired by
    :func:`difference`.

    Args:
        scores: ``(P,)``, higher meaning more alike.
        pairs: The P pairs, of the test split.
        calibrate_scores: ``(Q,)`` scores of the calibrate split's pairs; None leaves accuracy not applicable.
        calibrate_pairs: The Q pairs.
        level: Coverage of the intervals.
        fars: False-accept rates; one with fewer than :data:`IMPOSTORS_AT_FAR` / rate impostor pairs is not applicable.
    """
    impostors = int((~pairs.same).sum())
    chances = {"verification.auc": 0.5, "verification.eer": 0.5}
    chances |= {f"verification.tar_at_far_{far:g}": far for far in fars} | {"verification.accuracy": 0.5}
    missing: dict[str, str] = {}
    for far in fars:
        if impostors * far < IMPOSTORS_AT_FAR * (1 - 1e-9):  # 10,000 x 0.001 may round to less than 10
            needed = f"needs at least {IMPOSTORS_AT_FAR / far:,.0f} impostor pairs, there are {impostors:,}"
            missing[f"verification.tar_at_far_{far:g}"] = needed
    threshold = float("nan")
    if calibrate_scores is not None and calibrate_pairs is not None:
        threshold = metrics.best_threshold(calibrate_scores, calibrate_pairs.same)
    if np.isnan(threshold):
        missing["verification.accuracy"] = "no genuine and impostor pairs of the calibrate split to set a threshold"
    if pairs.shared.people == 2:
        why = f"needs three people, two cannot tell how people vary; there are {_counts(pairs)}"
        missing = dict.fromkeys(chances, why)
    if impostors in (0, len(pairs)):
        missing = dict.fromkeys(chances, f"needs both kinds of pairs, there are {_counts(pairs)}")

    figures: dict[str, Callable[[], tuple[Interval, Floats]]] = {}
    curve: _Curve | None = None
    if len(missing) < len(chances):
        curve = _Curve.of(scores, pairs, level)
        figures = {"verification.auc": curve.auc, "verification.eer": curve.eer}
        figures |= {f"verification.tar_at_far_{far:g}": partial(curve.tar_at_far, far) for far in fars}
        figures["verification.accuracy"] = partial(curve.accuracy, threshold)
        if "verification.accuracy" not in missing and len(np.unique(curve.scores >= threshold)) < 2:
            missing["verification.accuracy"] = "the threshold of the calibrate split takes all pairs for one kind"

    findings = []
    for code, chance in chances.items():
        if code in missing:
            findings.append(
                Figure(code=code, interval=UNDEFINED, n=len(pairs), chance=chance, level=level,
                       status="not_applicable", note=missing[code])
            )  # fmt: skip
            continue
        interval, influence = figures[code]()
        findings.append(
            Figure(code=code, interval=interval, n=len(pairs), chance=chance, level=level, note=_counts(pairs),
                   influence=influence, shared=curve.shared if curve else None)
        )  # fmt: skip
    return findings


@dataclass(frozen=True)
class _Curve:
    """The ROC curve of scored pairs: its figures, each with its interval and the pairs' influence ``(P,)`` on it."""

    scores: Floats
    same: NDArray[np.bool_]
    ranking: metrics.Ranking
    roc: metrics.Roc
    shared: Shared
    level: float

    @staticmethod
    def of(scores: NDArray[Any], pairs: Pairs, level: float) -> _Curve:
        scores = np.asarray(scores, np.float64)
        ranking = metrics.rank(scores, pairs.same)
        return _Curve(scores, pairs.same, ranking, ranking.roc(), pairs.shared, level)

    @property
    def genuine(self) -> int:
        return int(self.same.sum())

    @property
    def impostors(self) -> int:
        return len(self.same) - self.genuine

    def auc(self) -> tuple[Interval, Floats]:
        """Pairs are no more than independent: near 1, where a few decide, the variance seen may be too small."""
        value = self.roc.auc()
        influence = intervals.auc_influence(self.ranking)
        spread = self.shared.spread(influence, twice=True)
        least = intervals.auc_variance(value) / min(self.genuine, self.impostors)
        if spread.variance:
            spread = spread._replace(variance=max(spread.variance, least))
        return intervals.auc_limits(value, spread, self.shared.people, level=self.level), influence

    def eer(self) -> tuple[Interval, Floats]:
        """(dFRR + s dFAR) / (1 + s), s the slope of TAR over FAR: where a weight moves a rate the threshold moves."""
        value = self.roc.eer()
        at = int(np.argmax(self.roc.far + self.roc.tar >= 1))
        accepted, slope = self.scores >= self.roc.thresholds[at], self._slope(value)
        false, missed = slope * self._far(accepted) / (1 + slope), -self._tar(accepted) / (1 + slope)
        part = value / (1 + slope)
        doubted = self._doubted(false, slope * part) + self._doubted(missed, part)
        return self._bounded(value, doubted, twice=True), false + missed

    def tar_at_far(self, far: float) -> tuple[Interval, Floats]:
        """dTAR - s dFAR: what a weight adds to the impostors that are accepted the threshold makes up for."""
        value = self.roc.tar_at_far(far)
        at = int(np.searchsorted(self.roc.far, far, side="right")) - 1
        accepted, slope = self.scores >= self.roc.thresholds[at], self._slope(far)
        true, false = self._tar(accepted), slope * self._far(accepted)
        return self._bounded(value, true - self._doubted(false, slope * far)), true - false

    def accuracy(self, threshold: float) -> tuple[Interval, Floats]:
        """At a threshold held fixed: the mean of two rates, that of genuine and that of impostor pairs."""
        accepted = self.scores >= threshold
        rates = np.array([accepted[self.same].mean(), 1 - accepted[~self.same].mean()])
        influence = (self._tar(accepted) - self._far(accepted)) / 2
        # Everybody is in pairs of both kinds: together they are worth as many trials as there are people.
        rows, people = np.array([self.genuine, self.impostors]), np.full(2, self.shared.people / 2)
        spread = self.shared.spread(influence)
        return intervals.mean_of_rates(float(rates.mean()), rates, rows, people, spread, level=self.level), influence

    def _bounded(self, value: float, influence: Floats, *, twice: bool = False) -> Interval:
        spread = self.shared.spread(influence, twice=twice)
        return intervals.bounded(value, spread, self.shared.people, level=self.level)

    def _doubted(self, influence: Floats, rate: float) -> Floats:
        """The influence on a small rate that a threshold hangs on, enlarged where people are too few to know the rate.

        A rate of relative variance r moves the threshold by more than the linear part that influence tells, the more so
        as r is known little better than the rate. With 1 + r in the variance intervals of 30 people cover
        (docs/results/coverage.md).
        """
        relative = self.shared.spread(influence).variance / rate**2 if rate > 0 else 0.0
        return influence * math.sqrt(1 + relative)

    def _tar(self, accepted: NDArray[np.bool_]) -> Floats:
        """The pairs' influence on the share of genuine pairs accepted."""
        return np.where(self.same, (accepted - accepted[self.same].mean()) / self.genuine, 0.0)

    def _far(self, accepted: NDArray[np.bool_]) -> Floats:
        """The pairs' influence on the share of impostor pairs accepted."""
        return np.where(self.same, 0.0, (accepted - accepted[~self.same].mean()) / self.impostors)

    def _slope(self, far: float) -> float:
        """By how much TAR rises with FAR there: between half and twice its odds, where enough impostors lie."""
        if not 0 < far < 1:
            return 0.0
        below, above = far / (2 - far), 2 * far / (1 + far)
        low, high = np.interp([below, above], self.roc.far, self.roc.tar)
        return float(high - low) / (math.log(4) * far * (1 - far))


def difference(figure: Figure, reference: Figure) -> Interval:
    """The interval of ``figure - reference``, paired pair by pair: what a release costs or gains.

    Both must come from :func:`verify` with the same code and pairs. Where no pair tells them apart, up to as many
    people may as could be missed with luck among those that there are. Undefined where one is not applicable. Raises
    ValueError for figures that cannot be paired.
    """
    if figure.code != reference.code:
        raise ValueError(f"a difference needs two figures of one code, got {figure.code} and {reference.code}")
    if "not_applicable" in (figure.status, reference.status):
        return UNDEFINED
    shared, other = figure.shared, reference.shared
    if (
        shared is None
        or other is None
        or not (np.array_equal(shared.first, other.first) and np.array_equal(shared.second, other.second))
    ):
        raise ValueError(f"the figures of {figure.code} are not of the same pairs")
    value = figure.interval.value - reference.interval.value
    spread = shared.spread(figure.influence - reference.influence, twice=figure.code == "verification.auc")
    if not spread.variance:
        unseen = intervals.wilson(0, shared.people, figure.level).high
        return Interval(value, max(value - unseen, -1.0), min(value + unseen, 1.0))
    return intervals.bounded(value, spread, shared.people, level=figure.level, within=(-1.0, 1.0))


def ten_fold(scores: NDArray[Any], same: NDArray[Any], fold: NDArray[Any], *, level: float = 0.95) -> Figure:
    """Accuracy by LFW's protocol: each of ten folds at the threshold that is best on the other nine; their mean.

    A fold's accuracy is the mean of its true-accept and true-reject rate, which is the protocol's plain accuracy where
    a fold has as many genuine as impostor pairs; folds restricted to the people of one split are uneven. The interval
    is Student's over the ten folds, whose people are disjoint, cut to [0, 1]; where all folds are equally good,
    Wilson's for as many trials as there are pairs of the rarer kind. Not applicable where a fold lacks genuine or
    impostor pairs. Huang et al., "Labeled Faces in the Wild", tech. rep. 07-49, 2007.

    Args:
        scores: ``(P,)``, higher meaning more alike.
        same: ``(P,)`` true for genuine pairs.
        fold: ``(P,)`` number of each pair's fold.
        level: Coverage of the interval.
    """
    same = np.asarray(same).astype(bool)
    names = np.unique(fold)
    genuine = int(same.sum())
    note = f"{genuine:,} genuine and {len(same) - genuine:,} impostor pairs"

    def figure(interval: Interval, status: str, note: str) -> Figure:
        return Figure(
            code="verification.lfw10_accuracy", interval=interval, n=len(same), chance=0.5, level=level,
            status=status, note=note,
        )  # fmt: skip

    if len(names) != FOLDS:
        return figure(UNDEFINED, "not_applicable", f"needs {FOLDS} folds, there are {len(names)} ({note})")
    lacking = [str(name) for name in names if len(set(same[fold == name].tolist())) < 2]
    if lacking:
        why = f"no genuine or no impostor pairs in fold {', '.join(lacking)} ({note})"
        return figure(UNDEFINED, "not_applicable", why)
    accuracies = []
    for name in names:
        inside = fold == name
        threshold = metrics.best_threshold(scores[~inside], same[~inside])
        accuracies.append(metrics.accuracy_at(scores[inside], same[inside], threshold))
    value, deviation = float(np.mean(accuracies)), float(np.std(accuracies, ddof=1))
    if deviation <= 1e-12:
        rarer = min(genuine, len(same) - genuine)
        return figure(intervals.wilson(value * rarer, rarer, level), "ok", note)
    half = intervals.student_quantile(level, FOLDS - 1) * deviation / np.sqrt(FOLDS)
    return figure(Interval(value, max(0.0, value - half), min(1.0, value + half)), "ok", note)
