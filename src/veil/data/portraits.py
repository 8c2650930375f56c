"""Paints stylised faces: shapes in face units, from back to front, many faces at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]  # float32 always; its declared type widens next to a Python float


def _ellipse(x: Array, y: Array, rx: Array | float, ry: Array | float, square: Array | float | None = None) -> Array:
    """An ellipse; ``square`` from 0 to 1 turns it into a rectangle (the norm of Fernandez-Guasti's squircle)."""
    xx, yy = x * (1 / rx), y * (1 / ry)
    xx *= xx
    yy *= yy
    edge = xx + yy
    if square is not None:
        xx *= yy
        xx *= square * -4
        xx += edge * edge
        edge += np.sqrt(np.maximum(xx, 0, out=xx), out=xx)  # rounding can take it below 0
        edge *= 0.5
    edge -= 1
    edge *= np.minimum(rx, ry) * np.float32(0.55)  # the slope of r^2 at the edge is 2 / radius
    return edge


def _glow(x: Array, y: Array, rx: Array | float, ry: Array | float) -> Array:
    """A soft spot: 1 in the middle, 0 from the ellipse's edge on."""
    spot = 1 - (x * (1 / rx)) ** 2 - (y * (1 / ry)) ** 2
    np.maximum(spot, 0, out=spot)
    spot *= spot
    return spot


def _wave(x: Array) -> Array:
    """A triangle wave of period 1 in 0..1."""
    wave: Array = np.abs(x - np.floor(x + 0.5)) * 2
    return wave


@dataclass(frozen=True)
class _Window:
    """A box of pixels and their face coordinates, float32 ``(B, h, w)``."""

    at: tuple[slice, slice, slice, slice]
    x: Array
    y: Array


class _Easel:
    """The images of one chunk, float32 ``(B, C, size, size)``, and where the face lies in them."""

    def __init__(self, g: dict[str, Array], colours: dict[str, Array], size: int) -> None:
        self.g, self.colours, self.size = g, colours, size
        batch, channels = colours["skin"].shape[:2]
        self.pixels = np.empty((batch, channels, size, size), np.float32)
        self.axis = (np.arange(size, dtype=np.float32) * 2 + 1) / np.float32(size) - 1  # pixel centres in -1..1
        across, down = self.axis[None, None, :] - g["x"], self.axis[None, :, None] - g["y"]
        cos, sin = g["cos"] / g["scale"], g["sin"] / g["scale"]
        self.x_of, self.y_of = (across * cos, down * sin), (down * cos, across * -sin)
        self.sharpness = g["scale"] * np.float32(size / 2 / 1.25)  # an edge is 1.25 pixels wide

    def window(self, x: float, y: float, rx: Array | float, ry: Array | float) -> _Window:
        """The pixels that the box ``x +- rx, y +- ry`` reaches in any image of the chunk."""
        g = self.g
        rx, ry = rx + 4 / self.size, ry + 4 / self.size
        slices = []
        for middle, reach in (
            (g["x"] + g["scale"] * (g["cos"] * x - g["sin"] * y), g["cos"] * rx + np.abs(g["sin"]) * ry),
            (g["y"] + g["scale"] * (g["sin"] * x + g["cos"] * y), np.abs(g["sin"]) * rx + g["cos"] * ry),
        ):
            low, high = float((middle - g["scale"] * reach).min()), float((middle + g["scale"] * reach).max())
            first, last = (min(max(math.floor((edge + 1) * self.size / 2), 0), self.size) for edge in (low, high))
            slices.append(slice(first, max(last, first + 1)))
        c, r = slices
        return _Window(
            (slice(None), slice(None), r, c),
            self.x_of[0][:, :, c] + self.x_of[1][:, r],
            self.y_of[0][:, r] + self.y_of[1][:, :, c],
        )

    def soft(self, distance: Array) -> Array:
        """Coverage in 0..1 of a shape."""
        cover = distance * -self.sharpness
        cover += 0.5
        return np.clip(cover, 0, 1, out=cover)

    def paint(self, window: _Window, cover: Array, colour: str) -> None:
        """Lay a colour over the window, as opaque as ``cover``."""
        region = self.pixels[window.at]
        layer = self.colours[colour] - region
        layer *= cover[:, None]
        region += layer


def portraits(
    numbers: dict[str, Array], colours: dict[str, Array], keys: NDArray[np.uint32], size: int
) -> NDArray[np.float32]:
    """Faces, from back to front.

    Args:
        numbers: What shapes are made from, float32 ``(B, 1, 1)`` each, in face units.
        colours: float32 ``(B, channels, 1, 1)`` each, in 0..1.
        keys: uint32 ``(B,)``, one for each image, that its grain is drawn from.
        size: Side of the images in pixels.

    Returns:
        float32 ``(B, channels, size, size)``, about 0..1.
    """
    easel = _Easel(numbers, colours, size)
    _background(easel)
    hair = _hair_shape(easel)
    _hair_behind(easel, hair)
    _shoulders(easel)
    _ears(easel)
    _head(easel)
    _nose(easel)
    _mouth(easel)
    _eyes(easel)
    _hair_in_front(easel, hair)
    _brows(easel)
    _glasses(easel)
    _light(easel, keys)
    return easel.pixels


def _background(e: _Easel) -> None:
    slope = e.g["back_x"] * e.axis[None, None, :] + e.g["back_y"] * e.axis[None, :, None]
    slope = np.clip(slope * 0.5 + 0.5, 0, 1)
    e.pixels[:] = e.colours["back"] + (e.colours["back_end"] - e.colours["back"]) * slope[:, None]


def _hair_shape(e: _Easel) -> tuple[_Window, Array]:
    """The outline of all hair, open below: window and distance."""
    g = e.g
    width, top = g["face_width"] + g["hair_volume"] * 0.75, g["crown"] + g["hair_volume"]
    w = e.window(0, 0.1, 1.1, 1.1)
    x = w.x - g["yaw"] * 0.3
    below = np.maximum(w.y, 0)
    curl = _wave(w.x * 4.5 + 0.25) + _wave(w.y * 4.5)
    edge = _ellipse(x * (1 - g["hair_flare"] * below), np.minimum(w.y, 0), width, top, 0.5)
    return w, np.maximum(edge + g["hair_curl"] * (curl - 1), w.y - np.maximum(g["hair_length"], -0.08) + 0.25 * x * x)


def _hair_behind(e: _Easel, hair: tuple[_Window, Array]) -> None:
    (w, edge), g = hair, e.g
    if (g["bun"] > 0).any():
        bun, radius = e.window(0, -0.8, 0.3, 0.35), np.maximum(g["bun"], 0.001)
        ball = _ellipse(bun.x, bun.y + g["crown"] + g["hair_volume"], radius, radius)
        e.paint(bun, e.soft(ball) * (g["bun"] > 0), "hair_dark")
    e.paint(w, e.soft(edge), "hair_dark")


def _shoulders(e: _Easel) -> None:
    g = e.g
    neck = e.window(0, 0.8, 0.36, 0.45)
    cover = e.soft(np.abs(neck.x) - g["neck"])
    e.paint(neck, cover * e.soft(0.35 - neck.y), "skin")
    e.paint(neck, cover * _glow(neck.x, neck.y - g["chin"], 0.6, 0.24), "shade")
    body = e.window(0, 1.12, 0.95, 0.4)
    shape = _ellipse(body.x, body.y - 1.2, g["neck"] * 2.2 + 0.26, 0.40)
    collar = _ellipse(body.x, body.y - 0.82, g["neck"], 0.13)
    e.paint(body, e.soft(np.maximum(shape, -collar)), "shirt")


def _ears(e: _Easel) -> None:
    g = e.g
    w = e.window(0, 0.05, 0.75, 0.22)
    x = np.abs(w.x + g["yaw"] * 0.4) - g["face_width"]
    e.paint(w, e.soft(_ellipse(x, w.y - g["eye_line"] - 0.06, g["ear"] * 0.75, g["ear"] * 1.25)), "skin")
    e.paint(w, 0.8 * e.soft(_ellipse(x, w.y - g["eye_line"] - 0.06, g["ear"] * 0.35, g["ear"] * 0.8)), "shade")


def _head(e: _Easel) -> None:
    g = e.g
    w = e.window(0, 0.05, 0.7, 0.95)
    x, below, above = w.x - g["yaw"] * 0.15, np.maximum(w.y, 0), np.minimum(w.y, 0)
    square = np.clip(g["jaw"], 0, 0.9) * (w.y > 0)
    narrow = x / (1 - g["jaw_width"] * (1 - 0.6 * g["jaw"]) * np.minimum(below * 1.4, 1.2))

    def outline(chin: Array) -> Array:
        return _ellipse(narrow, above * (chin / g["crown"]) + below, g["face_width"], chin, square)

    edge = outline(g["chin"])
    face = e.soft(edge)
    e.paint(w, face, "skin")
    e.paint(w, face * np.clip((edge + 0.10) * 2.2, 0, 0.35), "shade")
    inner = x - g["yaw"]
    cheek = np.abs(inner) - g["eye_spacing"] * 1.25
    e.paint(w, _glow(cheek, w.y - 0.22, 0.17, 0.13) * np.clip(g["blush"] + 0.3 * g["cheek"], 0, 1), "blush")
    beard = np.clip(g["beard"], 0, 1)
    if beard.any():
        line = np.clip(0.5 - (0.31 - 1.3 * inner * inner - w.y) * 9, 0, 1)
        e.paint(w, e.soft(outline(g["chin"] + g["beard_length"] * beard)) * line * (beard * 0.9), "beard")


def _nose(e: _Easel) -> None:
    g = e.g
    w = e.window(0, 0.1, 0.3, 0.35)
    x = w.x - g["yaw"] * 1.5
    y = w.y - g["nod"] * 1.3
    low = y - g["nose_length"]
    e.paint(w, _glow(x - g["nose_width"] * 0.7, y - 0.08, 0.07, 0.2) * 0.55, "shade")
    e.paint(w, _glow(x, low, g["nose_width"] * 1.7, 0.075) * 0.8, "shade")
    bow = np.abs(low + x * x * (0.32 / g["nose_width"])) - 0.016
    e.paint(w, 0.9 * e.soft(np.maximum(bow, np.abs(x) - g["nose_width"])), "shade")
    if g["wrinkle"].any():
        fold = np.abs(_wave(y * 14 + x * x * 9) - 0.5) * 0.07 - 0.012
        bridge = _ellipse(x, y - 0.03, 0.075, 0.085)
        e.paint(w, e.soft(np.maximum(fold, bridge)) * g["wrinkle"], "shade")


def _mouth(e: _Easel) -> None:
    g = e.g
    w = e.window(0, 0.44, 0.4, 0.3)
    half = g["mouth_width"] * g["stretch"]
    x, y = w.x - g["yaw"], w.y - g["nod"] - g["mouth_line"]
    across = x / half
    arc = 1 - across * across
    bulge = np.sqrt(np.maximum(arc, 0))
    middle = g["curve"] * (arc - 0.5) + g["skew"] * across
    up, down = middle - g["open_up"] * bulge, middle + g["open_down"] * bulge
    ends = np.abs(x) - half
    lips = np.maximum(up - g["lips"] * 0.8 * bulge - y, y - down - g["lips"] * 1.1 * bulge)
    e.paint(w, e.soft(np.maximum(lips, ends)) * np.clip(g["lip_tone"], 0, 1), "lip")
    inside = np.maximum(np.maximum(up - y, y - down), ends)
    e.paint(w, e.soft(inside - 0.013), "mouth")
    tongue = _ellipse(x, y - down, half * 0.6, np.maximum(g["tongue"], 0.001))
    e.paint(w, e.soft(np.maximum(inside, tongue)) * (g["tongue"] > 0), "tongue")
    teeth = np.minimum(y - up - g["teeth_up"], down - g["teeth_down"] - y)
    e.paint(w, e.soft(np.maximum(inside, teeth)) * (g["teeth_up"] > 0), "white")


def _eyes(e: _Easel) -> None:
    g = e.g
    w = e.window(0, -0.03, 0.5, 0.3)
    x, y = w.x - g["yaw"], w.y - g["nod"] - g["eye_line"]
    side = np.abs(x) - g["eye_spacing"]  # both eyes at once: distance from the pupil, outwards
    y = y + side * g["slant"]
    across = side / g["eye_width"]
    arc = 1 - across * across
    upper, lower = arc * (-g["eye"] * g["upper_lid"]), arc * (g["eye"] * 0.8 * g["lower_lid"])
    lens = np.maximum(upper - y, y - lower)
    e.paint(w, 0.5 * _glow(side, y + 0.05, 0.19, 0.14), "shade")
    e.paint(w, e.soft(lens), "white")
    look = np.abs(x - g["gaze"]) - g["eye_spacing"]
    radius = g["eye"] * 0.88 * g["pupil"]
    e.paint(w, e.soft(np.maximum(lens, _ellipse(look, y, radius, radius))), "iris")
    e.paint(w, e.soft(np.maximum(lens, _ellipse(look, y, radius * 0.55, radius * 0.55))), "black")
    glint = x - g["gaze"] - np.copysign(g["eye_spacing"], x) + 0.025  # on the left of both pupils
    e.paint(w, e.soft(_ellipse(glint, y + 0.03, 0.02, 0.02)), "white")
    lid = np.maximum(np.abs(y - upper) - g["lash"] * (1 + 0.4 * across), np.abs(side) - g["eye_width"] * 1.08)
    e.paint(w, e.soft(lid), "black")


def _brows(e: _Easel) -> None:
    g = e.g
    w = e.window(0, -0.19, 0.5, 0.44)
    x = np.abs(w.x - g["yaw"]) - g["eye_spacing"] - 0.015 + g["brow_pinch"]
    y = w.y - g["nod"] - g["eye_line"] + g["brow_gap"] + g["brow_lift"]
    along = x / g["brow_length"]  # -1 at the inner end, 1 at the outer
    y = y + g["brow_angle"] * along + g["brow_arch"] * (1 - along * along)
    thick = g["brow_weight"] * (1 - 0.35 * along * np.abs(along))
    e.paint(w, e.soft(np.maximum(np.abs(y) - thick, np.abs(x) - g["brow_length"])), "brow")


def _hair_in_front(e: _Easel, hair: tuple[_Window, Array]) -> None:
    (w, edge), g = hair, e.g
    x = w.x - g["yaw"] * 0.7
    y = w.y + g["fringe"] * x + g["tousle"] * _wave(w.x * 3.5)
    x = x + g["parting"] * np.clip(w.y * 2.5, -1, 0)
    gap = _ellipse(x, np.minimum(y, 0), g["face_width"] * 0.9, -g["hairline"], 0.4)
    cover = e.soft(np.maximum(edge, -gap))
    e.paint(w, cover, "hair")
    e.paint(w, cover * _glow(w.x + g["light_x"] * -0.2, w.y + g["crown"] * 0.9, 0.4, 0.22) * 0.7, "hair_light")


def _glasses(e: _Easel) -> None:
    g = e.g
    if not g["glasses"].any():
        return
    w = e.window(0, 0.0, 0.75, 0.28)
    side, y = np.abs(w.x - g["yaw"]), w.y - g["nod"] - g["eye_line"] - 0.01
    square = np.clip(g["frame_shape"], 0, 0.95)
    lens = _ellipse(side - g["eye_spacing"] - 0.01, y, g["frame_size"], g["frame_size"] * 0.88, square)
    e.paint(w, e.soft(lens) * (0.12 * g["glasses"]), "white")
    bar = np.maximum(np.abs(y + 0.03) - 0.014, np.maximum(-lens, side - g["face_width"]))
    e.paint(w, e.soft(np.minimum(np.abs(lens) - 0.016, bar)) * g["glasses"], "frame")


def _light(e: _Easel, keys: NDArray[np.uint32]) -> None:
    """A gradient of light over the whole image, and noise: the sum of two uniforms, hashed from key and pixel."""
    g = e.g
    slope = (g["light_x"] * g["light"]) * e.axis[None, None, :] + (g["light_y"] * g["light"]) * e.axis[None, :, None]
    slope += 1
    slope *= g["exposure"]
    e.pixels *= slope[:, None]
    h = np.arange(e.size * e.size, dtype=np.uint32).reshape(1, e.size, e.size) * np.uint32(0x9E3779B9)
    h = h ^ keys[:, None, None]
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):  # Wellons' lowbias32
        h ^= h >> np.uint32(shift)
        h *= np.uint32(factor)
    h ^= h >> np.uint32(16)
    grain = ((h & np.uint32(0xFFFF)) + (h >> np.uint32(16))).astype(np.float32)
    grain *= g["noise"] * np.float32(1.2247 / 32768)  # two uniforms of 0..65535: standard deviation 32768 / 1.2247
    grain -= g["noise"] * np.float32(1.2247 * 65535 / 32768)
    e.pixels += grain[:, None]
