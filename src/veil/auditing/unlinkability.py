"""Unlinkability and renewal: what releases of the same people made under two keys tell of each other.

ISO/IEC 24745 asks that protected templates of one person in two systems cannot be linked, and that a template which was
stolen can be revoked: one made under a new key must not match it. ISO/IEC 30136 asks for figures.

- D_sys (Gomez-Barrero et al., "General framework to evaluate unlinkability in biometric template protection systems",
  IEEE TIFS 13(6), 2018): scores s of two releases under two keys, of one image (mated, m) or of two people (non-mated,
  n), have a likelihood ratio LR(s) = p(s | m) / p(s | n). With both equally likely beforehand (their omega = 1) a score
  says D(s) = 0 where LR <= 1, and else 2 LR / (1 + LR) - 1. D_sys is the mean of D over mated scores: 0 for releases
  that nobody can link by this score, 1 where every one is linked.
- Renewal: the share of images whose release under the old key is taken for one under the new key, at the threshold at
  which the system takes 1 % of strangers' releases.

An attacker who holds releases of both keys and neither key compares them as they are; one who also has pairs, of other
people, learns a linear map between the two. An orthogonal matrix falls to the second, given some k pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.auditing import linkage
from veil.auditing import pairs as pairing
from veil.auditing.exhibit import Exhibit
from veil.auditing.intervals import Interval, normal_quantile, rate_interval, units, wilson
from veil.auditing.linkage import Linker, Linking
from veil.auditing.pairs import Floats, Indices, Metric
from veil.auditing.problem import Problem, failure
from veil.auditing.setting import Setting, without
from veil.auditing.task import Outcome, Task, given
from veil.data.pack import flat
from veil.findings import Measurement
from veil.findings.codes import CROSSED

UNLINKABILITY, LEARNED, RENEWAL = CROSSED
MAP = "linear map"
"""Who learns from pairs: canonical correlations."""
ACCEPTED = 0.01
"""Share of strangers' releases that the system takes for a person's own, at the threshold of :data:`RENEWAL`."""

_ROWS = {"attack": 20_000, "calibrate": 2_000, "test": 4_000}
"""Most rows of each split that are released under another key."""
_PAIRS = 200_000  # non-mated
_RESAMPLES = 200
_HALVES = 10


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Releases of the same rows under two keys.

    Attributes:
        first: float32 ``(n, k)``, under the one key.
        second: float32 ``(n, k)``, row by row of the same, under the other.
        people: ``(n,)`` codes of who is seen.
    """

    first: NDArray[np.float32]
    second: NDArray[np.float32]
    people: Indices

    def __len__(self) -> int:
        return len(self.people)


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """Scores across two keys, higher meaning more alike.

    Attributes:
        mated: ``(m,)`` of the two releases of one image.
        mated_people: ``(m,)`` codes of whom each is of.
        other: ``(p,)`` of releases of two people.
        other_people: ``(p, 2)`` codes of them.
    """

    mated: NDArray[Any]
    mated_people: Indices
    other: NDArray[Any]
    other_people: Indices


# -- figures ----------------------------------------------------------------------------------------------------------


def d_sys(comparisons: Comparisons, *, seed: int, level: float = 0.95) -> Interval:
    """D_sys in [0, 1].

    Densities are counted in bins that hold equally much of both kinds together, so fine as the mated scores allow. Each
    bin falls on one side or the other by luck, too, so that D of scores that tell nothing would be above 0: therefore
    one half of the people says in which bins mated scores are the likelier, and the other half says by how much, and
    the other way round, for several halves. The limits are z deviations of a bootstrap of people away, and at least
    those of a rate of so many people; the upper one is as far above D without halves, where that is higher, and the
    lower one is 0 where scores of one distribution may reach that D by luck.

    Args:
        comparisons: At least two people, and a score of either kind.
        seed: Of halves and bootstrap.
        level: Coverage of the interval.
    """
    c = comparisons
    bins = _binned(c.mated, c.other)
    count = int(max(part.max() for part in bins)) + 1
    rng = np.random.default_rng(seed)
    people = units(np.concatenate([c.mated_people, c.other_people.ravel()]), len(c.mated) + 2 * len(c.other))
    who, pairs = people[: len(c.mated)], people[len(c.mated) :].reshape(-1, 2)
    unique = int(people.max()) + 1

    def shares(weight: Floats) -> tuple[Floats, Floats]:
        """Of mated and of other scores the share in each bin, where people weigh so much ``(U,)``."""
        weighed = (weight[who], bins[0]), (weight[pairs[:, 0]] * weight[pairs[:, 1]], bins[1])
        mated, other = (np.bincount(part, weights, count) for weights, part in weighed)
        return mated / max(mated.sum(), 1e-300), other / max(other.sum(), 1e-300)

    all_shares = shares(np.ones(unique))
    halves = []
    for _ in range(_HALVES):
        one = (rng.permutation(unique) % 2).astype(np.float64)
        sides = shares(one), shares(1 - one)
        for (mated, other), measured in (sides, sides[::-1]):
            halves.append(_d(*measured, likelier=mated > other))
    drawn = [
        _d(*shares(rng.multinomial(unique, np.full(unique, 1 / unique)).astype(np.float64))) for _ in range(_RESAMPLES)
    ]
    value = min(max(round(float(np.mean(halves)), 12), 0.0), 1.0)
    together = _d(*all_shares)
    both = (all_shares[0] + all_shares[1]) / 2
    luck = []
    for _ in range(_RESAMPLES):
        mated, other = (rng.multinomial(len(part), both) / len(part) for part in bins)
        luck.append(_d(mated, other))
    trials = len(np.unique(who))
    width = normal_quantile(level) * max(float(np.std(drawn)), math.sqrt(value * (1 - value) / trials))
    width = max(width, wilson(0, trials, level).high * (value in (0, 1)))
    low = 0.0 if together <= np.quantile(luck, (1 + level) / 2) else value - width
    return Interval(value, max(low, 0.0), min(max(value, together) + width, 1.0))


def _binned(mated: NDArray[Any], other: NDArray[Any]) -> tuple[Indices, Indices]:
    """The bin of each score; each bin holds equally much of both kinds together, which count the same."""
    values, inverse = np.unique(np.concatenate([mated, other]), return_inverse=True)
    mass = np.concatenate([np.full(len(mated), 0.5 / len(mated)), np.full(len(other), 0.5 / len(other))])
    below = np.cumsum(np.bincount(inverse, mass, len(values)))
    bins = 2 * int(np.clip(round(len(mated) ** (1 / 3)), 2, 25))
    # An even number: where all mated scores lie above all others a cut is between them.
    number = np.minimum(np.ceil(below * bins - 1e-6).astype(np.int64) - 1, bins - 1)
    return number[inverse[: len(mated)]], number[inverse[len(mated) :]]


def _d(mated: Floats, other: Floats, *, likelier: NDArray[np.bool_] | None = None) -> float:
    """The mean of D over mated scores, of the shares ``(B,)`` of either kind in each bin: (LR - 1) / (LR + 1) in bins
    where mated scores are likelier, or are said to be."""
    more = mated - other
    more = np.maximum(more, 0) if likelier is None else np.where(likelier, more, 0)
    return float((mated * more / np.maximum(mated + other, 1e-300)).sum())


# -- comparisons ------------------------------------------------------------------------------------------------------


def compared(crossing: Crossing, linker: Linker, metric: Metric, *, seed: int) -> Comparisons:
    """Mated and non-mated scores across the keys, of vectors that a linker makes of either side.

    Args:
        crossing: Of at least two people.
        linker: What is compared of the second and of the first side.
        metric: How.
        seed: Draws who is compared with whom.
    """
    n = len(crossing)
    rng = np.random.default_rng(seed)
    a = np.tile(np.arange(n), -(-_PAIRS // n))[: max(n, min(_PAIRS, n * (n - 1)))]
    b = rng.integers(n, size=len(a))
    strangers = crossing.people[a] != crossing.people[b]
    a, b = a[strangers], b[strangers]
    own = np.arange(n)
    sides = np.concatenate([linker[1](crossing.first), linker[0](crossing.second)])
    which = pairing.Pairs(
        a=np.concatenate([own, a]), b=n + np.concatenate([own, b]), same=np.arange(n + len(a)) < n,
        group_a=crossing.people[np.concatenate([own, a])], group_b=crossing.people[np.concatenate([own, b])],
    )  # fmt: skip
    scores = pairing.scores(sides, which, kind=metric.kind, centre=metric.centre)
    return Comparisons(
        mated=scores[:n], mated_people=crossing.people, other=scores[n:],
        other_people=np.column_stack([crossing.people[a], crossing.people[b]]),
    )  # fmt: skip


def accepted(learn: Crossing, calibrate: Crossing, test: Crossing, *, seed: int) -> tuple[NDArray[np.bool_], str]:
    """Whether each test image's release under one key is taken for its own under the other ``(n,)``; the metric, too.

    The metric, of :func:`veil.auditing.pairs.metrics_of`, and the threshold are those that serve the first key best on
    ``calibrate``.
    """
    metrics = pairing.metrics_of(learn.first, np.arange(len(learn)))
    metric, name, _ = pairing.serving(calibrate.first, metrics, calibrate.people, seed=seed)
    within = pairing.sample_pairs(np.arange(len(calibrate)), calibrate.people, seed=seed)
    strangers = within.where(~within.same)
    threshold = np.quantile(
        pairing.scores(calibrate.first, strangers, kind=metric.kind, centre=metric.centre), 1 - ACCEPTED
    )
    return compared(test, (linkage.plain, linkage.plain), metric, seed=seed).mated >= threshold, name


# -- tasks ------------------------------------------------------------------------------------------------------------


def tasks(setting: Setting, exhibits: Sequence[Exhibit]) -> Iterator[Task]:
    """What releases under another key tell of those that are audited."""
    for s in exhibits if setting.together else ():
        nobody = setting.nobody(s.name, "identity", "attack")
        if isinstance(s.rekeyed, str):
            yield given(without(nobody, UNLINKABILITY, "not_applicable", s.rekeyed))
        elif s.rekeyed is not None:
            yield Task(
                name=f"{s.name}: two keys",
                key=setting.key("unlinkability", s.fingerprint, s.name),
                prepare=partial(_prepared, setting, s, s.rekeyed),
                missing=partial(without, nobody, UNLINKABILITY),
                releases=(s.name,),
            )


def _prepared(setting: Setting, exhibit: Exhibit, rekeyed: Callable[[Indices], NDArray[Any]]) -> Callable[[], Outcome]:
    """The call that a worker gets: releases of some rows of each split, under either key."""
    known = ("identity",) if setting.knows_people else ()
    identity = setting.pack.label("identity") if known else np.arange(len(setting.pack))
    rng = np.random.default_rng(setting.seed)
    crossings = []
    for rows, most in zip(setting.rows(*known), _ROWS.values(), strict=True):
        some = np.sort(rng.choice(rows, min(len(rows), most), replace=False))
        first = flat(exhibit.x[some]).astype(np.float32, copy=False)
        crossings.append(
            Crossing(first=first, second=flat(rekeyed(some)).astype(np.float32, copy=False), people=identity[some])
        )
    return partial(link, setting, exhibit.name, *crossings)


def link(setting: Setting, release: str, learn: Crossing, calibrate: Crossing, test: Crossing) -> Outcome:
    """How far releases under two keys are linked, as they are and by a map, and whether old ones are still taken.

    Args:
        setting: Seed, level and effort.
        release: Its name.
        learn: Of the people of whom an attacker has pairs.
        calibrate: Chooses comparison, map and threshold.
        test: Is measured.
    """
    measurement = Measurement(
        release=release, target="identity", attacker="as they are", role="attack", n=len(test), level=setting.level
    )
    names = (" and ".join(setting.attack_on), "calibrate", "test")
    for name, part in zip(names, (learn, calibrate, test), strict=True):
        if (count := len(np.unique(part.people))) < 3:
            why = f"needs images of three people in split {name}, there are {len(part)} of {count}"
            return Outcome(findings=(measurement.missing(UNLINKABILITY, "not_applicable", why),))

    def measured(part: Crossing, name: str, linker: Linker) -> Interval:
        across = compared(part, linker, linkage.metric_of(name), seed=setting.seed)
        return d_sys(across, seed=setting.seed, level=setting.level)

    problem = Linking(releases=_side(setting, learn.second, calibrate.second, learn, calibrate),
                      originals=_side(setting, learn.first, calibrate.first, learn, calibrate))  # fmt: skip
    ways = linkage.as_they_are(problem)
    best = max(ways, key=lambda name: measured(calibrate, name, ways[name]).value)
    note = f"{len(test):,} images of {len(np.unique(test.people)):,} people, each under two keys"
    by = replace(measurement, attacker=best)
    findings = [by.measured(UNLINKABILITY, measured(test, best, ways[best]), worst=True, note=note)]
    by = replace(measurement, attacker=MAP)
    try:
        interval = measured(test, MAP, linkage.canonical_correlations(problem))
        note += f"; learned from {len(learn):,} pairs of releases"
        findings.append(by.measured(LEARNED, interval, worst=True, note=note))
    except Exception as error:  # releases are compared as they are all the same
        findings.append(by.missing(LEARNED, *failure(error)))
    hits, metric = accepted(learn, calibrate, test, seed=setting.seed)
    interval = rate_interval(hits.astype(np.float64), test.people, level=setting.level)
    note = f"at the threshold at which {100 * ACCEPTED:g} % of strangers' releases under one key are taken"
    findings.append(
        replace(measurement, attacker=metric).measured(RENEWAL, interval, chance=ACCEPTED, worst=True, note=note)
    )
    return Outcome(findings=tuple(findings))


def _side(setting: Setting, x: NDArray[Any], check: NDArray[Any], learn: Crossing, calibrate: Crossing) -> Problem:
    return Problem(
        x=x, y=learn.people, x_validation=check, y_validation=calibrate.people, classes=int(learn.people.max()) + 1,
        seed=setting.seed, effort=setting.effort,
    )  # fmt: skip
