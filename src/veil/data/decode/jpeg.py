"""JPEG through libjpeg-turbo, at a half, a quarter or an eighth where the part that is cut out is large enough then."""

from __future__ import annotations

import io
import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    Image,
    JpegImagePlugin,
)

from veil.data.decode.crops import Box, Eyes, Pixels, Upright, side_of
from veil.data.decode.formats import JPEG_START, format_of
from veil.data.decode.limits import DecodeError, check_pixels
from veil.data.decode.pillow import load, orientation_of, to_mode, turned_upright

DIVISORS = (8, 4, 2)
"""Of a JPEG's sides when it is decoded smaller: those of libjpeg's that whoever has Pillow alone can ask for, too."""

_FEW_SCANS, _MOST_SCANNED = 16, 500_000_000  # scans that any JPEG may have, and pixels in all scans of one of more


def _check_scans(data: bytes, pixels: int) -> None:
    """Refuses a JPEG that is drawn over and over: each of its scans may take as long as a picture."""
    if data.count(_SCAN) <= _FEW_SCANS:
        return
    scans, place = 0, 2
    while (match := _MARKER.search(data, place)) is not None and match[0] != _END:
        place = match.end()
        scans += match[0] == _SCAN
        place += int.from_bytes(data[place : place + 2], "big")  # the marker's own segment, a preview in it, say
    if scans > _FEW_SCANS and scans * pixels > _MOST_SCANNED:
        raise DecodeError(f"{scans} scans of {pixels:,} pixels; at most {_MOST_SCANNED:,} pixels are drawn")


_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not of what is drawn: stuffing, restarts, padding
_STRAY = 1024  # bytes that may stand before a JPEG: lines of a transfer, say


def jpeg_in(data: bytes) -> bytes:
    """The JPEG in a file, without stray bytes before it; nothing where the file is none."""
    if data[:2] == JPEG_START[:2]:
        return data
    if format_of(data) or data[4:8] == b"ftyp":  # whose previews are no pictures of their own
        return b""
    start = data.find(JPEG_START, 0, _STRAY)
    return data[start:] if start > 0 else b""


def jpeg_header(data: bytes) -> tuple[bytes, int, int, str]:
    """The JPEG, its parts put together where stray bytes lie between them; width, height and colour space."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        data = _tidied(data)
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    check_pixels(width, height)
    _check_scans(data, width * height)
    return data, width, height, space


def _tidied(data: bytes) -> bytes:
    """A JPEG without what lies between the segments of its header, up to the first scan."""
    parts, place = [data[:2]], 2
    while place + 4 <= len(data):
        place = data.find(b"\xff", place)
        if place < 0 or place + 4 > len(data):
            break
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xDA:  # a scan: what follows is read as it is
            return b"".join([*parts, data[place:]])
        if not (0xC0 <= marker <= 0xFE and marker not in (0xD8, 0xD9) and not 0xD0 <= marker <= 0xD7 and length > 1):
            place += 1
            continue
        parts.append(data[place : place + 2 + length])
        place += 2 + length
    return data


def _jpeg_pixels(data: bytes, form: str, height: int, width: int) -> NDArray[np.uint8]:
    """The decoded JPEG, at least as large as asked for; raises ValueError where pixels are missing or damaged."""
    try:
        return _simple(data, form, height, width)
    except ValueError as error:
        words = str(error)
    if words.startswith("Premature end of JPEG file"):  # the end marker is missing; perhaps more is
        data += _END
        try:
            return _simple(data, form, height, width)
        except ValueError as error:
            words = str(error)
    if not _harmless(words, data):
        raise ValueError(words)
    return _simple(data, form, height, width, strict=False)


def _simple(data: bytes, form: str, height: int, width: int, strict: bool = True) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, form, min_height=height, min_width=width, strict=strict)
    return image


def _harmless(words: str, data: bytes) -> bool:
    """Whether what a decoder says of a JPEG leaves its pixels as they are: few stray bytes, or padding, at its end."""
    match = re.fullmatch(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9", words)
    if match is None:
        return words.startswith(("Invalid SOS parameters", "Unknown Adobe color", "Warning: unknown JFIF"))
    count, end = int(match[1]), data.rfind(_END)
    return count <= 64 or len(set(data[end - count : end])) == 1


def read_jpeg(data: bytes, size: int, channels: int, part: Box | Pixels | Eyes | None) -> Upright:
    """The upright JPEG, as small as :data:`DIVISORS` allow while the part's square has ``size`` pixels a side."""
    data, width, height, space = jpeg_header(data)
    turn = jpeg_orientation(data)
    wide, high = (height, width) if turn in (5, 6, 7, 8) else (width, height)
    side = side_of(part, wide, high)
    if space in ("CMYK", "YCCK"):
        # libjpeg-turbo does not convert print colours; Pillow does, and knows Adobe's inverted ones. But Pillow misses
        # pixels where only the end marker is missing, and with it none that are: whether they are there is asked first.
        _jpeg_pixels(data, "CMYK", 1, 1)
        image = to_mode(load(JpegImagePlugin.JpegImageFile(io.BytesIO(data + _END))), channels)
        return Upright(turned_upright(image, turn), wide, high)
    divisor = next((n for n in DIVISORS if size * n <= side), 1)
    least = (-(-height // divisor), -(-width // divisor)) if divisor > 1 else (0, 0)  # libjpeg rounds sides up
    array = _jpeg_pixels(data, "GRAY" if channels == 1 else "RGB", *least)
    image = turned_upright(Image.fromarray(array[..., 0] if channels == 1 else array), turn)
    scale = 1 / divisor
    # The part of a pixel that is too much is on the right and at the bottom, before the image is turned.
    left = image.width - wide * scale if turn in (2, 3, 6, 7) else 0.0
    top = image.height - high * scale if turn in (3, 4, 7, 8) else 0.0
    return Upright(image, wide, high, scale, left, top)


def jpeg_orientation(data: bytes) -> int:
    """The Exif orientation 1..8 of a JPEG, 1 where it has none or its Exif is damaged."""
    # Exif is an APP1 segment near the start; most JPEGs of data sets have none, and this search costs a microsecond.
    if data.find(b"Exif\0\0", 0, 2**16) < 0:
        return 1
    try:
        return orientation_of(JpegImagePlugin.JpegImageFile(io.BytesIO(data)))
    except Exception:  # nor are the other parts that are not its pixels
        return 1
