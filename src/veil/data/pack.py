"""A pack: images or vectors decoded once, with their labels and splits, in one memory-mapped folder.

``PACK/images.npy`` (uint8, ``(N, H, W)`` or ``(N, H, W, 3)``) or ``PACK/vectors.npy`` (float32, ``(N, d)``);
``PACK/labels.parquet`` (row i describes image i: ``source``, ``split`` and one dictionary column per label; null is
unknown); ``PACK/pairs.npy`` (int64, ``(P, 4)``) where the data set has a protocol of pairs; ``PACK/skipped.csv`` (what
could not be packed, and why); ``PACK/pack.json`` (schema version, layout, size, crop, places of aligned eyes, decoder,
class names, SHA-256 of the files); ``PACK/checked.json`` (sizes and times of the files when that was last compared).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from veil.data import framing, splits
from veil.data.columns import nfc
from veil.errors import InputError, checked_seed
from veil.foreign import (
    LIST,
    LISTS_OF_TEXTS,
    OBJECT,
    REALS,
    SHA256,
    TEXT,
    TEXTS,
    Header,
    Rule,
    among,
    check_fields,
    each,
    either,
    is_real,
    is_whole,
    one_line,
    opened,
    read_json,
    whole,
)
from veil.parquet import check_expanded, open_parquet, validated

SCHEMA = 1
SPLITS = splits.SPLITS
RESERVED = ("source", "split")
"""Columns of ``labels.parquet`` that are no labels."""
CHECKED = "checked.json"

NOTHING = frozenset(
    (
        "na", "n/a", "n.a.", "#n/a", "<na>", "nan", "null", "none", "nil", "unknown", "undefined", "missing", "\\n",
        "-", "--", "?",
    )
)  # fmt: skip
"""Words that mean that a label is unknown, in small letters."""


class Framing(TypedDict):
    """How a pack's rows were taken from their sources, as a release's contract keeps it for files to come.

    Of images ``crop`` is left, top, right and bottom as fractions of the picture, or None; ``aligned`` says whether
    each face was turned, scaled and shifted by its eyes instead. Of vectors ``columns`` names the column that each of
    their values stood in; it is empty where they stood in none of their own.
    """

    crop: tuple[float, float, float, float] | None
    aligned: bool
    columns: tuple[str, ...]


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
        path = Path(path)
        meta = _read_meta(path)
        _check_files(path, meta, verify)
        name = "vectors.npy" if meta["kind"] == "vectors" else "images.npy"
        x = _map(path / name)
        if list(x.shape) != meta["shape"]:
            raise InputError(f"{path / name}: its shape {list(x.shape)} is not the {meta['shape']} of pack.json")
        image = x.dtype == np.uint8 and (x.ndim == 3 or (x.ndim == 4 and x.shape[3] == 3))
        if not (image if name == "images.npy" else x.dtype == np.float32 and x.ndim == 2):
            raise InputError(f"{path / name}: {x.dtype} {x.shape} is not an array of {meta['kind']}")
        if 0 in x.shape:
            raise InputError(f"{path / name}: {x.shape} holds nothing")
        if meta.get("columns") and len(meta["columns"]) != x.shape[-1]:
            raise InputError(f"{path / 'pack.json'}: names {len(meta['columns'])} columns of rows of {x.shape[1:]}")
        labels, split, sources = _read_labels(path / "labels.parquet", meta["classes"], len(x))
        pairs = None
        if "pairs.npy" in meta["files"]:
            pairs = np.array(_map(path / "pairs.npy"))
            _check_pairs(pairs, len(x), f"{path / 'pairs.npy'}")
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

        Raises:
            InputError: Shapes, types, names or lengths that do not fit, or a seed that is none.
        """
        if columns is None and all(isinstance(name, str) for name in getattr(x, "columns", (None,))):
            columns = [str(name) for name in x.columns]  # type: ignore[union-attr]
        array, seed = _as_data(x), checked_seed(seed)
        n = len(array)
        if columns is not None and (array.ndim != 2 or len({nfc(name) for name in columns}) != array.shape[1]):
            raise InputError(f"columns: must be a name for each value of a row of {array.shape}, got {list(columns)}")
        notes = []
        codes: dict[str, NDArray[np.int64]] = {}
        classes: dict[str, tuple[str, ...]] = {}
        for name, values in labels.items():
            if name in RESERVED:
                raise InputError(f"label name {name!r}: {' and '.join(RESERVED)} are not free for labels")
            if len(values) != n:
                raise InputError(f"label {name}: {len(values)} values for {n} rows")
            codes[name], classes[name], void = encode(values)
            if void:
                notes.append(nothing_note(name, void))
        if split is None:
            groups = codes.get(disjoint_by) if disjoint_by is not None else None
            where = splits.assign(np.full(n, -1, np.int64) if groups is None else groups, seed)
        else:
            where = splits.parse(split)
        if len(where) != n:
            raise InputError(f"split: {len(where)} values for {n} rows")
        names = np.asarray([str(i) for i in range(n)] if sources is None else list(sources), dtype=np.str_)
        if len(names) != n:
            raise InputError(f"sources: {len(names)} names for {n} rows")
        found, counts = np.unique(names, return_counts=True)
        if len(found) < n:
            raise InputError(f"sources: {str(found[counts > 1][0])!r} stands there more than once; they must be unique")
        table = None
        if pairs is not None:
            table = np.asarray(pairs, dtype=np.int64)
            _check_pairs(table, n, "pairs")
        meta = {"schema": SCHEMA, "layout": "arrays", "seed": seed, "skipped": 0, "notes": notes, "warnings": []}
        meta["columns"] = [] if columns is None else [nfc(name) for name in columns]
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


def few(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def nameless(note: str) -> str:
    """A note without names of rows and files, nor paths: an ellipsis stands in their places.

    Names stand in notes as ``repr`` writes them, in quotes, by which they are told from the rest; so do those in errors
    of the system. A word with a ``/`` or a ``\\`` is taken for a path.
    """
    return _PATH.sub("\N{HORIZONTAL ELLIPSIS}", _QUOTED.sub("\N{HORIZONTAL ELLIPSIS}", note))


_QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
_PATH = re.compile(r"(?<![^\s(=])(?!\d+/\d+\b)[^\s(),;]*[/\\][^\s),;]*[^\s),;:.]")


def class_name(value: Any) -> str | None:
    """The class that a label's value names, or None where it is unknown (None, "", NaN; pandas' NA and NaT).

    Booleans become ``no``/``yes``; numbers without a fraction lose their ``.0``, which they often owe to a NaN
    elsewhere in their column. Text is brought into NFC.
    """
    if isinstance(value, str):  # first, as most are
        return nfc(value).strip() or None
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # by name, as pandas is not needed
        return None
    if getattr(value, "ndim", None) == 0 and not isinstance(value, np.datetime64 | np.timedelta64):
        value = value.item()  # of NumPy's scalars, and of tensors of one value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return None
        return str(int(value)) if float(value).is_integer() else str(float(value))
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    if isinstance(value, list | tuple | set | dict) or getattr(value, "ndim", False):
        raise InputError(f"labels: a value must be a string, a number or a boolean, got a {type(value).__name__}")
    return nfc(str(value)).strip() or None


_DECIMAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?", re.ASCII)


def column_classes(values: Iterable[Any]) -> dict[Any, str | None]:
    """The class of each of a column's values, None where it is unknown: the same, whatever kind of file it comes from.

    Beside what :func:`class_name` says, the words of :data:`NOTHING` are unknown. What files of text spell is read as
    what it stands for where that holds for all that is known in the column: ``True`` and ``FALSE`` are booleans,
    numbers without a fraction lose their ``.0``.
    """
    names = {value: class_name(value) for value in values}
    names = {value: None if name is not None and name.casefold() in NOTHING else name for value, name in names.items()}
    known = {name for name in names.values() if name is not None}
    if {name.casefold() for name in known} <= {"true", "false"}:
        return {value: name and told_class(name, ("no", "yes")) for value, name in names.items()}
    if all(_DECIMAL.fullmatch(name) for name in known):
        return {value: name and _whole(name) for value, name in names.items()}
    return names


def told_class(value: Any, classes: Sequence[str]) -> str | None:
    """Which of a label's classes a single value names, as :func:`column_classes` would find it in a column of them."""
    name = class_name(value)
    if name is None or name in classes:
        return name
    if name.casefold() in ("true", "false") and set(classes) <= {"no", "yes"}:
        return "yes" if name.casefold() == "true" else "no"
    if _DECIMAL.fullmatch(name) and _whole(name) in classes:
        return _whole(name)
    return None if name.casefold() in NOTHING else name


def _whole(number: str) -> str:
    """A decimal number's text without a fraction that is zero."""
    whole, _, fraction = number.partition(".")
    return number if fraction.strip("0") else "0" if whole == "-0" else whole


def encode(values: Any) -> tuple[NDArray[np.int64], tuple[str, ...], int]:
    """Codes ``(N,)`` (-1 for unknown), the sorted class names, and how many values are words of :data:`NOTHING`.

    ``values`` are N, in a sequence, an array or a tensor.
    """
    names = [class_name(value) for value in (values.tolist() if hasattr(values, "detach") else values)]
    found = column_classes(set(names))
    classes = tuple(sorted({name for name in found.values() if name is not None}))
    code: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    code[None] = -1
    codes = np.fromiter((code[found[name]] for name in names), np.int64, len(names))
    return codes, classes, sum(name is not None and found[name] is None for name in names)


def nothing_note(name: str, count: int) -> str:
    """A note that values of a label are words for nothing."""
    return f"{name}: {count} values are words for nothing, such as NULL, and are taken as unknown."


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


def _read_meta(path: Path) -> dict[str, Any]:
    """``pack.json``, with the keys and types that the rest relies on."""
    if not path.is_dir():
        raise InputError(f"{path}: {'not a pack (a file)' if path.exists() else 'no such folder'}")
    card = path / "pack.json"
    try:
        meta = read_json(card)
    except FileNotFoundError:
        raise InputError(f"{path}: not a pack (it has no pack.json)") from None
    except OSError as error:
        raise InputError(f"{card}: cannot be read ({one_line(error)})") from None
    if not isinstance(meta, dict) or "schema" not in meta:
        raise InputError(f"{card}: not the description of a pack (no schema)")
    if meta["schema"] != SCHEMA or isinstance(meta["schema"], bool):
        raise InputError(f"{card}: schema {meta['schema']!r}; this version of Veil reads {SCHEMA}")
    try:
        check_fields(meta, "", _CARD, _NEEDED)
        for name, entry in meta["files"].items():
            check_fields(entry, f"files.{name}", _FILE, list(_FILE))
        if meta.get("pictures") is not None:
            check_fields(meta["pictures"], "pictures", framing.RULES, list(framing.RULES))
    except ValueError as error:
        raise InputError(f"{card}: damaged ({one_line(error)})") from None
    return dict(meta)


def _is_crop(x: Any) -> bool:
    inside = isinstance(x, list | tuple) and len(x) == 4 and all(is_real(side, 0, 1) for side in x)
    return inside and x[0] < x[2] and x[1] < x[3]


CROP: Rule = ("left, top, right and bottom as fractions, left < right and top < bottom", _is_crop)
_CARD: Mapping[str, Rule] = {
    "schema": whole(SCHEMA, SCHEMA),
    **dict.fromkeys(("veil", "layout"), TEXT),
    "kind": among("images", "vectors"),
    "shape": each("whole numbers, the sides of an array", lambda x: is_whole(x, 0)),
    "size": either(whole(1, 2**16)),
    "channels": either(whole(1, 3)),
    "crop": either(CROP),
    **dict.fromkeys(("pictures", "decoder"), either(OBJECT)),
    "aligned": either(LIST),
    **dict.fromkeys(("seed", "skipped"), whole(0)),
    "disjoint_by": either(TEXT),
    **dict.fromkeys(("columns", "warnings", "notes"), TEXTS),
    "fractions": either(REALS),
    **dict.fromkeys(("splits", "files"), OBJECT),
    "classes": LISTS_OF_TEXTS,
}
"""What stands in ``pack.json``."""
_NEEDED = ("kind", "shape", "classes", "files")
_FILE: Mapping[str, Rule] = {"bytes": whole(0), "sha256": SHA256}


def _check_files(path: Path, meta: Mapping[str, Any], verify: bool) -> None:
    """Sizes, and SHA-256 on demand and where a file's time is not the one that is known, against ``pack.json``."""
    data = "vectors.npy" if meta["kind"] == "vectors" else "images.npy"
    known, seen = _read_checked(path), {}
    for name in sorted({data, "labels.parquet", *meta["files"]}):
        if name not in meta["files"] or name not in (data, "labels.parquet", "pairs.npy"):
            raise InputError(f"{path / 'pack.json'}: damaged (its list of files has a wrong entry for {name!r})")
        try:
            stat = (path / name).stat()
        except OSError:
            raise InputError(f"{path}: the pack is incomplete: {name} is missing") from None
        size, digest = meta["files"][name]["bytes"], meta["files"][name]["sha256"]
        if stat.st_size != size:
            raise InputError(f"{path / name}: {stat.st_size} bytes, but {size} were written")
        seen[name] = [size, stat.st_mtime_ns, digest]
        if (verify or known.get(name) != seen[name]) and sha256(path / name) != digest:
            raise InputError(f"{path / name}: its SHA-256 is not the one in pack.json; the file was changed")
    if seen != known:
        write_checked(path, seen)


def _read_checked(path: Path) -> dict[str, Any]:
    """What is known of the files; nothing where that cannot be read, for then they are."""
    try:
        known = read_json(path / CHECKED)
    except (OSError, InputError):
        return {}
    return known if isinstance(known, dict) else {}


def write_checked(path: Path, seen: Mapping[str, Sequence[Any]]) -> None:
    """Keep the size, time of change (ns) and SHA-256 of a pack's files, by name, where the folder can be written to."""
    temporary = path / f".{CHECKED}.{secrets.token_hex(4)}"
    with suppress(OSError):
        try:
            temporary.write_text(json.dumps(seen, sort_keys=True) + "\n", "utf-8")
            temporary.replace(path / CHECKED)
        finally:
            temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _map(path: Path) -> NDArray[Any]:
    try:
        with opened(path) as file:
            header = Header.read(file, os.fstat(file.fileno()).st_size)
        if header.fortran:
            raise InputError(f"{path}: its rows do not lie one after the other (Fortran order)")
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except InputError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not an array of numbers, or cut off ({one_line(error)})") from None
    return array


def _read_labels(
    path: Path, classes: Mapping[str, list[str]], n: int
) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int8], NDArray[Any]]:
    """Codes per label, the split and the sources."""
    with open_parquet(path) as (file, schema):
        columns, rows = schema.names, file.metadata.num_rows
        if sorted(columns) != sorted([*RESERVED, *classes]):
            raise InputError(f"{path}: columns {columns} where pack.json expects {[*RESERVED, *classes]}")
        if rows != n:
            raise InputError(f"{path}: {rows} rows for {n} images or vectors")
        table = validated(file.read())
    source = table["source"].combine_chunks()
    if not (pa.types.is_dictionary(source.type) and pa.types.is_string(source.type.value_type)) or source.null_count:
        raise InputError(f"{path}: column source must be a text in each row, got {source.type}")
    longest = pc.max(pc.utf8_length(source.dictionary)).as_py() or 0
    check_expanded(path, "column source", n * longest)  # as many for each as for the longest
    split = _codes(path, "split", table["split"], SPLITS)
    if np.any(split < 0):
        raise InputError(f"{path}: row {int(np.argmin(split))} has no split")
    labels = {name: _codes(path, name, table[name], names) for name, names in classes.items()}
    return labels, split.astype(np.int8), np.asarray(source.to_pylist(), dtype=np.str_)


def _codes(path: Path, name: str, column: pa.ChunkedArray, classes: Sequence[str]) -> NDArray[np.int64]:
    """A dictionary column as codes into ``classes``, whatever order the file's own dictionary has."""
    code = {c: i for i, c in enumerate(classes)}
    out = np.full(len(column), -1, np.int64)
    start = 0
    for chunk in column.chunks:
        if not pa.types.is_dictionary(chunk.type) or not pa.types.is_string(chunk.type.value_type):
            raise InputError(f"{path}: column {name} is {chunk.type}, not a dictionary of strings")
        words = chunk.dictionary.to_pylist()
        unknown = [w for w in words if w not in code]
        if unknown:
            raise InputError(f"{path}: column {name} holds {unknown[0]!r}, which pack.json does not list")
        table = np.array([code[w] for w in words] or [-1], np.int64)
        picked = chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        out[start : start + len(chunk)] = np.where(picked < 0, -1, table[picked])
        start += len(chunk)
    return out


def _check_pairs(pairs: NDArray[Any], n: int, name: str) -> None:
    if pairs.dtype != np.int64 or pairs.ndim != 2 or pairs.shape[1] != 4:
        raise InputError(f"{name}: {pairs.dtype} {pairs.shape} is not int64 (P, 4)")
    if len(pairs) and (pairs.min() < 0 or pairs[:, :2].max() >= n or pairs[:, 2].max() > 1):
        raise InputError(f"{name}: rows must lie in 0..{n - 1}, 'same' must be 0 or 1, folds must not be negative")
