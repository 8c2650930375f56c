"""Releases pictures or vectors, as the README.md beside this file says. Needs numpy, Pillow and onnxruntime, no more.

python release.py PICTURE_OR_FOLDER ... OUT.npy [--eyes EYES.csv]
python release.py VECTORS.npy OUT.npy
python release.py --check

The exit status is 1 where something was left out, or the check failed; 2 where nothing was done, and a line says why.
"""

# ruff: noqa: T201 (what it says is said on the terminal)

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png")
EYES = ("left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What turns a picture upright, by its Exif orientation."""


class Network:
    """The ONNX file of a bundle, what its metadata say, and its secret."""

    def __init__(self, folder: Path) -> None:
        with blamed(folder / "release.onnx"):
            self.session = onnxruntime.InferenceSession(folder / "release.onnx", providers=["CPUExecutionProvider"])
            about = self.session.get_modelmeta().custom_metadata_map
            self.about: dict[str, Any] = {name: json.loads(text) for name, text in about.items()}
        self.secret: dict[str, Any] = {}
        if self.about["secret"]:
            with blamed(folder / "secret.npz"):
                with np.load(folder / "secret.npz") as arrays:
                    self.secret = dict(arrays)
                inside = {name: [*array.shape] for name, array in self.secret.items()}
                wanted = {given.name: given.shape for given in self.session.get_inputs() if given.name != "x"}
                if "uniform" in wanted:
                    wanted = {**wanted, "draw_key": [32]}
                    del wanted["uniform"]
                if inside != wanted:
                    raise ValueError(f"must be this release's secret, got {inside}")

    def __call__(self, x: Any) -> Any:
        """Releases of uint8 pictures ``(n, H, W[, 3])`` or float32 vectors ``(n, d)``."""
        shape, kind = tuple(self.about["shape"]), np.uint8 if self.about["kind"] == "images" else np.float32
        if x.shape[1:] != shape or x.dtype != kind:
            raise ValueError(f"must be {np.dtype(kind)} (n, {', '.join(map(str, shape))}), got {x.dtype} {x.shape}")
        if not np.isfinite(x).all() or (self.about.get("direction") and not x.any(1).all()):
            raise ValueError("vectors must be finite, and not of zeros alone where only directions count")
        given = x
        if kind == np.uint8:
            given = x.astype(np.float32) / np.float32(255)
            given = given[:, None] if x.ndim == 3 else given.transpose(0, 3, 1, 2)
        feed = {"x": np.ascontiguousarray(given)}
        feed |= {name: array for name, array in self.secret.items() if name != "draw_key"}
        if "draw" in self.about["secret"]:
            feed["uniform"] = np.array([[self.uniform(row)] for row in x], np.float32)
        (out,) = self.session.run(None, feed)
        if self.about["output"]["kind"] == "vectors":
            return out
        out = np.round(np.clip(out, 0, 1) * 255).astype(np.uint8)
        return (np.moveaxis(out, 1, -1) if out.ndim == 4 else out).reshape(len(x), *self.about["output"]["shape"])

    def uniform(self, row: Any) -> float:
        """The draw of an input: 23 bits of SHAKE-128 of the secret and of its bytes, where 0.0 and -0.0 are one."""
        row = row + np.float32(0) if row.dtype == np.float32 else row
        digest = hashlib.shake_128(self.secret["draw_key"].tobytes() + row.tobytes()).digest(4)
        return float(((int.from_bytes(digest, "little") >> 9) + 0.5) * 2.0**-23)

    def pixels(self, path: Path, eyes: tuple[float, ...] | None = None) -> Any:
        """What the network sees of a picture."""
        size, mode = self.about["size"], "L" if self.about["channels"] == 1 else "RGB"
        crop = self.about["crop"] or (0.0, 0.0, 1.0, 1.0)
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            try:
                turn = int(image.getexif().get(274, 1))
            except Exception:  # damaged Exif is no reason to lose a picture
                turn = 1
            width, height = image.size[::-1] if turn in (5, 6, 7, 8) else image.size
            side = min((crop[2] - crop[0]) * width, (crop[3] - crop[1]) * height)
            if eyes:
                places = self.about["eyes"]
                side = math.hypot(eyes[2] - eyes[0], eyes[3] - eyes[1]) / (places[1][0] - places[0][0])
                inside = all(-0.5 <= v <= m - 0.5 for v, m in zip(eyes, (width, height) * 2, strict=True))
                if not inside or side < 1:
                    raise ValueError("an eye lies outside, or both at one place")
            n = 1
            if image.format in ("JPEG", "MPO") and image.mode in (
                "L",
                "RGB",
            ):  # decoded smaller, and grey as brightness
                n = next((n for n in (8, 4, 2) if size * n <= side), 1)
                image.draft(mode, (image.width // n, image.height // n))
            image.load()
            flat = turned(flattened(image, mode), turn)
        left = flat.width - width / n if turn in (2, 3, 6, 7) else 0.0
        top = flat.height - height / n if turn in (3, 4, 7, 8) else 0.0
        if eyes:
            return np.asarray(aligned(flat, size, np.array(eyes).reshape(2, 2), self.about["eyes"], n, (left, top)))
        x0, x1 = (f * width / n + left for f in crop[::2])
        y0, y1 = (f * height / n + top for f in crop[1::2])
        side = min(x1 - x0, y1 - y0)
        x0, y0 = x0 + (x1 - x0 - side) / 2, y0 + (y1 - y0 - side) / 2
        if side < 1:
            raise ValueError("its crop is less than a pixel")
        factor = max(1, int(side / size / 3))
        if factor > 1:
            flat, x0, y0, side = flat.reduce(factor), x0 / factor, y0 / factor, side / factor
        return np.asarray(resized(flat, size, (x0, y0, min(x0 + side, flat.width), min(y0 + side, flat.height))))


def flattened(image: Image.Image, mode: str) -> Image.Image:
    """Grey or RGB of 8 bits: the upper 8 of 16, and white where a picture is transparent."""
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        grey = (deep >> 8).clip(0, 255).astype(np.uint8)
        if "transparency" in image.info:
            grey[deep == image.info["transparency"]] = 255
        image = Image.fromarray(grey)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def turned(image: Image.Image, turn: int) -> Image.Image:
    return image.transpose(TURNS[turn]) if turn in TURNS else image


def resized(image: Image.Image, size: int, square: tuple[float, ...]) -> Image.Image:
    """Rows first, then columns: asked for both at once, versions of Pillow begin with one or the other."""
    left, top, right, bottom = square
    rows = image.resize((size, image.height), Image.Resampling.LANCZOS, box=(left, 0, right, image.height))
    return rows.resize((size, size), Image.Resampling.LANCZOS, box=(0, top, size, bottom))


def aligned(image: Image.Image, size: int, eyes: Any, places: Any, n: int, corner: Any) -> Image.Image:
    """The square in which the eyes lie at their places; ``eyes`` in pixels of the file, of which n make one here."""
    left, right = eyes + 0.5  # Pillow counts from a pixel's corner
    across = (right - left) / (places[1][0] - places[0][0])
    down = np.array([-across[1], across[0]])
    start = (left - places[0][0] * across - places[0][1] * down) / n + corner
    across, down = across / n, down / n
    factor = max(1, int(math.hypot(*across) / size / 3))
    if factor > 1:
        image = image.reduce(factor)
        across, down, start = across / factor, down / factor, start / factor
    drawn = size * max(1, math.ceil(round(max(math.hypot(*across), math.hypot(*down)) / size, 6)))
    corners = np.stack([start, start + across, start + down, start + across + down])
    low, high = np.floor(corners.min(0)).astype(int) - 2, np.ceil(corners.max(0)).astype(int) + 2
    columns, rows = (np.clip(np.arange(a, b), 0, m - 1) for a, b, m in zip(low, high, image.size, strict=True))
    around = Image.fromarray(np.asarray(image)[np.ix_(rows, columns)])  # beyond the border its pixels are repeated
    (a, d), (b, e), (c, f) = (v.tolist() for v in (across / drawn, down / drawn, start - low))
    square = around.transform((drawn, drawn), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC)
    return square if drawn == size else resized(square, size, (0, 0, drawn, drawn))


@contextlib.contextmanager
def blamed(path: Path) -> Iterator[None]:
    """What goes wrong inside is a ValueError that names the file: decoders and ONNX Runtime raise anything."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path}: {reason(error)}") from None


def reason(error: Exception) -> str:
    """An error in one line."""
    words = error.strerror if isinstance(error, OSError) else None
    return " ".join((words or str(error) or type(error).__name__).split())


def read_eyes(path: Path) -> dict[str, tuple[float, ...]]:
    """Where the eyes are, by the names of pictures: columns ``path`` and those of EYES."""
    with blamed(path), path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not {"path", *EYES} <= {*(rows.fieldnames or ())}:
            raise ValueError(f"must have the columns path, {', '.join(EYES)}, got {', '.join(rows.fieldnames or ())}")
        return {row["path"]: tuple(float(row[name] or "nan") for name in EYES) for row in rows}


def inputs(network: Network, sources: list[Path], eyes: Path | None) -> Iterator[tuple[list[str], Any]]:
    """Names of rows and what the network sees of them, some at a time; of what is left out None, and a line says so."""
    about = network.about
    if any(path.suffix == ".npy" for path in sources):
        if len(sources) > 1 or eyes:
            raise ValueError(f"{sources[0]}: an array is released alone, got {len(sources)} sources or --eyes")
        with blamed(sources[0]):
            x = np.lib.format.open_memmap(sources[0], mode="r")
            if x.ndim == 0:
                raise ValueError(f"must hold rows, got one value of {x.dtype}")
        for i in range(0, len(x), 256):
            part = x[i : i + 256]
            names = [str(i + row) for row in range(len(part))]
            yield names, part.astype(np.float32) if part.dtype.kind == "f" else part
        return
    if about["kind"] == "vectors" or about["shape"][0] != about["shape"][1]:
        raise ValueError(
            f"{sources[0]}: this release takes an array, {about['kind']} of shape {about['shape']}, in an npy file"
        )
    if bool(about["eyes"]) != (eyes is not None):
        raise ValueError(f"{sources[0]}: this release " + ("asks for --eyes" if about["eyes"] else "takes no --eyes"))
    known = {} if eyes is None else read_eyes(eyes)
    for name, path in pictures(sources):
        try:
            if path.suffix.lower() not in SUFFIXES:
                raise ValueError(f"is not read: its name must end in {', '.join(SUFFIXES)}")
            if eyes and name not in known:
                raise ValueError(f"has no row in {eyes.name}")
            yield [name], network.pixels(path, known.get(name))[None]
        except Exception as error:  # decoders raise anything
            print(f"{name}: left out ({reason(error)})", file=sys.stderr)
            yield [name], None


def pictures(sources: list[Path]) -> list[tuple[str, Path]]:
    """Names and paths of the files that are named, and of all in folders but those whose names begin with a dot."""
    found = []
    for source in sources:
        if not source.exists():
            raise ValueError(f"{source}: does not exist")
        inside = sorted(path for path in source.rglob("*") if path.is_file() and path.name[0] != ".")
        found += [(path.relative_to(source).as_posix(), path) for path in inside]
        found += [] if source.is_dir() else [(source.as_posix(), source)]
    names = [name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name, _ in found]
    if len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice}: two pictures have this name; release their folders one by one")
    return [(name, path) for name, (_, path) in zip(names, found, strict=True)]


def check(folder: Path) -> tuple[int, float, float]:
    """How far pictures are from Veil's, in levels of 255; how far releases are, and how far they may be."""
    network, there = Network(folder), folder / "check"
    with blamed(there / "inputs.npy"):
        x = np.load(there / "inputs.npy")
    with blamed(there / "releases.npy"):
        wanted = np.load(there / "releases.npy")
    with blamed(there):
        eyes = read_eyes(there / "eyes.csv") if (there / "eyes.csv").exists() else {}
        drawn = sorted(path for path in there.iterdir() if path.suffix in SUFFIXES)
        seen = [network.pixels(path, eyes.get(path.name)).astype(int) for path in drawn]
        levels = [int(np.abs(row - given).max()) for row, given in zip(seen, x, strict=False)]
        most, largest = float(np.abs(network(x).astype(float) - wanted).max()), float(np.abs(wanted).max())
    return max(levels, default=0), most, 1.0 if wanted.dtype == np.uint8 else 1e-5 * max(1.0, largest)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="SOURCE ... OUT.npy")
    parser.add_argument("--eyes", type=Path, help=f"CSV file of the columns path, {', '.join(EYES)}")
    parser.add_argument("--check", action="store_true", help="compare with what Veil released")
    asked, folder = parser.parse_args(), Path(__file__).resolve().parent
    if asked.check:
        levels, most, allowed = check(folder)
        if Network(folder).about["kind"] == "images":
            print(f"pictures: at most {levels} of 255 levels apart (1 is allowed)")
        print(f"releases: at most {most:.1e} apart ({allowed:.0e} is allowed)")
        return int(levels > 1 or not most <= allowed)
    *sources, out = asked.paths or [Path()]
    if not sources or out.suffix != ".npy":
        raise ValueError(f"{out}: name pictures, a folder of them, or an array; and then OUT.npy")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: its folder does not exist")
    for path in (out, out.with_suffix(".names.csv")):
        if path.exists():
            raise ValueError(f"{path}: is there already")
    network, names, releases, left_out = Network(folder), [], [], 0
    for part, x in inputs(network, sources, asked.eyes):
        left_out += x is None
        if x is not None:
            names += part
            with blamed(sources[0] if sources[0].suffix == ".npy" else Path(part[0])):
                releases.append(network(x))
    if not releases:
        raise ValueError(f"{out}: nothing was released, {left_out} left out")
    np.save(out, np.concatenate(releases))
    with out.with_suffix(".names.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["source"], *([name] for name in names)])
    print(f"{out}: {len(names)} releases, {left_out} left out")
    return int(left_out > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        name = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        print(f"{name}{reason(error)}", file=sys.stderr)
        sys.exit(2)
