"""Gaussians of classes and the optimal transport of each to their barycentre, in closed form.

Moved so, vectors of all classes have one mean and, but for what shrinkage leaves, one covariance, and are moved no
further than that takes (maps of Gaussians: Dowson and Landau, J. Multivariate Anal. 12(3), 1982). The barycentre is the
fixed point of Alvarez-Esteban et al., "A fixed-point approach to barycenters in Wasserstein space" (2016), Theorem 4.2.
Covariances are shrunk to the pooled one, by a share that the caller says, or that makes held-out people likeliest
(:func:`choose_shrinkage`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.errors import InputError

SHRINKAGES = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Among which :func:`choose_shrinkage` chooses."""


def power(symmetric: NDArray[Any], exponent: float) -> NDArray[Any]:
    """A power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * np.maximum(values, values[-1] * 1e-12) ** exponent) @ vectors.T  # type: ignore[no-any-return]


def transport_maps(
    x: NDArray[Any], codes: NDArray[Any], classes: int, shrinkage: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Centre ``(k,)``, means ``(Z, k)`` and maps ``(Z, k, k)`` from every class's Gaussian to their barycentre.

    The barycentre's covariance B is the fixed point of B <- B^-1/2 (mean_c (B^1/2 C_c B^1/2)^1/2)^2 B^-1/2; the map of
    class c is C_c^-1/2 (C_c^1/2 B C_c^1/2)^1/2 C_c^-1/2, which is symmetric. Classes count the same, whatever their
    size; one without vectors stays where it is.

    Args:
        x: ``(n, k)``.
        codes: ``(n,)`` classes, 0 .. Z - 1.
        classes: Z.
        shrinkage: Share of the pooled covariance in every class's, in [0, 1].
    """
    k = x.shape[1]
    present, means, covariances = _gaussians(x, codes, shrinkage)
    barycentre = covariances.mean(0)
    for _ in range(50):
        root, inverse = power(barycentre, 0.5), power(barycentre, -0.5)
        step = np.mean([power(root @ c @ root, 0.5) for c in covariances], axis=0)
        following = inverse @ step @ step @ inverse
        moved = np.abs(following - barycentre).max()
        barycentre = following
        if moved <= 1e-9 * np.abs(barycentre).max():
            break
    centre = means.mean(0)
    all_means, maps = np.tile(centre, (classes, 1)), np.tile(np.eye(k), (classes, 1, 1))
    for c, mean, covariance in zip(present, means, covariances, strict=True):
        root, inverse = power(covariance, 0.5), power(covariance, -0.5)
        all_means[c], maps[c] = mean, inverse @ power(root @ barycentre @ root, 0.5) @ inverse
    return centre, all_means, maps


def choose_shrinkage(x: NDArray[Any], codes: NDArray[Any], people: NDArray[Any], rng: np.random.Generator) -> float:
    """The shrinkage under which Gaussians of one half of the people make the other half likeliest, both ways round.

    Args:
        x: ``(n, k)``.
        codes: ``(n,)`` classes.
        people: ``(n,)``; vectors of one person stay on one side.
        rng: Divides the people.
    """
    names = np.unique(people)
    first = np.isin(people, rng.permutation(names)[: len(names) // 2])
    totals = np.zeros(len(SHRINKAGES))
    for side in (first, ~first):
        for i, shrinkage in enumerate(SHRINKAGES):
            for c, mean, covariance in zip(*_gaussians(x[side], codes[side], shrinkage), strict=True):
                others = x[~side & (codes == c)] - mean
                if len(others):  # per class, so that a small one counts as much as a large one
                    half = np.linalg.solve(np.linalg.cholesky(covariance), others.T)
                    totals[i] -= np.square(half).sum() / len(others) + np.linalg.slogdet(covariance)[1]
    return SHRINKAGES[int(totals.argmax())]


def _gaussians(
    x: NDArray[Any], codes: NDArray[Any], shrinkage: float
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    """Classes that occur, their means ``(Z', k)`` and shrunk covariances ``(Z', k, k)``, in float64."""
    present = np.unique(codes)
    x = x.astype(np.float64)
    means = np.stack([x[codes == c].mean(0) for c in present])
    centred = x - means[np.searchsorted(present, codes)]
    each = np.stack([centred[codes == c].T @ centred[codes == c] / (codes == c).sum() for c in present])
    pooled = each.mean(0)
    if not np.trace(pooled) > 0:
        raise InputError("alignment needs different vectors of one private class, got at most one of each")
    # Vectors on a sphere, or fewer than k of them, leave directions without variance: no inverse without a ridge.
    pooled += 1e-3 * np.trace(pooled) / len(pooled) * np.eye(len(pooled))
    return present, means, (1 - shrinkage) * each + shrinkage * pooled
