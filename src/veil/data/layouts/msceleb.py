"""The layout ``msceleb``: MS-Celeb-1M (Guo et al. 2016), its tab separated files of faces.

The source is such a file, ``FaceImageCroppedWithAlignment.tsv`` say, or a folder of files ``*.tsv``. A line, without a
header above it, is a face, in seven columns::

    Freebase MID, ImageSearchRank, ImageURL, PageURL, FaceID, FaceRectangle, FaceData

``FaceData`` is the image, a JPEG in base64; it is the face already, so ``FaceRectangle`` (where it stood on the page's
image) is not used. A row's source is ``MID/rank-FaceID``; ``identity`` is the MID. The published labels of identity are
noisy. There are no other labels: a file of labels (CSV or Parquet) may bring some, by source or, in place of that, by
person (a column ``source`` or ``identity`` that holds the MID; a prescribed split then holds for all faces of one).

The files (one has 90 GB) are read line by line, and never kept. A line with another number of columns, or whose image
is not valid base64, is skipped and listed under its file's name and number.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from pathlib import Path

from veil.data.columns import IMAGE_KEYS, plain
from veil.data.decode import MAX_BYTES
from veil.data.layouts import table as tables
from veil.data.layouts.folder import Aside
from veil.data.layouts.listing import Item, Listing, Options, check_options, own
from veil.errors import InputError

COLUMNS = ("Freebase MID", "ImageSearchRank", "ImageURL", "PageURL", "FaceID", "FaceRectangle", "FaceData")
MAX_LINE = MAX_BYTES // 3 * 4 + 2**16  # the largest image in base64, and room for the other columns


def read(source: Path, options: Options) -> Listing:
    """Lists the faces of the files; raises InputError where one has no usable line, or labels do not fit."""
    check_options("msceleb", options, {}, labels=True)
    files, hidden = _files(source)
    for path in files:
        _check(path)
    table = None if options.labels is None else tables.read(options.labels, (*IMAGE_KEYS, "identity"))
    others = () if table is None else tuple(name for name in table.codes if name != "identity")
    marks = {} if table is None else table.predicted
    notes = [] if table is None else [f"Labels were read from {table.path.name!r}.", *table.notes]
    notes += Aside(hidden=hidden).notes()
    return Listing(
        items=_items(files, table),
        count=None,
        attributes=("identity", *others),
        pairs=None if table is None else table.pairs,
        notes=notes,
        predicted={name: mark for name, mark in marks.items() if name != "identity"},
    )


def _items(files: list[Path], table: tables.Table | None) -> Iterator[Item]:
    row = {} if table is None else {plain(name): i for i, name in enumerate(table.names)}
    person, seen, joined = "", set[str](), False
    for path in files:
        for number, line in _lines(path):
            try:
                mid, source, data = _face(line)
            except ValueError as error:
                yield Item(f"{path.name}:{number}", None, problem=str(error))
                continue
            # A person's lines stand together, so these names do not grow with the file.
            person, seen = (mid, seen) if mid == person else (mid, set())
            if source in seen:
                yield Item(f"{path.name}:{number}", None, problem=f"a second line of {source}")
                continue
            seen.add(source)
            labels: dict[str, str | None] = {}
            split, missing = None, ""
            if table is not None:
                i = row.get(plain(source), row.get(plain(mid), -1))
                joined = joined or i >= 0
                labels, (split, missing) = table.row(i), table.split_of(i)
            labels["identity"] = mid
            yield Item(source, data, labels, split, missing)
    if table is not None and not joined:
        raise InputError(
            f"{table.path}: none of its rows names one of the images, as MID/rank-FaceID, or its MID "
            f"(its column {table.key} holds {next(iter(table.names), '')!r})"
        )


def _face(line: bytes | None) -> tuple[str, str, bytes]:
    """A line's MID, source and encoded image; raises ValueError, with words for ``skipped.csv``, if it is malformed."""
    if line is None:
        raise ValueError(f"a line of more than {MAX_LINE // 2**20} MiB")
    fields = line.split(b"\t")
    if len(fields) != len(COLUMNS):
        raise ValueError(f"{len(fields)} columns where there must be {len(COLUMNS)}")
    mid, rank, face = (fields[i].decode("utf-8", "backslashreplace").strip() for i in (0, 1, 4))
    if not (mid and rank and face):
        raise ValueError("no Freebase MID, ImageSearchRank or FaceID")
    try:
        data = binascii.a2b_base64(fields[-1], strict_mode=True)
    except binascii.Error as error:
        raise ValueError(f"its image is not valid base64 ({error})") from None
    if not data:
        raise ValueError("its image is empty")
    return mid, f"{mid}/{rank}-{face}", data


def _lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """The numbers of the lines that are not empty, and the lines without their ends; None for one that is too long."""
    number = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE):
                number += 1
                whole = len(line) < MAX_LINE or line.endswith(b"\n")
                while len(line) == MAX_LINE and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE)  # the rest of a line that is too long, a part at a time
                if line.strip() or not whole:
                    yield number, line.rstrip(b"\r\n") if whole else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read after line {number} ({error.strerror or error})") from None


def _check(path: Path) -> None:
    """Raises InputError unless the file has a usable line; reads no further than to the first."""
    first = ""
    for number, line in _lines(path):
        try:
            _face(line)
            return
        except ValueError as error:
            first = first or f"line {number}: {error}"
    raise InputError(
        f"{path}: no usable line, which has {len(COLUMNS)} columns, tab separated, from Freebase MID to FaceData "
        f"({first or 'it is empty'})"
    )


def _files(source: Path) -> tuple[list[Path], int]:
    """The source itself, or the files of a folder in the order of their names, and how many of them are hidden."""
    if source.is_file():
        return [source], 0
    if not source.is_dir():
        raise InputError(f"{source}: no such file or folder")
    files = sorted(path for path in source.iterdir() if path.suffix.lower() == ".tsv" and path.is_file())
    visible = [path for path in files if not path.name.startswith(".")]
    if not visible:
        raise InputError(f"{source}: holds no file *.tsv")
    return [own(path, source) for path in visible], len(files) - len(visible)
