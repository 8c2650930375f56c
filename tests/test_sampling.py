"""Couples of rows: who is in them, how often, and from which stratum."""

from __future__ import annotations

import numpy as np
import pytest

from veil.data.sampling import Couples
from veil.errors import InputError

COUNTS = np.array([1, 1, 2, 2, 3, 7, 1, 2, 5, 30])  # images of each of ten people
IDENTITY = np.random.default_rng(0).permutation(np.repeat(np.arange(10), COUNTS)) * 11
ROWS = np.arange(len(IDENTITY)) + 1000
STRATUM = (IDENTITY // 11 >= 7).astype(np.int64)  # seven people against three


def who(rows: np.ndarray) -> np.ndarray:
    return IDENTITY[rows - 1000] // 11


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_genuine_couples_show_one_person_in_two_images():
    couples = Couples(ROWS, IDENTITY).genuine(500, rng())
    assert couples.shape == (500, 2)
    assert (who(couples[:, 0]) == who(couples[:, 1])).all()
    assert (couples[:, 0] != couples[:, 1]).all()
    # Seven people have two images or more: each is drawn 500 / 7 times, whatever the number of their images.
    assert sorted(np.bincount(who(couples[:, 0]), minlength=10)) == [0, 0, 0, 71, 71, 71, 71, 72, 72, 72]
    assert len({tuple(sorted(c)) for c in couples[who(couples[:, 0]) == 4].tolist()}) == 3


def test_no_stratum_and_nobody_is_left_out_of_small_batches():
    """Three couples of four strata: which goes without changes; a quarter of two is now none, now one."""
    strata = (IDENTITY // 11) % 4
    draws, source = Couples(ROWS, IDENTITY, strata), rng()
    batches = [who(draws.genuine(3, source, singles=0.25)[:, 0]) for _ in range(400)]
    assert all(len(set(people % 4)) == 3 for people in batches)
    assert set(np.concatenate(batches)) == set(range(10))
    assert set(np.concatenate([who(draws.impostor(3, source)[:, 0]) for _ in range(400)])) == set(range(10))


def test_impostor_couples_show_two_people():
    couples = Couples(ROWS, IDENTITY).impostor(2000, rng())
    a, b = who(couples[:, 0]), who(couples[:, 1])
    assert (a != b).all()
    assert (np.bincount(a) == 200).all()
    # The other person is uniform over the nine others: 200 each on average, binomial, within 5 standard deviations.
    assert np.abs(np.bincount(b) - 200).max() < 5 * np.sqrt(2000 * 0.1 * 0.9)
    assert {int(x) for x in couples.ravel()} == set(ROWS.tolist())


@pytest.mark.parametrize("kind", ["genuine", "impostor"])
def test_strata_are_drawn_equally(kind):
    couples = getattr(Couples(ROWS, IDENTITY, STRATUM), kind)(101, rng())
    first = STRATUM[couples[:, 0] - 1000]
    assert np.bincount(first).tolist() == [51, 50]
    plain = getattr(Couples(ROWS, IDENTITY), kind)(101, rng())
    assert abs(np.bincount(STRATUM[plain[:, 0] - 1000])[0] - 51) > 3


def test_singles_are_coupled_with_themselves():
    couples = Couples(ROWS, IDENTITY).genuine(400, rng(), singles=0.5)
    assert (who(couples[:, 0]) == who(couples[:, 1])).all()
    alone = COUNTS[who(couples[:, 0])] == 1
    assert ((couples[:, 0] == couples[:, 1]) == alone).all()
    assert alone.sum() == 200 * 3 // 10  # half of the couples are of everybody, three in ten of whom have one image


def test_stratum_without_couples_gives_singles():
    identity = np.array([0, 0, 1, 1, 2, 3])
    couples = Couples(np.arange(6), identity, np.array([0, 0, 0, 0, 1, 1])).genuine(8, rng())
    assert sorted(couples[couples[:, 0] == couples[:, 1]][:, 0].tolist()) == [4, 4, 5, 5]


def test_people_repeat_only_after_all_were_drawn():
    couples = Couples(np.arange(40), np.repeat(np.arange(20), 2)).genuine(20, rng())
    assert sorted((couples[:, 0] // 2).tolist()) == list(range(20))


def test_draws_follow_the_generator():
    couples = Couples(ROWS, IDENTITY, STRATUM)
    for kind in (couples.genuine, couples.impostor):
        assert (kind(50, rng(1)) == kind(50, rng(1))).all()
        assert (kind(50, rng(1)) != kind(50, rng(2))).any()


def test_people_of_one_image_each_are_coupled_with_themselves_where_that_will_do():
    couples = Couples(np.arange(6), np.arange(6), alone=True).genuine(6, rng(), singles=0.25)
    assert (couples[:, 0] == couples[:, 1]).all()
    assert sorted(couples[:, 0].tolist()) == list(range(6))


@pytest.mark.parametrize(
    ("identity", "problem"),
    [([], "at least 2 people, got 0"), ([4, 4, 4], "at least 2 people, got 1"), ([0, 1, 2], "2 images, got none")],
)
def test_too_little_is_refused(identity, problem):
    with pytest.raises(InputError, match=problem):
        Couples(np.arange(len(identity)), np.array(identity, np.int64))
