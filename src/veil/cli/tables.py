"""What an audit ends with: tables of the worst attacks and of the use that is left, or the same as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from veil.cli.show import Show, say
from veil.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

    from veil.findings import Finding
    from veil.workflows.check import Checked
    from veil.workflows.protect import Protected
    from veil.workflows.summary import Row


def show_audit(
    show: Show, findings: Sequence[Finding], private: Sequence[str], use: str, path: Path, warnings: Sequence[str] = ()
) -> bool:
    """Shows what an audit ends with; whether attempts broke off, which a line on stderr then says.

    Args:
        show: How the command speaks.
        findings: Of the audit.
        private: Labels that were attacked.
        use: What the tables say is left; "" where none was measured.
        path: What was written.
        warnings: Of the data and the releases, for JSON: they have been said.
    """
    from veil.findings.codes import SEEN
    from veil.report import document, verdict
    from veil.workflows.summary import redrawn, summary

    training = {f.release: f for f in findings if f.code == SEEN}
    written = document.read(path.parent) if path.is_file() else None
    checks = [] if written is None else verdict.controls(written)
    labels = {} if written is None else written.data.labels
    failed = [] if written is None else verdict.failures(written)
    outcomes = {name: summary(findings, name, use) for name in private or [""]}  # without an attack, of the use alone
    inversions = redrawn(findings)
    broken = [finding for finding in findings if finding.status == "did_not_converge"]
    if show.as_json:
        inversion = {name: {code: asdict(f) for code, f in each.items()} for name, each in inversions.items()}
        show.result(
            {
                "out": str(path),
                "rows": [{"private": n or None, **asdict(row)} for n, rows in outcomes.items() for row in rows],
                "training": {name: {"seen": f.value, "note": f.note} for name, f in training.items()},
                "failed_controls": failed,
                "predicted": {name: dict(label.predicted) for name, label in labels.items() if label.predicted},
                **({"inversion": inversion} if inversions else {}),
                "broke_off": [asdict(finding) for finding in broken],
                "warnings": list(warnings),
            }
        )
    else:
        for sentence in () if written is None else verdict.guessed(written):
            say(f"  note: {sentence}")
        _print_training(training)
        for meaning in (*failed, *filter(None, [verdict.share_of_luck(checks)])):
            say(f"CONTROL FAILED: {meaning}" if meaning in failed else f"  note: {meaning}")
        for name in private:
            print_attacks(name, outcomes[name], _heading(use))
        if use and not private:
            _print_uses(outcomes[""], _heading(use))
        if inversions:
            _print_inversions(inversions)
        say(str(path))
    return _say_broken(findings)


def show_check(show: Show, made: Checked) -> None:
    """Shows what a gate says: every figure beside what is required of it, and the outcome."""
    if show.as_json:
        show.result({"outcome": made.outcome, "lines": [line.plain() for line in made.lines]})
        return
    from rich.table import Table

    from veil.findings import CODES

    levels = sorted({line.finding.level for line in made.lines if line.finding is not None})
    intervals = f" (intervals of {' and '.join(f'{level:.3g}' for level in levels)})" if levels else ""
    table = Table(title=f"What is required, and the limits of what was measured{intervals}")
    changes = any(line.change is not None for line in made.lines)
    headings = ["require", "release", "figure", "threat", "value", "interval"]
    for heading in (*headings, *["change", "interval"] * changes, "by", "outcome"):
        table.add_column(heading, justify="right" if heading in ("value", "interval", "change") else "left")
    for line in made.lines:
        f, code = line.finding, CODES.get(line.code)
        heading, threat = ("-", "") if code is None else (code.heading, code.threat)
        figures = ["-"] * 2 if f is None else [f"{f.value:.3f}", f"{f.low:.3f} - {f.high:.3f}"]
        if changes:
            change = line.change
            figures += ["-"] * 2 if change is None else [f"{change[0]:+.3f}", f"{change[1]:+.3f} - {change[2]:+.3f}"]
        cells = [line.requirement, line.release, heading, threat, *figures, "-" if f is None else f.attacker]
        table.add_row(*map(printable, [*cells, line.outcome]))
    _print_table(table, 150 + 30 * changes)
    reasons = dict.fromkeys((line.release, line.outcome, line.why) for line in made.lines if line.why)
    for release, outcome, why in reasons:
        say(f"  {release}: {outcome}: {why}")
    say(made.outcome)


def show_demo(show: Show, ways: Sequence[Protected]) -> bool:
    """Shows what the demo ends with, the verdict and the page of each way in; whether attempts broke off."""
    if show.as_json:
        show.result({way.page.parents[1].name: {"verdict": list(way.verdict), "report": str(way.page)} for way in ways})
    else:
        for way in ways:
            for line in (*way.verdict, str(way.page)):
                say(line)
    return _say_broken([finding for way in ways for finding in way.audit.findings])


def show_protected(show: Show, made: Protected) -> bool:
    """Shows what `protect` ends with: verdict, page, what to hand out and what to keep; whether attempts broke off."""
    rows, skipped, exposed = made.rows
    out = made.released
    counts = f"{rows:,} {'photographs' if made.way.form == 'photos' else 'vectors'}, by the method {made.way.method}"
    if skipped:
        counts += f"; {skipped:,} left out, listed in {made.left_out}"
    secrets = {str(path): why for path, why in made.secrets.items()}
    show.result(
        {
            "released": str(out),
            "method": made.way.method,
            "rows": rows,
            "skipped": skipped,
            "unprotected": exposed,
            "verdict": list(made.verdict),
            "failed_controls": list(made.failed_controls),
            "remarks": list(made.remarks),
            "report": str(made.page),
            "secret": secrets,
        },
        *made.verdict,
        *made.remarks,
        str(made.page),
        f"{'hand out' if not made.failed_controls else 'do not hand out before the failed control is understood:'} "
        f"{out}: {counts}",
        *(f"keep {path} secret: {why}" for path, why in secrets.items()),
    )
    return _say_broken(made.audit.findings)


def _say_broken(findings: Sequence[Finding]) -> bool:
    """Whether attempts broke off, which a line on stderr then says."""
    from veil.data.classes import few

    broken = [finding for finding in findings if finding.status == "did_not_converge"]
    if not broken:
        return False
    means = {"attribute.pooled": ", means of a person's", "attribute.repeated": ", means of near-duplicates"}
    kinds = [next((words for code, words in means.items() if f.code.startswith(code)), "") for f in broken]
    attempts = [
        f"{f.release}: {f.attacker} on {f.target}{kind} ({f.note})" for f, kind in zip(broken, kinds, strict=True)
    ]
    count = f"{len(broken)} attempt{'s' * (len(broken) > 1)} broke off"
    message = f"veil: {count}, and what would have been found is not known: {few(attempts)}"
    say(" ".join(message.split()), sys.stderr)
    return True


def _heading(use: str) -> str:
    """What is measured of a use, as tables call it; "" where none is."""
    return {"": "", "identity": "matching AUC"}.get(use, f"{use} balanced accuracy")


def _print_training(training: Mapping[str, Finding]) -> None:
    """Releases that were fitted on people of the test, or of which nobody can say."""
    from veil.auditing.leakage import OUTSIDE

    for name, finding in training.items():
        if finding.value:
            say(f"{name}: CONTROL FAILED: {finding.note}; its figures mean nothing")
        elif finding.status != "ok" and finding.note != OUTSIDE:
            say(f"{name}: {finding.note}")


def print_attacks(private: str, outcomes: Sequence[Row], use: str) -> None:
    """The worst attacks on a label and the use that is left, a line for each release."""
    from rich.table import Table

    transfers = any(row.transfer is not None for row in outcomes)
    levels = [f.level for row in outcomes for f in (row.attack, row.utility) if f is not None]
    level = f"{levels[0]:.3g}" if levels else "0.95"
    table = Table(
        title=printable(f"Worst tested attack on {private} (balanced accuracy)")
        + printable(f" and {use} that is left" if use else "")
        + f"; {level} intervals"
        + ("; beside it, what is read by who knows only originals" if transfers else "")
    )
    columns = ["release", f"{private} attack", "interval", "attacker"]
    columns += ["from originals", "by"] * transfers + [use, "interval", "by"] * bool(use)
    for heading in columns:
        justify: Literal["left", "right"] = "left" if heading in ("release", "attacker", "by") else "right"
        table.add_column(printable(heading), justify=justify)
    for row in outcomes:
        cells = [row.name, *_cells(row.attack, 3)]
        cells += _cells(row.transfer, 2) if transfers else []
        table.add_row(*map(printable, [*cells, *(_cells(row.utility, 3) if use else [])]))
    _print_table(table, 120 + 30 * transfers)


def _cells(finding: Finding | None, count: int) -> list[str]:
    """A figure, where there is room for three its interval, and by whom."""
    if finding is None or finding.value is None:
        return ["-"] * count
    name = "AUC " * (finding.code.endswith("auc") and not finding.code.startswith("verification"))
    between = [f"{finding.low:.3f} - {finding.high:.3f}"] * (count == 3)
    return [f"{name}{finding.value:.3f}", *between, finding.attacker]


def _print_uses(outcomes: Sequence[Row], use: str) -> None:
    """The use that is left, a line for each release, where nothing was attacked."""
    from rich.table import Table

    figures = [(row.name, row.utility) for row in outcomes if row.utility is not None and row.utility.value is not None]
    table = Table(
        title=printable(f"Use that is left: {use}") + (f"; {figures[0][1].level:.3g} intervals" if figures else "")
    )
    for heading in ("release", printable(use), "interval", "by"):
        table.add_column(heading, justify="left" if heading in ("release", "by") else "right")
    for name, finding in figures:
        table.add_row(*map(printable, [name, *_cells(finding, 3)]))
    _print_table(table)


def _print_inversions(inversions: Mapping[str, Mapping[str, Finding]]) -> None:
    """The worst attack by inversion, a line for each release."""
    from rich.table import Table

    table = Table(title="Worst tested attack by inversion, and in brackets what is got without releases")
    codes = list(dict.fromkeys(code for each in inversions.values() for code in each))
    for heading in ("release", "decoder", *(code.removeprefix("inversion.").replace("_", " ") for code in codes)):
        table.add_column(heading, justify="left" if heading in ("release", "decoder") else "right")
    for name, each in inversions.items():
        decoder = next(f.attacker for f in each.values())
        figures = ["-" if (f := each.get(code)) is None else f"{f.value:.3f} ({f.chance:.3f})" for code in codes]
        table.add_row(*map(printable, [name, decoder, *figures]))
    _print_table(table)


def _print_table(table: Table, width: int = 120) -> None:
    """Prints a table as wide as the terminal, or so many columns; names are no mark-up and no emoji."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else width, markup=False, emoji=False).print(table)
