"""Findings and their file: what would mislead is refused, by one reader, in one line that names the place."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import veil
from veil import files, findings
from veil.errors import InputError
from veil.findings import CODES, Finding, Measurement
from veil.report import document as report


def finding(**changes: Any) -> Finding:
    given: dict[str, Any] = {
        "code": "attribute.balanced_accuracy", "release": "AIA deep", "target": "gender", "attacker": "mlp",
        "role": "attack", "value": 0.61, "low": 0.59, "high": 0.63, "n": 3363, "chance": 0.5, "worst": True,
    }  # fmt: skip
    return Finding(**(given | changes))


def document(*found: Finding, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "seed": 0, "command": "veil audit PACK OUT",
        "data": {"kind": "images", "n": np.int64(8), "shape": (64, 64), "identities": None, "skipped": float("nan")},
        "releases": [{"name": "Input", "role": "input"}, {"name": "AIA deep", "role": "method"}],
        "findings": found,
    }  # fmt: skip
    return findings.document(**(given | changes))


def test_a_finding_keeps_plain_numbers() -> None:
    found = finding(value=np.float32(0.61), n=np.int64(5), worst=np.bool_(True), chance=1)
    assert type(found.value) is float
    assert type(found.n) is int
    assert found.worst is True
    json.dumps(asdict(found))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code": "attribute.guess"}, "code must be a code of a figure that is known, got 'attribute.guess'"),
        ({"code": "inversion.lpips"}, "code must be a code of a figure that is known"),
        ({"role": "attacker"}, "role must be one of"),
        ({"status": "fine"}, "status must be one of"),
        ({"status": "not_applicable"}, "note must say why the status is 'not_applicable'"),
        ({"value": 0.7}, "value must lie within its interval 0.59..0.63, got 0.7"),
        ({"value": 0.5}, "value must lie within its interval"),
        ({"low": 0.64}, "value must lie within its interval"),
        ({"value": float("nan")}, "value must be finite"),
        ({"high": float("inf")}, "high must be finite"),
        ({"low": None}, "low must be finite"),
        ({"chance": None}, "chance must be finite"),
        ({"value": "0.6"}, "value must be a number"),
        ({"value": True}, "value must be a number"),
        ({"n": -1}, "n must be a whole number"),
        ({"n": 3.5}, "n must be a whole number"),
        ({"level": 95}, "level must lie between 0 and 1"),
        ({"worst": "yes"}, "worst must be true or false"),
        ({"note": None}, "note must be a text"),
        ({"code": 3}, "code must be a text, got 3"),
        ({"value": 10**400}, "value must be finite where the status is 'ok', got 1000"),
        (
            {"status": "did_not_converge", "note": "no", "value": None},
            "value must be a number where there is an interval",
        ),
    ],
)
def test_a_misleading_finding_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finding(**changes)


def test_limits_may_differ_from_the_value_by_rounding() -> None:
    assert finding(value=1.0, low=0.9, high=1 - 1e-12).value == 1


def test_other_outcomes_need_no_figure() -> None:
    nan = float("nan")
    found = finding(status="not_applicable", note="too few pairs", value=nan, low=nan, high=nan, chance=None)
    assert (found.value, found.low, found.high, found.chance) == (None, None, None, None)
    assert finding(status="did_not_converge", note="200 steps").value == 0.61
    with pytest.raises(ValueError, match="has no figure"):
        found.figures()


@pytest.mark.parametrize("code", CODES)
def test_a_code_says_all_that_a_reader_needs(code: str) -> None:
    known = finding(code=code)
    assert known.family == code.partition(".")[0]
    assert CODES[code].title
    assert CODES[code].heading
    assert CODES[code].meaning
    # Who attacks is said of every attack, and of nothing else.
    attacks = known.family in (
            "attribute", "linkability", "identification", "inversion", "certificate", "unlinkability", "renewal",
        "membership",
        )  # fmt: skip
    assert bool(CODES[code].threat) == attacks


def test_what_stands_in_for_a_decision_is_its_auc() -> None:
    stand_ins = {code: CODES[code].stand_in for code in CODES if CODES[code].stand_in}
    assert stand_ins == {code: code.replace("balanced_accuracy", "auc") for code in stand_ins}
    assert {CODES[code].chance for code in stand_ins.values()} == {0.5}
    decisions = {code for code in CODES if code.endswith("balanced_accuracy") and not code.startswith("certificate")}
    assert set(stand_ins) == decisions


def test_measurements_make_findings() -> None:
    attempt = Measurement(release="AIA deep", target="gender", attacker="mlp", role="attack", n=3363)
    measured = attempt.measured("attribute.balanced_accuracy", (0.61, 0.59, 0.63), chance=0.5, worst=True)
    assert measured == finding()
    assert attempt.measured("attribute.auc", (0.61, 0.59, 0.63)).chance == 0.5  # a constant of the code
    with pytest.raises(ValueError, match="chance must be finite where the status is 'ok', got None"):
        attempt.measured("attribute.balanced_accuracy", (0.61, 0.59, 0.63))  # which has none: it follows the classes
    lost = replace(attempt, attacker="cnn", level=0.9).missing("attribute.auc", "did_not_converge", "diverged")
    none = {"value": None, "low": None, "high": None, "chance": None, "worst": False}
    said = {"status": "did_not_converge", "note": "diverged"}
    assert lost == finding(code="attribute.auc", attacker="cnn", level=0.9, **none, **said)
    with pytest.raises(ValueError, match="note must say why the status is 'not_applicable'"):
        attempt.missing("attribute.auc", "not_applicable", "")


def test_normalised_gain_is_the_share_of_the_gain_that_is_left() -> None:
    attack = finding(value=0.6, low=0.55, high=0.64)
    unprotected = finding(release="Input", attacker="svm", value=0.9, low=0.88, high=0.92)
    gain = findings.normalised_gain(attack, unprotected)
    assert gain.code == "attribute.normalised_gain"
    assert gain.figures() == pytest.approx((0.25, 0.125, 0.35, 0.0))
    assert (gain.release, gain.attacker, gain.n, gain.worst) == ("AIA deep", "mlp", 3363, True)
    assert "svm on the unprotected input at 0.900, held fixed" in gain.note
    assert findings.normalised_gain(unprotected, unprotected).value == pytest.approx(1)


def test_normalised_gain_below_chance_is_negative() -> None:
    attack = finding(value=0.48, low=0.46, high=0.5)
    gain = findings.normalised_gain(attack, finding(release="Input", value=0.9, low=0.88, high=0.92))
    assert gain.figures() == pytest.approx((-0.05, -0.1, 0.0, 0.0))


def test_normalised_gain_is_not_applicable_where_nothing_could_be_found() -> None:
    at_chance = finding(release="Input", value=0.51, low=0.49, high=0.53)
    gain = findings.normalised_gain(finding(), at_chance)
    assert (gain.status, gain.value) == ("not_applicable", None)
    assert "0.510" in gain.note
    lost = finding(status="did_not_converge", note="diverged", value=None, low=None, high=None)
    assert "diverged" in findings.normalised_gain(lost, finding(release="Input")).note
    assert findings.normalised_gain(finding(), lost).status == "not_applicable"


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"code": "attribute.auc"}, "one code"), ({"target": "smile"}, "one target"), ({"chance": 0.4}, "one chance")],
)
def test_normalised_gain_compares_like_with_like(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        findings.normalised_gain(finding(), finding(release="Input", **changes))
    with pytest.raises(ValueError, match="attribute figures"):
        findings.normalised_gain(finding(code="utility.auc"), finding(code="utility.auc"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    lost = finding(attacker="cnn", status="did_not_converge", note="diverged", value=None, low=None, high=None)
    given = document(finding(), lost)
    path = findings.write(tmp_path / "new" / "out", given)
    assert path == tmp_path / "new" / "out" / "findings.json"
    found = findings.read(path.parent)
    assert [Finding(**entry) for entry in found["findings"]] == [finding(), lost]
    assert found["data"] == {"kind": "images", "n": 8, "shape": [64, 64], "identities": None, "skipped": None}
    assert "NaN" not in path.read_text()
    assert (found["veil"], found["created"]) == (veil.__version__, given["created"])
    assert datetime.date.fromisoformat(found["created"])  # a day, and no time of it
    assert [entry.name for entry in path.parent.iterdir()] == ["findings.json"]


def test_the_order_of_keys_is_fixed(tmp_path: Path) -> None:
    given = document(finding())
    turned = dict(reversed(given.items()))
    turned["findings"] = [dict(reversed(entry.items())) for entry in given["findings"]]
    first = findings.write(tmp_path / "a", given).read_bytes()
    assert findings.write(tmp_path / "b", turned).read_bytes() == first
    found = json.loads(first)
    assert tuple(found) == findings.KEYS
    assert list(found["findings"][0]) == [field.name for field in fields(Finding)]


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = findings.write(tmp_path, document(finding()))
    before = path.read_bytes()
    with pytest.raises(TypeError):
        findings.write(
            tmp_path, document(finding(), releases=[{"name": "AIA deep", "role": "method", "config": {1: {2}}}])
        )

    def no_space(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        findings.write(tmp_path, document(finding(), seed=1))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["findings.json"]


def test_a_document_names_only_its_releases(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"findings\[0\]\.release must be the name of a release in releases, got 'Random'"
    ):
        findings.write(tmp_path, document(replace(finding(), release="Random")))
    twice = [{"name": "Input", "role": "input"}] * 2
    with pytest.raises(ValueError, match=r"releases\[1\]\.name must be unique, got 'Input'"):
        findings.write(tmp_path, document(releases=twice))
    assert not list(tmp_path.iterdir())


def test_an_incomplete_document_is_not_written(tmp_path: Path) -> None:
    given = document(finding())
    del given["curves"]
    with pytest.raises(ValueError, match="curves is missing"):
        findings.write(tmp_path, given)
    assert not list(tmp_path.iterdir())


Json = dict[str, Any]


def whole() -> Json:
    """A file with an entry of every kind."""
    more: Json = {
        "data": {
            "kind": "images", "n": 8, "shape": [64, 64], "private": ["gender"], "splits": {"test": {"n": 8}},
            "labels": {"gender": {"classes": ["f", "m"], "counts": {"test": [4, 4]}}},
        },
        "pictures": [{"file": "a.png"}],
        "curves": [{"file": "a.parquet", "release": "AIA deep"}],
        "maps": [{"release": "AIA deep", "x": [0.5], "y": [1], "person": [0]}],
    }  # fmt: skip
    found: Json = json.loads(json.dumps(document(finding(), finding(attacker="svm", worst=False), **more), default=int))
    return found


def _set(path: str, value: object) -> Callable[[Json], None]:
    """Sets what lies at a path, or, without a value, deletes it."""

    def change(document: Json) -> None:
        *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        at: Any = document
        for step in way:
            at = at[step]
        if value is _set:
            del at[last]
        else:
            at[last] = value

    return change


WRONG: list[tuple[Callable[[Json], None], str]] = [
    (_set("schema", 2), "schema must be 1, got 2; another version"),
    (_set("schema", "1"), "schema must be 1, got '1'"),
    (_set("schema", True), "schema must be 1, got True"),
    (_set("schema", _set), "schema is missing"),
    (_set("data", _set), "data is missing"),
    (_set("mood", 1), "mood is no field that is known (schema, "),
    (_set("command", 3), "command must be a text, got 3"),
    (_set("seed", 0.5), "seed must be a whole number or null, got 0.5"),
    (_set("data", []), "data must be an object, got []"),
    (_set("data.mean", 0.5), "data.mean is no field that is known"),
    (_set("data.n", 1.5), "data.n must be a whole number or null, got 1.5"),
    (_set("data.private", "gender"), "data.private must be a list of texts, got 'gender'"),
    (_set("data.private", [1]), "data.private must be a list of texts, got [1]"),
    (_set("data.splits.test", 3), "data.splits.test must be an object, got 3"),
    (_set("data.splits.test.n", "8"), "data.splits.test.n must be a whole number or null, got '8'"),
    (_set("data.labels.gender.classes", _set), "data.labels.gender.classes is missing"),
    (_set("data.labels.gender.counts.test", ["1"]), "data.labels.gender.counts.test must be a list of whole numbers"),
    (_set("releases", {}), "releases must be a list, got {}"),
    (_set("releases.1", 3), "releases[1] must be an object, got 3"),
    (_set("releases.1.name", "Input"), "releases[1].name must be unique, got 'Input'"),
    (_set("releases.1.role", "best"), "releases[1].role must be one of input, baseline, method, got 'best'"),
    (_set("releases.1.role", _set), "releases[1].role is missing"),
    (_set("releases.1.k", "8"), "releases[1].k must be a whole number or null, got '8'"),
    (_set("releases.1.colour", "red"), "releases[1].colour is no field that is known"),
    (_set("releases.1.named", "yes"), "releases[1].named must be true or false, got 'yes'"),
    (_set("findings", _set), "findings is missing"),
    (_set("findings.1", 7), "findings[1] must be an object, got 7"),
    (_set("findings.1.code", _set), "findings[1].code is missing"),
    (
        _set("findings.1.code", "attribute.guess"),
        "findings[1]: finding 'attribute.guess' of 'svm' on 'AIA deep': code must",
    ),
    (_set("findings.1.enemy", "svm"), "findings[1].enemy is no field that is known"),
    (
        _set("findings.1.value", 0.71),
        "findings[1]: finding 'attribute.balanced_accuracy' of 'svm' on 'AIA deep': value must lie",
    ),
    (_set("findings.1.value", "0.6"), "value must be a number, got '0.6'"),
    (_set("findings.1.value", True), "value must be a number, got True"),
    (_set("findings.1.value", 10**400), "value must be finite where the status is 'ok', got 1000"),
    (_set("findings.1.value", None), "value must be finite where the status is 'ok', got None"),
    (_set("findings.1.value", float("nan")), "NaN is not a JSON number"),
    (_set("findings.1.low", None), "low must be finite where the status is 'ok', got None"),
    (_set("findings.1.level", 95), "level must lie between 0 and 1, got 95"),
    (_set("findings.1.n", None), "n must be a whole number of at least 0, got None"),
    (_set("findings.1.worst", 1), "worst must be true or false, got 1"),
    (_set("findings.1.role", "attacker"), "role must be one of attack, utility, control, bound, got 'attacker'"),
    (_set("findings.1.status", "fine"), "status must be one of ok, not_applicable, did_not_converge, got 'fine'"),
    (_set("findings.1.release", "X"), "findings[1].release must be the name of a release in releases, got 'X'"),
    (_set("pictures", [1]), "pictures[0] must be an object, got 1"),
    (_set("pictures.0.file", _set), "pictures[0].file is missing"),
    (_set("curves.0", "a"), "curves[0] must be an object, got 'a'"),
    (_set("curves.0.release", "X"), "curves[0].release must be the name of a release in releases, got 'X'"),
    (_set("maps.0.y", ["2"]), "maps[0].y must be a list of finite numbers, got ['2']"),
    (_set("maps.0.person", [0, 1]), "maps[0].person must be as many as x (1) and y (1), got 2"),
    (_set("maps.0.release", "X"), "maps[0].release must be the name of a release in releases, got 'X'"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[said for _, said in WRONG])
@pytest.mark.parametrize("read", [findings.read, report.read], ids=["audit", "report"])
def test_both_readers_refuse_the_same(
    read: Callable[[Path], object], change: Callable[[Json], None], said: str, tmp_path: Path
) -> None:
    text = whole()
    (tmp_path / "findings.json").write_text(json.dumps(text))
    read(tmp_path)  # which is whole before it is changed
    change(text)
    (tmp_path / "findings.json").write_text(json.dumps(text))
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert message.startswith(f"{tmp_path / 'findings.json'}: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be whole JSON, broken at line 1 column 1"),
        ('{"schema": 1', "must be whole JSON, broken at line 1"),
        ("[]", "schema is missing"),
        ("3", "schema is missing"),
        ('{"results": []}', "schema is missing"),
        ('{"schema": 1}', "veil is missing"),
        ("[" * 100_000, "must be JSON in UTF-8"),
    ],
)
def test_broken_files_are_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "findings.json").write_text(text)
    for read in (findings.read, report.read):
        with pytest.raises(InputError, match=said) as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no findings here"):
        findings.read(tmp_path)
    with pytest.raises(InputError, match="no findings here"):
        findings.read(tmp_path / "nowhere")
    (tmp_path / "findings.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="must be JSON in UTF-8"):
        findings.read(tmp_path)
    with pytest.raises(InputError, match="no findings here"):
        findings.read(tmp_path / "findings.json")


def test_a_report_needs_little_of_the_audit() -> None:
    """It reads what an audit wrote; nothing of what attacks comes with it."""
    code = "import sys, veil.report.page; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name.startswith(("veil.auditing", "veil.methods", "veil.workflows"))]
    assert not {"torch", "sklearn", "scipy"} & set(loaded)
