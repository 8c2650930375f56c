"""What is released: rows of a pack, a folder or table of images, or a file of vectors, streamed in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from veil.data import columns as kinds
from veil.data.classes import few, told_class
from veil.data.columns import nfc
from veil.data.decoding import arrays
from veil.data.faces import EyeFinder, Sighting
from veil.data.imagetable import open_images
from veil.data.landmarks import Landmarks
from veil.data.layouts.folder import Aside, as_items, is_table, walk
from veil.data.layouts.listing import Item
from veil.data.pack import Pack
from veil.data.vectors import open_vectors
from veil.errors import InputError
from veil.parquet import SUFFIXES, shards
from veil.release import Release
from veil.workflows.apply.options import Options
from veil.workflows.apply.parts import Remarked

_END = 1 << 20  # bytes at either end of a file by which it is known


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of one part: names ``(m,)``, inputs and told classes of those that can be released; and the others.

    Images also have their paths in the source ``(m,)``, which names need not be. Of whole photographs the inputs are
    the squares of all faces in them, one after another, as ``sightings`` ``(m,)`` say.
    """

    names: pa.Array
    x: NDArray[Any]
    told: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    skipped: Sequence[Remarked] = ()
    paths: Sequence[str] = ()
    sightings: Sequence[Sighting] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is released.

    Attributes:
        count: Number of rows.
        fingerprint: Changes with the rows, but for changes that leave the sizes of files as they were.
        times: Changes with the times of the files; of a pack it is empty, as its fingerprint says all.
        batches: The rows from one on, which must be the first of a part.
        columns: Whether each value of a row stands in a column of its own.
        notes: What was left aside, and how the rows are read.
        warnings: What may be wrong with them.
        images: Of a folder of images, its rows as :func:`veil.data.layouts.folder.walk` lists them: path, problem; of a
            table of images their names.
        uprights: Widths and heights of its images, as they are decoded.
    """

    count: int
    fingerprint: str
    times: str
    batches: Callable[[int], Generator[Batch, None, None]]
    columns: bool = False
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    images: Sequence[tuple[str, str]] = ()
    uprights: list[tuple[int, int]] = field(default_factory=list)

    @property
    def readable(self) -> list[str]:
        """Paths of the images that are read, in the folder."""
        return [path for path, problem in self.images if not problem]


def open_source(
    release: Release,
    source: Path,
    pack: Pack | None,
    options: Options,
    eyes: Landmarks | EyeFinder | None,
    *,
    named: bool,
) -> Source:
    """The rows of a source.

    Args:
        release: What they are for.
        source: A pack, a folder of images, or a file of vectors.
        pack: The pack, if it is one.
        options: How it is read.
        eyes: Where eyes are in images of a folder.
        named: Whether the target names its rows: where it does not, a row that cannot be read is an error.

    Raises:
        InputError: If rows and release do not fit together, two rows have one name, or told classes are not there.
    """
    if pack is not None:
        return _from_pack(release, source, pack, options)
    if source.is_dir() and not is_table(source):
        return _from_images(release, source, options, eyes, named=named)
    if release.contract.kind == "images" and (source.is_dir() or source.suffix.lower() in SUFFIXES):
        return _from_image_table(release, source, options, eyes, named=named)
    return _from_vectors(release, source, options, named=named)


def _from_pack(release: Release, source: Path, pack: Pack, options: Options) -> Source:
    _check_shape(release, source, tuple(pack.x.shape[1:]))
    order: Any = slice(None)  # of a row's values
    if (columns := pack.framing["columns"]) and set(columns) == set(release.contract.columns):
        order = [columns.index(name) for name in release.contract.columns]
    else:
        release.contract.check_framing(pack, str(source))
    size = options.rows_at_a_time(pack.kind)
    for name in options.told:
        pack.label(name)

    def words(name: str, codes: NDArray[np.int64]) -> list[str | None]:
        return [pack.classes[name][code] if code >= 0 else None for code in codes]

    def batches(first: int) -> Generator[Batch, None, None]:
        for start in range(first, len(pack), size):
            end = min(start + size, len(pack))
            names = [str(name) for name in (range(start, end) if options.row_numbers else pack.sources[start:end])]
            codes = {
                name: _codes(release, source, name, words(name, pack.labels[name][start:end]), start)
                for name in options.told
            }
            paths = [str(source) for source in pack.sources[start:end]] if pack.kind == "images" else []
            x = np.ascontiguousarray(pack.x[start:end][:, order])
            yield Batch(names=pa.array(names, pa.string()), x=x, told=codes, paths=paths)

    unsure = _unnamed(release, source) if not columns else ()
    return Source(count=len(pack), fingerprint=pack.fingerprint, times="", batches=batches, warnings=unsure)


def _unnamed(release: Release, source: Path) -> tuple[str, ...]:
    """A warning where only the release names the columns that vectors stood in."""
    if not release.contract.columns:
        return ()
    names = few(release.contract.columns)
    return (f"{source.name} does not name the columns of its vectors; their values are taken in the order {names}.",)


def _from_images(
    release: Release, source: Path, options: Options, eyes: Landmarks | EyeFinder | None, *, named: bool
) -> Source:
    """Images of a folder, decoded as the training pack was; a file of labels beside them is of no concern."""
    _check_kind(release, source, "images")
    images, aside = walk(source)
    album = _Album(paths=[path for path, _ in images], items=lambda first: as_items(source, images[first:]))
    batches = _decoded(release, source, options, eyes, album, named=named)
    return replace(of_folder(source, images, aside, batches), uprights=album.uprights)


def _from_image_table(
    release: Release, source: Path, options: Options, eyes: Landmarks | EyeFinder | None, *, named: bool
) -> Source:
    """Images of a table; its other columns are of no concern."""
    if options.told:
        raise InputError(f"{source}: classes are told of vectors and packs; make a pack of it, by the layout parquet")
    table = open_images(source, options.column)
    key, names = table.names()

    def items(first: int) -> Iterator[Item]:
        for name, (data, problem) in zip(names[first:], table.images(first), strict=True):
            yield Item(name, data, problem=problem)

    album = _Album(paths=names, items=items)
    return Source(
        count=table.n, fingerprint=_stamp(source, table.files), times=_times(table.files),
        images=[(name, "") for name in names],
        batches=_decoded(release, source, options, eyes, album, named=named), uprights=album.uprights,
        notes=[f"Images are the column {table.column!r} of {source.name!r}, named by {key or 'their numbers'}."],
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Album:
    """Images that are decoded: their paths, or names; the items from a row on; and their sizes, once they are known."""

    paths: Sequence[str]
    items: Callable[[int], Iterator[Item]]
    uprights: list[tuple[int, int]] = field(default_factory=list)


def _decoded(
    release: Release, source: Path, options: Options, eyes: Landmarks | EyeFinder | None, album: _Album, *, named: bool
) -> Callable[[int], Generator[Batch, None, None]]:
    """Batches of images, decoded as the training pack was."""
    c = release.contract
    size = options.rows_at_a_time("images")

    def items(first: int) -> Iterator[Item]:
        some = album.items(first)
        for number, item in enumerate(some if eyes is None else eyes.through(some), first):
            yield replace(item, source=str(number)) if options.row_numbers else item

    def batches(first: int) -> Generator[Batch, None, None]:
        with closing(arrays(items(first), c.shape[0], 3 if len(c.shape) == 3 else 1, c.crop)) as decoded:
            row = first
            while batch := list(islice(decoded, size)):
                good = [(item.source, array) for item, array, _ in batch if array is not None]
                album.uprights.extend(item.upright for item, _, _ in batch if item.upright is not None)
                skipped = [(item.source, reason) for item, array, reason in batch if array is None]
                if skipped and not named:
                    _refuse_gap(source, *skipped[0])
                yield Batch(
                    names=pa.array([name for name, _ in good], pa.string()),
                    x=np.stack([array for _, array in good]) if good else np.empty((0, *c.shape), np.uint8),
                    skipped=skipped,
                    paths=[album.paths[i] for i, (_, array, _) in enumerate(batch, row) if array is not None],
                )
                row += len(batch)

    return batches


def of_folder(
    source: Path,
    images: Sequence[tuple[str, str]],
    aside: Aside,
    batches: Callable[[int], Generator[Batch, None, None]],
) -> Source:
    """A source that is a folder of images, by their sizes and times."""
    sizes, times = hashlib.sha256(), hashlib.sha256()
    for name, _ in images:
        with suppress(OSError):  # a link to nothing is a row that is skipped
            stat = (source / name).stat()
            sizes.update(f"{name!r} {stat.st_size}\n".encode())
            times.update(f"{stat.st_mtime_ns}\n".encode())
    return Source(
        count=len(images), fingerprint=sizes.hexdigest(), times=times.hexdigest(), batches=batches, images=images,
        notes=aside.notes(),
    )  # fmt: skip


def _from_vectors(release: Release, source: Path, options: Options, *, named: bool) -> Source:
    _check_kind(release, source, "vectors")
    file = open_vectors(source, options.column, dimensions=release.contract.columns, named=not options.row_numbers)
    _check_shape(release, source, (file.width,))
    columns = {nfc(name).strip(): name for name in file.others}
    for name in options.told:
        if name not in columns:
            raise InputError(
                f"{source}: has no column {name!r} that tells a class; it has {few(file.others) or 'none'}"
            )
    if not options.row_numbers and (twice := file.repeated()) is not None:
        raise InputError(f"{source}: {twice!r} stands in {file.key} more than once; name rows by their numbers instead")

    def batches(first: int) -> Generator[Batch, None, None]:
        told = {name: columns[name] for name in options.told}
        size = options.rows_at_a_time("vectors")
        for block in file.blocks(first, size, named=not options.row_numbers, columns=list(told.values())):
            codes = {
                name: _codes(release, source, name, kinds.usual(block.columns[column]).to_pylist(), block.start)
                for name, column in told.items()
            }
            if not block.problems:
                yield Batch(names=block.names, x=block.vectors, told=codes)
                continue
            skipped = [(block.names[row].as_py(), reason) for row, reason in block.problems.items()]
            if not named:
                name, reason = skipped[0]
                _refuse_gap(source, f"row {name}", f"has {reason}")
            good = np.setdiff1d(np.arange(len(block.vectors)), list(block.problems))
            yield Batch(
                names=block.names.take(pa.array(good)),
                x=block.vectors[good],
                told={name: each[good] for name, each in codes.items()},
                skipped=skipped,
            )

    files = shards(source)
    return Source(
        count=file.n, fingerprint=_stamp(source, files), times=_times(files), batches=batches,
        columns=file.form == "columns", notes=[file.note] if file.note else (),
        warnings=() if file.dimensions else _unnamed(release, source),
    )  # fmt: skip


def _refuse_gap(source: Path, name: str, reason: str) -> NoReturn:
    raise InputError(f"{source}: {name} {reason}; an npy file cannot tell that it is left out")


def _times(files: Sequence[Path]) -> str:
    return " ".join(str(file.stat().st_mtime_ns) for file in files)


def _stamp(source: Path, files: Sequence[Path]) -> str:
    """Changes with names and sizes of a table's files, and with what they hold at their ends."""
    total = hashlib.sha256()
    most = _END // min(len(files), 256)
    for path in files:
        size = path.stat().st_size
        total.update(f"{path.relative_to(source)} {size}\n".encode(errors="surrogateescape"))
        with path.open("rb") as file:
            for start in (0, max(0, size - most)):
                file.seek(start)
                total.update(file.read(most))
    return total.hexdigest()


def _codes(release: Release, source: Path, name: str, values: Sequence[Any], first: int) -> NDArray[np.int64]:
    """The release's codes of told classes, -1 for unknown; rows are numbered from ``first``."""
    classes = release.contract.told[name]
    code: dict[str | None, int] = {word: i for i, word in enumerate(classes)} | {None: -1}
    words = [told_class(value, classes) for value in values]
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
