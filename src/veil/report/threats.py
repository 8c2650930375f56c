"""By threat model, what the worst attack got, or that nobody tried, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from veil.findings import CODES, Finding
from veil.findings.codes import ATTACK, CROSSED, INVERSION, MEMBERSHIP, POOLED, REPEATED, RESTORED, TRANSFER
from veil.report.document import Document, Release
from veil.report.words import interval, limit, number

MODELS = {
    "A0": "has ordinary data only",
    "A1": "has labelled releases of other people",
    "A2": "also has the protector\N{RIGHT SINGLE QUOTATION MARK}s own training data",
    "A3": "has several releases of one person, or of near-duplicates of one picture",
    "A4": "can use the protector on data of their own",
    "A5": "has originals of the same people",
    "A6": "repairs releases first, or has a strong generator",
    "A7": "asks who was in the protector\N{RIGHT SINGLE QUOTATION MARK}s training data",
    "A8": "holds releases of the same people made under two keys",
}
"""Threat models, and what the attacker has, or does (docs/audit.md)."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one attack got.

    Attributes:
        what: Of what: a label, say.
        figure: The figure, and its name.
        range: Its interval.
        attacker: Who got it.
    """

    what: str
    figure: str
    range: str = ""
    attacker: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is known of a threat model and a release: entries, or why there are none."""

    entries: Sequence[Entry] = ()
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Threat:
    """A threat model, and what is known of it for each release."""

    code: str
    attacker: str
    answers: Sequence[Answer]


def judged(document: Document) -> list[Release]:
    """The releases that the table is of: those that the verdict is about, or the input where there are none."""
    return [r for r in document.releases if r.judged] or [r for r in document.releases if r.role == "input"]


def threats(document: Document) -> list[Threat]:
    """A row for each threat model, a column for each of the releases that are :func:`judged`."""
    return [
        Threat(code=code, attacker=attacker, answers=[_answer(document, r, code) for r in judged(document)])
        for code, attacker in MODELS.items()
    ]


def _answer(document: Document, release: Release, code: str) -> Answer:
    entries = list(_entries(document, release, code))
    return Answer(entries=entries) if entries else Answer(why=_why(document, release, code))


def _entries(document: Document, release: Release, code: str) -> Iterator[Entry]:
    """The worst attacks of a threat model on a release."""
    given_training = "protect" in document.data.attack_on
    for label in document.data.private:
        if code == ("A2" if given_training else "A1"):
            yield from _entry(document.attack(release.name, label), label)
        elif code == "A0":
            yield from _entry(document.attack(release.name, label, TRANSFER), label)
        elif code == "A3":
            for means, of in ((POOLED, "mean of releases"), (REPEATED, "mean over near-duplicates")):
                yield from _entry(document.attack(release.name, label, means), f"{label}, {of}")
        elif code == "A4" and (bound := document.bound(release.name, label)) is not None:
            most = f"at most {number(ATTACK, limit(bound))}"
            yield Entry(what=label, figure=most, attacker="certified, whoever attacks")
    found = {"A3": "identification.rank1_releases", "A4": "linkability.rank1", "A5": "identification.rank1_originals"}
    if code in found:
        whose = {"A4": "own original found first"}.get(code, "person found first")
        yield from _entry(_worst(document, release, found[code]), whose)
    for label in document.data.private if code == "A6" else ():
        yield from _entry(document.attack(release.name, label, RESTORED), label)
    if code == "A7":
        yield from _entry(_worst(document, release, MEMBERSHIP), "who was in training")
    if code == "A8":
        for crossed, how in zip(
            CROSSED, ("compared as they are", "by a learned map", "old under a new key"), strict=True
        ):
            yield from _entry(_worst(document, release, crossed), how)
    if code == "A4":
        yield from _entry(document.inversion(release.name), "the picture, redrawn")


def _entry(finding: Finding | None, what: str) -> Iterator[Entry]:
    if finding is not None and finding.ok:
        figure = f"{number(finding.code, finding.value)} {CODES[finding.code].title}"
        between = interval(finding.code, finding.low, finding.high)
        yield Entry(what=what, figure=figure, range=between, attacker=finding.attacker)


def _worst(document: Document, release: Release, code: str) -> Finding | None:
    tried = [f for f in document.of(release.name) if f.code == code and f.ok and f.role != "control"]
    return next((f for f in tried if f.worst), max(tried, key=lambda f: f.value or 0.0, default=None))


def _why(document: Document, release: Release, code: str) -> str:
    """Why there is no figure."""
    given_training = "protect" in document.data.attack_on
    if code == "A1" and given_training:
        return "attackers had more: A2"
    if code == "A2":
        return "not asked for: --attack-on protect,attack"
    codes = {
        "A0": [TRANSFER],
        "A1": [ATTACK],
        "A3": [POOLED, REPEATED],
        "A4": INVERSION,
        "A6": [RESTORED],
        "A7": [MEMBERSHIP],
        "A8": CROSSED,
    }.get(code, [])
    notes = [f.note for f in document.of(release.name) if f.code in codes and not f.ok and f.note]
    if notes:
        return notes[0]
    if code == "A0":
        return "releases are no images like the originals, or nothing private was named"
    if code == "A4":
        return "the originals were not there, or releases are of the input itself"
    return "this audit did not try it" if code in ("A6", "A7", "A8") else "not measured"
