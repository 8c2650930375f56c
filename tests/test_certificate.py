"""Certificates: against closed forms, on populations whose best attacker is known, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import beta

from conftest import audited, only
from veil.auditing.certificate import certify, upper_limit
from veil.auditing.classical import lookup_table, recurs
from veil.auditing.exhibit import Exhibit
from veil.auditing.problem import Problem
from veil.data.pack import Pack
from veil.errors import InputError

DRAWS = 1000


def binary(p: float, q: float) -> float:
    """kl(p, q) of two coins, in nats."""
    terms = [(a, b) for a, b in ((p, q), (1 - p, 1 - q)) if a > 0]
    return sum(a * math.log(a / b) for a, b in terms)


@pytest.mark.parametrize(("n", "right"), [(50, 0), (200, 20), (1000, 85), (1000, 500), (300, 290)])
def test_equal_units_give_the_chernoff_bound_in_closed_form(n, right):
    """For n units of one range the bound is exp(-n kl(t, S)): its inverse is one root of one variable."""
    t = right / n
    exact = brentq(lambda s: n * binary(t, s) - math.log(20), t + 1e-12, 1 - 1e-12, xtol=1e-13)
    assert upper_limit(t, np.full(n, 1 / n), 0.05) == pytest.approx(exact, abs=1e-6)
    assert upper_limit(t, np.full(n, 1 / n), 0.05) >= exact - 1e-12  # an inexact minimum may only loosen it


def test_accuracy_of_independent_images_has_the_exact_binomial_limit():
    y = np.arange(400) % 2
    codes = np.where(np.arange(400) < 300, y, 1 - y)  # in 300 of 400 the code tells the class
    c = certify(codes, y, classes=2, figure="accuracy")
    assert c.plug_in == pytest.approx(0.75)
    assert c.bound == pytest.approx(beta.ppf(0.95, 301, 100))
    assert c.mcdiarmid == pytest.approx(0.75 + math.sqrt(math.log(20) / 800))


def test_plug_in_and_mcdiarmid_by_hand():
    """Classes of 2 and 4 samples: code 0 in 2/2 and 1/4, code 1 in 0/2 and 3/4; so S^ = (1 + 3/4) / 2."""
    codes, y = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1])
    c = certify(codes, y, classes=2)
    assert c.plug_in == pytest.approx(0.875)
    assert c.chance == 0.5
    assert (c.n, c.units, c.codes) == (6, 6, 2)
    assert c.mcdiarmid == 1.0
    many = certify(np.tile(codes, 500), np.tile(y, 500), classes=2, confidence=0.9)
    slack = math.sqrt(math.log(10) / 2 * (1 / (4 * 1000) + 1 / (4 * 2000)))
    assert many.mcdiarmid == pytest.approx(0.875 + slack)
    people = certify(np.tile(codes, 500), np.tile(y, 500), classes=2, confidence=0.9, people=np.arange(3000) // 6)
    assert people.units == 500
    assert people.mcdiarmid == pytest.approx(0.875 + math.sqrt(math.log(10) / 2 * 500 * (1 / 500) ** 2))


def table(seed: int, codes: int, classes: int, concentration: float) -> np.ndarray:
    """P(c | z) ``(Z, K)``; the smaller the concentration, the more codes tell of classes."""
    return np.random.default_rng(seed).dirichlet(np.full(codes, concentration), classes)


POPULATIONS = {
    "independent": np.full((5, 8), 1 / 8),
    "leaky": table(0, 12, 4, 1.0),
    "two classes": table(1, 6, 2, 3.0),
    "many classes": table(2, 16, 30, 20.0),
    "told outright": np.eye(3),
}


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize("figure", ["balanced_accuracy", "accuracy"])
def test_bound_holds_in_95_of_100_draws_or_more_and_lies_within_its_slack(name, figure):
    p = POPULATIONS[name]
    classes, codes = p.shape
    prior = np.full(classes, 1.0) if figure == "balanced_accuracy" else np.arange(1.0, classes + 1)
    prior /= prior.sum()
    best = (prior[:, None] * p).max(0).sum()  # what the best attacker gets who knows everything
    rng = np.random.default_rng(3)
    n, held = 240, 0
    for _ in range(DRAWS):
        y = (
            rng.permutation(np.arange(n) % classes)
            if figure == "balanced_accuracy"
            else rng.choice(classes, n, p=prior)
        )
        c = np.array((rng.random(n)[:, None] > p[y].cumsum(1)).sum(1))
        certificate = certify(np.minimum(c, codes - 1), y, classes=classes, figure=figure)
        held += certificate.bound >= best
        assert certificate.plug_in <= certificate.bound <= certificate.mcdiarmid + 1e-12
    assert held >= 0.95 * DRAWS


def test_bound_holds_where_a_persons_images_are_alike():
    """All images of a person get one code with chance 0.7: taken for independent, they would seem to prove too much."""
    p = table(4, 6, 3, 2.0)
    best = p.max(0).sum() / 3
    rng = np.random.default_rng(5)
    held = alone = 0
    for _ in range(DRAWS):
        people = 120
        z = rng.permutation(np.arange(people) % 3)
        who = np.repeat(np.arange(people), 1 + rng.integers(8, size=people))
        own = (rng.random(people)[:, None] > p[z].cumsum(1)).sum(1).clip(max=5)
        fresh = (rng.random(len(who))[:, None] > p[z[who]].cumsum(1)).sum(1).clip(max=5)
        codes = np.where(rng.random(len(who)) < 0.7, own[who], fresh)
        held += certify(codes, z[who], classes=3, people=who).bound >= best
        alone += certify(codes, z[who], classes=3).bound >= best
    assert held >= 0.95 * DRAWS
    assert alone <= held


def test_one_person_certifies_nothing():
    codes = np.random.default_rng(0).integers(0, 4, 400)
    y = np.arange(400) % 2
    alone = certify(codes, y, classes=2, people=np.zeros(400, np.int64))
    assert (alone.units, alone.bound) == (1, pytest.approx(1))
    assert certify(codes, y, classes=2).bound < 0.65


def test_bound_tightens_towards_the_best_attacker():
    p = POPULATIONS["many classes"]
    best = p.max(0).sum() / 30
    rng = np.random.default_rng(6)
    gaps = []
    for n in (300, 3000, 300_000):
        y = np.arange(n) % 30
        codes = (rng.random(n)[:, None] > p[y].cumsum(1)).sum(1).clip(max=15)
        gaps.append(certify(codes, y, classes=30).bound - best)
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 0.006


def test_bound_is_never_above_hoeffdings_and_never_below_the_value():
    rng = np.random.default_rng(7)
    for _ in range(300):
        ranges = rng.pareto(1.5, rng.integers(1, 400)) + 0.1
        ranges /= ranges.sum()
        value, delta = rng.random() ** 2, 10 ** -rng.uniform(0.5, 4)
        limit = upper_limit(value, ranges, delta)
        assert value <= limit <= min(1.0, value + math.sqrt(math.log(1 / delta) / 2 * np.square(ranges).sum())) + 1e-12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": np.zeros(6)}, "needs a finite release, that is one integer code for each sample; got float64"),
        ({"codes": np.zeros((6, 2), int)}, "needs a finite release"),
        ({"codes": np.arange(6)}, "whose values recur; 6 samples have 6 different ones"),
        ({"codes": np.zeros(5, int)}, "a code and a class for each sample, got 5 and 6"),
        ({"seen": np.arange(6) < 2}, "must not have been seen in training, but 2 of 6 were"),
        ({"y": np.zeros(6, int)}, "class 1 has no calibration sample"),
        ({"y": np.full(6, 2)}, r"classes in 0\.\.1, got codes from 0 and classes from 2 to 2"),
        ({"confidence": 1.0}, "confidence must lie between 0 and 1, got 1.0"),
    ],
)
def test_what_is_refused(changes, message):
    given = {"codes": np.array([0, 0, 1, 1, 0, 1]), "y": np.array([0, 1, 0, 1, 0, 1]), "classes": 2, **changes}
    with pytest.raises(InputError, match=f"certificate: .*{message}"):
        certify(given.pop("codes"), given.pop("y"), **given)


# The lookup table, and both in an audit


def problem(x: np.ndarray, y: np.ndarray, classes: int) -> Problem:
    return Problem(x=x, y=y, x_validation=x, y_validation=y, classes=classes, seed=0)


def test_lookup_table_is_bayes_rule_on_counts():
    x = np.array([[0.0, 1], [0, 1], [0, 1], [2, 2], [2, 2]], np.float32)
    score = lookup_table(problem(x, np.array([0, 0, 1, 1, 1]), 2))
    # P(00 | z): 1 and 1/3; P(22 | z): 0 and 2/3
    np.testing.assert_allclose(score(x[[0, 3]]), [[0.75, 0.25], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(score(np.array([[9, 9]], np.float32)), [[0.5, 0.5]])


def test_lookup_table_reads_images():
    x = np.zeros((4, 3, 3), np.uint8)
    x[2:] = 7
    np.testing.assert_allclose(lookup_table(problem(x, np.array([0, 0, 1, 1]), 2))(x), np.eye(2)[[0, 0, 1, 1]])


def test_values_that_recur_are_noticed():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 8)).astype(np.float32)
    assert recurs(values[rng.integers(20, size=500)])
    assert not recurs(rng.normal(size=(500, 8)).astype(np.float32))
    many = rng.normal(size=(3000, 2)).astype(np.float32)  # most differ in a sample of 2,000, and each occurs 8 times
    assert recurs(np.tile(many, (8, 1)))


def population(people: int = 900, leak: float = 0.5) -> tuple[Pack, np.ndarray]:
    """Two images a person; their code tells gender with chance ``leak``, and is anything otherwise."""
    rng = np.random.default_rng(0)
    gender = rng.permutation(people) % 2
    who = np.repeat(np.arange(people), 2)
    codes = np.where(rng.random(len(who)) < leak, gender[who], rng.integers(4, size=len(who)))
    x = rng.normal(size=(len(who), 3)).astype(np.float32)
    return Pack.from_arrays(x, {"identity": who, "gender": gender[who]}), codes


def found(pack: Pack, codes: np.ndarray, **options) -> dict[tuple[str, str], object]:
    x = np.eye(4, dtype=np.float32)[codes]
    subject = Exhibit.of("r", x, "method", codes=codes, **options)
    findings = audited(
        [subject], pack, private=["gender"], utility=[], changes=only("lookup table", "logistic regression")
    )
    return {(f.code, f.attacker): f for f in findings if f.role != "control"}


def test_audit_prints_the_certificate_beside_the_attack_and_above_it():
    pack, codes = population()
    findings = found(pack, codes, seen=pack.split == 0)
    bound = findings["certificate.balanced_accuracy", "any"]
    attack = findings["attribute.balanced_accuracy", "lookup table"]
    # Codes 0 and 1 are 1/2 + 1/8 of the one gender and 1/8 of the other; 2 and 3 say nothing: 0.625 + 0.125 in all.
    assert attack.value == pytest.approx(0.75, abs=0.06)
    assert attack.value < bound.value < 0.95
    assert bound.role == "bound"
    assert "McDiarmid" in bound.note
    assert "90 people the units" in bound.note
    bits = findings["utility.bits", "counts"]
    assert bits.low <= bits.value <= bits.high <= 2.1


@pytest.mark.parametrize(
    ("count", "message"),
    [(None, "fitted on data that the audit does not know"), (3, "seen in training, but 3 of 40 were")],
)
def test_audit_says_why_there_is_no_certificate(count, message):
    pack, codes = population(people=200)
    seen = None if count is None else np.isin(np.arange(len(pack)), pack.rows("calibrate")[:count])
    finding = found(pack, codes, seen=seen)["certificate.balanced_accuracy", "any"]
    assert finding.status == "not_applicable"
    assert message in finding.note
    assert finding.value is None


def test_audit_refuses_codes_that_do_not_fit():
    pack, codes = population(people=60)
    subject = Exhibit.of("r", np.asarray(pack.x), "method", codes=codes[:-1])
    with pytest.raises(InputError, match="needs one integer code for each of the pack's 120 rows"):
        audited([subject], pack, private=["gender"], utility=[])


def test_audit_refuses_rows_that_say_more_than_their_codes():
    """Such a release would be certified for what it does not hide."""
    pack, codes = population(people=60)
    x = np.eye(4, dtype=np.float32)[codes]
    x[17] += 1e-6
    subject = Exhibit.of("r", x, "method", codes=codes, seen=pack.split == 0)
    with pytest.raises(InputError, match="'r': rows of one code must be alike, and of rows 0 to 119 some are not"):
        audited([subject], pack, private=["gender"], utility=[])
