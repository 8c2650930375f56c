"""What a release was fitted on: hashes beside it, and audits that notice whom it was trained on among their own."""

from __future__ import annotations

import json
import shutil
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save as to_bytes

from conftest import faces_pack, only, vectors_pack
from methods_matrix import BRIEF, kind_of, pack_of, use_of
from veil.auditing import leakage
from veil.auditing.leakage import overlap
from veil.data import fitted
from veil.data.fitted import Fitted
from veil.data.pack import SPLITS, Pack
from veil.errors import InputError
from veil.findings import Finding
from veil.findings.codes import SEEN
from veil.methods import METHODS
from veil.release import Release
from veil.workflows import fit as fitting
from veil.workflows import frontier
from veil.workflows.audit import audit
from veil.workflows.estimator import Protector
from veil.workflows.fit import fit_measured
from veil.workflows.subjects import Subject


def names(pack: Pack, label: str) -> list[str]:
    return [pack.classes[label][code] for code in pack.labels[label]]


@cache
def split_anew(seed: int = 5, **changes: Any) -> Pack:
    """The people and vectors of ``vectors_pack``, in other splits."""
    pack = vectors_pack()
    return Pack.from_arrays(pack.x, {label: names(pack, label) for label in pack.labels}, seed=seed, **changes)


def leace(pack: Pack | None = None, **options: Any) -> Release:
    return fitting.fit("leace", pack or vectors_pack(), private=["gender"], **options).release


def compared(
    release: Release, pack: Pack, *, private: Sequence[str] = ("gender",), on: Sequence[str] = ("attack",)
) -> Any:
    return overlap(release.made, release.fitted, pack, private=private, attack_on=on)


def people_of(pack: Pack, *splits: str) -> set[str]:
    return set(np.array(names(pack, "identity"))[pack.rows(*splits)])


# The hashes


@pytest.mark.parametrize("name", METHODS)
def test_every_method_leaves_them_beside_its_release(tmp_path: Path, name: str) -> None:
    pack, use, settings = pack_of(kind_of(name)), use_of(name, kind_of(name)), BRIEF[name]
    release = fitting.fit(name, pack, private=["gender"], utility=use, settings=settings, precision="fp32").release
    release.save(tmp_path / "r")
    file = tmp_path / "r.fitted"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["release.json", "weights.safetensors"]
    found = Release.load(tmp_path / "r").fitted
    assert found is not None
    assert not found.problem
    everyone = np.arange(len(pack))
    assert np.array_equal(found.has_rows(pack.x, everyone), np.isin(everyone, pack.rows("protect")))
    there = found.has_people(pack.classes["identity"])
    assert set(np.array(pack.classes["identity"])[there]) == people_of(pack, "protect")
    assert file.stat().st_size < 8 * (len(found.rows) + len(found.people)) + 1000
    content = file.read_bytes()
    assert not any(person.encode() in content for person in people_of(pack, "protect"))


def test_two_files_of_one_fit_have_nothing_in_common(tmp_path: Path) -> None:
    """Whoever holds two cannot tell that they are of the same people, without guessing who."""
    one, other = (leace().fitted for _ in range(2))
    assert one is not None
    assert other is not None
    assert not np.isin(one.rows, other.rows).any()
    assert not np.isin(one.people, other.people).any()


SHAPES = {"centred": (0, 0), "off-centre": (1000, 0), "of unequal spread": (0, 5)}
"""Where vectors lie, in their deviations, and over how many powers of ten these spread."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("d", [2, 4, 8, 16, 64, 128, 512])
def test_directions_are_known_whatever_their_length(d: int, shape: str) -> None:
    offset, powers = SHAPES[shape]
    drawn = np.random.default_rng(0).normal(size=(2000, d)) * np.logspace(0, -powers, d)
    x = (drawn + offset).astype(np.float32)
    rows = np.arange(len(x))

    def hashes(x: NDArray[np.float32]) -> NDArray[np.uint64]:
        return fitted._of_rows(x, rows, bytes(16), True)

    known = hashes(x)
    # None is taken for another, unless their differences are below the digits that are kept, in few values.
    assert len(np.unique(known)) == len(x) or (shape, d) == ("off-centre", 4)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    if d >= 4:  # fewer values do not say which vector it is
        assert np.array_equal(hashes(4 * x), known)
        for scaled in (3 * x, 1e-3 * x, unit):
            assert (hashes(scaled.astype(np.float32)) == known).mean() > 0.98
    near = unit + 0.02 * np.random.default_rng(1).normal(size=x.shape).astype(np.float32) / np.sqrt(d)
    if d >= 8 and shape == "centred":
        assert (hashes(near.astype(np.float32)) == known).mean() < 0.02  # of cosine .9998: another picture
    exact = fitted._of_rows(x, rows, bytes(16), False)
    assert not (fitted._of_rows(3 * x, rows, bytes(16), False) == exact).any()
    zeros = np.where(np.arange(d) % 2, x, np.float32(0))
    minus = np.where(np.arange(d) % 2, x, np.float32(-0.0))
    assert np.array_equal(*(fitted._of_rows(v, rows, bytes(16), False) for v in (zeros, minus)))


def test_a_name_is_one_name_however_it_is_encoded() -> None:
    made = Fitted(salt=bytes(16), people=fitted._of_people([unicodedata.normalize("NFD", "Zoë Müller")], bytes(16)))
    assert made.has_people([unicodedata.normalize("NFC", "Zoë Müller"), "Zoe Muller"]).tolist() == [True, False]


def test_what_chooses_the_noise_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = vectors_pack()
    settings = BRIEF["template"]
    point = frontier.Point(
        noise=0.5, attacks={"gender": {"value": 0.5, "low": 0.5, "high": 0.5}}, utility={"value": 0.9}
    )
    monkeypatch.setattr(frontier, "measure", lambda *_, **__: [point])
    options: dict[str, Any] = {"private": ["gender"], "settings": settings, "precision": "fp32"}
    measured = fit_measured("template", pack, **options).release
    chosen = fit_measured("template", pack, budget={"gender": 0.6}, **options).release
    for release, splits in ((measured, ("protect",)), (chosen, ("protect", "attack", "calibrate"))):
        assert release.fitted is not None
        there = release.fitted.has_people(pack.classes["identity"])
        assert set(np.array(pack.classes["identity"])[there]) == people_of(pack, *splits)
    assert compared(measured, pack).note.endswith("was in its training")
    assert compared(chosen, pack).note.endswith("was in its training; attack and calibrate chose its noise")


def test_a_protector_records_people_only_where_it_was_told_of_them() -> None:
    pack = vectors_pack()
    gender, identity = names(pack, "gender"), names(pack, "identity")
    told = Protector("leace").fit(pack.x, private=gender, identity=identity).release_
    untold = Protector("leace").fit(pack.x, private=gender).release_
    labelled = Protector("leace").fit(pack.x, names(pack, "age"), private=gender).release_
    for release, people in ((told, 400), (untold, 0), (labelled, 0)):
        assert release.fitted is not None
        assert (len(release.fitted.rows), len(release.fitted.people)) == (1200, people)
    assert compared(told, pack).note.startswith("100 of 100 people of test (300 of 300 rows), ")
    assert "(compared by rows alone, as its people are not known)" in compared(untold, pack).note


# Beside a release


def test_a_file_of_another_release_or_damaged_says_nothing(tmp_path: Path) -> None:
    leace().save(tmp_path / "one")
    leace(split_anew()).save(tmp_path / "other")
    file, whole = tmp_path / "one.fitted", (tmp_path / "one.fitted").read_bytes()

    def problem() -> str:
        found = Release.load(tmp_path / "one").fitted
        assert found is not None
        assert not len(found.rows)
        return found.problem

    shutil.copy(tmp_path / "other.fitted", file)
    assert problem() == "'one.fitted' is another release's"
    card = {"schema": "1", "release": "", "salt": "00" * 16, "direction": "no"}
    card["release"] = json.loads((tmp_path / "one" / "release.json").read_text())["card_sha256"]
    for data, words in (
        (whole[:-8], "cannot be read"),
        (b"", "cannot be read"),
        (b"\x80\x04K\x01.", "cannot be read"),  # a pickle
        (to_bytes({"rows": np.zeros(2, np.uint64), "people": np.zeros(0, np.uint64)}, card), "sorted"),
        (to_bytes({"rows": np.zeros(0, np.float32), "people": np.zeros(0, np.uint64)}, card), "sorted"),
        (to_bytes({"rows": np.zeros(0, np.uint64), "people": np.zeros(0, np.uint64)}, card | {"salt": "00"}), "salt"),
        (to_bytes({"rows": np.zeros(0, np.uint64)}, card), "cannot be read"),
        (to_bytes({"rows": np.zeros(0, np.uint64)}, card | {"schema": "2"}), "schema must be 1, got '2'"),
    ):
        file.write_bytes(data)
        assert words in problem()
        assert "\n" not in problem()
    file.unlink()
    assert Release.load(tmp_path / "one").fitted is None


def test_saving_replaces_or_removes_what_another_release_left(tmp_path: Path) -> None:
    release = leace()
    release.save(tmp_path / "r")
    first = (tmp_path / "r.fitted").read_bytes()
    shutil.move(tmp_path / "r", tmp_path / "moved")
    with pytest.raises(
        InputError, match=r"r\.fitted: says what another release was fitted on, and is replaced; move it"
    ):
        release.save(tmp_path / "r")
    assert (tmp_path / "r.fitted").read_bytes() == first
    leace(split_anew()).save(tmp_path / "r", force=True)
    assert (tmp_path / "r.fitted").read_bytes() != first
    replace(release, fitted=None).save(tmp_path / "r", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved", "r"]


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leace().save(tmp_path / "r")
    before = (tmp_path / "r.fitted").read_bytes()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fitted, "serialised", fails)
    with pytest.raises(InputError, match="cannot be written"):
        leace(split_anew()).save(tmp_path / "r", force=True)
    assert (tmp_path / "r.fitted").read_bytes() == before
    assert Release.load(tmp_path / "r").fitted.problem == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r", "r.fitted"]


# What an audit makes of them


def test_people_and_rows_that_meet_are_counted() -> None:
    release, pack = leace(), split_anew()
    found = compared(release, pack)
    met = people_of(vectors_pack(), "protect")
    expected = np.isin(names(pack, "identity"), list(met)) & (pack.split > 0)
    assert np.array_equal(found.rows, expected)
    parts = []
    for split in ("test", "calibrate", "attack"):
        there = people_of(pack, split)
        rows = pack.rows(split)
        seen = int(expected[rows].sum())
        parts.append(f"{len(there & met)} of {len(there)} people of {split} ({seen} of {len(rows)} rows)")
    assert found.note == ", ".join(parts) + " were in its training"
    finding = found.finding(pack, "R", 0.95)
    assert (finding.code, finding.role, finding.n) == ("training.seen", "control", len(pack.rows(*SPLITS[1:])))
    assert finding.value == expected.sum() / finding.n > 0.3


def test_other_pictures_of_a_person_are_known_by_name_and_other_names_by_picture() -> None:
    release, pack = leace(), split_anew()
    other = replace(pack, x=pack.x + np.float32(0.1))
    by_name = compared(release, other).rows
    assert np.array_equal(by_name, compared(release, pack).rows)
    renamed = replace(pack, classes={**pack.classes, "identity": tuple(f"X{i}" for i in range(400))})
    assert np.array_equal(compared(release, renamed).rows, by_name)
    assert compared(release, renamed).note.startswith("0 of ")
    strangers = replace(renamed, x=other.x)
    found = compared(release, strangers)
    people, rows = len(people_of(strangers, *SPLITS[1:])), len(strangers.rows(*SPLITS[1:]))
    assert found.note == f"none of {people} people and {rows} rows of test, calibrate, attack was in its training"
    assert found.rows is not None
    assert not found.rows.any()
    assert found.finding(strangers, "R", 0.95).value == 0


def test_scaled_templates_are_the_same_rows() -> None:
    release = replace(leace(), fitted=None)
    release = replace(release, contract=replace(release.contract, direction=True)).recorded(vectors_pack())
    pack = split_anew()
    nobody = Pack.from_arrays(3 * pack.x, {"gender": names(pack, "gender")}, split=[SPLITS[c] for c in pack.split])
    found = compared(release, nobody).rows
    assert found is not None
    assert found.sum() >= 0.98 * compared(release, pack).rows.sum()


def test_without_identity_or_where_it_is_private_rows_alone_are_compared() -> None:
    release, pack = leace(), split_anew()
    moved = replace(pack, x=pack.x + np.float32(0.1))
    assert not compared(release, moved, private=["identity"]).rows.any()
    assert compared(release, pack, private=["identity"]).rows.any()
    assert "identity is private)" in compared(release, pack, private=["identity"]).note
    nobody = replace(moved, labels={"gender": moved.labels["gender"]})
    assert not compared(release, nobody).rows.any()
    assert "nobody's identity is known)" in compared(release, nobody).note
    some = np.where(np.arange(len(pack)) % 2, pack.labels["identity"], -1)
    half = compared(release, replace(moved, labels={**moved.labels, "identity": some})).rows
    assert half.any()
    assert not half[some < 0].any()


def test_attackers_that_are_given_the_protectors_people_may_share_them() -> None:
    release, pack = leace(), split_anew()
    found = compared(release, pack, on=["protect", "attack"])
    assert "of attack" not in found.note
    assert found.splits == ("test", "calibrate")
    assert not found.rows[pack.rows("attack")].any()


def test_what_was_fitted_on_the_audits_own_pack_has_seen_protect() -> None:
    release, pack = replace(leace(), fitted=None), vectors_pack()
    assert compared(release, pack).note.startswith("none of ")
    straddling = split_anew(disjoint_by=None)
    note = compared(replace(leace(straddling), fitted=None), straddling).note
    assert "people" in note
    assert note.endswith("were in its training")
    assert not compared(leace(straddling), straddling, private=["identity"]).rows.any()


def test_where_nothing_says_it_cannot_be_known(tmp_path: Path) -> None:
    pack = split_anew()
    found = compared(replace(leace(), fitted=None), pack)
    assert found.rows is None
    assert found.note.startswith("whether it was fitted on these people cannot be known: its data were others, and no ")
    finding = found.finding(pack, "R", 0.95)
    assert (finding.status, finding.value) == ("not_applicable", None)
    assert compared(replace(leace(), fitted=Fitted(problem="r.fitted is another's")), pack).note.endswith("another's")


def test_what_lies_underneath_counts(tmp_path: Path) -> None:
    here, there = vectors_pack(), split_anew()
    settings = {**BRIEF["template"], "noise": 0.0}
    base = fitting.fit("template", there, private=["gender"], settings=settings, precision="fp32").release
    over = leace(here, base=base)
    assert over.made["underneath"] == [there.fingerprint]
    found = compared(over, here)
    both = people_of(here, "protect") | people_of(there, "protect")
    assert np.array_equal(found.rows, np.isin(names(here, "identity"), list(both)) & (here.split > 0))
    over.save(tmp_path / "over")
    assert np.array_equal(compared(Release.load(tmp_path / "over"), here).rows, found.rows)
    # Without the file of what is underneath, data that are the audit's own prove nothing.
    blind = leace(here, base=replace(base, fitted=None))
    assert compared(blind, here).rows is None
    assert "the release underneath" in compared(blind, here).note
    blind.save(tmp_path / "blind")
    assert not (tmp_path / "blind.fitted").exists()
    assert compared(Release.load(tmp_path / "blind"), here).rows is None
    # Of the same data all is known.
    again = leace(there, base=replace(base, fitted=None))
    assert not compared(again, there).rows.any()
    assert np.array_equal(compared(again, here).rows, compared(leace(there), here).rows)


def test_the_network_that_inversion_begins_with_counts(tmp_path: Path) -> None:
    pack = faces_pack()
    other = Pack.from_arrays(pack.x, {label: names(pack, label) for label in pack.labels}, seed=5)
    options: dict[str, Any] = {"private": [], "utility": "smile", "preset": "unprotected", "precision": "fp32"}
    settings = {"features": 8, "batch": 8, "steps_alone": 1}
    fitting.fit("inversion", other, settings=settings, **options).release.save(tmp_path / "first")
    settings = {**settings, "weights": str(tmp_path / "first")}
    second = fitting.fit("inversion", pack, settings=settings, **options).release
    both = people_of(pack, "protect") | people_of(other, "protect")
    found = compared(second, pack, private=[])
    assert np.array_equal(found.rows, np.isin(names(pack, "identity"), list(both)) & (pack.split > 0))


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Finding]]:
    """An audit of releases that were fitted on other splits: of the same people, of unknown people, and of others'."""
    out = tmp_path_factory.mktemp("audit")
    pack, strangers = split_anew(), vectors_pack(seed=9)
    strangers = replace(
        strangers, classes={**strangers.classes, "identity": tuple(f"other-{i:03d}" for i in range(400))}
    )
    codes = fitting.fit(
        "substitution", strangers, private=["gender"],
        settings={"substitutes": "code", "codes": 4, "heads": 1, "steps": 1, "guide": 0.0, "batch": 64},
    ).release  # fmt: skip
    subjects = [
        Subject(name="leaky", release=leace(), role="method"),
        Subject(name="unknown", release=replace(leace(), fitted=None), role="method"),
        Subject(name="sound", release=codes),
        Subject(name="outside", vectors=np.asarray(pack.x)),
    ]
    who = only("logistic regression")  # who attacks does not matter here
    roster = who | {"control": next(iter(who["attackers"].items()))}
    made = audit(
        pack, subjects, out, private=["gender"], utility=["identity"], effort="quick", jobs=1, together=False,
        roster=roster,
    )  # fmt: skip
    return out, list(made.findings)


def test_the_audit_holds_a_control_of_each_release_and_both_fingerprints(leaking: tuple[Path, list[Finding]]) -> None:
    out, found = leaking
    controls = {f.release: f for f in found if f.code == SEEN}
    assert list(controls) == ["Input + LEACE", "leaky", "unknown", "sound", "outside"]
    assert [c.status for c in controls.values()] == ["ok", "ok", "not_applicable", "ok", "not_applicable"]
    assert [c.value for c in controls.values()][0::3] == [0, 0]
    assert (controls["leaky"].value or 0) > 0.3
    document = json.loads((out / "findings.json").read_text())
    data = {entry["name"]: entry["data"] for entry in document["releases"]}
    here, there = document["data"]["fingerprint"], vectors_pack().fingerprint
    assert here != there
    assert (data["Input"], data["Input + LEACE"], data["leaky"], data["outside"]) == (None, here, there, None)


def test_certificates_stand_where_calibration_was_not_seen(leaking: tuple[Path, list[Finding]]) -> None:
    _, found = leaking
    bounds = [f for f in found if f.code.startswith("certificate.")]
    assert [(f.release, f.status) for f in bounds] == [("sound", "ok"), ("sound", "ok")]
    pack = split_anew()
    finite = fitting.fit(
        "substitution", vectors_pack(), private=["gender"],
        settings={"substitutes": "code", "codes": 4, "heads": 1, "steps": 1, "guide": 0.0, "batch": 64},
    ).release  # fmt: skip
    seen = compared(finite, pack).rows
    assert seen[pack.rows("calibrate")].any()


def test_the_page_says_so_first(leaking: tuple[Path, list[Finding]]) -> None:
    from veil.report import page as html

    out, found = leaking
    page = html.write(out).read_text()
    note = next(f.note for f in found if f.code == SEEN and f.release == "leaky")
    alarm = page.index("own controls failed")
    told = page.index(f"leaky is measured on people, or rows, that it was fitted on: {note}")
    assert alarm < page.index("the release leaky") < told
    start = page.index('<section id="verdict">')
    assert told < page.index("unknown: whether it was fitted on these people cannot be known") < start
    verdict = page[start : page.index('<section id="plane">')]
    of_leaky = verdict[verdict.index("<h3>leaky") : verdict.index("<h3>unknown")]
    assert of_leaky.index(note) < of_leaky.index("the worst tested attack")
    assert of_leaky.count("A control failed: this figure means nothing.") == 2
    of_unknown = verdict[verdict.index("<h3>unknown") : verdict.index("<h3>sound")]
    assert "whether it was fitted on these people cannot be known" in of_unknown
    assert "A control failed" not in of_unknown
    rest = verdict[verdict.index("<h3>sound") :]
    assert "cannot be known" not in rest  # of vectors from outside it is said among the controls, quietly
    assert page.index(leakage.OUTSIDE) > page.index('<section id="controls">')
