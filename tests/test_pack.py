"""Packs: what is written is read back, what is damaged is refused, what fails leaves nothing behind."""

from __future__ import annotations

import csv
import dataclasses
import errno
import hashlib
import io
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from veil.data import build, decoding
from veil.data.classes import encode, told_class
from veil.data.layouts.listing import Item, Listing
from veil.data.pack import SPLITS, Pack
from veil.data.packfile import sha256
from veil.errors import InputError


def flat(value: int, size: int = 16) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((size, size), value % 256, np.uint8)).save(file, "PNG")
    return file.getvalue()


def items(n: int = 40):
    """Image i is flat with value i; person i // 4; gender in turns, unknown for person 0."""
    for i in range(n):
        person = i // 4
        gender = None if person == 0 else ("female", "male")[person % 2]
        yield Item(f"{person}/{i}.png", flat(i), {"identity": f"p{person:02d}", "gender": gender})


def listing(rows=None, n: int = 40, **more) -> Listing:
    return Listing(items=iter(items(n) if rows is None else rows), count=n, attributes=("identity", "gender"), **more)


def write(out: Path, rows=None, n: int = 40, pairs=None, **options) -> Pack:
    others = {name: options.pop(name) for name in ("force", "jobs", "progress") if name in options}
    plan = build.Plan(**{"size": 16, **options})
    return build.write(listing(rows, n, pairs=pairs), out, layout="test", plan=plan, **others)


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# In memory


def test_from_arrays_encodes_labels():
    x = np.zeros((6, 4, 4), np.uint8)
    labels = {"gender": ["m", "f", None, "", float("nan"), "m"], "age": [10, 9, 10, None, 9, 10]}
    pack = Pack.from_arrays(x, labels, split=["protect"] * 3 + ["test"] * 3)
    assert pack.classes == {"gender": ("f", "m"), "age": ("10", "9")}
    assert pack.label("gender").tolist() == [1, 0, -1, -1, -1, 1]
    assert pack.label("age").tolist() == [0, 1, 0, -1, 1, 0]
    assert pack.label("age").dtype == np.int64
    assert pack.split.tolist() == [0, 0, 0, 3, 3, 3]
    assert (len(pack), pack.kind) == (6, "images")
    assert pack.rows("protect", known=("gender",)).tolist() == [0, 1]
    assert pack.rows("test", "protect", known=["gender", "age"]).tolist() == [0, 1, 5]
    assert pack.rows().tolist() == list(range(6))
    assert pack.rows().dtype == np.int64


def test_values_that_are_no_labels():
    with pytest.raises(InputError, match="a value must be a string, a number or a boolean, got a ndarray"):
        Pack.from_arrays(np.ones((2, 3)), {"a": np.zeros((2, 2))})
    assert Pack.from_arrays(np.ones((2, 3)), {"a": np.array([b"f", b"m"])}).classes["a"] == ("f", "m")


def test_values_of_labels():
    codes, classes, _ = encode(np.array([1.0, np.nan, 2.0, 2.5]))
    assert classes == ("1", "2", "2.5")
    assert codes.tolist() == [0, -1, 1, 2]
    assert encode([True, False, None])[1] == ("no", "yes")
    assert encode(np.array(["b ", "a", ""]))[1] == ("a", "b")
    for name, words in (("NAType", "<NA>"), ("NaTType", "NaT")):  # as pandas calls and shows what is missing
        missing = type(name, (), {"__str__": lambda self, words=words: words})()
        assert encode(["a", missing, "b"])[0].tolist() == [0, -1, 1]


def test_tensors_are_labels_like_any_other():
    torch = pytest.importorskip("torch")
    for values in (torch.tensor([0, 1, 1]), [torch.tensor(v) for v in (0, 1, 1)], (0, 1, 1)):
        assert Pack.from_arrays(np.ones((3, 2)), {"a": values}, split=["test"] * 3).classes == {"a": ("0", "1")}
    assert encode(torch.tensor([True, False]))[1] == ("no", "yes")
    assert encode(torch.tensor([0.5, 1.0, float("nan")]))[1] == ("0.5", "1")
    x = torch.ones(3, 2, requires_grad=True)
    assert Pack.from_arrays(x, {"a": [1, 2, 3]}, split=["test"] * 3).x.dtype == np.float32
    with pytest.raises(InputError, match="a value must be a string, a number or a boolean, got a list"):
        encode(torch.zeros(2, 2))


def test_text_is_read_as_what_it_stands_for():
    assert encode(["True", "false", "TRUE", None, ""])[1] == ("no", "yes")
    assert encode(["True", "maybe"])[1] == ("True", "maybe")
    assert encode(["1.0", "2.0", "", "3"])[1] == ("1", "2", "3")
    assert encode(["1.0", "2.5"])[1] == encode([1.0, 2.5])[1] == ("1", "2.5")
    assert encode(["007", "1.0"])[1] == ("007", "1.0")
    assert encode(["jos\u00e9", "jose\u0301"])[1] == ("jos\u00e9",)


def test_words_for_nothing_are_unknown_and_counted():
    codes, classes, nothing = encode(["f", "NULL", "None", "n/a", "-", "\\N", "", None, float("nan"), "unknown"])
    assert (codes.tolist(), classes, nothing) == ([0] + [-1] * 9, ("f",), 6)
    pack = Pack.from_arrays(np.ones((2, 2)), {"a": ["f", "NULL"]}, split=["test"] * 2)
    assert pack.meta["notes"] == ["a: 1 values are words for nothing, such as NULL, and are taken as unknown."]


@pytest.mark.parametrize(
    ("value", "classes", "name"),
    [
        ("True", ("no", "yes"), "yes"),
        ("FALSE", ("yes",), "no"),
        (True, ("no", "yes"), "yes"),
        ("True", ("True", "maybe"), "True"),
        ("2.0", ("1", "2"), "2"),
        ("jose\u0301", ("jos\u00e9",), "jos\u00e9"),
        ("NULL", ("f", "m"), None),
        ("none", ("none", "sunglasses"), "none"),
        ("x", ("f", "m"), "x"),
        ("", ("f", "m"), None),
    ],
)
def test_a_told_value_is_read_as_it_would_be_in_a_column(value, classes, name):
    assert told_class(value, classes) == name


def test_columns_of_vectors_have_names(tmp_path):
    pack = Pack.from_arrays(np.ones((3, 2)), {}, split=["test"] * 3, columns=["yaw", "a\u0302ge"])
    assert pack.framing["columns"] == ("yaw", "\u00e2ge")
    frame = type("Frame", (), {"columns": ["a", "b"], "__array__": lambda self, *_, **__: np.ones((3, 2))})()
    assert Pack.from_arrays(frame, {}, split=["test"] * 3).framing["columns"] == ("a", "b")
    assert Pack.from_arrays(np.ones((3, 2)), {}, split=["test"] * 3).framing["columns"] == ()
    for x, columns in ((np.ones((3, 2)), ["a"]), (np.ones((3, 2)), ["a", "a"]), (np.ones((3, 2, 2), np.uint8), ["a"])):
        with pytest.raises(InputError, match="columns: must be a name for each value"):
            Pack.from_arrays(x, {}, columns=columns)


def test_vectors_become_float32():
    pack = Pack.from_arrays(np.ones((20, 3)), {"identity": np.repeat(np.arange(10), 2)})
    assert (pack.kind, pack.x.dtype) == ("vectors", np.float32)
    for person in range(10):
        assert len(set(pack.split[pack.label("identity") == person])) == 1
    free = Pack.from_arrays(np.ones((400, 3)), {"identity": np.repeat(np.arange(4), 100)}, disjoint_by=None)
    assert all(len(set(free.split[free.label("identity") == p])) == 4 for p in range(4))


@pytest.mark.parametrize(
    ("x", "labels", "options", "words"),
    [
        (np.zeros((2, 4, 4)), {}, {}, r"float64 \(2, 4, 4\)"),
        (np.zeros((2, 4, 4, 4), np.uint8), {}, {}, "uint8"),
        (np.array([[1.0], [np.inf]]), {}, {}, "row 1 is not finite"),
        (np.zeros((0, 3)), {}, {}, "holds nothing"),
        (np.ones((2, 3)), {"a": [1]}, {}, "label a: 1 values for 2 rows"),
        (np.ones((2, 3)), {"split": [1, 2]}, {}, "not free"),
        (np.ones((2, 3)), {}, {"split": ["test", "train"]}, "'train'"),
        (np.ones((2, 3)), {}, {"split": ["test"]}, "split: 1 values"),
        (np.ones((2, 3)), {}, {"sources": ["a"]}, "sources: 1 names"),
        (np.ones((2, 3)), {}, {"sources": ["a", "a"]}, "sources: 'a' stands there more than once"),
        (np.ones((2, 3)), {}, {"pairs": [[0, 2, 1, 0]]}, r"0\.\.1"),
    ],
)
def test_arrays_that_do_not_fit(x, labels, options, words):
    with pytest.raises(InputError, match=words):
        Pack.from_arrays(x, labels, **options)


def test_unknown_names():
    pack = Pack.from_arrays(np.ones((4, 3)), {"gender": list("mfmf"), "age": [1, 2, 3, 4]})
    with pytest.raises(InputError, match=r"'sex'.*age, gender"):
        pack.rows("test", known=("sex",))
    with pytest.raises(InputError, match=r"'sex'.*age, gender"):
        pack.label("sex")
    with pytest.raises(InputError, match="'train'"):
        pack.rows("train")


def test_identity_that_no_row_has_is_no_use():
    x, labels = np.zeros((8, 2), np.float32), {"gender": ["f", "m"] * 4}
    for unknown in ({}, {"identity": [None] * 8}):
        pack = Pack.from_arrays(x, labels | unknown, split=["protect"] * 8)
        assert (pack.knows_people, pack.known_use("identity"), pack.known_use("gender")) == (False, (), ("gender",))
    pack = Pack.from_arrays(x, labels | {"identity": [None] * 7 + ["a"]}, split=["protect"] * 8)
    assert (pack.knows_people, pack.known_use("identity")) == (True, ("identity",))


def test_require_names_class_and_split():
    split = np.repeat(SPLITS, 4)
    gender = ["m", "f", "m", "f"] * 4
    gender[8] = gender[10] = None  # calibrate has no m
    identity = [f"p{i // 2}" for i in range(16)]
    labels = {"gender": gender, "identity": identity, "one": ["x"] * 16, "none": [None] * 16}
    pack = Pack.from_arrays(np.ones((16, 2)), labels, split=split)
    with pytest.raises(InputError) as caught:
        pack.require(private=["gender", "hair"], utility="identity")
    assert str(caught.value) == (
        "label gender: no row of class 'm' in split calibrate; label 'hair': the pack has gender, identity, none, one"
    )
    with pytest.raises(InputError, match="label one has 1 class; two are needed"):
        pack.require(utility=["one"])
    with pytest.raises(InputError, match="label none has 0 classes"):
        pack.require(private=["none"])
    pack.require(utility="identity")
    halves = ["protect", "protect", "test", "test"] * 2
    lacking = Pack.from_arrays(np.ones((8, 2)), {"g": list("mfmfmfmf")}, split=halves)
    with pytest.raises(InputError, match=r"split attack has no rows; split calibrate has no rows$"):
        lacking.require(private=["g"])


def test_fingerprint_in_memory():
    x = np.arange(16, dtype=np.float32).reshape(8, 2)
    one = Pack.from_arrays(x, {"g": list("mfmfmfmf")})
    assert one.fingerprint == Pack.from_arrays(x, {"g": list("mfmfmfmf")}).fingerprint
    changed = x.copy()
    changed[7, 1] = 0
    others = [
        Pack.from_arrays(changed, {"g": list("mfmfmfmf")}),
        Pack.from_arrays(x, {"g": list("mfmfmfmm")}),
        Pack.from_arrays(x, {"g": list("mfmfmfmf")}, split=["test"] * 8),
        Pack.from_arrays(x, {"g": list("mfmfmfmf")}, sources=list("abcdefgh")),
    ]
    assert one.fingerprint not in {other.fingerprint for other in others}


# Written and read


def test_what_is_written_is_read(tmp_path):
    pairs = [("1/4.png", "1/5.png", True, 0), ("1/4.png", "2/8.png", False, 1), ("1/4.png", "gone", False, 1)]
    calls = []
    pack = write(tmp_path / "pack", pairs=pairs, progress=lambda *call: calls.append(call))
    assert isinstance(pack.x, np.memmap)
    assert (pack.x.shape, pack.kind) == ((40, 16, 16), "images")
    assert pack.x[:, 0, 0].tolist() == list(range(40))
    assert pack.sources.tolist() == [f"{i // 4}/{i}.png" for i in range(40)]
    assert pack.classes["gender"] == ("female", "male")
    assert pack.classes["identity"] == tuple(f"p{i:02d}" for i in range(10))
    assert pack.label("identity").tolist() == [i // 4 for i in range(40)]
    assert pack.label("gender").tolist() == [-1 if i < 4 else i // 4 % 2 for i in range(40)]
    for person in range(10):
        assert len(set(pack.split[pack.label("identity") == person])) == 1
    assert pack.pairs.tolist() == [[4, 5, 1, 0], [4, 8, 0, 1]]
    assert pack.meta["warnings"] == [
        "gender is unknown in 4 of 40 rows.",
        "1 of 3 pairs name images that are not in the pack: 'gone'.",
    ]
    assert calls == [(32, 40, 0), (40, 40, 0)]
    assert left_behind(tmp_path) == ["pack"]
    assert left_behind(tmp_path / "pack") == [
        "checked.json", "images.npy", "labels.parquet", "pack.json", "pairs.npy", "skipped.csv",
    ]  # fmt: skip
    assert np.array_equal(np.load(tmp_path / "pack" / "images.npy"), pack.x)
    schema = pq.read_schema(tmp_path / "pack" / "labels.parquet")
    assert schema.names == ["source", "split", "identity", "gender"]
    assert all(schema.field(name).type == pa.dictionary(pa.int32(), pa.string()) for name in schema.names[1:])
    assert Pack.open(str(tmp_path / "pack"), verify=True).fingerprint == pack.fingerprint


def test_bytes_do_not_depend_on_threads(tmp_path):
    one = write(tmp_path / "a", jobs=1, n=200)
    many = write(tmp_path / "b", jobs=7, n=200)
    assert one.meta == many.meta
    assert one.fingerprint == many.fingerprint
    assert write(tmp_path / "c", n=200, seed=1).fingerprint != one.fingerprint


def test_colour_and_vectors(tmp_path):
    assert write(tmp_path / "rgb", channels=3).x.shape == (40, 16, 16, 3)
    rows = [Item(str(i), np.full(5, i + 1, np.float32), {"identity": str(i)}) for i in range(10)]
    many = Listing(items=iter(rows), count=10, attributes=("identity",), kind="vectors")
    pack = build.write(many, tmp_path / "vectors", layout="test")
    assert (pack.kind, pack.x.dtype, pack.x.shape) == ("vectors", np.float32, (10, 5))
    assert pack.x[:, 0].tolist() == list(range(1, 11))


def test_what_cannot_be_packed_is_listed_and_counted(tmp_path):
    rows = list(items())
    rows[3] = Item("bad, really.png", flat(1)[:30], {"identity": "p00"})
    rows[7] = Item("link", None, problem="a link")
    pack = write(tmp_path / "pack", rows)
    assert (len(pack), pack.meta["skipped"]) == (38, 2)
    assert pack.x[:, 0, 0].tolist() == [i for i in range(40) if i not in (3, 7)]
    with (tmp_path / "pack" / "skipped.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["source", "reason"]
    assert [row[0] for row in table[1:]] == ["bad, really.png", "link"]
    assert table[1][1].startswith("cannot be decoded")
    assert table[2][1] == "a link"


def test_nothing_packed_is_an_error(tmp_path):
    with pytest.raises(InputError, match="nothing could be packed: 2 skipped, the first 'a': not a JPEG"):
        write(tmp_path / "pack", [Item("a", b"x" * 99), Item("b", b"")])
    with pytest.raises(InputError, match="holds no images"):
        write(tmp_path / "pack", [])
    assert left_behind(tmp_path) == []


def test_splits_that_the_data_set_prescribes(tmp_path):
    rows = [Item(str(i), flat(i), {"identity": f"p{i // 2}"}, SPLITS[i // 2 % 4]) for i in range(16)]
    pack = write(tmp_path / "pack", rows)
    assert pack.split.tolist() == [i // 2 % 4 for i in range(16)]
    assert pack.meta["fractions"] is None
    rows[1] = Item("1", flat(1), {"identity": "p0"}, "test")
    with pytest.raises(InputError, match="identity 'p0' stands in several splits"):
        write(tmp_path / "straddles", rows)
    assert write(tmp_path / "straddles", rows, disjoint=False).split[1] == 3
    rows[2] = Item("2", flat(2), {"identity": "p1"})
    with pytest.raises(InputError, match="given for 15 of 16 rows"):
        write(tmp_path / "partly", rows)


def test_two_rows_of_one_source_are_refused(tmp_path):
    with pytest.raises(InputError, match="'a' stands in the data set more than once"):
        write(tmp_path / "pack", [Item("a", flat(1)), Item("b", flat(2)), Item("a", flat(3))])


def test_a_crop_of_arrays_is_refused(tmp_path):
    with pytest.raises(InputError, match="only encoded images are cropped"):
        write(tmp_path / "pack", [Item("a", np.zeros((16, 16), np.uint8))], crop=(0, 0, 0.5, 0.5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "lwf"}, "layout 'lwf': must be one of stylised, folder, parquet, lfw, celeba, utkface, fairface, "),
        ({"size": 4}, "size 4"),
        ({"channels": 2}, "channels 2"),
        ({"crop": (1, 0, 0, 1)}, "crop"),
        ({"jobs": 0}, "jobs: must be at least 1, got 0"),
        ({"fractions": (1, 1, 1, 1)}, "add up to 1"),
        ({"settings": {"colour": "red"}}, "no setting 'colour'; it has identity"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, words):
    (tmp_path / "a.png").write_bytes(flat(1))
    with pytest.raises(InputError, match=words):
        build.pack(**{"layout": "folder", "source": tmp_path, "out": tmp_path / "pack", **options})


def test_an_existing_target_is_kept(tmp_path):
    write(tmp_path / "pack")
    with pytest.raises(InputError, match="already exists"):
        write(tmp_path / "pack", n=20)
    assert len(Pack.open(tmp_path / "pack")) == 40
    assert len(write(tmp_path / "pack", n=20, force=True)) == 20
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter").write_text("dear")
    with pytest.raises(InputError, match="only a pack is replaced by force"):
        write(home, force=True)
    assert left_behind(tmp_path) == ["home", "pack"]


@pytest.mark.parametrize(
    ("fault", "seen", "words"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (OSError(errno.ENOSPC, "No space left on device"), InputError, "no space is left"),
        (OSError(errno.EIO, "Input/output error"), InputError, "Input/output error"),
        (RuntimeError("ours"), RuntimeError, "ours"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_failures_leave_nothing_behind(tmp_path, fault, seen, words, force):
    if force:
        write(tmp_path / "pack")

    def progress(done, total, skipped):
        raise fault

    with pytest.raises(seen, match=words):
        write(tmp_path / "pack", n=100, progress=progress, force=force)
    assert left_behind(tmp_path) == ["pack"] * force
    if force:
        assert len(Pack.open(tmp_path / "pack", verify=True)) == 40
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_what_is_made_meanwhile_is_kept(tmp_path):
    out, told = tmp_path / "out", []

    def meanwhile(*message):
        told.append(message)
        out.mkdir(exist_ok=True)
        (out / "thesis.txt").write_text("mine")

    with pytest.raises(InputError, match="already exists"):
        build.pack("stylised", "identities=4,images=2", out, size=16, progress=meanwhile)
    assert told
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "thesis.txt").read_text() == "mine"
    build.pack("stylised", "identities=4,images=2", tmp_path / "pack", size=16)
    (tmp_path / "pack" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"no part of a pack and would be lost \(thesis\.txt\)"):
        build.pack("stylised", "identities=4,images=2", tmp_path / "pack", size=16, force=True)
    assert (tmp_path / "pack" / "thesis.txt").read_text() == "mine"


def test_reading_does_not_run_ahead(monkeypatch):
    read = 0

    def many():
        nonlocal read
        for item in items(2000):
            read += 1
            yield item

    jobs, ahead = 2, []
    for done, (item, image, _) in enumerate(decoding.arrays(many(), 16, 1, jobs=jobs)):
        assert image[0, 0] == int(item.source.split("/")[1].split(".")[0]) % 256
        ahead.append(read - done)
    assert max(ahead) <= (2 * jobs + 1) * decoding.CHUNK_ITEMS
    # Few large images are held, too.
    read, held = 0, []
    monkeypatch.setattr(decoding, "CHUNK_BYTES", 1000)
    rows = (Item(str(i), b"\xff" * 600) for i in range(100))

    def large():
        nonlocal read
        for row in rows:
            read += 1
            yield row

    for done, _ in enumerate(decoding.arrays(large(), 16, 1, jobs=jobs)):
        held.append(read - done)
    assert max(held) <= (2 * jobs + 1) * 2


def test_order_is_kept_whatever_takes_how_long(tmp_path, monkeypatch):
    real = decoding._decode_item

    def slow(item, *rest):
        if item.source.endswith("0.png"):
            time.sleep(0.002)
        return real(item, *rest)

    monkeypatch.setattr(decoding, "_decode_item", slow)
    assert write(tmp_path / "pack", n=200, jobs=8).x[:, 0, 0].tolist() == list(range(200))


# Damaged


@pytest.fixture
def packed(tmp_path):
    write(tmp_path / "pack", pairs=[("1/4.png", "1/5.png", True, 0)])
    return tmp_path / "pack"


def edit(path: Path, change) -> None:
    meta = json.loads((path / "pack.json").read_text())
    change(meta)
    (path / "pack.json").write_text(json.dumps(meta))


def replace(path: Path, name: str, data: bytes) -> None:
    """A file that lies about nothing but what it holds: its size and digest are as in pack.json."""
    (path / name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    edit(path, lambda meta: meta["files"][name].update(bytes=len(data), sha256=digest))


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_missing_and_foreign_folders(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        Pack.open(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="a file"):
        Pack.open(tmp_path / "file")
    with pytest.raises(InputError, match=r"it has no pack\.json"):
        Pack.open(tmp_path)
    for text, words in (
        ("{", "must be whole JSON, broken at line 1 column 2"),
        ("[]", "no schema"),
        ('{"schema": 2}', "schema 2; this version of Veil reads 1"),
        ('{"schema": 1}', "damaged"),
        ("\xff", "must be JSON in UTF-8"),
        ("[" * 200_000, "must be JSON in UTF-8"),
    ):
        (tmp_path / "pack.json").write_text(text, "latin-1")
        with pytest.raises(InputError, match=words):
            Pack.open(tmp_path)


@pytest.mark.parametrize("name", ["images.npy", "labels.parquet", "pairs.npy"])
def test_files_missing_cut_off_or_changed(packed, name):
    whole = (packed / name).read_bytes()
    (packed / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        Pack.open(packed)
    (packed / name).write_bytes(whole[:-20])
    with pytest.raises(InputError, match=rf"{name}: {len(whole) - 20} bytes, but {len(whole)} were written"):
        Pack.open(packed)
    replace(packed, name, whole[: len(whole) // 2])
    with pytest.raises(InputError, match=name):
        Pack.open(packed)
    replace(packed, name, b"nonsense" * 10)
    with pytest.raises(InputError, match=name):
        Pack.open(packed)
    replace(packed, name, whole)
    Pack.open(packed, verify=True)


def changed_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["images.npy", "labels.parquet", "pairs.npy"])
def test_one_changed_byte_is_seen(packed, name):
    changed_byte(packed / name)
    for _ in range(2):
        with pytest.raises(InputError, match=rf"{name}: its SHA-256 is not the one in pack.json; the file was changed"):
            Pack.open(packed)


def test_a_change_that_kept_its_time_is_seen_by_verify(packed):
    stat = (packed / "images.npy").stat()
    changed_byte(packed / "images.npy")
    os.utime(packed / "images.npy", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    Pack.open(packed)
    with pytest.raises(InputError, match=r"images.npy: its SHA-256 is not the one in pack.json"):
        Pack.open(packed, verify=True)


@pytest.mark.parametrize("without", ["nothing", "record", "sense"])
def test_a_copy_is_hashed_once(packed, tmp_path, monkeypatch, without):
    fingerprint = Pack.open(packed).fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(packed, copy, copy_function=shutil.copy)  # with other times
    if without == "record":
        (copy / "checked.json").unlink()
    elif without == "sense":
        (copy / "checked.json").write_text("[" * 200_000)
    hashed = []
    monkeypatch.setattr("veil.data.packfile.sha256", lambda path: hashed.append(path.name) or sha256(path))
    assert Pack.open(packed).fingerprint == fingerprint
    assert hashed == []
    assert Pack.open(copy).fingerprint == fingerprint
    assert hashed == ["images.npy", "labels.parquet", "pairs.npy"]
    assert Pack.open(copy).fingerprint == fingerprint
    assert len(hashed) == 3
    assert left_behind(copy) == left_behind(packed)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_copy_that_cannot_be_written_to_opens(packed, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(packed, copy, copy_function=shutil.copy)
    copy.chmod(0o555)
    assert Pack.open(copy).fingerprint == Pack.open(packed).fingerprint


def test_fingerprint_tells_what_was_replaced_since_and_what_pack_json_alone_says(packed):
    opened = Pack.open(packed)
    parts = [dataclasses.replace(opened, split=opened.split[::-1].copy()), dataclasses.replace(opened, x=opened.x + 1)]
    assert len({p.fingerprint for p in (opened, *parts)}) == 3
    assert dataclasses.replace(opened, path=Path("elsewhere")).fingerprint == opened.fingerprint
    edit(packed, lambda meta: meta["classes"]["gender"].reverse())
    assert Pack.open(packed).fingerprint != opened.fingerprint


def test_files_that_contradict_each_other(packed):
    replace(packed, "images.npy", saved(np.zeros((39, 16, 16), np.uint8)))
    with pytest.raises(InputError, match=r"\[39, 16, 16\] is not the \[40, 16, 16\]"):
        Pack.open(packed)
    edit(packed, lambda meta: meta.update(shape=[39, 16, 16]))
    with pytest.raises(InputError, match="40 rows for 39"):
        Pack.open(packed)
    for wrong in (np.zeros((40, 16, 16)), np.zeros((40, 16), np.uint8), np.zeros((40, 16, 16, 2), np.uint8)):
        replace(packed, "images.npy", saved(wrong))
        edit(packed, lambda meta, wrong=wrong: meta.update(shape=list(wrong.shape)))
        with pytest.raises(InputError, match="is not an array of images"):
            Pack.open(packed)
    replace(packed, "images.npy", saved(np.zeros((16, 16, 40), np.uint8).T))
    edit(packed, lambda meta: meta.update(shape=[40, 16, 16]))
    with pytest.raises(InputError, match="Fortran"):
        Pack.open(packed)


def test_nothing_is_unpickled(packed):
    array = np.empty((40, 16, 16), object)
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    replace(packed, "images.npy", file.getvalue())
    with pytest.raises(InputError, match="not an array of numbers"):
        Pack.open(packed)


def test_labels_that_contradict_the_description(packed):
    table = pq.read_table(packed / "labels.parquet")

    def put(changed):
        pq.write_table(changed, packed / "labels.parquet")
        replace(packed, "labels.parquet", (packed / "labels.parquet").read_bytes())

    put(table.drop_columns(["gender"]))
    with pytest.raises(InputError, match="columns"):
        Pack.open(packed)
    put(table.set_column(3, "gender", pa.array(["other"] * 40).dictionary_encode()))
    with pytest.raises(InputError, match="column gender holds 'other'"):
        Pack.open(packed)
    put(table.set_column(3, "gender", pa.array([1] * 40)))
    with pytest.raises(InputError, match="column gender is int64, not a dictionary of strings"):
        Pack.open(packed)
    put(table.set_column(1, "split", pa.array(["test"] * 39 + [None]).dictionary_encode()))
    with pytest.raises(InputError, match="row 39 has no split"):
        Pack.open(packed)
    # Another order of the dictionary is the same labels.
    gender = ["male", "female", None] * 13 + ["male"]
    put(table.set_column(3, "gender", pa.array(gender).dictionary_encode()))
    assert Pack.open(packed).label("gender").tolist() == [1, 0, -1] * 13 + [1]


@pytest.mark.parametrize("row", [[0, 40, 1, 0], [-1, 0, 1, 0], [0, 1, 2, 0], [0, 1, 1, -1]])
def test_pairs_out_of_range(packed, row):
    replace(packed, "pairs.npy", saved(np.array([row])))
    with pytest.raises(InputError, match=r"pairs.npy: rows must lie in 0\.\.39"):
        Pack.open(packed)
