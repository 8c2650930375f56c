"""What a protector took from an attack, as the literature on soft-biometric privacy puts it.

Both stand beside :func:`veil.findings.schema.normalised_gain`, never in its place: they do not say how far from chance
an attack is left. An attack that falls from 95 % to the chance of 50 % has a suppression rate of 47 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from veil.findings.codes import PIC, SUPPRESSION
from veil.findings.schema import Finding, Measurement


def _left(attack: Finding) -> Measurement:
    return Measurement(
        release=attack.release, target=attack.target, attacker=attack.attacker, role=attack.role, n=attack.n,
        level=attack.level,
    )  # fmt: skip


def _without(figures: Sequence[tuple[str, Finding | None]]) -> str:
    """Why there is no quotient; "" where there is one."""
    for which, figure in figures:
        if figure is None:
            return f"{which} was not measured"
        if not figure.ok:
            return f"{which} has no figure ({figure.status}: {figure.note})"
    return ""


def suppression_rate(attack: Finding, reference: Finding) -> Finding:
    """(accuracy before - accuracy after) / accuracy before, of the worst attacks' balanced accuracies.

    Its interval is the attack's, with the figure before held fixed; its chance is what an attack at chance would give.

    Args:
        attack: On a release.
        reference: On the unprotected input, by the same code.
    """
    figures = (("the attack", attack), ("the attack on the unprotected input", reference))
    if why := _without(figures):
        return _left(attack).missing(SUPPRESSION, "not_applicable", why, worst=attack.worst)
    value, low, high, chance = attack.figures()
    before = reference.figures()[0]
    if before <= 0:
        why = "the attack on the unprotected input is never right"
        return _left(attack).missing(SUPPRESSION, "not_applicable", why, worst=attack.worst)
    limits = tuple((before - x) / before for x in (value, high, low))
    note = f"of {attack.code}, relative to {reference.attacker} on the unprotected input at {before:.3f}, held fixed"
    return _left(attack).measured(
        SUPPRESSION, (limits[0], limits[1], limits[2]), chance=(before - chance) / before, worst=attack.worst, note=note
    )


def pic(attack: Finding, reference: Finding, eer: Finding | None, eer_before: Finding | None) -> Finding:
    """(e' - e) / e - (r' - r) / r: growth of the attack's error e less growth of matching's equal error rate r.

    Privacy-gain identity-loss coefficient; Terhoerst, Damer, Kirchbuchner & Kuijper, "Unsupervised privacy-enhancement
    of face representations using similarity-sensitive noise transformations", Applied Intelligence 49, 2019. Figures
    before are held fixed in the interval; those after are taken for independent, with the root of the sum of their
    squared widths on either side. Its chance is that of an attack at chance beside the same matching.

    Args:
        attack: On a release.
        reference: On the unprotected input, by the same code.
        eer: Of the release; None where matching was not measured.
        eer_before: Of the unprotected input.
    """
    figures = (
        ("the attack", attack), ("the attack on the unprotected input", reference), ("the EER", eer),
        ("the EER of the unprotected input", eer_before),
    )  # fmt: skip
    why = _without(figures)
    if not why and (reference.value == 1 or (eer_before is not None and eer_before.value == 0)):
        why = "the attack on the unprotected input, or its EER, has an error of 0, by which nothing can be divided"
    if why or eer is None or eer_before is None:
        return _left(attack).missing(PIC, "not_applicable", why, worst=attack.worst)
    value, low, high, chance = attack.figures()
    rate, rate_low, rate_high, _ = eer.figures()
    error, before = 1 - reference.figures()[0], eer_before.figures()[0]
    gain, loss = (1 - value - error) / error, (rate - before) / before
    down = math.hypot((high - value) / error, (rate_high - rate) / before)
    up = math.hypot((value - low) / error, (rate - rate_low) / before)
    note = f"relative to an error of {error:.3f} of the attack on the unprotected input and an EER of {before:.4f}"
    limits = (gain - loss, gain - loss - down, gain - loss + up)
    at_chance = (1 - chance - error) / error - loss
    return _left(attack).measured(PIC, limits, chance=at_chance, worst=attack.worst, note=note)
