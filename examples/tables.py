"""Tables of results from the findings of several seeds; the other examples use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from veil.findings import CODES

Column = tuple[str, str, str]
"""Heading, code of the finding, its target."""


def table(names: Sequence[str], documents: Sequence[dict[str, Any]], columns: Sequence[Column]) -> list[str]:
    """Lines of a Markdown table: means over the seeds, with the mean limits of their intervals in brackets; a
    dash where nothing was measured."""
    lines = ["| release | " + " | ".join(c[0] for c in columns) + " |", "|---|" + "---|" * len(columns)]
    for name in names:
        cells = []
        for _, code, target in columns:
            if any(_hits(d, name, code, target) for d in documents):
                for document in documents:
                    picked(document, name, code, target)  # which refuses a figure that one of them lacks
            cells.append(_mean(documents, name, code, target))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def measures(names: Sequence[str], documents: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table: a row for every figure that any of these releases has, a column for each of them."""
    told = (f for d in documents for f in d["findings"] if _tells(f) and f["release"] in names)
    there = {(f["code"], f["target"]) for f in told}
    lines = ["| figure | of | attacker has | " + " | ".join(names) + " |", "|---" * (3 + len(names)) + "|"]
    for code, known in CODES.items():
        for target in sorted(target for figure, target in there if figure == code):
            cells = [_mean(documents, name, code, target) for name in names]
            lines.append(f"| {known.heading} (`{code}`) | {target} | {known.threat} | " + " | ".join(cells) + " |")
    return lines


def _mean(documents: Sequence[dict[str, Any]], name: str, code: str, target: str) -> str:
    """The mean over documents of a figure, and of its limits; a dash where it was not measured in all of them."""
    hits = [hit for d in documents if (hit := next(iter(_hits(d, name, code, target)), None)) is not None]
    if len(hits) < len(documents):
        return "-"
    value, low, high = (np.mean([hit[k] for hit in hits]) for k in ("value", "low", "high"))
    digits = 4 if code.startswith("verification.auc") and value > 0.99 else 3
    return f"{value:.{digits}f} ({low:.{digits}f} - {high:.{digits}f})"


def by_seed(names: Sequence[str], documents: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[str]:
    """Lines of a Markdown table: the worst attack on gender and the matching AUC of every seed, and by whom."""
    lines = [
        "| release | " + " | ".join(f"seed {s}: gender / AUC" for s in seeds) + " |",
        "|---|" + "---|" * len(seeds),
    ]
    for name in names:
        cells = []
        for document in documents:
            gender = picked(document, name, "attribute.balanced_accuracy", "gender")
            auc = picked(document, name, "verification.auc", "identity")
            cells.append(f"{gender['value']:.3f} ({gender['attacker']}) / {auc['value']:.4f} ({auc['attacker']})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def picked(document: dict[str, Any], release: str, code: str, target: str) -> dict[str, Any]:
    """The finding of the attacker, or matcher, that was picked on `calibrate`."""
    hits = _hits(document, release, code, target)
    if len(hits) != 1:
        raise SystemExit(f"{release}: {len(hits)} picked findings of {code} on {target}; one was expected")
    return hits[0]


def _hits(document: dict[str, Any], release: str, code: str, target: str) -> list[dict[str, Any]]:
    return [
        f
        for f in document["findings"]
        if _tells(f) and (f["release"], f["code"], f["target"]) == (release, code, target)
    ]


def _tells(finding: dict[str, Any]) -> bool:
    """Whether it is a figure of the attacker, or matcher, that was picked, or of nobody in particular."""
    return finding["status"] == "ok" and finding["role"] != "control" and finding["worst"]
