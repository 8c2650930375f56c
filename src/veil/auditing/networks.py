"""Attackers that are networks, trained from scratch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.auditing.problem import (
    _CLIP,
    WIDE,
    DidNotConverge,
    Floats,
    Problem,
    Score,
    Standardiser,
    View,
    _moments,
    whitened,
)
from veil.data.pack import flat
from veil.engine.run import has_bf16
from veil.nn.augment import Draw, augment, warp
from veil.nn.losses import balanced_weights
from veil.nn.nets import GroupNorm, ResidualBlock, SixConvolutions, folded, mlp

# -- attackers of torch -----------------------------------------------------------------------------------------------


class ResidualMLP(nn.Module):
    """Linear stem, pre-normalised residual blocks of two linear layers, linear head."""

    def __init__(self, features: int, outputs: int, *, width: int = 512, blocks: int = 3, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), mlp([width, width, width], normalise=False, dropout=dropout))
            for _ in range(blocks)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, k)`` -> ``(B, outputs)``."""
        h = self.stem(x)
        for block in self.blocks:
            h = h + block(h)
        out: Tensor = self.head(h)
        return out


class SmallResNet(nn.Module):
    """Three residual blocks on patches of 4x4 pixels (8x8 from 96 on, 2x2 below 48, none below 24: feature maps)."""

    def __init__(self, channels_in: int, size: int, outputs: int) -> None:
        super().__init__()
        self.patch = 8 if size >= 96 else 4 if size >= 48 else 2 if size >= 24 else 1
        self.layers = nn.Sequential(
            nn.Conv2d(channels_in * self.patch**2, 64, 3, 1, 1),
            ResidualBlock(64, 64),
            ResidualBlock(64, 128, halve=True),
            ResidualBlock(128, 256, halve=True),
            GroupNorm(8, 256),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(4 * 256, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, outputs)``; edges are repeated until patches and both halvings come out whole."""
        out: Tensor = self.layers(folded(x, self.patch, 4 * self.patch))
        return out


class PlainCNN(nn.Module):
    """Convolutions 64, 128 and 128 on patches of 4x4 pixels (2x2 below 48, none below 24), two poolings, two linear
    layers on the map."""

    def __init__(self, channels_in: int, height: int, width: int, outputs: int) -> None:
        super().__init__()
        self.patch = 4 if min(height, width) >= 48 else 2 if min(height, width) >= 24 else 1
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise([channels_in * self.patch**2, 64, 128, 128])):
            layers += [nn.Conv2d(a, b, 3, 1, 1), *([nn.MaxPool2d(2, ceil_mode=True)] if i < 2 else [])]
            layers += [GroupNorm(8, b), nn.ReLU()]
        cells = math.prod(-(-side // (4 * self.patch)) for side in (height, width))
        dense = [nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * cells, 256), nn.ReLU(), nn.Dropout(0.3)]
        self.layers = nn.Sequential(*layers, *dense, nn.Linear(256, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, outputs)``; edges are repeated until patches come out whole."""
        out: Tensor = self.layers(folded(x, self.patch))
        return out


def _as_images(x: NDArray[np.generic], feature_map: tuple[int, int, int] | None) -> Floats:
    """``(n, C, H, W)`` from images or from flattened maps."""
    if feature_map is not None:
        return flat(x).reshape(len(x), *feature_map)
    if x.ndim == 3:
        return flat(x).reshape(len(x), 1, *x.shape[1:])
    return np.ascontiguousarray(np.moveaxis(flat(x).reshape(x.shape), 3, 1))


def image_view(problem: Problem) -> View:
    """Images or maps ``(n, C, H, W)``, every channel at a common scale: low contrast must not escape attackers.

    Maps get zero mean and unit deviation. Images get mean 1/2 and deviation 1/4, so that they fill [0, 1], which the
    random views expect.
    """
    mean, inverse = _moments(_as_images(problem.x, problem.feature_map), (0, 2, 3))
    centre, spread = (
        (np.float32(0.5), np.float32(0.25)) if problem.feature_map is None else (np.float32(0), np.float32(1))
    )

    def view(x: NDArray[np.generic]) -> Floats:
        standard = (_as_images(x, problem.feature_map) - mean) * inverse
        out: Floats = np.clip(standard, -_CLIP, _CLIP) * spread + centre
        return out

    return view


def train(
    build: Callable[[], nn.Module],
    loss: Callable[[nn.Module, np.random.Generator, torch.Generator], Tensor],
    *,
    steps: int,
    lr: float,
    seed: int,
    bf16: bool,
) -> nn.Module:
    """AdamW with a one-cycle schedule; everything random follows ``seed``; a loss must stay finite."""
    rng, torch_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # initial weights and dropout draw from torch's global generator
        torch.manual_seed(seed)
        module = build().train()
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.02, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.15)
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                value = loss(module, rng, torch_rng)
            if not math.isfinite(value.item()):
                raise DidNotConverge(f"its training loss became {value.item()}")
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    return module.eval()


def _uniform(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=rng)


def directions(x: Floats) -> Floats:
    """Vectors ``(n, d)`` at length 1; those of zeros stay."""
    out: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return out


def apply(module: nn.Module, x: Floats) -> Floats:
    with torch.no_grad():
        out: Floats = torch.cat([module(part) for part in torch.split(torch.from_numpy(x), 1024)]).float().numpy()
    return out


def _classifier(
    problem: Problem,
    view: View,
    builders: Sequence[Callable[[int, int], nn.Module]],
    *,
    epochs: int,
    lr: float = 2e-3,
    mixup: float = 0.4,
    views: Callable[[Tensor, Draw], Tensor] | None = None,
) -> Score:
    """Train each builder's network with balanced cross-entropy and mixup (Zhang et al. 2018; 0: none); average them."""
    x, y = torch.from_numpy(view(problem.x)), torch.from_numpy(problem.y)
    bf16 = (x.dim() == 4 or problem.x.ndim > 2) and has_bf16(x.device)
    if bf16 and x.dim() == 2:
        x = x.bfloat16()  # pixels, which have eight bits themselves; reading them takes most of an MLP's time
    weight = balanced_weights(torch.bincount(y, minlength=problem.classes))
    size = min(128 if x.dim() == 4 and (problem.effort == "quick" or not mixup) else 256, len(x))
    # Few rows still need their steps, narrow ones more of them; where a step is dear and others attack too, fewer do.
    least = (60 if problem.feature_map else 100) if x.dim() == 4 else 200 if x.shape[1] <= 2 * WIDE else 100

    def loss(module: nn.Module, rng: np.random.Generator, torch_rng: torch.Generator) -> Tensor:
        rows = torch.from_numpy(rng.integers(len(x), size=size))
        other = torch.from_numpy(rng.permutation(size))
        share = float(rng.beta(mixup, mixup)) if mixup else 1.0
        batch, code = x[rows], y[rows]
        batch = batch if views is None else views(batch, partial(_uniform, torch_rng))
        if mixup:
            batch = torch.lerp(batch[other], batch, share)
        if batch.dim() == 4:
            batch = batch.contiguous(memory_format=torch.channels_last)
        out = module(batch).float()
        return share * F.cross_entropy(out, code, weight) + (1 - share) * F.cross_entropy(out, code[other], weight)

    members = [
        train(
            lambda build=build: build(x.shape[1], problem.classes),  # type: ignore[misc]
            loss,
            steps=max(epochs * len(x) // size, least),
            lr=lr,
            seed=problem.seed + i,
            bf16=bf16,
        )
        for i, build in enumerate(builders)
    ]

    def score(new: NDArray[np.generic]) -> Floats:
        seen = view(new)
        mean: Floats = np.mean([torch.from_numpy(apply(m, seen)).softmax(1).numpy() for m in members], axis=0)
        return mean

    return score


def mlps(problem: Problem) -> Score:
    """MLPs of one, two and three hidden layers, restarted and averaged."""
    depths = (1, 2, 3) * problem.pick(1, 1, 2)
    return _classifier(
        problem,
        Standardiser.fit(flat(problem.x)),
        [lambda k, z, d=depth: mlp([k, *[384] * d, z], dropout=0.2) for depth in depths],  # type: ignore[misc]
        epochs=problem.pick(15, 30, 50),
    )


def residual_mlps(problem: Problem) -> Score:
    """Residual MLPs with mixup, restarted and averaged, half of them (the smaller half) on whitened columns.

    The strongest attackers of face templates that we know.
    """
    restarts, epochs = problem.pick(2, 3, 5), problem.pick(15, 40, 60)
    plain, white = Standardiser.fit(flat(problem.x)), whitened(problem)
    first = _classifier(problem, plain, [ResidualMLP] * (restarts - restarts // 2), epochs=epochs, lr=1e-3)
    other = _classifier(problem, white, [ResidualMLP] * (restarts // 2), epochs=epochs, lr=1e-3)
    share = np.float32(restarts // 2 / restarts)
    return lambda new: (1 - share) * first(new) + share * other(new)


def _image_classifier(problem: Problem, network: Callable[[int, int, int], nn.Module], *, mirror: bool) -> Score:
    view = image_view(problem)
    size = min(view(problem.x[:1]).shape[2:])
    return _classifier(
        problem,
        view,
        [lambda c, z: network(c, size, z)] * problem.pick(1, 1, 2),
        epochs=problem.pick(8, 20, 30),
        mixup=0.2,
        views=augment if mirror else None,
    )


def plain_cnn(problem: Problem) -> Score:
    """Three convolutions on images, which hardly move: what random views wash out (a hand, say) is read too."""
    view = image_view(problem)
    height, width = view(problem.x[:1]).shape[2:]
    return _classifier(
        problem,
        view,
        [lambda c, z: PlainCNN(c, height, width, z)] * problem.pick(1, 1, 2),
        epochs=problem.pick(12, 40, 60),
        mixup=0.0,
        views=partial(warp, rotation=0.05, scale=0.05, shift=0.05, shear=0.05),
    )


def six_convolutions(problem: Problem) -> Score:
    """AIA's own gender classifier, trained from scratch on images or feature maps."""
    return _image_classifier(problem, SixConvolutions, mirror=problem.feature_map is None)


def residual_cnn(problem: Problem) -> Score:
    """A residual network on images (with random views) or feature maps."""
    return _image_classifier(problem, SmallResNet, mirror=problem.feature_map is None)
