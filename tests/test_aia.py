"""AIA: the paper's networks, what it refuses, and that it hides what it is told to and nothing else."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.neural_network import MLPClassifier
from torch import nn

from conftest import faces_pack, vectors_pack
from veil.data.pack import Pack
from veil.engine import Run
from veil.errors import InputError
from veil.methods import METHODS, aia
from veil.nets import OrientationMaps
from veil.release import Contract, Release

SHORT = {"batch": 16, "steps_alone": 2, "steps_joint": 3}


def fit(pack: Pack, config: aia.Config | None = None, *, private=("gender",), seed=0, **options) -> tuple[Release, Run]:
    run = Run(seed=seed, precision="fp32")
    return aia.fit(config or aia.Config(**SHORT), pack, private=private, run=run, **options), run


def of_type(module: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, kind)]


def widths(module: nn.Module) -> list[tuple[int, int]]:
    assert all(c.kernel_size == (3, 3) and c.padding == (1, 1) for c in of_type(module, nn.Conv2d))
    return [(c.in_channels, c.out_channels) for c in of_type(module, nn.Conv2d)]


def dense(module: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in of_type(module, nn.Linear)]


# The paper's networks (METHODS: Eq. 2-4, Sec. 5.2)

PAPER = Contract(kind="images", shape=(48, 32), k=12 * 12 * 8, feature_map=(12, 12, 8))


def test_paper_encoder():
    encoder = aia.build(aia.Config(), PAPER)
    assert widths(encoder) == [(1, 8), (8, 12)]
    x = torch.rand(3, 1, 48, 32)
    g = encoder(x)
    assert g.shape == (3, 12 * (48 // 4) * (32 // 4))
    h = F.avg_pool2d(F.leaky_relu(encoder.conv1(x)), 2)
    h = F.avg_pool2d(F.leaky_relu(encoder.conv2(h)), 2)
    torch.testing.assert_close(g, torch.sigmoid(h).reshape(3, -1))
    assert encoder(100 * x).min() >= 0
    assert encoder(100 * x).max() <= 1
    # Each value of a release sees a patch of 10x10 pixels: 3x3 of the second map's pixels and a neighbour's rim each.
    impulse = torch.zeros(1, 1, 48, 32)
    impulse[..., 20, 16] = 1
    touched = (encoder(impulse) - encoder(impulse * 0)).reshape(12, 12, 8).abs().sum(0) > 0
    assert touched.nonzero().max(0).values.sub(touched.nonzero().min(0).values).max() <= 2


def test_paper_decoder():
    decoder = aia.build_decoder(aia.Config(), PAPER)
    assert widths(decoder) == [(12, 256), (256, 128), (128, 1)]
    g = torch.rand(2, PAPER.k)
    h = F.interpolate(F.leaky_relu(decoder.conv1(g.reshape(2, 12, 12, 8))), scale_factor=2)
    h = F.interpolate(F.leaky_relu(decoder.conv2(h)), scale_factor=2)
    # Sums of some 2304 products of about 0.02 in float32, in another order.
    torch.testing.assert_close(decoder(g), decoder.conv3(h), atol=1e-5, rtol=1e-5)


def test_paper_adversaries_and_task():
    six = aia._adversary(aia.Config(), PAPER, 2)
    assert widths(six) == [(12, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256)]
    assert [outputs for _, outputs in dense(six)] == [2]
    tanh = aia._adversary(aia.Config(adversary="mlp"), PAPER, 2)
    assert dense(tanh) == [(PAPER.k, 256), (256, 2)]
    assert len(of_type(tanh, nn.Tanh)) == 1
    task = aia._task(PAPER, 128)
    assert widths(task) == [(12, 4), (4, 8), (8, 8)]
    assert dense(task) == [(8 * 12 * 8, 500), (500, 128)]
    for network, outputs in ((six, 2), (tanh, 2), (task, 128)):
        assert network(torch.rand(3, PAPER.k)).shape == (3, outputs)


def test_defaults_are_the_paper_s():
    assert next(iter(METHODS["aia"].presets)) == "paper"
    paper = aia.PRESETS["paper"]
    assert paper == aia.Config()
    assert (paper.alpha, paper.beta, paper.objective, paper.adversary) == (0.5, 0.5, "unbounded", "conv")
    assert (aia.PRESETS["original"].alpha, aia.PRESETS["original"].beta) == (0, 0)
    assert (aia.PRESETS["without-task"].alpha, aia.PRESETS["without-task"].beta) == (0, 0.5)
    assert aia.PRESETS["deep"].encoder == "deep"
    assert aia.PRESETS["deep-original"].beta == 0


def test_paper_release(faces):
    release, _ = fit(faces)
    assert release.contract.k == 12 * 8 * 8
    assert release.contract.feature_map == (12, 8, 8)
    out = release.transform(faces.x)
    assert 0 <= out.min() < out.max() <= 1
    assert release.redraw(out[:3]).shape == (3, 32, 32)


def test_deep_networks_stand_side_by_side(faces):
    """z is the networks' unit vectors, one after the other; the second sees edges, not how light the image is."""
    config = aia.Config(encoder="deep", features=8, networks=3, noise=0.5)
    contract = aia._contract(config, faces, ["gender", "smile"])
    assert contract == Contract(
        kind="images", shape=(32, 32), k=24, noise=0.5,
        classes={"gender": ("female", "male"), "smile": ("no", "yes")},
    )  # fmt: skip
    encoder = aia.build(config, contract)
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


def test_deep_protects_by_its_own_settings():
    config = replace(aia.PRESETS["deep"], noise=0.3, beta=2.0, steps_joint=90, batch=50, lr=0.01, lr_opponents=0.02)
    got = aia._protection(config)
    assert (got.noise, got.hide, got.lr, got.lr_opponents) == (0.3, 2.0, 0.01, 0.02)
    assert (got.steps_guess, got.steps, got.batch) == (30, 90, 100)
    assert aia._protection(replace(config, steps_joint=0)).steps == 0  # alignment and noise alone


# Refusals


def test_all_problems_of_a_config_are_told_in_one_line():
    with pytest.raises(InputError) as caught:
        aia.Config(
            encoder="wide",
            alpha=-1,
            beta=float("nan"),
            margin=0,
            batch=7,
            objective="none",
            networks=0,
            steps_joint=-3,
        )
    message = str(caught.value)
    assert "\n" not in message
    names = ("encoder", "alpha", "beta", "margin", "batch", "objective", "networks", "steps_joint")
    assert [n for n in names if f"{n}: must" not in message] == []
    assert "got -1" in message
    assert "got 7" in message
    assert "lr" not in message


@pytest.mark.parametrize("settings", [{"noise": 0.5}, {"networks": 2}])
def test_paper_encoder_is_one_network_without_noise(settings):
    with pytest.raises(InputError, match="need encoder='deep'"):
        aia.Config(**settings)
    assert aia.Config(encoder="deep", **settings)


def small(shape: tuple[int, ...], **labels: list[str]) -> Pack:
    n = 40
    given = {"identity": [str(i // 2) for i in range(n)], "gender": ["f", "f", "m", "m"] * (n // 4)} | labels
    splits = (["protect"] * 16 + ["attack"] * 8 + ["calibrate"] * 8 + ["test"] * 8) * (n // 40)
    return Pack.from_arrays(np.zeros((n, *shape), np.uint8), given, split=splits)


REFUSED = {
    "height": (small((30, 32)), {}, "divisible by 4"),
    "height of deep": (small((24, 32)), {"encoder": "deep"}, "divisible by 16"),
    "colour": (small((32, 32, 3)), {}, "grey"),
    "label": (small((32, 32)), {"private": ["smile"]}, "smile"),
    "utility": (small((32, 32)), {"utility": "smile"}, "smile"),
    "one class": (small((32, 32), gender=["f"] * 40), {}, "gender"),
    "class not in protect": (small((32, 32), gender=["f"] * 16 + ["m"] * 24), {}, "gender"),
    "nobody twice": (small((32, 32), identity=[str(i) for i in range(40)]), {}, "identity"),
    "nothing private": (small((32, 32)), {"private": []}, "private"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unfit_data_are_refused_in_one_line(case):
    pack, changes, words = REFUSED[case]
    config = aia.Config(encoder=changes.pop("encoder", "paper") if "encoder" in changes else "paper", **SHORT)
    with pytest.raises(InputError, match=words) as caught:
        fit(pack, config, **changes)
    assert "\n" not in str(caught.value)


def test_base_is_refused(faces):
    base, _ = fit(faces)
    with pytest.raises(InputError, match="takes no base"):
        fit(faces, base=base)


# What it trains on, and what it gives


def test_fit_sees_the_protect_split_alone():
    """Other pixels and other private labels elsewhere: the same release."""
    pack = faces_pack()
    x, elsewhere = pack.x.copy(), pack.rows("attack", "calibrate", "test")
    x[elsewhere] = 255 - x[elsewhere]
    gender = pack.label("gender").copy()
    gender[elsewhere] = 1 - gender[elsewhere]
    changed = replace(pack, x=x, labels={**pack.labels, "gender": gender})
    for config in (aia.Config(**SHORT), aia.Config(encoder="deep", features=8, **SHORT)):
        a, b = fit(pack, config)[0], fit(changed, config)[0]
        one, other = a.encoder.state_dict(), b.encoder.state_dict()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
        assert a.made["data"] != b.made["data"]


def test_fit_follows_the_seed(faces):
    first, again, other = (fit(faces, seed=s)[0].transform(faces.x[:9]) for s in (0, 0, 1))
    assert (first == again).all()
    assert np.abs(first - other).max() > 0.01


def test_rows_of_unknown_label_are_left_out(faces):
    gender = faces.label("gender").copy()
    rows = faces.rows("protect")
    gender[rows[: len(rows) // 2]] = -1
    x = faces.x.copy()
    packs = [replace(faces, labels={**faces.labels, "gender": gender}, x=x)]
    x = x.copy()
    x[gender < 0] = 0
    packs.append(replace(packs[0], x=x))
    a, b = (fit(pack)[0].transform(faces.x[:9]) for pack in packs)
    assert (a == b).all()


def curves(run: Run) -> set[tuple[str, str]]:
    return {(stage, player) for _, stage, player, _ in run.curves}


def test_every_player_has_curves(faces):
    _, run = fit(faces)
    assert curves(run) == {
        ("auto-encoder", "protector"),
        ("opponents", "adversary"), ("opponents", "task"),
        ("joint", "adversary"), ("joint", "task"), ("joint", "protector"),
    }  # fmt: skip
    assert [s for s, stage, player, _ in run.curves if (stage, player) == ("joint", "task")] == [0, 1, 2]
    _, run = fit(faces, aia.Config(encoder="deep", features=8, **{**SHORT, "steps_alone": 4}))
    assert curves(run) == {
        ("representation", "networks"),
        *(("guess", name) for name in ("guess", *(f"guess without fold {i}" for i in range(1, 5)))),
        ("guard", "guard"), *(("guard", f"adversary {i}") for i in range(1, 7)),
        ("decoder", "decoder"),
    }  # fmt: skip


def test_original_has_no_joint_stage(faces):
    _, run = fit(faces, aia.Config(alpha=0.0, beta=0.0, **SHORT))
    assert curves(run) == {("auto-encoder", "protector")}


PARTS = [
    {"encoder": encoder, "utility": utility, "kind": kind}
    for encoder in ("paper", "deep")
    for utility in ("identity", "smile")
    for kind in ("images", "vectors")
]


@pytest.mark.parametrize("parts", PARTS, ids=lambda p: "-".join(str(v) for v in p.values()))
def test_every_combination_of_parts_trains_every_part(parts):
    """Encoder, decoder, adversary and task all move; with two private attributes at once, where there is a third."""
    pack, private, utility = faces_pack(), ("gender", "expression"), parts["utility"]
    if parts["kind"] == "vectors":
        pack, private = vectors_pack(), ("gender", "age")
        if utility != "identity":
            private, utility = ("gender",), "age"
    deep = parts["encoder"] == "deep"
    settings = {"encoder": parts["encoder"], "features": 8, "networks": 1 + deep}
    config = aia.Config(**settings, **{**SHORT, "batch": 8, "steps_alone": 4})
    release, run = fit(pack, config, private=private, utility=utility)
    assert all(p.updates > 0 for p in run.players)
    assert release.made["private"] == list(private)
    assert release.made["utility"] == utility
    sizes = sum(len(pack.classes[name]) for name in private)
    adversary = next(p for p in run.players if p.name == ("adversary 1" if deep else "adversary"))
    assert dense(adversary.module)[-1][1] == sizes
    if utility != "identity":
        task = next(p for p in run.players if p.name == "task")
        assert dense(task.module)[-1][1] == len(pack.classes[utility])
    moved = release.transform(pack.x[:9])
    start, _ = fit(pack, replace(config, steps_alone=1, steps_joint=0, lr=1e-8), private=private, utility=utility)
    assert np.abs(moved - start.transform(pack.x[:9])).max() > 1e-4
    if deep:
        np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-6)
        assert (release.contract.k, release.contract.feature_map) == (16, None)
        assert list(release.contract.classes) == list(private)
        assert release.contract.told == {}  # it was never told a class in training
    else:
        assert 0 <= moved.min() <= moved.max() <= 1


def test_deep_without_protection_is_its_networks_alone(faces):
    release, run = fit(faces, aia.Config(encoder="deep", features=8, beta=0.0, **SHORT))
    assert (release.contract.k, release.contract.classes) == (8, {})
    assert {stage for stage, _ in curves(run)} == {"representation"}
    x = torch.rand(4, 1, 32, 32)
    assert torch.equal(release.encoder(x), release.encoder.represent(x))


def test_protection_starts_as_the_identity_and_mirror_images_are_seen_alike(faces):
    config = aia.Config(encoder="deep", features=8)
    encoder = aia.build(config, aia._contract(config, faces, ["gender"]))
    x = torch.rand(4, 1, 32, 32)
    torch.testing.assert_close(encoder(x), encoder.represent(x))
    assert (encoder(x) - encoder(x.flip(3))).abs().max() > 1e-3
    encoder.eval()
    torch.testing.assert_close(encoder(x), encoder(x.flip(3)), atol=1e-5, rtol=0)


def test_networks_of_deep_stay_as_they_are_while_it_learns_to_protect(faces):
    config = aia.Config(encoder="deep", features=8, networks=2, **SHORT)
    (before, _), (after, _) = (fit(faces, replace(config, beta=b)) for b in (0.0, 0.5))
    one, other = before.encoder.networks.state_dict(), after.encoder.networks.state_dict()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    protection = after.encoder.protection
    assert (protection.maps - torch.eye(16)).abs().max() > 0.01
    assert protection.guard[-1].weight.abs().max() > 0


def test_decoder_of_deep_learns_from_releases_with_their_noise(faces):
    config = aia.Config(encoder="deep", features=64, noise=0.7, **SHORT)
    data, run = drawn(config, faces)
    trainer = aia._Deep(config, data, run)
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


def drawn(config: aia.Config, pack: Pack) -> tuple[aia._Data, Run]:
    run = Run(seed=0, precision="fp32")
    return aia._Data(config, pack, ["gender"], "identity", aia._contract(config, pack, ["gender"]), run), run


def test_batches_hold_couples_of_the_protect_split(faces):
    config = aia.Config(**SHORT)
    data, run = drawn(config, faces)
    protected = set(faces.label("identity")[faces.rows("protect")].tolist())
    same = 0
    for step in run.stage("s", 8):
        batch = data.batch(step)
        assert set(batch.utility.tolist()) <= protected
        assert torch.equal(batch.utility, batch.everyone)
        assert 0 <= batch.x.min() <= batch.x.max() <= 1
        same += int((batch.utility[0::2] == batch.utility[1::2]).sum())
    assert same == 8 * 4  # half of the couples


def test_confusion_is_learned_against_and_unbounded_is_not_clipped(faces):
    """The protector's term for hiding: - L_Adv as printed, or the confusion objective, which log Z bounds below."""
    for objective in ("unbounded", "confusion"):
        config = aia.Config(objective=objective, **SHORT)
        data, run = drawn(config, faces)
        trainer = aia._Paper(config, data, run)
        batch = data.batch(next(iter(run.stage("s", 1))))
        g = trainer.encoder(batch.x)
        with torch.no_grad():
            last = of_type(trainer.adversary.module, nn.Linear)[-1]
            last.weight.zero_()
            last.bias.copy_(torch.tensor([40.0, -40.0]))  # always sure of the first class
        loss = trainer.hiding_loss(g, batch).item()
        females = int((batch.private[0] == 0).sum())
        assert 0 < females < 16
        # Each class counts the same, so half of the weight is on the class that the adversary gets wrong by 80.
        assert loss == pytest.approx(-40.0 if objective == "unbounded" else 40.0, rel=1e-5)


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
    config = aia.Config(
        encoder="deep", features=16, beta=4.0, noise=0.5, batch=64,
        steps_alone=30, steps_joint=120, lr=3e-3, lr_opponents=3e-3,
    )  # fmt: skip
    honest, _ = fit(pack, replace(config, beta=0.0), key=bytes(32))
    hidden, _ = fit(pack, config, key=bytes(32))
    open_, closed = attacks(honest, pack), attacks(hidden, pack)
    assert open_ > 0.90
    assert closed < 0.70
    assert matching(honest, pack) > 0.98
    assert matching(hidden, pack) > 0.97


def test_config_of_a_release_builds_its_encoder(faces):
    release, _ = fit(faces)
    assert aia.Config(**release.config) == aia.Config(**SHORT)
    assert asdict(aia.Config(**SHORT)) == release.config
