"""The report's figures: plotly figures from findings and training losses, by pure functions.

``plane`` draws what a release still gives away against what it is still good for; ``losses`` draws the training curves
of one stage. Figures are light by default; :data:`DARK` gives for each light colour the one that replaces it on a dark
page. Labels stand beside the points, so no legend is needed: they are placed by ``labels``, for a width in pixels.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from veil.findings import CODES, Finding
from veil.findings.codes import ATTACK
from veil.report.document import Document
from veil.report.labels import Box, placed, shortened, spread, text_width
from veil.report.words import interval, number, share, use_name

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
class Line:
    """One player's losses over one stage: ``steps`` and ``values`` are float ``(n,)``, steps rising, values finite."""

    player: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def missing_on_plane(document: Document, private: str, utility: str) -> list[str]:
    """The releases that the plane cannot show, for want of an attack's or a use's figure; all where it is empty."""
    drawn = {point.name for point in _points(document, private, utility)}
    return [release.name for release in document.releases if release.name not in drawn]


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
    use_chance = next((point.use.chance for point in points if point.use.chance is not None), None)
    across = _range([point.x for point in points] + ([] if chance is None else [(100 * chance,)]))
    upwards = _range([point.y for point in points if not point.sunk])
    edge = upwards[0] + 12 / (height - top - bottom) * (upwards[1] - upwards[0])
    points = [replace(point, y=(edge,) * 3) if point.sunk else point for point in points]
    area = Box(left=left, top=top, right=width - right, bottom=height - bottom)

    use = points[0].use.code if points else ""
    figure = go.Figure()
    annotations = _names(points, across, upwards, chance, area, narrow)
    if chance is not None:
        figure.add_trace(_dashes((100 * chance, 100 * chance), upwards))
        annotations = [_chance_label(chance), *annotations]
    if use_chance is not None and upwards[0] < _scaled(use, use_chance) < upwards[1]:
        figure.add_trace(_dashes(across, (_scaled(use, use_chance),) * 2))
    figure.add_traces([_mark(point) for point in points])
    attack_title = f"Worst attack on {private}, {CODES[ATTACK].title}"
    use_title = f"{use_name(utility)}, {CODES[use].title}"
    figure.update_layout(
        **base(width, height),
        annotations=annotations,  # all at once: plotly checks those that are there again with each that is added
        margin={"l": left, "r": right, "t": top, "b": bottom},
        xaxis=axis(across, attack_title, ticks=6 if narrow else 9, percent=True),
        yaxis=axis(upwards, use_title, ticks=7, percent=CODES[use].style == "percent"),
    )
    return figure


def losses(lines: Sequence[Line], *, colours: Mapping[str, str], width: int = 330) -> go.Figure:
    """The losses of one stage against the step, each line named at its end.

    The loss axis is logarithmic where every loss is positive and the largest is 30 times the smallest or more.
    ``colours`` gives each player's colour; ``width`` in pixels.
    """
    height, left, top, bottom = 210, 28, 8, 34
    names = {line.player: shortened(line.player, 18) for line in lines}
    right = 10 + round(max((text_width(name, 11) for name in names.values()), default=0))
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
        figure.add_trace(_loss(line, colours[line.player]))
    plot_height = height - top - bottom
    ends = [(high - float(values[-1])) / (high - low) * plot_height for values in scaled]
    steps = axis((first, last if last > first else first + 1), "step", ticks=4)
    figure.update_layout(
        **base(width, height),
        margin={"l": left, "r": right, "t": top, "b": bottom},
        xaxis={**steps, "tickformat": "~s", "showgrid": False},
        yaxis={**axis((low, high), "", ticks=5), "tickformat": "~g", "automargin": True},
        annotations=[
            _end_label(names[line.player], colours[line.player], 1 - at / plot_height)
            for line, at in zip(lines, spread(ends, 13.0, plot_height), strict=True)
        ],
    )
    if logarithmic:
        wide = high - low >= 3  # over fewer decades, labels at powers of ten alone are too sparse to read by
        figure.update_yaxes(type="log", tickformat="~g", dtick=1 if wide else "D2", nticks=0)
    return figure


def _loss(line: Line, colour: str) -> go.Scatter:
    return go.Scatter(
        x=_rounded(line.steps),
        y=_rounded(line.values),
        name=escaped(line.player),
        mode="lines" if len(line.steps) > 1 else "markers",
        line={"color": colour, "width": 1.6},
        marker={"color": colour, "size": 6},
        hovertext=[
            f"{escaped(line.player)}<br>step {s:,.0f}: {v:.4g}" for s, v in zip(line.steps, line.values, strict=True)
        ],
        hoverinfo="text",
        showlegend=False,
    )


def _end_label(name: str, colour: str, y: float) -> dict[str, object]:
    """A player's name at the end of its line, ``y`` from the bottom (0) to the top (1) of the plot."""
    return {
        "x": 1,
        "xref": "paper",
        "y": y,
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "middle",
        "xshift": 5,
        "text": escaped(name),
        "showarrow": False,
        "font": {"color": colour, "size": 11},
    }


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
        **base(width, width),
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
            x, y = _span(attack), _span(use)
            points.append(_Point(name=release.name, role=release.role, attack=attack, use=use, x=x, y=y, sunk=False))
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
    return tuple(_scaled(finding.code, end) for end in (min(low, value), value, max(high, value)))


def _scaled(code: str, value: float) -> float:
    """A figure in the unit of its axis."""
    return 100 * value if CODES[code].style == "percent" else value


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
        name=escaped(point.name),
        showlegend=False,
        hoverinfo="text",
        marker={"symbol": symbol, "size": 10, "color": colour, "line": outline},
        error_x=bars(point.x),
        error_y=bars(point.y),
        hovertext=[
            f"<b>{escaped(point.name)}</b>"
            f"<br>worst attack ({escaped(point.attack.attacker)}): {_with_interval(point.attack)}"
            f"<br>use ({escaped(point.use.attacker)}): {_with_interval(point.use)}"
        ],
    )


def _chance_label(chance: float) -> dict[str, object]:
    """Says at the top of the plane what its dashed line is."""
    return {
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


def role_colour(role: str) -> str:
    """The colour of a release by its role."""
    return _COLOURS[role]


def base(width: int, height: int) -> dict[str, object]:
    """The layout that all figures share."""
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


def axis(span: tuple[float, float], title: str, *, ticks: int, percent: bool = False) -> dict[str, object]:
    """An axis over a span, of about so many ticks."""
    made: dict[str, object] = {
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
        made["title"] = {"text": escaped(title), "font": {"size": 12, "color": MUTED}, "standoff": 8}
    return made | ({"ticksuffix": "\u00a0%"} if percent else {})


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
        use = f" ({number(point.use.code, point.use.value)})" if point.sunk else ""
        texts.append(shortened(point.name, 20 if narrow else 28) + use)
    boxes = placed(centres, [text_width(text, _LABEL_PX) for text in texts], obstacles, area)
    annotations: list[dict[str, object]] = []
    for point, text, (x, y), box in zip(points, texts, centres, boxes, strict=True):
        far = max(box.left - x, x - box.right, 0.0) + max(box.top - y, y - box.bottom, 0.0) > 20
        anchor = "left" if box.left >= x else "right" if box.right <= x else "center"
        tail = {"left": box.left, "right": box.right, "center": (box.left + box.right) / 2}[anchor] - x
        colour = _COLOURS[point.role]
        annotations.append(
            {
                "x": point.x[1],
                "y": point.y[1],
                "text": escaped(text),
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
    return annotations


def escaped(text: str) -> str:
    """``text`` as plotly shows it literally: it reads labels as a small subset of HTML."""
    return html.escape(text, quote=False)


def _rounded(values: NDArray[np.float64]) -> list[float]:
    """Four significant digits: what a screen can show, and a fifth of the bytes."""
    return [float(f"{value:.4g}") for value in values]
