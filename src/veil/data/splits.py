"""Splits: the rows to train the protector on, to train attackers on, to set thresholds on and to measure on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from veil.errors import InputError, checked_seed

SPLITS = ("protect", "attack", "calibrate", "test")
FRACTIONS = (0.45, 0.20, 0.10, 0.25)


def parse(names: Sequence[str]) -> NDArray[np.int8]:
    """Names of splits as int8 indices into :data:`SPLITS`; raises InputError for any other name."""
    code = {name: i for i, name in enumerate(SPLITS)}
    for name in names:
        if name not in code:
            raise InputError(f"split {str(name)!r}: must be one of {', '.join(SPLITS)}")
    return np.fromiter((code[name] for name in names), np.int8, len(names))


def check_fractions(fractions: Sequence[float]) -> NDArray[np.float64]:
    """The shares of :data:`SPLITS`; raises InputError unless they are four, none negative, that add up to 1."""
    try:
        share = np.asarray(fractions, np.float64)
        fractions = tuple(fractions)
    except (TypeError, ValueError):
        raise InputError(f"fractions: must be {len(SPLITS)} shares, got {fractions!r}") from None
    if share.shape != (len(SPLITS),) or not np.all(share >= 0) or not abs(share.sum() - 1) < 1e-6:
        raise InputError(f"fractions {fractions}: must be {len(SPLITS)} shares, none negative, that add up to 1")
    return share


def straddling(groups: NDArray[np.int64], split: NDArray[np.int8]) -> int:
    """How many groups, of codes >= 0, stand in several splits."""
    known = groups >= 0
    pairs = np.unique(np.stack([groups[known], split[known].astype(np.int64)]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum()) if pairs.size else 0


def assign(
    groups: NDArray[np.int64] | Sequence[int] | None,
    seed: int,
    fractions: Sequence[float] = FRACTIONS,
    *,
    n: int | None = None,
) -> NDArray[np.int8]:
    """Draws a split for every row so that no group straddles two.

    Groups are placed from the largest to the smallest, each into a split drawn with probability proportional to what
    that split still lacks, among those that can take the whole group. So every split gets large and small groups in
    about its share, and the many small ones that come last make the sizes come out: no split exceeds its share of the
    rows by more than the largest group. Where there are enough groups, no split with a share stays empty.
    The draw depends on the groups' codes and sizes, not on the order of the rows, save for rows of unknown group.

    Args:
        groups: int64 ``(N,)``; a negative code is a row of unknown group, which becomes a group of its own. None makes
            each of ``n`` rows a group of its own.
        seed: Of the draw.
        fractions: Share of the rows for each of :data:`SPLITS`.
        n: How many rows there are, where ``groups`` is None.

    Returns:
        int8 ``(N,)``, indices into :data:`SPLITS`.

    Raises:
        InputError: Fractions that are not four shares that add up to 1, or a seed that is none.
    """
    share, seed = check_fractions(fractions), checked_seed(seed)
    if groups is None:
        if n is None:
            raise InputError("splits: give the groups, or the number of rows n")
        codes = np.full(n, -1, np.int64)
    else:
        codes = np.array(groups, np.int64)
    alone = np.flatnonzero(codes < 0)
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(len(alone))
    _, member, size = np.unique(codes, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    # Shuffled first, so that a stable sort by size leaves groups of equal size in random order.
    order = rng.permutation(len(size))
    order = order[np.argsort(-size[order], kind="stable")]
    where = _place(size[order].tolist(), rng.random(len(size)).tolist(), share)
    split = np.empty(len(size), np.int8)
    split[order] = where
    return split[member]


def _place(sizes: list[int], draws: list[float], share: NDArray[np.float64]) -> list[int]:
    """The split of each group, taken in turn; plain Python because each choice depends on all before."""
    lack = _targets(sum(sizes), share)
    empty = {i for i, s in enumerate(share) if s > 0}
    places = []
    for turn, (size, draw) in enumerate(zip(sizes, draws, strict=True)):
        if len(sizes) - turn <= len(empty):
            room = [max(empty, key=lambda i: (lack[i], -i))]
        else:
            room = [i for i, missing in enumerate(lack) if missing >= size]
            room = room or [max(range(len(lack)), key=lambda i: (lack[i], -i))]
        point = draw * sum(lack[i] for i in room)
        pick = room[-1]
        for i in room:
            point -= lack[i]
            if point < 0:
                pick = i
                break
        lack[pick] -= size
        empty.discard(pick)
        places.append(pick)
    return places


def _targets(n: int, share: NDArray[np.float64]) -> list[int]:
    """Whole numbers of rows that add up to n, by largest remainder."""
    exact = share / share.sum() * n
    whole = np.floor(exact).astype(np.int64)
    short = n - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:short]] += 1
    return [int(w) for w in whole]
