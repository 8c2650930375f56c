"""Decoding: known pictures come out right, hostile bytes are refused before they cost anything."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from veil.data import decode
from veil.data.decode import DecodeError, Eyes, heif
from veil.errors import InputError

INVERSE = {  # what a camera stores, so that the orientation turns it upright again
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoded(image: Image.Image | np.ndarray, format: str, **options) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, format, **options)
    return file.getvalue()


def quarters(height: int = 64, width: int = 64) -> np.ndarray:
    """Four flat quarters: 40, 100 above 160, 220."""
    rows = np.repeat([[40, 100], [160, 220]], height // 2, axis=0)
    return np.repeat(rows, width // 2, axis=1).astype(np.uint8)


def rotated(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def middles(image: np.ndarray) -> list[int]:
    n = len(image)
    return [int(image[y, x].mean()) for y in (n // 4, 3 * n // 4) for x in (n // 4, 3 * n // 4)]


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("GIF", {}),
        ("PPM", {}),
        ("TGA", {}),
        ("TGA", {"compression": "tga_rle"}),
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
        *([("AVIF", {"quality": 95})] if decode.pillow._AVIF else []),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_formats(format, options, channels, mode):
    image = decode.decode(encoded(Image.fromarray(quarters(200, 200)).convert(mode), format, **options), 64, channels)
    assert image.shape == ((64, 64) if channels == 1 else (64, 64, 3))
    assert image.dtype == np.uint8
    # Flat areas: JPEG at quality 95 quantises their mean in steps of about 2/8 of a grey level, colours round once.
    assert np.allclose(middles(image), [40, 100, 160, 220], atol=1)


def test_colours():
    red = np.zeros((80, 80, 3), np.uint8)
    red[:] = (200, 30, 60)
    for format, options in (("PNG", {}), ("JPEG", {"quality": 95}), ("JPEG", {"quality": 95, "keep_rgb": True})):
        data = encoded(red, format, **options)
        assert np.allclose(decode.decode(data, 16, 3)[8, 8], (200, 30, 60), atol=3)
        assert np.allclose(decode.decode(data, 16, 1), 0.299 * 200 + 0.587 * 30 + 0.114 * 60, atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", *(["AVIF"] if decode.pillow._AVIF else [])])
def test_images_are_turned_upright(format, orientation):
    upright = Image.fromarray(quarters(96, 160))
    stored = upright if INVERSE[orientation] is None else upright.transpose(INVERSE[orientation])
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(format, {})
    data = encoded(stored, format, exif=rotated(orientation), **options)
    assert np.allclose(middles(decode.decode(data, 32, 1)), [40, 100, 160, 220], atol=1)
    # The crop is one of the upright image: its lower left quarter.
    low = decode.decode(data, 16, 1, (0.05, 0.55, 0.45, 0.95))
    assert np.allclose(low, 160, atol=1)


def test_eyes_that_lie_where_they_should_change_nothing():
    """Of an image whose square is the output, pixel for pixel, each pixel stays."""
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    eyes = Eyes(20 - 0.5, 0.42 * 60 - 0.5, 40 - 0.5, 0.42 * 60 - 0.5)
    assert eyes.side == pytest.approx(60)
    assert (decode.decode(encoded(image, "PNG"), 60, 3, eyes=eyes) == image).all()
    # Shrunk it is what the plain way gives: the same filter.
    small = decode.decode(encoded(image, "PNG"), 30, 3, eyes=eyes).astype(int)
    assert np.abs(small - decode.decode(encoded(image, "PNG"), 30, 3)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_eyes_are_those_of_the_upright_image(format, orientation):
    """Quarters around the middle; the middle of the eyes is put there, and the face stands on its side."""
    upright = Image.fromarray(quarters(96, 160))
    stored = upright if INVERSE[orientation] is None else upright.transpose(INVERSE[orientation])
    data = encoded(stored, format, exif=rotated(orientation), **({"quality": 95} if format == "JPEG" else {}))
    # Each output pixel is one of the file's: down the output is to the left in the file, across it down.
    got = decode.decode(data, 30, 1, eyes=Eyes(79.5, 42.5, 79.5, 52.5)).astype(int)
    line = round(0.42 * 30)
    assert np.allclose([got[line // 2, 7], got[line // 2, 22], got[22, 7], got[22, 22]], [100, 220, 40, 160], atol=2)


@pytest.mark.parametrize("turn", [0.0, 0.3, 1.2])
@pytest.mark.parametrize("size", [16, 50, 150])
def test_aligning_does_not_alias(size, turn):
    """Stripes one pixel wide are flat grey at a smaller scale, however they lie."""
    stripes = np.tile(np.array([0, 255], np.uint8), (600, 300))
    way = 60 * np.array([np.cos(turn), np.sin(turn)])
    (ax, ay), (bx, by) = (np.array([300, 285]) + s * way for s in (-1, 1))
    got = decode.decode(encoded(stripes, "PNG"), size, 1, eyes=Eyes(ax, ay, bx, by))
    assert abs(got.mean() - 127.5) < 1
    assert got.std() < 2  # of 127.5 in the file


def test_beyond_the_border_its_pixels_are_repeated():
    image = np.repeat(np.arange(100, 140, dtype=np.uint8)[:, None], 40, axis=1)
    got = decode.decode(encoded(image, "PNG"), 64, 1, eyes=Eyes(0, 10, 39, 10)).astype(int)
    scale = 3 * 39 / 64  # pixels of the file in one of the output
    want = np.clip(100 + 10 + (np.arange(64) + 0.5 - 0.42 * 64) * scale, 100, 139)
    assert np.abs(got - want[:, None]).max() < 2
    assert (got[:, 0] == got[:, 63]).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("eyes", "words"),
    [
        (Eyes(-0.6, 5, 30, 5), r"its left eye -0.6, 5 lies outside of its 64 x 32 pixels"),
        (Eyes(3, 5, 30, 32), r"its right eye 30, 32 lies outside of its 64 x 32 pixels"),
        (Eyes(3, 5, float("nan"), 5), r"its right eye nan, 5 lies outside"),
        (Eyes(3, 5, 3, 5), r"its eyes are 0 pixels apart"),
    ],
)
def test_eyes_that_cannot_be(format, eyes, words):
    with pytest.raises(DecodeError, match=words):
        decode.decode(encoded(quarters(32, 64), format), 16, 1, eyes=eyes)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("side", [600, 601, 607])
def test_a_jpeg_that_is_decoded_smaller_is_cut_where_it_would_be_whole(side, orientation):
    """libjpeg rounds the sides of what it scales up: by almost a pixel where they are no multiple of eight."""
    y, x = np.mgrid[:side, :side] + 0.5
    at = np.array([0.7, 0.8]) * side
    upright = Image.fromarray((255 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 2 / 25**2)).astype(np.uint8))
    stored = upright if INVERSE[orientation] is None else upright.transpose(INVERSE[orientation])
    data = encoded(stored, "JPEG", quality=95, exif=rotated(orientation))
    crop, eyes = (0.5, 0.5, 1.0, 1.0), Eyes(0.6 * side, 0.7 * side, 0.8 * side, 0.7 * side)
    for part in ({"crop": crop}, {"eyes": eyes}):
        wanted = decode.decode(encoded(upright, "PNG"), 40, 1, **part)
        found = decode.decode(data, 40, 1, **part)
        (y0, x0), (y1, x1) = middle(wanted), middle(found)
        assert abs(y0 - y1) < 0.1
        assert abs(x0 - x1) < 0.1


def middle(image: np.ndarray) -> tuple[float, float]:
    """Of the light."""
    light = np.maximum(image.astype(float) - 40, 0)
    return tuple(float((grid * light).sum() / light.sum()) for grid in np.mgrid[: len(image), : len(image)])


def test_damaged_exif_does_not_lose_the_image():
    data = encoded(quarters(), "JPEG", quality=95)
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 6 + 8) + b"Exif\0\0" + b"II*\0\xff\xff\xff\x7f"
    assert middles(decode.decode(data[:2] + exif + data[2:], 32, 1)) == middles(decode.decode(data, 32, 1))


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)
    )


def png_with(kind: bytes, data: bytes, crc: int | None = None, *, last: bool = False) -> bytes:
    """A PNG with one more chunk, before its pixels or behind them."""
    whole = encoded(quarters(), "PNG")
    place = len(whole) - 12 if last else 33
    return whole[:place] + chunk(kind, data, crc) + whole[place:]


def webp_with(**metadata: bytes) -> bytes:
    return encoded(quarters(), "WEBP", lossless=True, **metadata)


def tiff_with_orientation(kind: int, count: int, value: int) -> bytes:
    data = bytearray(encoded(quarters(), "TIFF", exif=rotated(1)))
    place = data.index(struct.pack("<HHI", 0x0112, 3, 1))
    data[place + 2 : place + 12] = struct.pack("<HII", kind, count, value)
    return bytes(data)


def avif_with_damaged_exif() -> bytes:
    exif = rotated(1)
    exif[0x010E] = "words"
    data = encoded(quarters(), "AVIF", exif=exif, quality=95)
    place = max(data.rfind(b"II*\0"), data.rfind(b"MM\0*"))
    return data[:place] + b"junk" + data[place + 4 :]


DAMAGED = {
    "png, Exif": lambda: encoded(quarters(), "PNG", exif=b"Exif\0\0garbage"),
    "png, text of another checksum": lambda: png_with(b"tEXt", b"a\0b", 7),
    "png, text behind the pixels": lambda: png_with(b"tEXt", b"a\0b", 7, last=True),
    "png, text too long once unpacked": lambda: png_with(b"zTXt", b"a\0\0" + zlib.compress(b"x" * (2 << 20))),
    "png, cut-off text": lambda: png_with(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 99)[:-7]),
    "png, profile": lambda: png_with(b"iCCP", b"a\0\0garbage"),
    "png, size of pixels": lambda: png_with(b"pHYs", b"a"),
    "png, frames": lambda: png_with(b"acTL", b"a"),
    "png, no end": lambda: encoded(quarters(), "PNG")[:-12],
    "webp, Exif": lambda: webp_with(exif=b"Exif\0\0garbage!"),
    "webp, XMP cut off": lambda: webp_with(xmp=b"<x/>" * 9)[:-9],
    "webp, profile": lambda: webp_with(icc_profile=b"garbage"),
    "tiff, type of orientation": lambda: tiff_with_orientation(2, 1, 6),
    "tiff, number of orientations": lambda: tiff_with_orientation(3, 99999, 6),
    **({"avif, Exif": avif_with_damaged_exif} if decode.pillow._AVIF else {}),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("which", DAMAGED)
def test_what_is_beside_the_pixels_never_loses_a_picture(which):
    data = DAMAGED[which]()
    assert middles(decode.decode(data, 32, 1)) == pytest.approx([40, 100, 160, 220], abs=2)
    assert decode.header(data) == (which.split(",")[0].upper(), (64, 64))


def split_jpeg(**options) -> tuple[bytes, bytes]:
    """A JPEG's header, and its scans."""
    whole = encoded(quarters(), "JPEG", quality=95, **options)
    place = whole.index(b"\xff\xda")
    return whole[:place], whole[place:]


STRAY = {
    "before": lambda head, scan: b"\r\n\r\n" + head + scan,
    "lines of a transfer before": lambda head, scan: (
        b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + head + scan
    ),
    "after": lambda head, scan: head + scan + b"\0junk" * 9,
    "behind the first marker": lambda head, scan: head[:2] + bytes(5) + head[2:] + scan,
    "between the segments": lambda head, scan: head + b"abc\xff" + scan,
    "before the end": lambda head, scan: head + scan[:-2] + b"abcdefg" + scan[-2:],
    "padding before the end": lambda head, scan: head + scan[:-2] + bytes(2000) + scan[-2:],
    "a scan of wrong parameters": lambda head, scan: head + scan[:8] + b"\0" + scan[9:],
    "no end": lambda head, scan: head + scan[:-2],
    "half an end": lambda head, scan: head + scan[:-1],
    "no end, and bytes before": lambda head, scan: b"\n" + head + scan[:-2],
}


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}], ids=str)
@pytest.mark.parametrize("which", STRAY)
def test_stray_bytes_and_a_missing_end_do_not_lose_a_jpeg(which, options):
    whole = b"".join(split_jpeg(**options))
    data = STRAY[which](*split_jpeg(**options))
    assert np.array_equal(decode.decode(data, 64, 1), decode.decode(whole, 64, 1))
    assert decode.header(data) == ("JPEG", (64, 64))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}], ids=str)
def test_a_jpeg_that_lacks_pixels_is_damaged_with_an_end_or_without(mode, options):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).convert(mode)
    data = encoded(noise, "JPEG", **options)
    assert decode.decode(data[:-2], 32, 1).shape == (32, 32)
    for part in (0.5, 0.9, 1 - 20 / len(data)):
        for end in (b"", b"\xff\xd9"):
            with pytest.raises(DecodeError):
                decode.decode(data[: int(len(data) * part)] + end, 32, 1)


def test_a_preview_inside_another_kind_of_image_is_not_the_image():
    heic = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(100) + encoded(quarters(), "JPEG")
    with pytest.raises(DecodeError, match="cannot be decoded" if heif.READER else "HEIC, which is read where"):
        decode.decode(heic, 32, 1)
    with pytest.raises(DecodeError, match=r"a film or a like, not a JPEG, PNG, .* or TGA image"):
        decode.decode(heic.replace(b"heic", b"isom"), 32, 1)


@pytest.fixture
def heic():
    """Writes HEIC, by the plug-in as a library: Pillow is to know nothing of it."""
    pillow_heif = pytest.importorskip("pillow_heif")

    def write(image, **options) -> bytes:
        file = io.BytesIO()
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        pillow_heif.from_pillow(picture).save(file, **{"quality": -1, "chroma": 444} | options)
        return file.getvalue()

    return write


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_upright_once(heic, orientation):
    upright = Image.fromarray(quarters(96, 160)).convert("RGB")
    stored = upright if INVERSE[orientation] is None else upright.transpose(INVERSE[orientation])
    exif = rotated(orientation).tobytes()
    data = heic(stored, exif=exif)
    assert exif[6:] in data  # which tells it, as the container does: so it is in the pictures of phones
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    assert np.allclose(middles(decode.decode(data, 32, 1)), [40, 100, 160, 220], atol=2)
    assert decode.header(data) == ("HEIF", upright.size)
    assert decode.whole(data).shape == (*upright.size[::-1], 3)


def test_heic_is_read_by_its_first_bytes_and_by_veil_alone(heic, tmp_path):
    data = heic(Image.fromarray(quarters()).convert("RGB"))
    assert decode.decode(data, 32, 3).shape == (32, 32, 3)
    assert [decode.kind_of(name) for name in ("a.heic", "a.HEIF", "a.hif")] == [""] * 3
    (tmp_path / "a.dat").write_bytes(data)
    assert decode.begins_as_image(tmp_path / "a.dat")
    assert "HEIF" not in Image.OPEN
    assert decode.VERSIONS["pillow_heif"]


def test_heic_that_is_damaged_or_dear_is_refused(heic):
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    data = heic(noise)
    for part in (0.02, 0.3, 0.6, 0.9):
        with pytest.raises(DecodeError):
            decode.decode(data[: int(len(data) * part)], 32, 1)
    large = heic(np.zeros((5400, 5400, 3), np.uint8), quality=10)
    with pytest.raises(DecodeError, match="5400 x 5400 pixels; at most 28 million are decoded from less than 1 MiB"):
        decode.decode(large, 32, 1)
    said = struct.pack(">II", 5400, 5400)
    assert said in large
    with pytest.raises(DecodeError):  # which holds more pixels than it says
        decode.decode(large.replace(said, struct.pack(">II", 60, 60)), 32, 1)


def test_heic_without_its_reader_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(heif, "READER", None)
    data = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(100)
    with pytest.raises(DecodeError, match=r"^HEIC, which is read where pillow_heif is installed$"):
        decode.decode(data, 32, 1)
    reason = "an image of a kind that is read where pillow_heif is installed (.heic); or convert it"
    assert decode.kind_of("x/a.HEIC") == reason
    (tmp_path / "a.dat").write_bytes(data)
    assert not decode.begins_as_image(tmp_path / "a.dat")


def test_grey_of_sixteen_bits_in_any_format():
    ramp = np.tile(np.arange(0, 65536, 1024, dtype=np.uint16), (64, 1))
    for format in ("PNG", "PPM", "JPEG2000"):
        np.testing.assert_array_equal(decode.decode(encoded(ramp, format), 64, 1), ramp >> 8)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.JFIF", ""),
        ("a.pgm", ""),
        ("x/a.Avif", ""),
        ("a.jxl", "an image of a kind that is not read (.jxl); convert it"),
        ("a.CR2", "an image of a kind that is not read (.cr2); convert it"),
        ("a.ppm.bz2", "a compressed image (.bz2); unpack it"),
        ("a.svg.gz", "a compressed image (.gz); unpack it"),
        ("a.tar.gz", None),
        ("notes.txt", None),
        ("jpg", None),
        ("", None),
    ],
)
def test_images_are_known_by_their_names(name, found):
    assert decode.kind_of(name) == found


def test_every_ending_that_is_read_or_not_is_one_or_the_other():
    assert not set(decode.SUFFIXES) & decode.OTHER_SUFFIXES
    known = {ending for ending, form in Image.registered_extensions().items() if form in Image.OPEN}
    # Films and data, of which Pillow tells only that they are there.
    films = {".mpg", ".mpeg", ".grib", ".h5", ".hdf", ".bufr", ".iim"}
    assert known - set(decode.SUFFIXES) - decode.OTHER_SUFFIXES <= films


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_crop_and_reduced_scale(format):
    image = np.zeros((250, 250), np.uint8)
    image[65:185, 65:185] = np.linspace(50, 200, 120, dtype=np.uint8)
    data = encoded(image, format, **({"quality": 98} if format == "JPEG" else {}))
    crop = (65 / 250, 65 / 250, 185 / 250, 185 / 250)
    for size in (16, 64, 120, 200):
        row = decode.decode(data, size, 1, crop).astype(float)[size // 2]
        want = 50 + 150 * ((np.arange(size) + 0.5) / size * 120 - 0.5) / 119
        # Away from the crop's edge, which blurs into the black around it; the ramp rises 1.26 levels per pixel, and
        # smaller scales shift it by less than one pixel.
        edge = size // 8
        assert np.abs(row - want)[edge:-edge].max() < 3


def test_jpeg_is_decoded_no_smaller_than_the_target(monkeypatch):
    seen = []
    real = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *a, **k: seen.append(real(*a, **k)) or seen[-1])
    data = encoded(np.zeros((218, 178), np.uint8), "JPEG")
    for size in (16, 40, 64, 100):
        crop = (29 / 178, 61 / 218, 149 / 178, 181 / 218)
        assert decode.decode(data, size, 1, crop).shape == (size, size)
        height, width = seen[-1].shape[:2]
        assert min((crop[3] - crop[1]) * height, (crop[2] - crop[0]) * width) >= size
    assert seen[0].shape[0] == 55, "1/8 would leave 15 pixels of the crop, 1/4 leaves 30"
    assert [array.shape[0] for array in seen] == [55, 109, 218, 218], "3/8, which Pillow does not know, is never taken"


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("subsampling", [0, 1, 2, "progressive", "grey"])
def test_pillow_alone_gives_the_same_pixels_of_a_jpeg(mode, subsampling):
    """At each scale, of sides that are no multiples of eight."""
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(0, 256, (26, 34, 3)), np.ones((8, 8, 1)))[:203, :267]
    image = Image.fromarray((0.7 * blocks + 0.3 * rng.integers(0, 256, blocks.shape)).astype(np.uint8))
    options = {"subsampling": subsampling} if isinstance(subsampling, int) else {"progressive": True}
    data = encoded(image.convert("L") if subsampling == "grey" else image, "JPEG", quality=85, **options)
    for divisor in (1, 2, 4, 8):
        side = 203 // divisor
        pillow = Image.open(io.BytesIO(data))
        pillow.draft(mode, (267 // divisor, 203 // divisor))
        left, square = (267 - 203) / 2 / divisor, 203 / divisor
        assert pillow.size == (-(-267 // divisor), -(-203 // divisor))
        rows = pillow.convert(mode).resize(
            (side, pillow.height), Image.Resampling.LANCZOS, box=(left, 0, left + square, pillow.height)
        )
        want = rows.resize((side, side), Image.Resampling.LANCZOS, box=(0, 0, side, square))
        np.testing.assert_array_equal(decode.decode(data, side, len(mode)), want)


def test_rows_are_resized_before_columns_whatever_the_shape():
    """Pillow 13 begins with the columns of tall images, and rounds in between; with those of no square one."""
    tall = np.random.default_rng(0).integers(0, 256, (130, 90), dtype=np.uint8)
    got = decode.decode(encoded(tall, "PNG"), 64, 1)
    square = Image.fromarray(tall[20:110]).resize((64, 64), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(got[4:-4], np.asarray(square)[4:-4])  # at its edges there is more in the one


@pytest.mark.parametrize(("height", "width"), [(100, 300), (300, 100)])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_without_a_crop_the_centred_square_is_taken(format, height, width):
    image = np.full((height, width), 10, np.uint8)
    image[(height - 100) // 2 : (height + 100) // 2, (width - 100) // 2 : (width + 100) // 2] = 200
    got = decode.decode(encoded(image, format, **({"quality": 98} if format == "JPEG" else {})), 20, 1)
    assert np.allclose(got[2:-2, 2:-2], 200, atol=3)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_downscaling_does_not_alias(format):
    board = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    got = decode.decode(encoded(board, format, **({"quality": 98} if format == "JPEG" else {})), 60, 1)
    # Nearest neighbours would give 0 and 255; the mean is 127.5.
    assert np.abs(got.astype(float) - 127.5).max() < 12


def test_palette_transparency_and_depths():
    grey = quarters()
    palette = Image.fromarray(np.stack([grey] * 3, axis=-1)).quantize(4)
    assert np.allclose(middles(decode.decode(encoded(palette, "PNG"), 32, 1)), [40, 100, 160, 220], atol=1)
    bits = decode.decode(encoded(Image.fromarray(quarters() > 130), "PNG"), 32, 1)
    assert middles(bits) == [0, 0, 255, 255]
    deep = quarters().astype(np.uint16) * 256 + 77
    for format in ("PNG", "TIFF"):
        assert middles(decode.decode(encoded(deep, format), 32, 1)) == [40, 100, 160, 220]
    clear = np.zeros((64, 64, 4), np.uint8)
    clear[:, 32:] = (10, 20, 30, 255)
    half = decode.decode(encoded(clear, "PNG"), 32, 3)
    assert np.all(half[16, 4] == 255)
    assert np.all(half[16, 28] == (10, 20, 30))
    keyed = Image.fromarray(quarters())
    assert middles(decode.decode(encoded(keyed, "PNG", transparency=40), 32, 1)) == [255, 100, 160, 220]
    ink = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    for format in ("JPEG", "TIFF"):
        assert np.allclose(decode.decode(encoded(ink, format), 16, 3)[8, 8], (255, 0, 0), atol=6)
    with pytest.raises(DecodeError, match="32 bits"):
        decode.decode(encoded(quarters().astype(np.float32), "TIFF"), 16, 1)


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 90}, {"lossless": True, "exif": rotated()}])
def test_size_in_the_headers_of_webp(options):
    assert decode.pillow._webp_size(encoded(quarters(52, 300), "WEBP", **options)) == (300, 52)


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((32, 32), v, np.uint8)) for v in (50, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.all(decode.decode(data, 16, 1) == 50)


FORMATS = [
    "JPEG",
    "PNG",
    "BMP",
    "WEBP",
    "TIFF",
    "GIF",
    "PPM",
    "TGA",
    "JPEG2000",
    *(["AVIF"] if decode.pillow._AVIF else []),
]


@pytest.mark.parametrize("format", FORMATS)
def test_truncated_images_are_refused(format):
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    data = encoded(noise, format)
    for part in (0.3, 0.6, 0.9):
        with pytest.raises(DecodeError):
            decode.decode(data[: int(len(data) * part)], 32, 1)


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 99))]
    chunks.append((b"IEND", b""))
    parts = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg(width: int, height: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    data = bytearray(encoded(quarters(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp(width: int, height: int) -> bytes:
    """A WebP with an extended header that claims another size."""
    data = bytearray(encoded(quarters(), "WEBP", lossless=True, exif=rotated()))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def jpeg2000(width: int, height: int) -> bytes:
    """A JPEG 2000 whose box says one size, and whose codestream another."""
    data = bytearray(encoded(quarters(), "JPEG2000"))
    place = data.index(b"\xff\x4f\xff\x51")
    data[place + 8 : place + 16] = struct.pack(">II", width, height)
    return bytes(data)


@pytest.mark.parametrize(
    "bomb",
    [
        png(60_000, 60_000),
        png(2**31 - 1, 1),
        jpeg(65_000, 65_000),
        b"GIF89a" + struct.pack("<HHBBB", 65_000, 65_000, 0, 0, 0),
        webp(16_000, 16_000),
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        b"P6\n60000 60000\n255\n",
        b"P3 60000 60000 255 1 2 3",
        struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 60_000, 60_000, 24, 0),
        jpeg2000(60_000, 60_000),
    ],
    ids=["png", "wide png", "jpeg", "gif", "webp", "bmp", "ppm", "plain ppm", "tga", "jpeg 2000"],
)
def test_bombs_are_refused_by_their_header(bomb):
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match=r"\d+ x \d+ pixels; at most 64 million"):
            decode.decode(bomb, 64, 1)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_bytes_beyond_the_limit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decode.limits, "MAX_BYTES", 2**20)
    with pytest.raises(DecodeError, match="more than 1 MiB"):
        decode.decode(b"\xff" * (2**20 + 1), 64, 1)
    path = tmp_path / "big.jpg"
    path.write_bytes(b"\xff" * (2**20 + 1))
    with pytest.raises(DecodeError, match="more than 1 MiB"):
        decode.read(path)
    path.write_bytes(b"abc")
    assert decode.read(path) == b"abc"
    with pytest.raises(DecodeError, match="cannot be read"):
        decode.read(tmp_path / "none.jpg")


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.7", b"\0" * 100, b"<svg/>"])
def test_what_is_no_image_is_refused(data):
    with pytest.raises(DecodeError):
        decode.decode(data, 64, 1)


def image_or_reason(data: bytes) -> None:
    """Anything but an image of the size asked for, or a reason in one line, fails."""
    try:
        image = decode.decode(data, 16, 3)
    except DecodeError as error:
        reason = str(error)
    else:
        reason = "none is needed"
        assert image.shape == (16, 16, 3)
    assert reason
    assert "\n" not in reason


STARTS = [
    b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\0\0\0\0WEBP", b"II*\0", b"MM\0*", b"GIF89a",
    b"P5\n", b"P2 ", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x1cftypavif" + bytes(4),
    b"\0\0\2" + bytes(9) + b"\4\0\4\0\x18\0",
]  # fmt: skip
SMALL = [encoded(quarters(16, 16), f) for f in FORMATS]


@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=200))
@settings(deadline=None, max_examples=150)
def test_any_bytes_give_an_image_or_a_refusal(start, rest):
    image_or_reason(start + rest)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(which=st.integers(0, len(FORMATS) - 1), place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
@settings(deadline=None, max_examples=150)
def test_one_wrong_byte_gives_an_image_or_a_refusal(which, place, value):
    data = bytearray(SMALL[which])
    data[int(place * len(data))] = value
    image_or_reason(bytes(data))


@pytest.mark.parametrize("crop", [(0, 0, 0, 1), (0.5, 0, 0.4, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.1), (0, 0, 1)])
def test_crops_that_are_none(crop):
    with pytest.raises(InputError, match="crop"):
        decode.check_crop(crop)


@pytest.mark.parametrize(("bits", "white"), [(12, 1), (16, 1), (16, 0)])
def test_grey_of_more_than_eight_bits_is_shown_as_it_is_meant(bits, white):
    """A TIFF says how many bits a sample has, and whether 0 is black or white."""
    ramp = np.tile(np.arange(0, 256, 8), (32, 1))
    values = ramp << (bits - 8)
    rows = values.astype("<u2").tobytes()
    if bits == 12:  # two samples in three bytes
        a, b = values.reshape(-1, 2).T
        rows = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 1).astype(np.uint8).tobytes()
    tags = {256: 32, 257: 32, 258: bits, 259: 1, 262: white, 273: 8 + 2 + 12 * 8 + 4, 277: 1, 279: len(rows)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + rows
    found = decode.decode(data, 32, 1)
    np.testing.assert_array_equal(found, ramp if white else 255 - ramp)


def test_a_transparent_shade_of_sixteen_bits_is_white():
    image = np.full((32, 32), 1000, np.uint16)
    image[:, 16:] = 50_000
    found = decode.decode(encoded(image, "PNG", transparency=1000), 32, 1)
    assert (found[0, 2], found[0, -3]) == (255, 50_000 >> 8)


def test_a_picture_that_is_drawn_over_and_over_is_refused_and_what_lies_behind_it_is_not_counted():
    file = io.BytesIO()
    Image.new("L", (4000, 4000)).save(file, "JPEG", progressive=True)
    jpeg = file.getvalue()
    film = b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 1000  # as phones put behind their photographs
    assert decode.decode(jpeg + film, 8, 1).shape == (8, 8)
    place = jpeg.index(b"\xff\xda")
    scan = jpeg[place : jpeg.index(b"\xff", place + 2)]
    with pytest.raises(DecodeError, match=r"1\d\d scans of 16,000,000 pixels; at most 500,000,000 pixels are drawn"):
        decode.decode(jpeg[:place] + 100 * scan + jpeg[place:], 8, 1)


@pytest.mark.parametrize("form", ["WEBP", "PNG", "GIF"])
def test_flat_pictures_of_many_pixels(form):
    file = io.BytesIO()
    Image.new("RGB", (6000, 4000), (10, 200, 30)).save(file, form)
    assert len(file.getvalue()) < 1 << 20
    assert decode.decode(file.getvalue(), 2, 3).shape == (2, 2, 3)


def test_what_few_bytes_of_a_dear_format_would_cost_is_refused():
    file = io.BytesIO()
    Image.new("RGB", (7000, 5000)).save(file, "WEBP")
    with pytest.raises(DecodeError, match="7000 x 5000 pixels; at most 28 million are decoded from less than 1 MiB"):
        decode.decode(file.getvalue(), 2, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16"])
def test_pictures_made_eight_bits_in_strips_are_what_they_are_whole(mode, monkeypatch):
    rng = np.random.default_rng(0)
    shape = {"RGBA": (37, 23, 4), "LA": (37, 23, 2), "I;16": (37, 23)}[mode]
    values = rng.integers(0, 65536 if mode == "I;16" else 256, shape).astype(np.uint16 if mode == "I;16" else np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    whole = decode.decode(file.getvalue(), 23, 3)
    monkeypatch.setattr(decode.pillow, "_AT_ONCE", 23 * 5)
    assert np.array_equal(decode.decode(file.getvalue(), 23, 3), whole)
