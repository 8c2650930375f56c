"""The report's tables: their cells, as the page writes them, from findings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from veil.findings import CODES, Finding
from veil.findings.codes import (
    ATTACK,
    BIOMETRIC,
    BY_GROUP,
    CERTIFICATE,
    CROSSED,
    GAIN,
    LINKAGE,
    LOOKS,
    PIC,
    SUPPRESSION,
    TRANSFER,
)
from veil.report.document import Document, Release
from veil.report.words import FURTHER, STATUS_WORDS, interval, limit, number, use_name

_TRANSFERS = (TRANSFER, CODES[TRANSFER].stand_in)
_MOST_CLASSES = 20


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One table cell.

    Attributes:
        text: What stands in it.
        small: What stands under that.
        heat: The shade behind it, in [0, 1].
        mark: A word beside the text.
        note: The number of a note below the table.
        words: Whether the text is no figure.
    """

    text: str
    small: str = ""
    heat: float | None = None
    mark: str = ""
    note: int | None = None
    words: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of releases: ``groups`` are (heading, number of columns); each row is a release and its cells."""

    title: str = ""
    groups: Sequence[tuple[str, int]] = ()
    columns: Sequence[str]
    rows: Sequence[tuple[Release, Sequence[Cell]]]
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Counts:
    """A table of numbers of rows: each row is its head and a number for each column.

    ``remark`` stands where there are too many rows to print.
    """

    title: str = ""
    remark: str = ""
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


# -- cells ------------------------------------------------------------------------------------------------------------


def value_cell(finding: Finding | None, absent: str = "not measured", code: str = "") -> Cell:
    """The figure and its interval; in a column of another ``code`` with its name."""
    if finding is None:
        return Cell(text=absent, words=True)
    exact = finding.low == finding.high  # a count, say: a range would promise that it was estimated
    small = "" if exact else interval(finding.code, finding.low, finding.high)
    return Cell(text=_named(finding, finding.value, code), small=small)


def _named(finding: Finding, value: float | None, code: str) -> str:
    """A value of a finding, with its name where it stands in a column of another ``code``."""
    name = f" {CODES[finding.code].title}" if code and finding.code != code else ""
    return number(finding.code, value) + name


def _attack_cell(document: Document, release: Release, target: str, code: str) -> Cell:
    """The worst attack by a figure, or why there is none."""
    tried = document.select(role="attack", release=release.name, target=target, code=code)
    return value_cell(document.attack(release.name, target, code), why_absent(tried), code)


def use_cell(document: Document, release: Release, target: str, code: str) -> Cell:
    """A figure of a use, or why there is none."""
    tried = document.select(role="utility", release=release.name, target=target, code=code)
    figure = document.use(release.name, target, code)
    return value_cell(None if figure is None or figure.code != code else figure, why_absent(tried))


def why_absent(tried: Sequence[Finding]) -> str:
    """What stands where no attempt gave a figure."""
    return STATUS_WORDS.get(tried[0].status, "not measured") if tried else "not measured"


def _heat(finding: Finding | None) -> float | None:
    """How far from chance to certainty, in [0, 1]; the same scale in every table, so shades can be compared."""
    if finding is None or finding.value is None or finding.chance is None:
        return None
    code = CODES[finding.code]
    certainty = 0.0 if code.lower_tells_more else 1.0
    if finding.chance == certainty or code.style == "plain":
        return None
    return round(min(max((finding.value - finding.chance) / (certainty - finding.chance), 0.0), 1.0), 2)


# -- every release ----------------------------------------------------------------------------------------------------


def release_table(document: Document) -> Table:
    """The worst attack on every private attribute, and every use."""
    privates = document.data.private
    bounded = [p for p in privates if any(document.bound(r.name, p) is not None for r in document.releases)]
    codes = {use: _use_codes(document, use) for use in document.data.utility}
    groups, columns = [], []
    for private in privates:
        heads = ["Worst attack", "Upper bound", "Normalised gain"] + ["Certified bound"] * (private in bounded)
        groups.append((private, len(heads)))
        columns += heads
    for use in codes:
        if codes[use]:
            groups.append((use_name(use), len(codes[use])))
            columns += [CODES[code].heading for code in codes[use]]
    rows = []
    for release in document.releases:
        cells = []
        for private in privates:
            cells += _private_cells(document, release, private)
            if private in bounded:
                bound = document.bound(release.name, private)
                certified = "none" if bound is None else number(ATTACK, limit(bound))
                cells.append(Cell(text=certified, words=bound is None))
        cells += [use_cell(document, release, use, code) for use in codes for code in codes[use]]
        rows.append((release, cells))
    return Table(groups=groups, columns=columns, rows=rows)


def _private_cells(document: Document, release: Release, private: str) -> list[Cell]:
    """The worst attack, its upper bound and the gain that is left."""
    worst = document.attack(release.name, private)
    if worst is None:
        cells = [Cell(text="no figure", words=True), Cell(text="not measured", words=True)]
    else:
        cells = [
            Cell(text=_named(worst, worst.value, ATTACK), small=worst.attacker, heat=_heat(worst)),
            Cell(text=_named(worst, worst.high, ATTACK)),
        ]
    if release.role == "input":
        return [*cells, Cell(text="reference", words=True)]
    gain = document.attack(release.name, private, GAIN)
    tried = document.select(role="attack", release=release.name, target=private, code=GAIN)
    return [*cells, value_cell(gain, why_absent(tried))]


def _use_codes(document: Document, target: str) -> list[str]:
    measured = {f.code for f in document.select(role="utility", target=target)}
    return [code for code in CODES if code in measured and code not in (*BIOMETRIC, *BY_GROUP)]


def within_table(document: Document) -> Table | None:
    """The uses measured within one group, such as matching within one gender."""
    targets = dict.fromkeys(f.target for f in document.select(role="utility") if "|same " in f.target)
    columns = [(target, code) for target in targets for code in _use_codes(document, target)]
    if not columns:
        return None
    rows = [
        (release, [use_cell(document, release, target, code) for target, code in columns])
        for release in document.releases
    ]
    groups = [(use_name(target), len(_use_codes(document, target))) for target in targets]
    return Table(groups=groups, columns=[CODES[code].heading for _, code in columns], rows=rows)


def together_table(document: Document) -> Table | None:
    """What a release gives away together with others of the same person, or with the originals.

    What does not apply to any release has no column: it is among the further figures, with the reason.
    """
    applied = {(f.code, f.target) for f in document.select(role="attack") if f.status != "not_applicable"}
    means = {private: [code for code in FURTHER if (code, private) in applied] for private in document.data.private}
    linkage = [code for code in LINKAGE if code in {measured for measured, _ in applied}]
    columns = [(code, target) for target in means for code in means[target]]
    columns += [(code, "identity") for code in linkage]
    if not columns:
        return None
    rows = []
    for release in document.releases:
        cells = []
        for code, target in columns:
            cell = _attack_cell(document, release, target, code)
            tried = document.select(role="attack", release=release.name, target=target, code=code)
            if release.role == "input" and code in LINKAGE and not tried:
                cell = value_cell(None, "the originals")
            cells.append(replace(cell, heat=_heat(document.attack(release.name, target, code))))
        rows.append((release, cells))
    groups = [(f"Attack on {target}", len(means[target])) for target in means]
    groups.append(("People and records found again", len(linkage)))
    heads = [CODES[code].heading for code, _ in columns]
    return Table(groups=[group for group in groups if group[1]], columns=heads, rows=rows)


def crossed_table(document: Document) -> Table | None:
    """What releases made under two keys tell of each other; None where none has a key."""
    rows = []
    for release in document.releases:
        attacks = {code: document.attack(release.name, "identity", code) for code in CROSSED}
        if any(f is not None and f.ok for f in attacks.values()):
            cells = [_attack_cell(document, release, "identity", code) for code in CROSSED]
            rows.append(
                (release, [replace(c, heat=_heat(attacks[code])) for c, code in zip(cells, CROSSED, strict=True)])
            )
    heads = [CODES[code].heading for code in CROSSED]
    return Table(groups=[("Releases under two keys", len(CROSSED))], columns=heads, rows=rows) if rows else None


# -- systems that know only originals ---------------------------------------------------------------------------------


def transfer_tables(document: Document) -> tuple[Table, list[Table]] | None:
    """Classifiers that know only originals beside those that know releases, matching and looks; then each by itself."""
    privates = [p for p in document.data.private if document.select(role="attack", target=p, code=TRANSFER)]
    looks = [code for code in LOOKS if any(f.code == code for f in document.findings)]
    if not privates and not looks:
        return None
    rows = []
    for release in document.releases:
        own = [f for f in document.of(release.name) if f.code in (TRANSFER, *LOOKS)]
        if own:
            cells = [_by_whom(document, release, private, code) for private in privates for code in (TRANSFER, ATTACK)]
            rows.append((release, [*cells, *(_look_cell(own, code) for code in looks)]))
    matching = [code for code in looks if code.startswith("verification.")]
    matchers = dict.fromkeys(f.attacker for f in document.findings if f.code in matching and f.worst)
    groups = [
        *((f"Worst attack on {private}", 2) for private in privates),
        (f"Matching by {', '.join(matchers) or 'no matcher'}", len(matching)),
        ("Looks", len(looks) - len(matching)),
    ]
    heads = ["Knows only originals", "Trained on releases"] * len(privates) + [CODES[code].heading for code in looks]
    summary = Table(groups=[group for group in groups if group[1]], columns=heads, rows=rows)
    return summary, _each_transfer(document, privates, matching)


def _by_whom(document: Document, release: Release, private: str, code: str) -> Cell:
    """The worst attack by a figure, above its attacker."""
    worst = document.attack(release.name, private, code)
    cell = _attack_cell(document, release, private, code)
    return cell if worst is None else replace(cell, small=worst.attacker)


def _look_cell(own: Sequence[Finding], code: str) -> Cell:
    tried = [f for f in own if f.code == code]
    picked = next((f for f in tried if f.worst and f.ok), None)
    return value_cell(picked, why_absent(tried) if tried else "itself")


def _each_transfer(document: Document, privates: Sequence[str], matching: Sequence[str]) -> list[Table]:
    """Every classifier and matcher, a figure at a time."""
    every = [(code, p, f"Reading {p}: {CODES[code].title}") for p in privates for code in _TRANSFERS]
    every += [(code, "identity", f"Matching: {CODES[code].heading}") for code in matching]
    tables = []
    for code, target, title in every:
        findings = [f for f in document.findings if (f.code, f.target) == (code, target)]
        table = _by_attacker(document, findings, attacks=code in _TRANSFERS)
        if table is not None and len(table.columns) > 1:
            measured = {f.release for f in findings}
            rows = [row for row in table.rows if row[0].name in measured]
            tables.append(replace(table, title=title, rows=rows))
    return tables


# -- inversion --------------------------------------------------------------------------------------------------------


def inversion_tables(document: Document) -> tuple[Table, list[Table]] | None:
    """The worst decoder of every release by every figure; then all decoders and controls, a figure at a time."""
    findings = [f for f in document.findings if f.family == "inversion"]
    targets = {f.code: f.target for f in findings}
    codes = [code for code in CODES if code in targets]
    if not codes:
        return None
    rows = []
    for release in document.releases:
        cells = []
        for code in codes:
            worst = document.attack(release.name, targets[code], code)
            tried = document.select(role="attack", release=release.name, code=code)
            small = "" if worst is None else interval(code, worst.low, worst.high)
            cells.append(replace(value_cell(worst, why_absent(tried)), small=small))
        rows.append((release, cells))
    rows.append((replace(document.releases[0], name="without releases", role="control"), _chances(findings, codes)))
    summary = Table(columns=[CODES[code].heading for code in codes], rows=rows)
    every = [
        replace(table, title=CODES[code].heading)
        for code in codes
        if (table := _by_attacker(document, [f for f in findings if f.code == code], attacks=True)) is not None
        and len(table.columns) > 1
    ]
    return summary, every


def _chances(findings: Sequence[Finding], codes: Sequence[str]) -> list[Cell]:
    """What somebody gets who sees no release; from where to where, for decoders of each release have their own."""
    cells = []
    for code in codes:
        chances = [f.chance for f in findings if f.code == code and f.chance is not None]
        ends = [min(chances), max(chances)] if chances else [None]
        text = " \N{EN DASH} ".join(dict.fromkeys(number(code, end) for end in ends))
        cells.append(Cell(text=text, words=not chances))
    return cells


# -- every attacker ---------------------------------------------------------------------------------------------------


def attacker_tables(document: Document, code: str) -> list[Table]:
    """One table of all attackers on all releases per private attribute."""
    tables = []
    for private in document.data.private:
        findings = document.select(role="attack", target=private, code=code)
        table = _by_attacker(document, findings, attacks=True)
        if table is not None:
            sizes = {f.n for f in findings if f.ok}
            # Releases may differ in size where a stranger's files leave rows out: then no one number is true.
            n = f" (n = {sizes.pop():,})" if len(sizes) == 1 else ""
            tables.append(replace(table, title=f"Attacks on {private}: {CODES[code].title}{n}"))
    return tables


def matcher_tables(document: Document) -> list[Table]:
    """One table per use that several matchers or probes were tried for."""
    tables = []
    for use in document.data.utility:
        code = document.primary_use(use)
        if code is not None:
            findings = document.select(role="utility", target=use, code=code)
            table = _by_attacker(document, findings, attacks=False)
            if table is not None and len(table.columns) > 1:
                title = f"{use_name(use)}: {CODES[code].title} by matcher or probe"
                tables.append(replace(table, title=title))
    return tables


def _by_attacker(document: Document, findings: Sequence[Finding], *, attacks: bool) -> Table | None:
    """Findings of one code and target: a row for each release, a column for each attacker (or matcher, or probe)."""
    attackers = list(dict.fromkeys(f.attacker for f in findings))
    if not attackers:
        return None
    by_release: dict[str, dict[str, Finding]] = {}
    for f in findings:
        by_release.setdefault(f.release, {})[f.attacker] = f
    notes: list[str] = []
    rows = []
    for release in document.releases:
        own = by_release.get(release.name, {})
        worst = None
        if own:
            first = next(iter(own.values()))
            worst = (document.attack if attacks else document.use)(release.name, first.target, first.code)
        rows.append((release, [_attacker_cell(own.get(a), worst, attacks, notes) for a in attackers]))
    return Table(columns=attackers, rows=rows, notes=notes)


def _attacker_cell(finding: Finding | None, worst: Finding | None, attacks: bool, notes: list[str]) -> Cell:
    """What one of them found; its note goes among the notes."""
    if finding is None:
        return Cell(text="not tried", words=True)
    note = None
    if finding.note:
        if finding.note not in notes:
            notes.append(finding.note)
        note = notes.index(finding.note) + 1
    mark = ("worst" if attacks else "picked") if finding is worst or (finding.worst and not finding.ok) else ""
    cell = replace(_figure_cell(finding), note=note, mark=mark)
    return replace(cell, heat=_heat(finding)) if attacks and finding.ok else cell


def _figure_cell(finding: Finding) -> Cell:
    """A figure and its interval, or the status in words."""
    if not finding.ok:
        return Cell(text=STATUS_WORDS[finding.status], words=True)
    small = interval(finding.code, finding.low, finding.high)
    return Cell(text=number(finding.code, finding.value), small=small)


def other_findings(document: Document) -> list[tuple[Finding, Cell]]:
    """The findings that no other table shows, so that no figure is lost."""
    of_private = {ATTACK, CODES[ATTACK].stand_in, GAIN, SUPPRESSION, PIC, *_TRANSFERS}

    def elsewhere(f: Finding) -> bool:
        if f.role == "attack":
            # Pools have an attacker or two, of which the picked one is shown.
            if f.code in of_private:
                return f.target in document.data.private
            return f.family == "inversion" or (f.ok and f.worst and f.code in (*FURTHER, *LINKAGE, *CROSSED))
        if f.role == "utility":
            if f.code in (*BIOMETRIC, *BY_GROUP):
                return f.ok
            return f.code in LOOKS or f.target in document.data.utility or "|" in f.target
        return f.role == "control" or (f.code == CERTIFICATE and f.ok and f.target in document.data.private)

    return [(f, _figure_cell(f)) for f in document.findings if not elsewhere(f)]


# -- data and settings ------------------------------------------------------------------------------------------------


def label_counts(document: Document) -> list[Counts]:
    """For each label how many rows of each split have each class; of many classes their number."""
    tables = []
    for name, label in document.data.labels.items():
        many = len(label.classes) > _MOST_CLASSES
        rows = [
            (word, [f"{counts[i]:,}" if i < len(counts) else "" for counts in label.counts.values()])
            for i, word in enumerate(() if many else label.classes)
        ]
        remark = f"{len(label.classes):,} classes" if many else ""
        tables.append(Counts(title=name, remark=remark, columns=list(label.counts), rows=rows))
    return tables


def split_counts(document: Document) -> Counts:
    """The rows, people and more of each split."""
    splits = document.data.splits
    keys = list(dict.fromkeys(key for sizes in splits.values() for key in sizes))
    rows = [(name, [f"{sizes[key]:,}" if key in sizes else "" for key in keys]) for name, sizes in splits.items()]
    return Counts(columns=["rows" if key == "n" else key for key in keys], rows=rows)


def settings(config: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """A configuration as (dotted name, JSON value) rows."""
    rows = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            rows += settings(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return rows
