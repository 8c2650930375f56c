"""Losses that more than one method uses: pure functions of tensors, each with its equation and source.

Label tensors are int64 codes ``(B,)``; -1 means unknown and never contributes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, codes: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean of -log softmax(logits)[code] over the known codes; 0 if the batch has none.

    Weighted losses are divided by the number of known codes, not by the sum of their weights: that sum is the whole
    batch's to know, and the mean over several processes' rows must be the mean over all.

    Args:
        logits: ``(B, Z)``.
        codes: ``(B,)``, -1 for unknown.
        class_weights: ``(Z,)``; :func:`balanced_weights` makes every class count the same.
    """
    known = codes >= 0
    if not known.any():
        return logits.sum() * 0.0
    return F.cross_entropy(logits[known].float(), codes[known], weight=class_weights, reduction="none").mean()


def balanced_weights(counts: Tensor) -> Tensor:
    """Weights ``(Z,)`` inversely proportional to the classes' counts, so that a batch's expected weight is 1 a row."""
    counts = counts.float().clamp_min(1.0)
    return counts.sum() / (len(counts) * counts)


def confusion(logits: Tensor) -> Tensor:
    """Cross-entropy of the prediction to the uniform prior: -1/Z sum_z log softmax(logits)[z], averaged over rows.

    Bounded below by log Z, which it reaches when the attacker says nothing; unlike -cross_entropy it cannot be "won"
    by making one attacker confidently wrong (which a fresh attacker undoes). With class-balanced attackers the uniform
    prior is the label prior.
    """
    return -F.log_softmax(logits.float(), dim=1).mean()


def contrastive(distance: Tensor, different: Tensor, margin: float) -> Tensor:
    """(1 - y) D^2 / 2 + y max(0, m - D)^2 / 2, averaged (AIA, Eq. 7; Hadsell, Chopra and LeCun 2006).

    Args:
        distance: Euclidean distances D of the pairs, ``(P,)``.
        different: y, 1 for a pair of different people and 0 for a pair of one person, ``(P,)``.
        margin: m > 0.
    """
    y = different.to(distance.dtype)
    return ((1 - y) * distance.square() / 2 + y * (margin - distance).clamp_min(0).square() / 2).mean()


def supervised_contrastive(z: Tensor, identity: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, Eq. 2) over all pairs of a batch of unit vectors.

    Args:
        z: ``(B, k)``, unit length.
        identity: ``(B,)`` codes; every anchor needs another row of its identity, anchors without one are left out.
        temperature: > 0.
    """
    similarity = z.float() @ z.float().T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    positive = (identity[:, None] == identity[None]) & ~itself
    log_p = similarity - similarity.masked_fill(itself, float("-inf")).logsumexp(1, keepdim=True)
    count = positive.sum(1)
    anchors = count > 0
    per_anchor = (log_p.masked_fill(~positive, 0.0).sum(1) / count.clamp_min(1))[anchors]
    return -per_anchor.mean() if len(per_anchor) else z.sum() * 0.0


def gram_change(g: Tensor, z: Tensor, group: Tensor) -> Tensor:
    """Mean squared change of the cosines between rows of one group: mean over pairs of (g g^T - z z^T)^2.

    Args:
        g: ``(B, k)`` unit vectors, changed.
        z: ``(B, k)`` the same rows before.
        group: ``(B,)`` codes; pairs across groups are free to change.
    """
    same = group[:, None] == group[None]
    return (g @ g.T - z @ z.T)[same].square().mean()


def reconstruction(redrawn: Tensor, x: Tensor) -> Tensor:
    """Binary cross-entropy of logits of redrawn images against images; squared error of vectors ``(B, d)``."""
    if x.dim() == 2:
        return F.mse_loss(redrawn, x)
    return F.binary_cross_entropy_with_logits(redrawn, x.clamp(0, 1))


def pixel_error(drawn: Tensor, x: Tensor) -> Tensor:
    """Mean squared error of each image ``(B,)``, in [0, 1] for images ``(B, C, H, W)`` in [0, 1]."""
    return (drawn.float() - x).square().flatten(1).mean(1)


def perceptual_distance(drawn: Sequence[Tensor], x: Sequence[Tensor]) -> Tensor:
    """Mean squared distance ``(B,)`` of unit features, averaged over places and stages; in [0, 4].

    Features of every place are brought to length 1 first (as in LPIPS, Zhang et al. 2018, Eq. 1 without weights), so
    that the distance is bounded, and means the same, whatever network they come from.

    Args:
        drawn: Maps ``(B, C, h, w)`` of one image, a stage each.
        x: Those of the other.
    """
    stages = [
        (F.normalize(a.float(), dim=1, eps=1e-4) - F.normalize(b.float(), dim=1, eps=1e-4)).square().sum(1).mean((1, 2))
        for a, b in zip(drawn, x, strict=True)
    ]
    return torch.stack(stages).mean(0)


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """That of images ``(B, C, H, W)`` in [0, 1], ``(B,)`` in [-1, 1]; H and W of 11 pixels and more.

    Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 13(4), 2004, as :func:`veil.auditing.metrics.ssim` has it.
    """
    a, b = a.float(), b.float()
    maps = torch.stack([a, b, a * a, b * b, a * b])
    down, across = (_windows(side, a.device) for side in a.shape[2:])
    local = down @ maps @ across.T  # on CPUs some 20 times as fast as convolutions of one channel
    ma, mb, aa, bb, ab = local.flatten(2)
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * ma * mb + c1) * (2 * (ab - ma * mb) + c2)
    index = index / ((ma * ma + mb * mb + c1) * (aa - ma * ma + bb - mb * mb + c2))
    out: Tensor = index.mean(1)
    return out


def _windows(side: int, device: torch.device) -> Tensor:
    """``(side - 10, side)``: the weights of every Gaussian window of 11 pixels, deviation 1.5, along a side."""
    place = torch.arange(side, device=device, dtype=torch.float32)
    away = place - torch.arange(5, side - 5, device=device, dtype=torch.float32)[:, None]
    weights = (-away.square() / (2 * 1.5**2)).exp().where(away.abs() <= 5, 0)
    return weights / weights.sum(1, keepdim=True)
