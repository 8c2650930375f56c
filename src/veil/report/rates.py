"""Curves of matching, all releases in one plot: DET, false non-match against false match rates, and CMC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from veil.findings.rates import KINDS
from veil.report import plots
from veil.report.document import Curve, Document, Release
from veil.report.labels import shortened
from veil.report.words import listed

__all__ = ["KINDS", "WIDTHS", "Drawn", "drawn"]

WIDTHS = (320, 480, 640)
"""The widths in pixels that curves are laid out for."""
_DASHES = ("solid", "dash", "dot")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A plot and what it leaves out, as words; "" where that is nothing."""

    figures: Sequence[tuple[int, go.Figure]]
    left_out: str


def drawn(document: Document, kind: str) -> Drawn | None:
    """The curves of a kind in one plot for each width; None where there are none to draw."""
    curves = {curve.release: _positive(curve) if kind == "det" else curve for curve in document.rates_of(kind)}
    lines = [(release, curves[release.name]) for release in document.releases if release.name in curves]
    shown = [(release, curve) for release, curve in lines if curve.x]
    if not shown:
        return None
    names = [release.name for release, curve in lines if not curve.x]
    left_out = f"Not drawn, as nowhere both errors are above 0: {listed(names)}." if names else ""
    return Drawn(figures=[(width, _figure(kind, shown, width)) for width in WIDTHS], left_out=left_out)


def _positive(curve: Curve) -> Curve:
    """The points of a curve that have a place on logarithmic axes."""
    kept = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if x > 0 and y > 0]
    return Curve(release=curve.release, kind=curve.kind, attacker=curve.attacker,
                 x=tuple(x for x, _ in kept), y=tuple(y for _, y in kept))  # fmt: skip


def _figure(kind: str, lines: Sequence[tuple[Release, Curve]], width: int) -> go.Figure:
    narrow = width < 480
    height = 300 if narrow else 380
    figure = go.Figure()
    methods = 0
    for release, curve in lines:
        colour, dash = plots.role_colour(release.role), "solid"
        if release.role == "method":
            colour = plots.PLAYERS[methods % len(plots.PLAYERS)]
            dash = _DASHES[methods // len(plots.PLAYERS) % len(_DASHES)]
            methods += 1
        elif release.role == "baseline":
            dash = "4px,3px"
        figure.add_trace(_line(kind, release, curve, {"color": colour, "width": 1.8, "dash": dash}, narrow))
    x, y = ([value for _, curve in lines for value in getattr(curve, name)] for name in ("x", "y"))
    heads = ("false match rate", "false non-match rate") if kind == "det" else ("rank", "mates found")
    across, upwards = (plots.axis(span, head, ticks=6) for span, head in zip(_spans(kind, x, y), heads, strict=True))
    if kind == "det":
        across |= {"type": "log", "dtick": 1, "tickformat": "~%", "nticks": 0}
        upwards |= {"type": "log", "tickformat": "~%", "dtick": 1, "nticks": 0}
        if max(y) / min(y) < 30:  # over less than two decades powers of ten are too few to read by
            upwards |= {"dtick": "D2"}
    else:
        across |= {"tickvals": [1, 5, 10, 15, 20]}
        upwards |= {"tickformat": "~%"}
    corner = {"x": 0.02, "xanchor": "left"} if kind == "det" else {"x": 0.99, "xanchor": "right"}  # where no line is
    figure.update_layout(
        **plots.base(width, height) | {"showlegend": True},
        margin={"l": 60, "r": 20, "t": 10, "b": 50},
        xaxis=across,
        yaxis=upwards,
        legend={
            **corner,
            "y": 0.03,
            "yanchor": "bottom",
            "font": {"size": 11, "color": plots.INK},
            "bgcolor": "rgba(0,0,0,0)",
        },
    )
    return figure


def _spans(kind: str, x: Sequence[float], y: Sequence[float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """What the axes show; of logarithmic ones the logarithms."""
    if kind == "det":
        low, high = math.log10(min(y)), math.log10(max(y))
        pad = 0.06 * (high - low) or 0.2
        return (math.log10(min(x)), 0.02), (low - pad, min(high + pad, 0.02))
    pad = 0.06 * (max(y) - min(y)) or 0.02
    return (0.5, max(x) + 0.5), (max(min(y) - pad, -0.02), max(y) + pad)


def _line(kind: str, release: Release, curve: Curve, line: dict[str, object], narrow: bool) -> go.Scatter:
    name = plots.escaped(shortened(release.name, 16 if narrow else 28))
    if kind == "det":
        said = [f"FNMR {y:.3%} at FMR {x:.3g}" for x, y in zip(curve.x, curve.y, strict=True)]
    else:
        said = [f"{y:.1%} by rank {x:g}" for x, y in zip(curve.x, curve.y, strict=True)]
    whole = plots.escaped(f"{release.name} ({curve.attacker})")
    return go.Scatter(
        x=list(curve.x), y=list(curve.y), mode="lines", name=name, line=line, hoverinfo="text",
        hovertext=[f"<b>{whole}</b><br>{each}" for each in said],
    )  # fmt: skip
