"""Matchers: trained to tell people apart. Each is a function ``match(problem) -> embed``; vectors compare by cosine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from torch import Tensor, nn

from veil.auditing.metrics import auc
from veil.auditing.networks import SmallResNet, _uniform, apply, directions, image_view, train
from veil.auditing.problem import Embed, Problem, Standardiser, View, compact, whitened
from veil.data.pack import flat
from veil.data.sampling import Couples
from veil.engine.run import has_bf16
from veil.errors import InputError
from veil.nn.augment import augment
from veil.nn.losses import supervised_contrastive
from veil.nn.nets import mlp

_MATCHED = 1000  # validation rows, all of whose pairs choose between matchers


# -- matchers ---------------------------------------------------------------------------------------------------------


def lda(problem: Problem) -> Embed:
    """Linear discriminants of the people, of columns as they are and whitened: whichever matches validation better.

    Raises InputError where there are fewer than two people, or nobody has two rows.
    """
    _check_people(np.unique(problem.y, return_counts=True)[1])
    plain = compact(problem)
    candidates = [_discriminants(problem, view) for view in (plain, whitened(problem, plain))]
    chosen = np.random.default_rng(problem.seed).permutation(len(problem.x_validation))[:_MATCHED]
    a, b = np.triu_indices(len(chosen), 1)
    who = problem.y_validation[chosen]

    def matching(embed: Embed) -> float:  # NaN without pairs of both kinds: then the first is taken
        vectors = directions(embed(problem.x_validation[chosen]))
        return float(np.nan_to_num(auc((vectors @ vectors.T)[a, b], who[a] == who[b])))

    return max(candidates, key=matching)


def _discriminants(problem: Problem, view: View) -> Embed:
    """Fisher's discriminants from pooled covariances, the one within people shrunk (Ledoit and Wolf 2004).

    Each direction counts by its share of real variation between people, b / (b + 1) with b in units of the variation
    within, as in probabilistic LDA (Ioffe 2006): noise fades out.
    """
    _, person, count = np.unique(problem.y, return_inverse=True, return_counts=True)
    x = view(problem.x).astype(np.float64)
    means = np.zeros((len(count), x.shape[1]))
    np.add.at(means, person, x)
    means /= count[:, None]
    several = count[person] > 1
    grown = np.sqrt(count / np.maximum(count - 1, 1))  # what the means have taken out of the variation
    within, _ = ledoit_wolf(((x - means[person]) * grown[person, None])[several], assume_centered=True)
    values, axes = np.linalg.eigh(within)
    whiten = axes / np.sqrt(np.maximum(values, max(values.max(), 1e-30) * 1e-9))
    centre = x.mean(0)
    spread = (means - centre) @ whiten
    between, turn = np.linalg.eigh(spread.T @ spread / len(count))
    real = np.maximum(between - (1 / count).mean(), 0)
    if not real.any():
        real = np.maximum(between, 1e-12)  # nothing stands out of the noise: compare as they are
    project = (whiten @ turn) * np.sqrt(real / (1 + real))
    return lambda new: ((view(new) - centre) @ project).astype(np.float32)


def _check_people(count: NDArray[np.int64]) -> None:
    if len(count) < 2 or count.max() < 2:
        raise InputError(
            f"needs at least two people to train on, and one with two rows; there are {len(count)} people, of at most "
            f"{count.max() if len(count) else 0} rows"
        )


def siamese(problem: Problem) -> Embed:
    """An MLP to 128 values, or a residual network where releases are images or maps; supervised contrastive loss.

    Raises InputError where there are fewer than two people, or nobody has two rows.
    """
    _check_people(np.unique(problem.y, return_counts=True)[1])
    as_images = problem.image_like
    view = image_view(problem) if as_images else Standardiser.fit(flat(problem.x))
    x = torch.from_numpy(view(problem.x))
    couples = Couples(np.arange(len(x)), problem.y)
    people = min(problem.pick(64, 96, 96), len(np.unique(problem.y)))

    def build() -> nn.Module:
        if as_images:
            return SmallResNet(x.shape[1], min(x.shape[2:]), 128)
        return mlp([x.shape[1], 384, 128], dropout=0.2)

    def loss(module: nn.Module, rng: np.random.Generator, torch_rng: torch.Generator) -> Tensor:
        rows = couples.genuine(people, rng).T.reshape(-1)
        batch = x[torch.from_numpy(rows)]
        if problem.x.ndim > 2:
            batch = augment(batch, partial(_uniform, torch_rng))
        if as_images:
            batch = batch.contiguous(memory_format=torch.channels_last)
        out = F.normalize(module(batch).float(), dim=1)
        return supervised_contrastive(out, torch.from_numpy(problem.y[rows]), 0.1)

    module = train(
        build,
        loss,
        steps=problem.pick(100 if as_images else 200, 400, 800),
        lr=1e-3,
        seed=problem.seed,
        bf16=as_images and has_bf16(x.device),
    )
    return lambda new: apply(module, view(new))


MATCHERS: dict[str, Callable[[Problem], Embed]] = {"LDA": lda, "siamese": siamese}
"""Learned matchers; the audit adds cosine and Euclidean distance of the releases themselves."""
