"""Splits: groups stay together, sizes come out, draws repeat."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veil.data import splits
from veil.errors import InputError

GROUPS = st.lists(st.integers(0, 30), min_size=1, max_size=300).map(lambda codes: np.array(codes, np.int64))
SHARES = st.lists(st.integers(0, 10), min_size=4, max_size=4).filter(any).map(lambda w: tuple(x / sum(w) for x in w))


@given(groups=GROUPS, seed=st.integers(0, 2**31 - 1), fractions=SHARES)
@settings(deadline=None, max_examples=150)
def test_groups_do_not_straddle_and_sizes_are_bounded(groups, seed, fractions):
    split = splits.assign(groups, seed, fractions)
    assert split.dtype == np.int8
    for group in np.unique(groups):
        assert len(np.unique(split[groups == group])) == 1
    largest = np.bincount(groups).max()
    targets = np.array(fractions) * len(groups)
    sizes = np.bincount(split, minlength=4)
    # A split takes more than it lacks only by the last group it takes; targets are rounded to whole rows.
    assert np.all(sizes <= targets + 1 + largest)
    # All that one split lacks the others have too much.
    assert np.all(sizes >= targets - 1 - 3 * (largest + 1))
    assert not np.any(sizes[np.array(fractions) == 0])


@given(groups=GROUPS, seed=st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=100)
def test_no_split_stays_empty_where_there_are_enough_groups(groups, seed):
    found = len(np.unique(splits.assign(groups, seed)))
    assert found == min(4, len(np.unique(groups)))


@given(groups=GROUPS, seed=st.integers(0, 2**31 - 1), data=st.data())
@settings(deadline=None, max_examples=100)
def test_order_of_rows_does_not_matter(groups, seed, data):
    order = np.array(data.draw(st.permutations(range(len(groups)))))
    assert np.array_equal(splits.assign(groups, seed)[order], splits.assign(groups[order], seed))


def test_draws_repeat_and_seeds_differ():
    groups = np.repeat(np.arange(200), 3)
    assert np.array_equal(splits.assign(groups, 7), splits.assign(groups, 7))
    assert not np.array_equal(splits.assign(groups, 7), splits.assign(groups, 8))


@pytest.mark.parametrize("n", [20, 1000, 1013])
def test_single_rows_come_out_exactly(n):
    sizes = np.bincount(splits.assign(None, 3, n=n), minlength=4)
    assert sizes.sum() == n
    assert np.all(np.abs(sizes - np.array(splits.FRACTIONS) * n) < 1)


def test_large_groups_go_everywhere():
    # 40 people of 50 images among 4,000 of one: not all large groups may end up in the largest split.
    groups = np.concatenate([np.repeat(np.arange(40), 50), np.arange(40, 4040)])
    large = np.stack([np.bincount(splits.assign(groups, seed)[:2000:50], minlength=4) for seed in range(40)])
    share = large.sum(axis=0) / large.sum()
    # 1,600 draws: four standard errors of a share of .45 are .05.
    assert np.all(np.abs(share - splits.FRACTIONS) < 0.05)


def test_rows_of_unknown_group_are_groups_of_their_own():
    split = splits.assign(np.full(100, -1), 0)
    assert np.array_equal(np.bincount(split), [45, 20, 10, 25])
    mixed = splits.assign(np.array([0] * 50 + [-1] * 50), 0)
    assert len(np.unique(mixed[:50])) == 1
    assert len(np.unique(mixed[50:])) > 1


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.5, 0.5, -0.5), (0.1, 0.1, 0.1, 0.1), (np.nan, 0, 0, 1)])
def test_fractions_that_are_none_are_refused(fractions):
    with pytest.raises(InputError, match="add up to 1"):
        splits.assign(np.arange(10), 0, fractions)


def test_names():
    assert splits.parse(["test", "protect"]).tolist() == [3, 0]
    with pytest.raises(InputError, match=r"'train'.*protect, attack, calibrate, test"):
        splits.parse(["train"])
