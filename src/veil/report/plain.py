"""The verdict in plain words: of 100 people, how many an attack names rightly; of 100 choices, how many are right.

Balanced accuracy is the share of people named rightly where each class has as many, and an area under the ROC curve is
the share of choices made rightly between a pair of one person and a pair of two. Other figures have no such words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from veil.findings import Finding
from veil.findings.codes import ATTACK, MATCHING
from veil.report.document import Document
from veil.report.words import FURTHER, limit

_USE = "utility.balanced_accuracy"
WORDS = {
    ATTACK: "Of 100 people, as many of each class, the worst tested attack names {} rightly from one release.",
    _USE: "Of 100 people, as many of each class, {} are recognised rightly.",
    MATCHING: "Of 100 choices between a pair of one person and a pair of two, a matcher makes {} rightly.",
}
"""By code a sentence on a figure, with a place for it as a number of 100."""


@dataclass(frozen=True, kw_only=True)
class Plain:
    """A figure as a number of 100, beside guessing and the unprotected input.

    Attributes:
        target: The label or the use that it is about.
        words: A sentence or more.
        value, low, high: The figure and its interval, in [0, 100].
        chance: What guessing gets.
        unprotected: What is got from the unprotected input; None where that is not known.
    """

    target: str
    words: Markup
    value: float
    low: float
    high: float
    chance: float
    unprotected: float | None


def plain(document: Document, finding: Finding) -> Plain | None:
    """An attack or a use in plain words; None for figures that have none."""
    if finding.code not in WORDS or not finding.ok:
        return None
    value, low, high, chance = (min(max(100 * x, 0.0), 100.0) for x in finding.figures())
    unprotected = _unprotected(document, finding)
    words = Markup(WORDS[finding.code]).format(_counted("release", value))
    words += Markup(" Guessing gets {}").format(_counted("chance", chance))
    if unprotected is not None:
        words += Markup("; without protection it is {}").format(_counted("input", unprotected))
    words += Markup(".")
    if finding.role == "attack":
        words += _further(document, finding)
    return Plain(
        target=finding.target, words=words, value=value, low=low, high=high, chance=chance, unprotected=unprotected
    )


def _unprotected(document: Document, finding: Finding) -> float | None:
    """The same figure of the unprotected input, of 100."""
    if document.input is None:
        return None
    best = document.attack if finding.role == "attack" else document.use
    before = best(document.input.name, finding.target, finding.code)
    if before is None or before.code != finding.code or before.value is None:
        return None
    return min(max(100 * before.value, 0.0), 100.0)


def _further(document: Document, worst: Finding) -> Markup:
    """What several releases of a person give away, where that is more; and what is certified of one."""
    words = Markup("")
    for code, begins in FURTHER.items():
        mean = document.attack(worst.release, worst.target, code)
        if (
            mean is not None
            and mean.code == code
            and round(100 * (mean.value or 0.0)) > round(100 * (worst.value or 0.0))
        ):
            words += Markup(" {} an attack names {:.0f}.").format(begins, 100 * (mean.value or 0.0))
    bound = document.bound(worst.release, worst.target)
    if bound is not None:
        most = math.ceil(100 * limit(bound) - 1e-9)
        words += Markup(" Certified: from one release no attack of any kind names more than {}.").format(most)
    return words


def _counted(what: str, value: float) -> Markup:
    """A number of 100, after the mark that stands for it on the scale."""
    # The mark and its number stay together.
    return Markup('<span class="count"><i class="{}"></i>{:.0f}</span>').format(what, value)
