"""The scripts in benchmarks/ and examples/ run, and the benchmark's check of the losses can fail."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import attacked_by, faces_pack, short_decoders, short_networks
from methods_matrix import train
from veil.methods import deep

ROOT = Path(__file__).parents[1]


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("aia_step")


def test_coverage_counts_what_intervals_held_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    coverage = importlib.import_module("coverage")
    monkeypatch.setattr(coverage, "POPULATION", 60)
    page = tmp_path / "results" / "coverage.md"
    arguments = ["--draws", "3", "--pair-draws", "2", "--people", "30"]
    monkeypatch.setattr("sys.argv", ["x", *arguments, "--results", str(page)])

    coverage.main()

    text = page.read_text()
    assert f"python benchmarks/coverage.py {' '.join(arguments)}" in text
    assert text.count("| AUC | 0") == text.count("| TAR at FAR 1 % | 0") == 6
    assert text.count("| verification.eer, vectors") == 3
    tally = coverage.Tally(truth=0.5)
    for low, high in ((0.4, 0.6), (0.5, 0.6), (0.51, 0.6), (0.3, 0.4)):
        tally.add(coverage.Interval(0.5, low, high))
    assert tally.cell() == "**50.0** (25.0 / 25.0) 0.12"


def test_benchmark_compares_times_and_writes(step: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "results" / "step.md"
    arguments = ["--size", "16", "--batch", "8", "--people", "40", "--rounds", "2", "--steps", "1", "--checked", "2"]

    assert step.main([*arguments, "--out", str(out)]) == 0

    text = out.read_text()
    assert f"python benchmarks/aia_step.py {' '.join(arguments)}" in text
    assert text.count("| joint step |") == text.count("| auto-encoder alone |") == 1
    assert text.count("| fp32 | joint |") == 2 * 3  # two steps of three players
    assert [p.name for p in out.parent.iterdir()] == ["step.md"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", ["autoencoder", "joint"])
def test_losses_agree_until_weights_differ(step: ModuleType, precision: str, stage: str) -> None:
    pack = step.faces(40, 16, 0)
    trainer, plain, run = step.players(pack, 8, 0, precision)
    assert all(c.agrees for c in step.compare(trainer, plain, run, stage, 2))

    trainer, plain, run = step.players(pack, 8, 0, precision)
    with torch.no_grad():
        plain.decoder[-1].bias += 3  # for pixels around 1/2, L_AE goes from 0.7 to 1.5; the tolerance is 0.1
    wrong = [c for c in step.compare(trainer, plain, run, stage, 1) if not c.agrees]
    assert [c.player for c in wrong] == ["protector"]


def test_losses_of_other_batches_do_not_agree(step: ModuleType) -> None:
    pack = step.faces(40, 16, 0)
    trainer, plain, run = step.players(pack, 8, 0, "fp32")
    draw, generators = trainer.data.batch, iter([np.random.default_rng(1), np.random.default_rng(2)])
    trainer.data.batch = lambda s: draw(replace(s, rng=next(generators)))  # first for the plain loop, then for Veil
    assert [c.agrees for c in step.compare(trainer, plain, run, "autoencoder", 1)] == [False]


def test_a_disagreement_stops_the_benchmark(
    step: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(step.ROUNDOFF, "fp32", 0.0)  # then the order of a sum is too much
    monkeypatch.setitem(step.ROUNDOFF, "bf16", 0.0)
    out = tmp_path / "step.md"
    arguments = ["--size", "16", "--batch", "8", "--people", "40", "--checked", "2", "--out", str(out)]
    assert step.main(arguments) == 1
    assert "differ by more than rounding" in capsys.readouterr().err
    assert not out.exists()


def test_lfw_takes_deep_without_protection_from_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what the preset ``unprotected`` trains with the same seed."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    lfw = importlib.import_module("aia_lfw")
    short = {"features": 8, "batch": 16, "steps_alone": 2, "steps_joint": 2}
    protected, original = (
        train("deep", replace(deep.PRESETS[preset], **short), faces_pack()) for preset in ("default", "unprotected")
    )
    taken = lfw._unguarded(protected)
    assert (taken.config, taken.contract) == (original.config, original.contract)
    assert (taken.transform(faces_pack().x[:9]) == original.transform(faces_pack().x[:9])).all()


def test_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    monkeypatch.syspath_prepend(ROOT / "examples")
    attacked_by(monkeypatch, "logistic regression")  # seconds instead of a minute
    figures = importlib.import_module("aia_figures")
    small = ["--people", "60", "--size", "16", "--batch", "16", "--values", "1", "--steps-alone", "2"]

    assert (
        figures.main([*small, "--steps-joint", "2", "--attack-steps", "5", "--jobs", "1", "--out", str(tmp_path)]) == 0
    )

    for name in ("aia-fig2.png", "aia-fig3.png"):
        with Image.open(tmp_path / "figures" / name) as picture:
            assert picture.width > 1000
            assert len(picture.convert("L").getcolors() or []) > 50  # something is drawn
    page = (tmp_path / "results" / "aia-figures.md").read_text()
    rows = [line.split(" | ")[:3] for line in page.splitlines() if line.startswith(("| AIA", "| Original", "| Random"))]
    assert [[cell.strip("| ") for cell in row] for row in rows] == [
        ["Original", "0", "0"],
        ["Random", "0", "0"],
        ["AIA\\T", "0", "0.5"],
        ["AIA", "0.5", "1"],
        ["AIA", "1", "0.5"],
    ]
    for name in ("aia-fig2.png", "aia-fig3.png"):
        assert f"../figures/{name}" in page


def unipen(path: Path, writers: int = 30, digits: int = 20) -> None:
    """Strokes of 30 writers in UNIPEN form, each with a slant of its own."""
    rng = np.random.default_rng(0)
    lines = [".HIERARCHY DIGIT", ""]
    for i in range(writers * digits):
        writer, digit = i % writers + 1, i // writers % 10
        points = rng.integers(50, 450, size=(4 + digit, 2)) + np.array([writer, 0])
        lines += [f'.SEGMENT DIGIT {i} ? "{digit}"', f".COMMENT {digit} {writer} {i}", ".PEN_DOWN"]
        lines += [*(f" {x} {y}" for x, y in points), ".PEN_UP", ".DT 100", ""]
    path.mkdir()
    (path / "pendigits-orig.tra").write_text("\n".join(lines))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attackers and matchers of examples take a few steps, in this process: others would train them whole."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    short_networks(monkeypatch, 3)


@pytest.mark.usefixtures("brief")
def test_pendigits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    example = importlib.import_module("mi_pendigits")
    monkeypatch.setattr(example, "FRACTIONS", (0.5, 0.0, 0.25, 0.25))
    monkeypatch.setattr(example, "LAMS", (0.0, 1.0))
    monkeypatch.setattr(example, "CODES", ((40, 2.0),))
    monkeypatch.setattr(example, "SIZES", (150, 300, 5000))
    unipen(tmp_path / "pen")
    out, page = tmp_path / "out", tmp_path / "page.md"
    arguments = ["--pendigits", str(tmp_path / "pen"), "--out", str(out), "--seeds", "0", "--quick"]
    arguments = ["x", *arguments, "--results", str(page), "--figures", str(tmp_path / "figures")]
    monkeypatch.setattr("sys.argv", arguments)

    example.main()

    text = page.read_text()
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith(("| 0 ", "| 1 ", "| 40, 2 "))] == [
        "| 0", "| 1", "| 40, 2", "| 40, 2"
    ]  # fmt: skip
    assert "a writer is missing" in text  # of 5,000 calibration images
    for name in ("mi-pendigits.png", "mi-steps.png", "mi-pairs.png"):
        with Image.open(tmp_path / "figures" / name) as picture:
            assert len(picture.convert("L").getcolors() or []) > 50
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    monkeypatch.setattr("sys.argv", arguments[:-2])  # pictures are drawn anew whenever they are asked for
    example.main()  # a second run finds everything there
    assert made == {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}


@pytest.mark.usefixtures("brief")
def test_characters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    example = importlib.import_module("substitution_faces")
    monkeypatch.setattr(example, "CHARACTERS", {3: (140, 0, {})})
    monkeypatch.setattr(example, "TARGETS", 2)
    page = tmp_path / "page.md"
    monkeypatch.setattr("sys.argv", ["x", "--out", str(tmp_path / "out"), "--quick", "--results", str(page)])

    example.main()

    rows = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| 3 |")]
    assert [row[1][:-9] for row in rows] == ["person-00000", "person-00001"]
    assert all(0 <= float(row[5]) <= 1 for row in rows)
    assert (tmp_path / "out" / "characters-3-0.png").exists()


@pytest.mark.usefixtures("brief")
def test_inversion_makes_tables_and_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A quick run at a step each: rows for both cuts, tables that show them, a sheet of pictures; and it continues."""
    example = importlib.import_module("inversion_faces")
    monkeypatch.setattr(example, "SHORT", {"steps_perceptual": 2, "steps_decoder": 1, "batch": 8})
    monkeypatch.setattr(example, "QUICK", dict.fromkeys(example.STEPS, 2))
    short_decoders(monkeypatch)
    results, figures = tmp_path / "r.md", tmp_path / "figures"
    arguments = ["x", "--out", str(tmp_path / "out"), "--quick", "--people", "60"]
    monkeypatch.setattr("sys.argv", [*arguments, "--results", str(results), "--figures", str(figures)])

    example.main()

    rows = sorted(p.stem for p in (tmp_path / "out" / "stylised-0").glob("*.json"))
    kinds = ("adversarial", "default", "unprotected")
    assert rows == [*(f"fc-{kind}" for kind in kinds), "layer1-default"]
    text = results.read_text()
    assert text.count("| all labels, default: ") == 2  # decoders
    assert (text.count("| layer1, "), text.count("| fc, ")) == (1, 3)
    assert "| mean image |" in text
    with Image.open(figures / "inversion-cuts.png") as sheet:
        assert sheet.height == 2 * (5 * (example.SIZE + 4) + 4)  # originals, and four rows of what was redrawn
    before = results.read_bytes()
    monkeypatch.setattr(example.fitting, "fit", None)  # nothing is fitted again
    example.main()
    assert results.read_bytes() == before


@pytest.mark.usefixtures("brief")
def test_semi_adversarial_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A row for the input and for each preset, sheets of 24 pairs, a figure; and nothing is fitted again."""
    example = importlib.import_module("san_faces")
    short = {"steps": 4, "steps_classifier": 1, "steps_matcher": 1, "batch": 8, "aligned": 0}
    monkeypatch.setattr(example, "PEOPLE", "identities=60,images=4")
    monkeypatch.setattr(example.fitting, "fit", partial(example.fitting.fit, settings=short))
    page, figure = tmp_path / "page.md", tmp_path / "figure.png"
    arguments = ["x", "--out", str(tmp_path / "out"), "--seeds", "0", "--size", "32"]
    monkeypatch.setattr("sys.argv", [*arguments, "--results", str(page), "--figure", str(figure)])

    example.main()

    rows = [line.split(" | ") for line in page.read_text().splitlines() if " | 0 | " in line]
    assert [row[0] for row in rows] == ["| Input", "| default", "| hardened"]
    # A dash where an attacker that learned for so short a time names one class for everybody.
    assert all("(" in value or "-" in value for row in rows[1:] for value in row[3:])
    assert all(any("(" in value for value in row[3:]) for row in rows[1:])
    with Image.open(tmp_path / "out" / "32x32-1" / "seed-0" / "hardened.png") as sheet:
        assert sheet.size == (2 * (12 * 36 + 4), 2 * (4 * 36 + 4))
    with Image.open(figure) as sheet:
        assert sheet.size == (12 * 36 + 4, 3 * 36 + 4)
    before = page.read_bytes()
    monkeypatch.setattr(example.fitting, "fit", None)
    example.main()
    assert page.read_bytes() == before
