"""The layout ``lfw``: Labeled Faces in the Wild (Huang et al. 2007), a folder with its archive or its tree.

The source holds ``lfw-deepfunneled.tar`` (or ``.tgz``; any ``lfw*`` archive) or the extracted tree
``NAME/NAME_0001.jpg``, at the top or one folder down, and what there is of ``male_names.txt`` with ``female_names.txt``
(label ``gender``), ``smile_labels.txt`` (label ``smile``) and ``pairs.txt`` (the protocol of pairs). ``identity`` is
the person's folder. The lists name ``.jpg`` files; PNG and other images may stand in their places, under the same names
but for the ending. The archive is read as a stream; nothing is extracted.

The public lists have defects: images that stand in both lists of gender, and images in neither, have unknown gender.
The default crop is the face of the aligned images: columns and rows 65 to 185 of 250.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from veil.data.columns import nfc
from veil.data.decode import MAX_BYTES, Box, kind_of
from veil.data.layouts.folder import Aside, holds_images, inner_folders, systems_in, walk
from veil.data.layouts.listing import Item, Listing, Options, Pair, Remarks, check_options, clean, is_count, only, own
from veil.errors import InputError
from veil.foreign import is_system, most_unpacked, one_line, opened

CROP: Box = (65 / 250, 65 / 250, 185 / 250, 185 / 250)
ARCHIVES = (".tar", ".tgz", ".tar.gz")
ENDING = ".jpg"
STANDARD_COUNT = 13_233
_FREE_MEMBERS, _MEMBER = 1 << 16, 64  # of an archive of any size, and bytes of it for each one more
LISTS = ("male_names.txt", "female_names.txt", "smile_labels.txt", "pairs.txt")


def read(source: Path, options: Options) -> Listing:
    """Lists LFW's images; raises InputError where there are none or a list is malformed."""
    check_options("lfw", options, {}, labels=False)
    if not (source.is_dir() or source.is_file()):
        raise InputError(f"{source}: no such folder")
    remarks = Remarks()
    notes = remarks.notes
    place, archived = _find(source, notes)
    folder = _folder_of_lists(source, place)
    for path in (folder / name for name in LISTS):
        own(path, folder)
    labels, attributes = _labels(folder, notes)
    if archived:
        files = _listed(place)
    else:
        entries, aside = walk(place)
        files = [name for name, problem in entries if not problem]
        notes += (aside if place == source else systems_in(source) + aside).notes()
    if files is not None:
        _compare(remarks, {_stem(name) for name in files}, labels)
    items = _from_archive(place, notes) if archived else _from_tree(place)
    pairs = _pairs(folder / "pairs.txt", notes)
    return Listing(
        items=_labelled(items, labels, pairs),
        count=len(files) if files is not None else None,
        attributes=("identity", *attributes),
        crop=CROP,
        pairs=pairs,
        notes=notes,
        warnings=remarks.warnings,
    )


def _find(source: Path, notes: list[str]) -> tuple[Path, bool]:
    """The archive and True, or the tree and False."""
    if source.is_file():
        return source, True
    archives = sorted(p for p in source.glob("lfw*") if p.name.lower().endswith(ARCHIVES) and p.is_file())
    if len(archives) > 1:
        raise InputError(f"{source}: holds several archives ({', '.join(p.name for p in archives)}); name one of them")
    trees = [base for base in (source, *inner_folders(source)) if any(map(holds_images, inner_folders(base)))]
    if len(trees) > 1:  # images named after their folders tell the tree from folders of other images
        trees = [tree for tree in trees if _is_tree(tree)] or trees
    if archives:
        if trees:
            notes.append(f"{archives[0].name!r} was read; the extracted images beside it were not.")
        return archives[0], True
    if not trees:
        raise InputError(f"{source}: holds neither lfw-deepfunneled.tar (.tgz) nor its tree NAME/NAME_0001.jpg")
    return only(source, trees), False


def _is_tree(base: Path) -> bool:
    """Whether a folder holds ``NAME/NAME_0001.jpg``, of any name."""
    return any(
        file.name.startswith(f"{person.name}_") and kind_of(file.name) == ""
        for person in inner_folders(base)
        for file in person.iterdir()
    )


def _folder_of_lists(source: Path, place: Path) -> Path:
    """Where the lists lie: in the source; or beside it, where it is the archive or the tree itself."""
    if source.is_dir() and (source != place or any((source / name).is_file() for name in LISTS)):
        return source
    return source.absolute().parent


def _listed(archive: Path) -> list[str] | None:
    """The names of the images in an archive, or None where it is compressed and listing it would mean unpacking it."""
    try:
        with opened(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            files = [member for member in tar if not member.isdir() and not _left_aside(clean(member.name))]
            return [member.name for member in files if not _judge(member, set())[1]]
    except (tarfile.TarError, OSError, ValueError, OverflowError):
        return None  # compressed, or damaged: reading it as a stream tells


def _from_archive(archive: Path, notes: list[str]) -> Iterator[Item]:
    """The images as they come; what was left aside is noted at the end."""
    seen: set[str] = set()
    aside = Aside()
    try:
        with opened(archive) as file:
            whole: Any = _Unpacked(archive, file)  # tarfile asks for no more than read
            # It is not closed, as it would then be read on to its end.
            tar = tarfile.open(fileobj=whole, mode="r|")  # noqa: SIM115
            size = os.fstat(file.fileno()).st_size
            for count, member in enumerate(tar, 1):
                if member.size > most_unpacked(size):  # which would be read to pass it over
                    raise InputError(f"{archive}: {clean(member.name)!r} says that it has {member.size:,} bytes")
                if count > _FREE_MEMBERS + size // _MEMBER:
                    raise InputError(f"{archive}: must have at most {count - 1:,} members in {size:,} bytes, got more")
                if member.isdir():
                    continue
                name = clean(member.name)
                if left := _left_aside(name):
                    aside += left
                    continue
                source, problem = _judge(member, seen)
                if problem:
                    yield Item(name, None, problem=problem)
                    continue
                inside = tar.extractfile(member)
                assert inside is not None  # _judge lets regular files pass only
                data = inside.read()
                seen.add(source)
                yield Item(source, data)
            notes += replace(aside, folders=tuple(sorted(set(aside.folders)))).notes()
    except InputError:
        raise
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{archive}: damaged or cut off after {len(seen)} images ({one_line(error)})") from None


class _Unpacked:
    """The bytes of an archive, unpacked where it is compressed: as a stream, and no more than a file of its size may.

    Raises:
        InputError: Beyond that.
    """

    def __init__(self, archive: Path, file: IO[bytes]) -> None:
        self._archive, self._read_so_far = archive, 0
        self._most = most_unpacked(os.fstat(file.fileno()).st_size)
        start = file.read(6)
        file.seek(0)
        self._file: Any = file
        if start.startswith(b"\x1f\x8b"):
            self._file = gzip.GzipFile(fileobj=file)
        elif start.startswith(b"BZh"):
            self._file = bz2.BZ2File(file)
        elif start.startswith(b"\xfd7zXZ\0"):
            self._file = lzma.LZMAFile(file)  # noqa: SIM115

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        self._read_so_far += len(data)
        if self._read_so_far > self._most:
            raise InputError(f"{self._archive}: must unpack to at most {self._most:,} bytes, got more")
        return data


def _left_aside(name: str) -> Aside | None:
    """What a file is counted as that is no image, or is hidden, or lies in a folder of a system or tool; else None."""
    path = PurePosixPath(name)
    inside = (folder for folder in reversed(path.parents) if folder.name != ".." and is_system(folder.name))
    if system := next(inside, None):
        return Aside(folders=(str(system),))
    if path.name.startswith("."):
        return Aside(hidden=1)
    return Aside(others=1) if kind_of(path.name) is None else None


def _judge(member: tarfile.TarInfo, seen: set[str]) -> tuple[str, str]:
    """The image's source ``NAME/FILE``, and why the member is refused, or ""."""
    path = PurePosixPath(clean(member.name))
    source = "/".join(path.parts[-2:])
    if path.is_absolute() or ".." in path.parts:
        return source, "an absolute path or one with .."
    if not member.isreg():
        return source, "a link, device or other special file"
    if kind := kind_of(path.name):
        return source, kind
    if len(path.parts) < 2:
        return source, "not in a person's folder"
    if member.size > MAX_BYTES:
        return source, f"more than {MAX_BYTES // 2**20} MiB"
    if source in seen:
        return source, "a second file of that name"
    return source, ""


def _from_tree(tree: Path) -> Iterator[Item]:
    seen: set[str] = set()
    for name, problem in walk(tree)[0]:
        parts = clean(name).split("/")
        source = "/".join(parts[-2:])
        if not problem:
            problem = "not in a person's folder" if len(parts) < 2 else ""
            problem = "a second file of that name" if source in seen else problem
        seen.add(source)
        yield Item(clean(name) if problem else source, tree / name, problem=problem)


_Labels = dict[str, dict[str, str | None]]
"""Label name -> name of a file without its ending -> class."""


def _stem(name: str) -> str:
    """A file's name as the lists' names are compared: without folders and its ending."""
    return nfc(PurePosixPath(name).stem)


def _labelled(items: Iterator[Item], labels: _Labels, pairs: list[Pair] | None) -> Iterator[Item]:
    """The items with their labels; when all are read, ``pairs`` name them by the endings that they have."""
    named: dict[str, str] = {}
    for item in items:
        person, _, file = item.source.rpartition("/")
        if not item.problem and not file.endswith(ENDING):
            named[f"{person}/{PurePosixPath(file).stem}{ENDING}"] = item.source
        words: dict[str, str | None] = {name: table.get(_stem(file)) for name, table in labels.items()}
        yield Item(item.source, item.data, {"identity": person, **words}, None, item.problem)
    if pairs is not None:
        pairs[:] = [(named.get(a, a), named.get(b, b), same, fold) for a, b, same, fold in pairs]


def _labels(folder: Path, notes: list[str]) -> tuple[_Labels, list[str]]:
    labels: _Labels = {}
    lists = {gender: folder / f"{gender}_names.txt" for gender in ("female", "male")}
    missing = [path.name for path in lists.values() if not path.is_file()]
    if len(missing) == 1:
        raise InputError(f"{folder}: holds one list of gender without the other; {missing[0]} is missing")
    if not missing:
        names = {gender: {_stem(line) for line in _lines(path)} for gender, path in lists.items()}
        both = names["female"] & names["male"]
        labels["gender"] = {name: None if name in both else gender for gender in names for name in names[gender]}
        if both:
            notes.append(f"{len(both)} images stand in both lists of gender; their gender is taken as unknown.")
    path = folder / "smile_labels.txt"
    if path.is_file():
        labels["smile"] = {}
        for number, line in enumerate(_lines(path), 1):
            name, _, value = line.rpartition(" ")
            if value not in ("0", "1") or not name:
                raise InputError(f"{path}: line {number} is {line!r}; must be an image and 0 or 1")
            labels["smile"][_stem(name.strip())] = "yes" if value == "1" else "no"
    for name, files in (("gender", "male_names.txt with female_names.txt"), ("smile", "smile_labels.txt")):
        if name not in labels:
            notes.append(f"There is no label {name}: {files} is not there.")
    return labels, list(labels)


def _compare(remarks: Remarks, files: set[str], labels: _Labels) -> None:
    """Says what the lists say of no image, and how many images no list of gender speaks of."""
    if len(files) != STANDARD_COUNT:
        remarks.notes.append(f"The standard set has {STANDARD_COUNT} images; here are {len(files)}.")
    for name, table in labels.items():
        spare = len(table.keys() - files)
        if spare:  # whoever takes a part of the set keeps its lists
            remarks.notes.append(f"{spare} entries of the lists of {name} name no image.")
    if "gender" in labels:
        neither = len(files - labels["gender"].keys())
        remarks.lost(f"{neither} images stand in neither list of gender; their gender is unknown.", neither, len(files))


def _pairs(path: Path, notes: list[str]) -> list[Pair] | None:
    """The protocol: a line ``folds pairs``, then in each fold so many pairs of one person and as many of two."""
    if not path.is_file():
        notes.append("There is no protocol of pairs: pairs.txt is not there.")
        return None
    lines = _lines(path)
    try:
        folds, each = (int(word) for word in (["1", *lines[0].split()])[-2:])
        if len(lines) - 1 != folds * each * 2:
            raise InputError(f"{path}: {len(lines) - 1} pairs; its first line announces {folds * each * 2}")
    except (ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: line 1 must give the number of folds and of pairs") from None
    pairs = []
    for number, line in enumerate(lines[1:], 2):
        words = line.split("\t") if "\t" in line else line.split()
        numbers = [words[i] for i in ((1, 2) if len(words) == 3 else (1, 3)) if i < len(words)]
        if len(words) not in (3, 4) or not all(is_count(word.strip()) for word in numbers):
            raise InputError(f"{path}: line {number} is {line!r}; must be NAME N N, or NAME N NAME N")
        second = words[0] if len(words) == 3 else words[2]
        a, b = int(numbers[0]), int(numbers[1])
        pairs.append((_file(words[0], a), _file(second, b), len(words) == 3, (number - 2) // (2 * each)))
    return pairs


def _file(person: str, number: int) -> str:
    return f"{person.strip()}/{person.strip()}_{number:04d}{ENDING}"


def _lines(path: Path) -> list[str]:
    """The lines of a list that are not empty, whatever their ends."""
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
