"""Lay out an audit as one HTML file that needs no network: the verdict first, then what it rests on."""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import jinja2
import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
from markupsafe import Markup
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from veil.audit.findings import NO_BETTER, Finding
from veil.errors import InputError, printable
from veil.files import written
from veil.foreign import one_line, read_bytes
from veil.parquet import read_curves
from veil.report import (
    AREAS,
    ATTACK,
    CERTIFICATE,
    GAIN,
    LINKAGE,
    METRICS,
    POOLED,
    REPEATED,
    SEEN,
    TRANSFER,
    Document,
    Release,
    certified,
    interval,
    metric,
    number,
    plots,
    read,
    share,
    use_name,
)

PLANE_WIDTHS = (320, 480, 680)
"""The widths in pixels that the plane's labels are placed for; the page takes the widest that fits."""
CURVE_WIDTHS = (320,)
MAP_WIDTHS = (250,)
_MOST_CLASSES = 20
_MOST_LINES = 400  # of training losses of a release
_MOST_PICTURE = 1 << 26  # bytes
_STATUS_WORDS = {"did_not_converge": "did not converge", "not_applicable": "not applicable"}


def write(out: Path) -> Path:
    """Write ``out/report.html`` from ``out/findings.json`` and the pictures and curves that it names.

    Nothing but these files is read, and the same files give the same bytes. A picture or a curve that is missing or
    broken is named in the page. Raises InputError for a missing, broken or foreign ``findings.json``.
    """
    page = render(read(out), out)
    target = out / "report.html"
    try:
        with written(target) as file:
            file.write(page.encode())
    except OSError as error:
        raise InputError(f"{target}: the report cannot be written ({error.strerror})") from None
    return target


def render(document: Document, out: Path) -> str:
    """The page for ``document``; pictures and curves are read from ``out``."""
    figures: dict[str, Figure] = {}
    checks = controls(document)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("veil.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    view = {
        "document": document,
        "title": _title(document),
        "checks": checks,
        "failed": [check for check in checks if check.outcome == "failed"],
        "missing": [check for check in checks if check.outcome == "missing"],
        "lost": [finding for finding in document.findings if finding.status == "did_not_converge"],
        "doubted": _doubted,
        "lucky": _share_of_luck(document, checks),
        "verdicts": verdicts(document, checks),
        "planes": _planes(document, figures),
        "releases": _release_table(document),
        "within": _within_table(document),
        "attackers": _attacker_tables(document, ATTACK),
        "areas": _attacker_tables(document, "attribute.auc"),
        "matchers": _matcher_tables(document),
        "together": _together_table(document),
        "transfer": _transfer_tables(document),
        "inversion": _inversion_tables(document),
        "others": _others(document),
        "pictures": [_picture(out, p.file, p.title, p.caption) for p in document.pictures],
        "curves": _curves(document, out, figures),
        "maps": _maps(document, figures),
        "labels": _label_tables(document),
        "splits": _split_rows(document),
        "certified": any(finding.role == "bound" for finding in document.findings),
        "value": _value,
        "chance": _chance,
        "words": _STATUS_WORDS,
        "configs": [(release, _flat(release.config)) for release in document.releases],
    }
    figures_json = json.dumps(
        {"dark": dict(plots.DARK), "figures": {name: figure.plain() for name, figure in figures.items()}},
        separators=(",", ":"),
        allow_nan=False,
    )
    return environment.get_template("report.html").render(
        **view,
        # "<" is all that could end the script element that holds it.
        figures=Markup(figures_json.replace("<", "\\u003c")),
        plotly=Markup(get_plotlyjs()) if figures else None,
    )


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One plotly figure in the widths that it was laid out for, narrowest first, and its width on paper in pixels."""

    variants: Sequence[tuple[int, go.Figure]]
    paper: int

    def plain(self) -> dict[str, object]:
        """What the page's script reads."""
        return {
            "paper": self.paper,
            "variants": [{"width": width, **json.loads(figure.to_json())} for width, figure in self.variants],
        }


@dataclass(frozen=True, kw_only=True)
class Check:
    """One control of the audit itself.

    ``outcome`` is "passed", "failed", "missing" (it cannot be judged) or "reference" (a figure to compare with);
    ``target`` is the private attribute or the use whose figures rest on it.
    """

    name: str
    release: str
    target: str
    finding: Finding | None
    expected: str
    outcome: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One table cell: ``text`` large, ``small`` under it, ``heat`` in [0, 1] behind it, ``mark`` a word beside it."""

    text: str
    small: str = ""
    heat: float | None = None
    mark: str = ""
    note: int | None = None
    words: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of releases: ``groups`` are (heading, number of columns); each row is a release and its cells."""

    title: str
    groups: Sequence[tuple[str, int]]
    columns: Sequence[str]
    rows: Sequence[tuple[Release, Sequence[Cell]]]
    notes: Sequence[str] = ()


# --- verdicts and controls ---------------------------------------------------------------------------------------


def controls(document: Document) -> list[Check]:
    """Whether the audit can be trusted: releases must not have been fitted on the people that they are measured on, and
    attacks must work on the input and fail on shuffled labels."""
    checks = [_training_check(document, f) for f in document.select(role="control", code=SEEN)]
    checks += [_input_check(document, target, private=True) for target in document.data.private]
    checks += [_input_check(document, target, private=False) for target in document.data.utility]
    for private in document.data.private:
        if not any(_is_shuffled(f) for f in document.select(role="control", target=private)):
            checks.append(
                Check(
                    name="Shuffled labels",
                    release="",
                    target=private,
                    finding=None,
                    expected="interval covers chance",
                    outcome="missing",
                    meaning=f"No attack on shuffled labels of {private} was measured.",
                )
            )
    found = [f for f in document.select(role="control") if f.code != SEEN and not _is_inversion(f)]
    checks += [_shuffled_check(f) for f in found if _is_shuffled(f)] + _references(found)
    return checks + [check for release in document.releases for check in _inversion_checks(document, release)]


def _training_check(document: Document, finding: Finding) -> Check:
    """Nothing that a release is measured on may have been in its training; of vectors from outside nobody can know."""
    outcome, meaning = "passed", ""
    if not finding.ok:
        made_here = any(release.name == finding.release and release.method for release in document.releases)
        outcome = "missing" if made_here else "reference"
        meaning = f"{finding.release}: {finding.note}."
    elif finding.value:
        outcome = "failed"
        meaning = f"{finding.release} is measured on people, or rows, that it was fitted on: {finding.note}."
    return Check(
        name="Training data", release=finding.release, target="any", finding=finding, expected="none seen",
        outcome=outcome, meaning=meaning,
    )  # fmt: skip


def _is_training(check: Check) -> bool:
    return check.finding is not None and check.finding.code == SEEN


def _doubted(checks: Sequence[Check]) -> str:
    """Whose figures rest on these checks."""
    return ", ".join(dict.fromkeys(f"the release {c.release}" if _is_training(c) else c.target for c in checks))


def _is_inversion(finding: Finding) -> bool:
    return finding.code.startswith("inversion.")


def _inversion_checks(document: Document, release: Release) -> list[Check]:
    """A decoder that learned from pairs dealt at random must find people by luck only."""
    dealt = [f for f in document.select(role="control", release=release.name) if _is_inversion(f) and _is_shuffled(f)]
    checks = []
    for f in dealt:
        if f.code == "inversion.rank1" and f.low is not None and f.chance is not None:
            fine = f.low <= f.chance
            meaning = f"The {f.attacker} control on {f.release} finds people ({_figure(f)}): decoders cheat."
            checks.append(
                Check(
                    name=_capitalised(f.attacker), release=f.release, target=metric(f.code).title, finding=f,
                    expected="no better than chance", outcome="passed" if fine else "failed",
                    meaning="" if fine else meaning,
                )
            )  # fmt: skip
    return checks


def _references(found: Sequence[Finding]) -> list[Check]:
    """Controls that are only compared with, such as the majority class; one row where releases agree."""
    alike: dict[tuple[object, ...], list[Finding]] = {}
    for f in found:
        if not _is_shuffled(f):
            alike.setdefault((f.attacker, f.code, f.target, f.value, f.low, f.high, f.status), []).append(f)
    return [
        Check(
            name=_capitalised(same[0].attacker),
            target=same[0].target,
            finding=same[0],
            expected="for comparison",
            release=_listed([f.release for f in same]) if len(same) < 3 else f"{len(same)} releases",
            outcome="reference",
            meaning="",
        )
        for same in alike.values()
    ]


def _is_shuffled(finding: Finding) -> bool:
    return finding.attacker.lower().startswith("shuffled")


def _input_check(document: Document, target: str, *, private: bool) -> Check:
    source = document.input
    name = "Attack on the unprotected input" if private else "Use of the unprotected input"
    found = None
    if source is not None:
        found = document.attack(source.name, target) if private else document.use(source.name, target)
    what = f"the attack on {target}" if private else use_name(target).lower()
    if source is None:
        outcome, meaning = "missing", f"The unprotected input was not audited, so nothing shows that {what} can work."
    elif found is None:
        outcome, meaning = "missing", f"On the unprotected input {what} has no figure."
    elif (found.low or 0.0) > (found.chance or 0.0):
        outcome, meaning = "passed", ""
    else:
        outcome, meaning = "failed", f"On the unprotected input {what} is not above chance ({_figure(found)})."
    return Check(
        name=name,
        release="" if source is None else source.name,
        target=target,
        finding=found,
        expected="interval above chance",
        outcome=outcome,
        meaning=meaning,
    )


def _shuffled_check(finding: Finding) -> Check:
    where = f"The {finding.attacker} control for {finding.target}" + (f" on {finding.release}" * bool(finding.release))
    if not finding.ok:
        outcome, meaning = "missing", f"{where} has no figure ({finding.note})."
    elif (finding.low or 0.0) <= (finding.chance or 0.0) <= (finding.high or 0.0):
        outcome, meaning = "passed", ""
    else:
        outcome, meaning = "failed", f"{where} is off chance ({_figure(finding)}), though nothing is there to learn."
    return Check(
        name=_capitalised(finding.attacker),
        release=finding.release,
        target=finding.target,
        finding=finding,
        expected="interval covers chance",
        outcome=outcome,
        meaning=meaning,
    )


def _share_of_luck(document: Document, checks: Sequence[Check]) -> str:
    """How often a shuffled-label control fails by luck alone; "" unless one of several did."""
    shuffled = [c for c in checks if c.finding is not None and _is_shuffled(c.finding) and c.outcome != "missing"]
    failed = [c for c in shuffled if c.outcome == "failed"]
    if not failed or len(shuffled) < 2 or failed[0].finding is None:
        return ""
    level = failed[0].finding.level
    return (
        f"{len(failed)} of {len(shuffled)} shuffled-label controls failed; of intervals at {share(level)}, about "
        f"{share(1 - level)} miss by luck, more where people are few. Audit again with another seed to tell luck from "
        "a fault."
    )


def verdicts(document: Document, checks: Sequence[Check]) -> list[tuple[Release, list[Markup]]]:
    """For each release that was asked for its sentences: one per private attribute, then one per use."""
    failed = [check for check in checks if check.outcome == "failed"]
    broken = {check.target for check in failed if not _is_training(check)}
    knows = {check.release: check for check in checks if _is_training(check) and check.outcome in ("failed", "missing")}
    cheated = {check.release for check in failed if check.finding is not None and _is_inversion(check.finding)}
    found = []
    for release in document.releases:
        if release.judged:
            known = knows.get(release.name)
            seen = known is not None and known.outcome == "failed"
            sentences = [] if known is None else [_training_sentence(known)]
            sentences += [
                _attack_sentence(document, release, private, seen or private in broken)
                for private in document.data.private
            ]
            redrawn = _inversion_sentence(document, release, seen or release.name in cheated)
            sentences += [redrawn] if redrawn is not None else []
            sentences += [_use_sentence(document, release, use, seen or use in broken) for use in document.data.utility]
            found.append((release, sentences))
    return found


def _training_sentence(check: Check) -> Markup:
    """What a release knows of those that it is measured on, where that is something, or not known."""
    assert check.finding is not None
    note = check.finding.note
    if check.outcome == "failed":
        return Markup('<em class="distrust">{}.</em>').format(note)
    return Markup("{}.").format(note)


def _limit(bound: Finding) -> float:
    """What a certificate certifies: the upper end of its interval."""
    return certified(bound.high or 0.0)


def _attack_sentence(document: Document, release: Release, private: str, broken: bool) -> Markup:
    worst = document.attack(release.name, private)
    tried = document.select(role="attack", release=release.name, target=private, code=ATTACK)
    if worst is None:
        why = "every attacker failed to converge or does not apply" if tried else "no attacker was tried"
        return Markup("no attack on {} gave a figure ({}), so nothing is known.").format(private, why)
    sentence = Markup("the worst tested attack on {} ({}) reaches {} {}").format(
        private, worst.attacker, _amount(worst), _qualified(document, worst, True)
    )
    source = document.input
    before = None if source is None else document.attack(source.name, private, worst.code)
    if before is not None:
        who = "it" if before.attacker == worst.attacker else f"the worst ({before.attacker})"
        unit = "" if before.code == worst.code else f" {metric(before.code).title}"
        sentence += Markup("; on the unprotected input {} reaches {}{}").format(
            who, number(before.code, before.value), unit
        )
    sentence += Markup(".")
    if worst.code != ATTACK:
        sentence += Markup(
            " At its threshold it names one class for everybody: a balanced accuracy would tell nothing of what it "
            "knows."
        )
    bound = document.bound(release.name, private)
    if bound is not None:
        sentence += Markup(
            " Certified: from one release of a person, no attacker of any kind exceeds <strong>{}</strong> on fresh "
            "data of the same population ({} confidence)."
        ).format(number(ATTACK, _limit(bound)), share(bound.level))
    alike = document.select(role="attack", release=release.name, target=private, code=worst.code)
    higher = [f for f in alike if f.ok and (f.value or 0.0) > (worst.value or 0.0)]
    if higher:
        top = max(higher, key=lambda f: f.value or 0.0)
        sentence += Markup(" On the test data another attacker measures higher still ({}, {}).").format(
            top.attacker, number(top.code, top.value)
        )
    lost = [f for f in tried if f.status == "did_not_converge"]
    if lost:
        sentence += Markup(" {} did not converge: what they would find is not known.").format(
            _listed([f.attacker for f in lost])
        )
    for code, of in _MEANS.items():
        figure, single = document.attack(release.name, private, code), worst
        if figure is not None and (figure.code, worst.code) != (code, ATTACK):  # like is compared with like
            figure = document.attack(release.name, private, AREAS[code])
            single = document.attack(release.name, private, AREAS[ATTACK]) or worst
        if figure is not None and (figure.value or 0.0) > (single.value or 0.0):
            amount = _amount(figure) if figure.code != code else number(figure.code, figure.value)
            sentence += Markup(" From the mean {} an attack ({}) reaches {} {}.").format(
                of, figure.attacker, amount, _qualified(document, figure, True)
            )
    return sentence + _distrust(broken)


def _amount(finding: Finding) -> Markup:
    """A figure with its unit, in words that follow a verb: "61.2 % balanced accuracy", "an AUC of .914"."""
    names = metric(finding.code)
    value = Markup("<strong>{}</strong>").format(number(finding.code, finding.value))
    return (Markup("{} {}") if names.style == "percent" else Markup("an {1} of {0}")).format(value, names.title)


_MEANS = {
    POOLED: "of several releases of one person",
    REPEATED: "of the releases of 32 near-duplicates of one input",
}
"""Attacks on means of releases, and what those are of."""


def _inversion_sentence(document: Document, release: Release, broken: bool) -> Markup | None:
    """What the worst decoder redraws; None where no inversion was tried."""
    tried = [f for f in document.select(role="attack", release=release.name) if _is_inversion(f)]
    worst = document.inversion(release.name)
    if worst is None:
        return Markup("attacks by inversion gave no figure, so nothing is known of them.") if tried else None
    sentence = Markup("the worst tested decoder ({}) redraws the original with a {} of <strong>{}</strong>").format(
        worst.attacker, metric(worst.code).title, number(worst.code, worst.value)
    )
    if worst.chance is not None and worst.low is not None:
        better = "; it does not clearly better" if worst.note.startswith(NO_BETTER) else ""
        sentence += Markup(" (without releases: {}{})").format(number(worst.code, worst.chance), better)
    found = document.attack(release.name, "identity", "inversion.rank1")
    if found is not None:
        sentence += Markup("; from that picture the person is found first in {} {}").format(
            number(found.code, found.value), _qualified(document, found, True)
        )
    return sentence + Markup(".") + _distrust(broken)


def _use_sentence(document: Document, release: Release, use: str, broken: bool) -> Markup:
    kept = document.use(release.name, use)
    if kept is None:
        return Markup("{} has no figure.").format(use_name(use))
    sentence = Markup("{} keeps {} {}").format(use_name(use), _amount(kept), _qualified(document, kept, False))
    source = document.input
    before = None if source is None else document.use(source.name, use, kept.code)
    if before is not None:
        sentence += Markup(", input\u00a0{}").format(number(before.code, before.value))
    return sentence + Markup(".") + _distrust(broken)


def _distrust(broken: bool) -> Markup:
    return Markup(' <em class="distrust">A control failed: this figure means nothing.</em>') if broken else Markup("")


def _qualified(document: Document, finding: Finding, with_chance: bool) -> Markup:
    both = interval(finding.code, finding.low, finding.high)
    # A line must not break inside a range: half of it would read as another figure.
    words = Markup('{} interval <span class="range">{}</span>').format(share(finding.level), both)
    rows = ", each row a person" if document.data.identities is None else ""
    chance = f"; chance {_chance(finding)}" if with_chance else ""
    return Markup("({}{}{})").format(words, rows, chance)


def _chance(finding: Finding) -> str:
    """Its chance in the style of the figure, per cent without needless decimals; "" where it has none."""
    if finding.chance is None:
        return ""
    return share(finding.chance) if metric(finding.code).style == "percent" else number(finding.code, finding.chance)


def _figure(finding: Finding) -> str:
    both = interval(finding.code, finding.low, finding.high)
    return f"{number(finding.code, finding.value)}, interval {both}, chance {_chance(finding)}"


def _title(document: Document) -> str:
    judged = [release for release in document.releases if release.judged]
    redrawn = any(_is_inversion(f) for f in document.findings)
    names = _listed(document.data.private) or ("the picture itself" if redrawn else "no private attribute")
    if not judged:
        return f"Audit of unprotected data: what it tells of {names}"
    protected = "" if any(release.role == "baseline" for release in judged) else "protected "
    return f"Audit of {len(judged)} {protected}release{'s' * (len(judged) != 1)}: hiding {names}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


# --- tables ------------------------------------------------------------------------------------------------------


def _value(finding: Finding | None, absent: str = "not measured", code: str = "") -> Cell:
    """The figure; in a column of another ``code`` with its name."""
    if finding is None:
        return Cell(text=absent, words=True)
    exact = finding.low == finding.high  # a count, say: a range would promise that it was estimated
    small = "" if exact else interval(finding.code, finding.low, finding.high)
    return Cell(text=_named(finding, finding.value, code), small=small)


def _named(finding: Finding, value: float | None, code: str) -> str:
    """A value of a finding, with its name where it stands in a column of another ``code``."""
    name = f" {metric(finding.code).title}" if code and finding.code != code else ""
    return number(finding.code, value) + name


def _use_cell(document: Document, release: Release, target: str, code: str) -> Cell:
    tried = document.select(role="utility", release=release.name, target=target, code=code)
    found = document.use(release.name, target, code)
    return _value(None if found is None or found.code != code else found, _why_absent(tried))


def _why_absent(tried: Sequence[Finding]) -> str:
    """What stands where no attempt gave a figure."""
    return _STATUS_WORDS.get(tried[0].status, "not measured") if tried else "not measured"


def _release_table(document: Document) -> Table:
    privates, uses = document.data.private, document.data.utility
    certified = {p for p in privates if any(document.bound(r.name, p) is not None for r in document.releases)}
    use_codes = {use: _use_codes(document, use) for use in uses}
    groups, columns = [], []
    for private in privates:
        own = ["Worst attack", "Upper bound", "Normalised gain"] + ["Certified bound"] * (private in certified)
        groups.append((private, len(own)))
        columns += own
    for use, codes in use_codes.items():
        if codes:
            groups.append((use_name(use), len(codes)))
            columns += [metric(code).short for code in codes]
    rows = []
    for release in document.releases:
        cells = []
        for private in privates:
            worst = document.attack(release.name, private)
            heat = None if worst is None else _heat(worst)
            cells.append(
                Cell(text="no figure", words=True)
                if worst is None
                else Cell(text=_named(worst, worst.value, ATTACK), small=worst.attacker, heat=heat)
            )
            high = "not measured" if worst is None else _named(worst, worst.high, ATTACK)
            cells.append(Cell(text=high, words=worst is None))
            if release.role == "input":
                cells.append(Cell(text="reference", words=True))
            else:
                gain = document.attack(release.name, private, GAIN)
                tried = document.select(role="attack", release=release.name, target=private, code=GAIN)
                cells.append(_value(gain, _why_absent(tried)))
            if private in certified:
                bound = document.bound(release.name, private)
                limit = "none" if bound is None else number(ATTACK, _limit(bound))
                cells.append(Cell(text=limit, words=bound is None))
        for use, codes in use_codes.items():
            cells += [_use_cell(document, release, use, code) for code in codes]
        rows.append((release, cells))
    return Table(title="", groups=groups, columns=columns, rows=rows)


def _use_codes(document: Document, target: str) -> list[str]:
    there = {f.code for f in document.select(role="utility", target=target)}
    return [code for code in METRICS if code in there]


def _within_table(document: Document) -> Table | None:
    """The uses measured within one group, such as matching within one gender."""
    targets = dict.fromkeys(f.target for f in document.select(role="utility") if "|" in f.target)
    columns = [(target, code) for target in targets for code in _use_codes(document, target)]
    if not columns:
        return None
    rows = [
        (release, [_use_cell(document, release, target, code) for target, code in columns])
        for release in document.releases
    ]
    groups = [(use_name(target), len(_use_codes(document, target))) for target in targets]
    return Table(title="", groups=groups, columns=[metric(code).short for _, code in columns], rows=rows)


def _together_table(document: Document) -> Table | None:
    """What a release gives away together with others of the same person, or with the originals.

    What does not apply to any release has no column: it is among the further figures, with the reason.
    """
    found = [f for f in document.select(role="attack") if f.status != "not_applicable"]
    means = {p: [c for c in _MEANS if any((f.code, f.target) == (c, p) for f in found)] for p in document.data.private}
    codes = [code for code in LINKAGE if any(f.code == code for f in found)]
    columns = [(code, target) for target, tried in means.items() for code in tried]
    columns += [(code, "identity") for code in codes]
    if not columns:
        return None
    rows = []
    for release in document.releases:
        cells = []
        for code, target in columns:
            figure = document.attack(release.name, target, code)
            tried = document.select(role="attack", release=release.name, target=target, code=code)
            itself = release.role == "input" and code in LINKAGE and not tried
            cell = _value(figure, "the originals" if itself else _why_absent(tried), code)
            cells.append(replace(cell, heat=None if figure is None else _heat(figure)))
        rows.append((release, cells))
    groups = [(f"Attack on {target}", len(tried)) for target, tried in means.items()]
    groups += [("People and records found again", len(codes))]
    return Table(
        title="", groups=[g for g in groups if g[1]], columns=[metric(code).short for code, _ in columns], rows=rows
    )


_LOOKS = ("verification.transfer_auc", "verification.mixed_auc", "utility.ssim", "utility.psnr")


def _transfer_tables(document: Document) -> tuple[Table, list[Table]] | None:
    """Classifiers that know only originals beside those that know releases, matching and looks; then each by itself."""
    private = [p for p in document.data.private if document.select(role="attack", target=p, code=TRANSFER)]
    codes = [code for code in _LOOKS if any(f.code == code for f in document.findings)]
    if not private and not codes:
        return None
    rows = []
    for release in document.releases:
        own = [f for f in document.of(release.name) if f.code in (TRANSFER, *_LOOKS)]
        if not own:
            continue
        cells = []
        for target in private:
            for code in (TRANSFER, ATTACK):
                worst = document.attack(release.name, target, code)
                tried = document.select(role="attack", release=release.name, target=target, code=code)
                cell = _value(worst, _why_absent(tried), code)
                cells.append(cell if worst is None else replace(cell, small=worst.attacker))
        for code in codes:
            tried = [f for f in own if f.code == code]
            picked = next((f for f in tried if f.worst and f.ok), None)
            cells.append(_value(picked, _why_absent(tried) if tried else "itself"))
        rows.append((release, cells))
    matching = sum(code.startswith("verification.") for code in codes)
    groups = [(f"Worst attack on {target}", 2) for target in private]
    names = dict.fromkeys(f.attacker for f in document.findings if f.code in codes[:matching] and f.worst)
    groups += [(f"Matching by {', '.join(names) or 'no matcher'}", matching), ("Looks", len(codes) - matching)]
    heads = ["Knows only originals", "Trained on releases"] * len(private) + [metric(code).short for code in codes]
    summary = Table(title="", groups=[g for g in groups if g[1]], columns=heads, rows=rows)
    every = [
        (code, target, f"Reading {target}: {metric(code).title}")
        for target in private
        for code in (TRANSFER, AREAS[TRANSFER])
    ]
    every += [(code, "identity", f"Matching: {metric(code).short}") for code in codes[:matching]]
    tables = []
    for code, target, title in every:
        found = [f for f in document.findings if (f.code, f.target) == (code, target)]
        table = _by_attacker(document, found, heat=code in (TRANSFER, AREAS[TRANSFER]))
        if table is not None and len(table.columns) > 1:
            shown = {f.release for f in found}
            tables.append(replace(table, title=title, rows=[row for row in table.rows if row[0].name in shown]))
    return summary, tables


def _inversion_tables(document: Document) -> tuple[Table, list[Table]] | None:
    """The worst decoder of every release by every figure; then all decoders and controls, a figure at a time."""
    found = [f for f in document.findings if _is_inversion(f)]
    codes = [code for code in METRICS if any(f.code == code for f in found)]
    if not codes:
        return None
    target = {f.code: f.target for f in found}
    rows = []
    for release in document.releases:
        cells = []
        for code in codes:
            worst = document.attack(release.name, target[code], code)
            cell = _value(worst, _why_absent(document.select(role="attack", release=release.name, code=code)))
            small = "" if worst is None else interval(code, worst.low, worst.high)
            cells.append(replace(cell, small=small))
        rows.append((release, cells))
    rows.append((replace(document.releases[0], name="without releases", role="control"), _chances(found, codes)))
    summary = Table(title="", groups=(), columns=[metric(code).short for code in codes], rows=rows)
    every = [
        replace(table, title=metric(code).short)
        for code in codes
        if (table := _by_attacker(document, [f for f in found if f.code == code], heat=True)) is not None
        and len(table.columns) > 1
    ]
    return summary, every


def _chances(found: Sequence[Finding], codes: Sequence[str]) -> list[Cell]:
    """What somebody gets who sees no release; from where to where, for decoders of each release have their own."""
    cells = []
    for code in codes:
        known = [f.chance for f in found if f.code == code and f.chance is not None]
        ends = dict.fromkeys(number(code, end) for end in (min(known), max(known))) if known else [number(code, None)]
        cells.append(Cell(text=" \N{EN DASH} ".join(ends), words=not known))
    return cells


def _attacker_tables(document: Document, code: str) -> list[Table]:
    """One table of all attackers on all releases per private attribute."""
    found = []
    for private in document.data.private:
        table = _by_attacker(document, document.select(role="attack", target=private, code=code), heat=True)
        if table is not None:
            sizes = {f.n for f in document.select(role="attack", target=private, code=code) if f.ok}
            # Releases may differ in size where a stranger's files leave rows out: then no one number is true.
            n = f" (n = {sizes.pop():,})" if len(sizes) == 1 else ""
            found.append(replace(table, title=f"Attacks on {private}: {metric(code).title}{n}"))
    return found


def _matcher_tables(document: Document) -> list[Table]:
    """One table per use that several matchers or probes were tried for."""
    found = []
    for use in document.data.utility:
        code = document.primary_use(use)
        if code is not None:
            table = _by_attacker(document, document.select(role="utility", target=use, code=code), heat=False)
            if table is not None and len(table.columns) > 1:
                found.append(replace(table, title=f"{use_name(use)}: {metric(code).title} by matcher or probe"))
    return found


def _by_attacker(document: Document, findings: Sequence[Finding], *, heat: bool) -> Table | None:
    attackers = list(dict.fromkeys(f.attacker for f in findings))
    if not attackers:
        return None
    notes: list[str] = []
    rows = []
    by_release: dict[str, dict[str, Finding]] = {}
    for f in findings:
        by_release.setdefault(f.release, {})[f.attacker] = f
    for release in document.releases:
        own = by_release.get(release.name, {})
        worst = None
        if own:
            first = next(iter(own.values()))
            worst = (document.attack if heat else document.use)(release.name, first.target, first.code)
        rows.append((release, [_attack_cell(own.get(a), worst, heat, notes) for a in attackers]))
    return Table(title="", groups=(), columns=attackers, rows=rows, notes=notes)


def _attack_cell(finding: Finding | None, worst: Finding | None, heat: bool, notes: list[str]) -> Cell:
    if finding is None:
        return Cell(text="not tried", words=True)
    note = None
    if finding.note:
        if finding.note not in notes:
            notes.append(finding.note)
        note = notes.index(finding.note) + 1
    mark = ("worst" if heat else "picked") if finding is worst or (finding.worst and not finding.ok) else ""
    if not finding.ok:
        return Cell(text=_STATUS_WORDS[finding.status], words=True, note=note, mark=mark)
    return Cell(
        text=number(finding.code, finding.value),
        small=interval(finding.code, finding.low, finding.high),
        heat=_heat(finding) if heat else None,
        note=note,
        mark=mark,
    )


def _heat(finding: Finding) -> float | None:
    """How far from chance to certainty, in [0, 1]; the same scale in every table, so shades can be compared."""
    if finding.value is None or finding.chance is None:
        return None
    certainty = 0.0 if metric(finding.code).low_is_good else 1.0
    if finding.chance == certainty or metric(finding.code).style == "plain":
        return None
    return round(min(max((finding.value - finding.chance) / (certainty - finding.chance), 0.0), 1.0), 2)


def _others(document: Document) -> list[tuple[Finding, Cell]]:
    """The findings that no other table shows, so that no figure is lost."""
    shown = {ATTACK, GAIN, AREAS[ATTACK], TRANSFER, AREAS[TRANSFER]}

    def elsewhere(f: Finding) -> bool:
        if f.role == "attack":
            # Pools have an attacker or two, of which the picked one is shown.
            if f.code in shown:
                return f.target in document.data.private
            return _is_inversion(f) or (f.ok and f.worst and f.code in (*_MEANS, *LINKAGE))
        if f.role == "utility":
            return f.code in _LOOKS or f.target in document.data.utility or "|" in f.target
        return f.role == "control" or (f.code == CERTIFICATE and f.ok and f.target in document.data.private)

    return [
        (
            f,
            Cell(text=number(f.code, f.value), small=interval(f.code, f.low, f.high))
            if f.ok
            else Cell(text=_STATUS_WORDS[f.status], words=True),
        )
        for f in document.findings
        if not elsewhere(f)
    ]


def _label_tables(document: Document) -> list[tuple[str, str, list[str], list[tuple[str, list[str]]]]]:
    """For each label: name, a remark, the splits, and the rows (class, count in each split)."""
    found: list[tuple[str, str, list[str], list[tuple[str, list[str]]]]] = []
    for name, label in document.data.labels.items():
        splits = list(label.counts)
        if len(label.classes) > _MOST_CLASSES:
            found.append((name, f"{len(label.classes):,} classes", splits, []))
            continue
        rows = [
            (word, [f"{counts[i]:,}" if i < len(counts) else "" for counts in label.counts.values()])
            for i, word in enumerate(label.classes)
        ]
        found.append((name, "", splits, rows))
    return found


def _split_rows(document: Document) -> tuple[list[str], list[tuple[str, list[str]]]]:
    keys = list(dict.fromkeys(key for sizes in document.data.splits.values() for key in sizes))
    rows = [
        (name, [f"{sizes[key]:,}" if key in sizes else "" for key in keys])
        for name, sizes in document.data.splits.items()
    ]
    return ["rows" if key == "n" else key for key in keys], rows


def _flat(config: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """A configuration as (dotted name, JSON value) rows."""
    rows = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return rows


# --- figures and pictures ----------------------------------------------------------------------------------------


def _planes(document: Document, figures: dict[str, Figure]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for private in document.data.private:
        for use in document.data.utility:
            missing = plots.missing_on_plane(document, private, use)
            name = f"plane-{len(found) + 1}" if len(missing) < len(document.releases) else ""
            if name:
                variants = [(width, plots.plane(document, private, use, width=width)) for width in PLANE_WIDTHS]
                figures[name] = Figure(variants=variants, paper=PLANE_WIDTHS[-1])
            found.append({"id": name, "private": private, "use": use_name(use), "missing": _listed(missing)})
    return found


def _curves(document: Document, out: Path, figures: dict[str, Figure]) -> list[dict[str, object]]:
    """Per release its stages' figures, or the reason why there are none."""
    read_back: list[tuple[str, dict[str, list[plots.Line]], str]] = []
    for entry in document.curves:
        try:
            read_back.append((entry.release, _read_curves(_inside(out, entry.file)), ""))
        except InputError as error:
            read_back.append((entry.release, {}, printable(f"{entry.file}: {error}")))
    players = [line.player for _, stages, _ in read_back for lines in stages.values() for line in lines]
    colours = plots.player_colours(players)
    found: list[dict[str, object]] = []
    count = 0
    for release, stages, fault in read_back:
        panels = []
        for stage, lines in stages.items():
            count += 1
            name = f"curve-{count}"
            drawn = [(width, plots.losses(lines, colours=colours, width=width)) for width in CURVE_WIDTHS]
            figures[name] = Figure(variants=drawn, paper=CURVE_WIDTHS[0])
            panels.append({"id": name, "stage": stage})
        found.append({"release": release, "panels": panels, "fault": fault})
    return found


def _maps(document: Document, figures: dict[str, Figure]) -> list[dict[str, str]]:
    """Where people lie among each release, as figures."""
    found = []
    for i, one in enumerate(document.maps, 1):
        name = f"map-{i}"
        figures[name] = Figure(
            variants=[(w, plots.people(one.x, one.y, one.person, width=w)) for w in MAP_WIDTHS], paper=MAP_WIDTHS[0]
        )
        found.append({"id": name, "release": one.release})
    return found


def _read_curves(path: Path) -> dict[str, list[plots.Line]]:
    """Training losses by stage, thinned; stages and players in the order in which they first appear."""
    if not path.exists():
        raise InputError("there is no such file")
    try:
        table = read_curves(path)
    except InputError as error:  # which names its folders
        said = str(error).removeprefix(f"{path}: ")
        raise InputError(f"is not a table of step, stage, player and loss ({said})") from None
    steps, values = (np.asarray(table[name].to_numpy(), np.float64) for name in ("step", "loss"))
    stages, players = (_words(table[name].combine_chunks()) for name in ("stage", "player"))
    if len(set(stages)) * len(set(players)) > _MOST_LINES:
        raise InputError(f"has {len(set(stages)):,} stages of {len(set(players)):,} players, too many to draw")
    finite = np.isfinite(steps) & np.isfinite(values)
    found: dict[str, list[plots.Line]] = {}
    for stage in dict.fromkeys(stages):
        for player in dict.fromkeys(players[stages == stage]):
            rows = np.flatnonzero((stages == stage) & (players == player) & finite)
            rows = rows[np.argsort(steps[rows], kind="stable")]
            if len(rows):
                line = plots.Line(player=str(player), steps=steps[rows], values=values[rows])
                found.setdefault(str(stage), []).append(plots.thinned(line))
    if not found:
        raise InputError("holds no finite loss")
    return found


def _words(column: pa.DictionaryArray) -> NDArray[np.object_]:
    """A column of texts ``(n,)`` as they may be shown; "" where there is none."""
    words = np.array([*(printable(text or "") for text in column.dictionary.to_pylist()), ""], object)
    found: NDArray[np.object_] = words[column.indices.fill_null(len(words) - 1).to_numpy(zero_copy_only=False)]
    return found


def _picture(out: Path, file: str, title: str, caption: str) -> dict[str, object]:
    view: dict[str, object] = {"title": title, "caption": caption, "fault": "", "uri": ""}
    path = Path(file)
    try:
        path = _inside(out, file)
        data = read_bytes(path, _MOST_PICTURE)
        # A PNG begins with its signature; its first chunk is IHDR: width and height in pixels, big-endian.
        if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
            raise InputError("is not a PNG picture")
        width, height = struct.unpack(">II", data[16:24])
    except FileNotFoundError:
        view["fault"] = printable(f"{file}: there is no such file")
    except (InputError, OSError, struct.error) as error:
        view["fault"] = printable(f"{file}: {one_line(error).removeprefix(f'{path}: ')}")
    else:
        zoom = 2 if width <= 280 else 1  # a strip of thumbnails is too small to judge at its own size
        uri = "data:image/png;base64," + base64.b64encode(data).decode()
        view |= {"uri": uri, "width": width * zoom, "height": height * zoom, "zoomed": zoom > 1}
    return view


def _inside(out: Path, file: str) -> Path:
    """The path of a file named in the findings; InputError where it would lead out of ``out``."""
    name = PurePosixPath(file)
    path = Path(os.path.realpath(out / name))  # which raises nothing for links that run in a loop
    if name.is_absolute() or not path.is_relative_to(os.path.realpath(out)):
        raise InputError("lies outside the report's folder and was not read")
    return path


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
