"""Substitution: information in closed form, prices that noise does not raise, averages of several people, hiding."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import faces_pack, vectors_pack
from methods_matrix import train
from veil.auditing.classical import lookup_table
from veil.auditing.metrics import balanced_accuracy
from veil.auditing.problem import Problem
from veil.data.pack import Pack
from veil.errors import InputError
from veil.methods import substitution
from veil.methods.substitution import Averages, Config, information, prices, shared
from veil.release import Release

SHORT = Config(batch=32, codes=6, heads=2, steps=3, people=2, rare=0.0, guide=0.0, keep=1.0, hide=2.0)


def fit(pack: Pack, config: Config = SHORT, **options) -> Release:
    return train("substitution", config, pack, **options)


# Information


def test_information_by_hand():
    assert information(torch.tensor([[1.0, 0], [0, 1]]) * 3).item() == pytest.approx(math.log(2))
    assert information(torch.outer(torch.tensor([0.2, 0.8]), torch.tensor([0.5, 0.3, 0.2]))).item() == pytest.approx(
        0, abs=1e-6
    )
    p = np.array([[0.3, 0.1], [0.2, 0.4]])
    expected = (p * np.log(p / np.outer(p.sum(1), p.sum(0)))).sum()
    assert information(torch.from_numpy(7 * p)).item() == pytest.approx(expected)


def test_views_with_equal_certain_codes_share_the_codes_entropy():
    codes = torch.tensor([0, 0, 0, 1, 2, 2])
    p = torch.nn.functional.one_hot(codes, 4).double()[:, None]
    entropy = -(0.5 * math.log(0.5) + math.log(1 / 6) / 6 + math.log(1 / 3) / 3)
    assert shared(p, p).tolist() == [pytest.approx(entropy)]
    assert shared(p, p[torch.tensor([3, 4, 5, 0, 1, 2])]).item() < entropy


def test_price_is_the_derivative_of_the_leak(monkeypatch):
    """d I(z; c) / d P(c | x) = log p(c | z) / p(c), up to what is the same for all codes of a row."""
    monkeypatch.setattr(substitution, "_SHRINK", 0.0)
    logits = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    z = torch.arange(12) % 3
    p = logits.softmax(1)
    table = torch.zeros(3, 5, dtype=torch.float64).index_add(0, z, p) / 4
    (exact,) = torch.autograd.grad(information(table), logits, retain_graph=True)
    (ours,) = torch.autograd.grad((p * prices(table.detach())[z]).sum() / 12, logits)
    torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-9)


def test_prices_of_one_half_do_not_charge_for_the_noise_of_the_other():
    """Codes that are independent of the class: the plug-in leak is its bias, the price by the other half's table 0."""
    rng = np.random.default_rng(0)
    n, classes, codes = 600, 10, 12
    plug_in, crossed = [], []
    for _ in range(200):
        tables = []
        for _ in range(2):
            table = np.zeros((classes, codes))
            np.add.at(table, (rng.integers(classes, size=n), rng.integers(codes, size=n)), 1)
            tables.append(torch.from_numpy(table / table.sum(1, keepdims=True)))
        plug_in.append(information(tables[0]).item())
        crossed.append((tables[0] * prices(tables[1])).sum().item() / classes)
    bias = (codes - 1) * (classes - 1) / (2 * n)
    assert np.mean(plug_in) == pytest.approx(bias, rel=0.2)
    assert -bias < np.mean(crossed) < 0.1 * bias  # the log of a noisy table errs towards nothing to pay, never above


def test_running_averages_by_hand():
    averages = Averages(classes=2, heads=1, codes=2)
    p = torch.tensor([[[1.0, 0]], [[0, 1]], [[0, 1]], [[0.5, 0.5]]])
    averages.update(p, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1]), memory=0.75)
    assert averages.table.shape == (2, 1, 2, 2)
    expected = [[[[0.5, 0.5], [0.375, 0.625]]], [[[0.5, 0.5], [0.5, 0.5]]]]  # (half, head, class, code)
    torch.testing.assert_close(averages.table, torch.tensor(expected))


# What is learned


def attack(release: Release, pack: Pack, label: str) -> float:
    """Balanced accuracy on test of the exact best attack by what attackers see on the other people."""
    x, y = release.transform(np.asarray(pack.x)), pack.label(label)
    seen, test = pack.rows("protect", "attack", "calibrate"), pack.rows("test")
    score = lookup_table(Problem(x=x[seen], y=y[seen], x_validation=x[test], y_validation=y[test], classes=2, seed=0))
    return balanced_accuracy(y[test], score(x[test]).argmax(1), classes=2)


def test_codes_keep_a_label_and_hide_another():
    """Gender is told by three of 16 values, age by one: left alone codes tell gender, at a price they tell age."""
    pack = vectors_pack(people=900)
    config = replace(SHORT, batch=256, codes=8, steps=150, keep=0.3, substitutes="code")
    free = fit(pack, replace(config, hide=0.0, guide=0.0, keep=1.0), utility="age")
    hidden = fit(pack, replace(config, hide=4.0, guide=1.0), utility="age")
    assert attack(hidden, pack, "age") > 0.9
    assert attack(hidden, pack, "gender") < 0.56
    assert attack(free, pack, "gender") > 0.9
    assert hidden.made["leak_bits"]["gender"] < 0.01


def test_two_private_labels_at_once():
    pack = vectors_pack(people=900)
    config = replace(SHORT, batch=256, codes=8, steps=150, hide=4.0, guide=0.0, substitutes="code")
    release = fit(pack, config, private=("gender", "age"))
    assert release.made["leak_bits"].keys() == {"gender", "age"}
    assert attack(release, pack, "gender") < 0.57
    assert attack(release, pack, "age") < 0.57


def test_rare_codes_are_dropped():
    release = fit(vectors_pack(), replace(SHORT, codes=40, rare=0.03, substitutes="code", steps=40))
    share = np.bincount(release.codes(vectors_pack().x), minlength=release.contract.support) / len(vectors_pack())
    assert release.contract.support < 34  # 1 / 0.03
    assert release.contract.k == release.contract.support
    assert share.sum() == pytest.approx(1)
    assert fit(vectors_pack(), replace(SHORT, rare=0.99, substitutes="code")).contract.support >= 1


# Releases


def test_one_input_has_one_release_and_draws_follow_the_probabilities():
    pack = vectors_pack()
    release = fit(pack, replace(SHORT, substitutes="code", steps=1, batch=300))  # hardly trained: codes are uncertain
    x = np.asarray(pack.x)
    codes = release.codes(x)
    assert (codes == release.codes(x)).all()
    assert (release.codes(x[::-1]) == codes[::-1]).all()
    p = substitution.probabilities(release.encoder, pack, np.arange(len(pack)))
    assert p.max(1).mean() < 0.9
    expected, got = p.sum(0), np.bincount(codes, minlength=p.shape[1])
    sd = np.sqrt((p * (1 - p)).sum(0))
    assert (np.abs(got - expected) < 5 * sd).all()
    other = replace(release, key=bytes(32))
    assert (other.codes(x) != codes).mean() > 0.3
    likeliest = fit(pack, replace(SHORT, substitutes="code", draw=False))
    assert likeliest.key is None
    own = substitution.probabilities(likeliest.encoder, pack, np.arange(len(pack)))
    assert (likeliest.codes(x) == own.argmax(1)).all()


def persons(people: int = 12, images: int = 3) -> Pack:
    """Person i's images are all of brightness 10 i: an average tells who is in it."""
    who = np.repeat(np.arange(people), images)
    x = np.broadcast_to((10 * who)[:, None, None], (len(who), 12, 12)).astype(np.uint8)
    labels = {"identity": who, "gender": who % 2}
    return Pack.from_arrays(x, labels, split=["protect"] * len(who))


@pytest.mark.parametrize("k", [2, 3, 5])
def test_a_substitute_is_the_mean_of_k_people(k):
    release = fit(persons(), replace(SHORT, people=k, codes=4))
    means = {round(float(v)): 0 for v in release.encoder.substitutes.float().mean((1, 2))}
    for mean in means:
        # k different multiples of 10 add up to a multiple of 10; the mean was rounded to a whole number.
        total = mean * k
        nearest = 10 * round(total / 10)
        assert abs(total - nearest) <= k / 2
        assert 10 * sum(range(k)) <= nearest <= 10 * sum(range(12 - k, 12))
    assert release.contract.image == (12, 12)


def test_who_is_unknown_is_in_no_average():
    """A stranger's 40 images might pass for those of 40 people; theirs alone are bright."""
    known = persons()
    x = np.concatenate([known.x, np.full((40, 12, 12), 250, np.uint8)])
    labels = {"identity": [*known.label("identity").tolist(), *[None] * 40], "gender": np.arange(76) % 2}
    release = fit(Pack.from_arrays(x, labels, split=["protect"] * 76), replace(SHORT, people=5, codes=4, steps=20))
    assert release.encoder.substitutes.max() <= 110
    few = {**labels, "identity": ["a", "b", *[None] * 74]}
    with pytest.raises(InputError, match="an average needs 5 people whose identity is known, and split protect has 2"):
        fit(Pack.from_arrays(x, few, split=["protect"] * 76), replace(SHORT, people=5))


def test_single_images_and_targets_need_a_flag():
    for options in ({"substitutes": "single"}, {"target": "0"}):
        with pytest.raises(InputError, match="show a real person to everybody; set expose=true"):
            replace(SHORT, **options)
    pack = persons()
    originals = {image.tobytes() for image in np.asarray(pack.x)}
    release = fit(pack, replace(SHORT, substitutes="single", expose=True))
    assert all(s.numpy().tobytes() in originals for s in release.encoder.substitutes)
    of_target = fit(pack, replace(SHORT, target="1", expose=True))
    bright = {int(s.float().mean()) // 10 % 2 for s in of_target.encoder.substitutes}
    assert bright == {1}


def test_vectors_have_vectors_for_substitutes():
    release = fit(vectors_pack())
    assert release.encoder.substitutes.dtype == torch.float32
    assert release.transform(vectors_pack().x[:5]).shape == (5, 16)
    assert release.contract.image is None


def test_images_of_any_size_and_colour():
    rng = np.random.default_rng(0)
    for shape in ((20, 20), (33, 33, 3), (8, 8), (50, 50)):
        x = rng.integers(256, size=(60, *shape), dtype=np.uint8)
        pack = Pack.from_arrays(x, {"identity": np.arange(60), "gender": np.arange(60) % 2}, split=["protect"] * 60)
        assert fit(pack).transform(x[:3]).shape == (3, *shape)


# What is refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"codes": 1}, "codes: must be >= 2, got 1"),
        ({"people": 1}, "people: must be >= 2, got 1"),
        ({"hide": -1.0}, "hide: must be >= 0, got -1.0"),
        ({"memory": 1.0}, r"memory: must lie in \[0, 1\), got 1.0"),
        ({"substitutes": "mean"}, "substitutes: must be one of average, code, single, got 'mean'"),
        ({"hide": float("nan")}, "hide: must be >= 0, got nan"),
    ],
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(InputError, match=f"^substitution: {words}"):
        Config(**settings)


def test_data_that_does_not_fit():
    pack = persons(people=4)
    with pytest.raises(InputError, match="an average needs 10 people whose identity is known, and split protect has 4"):
        fit(pack, replace(SHORT, people=10))
    with pytest.raises(InputError, match="averages need the label that says who is seen, and 'writer' is none"):
        fit(pack, replace(SHORT, person="writer"))
    with pytest.raises(InputError, match="target: must be a class of gender, got 'x'"):
        fit(pack, replace(SHORT, target="x", expose=True))
    with pytest.raises(InputError, match="private: at least one label must be named"):
        fit(pack, private=())
    with pytest.raises(InputError, match="takes no base"):
        fit(pack, base=fit(pack))
    guided = replace(SHORT, guide=1.0)
    with pytest.raises(InputError, match="label 'smile': the pack has"):
        fit(pack, guided, utility="smile")
    with pytest.raises(
        InputError, match="cannot keep identity, got 'identity'; name the label to keep, or set guide=0"
    ):
        fit(pack, guided)


def test_utility_label_is_never_looked_at_without_guide():
    pack = faces_pack()
    config = replace(SHORT, guide=0.0)
    one = fit(pack, config, utility="smile")
    labels = {**pack.labels, "smile": 1 - pack.labels["smile"]}
    two = fit(replace(pack, labels=labels), config, utility="smile")
    assert all(torch.equal(a, b) for a, b in zip(one.encoder.parameters(), two.encoder.parameters(), strict=True))
    guided = fit(pack, replace(config, guide=1.0), utility="smile")
    assert not all(
        torch.equal(a, b) for a, b in zip(one.encoder.parameters(), guided.encoder.parameters(), strict=True)
    )
