"""The audit: fresh attackers, matchers and controls against any set of releases, as findings.

Everything here sees arrays and labels alone, so a method's releases, baselines and strangers' vectors are attacked
identically. Attackers train on the ``attack_on`` splits, the worst of them is picked on ``calibrate``, and every figure
is measured on ``test``, which neither the protector nor an attacker has seen.

A family of questions is a function from a setting and exhibits to tasks; to add one, name it in :data:`FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from veil.auditing import (
    attributes,
    certificate,
    inversion,
    linkage,
    matching,
    membership,
    restoration,
    transfer,
    unlinkability,
)
from veil.auditing.execute import executed
from veil.auditing.exhibit import Exhibit, problem
from veil.auditing.outcomes import Outcomes
from veil.auditing.setting import Setting
from veil.auditing.task import Failure, Outcome, Task, marked
from veil.errors import InputError, checked_jobs
from veil.findings import Finding, normalised_gain, pic, suppression_rate
from veil.findings.codes import ATTACK, EER
from veil.findings.contributions import Contribution
from veil.findings.rates import Rates

Family = Callable[[Setting, Sequence[Exhibit]], Iterator[Task]]

FAMILIES: tuple[Family, ...] = (
    attributes.attacks,
    attributes.controls,
    attributes.uses,
    certificate.tasks,
    transfer.tasks,
    restoration.tasks,
    matching.tasks,
    linkage.tasks,
    unlinkability.tasks,
    membership.tasks,
    inversion.tasks,
)
"""All questions that an audit asks, in the order of their findings."""

Progress = Callable[[int, int, str], None]
"""Told tasks done, tasks in all and what was done last."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an audit measured.

    Attributes:
        findings: By exhibit, in the order of the families; worst attackers marked.
        pictures: By exhibit uint8 ``(n, H, W[, 3])``, what the worst decoder redraws.
        contributions: What persons contribute to figures of those who are marked.
        rates: Curves of comparators, by exhibit.
        scores: By exhibit, as :class:`veil.auditing.task.Outcome` has them; of those that were asked for.
    """

    findings: list[Finding]
    pictures: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    contributions: Sequence[Contribution] = ()
    rates: Sequence[Rates] = ()
    scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def audit(
    exhibits: Sequence[Exhibit],
    setting: Setting,
    *,
    jobs: int | None = None,
    outcomes: Outcomes | None = None,
    released: Progress | None = None,
    progress: Progress | None = None,
) -> Result:
    """Attack and use every exhibit.

    What breaks off, for whatever reason, has a finding without a figure that says why; the others go on.

    Args:
        exhibits: At least one; one of role ``"input"`` is the reference for normalised gains.
        setting: What is asked.
        jobs: Processes; the number of processors if None. 1 runs everything in this process.
        outcomes: Of tasks that were done before, which are not done again; those of this audit go there, too.
        released: Told exhibits released, exhibits to release and which comes next, before tasks are done.
        progress: Told of tasks.

    Raises:
        InputError: For exhibits that do not fit the pack, or each other.
    """
    outcomes = outcomes or Outcomes()
    checked_jobs(jobs)
    if wrong := _wrong_names(exhibits):
        raise InputError("; ".join(wrong))
    tasks = [task for family in FAMILIES for task in family(setting, exhibits)]
    results: dict[int, Outcome] = {}
    left: list[Task] = []
    for task in tasks:
        known = outcomes.get(task.key)
        if known is None:
            left.append(task)
        else:
            results[id(task)] = known
    _release(exhibits, left, len(setting.pack), released)
    total = sum(bool(task.name) for task in tasks)
    done = total - sum(bool(task.name) for task in left)
    for task, result in executed(left, jobs):
        if isinstance(result, Failure):
            results[id(task)] = Outcome(findings=tuple(task.missing(result.status, result.note)))
        else:
            results[id(task)] = result
            outcomes.put(task.key, result)
        if task.name:
            done += 1
            if progress is not None:
                progress(done, total, task.name)
    outcomes.keep([task.key for task in tasks if task.key])
    return _collected(setting, exhibits, [(task, results[id(task)]) for task in tasks])


def _release(exhibits: Sequence[Exhibit], tasks: Sequence[Task], n: int, released: Progress | None) -> None:
    """Make the releases that tasks need, and look whether they fit a pack of n rows."""
    needed = {name for task in tasks for name in task.releases}
    wanted = [s for s in exhibits if s.name in needed]
    wrong = []
    for number, exhibit in enumerate(wanted):
        if released is not None:
            released(number, len(wanted), exhibit.name)
        if why := problem(exhibit, n):
            wrong.append(f"release {exhibit.name!r}: {why}")
    if released is not None:
        released(len(wanted), len(wanted), "")
    if wrong:
        raise InputError("; ".join(wrong))


def _wrong_names(exhibits: Sequence[Exhibit]) -> list[str]:
    problems = ["releases: at least one is needed, got none"] * (not exhibits)
    names = [s.name for s in exhibits]
    problems += [
        f"release {n!r}: names must differ, got {names.count(n)} of this name"
        for n in dict.fromkeys(names)
        if names.count(n) > 1
    ]
    inputs = [s.name for s in exhibits if s.role == "input"]
    if len(inputs) > 1:
        problems.append(f"releases: one may have the role 'input', got {', '.join(inputs)}")
    return problems


def _collected(setting: Setting, exhibits: Sequence[Exhibit], done: Sequence[tuple[Task, Outcome]]) -> Result:
    """Findings in the order of exhibits and families, the worst of every contest marked, and what follows from them."""
    contests: dict[tuple[str, ...], list[Outcome]] = {}
    for task, outcome in done:
        if task.contest:
            contests.setdefault(task.contest, []).append(outcome)
    ranked = {contest: iter(marked(outcomes)) for contest, outcomes in contests.items()}
    by_release: dict[str, list[Finding]] = {s.name: [] for s in exhibits}
    for task, outcome in done:
        for finding in (next(ranked[task.contest]) if task.contest else outcome).findings:
            by_release[finding.release].append(finding)
    for s in exhibits:
        by_release[s.name] += attributes.mean_mcc(setting, s.name, by_release[s.name])
    findings = [f for s in exhibits for f in by_release[s.name]]
    pictures = {task.releases[0]: o.picture for task, o in done if o.picture is not None}
    marks = {(f.release, f.target, f.code, f.attacker) for f in findings if f.worst}
    contributions = [
        each
        for _, outcome in done
        for each in outcome.contributions
        if (each.release, each.target, each.code, each.attacker) in marks
    ]
    findings += _gains(setting, exhibits, findings)
    rates = [each for _, outcome in done for each in outcome.rates]
    scores = {task.releases[0]: o.scores for task, o in done if o.scores is not None}
    return Result(findings=findings, pictures=pictures, contributions=contributions, rates=rates, scores=scores)


def _gains(setting: Setting, exhibits: Sequence[Exhibit], findings: Sequence[Finding]) -> list[Finding]:
    """What is left of each worst attack, relative to that on the input, and what it costs in matching."""
    reference = next((s.name for s in exhibits if s.role == "input"), None)
    errors = {f.release: f for f in findings if f.worst and f.code == EER and f.target == "identity"}
    gains = []
    for name in setting.private:
        worst = {
            f.release: f for f in findings if f.worst and f.role == "attack" and f.target == name and f.code == ATTACK
        }
        before = worst.get(reference or "")
        for release, f in worst.items():
            if before is not None and release != reference:
                gains += [normalised_gain(f, before), suppression_rate(f, before)]
                if "identity" in setting.utility:
                    gains.append(pic(f, before, errors.get(release), errors.get(before.release)))
    return gains
