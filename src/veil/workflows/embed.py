"""Templates of faces: photographs, or a pack of aligned faces, in; a table of vectors out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from veil import files
from veil.data.decoding import arrays
from veil.data.faces import Detector, EyeFinder
from veil.data.landmarks import Landmarks, read_landmarks
from veil.data.layouts import folder
from veil.data.layouts.listing import NO_LABELS, Options
from veil.data.pack import Pack, Predicted
from veil.data.packfile import MARKS
from veil.errors import InputError, checked_jobs, checked_path
from veil.nn.embedders import BUNDLED, Embedder, embedder, moved
from veil.workflows.apply.parts import list_skipped, lists

BATCH = 32
GROUP = 64
"""Batches in a group of rows of the table."""

Progress = Callable[[int, int | None, int], None]
Remark = Callable[[str, str], None]
"""Called with "warning", of what is lost, or "note", and a sentence."""


@dataclass(frozen=True)
class _Row:
    """A face, or why there is none, with its name and labels."""

    name: str
    face: NDArray[np.uint8] | None
    problem: str = ""
    labels: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class _Faces:
    """Rows to embed, how many there are, the labels that they have, and which of these were guessed."""

    rows: Iterator[_Row]
    count: int | None
    labels: tuple[str, ...]
    predicted: Mapping[str, Predicted]


def embed(
    source: str | Path,
    out: str | Path,
    *,
    matcher: str | Path | Embedder = BUNDLED,
    matcher_settings: Mapping[str, str] | None = None,
    labels: str | Path | None = None,
    settings: Mapping[str, str] | None = None,
    landmarks: str | Path | None = None,
    detector: Detector | None = None,
    jobs: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    remark: Remark | None = None,
) -> tuple[int, int]:
    """Make templates; rows written, and rows that could not be.

    Args:
        source: A folder of photographs, of each of which the largest face counts, or a pack of aligned faces in colour
            or grey, whose labels go with them.
        out: The table, a Parquet file: ``source``, ``vector``, and labels. What could not be read is listed beside it,
            in ``OUT.skipped.csv``.
        matcher: ``"dlib"`` for the bundled embedder (extra ``faces``), an ONNX file as for an audit's matcher, or an
            embedder of your own.
        matcher_settings: What is declared of that file, as for :class:`veil.nn.onnxfile.OnnxNetwork`.
        labels: CSV or Parquet file of labels of photographs, or a pack, joined by names as the layout ``folder`` does.
        settings: Of that layout: ``{"identity": "folder"}`` takes the name of a photograph's folder for who is seen.
        landmarks: Where eyes are in photographs, in place of finding faces.
        detector: Finds faces; the bundled one if None.
        jobs: Threads that decode, and find faces.
        force: Replace a table that is there.
        progress: Told about rows done, rows in all, and rows skipped.
        remark: Told what is lost, and what else should be known, of photographs and their labels.

    Raises:
        InputError: Where source and target do not fit, or nothing could be embedded.
    """
    source, out = checked_path("source", source), checked_path("out", out)
    checked_jobs(jobs)
    _check_target(out, force)
    network = matcher
    if isinstance(network, str | Path):
        network = embedder(network, matcher_settings)
    elif matcher_settings:
        raise InputError("matcher settings: are of an ONNX file, and the embedder is one of your own")
    if (source / "pack.json").exists():
        given = {"landmarks": landmarks, "labels": labels, "settings": settings}
        if named := next((f"{name} {value}" for name, value in given.items() if value), ""):
            raise InputError(f"{named}: are of photographs, and {source} is a pack")
        faces = _of_pack(source, Pack.open(source), network)
    elif source.is_dir():
        options = Options(labels=None if labels is None else checked_path("labels", labels), settings=settings or {})
        eyes = EyeFinder(detector or True, jobs) if landmarks is None else read_landmarks(landmarks)
        faces = _of_photographs(source, options, eyes, network, jobs, remark or (lambda kind, sentence: None))
    else:
        raise InputError(f"{source}: must be a folder of photographs or a pack")
    return _written(faces, source, out, network, progress)


def _written(faces: _Faces, source: Path, out: Path, network: Embedder, progress: Progress | None) -> tuple[int, int]:
    """Writes the table, and what was left out; how many rows both have."""
    done = 0
    skipped: list[tuple[str, str]] = []
    with files.written(out) as file, closing(_Table(file, faces)) as table:
        while batch := list(islice(faces.rows, BATCH)):
            there = [row for row in batch if row.face is not None]
            skipped += [(row.name, row.problem) for row in batch if row.face is None]
            if there:
                vectors = network(np.stack([row.face for row in there]))  # type: ignore[misc]
                if not np.isfinite(vectors).all():
                    raise InputError(f"{network.name}: templates must be finite, got NaN or infinity")
                table.write(there, vectors)
            done += len(there)
            if progress is not None:
                progress(done + len(skipped), faces.count, len(skipped))
        if not done:
            why = f": {len(skipped)} skipped, the first {skipped[0][0]!r}: {skipped[0][1]}" if skipped else ""
            raise InputError(f"{source}: no face could be embedded{why}")
        table.close()
        if skipped:  # before the table has its name: a run that is killed then must not leave one without its list
            list_skipped(out, skipped)
    if not skipped:
        list_skipped(out, skipped)
    return done, len(skipped)


class _Table:
    """The Parquet file, written by groups of rows."""

    def __init__(self, file: Any, faces: _Faces) -> None:
        self._file, self._labels = file, faces.labels
        self._about = {MARKS: json.dumps(faces.predicted)} if faces.predicted else {}
        self._writer: pq.ParquetWriter | None = None
        self._held: list[pa.RecordBatch] = []

    def write(self, rows: list[_Row], vectors: NDArray[np.float32]) -> None:
        columns = {"source": pa.array([row.name for row in rows], pa.string()), "vector": lists(vectors)}
        columns |= {name: pa.array([row.labels.get(name) for row in rows], pa.string()) for name in self._labels}
        batch = pa.record_batch(columns, metadata=self._about)
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
            self._writer = None


def _of_photographs(
    source: Path,
    options: Options,
    eyes: EyeFinder | Landmarks,
    network: Embedder,
    jobs: int | None,
    remark: Remark,
) -> _Faces:
    """The faces of photographs; their labels and splits as the layout ``folder`` reads them."""
    listing = folder.read(source, options)
    for kind, sentences in (("warning", listing.warnings), ("note", listing.notes)):
        for sentence in sentences:
            if sentence != NO_LABELS:  # nobody asked for any
                remark(kind, sentence)
    decoded = arrays(eyes.through(listing.items), network.side, 3, jobs=jobs, places=network.eyes)

    def rows() -> Iterator[_Row]:
        for item, face, problem in decoded:
            split = {} if item.split is None else {"split": item.split}
            yield _Row(item.source, face, problem, {**item.labels, **split})

    splits = ("split",) * listing.prescribed
    return _Faces(rows(), listing.count, (*listing.attributes, *splits), listing.predicted)


def _of_pack(source: Path, pack: Pack, network: Embedder) -> _Faces:
    """The faces of a pack, with its labels."""
    if pack.kind != "images" or not pack.framing["aligned"]:
        raise InputError(
            f"{source}: must be a pack of aligned faces (`veil pack ... --faces`), or name the folder of photographs"
        )

    def rows() -> Iterator[_Row]:
        for i, image in enumerate(pack.x):
            labels = {n: pack.classes[n][codes[i]] if codes[i] >= 0 else None for n, codes in pack.labels.items()}
            yield _Row(str(pack.sources[i]), moved(image, network.side, network.eyes), "", labels)

    return _Faces(rows(), len(pack), tuple(pack.labels), pack.predicted)


def _check_target(out: Path, force: bool) -> None:
    if out.suffix.lower() != ".parquet":
        raise InputError(f"{out}: must end in .parquet, got {out.suffix!r}")
    files.check_place(out)
    files.sweep(out)
    if out.is_dir() or (out.exists() and not force):
        raise InputError(f"{out}: already exists; choose another name or force")
    if not out.parent.is_dir():
        raise InputError(f"{out}: the folder {out.parent} is not there")
