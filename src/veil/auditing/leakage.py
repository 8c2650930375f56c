"""Split leakage: whether a release was fitted on people that the audit measures it on, or trains attackers on.

A protector hides the attribute of people that it has learned from better than that of others. So its figures mean
nothing where the rows of ``attack``, ``calibrate`` or ``test``, or their people, took part in its fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.data.fitted import UNDERNEATH, Fitted
from veil.data.pack import Pack
from veil.findings import Finding, Measurement
from veil.findings.codes import SEEN

UNKNOWN = "whether it was fitted on these people cannot be known: its data were others, and {why}"
NOTHING_SAYS = "no file beside it says so"
OUTSIDE = "what vectors from outside were fitted on cannot be known"


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What of an audit's rows a release was fitted on.

    Attributes:
        rows: ``(N,)`` whether a row, or its person, took part, of the splits compared; None where it is not known.
        splits: Those compared.
        note: The counts in words; or why nothing is known.
    """

    rows: NDArray[np.bool_] | None
    splits: tuple[str, ...] = ()
    note: str

    def finding(self, pack: Pack, release: str, level: float) -> Finding:
        """The control: the share of the rows that took part."""
        n = len(pack.rows(*self.splits)) if self.splits else 0
        data = Measurement(release=release, target="any", attacker="training data", role="control", n=n, level=level)
        if self.rows is None:
            return data.missing(SEEN, "not_applicable", self.note)
        share = float(self.rows.sum() / n)
        return data.measured(SEEN, (share, share, share), chance=0.0, note=self.note)


def members(made: Mapping[str, Any], fitted: Fitted | None, pack: Pack) -> NDArray[np.bool_] | str:
    """Rows ``(N,)`` of a pack that a release was fitted on, or whose person; or why that is not known.

    Args:
        made: How the release was made.
        fitted: Hashes of what it was fitted on, where they are at hand.
        pack: With the rows.
    """
    identity = pack.labels.get("identity")
    rows = np.zeros(len(pack), bool)
    if _same_data(made, pack):  # it was trained on `protect` alone
        rows[pack.rows("protect")] = True
    elif fitted is None or fitted.problem:
        return UNKNOWN.format(why=fitted.problem if fitted is not None else NOTHING_SAYS)
    else:
        rows = fitted.has_rows(pack.x, np.arange(len(pack)))
        if identity is not None and len(fitted.people):
            rows |= _of_people(fitted, pack)
    if identity is not None:
        own = np.unique(identity[rows])
        rows |= np.isin(identity, own[own >= 0])
    return rows


def _same_data(made: Mapping[str, Any], pack: Pack) -> bool:
    """Whether a release, and all underneath it, was fitted on this very pack."""
    return {str(made.get("data", "")), *made.get(UNDERNEATH, ())} == {pack.fingerprint}


def _of_people(fitted: Fitted, pack: Pack) -> NDArray[np.bool_]:
    """Rows ``(N,)`` of the people that a release was fitted on, by name."""
    return np.append(fitted.has_people(pack.classes["identity"]), False)[pack.label("identity")]  # code -1 is nobody


def overlap(
    made: Mapping[str, Any], fitted: Fitted | None, pack: Pack, *, private: Sequence[str], attack_on: Sequence[str]
) -> Overlap:
    """Compare what a release was fitted on with the splits of an audit.

    People are compared by name where ``identity`` is known and not private: to read it off releases, attackers must
    know the people. Where attackers are given the protector's own people on purpose, ``attack`` is not compared.

    Args:
        made: How the release was made: the fingerprints of its data, and of those of releases underneath.
        fitted: Hashes of what it was fitted on, where they are at hand.
        pack: What is audited.
        private: Labels that are attacked.
        attack_on: Splits that attackers train on.
    """
    splits = ("test", "calibrate") if "protect" in attack_on else ("test", "calibrate", "attack")
    identity = None if "identity" in private else pack.labels.get("identity")
    alone = "identity is private" if "identity" in private else "nobody's identity is known"
    by_row = by_person = np.zeros(len(pack), bool)
    rows = pack.rows(*splits)
    same = _same_data(made, pack)
    if same:  # it was trained on `protect` alone
        if identity is not None:
            own = np.unique(identity[pack.rows("protect")])
            by_person = np.isin(identity, own[own >= 0])
    elif fitted is None or fitted.problem:
        why = fitted.problem if fitted is not None else NOTHING_SAYS
        return Overlap(rows=None, note=UNKNOWN.format(why=why))
    else:
        by_row = by_row.copy()
        by_row[rows] = fitted.has_rows(pack.x, rows)
        if identity is not None and len(fitted.people):
            by_person = _of_people(fitted, pack)
        elif identity is not None:
            identity, alone = None, "its people are not known"
    seen = np.zeros(len(pack), bool)
    seen[rows] = (by_row | by_person)[rows]
    note = _note(pack, splits, by_row, by_person, identity, alone)
    if same and made.get("budget"):
        note += "; attack and calibrate chose its noise"
    return Overlap(rows=seen, splits=splits, note=note)


def _note(
    pack: Pack,
    splits: Sequence[str],
    by_row: NDArray[np.bool_],
    by_person: NDArray[np.bool_],
    identity: NDArray[np.int64] | None,
    alone: str,
) -> str:
    """How many rows, and people, of each split took part in the fit."""
    overlaps, everyone, total = [], 0, 0
    for split in splits:
        rows = pack.rows(split)
        people = np.empty(0, np.int64) if identity is None else np.unique(identity[rows][identity[rows] >= 0])
        known = 0 if identity is None else len(np.unique(identity[rows][by_person[rows]]))
        seen = int((by_row | by_person)[rows].sum())
        everyone, total = everyone + len(people), total + len(rows)
        if seen and identity is not None:
            overlaps.append(f"{known:,} of {len(people):,} people of {split} ({seen:,} of {len(rows):,} rows)")
        elif seen:
            overlaps.append(f"{seen:,} of {len(rows):,} rows of {split}")
    by = "" if identity is not None else f" (compared by rows alone, as {alone})"
    if overlaps:
        return f"{', '.join(overlaps)} were in its training{by}"
    who = f"{everyone:,} people and " if identity is not None else ""
    return f"none of {who}{total:,} rows of {', '.join(splits)} was in its training{by}"
