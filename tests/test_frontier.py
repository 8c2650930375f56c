"""The frontier of noise and the budget: known choices, what attackers may see, and a population of known leakage."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import attacked_by
from veil import InputError
from veil.data.pack import SPLITS, Pack
from veil.findings import Finding
from veil.workflows import fit as fitting
from veil.workflows import frontier
from veil.workflows.fit import fit_measured
from veil.workflows.frontier import Point, kept, meet, parse_budget


def point(noise: float, high: float, use: float) -> Point:
    return Point(
        noise=noise,
        attacks={"gender": {"value": high - 0.02, "low": high - 0.04, "high": high}},
        utility={"value": use},
    )


POINTS = [point(0.0, 0.9, 0.99), point(0.5, 0.61, 0.97), point(1.0, 0.55, 0.9)]


def test_least_noise_within_the_budget_is_chosen():
    assert meet(POINTS, {"gender": 0.61}).noise == 0.5
    assert meet(POINTS, {"gender": 0.6}).noise == 1.0
    assert kept(POINTS, {"gender": 0.6}) == 0.9
    assert kept(POINTS, {"gender": 0.95}) == 0.99


def test_without_a_use_the_least_noise_is_kept():
    """Nobody measured what is left: noise is what takes of it."""
    points = [Point(noise=p.noise, attacks=p.attacks, utility={}) for p in POINTS]
    assert kept(points, {"gender": 0.95}) > kept(points, {"gender": 0.61}) > kept(points, {"gender": 0.6}) > 0
    assert kept(points, {"gender": 0.5}) < 0


def test_decisions_that_tell_nothing_give_way_to_the_auc():
    """Their balanced accuracy has no figure; a concave ROC curve never gets one above its AUC."""

    def finding(code, attacker, value):
        common = {"code": code, "release": "r", "target": "gender", "attacker": attacker, "role": "attack", "n": 9}
        if value is None:
            return Finding(status="not_applicable", note="names one class for everybody", **common)
        return Finding(value=value, low=value - 0.1, high=value + 0.1, chance=0.5, **common)

    told, area = "attribute.balanced_accuracy", "attribute.auc"
    found = [finding(told, "a", None), finding(area, "a", 0.56), finding(told, "b", None), finding(area, "b", 0.6)]
    picked = frontier._picked(found, told, "gender")
    assert (picked["code"], picked["attacker"], picked["value"]) == (area, "b", 0.6)
    picked = frontier._picked([*found, finding(told, "c", 0.52)], told, "gender")
    assert (picked["code"], picked["attacker"]) == (told, "c")
    with pytest.raises(InputError, match="gender could not be measured"):
        frontier._picked(found[::2], told, "gender")


def test_budget_that_cannot_be_had_says_how_near_it_came():
    with pytest.raises(InputError, match=r"gender 0.5 cannot be had; the nearest is gender 0.550 .* at noise 1$"):
        meet(POINTS, {"gender": 0.5})
    assert kept(POINTS, {"gender": 0.5}) == pytest.approx(-0.05)


@pytest.mark.parametrize("text", ["gender", "gender=", "=0.5", "gender=0", "gender=1.01", "gender=half", "gender=nan"])
def test_malformed_budgets(text):
    with pytest.raises(InputError, match="budget: must be NAME=LIMIT"):
        parse_budget(text)


def test_budget_is_read():
    assert parse_budget("gender=0.55") == ("gender", 0.55)


def population(seed: int, people: int = 1200, images: int = 2, k: int = 32, shift: float = 0.35) -> Pack:
    """Unit vectors of people; gender moves one direction by ``shift`` standard deviations of a person's position."""
    rng = np.random.default_rng(seed)
    gender = rng.integers(2, size=people)
    centre = rng.standard_normal((people, k))
    centre[:, 0] += shift * np.sqrt(k) * (2 * gender - 1) / 2
    who = np.repeat(np.arange(people), images)
    x = centre[who] + 0.3 * rng.standard_normal((len(who), k))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cuts = np.searchsorted([0.3, 0.65, 0.85], rng.random(people), side="right")
    return Pack(
        x=x.astype(np.float32),
        labels={"gender": gender[who].astype(np.int64), "identity": who.astype(np.int64)},
        classes={"gender": ("female", "male"), "identity": tuple(map(str, range(people)))},
        split=cuts[who].astype(np.int8),
        sources=np.array([f"{i}.jpg" for i in range(len(who))]),
    )


def test_attackers_never_see_the_test_split():
    pack = population(0)
    seen = frontier._view(pack, frontier.Question(private=["gender"], utility="identity"))
    people = {name: set(seen.labels["identity"][seen.rows(name)]) for name in SPLITS}
    own = {name: set(pack.labels["identity"][pack.rows(name)]) for name in SPLITS}
    assert people["attack"] == own["attack"]
    assert people["calibrate"] == people["test"] == own["calibrate"]
    assert not own["test"] & set(seen.labels["identity"])
    np.testing.assert_array_equal(seen.x, pack.x[[int(name.split(".")[0]) for name in seen.sources]])


KEY = bytes(range(32))
NOISE_ALONE = {"keep": 1.0, "align": False, "hide": 0.0, "steps_guess": 1, "guess": 8, "noise": 1.0}


def test_frontier_falls_with_the_noise_and_stops_at_the_budget(monkeypatch):
    """With one Gaussian direction and noise s the Bayes accuracy is known; a strong noise must take the attack near it.

    The classes differ by 2 m = 0.35 sqrt(k) along one direction of unit variance (0.3^2 more within a person), so the
    best attack without noise has accuracy Phi(0.99 / sqrt(1.09)) = 0.83, up to what normalising changes.
    """
    attacked_by(monkeypatch, "logistic regression")  # the best there is, as classes are Gaussians of one covariance
    pack = population(1)
    release = fitting.fit("template", pack, private=["gender"], settings=NOISE_ALONE, seed=0, key=KEY).release
    question = frontier.Question(private=["gender"], utility="identity", jobs=1)
    points = frontier.measure(release, pack, question, noises=[0.0, 2.0], budget={"gender": 0.75})
    assert [p.noise for p in points] == [0.0, 1.0, 2.0]  # half-way is measured once the budget is met
    attacks = [p.attacks["gender"]["value"] for p in points]
    uses = [p.utility["value"] for p in points]
    assert 0.78 < attacks[0] < 0.88
    assert attacks[0] > attacks[1] > attacks[2]
    assert uses[0] > uses[1] > uses[2]
    assert points[2].within({"gender": 0.75})


def test_budget_chooses_the_release_and_is_written_into_it(tmp_path, monkeypatch):
    attacked_by(monkeypatch, "logistic regression")
    pack = population(2)
    settings = {**NOISE_ALONE}
    release = fit_measured(
        "template", pack, private=["gender"], settings=settings, seed=0, budget={"gender": 0.8}, jobs=1, key=KEY
    ).release
    chosen = [p for p in release.made["frontier"] if p["noise"] == release.contract.noise]
    assert len(chosen) == 1
    assert chosen[0]["attacks"]["gender"]["high"] <= 0.8
    assert release.made["budget"] == {"gender": 0.8}
    assert release.config["noise"] == release.contract.noise
    release.save(tmp_path / "release")


def test_budget_needs_a_private_label_and_noise():
    pack = population(3, people=200)
    with pytest.raises(InputError, match="budget: must name a private label"):
        fit_measured("template", pack, private=["gender"], budget={"smile": 0.6})
    with pytest.raises(InputError, match="inversion: a frontier chooses the setting noise, and this method has none"):
        fit_measured("inversion", pack, private=["gender"], utility="smile", budget={"gender": 0.6})
    with pytest.raises(InputError, match="frontier needs a release with keyed noise, got noise 0; leave it out"):
        fit_measured("template", pack, private=["gender"], preset="aligned")


def test_a_label_of_a_budget_may_hold_a_sign_of_equality():
    assert parse_budget("age>=30=0.6") == ("age>=30", 0.6)
    for text in ("0.6", "=0.6", "age=", "age=0.6=x"):
        with pytest.raises(InputError, match="budget: must be NAME=LIMIT"):
            parse_budget(text)


def test_a_frontier_that_cannot_be_measured_says_how_to_do_without(monkeypatch):
    def trained(*arguments, **options):
        raise AssertionError("trained before it was asked")

    monkeypatch.setattr("veil.workflows.fit.fit", trained)
    pack = population(3, people=50)
    alone = Pack.from_arrays(pack.x, {n: pack.label(n) for n in pack.labels}, split=["protect"] * len(pack))
    with pytest.raises(InputError, match=r"^frontier: split attack has no rows; .* \(--no-frontier\)$"):
        fit_measured("template", alone, private=["gender"])
