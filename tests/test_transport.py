"""Transport of Gaussians: one mean and covariance for all, the maps of the literature, the choice of shrinkage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from veil.nn.transport import SHRINKAGES, choose_shrinkage, transport_maps


def exact(mean: np.ndarray, covariance: np.ndarray, n: int, seed: int) -> np.ndarray:
    """``(n, k)`` with exactly this mean and covariance."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    whitened = np.linalg.solve(np.linalg.cholesky(x.T @ x / n), x.T).T
    return mean + whitened @ np.linalg.cholesky(covariance).T


def covariance(x: np.ndarray) -> np.ndarray:
    return np.cov(x.T, bias=True)


def random_covariance(k: int, seed: int) -> np.ndarray:
    a = np.random.default_rng(seed).normal(size=(k, 2 * k))
    return a @ a.T / (2 * k)


# Sums of some thousand terms in float64, and eigenvectors of 5x5 matrices of condition below 1e3: 1e-9.


def test_maps_of_commuting_gaussians():
    """One basis: the barycentre's standard deviations are the classes' means, so each map scales by mean / own."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    stds = np.array([[1.0, 2.0, 0.5], [3.0, 2.0, 0.1]])
    means = np.array([[1.0, 0.0, 0.0], [-1.0, 4.0, 0.0]])
    gaussians = [(m, basis @ np.diag(s**2) @ basis.T) for m, s in zip(means, stds, strict=True)]
    x = np.concatenate([exact(m, c, n, n) for (m, c), n in zip(gaussians, (50, 200), strict=True)])
    centre, got, maps = transport_maps(x, np.repeat([0, 1], [50, 200]), 2, shrinkage=0.0)
    np.testing.assert_allclose(got, means, atol=1e-9)
    np.testing.assert_allclose(centre, [0, 2, 0], atol=1e-9)  # classes count the same, whatever their size
    for own, transport in zip(stds, maps, strict=True):
        np.testing.assert_allclose(transport, basis @ np.diag(stds.mean(0) / own) @ basis.T, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_maps_send_all_classes_to_one_gaussian(classes):
    """Optimal maps are symmetric and positive; to the barycentre, their inverses average to the identity."""
    codes = np.repeat(np.arange(classes), 40)
    x = np.concatenate([exact(np.full(5, float(c)), random_covariance(5, c), 40, c) for c in range(classes)])
    centre, means, maps = transport_maps(x, codes, classes, shrinkage=0.0)
    moved = [centre + (x[codes == c] - means[c]) @ maps[c] for c in range(classes)]
    for one in moved:
        np.testing.assert_allclose(one.mean(0), centre, atol=1e-9)
        np.testing.assert_allclose(covariance(one), covariance(moved[0]), atol=1e-7)  # the fixed point's own tolerance
    for transport in maps:
        np.testing.assert_allclose(transport, transport.T, atol=1e-9)
        assert np.linalg.eigvalsh(transport).min() > 0
    np.testing.assert_allclose(np.linalg.inv(maps).mean(0), np.eye(5), atol=1e-7)


def test_map_of_one_class_is_the_identity():
    x = exact(np.arange(4.0), random_covariance(4, 1), 30, 0)
    centre, means, maps = transport_maps(x, np.zeros(30, int), 1, shrinkage=0.3)
    np.testing.assert_allclose(centre, means[0], atol=1e-12)
    np.testing.assert_allclose(maps[0], np.eye(4), atol=1e-9)


def test_full_shrinkage_moves_means_alone():
    x = np.concatenate([exact(np.full(4, float(c)), random_covariance(4, c), 30, c) for c in range(2)])
    _, means, maps = transport_maps(x, np.repeat([0, 1], 30), 2, shrinkage=1.0)
    np.testing.assert_allclose(means, [[0] * 4, [1] * 4], atol=1e-9)
    np.testing.assert_allclose(maps, [np.eye(4)] * 2, atol=1e-9)


def test_absent_class_stays_where_it_is():
    """A joint class that nobody has, and a class of one vector, whose covariance is the pooled one's share."""
    x = np.concatenate([exact(np.full(4, float(c)), random_covariance(4, c), 30, c) for c in range(2)])
    codes = np.append(np.repeat([0, 2], 30), 3)
    centre, means, maps = transport_maps(np.append(x, [[9.0] * 4], 0), codes, 5, shrinkage=0.5)
    probe = np.random.default_rng(0).normal(size=4)
    for absent in (1, 4):
        np.testing.assert_allclose(centre + (probe - means[absent]) @ maps[absent], probe, atol=1e-12)
    assert np.isfinite(maps).all()
    np.testing.assert_allclose(means[3], 9)
    np.testing.assert_allclose(centre, (0 + 1 + 9) / 3, atol=1e-9)


def test_shrinkage_is_the_one_under_which_the_other_half_is_likeliest():
    """Against scipy's density; two people, so that the halves are known."""
    people, codes = np.repeat([0, 1], 60), np.tile([0, 0, 1], 40)
    scale = np.where(codes[:, None] == 1, [1.0, 0.3, 2.0], [1.0, 1.0, 1.0])
    x = np.random.default_rng(3).normal(size=(120, 3)) * scale
    totals = np.zeros(len(SHRINKAGES))
    for half in (people == 0, people == 1):
        own = [x[half & (codes == c)] for c in (0, 1)]
        pooled = np.mean([covariance(v) for v in own], axis=0)
        pooled += 1e-3 * np.trace(pooled) / 3 * np.eye(3)
        for i, share in enumerate(SHRINKAGES):
            for c, v in enumerate(own):
                density = multivariate_normal(v.mean(0), (1 - share) * covariance(v) + share * pooled)
                totals[i] += density.logpdf(x[~half & (codes == c)]).mean()
    chosen = choose_shrinkage(x, codes, people, np.random.default_rng(0))
    assert chosen == SHRINKAGES[totals.argmax()]
    assert 0.01 < chosen < 0.9


def test_shrinkage_follows_how_much_the_data_tell():
    """To estimate k (k + 1) / 2 values from n vectors costs k (k + 1) / 4n of log-likelihood a vector.

    Covariances of N(0, 1) and N(0, 4): each value's mean log-density falls by 0.01 and more under a share of 0.1 of
    the pooled variance 2.5, far more than 20,000 vectors cost, so the least share wins. Equal ones gain nothing by
    being told apart, and 12 vectors of 8 values cost 1.5, so the largest wins.
    """
    rng = np.random.default_rng(0)
    codes = np.arange(20_000) % 2
    plenty = rng.normal(size=(20_000, 4)) * (1 + codes[:, None])
    assert choose_shrinkage(plenty, codes, np.arange(20_000), rng) == SHRINKAGES[0]
    few = rng.normal(size=(48, 8))
    assert choose_shrinkage(few, np.arange(48) % 2, np.arange(48), rng) == SHRINKAGES[-1]
