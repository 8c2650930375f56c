"""Couples of rows for training matchers: two images of one person, or of two people."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.errors import InputError


class Couples:
    """Draws couples of rows, every person of a stratum equally often whatever the number of their images.

    Args:
        rows: int64 ``(n,)`` rows of the pack to draw from.
        identity: int64 ``(n,)`` who is seen in each, non-negative.
        strata: int64 ``(n,)`` or None: couples are drawn equally from each stratum (a private class, say); a person
            belongs to the stratum of their first row. -1 counts as a stratum of its own.
        alone: Whether it will do that nobody has two images.

    Raises:
        InputError: If there are fewer than two people, or nobody has two images.
    """

    def __init__(
        self, rows: NDArray[Any], identity: NDArray[Any], strata: NDArray[Any] | None = None, *, alone: bool = False
    ) -> None:
        order = np.argsort(identity, kind="stable")
        self._rows = np.asarray(rows)[order]
        _, start, count = np.unique(np.asarray(identity)[order], return_index=True, return_counts=True)
        if len(start) < 2:
            raise InputError(f"identity: matching needs images of at least 2 people, got {len(start)}")
        if count.max() < 2 and not alone:
            raise InputError("identity: matching needs people with at least 2 images, got none")
        self._start, self._count = start, count
        stratum = np.zeros(len(start), np.int64) if strata is None else np.asarray(strata)[order][start]
        self._strata = [np.flatnonzero(stratum == s) for s in np.unique(stratum)]

    def genuine(self, count: int, rng: np.random.Generator, *, singles: float = 0.0) -> NDArray[np.int64]:
        """Rows ``(count, 2)`` of one person each, different people where there are enough.

        Args:
            count: Number of couples.
            rng: Source of the draw.
            singles: Share of the couples drawn from everybody; who has one image only is coupled with it (two
                augmented views of it still tell one person from another). The others have two different images.
        """
        people = []
        for members, n in zip(self._strata, self._shares(count, rng), strict=True):
            several = members[self._count[members] > 1]
            anyone = n
            if len(several):
                part, rest = divmod(n * singles, 1)
                anyone = int(part) + (rest > 0 and bool(rng.random() < rest))
            people += [_draw(members, anyone, rng), _draw(several, n - anyone, rng)]
        chosen = np.concatenate(people)
        first = rng.integers(self._count[chosen])
        other = (first + 1 + rng.integers(np.maximum(self._count[chosen] - 1, 1))) % self._count[chosen]
        rows: NDArray[np.int64] = self._rows[self._start[chosen, None] + np.stack([first, other], 1)]
        return rows

    def impostor(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Rows ``(count, 2)`` of two different people each; the first of each couple is stratified."""
        a = np.concatenate([_draw(m, n, rng) for m, n in zip(self._strata, self._shares(count, rng), strict=True)])
        b = (a + rng.integers(1, len(self._start), len(a))) % len(self._start)
        both = np.stack([a, b], 1)
        rows: NDArray[np.int64] = self._rows[self._start[both] + rng.integers(self._count[both])]
        return rows

    def _shares(self, count: int, rng: np.random.Generator) -> list[int]:
        """Couples of each stratum; which of them have one more is drawn."""
        parts = len(self._strata)
        each, more = divmod(count, parts)
        chosen = rng.permutation(parts)[:more] if more else ()
        return [each + (i in chosen) for i in range(parts)]


def _draw(members: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``count`` members, repeating one only after all have been drawn."""
    if count == 0:
        return members[:0]
    rounds = -(-count // len(members))
    return np.concatenate([rng.permutation(members) for _ in range(rounds)])[:count]
