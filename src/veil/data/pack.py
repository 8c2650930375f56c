"""A pack: images or vectors decoded once, with their labels and splits, in one memory-mapped folder.

``PACK/images.npy`` (uint8, ``(N, H, W)`` or ``(N, H, W, 3)``) or ``PACK/vectors.npy`` (float32, ``(N, d)``);
``PACK/labels.parquet`` (row i describes image i: ``source``, ``split`` and one dictionary column per label; null is
unknown); ``PACK/pairs.npy`` (int64, ``(P, 4)``) where the data set has a protocol of pairs; ``PACK/skipped.csv`` (what
could not be packed, and why); ``PACK/pack.json`` (schema version, layout, size, crop, places of aligned eyes, decoder,
class names, labels that were predicted, SHA-256 of the files); ``PACK/checked.json`` (sizes and times of the files when
that was last compared).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from veil import notebook
from veil.data import splits
from veil.data.about import sheet
from veil.data.classes import encode, few, nothing_note
from veil.data.columns import nfc
from veil.data.packfile import RESERVED, SCHEMA, check_files, check_pairs, mapped, read_labels, read_meta
from veil.errors import InputError, checked_path, checked_seed
from veil.foreign import MOST_LETTERS

SPLITS = splits.SPLITS


class Framing(TypedDict):
    """How a pack's rows were taken from their sources, as a release's contract keeps it for files to come.

    Of images ``crop`` is left, top, right and bottom as fractions of the picture, or None; ``aligned`` says whether
    each face was turned, scaled and shifted by its eyes instead. Of vectors ``columns`` names the column that each of
    their values stood in; it is empty where they stood in none of their own.
    """

    crop: tuple[float, float, float, float] | None
    aligned: bool
    columns: tuple[str, ...]


class Predicted(TypedDict):
    """By what a label was guessed: a classifier's file, its SHA-256, and how sure it was in the mean, in [0, 1]."""

    file: str
    sha256: str
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Images or vectors of people, with labels.

    Attributes:
        x: uint8 ``(N, H, W)`` (grey) or ``(N, H, W, 3)`` (RGB), or float32 ``(N, d)``; memory-mapped when opened from
            a folder.
        labels: For each label name an int64 array ``(N,)`` of class codes; -1 where the label is unknown.
            ``"identity"`` is the label that says who is seen, where that is known.
        classes: For each label name its class names; code c means ``classes[name][c]``.
        split: int8 ``(N,)``, indices into :data:`SPLITS`.
        sources: ``(N,)`` names of the rows' sources (a path inside the layout's source, say).
        meta: What ``pack.json`` holds.
        path: The folder, or None for a pack made in memory.
        pairs: int64 ``(P, 4)``: row a, row b, same person (1/0), fold; None where the layout has no protocol of pairs.
        opened: What was read from the folder, by which a pack knows that nothing of it was replaced since.
    """

    x: NDArray[Any]
    labels: Mapping[str, NDArray[np.int64]]
    classes: Mapping[str, tuple[str, ...]]
    split: NDArray[np.int8]
    sources: NDArray[Any]
    meta: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    pairs: NDArray[np.int64] | None = None
    opened: tuple[Any, ...] = field(default=(), repr=False, compare=False)

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def kind(self) -> Literal["images", "vectors"]:
        return "vectors" if self.x.dtype == np.float32 else "images"

    @property
    def framing(self) -> Framing:
        """How the rows were taken from their sources; of packs made in memory only what they were told."""
        crop = self.meta.get("crop")
        return Framing(
            crop=None if crop is None else (crop[0], crop[1], crop[2], crop[3]),
            aligned=self.meta.get("aligned") is not None,
            columns=tuple(self.meta.get("columns") or ()),
        )

    @property
    def predicted(self) -> Mapping[str, Predicted]:
        """Of the labels those that were not observed but guessed, and by what."""
        marks: Mapping[str, Predicted] = self.meta.get("predicted") or {}
        return marks

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with any byte of the data: from the files' SHA-256, or the arrays in memory.

        Opening a pack sees to it that its files have that SHA-256.
        """
        total = hashlib.sha256()
        if self.opened and all(a is b for a, b in zip(self.opened, self._parts(), strict=True)):
            for name, entry in sorted(self.meta["files"].items()):
                total.update(f"{name} {entry['sha256']}\n".encode())
            # What pack.json alone says of the data: the order of classes, and how images were cut from pictures.
            described = [self.meta["classes"], self.meta.get("crop"), self.meta.get("aligned")]
            total.update(json.dumps(described, sort_keys=True).encode())
            return total.hexdigest()[:16]
        for array in (self.x, self.split, self.pairs):
            if array is not None:
                total.update(f"{array.dtype.str} {array.shape}\n".encode())
                total.update(np.ascontiguousarray(array).data)
        names = {name: (self.classes[name], self.labels[name].tolist()) for name in sorted(self.labels)}
        total.update(json.dumps([names, self.sources.tolist()]).encode())
        return total.hexdigest()[:16]

    def _repr_html_(self) -> str:
        """Its labels by split, and some of its images, for notebooks."""
        rows = [(name, f"{len(self.rows(name)):,}") for name in SPLITS]
        about = {
            self.kind: f"{len(self):,} of shape {self.x.shape[1:]}",
            **{f"split {name}": count for name, count in rows},
            **{
                f"label {name}": f"{len(classes):,} classes, {int((self.labels[name] >= 0).sum()):,} rows known"
                for name, classes in self.classes.items()
            },
        }
        pictures = notebook.strip(self.x[:8]) if self.kind == "images" and len(self) else ""
        return notebook.facts("Pack" if self.path is None else self.path.name, about) + pictures

    def _parts(self) -> tuple[Any, ...]:
        return self.x, self.labels, self.classes, self.split, self.sources, self.meta, self.pairs

    @classmethod
    def open(cls, path: str | Path, verify: bool = False) -> Pack:
        """Opens a pack's folder; images or vectors are mapped, not read.

        A file whose size and time of change are those of ``checked.json`` is taken to be as it was packed. Any other,
        of a pack that was copied, say, is read once to compare its SHA-256 with ``pack.json``; its new time is then
        kept in ``checked.json``, unless the folder cannot be written to.

        Args:
            path: The folder.
            verify: Whether to read all files and compare their SHA-256, whatever their times.

        Raises:
            InputError: The folder is no pack, of another schema, truncated, a file was changed since it was packed, or
                files contradict each other.
        """
        path = checked_path("pack", path)
        meta = read_meta(path)
        check_files(path, meta, verify)
        name = "vectors.npy" if meta["kind"] == "vectors" else "images.npy"
        x = mapped(path / name)
        if list(x.shape) != meta["shape"]:
            raise InputError(f"{path / name}: its shape {list(x.shape)} is not the {meta['shape']} of pack.json")
        image = x.dtype == np.uint8 and (x.ndim == 3 or (x.ndim == 4 and x.shape[3] == 3))
        if not (image if name == "images.npy" else x.dtype == np.float32 and x.ndim == 2):
            raise InputError(f"{path / name}: {x.dtype} {x.shape} is not an array of {meta['kind']}")
        if 0 in x.shape:
            raise InputError(f"{path / name}: {x.shape} holds nothing")
        if meta.get("columns") and len(meta["columns"]) != x.shape[-1]:
            raise InputError(f"{path / 'pack.json'}: names {len(meta['columns'])} columns of rows of {x.shape[1:]}")
        labels, split, sources = read_labels(path / "labels.parquet", meta["classes"], len(x))
        pairs = None
        if "pairs.npy" in meta["files"]:
            pairs = np.array(mapped(path / "pairs.npy"))
            check_pairs(pairs, len(x), f"{path / 'pairs.npy'}")
        classes = {label: tuple(names) for label, names in meta["classes"].items()}
        return cls(
            x=x, labels=labels, classes=classes, split=split, sources=sources, meta=meta, path=path, pairs=pairs,
            opened=(x, labels, classes, split, sources, meta, pairs),
        )  # fmt: skip

    @classmethod
    def from_arrays(
        cls,
        x: ArrayLike,
        labels: Mapping[str, Sequence[Any] | NDArray[Any]],
        *,
        split: Sequence[str] | None = None,
        seed: int = 0,
        disjoint_by: str | None = "identity",
        sources: Sequence[str] | None = None,
        pairs: ArrayLike | None = None,
        columns: Sequence[str] | None = None,
        about: Mapping[str, str] | str | Path | None = None,
    ) -> Pack:
        """A pack in memory.

        Args:
            x: uint8 ``(N, H, W)`` or ``(N, H, W, 3)``, or floats ``(N, d)``; a data frame or a tensor, too.
            labels: For each label name N values, each a string, a number, a boolean (``no``/``yes``) or unknown (None,
                "", NaN, or a word of :data:`NOTHING`). The classes are the sorted strings.
            split: N names out of :data:`SPLITS`; drawn with ``seed`` where None.
            seed: Of the splits.
            disjoint_by: The label whose classes must not straddle the splits that are drawn, where there is such a
                label; None draws rows.
            sources: N unique names; the row numbers where None.
            pairs: Integers ``(P, 4)``, as in :attr:`pairs`.
            columns: d names of the vectors' values, which releases then ask of files; a data frame's own if None.
            about: A data sheet (:mod:`veil.data.about`).

        Raises:
            InputError: Shapes, types, names or lengths that do not fit, or a seed that is none.
        """
        if columns is None and all(isinstance(name, str) for name in getattr(x, "columns", (None,))):
            columns = [str(name) for name in x.columns]  # type: ignore[union-attr]
        array, seed = _as_data(x), checked_seed(seed)
        n = len(array)
        if columns is not None and (array.ndim != 2 or len({nfc(name) for name in columns}) != array.shape[1]):
            raise InputError(f"columns: must be a name for each value of a row of {array.shape}, got {list(columns)}")
        codes, classes, notes = _encoded(labels, n)
        warnings: list[str] = []
        if disjoint_by not in (None, "identity", *codes):
            raise InputError(
                f"disjoint_by: must be one of the labels ({', '.join(codes) or 'none'}), got {disjoint_by!r}"
            )
        if split is None:
            groups = codes.get(disjoint_by) if disjoint_by is not None else None
            where = splits.assign(np.full(n, -1, np.int64) if groups is None else groups, seed)
        else:
            where = splits.parse(split)
        if len(where) != n:
            raise InputError(f"split: {len(where)} values for {n} rows")
        if disjoint_by in codes and (several := splits.straddling(codes[disjoint_by], where)):
            warnings.append(
                f"{several:,} of {disjoint_by} stand in several splits: attackers are tried on people that they "
                "learned from."
            )
        names = np.asarray([str(i) for i in range(n)] if sources is None else list(sources), dtype=np.str_)
        if len(names) != n:
            raise InputError(f"sources: {len(names)} names for {n} rows")
        distinct, counts = np.unique(names, return_counts=True)
        if len(distinct) < n:
            raise InputError(
                f"sources: {str(distinct[counts > 1][0])!r} stands there more than once; they must be unique"
            )
        table = None
        if pairs is not None:
            table = np.asarray(pairs, dtype=np.int64)
            check_pairs(table, n, "pairs")
        meta = {"schema": SCHEMA, "layout": "arrays", "seed": seed, "skipped": 0, "notes": notes, "warnings": warnings}
        meta["columns"] = [] if columns is None else [nfc(name) for name in columns]
        meta |= {"about": told} if (told := sheet(about)) else {}
        return cls(x=array, labels=codes, classes=classes, split=where, sources=names, meta=meta, pairs=table)

    def label(self, name: str) -> NDArray[np.int64]:
        """The codes ``(N,)`` of a label; raises InputError with the names there are where it is not one of them."""
        if name not in self.labels:
            there = ", ".join(sorted(self.labels)) or "no labels"
            raise InputError(f"label {name!r}: the pack has {there}")
        return self.labels[name]

    def rows(self, *names: str, known: Iterable[str] = ()) -> NDArray[np.int64]:
        """The rows of the named splits (of all where none is named) whose ``known`` labels are all known, ascending.

        Raises:
            InputError: A split or label that does not exist.
        """
        codes = splits.parse(names)
        keep = np.isin(self.split, codes) if names else np.ones(len(self), bool)
        for name in (known,) if isinstance(known, str) else known:
            keep &= self.label(name) >= 0
        return np.flatnonzero(keep).astype(np.int64)

    @property
    def labels_there(self) -> str:
        """For messages: its labels but identity; where it has none, how it can come by some."""
        if names := sorted(name for name in self.labels if name != "identity"):
            return f"the pack has {', '.join(names)}"
        guess = ", or have a classifier of yours guess one (veil label)" if self.kind == "images" else ""
        there = "only identity" if "identity" in self.labels else "no labels"
        return f"the pack has {there}: pack it with --labels{guess}"

    @property
    def knows_people(self) -> bool:
        """Whether it says of any row who is seen."""
        return "identity" in self.labels and bool((self.labels["identity"] >= 0).any())

    def known_use(self, utility: str) -> tuple[str, ...]:
        """What can be required and measured of a use: nothing of "", nor of identity where nobody is known.

        For what never looks at the use, or does without.
        """
        unknown = utility == "identity" and not self.knows_people
        return (utility,) if utility and not unknown else ()

    def require(
        self,
        private: Sequence[str] = (),
        utility: str | Sequence[str] = (),
        *,
        among: Sequence[str] = SPLITS,
    ) -> None:
        """Preflight: can these labels be trained and measured on in every split, or those named in ``among``?

        No label may be both hidden and used. Every label must exist and have two classes or more; each of its classes
        must occur in every split. Identities are exempt from the last rule: splits are disjoint by them.

        Raises:
            InputError: With all problems in one line, each naming the class and the split.
        """
        used = (utility,) if isinstance(utility, str) else utility
        wanted = [*private, *used]
        problems = [
            f"label {name}: must not be both private and the use"
            + ", which is identity where no other is named" * (name == "identity")
            for name in dict.fromkeys(private)
            if name in used
        ]
        needed = [(code, split) for code, split in enumerate(SPLITS) if split in among]
        for code, split in needed:
            if not np.any(self.split == code):
                problems.append(f"split {split} has no rows")
        for name in dict.fromkeys(wanted):
            if name not in self.labels:
                there = ", ".join(sorted(self.labels)) or "no labels"
                if name != "identity" and self.labels.keys() <= {"identity"} and self.kind == "images":
                    there += "; `veil label` has a classifier of yours guess one"
                unless = ", the use unless --utility names another" * (name == "identity" and name not in private)
                problems.append(f"label {name!r}{unless}: the pack has {there}")
                continue
            classes, codes = self.classes[name], self.labels[name]
            if len(classes) < 2:
                problems.append(f"label {name} has {len(classes)} class{'es' * (not classes)}; two are needed")
            if name == "identity":
                continue
            for code, split in needed:
                present = set(np.unique(codes[self.split == code]).tolist())
                if np.any(self.split == code):
                    missing = [repr(c) for k, c in enumerate(classes) if k not in present]
                    problems += [f"label {name}: no row of class {few(missing)} in split {split}"] if missing else []
        if problems:
            where = f"{self.path}: " if self.path is not None else ""
            raise InputError(where + "; ".join(problems))


def flat(x: NDArray[Any]) -> NDArray[np.float32]:
    """``(n, ...)`` -> float32 ``(n, k)``, without a copy where it is that already; images in [0, 1]."""
    out: NDArray[np.float32] = x.reshape(len(x), math.prod(x.shape[1:])).astype(np.float32, copy=False)
    return out / np.float32(255) if x.dtype == np.uint8 else out


def _encoded(
    labels: Mapping[str, Sequence[Any] | NDArray[Any]], n: int
) -> tuple[dict[str, NDArray[np.int64]], dict[str, tuple[str, ...]], list[str]]:
    """Codes and classes of n rows' labels, and notes; raises InputError for names and values that are none."""
    codes: dict[str, NDArray[np.int64]] = {}
    classes: dict[str, tuple[str, ...]] = {}
    notes = []
    for name, values in labels.items():
        if not isinstance(name, str) or name in RESERVED:
            raise InputError(f"label name {name!r}: must be a text, and {' and '.join(RESERVED)} are not free")
        if not name.strip() or len(name) > MOST_LETTERS:
            raise InputError(f"label name {name[:9]!r}: must have 1 to {MOST_LETTERS:,} letters, got {len(name):,}")
        if len(values) != n:
            raise InputError(f"label {name}: {len(values)} values for {n} rows")
        codes[name], classes[name], void = encode(values)
        for text in (name, *classes[name]):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InputError(f"label {name!a}: names and classes must be UTF-8, got {text!a}") from None
        if void:
            notes.append(nothing_note(name, void))
    return codes, classes, notes


def _as_data(x: Any) -> NDArray[Any]:
    array = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
    if array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3)):
        pass
    elif array.ndim == 2 and np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32, copy=False)
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad):
            raise InputError(f"x: row {bad[0]} is not finite ({len(bad)} such rows)")
    else:
        raise InputError(f"x: {array.dtype} {array.shape} is neither uint8 (N, H, W) or (N, H, W, 3) nor floats (N, d)")
    if 0 in array.shape:
        raise InputError(f"x: {array.shape} holds nothing")
    return array
