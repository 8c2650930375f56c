"""What Veil leaves of a host process's settings: all of them, also where several of its threads call Veil at once."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from conftest import vectors_pack
from veil import fit, threads
from veil.auditing.execute import attempted
from veil.auditing.task import Outcome
from veil.engine.memory import kept_memory
from veil.engine.run import Run, seeded
from veil.release.release import Release
from veil.threads import in_order

pytestmark = pytest.mark.skipif(not threads.SETTABLE, reason="one thread's count cannot be set by itself here")


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def elsewhere(function: Callable[[], Any]) -> Any:
    """What a function gives in a thread of the host's that never used torch before."""
    out: list[Any] = []
    thread = threading.Thread(target=lambda: out.append(function()))
    thread.start()
    thread.join()
    return out[0]


def at_once(*functions: Callable[[], Any]) -> None:
    """Functions in threads of their own; what one of them raises is raised."""
    raised: list[BaseException] = []

    def caught(function: Callable[[], Any]) -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    each = [threading.Thread(target=caught, args=(function,)) for function in functions]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    if raised:
        raise raised[0]


def blas() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_calls_that_overlap_leave_the_count_of_threads() -> None:
    """The first to begin is the first to end, so that each ends while the other's setting holds."""
    begun, other_begun = threading.Event(), threading.Event()

    def first() -> None:
        batches = in_order(lambda x: x, iter(range(9)))
        next(batches)
        begun.set()
        assert other_begun.wait(10)
        batches.close()

    def second() -> None:
        assert begun.wait(10)
        batches = in_order(lambda x: x, iter(range(9)))
        next(batches)
        other_begun.set()
        one.join()
        assert list(batches) == list(range(1, 9))

    one = threading.Thread(target=first)
    one.start()
    at_once(second)
    assert torch.get_num_threads() == 3
    assert elsewhere(torch.get_num_threads) == 3


def test_many_threads_transform_at_once_and_leave_the_count() -> None:
    pack = vectors_pack()
    release: Release = fit("leace", pack, private=["gender"]).release
    whole = release.transform(pack.x, batch=100)

    def call() -> None:
        for _ in range(5):
            assert (release.transform(pack.x, batch=100) == whole).all()

    at_once(*[call] * 6)
    assert torch.get_num_threads() == 3
    assert elsewhere(torch.get_num_threads) == 3


def test_meanwhile_nobody_else_has_another_count() -> None:
    """The consumer's own thread, and one that the host starts in the middle; batches have one thread each."""
    inside: list[int] = []
    batches = in_order(lambda x: inside.append(torch.get_num_threads()), iter(range(9)))
    next(batches)
    assert torch.get_num_threads() == 3
    assert elsewhere(torch.get_num_threads) == 3
    list(batches)
    assert inside == [1] * 9


def test_a_task_of_the_audit_has_one_thread_and_leaves_the_counts() -> None:
    before = blas()
    seen: list[tuple[int, set[int], int]] = []
    met = threading.Barrier(2, timeout=10)

    def task(late: threading.Event | None = None) -> Outcome:
        met.wait()
        seen.append((torch.get_num_threads(), blas(), elsewhere(torch.get_num_threads)))
        if late is not None:
            assert late.wait(10)
        return Outcome(findings=())

    done = threading.Event()

    def first() -> None:
        attempted(task)
        done.set()

    at_once(first, lambda: attempted(partial(task, done)))
    assert seen == [(1, {1}, 3)] * 2
    assert torch.get_num_threads() == elsewhere(torch.get_num_threads) == 3
    assert blas() == before


def test_matrix_products_keep_to_one_thread() -> None:
    """MKL has a count of its own, which a thread takes over from the process when it first uses torch."""
    if sys.platform != "linux":
        pytest.skip("counts the threads of the process")
    from pathlib import Path

    a = torch.randn(600, 600)

    def new_threads(keep: bool) -> int:
        if keep:
            threads.keep_to_one()
        else:
            torch.get_num_threads()
        before = len(list(Path("/proc/self/task").iterdir()))
        for _ in range(3):
            a @ a
        return len(list(Path("/proc/self/task").iterdir())) - before

    assert elsewhere(lambda: new_threads(True)) == 0
    assert elsewhere(lambda: new_threads(False)) >= 1


def test_only_the_command_line_changes_how_memory_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    class Library:
        def __init__(self, name: str | None) -> None:
            pass

        def mallopt(self, option: int, value: int) -> int:
            calls.append((option, value))
            return 1

        def malloc_trim(self, pad: int) -> int:
            return 1

    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr(sys, "platform", "linux")
    assert len(list(Run(seed=0).stage("s", 2))) == 2
    assert calls == []
    with kept_memory():
        list(Run(seed=0).stage("s", 2))
    assert len(calls) == 4
    list(Run(seed=0).stage("s", 2))
    assert len(calls) == 4


def test_initial_weights_of_fits_at_once_follow_their_seeds() -> None:
    def drawn(seed: int) -> list[float]:
        with seeded(seed):
            return [torch.rand(1).item() for _ in range(300)]

    expected = {seed: drawn(seed) for seed in range(4)}
    torch.manual_seed(5)
    following = torch.rand(3)
    torch.manual_seed(5)

    def call(seed: int) -> None:
        for _ in range(20):
            assert drawn(seed) == expected[seed]

    at_once(*[lambda seed=seed: call(seed) for seed in expected])
    assert torch.equal(torch.rand(3), following)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    pack = vectors_pack()
    release = fit("leace", pack, private=["gender"]).release
    three = release.transform(pack.x, batch=100)
    torch.set_num_threads(1)
    np.testing.assert_array_equal(release.transform(pack.x, batch=100), three)
