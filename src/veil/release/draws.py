"""What a secret key draws: the noise of released vectors, and the draws of releases that choose or replace values.

Noise is a secret smooth random **field** of the clean release z, a unit vector: n(z) = W cos(Omega z + b) sqrt(2 / F),
random Fourier features (Rahimi and Recht, "Random features for large-scale kernel machines", 2007) with F rows of
frequencies Omega from N(0, 1 / length^2), phases b from U[0, 2 pi) and weights W from N(0, 1), all of them drawn from
the key. Over keys, n(z) is standard normal, and n(z) and n(z') have the covariance exp(-|z - z'|^2 / (2 length^2)): two
people's noise is unrelated, near-duplicates have nearly the same, so that the mean of many of them has as much noise as
one. It is a function of what the encoder says and of the key alone; whoever has the key can take it away.

A release that is **renewed** is turned, noise and all, by an orthogonal matrix drawn from the key: uniformly among all
there are (Haar), the Q of a standard normal matrix's QR decomposition with a positive diagonal of R (Mezzadri, "How to
generate random matrices from the classical compact groups", Notices AMS 54, 2007). Angles, distances and lengths stay
as they are between releases of one key; those of two keys have nothing to do with each other for who has neither.

Draws among substitutes, and of replaced values, come from a keyed hash of the input instead: one input has one release,
but near-duplicates draw anew.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.errors import InputError

LENGTH = 0.5
"""Distance of unit vectors over which noise changes: 60 degrees apart have a correlation of .14, 90 degrees of .02."""
FEATURES = 1024
"""Random features for each :data:`BLOCK` values of noise: four times as many, so that no direction lacks noise."""
BLOCK = 256
"""Values of noise that share their features."""
WIDEST = 512
"""Width from which on frequencies read a sketch of a release in place of all its values."""
MOST_TURNED = 4096
"""Values of a release that can be renewed: its matrix has their square."""


@dataclass(frozen=True)
class Field:
    """A secret smooth random function of unit vectors ``(B, k)``; its arrays are as secret as the key they come from.

    Attributes:
        frequencies: ``(G F, p)``, the features of G groups of :data:`BLOCK` values of noise.
        phases: ``(G F,)``.
        weights: ``(G, F, k / G)``, rounded up; ``sqrt(2 / F)`` is in them.
        places: ``(p, m)``, the values that make up each value of a sketch; k stands for a zero. None where ``k`` is at
            most :data:`WIDEST`: frequencies then read the vectors themselves, and p is k.
        signs: ``(p, m)``, with which they are added up: so distances stay as they are (count sketch, Charikar et al.,
            "Finding frequent items in data streams", 2002).
    """

    frequencies: Tensor
    phases: Tensor
    weights: Tensor
    places: Tensor | None = None
    signs: Tensor | None = None

    @staticmethod
    def draw(key: bytes, k: int, length: float = LENGTH) -> Field:
        """The field of a key for vectors of ``k`` values; the same on every machine, up to rounding of logarithms."""
        groups = -(-k // BLOCK)
        p = min(k, WIDEST)
        frequencies = _normal(key + b"frequencies", groups * FEATURES * p).reshape(-1, p) / np.float32(length)
        phases = _uniform(key + b"phases", groups * FEATURES) * np.float32(2 * np.pi)
        weights = _normal(key + b"weights", groups * FEATURES * -(-k // groups)).reshape(groups, FEATURES, -1)
        weights *= np.float32(math.sqrt(2 / FEATURES))
        arrays = [frequencies, phases, weights]
        if k > WIDEST:
            each = -(-k // p)
            order = np.full(p * each, k)
            order[:k] = np.argsort(_uniform(key + b"places", k), kind="stable")
            signs = np.where(_uniform(key + b"signs", p * each) < 0.5, np.float32(-1), np.float32(1))
            arrays += [order.reshape(each, p).T.copy(), signs.reshape(p, each)]
        # In PyTorch's own memory, which begins where its kernels like it: elsewhere sums round otherwise, and a run
        # that is resumed would differ in its last bits.
        return Field(*(torch.from_numpy(array).clone() for array in arrays))

    def arrays(self) -> dict[str, Tensor]:
        """The arrays by name, in the order in which :class:`Field` takes them."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: array for name, array in named.items() if array is not None}

    def __call__(self, z: Tensor) -> Tensor:
        """Noise ``(B, k)``, standard normal over keys, of unit vectors ``(B, k)``."""
        read = z
        if self.places is not None and self.signs is not None:
            read = (nn.functional.pad(z, (0, 1))[:, self.places] * self.signs).sum(2)
        groups, count, _ = self.weights.shape
        features = torch.cos(read @ self.frequencies.T + self.phases).view(-1, groups, count)
        return torch.einsum("bgf,gfv->bgv", features, self.weights).flatten(1)[:, : z.shape[1]]


def orthogonal(key: bytes, k: int) -> Tensor:
    """The orthogonal matrix ``(k, k)``, float32, that a key draws: a row vector r is turned into r Q.

    The same on every machine, up to rounding.
    """
    normal = _normal(key + b"matrix", k * k).reshape(k, k).astype(np.float64)
    q, r = np.linalg.qr(normal)
    return torch.from_numpy((q * np.where(np.diag(r) < 0, -1.0, 1.0)).astype(np.float32)).clone()


def normalised_noise(z: Tensor, normal: Tensor, noise: float) -> Tensor:
    """normalise(z + noise * n / sqrt(k)) for unit vectors z and standard normal n, both ``(B, k)``: expected norm of
    the noise relative to the unit vector is ``noise``."""
    return nn.functional.normalize(z + noise * normal / z.shape[1] ** 0.5, dim=1)


def keyed_uniform(x: NDArray[np.generic], count: int, key: bytes) -> NDArray[np.float32]:
    """``count`` draws from U(0, 1) for each row of ``x``: SHAKE-128 of key and row, so equal rows draw equal values.

    0.0 and -0.0 are equal. Without the key the draws cannot be told from random; with it they are a function of the
    input alone.
    """
    rows = np.ascontiguousarray(x).reshape(len(x), -1)
    if np.issubdtype(rows.dtype, np.floating):
        rows = rows + 0.0  # which makes 0.0 of -0.0
    digests = b"".join(hashlib.shake_128(key + row.tobytes()).digest(4 * count) for row in rows)
    return _fractions(digests).reshape(len(rows), count)


def check_unit_range(values: NDArray[np.float32], first_row: int) -> None:
    """Raises InputError unless values ``(B, k)`` lie in [0, 1]: draws from there would show among others."""
    outside = np.flatnonzero(~((values >= 0) & (values <= 1)).all(1))
    if len(outside):
        row = values[outside[0]]
        raise InputError(
            f"random: values must lie in [0, 1], got {row.min():.3g} to {row.max():.3g} in row {first_row + outside[0]}"
        )


def chosen(log_p: NDArray[np.float32], uniform: NDArray[np.float32]) -> NDArray[np.int64]:
    """The code ``(B,)`` that each uniform ``(B, 1)`` draws from probabilities given as logits ``(B, K)``."""
    return position(torch.from_numpy(log_p).softmax(1), torch.from_numpy(uniform)).numpy()


def position(p: Tensor, uniform: Tensor) -> Tensor:
    """Inverse of the distribution function: the number of codes whose running sum of p lies at or below u."""
    return (p.cumsum(1) <= uniform).sum(1).clamp_max(p.shape[1] - 1)


def _uniform(seed: bytes, count: int) -> NDArray[np.float32]:
    """``count`` draws from U(0, 1): SHAKE-128 of the seed."""
    return _fractions(hashlib.shake_128(seed).digest(4 * count))


def _fractions(digest: bytes) -> NDArray[np.float32]:
    """Numbers in (0, 1), one for each 4 bytes."""
    words = np.frombuffer(digest, "<u4")
    # 23 bits and a half fit float32's 24 exactly; one more would round the largest to 1.
    return ((words >> 9).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)


def _normal(seed: bytes, count: int) -> NDArray[np.float32]:
    """``count`` standard normal draws, by Box and Muller (1958)."""
    half = (count + 1) // 2
    u = _uniform(seed, 2 * half)
    radius = np.sqrt(-2 * np.log(u[:half]))
    angle = np.float32(2 * np.pi) * u[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
