from __future__ import annotations

import time
from collections.abc import Callable
from math import log, sqrt
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr, ndtri

from veil.auditing import intervals, metrics
from veil.auditing.intervals import Interval, Persons, Spread
from veil.errors import InputError


def people(seed: int, count: int = 80, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions and persons: each person has one class, 1 to 8 images and an own rate of Beta, mean 0.6."""
    r = np.random.default_rng(seed)
    images = r.integers(1, 9, count)
    rate = r.beta(0.6 * spread, 0.4 * spread, count)
    group = np.repeat(np.arange(count), images)
    y = group % 2
    right = r.random(len(group)) < rate[group]
    return y, np.where(right, y, 1 - y), group


def slopes(figure: Callable[[np.ndarray], float], n: int) -> np.ndarray:
    """By how much a figure of weighted rows moves with each row's weight, by differences."""
    step, once = 1e-6, figure(np.ones(n))
    return np.array([(figure(np.ones(n) + step * (np.arange(n) == row)) - once) / step for row in range(n)])


# Wilson's, and who varies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_published_limits(successes: int, n: int, low: float, high: float) -> None:
    # Newcombe, Statistics in Medicine 17, 1998, table I, method 3; four digits.
    found = intervals.wilson(successes, n)
    assert found.value == successes / n
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    mirrored = intervals.wilson(n - successes, n)
    assert (mirrored.low, mirrored.high) == (pytest.approx(1 - high, abs=5e-5), pytest.approx(1 - low, abs=5e-5))


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_rate(successes: int, n: int) -> None:
    with pytest.raises(InputError, match=f"got {successes} of {n}"):
        intervals.wilson(successes, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_levels_outside_0_1_are_refused(level: float) -> None:
    with pytest.raises(InputError, match="level must lie between 0 and 1"):
        intervals.wilson(1, 2, level)
    with pytest.raises(InputError, match="level must lie between 0 and 1"):
        intervals.rate_interval(np.arange(4) % 2, None, level=level)


@pytest.mark.parametrize(("level", "expected"), [(0.9, 1.833113), (0.95, 2.262157), (0.99, 3.249836)])
def test_students_quantile_of_nine_degrees(level: float, expected: float) -> None:
    assert intervals.student_quantile(level, 9) == pytest.approx(expected, abs=1e-6)


def test_units_are_persons_and_unknown_rows_their_own() -> None:
    codes = intervals.units(np.array([7, 3, -1, 7, -1]), 5)
    assert codes.tolist() == [1, 0, 2, 1, 3]
    assert intervals.units(None, 3).tolist() == [0, 1, 2]
    assert intervals.units(np.array([-1, -1]), 2).tolist() == [0, 1]
    with pytest.raises(InputError, match=r"each of the 3 rows, got shape \(2,\)"):
        intervals.units(np.zeros(2), 3)


def test_rows_of_a_class_that_one_person_alone_shows_are_units() -> None:
    # Person 0 is in both classes, and alone in class 1, with two rows.
    persons = Persons.of(np.array([0, 0, 0, 1, 1]), 5, np.array([1, 1, 0, 0, 0]))
    assert persons.shown.tolist() == [2, 2]
    # Person 0's sum in class 0 is the negative of person 1's, each times sqrt(2 / 1); the two rows likewise.
    spread = persons.spread(np.array([0.3, -0.3, 0.1, -0.05, -0.05]))
    assert spread.variance == pytest.approx(2 * (0.3**2 + 0.3**2) + 2 * (0.1**2 + 0.1**2))


def test_people_of_several_classes_are_worth_fewer_trials() -> None:
    group = np.repeat(np.arange(20), 4)
    apart = Persons.of(group, 80, (group >= 8).astype(int))
    assert apart.trials == pytest.approx([8, 12])
    assert apart.together() == pytest.approx(4 / (1 / 8 + 1 / 12))
    # Where everybody is in both classes and all of a person's images agree there are twenty trials, not forty.
    both = Persons.of(group, 80, np.arange(80) % 2)
    assert both.shown.tolist() == [20, 20]
    assert both.trials == pytest.approx([10, 10])


def test_errors_of_one_person_that_cancel_do_so() -> None:
    # Everybody has two rows of each class and is always said to be of one: what one class gains the other loses.
    group, y = np.repeat(np.arange(20), 4), np.tile([0, 0, 1, 1], 20)
    said = (np.random.default_rng(0).random(20) < 0.5).astype(int)[group]
    persons = Persons.of(group, 80, y)
    right = said == y
    recalls = np.array([right[y == z].mean() for z in (0, 1)])
    assert persons.spread((right - recalls[y]) / 80).variance == 0
    assert persons.spread(np.where(y == 0, right - recalls[0], 0) / 40).variance > 0


def test_few_persons_that_hold_the_variance_leave_few_degrees() -> None:
    # Satterthwaite: 2 k degrees where k of many persons are alike and the others nothing; plus six.
    sums = np.zeros(10_000)
    sums[:5] = 1
    assert intervals.spread_of(sums, np.inf).degrees == pytest.approx(10 + 6, rel=1e-3)
    normal = np.random.default_rng(0).standard_normal(4000)
    # The sample kurtosis of 4,000 normal values has a standard error of sqrt(24 / 4000), so 1 / (kurtosis - 1) of
    # half that, 4 %.
    assert intervals.spread_of(normal, np.inf).degrees == pytest.approx(4000, rel=4 * 0.04)
    assert intervals.spread_of(normal, 17).degrees == 17


# Limits --------------------------------------------------------------------------------------------------------------


def by_search(rates: list[float], trials: list[float], quantile: float) -> float:
    """The lowest mean of two rates that is not contradicted: for each mean the likeliest rates among 4,000 pairs."""

    def likelihood(rate: float, n: float, p: np.ndarray) -> np.ndarray:
        return n * (rate * np.log(p) + (1 - rate) * np.log1p(-p))

    means = np.linspace(0.002, sum(rates) / 2, 500)
    for mean in means:
        a = np.linspace(max(0.0, 2 * mean - 1), min(1.0, 2 * mean), 4002)[1:-1]
        b = 2 * mean - a
        best = np.argmax(likelihood(rates[0], trials[0], a) + likelihood(rates[1], trials[1], b))
        errors = [p[best] * (1 - p[best]) / n for p, n in zip((a, b), trials, strict=True)]
        if sum(rates) / 2 - mean <= quantile * sqrt(sum(errors)) / 2:
            return float(mean)
    return float(means[-1])


@pytest.mark.parametrize(
    ("rates", "trials"),
    [([0.9, 0.6], [20, 50]), ([1.0, 1.0], [5, 40]), ([1.0, 0.0], [15, 15]), ([1.0, 0.8], [8, 90])],
)
def test_limits_of_a_mean_of_rates_are_those_of_the_likeliest_rates(rates: list[float], trials: list[float]) -> None:
    value, nothing = sum(rates) / 2, Spread(0.0, 1.0)
    found = intervals.mean_of_rates(value, np.array(rates), np.array(trials), np.array(trials), nothing, level=0.95)
    assert found.low == pytest.approx(by_search(rates, trials, 1.96), abs=4e-3)  # the search is 1 / 500 fine
    assert found.high == pytest.approx(1 - by_search([1 - r for r in rates], trials, 1.96), abs=4e-3)


def test_the_mean_of_one_classs_rate_is_wilsons() -> None:
    y, predicted, group = people(3)
    right = (y == predicted).astype(float)
    rate = intervals.rate_interval(right, group)
    same = intervals.balanced_accuracy_interval(np.zeros(len(y), int), 1 - right, group, classes=2)
    assert rate == pytest.approx(same, abs=1e-9)
    half = intervals.rate_interval(np.full(4, 0.5), None)
    assert half == pytest.approx(intervals.wilson(2, 4))
    even = intervals.rate_interval(np.ones(320), np.repeat(np.arange(80), 4))
    assert even == pytest.approx(intervals.wilson(80, 80), abs=1e-9)
    # People with 1 to 8 images each are worth fewer trials: that of many images counts for more.
    images = np.bincount(group)
    worth = images.sum() ** 2 / np.square(images).sum()
    assert 55 < worth < 75
    assert intervals.rate_interval(np.ones(len(y)), group) == pytest.approx(intervals.wilson(worth, worth), abs=1e-9)
    assert intervals.rate_interval(np.ones(0), None) is intervals.UNDEFINED


def test_two_perfect_classes_of_equal_size_are_one_of_twice_the_size() -> None:
    y, group = np.repeat([0, 1], 60), np.repeat(np.arange(30), 4)
    for said, right in ((y, 30), (1 - y, 0)):
        found = intervals.balanced_accuracy_interval(y, said, group, classes=2)
        assert found == pytest.approx(intervals.wilson(right, 30), abs=1e-9)


def test_one_class_named_for_everybody_is_not_certain() -> None:
    # Issue: "50.0 % (interval 50.0 - 50.0 %)". Each class's rate is known as well as 15 people can tell.
    y, group = np.repeat([0, 1], 60), np.repeat(np.arange(30), 4)
    value, low, high = intervals.balanced_accuracy_interval(y, np.zeros(120, int), group, classes=2)
    assert value == 0.5
    assert low == pytest.approx(intervals.wilson(15, 15).low / 2, abs=1e-9)
    assert high == pytest.approx(1 - low, abs=1e-9)


def test_a_figure_within_bounds_moves_with_them() -> None:
    y, predicted, group = people(4)
    shares = np.where(y == predicted, 0.9, 0.2)
    _, low, high = intervals.rate_interval(shares, group)
    moved = intervals.rate_interval(10 + 5 * shares, group, within=(10, 15))
    assert (moved.low, moved.high) == pytest.approx((10 + 5 * low, 10 + 5 * high))
    wide = intervals.rate_interval(shares, group, within=(-1000, 1000))
    spread = Persons.of(group, len(y)).spread((shares - shares.mean()) / len(y))
    reach = intervals.student_quantile(0.95, spread.degrees) * sqrt(spread.variance)
    assert (wide.low, wide.high) == pytest.approx((wide.value - reach, wide.value + reach), abs=1e-4)  # far from both


@pytest.mark.parametrize("auc", [0.03, 0.5, 0.7, 0.98, 0.9999])
def test_the_variance_of_an_auc_is_that_of_normal_scores(auc: float) -> None:
    shift = sqrt(2) * float(ndtri(auc))
    both, _ = quad(lambda z: np.exp(-z * z / 2) / sqrt(2 * np.pi) * ndtr(z + shift) ** 2, -12, 12, epsabs=1e-13)
    assert intervals.auc_variance(auc) == pytest.approx(both - auc * auc, rel=1e-6, abs=1e-12)


def test_limits_of_an_auc_are_as_far_away_as_students_quantile_says() -> None:
    for value, inner, outer in ((0.9, 1, 2), (0.1, 2, 1)):
        found = intervals.auc_limits(value, Spread(0.02**2, 12.0), 30, level=0.95)
        t = intervals.student_quantile(0.95, 12)
        normal = intervals.auc_variance(found[inner]) / intervals.auc_variance(value)
        rate = found[outer] * (1 - found[outer]) / (value * (1 - value))
        assert abs(found[inner] - value) == pytest.approx(t * 0.02 * sqrt(normal), rel=1e-9)
        assert abs(found[outer] - value) == pytest.approx(t * 0.02 * sqrt(rate), rel=1e-9)
        assert abs(found[outer] - value) < abs(found[inner] - value)  # there is less room


def test_limits_are_no_farther_than_of_people_whose_images_agree() -> None:
    # One person of forty holds all variance: Student's quantile of eight degrees at 99.9 % is 5.04, and Wilson's limits
    # of forty trials are nearer.
    group, wrong = np.repeat(np.arange(40), 4), np.repeat(np.arange(40) == 0, 4)
    found = intervals.rate_interval(~wrong, group, level=0.999)
    assert found == pytest.approx(intervals.wilson(39, 40, 0.999), abs=1e-9)
    spread = Spread(0.03**2, 6.0)
    far, near = (intervals.auc_limits(0.95, spread, 40, level=0.999, rarer=rarer) for rarer in (None, 20))
    assert far.low < 0.5 < near.low
    # No AUC varies more than a rate of as many trials as the rarer class has people.
    z = intervals.normal_quantile(0.999)
    assert 0.95 - near.low == pytest.approx(z * sqrt(near.low * (1 - near.low) / 20), rel=1e-9)
    assert near.high <= far.high


def test_a_ratio_has_limits_on_the_scale_of_its_logarithm() -> None:
    _, low, high = intervals.positive(2.0, Spread(0.09, 9.0), 10, level=0.95)
    assert (low, high) == pytest.approx((2 * np.exp(-2.262157 * 0.15), 2 * np.exp(2.262157 * 0.15)), rel=1e-6)
    assert intervals.positive(0.0, Spread(0.09, 9.0), 10, level=0.95) == pytest.approx((0, 0, 2.262157 * 0.3))


# Figures -------------------------------------------------------------------------------------------------------------


def test_intervals_are_made_of_the_figures_slopes() -> None:
    r = np.random.default_rng(0)
    n, group = 150, r.integers(0, 25, 150)
    y = r.integers(0, 3, n)
    predicted = np.where(r.random(n) < 0.5, y, r.integers(0, 3, n))
    scores = np.round(r.normal(size=(n, 3)) + np.eye(3)[y], 1)  # with ties
    persons, rows = Persons.of(group, n, y), np.bincount(y).astype(float)
    recalls = np.array([(predicted[y == z] == z).mean() for z in range(3)])

    def spread(figure: Callable[[np.ndarray], float]) -> tuple[float, Spread]:
        return figure(np.ones(n)), persons.spread(slopes(figure, n))

    value, of_recalls = spread(lambda w: metrics.balanced_accuracy(y, predicted, classes=3, weights=w))
    expected = intervals.mean_of_rates(value, recalls, rows, persons.trials, of_recalls, level=0.9)
    found = intervals.balanced_accuracy_interval(y, predicted, group, classes=3, level=0.9)
    assert found == pytest.approx(expected, abs=1e-6)
    value, of_areas = spread(lambda w: metrics.macro_auc(y, scores, classes=3, weights=w))
    expected = intervals.auc_limits(value, of_areas, 30, level=0.9)
    assert intervals.auc_interval(y, scores, group, classes=3, level=0.9) == pytest.approx(expected, abs=1e-6)
    value, of_mcc = spread(lambda w: metrics.mcc(y, predicted, classes=3, weights=w))
    expected = intervals.bounded(value, of_mcc, 30, level=0.9, within=(-1, 1))
    assert intervals.mcc_interval(y, predicted, group, classes=3, level=0.9) == pytest.approx(expected, abs=1e-6)


def test_without_groups_the_rows_are_the_units() -> None:
    y, predicted, _ = people(1)
    each, scores = np.arange(len(y)), np.eye(2)[predicted]
    for interval, given in (
        (intervals.balanced_accuracy_interval, predicted),
        (intervals.auc_interval, scores),
        (intervals.mcc_interval, predicted),
    ):
        assert interval(y, given, None, classes=2) == interval(y, given, each, classes=2)


def test_copies_of_an_image_add_no_certainty() -> None:
    y, predicted, _ = people(2, count=60)
    n = len(y)
    once = intervals.balanced_accuracy_interval(y, predicted, np.arange(n), classes=2)
    again = np.repeat(np.arange(n), 10)
    clustered = intervals.balanced_accuracy_interval(y[again], predicted[again], again, classes=2)
    assert clustered == pytest.approx(once, abs=1e-9)
    naive = intervals.balanced_accuracy_interval(y[again], predicted[again], None, classes=2)
    # Ten times the rows: sqrt(10) times too narrow, up to Wilson's z^2 / n, for 130 rows of a class 3 %.
    assert (once.high - once.low) / (naive.high - naive.low) == pytest.approx(sqrt(10), rel=0.03)


def test_a_class_of_one_image_leaves_an_auc_unsure() -> None:
    y, group = np.array([1] + [0] * 40), np.arange(41)
    scores = np.concatenate([[0.5], np.linspace(-1, 1, 40)])
    value, low, high = intervals.auc_interval(y, scores, group, classes=2)
    assert value == 0.75
    assert high - low > 0.7  # one image is in the middle third of what an image may score, or it is not


@pytest.mark.parametrize("count", range(14, 60, 4))
def test_rounding_does_not_hide_that_an_auc_is_perfect(count: int) -> None:
    r = np.random.default_rng(count)
    y, who = np.arange(count) % 2, np.arange(count)
    for scores, value in ((y + 0.5 * r.random(count), 1), (-y - 0.5 * r.random(count), 0)):
        found = intervals.auc_interval(y, scores, who, classes=2)
        expected = intervals.auc_limits(value, Spread(0.0, 1.0), count, level=0.95, rarer=count / 2)
        assert found == pytest.approx(expected, abs=1e-9)
        assert found.high - found.low > 1 / count


def test_an_entropy_is_thought_larger_than_a_small_sample_shows() -> None:
    r = np.random.default_rng(0)
    codes = r.integers(0, 8, 60)
    value, low, high = intervals.entropy_interval(codes, None, most=3.0)
    p = np.bincount(codes) / 60
    assert value == pytest.approx(-float(p @ np.log2(p)))
    assert high == 3.0
    # Miller: (K - 1) / (2 n ln 2) bits too low. Both limits lie about the figure and that.
    spread = Persons.of(None, 60).spread((-np.log2(p[codes]) - value) / 60)
    missed = 7 / (2 * 60 * log(2))
    reach = intervals.student_quantile(0.95, spread.degrees) * sqrt(spread.variance + missed**2)
    assert low == pytest.approx(value + missed - reach, abs=1e-9)
    once = intervals.entropy_interval(np.repeat(codes, 5), np.repeat(np.arange(60), 5), most=3.0)
    assert once == pytest.approx((value, low, high), abs=1e-9)  # copies add nothing


def test_undefined_figures_have_undefined_intervals() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert all(np.isnan(intervals.balanced_accuracy_interval(nothing, nothing, None, classes=2)))
    assert all(np.isnan(intervals.mcc_interval(nothing, nothing, None, classes=2)))
    assert all(np.isnan(intervals.entropy_interval(nothing, None, most=1)))
    y = np.zeros(5, dtype=np.int64)
    assert all(np.isnan(intervals.auc_interval(y, np.zeros((5, 2)), None, classes=2)))


# No interval is without width ----------------------------------------------------------------------------------------

LABELS: dict[str, tuple[Any, Any]] = {  # labels and people
    "one image": ([0], [0]),
    "one person": ([0, 1, 0, 1], [3, 3, 3, 3]),
    "one class": ([1] * 12, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]),
    "one image of each class": ([0, 1, 2], [0, 1, 2]),
    "one person of one class": ([0] * 9 + [1], [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]),
    "two people": ([0, 0, 1, 1], [0, 0, 1, 1]),
    "nobody known": ([0, 1] * 8, [-1] * 16),
    "many people": ([0] * 600 + [1] * 400, np.repeat(np.arange(250), 4)),
    "classes of one person each": (np.repeat(np.arange(20), 3), np.repeat(np.arange(20), 3)),
}
ATTACKS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "always right": lambda y, classes: y,
    "always wrong": lambda y, classes: (y + 1) % classes,
    "one class": lambda y, classes: np.zeros_like(y),
    "another": lambda y, classes: np.full_like(y, classes - 1),
    "every other right": lambda y, classes: (y + np.arange(len(y)) % 2) % classes,
    "the last wrong": lambda y, classes: (y + (np.arange(len(y)) == len(y) - 1)) % classes,
}


def has_width(found: Interval, least: float = 0.0, most: float = 1.0) -> None:
    assert least <= found.low <= found.value <= found.high <= most, found
    assert found.high - found.low > 1e-4, found  # an interval of 1,000 images at least


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("labels", LABELS)
def test_no_interval_is_without_width(labels: str, attack: str, level: float) -> None:
    y, group = (np.asarray(values) for values in LABELS[labels])
    classes = max(int(y.max()) + 1, 2)
    predicted = ATTACKS[attack](y, classes)
    has_width(intervals.balanced_accuracy_interval(y, predicted, group, classes=classes, level=level))
    has_width(intervals.mcc_interval(y, predicted, group, classes=classes, level=level), -1)
    has_width(intervals.rate_interval(y == predicted, group, level=level))
    has_width(intervals.rate_interval(20.0 * predicted / classes, group, level=level, within=(0, 60)), 0, 60)
    has_width(intervals.entropy_interval(predicted, group, most=np.log2(classes), level=level), 0, np.log2(classes))
    if len(np.unique(y)) > 1:  # certain of the prediction, or the same for everybody
        has_width(intervals.auc_interval(y, np.eye(classes)[predicted], group, classes=classes, level=level))
        has_width(intervals.auc_interval(y, np.zeros((len(y), classes)), group, classes=classes, level=level))


# Coverage ------------------------------------------------------------------------------------------------------------
# The tables of docs/results/coverage.md have many more draws, rates and numbers of people.


def recognised(r: np.random.Generator, count: int, rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions and people: four images each, correlation 0.3 in a person."""
    group = np.repeat(np.arange(count), 4)
    y = group * 2 // count
    right = r.random(4 * count) < r.beta(rate / 0.3 - rate, (1 - rate) / 0.3 - (1 - rate), count)[group]
    return y, np.where(right, y, 1 - y), group


def ranked(r: np.random.Generator, count: int, auc: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    group = np.repeat(np.arange(count), 4)
    y = group * 2 // count
    noise = sqrt(0.3) * r.standard_normal(count)[group] + sqrt(0.7) * r.standard_normal(4 * count)
    return y, sqrt(2) * float(ndtri(auc)) * y + noise, group


@pytest.mark.parametrize("count", [30, 100])
@pytest.mark.parametrize("true", [0.9, 0.98])
@pytest.mark.parametrize("figure", ["balanced accuracy", "AUC"])
def test_intervals_cover(figure: str, true: float, count: int) -> None:
    # 93 to 97 % of the draws are to hold the truth, 99 at 30 people and a rate of 0.98, where two or three images are
    # wrong; and at most 4 % are to lie on one side. Chance is let 3.5 standard errors. Percentiles of a bootstrap of
    # persons hold 82 % of 30 people and 89 % of 100 at 0.98: 8 and 2 standard errors less than is let pass here.
    draws = 600
    interval: Callable[..., Interval] = {
        "balanced accuracy": lambda r: intervals.balanced_accuracy_interval(*recognised(r, count, true), classes=2),
        "AUC": lambda r: intervals.auc_interval(*ranked(r, count, true), classes=2),
    }[figure]
    found = [interval(np.random.default_rng([7, draw])) for draw in range(draws)]
    above, below = (sum(i.low > true for i in found) / draws, sum(i.high < true for i in found) / draws)
    most = 0.99 if count * (1 - true) < 1 else 0.97
    assert 0.93 - 3.5 * sqrt(0.93 * 0.07 / draws) < 1 - above - below < most + 3.5 * sqrt(most * (1 - most) / draws)
    assert max(above, below) < 0.04 + 3.5 * sqrt(0.04 * 0.96 / draws)


def test_clustered_intervals_cover_and_row_wise_ones_do_not() -> None:
    runs, clustered, naive = 400, 0, 0
    for run in range(runs):
        y, predicted, group = people(1000 + run)
        for groups in (group, None):
            found = intervals.balanced_accuracy_interval(y, predicted, groups, classes=2)
            covers = found.low <= 0.6 <= found.high
            clustered += covers and groups is not None
            naive += covers and groups is None
    assert 0.95 - 3.5 * sqrt(0.95 * 0.05 / runs) < clustered / runs < 0.95 + 3.5 * sqrt(0.95 * 0.05 / runs)
    # Correlation in a person 1 / 3, so a design effect of 1 + (25.5 / 4.5 - 1) / 3 = 2.6: rows cover
    # P(|z| < 1.96 / 1.6) = 0.78.
    assert naive / runs < 0.78 + 3.5 * sqrt(0.78 * 0.22 / runs)


def test_intervals_of_3000_rows_are_fast() -> None:
    r = np.random.default_rng(0)
    y = r.integers(0, 2, 3000)
    predicted, group = r.integers(0, 2, 3000), r.integers(0, 1400, 3000)
    spent = []
    for _ in range(3):
        start = time.process_time()
        intervals.balanced_accuracy_interval(y, predicted, group, classes=2)
        intervals.auc_interval(y, r.normal(size=3000), group, classes=2)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.1  # an audit makes hundreds
