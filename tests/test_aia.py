"""AIA: the paper's networks, what it refuses, and that it hides what it is told to and nothing else."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import faces_pack, vectors_pack
from methods_matrix import train
from veil.data.pack import Pack
from veil.engine import Run
from veil.errors import InputError
from veil.methods import METHODS, aia, deep
from veil.methods.protocol import Task
from veil.release import Release
from veil.release.contract import Contract

SHORT = {"batch": 16, "steps_alone": 2, "steps_joint": 3}


def fit(pack: Pack, config: aia.Config | None = None, *, seed=0, **options) -> tuple[Release, Run]:
    run = Run(seed=seed, precision="fp32")
    return train("aia", config or aia.Config(**SHORT), pack, run=run, **options), run


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


def test_paper_release(faces):
    release, _ = fit(faces)
    assert release.contract.k == 12 * 8 * 8
    assert release.contract.feature_map == (12, 8, 8)
    out = release.transform(faces.x)
    assert 0 <= out.min() < out.max() <= 1
    assert release.redraw(out[:3]).shape == (3, 32, 32)


# Refusals


def test_all_problems_of_a_config_are_told_in_one_line():
    with pytest.raises(InputError) as caught:
        aia.Config(
            features=0,
            alpha=-1,
            beta=float("nan"),
            margin=0,
            batch=7,
            objective="none",
            steps_joint=-3,
        )
    message = str(caught.value)
    assert "\n" not in message
    names = ("features", "alpha", "beta", "margin", "batch", "objective", "steps_joint")
    assert [n for n in names if f"{n}: must" not in message] == []
    assert "got -1" in message
    assert "got 7" in message
    assert "lr" not in message


def small(shape: tuple[int, ...], **labels: list[str]) -> Pack:
    n = 40
    given = {"identity": [str(i // 2) for i in range(n)], "gender": ["f", "f", "m", "m"] * (n // 4)} | labels
    splits = (["protect"] * 16 + ["attack"] * 8 + ["calibrate"] * 8 + ["test"] * 8) * (n // 40)
    return Pack.from_arrays(np.zeros((n, *shape), np.uint8), given, split=splits)


REFUSED = {
    "height": (small((30, 32)), {}, "divisible by 4"),
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
    with pytest.raises(InputError, match=words) as caught:
        fit(pack, **changes)
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
    for name, config in (("aia", aia.Config(**SHORT)), ("deep", deep.Config(features=8, networks=1, **SHORT))):
        a, b = (train(name, config, some) for some in (pack, changed))
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


def test_original_has_no_joint_stage(faces):
    _, run = fit(faces, aia.Config(alpha=0.0, beta=0.0, **SHORT))
    assert curves(run) == {("auto-encoder", "protector")}


PARTS = [{"utility": utility, "kind": kind} for utility in ("identity", "smile") for kind in ("images", "vectors")]


@pytest.mark.parametrize("parts", PARTS, ids=lambda p: "-".join(str(v) for v in p.values()))
def test_every_combination_of_parts_trains_every_part(parts):
    """Encoder, decoder, adversary and task all move; with two private attributes at once, where there is a third."""
    pack, private, utility = several(**parts)
    config = aia.Config(features=8, **{**SHORT, "batch": 8, "steps_alone": 4})
    release, run = fit(pack, config, private=private, utility=utility)
    assert all(p.updates > 0 for p in run.players)
    assert release.made["private"] == list(private)
    assert release.made["utility"] == utility
    sizes = sum(len(pack.classes[name]) for name in private)
    adversary = next(p for p in run.players if p.name == "adversary")
    assert dense(adversary.module)[-1][1] == sizes
    if utility != "identity":
        task = next(p for p in run.players if p.name == "task")
        assert dense(task.module)[-1][1] == len(pack.classes[utility])
    moved = release.transform(pack.x[:9])
    start, _ = fit(pack, replace(config, steps_alone=1, steps_joint=0, lr=1e-8), private=private, utility=utility)
    assert np.abs(moved - start.transform(pack.x[:9])).max() > 1e-4
    assert 0 <= moved.min() <= moved.max() <= 1


def several(utility: str, kind: str) -> tuple[Pack, tuple[str, ...], str]:
    """A pack, two private labels where there is a third to keep, and the use."""
    if kind == "images":
        return faces_pack(), ("gender", "expression"), utility
    return (
        (vectors_pack(), ("gender", "age"), utility) if utility == "identity" else (vectors_pack(), ("gender",), "age")
    )


def drawn(config: aia.Config, pack: Pack) -> tuple[aia.Data, Run]:
    run = Run(seed=0, precision="fp32")
    return aia.Data(config, Task(pack=pack, private=["gender"], run=run), aia.contract_of(config, pack)), run


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
        trainer = aia.Training(config, data)
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


def test_config_of_a_release_builds_its_encoder(faces):
    release, _ = fit(faces)
    assert aia.Config(**release.config) == aia.Config(**SHORT)
    assert asdict(aia.Config(**SHORT)) == release.config
