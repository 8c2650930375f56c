from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from veil import report
from veil.audit import findings
from veil.audit.findings import Finding
from veil.errors import InputError


def finding(**changes: Any) -> Finding:
    given: dict[str, Any] = {
        "code": "attribute.balanced_accuracy", "release": "AIA deep", "target": "gender", "attacker": "mlp",
        "role": "attack", "value": 0.61, "low": 0.59, "high": 0.63, "n": 3363, "chance": 0.5, "worst": True,
    }  # fmt: skip
    return Finding(**(given | changes))


def document(*found: Finding, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "version": "0.1.0", "seed": 0, "command": "veil audit PACK OUT", "created": "2026-01-02",
        "data": {"kind": "images", "n": np.int64(8), "shape": (64, 64), "mean": np.float32(0.5), "odd": float("nan")},
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
        ({"code": "attribute.guess"}, "unknown code"),
        ({"code": "inversion"}, "unknown code"),
        ({"role": "attacker"}, "role must be one of"),
        ({"status": "fine"}, "status must be one of"),
        ({"status": "not_applicable"}, "needs a note"),
        ({"value": 0.7}, "outside its interval"),
        ({"value": 0.5}, "outside its interval"),
        ({"low": 0.64}, "outside its interval"),
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
        ({"note": None}, "note must be a string"),
        ({"status": "did_not_converge", "note": "no", "value": None}, "an interval needs a value"),
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


@pytest.mark.parametrize("code", [*findings.CODES, "inversion.ssim", "certificate.balanced_accuracy"])
def test_codes_in_use_are_taken(code: str) -> None:
    assert finding(code=code).code == code


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
    assert found["data"] == {"kind": "images", "n": 8, "shape": [64, 64], "mean": 0.5, "odd": None}
    assert "NaN" not in path.read_text()
    assert found["created"] == "2026-01-02"
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
        findings.write(tmp_path, document(finding(), data={"thing": object()}))

    def no_space(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(findings.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        findings.write(tmp_path, document(finding(), seed=1))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["findings.json"]


def test_a_document_names_only_its_releases() -> None:
    with pytest.raises(ValueError, match="not listed: Random"):
        document(replace(finding(), release="Random"))
    with pytest.raises(ValueError, match="names must differ"):
        document(releases=[{"name": "Input"}, {"name": "Input"}])


def test_an_incomplete_document_is_not_written(tmp_path: Path) -> None:
    given = document(finding())
    del given["curves"]
    with pytest.raises(ValueError, match="curves missing"):
        findings.write(tmp_path, given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "not JSON, or cut short"),
        (lambda text: "", "not JSON, or cut short"),
        (lambda text: "[]", "it has no schema"),
        (lambda text: "3", "it has no schema"),
        (lambda text: '{"results": []}', "it has no schema"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "its schema must be 1, got 2"),
        (lambda text: text.replace('"data"', '"date"'), "data missing"),
        (lambda text: text.replace('"attacker"', '"enemy"'), "missing or unknown: attacker, enemy"),
        (lambda text: text.replace("0.61", "0.71"), "outside its interval"),
        (lambda text: text.replace("0.61", "NaN"), "value must be finite"),
        (lambda text: text.replace('"pictures": []', '"pictures": [1]'), "'pictures' must be a list of objects"),
        (lambda text: "[" * 100_000, "not JSON, or cut short"),
    ],
)
def test_broken_files_are_refused_in_one_line(tmp_path: Path, change: Any, message: str) -> None:
    path = findings.write(tmp_path, document(finding()))
    text = path.read_text()
    changed = change(text)
    assert changed != text
    path.write_text(changed)
    with pytest.raises(InputError, match=message) as caught:
        findings.read(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no findings here"):
        findings.read(tmp_path)
    with pytest.raises(InputError, match="no findings here"):
        findings.read(tmp_path / "nowhere")
    (tmp_path / "findings.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        findings.read(tmp_path)
    with pytest.raises(InputError, match="no findings here"):
        findings.read(tmp_path / "findings.json")


def test_reports_know_how_notes_begin() -> None:
    assert report.NO_BETTER == findings.NO_BETTER
