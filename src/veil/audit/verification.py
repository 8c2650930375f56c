"""Verification: how well releases tell whether two images show the same person.

Pairs of images are scored, higher meaning more alike, and the scores of genuine (same person) and impostor pairs give
ROC figures. Intervals draw persons with replacement: a person drawn w times gives each of their genuine pairs the
weight w, and an impostor pair of persons i and j has the weight w_i w_j. This is the bootstrap of subjects of
Bolle, Ratha & Pankanti, "Error analysis of pattern recognition systems: the subsets bootstrap", CVIU 93, 2004, and
Poh, Martin & Bengio, IEEE TPAMI 29(3), 2007, with an impostor pair resampled through both of its persons, as Snijders
& Borgatti, Connections 22(2), 1999, resample a network's vertices. Of the variance from single impostor pairs, as
opposed to their persons, the product of weights counts up to three times as much as there is (Owen, "The pigeonhole
bootstrap", Ann. Appl. Stat. 1(2), 2007): the intervals err towards too wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from veil import metrics
from veil.audit import intervals
from veil.audit.findings import Finding
from veil.audit.intervals import UNDEFINED, Interval
from veil.errors import InputError

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

FARS = (0.01, 0.001)
IMPOSTORS_AT_FAR = 10
"""TAR at a FAR is reported where at least so many impostor pairs are expected to be accepted."""
FOLDS = 10
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
        group_b: int64 ``(P,)`` identity code of row b.
    """

    a: Indices
    b: Indices
    same: NDArray[np.bool_]
    group_a: Indices
    group_b: Indices

    def __len__(self) -> int:
        return len(self.a)

    def where(self, mask: NDArray[np.bool_]) -> Pairs:
        """The pairs at which ``mask`` ``(P,)`` is true."""
        return Pairs(self.a[mask], self.b[mask], self.same[mask], self.group_a[mask], self.group_b[mask])


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


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A verification figure, ready to become a finding.

    Attributes:
        code: As in :data:`veil.audit.findings.CODES`.
        interval: The figure and its limits; NaN where the status is not ``"ok"``.
        n: Number of pairs.
        chance: The figure of scores that know nothing.
        level: Coverage of the interval.
        status: ``"ok"`` or ``"not_applicable"``.
        note: How many pairs of each kind and persons, or why there is no figure.
        replicates: ``(R,)`` the resampled figures, for differences between releases; empty where there are none.
    """

    code: str
    interval: Interval
    n: int
    chance: float
    level: float
    status: str = "ok"
    note: str = ""
    replicates: Floats = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    def finding(
        self, *, release: str, attacker: str, role: str = "utility", target: str = "identity", worst: bool = False
    ) -> Finding:
        """The figure as a finding."""
        return Finding(
            code=self.code, release=release, target=target, attacker=attacker, role=role, value=self.interval.value,
            low=self.interval.low, high=self.interval.high, level=self.level, n=self.n, chance=self.chance,
            worst=worst, status=self.status, note=self.note,
        )  # fmt: skip


def _counts(pairs: Pairs) -> str:
    genuine = int(pairs.same.sum())
    people = len(np.union1d(pairs.group_a, pairs.group_b))
    return f"{genuine:,} genuine and {len(pairs) - genuine:,} impostor pairs of {people:,} people"


def verify(
    scores: NDArray[Any],
    pairs: Pairs,
    calibrate_scores: NDArray[Any] | None,
    calibrate_pairs: Pairs | None,
    *,
    seed: int,
    level: float = 0.95,
    replicates: int = 300,
    fars: Sequence[float] = FARS,
) -> list[Figure]:
    """AUC, EER, TAR at each FAR and accuracy of scored pairs, with intervals that resample persons.

    The values are exact, and so is each replicate: the scores are sorted once, a replicate is one pass over the pairs'
    weights. The same seed and pairs give the same replicates for every release, so :func:`difference` is paired.
    The accuracy's threshold is chosen on the calibrate pairs and held fixed.

    Args:
        scores: ``(P,)``, higher meaning more alike.
        pairs: The P pairs, of the test split.
        calibrate_scores: ``(Q,)`` scores of the calibrate split's pairs; None leaves accuracy not applicable.
        calibrate_pairs: The Q pairs.
        seed: For the bootstrap.
        level: Coverage of the intervals.
        replicates: Number of resamples.
        fars: False-accept rates; one with fewer than :data:`IMPOSTORS_AT_FAR` / rate impostor pairs is not applicable.
    """
    impostors = int((~pairs.same).sum())
    chances = {"verification.auc": 0.5, "verification.eer": 0.5}
    chances |= {f"verification.tar_at_far_{far:g}": far for far in fars} | {"verification.accuracy": 0.5}
    missing: dict[str, str] = {}
    for far in fars:
        if impostors * far < IMPOSTORS_AT_FAR * (1 - 1e-9):  # 10,000 x 0.001 may round to less than 10
            needed = f"needs at least {IMPOSTORS_AT_FAR / far:,.0f} impostor pairs, there are {impostors:,}"
            missing[f"verification.tar_at_far_{far:g}"] = needed
    threshold = float("nan")
    if calibrate_scores is not None and calibrate_pairs is not None:
        threshold = metrics.best_threshold(calibrate_scores, calibrate_pairs.same)
    if np.isnan(threshold):
        missing["verification.accuracy"] = "no genuine and impostor pairs of the calibrate split to set a threshold"
    if len(np.union1d(pairs.group_a, pairs.group_b)) == 2:
        missing = dict.fromkeys(chances, f"needs three people, two cannot be resampled; there are {_counts(pairs)}")
    if impostors in (0, len(pairs)):
        missing = dict.fromkeys(chances, f"needs both kinds of pairs, there are {_counts(pairs)}")

    ranking = metrics.rank(scores, pairs.same)
    accepted = int(np.searchsorted(-ranking.thresholds, -threshold, side="right")) - 1

    def figures(roc: metrics.Roc) -> dict[str, float]:
        found = {"verification.auc": roc.auc(), "verification.eer": roc.eer()}
        found |= {f"verification.tar_at_far_{far:g}": roc.tar_at_far(far) for far in fars}
        found["verification.accuracy"] = float(roc.tar[accepted] + 1 - roc.far[accepted]) / 2
        return found

    values = dict.fromkeys(chances, float("nan"))
    resampled: list[dict[str, float]] = []
    people = 0
    if len(missing) < len(chances):
        values = figures(ranking.roc_ordered(np.ones(len(pairs))))
        unit = intervals.units(np.concatenate([pairs.group_a, pairs.group_b]), 2 * len(pairs))
        people = int(unit.max()) + 1
        # In the order of the scores; a genuine pair's second side points at an extra entry, which weighs 1.
        first = unit[: len(pairs)][ranking.order]
        second = np.where(pairs.same, people, unit[len(pairs) :])[ranking.order]
        for block in intervals.draws(people, seed=seed, replicates=intervals.enough(replicates, level)):
            for drawn in np.pad(block, ((0, 0), (0, 1)), constant_values=1.0):
                resampled.append(figures(ranking.roc_ordered(drawn[first] * drawn[second])))

    found = []
    for code, chance in chances.items():
        if code in missing:
            found.append(
                Figure(code=code, interval=UNDEFINED, n=len(pairs), chance=chance, level=level,
                       status="not_applicable", note=missing[code])
            )  # fmt: skip
            continue
        drawn = np.array([replicate[code] for replicate in resampled])
        interval = intervals.percentile(values[code], drawn, level=level, trials=people)
        found.append(
            Figure(code=code, interval=interval, n=len(pairs), chance=chance, level=level, note=_counts(pairs),
                   replicates=drawn)
        )  # fmt: skip
    return found


def difference(figure: Figure, reference: Figure) -> Interval:
    """The interval of ``figure - reference``, paired replicate by replicate: what a release costs or gains.

    Both must come from :func:`verify` with the same code, pairs, seed and number of replicates. Undefined where one is
    not applicable. Raises ValueError for figures that cannot be paired.
    """
    if figure.code != reference.code:
        raise ValueError(f"a difference needs two figures of one code, got {figure.code} and {reference.code}")
    if "not_applicable" in (figure.status, reference.status):
        return UNDEFINED
    if figure.n != reference.n or len(figure.replicates) != len(reference.replicates):
        raise ValueError(f"the figures of {figure.code} are not of the same pairs and replicates")
    value = figure.interval.value - reference.interval.value
    return intervals.percentile(value, figure.replicates - reference.replicates, level=figure.level)


def ten_fold(scores: NDArray[Any], same: NDArray[Any], fold: NDArray[Any], *, level: float = 0.95) -> Figure:
    """Accuracy by LFW's protocol: each of ten folds at the threshold that is best on the other nine; their mean.

    A fold's accuracy is the mean of its true-accept and true-reject rate, which is the protocol's plain accuracy where
    a fold has as many genuine as impostor pairs; folds restricted to the people of one split are uneven. The interval
    is Student's over the ten folds, whose people are disjoint, cut to [0, 1]; where all folds are without an error,
    Wilson's for as many trials as there are pairs of the rarer kind. Not applicable where a fold lacks genuine or
    impostor pairs. Huang et al., "Labeled Faces in the Wild", tech. rep. 07-49, 2007.

    Args:
        scores: ``(P,)``, higher meaning more alike.
        same: ``(P,)`` true for genuine pairs.
        fold: ``(P,)`` number of each pair's fold.
        level: Coverage of the interval.
    """
    same = np.asarray(same).astype(bool)
    names = np.unique(fold)
    genuine = int(same.sum())
    note = f"{genuine:,} genuine and {len(same) - genuine:,} impostor pairs"

    def figure(interval: Interval, status: str, note: str) -> Figure:
        return Figure(
            code="verification.lfw10_accuracy", interval=interval, n=len(same), chance=0.5, level=level,
            status=status, note=note,
        )  # fmt: skip

    if len(names) != FOLDS:
        return figure(UNDEFINED, "not_applicable", f"needs {FOLDS} folds, there are {len(names)} ({note})")
    lacking = [str(name) for name in names if len(set(same[fold == name].tolist())) < 2]
    if lacking:
        why = f"no genuine or no impostor pairs in fold {', '.join(lacking)} ({note})"
        return figure(UNDEFINED, "not_applicable", why)
    accuracies = []
    for name in names:
        inside = fold == name
        threshold = metrics.best_threshold(scores[~inside], same[~inside])
        accuracies.append(metrics.accuracy_at(scores[inside], same[inside], threshold))
    value = float(np.mean(accuracies))
    if value == 1:
        rarer = min(genuine, len(same) - genuine)
        return figure(intervals.wilson(rarer, rarer, level), "ok", note)
    half = intervals.student_quantile(level, FOLDS - 1) * float(np.std(accuracies, ddof=1)) / np.sqrt(FOLDS)
    return figure(Interval(value, max(0.0, value - half), min(1.0, value + half)), "ok", note)
