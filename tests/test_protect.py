"""`veil protect`: photographs and vectors in, protected ones and their evidence out, by the methods of one table."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import veil
from conftest import attacked_by
from veil import cli
from veil.data.decode import EYES, Eyes
from veil.data.faces import Face
from veil.errors import InputError
from veil.methods.registry import METHODS
from veil.workflows.fit_folder import FitOptions
from veil.workflows.protect import WAYS, Watch

TEMPLATE = {"steps": 20, "steps_guess": 20}
SAN = {"transport": 8, "steps_classifier": 3, "steps_matcher": 3, "steps": 4, "batch": 8, "aligned": 0}
DEEP = {"networks": 1, "steps_alone": 5, "steps_joint": 5, "batch": 16}


def stop(*progress: object) -> None:
    raise KeyboardInterrupt


AUDIT = Watch(audit=stop)
"""Stops where the audit begins."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attacker, for it is not the audit that is tested."""
    attacked_by(monkeypatch, "logistic regression", classifiers={})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Templates of 120 people, three each; gender moves them along one axis."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(120), 3)
    x = rng.normal(size=(120, 16))[who] + 0.2 * rng.normal(size=(360, 16))
    x[:, 0] += 4 * (who % 2)
    path = tmp_path / "templates.npz"
    columns = {"identity": who.astype(str), "gender": np.array(["female", "male"])[who % 2]}
    np.savez(path, vectors=x.astype(np.float32), name=np.array([f"row {i}" for i in range(360)]), **columns)
    return path


class Middle:
    """Takes the middle of every photograph for a face, but for dark ones."""

    name = "middle 1"

    def __call__(self, photograph: np.ndarray) -> list[Face]:
        if photograph.mean() < 20:
            return []
        height, width = photograph.shape[:2]
        eyes = Eyes(width / 2 - 8, height / 2, width / 2 + 8, height / 2)
        return [Face(left=width / 2 - 20, top=height / 2 - 20, right=width / 2 + 20, bottom=height / 2 + 30,
                     eyes=eyes, score=1)]  # fmt: skip


class Averages:
    """Templates of faces: their means over 5 x 5 tiles."""

    name = "averages 1"
    side, eyes = 20, EYES

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        return faces.mean(3).reshape(len(faces), 5, 4, 5, 4).mean((2, 4)).reshape(len(faces), 25).astype(np.float32)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs of each of 40 people, whose upper halves tell their gender; a dark one, a damaged one."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    lines = ["path,gender,smile"]
    for who in range(40):
        base = rng.integers(60, 200, (9, 8, 3))
        base[:4] += 40 * (who % 2)
        (folder / f"person {who}").mkdir(parents=True)
        for view in range(3):
            tiles = (base + rng.integers(-10, 10, base.shape)).clip(0, 255).astype(np.uint8)
            name = f"person {who}/{view}.png"
            Image.fromarray(tiles).resize((72, 80), Image.Resampling.BICUBIC).save(folder / name)
            lines.append(f"{name},{['female', 'male'][who % 2]},{['no', 'yes'][view % 2]}")
    Image.new("RGB", (72, 80)).save(folder / "dark.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def protected(source: Path, out: Path, **asked) -> veil.Protected:
    return veil.protect(source, out, **{"hide": ["gender"], "effort": "quick", "jobs": 1} | asked)


def of_photos(photos: Path, out: Path, **asked) -> veil.Protected:
    labels = photos.with_name("labels.csv")
    return protected(photos, out, labels=labels, by_folder=True, detector=Middle(), **asked)


# -- the table --------------------------------------------------------------------------------------------------------


def test_there_is_one_way_for_each_source_and_form():
    each = [(way.source, way.form, way.keeps) for way in WAYS]
    images = product(("photographs", "images"), ("photos", "vectors"), ("identity", "label"))
    vectors = product(("vectors",), ("vectors",), ("identity", "label"))
    assert sorted(each) == sorted([*images, *vectors])
    for way in WAYS:
        method = METHODS[way.method]
        assert way.preset in ("", *method.presets)
        assert ("vectors" if way.source == "vectors" or way.templates else "images") in method.takes


def test_the_documentation_has_the_same_table():
    text = (Path(__file__).parents[1] / "docs" / "protect.md").read_text("utf-8")
    row = r"^\| (\w+) \| (\w+) \| (\w+) \| (templates, then )?\[`(\w+)`\]\(\w+\.md\)(?:, preset `(\w+)`)? \|"
    rows = re.findall(row, text, re.M)
    told = [(s, f, k, bool(t), m, p) for s, f, k, t, m, p in rows]
    assert told == [(w.source, w.form, w.keeps, w.templates, w.method, w.preset) for w in WAYS]


# -- vectors ----------------------------------------------------------------------------------------------------------


def test_vectors_come_out_protected_with_their_evidence(table, tmp_path):
    out = tmp_path / "out"
    made = protected(table, out, settings=TEMPLATE)
    released = pq.read_table(out / "released.parquet")
    assert (made.way.method, made.rows) == ("template", (360, 0, 0))
    assert released.column_names == ["source", "release"]
    assert released["source"].to_pylist() == [f"row {i}" for i in range(360)]
    expected = veil.Release.load(out / "private" / "release").transform(np.load(table)["vectors"])
    np.testing.assert_allclose(np.stack(released["release"].to_pylist()), expected, atol=1e-6)
    assert made.verdict[0].startswith("Protected vectors. To hide: gender. Of 100 people")
    assert any("To keep: face matching" in line for line in made.verdict)
    assert made.page == out / "audit" / "report.html"
    assert made.page.is_file()
    assert (out / "private").stat().st_mode & 0o777 == 0o700
    assert "the key" in made.secrets[out / "private"]
    assert (out / "private" / "release.key").is_file()
    assert {path.name for path in out.iterdir()} == {"released.parquet", "audit", "private"}


NAMES = "Names go along in released.parquet, column source, and may say who is seen; --row-numbers writes numbers."


def test_one_that_was_killed_goes_on(table, tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    whole = protected(table, once, settings=TEMPLATE)

    with pytest.raises(KeyboardInterrupt):
        protected(table, twice, settings=TEMPLATE, watch=AUDIT)
    key = (twice / "private" / "release.key").read_bytes()
    with pytest.raises(InputError, match=r"twice: already exists; go on with it \(--resume\)"):
        protected(table, twice, settings=TEMPLATE)
    with pytest.raises(InputError, match=r"was begun with other options or another source"):
        protected(table, twice, settings=TEMPLATE | {"steps": 21}, resume=True)
    stages: list[str] = []
    watch = Watch(fit=lambda stage, *rest: stages.append(stage))
    made = protected(table, twice, settings=TEMPLATE, resume=True, watch=watch)
    assert not stages  # it was fitted already
    assert (twice / "private" / "release.key").read_bytes() == key
    figures = [[(f.code, f.value) for f in each.audit.findings if f.release == "Input"] for each in (whole, made)]
    assert figures[0] == figures[1] != []
    again = protected(table, twice, settings=TEMPLATE, resume=True)  # which is done
    assert again.verdict == made.verdict


def test_a_folder_of_parquet_is_one_table(table, tmp_path):
    x = np.load(table)
    columns = {name: x[name].tolist() for name in ("name", "identity", "gender")} | {"vector": x["vectors"].tolist()}
    whole = pa.table(columns)
    (tmp_path / "shards").mkdir()
    for number, start in enumerate((0, 200)):
        pq.write_table(whole.slice(start, 200), tmp_path / "shards" / f"{number}.parquet")
    made = protected(tmp_path / "shards", tmp_path / "out", settings=TEMPLATE)
    assert (made.way.source, made.rows) == ("vectors", (360, 0, 0))
    pq.write_table(whole.slice(200, 150), tmp_path / "shards" / "1.parquet")
    with pytest.raises(InputError, match="another source"):
        protected(tmp_path / "shards", tmp_path / "out", settings=TEMPLATE, resume=True)


def test_a_budget_chooses_the_noise(table, tmp_path, monkeypatch):
    def fit_into(options: FitOptions, *where: object, **how: object) -> None:
        raise InputError(f"{options.method} {options.budget} {options.frontier}")

    monkeypatch.setattr("veil.workflows.protect.steps.fit_into", fit_into)
    with pytest.raises(InputError, match=r"template \{'gender': 0\.6\} False"):
        protected(table, tmp_path / "out", budget={"gender": 0.6})


def test_a_corrected_command_goes_on_with_what_was_read(table, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"hide age: the data have no such label \(they have: .*gender.*`veil label`"):
        protected(table, out, hide=["age"])
    assert [path.name for path in out.iterdir()] == ["private"]
    packed = (out / "private" / "pack" / "pack.json").stat().st_mtime_ns
    with pytest.raises(KeyboardInterrupt):
        protected(table, out, settings=TEMPLATE, watch=AUDIT)
    assert (out / "released.parquet").is_file()
    assert (out / "private" / "pack" / "pack.json").stat().st_mtime_ns == packed


def test_nothing_is_left_of_what_cannot_be_read(tmp_path):
    (tmp_path / "table.csv").write_text("name,a,b\nx,1,y\n")
    with pytest.raises(InputError):
        protected(tmp_path / "table.csv", tmp_path / "out")
    with pytest.raises(InputError, match=r"hide: must name a private label, got none\. Without one, a classifier of"):
        protected(tmp_path / "table.csv", tmp_path / "out", hide=[])
    assert not (tmp_path / "out").exists()


REFUSED = [
    ({"form": "photos"}, "templates.npz: holds vectors, which cannot come out as photos"),
    ({"form": "tables"}, "as: must be one of photos, vectors, got 'tables'"),
    ({"keep": "gender"}, "keep gender: must not be hidden, too"),
    ({"keep": None}, "keep: must be a label's name, got None"),
    ({"hide": "gender"}, "hide: must be a list of labels, got the text 'gender'"),
    ({"hide": [3]}, "hide: must be a label's name, got 3"),
    ({"by_folder": True}, "landmarks and people by folder are of photographs, got vectors"),
    ({"blur_rest": True}, "blur_rest: is of photographs in which faces are found"),
    ({"matcher": "dlib"}, "matcher: makes templates of photographs, and vectors as vectors are protected without any"),
    ({"size": 32}, "size: is of aligned faces that are images, and vectors as vectors are not made into such"),
    ({"effort": "huge"}, "effort: must be one of quick, standard, strong, got 'huge'"),
    ({"budget": "gender=0.6"}, "budget: must be limits by label, got 'gender=0.6'"),
    ({"budget": {"gender": "0.6"}}, "budget: gender must be a balanced accuracy in (0, 1], got '0.6'"),
    ({"budget": {"gender": float("nan")}}, "budget: gender must be a balanced accuracy in (0, 1], got nan"),
    ({"budget": {"age": 0.6}}, "budget: must name a label to hide (gender), got 'age'"),
    ({"budget": {"gender": 0.5}}, "budget: gender must lie above chance (0.5), got 0.5"),
    ({"settings": {"step": 3}}, "setting: must be one of "),
    ({"settings": {"steps": -1}}, "steps"),
    ({"key": "no.key"}, "no.key: the key cannot be read"),
    ({"hide": ["age"]}, "hide age: the data have no such label"),
    ({"seed": -1}, "seed: must be a whole number in 0 .. 2**31 - 1, got -1"),
    ({"preset": "small"}, "protect: options are hide, keep, "),
]


@pytest.mark.parametrize(
    ("asked", "words"), REFUSED, ids=[f"{next(iter(asked))}-{i}" for i, (asked, _) in enumerate(REFUSED)]
)
def test_what_is_refused_leaves_what_there_is(table, tmp_path, asked, words):
    out = tmp_path / "out"
    (out / "private").mkdir(parents=True)
    for name in ("released.parquet", "private/release.key", "private/asked.json"):
        (out / name).write_text(name)
    with pytest.raises(InputError, match=re.escape(words)):
        protected(table, out, force=True, **asked)
    for name in ("released.parquet", "private/release.key", "private/asked.json"):
        assert (out / name).read_text() == name


def test_an_earlier_result_goes_when_its_successor_is_fitted(table, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def contents() -> dict[str, bytes]:
        files = (path for path in out.rglob("*") if path.is_file() and path.name != "checked.json")
        return {str(path.relative_to(out)): path.read_bytes() for path in files}

    protected(table, out, settings=TEMPLATE)
    before = contents()

    def refuse(*where: object, **how: object) -> None:
        raise InputError("no")

    with monkeypatch.context() as patch:
        patch.setattr("veil.workflows.protect.steps.fit_into", refuse)
        with pytest.raises(InputError, match="no"):
            protected(table, out, settings=TEMPLATE, force=True)
    assert contents() == before
    x = dict(np.load(table))
    np.savez(table.with_name("one.npz"), **x | {"gender": np.full(360, "female")})
    (table.with_name("empty.npz")).write_bytes(b"")
    for other in ("one.npz", "empty.npz"):
        with pytest.raises(InputError):
            protected(table.with_name(other), out, settings=TEMPLATE, force=True)
        assert contents() == before
    with pytest.raises(InputError, match="resume and force: either an earlier run goes on, or it is replaced"):
        protected(table, out, settings=TEMPLATE, force=True, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr("veil.workflows.protect.steps.Steps.check", stop)  # killed before it began
        with pytest.raises(KeyboardInterrupt):
            protected(table, out, settings=TEMPLATE, seed=1, force=True)
    protected(table, out, settings=TEMPLATE, resume=True)  # what was there is there
    assert {name: text for name, text in contents().items() if name in ("private/release.key", "released.parquet")} == {
        name: before[name] for name in ("private/release.key", "released.parquet")
    }
    with pytest.raises(KeyboardInterrupt):
        protected(table, out, settings=TEMPLATE, force=True, watch=AUDIT)
    after = contents()
    assert after["private/release.key"] != before["private/release.key"]
    assert after["released.parquet"] != before["released.parquet"]
    assert "audit/report.html" not in after
    assert not (out / "private" / "earlier").exists()


def test_what_was_half_set_aside_comes_back(table, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        protected(table, out, settings=TEMPLATE, watch=AUDIT)
    key = (out / "private" / "release.key").read_bytes()
    for waits in ("earlier", "returning"):  # killed on the way there, and on the way back
        (out / "private" / waits / "private").mkdir(parents=True)
        for name in ("release", "release.key"):
            (out / "private" / name).rename(out / "private" / waits / "private" / name)
        with pytest.raises(KeyboardInterrupt):
            protected(table, out, settings=TEMPLATE, resume=True, watch=AUDIT)
        assert (out / "private" / "release.key").read_bytes() == key
        assert not (out / "private" / waits).exists()


def test_two_runs_do_not_share_a_folder(table, tmp_path):
    out, refused = tmp_path / "out", []

    def second(stage: str, *rest: object) -> None:
        if not refused:
            with pytest.raises(InputError, match=r"private: another run is writing there now"):
                protected(table, out, settings=TEMPLATE, force=True)
            refused.append(stage)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        protected(table, out, settings=TEMPLATE, watch=Watch(fit=second))
    assert refused


def test_row_numbers_take_the_place_of_names(table, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        protected(table, tmp_path / "out", settings=TEMPLATE, row_numbers=True, watch=AUDIT)
    released = pq.read_table(tmp_path / "out" / "released.parquet")
    assert released["source"].to_pylist() == [str(row) for row in range(360)]


def test_labels_that_nobody_asked_for_play_no_part(table, tmp_path):
    x = dict(np.load(table))
    del x["identity"]
    x["age"] = (np.arange(360) // 2).astype("<U3")  # most of a class in no split
    np.savez(tmp_path / "ages.npz", **x)
    made = protected(tmp_path / "ages.npz", tmp_path / "out", settings=TEMPLATE)
    assert {f.release for f in made.audit.findings} >= {"Input + LEACE"}
    assert any("do not say who is seen" in remark for remark in made.remarks)


def test_other_peoples_folders_are_left_alone(table, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(InputError, match="already exists, and is not of `veil protect`"):
            protected(table, tmp_path / "out", force=force)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_nothing_is_written_into_the_source(photos):
    with pytest.raises(InputError, match=r"out: lies inside the source"):
        of_photos(photos, photos / "out")
    assert not (photos / "out").exists()


def test_labels_that_changed_are_not_gone_on_with(table, tmp_path):
    x = np.load(table)
    np.save(tmp_path / "x.npy", x["vectors"])
    labels = tmp_path / "labels.csv"

    def write(words: list[str]) -> None:
        rows = zip(x["identity"], words, strict=True)
        labels.write_text("identity,gender\n" + "".join(f"{who},{word}\n" for who, word in rows))

    write(x["gender"].tolist())
    with pytest.raises(KeyboardInterrupt):
        protected(tmp_path / "x.npy", tmp_path / "out", labels=labels, settings=TEMPLATE, watch=AUDIT)
    write(["female", "male"] * 180)
    with pytest.raises(InputError, match="was begun with other options or another source"):
        protected(tmp_path / "x.npy", tmp_path / "out", labels=labels, settings=TEMPLATE, resume=True)


# -- photographs ------------------------------------------------------------------------------------------------------


def test_photographs_come_out_as_photographs(photos, tmp_path):
    out = tmp_path / "out"
    made = of_photos(photos, out, form="photos", settings=SAN, size=32, pictures=True)
    assert (made.way.method, made.way.preset) == ("san", "hardened")
    assert made.rows == (121, 1, 1)
    assert sorted(p.relative_to(out / "released") for p in (out / "released").rglob("*.png")) == sorted(
        p.relative_to(photos) for p in photos.rglob("*.png")
    )
    assert "dark.png" in (out / "released.unprotected.csv").read_text()
    assert any("hair, clothes" in remark for remark in made.remarks)
    assert (out / "audit").stat().st_mode & 0o777 == 0o700
    assert made.secrets[out / "audit"] == "its page shows some faces as they were"
    assert "unprotected faces" in made.secrets[out / "private"]


def test_photographs_come_out_as_templates(photos, tmp_path):
    out = tmp_path / "out"
    made = of_photos(photos, out, settings=TEMPLATE, matcher=Averages())
    assert (made.way.method, made.way.templates, made.rows) == ("template", True, (120, 2, 0))
    assert pq.read_table(out / "released.parquet")["source"].to_pylist()[0] == "person 0/0.png"
    assert any("To keep: face matching" in line for line in made.verdict)
    assert made.left_out == out / "private" / "templates.parquet.skipped.csv"
    skipped = made.left_out.read_text()
    assert "dark.png" in skipped
    assert "broken.jpg" in skipped


def test_a_label_of_photographs_is_kept(photos, tmp_path):
    made = of_photos(photos, tmp_path / "out", keep="smile", settings=DEEP, size=32)
    assert made.way.method == "deep"
    assert any("smile" in line for line in made.verdict)


def test_a_budget_is_refused_where_there_is_no_noise(photos, tmp_path):
    with pytest.raises(InputError, match="budget: san, which protects photographs as photos, has no noise"):
        of_photos(photos, tmp_path / "out", form="photos", budget={"gender": 0.6})


def test_packs_are_taken_as_they_are(table, tmp_path):
    veil.pack("embeddings", table, tmp_path / "pack")
    made = protected(tmp_path / "pack", tmp_path / "out", settings=TEMPLATE)
    assert made.rows == (360, 0, 0)
    assert not (tmp_path / "out" / "private" / "pack").exists()
    with pytest.raises(InputError, match=r"labels .*: .*pack is a pack, which has its own"):
        protected(tmp_path / "pack", tmp_path / "other", labels=tmp_path / "labels.csv")


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_ends_with_verdict_page_and_secrets(table, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    words = ["veil", "protect", str(table), str(out), "--hide", "gender", "--effort", "quick", "--jobs", "1"]
    words += [f"--set={name}={value}" for name, value in TEMPLATE.items()]
    monkeypatch.setattr("sys.argv", [*words, "--quiet"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Protected vectors. To hide: gender.")
    assert lines[-4:] == [
        NAMES,
        str(out / "audit" / "report.html"),
        f"hand out {out / 'released.parquet'}: 360 vectors, by the method template",
        f"keep {out / 'private'} secret: it holds unprotected vectors and labels, the release, the key, and hashes of "
        "those it was fitted on",
    ]
    command = json.loads((out / "audit" / "findings.json").read_text())["command"]
    assert command == (
        "veil protect SOURCE OUT --hide gender --set steps=20 --set steps_guess=20 --effort quick --jobs 1"
    )
    monkeypatch.setattr("sys.argv", [*words, "--json", "--resume"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert json.loads(capsys.readouterr().out)["rows"] == 360
