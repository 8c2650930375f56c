"""Decoders: what is redrawn from releases by somebody who learned from releases beside their originals.

A decoder is one function ``invert(problem) -> redraw``; ``redraw(x)`` gives what it takes the originals of releases to
be, uint8 images or float32 vectors. To add one, name it in :data:`DECODERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.auditing.networks import SmallResNet, apply, image_view, train
from veil.auditing.problem import DidNotConverge, Embed, Floats, Problem, Standardiser
from veil.data.pack import flat
from veil.engine import Player, Run
from veil.engine.player import Diverged
from veil.engine.run import has_bf16, seeded
from veil.nn.losses import perceptual_distance, pixel_error
from veil.nn.nets import ImageDiscriminator, MirrorDecoder, map_shape, mlp, to_input, to_pixels

Redraw = Callable[[NDArray[Any]], NDArray[Any]]

MEASURED = 2000
"""Images of the test split that are redrawn and judged; of the calibrate split, to choose by."""
_LINEAR = (1500, 4000, 4000)  # rows that the linear decoder learns from, for each effort
_BATCH = 64
STEPS = {"weak": (250, 800, 2500), "strong": (350, 1200, 4000), "features": (300, 800, 2500)}
"""Steps of training for each effort."""
_PERCEPTUAL, _GAN = 1.0, 0.01  # weights of a strong decoder's terms beside the pixel error (lambda1, lambda2)


@dataclass(frozen=True, kw_only=True)
class Redrawing:
    """What a decoder may know.

    Attributes:
        releases: To train on, and the rest of what an attacker knows.
        originals: ``(n, ...)`` what they were made of: uint8 images or float32 vectors.
        originals_validation: Those of the validation releases.
        looks: Network of perceptual distances.
    """

    releases: Problem
    originals: NDArray[Any]
    originals_validation: NDArray[Any]
    looks: nn.Module | None


def cosine(a: Floats, b: Floats) -> NDArray[np.float64]:
    """Cosine ``(n,)`` of each row of a and of b, ``(n, d)``."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    out: NDArray[np.float64] = np.einsum("nd,nd->n", a, b).astype(np.float64) / np.maximum(lengths, 1e-12)
    return np.clip(out, -1, 1)


def linear(problem: Redrawing) -> Redraw:
    """Ridge regression from standardised releases to originals; inverts a linear encoder that can be inverted at all.

    The ridge is the one that is best on validation data: of the least error for images, the highest cosine for vectors.
    """
    n = min(len(problem.originals), problem.releases.pick(*_LINEAR))
    rows = np.sort(np.random.default_rng(problem.releases.seed).permutation(len(problem.originals))[:n])
    view = Standardiser.fit(flat(problem.releases.x[rows]))
    x, y = view(problem.releases.x[rows]).astype(np.float64), flat(problem.originals[rows]).astype(np.float64)
    centre_x, centre_y = x.mean(0), y.mean(0)
    x, y = x - centre_x, y - centre_y
    wide = x.shape[1] > n  # then in the space of the rows
    values, axes = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    values = np.maximum(values, 0)
    target = axes.T @ (y if wide else x.T @ y)

    def basis(new: NDArray[Any]) -> NDArray[np.float64]:
        centred = view(new) - centre_x
        out: NDArray[np.float64] = centred @ x.T @ axes if wide else centred @ axes
        return out

    shape, images = problem.originals.shape[1:], problem.originals.dtype == np.uint8
    check = slice(0, MEASURED)
    known, seen = flat(problem.originals_validation[check]), basis(problem.releases.x_validation[check])
    best, least = target, math.inf
    for ridge in (1e-8, 1e-4, 1e-2, 1.0, 100.0):
        weights = target / (values + ridge * max(values.mean(), 1e-12))[:, None]
        drawn = seen @ weights + centre_y
        error = float((np.square(drawn - known) if images else -cosine(drawn, known)).mean())
        if error < least:
            best, least = weights, error

    def redraw(new: NDArray[Any]) -> NDArray[Any]:
        drawn: NDArray[np.float64] = basis(new) @ best + centre_y
        if images:
            return np.round(np.clip(drawn * 255, 0, 255)).astype(np.uint8).reshape(len(new), *shape)
        return drawn.astype(np.float32)

    return redraw


def weak(problem: Redrawing) -> Redraw:
    """A network that minimises the pixel error (Eq. 1); of vectors, an MLP that minimises their squared error."""
    return _network(problem, strong=False)


def strong(problem: Redrawing) -> Redraw:
    """Pixel error, perceptual distance and a GAN term together, and longer (Eq. 5)."""
    return _network(problem, strong=True)


def convolved(releases: Problem) -> bool:
    """Whether releases are images or maps, at any effort."""
    return releases.x.ndim > 2 or releases.feature_map is not None


def view_of(releases: Problem) -> Embed:
    return image_view(releases) if convolved(releases) else Standardiser.fit(flat(releases.x))


def _network(problem: Redrawing, *, strong: bool) -> Redraw:
    releases = problem.releases
    steps = releases.pick(*STEPS["strong" if strong else "weak"])
    view = view_of(releases)
    if problem.originals.dtype != np.uint8:
        return _vectors(problem, view, steps)
    shape = problem.originals.shape[1:]
    image = map_shape(shape)
    run = Run(seed=releases.seed)
    with seeded(run.seed, "inversion", "strong" if strong else "weak"):
        network = run.place(MirrorDecoder(view(releases.x[:1]).shape[1:], *image))
        judge = run.place(ImageDiscriminator(*image))
    decoder = Player(
        "decoder", network, lr=1e-3, optimizer="adamw", weight_decay=0.01, schedule=_decay(steps), clip=5.0
    )
    discriminator = Player("discriminator", judge, lr=2e-4)
    looks = None if problem.looks is None or not strong else problem.looks.to(run.device)

    def redrawn(new: NDArray[Any]) -> Tensor:
        with run.autocast():
            out: Tensor = network(run.tensor(view(new)).contiguous())
        return out.float().sigmoid()

    try:
        for step in run.stage("decoder", steps):
            rows = np.sort(step.rng.choice(len(problem.originals), min(_BATCH, len(problem.originals)), replace=False))
            x = to_input(problem.originals[rows], "images").to(run.device)
            drawn = redrawn(releases.x[rows])
            loss = pixel_error(drawn, x).mean()
            if looks is not None:
                with run.autocast():
                    maps, real = looks.maps(drawn), looks.maps(x)  # type: ignore[operator]
                    run.update(
                        discriminator, (F.softplus(-judge(x)).mean() + F.softplus(judge(drawn.detach())).mean()) / 2
                    )
                    fooled = F.softplus(-judge(drawn)).mean()
                loss = loss + _PERCEPTUAL * perceptual_distance(maps, real).mean() + _GAN * fooled
            run.update(decoder, loss)
    except Diverged as error:
        raise DidNotConverge(str(error)) from error
    network.eval()

    def redraw(new: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            parts = [redrawn(new[i : i + 256]).cpu().numpy() for i in range(0, len(new), 256)]
        return to_pixels(np.concatenate(parts), shape)

    return redraw


def _vectors(problem: Redrawing, view: Embed, steps: int) -> Redraw:
    """An MLP back to vectors, which only their directions judge: it minimises 1 - cosine."""
    y = torch.from_numpy(np.array(problem.originals, np.float32))
    module = regressor(problem.releases, view, y, images=problem.releases.x.ndim > 2, steps=steps)
    return lambda new: apply(module, view(new))


def regressor(releases: Problem, view: Embed, y: Tensor, *, images: bool, steps: int) -> nn.Module:
    """From releases to the directions of ``y`` ``(n, d)``: a residual network for images, else an MLP."""
    size = min(_BATCH if images else 256, len(y))

    def build() -> nn.Module:
        first = view(releases.x[:1])
        if images:
            return SmallResNet(first.shape[1], min(first.shape[2:]), y.shape[1])
        return mlp([math.prod(first.shape[1:]), 512, 512, y.shape[1]], dropout=0.1)

    def loss(module: nn.Module, rng: np.random.Generator, _: torch.Generator) -> Tensor:
        rows = np.sort(rng.choice(len(y), size, replace=False))
        out = module(torch.from_numpy(np.ascontiguousarray(view(releases.x[rows]))))
        return 1 - F.cosine_similarity(out.float(), y[torch.from_numpy(rows)]).mean()

    bf16 = images and has_bf16(torch.device("cpu"))
    return train(build, loss, steps=steps, lr=1e-3, seed=releases.seed, bf16=bf16)


def _decay(steps: int) -> Callable[[int], float]:
    """Constant learning rate, then a line to 0 over the last half of the steps."""
    return lambda update: min(1.0, 2 * (1 - update / steps))


DECODERS: Mapping[str, Callable[[Redrawing], Redraw]] = {
    "linear decoder": linear,
    "weak decoder": weak,
    "strong decoder": strong,
}
"""Every decoder by the name that findings give it."""
MORE_DATA = "strong decoder, more data"
"""The strong decoder again, with the protector's own images too; not at effort quick."""
