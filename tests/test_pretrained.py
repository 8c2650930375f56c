"""Attackers that see images through a pretrained embedder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conftest import attacked_by
from veil.auditing import pretrained
from veil.auditing.attackers import ATTACKERS
from veil.auditing.pretrained import Matcher, Reader, readers
from veil.auditing.problem import Problem
from veil.auditing.task import signature
from veil.data.pack import Pack
from veil.findings.codes import ATTACK, MATCHING
from veil.workflows.audit import audit
from veil.workflows.subjects import Subject


class Means:
    """An embedder: the means of both halves of an image, far from each other; counts what it was shown."""

    name, width, origin, classes = "means 1", 2, "of this test", ()

    def __init__(self, fingerprint: str = "means") -> None:
        self.fingerprint, self.shown = fingerprint, 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.shown += len(x)
        return x.reshape(len(x), 2, -1).mean(2).astype(np.float32)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "_TEMPLATES", {})


def images(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise of 32 x 32, of which both halves are a shade brighter or darker, in one class alike: no pixel tells."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.integers(10, 210, (n, 32, 32))
    shade = 10 * rng.choice([-1, 1], (n, 1, 1))
    x[:, :16] += shade
    x[:, 16:] += shade * (2 * y - 1)[:, None, None]
    return x.astype(np.uint8), y


def problem(n: int = 200, **changes: Any) -> Problem:
    (x, y), (checks, known) = images(n), images(60, 1)
    return replace(
        Problem(x=x, y=y, x_validation=checks, y_validation=known, classes=2, seed=0, effort="quick"), **changes
    )


def test_templates_tell_what_pixels_do_not():
    asked = problem()
    x, y = images(200, 2)
    of_templates = Reader(Means(), ATTACKERS["RBF SVM"])(asked)(x)
    of_pixels = ATTACKERS["RBF SVM"](asked)(x)
    assert (of_templates.argmax(1) == y).mean() > 0.9
    assert (of_pixels.argmax(1) == y).mean() < 0.8


def test_a_face_is_embedded_once_and_few_are_learned_from():
    network = Means()
    attack = Reader(network, ATTACKERS["RBF SVM"])
    asked = problem(700)
    score = attack(asked)
    assert network.shown == 500 + 60
    first = score(asked.x_validation)
    assert network.shown == 500 + 60
    again = Reader(network, ATTACKERS["RBF SVM"])(asked)(asked.x_validation)
    np.testing.assert_array_equal(first, again)
    assert network.shown == 500 + 60
    other = Means("another")
    Reader(other, ATTACKERS["RBF SVM"])(replace(asked, effort="standard"))
    assert other.shown == 700 + 60


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(pretrained, "_REMEMBERED", 10)
    network = Means()
    attack = Reader(network, ATTACKERS["RBF SVM"])
    attack(problem(40))
    assert [len(held) for held in pretrained._TEMPLATES.values()] == [10]


def test_outcomes_follow_the_network():
    attack = ATTACKERS["RBF SVM"]
    one, other = (signature(Reader(Means(name), attack)) for name in ("a", "b"))
    assert one != other != signature(attack)
    assert list(readers(Means(), {"RBF SVM": attack})) == ["RBF SVM on means 1"]


def test_a_matcher_compares_about_the_middle():
    asked = problem()
    embed = Matcher(network := Means())(asked)
    made = embed(asked.x[:50])
    np.testing.assert_allclose(made, network(asked.x[:50]) - network(asked.x).mean(0), atol=1e-3)
    assert signature(Matcher(Means("a"))) != signature(Matcher(Means("b")))


@pytest.fixture
def faces() -> Pack:
    x, y = images(240)
    who = (np.arange(240) // 6 * 2 + y).astype(str)
    return Pack.from_arrays(x, {"identity": who, "gender": np.array(["f", "m"])[y]}, seed=0)


def test_an_audit_asks_it_of_images_of_the_packs_form(faces, monkeypatch):
    attacked_by(monkeypatch, "logistic regression", classifiers={}, of_templates={"RBF SVM": ATTACKERS["RBF SVM"]})
    monkeypatch.setattr(pretrained, "bundled", lambda pack: Means())
    vectors = faces.x.reshape(len(faces), -1)[:, :4].astype(np.float32)
    asked = {"private": ["gender"], "utility": ["identity"]}
    made = audit(faces, [Subject(name="vectors", vectors=vectors)], jobs=1, **asked)
    by = {(f.release, f.attacker): f for f in made.findings if f.code == ATTACK and f.role == "attack"}
    assert by["Input", "RBF SVM on means 1"].worst
    assert by["Input", "RBF SVM on means 1"].value > by["Input", "logistic regression"].value
    assert ("vectors", "RBF SVM on means 1") not in by
    matchers = {f.release for f in made.findings if f.code == MATCHING and f.attacker == "means 1"}
    assert matchers == {"Input"}
    assert not any("face embedder" in note for note in made.document["data"]["notes"])


def test_an_audit_says_why_nobody_asked_it(faces, monkeypatch):
    attacked_by(monkeypatch, "logistic regression", classifiers={}, of_templates={"RBF SVM": ATTACKERS["RBF SVM"]})
    made = audit(faces, [], private=["gender"], utility=[], jobs=1)
    note = next(note for note in made.document["data"]["notes"] if "face embedder" in note)
    assert "aligned" in note or "extra 'faces'" in note
