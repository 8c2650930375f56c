"""What every method keeps to: labels that are learned together, and names of labels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import veil
from conftest import audited, vectors_pack
from methods_matrix import BRIEF, EVERY, LABELLED, train
from veil.auditing.exhibit import Exhibit
from veil.data import build, splits, stylised
from veil.data.pack import Pack
from veil.engine import Run
from veil.errors import InputError
from veil.methods import METHODS, template
from veil.release import Release
from veil.workflows import fit as fitting
from veil.workflows.audit import audit
from veil.workflows.demo import demo
from veil.workflows.estimator import Protector
from veil.workflows.fit import fit_measured
from veil.workflows.subjects import Subject

PEOPLE, IMAGES = 40, 4


def pack(kind: str, **labels: Any) -> Pack:
    """All in ``protect``: ``gender`` tells the first value, ``glasses`` the second."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(PEOPLE), IMAGES)
    gender, glasses = np.array(["f", "m"])[who % 2], np.array(["no", "yes"])[who // 2 % 2]
    x: Any = (rng.normal(size=(PEOPLE, 6))[who] + 0.3 * rng.normal(size=(len(who), 6))).astype(np.float32)
    x[:, 0] += 3 * (who % 2)
    x[:, 1] += 3 * (who // 2 % 2)
    if kind == "images":
        x = rng.integers(256, size=(len(who), 16, 16), dtype=np.uint8)
    given = {"identity": who, "gender": gender, "glasses": glasses} | labels
    return Pack.from_arrays(x, given, split=["protect"] * len(who))


def of(method: str, **labels: Any) -> Pack:
    return pack("vectors" if method in ("template", "leace") else "images", **labels)


def without(values: np.ndarray, where: np.ndarray) -> list[str | None]:
    """Labels, unknown in some rows."""
    return [None if gone else str(value) for value, gone in zip(values, where, strict=True)]


WHO = np.repeat(np.arange(PEOPLE), IMAGES)
GENDER, GLASSES = np.array(["f", "m"])[WHO % 2], WHO // 2 % 2 == 1


NOBODY = np.zeros(len(WHO), bool)
TOGETHER = {
    "nobody with glasses": (GLASSES, NOBODY, "label glasses: no row of class 'yes' among"),
    "nobody": (
        WHO >= 20,
        WHO < 20,
        "label gender: no row of class 'f', 'm'; label glasses: no row of class 'no', 'yes'",
    ),
    "half, but some of each class": ((GENDER == "f") == GLASSES, NOBODY, None),
}
"""Where gender is unknown, where glasses are, and what is said of the rows that know both."""


@pytest.mark.parametrize("method", ["aia", "template", "mi", "san"])
@pytest.mark.parametrize("case", TOGETHER)
def test_rows_that_know_all_labels_must_show_every_class(method, case):
    no_gender, no_glasses, words = TOGETHER[case]
    glasses = np.where(GLASSES, "yes", "no")
    made = of(method, gender=without(GENDER, no_gender), glasses=without(glasses, no_glasses))
    options: dict[str, Any] = {"private": ["gender", "glasses"], "settings": BRIEF[method]}
    if words is None:
        assert fitting.fit(method, made, **options)
        return
    with pytest.raises(InputError, match=words) as caught:
        fitting.fit(method, made, **options)
    assert "rows of split protect that know all of gender, glasses" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_target_must_be_among_the_rows_that_know_all_labels():
    """Of people, not every class need be there."""
    made = of("mi", gender=without(GENDER, WHO == 0))
    with pytest.raises(InputError, match="target: identity '0' has no row in split protect that knows all of identity"):
        fitting.fit(
            "mi", made, private=["identity", "gender"], utility="glasses", settings={**BRIEF["mi"], "target": "0"}
        )


def test_leace_erases_each_label_by_the_rows_that_know_it():
    made = of("leace", gender=without(GENDER, GLASSES))
    release = fitting.fit("leace", made, private=["gender", "glasses"]).release
    r, known = release.transform(made.x), made.label("gender") >= 0
    for rows, label in ((np.ones(len(r), bool), "glasses"), (known, "gender")):
        codes = made.label(label)[rows]
        before, after = (np.abs(v[codes == 1].mean(0) - v[codes == 0].mean(0)).max() for v in (made.x[rows], r[rows]))
        assert before > 1
        assert after < 1e-4


@pytest.mark.parametrize("method", ["template", "san"])
def test_a_label_named_twice_is_hidden_once(method, tmp_path):
    release = fitting.fit(method, of(method), private=["gender", "gender"], settings=BRIEF[method]).release
    assert release.made["private"] == ["gender"]
    assert Release.load(release.save(tmp_path / "r")).contract == release.contract


@pytest.mark.parametrize(
    ("method", "preset"), [("template", "default"), ("template", "aligned"), ("deep", None), ("san", None)]
)
def test_people_are_no_classes_of_which_something_ships(method, preset):
    with pytest.raises(InputError, match=f"^{method}: private must not be identity") as caught:
        fitting.fit(method, of(method), private=["identity"], utility="gender", preset=preset)
    assert "\n" not in str(caught.value)


def test_no_name_of_a_person_is_in_a_release(tmp_path):
    made = of("template", identity=[f"Person {i}" for i in WHO])
    settings = {"rounds": 2, "steps_erase": 2}
    release = fitting.fit(
        "template", made, private=["identity"], preset="erased", utility="gender", settings=settings
    ).release
    assert "Person" not in (release.save(tmp_path / "r") / "release.json").read_text()


NAMES = ("yaw", "pitch", "roll", "iod", "nose", "mouth")


@pytest.mark.parametrize(("method", "preset"), [each[:2] for each in EVERY if each[2] == "vectors"])
def test_a_release_knows_the_columns_that_its_vectors_stood_in(method, preset, tmp_path):
    named = replace(pack("vectors"), meta={"columns": list(NAMES)})
    named = replace(named, x=np.clip(named.x, 0, 1)) if method == "random" else named
    release = fitting.fit(
        method,
        named,
        private=["gender"],
        utility="glasses" if method in LABELLED else "identity",
        preset=preset,
        settings=BRIEF[method],
    ).release
    assert release.contract.columns == NAMES
    loaded = Release.load(release.save(tmp_path / "r"))
    assert loaded.contract.columns == NAMES
    turned = replace(named, meta={"columns": list(reversed(NAMES))})
    with pytest.raises(InputError, match=r"^it: the release was fitted on the columns yaw, .*, the pack's are mouth, "):
        loaded.contract.check_framing(turned, "it")
    loaded.contract.check_framing(replace(named, meta={}), "it")  # of a pack in memory nothing need be known


def test_a_base_and_an_audit_take_packs_of_the_same_columns_only(tmp_path):
    named = replace(pack("vectors"), meta={"columns": list(NAMES)})
    base = fitting.fit("aia", named, private=["gender"], settings=BRIEF["aia"]).release
    turned = replace(named, meta={"columns": list(reversed(NAMES))}, split=np.arange(len(named)).astype(np.int8) % 4)
    with pytest.raises(InputError, match=r"^base: the release was fitted on the columns"):
        fitting.fit("leace", turned, private=["gender"], base=base)
    subject = Subject(name="A", release=base)
    with pytest.raises(InputError, match=r"^A: the release was fitted on the columns"):
        audit(turned, [subject], tmp_path / "audit", private=["gender"], utility=["identity"])


def test_settings_that_are_no_numbers_or_of_another_kind():
    method = METHODS["template"].algorithm
    for value, message in (
        ("inf", "noise: must be a finite number, got 'inf'"),
        (float("nan"), "noise: must be a finite number, got nan"),
        (None, "noise: must be a finite number, got None"),
        ([0.5], "noise: must be a finite number, got [0.5]"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            method.configured(None, {"noise": value})
    with pytest.raises(InputError, match=re.escape("steps: must be an integer, got 2.5")):
        method.configured(None, {"steps": 2.5})
    with pytest.raises(InputError, match=re.escape("align: must be true or false, got 1")):
        method.configured(None, {"align": 1})
    with pytest.raises(InputError, match=re.escape("classifiers: must be text, got 3")):
        METHODS["san"].algorithm.configured(None, {"classifiers": 3})
    steps = method.configured(None, {"steps": np.float64(5)}).steps
    assert (steps, type(steps)) == (5, int)


def test_joint_classes_that_would_not_fit():
    rng = np.random.default_rng(0)
    labels = {f"l{i:02d}": rng.integers(0, 2, 60) for i in range(11)}
    pack = Pack.from_arrays(rng.normal(size=(60, 8)), {"identity": np.arange(60) // 2, **labels})
    with pytest.raises(InputError, match="template: private labels make at most 1,024 joint classes"):
        train("template", template.Config(), pack, private=list(labels))


def test_a_precision_that_there_is_not():
    with pytest.raises(InputError, match="precision: must be one of"):
        fitting.fit("leace", vectors_pack(), private=["gender"], precision="fp16")


def _as_layout(seed: object, folder: Path) -> None:
    build.pack("stylised", "identities=9", folder / "pack", seed=seed)


def _as_exhibit(seed: object, folder: Path) -> None:
    exhibit = Exhibit.of("r", vectors_pack().x, "method")
    audited([exhibit], vectors_pack(), private=["gender"], utility=[], seed=seed)


SEEDED = {
    "Pack.from_arrays": lambda seed, _: Pack.from_arrays(np.eye(3), {}, seed=seed),
    "assign": lambda seed, _: splits.assign(np.arange(9), seed),
    "pack": _as_layout,
    "population": lambda seed, _: stylised.population(9, 1, seed),
    "Run": lambda seed, _: Run(seed=seed),
    "fit": lambda seed, _: fitting.fit("template", vectors_pack(), private=["gender"], seed=seed),
    "fit_measured": lambda seed, _: fit_measured("template", vectors_pack(), private=["gender"], seed=seed),
    "Protector": lambda seed, _: Protector("leace", seed=seed).fit(np.eye(9), private=[0, 1, 1] * 3),
    "exhibits": _as_exhibit,
    "audit": lambda seed, folder: audit(vectors_pack(), [], folder / "out", private=["gender"], utility=[], seed=seed),
    "demo": lambda seed, folder: demo(folder / "demo", seed=seed),
}


@pytest.mark.parametrize("what", SEEDED)
@pytest.mark.parametrize("seed", [-1, 2**31, 0.5, "7", None])
def test_a_seed_that_is_none_is_one_line_everywhere(what, seed, tmp_path):
    with pytest.raises(InputError, match=r"^seed: must be a whole number in 0 \.\. 2\*\*31 - 1, got") as caught:
        SEEDED[what](seed, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_seed_may_be_any_whole_number():
    assert (splits.assign(np.arange(50), np.int64(3)) == splits.assign(np.arange(50), 3)).all()
    assert Run(seed=np.uint8(3)).seed == 3


def test_a_label_that_inversion_keeps_is_not_private():
    pixels = Pack.from_arrays(
        np.random.default_rng(0).integers(0, 256, (60, 32, 32), np.uint8),
        {"gender": np.arange(60) % 2, "glasses": np.arange(60) // 2 % 2},
        split=["protect"] * 60,
    )
    with pytest.raises(InputError, match=r"label glasses: must not be both private and the use$"):
        fitting.fit("inversion", pixels, private=["glasses"], utility="gender", settings={"labels": "glasses"})


def test_a_fit_takes_no_word_that_it_does_not_know() -> None:
    """A budget that nobody reads must not look like one that is met."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'budget'"):
        veil.fit("leace", vectors_pack(), private=["gender"], budget={"gender": 0.6})
    with pytest.raises(InputError, match=r"^pack: must be a veil\.Pack, got str$"):
        veil.fit("leace", "pack", private=["gender"])
    with pytest.raises(InputError, match=r"^private: must be a list of names, got the text 'gender'$"):
        veil.fit("leace", vectors_pack(), private="gender")


@pytest.mark.parametrize("batch", [-1, 0, 1.5, True, "x"])
def test_rows_at_a_time_are_a_whole_number(batch: object) -> None:
    release = veil.fit("leace", vectors_pack(), private=["gender"]).release
    with pytest.raises(InputError, match=rf"^batch: must be a whole number of at least 1, got {batch!r}$"):
        release.transform(vectors_pack().x, batch=batch)


def test_labels_and_splits_of_arrays_are_checked() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    people = np.arange(40) // 4
    with pytest.raises(InputError, match=r"^disjoint_by: must be one of the labels \(identity\), got 'identiy'$"):
        Pack.from_arrays(x, {"identity": people}, disjoint_by="identiy")
    with pytest.raises(InputError, match=r"^label 'g': names and classes must be UTF-8, got '\\ud800'$"):
        Pack.from_arrays(x, {"g": ["\ud800", "b"] * 20})
    straddling = Pack.from_arrays(x, {"identity": people}, split=["protect", "attack", "calibrate", "test"] * 10)
    assert straddling.meta["warnings"] == [
        "10 of identity stand in several splits: attackers are tried on people that they learned from."
    ]
    asked_for = {"split": ["protect", "attack"] * 20, "disjoint_by": None}
    assert Pack.from_arrays(x, {"identity": people}, **asked_for).meta["warnings"] == []
