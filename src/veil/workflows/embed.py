"""Templates of faces: photographs, or a pack of aligned faces, in; a table of vectors out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from veil import files
from veil.data.decode import Eyes
from veil.data.decode.crops import Upright, align
from veil.data.decoding import arrays
from veil.data.faces import Detector, EyeFinder
from veil.data.landmarks import read_landmarks
from veil.data.layouts.folder import as_items, walk
from veil.data.pack import Pack
from veil.errors import InputError, checked_jobs
from veil.nn.embedders import BUNDLED, Embedder, embedder, eyes_in
from veil.workflows.apply.parts import list_skipped, lists

BATCH = 32
GROUP = 64
"""Batches in a group of rows of the table."""

Progress = Callable[[int, int | None, int], None]


def embed(
    source: str | Path,
    out: str | Path,
    *,
    matcher: str | Path | Embedder = BUNDLED,
    landmarks: str | Path | None = None,
    detector: Detector | None = None,
    jobs: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Make templates; rows written, and rows that could not be.

    Args:
        source: A folder of photographs, of each of which the largest face counts, or a pack of aligned faces in colour
            or grey, whose labels go with them.
        out: The table, a Parquet file: ``source``, ``vector``, and the labels of a pack. What could not be read is
            listed beside it, in ``OUT.skipped.csv``.
        matcher: ``"dlib"`` for the bundled embedder (extra ``faces``), an ONNX file as for an audit's matcher, or an
            embedder of your own.
        landmarks: Where eyes are in photographs, in place of finding faces.
        detector: Finds faces; the bundled one if None.
        jobs: Threads that decode, and find faces.
        force: Replace a table that is there.
        progress: Told about rows done, rows in all, and rows skipped.

    Raises:
        InputError: Where source and target do not fit, or nothing could be embedded.
    """
    source, out = Path(source), Path(out)
    checked_jobs(jobs)
    _check_target(out, force)
    network = embedder(matcher) if isinstance(matcher, str | Path) else matcher
    labels: dict[str, list[str | None]] = {}
    if (source / "pack.json").exists():
        if landmarks is not None:
            raise InputError(f"landmarks {landmarks}: are of photographs, and {source} is a pack")
        pack = Pack.open(source)
        rows, count, labels = _of_pack(source, pack, network), len(pack), _labels(pack)
    elif source.is_dir():
        rows, count = _of_photographs(source, network, landmarks, detector, jobs)
    else:
        raise InputError(f"{source}: must be a folder of photographs or a pack")
    done = 0
    skipped: list[tuple[str, str]] = []
    with files.written(out) as file, closing(_Table(file)) as table:
        while batch := list(islice(rows, BATCH)):
            faces = [(number, name, face) for number, name, face, _ in batch if face is not None]
            skipped += [(name, problem) for _, name, face, problem in batch if face is None]
            if faces:
                vectors = network(np.stack([face for *_, face in faces]))
                if not np.isfinite(vectors).all():
                    raise InputError(f"{network.name}: templates must be finite, got NaN or infinity")
                columns = {name: [values[number] for number, *_ in faces] for name, values in labels.items()}
                table.write([name for _, name, _ in faces], vectors, columns)
            done += len(faces)
            if progress is not None:
                progress(done + len(skipped), count, len(skipped))
        if not done:
            why = f": {len(skipped)} skipped, the first {skipped[0][0]!r}: {skipped[0][1]}" if skipped else ""
            raise InputError(f"{source}: no face could be embedded{why}")
    list_skipped(out, skipped)
    return done, len(skipped)


class _Table:
    """The Parquet file, written by groups of rows."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._writer: pq.ParquetWriter | None = None
        self._held: list[pa.RecordBatch] = []

    def write(self, names: list[str], vectors: NDArray[np.float32], labels: dict[str, list[str | None]]) -> None:
        columns = {"source": pa.array(names, pa.string()), "vector": lists(vectors)}
        columns |= {name: pa.array(values, pa.string()) for name, values in labels.items()}
        batch = pa.record_batch(columns)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, batch.schema, compression="zstd")
        self._held.append(batch)
        if len(self._held) == GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._held and self._writer is not None:
            self._writer.write_table(pa.Table.from_batches(self._held))
            self._held = []

    def close(self) -> None:
        if self._writer is not None:
            self._flush()
            self._writer.close()


def _of_photographs(
    source: Path, network: Embedder, landmarks: str | Path | None, detector: Detector | None, jobs: int | None
) -> tuple[Iterator[tuple[int, str, NDArray[np.uint8] | None, str]], int]:
    """Number, name, face and problem of each photograph, and how many there are."""
    photographs, _ = walk(source)
    eyes = EyeFinder(detector or True, jobs) if landmarks is None else read_landmarks(landmarks)
    decoded = arrays(eyes.through(as_items(source, photographs)), network.side, 3, jobs=jobs, places=network.eyes)
    rows = ((number, item.source, face, problem) for number, (item, face, problem) in enumerate(decoded))
    return rows, len(photographs)


def _of_pack(source: Path, pack: Pack, network: Embedder) -> Iterator[tuple[int, str, NDArray[np.uint8] | None, str]]:
    """The same of a pack's images."""
    if pack.kind != "images" or not pack.framing["aligned"]:
        raise InputError(
            f"{source}: must be a pack of aligned faces (`veil pack ... --faces`), or name the folder of photographs"
        )
    eyes = Eyes(*eyes_in(pack.x.shape[1]))
    for number, (name, image) in enumerate(zip(pack.sources, pack.x, strict=True)):
        picture = Image.fromarray(np.ascontiguousarray(image)).convert("RGB")
        face = align(Upright(picture, *picture.size), network.side, eyes, network.eyes)
        yield number, str(name), np.asarray(face), ""


def _labels(pack: Pack) -> dict[str, list[str | None]]:
    """The names of each row's classes; None where unknown."""
    return {
        name: [pack.classes[name][code] if code >= 0 else None for code in codes.tolist()]
        for name, codes in pack.labels.items()
    }


def _check_target(out: Path, force: bool) -> None:
    if out.suffix.lower() != ".parquet":
        raise InputError(f"{out}: must end in .parquet, got {out.suffix!r}")
    files.check_place(out)
    files.sweep(out)
    if out.is_dir() or (out.exists() and not force):
        raise InputError(f"{out}: already exists; choose another name or force")
    if not out.parent.is_dir():
        raise InputError(f"{out}: the folder {out.parent} is not there")
