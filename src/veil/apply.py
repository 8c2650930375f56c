"""Applying a release: rows in their source's order, from images, packs and files of vectors to files and packs.

Rows are streamed: memory does not grow with their number. A run that was killed can be resumed, with the same result as
one that was not. Files appear whole or not at all. Releases that are images can go into image files instead, a tree
like that of their source.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.torch import save as to_bytes

from veil import files, outputs
from veil._version import __version__
from veil.data import build, decode, framing, sidecar
from veil.data import columns as kinds
from veil.data.columns import nfc, plain
from veil.data.landmarks import Landmarks, read_landmarks
from veil.data.layouts.folder import walk
from veil.data.layouts.listing import LOSS, Item, Listing, check_utf8, clean
from veil.data.pack import SPLITS, Pack, few, flat, sha256, told_class
from veil.data.vectors import VectorFile, open_vectors
from veil.errors import InputError
from veil.outputs import Part, Parts, Skipped, join
from veil.release import BATCH, Release, in_order

SUFFIXES = ("", ".parquet", ".npz", ".npy")
_END = 1 << 20  # bytes at either end of a file by which it is known

Progress = Callable[[int, int | None, int], None]
"""Called with the rows done, the rows expected (or None) and the rows skipped."""

Remark = Callable[[str, str], None]
"""Called with "warning", of what is lost, or "note", and a sentence that the user should know."""


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Rows of one part: names ``(m,)``, inputs and told classes of those that can be released; and the others.

    Images also have their paths in the source ``(m,)``, which names need not be.
    """

    names: pa.Array
    x: NDArray[Any]
    told: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    skipped: Sequence[Skipped] = ()
    paths: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What is released.

    Attributes:
        count: Number of rows.
        fingerprint: Changes with the rows, but for changes that leave the sizes of files as they were.
        times: Changes with the times of the files; of a pack it is empty, as its fingerprint says all.
        batches: The rows from one on, which must be the first of a part.
        columns: Whether each value of a row stands in a column of its own.
        notes: What was left aside, and how the rows are read.
        warnings: What may be wrong with them.
        found: Of a folder of images, its rows as :func:`veil.data.layouts.folder.walk` lists them.
        uprights: Widths and heights of its images, as they are decoded.
    """

    count: int
    fingerprint: str
    times: str
    batches: Callable[[int], Generator[_Batch, None, None]]
    columns: bool = False
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    found: Sequence[tuple[str, str]] = ()
    uprights: list[tuple[int, int]] = field(default_factory=list)


def apply(
    release: Release,
    source: str | Path,
    out: str | Path,
    *,
    column: str | None = None,
    told: Sequence[str] = (),
    row_numbers: bool = False,
    landmarks: str | Path | None = None,
    hide: str | Path | None = None,
    images: bool = False,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    remark: Remark | None = None,
) -> tuple[int, int]:
    """Release every row of a source.

    With ``images``, every image file of the source becomes one in ``out``: of the same path, format and size, upright,
    in grey or RGB as it was released, and without Exif, colour profile, comments or any other metadata. The network
    sees what it would in a pack: the crop of the training pack, cut to its largest centred square, at the contract's
    size. Its release is resized (Lanczos) to the pixels that the crop has in the file, and where there is none to the
    file's own size, and so stretched where these are not square. What lies outside the crop is **not** written: it
    would give away who is seen. Of an aligned face the aligned square is written, and not turned back: as large as it
    is in the file (three times the eyes' distance), but at least 1 pixel and at most the file's shorter side.

    Args:
        release: With its key, if it is keyed.
        source: A pack, a folder of images, or a Parquet, npz, npy or CSV file of vectors (:mod:`veil.data.vectors`).
            Where the release knows the columns that its vectors stood in, a table's are put in their order.
        out: ``NAME.parquet``: columns ``source`` and ``release``, a fixed-size list; where the source is a table with a
            column a value, ``release_0``, ``release_1`` and so on instead. ``NAME.npz``: arrays ``releases`` and
            ``source``. ``NAME.npy``: the releases alone. In files images are rows of values in [0, 1]. Or a folder: a
            pack of vectors, or of images, that keeps the labels and splits of the pack it came from. No label or other
            column of a file is copied: it may be private.
        column: The source's column, or array, of vectors, where it is not clear; or several columns, ``A,B,...``.
        told: Private labels of the release whose classes the source's columns, or the pack, tell by name, so that they
            need not be guessed; where a row's is unknown (None, "" or NaN) it is guessed all the same.
        row_numbers: Name rows by their numbers in the source: its names may say who they are. Not with ``images``.
        landmarks: Where the eyes are in images of a folder (:mod:`veil.data.landmarks`); for releases that were fitted
            on aligned faces, which need it, and for no others. Images without a row are skipped.
        hide: A CSV file that says which attributes to hide in which images, for releases that let this be chosen: its
            columns are ``path`` and ``hide``, names separated by ``;`` or none. Where an image has no row, all are.
        images: Write image files, from a folder of images, into the folder ``out``, which may exist and hold others.
        resume: Go on with a run of the same release, source and target that was killed. Where files of the source have
            other times, rows that are done are read again and compared. Where the target is there already, it must be
            what the run gives.
        force: Whether to replace ``out``, or image files in it, and the parts of a run that is not resumed.
        progress: Told after every batch.
        remark: Told, at the end, what was left aside, what is lost, and what may be wrong: pictures of other shapes or
            sizes than the training pack's, say.

    Returns:
        Rows written, and rows that could not be read: those are listed, with reasons, in ``OUT.skipped.csv``. In an npy
        file nothing tells which rows are missing, so for one the first such row is an error.

    Raises:
        InputError: Where source, release and target do not fit together, nothing could be read, two rows have one name,
            a told class is not one of the release's, a table lacks a column that the release was fitted on or has
            another, landmarks or choices are malformed, missing or not called for, or a run to resume had another
            release, source or target; if a file to be written exists; or, with ``images``, if the release gives
            vectors, or ``out`` and ``source`` lie one in the other.
    """
    source, out = Path(source), Path(out)
    check_utf8(out)
    pack = Pack.open(source) if (source / "pack.json").exists() else None
    if images:
        _check_images(release, source, out, pack, row_numbers)
    else:
        files.sweep(out)
        _check_target(source, out, pack, force or resume)
        if outputs.skipped_file(out).exists() and not (force or resume):
            raise InputError(f"{outputs.skipped_file(out)}: already exists; choose another name or force")
    _check_told(release, source, pack, told)
    eyes = _landmarks(release, source, pack, landmarks)
    choices = None if hide is None else _choices(release, Path(hide))
    if pack is not None:
        rows = _from_pack(release, pack, source, told, row_numbers)
    elif source.is_dir():
        rows = _from_images(release, source, row_numbers, eyes, named=out.suffix != ".npy")
    else:
        rows = _from_vectors(release, source, column, told, row_numbers, named=out.suffix != ".npy")
    if choices is not None:
        choices.check(Path(str(hide)), pack.sources if pack is not None else [name for name, _ in rows.found])
    # Of image files a part holds the sizes, and a few rows at most: little is made again after a run was killed.
    k, each = (1, BATCH["images"]) if images else (release.contract.k, outputs.PART)
    run = {
        "source": rows.fingerprint,
        outputs.TIMES: rows.times,
        "column of vectors": column or "",
        "choice of told labels": ", ".join(told),
        "file of landmarks": "" if eyes is None else sha256(eyes.path),
        "choice of what to hide": "" if hide is None else sha256(Path(hide)),
        "release": _fingerprint(release),
        "kind of target": "image files" if images else out.suffix or "pack",
        "way to name rows": "numbers" if row_numbers else "names",
        "version of Veil": f"{__version__}, {each} rows a part",
    }
    if images:
        # An unfinished run's files may stand there: whether it may go on is for its parts to say.
        begun = (outputs.partial_folder(out) / outputs.RUN).exists()
        there = any((out / name).exists() for name, problem in rows.found if not problem)
        same = resume and there and not (force or begun)  # of a run that is done, perhaps
        _check_files(out, rows.found, replace=force or begun or same)
        for folder in {(out / name).parent for name, problem in rows.found if not problem}:
            files.sweep_folder(folder)
    try:
        with (
            Parts(
                out, rows=rows.count, k=k, run=run, resume=resume, force=force, each=each, images=images,
                unchanged=partial(_unchanged, rows, source if images else None, progress),
            ) as parts,
            warnings.catch_warnings(),
        ):  # fmt: skip
            # Pillow warns of oddities (damaged Exif, say) in images that it decodes; what it cannot decode is listed.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            if images:
                _write_images(release, source, rows, out, parts, eyes, choices, progress, same=same)
            else:
                _write_parts(partial(_released, release, choices), rows, parts, progress)
            n, skipped = parts.totals()
            if n == 0:
                first = f"the first of {skipped} is {': '.join(parts.read(0).skipped[0])}" if skipped else "it is empty"
                raise InputError(" ".join([f"{source}: no row could be read; {first}.", *rows.notes]).removesuffix("."))
            if images:
                outputs.list_skipped(parts, out)
            elif pack is not None and not out.suffix:
                same = resume and not force and out.exists()
                _write_pack(
                    pack, parts, out, image=release.contract.image, row_numbers=row_numbers, force=force, same=same
                )
            else:
                join(parts, out, columns=rows.columns, same=resume and not force)
    except OSError as error:
        left = outputs.partial_folder(out)
        rest = f"what was done waits in {left.name} to be resumed" if left.exists() else "nothing was left behind"
        raise InputError(f"{out}: cannot be written ({error.strerror or error}); {rest}") from error
    if remark is not None:
        lost = f"{skipped:,} of {n + skipped:,} were left out; {outputs.skipped_file(out).name} says why."
        new = framing.described(rows.uprights) if rows.uprights else None
        doubt = framing_doubt(release, source.name, pack, new)
        for warning in (*rows.warnings, *([lost] if skipped >= LOSS * (n + skipped) else []), doubt):
            if warning:
                remark("warning", warning)
        for note in rows.notes:
            remark("note", note)
    return n, skipped


def framing_doubt(
    release: Release, what: str, pack: Pack | None, new: Mapping[str, Sequence[float]] | None = None
) -> str:
    """A warning where a pack's, or ``new``, pictures were not cut as those that a release was fitted on; else ""."""
    crop = release.contract.crop
    if pack is not None and "crop" in pack.meta and pack.kind == "images" and not release.contract.aligned:
        new = pack.meta.get("pictures")
        if pack.framing["crop"] != crop:
            return (
                f"{what}: its images were cropped to {pack.framing['crop'] or 'their centred square'}, those that the "
                f"release was fitted on to {crop or 'their centred square'}; pack them alike (--crop)."
            )
    known = release.made.get("pictures")
    return "" if known is None or new is None else framing.doubt(what, known, new, crop)


def _check_target(source: Path, out: Path, pack: Pack | None, force: bool) -> None:
    if not out.name or out.name == "..":
        raise InputError(f"{out}: not a name for a file or folder")
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
            f"{out}: a pack can only be made from a pack, got {source}; name a .parquet, .npz or .npy file, "
            "or ask for images"
        )


def _check_images(release: Release, source: Path, out: Path, pack: Pack | None, row_numbers: bool) -> None:
    c = release.contract
    if c.image is None:
        raise InputError(f"images: the release must give images, got one that gives vectors of {c.k} values")
    if row_numbers:
        raise InputError("images: files keep their names, so rows cannot be named by their numbers")
    if not source.exists():
        raise InputError(f"{source}: does not exist")
    if pack is not None or not source.is_dir():
        got = "a file" if pack is None else "a pack"
        raise InputError(f"{source}: image files can only be made from a folder of images, got {got}")
    if not out.name or out.name == "..":
        raise InputError(f"{out}: not a name for a folder")
    if out.suffix in SUFFIXES[1:]:
        raise InputError(f"{out}: must be the name of a folder for image files, got one that ends in {out.suffix}")
    if not out.is_dir() and (out.exists() or out.is_symlink()):
        raise InputError(f"{out}: is a file; name a folder for image files")
    root = source.resolve()
    if out.resolve() == root:
        raise InputError(f"{out}: is the source itself; choose another name")
    # Where the folder is a link, the list of skipped files and the parts lie beside the link.
    if out.resolve().is_relative_to(root) or out.parent.resolve().is_relative_to(root):
        raise InputError(f"{out}: lies inside the source {source}; choose another place")
    if root.is_relative_to(out.resolve()):
        raise InputError(f"{out}: the source {source} lies inside it and could be overwritten; choose another place")


def _check_files(out: Path, found: Sequence[tuple[str, str]], *, replace: bool) -> None:
    """Refuses what is in the way of image files; and links that lead them out of their folder: to the source, say."""
    if not out.exists():
        return
    root, last = out.resolve(), out
    for path in (out / name for name, problem in found if not problem):
        if path.parent != last and not path.parent.resolve().is_relative_to(root):
            raise InputError(f"{path.parent}: leads out of {out}, where image files are to be; remove that link")
        last = path.parent
        if path.is_dir() and not path.is_symlink():
            raise InputError(f"{path}: is a folder where an image file is to be; remove it")
        if not replace and (path.is_symlink() or path.exists()):
            raise InputError(f"{path}: already exists; choose another folder or force")
    if not replace and outputs.skipped_file(out).exists():
        raise InputError(f"{outputs.skipped_file(out)}: already exists; choose another folder or force")


def _check_told(release: Release, source: Path, pack: Pack | None, told: Sequence[str]) -> None:
    if told and pack is None and source.is_dir():
        raise InputError(f"{source}: images have no labels that could tell a class; name a pack")
    for name in told:
        if name not in release.contract.told:
            there = ", ".join(release.contract.told) or "none"
            raise InputError(f"told: must be a private label that the release can be told ({there}), got {name!r}")


def _landmarks(release: Release, source: Path, pack: Pack | None, landmarks: str | Path | None) -> Landmarks | None:
    """The file of landmarks, read, where the release needs one; refuses one too many or too few."""
    album = pack is None and source.is_dir()
    if landmarks is None:
        if album and release.contract.aligned:
            raise InputError(
                f"{source}: the release was fitted on aligned faces, so a file of landmarks must say where eyes are, "
                "got none"
            )
        return None
    if not album:
        got = "a file" if pack is None else "a pack"
        raise InputError(f"landmarks {landmarks}: only a folder of images is aligned, got {got}")
    if not release.contract.aligned:
        raise InputError(f"landmarks {landmarks}: must not be given, as the release was not fitted on aligned faces")
    return read_landmarks(landmarks)


def _choices(release: Release, path: Path) -> Choices:
    """Which attributes are hidden in which images."""
    if not release.contract.chooses:
        raise InputError(f"hide {path}: must not be given, as the release leaves nothing to choose")
    names, found = tuple(release.contract.classes), {}
    for row, image, cells in sidecar.read(path, ("hide",), "the file of choices"):
        found[image] = frozenset(nfc(name.strip()) for name in cells["hide"].split(";") if name.strip())
        if unknown := sorted(found[image] - set(names)):
            raise InputError(f"{row}: hide must name some of {', '.join(names)}, got {unknown[0]!r}")
    return Choices(names=names, hidden=found)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Attributes that can be hidden, and which of them are, by the image's path; all where an image is not there."""

    names: tuple[str, ...]
    hidden: Mapping[str, frozenset[str]]

    def check(self, file: Path, paths: Iterable[str]) -> None:
        """Raises InputError for rows that name none of these paths: what they choose would not be heard."""
        there = {plain(clean(path)) for path in paths}
        if strange := [path for path in self.hidden if path not in there]:
            raise InputError(f"hide {file}: every row must name an image, got {few(strange, 2)}")

    def of(self, paths: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
        """For each attribute ``(m,)``, whether it is hidden in the images of these paths."""
        each = [self.hidden.get(plain(clean(path)), frozenset(self.names)) for path in paths]
        return {name: np.array([name in some for some in each], bool) for name in self.names}


def _fingerprint(release: Release) -> str:
    """Changes with all that a release depends on, its key included, which does not follow from it."""
    weights = {name: value.detach().cpu().contiguous() for name, value in release.encoder.state_dict().items()}
    total = hashlib.sha256(to_bytes(weights))
    total.update(json.dumps([release.method, dict(release.config), asdict(release.contract)], sort_keys=True).encode())
    total.update(release.key or b"")
    return total.hexdigest()


def _unchanged(rows: _Source, album: Path | None, progress: Progress | None, parts: Parts) -> bool:
    """Whether the parts that are done were made of the rows as they are now: these are read again."""
    hashes: list[str] = []
    row = number = left_out = 0
    with closing(rows.batches(0)) as batches:
        for batch in batches:
            if number == parts.done:
                break
            hashes.append(_hash(batch, album))
            row, left_out = row + len(batch.names) + len(batch.skipped), left_out + len(batch.skipped)
            if row % parts.each == 0 or row == rows.count:
                if _joined(hashes) != parts.read(number).source:
                    return False
                hashes, number = [], number + 1
            if progress is not None:
                progress(row - left_out, rows.count, left_out)
    return True


def _hash(batch: _Batch, album: Path | None) -> str:
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


# -- from batches to parts --------------------------------------------------------------------------------------------


def _write_parts(released: Callable[[_Batch], Part], rows: _Source, parts: Parts, progress: Progress | None) -> None:
    """Writes the parts that are missing. While batches are released the next is read, and the last part is written."""
    done, left_out = parts.totals()
    row = parts.done * parts.each
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
            if row % parts.each == 0 or row == rows.count:
                if written is not None:
                    written.result()
                written = writer.submit(parts.write, (row - 1) // parts.each, _together(held))
                held = []
            done, left_out = done + len(part.names), left_out + len(part.skipped)
            if progress is not None:
                progress(done, rows.count, left_out)
        if written is not None:
            written.result()


def _released(release: Release, choices: Choices | None, batch: _Batch) -> Part:
    values = np.empty((0, release.contract.k), np.float32)
    if len(batch.names):
        hide = None if choices is None else choices.of(batch.paths)
        values = flat(release.transform(batch.x, told=batch.told or None, hide=hide))
    return Part(names=batch.names, values=values, skipped=batch.skipped, source=_hash(batch, None))


def _together(parts: Sequence[Part]) -> Part:
    return Part(
        names=pa.concat_arrays([part.names for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        skipped=[skipped for part in parts for skipped in part.skipped],
        source=_joined([part.source for part in parts]),
    )


# -- image files ------------------------------------------------------------------------------------------------------


def _write_images(
    release: Release,
    source: Path,
    rows: _Source,
    out: Path,
    parts: Parts,
    landmarks: Landmarks | None,
    choices: Choices | None,
    progress: Progress | None,
    *,
    same: bool,
) -> None:
    """Writes the image files that are missing, and parts that say which are whole, by their sizes in bytes.

    ``same``: nothing is written, as the files must be there, and hold what they would be made to hold.
    """
    each = parts.each

    def whole(number: int) -> bool:
        part = parts.read(number)
        sizes = dict(zip(part.names.to_pylist(), part.values[:, 0], strict=True))
        named = ((clean(name), out / name) for name, _ in rows.found[number * each : (number + 1) * each])
        return all(_size(path) == sizes[name] for name, path in named if name in sizes)

    parts.done = next((i for i in range(parts.done) if not whole(i)), parts.done)
    try:
        _write_parts(partial(_redrawn, release, source, out, parts, landmarks, choices, same), rows, parts, progress)
    except InputError:
        if same:
            parts.done = 0  # of which nothing is to be kept
        raise


def _size(path: Path) -> np.float32:
    """A file's size as parts hold it, which tells a file that was cut off; -1 where there is none."""
    try:
        return np.float32(path.stat().st_size)
    except OSError:
        return np.float32(-1)


def _redrawn(
    release: Release,
    source: Path,
    out: Path,
    parts: Parts,
    landmarks: Landmarks | None,
    choices: Choices | None,
    same: bool,
    batch: _Batch,
) -> Part:
    """Writes the image files of a batch; the part's values are their sizes."""
    names: list[str] = []
    sizes: list[int] = []
    skipped = list(batch.skipped)
    hide = None if choices is None else choices.of(batch.paths)
    pixels = release.transform(batch.x, hide=hide) if len(batch.names) else ()
    for name, path, image in zip(batch.names.to_pylist(), batch.paths, pixels, strict=True):
        try:
            form, upright = decode.header(decode.read(source / path))
            eyes = None if landmarks is None else landmarks.of(name)[0]
            data = outputs.encode(image, form, _extent(release, eyes, *upright))
        except (decode.DecodeError, ValueError) as error:
            skipped.append((name, str(error)))
            continue
        if same and not outputs.holds(out / path, data):
            raise InputError(f"{out / path}: is not what this run gives, and stands there or is missing; force, or "
                             "choose another folder")  # fmt: skip
        if not same:
            parts.keep = True
            outputs.place(out / path, data)
        names.append(name)
        sizes.append(len(data))
    return Part(
        names=pa.array(names, pa.string()), values=np.array(sizes, np.float32)[:, None], skipped=skipped,
        source=_hash(batch, source),
    )  # fmt: skip


def _extent(release: Release, eyes: decode.Eyes | None, width: int, height: int) -> tuple[int, int]:
    """Width and height, in pixels of its file, of the part of an image that is released."""
    if eyes is not None:
        side = min(max(1, round(eyes.side)), width, height)
        return side, side
    left, top, right, bottom = release.contract.crop or (0, 0, 1, 1)
    return max(1, round((right - left) * width)), max(1, round((bottom - top) * height))


# -- sources ----------------------------------------------------------------------------------------------------------


def _from_pack(release: Release, pack: Pack, source: Path, told: Sequence[str], row_numbers: bool) -> _Source:
    _check_shape(release, source, tuple(pack.x.shape[1:]))
    order: Any = slice(None)  # of a row's values
    if (columns := pack.framing["columns"]) and set(columns) == set(release.contract.columns):
        order = [columns.index(name) for name in release.contract.columns]
    else:
        release.contract.check_framing(pack, str(source))
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
            paths = [str(source) for source in pack.sources[start:end]] if pack.kind == "images" else []
            x = np.ascontiguousarray(pack.x[start:end][:, order])
            yield _Batch(names=pa.array(names, pa.string()), x=x, told=codes, paths=paths)

    unsure = _unnamed(release, source) if not columns else ()
    return _Source(count=len(pack), fingerprint=pack.fingerprint, times="", batches=batches, warnings=unsure)


def _unnamed(release: Release, source: Path) -> tuple[str, ...]:
    """A warning where only the release names the columns that vectors stood in."""
    if not release.contract.columns:
        return ()
    names = few(release.contract.columns)
    return (f"{source.name} does not name the columns of its vectors; their values are taken in the order {names}.",)


def _from_images(
    release: Release, source: Path, row_numbers: bool, landmarks: Landmarks | None, *, named: bool
) -> _Source:
    """Images of a folder, decoded as the training pack was; a file of labels beside them is of no concern."""
    c = release.contract
    _check_kind(release, source, "images")
    found, aside = walk(source)
    uprights: list[tuple[int, int]] = []

    def items(first: int) -> Iterator[Item]:
        for number, (name, problem) in enumerate(found[first:], first):
            eyes, lost = (None, "") if landmarks is None else landmarks.of(clean(name))
            label = str(number) if row_numbers else clean(name)
            yield Item(label, None if problem else source / name, problem=problem or lost, eyes=eyes)

    def batches(first: int) -> Generator[_Batch, None, None]:
        with closing(build.arrays(items(first), c.shape[0], 3 if len(c.shape) == 3 else 1, c.crop)) as decoded:
            row = first
            while some := list(islice(decoded, BATCH["images"])):
                good = [(item.source, array) for item, array, _ in some if array is not None]
                uprights.extend(item.upright for item, _, _ in some if item.upright is not None)
                skipped = [(item.source, reason) for item, array, reason in some if array is None]
                if skipped and not named:
                    _refuse_gap(source, *skipped[0])
                yield _Batch(
                    names=pa.array([name for name, _ in good], pa.string()),
                    x=np.stack([array for _, array in good]) if good else np.empty((0, *c.shape), np.uint8),
                    skipped=skipped,
                    paths=[found[i][0] for i, (_, array, _) in enumerate(some, row) if array is not None],
                )
                row += len(some)

    sizes, times = hashlib.sha256(), hashlib.sha256()
    for name, _ in found:
        with suppress(OSError):  # a link to nothing is a row that is skipped
            stat = (source / name).stat()
            sizes.update(f"{name!r} {stat.st_size}\n".encode())
            times.update(f"{stat.st_mtime_ns}\n".encode())
    return _Source(
        count=len(found), fingerprint=sizes.hexdigest(), times=times.hexdigest(), batches=batches, found=found,
        uprights=uprights, notes=aside.notes(),
    )  # fmt: skip


def _from_vectors(
    release: Release, source: Path, column: str | None, told: Sequence[str], row_numbers: bool, *, named: bool
) -> _Source:
    _check_kind(release, source, "vectors")
    file = open_vectors(source, column, dimensions=release.contract.columns, named=not row_numbers)
    _check_shape(release, source, (file.width,))
    columns = {nfc(name).strip(): name for name in file.others}
    for name in told:
        if name not in columns:
            raise InputError(
                f"{source}: has no column {name!r} that tells a class; it has {few(file.others) or 'none'}"
            )
    if not row_numbers and (twice := file.repeated()) is not None:
        raise InputError(f"{source}: {twice!r} stands in {file.key} more than once; name rows by their numbers instead")

    def batches(first: int) -> Generator[_Batch, None, None]:
        tell = [columns[name] for name in told]
        for block in file.blocks(first, BATCH["vectors"], named=not row_numbers, columns=tell):
            values = {name: kinds.usual(block.columns[columns[name]]).to_pylist() for name in told}
            codes = {name: _codes(release, source, name, values[name], block.start) for name in told}
            if not block.problems:
                yield _Batch(names=block.names, x=block.vectors, told=codes)
                continue
            skipped = [(block.names[row].as_py(), reason) for row, reason in block.problems.items()]
            if not named:
                name, reason = skipped[0]
                _refuse_gap(source, f"row {name}", f"has {reason}")
            good = np.setdiff1d(np.arange(len(block.vectors)), list(block.problems))
            yield _Batch(
                names=block.names.take(pa.array(good)),
                x=block.vectors[good],
                told={name: each[good] for name, each in codes.items()},
                skipped=skipped,
            )

    times = str(source.stat().st_mtime_ns)
    return _Source(
        count=file.n, fingerprint=_stamp(source), times=times, batches=batches, columns=file.form == "columns",
        notes=[file.note] if file.note else (), warnings=() if file.dimensions else _unnamed(release, source),
    )  # fmt: skip


def _refuse_gap(source: Path, name: str, reason: str) -> NoReturn:
    raise InputError(f"{source}: {name} {reason}; an npy file cannot tell that it is left out")


def _stamp(path: Path) -> str:
    """Changes with a file's size, and what it holds at its ends (Parquet's is about all of it)."""
    size = path.stat().st_size
    total = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in (0, max(0, size - _END)):
            file.seek(start)
            total.update(file.read(_END))
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


# -- packs of releases ------------------------------------------------------------------------------------------------


def _write_pack(
    pack: Pack,
    parts: Parts,
    out: Path,
    *,
    image: tuple[int, ...] | None,
    row_numbers: bool,
    force: bool,
    same: bool,
) -> None:
    """The pack with its releases in place of the inputs, images where they are; labels, splits and pairs stay.

    ``same``: a pack that is there must be the same.
    """

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
    lost = pack.meta.get("warnings", ())
    listing = Listing(
        items=items(), count=len(pack), attributes=tuple(pack.labels), kind="vectors" if image is None else "images",
        pairs=pairs, notes=notes, warnings=lost,
    )  # fmt: skip
    write = partial(
        build.write, listing, layout=str(pack.meta.get("layout")), seed=int(pack.meta.get("seed", 0)),
        size=image[0] if image else 0, channels=3 if image and len(image) == 3 else 1,
        disjoint=pack.meta.get("disjoint_by") is not None,
    )  # fmt: skip
    if not same:
        write(out, force=force)
        return
    with files.staged(out) as hidden:
        if write(hidden / "pack").fingerprint != Pack.open(out).fingerprint:
            raise InputError(outputs.OTHER.format(out))


# -- strangers' vectors -----------------------------------------------------------------------------------------------


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
    by_name = _places(file, {plain(str(name)): row for row, name in enumerate(pack.sources)})
    by_number = _places(file, {str(row): row for row in range(len(pack))})
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
    places = by_number if len(missing) or (numbered and not file.key) else by_name
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
    """For each row of a file where the index has its name, as names are compared, -1 where it has not."""
    return np.fromiter((index.get(plain(name), -1) for name in file.names()), np.int64, file.n)
