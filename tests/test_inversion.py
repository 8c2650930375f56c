"""Attacks by inversion with known answers, and the method that resists them: losses, schedule, halves, refusals."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from conftest import faces_pack, only, short_decoders, short_networks, vectors_pack
from methods_matrix import train
from veil.auditing import decoders
from veil.auditing import inversion as attacks
from veil.auditing import judges as judging
from veil.auditing.decoders import DECODERS
from veil.auditing.rosters import roster
from veil.auditing.setting import Inversion, Setting
from veil.auditing.task import Outcome
from veil.data.pack import Pack
from veil.engine import Run, perceptual
from veil.engine.player import Diverged
from veil.errors import InputError
from veil.findings import Finding
from veil.findings.codes import NO_BETTER
from veil.methods import inversion
from veil.methods.inversion import Config
from veil.nn.losses import perceptual_distance, pixel_error
from veil.nn.nets import ImageDiscriminator, MirrorDecoder
from veil.nn.onnxfile import OnnxNetwork
from veil.nn.torchvision import PerceptualNetwork, ResNet, Vgg16, load_torchvision
from veil.workflows.audit import audit
from veil.workflows.subjects import Subject
from veil.workflows.summary import redrawn

SHORT = Config(batch=8, features=16, steps_alone=2, steps_perceptual=3, steps_decoder=2, steps_joint=2)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Decoders learn for a moment only; those of closed form are what they are."""
    short_decoders(monkeypatch, 40)


# Attacks, where the answer is known


@cache
def small_pack() -> Pack:
    """240 people, 4 faces of 16x16 each."""
    pack = faces_pack()
    rng = np.random.default_rng(0)
    x = np.asarray(pack.x).reshape(-1, 16, 2, 16, 2).mean((2, 4))
    x = np.concatenate([x, x[:, :, ::-1]])
    x = np.clip(x + rng.normal(scale=6, size=x.shape), 0, 255).astype(np.uint8)
    who = [f"{side}{i}" for side in "ab" for i in np.asarray(pack.label("identity"))]
    return Pack.from_arrays(x, {"identity": who}, seed=1)


def people() -> np.ndarray:
    """Of the test split."""
    return small_pack().label("identity")[small_pack().rows("test")]


def centred(x: np.ndarray) -> np.ndarray:
    """A matcher that is not trained: the pixels, less what all faces share."""
    values = np.asarray(small_pack().x).mean(0, dtype=np.float32)
    return (np.asarray(x, np.float32) - values).reshape(len(x), -1)


@cache
def _judges() -> judging.Judges:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        looks = PerceptualNetwork(1).requires_grad_(False).eval()
    return judging.Judges(looks=looks, matcher=centred, about="")


def setting(pack: Pack, *, decoders=None, attack_on=("attack",), effort="quick") -> Setting:
    some = {} if decoders is None else {"decoders": {name: DECODERS[name] for name in decoders}}
    return Setting(
        pack=pack, private=(), utility=(), roster=roster(effort, **some), attack_on=attack_on, effort=effort,
        inversion=Inversion(),
    )  # fmt: skip


def outcome(
    x: np.ndarray, pack: Pack | None = None, *, judges=None, role="method", feature_map=None, decoders=None
) -> Outcome:
    asked = setting(pack or small_pack(), decoders=decoders, attack_on=("protect", "attack"))
    return attacks.invert(asked, judges or _judges(), x, release="r", role=role, feature_map=feature_map)


def invert(x: np.ndarray, pack: Pack | None = None, **options) -> list[Finding]:
    return list(outcome(x, pack, **options).findings)


def one(found: list[Finding], code: str, attacker: str | None = None) -> Finding:
    """The finding of an attacker, or of the worst one."""
    hits = [
        f for f in found if f.code == f"inversion.{code}" and (f.worst if attacker is None else f.attacker == attacker)
    ]
    assert len(hits) == 1, [(f.code, f.attacker, f.worst) for f in found]
    return hits[0]


def test_an_invertible_linear_encoder_is_inverted():
    """256 values that are 256 pixels turned: the linear decoder turns them back, to 30 dB and more."""
    flat = np.asarray(small_pack().x).reshape(-1, 256).astype(np.float32)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(256, 256)))
    found = invert((flat @ turn).astype(np.float32))
    worst = one(found, "psnr")
    assert worst.attacker == "linear decoder"
    assert worst.value >= 30
    assert one(found, "ssim").value > 0.95
    assert one(found, "face_similarity").low > one(found, "face_similarity").chance
    assert one(found, "rank1").low > one(found, "rank1").chance
    # The control saw the same releases beside others' originals, and learns nothing.
    dealt = one(found, "psnr", attacks.DEALT)
    assert dealt.role == "control"
    assert dealt.value < one(found, "psnr", attacks.MEAN).value + 0.5
    assert worst.chance == max(dealt.value, one(found, "psnr", attacks.MEAN).value)
    assert one(found, "rank1", attacks.DEALT).chance == one(found, "rank1").chance == 1 / len(set(people()))


def test_a_constant_encoder_gives_the_mean_image_and_the_audit_says_so():
    pack = small_pack()
    made = outcome(np.ones((len(pack), 5), np.float32))
    found = list(made.findings)
    for code in ("psnr", "ssim", "perceptual", "face_similarity"):
        exact, worst = one(found, code, "linear decoder"), one(found, code)
        assert exact.value == pytest.approx(one(found, code, attacks.MEAN).value, abs=1e-6)
        assert exact.note.startswith(NO_BETTER)
        assert worst.note.startswith(NO_BETTER)
    drawn = made.picture
    assert (drawn == drawn[:1]).all()
    assert one(found, "lda", "scatter").status == "not_applicable"


def test_decoders_learn_from_maps_and_images(monkeypatch):
    """A map that is the picture itself, and releases that are images of half the contrast."""
    monkeypatch.setitem(decoders.STEPS, "features", (2,) * 3)  # of them other tests tell
    x = np.asarray(small_pack().x)
    as_map = (x.reshape(len(x), -1) / np.float32(255)).astype(np.float32)
    as_images = (64 + x // 2).astype(np.uint8)
    for releases, feature_map in ((as_map, (1, 16, 16)), (as_images, None)):
        found = invert(releases, feature_map=feature_map, decoders=("linear decoder", "weak decoder"))
        assert one(found, "psnr", "weak decoder").value > one(found, "psnr", "mean image").value + 2
        assert one(found, "psnr").value > 25


def test_the_input_is_the_picture_itself():
    found = invert(np.asarray(small_pack().x), role="input")
    assert one(found, "ssim").value == pytest.approx(1)
    assert one(found, "psnr").value == 60
    assert one(found, "face_similarity").value == pytest.approx(1)
    assert one(found, "perceptual").value == pytest.approx(0, abs=1e-6)
    assert {f.attacker for f in found if f.role == "attack"} == {attacks.ITSELF, "scatter"}


def test_features_are_found_straight_from_releases():
    """Releases that are the matcher's own features give them back; noise gives their mean at most."""
    judges = _judges()
    features = judges.matcher(np.asarray(small_pack().x))
    assert one(invert(features, decoders=()), "feature_similarity").value > 0.95
    noise = np.random.default_rng(0).normal(size=features.shape).astype(np.float32)
    guess = one(invert(noise, decoders=()), "feature_similarity")
    assert guess.value < guess.chance + 0.02


def test_features_are_found_whatever_their_length():
    """A matcher's features are compared by their directions, and so is what an attack on them learns to choose."""
    judges = _judges()
    releases = judges.matcher(np.asarray(small_pack().x)) @ np.random.default_rng(0).normal(size=(256, 12))
    long = judging.Judges(looks=judges.looks, matcher=lambda x: 20 * judges.matcher(x), about="")
    found = [invert(releases.astype(np.float32), judges=who, decoders=()) for who in (judges, long)]
    values = [one(each, "feature_similarity", "linear features").value for each in found]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_a_small_gain_is_seen_where_images_differ_more():
    """How bright an image is tells little of it, but of every image: its interval spans what is got without."""
    brightness = np.asarray(small_pack().x).mean((1, 2), dtype=np.float32)[:, None]
    found = invert(brightness, decoders=("linear decoder",))
    hits = [f for f in found if f.attacker == "linear decoder" and f.code == "inversion.ssim"]
    assert hits[0].low < hits[0].chance < hits[0].value
    assert not hits[0].note.startswith(NO_BETTER)


def test_stored_templates_are_reconstructed():
    """Vectors from turned vectors: the cosine to the original is 1, and every person is found."""
    pack = vectors_pack()
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))
    none = judging.judges(setting(pack))
    found = invert(np.asarray(pack.x) @ turn.astype(np.float32), pack, judges=none)
    assert one(found, "similarity").value > 0.99
    assert one(found, "rank1").value > 0.8
    assert {f.code for f in found} == {"inversion.similarity", "inversion.rank1", "inversion.lda"}


def test_more_data_where_the_attackers_have_less(monkeypatch):
    short_decoders(monkeypatch)  # who attacks is asked, not how well
    pack = small_pack()
    x = np.asarray(pack.x).reshape(len(pack), -1).astype(np.float32)
    names = []
    for effort in ("quick", "standard"):
        made = attacks.invert(setting(pack, effort=effort), _judges(), x[:, ::64], release="r", role="method")
        names.append({f.attacker for f in made.findings})
    assert names[1] - names[0] == {attacks.MORE_DATA}


def test_an_audit_with_inversion_writes_figures_pictures_and_a_report(tmp_path, monkeypatch):
    from veil.report import page as html

    short_decoders(monkeypatch)
    short_networks(monkeypatch, 3)
    pack = faces_pack()
    release = fit(replace(SHORT, capacity=8.0))
    found = audit(
        pack, [Subject(name="Ours", release=release)], tmp_path, private=[], utility=["smile", "glasses"], baselines=(),
        effort="quick", jobs=1, inversion=True, pictures=True, roster=only("logistic regression", classifiers={}),
    ).findings  # fmt: skip
    worst = redrawn(found)
    assert set(worst) == {"Input", "Ours"}
    assert {"inversion.ssim", "inversion.face_similarity", "inversion.feature_similarity"} <= set(worst["Ours"])
    mean = [f for f in found if f.code == "utility.mean_mcc" and f.release == "Input"]
    each = [f.value for f in found if f.code == "utility.mcc" and f.release == "Input" and f.worst]
    assert mean[0].value == pytest.approx(np.mean(each))
    page = html.write(tmp_path).read_text()
    assert "Inversion: what is redrawn from a release" in page
    assert "the worst tested decoder" in page
    assert "Audit of 1 protected release: hiding the picture itself" in page
    assert (tmp_path / "pictures" / "inversion.png").exists()


def test_a_matcher_of_an_onnx_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    image = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["B", 3, 8, 8])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["B", 192])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Flatten", ["x"], ["y"])], "g", [image], [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "m.onnx"))
    matcher = OnnxNetwork(tmp_path / "m.onnx")
    grey = matcher(np.full((2, 16, 16), 255, np.uint8))
    np.testing.assert_allclose(grey, np.ones((2, 192)))
    colours = matcher(np.broadcast_to(np.array([0, 255, 0], np.uint8), (1, 8, 8, 3)))
    np.testing.assert_allclose(colours.reshape(3, 64), np.array([-1, 1, -1])[:, None] * np.ones(64))
    (tmp_path / "bad.onnx").write_bytes(b"no")
    with pytest.raises(InputError, match=r"bad\.onnx: not a readable ONNX file"):
        OnnxNetwork(tmp_path / "bad.onnx")


def test_people_on_a_map():
    """Releases that tell the person lie together on the map; nothing is drawn where nobody has two images."""
    pack = small_pack()
    who = pack.label("identity").astype(np.float32)
    x = np.stack([np.cos(who), np.sin(who), who % 7], 1) + np.random.default_rng(0).normal(size=(len(who), 3)) / 100
    found = attacks.people_map(x.astype(np.float32), pack, seed=0, people=4)
    assert found == attacks.people_map(x.astype(np.float32), pack, seed=0, people=4)
    at, person = np.stack([found["x"], found["y"]], 1), np.array(found["person"])
    assert np.bincount(person).tolist() == [4] * 4
    spread = [at[person == p].std() for p in range(4)]
    assert max(spread) < np.stack([at[person == p].mean(0) for p in range(4)]).std()
    alone = Pack.from_arrays(np.asarray(pack.x[:40]), {"identity": [str(i) for i in range(40)]}, seed=1)
    assert attacks.people_map(np.ones((40, 2), np.float32), alone, seed=0) == {}


# Networks


@pytest.mark.parametrize(("depth", "width"), [(18, 512), (50, 2048)])
def test_the_two_halves_are_the_whole(depth, width):
    """Any cut: the stages before and behind it, with the same weights, compute what the whole network does."""
    x = torch.rand(2, 1, 48, 48)
    whole = ResNet(depth, 7)
    assert whole.fc.in_features == width
    for cut in range(1, 6):
        front, back = (ResNet(depth, 7, stages=part) for part in (ResNet.stages[:cut], ResNet.stages[cut:]))
        front.load_state_dict({k: v for k, v in whole.state_dict().items() if k in front.state_dict()})
        back.load_state_dict({k: v for k, v in whole.state_dict().items() if k in back.state_dict()})
        assert not set(front.state_dict()) & set(back.state_dict())
        torch.testing.assert_close(back(front(x)), whole(x))


def test_parameters_have_torchvisions_names_and_shapes():
    eighteen, fifty = ResNet(18, 1000, "batch").state_dict(), ResNet(50, 1000, "batch").state_dict()
    known = {
        "conv1.weight": (64, 3, 7, 7), "bn1.running_mean": (64,), "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1), "layer2.0.downsample.1.running_var": (128,),
        "layer4.1.bn2.bias": (512,), "fc.weight": (1000, 512),
    }  # fmt: skip
    assert {name: tuple(eighteen[name].shape) for name in known} == known
    known = {
        "layer1.0.conv3.weight": (256, 64, 1, 1), "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer3.5.conv2.weight": (256, 256, 3, 3), "layer4.2.bn3.weight": (2048,), "fc.bias": (1000,),
    }  # fmt: skip
    assert {name: tuple(fifty[name].shape) for name in known} == known
    # As published: 11,689,512 and 25,557,032 parameters.
    assert [sum(p.numel() for p in ResNet(d, 1000).parameters()) for d in (18, 50)] == [11_689_512, 25_557_032]
    assert Vgg16().state_dict()["features.28.weight"].shape == (512, 512, 3, 3)
    assert [m.shape[1:] for m in Vgg16().maps(torch.rand(1, 1, 32, 32))] == [
        (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)
    ]  # fmt: skip


def test_stored_statistics_are_those_of_batch_normalisation():
    """The network in evaluation mode, with torch's own batch normalisation in place of ours."""
    ours = ResNet(18, 5, "batch").bn1
    ours.running_mean.uniform_(-1, 1)
    ours.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        ours.weight.uniform_(0.5, 2)
        ours.bias.uniform_(-1, 1)
    theirs = nn.BatchNorm2d(64).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    x = torch.randn(3, 64, 4, 4)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weight_files_load_into_either_half(tmp_path, suffix):
    weights = {k: torch.rand_like(v) for k, v in ResNet(18, 1000, "batch").state_dict().items()}
    path = tmp_path / f"resnet18{suffix}"
    torch.save(weights, path) if suffix == ".pth" else save_file(weights, path)
    front = ResNet(18, 16, "batch", ResNet.stages[:2])
    assert len(load_torchvision(front, path)) == 64
    assert all((value == weights[name]).all() for name, value in front.state_dict().items())
    back = ResNet(18, 16, "batch", ResNet.stages[2:])
    with pytest.raises(InputError, match=r"weight 'fc.weight' must have shape \(16, 512\), got \(1000, 512\)"):
        load_torchvision(back, path)
    load_torchvision(back, path, spared=("fc.",))
    assert (back.state_dict()["layer4.0.conv1.weight"] == weights["layer4.0.conv1.weight"]).all()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="must be a file of weights, and cannot be read"):
        load_torchvision(back, path)


def test_decoders_give_the_image_for_any_shape():
    for shape, image in [
        ((12,), (1, 50, 50)), ((64, 13, 13), (1, 50, 50)), ((512, 2, 2), (3, 64, 64)), ((1, 20, 20), (1, 20, 20)),
        ((3, 33, 9), (3, 33, 9)), ((256, 4, 4), (1, 48, 40)),
    ]:  # fmt: skip
        assert MirrorDecoder(shape, *image)(torch.rand(2, *shape)).shape == (2, *image)
    for size in ((50, 48), (8, 8), (12, 40)):
        assert ImageDiscriminator(3, *size)(torch.rand(2, 3, *size)).shape == (2,)


# Losses


def test_errors_by_hand():
    x = torch.zeros(2, 1, 2, 2)
    x[0, 0, 0, 0] = 1.0
    assert pixel_error(torch.zeros_like(x), x).tolist() == [0.25, 0.0]
    a, b = torch.tensor([[[[3.0]], [[4.0]]]]), torch.tensor([[[[4.0]], [[-3.0]]]])
    assert perceptual_distance([a], [2 * a]).item() == pytest.approx(0, abs=1e-6)
    assert perceptual_distance([a, a], [b, a]).item() == pytest.approx(1)  # right angles are 2 apart, equals 0
    assert perceptual_distance([a], [-a]).item() == pytest.approx(4)


def training(config: Config = SHORT) -> inversion.Training:
    pack = faces_pack()
    run = Run(seed=0, precision="fp32")
    x1, x2 = inversion._parts(config, pack, 0)
    made = inversion.Training(config, run, pack.x, x1, x2, [pack.label("smile")], {"smile": ("no", "yes")})
    run.enter(*made.players)
    return made


def fit(config: Config = SHORT, pack: Pack | None = None, utility: str = "smile", **options):
    return train("inversion", config, pack or faces_pack(), private=(), utility=utility, **options)


def test_errors_count_up_to_the_mean_images():
    share = torch.tensor([0.2, 0.8, 7.0])
    assert training().counted("e", share).item() == pytest.approx(2 / 3)
    assert training(replace(SHORT, bounded=False)).counted("e", share).item() == pytest.approx(8 / 3)


def test_the_protector_is_paid_for_what_the_decoder_gets_wrong():
    """Eq. 9: utility - mu1 (relative pixel error) - mu2 (relative perceptual distance), both as logged."""
    made = training(replace(SHORT, mu1=2.0, mu2=3.0))
    made.train()
    step = next(iter(Run(seed=5, precision="fp32").stage("s", 1)))
    x, labels = made.batch(step)
    made.run._pending.clear()
    with torch.no_grad():
        loss = made.protector_loss(x, labels, step).item()
        utility = made.utility_loss(made.represented(x, step), labels).item()
        drawn = made.redrawn(made.represented(x, step))
        pixels = pixel_error(drawn, x) / pixel_error(made.mean.expand_as(x), x)
        looks = perceptual_distance(made.maps(drawn), made.maps(x)) / perceptual_distance(
            made.maps(made.mean.expand_as(x)), made.maps(x)
        )
    expected = utility - 2 * pixels.clamp(max=1).mean().item() - 3 * looks.clamp(max=1).mean().item()
    assert loss == pytest.approx(expected, abs=1e-4)


def test_the_schedule():
    made = training(replace(SHORT, ahead=3, lambda2=0.1))
    made.train()
    updates = {p.name: p.updates for p in made.players}
    # the decoder: two steps alone, three for each of the two joint ones, and as many of its discriminator
    assert updates == {"protector": 4, "decoder": 8, "discriminator": 8, "perceptual": 3}


def test_without_an_adversary_only_the_protector_learns():
    made = training(replace(SHORT, mu1=0, mu2=0, capacity=8.0))
    made.train()
    assert [p.name for p in made.players] == ["protector"]


def test_private_and_public_people_are_apart():
    pack = faces_pack()
    x1, x2 = inversion._parts(replace(SHORT, public=0.25), pack, 3)
    who = pack.label("identity")
    assert not set(who[x1]) & set(who[x2])
    assert sorted([*x1, *x2]) == sorted(pack.rows("protect"))
    assert len(set(who[x2])) == round(0.25 * len(set(who[pack.rows("protect")])))


def test_noise_makes_the_capacity():
    """k Gaussian channels of power 1 / k beside noise of power s^2 / k: (k / 2) log2(1 + 1 / s^2) bits."""
    for capacity, k in ((8.0, 16), (128.0, 16_384), (0.5, 128)):
        s = inversion.noise_of(capacity, k)
        assert k / 2 * np.log2(1 + 1 / s**2) == pytest.approx(capacity)
    with pytest.raises(InputError, match="capacity: must be at most 64 bits for each of 8 values, got 6000"):
        inversion.noise_of(6000, 8)
    assert inversion.noise_of(0.0, 128) == 0
    assert fit(replace(SHORT, capacity=16.0)).contract.noise == pytest.approx(3**-0.5)  # 16 values of one bit each


def test_noise_is_learned_with_and_released():
    release = fit(replace(SHORT, capacity=2.0))
    out = release.transform(faces_pack().x[:6])
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-5)
    assert release.contract.keyed
    assert release.predict(out)["smile"].sum(1) == pytest.approx(np.ones(6))


def test_it_keeps_labels_and_ships_no_path(tmp_path):
    weights = tmp_path / "resnet18.pth"
    torch.save(ResNet(18, 1000, "batch").state_dict(), weights)
    release = fit(replace(SHORT, labels="glasses, gender", norm="batch", weights=str(weights), cut="layer1"))
    assert release.contract.feature_map == (64, 8, 8)
    assert {k: len(v) for k, v in release.contract.keeps.items()} == {"smile": 2, "glasses": 2, "gender": 2}
    assert str(tmp_path) not in (release.save(tmp_path / "r") / "release.json").read_text()
    assert len(release.made["weights"]) == 64
    # the client's half and the server's: no weight is in both
    front, back = (set(m.network.state_dict()) for m in (release.encoder, release.classifier))
    assert front
    assert not front & back


def test_the_same_network_cut_elsewhere(tmp_path):
    """Representations differ with the cut, what the server says of them does not."""
    alone = replace(SHORT, mu1=0.0, mu2=0.0)
    release, x = fit(alone), faces_pack().x[:6]
    said = release.predict(release.transform(x))["smile"]
    for cut, shape in (("conv1", (64, 8, 8)), ("layer3", (256, 2, 2)), ("pool", None)):
        other = inversion.recut(release, cut)
        assert other.contract.feature_map == shape
        other.save(tmp_path / cut)
        np.testing.assert_allclose(other.predict(other.transform(x))["smile"], said, atol=1e-5)
    for kept, why in ((SHORT, "heard of a decoder"), (replace(alone, capacity=4.0), "adds noise")):
        with pytest.raises(InputError, match=f"recut: the release must be unprotected, got one that {why}"):
            inversion.recut(fit(kept), "conv1")
    with pytest.raises(InputError, match="cut: must be one of"):
        inversion.recut(release, "layer4")


def test_a_weight_file_is_one_whatever_its_name(tmp_path):
    (tmp_path / "resnet18").write_bytes(b"")
    with pytest.raises(InputError, match="norm: a weight file holds statistics of batches"):
        Config(weights=str(tmp_path / "resnet18"))


def test_it_begins_with_a_network_that_is_there(tmp_path):
    """Without a step more it is that network, wherever it is cut; with noise, and cut elsewhere, it learns on."""
    release, x = fit(replace(SHORT, mu1=0.0, mu2=0.0)), faces_pack().x[:6]
    release.save(tmp_path / "r")
    begun = replace(SHORT, mu1=0.0, mu2=0.0, weights=str(tmp_path / "r"), steps_alone=0, cut="layer2")
    same = fit(begun)
    np.testing.assert_allclose(
        same.predict(same.transform(x))["smile"], release.predict(release.transform(x))["smile"], atol=1e-5
    )
    noisy = fit(replace(begun, capacity=8.0, steps_alone=1))
    assert noisy.contract.noise > 0
    assert len(noisy.made["weights"]) == 64
    assert str(tmp_path) not in (noisy.save(tmp_path / "n") / "release.json").read_text()
    for settings, options, words in (
        ({}, {"utility": "glasses"}, r"r must keep the labels glasses \(2\), got smile \(2\)"),
        ({"weights": str(tmp_path / "n")}, {}, "n must add no noise, got noise of norm"),
        ({"features": 32}, {}, r"network.fc.weight of .*r must have shape \(32, 512\), got \(16, 512\)"),
        ({"norm": "batch"}, {}, "r must have norm batch, got group"),
    ):
        with pytest.raises(InputError, match=f"^weights: .*{words}"):
            fit(replace(begun, **settings), **options)


def test_it_begins_with_labels_in_their_order(tmp_path):
    """The same labels in another order would be told of each other."""
    both = replace(SHORT, mu1=0.0, mu2=0.0, labels="glasses")
    fit(both).save(tmp_path / "r")
    turned = replace(both, labels="smile", weights=str(tmp_path / "r"), steps_alone=0)
    with pytest.raises(InputError, match=r"labels glasses \(2\), smile \(2\), got smile \(2\), glasses \(2\)"):
        fit(turned, utility="glasses")


def test_without_an_adversary_everybody_is_learned_from(monkeypatch):
    seen = []
    monkeypatch.setattr(inversion, "Training", lambda *a: seen.append(a[3:5]) or (_ for _ in ()).throw(Diverged("x")))
    for config in (replace(SHORT, capacity=4.0, mu1=0.0, mu2=0.0), SHORT):
        with pytest.raises(Diverged):
            fit(config)
    (everybody, nobody), (private, public) = seen
    assert len(nobody) == 0
    assert len(everybody) == len(private) + len(public) > len(private) > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"depth": 34}, "depth: must be one of 18, 50, got 34"),
        ({"cut": "layer4"}, "cut: must be one of conv1, layer1, layer2, layer3, pool, fc, got 'layer4'"),
        ({"weights": "x.pth"}, "norm: a weight file holds statistics of batches, so it must be batch, got 'group'"),
        ({"public": 1.0}, "public: must lie between 0 and 1, got 1.0"),
        ({"mu1": -1.0, "capacity": float("nan")}, "mu1: must be >= 0, got -1.0; capacity: must be >= 0, got nan"),
    ],
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(InputError, match=f"^inversion: .*{words}"):
        Config(**settings)


def test_data_that_does_not_fit():
    with pytest.raises(InputError, match="inversion: needs a pack of images, got vectors"):
        fit(pack=vectors_pack())
    with pytest.raises(InputError, match="utility: this method keeps labels, got 'identity'"):
        fit(utility="identity")
    with pytest.raises(InputError, match="label 'height'"):
        fit(replace(SHORT, labels="height"))
    with pytest.raises(InputError, match="takes no base"):
        fit(base=fit())


# The perceptual network


def test_a_perceptual_network_learns_without_labels():
    pack = faces_pack()
    run = Run(seed=0, precision="fp32")
    learner = perceptual.player(run, 1, 30)
    run.enter(learner)
    network = perceptual.learn(run, learner, pack.x, pack.rows("protect"), 30)
    losses = [value for _, _, _, value in run.curves]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3
    assert isinstance(network, PerceptualNetwork)
    assert not any(p.requires_grad for p in network.parameters())
