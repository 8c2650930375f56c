"""Near-duplicates: what the mean over the releases of many of them gives away.

Frames of a video, re-encoded or rescaled copies, a template as it is and at length 1: they show one thing, and whoever
sees, or asks for, the releases of several can take their mean. Noise that is drawn anew for each has little left then.
Vectors are scaled, and moved to a cosine of .99 and .95 in any direction; images are shifted by a pixel at most, made
brighter or darker, and encoded as JPEG.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from veil.data.pack import Pack

COUNT = 32
"""Near-duplicates of a row."""
COSINES = (0.99, 0.95)
"""How near vectors are, each for three eighths of them; a quarter is only scaled."""
MOST: Mapping[str, Mapping[str, tuple[int, int, int]]] = {
    "vectors": {"quick": (10_000, 5_000, 10_000), **dict.fromkeys(("standard", "strong"), (20_000, 10_000, 20_000))},
    "images": {"quick": (400, 200, 400), **dict.fromkeys(("standard", "strong"), (2_000, 1_000, 2_000))},
}
"""Rows to learn from, to choose on and to measure on, by kind and effort: of each all near-duplicates are released."""

Released = Callable[[NDArray[Any]], NDArray[np.float32]]
"""From inputs to releases ``(n, m)``; of codes, to their indicators."""


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Means of the releases of near-duplicates.

    Attributes:
        rows: ``(r,)`` rows of the pack.
        means: float32 ``(r, m)``.
        singles: float32 ``(N, m)``, one release of each row of the pack, in the same values: an attacker has those too.
    """

    rows: NDArray[np.int64]
    means: NDArray[np.float32]
    singles: NDArray[np.float32]


def chosen_rows(pack: Pack, attack_on: Sequence[str], effort: str, seed: int) -> NDArray[np.int64]:
    """Rows whose near-duplicates are released: some of the splits to learn from, of ``calibrate`` and of ``test``."""
    rng = np.random.default_rng(seed)
    parts = [pack.rows(*splits) for splits in (attack_on, ("calibrate",), ("test",))]
    return np.sort(
        np.concatenate(
            [
                rng.choice(rows, min(len(rows), most), replace=False)
                for rows, most in zip(parts, MOST[pack.kind][effort], strict=True)
            ]
        )
    )


def released_means(
    release: Released, pack: Pack, rows: NDArray[np.int64], attack_on: Sequence[str], seed: int
) -> NDArray[np.float32]:
    """Means ``(r, m)`` of the releases of :data:`COUNT` near-duplicates of each row."""
    centre = None
    if pack.kind == "vectors":  # of the attacker's own data: cosines are of what tells vectors apart
        centre = pack.x[pack.rows(*attack_on)].mean(0, dtype=np.float64).astype(np.float32)
    means = []
    for start in range(0, len(rows), 4096):
        x = np.asarray(pack.x[rows[start : start + 4096]])
        total = np.zeros(1, np.float64)
        for number in range(COUNT):
            rng = np.random.default_rng([seed, start, number])
            near = moved_vectors(x, number, centre, rng) if centre is not None else moved_images(x, rng)
            total = total + release(near)
        means.append((total / COUNT).astype(np.float32))
    return np.concatenate(means)


def moved_vectors(
    x: NDArray[np.float32], number: int, centre: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Near-duplicate ``number`` (0 .. :data:`COUNT` - 1) of each vector ``(n, d)``: scaled by 1/2 to 2, or turned about
    ``centre`` to one of :data:`COSINES`, at the same distance from it."""
    scaled = COUNT // 4
    if number < scaled:
        return x * np.exp2(rng.uniform(-1, 1, (len(x), 1))).astype(np.float32)
    cosine = COSINES[(number - scaled) * len(COSINES) // (COUNT - scaled)]
    arm = x - centre
    length = np.linalg.norm(arm, axis=1, keepdims=True)
    across = rng.standard_normal(x.shape, dtype=np.float32)
    across -= np.sum(across * arm, axis=1, keepdims=True) / np.maximum(np.square(length), 1e-30) * arm
    across *= length / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-30)
    moved: NDArray[np.float32] = centre + np.float32(cosine) * arm + np.float32(np.sqrt(1 - cosine**2)) * across
    return moved


def moved_images(x: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A near-duplicate of each image ``(n, H, W[, 3])``: shifted by a pixel or none each way (the edge is repeated), up
    to a tenth brighter or darker, and through a JPEG of quality 75 to 95."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), *((0, 0),) * (x.ndim - 3)), mode="edge")
    out = np.empty_like(x)
    for i, image in enumerate(padded):
        down, right = rng.integers(3, size=2)
        light = image[down : down + height, right : right + width] * rng.uniform(0.9, 1.1)
        pixels = np.ascontiguousarray(np.clip(np.round(light), 0, 255).astype(np.uint8).reshape(height, width, -1))
        space = "GRAY" if pixels.shape[2] == 1 else "RGB"
        data = simplejpeg.encode_jpeg(pixels, quality=int(rng.integers(75, 96)), colorspace=space)
        out[i] = simplejpeg.decode_jpeg(data, space).reshape(x.shape[1:])
    return out
