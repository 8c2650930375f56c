"""The command line: the whole way, exit statuses, one-line messages, and help that tells the truth."""

from __future__ import annotations

import errno
import inspect
import json
import logging
import math
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import methods_matrix as matrix
from conftest import attacked_by, brightness_file, faces_pack, only, onnx_file, vectors_pack
from veil import cli
from veil._version import __version__
from veil.auditing import transfer
from veil.auditing.matchers import MATCHERS
from veil.auditing.problem import EFFORTS
from veil.cli import app as commands
from veil.cli import texts
from veil.cli.show import Lines, Show
from veil.cli.tables import show_audit
from veil.data.layouts import LAYOUTS
from veil.data.pack import Pack
from veil.data.vectors import SUFFIXES
from veil.errors import InputError
from veil.findings import Finding
from veil.methods import METHODS, template
from veil.release import Release
from veil.workflows import described
from veil.workflows import fit as fitting
from veil.workflows.audit import OUTCOMES, Audit, audit
from veil.workflows.demo import Scale
from veil.workflows.fit import Curves, read_curves, write_curves
from veil.workflows.fit_folder import FitOptions, fit_into
from veil.workflows.subjects import Subject

BRIEF_DEMO = Scale(
    people=60, images=3, side=32, matcher={"networks": 1, "steps_alone": 1, "batch": 16},
    protector={"networks": 1, "steps_alone": 1, "steps_joint": 3, "batch": 16},
    template={"steps": 2, "steps_guess": 2, "batch": 16}, budget=1.0,
)  # fmt: skip
COMMANDS = (
    "demo", "protect", "pack", "label", "embed", "fit", "apply", "rekey", "audit", "check", "report", "export"
)  # fmt: skip
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


STOPS = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@pytest.fixture
def veil(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Veil]:
    handlers = {number: signal.getsignal(number) for number in STOPS}
    monkeypatch.setattr(Lines, "FIRST", math.inf)  # no progress, however slow the machine
    monkeypatch.setattr(template, "ENOUGH", 0)  # nor a warning of the few people of these tests
    yield Veil(capsys, monkeypatch)
    for number, handler in handlers.items():
        signal.signal(number, handler)


BRIEF: dict[str, Any] = {"matchers": {"LDA": MATCHERS["LDA"]}}


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit of seconds: the attackers that need no training loop, one matcher."""
    attacked_by(monkeypatch, "logistic regression", "RBF SVM", **BRIEF)


def _process(*arguments: object, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "veil", *map(str, arguments)],
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
    beside = {"curves": f"{release}.curves.parquet", "fitted": f"{release}.fitted"}
    assert written == {"release": str(release), **beside, "warnings": []}
    assert set(pq.read_table(written["curves"]).column_names) == {"step", "stage", "player", "loss"}
    assert not (tmp_path / "R" / "paper.checkpoint").exists()

    vectors = tmp_path / "out.parquet"
    applied = veil.json("apply", release, pack, vectors)
    note = "Rows keep the names that they had, in column source; --row-numbers leaves them out."
    assert applied == {
        "out": str(vectors), "rows": 240, "skipped": 0, "unprotected": 0, "warnings": [], "notes": [note],
    }  # fmt: skip
    for name in ("numbers.npz", "bare.npy", "released"):
        numbered = ["--row-numbers"] * (name == "numbers.npz")
        assert veil.json("apply", release, pack, tmp_path / name, *numbered)["notes"] == []
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
    assert document["command"] == (
        "veil audit PACK OUT --private gender --private smile --release paper=RELEASE --release again=RELEASE "
        "--vectors mine=VECTORS --effort quick --level 0.9 --jobs 1"
    )
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


def test_rekey_says_what_the_old_key_still_opens(veil: Veil, tmp_path: Path) -> None:
    old, new, stored, moved = (tmp_path / name for name in ("old", "new", "stored.npy", "moved.npy"))
    release = matrix.train("template", matrix.brief("template", renew=True), vectors_pack())
    release.save(old)
    np.save(stored, release.transform(vectors_pack().x[:7]))
    done = veil("rekey", old, new)
    assert (done.status, done.err) == (0, "")
    assert f"{old}.key still opens what was released under it" in done.out
    assert veil.json("rekey", old, new, "--stored", stored, "--out", moved)["rows"] == 7
    assert "moved.npy: already exists" in veil.refuses("rekey", old, new, "--stored", stored, "--out", moved)


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

    def subject(loss: float) -> Subject:
        return Subject(name="mine", vectors=np.asarray(pack.x), curves=[(0, "stage", "player", loss)])

    audit(pack, [subject(0.5)], out, **ask)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    files = ["00-mine.parquet", "contributions.parquet", "findings.json"]
    assert sorted(path.name for path in before if path.parent.name != OUTCOMES) == files

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("veil.findings.write", full)
    with pytest.raises(OSError, match="No space left"):
        audit(pack, [subject(0.7)], out, **ask)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(InputError, match="effort: must be one of"):
        audit(pack, [subject(0.5)], tmp_path / "other", **(ask | {"effort": "quik"}))
    assert not (tmp_path / "other").exists()


def test_files_beside_a_release_are_not_replaced_unasked(veil: Veil, tmp_path: Path, people: Path) -> None:
    fit = ("fit", "leace", people, tmp_path / "r", "--private", "gender")
    apply = ("apply", tmp_path / "r", people, tmp_path / "o.npz")
    for name in ("r.checkpoint", "r.curves.parquet"):
        beside = tmp_path / name
        beside.write_text("precious")
        assert f"{beside}: " in (err := veil.refuses(*fit))
        assert "--force" in err
        assert beside.read_text() == "precious"
        beside.unlink()
    (tmp_path / "r.fitted").write_text("precious")
    assert f"{tmp_path / 'r.fitted'}: says what another release was fitted on" in veil.refuses(*fit)
    assert (tmp_path / "r.fitted").read_text() == "precious"
    (tmp_path / "r.fitted").unlink()
    assert veil(*fit).status == 0
    (tmp_path / "o.npz.skipped.csv").write_text("precious")
    assert "o.npz.skipped.csv: already exists" in veil.refuses(*apply)
    assert (tmp_path / "o.npz.skipped.csv").read_text() == "precious"
    assert veil(*apply, "--force").status == 0


SHORT = ("--set", "steps=2", "--set", "steps_guess=2", "--set", "batch=16")


def test_an_interrupted_fit_says_whose_it_is_and_what_to_do(veil: Veil, tmp_path: Path, people: Path) -> None:
    code = "import os, signal\nfrom veil import cli\nfrom veil.engine.run import Run\n" \
           "whole = Run._save\n" \
           "def save(self, saving):\n    whole(self, saving)\n    os.kill(os.getpid(), signal.SIGTERM)\n" \
           "Run._save = save\ncli.main()"  # fmt: skip
    fit = ("fit", "template", people, tmp_path / "r", "--private", "gender", "--no-frontier", *SHORT)
    interrupted = [sys.executable, "-c", code, *map(str, fit), "--quiet"]
    done = subprocess.run(interrupted, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "veil: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["r.checkpoint"]
    whose = f"veil: {tmp_path / 'r.checkpoint'}: an interrupted fit of template (guess 2 steps) left it; "
    rest = ", choose another name for the release, or start anew by --force\n"
    assert veil.refuses(*fit) == f"{whose}go on with the same command and --resume{rest}"
    other = ("fit", "leace", people, tmp_path / "r", "--private", "gender")
    assert veil.refuses(*other) == f"{whose}leace would replace it{rest}"
    assert "of an interrupted fit of 'template', not of 'leace'" in veil.refuses(*other, "--resume")
    assert veil(*fit, "--resume").status == 0
    assert not (tmp_path / "r.checkpoint").exists()


def test_a_fit_that_is_done_is_done_again_at_once(
    veil: Veil, tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been killed after the last thing it did, or before: then what is left is done."""
    fit = ("fit", "template", people, tmp_path / "r", "--private", "gender", "--no-frontier", *SHORT)
    veil.json(*fit)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with monkeypatch.context() as patched:
        _untrained(patched)
        assert veil.json(*fit, "--resume")["key"] == str(tmp_path / "r.key")
        another = veil.refuses(*fit, "--set", "align=false", "--resume")
        assert (
            another == f"veil: {tmp_path / 'r'}: already exists, and is of another fit; choose another name or force\n"
        )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    with monkeypatch.context() as patched:  # killed just before the checkpoint goes
        patched.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        veil.json(*fit, "--force")
    assert (tmp_path / "r.checkpoint").exists()
    (tmp_path / "r.curves.parquet").unlink()
    veil.json(*fit, "--resume")
    assert not (tmp_path / "r.checkpoint").exists()
    kept = {path: data for path, data in files.items() if path.suffix != ".fitted"}  # whose salt is drawn anew
    assert {path: path.read_bytes() for path in kept} == kept


def test_python_has_what_fit_does_with_folders(tmp_path: Path, people: Path) -> None:
    options = FitOptions(method="random", private=["gender"])
    made = fit_into(options, people, tmp_path / "r")
    assert made is not None
    assert (made.folder, made.curves, made.noiseless) == (tmp_path / "r", None, False)
    assert (made.key, made.fitted) == (tmp_path / "r.key", tmp_path / "r.fitted")
    assert made.key.read_bytes() == made.release.key == Release.load(made.folder).key
    with pytest.raises(InputError, match="r: already exists; choose another name or force"):
        fit_into(options, people, tmp_path / "r")
    with pytest.raises(InputError, match="r: already exists, and is of another fit"):
        fit_into(replace(options, seed=1), people, tmp_path / "r", resume=True)
    resumed = fit_into(options, people, tmp_path / "r", resume=True)
    assert resumed is not None
    assert resumed.release.made == made.release.made


def _untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(*arguments: object, **options: object) -> None:
        raise AssertionError("trained before all was checked")

    monkeypatch.setattr("veil.workflows.fit.fit", trained)
    monkeypatch.setattr("veil.workflows.fit.fit_measured", trained)


def test_what_saving_would_refuse_is_refused_before_training(
    veil: Veil, tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _untrained(monkeypatch)
    (tmp_path / "r.key").write_bytes(bytes(32))
    (tmp_path / "new.key").write_bytes(b"1" * 32)
    (tmp_path / "file").write_text("no folder")
    fit = ("fit", "random", people)
    ask = ("--private", "gender", "--key", tmp_path / "new.key")
    err = veil.refuses(*fit, tmp_path / "r", *ask)
    assert err == f"veil: {tmp_path / 'r.key'}: holds another key, which releases that are out may need; move it, or " \
                  "force\n"  # fmt: skip
    err = veil.refuses(*fit, tmp_path / "file" / "deep" / "r", *ask)
    assert f"r: cannot be made, because {tmp_path / 'file'} is a file" in err
    assert "budget: must be NAME=LIMIT" in veil.refuses(*fit, tmp_path / "s", "--private", "gender", "--budget", "g=2")


def test_a_release_without_noise_needs_no_word_about_a_frontier(veil: Veil, tmp_path: Path, people: Path) -> None:
    fit = ("fit", "template", people, tmp_path / "r", "--private", "gender", "--set", "noise=0", *SHORT)
    for asked in (("--frontier",), ("--budget", "gender=0.9")):
        assert "a frontier needs a release with keyed noise, got noise 0" in veil.refuses(*fit, *asked)
    assert list(tmp_path.iterdir()) == []
    done = veil(*fit)
    assert (done.status, done.err) == (0, "")
    assert "no frontier, as there is no noise to measure" in done.out
    assert "frontier" not in Release.load(tmp_path / "r").made


def test_a_fit_on_few_people_is_warned_of(
    veil: Veil, tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On stderr, --quiet or not; in JSON; in the release, and so in the report of an audit."""
    monkeypatch.setattr(template, "ENOUGH", 100)
    fit = ("fit", "template", people, tmp_path / "r", "--private", "gender", "--no-frontier", *SHORT)
    n = len(np.unique(Pack.open(people).label("identity")[Pack.open(people).rows("protect")]))
    done = veil(*fit, "--quiet")
    assert done.status == 0
    assert done.err.startswith(f"warning: template learned from {n} people; ")
    assert "below 100 that shows" in done.err
    told = veil.json(*fit, "--force")["warnings"]
    assert [f"warning: {words}\n" for words in told] == [done.err]
    release = Release.load(tmp_path / "r")
    assert release.made["warnings"] == told
    assert described.audited(Subject(name="r", release=release, note="Mine."))["note"] == f"Mine. {told[0]}"


def test_a_fit_on_people_enough_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = vectors_pack()
    here = len(np.unique(pack.label("identity")[pack.rows("protect")]))
    short = {"steps": 1, "steps_guess": 1, "batch": 8}
    for enough, few in ((here, False), (here + 1, True)):
        monkeypatch.setattr(template, "ENOUGH", enough)
        release = fitting.fit("template", pack, private=["gender"], settings=short).release
        assert ("warnings" in release.made) == few


def test_a_key_that_nothing_is_drawn_with_is_said_to_be_of_no_use(veil: Veil, tmp_path: Path, people: Path) -> None:
    (tmp_path / "a.key").write_bytes(bytes(32))
    done = veil("fit", "leace", people, tmp_path / "r", "--private", "gender", "--key", tmp_path / "a.key")
    assert f"{tmp_path / 'a.key'}: not used, as the release draws nothing" in done.out
    assert not (tmp_path / "r.key").exists()


def test_an_export_says_its_result_and_nothing_else(veil: Veil, tmp_path: Path, people: Path) -> None:
    pytest.importorskip("onnxscript")
    assert veil("fit", "leace", people, tmp_path / "r", "--private", "gender").status == 0
    path = str(tmp_path / "bundle")
    for word, said in (("--quiet", path), ("--json", json.dumps({"bundle": path}))):
        done = _process("export", tmp_path / "r", path, "--force", word)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{said}\n", "")


@pytest.mark.usefixtures("brief")
def test_an_audit_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    """Its curves, pictures and report; files of others in the folder stay."""
    pack, out = vectors_pack(), tmp_path / "out"
    ask: dict[str, Any] = {"private": ["gender"], "utility": [], "baselines": (), "effort": "quick", "jobs": 1}

    def subject(name: str, curves: Curves = ((0, "stage", "player", 0.5),)) -> Subject:
        return Subject(name=name, vectors=np.asarray(pack.x), curves=curves)

    def there() -> list[str]:
        paths = sorted(path.relative_to(out).as_posix() for path in out.rglob("*"))
        return [path for path in paths if not path.startswith(OUTCOMES)]

    audit(pack, [subject("one"), subject("two")], out, **ask)
    (out / "report.html").write_text("of one and two")
    (out / "notes.txt").write_text("somebody's")
    (out / "curves" / "mine.parquet").write_text("somebody's")
    kept = ["contributions.parquet"]
    assert there() == [*kept, "curves", "curves/00-one.parquet", "curves/01-two.parquet", "curves/mine.parquet",
                       "findings.json", "notes.txt", "report.html"]  # fmt: skip
    audit(pack, [subject("two")], out, **ask)
    assert there() == [*kept, "curves", "curves/00-two.parquet", "curves/mine.parquet", "findings.json", "notes.txt"]
    (out / "curves" / "mine.parquet").unlink()
    audit(pack, [subject("three", ())], out, **ask)
    assert there() == [*kept, "findings.json", "notes.txt"]

    # Findings that name files elsewhere have nothing removed there.
    for name in ("../precious", "curves/../../precious", str(tmp_path / "precious")):
        (tmp_path / "precious").write_text("precious")
        document = json.loads((out / "findings.json").read_text())
        document["curves"] = [{"file": name, "release": "three"}]
        (out / "findings.json").write_text(json.dumps(document))
        audit(pack, [subject("three", ())], out, **ask)
        assert (tmp_path / "precious").exists()


@pytest.mark.usefixtures("brief")
def test_an_audit_of_the_use_alone_is_an_audit(veil: Veil, tmp_path: Path, people: Path, strangers: Path) -> None:
    """Nothing private: of a pack, of vectors without one; the messages lead there."""
    ask = ("--effort", "quick", "--jobs", 1)
    err = veil.refuses("audit", people, tmp_path / "out", *ask)
    assert "--private LABEL" in err
    assert "--utility identity" in err
    done = veil("audit", people, tmp_path / "out", "--utility", "identity", *ask)
    assert (done.status, done.err) == (0, "")
    assert "Use that is left: matching AUC; 0.95 intervals" in done.out
    assert re.search(r"│ Input +│ +\d\.\d{3} │ \d", done.out)
    told = veil.json("audit", "--vectors", strangers, "--utility", "gender", "--out", tmp_path / "b", *ask)
    assert [(row["private"], row["attack"], row["utility"]["target"]) for row in told["rows"]] == [
        (None, None, "gender")
    ]
    assert veil("report", tmp_path / "out").status == 0
    pack = Pack.open(people)
    found = audit(pack, [], private=[], utility=["identity"], effort="quick", jobs=1)
    assert {f.release for f in found.findings} == {"Input"}  # no LEACE: there is nothing for it to hide


def test_who_somebody_is_cannot_be_read_of_people_never_seen(veil: Veil, tmp_path: Path, people: Path) -> None:
    rule = "identity can only be attacked where people stand in several splits, and nobody of test is in attack"
    assert rule in veil.refuses("audit", people, tmp_path / "out", "--private", "identity")
    fit = ("fit", "template", people, tmp_path / "r", "--private", "identity", "--preset", "erased")
    err = veil.refuses(*fit, "--utility", "gender", "--set", "steps_erase=1")
    assert "nobody of calibrate is in attack" in err
    assert "--no-frontier" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("brief")
def test_identity_is_attacked_where_people_straddle_splits(veil: Veil, tmp_path: Path) -> None:
    who = np.repeat(np.arange(12), 20)
    x = np.eye(12, dtype=np.float32)[who] + 0.1 * np.random.default_rng(0).random((240, 12), np.float32)
    np.savez(tmp_path / "in.npz", vectors=x, identity=who)
    assert veil("pack", "embeddings", tmp_path / "in.npz", tmp_path / "p", "--no-disjoint").status == 0
    ask = ("audit", tmp_path / "p", tmp_path / "o", "--private", "identity", "--effort", "quick", "--jobs", 1)
    rows = veil.json(*ask)["rows"]
    assert [(row["name"], row["utility"]) for row in rows] == [("Input", None), ("Input + LEACE", None)]
    assert rows[0]["attack"]["value"] > 0.9  # identity is not the use then, as it is by default


@pytest.mark.parametrize("command", [("fit", "leace"), ("fit", "template"), ("audit",)])
def test_a_label_is_not_both_hidden_and_used(
    command: tuple[str, ...], veil: Veil, tmp_path: Path, people: Path
) -> None:
    rule = "must not be both private and the use"
    ask = (*command, people, tmp_path / "r")
    assert f"label gender: {rule}\n" in veil.refuses(*ask, "--private", "gender", "--utility", "gender")
    if command[0] == "fit":
        err = veil.refuses(*ask, "--private", "identity")
        assert f"label identity: {rule}, which is identity where no other is named" in err
    assert list(tmp_path.iterdir()) == []


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
    assert f"{key}: {plain} is a release without anything keyed, and takes no key" in err
    assert veil(*ask, "--key", f"R={key}").status == 0


def test_an_audit_of_people_who_were_trained_on_says_so(
    veil: Veil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked_by(monkeypatch, "logistic regression", linkers={})
    pack = vectors_pack(people=100)
    table = {"v": list(pack.x), **{n: [pack.classes[n][c] for c in pack.labels[n]] for n in pack.labels}}
    pq.write_table(pa.table(table), tmp_path / "people.parquet")
    one, other, release = tmp_path / "one", tmp_path / "other", tmp_path / "r"
    for seed, path in enumerate((one, other)):
        assert veil("pack", "embeddings", tmp_path / "people.parquet", path, "--seed", seed).status == 0
    done = veil("fit", "leace", one, release, "--private", "gender")
    assert f"{release}.fitted: hashes of what it was fitted on" in done.out
    ask = ("audit", other, tmp_path / "out", "--private", "gender", "--effort", "quick", "--jobs", 1, "--baseline",
           "none", "--release", release, "--vectors", f"v={tmp_path / 'people.parquet'}")  # fmt: skip
    told = veil(*ask).out
    found = re.match(r"r: CONTROL FAILED: (\d+) of 25 people of test \(\d+ of 75 rows\), ", told)
    assert found is not None
    there, here = (set(p.label("identity")[p.rows(split)].tolist())
                   for p, split in ((Pack.open(one), "protect"), (Pack.open(other), "test")))  # fmt: skip
    assert int(found[1]) == len(there & here)
    Path(f"{release}.fitted").rename(tmp_path / "withheld")
    assert veil(*ask).out.startswith("r: whether it was fitted on these people cannot be known: its data were others")
    assert "v: " not in told  # of vectors from outside nobody expects it
    training = veil.json(*ask)["training"]
    assert training["r"]["seen"] is None
    assert training["v"]["note"] == "what vectors from outside were fitted on cannot be known"
    own = veil("audit", one, *ask[2:-2])  # the pack that it was fitted on
    assert "CONTROL" not in own.out
    assert "cannot be known" not in own.out


def test_training_losses_that_are_cut_off_are_one_line(veil: Veil, tmp_path: Path, people: Path) -> None:
    losses = write_curves(tmp_path / "r.curves.parquet", [(0, "s", "p", 0.5)])
    assert read_curves(losses) == [(0, "s", "p", 0.5)]
    losses.write_bytes(losses.read_bytes()[:-20])
    err = veil.refuses("audit", people, tmp_path / "out", "--private", "gender", "--release", tmp_path / "r")
    assert "r.curves.parquet: cannot be read" in err
    pq.write_table(pa.table({"step": [1]}), losses)
    assert "r.curves.parquet: has no column stage" in veil.refuses(
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
def test_the_demo_ends_with_verdicts_and_the_paths_of_their_pages(
    veil: Veil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("veil.workflows.demo.STANDARD", BRIEF_DEMO)
    done = veil("demo", "--out", tmp_path / "demo", "--jobs", 1, "--quiet")
    assert (done.status, done.err) == (0, "")
    pages = [str(tmp_path / "demo" / way / "audit" / "report.html") for way in ("photographs", "templates")]
    lines = done.out.splitlines()
    assert [line for line in lines if line.endswith(".html")] == pages
    assert lines[-1] == pages[-1]
    for way, page in zip(("photographs", "templates"), pages, strict=True):
        assert Path(page).stat().st_size > 10_000
        said = [line for line in lines if line.startswith(f"Protected {way}.")]
        assert [line.split(". ")[1] for line in said] == ["To hide: gender", "To keep: face matching"]
        assert all(re.search(r"\d", line) for line in said)
    assert Release.load(tmp_path / "demo" / "templates" / "private" / "release").made["budget"] == {
        "gender": BRIEF_DEMO.budget
    }


@pytest.mark.usefixtures("brief")
def test_an_audit_of_which_something_breaks_off_ends_and_says_so(
    veil: Veil, tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def singular(problem: Any) -> Any:
        raise np.linalg.LinAlgError("Singular matrix")

    broken = {"logistic regression": singular}
    attacked_by(monkeypatch, attackers=broken | only("RBF SVM")["attackers"], of_means=broken, **BRIEF)
    ask = (
        "audit",
        people,
        tmp_path / "out",
        "--private",
        "gender",
        "--effort",
        "quick",
        "--jobs",
        1,
        "--baseline",
        "none",
    )
    done = veil(*ask)
    assert done.status == commands.BROKE_OFF == 4
    assert done.err == (
        "veil: 2 attempts broke off, and what would have been found is not known: Input: logistic regression on gender "
        "(LinAlgError: Singular matrix), Input: logistic regression on gender, means of a person's (LinAlgError: "
        "Singular matrix)\n"
    )
    assert str(tmp_path / "out" / "findings.json") in done.out
    assert "RBF SVM" in done.out
    assert veil("report", tmp_path / "out").status == 0
    assert "Some attempts broke off" in (tmp_path / "out" / "report.html").read_text()
    done = veil(*ask, "--json")
    assert done.status == 4
    assert [f["note"] for f in json.loads(done.out)["broke_off"]] == ["LinAlgError: Singular matrix"] * 2
    attacked_by(monkeypatch, "logistic regression", "RBF SVM", **BRIEF)
    assert veil.json(*ask)["broke_off"] == []


def test_an_audit_goes_on_without_a_control_near_duplicates_or_pictures(
    veil: Veil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes before and after its attackers breaks off as they do: figures are not lost with it."""

    def wall(*arguments: Any, **options: Any) -> Any:
        raise np.linalg.LinAlgError("a wall")

    attacked_by(monkeypatch, "logistic regression")
    noisy = fitting.fit(
        "deep",
        faces_pack(),
        private=["gender"],
        settings={"batch": 16, "steps_alone": 1, "steps_joint": 1},
    ).release
    for name in ("subjects.fit", "subjects.released_means", "pictures.decoded"):
        monkeypatch.setattr(f"veil.workflows.{name}", wall)
    findings = audit(
        faces_pack(), [Subject(name="noisy", release=noisy)], tmp_path / "a", private=["gender"],
        utility=["identity"], effort="quick", jobs=1, pictures=True,
    ).findings  # fmt: skip
    lost = {(f.release, f.code, f.attacker): f.note for f in findings if f.status == "did_not_converge"}
    assert lost == {
        ("Input", "attribute.balanced_accuracy", "LEACE"): "LinAlgError: a wall",
        ("noisy", "attribute.repeated_balanced_accuracy", "logistic regression"): "LinAlgError: a wall",
    }
    assert any(f.ok and f.release == "noisy" and f.attacker == "logistic regression" for f in findings)
    document = json.loads((tmp_path / "a" / "findings.json").read_text())
    assert "The page does not show what decoders redraw: LinAlgError: a wall." in document["data"]["notes"]
    assert veil("report", tmp_path / "a").status == 0


def test_a_control_that_does_not_fit_says_how_to_leave_it_out(
    veil: Veil, tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*arguments: Any, **options: Any) -> Any:
        raise InputError("x: must be y")

    monkeypatch.setattr("veil.workflows.subjects.fit", refuses)
    said = veil.refuses("audit", people, tmp_path / "out", "--private", "gender", "--quiet")
    assert said == "veil: the control LEACE: x: must be y; --baseline none leaves it out\n"


def test_nothing_is_written_into_a_pack_or_a_release(veil: Veil, people: Path, tmp_path: Path) -> None:
    """Of a release its folder is all that ships: whatever lies in it goes out with it."""
    assert veil("fit", "random", people, tmp_path / "r", "--private", "gender", "--quiet").status == 0
    before = sorted(path.name for path in (tmp_path / "r").iterdir())
    rows = people.parent / "in.npz"
    for words, place, kind in (
        (("audit", people), people, "pack"),
        (("audit", people), tmp_path / "r" / "audit", "release"),
        (("apply", tmp_path / "r", rows), tmp_path / "r" / "out.parquet", "release"),
        (("fit", "random", people), people / "r", "pack"),
        (("pack", "embeddings", rows), tmp_path / "r" / "pack", "release"),
    ):
        said = veil.refuses(*words, place, *(["--private", "gender"] * (words[0] in ("fit", "audit"))), "--quiet")
        assert said.endswith(f", which is a {kind}; choose another folder\n"), said
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == before


def test_a_control_that_failed_is_said(veil: Veil, people: Path, tmp_path: Path) -> None:
    """Of random vectors nothing tells gender, so that what hides it shows nothing."""
    audited = (
        "audit",
        people,
        tmp_path / "a",
        "--private",
        "gender",
        "--effort",
        "quick",
        "--baseline",
        "none",
        "--quiet",
    )
    done = veil(*audited)
    failed = "On the unprotected input the attack on gender is not above chance"
    assert done.status == 0
    assert done.out.startswith(f"CONTROL FAILED: {failed} (")
    told = json.loads(veil(*audited, "--json").out)
    assert any(meaning.startswith(failed) for meaning in told["failed_controls"])


def test_a_budget_that_no_release_can_meet_is_refused_at_once(veil: Veil, people: Path, tmp_path: Path) -> None:
    said = veil.refuses("fit", "template", people, tmp_path / "r", "--private", "gender", "--budget", "gender=0.5")
    assert said == "veil: budget: gender must lie above chance (0.5), got 0.5\n"


def test_no_control_stands_alone(veil: Veil, people: Path, tmp_path: Path) -> None:
    code, _, said = veil(
        "audit", people, tmp_path / "a", "--private", "gender", "--baseline", "none", "--baseline", "leace"
    )
    assert (code, said) == (2, "veil: baseline: none stands alone, got none, leace\n")


# Of each method what makes it quick, and lets it work where nobody is known.
WITHOUT_PEOPLE: dict[str, dict[str, tuple[str, ...]]] = {
    "vectors": {
        "aia": ("--utility", "age", "steps_alone=2", "steps_joint=2", "batch=32"),
        "deep": ("--utility", "age", "steps_alone=2", "steps_joint=2", "batch=32"),
        "template": ("steps=2", "steps_guess=2", "batch=16", "--no-frontier"),
        "substitution": ("--utility", "age", "steps=2", "substitutes=code"),
        "leace": (),
        "random": (),
    },
    "images": {
        "aia": ("--utility", "age", "steps_alone=2", "steps_joint=2", "batch=32"),
        "mi": ("steps_alone=1", "steps_joint=1", "steps_views=1", "steps_discriminator=1", "batch=8",
               "least_variety=0"),
        "inversion": ("--utility", "age", "steps_alone=1", "steps_joint=1", "steps_perceptual=1", "steps_decoder=1",
                      "batch=8"),
        "san": ("steps_classifier=1", "steps_matcher=1", "steps=1", "batch=8", "aligned=0"),
        "substitution": ("--preset", "unguided", "steps=2", "substitutes=code"),
        "leace": (),
        "random": (),
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=WITHOUT_PEOPLE)
def nobody(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A small pack that does not say who is seen, of vectors or of images."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("nobody")
    gender, age = rng.integers(2, size=240), rng.integers(2, size=240)
    if request.param == "vectors":
        x = rng.random((240, 6), np.float32)
        x[:, 0] = 0.4 * x[:, 0] + 0.6 * gender
        np.savez(folder / "in.npz", vectors=x, gender=gender, age=age)
        source, layout = folder / "in.npz", "embeddings"
    else:
        (folder / "in").mkdir()
        images = rng.integers(0, 90, (240, 16, 16)) + 80 * gender[:, None, None]
        for i, image in enumerate(images.astype(np.uint8)):
            Image.fromarray(image).save(folder / "in" / f"{i:03d}.png")
        lines = [
            "source,gender,age",
            *(f"{i:03d}.png,{g},{a}" for i, (g, a) in enumerate(zip(gender, age, strict=True))),
        ]
        (folder / "labels.csv").write_text("\n".join(lines))
        source, layout = folder / "in", "folder"
    from veil.data import build

    labels = folder / "labels.csv" if layout == "folder" else None
    build.pack(layout, source, folder / "pack", size=16, labels=labels)
    return request.param, folder / "pack"


def test_every_method_is_tried_without_people() -> None:
    assert {name for methods in WITHOUT_PEOPLE.values() for name in methods} == set(METHODS)


@pytest.mark.usefixtures("brief")
def test_packs_without_identity_go_all_the_way(
    veil: Veil, tmp_path: Path, nobody: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fit, apply, audit, report, with every method: each row counts as a person, and all that is said says so."""
    attacked_by(monkeypatch, "logistic regression", "RBF SVM", classifiers=only("RBF SVM")["attackers"], **BRIEF)
    kind, pack = nobody
    releases = []
    for method, words in WITHOUT_PEOPLE[kind].items():
        options = [part for word in words for part in (("--set", word) if "=" in word else (word,))]
        done = veil("fit", method, pack, tmp_path / method, "--private", "gender", *options)
        assert (done.status, done.err) == (0, ""), method
        assert veil("apply", tmp_path / method, pack, tmp_path / f"{method}-pack").status == 0, method
        releases += ["--release", tmp_path / method]
    ask = ("audit", pack, tmp_path / "out", "--private", "gender", "--effort", "quick", "--jobs", 1)
    done = veil(*ask, *releases)
    assert done.status == 0
    unknown = f"{pack}: does not say who is seen: each row counts as a person"
    assert done.err == f"{unknown}, and no use is measured, for --utility names none\n"
    for name in ("Input", "Input + LEACE", *WITHOUT_PEOPLE[kind]):
        assert re.search(rf"│ {re.escape(name)} +│ +(AUC )?[01]\.\d{{3}} │", done.out), name
    assert veil("report", tmp_path / "out").status == 0
    page = " ".join((tmp_path / "out" / "report.html").read_text().split())
    verdict = page[page.index('<section id="verdict">') : page.index('<section id="releases">')]
    assert verdict.count(", each row a person") >= len(WITHOUT_PEOPLE[kind])
    assert "The data do not say who is seen, so each row counts as a person." in verdict
    document = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert document["data"]["identities"] is None
    assert {r["name"]: r["named"] for r in document["releases"] if r["role"] != "input"} == {
        "Input + LEACE": False, **dict.fromkeys(WITHOUT_PEOPLE[kind], True),
    }  # fmt: skip
    done = veil(*ask, "--utility", "age", "--baseline", "none")
    assert done.status == 0
    assert done.err == f"{unknown}\n"
    assert "age balanced accuracy" in " ".join(done.out.split())


@pytest.mark.usefixtures("brief")
def test_where_nobody_is_known_messages_name_the_way_out(veil: Veil, tmp_path: Path, nobody: tuple[str, Path]) -> None:
    kind, pack = nobody
    fit = ("fit", "METHOD", pack, tmp_path / "out", "--private", "gender")
    unless = "label 'identity', the use unless --utility names another: the pack has age, gender"
    assert unless in veil.refuses("fit", "aia", *fit[2:])
    ask = ("--private", "gender", "--utility", "identity", "--quiet")
    assert unless in veil.refuses("audit", pack, tmp_path / "out", *ask)
    assert not (tmp_path / "out").exists()
    average = veil.refuses("fit", "substitution", *fit[2:], "--utility", "age")
    assert "name it (person=LABEL), or release codes (substitutes=code)" in average
    if kind == "images":
        assert "name a label (--utility LABEL" in veil.refuses("fit", "inversion", *fit[2:])


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
        ("mine", "method", "vectors from \N{HORIZONTAL ELLIPSIS}")
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
    attacked_by(monkeypatch, "logistic regression", "RBF SVM", classifiers=only("RBF SVM")["attackers"], **BRIEF)
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
    assert "beside it, what is read by who knows only originals" in " ".join(done.out.split())
    found = json.loads((out / "findings.json").read_text())["findings"]
    for name in ("Input", "SAN"):
        each = {(f["code"], f["attacker"]): f for f in found if f["release"] == name}
        read = each["attribute.transfer_balanced_accuracy", "light.onnx"]
        assert "a file of the user's" in read["note"]
        row = next(line for line in done.out.splitlines() if f"│ {name} " in line)
        picked = next(f for f in each.values() if f["code"] == "attribute.transfer_balanced_accuracy" and f["worst"])
        assert f"{picked['value']:.3f}" in row.split("│")[5]
        assert picked["attacker"] in row.split("│")[6]
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
    others = page[page.index('<section id="others">') :]
    others = others[: others.index("</section>")]
    assert "light.onnx</td>" not in others  # what it reads from restored releases aside


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
        (["audit", "PEOPLE", "OUT"], "audit: name what to attack (--private LABEL, --inversion) or what to measure"),
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
        (["export", "/nowhere", "OUT"], "/nowhere: must be a release folder"),
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
    (tmp_path / "in" / "x.jxl").write_bytes(b"x")
    (tmp_path / "l.csv").write_text("file_name;gender\n" + "".join(f"{name}.png;f\n" for name in "abcd"))
    lost = [
        "4 of the images have no row in 'l.csv' (the first: 'e.png').",
        "1 of 9 were skipped; skipped.csv says why.",
        "gender is unknown in 4 of 8 rows.",
    ]
    arguments = ("pack", "folder", tmp_path / "in", tmp_path / "pack", "--size", 16, "--labels", tmp_path / "l.csv")
    for quiet in ((), ("--quiet",)):
        done = veil(*arguments, "--force", *quiet)
        assert (done.status, done.err.splitlines()) == (0, [f"warning: {line}" for line in lost])
        assert "warning:" not in done.out
        assert "  note: Labels were read from 'l.csv'.\n" in done.out
    made = veil.json(*arguments, "--force")
    assert (made["warnings"], made["notes"]) == (lost, ["Labels were read from 'l.csv'."])


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
    assert "note: Vectors are 4 columns of 'train.parquet': yaw, pitch, roll, iod.\n" in done.out
    assert veil("fit", "leace", tmp_path / "pack", tmp_path / "r", "--private", "gender").status == 0
    for name in ("train", "other"):
        done = veil("apply", tmp_path / "r", tmp_path / f"{name}.parquet", tmp_path / f"{name}.npz")
        assert (done.status, done.err) == (0, "")
        assert f"note: Vectors are 4 columns of '{name}.parquet': yaw, pitch, roll, iod.\n" in done.out
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
    monkeypatch.setattr("veil.workflows.audit.audit", lambda *_, **__: Audit(findings=[], document={}))
    lines = [f"{i},{i // 4},{'NULL' if i % 4 else 'f' if i % 8 else 'm'},{i}.5,{i + 1}.25" for i in range(1, 80)]
    (tmp_path / "v.csv").write_text("\n".join(["name,identity,gender,yaw,pitch", *lines]))
    done = veil("audit", tmp_path / "v.csv", tmp_path / "out", "--private", "gender")
    assert done.status == 0
    assert done.err.splitlines() == [
        "warning: gender is unknown in 60 of 79 rows.",
        "  note: Vectors are 2 columns of 'v.csv': yaw, pitch.",
        "  note: gender: 60 values are words for nothing, such as NULL, and are taken as unknown.",
        "  note: Vectors are far from centred: two of them have a cosine of 1.00 in the mean (0 around 0). Compare "
        "them by distance, or by the cosine after their mean is taken away; Veil's methods and audits do.",
    ]
    told = veil("audit", tmp_path / "v.csv", tmp_path / "out", "--private", "gender", "--json")
    assert told.err == ""
    assert json.loads(told.out)["warnings"] == ["gender is unknown in 60 of 79 rows."]


def test_a_quiet_export_is_quiet(
    veil: Veil, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxscript")
    torch = pytest.importorskip("torch")
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    monkeypatch.setattr(logging.getLogger("torch"), "propagate", True)  # to what catches it here

    true = torch.onnx.export

    def export(*arguments: object, **options: object) -> object:
        log.warning("torchvision is not installed. Skipping torchvision::nms")  # as PyTorch says each time
        return true(*arguments, **options)

    monkeypatch.setattr(torch.onnx, "export", export)
    release = fitting.fit("leace", Pack.open(people), private=["gender"]).release.save(tmp_path / "r")
    assert veil("export", release, tmp_path / "bundle", "--quiet") == (0, f"{tmp_path / 'bundle'}\n", "")
    heard = [record for record in caplog.records if record.levelno > logging.INFO]
    assert not heard
    log.warning("of others is heard")
    assert caplog.records[-1].getMessage() == "of others is heard"


def test_our_own_fault_is_one_line_and_status_one(veil: Veil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from veil.report import page as html

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
    from veil.report import page as html

    def broken(out: Path) -> Path:
        raise error

    monkeypatch.setattr(html, "write", broken)
    done = veil("report", tmp_path)
    assert (done.status, done.err) == (status, message)


# -- progress ---------------------------------------------------------------------------------------------------------


def _lines(capsys: pytest.CaptureFixture[str], *calls: tuple[float, str, int, int | None, str]) -> list[str]:
    """What is said on stderr of calls at some times, after the beginning at 0."""
    now = 0.0
    lines = Lines(clock=lambda: now)
    for when, *what in calls:
        now = when
        lines.show(*what)  # type: ignore[arg-type]
    return capsys.readouterr().err.splitlines()


def test_without_a_terminal_there_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [(2.0 * (i + 1), "aia: joint", 10 * (i + 1), 1000, "task 0.500") for i in range(100)]
    lines = _lines(capsys, *steps)
    # The first is at second 6; then at least 10 seconds and a tenth of the whole (20 seconds) lie between two.
    assert lines[:3] == [
        "aia: joint: 30 of 1,000 (3 %), about 3:14 left; task 0.500",
        "aia: joint: 130 of 1,000 (13 %), about 2:54 left; task 0.500",
        "aia: joint: 230 of 1,000 (23 %), about 2:34 left; task 0.500",
    ]
    assert len(lines) == 10


def test_slow_work_is_told_every_half_minute_and_quick_work_not_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert _lines(capsys, (1.0, "pack", 5, 10, ""), (4.0, "pack", 10, 10, "")) == []
    slow = [(4.0 * i, "fit", i, 100_000, "") for i in range(1, 26)]
    assert [line.split()[1] for line in _lines(capsys, *slow)] == ["2", "10", "18"]
    # A resumed run's time left follows from what it does itself; without a total nothing is foretold.
    resumed = [(6.0, "fit", 900, 1000, ""), (40.0, "fit", 934, 1000, "")]
    assert _lines(capsys, *resumed) == ["fit: 900 of 1,000 (90 %)", "fit: 934 of 1,000 (93 %), about 1:06 left"]
    assert _lines(capsys, (6.0, "pack", 2048, None, "3 skipped")) == ["pack: 2,048; 3 skipped"]
    assert _lines(capsys, (6.0, "a", 1, 2, ""), (17.0, "b", 1, 100, "")) == ["a: 1 of 2 (50 %)", "b: 1 of 100 (1 %)"]


def test_a_reader_who_has_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    now = 0.0
    lines = Lines(clock=lambda: now)
    now = 60.0
    lines.show("fit", 1, 2, "")


@pytest.mark.parametrize("silenced", [(), ("--quiet",), ("--json",)])
def test_a_log_has_progress_unless_it_is_silenced(
    silenced: tuple[str, ...], veil: Veil, tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lines, "FIRST", -1.0)
    done = veil("fit", "template", people, tmp_path / "r", "--private", "gender", "--no-frontier", *SHORT, *silenced)
    assert done.status == 0
    if silenced:
        assert done.err == ""
    else:
        assert re.match(r"template: guess: 2 of 2 \(100 %\); guess \d+\.\d{3}  guess without fold 1 ", done.err)


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are a matter of POSIX")
def test_bars_show_the_time_that_is_left_on_a_narrow_terminal(people: Path, tmp_path: Path) -> None:
    import pty

    main, terminal = pty.openpty()
    words = ["fit", "template", people, tmp_path / "r", "--private", "gender", "--no-frontier", *SHORT]
    run = [sys.executable, "-m", "veil", *map(str, words)]
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    with subprocess.Popen(run, env=environment, stdout=subprocess.DEVNULL, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(main, 4096)
            except OSError:  # on Linux the end of a terminal that has no other side any more
                break
            if not part:
                break
            shown += part
    os.close(main)
    assert process.returncode == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"template: guard ━+ 2/2 0:00:0\d left 0:00:00 adversary 1 0\.\d{3}  adversary 2", plain)


# -- names ------------------------------------------------------------------------------------------------------------


def test_names_of_releases(tmp_path: Path) -> None:
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert texts.named_path(str(odd)) == ("a=b", odd)
    assert texts.named_path(f"mine={tmp_path}") == ("mine", tmp_path)
    assert texts.named_path("R/paper") == ("paper", Path("R/paper"))
    # A dot is part of a folder's name; of a file of vectors the suffix is not.
    assert texts.named_path("runs/aia.v1") == ("aia.v1", Path("runs/aia.v1"))
    assert texts.named_path("theirs.npz", SUFFIXES) == ("theirs", Path("theirs.npz"))
    assert texts.named_path("theirs.v2.PARQUET", SUFFIXES) == ("theirs.v2", Path("theirs.v2.PARQUET"))
    assert texts.named_path("theirs.npz") == ("theirs.npz", Path("theirs.npz"))


def test_names_and_paths_may_hold_the_sign_between_them(tmp_path: Path) -> None:
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert texts.named_path(f"alpha=0.5={odd}") == ("alpha=0.5", odd)
    assert texts.named_path(f"mine={odd}") == ("mine", odd)
    assert texts.named_path("mine=no=where") == ("mine", Path("no=where"))
    pairs = ["x=y=c.onnx", "x=d=e.onnx"]
    assert texts.classifiers(pairs, ["x=y"]) == {"x=y": [Path("c.onnx")], "x": [Path("d=e.onnx")]}
    keys = texts.named_files("--key", "NAME=FILE", ["alpha=0.5=k=1.key"], ["alpha=0.5"])
    assert keys == [("alpha=0.5", Path("k=1.key"))]
    assert texts.settings(["labels=a=b"]) == {"labels": "a=b"}


def test_a_folder_may_be_called_by_where_one_stands(
    veil: Veil, tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "random"
    assert veil("fit", "random", people, folder, "--private", "gender").status == 0
    (folder / "in").mkdir()
    for place, path in ((folder, "."), (folder / "in", "..")):
        monkeypatch.chdir(place)
        assert veil("apply", path, people, tmp_path / f"{place.name}.npy").status == 0
        assert texts.named_path(path) == ("random", folder)
        assert texts.named_path(f"mine={path}") == ("mine", folder)
    assert "/: not a name" in veil.refuses("fit", "random", people, "/", "--private", "gender", "--force")
    assert ".: not a name" in veil.refuses("apply", folder, people, ".", "--force")
    monkeypatch.chdir(folder)
    err = veil.refuses("fit", "leace", people, ".", "--private", "gender", "--force")
    assert f"{folder}: holds what is no part of a release and would be lost (in); move it away" in err
    (folder / "in").rmdir()
    made = veil.json("fit", "leace", people, ".", "--private", "gender", "--force")
    assert made == {"release": str(folder), "fitted": f"{folder}.fitted", "warnings": []}
    monkeypatch.chdir(tmp_path)
    assert Release.load("random").method == "leace"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.npy", "random", "random.fitted", "random.key", "random.npy",
    ]  # fmt: skip


# -- help -------------------------------------------------------------------------------------------------------------


def _options(command: str) -> dict[str, str]:
    """The help of every parameter of a command."""
    hints = inspect.get_annotations(getattr(commands, command), eval_str=True, globals=vars(commands) | {"Path": Path})
    return {name: hint.__metadata__[0].help for name, hint in hints.items() if hasattr(hint, "__metadata__")}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_parameter_has_help_that_is_shown(command: str, veil: Veil, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    done = veil(command, "--help")
    assert (done.status, done.err) == (0, "")
    options = _options(command)
    assert set(options) == set(inspect.signature(getattr(commands, command)).parameters)
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
    assert {c.callback.__name__ for c in commands.app.registered_commands if c.callback} == set(COMMANDS)


def test_no_arguments_show_the_help(veil: Veil) -> None:
    done = veil()
    assert (done.status, done.err) == (0, "")
    assert all(command in done.out for command in COMMANDS)
    assert veil("--version").out == f"{__version__}\n"


def test_json_holds_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    """Of an attempt that broke off there is no figure; that it did is the exit status."""
    failed = Finding(code="attribute.balanced_accuracy", release="a", target="gender", attacker="MLPs", role="attack",
                     value=float("nan"), n=3, status="did_not_converge", note="why", worst=True)  # fmt: skip
    assert show_audit(Show(quiet=False, as_json=True, command=str), [failed], ["gender"], "identity", Path("x"))
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"][0]["attack"]["value"], told["rows"][0]["utility"]) == (None, None)
    assert [f["note"] for f in told["broke_off"]] == ["why"]
    assert show_audit(Show(quiet=False, as_json=False, command=str), [failed], ["gender"], "identity", Path("x"))
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


def _marked(mark: str) -> list[int]:
    """Processes that have a word in their environment."""
    marked = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment, state = (folder / "environ").read_bytes(), (folder / "stat").read_text().rsplit(")", 1)[1]
        except OSError:  # it has ended, or is another user's
            continue
        if mark.encode() in environment and not state.startswith(" Z"):
            marked.append(int(folder.name))
    return marked


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are counted as Linux tells them")
def test_an_audit_that_is_killed_takes_its_workers_with_it(tmp_path: Path, people: Path) -> None:
    mark = f"VEIL_TEST={secrets.token_hex(8)}"
    name, _, value = mark.partition("=")
    audit = ("audit", people, tmp_path / "a", "--private", "gender", "--effort", "quick", "--jobs", "2", "--quiet")
    code = [sys.executable, "-m", "veil", *map(str, audit)]
    with subprocess.Popen(code, env={**os.environ, name: value}) as parent:
        until = time.monotonic() + 120
        while len(_marked(mark)) < 4 and time.monotonic() < until:  # itself, two workers and who looks after them
            time.sleep(0.2)
        time.sleep(3)  # so that the workers are at work
        assert len(_marked(mark)) >= 4
        parent.kill()
    until = time.monotonic() + 5
    while _marked(mark) and time.monotonic() < until:
        time.sleep(0.2)
    assert _marked(mark) == []


@pytest.mark.parametrize("number", STOPS)
def test_whatever_stops_a_command_is_an_interruption(number: signal.Signals, tmp_path: Path, people: Path) -> None:
    """Also where a library wraps what stopped it in an error of its own, as torch's export does."""
    code = "import os, sys\nfrom veil import cli\nfrom veil.data.pack import Pack\n" \
           f"def stop(path):\n    try:\n        os.kill(os.getpid(), {int(number)})\n" \
           "    except BaseException as error:\n        raise RuntimeError('wrapped') from error\n" \
           "Pack.open = stop\ncli.main()"  # fmt: skip
    fit = ["fit", "leace", str(people), str(tmp_path / "r"), "--private", "gender"]
    done = subprocess.run([sys.executable, "-c", code, *fit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "veil: interrupted\n")
