"""Labels that nobody observed: a classifier's guesses, written into a pack and marked as guesses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from veil import files
from veil.data.build import check_target
from veil.data.classes import NOTHING, class_name, few
from veil.data.columns import key_columns, nfc
from veil.data.layouts.listing import NO_LABELS
from veil.data.pack import Pack, Predicted
from veil.data.packfile import CHECKED, RESERVED, read_meta, seal
from veil.data.rows import SOURCES_AT_ONCE, write_table
from veil.errors import InputError
from veil.foreign import MOST_LETTERS, one_line


def label_name(pack: Pack, name: str, *, force: bool) -> str:
    """The name of a label to write into a pack, as packs write it.

    Raises:
        InputError: If it is not free for a label that is guessed, or the pack has it and ``force`` is not given.
    """
    name = nfc(name).strip()
    if name in RESERVED or key_columns([name]) or not 0 < len(name) <= MOST_LETTERS:
        raise InputError(f"label name {name!r}: must be a text that names no rows and is not {' or '.join(RESERVED)}")
    if name == "identity":
        raise InputError("label identity: says who is seen, by which splits keep people apart, and is not guessed")
    if name in pack.labels and not force:
        how = "predicted" if name in pack.predicted else "observed, as far as is known"
        raise InputError(f"label {name}: the pack has it already ({how}); choose another name or force")
    return name


def class_names(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Names of a label's classes, as packs write them; raises InputError where they are not two or more of them."""
    classes = tuple(class_name(each) or "" for each in names)
    if (nothing := [each for each in classes if not each or each.casefold() in NOTHING]) or len(classes) < 2:
        raise InputError(
            f"classes of {name}: must be two or more names, none of them a word for nothing, got "
            f"{few([repr(each) for each in nothing or classes]) or 'none'}"
        )
    if len(set(classes)) < len(classes) or max(map(len, classes)) > MOST_LETTERS:
        raise InputError(f"classes of {name}: must be different names of at most {MOST_LETTERS} letters")
    return classes


def write_label(
    pack: Pack, name: str, guesses: NDArray[np.int64], classes: Sequence[str], by: Predicted, *, force: bool = False
) -> Pack:
    """Write a label that was guessed into a pack's folder, which is replaced whole or not at all; the pack then.

    Classes that were never guessed are left out, with a note.

    Args:
        pack: One that was opened from a folder.
        name: The label.
        guesses: int64 ``(N,)`` codes into ``classes``.
        classes: Their names.
        by: What guessed.
        force: Whether a label of that name, observed or guessed, is replaced.

    Raises:
        InputError: If the name or a class is not free, the folder was changed since it was opened, or it cannot be
            written.
    """
    if pack.path is None:
        raise InputError("pack: must lie in a folder, got one in memory")
    folder = pack.path.resolve()
    check_target(folder, force=True)
    name, classes = label_name(pack, name, force=force), class_names(name, classes)
    words = sorted({classes[code] for code in np.unique(guesses)})
    codes = np.array([words.index(each) if each in words else -1 for each in classes])[guesses]
    labels = {other: (pack.labels[other], pack.classes[other]) for other in pack.labels} | {name: (codes, words)}
    try:
        with files.staged(folder) as hidden:
            new = hidden / "new"
            new.mkdir()
            for path in sorted(folder.iterdir()):
                if path.name not in ("pack.json", "labels.parquet", CHECKED):
                    _same(path, new / path.name)
            sources = [pack.sources[i : i + SOURCES_AT_ONCE].tolist() for i in range(0, len(pack), SOURCES_AT_ONCE)]
            write_table(new, pa.chunked_array(sources, pa.string()), pack.split, labels)
            held = [file for file in pack.meta["files"] if file != "labels.parquet"]
            seal(new, _described(pack, name, words, classes, by), sorted([*held, "labels.parquet"]))
            check_target(folder, force=True)
            if read_meta(folder)["files"] != pack.meta["files"]:  # another label was written meanwhile
                raise InputError(f"{pack.path}: was changed while its labels were guessed; begin again")
            files.publish(new, folder)
    except OSError as error:
        raise InputError(f"{pack.path}: cannot be written ({one_line(error)}); it is as it was") from None
    return Pack.open(pack.path)


def _described(pack: Pack, name: str, words: Sequence[str], classes: Sequence[str], by: Predicted) -> dict[str, Any]:
    """What ``pack.json`` says then, but for the files."""
    meta = {key: value for key, value in pack.meta.items() if key != "files"}
    old = (f"{name}: ", f"{name} is unknown ", NO_LABELS)  # remarks that do not hold any more
    for kind in ("warnings", "notes"):
        meta[kind] = [remark for remark in meta.get(kind, ()) if not remark.startswith(old)]
    if never := [each for each in classes if each not in words]:
        meta["notes"].append(f"{name}: the classifier knows {few(never)}, too, and guessed none of them.")
    meta["classes"] = {**meta["classes"], name: list(words)}
    meta["predicted"] = {**pack.predicted, name: dict(by)}
    return meta


def _same(path: Path, target: Path) -> None:
    """The same file at another place: by a link where the system has them, for images may be many gigabytes."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)
