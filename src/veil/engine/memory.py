"""Memory that a process keeps for a training that asks for the same again and again."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


_keeping = False


@contextmanager
def kept_memory() -> Iterator[None]:
    """Stages of runs inside keep the memory that they free; for a program whose process is its own.

    It changes how the C library serves the whole process, and cannot put back what its host had set there.
    """
    global _keeping
    _keeping = True
    try:
        yield
    finally:
        _keeping = False


def keeps_memory() -> bool:
    """Whether :func:`kept_memory` holds, for processes of our own that work for this one."""
    return _keeping


@contextmanager
def held_memory() -> Iterator[None]:
    """Freed tensors stay with the process inside, for the next step to use; nothing where the C library is not glibc.

    By default glibc hands a large block back to the system when it is freed and gets it anew, zeroed page by page, a
    moment later: a quarter of the time of a training step on CPUs.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    assert libc is not None
    libc.mallopt(_M_MMAP_MAX, 0)  # large blocks come from the heap, too,
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)  # and the heap does not shrink
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, 65536)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**26)
        libc.malloc_trim(0)
