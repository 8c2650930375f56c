"""Curves of a comparator: its error rates against each other, and how often a mate is found, by rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KINDS = ("det", "cmc")


@dataclass(frozen=True, kw_only=True)
class Rates:
    """One curve of one release.

    Attributes:
        release: Whose.
        kind: ``"det"``: false non-match rates against false match rates; ``"cmc"``: shares of mates found among the
            first ranks against the rank.
        attacker: The comparator.
        x: ``(n,)`` rising: rates in (0, 1], or ranks from 1.
        y: ``(n,)`` in [0, 1].
    """

    release: str
    kind: str
    attacker: str
    x: Sequence[float]
    y: Sequence[float]
