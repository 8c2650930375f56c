"""What lies beside a release and never in it: its secret key, and where the hashes of what it was fitted on are."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from veil.data import fitted
from veil.errors import InputError
from veil.files import written
from veil.foreign import (
    opened,
)

KEY_BYTES = 32
MATRIX_BYTES = 16
"""A release that was renewed has another secret for its matrix, behind the one that draws its noise."""
_LENGTHS = (KEY_BYTES, KEY_BYTES + MATRIX_BYTES)


def new_key() -> bytes:
    """A fresh secret from the operating system: the one draw that must not follow a seed."""
    return secrets.token_bytes(KEY_BYTES)


def renewed_key(key: bytes, matrix: bytes | None = None) -> bytes:
    """A key that draws the same noise and another matrix: a fresh one, or that of a secret."""
    return key[:KEY_BYTES] + (secrets.token_bytes(MATRIX_BYTES) if matrix is None else matrix[:MATRIX_BYTES])


def wrong_key(key: bytes) -> str:
    """What is wrong with the length of a key; "" if nothing is."""
    if len(key) in _LENGTHS:
        return ""
    return f"must have {KEY_BYTES} bytes, or {sum(_LENGTHS) - KEY_BYTES} once it was renewed, got {len(key)}"


def read_key_file(path: Path) -> bytes:
    """The secret in a key file; raises InputError unless it is as long as one.

    Of a release that was about to take another's place when it was killed the file holds both keys, the new one first.
    """
    return keys_in(path)[0]


def keys_in(path: Path) -> list[bytes]:
    """The keys that a file may hold: one, or two behind each other, of which the lengths may be either way round."""
    longest = 2 * max(_LENGTHS)
    try:
        with opened(path) as file:
            data = file.read(longest + 1)
    except OSError as error:
        raise InputError(f"{path}: the key cannot be read ({error.strerror})") from error
    if len(data) in _LENGTHS:
        return [data]
    split = [n for n in _LENGTHS if len(data) - n in _LENGTHS]
    if not split:
        size = len(data) if len(data) <= longest else path.stat().st_size
        raise InputError(f"{path}: a key {wrong_key(bytes(size))}")
    return [*(data[:n] for n in split), *(data[n:] for n in split)]


def named(path: str | Path) -> Path:
    """A path whose last part is a name, for files beside it to share; ``.`` and ``..`` are written out.

    Raises:
        InputError: For the root, which has none, and a name that is not UTF-8.
    """
    from veil.data.layouts.listing import check_utf8  # whoever loads a release need not wait for image decoders

    path = Path(path)
    check_utf8(path)
    if path.name in ("", ".."):
        path = path.resolve()
    if not path.name:
        raise InputError(f"{path}: not a name for a folder")
    return path


def check_key(path: Path, key: bytes) -> None:
    """Raises InputError where another key is in the place of a release's."""
    beside = key_path(path)
    if beside.exists() and read_key_file(beside) != key:
        raise InputError(f"{beside}: holds another key, which releases that are out may need; move it, or force")


def key_path(release: Path) -> Path:
    release = named(release)
    return release.with_name(release.name + ".key")


def fitted_path(release: Path) -> Path:
    """Where hashes of what a release was fitted on lie."""
    release = named(release)
    return release.with_name(release.name + fitted.SUFFIX)


def key_check(key: bytes) -> str:
    """Tells whether a key is this release's without giving the key away."""
    return hashlib.blake2b(b"veil key check", key=key, digest_size=8).hexdigest()


def write_secret(path: Path, data: bytes) -> None:
    with written(path, secret=True) as file:
        file.write(data)


def read_key(path: Path, given: str | Path | None, check: str | None) -> bytes | None:
    if check is None:
        if given is not None:
            raise InputError(f"{given}: {path} is a release without anything keyed, and takes no key")
        return None
    source = Path(given) if given is not None else key_path(path)
    if given is None and not source.exists():
        return None
    key = next((key for key in keys_in(source) if key_check(key) == check), None)
    if key is None:
        raise InputError(f"{source}: is not the key of {path}")
    return key
