"""Intervals: Wilson's for one rate, and the percentile bootstrap clustered by person for everything else.

Images of one person are not independent, so the bootstrap draws persons with replacement (Field & Welsh,
"Bootstrapping clustered data", J. R. Stat. Soc. B 69, 2007); an image's weight is the number of times its person was
drawn. The limits are the percentiles of the resampled figures: with G persons (in the smallest class) they are
narrower than they should be by about sqrt((G - 1) / G), and use the normal's instead of Student's quantile: 95 %
intervals of a near-normal mean cover 94.0 % at 40 persons and 94.8 % at 200. BCa would correct skewness, a smaller
matter here, at the price of one evaluation per person.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from veil import metrics
from veil.errors import InputError

Floats = NDArray[np.float64]

BLOCK = 1 << 20
"""Entries of one block of bootstrap weights: bounds the memory at some ten megabytes."""


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
    """t such that Student's t of so many degrees of freedom lies within +-t with probability ``level``."""
    return float(student.ppf((1 + level) / 2, degrees))


def wilson(successes: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval for a rate of independent trials (E. B. Wilson, JASA 22, 1927).

    Raises InputError unless 0 <= successes <= n and n > 0.
    """
    z = normal_quantile(level)
    if not (n > 0 and 0 <= successes <= n):
        raise InputError(f"a rate needs n > 0 and 0 <= successes <= n, got {successes} of {n}")
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At 0 and n successes a limit equals the rate exactly; rounding must not push it past.
    return Interval(p, float(min(p, max(0.0, centre - half))), float(max(p, min(1.0, centre + half))))


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


def drawn_units(groups: NDArray[Any] | None, n: int) -> NDArray[np.intp]:
    """What a bootstrap draws: :func:`units`; of one person alone, who cannot be drawn in other numbers, the rows."""
    unit = units(groups, n)
    return np.arange(n) if n and not unit.any() else unit


def enough(replicates: int, level: float) -> int:
    """At least ``replicates``, and so many that the percentiles of ``level`` do not lie beyond the outermost ones."""
    normal_quantile(level)  # refuses a level out of range
    return max(replicates, math.ceil(2.5 / (1 - level) - 1e-6))


def draws(count: int, *, seed: int, replicates: int) -> Iterator[Floats]:
    """How often each of ``count`` units is drawn, in blocks ``(b, count)`` of in all ``replicates`` replicates.

    Each replicate draws ``count`` units with replacement. The same seed and count give the same replicates, so figures
    of different releases on the same people can be compared replicate by replicate.
    """
    if count < 1 or replicates < 1:
        raise InputError(f"a bootstrap needs at least one unit and one replicate, got {count} and {replicates}")
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK // count)
    for start in range(0, replicates, step):
        rows = min(step, replicates - start)
        drawn = rng.integers(0, count, size=(rows, count))
        drawn += np.arange(rows)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def trials_of(y: NDArray[Any], unit: NDArray[np.intp]) -> float:
    """Z^2 / sum_z 1 / n_z, n_z units showing each of the Z classes: so many trials make the variance of a rate that of
    the balanced accuracy."""
    _, rows = np.unique(np.stack([y, unit]), axis=1, return_index=True)
    shown = np.bincount(np.asarray(y)[rows])
    shown = shown[shown > 0]
    return float(len(shown) ** 2 / np.sum(1 / shown))


def percentile(value: float, replicated: Floats, *, level: float, trials: float | None = None) -> Interval:
    """The percentile interval of the resampled figures ``(R,)``; undefined (NaN) ones are left out.

    It is widened, where need be, to hold ``value``. Resamples of a perfect figure are all perfect, which would claim an
    interval of no width: where all of them equal a value of exactly 0 or 1 and ``trials`` is given, Wilson's limits
    for that many independent trials stand in.
    """
    tail = (1 - level) / 2
    normal_quantile(level)  # refuses a level out of range
    kept = replicated[np.isfinite(replicated)]
    if not np.isfinite(value) or not len(kept):
        return UNDEFINED
    if trials is not None and value in (0.0, 1.0) and bool((kept == value).all()):
        return wilson(value * trials, trials, level)
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Interval(float(value), float(min(low, value)), float(max(high, value)))


def widened(interval: Interval, people: float, *, level: float, to: float) -> Interval:
    """An interval of ``level`` of a figure in [0, 1], stretched to the level ``to`` by Student's quantiles.

    Percentiles of some hundred replicates do not reach as far as 99.9 %, and those of few persons not far enough.

    Args:
        interval: Percentiles of a bootstrap.
        people: Independent units, more than 1.
        level: Its coverage.
        to: The coverage to reach.
    """
    value, low, high = interval
    degrees = max(people - 1, 1.0)
    stretch = student_quantile(to, degrees) / normal_quantile(level) * math.sqrt(people / degrees)
    return Interval(value, max(value - stretch * (value - low), 0.0), min(value + stretch * (high - value), 1.0))


def cluster_bootstrap(
    statistic: Callable[[Floats], float],
    groups: NDArray[Any],
    *,
    seed: int,
    replicates: int = 1000,
    level: float = 0.95,
    trials: float | None = None,
) -> Interval:
    """The interval of any figure of weighted rows, drawing persons with replacement.

    Args:
        statistic: From the rows' weights ``(n,)`` to the figure; NaN where the weights leave it undefined.
        groups: ``(n,)`` identity codes; rows below 0 are units of their own (``np.arange(n)`` if all rows are).
        seed: The same seed and number of persons give the same replicates.
        replicates: Number of resamples.
        level: Coverage aimed at, both sides together.
        trials: As in :func:`percentile`, for a figure in [0, 1].
    """
    unit = drawn_units(groups, len(groups))
    value = statistic(np.ones(len(unit)))
    count = int(unit.max()) + 1 if len(unit) else 0
    blocks = draws(count, seed=seed, replicates=enough(replicates, level))
    resampled = [statistic(weights[unit]) for block in blocks for weights in block]
    return percentile(value, np.array(resampled), level=level, trials=trials)


def rate_interval(
    right: NDArray[Any], groups: NDArray[Any] | None, *, seed: int, level: float = 0.95, replicates: int = 1000
) -> Interval:
    """The mean of ``right`` ``(n,)``, shares in [0, 1], with its interval, clustered by person; rows are the units
    where ``groups`` is None. Where all are 0, or all 1, it has Wilson's limits for as many trials as persons."""
    if not len(right):
        return UNDEFINED
    unit = drawn_units(groups, len(right))
    total, rights = np.bincount(unit).astype(np.float64), np.bincount(unit, weights=right)
    blocks = draws(len(total), seed=seed, replicates=enough(replicates, level))
    resampled = [(block @ rights) / (block @ total) for block in blocks]
    return percentile(float(np.mean(right)), np.concatenate(resampled), level=level, trials=len(total))


def balanced_accuracy_interval(
    y: NDArray[Any],
    predicted: NDArray[Any],
    groups: NDArray[Any] | None,
    *,
    classes: int,
    seed: int,
    level: float = 0.95,
    replicates: int = 1000,
) -> Interval:
    """Balanced accuracy with its interval, clustered by person; the rows are the units where ``groups`` is None.

    Resamples that lack a class are left out where at least half have all; where most lack some, as with many classes of
    few persons, they are averaged over the classes that they have, as in :func:`veil.metrics.balanced_accuracy`. A
    perfect figure (all right or all wrong) has Wilson's limits for as many trials as give its variance.
    """
    value = metrics.balanced_accuracy(y, predicted, classes=classes)
    y = np.asarray(y).astype(np.intp, copy=False)
    if not len(y):
        return UNDEFINED
    unit = drawn_units(groups, len(y))
    count = int(unit.max()) + 1
    # Only (class, person) cells that hold rows, class by class: at most one per row, whatever the number of classes.
    cells, cell = np.unique(y * count + unit, return_inverse=True)
    total = np.bincount(cell, minlength=len(cells)).astype(np.float64)
    right = np.bincount(cell, weights=y == np.asarray(predicted), minlength=len(cells))
    cell_unit = cells % count
    starts = np.flatnonzero(np.diff(cells // count, prepend=-1))  # the first cell of each class present
    resampled, whole = [], []
    for block in draws(count, seed=seed, replicates=enough(replicates, level)):
        drawn = block[:, cell_unit]
        totals = np.add.reduceat(drawn * total, starts, axis=1)
        rights = np.add.reduceat(drawn * right, starts, axis=1)
        present = totals > 0
        recalls = np.divide(rights, totals, out=np.zeros_like(totals), where=present)
        resampled.append(recalls.sum(axis=1) / present.sum(axis=1))
        whole.append(present.all(axis=1))
    found, kept = np.concatenate(resampled), np.concatenate(whole)
    if kept.mean() >= 0.5:
        found = found[kept]
    return percentile(value, found, level=level, trials=trials_of(y, unit))


def mcc_interval(
    y: NDArray[Any],
    predicted: NDArray[Any],
    groups: NDArray[Any] | None,
    *,
    classes: int,
    seed: int,
    level: float = 0.95,
    replicates: int = 1000,
) -> Interval:
    """Matthews' correlation with its interval, clustered by person; see :func:`veil.metrics.mcc`. Resamples of one
    class are left out. A perfect one has the lower limit of a perfect balanced accuracy a, as (Z a - 1) / (Z - 1), to
    which errors spread evenly lead."""
    people = np.arange(len(y)) if groups is None else groups
    y = np.asarray(y)

    def correlation(weights: Floats) -> float:
        seen = y[weights > 0]
        if len(seen) < len(y) and (seen == seen[0]).all():
            return float("nan")
        return metrics.mcc(y, predicted, classes=classes, weights=weights)

    value, low, high = cluster_bootstrap(
        correlation,
        people,
        seed=seed,
        replicates=replicates,
        level=level,
    )
    if value == low == 1:
        trials = trials_of(y, drawn_units(people, len(y)))
        low = (classes * wilson(trials, trials, level).low - 1) / (classes - 1)
    return Interval(value, low, high)


def auc_interval(
    y: NDArray[Any],
    scores: NDArray[Any],
    groups: NDArray[Any] | None,
    *,
    classes: int,
    seed: int,
    level: float = 0.95,
    replicates: int = 1000,
) -> Interval:
    """Macro AUC with its interval, clustered by person; scores as in :func:`veil.metrics.one_vs_rest`. A perfect one
    has the limits of a perfect balanced accuracy."""
    rankings = metrics.one_vs_rest(y, scores, classes=classes)
    people = np.arange(len(y)) if groups is None else groups
    return cluster_bootstrap(
        lambda weights: metrics.mean_auc(rankings, weights),
        people,
        seed=seed,
        replicates=replicates,
        level=level,
        trials=trials_of(y, drawn_units(people, len(y))) if len(y) else None,
    )
