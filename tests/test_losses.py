"""Losses against answers by hand, naive loops, and what theory says of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from veil.auditing import metrics
from veil.nn.losses import (
    balanced_weights,
    confusion,
    contrastive,
    cross_entropy,
    gram_change,
    structural_similarity,
    supervised_contrastive,
)
from veil.nn.nets import to_input


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


def naive_supcon(z: np.ndarray, identity: list[int], t: float) -> float:
    anchors = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positives = [p for p in others if identity[p] == identity[i]]
        if positives:
            bottom = sum(math.exp(float(z[i] @ z[a]) / t) for a in others)
            shares = [math.log(math.exp(float(z[i] @ z[p]) / t) / bottom) for p in positives]
            anchors.append(-sum(shares) / len(shares))
    return sum(anchors) / len(anchors)


def test_supervised_contrastive_equals_the_double_loop():
    identity = [0, 0, 1, 1, 1, 2, 3, 3, 4, 4]  # identity 2 has one row only
    z = unit(10).requires_grad_()
    loss = supervised_contrastive(z, torch.tensor(identity), 0.2)
    expected = naive_supcon(z.detach().double().numpy(), identity, 0.2)
    assert loss.item() == pytest.approx(expected, rel=1e-5)  # similarities of 5 in float32: 5 * 2^-24 each
    assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


def test_supervised_contrastive_is_log_of_the_others_when_all_rows_are_equal():
    z = torch.ones(8, 1)
    assert supervised_contrastive(z, torch.arange(8) // 2, 0.1).item() == pytest.approx(math.log(7), rel=1e-6)


def test_supervised_contrastive_is_bounded_below():
    """Never below 0: else a run could win without end by pulling a couple together."""
    for seed in range(20):
        identity = torch.tensor(np.random.default_rng(seed).integers(4, size=12))
        assert supervised_contrastive(unit(12, seed=seed), identity, 0.05).item() >= 0


def test_supervised_contrastive_without_couples_is_zero():
    z = unit(4).requires_grad_()
    loss = supervised_contrastive(z, torch.arange(4), 0.1)
    assert loss.item() == 0.0
    assert (torch.autograd.grad(loss, z)[0] == 0).all()


# Change of cosines


def test_gram_change_equals_the_double_loop():
    g, z, group = unit(7, seed=1), unit(7, seed=2), [0, 1, 0, 2, 1, 0, 0]
    pairs = [(i, j) for i in range(7) for j in range(7) if group[i] == group[j]]
    expected = sum(float(g[i] @ g[j] - z[i] @ z[j]) ** 2 for i, j in pairs) / len(pairs)
    assert gram_change(g, z, torch.tensor(group)).item() == pytest.approx(expected, rel=1e-5)


def test_gram_change_leaves_pairs_across_groups_free():
    """Turning one group as a whole changes no angle within it; with one group for all it would cost."""
    z, group = unit(8), torch.arange(8) % 2
    turn = torch.linalg.qr(torch.randn(6, 6))[0]
    g = torch.where(group[:, None] == 0, z, z @ turn)
    assert gram_change(g, z, group).item() < 1e-12  # squares of some 2^-24
    assert gram_change(g, z, torch.zeros(8, dtype=torch.int64)).item() > 0.01
    assert gram_change(z, z, group).item() == 0.0


@pytest.mark.parametrize("shape", [(3, 24, 17), (3, 12, 11, 3)])
def test_structural_similarity_is_the_metric(shape):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, shape, dtype=np.uint8)
    b = np.clip(a.astype(int) + rng.integers(-60, 60, shape), 0, 255).astype(np.uint8)
    found = structural_similarity(to_input(a, "images"), to_input(b, "images"))
    np.testing.assert_allclose(found.numpy(), metrics.ssim(a, b), atol=1e-4)
