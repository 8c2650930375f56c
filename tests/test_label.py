"""Labels that a classifier guesses: what is written into a pack, and who says that they were guessed."""

# ruff: noqa: F811 (fixtures of another file are parameters here)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import veil as package
from conftest import attacked_by, onnx_file
from test_cli import Veil, veil  # noqa: F401
from veil.data import build, predicted
from veil.data.pack import Pack
from veil.data.packfile import sha256
from veil.errors import InputError
from veil.workflows.label import label

SHADES = (20, 60, 200, 240)


def classifier(path: Path, weights: Any = ((-1.0, 1.0),), **metadata: str) -> Path:
    """Logits of mean brightness: the second class where it is above the middle."""
    onnx = pytest.importorskip("onnx")
    mean = ("ReduceMean", (), {"axes": [2, 3], "keepdims": 0})
    onnx_file(path, mean, ("MatMul", ("w",), {}), shape=["B", 1, 4, 4], w=weights)
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """80 plain pictures of four shades, by 40 people."""
    folder = tmp_path / "photos"
    for i in range(80):
        path = folder / f"person{i // 2:02d}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), SHADES[i // 2 % 4], np.uint8)).save(path)
    return folder


@pytest.fixture
def bare(photos: Path, tmp_path: Path) -> Path:
    """A pack of which only who is seen is known."""
    build.pack("folder", photos, tmp_path / "bare", size=16, settings={"identity": "folder"})
    return tmp_path / "bare"


def truth(pack: Pack) -> list[str]:
    return ["light" if image.mean() > 127.5 else "dark" for image in pack.x]


def named(pack: Pack, name: str) -> list[str]:
    return [pack.classes[name][code] for code in pack.label(name)]


@pytest.mark.parametrize(
    ("weights", "metadata", "classes", "confidence"),
    [
        # Means 20, 60, 200 and 240 in [-1, 1] are -0.843, -0.529, 0.569 and 0.882; logits differ by twice as much.
        (((-1.0, 1.0),), {}, ("dark", "light"), (0.8437, 0.7425, 0.7573, 0.8538)),
        (((2.0,),), {}, ("dark", "light"), (0.8437, 0.7425, 0.7573, 0.8538)),
        (((1.0, -1.0),), {"classes": '["light", "dark"]'}, None, (0.8437, 0.7425, 0.7573, 0.8538)),
        (((-1.0, 1.0),), {"veil.classes": "dark, light", "classes": "a,b"}, None, (0.8437, 0.7425, 0.7573, 0.8538)),
        (((9.0, -1.0, 1.0),), {}, ("-", "dark", "light"), (0.8437, 0.7425, 0.7573, 0.8538)),
    ],
)
def test_guesses_are_written_and_marked(
    bare: Path, tmp_path: Path, weights: Any, metadata: dict[str, str], classes: Any, confidence: Any
) -> None:
    before = Pack.open(bare)
    file, told = classifier(tmp_path / "light.onnx", weights, **metadata), []
    made = package.label(bare, "light", classifier=file, classes=classes, progress=lambda *a: told.append(a))
    assert named(made, "light") == truth(made)
    assert told == [(80, 80, 0)]
    mark = made.predicted["light"]
    assert (mark["file"], mark["sha256"]) == ("light.onnx", sha256(file))
    assert mark["confidence"] == pytest.approx(np.mean(confidence), abs=2e-4)
    assert json.loads((bare / "pack.json").read_text())["predicted"] == {"light": mark}
    assert (made.fingerprint, made.classes["light"]) != (before.fingerprint, ("dark",))
    assert np.array_equal(made.x, before.x)
    assert np.array_equal(made.split, before.split)
    assert named(made, "identity") == named(before, "identity")
    assert made.sources.tolist() == before.sources.tolist()
    assert Pack.open(bare, verify=True).fingerprint == made.fingerprint
    assert sorted(p.name for p in bare.parent.iterdir() if p.name.startswith(".")) == []


def test_probabilities_are_taken_as_such(bare: Path, tmp_path: Path) -> None:
    mean = ("ReduceMean", (), {"axes": [2, 3], "keepdims": 0})
    file = onnx_file(
        tmp_path / "p.onnx", mean, ("MatMul", ("w",), {}), ("Softmax", (), {"axis": 1}), shape=["B", 1, 4, 4],
        w=[[-1, 1]],
    )  # fmt: skip
    made = label(bare, "light", classifier=file, classes=["dark", "light"])
    assert named(made, "light") == truth(made)
    assert made.predicted["light"]["confidence"] == pytest.approx(0.7993, abs=2e-4)


def test_a_label_that_is_there_is_replaced_by_force_alone(photos: Path, tmp_path: Path) -> None:
    names = sorted(str(p.relative_to(photos)) for p in photos.rglob("*.png"))
    rows = [f"{name},{'NA' if i else 'light'},{i % 2}" for i, name in enumerate(names)]
    (photos / "labels.csv").write_text("\n".join(["path,light,odd", *rows]) + "\n")
    pack = tmp_path / "pack"
    build.pack("folder", photos, pack, size=16)
    assert any("light is unknown" in warning for warning in Pack.open(pack).meta["warnings"])
    file = classifier(tmp_path / "light.onnx", ((-1.0, 1.0, 0.0),))
    before = {path.name: path.read_bytes() for path in pack.iterdir()}
    with pytest.raises(InputError, match=r"label light: the pack has it already \(observed, as far as is known\)"):
        label(pack, "light", classifier=file, classes=["dark", "light", "neither"])
    assert {path.name: path.read_bytes() for path in pack.iterdir()} == before
    made = label(pack, "light", classifier=file, classes=["dark", "light", "neither"], force=True)
    assert made.classes["light"] == ("dark", "light")
    assert not [words for words in made.meta["warnings"] + made.meta["notes"] if "unknown" in words or "NULL" in words]
    assert "light: the classifier knows neither, too, and guessed none of them." in made.meta["notes"]
    assert named(made, "odd") == named(Pack.open(pack), "odd")
    with pytest.raises(InputError, match=r"has it already \(predicted\)"):
        label(pack, "light", classifier=file, classes=["dark", "light", "neither"])


@pytest.mark.parametrize(
    ("name", "classes", "weights", "message"),
    [
        ("identity", "dark,light", ((-1.0, 1.0),), "label identity: says who is seen"),
        ("split", "dark,light", ((-1.0, 1.0),), "label name 'split': must be a text that names no rows"),
        ("File_Name", "dark,light", ((-1.0, 1.0),), "label name 'File_Name': must be"),
        ("light", "", ((-1.0, 1.0),), "does not say what its classes are called; name them"),
        ("light", "dark,light,grey", ((-1.0, 1.0),), "a logit for each of dark, light, grey, so 3, got 2"),
        ("light", "dark,light", ((-1.0, 1.0, 0.0),), "a logit for each of dark, light, so 2 or 1, got 3"),
        ("light", "dark,dark", ((-1.0, 1.0),), "classes of light: must be different names"),
        ("light", "dark,NA", ((-1.0, 1.0),), "none of them a word for nothing, got 'NA'"),
        ("light", "dark", ((2.0,),), "must be two or more names"),
        ("light", "dark,light", ((0.0, 0.0),), "calls all 80 images 'dark', which tells nobody apart"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    veil: Veil,
    bare: Path,
    tmp_path: Path,
    name: str,
    classes: str,
    weights: Any,
    message: str,
) -> None:
    file = classifier(tmp_path / "c.onnx", weights)
    before = {path.name: path.read_bytes() for path in bare.iterdir()}
    words = ["--classes", classes] * bool(classes)
    assert message in veil.refuses("label", bare, name, "--classifier", file, *words)
    assert {path.name: path.read_bytes() for path in bare.iterdir()} == before


def test_one_probability_in_place_of_a_logit_is_noticed(bare: Path, tmp_path: Path) -> None:
    mean = ("ReduceMean", (), {"axes": [2, 3], "keepdims": 0})
    file = onnx_file(tmp_path / "p.onnx", mean, ("Sigmoid", (), {}), shape=["B", 1, 4, 4])
    with pytest.raises(InputError, match="must be a logit, above 0 for the second class, and not a probability"):
        label(bare, "light", classifier=file, classes=["dark", "light"])


def test_a_pack_that_changes_meanwhile_or_holds_more_is_left(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, dark = classifier(tmp_path / "light.onnx"), ["dark", "light"]
    stale = Pack.open(bare)
    label(bare, "first", classifier=file, classes=dark)
    by = stale.predicted.get("first") or Pack.open(bare).predicted["first"]
    with pytest.raises(InputError, match="bare: was changed while its labels were guessed"):
        predicted.write_label(stale, "second", np.arange(80) % 2, dark, by)
    assert set(Pack.open(bare).labels) == {"identity", "first"}
    (bare / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds what is no part of a pack and would be lost"):
        label(bare, "second", classifier=file, classes=dark)
    (bare / "mine.txt").unlink()

    def refused(*arguments: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(predicted.os, "link", refused)  # a system without links
    assert set(label(bare, "second", classifier=file, classes=dark).predicted) == {"first", "second"}


def test_a_pack_by_a_link_stays_a_link(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bare)
    label(tmp_path / "link", "light", classifier=classifier(tmp_path / "c.onnx"), classes=["dark", "light"])
    assert (tmp_path / "link").is_symlink()
    assert "light" in Pack.open(bare).labels


def test_a_damaged_mark_is_refused(bare: Path, tmp_path: Path) -> None:
    label(bare, "light", classifier=classifier(tmp_path / "c.onnx"), classes=["dark", "light"])
    meta = json.loads((bare / "pack.json").read_text())
    for change, words in (
        ({"height": meta["predicted"]["light"]}, r"predicted.height is no field that is known \(identity, light\)"),
        ({"light": {**meta["predicted"]["light"], "sha256": "x"}}, "predicted.light.sha256 must be a SHA-256"),
        ({"light": {"file": "x"}}, "predicted.light.sha256 is missing"),
    ):
        (bare / "pack.json").write_text(json.dumps({**meta, "predicted": change}))
        with pytest.raises(InputError, match=words):
            Pack.open(bare)


def test_packs_that_are_made_of_packs_keep_the_mark(veil: Veil, photos: Path, bare: Path, tmp_path: Path) -> None:
    file = classifier(tmp_path / "light.onnx")
    assert veil("label", bare, "light", "--classifier", file, "--classes", "dark,light").status == 0
    mark = Pack.open(bare).predicted
    assert veil("pack", "folder", photos, tmp_path / "other", "--labels", bare, "--size", 8).status == 0
    np.savez(tmp_path / "x.npz", vectors=np.random.default_rng(0).random((80, 4)), name=Pack.open(bare).sources)
    assert veil("pack", "embeddings", tmp_path / "x.npz", tmp_path / "vectors", "--labels", bare).status == 0
    fit = ("--private", "light")
    assert veil("fit", "random", bare, tmp_path / "r", *fit).status == 0
    assert veil("apply", tmp_path / "r", bare, tmp_path / "released").status == 0
    for name in ("other", "vectors", "released"):
        assert Pack.open(tmp_path / name).predicted == mark, name
    made = json.loads((tmp_path / "r" / "release.json").read_text())["made"]
    assert made["predicted"] == mark
    assert package.Release.load(tmp_path / "r").made["predicted"] == mark


def test_findings_report_and_terminal_say_that_labels_were_predicted(
    veil: Veil,
    bare: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attacked_by(monkeypatch, "logistic regression")
    file = classifier(tmp_path / "light.onnx")
    done = veil("label", bare, "light", "--classifier", file, "--classes", "dark,light")
    digest = sha256(file)
    assert done.out == (
        f"{bare}: light predicted by light.onnx (SHA-256 {digest[:16]}\N{HORIZONTAL ELLIPSIS})\n"
        "  dark 40 (50.0 %), light 40 (50.0 %); mean confidence 0.799\n"
    )
    ask = ("audit", bare, tmp_path / "out", "--private", "light", "--effort", "quick", "--jobs", 1)
    sentence = (
        f"The label light was predicted by light.onnx (SHA-256 {digest[:16]}\N{HORIZONTAL ELLIPSIS}), not observed"
    )
    assert f"note: {sentence}: figures are about its guesses" in veil(*ask).out
    mark = Pack.open(bare).predicted["light"]
    assert veil.json(*ask)["predicted"] == {"light": mark}
    document = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert document["data"]["labels"]["light"]["predicted"] == mark
    assert veil("report", tmp_path / "out").status == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert sentence in page[page.index('id="verdict"') : page.index('id="releases"')]
    document["data"]["labels"]["light"]["predicted"]["confidence"] = 2
    (tmp_path / "out" / "findings.json").write_text(json.dumps(document))
    assert "data.labels.light.predicted.confidence must be a number in 0 .. 1, got 2" in veil.refuses(
        "report", tmp_path / "out"
    )


def test_without_a_label_messages_name_the_ways(veil: Veil, photos: Path, bare: Path, tmp_path: Path) -> None:
    """Nobody is left with what is missing: how to come by labels, and what can be done without."""
    ways = "the pack has only identity: pack it with --labels, or have a classifier of yours guess one (veil label)"
    fit = veil.refuses("fit", "aia", bare, tmp_path / "r")
    for words in (ways, "inversion hides the picture itself, and keeps a label", "`veil audit PACK --inversion`"):
        assert words in fit
    assert ways in veil.refuses("fit", "inversion", bare, tmp_path / "r")
    assert ways in veil.refuses("audit", bare)
    assert "`veil label` has a classifier of yours guess one" in veil.refuses("audit", bare, "--private", "gender")
    build.pack("folder", photos, tmp_path / "nothing", size=16)
    assert "`veil label`" in Pack.open(tmp_path / "nothing").meta["warnings"][0]
    assert "the pack has no labels: pack it" in veil.refuses("audit", tmp_path / "nothing")
    build.pack("stylised", "40", tmp_path / "some", size=16)
    there = "the pack has expression, gender, glasses, smile"
    assert there in veil.refuses("fit", "aia", tmp_path / "some", tmp_path / "r")
    assert there in veil.refuses("audit", tmp_path / "some")


def test_labels_are_in_the_table_and_nowhere_else(bare: Path, tmp_path: Path) -> None:
    label(bare, "light", classifier=classifier(tmp_path / "c.onnx"), classes=["dark", "light"])
    assert pq.read_table(bare / "labels.parquet").column_names == ["source", "split", "identity", "light"]
