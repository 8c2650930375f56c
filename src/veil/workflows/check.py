"""A gate: whether an audit meets what is required of it, by the limits of its intervals."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from veil.auditing.intervals import Interval
from veil.data.columns import nfc
from veil.errors import InputError, checked_path
from veil.findings import CODES, Finding, contributions
from veil.findings.codes import (
    ATTACK,
    CERTIFICATE,
    LOOKS,
    PIC,
    POOLED,
    REPEATED,
    RESTORED,
    SEEN,
    SUPPRESSION,
    TRANSFER,
    USES,
)
from veil.foreign import one_line, read_bytes
from veil.report import document, verdict
from veil.report.document import Document, Release
from veil.workflows.against import Measured, difference

Outcome = Literal["met", "not met", "cannot be said", "not applicable"]

_ATTACKS = (ATTACK, TRANSFER, POOLED, REPEATED, RESTORED)
_ATTACKS_BY_AUC = tuple(CODES[code].stand_in for code in _ATTACKS)
_HARMS = (*(code for code, known in CODES.items() if known.threat), SEEN)
"""Figures of what is given away."""
_OF_IDENTITY = ("verification", "search", "linkability", "identification", "unlinkability", "renewal")
_FIGURES = {"", *(code.partition(".")[2] for code in CODES)}
_MOST = 1 << 20  # bytes of a file of requirements


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """What is required of every release that is judged.

    Attributes:
        what: A label or ``identity``, with ``.FIGURE`` behind it where not its first figure is meant; or a code of
            :data:`veil.findings.CODES`.
        sign: ``"<="``: the upper limit of the interval must not be above ``limit``; ``">="``: nor the lower one below.
        limit: As findings have it: .6 for 60 %.
    """

    what: str
    sign: str
    limit: float

    @staticmethod
    def read(text: str) -> Requirement:
        """``gender <= 0.60``; raises InputError for anything else."""
        match = re.fullmatch(r"\s*(.+?)\s*(<=|>=)\s*(\S+)\s*", text) if isinstance(text, str) else None
        try:
            limit = float(match[3]) if match else math.nan
        except ValueError:
            limit = math.nan
        if match is None or not math.isfinite(limit):
            raise InputError(f"require: must be WHAT <= LIMIT or WHAT >= LIMIT, such as 'gender <= 0.60', got {text!r}")
        return Requirement(what=nfc(match[1]), sign=match[2], limit=limit)

    def __str__(self) -> str:
        return f"{self.what} {self.sign} {self.limit:g}"

    def is_missed(self, finding: Finding) -> bool:
        """Whether the whole interval of a figure lies beyond what is required."""
        _, low, high, _ = finding.figures()
        return low > self.limit if self.sign == "<=" else high < self.limit

    def holds(self, finding: Finding) -> bool:
        """Whether the limit of a figure's interval is within what is required."""
        _, low, high, _ = finding.figures()
        return high <= self.limit if self.sign == "<=" else low >= self.limit


@dataclass(frozen=True, kw_only=True)
class Line:
    """One figure beside what is required of it.

    Attributes:
        requirement: What is required, in words.
        release: Of which release.
        outcome: Whether it is met.
        code: The kind of figure; "" where nothing of the kind was measured.
        finding: The figure; None where there is none.
        why: What else should be known: why it cannot be said, say.
        change: By how much the figure is above an earlier one, with the limits of its interval; None where none is
            asked about.
    """

    requirement: str
    release: str
    outcome: Outcome
    code: str = ""
    finding: Finding | None = None
    why: str = ""
    change: Interval | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        f = self.finding
        return {
            "require": self.requirement, "release": self.release, "outcome": self.outcome, "code": self.code,
            "threat": CODES[self.code].threat if self.code else "", "attacker": None if f is None else f.attacker,
            "value": None if f is None else f.value, "low": None if f is None else f.low,
            "high": None if f is None else f.high, "level": None if f is None else f.level,
            "n": None if f is None else f.n, "why": self.why,
            "change": None if self.change is None else list(self.change),
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a gate says.

    Attributes:
        lines: Every figure that is asked about, by requirement and release.
    """

    lines: Sequence[Line]

    @property
    def outcome(self) -> Outcome:
        """``"not met"`` where any requirement certainly is not; else ``"cannot be said"`` where that holds for any."""
        outcomes = {line.outcome for line in self.lines}
        for outcome in ("not met", "cannot be said"):
            if outcome in outcomes:
                return outcome
        return "met"

    @property
    def status(self) -> int:
        """The exit status of the command: 0 met, 3 not met, 2 cannot be said."""
        return {"met": 0, "not met": 3}.get(self.outcome, 2)


def check(
    audit: str | Path,
    require: Sequence[str] = (),
    *,
    file: str | Path | None = None,
    releases: Sequence[str] = (),
    against: str | Path | None = None,
) -> Checked:
    """Compare an audit with what is required.

    Limits of intervals are compared, not values: a figure that chance alone may have brought within the limit does not
    pass. An attack on a label is limited under every threat model that was measured: single releases, means of one
    person's, means over near-duplicates, and attackers who know originals alone; a certificate within the limit binds
    all who see one release. Where a control of the label failed or is missing, an attempt broke off, or nothing was
    measured, it cannot be said.

    Against an earlier audit of the same data it is asked what became worse beyond chance: the interval of the
    difference of two figures on the same people, paired person by person (:mod:`veil.findings.contributions`), must
    reach 0.

    Args:
        audit: A folder with ``findings.json``.
        require: Requirements, as :meth:`Requirement.read` reads them.
        file: A TOML file whose ``[check]`` has ``require``, a list of them, and may have ``releases``.
        releases: The releases that are judged; those that somebody asked for if none is named, and the unprotected
            input where there is none.
        against: The folder of an earlier audit. Releases are compared with those of the same name.

    Raises:
        InputError: For a requirement, a file or a release that there is not.
    """
    folder = checked_path("audit", audit)
    written = document.read(folder)
    lines: list[Line] = []
    if against is None or require or file is not None:
        lines += judged(written, require, file=file, releases=releases).lines
    if against is not None:
        named = [release.name for release in _releases(written, releases)]
        lines += _no_worse(Measured.read(folder), Measured.read(checked_path("against", against)), named)
    return Checked(lines=lines)


def judged(
    written: Document, require: Sequence[str] = (), *, file: str | Path | None = None, releases: Sequence[str] = ()
) -> Checked:
    """:func:`check` of a document."""
    if isinstance(require, str):
        require = [require]
    if file is not None:
        more, named = _from_file(checked_path("require file", file))
        require, releases = [*require, *more], [*releases, *named]
    if not require:
        raise InputError("require: name what is required, such as 'gender <= 0.60', got nothing")
    requirements = [Requirement.read(text) for text in require]
    checks = verdict.controls(written)
    lines = [
        line
        for requirement in requirements
        for release in _releases(written, releases)
        for line in _lines(written, checks, requirement, release)
    ]
    return Checked(lines=lines)


def _from_file(path: Path) -> tuple[list[str], list[str]]:
    """The requirements and the releases that a file names."""
    try:
        raw = tomllib.loads(read_bytes(path, _MOST).decode("utf-8"))
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as TOML ({one_line(error)})") from None
    table = raw.get("check")
    if not isinstance(table, dict) or set(table) - {"require", "releases"}:
        raise InputError(f"{path}: must have a table [check] with require, and releases if need be")
    lists = [table.get(name, []) for name in ("require", "releases")]
    if not all(isinstance(each, list) and all(isinstance(text, str) for text in each) for each in lists):
        raise InputError(f"{path}: require and releases must be lists of texts")
    return lists[0], lists[1]


def _releases(written: Document, named: Sequence[str]) -> list[Release]:
    there = {release.name: release for release in written.releases}
    if missing := [name for name in named if name not in there]:
        raise InputError(f"release: must be one of the audit's ({', '.join(there)}), got {missing[0]!r}")
    judged = [there[name] for name in dict.fromkeys(named)] or [r for r in written.releases if r.judged]
    return judged or [r for r in written.releases if r.role == "input"]


def _lines(
    written: Document, checks: Sequence[verdict.Check], requirement: Requirement, release: Release
) -> Iterator[Line]:
    """The figures of one release that a requirement is about."""
    asked = _asked(written, requirement)
    common: dict[str, Any] = {"requirement": str(requirement), "release": release.name}
    lines = []
    for target, codes in asked:
        bound = written.bound(release.name, target) if ATTACK in codes and requirement.sign == "<=" else None
        if bound is not None and requirement.holds(bound) and not verdict.doubt(bound, checks, False):
            why = "binds every attacker who sees one release"
            lines.append(Line(**common, outcome="met", code=CERTIFICATE, finding=bound, why=why))
            codes = [code for code in codes if code not in (ATTACK, TRANSFER)]
        missing = [*checks, *_missing(written, release, target)]
        for code in codes:
            of_code = [f for f in written.of(release.name) if (f.code, f.target) == (code, target)]
            about = [f for f in of_code if f.role in _roles(code)]
            if about:
                lines.append(_line(about, missing, requirement, common))
            if code in (ATTACK, CODES[ATTACK].stand_in) and (not about or lines[-1].outcome == "not applicable"):
                why = lines.pop().why if about else "was not measured"
                lines.append(
                    Line(**common, outcome="cannot be said", code=code, why=f"an attack on single releases: {why}")
                )
    if not any(line.outcome != "not applicable" for line in lines):
        yield Line(**common, outcome="cannot be said", why="it was not measured")
    yield from lines


def _line(
    tried: Sequence[Finding], checks: Sequence[verdict.Check], requirement: Requirement, common: dict[str, Any]
) -> Line:
    """The figure of one kind that counts, of who was picked on validation data."""
    code = tried[0].code
    picked = next((f for f in tried if f.worst), None)
    broken = [f for f in tried if f.status == "did_not_converge"]
    if picked is None:
        usable = [f for f in tried if f.ok]
        sign = -1 if CODES[code].lower_tells_more else 1
        picked = max(usable, key=lambda f: sign * (f.value or 0.0), default=None)
    if picked is None and not broken:
        return Line(**common, outcome="not applicable", code=code, why=tried[0].note)
    if picked is None or not picked.ok:
        why = broken[0].note if picked is None else picked.note
        silent = picked is not None and picked.status == "not_applicable" and CODES[code].stand_in
        ask = f"; require {tried[0].target}.auc in its place" if silent else ""
        return Line(**common, outcome="cannot be said", code=code, why=f"{why}{ask}")
    beyond = [f for f in tried if f.ok and f.role == "attack" and requirement.is_missed(f)]
    if beyond and not requirement.is_missed(picked):
        worst = max(beyond, key=lambda f: f.value or 0.0)
        doubt = verdict.doubt(worst, checks, False)
        why = doubt or f"{picked.attacker}, which was picked on validation data, gets less"
        return Line(**common, outcome="cannot be said" if doubt else "not met", code=code, finding=worst, why=why)
    holds = requirement.holds(picked)
    why = verdict.doubt(picked, checks, holds)
    if holds and not why and picked.n == 0:
        why = "it is of nobody"
    if holds and not why and _reversed(picked) > requirement.limit and picked.role == "attack":
        note = "below chance, so its opposite is right more often"
        return Line(**common, outcome="not met", code=code, finding=picked, why=note)
    if holds and not why and broken:
        why = f"{broken[0].attacker} broke off ({broken[0].note})"
    outcome: Outcome = "cannot be said" if why else "met" if holds else "not met"
    return Line(**common, outcome=outcome, code=code, finding=picked, why=why)


def _asked(written: Document, requirement: Requirement) -> list[tuple[str, Sequence[str]]]:
    """Targets and the codes of their figures that a requirement is about; raises InputError where there is none."""
    what, data = requirement.what, written.data
    labels = {nfc(name).strip(): name for name in (*data.private, *data.utility)}
    parts = {name: what[len(name) + 1 :] for name in labels if what == name or what.startswith(f"{name}.")}
    meant = [*([what] if what in CODES else ()), *(name for name, figure in parts.items() if figure in _FIGURES)]
    if len(meant) > 1:
        raise InputError(f"require: must name one thing, and {what!r} may be {' or '.join(map(repr, meant))}")
    if what in CODES:
        measured = dict.fromkeys(f.target for f in written.findings if f.code == what and f.role in _roles(what))
        asked: list[tuple[str, Sequence[str]]] = [(each, [what]) for each in measured if "|same " not in each]
        asked = asked or [("", [what])]
    elif parts:
        name = meant[0] if meant else max(parts, key=len)
        asked = [(labels[name], _codes(written, labels[name], parts[name]))]
    else:
        there = ", ".join(labels) or "none"
        raise InputError(
            f"require: must name a label that was audited ({there}), or a code of a figure, got {what!r}; what was not "
            "asked of an audit cannot be said"
        )
    for _, codes in asked:
        _check_limit(requirement, codes[0])
    return asked


def _check_limit(requirement: Requirement, code: str) -> None:
    """Raises InputError for a limit on the wrong side, which would ask for harm, or one that no figure can miss."""
    harm = code in _HARMS
    sign = "<=" if harm != CODES[code].lower_tells_more else ">="
    if requirement.sign != sign and code not in LOOKS:
        hidden = code in (SUPPRESSION, PIC)
        what = "is what is hidden" if hidden else "gives away" if harm else "is of use"
        what = "is an error" if not harm and CODES[code].lower_tells_more else what
        raise InputError(f"require: {requirement.what} {what}, so its limit must be {sign} LIMIT, got {requirement}")
    least = -1.0 if code == "utility.mcc" else 0.0
    if CODES[code].style != "plain" and not least <= requirement.limit <= 1:
        raise InputError(
            f"require: {requirement.what} lies in {least:g}..1 (0.6 for 60 %), got the limit {requirement.limit:g}"
        )


def _codes(written: Document, target: str, figure: str) -> Sequence[str]:
    """The codes of a figure of a label or of identity, the one that matters first; raises InputError for none."""
    data = written.data
    if target in data.private:
        kinds = {"": _ATTACKS, "balanced_accuracy": _ATTACKS, "auc": _ATTACKS_BY_AUC}
        codes = list(kinds.get(figure, [code for code in CODES if code == f"attribute.{figure}"]))
    elif not figure:
        codes = [code for code in [written.primary_use(target)] if code is not None]
        codes = codes or ["verification.auc" if target == "identity" else "utility.balanced_accuracy"]
    else:
        families = _OF_IDENTITY if target == "identity" else ("utility",)
        codes = [f"{family}.{figure}" for family in families if f"{family}.{figure}" in CODES][:1]
    if not codes:
        raise InputError(f"require: {target} has no figure {figure!r}; docs list the codes of all")
    return codes


def _reversed(finding: Finding) -> float:
    """The upper limit of the opposite of what an attacker of two classes says, where that is right more often."""
    _, low, high, chance = finding.figures()
    of_two = finding.code in (*_ATTACKS, *_ATTACKS_BY_AUC) and chance == 0.5
    return 1 - low if of_two and high < chance else -math.inf


def _missing(written: Document, release: Release, target: str) -> Iterator[verdict.Check]:
    """Controls that each release must have of its own, and this one has not."""
    of_release = written.select(role="control", release=release.name)
    shuffled = any(f.target == target and verdict.is_shuffled(f) for f in of_release)
    if target in written.data.private and not shuffled:
        meaning = f"No attack on shuffled labels of {target} was measured on {release.name}."
        yield verdict.Check(name="Shuffled labels", release=release.name, target=target, expected="", outcome="missing",
                            meaning=meaning)  # fmt: skip
    if release.method and release.role == "method" and not any(f.code == SEEN for f in of_release):
        meaning = f"Whether {release.name} has seen those that it is measured on was not looked at."
        yield verdict.Check(name="Training data", release=release.name, target=target, expected="", outcome="missing",
                            meaning=meaning)  # fmt: skip


def _roles(code: str) -> tuple[str, ...]:
    """Of findings that answer for a code: the same codes stand on controls, too."""
    return {SEEN: ("control",), CERTIFICATE: ("bound",)}.get(code, ("attack", "utility"))


# -- against an earlier audit -----------------------------------------------------------------------------------------

_COMPARED = (*_ATTACKS, *_ATTACKS_BY_AUC, *USES)
"""Figures that are compared: of attacks on labels, and of uses."""
_EARLIER = "no worse than before"


def _no_worse(now: Measured, then: Measured, named: Sequence[str]) -> Iterator[Line]:
    """A line for each figure of the releases that both audits measured on the same people."""
    written, earlier = now.document, then.document
    if not written.data.fingerprint or written.data.fingerprint != earlier.data.fingerprint:
        raise InputError(
            f"against {then.folder}: must be of the same data, but their fingerprints are {written.data.fingerprint!r} "
            f"and {earlier.data.fingerprint!r}"
        )
    for name in named:
        lines = []
        for key in dict.fromkeys([*now.contributions, *then.contributions]):
            release, target, code = key
            if release != name or code not in _COMPARED:
                continue
            made = difference(now, then, key)
            unsaid = made.change is None or made.why
            lines.append(
                Line(
                    requirement=f"{target} {_EARLIER}", release=name, code=code, finding=made.now, change=made.change,
                    why=made.why, outcome="cannot be said" if unsaid else "not met" if made.is_worse else "met",
                )
            )  # fmt: skip
        without = next((each.folder for each in (now, then) if not each.contributions), None)
        why = f"no {contributions.NAME} lies in {without}" if without else "nothing of it was measured both times"
        yield from lines or [Line(requirement=_EARLIER, release=name, outcome="cannot be said", why=why)]
    there = {each.name for each in written.releases}
    for gone in (each.name for each in earlier.releases if each.judged and each.name not in there):
        why = "was audited before, and is not now"
        yield Line(requirement=_EARLIER, release=gone, outcome="cannot be said", why=why)
