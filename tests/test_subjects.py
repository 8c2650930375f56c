"""What is audited, and the audit as something to look at, to write and to report."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import veil
from conftest import only, vectors_pack
from methods_matrix import BRIEF
from veil import findings as files
from veil.errors import InputError
from veil.release import Release
from veil.workflows import fit as fitting
from veil.workflows.audit import Audit, audit
from veil.workflows.fit import fit
from veil.workflows.subjects import Subject

HOSTILE = "<img src=x onerror=alert(1)>"


@cache
def _release() -> Release:
    return fitting.fit("leace", vectors_pack(), private=["gender"]).release


def _vectors() -> np.ndarray:
    return np.asarray(vectors_pack().x)


@cache
def _audit() -> Audit:
    subjects = [Subject.of(_release(), name="LEACE"), Subject(name=HOSTILE, vectors=_vectors())]
    ask: dict[str, Any] = {"private": ["gender", "age"], "utility": ["identity"], "baselines": (), "effort": "quick"}
    return audit(vectors_pack(), subjects, jobs=1, roster=only("logistic regression"), together=False, **ask)


def test_a_release_is_called_by_its_folder_or_its_method(tmp_path: Path) -> None:
    folder = _release().save(tmp_path / "protected")
    of_folder, of_release = Subject.of(folder), Subject.of(_release())
    assert (of_folder.name, Subject.of(str(folder)).name, of_release.name) == ("protected", "protected", "leace")
    mine = Subject.of(folder, name="mine", note="A note.")
    assert (mine.name, mine.note) == ("mine", "A note.")
    assert of_folder.release is not None
    np.testing.assert_array_equal(of_folder.release.transform(_vectors()), _release().transform(_vectors()))
    assert (of_release.stands_for, Subject.of(folder, role="method").stands_for) == ("baseline", "method")
    with pytest.raises(InputError, match="gone"):
        Subject.of(tmp_path / "gone")


def test_vectors_are_a_subject_and_not_a_release_too() -> None:
    assert Subject(name="V", vectors=_vectors()).stands_for == "method"
    for both in ({}, {"vectors": _vectors(), "release": _release()}):
        with pytest.raises(InputError, match=r"^V: needs a release or vectors, and not both$"):
            Subject(name="V", **both)


def test_vectors_need_a_row_for_each_of_the_packs(tmp_path: Path) -> None:
    few = Subject(name="V", vectors=_vectors()[:-1])
    with pytest.raises(InputError, match=r"^V: needs one vector for each of the pack's 1200 rows, got 1199$"):
        audit(vectors_pack(), [few], tmp_path / "out", private=["gender"], utility=[], baselines=())
    assert not (tmp_path / "out").exists()


def test_names_of_subjects_differ() -> None:
    for names in (("A", "A"), ("Input",)):
        subjects = [Subject(name=name, vectors=_vectors()) for name in names]
        with pytest.raises(InputError, match=r"^releases: names must differ and not be 'Input', got "):
            audit(vectors_pack(), subjects, private=["gender"], utility=[], baselines=())


def test_an_audit_has_a_row_for_each_release() -> None:
    """Gender is told by three values that LEACE erases; it stays in what is not protected, and so does the use."""
    rows = {row.name: row for row in _audit().summary()}
    assert list(rows) == ["Input", "LEACE", HOSTILE]
    assert rows["Input"].attack.target == "gender"
    assert rows["Input"].attack.value > 0.9 > 0.7 > rows["LEACE"].attack.value
    assert rows[HOSTILE].attack.value == rows["Input"].attack.value
    assert all(row.utility.code == "verification.auc" and row.utility.value > 0.9 for row in rows.values())
    of_age = _audit().summary("age")
    assert {row.attack.target for row in of_age} == {"age"}


def test_an_audit_is_a_table_in_a_notebook() -> None:
    shown = _audit()._repr_html_()
    assert shown.count("<tr>") == 4
    assert "<img" not in shown
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown
    first = _audit().summary()[0]
    assert f"{first.attack.value:.3f} ({first.attack.low:.3f} \u2013 {first.attack.high:.3f})" in shown
    assert "worst attack on gender" in shown


def test_an_audit_is_written_and_read_again(tmp_path: Path) -> None:
    """Of an audit without a folder nothing is left before that; what is written is what was measured."""
    out = _audit().write(tmp_path / "found")
    assert out == tmp_path / "found"
    document = files.read(out)
    assert [files.Finding(**entry) for entry in document["findings"]] == list(_audit().findings)
    assert [entry["name"] for entry in document["releases"]] == ["Input", "LEACE", HOSTILE]
    assert sorted(path.name for path in out.iterdir()) == ["contributions.parquet", "findings.json"]
    (out / "findings.json").write_text("what was there before")
    _audit().write(out)
    assert files.read(out) == document


def test_an_audit_has_a_page(tmp_path: Path) -> None:
    page = _audit().report(tmp_path / "found")
    assert page == tmp_path / "found" / "report.html"
    text = page.read_text()
    assert "LEACE" in text
    assert HOSTILE not in text


def test_what_is_public() -> None:
    assert {"Audit", "Finding", "Pack", "Protector", "Release", "Subject", "audit", "fit", "pack"} <= set(veil.__all__)
    assert veil.Subject is Subject
    assert veil.Audit is Audit


ONES = np.ones((4, 2), np.float32)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"name": ""}, "subject: its name must be a text, not empty, got ''"),
        ({"name": 3}, "subject: its name must be a text, not empty, got 3"),
        ({"vectors": [["a"]]}, r"A: vectors must be numbers \(N, k\), got <U1 \(1, 1\)"),
        ({"vectors": ONES * 1j}, r"A: vectors must be numbers \(N, k\), got complex64 \(4, 2\)"),
        ({"vectors": None, "release": "folder"}, "A: needs a veil.Release, got str; see Subject.of"),
        ({"role": "x"}, "A: role must be one of baseline, method, got 'x'"),
        ({"note": 3}, "A: note must be a text and named a boolean, got 3, True"),
    ],
)
def test_a_subject_is_checked_when_it_is_made(about: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Subject(**{"name": "A", "vectors": ONES, **about})


def test_lists_of_numbers_are_vectors() -> None:
    assert Subject(name="A", vectors=ONES.tolist()).vectors.shape == (4, 2)


@pytest.mark.parametrize("asked", [{"private": "gender"}, {"baselines": "leace"}, {"attack_on": "attack"}])
def test_a_text_is_no_list_of_names(asked: dict[str, Any]) -> None:
    name = next(iter(asked))
    with pytest.raises(InputError, match=f"^{name}: must be a list of names, got the text '{asked[name]}'$"):
        audit(vectors_pack(), [], **{"private": ["gender"], "utility": [], **asked})


def test_an_audit_needs_a_pack_and_subjects() -> None:
    with pytest.raises(InputError, match=r"^pack: must be a veil\.Pack, got str$"):
        audit("pack", [], private=["gender"], utility=[])
    with pytest.raises(InputError, match=r"^subjects: each must be a veil\.Subject, got str$"):
        audit(vectors_pack(), ["release"], private=["gender"], utility=[])


def test_an_audit_is_not_written_into_a_release_a_pack_or_a_file(tmp_path: Path) -> None:
    release = fit("random", vectors_pack(), private=["gender"]).release
    release.save(tmp_path / "release")
    (tmp_path / "file").write_text("")
    for out, words in (
        ("release", "which is a release; choose another folder"),
        ("release/sub", "which is a release; choose another folder"),
        ("file", "cannot be made a folder"),
        ("file/sub", "cannot be made a folder"),
    ):
        with pytest.raises(InputError, match=f"^{tmp_path / out}.*{words}"):
            audit(vectors_pack(), [], tmp_path / out, private=["gender"], utility=[], baselines=())
    assert sorted(path.name for path in (tmp_path / "release").iterdir()) == ["release.json", "weights.safetensors"]


def test_a_release_without_its_key_is_named() -> None:
    release = fit("template", vectors_pack(), private=["gender"], settings=BRIEF["template"]).release
    subject = Subject(name="Kept", release=replace(release, key=None))
    with pytest.raises(InputError, match=r"^Kept: it adds keyed noise, so its key must be given, got none$"):
        audit(vectors_pack(), [subject], private=["gender"], utility=[])
