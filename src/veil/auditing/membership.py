"""Membership: who of the people was in the protector's training data, for somebody who holds their originals.

A protector that treats the people whom it learned from unlike others tells who they are, and that is a secret, too (a
clinic's patients, say). The attacker holds originals of some people, has the protector release them, and asks of each
person: was it in the training data? They know the answer for some others (a threat that is called A7 here).

What the attacker looks at, for each row:

- how far a release lies from the linear map of its input that fits most rows: what was learned by heart is off it;
- how far it lies from its input, where both are vectors of one width, and from the nearest releases of others;
- the release itself.

Each number by itself, either way round, and attackers that learn from all of them are tried; one that tells members
best on validation people is measured on others. A person's score is the mean over their rows, so that people count the
same. Shokri et al., "Membership inference attacks against machine learning models" (IEEE S&P 2017), whose shadow
models, like those of LiRA (Carlini et al., IEEE S&P 2022), fit the protector anew many times: that is not done here, so
that figures are of an attacker who does not. As a control the same is asked of the input itself, which no protector has
seen: splits that differ by themselves show there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from veil.auditing import metrics
from veil.auditing.exhibit import Exhibit
from veil.auditing.intervals import auc_interval, rate_interval
from veil.auditing.problem import Problem, View, compact, failure
from veil.auditing.setting import Setting, without
from veil.auditing.task import Outcome, Task, given, signatures
from veil.findings import Finding, Measurement
from veil.findings.codes import MEMBERSHIP

AT_FPR = "membership.tpr_at_fpr_0.01"
RATE = 0.01
"""False-positive rate of :data:`AT_FPR`."""
LEAST_PEOPLE = 10
"""Members, and others, in each part: below that nothing is measured."""
_FALSE = 2  # people of `calibrate` that are expected above the threshold of AT_FPR, at least
_MOST = (4_000, 2_000, 4_000)  # rows of members, and of others, to learn from, to choose on and to measure on
_PARTS = (0.4, 0.2, 0.4)  # of the members' people
_NEAREST = 5
_WIDE = 64  # components of a release that attackers learn from
_RIDGE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Of whom it is asked: three parts, to learn from, to choose on and to measure on.

    Attributes:
        rows: Rows of the pack in each part.
        member: ``(n,)`` for each part, 1 for those of the training data.
        people: ``(n,)`` for each part, codes of who is seen.
    """

    rows: tuple[NDArray[np.int64], ...]
    member: tuple[NDArray[np.int64], ...]
    people: tuple[NDArray[np.int64], ...]


def asked(setting: Setting, fitted_on: NDArray[np.bool_]) -> Asked:
    """Members dealt by person among the parts, and others by their splits, in equal numbers at most.

    Args:
        setting: Splits, people and seed.
        fitted_on: ``(N,)`` rows that the protector was fitted on, or whose person.
    """
    pack = setting.pack
    identity = pack.label("identity") if setting.knows_people else np.full(len(pack), -1)
    people = np.where(identity >= 0, identity, identity.max(initial=-1) + 1 + np.arange(len(pack)))
    rng = np.random.default_rng(setting.seed)
    inside = np.flatnonzero(fitted_on)
    own = rng.permutation(np.unique(people[inside]))
    ends = np.round(np.cumsum(_PARTS) * len(own)).astype(int)
    members = [inside[np.isin(people[inside], some)] for some in np.split(own, ends[:-1])]
    others = [rows[~fitted_on[rows]] for rows in (pack.rows("attack"), pack.rows("calibrate"), pack.rows("test"))]
    parts = []
    for one, two, most in zip(members, others, _MOST, strict=True):
        kept = [np.sort(rng.choice(rows, min(len(rows), most), replace=False)) for rows in (one, two)]
        parts.append((np.concatenate(kept), np.repeat([1, 0], [len(rows) for rows in kept])))
    return Asked(
        rows=tuple(rows for rows, _ in parts),
        member=tuple(member for _, member in parts),
        people=tuple(people[rows] for rows, _ in parts),
    )


# -- what is looked at ------------------------------------------------------------------------------------------------


def clues(x: Sequence[NDArray[Any]], r: Sequence[NDArray[Any]], seed: int) -> tuple[list[str], list[NDArray[Any]]]:
    """Names of the numbers that are looked at, and these ``(n, C)`` for each part; the rest are views of releases.

    Args:
        x: Inputs of the three parts.
        r: Their releases.
        seed: Of components of what is wide.
    """
    views = [_view(side[0], seed) for side in (x, r)]
    inputs, releases = ([view(part) for part in side] for view, side in zip(views, (x, r), strict=True))
    residuals = _off_the_map(inputs, releases)
    numbers = {"distance from the linear map": [np.linalg.norm(each, axis=1) for each in residuals]}
    if x[0].ndim == r[0].ndim == 2 and x[0].shape[1] == r[0].shape[1]:
        numbers["distance from the input"] = [1 - _cosine(a, b) for a, b in zip(x, r, strict=True)]
    numbers["distance from the nearest"] = _to_the_nearest(releases)
    columns = zip(*numbers.values(), strict=True)
    return list(numbers), [
        np.column_stack([*each, releases[i], residuals[i]]).astype(np.float32) for i, each in enumerate(columns)
    ]


def _view(x: NDArray[Any], seed: int) -> View:
    """Standardised columns, or the first components of what is wide."""
    nothing = np.zeros(len(x), np.int64)
    side = Problem(x=x, y=nothing, x_validation=x[:1], y_validation=nothing[:1], classes=1, seed=seed)
    return compact(side, _WIDE)


def _off_the_map(inputs: Sequence[NDArray[Any]], releases: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """What of releases the ridge regression on inputs, of the first part, does not explain."""
    a = [np.column_stack([part, np.ones(len(part))]).astype(np.float64) for part in inputs]
    gram = a[0].T @ a[0] + _RIDGE * len(a[0]) * np.eye(a[0].shape[1])
    weights = np.linalg.solve(gram, a[0].T @ releases[0])
    return [part - each @ weights for part, each in zip(releases, a, strict=True)]


def _to_the_nearest(releases: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Mean distances of rows from the nearest of the first part, whose own rows are not counted as their nearest."""
    count = min(_NEAREST, len(releases[0]) - 1)
    nearest = NearestNeighbors(n_neighbors=count).fit(releases[0])
    return [nearest.kneighbors(part if number else None)[0].mean(1) for number, part in enumerate(releases)]


def _cosine(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: NDArray[Any] = np.einsum("ij,ij->i", a, b) / np.maximum(lengths, 1e-30)
    return cosines


# -- tasks ------------------------------------------------------------------------------------------------------------


def tasks(setting: Setting, exhibits: Sequence[Exhibit]) -> Iterator[Task]:
    """Who was in the training data of each release that was fitted, as far as that is known."""
    reference = next((s for s in exhibits if s.role == "input"), None)
    attackers = setting.roster.of_members
    for s in exhibits if setting.together else ():
        nobody = setting.nobody(s.name, "training data", "attack")
        missing = partial(without, nobody, MEMBERSHIP)
        if s.fitted_on is None:
            continue
        if isinstance(s.fitted_on, str):
            yield given(missing("not_applicable", s.fitted_on))
        elif reference is None:
            yield given(missing("not_applicable", "needs the unprotected input, which was not audited"))
        else:
            yield Task(
                name=f"{s.name}: membership",
                key=setting.key("membership", s.fingerprint, s.name, reference.fingerprint, signatures(attackers)),
                prepare=partial(_prepared, setting, s, reference, s.fitted_on),
                missing=missing,
                releases=(s.name, reference.name),
            )


def _prepared(
    setting: Setting, exhibit: Exhibit, reference: Exhibit, fitted_on: NDArray[np.bool_]
) -> Callable[[], Outcome]:
    people = asked(setting, fitted_on)
    x, r = ([side.x[rows] for rows in people.rows] for side in (reference, exhibit))
    return partial(infer, setting, exhibit.name, people, x, r)


def infer(
    setting: Setting, release: str, people: Asked, x: Sequence[NDArray[Any]], r: Sequence[NDArray[Any]]
) -> Outcome:
    """Membership inferred from releases and, as a control, from inputs alone.

    Args:
        setting: Attackers, seed and level.
        release: Its name.
        people: Of whom it is asked.
        x: Inputs of the three parts.
        r: Their releases.
    """
    by = Measurement(release=release, target="training data", attacker="none", role="attack", n=0, level=setting.level)
    fewest = min(
        len(np.unique(who[m == k])) for who, m in zip(people.people, people.member, strict=True) for k in (0, 1)
    )
    if fewest < LEAST_PEOPLE:
        why = (
            f"needs {LEAST_PEOPLE} people who were in its training and as many who were not in each part, got {fewest}"
        )
        return Outcome(findings=(by.missing(MEMBERSHIP, "not_applicable", why),))
    findings = _attacked(setting, by, people, clues(x, r, setting.seed))
    control = replace(by, role="control")
    return Outcome(findings=(*findings, *_attacked(setting, control, people, clues(x, x, setting.seed))[:1]))


def _attacked(
    setting: Setting, by: Measurement, people: Asked, seen: tuple[list[str], list[NDArray[Any]]]
) -> list[Finding]:
    """Figures of the attacker that is best on the second part, measured on the third; and of those that broke off."""
    names, columns = seen
    (_, calibrate, _), (learn, choose, _) = (people.member, columns)
    scores = {name: [part[:, i] for part in columns] for i, name in enumerate(names)}
    failed: list[Finding] = []
    problem = Problem(
        x=learn, y=people.member[0], x_validation=choose, y_validation=calibrate, classes=2, seed=setting.seed,
        effort=setting.effort,
    )  # fmt: skip
    for name, attack in setting.roster.of_members.items():
        try:
            score = attack(problem)
            scores[name] = [(s := score(part))[:, 1] - s[:, 0] for part in columns]
        except Exception as error:  # the others stand
            failed.append(replace(by, attacker=name).missing(MEMBERSHIP, *failure(error), chance=0.5))
    chosen = {name: _by_person(people, 1, parts[1]) for name, parts in scores.items()}
    reads = {name: metrics.auc(mean, inside) for name, (mean, inside) in chosen.items()}
    best = max(reads, key=lambda name: abs(reads[name] - 0.5))
    sign = 1.0 if reads[best] >= 0.5 else -1.0  # either way round
    test, inside = _by_person(people, 2, sign * scores[best][2])
    measured = replace(by, attacker=best, n=len(test))
    note = f"{int(inside.sum()):,} people who were in its training, {int((~inside).sum()):,} who were not"
    pair = np.column_stack([-test, test])
    auc = auc_interval(inside.astype(np.int64), pair, None, classes=2, level=setting.level)
    findings = [measured.measured(MEMBERSHIP, auc, chance=0.5, worst=True, note=note)]
    strangers = sign * chosen[best][0][~chosen[best][1]]
    if len(strangers) * RATE < _FALSE:
        why = f"needs {_FALSE / RATE:g} people of calibrate to set a threshold by, there are {len(strangers):,}"
        return [*findings, measured.missing(AT_FPR, "not_applicable", why, chance=RATE), *failed]
    threshold = np.quantile(strangers, 1 - RATE, method="higher")
    hits = (test > threshold).astype(np.float64)
    rate = rate_interval(hits[inside], None, level=setting.level)
    note = f"at a threshold set on calibrate, which {hits[~inside].mean():.3f} of those who were not in training pass"
    return [*findings, measured.measured(AT_FPR, rate, chance=RATE, worst=True, note=note), *failed]


def _by_person(people: Asked, part: int, scores: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The mean score of each person of a part, and whether they are members, ``(U,)``."""
    _, first, person = np.unique(people.people[part], return_index=True, return_inverse=True)
    means = np.bincount(person, scores) / np.bincount(person)
    return means, people.member[part][first] == 1
