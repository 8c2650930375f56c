"""Random: AIA's baseline (Sec. 5.3).

On the input or on another method's releases, part of each vector's values is replaced by draws from U[0, 1], into which
values that lie elsewhere are brought before, by the mean and the deviation of each. The draws come from a keyed hash of
the input, so repeating a release reveals nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.data.pack import Pack
from veil.errors import InputError
from veil.methods.base import build_base, build_decoder, described, guessing, underneath
from veil.methods.protocol import Algorithm, Fitted, Task
from veil.methods.settings import checked, within
from veil.release.contract import Contract
from veil.release.draws import check_unit_range
from veil.release.release import Release


@dataclass(frozen=True, kw_only=True)
@checked("random")
class Config:
    """Settings of the baseline Random."""

    share: Annotated[float, within("(0, 1]")] = 0.5
    """Share of each vector's values that is replaced, in (0, 1]."""
    renew: bool = False
    """Turn releases by an orthogonal matrix of the key: those of another key do not match them."""
    scaled: bool = False
    """Whether values are brought into [0, 1] before; set by fit."""
    base: Mapping[str, Any] = field(default_factory=dict)
    """The release underneath (method, config, contract); set by fit."""


_DEVIATIONS = 3
_MOST = 1e30  # beyond it ranges would leave float32


class Scale(nn.Module):
    """Values ``(B, k)`` between ``low`` and ``low + span``, each its own, as values in [0, 1]; others are cut off."""

    low: Tensor
    span: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(k))
        self.register_buffer("span", torch.ones(k))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, k)`` -> ``(B, k)``."""
        return ((x - self.low) / self.span).clamp(0, 1)


def train(config: Config, task: Task) -> Fitted:
    """The base's release with a keyed draw over part of its values.

    Where values of ``protect`` do not lie in [0, 1], each is scaled so that its mean less and plus three deviations
    are 0 and 1: the range that draws come from is that of the values, wherever they lie, and no person's own.

    Raises:
        InputError: If those of ``protect`` lie in [0, 1] and those of another row of the pack do not; ``transform``
            refuses such rows, too.
    """
    base, pack = underneath(task), task.pack
    protect = pack.rows("protect")
    inside = all(((x >= 0) & (x <= 1)).all() for x in _values(base, pack, protect))
    encoder, warnings = base.encoder, list[str]()
    if inside:
        row = 0
        for values in _values(base, pack, np.arange(len(pack))):
            check_unit_range(values, row)
            row += len(values)
    else:
        if (most := max(float(np.abs(x).max()) for x in _values(base, pack, protect))) > _MOST:
            raise InputError(f"random: values to be scaled must lie within {_MOST:g} of 0, got {most:g}")
        scale = Scale(base.contract.k)
        encoder = nn.Sequential(base.encoder, scale)
        mean, deviation = _moments(base, pack, protect)
        for name, value in (("low", mean - _DEVIATIONS * deviation), ("span", 2 * _DEVIATIONS * deviation)):
            getattr(scale, name).copy_(torch.from_numpy(value))
        warnings.append(
            f"random scaled its values, which lie outside [0, 1], by their mean and {_DEVIATIONS} deviations of protect"
        )
    return Fitted(
        encoder=encoder,
        contract=replace(guessing(base.contract), replace=config.share).turned(config.renew),
        decoder=base.decoder if inside else None,  # which takes the values as they were
        made={"warnings": warnings} if warnings else {},
        config=replace(config, scaled=not inside, base=described(base)),
        upon=base,
    )


def _values(base: Release, pack: Pack, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """The base's releases of some rows, some at a time."""
    return base.stream(pack.x[rows[i : i + 1024]] for i in range(0, len(rows), 1024))


def _moments(base: Release, pack: Pack, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation ``(k,)`` of the base's values, the latter 1 where a value is always the same."""
    total = sum(x.sum(0, dtype=np.float64) for x in _values(base, pack, rows))
    mean = total / len(rows)
    squares = sum(np.square(x - mean).sum(0) for x in _values(base, pack, rows))
    deviation = np.sqrt(squares / len(rows))
    return mean.astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32)


def build(config: Config, contract: Contract) -> nn.Module:
    """The base's encoder, and what scales its values behind it."""
    base = build_base(config.base)
    return nn.Sequential(base, Scale(contract.k)) if config.scaled else base


PRESETS: dict[str, Config] = {"default": Config()}
ALGORITHM = Algorithm(config=Config, presets=PRESETS, train=train, build=build, build_decoder=build_decoder)
