"""Matching in the words and at the rates of ISO/IEC 19795-1: false match and false non-match rates over all pairs of
the test people, of every group at one threshold, and searches of one among many.

What is compared, and by which comparator, is what :mod:`veil.auditing.matching` picked on ``calibrate``. Intervals go
by people, as those of :mod:`veil.auditing.verification` do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.auditing import intervals
from veil.auditing.comparisons import Comparisons, Vectors, compare
from veil.auditing.intervals import Interval, Persons, Spread
from veil.auditing.pairs import Floats, Indices, Metric, without_couples
from veil.findings import Finding, Measurement
from veil.findings.codes import FNIR, FNMR_AT, GROUP_FMR, GROUP_FNMR, RANKS, RATIOS
from veil.findings.rates import Rates

IMPOSTORS_AT_FMR = 10
"""A figure at a false match rate is reported where at least so many non-mated pairs are expected to match."""
ONE_FMR = 0.001
"""The false match rate over all test pairs whose threshold is every group's."""
FPIR = 0.01
_MOST_CLASSES = 20
_MOST_PROBES = 5000
_TIE = 2.0**-19  # of the reach of scores


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Who is compared, and by whom.

    Attributes:
        release: Its name.
        attacker: The comparator.
        metric: By what it compares vectors.
        level: Coverage of intervals.
        seed: Draws galleries, and people where they are too many.
    """

    release: str
    attacker: str
    metric: Metric
    level: float
    seed: int

    def measurement(self, n: int, target: str = "identity") -> Measurement:
        return Measurement(
            release=self.release, target=target, attacker=self.attacker, role="utility", n=n, level=self.level
        )


def measured(
    performance: Performance,
    x: NDArray[Any],
    rows: Indices,
    identity: NDArray[Any],
    labels: Mapping[str, tuple[NDArray[Any], Sequence[str]]],
) -> tuple[list[Finding], list[Rates]]:
    """Findings and curves of vectors ``x`` ``(N, ...)``.

    Args:
        performance: By whom they are compared.
        x: For all rows.
        rows: Of the test split.
        identity: ``(N,)`` who is seen, below 0 where unknown.
        labels: For each label by which people are grouped codes ``(N,)``, below 0 where unknown, and its classes.
    """
    of_all = compare(x, rows, identity, performance.metric, fmr=2 * max(FNMR_AT), seed=performance.seed)
    findings = _non_matches(performance, of_all)
    for label, (codes, classes) in labels.items():
        findings += _groups(performance, of_all, label, codes[of_all.rows], classes)
    searched, cmc = _searches(performance, x, of_all.rows, identity)
    rates = []
    if of_all.non_mated and len(of_all.mated):
        fmr, fnmr = of_all.det()
        rates.append(Rates(release=performance.release, kind="det", attacker=performance.attacker, x=fmr, y=fnmr))
    return findings + searched, rates + cmc


# -- one to one -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rate:
    """A share of pairs, and who moves it.

    Attributes:
        value: The share.
        sums: ``(U,)`` the influence of each person's pairs.
        couples: Squares of couples' sums.
        mated: Whether pairs are of one person each.
    """

    value: float
    sums: Floats
    couples: float
    mated: bool

    def scaled(self, factor: float) -> _Rate:
        return replace(self, sums=factor * self.sums, couples=factor**2 * self.couples)


def _spread(*rates: _Rate) -> Spread:
    """The spread of a sum of rates; of non-mated pairs as :class:`veil.auditing.pairs.Shared` has it."""
    people = len(rates[0].sums)
    scale = (people - 1) / (people - 2)
    sums = sum((rate.sums * (1 if rate.mated else scale) for rate in rates), np.zeros(people))
    alone = sum(float(rate.sums @ rate.sums) for rate in rates if rate.mated)
    couples = sum(scale**2 * rate.couples for rate in rates if not rate.mated)
    return without_couples(math.sqrt(people / (people - 1)) * sums, alone, couples)


def _non_match(of_all: Comparisons, threshold: float, kept: NDArray[np.bool_] | None = None) -> _Rate:
    """The false non-match rate at a threshold, of all rows or of those kept ``(n,)``, by the people who are kept."""
    mated, pairs = of_all.mated, of_all.mated_rows
    if kept is not None:
        inside = kept[pairs].all(1)
        mated, pairs = mated[inside], pairs[inside]
    person = of_all.person if kept is None else _renumbered(of_all.person, kept)
    missed, people = mated <= threshold, int(person.max()) + 1
    value = float(missed.mean())
    sums = np.bincount(person[pairs[:, 0]], (missed - value) / len(mated), people).astype(np.float64)
    return _Rate(value, sums, 0.0, True)


def _match(of_all: Comparisons, threshold: float, kept: NDArray[np.bool_] | None = None) -> tuple[_Rate, int]:
    """The false match rate at a threshold that is at least ``bound``, and of how many non-mated pairs."""
    pairs = of_all.tail_rows[of_all.tail > threshold]
    person = of_all.person
    if kept is not None:
        pairs = pairs[kept[pairs].all(1)]
        person = _renumbered(person, kept)
    size = np.bincount(person[person >= 0]).astype(np.float64)
    people, n = len(size), float(size.sum())
    total = (n * n - float(size @ size)) / 2
    a, b = np.sort(person[pairs], axis=1).T
    value = len(pairs) / total
    accepted = np.bincount(a, minlength=people) + np.bincount(b, minlength=people)
    sums = (accepted - value * size * (n - size)) / total
    couple, count = np.unique(a * people + b, return_counts=True)
    of_couple = size[couple // people] * size[couple % people]
    squares = np.square(size)
    rest = (float(squares.sum()) ** 2 - float(squares @ squares)) / 2
    couples = float(np.sum(count * count - 2 * value * count * of_couple)) + value**2 * rest
    return _Rate(value, sums, max(couples, 0.0) / total**2, False), round(total)


def _renumbered(person: Indices, kept: NDArray[np.bool_]) -> Indices:
    """Codes ``(n,)`` of the people who are kept, -1 of other rows."""
    out = np.full(len(person), -1, np.int64)
    out[kept] = np.unique(person[kept], return_inverse=True)[1].reshape(int(kept.sum()))
    return out


def _non_matches(performance: Performance, of_all: Comparisons) -> list[Finding]:
    """The false non-match rate at each false match rate."""
    there = f"{len(of_all.mated):,} mated and {of_all.non_mated:,} non-mated pairs of {of_all.people:,} people"
    findings = []
    for fmr, code in FNMR_AT.items():
        pairs = performance.measurement(len(of_all.mated) + of_all.non_mated)
        why = ""
        if not len(of_all.mated) or of_all.people < 3:
            why = f"needs mated and non-mated pairs of three people, there are {there}"
        elif of_all.non_mated * fmr < IMPOSTORS_AT_FMR * (1 - 1e-9):
            why = f"needs at least {IMPOSTORS_AT_FMR / fmr:,.0f} non-mated pairs, there are {there}"
        if why:
            findings.append(pairs.missing(code, "not_applicable", why, chance=1 - fmr))
            continue
        interval = _fnmr_at(of_all, fmr, performance.level)
        note = f"all {there}, at the threshold {of_all.threshold(fmr):.6g}{_left_out(of_all)}"
        findings.append(pairs.measured(code, interval, chance=1 - fmr, worst=True, note=note))
    return findings


def _left_out(of_all: Comparisons) -> str:
    return f"; {of_all.left_out:,} rows, of people who were drawn, are left out" if of_all.left_out else ""


def _fnmr_at(of_all: Comparisons, fmr: float, level: float) -> Interval:
    """1 - TAR at that FAR: its threshold moves with the people, see :meth:`veil.auditing.verification._Curve`."""
    threshold = of_all.threshold(fmr)
    missed, (matched, _) = _non_match(of_all, threshold), _match(of_all, threshold)
    below, above = fmr / (2 - fmr), 2 * fmr / (1 + fmr)
    rise = of_all.fnmr(of_all.threshold(below)) - of_all.fnmr(of_all.threshold(above))
    slope = rise / (math.log(4) * fmr * (1 - fmr))
    relative = _spread(matched).variance / fmr**2
    spread = _spread(missed, matched.scaled(slope * math.sqrt(1 + relative)))
    return intervals.bounded(missed.value, spread, of_all.people, level=level)


# -- by group ---------------------------------------------------------------------------------------------------------


def _groups(
    performance: Performance, of_all: Comparisons, label: str, codes: NDArray[Any], classes: Sequence[str]
) -> list[Finding]:
    """Rates within each class of a label, at the threshold that lets in :data:`ONE_FMR` of all test pairs."""
    needed = IMPOSTORS_AT_FMR / ONE_FMR
    why = ""
    if len(classes) > _MOST_CLASSES:
        why = f"{label} has {len(classes):,} classes, more than {_MOST_CLASSES}"
    elif of_all.non_mated < needed * (1 - 1e-9) or of_all.people < 3:
        why = f"one threshold for all needs at least {needed:,.0f} non-mated pairs, there are {of_all.non_mated:,}"
    if why:
        by_label = performance.measurement(0, f"identity|by {label}")
        return [by_label.missing(code, "not_applicable", why, chance=1.0) for code in RATIOS.values()]
    threshold = of_all.threshold(ONE_FMR)
    found: dict[str, list[Finding]] = {code: [] for code in RATIOS}
    for code, name in enumerate(classes):
        target = f"identity|{label}={name}"
        for finding in _group(performance, of_all, threshold, codes == code, target):
            found[finding.code].append(finding)
    ratios = [_ratio(performance, found[code], f"identity|by {label}", RATIOS[code]) for code in RATIOS]
    return [*(f for each in found.values() for f in each), *ratios]


def _group(
    performance: Performance, of_all: Comparisons, threshold: float, kept: NDArray[np.bool_], target: str
) -> Iterator[Finding]:
    """FMR and FNMR of the pairs of which both rows are kept ``(n,)``, at a threshold that is held fixed."""
    at = f"within the class, at the threshold of all test pairs' FMR {ONE_FMR:g}, held fixed"
    size = np.bincount(of_all.person[kept]) if kept.any() else np.zeros(1, np.int64)
    people, mated = int((size > 0).sum()), int((size * (size - 1) // 2).sum())
    non_mated = math.comb(int(kept.sum()), 2) - mated
    chances = {GROUP_FMR: ONE_FMR, GROUP_FNMR: 1 - ONE_FMR}
    for code, pairs, needed in ((GROUP_FMR, non_mated, round(IMPOSTORS_AT_FMR / ONE_FMR)), (GROUP_FNMR, mated, 1)):
        measurement = performance.measurement(pairs, target)
        if pairs < needed or people < 3:
            why = f"needs at least {needed:,} such pairs of three people, there are {pairs:,} of {people:,}"
            yield measurement.missing(code, "not_applicable", why, chance=chances[code])
            continue
        rate = _match(of_all, threshold, kept)[0] if code == GROUP_FMR else _non_match(of_all, threshold, kept)
        limits = intervals.bounded(rate.value, _spread(rate), people, level=performance.level)
        yield measurement.measured(code, limits, chance=chances[code], worst=True, note=f"{people:,} people; {at}")


def _ratio(performance: Performance, rates: Sequence[Finding], target: str, code: str) -> Finding:
    """The largest rate over the smallest.

    Its interval takes the two groups for independent and has their logarithms' widths, each at its own limits (the
    square root of the sum of squares on either side: Zou & Donner, Stat. Med. 27, 2008).
    """
    usable = sorted((f for f in rates if f.ok), key=lambda f: f.value or 0.0)
    measurement = performance.measurement(sum(f.n for f in usable), target)
    if len(usable) < 2:
        why = f"needs two classes with a figure, there {'is one' if usable else 'are none'}"
        return measurement.missing(code, "not_applicable", why, chance=1.0)
    (least, low, high, _), (most, bottom, top, _) = usable[0].figures(), usable[-1].figures()
    names = [f.target.partition("=")[2] for f in (usable[-1], usable[0])]
    if least <= 0 or bottom <= 0:
        why = f"a rate of 0 ({names[1]}), or one that may be 0, has no ratio"
        return measurement.missing(code, "not_applicable", why, chance=1.0)
    value = most / least
    down = math.hypot(math.log(most / bottom), math.log(high / least))
    up = math.hypot(math.log(top / most), math.log(least / low)) if low > 0 else math.inf
    if not math.isfinite(up):
        why = f"the rate of {names[1]} may be 0: the ratio, {value:.3g} as measured, has no upper limit"
        return measurement.missing(code, "not_applicable", why, chance=1.0)
    limits = Interval(value, value * math.exp(-down), value * math.exp(up))
    note = f"{names[0]} over {names[1]}; the largest of several ratios is above 1 by luck alone"
    return measurement.measured(code, limits, chance=1.0, worst=True, note=note)


# -- one among many ---------------------------------------------------------------------------------------------------


def _searches(
    performance: Performance, x: NDArray[Any], rows: Indices, identity: NDArray[Any]
) -> tuple[list[Finding], list[Rates]]:
    """The share of mates by rank among one image of everybody, and misses in an open set of which half is enrolled."""
    rng = np.random.default_rng(performance.seed)
    rows = rng.permutation(rows)
    _, first, person = np.unique(identity[rows], return_index=True, return_inverse=True)
    drawn = rng.permutation(len(first))  # codes follow names: who is enrolled must be drawn
    first, person = first[drawn], np.argsort(drawn)[person.reshape(len(rows))]
    vectors = Vectors.of(x, rows, performance.metric)
    probes = np.setdiff1d(np.arange(len(rows)), first)[:_MOST_PROBES]
    findings, curves = _closed(performance, vectors, probes, first, person)
    return [*findings, _open(performance, vectors, first, person)], curves


def _closed(
    performance: Performance, vectors: Vectors, probes: Indices, gallery: Indices, person: Indices
) -> tuple[list[Finding], list[Rates]]:
    """The share of probes whose mate is among the first ranks; mates that tie with others count for their share."""
    measurement = performance.measurement(len(probes))
    if not len(probes) or len(gallery) < 3:
        why = f"needs three people, and one with two images; there are {len(gallery):,} people"
        return [measurement.missing(code, "not_applicable", why) for code in RANKS.values()], []
    ranks = np.arange(1, min(max(RANKS), len(gallery)) + 1)
    found = np.empty((len(probes), len(ranks)))
    tie = _TIE * vectors.reach
    for part in _parts(len(probes)):
        scores = _against(vectors, probes[part], gallery)
        own = scores[np.arange(len(scores)), person[probes[part]]][:, None]
        before = (scores > own + tie).sum(1)[:, None]
        tied = (np.abs(scores - own) <= tie).sum(1)[:, None]
        found[part] = np.clip((ranks - before) / tied, 0, 1)
    people = person[probes]
    note = f"one image each of {len(gallery):,} people; {len(probes):,} others are looked for"
    findings = []
    for rank, code in RANKS.items():
        if rank > len(gallery):
            why = f"needs {rank} people, there are {len(gallery):,}"
            findings.append(measurement.missing(code, "not_applicable", why))
            continue
        limits = intervals.rate_interval(found[:, rank - 1], people, level=performance.level)
        chance = rank / len(gallery)
        findings.append(measurement.measured(code, limits, chance=chance, worst=True, note=note))
    shares = tuple(float(f"{share:.6g}") for share in found.mean(0))
    by_rank = Rates(release=performance.release, kind="cmc", attacker=performance.attacker,
                    x=tuple(float(rank) for rank in ranks), y=shares)  # fmt: skip
    return findings, [by_rank]


def _open(performance: Performance, vectors: Vectors, first: Indices, person: Indices) -> Finding:
    """FNIR at an FPIR: mated probes whose mate is not above the threshold that so few non-mated probes' best exceeds.

    Half of the people are enrolled with an image each; their other images are mated probes, all of the others' are
    non-mated ones. The gallery is held fixed in the interval.
    """
    enrolled = len(first) // 2
    gallery = first[:enrolled]
    mated = np.setdiff1d(np.flatnonzero(person < enrolled), gallery)[:_MOST_PROBES]
    strangers = np.flatnonzero(person >= enrolled)[:_MOST_PROBES]
    measurement = performance.measurement(len(mated) + len(strangers))
    needed, chance = round(IMPOSTORS_AT_FMR / FPIR), (1 - FPIR) ** (1 / max(enrolled, 1))
    there = f"{len(mated):,} mated and {len(strangers):,} non-mated probes, {enrolled:,} people enrolled"
    if len(strangers) < needed or not len(mated) or enrolled < 2:
        why = f"needs at least {needed:,} non-mated probes and a mated one, there are {there}"
        return measurement.missing(FNIR, "not_applicable", why, chance=chance)
    best, own = np.empty(len(strangers)), np.empty(len(mated))
    for part in _parts(len(strangers)):
        best[part] = _against(vectors, strangers[part], gallery).max(1)
    for part in _parts(len(mated)):
        scores = _against(vectors, mated[part], gallery)
        own[part] = scores[np.arange(len(scores)), person[mated[part]]]
    best, own = vectors.rounded(best), vectors.rounded(own)
    falling = -np.sort(-best)

    def at(fpir: float) -> float:
        return float(falling[min(math.floor(fpir * len(best) * (1 + 1e-12)), len(best) - 1)])

    threshold = at(FPIR)
    missed, raised = own <= threshold, best > threshold
    below, above = FPIR / (2 - FPIR), 2 * FPIR / (1 + FPIR)
    rise = float((own <= at(below)).mean() - (own <= at(above)).mean())
    slope = max(rise, 0.0) / (math.log(4) * FPIR * (1 - FPIR))
    influence = np.concatenate([
        (missed - missed.mean()) / len(mated), slope * (raised - raised.mean()) / len(strangers)
    ])  # fmt: skip
    probes = np.concatenate([mated, strangers])
    kinds = np.repeat([0, 1], [len(mated), len(strangers)])
    spread = Persons.of(person[probes], len(probes), kinds).spread(influence)
    people = len(np.unique(person[mated]))
    limits = intervals.bounded(float(missed.mean()), spread, people, level=performance.level)
    return measurement.measured(FNIR, limits, chance=chance, worst=True, note=f"{there}, held fixed in the interval")


def _parts(n: int) -> Iterator[slice]:
    return (slice(start, min(start + 512, n)) for start in range(0, n, 512))


def _against(vectors: Vectors, probes: Indices, gallery: Indices) -> Floats:
    """Scores ``(P, G)`` of probes and records."""
    scores: Floats = vectors.scores(probes, gallery).astype(np.float64)
    return scores
