"""Tables of results from the findings of several seeds; the other examples use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Column = tuple[str, str, str]
"""Heading, code of the finding, its target."""


def table(names: Sequence[str], documents: Sequence[dict[str, Any]], columns: Sequence[Column]) -> list[str]:
    """Lines of a Markdown table: means over the seeds, with the mean limits of their intervals in brackets; a
    dash where nothing was measured."""
    lines = ["| release | " + " | ".join(c[0] for c in columns) + " |", "|---|" + "---|" * len(columns)]
    for name in names:
        cells = []
        for _, code, target in columns:
            if not any(_hits(d, name, code, target) for d in documents):
                cells.append("-")
                continue
            found = [picked(d, name, code, target) for d in documents]
            value, low, high = (np.mean([f[k] for f in found]) for k in ("value", "low", "high"))
            digits = 4 if code.startswith("verification.auc") and value > 0.99 else 3
            cells.append(f"{value:.{digits}f} ({low:.{digits}f} - {high:.{digits}f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


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
        if f["worst"] and f["status"] == "ok" and (f["release"], f["code"], f["target"]) == (release, code, target)
    ]
