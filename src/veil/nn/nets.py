"""Networks that more than one method or attacker uses. Inputs ``(B, C, H, W)`` in [0, 1] or vectors ``(B, d)``.

Normalisation is by group, never by batch: a release must not depend on its neighbours, and several processes must
compute what one computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


def to_input(x: NDArray[Any], kind: Literal["images", "vectors"]) -> Tensor:
    """uint8 ``(B, H, W[, 3])`` -> float32 ``(B, C, H, W)`` in [0, 1]; float32 ``(B, d)`` as it is."""
    if kind == "vectors":
        return torch.from_numpy(np.array(x, np.float32))
    t = torch.from_numpy(x.astype(np.float32) / np.float32(255))
    return t[:, None] if t.dim() == 3 else t.permute(0, 3, 1, 2)


def map_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) of images stored as ``(H, W[, 3])``."""
    return (3 if len(shape) == 3 else 1), int(shape[0]), int(shape[1])


def to_pixels(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """float32 ``(B, C, H, W)`` in [0, 1] -> uint8 ``(B, *shape)``, the inverse of :func:`to_input`."""
    pixels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(pixels, 1, -1)).reshape(len(values), *shape)


def tensors_under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


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


def convolve_doubled(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3x3 convolution, padded by 1, of an image doubled by nearest neighbours, which is never made.

    Each output sees 2x2 pixels of ``x``, with the weights of those it sees twice added up: 4/9 of the multiplications.

    Args:
        convolution: 3x3, padding 1, stride 1.
        x: ``(B, C, H, W)``.

    Returns:
        ``(B, O, 2 H, 2 W)``, channels last.
    """

    def halves(weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Of the three taps along an axis the two that an even, and an odd, place has."""
        a, b, c = weight.unbind(axis)
        return torch.stack((a, b + c), axis), torch.stack((a + b, c), axis)

    height, width, channels = x.shape[2], x.shape[3], len(convolution.weight)
    weight = torch.cat([each for rows in halves(convolution.weight, 2) for each in halves(rows, 3)])
    y = F.conv2d(F.pad(x, (1, 1, 1, 1)), weight).permute(0, 2, 3, 1)
    rows = []
    for down in (0, 1):
        line = y[:, down : down + height].reshape(-1, height, width + 1, 4, channels)[..., 2 * down :, :]
        rows.append(torch.stack((line[:, :, :width, 0], line[:, :, 1:, 1]), 3).flatten(2, 3))
    out = torch.stack(rows, 2).flatten(1, 2).permute(0, 3, 1, 2)
    return out if convolution.bias is None else out + convolution.bias[:, None, None].to(out)


def folded(x: Tensor, fold: int, multiple: int | None = None) -> Tensor:
    """Squares of ``fold`` pixels into channels; edges are repeated until sides are divisible by ``multiple``.

    Args:
        x: ``(B, C, H, W)``.
        fold: Side of the squares; 1 folds nothing.
        multiple: Of ``fold``; ``fold`` itself if None.
    """
    down, across = (-side % (multiple or fold) for side in x.shape[2:])
    whole = F.pad(x, (0, across, 0, down), mode="replicate") if down or across else x
    return F.pixel_unshuffle(whole, fold) if fold > 1 else whole


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu and He 2018), in fp32 where the processor is slow at it in bf16.

    PyTorch's kernel for channels_last on CPUs works along the channels of a group, and needs 16 of them in bf16.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...)`` -> the same, of its type."""
        narrow = self.num_channels < 16 * self.num_groups and x.dtype == torch.bfloat16 and x.device.type == "cpu"
        return super().forward(x.float()).to(x.dtype) if narrow else super().forward(x)


class ResidualBlock(nn.Module):
    """Pre-activation residual block (He et al. 2016b): two 3x3 convolutions, GroupNorm, optional halving."""

    def __init__(self, channels_in: int, channels_out: int, *, halve: bool = False) -> None:
        super().__init__()
        self.norm1 = GroupNorm(8, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, 2 if halve else 1, 1, bias=False)
        self.norm2 = GroupNorm(8, channels_out)
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
        self.norm = GroupNorm(8, 8 * base)
        self.head = nn.Linear(8 * base * (height // self.multiple) * (width // self.multiple), features)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, features)``."""
        h = self.blocks(self.stem(self.view(x)))
        out: Tensor = self.head(F.relu(self.norm(h)).flatten(1))
        return out


class SixConvolutions(nn.Module):
    """AIA's gender classifier (Sec. 5.2): 3x3 convolutions 32, 64, 64, 128, 128, 256 and one linear layer.

    The text gives no pooling: maps are halved after the second and the fourth convolution (inputs of 48 pixels and more
    after the first too; of those of 96 and more 2x2 pixels are folded into channels), and averaged to 2x2 before the
    linear layer.

    Args:
        channels_in: C.
        size: Shorter side of the input, to place the halvings.
        outputs: Number of logits.
        normalise: GroupNorm after each convolution, which trains faster; the text has none.
    """

    def __init__(self, channels_in: int, size: int, outputs: int, *, normalise: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.fold = 2 if size >= 96 else 1
        size //= self.fold
        for i, (a, b) in enumerate(pairwise([channels_in * self.fold**2, 32, 64, 64, 128, 128, 256])):
            layers.append(nn.Conv2d(a, b, 3, 1, 1))
            if normalise:
                layers.append(GroupNorm(8, b))
            layers.append(nn.LeakyReLU())
            if size >= 8 and (i in (1, 3) or (i == 0 and size >= 48)):
                layers.append(nn.AvgPool2d(2))
                size //= 2
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * 256, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, outputs)``; an odd edge is repeated where pixels are folded."""
        out: Tensor = self.layers(folded(x, self.fold))
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


class MirrorDecoder(nn.Module):
    """A representation back to the image: residual blocks, each behind an up-sampling, as a residual network mirrored.

    The last doubling unfolds channels into 2x2 pixels, as :class:`ResidualEncoder` folds them. Images of (nearly) the
    output's size are folded to an eighth first.

    Args:
        shape: Of one input: ``(k,)``, or ``(C, h, w)``.
        channels_out: C of the image.
        height: H of the image.
        width: W of the image.
        base: Channels at the bottom, at most (a map of fewer, down to 64, is not widened); halved with each doubling,
            down to 32.
    """

    def __init__(self, shape: Sequence[int], channels_out: int, height: int, width: int, base: int = 128) -> None:
        super().__init__()
        self.size = (height, width)
        self.fold = 1
        layers: list[nn.Module] = []
        if len(shape) == 1:
            doublings = 4
            bottom = (base, *(-(-side // 16) for side in self.size))
            layers += [nn.Linear(shape[0], math.prod(bottom)), nn.Unflatten(1, bottom)]
        else:
            channels, *sides = shape
            if 2 * min(sides) > min(self.size):  # too little is left to double
                self.fold = 8
                channels, sides = channels * 64, [-(-side // 8) for side in sides]
            doublings = max(math.ceil(math.log2(max(a / b for a, b in zip(self.size, sides, strict=True)))), 1)
            base = min(base, max(channels, 64))
            layers += [nn.Conv2d(channels, base, 3, 1, 1), ResidualBlock(base, base)]
        widths = [max(base >> i, 32) for i in range(doublings)]
        for i in range(doublings - 1):
            layers += [ResidualBlock(widths[max(i - 1, 0)], widths[i]), nn.Upsample(scale_factor=2)]
        last = widths[max(doublings - 2, 0)]
        layers += [ResidualBlock(last, widths[-1]), GroupNorm(8, widths[-1]), nn.ReLU()]
        layers += [nn.Conv2d(widths[-1], 4 * channels_out, 3, 1, 1), nn.PixelShuffle(2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, r: Tensor) -> Tensor:
        """``(B, *shape)`` -> logits of the image ``(B, C, H, W)``; their sigmoid lies in [0, 1]."""
        out: Tensor = self.layers(folded(r, self.fold) if self.fold > 1 else r)
        return out[..., : self.size[0], : self.size[1]]


class ImageDiscriminator(nn.Module):
    """Real or redrawn: halving convolutions with spectral normalisation (Miyato et al. 2018), four where sides have 16
    pixels and more, and one linear layer."""

    def __init__(self, channels: int, height: int, width: int, base: int = 32) -> None:
        super().__init__()
        widths = [channels, base, 2 * base, 4 * base, 4 * base]
        normalised = nn.utils.parametrizations.spectral_norm
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            if min(height, width) > 1:
                layers += [normalised(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2)]
                channels, height, width = b, height // 2, width // 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` in [0, 1] -> logits ``(B,)`` that an image is real."""
        out: Tensor = self.layers(x)
        return out[:, 0].float()
