"""Orientation maps see the direction of edges, and nothing else; gradients are made of what is there."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from veil.nn.nets import OrientationMaps, ResidualEncoder
from veil.nn.torchvision import _strided

maps = OrientationMaps()


def wave(direction: int, size: int = 56) -> torch.Tensor:
    """Stripes ``(1, 1, size, size)`` that rise and fall along one of eight directions, every 12 pixels of an axis."""
    y, x = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    angle = direction * math.pi / 4
    along = x * round(math.cos(angle)) + y * round(math.sin(angle))
    return (0.5 + 0.3 * torch.sin(along * 2 * math.pi / 12))[None, None]


def inside(out: torch.Tensor) -> torch.Tensor:
    """Mean over the 18 x 18 cells whose neighbourhood lies in the image: three waves each way, ``(8,)``."""
    return out[0, :, 5:-5, 5:-5].mean((1, 2))


def test_flat_images_have_no_edges():
    out = maps(torch.rand(3, 1, 1, 1).expand(3, 1, 16, 24))
    assert out.shape == (3, 8, 8, 12)
    assert (out == 0).all()


@pytest.mark.parametrize("direction", range(8))
def test_a_wave_is_seen_in_its_own_direction(direction):
    """And in the opposite one, where it falls; |cos|^4 is 1/4 at 45 degrees and 0 at 90.

    Neighbourhoods of 18 pixels hold three of the slope's squares' periods, so the scale is the same everywhere. What is
    left is the constant of 1e-6 in the squares of slopes, which go up to 0.09.
    """
    got = inside(maps(wave(direction)))
    expected = torch.tensor([math.cos((i - direction) * math.pi / 4) ** 4 for i in range(8)])
    torch.testing.assert_close(got / got[direction], expected, atol=1e-3, rtol=0)


def test_light_and_contrast_change_nothing():
    """The constants that keep flat areas at 0 are 1e-6 of a square of a slope, and 1e-4 of the maps' mean square."""
    x = wave(1) * 0.6 + 0.2 * torch.rand(1, 1, 56, 56)
    out = maps(x)
    assert out.min() >= 0
    assert out.max() <= 2
    for changed in (0.5 * x + 0.4, x - 0.2):
        assert (maps(changed) - out).abs().mean() < 0.02 * out.mean()


def test_turning_an_image_turns_its_maps():
    x = torch.rand(2, 1, 32, 32)
    turned = maps(x.rot90(1, (2, 3)))  # counter-clockwise: what pointed right now points up, which is -y, direction 6
    torch.testing.assert_close(turned, maps(x).rot90(1, (2, 3)).roll(6, 1), atol=1e-4, rtol=0)
    torch.testing.assert_close(maps(1 - x), maps(x).roll(4, 1), atol=1e-4, rtol=0)


def test_cells_see_their_neighbourhood_alone():
    """9 cells of 2 pixels and a neighbouring pixel each side."""
    x = torch.rand(1, 1, 64, 64)
    nudged = x.clone()
    nudged[..., 32, 32] += 0.5
    touched = ((maps(nudged) - maps(x)).abs().amax((0, 1)) > 0).nonzero()
    reach = (touched - 16).abs().max().item()
    assert reach <= 5
    assert len(touched) > 9


def test_residual_encoder_reads_pixels_or_orientations():
    x = torch.rand(2, 1, 32, 48)
    for oriented in (False, True):
        network = ResidualEncoder(1, 32, 48, 7, base=8, oriented=oriented)
        assert network(x).shape == (2, 7)
        assert isinstance(network.view, OrientationMaps if oriented else nn.PixelUnshuffle)
        lit = network(0.5 * x + 0.3)
        change = (lit - network(x)).norm() / network(x).norm()
        assert (change < 0.05) == oriented


@pytest.mark.parametrize("height", [1, 2])
def test_gradients_of_maps_one_column_wide_are_made_of_what_is_there(height: int) -> None:
    """In bf16 PyTorch made them of unwritten memory: here memory that held NaN is free to be taken."""
    convolution = nn.Conv2d(256, 512, 3, 2, 1, bias=False).to(memory_format=torch.channels_last)
    x = torch.randn(8, 256, height, 1).contiguous(memory_format=torch.channels_last)
    exact = torch.autograd.grad(convolution(x).square().sum(), [convolution.weight])[0]
    for _ in range(4):
        held = [torch.full((n,), float("nan")) for n in (10_000, 100_000, 9 * 256 * 512, 18 * 256 * 512)]
        del held
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = _strided(convolution, x).float()
        found = torch.autograd.grad(out.square().sum(), [convolution.weight])[0]
        assert (found - exact).abs().max() < 0.02 * exact.abs().max()  # bf16 keeps 8 bits
