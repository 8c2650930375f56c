"""What a bundle is checked by: drawn pictures in the forms that photographs have, or random vectors; of nobody."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base as Tag

from veil.data import stylised
from veil.data.decode import Eyes, decode
from veil.data.landmarks import PLACES
from veil.release.contract import Contract

VECTORS = 16
_LARGEST = 1000  # pixels a side


def write(folder: Path, contract: Contract) -> NDArray[Any]:
    """Writes pictures, where pictures go in, and ``inputs.npy``, what the network sees of them; the latter.

    Where faces are aligned, ``eyes.csv`` says where eyes are. Files of pictures give squares: releases of images that
    are not square take arrays alone.
    """
    shape = contract.shape
    rng = np.random.default_rng(0)
    if contract.kind == "vectors":
        x: NDArray[Any] = rng.standard_normal((VECTORS, *shape)).astype(np.float32)
    elif shape[0] != shape[1]:
        x = rng.integers(0, 256, (VECTORS, *shape), dtype=np.uint8)
    else:
        x = np.stack(list(_pictures(folder, contract)))
    np.save(folder / "inputs.npy", x)
    return x


def _pictures(folder: Path, contract: Contract) -> Iterator[NDArray[np.uint8]]:
    size, channels = contract.shape[0], 3 if len(contract.shape) == 3 else 1
    rows = []
    for name, data, (width, height) in sorted(_encoded(size)):
        (folder / name).write_bytes(data)
        eyes = Eyes(0.41 * width, 0.44 * height, 0.61 * width, 0.47 * height) if contract.aligned else None
        if eyes is not None:
            rows.append([name, eyes.left_x, eyes.left_y, eyes.right_x, eyes.right_y])
        yield decode(data, size, channels, None if contract.aligned else contract.crop, eyes)
    if rows:
        with (folder / "eyes.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["path", *PLACES], *rows])


def _encoded(size: int) -> Iterator[tuple[str, bytes, tuple[int, int]]]:
    """Names, files, and upright sizes: JPEG at all scales and with all ways to hold colour, PNG with all its pixels."""
    turned = Image.Exif()
    turned[Tag.Orientation] = 6
    faces = stylised.population(12, 1, 0)

    def face(number: int, times: float) -> Image.Image:
        """A picture that is not square, its sides no multiples of eight, ``times`` as large as the network's."""
        side = min(max(int(times * size), 24), _LARGEST) | 1
        drawn = Image.fromarray(stylised.render(faces, [number], size=side, channels=3)[0])
        picture = Image.new("RGB", (side + side // 4, side), (90, 120, 150))
        picture.paste(drawn, (side // 8, 0))
        return picture

    def file(name: str, image: Image.Image, **options: Any) -> tuple[str, bytes, tuple[int, int]]:
        data = io.BytesIO()
        image.save(data, "PNG" if name.endswith("png") else "JPEG", **options)
        upright = image.size[::-1] if "exif" in options else image.size
        return name, data.getvalue(), upright

    yield file("colour.jpg", face(0, 3.0), quality=90)
    yield file("eighth.jpg", face(1, 9.0), quality=85)
    yield file("full-colour.jpg", face(2, 1.5), quality=95, subsampling=0)
    yield file("grey.jpg", face(3, 2.5).convert("L"), quality=90)
    yield file("progressive.jpg", face(4, 5.0), quality=80, progressive=True)
    yield file("small.jpg", face(5, 0.7), quality=90)
    yield file("turned.jpg", face(6, 4.5), quality=90, exif=turned)
    yield file("colour.png", face(7, 1.5))
    yield file("deep.png", Image.fromarray(np.asarray(face(8, 1.2).convert("L")).astype(np.uint16) * 257))
    yield file("palette.png", face(9, 2.0).quantize(64))
    seen_through = face(10, 1.7)
    seen_through.putalpha(seen_through.convert("L"))
    yield file("transparent.png", seen_through)
    yield file("turned.png", face(11, 1.0), exif=turned)
