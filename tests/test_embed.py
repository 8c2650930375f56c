"""Templates of faces: of photographs, and of packs of aligned ones."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from conftest import onnx_file
from test_faces import EYES, Dots, detector, dotted, drawn  # noqa: F401
from veil.data import build
from veil.data.pack import Pack, Predicted
from veil.data.predicted import write_label
from veil.errors import InputError
from veil.nn import embedders
from veil.workflows import embed as workflow
from veil.workflows.embed import embed


class Means:
    """A template is the mean of each colour, and where the red and the green eye lie."""

    name, side, eyes = "means", 30, ((0.2, 0.3), (0.8, 0.3))

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        assert faces.shape[1:] == (30, 30, 3)
        places = [[*np.unravel_index(face[..., c].argmax(), (30, 30))] for face in faces for c in (0, 1)]
        return np.concatenate([faces.mean((1, 2)), np.reshape(places, (len(faces), 4))], 1).astype(np.float32)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, eyes in EYES.items():
        dotted(folder / name, eyes, size=200)
    dotted(folder / "nobody.png")
    return folder


def test_photographs_become_a_table_of_templates(album, tmp_path):
    """Eyes lie where the embedder wants them; who has no face is listed."""
    out, told = tmp_path / "t.parquet", []
    assert embed(album, out, matcher=Means(), detector=Dots(), progress=lambda *a: told.append(a)) == (2, 1)
    table = pq.read_table(out)
    assert table.schema.names == ["source", "vector"]
    assert table["source"].to_pylist() == ["a.png", "b/c.png"]
    vectors = np.array(table["vector"].to_pylist())
    assert np.abs(vectors[:, 3:] + 0.5 - [9, 6, 9, 24]).max() <= 1
    assert told[-1] == (3, 3, 1)
    with (tmp_path / "t.parquet.skipped.csv").open() as file:
        assert list(csv.reader(file)) == [["source", "reason"], ["nobody.png", "no face was found in it"]]
    pack = build.pack("embeddings", out, tmp_path / "pack")
    assert np.array_equal(pack.x, vectors.astype(np.float32))


def test_packs_keep_their_labels(album, tmp_path, monkeypatch):
    """In groups of rows of one batch each, too."""
    (album / "people.csv").write_text("path,gender\na.png,f\n")
    build.pack("folder", album, tmp_path / "pack", size=60, channels=3, faces=Dots(), labels=album / "people.csv")
    monkeypatch.setattr(workflow, "BATCH", 1)
    monkeypatch.setattr(workflow, "GROUP", 1)
    assert embed(tmp_path / "pack", tmp_path / "t.parquet", matcher=Means()) == (2, 0)
    table = pq.read_table(tmp_path / "t.parquet")
    assert table["gender"].to_pylist() == ["f", None]
    assert np.abs(np.array(table["vector"].to_pylist())[:, 3:] + 0.5 - [9, 6, 9, 24]).max() <= 1.5
    assert not (tmp_path / "t.parquet.skipped.csv").exists()


def test_photographs_bring_their_labels(album, tmp_path):
    """From a file, another pack, or the names of their folders; splits that are prescribed go along."""
    (tmp_path / "people.csv").write_text("path,gender,split\na.png,f,test\nb/c.png,,attack\nd.png,m,test\n")
    told = []
    embed(
        album, tmp_path / "t.parquet", matcher=Means(), detector=Dots(), labels=tmp_path / "people.csv",
        settings={"identity": "folder"}, remark=lambda kind, sentence: told.append((kind, sentence)),
    )  # fmt: skip
    table = pq.read_table(tmp_path / "t.parquet").drop(["vector"])
    assert table.to_pylist() == [
        {"source": "a.png", "gender": "f", "identity": None, "split": "test"},
        {"source": "b/c.png", "gender": None, "identity": "b", "split": "attack"},
    ]
    assert ("note", "1 rows of 'people.csv' name none of the images (the first: 'd.png').") in told
    assert any("have no row in" in sentence for kind, sentence in told if kind == "warning")
    pack = build.pack("embeddings", tmp_path / "t.parquet", tmp_path / "pack")
    assert [pack.classes["gender"], pack.classes["identity"], pack.split.tolist()] == [("f",), ("b",), [3, 1]]
    told.clear()
    embed(album, tmp_path / "u.parquet", matcher=Means(), detector=Dots(), remark=lambda *a: told.append(a))
    assert pq.read_table(tmp_path / "u.parquet").column_names == ["source", "vector"]
    assert told == []


def test_labels_that_were_guessed_stay_so(album, tmp_path):
    (album / "labels.csv").write_text("path,gender\na.png,f\nb/c.png,m\n")
    pack = build.pack("folder", album, tmp_path / "pack", size=60, channels=3, faces=Dots())
    by = Predicted(file="a.onnx", sha256="0" * 64, confidence=0.5)
    write_label(pack, "age", np.array([0, 1]), ["old", "young"], by)
    embed(tmp_path / "pack", tmp_path / "t.parquet", matcher=Means())
    assert build.pack("embeddings", tmp_path / "t.parquet", tmp_path / "vectors").predicted == {"age": by}
    table = pq.read_table(tmp_path / "t.parquet")
    for text, words in ((b"{", "is damaged"), (b'{"age": {}}', "predicted.age.file is missing")):
        pq.write_table(table.replace_schema_metadata({"veil.predicted": text}), tmp_path / "bad.parquet")
        with pytest.raises(InputError, match=f"bad.parquet: its metadata veil.predicted .*{words}|{words}"):
            build.pack("embeddings", tmp_path / "bad.parquet", tmp_path / "bad")


def test_a_file_that_says_where_eyes_lie_has_them_there(album, tmp_path):
    """Of photographs and of packs: declared by its user, and in its metadata."""
    path = onnx_file(tmp_path / "f.onnx", ("Flatten", (), {}), shape=["B", 3, "H", "W"])
    settings = {"size": "30", "mean": "0", "std": "1", "eyes": "0.2:0.3:0.8:0.4"}
    build.pack("folder", album, tmp_path / "pack", size=60, channels=3, faces=Dots())
    for source in (album, tmp_path / "pack"):
        embed(source, tmp_path / "t.parquet", matcher=path, matcher_settings=settings, detector=Dots(), force=True)
        seen = np.array(pq.read_table(tmp_path / "t.parquet")["vector"].to_pylist()).reshape(2, 3, 30, 30)
        places = [[np.unravel_index(each[c].argmax(), (30, 30)) for c in (0, 1)] for each in seen]
        assert np.abs(np.array(places) + 0.5 - [[9, 6], [12, 24]]).max() <= 1.5, source


def test_eyes_of_an_aligned_face_lie_at_their_places():
    assert embedders.eyes_in(30) == pytest.approx((9.5, 12.1, 19.5, 12.1))


@pytest.mark.parametrize(
    ("source", "out", "options", "words"),
    [
        ("photos", "t.csv", {}, r"t\.csv: must end in \.parquet, got '\.csv'"),
        ("photos", "there.parquet", {}, r"there\.parquet: already exists; choose another name or force"),
        ("photos", "none/t.parquet", {}, "the folder .*none is not there"),
        ("photos", "t.parquet", {"jobs": 0}, "jobs: must be at least 1, got 0"),
        ("photos", "plain/t.parquet", {}, "which is a pack; choose another folder"),
        ("plain", "t.parquet", {}, "plain: must be a pack of aligned faces"),
        ("plain", "t.parquet", {"landmarks": "e.csv"}, "landmarks e.csv: are of photographs, and .*plain is a pack"),
        ("plain", "t.parquet", {"labels": "l.csv"}, "labels l.csv: are of photographs, and .*plain is a pack"),
        ("photos", "t.parquet", {"settings": {"faces": "1"}}, "folder: no setting 'faces'; it has identity"),
        ("photos", "t.parquet", {"matcher_settings": {"size": "9"}}, "the embedder is one of your own"),
        ("there.parquet", "t.parquet", {}, "must be a folder of photographs or a pack"),
        ("empty", "t.parquet", {}, r"no face could be embedded: 1 skipped, the first 'nobody.png': no face was found"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(album, tmp_path, source, out, options, words):
    build.pack("folder", album, tmp_path / "plain", size=16)
    (tmp_path / "there.parquet").write_text("mine")
    dotted(tmp_path / "empty" / "nobody.png")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(InputError, match=words):
        embed(tmp_path / source, tmp_path / out, matcher=Means(), detector=Dots(), **options)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "there.parquet").read_text() == "mine"


def test_templates_that_are_no_numbers_are_refused(album, tmp_path):
    class Broken(Means):
        def __call__(self, faces: np.ndarray) -> np.ndarray:
            return np.full((len(faces), 2), np.nan, np.float32)

    with pytest.raises(InputError, match="means: templates must be finite, got NaN or infinity"):
        embed(album, tmp_path / "t.parquet", matcher=Broken(), detector=Dots())
    assert not (tmp_path / "t.parquet").exists()


def test_the_bundled_embedder_knows_a_face_again(detector, tmp_path):  # noqa: F811
    """Of drawn faces two pictures of one lie nearer than of two."""
    (tmp_path / "in").mkdir()
    for number in (11, 42):
        Image.fromarray(drawn(number)).save(tmp_path / "in" / f"{number}.png")
        Image.fromarray(drawn(number)[:, ::-1]).save(tmp_path / "in" / f"{number}-mirrored.png")
    assert embed(tmp_path / "in", tmp_path / "t.parquet") == (4, 0)
    pack = build.pack("embeddings", tmp_path / "t.parquet", tmp_path / "pack", fractions=(1, 0, 0, 0))
    x = {str(name): row for name, row in zip(pack.sources, pack.x, strict=True)}
    same = np.linalg.norm(x["11.png"] - x["11-mirrored.png"])
    assert same < np.linalg.norm(x["11.png"] - x["42.png"])
    assert pack.x.shape == (4, 128)


def test_an_onnx_file_embeds(detector, tmp_path):  # noqa: F811
    onnx = pytest.importorskip("onnx")
    shape = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["B", 3, 20, 20])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["B", 1200])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Flatten", ["x"], ["y"])], "flat", [shape], [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "flat.onnx"))
    (tmp_path / "in").mkdir()
    Image.fromarray(drawn(11)).save(tmp_path / "in" / "a.png")
    embed(tmp_path / "in", tmp_path / "t.parquet", matcher=tmp_path / "flat.onnx")
    face = build.pack("folder", tmp_path / "in", tmp_path / "pack", size=20, channels=3, faces=True).x[0]
    (vector,) = pq.read_table(tmp_path / "t.parquet")["vector"].to_pylist()
    wanted = (face.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1).ravel()
    assert np.abs(np.array(vector) - wanted).max() < 1e-6
    assert isinstance(Pack.open(tmp_path / "pack"), Pack)
