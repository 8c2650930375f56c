"""Lay out an audit as one HTML file that needs no network: the verdict first, then what it rests on."""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
from markupsafe import Markup
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from veil.errors import InputError, printable
from veil.files import write_text
from veil.findings import CODES
from veil.findings.codes import ATTACK
from veil.foreign import one_line, read_bytes
from veil.parquet import read_curves
from veil.report import biometric, plots, rates, tables, threats, words
from veil.report.document import Document, read
from veil.report.html import template
from veil.report.verdict import controls, doubted, guessed, share_of_luck, verdicts

PLANE_WIDTHS = (320, 480, 680)
"""The widths in pixels that the plane's labels are placed for; the page takes the widest that fits."""
CURVE_WIDTHS = (320,)
MAP_WIDTHS = (250,)
Figures = dict[str, Sequence[tuple[int, go.Figure]]]
"""By the id of its place, a figure in the widths in pixels that it was laid out for, narrowest first."""
_MOST_LINES = 400  # of training losses of a release
_MOST_PICTURE = 1 << 26  # bytes


def write(out: Path) -> Path:
    """Write ``out/report.html`` from ``out/findings.json`` and the pictures and curves that it names.

    Nothing but these files is read, and the same files give the same bytes. A picture or a curve that is missing or
    broken is named in the page. Raises InputError for a missing, broken or foreign ``findings.json``.
    """
    return write_text(out / "report.html", render(read(out), out), "report")


def render(document: Document, out: Path) -> str:
    """The page for ``document``; pictures and curves are read from ``out``."""
    figures: Figures = {}
    view = {
        "document": document,
        "title": _title(document),
        **_trust(document),
        **_tables(document),
        "planes": _planes(document, figures),
        "pictures": [_picture(out, p.file, p.title, p.caption) for p in document.pictures],
        "curves": _curves(document, out, figures),
        "maps": _maps(document, figures),
        "rates": _rates(document, figures),
        "certified": any(finding.role == "bound" for finding in document.findings),
        "threats": threats.threats(document),
        "judged": threats.judged(document),
        "configs": [(release, tables.settings(release.config)) for release in document.releases],
        "value": tables.value_cell,
        "chance": words.chance,
        "words": words.STATUS_WORDS,
    }
    return template("report.html").render(
        **view,
        figures=_script(figures),
        plotly=Markup(get_plotlyjs()) if figures else None,
    )


def _trust(document: Document) -> dict[str, object]:
    """The verdict, and what speaks against it."""
    checks = controls(document)
    return {
        "checks": checks,
        "passed": sum(check.outcome == "passed" for check in checks),
        "failed": [check for check in checks if check.outcome == "failed"],
        "missing": [check for check in checks if check.outcome == "missing"],
        "lost": [finding for finding in document.findings if finding.status == "did_not_converge"],
        "doubted": doubted,
        "lucky": share_of_luck(checks),
        "guessed": guessed(document),
        "verdicts": verdicts(document, checks),
    }


def _tables(document: Document) -> dict[str, object]:
    return {
        "releases": tables.release_table(document),
        "within": tables.within_table(document),
        "attackers": tables.attacker_tables(document, ATTACK),
        "areas": tables.attacker_tables(document, CODES[ATTACK].stand_in),
        "matchers": tables.matcher_tables(document),
        "together": tables.together_table(document),
        "crossed": tables.crossed_table(document),
        "biometric": biometric.biometric_table(document),
        "by_group": biometric.group_tables(document),
        "tradeoffs": biometric.tradeoff_table(document),
        "transfer": tables.transfer_tables(document),
        "inversion": tables.inversion_tables(document),
        "others": tables.other_findings(document),
        "labels": tables.label_counts(document),
        "splits": tables.split_counts(document),
    }


def _title(document: Document) -> str:
    judged = [release for release in document.releases if release.judged]
    redrawn = any(finding.family == "inversion" for finding in document.findings)
    names = words.listed(document.data.private) or ("the picture itself" if redrawn else "no private attribute")
    if document.of_scores:
        return (
            f"Audit of scores: how well {len(judged)} system{'s' * (len(judged) != 1)} match{'es' * (len(judged) == 1)}"
        )
    if not judged:
        return f"Audit of unprotected data: what it tells of {names}"
    protected = "" if any(release.role == "baseline" for release in judged) else "protected "
    return f"Audit of {len(judged)} {protected}release{'s' * (len(judged) != 1)}: hiding {names}"


# -- figures ----------------------------------------------------------------------------------------------------------


def _script(figures: Figures) -> Markup:
    """What the page's script reads: each figure's variants, and the width on paper, which is the widest."""
    plain = {
        name: {
            "paper": variants[-1][0],
            "variants": [{"width": width, **json.loads(figure.to_json())} for width, figure in variants],
        }
        for name, variants in figures.items()
    }
    text = json.dumps({"dark": dict(plots.DARK), "figures": plain}, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))  # which is all that could end the script element that holds it


def _planes(document: Document, figures: Figures) -> list[dict[str, object]]:
    """A plane for each private attribute and use, and the releases that it cannot show."""
    planes: list[dict[str, object]] = []
    for private in document.data.private:
        for use in document.data.utility:
            missing = plots.missing_on_plane(document, private, use)
            name = f"plane-{len(planes) + 1}" if len(missing) < len(document.releases) else ""
            if name:
                figures[name] = [(w, plots.plane(document, private, use, width=w)) for w in PLANE_WIDTHS]
            planes.append(
                {"id": name, "private": private, "use": words.use_name(use), "missing": words.listed(missing)}
            )
    return planes


def _maps(document: Document, figures: Figures) -> list[dict[str, str]]:
    """Where people lie among each release."""
    maps = []
    for number, points in enumerate(document.maps, 1):
        name = f"map-{number}"
        figures[name] = [(w, plots.people(points.x, points.y, points.person, width=w)) for w in MAP_WIDTHS]
        maps.append({"id": name, "release": points.release})
    return maps


def _rates(document: Document, figures: Figures) -> list[dict[str, str]]:
    """The DET and the CMC plot, where there are such curves."""
    heads = {"det": "DET: errors against each other", "cmc": "CMC: mates found by rank"}
    places = []
    for kind in rates.KINDS:
        made = rates.drawn(document, kind)
        if made is not None:
            figures[f"rates-{kind}"] = made.figures
            places.append({"id": f"rates-{kind}", "title": heads[kind], "left_out": made.left_out})
    return places


def _curves(document: Document, out: Path, figures: Figures) -> list[dict[str, object]]:
    """Per release its stages' figures, or the reason why there are none."""
    read_back: list[tuple[str, dict[str, list[plots.Line]], str]] = []
    for entry in document.curves:
        try:
            read_back.append((entry.release, _read_curves(_inside(out, entry.file)), ""))
        except InputError as error:
            read_back.append((entry.release, {}, printable(f"{entry.file}: {error}")))
    players = [line.player for _, stages, _ in read_back for lines in stages.values() for line in lines]
    colours = plots.player_colours(players)
    curves: list[dict[str, object]] = []
    count = 0
    for release, stages, fault in read_back:
        panels = []
        for stage, lines in stages.items():
            count += 1
            name = f"curve-{count}"
            figures[name] = [(w, plots.losses(lines, colours=colours, width=w)) for w in CURVE_WIDTHS]
            panels.append({"id": name, "stage": stage})
        curves.append({"release": release, "panels": panels, "fault": fault})
    return curves


def _read_curves(path: Path) -> dict[str, list[plots.Line]]:
    """Training losses by stage, thinned; stages and players in the order in which they first appear."""
    if not path.exists():
        raise InputError("there is no such file")
    try:
        table = read_curves(path)
    except InputError as error:  # which names its folders
        said = str(error).removeprefix(f"{path}: ")
        raise InputError(f"is not a table of step, stage, player and loss ({said})") from None
    steps, values = (np.asarray(table[name].to_numpy(), np.float64) for name in ("step", "loss"))
    stages, players = (_texts(table[name].combine_chunks()) for name in ("stage", "player"))
    if len(set(stages)) * len(set(players)) > _MOST_LINES:
        raise InputError(f"has {len(set(stages)):,} stages of {len(set(players)):,} players, too many to draw")
    finite = np.isfinite(steps) & np.isfinite(values)
    lines: dict[str, list[plots.Line]] = {}
    for stage in dict.fromkeys(stages):
        for player in dict.fromkeys(players[stages == stage]):
            rows = np.flatnonzero((stages == stage) & (players == player) & finite)
            rows = rows[np.argsort(steps[rows], kind="stable")]
            if len(rows):
                line = plots.Line(player=str(player), steps=steps[rows], values=values[rows])
                lines.setdefault(str(stage), []).append(plots.thinned(line))
    if not lines:
        raise InputError("holds no finite loss")
    return lines


def _texts(column: pa.DictionaryArray) -> NDArray[np.object_]:
    """A column of texts ``(n,)`` as they may be shown; "" where there is none."""
    texts = np.array([*(printable(text or "") for text in column.dictionary.to_pylist()), ""], object)
    column_texts: NDArray[np.object_] = texts[column.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)]
    return column_texts


# -- pictures ---------------------------------------------------------------------------------------------------------


def _picture(out: Path, file: str, title: str, caption: str) -> dict[str, object]:
    view: dict[str, object] = {"title": title, "caption": caption, "fault": "", "uri": ""}
    path = Path(file)
    try:
        path = _inside(out, file)
        data = read_bytes(path, _MOST_PICTURE)
        # A PNG begins with its signature; its first chunk is IHDR: width and height in pixels, big-endian.
        if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
            raise InputError("is not a PNG picture")
        width, height = struct.unpack(">II", data[16:24])
    except FileNotFoundError:
        view["fault"] = printable(f"{file}: there is no such file")
    except (InputError, OSError, struct.error) as error:
        view["fault"] = printable(f"{file}: {one_line(error).removeprefix(f'{path}: ')}")
    else:
        zoom = 2 if width <= 280 else 1  # a strip of thumbnails is too small to judge at its own size
        uri = "data:image/png;base64," + base64.b64encode(data).decode()
        view |= {"uri": uri, "width": width * zoom, "height": height * zoom, "zoomed": zoom > 1}
    return view


def _inside(out: Path, file: str) -> Path:
    """The path of a file named in the findings; InputError where it would lead out of ``out``."""
    name = PurePosixPath(file)
    path = Path(os.path.realpath(out / name))  # which raises nothing for links that run in a loop
    if name.is_absolute() or not path.is_relative_to(os.path.realpath(out)):
        raise InputError("lies outside the report's folder and was not read")
    return path
