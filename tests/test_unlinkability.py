"""Unlinkability and renewal: known answers of D_sys, and what a matrix of the key does for who has pairs or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from conftest import vectors_pack
from methods_matrix import brief, train
from veil.auditing.exhibit import Exhibit
from veil.auditing.rosters import roster
from veil.auditing.setting import Setting
from veil.auditing.unlinkability import LEARNED, MAP, RENEWAL, UNLINKABILITY, Comparisons, d_sys, tasks
from veil.data.pack import Pack
from veil.findings import Finding
from veil.release.draws import orthogonal
from veil.workflows.subjects import KEYLESS, Subject


def normal_scores(shift: float, people: int, seed: int = 0, each: int = 60) -> Comparisons:
    """Mated scores N(shift, 1), one a person, and non-mated ones N(0, 1)."""
    rng = np.random.default_rng(seed)
    return Comparisons(
        mated=rng.normal(size=people) + shift, mated_people=np.arange(people), other=rng.normal(size=people * each),
        other_people=rng.integers(people, size=(people * each, 2)),
    )  # fmt: skip


def truth(shift: float) -> float:
    """D_sys of N(shift, 1) and N(0, 1): the integral of p(s | m) (LR - 1) / (LR + 1) where LR > 1."""
    s = np.linspace(-12, 12 + shift, 100_001)
    m, n = norm.pdf(s - shift), norm.pdf(s)
    return float(np.trapezoid(m * np.maximum(m - n, 0) / np.maximum(m + n, 1e-300), s))


def test_scores_of_one_distribution_tell_nothing_and_disjoint_ones_all():
    value, low, high = d_sys(normal_scores(0, 2000), seed=0)
    assert low == 0
    assert value < 0.02
    assert high < 0.06
    for shift in (-50.0, 50.0):  # lower scores of mated ones tell as much
        value, low, high = d_sys(normal_scores(shift, 2000), seed=0)
        assert (value, high) == (1, 1)
        assert 0.99 < low < 1
    alike = replace(normal_scores(0, 300), mated=np.zeros(300), other=np.zeros(18_000))
    assert d_sys(alike, seed=0)[:2] == (0, 0)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_normal_scores_have_the_closed_form(shift: float):
    results = [d_sys(normal_scores(shift, 300, seed), seed=seed) for seed in range(12)]
    # Of twelve means the deviation is a twelfth's root of one's, which the interval's half width bounds.
    width = (results[0].high - results[0].low) / 2
    assert np.mean([r.value for r in results]) == pytest.approx(truth(shift), abs=width / 12**0.5)
    assert sum(r.low <= truth(shift) <= r.high for r in results) >= 10


def test_people_with_many_images_make_intervals_wider():
    each = normal_scores(1.0, 400)
    several = replace(each, mated_people=np.arange(400) // 10, other_people=each.other_people // 10)
    assert np.subtract(*d_sys(several, seed=0)[:0:-1]) > 1.5 * np.subtract(*d_sys(each, seed=0)[:0:-1])


# -- the family -------------------------------------------------------------------------------------------------------

PEOPLE, WIDTH = 300, 24


def population() -> Pack:
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(PEOPLE), 4)
    x = rng.normal(size=(PEOPLE, WIDTH))[who] + 0.2 * rng.normal(size=(len(who), WIDTH))
    return Pack.from_arrays(x.astype(np.float32), {"identity": who, "gender": who % 2})


def measured(pack: Pack, exhibit: Exhibit) -> dict[str, Finding]:
    setting = Setting(pack=pack, private=("gender",), utility=("identity",), roster=roster("quick"), effort="quick")
    (task,) = tasks(setting, [exhibit])
    return {f.code: f for f in task.prepare()().findings}


def turned(x: NDArray[np.float32], name: bytes) -> NDArray[np.float32]:
    return x @ orthogonal(name * 32, x.shape[1]).numpy()


def test_a_matrix_parts_two_keys_but_not_for_who_has_pairs():
    pack = population()
    first, second = turned(pack.x, b"a"), turned(pack.x, b"b")
    figures = measured(pack, Exhibit.of("r", first, "method", rekeyed=lambda rows: second[rows]))
    assert figures[UNLINKABILITY].low == 0
    assert figures[UNLINKABILITY].high < 0.2
    assert figures[LEARNED].low > 0.95
    assert figures[LEARNED].attacker == MAP
    accepted = figures[RENEWAL]
    assert accepted.low <= accepted.chance <= accepted.high
    assert accepted.high < 0.05


def test_releases_that_stay_as_they_are_are_linked():
    pack = population()
    figures = measured(pack, Exhibit.of("r", pack.x, "method", rekeyed=lambda rows: pack.x[rows]))
    assert figures[UNLINKABILITY].low > 0.95
    assert figures[RENEWAL].value == 1


def test_noise_of_unrelated_keys_links_nothing():
    pack = population()
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, len(pack), WIDTH)).astype(np.float32)
    figures = measured(pack, Exhibit.of("r", first, "method", rekeyed=lambda rows: second[rows]))
    assert figures[UNLINKABILITY].low == figures[LEARNED].low == 0


def test_who_is_too_few_or_has_no_key_has_no_figure():
    pack = population()
    few = replace(pack, split=np.where(pack.label("identity") < 2, 3, pack.split % 3).astype(np.int8))
    figures = measured(few, Exhibit.of("r", pack.x, "method", rekeyed=lambda rows: pack.x[rows]))
    assert figures[UNLINKABILITY].note == "needs images of three people in split test, there are 8 of 2"
    figures = measured(pack, Exhibit.of("r", pack.x, "method", rekeyed=KEYLESS))
    assert figures[UNLINKABILITY].note == KEYLESS


@pytest.mark.parametrize("renew", [True, False])
def test_subjects_release_under_another_key(renew: bool):
    """A renewed release keeps its noise: what parts the two keys is the matrix alone. Others get other noise."""
    pack = vectors_pack()
    release = train("template", brief("template", noise=0.6, renew=renew), pack)
    setting = Setting(pack=pack, private=("gender",), utility=("identity",), roster=roster("quick"), effort="quick")
    exhibit = Subject.of(release).exhibit(setting, None, Path("unused"))
    assert callable(exhibit.rekeyed)
    rows = np.arange(40)
    first, second = release.transform(pack.x[rows]), exhibit.rekeyed(rows)
    np.testing.assert_array_equal(second, exhibit.rekeyed(rows))
    same_geometry = np.abs(first @ first.T - second @ second.T).max() < 1e-4
    assert same_geometry == renew
    assert np.abs(first - second).max() > 0.05
    plain = train("template", brief("template", noise=0.0), pack)
    assert Subject.of(plain).exhibit(setting, None, Path("unused")).rekeyed == KEYLESS
