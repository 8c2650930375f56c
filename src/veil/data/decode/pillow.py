"""Images of all formats but JPEG, through Pillow's own readers of just these formats; and pixels of 8 bits."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ExifTags import Base as Tag
from PIL.ImageFile import ImageFile

from veil.data.decode import heif
from veil.data.decode.formats import format_of
from veil.data.decode.limits import DecodeError, check_dear, check_pixels

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong with a picture is raised, and told by us

try:  # Pillow 11.3 and later, where it was built with it
    from PIL.AvifImagePlugin import SUPPORTED as _AVIF
    from PIL.AvifImagePlugin import AvifImageFile
except ImportError:
    _AVIF = False

T = TypeVar("T")
_CLASSES: Mapping[str, Any] = {
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "AVIF": AvifImageFile if _AVIF else None,
    **({"HEIF": heif.READER} if heif.READER else {}),
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "TGA": TgaImagePlugin.TgaImageFile,
}
"""Pillow's readers, by the names of its formats."""

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn_of(image: ImageFile, data: bytes) -> int:
    """The orientation 1..8 by which an image image's size has yet to be turned."""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and Tag.Orientation in image.tag_v2:
        return 1  # Pillow tells the upright size of these before they are loaded
    # Of a PNG Pillow looks for Exif behind the pixels too, for which it decodes all of them.
    words = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
    if image.format == "PNG" and not any(word in data for word in words):
        return 1
    return orientation_of(image)


def orientation_of(image: Image.Image) -> int:
    """The Exif orientation 1..8, 1 where there is none or Exif is damaged."""
    try:
        return int(image.getexif().get(Tag.Orientation, 1))
    except Exception:  # damaged Exif is no reason to lose an image that decodes
        return 1


def turned_upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def read_other(data: bytes, channels: int) -> Image.Image:
    """The upright image in any other format."""

    def read(data: bytes) -> Image.Image:
        image = load(open_image(data))
        # Pillow turns TIFFs upright when it loads them and drops the tag.
        return turned_upright(to_mode(image, channels), orientation_of(image))

    return _with_or_without_metadata(read, data)


def opened_other(data: bytes) -> tuple[ImageFile, bytes]:
    """An image that is no JPEG, not decoded yet, and the bytes that it was opened from."""
    return _with_or_without_metadata(lambda data: (open_image(data), data), data)


def _with_or_without_metadata(read: Callable[[bytes], T], data: bytes) -> T:
    """What is read of an image; where that fails, of the image without what is beside its pixels."""
    try:
        return read(data)
    except DecodeError:
        raise
    except Exception:
        bare = _bare(data)
        if bare == data:
            raise
    return read(bare)


def _bare(data: bytes) -> bytes:
    """An image without metadata that may be damaged, where its format lets it be cut out."""
    form = format_of(data)
    if form == "PNG":
        return data[:8] + b"".join(_png_chunks(data))
    if form == "WEBP":
        chunks = b"".join(_webp_chunks(data))
        return b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks
    if form in ("AVIF", "HEIF"):  # an item of an unknown type is passed over
        head, mark, rest = data.partition(b"mdat")
        return head.replace(b"Exif", b"skip") + mark + rest
    return data


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """The chunks that make up a PNG's pixels, and its Exif where that is whole (PNG 1.2, section 3.2)."""
    place = 8
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind, chunk = data[place + 4 : place + 8], data[place:end]
        whole = len(chunk) == end - place and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind[:1].isupper() or kind == b"tRNS" or (kind == b"eXIf" and whole):
            yield chunk
        place = end


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    """The chunks that make up a WebP's pixels (RFC 9649, section 2.7)."""
    place = 12
    while place < len(data):
        kind, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        chunk = data[place : place + 8 + length + length % 2]
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & 0b00010010]) + chunk[9:]  # an alpha channel, frames: all else is out
        if kind in (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            yield chunk
        place += 8 + length + length % 2


def open_image(data: bytes) -> ImageFile:
    """An image that is no JPEG, not decoded yet; by its first bytes: these are the only formats that are ever tried."""
    # The classes are called rather than Image.open: its own limit on pixels is another one, and partly only a warning.
    form = format_of(data)
    if form == "WEBP":
        # Pillow lets libwebp allocate the whole canvas, several times over, when it opens the file.
        check_pixels(*_webp_size(data))
        check_dear(data, *_webp_size(data))
    elif form == "GIF":
        width, height = struct.unpack("<HH", data[6:10])
        check_pixels(width, height)
    elif form == "JPEG2000" and (place := data.find(b"\xff\x4f\xff\x51")) >= 0:
        right, bottom, left, top = struct.unpack(">4I", data[place + 8 : place + 24])
        check_pixels(right - left, bottom - top)  # what is decoded; a box around it may tell another size
        check_dear(data, right - left, bottom - top)
    elif form == "AVIF" and not _AVIF:
        raise DecodeError("AVIF, which this version of Pillow does not read")
    elif form == "HEIF" and not heif.READER:
        raise DecodeError(f"HEIC, which {heif.NEEDED}")
    if not form:
        held = "a film or a like, not" if data[4:8] == b"ftyp" else "not"
        raise DecodeError(f"{held} a JPEG, {', '.join(list(_CLASSES)[:-1])} or {list(_CLASSES)[-1]} image")
    image: ImageFile = _CLASSES[form](io.BytesIO(data))
    check_pixels(*image.size)
    if form == "HEIF":  # which has not been decoded yet
        check_dear(data, *image.size)
    return image


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


def load(image: ImageFile) -> ImageFile:
    check_pixels(*image.size)
    image.load()
    return image


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """8-bit grey or RGB out of whatever a file may hold."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode in ("1", "L", "P", "RGB") and "transparency" not in image.info:
        return image.convert(mode)
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if image.mode in ("I", "F") and not deep:
        raise DecodeError("samples of 32 bits, which have no fixed range")
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    out = Image.new(mode, image.size)
    rows = max(1, _AT_ONCE // image.width)
    for top in range(0, image.height, rows):  # a picture in four values of each pixel, twice, is more than it need be
        part = image.crop((0, top, image.width, min(top + rows, image.height)))
        if deep:
            part = Image.fromarray(_eight_bits(part, tags))
        if part.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in part.info:
            part = part.convert("RGBA")
            part = Image.alpha_composite(Image.new("RGBA", part.size, "white"), part)
        out.paste(part.convert(mode), (0, top))
    return out


_AT_ONCE = 1 << 20  # pixels


def _eight_bits(image: Image.Image, tags: Mapping[int, Any]) -> NDArray[np.uint8]:
    """Grey of 9 to 16 bits, which Pillow gives as it stands in the file, as 8 bits; ``tags`` are those of a TIFF."""
    values = np.asarray(image)
    bits = tags.get(Tag.BitsPerSample, (16,))
    grey: NDArray[np.uint8] = (values >> (max(bits) - 8)).clip(0, 255).astype(np.uint8)
    if tags.get(Tag.PhotometricInterpretation, 1) == 0:  # white is zero
        grey = 255 - grey
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return grey
