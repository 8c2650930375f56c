"""The packer: streams a listing through parallel decoders into a pack's folder that appears whole or not at all."""

from __future__ import annotations

import csv
import errno
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil import files
from veil._version import __version__
from veil.data import decode, framing, splits
from veil.data.about import sheet
from veil.data.classes import few
from veil.data.columns import plain
from veil.data.csvfile import cell
from veil.data.decode import Box
from veil.data.decoding import CHUNK_ITEMS, arrays
from veil.data.faces import Detector, EyeFinder
from veil.data.landmarks import PLACES, Landmarks, read_landmarks
from veil.data.layouts import LAYOUTS
from veil.data.layouts.listing import LOSS, Item, Listing, Options, check_utf8, clean
from veil.data.pack import SPLITS, Pack
from veil.data.packfile import CHECKED, SCHEMA, seal
from veil.data.rows import Rows, split_of, write_labels, write_pairs
from veil.errors import InputError, check_type, check_whole, checked_jobs, checked_path, checked_seed, printable

Progress = Callable[[int, int | None, int], None]
"""Called with the rows done (packed or skipped), the rows expected (or None) and the rows skipped."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a pack is to hold; raises InputError for what cannot be.

    Attributes:
        size: Side of the square images, in pixels.
        channels: 1 (grey) or 3 (RGB).
        crop: Left, top, right, bottom as fractions of the upright image; None for the layout's own, or the images' own.
        landmarks: A CSV file that says where the eyes are (:mod:`veil.data.landmarks`), in place of a crop: each image
            is turned, scaled and shifted so that they lie at :data:`veil.data.decode.EYES`. Images without a row are
            skipped.
        faces: In place of both: each image is aligned by the eyes of its largest face, which the bundled detector finds
            (the extra ``faces``), or one of your own (:class:`veil.data.faces.Detector`). Images without a face are
            skipped.
        all_faces: Whether each face that is found becomes a row, ``NAME#1`` for the largest of its image and so on, in
            place of the largest alone. Labels of an image are those of its largest face. Where splits are drawn, the
            faces of an image stay in one, with the person that is known of them.
        seed: Of the splits, and of layouts that draw their images.
        fractions: Share of the rows per split, where the data set prescribes no splits.
        disjoint: Whether no identity may straddle two splits; False where identity is itself the private attribute.
        about: A data sheet (:mod:`veil.data.about`): a TOML or JSON file, or texts by the names of its fields.
    """

    size: int = 64
    channels: int = 1
    crop: Box | None = None
    landmarks: str | Path | None = None
    faces: bool | Detector = False
    all_faces: bool = False
    seed: int = 0
    fractions: Sequence[float] = splits.FRACTIONS
    disjoint: bool = True
    about: str | Path | Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        check_whole("size", self.size)
        check_whole("channels", self.channels)
        if self.crop is not None:
            decode.check_crop(self.crop)
        if self.landmarks is not None:
            checked_path("landmarks", self.landmarks)
        if self.crop is not None and self.landmarks is not None:
            raise InputError(
                f"landmarks: a face is aligned or cropped, got {self.landmarks} and the crop {tuple(self.crop)}"
            )
        if self.faces and (self.crop is not None or self.landmarks is not None):
            other = f"the crop {tuple(self.crop)}" if self.crop is not None else self.landmarks
            raise InputError(f"faces: are found, cropped or told by landmarks, got {other}, too")
        if self.all_faces and not self.faces:
            raise InputError("all_faces: are those that are found, so faces must be asked for, too")
        splits.check_fractions(self.fractions)
        object.__setattr__(self, "seed", checked_seed(self.seed))
        object.__setattr__(self, "about", sheet(self.about))

    def eyes(self, jobs: int | None) -> Landmarks | EyeFinder | None:
        """What tells where eyes are; None where faces are not aligned by them."""
        if self.landmarks is not None:
            return read_landmarks(self.landmarks)
        return EyeFinder(self.faces, jobs, every=self.all_faces) if self.faces else None


def pack(
    layout: str,
    source: str | Path,
    out: str | Path,
    *,
    labels: str | Path | None = None,
    settings: Mapping[str, str] | None = None,
    jobs: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    **asked: Any,
) -> Pack:
    """Packs a data set.

    Args:
        layout: A name in ``veil.data.layouts.LAYOUTS``.
        source: The data set, as that layout describes it.
        out: The folder to make.
        labels: A CSV or Parquet file of labels, where the layout takes one.
        settings: The layout's own settings.
        jobs: Threads that decode; None for as many as there are processors.
        force: Whether to replace a pack that is there already.
        progress: Told about every few rows.
        **asked: Attributes of :class:`Plan`: ``size``, ``channels``, ``crop``, ``landmarks``, ``faces``,
            ``all_faces``, ``seed``, ``fractions``, ``disjoint``, ``about``.

    Raises:
        InputError: The source or an option does not fit, a file is malformed, nothing could be packed, or the target
            cannot be written.
    """
    check_type("layout", layout, str, f"one of {', '.join(LAYOUTS)}")
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r}: must be one of {', '.join(LAYOUTS)}")
    source, out = checked_path("source", source), checked_path("out", out)
    check_type("settings", {} if settings is None else settings, Mapping, "values by name")
    plan = Plan(**asked)
    if not 8 <= plan.size <= 1024:
        raise InputError(f"size {plan.size}: must lie in 8..1024")
    if plan.channels not in (1, 3):
        raise InputError(f"channels {plan.channels}: must be 1 (grey) or 3 (RGB)")
    files.sweep(out)
    check_target(out, force)
    options = Options(
        size=plan.size,
        channels=plan.channels,
        labels=None if labels is None else checked_path("labels", labels),
        seed=plan.seed,
        settings=settings or {},
    )
    listing = LAYOUTS[layout](source, options)
    return write(listing, out, layout=layout, plan=plan, jobs=jobs, force=force, progress=progress)


def write(
    listing: Listing,
    out: str | Path,
    *,
    layout: str,
    plan: Plan | None = None,
    jobs: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Pack:
    """Writes a listing's items as a pack; arguments as for :func:`pack`, ``layout`` a name for ``pack.json``.

    Everything is written into a folder beside ``out`` that takes its name when it is whole and on the disk. On any
    failure, an interruption included, that folder is removed and ``out`` is as it was.

    Raises:
        InputError: As for :func:`pack`.
    """
    out, plan = Path(out), plan or Plan()
    check_target(out, force)
    checked_jobs(jobs)
    eyes = plan.eyes(jobs)
    used: set[str] = set()
    if plan.crop is not None:
        items = (replace(item, crop=None) for item in listing.items)
        listing = replace(listing, items=items, crop=plan.crop)
    elif eyes is not None:
        listing = replace(listing, items=_noted(eyes.through(listing.items), used), crop=None)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with files.staged(out) as hidden:
            folder = hidden / "new"
            folder.mkdir()
            rows = _write_items(listing, folder, plan, jobs, progress)
            split, prescribed = split_of(rows, plan.seed, plan.fractions, plan.disjoint, plan.all_faces)
            held = {
                "fractions": None if prescribed else list(plan.fractions),
                "splits": {name: int(np.sum(split == code)) for code, name in enumerate(SPLITS)},
                "classes": write_labels(folder, rows, split),
            }
            write_pairs(folder, rows, listing.pairs)
            if listing.kind == "vectors":
                rows.remarks.notes.extend(_off_centre(folder / "vectors.npy"))
            if isinstance(eyes, EyeFinder):
                _write_faces(folder / FACES, eyes)
            elif eyes is not None and len(used) < len(eyes.eyes):
                rows.remarks.notes.append(f"{len(eyes.eyes) - len(used)} rows of {eyes.path.name!r} name no image.")
            remarks = {
                "warnings": [*listing.warnings, *rows.remarks.warnings],
                "notes": [*listing.notes, *rows.remarks.notes],
            }
            said = {kind: [printable(clean(words)) for words in several] for kind, several in remarks.items()}
            _seal(folder, {"layout": layout, **_described(listing, rows, plan), **held, **said})
            check_target(out, force)  # again: what was made there meanwhile is somebody's
            files.publish(folder, out)
    except OSError as error:
        words = "no space is left on its disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise InputError(f"{out}: the pack cannot be written: {words}; nothing was left behind") from None
    return Pack.open(out)


def _described(listing: Listing, rows: Rows, plan: Plan) -> dict[str, Any]:
    """How the rows were made, for ``pack.json``."""
    images = listing.kind == "images"
    return {
        "kind": listing.kind,
        "shape": list(rows.shape),
        "size": plan.size if images else None,
        "channels": plan.channels if images else None,
        "crop": list(listing.crop) if listing.crop is not None and images else None,
        "pictures": framing.described(np.array(rows.uprights).reshape(-1, 2)) if rows.uprights else None,
        "aligned": None if plan.landmarks is None and not plan.faces else [list(place) for place in decode.EYES],
        "decoder": dict(decode.VERSIONS) if images else None,
        "seed": plan.seed,
        "disjoint_by": "identity" if plan.disjoint and "identity" in rows.labels else None,
        "skipped": rows.skipped,
        "columns": list(listing.columns),
        **({"predicted": dict(listing.predicted)} if listing.predicted else {}),
        **({"about": plan.about} if plan.about else {}),
    }


def _noted(items: Iterator[Item], used: set[str]) -> Iterator[Item]:
    """The items; ``used`` gets the names of those whose eyes are known."""
    for item in items:
        if item.eyes is not None:
            used.add(plain(item.source))
        yield item


def _write_faces(path: Path, finder: EyeFinder) -> None:
    """What was found, as a file of landmarks that says where the faces are, too."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", *PLACES, "left", "top", "right", "bottom", "score"])
        for name, face in finder.faces.items():
            box = (face.left, face.top, face.right, face.bottom)
            table.writerow([cell(name), *astuple(face.eyes), *(f"{v:.1f}" for v in box), f"{face.score:.3f}"])


def _seal(folder: Path, meta: Mapping[str, Any]) -> None:
    """Writes ``pack.json``, with the sizes and hashes of the files that are there, last."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in ("skipped.csv", FACES))
    seal(folder, {"schema": SCHEMA, "veil": __version__, **meta}, names)


_FAR, _SEVERAL = 0.25, 32
"""Mean cosine of two rows from which on vectors are said to be far from centred: of matchers that compare by the cosine
it is about 0, of others .5 and more; and rows, of which fewer may have any by chance."""


def _write_items(listing: Listing, folder: Path, plan: Plan, jobs: int | None, progress: Progress | None) -> Rows:
    """Writes the array and ``skipped.csv``; returns what is known of the rows packed."""
    rows = Rows(listing.attributes)
    images = listing.kind == "images"
    reason = ""
    with (
        _Array(folder / ("images.npy" if images else "vectors.npy"), np.dtype(np.uint8 if images else np.float32)) as x,
        (folder / "skipped.csv").open("w", encoding="utf-8", newline="") as skipped,
        warnings.catch_warnings(),
        # Closing the generator ends its threads before their files' folder is removed.
        closing(arrays(listing.items, plan.size, plan.channels, listing.crop, jobs)) as decoded,
    ):
        # Pillow warns of oddities (damaged Exif, say) in images that it decodes; what it cannot decode is listed.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        table = csv.writer(skipped)
        table.writerow(["source", "reason"])
        for done, (item, row, problem) in enumerate(decoded, 1):
            if row is None:
                rows.skipped += 1
                reason = reason or f"{item.source!r}: {problem}"
                table.writerow([cell(item.source), cell(problem)])
            else:
                x.append(row, item.source)
                rows.add(item)
            if progress is not None and done % CHUNK_ITEMS == 0:
                progress(done, listing.count, rows.skipped)
        if x.n == 0:
            raise InputError(
                f"nothing could be packed: {rows.skipped} skipped, the first {reason}"
                if rows.skipped
                else " ".join(["nothing could be packed: the source holds no images or vectors.", *listing.notes])
            )
    rows.shape = x.shape
    rows.flush()
    if rows.skipped >= LOSS * (x.n + rows.skipped):
        rows.remarks.warnings.append(f"{rows.skipped} of {x.n + rows.skipped} were skipped; skipped.csv says why.")
    if progress is not None:
        progress(x.n + rows.skipped, x.n + rows.skipped, rows.skipped)
    return rows


class _Array:
    """A .npy file that grows row by row: NumPy leaves room in its header for the first axis to grow."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.n, self.dtype = 0, dtype
        self._row: tuple[int, ...] = ()
        self._file = path.open("wb")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, *self._row)

    def append(self, row: NDArray[Any], name: str) -> None:
        if self.n == 0:
            self._row = row.shape
            self._start = self._header()
        assert (row.shape, row.dtype) == (self._row, self.dtype), f"{name}: {row.dtype} {row.shape}"
        self._file.write(np.ascontiguousarray(row).data)
        self.n += 1

    def _header(self) -> int:
        """Writes the header; returns where the data begin."""
        descr = np.lib.format.dtype_to_descr(self.dtype)
        header = {"shape": self.shape, "fortran_order": False, "descr": descr}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def __enter__(self) -> _Array:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._file:
            if self.n:
                self._file.seek(0)
                assert self._header() == self._start, "the header of the array grew"


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


FACES = "faces.csv"
_FILES = {"pack.json", CHECKED, "images.npy", "vectors.npy", "labels.parquet", "pairs.npy", "skipped.csv", FACES}


def check_target(out: Path, force: bool) -> None:
    """Refuses a target that exists, unless it is a pack and ``force`` is given, and one inside of another."""
    files.check_place(out)
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
