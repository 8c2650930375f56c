"""Random views of a batch of images, drawn from a given source."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(x: Tensor, draw: Callable[..., Tensor]) -> Tensor:
    """Random mirror, rotation (10 degrees), scale (12 %), shift (10 %), contrast, brightness and a grey patch.

    Args:
        x: ``(B, C, H, W)`` in [0, 1].
        draw: ``draw(B, ...)`` gives values from U[0, 1) of that shape, on the CPU: :meth:`veil.engine.Step.uniform`.

    Returns:
        A new batch of the same shape; values may leave [0, 1] slightly.
    """
    batch, _, height, width = x.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (draw(batch, *shape) * (high - low) + low).to(x.device)

    angle, scale = uniform(-1, 1) * math.radians(10), uniform(0.88, 1.12)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    turn = torch.empty(batch, 2, 3, device=x.device)
    turn[:, 0, 0], turn[:, 0, 1] = scale * angle.cos() * mirror, -scale * angle.sin()
    turn[:, 1, 0], turn[:, 1, 1] = scale * angle.sin() * mirror, scale * angle.cos()
    turn[:, :, 2] = uniform(-0.1, 0.1, 2)
    grid = F.affine_grid(turn, list(x.shape), align_corners=False)
    view = F.grid_sample(x, grid, padding_mode="border", align_corners=False)

    mean = view.mean((1, 2, 3), keepdim=True)
    view = (view - mean) * uniform(0.65, 1.35, 1, 1, 1) + mean + uniform(-0.15, 0.15, 1, 1, 1)

    half = uniform(0, 0.19, 1) * min(height, width)
    down, across = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    inside_rows = (down[None] - uniform(0, height, 1)).abs() < half
    inside_columns = (across[None] - uniform(0, width, 1)).abs() < half
    patch = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return torch.where(patch, mean, view)
