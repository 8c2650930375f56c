"""Mutual-information anonymisation: losses by hand, the schedule, collapse, substitution, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import faces_pack, vectors_pack
from methods_matrix import train
from veil.data.pack import Pack
from veil.engine import Run
from veil.engine.player import Diverged
from veil.errors import InputError
from veil.methods import mi
from veil.methods.mi import AutoEncoder, Config, Discriminator, Substituter, blurred, mutual_information
from veil.methods.protocol import Task
from veil.release import Release

SHORT = Config(batch=16, features=8, steps_alone=2, steps_discriminator=2, steps_joint=2, tie=1.0, least_variety=0.0)


def fit(pack: Pack, config: Config = SHORT, **options) -> Release:
    return train("mi", config, pack, **options)


def prepared(config: Config = SHORT, run: Run | None = None) -> mi.Training:
    run = run or Run(seed=0, precision="fp32")
    training = mi.prepare(config, Task(pack=faces_pack(), private=["gender"], run=run))
    run.enter(*training.players)
    return training


def test_mutual_information_by_hand():
    """Eq. 14 and 15 on two rows: q says (3/4, 1/4) and (1/2, 1/2), labels 0 and 1, prior (1/4, 3/4)."""
    logits = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log()
    private = -(math.log(3 / 4) + math.log(1 / 2)) / 2
    objective = -(math.log(3 / 4) / 4 + 3 * math.log(1 / 4) / 4 + math.log(1 / 2)) / 2
    found = mutual_information([logits], [torch.tensor([0, 1])], [torch.tensor([0.25, 0.75])])
    assert found.item() == pytest.approx(abs(objective - private), rel=1e-6)
    twice = mutual_information([logits] * 2, [torch.tensor([0, 1])] * 2, [torch.tensor([0.25, 0.75])] * 2)
    assert twice.item() == pytest.approx(found.item())


def test_a_classifier_that_says_the_prior_leaves_no_information():
    prior = torch.tensor([0.2, 0.3, 0.5])
    labels = torch.tensor([0] * 2 + [1] * 3 + [2] * 5)
    assert mutual_information([prior.log().expand(10, 3)], [labels], [prior]).item() == pytest.approx(0, abs=1e-6)
    assert mutual_information([prior.log().expand(10, 3)], [torch.zeros(10).long()], [prior]).item() > 0.5


def test_networks_keep_shapes_and_ranges():
    for shape in ((1, 20, 20), (3, 50, 50), (1, 33, 9)):
        x = torch.rand(4, *shape)
        out = AutoEncoder(*shape, 8)(x)
        assert out.shape == x.shape
        assert 0 <= out.min() <= out.max() <= 1
        judge = Discriminator(*shape)
        h = judge.features(x)
        assert judge.judge(h, h).shape == (4,)
        assert mi.private_classifier(*shape, 5)(x).shape == (4, 5)


def test_discriminator_sees_its_batch():
    """The same image is judged otherwise beside copies of itself than beside others: collapse can be seen."""
    judge = Discriminator(1, 20, 20)
    h = torch.randn(8, 128)
    alone = judge.judge(h[:1], h[:1].expand(8, -1))
    assert (alone - judge.judge(h[:1], h)).abs().item() > 0.01
    torch.testing.assert_close(judge.judge(h[:1], h), judge.judge(h, h)[:1])


def test_blur_keeps_means_and_constant_images():
    torch.testing.assert_close(blurred(torch.full((2, 1, 9, 9), 0.3)), torch.full((2, 1, 9, 9), 0.3))
    spike = torch.zeros(1, 1, 9, 9)
    spike[..., 4, 4] = 25
    assert blurred(spike)[0, 0, 2:7, 2:7].tolist() == [[1.0] * 5] * 5


def test_the_schedule_is_the_papers():
    training = prepared(replace(SHORT, ahead=3))
    steps = [(stage, step.number) for stage, step in training.train()]
    assert steps == [(s, i) for s in ("auto-encoder", "discriminator", "joint") for i in range(2)]
    updates = {p.name: p.updates for p in training.players}
    # auto-encoder: two steps in each stage; discriminator: in two of them; q: three for each of the last stage's two
    assert updates == {"auto-encoder": 6, "discriminator": 4, "private classifier": 6}


def test_stage_one_learns_to_redraw():
    training = prepared(replace(SHORT, steps_alone=60, steps_discriminator=0, steps_joint=0, batch=64))
    losses = training.run.curves
    list(training.train())
    first, last = (np.mean([v for _, _, _, v in part]) for part in (losses[:5], losses[-5:]))
    assert last < 0.7 * first


def test_what_views_share_is_kept(monkeypatch):
    """The term is 0 for equal images, no gradient reaches the network that finds views, and it is added as weighed."""
    training = prepared(replace(SHORT, keep=3.0, steps_views=20))
    assert [player.name for player in training.players][-1] == "perceptual"
    for _ in training.train():
        pass
    x = training.images(np.arange(8))
    assert float(training.kept(x, x)) == pytest.approx(0, abs=1e-6)
    assert not any(p.requires_grad for p in training.perceptual.parameters())
    drawn = (1 - x).requires_grad_()
    term = training.kept(drawn, x)
    assert term > 0.01
    term.backward()
    assert drawn.grad.abs().sum() > 0
    logged = {(stage, player) for _, stage, player, _ in training.run.curves}
    assert {("perceptual", "perceptual"), ("discriminator", "view"), ("joint", "view")} <= logged
    step = next(iter(Run(seed=5, precision="fp32").stage("s", 1)))
    training.judge.eval()  # its spectral norms move at each look otherwise
    losses = []
    for keep in (0.0, 3.0):
        training.config = replace(training.config, keep=keep)
        monkeypatch.setattr(training.run, "update", lambda player, loss: losses.append(float(loss.detach())))
        training.autoencoder_step(step, np.arange(8), lam=None)
    with torch.no_grad():
        assert losses[1] - losses[0] == pytest.approx(3 * float(training.kept(training.redrawn(x), x)), abs=1e-5)


@pytest.mark.parametrize("views", ["drawing", "face"])
def test_views_show_the_same(views):
    training = prepared(replace(SHORT, keep=1.0, views=views))
    step = next(iter(Run(seed=5, precision="fp32").stage("s", 1)))
    x = training.images(np.arange(8))
    first, second = training.view(x, step), training.view(x, step)
    assert first.shape == x.shape
    assert (first != second).any()


def test_lam_rises_slowly(monkeypatch):
    training = prepared(replace(SHORT, steps_joint=4, lam=8.0))
    seen = []
    monkeypatch.setattr(training, "autoencoder_step", lambda step, rows, lam: seen.append(lam))
    list(training.train())
    assert seen == [None, None, 0.0, 4.0, 8.0, 8.0]


def test_the_auto_encoder_settles_at_the_end():
    training = prepared(replace(SHORT, steps_joint=10))
    factors = [training.autoencoder.schedule(update) for update in range(14)]
    assert factors[:10] == [1.0] * 10  # four updates before stage 3, six of its ten at full rate
    assert factors[10:] == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_intertwined_discriminator_sees_the_target_alone(monkeypatch):
    training = prepared(replace(SHORT, target="male"))
    pack = faces_pack()
    rows = pack.rows("protect")
    male = pack.classes["gender"].index("male")
    assert (pack.label("gender")[rows][training.real] == male).all()
    assert len(training.real) == (pack.label("gender")[rows] == male).sum()


def test_collapse_is_stopped_with_a_message():
    training = prepared(replace(SHORT, least_variety=0.1))
    x = torch.rand(8, 1, 32, 32)
    training.check_variety(x, x)
    with pytest.raises(Diverged, match=r"at least 0.1 times as much as the input, got 0\.000: they have collapsed"):
        training.check_variety(x, x[:1].expand_as(x))


def test_variety_is_checked_now_and_then_and_at_the_end_of_a_stage(monkeypatch):
    checked = []
    monkeypatch.setattr(mi.Training, "check_variety", lambda self, x, drawn: checked.append(None))
    training = prepared(replace(SHORT, steps_discriminator=3, steps_joint=25))
    after = [(stage, step.number) for stage, step in training.train() if checked and not checked.clear()]
    assert after == [("discriminator", 2), ("joint", 19), ("joint", 24)]


def test_substitution_releases_the_targets_nearest_images():
    pack = faces_pack()
    release = fit(pack, replace(SHORT, target="female", substitute=True, expose=True))
    rows = pack.rows("protect")
    female = rows[pack.label("gender")[rows] == pack.classes["gender"].index("female")]
    assert release.contract.support == len(female)
    assert not release.contract.keyed
    x = np.asarray(pack.x[:20])
    assert isinstance(release.encoder, Substituter)
    with torch.no_grad():
        drawn = release.encoder.autoencoder(torch.from_numpy(x[:, None] / np.float32(255)))[:, 0].numpy()
    distance = np.square(drawn[:, None] - pack.x[female][None] / np.float32(255)).sum((2, 3))
    np.testing.assert_array_equal(release.codes(x), distance.argmin(1))
    np.testing.assert_array_equal(release.transform(x), pack.x[female][distance.argmin(1)])


def test_releases_are_images():
    out = fit(faces_pack()).transform(faces_pack().x[:5])
    assert (out.shape, out.dtype) == ((5, 32, 32), np.uint8)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lam": -1.0}, "lam: must be >= 0, got -1.0"),
        ({"batch": 1}, "batch: must be >= 2, got 1"),
        ({"least_variety": 1.0}, r"least_variety: must lie in \[0, 1\), got 1.0"),
        ({"substitute": True, "expose": True}, "substitute: needs the class whose images are released; set target"),
        ({"substitute": True, "target": "x"}, "shows a real person's images to everybody; set expose=true"),
        ({"lam": -1.0, "ahead": 0}, "lam: must be >= 0, got -1.0; ahead: must be >= 1, got 0"),
    ],
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(InputError, match=f"^mi: .*{words}"):
        Config(**settings)


def test_data_that_does_not_fit():
    with pytest.raises(InputError, match="mi: needs a pack of images, got vectors"):
        fit(vectors_pack())
    with pytest.raises(InputError, match="target: must be a class of gender, got 'x'"):
        fit(faces_pack(), replace(SHORT, target="x"))
    with pytest.raises(InputError, match="private: at least one label must be named"):
        fit(faces_pack(), private=())
    with pytest.raises(InputError, match="takes no base"):
        fit(faces_pack(), base=fit(faces_pack()))
