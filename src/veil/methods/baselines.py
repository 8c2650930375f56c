"""Baselines: what protection gets without learning any.

Both work on the input itself, or on another method's releases (``base``) where these are plain vectors: without keyed
noise, and neither images nor one of a few substitutes. They then ship with that method, which guesses what it could be
told:

- **random**: half of each vector's values replaced by draws from U[0, 1] (AIA's baseline Random, Sec. 5.3), into which
  values that lie elsewhere are brought before, by the mean and the deviation of each. The draws come from a keyed hash
  of the input, so repeating a release reveals nothing more.
- **leace**: the smallest linear change after which no linear attacker beats chance: Belrose et al., "LEACE: Perfect
  linear concept erasure in closed form" (2023), Theorem 4.3. Nonlinear attackers undo it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.data.pack import Pack
from veil.engine import Run
from veil.engine.run import by_first
from veil.errors import InputError, checked_seed
from veil.fitted import underneath
from veil.methods.protocol import require_classes
from veil.nets import map_shape
from veil.release import Contract, Release, check_unit_range, new_key


@dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Settings of the baseline Random."""

    share: float = 0.5
    """Share of each vector's values that is replaced, in (0, 1]."""
    scaled: bool = False
    """Whether values are brought into [0, 1] before; set by fit."""
    base: Mapping[str, Any] = field(default_factory=dict)
    """The release underneath (method, config, contract); set by fit."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"random: share must be in (0, 1], got {self.share!r}")


@dataclass(frozen=True, kw_only=True)
class LeaceConfig:
    """Settings of the baseline LEACE; there are none to choose."""

    rank: int = 0
    """Number of directions erased; set by fit."""
    base: Mapping[str, Any] = field(default_factory=dict)
    """The release underneath (method, config, contract); set by fit."""


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


def fit_leace(
    config: LeaceConfig,
    pack: Pack,
    *,
    private: Sequence[str],
    utility: str = "identity",
    seed: int = 0,
    run: Run | None = None,
    key: bytes | None = None,
    base: Release | None = None,
) -> Release:
    """Erase every private attribute from the base's releases; their covariances come from the ``protect`` split.

    Several attributes are erased together (their indicator columns side by side), each by the rows that know it.
    Nothing is drawn at random.
    """
    base = base or input_release(pack)
    _plain(base)
    pack.require(private=list(private), among=["protect"])
    for name in private:
        require_classes(pack, pack.rows("protect", known=name), [name])
    rows = pack.rows("protect")
    rows = rows[np.any([pack.label(name)[rows] >= 0 for name in private], axis=0)]
    indicators = [_indicators(pack.label(name)[rows], len(pack.classes[name])) for name in private]
    mean, left, right = leace(base.transform(pack.x[rows]), np.concatenate(indicators, 1))
    config = replace(config, rank=left.shape[1], base=_described(base))
    encoder = build_leace(asdict(config), base.contract)
    encoder[0].load_state_dict(base.encoder.state_dict())
    for name, value in (("mean", mean), ("left", left), ("right", right)):
        getattr(encoder[1], name).copy_(torch.from_numpy(value))
    return Release(
        method="leace",
        config=asdict(config),
        contract=_guessing(base.contract),
        encoder=encoder.eval(),
        made={
            "private": list(private),
            "utility": utility,
            "seed": checked_seed(seed),
            "data": pack.fingerprint,
            **underneath(base),
        },
        fitted=base.fitted,
        decoder=base.decoder,
    )


def _indicators(codes: NDArray[np.int64], classes: int) -> NDArray[Any]:
    """Indicators ``(n, Z - 1)`` of all classes but the first, which follows from theirs.

    A row of unknown class has their means: so it adds nothing to their covariance with anything.
    """
    z: NDArray[Any] = np.eye(classes)[codes, 1:]
    z[codes < 0] = z[codes >= 0].mean(0)
    return z


def fit_random(
    config: RandomConfig,
    pack: Pack,
    *,
    private: Sequence[str],
    utility: str = "identity",
    seed: int = 0,
    run: Run | None = None,
    key: bytes | None = None,
    base: Release | None = None,
) -> Release:
    """The base's release with a keyed draw over part of its values.

    Where values of ``protect`` do not lie in [0, 1], each is scaled so that its mean less and plus three deviations
    are 0 and 1: the range that draws come from is that of the values, wherever they lie, and no person's own.

    Raises:
        InputError: If those of ``protect`` lie in [0, 1] and those of another row of the pack do not; ``transform``
            refuses such rows, too.
    """
    base = base or input_release(pack)
    _plain(base)
    inside = all(((x >= 0) & (x <= 1)).all() for x in _values(base, pack, pack.rows("protect")))
    encoder, warnings = base.encoder, list[str]()
    if inside:
        row = 0
        for values in _values(base, pack, np.arange(len(pack))):
            check_unit_range(values, row)
            row += len(values)
    else:
        if (most := max(float(np.abs(x).max()) for x in _values(base, pack, pack.rows("protect")))) > _MOST:
            raise InputError(f"random: values to be scaled must lie within {_MOST:g} of 0, got {most:g}")
        scale = Scale(base.contract.k)
        encoder = nn.Sequential(base.encoder, scale).eval()
        mean, deviation = _moments(base, pack, pack.rows("protect"))
        for name, value in (("low", mean - _DEVIATIONS * deviation), ("span", 2 * _DEVIATIONS * deviation)):
            getattr(scale, name).copy_(torch.from_numpy(value))
        warnings.append(
            f"random scaled its values, which lie outside [0, 1], by their mean and {_DEVIATIONS} deviations of protect"
        )
    return Release(
        method="random",
        config=asdict(replace(config, scaled=not inside, base=_described(base))),
        contract=replace(_guessing(base.contract), replace=config.share),
        encoder=encoder,
        made={
            "private": list(private),
            "utility": utility,
            "seed": checked_seed(seed),
            "data": pack.fingerprint,
            **underneath(base),
            **({"warnings": warnings} if warnings else {}),
        },
        fitted=base.fitted,
        key=key or by_first(new_key),
        decoder=base.decoder if inside else None,  # which takes the values as they were
    )


_DEVIATIONS = 3
_MOST = 1e30  # beyond it ranges would leave float32


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


class Flatten(nn.Module):
    """The input itself as a release."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def input_release(pack: Pack) -> Release:
    """The unprotected input as vectors: pixels in [0, 1], or the vectors themselves."""
    shape = tuple(int(n) for n in pack.x.shape[1:])
    feature_map = None
    if pack.kind == "images":
        feature_map = map_shape(shape)
    contract = Contract(kind=pack.kind, shape=shape, k=int(np.prod(shape)), feature_map=feature_map, **pack.framing)
    return Release(method="input", config={}, contract=contract, encoder=Flatten())


def build_random(config: Mapping[str, Any], contract: Contract) -> nn.Module:
    base = _build_base(config["base"])
    return nn.Sequential(base, Scale(contract.k)) if config["scaled"] else base


def build_leace(config: Mapping[str, Any], contract: Contract) -> nn.Sequential:
    return nn.Sequential(_build_base(config["base"]), Eraser(contract.k, config["rank"]))


def build_decoder(config: Mapping[str, Any], contract: Contract) -> nn.Module:
    """The base's decoder."""
    from veil.methods import METHODS

    base = config["base"]
    build = METHODS[base["method"]].build_decoder if base["method"] in METHODS else None
    if build is None:
        raise InputError(f"{base['method']}: has no decoder")
    return build(base["config"], Contract.read(base["contract"]))


def _build_base(base: Mapping[str, Any]) -> nn.Module:
    from veil.methods import METHODS

    if base["method"] == "input":
        return Flatten()
    return METHODS[base["method"]].build(base["config"], Contract.read(base["contract"]))


def _described(base: Release) -> dict[str, Any]:
    return {"method": base.method, "config": dict(base.config), "contract": asdict(base.contract)}


def _plain(base: Release) -> None:
    """Whether the base releases plain vectors, which may be changed value by value."""
    got = ""
    if base.contract.keyed:
        got = "keyed noise, or draws"
    elif base.contract.support:
        got = "a choice among substitutes"
    elif base.contract.image is not None:
        got = "images"
    if got:
        raise InputError(f"base: must release vectors, without keyed noise or a choice, got {base.method!r} with {got}")


def _guessing(contract: Contract) -> Contract:
    """The base's contract for what is put on top: what only its own encoder and classifier take or read is left out."""
    return replace(contract, classes={}, asks=False, chooses=False, keeps={})
