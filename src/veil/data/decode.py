"""Encoded images to uint8 arrays of one size, safely: limits are checked in the header, before anything is decoded.

JPEG goes through simplejpeg (libjpeg-turbo), which decodes at the smallest of its scales n/8 at which the crop still
has the target's size, and for grey images the brightness alone. PNG, BMP, WebP, TIFF, GIF (first frame), AVIF, JPEG
2000, PPM (with PGM and PBM) and TGA go through Pillow. These are the formats in which photographs are kept and whose
headers tell their size before anything is decoded; no other decoder ever sees a file. Icons hold pictures of sizes that
their headers do not tell, PostScript is a program, and for HEIC, raw files and SVG there is no reader: such files are
known by their names, and listed.

The image is turned upright as its Exif orientation says, cropped, cut to the largest centred square if it is not square
then (it is never stretched), and resized with an antialiased Lanczos filter. Where its eyes are known, it is turned,
scaled and shifted instead, so that they lie where those of all faces do.

Grey is ITU-R 601 luma. Transparency is put on white. 16-bit samples keep their upper 8 bits; samples of 32 bits have no
fixed range and are refused. Colour profiles are not applied.

A damaged picture is refused, but what is beside its pixels never costs it: damaged Exif, text or profiles, stray bytes
before and after a JPEG or between its parts, a JPEG's missing end marker. One that lacks pixels is damaged.
"""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ExifTags import Base as Tag
from PIL.ImageFile import ImageFile

from veil.errors import InputError
from veil.foreign import one_line, opened

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
_SMALL, _MOST_IN_SMALL = 1 << 20, 28_000_000  # bytes of a file, and pixels in a smaller one of a format that is dear
_FEW_SCANS, _MOST_SCANNED = 16, 500_000_000  # scans that any JPEG may have, and pixels in all scans of one of more
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".bmp", ".webp",
    ".tif", ".tiff", ".gif", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga",
)  # fmt: skip
"""Endings of the names of images that are read; what a file holds is told by its first bytes."""

_PHONES = ".heic .heif .hif .avci .jxl .jxr .wdp .hdp .jpm .mj2 .bpg .flif .jps .jls"
_CAMERAS = """.raw .dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .raf .pef .ptx .3fr .fff .iiq .mef .mos .mrw
.kdc .dcr .erf .x3f .rwl .srw .gpr"""
_OLDER = """.svg .svgz .eps .ps .ai .wmf .emf .psd .psb .xcf .kra .exr .hdr .pfm .pam .ico .icns .cur .dib .pcx .dcx
.sgi .rgb .rgba .bw .ras .xbm .xpm .dds .qoi .fits .fit .fts .dcm .pcd .pict .pct .iff .lbm .icb .vda .vst .im .msp .pxr
.blp .vtf .ftc .ftu .spi .fli .flc .gbr .pix"""
OTHER_SUFFIXES = frozenset(f"{_PHONES} {_CAMERAS} {_OLDER}".split())
"""Endings of the names of images that are not read: of phones and newer formats, raw files, drawings, older formats."""

_PACKED = (".gz", ".bz2", ".xz", ".zst")
VERSIONS: Mapping[str, str] = {"simplejpeg": simplejpeg.__version__, "pillow": PIL.__version__}

T = TypeVar("T")

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong with a picture is raised, and told by us

try:  # Pillow 11.3 and later, where it was built with it
    from PIL.AvifImagePlugin import SUPPORTED as _AVIF
    from PIL.AvifImagePlugin import AvifImageFile
except ImportError:
    _AVIF = False

_CLASSES: Mapping[str, Any] = {
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "AVIF": AvifImageFile if _AVIF else None,
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


class DecodeError(Exception):
    """This image cannot be decoded, or must not be; the message says why."""


def kind_of(name: str) -> str | None:
    """Whether a file's name is that of an image: "" for one that is read, else why it is not; None for other files."""
    stem, dot, ending = name.lower().rpartition(".")
    if dot + ending in SUFFIXES:
        return ""
    if dot + ending in OTHER_SUFFIXES:
        return f"an image of a kind that is not read ({dot + ending}); convert it"
    if dot + ending in _PACKED and kind_of(stem) is not None:
        return f"a compressed image ({dot + ending}); unpack it"
    return None


def begins_as_image(path: Path) -> bool:
    """Whether a file's first bytes are those of an image that could be read; False where it cannot be opened."""
    try:
        with opened(path) as file:
            start = file.read(256)
    except (OSError, InputError):
        return False
    # The first bytes of bitmaps, PPM and TGA are those of many another file, too.
    return start[:3] == _JPEG or _format(start) not in ("", "BMP", "PPM", "TGA")


def check_crop(crop: Box) -> Box:
    """The crop itself; raises InputError unless 0 <= left < right <= 1 and 0 <= top < bottom <= 1."""
    if len(crop) != 4 or not (0 <= crop[0] < crop[2] <= 1 and 0 <= crop[1] < crop[3] <= 1):
        raise InputError(f"crop {tuple(crop)}: must be left, top, right, bottom as fractions with left < right in 0..1")
    return crop


def read(path: Path) -> bytes:
    """A file's bytes; raises DecodeError where it is too large (by its size, before it is read) or cannot be read."""
    try:
        with opened(path) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DecodeError(f"cannot be read ({one_line(error)})") from None
    except InputError:
        raise DecodeError("no file, but a folder, pipe or device") from None
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
        if jpeg := _jpeg_in(data):
            found = _jpeg(jpeg, size, channels, crop if eyes is None else eyes)
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
        if jpeg := _jpeg_in(data):
            jpeg, width, height, _ = _jpeg_header(jpeg)
            form, turn = "JPEG", _orientation(jpeg)
        else:
            image, data = _opened(data)
            width, height = image.size
            form, turn = str(image.format), _turn(image, data)
        return form, ((height, width) if turn in (5, 6, 7, 8) else (width, height))
    except DecodeError:
        raise
    except Exception as error:
        raise _undecodable(error) from None


def _undecodable(error: Exception) -> DecodeError:
    return DecodeError(f"cannot be decoded ({one_line(error)})")


def _turn(image: ImageFile, data: bytes) -> int:
    """The orientation 1..8 by which an image image's size has yet to be turned."""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and Tag.Orientation in image.tag_v2:
        return 1  # Pillow tells the upright size of these before they are loaded
    # Of a PNG Pillow looks for Exif behind the pixels too, for which it decodes all of them.
    words = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
    if image.format == "PNG" and not any(word in data for word in words):
        return 1
    return _said(image)


def _said(image: Image.Image) -> int:
    """The Exif orientation 1..8, 1 where there is none or Exif is damaged."""
    try:
        return int(image.getexif().get(Tag.Orientation, 1))
    except Exception:  # damaged Exif is no reason to lose an image that decodes
        return 1


def _check_bytes(n: int) -> None:
    if n > MAX_BYTES:
        raise DecodeError(f"more than {MAX_BYTES // 2**20} MiB")
    if n == 0:
        raise DecodeError("empty")


def _check_pixels(width: int, height: int) -> None:
    if width < 1 or height < 1 or width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise DecodeError(f"{width} x {height} pixels; at most {MAX_PIXELS // 10**6} million are decoded")


def _check_dear(data: bytes, width: int, height: int) -> None:
    """Refuses what few bytes would cost where decoders take 16 bytes for each pixel."""
    if len(data) < _SMALL and width * height > _MOST_IN_SMALL:
        most = f"at most {_MOST_IN_SMALL // 10**6} million are decoded from less than {_SMALL // 2**20} MiB"
        raise DecodeError(f"{width} x {height} pixels; {most} of this format")


def _check_scans(data: bytes, pixels: int) -> None:
    """Refuses a JPEG that is drawn over and over: each of its scans may take as long as a picture."""
    if data.count(_SCAN) <= _FEW_SCANS:
        return
    scans, place = 0, 2
    while (found := _MARKER.search(data, place)) is not None and found[0] != _END:
        place = found.end()
        scans += found[0] == _SCAN
        place += int.from_bytes(data[place : place + 2], "big")  # the marker's own segment, a preview in it, say
    if scans > _FEW_SCANS and scans * pixels > _MOST_SCANNED:
        raise DecodeError(f"{scans} scans of {pixels:,} pixels; at most {_MOST_SCANNED:,} pixels are drawn")


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


_JPEG, _SCAN, _END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not of what is drawn: stuffing, restarts, padding
_STRAY = 1024  # bytes that may stand before a JPEG: lines of a transfer, say


def _jpeg_in(data: bytes) -> bytes:
    """The JPEG in a file, without stray bytes before it; nothing where the file is none."""
    if data[:2] == _JPEG[:2]:
        return data
    if _format(data) or data[4:8] == b"ftyp":  # whose previews are no pictures of their own
        return b""
    start = data.find(_JPEG, 0, _STRAY)
    return data[start:] if start > 0 else b""


def _jpeg_header(data: bytes) -> tuple[bytes, int, int, str]:
    """The JPEG, its parts put together where stray bytes lie between them; width, height and colour space."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        data = _tidied(data)
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    _check_pixels(width, height)
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
    found = re.fullmatch(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9", words)
    if found is None:
        return words.startswith(("Invalid SOS parameters", "Unknown Adobe color", "Warning: unknown JFIF"))
    count, end = int(found[1]), data.rfind(_END)
    return count <= 64 or len(set(data[end - count : end])) == 1


def _jpeg(data: bytes, size: int, channels: int, part: Box | Pixels | Eyes | None) -> _Upright:
    """The upright JPEG, at the smallest scale at which the part's square still has ``size`` pixels a side."""
    data, width, height, space = _jpeg_header(data)
    turn = _orientation(data)
    wide, high = (height, width) if turn in (5, 6, 7, 8) else (width, height)
    side = _side(part, wide, high)
    if space in ("CMYK", "YCCK"):
        # libjpeg-turbo does not convert print colours; Pillow does, and knows Adobe's inverted ones. But Pillow misses
        # pixels where only the end marker is missing, and with it none that are: whether they are there is asked first.
        _jpeg_pixels(data, "CMYK", 1, 1)
        image = _to_mode(_load(JpegImagePlugin.JpegImageFile(io.BytesIO(data + _END))), channels)
        return _Upright(_upright(image, turn), wide, high)
    scale = min(1.0, size / side)
    array = _jpeg_pixels(data, "GRAY" if channels == 1 else "RGB", math.ceil(height * scale), math.ceil(width * scale))
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
        return _said(JpegImagePlugin.JpegImageFile(io.BytesIO(data)))
    except Exception:  # nor are the other parts that are not its pixels
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def _other(data: bytes, channels: int) -> Image.Image:
    """The upright image in any other format."""

    def read(data: bytes) -> Image.Image:
        image = _load(_open(data))
        # Pillow turns TIFFs upright when it loads them and drops the tag.
        return _upright(_to_mode(image, channels), _said(image))

    return _with_or_without_metadata(read, data)


def _opened(data: bytes) -> tuple[ImageFile, bytes]:
    """An image that is no JPEG, not decoded yet, and the bytes that it was opened from."""
    return _with_or_without_metadata(lambda data: (_open(data), data), data)


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
    form = _format(data)
    if form == "PNG":
        return data[:8] + b"".join(_png_chunks(data))
    if form == "WEBP":
        chunks = b"".join(_webp_chunks(data))
        return b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks
    if form == "AVIF":  # an item of an unknown type is passed over
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


_MAGIC: tuple[tuple[bytes, int, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", 0, "PNG"),
    (b"BM", 0, "BMP"),
    (b"II*\0", 0, "TIFF"),
    (b"MM\0*", 0, "TIFF"),
    (b"GIF87a", 0, "GIF"),
    (b"GIF89a", 0, "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", 0, "JPEG2000"),
    (b"\xff\x4f\xff\x51", 0, "JPEG2000"),
)
"""Bytes, their place in a file, and the format that they tell."""


def _format(data: bytes) -> str:
    """The format that a file's first bytes tell, as Pillow names it; "" for JPEG and others."""
    for magic, place, form in _MAGIC:
        if data.startswith(magic, place):
            return form
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = data[8 : max(16, int.from_bytes(data[:4], "big"))][:256]
        return "AVIF" if b"avif" in brands or b"avis" in brands else ""
    if re.match(rb"P[1-6][\s#]", data):
        return "PPM"
    # A TGA has no magic bytes; but its header leaves little room: a colour map or none, one of six types, four depths.
    tga = len(data) > 17 and data[1] < 2 and data[2] in (1, 2, 3, 9, 10, 11) and data[16] in (8, 16, 24, 32)
    return "TGA" if tga and data[17] < 0x40 and any(data[12:14]) and any(data[14:16]) else ""


def _open(data: bytes) -> ImageFile:
    """An image that is no JPEG, not decoded yet; by its first bytes: these are the only formats that are ever tried."""
    # The classes are called rather than Image.open: its own limit on pixels is another one, and partly only a warning.
    form = _format(data)
    if form == "WEBP":
        # Pillow lets libwebp allocate the whole canvas, several times over, when it opens the file.
        _check_pixels(*_webp_size(data))
        _check_dear(data, *_webp_size(data))
    elif form == "GIF":
        width, height = struct.unpack("<HH", data[6:10])
        _check_pixels(width, height)
    elif form == "JPEG2000" and (place := data.find(b"\xff\x4f\xff\x51")) >= 0:
        right, bottom, left, top = struct.unpack(">4I", data[place + 8 : place + 24])
        _check_pixels(right - left, bottom - top)  # what is decoded; a box around it may tell another size
        _check_dear(data, right - left, bottom - top)
    elif form == "AVIF" and not _AVIF:
        raise DecodeError("AVIF, which this version of Pillow does not read")
    if not form:
        held = "HEIC or a like, not" if data[4:8] == b"ftyp" else "not"
        raise DecodeError(f"{held} a JPEG, {', '.join(list(_CLASSES)[:-1])} or {list(_CLASSES)[-1]} image")
    image: ImageFile = _CLASSES[form](io.BytesIO(data))
    _check_pixels(*image.size)
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


def _load(image: ImageFile) -> ImageFile:
    _check_pixels(*image.size)
    image.load()
    return image


def _to_mode(image: Image.Image, channels: int) -> Image.Image:
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
    shown: NDArray[np.uint8] = (values >> (max(bits) - 8)).clip(0, 255).astype(np.uint8)
    if tags.get(Tag.PhotometricInterpretation, 1) == 0:  # white is zero
        shown = 255 - shown
    if "transparency" in image.info:
        shown[values == image.info["transparency"]] = 255
    return shown


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
