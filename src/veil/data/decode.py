"""Encoded images to uint8 arrays of one size, safely: limits are checked in the header, before anything is decoded.

JPEG goes through simplejpeg (libjpeg-turbo), which decodes at the smallest of its scales n/8 at which the crop still
has the target's size, and for grey images the brightness alone. PNG, BMP, WebP, TIFF and GIF (first frame) go through
Pillow. The image is turned upright as its Exif orientation says, cropped, cut to the largest centred square if it is
not square then (it is never stretched), and resized with an antialiased Lanczos filter. Where its eyes are known, it is
turned, scaled and shifted instead, so that they lie where those of all faces do.

Grey is ITU-R 601 luma. Transparency is put on white. 16-bit samples keep their upper 8 bits; samples of 32 bits have no
fixed range and are refused. Colour profiles are not applied.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ExifTags import Base as Tag
from PIL.ImageFile import ImageFile

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


MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
MAX_SIDE = 65_535
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
VERSIONS: Mapping[str, str] = {"simplejpeg": simplejpeg.__version__, "pillow": PIL.__version__}

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodeError(Exception):
    """This image cannot be decoded, or must not be; the message says why."""


def check_crop(crop: Box) -> Box:
    """The crop itself; raises InputError unless 0 <= left < right <= 1 and 0 <= top < bottom <= 1."""
    if len(crop) != 4 or not (0 <= crop[0] < crop[2] <= 1 and 0 <= crop[1] < crop[3] <= 1):
        raise InputError(f"crop {tuple(crop)}: must be left, top, right, bottom as fractions with left < right in 0..1")
    return crop


def read(path: Path) -> bytes:
    """A file's bytes; raises DecodeError where it is too large (by its size, before it is read) or cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DecodeError(f"cannot be read ({error.strerror or error})") from None
    _check_bytes(len(data))
    return data


def decode(
    data: bytes, size: int, channels: int, crop: Box | Pixels | None = None, eyes: Eyes | None = None
) -> NDArray[np.uint8]:
    """One image as uint8 ``(size, size)`` (``channels`` 1) or ``(size, size, 3)``.

    Args:
        data: The encoded image.
        size: Side of the result in pixels.
        channels: 1 (grey) or 3 (RGB).
        crop: Left, top, right and bottom as fractions of the upright image, or in its pixels; None for all of it.
        eyes: Where the eyes are, in place of a crop: the image is turned, scaled and shifted so that they lie at
            :data:`EYES`. What the square has beyond the image's border repeats the pixels at the border.

    Raises:
        DecodeError: The data are no image of a known format, damaged, or beyond a limit; or an eye lies outside.
    """
    assert crop is None or eyes is None, "a face is cropped or aligned"
    _check_bytes(len(data))
    try:
        jpeg = data[:3] == b"\xff\xd8\xff"
        if jpeg:
            found = _jpeg(data, size, channels, crop if eyes is None else eyes)
        else:
            image = _other(data, channels)
            found = _Upright(image, *image.size)
            if eyes is not None:
                eyes.check(*image.size)
        if eyes is not None:
            return np.asarray(_align(found, size, eyes))
        return np.asarray(_crop_and_resize(found, size, _box(crop, found.width, found.height)))
    except DecodeError:
        raise
    except Exception as error:  # decoders of untrusted bytes raise anything: SyntaxError, struct.error, KeyError, ...
        raise _undecodable(error) from None


def header(data: bytes) -> tuple[str, tuple[int, int]]:
    """An image's format as Pillow names it, and its upright width and height; its pixels are not decoded.

    Raises:
        DecodeError: As for :func:`decode`, where its pixels are not needed to see why.
    """
    _check_bytes(len(data))
    try:
        if data[:3] == b"\xff\xd8\xff":
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            _check_pixels(width, height)
            form, turn = "JPEG", _orientation(data)
        else:
            opened = _open(data)
            width, height = opened.size
            form, turn = str(opened.format), _turn(opened, data)
        return form, ((height, width) if turn in (5, 6, 7, 8) else (width, height))
    except DecodeError:
        raise
    except Exception as error:
        raise _undecodable(error) from None


def _undecodable(error: Exception) -> DecodeError:
    return DecodeError(f"cannot be decoded ({(str(error) or type(error).__name__).splitlines()[0][:200]})")


def _turn(opened: ImageFile, data: bytes) -> int:
    """The orientation 1..8 by which an opened image's size has yet to be turned."""
    if isinstance(opened, TiffImagePlugin.TiffImageFile) and Tag.Orientation in opened.tag_v2:
        return 1  # Pillow tells the upright size of these before they are loaded
    # Of a PNG Pillow looks for Exif behind the pixels too, for which it decodes all of them.
    words = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
    if opened.format == "PNG" and not any(word in data for word in words):
        return 1
    return int(opened.getexif().get(Tag.Orientation, 1))


def _check_bytes(n: int) -> None:
    if n > MAX_BYTES:
        raise DecodeError(f"more than {MAX_BYTES // 2**20} MiB")
    if n == 0:
        raise DecodeError("empty")


def _check_pixels(width: int, height: int) -> None:
    if width < 1 or height < 1 or width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise DecodeError(f"{width} x {height} pixels; at most {MAX_PIXELS // 10**6} million are decoded")


def _box(crop: Box | Pixels | None, width: int, height: int) -> Box:
    """A crop as fractions of an upright image of that size."""
    if crop is None:
        return 0.0, 0.0, 1.0, 1.0
    return crop.box(width, height) if isinstance(crop, Pixels) else crop


def _side(part: Box | Pixels | Eyes | None, width: int, height: int) -> float:
    """The side, in pixels, of the square that is cut out of an upright image of that size."""
    if isinstance(part, Eyes):
        part.check(width, height)
        return part.side
    left, top, right, bottom = _box(part, width, height)
    return min((right - left) * width, (bottom - top) * height)


class _Upright(NamedTuple):
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


def _jpeg(data: bytes, size: int, channels: int, part: Box | Pixels | Eyes | None) -> _Upright:
    """The upright JPEG, at the smallest scale at which the part's square still has ``size`` pixels a side."""
    height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    _check_pixels(width, height)
    turn = _orientation(data)
    wide, high = (height, width) if turn in (5, 6, 7, 8) else (width, height)
    side = _side(part, wide, high)
    if space in ("CMYK", "YCCK"):
        # libjpeg-turbo does not convert print colours; Pillow does, and knows Adobe's inverted ones.
        image = _to_mode(_load(JpegImagePlugin.JpegImageFile(io.BytesIO(data))), channels)
        return _Upright(_upright(image, turn), wide, high)
    scale = min(1.0, size / side)
    array = simplejpeg.decode_jpeg(
        data,
        "GRAY" if channels == 1 else "RGB",
        min_height=math.ceil(height * scale),
        min_width=math.ceil(width * scale),
    )
    image = _upright(Image.fromarray(array[..., 0] if channels == 1 else array), turn)
    # libjpeg scales by eighths: by the fewest that make sides like these, which it has rounded up.
    eighths = (n for n in range(1, 9) if (-(-height * n // 8), -(-width * n // 8)) == array.shape[:2])
    scale = next(eighths, 8) / 8
    # The part of a pixel that is too much is on the right and at the bottom, before the image is turned.
    left = image.width - wide * scale if turn in (2, 3, 6, 7) else 0.0
    top = image.height - high * scale if turn in (3, 4, 7, 8) else 0.0
    return _Upright(image, wide, high, scale, left, top)


def _orientation(data: bytes) -> int:
    """The Exif orientation 1..8 of a JPEG, 1 where it has none or its Exif is damaged."""
    # Exif is an APP1 segment near the start; most JPEGs of data sets have none, and this search costs a microsecond.
    if data.find(b"Exif\0\0", 0, 2**16) < 0:
        return 1
    try:
        return int(JpegImagePlugin.JpegImageFile(io.BytesIO(data)).getexif().get(Tag.Orientation, 1))
    except Exception:  # damaged Exif is no reason to lose an image that decodes
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def _other(data: bytes, channels: int) -> Image.Image:
    """The upright image in any other format."""
    image = _load(_open(data))
    # Pillow turns TIFFs upright when it loads them and drops the tag.
    turn = int(image.getexif().get(Tag.Orientation, 1))
    return _upright(_to_mode(image, channels), turn)


def _open(data: bytes) -> ImageFile:
    """An image that is no JPEG, not decoded yet; by its first bytes: these are the only formats that are ever tried."""
    # The classes are called rather than Image.open: its own limit on pixels is another one, and partly only a warning.
    file = io.BytesIO(data)
    opened: ImageFile
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        opened = PngImagePlugin.PngImageFile(file)
    elif data[:2] == b"BM":
        opened = BmpImagePlugin.BmpImageFile(file)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_pixels(*_webp_size(data))  # Pillow lets libwebp allocate the whole canvas when it opens the file
        opened = WebPImagePlugin.WebPImageFile(file)
    elif data[:4] in (b"II*\0", b"MM\0*"):
        opened = TiffImagePlugin.TiffImageFile(file)
    elif data[:6] in (b"GIF87a", b"GIF89a"):
        _check_pixels(*struct.unpack("<HH", data[6:10]))
        opened = GifImagePlugin.GifImageFile(file)
    else:
        raise DecodeError("not a JPEG, PNG, BMP, WebP, TIFF or GIF image")
    _check_pixels(*opened.size)
    return opened


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height as the first chunk of a WebP file gives them (RFC 9649, sections 2.5 to 2.7)."""
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if data[12:16] == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    raise DecodeError("cannot be decoded (no WebP header)")


def _load(image: ImageFile) -> ImageFile:
    _check_pixels(*image.size)
    image.load()
    return image


def _to_mode(image: Image.Image, channels: int) -> Image.Image:
    """8-bit grey or RGB out of whatever a file may hold."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray(_eight_bits(image))
    elif image.mode in ("I", "F"):
        raise DecodeError("samples of 32 bits, which have no fixed range")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Grey of 9 to 16 bits, which Pillow gives as it stands in the file, as 8 bits."""
    values = np.asarray(image).astype(np.int64)
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    bits = tags.get(Tag.BitsPerSample, (16,))
    shown: NDArray[np.int64] = (values >> (max(bits) - 8)).clip(0, 255)
    if tags.get(Tag.PhotometricInterpretation, 1) == 0:  # white is zero
        shown = 255 - shown
    if "transparency" in image.info:
        shown[values == image.info["transparency"]] = 255
    return shown.astype(np.uint8)


def _crop_and_resize(found: _Upright, size: int, box: Box) -> Image.Image:
    """The largest centred square of the crop, at ``size`` pixels a side."""
    image, width, height, scale, *_ = found
    left, right = (f * width * scale + found.left for f in box[::2])
    top, bottom = (f * height * scale + found.top for f in box[1::2])
    side = min(right - left, bottom - top)
    left += (right - left - side) / 2
    top += (bottom - top - side) / 2
    if side < 1:
        raise DecodeError(f"the crop is less than one pixel of {image.size[0]} x {image.size[1]}")
    # A sum of floats may pass the edge by a rounding error, which Pillow refuses.
    square = (left, top, min(left + side, image.size[0]), min(top + side, image.size[1]))
    return image.resize((size, size), Image.Resampling.LANCZOS, box=square, reducing_gap=3.0)


def _align(found: _Upright, size: int, eyes: Eyes) -> Image.Image:
    """The square that has the eyes at :data:`EYES`, at ``size`` pixels a side."""
    image = found.image
    # Pillow counts from the corner of the first pixel, landmarks from its middle.
    left = np.array([eyes.left_x, eyes.left_y]) + 0.5
    right = np.array([eyes.right_x, eyes.right_y]) + 0.5
    across = (right - left) / (EYES[1][0] - EYES[0][0])  # the square's upper edge; the one on its left goes down
    down = np.array([-across[1], across[0]])
    corner = left - EYES[0][0] * across - EYES[0][1] * down
    across, down, corner = across * found.scale, down * found.scale, corner * found.scale + (found.left, found.top)
    # Pillow's transform looks at 4 x 4 pixels around each place, however far apart the places are: it must not shrink.
    # So what is much too large is averaged first, to three pixels or more for one, like reducing_gap in a plain resize.
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
    return turned if drawn == size else turned.resize((size, size), Image.Resampling.LANCZOS)
