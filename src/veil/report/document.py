"""What a report is made of: the checked document, and the findings that speak for a release."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from veil import findings as files
from veil.errors import printable
from veil.findings import CODES, Finding
from veil.findings.codes import ATTACK, CERTIFICATE, INVERSION, SCORES, USES


@dataclass(frozen=True, kw_only=True)
class Release:
    """One audited release: its name, how it was made, and whether it is the input, a baseline or a method.

    ``fingerprint`` is the SHA-256 of a release that was audited, or of vectors.

    ``named`` says whether somebody asked for it; the audit adds controls of its own. ``data`` is the fingerprint of
    what it was fitted on; None where that is not known.
    """

    name: str
    role: str
    named: bool | None = None
    method: str = ""
    preset: str = ""
    k: int | None = None
    seed: int | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    data: str | None = None
    fingerprint: str = ""
    note: str = ""

    @property
    def judged(self) -> bool:
        """Whether the verdict is about it: what somebody asked for, or, where that is not said, what protects."""
        return self.role != "input" and (self.role == "method" if self.named is None else self.named)


@dataclass(frozen=True, kw_only=True)
class Label:
    """The classes of one label and, for each split, how many rows each class has.

    ``predicted`` says of one that nobody observed which ``file`` guessed it, its ``sha256``, and in the mean with which
    ``confidence``.
    """

    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    predicted: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Data:
    """What was audited: the pack's layout, size, splits and labels, and the names declared private and of use."""

    layout: str = ""
    kind: str = ""
    shape: tuple[int, ...] = ()
    n: int | None = None
    identities: int | None = None
    fingerprint: str = ""
    splits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    labels: Mapping[str, Label] = field(default_factory=dict)
    private: tuple[str, ...] = ()
    utility: tuple[str, ...] = ()
    skipped: int | None = None
    notes: tuple[str, ...] = ()
    attack_on: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG beside ``findings.json``, with its words."""

    file: str
    title: str = ""
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """A Parquet file of training losses beside ``findings.json``, and whose they are."""

    file: str
    release: str


@dataclass(frozen=True, kw_only=True)
class Map:
    """Releases of some people on a plane, (x, y) and the number of the person of each."""

    release: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    person: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A curve of a release's comparator, ``kind`` "det" or "cmc", as :class:`veil.findings.rates.Rates` has it."""

    release: str
    kind: str
    attacker: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Made:
    """When, by whom and with what an audit was made; empty where an earlier version of Veil made it."""

    at: str = ""
    effort: str = ""
    level: float | None = None
    by: str = ""
    system: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A checked ``findings.json``."""

    veil: str
    seed: int | None
    created: str
    command: str
    made: Made
    data: Data
    releases: tuple[Release, ...]
    findings: tuple[Finding, ...]
    pictures: tuple[Picture, ...]
    curves: tuple[Curves, ...]
    maps: tuple[Map, ...]
    rates: tuple[Curve, ...] = ()

    def select(
        self, *, role: str, release: str | None = None, target: str | None = None, code: str | None = None
    ) -> list[Finding]:
        """The findings of ``role``, narrowed by what is given, in their order."""
        return [
            f
            for f in (self.findings if release is None else self.of(release))
            if f.role == role and (target is None or f.target == target) and (code is None or f.code == code)
        ]

    def of(self, release: str) -> Sequence[Finding]:
        """The findings about a release, in their order."""
        return self._by_release.get(release, ())

    @cached_property
    def _by_release(self) -> Mapping[str, Sequence[Finding]]:
        by_release: dict[str, list[Finding]] = {}
        for finding in self.findings:
            by_release.setdefault(finding.release, []).append(finding)
        return by_release

    def rates_of(self, kind: str) -> list[Curve]:
        """The curves of a kind, in their order."""
        return [curve for curve in self.rates if curve.kind == kind]

    @property
    def of_scores(self) -> bool:
        """Whether it is about systems of which scores alone are there: nothing unprotected, and nothing to attack."""
        return self.data.kind == SCORES

    @property
    def input(self) -> Release | None:
        """The unprotected input, where it was audited."""
        return next((r for r in self.releases if r.role == "input"), None)

    def attack(self, release: str, target: str, code: str = ATTACK) -> Finding | None:
        """The worst attack on ``target``: the attacker picked on validation data, else the strongest that is there.

        Where its decision has no figure, its AUC (``stand_in`` of the code).
        """
        return self._speaker("attack", release, target, code)

    def inversion(self, release: str) -> Finding | None:
        """What speaks for the worst attack by inversion on a release; None where none gave a figure."""
        worst = (self.attack(release, "image", code) for code in INVERSION)
        return next((f for f in worst if f is not None), None)

    def use(self, release: str, target: str, code: str | None = None) -> Finding | None:
        """The figure for a use by the matcher or probe picked on validation data; ``code`` None: the primary one.

        Where its decision has no figure, its AUC (``stand_in`` of the code).
        """
        code = code or self.primary_use(target)
        return None if code is None else self._speaker("utility", release, target, code)

    def bound(self, release: str, target: str) -> Finding | None:
        """The certificate, whose value no attacker's balanced accuracy exceeds; None where there is none."""
        bounds = self.select(role="bound", release=release, target=target, code=CERTIFICATE)
        return next((f for f in bounds if f.ok), None)

    def primary_use(self, target: str) -> str | None:
        """The code of the figure that speaks for the use ``target``; None where nothing of it was measured."""
        measured = {f.code for f in self.select(role="utility", target=target)}
        return next((code for code in USES if code in measured), None)

    def _speaker(self, role: str, release: str, target: str, code: str) -> Finding | None:
        """Whose figure of ``code`` counts: that of who was picked on validation data, else the one that tells most."""
        tried = self.select(role=role, release=release, target=target, code=code)
        picked = next((f for f in tried if f.worst), None)
        if picked is not None and not picked.ok:  # another's figure must not speak for it
            stand_in = CODES[code].stand_in
            return self._speaker(role, release, target, stand_in) if stand_in else None
        if picked is not None:
            return picked
        usable = [f for f in tried if f.ok]
        # A figure of an attacker that was picked by another code belongs to that attacker.
        elsewhere = {f.attacker for f in self.of(release) if f.worst and f.target == target}
        usable = [f for f in usable if f.attacker in elsewhere] or usable
        sign = -1 if CODES[code].lower_tells_more else 1
        return max(usable, key=lambda f: sign * (f.value or 0.0), default=None)


def moment(document: Document) -> str:
    """When it was made, to the minute; the day where that is all that is known, "" where nothing is."""
    at = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d\+00:00", document.made.at)
    return f"{at[1]} {at[2]} UTC" if at else document.made.at or document.created


def read(out: Path) -> Document:
    """``out/findings.json`` as :func:`veil.findings.io.read` gives it, which says what is wrong with it."""
    return of(files.read(out))


def of(whole: Mapping[str, Any]) -> Document:
    """What :func:`veil.findings.io.read` gives, or :func:`veil.findings.io.document` makes, as a document."""
    raw = _printable(whole)
    return Document(
        **{key: raw[key] for key in ("veil", "seed", "created", "command")},
        made=Made(**raw.get("made", {})),
        data=_data(raw["data"]),
        releases=tuple(Release(**entry) for entry in raw["releases"]),
        findings=tuple(Finding(**entry) for entry in raw["findings"]),
        pictures=tuple(Picture(**entry) for entry in raw["pictures"]),
        curves=tuple(Curves(**entry) for entry in raw["curves"]),
        maps=tuple(Map(**_tuples(entry)) for entry in raw.get("maps", [])),
        rates=tuple(Curve(**_tuples(entry)) for entry in raw.get("rates", [])),
    )


def _printable(value: Any) -> Any:
    """A value of the file, its texts as they can be shown; but for names of files, which are read by them."""
    if isinstance(value, dict):
        return {printable(key): each if key == "file" else _printable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_printable(each) for each in value]
    return printable(value) if isinstance(value, str) else value


def _data(raw: Mapping[str, Any]) -> Data:
    splits = {
        name: {key: size for key, size in sizes.items() if size is not None}
        for name, sizes in raw.get("splits", {}).items()
    }
    labels = {
        name: Label(classes=tuple(label["classes"]), counts=_tuples(label["counts"]), predicted=label.get("predicted"))
        for name, label in raw.get("labels", {}).items()
    }
    return Data(**_tuples(raw) | {"splits": splits, "labels": labels})


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An object of the file, its lists as tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
