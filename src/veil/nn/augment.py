"""Random views of a batch of images, drawn from a given source."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Draw = Callable[..., Tensor]
"""``draw(B, ...)`` gives values from U[0, 1) of that shape, on the CPU: :meth:`veil.engine.Step.uniform`."""


def warp(
    x: Tensor,
    draw: Draw,
    *,
    rotation: float,
    scale: float,
    shift: float,
    shear: float = 0.0,
    stretch: bool = False,
    mirror: bool = False,
) -> Tensor:
    """Random affine views; what lies outside continues the edge.

    Args:
        x: ``(B, C, H, W)``.
        draw: Source of the draws.
        rotation: Largest angle, in radians, either way.
        scale: Largest change of size, as a share.
        shift: Largest shift, in half widths of the image.
        shear: Largest shift of a row, for its height.
        stretch: Whether width and height change size each on their own.
        mirror: Whether half of the views are mirrored.
    """
    batch = len(x)

    def uniform(most: float, *shape: int) -> Tensor:
        return ((draw(batch, *shape) * 2 - 1) * most).to(x.device)

    angle, size = uniform(rotation), 1 + uniform(scale)
    flip = torch.where(uniform(1) < 0, -1.0, 1.0) if mirror else torch.ones(batch, device=x.device)
    turn = torch.empty(batch, 2, 3, device=x.device)
    across, down = size, (1 + uniform(scale) if stretch else size)
    lean = uniform(shear) if shear else torch.zeros(batch, device=x.device)
    turn[:, 0, 0], turn[:, 0, 1] = across * angle.cos() * flip, across * (lean * angle.cos() - angle.sin())
    turn[:, 1, 0], turn[:, 1, 1] = down * angle.sin() * flip, down * (lean * angle.sin() + angle.cos())
    turn[:, :, 2] = uniform(shift, 2)
    grid = F.affine_grid(turn, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def relight(x: Tensor, draw: Draw) -> Tensor:
    """Random contrast (35 %) and brightness (0.15); values may leave [0, 1] slightly."""

    def uniform(most: float) -> Tensor:
        return ((draw(len(x), 1, 1, 1) * 2 - 1) * most).to(x.device)

    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (1 + uniform(0.35)) + mean + uniform(0.15)


def augment(x: Tensor, draw: Draw) -> Tensor:
    """Random mirror, rotation (10 degrees), scale (12 %), shift (10 %), contrast, brightness and a grey patch.

    Args:
        x: ``(B, C, H, W)`` in [0, 1].
        draw: Source of the draws.

    Returns:
        A new batch of the same shape; values may leave [0, 1] slightly.
    """
    batch, _, height, width = x.shape
    view = warp(x, draw, rotation=math.radians(10), scale=0.12, shift=0.1, mirror=True)
    mean = view.mean((1, 2, 3), keepdim=True)
    view = relight(view, draw)

    def uniform(most: float) -> Tensor:
        return (draw(batch, 1) * most).to(x.device)

    half = uniform(0.19) * min(height, width)
    down, across = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    inside_rows = (down[None] - uniform(height)).abs() < half
    inside_columns = (across[None] - uniform(width)).abs() < half
    patch = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return torch.where(patch, mean, view)
