"""The report's figures: plotly figures from findings and training losses, by pure functions.

``plane`` draws what a release still gives away against what it is still good for; ``losses`` draws the training curves
of one stage. Figures are light by default; :data:`DARK` gives for each light colour the one that replaces it on a dark
page. Labels stand beside the points, so no legend is needed: they are placed here, for a given width in pixels.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from veil.audit.findings import Finding
from veil.report import ATTACK, Document, interval, metric, number, share, use_name

INK, MUTED, RULE, PAPER = "#1b2026", "#59636f", "#dfe3e8", "#ffffff"
METHOD, BASELINE, INPUT = "#1d5fa6", "#7d7265", "#1b2027"
PLAYERS = ("#1d5fa7", "#b8480c", "#1a7a58", "#86439b", "#75591c", "#b0306a", "#3c6e78", "#5b6068")
DARK: Mapping[str, str] = {
    INK: "#e4e8ec",
    MUTED: "#9da8b4",
    RULE: "#343c46",
    PAPER: "#15191e",
    METHOD: "#79b3f2",
    BASELINE: "#b5a793",
    INPUT: "#e4e8ed",
    PLAYERS[0]: "#79b3f3",
    PLAYERS[1]: "#f09a66",
    PLAYERS[2]: "#63c7a1",
    PLAYERS[3]: "#cf98e0",
    PLAYERS[4]: "#d0b06a",
    PLAYERS[5]: "#ee8ab8",
    PLAYERS[6]: "#86bcc7",
    PLAYERS[7]: "#b0b6bf",
}
"""For each colour of the light figures, the colour that stands for it on a dark page. Every key is used once only."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_SYMBOLS = {"input": "square", "baseline": "circle-open", "method": "diamond"}
_COLOURS = {"input": INPUT, "baseline": BASELINE, "method": METHOD}
_LABEL_PX = 12
_CURVE_POINTS = 150


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, kw_only=True)
class Line:
    """One player's losses over one stage: ``steps`` and ``values`` are float ``(n,)``, steps rising, values finite."""

    player: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def missing_on_plane(document: Document, private: str, utility: str) -> list[str]:
    """The releases that the plane cannot show, for want of an attack's or a use's figure; all where it is empty."""
    there = {point.name for point in _points(document, private, utility)}
    return [release.name for release in document.releases if release.name not in there]


def plane(document: Document, private: str, utility: str, *, width: int = 680) -> go.Figure:
    """The privacy-utility plane: worst attack on ``private`` across, use of ``utility`` upwards, intervals both ways.

    ``width`` in pixels is the one that labels are placed for; the figure also reads well when it is somewhat wider.
    A filled square is the input, open circles are baselines, filled diamonds are methods. A baseline whose use is so
    far below the rest that it would flatten them is a triangle on the lower edge, its figure in its label.
    """
    points = _points(document, private, utility)
    narrow = width < 480
    height = 400 + 8 * max(0, len(points) - 8)
    left, right, top, bottom = 56, 12, 26, 52
    chance = next((point.attack.chance for point in points if point.attack.chance is not None), None)
    y_chance = next((point.use.chance for point in points if point.use.chance is not None), None)
    across = _range([point.x for point in points] + ([] if chance is None else [(100 * chance,)]))
    upwards = _range([point.y for point in points if not point.sunk])
    edge = upwards[0] + 12 / (height - top - bottom) * (upwards[1] - upwards[0])
    points = [replace(point, y=(edge,) * 3) if point.sunk else point for point in points]
    area = Box(left=left, top=top, right=width - right, bottom=height - bottom)

    code = points[0].use.code if points else ""
    figure = go.Figure()
    notes = _names(points, across, upwards, chance, area, narrow)
    if chance is not None:
        figure.add_trace(_dashes((100 * chance, 100 * chance), upwards))
        words: dict[str, object] = {
            "x": 100 * chance,
            "y": 1,
            "yref": "paper",
            "text": f"chance {share(chance)}",
            "showarrow": False,
            "xanchor": "left",
            "yanchor": "bottom",
            "font": {"color": MUTED, "size": 11},
            "xshift": -8,
        }
        notes = [words, *notes]
    if y_chance is not None and upwards[0] < _shown(code, y_chance) < upwards[1]:
        figure.add_trace(_dashes(across, (_shown(code, y_chance), _shown(code, y_chance))))
    figure.add_traces([_mark(point) for point in points])
    figure.update_layout(
        **_base(width, height),
        annotations=notes,  # all at once: plotly checks those that are there again with each that is added
        margin={"l": left, "r": right, "t": top, "b": bottom},
        xaxis=_axis(
            across, f"Worst attack on {private}, {metric(ATTACK).title}", ticks=6 if narrow else 9, percent=True
        ),
        yaxis=_axis(
            upwards, f"{use_name(utility)}, {metric(code).title}", ticks=7, percent=metric(code).style == "percent"
        ),
    )
    return figure


def losses(lines: Sequence[Line], *, colours: Mapping[str, str], width: int = 330) -> go.Figure:
    """The losses of one stage against the step, each line named at its end.

    The loss axis is logarithmic where every loss is positive and the largest is 30 times the smallest or more.
    ``colours`` gives each player's colour; ``width`` in pixels.
    """
    height, left, top, bottom = 210, 28, 8, 34
    names = {line.player: _shortened(line.player, 18) for line in lines}
    right = 10 + round(max((_text_width(name, 11) for name in names.values()), default=0))
    every = np.concatenate([line.values for line in lines]) if lines else np.array([0.0, 1.0])
    logarithmic = bool(every.min() > 0 and every.max() >= 30 * every.min())
    scaled = [np.log10(line.values) if logarithmic else line.values for line in lines]
    low, high = (float(f(np.concatenate(scaled))) if lines else float(f(every)) for f in (np.min, np.max))
    pad = 0.06 * (high - low) or 0.5
    low, high = low - pad, high + pad
    last = max((float(line.steps[-1]) for line in lines), default=1.0)
    first = min((float(line.steps[0]) for line in lines), default=0.0)

    figure = go.Figure()
    for line in lines:
        figure.add_trace(
            go.Scatter(
                x=_rounded(line.steps),
                y=_rounded(line.values),
                name=_escaped(line.player),
                mode="lines" if len(line.steps) > 1 else "markers",
                line={"color": colours[line.player], "width": 1.6},
                marker={"color": colours[line.player], "size": 6},
                hovertext=[
                    f"{_escaped(line.player)}<br>step {s:,.0f}: {v:.4g}"
                    for s, v in zip(line.steps, line.values, strict=True)
                ],
                hoverinfo="text",
                showlegend=False,
            )
        )
    plot_height = height - top - bottom
    ends = [(high - float(values[-1])) / (high - low) * plot_height for values in scaled]
    spread = _spread(ends, 13.0, plot_height)
    figure.update_layout(
        **_base(width, height),
        margin={"l": left, "r": right, "t": top, "b": bottom},
        xaxis={
            **_axis((first, last if last > first else first + 1), "step", ticks=4),
            "tickformat": "~s",
            "showgrid": False,
        },
        yaxis={**_axis((low, high), "", ticks=5), "tickformat": "~g", "automargin": True},
        annotations=[
            {
                "x": 1,
                "xref": "paper",
                "y": 1 - at / plot_height,
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "middle",
                "xshift": 5,
                "text": _escaped(names[line.player]),
                "showarrow": False,
                "font": {"color": colours[line.player], "size": 11},
            }
            for line, at in zip(lines, spread, strict=True)
        ],
    )
    if logarithmic:
        wide = high - low >= 3  # over fewer decades, labels at powers of ten alone are too sparse to read by
        figure.update_yaxes(type="log", tickformat="~g", dtick=1 if wide else "D2", nticks=0)
    return figure


def people(x: Sequence[float], y: Sequence[float], person: Sequence[int], *, width: int = 250) -> go.Figure:
    """Points of some people on a plane without units; each person has a colour, and from the ninth on another mark."""
    symbols = ("circle", "diamond", "square", "cross")
    figure = go.Figure()
    for who in sorted(set(person)):
        rows = [i for i, p in enumerate(person) if p == who]
        colour, symbol = PLAYERS[who % len(PLAYERS)], symbols[who // len(PLAYERS) % len(symbols)]
        figure.add_trace(
            go.Scatter(
                x=[x[i] for i in rows],
                y=[y[i] for i in rows],
                mode="markers",
                marker={"color": colour, "size": 6, "symbol": symbol, "opacity": 0.85},
                hovertext=f"person {who + 1}",
                hoverinfo="text",
            )
        )
    bare = {"showgrid": False, "zeroline": False, "showticklabels": False, "showline": True, "linecolor": RULE}
    figure.update_layout(
        **_base(width, width),
        margin={"l": 4, "r": 4, "t": 4, "b": 4},
        xaxis={**bare, "mirror": True, "range": list(_range([tuple(x)]))},
        yaxis={**bare, "mirror": True, "range": list(_range([tuple(y)]))},
    )
    return figure


def player_colours(players: Iterable[str]) -> dict[str, str]:
    """A colour for each player, by its place among the sorted names: the same in every figure of a report."""
    return {name: PLAYERS[i % len(PLAYERS)] for i, name in enumerate(sorted(set(players)))}


def thinned(line: Line, most: int = _CURVE_POINTS) -> Line:
    """``line`` with at most ``most`` points: the means of runs of equal length (steps and losses alike)."""
    n = len(line.steps)
    if n <= most:
        return line
    edges = np.linspace(0, n, most + 1).astype(np.int64)
    lengths = np.diff(edges)
    steps = np.add.reduceat(line.steps, edges[:-1]) / lengths
    values = np.add.reduceat(line.values, edges[:-1]) / lengths
    return Line(player=line.player, steps=steps, values=values)


@dataclass(frozen=True, kw_only=True)
class _Point:
    """One release on the plane: ``x`` and ``y`` are (low, value, high) in the units of the axes."""

    name: str
    role: str
    attack: Finding
    use: Finding
    x: tuple[float, ...]
    y: tuple[float, ...]
    sunk: bool


def _points(document: Document, private: str, utility: str) -> list[_Point]:
    points = []
    codes = ATTACK, document.primary_use(utility)
    for release in document.releases:
        attack, use = document.attack(release.name, private), document.use(release.name, utility)
        if attack is not None and use is not None and (attack.code, use.code) == codes:  # others have other axes
            points.append(
                _Point(
                    name=release.name,
                    role=release.role,
                    attack=attack,
                    use=use,
                    x=_span(attack),
                    y=_span(use),
                    sunk=False,
                )
            )
    core = [end for point in points if point.role != "baseline" for end in point.y]
    if len(core) < 6:  # the input and one method at least, else there is nothing to keep readable
        return points
    floor = min(core) - 1.5 * (max(core) - min(core))
    return [replace(point, sunk=point.role == "baseline" and point.y[1] < floor) for point in points]


def _span(finding: Finding) -> tuple[float, ...]:
    """Low, value and high as the axes show them; the value itself stands for an end that is missing.

    Limits in a file of anybody's may leave their estimate outside: the ends returned never do, so that no bar points
    backwards.
    """
    value = finding.value or 0.0
    low, high = (value if end is None else end for end in (finding.low, finding.high))
    return tuple(_shown(finding.code, end) for end in (min(low, value), value, max(high, value)))


def _shown(code: str, value: float) -> float:
    return 100 * value if metric(code).style == "percent" else value


def _mark(point: _Point) -> go.Scatter:
    colour = _COLOURS[point.role]
    symbol = "triangle-down-open" if point.sunk else _SYMBOLS[point.role]

    def bars(span: tuple[float, ...]) -> dict[str, object]:
        low, value, high = span
        return {
            "type": "data",
            "symmetric": False,
            "array": [high - value],
            "arrayminus": [value - low],
            "thickness": 1.1,
            "width": 3,
            "color": colour,
        }

    outline = {"width": 2 if symbol.endswith("open") else 0, "color": colour}
    return go.Scatter(
        x=[point.x[1]],
        y=[point.y[1]],
        mode="markers",
        name=_escaped(point.name),
        showlegend=False,
        hoverinfo="text",
        marker={"symbol": symbol, "size": 10, "color": colour, "line": outline},
        error_x=bars(point.x),
        error_y=bars(point.y),
        hovertext=[
            f"<b>{_escaped(point.name)}</b>"
            f"<br>worst attack ({_escaped(point.attack.attacker)}): {_with_interval(point.attack)}"
            f"<br>use ({_escaped(point.use.attacker)}): {_with_interval(point.use)}"
        ],
    )


def _dashes(x: tuple[float, ...], y: tuple[float, ...]) -> go.Scatter:
    return go.Scatter(
        x=x, y=y, mode="lines", line={"color": MUTED, "width": 1, "dash": "4px,3px"}, hoverinfo="skip", showlegend=False
    )


def _with_interval(finding: Finding) -> str:
    both = interval(finding.code, finding.low, finding.high)
    return number(finding.code, finding.value) + (f" ({both})" if both else "")


def _range(spans: Sequence[tuple[float, ...]]) -> tuple[float, float]:
    """The axis range that holds every interval, with room for markers and labels."""
    values = [value for span in spans for value in span]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    return low - pad, high + pad


def _base(width: int, height: int) -> dict[str, object]:
    # plotly's default template would add six kilobytes to each figure, and colours that the page does not know.
    return {
        "template": "none",
        "width": width,
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": _LABEL_PX, "color": INK},
        "hoverlabel": {
            "bgcolor": PAPER,
            "bordercolor": MUTED,
            "font": {"color": INK, "family": FONT, "size": 12},
            "align": "left",
        },
        "hovermode": "closest",
        "showlegend": False,
    }


def _axis(span: tuple[float, float], title: str, *, ticks: int, percent: bool = False) -> dict[str, object]:
    axis: dict[str, object] = {
        "range": list(span),
        "nticks": ticks,
        "gridcolor": RULE,
        "linecolor": MUTED,
        "showline": True,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": MUTED,
        "tickfont": {"size": 11, "color": MUTED},
    }
    if title:  # without one no room is left for it
        axis["title"] = {"text": _escaped(title), "font": {"size": 12, "color": MUTED}, "standoff": 8}
    return axis | ({"ticksuffix": "\u00a0%"} if percent else {})


def _names(
    points: Sequence[_Point],
    across: tuple[float, float],
    upwards: tuple[float, float],
    chance: float | None,
    area: Box,
    narrow: bool,
) -> list[dict[str, object]]:
    """An annotation for each point: its name, moved off the other names, markers and bars, on a thin leader."""

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            area.left + (x - across[0]) / (across[1] - across[0]) * (area.right - area.left),
            area.bottom - (y - upwards[0]) / (upwards[1] - upwards[0]) * (area.bottom - area.top),
        )

    line = at(100 * chance, upwards[0])[0] if chance is not None else area.left
    obstacles = [Box(left=line - 2, top=area.top, right=line + 2, bottom=area.bottom)]
    centres, texts = [], []
    for point in points:
        x, y = at(point.x[1], point.y[1])
        (left, bottom), (right, top) = at(point.x[0], point.y[0]), at(point.x[2], point.y[2])
        centres.append((x, y))
        obstacles += [
            Box(left=x - 7, top=y - 7, right=x + 7, bottom=y + 7),
            Box(left=left - 3, top=y - 3, right=right + 3, bottom=y + 3),
            Box(left=x - 3, top=top - 3, right=x + 3, bottom=bottom + 3),
        ]
        figure = f" ({number(point.use.code, point.use.value)})" if point.sunk else ""
        texts.append(_shortened(point.name, 20 if narrow else 28) + figure)
    boxes = _placed(centres, [_text_width(text, _LABEL_PX) for text in texts], obstacles, area)
    notes: list[dict[str, object]] = []
    for point, text, (x, y), box in zip(points, texts, centres, boxes, strict=True):
        far = max(box.left - x, x - box.right, 0.0) + max(box.top - y, y - box.bottom, 0.0) > 20
        anchor = "left" if box.left >= x else "right" if box.right <= x else "center"
        tail = {"left": box.left, "right": box.right, "center": (box.left + box.right) / 2}[anchor] - x
        colour = _COLOURS[point.role]
        notes.append(
            {
                "x": point.x[1],
                "y": point.y[1],
                "text": _escaped(text),
                "showarrow": True,
                "arrowhead": 0,
                "arrowwidth": 0.8,
                "arrowcolor": colour if far else "rgba(0,0,0,0)",
                "ax": round(tail, 1),
                "ay": round((box.top + box.bottom) / 2 - y, 1),
                "standoff": 7,
                "xanchor": anchor,
                "yanchor": "middle",
                "borderpad": 0,
                "font": {"color": colour, "size": _LABEL_PX},
            }
        )
    return notes


def _placed(
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
        found = list(_candidates(centre, width))
        self.boxes = _corners([box for box, _, _ in found])
        self.prices = np.array([price for _, _, price in found])
        self.areas = (self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1])
        self.leaders = _corners([bit for _, bits, _ in found for bit in bits])
        self.owner = np.repeat(np.arange(len(found)), [len(bits) for _, bits, _ in found])
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


def _spread(places: Sequence[float], gap: float, length: float) -> list[float]:
    """``places`` on a line of ``length``, moved as little as need be to lie ``gap`` apart where there is room."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    gap = min(gap, length / max(len(places), 1))
    found = [places[i] for i in order]
    for i in range(1, len(found)):
        found[i] = max(found[i], found[i - 1] + gap)
    limit = length
    for i in reversed(range(len(found))):
        found[i] = min(found[i], limit)
        limit = found[i] - gap
    result = [0.0] * len(places)
    for i, place in zip(order, found, strict=True):
        result[i] = place
    return result


def _text_width(text: str, size: float) -> float:
    """About how wide ``text`` is in a sans-serif font of ``size`` pixels."""
    wide = sum(1.0 if c in "mwMW@%" or ord(c) > 0x2E80 else 0.32 if c in "iljtfI.,:'|!() " else 0.6 for c in text)
    return size * wide


def _shortened(text: str, most: int) -> str:
    """``text`` in at most ``most`` characters, its middle left out: both ends of a name tell it from others."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return text[: most - 1 - tail].rstrip() + "\u2026" + text[-tail:].lstrip()


def _escaped(text: str) -> str:
    """``text`` as plotly shows it literally: it reads labels as a small subset of HTML."""
    return html.escape(text, quote=False)


def _rounded(values: NDArray[np.float64]) -> list[float]:
    """Four significant digits: what a screen can show, and a fifth of the bytes."""
    return [float(f"{value:.4g}") for value in values]
