"""Two audits against each other: by how much a figure differs, and whether that is beyond chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from veil.auditing.intervals import Interval, bounded, spread_of
from veil.findings import CODES, Finding, contributions
from veil.findings.contributions import Contribution
from veil.report import document, verdict
from veil.report.document import Document


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An audit in a folder, with what is needed to compare its figures.

    Attributes:
        folder: Where it lies.
        document: What it says.
        checks: Its controls.
        contributions: What persons contribute to figures, by release, target and code.
    """

    folder: Path
    document: Document
    checks: Sequence[verdict.Check]
    contributions: Mapping[tuple[str, str, str], Contribution]

    @staticmethod
    def read(folder: Path) -> Measured:
        """An audit as it lies in a folder; raises InputError for files that are none of an audit's."""
        written, path = document.read(folder), folder / contributions.NAME
        people = contributions.read(path) if path.is_file() else []
        by_figure = {(each.release, each.target, each.code): each for each in people}
        return Measured(
            folder=folder, document=written, checks=verdict.controls(written), contributions=by_figure
        )  # fmt: skip

    def picked(self, release: str, target: str, code: str) -> Finding | None:
        """The figure of who was picked on validation data."""
        of_release = self.document.of(release)
        return next((f for f in of_release if f.worst and f.ok and (f.target, f.code) == (target, code)), None)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One figure of two audits.

    Attributes:
        now: The later figure.
        then: The earlier one.
        change: By how much the former is above the latter, with the limits of its interval; None where the two cannot
            be paired person by person.
        why: What speaks against believing it, or why there is none; "" where nothing does.
    """

    now: Finding | None
    then: Finding | None
    change: Interval | None = None
    why: str = ""

    @property
    def is_worse(self) -> bool:
        """Whether it is worse beyond chance: an attack's figure higher, a use's lower."""
        return self._beyond(1.0)

    @property
    def is_better(self) -> bool:
        """Whether it is better beyond chance."""
        return self._beyond(-1.0)

    def _beyond(self, sign: float) -> bool:
        if self.change is None or self.now is None:
            return False
        low, high = self.change.low, self.change.high
        return low > 0 if (sign > 0) == rises_for_worse(self.now) else high < 0


def rises_for_worse(finding: Finding) -> bool:
    """Whether a higher figure is worse: an attack's is, unless the lower one tells more, and a use's the other way."""
    return (finding.role == "utility") == CODES[finding.code].lower_tells_more


def difference(now: Measured, then: Measured, key: tuple[str, str, str], earlier: str = "") -> Difference:
    """A figure of two audits of the same data, by its release, target and code.

    Paired person by person (:mod:`veil.findings.contributions`): the error of a difference of two figures on the same
    people is the sum of the differences.

    Args:
        now: The later audit.
        then: The earlier one.
        key: Release, target and code.
        earlier: What the release was called then; the same if "".
    """
    other_key = (earlier or key[0], *key[1:])
    finding, reference = now.picked(*key), then.picked(*other_key)
    new, old = now.contributions.get(key), then.contributions.get(other_key)
    if old is None or reference is None:
        return Difference(now=finding, then=reference, why="was not measured before")
    if new is None or finding is None:
        return Difference(now=finding, then=reference, why="was measured before, and is not now")
    if finding.level != reference.level:
        why = f"has intervals of {finding.level:g}, and had them of {reference.level:g} before"
        return Difference(now=finding, then=reference, why=why)
    if old.rows != new.rows or len(old.people) != len(new.people):
        return Difference(now=finding, then=reference, why="was measured on other rows before")
    sums = np.asarray(new.people, np.float64) - np.asarray(old.people, np.float64)
    spread, value = spread_of(sums, len(sums) - 1), finding.figures()[0] - reference.figures()[0]
    change = Interval(value, value, value)  # where nobody tells them apart
    if spread.variance:
        change = bounded(value, spread, len(sums), level=finding.level, within=(-1.0, 1.0))
    made = Difference(now=finding, then=reference, change=change)
    doubts = [verdict.doubt(f, of.checks, not made.is_worse) for f, of in ((finding, now), (reference, then))]
    if not spread.variance and value:
        doubts.append("its contributions do not tell two figures apart that differ")
    return Difference(now=finding, then=reference, change=change, why=next(filter(None, doubts), ""))
