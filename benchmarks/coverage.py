"""Whether 95 % intervals cover: draw after draw of people from worlds whose true figures are known.

    python benchmarks/coverage.py [--draws 10000] [--pair-draws 2000] [--results docs/results/coverage.md]

A world gives people four images each, correlated within a person or not; the audit's own functions give intervals. Each
cell of the tables says how many of the draws' intervals held the truth, and how many lay above or below it. Figures of
pairs, of which there are many, are drawn less often. Some forty minutes on one processor.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import beta

from veil.auditing import intervals, metrics, verification
from veil.auditing import pairs as pairing
from veil.auditing.intervals import Interval

Rng = np.random.Generator
Draw = Callable[[Rng], Interval | list[Interval]]
PEOPLE, RATES, CORRELATIONS, IMAGES = (30, 100, 1000), (0.6, 0.9, 0.98), (0.0, 0.3), 4
FAR = 0.01
PAIRS = 20_000
"""Most genuine, and most impostor, pairs."""
POPULATION = 6000
"""People whose vectors tell the truth."""
COMMAND = "python benchmarks/coverage.py"


@dataclass(kw_only=True)
class Tally:
    """What the intervals of many draws did."""

    truth: float
    held: int = 0
    above: int = 0
    below: int = 0
    widths: list[float] = field(default_factory=list)

    def add(self, interval: Interval) -> None:
        self.above += interval.low > self.truth
        self.below += interval.high < self.truth
        self.held += interval.low <= self.truth <= interval.high
        self.widths.append(interval.high - interval.low)

    @property
    def covered(self) -> float:
        return 100 * self.held / len(self.widths)

    def cell(self) -> str:
        """``95.1 (2.3 / 2.6) 0.12``: held, above and below the truth, in per cent, and the mean width."""
        above, below = (100 * count / len(self.widths) for count in (self.above, self.below))
        text = f"{self.covered:.1f}" if 93 <= self.covered <= 97 else f"**{self.covered:.1f}**"
        return f"{text} ({above:.1f} / {below:.1f}) {np.mean(self.widths):.2g}"


# Worlds -------------------------------------------------------------------------------------------------------------


def right(rng: Rng, rates: NDArray[np.float64], groups: NDArray[np.int64], correlation: float) -> NDArray[np.bool_]:
    """Whether images ``(n,)`` are recognised: beta-binomial, of so much correlation within a person."""
    if not correlation:
        return rng.random(len(rates)) < rates
    # One uniform number for each person: who is hard to recognise is so in every class.
    ease = rng.random(int(groups.max()) + 1)[groups]
    concentration = 1 / correlation - 1
    hits: NDArray[np.bool_] = rng.random(len(rates)) < beta.ppf(
        ease, rates * concentration, (1 - rates) * concentration
    )
    return hits


def attacked(
    rng: Rng, *, sizes: Sequence[int], recalls: Sequence[float], correlation: float, uneven: bool = False,
    mixed: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Labels, predictions and people, of so many people in each class and such recalls.

    ``uneven``: 1 to 7 images each; ``mixed``: every image has a label of its own.
    """
    people = sum(sizes)
    images = rng.integers(1, 2 * IMAGES, people) if uneven else np.full(people, IMAGES)
    groups = np.repeat(np.arange(people), images)
    y = np.repeat(np.arange(len(sizes)), sizes)[groups]
    if mixed:
        y = rng.permutation(y)
    hit = right(rng, np.asarray(recalls)[y], groups, correlation)
    return y, np.where(hit, y, (y + 1) % len(sizes)), groups


def balanced_accuracy(rng: Rng, **world: Any) -> Interval:
    y, predicted, groups = attacked(rng, **world)
    return intervals.balanced_accuracy_interval(y, predicted, groups, classes=int(y.max()) + 1)


def mcc(rng: Rng, **world: Any) -> Interval:
    y, predicted, groups = attacked(rng, **world)
    return intervals.mcc_interval(y, predicted, groups, classes=int(y.max()) + 1)


def rate(rng: Rng, *, people: int, true: float, correlation: float) -> Interval:
    groups = np.repeat(np.arange(people), IMAGES)
    return intervals.rate_interval(right(rng, np.full(len(groups), true), groups, correlation), groups)


def auc(rng: Rng, *, sizes: Sequence[int], true: float, correlation: float, spread: float = 1.0) -> Interval:
    """Normal scores; those of class 1 spread ``spread`` times as far."""
    groups = np.repeat(np.arange(sum(sizes)), IMAGES)
    y = np.repeat([0, 1], [IMAGES * size for size in sizes])
    noise = math.sqrt(correlation) * rng.standard_normal(sum(sizes))[groups]
    noise += math.sqrt(1 - correlation) * rng.standard_normal(len(y))
    scores = float(ndtri(true)) * math.sqrt(1 + spread**2) * y + np.where(y == 1, spread, 1.0) * noise
    return intervals.auc_interval(y, scores, groups, classes=2)


@cache
def pairs_of(people: int, most: int = PAIRS) -> pairing.Pairs:
    groups = np.repeat(np.arange(people), IMAGES)
    return pairing.sample_pairs(np.arange(len(groups)), groups, seed=0, max_pairs=most)


def found(scores: NDArray[np.float64], people: int, code: str) -> Interval:
    figures = verification.verify(scores, pairs_of(people), None, None, fars=(FAR,))
    return next(f.interval for f in figures if f.code == code)


def normal_pairs(rng: Rng, *, people: int, true: float, correlation: float) -> Interval:
    """TAR at FAR: normal scores of pairs. Genuine pairs of a person share a part, and so do those with strangers."""
    pairs = pairs_of(people)
    own, others = rng.standard_normal((2, people))
    shared = np.where(pairs.same, own[pairs.group_a], (others[pairs.group_a] + others[pairs.group_b]) / math.sqrt(2))
    scores = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * rng.standard_normal(len(pairs))
    scores += np.where(pairs.same, float(ndtri(1 - FAR) + ndtri(true)), 0.0)
    return found(scores, people, f"verification.tar_at_far_{FAR:g}")


def vectors(rng: Rng, people: int, noise: float) -> NDArray[np.float32]:
    """Images around their people's centres, in 16 dimensions; some people's are farther off than others'."""
    centres = rng.standard_normal((people, 16)).repeat(IMAGES, 0)
    spread = noise * np.exp(0.2 * rng.standard_normal(people)).repeat(IMAGES)
    moved: NDArray[np.float32] = (centres + spread[:, None] * rng.standard_normal(centres.shape)).astype(np.float32)
    return moved


@cache
def population(noise: float) -> tuple[dict[str, float], float]:
    """Figures of many people's vectors by cosine, and the threshold that accuracy is measured at."""
    pairs = pairs_of(POPULATION, 50 * PAIRS)
    x = vectors(np.random.default_rng(1), POPULATION, noise)
    roc = metrics.roc(pairing.scores(x, pairs), pairs.same)
    at = int(np.argmax(roc.tar - roc.far))
    figures = {"verification.auc": roc.auc(), "verification.eer": roc.eer()}
    figures[f"verification.tar_at_far_{FAR:g}"] = roc.tar_at_far(FAR)
    figures["verification.accuracy"] = float(roc.tar[at] + 1 - roc.far[at]) / 2
    return figures, float(roc.thresholds[at])


def vector_pairs(rng: Rng, *, people: int, noise: float) -> list[Interval]:
    """The figures of :func:`population`, of the vectors of some people."""
    pairs, threshold = pairs_of(people), population(noise)[1]
    scores = pairing.scores(vectors(rng, people, noise), pairs).astype(np.float64)
    # Scores of calibrate whose best threshold is the population's.
    known = np.array([True, False])
    nothing = np.zeros(2, np.int64)
    two = pairing.Pairs(a=nothing, b=nothing, same=known, group_a=nothing, group_b=np.where(known, 0, 1))
    figures = verification.verify(scores, pairs, threshold + np.array([1e-6, -1e-6]), two, fars=(FAR,))
    by_code = {f.code: f.interval for f in figures}
    return [by_code[code] for code in population(noise)[0]]


def no_difference(rng: Rng, *, people: int, noise: float) -> Interval:
    """AUC of the same people in two releases that lose equally much."""
    pairs = pairs_of(people)
    x = vectors(rng, people, noise)
    runs = [x + noise / 2 * rng.standard_normal(x.shape).astype(np.float32) for _ in range(2)]
    first, second = (verification.verify(pairing.scores(r, pairs), pairs, None, None, fars=())[0] for r in runs)
    return verification.difference(first, second)


def entropy(rng: Rng, *, people: int) -> Interval:
    """16 codes; half of a person's images have the person's own."""
    p = code_shares()
    groups = np.repeat(np.arange(people), IMAGES)
    own, any_ = rng.choice(16, people, p=p)[groups], rng.choice(16, len(groups), p=p)
    return intervals.entropy_interval(np.where(rng.random(len(groups)) < 0.5, own, any_), groups, most=4.0)


def code_shares() -> NDArray[np.float64]:
    p = 0.8 ** np.arange(16)
    shares: NDArray[np.float64] = p / p.sum()
    return shares


def scatter(rng: Rng, *, people: int) -> Interval:
    """LDA score of people in 8 dimensions, spread like their images."""
    groups = np.repeat(np.arange(people), IMAGES)
    x = rng.standard_normal((people, 8))[groups] + rng.standard_normal((len(groups), 8))
    of = metrics.People.of(x, groups)
    spread = intervals.Persons.of(None, people).spread(of.lda_influence())
    return intervals.positive(of.scatter().lda, spread, people, level=0.95)


# What else was tried ------------------------------------------------------------------------------------------------


@cache
def multiplicities(people: int, replicates: int = 1000) -> NDArray[np.float64]:
    """How often each person is drawn in each of the bootstrap's resamples ``(R, people)``."""
    rng = np.random.default_rng(0)
    return rng.multinomial(people, np.full(people, 1 / people), replicates).astype(np.float64)


def candidates(rng: Rng, *, people: int, true: float, correlation: float) -> dict[str, Interval]:
    """Intervals of one balanced accuracy of two classes of equally many people, by every method that was weighed."""
    size, each = people // 2, people // 2 * IMAGES
    y, predicted, groups = attacked(rng, sizes=[size, size], recalls=[true, true], correlation=correlation)
    hits = np.bincount(groups, weights=y == predicted).reshape(2, size)
    recalls = hits.sum(1) / each
    value = float(recalls.mean())
    weights = multiplicities(people).reshape(-1, 2, size)
    resampled = ((weights * hits).sum(2) / (weights.sum(2) * IMAGES)).mean(1)
    out = {"percentile bootstrap": quantiles(value, resampled, (0.025, 0.975))}
    # BCa (Efron, JASA 82, 1987), with the jackknife of persons for the acceleration.
    left = (recalls[:, None] * each - hits) / (each - IMAGES)
    jackknife = np.concatenate([(left[0] + recalls[1]) / 2, (left[1] + recalls[0]) / 2])
    deviations = jackknife.mean() - jackknife
    cubes, squares = float(np.sum(deviations**3)), float(np.sum(deviations**2))
    acceleration = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    below = float((resampled < value).mean() + (resampled == value).mean() / 2)
    bias = float(ndtri(np.clip(below, 1e-3, 1 - 1e-3)))
    ends = [bias + (bias + z) / (1 - acceleration * (bias + z)) for z in (-1.96, 1.96)]
    out["BCa, person jackknife"] = quantiles(value, resampled, tuple(float(ndtr(end)) for end in ends))
    # The linearised variance of persons, with Student's quantile on the scale of the logit.
    errors = (hits - IMAGES * recalls[:, None]) / each
    variances = np.square(errors).sum(1) * size / (size - 1)
    variance = float(variances.sum()) / 4
    t = intervals.student_quantile(0.95, people - 2)
    if variance > 0:
        reach = t * math.sqrt(variance) / (value * (1 - value))
        out["logit, Student"] = Interval(value, float(expit(logit(value) - reach)), float(expit(logit(value) + reach)))
    else:
        out["logit, Student"] = intervals.wilson(value * people, people)
    # Limits of each class of its own effective trials, combined by squares (Zou & Donner, Stat. Med. 27, 2008).
    limits = []
    for r, v in zip(recalls, variances, strict=True):
        trials = r * (1 - r) / v * (1.96 / intervals.student_quantile(0.95, size - 1)) ** 2 if v > 0 else size
        limits.append(beta.ppf([0.025, 0.975], r * trials + 0.5, (1 - r) * trials + 0.5))
    reaches = [
        math.sqrt(sum((r - limit[i]) ** 2 for r, limit in zip(recalls, limits, strict=True))) / 2 for i in (0, 1)
    ]
    out["Jeffreys by class, combined"] = Interval(value, value - reaches[0], value + reaches[1])
    out["score interval (Veil's)"] = intervals.balanced_accuracy_interval(y, predicted, groups, classes=2)
    return out


def quantiles(value: float, resampled: NDArray[np.float64], ends: tuple[float, ...]) -> Interval:
    low, high = np.quantile(resampled, ends)
    return Interval(value, min(float(low), value), max(float(high), value))


# Tables -------------------------------------------------------------------------------------------------------------


def repeated(name: str, truths: Sequence[float], draw: Draw, draws: int) -> list[Tally]:
    """Tallies of the figures that a world draws, from random numbers of its own."""
    tallies = [Tally(truth=truth) for truth in truths]
    for number in range(draws):
        drawn = draw(np.random.default_rng([number, crc32(name.encode())]))
        for tally, interval in zip(tallies, drawn if isinstance(drawn, list) else [drawn], strict=True):
            tally.add(interval)
    return tallies


def halves(people: int) -> list[int]:
    return [people - people // 2, people // 2]


FIGURES: dict[str, Callable[[int, float, float], Draw]] = {
    "balanced accuracy": lambda people, true, correlation: partial(
        balanced_accuracy, sizes=halves(people), recalls=[true, true], correlation=correlation
    ),
    "AUC": lambda people, true, correlation: partial(auc, sizes=halves(people), true=true, correlation=correlation),
    "TAR at FAR 1 %": lambda people, true, correlation: partial(
        normal_pairs, people=people, true=true, correlation=correlation
    ),
}


def harder(people: int) -> Iterator[tuple[list[str], list[float], Draw]]:
    """Names, truths and draws of other figures, and of worlds that are unkind."""
    few = max(people // 10, 3)
    for a, b in ((0.9, 0.9), (0.98, 0.98), (0.6, 0.98)):
        world: dict[str, Any] = {"sizes": [few, people - few], "recalls": [a, b], "correlation": 0.3}
        name = f"balanced accuracy, a tenth in one class, recalls {a:g} and {b:g}"
        yield [name], [(a + b) / 2], partial(balanced_accuracy, **world)
    world = {"sizes": halves(people), "recalls": [0.97, 0.05], "correlation": 0.3}
    yield ["balanced accuracy, one class named nearly always"], [0.51], partial(balanced_accuracy, **world)
    world = {"sizes": halves(people), "recalls": [0.9, 0.9], "correlation": 0.3}
    uneven, mixed = partial(balanced_accuracy, uneven=True, **world), partial(balanced_accuracy, mixed=True, **world)
    yield ["balanced accuracy 0.9, 1 to 7 images a person"], [0.9], uneven
    yield ["balanced accuracy 0.9, labels of images, not of people"], [0.9], mixed
    yield ["Matthews' correlation"], [0.8], partial(mcc, **world)
    world = {"sizes": [people // 10] * 10, "recalls": [0.9] * 10, "correlation": 0.3}
    yield ["balanced accuracy 0.9 of ten classes"], [0.9], partial(balanced_accuracy, **world)
    for true in (0.9, 0.98):
        yield [f"a rate of {true:g}, as rank-1"], [true], partial(rate, people=people, true=true, correlation=0.3)
    for true in (0.9, 0.98):
        name = f"AUC {true:g}, a tenth in one class"
        yield [name], [true], partial(auc, sizes=[people - few, few], true=true, correlation=0.3)
    unlike = partial(auc, sizes=halves(people), true=0.9, correlation=0.3, spread=2.0)
    yield ["AUC 0.9, one class spread twice as far"], [0.9], unlike
    for noise in (1.0, 0.6, 0.4):
        truths = population(noise)[0]
        names = [f"{code}, vectors, {true:.3f}" for code, true in truths.items()]
        yield names, list(truths.values()), partial(vector_pairs, people=people, noise=noise)
    yield ["difference of two equal AUCs, vectors"], [0.0], partial(no_difference, people=people, noise=0.8)
    p = code_shares()
    yield ["entropy of 16 codes, bits"], [float(-(p @ np.log2(p)))], partial(entropy, people=people)
    yield ["LDA score"], [1.0], partial(scatter, people=people)


def times(name: str, draws: int, pair_draws: int) -> int:
    """How often a world of this name is drawn."""
    return pair_draws if name.startswith("TAR") or "vectors" in name else draws


def chance(draws: int) -> str:
    """Two standard errors of a coverage of 95 %, in points."""
    return f"{200 * math.sqrt(0.95 * 0.05 / draws):.1f}"


def page(people: Sequence[int], draws: int, pair_draws: int) -> str:
    """The results as Markdown."""
    main: dict[tuple[str, float, float], list[Tally]] = {}
    for name, world in FIGURES.items():
        for correlation in CORRELATIONS:
            for true in RATES:
                cells = []
                for count in people:
                    cell = f"{name}, {correlation:g}, {true:g}, {count}"
                    cells += repeated(cell, [true], world(count, true, correlation), times(name, draws, pair_draws))
                main[name, correlation, true] = cells
                print(name, correlation, true, *(c.cell() for c in cells), flush=True)
    covered = [t.covered for cells in main.values() for t in cells]
    outside = [c for c in covered if not 93 <= c <= 97]
    lines = [
        "# Whether intervals cover",
        "",
        f"    {COMMAND} --draws {draws} --pair-draws {pair_draws} --people {' '.join(map(str, people))}",
        "",
        f"{datetime.datetime.now(datetime.UTC).date()}; numpy {np.__version__}, scipy {scipy.__version__}, "
        f"{platform.machine()}.",
        "",
        f"{draws:,} draws ({pair_draws:,} of pairs) of people with {IMAGES} images each from "
        "worlds of known figures.",
        "A cell says how many per cent of the 95 % intervals held the truth; in brackets how many lay above and how "
        "many",
        "below it (2.5 each, if they are right on both sides); then their mean width. Chance alone moves a coverage of",
        f"95 % by {chance(draws)} points, or {chance(pair_draws)} (two standard errors). Outside 93 - 97 % is bold.",
        "",
        "## Balanced accuracy, AUC and TAR at FAR 1 %",
        "",
        "Two classes of equally many people; whether an image is recognised is beta-binomial, scores are normal. The",
        "correlation is that of two images (or pairs) of one person.",
        "",
        f"**{len(covered) - len(outside)} of {len(covered)} cells lie within 93 - 97 %**"
        + (f"; the others cover {min(outside):.1f} - {max(outside):.1f} %." if outside else "."),
        "At a rate of 0.98 two or three of 30 people's images are wrong, of one person or of three: no interval holds",
        "exactly 95 % of so few outcomes. There these hold more.",
        "",
        f"| figure | correlation | truth | {' | '.join(f'{count:,} people' for count in people)} |",
        "|---" * (3 + len(people)) + "|",
    ]  # fmt: skip
    for (name, correlation, true), cells in main.items():
        lines.append(f"| {name} | {correlation:g} | {true:g} | {' | '.join(c.cell() for c in cells)} |")
    lines += [
        "",
        "## Other figures, and harder worlds",
        "",
        "Correlation 0.3 where there is one to choose. Vectors lie around their people's centres in 16 dimensions and",
        f"are compared by cosine; truths are those of {POPULATION:,} people.",
        "",
        f"| figure | {' | '.join(f'{count:,} people' for count in people if count < 1000)} |",
        "|---" * (1 + sum(count < 1000 for count in people)) + "|",
    ]
    columns = [list(harder(count)) for count in people if count < 1000]
    for row in zip(*columns, strict=True):
        count = times(row[0][0][0], draws, pair_draws)
        tallied = [repeated(names[0], truths, draw, count) for names, truths, draw in row]
        for name, *cells in zip(row[0][0], *tallied, strict=True):
            print(name, *(c.cell() for c in cells), flush=True)
            lines.append(f"| {name} | {' | '.join(c.cell() for c in cells)} |")
    lines += [
        "",
        "## What else was weighed",
        "",
        f"Balanced accuracy, of the same {pair_draws:,} draws for all. The bootstraps draw people 1,000 times; the",
        "percentile bootstrap is what earlier versions had. Worst is the coverage that is farthest from 95 %.",
        "",
    ]
    tallies: dict[str, dict[tuple[float, float, int], Tally]] = {}
    for correlation in CORRELATIONS:
        for true in RATES:
            for count in people:
                for number in range(pair_draws):
                    rng = np.random.default_rng([number, crc32(f"{correlation:g}, {true:g}, {count}".encode())])
                    for name, interval in candidates(rng, people=count, true=true, correlation=correlation).items():
                        of = tallies.setdefault(name, {})
                        of.setdefault((correlation, true, count), Tally(truth=true)).add(interval)
    names = list(tallies)
    lines += [f"| correlation | truth | people | {' | '.join(names)} |", "|---" * (3 + len(names)) + "|"]
    for correlation, true, count in tallies[names[0]]:
        cells = [tallies[name][correlation, true, count] for name in names]
        lines.append(f"| {correlation:g} | {true:g} | {count:,} | {' | '.join(c.cell() for c in cells)} |")
    worst = [max((c.covered for c in tallies[n].values()), key=lambda held: abs(held - 95)) for n in names]
    lines.append(f"| | | worst | {' | '.join(f'{held:.1f}' for held in worst)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10000)
    parser.add_argument("--pair-draws", type=int, default=2000, help="draws of figures of pairs")
    parser.add_argument("--people", type=int, nargs="+", default=list(PEOPLE))
    parser.add_argument("--results", type=Path, help="Markdown file for the tables")
    arguments = parser.parse_args()
    start = time.perf_counter()
    text = page(arguments.people, arguments.draws, arguments.pair_draws)
    print(text)
    print(f"{time.perf_counter() - start:.0f} s")
    if arguments.results is not None:
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        arguments.results.write_text(text)


if __name__ == "__main__":
    main()
