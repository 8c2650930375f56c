"""Audit systems that give scores only: how well they match, from what they said of pairs of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from veil import findings as files
from veil.auditing import verification
from veil.auditing.comparisons import Comparisons
from veil.auditing.intervals import Interval
from veil.auditing.pairs import Pairs
from veil.auditing.verification import Figure
from veil.data.scorefile import SUFFIXES, Scores, fingerprint, read_scores
from veil.errors import InputError, checked_path
from veil.findings import Finding
from veil.findings.codes import FNMR_AT, SCORES
from veil.findings.rates import Rates
from veil.workflows.audit import Audit

__all__ = ["SUFFIXES", "audit_scores"]

INDEPENDENT = (
    "who is compared is not known: pairs are taken as independent, and where several share a person, the interval is "
    "too narrow"
)


def audit_scores(
    scores: Mapping[str, str | Path],
    out: str | Path | None = None,
    *,
    level: float = 0.95,
    command: str = "",
    by: str = "",
) -> Audit:
    """AUC, EER, TAR at a FAR, FNMR at an FMR and the DET curve of files of scores, with intervals.

    Where a file says who is compared, intervals go by people; else pairs are taken as independent, and findings say so.

    Args:
        scores: Files as :func:`veil.data.scorefile.read_scores` reads them, by what their systems are called.
        out: Folder for :meth:`veil.Audit.write`; nothing is written if None.
        level: Coverage of the intervals.
        command: How to repeat this, for the report.
        by: Who audits, for the report.

    Raises:
        InputError: For a file that is none, in one line.
    """
    if not isinstance(scores, Mapping) or not scores:
        raise InputError("scores: must be files of scores by name, at least one")
    if not 0.5 <= level < 1:
        raise InputError(f"level: must lie in [0.5, 1), got {level}")
    folder = None if out is None else checked_path("out", out)
    findings: list[Finding] = []
    rates: list[Rates] = []
    releases: list[dict[str, Any]] = []
    sizes, people, known = 0, 0, True
    for name, path in scores.items():
        path = checked_path(f"scores {name}", path)
        given, digest = read_scores(path), fingerprint(path)
        findings += [f.finding(release=name, attacker="its own score", worst=True) for f in _figures(given, level)]
        fmr, fnmr = Comparisons.listed(given.score, given.mated).det()
        rates.append(Rates(release=name, kind="det", attacker="its own score", x=fmr, y=fnmr))
        releases.append({
            "name": name, "method": "", "preset": "", "k": None, "seed": None, "role": "method", "config": {},
            "data": None, "note": "scores from outside", "named": True, "fingerprint": digest,
        })  # fmt: skip
        sizes += len(given.score)
        known &= given.people is not None
        people = max(people, 0 if given.people is None else int(given.people.max()) + 1)
    document: dict[str, Any] = {
        "seed": None,
        "command": command,
        "made": files.how(effort="", level=level, by=by),
        "data": {
            "layout": "", "kind": SCORES, "shape": [], "n": sizes, "identities": people if known else None,
            "fingerprint": hashlib.sha256("".join(r["fingerprint"] for r in releases).encode()).hexdigest()[:16],
            "splits": {}, "labels": {}, "private": [], "utility": ["identity"], "skipped": 0, "attack_on": [],
            "notes": [] if known else [f"Of some files {INDEPENDENT}."],
        },
        "releases": releases,
        "rates": [vars(curve) for curve in rates],
    }  # fmt: skip
    made = Audit(findings=findings, document=document)
    if folder is not None:
        made.write(folder)
    return made


def _figures(given: Scores, level: float) -> list[Figure]:
    """The figures of verification of one file."""
    if given.people is None:  # each pair is a unit of its own
        a = b = np.arange(len(given.score))
    else:
        a, b = given.people.T
    pairs = Pairs(a=a, b=b, same=given.mated, group_a=a, group_b=b)
    fars = {f"verification.tar_at_far_{fmr:g}": code for fmr, code in FNMR_AT.items()}
    figures = []
    for figure in verification.verify(given.score, pairs, None, None, level=level, fars=(0.01, *FNMR_AT)):
        if given.people is None:
            counts = f"{int(given.mated.sum()):,} mated and {int((~given.mated).sum()):,} non-mated pairs"
            why = figure.note if figure.status != "ok" else f"{counts}; {INDEPENDENT}"
            figure = replace(figure, note=why)
        if figure.code in FIGURES:
            figures.append(figure)
        if code := fars.get(figure.code, ""):
            figures.append(_missed(figure, code))
    return figures


FIGURES = tuple(f"verification.{name}" for name in ("auc", "eer", "tar_at_far_0.01", "tar_at_far_0.001"))


def _missed(figure: Figure, code: str) -> Figure:
    """1 - TAR."""
    value, low, high = (1 - x for x in figure.interval)
    return replace(figure, code=code, chance=1 - figure.chance, interval=Interval(value, high, low))
