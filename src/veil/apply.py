"""Applying a release: rows in their source's order, from images, packs and files of vectors to files and packs.

Rows are streamed: memory does not grow with their number. A run that was killed can be resumed, with the same result as
one that was not. Files appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.torch import save as to_bytes

from veil import outputs
from veil._version import __version__
from veil.data import build
from veil.data.layouts.folder import walk
from veil.data.layouts.listing import Item, Listing, clean
from veil.data.pack import SPLITS, Pack, class_name, few, flat
from veil.data.vectors import VectorFile, open_vectors
from veil.errors import InputError
from veil.outputs import Part, Parts, Skipped, join
from veil.release import BATCH, Release, in_order

SUFFIXES = ("", ".parquet", ".npz", ".npy")

Progress = Callable[[int, int | None, int], None]
"""Called with the rows done, the rows expected (or None) and the rows skipped."""


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Rows of one part: names ``(m,)``, inputs and told classes of those that can be released; and the others."""

    names: pa.Array
    x: NDArray[Any]
    told: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    skipped: Sequence[Skipped] = ()


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What is released.

    Attributes:
        count: Number of rows.
        fingerprint: Changes with the rows.
        batches: The rows from one on, which must be the first of a part.
        columns: Whether each value of a row stands in a column of its own.
    """

    count: int
    fingerprint: str
    batches: Callable[[int], Generator[_Batch, None, None]]
    columns: bool = False


def apply(
    release: Release,
    source: str | Path,
    out: str | Path,
    *,
    column: str | None = None,
    told: Sequence[str] = (),
    row_numbers: bool = False,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Release every row of a source.

    Args:
        release: With its key, if it is keyed.
        source: A pack, a folder of images, or a Parquet, npz or npy file of vectors (:mod:`veil.data.vectors`).
        out: ``NAME.parquet``: columns ``source`` and ``release``, a fixed-size list; where the source is Parquet with a
            column a value, ``release_0``, ``release_1`` and so on instead. ``NAME.npz``: arrays ``releases`` and
            ``source``. ``NAME.npy``: the releases alone. In files images are rows of values in [0, 1]. Or a folder: a
            pack of vectors, or of images, that keeps the labels and splits of the pack it came from. No label or other
            column of a file is copied: it may be private.
        column: The source's column, or array, of vectors, where it is not clear.
        told: Private labels of the release whose classes the source's columns, or the pack, tell by name, so that they
            need not be guessed; where a row's is unknown (None, "" or NaN) it is guessed all the same.
        row_numbers: Name rows by their numbers in the source: its names may say who they are.
        resume: Go on with a run of the same release, source and target that was killed.
        force: Whether to replace ``out``, and the parts of a run that is not resumed.
        progress: Told after every batch.

    Returns:
        Rows written, and rows that could not be read: those are listed, with reasons, in ``OUT.skipped.csv``. In an npy
        file nothing tells which rows are missing, so for one the first such row is an error.

    Raises:
        InputError: Where source, release and target do not fit together, nothing could be read, two rows have one name,
            a told class is not one of the release's, or a run to resume had another release, source or target.
    """
    source, out = Path(source), Path(out)
    pack = Pack.open(source) if (source / "pack.json").exists() else None
    _check_target(source, out, pack, force)
    _check_told(release, source, pack, told)
    if pack is not None:
        rows = _from_pack(release, pack, source, told, row_numbers)
    elif source.is_dir():
        rows = _from_images(release, source, row_numbers)
    else:
        rows = _from_vectors(release, source, column, told, row_numbers, named=out.suffix != ".npy")
    run = {
        "source": rows.fingerprint,
        "column of vectors": column or "",
        "choice of told labels": ", ".join(told),
        "release": _fingerprint(release),
        "kind of target": out.suffix or "pack",
        "way to name rows": "numbers" if row_numbers else "names",
        "version of Veil": f"{__version__}, {outputs.PART} rows a part",
    }
    try:
        with Parts(out, rows=rows.count, k=release.contract.k, run=run, resume=resume, force=force) as parts:
            _write_parts(release, rows, parts, progress)
            n, skipped = parts.totals()
            if n == 0:
                first = f"the first of {skipped} is {': '.join(parts.read(0).skipped[0])}" if skipped else "it is empty"
                raise InputError(f"{source}: no row could be read; {first}")
            if pack is not None and not out.suffix:
                _write_pack(pack, parts, out, image=release.contract.image, row_numbers=row_numbers, force=force)
            else:
                join(parts, out, columns=rows.columns)
    except OSError as error:
        left = out.with_name(out.name + ".partial")
        rest = f"what was done waits in {left.name} to be resumed" if left.exists() else "nothing was left behind"
        raise InputError(f"{out}: cannot be written ({error.strerror or error}); {rest}") from error
    return n, skipped


def _check_target(source: Path, out: Path, pack: Pack | None, force: bool) -> None:
    if out.suffix not in SUFFIXES:
        raise InputError(f"{out}: must end in .parquet, .npz or .npy, or have no suffix for a pack, got {out.suffix!r}")
    if not source.exists():
        raise InputError(f"{source}: does not exist")
    if out.exists() and not force:
        raise InputError(f"{out}: already exists; choose another name or force")
    if out.is_dir() and out.suffix:
        raise InputError(f"{out}: is a folder; name a file that ends in {out.suffix}, or a folder without a suffix")
    if out.resolve() == source.resolve():
        raise InputError(f"{out}: is the source itself; choose another name")
    if not out.suffix and pack is None:
        raise InputError(
            f"{out}: a pack can only be made from a pack, got {source}; name a .parquet, .npz or .npy file"
        )


def _check_told(release: Release, source: Path, pack: Pack | None, told: Sequence[str]) -> None:
    if told and pack is None and source.is_dir():
        raise InputError(f"{source}: images have no labels that could tell a class; name a pack")
    for name in told:
        if name not in release.contract.told:
            there = ", ".join(release.contract.told) or "none"
            raise InputError(f"told: must be a private label that the release can be told ({there}), got {name!r}")


def _fingerprint(release: Release) -> str:
    """Changes with all that a release depends on, its key included, which does not follow from it."""
    weights = {name: value.detach().cpu().contiguous() for name, value in release.encoder.state_dict().items()}
    total = hashlib.sha256(to_bytes(weights))
    total.update(json.dumps([release.method, dict(release.config), asdict(release.contract)], sort_keys=True).encode())
    total.update(release.key or b"")
    return total.hexdigest()


# -- from batches to parts --------------------------------------------------------------------------------------------


def _write_parts(release: Release, rows: _Source, parts: Parts, progress: Progress | None) -> None:
    """Writes the parts that are missing. While batches are released the next is read, and the last part is written."""
    done, left_out = parts.totals()
    row = parts.done * outputs.PART
    held: list[Part] = []
    written: Future[None] | None = None
    with (
        ThreadPoolExecutor(1) as writer,
        closing(rows.batches(row)) as batches,
        closing(in_order(partial(_released, release), batches)) as released,
    ):
        for part in released:
            held.append(part)
            row += len(part.names) + len(part.skipped)
            if row % outputs.PART == 0 or row == rows.count:
                if written is not None:
                    written.result()
                written = writer.submit(parts.write, (row - 1) // outputs.PART, _together(held))
                held = []
            done, left_out = done + len(part.names), left_out + len(part.skipped)
            if progress is not None:
                progress(done, rows.count, left_out)
        if written is not None:
            written.result()


def _released(release: Release, batch: _Batch) -> Part:
    values = np.empty((0, release.contract.k), np.float32)
    if len(batch.names):
        values = flat(release.transform(batch.x, told=batch.told or None))
    return Part(names=batch.names, values=values, skipped=batch.skipped)


def _together(parts: Sequence[Part]) -> Part:
    return Part(
        names=pa.concat_arrays([part.names for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        skipped=[skipped for part in parts for skipped in part.skipped],
    )


# -- sources ----------------------------------------------------------------------------------------------------------


def _from_pack(release: Release, pack: Pack, source: Path, told: Sequence[str], row_numbers: bool) -> _Source:
    _check_shape(release, source, tuple(pack.x.shape[1:]))
    size = BATCH[pack.kind]
    for name in told:
        pack.label(name)

    def words(name: str, codes: NDArray[np.int64]) -> list[str | None]:
        return [pack.classes[name][code] if code >= 0 else None for code in codes]

    def batches(first: int) -> Generator[_Batch, None, None]:
        for start in range(first, len(pack), size):
            end = min(start + size, len(pack))
            names = [str(i) for i in range(start, end)] if row_numbers else [str(s) for s in pack.sources[start:end]]
            codes = {
                name: _codes(release, source, name, words(name, pack.labels[name][start:end]), start) for name in told
            }
            yield _Batch(names=pa.array(names, pa.string()), x=np.asarray(pack.x[start:end]), told=codes)

    return _Source(count=len(pack), fingerprint=pack.fingerprint, batches=batches)


def _from_images(release: Release, source: Path, row_numbers: bool) -> _Source:
    """Images of a folder, decoded as the training pack was; a file of labels beside them is of no concern."""
    c = release.contract
    _check_kind(release, source, "images")
    found, _ = walk(source)

    def batches(first: int) -> Generator[_Batch, None, None]:
        items = (
            Item(str(number) if row_numbers else clean(name), None if problem else source / name, problem=problem)
            for number, (name, problem) in enumerate(found[first:], first)
        )
        with closing(build.arrays(items, c.shape[0], 3 if len(c.shape) == 3 else 1, c.crop)) as decoded:
            while some := list(islice(decoded, BATCH["images"])):
                good = [(item.source, array) for item, array, _ in some if array is not None]
                yield _Batch(
                    names=pa.array([name for name, _ in good], pa.string()),
                    x=np.stack([array for _, array in good]) if good else np.empty((0, *c.shape), np.uint8),
                    skipped=[(item.source, reason) for item, array, reason in some if array is None],
                )

    total = hashlib.sha256()
    for name, _ in found:
        with suppress(OSError):  # a link to nothing is a row that is skipped
            stat = (source / name).stat()
            total.update(f"{name!r} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return _Source(count=len(found), fingerprint=total.hexdigest(), batches=batches)


def _from_vectors(
    release: Release, source: Path, column: str | None, told: Sequence[str], row_numbers: bool, *, named: bool
) -> _Source:
    _check_kind(release, source, "vectors")
    file = open_vectors(source, column)
    _check_shape(release, source, (file.width,))
    for name in told:
        if name not in file.others:
            raise InputError(
                f"{source}: has no column {name!r} that tells a class; it has {few(file.others) or 'none'}"
            )
    if not row_numbers and (twice := file.repeated()) is not None:
        raise InputError(f"{source}: {twice!r} stands in {file.key} more than once; name rows by their numbers instead")

    def batches(first: int) -> Generator[_Batch, None, None]:
        for block in file.blocks(first, BATCH["vectors"], named=not row_numbers, columns=told):
            words = {name: [class_name(value) for value in block.columns[name].to_pylist()] for name in told}
            codes = {name: _codes(release, source, name, words[name], block.start) for name in told}
            if not block.problems:
                yield _Batch(names=block.names, x=block.vectors, told=codes)
                continue
            skipped = [(block.names[row].as_py(), reason) for row, reason in block.problems.items()]
            if not named:
                name, reason = skipped[0]
                raise InputError(f"{source}: row {name} has {reason}; an npy file cannot tell that it is left out")
            good = np.setdiff1d(np.arange(len(block.vectors)), list(block.problems))
            yield _Batch(
                names=block.names.take(pa.array(good)),
                x=block.vectors[good],
                told={name: values[good] for name, values in codes.items()},
                skipped=skipped,
            )

    return _Source(count=file.n, fingerprint=_stamp(source), batches=batches, columns=file.form == "columns")


def _stamp(path: Path) -> str:
    """Changes with a file's size, its time of change, and what it holds at its ends (Parquet's is about all of it)."""
    stat = path.stat()
    total = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    with path.open("rb") as file:
        for start in (0, max(0, stat.st_size - (1 << 20))):
            file.seek(start)
            total.update(file.read(1 << 20))
    return total.hexdigest()


def _codes(release: Release, source: Path, name: str, words: Sequence[str | None], first: int) -> NDArray[np.int64]:
    """The release's codes of told classes, -1 for unknown; rows are numbered from ``first``."""
    classes = release.contract.told[name]
    code: dict[str | None, int] = {word: i for i, word in enumerate(classes)} | {None: -1}
    for row, word in enumerate(words, first):
        if word not in code:
            raise InputError(
                f"{source}: row {row}: {name} must be one of {', '.join(classes)} or unknown, got {word!r}"
            )
    return np.array([code[word] for word in words], np.int64)


def _check_kind(release: Release, source: Path, kind: str) -> None:
    if release.contract.kind != kind:
        got = "a folder, which holds images" if kind == "images" else "a file, which holds vectors"
        raise InputError(f"{source}: the release takes {release.contract.kind}, got {got}")


def _check_shape(release: Release, source: Path, shape: tuple[int, ...]) -> None:
    if shape != release.contract.shape:
        raise InputError(
            f"{source}: its rows must have shape {release.contract.shape} as the release says, got {shape}"
        )


# -- packs of releases ------------------------------------------------------------------------------------------------


def _write_pack(
    pack: Pack, parts: Parts, out: Path, *, image: tuple[int, ...] | None, row_numbers: bool, force: bool
) -> None:
    """The pack with its releases in place of the inputs, images where they are; labels, splits and pairs stay."""

    def named(row: int) -> str:
        return str(row) if row_numbers else str(pack.sources[row])

    def items() -> Iterator[Item]:
        row = 0
        for part in parts:
            pixels = part.values if image is None else np.round(part.values * 255).astype(np.uint8)
            for value in pixels.reshape(-1, *(image or (parts.k,))):
                labels = {n: pack.classes[n][c[row]] if c[row] >= 0 else None for n, c in pack.labels.items()}
                yield Item(source=named(row), data=value, labels=labels, split=SPLITS[pack.split[row]])
                row += 1

    pairs = None
    if pack.pairs is not None:
        pairs = [(named(a), named(b), bool(same), int(fold)) for a, b, same, fold in pack.pairs]
    notes = ("Releases of another pack.", *pack.meta.get("notes", ()))
    listing = Listing(
        items=items(), count=len(pack), attributes=tuple(pack.labels), kind="vectors" if image is None else "images",
        pairs=pairs, notes=notes,
    )  # fmt: skip
    build.write(
        listing, out, layout=str(pack.meta.get("layout")), seed=int(pack.meta.get("seed", 0)), force=force,
        size=image[0] if image else 0, channels=3 if image and len(image) == 3 else 1,
        disjoint=pack.meta.get("disjoint_by") is not None,
    )  # fmt: skip


# -- strangers' vectors -----------------------------------------------------------------------------------------------


def read_vectors(path: Path, pack: Pack) -> NDArray[np.float32]:
    """Anybody's releases of a pack's rows, float32 ``(N, k)`` in the pack's order.

    Rows are joined by their source names where the file names them as the pack does; a file without names, or with row
    numbers for names, must have as many rows as the pack, in its order.

    Raises:
        InputError: If the file cannot be read, a row of the pack has no vector, or one that cannot be used.
    """
    file = open_vectors(path)
    if (twice := file.repeated()) is not None:
        raise InputError(f"{path}: {twice!r} stands in {file.key} more than once")
    by_name = _places(file, {str(name): row for row, name in enumerate(pack.sources)})
    by_number = _places(file, {str(row): row for row in range(len(pack))})
    missing = np.setdiff1d(np.arange(len(pack)), by_name)
    numbered = file.n == len(pack) == len(np.unique(by_number[by_number >= 0]))
    if len(missing) and not numbered:
        first = str(pack.sources[missing[0]])
        raise InputError(f"{path}: has no vector for {len(missing)} of the pack's {len(pack)} rows, {first!r} first")
    places = by_number if len(missing) else by_name
    out = np.empty((len(pack), file.width), np.float32)
    for block in file.blocks():
        place = places[block.start : block.start + len(block.vectors)]
        bad = next((row for row in block.problems if place[row] >= 0), None)
        if bad is not None:
            name, reason = block.names[bad].as_py(), block.problems[bad]
            raise InputError(f"{path}: row {name!r} cannot be used: {reason}")
        out[place[place >= 0]] = block.vectors[place >= 0]
    return out


def _places(file: VectorFile, index: Mapping[str, int]) -> NDArray[np.int64]:
    """For each row of a file where the index has its name, -1 where it has not."""
    return np.fromiter((index.get(name, -1) for name in file.names()), np.int64, file.n)
