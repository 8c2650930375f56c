"""The command line: the whole way, exit statuses, one-line messages, and help that tells the truth."""

from __future__ import annotations

import errno
import inspect
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from conftest import brightness_file, onnx_file, vectors_pack
from veil import cli, pipeline
from veil._version import __version__
from veil.audit import run, transfer
from veil.audit.attackers import EFFORTS
from veil.audit.findings import Finding
from veil.data.layouts import LAYOUTS
from veil.data.pack import Pack
from veil.errors import InputError
from veil.methods import METHODS
from veil.release import Release

COMMANDS = ("demo", "pack", "fit", "apply", "audit", "report", "export")
QUICK_AIA = ("--set", "steps_alone=2", "--set", "steps_joint=2", "--set", "batch=16")


class Done(NamedTuple):
    status: int
    out: str
    err: str


class Veil:
    """``veil(...)`` runs the entry point in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._patch = capsys, monkeypatch

    def __call__(self, *arguments: object) -> Done:
        self._patch.setattr(sys, "argv", ["veil", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = self._capsys.readouterr()
        return Done(int(caught.value.code or 0), out, err)

    def json(self, *arguments: object) -> dict[str, Any]:
        done = self(*arguments, "--json")
        assert (done.status, done.err) == (0, "")
        value = json.loads(done.out)
        assert isinstance(value, dict)
        return value

    def refuses(self, *arguments: object) -> str:
        done = self(*arguments)
        assert (done.status, done.out) == (2, "")
        assert re.fullmatch(r"veil: [^\n]+\n", done.err)
        assert "Traceback" not in done.err
        return done.err


@pytest.fixture
def veil(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Veil]:
    handler = signal.getsignal(signal.SIGTERM)
    yield Veil(capsys, monkeypatch)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit of seconds: the attackers that need no training loop, one matcher."""
    monkeypatch.setattr(run, "_QUICK", ("logistic regression", "RBF SVM"))
    monkeypatch.setattr(run, "MATCHERS", {"LDA": run.MATCHERS["LDA"]})


def _process(*arguments: object, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", "from veil.cli import main; main()", *map(str, arguments)],
                          capture_output=True, text=True, check=False, **kwargs)  # fmt: skip


# -- the whole way ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("brief")
def test_from_pictures_to_a_report(veil: Veil, tmp_path: Path) -> None:
    pack, release = tmp_path / "pack", tmp_path / "R" / "paper"
    made = veil.json("pack", "stylised", "identities=80,images=3", pack, "--size", 32)
    assert made["pack"] == str(pack)
    assert made["shape"] == [240, 32, 32]
    assert sum(made["splits"].values()) == 240

    written = veil.json("fit", "aia", pack, release, "--private", "gender", *QUICK_AIA, "--keep-decoder")
    assert written == {"release": str(release), "curves": f"{release}.curves.parquet"}
    assert set(pq.read_table(written["curves"]).column_names) == {"step", "stage", "player", "loss"}
    assert not (tmp_path / "R" / "paper.checkpoint").exists()

    vectors = tmp_path / "out.parquet"
    applied = veil.json("apply", release, pack, vectors)
    assert applied == {"out": str(vectors), "rows": 240, "skipped": 0, "warnings": [], "notes": []}
    expected = Release.load(release).transform(np.asarray(Pack.open(pack).x))
    np.testing.assert_array_equal(np.stack(pq.read_table(vectors)["release"].to_numpy()), expected)

    out = tmp_path / "audit"
    arguments = ("audit", pack, out, "--private", "gender", "--private", "smile", "--release", release,
                 "--release", f"again={release}", "--vectors", f"mine={vectors}", "--effort", "quick", "--jobs", 1,
                 "--level", 0.9)  # fmt: skip
    summary = veil.json(*arguments)
    assert summary["out"] == str(out / "findings.json")
    names = ["Input", "Input + LEACE", "paper", "again", "mine"]
    assert [(row["private"], row["name"]) for row in summary["rows"]] == [
        (p, n) for p in ("gender", "smile") for n in names
    ]
    document = json.loads((out / "findings.json").read_text())
    assert document["command"] == "veil " + " ".join(map(str, [*arguments, "--json"]))
    # The same vectors, however they came, are attacked alike.
    values = {row["name"]: row["attack"]["value"] for row in summary["rows"] if row["private"] == "gender"}
    assert values["paper"] == values["again"]
    assert {row["attack"]["level"] for row in summary["rows"]} == {0.9}

    told = veil(*arguments)
    assert told.status == 0
    assert "0.9 intervals" in told.out
    assert "smile attack" in told.out
    assert told.out.rstrip().endswith(str(out / "findings.json"))

    page = veil.json("report", out)["report"]
    assert "paper" in Path(page).read_text()
    assert veil("report", out).out.strip() == page


def test_a_keyed_release_says_where_its_key_is(veil: Veil, tmp_path: Path, people: Path) -> None:
    release = tmp_path / "random"
    done = veil("fit", "random", people, release, "--private", "gender")
    assert done.status == 0
    assert f"{release}.key: its secret key" in done.out
    assert veil("apply", release, people, tmp_path / "a.npz").status == 0
    key = Path(f"{release}.key").rename(tmp_path / "elsewhere.key")
    assert "its key must be given" in veil.refuses("apply", release, people, tmp_path / "b.npz")
    assert veil("apply", release, people, tmp_path / "b.npz", "--key", key).status == 0
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        np.testing.assert_array_equal(a["releases"], b["releases"])
    again = tmp_path / "again"
    assert veil.json("fit", "random", people, again, "--private", "gender", "--key", key)["key"] == f"{again}.key"
    assert Path(f"{again}.key").read_bytes() == key.read_bytes()


@pytest.mark.usefixtures("brief")
def test_an_audit_that_cannot_be_written_leaves_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack, out = vectors_pack(), tmp_path / "out"
    ask: dict[str, Any] = {"private": ["gender"], "utility": [], "baselines": (), "effort": "quick", "jobs": 1}

    def entry(loss: float) -> pipeline.Entry:
        return pipeline.Entry(name="mine", vectors=np.asarray(pack.x), curves=[(0, "stage", "player", loss)])

    pipeline.audit_pack(pack, out, [entry(0.5)], **ask)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert sorted(path.name for path in before) == ["00-mine.parquet", "findings.json"]

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipeline.files, "write", full)
    with pytest.raises(OSError, match="No space left"):
        pipeline.audit_pack(pack, out, [entry(0.7)], **ask)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(InputError, match="effort: must be one of"):
        pipeline.audit_pack(pack, tmp_path / "other", [entry(0.5)], **(ask | {"effort": "quik"}))
    assert not (tmp_path / "other").exists()


def test_files_beside_a_release_are_not_replaced_unasked(veil: Veil, tmp_path: Path, people: Path) -> None:
    fit = ("fit", "leace", people, tmp_path / "r", "--private", "gender")
    apply = ("apply", tmp_path / "r", people, tmp_path / "o.npz")
    for name in ("r.checkpoint", "r.curves.parquet"):
        beside = tmp_path / name
        beside.write_text("precious")
        assert f"{beside}: already exists, and is replaced" in veil.refuses(*fit)
        assert beside.read_text() == "precious"
        beside.unlink()
    assert veil(*fit).status == 0
    (tmp_path / "o.npz.skipped.csv").write_text("precious")
    assert "o.npz.skipped.csv: already exists" in veil.refuses(*apply)
    assert (tmp_path / "o.npz.skipped.csv").read_text() == "precious"
    assert veil(*apply, "--force").status == 0


@pytest.mark.usefixtures("brief")
def test_an_audit_takes_the_keys_of_releases(veil: Veil, tmp_path: Path, people: Path) -> None:
    release, plain = tmp_path / "random", tmp_path / "plain"
    for method, where in (("random", release), ("leace", plain)):
        assert veil("fit", method, people, where, "--private", "gender").status == 0
    key = Path(f"{release}.key").rename(tmp_path / "elsewhere.key")
    ask = ("audit", people, tmp_path / "out", "--private", "gender", "--effort", "quick", "--jobs", 1,
           "--baseline", "none", "--release", f"R={release}")  # fmt: skip
    assert "its key must be given" in veil.refuses(*ask)
    assert "--key: must be NAME=FILE, got 'R='" in veil.refuses(*ask, "--key", "R=")
    assert "--key: must name a release (R), got 'random'" in veil.refuses(*ask, "--key", f"random={key}")
    err = veil.refuses(*ask, "--key", f"R={key}", "--release", plain, "--key", f"plain={key}")
    assert f"{key}: {plain} is a release without keyed noise or draws, and takes no key" in err
    assert veil(*ask, "--key", f"R={key}").status == 0


def test_training_losses_that_are_cut_off_are_one_line(veil: Veil, tmp_path: Path, people: Path) -> None:
    losses = pipeline.write_curves(tmp_path / "r.curves.parquet", [(0, "s", "p", 0.5)])
    assert pipeline.read_curves(losses) == [(0, "s", "p", 0.5)]
    losses.write_bytes(losses.read_bytes()[:-20])
    err = veil.refuses("audit", people, tmp_path / "out", "--private", "gender", "--release", tmp_path / "r")
    assert "r.curves.parquet: training losses cannot be read" in err
    pq.write_table(pa.table({"step": [1]}), losses)
    assert "training losses cannot be read" in veil.refuses(
        "audit", people, tmp_path / "out", "--private", "gender", "--release", tmp_path / "r"
    )


def test_training_losses_do_not_outlive_their_release(veil: Veil, tmp_path: Path, people: Path) -> None:
    losses = tmp_path / "r.curves.parquet"
    fit = ("fit", "template", people, tmp_path / "r", "--private", "gender", "--no-frontier",
           "--set", "steps=2", "--set", "steps_guess=2", "--set", "batch=16")  # fmt: skip
    assert veil.json(*fit)["curves"] == str(losses)
    assert veil("fit", "leace", people, tmp_path / "r", "--private", "gender", "--force").status == 0
    assert not losses.exists()


@pytest.mark.usefixtures("brief")
def test_the_demo_ends_with_a_table_and_a_report(veil: Veil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "DEMO_PEOPLE", 60)
    monkeypatch.setattr(pipeline, "DEMO_IMAGES", 3)
    monkeypatch.setattr(pipeline, "DEMO_SIZE", 32)
    short = {name: {"steps_alone": 1, "steps_joint": 1, "batch": 16} for name in pipeline.DEMO_SETTINGS}
    short["original"] = {"steps_alone": 1, "batch": 16}
    short["substitution"] = {"steps": 1, "batch": 16}
    monkeypatch.setattr(pipeline, "DEMO_SETTINGS", short)
    done = veil("demo", "--out", tmp_path / "demo", "--jobs", 1, "--quiet")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[-1] == str(tmp_path / "demo" / "report.html")
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
    for name in ("Input", "Original", "Random", "AIA\\T", "AIA", "AIA deep", "LEACE", "Substitution"):
        rows = [line for line in lines if re.search(rf"│ {re.escape(name)} +│", line)]
        assert len(rows) == 1, name
        assert re.search(r"0\.\d{3} +│ 0\.\d{3} - [01]\.\d{3}", rows[0])
    assert sorted(p.name for p in (tmp_path / "demo").iterdir() if p.is_dir())[-1] == "releases"


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """300 vectors of 150 people in a Parquet file; gender is in value 0; one of them is broken."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(150), 2)
    x = rng.normal(size=(150, 6))[who] + 0.2 * rng.normal(size=(300, 6))
    x[:, 0] += 4 * (who % 2)
    x[7] = np.nan
    names = [f"{i}.jpg" for i in range(300)]
    table = pa.table({"source": names, "face": list(x.astype(np.float32)), "identity": who, "gender": who % 2})
    pq.write_table(table, tmp_path / "mine.parquet")
    return tmp_path / "mine.parquet"


@pytest.mark.usefixtures("brief")
def test_vectors_are_audited_without_a_pack_or_a_model(
    veil: Veil, strangers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(strangers.parent)
    ask = ("--private", "gender", "--utility", "identity", "--effort", "quick", "--jobs", 1)
    done = veil("audit", "--vectors", "mine.parquet", *ask)
    assert (done.status, done.err) == (0, "mine.parquet: 1 rows cannot be used and are left out\n")
    assert done.out.endswith("audit/findings.json\n")
    document = json.loads((strangers.parent / "audit" / "findings.json").read_text())
    assert [(r["name"], r["role"], r["note"]) for r in document["releases"]] == [
        ("mine", "method", "vectors from mine.parquet")
    ]
    assert (document["data"]["n"], document["data"]["skipped"]) == (299, 1)
    assert sum(split["identities"] for split in document["data"]["splits"].values()) == 150  # nobody is in two
    assert document["data"]["attack_on"] == ["protect", "attack"]
    (worst,) = [f for f in document["findings"] if f["worst"] and f["code"] == "attribute.balanced_accuracy"]
    assert worst["value"] > 0.9
    assert veil("report", "audit").status == 0
    assert sorted(p.name for p in strangers.parent.iterdir()) == ["audit", "mine.parquet"]

    # Labels in a file of their own, protected vectors beside the originals, and another folder.
    table = pq.read_table(strangers)
    pq.write_table(table.select(["source", "face"]), "bare.parquet")
    pq.write_table(table.drop(["face"]), "labels.parquet")
    x = np.stack(table["face"].to_numpy())[::-1]
    x[:, 0] = 1
    np.savez("safe.npz", vectors=np.nan_to_num(x, nan=1.0), source=table["source"].to_pylist()[::-1])
    told = veil.json(
        "audit", "bare.parquet", "--labels", "labels.parquet", "--vectors", "safe.npz", "--out", "both", *ask
    )
    assert told["out"] == "both/findings.json"
    values = {row["name"]: row["attack"]["value"] for row in told["rows"]}
    assert list(values) == ["Input", "Input + LEACE", "safe"]
    assert values["Input"] == pytest.approx(worst["value"], abs=0.05)
    assert values["safe"] < values["Input"] - 0.2
    again = veil.json(
        "audit", "--vectors", "A=bare.parquet", "--vectors", "safe.npz", "--labels", "labels.parquet", *ask
    )
    assert [row["name"] for row in again["rows"]] == ["A", "safe"]


def test_an_audit_says_what_it_lacks(veil: Veil, strangers: Path, people: Path, tmp_path: Path) -> None:
    ask = ("--private", "gender", "--out", tmp_path / "out", "--jobs", 1)
    assert "audit: needs a PACK, or a file of vectors" in veil.refuses("audit", *ask)
    assert "/nowhere: there is no such pack or file" in veil.refuses("audit", "/nowhere", *ask)
    assert "so a PACK must be named" in veil.refuses("audit", "--vectors", strangers, "--baseline", "leace", *ask)
    assert "so a PACK must be named" in veil.refuses("audit", "--vectors", strangers, "--release", people, *ask)
    assert "OUT: must be named once" in veil.refuses("audit", strangers, tmp_path / "x", *ask)
    assert "labels: are for a file of vectors" in veil.refuses("audit", people, "--labels", strangers, *ask)
    height = veil.refuses("audit", "--vectors", strangers, "--private", "height", "--quiet", *ask)
    assert f"{strangers}: label 'height': the pack has gender, identity" in height
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("brief")
def test_the_users_own_files_protect_and_attack(veil: Veil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A matcher that is followed in training, and one and a classifier that releases are shown to."""
    monkeypatch.setattr(transfer, "CLASSIFIERS", ("RBF SVM",))
    monkeypatch.setattr(transfer, "siamese", lambda problem: lambda x: x.reshape(len(x), -1).astype(np.float32))
    pack, release, out = tmp_path / "pack", tmp_path / "redrawn", tmp_path / "audit"
    assert veil("pack", "stylised", "identities=60,images=3", pack, "--size", 16).status == 0
    classes = json.loads((pack / "pack.json").read_text())["classes"]["gender"]
    pixels = onnx_file(tmp_path / "pixels.onnx", ("Flatten", (), {}), shape=["B", 1, 8, 8])
    light = brightness_file(tmp_path / "light.onnx")
    short = [f"{name}=2" for name in ("steps_classifier", "steps_matcher", "steps")]
    settings = [part for pair in (*short, "batch=8", "aligned=0", f"matcher={pixels}") for part in ("--set", pair)]
    assert veil("fit", "san", pack, release, "--private", "gender", *settings).status == 0
    done = veil(
        "audit", pack, out, "--private", "gender", "--release", f"SAN={release}", "--effort", "quick", "--jobs", 1,
        "--matcher", pixels, "--classifier", f"gender={light}", "--baseline", "none",
    )  # fmt: skip
    assert (done.status, done.err) == (0, "")
    found = json.loads((out / "findings.json").read_text())["findings"]
    for name in ("Input", "SAN"):
        each = {(f["code"], f["attacker"]): f for f in found if f["release"] == name}
        read = each["attribute.transfer_balanced_accuracy", "light.onnx"]
        assert "a file of the user's" in read["note"]
        for code in ("verification.transfer_auc", "verification.mixed_auc"):
            assert {a for c, a in each if c == code} == {"siamese, of originals", "pixels.onnx"}
        assert each["verification.transfer_auc", "pixels.onnx"]["status"] == "ok"
    x = Pack.open(pack)
    rows = x.rows("test")
    mean = np.asarray(x.x)[rows].mean((1, 2)) > 127.5
    y = x.label("gender")[rows]
    exact = np.mean([(mean[y == code] == code).mean() for code in range(len(classes))])
    shown = next(f for f in found if f["attacker"] == "light.onnx" and f["release"] == "Input")
    assert shown["value"] == pytest.approx(exact, abs=0.05)  # the file's size is another, so means differ a little
    assert veil("report", out).status == 0
    page = (out / "report.html").read_text()
    section = page[page.index('<section id="transfer">') :]
    section = section[: section.index("</section>")]
    assert "Every classifier and matcher that knows only originals" in section
    for words in (
        "Reading gender: balanced accuracy",
        "light.onnx",
        "pixels.onnx",
        "a file of the user",
        "Matching by ",
    ):
        assert words in section
    assert 'id="others"' not in page or "light.onnx" not in page[page.index('id="others"') :]


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pack of vectors, made from a file."""
    from veil.data import build

    folder = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(60), 3)
    np.savez(folder / "in.npz", vectors=rng.random((180, 6), np.float32), identity=who, gender=who % 2)
    build.pack("embeddings", folder / "in.npz", folder / "pack")
    return folder / "pack"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "polaroid", "x", "OUT"], "layout 'polaroid': must be one of"),
        (["pack", "folder", "/nowhere", "OUT"], "/nowhere: no such folder"),
        (["pack", "stylised", "identities=4", "OUT", "--crop", "0,1"], "crop: must be four numbers"),
        (["pack", "stylised", "identities=4", "OUT", "--fractions", "a,b,c,d"], "fractions: must be four numbers"),
        (["pack", "stylised", "identities=4", "OUT", "--set", "size"], "--set: must be NAME=VALUE, got 'size'"),
        (
            ["fit", "magic", "PEOPLE", "OUT", "--private", "gender"],
            f"method: must be one of {', '.join(METHODS)}, got 'magic'",
        ),
        (["fit", "aia", "/nowhere", "OUT", "--private", "gender"], "/nowhere: no such folder"),
        (["fit", "aia", "PEOPLE", "OUT", "--private", "height"], "label 'height': the pack has gender, identity"),
        (["fit", "aia", "PEOPLE", "OUT", "--private", "gender", "--preset", "huge"], "preset: must be one of paper"),
        (
            ["fit", "aia", "PEOPLE", "OUT", "--private", "gender", "--set", "alpha=x"],
            "alpha: must be a finite number, got 'x'",
        ),
        (["fit", "aia", "PEOPLE", "OUT", "--private", "gender", "--set", "nope=1"], "got 'nope'"),
        (
            ["fit", "aia", "PEOPLE", "OUT", "--private", "gender", "--precision", "fp8"],
            "precision: must be one of auto, bf16, fp32",
        ),
        (["fit", "aia", "PEOPLE", "PEOPLE", "--private", "gender"], "already exists; choose another name or force"),
        (["fit", "random", "PEOPLE", "OUT", "--private", "gender", "--key", "/nowhere"], "the key cannot be read"),
        (["fit", "aia", "PEOPLE", "OUT"], "private: at least one label must be named, got none"),
        (["fit", "aia", "PEOPLE", "OUT", "--private", "gender", "--seed", "-1"], "Invalid value for '--seed'"),
        (["fit", "aia", "PEOPLE", "OUT", "--private", "gender", "--seed", "4294967296"], "Invalid value for '--seed'"),
        (["apply", "/nowhere", "PEOPLE", "OUT.npz"], "/nowhere: must be a release folder"),
        (["audit", "PEOPLE", "OUT"], "at least one label must be named, or --inversion asked for, got neither"),
        (["audit", "PEOPLE", "OUT", "--private", "gender", "--perceptual", "w.pth"], "--perceptual is for --inversion"),
        (
            ["audit", "PEOPLE", "OUT", "--private", "gender", "--matcher", "m.onnx"],
            "matcher: compares redrawn faces (by inversion) or, where identity is used, releases that are images",
        ),
        (
            ["audit", "PEOPLE", "OUT", "--private", "gender", "--classifier", "gender=c.onnx"],
            "classifier: reads releases that are images like the unprotected originals, and there are none to show to",
        ),
        (
            ["audit", "PEOPLE", "OUT", "--private", "gender", "--classifier", "c.onnx"],
            "must be LABEL=FILE, got 'c.onnx'",
        ),
        (["audit", "--vectors", "/nowhere.npz", "--inversion"], "so a PACK that holds them must be named"),
        (["audit", "PEOPLE", "OUT", "--private", "height"], "label 'height'"),
        (["audit", "PEOPLE", "OUT", "--private", "gender", "--effort", "huge"], "effort: must be one of quick"),
        (
            ["audit", "PEOPLE", "OUT", "--private", "gender", "--attack-on", "test"],
            "must train on 'attack' or 'protect'",
        ),
        (["audit", "PEOPLE", "OUT", "--private", "gender", "--release", "=x"], "must be NAME=PATH or a path"),
        (["audit", "PEOPLE", "OUT", "--private", "gender", "--vectors", "/nowhere.npz"], "/nowhere.npz"),
        (["audit", "PEOPLE", "OUT", "--private", "gender", "--baseline", "magic"], "magic"),
        (["report", "/nowhere"], "/nowhere/findings.json"),
        (["export", "/nowhere", "OUT.onnx"], "/nowhere: must be a release folder"),
        (["frobnicate"], "No such command 'frobnicate'. (see `veil --help`)"),
        (["audit", "--frobnicate"], "No such option"),
    ],
)
def test_a_mistake_is_one_line_and_status_two(
    arguments: list[str], message: str, veil: Veil, people: Path, tmp_path: Path
) -> None:
    places = {"OUT": tmp_path / "out", "OUT.npz": tmp_path / "out.npz", "PEOPLE": people}
    err = veil.refuses(*(places.get(a, a) for a in arguments), *(["--jobs", 1] if arguments[0] == "audit" else []))
    assert message in err
    assert not [p.name for p in tmp_path.iterdir() if not p.name.startswith("out")]
    assert not (tmp_path / "out" / "findings.json").exists()


def test_strict_apply_exits_with_two_and_still_writes(veil: Veil, tmp_path: Path, people: Path) -> None:
    release = tmp_path / "leace"
    assert veil("fit", "leace", people, release, "--private", "gender").status == 0
    x = np.ones((4, 6), np.float32)
    x[1, 0] = np.inf
    np.savez(tmp_path / "in.npz", vectors=x)
    done = veil("apply", release, tmp_path / "in.npz", tmp_path / "a.npz")
    assert done.status == 0
    assert "3 rows; 1 skipped, listed in" in done.out
    done = veil("apply", release, tmp_path / "in.npz", tmp_path / "b.npz", "--strict")
    assert done.status == 2
    assert "--strict" in done.err
    assert (tmp_path / "b.npz").exists()
    assert (tmp_path / "b.npz.skipped.csv").exists()
    assert "already exists" in veil.refuses("apply", release, tmp_path / "in.npz", tmp_path / "a.npz")
    assert veil("apply", release, tmp_path / "in.npz", tmp_path / "a.npz", "--force").status == 0


def test_packing_pictures_says_what_was_skipped(veil: Veil, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "abcdefgh":
        Image.fromarray(np.full((20, 20), 9, np.uint8)).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no")
    done = veil("pack", "folder", tmp_path / "in", tmp_path / "pack", "--size", 16)
    assert done.status == 0
    assert "8 images" in done.out
    assert "1 skipped" in done.out


def test_what_is_lost_is_a_warning_before_all_else(veil: Veil, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "abcdefgh":
        Image.fromarray(np.full((20, 20), 9, np.uint8)).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "x.heic").write_bytes(b"x")
    (tmp_path / "l.csv").write_text("file_name;gender\n" + "".join(f"{name}.png;f\n" for name in "abcd"))
    lost = [
        "5 of the images have no row in l.csv (the first: e.png).",
        "1 of 9 were skipped; skipped.csv says why.",
        "gender is unknown in 4 of 8 rows.",
    ]
    arguments = ("pack", "folder", tmp_path / "in", tmp_path / "pack", "--size", 16, "--labels", tmp_path / "l.csv")
    for quiet in ((), ("--quiet",)):
        done = veil(*arguments, "--force", *quiet)
        assert (done.status, done.err.splitlines()) == (0, [f"warning: {line}" for line in lost])
        assert "warning:" not in done.out
        assert "  note: Labels were read from l.csv.\n" in done.out
    made = veil.json(*arguments, "--force")
    assert (made["warnings"], made["notes"]) == (lost, ["Labels were read from l.csv."])


def test_columns_of_vectors_go_from_the_pack_to_the_release(veil: Veil, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4)).astype(np.float32)
    names = ["yaw", "pitch", "roll", "iod"]
    labels = {"source": [f"{i}" for i in range(120)], "identity": [i // 2 for i in range(120)]}
    table = pa.table({**labels, "gender": ["f", "f", "m", "m"] * 30, **{n: x[:, i] for i, n in enumerate(names)}})
    pq.write_table(table, tmp_path / "train.parquet")
    pq.write_table(table.select([*labels, *reversed(names)]), tmp_path / "other.parquet")
    pq.write_table(table.rename_columns([*labels, "gender", "yaw", "pitch", "roll", "age"]), tmp_path / "age.parquet")
    done = veil("pack", "embeddings", tmp_path / "train.parquet", tmp_path / "pack")
    assert "note: Vectors are the 4 columns yaw, pitch, roll, iod of train.parquet.\n" in done.out
    assert veil("fit", "leace", tmp_path / "pack", tmp_path / "r", "--private", "gender").status == 0
    for name in ("train", "other"):
        done = veil("apply", tmp_path / "r", tmp_path / f"{name}.parquet", tmp_path / f"{name}.npz")
        assert (done.status, done.err) == (0, "")
        assert f"note: Vectors are the 4 columns yaw, pitch, roll, iod of {name}.parquet.\n" in done.out
    first, second = (np.load(tmp_path / f"{name}.npz")["releases"] for name in ("train", "other"))
    np.testing.assert_array_equal(first, second)
    told = veil.refuses("apply", tmp_path / "r", tmp_path / "age.parquet", tmp_path / "age.npz")
    assert "missing: iod; none of them: age" in told
    np.save(tmp_path / "bare.npy", x)
    done = veil("apply", tmp_path / "r", tmp_path / "bare.npy", tmp_path / "bare.npz")
    assert done.err == (
        "warning: bare.npy does not name the columns of its vectors; their values are taken in the order yaw, pitch, "
        "roll, iod.\n"
    )


def test_a_file_that_is_audited_says_what_was_taken_and_what_is_lost(
    veil: Veil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "audit_pack", lambda *_, **__: [])
    lines = [f"{i},{i // 4},{'NULL' if i % 4 else 'f' if i % 8 else 'm'},{i}.5,{i + 1}.25" for i in range(1, 80)]
    (tmp_path / "v.csv").write_text("\n".join(["name,identity,gender,yaw,pitch", *lines]))
    done = veil("audit", tmp_path / "v.csv", tmp_path / "out", "--private", "gender")
    assert done.status == 0
    assert done.err.splitlines() == [
        "warning: gender is unknown in 60 of 79 rows.",
        "  note: Vectors are the 2 columns yaw, pitch of v.csv.",
        "  note: gender: 60 values are words for nothing, such as NULL, and are taken as unknown.",
    ]


def test_a_quiet_export_is_quiet(
    veil: Veil, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxscript")
    torch = pytest.importorskip("torch")
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    monkeypatch.setattr(logging.getLogger("torch"), "propagate", True)  # to what catches it here

    def export(module: object, arguments: object, path: str, **options: object) -> None:
        log.warning("torchvision is not installed. Skipping torchvision::nms")  # as PyTorch says each time
        Path(path).write_bytes(b"network")

    monkeypatch.setattr(torch.onnx, "export", export)
    release = pipeline.fit("leace", Pack.open(people), private=["gender"])[0].save(tmp_path / "r")
    assert veil("export", release, tmp_path / "r.onnx", "--quiet") == (0, f"{tmp_path / 'r.onnx'}\n", "")
    assert not caplog.records
    log.warning("of others is heard")
    assert len(caplog.records) == 1


def test_our_own_fault_is_one_line_and_status_one(veil: Veil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from veil.report import html

    def broken(out: Path) -> Path:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr(html, "write", broken)
    done = veil("report", tmp_path)
    assert done == Done(1, "", "veil: internal error, please report it: ZeroDivisionError: one\n")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (PermissionError(13, "Permission denied", "/somewhere"), 2, "veil: /somewhere: Permission denied\n"),
        (OSError("odd"), 1, "veil: internal error, please report it: OSError: odd\n"),
        (KeyboardInterrupt(), 130, "veil: interrupted\n"),
    ],
)
def test_what_the_system_refuses(
    error: BaseException, status: int, message: str, veil: Veil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from veil.report import html

    def broken(out: Path) -> Path:
        raise error

    monkeypatch.setattr(html, "write", broken)
    done = veil("report", tmp_path)
    assert (done.status, done.err) == (status, message)


# -- names ------------------------------------------------------------------------------------------------------------


def test_names_of_releases(tmp_path: Path) -> None:
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert cli._named(str(odd)) == ("a=b", odd)
    assert cli._named(f"mine={tmp_path}") == ("mine", tmp_path)
    assert cli._named("R/paper") == ("paper", Path("R/paper"))


def test_a_folder_may_be_called_by_where_one_stands(
    veil: Veil, tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "random"
    assert veil("fit", "random", people, folder, "--private", "gender").status == 0
    (folder / "in").mkdir()
    for place, path in ((folder, "."), (folder / "in", "..")):
        monkeypatch.chdir(place)
        assert veil("apply", path, people, tmp_path / f"{place.name}.npy").status == 0
        assert cli._named(path) == ("random", folder)
        assert cli._named(f"mine={path}") == ("mine", folder)
    assert "/: not a name" in veil.refuses("fit", "random", people, "/", "--private", "gender", "--force")
    assert ".: not a name" in veil.refuses("apply", folder, people, ".", "--force")
    monkeypatch.chdir(folder)
    err = veil.refuses("fit", "leace", people, ".", "--private", "gender", "--force")
    assert f"{folder}: holds what is no part of a release and would be lost (in); move it away" in err
    (folder / "in").rmdir()
    assert veil.json("fit", "leace", people, ".", "--private", "gender", "--force") == {"release": str(folder)}
    monkeypatch.chdir(tmp_path)
    assert Release.load("random").method == "leace"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.npy", "random", "random.key", "random.npy"]


# -- help -------------------------------------------------------------------------------------------------------------


def _options(command: str) -> dict[str, str]:
    """The help of every parameter of a command."""
    hints = inspect.get_annotations(getattr(cli, command), eval_str=True, globals=vars(cli) | {"Path": Path})
    return {name: hint.__metadata__[0].help for name, hint in hints.items() if hasattr(hint, "__metadata__")}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_parameter_has_help_that_is_shown(command: str, veil: Veil, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    done = veil(command, "--help")
    assert (done.status, done.err) == (0, "")
    options = _options(command)
    assert set(options) == set(inspect.signature(getattr(cli, command)).parameters)
    for name, text in options.items():
        assert text, name
        assert " ".join(text.split())[:30] in " ".join(done.out.split()), name


def test_help_names_what_there_is() -> None:
    assert all(name in _options("pack")["layout"] for name in LAYOUTS)
    assert all(name in _options("fit")["method"] for name in METHODS)
    assert all(name in _options("audit")["effort"] for name in EFFORTS)
    for name, method in METHODS.items():
        told = re.search(rf"for {name}: ([^;.]*)", _options("fit")["preset"], re.IGNORECASE)
        assert (told[1].split(", ") if told else ["default"]) == list(method.presets), name
    baselines = [name for name, method in METHODS.items() if method.role(next(iter(method.presets))) == "baseline"]
    assert baselines == ["leace", "random"]
    assert all(name in _options("audit")["baseline"] for name in baselines)
    assert {c.callback.__name__ for c in cli.app.registered_commands if c.callback} == set(COMMANDS)


def test_no_arguments_show_the_help(veil: Veil) -> None:
    done = veil()
    assert (done.status, done.err) == (0, "")
    assert all(command in done.out for command in COMMANDS)
    assert veil("--version").out == f"{__version__}\n"


def test_json_holds_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    failed = Finding(code="attribute.balanced_accuracy", release="a", target="gender", attacker="MLPs", role="attack",
                     value=float("nan"), n=3, status="did_not_converge", note="why", worst=True)  # fmt: skip
    cli._print_summary([failed], ["gender"], "identity", Path("x"), cli.Show(quiet=False, as_json=True))
    row = json.loads(capsys.readouterr().out)["rows"][0]
    assert (row["attack"]["value"], row["utility"]) == (None, None)
    cli._print_summary([failed], ["gender"], "identity", Path("x"), cli.Show(quiet=False, as_json=False))
    assert "│ -" in capsys.readouterr().out


# -- as a process -----------------------------------------------------------------------------------------------------


def test_help_is_quick_because_torch_is_not_imported() -> None:
    code = "import sys; sys.argv = ['veil', '--help']\nimport veil.cli\n" \
           "try: veil.cli.main()\nexcept SystemExit: print(sorted({m.split('.')[0] for m in sys.modules}))"  # fmt: skip
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = out.splitlines()[-1]
    assert "'typer'" in loaded
    for heavy in ("torch", "numpy", "sklearn", "pyarrow", "PIL", "plotly"):
        assert f"'{heavy}'" not in loaded


def test_statuses_of_the_process() -> None:
    assert _process("--version").returncode == 0
    done = _process("report", "/nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"veil: [^\n]+\n", done.stderr)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes that close are a matter of POSIX")
def test_a_closed_pipe_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", "from veil.cli import main; main()", "--version"], stdout=write,
                          stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_a_terminated_run_leaves_nothing(tmp_path: Path) -> None:
    code = "import os, signal, sys\nfrom veil import cli\nfrom veil.data import stylised\nwhole = stylised.render\n" \
           "def render(*a, **k):\n    os.kill(os.getpid(), signal.SIGTERM)\n    return whole(*a, **k)\n" \
           "stylised.render = render\n" \
           f"sys.argv = ['veil', 'pack', 'stylised', 'identities=20', {str(tmp_path / 'out')!r}]\n" \
           "cli.main()"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "veil: interrupted\n")
    assert list(tmp_path.iterdir()) == []
