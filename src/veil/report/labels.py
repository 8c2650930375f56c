"""Where a figure's labels go: near their points, off each other, off markers and bars; all in pixels, y downwards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float


def placed(
    centres: Sequence[tuple[float, float]], widths: Sequence[float], obstacles: Sequence[Box], area: Box
) -> list[Box]:
    """A place for each label: near its point, inside ``area``, off the obstacles, off each other and their leaders.

    Coordinate descent: each label in turn takes the cheapest of its candidate places given the others, until none
    moves. The cost is overlapped area plus a little for distance, so ties fall the same way each time. A label is
    looked at again only where one within its reach has moved.
    """
    options = [_Places(centre, width) for centre, width in zip(centres, widths, strict=True)]
    bounds, barred = _corners([area]), _corners(obstacles)
    fixed = []
    for each in options:
        outside = each.areas - _overlaps(each.boxes, bounds)[:, 0]
        fixed.append(4 * outside + _overlaps(each.boxes, barred).sum(1) + each.prices)
    chosen = [_cheapest(costs) for costs in fixed]
    extents = np.array([each.extent for each in options]).reshape(-1, 4)
    near = [np.flatnonzero(row) for row in (_overlaps(extents, extents) > 0) & ~np.eye(len(options), dtype=bool)]
    due = set(range(len(options)))
    for _ in range(12):
        for i, each in enumerate(options):
            if i not in due:
                continue
            due.discard(i)
            boxes = np.array([options[j].boxes[chosen[j]] for j in near[i]]).reshape(-1, 4)
            bits = np.concatenate([_corners([]), *(options[j].leader(chosen[j]) for j in near[i])])
            crossed = np.bincount(each.owner, _overlaps(each.leaders, boxes).sum(1), minlength=len(each.boxes))
            costs = fixed[i] + 6 * _overlaps(each.boxes, boxes).sum(1)
            best = _cheapest(costs + 8 * _overlaps(each.boxes, bits).sum(1) + 8 * crossed)
            if best != chosen[i]:
                chosen[i] = best
                due.update(near[i].tolist())
        if not due:
            break
    return [Box(**dict(zip(("left", "top", "right", "bottom"), options[i].boxes[chosen[i]].tolist(), strict=True)))
            for i in range(len(options))]  # fmt: skip


class _Places:
    """Where a label may stand.

    Attributes:
        boxes: Corners ``(C, 4)`` of the candidates.
        prices: ``(C,)`` of their distances.
        areas: ``(C,)`` in square pixels.
        leaders: Corners ``(L, 4)`` of the bits of all candidates' leaders.
        owner: ``(L,)`` whose each is, rising.
        extent: Corners ``(4,)`` of what holds all of them.
    """

    def __init__(self, centre: tuple[float, float], width: float) -> None:
        candidates = list(_candidates(centre, width))
        self.boxes = _corners([box for box, _, _ in candidates])
        self.prices = np.array([price for _, _, price in candidates])
        self.areas = (self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1])
        self.leaders = _corners([bit for _, bits, _ in candidates for bit in bits])
        self.owner = np.repeat(np.arange(len(candidates)), [len(bits) for _, bits, _ in candidates])
        every = np.concatenate([self.boxes, self.leaders])
        self.extent = np.concatenate([every[:, :2].min(0), every[:, 2:].max(0)])

    def leader(self, candidate: int) -> NDArray[np.float64]:
        """The bits ``(b, 4)`` of one candidate's leader."""
        first, last = np.searchsorted(self.owner, [candidate, candidate + 1])
        return self.leaders[first:last]


def _corners(boxes: Sequence[Box]) -> NDArray[np.float64]:
    """``(n, 4)``: left, top, right and bottom of each."""
    return np.array([(box.left, box.top, box.right, box.bottom) for box in boxes], np.float64).reshape(-1, 4)


def _overlaps(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area ``(n, m)`` in square pixels that each of some boxes ``(n, 4)`` shares with each of others ``(m, 4)``."""
    across, down = (
        np.minimum(a[:, None, side + 2], b[:, side + 2]) - np.maximum(a[:, None, side], b[:, side]) for side in (0, 1)
    )
    shared: NDArray[np.float64] = across.clip(min=0) * down.clip(min=0)
    return shared


def _cheapest(costs: NDArray[np.float64]) -> int:
    """The first of the lowest costs; what differs by rounding alone is the same everywhere."""
    return int(np.argmin(costs.round(6)))


def _candidates(centre: tuple[float, float], width: float) -> Iterable[tuple[Box, list[Box], float]]:
    """Places for a label ``width`` pixels wide around ``centre``, nearest first: (label, bits of its leader, price)."""
    half = 7.5
    for reach in (10, 18, 28, 40, 54, 70, 88):
        for turn in range(16):
            angle = math.pi * turn / 8
            across, up = math.cos(angle), math.sin(angle)
            # The label's nearest edge, not its centre, keeps the distance.
            left = centre[0] + reach * across - (1 - across) * width / 2
            top = centre[1] - reach * up - half - up * half
            leader = [
                Box(left=x - 2, top=y - 2, right=x + 2, bottom=y + 2)
                for x, y in ((centre[0] + far * across, centre[1] - far * up) for far in range(14, reach, 6))
            ]
            yield Box(left=left, top=top, right=left + width, bottom=top + 2 * half), leader, 1.5 * (reach - 10)


def spread(places: Sequence[float], gap: float, length: float) -> list[float]:
    """``places`` on a line of ``length``, moved as little as need be to lie ``gap`` apart where there is room."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    gap = min(gap, length / max(len(places), 1))
    moved = [places[i] for i in order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    limit = length
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - gap
    result = [0.0] * len(places)
    for i, place in zip(order, moved, strict=True):
        result[i] = place
    return result


def text_width(text: str, size: float) -> float:
    """About how wide ``text`` is in a sans-serif font of ``size`` pixels."""
    wide = sum(1.0 if c in "mwMW@%" or ord(c) > 0x2E80 else 0.32 if c in "iljtfI.,:'|!() " else 0.6 for c in text)
    return size * wide


def shortened(text: str, most: int) -> str:
    """``text`` in at most ``most`` characters, its middle left out: both ends of a name tell it from others."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return text[: most - 1 - tail].rstrip() + "\u2026" + text[-tail:].lstrip()
