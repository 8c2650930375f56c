"""The packer: streams a listing through parallel decoders into a pack's folder that appears whole or not at all."""

from __future__ import annotations

import array
import csv
import errno
import itertools
import json
import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from veil import files
from veil._version import __version__
from veil.data import decode, framing, splits
from veil.data.classes import class_name, few
from veil.data.columns import plain
from veil.data.csvfile import cell
from veil.data.decode import Box
from veil.data.landmarks import Landmarks, read_landmarks
from veil.data.layouts import LAYOUTS
from veil.data.layouts.listing import LOSS, Item, Listing, Options, Pair, Remarks, check_utf8, clean
from veil.data.pack import SPLITS, Pack
from veil.data.packfile import CHECKED, RESERVED, SCHEMA, sha256, write_checked
from veil.errors import InputError, checked_seed, printable, printable_json

Progress = Callable[[int, int | None, int], None]
"""Called with the rows done (packed or skipped), the rows expected (or None) and the rows skipped."""

Decoded = tuple[Item, NDArray[Any] | None, str]
"""An item without its data, its array, or None and the reason."""

CHUNK_ITEMS = 32
CHUNK_BYTES = 8 * 2**20
SOURCES_AT_ONCE = 2**16


def pack(
    layout: str,
    source: str | Path,
    out: str | Path,
    *,
    size: int = 64,
    channels: int = 1,
    labels: str | Path | None = None,
    seed: int = 0,
    crop: Box | None = None,
    landmarks: str | Path | None = None,
    fractions: Sequence[float] = splits.FRACTIONS,
    force: bool = False,
    progress: Progress | None = None,
    disjoint: bool = True,
    jobs: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Pack:
    """Packs a data set.

    Args:
        layout: A name in ``veil.data.layouts.LAYOUTS``.
        source: The data set, as that layout describes it.
        out: The folder to make.
        size: Side of the square images, in pixels.
        channels: 1 (grey) or 3 (RGB).
        labels: A CSV or Parquet file of labels, where the layout takes one.
        seed: Of the splits, and of layouts that draw their images.
        crop: Left, top, right, bottom as fractions of the upright image; None for the layout's own, or the images' own.
        landmarks: A CSV file that says where the eyes are (:mod:`veil.data.landmarks`), in place of a crop: each image
            is turned, scaled and shifted so that they lie at :data:`veil.data.decode.EYES`. Images without a row are
            skipped.
        fractions: Share of the rows per split, where the data set prescribes no splits.
        force: Whether to replace a pack that is there already.
        progress: Told about every few rows.
        disjoint: Whether no identity may straddle two splits; False where identity is itself the private attribute.
        jobs: Threads that decode; None for as many as there are processors.
        settings: The layout's own settings.

    Raises:
        InputError: The source or an option does not fit, a file is malformed, nothing could be packed, or the target
            cannot be written.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r}: must be one of {', '.join(LAYOUTS)}")
    if not 8 <= size <= 1024:
        raise InputError(f"size {size}: must lie in 8..1024")
    if channels not in (1, 3):
        raise InputError(f"channels {channels}: must be 1 (grey) or 3 (RGB)")
    seed = checked_seed(seed)
    files.sweep(Path(out))
    _check_target(Path(out), force)
    options = Options(
        size=size,
        channels=channels,
        labels=None if labels is None else Path(labels),
        seed=seed,
        settings=settings or {},
    )
    listing = LAYOUTS[layout](Path(source), options)
    return write(
        listing,
        out,
        layout=layout,
        size=size,
        channels=channels,
        seed=seed,
        crop=crop,
        landmarks=landmarks,
        fractions=fractions,
        force=force,
        progress=progress,
        disjoint=disjoint,
        jobs=jobs,
    )


def write(
    listing: Listing,
    out: str | Path,
    *,
    layout: str,
    size: int = 64,
    channels: int = 1,
    seed: int = 0,
    crop: Box | None = None,
    landmarks: str | Path | None = None,
    fractions: Sequence[float] = splits.FRACTIONS,
    force: bool = False,
    progress: Progress | None = None,
    disjoint: bool = True,
    jobs: int | None = None,
) -> Pack:
    """Writes a listing's items as a pack; arguments as for :func:`pack`, ``layout`` a name for ``pack.json``.

    Everything is written into a folder beside ``out`` that takes its name when it is whole and on the disk. On any
    failure, an interruption included, that folder is removed and ``out`` is as it was.

    Raises:
        InputError: As for :func:`pack`.
    """
    out, seed = Path(out), checked_seed(seed)
    _check_target(out, force)
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs {jobs}: must be at least 1")
    splits.check_fractions(fractions)
    if crop is not None and landmarks is not None:
        raise InputError(f"landmarks: a face is aligned or cropped, got {landmarks} and the crop {tuple(crop)}")
    box, eyes = listing.crop, None
    used: set[str] = set()
    if crop is not None:
        box = decode.check_crop(crop)
        listing = replace(listing, items=(replace(item, crop=None) for item in listing.items))
    elif landmarks is not None:
        box, eyes = None, read_landmarks(landmarks)
        listing = replace(listing, items=_with_eyes(listing, eyes, used))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with files.staged(out) as hidden:
            folder = hidden / "new"
            folder.mkdir()
            rows = _write_rows(listing, folder, size, channels, box, jobs, progress)
            meta = {
                "schema": SCHEMA,
                "veil": __version__,
                "layout": layout,
                "kind": listing.kind,
                "shape": list(rows.shape),
                "size": size if listing.kind == "images" else None,
                "channels": channels if listing.kind == "images" else None,
                "crop": list(box) if box is not None and listing.kind == "images" else None,
                "pictures": framing.described(np.array(rows.uprights).reshape(-1, 2)) if rows.uprights else None,
                "aligned": None if eyes is None else [list(place) for place in decode.EYES],
                "decoder": dict(decode.VERSIONS) if listing.kind == "images" else None,
                "seed": seed,
                "disjoint_by": "identity" if disjoint and "identity" in rows.labels else None,
                "skipped": rows.skipped,
                "columns": list(listing.columns),
            }
            split, prescribed = _split(rows, seed, fractions, disjoint)
            meta["fractions"] = None if prescribed else list(fractions)
            meta["splits"] = {name: int(np.sum(split == code)) for code, name in enumerate(SPLITS)}
            meta["classes"] = _write_labels(folder, rows, split)
            _write_pairs(folder, rows, listing.pairs)
            if listing.kind == "vectors":
                rows.remarks.notes.extend(_off_centre(folder / "vectors.npy"))
            if eyes is not None and len(used) < len(eyes.eyes):
                rows.remarks.notes.append(f"{len(eyes.eyes) - len(used)} rows of {eyes.path.name!r} name no image.")
            meta["warnings"] = [printable(clean(warning)) for warning in (*listing.warnings, *rows.remarks.warnings)]
            meta["notes"] = [printable(clean(note)) for note in (*listing.notes, *rows.remarks.notes)]
            names = sorted(path.name for path in folder.iterdir() if path.name != "skipped.csv")
            seen = {
                n: [(folder / n).stat().st_size, (folder / n).stat().st_mtime_ns, sha256(folder / n)] for n in names
            }
            meta["files"] = {n: {"bytes": size, "sha256": digest} for n, (size, _, digest) in seen.items()}
            text = printable_json(json.dumps(meta, indent=1, ensure_ascii=False))
            (folder / "pack.json").write_text(text + "\n", "utf-8")
            write_checked(folder, seen)
            _check_target(out, force)  # again: what was made there meanwhile is somebody's
            files.publish(folder, out)
    except OSError as error:
        words = "no space is left on its disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise InputError(f"{out}: the pack cannot be written: {words}; nothing was left behind") from None
    return Pack.open(out)


def arrays(
    items: Iterator[Item], size: int, channels: int, crop: Box | None = None, jobs: int | None = None
) -> Generator[Decoded, None, None]:
    """Decodes items in threads, in order, with a bounded number under way.

    Yields:
        The item (its data dropped), its array, and "" — or the item, None, and why it cannot be used.
    """
    jobs = jobs or os.cpu_count() or 1

    def work(chunk: list[Item]) -> list[Decoded]:
        return [_decode_item(item, size, channels, crop) for item in chunk]

    waiting: deque[Future[list[Decoded]]] = deque()
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="decode")
    try:
        for chunk in _chunks(items):
            waiting.append(pool.submit(work, chunk))
            while len(waiting) > 2 * jobs:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _with_eyes(listing: Listing, landmarks: Landmarks, used: set[str]) -> Iterator[Item]:
    """The items with their eyes in place of a crop, those without a row with that as their problem; fills ``used``."""
    for item in listing.items:
        if isinstance(item.data, np.ndarray):
            raise InputError(
                f"landmarks {landmarks.path}: only encoded images are aligned, and {item.source!r} is an array"
            )
        eyes, problem = landmarks.of(item.source)
        if eyes is not None:
            used.add(plain(item.source))
        yield replace(item, crop=None, eyes=eyes, problem=item.problem or problem)


def _chunks(items: Iterator[Item]) -> Iterator[list[Item]]:
    """Items in lists small enough, in number and in bytes, to have some of them in memory at once."""
    chunk: list[Item] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += len(item.data) if isinstance(item.data, bytes) else 0
        if len(chunk) == CHUNK_ITEMS or held > CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _decode_item(item: Item, size: int, channels: int, crop: Box | None) -> Decoded:
    light = Item(item.source, None, item.labels, item.split, item.problem)
    data = item.data
    if item.problem:
        return light, None, item.problem
    if isinstance(data, np.ndarray):
        if crop is not None:
            raise InputError(f"crop {crop}: only encoded images are cropped, and {item.source!r} is an array")
        return light, data, ""
    assert data is not None, f"{item.source}: neither data nor a problem"
    try:
        encoded = decode.read(data) if isinstance(data, Path) else data
        pixels = decode.decode(encoded, size, channels, item.crop or crop, item.eyes)
        if item.crop is None and item.eyes is None:
            light = replace(light, upright=decode.header(encoded)[1])
        return light, pixels, ""
    except decode.DecodeError as error:
        return light, None, str(error)


@dataclass
class _Rows:
    """What the rows that were packed have besides their pixels; a few bytes per row."""

    attributes: tuple[str, ...]
    shape: tuple[int, ...] = ()
    sources: list[pa.Array] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    labels: dict[str, array.array[int]] = field(default_factory=dict)
    codes: dict[str, dict[str, int]] = field(default_factory=dict)
    skipped: int = 0
    remarks: Remarks = field(default_factory=Remarks)
    uprights: array.array[int] = field(default_factory=lambda: array.array("i"))
    _names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in self.attributes:
            if name in RESERVED:
                raise InputError(f"label name {name!r}: {' and '.join(RESERVED)} are not free for labels")
        self.labels = {name: array.array("i") for name in self.attributes}
        self.codes = {name: {} for name in self.attributes}

    def add(self, item: Item) -> None:
        self._names.append(item.source)
        self.uprights.extend(item.upright or ())
        if len(self._names) == SOURCES_AT_ONCE:
            self.flush()
        self.splits.append(item.split)
        assert item.labels.keys() <= self.labels.keys(), f"{item.source}: labels {item.labels.keys()} not announced"
        for name, codes in self.labels.items():
            value = class_name(item.labels.get(name))
            known = self.codes[name]
            codes.append(-1 if value is None else known.setdefault(value, len(known)))

    def flush(self) -> None:
        self.sources.append(pa.array(self._names, pa.string()))
        self._names = []


_FAR, _SEVERAL = 0.25, 32
"""Mean cosine of two rows from which on vectors are said to be far from centred: of matchers that compare by the cosine
it is about 0, of others .5 and more; and rows, of which fewer may have any by chance."""


def _write_rows(
    listing: Listing,
    folder: Path,
    size: int,
    channels: int,
    crop: Box | None,
    jobs: int | None,
    progress: Progress | None,
) -> _Rows:
    """Writes the array and ``skipped.csv``; returns what is known of the rows packed."""
    rows = _Rows(listing.attributes)
    images = listing.kind == "images"
    shape: tuple[int, ...] | None = ((size, size) if channels == 1 else (size, size, 3)) if images else None
    dtype = np.dtype(np.uint8 if images else np.float32)
    n, reason, first = 0, "", ""
    target = folder / ("images.npy" if images else "vectors.npy")
    with (
        target.open("wb") as file,
        (folder / "skipped.csv").open("w", encoding="utf-8", newline="") as skipped,
        warnings.catch_warnings(),
    ):
        # Pillow warns of oddities (damaged Exif, say) in images that it decodes; what it cannot decode is listed.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        table = csv.writer(skipped)
        table.writerow(["source", "reason"])
        decoded = arrays(listing.items, size, channels, crop, jobs)
        try:
            for done, (item, data, problem) in enumerate(decoded, 1):
                if data is None:
                    rows.skipped += 1
                    first, reason = first or item.source, reason or problem
                    table.writerow([cell(item.source), cell(problem)])
                else:
                    if shape is None:
                        shape = data.shape
                    if n == 0:
                        start = _header(file, (0, *shape), dtype)
                    assert (data.shape, data.dtype) == (shape, dtype), f"{item.source}: {data.dtype} {data.shape}"
                    file.write(np.ascontiguousarray(data).data)
                    rows.add(item)
                    n += 1
                if progress is not None and done % CHUNK_ITEMS == 0:
                    progress(done, listing.count, rows.skipped)
        finally:
            # Closing the generator ends its threads before their files' folder is removed.
            decoded.close()
        if n == 0:
            raise InputError(
                f"nothing could be packed: {rows.skipped} skipped, the first {first!r}: {reason}"
                if rows.skipped
                else " ".join(["nothing could be packed: the source holds no images or vectors.", *listing.notes])
            )
        assert shape is not None
        rows.shape = (n, *shape)
        file.seek(0)
        assert _header(file, rows.shape, dtype) == start, "the header of the array grew"
    rows.flush()
    if rows.skipped >= LOSS * (n + rows.skipped):
        rows.remarks.warnings.append(f"{rows.skipped} of {n + rows.skipped} were skipped; skipped.csv says why.")
    if progress is not None:
        progress(n + rows.skipped, n + rows.skipped, rows.skipped)
    return rows


def _off_centre(path: Path) -> list[str]:
    """A note where vectors lie far from around 0, so that the cosine of any two of them is large."""
    x = np.load(path, mmap_mode="r")
    total = np.zeros(x.shape[1])
    for start in range(0, len(x), 4096):
        block = np.asarray(x[start : start + 4096], np.float64)
        block /= np.maximum(np.abs(block).max(1, keepdims=True), 1e-60)  # or squares were infinite
        total += (block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-30)).sum(0)  # rows may be 0
    n = len(x)
    cosine = (total @ total - n) / max(n * (n - 1), 1)
    if n < _SEVERAL or cosine < _FAR:
        return []
    return [
        f"Vectors are far from centred: two of them have a cosine of {cosine:.2f} in the mean (0 around 0). Compare "
        "them by distance, or by the cosine after their mean is taken away; Veil's methods and audits do."
    ]


def _header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Writes a .npy header, in which NumPy leaves room for the first axis to grow; returns where the data begin."""
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": descr})
    return file.tell()


def _split(rows: _Rows, seed: int, fractions: Sequence[float], disjoint: bool) -> tuple[NDArray[np.int8], bool]:
    """The splits, and whether the data set prescribes them."""
    n = rows.shape[0]
    identity = np.array(_ranked(rows, "identity")[0] if "identity" in rows.labels else np.full(n, -1))
    given = sum(split is not None for split in rows.splits)
    if given == 0:
        return splits.assign(identity if disjoint else None, seed, fractions, n=n), False
    if given < n:
        raise InputError(f"split: given for {given} of {n} rows; give it for all of them or for none")
    split = splits.parse([s for s in rows.splits if s is not None])
    if disjoint:
        order = np.lexsort((split, identity))
        same = (np.diff(identity[order]) == 0) & (np.diff(split[order]) != 0) & (identity[order][1:] >= 0)
        if np.any(same):
            row = order[int(np.argmax(same))]
            name = _ranked(rows, "identity")[1][identity[row]]
            raise InputError(
                f"split: identity {name!r} stands in several splits ({int(same.sum())} such cases); "
                "splits must be disjoint by identity unless identity is itself the private attribute"
            )
    return split, True


def _ranked(rows: _Rows, name: str) -> tuple[NDArray[np.int32], list[str]]:
    """A label's codes into its sorted class names (codes are given in the order of appearance at first)."""
    classes = sorted(rows.codes[name])
    rank = np.full(len(classes) + 1, -1, np.int32)  # the last entry serves code -1
    for place, word in enumerate(classes):
        rank[rows.codes[name][word]] = place
    return rank[np.array(rows.labels[name], np.int32)], classes


def _write_labels(folder: Path, rows: _Rows, split: NDArray[np.int8]) -> dict[str, list[str]]:
    """Writes ``labels.parquet``; returns the class names of each label."""
    source = pa.chunked_array(rows.sources, pa.string())
    counts = source.value_counts()
    if len(counts) < len(source):
        twice = next(c["values"].as_py() for c in counts if c["counts"].as_py() > 1)
        raise InputError(f"source {twice!r} stands in the data set more than once; sources must be unique")
    columns: dict[str, Any] = {"source": source}
    columns["split"] = pa.DictionaryArray.from_arrays(pa.array(split.astype(np.int32)), pa.array(SPLITS))
    classes = {}
    for name in rows.attributes:
        codes, classes[name] = _ranked(rows, name)
        indices = pa.array(codes, pa.int32(), mask=codes < 0)
        columns[name] = pa.DictionaryArray.from_arrays(indices, pa.array(classes[name], pa.string()))
        unknown = int(np.sum(codes < 0))
        rows.remarks.lost(f"{name} is unknown in {unknown} of {len(codes)} rows.", unknown, len(codes))
    pq.write_table(pa.table(columns), folder / "labels.parquet", compression="zstd")
    return classes


def _write_pairs(folder: Path, rows: _Rows, pairs: list[Pair] | None) -> None:
    """Writes ``pairs.npy`` as row numbers; notes how many pairs are lost."""
    if not pairs:
        return
    paired = [(plain(a), plain(b), same, fold) for a, b, same, fold in pairs]
    wanted = set(itertools.chain.from_iterable(pair[:2] for pair in paired))
    names = map(plain, itertools.chain.from_iterable(chunk.to_pylist() for chunk in rows.sources))
    row = {name: i for i, name in enumerate(names) if name in wanted}
    table = [(row[a], row[b], int(same), fold) for a, b, same, fold in paired if a in row and b in row]
    np.save(folder / "pairs.npy", np.array(table, np.int64).reshape(-1, 4))
    lost = len(pairs) - len(table)
    if lost:
        missing = few([repr(name) for name in sorted(wanted - row.keys())], 3)
        rows.remarks.lost(
            f"{lost} of {len(pairs)} pairs name images that are not in the pack: {missing}.", lost, len(pairs)
        )


_FILES = {"pack.json", CHECKED, "images.npy", "vectors.npy", "labels.parquet", "pairs.npy", "skipped.csv"}


def _check_target(out: Path, force: bool) -> None:
    """Refuses a target that exists, unless it is a pack and ``force`` is given."""
    if out.is_symlink() or out.exists():
        if not force:
            raise InputError(f"{out}: already exists; choose another name or force")
        if not (out.is_dir() and not out.is_symlink() and (out / "pack.json").is_file()):
            raise InputError(f"{out}: is not a pack, and only a pack is replaced by force")
        if strange := sorted({path.name for path in out.iterdir()} - _FILES):
            raise InputError(
                f"{out}: holds what is no part of a pack and would be lost ({few(strange, 2)}); move it away"
            )
    if not out.name or out.name == "..":
        raise InputError(f"{out}: not a name for a folder")
    check_utf8(out, "the name of a pack")
