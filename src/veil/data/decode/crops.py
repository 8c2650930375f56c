"""What is cut out of an upright image: a box, or the square in which the eyes lie where those of all faces do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veil.data.decode.limits import DecodeError
from veil.errors import InputError

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a crop, as fractions of the upright image's width and height."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Left, top, right and bottom of a crop, in pixels of the upright image, whose edges cut off what lies beyond."""

    left: float
    top: float
    right: float
    bottom: float

    def box(self, width: int, height: int) -> Box:
        """The crop as fractions of an image of that size; raises DecodeError where nothing of it is inside."""
        across = (min(max(x / width, 0.0), 1.0) for x in (self.left, self.right))
        down = (min(max(y / height, 0.0), 1.0) for y in (self.top, self.bottom))
        (left, right), (top, bottom) = across, down
        if not (left < right and top < bottom):
            corners = f"{self.left:g}, {self.top:g} to {self.right:g}, {self.bottom:g}"
            raise DecodeError(f"its crop {corners} has no pixel of {width} x {height}")
        return left, top, right, bottom


Places = tuple[tuple[float, float], tuple[float, float]]
"""Where the left and the right eye lie in a square: across and down, as fractions of its side."""
EYES = ((1 / 3, 0.42), (2 / 3, 0.42))
"""Where the left and the right eye of an aligned face lie: across and down, as fractions of its square's side."""


@dataclass(frozen=True, slots=True)
class Eyes:
    """The eyes of a face, in pixels of the upright image; (0, 0) is the middle of its upper left pixel.

    The left eye is the one on the left of the picture when the face is upright, which is the person's right eye.
    """

    left_x: float
    left_y: float
    right_x: float
    right_y: float

    @property
    def side(self) -> float:
        """Side, in the same pixels, of the square that the aligned face fills: three times the eyes' distance."""
        return math.hypot(self.right_x - self.left_x, self.right_y - self.left_y) / (EYES[1][0] - EYES[0][0])

    def check(self, width: int, height: int) -> None:
        """Raises DecodeError where an eye lies outside of an image of that size, or the square is below a pixel."""
        for name, x, y in (("left", self.left_x, self.left_y), ("right", self.right_x, self.right_y)):
            if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                raise DecodeError(f"its {name} eye {x:g}, {y:g} lies outside of its {width} x {height} pixels")
        if self.side < 1:
            raise DecodeError(f"its eyes are {self.side / 3:.2g} pixels apart; a third of a pixel is the least")


def check_crop(crop: Box) -> Box:
    """The crop itself; raises InputError unless 0 <= left < right <= 1 and 0 <= top < bottom <= 1."""
    try:
        inside = len(crop) == 4 and 0 <= crop[0] < crop[2] <= 1 and 0 <= crop[1] < crop[3] <= 1
        shown = tuple(crop)
    except (TypeError, ValueError):  # what is no list of numbers
        inside, shown = False, crop
    if not inside:
        raise InputError(f"crop {shown}: must be left, top, right, bottom as fractions with left < right in 0..1")
    return crop


def box_of(crop: Box | Pixels | None, width: int, height: int) -> Box:
    """A crop as fractions of an upright image of that size."""
    if crop is None:
        return 0.0, 0.0, 1.0, 1.0
    return crop.box(width, height) if isinstance(crop, Pixels) else crop


def side_of(part: Box | Pixels | Eyes | None, width: int, height: int) -> float:
    """The side, in pixels, of the square that is cut out of an upright image of that size."""
    if isinstance(part, Eyes):
        part.check(width, height)
        return part.side
    left, top, right, bottom = box_of(part, width, height)
    return min((right - left) * width, (bottom - top) * height)


class Upright(NamedTuple):
    """An upright image, perhaps at a smaller scale.

    Attributes:
        image: The pixels.
        width: Upright, in the file.
        height: The same.
        scale: Pixels here for one of the file.
        left: Where the file's left edge lies here, in pixels: scaled sides are rounded up, by part of a pixel.
        top: The same of its upper edge.
    """

    image: Image.Image
    width: int
    height: int
    scale: float = 1.0
    left: float = 0.0
    top: float = 0.0


def crop_and_resize(upright: Upright, size: int, box: Box) -> Image.Image:
    """The largest centred square of the crop, at ``size`` pixels a side."""
    image, width, height, scale, *_ = upright
    left, right = (f * width * scale + upright.left for f in box[::2])
    top, bottom = (f * height * scale + upright.top for f in box[1::2])
    side = min(right - left, bottom - top)
    left += (right - left - side) / 2
    top += (bottom - top - side) / 2
    if side < 1:
        raise DecodeError(f"the crop is less than one pixel of {image.size[0]} x {image.size[1]}")
    factor = max(1, int(side / size / 3))
    if factor > 1:  # what is much too large is averaged first, to three pixels or more for one
        image = image.reduce(factor)
        left, top, side = left / factor, top / factor, side / factor
    # A sum of floats may pass the edge by a rounding error, which Pillow refuses.
    return _resized(image, size, (left, top, min(left + side, image.size[0]), min(top + side, image.size[1])))


def _resized(image: Image.Image, size: int, square: Box) -> Image.Image:
    """A square of an image at ``size`` pixels a side: Lanczos along its rows, and then along its columns.

    Asked for both at once, Pillow 13 begins with the columns of some images, and earlier ones never do; pixels are
    rounded in between, and would not be the same.
    """
    left, top, right, bottom = square
    rows = image.resize((size, image.height), Image.Resampling.LANCZOS, box=(left, 0, right, image.height))
    return rows.resize((size, size), Image.Resampling.LANCZOS, box=(0, top, size, bottom))


class Square(NamedTuple):
    """A square in an image, perhaps turned, in pixels that are counted from the corner of the first.

    Attributes:
        corner: Its upper left corner, ``(2,)``.
        across: From there to its upper right corner, ``(2,)``.
        down: And to its lower left one, ``(2,)``.
    """

    corner: NDArray[np.float64]
    across: NDArray[np.float64]
    down: NDArray[np.float64]


def square_of(eyes: Eyes, places: Places = EYES) -> Square:
    """The square that has the eyes at their places, in pixels of the upright image."""
    # Pillow counts from the corner of the first pixel, landmarks from its middle.
    left = np.array([eyes.left_x, eyes.left_y]) + 0.5
    right = np.array([eyes.right_x, eyes.right_y]) + 0.5
    # As complex numbers: one turns and scales the distance of both places into that of the eyes.
    edge = complex(*(right - left)) / complex(*np.subtract(places[1], places[0]))
    across = np.array([edge.real, edge.imag])
    down = np.array([-across[1], across[0]])
    return Square(left - places[0][0] * across - places[0][1] * down, across, down)


def align(upright: Upright, size: int, eyes: Eyes, places: Places = EYES) -> Image.Image:
    """The square that has the eyes at their places, at ``size`` pixels a side."""
    image = upright.image
    corner, across, down = (part * upright.scale for part in square_of(eyes, places))
    corner += np.array([upright.left, upright.top])
    # Pillow's transform looks at 4 x 4 pixels around each place, however far apart the places are: it must not shrink.
    # So what is much too large is averaged first here, too.
    factor = max(1, int(math.hypot(*across) / size / 3))
    if factor > 1:
        image = image.reduce(factor)
        across, down, corner = across / factor, down / factor, corner / factor
    # Then the turned square is drawn with at least as many pixels as it has here, and shrunk as other images are.
    drawn = size * max(1, math.ceil(round(max(math.hypot(*across), math.hypot(*down)) / size, 6)))
    corners = np.stack([corner, corner + across, corner + down, corner + across + down])
    low, high = np.floor(corners.min(0)).astype(int) - 2, np.ceil(corners.max(0)).astype(int) + 2
    # Beyond the border the indices are those at the border.
    columns, rows = (np.clip(np.arange(a, b), 0, n - 1) for a, b, n in zip(low, high, image.size, strict=True))
    around = Image.fromarray(np.asarray(image)[np.ix_(rows, columns)])
    (a, d), (b, e), (c, f) = (v.tolist() for v in (across / drawn, down / drawn, corner - low))
    turned = around.transform(
        (drawn, drawn), Image.Transform.AFFINE, (a, b, c, d, e, f), resample=Image.Resampling.BICUBIC
    )
    return turned if drawn == size else _resized(turned, size, (0, 0, drawn, drawn))
