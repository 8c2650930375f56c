"""Files and folders that appear whole or not at all, whatever becomes of the process that writes them.

Until it is whole, and on the disk, what is written stands beside its target under a hidden name of its own,
``.NAME.<16 hex digits>.part``; then it takes the target's name, and what stood there before goes in the same instant.
Its writer holds a lock on it, which goes with the process. What nobody holds a lock on was left by a process that was
killed, and whoever writes the same target next removes it (:func:`sweep`).

Hidden names are random and never followed where they are links: nobody can plant one.
"""

from __future__ import annotations

import ctypes
import errno
import filecmp
import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from veil.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: nothing tells there what a killed process left
    fcntl = None  # type: ignore[assignment]

LOCKS = fcntl is not None
"""Whether anything can be locked here."""
_LOG = logging.getLogger(__name__)

CARDS = {"pack.json": "pack", "release.json": "release"}
"""What says that a folder is a pack, or a release."""
_LONGEST = 200
"""Bytes of a target's name in a hidden one; of a longer name, which may be all that a system allows, stands a hash."""
_HIDDEN = re.compile(r"\.(.+)\.[0-9a-f]{16}\.part", re.DOTALL)
_OLD = "old"
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's fcntl.h
_HERE = -100  # AT_FDCWD


@contextmanager
def written(
    path: Path, *, secret: bool = False, lasting: bool = True, sweeping: bool = True, same: bool = False
) -> Iterator[IO[bytes]]:
    """A file to write; it takes its name when the block ends, unless it ends in an exception.

    Args:
        path: The file, which is replaced if it exists. Its folder must exist.
        secret: Only its owner may read it, whatever stood there before.
        lasting: Wait for the disk.
        sweeping: Remove first what killed processes left of it; not where :func:`sweep_folder` has, and files are many.
        same: A file that is there must hold what is written, and stays.

    Raises:
        FileExistsError: If ``same``, and it does not.
        OSError: If it cannot be written; what stood there before is as it was.
    """
    if sweeping:
        sweep(path)
    hidden, handle = _new(path, 0o600 if secret else 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if lasting:
                os.fsync(file.fileno())
            if same and os.path.lexists(path):
                if not filecmp.cmp(hidden, path, shallow=False):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
                return
            hidden.replace(path)  # while it is locked
        if lasting:
            _sync(path.parent)
    finally:
        with suppress(OSError):  # that nothing could be written must not be hidden by what follows from it
            hidden.unlink(missing_ok=True)


def write_text(path: Path, text: str, what: str) -> Path:
    """A file of text, whole or not at all; its path. Raises InputError, which calls it ``what``, if it cannot be."""
    try:
        with written(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise InputError(f"{path}: the {what} cannot be written ({error.strerror})") from None
    return path


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder beside a target for what will take the target's name (:func:`publish`); removed when the block ends.

    Raises:
        OSError: If it cannot be made.
    """
    sweep(target)
    hidden, handle = _new(target, None)
    try:
        yield hidden
    finally:
        if not _restored(hidden, target):  # what could not be put back is not removed
            shutil.rmtree(hidden, ignore_errors=True)
        os.close(handle)


def publish(folder: Path, target: Path) -> None:
    """Give a folder inside one of :func:`staged` the target's name, and take the place of what has it.

    Raises:
        OSError: If it cannot be done; then what stood there is there.
    """
    for path in (*folder.rglob("*"), folder):
        _sync(path)
    if not os.path.lexists(target):
        folder.rename(target)
    elif not _exchanged(folder, target):
        old = folder.with_name(_OLD)
        target.rename(old)
        try:
            folder.rename(target)
        except BaseException:  # an interruption, too, must not take away what was there
            old.rename(target)
            raise
    _sync(target.parent)


def check_place(target: Path) -> None:
    """Raises InputError for a target inside a pack or a release: of a release the folder is all that ships."""
    for folder in target.absolute().parents:
        for card, kind in CARDS.items():
            if (folder / card).is_file():
                raise InputError(f"{target}: lies in {folder}, which is a {kind}; choose another folder")


def remove(folder: Path) -> None:
    """Remove a folder, of which nothing is left under its name from the first moment on."""
    sweep(folder)
    hidden = folder.with_name(_hidden_name(folder))
    try:
        folder.rename(hidden)
    except FileNotFoundError:
        return
    shutil.rmtree(hidden, ignore_errors=True)


def sweep(target: Path) -> list[Path]:
    """Remove what processes left that were killed while they wrote a target; what was removed.

    A target that was put aside for one that never came is put back first.
    """
    stem = _stem(target)
    return [path for path in _left(target.parent) if _HIDDEN.fullmatch(path.name)[1] == stem and _swept(path, target)]  # type: ignore[index]


def sweep_folder(folder: Path) -> list[Path]:
    """Remove what killed processes left of files right inside a folder, whatever their names; what was removed.

    Hidden folders stay: one may hold what was put aside, and of which target is not known here.
    """
    return [path for path in _left(folder) if _swept(path, None)]


def lock(handle: int, path: Path) -> bool:
    """Lock what a handle has open, until it is closed; whether it still has its name. True where there are no locks.

    Raises:
        BlockingIOError: If somebody else holds it.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return True
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def held(folder: Path) -> int | None:
    """Makes a folder, and holds it until the handle that is returned is closed; None where nothing can be locked.

    Raises:
        InputError: If another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not LOCKS:
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if lock(handle, folder):
            return handle
    except BlockingIOError:
        os.close(handle)
        raise InputError(f"{folder}: another run is writing there now; wait for it, or name another target") from None
    os.close(handle)  # the run that held it has just removed it
    return held(folder)


def is_hidden(name: str) -> bool:
    """Whether a name is one that unfinished work has."""
    return _HIDDEN.fullmatch(name) is not None


# -- inside -----------------------------------------------------------------------------------------------------------


def _stem(target: Path) -> str:
    encoded = os.fsencode(target.name)
    return target.name if len(encoded) <= _LONGEST else hashlib.sha256(encoded).hexdigest()[:32]


def _hidden_name(target: Path) -> str:
    return f".{_stem(target)}.{secrets.token_hex(8)}.part"


def _new(target: Path, mode: int | None) -> tuple[Path, int]:
    """A hidden file of a mode, or a folder for its owner alone, beside a target, and a handle that locks it."""
    while True:
        hidden = target.with_name(_hidden_name(target))
        if mode is None:
            hidden.mkdir(mode=0o700)
            handle = os.open(hidden, os.O_RDONLY | os.O_NOFOLLOW)
        else:
            handle = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with suppress(BlockingIOError):
            if lock(handle, hidden):
                return hidden, handle
        os.close(handle)  # somebody swept it away before it was locked


def _left(folder: Path) -> list[Path]:
    if fcntl is None:
        return []
    try:
        return sorted(path for path in folder.iterdir() if _HIDDEN.fullmatch(path.name))
    except OSError:
        return []


def _swept(path: Path, target: Path | None) -> bool:
    """Removes what no process holds a lock on; whether it did."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # it is gone, or it is none of ours
        return False
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its writer lives, or a file system without locks does not tell
            return False
        if path.is_dir():
            if target is None or _restored(path, target):
                return False
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)
    _LOG.info("%s: removed; a run that was killed had left it", path)
    return True


def _restored(hidden: Path, target: Path) -> bool:
    """Puts back a target that was put aside; whether one is still aside, and must not be removed."""
    old = hidden / _OLD
    if not os.path.lexists(old) or os.path.lexists(target):
        return False
    try:
        old.rename(target)
    except OSError:
        return True
    return False


def _exchanged(one: Path, other: Path) -> bool:
    """Exchanges two names in one instant; false where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    paths: list[Any] = [ctypes.c_char_p(os.fsencode(path)) for path in (one, other)]
    if rename(_HERE, paths[0], _HERE, paths[1], ctypes.c_uint(_EXCHANGE)) == 0:
        return True
    if (number := ctypes.get_errno()) in (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _sync(path: Path) -> None:
    """Puts a file, or the names in a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
