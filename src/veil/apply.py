"""Applying a release: rows in their source's order, from a folder, pack, Parquet or npz file to Parquet, npz or a pack.

Rows are streamed: memory does not grow with their number. Files appear whole or not at all.
"""

from __future__ import annotations

import csv
import secrets
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from veil.data import build
from veil.data.layouts import LAYOUTS
from veil.data.layouts.folder import walk
from veil.data.layouts.listing import Item, Listing, Options, clean
from veil.data.pack import SPLITS, Pack
from veil.errors import InputError
from veil.release import Release

BATCH = 1024

Progress = Callable[[int, int | None, int], None]
"""Called with the rows done, the rows expected (or None) and the rows skipped."""


Batches = Generator[tuple[list[str], NDArray[Any]], None, None]


@dataclass
class _Source:
    """Rows to release: batches of names and inputs, how many are expected, and what had to be left out so far."""

    batches: Batches
    count: int | None
    skipped: list[tuple[str, str]] = field(default_factory=list)


def apply(
    release: Release,
    source: str | Path,
    out: str | Path,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Release every row of a source.

    Args:
        release: With its key, if it is keyed.
        source: A pack, a folder of images, or a Parquet or npz file of vectors.
        out: ``NAME.parquet`` (columns ``source`` and ``release``, a fixed-size list), ``NAME.npz`` (``releases`` and
            ``source``), or a folder: a pack of vectors that keeps the labels and splits of the pack it came from.
        force: Whether to replace ``out``.
        progress: Told after every batch.

    Returns:
        Rows written, and rows that could not be read: those are listed, with reasons, in ``OUT.skipped.csv``.

    Raises:
        InputError: Where source, release and target do not fit together, or nothing could be read.
    """
    source, out = Path(source), Path(out)
    kinds = {".parquet": _write_parquet, ".npz": _write_npz, "": None}
    if out.suffix not in kinds:
        raise InputError(f"{out}: must end in .parquet or .npz, or have no suffix for a pack, got {out.suffix!r}")
    if out.exists() and not force:
        raise InputError(f"{out}: already exists; choose another name or force")
    if out.is_dir() and out.suffix:
        raise InputError(f"{out}: is a folder; name a file that ends in {out.suffix}, or a folder without a suffix")
    if out.resolve() == source.resolve():
        raise InputError(f"{out}: is the source itself; choose another name")
    pack = Pack.open(source) if (source / "pack.json").exists() else None
    rows = _from_pack(release, pack, source) if pack is not None else _from_files(release, source)

    def released() -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        done = 0
        for names, x in rows.batches:
            yield names, next(release.stream([x], first_row=done))
            done += len(names)
            if progress is not None:
                progress(done, rows.count, len(rows.skipped))

    write = kinds[out.suffix]
    if write is None:
        if pack is None:
            raise InputError(f"{out}: a pack can only be made from a pack, got {source}; name a .parquet or .npz file")
        build.write(
            _as_listing(pack, released()), out, layout=str(pack.meta.get("layout")), seed=int(pack.meta.get("seed", 0)),
            force=force, disjoint=pack.meta.get("disjoint_by") is not None,
        )  # fmt: skip
        return len(pack), 0
    token = secrets.token_hex(4)
    temporary, listed = out.with_name(f".{out.name}.{token}.part"), out.with_name(f".{out.name}.{token}.csv")
    skipped = out.with_name(out.name + ".skipped.csv")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        n = write(temporary, released(), release.contract.k)
        if n == 0:
            first = (
                f"the first of {len(rows.skipped)} is {': '.join(rows.skipped[0])}" if rows.skipped else "it is empty"
            )
            raise InputError(f"{source}: no row could be read; {first}")
        _write_skipped(listed, rows.skipped)
        temporary.replace(out)
        if rows.skipped:
            listed.replace(skipped)
        else:
            skipped.unlink(missing_ok=True)  # an earlier run's list would speak of rows that are there now
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error}); nothing was left behind") from error
    finally:
        rows.batches.close()
        for path in (temporary, listed):
            with suppress(OSError):  # that nothing could be written must not be hidden by what follows from it
                path.unlink(missing_ok=True)
    return n, len(rows.skipped)


def _from_pack(release: Release, pack: Pack, source: Path) -> _Source:
    _check_shape(release, source, tuple(pack.x.shape[1:]))

    def batches() -> Batches:
        for start in range(0, len(pack), BATCH):
            yield [str(s) for s in pack.sources[start : start + BATCH]], np.asarray(pack.x[start : start + BATCH])

    return _Source(batches(), len(pack))


def _from_files(release: Release, source: Path) -> _Source:
    """Images of a folder, decoded as the training pack was; or vectors of a file."""
    c = release.contract
    if not source.exists():
        raise InputError(f"{source}: does not exist")
    if source.is_dir() != (c.kind == "images"):
        got = "a folder, which holds images" if source.is_dir() else "a file, which holds vectors"
        raise InputError(f"{source}: the release takes {c.kind}, got {got}")
    size, channels = (c.shape[0], 3 if len(c.shape) == 3 else 1) if c.kind == "images" else (0, 0)
    if c.kind == "images":
        found, _ = walk(source)  # a file of labels beside the images is of no concern here
        count: int | None = len(found)
        items = (Item(clean(name), None if problem else source / name, problem=problem) for name, problem in found)
    else:
        listing = LAYOUTS["embeddings"](source, Options())
        count, items = listing.count, (item for item in listing.items)
    skipped: list[tuple[str, str]] = []

    def batches() -> Batches:
        names: list[str] = []
        arrays: list[NDArray[Any]] = []
        for item, array, reason in build.arrays(items, size, channels, c.crop):
            if array is None:
                skipped.append((item.source, reason))
                continue
            _check_shape(release, source, array.shape)
            names.append(item.source)
            arrays.append(array)
            if len(names) == BATCH:
                yield names, np.stack(arrays)
                names, arrays = [], []
        if names:
            yield names, np.stack(arrays)

    return _Source(batches(), count, skipped)


def _check_shape(release: Release, source: Path, shape: tuple[int, ...]) -> None:
    if shape != release.contract.shape:
        raise InputError(
            f"{source}: its rows must have shape {release.contract.shape} as the release says, got {shape}"
        )


def _write_parquet(path: Path, rows: Iterator[tuple[list[str], NDArray[np.float32]]], k: int) -> int:
    schema = pa.schema([("source", pa.string()), ("release", pa.list_(pa.float32(), k))])
    n = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for names, values in rows:
            column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), k)
            writer.write_batch(pa.record_batch([pa.array(names, pa.string()), column], schema=schema))
            n += len(names)
    return n


def _write_npz(path: Path, rows: Iterator[tuple[list[str], NDArray[np.float32]]], k: int) -> int:
    """npz needs the number of rows in front of them, so the values wait in a file of their own."""
    names: list[str] = []
    values = path.with_name(path.name + ".values")
    try:
        with values.open("wb") as file:
            for batch, part in rows:
                file.write(np.ascontiguousarray(part).tobytes())
                names += batch
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            with archive.open("releases.npy", "w", force_zip64=True) as entry, values.open("rb") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(names), k)}
                np.lib.format.write_array_header_1_0(entry, header)
                while part_bytes := file.read(1 << 22):
                    entry.write(part_bytes)
            with archive.open("source.npy", "w") as entry:
                np.lib.format.write_array(
                    entry, np.array(names or [""], dtype=np.str_)[: len(names)], allow_pickle=False
                )
    finally:
        values.unlink(missing_ok=True)
    return len(names)


def _as_listing(pack: Pack, rows: Iterator[tuple[list[str], NDArray[np.float32]]]) -> Listing:
    """The pack's rows with their releases in place of the inputs; labels, splits and pairs stay."""

    def items() -> Iterator[Item]:
        row = 0
        for names, values in rows:
            for name, value in zip(names, values, strict=True):
                labels = {n: pack.classes[n][c[row]] if c[row] >= 0 else None for n, c in pack.labels.items()}
                yield Item(source=name, data=value, labels=labels, split=SPLITS[pack.split[row]])
                row += 1

    pairs = None
    if pack.pairs is not None:
        pairs = [(str(pack.sources[a]), str(pack.sources[b]), bool(same), int(fold)) for a, b, same, fold in pack.pairs]
    notes = ("Releases of another pack.", *pack.meta.get("notes", ()))
    return Listing(
        items=items(), count=len(pack), attributes=tuple(pack.labels), kind="vectors", pairs=pairs, notes=notes
    )


def _write_skipped(path: Path, skipped: list[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "reason"])
        writer.writerows(skipped)


def read_vectors(path: Path, pack: Pack) -> NDArray[np.float32]:
    """Anybody's releases of a pack's rows, float32 ``(N, k)`` in the pack's order.

    Rows are joined by their source names where the file names them as the pack does; a file without names must have as
    many rows as the pack, in its order.

    Raises:
        InputError: If the file cannot be read, or a row of the pack has no vector.
    """
    listing = LAYOUTS["embeddings"](path, Options())
    found: dict[str, NDArray[Any]] = {}
    for item, array, reason in build.arrays(listing.items, 64, 1):
        if array is None:
            raise InputError(f"{path}: row {item.source!r} cannot be used: {reason}")
        found[item.source] = array
    names = [str(s) for s in pack.sources]
    missing = [name for name in names if name not in found]
    if missing and len(found) == len(pack) and all(str(i) in found for i in range(len(pack))):
        names = [str(i) for i in range(len(pack))]  # what the layout calls rows without names
    elif missing:
        raise InputError(
            f"{path}: has no vector for {len(missing)} of the pack's {len(pack)} rows, {missing[0]!r} first"
        )
    return np.stack([found[name] for name in names]).astype(np.float32)
