"""Released faces set back into their photographs, and faces that cannot be released covered.

A face's square is turned and scaled to where it was cut out, and takes the photograph's place in a rounded square whose
edge fades out. Nothing of the face's own pixels comes through: its fine detail is not added to the release, which was
not audited with it. What keeps a square from showing is made of what lies around it, or of averages: the brightness of
the edge, the strength of the grain, and of a grey release the tint of the whole face. Where squares overlap each pixel
belongs to the square whose middle is nearer, so that no face is seen through another's square.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veil.data.decode import Eyes
from veil.data.decode.crops import Square, square_of

Pixels = NDArray[np.float32]
INNER = 0.8
"""Where the edge begins to fade, as a share of the way from a square's middle to its side."""
GRAIN = 12.0
"""Standard deviation of the strongest grain, in grey levels: what looks stronger is texture."""
TILES = 4
"""Tiles across, and down, into which a face is averaged that is covered."""
_BORDER = 2  # pixels that a bicubic filter reads beyond a place
_MARGIN = 0.25  # of a box's sides, by which the cover is larger: hair and chin are part of a face


def set_back(photograph: NDArray[np.uint8], eyes: Sequence[Eyes], faces: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photograph with released faces in place of its own.

    Args:
        photograph: Upright, ``(H, W, 3)``; it stays as it is.
        eyes: Where the faces' eyes were.
        faces: The releases of their aligned squares, ``(n, S, S)`` grey or ``(n, S, S, 3)`` RGB.

    Returns:
        The same everywhere but in the faces' squares.
    """
    squares = [square_of(each) for each in eyes]
    windows = [_window(square, photograph.shape) for square in squares]
    out = photograph.copy()
    for own, face in enumerate(faces):
        window = windows[own]
        distances = [
            _distance(square, window) for square, other in zip(squares, windows, strict=True) if _meet(other, window)
        ]
        mine = _distance(squares[own], window)
        depths = np.sum([_depth(each) for each in distances], axis=0)
        share = np.divide(_depth(mine), depths, out=np.zeros_like(mine), where=depths > 0)
        weight = share * _fading(np.minimum.reduce(distances))
        there = photograph[window].astype(np.float32)
        change = weight[..., None] * (_fitted(face, squares[own], there, mine, window) - there)
        out[window] = np.rint(out[window] + change).clip(0, 255).astype(np.uint8)
    return out


def cover(photograph: NDArray[np.uint8], boxes: Sequence[tuple[float, float, float, float]]) -> NDArray[np.uint8]:
    """A photograph ``(H, W, 3)`` with what lies in boxes (left, top, right, bottom, in pixels) averaged beyond knowing.

    Each box and what is close around it becomes :data:`TILES` times as many tiles, joined smoothly, in an ellipse.
    """
    out = photograph.copy()
    height, width = photograph.shape[:2]
    for left, top, right, bottom in boxes:
        more = _MARGIN * (right - left), _MARGIN * (bottom - top)
        x0, x1 = (int(np.clip(v, 0, width)) for v in (left - more[0], right + more[0] + 1))
        y0, y1 = (int(np.clip(v, 0, height)) for v in (top - more[1], bottom + more[1] + 1))
        if x1 <= x0 or y1 <= y0:
            continue
        part = Image.fromarray(out[y0:y1, x0:x1])
        tiles = part.resize((TILES, TILES), Image.Resampling.BOX).resize(part.size, Image.Resampling.BICUBIC)
        y, x = np.ogrid[y0:y1, x0:x1]
        middle, half = ((left + right) / 2, (top + bottom) / 2), ((right - left) / 2, (bottom - top) / 2)
        distance = np.hypot((x - middle[0]) / (half[0] + more[0]), (y - middle[1]) / (half[1] + more[1]))
        weight = _fading(distance.astype(np.float32))[..., None]
        blend = (1 - weight) * out[y0:y1, x0:x1] + weight * np.asarray(tiles, np.float32)
        out[y0:y1, x0:x1] = np.rint(blend).astype(np.uint8)
    return out


Window = tuple[slice, slice]


def _window(square: Square, shape: tuple[int, ...]) -> Window:
    """The rows and columns of a photograph in which a square lies."""
    corner, across, down = square
    corners = np.stack([corner, corner + across, corner + down, corner + across + down])
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    rows, columns = (
        slice(int(max(a, 0)), int(min(b, n))) for a, b, n in ((low[1], high[1], shape[0]), (low[0], high[0], shape[1]))
    )
    return rows, columns


def _meet(one: Window, other: Window) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def _distance(square: Square, window: Window) -> Pixels:
    """How far each pixel of a window is from the square's middle: 1 on the edge of the rounded square in it."""
    u, v = _places(square, window)
    distance: Pixels = np.sqrt(np.sqrt((2 * u - 1) ** 4 + (2 * v - 1) ** 4))
    return distance


def _places(square: Square, window: Window) -> tuple[Pixels, Pixels]:
    """Where each pixel of a window lies in a square: across and down, as shares of its side."""
    rows, columns = window
    y = (np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5 - square.corner[1]))[:, None]
    x = (np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - square.corner[0]))[None]
    length = float(square.across @ square.across)
    (ax, ay), (dx, dy) = square.across / length, square.down / length
    return x * np.float32(ax) + y * np.float32(ay), x * np.float32(dx) + y * np.float32(dy)


def _fading(distance: Pixels) -> Pixels:
    """1 in the middle, 0 from the edge on, with a smooth way between."""
    t: Pixels = np.clip((1 - distance) / (1 - INNER), 0, 1)
    weight: Pixels = t * t * (3 - 2 * t)
    return weight


def _depth(distance: Pixels) -> Pixels:
    """How strongly a pixel belongs to a square: so unequal that squares part within a few pixels."""
    depth: Pixels = np.clip(1 - distance, 0, None) ** 8
    return depth


def _fitted(face: NDArray[np.uint8], square: Square, there: Pixels, distance: Pixels, window: Window) -> Pixels:
    """A released face as it lies in a window, with the brightness, tint and grain of what is there."""
    drawn = _drawn(face, square, window)
    edge = (distance > INNER) & (distance < 1)
    if not edge.any():
        return drawn
    if face.ndim == 2:
        inside = there[distance < 1].mean(0)
        drawn = drawn + (inside - inside.mean())
        drawn = drawn + (there[edge].mean() - drawn[edge].mean())
    else:
        drawn = drawn + (there[edge].mean(0) - drawn[edge].mean(0))
    missing = max(_grain(there, edge) ** 2 - _grain(drawn, distance < 1) ** 2, 0.0)
    seed = int.from_bytes(hashlib.sha256(face.tobytes()).digest()[:8], "little")
    grain = np.random.default_rng(seed).standard_normal(drawn.shape[:2], np.float32)
    fitted: Pixels = drawn + (min(missing**0.5, GRAIN) * grain)[..., None]
    return fitted


def _drawn(face: NDArray[np.uint8], square: Square, window: Window) -> Pixels:
    """A face as its square lies in a window, float32 ``(h, w, 3)``; beyond the square anything."""
    image = Image.fromarray(np.ascontiguousarray(face)).convert("RGB")
    side = max(1, round(float(np.hypot(*square.across))))
    if side < image.width:  # the transform looks at a few pixels around each place: it must not shrink
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    rows, columns = window
    scale = image.width / float(square.across @ square.across)
    (a, b), (d, e) = square.across * scale, square.down * scale
    start = np.array([columns.start, rows.start]) - square.corner
    # A border of its own pixels, so that the edge is no blend with black.
    padded = np.pad(np.asarray(image), ((_BORDER, _BORDER), (_BORDER, _BORDER), (0, 0)), mode="edge")
    c, f = (float(start @ direction) + _BORDER for direction in ((a, b), (d, e)))
    matrix = tuple(float(value) for value in (a, b, c, d, e, f))
    size = (columns.stop - columns.start, rows.stop - rows.start)
    turned = Image.fromarray(padded).transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(turned, np.float32)


def _grain(pixels: Pixels, where: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise in part of an image, in grey levels (Immerkaer, "Fast noise variance estimation",
    1996, with the median in place of the mean, which edges do not move)."""
    grey = pixels.mean(2)
    if min(grey.shape) < 3:
        return 0.0
    rows = grey[:-2] - 2 * grey[1:-1] + grey[2:]
    mask = np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])[where[1:-1, 1:-1]]
    return float(np.median(mask)) / (0.6745 * 6) if len(mask) else 0.0
