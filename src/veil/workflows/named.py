"""What is audited, from files: a release's folder, or anybody's file of vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from veil.data.columns import plain
from veil.data.pack import Pack
from veil.data.vectors import VectorFile, open_vectors
from veil.errors import InputError
from veil.release import Release
from veil.workflows.fit import read_curves
from veil.workflows.framing import framing_doubt
from veil.workflows.subjects import Subject


@dataclass(frozen=True, kw_only=True)
class NamedPath:
    """A release's folder, or a file of vectors.

    Attributes:
        name: What findings call it.
        path: Where it is.
        key: The release's key file; None for the one beside it.
    """

    name: str
    path: Path
    key: Path | None = None


def release_subject(named: NamedPath, pack: Pack) -> Subject:
    """A release with the losses beside it; its note says if the pack's pictures were cut otherwise than its own."""
    curves = read_curves(named.path.with_name(named.path.name + ".curves.parquet"))
    release = Release.load(named.path, key=named.key)
    doubt = framing_doubt(release, named.name, pack)
    return Subject(name=named.name, release=release, curves=curves, note=doubt)


def vectors_subject(named: NamedPath, pack: Pack) -> Subject:
    """Vectors that somebody else made, joined to the pack's rows by source name, or row by row."""
    note = f"vectors from {named.path.name!r}. {open_vectors(named.path).note}".strip(". ")
    return Subject(name=named.name, vectors=read_vectors(named.path, pack), note=note)


def read_vectors(path: Path, pack: Pack) -> NDArray[np.float32]:
    """Anybody's releases of a pack's rows, float32 ``(N, k)`` in the pack's order.

    Rows are joined by their source names where the file names them as the pack does. A file without names that has as
    many rows as the pack has them in the pack's order; names may also be the numbers of the pack's rows.

    Raises:
        InputError: If the file cannot be read, a row of the pack has no vector, or one that cannot be used; or if names
            are the pack's row numbers, and its sources are those numbers in another order.
    """
    file = open_vectors(path)
    if file.dimensions and set(file.dimensions) == set(pack.framing["columns"]):
        file = open_vectors(path, dimensions=pack.framing["columns"])
    if (twice := file.repeated()) is not None:
        raise InputError(f"{path}: {twice!r} stands in {file.key} more than once")
    places = _places(path, file, pack)
    vectors = np.empty((len(pack), file.width), np.float32)
    for block in file.blocks():
        place = places[block.start : block.start + len(block.vectors)]
        bad = next((row for row in block.problems if place[row] >= 0), None)
        if bad is not None:
            name, reason = block.names[bad].as_py(), block.problems[bad]
            raise InputError(f"{path}: row {name!r} cannot be used: {reason}")
        vectors[place[place >= 0]] = block.vectors[place >= 0]
    return vectors


def _places(path: Path, file: VectorFile, pack: Pack) -> NDArray[np.int64]:
    """For each row of a file the pack's row that it is of, -1 where it is of none."""
    by_name = _indices(file, {plain(str(name)): row for row, name in enumerate(pack.sources)})
    by_number = _indices(file, {str(row): row for row in range(len(pack))})
    missing = np.setdiff1d(np.arange(len(pack)), by_name)
    numbered = file.n == len(pack) == len(np.unique(by_number[by_number >= 0]))
    if len(missing) and not numbered:
        first = str(pack.sources[missing[0]])
        raise InputError(f"{path}: has no vector for {len(missing)} of the pack's {len(pack)} rows, {first!r} first")
    if file.key and numbered and not len(missing) and not np.array_equal(by_name, by_number):
        raise InputError(
            f"{path}: {file.key} must tell sources from row numbers, but holds 0 to {len(pack) - 1}, which are both in "
            "this pack, in different orders; leave it out and keep the pack's order"
        )
    # Without names nothing but the order speaks, even where the pack's sources are numbers.
    return by_number if len(missing) or (numbered and not file.key) else by_name


def _indices(file: VectorFile, index: Mapping[str, int]) -> NDArray[np.int64]:
    """For each row of a file where the index has its name, as names are compared, -1 where it has not."""
    return np.fromiter((index.get(plain(name), -1) for name in file.names()), np.int64, file.n)
