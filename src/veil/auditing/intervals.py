"""Intervals that cover: score intervals whose variance is that between persons.

Images of one person are not independent. Every figure here is a smooth function of sums over rows, so its influence
values, one a row (by how much the figure moves with the row's weight), add up to its error; summed by person, their
squares add up to its variance (the infinitesimal jackknife: Efron, "The jackknife, the bootstrap and other resampling
plans", 1982; for clusters Binder, Int. Stat. Rev. 51, 1983; for an AUC Obuchowski, Biometrics 53, 1997). The limits are
those values that the figure would not contradict, with the variance that it would have *there* (Wilson, JASA 22, 1927):

- A rate p has a variance in proportion to p (1 - p); it counts as so many independent trials as give the variance seen.
- The mean of several classes' rates has the variance of the rates that explain the data best under that mean, each of
  its own number of trials. So a class without an error, and one all wrong, are not certain.
- An AUC has the variance that it has where scores are normal (Hanley & McNeil, Radiology 143, 1982, equation 2), or
  that of a rate where this is larger.

The distance is Student's, of fewer degrees where few persons hold most of the variance. Where nothing varies (no error,
one class named for all, ties alone) persons count as one trial each: no interval is without width.

Percentiles of a bootstrap of persons covered 88 % where they said 95 (100 persons, a rate of 0.98); BCa with a person
jackknife covers no better than these and costs hundreds of evaluations: docs/results/coverage.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri, owens_t
from scipy.stats import t as student

from veil.auditing import metrics
from veil.errors import InputError

Floats = NDArray[np.float64]

_NOTHING = 1e-12
"""Standard error, relative to a figure's range, up to which nothing varies: what is less is rounding."""
_MORE_DEGREES = 6.0
"""Added to the degrees of freedom that the persons' fourth moments show: of few persons they show too few. Settled by
simulation: with 4 to 6 intervals cover; with more they fall short where one or two people in a hundred are mistaken."""


class Interval(NamedTuple):
    """A figure with the limits of its interval; all NaN where the figure is undefined."""

    value: float
    low: float
    high: float


UNDEFINED = Interval(float("nan"), float("nan"), float("nan"))


def normal_quantile(level: float) -> float:
    """z such that a standard normal lies within +-z with probability ``level``; InputError outside (0, 1)."""
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, got {level}")
    return NormalDist().inv_cdf((1 + level) / 2)


def student_quantile(level: float, degrees: float) -> float:
    """t such that Student's t of so many degrees of freedom lies within +-t with probability ``level``.

    InputError outside (0, 1).
    """
    normal_quantile(level)
    return float(student.ppf((1 + level) / 2, degrees))


# Who varies ---------------------------------------------------------------------------------------------------------


def units(groups: NDArray[Any] | None, n: int) -> NDArray[np.intp]:
    """Codes 0..U - 1 of the independent units, ``(n,)``: the persons, or the rows where ``groups`` is None.

    ``groups`` is ``(n,)`` identity codes; each row of unknown identity (below 0) is a unit of its own.
    """
    if groups is None:
        return np.arange(n)
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise InputError(f"groups must have one code for each of the {n} rows, got shape {groups.shape}")
    known = groups >= 0
    names, inverse = np.unique(groups[known], return_inverse=True)
    codes = np.empty(n, dtype=np.intp)
    codes[known] = inverse
    codes[~known] = len(names) + np.arange(n - int(known.sum()))
    return codes


class Spread(NamedTuple):
    """How far a figure moves with the persons.

    Attributes:
        variance: Of the figure; exactly 0 where nothing varies.
        degrees: Degrees of freedom that the variance is known to, at least 1.
    """

    variance: float
    degrees: float


def spread_of(sums: NDArray[Any], welch: float) -> Spread:
    """The spread of a figure from the persons' sums of influence ``(U,)``, already corrected for their small number.

    A variance is known to 2 v^2 / (sum s^4 - v^2 / U) degrees (Satterthwaite, Biometrics Bulletin 2, 1946, with the
    fourth moment that was seen): near U where sums are normal, 2 k where k persons hold all of it. ``welch`` bounds
    them from above.
    """
    variance = float(sums @ sums)
    if math.sqrt(variance) <= _NOTHING:
        return Spread(0.0, max(welch, 1.0))
    squares = np.square(sums)
    excess = float(squares @ squares) - variance * variance / len(sums)
    shown = 2 * variance * variance / excess if excess > 0 else math.inf
    return Spread(variance, max(min(welch, shown + _MORE_DEGREES), 1.0))


@dataclass(frozen=True)
class Persons:
    """The independent units of rows that fall into classes.

    The rows of a class that one unit alone shows are units themselves: one person cannot tell how persons vary.

    Attributes:
        stratum: ``(n,)`` codes 0..Z - 1 of the classes that there are.
        shown: ``(Z,)`` units that show each class.
        trials: ``(Z,)`` as many trials as the rows are worth where all rows of a unit agree, also those of different
            classes; at most ``shown``.
        cell: ``(n,)`` codes 0..C - 1 of the pairs of class and unit that hold rows.
        cell_stratum: ``(C,)`` their classes.
        cell_unit: ``(C,)`` their units.
    """

    stratum: NDArray[np.intp]
    shown: NDArray[np.intp]
    trials: Floats
    cell: NDArray[np.intp]
    cell_stratum: NDArray[np.intp]
    cell_unit: NDArray[np.intp]

    @staticmethod
    def of(groups: NDArray[Any] | None, n: int, y: NDArray[Any] | None = None) -> Persons:
        """From identity codes as in :func:`units` and classes ``(n,)``, or one class; ``n`` > 0."""
        stratum = np.zeros(n, np.intp) if y is None else np.unique(y, return_inverse=True)[1].reshape(n)
        unit = units(groups, n)
        count = int(unit.max()) + 1
        alone = np.bincount(np.unique(stratum * count + unit) // count)[stratum] == 1
        unit = np.unique(np.where(alone, count + np.arange(n), unit), return_inverse=True)[1].reshape(n)
        count = int(unit.max()) + 1
        # Only pairs that hold rows: at most one a row, whatever the number of classes.
        cells, cell, rows = np.unique(stratum * count + unit, return_inverse=True, return_counts=True)
        classes, unit = cells // count, cells % count
        share = rows / np.bincount(stratum)[classes]
        both = (
            np.square(np.bincount(unit, weights=share)).sum() / np.square(share).sum()
        )  # 1 if nobody is in two classes
        trials = 1 / np.bincount(classes, weights=np.square(share)) / both
        return Persons(stratum, np.bincount(classes), trials, cell.reshape(n), classes, unit)

    def together(self) -> float:
        """Z^2 / sum_z 1 / n_z of the trials: so many make the variance of a rate that of the mean of Z rates."""
        return float(len(self.trials) ** 2 / np.sum(1 / self.trials))

    def spread(self, influence: NDArray[Any]) -> Spread:
        """The spread of a figure with influence values ``(n,)``, which add up to 0.

        Squares are taken of a person's sum over all classes, so that errors of one person that cancel do so. A class
        of n_z units gets Bessel's n_z / (n_z - 1); several classes get Welch's degrees of freedom.
        """
        rest = np.maximum(self.shown - 1, 1)
        sums = self._of_cells(influence)
        each = np.bincount(self.cell_stratum, weights=np.square(sums))
        shares = float(np.sum(np.square(each) / rest))
        welch = float(each.sum()) ** 2 / shares if shares > 0 else float(rest.sum())
        return spread_of(np.bincount(self.cell_unit, weights=sums), welch)

    def sums(self, influence: NDArray[Any]) -> Floats:
        """What each unit contributes ``(U,)``, whose squares add up to the variance."""
        return np.bincount(self.cell_unit, weights=self._of_cells(influence)).astype(np.float64)

    def _of_cells(self, influence: NDArray[Any]) -> Floats:
        scale: Floats = np.sqrt(self.shown / np.maximum(self.shown - 1, 1))
        return np.bincount(self.cell, weights=influence).astype(np.float64) * scale[self.cell_stratum]


# Limits -------------------------------------------------------------------------------------------------------------


def wilson(successes: float, n: float, level: float = 0.95, *, quantile: float | None = None) -> Interval:
    """Wilson's score interval for a rate of independent trials (E. B. Wilson, JASA 22, 1927).

    Args:
        successes: Of them; any real number.
        n: Trials; any real number above 0.
        level: Coverage aimed at, both sides together.
        quantile: Standard errors to either side, in place of the normal's at ``level``.

    Raises:
        InputError: Unless 0 <= successes <= n and n > 0.
    """
    z = normal_quantile(level) if quantile is None else quantile
    if not (n > 0 and 0 <= successes <= n):
        raise InputError(f"a rate needs n > 0 and 0 <= successes <= n, got {successes} of {n}")
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At 0 and n successes a limit equals the rate exactly; rounding must not push it past.
    return Interval(p, float(min(p, max(0.0, centre - half))), float(max(p, min(1.0, centre + half))))


def bounded(
    value: float, spread: Spread, people: float, *, level: float, within: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """The interval of a figure that lies ``within`` bounds: Wilson's, of as many trials as give the variance.

    Where nothing varies, or the figure is at a bound, there is a trial for each of ``people``.
    """
    least, width = within[0], within[1] - within[0]
    p = min(max((value - least) / width, 0.0), 1.0)
    variance = spread.variance / width**2
    if variance > _NOTHING**2 and _NOTHING < p < 1 - _NOTHING:
        trials = p * (1 - p) / variance
        limits = wilson(p * trials, trials, quantile=student_quantile(level, spread.degrees))
    else:
        limits = wilson(p * people, people, level)
    low, high = (least + width * limit for limit in limits[1:])
    return Interval(value, min(low, value), max(high, value))


def _mean_no_less(rates: Floats, trials: Floats, quantile: float) -> float:
    """The lower score limit of the mean of independent rates ``(Z,)``, each of so many trials ``(Z,)``.

    Under a mean m < the rates' own, the likeliest rates p satisfy n (r - p) = v p (1 - p) for one multiplier v > 0, so
    v leads from the rates seen to 0; the limit is where (sum r - p)^2 = quantile^2 sum p (1 - p) / n.
    """
    if not rates.any():
        return 0.0

    def likeliest(log_v: float) -> Floats:
        v = math.exp(log_v)
        root = np.sqrt(np.maximum(np.square(trials + v) - 4 * v * trials * rates, 0))
        p: Floats = np.minimum(2 * trials * rates / (trials + v + root), rates)
        return p

    def excess(log_v: float) -> float:
        p = likeliest(log_v)
        error = math.sqrt(float((p * (1 - p) / trials).sum()))
        return (float((rates - p).sum()) / error if error > 0 else 0.0) - quantile

    return float(likeliest(brentq(excess, math.log(trials.min()) - 20, math.log(trials.max()) + 20)).mean())


def mean_of_rates(
    value: float, rates: Floats, rows: Floats, people: Floats, spread: Spread, *, level: float
) -> Interval:
    """The interval of the mean of several classes' rates.

    Each class counts as its rows over the design effect: the variance seen, over that of independent rows; with
    Student's quantile, for the effect is estimated. But no class counts for less than its people, who are independent:
    the nearer limit holds. Where nothing varies that is what remains.

    Args:
        value: The mean.
        rates: ``(Z,)``.
        rows: ``(Z,)`` rows of each class.
        people: ``(Z,)`` people of each class, as trials (see :class:`Persons`); of one the spread says nothing.
        spread: Of the mean.
        level: Coverage aimed at.
    """

    def limits(trials: Floats, quantile: float) -> tuple[float, float]:
        return _mean_no_less(rates, trials, quantile), 1 - _mean_no_less(1 - rates, trials, quantile)

    low, high = limits(people, normal_quantile(level))
    independent = float(np.sum(rates * (1 - rates) / rows, where=people > 1)) / len(rates) ** 2
    if spread.variance > 0 and independent > 0:
        nearer = limits(rows * (independent / spread.variance), student_quantile(level, spread.degrees))
        low, high = max(low, nearer[0]), min(high, nearer[1])
    return Interval(value, min(low, value), max(high, value))


def auc_variance(auc: float) -> float:
    """The variance of an AUC of normal scores, times trials of the rarer side where the other is plenty; in [0, 1/12].

    P(two pairs that share a row are both in order) - auc^2: with D = the normal quantile of the AUC, the pairs'
    differences are normal of mean D and correlation 1 / 2, so by Owen's function auc - 2 T(D, 1 / sqrt(3)) - auc^2.
    """
    d = float(ndtri(auc))
    return max(auc - auc * auc - 2 * float(owens_t(d, 3**-0.5)), 0.0) if math.isfinite(d) else 0.0


def auc_limits(value: float, spread: Spread, trials: float, *, level: float, rarer: float | None = None) -> Interval:
    """The interval of an AUC: the values at most Student's quantile of standard errors away, errors as they are there.

    From the variance seen at ``value`` it grows towards 1 / 2 as that of normal scores does, and falls towards the
    nearer bound only as that of a rate does, for few rows may hide how unlike scores are. Where nothing varies, it is
    that of normal scores of two classes of ``trials / 2`` independent rows each.

    Args:
        value: The AUC.
        spread: Its own.
        trials: Independent rows.
        level: Coverage aimed at.
        rarer: Independent rows of the rarer class: no AUC varies more than a rate of so many trials (Birnbaum & Klose,
            Ann. Math. Stat. 28, 1957), so the limits are no farther than such a rate's.
    """
    here, rate = auc_variance(value), value * (1 - value)
    seen, normal = spread.variance > 0 and here > 0, normal_quantile(level)
    quantile = student_quantile(level, spread.degrees) if seen else normal

    def reach(auc: float) -> float:
        """Squared distance at which the value seen would contradict this one."""
        there, most = auc_variance(auc), normal**2 * auc * (1 - auc) / rarer if rarer else math.inf
        if not seen:
            return min(quantile**2 * there * 4 / trials, most)
        return min(quantile**2 * spread.variance * max(there / here, auc * (1 - auc) / rate), most)

    def limit(end: float) -> float:
        inside, outside = value, end
        for _ in range(64):
            middle = (inside + outside) / 2
            if (value - middle) ** 2 <= reach(middle):
                inside = middle
            else:
                outside = middle
        return inside

    return Interval(value, limit(0.0), limit(1.0))


def positive(value: float, spread: Spread, people: float, *, level: float) -> Interval:
    """The interval of a ratio of variances, at least 0 and without a bound: Student's, of its logarithm.

    Where nothing varies, a variance has the standard error that it has of so many normal values. Of a ratio of 0 only
    the upper limit says something, and that without the logarithm.
    """
    error, degrees = math.sqrt(spread.variance), spread.degrees
    if not error:
        error, degrees = (value or 1.0) * math.sqrt(2 / max(people - 1, 1)), max(people - 1, 1.0)
    reach = student_quantile(level, degrees) * error
    if value <= 0:
        return Interval(value, value, value + reach)
    return Interval(value, value * math.exp(-reach / value), value * math.exp(reach / value))


# Figures ------------------------------------------------------------------------------------------------------------


def rate_interval(
    values: NDArray[Any],
    groups: NDArray[Any] | None,
    *,
    level: float = 0.95,
    within: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """The mean of ``values`` ``(n,)``, which lie ``within`` bounds, with its interval, clustered by person.

    Rows are the units where ``groups`` is None.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        return UNDEFINED
    least, width = within[0], within[1] - within[0]
    persons = Persons.of(groups, len(values))
    value = float(np.mean(values))
    shares = np.clip((values - least) / width, 0, 1)
    rate, rows = float(shares.mean()), np.array([float(len(values))])
    spread = persons.spread((shares - rate) / len(values))
    _, low, high = mean_of_rates(rate, np.array([rate]), rows, persons.trials, spread, level=level)
    return Interval(value, min(least + width * low, value), max(least + width * high, value))


def balanced_accuracy_interval(
    y: NDArray[Any], predicted: NDArray[Any], groups: NDArray[Any] | None, *, classes: int, level: float = 0.95
) -> Interval:
    """Balanced accuracy with its interval, clustered by person; the rows are the units where ``groups`` is None.

    See :func:`veil.auditing.metrics.balanced_accuracy` and :func:`mean_of_rates`.
    """
    value = metrics.balanced_accuracy(y, predicted, classes=classes)
    if not len(y):
        return UNDEFINED
    persons = Persons.of(groups, len(y), y)
    rows = np.bincount(persons.stratum).astype(np.float64)
    recalls, influence = _recalls(y, predicted, persons)
    return mean_of_rates(value, recalls, rows, persons.trials, persons.spread(influence), level=level)


def balanced_accuracy_sums(y: NDArray[Any], predicted: NDArray[Any], groups: NDArray[Any] | None) -> Floats:
    """What each person contributes to a balanced accuracy ``(U,)``, of at least one row."""
    persons = Persons.of(groups, len(y), y)
    return persons.sums(_recalls(y, predicted, persons)[1])


def _recalls(y: NDArray[Any], predicted: NDArray[Any], persons: Persons) -> tuple[Floats, Floats]:
    """The recall of each class ``(Z,)``, and by how much each row ``(n,)`` moves their mean."""
    right = np.asarray(y) == np.asarray(predicted)
    rows = np.bincount(persons.stratum).astype(np.float64)
    recalls = np.bincount(persons.stratum, weights=right) / rows
    return recalls, (right - recalls[persons.stratum]) / (rows[persons.stratum] * len(rows))


def mcc_interval(
    y: NDArray[Any], predicted: NDArray[Any], groups: NDArray[Any] | None, *, classes: int, level: float = 0.95
) -> Interval:
    """Matthews' correlation with its interval, clustered by person; see :func:`veil.auditing.metrics.mcc`."""
    value = metrics.mcc(y, predicted, classes=classes)
    n = len(y)
    if not n:
        return UNDEFINED
    persons = Persons.of(groups, n, y)
    y, predicted = np.asarray(y).astype(np.intp, copy=False), np.asarray(predicted).astype(np.intp, copy=False)
    t, p = (np.bincount(codes, minlength=classes) / n for codes in (y, predicted))
    # (c - p t) / sqrt((1 - p p) (1 - t t)), differentiated by the weight of each row.
    mixed, said, true = float(p @ t), 1 - float(p @ p), 1 - float(t @ t)
    influence = np.zeros(n)
    if said * true > _NOTHING**2:
        right = y == predicted
        moved = right - right.mean() - (p[y] - mixed) - (t[predicted] - mixed)
        narrowed = (1 - said - p[predicted]) / said + (1 - true - t[y]) / true
        influence = (moved / math.sqrt(said * true) - value * narrowed) / n
    return bounded(value, persons.spread(influence), persons.together(), level=level, within=(-1.0, 1.0))


def auc_interval(
    y: NDArray[Any], scores: NDArray[Any], groups: NDArray[Any] | None, *, classes: int, level: float = 0.95
) -> Interval:
    """Macro AUC with its interval, clustered by person; scores as in :func:`veil.auditing.metrics.one_vs_rest`.

    A class of one row alone shows no variance: it gets that of normal scores.
    """
    rankings = [r for r in metrics.one_vs_rest(y, scores, classes=classes) if 0 < r.genuine.sum() < len(r.genuine)]
    if not rankings:
        return UNDEFINED
    value = metrics.mean_auc(rankings)
    persons = Persons.of(groups, len(y), y)
    spread = persons.spread(_auc_influences(rankings))
    unseen = int((persons.shown == 1).sum()) * auc_variance(value) / len(rankings) ** 2
    return auc_limits(
        value, spread._replace(variance=spread.variance + unseen), persons.together(), level=level,
        rarer=float(persons.trials.min()),
    )  # fmt: skip


def auc_sums(y: NDArray[Any], scores: NDArray[Any], groups: NDArray[Any] | None, *, classes: int) -> Floats | None:
    """What each person contributes to a macro AUC ``(U,)``; None where there is none."""
    rankings = [r for r in metrics.one_vs_rest(y, scores, classes=classes) if 0 < r.genuine.sum() < len(r.genuine)]
    return Persons.of(groups, len(y), y).sums(_auc_influences(rankings)) if rankings else None


def _auc_influences(rankings: Sequence[metrics.Ranking]) -> Floats:
    """By how much each row ``(n,)`` moves the mean AUC of rankings of the same rows."""
    influence: Floats = np.mean([auc_influence(ranking) for ranking in rankings], axis=0)
    return influence


def entropy_interval(codes: NDArray[Any], groups: NDArray[Any] | None, *, most: float, level: float = 0.95) -> Interval:
    """Bits of entropy of ``codes`` ``(n,)``, at most ``most``, with its interval, clustered by person.

    A sample lacks rare codes: its entropy is too low by half the sum of var p / p over the codes, on average (Miller,
    "Note on the bias of information estimates", 1955, for clusters). The interval lies about the figure without that,
    and is as unsure of it as it is large.
    """
    n = len(codes)
    if not n:
        return UNDEFINED
    _, code = np.unique(codes, return_inverse=True)
    code = code.reshape(n)
    persons = Persons.of(groups, n)
    p = np.bincount(code) / n
    value = min(max(float(-(p @ np.log2(p))), 0.0), most)
    spread = persons.spread((-np.log2(p[code]) - value) / n)
    if not spread.variance:
        return bounded(value, spread, persons.together(), level=level, within=(0.0, most))
    cells, count = np.unique(persons.cell * len(p) + code, return_counts=True)
    squares = np.sum(np.square(count) / p[cells % len(p)]) - np.sum(np.square(np.bincount(persons.cell)))
    missed = max(float(squares), 0.0) / n**2 / (2 * math.log(2))
    reach = student_quantile(level, spread.degrees) * math.sqrt(spread.variance + missed**2)
    low, high = (min(max(value + missed + side, 0.0), most) for side in (-reach, reach))
    return Interval(value, min(low, value), max(high, value))


def auc_influence(ranking: metrics.Ranking) -> Floats:
    """By how much the AUC of a ranking moves with each of its rows ``(n,)``, in the rows' order.

    A row's share of the other side that it is in order with, less the AUC, over the rows of its side (DeLong, DeLong &
    Clarke-Pearson, Biometrics 44, 1988).
    """
    placed = ranking.placements()
    genuine = np.empty(len(placed), bool)
    genuine[ranking.order] = ranking.genuine > 0
    number = np.where(genuine, genuine.sum(), (~genuine).sum())
    influence: Floats = (placed - placed[genuine].mean()) / number
    return influence
