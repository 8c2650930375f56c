"""Template protection: alignment against closed forms, what is refused, what a release keeps, and that it hides."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.neural_network import MLPClassifier
from torch import nn

from conftest import faces_pack, vectors_pack
from methods_matrix import train
from veil.data.pack import Pack
from veil.engine import Run
from veil.errors import InputError
from veil.methods import deep, guard, labels, template
from veil.methods.guard import Classes, Plan, TemplateEncoder
from veil.nn.nets import to_input
from veil.nn.transport import SHRINKAGES
from veil.release import Release
from veil.release.draws import normalised_noise

SHORT = template.Config(batch=16, guess=16, steps_guess=2, folds=2, adversaries=2, steps=2)


def fit(pack: Pack, config: template.Config = SHORT, *, seed=0, **options) -> Release:
    return train("template", config, pack, run=Run(seed=seed, precision="fp32"), **options)


def one_line(caught: pytest.ExceptionInfo[InputError], *words: str) -> None:
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# The network


def encoder(k: int = 6, classes: int = 4) -> TemplateEncoder:
    """With every part away from where it starts."""
    made = TemplateEncoder(k, k, classes, 8)
    with torch.no_grad():
        for tensor in (made.centre, made.means, made.maps, made.guard[-1].weight, made.guard[-1].bias):
            tensor += 0.3 * torch.randn_like(tensor)
        made.guess[-1].weight *= 5  # sure of some
    return made


def test_new_encoder_changes_nothing_but_lengths():
    x = torch.randn(50, 6)
    made = TemplateEncoder(6, 6, 4, 8)
    for scale in (1.0, 1e-25, 1e25):
        torch.testing.assert_close(made(scale * x), F.normalize(x, dim=1))


def test_encoder_follows_its_equations():
    made, x = encoder(), F.normalize(torch.randn(50, 6), dim=1)
    p = made.probabilities(x)
    torch.testing.assert_close(p.sum(1), torch.ones(50))
    expected = sum(p[:, c, None] * (made.centre + (x - made.means[c]) @ made.maps[c]) for c in range(4))
    a = F.normalize(expected, dim=1)
    torch.testing.assert_close(made.aligned(x, p), a)
    seen = torch.cat([a * math.sqrt(6), 2 * p - 1], 1)
    torch.testing.assert_close(made(x), F.normalize(a + made.guard(seen), dim=1))
    torch.testing.assert_close(made(7 * x), made(x))


def test_told_classes_stand_in_for_the_guess():
    made, x = encoder(), F.normalize(torch.randn(50, 6), dim=1)
    codes = torch.arange(50) % 4
    told = F.one_hot(codes, 4).bool()
    moved = made.centre + torch.einsum("bk,bkl->bl", x - made.means[codes], made.maps[codes])
    torch.testing.assert_close(made(x, told), made.guarded(F.normalize(moved, dim=1), told.float()))
    torch.testing.assert_close(made(x, torch.ones_like(told)), made(x))
    # Of joint classes 0, 1 | 2, 3 one attribute tells the half: the guess within it keeps its odds.
    half = (torch.arange(4) < 2).expand(50, 4)
    p = made.probabilities(x)
    torch.testing.assert_close(made.probabilities(x, half)[:, :2], p[:, :2] / p[:, :2].sum(1, keepdim=True))


# Erasure


def test_what_tells_is_the_mean_outer_product_of_gradients():
    """Of softmax(W x) with two classes the gradient of p_1 is p_0 p_1 (w_1 - w_0), of p_0 its opposite."""
    rng = torch.Generator().manual_seed(0)
    reader = nn.Linear(5, 2)
    e = F.normalize(torch.randn(20_000, 5, generator=rng), dim=1)
    p = reader(math.sqrt(5) * e).softmax(1)
    direction = math.sqrt(5) * (reader.weight[1] - reader.weight[0])
    # A mixture with weights a, b of variance 1 has the gradient (b - a) p_0 p_1 (w_1 - w_0); (b - a)^2 is 2 on average.
    expected = 2 * (p[:, 0] * p[:, 1]).square().mean() * torch.outer(direction, direction)
    got = template.what_tells(reader, e, torch.Generator().manual_seed(1))
    torch.testing.assert_close(got.float(), expected.detach(), rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_drop_takes_the_directions_that_tell_most_for_their_worth(count):
    worth = np.diag([4.0, 1.0, 1.0, 0.1, 2.0])
    tells = np.diag([4.0, 3.0, 0.5, 0.4, 0.1])  # of a step, so for their worth, whatever that is
    left = template.drop(np.eye(5), tells, worth, count)
    np.testing.assert_allclose(left @ left.T, np.eye(5 - count), atol=1e-9)
    np.testing.assert_allclose(left[:, :count], 0, atol=1e-9)
    assert (np.diff(np.diag(left @ worth @ left.T)) <= 0).all()  # those of most worth first
    again = template.drop(left, tells, worth, 1)  # of what is left, in whatever basis
    np.testing.assert_allclose(again[:, count], 0, atol=1e-9)


ERASE = template.Config(noise=0.0, keep=0.75, align=False, hide=0.0, rounds=1, guess=32, steps_erase=200)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_erasure_finds_what_no_linear_classifier_reads():
    """Gender is the sign of the product of values 2 and 5: their plane goes, but for what was learned amiss."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 8)) * np.where(np.isin(np.arange(8), [2, 5]), 2.0, 1.0)
    gender = (x[:, 2] * x[:, 5] > 0).astype(int)
    people = np.arange(3000)
    pack = Pack.from_arrays(
        x.astype(np.float32), {"identity": people, "gender": gender}, split=["protect"] * 2000 + ["test"] * 1000
    )
    release = fit(pack, ERASE)
    basis = release.encoder.basis.numpy()
    assert basis.shape == (6, 8)
    np.testing.assert_allclose(basis @ basis.T, np.eye(6), atol=1e-5)
    assert np.abs(basis[:, [2, 5]]).max() < 0.25
    r, test = release.transform(pack.x), pack.rows("test")
    for values, least, most in ((template.unit_rows(pack.x, people), 0.9, 1.0), (r, 0.4, 0.6)):
        attacker = MLPClassifier((64,), max_iter=200, random_state=0).fit(values[:2000], gender[:2000])
        assert least <= balanced_accuracy_score(gender[test], attacker.predict(values[test])) <= most
    assert release.contract.asks is False
    assert release.contract.classes == {}
    assert np.linalg.norm(r, axis=1) == pytest.approx(np.ones(3000), abs=1e-5)


@pytest.mark.parametrize(("k", "keep", "kept"), [(128, 0.25, 32), (8, 0.1, 2), (2, 0.5, 2), (3, 0.5, 2)])
@pytest.mark.parametrize("empty", [0, 60])
def test_erasure_leaves_its_share_but_no_fewer_than_two_dimensions(k, keep, kept, empty):
    """Of the dimensions that hold variance: matchers may leave some without any."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(4000, k)), 1e-3 * rng.normal(size=(4000, empty))], axis=1)
    held, left = template.kept_dimensions(x @ np.linalg.qr(rng.normal(size=(k + empty,) * 2))[0], keep)
    assert left == kept
    assert max(2, 0.98 * k) <= held <= max(2, k)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("rank", "keep"), [(2, 0.5), (8, 0.99)])
def test_who_erases_nothing_says_so(rank, keep):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(900, rank)) @ rng.normal(size=(rank, 8))).astype(np.float32)
    pack = Pack.from_arrays(x, {"identity": np.arange(900), "gender": np.arange(900) % 2})
    made = fit(pack, replace(ERASE, keep=keep, steps_erase=1)).made
    assert any("erased nothing" in warning for warning in made["warnings"])
    made = fit(pack, replace(ERASE, keep=0.5 if rank == 8 else 1.0, hide=0.1, steps=1, steps_erase=1)).made
    assert not any("erased nothing" in warning for warning in made.get("warnings", ()))


def test_rounds_drop_equal_shares_and_readers_start_afresh():
    made, x = training(replace(SHORT, keep=0.5, align=False, hide=0.0, rounds=3, steps_erase=2, readers=1), k=16)
    assert made.eraser.widths.tolist() == [16, 13, 11, 8]
    assert [player.name for player in made.players] == ["reader 1", "basis"]
    made.train(x)
    assert made.eraser.readers[0].updates == 0
    assert {(stage, player) for _, stage, player, _ in made.eraser.run.curves} == {("erase", "reader 1")}
    made, _ = training(replace(SHORT, keep=0.5, rounds=50), k=4)
    assert made.eraser.widths.tolist() == [4, 3, 2]


def test_principal_axes_come_first():
    made, x = training(replace(SHORT, keep=0.5, align=False, hide=0.0, rounds=1, steps_erase=1))
    protector = made.train(x)
    e = F.normalize(x - protector.origin, dim=1) @ protector.basis.T
    covariances = (e.T @ e / len(e)).numpy()
    assert (np.diff(np.diag(covariances)) <= 1e-6).all()
    np.testing.assert_allclose(covariances - np.diag(np.diag(covariances)), 0, atol=1e-5)


# Settings and data that are refused


def test_all_problems_of_a_config_are_told_in_one_line():
    wrong = {"noise": -1.0, "hide": float("nan"), "folds": 1, "steps_guess": 0, "adversaries": 0, "lr": 0.0}
    with pytest.raises(InputError) as caught:
        template.Config(**wrong)
    one_line(caught, "template: ", *(f"{name}: must be >= " for name in wrong), "got -1.0", "got nan")
    assert "batch" not in str(caught.value)
    assert template.Config(hide=0.0, noise=0.0, refresh=0, steps=0)
    for keep in (0.0, -1.0, 1.01, float("nan")):
        with pytest.raises(InputError, match=r"keep: must lie in \(0, 1\]"):
            template.Config(keep=keep)


def small(n: int = 40, **labels: object) -> Pack:
    """Vectors of 20 people of the ``protect`` split."""
    given = {"identity": [f"p{i // 2}" for i in range(n)], "gender": ["f", "f", "m", "m"] * (n // 4)} | labels
    x = np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)
    return Pack.from_arrays(x, {k: v for k, v in given.items() if v is not None}, split=["protect"] * n)


def zeroed(row: int) -> Pack:
    pack = small()
    x = pack.x.copy()
    x[row] = 0
    return replace(pack, x=x)


def equal() -> Pack:
    pack = small()
    return replace(pack, x=np.ones_like(pack.x))


REFUSED = {
    "images": (faces_pack, {}, "needs a pack of vectors, got images"),
    "a base": (small, {"base": lambda: fit(small())}, "takes no base"),
    "nothing private": (small, {"private": list}, "private: at least one label must be named"),
    "unknown label": (small, {"private": lambda: ["age"]}, "age"),
    "unknown use": (small, {"utility": lambda: "age"}, "age"),
    "one class": (lambda: small(gender=["f"] * 40), {}, "gender has 1 class"),
    "one person": (lambda: small(identity=["p"] * 40, smile=[0, 1] * 20), {"utility": lambda: "smile"}, "2 people"),
    "a row of zeros": (lambda: zeroed(17), {}, "row 17 must be finite and not zero"),
    "vectors of one value": (lambda: replace(small(), x=small().x[:, :1]), {}, "at least 2 values"),
    "equal vectors": (equal, {}, "different vectors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unfit_data_are_refused_in_one_line(case):
    pack, options, words = REFUSED[case]
    with pytest.raises(InputError, match=words) as caught:
        fit(pack(), **{name: make() for name, make in options.items()})
    one_line(caught)


def test_unit_rows():
    x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    expected = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    for scale in (1, 1e-30, 1e30):  # squares of these are 0 and infinite in float32
        got = template.unit_rows((x * scale).astype(np.float32), np.arange(6))
        np.testing.assert_allclose(got, expected, atol=1e-6)
    for value in (0, np.nan, np.inf):
        bad = x.copy()
        bad[4] = value
        with pytest.raises(InputError, match="row 104 must be finite and not zero") as caught:
            template.unit_rows(bad, np.arange(100, 106))
        one_line(caught)


# What it trains on, and what it gives


def same(a: Release, b: Release) -> bool:
    one, other = a.encoder.state_dict(), b.encoder.state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_fit_sees_directions_of_the_protect_split_alone():
    """Other lengths, by powers of two; other vectors and labels elsewhere: the same release."""
    pack = vectors_pack()
    x, elsewhere = pack.x.copy(), pack.rows("attack", "calibrate", "test")
    x *= 2.0 ** (np.arange(len(x)) % 9 - 4)[:, None].astype(np.float32)
    x[elsewhere] = -x[elsewhere]
    gender = pack.label("gender").copy()
    gender[elsewhere] = 1 - gender[elsewhere]
    changed = replace(pack, x=x, labels={**pack.labels, "gender": gender})
    one, other = fit(pack), fit(changed)
    assert same(one, other)
    assert one.made["shrinkage"] == other.made["shrinkage"]
    assert one.made["shrinkage"] in SHRINKAGES
    assert one.made["data"] != other.made["data"]


def test_rows_of_unknown_label_are_left_out():
    pack = vectors_pack()
    gender, x = pack.label("gender").copy(), pack.x.copy()
    gender[pack.rows("protect")[::2]] = -1
    unknown = replace(pack, labels={**pack.labels, "gender": gender})
    x[gender < 0] = 0
    assert same(fit(unknown), fit(replace(unknown, x=x)))


def test_fit_follows_the_seed_and_takes_no_more_than_it_needs(monkeypatch):
    pack = vectors_pack()
    first = fit(pack)
    assert same(first, fit(pack))
    assert not same(first, fit(pack, seed=1))
    monkeypatch.setattr(template, "_MOST", 60)
    seen: list[int] = []
    exact_rows = template.unit_rows
    monkeypatch.setattr(template, "unit_rows", lambda x, rows: (seen.append(len(rows)), exact_rows(x, rows))[1])
    assert same(fit(pack), fit(pack))
    assert seen == [60, 60]


def test_people_without_identity_are_people_of_their_own():
    pack = vectors_pack()
    known = pack.label("identity").copy()
    rows = pack.rows("protect")
    known[rows[::3]] = -1
    who = labels.people(replace(pack, labels={**pack.labels, "identity": known}), rows)
    assert (who[1::3] == known[rows[1::3]]).all()
    assert len(np.unique(who)) == len(np.unique(known[rows][known[rows] >= 0])) + len(rows[::3])
    nobody = replace(pack, labels={name: codes for name, codes in pack.labels.items() if name != "identity"})
    assert (labels.people(nobody, rows) == np.arange(len(rows))).all()
    assert fit(nobody, utility="age").contract.k == 16


def test_several_labels_and_classes_and_a_joint_class_that_nobody_has():
    """Gender, and age in three bands, without a single old man."""
    pack = vectors_pack()
    rng = np.random.default_rng(0)
    age = np.where(pack.label("gender") == 0, rng.integers(3, size=len(pack)), rng.integers(2, size=len(pack)))
    pack = replace(pack, labels={**pack.labels, "age": age}, classes={**pack.classes, "age": ("20", "40", "60")})
    release = fit(pack, private=("gender", "age"))
    assert release.contract.classes == {"gender": ("female", "male"), "age": ("20", "40", "60")}
    protector = release.encoder
    assert protector.maps.shape == (6, 16, 16)
    assert torch.equal(protector.maps[5], torch.eye(16))
    assert torch.equal(protector.means[5], protector.centre)
    rows = pack.rows("protect")
    x = protector.erased(torch.from_numpy(template.unit_rows(pack.x[rows], rows))).numpy()  # around the origin
    for code in range(5):  # joint classes run as gender, then age
        own = (pack.label("gender")[rows] == code // 3) & (age[rows] == code % 3)
        np.testing.assert_allclose(protector.means[code], x[own].mean(0), atol=1e-6)
    assert protector.present.tolist() == [True] * 5 + [False]
    out = release.transform(pack.x[:9], told={"gender": np.ones(9, int), "age": np.full(9, 2)})
    np.testing.assert_allclose(out, release.transform(pack.x[:9]), atol=1e-6)  # nobody taught it that: it guesses
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("who", ["one person", "strangers"])
def test_a_class_of_few_people_ships_nothing_of_theirs(who, tmp_path):
    """The third age is one person's, or that of 40 rows of unknown identity, which may be one person's."""
    pack = vectors_pack()
    rows, age, identity = pack.rows("protect"), pack.label("age").copy(), pack.label("identity").copy()
    theirs = np.flatnonzero(identity == identity[rows[0]]) if who == "one person" else rows[:40]
    age[theirs] = 2
    if who == "strangers":
        identity[theirs] = -1
    labels = {**pack.labels, "age": age, "identity": identity}
    few = replace(pack, labels=labels, classes={**pack.classes, "age": ("20", "40", "60")})
    release = fit(few, private=("age",))
    assert release.encoder.present.tolist() == [True, True, False]
    assert torch.equal(release.encoder.means[2], release.encoder.centre)
    assert torch.equal(release.encoder.maps[2], torch.eye(16))
    unit = torch.from_numpy(template.unit_rows(pack.x[rows], rows))
    origin = torch.stack([unit[age[rows] == code].mean(0) for code in (0, 1)]).mean(0)
    torch.testing.assert_close(release.encoder.origin, origin)
    centred = release.encoder.erased(unit).numpy()
    for code in (0, 1):
        np.testing.assert_allclose(release.encoder.means[code], centred[age[rows] == code].mean(0), atol=1e-6)
    again = Release.load(release.save(tmp_path / "r"))
    told = again.transform(pack.x[:9], told={"age": np.full(9, 2)})
    np.testing.assert_allclose(told, again.transform(pack.x[:9]), atol=1e-6)
    two = replace(
        few, labels={**labels, "age": (age == 2).astype(np.int64)}, classes={**pack.classes, "age": ("a", "b")}
    )
    with pytest.raises(
        InputError, match=r"two private classes of at least 5 people each, for .* ships, got 1"
    ) as caught:
        fit(two, private=("age",))
    one_line(caught)


# Training


def training(config: template.Config, n: int = 240, k: int = 8) -> tuple[template.Training, torch.Tensor]:
    """People of three vectors each, of two genders and three ages."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(n // 3), 3)
    codes = [np.repeat(rng.permutation(n // 3) % z, 3) for z in (2, 3)]
    x = template.unit_rows(rng.normal(size=(n, k)).astype(np.float32), np.arange(n))
    run = Run(seed=0, precision="fp32")
    dimensions = template.kept_dimensions(x, config.keep) if config.keep < 1 else None
    classes = Classes.of("template", codes, [2, 3], people, ship=config.moves)
    made = template.Training(config, run, k, dimensions, classes)
    run.enter(*made.players)
    return made, run.tensor(x)


def test_guesses_are_out_of_fold():
    """Every row is guessed by the one classifier that did not learn from its person."""
    whole, x = training(replace(SHORT, folds=3))
    made, people = whole.guard, whole.classes.people
    for fold in range(3):
        learned = np.concatenate(made.learned[1 + fold])
        assert set(people[learned]).isdisjoint(people[made.fold == fold])
        assert set(people[learned]) | set(people[made.fold == fold]) == set(people)
    assert sorted(np.concatenate(made.learned[0])) == [*range(240)]
    sizes = np.bincount(made.fold)
    assert sizes.max() - sizes.min() <= 3  # one person
    with torch.no_grad():
        for number, player in enumerate(made.guesses):
            player.module[-1].weight.zero_()
            player.module[-1].bias.copy_(100.0 * (torch.arange(6) == number))
    assert (made.out_of_fold(x).argmax(1).numpy() == 1 + made.fold).all()


def test_class_within_one_fold_is_learned_whole():
    people = np.arange(40)

    def training(codes: np.ndarray) -> guard.Training:
        classes = Classes.of("template", [codes], [2], people)
        return guard.Training(Plan.of(replace(SHORT, folds=4)), Run(seed=0), TemplateEncoder(4, 4, 2, 8), classes)

    fold = training(people % 2).fold
    codes = np.isin(people, np.flatnonzero(fold == 2)[:6]).astype(np.int64)
    made = training(codes)
    assert all(members[1].tolist() == np.flatnonzero(codes).tolist() for members in made.learned)


def test_batches_hold_as_many_of_every_joint_class():
    classes = training(SHORT)[0].classes
    for step in Run(seed=0).stage("s", 3):
        rows = guard.balanced(18, step, classes.members)
        assert np.bincount(classes.joint[rows]).tolist() == [3] * 6


def test_adversaries_differ_and_start_afresh_in_turn():
    """Two adversaries, refreshed in turn after steps 2 and 4 of 5: each has then made the updates since its own."""
    made, x = training(replace(SHORT, refresh=2, steps=5))
    made.train(x)
    assert [a.updates for a in made.guard.adversaries] == [3, 1]
    made, _ = training(replace(SHORT, adversaries=6))
    shapes = {tuple(m.out_features for m in a.module if isinstance(m, nn.Linear)) for a in made.guard.adversaries}
    assert len(shapes) == 6
    assert {s[-1] for s in shapes} == {2 + 3}


def test_guard_is_the_mean_of_its_second_half(monkeypatch):
    made, x = training(replace(SHORT, steps=5))
    seen: list[list[torch.Tensor]] = []
    average = made.guard.average_guard

    def watched(step: object) -> None:
        seen.append([p.detach().clone() for p in made.guard.guard.parameters])
        average(step)

    monkeypatch.setattr(made.guard, "average_guard", watched)
    protector = made.train(x)
    assert len(seen) == 5
    for i, got in enumerate(protector.guard.parameters()):
        torch.testing.assert_close(got.detach(), torch.stack([s[i] for s in seen[2:]]).mean(0))
    assert (seen[4][-1] - protector.guard[-1].bias).abs().max() > 0


def test_guard_learns_under_its_own_noise():
    """What the adversaries see lies off the aligned vectors by ``training_noise``, whatever the release adds."""
    config = replace(SHORT, noise=0.0, training_noise=0.7, batch=36, steps=1)
    made, x = training(config, k=64)
    inputs: list[torch.Tensor] = []
    released: list[torch.Tensor] = []
    made.encoder.guard.register_forward_pre_hook(lambda _, given: inputs.append(given[0][:, :64] / 8))
    made.guard.adversaries[0].module.register_forward_pre_hook(lambda _, given: released.append(given[0] / 8))
    made.train(x)
    # The guard's first step changes nothing. cos = 1 / sqrt(1 + 0.7^2), standard deviation below 0.7 / sqrt(64) a row.
    cosine = (inputs[0] * released[0]).sum(1)
    assert cosine.mean().item() == pytest.approx(1 / math.sqrt(1.49), abs=5 * 0.7 / math.sqrt(64 * 36))


def test_parts_that_are_left_out():
    made, x = training(replace(SHORT, align=False, hide=0.0))
    assert made.players == []
    assert made.encoder.guess is None
    protector = made.train(x)
    torch.testing.assert_close(protector(x), F.normalize(x - protector.origin, dim=1))
    made, x = training(replace(SHORT, hide=0.0))
    protector = made.train(x)
    assert (protector.maps - torch.eye(8)).abs().max() > 0.01
    assert protector.guard[-1].weight.abs().max() == 0
    assert {stage for _, stage, *_ in made.guard.run.curves} == {"guess"}


# The release


@pytest.fixture(scope="module")
def several() -> Release:
    """Gender and age, with noise."""
    return fit(vectors_pack(), replace(SHORT, noise=0.5), private=("gender", "age"))


def test_release_follows_what_it_is_told(several):
    pack, clean = vectors_pack(), replace(several, contract=replace(several.contract, noise=0.0))
    x, n = pack.x[:40], 40
    gender, age = pack.label("gender")[:n], pack.label("age")[:n]
    for told, joint in (
        ({"gender": gender, "age": age}, F.one_hot(torch.from_numpy(2 * gender + age), 4).bool()),
        ({"age": age.astype(np.uint8)}, torch.from_numpy(age[:, None] == np.arange(4) % 2)),
        ({"gender": gender}, torch.from_numpy(gender[:, None] == np.arange(4) // 2)),
    ):
        with torch.no_grad():
            expected = clean.encoder(to_input(x, "vectors"), joint).numpy()
        np.testing.assert_allclose(clean.transform(x, told=told, batch=7), expected, atol=1e-5)
    guessed = clean.transform(x)
    assert np.abs(clean.transform(x, told={"gender": 1 - gender}) - guessed).max() > 0.01
    np.testing.assert_allclose(clean.transform(x, told={"gender": np.full(n, -1)}), guessed, atol=1e-6)
    assert (clean.transform(x, told={}) == guessed).all()
    some = np.where(np.arange(n) < 20, -1, gender)
    np.testing.assert_allclose(clean.transform(x, told={"gender": some})[:20], guessed[:20], atol=1e-6)
    assert len(clean.transform(x[:0], told={"gender": gender[:0]})) == 0


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"smile": np.zeros(4, int)}, ("one of gender, age", "'smile'")),
        ({"gender": np.zeros(3, int)}, ("gender must be 4 integer codes", "shape (3,)")),
        ({"gender": np.zeros((4, 1), int)}, ("gender must be 4 integer codes", "shape (4, 1)")),
        ({"gender": np.zeros(4)}, ("gender must be 4 integer codes", "float64")),
        ({"age": np.array(["old"] * 4)}, ("age must be 4 integer codes", "<U3")),
        ({"gender": np.array([0, 1, 2, 0])}, ("gender must be codes from -1 to 1", "got 2")),
        ({"gender": np.array([0, 1, -2, 0])}, ("gender must be codes from -1 to 1", "got -2")),
    ],
)
def test_wrong_codes_are_refused(several, told, words):
    with pytest.raises(InputError) as caught:
        several.transform(vectors_pack().x[:4], told=told)
    one_line(caught, "told: ", *words)


def test_release_that_only_guesses_says_so():
    release = train("deep", deep.Config(features=8, batch=16, steps_alone=1, steps_joint=1), vectors_pack())
    with pytest.raises(InputError, match="it guesses") as caught:
        release.transform(vectors_pack().x[:4], told={"gender": np.zeros(4, int)})
    one_line(caught, "'gender'")


def test_vectors_without_direction_are_refused(several):
    x = vectors_pack().x[:40].copy()
    x[33] = 0
    with pytest.raises(InputError, match="row 33 must have a direction") as caught:
        several.transform(x, batch=8)
    one_line(caught)
    x[33, 2] = np.nan
    with pytest.raises(InputError, match="row 33 must be finite") as caught:
        several.transform(x, batch=8)
    one_line(caught)


def test_noise_is_the_field_of_the_clean_release_whatever_is_told(several):
    pack, clean = vectors_pack(), replace(several, contract=replace(several.contract, noise=0.0))
    x = pack.x[:40]
    for told in (None, {"gender": pack.label("gender")[:40]}):
        out = several.transform(x, told=told)
        assert (several.transform(x, told=told) == out).all()
        z = torch.from_numpy(clean.transform(x, told=told))
        np.testing.assert_allclose(out, normalised_noise(z, several.field(z), 0.5), atol=1e-6)
        np.testing.assert_allclose(
            several.transform(x[:1], told=told and {"gender": told["gender"][:1]}), out[:1], atol=1e-5
        )
    other = replace(several, key=bytes(32)).transform(x)
    assert (np.abs(other - several.transform(x)).max(1) > 0.01).all()


def test_saved_is_loaded(several, tmp_path):
    x, told = vectors_pack().x[:40], {"age": vectors_pack().label("age")[:40]}
    again = Release.load(several.save(tmp_path / "r"))
    assert again.contract == several.contract
    assert template.Config(**again.config) == replace(SHORT, noise=0.5)
    assert asdict(template.Config(**several.config)) == several.config
    assert (again.transform(x) == several.transform(x)).all()
    assert (again.transform(x, told=told) == several.transform(x, told=told)).all()


def test_onnx_equals_transform(several, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    clean = replace(several, contract=replace(several.contract, noise=0.0), key=None)
    network = clean.export(tmp_path / "r") / "release.onnx"
    session = runtime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    x = vectors_pack().x[:40]
    for scale in (np.float32(1), np.float32(1e-25)):
        (out,) = session.run(["release"], {"x": scale * x})
        np.testing.assert_allclose(out, clean.transform(x), atol=1e-5)


# Learned hiding, with a known answer


@cache
def mixture(people: int = 1200, d: int = 24) -> Pack:
    """Three vectors each of people whose gender shifts values 0-1, widens values 2-5 and narrows values 6-9.

    Of the latter a linear attacker sees nothing. Values 10-23 say who somebody is and nothing of gender.
    """
    rng = np.random.default_rng(0)
    gender = rng.permutation(people) % 2
    sign = 2 * gender[:, None] - 1
    own = rng.normal(size=(people, d)) * np.exp(sign * np.repeat([0, 0.4, -0.4, 0], [2, 4, 4, d - 10]))
    own[:, :2] += 1.2 * sign
    who = np.repeat(np.arange(people), 3)
    x = own[who] + rng.normal(scale=0.25, size=(len(who), d))
    return Pack.from_arrays(x.astype(np.float32), {"identity": who, "gender": np.array(["f", "m"])[gender[who]]})


def attack(r: np.ndarray) -> float:
    """Best balanced accuracy on test people of fresh attackers that train on everybody else."""
    pack = mixture()
    y, train, test = pack.label("gender"), pack.rows("protect", "attack", "calibrate"), pack.rows("test")
    attackers = (
        LogisticRegression(C=100, max_iter=1000),
        QuadraticDiscriminantAnalysis(reg_param=1e-3),
        MLPClassifier((64,), max_iter=60, random_state=0),
        HistGradientBoostingClassifier(random_state=0),
    )
    return max(balanced_accuracy_score(y[test], a.fit(r[train], y[train]).predict(r[test])) for a in attackers)


def matching(r: np.ndarray) -> float:
    """AUC of the cosine over all pairs of test vectors."""
    test = mixture().rows("test")
    who, pairs = mixture().label("identity")[test], np.triu_indices(len(test), 1)
    return float(roc_auc_score((who[:, None] == who)[pairs], (r[test] @ r[test].T)[pairs]))


LEARN = template.Config(
    noise=0.5, training_noise=0.7, hide=3.0, batch=128, guess=64, steps_guess=150, folds=2, adversaries=3,
    refresh=40, steps=300, lr=3e-3, lr_opponents=3e-3,
)  # fmt: skip
fresh_attackers = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@fresh_attackers
def test_hides_from_fresh_attackers_and_keeps_matching():
    """Noise alone leaves gender to be read at 0.95 (chance 0.5); with alignment and guard it falls below 0.78."""
    pack = mixture()
    assert attack(template.unit_rows(pack.x, np.arange(len(pack)))) > 0.97
    noise = fit(pack, replace(LEARN, align=False, hide=0.0)).transform(pack.x)
    protected = fit(pack, LEARN).transform(pack.x)
    assert attack(noise) > 0.95
    assert attack(protected) < 0.78
    assert matching(noise) > 0.999
    assert matching(protected) > 0.995


@fresh_attackers
def test_erasure_hides_from_fresh_attackers_and_keeps_matching():
    """Gender is in values 0 to 9 of 24, read at over 0.97; half the width gives it away at below 0.75."""
    pack = mixture()
    config = replace(LEARN, noise=0.0, keep=0.5, align=False, hide=0.0, rounds=6, steps_erase=150)
    erased = fit(pack, config).transform(pack.x)
    assert erased.shape == (3600, 12)
    assert attack(erased) < 0.75
    assert matching(erased) > 0.99


@fresh_attackers
def test_a_told_class_is_hidden_better_than_a_guessed_one():
    """Who is guessed wrongly is moved wrongly; told, only the error of estimated means and covariances is left."""
    pack = mixture()
    aligned = fit(pack, replace(LEARN, hide=0.0, noise=0.0))
    guessed, told = (aligned.transform(pack.x, told=t) for t in (None, {"gender": pack.label("gender")}))
    assert attack(guessed) < 0.85
    assert attack(told) < attack(guessed) - 0.05
    assert matching(told) > 0.999


# Vectors of other matchers


@cache
def embeddings(shape: str) -> Pack:
    """Vectors, two each, of 500 people whose gender shifts a third of what tells them apart, as matchers give them."""
    rng = np.random.default_rng(0)
    gender = np.arange(500) % 2
    latent = rng.standard_normal((500, 24))
    latent[:, :8] += 0.8 * (2 * gender[:, None] - 1)
    x = np.repeat(latent, 2, 0) + 0.4 * rng.standard_normal((1000, 24))
    if shape == "off-centre":
        x = x + 3 * np.sqrt(24) * np.linalg.qr(rng.standard_normal((24, 24)))[0][0]
    elif shape == "of unequal spread":
        x = x * np.geomspace(0.2, 5, 24)[rng.permutation(24)]
    elif shape == "of low rank":
        x = x @ rng.standard_normal((24, 96))
    elif shape == "of unequal length":
        x = x * rng.lognormal(0, 1, (1000, 1))
    labels = {"gender": np.repeat(gender, 2), "identity": np.repeat(np.arange(500), 2)}
    return Pack.from_arrays(x.astype(np.float32), labels)


def unlike(x: np.ndarray, rows: np.ndarray, identity: np.ndarray) -> float:
    """AUC of matching by the cosine of vectors as they are."""
    unit = x[rows] / np.linalg.norm(x[rows], axis=1, keepdims=True)
    a, b = np.triu_indices(len(rows), 1)
    return float(roc_auc_score(identity[rows][a] == identity[rows][b], (unit @ unit.T)[a, b]))


SHAPES = ["around 0", "off-centre", "of unequal spread", "of low rank", "of unequal length"]
PARTS = {
    "aligned": {"hide": 0.0},
    "guarded": {"hide": 1.0, "steps": 60, "batch": 128, "adversaries": 2, "refresh": 20},
    "erased": {"hide": 0.0, "align": False, "keep": 0.5, "rounds": 4, "steps_erase": 60},
}
"""What hides, each alone or with the alignment before it, in a few steps."""


GUARD = pytest.mark.xfail(
    strict=True, reason="where a few axes hold most of the variance, the guard gives back some of what alignment took"
)


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        pytest.param(shape, part, marks=[GUARD] if (shape, part) == ("of unequal spread", "guarded") else [])
        for shape in SHAPES
        for part in PARTS
    ],
)
def test_vectors_of_every_matcher_are_protected(shape, part):
    pack = embeddings(shape)
    gender, identity = pack.label("gender"), pack.label("identity")
    train, test = pack.rows("attack", "calibrate"), pack.rows("test")
    config = template.Config(noise=0.5, guess=64, steps_guess=200, **PARTS[part])
    out = fit(pack, config).transform(np.asarray(pack.x))
    centred = pack.x - pack.x[pack.rows("protect")].mean(0)

    def attack(x: np.ndarray) -> float:
        x = (x - x[train].mean(0)) / x[train].std(0)
        return float(LogisticRegression(C=0.1).fit(x[train], gender[train]).score(x[test], gender[test]))

    # So few people leave .76 around 0; 250 test rows of 125 people add three errors of some .03 at most.
    assert attack(np.asarray(pack.x)) > 0.92
    assert attack(out) < 0.85
    # Noise of half the length of what tells people apart costs some; of half of an offset it would leave nothing.
    assert unlike(out, test, identity) > unlike(centred, test, identity) - 0.05
