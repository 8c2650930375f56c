"""Reading labels from releases: private ones as an attack, those to keep as a use, shuffled ones as a control.

Every attacker is a task. Of those that read one label from the releases of one exhibit, the best on ``calibrate`` is
marked; figures are of ``test``. Attacks are on single releases, on means of several releases of one person
(:mod:`veil.auditing.pools`), and on means of the releases of near-duplicates (:mod:`veil.auditing.repeats`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from veil.auditing import intervals
from veil.auditing.attackers import CONVOLUTIONAL, FINITE
from veil.auditing.classical import recurs
from veil.auditing.exhibit import Exhibit
from veil.auditing.intervals import (
    Interval,
    auc_interval,
    auc_sums,
    balanced_accuracy_interval,
    balanced_accuracy_sums,
    mcc_interval,
)
from veil.auditing.pools import Pools, deal
from veil.auditing.pretrained import readers
from veil.auditing.problem import DidNotConverge, Problem, decision, largest, quality, undecided
from veil.auditing.repeats import chosen_rows
from veil.auditing.setting import Attack, Setting
from veil.auditing.task import Failure, Missing, Outcome, Task, contribution, given, rows_of, signature
from veil.errors import InputError
from veil.findings import Finding, Measurement
from veil.findings.codes import ATTACK

CONTROL_LEVEL = 0.999
"""Coverage of the shuffled-label controls: with one a release, 95 % would raise a false alarm in most long audits."""

Kind = Literal["attack", "pooled", "repeated", "control", "utility"]

_WIDEST = 1024  # values of a map up to which residual MLPs attack it too


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Releases, or their means, with the label that is read.

    Attributes:
        x: ``(n, k)`` or images ``(n, H, W[, 3])``.
        y: ``(n,)`` codes of the label.
        people: ``(n,)`` codes of who is seen, below 0 where unknown; None where nobody knows.
        parts: Rows to learn from, to choose on and to measure on.
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    people: NDArray[np.int64] | None
    parts: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One attacker against one label of one exhibit: all but the releases."""

    release: str
    target: str
    attacker: str
    attack: Attack
    kind: Kind
    classes: int
    effort: str
    seed: int
    level: float
    feature_map: tuple[int, int, int] | None
    finite: bool

    def code(self, figure: str) -> str:
        codes = {"utility": "utility.", "pooled": "attribute.pooled_", "repeated": "attribute.repeated_"}
        return codes.get(self.kind, "attribute.") + figure

    def measurement(self, n: int) -> Measurement:
        """What its findings on n rows share."""
        return Measurement(
            release=self.release,
            target=self.target,
            attacker=f"shuffled labels ({self.attacker})" if self.kind == "control" else self.attacker,
            role="attack" if self.kind in ("pooled", "repeated") else self.kind,
            n=n,
            level=self.level,
        )


def attacks(setting: Setting, exhibits: Sequence[Exhibit]) -> Iterator[Task]:
    """Attacks on private labels, and what guessing gets."""
    kinds: tuple[Kind, ...] = ("attack", "pooled", "repeated") if setting.together else ("attack", "repeated")
    for exhibit in exhibits:
        for target in setting.private:
            for kind in kinds:
                yield from _contest(setting, exhibit, target, kind)
            yield given([majority(setting, exhibit.name, target)])


def controls(setting: Setting, exhibits: Sequence[Exhibit]) -> Iterator[Task]:
    """Attackers that learn from shuffled labels."""
    for exhibit in exhibits:
        for target in setting.private:
            yield from _contest(setting, exhibit, target, "control")


def uses(setting: Setting, exhibits: Sequence[Exhibit]) -> Iterator[Task]:
    """Probes that read the labels to keep."""
    for exhibit in exhibits:
        for target in setting.labels:
            yield from _contest(setting, exhibit, target, "utility")


def _contest(setting: Setting, exhibit: Exhibit, target: str, kind: Kind) -> Iterator[Task]:
    """The attackers that read one label from one exhibit, each a task; or why nobody does."""
    try:
        material, asked = _material(setting, exhibit, target, kind)
    except Missing as missing:
        nobody = setting.nobody(exhibit.name, target, "attack")
        code, failure = f"attribute.{kind}_balanced_accuracy", missing.failure
        yield given([nobody.missing(code, failure.status, failure.note)])
        return
    if material is None:
        return
    for name, attack in _taking_part(setting, exhibit, kind).items():
        reading = Reading(
            release=exhibit.name, target=target, attacker=name, attack=attack, kind=kind,
            classes=len(setting.pack.classes[target]), effort=setting.effort, seed=setting.seed,
            level=CONTROL_LEVEL if kind == "control" else setting.level, feature_map=exhibit.feature_map,
            finite=exhibit.finite,
        )  # fmt: skip
        yield Task(
            name=f"{exhibit.name}: {name} on {target}",
            key=setting.key("attribute", exhibit.fingerprint, exhibit.name, target, kind, name, signature(attack)),
            prepare=partial(_prepared, reading, material),
            missing=partial(_missing, reading, asked),
            releases=(exhibit.name,),
            contest=() if kind == "control" else (exhibit.name, target, kind),
            first=name in CONVOLUTIONAL,
        )


def _taking_part(setting: Setting, exhibit: Exhibit, kind: Kind) -> Mapping[str, Attack]:
    """The attackers, by name, that read labels in this way from releases of this form."""
    roster = setting.roster
    if kind == "control":
        return dict([roster.control])
    if kind in ("pooled", "repeated"):
        return roster.of_means
    names = list(roster.attackers)
    if not (exhibit.images or (exhibit.feature_map and setting.effort != "quick")):
        names = [n for n in names if n not in CONVOLUTIONAL]
    elif exhibit.images or exhibit.shape[0] > _WIDEST:
        names = [n for n in names if n != "residual MLPs"]  # the convolutional attackers stand in
    taking_part = {name: roster.attackers[name] for name in names}
    if (embedder := setting.embedder_of(exhibit.shape)) is not None:
        taking_part |= readers(embedder, roster.of_templates)
    return taking_part


Material = Callable[[], Labelled]


def _material(setting: Setting, exhibit: Exhibit, target: str, kind: Kind) -> tuple[Material | None, NDArray[np.int64]]:
    """What gives the releases that attackers see, made when the first of them needs it, and the codes asked for.

    Raises Missing, with the reason, where there can be none; gives None where that is of no interest.
    """
    rows, y, people = setting.rows(target), setting.pack.label(target), setting.people(target)
    if kind == "control":
        y = shuffled(y, people, setting.pack.split, [setting.seed, *exhibit.name.encode()])  # another deal for each
    if kind == "pooled":
        pools = _pools(setting, exhibit, target)
        return cache(lambda: _labelled_pools(pools, exhibit)), pools.y[pools.parts[2]]
    if kind == "repeated":
        return _repeated(setting, exhibit, target)
    return (lambda: Labelled(x=exhibit.x, y=y, people=people, parts=rows)), y[rows[2]]


def _labelled_pools(pools: Pools, exhibit: Exhibit) -> Labelled:
    return Labelled(x=pools.means(exhibit.x), y=pools.y, people=pools.groups, parts=pools.parts)


def _pools(setting: Setting, exhibit: Exhibit, target: str) -> Pools:
    """Who is in a pool; raises Missing, with the reason, where nobody is."""
    why = ""
    if exhibit.images:
        why = "releases are images, whose mean is hardly an image of anybody: means are not attacked"
    elif target == "identity":
        why = "the releases of one person go into a mean, so it cannot be asked who that is"
    elif not setting.knows_people:
        why = "the pack does not say who is seen, so nobody knows which releases are of one person"
    if why:
        raise Missing(Failure(status="not_applicable", note=why))
    pack = setting.pack
    try:
        return deal(pack.label(target), pack.label("identity"), setting.rows(target), seed=setting.seed)
    except InputError as error:
        raise Missing(Failure(status="not_applicable", note=str(error))) from None


def _repeated(setting: Setting, exhibit: Exhibit, target: str) -> tuple[Material | None, NDArray[np.int64]]:
    """Means over near-duplicates, of which attackers learn beside single releases, for there are more of those."""
    if exhibit.near_duplicates is None:
        return None, np.empty(0, np.int64)
    if isinstance(exhibit.near_duplicates, str):
        raise Missing(Failure(status="not_applicable", note=exhibit.near_duplicates))
    rows, y, people = setting.rows(target), setting.pack.label(target), setting.people(target)
    near = chosen_rows(setting.pack, setting.attack_on, setting.effort, setting.seed)
    train, check, test = (np.flatnonzero(np.isin(near, part)) for part in rows)
    places = np.concatenate([rows[0], near])
    singles = len(rows[0])
    parts = (np.concatenate([np.arange(singles), singles + train]), singles + check, singles + test)
    if any(len(np.unique(y[places][part])) < 2 for part in parts):
        note = "there are near-duplicates of one class alone"
        raise Missing(Failure(status="not_applicable", note=note))

    @cache
    def material() -> Labelled:
        repeats = exhibit.repeats(near)
        x = np.concatenate([repeats.singles[rows[0]], repeats.means])
        return Labelled(x=x, y=y[places], people=None if people is None else people[places], parts=parts)

    return material, y[places][parts[2]]


def _prepared(reading: Reading, material: Material) -> Callable[[], Outcome]:
    labelled = material()
    looked_up = reading.attacker in FINITE and reading.kind in ("attack", "utility") and not reading.finite
    if looked_up and not recurs(labelled.x):  # there is nothing to look up
        return _nothing
    return partial(read, reading, labelled)


def _nothing() -> Outcome:
    return Outcome(findings=())


def _missing(reading: Reading, y: NDArray[np.int64], status: str, note: str) -> list[Finding]:
    """What stands in the place of an attacker that broke off; ``y`` are the codes ``(n,)`` asked for."""
    figure, chance = ("auc", 0.5) if reading.kind == "control" else ("balanced_accuracy", _chance(y))
    return [reading.measurement(len(y)).missing(reading.code(figure), status, note, chance=chance)]


def _chance(y: NDArray[np.int64]) -> float:
    """Of a balanced accuracy: people of the pack need not be among those of the test split."""
    return 1 / len(np.unique(y))


def read(reading: Reading, labelled: Labelled) -> Outcome:
    """Train one attacker, set its threshold on validation data, measure it on test data."""
    x, (train, validation, rows) = labelled.x, labelled.parts
    problem = Problem(
        x=x[train],
        y=labelled.y[train],
        x_validation=x[validation],
        y_validation=labelled.y[validation],
        classes=reading.classes,
        seed=reading.seed,
        effort=reading.effort,
        feature_map=reading.feature_map,
    )
    score = reading.attack(problem)
    seen, test = score(problem.x_validation), score(x[rows])
    if not (np.isfinite(seen).all() and np.isfinite(test).all()):
        raise DidNotConverge("its scores are not finite")
    y, people = labelled.y[rows], None if labelled.people is None else labelled.people[rows]
    options: dict[str, Any] = {"classes": reading.classes, "level": reading.level}

    reads = reading.measurement(len(y))
    auc = reads.measured(reading.code("auc"), auc_interval(y, test, people, **options), chance=0.5)
    if reading.kind == "control":
        # Its scores, not its decision: a threshold set on shuffled labels may give away nothing of a leak.
        return Outcome(findings=(auc,))

    # A table's own decision is Bayes' rule already.
    decide = largest if reading.attacker in FINITE else decision(seen, problem.y_validation, reading.classes)
    predicted = decide(test)
    why = undecided(predicted, y)

    def decided(figure: str, interval: Callable[..., Interval], chance: float) -> Finding:
        if why:
            return reads.missing(reading.code(figure), "not_applicable", why, chance=chance)
        return reads.measured(reading.code(figure), interval(y, predicted, people, **options), chance=chance)

    findings = [decided("balanced_accuracy", balanced_accuracy_interval, _chance(y)), auc]
    sums = {"auc": auc_sums(y, test, people, classes=reading.classes)}
    if not why:
        sums["balanced_accuracy"] = balanced_accuracy_sums(y, predicted, people)
    contributions = [
        contribution(finding, rows_of(rows, y, people), sums.get(finding.code.removeprefix(reading.code(""))))
        for finding in findings
    ]
    if reading.kind == "utility":
        findings.append(decided("mcc", mcc_interval, 0.0))
    return Outcome(
        findings=tuple(findings),
        quality=quality(seen, problem.y_validation, reading.classes),
        contributions=tuple(each for each in contributions if each is not None),
    )


def shuffled(
    y: NDArray[np.int64], people: NDArray[np.int64] | None, split: NDArray[np.int8], seed: Sequence[int]
) -> NDArray[np.int64]:
    """Labels dealt anew among the known rows of each split, which so keeps its classes.

    Where a person's label never changes it is dealt among persons, so that a person keeps one; else among rows.
    """
    rng = np.random.default_rng(seed)
    out = y.copy()
    known = np.flatnonzero(y >= 0)
    unit = np.arange(len(known)) if people is None else intervals.units(people[known], len(known))
    _, first, person = np.unique(unit, return_index=True, return_inverse=True)
    if not np.array_equal(y[known][first][person], y[known]):
        first = person = np.arange(len(known))
    dealt = y[known][first]
    place = split[known][first]
    for code in np.unique(place):
        members = np.flatnonzero(place == code)
        dealt[members] = rng.permutation(dealt[members])
    out[known] = dealt[person]
    return out


def majority(setting: Setting, release: str, target: str) -> Finding:
    """What guessing the most frequent class gets: exactly chance, in balanced accuracy; the note gives its accuracy."""
    pack = setting.pack
    y = pack.label(target)[pack.rows("test", known=(target,))]
    counts = np.bincount(y, minlength=len(pack.classes[target]))
    chance = 1 / np.count_nonzero(counts)
    name = pack.classes[target][int(counts.argmax())]
    guess = Measurement(
        release=release, target=target, attacker="majority", role="control", n=len(y), level=setting.level
    )
    note = f"always {name}: plain accuracy {counts.max() / len(y):.3f}"
    return guess.measured(ATTACK, (chance, chance, chance), chance=chance, note=note)


def mean_mcc(setting: Setting, release: str, findings: Sequence[Finding]) -> list[Finding]:
    """Matthews' correlation of the picked probes, averaged over several labels."""
    labels = setting.labels
    each = [f for f in findings if f.code == "utility.mcc" and f.worst and f.ok and f.target in labels]
    if len(labels) < 2 or len(each) < len(labels):
        return []
    value, low, high, _ = np.mean([f.figures() for f in each], axis=0)
    probes = Measurement(
        release=release, target=f"{len(each)} labels", attacker="picked probes", role="utility",
        n=min(f.n for f in each), level=setting.level,
    )  # fmt: skip
    note = f"of {', '.join(f.target for f in each)}; limits are the means of theirs, so too wide"
    return [probes.measured("utility.mean_mcc", (value, low, high), worst=True, note=note)]
