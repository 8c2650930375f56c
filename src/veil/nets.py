"""Networks that more than one method or attacker uses. Inputs ``(B, C, H, W)`` in [0, 1] or vectors ``(B, d)``.

Normalisation is by group, never by batch: a release must not depend on its neighbours, and several processes must
compute what one computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mlp(sizes: Sequence[int], *, normalise: bool = True, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers ``sizes[0] -> ... -> sizes[-1]`` with LayerNorm, GELU and dropout between them."""
    layers: list[nn.Module] = []
    for i in range(len(sizes) - 2):
        layers.append(nn.Linear(sizes[i], sizes[i + 1]))
        if normalise:
            layers.append(nn.LayerNorm(sizes[i + 1]))
        layers.append(nn.GELU())
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class ResidualBlock(nn.Module):
    """Pre-activation residual block (He et al. 2016b): two 3x3 convolutions, GroupNorm, optional halving."""

    def __init__(self, channels_in: int, channels_out: int, *, halve: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, 2 if halve else 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(8, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H / 2, W / 2)`` or ``(B, C_out, H, W)``."""
        h = self.conv1(F.relu(self.norm1(x)))
        h = self.conv2(F.relu(self.norm2(h)))
        shortcut: Tensor = self.shortcut(F.avg_pool2d(x, 2) if self.halve else x)
        out: Tensor = h + shortcut
        return out


class OrientationMaps(nn.Module):
    """How much edge there is of each of eight directions, relative to what is around it; nothing is learned.

    The idea of histograms of oriented gradients (Dalal and Triggs 2005): changes of light and contrast leave the maps
    as they are. A network that reads them errs differently from one that reads grey values.
    """

    directions = 8
    around = 9  # side of the neighbourhood, in cells of 2x2 pixels, that sets the scale

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1, H, W)`` -> ``(B, 8, H / 2, W / 2)`` in [0, 2]."""
        dx = F.pad(x[..., 2:] - x[..., :-2], (1, 1))
        dy = F.pad(x[..., 2:, :] - x[..., :-2, :], (0, 0, 1, 1))
        size = (dx.square() + dy.square() + 1e-6).sqrt()
        angle = torch.arange(self.directions, device=x.device) * (2 * math.pi / self.directions)
        along = (dx * angle.cos()[:, None, None] + dy * angle.sin()[:, None, None]) / size
        maps = F.avg_pool2d(along.clamp_min(0) ** 4 * size, 2)
        energy = maps.square().sum(1, keepdim=True)
        scale = F.avg_pool2d(energy, self.around, 1, self.around // 2, count_include_pad=False)
        return (maps / (scale + 1e-4).sqrt()).clamp_max(2)


class ResidualEncoder(nn.Module):
    """2x2 pixels folded into channels, three halving residual blocks, a linear layer on the whole map.

    The last layer sees the whole image, so what it drops is dropped everywhere. The first convolution works at half
    resolution: on CPU cores with matrix units a first block at full resolution would take most of the time.

    Args:
        channels_in: C.
        height: H, divisible by 16.
        width: W, divisible by 16.
        features: Width of the output.
        base: Channels of the first convolution.
        oriented: Read :class:`OrientationMaps` (of grey images) in place of the pixels.
    """

    multiple = 16  # height and width must be divisible by this

    def __init__(
        self, channels_in: int, height: int, width: int, features: int, base: int = 32, *, oriented: bool = False
    ) -> None:
        super().__init__()
        self.view = OrientationMaps() if oriented else nn.PixelUnshuffle(2)
        self.stem = nn.Conv2d(OrientationMaps.directions if oriented else channels_in * 4, base, 3, 1, 1)
        self.blocks = nn.Sequential(
            ResidualBlock(base, 2 * base, halve=True),
            ResidualBlock(2 * base, 4 * base, halve=True),
            ResidualBlock(4 * base, 8 * base, halve=True),
        )
        self.norm = nn.GroupNorm(8, 8 * base)
        self.head = nn.Linear(8 * base * (height // self.multiple) * (width // self.multiple), features)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, features)``."""
        h = self.blocks(self.stem(self.view(x)))
        out: Tensor = self.head(F.relu(self.norm(h)).flatten(1))
        return out


class SixConvolutions(nn.Module):
    """AIA's gender classifier (Sec. 5.2): 3x3 convolutions 32, 64, 64, 128, 128, 256 and one linear layer.

    The text gives no pooling: maps are halved after the second and the fourth convolution (inputs of 48 pixels and more
    after the first too), and averaged to 2x2 before the linear layer.

    Args:
        channels_in: C.
        size: Shorter side of the input, to place the halvings.
        outputs: Number of logits.
        normalise: GroupNorm after each convolution, which trains faster; the text has none.
    """

    def __init__(self, channels_in: int, size: int, outputs: int, *, normalise: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise([channels_in, 32, 64, 64, 128, 128, 256])):
            layers.append(nn.Conv2d(a, b, 3, 1, 1))
            if normalise:
                layers.append(nn.GroupNorm(8, b))
            layers.append(nn.LeakyReLU())
            if size >= 8 and (i in (1, 3) or (i == 0 and size >= 48)):
                layers.append(nn.AvgPool2d(2))
                size //= 2
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * 256, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, outputs)``."""
        out: Tensor = self.layers(x)
        return out


class UpsamplingDecoder(nn.Module):
    """A vector to an image: linear to an (H/16, W/16) map, four times (3x3 convolution, upsample 2), sigmoid."""

    multiple = 16

    def __init__(self, features: int, channels_out: int, height: int, width: int, base: int = 128) -> None:
        super().__init__()
        self.shape = (base, height // self.multiple, width // self.multiple)
        self.expand = nn.Linear(features, base * self.shape[1] * self.shape[2])
        widths = [base, base, base // 2, base // 4, base // 4]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, 1, 1) for a, b in pairwise(widths))
        self.last = nn.Conv2d(widths[-1], channels_out, 3, 1, 1)

    def forward(self, r: Tensor) -> Tensor:
        """``(B, features)`` -> logits of the image ``(B, C, H, W)``; their sigmoid lies in [0, 1]."""
        h = self.expand(r).unflatten(1, self.shape)
        for convolution in self.convolutions:
            h = F.interpolate(F.leaky_relu(convolution(h)), scale_factor=2)
        out: Tensor = self.last(h)
        return out
