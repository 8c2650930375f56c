"""Deep: its networks side by side, what it refuses, and that it hides what it is told to and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.neural_network import MLPClassifier

from conftest import vectors_pack
from methods_matrix import train
from test_aia import PARTS, curves, dense, of_type, several, small
from veil.data.pack import Pack
from veil.engine import Run
from veil.errors import InputError
from veil.methods import deep
from veil.methods.protocol import Task
from veil.nn.nets import OrientationMaps
from veil.release import Release
from veil.release.contract import Contract

SMALL = deep.Config(features=8, networks=1, noise=0.0, augment=False, batch=16, steps_alone=2, steps_joint=3)


def fit(pack: Pack, config: deep.Config = SMALL, **options) -> tuple[Release, Run]:
    run = Run(seed=0, precision="fp32")
    return train("deep", config, pack, run=run, **options), run


def test_networks_stand_side_by_side(faces):
    """z is the networks' unit vectors, one after the other; the second sees edges, not how light the image is."""
    config = deep.Config(features=8, networks=3)
    contract = deep.contract_of(config, faces, ["gender", "smile"])
    assert contract == Contract(
        kind="images", shape=(32, 32), k=24, noise=0.5,
        classes={"gender": ("female", "male"), "smile": ("no", "yes")},
    )  # fmt: skip
    encoder = deep.build(config, contract)
    assert [bool(of_type(n, OrientationMaps)) for n in encoder.networks] == [False, True, False]
    x = torch.rand(4, 1, 32, 32)
    parts = encoder.parts(x)
    assert [p.shape for p in parts] == [(4, 8)] * 3
    for part in parts:
        torch.testing.assert_close(part.norm(dim=1), torch.ones(4))
    z = encoder.represent(x)
    torch.testing.assert_close(z.reshape(4, 3, 8) * math.sqrt(3), torch.stack(parts, 1))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(4))
    grey, edges, _ = (a - b for a, b in zip(encoder.parts(x / 2 + 0.25), parts, strict=True))
    # Maps are relative to what is around them but for constants of 1e-6 and 1e-4 (squares) that keep flat areas at 0.
    assert edges.abs().max() < 0.01 < 0.1 * grey.abs().max()


def test_it_protects_by_its_own_settings():
    config = deep.Config(hide=2.0, steps_joint=90, batch=50, lr=0.01, lr_opponents=0.02)
    got = config.protection
    assert (got.hide, got.lr, got.lr_opponents) == (2.0, 0.01, 0.02)
    assert (got.steps_guess, got.steps, got.batch) == (30, 90, 100)
    assert replace(config, steps_joint=0).protection.steps == 0  # alignment and noise alone


@pytest.mark.parametrize(
    ("pack", "words"),
    [
        (small((24, 32)), "deep: height and width must be divisible by 16"),
        (small((32, 32, 3)), "deep: needs grey images"),
        (small((32, 32), identity=[str(i) for i in range(40)]), "identity"),
    ],
    ids=["height", "colour", "nobody twice"],
)
def test_unfit_data_are_refused_in_one_line(pack, words):
    with pytest.raises(InputError, match=words) as caught:
        fit(pack)
    assert "\n" not in str(caught.value)


def test_settings_out_of_range():
    with pytest.raises(
        InputError, match=r"^deep: networks: must be <= 64, got 65; hide: must be >= 0, got -1; batch: must be even"
    ):
        deep.Config(networks=65, hide=-1, batch=7)


def test_every_player_has_curves(faces):
    _, run = fit(faces, replace(SMALL, steps_alone=4))
    assert curves(run) == {
        ("representation", "networks"),
        *(("guess", name) for name in ("guess", *(f"guess without fold {i}" for i in range(1, 5)))),
        ("guard", "guard"), *(("guard", f"adversary {i}") for i in range(1, 7)),
        ("decoder", "decoder"),
    }  # fmt: skip


@pytest.mark.parametrize("parts", PARTS, ids=lambda p: "-".join(str(v) for v in p.values()))
def test_every_combination_of_parts_trains_every_part(parts):
    """Networks, protection, decoder and task all move; with two private attributes at once, where there is a third."""
    pack, private, utility = several(**parts)
    config = replace(SMALL, networks=2, batch=8, steps_alone=4)
    release, run = fit(pack, config, private=private, utility=utility)
    assert all(p.updates > 0 for p in run.players)
    assert release.made["private"] == list(private)
    assert release.made["utility"] == utility
    adversary = next(p for p in run.players if p.name == "adversary 1")
    assert dense(adversary.module)[-1][1] == sum(len(pack.classes[name]) for name in private)
    if utility != "identity":
        task = next(p for p in run.players if p.name == "task")
        assert dense(task.module)[-1][1] == len(pack.classes[utility])
    moved = release.transform(pack.x[:9])
    start, _ = fit(pack, replace(config, steps_alone=1, steps_joint=0, lr=1e-8), private=private, utility=utility)
    assert np.abs(moved - start.transform(pack.x[:9])).max() > 1e-4
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-6)
    assert (release.contract.k, release.contract.feature_map) == (16, None)
    assert list(release.contract.classes) == list(private)
    assert release.contract.told == {}  # it was never told a class in training


def test_without_protection_is_its_networks_alone(faces):
    release, run = fit(faces, replace(SMALL, hide=0.0))
    assert (release.contract.k, release.contract.classes) == (8, {})
    assert {stage for stage, _ in curves(run)} == {"representation"}
    x = torch.rand(4, 1, 32, 32)
    assert torch.equal(release.encoder(x), release.encoder.represent(x))


def test_protection_starts_as_the_identity_and_mirror_images_are_seen_alike(faces):
    encoder = deep.build(SMALL, deep.contract_of(SMALL, faces, ["gender"]))
    x = torch.rand(4, 1, 32, 32)
    torch.testing.assert_close(encoder(x), encoder.represent(x))
    assert (encoder(x) - encoder(x.flip(3))).abs().max() > 1e-3
    encoder.eval()
    torch.testing.assert_close(encoder(x), encoder(x.flip(3)), atol=1e-5, rtol=0)


def test_networks_stay_as_they_are_while_it_learns_to_protect(faces):
    config = replace(SMALL, networks=2)
    (before, _), (after, _) = (fit(faces, replace(config, hide=h)) for h in (0.0, 0.5))
    one, other = before.encoder.networks.state_dict(), after.encoder.networks.state_dict()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    protection = after.encoder.protection
    assert (protection.maps - torch.eye(16)).abs().max() > 0.01
    assert protection.guard[-1].weight.abs().max() > 0


def test_the_decoder_learns_from_releases_with_their_noise(faces):
    config = replace(SMALL, features=64, noise=0.7)
    run = Run(seed=0, precision="fp32")
    task = Task(pack=faces, private=["gender"], run=run)
    data = deep.Data(config, task, deep.contract_of(config, faces, ["gender"]))
    trainer = deep.Training(config, data)
    trainer.encoder.eval()
    seen: list[torch.Tensor] = []
    trainer.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    steps = list(run.stage("decoder", 2))
    trainer.decoder_step(steps[0])
    with torch.no_grad():
        clean = trainer.encoder(data.batch(next(iter(Run(seed=0, precision="fp32").stage("decoder", 1)))).x)
    # cos = 1 / sqrt(1 + 0.7^2) in expectation, standard deviation below 0.7 / sqrt(64) a row.
    cosine = (seen[0] * clean).sum(1).mean().item()
    assert cosine == pytest.approx(1 / math.sqrt(1.49), abs=5 * 0.7 / math.sqrt(64 * 16))


# Learned hiding, with a known answer


def attacks(release: Release, pack: Pack) -> float:
    """Best balanced accuracy on test people of a linear and a nonlinear attacker that train on everybody else."""
    y, train, test = pack.label("gender"), pack.rows("protect", "attack", "calibrate"), pack.rows("test")
    r = release.transform(pack.x)
    attackers = (LogisticRegression(C=100, max_iter=1000), MLPClassifier((32,), max_iter=100, random_state=0))
    return max(balanced_accuracy_score(y[test], a.fit(r[train], y[train]).predict(r[test])) for a in attackers)


def matching(release: Release, pack: Pack) -> float:
    test = pack.rows("test")
    r, who = release.transform(pack.x[test]), pack.label("identity")[test]
    pairs = np.triu_indices(len(test), 1)
    return float(roc_auc_score((who[:, None] == who)[pairs], (r @ r.T)[pairs]))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_hides_what_it_must_and_keeps_what_it_is_for():
    """Gender lies in values 0-2 and 13 others say who somebody is: a release can lose the first and keep the second.

    A release with the same noise that learns to match alone keeps gender, since gender too tells people apart; with
    protection a fresh attacker falls below 0.7 (chance 0.5), and test people still match.
    """
    pack = vectors_pack()
    config = deep.Config(
        features=16, networks=1, hide=4.0, noise=0.5, augment=False, batch=64,
        steps_alone=30, steps_joint=120, lr=3e-3, lr_opponents=3e-3,
    )  # fmt: skip
    honest, _ = fit(pack, replace(config, hide=0.0), key=bytes(32))
    hidden, _ = fit(pack, config, key=bytes(32))
    open_, closed = attacks(honest, pack), attacks(hidden, pack)
    assert open_ > 0.90
    assert closed < 0.70
    assert matching(honest, pack) > 0.98
    assert matching(hidden, pack) > 0.97
