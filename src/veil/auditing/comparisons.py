"""All comparisons of some rows with each other, streamed: what their scores say at small false match rates.

Scores come from matrix products of blocks of rows. All mated scores are kept; of the non-mated ones, of which there are
millions, those that some threshold of interest lets in, and how often each range of scores occurs. So thousands of rows
take a second, and no pair is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.auditing.pairs import Floats, Indices, Metric

MOST_ROWS = 8000
"""Rows that are compared with each other: 32 million pairs."""
MOST_OF_ONE = 1000
"""Rows of one person that take part."""
_MOST_PRODUCTS = 5e10  # multiplications of one exhibit; a second or two of one processor in float32
_MOST_VALUES = 5e7  # that are held
_BLOCK = 1024
_BINS = 1 << 14
_GRID = 2.0**-20
"""Scores are rounded to so much of their range: products of equal vectors differ in their last bits from block to
block, and ties must stay ties."""


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """Every pair of n rows of U people.

    A pair is accepted where its score is above a threshold, never at it: so a tie is not split.

    Attributes:
        rows: int64 ``(n,)`` rows of the pack, by person.
        person: int64 ``(n,)`` codes 0..U - 1, rising.
        mated: float64 ``(M,)`` scores of pairs of one person, higher meaning more alike.
        mated_rows: int64 ``(M, 2)`` their two rows, 0..n - 1.
        tail: float64 ``(T,)`` non-mated scores above ``bound``, falling.
        tail_rows: int64 ``(T, 2)`` their two rows.
        bound: All other non-mated scores are at most so large; -inf where there are none.
        edges: float64 ``(B + 1,)`` of the bins of scores.
        counts: int64 ``(B,)`` non-mated scores in each bin.
        left_out: Rows of known people that take no part.
    """

    rows: Indices
    person: Indices
    mated: Floats
    mated_rows: Indices
    tail: Floats
    tail_rows: Indices
    bound: float
    edges: Floats
    counts: Indices
    left_out: int = 0

    @staticmethod
    def listed(scores: Floats, mated: NDArray[np.bool_]) -> Comparisons:
        """From scores ``(P,)``, some of mated pairs; for rates alone, as nothing says which rows were compared."""
        nothing, none = np.empty(0, np.int64), np.empty((0, 2), np.int64)
        tail = -np.sort(-scores[~mated])
        return Comparisons(
            rows=nothing, person=nothing, mated=scores[mated], mated_rows=none, tail=tail, tail_rows=none,
            bound=-math.inf, edges=np.array([scores.min(), scores.max()]), counts=np.array([len(tail)]),
        )  # fmt: skip

    @property
    def people(self) -> int:
        return int(self.person[-1]) + 1 if len(self.person) else 0

    @cached_property
    def non_mated(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def _sorted(self) -> Floats:
        return np.sort(self.mated)

    def threshold(self, fmr: float) -> float:
        """The lowest threshold above which at most that share of the non-mated pairs lies."""
        allowed = math.floor(fmr * self.non_mated * (1 + 1e-12))
        return float(self.tail[allowed]) if allowed < len(self.tail) else self.bound

    def fmr(self, threshold: float) -> float:
        """The share of the non-mated pairs above a threshold that is at least ``bound``."""
        return int(np.searchsorted(-self.tail, -threshold, side="left")) / self.non_mated

    def fnmr(self, threshold: float) -> float:
        """The share of the mated pairs that are not above a threshold."""
        return int(np.searchsorted(self._sorted, threshold, side="right")) / len(self.mated)

    def det(self, points: int = 100) -> tuple[list[float], list[float]]:
        """False match and false non-match rates along the curve, rates rising: from 10 non-mated pairs let in to all.

        Above what ``tail`` holds thresholds are edges of bins.
        """
        exact = self.non_mated if self.bound == -math.inf else len(self.tail)
        above = np.cumsum(self.counts[::-1])[::-1]  # at and above each edge
        curve: dict[float, float] = {}
        for fmr in np.geomspace(min(10 / self.non_mated, 1.0), 1.0, points):
            if fmr * self.non_mated < exact:
                threshold = self.threshold(float(fmr))
                at = self.fmr(threshold)
            else:
                bin_ = int(np.argmax(above <= fmr * self.non_mated))
                at, threshold = above[bin_] / self.non_mated, float(np.nextafter(self.edges[bin_], -np.inf))
            if at > 0:
                curve[float(f"{at:.6g}")] = float(f"{self.fnmr(threshold):.6g}")
        falling = np.minimum.accumulate(np.array(list(curve.values())))
        return list(curve), [float(y) for y in falling]


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Rows made ready to be compared by products.

    Attributes:
        values: float32 ``(n, d)``: of unit length for cosines, centred for distances.
        squares: float64 ``(n,)`` squared lengths, for distances; None for cosines.
        reach: No score, or difference of two, is larger than twice that; a power of 2.
    """

    values: NDArray[np.float32]
    squares: Floats | None
    reach: float

    @staticmethod
    def of(x: NDArray[Any], rows: Indices, metric: Metric) -> Vectors:
        """From some rows of ``x`` ``(N, ...)``, of any dtype, flattened."""
        values = np.empty((len(rows), int(np.prod(x.shape[1:]))), np.float32)
        for start in range(0, len(rows), _BLOCK):
            part = rows[start : start + _BLOCK]
            values[start : start + _BLOCK] = x[part].reshape(len(part), -1)
        if metric.kind == "euclidean":
            values -= (values.sum(0, dtype=np.float64) / max(len(rows), 1)).astype(
                np.float32
            )  # distances stay; rounding shrinks
            squares = np.einsum("ij,ij->i", values, values, dtype=np.float64)
            reach = 2.0 ** math.ceil(math.log2(2 * math.sqrt(float(squares.max(initial=0))) or 1.0))
            return Vectors(values=values, squares=squares, reach=reach)
        if metric.centre is not None:
            values -= metric.centre.reshape(-1)
        lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
        values /= np.where(lengths > 0, lengths, 1).astype(np.float32)[:, None]
        return Vectors(values=values, squares=None, reach=1.0)

    def scores(self, left: slice | Indices, right: slice | Indices) -> NDArray[Any]:
        """How alike the rows of two parts are ``(a, b)``."""
        if self.squares is None:
            cosines: NDArray[np.float32] = np.clip(self.values[left] @ self.values[right].T, -1, 1)
            return cosines
        # In float64: where two rows are near, the difference of squares has few digits left.
        products = self.values[left].astype(np.float64) @ self.values[right].astype(np.float64).T
        squared = self.squares[left][:, None] + self.squares[right][None] - 2 * products
        distances: Floats = np.sqrt(np.maximum(squared, 0))
        return -distances

    def rounded(self, scores: NDArray[Any]) -> Floats:
        grid = _GRID * self.reach
        on_grid: Floats = np.rint(scores.astype(np.float64) / grid) * grid
        return on_grid


def drawn(rows: Indices, identity: NDArray[Any], width: int, seed: int) -> Indices:
    """The rows that take part, by person: all, or, where they are too many, those of people who are drawn.

    Args:
        rows: Rows that may.
        identity: ``(N,)`` who is seen, below 0 where unknown.
        width: Values of a row.
        seed: Draws.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(rows[identity[rows] >= 0])
    rows = rows[np.argsort(identity[rows], kind="stable")]
    _, first, count = np.unique(identity[rows], return_index=True, return_counts=True)
    rows = rows[np.arange(len(rows)) - np.repeat(first, count) < MOST_OF_ONE]
    most = int(min(MOST_ROWS, math.sqrt(_MOST_PRODUCTS / max(width, 1)), _MOST_VALUES / max(width, 1)))
    if len(rows) <= most:
        return rows
    people, size = np.unique(identity[rows], return_counts=True)
    order = rng.permutation(len(people))
    kept = people[order[np.cumsum(size[order]) <= most]]
    return rows[np.isin(identity[rows], kept)]


def compare(
    x: NDArray[Any], rows: Indices, identity: NDArray[Any], metric: Metric, *, fmr: float, seed: int
) -> Comparisons:
    """Compare all rows with each other.

    Args:
        x: ``(N, ...)`` vectors or images.
        rows: Rows of the test split.
        identity: ``(N,)`` who is seen, below 0 where unknown.
        metric: How two rows are compared.
        fmr: Thresholds of false match rates up to this one are exact.
        seed: Draws people where there are too many rows.
    """
    known = int((identity[rows] >= 0).sum())
    rows = drawn(rows, identity, int(np.prod(x.shape[1:])), seed)
    person, size = np.unique(identity[rows], return_inverse=True, return_counts=True)[1:]
    pairs = math.comb(len(rows), 2) - int((size * (size - 1) // 2).sum())
    vectors = Vectors.of(x, rows, metric)
    tail, mated = _Tail(math.ceil(fmr * pairs) + 1), _Listed()
    low = -1.0 if vectors.squares is None else -2 * vectors.reach
    high = 1.0 if vectors.squares is None else 0.0
    counts = np.zeros(_BINS, np.int64)
    for scores, same, left, right in _blocks(vectors, person):
        if same is not None:
            a, b = np.nonzero(same)
            mated.add(vectors.rounded(scores[a, b]), a + left, b + right)
            others = scores[np.isfinite(scores) & ~same]
            scores[same] = -np.inf
        else:
            others = scores
        bins = ((others.ravel() - low) * (_BINS / (high - low))).astype(np.int32)
        counts += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)
        a, b = np.nonzero(scores > tail.bound)
        tail.add(vectors.rounded(scores[a, b]), a + left, b + right)
    tail.prune()
    order = np.argsort(-tail.scores, kind="stable")
    return Comparisons(
        rows=rows, person=person.reshape(len(rows)), mated=mated.scores, mated_rows=mated.rows,
        tail=tail.scores[order], tail_rows=tail.rows[order], bound=tail.bound,
        edges=np.linspace(low, high, _BINS + 1), counts=counts, left_out=known - len(rows),
    )  # fmt: skip


def _blocks(vectors: Vectors, person: Indices) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_] | None, int, int]]:
    """Scores of blocks of pairs, each pair once: the other ones are -inf; which are mated, None where none can be."""
    n = len(person)
    for left in range(0, n, _BLOCK):
        for right in range(left, n, _BLOCK):
            a, b = slice(left, min(left + _BLOCK, n)), slice(right, min(right + _BLOCK, n))
            scores, same = vectors.scores(a, b), None
            if person[a.stop - 1] >= person[right]:
                same = person[a][:, None] == person[b][None]
            if left == right:
                below = np.tri(len(scores), dtype=bool)
                scores[below] = -np.inf
                assert same is not None
                same &= ~below
            yield scores, same, left, right


class _Listed:
    """Scores and the two rows of each, added to part by part."""

    def __init__(self) -> None:
        self._parts: list[tuple[Floats, Indices]] = [(np.empty(0), np.empty((0, 2), np.int64))]

    def add(self, scores: Floats, a: Indices, b: Indices) -> None:
        self._parts.append((scores, np.column_stack([a, b])))

    def __len__(self) -> int:
        return sum(len(scores) for scores, _ in self._parts)

    def replace(self, scores: Floats, rows: Indices) -> None:
        self._parts = [(scores, rows)]

    @property
    def scores(self) -> Floats:
        return np.concatenate([scores for scores, _ in self._parts])

    @property
    def rows(self) -> Indices:
        return np.concatenate([rows for _, rows in self._parts])


class _Tail(_Listed):
    """The highest scores: of ``most`` + 1 or more that are at least ``bound``, those above it, ``most`` at most."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most, self.bound = most, -math.inf

    def add(self, scores: Floats, a: Indices, b: Indices) -> None:
        above = scores > self.bound
        super().add(scores[above], a[above], b[above])
        if len(self) > max(4 * self._most, 1 << 18):
            self.prune()

    def prune(self) -> None:
        scores, rows = self.scores, self.rows
        if len(scores) > self._most:
            self.bound = float(-np.partition(-scores, self._most)[self._most])
            above = scores > self.bound
            self.replace(scores[above], rows[above])
