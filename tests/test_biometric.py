"""Matching by false match and false non-match rates: closed forms, brute force, groups, searches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from veil.auditing import biometric, comparisons, verification
from veil.auditing.biometric import Performance
from veil.auditing.comparisons import Comparisons, compare
from veil.auditing.pairs import COSINE, Metric, Pairs, scores
from veil.findings import Finding, Measurement
from veil.findings.tradeoffs import pic, suppression_rate

EUCLIDEAN = Metric(kind="euclidean")


def people_of(seed: int, persons: int, noise: float, width: int = 16) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors of one to five images a person, in no order, and who is seen."""
    rng = np.random.default_rng(seed)
    who = rng.permutation(np.repeat(np.arange(persons), rng.integers(1, 6, persons)))
    x = rng.normal(size=(persons, width))[who] + noise * rng.normal(size=(len(who), width))
    return x.astype(np.float32), who.astype(np.int64)


def every_pair(who: NDArray[np.int64]) -> Pairs:
    a, b = np.triu_indices(len(who), 1)
    return Pairs(a, b, who[a] == who[b], who[a], who[b])


def measured(
    x: NDArray[np.float32], who: NDArray[np.int64], metric: Metric = COSINE, **labels: object
) -> list[Finding]:
    performance = Performance(release="R", attacker="cosine", metric=metric, level=0.95, seed=0)
    return biometric.measured(performance, x, np.arange(len(x)), who, labels)[0]  # type: ignore[arg-type]


def one(found: list[Finding], code: str, target: str = "identity") -> Finding:
    (hit,) = [f for f in found if (f.code, f.target) == (code, target)]
    return hit


@pytest.mark.parametrize("metric", [COSINE, EUCLIDEAN, Metric(centre=np.full(16, 0.3, np.float32))])
def test_streaming_equals_brute_force_with_its_interval(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparisons, "_BLOCK", 37)  # blocks that cut people
    x, who = people_of(0, 120, 0.9)
    pairs = every_pair(who)
    alike = scores(x, pairs, kind=metric.kind, centre=metric.centre)
    expected = {f.code: f for f in verification.verify(alike, pairs, None, None, fars=(0.001,))}
    tar = expected["verification.tar_at_far_0.001"].interval
    found = one(measured(x, who, metric), "verification.fnmr_at_fmr_0.001")
    assert found.figures()[:3] == pytest.approx((1 - tar.value, 1 - tar.high, 1 - tar.low), abs=1e-9)
    assert found.n == len(pairs)


def test_fnmr_of_normal_scores_is_that_of_the_closed_form() -> None:
    """Of many values cosines of strangers are N(0, 1 / d), and mates' N(rho, (1 - rho^2)^2 / d)."""
    d, rho, persons = 256, 0.25, 1500
    rng = np.random.default_rng(1)
    own = rng.normal(size=(persons, d))
    x = np.concatenate([np.sqrt(rho) * own + np.sqrt(1 - rho) * rng.normal(size=own.shape) for _ in range(2)])
    found = measured(x.astype(np.float32), np.tile(np.arange(persons), 2))
    for fmr, name in ((1e-3, "0.001"), (1e-4, "0.0001"), (1e-5, "0.00001")):
        threshold = norm.isf(fmr) / np.sqrt(d)
        truth = norm.cdf((threshold - rho) * np.sqrt(d) / (1 - rho**2))
        _, low, high, _ = one(found, f"verification.fnmr_at_fmr_{name}").figures()
        assert low < truth < high
        assert high - low < 0.12


@pytest.mark.parametrize("metric", [COSINE, EUCLIDEAN])
def test_ties_are_never_split(metric: Metric) -> None:
    """Releases of five values: a fifth of strangers share one, so nobody can be accepted at a small FMR."""
    rng = np.random.default_rng(2)
    values, who = rng.normal(size=(5, 32)).astype(np.float32), np.repeat(np.arange(1300), 2)
    found = one(measured(values[rng.integers(0, 5, len(who))], who, metric), "verification.fnmr_at_fmr_0.001")
    assert found.value == 1


def test_what_is_kept_of_the_tail_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, who = people_of(3, 200, 1.0)
    whole = compare(x, np.arange(len(x)), who, COSINE, fmr=0.002, seed=0)
    monkeypatch.setattr(comparisons, "_BLOCK", 50)
    parts = compare(x, np.arange(len(x)), who, COSINE, fmr=0.002, seed=0)
    assert whole.non_mated == parts.non_mated == int((~every_pair(who).same).sum())
    np.testing.assert_allclose(whole.tail, parts.tail, atol=3e-6)
    assert whole.bound == pytest.approx(parts.bound, abs=3e-6)
    assert abs(whole.counts - parts.counts).sum() <= 20  # rounding at the bins' edges


def test_the_curve_of_errors_falls_and_meets_brute_force() -> None:
    x, who = people_of(4, 250, 1.0)
    of_all = compare(x, np.arange(len(x)), who, COSINE, fmr=0.002, seed=0)
    pairs = every_pair(who)
    alike = scores(x, pairs)
    strangers, mates = np.sort(alike[~pairs.same])[::-1], alike[pairs.same]
    fmr, fnmr = of_all.det()
    assert len(fmr) > 60
    assert list(fmr) == sorted(fmr)
    assert list(fnmr) == sorted(fnmr, reverse=True)
    assert (fmr[-1], fnmr[-1]) == (1, 0)
    for x_, y in zip(fmr[:-1], fnmr[:-1], strict=True):
        threshold = strangers[min(round(x_ * len(strangers)), len(strangers) - 1)]
        assert y == pytest.approx((mates <= threshold).mean(), abs=0.01)


def test_too_few_pairs_have_no_figure_and_say_how_many_there_are() -> None:
    x, who = people_of(5, 60, 0.5)
    found = measured(x, who)
    strangers = int((~every_pair(who).same).sum())
    assert 10_000 < strangers < 100_000
    assert one(found, "verification.fnmr_at_fmr_0.001").ok
    missing = one(found, "verification.fnmr_at_fmr_0.0001")
    assert missing.status == "not_applicable"
    assert f"{strangers:,}" in missing.note
    assert "at least 100,000" in missing.note
    alone = measured(x[:40], np.arange(40))
    assert {f.status for f in alone} == {"not_applicable"}


@pytest.mark.parametrize("metric", [COSINE, EUCLIDEAN, Metric(centre=np.zeros(16, np.float32))])
@pytest.mark.parametrize("persons", [0, 1, 2])
def test_next_to_nobody_has_no_figure(metric: Metric, persons: int) -> None:
    x, who = people_of(13, 40, 0.5)
    found = measured(x, np.where(who < persons, who, -1), metric, gender=(who % 2, ("a", "b")))
    assert {f.status for f in found} == {"not_applicable"}
    assert all(f.note for f in found)


def test_too_many_rows_are_people_drawn_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x, who = people_of(6, 300, 0.5)
    monkeypatch.setattr(comparisons, "MOST_ROWS", 500)
    of_all = compare(x, np.arange(len(x)), who, COSINE, fmr=0.002, seed=0)
    assert 490 < len(of_all.rows) <= 500
    assert of_all.left_out == len(x) - len(of_all.rows)
    kept = np.unique(who[of_all.rows])
    assert np.isin(who, kept).sum() == len(of_all.rows)
    assert "are left out" in one(measured(x, who), "verification.fnmr_at_fmr_0.001").note


# -- groups -----------------------------------------------------------------------------------------------------------


def test_groups_at_one_threshold_are_those_of_brute_force_and_their_ratio_is_found() -> None:
    rng = np.random.default_rng(7)
    who = np.repeat(np.arange(400), 3)
    group = np.arange(400) % 2
    x = rng.normal(size=(400, 16)) + 1.0 * group[:, None]  # people of the second group lie together
    x = (x[who] + 0.8 * rng.normal(size=(len(who), 16))).astype(np.float32)
    found = measured(x, who, gender=(group[who], ("female", "male")))
    pairs = every_pair(who)
    alike = scores(x, pairs)
    strangers = np.sort(alike[~pairs.same])[::-1]
    threshold = strangers[int(0.001 * len(strangers))]
    rates = {}
    for z, name in enumerate(("female", "male")):
        inside = (group[pairs.group_a] == z) & (group[pairs.group_b] == z)
        rates[name] = (alike[inside & ~pairs.same] > threshold).mean(), (alike[inside & pairs.same] <= threshold).mean()
        target = f"identity|gender={name}"
        assert one(found, "verification.group_fmr", target).value == pytest.approx(rates[name][0], rel=0.02, abs=1e-5)
        assert one(found, "verification.group_fnmr", target).value == pytest.approx(rates[name][1], abs=0.005)
    ratio = one(found, "verification.group_fnmr_ratio", "identity|by gender")
    assert ratio.value == pytest.approx(rates["female"][1] / rates["male"][1], rel=0.02)
    assert "female over male" in ratio.note
    assert ratio.figures()[1] > 1


def test_groups_that_do_not_differ_have_a_ratio_of_1() -> None:
    ratios = []
    for seed in range(6):
        x, who = people_of(10 + seed, 400, 0.9)
        found = one(
            measured(x, who, gender=(who % 2, ("a", "b"))), "verification.group_fnmr_ratio", "identity|by gender"
        )
        ratios.append(found.figures()[1] <= 1)
    assert sum(ratios) >= 5


def test_a_group_without_an_error_and_one_of_many_classes_have_no_ratio() -> None:
    x, who = people_of(8, 200, 0.05)
    found = measured(x, who, gender=(who % 2, ("a", "b")), person=(who, [str(i) for i in range(200)]))
    zero = one(found, "verification.group_fnmr_ratio", "identity|by gender")
    assert zero.status == "not_applicable"
    assert "has no ratio" in zero.note
    assert "200 classes" in one(found, "verification.group_fmr_ratio", "identity|by person").note


# -- searches ---------------------------------------------------------------------------------------------------------


def test_ranks_and_misses_of_vectors_that_say_nothing_are_at_chance() -> None:
    rng = np.random.default_rng(9)
    who = np.repeat(np.arange(700), 4)
    found = measured(rng.normal(size=(len(who), 8)).astype(np.float32), who)
    for code in ("search.cmc_rank_1", "search.cmc_rank_20", "search.fnir_at_fpir_0.01"):
        _, low, high, chance = one(found, code).figures()
        assert low - 0.003 <= chance <= high + 0.003, code


def test_vectors_that_tell_people_apart_find_them() -> None:
    x, who = people_of(11, 900, 0.1)
    found = measured(x, who)
    assert one(found, "search.cmc_rank_1").value == 1
    assert one(found, "search.fnir_at_fpir_0.01").value == 0


def test_the_rate_of_misses_in_an_open_set_covers_the_truth() -> None:
    """Of another draw of people at the same noise; a gallery of each own."""
    values = []
    for seed in range(5):
        x, who = people_of(20 + seed, 900, 0.7)
        values.append(one(measured(x, who), "search.fnir_at_fpir_0.01").figures()[:3])
    truth = np.mean([value for value, _, _ in values])
    assert 0.05 < truth < 0.95
    assert sum(low <= truth <= high for _, low, high in values) >= 4


def test_mates_that_tie_count_for_their_share() -> None:
    who = np.repeat(np.arange(50), 2)
    found = measured(np.ones((100, 4), np.float32), who)
    assert one(found, "search.cmc_rank_1").value == pytest.approx(1 / 50)
    assert one(found, "search.cmc_rank_20").value == pytest.approx(20 / 50)


# -- suppression rate and PIC -----------------------------------------------------------------------------------------


def attack(value: float, low: float, high: float, release: str = "R") -> Finding:
    it = Measurement(release=release, target="gender", attacker="MLPs", role="attack", n=100)
    return it.measured("attribute.balanced_accuracy", (value, low, high), chance=0.5, worst=True)


def eer(value: float, low: float, high: float) -> Finding:
    it = Measurement(release="R", target="identity", attacker="cosine", role="utility", n=100)
    return it.measured("verification.eer", (value, low, high), worst=True)


def test_suppression_rate_by_hand() -> None:
    found = suppression_rate(attack(0.6, 0.5, 0.7), attack(0.8, 0.75, 0.85))
    assert found.figures() == pytest.approx((0.25, 0.125, 0.375, 0.375))
    assert found.worst


def test_pic_by_hand() -> None:
    found = pic(attack(0.6, 0.56, 0.64), attack(0.8, 0.75, 0.85), eer(0.03, 0.027, 0.033), eer(0.02, 0.01, 0.03))
    # The attack's error doubles (gain 1), the EER grows by half (loss .5); widths of .2 and .15 make .25.
    assert found.figures() == pytest.approx((0.5, 0.25, 0.75, 1.0))


@pytest.mark.parametrize(
    ("before", "rate", "why"),
    [
        (attack(1.0, 0.9, 1.0), eer(0.02, 0.01, 0.03), "nothing can be divided"),
        (attack(0.8, 0.7, 0.9), eer(0.0, 0.0, 0.03), "nothing can be divided"),
        (attack(0.8, 0.7, 0.9), None, "was not measured"),
    ],
)
def test_pic_without_what_it_needs_says_why(before: Finding, rate: Finding | None, why: str) -> None:
    found = pic(attack(0.6, 0.5, 0.7), before, eer(0.02, 0.01, 0.03), rate)
    assert found.status == "not_applicable"
    assert why in found.note


def test_a_pair_at_the_threshold_is_not_accepted() -> None:
    of_all = Comparisons(
        rows=np.arange(4), person=np.array([0, 0, 1, 2]), mated=np.array([0.5]), mated_rows=np.array([[0, 1]]),
        tail=np.array([0.5, 0.5, 0.2]), tail_rows=np.array([[0, 2], [0, 3], [1, 2]]), bound=-np.inf,
        edges=np.array([0.0, 0.3, 1.0]), counts=np.array([3, 2]),
    )  # fmt: skip
    assert of_all.threshold(0.2) == 0.5  # one of five may be accepted, and two tie
    assert of_all.fmr(0.5) == 0
    assert of_all.fnmr(0.5) == 1
    assert replace(of_all, mated=np.array([0.6])).fnmr(0.5) == 0
