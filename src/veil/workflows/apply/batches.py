"""From batches of a source's rows to parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa

from veil.data.pack import flat
from veil.release import Release
from veil.threads import in_order
from veil.workflows.apply.choices import Choices
from veil.workflows.apply.parts import Part, Parts
from veil.workflows.apply.sources import Batch, Source

Progress = Callable[[int, int | None, int], None]
"""Called with the rows done, the rows expected (or None) and the rows skipped."""


def write_parts(released: Callable[[Batch], Part], rows: Source, parts: Parts, progress: Progress | None) -> None:
    """Writes the parts that are missing. While batches are released the next is read, and the last part is written."""
    done, left_out = parts.totals()
    row = parts.done * parts.division.each
    held: list[Part] = []
    written: Future[None] | None = None
    with (
        ThreadPoolExecutor(1) as writer,
        closing(rows.batches(row)) as batches,
        closing(in_order(released, batches)) as made,
    ):
        for part in made:
            held.append(part)
            row += len(part.names) + len(part.skipped)
            if row % parts.division.each == 0 or row == rows.count:
                if written is not None:
                    written.result()
                written = writer.submit(parts.write, (row - 1) // parts.division.each, _together(held))
                held = []
            done, left_out = done + len(part.names), left_out + len(part.skipped)
            if progress is not None:
                progress(done, rows.count, left_out)
        if written is not None:
            written.result()


def released(release: Release, choices: Choices | None, batch: Batch) -> Part:
    values = np.empty((0, release.contract.k), np.float32)
    if len(batch.names):
        hide = None if choices is None else choices.of(batch.paths)
        values = flat(release.transform(batch.x, told=batch.told or None, hide=hide))
    return Part(names=batch.names, values=values, skipped=batch.skipped, source=batch_hash(batch, None))


def _together(parts: Sequence[Part]) -> Part:
    return Part(
        names=pa.concat_arrays([part.names for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        skipped=[skipped for part in parts for skipped in part.skipped],
        exposed=[exposed for part in parts for exposed in part.exposed],
        source=_joined([part.source for part in parts]),
    )


def unchanged(rows: Source, album: Path | None, progress: Progress | None, parts: Parts) -> bool:
    """Whether the parts that are done were made of the rows as they are now: these are read again."""
    hashes: list[str] = []
    row = number = left_out = 0
    with closing(rows.batches(0)) as batches:
        for batch in batches:
            if number == parts.done:
                break
            hashes.append(batch_hash(batch, album))
            row, left_out = row + len(batch.names) + len(batch.skipped), left_out + len(batch.skipped)
            if row % parts.division.each == 0 or row == rows.count:
                if _joined(hashes) != parts.read(number).source:
                    return False
                hashes, number = [], number + 1
            if progress is not None:
                progress(row - left_out, rows.count, left_out)
    return True


def batch_hash(batch: Batch, album: Path | None) -> str:
    """SHA-256 of all that a batch's releases are made of; image files', of ``album``, also of their sizes in bytes."""
    sizes = [] if album is None else [(album / path).stat().st_size for path in batch.paths]
    told = sorted(batch.told)
    described = [batch.names.to_pylist(), list(batch.skipped), list(batch.paths), sizes, told, str(batch.x.shape)]
    total = hashlib.sha256(json.dumps(described).encode())
    for values in (batch.x, *(batch.told[name] for name in told)):
        total.update(np.ascontiguousarray(values).data)
    return total.hexdigest()


def _joined(hashes: Sequence[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
