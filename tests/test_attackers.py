"""Attackers on problems with a known best answer, and on the awkward inputs they must survive."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from veil.auditing import classical, metrics, networks
from veil.auditing.attackers import ATTACKERS, CONVOLUTIONAL, FINITE
from veil.auditing.matchers import MATCHERS
from veil.auditing.problem import DidNotConverge, Problem, Standardiser
from veil.errors import InputError

VECTORS = [name for name in ATTACKERS if name not in (*CONVOLUTIONAL, *FINITE)]
LINEAR = ["logistic regression"]


def problem(x: NDArray, y: NDArray, classes: int, train: int, validation: int, **kwargs: object) -> Problem:
    """The first rows train, the next choose settings."""
    kwargs = {"seed": 0, "effort": "quick", **kwargs}
    both = slice(train, train + validation)
    return Problem(x=x[:train], y=y[:train], x_validation=x[both], y_validation=y[both], classes=classes, **kwargs)


# -- known answers ----------------------------------------------------------------------------------------------------

# Accuracies are compared with that of the Bayes rule on the same 4,000 test rows. Where the two disagree on a share q
# of the rows, the difference has a deviation below sqrt(q / 4000): 0.4 points for q = 0.06. Excess error from learning
# 16 coefficients of 2,000 rows is about d / 2n = 0.4 points. 2 points leave four deviations.
TRAIN, VALIDATION, TEST = 2000, 2000, 4000
MARGIN = 0.02


def _density(x: NDArray, mean: NDArray, deviation: float) -> NDArray:
    return np.exp(-((x - mean) ** 2).sum(1) / (2 * deviation**2)) / deviation ** x.shape[1]


def _linear() -> tuple[NDArray, NDArray, NDArray]:
    """Equal, correlated covariances in 16-d, Mahalanobis distance 2: Bayes accuracy Phi(1)."""
    rng = np.random.default_rng(3)
    y = np.arange(TRAIN + VALIDATION + TEST) % 2
    mix = np.linalg.qr(rng.normal(size=(16, 16)))[0] * np.linspace(0.5, 1.5, 16)
    shift = rng.normal(size=16)
    shift /= np.linalg.norm(shift)
    white = rng.normal(size=(len(y), 16)) + (2 * y[:, None] - 1) * shift
    return white @ mix, y, (white @ shift > 0).astype(np.int64)


def _xor() -> tuple[NDArray, NDArray, NDArray]:
    """Four Gaussians at the corners of a square, opposite corners of one class, in 4-d: no linear rule beats chance."""
    rng = np.random.default_rng(4)
    corner = rng.integers(4, size=TRAIN + VALIDATION + TEST)
    corners = 1.4 * np.array([[-1, -1, 0, 0], [-1, 1, 0, 0], [1, -1, 0, 0], [1, 1, 0, 0]])
    y = np.isin(corner, (1, 2)).astype(np.int64)
    x = corners[corner] + rng.normal(size=(len(y), 4))
    density = np.stack([_density(x, c, 1.0) for c in corners], 1)
    return x, y, (density[:, 1] + density[:, 2] > density[:, 0] + density[:, 3]).astype(np.int64)


def _scales() -> tuple[NDArray, NDArray, NDArray]:
    """The same mean, deviations 1 and 2, in 4-d: only the distance from the mean tells."""
    rng = np.random.default_rng(5)
    y = np.arange(TRAIN + VALIDATION + TEST) % 2
    x = rng.normal(size=(len(y), 4)) * np.where(y, 2.0, 1.0)[:, None]
    zero = np.zeros(4)
    return x, y, (_density(x, zero, 2.0) > _density(x, zero, 1.0)).astype(np.int64)


def _three() -> tuple[NDArray, NDArray, NDArray]:
    """Three classes of unit Gaussians at the corners of a triangle, in 5-d."""
    rng = np.random.default_rng(6)
    y = np.arange(TRAIN + VALIDATION + TEST) % 3
    corners = 2.0 * np.eye(3, 5)
    x = corners[y] + rng.normal(size=(len(y), 5))
    return x, y, np.stack([_density(x, c, 1.0) for c in corners], 1).argmax(1)


CASES = {"linear": _linear, "xor": _xor, "scales": _scales, "three": _three}


def _train_with(**settings: Any) -> Callable[..., Any]:
    """``networks.train`` with settings that its caller did not ask for."""
    train = networks.train
    return lambda *args, **kwargs: train(*args, **{**kwargs, **settings})


@cache
def _solved(case: str) -> tuple[float, dict[str, float], dict[str, float]]:
    """Balanced accuracy of the Bayes rule on the test rows, and of every attacker on validation and test rows."""
    x, y, bayes = CASES[case]()
    x = x.astype(np.float32)
    z = int(y.max()) + 1
    task = problem(x, y, z, TRAIN, VALIDATION)
    test = slice(TRAIN + VALIDATION, None)
    on_validation, on_test = {}, {}
    for name in VECTORS:
        if name == "residual MLPs" and case != "xor":
            continue  # the slowest
        with pytest.MonkeyPatch.context() as patch:
            if name == "residual MLPs":
                patch.setattr(networks, "train", _train_with(steps=80))
            score = ATTACKERS[name](task)
        seen, unseen = score(task.x_validation), score(x[test])
        assert unseen.shape == (TEST, z)
        assert unseen.dtype == np.float32 or unseen.dtype == np.float64
        on_validation[name] = metrics.balanced_accuracy(task.y_validation, seen.argmax(1), classes=z)
        on_test[name] = metrics.balanced_accuracy(y[test], unseen.argmax(1), classes=z)
    return metrics.balanced_accuracy(y[test], bayes[test], classes=z), on_validation, on_test


def test_best_match_lies_between_the_nearest_neighbours_rule_and_bayes() -> None:
    """Two Gaussians on a circle's rim, 2 apart: one neighbour errs by 2 R (1 - R) at most (Cover and Hart, 1967)."""
    rng = np.random.default_rng(0)
    y = np.arange(8000) % 2
    x = np.stack([2 * y - 1.0, np.full(len(y), 10.0)], 1) + rng.normal(size=(len(y), 2))
    asked = problem(x.astype(np.float32), y, 2, 2000, 2000)
    found = metrics.balanced_accuracy(y[4000:], classical.best_match(asked)(x[4000:]).argmax(1), classes=2)
    error = 1 - NormalDist().cdf(1)
    assert 1 - 2 * error * (1 - error) - MARGIN < found < 1 - error + MARGIN


def test_best_match_follows_the_people_that_releases_match() -> None:
    """Nothing but who it is tells the class: those who match tell it."""
    rng = np.random.default_rng(0)
    who = np.arange(3000) % 500
    x = (rng.normal(size=(500, 32))[who] + 0.5 * rng.normal(size=(3000, 32))).astype(np.float32)
    y = (who * 7919 % 500) % 2
    asked = problem(x, y, 2, 1500, 500)
    assert metrics.balanced_accuracy(y[2000:], classical.best_match(asked)(x[2000:]).argmax(1), classes=2) > 0.97


def test_the_linear_case_has_the_bayes_accuracy_it_claims() -> None:
    best, _, _ = _solved("linear")
    assert best == pytest.approx(NormalDist().cdf(1), abs=4 * math.sqrt(0.84 * 0.16 / TEST))


@pytest.mark.parametrize("case", CASES)
def test_the_attacker_picked_on_validation_comes_within_two_points_of_bayes(case: str) -> None:
    bayes, on_validation, on_test = _solved(case)
    picked = max(on_validation, key=on_validation.__getitem__)
    assert on_test[picked] > bayes - MARGIN
    assert on_test[picked] < bayes + MARGIN  # nobody beats Bayes: more would be a leak


@pytest.mark.parametrize("case", CASES)
def test_every_attacker_finds_more_than_half_of_what_there_is(case: str) -> None:
    bayes, _, on_test = _solved(case)
    chance = 1 / 3 if case == "three" else 1 / 2
    blind = LINEAR if case in ("xor", "scales") else []
    for name, found in on_test.items():
        if name not in blind:
            assert found - chance > 0.5 * (bayes - chance), name


def test_a_linear_attacker_is_blind_to_xor_and_to_scales() -> None:
    for case in ("xor", "scales"):
        bayes, _, on_test = _solved(case)
        # Coefficients of noise: at chance within four deviations of 4,000 fair coins, plus what 2,000 rows mislead it.
        assert on_test["logistic regression"] == pytest.approx(0.5, abs=0.05)
        assert bayes > 0.75


# -- awkward inputs ---------------------------------------------------------------------------------------------------


def _easy(n: int, k: int = 8, classes: int = 2, seed: int = 0, gap: float = 2.0) -> tuple[NDArray, NDArray]:
    """Class z lies ``gap`` further along column z: a Bayes error of a few per cent at 2.5."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, k)).astype(np.float32)
    x[np.arange(n), y] += gap
    return x, y


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks train for 40 steps: enough for what is easy."""
    monkeypatch.setattr(networks, "train", _train_with(steps=40))


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", VECTORS)
def test_the_same_seed_gives_the_same_scores(name: str) -> None:
    x, y = _easy(260)
    task = problem(x, y, 2, 160, 50)
    torch.manual_seed(1)
    first = ATTACKERS[name](task)(x[210:])
    torch.manual_seed(2)  # whatever else has drawn from torch's global generator
    np.testing.assert_array_equal(ATTACKERS[name](task)(x[210:]), first)


@pytest.mark.usefixtures("brief")
def test_another_seed_gives_other_networks() -> None:
    x, y = _easy(260)
    a, b = (ATTACKERS["MLPs"](problem(x, y, 2, 160, 50, seed=s))(x[210:]) for s in (0, 1))
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", [name for name in VECTORS if name != "residual MLPs"])
def test_wide_releases_with_constant_columns_are_read(name: str) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(460) % 2
    hidden = rng.normal(size=(460, 10)) + 0.9 * (2 * y[:, None] - 1)  # d' = 5.7: an error below 1 %
    x = (hidden @ rng.normal(size=(10, 2000)) + 0.5 * rng.normal(size=(460, 2000))).astype(np.float32)
    x[:, ::50] = 0.3
    task = problem(x, y, 2, 260, 60)
    score = ATTACKERS[name](task)(x[320:])
    assert np.isfinite(score).all()
    assert metrics.balanced_accuracy(y[320:], score.argmax(1), classes=2) > 0.9


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", VECTORS)
def test_a_class_that_training_lacks_scores_lowest_or_never_wins(name: str) -> None:
    x, y = _easy(500, classes=3, gap=3.0)
    keep = np.r_[np.flatnonzero(y[:300] != 1), 300:500]
    x, y = x[keep], y[keep]
    train = len(keep) - 200
    score = ATTACKERS[name](problem(x, y, 3, train, 80))(x[train + 80 :])
    rest = y[train + 80 :]
    assert score.shape == (120, 3)
    assert np.isfinite(score).all()
    others = rest != 1
    assert (score[others].argmax(1) == rest[others]).mean() > 0.9
    assert (score.argmax(1) == 1).mean() < 0.02


def test_logistic_finds_a_small_direction_under_large_shared_variation() -> None:
    # Both columns carry the same large value; their difference, a hundredth of it, is the label.
    rng = np.random.default_rng(0)
    y = np.arange(1200) % 2
    shared = rng.normal(size=1200)
    x = np.stack([shared, shared + 0.01 * (2 * y - 1 + 0.2 * rng.normal(size=1200))], 1).astype(np.float32)
    score = ATTACKERS["logistic regression"](problem(x, y, 2, 600, 200))(x[800:])
    assert metrics.macro_auc(y[800:], score, classes=2) > 0.9


def test_standardised_values_ignore_offset_and_scale_and_drop_constants() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100_000, 3)).astype(np.float32)
    x[:, 2] = np.float32(0.3)  # its float32 mean, summed in order, is off in the third digit
    moved = (x * np.float32(1e-4) + np.float32(5e-4)).astype(np.float32)
    a, b = Standardiser.fit(x)(x), Standardiser.fit(moved)(moved)
    assert not a[:, 2].any()
    assert not b[:, 2].any()
    np.testing.assert_allclose(a[:, :2].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(a[:, :2].std(0), 1, atol=1e-3)
    np.testing.assert_allclose(a[:, :2], b[:, :2], atol=1e-3)


def test_standardised_values_stop_at_ten_deviations() -> None:
    x = np.random.default_rng(0).normal(size=(200, 1)).astype(np.float32)
    seen = Standardiser.fit(x)(np.array([[1e6], [-1e6]], np.float32))
    np.testing.assert_array_equal(seen, [[10], [-10]])


# -- failures ---------------------------------------------------------------------------------------------------------


def test_a_network_that_meets_nan_did_not_converge() -> None:
    x, y = _easy(200)
    x[3, 1] = np.nan
    with pytest.raises(DidNotConverge, match="loss became nan"):
        ATTACKERS["MLPs"](problem(x, y, 2, 150, 50))


def test_a_network_that_explodes_did_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _easy(200)
    monkeypatch.setattr(networks, "train", _train_with(lr=1e30))
    with pytest.raises(DidNotConverge):
        ATTACKERS["MLPs"](problem(x, y, 2, 150, 50))


def test_a_logistic_regression_that_stops_early_did_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _easy(200)
    monkeypatch.setattr(classical, "LogisticRegression", lambda **kw: LogisticRegression(**{**kw, "max_iter": 1}))
    with pytest.raises(DidNotConverge, match="2000 iterations"):
        ATTACKERS["logistic regression"](problem(x, y, 2, 150, 50))


# -- images and maps --------------------------------------------------------------------------------------------------


def _bars(n: int) -> tuple[NDArray, NDArray]:
    """Faint bars across noise in 8x8 images, upright or level, anywhere: no pixel alone tells which."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    x = rng.normal(120, 2, size=(n, 8, 8))
    place = rng.integers(8, size=n)
    for row in range(n):
        x[(row, slice(None), place[row]) if y[row] else (row, place[row])] += 10
    return x.round().astype(np.uint8), y


def test_six_convolutions_read_maps_of_any_scale() -> None:
    images, y = _bars(700)
    maps = np.stack([images, 255 - images], 1).reshape(700, -1) * np.float32(1e-6) + np.float32(1e-3)
    task = problem(maps, y, 2, 500, 50, feature_map=(2, 8, 8))
    score = ATTACKERS["six convolutions"](task)(maps[550:])
    assert score.shape == (150, 2)
    assert (score.argmax(1) == y[550:]).mean() > 0.9


def test_a_residual_network_reads_images_of_low_contrast() -> None:
    images, y = _bars(700)
    score = ATTACKERS["residual CNN"](problem(images, y, 2, 500, 50))(images[550:])
    assert (score.argmax(1) == y[550:]).mean() > 0.9


@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (64, 6, 6), (8, 10, 10), (3, 50, 37), (3, 101, 130), (8, 1, 1), (4, 2, 3)]
)
def test_networks_take_maps_whose_sides_do_not_halve_evenly(shape: tuple[int, int, int]) -> None:
    c, h, w = shape
    for network in (networks.SmallResNet, networks.SixConvolutions):
        assert network(c, min(h, w), 3)(torch.zeros(2, c, h, w)).shape == (2, 3)
    assert networks.PlainCNN(c, h, w, 3)(torch.zeros(2, c, h, w)).shape == (2, 3)


def test_a_plain_network_reads_what_random_views_wash_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark on the left or on the right: whoever learns from mirror images cannot tell."""
    rng = np.random.default_rng(0)
    y = np.arange(700) % 2
    images = rng.integers(0, 80, size=(700, 8, 8), dtype=np.uint8)
    images[y == 0, 2:6, 1:3] += 120
    images[y == 1, 2:6, 5:7] += 120
    task = problem(images, y, 2, 500, 50)
    assert (ATTACKERS["plain CNN"](task)(images[550:]).argmax(1) == y[550:]).mean() > 0.95
    monkeypatch.setattr(networks, "train", _train_with(steps=50))  # without mirror images it tells all by then
    assert (ATTACKERS["residual CNN"](task)(images[550:]).argmax(1) == y[550:]).mean() < 0.8


def test_colour_images_keep_their_channels() -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(4, 5, 6, 3), dtype=np.uint8)
    seen = networks._as_images(images, None)
    assert seen.shape == (4, 3, 5, 6)
    np.testing.assert_allclose(seen[2, 1, 3, 4], images[2, 3, 4, 1] / 255, rtol=1e-6)


# -- matchers ---------------------------------------------------------------------------------------------------------


def _people(people: int, images: int, seed: int, faint: float) -> tuple[NDArray, NDArray]:
    """Identity in 6 columns under 20 louder ones that change with every image; ``faint`` scales the 6."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), images)
    own = rng.normal(size=(people, 6))[who] + 0.3 * rng.normal(size=(len(who), 6))
    x = np.concatenate([faint * own, 3 * rng.normal(size=(len(who), 20))], 1)
    return (x @ np.linalg.qr(np.random.default_rng(9).normal(size=(26, 26)))[0]).astype(np.float32), who


def _matching_auc(x: NDArray, who: NDArray) -> float:
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    a, b = np.triu_indices(len(x), 1)
    return metrics.auc((x @ x.T)[a, b], who[a] == who[b])


# Two images of one person differ by 0.3 sqrt(2) in each of the 6 columns, those of two people by sqrt(2 + 2 0.09): who
# knows the columns has an AUC above .995. The loud columns drown it for cosine.
@pytest.mark.parametrize(("name", "faint", "least"), [("LDA", 1.0, 0.97), ("LDA", 0.02, 0.97), ("siamese", 2.0, 0.8)])
def test_matchers_learn_what_cosine_cannot_see(name: str, faint: float, least: float) -> None:
    x, who = _people(150, 4, 0, faint)
    fresh, people = _people(60, 4, 1, faint)
    task = Problem(x=x, y=who, x_validation=fresh, y_validation=people, classes=150, seed=0, effort="quick")
    before = _matching_auc(fresh, people)
    assert before < 0.7
    assert _matching_auc(MATCHERS[name](task)(fresh), people) > least


@pytest.mark.parametrize("name", MATCHERS)
@pytest.mark.parametrize("who", [np.zeros(20, np.int64), np.arange(20)])
def test_matchers_need_two_people_and_somebody_twice(name: str, who: NDArray) -> None:
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    with pytest.raises(InputError, match="two people"):
        MATCHERS[name](Problem(x=x, y=who, x_validation=x, y_validation=who, classes=20, seed=0))


@pytest.mark.usefixtures("brief")
def test_a_siamese_network_on_images_takes_random_views() -> None:
    images, _ = _bars(40)
    who = np.repeat(np.arange(20), 2)
    task = Problem(x=images, y=who, x_validation=images, y_validation=who, classes=20, seed=0, effort="quick")
    vectors = MATCHERS["siamese"](task)(images)
    assert vectors.shape == (40, 128)
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize("width", [3, 400])
def test_constant_releases_tell_nothing_and_stop_nobody(width: int) -> None:
    p = problem(np.ones((300, width), np.float32), np.arange(300) % 4, 4, 200, 60)
    for attack in (classical.logistic, classical.rbf_svm):
        scores = attack(p)(p.x_validation)
        assert np.isfinite(scores).all()
        assert np.ptp(scores, axis=0).max() == 0
    assert np.isfinite(MATCHERS["LDA"](p)(p.x_validation)).all()


def test_a_column_far_from_zero_is_read() -> None:
    """Single precision holds 2,000,001 and its neighbours, one by one."""
    y = np.arange(900) % 2
    x = np.random.default_rng(0).normal(size=(900, 4)).astype(np.float32)
    x[:, 0] = 2_000_001 + 2 * y + np.random.default_rng(1).integers(2, size=900)
    score = classical.logistic(problem(x, y, 2, 400, 300))
    assert (score(x[700:]).argmax(1) == y[700:]).mean() == 1
