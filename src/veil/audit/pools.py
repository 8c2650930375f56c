"""Pools: the mean of several releases of one person, as somebody attacks who can match releases. That is their use.

Noise that is drawn anew for every image averages out in a pool, so a protector must hide what the mean tells, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.errors import InputError

LARGEST = 4
"""Most releases of one person in a pool."""
_ROUNDS = 3  # times that the training people's releases are dealt into pools, beside the single ones


@dataclass(frozen=True, kw_only=True)
class Pools:
    """Pools of three sets of rows: to train, to choose settings and to test on.

    Attributes:
        x: float32 ``(P, k)`` means, as long as releases are on average.
        y: int64 ``(P,)`` codes of the attribute.
        groups: int64 ``(P,)`` codes of the persons.
        parts: Rows of ``x`` of the three sets.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    groups: NDArray[np.int64]
    parts: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def pool(
    x: NDArray[Any], y: NDArray[np.int64], groups: NDArray[np.int64], sets: Sequence[NDArray[np.int64]], *, seed: int
) -> Pools:
    """Deal the releases of each person into pools of two to :data:`LARGEST`; in training single ones serve besides.

    Args:
        x: ``(N, k)`` releases.
        y: ``(N,)`` codes of an attribute that persons keep; who does not keep it is left out.
        groups: ``(N,)`` codes of the persons, below 0 where unknown: those rows are left out.
        sets: Rows to train, to choose settings and to test on.
        seed: Deals.

    Raises:
        InputError: If a set has pools of fewer than two classes.
    """
    rng = np.random.default_rng(seed)
    names, person = np.unique(groups, return_inverse=True)
    first = np.full(len(names), -1)
    known = np.concatenate(list(sets))
    first[person[known]] = y[known]
    changes = np.zeros(len(names), bool)
    changes[person[known[first[person[known]] != y[known]]]] = True
    means, owners, number = [], [], []
    for i, rows in enumerate(sets):
        rows = rows[(groups[rows] >= 0) & ~changes[person[rows]]]
        for largest in [1, *[LARGEST] * _ROUNDS] if i == 0 else [LARGEST]:
            dealt, owner = _deal(x, rows, person, rng, largest)
            means.append(dealt)
            owners.append(owner)
            number.append(np.full(len(owner), i))
    owner, part = np.concatenate(owners), np.concatenate(number)
    train, validation, test = (np.flatnonzero(part == i) for i in range(3))
    least = min(len(np.unique(first[owner[rows]])) for rows in (train, validation, test))
    if least < 2:
        raise InputError(f"pools: need people of two classes, with two releases each, in every split, got {least}")
    return Pools(x=np.concatenate(means), y=first[owner], groups=names[owner], parts=(train, validation, test))


def _deal(
    x: NDArray[Any], rows: NDArray[np.int64], person: NDArray[np.int64], rng: np.random.Generator, largest: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Means ``(P, k)`` of pools of ``largest``, or what is left of a person but not 1, and their persons ``(P,)``."""
    rows = rng.permutation(rows)
    rows = rows[np.argsort(person[rows], kind="stable")]
    _, begin, count = np.unique(person[rows], return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(begin, count)
    starts = np.flatnonzero(place % largest == 0)
    if not len(rows):
        return np.zeros((0, x.shape[1]), np.float32), np.zeros(0, np.int64)
    sizes = np.diff(np.append(starts, len(rows)))
    vectors = x[rows].astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
    means: NDArray[np.float32] = np.add.reduceat(vectors, starts)
    means *= lengths.mean() / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    kept = sizes >= min(largest, 2)
    return means[kept], person[rows[starts[kept]]]
