"""Curves and group rates from findings to the page and the gate."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import veil
from veil import findings as files
from veil.errors import InputError
from veil.findings import Finding, Measurement
from veil.report import document, page, plots, rates

NAMES = ("Input", "A <b>", "Perfect")
ROLES = ("input", "method", "method")


def figure(release: str, code: str, target: str, value: float, role: str = "utility", chance: float = 0.5) -> Finding:
    it = Measurement(release=release, target=target, attacker="cosine", role=role, n=1000)
    return it.measured(code, (value, 0.9 * value, 1.1 * value), chance=chance, worst=True)


def whole(curves: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """An audit of which matching alone was measured."""
    found = []
    for i, name in enumerate(NAMES):
        found += [
            figure(name, "verification.auc", "identity", 0.8),
            figure(name, "verification.fnmr_at_fmr_0.001", "identity", 0.001 * (i + 1)),
            figure(name, "search.cmc_rank_1", "identity", 0.7),
            figure(name, "verification.group_fmr", "identity|gender=female", 0.001),
            figure(name, "verification.group_fmr", "identity|gender=male", 0.002),
            figure(name, "verification.group_fnmr", "identity|gender=female", 0.1),
            figure(name, "verification.group_fmr_ratio", "identity|by gender", 2.0),
            figure(name, "attribute.suppression_rate", "gender", 0.4, "attack"),
        ]
    return files.document(
        seed=0, command="veil audit",
        data={"private": ["gender"], "utility": ["identity"], "identities": 10, "notes": []},
        releases=[{"name": name, "role": role, "named": role == "method"}
                  for name, role in zip(NAMES, ROLES, strict=True)],
        findings=found, rates=default() if curves is None else curves,
    )  # fmt: skip


def default() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for name in NAMES:
        y = [0.0] * 3 if name == "Perfect" else [0.5, 0.01, 0.0]
        made.append({"release": name, "kind": "det", "attacker": "cosine", "x": [1e-4, 0.1, 1.0], "y": y})
        made.append({"release": name, "kind": "cmc", "attacker": "cosine", "x": [1.0, 2.0], "y": [0.7, 0.9]})
    return made


def test_curves_come_back_as_they_were_written(tmp_path: Path) -> None:
    files.write(tmp_path, whole())
    assert files.read(tmp_path)["rates"] == default()
    read = document.read(tmp_path)
    assert [(c.release, c.y) for c in read.rates_of("det")][1] == ("A <b>", (0.5, 0.01, 0.0))


def test_findings_of_before_there_were_curves_are_read(tmp_path: Path) -> None:
    path = files.write(tmp_path, whole())
    raw = json.loads(path.read_text())
    del raw["rates"], raw["scores"]
    path.write_text(json.dumps(raw))
    assert document.read(tmp_path).rates == ()
    assert 'id="rates-det"' not in page.write(tmp_path).read_text()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"y": [0.5, 2.0, 0.0]}, r"rates\[0\].y must lie in 0..1, got 2.0"),
        ({"x": [-1.0, 0.1, 1.0]}, r"rates\[0\].x must lie in 0..1, got -1.0"),
        ({"y": [0.5]}, r"rates\[0\].y must be as many as x \(3\), got 1"),
        ({"kind": "roc"}, r"rates\[0\].kind must be"),
        ({"release": "Nobody"}, r"rates\[0\].release must be the name of a release"),
        ({"x": [0.5] * 1001, "y": [0.5] * 1001}, "at most 1000 points"),
        ({"more": 1}, "more"),
    ],
)
def test_curves_that_break_a_rule_are_refused(changes: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=why):
        files.write(tmp_path, whole([default()[0] | changes]))


def test_all_releases_are_in_one_plot_of_each_kind(tmp_path: Path) -> None:
    text = page.write(files.write(tmp_path, whole()).parent).read_text()
    assert 'id="rates-det"' in text
    assert 'id="rates-cmc"' in text
    assert "Not drawn, as nowhere both errors are above 0: Perfect." in text
    written = document.read(tmp_path)
    for kind, lines in (("det", 2), ("cmc", 3)):
        made = rates.drawn(written, kind)
        assert made is not None
        for width, drawing in made.figures:
            assert drawing.layout.width == width
            assert len(drawing.data) == lines
            assert drawing.data[0].line.color == plots.INPUT
            assert {line.line.color for line in drawing.data} <= set(plots.DARK)
            assert "<b>" not in drawing.data[1].name  # which plotly would take for a tag
    det = rates.drawn(written, "det")
    assert det is not None
    drawing = det.figures[0][1]
    assert (drawing.layout.xaxis.type, drawing.layout.yaxis.type) == ("log", "log")
    assert list(drawing.data[0].x) == [1e-4, 0.1]  # an error of 0 has no place on such an axis


def test_a_page_with_nothing_to_draw_has_no_plot(tmp_path: Path) -> None:
    perfect = [curve for curve in default() if curve["release"] == "Perfect" and curve["kind"] == "det"]
    text = page.write(files.write(tmp_path, whole(perfect)).parent).read_text()
    assert 'id="rates-det"' not in text


def test_small_error_rates_are_written_with_digits_that_tell_them_apart(tmp_path: Path) -> None:
    text = page.write(files.write(tmp_path, whole()).parent).read_text()
    section = text[text.index('id="matching"') : text.index('id="controls"')]
    words = re.sub(r"<[^>]+>|[ \n]+", " ", section)
    assert "0.1\N{NO-BREAK SPACE}%" in words
    assert "0.09\N{EN DASH}0.11\N{NO-BREAK SPACE}%" in words
    assert "By gender" in words
    releases = text[text.index('id="releases"') : text.index('id="attackers"')]
    assert "FNMR" not in releases  # they have a table of their own
    assert "gender=female" not in releases


def test_a_gate_binds_every_group_and_knows_which_way_is_better(tmp_path: Path) -> None:
    files.write(tmp_path, whole())
    asked = veil.check(tmp_path, ["verification.group_fmr <= 0.0015"], releases=["A <b>"])
    assert [line.outcome for line in asked.lines] == ["met", "not met"]
    assert veil.check(tmp_path, ["verification.group_fmr_ratio <= 2.5"]).outcome == "met"
    assert veil.check(tmp_path, ["identity.cmc_rank_1 >= 0.6"]).outcome == "met"
    assert veil.check(tmp_path, ["identity.fnmr_at_fmr_0.001 <= 0.0025"], releases=["A <b>"]).outcome == "met"
    for wrong, why in (
        ("attribute.suppression_rate <= 0.3", "is what is hidden, so its limit must be >="),
        ("identity.fnmr_at_fmr_0.001 >= 0.1", "is an error, so its limit must be <="),
        ("search.cmc_rank_1 <= 0.1", "is of use, so its limit must be >="),
    ):
        with pytest.raises(InputError, match=why):
            veil.check(tmp_path, [wrong])
