"""Networks of ONNX files: what they see and give, one session a process, refusals; attacks that transfer by them."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from conftest import brightness_file, onnx_file, vectors_pack
from test_faces import EYES, Dots, detector, dotted, drawn  # noqa: F401
from veil.auditing import pairs as pairing
from veil.auditing import transfer
from veil.auditing.attackers import ATTACKERS
from veil.auditing.metrics import auc
from veil.auditing.rosters import roster
from veil.auditing.setting import Networks, Setting
from veil.data import build
from veil.data.pack import Pack
from veil.errors import InputError
from veil.findings import Finding
from veil.nn import embedders, onnxfile
from veil.nn.onnxfile import OnnxNetwork
from veil.workflows.audit import audit
from veil.workflows.embed import embed

FLATTEN = ("Flatten", (), {})


def test_grey_files_see_grey_and_sizes_are_theirs(tmp_path: Path) -> None:
    network = OnnxNetwork(onnx_file(tmp_path / "grey.onnx", FLATTEN, shape=["B", 1, 2, 4]))
    assert (network.name, network.width) == ("grey.onnx", 8)
    x = np.zeros((3, 8, 8), np.uint8)
    x[1] = 255
    x[2, :, 4:] = 255  # right half
    out = network(x)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[:2], [[-1] * 8, [1] * 8])
    np.testing.assert_allclose(out[2].reshape(2, 4)[:, [0, 3]], [[-1, 1]] * 2)
    np.testing.assert_allclose(network(np.repeat(x[..., None], 3, 3)), out, atol=0.01)  # luminance, rounded
    assert network(x[:0]).shape == (0, 8)


def test_a_batch_may_be_fixed(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (70, 4, 4), dtype=np.uint8)
    free, fixed = (OnnxNetwork(onnx_file(tmp_path / f"{n}.onnx", FLATTEN, shape=[n, 1, 4, 4])) for n in ("B", 3))
    np.testing.assert_array_equal(fixed(x), free(x))
    np.testing.assert_allclose(free(x), x.reshape(70, 16) / 127.5 - 1, atol=1e-6)


def test_a_process_makes_one_session_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = pytest.importorskip("onnxruntime")
    made, real = [], runtime.InferenceSession
    monkeypatch.setattr(runtime, "InferenceSession", lambda path, *a, **k: made.append(path) or real(path, *a, **k))
    onnxfile._session.cache_clear()
    path = onnx_file(tmp_path / "f.onnx", FLATTEN, shape=["B", 1, 2, 2])
    network = OnnxNetwork(path)
    x = np.full((1, 2, 2), 255, np.uint8)
    for sent in (network, pickle.loads(pickle.dumps(network)), pickle.loads(pickle.dumps(network)), OnnxNetwork(path)):
        np.testing.assert_array_equal(sent(x), np.ones((1, 4)))
    assert made == [str(path)]
    onnx_file(path, FLATTEN, ("Neg", (), {}), shape=["B", 1, 2, 2])  # another file of that name
    np.testing.assert_array_equal(OnnxNetwork(path)(x), -np.ones((1, 4)))


def test_files_that_do_not_serve(tmp_path: Path) -> None:
    def refused(message: str, *nodes: Any, **options: Any) -> None:
        path = onnx_file(tmp_path / "f.onnx", *nodes, **options)
        with pytest.raises(InputError, match=rf"^{path}: {message}") as caught:
            OnnxNetwork(path)(np.zeros((1, 4, 4), np.uint8))
        assert "\n" not in str(caught.value)

    images = r"must take float32 images \(B, 3, H, W\) or \(B, 1, H, W\), got"
    refused(rf"{images} tensor\(float\) \('B', 7\)", FLATTEN, shape=["B", 7])
    refused(images, FLATTEN, shape=["B", 2, 4, 4])
    refused(r"takes images of any size .*, so their size must be declared", FLATTEN, shape=["B", 3, "H", "W"])
    refused(rf"{images} tensor\(double\)", FLATTEN, shape=["B", 1, 4, 4], kind="DOUBLE")
    refused(r"must give float32 \(B, d\), got float32 \(2, 1, 4, 4\) of B = 2", ("Neg", (), {}), shape=["B", 1, 4, 4])
    refused("its values must be finite", FLATTEN, ("Sqrt", (), {}), shape=["B", 1, 4, 4])  # of -1
    wrong = ("Reshape", ("s",), {})
    refused("not a readable ONNX file|cannot be run", wrong, shape=["B", 1, 4, 4], s=[[1.0]])
    (tmp_path / "bad.onnx").write_bytes(b"no")
    with pytest.raises(InputError, match=r"bad\.onnx: not a readable ONNX file"):
        OnnxNetwork(tmp_path / "bad.onnx")
    with pytest.raises(InputError, match=r"gone\.onnx: cannot be read \(No such file"):
        OnnxNetwork(tmp_path / "gone.onnx")


# What is declared of a file


def declared_file(path: Path, *nodes: Any, shape: Any, **metadata: str) -> Path:
    """A file whose metadata say what it sees; names have ``veil_`` for ``veil.``."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(onnx_file(path, *(nodes or (FLATTEN,)), shape=shape)))
    onnx.helper.set_model_props(model, {name.replace("veil_", "veil."): text for name, text in metadata.items()})
    onnx.save(model, str(path))
    return path


def test_a_file_is_shown_what_is_declared(tmp_path: Path) -> None:
    """Size, order of colours, and another mean and deviation for each: what the network gets, value by value."""
    path = onnx_file(tmp_path / "f.onnx", FLATTEN, shape=["B", "C", "H", "W"])
    x = np.zeros((2, 5, 5, 3), np.uint8)
    x[:] = (10, 20, 30)
    rgb = OnnxNetwork(path, declared={"size": "2x1", "mean": "1:2:3", "std": "9"})
    np.testing.assert_allclose(rgb(x), [[1, 1, 2, 2, 3, 3]] * 2)
    assert (rgb.size, rgb.width, rgb.eyes, rgb.classes) == ((2, 1), 6, None, ())
    bgr = OnnxNetwork(path, declared={"size": "1", "colours": "BGR", "mean": "0", "std": "1:2:5"})
    np.testing.assert_allclose(bgr(x), [[30, 10, 2]] * 2)
    grey = OnnxNetwork(path, declared={"size": "1", "colours": "grey", "std": "255", "mean": "0"})
    np.testing.assert_allclose(grey(x), [[18 / 255]] * 2)  # .299 R + .587 G + .114 B, rounded
    assert len({each.fingerprint for each in (rgb, bgr, grey)}) == 3


def test_a_file_may_say_itself_what_it_sees(tmp_path: Path) -> None:
    """And the user's own words count for more, setting by setting; other metadata is nobody's business."""
    path = declared_file(
        tmp_path / "f.onnx", shape=["B", 3, "H", "W"], veil_size="1", veil_colours="bgr", veil_mean="0", veil_std="1",
        veil_eyes="0.25:0.5:0.75:0.5", classes='["b", "a"]', mean="0.5", author="somebody",
    )  # fmt: skip
    x = np.full((1, 4, 4, 3), (1, 2, 3), np.uint8)
    own = OnnxNetwork(path)
    np.testing.assert_allclose(own(x), [[3, 2, 1]])
    assert (own.eyes, own.classes) == (((0.25, 0.5), (0.75, 0.5)), ("b", "a"))
    changed = OnnxNetwork(path, declared={"colours": "rgb", "eyes": "none"})
    np.testing.assert_allclose(changed(x), [[1, 2, 3]])
    assert changed.eyes is None


def test_forms_are_several_declarations_at_once(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "f.onnx", FLATTEN, shape=["B", 3, "H", "W"])
    arc = OnnxNetwork(path, declared={"form": "arcface", "size": "112"})
    x = np.zeros((1, 112, 112, 3), np.uint8)
    assert np.unique(arc(x)).tolist() == [-1]
    assert arc.eyes is not None
    pixels = np.array(arc.eyes) * 112 - 0.5  # from the middle of the first
    np.testing.assert_allclose(pixels, [[38.2946, 51.6963], [73.5318, 51.5014]], atol=2e-3)
    image = OnnxNetwork(path, declared={"form": "imagenet", "size": "1", "std": "1"})
    np.testing.assert_allclose(image(x[:, :1, :1]), [[-123.675, -116.28, -103.53]], rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "declared", "words"),
    [
        (["B", 3, 4, 4], {"colour": "rgb"}, r"colour is no setting \(form, size, colours, mean, std, eyes, classes\)"),
        (["B", 3, 4, 4], {"colours": "gbr"}, "colours must be one of rgb, bgr, grey, got 'gbr'"),
        (["B", 3, 4, 4], {"colours": "grey"}, "takes images of 3 channels, so colours must not be grey"),
        (["B", 1, 4, 4], {"colours": "bgr"}, "takes images of 1 channels, so colours must not be bgr"),
        (["B", 3, 4, 4], {"size": "5"}, "takes images of 4 x 4 pixels, so size must not be 5 x 5"),
        (["B", 3, 4, "W"], {"size": "4x5"}, "takes images of None x 4 pixels, so size must not be 4 x 5"),
        (["B", 3, "H", "W"], {"size": "0"}, "size must be a side, or WIDTHxHEIGHT, in 1 .. 4096 pixels, got '0'"),
        (["B", 3, "H", "W"], {"size": "4x"}, "size must be a side"),
        (["B", 3, 4, 4], {"mean": "0.5", "std": "0.5"}, "std must be a number in 1 .. 255, of pixels as they are"),
        (["B", 3, 4, 4], {"mean": "nan"}, "mean must be a number in 0 .. 255"),
        (["B", 3, 4, 4], {"mean": "1:2"}, "mean must be a number in 0 .. 255, of pixels as they are, or three"),
        (["B", 3, 4, 4], {"mean": ""}, "mean must be .*, got ''"),
        (["B", 1, 4, 4], {"mean": "1:2:3"}, "mean must be one number, as it sees grey, got 3"),
        (["B", 3, 4, 4], {"eyes": "0.6:0.4:0.3:0.4"}, "eyes must be LEFT_X:LEFT_Y:RIGHT_X:RIGHT_Y as fractions"),
        (["B", 3, 4, 4], {"eyes": "38:51:73:51"}, "eyes must be .* as fractions of the side"),
        (["B", 3, 4, 6], {"eyes": "0.3:0.4:0.6:0.4"}, "eyes are declared of a square, got 6 x 4 pixels"),
        (["B", 3, 4, 4], {"form": "resnet"}, "form must be one of arcface, imagenet, got 'resnet'"),
        (["B", 3, 5000, 4], {}, "must take images of at most 4096 pixels a side"),
    ],
)
def test_a_wrong_declaration_is_one_line(tmp_path: Path, shape: Any, declared: dict[str, str], words: str) -> None:
    path = onnx_file(tmp_path / "f.onnx", FLATTEN, shape=shape)
    with pytest.raises(InputError, match=words):
        OnnxNetwork(path, declared=declared)


def test_wrong_metadata_names_itself(tmp_path: Path) -> None:
    path = declared_file(
        tmp_path / "f.onnx", shape=["B", 3, 4, 4], veil_colour="rgb", veil_std="0.1", veil_classes="[1"
    )
    with pytest.raises(InputError) as caught:
        OnnxNetwork(path)
    for words in ("f.onnx: its metadata's veil.colour is no setting", "std must be", "classes must be names"):
        assert words in str(caught.value)


@pytest.mark.parametrize("classes", ["{'0': 'a', '1': 'b'}", '{"0": "a"}', "", "[1, 2]", "a,,b"])
def test_classes_of_another_kind_are_nobodys_business(tmp_path: Path, classes: str) -> None:
    assert OnnxNetwork(declared_file(tmp_path / "f.onnx", shape=["B", 3, 4, 4], classes=classes)).classes == ()


def test_without_the_extra_one_line_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = onnx_file(tmp_path / "f.onnx", FLATTEN, shape=["B", 1, 2, 2])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"f\.onnx: a network of an ONNX file needs the extra 'onnx'"):
        OnnxNetwork(path)


# Transfer


def lit_pack() -> Pack:
    """Noise of a person's own; half of the people are dark, half are light."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(80), 4)
    own = rng.integers(0, 100, (80, 8, 8))
    x = own[who] + rng.integers(0, 10, (320, 8, 8)) + 140 * (who % 2)[:, None, None]
    return Pack.from_arrays(
        x.astype(np.uint8), {"identity": [str(i) for i in who], "light": np.array(["dark", "light"])[who % 2]}
    )


READ, AREA = "attribute.transfer_balanced_accuracy", "attribute.transfer_auc"
SVM = {"RBF SVM": ATTACKERS["RBF SVM"]}


def _setting(pack: Pack, networks: Networks, classifiers: Any = SVM) -> Setting:
    private = tuple(name for name in pack.labels if name != "identity")
    who = roster("quick", classifiers=classifiers)
    return Setting(pack=pack, private=private, utility=("identity",), roster=who, effort="quick", networks=networks)


def _read(
    pack: Pack, releases: dict[str, np.ndarray], classifiers: Any = SVM, files: tuple[OnnxNetwork, ...] = ()
) -> dict[str, list[Finding]]:
    """What classifiers of originals read, by release."""
    setting = _setting(pack, Networks(classifiers={"light": files}), classifiers)
    findings = transfer.classified(setting, pack.x, releases, "light").findings
    return {name: [f for f in findings if f.release == name] for name in releases}


def _matched(pack: Pack, releases: dict[str, np.ndarray], file: OnnxNetwork) -> dict[str, list[Finding]]:
    """How matchers of originals compare, by release."""
    findings = transfer.matched(_setting(pack, Networks(matcher=file)), pack.x, releases).findings
    return {name: [f for f in findings if f.release == name] for name in releases}


def test_a_classifier_of_a_file_reads_what_it_knows(tmp_path: Path) -> None:
    """Mean brightness is the label on originals, and its opposite on inverted images."""
    pack = lit_pack()
    x = np.asarray(pack.x)
    files = (OnnxNetwork(brightness_file(tmp_path / "light.onnx")),)
    found = _read(pack, {"Input": x, "Inverted": 255 - x}, files=files)
    by = {(name, f.attacker): f for name, each in found.items() for f in each if f.code == READ}
    assert set(by) == {(n, a) for n in ("Input", "Inverted") for a in ("RBF SVM", "light.onnx")}
    assert by["Input", "light.onnx"].value == 1
    assert by["Inverted", "light.onnx"].value == 0
    theirs = "a file of the user's; by its largest logit, without the threshold, "
    assert by["Input", "light.onnx"].note == theirs + "1.000"
    assert by["Inverted", "light.onnx"].note == "below chance: its opposite is right more often; " + theirs + "0.000"
    assert by["Input", "RBF SVM"].note == ""
    areas = {
        name: f.value for name, each in found.items() for f in each if f.code == AREA and f.attacker == "light.onnx"
    }
    assert areas == {"Input": 1, "Inverted": 0}
    assert sum(f.worst for f in found["Input"] if f.code == READ) == 1


def test_a_classifier_of_a_file_gets_a_threshold_on_originals(tmp_path: Path) -> None:
    """Its logits were made for other light: the larger one names one class for everybody, and still it tells all."""
    pack = lit_pack()
    x = np.asarray(pack.x)
    mean = ("ReduceMean", (), {"axes": [2, 3], "keepdims": 0})
    shifted = onnx_file(
        tmp_path / "shifted.onnx", mean, ("MatMul", ("w",), {}), ("Add", ("b",), {}), shape=["B", 1, 4, 4],
        w=[[-1, 1]], b=[[9, 0]],
    )  # fmt: skip
    found = _read(pack, {"Input": x}, {}, (OnnxNetwork(shifted),))["Input"]
    read = next(f for f in found if f.code == READ)
    assert (read.value, read.worst) == (1, True)
    assert read.note == "a file of the user's; by its largest logit, without the threshold, 0.500"


def test_a_classifier_of_a_file_in_another_order_is_asked_about(tmp_path: Path) -> None:
    pack = lit_pack()
    x = np.asarray(pack.x)
    turned = OnnxNetwork(brightness_file(tmp_path / "turned.onnx", [[1.0, -1.0]]))
    found = _read(pack, {"Input": x}, {}, (turned,))["Input"]
    read = next(f for f in found if f.code == READ)
    assert "AUC on originals 0.000: are its classes in the pack's order?" in read.note
    assert next(f.value for f in found if f.code == AREA) == 0


def test_the_classifier_with_the_best_auc_on_originals_is_marked() -> None:
    """Not the one whose threshold, set on the same originals, is lucky there; and one that raises costs only itself."""
    rng = np.random.default_rng(0)
    n = 800
    numbers = np.arange(n)
    x = np.stack([numbers // 256, numbers % 256], 1).astype(np.uint8).reshape(n, 1, 2)
    y = numbers // 4 % 2
    pack = Pack.from_arrays(x, {"identity": numbers // 4, "light": y})
    check = pack.rows("calibrate")
    weak = 0.9 * y + rng.normal(size=n)
    lucky = rng.normal(size=n)
    lucky[check] = np.where(y[check] == 1, -5.0, 0.0)
    lucky[check[y[check] == 1][::2]] = 5.0  # half of a class above all others, the rest of it below

    def knowing(values: np.ndarray) -> Any:
        both = np.stack([-values, values], 1).astype(np.float32)
        return lambda problem: lambda x: both[x[:, 0, 0].astype(int) * 256 + x[:, 0, 1]]

    def singular(problem: Any) -> Any:
        raise np.linalg.LinAlgError("Singular matrix")

    known = {"lucky": knowing(lucky), "weak": knowing(weak), "singular": singular}
    found = _read(pack, {"Input": pack.x}, known)["Input"]
    assert {f.attacker for f in found if f.worst} == {"weak"}
    failed = next(f for f in found if f.attacker == "singular")
    assert (failed.status, failed.note) == ("did_not_converge", "LinAlgError: Singular matrix")


def test_a_file_that_fails_is_not_taken_for_safety(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "siamese", lambda problem: lambda x: x.reshape(len(x), -1).astype(np.float32))
    pack = lit_pack()
    x = np.asarray(pack.x)
    sqrt = onnx_file(
        tmp_path / "sqrt.onnx", ("Sqrt", (), {}), ("ReduceMean", (), {"axes": [2, 3], "keepdims": 0}),
        ("MatMul", ("w",), {}), shape=["B", 1, 4, 4], w=[[-1, 1]],
    )  # fmt: skip
    found = _read(pack, {"Input": x}, files=(OnnxNetwork(sqrt),))
    failed = next(f for f in found["Input"] if f.attacker == "sqrt.onnx")
    assert (failed.status, failed.worst) == ("not_applicable", False)
    assert "must be finite" in failed.note
    matching = _matched(pack, {"Input": x}, OnnxNetwork(sqrt))["Input"]
    assert [(f.attacker, f.status, f.worst) for f in matching] == [
        (name, status, name == transfer.MATCHER)
        for name, status in ((transfer.MATCHER, "ok"), ("sqrt.onnx", "not_applicable"))
        for _ in range(2)
    ]


def test_a_matcher_of_a_file_compares_beside_the_trained_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels as features: the AUC by hand; a release of one image says nothing, and a trained guess is not picked."""
    monkeypatch.setattr(
        transfer, "siamese", lambda problem: lambda x: np.random.default_rng(0).normal(size=(len(x), 4))
    )
    monkeypatch.setattr(pairing, "metrics_of", lambda x, rows: {"cosine": pairing.COSINE})
    pack = lit_pack()
    x = np.asarray(pack.x)
    file = OnnxNetwork(onnx_file(tmp_path / "pixels.onnx", FLATTEN, shape=["B", 1, 8, 8]))
    releases = {"Input": x, "Inverted": 255 - x, "Constant": np.full_like(x, 200)}
    found = _matched(pack, releases, file)

    def value(release: str, code: str, attacker: str = "pixels.onnx") -> float:
        hits = [f for f in found[release] if (f.code, f.attacker) == (f"verification.{code}", attacker)]
        assert [f.worst for f in hits] == [attacker == "pixels.onnx"]
        return float(hits[0].value or 0)

    rows = pack.rows("test")
    flat = x[rows].reshape(len(rows), -1) / 127.5 - 1
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    a, b = np.triu_indices(len(rows), 1)
    who = pack.label("identity")[rows]
    exact = auc((unit @ unit.T)[a, b], who[a] == who[b])
    assert value("Input", "transfer_auc") == pytest.approx(exact, abs=1e-6)
    assert value("Input", "mixed_auc") == value("Input", "transfer_auc") > 0.9
    assert value("Inverted", "transfer_auc") == pytest.approx(exact, abs=1e-6)  # a sign that both sides have
    assert value("Inverted", "mixed_auc") == pytest.approx(1 - exact, abs=1e-6)
    assert value("Constant", "transfer_auc") == 0.5
    assert abs(value("Input", "transfer_auc", transfer.MATCHER) - 0.5) < 0.2
    assert found["Input"][-1].note.endswith("; by cosine; a file of the user's")


def test_a_matcher_of_a_file_compares_by_the_metric_that_serves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features far from 0, as dlib's are: their cosines say less than what is left without their mean."""
    monkeypatch.setattr(transfer, "siamese", lambda problem: lambda x: np.zeros((len(x), 4), np.float32))
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(160), 4)
    x = (0.5 * rng.integers(0, 256, (160, 4, 4))[who] + 0.5 * rng.integers(0, 256, (640, 4, 4))).astype(np.uint8)
    x = (x * np.linspace(0.2, 1, 16).reshape(4, 4)).astype(np.uint8)
    pack = Pack.from_arrays(x, {"identity": [f"{i:03d}" for i in who]})
    far = OnnxNetwork(onnx_file(tmp_path / "f.onnx", FLATTEN, ("Add", ("b",), {}), shape=["B", 1, 4, 4], b=[9.0] * 16))
    found = _matched(pack, {"Input": x}, far)["Input"]
    figure = next(f for f in found if (f.code, f.attacker) == ("verification.transfer_auc", "f.onnx"))
    assert "by centred cosine" in figure.note or "by euclidean" in figure.note
    rows = pack.rows("test")
    moved = x[rows].reshape(len(rows), -1) / 127.5 + 8
    unit = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    a, b = np.triu_indices(len(rows), 1)
    assert figure.value > auc((unit @ unit.T)[a, b], who[rows[a]] == who[rows[b]]) + 0.005


@pytest.mark.parametrize(
    ("classes", "weights", "right"),
    [("light,dark", ((1, -1),), 1), ("dark,light", ((-1, 1),), 1), ("", ((1, -1),), 0), ("hell,dunkel", ((1, -1),), 0)],
)
def test_a_classifier_that_names_its_classes_is_read_by_them(
    tmp_path: Path, classes: str, weights: Any, right: float
) -> None:
    """Whatever their order; where it does not, or not as the pack does, its logits are taken in the pack's order."""
    pack = lit_pack()
    mean = ("ReduceMean", (), {"axes": [2, 3], "keepdims": 0})
    path = onnx_file(tmp_path / "light.onnx", mean, ("MatMul", ("w",), {}), shape=["B", 1, 4, 4], w=weights)
    file = OnnxNetwork(path, declared={"classes": classes} if classes else {})
    found = _read(pack, {"Input": np.asarray(pack.x)}, {}, (file,))["Input"]
    assert [f.value for f in found if f.code == AREA] == [right]


# Faces before networks that want eyes elsewhere


def dotted_pack(out: Path) -> Pack:
    """Aligned faces of 60 x 60 whose eyes are a red and a green pixel."""
    album = out.parent / "photos"
    for name, eyes in EYES.items():
        dotted(album / name, eyes, size=200)
    return build.pack("folder", album, out, size=60, channels=3, faces=Dots())


def test_faces_are_laid_before_a_network_as_it_wants_them(tmp_path: Path) -> None:
    """Eyes lie where the file says, also at unequal heights; without a word of it images are shown as they are."""
    pack = dotted_pack(tmp_path / "pack")
    path = onnx_file(tmp_path / "f.onnx", FLATTEN, shape=["B", 3, 30, 30])
    plain = embedders.matcher_of(pack, path, {"mean": "0", "std": "1"})
    np.testing.assert_array_equal(plain(pack.x), OnnxNetwork(path, declared={"mean": "0", "std": "1"})(pack.x))
    wants = {"mean": "0", "std": "1", "eyes": "0.2:0.3:0.7:0.5"}
    laid = pickle.loads(pickle.dumps(embedders.matcher_of(pack, path, wants)))
    seen = laid(pack.x).reshape(2, 3, 30, 30)
    places = [[np.unravel_index(each[c].argmax(), (30, 30)) for c in (0, 1)] for each in seen]
    assert np.abs(np.array(places) + 0.5 - [[9, 6], [15, 21]]).max() <= 1.5
    assert (laid.name, laid.width, laid(pack.x[:0]).shape) == ("f.onnx", 2700, (0, 2700))
    assert laid.fingerprint != plain.fingerprint
    bare = build.pack("folder", tmp_path / "photos", tmp_path / "bare", size=60, channels=3)
    with pytest.raises(InputError, match=r"f.onnx: needs the eyes of faces at their places, .* or declare eyes=none"):
        embedders.matcher_of(bare, path, wants)


def test_the_bundled_embedder_is_a_matcher(detector: object, tmp_path: Path) -> None:  # noqa: F811
    """It sees aligned faces, grey ones, too, in whatever process; and nothing is declared of it."""
    (tmp_path / "in").mkdir()
    for number in (11, 42):
        Image.fromarray(drawn(number)).save(tmp_path / "in" / f"{number}.png")
    pack = build.pack("folder", tmp_path / "in", tmp_path / "pack", size=96, channels=3, faces=True)
    matcher = embedders.matcher_of(pack, "dlib")
    assert matcher.name.startswith("embedder of dlib ")
    features = pickle.loads(pickle.dumps(matcher))(pack.x)
    assert features.shape == (2, matcher.width) == (2, 128)
    embed(tmp_path / "pack", tmp_path / "t.parquet")
    np.testing.assert_array_equal(features, pq.read_table(tmp_path / "t.parquet")["vector"].to_pylist())
    assert np.linalg.norm(features[0] - features[1]) > 0.1
    grey = matcher(np.asarray(pack.x).mean(3).astype(np.uint8))
    assert np.linalg.norm(grey - features, axis=1).max() < np.linalg.norm(features[0] - features[1])
    given = transfer.Given(matcher="dlib")
    faces = Pack.from_arrays(np.asarray(pack.x), {"identity": ["a", "b"]})
    with pytest.raises(InputError, match=r"the pack's faces are not aligned; pack them with --faces or --landmarks$"):
        transfer.opened(faces, private=[], utility=["identity"], given=given, shown=True, inverted=False)
    with pytest.raises(InputError, match="dlib: knows what it sees, and nothing is declared of it, got size"):
        embedders.matcher_of(pack, "dlib", {"size": "9"})


def test_files_are_refused_before_anything_starts(tmp_path: Path) -> None:
    pack = lit_pack()
    light = brightness_file(tmp_path / "light.onnx")
    three = brightness_file(tmp_path / "three.onnx", [[0, 1, 2]])
    twin = tmp_path / "other" / "light.onnx"
    twin.parent.mkdir()
    twin.write_bytes(light.read_bytes())

    def refused(message: str, **options: Any) -> None:
        asked: dict[str, Any] = {"private": ["light"], "utility": ["identity"], "shown": True, "inverted": False}
        given = transfer.Given(**{name: options.pop(name) for name in [*options] if name not in asked})
        with pytest.raises(InputError, match=message) as caught:
            transfer.opened(pack, given=given, **{**asked, **options})
        assert "\n" not in str(caught.value)

    refused(
        rf"^{three}: must give a logit for each class of 'light' \(dark, light\), so 2, got 3$",
        classifiers={"light": [light, three]},
    )
    refused(r"^classifier: must be of a label that is attacked \(light\), got 'age'$", classifiers={"age": [light]})
    refused(r"is attacked \(light\), got 'identity'", classifiers={"identity": [light]})
    refused("the names of their files must differ, got ", classifiers={"light": [light, twin]})
    refused(r"gone\.onnx: cannot be read", classifiers={"light": [tmp_path / "gone.onnx"]})
    refused(r"gone\.onnx: cannot be read", matcher=tmp_path / "gone.onnx")
    refused(
        "^classifier: reads releases that are images like the .* to show to .*light.onnx$",
        shown=False,
        classifiers={"light": [light]},
    )
    refused("^matcher: compares redrawn faces", shown=False, matcher=light)
    refused("^matcher settings: are of a matcher, and none is named$", matcher_settings={"size": "9"})
    refused("^classifier settings: are of classifiers, and none is named$", classifier_settings={"size": "9"})
    refused("size must not be 9 x 9", matcher=light, matcher_settings={"size": "9"})
    refused("size must not be 9 x 9", classifiers={"light": [light]}, classifier_settings={"size": "9"})
    refused("^matcher: compares redrawn faces", utility=[], matcher=light)  # nothing is matched
    with pytest.raises(InputError, match=r"^classifier: reads releases that are images"):
        audit(
            vectors_pack(), [], tmp_path / "out", private=["gender"], utility=["identity"],
            classifiers={"gender": [light]},
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
