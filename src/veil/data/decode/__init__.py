"""Encoded images to uint8 arrays of one size, safely: limits are checked in the header, before anything is decoded.

JPEG goes through simplejpeg (libjpeg-turbo), which decodes at the smallest of the scales 1, 1/2, 1/4 and 1/8 at which
the crop still has the target's size, and for grey images the brightness alone. Pillow's ``draft`` knows these scales,
too, and gives the same pixels: what is decoded here can be had with Pillow alone. PNG, BMP, WebP, TIFF, GIF (first
frame), AVIF, JPEG 2000, PPM (with PGM and PBM) and TGA go through Pillow, and HEIC through its plug-in ``pillow_heif``
where that is installed. These are the formats in which photographs are kept and whose headers tell their size before
anything is decoded; no other decoder ever sees a file. Icons hold pictures of sizes that their headers do not tell,
PostScript is a program, and for raw files and SVG there is no reader: such files are known by their names, and listed.

The image is turned upright as its Exif orientation says, cropped, cut to the largest centred square if it is not square
then (it is never stretched), and resized with an antialiased Lanczos filter. Where its eyes are known, it is turned,
scaled and shifted instead, so that they lie where those of all faces do.

Grey is ITU-R 601 luma. Transparency is put on white. 16-bit samples keep their upper 8 bits; samples of 32 bits have no
fixed range and are refused. Colour profiles are not applied.

A damaged picture is refused, but what is beside its pixels never costs it: damaged Exif, text or profiles, stray bytes
before and after a JPEG or between its parts, a JPEG's missing end marker. One that lacks pixels is damaged.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray

from veil.data.decode import heif
from veil.data.decode.crops import EYES, Box, Eyes, Pixels, Places, Upright, align, box_of, check_crop, crop_and_resize
from veil.data.decode.formats import OTHER_SUFFIXES, SUFFIXES, begins_as_image, kind_of
from veil.data.decode.jpeg import jpeg_header, jpeg_in, jpeg_orientation, read_jpeg
from veil.data.decode.limits import MAX_BYTES, DecodeError, check_bytes, read
from veil.data.decode.pillow import opened_other, read_other, turn_of
from veil.foreign import one_line

__all__ = [
    "EYES",
    "MAX_BYTES",
    "OTHER_SUFFIXES",
    "SUFFIXES",
    "VERSIONS",
    "Box",
    "DecodeError",
    "Eyes",
    "Pixels",
    "Places",
    "begins_as_image",
    "check_crop",
    "decode",
    "header",
    "kind_of",
    "read",
    "whole",
]

VERSIONS: Mapping[str, str] = {
    "simplejpeg": simplejpeg.__version__,
    "pillow": PIL.__version__,
    **heif.VERSIONS,
}


def decode(
    data: bytes,
    size: int,
    channels: int,
    crop: Box | Pixels | None = None,
    eyes: Eyes | None = None,
    places: Places = EYES,
) -> NDArray[np.uint8]:
    """One image as uint8 ``(size, size)`` (``channels`` 1) or ``(size, size, 3)``.

    Args:
        data: The encoded image.
        size: Side of the result in pixels.
        channels: 1 (grey) or 3 (RGB).
        crop: Left, top, right and bottom as fractions of the upright image, or in its pixels; None for all of it.
        eyes: Where the eyes are, in place of a crop: the image is turned, scaled and shifted so that they lie at
            ``places``. What the square has beyond the image's border repeats the pixels at the border.

        places: Where they lie then; as in packs if nothing is said.

    Raises:
        DecodeError: The data are no image of a known format, damaged, or beyond a limit; or an eye lies outside.
    """
    assert crop is None or eyes is None, "a face is cropped or aligned"
    check_bytes(len(data))
    try:
        if jpeg := jpeg_in(data):
            upright = read_jpeg(jpeg, size, channels, crop if eyes is None else eyes)
        else:
            image = read_other(data, channels)
            upright = Upright(image, *image.size)
            if eyes is not None:
                eyes.check(*image.size)
        if eyes is not None:
            return np.asarray(align(upright, size, eyes, places))
        return np.asarray(crop_and_resize(upright, size, box_of(crop, upright.width, upright.height)))
    except DecodeError:
        raise
    except Exception as error:  # decoders of untrusted bytes raise anything: SyntaxError, struct.error, KeyError, ...
        raise _undecodable(error) from None


def whole(data: bytes) -> NDArray[np.uint8]:
    """One image as it is, upright, uint8 ``(H, W, 3)``, RGB; raises DecodeError as :func:`decode`."""
    _, (width, height) = header(data)
    try:
        jpeg = jpeg_in(data)
        image = read_jpeg(jpeg, max(width, height), 3, None).image if jpeg else read_other(data, 3)
        return np.asarray(image)
    except DecodeError:
        raise
    except Exception as error:
        raise _undecodable(error) from None


def header(data: bytes) -> tuple[str, tuple[int, int]]:
    """An image's format as Pillow names it, and its upright width and height; its pixels are not decoded.

    Raises:
        DecodeError: As for :func:`decode`, where its pixels are not needed to see why.
    """
    check_bytes(len(data))
    try:
        if jpeg := jpeg_in(data):
            jpeg, width, height, _ = jpeg_header(jpeg)
            form, turn = "JPEG", jpeg_orientation(jpeg)
        else:
            image, data = opened_other(data)
            width, height = image.size
            form, turn = str(image.format), turn_of(image, data)
        return form, ((height, width) if turn in (5, 6, 7, 8) else (width, height))
    except DecodeError:
        raise
    except Exception as error:
        raise _undecodable(error) from None


def _undecodable(error: Exception) -> DecodeError:
    return DecodeError(f"cannot be decoded ({one_line(error)})")
