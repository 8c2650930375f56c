"""Losses against answers by hand, naive loops, and what theory says of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from veil.losses import (
    balanced_weights,
    confusion,
    contrastive,
    cross_entropy,
    energy_distance,
    supervised_contrastive,
)


def unit(rows: int, k: int = 6, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(rows, k, generator=torch.Generator().manual_seed(seed)), dim=1)


# Cross-entropy and its weights


def test_cross_entropy_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    codes = torch.tensor([0, 1])
    expected = (math.log(2) - math.log(0.8)) / 2
    assert cross_entropy(logits, codes).item() == pytest.approx(expected, rel=1e-6)
    weights = torch.tensor([3.0, 1.0, 7.0])
    expected = (3 * math.log(2) - math.log(0.8)) / 2
    assert cross_entropy(logits, codes, weights).item() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_ignores_unknown_codes():
    logits = torch.randn(6, 3, requires_grad=True)
    codes = torch.tensor([0, -1, 2, 1, -1, 1])
    known = codes >= 0
    loss = cross_entropy(logits, codes)
    assert torch.equal(loss, cross_entropy(logits[known], codes[known]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[~known] == 0).all()
    assert (gradient[known] != 0).all()


def test_cross_entropy_of_nothing_known_is_zero_and_differentiable():
    logits = torch.randn(3, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((3,), -1))
    assert loss.item() == 0.0
    assert (torch.autograd.grad(loss, logits)[0] == 0).all()


def test_weighted_cross_entropy_of_halves_averages_to_the_whole():
    """What several processes rely on; with a mean by weight it would be off by a tenth here."""
    logits = torch.randn(8, 2)
    codes = torch.tensor([0, 0, 0, 1, 0, 1, 1, 1])
    weights = balanced_weights(torch.tensor([6, 2]))
    whole = cross_entropy(logits, codes, weights)
    halves = [cross_entropy(a, b, weights) for a, b in zip(logits.split(4), codes.split(4), strict=True)]
    torch.testing.assert_close(torch.stack(halves).mean(), whole, rtol=1e-6, atol=0)


def test_balanced_weights_make_classes_count_the_same():
    counts = torch.tensor([30, 10, 60])
    weights = balanced_weights(counts)
    torch.testing.assert_close(weights * counts, torch.full((3,), 100 / 3))
    assert torch.isfinite(balanced_weights(torch.tensor([4, 0]))).all()


# Confusion


def test_confusion_is_log_z_at_best():
    for z in (2, 5):
        assert confusion(torch.full((4, z), 3.0)).item() == pytest.approx(math.log(z), rel=1e-6)
        assert confusion(torch.randn(100, z)).item() > math.log(z)
    logits = torch.zeros(4, 3, requires_grad=True)
    assert torch.autograd.grad(confusion(logits), logits)[0].abs().max() < 1e-7
    assert confusion(torch.tensor([[1e4, 0.0]])).item() == pytest.approx(5e3)  # confident: far from the minimum


# Contrastive


def test_contrastive_by_hand():
    """AIA, Eq. 7, with margin 2: 1.5^2/2 for one person; (2 - 0.5)^2/2 and max(0, 2 - 3)^2/2 = 0 for two."""
    distance = torch.tensor([1.5, 0.5, 3.0])
    different = torch.tensor([False, True, True])
    assert contrastive(distance, different, 2.0).item() == pytest.approx((1.125 + 1.125 + 0) / 3, rel=1e-6)
    assert contrastive(torch.tensor([0.0, 2.0]), torch.tensor([0, 1]), 2.0).item() == 0.0


# Supervised contrastive


def naive_supcon(z: np.ndarray, identity: list[int], t: float, group: list[int] | None) -> float:
    n, anchors = len(z), []
    for i in range(n):
        positives = [p for p in range(n) if p != i and identity[p] == identity[i]]
        others = [
            a for a in range(n) if a != i and (group is None or group[a] == group[i] or identity[a] == identity[i])
        ]
        if not positives:
            continue
        bottom = sum(math.exp(float(z[i] @ z[a]) / t) for a in others)
        anchors.append(-sum(math.log(math.exp(float(z[i] @ z[p]) / t) / bottom) for p in positives) / len(positives))
    return sum(anchors) / len(anchors)


IDENTITY = [0, 0, 1, 1, 1, 2, 3, 3, 4, 4]  # identity 2 has one row only


@pytest.mark.parametrize(
    "group",
    [None, [0, 0, 1, 1, 1, 0, 1, 1, 0, 0], [0, 1, 1, 0, 1, 0, 1, 1, 0, 0], [5, 0, 1, 2, 1, 3, 1, 1, 0, 0]],
    ids=["everybody", "of the person", "of the image", "groups of one"],
)
def test_supervised_contrastive_equals_the_double_loop(group):
    z = unit(10).requires_grad_()
    codes = None if group is None else torch.tensor(group)
    loss = supervised_contrastive(z, torch.tensor(IDENTITY), 0.2, codes)
    expected = naive_supcon(z.detach().double().numpy(), IDENTITY, 0.2, group)
    assert loss.item() == pytest.approx(expected, rel=1e-5)  # similarities of 5 in float32: 5 * 2^-24 each
    assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


def test_supervised_contrastive_is_bounded_below():
    """Never below 0, whatever the groups: else a run could win without end by pulling a couple together."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        identity, group = torch.tensor(rng.integers(4, size=12)), torch.tensor(rng.integers(6, size=12))
        assert supervised_contrastive(unit(12, seed=seed), identity, 0.05, group).item() >= 0


def test_groups_remove_the_pull_between_them():
    """The loss of two groups is that of each alone: telling them apart earns nothing."""
    z, identity, group = unit(6), torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 0, 0, 1, 1])
    apart = 4 * supervised_contrastive(z[:4], identity[:4], 0.2) + 2 * supervised_contrastive(z[4:], identity[4:], 0.2)
    torch.testing.assert_close(supervised_contrastive(z, identity, 0.2, group), apart / 6)
    assert supervised_contrastive(z, identity, 0.2).item() > apart.item() / 6 + 0.1


def test_supervised_contrastive_without_couples_is_zero():
    z = unit(4).requires_grad_()
    loss = supervised_contrastive(z, torch.arange(4), 0.1)
    assert loss.item() == 0.0
    assert (torch.autograd.grad(loss, z)[0] == 0).all()


# Energy distance


def naive_energy(x: np.ndarray, codes: list[int], classes: int) -> float:
    def mean_gap(a: np.ndarray, b: np.ndarray, skip: bool) -> float:
        gaps = [float(np.linalg.norm(p - q)) for i, p in enumerate(a) for j, q in enumerate(b) if not (skip and i == j)]
        return sum(gaps) / len(gaps)

    parts = [x[[i for i, c in enumerate(codes) if c == k]] for k in range(classes)]
    parts = [p for p in parts if len(p) > 1]
    terms = [
        2 * mean_gap(a, b, False) - mean_gap(a, a, True) - mean_gap(b, b, True)
        for i, a in enumerate(parts)
        for b in parts[i + 1 :]
    ]
    return sum(terms) / len(terms)


def test_energy_distance_equals_the_double_loop():
    z = torch.randn(12, 3)
    codes = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 3, -1]  # class 3 has one row, one row is unknown
    got = energy_distance(z, torch.tensor(codes), 4).item()
    assert got == pytest.approx(naive_energy(z.double().numpy(), codes, 4), rel=1e-5)


def test_energy_distance_by_hand():
    """Points 0, 2 against 10, 14 on a line: 2 * (10 + 14 + 8 + 12) / 4 - 2 - 4."""
    z = torch.tensor([[0.0], [2.0], [10.0], [14.0]])
    assert energy_distance(z, torch.tensor([0, 0, 1, 1]), 2).item() == pytest.approx(16.0)


def test_energy_distance_is_unbiased_and_sees_a_shift():
    """Of one distribution it is 0 on average: over 400 draws the mean lies within 5 standard errors.

    (The biased estimate, whose sums within a class count the pairs of a point with itself, would be off by
    2 E|a - a'| / n = 0.33 with n = 16 standard normals in 4 dimensions: more than 15 standard errors.)
    """
    rng = torch.Generator().manual_seed(0)
    codes = torch.arange(32) % 2
    same = torch.stack([energy_distance(torch.randn(32, 4, generator=rng), codes, 2) for _ in range(400)])
    error = same.std() / 400**0.5
    assert same.mean().abs() < 5 * error
    assert 5 * error < 0.1
    shift = torch.stack(
        [energy_distance(torch.randn(32, 4, generator=rng) + codes[:, None], codes, 2) for _ in range(50)]
    )
    assert shift.min() > 0.1


def test_energy_distance_gradient_is_finite_on_equal_rows():
    z = torch.ones(6, 3, requires_grad=True)
    loss = energy_distance(z, torch.arange(6) % 2, 2)
    assert loss.item() == 0.0
    assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


def test_energy_distance_of_one_class_is_zero():
    z = torch.randn(4, 3, requires_grad=True)
    loss = energy_distance(z, torch.zeros(4, dtype=torch.int64), 2)
    assert loss.item() == 0.0
    assert (torch.autograd.grad(loss, z)[0] == 0).all()
