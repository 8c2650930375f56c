"""Images decoded by several threads, in the order in which they are listed, with a bounded number under way."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from veil.data import decode
from veil.data.decode import EYES, Box, Places
from veil.data.layouts.listing import Item
from veil.errors import InputError

T = TypeVar("T")

Decoded = tuple[Item, NDArray[Any] | None, str]
"""An item without its data, its array, or None and the reason."""


CHUNK_ITEMS = 32
CHUNK_BYTES = 8 * 2**20


def arrays(
    items: Iterator[Item],
    size: int,
    channels: int,
    crop: Box | None = None,
    jobs: int | None = None,
    places: Places = EYES,
) -> Generator[Decoded, None, None]:
    """Decodes items.

    Yields:
        The item (its data dropped), its array, and "" — or the item, None, and why it cannot be used.
    """
    yield from mapped(items, lambda item: _decode_item(item, size, channels, crop, places), jobs)


def mapped(
    items: Iterator[Item], work: Callable[[Item], T], jobs: int | None = None, *, at_once: int = CHUNK_ITEMS
) -> Generator[T, None, None]:
    """What threads make of items, in order, with a bounded number under way.

    Args:
        items: Images.
        work: What is made of each.
        jobs: Threads; None for as many as there are processors.
        at_once: Items that a thread takes at a time: 1 where each is so much work that threads would wait for another.
    """
    jobs = jobs or os.cpu_count() or 1

    def several(chunk: list[Item]) -> list[T]:
        return [work(item) for item in chunk]

    waiting: deque[Future[list[T]]] = deque()
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="decode")
    try:
        for chunk in _chunks(items, at_once):
            waiting.append(pool.submit(several, chunk))
            while len(waiting) > 2 * jobs:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(items: Iterator[Item], most: int) -> Iterator[list[Item]]:
    """Items in lists small enough, in number and in bytes, to have some of them in memory at once."""
    chunk: list[Item] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += len(item.data) if isinstance(item.data, bytes) else 0
        if len(chunk) == most or held > CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _decode_item(item: Item, size: int, channels: int, crop: Box | None, places: Places = EYES) -> Decoded:
    light = Item(item.source, None, item.labels, item.split, item.problem)
    data = item.data
    if item.problem:
        return light, None, item.problem
    if isinstance(data, np.ndarray):
        if crop is not None:
            raise InputError(f"crop {crop}: only encoded images are cropped, and {item.source!r} is an array")
        return light, data, ""
    assert data is not None, f"{item.source}: neither data nor a problem"
    try:
        encoded = decode.read(data) if isinstance(data, Path) else data
        pixels = decode.decode(encoded, size, channels, item.crop or crop, item.eyes, places)
        if item.crop is None and item.eyes is None:
            light = replace(light, upright=decode.header(encoded)[1])
        return light, pixels, ""
    except decode.DecodeError as error:
        return light, None, str(error)
