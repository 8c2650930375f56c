"""How a report writes what findings hold: figures, intervals, shares and names as words of a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from veil.findings import CODES, Finding
from veil.findings.codes import POOLED, REPEATED, RESTORED

NBSP = "\u00a0"
_EN_DASH = "\u2013"
_MINUS = "\u2212"
STATUS_WORDS = {"did_not_converge": "did not converge", "not_applicable": "not applicable"}
FURTHER: Mapping[str, str] = {
    POOLED: "From the mean of several releases of one person",
    REPEATED: "From the mean of the releases of 32 near-duplicates of one input",
    RESTORED: "From a release that was restored first",
}
"""Attacks that make something else of releases before they read them, and how a sentence on them begins."""


def number(code: str, value: float | None) -> str:
    """``value`` in the style of ``code``: "61.2 %", ".914" or "23.4"; "not measured" for None."""
    if value is None:
        return "not measured"
    return _digits(code, value) + (f"{NBSP}%" if CODES[code].style == "percent" else "")


def interval(code: str, low: float | None, high: float | None) -> str:
    """Both ends in the style of ``code``, the unit written once; "" where an end is missing."""
    if low is None or high is None:
        return ""
    joint = " to " if min(low, high) < 0 else _EN_DASH  # a dash beside a minus sign reads badly
    return f"{_digits(code, low)}{joint}{number(code, high)}"


def share(value: float) -> str:
    """A level or a chance rate in per cent with no needless decimals: "95 %", "33.3 %"."""
    return f"{100 * value:.1f}".removesuffix(".0") + f"{NBSP}%"


def chance(finding: Finding) -> str:
    """Its chance in the style of the figure, per cent without needless decimals; "" where it has none."""
    if finding.chance is None:
        return ""
    return share(finding.chance) if CODES[finding.code].style == "percent" else number(finding.code, finding.chance)


def certified(value: float) -> float:
    """What a certificate certifies, rounded up to a tenth of a per cent: less is not certified."""
    return math.ceil(1000 * value - 1e-9) / 1000


def limit(bound: Finding) -> float:
    """What a certificate certifies: the upper end of its interval."""
    return certified(bound.high or 0.0)


def use_name(target: str) -> str:
    """A use in words that begin a sentence."""
    base, _, within = target.partition("|")
    words = "Face matching" if base == "identity" else f"Recognising {base}"
    return f"{words} ({within})" if within else words


def listed(names: Sequence[str]) -> str:
    """Names in a row: "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def capitalised(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _digits(code: str, value: float) -> str:
    style = CODES[code].style
    if style == "percent":
        text = f"{100 * value:.1f}"
        if CODES[code].lower_tells_more and 0 < value < 0.01:  # error rates, which are of interest where they are small
            text = f"{100 * value:.2g}"
    elif style == "fraction":
        text = f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:.3f}"
    else:
        text = f"{value:.4g}"
    return text.replace("-", _MINUS)
