"""Files that others made: read within bounds, and by rules for every field, so that none does harm or costs too much.

Whoever sends a file chooses what stands in it: a number of rows that no memory holds, nesting without end, a pipe in
place of a file. Readers ask the questions of this module before they rely on what a file says of itself; what breaks a
rule is refused in one line. It knows no format but JSON and npy; readers of others have their bounds beside them.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from veil.errors import InputError, printable

MOST_JSON = 1 << 28
"""Bytes of a file of JSON."""

FREE_BYTES, UNPACKED = 1 << 27, 64
"""Bytes that a compressed file of any size may unpack to, and how many more for each of its own."""

MOST_LETTERS = 1024
"""Of a name, or a class: arrays of names take as much for each as for the longest."""

MOST_SIDES = 32
"""Axes of an array: as many as NumPy has."""

SYSTEM_FOLDERS = frozenset(
    ("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "__macosx", "__pycache__",
     "node_modules", "lost+found", "$recycle.bin", "recycler", "recycled", "system volume information",
     "network trash folder", "temporary items")
)  # fmt: skip
"""Names, in small letters, of folders that systems and tools keep for themselves, beside all that begin with a dot."""


def is_system(name: str) -> bool:
    """Whether a folder of this name is one that a system or a tool keeps for itself."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def one_line(error: BaseException, most: int = 200) -> str:
    """What an exception says, as a part of one line; the system's own words without names of files."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(" ".join(said.split()))[:most] or type(error).__name__


def opened(path: Path) -> io.BufferedReader:
    """A file, open for reading; nothing else is opened, and nothing waited for.

    Raises:
        OSError: As ``open`` does.
        InputError: For a pipe, a device or a folder, which a name may well be of.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(f"{path}: must be a file, got a folder, pipe or device")
    return os.fdopen(handle, "rb")


def read_bytes(path: Path, most: int) -> bytes:
    """All of a file of at most so many bytes; raises as :func:`opened`, and InputError for one of more."""
    with opened(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise InputError(f"{path}: must have {most:,} bytes at most, got {path.stat().st_size:,}")
    return data


def most_unpacked(size: int) -> int:
    """Bytes that a compressed file of so many bytes may unpack to: real images and vectors hardly shrink."""
    return FREE_BYTES + UNPACKED * size


_STREAMED = 1 << 29  # bytes


def check_archive(path: Path, archive: zipfile.ZipFile, streamed: str = "") -> None:
    """Raises InputError for a zip file of which a member unpacks to more than one of its size may.

    The member of the name ``streamed`` is read piece by piece: of it more is only a matter of time.
    """
    for entry in archive.infolist():
        more = _STREAMED if entry.filename == streamed else 0
        if entry.file_size > (most := most_unpacked(entry.compress_size) + more):
            raise InputError(
                f"{path}: {entry.filename} must unpack to at most {most:,} bytes from {entry.compress_size:,}, got "
                f"{entry.file_size:,}"
            )


# -- JSON -------------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """The value in a file of JSON (RFC 8259): numbers are finite ones.

    Raises:
        OSError: As ``open`` does.
        InputError: For what is no JSON in UTF-8, whole and of fewer than :data:`MOST_JSON` bytes.
    """
    try:
        return parsed_json(read_bytes(path, MOST_JSON).decode())
    except InputError:
        raise
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InputError(f"{path}: must be whole JSON, broken at {where} ({error.msg})") from None
    except ValueError as error:
        raise InputError(f"{path}: must be JSON in UTF-8 ({one_line(error)})") from None


def parsed_json(text: str) -> Any:
    """The value that a text of JSON stands for; raises ValueError for another text, whatever its length or depth."""
    try:
        return json.loads(text, parse_constant=_refused)
    except RecursionError as error:
        raise ValueError(one_line(error)) from None


def _refused(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


# -- rules for fields -------------------------------------------------------------------------------------------------

Rule = tuple[str, Callable[[Any], bool]]
"""What a value must be, in words and as a test."""


def is_whole(x: Any, least: float = -math.inf, most: float = 2**53) -> bool:
    """Whether a value is a whole number in a range, within those that every reader of JSON tells apart."""
    return isinstance(x, int | np.integer) and not isinstance(x, bool) and bool(max(least, -(2**53)) <= x <= most)


def is_number(x: object) -> bool:
    return isinstance(x, int | float | np.integer | np.floating) and not isinstance(x, bool)


def is_finite(x: Any) -> bool:
    """Whether a number is one of float64: a file may hold integers of any length."""
    try:
        return math.isfinite(float(x))
    except OverflowError:
        return False


def is_real(x: object, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether a value is a finite number in a range."""
    return is_number(x) and is_finite(x) and least <= float(x) <= most  # type: ignore[arg-type]


def each(what: str, fits: Callable[[Any], bool]) -> Rule:
    """A list, or in memory a tuple, whose values all fit."""
    return f"a list of {what}", lambda x: isinstance(x, list | tuple) and all(fits(value) for value in x)


def either(rule: Rule) -> Rule:
    """What fits a rule, or null."""
    words, fits = rule
    return f"{words} or null", lambda x: x is None or fits(x)


def whole(least: int, most: int = 2**53) -> Rule:
    """A whole number in a range."""
    return f"a whole number from {least:,} to {most:,}", lambda x: is_whole(x, least, most)


def real(least: float, most: float = math.inf) -> Rule:
    """A finite number in a range."""
    words = f"a number of at least {least:g}" if most == math.inf else f"a number in {least:g} .. {most:g}"
    return words, lambda x: is_real(x, least, most)


def among(*values: str) -> Rule:
    """One of several texts."""
    return f"one of {', '.join(values)}", lambda x: isinstance(x, str) and x in values


def _is_text(x: object) -> bool:
    """Whether a value is a text that can be written again: JSON may hold halves of letters."""
    return isinstance(x, str) and (x.isascii() or x == x.encode(errors="replace").decode())


ANYTHING: Rule = ("anything", lambda x: True)
TEXT: Rule = ("a text", _is_text)
FLAG: Rule = ("true or false", lambda x: isinstance(x, bool))
WHOLE: Rule = ("a whole number", is_whole)
OBJECT: Rule = ("an object", lambda x: isinstance(x, dict))
LIST: Rule = ("a list", lambda x: isinstance(x, list))
TEXTS = each("texts", _is_text)
WHOLES = each("whole numbers", is_whole)
REALS = each("finite numbers", is_real)
LISTS_OF_TEXTS: Rule = (
    "an object of lists of texts",
    lambda x: isinstance(x, dict) and all(TEXTS[1](names) for names in x.values()),
)
SHA256: Rule = (
    "a SHA-256 of 64 hex digits",
    lambda x: isinstance(x, str) and len(x) == 64 and set(x) <= set("0123456789abcdef"),
)


def shown(x: object) -> str:
    """A value in a message."""
    try:
        text = repr(x)
    except ValueError:  # an integer of more digits than Python writes
        text = "a number beyond all bounds"
    return printable(text if len(text) <= 60 else text[:57] + "...")


def check_fields(
    entry: Any, place: str, rules: Mapping[str, Rule], needed: Sequence[str] = (), *, others: bool = False
) -> None:
    """Whether an entry is an object of the fields that it needs, each as its rule says.

    Args:
        entry: What stands in a file.
        place: Where it stands there; "" for the whole.
        rules: For each field that is known.
        needed: Fields that must be there.
        others: Whether fields without a rule may be there, too.

    Raises:
        ValueError: For the first field that breaks its rule, with its place and value.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{place or 'it'} must be an object, got {shown(entry)}")
    inside = f"{place}." if place else ""
    for name in needed:
        if name not in entry:
            raise ValueError(f"{inside}{name} is missing")
    for name, value in entry.items():
        if name not in rules:
            if others:
                continue
            raise ValueError(f"{inside}{shown(name)[1:-1]} is no field that is known ({', '.join(rules)})")
        words, fits = rules[name]
        if not fits(value):
            raise ValueError(f"{inside}{name} must be {words}, got {shown(value)}")


# -- npy --------------------------------------------------------------------------------------------------------------


_MOST_HEADER = 10_000  # as NumPy's own readers have it


class NoPlainArray(ValueError):
    """An npy file that holds something else; the message says what."""


@dataclass(frozen=True)
class Header:
    """What stands before the values of an npy file, or of one inside an npz file."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @staticmethod
    def read(file: IO[bytes], size: int | None = None) -> Header:
        """Of a file that stands at its beginning; with its size in bytes, one that holds less than it says is refused.

        Nothing may be asked for on the word of a header alone: memory for 10^15 rows, say.

        Raises:
            NoPlainArray: For pickled objects, or fields with names.
            ValueError: For what is no header at all; EOFError: for one of more values than the file holds.
        """
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise NoPlainArray(f"version {version} of npy is for names of fields, and holds no plain array")
        before = file.read(2 * version[0])
        if (length := int.from_bytes(before, "little")) > _MOST_HEADER:
            raise ValueError(f"its header must have at most {_MOST_HEADER:,} bytes, got {length:,}")
        header = io.BytesIO(before + file.read(length))
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of headers that an old Python is said to have written
                shape, fortran, dtype = read(header)
        except (
            TypeError,
            LookupError,
            MemoryError,
            AttributeError,
            SyntaxError,
            RecursionError,
            TokenError,
            Warning,
        ) as error:
            # NumPy has Python's own parser read it.
            said = "nested too deep" if isinstance(error, MemoryError) else one_line(error, 80)  # of the parser's stack
            raise ValueError(f"its header is damaged ({said})") from None
        if dtype.hasobject:
            raise NoPlainArray("pickled objects, which are never loaded")
        if dtype.names is not None or dtype.subdtype is not None:
            raise NoPlainArray(f"values of several parts, {shown(str(dtype))}")
        if len(shape) > MOST_SIDES or not all(type(side) is int and 0 <= side < 2**63 for side in shape):
            raise ValueError(f"its shape must be whole numbers of at least 0, got {shown(shape)}")
        found = Header(shape, bool(fortran), dtype)
        if size is not None and found.bytes > size - file.tell():
            raise EOFError("it ends before its last row")
        return found

    @property
    def bytes(self) -> int:
        """Of all values."""
        return math.prod(self.shape) * self.dtype.itemsize
