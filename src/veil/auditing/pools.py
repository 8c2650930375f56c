"""Pools: the mean of several releases of one person, as somebody attacks who can match releases. That is their use.

Noise that is drawn anew for every image averages out in a pool, so a protector must hide what the mean tells, too. All
pools of an attack are of one size: of mixed sizes, their noise would tell how many images of a person there are, which
may go with the attribute, and nothing that a release gives away.
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
        members: Rows ``(p, size)`` of the pools of one size each, one such array after the other.
        y: int64 ``(P,)`` codes of the attribute.
        groups: int64 ``(P,)`` codes of the persons.
        parts: Places among the P pools of the three sets.
    """

    members: tuple[NDArray[np.int64], ...]
    y: NDArray[np.int64]
    groups: NDArray[np.int64]
    parts: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

    def means(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """The means ``(P, k)`` of releases ``(N, k)``."""
        return np.concatenate([x[rows].mean(1, dtype=np.float32) for rows in self.members])


def deal(y: NDArray[np.int64], groups: NDArray[np.int64], sets: Sequence[NDArray[np.int64]], *, seed: int) -> Pools:
    """Deal the releases of each person into pools; in training single ones serve besides.

    A pool has :data:`LARGEST` releases, or fewer, so that in every set half of those who have two have a pool,
    of every class.

    Args:
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
    sets = [rows[(groups[rows] >= 0) & ~changes[person[rows]]] for rows in sets]
    each_class = [person[rows[y[rows] == z]] for rows in sets for z in np.unique(y[rows])]
    size = min((_size(people) for people in each_class), default=2)
    members, number = [], []
    for i, rows in enumerate(sets):
        for each in [1, *[size] * _ROUNDS] if i == 0 else [size]:
            members.append(_dealt(rows, person, rng, each))
            number.append(np.full(len(members[-1]), i))
    owner, part = np.concatenate([person[rows[:, 0]] for rows in members]), np.concatenate(number)
    train, validation, test = (np.flatnonzero(part == i) for i in range(3))
    least = min(len(np.unique(first[owner[rows]])) for rows in (train, validation, test))
    if least < 2:
        raise InputError(f"pools: need people of two classes, with two releases each, in every split, got {least}")
    return Pools(members=tuple(members), y=first[owner], groups=names[owner], parts=(train, validation, test))


def _size(person: NDArray[np.intp]) -> int:
    """The most releases, of two to :data:`LARGEST`, that half of those who have two have; rows are of ``person``."""
    _, count = np.unique(person, return_counts=True)
    several = np.minimum(count[count >= 2], LARGEST)
    return max((m for m in range(2, LARGEST + 1) if 2 * np.sum(several >= m) >= len(several)), default=2)


def _dealt(rows: NDArray[np.int64], person: NDArray[np.intp], rng: np.random.Generator, size: int) -> NDArray[np.int64]:
    """Rows of pools ``(P, size)``; what is left of a person is left out."""
    rows = rng.permutation(rows)
    rows = rows[np.argsort(person[rows], kind="stable")]
    _, begin, count = np.unique(person[rows], return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(begin, count)
    pools: NDArray[np.int64] = rows[place < np.repeat(count - count % size, count)].reshape(-1, size)
    return pools
