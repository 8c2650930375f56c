"""Carrying out tasks, here or in worker processes: whatever a task raises, the others go on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext

import numpy as np
from joblib import Parallel, delayed

from veil.auditing.task import Failure, Missing, Outcome, Task
from veil.auditing.workers import end_with
from veil.engine.memory import keeps_memory, kept_memory
from veil.threads import one_thread

Result = Outcome | Failure

_AHEAD = 2  # tasks for each worker that joblib gives out before they are asked for


def executed(tasks: Sequence[Task], jobs: int | None) -> Iterator[tuple[Task, Result]]:
    """Tasks and what became of them, as they end; worker processes share arrays through memory-mapped files.

    A worker that is killed, by the system where memory runs out, say, takes the others down. What they were at is done
    again, each alone; what then kills its worker again has failed.

    Args:
        tasks: Those that take long begin first.
        jobs: Processes; the number of processors if None. 1 carries out everything in this process.
    """
    jobs = jobs or os.cpu_count() or 1
    ordered = sorted(tasks, key=lambda task: not task.first)
    if jobs == 1:
        for task in ordered:
            yield task, attempted(_prepared(task))
        return
    left, alone = dict(enumerate(ordered)), 0
    while left:
        batch = list(left)[:1] if alone else list(left)
        alone = max(alone - 1, 0)
        try:
            for number, result in _in_workers({number: left[number] for number in batch}, jobs):
                yield left.pop(number), result
        except BrokenProcessPool as error:
            if len(batch) > 1:
                alone = _AHEAD * jobs  # so many at most had been given out
            else:
                note = f"{type(error).__name__}: its process was killed, for want of memory perhaps"
                yield left.pop(batch[0]), Failure(status="did_not_converge", note=note)


def _in_workers(tasks: Mapping[int, Task], jobs: int) -> Iterator[tuple[int, Result]]:
    """The number of each task and what became of it, as they end; in a worker also where it is one."""
    with warnings.catch_warnings():
        # loky replaces a worker whose memory grew, which costs a second and loses nothing.
        warnings.filterwarnings(
            "ignore", message="A worker stopped while some jobs were given|.* tasks which were still being processed"
        )
        parallel = Parallel(
            n_jobs=jobs, return_as="generator_unordered", max_nbytes="1M", mmap_mode="r", batch_size=1,
            pre_dispatch=_AHEAD * jobs, initializer=end_with, initargs=(os.getpid(),),
        )  # fmt: skip
        own = keeps_memory()
        yield from parallel(delayed(_numbered)(number, _prepared(task), own) for number, task in tasks.items())


def _numbered(number: int, call: Callable[[], Outcome] | Failure, own: bool) -> tuple[int, Result]:
    return number, attempted(call, own)


def _prepared(task: Task) -> Callable[[], Outcome] | Failure:
    try:
        return task.prepare()
    except Missing as missing:
        return missing.failure
    except Exception as error:  # whatever it is: the others must not be lost with it
        return Failure.of(error)


def attempted(call: Callable[[], Outcome] | Failure, own: bool = False) -> Result:
    """What a call gives, or why it gives nothing; on one thread: sums in another order would give other figures.

    Args:
        call: Or a failure, which stays one.
        own: In a worker of a process that keeps its memory, which may do so, too.
    """
    if isinstance(call, Failure):
        return call
    try:
        # Flags of vectorised sums may be raised by lanes that nobody reads; whether figures are finite is looked at.
        with one_thread(), np.errstate(all="ignore"), kept_memory() if own else nullcontext():
            return call()
    except Exception as error:  # whatever it is: the others must not be lost with it
        return Failure.of(error)
