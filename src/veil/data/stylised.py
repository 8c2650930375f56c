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

from veil.data.portraits import Array, portraits
from veil.errors import InputError, checked_seed

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


def _draw(faces: Faces, rows: NDArray[np.int64], size: int, channels: int) -> Images:
    """One chunk: uint8 ``(B, size, size)`` or ``(B, size, size, 3)``."""
    pixels = portraits(_numbers(faces, rows), _colours(faces, rows, channels), faces.keys[rows], size)
    pixels *= 255
    pixels += 0.5
    np.clip(pixels, 0, 255, out=pixels)
    return pixels[:, 0].astype(np.uint8) if channels == 1 else np.moveaxis(pixels, 1, 3).astype(np.uint8)
