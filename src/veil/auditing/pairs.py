"""Pairs of rows that are compared, who is in them, and by what metric they are scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from veil.auditing import intervals, metrics
from veil.auditing.intervals import Spread
from veil.errors import InputError

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class Metric:
    """How two vectors are compared.

    Attributes:
        kind: By their cosine, or their Euclidean distance.
        centre: float32 ``(d,)``, subtracted first: some matchers' vectors lie around a point that is not 0, and then
            cosines hardly differ from person to person. None for none.
    """

    kind: Literal["cosine", "euclidean"] = "cosine"
    centre: NDArray[np.float32] | None = None


COSINE = Metric()


def metrics_of(x: NDArray[Any], rows: NDArray[Any]) -> dict[str, Metric]:
    """The metrics that vectors ``(N, ...)`` may be made for, by name; the mean of ``rows`` is their centre."""
    return {"cosine": COSINE, "centred cosine": Metric(centre=mean(x, rows)), "euclidean": Metric(kind="euclidean")}


def mean(x: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.float32]:
    """The mean ``(d,)`` of some rows of ``(N, ...)``, of any dtype, flattened; read in blocks, added up in float64."""
    total = np.zeros(int(np.prod(x.shape[1:])))
    for start in range(0, len(rows), 4096):
        part = rows[start : start + 4096]
        total += x[part].reshape(len(part), -1).sum(0, dtype=np.float64)
    return (total / max(len(rows), 1)).astype(np.float32)


def serving(
    x: NDArray[Any], candidates: Mapping[str, Metric], identity: NDArray[Any], *, seed: int
) -> tuple[Metric, str, float]:
    """Of some metrics the one that tells people apart best, its name and its AUC.

    It is the first, and its AUC counts as 0, where there are no pairs of both kinds.

    Args:
        x: ``(n, ...)`` vectors.
        candidates: Metrics by name.
        identity: ``(n,)`` who is seen, below 0 where unknown.
        seed: Draws the pairs.
    """
    pairs = sample_pairs(np.arange(len(x)), identity, seed=seed, max_pairs=50_000)
    quality = dict.fromkeys(candidates, 0.0)
    if pairs.same.any() and not pairs.same.all():
        for name, metric in candidates.items():
            quality[name] = metrics.auc(scores(x, pairs, kind=metric.kind, centre=metric.centre), pairs.same)
    best = max(quality, key=lambda name: quality[name])
    return candidates[best], best, quality[best]


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows.

    Attributes:
        a: int64 ``(P,)`` one row of each pair.
        b: int64 ``(P,)`` the other.
        same: bool ``(P,)`` true where both show the same person.
        group_a: int64 ``(P,)`` identity code of row a.
        group_b: int64 ``(P,)`` identity code of row b; also in an impostor pair that of row a, where the pair is a unit
            of its own.
    """

    a: Indices
    b: Indices
    same: NDArray[np.bool_]
    group_a: Indices
    group_b: Indices

    def __len__(self) -> int:
        return len(self.a)

    @cached_property
    def shared(self) -> Shared:
        """Who is in them: once for the figures of all releases and matchers."""
        return Shared.of(self)

    def where(self, mask: NDArray[np.bool_]) -> Pairs:
        """The pairs at which ``mask`` ``(P,)`` is true."""
        return Pairs(self.a[mask], self.b[mask], self.same[mask], self.group_a[mask], self.group_b[mask])


@dataclass(frozen=True)
class Shared:
    """Who is in pairs, for the spread of figures.

    Attributes:
        first: ``(P,)`` one person of each pair, 0..U - 1.
        second: ``(P,)`` the other; U where there is none: in genuine pairs, and in those that are units themselves.
        couple: ``(P,)`` codes of the two persons of an impostor pair, 0..C - 1; C where there is but one.
        people: U.
    """

    first: Indices
    second: Indices
    couple: Indices
    people: int

    @staticmethod
    def of(pairs: Pairs) -> Shared:
        unit = intervals.units(np.concatenate([pairs.group_a, pairs.group_b]), 2 * len(pairs))
        first, second, people = unit[: len(pairs)], unit[len(pairs) :], int(unit.max(initial=-1)) + 1
        alone = pairs.group_a == pairs.group_b
        both = np.where(alone, people**2, np.minimum(first, second) * people + np.maximum(first, second))
        couple = np.unique(both, return_inverse=True)[1].reshape(len(pairs))
        return Shared(first, np.where(alone, people, second), couple, people)

    def spread(self, influence: Floats, *, twice: bool = False) -> Spread:
        """The spread of a figure with influence values ``(P,)`` of the pairs.

        A person's impostor pairs are with U - 1 others, whose mean is estimated: (U - 1) / (U - 2). What is left when
        the couples' squares are taken off may be too little by luck. It is at least what independent couples would
        have, and at most the squares of persons alone.

        Args:
            influence: Adds up to 0 over genuine and over impostor pairs.
            twice: Leave the couples' squares in: too wide by at most their part, which is small where impostor pairs
                are many, and right in the tails of a figure that few people's pairs decide.
        """
        scaled = self._scaled(influence)
        if twice:
            return intervals.spread_of(self.sums(influence), self.people - 1)
        alone = self.second == self.people
        squares = np.square(np.bincount(self.first[alone], scaled[alone], self.people)).sum()
        couples = np.square(np.bincount(self.couple[~alone], scaled[~alone])).sum()
        return without_couples(self.sums(influence), float(squares), float(couples))

    def sums(self, influence: Floats) -> Floats:
        """What each person contributes ``(U,)``; their squares hold those of couples twice."""
        scaled = self._scaled(influence)
        sums = np.bincount(self.first, scaled, self.people)
        sums += np.bincount(self.second, scaled, self.people + 1)[: self.people]
        return (math.sqrt(self.people / (self.people - 1)) * sums).astype(np.float64)

    def _scaled(self, influence: Floats) -> Floats:
        others = self.second < self.people
        return np.where(others, influence * (self.people - 1) / (self.people - 2), influence).astype(np.float64)


def without_couples(sums: Floats, alone: float, couples: float) -> Spread:
    """The spread of a figure of pairs, as :meth:`Shared.spread` says.

    Args:
        sums: ``(U,)`` what each person contributes, corrected for their small number (:meth:`Shared.sums`).
        alone: Squares of persons' sums over their genuine pairs.
        couples: Squares of couples' sums over their impostor pairs, whose persons are two.
    """
    spread, bessel = intervals.spread_of(sums, len(sums) - 1), len(sums) / (len(sums) - 1)
    if not spread.variance:
        return spread
    independent = min(bessel * (alone + couples), spread.variance)
    return spread._replace(variance=max(spread.variance - bessel * couples, independent))


def _choose(total: int, size: int, rng: np.random.Generator) -> Indices:
    """``size`` different numbers below ``total``, sorted, all equally likely; all of them where there are no more."""
    if size >= total:
        return np.arange(total)
    if total < 4 * size:
        return np.sort(rng.choice(total, size, replace=False))
    # A permutation of all would need memory for all; draws with few repetitions do not.
    numbers = np.empty(0, dtype=np.int64)
    while len(numbers) < size:
        numbers = np.union1d(numbers, rng.integers(0, total, size=2 * size))
    return np.sort(rng.choice(numbers, size, replace=False))


def sample_pairs(
    rows: NDArray[Any],
    identity: NDArray[Any],
    *,
    seed: int,
    max_pairs: int = 500_000,
    images_per_identity: int = 20,
) -> Pairs:
    """All genuine pairs and a sample of the impostor pairs of the given rows.

    Of a person with more than ``images_per_identity`` images a seeded sample of so many takes part, in genuine and in
    impostor pairs: else the pairs of one much photographed person (140,185 for the most frequent one in LFW) would
    outweigh those of all others. At most ``max_pairs`` of the genuine and ``max_pairs`` of the impostor pairs are kept,
    drawn without replacement. Rows of unknown identity take no part.

    Args:
        rows: ``(M,)`` rows that may be paired, the test split's say.
        identity: ``(N,)`` identity codes of all rows, below 0 where unknown.
        seed: The same seed, rows and identities give the same pairs.
        max_pairs: Largest number of genuine and of impostor pairs.
        images_per_identity: Largest number of images of one person.
    """
    if max_pairs < 1 or images_per_identity < 2:
        raise InputError(
            f"pairs need max_pairs >= 1 and images_per_identity >= 2, got {max_pairs} and {images_per_identity}"
        )
    rng = np.random.default_rng(seed)
    rows = np.asarray(rows, dtype=np.int64)
    rows = rows[np.asarray(identity)[rows] >= 0]
    # Shuffled, then sorted by person: the first few of each person are a random few.
    rows = rng.permutation(rows)
    rows = rows[np.argsort(np.asarray(identity)[rows], kind="stable")]
    _, first, count = np.unique(np.asarray(identity)[rows], return_index=True, return_counts=True)
    rows = rows[np.arange(len(rows)) - np.repeat(first, count) < images_per_identity]
    who = np.asarray(identity)[rows].astype(np.int64)

    # Position j pairs with those before it: first[j] of other persons, then j - first[j] of the same.
    _, first, inverse = np.unique(who, return_index=True, return_inverse=True)
    others = first[inverse] if len(who) else np.empty(0, dtype=np.int64)
    own = np.arange(len(who)) - others
    sides = []
    for partners, offset in ((own, others), (others, np.zeros_like(others))):
        ends = np.cumsum(partners)
        number = _choose(int(ends[-1]) if len(ends) else 0, max_pairs, rng)
        b = np.searchsorted(ends, number, side="right")
        a = offset[b] + number - (ends[b] - partners[b])
        sides.append((a, b))
    a, b = (np.concatenate(parts) for parts in zip(*sides, strict=True))
    return Pairs(a=rows[a], b=rows[b], same=who[a] == who[b], group_a=who[a], group_b=who[b])


def listed_pairs(table: NDArray[np.int64], rows: NDArray[Any], identity: NDArray[Any]) -> tuple[Pairs, Indices]:
    """The pairs of a protocol's table with both sides among ``rows``, and their folds ``(P,)``.

    ``table`` is ``(Q, 4)``: row a, row b, same person (1/0), fold. ``identity`` is ``(N,)``, for all rows.
    """
    kept = table[np.isin(table[:, 0], rows) & np.isin(table[:, 1], rows)]
    a, b = kept[:, 0], kept[:, 1]
    who = np.asarray(identity).astype(np.int64, copy=False)
    return Pairs(a=a, b=b, same=kept[:, 2] == 1, group_a=who[a], group_b=who[b]), kept[:, 3]


def same_attribute(pairs: Pairs, codes: NDArray[Any]) -> NDArray[np.bool_]:
    """True ``(P,)`` for the pairs whose two sides have the same known code; ``codes`` is ``(N,)``, for all rows.

    With the mask, ``pairs.where(mask)`` and ``scores[mask]`` give the figures within one gender, say, unscored anew.
    """
    codes = np.asarray(codes)
    mask: NDArray[np.bool_] = (codes[pairs.a] == codes[pairs.b]) & (codes[pairs.a] >= 0)
    return mask


def scores(
    x: NDArray[Any],
    pairs: Pairs,
    *,
    kind: Literal["cosine", "euclidean"] = "cosine",
    centre: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """How alike the two sides of each pair are, float32 ``(P,)``, higher meaning more alike.

    Cosine similarity, in [-1, 1] and 0 for a vector of zeros; or minus the Euclidean distance. Works in blocks: beside
    the result, memory grows with the number of rows (one norm each), not with rows or pairs times dimensions.

    Args:
        x: ``(N, ...)`` vectors or images of any dtype, flattened; may be memory-mapped.
        pairs: Pairs of its rows.
        kind: The measure.
        centre: Subtracted from each row first, of the shape of one row; None for none.

    Raises:
        InputError: For values that are not finite, and an unknown kind.
    """
    if kind not in ("cosine", "euclidean"):
        raise InputError(f"the kind of score must be 'cosine' or 'euclidean', got {kind!r}")
    width = int(np.prod(x.shape[1:]))
    step = max(1, _CHUNK_BYTES // (4 * max(1, width)))
    shift = None if centre is None else np.asarray(centre, dtype=np.float32).reshape(1, width)

    def gather(rows: Indices) -> NDArray[np.float32]:
        block: NDArray[np.float32] = x[rows].reshape(len(rows), width).astype(np.float32, copy=False)
        return block if shift is None else block - shift

    used = np.unique(np.concatenate([pairs.a, pairs.b]))
    norms = np.ones(len(x), dtype=np.float32)
    for start in range(0, len(used), step):
        rows = used[start : start + step]
        block = gather(rows)
        norms[rows] = np.sqrt(np.einsum("ij,ij->i", block, block))
    broken = used[~np.isfinite(norms[used])]
    if len(broken):
        raise InputError(f"vectors must be finite: {len(broken)} rows are not, row {broken[0]} first")
    norms[norms == 0] = 1
    out = np.empty(len(pairs), dtype=np.float32)
    for start in range(0, len(pairs), step):
        part = slice(start, start + step)
        left, right = gather(pairs.a[part]), gather(pairs.b[part])
        if kind == "cosine":
            out[part] = np.einsum("ij,ij->i", left, right) / (norms[pairs.a[part]] * norms[pairs.b[part]])
        else:
            left = left - right
            out[part] = -np.sqrt(np.einsum("ij,ij->i", left, left))
    return np.clip(out, -1, 1) if kind == "cosine" else out
