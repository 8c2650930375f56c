"""What a release was fitted on: hashes of rows and of people, in a file *beside* the release, like its key.

Figures of a release are worth nothing where it has seen the people that they are measured on. So an audit of other
data than those of the fit must know what these were. ``NAME.fitted`` holds two lists of salted hashes of 8 bytes, as
safetensors. They are no names and no pictures, but whoever has a guess of either can try it: the file stays apart from
the release, and may be withheld; an audit then says that nothing can be known.

A row's hash is of its content: an image's pixels; a vector's values, or, where only its direction counts, their shares
of the largest, to three digits or so, so that copies of another length are the same row. The same picture decoded,
cropped or compressed anew is another row. A person's hash is of the class name of ``identity`` (in Unicode's
form NFC), so the same person under another name is another person, and another person of the same name is not.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from veil.data.pack import Pack
from veil.foreign import one_line, opened

Hashes = NDArray[np.uint64]

SUFFIX = ".fitted"
UNDERNEATH = "underneath"
"""What ``made`` calls the fingerprints of the data that releases underneath were fitted on."""
_SCHEMA = "1"
_SALT = 16
_MOST = 1 << 31  # bytes of a file: 2^28 rows
_CHUNK = 1024
_FEWEST = 4  # values of a vector whose direction says which one it is


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """Hashes of what a release, and whatever is underneath it, was fitted on.

    Attributes:
        salt: 16 random bytes that take part in every hash.
        direction: Whether vectors that differ in their length alone are one row.
        rows: ``(n,)`` of rows, sorted, each once.
        people: ``(m,)`` of people, sorted, each once; none where nobody was known.
        problem: Why the hashes are not known; "" where they are.
    """

    salt: bytes = b""
    direction: bool = False
    rows: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))
    people: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))
    problem: str = ""

    def has_rows(self, x: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some ``rows`` ``(n,)`` of ``x`` ``(N, ...)`` are among those fitted on, by content ``(n,)``."""
        return np.isin(_of_rows(x, rows, self.salt, self.direction), self.rows)

    def has_people(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Which of some people are among those fitted on, by name ``(n,)``."""
        return np.isin(_of_people(names, self.salt), self.people)


def recorded(
    pack: Pack,
    before: Fitted | None,
    *,
    others: Sequence[str] = (),
    direction: bool,
    splits: Sequence[str] = ("protect",),
    people: bool = True,
) -> Fitted:
    """What a release was fitted on: some splits of a pack, and what was known before, of the releases underneath.

    Args:
        pack: With the rows.
        before: Hashes of what the releases underneath were fitted on.
        others: Fingerprints of the data of those that were fitted on other packs.
        direction: Whether only the direction of an input vector counts.
        splits: Those that were looked at.
        people: Whether the label ``identity``, where there is one, tells people.
    """
    known = before if before is not None and not before.problem else None
    if others and known is None:
        return Fitted(problem="nothing says what the release underneath was fitted on")
    salt = known.salt if known else secrets.token_bytes(_SALT)
    rows = pack.rows(*splits)
    names: list[str] = []
    if people and "identity" in pack.labels:
        codes = np.unique(pack.labels["identity"][rows])
        names = [pack.classes["identity"][code] for code in codes[codes >= 0]]
    hashes = np.unique(_of_rows(pack.x, rows, salt, direction)), np.unique(_of_people(names, salt))
    if known:
        hashes = np.union1d(hashes[0], known.rows), np.union1d(hashes[1], known.people)
    return Fitted(salt=salt, direction=direction, rows=hashes[0], people=hashes[1])


def _of_rows(x: NDArray[Any], rows: NDArray[np.int64], salt: bytes, direction: bool) -> Hashes:
    """A hash of each of some rows; some at a time, as ``x`` may be mapped."""
    digests = []
    for start in range(0, len(rows), _CHUNK):
        values = np.ascontiguousarray(_canonical(np.asarray(x[rows[start : start + _CHUNK]]), direction))
        digests += [hashlib.blake2b(row.data, digest_size=8, key=salt, person=b"row").digest() for row in values]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def _of_people(names: Sequence[str], salt: bytes) -> Hashes:
    texts = (unicodedata.normalize("NFC", name).encode() for name in names)
    digests = [hashlib.blake2b(text, digest_size=8, key=salt, person=b"person").digest() for text in texts]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def _canonical(x: NDArray[Any], direction: bool) -> NDArray[Any]:
    """What of rows ``(n, ...)`` is hashed: images and vectors as they are, directions as rounded values.

    Another length changes each value by a rounding error of itself: the more bits are kept of each, the more
    rows fall on another side of a border. So many are kept that one row in a hundred or so does (measured); values of
    whatever size tell rows apart.
    """
    if x.dtype != np.float32:
        return x
    if not direction or x.shape[1] < _FEWEST:
        return x + np.float32(0)  # -0.0 is 0.0
    bits = min(max(19 - int(x.shape[1]).bit_length(), 7), 15)
    largest = np.abs(x).max(1, keepdims=True).astype(np.float64)
    mantissa, exponent = np.frexp(x / np.where(largest > 0, largest, 1))
    rounded: NDArray[np.float64] = np.ldexp(np.round(mantissa * 2.0**bits), exponent - bits) + 0.0
    return rounded


# -- on disk ----------------------------------------------------------------------------------------------------------


def serialised(fitted: Fitted, card: str) -> bytes:
    """What a file holds that only its owner should read.

    Args:
        fitted: What it says.
        card: SHA-256 of the release's ``release.json``, by which a reader knows whose it is.
    """
    about = {
        "schema": _SCHEMA, "release": card, "salt": fitted.salt.hex(), "direction": "yes" if fitted.direction else "no",
    }  # fmt: skip
    data: bytes = to_bytes({"rows": fitted.rows, "people": fitted.people}, metadata=about)
    return data


def read(path: Path, card: str) -> Fitted | None:
    """What a release was fitted on; None where there is no file, and the problem where it is no use.

    Nothing is unpickled.

    Args:
        path: The file.
        card: SHA-256 of the ``release.json`` that it must belong to.
    """
    if not os.path.lexists(path):
        return None
    try:
        with opened(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > _MOST:
                raise ValueError(f"must have {_MOST} bytes at most, got {size}")
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            if about.get("schema") != _SCHEMA:
                raise ValueError(f"schema must be {_SCHEMA}, got {about.get('schema')!r}")
            if about.get("release") != card:
                return Fitted(problem=f"{path.name!r} is another release's")
            salt = bytes.fromhex(about["salt"])
            rows, people = (file.get_tensor(name) for name in ("rows", "people"))
        for name, values in (("rows", rows), ("people", people)):
            if values.dtype != np.uint64 or values.ndim != 1 or not (values[1:] > values[:-1]).all():
                raise ValueError(f"{name} must be sorted hashes, got {values.dtype} {values.shape}")
        if len(salt) != _SALT:
            raise ValueError(f"the salt must have {_SALT} bytes, got {len(salt)}")
        return Fitted(salt=salt, direction=about.get("direction") == "yes", rows=rows, people=people)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        return Fitted(problem=f"{path.name!r} cannot be read ({one_line(error)})")
