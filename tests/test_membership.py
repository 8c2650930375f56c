"""Membership: nothing where there is nothing to find, nearly all from a protector that learned by heart."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import vectors_pack
from methods_matrix import brief, train
from veil.auditing import leakage
from veil.auditing.exhibit import Exhibit
from veil.auditing.membership import AT_FPR, LEAST_PEOPLE, asked, tasks
from veil.auditing.rosters import roster
from veil.auditing.setting import Setting
from veil.data.pack import Pack
from veil.findings import Finding
from veil.findings.codes import MEMBERSHIP
from veil.workflows.subjects import Subject

PEOPLE, WIDTH = 2400, 12


@cache
def population(people: int = PEOPLE) -> Pack:
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(people), 2)
    x = rng.normal(size=(people, WIDTH))[who] + 0.3 * rng.normal(size=(len(who), WIDTH))
    return Pack.from_arrays(x.astype(np.float32), {"identity": who, "gender": who % 2})


def setting_of(pack: Pack, effort: str = "quick") -> Setting:
    return Setting(pack=pack, private=("gender",), utility=("identity",), roster=roster(effort), effort=effort)


def figures(pack: Pack, releases: NDArray[Any], **options: Any) -> dict[tuple[str, str], Finding]:
    """By code and role."""
    inside = np.zeros(len(pack), bool)
    inside[pack.rows("protect")] = True
    exhibits = [
        Exhibit.of("Input", np.asarray(pack.x), "input"),
        Exhibit.of("r", releases, "method", fitted_on=inside),
    ]
    (task,) = tasks(setting_of(pack, **options), exhibits)
    return {(f.code, f.role): f for f in task.prepare()().findings}


def linear_map(x: NDArray[Any], width: int = WIDTH) -> NDArray[np.float32]:
    """Of everybody alike."""
    return (x @ np.random.default_rng(1).normal(size=(x.shape[1], width))).astype(np.float32)


def test_who_treats_everybody_alike_tells_nothing() -> None:
    pack = population()
    covered, rates = 0, []
    for seed in range(6):
        noise = np.random.default_rng(seed).normal(size=pack.x.shape).astype(np.float32)
        results = figures(pack, linear_map(pack.x) + noise)
        auc = results[MEMBERSHIP, "attack"]
        assert auc.n == 432 + 600  # of the people in training two in five, of the others those of test
        covered += auc.low <= 0.5 <= auc.high
        rates.append(results[AT_FPR, "attack"].value)
    # 95 of 100 such intervals hold .5: of six three are missed once in 450 times.
    assert covered >= 4
    assert np.mean(rates) < 0.03


def test_stronger_attackers_take_part_at_effort_standard() -> None:
    """Members differ in how two values go together, which no single number shows."""
    pack = population()
    inside = np.zeros(len(pack), bool)
    inside[pack.rows("protect")] = True
    rng = np.random.default_rng(5)
    releases = rng.normal(size=pack.x.shape).astype(np.float32)
    releases[:, 1] = np.where(inside, 1, -1) * np.sign(releases[:, 0]) * np.abs(releases[:, 1])
    quick, standard = (figures(pack, releases, effort=effort)[MEMBERSHIP, "attack"] for effort in ("quick", "standard"))
    assert quick.value < 0.7
    assert standard.low > 0.8
    assert standard.attacker in ("RBF SVM", "boosted trees")


@pytest.mark.parametrize("width", [WIDTH, 5])
def test_who_learned_by_heart_tells_nearly_all(width: int) -> None:
    """A protector that is linear but for what it added to the people whom it saw."""
    pack = population()
    releases = linear_map(pack.x, width)
    inside = pack.rows("protect")
    own = np.random.default_rng(3).normal(size=(PEOPLE, width))
    releases[inside] += 2.0 * own[pack.label("identity")[inside]].astype(np.float32)
    results = figures(pack, releases)
    assert results[MEMBERSHIP, "attack"].low > 0.9
    assert results[MEMBERSHIP, "attack"].attacker == "distance from the linear map"
    assert results[AT_FPR, "attack"].value > 0.5
    control = results[MEMBERSHIP, "control"]
    assert control.low < 0.5 < control.high


def test_who_snaps_to_what_was_seen_tells_nearly_all() -> None:
    """Every input is released as the nearest one in training: those who were in it are released as they are."""
    pack = population()
    known = np.asarray(pack.x)[pack.rows("protect")]
    nearest = ((pack.x[:, None, :4] - known[None, :, :4]) ** 2).sum(2).argmin(1)
    results = figures(pack, known[nearest])
    assert results[MEMBERSHIP, "attack"].low > 0.9


def test_splits_that_differ_by_themselves_show_in_the_control() -> None:
    pack = population()
    x = np.array(pack.x)
    x[pack.rows("protect")] += 1.0
    moved = replace(pack, x=x)
    results = figures(moved, linear_map(moved.x))
    assert results[MEMBERSHIP, "control"].low > 0.9


def test_members_are_dealt_by_person_and_others_by_split() -> None:
    pack = population()
    inside = np.zeros(len(pack), bool)
    inside[pack.rows("protect")] = True
    people = asked(setting_of(pack), inside)
    for split, rows, member, who in zip(
        ("attack", "calibrate", "test"), people.rows, people.member, people.people, strict=True
    ):
        assert set(rows[member == 0]) == set(pack.rows(split))
        assert inside[rows[member == 1]].all()
        assert (who == pack.label("identity")[rows]).all()
    whose = [set(who) for who in people.people]
    assert not whose[0] & whose[1] | whose[1] & whose[2] | whose[0] & whose[2]


def test_too_few_people_have_no_figure() -> None:
    pack = population(30)
    results = figures(pack, linear_map(pack.x))
    why = results[MEMBERSHIP, "attack"]
    assert why.status == "not_applicable"
    assert why.note.startswith(f"needs {LEAST_PEOPLE} people who were in its training and as many who were not in each")


def test_who_was_in_training_is_known_by_data_or_by_hashes() -> None:
    pack = vectors_pack()
    release = train("template", brief("template"), pack)
    known = leakage.members(release.made, None, pack)
    assert isinstance(known, np.ndarray)
    assert (np.flatnonzero(known) == pack.rows("protect")).all()
    other = replace(pack, meta={**pack.meta, "seed": 99}, x=np.concatenate([pack.x[:600], -pack.x[600:]]))
    assert leakage.members(release.made, None, other) == leakage.UNKNOWN.format(why=leakage.NOTHING_SAYS)
    hashed = release.recorded(pack).fitted
    by_hash = leakage.members({**release.made, "data": "another"}, hashed, pack)
    assert isinstance(by_hash, np.ndarray)
    assert (by_hash == known).all()


def test_subjects_say_who_was_in_training() -> None:
    pack = vectors_pack()
    release = train("template", brief("template"), pack)
    setting = setting_of(pack)
    assert isinstance(Subject.of(release).exhibit(setting, None, Path("unused")).fitted_on, np.ndarray)
    assert Subject.of(release, named=False).exhibit(setting, None, Path("unused")).fitted_on is None
    vectors = Subject(name="v", vectors=np.asarray(pack.x))
    assert vectors.exhibit(setting, None, Path("unused")).fitted_on == leakage.OUTSIDE
