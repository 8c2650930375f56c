from __future__ import annotations

import time
from math import sqrt

import numpy as np
import pytest

from veil import metrics
from veil.audit import intervals
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


def test_a_rate_of_shares_is_their_mean_with_persons_drawn() -> None:
    y, predicted, group = people(3)
    right = (y == predicted).astype(float)
    found = intervals.rate_interval(right, group, seed=0)
    same = intervals.balanced_accuracy_interval(np.zeros(len(y), int), 1 - right, group, classes=2, seed=0)
    assert found == pytest.approx(same)
    half = intervals.rate_interval(np.full(4, 0.5), None, seed=0)
    assert (half.low, half.value, half.high) == (0.5, 0.5, 0.5)
    perfect = intervals.rate_interval(np.ones(len(y)), group, seed=0)
    assert perfect == intervals.wilson(80, 80)
    assert intervals.rate_interval(np.ones(0), None, seed=0) is intervals.UNDEFINED


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_rate(successes: int, n: int) -> None:
    with pytest.raises(InputError, match=f"got {successes} of {n}"):
        intervals.wilson(successes, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_levels_outside_0_1_are_refused(level: float) -> None:
    with pytest.raises(InputError, match="level must lie between 0 and 1"):
        intervals.wilson(1, 2, level)
    with pytest.raises(InputError, match="level must lie between 0 and 1"):
        intervals.percentile(0.5, np.zeros(3), level=level)


def test_units_are_persons_and_unknown_rows_their_own() -> None:
    codes = intervals.units(np.array([7, 3, -1, 7, -1]), 5)
    assert codes.tolist() == [1, 0, 2, 1, 3]
    assert intervals.units(None, 3).tolist() == [0, 1, 2]
    assert intervals.units(np.array([-1, -1]), 2).tolist() == [0, 1]
    with pytest.raises(InputError, match=r"each of the 3 rows, got shape \(2,\)"):
        intervals.units(np.zeros(2), 3)


def test_draws_are_multinomial_seeded_and_independent_of_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(intervals.draws(50, seed=3, replicates=4000)))
    assert whole.shape == (4000, 50)
    assert (whole.sum(axis=1) == 50).all()
    # A multiplicity is binomial(50, 1/50): variance 0.98; the mean square deviation of 200,000 has a relative standard
    # error of about sqrt((kurtosis - 1) / 200,000) = sqrt(3 / 200,000) = 0.004.
    assert whole.var() == pytest.approx(0.98, rel=4 * 0.004)
    monkeypatch.setattr(intervals, "BLOCK", 333)
    pieces = list(intervals.draws(50, seed=3, replicates=4000))
    assert len(pieces) > 1
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    other = np.concatenate(list(intervals.draws(50, seed=4, replicates=4000)))
    assert (other != whole).any()


def test_draws_refuse_to_draw_from_nothing() -> None:
    with pytest.raises(InputError, match="at least one unit and one replicate, got 0 and 10"):
        next(intervals.draws(0, seed=0, replicates=10))


def test_fast_and_generic_bootstrap_agree() -> None:
    y, predicted, group = people(0)
    group = np.where(group % 10 == 9, -1, group)
    fast = intervals.balanced_accuracy_interval(y, predicted, group, classes=2, seed=5, replicates=300)
    generic = intervals.cluster_bootstrap(
        lambda w: metrics.balanced_accuracy(y, predicted, classes=2, weights=w), group, seed=5, replicates=300
    )
    assert fast == pytest.approx(generic, abs=1e-12)
    assert fast.low < fast.value < fast.high


def test_without_groups_the_rows_are_the_units() -> None:
    y, predicted, _ = people(1)
    alone = intervals.balanced_accuracy_interval(y, predicted, None, classes=2, seed=5)
    assert alone == intervals.balanced_accuracy_interval(y, predicted, np.arange(len(y)), classes=2, seed=5)
    scores = np.eye(2)[predicted]
    arguments = {"classes": 2, "seed": 5, "replicates": 50}
    assert intervals.auc_interval(y, scores, None, **arguments) == intervals.auc_interval(
        y, scores, np.arange(len(y)), **arguments
    )
    assert intervals.mcc_interval(y, predicted, None, **arguments) == intervals.mcc_interval(
        y, predicted, np.arange(len(y)), **arguments
    )


def test_copies_of_an_image_add_no_certainty() -> None:
    y, predicted, _ = people(2, count=60)
    n = len(y)
    once = intervals.balanced_accuracy_interval(y, predicted, np.arange(n), classes=2, seed=0)
    again = np.repeat(np.arange(n), 10)
    clustered = intervals.balanced_accuracy_interval(y[again], predicted[again], again, classes=2, seed=0)
    assert clustered == pytest.approx(once, abs=1e-12)
    naive = intervals.balanced_accuracy_interval(y[again], predicted[again], None, classes=2, seed=0)
    # Ten times the rows: sqrt(10) = 3.2 times too narrow; limits of 1000 replicates move by a few per cent.
    assert (once.high - once.low) / (naive.high - naive.low) == pytest.approx(sqrt(10), rel=0.25)


def test_auc_and_mcc_intervals_are_those_of_their_statistics() -> None:
    y, predicted, group = people(3)
    scores = np.random.default_rng(0).normal(size=(len(y), 2)) + np.eye(2)[predicted]
    found = intervals.auc_interval(y, scores, group, classes=2, seed=1, replicates=100)
    slow = intervals.cluster_bootstrap(
        lambda w: metrics.macro_auc(y, scores, classes=2, weights=w), group, seed=1, replicates=100
    )
    assert found == pytest.approx(slow, abs=1e-12)
    found = intervals.mcc_interval(y, predicted, group, classes=2, seed=1, replicates=100)
    assert found.value == metrics.mcc(y, predicted, classes=2)
    assert found.low < found.value < found.high


def test_resamples_that_lack_a_class_are_left_out() -> None:
    # Class 1 is one person, always wrong; class 0 is always right: 0.5 with that person, 1 without.
    y = np.array([0, 0, 0, 1, 1])
    predicted = np.zeros(5, dtype=np.int64)
    group = np.array([0, 1, 2, 3, 3])
    found = intervals.balanced_accuracy_interval(y, predicted, group, classes=2, seed=0, replicates=500)
    assert found == (0.5, 0.5, 0.5)  # the person is missing from (3/4)^4 = 32 % of the resamples
    found = intervals.mcc_interval(y, y, group, classes=2, seed=0)
    assert found.low == pytest.approx(2 * intervals.wilson(3, 3).low - 1)  # 4 / (1 + 1/3) = 3 trials; not 0


def test_resamples_that_lack_a_class_count_where_most_do() -> None:
    # Three classes of one person each: 6 of 27 resamples have all three.
    y = np.arange(3)
    found = intervals.balanced_accuracy_interval(y, np.array([0, 1, 0]), y, classes=3, seed=0, replicates=500)
    assert found == (pytest.approx(2 / 3), 0, 1)


def test_high_levels_get_enough_replicates() -> None:
    assert [intervals.enough(300, level) for level in (0.5, 0.95, 0.99, 0.999)] == [300, 300, 300, 2500]
    right, who = np.arange(200) % 2, np.arange(200)
    few, many = (intervals.rate_interval(right, who, seed=0, level=0.999, replicates=n) for n in (10, 2500))
    assert few == many


def test_widened_limits_are_those_of_student() -> None:
    # Abramowitz & Stegun, table 26.10: Student's t of 9 degrees lies within +-4.781 with probability 0.999.
    value, low, high = intervals.widened(intervals.Interval(0.5, 0.48, 0.53), 10, level=0.95, to=0.999)
    stretch = 4.781 / 1.959964 * sqrt(10 / 9)
    assert (value, low, high) == pytest.approx((0.5, 0.5 - 0.02 * stretch, 0.5 + 0.03 * stretch), abs=1e-4)
    assert intervals.widened(intervals.Interval(0.9, 0.7, 1.0), 3, level=0.95, to=0.999) == (0.9, 0, 1)


@pytest.mark.parametrize("right", [True, False])
def test_a_perfect_figure_has_wilsons_limits(right: bool) -> None:
    group = np.repeat(np.arange(40), 5)
    y = (group >= 10).astype(np.int64)  # 10 persons against 30: 4 / (1/10 + 1/30) = 30 trials
    found = intervals.balanced_accuracy_interval(y, y if right else 1 - y, group, classes=2, seed=0)
    assert found == pytest.approx(intervals.wilson(30 if right else 0, 30), abs=1e-12)
    assert found.high - found.low > 0.1


def test_percentile_drops_undefined_replicates_and_holds_the_value() -> None:
    replicated = np.array([0.2, 0.4, np.nan, 0.6])
    assert intervals.percentile(0.9, replicated, level=0.5) == pytest.approx((0.9, 0.3, 0.9))
    assert all(np.isnan(intervals.percentile(float("nan"), replicated, level=0.5)))
    assert all(np.isnan(intervals.percentile(0.5, np.full(3, np.nan), level=0.5)))


def test_undefined_figures_have_undefined_intervals() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert all(np.isnan(intervals.balanced_accuracy_interval(nothing, nothing, None, classes=2, seed=0)))
    y = np.zeros(5, dtype=np.int64)
    assert all(np.isnan(intervals.auc_interval(y, np.zeros((5, 2)), None, classes=2, seed=0, replicates=5)))


def test_clustered_intervals_cover_and_row_wise_ones_do_not() -> None:
    # 40 persons per class with unequal numbers of images weigh like 40 x 4.5^2 / 25.5 = 32: Student's t with 31 degrees
    # lies within +-1.96 sqrt(31/32) with probability 0.932. The tolerance is 3.5 binomial standard deviations.
    runs, clustered, naive = 400, 0, 0
    for run in range(runs):
        y, predicted, group = people(1000 + run)
        for groups in (group, None):
            found = intervals.balanced_accuracy_interval(y, predicted, groups, classes=2, seed=run, replicates=300)
            covers = found.low <= 0.6 <= found.high
            clustered += covers and groups is not None
            naive += covers and groups is None
    assert 0.932 - 3.5 * sqrt(0.932 * 0.068 / runs) < clustered / runs < 0.95 + 3.5 * sqrt(0.95 * 0.05 / runs)
    # Correlation in a person 1 / 3, so a design effect of 1 + (25.5 / 4.5 - 1) / 3 = 2.6: rows cover
    # P(|z| < 1.96 / 1.6) = 0.78.
    assert naive / runs < 0.78 + 3.5 * sqrt(0.78 * 0.22 / runs)


def test_a_thousand_replicates_of_3000_rows_are_fast() -> None:
    r = np.random.default_rng(0)
    y = r.integers(0, 2, 3000)
    predicted, group = r.integers(0, 2, 3000), r.integers(0, 1400, 3000)
    spent = []
    for _ in range(3):
        start = time.process_time()
        intervals.balanced_accuracy_interval(y, predicted, group, classes=2, seed=0)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.5


def test_perfect_auc_and_mcc_have_an_interval() -> None:
    y = np.repeat(np.arange(20) % 2, 3)
    who = np.repeat(np.arange(20), 3)
    low = intervals.wilson(20, 20).low  # ten people of either class
    assert intervals.auc_interval(y, y * 1.0, who, classes=2, seed=0) == (1, pytest.approx(low), 1)
    assert intervals.mcc_interval(y, y, who, classes=2, seed=0) == (1, pytest.approx(2 * low - 1), 1)


@pytest.mark.parametrize("count", range(14, 60, 4))
def test_rounding_does_not_hide_that_an_auc_is_perfect(count: int) -> None:
    r = np.random.default_rng(count)
    y, who = np.arange(count) % 2, np.arange(count)
    for scores, value in ((y + 0.5 * r.random(count), 1), (-y - 0.5 * r.random(count), 0)):
        found = intervals.auc_interval(y, scores, who, classes=2, seed=0)
        assert found == pytest.approx(intervals.wilson(value * count, count), abs=1e-12)


def test_one_person_alone_is_not_certain() -> None:
    right = np.arange(40) % 2
    value, low, high = intervals.rate_interval(right, np.zeros(40, np.int64), seed=0)
    assert low < value < high
