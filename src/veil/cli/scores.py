"""`veil audit --scores`: systems of which scores alone are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from veil.cli import texts
from veil.cli.show import Show
from veil.cli.tables import show_audit
from veil.errors import InputError


def audit_scores(
    show: Show, files: Sequence[str], out: Path, *, level: float, by: str, names: bool, others: Mapping[str, object]
) -> None:
    """Audit files of scores, FILE or NAME=FILE each, into a folder.

    Args:
        show: How the command speaks.
        files: As they were typed.
        out: Where findings go.
        level: Coverage of intervals.
        by: Who audits.
        names: Whether paths stay in the command that findings hold.
        others: Options by name that scores alone have no use for; none may have been asked for.
    """
    from veil.workflows.audit_scores import SUFFIXES
    from veil.workflows.audit_scores import audit_scores as audit

    if asked := [name for name, value in others.items() if value]:
        raise InputError(f"audit: --scores tell how systems match and nothing else, and go without {', '.join(asked)}")
    pairs = list(dict.fromkeys(texts.named_path(text, SUFFIXES) for text in files))
    called = [name for name, _ in pairs]
    if len(set(called)) < len(called):
        raise InputError(f"--scores: names must differ (NAME=FILE), got {', '.join(called)}")
    command = texts.whole_command() if names else show.command()
    with show.progress() as bars:
        bars.stage("audit", 0, 1, "scores")
        made = audit(dict(pairs), out, level=level, command=command, by=by)
        bars.stage("audit", 1, 1, "scores")
    show_audit(show, made.findings, [], "identity", out / "findings.json")
