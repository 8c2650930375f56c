from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from itertools import combinations
from math import sqrt

import numpy as np
import pytest

from veil.auditing import intervals, metrics, verification
from veil.auditing import pairs as pairing
from veil.auditing.pairs import Pairs
from veil.auditing.verification import Figure
from veil.errors import InputError


def faces(seed: int, persons: int, images: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of four dimensions around a centre per person, and who is seen."""
    r = np.random.default_rng(seed)
    identity = np.repeat(np.arange(persons), images)
    return r.normal(size=(persons, 4))[identity] + noise * r.normal(size=(len(identity), 4)), identity


def keys(pairs: Pairs) -> set[frozenset[int]]:
    return {frozenset(pair) for pair in zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)}


def by_code(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.code: figure for figure in figures}


# Pairs --------------------------------------------------------------------------------------------------------------


def test_few_rows_give_every_pair_once() -> None:
    identity = np.array([5, 2, 5, -1, 2, 9, 5, 2])
    rows = np.array([0, 1, 2, 3, 5, 6, 7])  # row 3 is unknown, row 4 is left out
    pairs = pairing.sample_pairs(rows, identity, seed=0)
    assert keys(pairs) == {frozenset(pair) for pair in combinations([0, 1, 2, 5, 6, 7], 2)}
    assert len(pairs) == 15
    np.testing.assert_array_equal(pairs.same, identity[pairs.a] == identity[pairs.b])
    np.testing.assert_array_equal(pairs.group_a, identity[pairs.a])
    np.testing.assert_array_equal(pairs.group_b, identity[pairs.b])


def test_a_much_photographed_person_does_not_dominate() -> None:
    identity = np.concatenate([np.zeros(530, dtype=np.int64), np.repeat(np.arange(1, 101), 3)])
    pairs = pairing.sample_pairs(np.arange(len(identity)), identity, seed=0, images_per_identity=20)
    assert int((pairs.same & (pairs.group_a == 0)).sum()) == 190
    assert int(pairs.same.sum()) == 190 + 100 * 3
    images = np.unique(np.concatenate([pairs.a[pairs.group_a == 0], pairs.b[pairs.group_b == 0]]))
    assert len(images) == 20
    assert images.max() > 100  # a random twenty, not the first


@pytest.mark.parametrize("size", [100, 1500])  # by rejection, and by permutation
def test_a_sample_of_impostors_is_even_seeded_and_without_repeats(size: int) -> None:
    identity = np.repeat(np.arange(30), 3)  # 90 images: 90 genuine pairs, 3915 impostor pairs
    rows = np.arange(90)
    times = np.zeros((30, 30))
    for seed in range(60):
        pairs = pairing.sample_pairs(rows, identity, seed=seed, max_pairs=size)
        assert int((~pairs.same).sum()) == size
        assert int(pairs.same.sum()) == min(90, size)
        assert len(keys(pairs)) == len(pairs)
        impostors = pairs.where(~pairs.same)
        low, high = np.minimum(impostors.group_a, impostors.group_b), np.maximum(impostors.group_a, impostors.group_b)
        np.add.at(times, (low, high), 1)
    # 435 pairs of persons, each expected 60 x size / 435 times: chi-square has 434 degrees of freedom at most (drawing
    # without replacement only narrows it), mean 434 and standard deviation sqrt(868).
    expected = 60 * size / 435
    chi = float(((times[np.triu_indices(30, 1)] - expected) ** 2 / expected).sum())
    assert chi < 434 + 5 * sqrt(868)
    again = pairing.sample_pairs(rows, identity, seed=59, max_pairs=size)
    np.testing.assert_array_equal(again.a, pairs.a)
    np.testing.assert_array_equal(again.b, pairs.b)


@pytest.mark.parametrize(("total", "size"), [(0, 5), (5, 5), (7, 5), (10_000, 5), (10**12, 1000)])
def test_chosen_numbers_differ_and_lie_in_range(total: int, size: int) -> None:
    chosen = pairing._choose(total, size, np.random.default_rng(0))
    assert len(np.unique(chosen)) == len(chosen) == min(total, size)
    assert not len(chosen) or (chosen.min() >= 0 and chosen.max() < total)


def test_no_rows_and_strangers_only_give_no_genuine_pairs() -> None:
    assert len(pairing.sample_pairs(np.empty(0, dtype=np.int64), np.arange(3), seed=0)) == 0
    pairs = pairing.sample_pairs(np.arange(3), np.arange(3), seed=0)
    assert len(pairs) == 3
    assert not pairs.same.any()
    with pytest.raises(InputError, match="got 0 and 20"):
        pairing.sample_pairs(np.arange(3), np.arange(3), seed=0, max_pairs=0)


def test_same_attribute_keeps_pairs_of_one_known_code() -> None:
    identity = np.array([0, 1, 2, 3, 4, 5])
    gender = np.array([0, 0, 1, 1, -1, -1])
    pairs = pairing.sample_pairs(np.arange(6), identity, seed=0)
    mask = pairing.same_attribute(pairs, gender)
    assert keys(pairs.where(mask)) == {frozenset((0, 1)), frozenset((2, 3))}


def test_listed_pairs_keep_those_of_the_rows() -> None:
    table = np.array([[0, 1, 1, 0], [0, 2, 0, 0], [3, 2, 0, 7]])
    pairs, fold = pairing.listed_pairs(table, np.array([0, 2, 3]), np.array([4, 4, 5, 6]))
    assert pairs.a.tolist() == [0, 3]
    assert pairs.b.tolist() == [2, 2]
    assert pairs.group_a.tolist() == [4, 6]
    assert not pairs.same.any()
    assert fold.tolist() == [0, 7]


# Scores -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("centred", [False, True])
def test_scores_equal_their_definitions(dtype: type, centred: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    r = np.random.default_rng(0)
    x = r.integers(0, 256, size=(40, 6, 5)).astype(dtype)
    pairs = pairing.sample_pairs(np.arange(40), np.arange(40) // 4, seed=0)
    centre = x.mean(axis=0) if centred else None
    flat = x.reshape(40, 30).astype(np.float64) - (0 if centre is None else centre.reshape(30))
    a, b = flat[pairs.a], flat[pairs.b]
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    distance = np.linalg.norm(a - b, axis=1)
    # Sums of 30 float32 products: 30 units in the last place of their largest partial sum, which the norms bound.
    precision = 30 * np.finfo(np.float32).eps
    found = pairing.scores(x, pairs, centre=centre)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, cosine, atol=2 * precision)
    found_distance = pairing.scores(x, pairs, kind="euclidean", centre=centre)
    np.testing.assert_allclose(found_distance, -distance, rtol=precision)
    monkeypatch.setattr(pairing, "_CHUNK_BYTES", 7 * 30 * 4)  # seven rows a block
    np.testing.assert_array_equal(pairing.scores(x, pairs, centre=centre), found)


def test_scores_need_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    r = np.random.default_rng(0)
    x = r.integers(0, 256, size=(100, 3072), dtype=np.uint8)
    pairs = pairing.sample_pairs(np.arange(100), np.arange(100) // 5, seed=0)  # 4950 pairs: 122 MB if gathered
    monkeypatch.setattr(pairing, "_CHUNK_BYTES", 1 << 20)
    tracemalloc.start()
    try:
        for kind in ("cosine", "euclidean"):
            pairing.scores(x, pairs, kind=kind)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20  # two blocks, their difference, what they were cast from, and the indices


def test_scores_of_zeros_are_zero_and_of_nan_refused() -> None:
    x = np.zeros((3, 2), dtype=np.float32)
    x[0] = 1
    pairs = pairing.sample_pairs(np.arange(3), np.array([0, 0, 1]), seed=0)
    assert (pairing.scores(x, pairs) == 0).all()
    x[2, 1] = np.nan
    with pytest.raises(InputError, match="1 rows are not, row 2 first"):
        pairing.scores(x, pairs)
    with pytest.raises(InputError, match="got 'dot'"):
        pairing.scores(x, pairs, kind="dot")  # type: ignore[arg-type]


# Figures ------------------------------------------------------------------------------------------------------------


def weighted(pairs: Pairs, times: np.ndarray) -> np.ndarray:
    """A genuine pair as often as its person, an impostor pair as often as both together."""
    return np.where(pairs.same, times[pairs.group_a], times[pairs.group_a] * times[pairs.group_b])


def test_values_are_the_exact_metrics_and_influence_their_slopes() -> None:
    x, identity = faces(0, persons=12, images=3)
    pairs = pairing.sample_pairs(np.arange(len(x)), identity, seed=0)
    scores = np.round(pairing.scores(x, pairs, kind="euclidean"), 1).astype(np.float64)  # with ties
    found = by_code(verification.verify(scores, pairs, scores, pairs, fars=(0.05,)))
    threshold = metrics.best_threshold(scores, pairs.same)

    def exact(weights: np.ndarray) -> dict[str, float]:
        return {
            "verification.auc": metrics.auc(scores, pairs.same, weights=weights),
            "verification.eer": metrics.eer(scores, pairs.same, weights=weights),
            "verification.tar_at_far_0.05": metrics.tar_at_far(scores, pairs.same, 0.05, weights=weights),
            "verification.accuracy": metrics.accuracy_at(scores, pairs.same, threshold, weights=weights),
        }

    once = exact(np.ones(len(pairs)))
    assert {code: figure.interval.value for code, figure in found.items()} == pytest.approx(once, abs=1e-12)
    for row in range(0, len(pairs), 50):
        moved = exact(np.ones(len(pairs)) + 1e-6 * (np.arange(len(pairs)) == row))
        for code in ("verification.auc", "verification.accuracy"):
            assert found[code].influence[row] == pytest.approx((moved[code] - once[code]) / 1e-6, abs=1e-7)
    for figure in found.values():
        assert figure.interval.low < figure.interval.value < figure.interval.high
        assert figure.n == len(pairs)
        assert "36 genuine and 594 impostor pairs of 12 people" in figure.note


def test_a_persons_weight_moves_figures_as_the_influence_says() -> None:
    # The thresholds of EER and TAR move too, through a slope that is measured over some of the curve. Of 80 persons'
    # effects the influence explains three quarters of the variance at least.
    x, identity = faces(3, persons=80, images=4)
    pairs = pairing.sample_pairs(np.arange(len(x)), identity, seed=0)
    scores = pairing.scores(x, pairs, kind="euclidean").astype(np.float64)
    found = by_code(verification.verify(scores, pairs, None, None, fars=(0.05,)))
    ranking = metrics.rank(scores, pairs.same)
    once = ranking.roc()
    for code, figure in (
        ("verification.eer", lambda roc: roc.eer()),
        ("verification.tar_at_far_0.05", lambda roc: roc.tar_at_far(0.05)),
    ):
        told, true = np.empty(80), np.empty(80)
        for person in range(80):
            weights = weighted(pairs, np.where(np.arange(80) == person, 2.0, 1.0))
            told[person] = found[code].influence @ (weights - 1)
            true[person] = figure(ranking.roc(weights)) - figure(once)
        assert np.corrcoef(told, true)[0, 1] ** 2 > 0.75, code
        assert float(np.polyfit(told, true, 1)[0]) == pytest.approx(1, abs=0.25), code


def test_the_spread_is_that_of_pairs_which_share_a_person() -> None:
    _, identity = faces(0, persons=9, images=3)
    pairs = pairing.sample_pairs(np.arange(27), identity, seed=0)
    genuine = np.zeros(len(pairs))
    genuine[pairs.same] = np.random.default_rng(0).normal(size=int(pairs.same.sum()))
    impostor = np.where(pairs.same, 0, np.random.default_rng(1).normal(size=len(pairs)))
    sides = [{int(a), int(b)} for a, b in zip(pairs.group_a, pairs.group_b, strict=True)]
    share = np.array([[bool(one & other) for other in sides] for one in sides])
    # Bessel's correction, and that of the mean of the eight others.
    bessel, others = 9 / 8, 8 / 7
    for influence in (genuine, genuine + impostor):
        scaled = np.where(pairs.same, influence, others * influence)
        spread = pairs.shared.spread(influence)
        assert spread.variance == pytest.approx(bessel * float(scaled @ share @ scaled), rel=1e-9)
    same_couple = np.array([[one == other for other in sides] for one in sides])
    couples = np.where(pairs.same, 0, scaled)
    more = pairs.shared.spread(influence, twice=True).variance - spread.variance
    assert more == pytest.approx(bessel * float(couples @ same_couple @ couples), rel=1e-9)


def test_negative_luck_leaves_the_spread_of_independent_couples() -> None:
    # Sums of three people's three couples that cancel, all but one's.
    pairs = Pairs(
        a=np.arange(3), b=np.arange(3, 6), same=np.zeros(3, bool), group_a=np.array([0, 0, 1]),
        group_b=np.array([1, 2, 2]),
    )  # fmt: skip
    influence = np.array([1.0, -1.0, 0.0])
    # Persons' sums 0, 1, -1 (times 2 / 1): squares 8; couples' squares 8, so nothing is left of the former.
    assert pairs.shared.spread(influence).variance == pytest.approx(1.5 * 8)


def test_perfect_scores_do_not_claim_an_interval_without_width() -> None:
    _, identity = faces(0, persons=20, images=3)
    pairs = pairing.sample_pairs(np.arange(60), identity, seed=0)
    found = by_code(verification.verify(pairs.same * 1.0, pairs, pairs.same * 1.0, pairs))
    assert found["verification.auc"].interval.low < 0.9
    assert found["verification.accuracy"].interval.value == 1
    assert found["verification.eer"].interval == pytest.approx(intervals.wilson(0, 20), abs=1e-12)


@pytest.mark.parametrize("persons", [3, 20])
@pytest.mark.parametrize("kind", ["perfect", "reversed", "constant", "two values", "perfect but one"])
def test_no_interval_of_pairs_is_without_width(kind: str, persons: int) -> None:
    _, identity = faces(0, persons=persons, images=5)
    pairs = pairing.sample_pairs(np.arange(len(identity)), identity, seed=0)
    scores = {
        "perfect": pairs.same * 1.0,
        "reversed": -1.0 * pairs.same,
        "constant": np.zeros(len(pairs)),
        "two values": (pairs.a % 2) * 1.0,
        "perfect but one": np.where(np.arange(len(pairs)) == 0, -1.0, pairs.same * 1.0),
    }[kind]
    figures = verification.verify(scores, pairs, pairs.same * 1.0, pairs, level=0.9)
    accuracy = kind not in ("reversed", "constant")  # whose scores the threshold, 1, takes for one kind
    assert sum(figure.status == "ok" for figure in figures) == (2 if persons == 3 else 3) + accuracy
    for figure in figures:
        if figure.status == "ok":
            value, low, high = figure.interval
            assert 0 <= low <= value <= high <= 1, figure
            assert high - low > 0.01, figure


def test_random_scores_are_at_chance() -> None:
    _, identity = faces(0, persons=100, images=4)
    pairs = pairing.sample_pairs(np.arange(400), identity, seed=0)
    scores = np.random.default_rng(4).normal(size=len(pairs))
    found = verification.verify(scores, pairs, scores[::-1], pairs)
    assert [figure.status for figure in found] == ["ok"] * 5
    for figure in found:
        # The errors are mostly the 600 genuine pairs' own: at most 0.5 / sqrt(600) = 0.02 in each figure.
        assert abs(figure.interval.value - figure.chance) < 4 * 0.5 / sqrt(600)
        slack = 0.02 if figure.chance == 0.5 else 0.005
        assert figure.interval.low - slack < figure.chance < figure.interval.high + slack


def test_figures_that_the_pairs_cannot_give_are_not_applicable() -> None:
    x, identity = faces(0, persons=25, images=4)
    pairs = pairing.sample_pairs(np.arange(100), identity, seed=0)  # 4800 impostor pairs
    scores = pairing.scores(x, pairs)
    found = by_code(verification.verify(scores, pairs, None, None))
    assert found["verification.tar_at_far_0.01"].status == "ok"
    rare = found["verification.tar_at_far_0.001"]
    assert (rare.status, rare.note) == ("not_applicable", "needs at least 10,000 impostor pairs, there are 4,800")
    assert found["verification.accuracy"].status == "not_applicable"
    written = rare.finding(release="Input", attacker="cosine")
    assert (written.value, written.low, written.high, written.chance) == (None, None, None, 0.001)
    for kind in (pairs.same, ~pairs.same, np.zeros(len(pairs), dtype=bool)):
        some = verification.verify(scores[kind], pairs.where(kind), scores, pairs)
        assert [figure.status for figure in some] == ["not_applicable"] * 5
        assert all("needs both kinds of pairs" in figure.note for figure in some)


def test_exactly_ten_expected_false_accepts_are_enough() -> None:
    same = np.zeros(10_001, dtype=bool)
    same[0] = True
    a = np.arange(10_001)
    pairs = Pairs(a=a, b=a, same=same, group_a=a, group_b=a + 1 - same)
    found = by_code(verification.verify(same * 1.0, pairs, None, None))
    assert found["verification.tar_at_far_0.001"].status == "ok"


def test_a_figure_becomes_a_finding() -> None:
    x, identity = faces(0, persons=25, images=4)
    pairs = pairing.sample_pairs(np.arange(100), identity, seed=0)
    figure = verification.verify(pairing.scores(x, pairs), pairs, None, None, level=0.9)[0]
    found = figure.finding(release="Input", attacker="cosine", target="identity|same gender", worst=True)
    assert found.figures() == (*figure.interval, 0.5)
    assert (found.role, found.level, found.n, found.worst) == ("utility", 0.9, len(pairs), True)


def test_differences_are_paired() -> None:
    x, identity = faces(1, persons=60, images=4)
    pairs = pairing.sample_pairs(np.arange(240), identity, seed=0)
    scores = pairing.scores(x, pairs, kind="euclidean")
    worse = scores + 0.6 * np.random.default_rng(0).normal(size=len(pairs))
    runs = [verification.verify(s, pairs, None, None)[0] for s in (scores, worse, scores / 2)]
    # A change of scale changes no order. Of 60 people some few might tell the two apart that are not among them.
    unseen = intervals.wilson(0, 60).high
    assert verification.difference(runs[2], runs[0]) == pytest.approx((0, -unseen, unseen))
    lost = verification.difference(runs[1], runs[0])
    assert lost.value == runs[1].interval.value - runs[0].interval.value
    assert lost.low < lost.value < lost.high < 0
    alone = runs[0].interval.high - runs[0].interval.low
    assert lost.high - lost.low < 0.7 * alone  # two independent figures' difference is 1.4 times as wide as one
    with pytest.raises(ValueError, match="one code"):
        verification.difference(runs[0], replace(runs[1], code="verification.eer"))
    others = pairing.sample_pairs(np.arange(200), identity, seed=0)
    with pytest.raises(ValueError, match="not of the same pairs"):
        verification.difference(runs[0], verification.verify(np.arange(len(others)), others, None, None)[0])
    assert all(np.isnan(verification.difference(runs[0], replace(runs[1], status="not_applicable"))))


def test_differences_cover() -> None:
    # Two releases that lose equally much: no difference in the population. Of 300 draws 95 % hold 0.
    runs, held = 300, 0
    for run in range(runs):
        r = np.random.default_rng(run)
        x, identity = faces(500 + run, persons=40, images=3)
        pairs = pairing.sample_pairs(np.arange(120), identity, seed=0, max_pairs=3000)
        first, second = (
            verification.verify(pairing.scores(x + 0.5 * r.normal(size=x.shape), pairs), pairs, None, None)[0]
            for _ in range(2)
        )
        interval = verification.difference(first, second)
        held += interval.low <= 0 <= interval.high
    assert 0.93 - 3.5 * sqrt(0.93 * 0.07 / runs) < held / runs < 0.97 + 3.5 * sqrt(0.97 * 0.03 / runs)


def test_intervals_cover_the_figures_of_the_population() -> None:
    # The population's figures, from persons by the thousand: known to a tenth of an interval's width.
    x, identity = faces(0, persons=4000, images=3)
    pairs = pairing.sample_pairs(np.arange(len(x)), identity, seed=0, max_pairs=400_000)
    truth = metrics.roc(pairing.scores(x, pairs, kind="euclidean"), pairs.same)
    known = {"verification.auc": truth.auc(), "verification.eer": truth.eer()}
    known["verification.tar_at_far_0.01"] = truth.tar_at_far(0.01)
    runs = 400
    values: dict[str, list[float]] = {code: [] for code in known}
    widths: dict[str, list[float]] = {code: [] for code in known}
    covered = dict.fromkeys(known, 0)
    for run in range(runs):
        x, identity = faces(100 + run, persons=40, images=3)
        pairs = pairing.sample_pairs(np.arange(120), identity, seed=run, max_pairs=3000)
        scores = pairing.scores(x, pairs, kind="euclidean")
        for code, figure in by_code(verification.verify(scores, pairs, None, None)).items():
            if code in known:
                interval = figure.interval
                values[code].append(interval.value)
                widths[code].append(interval.high - interval.low)
                covered[code] += interval.low <= known[code] <= interval.high
    for code in known:
        # 93 to 97 %; 3.5 binomial standard deviations are allowed for.
        least, most = (c + side * 3.5 * sqrt(c * (1 - c) / runs) for c, side in ((0.93, -1), (0.97, 1)))
        assert least < covered[code] / runs < most, code
        # As wide as the figure spreads, a quarter more at most; that of 400 values is known to 1 / sqrt(800).
        ratio = float(np.mean(widths[code])) / (2 * 1.96 * float(np.std(values[code])))
        assert 1 - 3.5 / sqrt(800) < ratio < 1.25 * (1 + 3.5 / sqrt(800)), code


def test_half_a_million_pairs_are_fast() -> None:
    r = np.random.default_rng(0)
    identity = np.repeat(np.arange(1400), 3)
    pairs = pairing.sample_pairs(np.arange(4200), identity, seed=0)
    assert int((~pairs.same).sum()) == 500_000
    scores = r.normal(size=len(pairs)) + pairs.same
    start = time.process_time()
    verification.verify(scores, pairs, scores, pairs)
    assert time.process_time() - start < 5


# The ten folds ------------------------------------------------------------------------------------------------------


def folds() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    fold = np.repeat(np.arange(1, 11), 6)
    same = np.tile([True, True, True, False, False, False], 10)
    return same.astype(np.float64), same, fold


def test_ten_folds_take_the_threshold_from_the_other_nine() -> None:
    scores, same, fold = folds()
    assert verification.ten_fold(scores, same, fold).interval == intervals.wilson(30, 30)
    # The first fold's scores are ten higher: at the others' threshold of 0.5 all of its impostors are accepted, though
    # its own would part them. In the others nothing changes: 0.95 +- 2.262 x 0.158 / sqrt(10).
    found = verification.ten_fold(scores + 10 * (fold == 1), same, fold)
    assert (found.status, found.n, found.chance) == ("ok", 60, 0.5)
    assert found.interval.value == pytest.approx(0.95)
    assert found.interval.low == pytest.approx(0.95 - 2.262157 * 0.05, abs=1e-4)
    assert found.interval.high == 1


def test_uneven_folds_weigh_both_kinds_of_pairs_alike() -> None:
    scores, same, fold = folds()
    keep = ~((fold == 3) & (np.arange(60) % 6 > 3))  # three genuine pairs and one impostor pair
    scores[(fold == 3) & ~same] = 1  # accepted
    found = verification.ten_fold(scores[keep], same[keep], fold[keep])
    assert found.interval.value == pytest.approx((9 + 0.5) / 10)


def test_ten_folds_are_not_applicable_without_both_kinds_of_pairs() -> None:
    scores, same, fold = folds()
    keep = ~((fold == 4) & same)
    found = verification.ten_fold(scores[keep], same[keep], fold[keep])
    assert found.status == "not_applicable"
    assert "no genuine or no impostor pairs in fold 4" in found.note
    found = verification.ten_fold(scores[fold > 2], same[fold > 2], fold[fold > 2])
    assert (found.status, found.note) == (
        "not_applicable",
        "needs 10 folds, there are 8 (24 genuine and 24 impostor pairs)",
    )
    assert np.isnan(found.interval.value)


def test_ten_folds_without_an_error_have_an_interval_of_some_width() -> None:
    fold, same = np.repeat(np.arange(10), 20), np.arange(200) % 4 == 0
    found = verification.ten_fold(same.astype(float), same, fold).interval
    assert (found.value, found.high) == (1, 1)
    assert found.low == intervals.wilson(50, 50).low < 0.95


def test_ten_folds_that_are_equally_good_have_an_interval_of_some_width() -> None:
    fold, same = np.repeat(np.arange(10), 20), np.arange(200) % 4 == 0
    found = verification.ten_fold(np.zeros(200), same, fold).interval
    assert found == intervals.wilson(25, 50)


def test_two_people_are_too_few() -> None:
    who = np.repeat([0, 1], 10)
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    pairs = pairing.sample_pairs(np.arange(20), who, seed=0)
    found = verification.verify(pairing.scores(x, pairs), pairs, None, None)
    assert {f.status for f in found} == {"not_applicable"}
    assert all("three people" in f.note for f in found)


@pytest.mark.parametrize("shift", [-100.0, 100.0])
def test_a_threshold_that_tells_nothing_has_no_accuracy(shift: float) -> None:
    """Scores of the calibrate split that lie elsewhere: all pairs of test would be taken for one kind."""
    x, who = faces(0, 30, 4)
    pairs = pairing.sample_pairs(np.arange(len(who)), who, seed=0)
    scores = -np.linalg.norm(x[pairs.a] - x[pairs.b], axis=1)
    found = by_code(verification.verify(scores, pairs, scores + shift, pairs))
    accuracy = found.pop("verification.accuracy")
    assert (accuracy.status, "takes all pairs for one kind" in accuracy.note) == ("not_applicable", True)
    assert found["verification.auc"].status == "ok"
