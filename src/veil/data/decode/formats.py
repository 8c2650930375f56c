"""Which formats are read, and how one is told: by the name of a file, for listings, and by its first bytes."""

from __future__ import annotations

import re
from pathlib import Path

from veil.data.decode import heif
from veil.errors import InputError
from veil.foreign import opened

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".bmp", ".webp",
    ".tif", ".tiff", ".gif", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga",
)  # fmt: skip
"""Endings of the names of images that are read; what a file holds is told by its first bytes."""

_HEIF = (".heic", ".heif", ".hif", ".heics", ".heifs")
_PHONES = ".avci .jxl .jxr .wdp .hdp .jpm .mj2 .bpg .flif .jps .jls"
_CAMERAS = """.raw .dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .raf .pef .ptx .3fr .fff .iiq .mef .mos .mrw
.kdc .dcr .erf .x3f .rwl .srw .gpr"""

_OLDER = """.svg .svgz .eps .ps .ai .wmf .emf .psd .psb .xcf .kra .exr .hdr .pfm .pam .ico .icns .cur .dib .pcx .dcx
.sgi .rgb .rgba .bw .ras .xbm .xpm .dds .qoi .fits .fit .fts .dcm .pcd .pict .pct .iff .lbm .icb .vda .vst .im .msp .pxr
.blp .vtf .ftc .ftu .spi .fli .flc .gbr .pix"""

OTHER_SUFFIXES = frozenset(f"{_PHONES} {_CAMERAS} {_OLDER}".split())
"""Endings of the names of images that are not read: of phones and newer formats, raw files, drawings, older formats."""

_PACKED = (".gz", ".bz2", ".xz", ".zst")


def kind_of(name: str) -> str | None:
    """Whether a file's name is that of an image: "" for one that is read, else why it is not; None for other files."""
    stem, dot, ending = name.lower().rpartition(".")
    if dot + ending in SUFFIXES:
        return ""
    if dot + ending in _HEIF:
        return "" if heif.READER else f"an image of a kind that {heif.NEEDED} ({dot + ending}); or convert it"
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
    others = ("", "BMP", "PPM", "TGA") if heif.READER else ("", "BMP", "PPM", "TGA", "HEIF")
    return start[:3] == JPEG_START or format_of(start) not in others


JPEG_START = b"\xff\xd8\xff"
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


def format_of(data: bytes) -> str:
    """The format that a file's first bytes tell, as Pillow names it; "" for JPEG and others."""
    for magic, place, form in _MAGIC:
        if data.startswith(magic, place):
            return form
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = data[8 : max(16, int.from_bytes(data[:4], "big"))][:256]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIF" if any(brand in brands for brand in heif.BRANDS) else ""
    if re.match(rb"P[1-6][\s#]", data):
        return "PPM"
    # A TGA has no magic bytes; but its header leaves little room: a colour map or none, one of six types, four depths.
    tga = len(data) > 17 and data[1] < 2 and data[2] in (1, 2, 3, 9, 10, 11) and data[16] in (8, 16, 24, 32)
    return "TGA" if tga and data[17] < 0x40 and any(data[12:14]) and any(data[14:16]) else ""
