"""Semi-adversarial networks: prototypes and partners by hand, schedule, alignment; and attacks that transfer."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import faces_pack, only, onnx_file, short_networks, vectors_pack
from methods_matrix import train
from veil.auditing import transfer
from veil.auditing.rosters import roster
from veil.auditing.setting import Setting
from veil.data import build
from veil.data.pack import Pack
from veil.engine import Run
from veil.errors import InputError
from veil.methods import san
from veil.methods.san import Config, partners, prototypes, sharpness
from veil.nn.nets import to_input
from veil.nn.onnxfile import OnnxNetwork
from veil.release import Release
from veil.workflows.apply import Options, apply
from veil.workflows.audit import audit
from veil.workflows.subjects import Subject

SHORT = Config(batch=8, steps_classifier=2, steps_matcher=2, steps=2, aligned=0.0)


def fit(config: Config = SHORT, pack: Pack | None = None, **options):
    return train("san", config, pack or faces_pack(), **options)


def test_prototypes_are_the_classes_means():
    x = np.zeros((5, 4, 4), np.uint8)
    x[:, 0, 0] = [10, 20, 30, 90, 200]
    found = prototypes(x, np.array([0, 1, 3, 4]), np.array([0, 0, 2, 2]), 4)
    assert found.shape == (4, 1, 4, 4)
    assert (255 * found[:, 0, 0, 0]).tolist() == pytest.approx([15, 80, 145, 80])  # empty classes: the mean of all
    colours = prototypes(np.stack([x, x, 255 - x], -1), np.arange(5), np.zeros(5, int), 1)
    assert colours.shape == (1, 3, 4, 4)
    assert (255 * colours[0, :, 0, 0]).tolist() == pytest.approx([70, 70, 185])


def test_partners_by_hand():
    """Two attributes: joint classes 00, 01, 10, 11."""
    both = ("gender", "glasses")
    eye = np.eye(4)
    assert san.changed(SHORT, both) == [True, True]
    assert san.changed(replace(SHORT, change="glasses"), both) == [False, True]
    assert (partners("opposite", [True, True]).numpy() == eye[[3, 2, 1, 0]]).all()
    assert (partners("opposite", [False, True]).numpy() == eye[[1, 0, 3, 2]]).all()
    assert (partners("opposite", [False, False]).numpy() == eye).all()
    assert (partners("same", [True, True]).numpy() == eye).all()
    neutral = partners("neutral", [True, False]).numpy()
    assert (neutral == np.array([[1, 0, 1, 0], [0, 1, 0, 1]] * 2) / 2).all()
    assert (partners("neutral", [True, True]).numpy() == 0.25).all()
    with pytest.raises(InputError, match=r"change: must be private attributes \(gender, glasses\), got 'age'"):
        san.changed(replace(SHORT, change="age"), both)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_auto_encoder_is_the_published_one(channels):
    """What it computes sparingly is what its layers compute one after the other."""
    torch.manual_seed(0)
    network = san.AutoEncoder(channels)
    x, prototype = torch.rand(2, 3, channels, 16, 24)
    h = torch.cat([x, prototype], 1)
    for convolution in network.down:
        h = torch.nn.functional.avg_pool2d(torch.nn.functional.leaky_relu(convolution(h)), 2)
    for convolution in network.up:
        h = torch.nn.functional.interpolate(torch.nn.functional.leaky_relu(convolution(h)), scale_factor=2)
    wanted = network.combine(torch.cat([h, prototype], 1))
    torch.testing.assert_close(network(x, prototype), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("network", "least"), [("paper", 5), ("retouch", 1)])
def test_strength_goes_from_the_input_to_what_is_redrawn(network, least):
    x = np.asarray(faces_pack().x[:6])
    config = replace(SHORT, network=network, steps=10)
    outs = [fit(replace(config, strength=s)).transform(x).astype(float) for s in (0.0, 0.5, 1.0)]
    np.testing.assert_array_equal(outs[0], x)
    assert np.abs(outs[1] - (outs[0] + outs[2]) / 2).max() <= 1  # rounding
    assert np.abs(outs[2] - x).mean() > least


@pytest.mark.parametrize("shape", [(3, 1, 24, 16), (2, 3, 20, 28)])
def test_the_retoucher_begins_with_nothing_to_add(shape):
    """Also where sides are not divisible by 8; afterwards it adds something everywhere, and not too much."""
    torch.manual_seed(0)
    network, (x, prototype) = san.Retoucher(shape[1], 1.0, 0.0), torch.rand(2, *shape)
    torch.testing.assert_close(network(x, prototype).sigmoid(), x.clamp(0.01, 0.99), atol=1e-5, rtol=0)
    torch.nn.init.normal_(network.last.weight)
    drawn = network(x, prototype)
    assert (drawn.sigmoid() != x.clamp(0.01, 0.99)).float().mean() > 0.99
    added = drawn - torch.logit(x, 0.01)  # the same to all colours
    torch.testing.assert_close(added, added[:, :1].expand_as(added), atol=1e-4, rtol=1e-4)
    assert 0.9 < added.abs().max() < 1.0001
    network.amplitude = 0.0
    torch.testing.assert_close((network(x, prototype) - torch.logit(x, 0.01)).tanh(), added, atol=1e-4, rtol=1e-4)


def test_the_retoucher_tints_faintly():
    """What it adds is light, the same to all colours, and a tint to each, within its bound; in grey there is none."""
    torch.manual_seed(0)
    network, (x, prototype) = san.Retoucher(3, 1.0, 0.1), torch.rand(2, 2, 3, 24, 24)
    torch.testing.assert_close(network(x, prototype).sigmoid(), x.clamp(0.01, 0.99), atol=1e-5, rtol=0)
    torch.nn.init.normal_(network.last.weight)
    added = network(x, prototype) - torch.logit(x, 0.01)
    apart = added.amax(1) - added.amin(1)
    assert 0.15 < apart.max() < 0.2001
    assert 0.9 < added.abs().max() < 1.1001
    grey = san.Retoucher(1, 1.0, 0.1)
    assert grey.state_dict().keys() == san.Retoucher(1, 1.0, 0.0).state_dict().keys()
    assert len(grey.last.weight) == 1


@pytest.mark.parametrize("size", [(20, 28), (100, 132)])
def test_of_large_images_averages_are_seen(size):
    """Noise that averages to nothing over squares of 2 pixels is left as it is there, and changes no class."""
    torch.manual_seed(0)
    x, prototype = 0.25 + 0.5 * torch.rand(2, 2, 3, *size)
    noisy = x + torch.tensor([[0.1, -0.1], [-0.1, 0.1]]).repeat(size[0] // 2, size[1] // 2)
    network = san.Retoucher(3, 1.0, 0.1)
    torch.nn.init.normal_(network.last.weight)
    large = min(size) > 64
    with torch.no_grad():
        added = [network(image, prototype) - torch.logit(image) for image in (x, noisy)]
        assert torch.allclose(*added, atol=1e-4) == large
        for kind in ("residual", "strided", "six"):
            small = san.averaged(x)
            classifier = san.classifier(kind, 3, *small.shape[2:], 4)
            said = [classifier(san.averaged(image)) for image in (x, noisy)]
            assert said[0].shape == (2, 4)
            assert torch.allclose(*said, atol=1e-4) == large


def test_the_class_may_be_told():
    """Of an image said to be of the other class another prototype is the opposite."""
    pack = faces_pack()
    release = fit(replace(SHORT, steps=10))
    x, z = np.asarray(pack.x[:20]), pack.label("gender")[:20]
    told = release.transform(x, told={"gender": z})
    other = release.transform(x, told={"gender": 1 - z})
    assert (told != other).any((1, 2)).all()
    guessed = release.transform(x)
    assert all((g == a).all() or (g == b).all() for g, a, b in zip(guessed, told, other, strict=True))


def test_what_to_hide_is_chosen_for_each_image(tmp_path):
    """Each choice is redrawn beside its own prototype: as a release is that changes just those attributes."""
    pack, both = faces_pack(), ("gender", "glasses")
    release = fit(replace(SHORT, choose=True), private=both)
    release.save(tmp_path / "r")
    release, x = Release.load(tmp_path / "r"), np.asarray(pack.x[:8])
    told = {name: pack.label(name)[:8] for name in both}
    joint = 2 * told["gender"] + told["glasses"]
    gender, glasses = np.arange(8) % 2 == 0, np.arange(8) % 4 < 2
    wanted = joint ^ (2 * gender + glasses)
    weights = torch.eye(4)[torch.from_numpy(wanted)]
    with torch.no_grad():
        drawn = release.encoder.redrawn(to_input(x, "images"), weights).sigmoid().numpy()
    out = release.transform(x, told=told, hide={"gender": gender, "glasses": glasses})
    np.testing.assert_array_equal(out, np.round(255 * drawn[:, 0]).astype(np.uint8))
    every = {name: np.ones(8, bool) for name in both}
    np.testing.assert_array_equal(release.transform(x), release.transform(x, hide=every))
    assert (release.transform(x, hide={"gender": gender}) != release.transform(x))[~gender].any()
    for hide, words in (
        ({"age": gender}, "hide: must be one of gender, glasses, got 'age'"),
        ({"gender": told["gender"]}, "hide: gender must be 8 booleans, got int64 of shape (8,)"),
        ({"gender": gender[:3]}, "hide: gender must be 8 booleans, got bool of shape (3,)"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            release.transform(x, hide=hide)
    with pytest.raises(InputError, match="hide: must not be given, as this release of san leaves nothing to choose"):
        fit().transform(x, hide={"gender": gender})


def test_choices_from_a_file(tmp_path):
    """By the path of the image; where it has no row, everything is hidden. In folders as in packs."""
    pack, both = faces_pack(), ("gender", "glasses")
    release = fit(replace(SHORT, choose=True), private=both)
    x = np.asarray(pack.x[:3])
    (tmp_path / "in").mkdir()
    for name, image in zip("abc", x, strict=True):
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "hide.csv").write_text("path,hide\n./a.png,glasses\nb.png,\n")
    apply(release, tmp_path / "in", tmp_path / "out", Options(hide=tmp_path / "hide.csv", images=True))
    hide = {"gender": np.array([False, False, True]), "glasses": np.array([True, False, True])}
    wanted = release.transform(x, hide=hide)
    for name, image in zip("abc", wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / f"{name}.png")), image)
    build.pack("folder", tmp_path / "in", tmp_path / "pack", size=32)
    apply(release, tmp_path / "pack", tmp_path / "out.npy", Options(hide=tmp_path / "hide.csv"))
    np.testing.assert_allclose(255 * np.load(tmp_path / "out.npy").reshape(wanted.shape), wanted, atol=1e-3)
    (tmp_path / "other.csv").write_text('File_Name;hide\na.png;"glasses"\nb.png;""\n')  # as files of labels may be
    apply(release, tmp_path / "pack", tmp_path / "other.npy", Options(hide=tmp_path / "other.csv"))
    np.testing.assert_array_equal(np.load(tmp_path / "other.npy"), np.load(tmp_path / "out.npy"))
    (tmp_path / "bad.csv").write_text("path,hide\na.png,gender; age\n")
    with pytest.raises(InputError, match=r"bad\.csv: row 0: hide must name some of gender, glasses, got 'age'"):
        apply(release, tmp_path / "in", tmp_path / "bad", Options(hide=tmp_path / "bad.csv", images=True))
    (tmp_path / "case.csv").write_text("path,hide\nA.png,gender\nb.png,\n")
    for source in ("in", "pack"):
        with pytest.raises(InputError, match=r"case\.csv: every row must name an image, got A\.png"):
            apply(release, tmp_path / source, tmp_path / "bad.npy", Options(hide=tmp_path / "case.csv"))
    with pytest.raises(InputError, match="must not be given, as the release leaves nothing to choose"):
        apply(fit(), tmp_path / "in", tmp_path / "bad", Options(hide=tmp_path / "hide.csv", images=True))
    assert not (tmp_path / "bad").exists()


def test_the_schedule_freezes_what_learned_from_originals():
    pack = faces_pack()
    run = Run(seed=0, precision="fp32")
    config = replace(SHORT, rounds=2, steps=6)
    rows = pack.rows("protect")
    joint = pack.label("gender")[rows]
    contract = fit().contract
    protector = san.Protector(config, contract, prototypes(pack.x, rows, joint, 2))
    faces = san.Portraits(x=pack.x, rows=rows, joint=joint, who=pack.label("identity")[rows])
    training = san.Training(config, run, faces, protector)
    run.enter(*training.players)
    training.train()
    assert {p.name: p.updates for p in training.players} == {
        **{f"classifier {i}": 2 for i in (1, 2, 3)}, "classifier 4": 2 + 2 + 2, "classifier 5": 2 + 2, "matcher": 2,
        "auto-encoder": 6,
    }  # fmt: skip
    stages = list(dict.fromkeys(stage for _, stage, _, _ in run.curves))
    assert stages == [
        "classifiers", "matcher", "auto-encoder 1", "classifier 4", "auto-encoder 2", "classifier 5", "auto-encoder 3"
    ]  # fmt: skip


@pytest.mark.parametrize(("settings", "wanted"), [
    ({}, [[0.25] * 4] * 4),
    ({"change": "gender"}, [[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5]] * 2),
])  # fmt: skip
def test_classifiers_of_releases_shall_be_told_nothing_of_what_changes(settings, wanted):
    """And all that stays: of gender and glasses, where gender alone is changed, the glasses."""
    pack = faces_pack()
    rows = pack.rows("protect")
    joint = 2 * pack.label("gender")[rows] + pack.label("glasses")[rows]
    config = replace(SHORT, **settings)
    contract = fit(config, private=("gender", "glasses")).contract
    protector = san.Protector(config, contract, prototypes(pack.x, rows, joint, 4))
    run = Run(seed=0, precision="fp32")
    faces = san.Portraits(x=pack.x, rows=rows, joint=joint, who=pack.label("identity")[rows])
    training = san.Training(config, run, faces, protector)
    step = next(iter(run.stage("x", 1)))
    beside, nothing = training.other(step, torch.arange(4))
    np.testing.assert_array_equal(nothing.numpy(), np.array(wanted, np.float32))
    assert (beside.argmax(1).numpy() == ([3, 2, 1, 0] if not settings else [2, 3, 0, 1])).all()


@pytest.mark.parametrize("rounds", [0, 1])
def test_with_rounds_releases_are_learned_from_as_they_will_be(rounds):
    """For the classes that a release guesses, not for those that training knows."""
    pack = faces_pack()
    rows = pack.rows("protect")
    z = pack.label("gender")[rows]
    config = replace(SHORT, rounds=rounds)
    protector = san.Protector(config, fit().contract, prototypes(pack.x, rows, z, 2))
    run = Run(seed=0, precision="fp32")
    faces = san.Portraits(x=pack.x, rows=rows, joint=z, who=pack.label("identity")[rows])
    training = san.Training(config, run, faces, protector)
    x, known = to_input(pack.x[rows[:40]], "images"), torch.from_numpy(z[:40])
    guessed = protector.guessed(x)
    assert not torch.equal(guessed, known)  # it has learned nothing
    assert torch.equal(training.seen(x, known), guessed if rounds else known)


def test_average_faces_of_unaligned_images_are_blurred():
    """Of one image again and again all variance is in the mean; of images moved about, little is."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    same = np.stack([image // (1 + i % 3) for i in range(40)])  # light does not count
    assert sharpness(same, np.arange(40)) == pytest.approx(1, abs=0.01)
    moved = np.stack([np.roll(image, tuple(rng.integers(0, 16, 2)), (0, 1)) for _ in range(200)])
    assert sharpness(moved, np.arange(200)) < 0.03
    who = np.repeat(np.arange(50), 4)
    pack = Pack.from_arrays(moved, {"identity": [str(i) for i in who], "gender": np.array(["f", "m"])[who % 2]})
    with pytest.raises(InputError, match=r"faces must be aligned, .* at least 0.12 of an image's variance, got 0\.0"):
        fit(replace(SHORT, aligned=0.12), pack)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prototype": "x"}, "prototype: must be one of opposite, neutral, same, got 'x'"),
        ({"strength": 1.5}, r"strength: must lie in \[0, 1\], got 1.5"),
        ({"batch": 5}, "batch: must be even, got 5"),
        ({"likeness": 1.0}, r"likeness: must lie in \[0, 1\), got 1.0"),
        ({"classifiers": "six, tree"}, "classifiers: must be kinds of residual, strided, blurred, six, got 'tree'"),
        ({"classifiers": ""}, "classifiers: must be kinds of residual, strided, blurred, six, got none"),
        ({"transport": 9}, r"transport: moves images .* \(prototype=neutral\), got prototype=opposite"),
        ({"transport": 9, "prototype": "neutral", "choose": True}, "transport: .*, got a choice for each image"),
        (
            {"rounds": -1, "pixels": "x"},
            "pixels: must be one of .*, got 'x'; rounds: must be >= 0, got -1",
        ),
    ],
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(InputError, match=f"^san: .*{words}"):
        Config(**settings)


def test_data_that_does_not_fit():
    with pytest.raises(InputError, match="san: needs a pack of images, got vectors"):
        fit(pack=vectors_pack())
    with pytest.raises(InputError, match="label 'expression': the opposite needs two classes, got 7"):
        fit(private=("expression",))
    with pytest.raises(InputError, match="what this method keeps is identity, got 'smile'"):
        fit(utility="smile")
    with pytest.raises(InputError, match="private: at least one label must be named"):
        fit(private=())


# Transport

MIDDLE = replace(SHORT, prototype="neutral", transport=6)


@pytest.mark.parametrize("size", [16, 80])
def test_transport_gives_all_classes_one_mean_and_covariance(size):
    """In the components, of images whose classes have neither alike."""
    rng = np.random.default_rng(0)
    z = np.repeat([0, 1], [400, 800])
    drawn = rng.normal(size=(1200, 4)) * np.where(z[:, None], [1, 2, 1, 0.5], [1, 1, 2, 1]) + 0.5 * z[:, None]
    waves = np.cos(np.arange(size) / size * np.pi * np.arange(1, 5)[:, None])
    x = 0.5 + 0.02 * np.einsum("nk,kh,kw->nhw", drawn, waves, waves)
    x = torch.from_numpy(x[:, None].astype(np.float32))
    seen = san.averaged(x)
    moves = san.Transport(4, tuple(seen.shape[1:]), 2)
    moves.learn(seen.flatten(1).numpy(), z, np.ones((2, 2), bool), seed=0)
    codes = torch.from_numpy(z)
    before, after = (san.averaged(images).flatten(1) @ moves.basis.T for images in (x, moves(x, codes)))

    def apart(values):
        one, other = values[codes == 0], values[codes == 1]
        spread = values.std(0)
        means = ((one.mean(0) - other.mean(0)) / spread).abs().max()
        covariances = ((one.T.cov() - other.T.cov()) / torch.outer(spread, spread)).abs().max()
        return means.item(), covariances.item()

    # What is left: shrinkage of the covariances, rounding, and how far enlarging is from the inverse of averaging.
    assert min(apart(before)) > 0.3
    assert max(apart(after)) < 0.3
    assert apart(after)[0] < 0.05


def test_transport_moves_what_changes_and_nothing_else():
    """Gender alone is changed: pairs of joint classes that differ in it meet in a middle of their own."""
    pack = faces_pack()
    release = fit(replace(MIDDLE, change="gender"), pack, private=("gender", "glasses"))
    centres = release.encoder.transport.centres
    assert torch.equal(centres[0], centres[2])
    assert torch.equal(centres[1], centres[3])
    assert not torch.allclose(centres[0], centres[1])


def test_releases_with_transport_come_back_from_a_folder(tmp_path):
    pack = faces_pack()
    release = fit(MIDDLE, pack)
    release.save(tmp_path / "r")
    x = np.asarray(pack.x[:9])
    released = release.transform(x)
    np.testing.assert_array_equal(Release.load(tmp_path / "r").transform(x), released)
    plain = fit(replace(MIDDLE, transport=0), pack).transform(x)
    assert np.abs(released.astype(int) - plain).mean() > 1


def test_few_images_have_few_components():
    pack = faces_pack()
    release = fit(replace(MIDDLE, transport=10**6), pack)
    assert release.config["transport"] == len(release.encoder.transport.basis) == len(pack.rows("protect")) // 4


# A matcher of an ONNX file


def linear_matcher(path: Path) -> Path:
    """Ten random linear features of 8x8 grey pixels, of zero mean so that light does not count."""
    weights = np.random.default_rng(0).normal(size=(64, 10))
    return onnx_file(
        path, ("Flatten", (), {}), ("MatMul", ("w",), {}), shape=["B", 1, 8, 8], w=weights - weights.mean(0)
    )


def test_the_matcher_follows_that_of_a_file(tmp_path):
    """After some steps the run's matcher gives the file's features of people it has not seen; untrained it does not."""
    pack = faces_pack()
    teacher = OnnxNetwork(linear_matcher(tmp_path / "linear.onnx"))
    rows = pack.rows("protect")
    joint = pack.label("gender")[rows]
    config = replace(SHORT, batch=32, steps_matcher=60)
    protector = san.Protector(config, fit().contract, prototypes(pack.x, rows, joint, 2))
    run = Run(seed=0, precision="fp32")
    faces = san.Portraits(x=pack.x, rows=rows, joint=joint, who=pack.label("identity")[rows])
    training = san.Training(config, run, faces, protector, teacher)
    run.enter(*training.players)
    others = pack.x[pack.rows("test")]
    truth = torch.from_numpy(teacher(others))

    def follows() -> tuple[float, float]:
        """The mean cosine, as it is and less what all faces share."""
        with torch.no_grad():
            mine = training.features(to_input(others, "images"))
        unit = torch.nn.functional.normalize(truth, dim=1)
        pairs = ((mine, unit), (mine - mine.mean(0), unit - unit.mean(0)))
        return tuple(torch.cosine_similarity(a, b).mean().item() for a, b in pairs)

    untrained = follows()
    for step in run.stage("matcher", config.steps_matcher):
        training.matcher_step(step)
    trained = follows()
    logged = [loss for _, _, player, loss in run.curves if player == "matcher"]
    assert min(trained) > 0.7
    assert max(untrained) < 0.3
    assert np.mean(logged[-5:]) < np.mean(logged[:5]) - 0.3


def test_a_release_ships_no_path_of_the_matcher(tmp_path):
    path = linear_matcher(tmp_path / "linear.onnx")
    release = fit(replace(SHORT, matcher=str(path)))
    assert release.made["matcher"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert release.config["matcher"] == ""
    folder = release.save(tmp_path / "r")
    assert str(tmp_path) not in (folder / "release.json").read_text()
    x = np.asarray(faces_pack().x[:4])
    np.testing.assert_array_equal(Release.load(folder).transform(x), release.transform(x))
    assert "matcher" not in fit().made
    with pytest.raises(InputError, match=r"/nowhere\.onnx: cannot be read"):
        fit(replace(SHORT, matcher="/nowhere.onnx"))


# Transfer


def turned_pack() -> tuple[Pack, np.ndarray]:
    """Noise with a bright left or right half by class, and the same images mirrored: the class turned around."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(80), 5)
    z = who % 2
    x = rng.integers(0, 100, (len(who), 16, 16)).astype(np.uint8)
    own = rng.integers(0, 60, (80, 16, 16)).astype(np.uint8)
    x += own[who]
    x[np.arange(len(x))[:, None], :, np.where(z[:, None], np.arange(8), np.arange(8, 16))] += 80
    labels = {"identity": [str(i) for i in who], "side": np.array(["a", "b"])[z]}
    return Pack.from_arrays(x, labels, seed=0), x[:, :, ::-1].copy()


def test_classifiers_of_originals_are_taken_in_and_say_so(monkeypatch):
    short_networks(monkeypatch, 8)
    pack, turned = turned_pack()
    shown = {"Input": np.asarray(pack.x), "Turned": turned}
    setting = Setting(pack=pack, private=("side",), utility=(), roster=roster("quick"), effort="quick")
    found = transfer.classified(setting, np.asarray(pack.x), shown, "side").findings
    code = "attribute.transfer_balanced_accuracy"
    worst = {f.release: f for f in found if f.worst and f.code == code}
    assert worst["Input"].value > 0.95
    assert worst["Turned"].value < 0.05
    assert worst["Turned"].note.startswith("below chance")
    assert [f.attacker for f in found if (f.code, f.release) == (code, "Input")] == list(transfer.CLASSIFIERS)


def test_an_audit_of_images_measures_transfer_and_likeness(monkeypatch):
    short_networks(monkeypatch, 5)
    pack = faces_pack()
    release = fit(replace(SHORT, strength=0.0))
    found = audit(
        pack, [Subject(name="Same", release=release)], private=["gender"], utility=["identity"], baselines=(),
        effort="quick", jobs=1, roster=only("logistic regression", classifiers=only("RBF SVM")["attackers"]),
    ).findings  # fmt: skip

    def value(release: str, code: str) -> float:
        return next(f.value for f in found if (f.release, f.code) == (release, code) and f.worst)

    for code in ("attribute.transfer_balanced_accuracy", "verification.transfer_auc"):
        assert value("Same", code) == value("Input", code)  # the release is the input
    assert value("Same", "verification.mixed_auc") == value("Input", "verification.transfer_auc")
    assert value("Same", "utility.ssim") == pytest.approx(1)
    assert value("Same", "utility.psnr") == 60


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    short_networks(monkeypatch, 40)
    torch.set_num_threads(1)
