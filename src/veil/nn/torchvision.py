"""Networks of torchvision's shapes, whose weights files are read without it, and networks of perceptual distances."""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from veil.errors import InputError
from veil.foreign import check_archive, opened
from veil.nn.nets import GroupNorm

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of red, green and blue that torchvision's weights expect."""


class ResNet(nn.Module):
    """ResNet-18 or -50 (He et al. 2016), or some of its stages, with torchvision's parameter names: its files load.

    Stages: ``conv1`` (with the first pooling), ``layer1``, ``layer2``, ``layer3``, ``pool`` (layer4 and the mean over
    places), ``fc``.

    Args:
        depth: 18 or 50.
        outputs: Width of ``fc``.
        norm: ``"group"`` trains from scratch; ``"batch"`` scales by the stored statistics of a weight file, which stay
            as they are: a release must not depend on its neighbours. Its parameters are named ``bn1``, ... either way.
        stages: Those to make, in a row.
    """

    stages = ("conv1", "layer1", "layer2", "layer3", "pool", "fc")
    blocks: Mapping[int, tuple[int, ...]] = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
    mean: Tensor
    deviation: Tensor

    def __init__(
        self, depth: int, outputs: int, norm: Literal["group", "batch"] = "group", stages: Sequence[str] = stages
    ) -> None:
        super().__init__()
        self.made = tuple(stages)
        grown = 4 if depth >= 50 else 1  # a bottleneck gives out four times its width
        channels = 64
        if "conv1" in stages:
            self.conv1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
            self.bn1 = _norm(norm, channels)
            for name, value in (("mean", _IMAGENET[0]), ("deviation", _IMAGENET[1])):
                self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)
        for i, count in enumerate(self.blocks[depth]):
            width = 64 * 2**i
            if self.stages[i + 1] in stages:
                blocks = []
                for j in range(count):
                    stride = 2 if i > 0 and j == 0 else 1
                    blocks.append(_TorchvisionBlock(channels, width, stride, norm, bottleneck=grown > 1))
                    channels = width * grown
                setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            channels = width * grown
        if "fc" in stages:
            self.fc = nn.Linear(channels, outputs)

    def forward(self, h: Tensor) -> Tensor:
        """What its first stage takes, images ``(B, 1 or 3, H, W)`` in [0, 1] for ``conv1``, through all of them."""
        for stage in self.made:
            if stage == "conv1":
                h = (h.expand(-1, 3, -1, -1) - self.mean) / self.deviation
                h = F.max_pool2d(F.relu(self.bn1(self.conv1(h))), 3, 2, 1)
            elif stage == "pool":
                h = self.get_submodule("layer4")(h).mean((2, 3))
            else:
                h = self.get_submodule(stage)(h)
        return h


class _TorchvisionBlock(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1 to four times the width; the stride is the 3x3's, as torchvision's."""

    def __init__(self, channels: int, width: int, stride: int, norm: Literal["group", "batch"], *, bottleneck: bool):
        super().__init__()
        out = 4 * width if bottleneck else width
        sizes = ((1, 1), (3, stride), (1, 1)) if bottleneck else ((3, stride), (3, 1))
        inner = channels
        for i, (kernel, step) in enumerate(sizes, 1):
            outer = out if i == len(sizes) else width
            self.add_module(f"conv{i}", nn.Conv2d(inner, outer, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{i}", _norm(norm, outer))
            inner = outer
        self.count = len(sizes)
        same = stride == 1 and channels == out
        self.downsample = (
            None if same else nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), _norm(norm, out))
        )

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for i in range(1, self.count + 1):
            h = self.get_submodule(f"bn{i}")(_strided(self.get_submodule(f"conv{i}"), h))  # type: ignore[arg-type]
            h = F.relu(h) if i < self.count else h
        return F.relu(h + (x if self.downsample is None else self.downsample(x)))


def _strided(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution, without bias; of maps one column wide by the middle column of its kernel, all that counts there.

    Kernels are square, 1x1 or 3x3. For such maps the gradient of one with a stride is, in bf16 on CPUs, made of memory
    that nobody wrote (PyTorch 2.13): the same seed had other weights, or NaN.
    """
    if x.shape[3] > 1 or convolution.stride == (1, 1):
        out: Tensor = convolution(x)
        return out
    middle = convolution.kernel_size[1] // 2  # which is the padding, too
    return F.conv2d(x, convolution.weight[..., middle : middle + 1], None, convolution.stride, (middle, 0))


class StoredBatchNorm(nn.Module):
    """Batch normalisation by stored statistics, under the names that weight files use; scale and shift may learn."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None].to(x) + shift[:, None, None].to(x)


def _norm(kind: Literal["group", "batch"], channels: int) -> nn.Module:
    return StoredBatchNorm(channels) if kind == "batch" else GroupNorm(8, channels)


class PerceptualNetwork(nn.Module):
    """Five stages of convolutions whose maps measure how alike two images look; a last layer that learns them."""

    def __init__(self, channels: int, outputs: int = 64) -> None:
        super().__init__()
        widths = (channels, 16, 32, 64, 96, 128)
        # The first stage halves at once, as LPIPS's networks do, and groups are wide: both for speed on CPUs.
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 1, 1) if i else nn.Conv2d(a, b, 4, 2, 1), GroupNorm(b // 16, b), nn.ReLU())
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.head = nn.Linear(sum(widths[1:]), outputs)

    def maps(self, x: Tensor) -> list[Tensor]:
        """``(B, C, H, W)`` in [0, 1] -> the maps of the five stages, of half the size and less, halved each time."""
        out = []
        for i, stage in enumerate(self.stages):
            x = stage(F.avg_pool2d(x, 2, ceil_mode=True) if i else x)
            out.append(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, outputs)``, from the means of all maps."""
        out: Tensor = self.head(torch.cat([m.mean((2, 3)) for m in self.maps(x)], 1))
        return out


class Vgg16(nn.Module):
    """The convolutions of VGG-16 (Simonyan and Zisserman 2015) with torchvision's names, as perceptual network."""

    widths = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in self.widths:
            if width:
                layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        for name, value in (("mean", _IMAGENET[0]), ("deviation", _IMAGENET[1])):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)

    def maps(self, x: Tensor) -> list[Tensor]:
        """``(B, 1 or 3, H, W)`` in [0, 1] -> the last maps of conv1 to conv5."""
        h, out = (x.expand(-1, 3, -1, -1) - self.mean) / self.deviation, []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                out.append(h)
            h = layer(h)
        return [*out, h]


def load_torchvision(module: nn.Module, path: Path, *, spared: Sequence[str] = ()) -> str:
    """Fill a network from a file of torchvision's weights (``.pth`` or ``.safetensors``); nothing is unpickled.

    Args:
        module: :class:`ResNet` of norm ``"batch"``, or :class:`Vgg16`.
        path: The file.
        spared: Beginnings of names whose weights may have another shape, or be absent: they stay as they are.

    Returns:
        SHA-256 of the file.

    Raises:
        InputError: If the file cannot be read, or a weight is missing or of another shape.
    """
    try:
        with opened(path) as file:
            raw = file.read()
        if path.suffix == ".safetensors":
            weights = load_safetensors(raw)
        else:
            if zipfile.is_zipfile(io.BytesIO(raw)):
                check_archive(path, zipfile.ZipFile(io.BytesIO(raw)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what PyTorch finds odd in a file that is damaged
                weights = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        weights = {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}
    except InputError:
        raise
    except Exception as error:  # whatever is wrong with a stranger's file ends here, in one line
        raise InputError(f"{path}: must be a file of weights, and cannot be read ({type(error).__name__})") from error
    kept = {}
    for name, value in module.state_dict().items():
        given = weights.get(name)
        if given is None or given.shape != value.shape:
            if name.startswith(tuple(spared)):
                continue
            got = "none" if given is None else str(tuple(given.shape))
            raise InputError(f"{path}: weight {name!r} must have shape {tuple(value.shape)}, got {got}")
        kept[name] = given.float()
    module.load_state_dict(kept, strict=False)
    return hashlib.sha256(raw).hexdigest()
