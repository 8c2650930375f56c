"""Whole photographs: every face that is found in them is released, and set back where it was."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from veil.data import compose, decode
from veil.data.decode.crops import Upright, align
from veil.data.decoding import mapped
from veil.data.faces import NO_FACE, Detector, Face, Sighting, detector_of
from veil.data.layouts.folder import as_items, walk
from veil.data.layouts.listing import Item
from veil.release import Release
from veil.workflows.apply.options import Options
from veil.workflows.apply.sources import Batch, Source, of_folder

Photograph = NDArray[np.uint8]
Looked = tuple[Item, Sighting, list[NDArray[np.uint8]], str]
"""A photograph, what is seen in it, the aligned squares of its faces, and why it cannot be read."""


def open_photographs(release: Release, source: Path, options: Options) -> Source:
    """The photographs of a folder, a row each, with the aligned squares of all faces in them."""
    images, aside = walk(source)
    detector = detector_of(options.faces, thorough=True)
    shape = release.contract.shape

    def look(item: Item) -> Looked:
        if item.problem or not isinstance(item.data, Path):
            return item, Sighting(), [], item.problem
        try:
            photograph = decode.whole(decode.read(item.data))
        except decode.DecodeError as error:
            return item, Sighting(), [], str(error)
        sighting = _sighting(detector, photograph, options.blur_rest)
        return item, sighting, _squares(_covered(photograph, sighting), sighting.faces, shape), ""

    def batches(first: int) -> Generator[Batch, None, None]:
        items = as_items(source, images[first:])
        if options.row_numbers:
            items = (replace(item, source=str(number)) for number, item in enumerate(items, first))
        with closing(mapped(items, look, at_once=1)) as looked:
            row = first
            while batch := list(islice(looked, options.rows_at_a_time("photographs"))):
                good = [(item, sighting) for item, sighting, _, problem in batch if not problem]
                squares = [square for _, _, several, _ in batch for square in several]
                yield Batch(
                    names=pa.array([item.source for item, _ in good], pa.string()),
                    x=np.stack(squares) if squares else np.empty((0, *shape), np.uint8),
                    skipped=[(item.source, problem) for item, _, _, problem in batch if problem],
                    paths=[images[i][0] for i, (*_, problem) in enumerate(batch, row) if not problem],
                    sightings=[sighting for _, sighting in good],
                )
                row += len(batch)

    return of_folder(source, images, aside, batches)


def redrawn(path: Path, sighting: Sighting, faces: NDArray[np.uint8]) -> tuple[Photograph, str]:
    """A photograph with released faces ``(n, S, S[, 3])`` in place of its own, and its format; a grey one stays grey.

    Raises:
        DecodeError: If it cannot be read any more.
    """
    data = decode.read(path)
    form, _ = decode.header(data)
    photograph = decode.whole(data)
    grey = bool((photograph == photograph[..., :1]).all())
    out = compose.set_back(_covered(photograph, sighting), [face.eyes for face in sighting.faces], faces)
    if grey:  # a release of colours has given it some
        return np.asarray(Image.fromarray(out).convert("L")), form
    return out, form


def exposure(sighting: Sighting) -> str:
    """What may be unprotected in a photograph; "" where nothing is."""
    if sighting.uncertain:
        scores = ", ".join(f"{face.score:.2f}" for face in sighting.uncertain)
        several = len(sighting.uncertain) > 1
        places = f"{len(sighting.uncertain)} places" if several else "a place"
        return f"{places} may be faces (score {scores})" if several else f"{places} may be a face (score {scores})"
    return "" if sighting.faces or sighting.covered else NO_FACE


def _sighting(detector: Detector, photograph: Photograph, blur_rest: bool) -> Sighting:
    height, width = photograph.shape[:2]
    sighting = Sighting.of(detector(photograph), width, height)
    return sighting.covering() if blur_rest else sighting


def _covered(photograph: Photograph, sighting: Sighting) -> Photograph:
    """Before faces are cut out, so that none of it comes back with the square of a face beside it."""
    return compose.cover(photograph, [(f.left, f.top, f.right, f.bottom) for f in sighting.covered])


def _squares(photograph: Photograph, faces: tuple[Face, ...], shape: tuple[int, ...]) -> list[NDArray[np.uint8]]:
    """The aligned squares of faces as a release takes them."""
    if not faces:
        return []
    image = Image.fromarray(photograph).convert("RGB" if len(shape) == 3 else "L")
    return [np.asarray(align(Upright(image, *image.size), shape[0], face.eyes)) for face in faces]
