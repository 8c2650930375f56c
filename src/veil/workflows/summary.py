"""The table that an audit ends with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from veil.findings import CODES, Finding
from veil.findings.codes import ATTACK, MATCHING, TRANSFER


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table that an audit ends with, as findings.

    Attributes:
        name: The release.
        attack: The worst attack by who learned from releases.
        transfer: What the classifier reads that knows originals alone and reads those best; None where none was shown
            the release.
        utility: The use that is left.
    """

    name: str
    attack: Finding | None
    transfer: Finding | None
    utility: Finding | None


def summary(findings: Sequence[Finding], private: str, utility: str = "identity") -> list[Row]:
    """For each release the worst attacks on ``private`` and the picked matcher's AUC (or probe's balanced accuracy).

    An attacker, or a probe, that names one class for everybody has its AUC here.
    """

    def picked(release: str, code: str, target: str, role: str) -> Finding | None:
        about = [f for f in findings if f.worst and (f.release, f.target, f.role) == (release, target, role)]
        figures = [f for each in (code, CODES[code].stand_in) for f in about if f.code == each]
        return next((f for f in figures if f.ok), figures[0] if figures else None)

    use = MATCHING if utility == "identity" else "utility.balanced_accuracy"
    return [
        Row(
            name=name,
            attack=picked(name, ATTACK, private, "attack"),
            transfer=picked(name, TRANSFER, private, "attack"),
            utility=picked(name, use, utility, "utility"),
        )
        for name in dict.fromkeys(f.release for f in findings)
    ]


def redrawn(findings: Sequence[Finding]) -> dict[str, dict[str, Finding]]:
    """For each release that was attacked by inversion, what the worst decoder and the feature-level attack get."""
    worst: dict[str, dict[str, Finding]] = {}
    for f in findings:
        if f.worst and f.family == "inversion":
            worst.setdefault(f.release, {})[f.code] = f
    return worst
