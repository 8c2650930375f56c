"""The audit as a whole: it fails what is unprotected, passes what says nothing, and names what is wrong in one line."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import audited, only, vectors_pack
from veil.auditing import (
    attackers,
    attributes,
    certificate,
    execute,
    inversion,
    linkage,
    matching,
    networks,
    run,
    transfer,
)
from veil.auditing import problem as problem_module
from veil.auditing.exhibit import Exhibit
from veil.auditing.problem import DidNotConverge, Problem
from veil.auditing.rosters import roster
from veil.auditing.setting import Inversion, Setting
from veil.auditing.task import Failure, Outcome, Task
from veil.data import stylised
from veil.data.pack import SPLITS, Pack
from veil.errors import InputError
from veil.findings import Finding
from veil.workflows.summary import summary

PEOPLE, IMAGES = 200, 4


@cache
def _population() -> tuple[Pack, NDArray[np.float32], NDArray[np.float32]]:
    """A pack of vectors, the part of them that is the person's own, and noise. d' = 4 for gender (0-2) and age (3)."""
    rng = np.random.default_rng(0)
    gender, age = rng.permutation(PEOPLE) % 2, rng.permutation(PEOPLE) % 2
    who = np.repeat(np.arange(PEOPLE), IMAGES)
    smile = rng.integers(2, size=len(who))
    own = rng.normal(size=(PEOPLE, 8))[who]
    told = np.stack([gender, gender, gender, age], 1)[who] * 2.0 - 1
    told[:, :3] *= 2 / np.sqrt(3)  # 3 columns at distance 2 * 2 / sqrt(3) each, deviation 1: d' = 4
    told[:, 3] *= 2
    noise = rng.normal(size=(len(who), 12))
    x = np.concatenate([told + noise[:, :4], own + 0.2 * noise[:, 4:]], 1).astype(np.float32)
    labels = {
        "identity": [f"p{i:03d}" for i in who],
        "gender": np.array(["female", "male"])[gender[who]],
        "age": np.array(["old", "young"])[age[who]],
        "years": np.array(["many", "few"])[age[who]],  # the same, for a use: no label is private and a use
        "smile": np.array(["no", "yes"])[smile],
    }
    return Pack.from_arrays(x, labels), x[:, 4:].copy(), rng.normal(size=(len(who), 6)).astype(np.float32)


@cache
def _everything() -> tuple[tuple[Finding, ...], tuple[tuple[int, int, str], ...]]:
    """One quick audit of the input, of what is the person's own alone, and of pure noise; and its progress."""
    pack, own, noise = _population()
    told: list[tuple[int, int, str]] = []
    whole = networks.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "train", lambda *args, **kwargs: whole(*args, **{**kwargs, "steps": 50}))
        found = audited(
            [
                Exhibit.of("Input", pack.x, "input"),
                Exhibit.of("own", own, "method"),
                Exhibit.of("noise", noise, "baseline"),
            ],
            pack,
            private=["gender", "age"],
            utility=["identity", "years"],
            progress=lambda *message: told.append(message),
        )
    return tuple(found), tuple(told)


def _pick(found: Sequence[Finding], **wanted: object) -> list[Finding]:
    return [f for f in found if all(getattr(f, name) == value for name, value in wanted.items())]


def _one(found: Sequence[Finding], **wanted: object) -> Finding:
    hits = _pick(found, **wanted)
    assert len(hits) == 1, hits
    return hits[0]


def _worst(
    release: str, target: str = "gender", code: str = "attribute.balanced_accuracy", role: str = "attack"
) -> Finding:
    return _one(_everything()[0], release=release, target=target, code=code, role=role, worst=True)


# -- known answers ----------------------------------------------------------------------------------------------------


def test_the_unprotected_input_fails() -> None:
    found = _worst("Input")
    assert found.low is not None
    assert found.low > found.chance == 0.5
    # Bayes: Phi(2) = .977. 200 test rows scatter by a point; four of them, and one for learning.
    assert found.value == pytest.approx(0.977, abs=0.05)
    assert _worst("Input", code="attribute.auc").value > 0.95


@pytest.mark.parametrize("release", ["own", "noise"])
def test_releases_that_say_nothing_of_gender_are_at_chance(release: str) -> None:
    found = _worst(release)
    assert found.low is not None
    assert found.high is not None
    # The interval of 50 people's images covers chance in 95 % of all data sets; a little slack covers the rest.
    assert found.low - 0.05 < 0.5 < found.high + 0.05
    gain = _one(_everything()[0], release=release, target="gender", code="attribute.normalised_gain")
    assert gain.value == pytest.approx(0, abs=0.25)


def test_the_gain_is_relative_to_the_input() -> None:
    attack, reference = _worst("own"), _worst("Input")
    gain = _one(_everything()[0], release="own", target="gender", code="attribute.normalised_gain")
    assert gain.value == pytest.approx((attack.value - 0.5) / (reference.value - 0.5))
    assert not _pick(_everything()[0], release="Input", code="attribute.normalised_gain")


@pytest.mark.parametrize("release", ["Input", "own", "noise"])
@pytest.mark.parametrize("target", ["gender", "age"])
def test_shuffled_labels_pass(release: str, target: str) -> None:
    found = _one(_everything()[0], release=release, target=target, attacker="shuffled labels (RBF SVM)")
    assert found.role == "control"
    assert found.level == attributes.CONTROL_LEVEL
    assert found.low < 0.5 < found.high


@pytest.mark.parametrize("leak", [False, True])
def test_the_shuffled_control_tells_people_in_two_splits(leak: bool) -> None:
    """Whoever knows the people reads dealt labels, too; those of `calibrate`, who are others, say nothing of it."""
    passed = []
    for seed in range(4):
        r = np.random.default_rng(seed)
        who = np.repeat(np.arange(100), 6)
        x = (r.normal(size=(100, 8))[who] + 0.3 * r.normal(size=(600, 8))).astype(np.float32)
        split = np.repeat(["protect", "attack", "test", "calibrate"], [60, 240, 150, 150]).astype(object)
        split[(split == "test") & leak] = "protect"
        split[(np.arange(600) % 2 == 0) & (split == "attack") & leak] = "test"
        labels = {"identity": who, "gender": r.permutation(np.arange(100) % 2)[who]}
        pack = Pack.from_arrays(x, labels, split=list(split), disjoint_by=None)
        subject = Exhibit.of("Input", pack.x, "input")
        findings = audited(
            [subject], pack, private=["gender"], utility=[], seed=seed, changes=only("logistic regression")
        )
        control = _one(findings, attacker="shuffled labels (RBF SVM)")
        assert (control.code, control.chance) == ("attribute.auc", 0.5)
        assert control.low is not None
        assert control.high is not None
        passed.append(control.low <= 0.5 <= control.high)
    assert passed == [not leak] * 4


@pytest.mark.parametrize("kind", ["vectors", "images"])
def test_the_order_of_findings_is_not_that_of_the_tasks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (64, 24, 24) if kind == "images" else (64, 6)
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    x = x if kind == "images" else x.astype(np.float32)
    labels = {"identity": np.arange(64) // 4, "gender": np.arange(64) % 2, "smile": np.arange(64) // 2 % 2}
    pack = Pack.from_arrays(x, labels, split=list(np.repeat(["protect", "attack", "calibrate", "test"], 16)))
    exhibits = [Exhibit.of("Input", pack.x, "input"), Exhibit.of("drawn", 255 - x, "method")]
    monkeypatch.setattr(transfer, "siamese", lambda problem: lambda x: x.reshape(len(x), -1).astype(np.float32))
    changes = only("logistic regression", "RBF SVM")
    changes["classifiers"] = changes["attackers"]

    def findings() -> list[Finding]:
        return audited(exhibits, pack, private=["gender", "smile"], utility=["identity"], changes=changes)

    forwards = findings()
    monkeypatch.setattr(run, "executed", lambda tasks, jobs: reversed([*execute.executed(tasks, jobs)]))
    assert findings() == forwards
    if kind == "images":
        read = [f.target for f in forwards if f.release == "drawn" and "transfer" in f.code]
        assert list(dict.fromkeys(read)) == ["gender", "smile", "identity"]


def test_the_majority_control_is_chance_and_says_its_accuracy() -> None:
    pack = _population()[0]
    found = _one(_everything()[0], release="own", target="gender", attacker="majority")
    share = np.bincount(pack.label("gender")[pack.rows("test")]).max() / len(pack.rows("test"))
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    assert f"{share:.3f}" in found.note


def test_vectors_of_identity_match_and_noise_does_not() -> None:
    kwargs = {"target": "identity", "code": "verification.auc", "role": "utility"}
    assert _worst("own", **kwargs).value > 0.97
    noise = _worst("noise", **kwargs)
    assert noise.low - 0.03 < 0.5 < noise.high + 0.03
    same = _worst("own", target="identity|same gender", code="verification.auc", role="utility")
    everybody = _worst("own", **kwargs)
    assert same.n < everybody.n
    assert same.value > 0.97


def test_a_label_to_keep_is_measured() -> None:
    kwargs = {"target": "years", "role": "utility"}
    assert _worst("Input", code="utility.balanced_accuracy", **kwargs).value > 0.9  # Bayes: Phi(2) = .977
    assert _worst("Input", code="utility.mcc", **kwargs).value > 0.8
    assert _worst("Input", code="utility.auc", **kwargs).value > 0.95
    noise = _worst("noise", code="utility.mcc", **kwargs)
    assert noise.low - 0.1 < 0 < noise.high + 0.1


def test_exactly_one_attacker_is_marked() -> None:
    found, _ = _everything()
    marked = Counter((f.release, f.target, f.code, f.role) for f in found if f.worst and f.role != "control")
    assert set(marked.values()) == {1}
    for release in ("Input", "own", "noise"):
        for target in ("gender", "age"):
            assert marked[release, target, "attribute.balanced_accuracy", "attack"] == 1
        for target in ("identity", "identity|same gender", "identity|same age"):
            assert marked[release, target, "verification.auc", "utility"] == 1
    assert not [f for f in found if f.worst and f.role == "control"]


def test_progress_counts_every_job() -> None:
    _, told = _everything()
    # 3 releases: 6 attackers on 2 private labels and 1 label to keep, 2 controls, 4 attacks on pools, 1 matching; and
    # linkage of 2 of them to the input, and their restoration for each private label.
    assert [done for done, _, _ in told] == list(range(1, 3 * (6 * 3 + 2 + 4 + 1) + 2 + 2 * 2 + 1))
    assert {total for _, total, _ in told} == {len(told)}


def test_the_order_of_subjects_and_the_number_of_processes_change_nothing() -> None:
    pack, own, _ = _population()
    subjects = [Exhibit.of("Input", pack.x, "input"), Exhibit.of("own", own, "method")]
    kwargs: dict[str, Any] = {"private": ["gender"], "utility": ["identity"]}
    kwargs["changes"] = {"attackers": only("logistic regression", "boosted trees")["attackers"]}
    one = audited(subjects, pack, jobs=1, **kwargs)
    two = audited(subjects[::-1], pack, jobs=2, **kwargs)
    assert sorted(one, key=repr) == sorted(two, key=repr)
    assert [one[0].release, two[0].release] == ["Input", "own"]


@pytest.mark.parametrize("release", ["nothing", "everything"])
def test_no_finding_has_an_interval_without_width(release: str) -> None:
    pack, _, _ = _population()
    told = np.stack([pack.label(name) for name in ("gender", "identity")], 1).astype(np.float32)
    x = told if release == "everything" else np.zeros_like(told)
    subjects = [Exhibit.of("Input", pack.x, "input"), Exhibit.of(release, x, "method")]
    found = audited(
        subjects,
        pack,
        private=["gender"],
        utility=["identity", "smile"],
        changes={"attackers": only("RBF SVM", "logistic regression")["attackers"]},
    )
    estimated = [f for f in _pick(found, release=release, status="ok") if f.attacker != "majority"]
    assert {f.code.split(".")[0] for f in estimated} >= {"attribute", "verification", "utility", "linkability"}
    for f in estimated:
        assert f.low is not None
        assert f.high is not None
        assert f.high - f.low > 0.005, f


def test_the_seed_changes_networks_and_pairs() -> None:
    pack, own, _ = _population()
    a, b, c = (
        audited(
            [Exhibit.of("own", own, "method")],
            pack,
            private=["gender"],
            utility=[],
            seed=s,
            changes=only("RBF SVM"),
        )
        for s in (0, 0, 1)
    )
    assert a == b
    assert a != c


# -- faces ------------------------------------------------------------------------------------------------------------


def test_gender_is_found_in_stylised_faces() -> None:
    people = stylised.population(500, 2, seed=3)
    names = [people.names(row) for row in range(len(people))]
    labels = {label: [n[label] for n in names] for label in ("identity", "gender")}
    pack = Pack.from_arrays(stylised.render(people, size=24, threads=1), labels)
    subject = Exhibit.of("Input", pack.x, "input")
    attack_on = ("protect", "attack")
    found = audited(
        [subject],
        pack,
        private=["gender"],
        utility=[],
        attack_on=attack_on,
        changes=only("logistic regression", "RBF SVM"),
    )
    assert _one(found, code="attribute.balanced_accuracy", role="attack", worst=True).low > 0.5
    control = _one(found, attacker="shuffled labels (RBF SVM)")
    assert control.low < 0.5 < control.high


# -- picking ----------------------------------------------------------------------------------------------------------


def _knowing(pack: Pack, rows: NDArray[np.int64], right: float) -> Callable[[Problem], Callable[..., Any]]:
    """An attacker that reads the row's number from its release: right on a share ``right`` of ``rows``, else coins."""
    rng = np.random.default_rng(0)
    known = rng.random(len(pack)) < np.where(np.isin(np.arange(len(pack)), rows), right, 0.5)
    said = np.where(known, pack.label("gender"), 1 - pack.label("gender"))
    return lambda problem: lambda x: np.eye(2, dtype=np.float32)[said[x[:, 0].astype(int)]]


def _numbered(pack: Pack) -> Exhibit:
    return Exhibit.of("own", np.arange(len(pack), dtype=np.float32)[:, None], "method")


def test_the_worst_attacker_is_picked_on_validation_not_on_test() -> None:
    pack = _population()[0]
    lucky = _knowing(pack, pack.rows("test"), 0.9)
    picked = _knowing(pack, pack.rows("calibrate"), 0.9)
    found = audited(
        [_numbered(pack)],
        pack,
        private=["gender"],
        utility=[],
        changes={"attackers": {"lucky": lucky, "picked": picked}, "of_means": {}},
    )
    figures = {f.attacker: f for f in _pick(found, code="attribute.balanced_accuracy", role="attack")}
    assert figures["lucky"].value > 0.8 > 0.65 > figures["picked"].value
    assert figures["picked"].worst
    assert not figures["lucky"].worst


def test_a_weak_attack_is_not_passed_over_for_a_lucky_threshold() -> None:
    pack = _population()[0]
    y, rng = pack.label("gender"), np.random.default_rng(0)
    weak = 0.5 * y + rng.normal(size=len(pack))
    rows = pack.rows("calibrate")
    lucky = rng.normal(size=len(pack))
    # A third of one class lie above all others, the rest of it below: no attack, but there is a threshold for it.
    lucky[rows] = np.where(y[rows] == 1, -5.0, 0.0)
    lucky[rows[y[rows] == 1][::3]] = 5.0

    def scoring(values: NDArray[np.float64]) -> Callable[[Problem], Callable[..., Any]]:
        scores = np.stack([-values, values], 1).astype(np.float32)
        return lambda problem: lambda x: scores[x[:, 0].astype(int)]

    both = {"lucky": scoring(lucky), "weak": scoring(weak)}
    found = audited(
        [_numbered(pack)], pack, private=["gender"], utility=[], changes={"attackers": both, "of_means": {}}
    )
    assert _one(found, code="attribute.balanced_accuracy", role="attack", worst=True).attacker == "weak"


def _failing(problem: Problem) -> Callable[..., Any]:
    raise DidNotConverge("its training loss became nan")


def _nan(problem: Problem) -> Callable[..., Any]:
    return lambda x: np.full((len(x), 2), np.nan, np.float32)


def _raising(error: BaseException) -> Callable[[Problem], Callable[..., Any]]:
    def attack(problem: Problem) -> Callable[..., Any]:
        raise error

    return attack


def _late(problem: Problem) -> Callable[..., Any]:
    """Trains well, and then cannot read the test rows."""

    def score(x: NDArray[Any]) -> NDArray[Any]:
        if len(x) != len(problem.x_validation):
            raise IndexError
        return np.zeros((len(x), 2), np.float32)

    return score


@pytest.mark.parametrize(
    ("attacker", "why"),
    [
        (_failing, "its training loss became nan"),
        (_nan, "its scores are not finite"),
        (_raising(np.linalg.LinAlgError("Singular matrix")), "LinAlgError: Singular matrix"),
        (_raising(MemoryError()), "MemoryError"),
        (_raising(ValueError("one\ntwo")), "ValueError: one"),
        (_late, "IndexError"),
    ],
)
def test_an_attacker_that_fails_has_no_figure_and_is_never_the_worst(attacker: Callable[..., Any], why: str) -> None:
    pack = _population()[0]
    coin = _knowing(pack, pack.rows("test"), 0.5)
    changes = {"attackers": {"failing": attacker, "coin": coin}, "of_means": {}}
    found = audited([_numbered(pack)], pack, private=["gender"], utility=["age"], changes=changes)
    for role, code in (("attack", "attribute.balanced_accuracy"), ("utility", "utility.balanced_accuracy")):
        failed = _one(found, attacker="failing", code=code, role=role)
        assert (failed.status, failed.value, failed.worst) == ("did_not_converge", None, False)
        assert failed.note == why
        assert _one(found, attacker="coin", code=code, role=role).worst
    changes = {"attackers": {"failing": attacker}, "of_means": {}}
    found = audited([_numbered(pack)], pack, private=["gender"], utility=[], changes=changes)
    assert not [f for f in found if f.worst]


def test_what_does_not_fit_an_attacker_is_not_applicable() -> None:
    pack = _population()[0]
    coin = _knowing(pack, pack.rows("test"), 0.5)
    refusing = _raising(InputError("needs three classes, got 2"))
    found = audited(
        [_numbered(pack)],
        pack,
        private=["gender"],
        utility=[],
        changes={"attackers": {"refusing": refusing, "coin": coin}, "of_means": {}},
    )
    refused = _one(found, attacker="refusing", code="attribute.balanced_accuracy")
    assert (refused.status, refused.note) == ("not_applicable", "needs three classes, got 2")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_audit_can_still_be_stopped(error: type[BaseException]) -> None:
    pack = _population()[0]
    with pytest.raises(error):
        audited(
            [_numbered(pack)],
            pack,
            private=["gender"],
            utility=[],
            changes={"attackers": {"stopped": _raising(error())}, "of_means": {}},
        )


PARTS: dict[str, tuple[Any, str, str]] = {
    "match": (matching, "verification.auc", "identity"),
    "link": (linkage, "linkability.auc", "identity"),
    "invert": (inversion, "inversion.ssim", "image"),
    "classified": (transfer, "attribute.transfer_balanced_accuracy", "gender"),
    "likeness": (transfer, "utility.ssim", "image"),
}


@pytest.mark.parametrize("broken", PARTS)
def test_whatever_breaks_off_as_a_whole_has_a_finding_and_the_rest_stands(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One part of the audit at a time raises what nobody foresaw; its findings say so, the other parts' are there."""
    x = np.random.default_rng(0).integers(0, 256, (64, 16, 16), dtype=np.uint8)
    labels = {"identity": np.arange(64) // 4, "gender": np.arange(64) // 4 % 2}
    pack = Pack.from_arrays(x, labels, split=list(np.repeat(["protect", "attack", "calibrate", "test"], 16)))
    exhibits = [Exhibit.of("Input", pack.x, "input"), Exhibit.of("drawn", 255 - x, "method")]
    for name, (home, code, target) in PARTS.items():

        def part(*arguments: Any, name: str = name, code: str = code, target: str = target, **options: Any) -> Outcome:
            if name == broken:
                raise RuntimeError("a wall")
            finding = Finding(code=code, release="drawn", target=target, attacker="x", role="attack", value=0.5,
                              low=0.5, high=0.5, n=1, chance=0.5)  # fmt: skip
            return Outcome(findings=(finding,))

        monkeypatch.setattr(home, name, part)
    monkeypatch.setattr(inversion, "judges", lambda setting: None)
    monkeypatch.setattr(transfer, "matched", lambda *arguments: Outcome(findings=()))
    coin = _raising(DidNotConverge("never"))
    findings = audited(
        exhibits, pack, private=["gender"], utility=["identity"], inversion=Inversion(),
        changes={"attackers": {"coin": coin}, "of_means": {}, "control": ("coin", coin)},
    )  # fmt: skip
    for name, (_, code, target) in PARTS.items():
        said = [(f.status, f.note) for f in findings if (f.code, f.target, f.release) == (code, target, "drawn")]
        assert (("did_not_converge", "RuntimeError: a wall") in said) == (name == broken), name
        assert (("ok", "") in said) == (name != broken), name


def test_judges_that_fail_leave_the_other_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(setting: Setting) -> None:
        raise MemoryError

    monkeypatch.setattr(inversion, "judges", broken)
    pack, own, _ = _population()
    subjects = [Exhibit.of("own", own, "method")]
    found = audited(
        subjects, pack, private=["gender"], utility=[], inversion=Inversion(), changes=only("logistic regression")
    )
    failed = _one(found, code="inversion.similarity")
    assert (failed.status, failed.note) == ("did_not_converge", "nobody to judge by: MemoryError")
    assert _one(found, code="attribute.balanced_accuracy", role="attack").ok


# Functions of a worker process.
def _number(number: int) -> Outcome:
    return Outcome(findings=(), quality=number)


def _dies() -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(findings=())


def _task(call: Callable[[], Outcome]) -> Task:
    return Task(name="", key="", prepare=lambda: call, missing=lambda status, note: [], releases=())


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_worker_that_is_killed_takes_only_its_own_task_down() -> None:
    """As the system kills where memory runs out: every other result is there, once."""
    tasks = [_task(partial(_number, i)) for i in range(12)]
    tasks.insert(3, dying := _task(_dies))
    results = list(execute.executed(tasks, 2))
    assert len(results) == len(tasks)
    assert sorted(r.quality for _, r in results if isinstance(r, Outcome)) == list(range(12))
    ((task, dead),) = ((task, r) for task, r in results if isinstance(r, Failure))
    assert task is dying
    assert dead.status == "did_not_converge"
    assert "TerminatedWorkerError: its process was killed" in dead.note


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_task_that_cannot_be_prepared_fails_alone(jobs: int) -> None:
    def broken() -> Callable[[], Outcome]:
        raise MemoryError

    tasks = [_task(partial(_number, 0)), replace(_task(_dies), prepare=broken)]
    results = {result for _, result in execute.executed(tasks, jobs)}
    assert results == {Outcome(findings=(), quality=0), Failure(status="did_not_converge", note="MemoryError")}


def _said(values: NDArray[np.float64]) -> Callable[[Problem], Callable[..., Any]]:
    """An attacker whose scores of numbered releases are known."""
    both = np.stack([-values, values], 1).astype(np.float32)
    return lambda problem: lambda x: both[x[:, 0].astype(int)]


def test_a_decision_that_names_one_class_for_everybody_has_no_figure() -> None:
    """Scores that tell .7 apart, all above the threshold on test: 50 % would say what nobody measured."""
    pack = _population()[0]
    y, rng = pack.label("gender"), np.random.default_rng(0)
    shifted = 0.8 * y + rng.normal(size=len(pack)) + 100 * np.isin(np.arange(len(pack)), pack.rows("test"))
    weak = 0.1 * y + rng.normal(size=len(pack))
    changes = {"attackers": {"weak": _said(weak), "shifted": _said(shifted)}, "of_means": {}}
    reference = Exhibit.of("Input", np.arange(len(pack), dtype=np.float32)[:, None], "input")
    found = audited([reference, _numbered(pack)], pack, private=["gender"], utility=["age"], changes=changes)
    kwargs = {"release": "own", "attacker": "shifted", "target": "gender", "role": "attack"}
    decided = _one(found, code="attribute.balanced_accuracy", **kwargs)
    assert (decided.status, decided.value, decided.worst) == ("not_applicable", None, True)
    assert "names one class for everybody" in decided.note
    area = _one(found, code="attribute.auc", **kwargs)
    assert area.worst
    assert area.low < 0.71 < area.high  # Phi(.8 / sqrt 2)
    gain = _one(found, code="attribute.normalised_gain", release="own")
    assert gain.status == "not_applicable"
    assert "names one class for everybody" in gain.note
    for code in ("utility.balanced_accuracy", "utility.mcc"):
        assert _one(found, code=code, release="own", attacker="shifted").status == "not_applicable"
    assert _one(found, code="utility.auc", release="own", attacker="shifted").ok
    row = next(row for row in summary(found, "gender", "age") if row.name == "own")
    assert (row.attack, row.utility.code) == (area, "utility.auc")


def test_the_threshold_follows_validation_data_and_any_scale() -> None:
    # Scores of unit Gaussians at 5 and 7: the best threshold is 6. The curve of 2,000 rows finds it to within some
    # hundredths; the coefficients of the attacker (which would say 0) do not matter.
    rng = np.random.default_rng(0)
    y = np.r_[np.zeros(1500, np.int64), np.ones(500, np.int64)]
    margin = rng.normal(size=2000) + 5 + 2 * y
    for change in (lambda s: s, lambda s: 1e-6 * s, np.exp):
        decide = problem_module.decision(np.stack([np.zeros(2000), change(margin)], 1), y, 2)
        low, high = (decide(np.array([[0.0, change(6 + d)]]))[0] for d in (-0.15, 0.15))
        assert (low, high) == (0, 1)


def test_the_threshold_keeps_what_tells_apart_from_what_does_not() -> None:
    """Three in ten of one class are marked, the rest alike: .65 is had above the mark, a curve's middle gets .59."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(2, size=n)
        return y, rng.normal(size=n) + 6 * ((y == 1) & (rng.random(n) < 0.3))

    y, known = draw(400)
    decide = problem_module.decision(np.stack([np.zeros(400), known], 1), y, 2)
    new, margin = draw(20_000)
    right = decide(np.stack([np.zeros(20_000), margin], 1)) == new
    assert np.mean([right[new == z].mean() for z in (0, 1)]) > 0.63


def test_the_threshold_of_constant_or_reversed_scores_still_decides() -> None:
    y = np.arange(20) % 2
    assert problem_module.decision(np.zeros((20, 2)), y, 2)(np.zeros((3, 2))).shape == (3,)
    reversed_ = np.stack([y, 1 - y], 1).astype(np.float64)
    assert set(problem_module.decision(reversed_, y, 2)(reversed_)) <= {0, 1}


def test_shuffling_keeps_people_and_the_classes_of_every_split() -> None:
    pack = _population()[0]
    who = pack.label("identity")
    for name, personal in (("gender", True), ("smile", False)):
        y = pack.label(name)
        dealt = attributes.shuffled(y, who, pack.split, [0])
        for code in np.unique(pack.split):
            counts = [np.bincount(v[pack.split == code], minlength=2) for v in (y, dealt)]
            np.testing.assert_array_equal(*counts)
        changed = [len(np.unique(dealt[who == person])) > 1 for person in np.unique(who)]
        assert any(changed) != personal
        # Right by chance: 200 people (or 800 rows) agree with themselves half the time, +- four deviations.
        assert (dealt == y).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(PEOPLE))
    unknown = np.where(np.arange(len(who)) % 7 == 0, -1, pack.label("gender"))
    np.testing.assert_array_equal(attributes.shuffled(unknown, who, pack.split, [0]) < 0, unknown < 0)


def test_convolutions_attack_images_and_in_longer_audits_maps() -> None:
    pack = _population()[0]
    x = np.zeros((len(pack), 8), np.float32)
    vector, small, image = (
        Exhibit.of("a", x, "method"),
        Exhibit.of("a", x, "method", feature_map=(2, 2, 2)),
        Exhibit.of("a", np.zeros((len(pack), 4, 4), np.uint8), "input"),
    )
    wide = Exhibit.of("a", np.zeros((len(pack), 2048), np.float32), "method", feature_map=(32, 8, 8))

    def names(exhibit: Exhibit, effort: str) -> set[str]:
        setting = Setting(
            pack=pack, private=("gender",), utility=(), roster=roster(effort), effort=effort, together=False
        )
        tasks = [task for task in attributes.attacks(setting, [exhibit]) if task.contest]
        return {task.name.removeprefix("a: ").removesuffix(" on gender") for task in tasks}

    every, quick = set(attackers.ATTACKERS), set(roster("quick").attackers)
    maps = {"six convolutions", "residual CNN", "plain CNN"}
    assert names(vector, "standard") == every - maps
    assert names(small, "standard") == every
    assert names(wide, "strong") == names(image, "standard") == every - {"residual MLPs"}
    assert names(vector, "quick") == names(small, "quick") == quick - maps
    assert names(image, "quick") == quick


# -- verification -----------------------------------------------------------------------------------------------------


def _with_pairs(folds: int) -> Pack:
    """The population with a protocol of pairs of test rows, one genuine and one impostor pair per person, in folds."""
    pack = _population()[0]
    names = {n: np.array(pack.classes[n], dtype=object)[pack.labels[n]] for n in pack.labels}
    test, who = pack.rows("test"), pack.label("identity")
    people = np.unique(who[test])
    table = []
    for i, person in enumerate(people):
        mine, other = np.flatnonzero(who == person), np.flatnonzero(who == people[(i + folds) % len(people)])
        table += [[mine[0], mine[1], 1, i % folds], [mine[0], other[0], 0, i % folds]]
    split = np.array(SPLITS)[pack.split]
    return Pack.from_arrays(pack.x, names, split=split, pairs=np.array(table))


@pytest.mark.parametrize("folds", [10, 4])
def test_the_ten_folds_of_listed_pairs_are_reported(folds: int) -> None:
    pack = _with_pairs(folds)
    subject = Exhibit.of("own", _population()[1], "method")
    found = audited([subject], pack, private=[], utility=["identity"], changes=only())
    figure = _one(found, code="verification.lfw10_accuracy")
    assert figure.worst
    if folds == 10:
        assert figure.status == "ok"
        assert figure.value > 0.9
    else:
        assert figure.status == "not_applicable"
        assert "needs 10 folds" in figure.note


def test_a_matcher_that_fails_is_reported_and_others_stand() -> None:
    def refuses(problem: Problem) -> Callable[..., Any]:
        raise InputError("needs at least two people")

    singular = _raising(np.linalg.LinAlgError("Singular matrix"))
    changes = {"matchers": {"failing": _failing, "refusing": refuses, "nan": _nan, "singular": singular}}
    pack, own, _ = _population()
    found = audited([Exhibit.of("own", own, "method")], pack, private=[], utility=["identity"], changes=changes)
    status = {f.attacker: f.status for f in found if f.code == "verification.auc"}
    assert status == {
        "cosine": "ok",
        "centred cosine": "ok",
        "euclidean": "ok",
        "failing": "did_not_converge",
        "refusing": "not_applicable",
        "nan": "did_not_converge",
        "singular": "did_not_converge",
    }
    assert _one(found, attacker="singular").note == "LinAlgError: Singular matrix"


# -- vectors that lie around another point than 0 ---------------------------------------------------------------------

SPREADS = {
    "off-centre": lambda own, rng: own + 3,  # cosine .85 between strangers
    "of unequal spread": lambda own, rng: own * np.geomspace(0.1, 3, 16) + 3,
    "of low rank": lambda own, rng: own[:, :4] @ rng.normal(size=(4, 16)) + 3,
}


def _around(shape: str) -> Pack:
    """People whose vectors are N(0, 1) of their own and N(0, .9^2) of each image, moved and stretched."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(160), 4)
    x = rng.normal(size=(160, 16))[who] + 0.9 * rng.normal(size=(len(who), 16))
    x = SPREADS[shape](x, rng).astype(np.float32)
    return Pack.from_arrays(x, {"identity": who, "gender": who % 2})


@pytest.mark.parametrize("shape", SPREADS)
def test_vectors_are_compared_by_the_metric_that_serves_them(shape: str) -> None:
    """What lies around 3 is told apart better by what is left without its centre, or by distance, than by cosine."""
    pack = _around(shape)
    subjects = [Exhibit.of("Input", pack.x, "input"), Exhibit.of("r", pack.x + 1, "method")]
    found = audited(subjects, pack, private=[], utility=["identity"], changes=only())
    auc = {f.attacker: f for f in found if (f.code, f.release) == ("verification.auc", "r") and f.target == "identity"}
    assert set(auc) == {"cosine", "centred cosine", "euclidean"}
    (best,) = (f for f in auc.values() if f.worst)
    assert best.value > auc["cosine"].value - 0.01  # picked on 16 other people
    if shape == "off-centre":
        assert best.attacker != "cosine"
        assert best.value > auc["cosine"].value + 0.005
    assert _one(found, code="identification.rank1_releases", release="r").attacker == best.attacker
    assert _one(found, code="linkability.rank1", release="r").value == 1


def test_vectors_around_0_of_unequal_lengths_keep_the_plain_cosine() -> None:
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(160), 4)
    x = rng.normal(size=(160, 16))[who] + 0.6 * rng.normal(size=(len(who), 16)) + 3
    x *= np.exp(0.5 * rng.normal(size=(len(x), 1)))  # the length tells nothing
    pack = Pack.from_arrays(x, {"identity": who, "gender": who % 2})
    subject = Exhibit.of("r", pack.x, "method")
    found = audited([subject], pack, private=[], utility=["identity"], changes=only())
    assert _one(found, code="verification.auc", worst=True).attacker == "cosine"


# -- nothing is left out in silence -----------------------------------------------------------------------------------


def _unpooled(pack: Pack, x: NDArray[Any], private: str = "gender") -> Finding:
    subjects = [Exhibit.of("Input", pack.x, "input"), Exhibit.of("r", x, "method")]
    found = audited(subjects, pack, private=[private], utility=[], changes=only("logistic regression", classifiers={}))
    return _one(found, release="r", code="attribute.pooled_balanced_accuracy")


def test_pools_that_there_are_none_of_say_why() -> None:
    rng = np.random.default_rng(0)
    x, gender = rng.normal(size=(200, 4)).astype(np.float32), np.arange(200) % 2
    several = np.arange(200) // 4
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"identity": np.arange(200), "gender": gender}, "gender", "two releases each"),
        ({"identity": several, "smile": gender}, "smile", "people of two classes"),  # which changes within a person
        ({"gender": gender}, "gender", "the pack does not say who is seen"),
    ]
    for labels, private, why in cases:
        found = _unpooled(Pack.from_arrays(x, labels), x, private)
        assert (found.status, found.attacker, found.value) == ("not_applicable", "none", None)
        assert why in found.note
    split = list(np.tile(SPLITS, 50))
    people = Pack.from_arrays(
        x, {"identity": np.repeat(np.arange(4), 50)}, split=np.repeat(split[:50], 4), disjoint_by=None
    )
    assert "who that is" in _unpooled(people, x, "identity").note


def test_images_are_not_pooled_and_say_so() -> None:
    x = np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8)
    labels = {"identity": np.arange(64) // 4, "gender": np.arange(64) // 4 % 2}
    pack = Pack.from_arrays(x, labels, split=list(np.repeat(["protect", "attack", "calibrate", "test"], 16)))
    found = _unpooled(pack, 255 - x)
    assert (found.status, "are images" in found.note) == ("not_applicable", True)


def test_without_the_input_nothing_can_be_linked_and_that_is_said() -> None:
    pack, own, _ = _population()
    found = audited(
        [Exhibit.of("own", own, "method")], pack, private=["gender"], utility=[], changes=only("logistic regression")
    )
    link = _one(found, code="linkability.auc")
    assert (link.status, link.note) == ("not_applicable", "needs the unprotected input, which was not audited")


def test_a_matcher_of_originals_that_people_are_too_few_for_is_not_applicable() -> None:
    x = np.random.default_rng(0).integers(0, 256, (64, 16, 16), dtype=np.uint8)
    pack = Pack.from_arrays(x, {"identity": np.arange(64)})
    setting = Setting(pack=pack, private=(), utility=("identity",), roster=roster("quick"), effort="quick")
    found = transfer.matched(setting, pack.x, {"Input": pack.x}).findings
    assert {(f.code, f.status) for f in found} == {
        (f"verification.{kind}_auc", "not_applicable") for kind in ("transfer", "mixed")
    }
    assert all("needs at least two people to train on, and one with two rows" in f.note for f in found)


# -- rows as people ---------------------------------------------------------------------------------------------------


def test_without_identity_each_row_is_a_person() -> None:
    pack, own, _ = _population()
    labels = {"gender": pack.label("gender"), "age": pack.label("age")}
    split = np.array(SPLITS)[pack.split]
    rows = Pack.from_arrays(pack.x, labels, split=split)
    names = [f"{i:04d}" for i in range(len(pack))]  # in the order of the rows, which draws follow
    people = Pack.from_arrays(pack.x, {**labels, "identity": names}, split=split)
    subjects = [Exhibit.of("Input", pack.x, "input"), Exhibit.of("own", own, "method")]
    kwargs: dict[str, Any] = {"private": ["gender"], "utility": ["age"], "changes": only("logistic regression")}
    unknown, alone = ([f for f in audited(subjects, p, **kwargs) if "pooled" not in f.code] for p in (rows, people))
    assert unknown == alone
    assert _one(unknown, code="linkability.auc", release="own").ok


# -- refusals ---------------------------------------------------------------------------------------------------------


def _refused(subjects: Sequence[Exhibit], pack: Pack | None = None, **kwargs: Any) -> str:
    kwargs = {"private": ["gender"], "utility": ["identity"], **kwargs}
    with pytest.raises(InputError) as caught:
        audited(subjects, pack or _population()[0], **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_all_problems_are_listed_in_one_line() -> None:
    """First those of what is asked; then those of what is shown."""
    pack, own, noise = _population()
    broken = noise.copy()
    broken[3, 2] = np.nan
    exhibits = [
        Exhibit.of("a", own[:-1], "method"),
        Exhibit.of("b", broken, "baseline"),
        Exhibit.of("words", np.full((len(pack), 2), "x"), "method"),
        Exhibit.of("map", own, "method", feature_map=(2, 2, 3)),
    ]
    message = _refused(
        exhibits, private=["gender", "height"], utility=["mood"], effort="huge", attack_on=["test"], level=1.0
    )
    for part in (
        "label 'height': the pack has age, gender, identity, smile",
        "label 'mood'",
        "effort: must be one of quick, standard, strong, got 'huge'",
        "attackers: must train on 'attack' or 'protect', got ['test']",
        "level: must lie in [0.5, 1), got 1.0",
    ):
        assert part in message
    assert message.count("label 'height'") == 1
    message = _refused(exhibits)
    for part in (
        f"release 'a': needs one row for each of the pack's {len(pack)}, got {len(pack) - 1}",
        "release 'b': values must be finite",
        "release 'words': must be uint8 images",
        "release 'map': its feature map (2, 2, 3)",
    ):
        assert part in message
    assert "jobs: must be at least 1, got 0" in _refused(exhibits[3:], jobs=0)


def test_a_class_that_a_split_lacks_is_named() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    split = np.array(SPLITS)[np.arange(40) % 4]
    labels = {"gender": np.where((np.arange(40) % 8 > 3) & (split != "test"), "m", "f"), "identity": np.arange(40) // 2}
    pack = Pack.from_arrays(x, labels, split=split)
    message = _refused([Exhibit.of("a", x, "method")], pack, utility=[])
    assert "label gender: no row of class 'm' in split test" in message
    assert "attack" not in message


def test_nothing_to_audit_is_refused() -> None:
    own = _population()[1]
    assert "at least one is needed" in _refused([])
    assert "one private or utility label" in _refused([Exhibit.of("a", own, "method")], private=[], utility=[])
    both = [Exhibit.of(n, own, "input") for n in "ab"]
    assert "one may have the role 'input', got a, b" in _refused(both)
    message = _refused([Exhibit.of("a", own, "input") for _ in range(2)])
    assert "release 'a': names must differ, got 2" in message
    assert "one may have the role 'input', got a, a" in message


# -- the audit stands alone -------------------------------------------------------------------------------------------


def test_the_audit_imports_no_method() -> None:
    code = "import sys, veil.auditing.run; print([m for m in sys.modules if m.startswith('veil.')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "veil.auditing.run" in loaded
    for forbidden in ("veil.methods", "veil.release", "veil.workflows", "veil.cli"):
        assert forbidden not in loaded


def test_no_file_of_the_audit_names_a_method() -> None:
    for path in Path(run.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if n.startswith(("veil.methods", "veil.release", "veil.workflows"))], path


def test_chance_counts_the_people_that_are_tested() -> None:
    """Protector's people are others: their classes are in the pack, and not in balanced accuracy."""
    who = np.repeat(np.arange(30), 8)
    x = np.random.default_rng(0).normal(size=(240, 4)).astype(np.float32)
    split = np.where(who < 20, "protect", np.tile(["attack", "attack", "calibrate", "test"], 60))
    pack = Pack.from_arrays(x, {"identity": who, "other": who % 2}, split=list(split))
    found = audited([Exhibit.of("r", x, "method")], pack, private=["identity"], utility=[])
    figures = [f for f in found if f.code == "attribute.balanced_accuracy"]
    assert {f.role for f in figures} == {"attack", "control"}
    assert {f.chance for f in figures} == {0.1}


@pytest.mark.parametrize("split", ["attack", "calibrate", "test"])
def test_a_split_of_unknown_people_leaves_a_note(split: str) -> None:
    base = vectors_pack()
    where = np.array(SPLITS)[base.split]
    who = [None if where[i] == split else str(code) for i, code in enumerate(base.label("identity"))]
    pack = Pack.from_arrays(base.x, {"identity": who, "gender": base.label("gender")}, split=list(where))
    setting = Setting(pack=pack, private=("gender",), utility=(), roster=roster("quick"), effort="quick")
    linked = linkage.link(setting, "r", base.x, base.x).findings
    assert [(f.status, split in f.note) for f in linked] == [("not_applicable", True)]
    assert matching.match(setting, "r", base.x, None).findings


def test_values_whose_squares_overflow_are_refused() -> None:
    pack = vectors_pack()
    x = pack.x.copy()
    x[3, 3] = 1e25
    with pytest.raises(InputError, match=r"values must lie within .*1e\+15.* got 1e\+25"):
        audited([Exhibit.of("r", x, "method")], pack, private=["gender"], utility=[])


def test_bits_count_people_and_stay_within_what_codes_can_say() -> None:
    who = np.repeat(np.arange(106), [*[20] * 100, *[2] * 6])
    codes = np.random.default_rng(0).integers(8, size=106)[who]  # each person's images have one code
    split = np.where(who < 100, "test", np.array(["attack", "calibrate", "protect"])[who % 3])

    def bits(identity: NDArray[np.int64]) -> Finding:
        pack = Pack.from_arrays(codes[:, None].astype(np.float32), {"identity": identity}, split=list(split))
        setting = Setting(pack=pack, private=(), utility=("identity",), roster=roster("quick"), effort="quick")
        (finding,) = certificate.bits(setting, "r", codes).findings
        return finding

    by_person, by_row = bits(who), bits(np.arange(len(who)))
    assert by_person.high - by_person.low > 2 * (by_row.high - by_row.low)
    assert by_person.low < by_person.value <= by_person.high <= 3
