"""Stylised faces: a seeded renderer of parametric cartoon faces, the built-in data set with a known ground truth.

An identity is a vector of independent unit-variance Gaussians, one per row of :data:`PARAMETERS`: face, jaw, ears,
hair, brows, eyes, nose, mouth, beard and tones. Gender moves the means of some of them by less than one standard
deviation each, so no parameter gives it away, and the Bayes accuracy from all of them is known in closed form
(:func:`gender_bayes_accuracy`). Every other draw (expression, smile, glasses, pose, light, background, noise) is
independent of gender. Hair style and beard follow from continuous parameters too; mapping, clipping and drawing only
lose information, so the closed form bounds every attacker from above, whatever it sees of however many images.

Drawing: a face lives in units of half an image width, x to the right and y down, the origin between the eyes and the
nose. A shape is a function that is close to the signed distance near its edge; its coverage is that distance in
pixels, clipped. Pixels see only + - * /, square roots, floor, min and max, rounded alike everywhere (IEEE 754), and
each depends on its own image's numbers alone: the bytes depend on seed, size and channels, not on chunks or threads.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from veil.errors import InputError, checked_seed

Array = NDArray[np.floating[Any]]  # float32 always; its declared type widens next to a Python float
Images = NDArray[np.uint8]

EXPRESSIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
CLASSES: Mapping[str, tuple[str, ...]] = {
    "gender": ("female", "male"),
    "expression": EXPRESSIONS,
    "smile": ("no", "yes"),
    "glasses": ("no", "yes"),
}
"""Class names of every label but ``identity``; code c means ``CLASSES[label][c]``."""

PARAMETERS: Mapping[str, tuple[float, float, float]] = {
    # name: (shift of the mean from female to male in standard deviations, value at 0, change per standard deviation)
    "jaw": (0.88, 0.42, 0.24),  # squareness of the lower face
    "chin": (0.75, 0.68, 0.040),  # origin to chin
    "neck": (0.80, 0.235, 0.042),  # half width
    "brow_weight": (0.88, 0.032, 0.011),  # half thickness
    "brow_gap": (-0.78, 0.185, 0.022),  # eye to brow
    "eye": (-0.80, 0.092, 0.014),  # half height
    "lash": (-0.88, 0.018, 0.007),  # half thickness of the upper lid
    "nose_width": (0.80, 0.085, 0.021),
    "lips": (-0.80, 0.036, 0.013),  # thickness
    "lip_tone": (-0.85, 0.45, 0.26),  # opacity of the lip colour
    "beard": (0.90, -0.60, 0.75),  # opacity; below 0 none
    "hair_length": (-0.90, 0.20, 0.45),  # where the hair ends
    "hairline": (0.75, -0.42, 0.065),
    "blush": (-0.75, 0.30, 0.24),  # opacity
    "face_width": (0.0, 0.50, 0.036),
    "jaw_width": (0.0, 0.20, 0.055),  # how much the face narrows towards the chin
    "crown": (0.0, 0.62, 0.03),  # origin to the top of the skull
    "skin": (0.0, 0.45, 0.28),
    "hair_tone": (0.0, 0.42, 0.27),
    "hair_volume": (0.0, 0.10, 0.036),
    "hair_flare": (0.0, 0.08, 0.10),  # widening of long hair
    "hair_curl": (0.0, 0.012, 0.014),  # depth of waves at the edge
    "parting": (0.0, 0.0, 0.16),
    "tousle": (0.0, 0.04, 0.045),  # waves of the hairline
    "fringe": (0.0, 0.0, 0.16),  # slope of the hairline
    "bun": (0.0, -0.16, 0.16),  # radius; below 0 none
    "ear": (0.0, 0.095, 0.018),
    "eye_spacing": (0.0, 0.215, 0.017),
    "eye_width": (0.0, 0.128, 0.012),
    "eye_line": (0.0, -0.03, 0.022),
    "slant": (0.0, 0.10, 0.12),
    "iris": (0.0, 0.50, 0.30),
    "brow_arch": (0.0, 0.028, 0.018),
    "brow_length": (0.0, 0.145, 0.014),
    "nose_length": (0.0, 0.235, 0.026),
    "mouth_width": (0.0, 0.185, 0.020),
    "mouth_line": (0.0, 0.435, 0.018),
    "beard_length": (0.0, 0.05, 0.05),
    "frame_size": (0.0, 0.175, 0.014),  # glasses
    "frame_shape": (0.0, 0.45, 0.30),
    "glasses": (0.0, 0.25, 0.45),  # how often they are worn
}
"""The Gaussians of an identity, and the numbers in face units that they stand for."""

_DRAWS = (
    "x", "y", "turn", "scale", "yaw", "nod", "intensity", "gaze", "light_x", "light_y", "light", "exposure",
    "back_red", "back_green", "back_blue", "back_x", "back_y", "shirt_red", "shirt_green", "shirt_blue", "noise",
    "rest", "worn", "smiles",
)  # fmt: skip
"""Uniform draws in [-1, 1) of an image."""

_SMILE_CHANCE = np.array([0.0, 0.0, 0.0, 1.0, 0.6, 0.0, 0.5])  # per expression
_MOVES: Mapping[str, tuple[float, ...]] = {
    # name: the value at rest, then what is added per expression, in the order of EXPRESSIONS
    "brow_lift": (0.0, -0.075, -0.03, 0.05, 0.02, 0.0, 0.02, 0.11),
    "brow_angle": (0.0, 0.085, 0.04, -0.07, -0.01, 0.0, -0.085, 0.0),  # above 0 the inner ends are down
    "brow_pinch": (0.0, 0.05, 0.03, 0.02, 0.0, 0.0, 0.03, -0.01),
    "upper_lid": (1.0, -0.25, -0.45, 0.30, -0.10, 0.0, -0.35, 0.40),
    "lower_lid": (1.0, -0.20, -0.60, 0.10, -0.65, 0.0, 0.0, 0.20),
    "pupil": (1.0, -0.10, -0.05, -0.28, 0.0, 0.0, 0.0, -0.25),
    "curve": (0.0, -0.06, -0.10, -0.09, 0.16, 0.0, -0.13, 0.0),  # above 0 the corners of the mouth are up
    "skew": (0.0, 0.0, 0.045, 0.0, 0.0, 0.0, 0.0, 0.0),
    "open_up": (0.0, 0.045, 0.02, 0.05, 0.02, 0.0, 0.0, 0.085),
    "open_down": (0.0, 0.045, 0.03, 0.055, 0.13, 0.0, 0.0, 0.115),
    "stretch": (1.0, 0.0, -0.05, 0.10, 0.20, 0.0, -0.15, -0.38),
    "teeth_up": (0.0, 0.04, 0.0, 0.045, 0.06, 0.0, 0.0, 0.03),
    "teeth_down": (0.0, 0.04, 0.0, 0.03, 0.0, 0.0, 0.0, 0.0),
    "tongue": (0.0, 0.0, 0.05, 0.0, 0.06, 0.0, 0.0, 0.04),
    "wrinkle": (0.0, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "cheek": (0.0, 0.0, 0.25, 0.0, 0.5, 0.0, 0.0, 0.0),
}

_SKIN = ((0.98, 0.87, 0.78), (0.94, 0.77, 0.64), (0.82, 0.61, 0.46), (0.66, 0.46, 0.34), (0.50, 0.35, 0.26))
_HAIR = ((0.10, 0.09, 0.10), (0.27, 0.17, 0.12), (0.48, 0.27, 0.15), (0.80, 0.60, 0.32), (0.72, 0.71, 0.72))
_IRIS = ((0.22, 0.13, 0.08), (0.42, 0.26, 0.12), (0.33, 0.45, 0.26), (0.30, 0.50, 0.66))


def gender_bayes_accuracy() -> float:
    """Accuracy of the best possible attacker on gender: Phi(d' / 2), d'^2 the sum of the squared shifts.

    The two genders are equally frequent and their parameters Gaussian with one covariance, the identity matrix; d' is
    the distance of the means (Fukunaga, Introduction to Statistical Pattern Recognition, 1990, section 3.1).
    """
    distance = math.sqrt(sum(shift * shift for shift, _, _ in PARAMETERS.values()))
    return 0.5 * (1 + math.erf(distance / math.sqrt(8)))


@dataclass(frozen=True, kw_only=True)
class Faces:
    """A population: every label and every number that its images are drawn from; no pixels.

    Attributes:
        identities: float32 ``(I, len(PARAMETERS))``, the Gaussians of each identity.
        labels: int64 ``(N,)`` codes for ``identity`` (row of ``identities``) and for each label of :data:`CLASSES`.
        draws: float32 ``(N, 24)`` in [-1, 1): pose, light, background and the like of each image.
        keys: uint32 ``(N,)``, what the noise of each image is hashed from.
    """

    identities: Array
    labels: Mapping[str, NDArray[np.int64]]
    draws: Array = field(repr=False)
    keys: NDArray[np.uint32] = field(repr=False)

    def __len__(self) -> int:
        return len(self.draws)

    def names(self, row: int) -> dict[str, str]:
        """The labels of one image as class names; an identity is called ``person-00042-1f0a9c3e``, say.

        The end is a hash of who it is: number 42 of another population is another person, and has another name.
        """
        named = {label: CLASSES[label][codes[row]] for label, codes in self.labels.items() if label in CLASSES}
        who = int(self.labels["identity"][row])
        digest = hashlib.blake2b(self.identities[who].tobytes(), digest_size=4).hexdigest()
        return {"identity": f"person-{who:05d}-{digest}"} | named


_MOST = 10_000_000  # images


def population(identities: int, images_per_identity: int, seed: int = 0) -> Faces:
    """Draw the people and their images: identity by identity, ``images_per_identity`` rows each.

    Half of the identities are female and half male (one more female if odd), in random order. Expressions are equally
    likely; joy always smiles, neutral and surprise sometimes do.

    Raises:
        InputError: fewer than 2 identities, fewer than 1 image each, more than 10 million images, or a seed that is
            none.
    """
    seed = checked_seed(seed)
    for name, value, least in (("identities", identities, 2), ("images", images_per_identity, 1)):
        if value < least:
            raise InputError(f"stylised faces: {name} must be at least {least}, not {value}")
    if identities * images_per_identity > _MOST:
        raise InputError(f"stylised faces: at most {_MOST:,} images, not {identities} times {images_per_identity}")
    people, images = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    gender = people.permutation(np.arange(identities, dtype=np.int64) % 2)
    shifts = np.array([shift for shift, _, _ in PARAMETERS.values()])
    z = people.standard_normal((identities, len(PARAMETERS))) + (gender[:, None] - 0.5) * shifts

    n = identities * images_per_identity
    identity = np.repeat(np.arange(identities, dtype=np.int64), images_per_identity)
    draws = images.random((n, len(_DRAWS)), dtype=np.float32) * 2 - 1
    expression = images.integers(len(EXPRESSIONS), size=n)
    chance = {name: 0.5 + 0.5 * draws[:, _DRAWS.index(name)] for name in ("worn", "smiles")}
    _, at_zero, change = PARAMETERS["glasses"]
    wears = np.clip(at_zero + change * z[identity, list(PARAMETERS).index("glasses")], 0.02, 0.98)
    labels = {
        "identity": identity,
        "gender": gender[identity],
        "expression": expression,
        "smile": (chance["smiles"] < _SMILE_CHANCE[expression]).astype(np.int64),
        "glasses": (chance["worn"] < wears).astype(np.int64),
    }
    keys = images.integers(2**32, size=n, dtype=np.uint32)
    return Faces(identities=z.astype(np.float32), labels=labels, draws=draws, keys=keys)


def render(
    faces: Faces, rows: ArrayLike | None = None, *, size: int = 64, channels: int = 1, threads: int | None = None
) -> Images:
    """Draw images: uint8 ``(N, size, size)`` in grey or ``(N, size, size, 3)`` in RGB, in the order of ``rows``.

    Args:
        rows: Which images; all of them if None.
        size: Width and height in pixels, at least 16.
        channels: 1 for grey (the luma of RGB), 3 for RGB.
        threads: How many chunks are drawn at a time; one per core if None. It does not change the bytes.

    Raises:
        InputError: a size, number of channels or of threads, or a row out of range.
    """
    if size < 16:
        raise InputError(f"stylised faces: size must be at least 16 pixels, not {size}")
    if channels not in (1, 3):
        raise InputError(f"stylised faces: channels must be 1 (grey) or 3 (RGB), not {channels}")
    if threads is not None and threads < 1:
        raise InputError(f"stylised faces: threads must be at least 1, not {threads}")
    chosen = np.arange(len(faces)) if rows is None else np.atleast_1d(np.asarray(rows, dtype=np.int64))
    if ((chosen < 0) | (chosen >= len(faces))).any():
        raise InputError(f"stylised faces: rows must lie in 0..{len(faces) - 1}, not {chosen.min()}..{chosen.max()}")
    out = np.empty((len(chosen), size, size) if channels == 1 else (len(chosen), size, size, 3), np.uint8)
    chunk = max(1, 2**17 // (size * size))  # 512 KiB of float32 a plane: it stays in a core's cache

    def draw(start: int) -> None:
        out[start : start + chunk] = _draw(faces, chosen[start : start + chunk], size, channels)

    starts = range(0, len(chosen), chunk)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for _ in pool.map(draw, starts):
            pass
    return out


def stream(
    faces: Faces, *, size: int = 64, channels: int = 1, chunk: int = 1024, threads: int | None = None
) -> Iterator[Images]:
    """Yield the images of :func:`render` in order, at most ``chunk`` at a time: memory does not grow with their number.

    Raises:
        InputError: as :func:`render`, or a chunk below 1.
    """
    if chunk < 1:
        raise InputError(f"stylised faces: chunk must be at least 1 image, not {chunk}")
    for start in range(0, len(faces), chunk):
        yield render(faces, range(start, min(start + chunk, len(faces))), size=size, channels=channels, threads=threads)


# ---------------------------------------------------------------------------------------------------------------------
# From labels and draws to numbers in face units


def _numbers(faces: Faces, rows: NDArray[np.int64]) -> dict[str, Array]:
    """What the shapes of these images are made from: float32 ``(B, 1, 1)`` each."""
    z = np.clip(faces.identities[faces.labels["identity"][rows]], -2.4, 2.4)  # no face falls apart
    draws = dict(zip(_DRAWS, faces.draws[rows].T, strict=True))
    expression, smile = faces.labels["expression"][rows], faces.labels["smile"][rows]
    g: dict[str, NDArray[Any]]
    g = {name: value + change * z[:, i] for i, (name, (_, value, change)) in enumerate(PARAMETERS.items())}

    strength = 1.0 + 0.2 * draws["intensity"]
    g |= {name: m[0] + strength * np.array(m[1:], np.float32)[expression] for name, m in _MOVES.items()}
    polite = smile * (expression != EXPRESSIONS.index("joy")) * (1.0 + 0.15 * draws["intensity"])
    g["curve"] = g["curve"] + 0.12 * polite + 0.012 * draws["rest"]
    g["lower_lid"] = g["lower_lid"] - 0.25 * polite
    g["cheek"] = g["cheek"] + 0.3 * polite
    g["stretch"] = g["stretch"] + 0.12 * polite
    g["glasses"] = faces.labels["glasses"][rows]

    half = 0.045 * draws["turn"]  # tan of half the angle, at most 5.2 degrees: cosine and sine without a library's
    g |= {"cos": (1 - half**2) / (1 + half**2), "sin": 2 * half / (1 + half**2)}
    g |= {"x": 0.05 * draws["x"], "y": 0.04 * draws["y"] + 0.04, "scale": 1.0 + 0.05 * draws["scale"]}
    g |= {"yaw": 0.055 * draws["yaw"], "nod": 0.018 * draws["nod"], "gaze": 0.022 * draws["gaze"]}
    g |= {name: draws[name] for name in ("light_x", "light_y", "back_x", "back_y")}
    g |= {"light": 0.22 + 0.10 * draws["light"], "exposure": 1.0 + 0.10 * draws["exposure"]}
    g["noise"] = 0.010 + 0.006 * draws["noise"]
    return {name: np.asarray(value, np.float32)[:, None, None] for name, value in g.items()}


def _colours(faces: Faces, rows: NDArray[np.int64], channels: int) -> dict[str, Array]:
    """The colours of these images: float32 ``(B, channels, 1, 1)`` in 0..1."""
    z = faces.identities[faces.labels["identity"][rows]]
    draws = dict(zip(_DRAWS, faces.draws[rows].T, strict=True))

    def ramp(name: str, stops: tuple[tuple[float, float, float], ...]) -> NDArray[np.float64]:
        _, value, change = PARAMETERS[name]
        at = np.clip(value + change * z[:, list(PARAMETERS).index(name)], 0, 1) * (len(stops) - 1)
        return np.stack([np.interp(at, range(len(stops)), [stop[c] for stop in stops]) for c in range(3)], axis=1)

    def three(name: str) -> NDArray[np.float32]:
        return np.stack([draws[f"{name}_{c}"] for c in ("red", "green", "blue")], axis=1)

    skin, hair = ramp("skin", _SKIN), ramp("hair_tone", _HAIR)
    back = three("back")
    back = 0.70 + 0.12 * back + 0.14 * back.mean(axis=1, keepdims=True)
    colours = {
        "skin": skin,
        "shade": skin * (0.74, 0.66, 0.62),
        "blush": skin * (0.98, 0.70, 0.66),
        "lip": skin * (0.86, 0.50, 0.50),
        "hair": hair,
        "hair_dark": hair * 0.68,
        "brow": hair * 0.55,
        "hair_light": hair * 0.72 + 0.20,
        "beard": hair * 0.75 + skin * 0.06,
        "iris": ramp("iris", _IRIS),
        "back": back,
        "back_end": back * 0.78,
        "shirt": 0.45 + 0.30 * three("shirt"),
        "white": np.full_like(skin, 0.97),
        "black": np.full_like(skin, 0.08),
        "mouth": np.broadcast_to((0.30, 0.08, 0.09), skin.shape),
        "tongue": np.broadcast_to((0.82, 0.40, 0.42), skin.shape),
        "frame": np.broadcast_to((0.16, 0.15, 0.19), skin.shape),
    }
    if channels == 1:
        weights = (0.299, 0.587, 0.114)  # no matrix product: its rounding may depend on the number of rows
        colours = {name: sum(c[:, i : i + 1] * weights[i] for i in range(3)) for name, c in colours.items()}
    return {name: colour.astype(np.float32)[:, :, None, None] for name, colour in colours.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Shapes: values below 0 are inside, and near the edge they are distances in face units


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


# ---------------------------------------------------------------------------------------------------------------------
# The face, from back to front


def _draw(faces: Faces, rows: NDArray[np.int64], size: int, channels: int) -> Images:
    """One chunk: uint8 ``(B, size, size)`` or ``(B, size, size, 3)``."""
    easel = _Easel(_numbers(faces, rows), _colours(faces, rows, channels), size)
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
    _light(easel, faces.keys[rows])
    pixels = easel.pixels
    pixels *= 255
    pixels += 0.5
    np.clip(pixels, 0, 255, out=pixels)
    return pixels[:, 0].astype(np.uint8) if channels == 1 else np.moveaxis(pixels, 1, 3).astype(np.uint8)


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
