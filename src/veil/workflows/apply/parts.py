"""Part files of a run, which outlive it where it is killed.

A run first writes ``OUT.partial/``: ``run.json`` says what is released with what, and each part file holds the releases
of a fixed range of the source's rows. A part file gets its name when it is whole, so a run that was killed goes on
behind the last of them. Memory holds a few parts at a time. Parts hold a checksum in place of waiting for the disk:
most are gone before it would have them; and a hash of the rows that they were made of, which decides where only the
times of the source's files have changed. The run holds a lock on their folder, which goes with its process: two runs
would mix their parts.

Image files are written where they belong at once, each whole or not at all. Of them a part holds the sizes alone.
"""

from __future__ import annotations

import csv
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from veil import files
from veil.data.csvfile import cell
from veil.errors import InputError
from veil.files import written
from veil.foreign import one_line, read_json

PART = 16_384
"""Rows of the source in a part file: what a killed run loses at most, and at 128 values some 8 MB."""
RUN = "run.json"
_REMARKED = ("skipped", "exposed")
TIMES = "times of the source"
"""What of a run may have changed if the rows have not."""

Remarked = tuple[str, str]
"""The name of a row, and why it cannot be released, or what is unprotected in it."""


@dataclass(frozen=True, kw_only=True)
class Division:
    """How the rows of a source are divided: ``rows`` in all, ``each`` in a part, the last aside, of ``k`` values."""

    rows: int
    k: int
    each: int = PART

    @property
    def count(self) -> int:
        """Number of parts."""
        return -(-self.rows // self.each)

    def rows_of(self, number: int) -> int:
        """Rows of one part."""
        return min(self.each, self.rows - number * self.each)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Releases of some rows that follow one another: names ``(m,)``, float32 ``(m, k)``, and the rows left out.

    ``source`` is a hash of the rows that they were made of; ``exposed`` are those of them that are written with
    something unprotected in them.
    """

    names: pa.Array
    values: NDArray[np.float32]
    skipped: Sequence[Remarked] = ()
    exposed: Sequence[Remarked] = ()
    source: str = ""

    def checksum(self) -> int:
        """CRC-32 of names and values."""
        names = "\n".join(self.names.to_pylist()).encode()
        return zlib.crc32(names, zlib.crc32(np.ascontiguousarray(self.values).data))


class Parts:
    """The part files of a run.

    Args:
        out: What they will make up; they lie in ``OUT.partial`` beside it.
        division: How the source's rows are divided into them.
        run: What the parts depend on: words for a message, each with its fingerprint.
        resume: Keep the parts of an earlier run.
        force: Replace the parts of an earlier run.
        images: Whether the parts only tell which files are whole that lie elsewhere. What is known of these must not be
            lost, even where no part is done: then nobody could tell whose they are.
        unchanged: Where of ``run`` nothing but :data:`TIMES` has changed, whether the parts that are done are of the
            source's rows as they are now.

    Attributes:
        folder: Where they are.
        division: As it was given.
        done: Number of parts that are done.
        keep: Whether the parts are kept on failure even if no row has been released.

    Raises:
        InputError: If an earlier run left parts and neither ``resume`` nor ``force`` is given, or ``resume`` is and
            they depend on something else; if something else has the folder's name; or if a run is writing there now.
    """

    def __init__(
        self,
        out: Path,
        division: Division,
        *,
        run: Mapping[str, str],
        resume: bool = False,
        force: bool = False,
        images: bool = False,
        unchanged: Callable[[Parts], bool] = lambda parts: False,
    ) -> None:
        self.folder = partial_folder(out)
        self.division = division
        if os.path.lexists(self.folder) and not _is_runs(self.folder):
            raise InputError(f"{self.folder}: parts are written there, and it is not an earlier run's; move it away")
        self.done, self.keep = 0, False
        files.sweep(self.folder)
        self._lock = files.held(self.folder)
        try:
            files.sweep_folder(self.folder)
            begun = (self.folder / RUN).is_file()
            self.keep = images and resume and begun
            if resume and begun:
                self.done = next((i for i in range(self.division.count) if not self._whole(i)), self.division.count)
                self._check_run(run, unchanged)
            elif not force and ((images and begun) or any(self._path(i).exists() for i in range(self.division.count))):
                raise InputError(
                    f"{self.folder}: an unfinished run left it; resume to go on with it, or force to start anew"
                )
            elif any(self.folder.iterdir()):
                self._remove()
                self._lock = files.held(self.folder)
            place(self.folder / RUN, json.dumps(run, indent=1).encode())
        except OSError:
            self.__exit__(OSError)
            raise
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, failed: type[BaseException] | None, *rest: object) -> None:
        """Parts outlive a failure, unless no row has been released; those of a run that is done are removed."""
        if failed is None or not (self.keep or self.totals()[0]):
            self._remove()
        else:
            self._unlock()

    def _remove(self) -> None:
        files.remove(self.folder)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check_run(self, run: Mapping[str, str], unchanged: Callable[[Parts], bool]) -> None:
        path = self.folder / RUN
        try:
            earlier = dict(read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path}: cannot be read ({one_line(error)}); force to start anew") from None
        changed = [what for what in run if earlier.get(what) != run[what]]
        if changed == [TIMES]:
            changed = [] if unchanged(self) else ["source"]
        if changed := [what for what in changed if what != TIMES]:
            raise InputError(f"{self.folder}: was begun with another {' and '.join(changed)}; force to start anew")

    def write(self, number: int, part: Part) -> None:
        """Write one part, whole."""
        about = {
            **{kind: json.dumps(list(getattr(part, kind))) for kind in _REMARKED},
            "checksum": str(part.checksum()),
            "source": part.source,
        }
        schema = pa.schema(self._fields(), metadata=about)
        batch = pa.record_batch([part.names, lists(part.values)], schema=schema)

        with (
            written(self._path(number), lasting=False, sweeping=False) as file,
            pa.ipc.new_file(file, schema) as writer,
        ):
            writer.write_batch(batch)
        self.done = number + 1

    def read(self, number: int, *, verify: bool = False) -> Part:
        """A part; raises ValueError where it is damaged, which is only looked for if it is to be verified."""
        path = self._path(number)
        # Mapped, so that who asks for the names alone reads no values; the values keep the map while they are in use.
        # What may be damaged is not: reading where a file has been cut off would end the process.
        source = pa.py_buffer(path.read_bytes()) if verify else pa.memory_map(str(path))
        with pa.ipc.open_file(source) as reader:
            about = reader.schema.metadata
            batch = reader.get_batch(0)
        if verify:
            batch.validate(full=True)
            if batch.schema != pa.schema(self._fields()):
                raise ValueError(f"{path}: must have the columns source and release of {self.division.k} values")
        skipped, exposed = (
            [(str(name), str(reason)) for name, reason in json.loads(about[kind.encode()])] for kind in _REMARKED
        )
        values = batch.column("release").flatten().to_numpy().reshape(-1, self.division.k)
        part = Part(
            names=batch.column("source"), values=values, skipped=skipped, exposed=exposed,
            source=about[b"source"].decode(),
        )  # fmt: skip
        if verify and part.checksum() != int(about[b"checksum"]):
            raise ValueError(f"{path}: not what was written")
        return part

    def _fields(self) -> list[tuple[str, pa.DataType]]:
        return [("source", pa.string()), ("release", pa.list_(pa.float32(), self.division.k))]

    def totals(self) -> tuple[int, int]:
        """Rows released and rows left out in the parts that are done."""
        counts = [(len(part.names), len(part.skipped)) for part in map(self.read, range(self.done))]
        return sum(n for n, _ in counts), sum(n for _, n in counts)

    def skipped(self) -> Iterator[Remarked]:
        """Names of the rows that were left out, and why."""
        return (row for part in self for row in part.skipped)

    def exposed(self) -> Iterator[Remarked]:
        """Names of the rows that are written with something unprotected in them, and what it is."""
        return (row for part in self for row in part.exposed)

    def __iter__(self) -> Iterator[Part]:
        return (self.read(number) for number in range(self.division.count))

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.arrow"

    def _whole(self, number: int) -> bool:
        """Whether a part is there and speaks for all of its rows."""
        try:
            part = self.read(number, verify=True)
        except (OSError, ValueError, LookupError, TypeError, RecursionError, pa.ArrowException):
            return False
        return len(part.names) + len(part.skipped) == self.division.rows_of(number)


def _is_runs(folder: Path) -> bool:
    """Whether a run left this folder, be it that it was killed before it said what it was."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return (folder / RUN).is_file() or all(files.is_hidden(path.name) for path in folder.iterdir())


def partial_folder(out: Path) -> Path:
    """Where a run's parts lie until its target is whole."""
    return out.with_name(out.name + ".partial")


def skipped_file(out: Path) -> Path:
    """Where rows that were left out are listed."""
    return out.with_name(out.name + ".skipped.csv")


def exposed_file(out: Path) -> Path:
    """Where photographs are listed in which something may be unprotected."""
    return out.with_name(out.name + ".unprotected.csv")


def list_skipped(out: Path, skipped: Iterable[Remarked]) -> None:
    """Write ``OUT.skipped.csv`` where rows were left out, and remove an earlier run's where none were."""
    list_remarked(skipped_file(out), skipped)


def list_remarked(listed: Path, remarked: Iterable[Remarked]) -> None:
    """Write a file of names and reasons where there are any, and remove an earlier run's where there are none."""
    rows = iter(remarked)
    first = next(rows, None)
    if first is None:
        listed.unlink(missing_ok=True)  # it would speak of rows that are there now
        return
    with written(listed) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text)
        writer.writerow(["source", "reason"])
        writer.writerows([cell(name), cell(reason)] for name, reason in chain([first], rows))
        text.detach()


def place(path: Path, data: bytes) -> None:
    """Write a file, whole, and the folders that it lies in where they are missing; what lies there has been swept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path, lasting=False, sweeping=False) as file:
        file.write(data)


def lists(values: NDArray[np.float32]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
