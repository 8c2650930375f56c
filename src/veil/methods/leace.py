"""LEACE: Belrose et al., "LEACE: Perfect linear concept erasure in closed form" (2023), Theorem 4.3.

A baseline, on the input or on another method's releases: the smallest linear change after which no linear attacker
beats chance. Nonlinear attackers undo it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.methods.base import build_base, build_decoder, described, guessing, underneath
from veil.methods.labels import require_classes
from veil.methods.protocol import Algorithm, Fitted, Task
from veil.methods.settings import checked
from veil.release.contract import Contract


@dataclass(frozen=True, kw_only=True)
@checked("leace")
class Config:
    """Settings of the baseline LEACE; there are none to choose."""

    renew: bool = False
    """Turn releases by an orthogonal matrix of the key: those of another key do not match them."""
    rank: int = 0
    """Number of directions erased; set by fit."""
    base: Mapping[str, Any] = field(default_factory=dict)
    """The release underneath (method, config, contract); set by fit."""


class Eraser(nn.Module):
    """r(x) = x - L R (x - mean), the affine map of LEACE with L ``(k, Z)`` and R ``(Z, k)``."""

    mean: Tensor
    left: Tensor
    right: Tensor

    def __init__(self, k: int, rank: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(k))
        self.register_buffer("left", torch.zeros(k, rank))
        self.register_buffer("right", torch.zeros(rank, k))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, k)`` -> ``(B, k)``."""
        return x - (x - self.mean) @ self.right.T @ self.left.T


def leace(x: NDArray[Any], z: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Mean ``(k,)``, L ``(k, c)`` and R ``(c, k)`` of LEACE's eraser of the concept z.

    With W the inverse square root of Cov(x), the theorem's eraser is x - W^+ P W (x - mean), P the projection on the
    columns of W Cov(x, z). Written out, W cancels: with A = Cov(x)^-1 Cov(x, z) it is
    x - Cov(x, z) (Cov(z, x) A)^+ A^T (x - mean), so one symmetric solve replaces an eigendecomposition. Memory is n k
    and the square of the smaller of n and k.

    Args:
        x: ``(n, k)``.
        z: ``(n, c)``; indicator columns of the classes, of several attributes side by side.
    """
    mean = x.mean(0, dtype=np.float64)
    centred, indicators = x - mean, z - z.mean(0)
    cross = centred.T @ indicators / len(x)
    # With X the centred rows, (X^T X + r)^-1 X^T = X^T (X X^T + r)^-1: of the two the smaller is solved.
    wide = x.shape[1] > len(x)
    square = torch.from_numpy((centred @ centred.T if wide else centred.T @ centred) / len(x))
    # Columns of `cross` lie in the covariance's range, so a vanishing ridge gives the pseudo-inverse's answer.
    square.diagonal().add_(1e-10 * square.diagonal().mean().clamp_min(1e-30))
    right_hand = torch.from_numpy(indicators / len(x) if wide else cross)
    solved = torch.cholesky_solve(right_hand, torch.linalg.cholesky(square)).numpy()
    if wide:
        solved = centred.T @ solved
    return mean, cross @ np.linalg.pinv(cross.T @ solved, rcond=1e-6, hermitian=True), solved.T


def train(config: Config, task: Task) -> Fitted:
    """Erase every private attribute from the base's releases; their covariances come from the ``protect`` split.

    Several attributes are erased together (their indicator columns side by side), each by the rows that know it.
    Nothing is drawn at random.
    """
    base, pack, private = underneath(task), task.pack, task.private
    pack.require(private=private, among=["protect"])
    for name in private:
        require_classes(pack, pack.rows("protect", known=name), [name])
    rows = pack.rows("protect")
    rows = rows[np.any([pack.label(name)[rows] >= 0 for name in private], axis=0)]
    indicators = [_indicators(pack.label(name)[rows], len(pack.classes[name])) for name in private]
    mean, left, right = leace(base.transform(pack.x[rows]), np.concatenate(indicators, 1))
    config = replace(config, rank=left.shape[1], base=described(base))
    encoder = build(config, base.contract)
    encoder[0].load_state_dict(base.encoder.state_dict())
    for name, value in (("mean", mean), ("left", left), ("right", right)):
        getattr(encoder[1], name).copy_(torch.from_numpy(value))
    return Fitted(
        encoder=encoder,
        contract=guessing(base.contract).turned(config.renew),
        decoder=base.decoder,
        config=config,
        upon=base,
    )


def _indicators(codes: NDArray[np.int64], classes: int) -> NDArray[Any]:
    """Indicators ``(n, Z - 1)`` of all classes but the first, which follows from theirs.

    A row of unknown class has their means: so it adds nothing to their covariance with anything.
    """
    z: NDArray[Any] = np.eye(classes)[codes, 1:]
    z[codes < 0] = z[codes >= 0].mean(0)
    return z


def build(config: Config, contract: Contract) -> nn.Sequential:
    """The base's encoder, and the eraser behind it."""
    return nn.Sequential(build_base(config.base), Eraser(contract.k, config.rank))


PRESETS: dict[str, Config] = {"default": Config()}
ALGORITHM = Algorithm(config=Config, presets=PRESETS, train=train, build=build, build_decoder=build_decoder)
