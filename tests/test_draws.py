"""What a key draws: uniform draws of inputs, and fields of noise, against what is known of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from veil.release import draws
from veil.release.draws import BLOCK, WIDEST, Field, keyed_uniform, normalised_noise

KEY = bytes(range(32))


def furthest(sample: np.ndarray, cdf: np.ndarray) -> float:
    """Kolmogorov's distance of a sorted sample's steps from its distribution function."""
    n = len(sample)
    return float(max(np.abs(cdf - np.arange(n) / n).max(), np.abs(cdf - np.arange(1, n + 1) / n).max()))


ROWS = np.arange(4000, dtype=np.float32)[:, None]
# Dvoretzky, Kiefer and Wolfowitz: P(distance > e) <= 2 exp(-2 n e^2); e here has a chance of 1e-9 for true draws.
BOUND = math.sqrt(math.log(2e9) / (2 * 4000 * 25))


def test_keyed_uniform_is_uniform():
    u = keyed_uniform(ROWS, 25, KEY)
    assert u.dtype == np.float32
    assert u.min() > 0
    assert u.max() < 1
    flat = np.sort(u.ravel()).astype(np.float64)
    assert furthest(flat, flat) < BOUND
    # No draw is used twice, and neighbours are uncorrelated: 5 standard deviations of 1 / sqrt(n).
    assert np.abs(np.corrcoef(u.T) - np.eye(25)).max() < 5 / math.sqrt(4000)
    assert np.abs(np.corrcoef(u[:-1].ravel(), u[1:].ravel())[0, 1]) < 5 / math.sqrt(u.size)


def test_keyed_uniform_never_reaches_its_ends(monkeypatch):
    class Digest:
        def __init__(self, fill: bytes) -> None:
            self.fill = fill

        def digest(self, n: int) -> bytes:
            return self.fill * n

    for fill in (b"\x00", b"\xff"):
        monkeypatch.setattr(draws.hashlib, "shake_128", lambda _, fill=fill: Digest(fill))
        u = keyed_uniform(ROWS[:1], 3, KEY)
        assert (u > 0).all()
        assert (u < 1).all()


def test_keyed_uniform_knows_one_zero():
    x = np.zeros((1, 4), np.float32)
    assert (keyed_uniform(x, 9, KEY) == keyed_uniform(-x, 9, KEY)).all()


# Fields


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def keys(count: int) -> list[bytes]:
    return [i.to_bytes(32, "little") for i in range(count)]


def apart(z: torch.Tensor, distance: float) -> torch.Tensor:
    """A unit vector at that distance of each."""
    across = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    across = F.normalize(across - (across * z).sum(-1, keepdim=True) * z, dim=-1)
    cosine = 1 - distance**2 / 2
    return cosine * z + math.sqrt(1 - cosine**2) * across


def test_a_field_is_standard_normal_over_keys():
    z = unit(1, 4)
    values = np.sort(np.concatenate([Field.draw(key, 4)(z).ravel().numpy() for key in keys(500)])).astype(np.float64)
    cdf = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in values])
    # As BOUND, for 2,000 values. Given its features a field is exactly normal; their number leaves its variance within
    # some 1 / sqrt(2 * 1024) of 1, which is far less than what is seen here.
    assert furthest(values, cdf) < math.sqrt(math.log(2e9) / (2 * 2000))
    assert abs(values.var() - 1) < 5 * math.sqrt(2 / 2000)


@pytest.mark.parametrize("k", [16, 300, 700])
@pytest.mark.parametrize(("distance", "length"), [(0.1, 0.5), (0.5, 0.5), (1.0, 0.5), (1.0, 1.0)])
def test_fields_of_near_vectors_are_alike_as_their_distance_says(k, distance, length):
    z = unit(1, k)
    both = torch.cat([z, apart(z, distance)])
    products = np.array([(n[0] * n[1]).mean().item() for n in (Field.draw(key, k, length)(both) for key in keys(20))])
    expected = math.exp(-(distance**2) / (2 * length**2))
    # A mean of 20 k products of standard normals, 5 errors; a sketch of 512 values changes distances by 1 / sqrt(256).
    sketched = 5 * expected * distance**2 / (2 * length**2) / math.sqrt(WIDEST / 2) if k > WIDEST else 0.0
    assert products.mean() == pytest.approx(expected, abs=5 * math.sqrt(2 / (20 * k)) + sketched)


@pytest.mark.parametrize("k", [64, BLOCK + 44, 2 * BLOCK + 88])
def test_a_field_leaves_no_direction_without_noise(k):
    """One whose noise lay in fewer dimensions than its vectors would give the others away."""
    noise = Field.draw(KEY, k)(unit(4 * k, k)).numpy().astype(np.float64)
    values = np.linalg.svd(noise / math.sqrt(len(noise)), compute_uv=False)
    assert len(values) == k
    # Of 4 k rows of independent noise the least is near 1 - sqrt(1 / 4); features, four for each value, take as much.
    assert values[-1] > 0.15


def test_a_field_follows_its_key():
    z = unit(50, 32)
    one = Field.draw(KEY, 32)(z)
    assert torch.equal(Field.draw(KEY, 32)(z), one)
    other = Field.draw(bytes(32), 32)(z)
    # 1,600 products of independent normals, some of them of rows with related noise.
    assert abs((one * other).mean().item()) < 0.15
    assert list(Field.draw(KEY, 32).arrays()) == ["frequencies", "phases", "weights"]
    assert list(Field.draw(KEY, WIDEST + 1).arrays()) == ["frequencies", "phases", "weights", "places", "signs"]


def test_noise_has_the_norm_it_says():
    """Before the result is scaled back to unit length: noise 0.7 times a standard normal of expected square 1."""
    k, rows = 64, 4000
    z = torch.zeros(rows, k)
    z[:, 0] = 1
    normal = torch.randn(rows, k, generator=torch.Generator().manual_seed(0))
    expected = z + 0.7 * normal / math.sqrt(k)
    torch.testing.assert_close(normalised_noise(z, normal, 0.7), F.normalize(expected, dim=1))
    square = (expected - z).square().sum(1)
    assert square.mean().item() == pytest.approx(0.49, abs=5 * 0.49 * math.sqrt(2 / (k * rows)))
