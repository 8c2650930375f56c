"""Releases that are images, as image files: a tree like that of their source."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from veil.data import decode
from veil.data.layouts.listing import clean
from veil.errors import InputError
from veil.release import Release
from veil.workflows.apply import photographs
from veil.workflows.apply.batches import Progress, batch_hash, write_parts
from veil.workflows.apply.parts import Part, Parts, place
from veil.workflows.apply.plan import Plan
from veil.workflows.apply.sources import Batch

_FORMATS: Mapping[str, Mapping[str, Any]] = {
    "AVIF": {"quality": 95},
    "JPEG": {"quality": 95},
    "PNG": {"optimize": False},
    "WEBP": {"quality": 95},
}
"""How Pillow writes formats that leave a choice."""


def write_images(plan: Plan, parts: Parts, progress: Progress | None) -> None:
    """Writes the image files that are missing, and parts that say which are whole, by their sizes in bytes.

    With ``plan.same`` nothing is written, as the files must be there, and hold what they would be made to hold.
    """
    parts.done = next((number for number in range(parts.done) if not _whole(plan, parts, number)), parts.done)
    try:
        write_parts(partial(_redrawn, plan, parts), plan.rows, parts, progress)
    except InputError:
        if plan.same:
            parts.done = 0  # of which nothing is to be kept
        raise


def _whole(plan: Plan, parts: Parts, number: int) -> bool:
    """Whether the image files of a part have the sizes that it tells."""
    part, each = parts.read(number), parts.division.each
    sizes = dict(zip(part.names.to_pylist(), part.values[:, 0], strict=True))
    some = (plan.targets[path] for path, _ in plan.rows.images[number * each : (number + 1) * each])
    return all(_size(plan.out / path) == sizes[name] for name, path in some if name in sizes)


def _size(path: Path) -> np.float32:
    """A file's size as parts hold it, which tells a file that was cut off; -1 where there is none."""
    try:
        return np.float32(path.stat().st_size)
    except OSError:
        return np.float32(-1)


def _redrawn(plan: Plan, parts: Parts, batch: Batch) -> Part:
    """Writes the image files of a batch; the part's values are their sizes."""
    names: list[str] = []
    sizes: list[int] = []
    skipped = list(batch.skipped)
    exposed: list[tuple[str, str]] = []
    draw = _photographs(plan, batch) if plan.whole else _squares(plan, batch)
    for row, (name, path) in enumerate(zip(batch.names.to_pylist(), batch.paths, strict=True)):
        try:
            data = draw(row)
        except (decode.DecodeError, ValueError) as error:
            skipped.append((name, str(error)))
            continue
        target = plan.out / plan.targets[path][1]
        if plan.same and not _holds(target, data):
            raise InputError(f"{target}: is not what this run gives, and stands there or is missing; force, or "
                             "choose another folder")  # fmt: skip
        if not plan.same:
            parts.keep = True
            place(target, data)
        names.append(name)
        sizes.append(len(data))
        if batch.sightings and (why := photographs.exposure(batch.sightings[row])):
            exposed.append((name, why))
    return Part(
        names=pa.array(names, pa.string()), values=np.array(sizes, np.float32)[:, None], skipped=skipped,
        exposed=exposed, source=batch_hash(batch, plan.source),
    )  # fmt: skip


def _squares(plan: Plan, batch: Batch) -> Callable[[int], bytes]:
    """From a row of a batch to its file: the part of the image that is released, and nothing around it."""
    pixels = _released(plan, batch.x, batch.paths)

    def draw(row: int) -> bytes:
        form, upright = decode.header(decode.read(plan.source / batch.paths[row]))
        eyes = None if plan.eyes is None else plan.eyes.of(clean(batch.paths[row]))[0]
        return encode(pixels[row], form, _extent(plan.release, eyes, *upright))

    return draw


def _photographs(plan: Plan, batch: Batch) -> Callable[[int], bytes]:
    """From a row of a batch to its file: the whole photograph, with its faces released."""
    counts = [len(sighting.faces) for sighting in batch.sightings]
    each = [path for path, count in zip(batch.paths, counts, strict=True) for _ in range(count)]
    faces = np.split(_released(plan, batch.x, each), np.cumsum(counts)[:-1])

    def draw(row: int) -> bytes:
        pixels, form = photographs.redrawn(plan.source / batch.paths[row], batch.sightings[row], faces[row])
        return encode(pixels, form, (pixels.shape[1], pixels.shape[0]))

    return draw


def _released(plan: Plan, x: NDArray[Any], paths: Sequence[str]) -> NDArray[np.uint8]:
    """Released images ``(n, S, S[, 3])`` of inputs from the images of these paths."""
    hide = None if plan.choices is None else plan.choices.of(paths)
    return plan.release.transform(x, hide=hide) if len(x) else plan.release.contract.empty(0)


def _extent(release: Release, eyes: decode.Eyes | None, width: int, height: int) -> tuple[int, int]:
    """Width and height, in pixels of its file, of the part of an image that is released."""
    if eyes is not None:
        side = min(max(1, round(eyes.side)), width, height)
        return side, side
    left, top, right, bottom = release.contract.crop or (0, 0, 1, 1)
    return max(1, round((right - left) * width)), max(1, round((bottom - top) * height))


def encode(pixels: NDArray[np.uint8], form: str, size: tuple[int, int]) -> bytes:
    """One image as a file of a format, without metadata of any kind.

    Args:
        pixels: uint8 ``(H, W)``, written as grey, or ``(H, W, 3)``, as RGB (GIF: 256 colours of them).
        form: The format as Pillow names it. JPEG and WebP have quality 95.
        size: Width and height to which it is resized (Lanczos).

    Raises:
        ValueError: If Pillow cannot write that format, or not in that size; the message says so after the file's name.
    """
    if form not in Image.SAVE:
        raise ValueError(f"Pillow cannot write {form}")
    file = io.BytesIO()
    try:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        image = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
        image.save(file, form, **_FORMATS.get(form, {}))
    except (OSError, ValueError, KeyError, OverflowError) as error:
        words = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"cannot be written as {form} of {size[0]} x {size[1]} pixels ({words})") from None
    return file.getvalue()


def _holds(path: Path, data: bytes) -> bool:
    """Whether a file is there that holds some bytes and no others."""
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
