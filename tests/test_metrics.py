from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt
from statistics import NormalDist

import numpy as np
import pytest
import sklearn.metrics as reference

from veil.auditing import metrics
from veil.errors import InputError

NORMAL = NormalDist()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def labels(classes: int, n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions that are often right, class probabilities with ties, and integer weights, some of them 0."""
    r = rng(seed)
    y = r.integers(0, classes, n)
    predicted = np.where(r.random(n) < 0.5, y, r.integers(0, classes, n))
    logits = r.normal(size=(n, classes)) + np.eye(classes)[y]
    # Multiples of 1/64 are exact, and so are their sums: rows still add up to 1 where ties are wanted.
    probabilities = np.round(64 * np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)) / 64
    probabilities[:, 0] += 1 - probabilities.sum(axis=1)
    return y, predicted, probabilities, r.integers(0, 4, n)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_label_figures_equal_scikit_learn(classes: int, weighted: bool) -> None:
    y, predicted, _, w = labels(classes)
    weights = w if weighted else None
    ours = metrics.balanced_accuracy(y, predicted, classes=classes, weights=weights)
    assert ours == pytest.approx(reference.balanced_accuracy_score(y, predicted, sample_weight=weights), abs=1e-12)
    ours = metrics.accuracy(y, predicted, weights=weights)
    assert ours == pytest.approx(reference.accuracy_score(y, predicted, sample_weight=weights), abs=1e-12)
    ours = metrics.mcc(y, predicted, classes=classes, weights=weights)
    assert ours == pytest.approx(reference.matthews_corrcoef(y, predicted, sample_weight=weights), abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_macro_auc_equals_scikit_learn(classes: int, weighted: bool) -> None:
    y, _, scores, w = labels(classes)
    weights = w if weighted else None
    if classes == 2:
        theirs = reference.roc_auc_score(y, scores[:, 1] - scores[:, 0], sample_weight=weights)
        one_column = metrics.macro_auc(y, scores[:, 1] - scores[:, 0], classes=2, weights=weights)
        assert one_column == pytest.approx(theirs, abs=1e-12)
    else:
        # Class by class: scikit-learn's own macro average refuses rows that do not add up to 1 to the last bit.
        each = [reference.roc_auc_score(y == z, scores[:, z], sample_weight=weights) for z in range(classes)]
        theirs = float(np.mean(each))
    assert metrics.macro_auc(y, scores, classes=classes, weights=weights) == pytest.approx(theirs, abs=1e-12)


PAIR_FIGURES: list[Callable[..., float]] = [
    metrics.auc,
    metrics.eer,
    metrics.best_threshold,
    lambda s, same, **k: metrics.tar_at_far(s, same, 0.1, **k),
    lambda s, same, **k: metrics.accuracy_at(s, same, 0.3, **k),
]


@pytest.mark.parametrize("decimals", [1, 12])  # many ties, and none
def test_a_weight_counts_as_so_many_copies(decimals: int) -> None:
    r = rng(1)
    same = r.random(300) < 0.4
    scores = np.round(r.normal(size=300) + same, decimals)
    w = r.integers(0, 4, 300)
    for figure in PAIR_FIGURES:
        if figure is metrics.best_threshold:  # a row of weight 0 may still narrow the gap the threshold halves
            keep = w > 0
            found = figure(scores[keep], same[keep], weights=w[keep])
        else:
            found = figure(scores, same, weights=w)
        assert found == pytest.approx(figure(np.repeat(scores, w), np.repeat(same, w)), abs=1e-12)
    y, predicted, probabilities, w = labels(3)
    again = np.repeat(np.arange(len(y)), w)
    for name in ("balanced_accuracy", "mcc"):
        figure = getattr(metrics, name)
        copies = figure(y[again], predicted[again], classes=3)
        assert figure(y, predicted, classes=3, weights=w) == pytest.approx(copies, abs=1e-12)
    copies = metrics.macro_auc(y[again], probabilities[again], classes=3)
    assert metrics.macro_auc(y, probabilities, classes=3, weights=w) == pytest.approx(copies, abs=1e-12)


def test_roc_equals_scikit_learn() -> None:
    r = rng(2)
    same = r.random(500) < 0.5
    scores = np.round(r.normal(size=500) + same, 1)
    w = r.integers(1, 4, 500)
    ours = metrics.roc(scores, same, weights=w)
    far, tar, thresholds = reference.roc_curve(same, scores, sample_weight=w, drop_intermediate=False)
    np.testing.assert_allclose(ours.far, far, atol=1e-12)
    np.testing.assert_allclose(ours.tar, tar, atol=1e-12)
    np.testing.assert_array_equal(ours.thresholds, thresholds)


@pytest.mark.parametrize("d", [0.0, 1.0, 2.5])
def test_two_gaussians_have_the_known_figures(d: float) -> None:
    n = 20_000
    r = rng(3)
    same = np.repeat([True, False], n)
    scores = r.normal(size=2 * n) + d * same
    # Birnbaum's bound: the variance of an AUC A is at most A (1 - A) / n. Four standard deviations everywhere.
    area = NORMAL.cdf(d / sqrt(2))
    assert abs(metrics.auc(scores, same) - area) < 4 * sqrt(area * (1 - area) / n)
    # At the crossing the errors of FAR and FRR are independent and of one size; the EER moves by their mean.
    error = NORMAL.cdf(-d / 2)
    assert abs(metrics.eer(scores, same) - error) < 4 * sqrt(error * (1 - error) / (2 * n)) + 1 / n
    # Delta method: the spread of TAR at a fixed threshold, and that of the threshold times the slope of the curve.
    for far in (0.1, 0.01):
        t = -NORMAL.inv_cdf(far)
        tar = 1 - NORMAL.cdf(t - d)
        slope = NORMAL.pdf(t - d) / NORMAL.pdf(t)
        sd = sqrt((tar * (1 - tar) + slope**2 * far * (1 - far)) / n)
        assert abs(metrics.tar_at_far(scores, same, far) - tar) < 4 * sd
    right = NORMAL.cdf(d / 2)
    assert abs(metrics.accuracy_at(scores, same, d / 2) - right) < 4 * sqrt(right * (1 - right) / (2 * n))
    # Dvoretzky-Kiefer-Wolfowitz: both empirical rates are off by at most eps everywhere, but for odds of 1e-6.
    eps = sqrt(log(2 / 1e-6) / (2 * n))
    t = metrics.best_threshold(scores, same)
    assert (NORMAL.cdf(t) + NORMAL.cdf(d - t)) / 2 > right - 2 * eps


def test_perfect_constant_and_reversed_scores() -> None:
    same = np.array([True] * 3 + [False] * 5)
    perfect = np.array([3.0, 4, 5, 0, 0, 1, 1, 1])
    assert metrics.auc(perfect, same) == 1
    assert metrics.eer(perfect, same) == 0
    assert metrics.tar_at_far(perfect, same, 0.001) == 1
    assert metrics.best_threshold(perfect, same) == 2  # the middle of 1 and 3
    assert metrics.accuracy_at(perfect, same, 2) == 1
    assert metrics.auc(-perfect, same) == 0
    assert metrics.eer(-perfect, same) == 1
    constant = np.zeros(8)
    assert metrics.auc(constant, same) == 0.5
    assert metrics.eer(constant, same) == 0.5
    assert metrics.tar_at_far(constant, same, 0.99) == 0  # no threshold accepts some impostors but not all
    assert metrics.accuracy_at(constant, same, metrics.best_threshold(constant, same)) == 0.5


def test_tar_at_far_takes_the_last_threshold_that_keeps_the_rate() -> None:
    # By falling score: g i g i g i i i i i i i i (3 genuine, 10 impostors).
    same = np.array([1, 0, 1, 0, 1] + [0] * 8, dtype=bool)
    scores = -np.arange(13.0)
    assert metrics.tar_at_far(scores, same, 0.0) == pytest.approx(1 / 3)
    assert metrics.tar_at_far(scores, same, 0.09) == pytest.approx(1 / 3)
    assert metrics.tar_at_far(scores, same, 0.1) == pytest.approx(2 / 3)  # exactly one of ten
    assert metrics.tar_at_far(scores, same, 0.2) == 1


def test_best_threshold_separates_neighbours_in_floating_point() -> None:
    low, high = 1.0, float(np.nextafter(1.0, 2.0))
    same = np.array([True, False])
    assert metrics.accuracy_at(np.array([high, low]), same, metrics.best_threshold(np.array([high, low]), same)) == 1


def test_undefined_figures_are_nan() -> None:
    scores = np.arange(4.0)
    for same in (np.ones(4, dtype=bool), np.zeros(4, dtype=bool)):
        for figure in PAIR_FIGURES:
            assert np.isnan(figure(scores, same))
    same = np.array([True, True, False, False])
    assert np.isnan(metrics.auc(scores, same, weights=np.array([1, 1, 0, 0])))
    nothing = np.empty(0, dtype=np.int64)
    for value in (
        metrics.accuracy(nothing, nothing),
        metrics.balanced_accuracy(nothing, nothing, classes=2),
        metrics.mcc(nothing, nothing, classes=2),
        metrics.auc(nothing, nothing),
        metrics.macro_auc(nothing, np.empty((0, 3)), classes=3),
    ):
        assert np.isnan(value)


def test_classes_without_weight_are_left_out() -> None:
    y = np.array([0, 0, 1, 1, 2])
    predicted = np.array([0, 1, 1, 1, 0])
    weights = np.array([1, 1, 1, 1, 0])
    assert metrics.balanced_accuracy(y, predicted, classes=4) == pytest.approx((0.5 + 1 + 0) / 3)
    assert metrics.balanced_accuracy(y, predicted, classes=4, weights=weights) == pytest.approx((0.5 + 1) / 2)
    scores = np.eye(4)[y]
    assert metrics.macro_auc(y, scores, classes=4, weights=weights) == 1


def test_a_constant_prediction_scores_chance() -> None:
    y = np.array([0] * 90 + [1] * 10)
    predicted = np.zeros(100, dtype=np.int64)
    assert metrics.balanced_accuracy(y, predicted, classes=2) == 0.5
    assert metrics.mcc(y, predicted, classes=2) == 0
    assert metrics.mcc(y, y, classes=2) == pytest.approx(1)
    assert metrics.mcc(y, 1 - y, classes=2) == pytest.approx(-1)


def test_wrong_input_is_refused_by_name() -> None:
    y = np.array([0, 1, -1])
    with pytest.raises(InputError, match=r"labels must lie in 0\.\.1, got -1\.\.1"):
        metrics.balanced_accuracy(y, np.zeros(3, dtype=int), classes=2)
    with pytest.raises(InputError, match=r"predictions must lie in 0\.\.1, got 0\.\.2"):
        metrics.mcc(np.array([0, 1]), np.array([0, 2]), classes=2)
    with pytest.raises(InputError, match="2 rows, 3 labels"):
        metrics.accuracy(y, np.zeros(2, dtype=int))
    with pytest.raises(InputError, match="scores must be finite: 1 of 2"):
        metrics.auc(np.array([0.0, np.nan]), np.array([True, False]))
    with pytest.raises(InputError, match="weights must be at least 0, got -1"):
        metrics.auc(np.array([0.0, 1]), np.array([True, False]), weights=np.array([1, -1]))
    with pytest.raises(InputError, match=r"one entry for each of the 2 rows, got shape \(3,\)"):
        metrics.auc(np.array([0.0, 1]), np.array([True, False]), weights=np.ones(3))
    with pytest.raises(InputError, match=r"one column for each of the 3 classes, got shape \(2, 2\)"):
        metrics.macro_auc(np.array([0, 1]), np.zeros((2, 2)), classes=3)


# Images and scatter


def test_ssim_by_hand():
    """Against the formula, window by window, on a small pair; 1 for equal images."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (2, 13, 14), dtype=np.uint8)
    b = np.clip(a.astype(int) + rng.integers(-60, 60, a.shape), 0, 255).astype(np.uint8)
    at = np.arange(-5, 6)
    window = np.exp(-np.add.outer(at**2, at**2) / (2 * 1.5**2))
    window /= window.sum()
    expected = []
    for x, y in zip(a / 255, b / 255, strict=True):
        values = []
        for i in range(13 - 10):
            for j in range(14 - 10):
                p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                c = (window * (p - mp) * (q - mq)).sum()
                top = (2 * mp * mq + 0.01**2) * (2 * c + 0.03**2)
                values.append(top / ((mp**2 + mq**2 + 0.01**2) * (vp + vq + 0.03**2)))
        expected.append(np.mean(values))
    np.testing.assert_allclose(metrics.ssim(a, b), expected, atol=1e-9)
    np.testing.assert_allclose(metrics.ssim(a, a), 1)
    colours = np.stack([a, a, a], -1)
    np.testing.assert_allclose(metrics.ssim(colours, np.stack([b, b, b], -1)), expected, atol=1e-9)
    assert metrics.ssim(a[:, :6, :6], a[:, :6, :6]).tolist() == pytest.approx([1, 1])


def test_psnr_by_hand():
    black = np.zeros((2, 4, 4), np.uint8)
    assert metrics.psnr(black, black).tolist() == [60, 60]
    assert metrics.psnr(black, black + 255).tolist() == pytest.approx([0, 0])
    assert metrics.psnr(black, black + 51) == pytest.approx(-20 * np.log10(0.2))


def test_scatter_by_hand_and_of_a_known_population():
    x = np.array([[0.0], [2.0], [10.0], [12.0]])
    people = metrics.People.of(x, np.array([7, 7, 9, 9]))
    found = people.scatter()
    # within: 4 squares of 1, two free; the means 1 and 11 lie 5 from 6, one free; of that, within / 2 is noise
    assert (found.within, found.between, found.lda) == (2, 49, 24.5)
    assert np.isnan(people.scatter(np.array([1.0, 0.0])).lda)
    rng = np.random.default_rng(0)
    own = rng.normal(scale=2, size=(4000, 3))
    vectors = np.repeat(own, 3, 0) + rng.normal(size=(12_000, 3))
    big = metrics.People.of(vectors, np.repeat(np.arange(4000), 3)).scatter()
    assert big.within == pytest.approx(3, rel=0.03)
    assert big.between == pytest.approx(12, rel=0.05)
    by_five = [metrics.People.of(part, np.repeat(np.arange(5), 3)).scatter() for part in np.split(vectors, 800)]
    assert np.mean([scatter.between for scatter in by_five]) == pytest.approx(12, rel=0.05)  # five people, no bias
    weights = rng.integers(0, 3, 4000)
    copies = np.repeat(np.arange(4000), weights)
    rows = (copies[:, None] * 3 + np.arange(3)).ravel()
    twice = metrics.People.of(vectors[rows], np.repeat(np.arange(len(copies)), 3)).scatter()
    weighted = metrics.People.of(vectors, np.repeat(np.arange(4000), 3)).scatter(weights)
    assert (weighted.within, weighted.between) == pytest.approx((twice.within, twice.between))


def test_placements_average_to_the_auc_on_either_side() -> None:
    r = np.random.default_rng(0)
    same = r.random(60) < 0.4
    scores = np.round(r.normal(size=60) + same, 1)  # with ties
    placed = metrics.rank(scores, same).placements()
    for row in range(60):
        others = scores[same != same[row]]
        above = np.mean((scores[row] > others) + (scores[row] == others) / 2)
        assert placed[row] == pytest.approx(above if same[row] else 1 - above, abs=1e-12)
    for side in (same, ~same):
        assert placed[side].mean() == pytest.approx(metrics.auc(scores, same), abs=1e-12)


def test_the_influence_on_the_lda_score_is_its_slope() -> None:
    r = np.random.default_rng(0)
    who = r.integers(0, 15, 60)
    people = metrics.People.of(r.normal(size=(60, 5)) + r.normal(size=(15, 5))[who], who)
    once = people.scatter().lda
    slopes = np.array(
        [(people.scatter(np.ones(15) + 1e-6 * (np.arange(15) == i)).lda - once) / 1e-6 for i in range(15)]
    )
    # Less the mean: twice as many people of each kind tell the same score.
    np.testing.assert_allclose(people.lda_influence(), slopes - slopes.mean(), atol=1e-6 * abs(slopes).max() + 1e-7)
    assert abs(people.lda_influence().sum()) < 1e-12
