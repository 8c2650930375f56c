"""The layout ``folder``: any tree of images, with a CSV or Parquet file of labels or without one.

The file of labels has a column ``source``, ``file``, ``filename``, ``path``, ``image`` or ``image_id`` (see
:data:`veil.data.columns.IMAGE_KEYS`) that names the image: its path inside the folder (or inside the folder that the
file lies in), or the file's name alone where that is unique. A column ``split`` prescribes the splits; every other
column is a label, ``identity`` the one that says who is seen; an empty cell or a word for nothing (``NA``, ``NULL``),
in Parquet also null or NaN, is unknown. Another pack may stand in its place, for its labels and splits. Where no file
is named, ``labels.csv`` or ``labels.parquet`` at the top of the folder is taken if there is one.

Images without a row stay, with unknown labels, unless the file prescribes splits. The setting ``identity=folder`` makes
the name of the folder that an image lies in its ``identity``.

Links to files are followed only to places inside the folder, links to folders never; both end up in ``skipped.csv``,
and so do images of kinds that are not read. A file of labels that is such a link is refused, unless it is named. What
systems and tools put there for themselves is left aside.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from veil.data import decode
from veil.data.classes import few
from veil.data.layouts import table as tables
from veil.data.layouts.listing import NO_LABELS, Item, Listing, Options, Remarks, check_options, clean, own
from veil.errors import InputError
from veil.foreign import is_system
from veil.parquet import SUFFIXES


@dataclass(frozen=True, slots=True)
class Aside:
    """What lies in a folder and is no concern of a data set.

    Attributes:
        others: Number of files that are no images.
        hidden: Number of files whose names begin with a dot.
        folders: Paths of folders of systems and tools.
    """

    others: int = 0
    hidden: int = 0
    folders: tuple[str, ...] = ()

    def __add__(self, more: Aside) -> Aside:
        return Aside(self.others + more.others, self.hidden + more.hidden, self.folders + more.folders)

    def notes(self) -> list[str]:
        """A sentence for each kind."""
        notes = []
        if self.others:
            notes.append(f"{self.others} files are no images by their name's ending and were left aside.")
        if self.hidden:
            notes.append(f"{self.hidden} files are hidden (their names begin with a dot) and were left aside.")
        if self.folders:
            names = few([repr(clean(name)) for name in self.folders], 3)
            notes.append(f"{len(self.folders)} folders are of systems or tools and were left aside: {names}.")
        return notes


def read(source: Path, options: Options) -> Listing:
    """Lists the images below ``source``; raises InputError where it is no folder or the labels do not fit."""
    check_options("folder", options, {"identity": ("folder",)}, labels=True)
    if not source.is_dir():
        raise InputError(f"{source}: {'not a folder' if source.exists() else 'no such folder'}")
    entries, aside = walk(source)
    remarks = Remarks(notes=aside.notes())
    names = [clean(name) for name, _ in entries]
    path = options.labels or _labels_file(source)
    table, pairs = None, None
    if path is not None:
        table = tables.read(path)
        rows = tables.join(table, names, _prefix(source, path))
        remarks.notes.extend([f"Labels were read from {path.name!r}.", *table.notes])
        tables.tell_join(remarks, table, names, rows, "images", [bool(problem) for _, problem in entries])
        pairs = table.pairs_of(names, rows)
    by_folder = options.settings.get("identity") == "folder"
    if by_folder and table is not None and "identity" in table.codes:
        raise InputError(f"{table.path}: has a column identity already; leave out the setting identity=folder")
    if table is None and not by_folder:
        remarks.warnings.append(NO_LABELS)

    def items() -> Iterator[Item]:
        for i, (name, problem) in enumerate(entries):
            labels = table.row(rows[i]) if table is not None else {}
            split, missing = table.split_of(rows[i]) if table is not None else (None, "")
            if by_folder:
                labels["identity"] = names[i].rpartition("/")[0].rpartition("/")[2] or None
            yield Item(names[i], source / name, labels, split, problem or missing)

    return Listing(
        items=items(),
        count=len(entries),
        attributes=(*(table.codes if table is not None else ()), *(("identity",) if by_folder else ())),
        pairs=pairs,
        notes=remarks.notes,
        warnings=remarks.warnings,
        predicted={} if table is None else table.predicted,
        prescribed=table is not None and table.split is not None,
    )


def as_items(source: Path, entries: Sequence[tuple[str, str]]) -> Iterator[Item]:
    """The images that :func:`walk` lists, without labels."""
    for name, problem in entries:
        yield Item(clean(name), None if problem else source / name, problem=problem)


def walk(source: Path) -> tuple[list[tuple[str, str]], Aside]:
    """The images below a folder, in the order of their names, and what lies there beside them.

    Returns:
        Path inside the folder (with ``/``) and "", or why the file or folder is not read; what was left aside.
    """
    root = source.resolve()
    entries: list[tuple[str, str]] = []
    others = hidden = 0
    systems: list[str] = []
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        folders = []
        try:
            with os.scandir(source / inside) as scanned:
                listed = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            entries.append((inside, f"folder cannot be read ({error.strerror or error})"))
            continue
        for entry in listed:
            name = f"{inside}/{entry.name}" if inside else entry.name
            try:
                if entry.is_dir() and is_system(entry.name):
                    systems.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif entry.is_dir():
                    entries.append((name, "a link to a folder; links to folders are not followed"))
                elif entry.name.startswith("."):
                    hidden += 1
                elif (problem := _file_problem(entry, root)) is None:
                    others += 1
                else:
                    entries.append((name, problem))
            except OSError as error:  # links that lead to themselves, say
                entries.append((name, f"cannot be read ({error.strerror or error})"))
            except RuntimeError:  # what resolve() raises of them before Python 3.13
                entries.append((name, "cannot be read (a loop of links)"))
        waiting += reversed(folders)
    return entries, Aside(others, hidden, tuple(systems))


def is_table(path: Path) -> bool:
    """Whether a path is a file; or a folder of Parquet files, which are one table, and neither a pack nor of images."""
    if not path.is_dir() or (path / "pack.json").exists():
        return path.is_file()
    return any(file.suffix.lower() in SUFFIXES for file in path.rglob("*")) and not walk(path)[0]


def holds_images(folder: Path) -> bool:
    """Whether an image that is read lies right in a folder."""
    try:
        with os.scandir(folder) as entries:
            return any(not entry.name.startswith(".") and decode.kind_of(entry.name) == "" for entry in entries)
    except OSError:
        return False


def inner_folders(folder: Path) -> list[Path]:
    """The folders right in a folder, by their names; links to folders, and those of systems and tools, are none."""
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink() and not is_system(p.name))
    except OSError:
        return []


def systems_in(folder: Path) -> Aside:
    """The folders of systems and tools right in a folder."""
    try:
        return Aside(folders=tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and is_system(p.name))))
    except OSError:
        return Aside()


def _file_problem(entry: os.DirEntry[str], root: Path) -> str | None:
    """Why a file is not read, or "" for an image that is; None for what is no image."""
    kind = decode.kind_of(entry.name)
    if kind is None and entry.is_file(follow_symlinks=False) and decode.begins_as_image(Path(entry.path)):
        return "an image by its first bytes, but not by its name's ending"
    if kind is None:
        return None
    if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
        return "a link that leads out of the folder"
    if not entry.is_file():
        return "not a regular file"
    return kind


def _labels_file(source: Path) -> Path | None:
    there = [source / name for name in ("labels.csv", "labels.parquet") if (source / name).is_file()]
    if len(there) > 1:
        raise InputError(f"{source}: holds labels.csv and labels.parquet; name the file of labels to use")
    return own(there[0], source) if there else None


def _prefix(source: Path, labels: Path) -> str:
    """The way from the labels' folder to the images, for labels that name images from there."""
    root, base = source.resolve(), labels.resolve().parent
    return root.relative_to(base).as_posix() if root != base and root.is_relative_to(base) else ""
