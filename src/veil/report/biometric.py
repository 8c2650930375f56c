"""The report's tables of matching as biometric systems are measured, of groups, and of what others call protection."""

from __future__ import annotations

from veil.findings import CODES
from veil.findings.codes import BIOMETRIC, GAIN, GROUP_FMR, GROUP_FNMR, PIC, RATIOS, SUPPRESSION
from veil.report.document import Document
from veil.report.tables import Table, use_cell, value_cell, why_absent


def biometric_table(document: Document) -> Table | None:
    """Matching as ISO/IEC 19795-1 has it, and what searches find."""
    measured = {f.code for f in document.select(role="utility") if f.ok}
    codes = [code for code in BIOMETRIC if code in measured]
    if not codes:
        return None
    rows = [
        (release, [use_cell(document, release, "identity", code) for code in codes]) for release in document.releases
    ]
    pairs = sum(code.startswith("verification.") for code in codes)
    groups = [("One to one", pairs), ("One among many", len(codes) - pairs)]
    return Table(
        groups=[group for group in groups if group[1]], columns=[CODES[code].heading for code in codes], rows=rows
    )


def group_tables(document: Document) -> list[Table]:
    """For each label the rates of its classes at one threshold, and their largest ratios."""
    targets = dict.fromkeys(
        f.target for f in document.select(role="utility") if f.code in RATIOS.values() or f.code in RATIOS
    )
    tables = []
    for label in dict.fromkeys(_label_of(target) for target in targets):
        classes = [t for t in targets if _label_of(t) == label and "|by " not in t]
        if not classes:
            continue
        columns = [(code, t) for code in (GROUP_FMR, GROUP_FNMR) for t in classes]
        columns += [(code, f"identity|by {label}") for code in RATIOS.values()]
        rows = [
            (release, [use_cell(document, release, target, code) for code, target in columns])
            for release in document.releases
        ]
        groups = [(CODES[GROUP_FMR].heading, len(classes)), (CODES[GROUP_FNMR].heading, len(classes)), ("Ratio", 2)]
        heads = [t.partition("=")[2] for t in classes] * 2 + ["of FMRs", "of FNMRs"]
        tables.append(Table(title=f"By {label}", groups=groups, columns=heads, rows=rows))
    return tables


def _label_of(target: str) -> str:
    """The label by which matching is measured group by group."""
    within = target.partition("|")[2]
    return within.removeprefix("by ") if within.startswith("by ") else within.partition("=")[0]


def tradeoff_table(document: Document) -> Table | None:
    """Beside the normalised gain what others call the same protection."""
    codes = [code for code in (GAIN, SUPPRESSION, PIC) if any(f.code == code for f in document.findings)]
    if SUPPRESSION not in codes:
        return None
    privates = document.data.private
    rows = []
    for release in document.releases:
        tried = [
            (document.attack(release.name, private, code),
             why_absent(document.select(role="attack", release=release.name, target=private, code=code)))
            for private in privates for code in codes
        ]  # fmt: skip
        if release.role != "input":
            rows.append((release, [value_cell(figure, absent) for figure, absent in tried]))
    heads = [CODES[code].heading for code in codes] * len(privates)
    return Table(groups=[(private, len(codes)) for private in privates], columns=heads, rows=rows)
