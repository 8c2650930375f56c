"""How many threads compute, said so that a host process keeps its own settings.

``torch.set_num_threads`` sets the calling thread's count *and* what every thread that first uses torch later starts
with: two threads that set and restore it leave the wrong count behind for good. So the count of one thread alone is set
here, through the OpenMP and MKL libraries that torch is linked with. NumPy's BLAS counts for the whole process: whoever
limits it first remembers what was, and whoever leaves last restores it.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

T = TypeVar("T")
U = TypeVar("U")


def _function(name: str) -> Any:
    """A function of the libraries that torch is linked with; None where it cannot be had (on Windows, say)."""
    try:
        return getattr(ctypes.CDLL(torch._C.__file__), name)
    except (OSError, AttributeError):
        return None


_OPENMP = _function("omp_set_num_threads")
_MKL = _function("MKL_Set_Num_Threads_Local")  # returns the count before, 0 for none of its own
SETTABLE = _OPENMP is not None
"""Whether one thread's count can be set by itself."""


def _set(openmp: int, mkl: int) -> int:
    """Set the calling thread's counts; MKL's before."""
    # A thread's first use of torch gives it the process's count: before, so that it does not undo what is set here.
    torch.get_num_threads()
    if _OPENMP is not None:
        _OPENMP(openmp)
    return 0 if _MKL is None else int(_MKL(mkl))


def keep_to_one() -> None:
    """Torch computes on the calling thread alone from now on, where this is called in it; for threads of our own."""
    _set(1, 1)


_LOCK = threading.Lock()
_blas: Any = None
_users = 0


@contextmanager
def one_thread() -> Iterator[None]:
    """What the calling thread asks of torch, OpenMP and NumPy inside is computed by it alone.

    Other threads' counts stay, but for NumPy's BLAS, which has one thread for all while any is inside.
    """
    global _blas, _users
    threads = torch.get_num_threads()
    mkl = _set(1, 1)
    with _LOCK:
        if not _users:
            _blas = threadpool_limits(1, user_api="blas")
        _users += 1
    try:
        with threadpool_limits(1, user_api="openmp"):  # of the calling thread alone; other libraries have their own
            yield
    finally:
        with _LOCK:
            _users -= 1
            if not _users:
                _blas.restore_original_limits()
        _set(threads, mkl)


def in_order(function: Callable[[T], U], items: Iterator[T]) -> Generator[U, None, None]:
    """A function of items, in their order, by as many threads as PyTorch would use for one of them.

    Networks and noise take turns in a batch, and noise keeps to one thread: whole batches side by side are quicker. And
    what one thread computes does not depend on how many there are, so a run may be resumed where there are others. The
    threads are of our own, and no other's count changes. Where that cannot be had, items are taken one by one.
    """
    threads = torch.get_num_threads()
    if not SETTABLE:
        yield from map(function, items)
        return
    waiting: deque[Future[U]] = deque()
    with ThreadPoolExecutor(threads, initializer=keep_to_one) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
