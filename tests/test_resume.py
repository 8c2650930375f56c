"""Outcomes on disk: an audit that was killed, or of one more release, ends as one that measured all at once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import attacked_by, audited, only, vectors_pack
from veil.auditing import decoders, run
from veil.auditing.attackers import ATTACKERS
from veil.auditing.exhibit import Exhibit
from veil.auditing.outcomes import Outcomes
from veil.auditing.problem import DidNotConverge, Problem
from veil.auditing.rosters import roster
from veil.auditing.setting import Inversion, Setting
from veil.auditing.task import Outcome
from veil.data.pack import Pack
from veil.findings import Finding
from veil.release import Release
from veil.workflows import fit as fitting
from veil.workflows.audit import OUTCOMES, Audit, audit
from veil.workflows.subjects import Subject

BRIEF: dict[str, Any] = only("logistic regression", "RBF SVM")
Told = list[tuple[int, int, str]]


@cache
def _pack() -> Pack:
    return vectors_pack(people=80)


def _subjects(names: str) -> list[Subject]:
    """Vectors of that name, each with noise of its own."""
    x = np.asarray(_pack().x)
    noise = {name: np.random.default_rng(ord(name)).normal(size=x.shape) for name in names}
    return [Subject(name=name, vectors=(x + noise[name]).astype(np.float32)) for name in names]


def measured(out: Path, names: str, *, jobs: int = 1, kill: int = 0, **options: Any) -> tuple[Audit, Told]:
    """An audit, and what it told of its tasks; the process is killed when so many are done."""
    told: Told = []

    def progress(stage: str, done: int, total: int, what: str) -> None:
        if stage == "audit":
            told.append((done, total, what))
            if done == kill:
                signal.raise_signal(signal.SIGKILL)

    asked = {"private": ["gender"], "utility": ["identity", "age"], "effort": "quick", "roster": BRIEF} | options
    return audit(_pack(), _subjects(names), out, jobs=jobs, progress=progress, **asked), told


TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


def _tree(folder: Path) -> dict[str, bytes]:
    """Every file, but for the time of day."""
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: TIME.sub(b"", content) for name, content in files.items()}


def _outcomes(out: Path) -> list[Path]:
    return sorted((out / OUTCOMES).iterdir())


# -- killed -----------------------------------------------------------------------------------------------------------

KILLED = """
import sys
from pathlib import Path
from test_resume import measured
if __name__ == "__main__":
    measured(Path(sys.argv[1]), "AB", jobs=int(sys.argv[2]), kill=int(sys.argv[3]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_audit_that_was_killed_ends_as_one_that_was_not(jobs: int, tmp_path: Path) -> None:
    undisturbed, told = measured(tmp_path / "whole", "AB")
    total = len(told)
    assert [done for done, _, _ in told] == list(range(1, total + 1))
    kill = total // 2
    script = tmp_path / "killed.py"  # a file, which worker processes may import
    script.write_text(KILLED)
    words = [sys.executable, str(script), str(tmp_path / "out"), str(jobs), str(kill)]
    path = [str(Path(__file__).parent), *sys.path]
    ended = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": ":".join(path)}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (tmp_path / "out" / "findings.json").exists()
    assert len(_outcomes(tmp_path / "out")) == kill
    resumed, left = measured(tmp_path / "out", "AB", jobs=jobs, resume=True)
    assert resumed.findings == undisturbed.findings
    assert _tree(tmp_path / "out") == _tree(tmp_path / "whole")
    assert [(done, of) for done, of, _ in left] == [(i, total) for i in range(kill + 1, total + 1)]


def test_nothing_is_done_again_and_pictures_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redrawn pictures are kept, too; and nobody is trained to judge them where all are there."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (120, 12, 12), dtype=np.uint8)
    pack = Pack.from_arrays(x, {"gender": np.arange(120) % 2})
    subject = Subject(name="A", vectors=x.reshape(120, -1)[:, ::3].astype(np.float32))
    asked: dict[str, Any] = {
        "private": [],
        "utility": [],
        "inversion": True,
        "jobs": 1,
        "effort": "quick",
        "pictures": True,
    }
    asked["roster"] = {"decoders": {"linear decoder": decoders.linear}}
    first = audit(pack, [subject], tmp_path / "out", **asked)
    before = _tree(tmp_path / "out")
    assert "pictures/inversion.png" in before
    assert {Path(name).suffix for name in before if name.startswith(OUTCOMES)} == {".json", ".npy"}
    monkeypatch.setattr("veil.auditing.judges.judges", lambda setting: pytest.fail("judges again"))
    again = audit(pack, [subject], tmp_path / "out", resume=True, **asked)
    assert again.findings == first.findings
    assert _tree(tmp_path / "out") == before


def test_what_broke_off_is_tried_again(tmp_path: Path) -> None:
    def failing(problem: Problem) -> Callable[..., Any]:
        raise DidNotConverge("its training loss became nan")

    def broken(folder: Path, **options: Any) -> tuple[list[Finding], Told]:
        names = {"logistic regression": ATTACKERS["logistic regression"], "RBF SVM": failing}
        made, told = measured(folder, "A", roster=BRIEF | {"attackers": names}, **options)
        return [f for f in made.findings if f.status == "did_not_converge"], told

    lost, _ = broken(tmp_path)
    assert {f.attacker for f in lost} == {"RBF SVM"}
    again, told = broken(tmp_path, resume=True)
    assert again == lost
    assert len(told) == len(lost)
    mended, told = measured(tmp_path, "A", resume=True)
    assert {what for _, _, what in told} == {f"{f.release}: RBF SVM on {f.target}" for f in lost}
    assert mended.findings == measured(tmp_path / "whole", "A")[0].findings


# -- other releases ---------------------------------------------------------------------------------------------------


def test_one_more_release_costs_its_own_tasks(tmp_path: Path) -> None:
    before, told = measured(tmp_path / "out", "A")
    after, more = measured(tmp_path / "out", "AB", resume=True)
    assert {what.split(":")[0] for _, _, what in more} == {"B"}
    assert len(more) == sum(what.startswith("A: ") for _, _, what in told)
    assert [f for f in after.findings if f.release != "B"] == list(before.findings)
    assert after.findings == measured(tmp_path / "whole", "AB")[0].findings


def test_only_what_knows_all_images_is_done_again_for_one_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Attackers that learned from originals are shown all releases at once."""
    monkeypatch.setattr("veil.auditing.transfer.siamese", lambda p: lambda x: x.reshape(len(x), -1).astype(np.float32))
    x = np.random.default_rng(0).integers(0, 256, (160, 8, 8), dtype=np.uint8)
    labels = {"identity": np.arange(160) // 2, "gender": np.arange(160) // 2 % 2}
    pack = Pack.from_arrays(x, labels)
    shown = [Exhibit.of(n, y, "method") for n, y in (("A", 255 - x), ("B", x // 2))]
    exhibits = [Exhibit.of("Input", pack.x, "input"), *shown]
    ask: dict[str, Any] = {"private": ["gender"], "utility": ["identity"], "changes": only("logistic regression")}
    ask["changes"]["classifiers"] = ask["changes"]["attackers"]
    outcomes = Outcomes(tmp_path)
    before = audited(exhibits[:2], pack, outcomes=outcomes, **ask)
    told: Told = []
    after = audited(exhibits, pack, outcomes=outcomes, progress=lambda *message: told.append(message), **ask)
    others = {what for _, _, what in told if not what.startswith("B: ")}
    assert others == {"transfer of gender", "transfer of identity"}
    assert [f for f in after if f.release != "B"] == before
    assert after == audited(exhibits, pack, **ask)


def test_outcomes_that_nobody_asks_for_any_more_go(tmp_path: Path) -> None:
    measured(tmp_path / "one", "A")
    measured(tmp_path / "out", "AB")
    assert len(_outcomes(tmp_path / "out")) > len(_outcomes(tmp_path / "one"))
    left = tmp_path / "out" / OUTCOMES / f".x.json.{'0' * 16}.part"
    left.write_text("of a process that was killed")
    (tmp_path / "out" / OUTCOMES / "notes.txt").write_text("somebody's")
    _, told = measured(tmp_path / "out", "A", resume=True)
    assert told == []
    (tmp_path / "out" / OUTCOMES / "notes.txt").unlink()
    assert _tree(tmp_path / "out") == _tree(tmp_path / "one")


def test_without_resume_nothing_old_is_taken(tmp_path: Path) -> None:
    first, told = measured(tmp_path, "A")
    for path in _outcomes(tmp_path):  # what would be taken would be seen
        _rewrite(path, lambda body: [f.update(n=f["n"] + 1) for f in body["findings"]])
    taken, _ = measured(tmp_path, "A", resume=True)
    assert taken.findings != first.findings
    again, all_of_them = measured(tmp_path, "A")
    assert again.findings == first.findings
    assert all_of_them == told


# -- damage -----------------------------------------------------------------------------------------------------------


def _rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A change that the file's own digest knows of."""
    body = json.loads(path.read_text())
    del body["digest"]
    change(body)
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**body, "digest": digest}))


def _forged(change: Callable[[dict[str, Any]], object]) -> Callable[[Path, Path], object]:
    return lambda path, _: _rewrite(path, change)


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _other_picture(picture: Path, x: np.ndarray) -> None:
    np.save(picture, x)
    _rewrite(picture.with_suffix(".json"), lambda b: b.update(picture=hashlib.sha256(picture.read_bytes()).hexdigest()))


DAMAGE: dict[str, Callable[[Path, Path], object]] = {
    "gone": lambda path, _: path.unlink(),
    "a folder": lambda path, _: (path.unlink(), path.mkdir()),
    "a bit flipped": lambda path, _: _flipped(path),
    "cut short": lambda path, _: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path, _: path.write_bytes(b""),
    "no text": lambda path, _: path.write_bytes(b"\xff\xfe\x00"),
    **{f"JSON {text[:9]}": lambda path, _, text=text: path.write_text(text)  # type: ignore[misc]
       for text in ("{}", "[]", "5", "null", '"digest"', "[" * 10_000, '{"digest": 1}')},
    "a figure that was changed": lambda path, _: path.write_text(path.read_text().replace("0.75", "0.65")),
    "NaN": lambda path, _: path.write_text(path.read_text().replace("0.75", "NaN")),
    "NaN, with its digest": _forged(lambda body: body["findings"][0].update(value=float("nan"))),
    "infinite": _forged(lambda body: body.update(quality=float("inf"))),
    "a quality that is none": _forged(lambda body: body.update(quality="good")),
    "a value beside its interval": _forged(lambda body: body["findings"][0].update(value=0.95)),
    "a value that is a text": _forged(lambda body: body["findings"][0].update(value="0.75")),
    "an unknown code": _forged(lambda body: body["findings"][0].update(code="attribute.magic")),
    "a field that there is not": _forged(lambda body: body["findings"][0].update(more=1)),
    "a field less": _forged(lambda body: body["findings"][0].pop("n")),
    "findings that are none": _forged(lambda body: body.update(findings=5)),
    "no findings": _forged(lambda body: body.pop("findings")),
    "its picture gone": lambda _, picture: picture.unlink(),
    "its picture flipped": lambda _, picture: _flipped(picture),
    "its picture cut short": lambda _, picture: picture.write_bytes(picture.read_bytes()[:-9]),
    "another picture": lambda _, picture: np.save(picture, np.ones((2, 4, 4), np.uint8)),
    "a picture of floats": lambda _, picture: _other_picture(picture, np.zeros((2, 4, 4), np.float32)),
    "a picture of objects": lambda _, picture: _other_picture(picture, np.array([{}], dtype=object)),
    "a picture that is none": _forged(lambda body: body.update(picture=True)),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_outcome_counts_as_missing(damage: Callable[[Path, Path], object], tmp_path: Path) -> None:
    finding = Finding(code="attribute.auc", release="A", target="gender", attacker="x", role="attack", value=0.75,
                      low=0.7, high=0.8, n=100, chance=0.5)  # fmt: skip
    outcome = Outcome(findings=(finding,), quality=0.5, picture=np.zeros((2, 4, 4), np.uint8))
    outcomes = Outcomes(tmp_path / "o")
    outcomes.put("key", outcome)
    kept = outcomes.get("key")
    assert kept is not None
    assert (kept.findings, kept.quality) == (outcome.findings, outcome.quality)
    np.testing.assert_array_equal(kept.picture, outcome.picture)
    damage(tmp_path / "o" / "key.json", tmp_path / "o" / "key.npy")
    assert outcomes.get("key") is None


def test_a_damaged_outcome_is_measured_again(tmp_path: Path) -> None:
    first, _ = measured(tmp_path, "A")
    before = _tree(tmp_path)
    paths = _outcomes(tmp_path)
    _flipped(paths[0])
    paths[1].write_bytes(paths[1].read_bytes()[:40])
    again, told = measured(tmp_path, "A", resume=True)
    assert len(told) == 2
    assert again.findings == first.findings
    assert _tree(tmp_path) == before


# -- what an outcome depends on ---------------------------------------------------------------------------------------


def _keys(exhibits: Sequence[Exhibit], **changes: Any) -> list[str]:
    ask: dict[str, Any] = {"pack": _pack(), "private": ("gender",), "utility": ("identity", "age"), "effort": "quick"}
    ask |= {"inversion": Inversion()} | changes
    setting = Setting(roster=roster(ask["effort"]), **ask)
    return [task.key for family in run.FAMILIES for task in family(setting, exhibits) if task.key]


def _exhibits() -> list[Exhibit]:
    x = np.asarray(_pack().x)
    codes = (x[:, 0] > 0).astype(np.int64)
    seen = np.zeros(len(x), bool)
    return [
        Exhibit.of("Input", x, "input"),
        Exhibit.of("vectors", -x, "method", near_duplicates=lambda rows, arrays: pytest.fail("nothing is released")),
        Exhibit.of("codes", np.eye(2, dtype=np.float32)[codes], "method", codes=codes, seen=seen),
    ]


def test_every_task_has_a_key_of_its_own() -> None:
    keys = _keys(_exhibits())
    assert len(set(keys)) == len(keys) > 40
    assert keys == _keys(_exhibits())  # nothing of this process is in them
    assert _keys(_exhibits()[::-1]) != keys
    assert sorted(_keys(_exhibits()[::-1])) == sorted(keys)


OTHERS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 1},
    "level": {"level": 0.9},
    "effort": {"effort": "standard"},
    "attack_on": {"attack_on": ("protect", "attack")},
    "pack": {"pack": vectors_pack(people=80, seed=1)},
    "splits": {"pack": replace(vectors_pack(people=80), split=np.roll(vectors_pack(people=80).split, 3))},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_no_outcome_of_another_setting_is_taken(changes: dict[str, Any]) -> None:
    assert not set(_keys(_exhibits(), **changes)) & set(_keys(_exhibits()))


def test_no_outcome_of_another_version_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _keys(_exhibits())
    monkeypatch.setattr("veil.auditing.setting.__version__", "0.0.0")
    assert not set(_keys(_exhibits())) & set(before)


def test_no_outcome_of_other_releases_is_taken() -> None:
    whole = _exhibits()
    for changed in (
        replace(whole[1], fingerprint="another"),
        Exhibit.of("vectors", -np.asarray(_pack().x) + np.float32(1e-6), "method", near_duplicates="no"),
        replace(whole[1], name="renamed"),
        Exhibit.of("vectors", -np.asarray(_pack().x), "method", near_duplicates="no", feature_map=(4, 2, 2)),
    ):
        rest, alone = _keys([whole[0], whole[2]]), set(_keys(whole))
        both = _keys([whole[0], changed, whole[2]])
        assert set(both) & alone == set(rest)
    seen = replace(whole[2], seen=np.ones(len(_pack()), bool))
    assert len(set(_keys([seen])) - set(_keys(whole[2:]))) == 1  # the certificate alone asks what was seen


@pytest.fixture
def keyed() -> tuple[Release, Release]:
    """Releases that differ by their keys alone."""
    made = fitting.fit(
        "template", _pack(), private=["gender"], settings={"batch": 16, "steps": 1, "steps_guess": 1}
    ).release
    return replace(made, key=bytes(32)), replace(made, key=bytes(range(32)))


def test_no_outcome_of_another_release_key_is_taken(
    keyed: tuple[Release, Release], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked_by(monkeypatch, "logistic regression", linkers={})

    def told(release: Release) -> set[str]:
        names: set[str] = set()

        def progress(stage: str, done: int, total: int, what: str) -> None:
            if stage == "audit":
                names.add(what)

        subject = Subject(name="A", release=release)
        audit(
            _pack(), [subject], tmp_path, private=["gender"], utility=["identity"], baselines=(), effort="quick",
            jobs=1, resume=True, progress=progress,
        )  # fmt: skip
        return {name.split(":")[0] for name in names}

    assert told(keyed[0]) == {"Input", "A"}
    assert told(keyed[0]) == set()
    assert told(keyed[1]) == {"A"}
    secret = bytes(range(32))
    for content in _tree(tmp_path).values():
        assert secret not in content
        assert secret.hex().encode() not in content


def test_outcomes_with_and_without_names_do_not_stand_for_each_other(tmp_path: Path) -> None:
    note = "1 rows of 'guests.csv' have no image"
    finding = Finding(code="attribute.auc", release="A", target="gender", attacker="x", role="attack", n=0,
                      status="not_applicable", note=note)  # fmt: skip
    bare, named = Outcomes(tmp_path), Outcomes(tmp_path, names=True)
    bare.put("key", Outcome(findings=(finding,)))
    assert named.get("key") is None
    assert not [path for path in tmp_path.iterdir() if b"guests" in path.read_bytes()]
    named.put("key", Outcome(findings=(finding,)))
    for outcomes, words in ((bare, "1 rows of \u2026 have no image"), (named, note)):
        outcome = outcomes.get("key")
        assert outcome is not None
        assert outcome.findings[0].note == words


def test_another_attacker_of_the_same_name_is_measured_anew(tmp_path: Path) -> None:
    """Whoever tries attackers of their own changes them between audits, and keeps their names."""

    def mine(problem: Problem) -> Any:
        return ATTACKERS["logistic regression"](problem)

    first = mine

    def mine(problem: Problem) -> Any:
        return lambda x: np.zeros((len(x), problem.classes), np.float32)

    for attack in (first, mine):
        _, told = measured(tmp_path / "out", "A", resume=True, roster=BRIEF | {"attackers": {"mine": attack}})
        assert any("mine" in what for *_, what in told)
    _, told = measured(tmp_path / "out", "A", resume=True, roster=BRIEF | {"attackers": {"mine": mine}})
    assert not told
