"""Layouts: data sets as they lie on disks, with their defects, tricks and gaps."""

from __future__ import annotations

import base64
import csv
import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from veil.data import build, decode
from veil.data.layouts import LAYOUTS, celeba, lfw, msceleb
from veil.data.layouts.listing import NO_LABELS, Options
from veil.data.pack import SPLITS, Pack
from veil.errors import InputError

LFW = Path(__file__).resolve().parents[2] / "shared" / "data" / "lfw"


def picture(value: int = 100, size: tuple[int, int] = (32, 32), format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("L", size, value).save(file, format)
    return file.getvalue()


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def packed(layout: str, source: Path, **options) -> Pack:
    return build.pack(layout, source, source.with_name(source.name + ".pack"), size=16, **options)


def words(pack: Pack, label: str) -> dict[str, str | None]:
    codes = pack.label(label).tolist()
    return {str(s): pack.classes[label][c] if c >= 0 else None for s, c in zip(pack.sources, codes, strict=True)}


def skipped(pack: Pack) -> dict[str, str]:
    with (pack.path / "skipped.csv").open(encoding="utf-8", newline="") as file:
        return dict(list(csv.reader(file))[1:])


# folder


@pytest.fixture
def faces(tmp_path):
    source = tmp_path / "faces"
    for i, name in enumerate(["a/1.png", "a/2.PNG", "b/1.png", "b/3.jpg", "c.webp"]):
        put(source / name, picture(50 * i, format={"jpg": "JPEG", "webp": "WEBP"}.get(name[-3:].strip("."), "PNG")))
    put(source / "b" / "notes.txt", "x")
    return source


def test_folder_with_csv(faces):
    put(
        faces.parent / "people.csv",
        "\ufefffile,identity,gender,age\r\na/1.png,ann,f,30\r\n./a/2.PNG,ann,f, NA\r\nb\\1.png,bob,m, \r\n"
        "3.jpg,,m,41\r\nzzz.png,x,f,1\r\n",
    )
    pack = packed("folder", faces, labels=faces.parent / "people.csv")
    # Files before folders' contents, folders and files in the order of their names.
    assert pack.sources.tolist() == ["c.webp", "a/1.png", "a/2.PNG", "b/1.png", "b/3.jpg"]
    assert pack.x[:, 0, 0].tolist() == pytest.approx([200, 0, 50, 100, 150], abs=2)
    assert words(pack, "gender") == {"c.webp": None, "a/1.png": "f", "a/2.PNG": "f", "b/1.png": "m", "b/3.jpg": "m"}
    assert words(pack, "age") == {"c.webp": None, "a/1.png": "30", "a/2.PNG": None, "b/1.png": None, "b/3.jpg": "41"}
    assert words(pack, "identity")["b/3.jpg"] is None
    # A class of a row without an image is no class of the pack.
    assert pack.classes == {"identity": ("ann", "bob"), "gender": ("f", "m"), "age": ("30", "41")}
    assert pack.meta["notes"] == [
        "1 files are no images by their name's ending and were left aside.",
        "Labels were read from 'people.csv'.",
        "age: 1 values are words for nothing, such as NULL, and are taken as unknown.",
        "1 rows of 'people.csv' name none of the images (the first: 'zzz.png').",
    ]
    assert pack.meta["warnings"] == [
        "1 of the images have no row in 'people.csv' (the first: 'c.webp').",
        "identity is unknown in 2 of 5 rows.",
        "gender is unknown in 1 of 5 rows.",
        "age is unknown in 3 of 5 rows.",
    ]


def test_folder_with_parquet_and_splits(faces):
    names = ["a/1.png", "a/2.PNG", "b/1.png", "b/3.jpg"]
    table = {
        "path": names,
        "split": ["protect", "attack", "calibrate", None],
        "smile": [True, False, None, True],
        "age": pa.array([1.0, 2.5, None, 7.0]),
        "kind": pa.array(["x", "y", None, "x"]).dictionary_encode(),
        "empty": pa.nulls(4),
    }
    pq.write_table(pa.table(table), faces / "labels.parquet")
    pack = packed("folder", faces)
    assert [SPLITS[s] for s in pack.split] == ["protect", "attack", "calibrate"]
    assert list(words(pack, "smile").values()) == ["yes", "no", None]
    assert list(words(pack, "age").values()) == ["1", "2.5", None]
    assert list(words(pack, "kind").values()) == ["x", "y", None]
    assert list(words(pack, "empty").values()) == [None] * 3
    assert skipped(pack) == {
        "c.webp": "no row in labels.parquet, which prescribes the splits",
        "b/3.jpg": "no split in labels.parquet, which prescribes the splits",
    }


def test_folder_by_folders_and_without_labels(faces):
    pack = packed("folder", faces, settings={"identity": "folder"})
    assert words(pack, "identity") == {"c.webp": None, "a/1.png": "a", "a/2.PNG": "a", "b/1.png": "b", "b/3.jpg": "b"}
    bare = packed("folder", faces, force=True)
    assert not bare.labels
    assert NO_LABELS in bare.meta["warnings"]
    assert len(bare) == 5


def test_folder_labels_named_from_above(faces):
    put(faces.parent / "all.tsv", "image\tgender\nfaces/a/1.png\tf\nfaces/b/1.png\tm\n")
    pack = packed("folder", faces, labels=faces.parent / "all.tsv")
    assert words(pack, "gender") == {"c.webp": None, "a/1.png": "f", "a/2.PNG": None, "b/1.png": "m", "b/3.jpg": None}


def test_folder_file_names_must_be_unique_to_be_enough(faces):
    put(faces.parent / "some.csv", "image,gender\n1.png,f\n2.PNG,m\n")
    pack = packed("folder", faces, labels=faces.parent / "some.csv")
    assert [k for k, v in words(pack, "gender").items() if v] == ["a/2.PNG"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "empty"),
        ("who,gender\nx,y\n", r"no column names the image .*; it has who, gender"),
        ("file,g\na/1.png,f\n./a/1.png,m\n", r"'\./a/1.png' stands in column file more than once"),
        ("file,g,g\na/1.png,f,m\n", "column 'g' stands there more than once"),
        ("file,g\na/1.png,f,m\n", "line 2 must have 2 cells as the header, got 3"),
        ("file,split\na/1.png,train\n", "split 'train' must be one of"),
        ("file,g\n,f\n", "row 0 names no file"),
        ("file,g\nq.png,f\n", r"none of its rows names one of the images .*'q.png'"),
        (b"file,g\na/1.png,\xff\xfe\n", "cannot be read"),
        (b"PAR1 nonsense", r"must be CSV, got Parquet: let its name end in \.parquet"),
    ],
)
def test_folder_labels_that_do_not_fit(faces, text, error):
    put(faces.parent / "x.csv", text)
    with pytest.raises(InputError, match=error) as caught:
        packed("folder", faces, labels=faces.parent / "x.csv")
    assert "\n" not in str(caught.value)


def test_folder_other_mistakes(faces):
    with pytest.raises(InputError, match="no such folder"):
        packed("folder", faces / "none")
    with pytest.raises(InputError, match="no such file of labels"):
        packed("folder", faces, labels=faces / "none.csv")
    put(faces / "x.parquet", "nonsense")
    with pytest.raises(InputError, match=r"x\.parquet: cannot be read"):
        packed("folder", faces, labels=faces / "x.parquet")
    with pytest.raises(InputError, match="setting identity is 'file'; must be one of folder"):
        packed("folder", faces, settings={"identity": "file"})
    put(faces / "labels.csv", "file,identity\na/1.png,ann\n")
    with pytest.raises(InputError, match="has a column identity already"):
        packed("folder", faces, settings={"identity": "folder"})
    put(faces / "labels.parquet", "x")
    with pytest.raises(InputError, match=r"labels.csv and labels.parquet"):
        packed("folder", faces)


def test_folder_links_and_special_files(faces):
    secret = faces.parent / "secret"
    put(secret / "s.png", picture(7))
    (faces / "out.png").symlink_to(secret / "s.png")
    (faces / "away").symlink_to(secret)
    (faces / "loop").symlink_to(faces)
    (faces / "in.png").symlink_to(faces / "a" / "1.png")
    (faces / "dead.png").symlink_to(faces / "nothing.png")
    (faces / "round.png").symlink_to(faces / "round.png")
    os.mkfifo(faces / "pipe.png")
    pack = packed("folder", faces)
    assert 7 not in pack.x[:, 0, 0]
    assert "in.png" in pack.sources
    assert len(pack) == 6
    assert skipped(pack) == {
        "out.png": "a link that leads out of the folder",
        "away": "a link to a folder; links to folders are not followed",
        "loop": "a link to a folder; links to folders are not followed",
        "dead.png": "not a regular file",
        "pipe.png": "not a regular file",
        "round.png": "cannot be read (Too many levels of symbolic links)",
    }


def test_folder_names_that_are_not_utf8(faces):
    path = os.fsencode(faces) + b"/caf\xe9.png"
    try:
        Path(os.fsdecode(path)).write_bytes(picture(9))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    pack = packed("folder", faces)
    assert pack.x[pack.sources.tolist().index("caf\\xe9.png"), 0, 0] == 9


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_labels_and_packs_whose_names_are_not_utf8(faces, suffix):
    labels = Path(os.fsdecode(os.fsencode(faces.parent) + b"/caf\xe9" + suffix.encode()))
    table = pa.table({"file": ["a/1.png", "b/1.png", "b/3.jpg"], "split": ["protect", "test", None]})
    file = io.BytesIO()
    (pacsv.write_csv if suffix == ".csv" else pq.write_table)(table, file)
    try:
        labels.write_bytes(file.getvalue())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    pack = packed("folder", faces, labels=labels)
    assert f"Labels were read from 'caf\\udce9{suffix}'." in pack.meta["notes"]
    assert skipped(pack)["c.webp"] == f"no row in caf\\xe9{suffix}, which prescribes the splits"
    with pytest.raises(InputError, match=r"caf\\xe9\.pack: the name of a pack must be UTF-8"):
        build.pack("folder", faces, labels.with_suffix(".pack"))


def test_folder_with_a_pack_for_labels(faces):
    put(faces / "labels.csv", "file,gender\na/1.png,f\na/2.PNG,f\nb/1.png,m\nb/3.jpg,m\nc.webp,m\n")
    one = packed("folder", faces)
    (faces / "labels.csv").unlink()
    two = build.pack("folder", faces, faces.parent / "two", size=8, labels=one.path, seed=9)
    assert np.array_equal(one.split, two.split)
    assert words(one, "gender") == words(two, "gender")


def test_folder_leaves_what_systems_and_tools_put_there(faces):
    for name in (
        ".thumbnails/x.png", "a/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/a/1.png", "a/.ipynb_checkpoints/1.png",
        "__pycache__/x.png", "lost+found/x.png", "$RECYCLE.BIN/x.png", "System Volume Information/x.png",
        "a/._1.png", ".hidden.jpg",
    ):  # fmt: skip
        put(faces / name, picture(9))
    put(faces / "@anna" / "1.png", picture(8))  # a person, as some networks call them
    pack = packed("folder", faces, settings={"identity": "folder"})
    assert pack.classes["identity"] == ("@anna", "a", "b")
    assert 9 not in pack.x
    assert not skipped(pack)
    assert pack.meta["notes"] == [
        "1 files are no images by their name's ending and were left aside.",
        "2 files are hidden (their names begin with a dot) and were left aside.",
        "8 folders are of systems or tools and were left aside: '$RECYCLE.BIN', '.thumbnails', "
        "'System Volume Information' and 5 more.",
    ]
    only = faces / ".thumbnails"
    put(faces.parent / "none" / ".cache" / "x.png", picture())
    with pytest.raises(
        InputError, match=r"holds no images or vectors\. 1 folders are of systems or tools .* '\.cache'\."
    ):
        packed("folder", faces.parent / "none")
    assert len(packed("folder", only, force=True)) == 1  # whoever names such a folder means it


def test_folder_lists_images_that_are_not_read(faces):
    kinds = {"x.jxl": ".jxl", "x.NEF": ".nef", "a/x.svg": ".svg", "x.ico": ".ico", "x.psd": ".psd"}
    for name in kinds:
        put(faces / name, "anything")
    put(faces / "x.ppm.bz2", "BZh")
    put(faces / "1.png_original", picture())
    put(faces / "noending", picture(format="GIF"))
    put(faces / "BM.txt", "BM is also how a text may begin")
    pack = packed("folder", faces)
    assert skipped(pack) == {
        **{name: f"an image of a kind that is not read ({end}); convert it" for name, end in kinds.items()},
        "x.ppm.bz2": "a compressed image (.bz2); unpack it",
        "1.png_original": "an image by its first bytes, but not by its name's ending",
        "noending": "an image by its first bytes, but not by its name's ending",
    }
    assert "2 files are no images by their name's ending and were left aside." in pack.meta["notes"]
    assert "8 of 13 were skipped; skipped.csv says why." in pack.meta["warnings"]


COMPOSED, DECOMPOSED = "Jos\u00e9", "Jose\u0301"


def test_folder_compares_text_in_nfc(tmp_path):
    source = tmp_path / "faces"
    for name in (f"{DECOMPOSED}/1.png", f"{COMPOSED}/2.png", "Bob/1.png"):
        put(source / name, picture())
    if len(list(source.iterdir())) < 3:
        pytest.skip("this file system knows one form of names only")
    assert packed("folder", source, settings={"identity": "folder"}).classes["identity"] == ("Bob", COMPOSED)
    rows = [(f"{COMPOSED}/1.png", DECOMPOSED), (f"{DECOMPOSED}/2.png", COMPOSED), ("Bob/1.png", "Bob")]
    put(tmp_path / "l.csv", "file,pers\u00f3n,split\n" + "".join(f"{name},{person},test\n" for name, person in rows))
    pack = packed("folder", source, labels=tmp_path / "l.csv", force=True)
    assert pack.classes == {"pers\u00f3n": ("Bob", COMPOSED)}
    assert (pack.label("pers\u00f3n") >= 0).all()
    again = build.pack("folder", source, tmp_path / "again", size=16, labels=pack.path)
    assert again.label("pers\u00f3n").tolist() == pack.label("pers\u00f3n").tolist()


def test_folder_labels_say_nothing_in_many_words(faces):
    cells = ["NULL", "None", "n/a", "-", "f"]
    rows = "".join(f"{name},{cell}\n" for name, cell in zip(["c.webp", *FOLDER], cells, strict=True))
    put(faces / "labels.csv", f"source,gender\n{rows}")
    pack = packed("folder", faces)
    assert list(words(pack, "gender").values()) == [None, None, None, None, "f"]
    assert "gender: 4 values are words for nothing, such as NULL, and are taken as unknown." in pack.meta["notes"]
    assert pack.meta["warnings"] == ["gender is unknown in 4 of 5 rows."]


FOLDER = ["a/1.png", "a/2.PNG", "b/1.png", "b/3.jpg"]


@pytest.mark.parametrize("key", ["file_name", "Filename", "image_id", "Image", "File Name", "PATH"])
def test_folder_labels_name_images_in_many_words(faces, key):
    put(faces / "labels.csv", f"{key};gender\n" + "".join(f"{name};f\n" for name in FOLDER))
    assert list(words(packed("folder", faces), "gender").values()) == [None, "f", "f", "f", "f"]


def test_folder_labels_in_lists_with_spaces(faces):
    names = ["c.webp", "a/1.png", "a/2.PNG", "b/1.png", "b/3.jpg"]
    put(faces.parent / "identity_CelebA.txt", "".join(f"{name}   {2880 + i // 2}\n" for i, name in enumerate(names)))
    pack = packed("folder", faces, labels=faces.parent / "identity_CelebA.txt")
    assert list(words(pack, "identity").values()) == ["2880", "2880", "2881", "2881", "2882"]
    put(faces.parent / "smile.txt", "".join(f"{name} {'yes' if i else 'no'}\n" for i, name in enumerate(names)))
    pack = packed("folder", faces, labels=faces.parent / "smile.txt", force=True)
    assert list(words(pack, "smile").values()) == ["no", "yes", "yes", "yes", "yes"]
    put(faces.parent / "list_attr_celeba.txt", attributes(names))
    pack = packed("folder", faces, labels=faces.parent / "list_attr_celeba.txt", force=True)
    assert list(words(pack, "Male").values()) == ["no", "yes", "no", "yes", "no"]
    assert list(words(pack, "Smiling").values()) == ["yes", "no", "no", "yes", "no"]
    put(faces.parent / "cut.txt", "6" + attributes(names)[1:])
    with pytest.raises(InputError, match="5 rows, but its first line announces 6; the file was cut off"):
        packed("folder", faces, labels=faces.parent / "cut.txt", force=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name age\n1 30\n2 31\n", "commas, semicolons, tabs or bars, and seem to be by spaces"),
        ("name:age\na:30\nb:31\n", "commas, semicolons, tabs or bars, and seem to be by colons"),
        ("sep=;\nfile,age\na.png,30\nb.png,31\n", "';', as its first line says, and seem to be by ','"),
    ],
)
def test_folder_labels_with_other_separators_are_told(faces, text, words):
    put(faces.parent / "people.csv", text)
    with pytest.raises(InputError, match=f"no column names the image .*; its cells must be separated by {words}$"):
        packed("folder", faces, labels=faces.parent / "people.csv")


def test_folder_labels_may_lack_the_endings_of_names(faces):
    put(faces / "labels.csv", "image_id,gender\na/1,f\na/2,m\nb/1,f\n3,m\nc,f\nz,m\n")
    assert list(words(packed("folder", faces), "gender").values()) == ["f", "f", "m", "f", "m"]
    put(faces / "labels.csv", "image_id,gender\na/1,f\na/2.PNG,m\n")  # some have them, so others are other files
    assert list(words(packed("folder", faces, force=True), "gender").values()) == [None, None, "m", None, None]
    put(faces / "labels.csv", "image_id,gender\na/1,f\n")
    put(faces / "a" / "1.jpg", picture(format="JPEG"))
    with pytest.raises(InputError, match="none of its rows names one of the images"):  # a/1.jpg or a/1.png?
        packed("folder", faces, force=True)


def test_a_small_loss_is_a_note_and_a_large_one_a_warning(tmp_path):
    source = tmp_path / "faces"
    for i in range(40):
        put(source / f"{i:02d}.png", picture())
    rows = [f"{i:02d}.png,f" for i in range(40)]
    put(tmp_path / "l.csv", "file,gender\n" + "\n".join(rows[1:]))
    pack = packed("folder", source, labels=tmp_path / "l.csv")
    assert "1 of the images have no row in 'l.csv' (the first: '00.png')." in pack.meta["notes"]
    assert pack.meta["warnings"] == []
    put(tmp_path / "l.csv", "file,gender\n" + "\n".join(rows[20:]))
    pack = packed("folder", source, labels=tmp_path / "l.csv", force=True)
    assert pack.meta["warnings"] == [
        "20 of the images have no row in 'l.csv' (the first: '00.png').",
        "gender is unknown in 20 of 40 rows.",
    ]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_booleans_are_the_same_in_every_file(faces, suffix):
    values = ["True", "false", "TRUE", ""] if suffix == "csv" else [True, False, True, None]
    if suffix == "csv":
        rows = [f"{name},{value},{value or 'maybe'}" for name, value in zip(FOLDER, values, strict=True)]
        put(faces / "labels.csv", "\n".join(["file,smile,said", *rows]))
    else:
        pq.write_table(pa.table({"file": FOLDER, "smile": values}), faces / "labels.parquet")
    pack = packed("folder", faces)
    assert pack.classes["smile"] == ("no", "yes")
    assert list(words(pack, "smile").values()) == [None, "yes", "no", "yes", None]
    if suffix == "csv":  # only where all that is known is spelt so
        assert pack.classes["said"] == ("TRUE", "True", "false", "maybe")


def test_numbers_are_the_same_in_every_file(faces):
    rows = zip(FOLDER, ["1.0", "2.0", "", "3"], ["007", "1.0", "2", "3"], ["1.50", "2.0", "3", "4"], strict=True)
    put(faces / "labels.csv", "file,age,code,height\n" + "\n".join(",".join(row) for row in rows))
    pack = packed("folder", faces)
    assert pack.classes == {"age": ("1", "2", "3"), "code": ("007", "1.0", "2", "3"), "height": ("1.50", "2", "3", "4")}


# lfw


def archive(path: Path, members: list[tuple[str, bytes | tarfile.TarInfo]], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            info.size = len(data) if isinstance(data, bytes) else info.size
            tar.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)


def face() -> bytes:
    """250 x 250, 200 in the columns and rows 65 to 185."""
    image = Image.new("L", (250, 250), 10)
    image.paste(200, (65, 65, 185, 185))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=97)
    return file.getvalue()


def bright(pack: Pack) -> None:
    """The crop lies inside the bright square: no pixel is mostly of what surrounds it (10 there, 200 here)."""
    assert pack.x.min() > (10 + 200) / 2
    # Both filters ring at the square's edge, over two pixels of the small image at most.
    assert np.abs(pack.x[:, 3:-3, 3:-3].astype(int) - 200).max() <= 4


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


PEOPLE = ["Ann_A/Ann_A_0001.jpg", "Ann_A/Ann_A_0002.jpg", "Bob_B/Bob_B_0001.jpg", "Cy_C/Cy_C_0001.jpg"]


ENDINGS = [".png", ".webp", ".JPG", ".png"]


def lists(source: Path) -> None:
    put(source / "male_names.txt", "Bob_B_0001.jpg\r\nAnn_A_0002.jpg\r\n\r\nGone_0001.jpg\r\n")
    put(source / "female_names.txt", "Ann_A_0001.jpg\r\nAnn_A_0002.jpg\r\n")
    put(source / "smile_labels.txt", "./lfw/Ann_A/Ann_A_0001.jpg 1\n./lfw/Bob_B/Bob_B_0001.jpg 0\n")
    put(source / "pairs.txt", "2\t1\nAnn_A\t1\t2\nAnn_A\t1\tBob_B\t1\nAnn_A\t2\t1\nBob_B\t1\tCy_C\t1\n")


def check(pack: Pack) -> None:
    assert pack.sources.tolist() == PEOPLE
    bright(pack)
    assert pack.meta["crop"] == [0.26, 0.26, 0.74, 0.74]
    assert list(words(pack, "gender").values()) == ["female", None, "male", None]
    assert list(words(pack, "smile").values()) == ["yes", None, "no", None]
    assert list(words(pack, "identity").values()) == ["Ann_A", "Ann_A", "Bob_B", "Cy_C"]
    assert pack.pairs.tolist() == [[0, 1, 1, 0], [0, 2, 0, 0], [1, 0, 1, 1], [2, 3, 0, 1]]
    assert "1 images stand in both lists of gender" in " ".join(pack.meta["notes"])
    assert "gender is unknown in 2 of 4 rows." in pack.meta["warnings"]


@pytest.mark.parametrize(("name", "mode"), [("lfw-deepfunneled.tar", "w"), ("lfw-deepfunneled.tgz", "w:gz")])
def test_lfw_archive(tmp_path, name, mode):
    source = tmp_path / "lfw"
    source.mkdir()
    lists(source)
    archive(source / name, [(f"lfw-deepfunneled/{person}", face()) for person in PEOPLE], mode)
    pack = packed("lfw", source)
    check(pack)
    if mode == "w":  # a compressed archive cannot be listed beforehand
        assert pack.meta["notes"] == [
            "1 images stand in both lists of gender; their gender is taken as unknown.",
            "The standard set has 13233 images; here are 4.",
            "1 entries of the lists of gender name no image.",
        ]
        assert pack.meta["warnings"][0] == "1 images stand in neither list of gender; their gender is unknown."
    assert left(tmp_path) == ["lfw", "lfw.pack"]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("base", ["", "lfw-deepfunneled"])
def test_lfw_tree(tmp_path, base):
    source = tmp_path / "lfw"
    for person in PEOPLE:
        put(source / base / person, face())
    lists(source)
    check(packed("lfw", source))


@pytest.mark.parametrize("mode", ["", "w", "w:gz"])
def test_lfw_of_other_kinds_of_images(tmp_path, mode):
    """The lists name .jpg files; pairs and labels are those of the images that are there."""
    source = tmp_path / "lfw"
    lists(source)
    names = [Path(name).with_suffix(ending).as_posix() for name, ending in zip(PEOPLE, ENDINGS, strict=True)]
    image = Image.open(io.BytesIO(face()))
    for name in names:
        put(source / "lfw" / name, b"")
        image.save(
            source / "lfw" / name, {".JPG": "JPEG", ".webp": "WEBP"}.get(Path(name).suffix, "PNG"), lossless=True
        )
    if mode:
        archive(source / "lfw.tgz", [(f"lfw/{name}", (source / "lfw" / name).read_bytes()) for name in names], mode)
    pack = packed("lfw", source)
    assert pack.sources.tolist() == names
    assert list(words(pack, "gender").values()) == ["female", None, "male", None]
    assert list(words(pack, "smile").values()) == ["yes", None, "no", None]
    assert pack.pairs.tolist() == [[0, 1, 1, 0], [0, 2, 0, 0], [1, 0, 1, 1], [2, 3, 0, 1]]
    assert not any("pairs name images" in note for note in [*pack.meta["notes"], *pack.meta["warnings"]])


def test_lfw_reads_the_tree_and_not_a_cache(tmp_path):
    source = tmp_path / "lfw"
    for person in PEOPLE:
        put(source / "lfw" / person, face())
        put(source / "small" / person.replace("_00", "-00"), picture())  # not named as LFW's are
    put(source / ".cache" / "x" / "x.jpg", picture())
    lists(source)
    pack = packed("lfw", source)
    check(pack)
    assert "1 folders are of systems or tools and were left aside: '.cache'." in pack.meta["notes"]
    check(packed("lfw", source / "lfw"))  # the lists may lie beside the tree


def test_lfw_of_several_trees_is_refused_with_their_names(tmp_path):
    source = tmp_path / "lfw"
    for person in PEOPLE:
        put(source / "lfw" / person, face())
        put(source / "lfw-funneled" / person, face())
    with pytest.raises(InputError, match=r"any of \S+lfw/lfw, \S+lfw/lfw-funneled could be meant; name one, or move"):
        packed("lfw", source)
    assert len(packed("lfw", source / "lfw")) == len(PEOPLE)


def test_lfw_compares_names_in_nfc(tmp_path):
    source, person = tmp_path / "lfw", f"{DECOMPOSED}_A"
    put(source / person / f"{person}_0001.jpg", face())
    put(source / person / f"{person}_0002.jpg", face())
    put(source / "male_names.txt", f"{COMPOSED}_A_0001.jpg\n{COMPOSED}_A_0002.jpg\n")
    put(source / "female_names.txt", "")
    put(source / "pairs.txt", f"1\t1\n{COMPOSED}_A\t1\t2\n{COMPOSED}_A\t1\t{COMPOSED}_A\t2\n")
    pack = packed("lfw", source)
    assert pack.classes == {"identity": (f"{COMPOSED}_A",), "gender": ("male",)}
    assert pack.pairs.tolist() == [[0, 1, 1, 0], [0, 1, 0, 0]]


def test_lfw_archive_of_another_system(tmp_path):
    members = [(f"lfw/{person}", face()) for person in PEOPLE]
    members += [("__MACOSX/lfw/Ann_A/Ann_A_0003.jpg", face()), ("lfw/Ann_A/._Ann_A_0001.jpg", b"\0\5\x16\7")]
    members += [("lfw/Ann_A/Ann_A_0009.jxl", b"x")]
    (tmp_path / "lfw").mkdir()
    archive(tmp_path / "lfw" / "lfw.tar", members)
    pack = packed("lfw", tmp_path / "lfw")
    assert pack.sources.tolist() == PEOPLE
    assert skipped(pack) == {
        "lfw/Ann_A/Ann_A_0009.jxl": "an image of a kind that is not read (.jxl); convert it",
    }
    assert [note for note in pack.meta["notes"] if not note.startswith("There is no")] == [
        f"The standard set has 13233 images; here are {len(PEOPLE)}.",
        "1 files are hidden (their names begin with a dot) and were left aside.",
        "1 folders are of systems or tools and were left aside: '__MACOSX'.",
    ]


def test_nothing_is_said_of_labels_of_files_that_are_not_read(tmp_path):
    for name in ("a/0.png", "a/1.png"):
        put(tmp_path / "in" / name, face())
    put(tmp_path / "in/a/0.jxl", b"x")
    put(tmp_path / "labels.csv", "path,gender\na/0.png,f\n")
    pack = packed("folder", tmp_path / "in", labels=tmp_path / "labels.csv")
    assert any(note.startswith("1 of the images have no row in 'labels.csv' (the first: 'a/1.png')")
               for note in [*pack.meta["notes"], *pack.meta["warnings"]])  # fmt: skip


def test_lfw_tar_tricks(tmp_path, monkeypatch):
    monkeypatch.setattr(lfw, "MAX_BYTES", 50_000)
    source = tmp_path / "lfw"
    source.mkdir()
    good = face()
    archive(
        source / "lfw-deepfunneled.tar",
        [
            ("lfw/Ann_A/Ann_A_0001.jpg", good),
            ("/etc/Ann_A_0002.jpg", good),
            ("lfw/../../Ann_A/Ann_A_0003.jpg", good),
            ("lfw/Ann_A/soft.jpg", special(tarfile.SYMTYPE, "/etc/passwd")),
            ("lfw/Ann_A/hard.jpg", special(tarfile.LNKTYPE, "lfw/Ann_A/Ann_A_0001.jpg")),
            ("lfw/Ann_A/device.jpg", special(tarfile.CHRTYPE)),
            ("lfw/Ann_A/pipe.jpg", special(tarfile.FIFOTYPE)),
            ("lfw/Ann_A/big.jpg", b"\xff" * 50_001),
            ("lfw/Ann_A/run.sh", b"#!"),
            ("top.jpg", good),
            ("lfw/Ann_A/Ann_A_0001.jpg", good),
            ("lfw/Ann_A/cut.jpg", good[:500]),
            ("lfw/Bob_B/Bob_B_0001.jpg", good),
        ],
    )
    before = left(tmp_path)
    pack = packed("lfw", source)
    assert pack.sources.tolist() == ["Ann_A/Ann_A_0001.jpg", "Bob_B/Bob_B_0001.jpg"]
    reasons = skipped(pack)
    assert reasons.pop("Ann_A/cut.jpg").startswith("cannot be decoded")
    assert reasons == {
        "/etc/Ann_A_0002.jpg": "an absolute path or one with ..",
        "lfw/../../Ann_A/Ann_A_0003.jpg": "an absolute path or one with ..",
        "lfw/Ann_A/soft.jpg": "a link, device or other special file",
        "lfw/Ann_A/hard.jpg": "a link, device or other special file",
        "lfw/Ann_A/device.jpg": "a link, device or other special file",
        "lfw/Ann_A/pipe.jpg": "a link, device or other special file",
        "lfw/Ann_A/big.jpg": "more than 0 MiB",
        "top.jpg": "not in a person's folder",
        "lfw/Ann_A/Ann_A_0001.jpg": "a second file of that name",
    }
    assert left(tmp_path) == [*before, "lfw.pack"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_lfw_archive_with_a_damaged_header(tmp_path, mode):
    info = tarfile.TarInfo()
    info.pax_headers = {"GNU.sparse.map": "a,b", "GNU.sparse.size": "7"}
    source = tmp_path / "lfw"
    source.mkdir()
    archive(source / "lfw.tar", [("lfw/Ann_A/Ann_A_0001.jpg", face()), ("lfw/Ann_A/Ann_A_0002.jpg", info)], mode)
    with pytest.raises(InputError, match=r"lfw\.tar: damaged or cut off after 1 images"):
        packed("lfw", source)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_lfw_archive_cut_off(tmp_path, mode):
    source = tmp_path / "lfw"
    source.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (250, 250), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    path = source / "lfw-deepfunneled.tar"
    archive(path, [(f"lfw/{person}", file.getvalue()) for person in PEOPLE], mode)
    path.write_bytes(path.read_bytes()[: 3 * len(file.getvalue())])
    with pytest.raises(InputError, match=r"damaged or cut off after 2 images"):
        packed("lfw", source)
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(InputError, match=r"damaged or cut off after 0 images"):
        packed("lfw", source)
    assert left(tmp_path) == ["lfw"]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("smile_labels.txt", "Ann_A_0001.jpg 2\n", "line 1 is 'Ann_A_0001.jpg 2'; must be an image and 0 or 1"),
        ("pairs.txt", "2\t2\nAnn_A\t1\t2\n", "1 pairs; its first line announces 8"),
        ("pairs.txt", "x\n", "line 1 must give"),
        ("pairs.txt", "", "line 1 must give"),
        ("pairs.txt", "1\t1\nAnn_A\t1\t2\nAnn_A\tx\tBob_B\t1\n", "line 3 is"),
        ("pairs.txt", "1\t1\nAnn_A\t1\t2\nAnn_A\t1\n", "line 3 is"),
        ("female_names.txt", None, "female_names.txt is missing"),
    ],
)
def test_lfw_lists_that_are_malformed(tmp_path, name, text, error):
    source = tmp_path / "lfw"
    put(source / PEOPLE[0], face())
    lists(source)
    if text is None:
        (source / name).unlink()
    else:
        put(source / name, text)
    with pytest.raises(InputError, match=error):
        packed("lfw", source)


def test_lfw_other_mistakes(tmp_path):
    with pytest.raises(InputError, match="holds neither"):
        packed("lfw", tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        packed("lfw", tmp_path / "none")
    with pytest.raises(InputError, match="takes no file of them"):
        packed("lfw", tmp_path, labels=tmp_path / "x.csv")
    put(tmp_path / "lfw.tgz", b"")
    put(tmp_path / "lfw-deepfunneled.tar", b"")
    with pytest.raises(InputError, match="several archives"):
        packed("lfw", tmp_path)


@pytest.mark.skipif(not LFW.is_dir(), reason=f"{LFW} is not there")
def test_lfw_itself(tmp_path):
    pack = build.pack("lfw", LFW, tmp_path / "pack")
    assert pack.x.shape == (13_233, 64, 64)
    assert len(pack.classes["identity"]) == 5749
    assert pack.meta["skipped"] == 0
    assert int(np.sum(pack.label("gender") < 0)) == 8
    assert int(np.sum(pack.label("smile") >= 0)) == 3780
    assert pack.pairs.shape == (6000, 4)
    assert np.bincount(pack.pairs[:, 3]).tolist() == [600] * 10
    identity = pack.label("identity")
    a, b, same = pack.pairs[:, 0], pack.pairs[:, 1], pack.pairs[:, 2]
    assert np.array_equal(identity[a] == identity[b], same == 1)
    people = [set(identity[pack.split == s]) for s in range(4)]
    assert sum(map(len, people)) == 5749, "no person stands in two splits"
    assert np.all(np.abs(np.bincount(pack.split) / 13_233 - (0.45, 0.2, 0.1, 0.25)) < 0.001)
    pack.require(private=["gender", "smile"], utility="identity")
    assert "5 images stand in both lists of gender; their gender is taken as unknown." in pack.meta["notes"]
    assert "3 images stand in neither list of gender; their gender is unknown." in pack.meta["notes"]


# celeba


def aligned() -> bytes:
    image = Image.new("RGB", (178, 218), (10, 10, 10))
    image.paste((200, 200, 200), (29, 61, 149, 181))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=97)
    return file.getvalue()


def attributes(names: list[str]) -> str:
    rows = "".join(f"{name} {'1' if i % 2 else '-1'}  {'-1' if i % 3 else '1'}\n" for i, name in enumerate(names))
    return f"{len(names)}\nMale Smiling \n{rows}"


@pytest.fixture
def celebrities(tmp_path):
    source = tmp_path / "celeba"
    for i in range(1, 5):
        put(source / "img_align_celeba" / f"{i:06d}.jpg", aligned())
    put(source / "list_attr_celeba.txt", attributes([f"{i:06d}.jpg" for i in (1, 2, 3, 5)]))
    return source


def test_celeba(celebrities):
    put(celebrities / "identity_CelebA.txt", "000001.jpg 17\n000002.jpg 17\n000003.jpg 4\n000004.jpg 5\n")
    put(celebrities / "list_eval_partition.txt", "000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n")
    pack = packed("celeba", celebrities)
    assert pack.sources.tolist() == [f"{i:06d}.jpg" for i in range(1, 5)]
    bright(pack)
    assert list(words(pack, "Male").values()) == ["no", "yes", "no", None]
    assert list(words(pack, "gender").values()) == ["female", "male", "female", None]
    assert list(words(pack, "Smiling").values()) == ["yes", "no", "no", None]
    assert list(words(pack, "identity").values()) == ["17", "17", "4", "5"]
    assert list(words(pack, "partition").values()) == ["train", "validation", "test", None]
    assert pack.meta["crop"] == list(celeba.CROP)
    assert pack.meta["warnings"][0] == "1 images have no row in list_attr_celeba.txt; their attributes are unknown."
    assert pack.meta["notes"] == ["1 rows of list_attr_celeba.txt name no image."]


def test_celeba_as_other_archives_unpack(tmp_path):
    source = tmp_path / "celeba"
    names = [f"{i:06d}.jpg" for i in range(1, 4)]
    for name in names:
        put(source / "img_align_celeba" / "img_align_celeba" / name, aligned())
    put(source / "list_attr_celeba.csv", "image_id,Male,Smiling\n" + "".join(f"{name},1,-1\n" for name in names))
    put(source / "list_eval_partition.csv", "image_id,partition\n" + "".join(f"{name},0\n" for name in names))
    pack = packed("celeba", source)
    assert set(words(pack, "gender").values()) == {"male"}
    assert set(words(pack, "Smiling").values()) == {"no"}
    assert set(words(pack, "partition").values()) == {"train"}
    assert "identity" not in pack.labels
    whole = build.pack("celeba", source, tmp_path / "whole", size=16, crop=(0, 0, 1, 1))
    assert whole.x[0, 0, 0] < 20


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("list_attr_celeba.txt", "3\nMale\n000001.jpg 1\n", "1 images, but its first line announces 3"),
        ("list_attr_celeba.txt", "1\nMale Young\n000001.jpg 1\n", "line 3 must give an image and 2 values"),
        ("list_attr_celeba.txt", "1\nMale\n000001.jpg 0\n", "line 3 must give"),
        ("list_attr_celeba.txt", "2\nMale\n000001.jpg 1\n000001.jpg 1\n", "line 4 names 000001.jpg a second time"),
        ("list_attr_celeba.txt", "", "header must name"),
        ("list_attr_celeba.txt", "1\nMale\nx.jpg 1\n", "names none of the images"),
        ("identity_CelebA.txt", "000001.jpg\n", "line 1 must give"),
        ("list_eval_partition.txt", "000001.jpg 3\n", "partition of 000001.jpg is '3'"),
    ],
)
def test_celeba_lists_that_are_malformed(celebrities, name, text, error):
    put(celebrities / name, text)
    with pytest.raises(InputError, match=error):
        packed("celeba", celebrities)


@pytest.mark.parametrize("also", ["Img/img_align_celeba/000001.jpg", "Anno/list_attr_celeba.txt"])
def test_celeba_in_two_places_is_refused_with_their_names(celebrities, also):
    put(celebrities / also, face())
    with pytest.raises(InputError, match=rf"any of .*{also.rpartition('/')[0]}.* could be meant"):
        packed("celeba", celebrities)


@pytest.mark.parametrize("place", ["img_celeba", "Img/img_celeba", "img_celeba/img_celeba"])
def test_celeba_in_the_wild(celebrities, place):
    (celebrities / "img_align_celeba").rename(celebrities.parent / "aligned")
    for i in range(1, 5):
        put(celebrities / place / f"{i:06d}.jpg", loose(size=(200, 240)))
    pack = packed("celeba", celebrities)
    assert pack.meta["crop"] is None
    assert list(words(pack, "gender").values()) == ["female", "male", "female", None]
    assert any("Faces lie anywhere in the images of img_celeba" in note for note in pack.meta["notes"])


def test_celeba_of_both_kinds_is_chosen(celebrities):
    for i in range(1, 3):
        put(celebrities / "Img" / "img_celeba" / f"{i:06d}.jpg", loose())
    with pytest.raises(InputError, match=r"holds img_align_celeba and img_celeba; set images to one$"):
        packed("celeba", celebrities)
    assert len(packed("celeba", celebrities, settings={"images": "img_align_celeba"})) == 4
    assert len(packed("celeba", celebrities, settings={"images": "img_celeba"}, force=True)) == 2
    with pytest.raises(InputError, match=r"setting images is 'all'; must be one of img_align_celeba, img_celeba"):
        packed("celeba", celebrities, settings={"images": "all"}, force=True)


def test_celeba_in_the_wild_is_aligned_by_its_landmarks(tmp_path):
    source = tmp_path / "celeba"
    names = [f"{i:06d}.jpg" for i in (1, 2)]
    for name, left in zip(names, (60, 90), strict=True):  # white between the eyes
        image = Image.new("L", (240, 200), 20)
        image.paste(230, (left, 80, left + 61, 101))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=97)
        put(source / "img_celeba" / name, file.getvalue())
    put(source / "list_attr_celeba.txt", attributes(names))
    put(
        source / "Anno" / "list_landmarks_celeba.txt",
        "2\nlefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x "
        "rightmouth_y\n"
        "000001.jpg 60 90 120 90 90 110 70 130 110 130\n000002.jpg  90   90 150   90  120 110 100 130 140 130\n",
    )
    pack = packed("celeba", source, landmarks=source / "Anno" / "list_landmarks_celeba.txt")
    assert pack.meta["aligned"] is not None
    np.testing.assert_allclose(pack.x[0].astype(int), pack.x[1], atol=12)  # blocks of JPEG lie elsewhere
    assert pack.x[0, 6, 8] > 200 > 50 > pack.x[0, 14, 8]


def test_celeba_missing_parts(celebrities):
    (celebrities / "list_attr_celeba.txt").unlink()
    with pytest.raises(InputError, match=r"holds no list_attr_celeba\.txt"):
        packed("celeba", celebrities)
    (celebrities / "img_align_celeba").rename(celebrities / "other")
    put(celebrities / "img_align_celeba.zip", b"PK")
    with pytest.raises(
        InputError, match=r"holds no folder img_align_celeba or img_celeba; unpack img_align_celeba.zip first"
    ):
        packed("celeba", celebrities)


# utkface and fairface


def test_utkface(tmp_path):
    source = tmp_path / "utk"
    names = {
        "26_1_2_20170116171048641.jpg.chip.jpg": ("female", "Asian", "20-29"),
        "part1/2_0_0_20161219140623097.jpg": ("male", "White", "0-2"),
        "part1/3_0_1_20161219140623097.jpg": ("male", "Black", "3-9"),
        "10_1_3_20170116171048641.png": ("female", "Indian", "10-19"),
        "69_1_4_20170116171048641.jpg": ("female", "Others", "60-69"),
        "70_1_4_20170116171048641.jpg": ("female", "Others", "more than 70"),
        "116_1_0_20170120134921760.jpg": ("female", "White", "more than 70"),
        # Defects of the published set.
        "61_3_20170109150557335.jpg.chip.jpg": (None, None, "60-69"),
        "53__0_20170116184028385.jpg": (None, "White", "50-59"),
        "24_0_1_20170116220224657 .jpg.chip.jpg": ("male", "Black", "20-29"),
        "44_1_4_20170116235150272.pg.chip.jpg": ("female", "Others", "40-49"),
        "55_0_0_20170116232725357jpg.chip.jpg": ("male", "White", "50-59"),
        "30_2_7_20170116232725357.jpg": (None, None, "30-39"),
    }
    for name in names:
        put(source / name, face())
    for name in ("holiday.jpg", "300_0_0_20170116232725357.jpg", "26_1_2.jpg", "-1_0_0_20170116232725357.jpg"):
        put(source / name, face())
    pack = packed("utkface", source)
    known = {name: words(pack, name) for name in ("gender", "race", "age")}
    assert {s: tuple(each[s] for each in known.values()) for s in pack.sources.tolist()} == names
    assert set(skipped(pack).values()) == {"not named [age]_[gender]_[race]_[date].jpg"}
    assert len(skipped(pack)) == 4
    assert pack.meta["warnings"][0] == "3 names of images do not tell the label gender; it is unknown."


def test_utkface_mistakes(tmp_path):
    put(tmp_path / "utk" / "a.jpg", face())
    with pytest.raises(InputError, match=r"holds no image that is named \[age\]_"):
        packed("utkface", tmp_path / "utk")
    with pytest.raises(InputError, match="no such folder"):
        packed("utkface", tmp_path / "nowhere")


FAIRFACE = "file,age,gender,race,service_test"


@pytest.fixture
def fair(tmp_path):
    source = tmp_path / "fairface"
    images = source / "fairface-img-margin025-trainval"
    for name in ("train/1.jpg", "train/2.jpg", "train/3.jpg", "val/1.jpg", "val/2.jpg"):
        put(images / name, face())
    put(
        source / "fairface_label_train.csv",
        f"{FAIRFACE}\ntrain/1.jpg,50-59,Male,East Asian,True\ntrain/2.jpg,more than 70,Female,Latino_Hispanic,False\n"
        "train/9.jpg,3-9,Female,White,False\n",
    )
    put(
        source / "fairface_label_val.csv",
        f"{FAIRFACE}\nval/1.jpg,3-9,Female,Black,False\nval/2.jpg,20-29,Male,Middle Eastern,True\n",
    )
    return source


def test_fairface(fair):
    pack = packed("fairface", fair)
    assert pack.sources.tolist() == ["train/1.jpg", "train/2.jpg", "train/3.jpg", "val/1.jpg", "val/2.jpg"]
    assert list(words(pack, "age").values()) == ["50-59", "more than 70", None, "3-9", "20-29"]
    assert list(words(pack, "gender").values()) == ["male", "female", None, "female", "male"]
    races = ["East Asian", "Latino_Hispanic", None, "Black", "Middle Eastern"]
    assert list(words(pack, "race").values()) == races
    assert list(words(pack, "service_test").values()) == ["yes", "no", None, "no", "yes"]
    assert list(words(pack, "partition").values()) == [*["train"] * 3, *["validation"] * 2]
    assert pack.meta["warnings"][0] == "1 images have no row in the lists; their labels are unknown."
    assert "1 rows of the lists name no image." in pack.meta["notes"]


def test_fairface_of_one_part_with_the_lists_beside_it(fair):
    root = fair / "fairface-img-margin025-trainval"
    pack = packed("fairface", root)  # the lists lie beside it
    assert len(pack) == 5
    (fair / "fairface_label_train.csv").rename(root / "fairface_label_train.csv")
    (fair / "fairface_label_val.csv").rename(root / "fairface_label_val.csv")
    pack = packed("fairface", root / "val")  # and not train's image of the same name
    assert words(pack, "race") == {"val/1.jpg": "Black", "val/2.jpg": "Middle Eastern"}


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("fairface_label_val.csv", "file,age,gender\nval/1.jpg,3-9,Male\n", "race is missing"),
        ("fairface_label_val.csv", f"{FAIRFACE}\ntrain/1.jpg,3-9,Male,White,True\n", "names train/1.jpg a second time"),
        ("fairface_label_val.csv", "age,gender\n3-9,Male\n", "no column names the image"),
    ],
)
def test_fairface_lists_that_are_malformed(fair, name, text, error):
    put(fair / name, text)
    with pytest.raises(InputError, match=error):
        packed("fairface", fair)


def test_fairface_missing_parts(fair):
    put(fair / "fairface_label_train.csv", f"{FAIRFACE}\ntrain/7.jpg,3-9,Male,White,True\n")
    (fair / "fairface_label_val.csv").unlink()
    with pytest.raises(InputError, match=r"train\.csv: names none of the images in"):
        packed("fairface", fair)
    (fair / "fairface_label_train.csv").unlink()
    with pytest.raises(InputError, match=r"holds no fairface_label_train\.csv or fairface_label_val\.csv, in it or"):
        packed("fairface", fair)
    (fair / "empty").mkdir()
    with pytest.raises(InputError, match="holds no folder train or val"):
        packed("fairface", fair / "empty")


# embeddings


def vectors(n: int = 12, d: int = 4) -> np.ndarray:
    return (1 + np.arange(n * d).reshape(n, d)).astype(np.float32)


def column(rows: list, kind: str) -> pa.Array:
    types = {"list": pa.list_(pa.float64()), "large": pa.large_list(pa.float32()), "fixed": pa.list_(pa.float32(), 4)}
    return pa.array(rows, types[kind])


@pytest.mark.parametrize("kind", ["list", "large", "fixed", "columns"])
def test_embeddings_in_parquet(tmp_path, kind):
    x = vectors()
    table: dict[str, object] = {"name": [f"{i}.jpg" for i in range(12)], "identity": [i // 3 for i in range(12)]}
    table |= {f"v{j}": x[:, j] for j in range(4)} if kind == "columns" else {"face": column(x.tolist(), kind)}
    pq.write_table(pa.table(table), tmp_path / "v.parquet", row_group_size=5)
    pack = packed("embeddings", tmp_path / "v.parquet")
    assert (pack.kind, pack.x.dtype) == ("vectors", np.float32)
    assert np.array_equal(pack.x, x)
    assert pack.sources.tolist() == table["name"]
    assert list(words(pack, "identity").values()) == [str(i // 3) for i in range(12)]
    assert (pack.path / "vectors.npy").is_file()


@pytest.mark.parametrize("kind", ["list", "fixed"])
def test_embeddings_rows_that_are_unusable(tmp_path, kind):
    rows = vectors().tolist()
    rows[1] = [1, float("nan"), 2, 3]
    rows[3] = [0.0] * 4
    rows[4] = [1, 2, float("-inf"), 3]
    rows[6] = None
    rows[7] = [1, None, 2, 3]
    bad = {1, 3, 4, 6, 7}
    if kind == "list":
        rows[8], rows[0] = [1, 2, 3], [1, 2, 3, 4, 5]
        bad |= {0, 8}
    pq.write_table(pa.table({"source": [f"s{i}" for i in range(12)], "v": column(rows, kind)}), tmp_path / "v.parquet")
    if kind == "fixed" and int(pa.__version__.split(".")[0]) < 26:
        with pytest.raises(InputError, match=r"^\S+v\.parquet: cannot be read \(Expected all lists to be of size=4"):
            packed("embeddings", tmp_path / "v.parquet")
        pytest.skip("Arrow before version 26 reads no such lists where one is missing")
    pack = packed("embeddings", tmp_path / "v.parquet")
    assert pack.sources.tolist() == [f"s{i}" for i in range(12) if i not in bad]
    assert np.array_equal(pack.x, vectors()[[i for i in range(12) if i not in bad]])
    reasons = skipped(pack)
    assert reasons.keys() == {f"s{i}" for i in bad}
    assert reasons["s1"] == reasons["s4"] == reasons["s7"] == "a NaN or infinite value"
    assert reasons["s3"] == "only zeros"
    assert reasons["s6"] == "0 values where others have 4"
    if kind == "list":
        assert reasons["s0"] == "5 values where others have 4"


def test_embeddings_in_npz(tmp_path):
    x = vectors().astype(np.float16)
    x[5, 2] = np.nan
    np.savez(
        tmp_path / "v.npz",
        vectors=x,
        other=np.ones((12, 2), np.float32),
        name=np.array([f"{i}" for i in range(12)]),
        gender=np.array([b"f", b"m"] * 6),
        age=np.array([np.nan, *range(11)]),
    )
    pack = packed("embeddings", tmp_path / "v.npz")
    assert pack.classes["age"] == tuple(sorted(str(i) for i in range(11) if i != 4))
    assert "as neither vectors, names nor labels: other (float32 (12, 2))." in " ".join(pack.meta["notes"])
    np.savez(tmp_path / "w.npz", face=x, name=np.arange(12), gender=np.array([b"f", b"m"] * 6))
    pack = packed("embeddings", tmp_path / "w.npz", force=True)
    keep = [i for i in range(12) if i != 5]
    assert np.array_equal(pack.x, x[keep].astype(np.float32))
    assert words(pack, "gender") == {str(i): "fm"[i % 2] for i in keep}
    assert skipped(pack) == {"5": "a NaN or infinite value"}


@pytest.mark.parametrize(("centre", "noted"), [(0.0, False), (0.3, False), (1.5, True), (1e30, True)])
def test_vectors_far_from_centred_are_noted(tmp_path, centre, noted):
    x = (centre + np.random.default_rng(0).normal(size=(400, 16))).astype(np.float32)
    np.savez(tmp_path / "v.npz", vectors=x, name=np.arange(400).astype(str))
    pack = packed("embeddings", tmp_path / "v.npz")
    notes = [note for note in pack.meta["notes"] if note.startswith("Vectors are far from centred")]
    assert len(notes) == noted
    if noted:
        unit = x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True)
        cosines = (unit @ unit.T)[~np.eye(400, dtype=bool)]
        assert f"have a cosine of {cosines.mean():.2f} in the mean" in notes[0]


def test_embeddings_with_labels_apart(tmp_path):
    np.savez(tmp_path / "v.npz", vectors=vectors(4), name=np.array(["1.jpg", "2.jpg", "3.jpg", "9.jpg"]))
    put(tmp_path / "l.csv", "source,gender\na/2.jpg,f\na/1.jpg,m\nb/3.jpg,f\nb/4.jpg,m\n")
    pack = packed("embeddings", tmp_path / "v.npz", labels=tmp_path / "l.csv")
    assert words(pack, "gender") == {"1.jpg": "m", "2.jpg": "f", "3.jpg": "f", "9.jpg": None}
    assert "1 of the vectors have no row in 'l.csv' (the first: '9.jpg')." in pack.meta["warnings"]
    np.savez(tmp_path / "bare.npz", vectors(4))
    with pytest.raises(
        InputError, match=r"none of its rows names one of the vectors .*the first of the vectors is '0'"
    ):
        packed("embeddings", tmp_path / "bare.npz", labels=tmp_path / "l.csv")
    assert packed("embeddings", tmp_path / "bare.npz").sources.tolist() == ["0", "1", "2", "3"]


def test_embeddings_without_names_and_labels_without_names(tmp_path):
    np.save(tmp_path / "v.npy", vectors(4))
    put(tmp_path / "numbers.csv", "source,gender\n3,f\n0,m\n")
    pack = packed("embeddings", tmp_path / "v.npy", labels=tmp_path / "numbers.csv")
    assert words(pack, "gender") == {"0": "m", "1": None, "2": None, "3": "f"}
    put(tmp_path / "from-one.csv", "source,gender\n1,f\n2,f\n3,m\n4,m\n")
    with pytest.raises(InputError, match=r"so source must be their numbers, 0 to 3, got 4$"):
        packed("embeddings", tmp_path / "v.npy", labels=tmp_path / "from-one.csv", force=True)
    put(tmp_path / "rows.csv", "gender,identity\nf,ann\nf,ann\nm,bob\n,bob\n")
    pack = packed("embeddings", tmp_path / "v.npy", labels=tmp_path / "rows.csv", force=True)
    assert words(pack, "gender") == {"0": "f", "1": "f", "2": "m", "3": None}
    put(tmp_path / "short.csv", "gender\nf\nm\n")
    with pytest.raises(InputError, match="names no rows, so it must have 4 of them, got 2"):
        packed("embeddings", tmp_path / "v.npy", labels=tmp_path / "short.csv", force=True)
    np.savez(tmp_path / "v.npz", vectors=vectors(4), name=np.array(list("abcd")))
    with pytest.raises(InputError, match="no column names the image"):
        packed("embeddings", tmp_path / "v.npz", labels=tmp_path / "rows.csv")


def test_embeddings_of_a_packs_images(tmp_path):
    source = tmp_path / "lfw"
    for person in PEOPLE:
        put(source / person, face())
    lists(source)
    images = packed("lfw", source)
    names = [person.rpartition("/")[2] for person in reversed(PEOPLE)]
    np.savez(tmp_path / "v.npz", vectors=vectors(4), name=np.array(names))
    pack = packed("embeddings", tmp_path / "v.npz", labels=images.path, seed=5)
    assert np.array_equal(pack.split, images.split[::-1])
    assert list(words(pack, "gender").values()) == list(words(images, "gender").values())[::-1]
    assert np.array_equal(pack.pairs[:, :2], 3 - images.pairs[:, :2])
    assert np.array_equal(pack.pairs[:, 2:], images.pairs[:, 2:])


def test_embeddings_mistakes(tmp_path):
    def refuse(name: str, error: str, **options) -> None:
        with pytest.raises(InputError, match=error) as caught:
            packed("embeddings", tmp_path / name, **options)
        assert "\n" not in str(caught.value)

    refuse("none.npz", "no such file")
    put(tmp_path / "v.txt", "x")
    refuse("v.txt", r"must end in .parquet, .npz, .npy or .csv")
    put(tmp_path / "bad.npz", "PK nonsense")
    refuse("bad.npz", "cannot be read")
    put(tmp_path / "bad.parquet", "nonsense")
    refuse("bad.parquet", "cannot be read")
    np.savez(tmp_path / "pickle.npz", vectors=vectors(2), source=np.array(["a", "b"], object))
    refuse("pickle.npz", "source must name the rows by text, .* got pickled objects, which are never loaded")
    np.savez(tmp_path / "two.npz", a=vectors(2), b=vectors(2))
    refuse("two.npz", r"no array of floats with two axes to take \(there are: a, b\)")
    refuse("two.npz", "array 'c' is not one", settings={"column": "c"})
    np.savez(tmp_path / "whole.npz", a=np.ones((2, 3), np.int64))
    refuse("whole.npz", r"two axes to take \(there are: a: int64 \(2, 3\)\)")
    np.savez(tmp_path / "all.npz", vectors=np.full((3, 2), np.nan))
    refuse("all.npz", "nothing could be packed: 3 skipped, the first '0': a NaN")
    np.savez(tmp_path / "twice.npz", vectors=vectors(2), name=np.array(["a", "a"]))
    refuse("twice.npz", "'a' stands in column name more than once")
    pq.write_table(pa.table({"source": ["a"], "x": [1.0]}), tmp_path / "one.parquet")
    refuse("one.parquet", "no column of lists of floats")
    both = pa.table({"source": ["a"], "x": column([[1.0]], "list"), "y": column([[2.0, 3.0]], "list")})
    pq.write_table(both, tmp_path / "both.parquet")
    refuse("both.parquet", r"several columns hold lists of floats \(x, y\)")
    refuse("both.parquet", "column 'z' is not one", settings={"column": "z"})
    np.savez(tmp_path / "v.npz", vectors=vectors(2), name=np.array(["a", "b"]), gender=np.array(["f", "m"]))
    put(tmp_path / "l.csv", "source,gender\na,f\n")
    refuse("v.npz", "has a column gender, and so has", labels=tmp_path / "l.csv")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("kind", ["lists", "numpy", "bare", "columns", "semicolons"])
def test_embeddings_in_csv(tmp_path, kind):
    x = vectors() + np.float32(0.25)
    texts = {
        "lists": [f'"{row}"' for row in x.tolist()],
        "numpy": [f'"{np.array2string(row, max_line_width=20)}"' for row in x],  # which breaks its lines
        "bare": [" ".join(map(str, row)) for row in x.tolist()],
    }
    columns = [",".join(map(str, row)) for row in x.tolist()]
    head = "name,identity,emb" if kind in texts else "name,identity,v0,v1,v2,v3"
    rows = [f"{i}.jpg,{i // 3},{text}" for i, text in enumerate(texts.get(kind, columns))]
    text = "\n".join([head, *rows])
    put(tmp_path / "v.csv", text.replace(",", ";") if kind == "semicolons" else text)
    pack = packed("embeddings", tmp_path / "v.csv")
    np.testing.assert_array_equal(pack.x, x)
    assert pack.sources.tolist() == [f"{i}.jpg" for i in range(12)]
    assert list(words(pack, "identity").values()) == [str(i // 3) for i in range(12)]
    assert pack.meta["columns"] == (["v0", "v1", "v2", "v3"] if kind in ("columns", "semicolons") else [])


def test_embeddings_in_csv_that_are_unusable(tmp_path):
    put(tmp_path / "v.csv", "source,emb\na,[1.5 2]\nb,[1.5 nan]\nc,\nd,[1.5]\ne,[0.0 0]\nf,[1 2.5]\n")
    pack = packed("embeddings", tmp_path / "v.csv")
    assert pack.sources.tolist() == ["a", "f"]
    assert skipped(pack) == {
        "b": "a NaN or infinite value",
        "c": "0 values where others have 2",
        "d": "1 values where others have 2",
        "e": "only zeros",
    }
    put(tmp_path / "w.csv", "source,v0,v1\na,1.5,2\nb,,2\nc,NULL,3\nd,0,0\ne,1,2\n")
    pack = packed("embeddings", tmp_path / "w.csv")
    assert pack.x.tolist() == [[1.5, 2], [1, 2]]
    assert skipped(pack) == {**dict.fromkeys("bc", "a NaN or infinite value"), "d": "only zeros"}
    put(tmp_path / "comma.csv", "source;v0;v1\na;0,5;0,7\n")
    with pytest.raises(InputError, match="numbers of column v0 have decimal commas; write them with points"):
        packed("embeddings", tmp_path / "comma.csv")
    put(tmp_path / "short.csv", "source,emb\na,[0.1 0.2 ... 0.3]\n")
    with pytest.raises(InputError, match=r"lists in column emb were cut short \(\.\.\.\) when they were written"):
        packed("embeddings", tmp_path / "short.csv")


def test_embeddings_leave_columns_aside_that_are_no_labels(tmp_path):
    n = 12
    table = {
        "source": pa.array([f"{i}" for i in range(n)], pa.string_view()),
        "gender": pa.array(["f", "m"] * 6, pa.string_view()),
        "emb": pa.array(vectors().tolist(), pa.large_list(pa.float64())),
        "bbox": [[1, 2, 3, 4]] * n,
        "kps": [[[1.0, 2.0]] * 5] * n,
        "taken": pa.array([0] * n, pa.timestamp("ms")),
        "thumb": [b"\xff\xd8\xff"] * n,
        "meta": [{"a": 1}] * n,
        "__index_level_0__": list(range(n)),
    }
    pq.write_table(pa.table(table), tmp_path / "v.parquet")
    pack = packed("embeddings", tmp_path / "v.parquet")
    assert pack.classes == {"gender": ("f", "m")}
    assert pack.meta["notes"] == [
        "Left aside of 'v.parquet', as neither vectors, names nor labels: bbox (list<element: int64>), "
        "kps (list<element: list<element: double>>), taken (timestamp[ms]), thumb (binary), "
        "meta (struct<a: int64>), __index_level_0__ (int64)."
    ]
    pq.write_table(
        pa.table({k: table[k] for k in ("source", "taken", "bbox")} | {"age": list(range(n))}), tmp_path / "l.parquet"
    )
    again = build.pack("embeddings", tmp_path / "v.parquet", tmp_path / "again", labels=tmp_path / "l.parquet")
    assert set(again.classes) == {"gender", "age"}
    assert "Left aside of 'l.parquet'" in again.meta["notes"][1]


def test_embeddings_in_npz_of_any_machine_and_with_odd_arrays_beside_them(tmp_path):
    x = vectors()
    np.savez(
        tmp_path / "v.npz",
        vectors=x.astype(">f8"),
        source=np.array([f"\u00e4{i}" for i in range(12)]).astype(">U3"),
        age=np.arange(12).astype(">i4"),
        gender=np.array(["f", "m"] * 6).astype(">U1"),
        height=np.arange(12).astype(np.longdouble),
        box=np.ones((12, 4)),
        when=np.array(["2020-01-01"] * 12, "M8[D]"),
        who=np.array([{}] * 12, object),
        version=np.array("1.0"),
    )
    pack = packed("embeddings", tmp_path / "v.npz")
    np.testing.assert_array_equal(pack.x, x)
    assert pack.sources.tolist() == [f"\u00e4{i}" for i in range(12)]
    assert words(pack, "age") == words(pack, "height") == {f"\u00e4{i}": str(i) for i in range(12)}
    assert pack.classes["gender"] == ("f", "m")
    (note,) = pack.meta["notes"]
    for said in ("box (float64 (12, 4))", "when (datetime64[D])", "who (pickled objects, which are never loaded)",
                 "version (<U3 ())"):  # fmt: skip
        assert said in note
    np.save(tmp_path / "v.npy", x.astype(">f4"))
    np.testing.assert_array_equal(packed("embeddings", tmp_path / "v.npy", force=True).x, x)


def test_embeddings_say_which_columns_they_are(tmp_path):
    x = vectors()
    table = {"source": [f"{i}" for i in range(12)], **{name: x[:, j] for j, name in enumerate(("yaw", "pitch", "iod"))}}
    pq.write_table(pa.table({**table, "age": x[:, 3]}), tmp_path / "v.parquet")
    pack = packed("embeddings", tmp_path / "v.parquet")
    assert pack.framing["columns"] == ("yaw", "pitch", "iod", "age")
    assert pack.meta["notes"] == ["Vectors are 4 columns of 'v.parquet': yaw, pitch, iod, age."]
    chosen = packed("embeddings", tmp_path / "v.parquet", settings={"column": "iod, yaw"}, force=True)
    np.testing.assert_array_equal(chosen.x, x[:, [2, 0]])
    assert chosen.framing["columns"] == ("iod", "yaw")
    assert set(chosen.labels) == {"pitch", "age"}
    with pytest.raises(InputError, match=r"columns iod,who: each must be one of numbers, named once .* got 'who'"):
        packed("embeddings", tmp_path / "v.parquet", settings={"column": "iod,who"}, force=True)


def test_a_file_of_one_column_of_labels_keeps_its_blank_cells(tmp_path):
    np.save(tmp_path / "v.npy", vectors(4))
    put(tmp_path / "l.csv", "gender\nf\n\nm\n\n")  # the last line is blank, and so is a cell
    pack = packed("embeddings", tmp_path / "v.npy", labels=tmp_path / "l.csv")
    assert list(words(pack, "gender").values()) == ["f", None, "m", None]
    put(tmp_path / "l.csv", "gender\nf\n\nm\nf\n\n\n")
    pack = packed("embeddings", tmp_path / "v.npy", labels=tmp_path / "l.csv", force=True)
    assert list(words(pack, "gender").values()) == ["f", None, "m", "f"]
    put(tmp_path / "l.csv", "gender\nf\n\nm\nf\nm\n")  # a row too many, whose blank cell an older reader dropped
    with pytest.raises(InputError, match="names no rows, so it must have 4 of them, got 5"):
        packed("embeddings", tmp_path / "v.npy", labels=tmp_path / "l.csv", force=True)


@pytest.mark.parametrize("suffix", ["parquet", "npz", "npy", "csv"])
def test_embeddings_are_read_as_they_are_asked_for(tmp_path, monkeypatch, suffix):
    from veil.data.vectors import VectorFile

    seen, whole = [], VectorFile.blocks

    def blocks(self, *args, **kwargs):
        for block in whole(self, *args, size=10, **kwargs):
            seen.append(len(block.vectors))
            yield block

    monkeypatch.setattr(VectorFile, "blocks", blocks)
    source = tmp_path / f"v.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"v": column(vectors(95).tolist(), "fixed")}), source, row_group_size=25)
    elif suffix == "csv":
        put(source, "v\n" + "\n".join(f'"{row}"' for row in vectors(95).tolist()))
    else:
        (np.savez if suffix == "npz" else np.save)(source, vectors(95))
    listing = LAYOUTS["embeddings"](source, Options())
    assert listing.count == 95
    items = [next(listing.items) for _ in range(11)]
    assert seen == [10, 10]
    items += listing.items
    assert np.array_equal(np.stack([item.data for item in items]), vectors(95))
    assert [item.source for item in items] == [str(i) for i in range(95)]


# pendigits

PENDIGITS = LFW.with_name("pendigits")


def segment(digit: int = 1, writer: int = 3, strokes: list[list[tuple[int, int]]] | None = None) -> str:
    """One sample in UNIPEN form; by default a line straight down the left of the tablet."""
    lines = [f'.SEGMENT DIGIT    7 ? "{digit}"', f".COMMENT {digit} {writer}  224"]
    for stroke in strokes or [[(100, 400), (100, 200)]]:
        lines += [".PEN_DOWN", *(f" {x}  {y}" for x, y in stroke), ".PEN_UP", ".DT 100"]
    return "\n".join(lines) + "\n\n"


HEAD = '.INCLUDE dene.doc\n\n.LEXICON "0" "1"\n.HIERARCHY DIGIT\n\n'


def test_pendigits(tmp_path):
    slanted = [[(100, 200), (160, 400)], [(100, 300), (200, 300)]]  # drawn upwards: no downstroke, so no slant
    put(tmp_path / "pen" / "pendigits-orig.tra", HEAD + segment() + segment(7, 30, slanted))
    put(tmp_path / "pen" / "pendigits-orig.tes", HEAD + segment(4, 14, [[(160, 400), (100, 200)], [(90, 390)]]))
    pack = packed("pendigits", tmp_path / "pen")
    first, second, third = pack.sources
    assert words(pack, "writer") == {first: "3", second: "30", third: "44"}
    assert words(pack, "digit") == {first: "1", second: "7", third: "4"}
    assert words(pack, "strokes") == {first: "one", second: "several", third: "several"}
    assert words(pack, "slant") == {first: "upright", second: "upright", third: "slanted"}
    assert words(pack, "width") == {first: "narrow", second: "narrow", third: "narrow"}
    assert list(pack.sources) == ["pendigits-orig.tra/00000", "pendigits-orig.tra/00001", "pendigits-orig.tes/00000"]


def test_pendigits_are_drawn_in_place_or_filling_the_image(tmp_path):
    put(tmp_path / "pen" / "pendigits-orig.tra", HEAD + segment())
    normalised = packed("pendigits", tmp_path / "pen").x[0].astype(float)
    absolute = packed("pendigits", tmp_path / "pen", settings={"mode": "absolute"}, force=True).x[0].astype(float)
    # 16 pixels for 500 units: x 100 is column 3.2; y 400 .. 200 is rows 3.2 .. 9.6. Weighted means tell where it lies.
    columns, rows = absolute.sum(0), absolute.sum(1)
    assert np.average(np.arange(16) + 0.5, weights=columns) == pytest.approx(3.2, abs=0.1)
    assert np.average(np.arange(16) + 0.5, weights=rows) == pytest.approx(6.4, abs=0.1)
    assert np.flatnonzero(rows).tolist() == list(range(2, 11))  # with half a line's width, 0.7, at both ends
    assert np.average(np.arange(16) + 0.5, weights=normalised.sum(0)) == pytest.approx(8, abs=0.1)
    assert np.flatnonzero(normalised.sum(1)).min() <= 1
    assert np.flatnonzero(normalised.sum(1)).max() >= 14
    assert 0 < normalised[8, 7] < 255 or 0 < normalised[8, 8] < 255  # edges are blended, not steps


def test_pendigits_of_one_file_or_both(tmp_path):
    put(tmp_path / "pen" / "pendigits-orig.tra", HEAD + segment())
    pack = packed("pendigits", tmp_path / "pen")
    assert "pendigits-orig.tes is not there." in pack.meta["notes"]
    with pytest.raises(InputError, match=r"holds no pendigits-orig\.tes"):
        packed("pendigits", tmp_path / "pen", settings={"files": "test"}, force=True)
    with pytest.raises(InputError, match=r"holds no pendigits-orig.tra and no pendigits-orig.tes"):
        packed("pendigits", tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (segment().replace(".COMMENT 1 3  224\n", ""), "its line .COMMENT must give digit, writer and number"),
        (segment().replace(".COMMENT 1 3", ".COMMENT 2 3"), "its digit is 1 in .SEGMENT, 2 in .COMMENT"),
        (segment().replace(" 100  200", " 100  2x0"), "a point must be two whole numbers, got '100  2x0'"),
        (segment().split(".PEN_UP")[0], "it ends with the pen down; the file was cut off"),
        (segment(strokes=[[]]), "it has no points"),
    ],
)
def test_pendigits_that_are_malformed(tmp_path, text, reason):
    put(tmp_path / "pen" / "pendigits-orig.tra", HEAD + segment() + text)
    pack = packed("pendigits", tmp_path / "pen")
    assert len(pack) == 1
    assert skipped(pack) == {"pendigits-orig.tra/00001": reason}


def test_pendigits_other_mistakes(tmp_path):
    put(tmp_path / "pen" / "pendigits-orig.tra", "5,3,2\n")
    with pytest.raises(InputError, match="not a UNIPEN file of digits"):
        packed("pendigits", tmp_path / "pen")
    with pytest.raises(InputError, match="channels must be 1, got 3"):
        packed("pendigits", tmp_path / "pen", channels=3)
    with pytest.raises(InputError, match="must be one of normalised, absolute"):
        packed("pendigits", tmp_path / "pen", settings={"mode": "big"})


@pytest.mark.skipif(not PENDIGITS.is_dir(), reason=f"{PENDIGITS} is not there")
def test_pendigits_themselves(tmp_path):
    pack = build.pack("pendigits", PENDIGITS, tmp_path / "pack", size=20, fractions=(0.7, 0.1, 0.1, 0.1))
    assert len(pack) == 7494 + 3498
    assert pack.meta["skipped"] == 0
    writers = np.bincount(pack.label("writer"))
    assert len(writers) == 44
    assert set(pack.classes["writer"]) == {str(i) for i in range(1, 45)}
    assert len(pack.classes["digit"]) == 10
    assert 0.1 < np.asarray(pack.x).mean() / 255 < 0.3


# ferg


def test_ferg(tmp_path):
    for i, name in enumerate(["aia/aia_anger/aia_anger_1.png", "aia/aia_joy/aia_joy_2.png", "Ray/Ray_joy/x.png"]):
        put(tmp_path / "ferg" / name, picture(60 * i, (256, 256)))
    put(tmp_path / "ferg" / "aia" / "cover.png", picture())
    put(tmp_path / "ferg" / "aia" / "aia_bored" / "1.png", picture())
    put(tmp_path / "ferg" / "aia" / "aia_joy" / "notes.txt", "x")
    pack = packed("ferg", tmp_path / "ferg")
    assert words(pack, "character") == {
        "Ray/Ray_joy/x.png": "ray", "aia/aia_anger/aia_anger_1.png": "aia", "aia/aia_joy/aia_joy_2.png": "aia"
    }  # fmt: skip
    assert set(words(pack, "expression").values()) == {"anger", "joy"}
    assert skipped(pack).keys() == {"aia/cover.png", "aia/aia_bored/1.png"}
    assert "1 files are no images by their name's ending and were left aside." in pack.meta["notes"]


def test_ferg_as_the_archive_unpacks(tmp_path):
    put(tmp_path / "ferg" / "FERG_DB_256" / "mery" / "mery_fear" / "1.png", picture())
    assert packed("ferg", tmp_path / "ferg").sources.tolist() == ["mery/mery_fear/1.png"]


def test_ferg_of_several_trees_is_refused_with_their_names(tmp_path):
    for tree in ("one", "two", ".cache"):
        put(tmp_path / "ferg" / tree / "mery" / "mery_fear" / "1.png", picture())
    with pytest.raises(InputError, match=r"any of \S+ferg/one, \S+ferg/two could be meant"):
        packed("ferg", tmp_path / "ferg")
    pack = packed("ferg", tmp_path / "ferg" / "two")
    assert len(pack) == 1


def test_ferg_mistakes(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        packed("ferg", tmp_path / "ferg")
    put(tmp_path / "ferg" / "1.png", picture())
    with pytest.raises(InputError, match="holds no image in a folder <character>/<character>_<expression>/"):
        packed("ferg", tmp_path / "ferg")


# vggface2


def loose(box: tuple[int, int, int, int] = (50, 60, 150, 180), size: tuple[int, int] = (200, 240)) -> bytes:
    """A loosely cropped face: 200 in a box of left, top, right, bottom and 10 around it."""
    image = Image.new("RGB", size, (10, 10, 10))
    image.paste((200, 200, 200), box)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=97)
    return file.getvalue()


META = """Class_ID, Name, Sample_Num, Flag, Gender
n000001, "Dalai_Lama", 424, 0, m
n000002, "A_Fine_Frenzy", 315, 1, f
n000003, "Robert_Downey,_Jr.", 180, 1, m
n000009, "Zo\u00eb_"Zo"_Who, has_no_folder", 87, 1, f
"""


@pytest.fixture
def vggface2(tmp_path):
    source = tmp_path / "vggface2"
    put(source / "train" / "n000002" / "0001_01.jpg", loose((0, 0, 80, 110)))
    put(source / "train" / "n000002" / "0002_01.jpg", loose((90, 100, 180, 200)))
    put(source / "train" / "n000003" / "0001_02.jpg", loose())
    put(source / "test" / "n000001" / "0001_01.jpg", loose((110, 10, 200, 110)))
    put(source / "identity_meta.csv", META)
    put(
        source / "bb_landmark" / "loose_bb_train.csv",
        'NAME_ID,X,Y,W,H\n"n000002/0002_01",90,100,90,100\n"n000002/0001_01",-20,-30,100,140\n',
    )
    put(source / "bb_landmark" / "loose_bb_test.csv", "NAME_ID,X,Y,W,H\nn000001/0001_01,110,10,90,100\n")
    return source


FACES = [
    "train/n000002/0001_01.jpg",
    "train/n000002/0002_01.jpg",
    "train/n000003/0001_02.jpg",
    "test/n000001/0001_01.jpg",
]


@pytest.mark.parametrize("published", [True, False])
def test_vggface2(vggface2, published):
    if not published:  # the archives of images unpack into data/, those of lists into meta/
        for name in ("train", "test"):
            (vggface2 / "data").mkdir(exist_ok=True)
            (vggface2 / name).rename(vggface2 / "data" / name)
        (vggface2 / "meta").mkdir()
        for name in ("identity_meta.csv", "bb_landmark"):
            (vggface2 / name).rename(vggface2 / "meta" / name)
    pack = packed("vggface2", vggface2)
    assert pack.sources.tolist() == FACES
    assert list(words(pack, "identity").values()) == ["n000002", "n000002", "n000003", "n000001"]
    assert list(words(pack, "gender").values()) == ["female", "female", "male", "male"]
    assert list(words(pack, "partition").values()) == ["train", "train", "train", "test"]
    assert pack.classes == {
        "identity": ("n000001", "n000002", "n000003"), "gender": ("female", "male"), "partition": ("test", "train")
    }  # fmt: skip
    bright(pack)  # each cropped to its own box, one that passes the edges too; the third to its middle half
    assert pack.meta["crop"] == [0.25, 0.25, 0.75, 0.75]
    assert pack.meta["skipped"] == 0
    assert pack.meta["notes"] == [
        "1 rows of identity_meta.csv name people without a folder.",
        "3 images are cropped to the boxes of their faces, where no crop is named.",
        "1 images have no box; their default crop is the middle half of the image.",
    ]


def test_vggface2_leaves_systems_folders_aside(vggface2):
    for name in ("train/@eaDir/x.jpg", "test/n000001/.thumbnails/1.jpg", "train/._n000002.jpg"):
        put(vggface2 / name, loose())
    put(vggface2 / "train" / "n000003" / "0009_01.jxl", "x")
    pack = packed("vggface2", vggface2)
    assert sorted(pack.sources) == sorted(FACES)
    assert skipped(pack) == {"train/n000003/0009_01.jxl": "an image of a kind that is not read (.jxl); convert it"}
    assert pack.meta["notes"][:2] == [
        "1 files are hidden (their names begin with a dot) and were left aside.",
        "2 folders are of systems or tools and were left aside: 'train/@eaDir', '.thumbnails'.",
    ]


@pytest.mark.parametrize("also", ["data/train/n000002/1.jpg", "meta/identity_meta.csv"])
def test_vggface2_in_two_places_is_refused_with_their_names(vggface2, also):
    put(vggface2 / also, META)
    with pytest.raises(InputError, match=r"any of \S+vggface2\S*, \S+/(data|meta/identity_meta\.csv) could be meant"):
        packed("vggface2", vggface2)


def test_vggface2_with_a_crop_that_the_user_names(vggface2):
    pack = packed("vggface2", vggface2, crop=(0, 0, 0.4, 1))
    # The centred square of columns 0 to 80: rows 80 to 160, of which the first face's 30 upper ones are bright.
    assert pack.x[0, :4].min() > 150
    assert pack.x[0, 8:].max() < 30
    assert pack.x[3].max() < 30
    assert pack.meta["crop"] == [0, 0, 0.4, 1]


def test_vggface2_without_lists(vggface2):
    for name in ("identity_meta.csv", "bb_landmark/loose_bb_train.csv", "bb_landmark/loose_bb_test.csv"):
        (vggface2 / name).unlink()
    pack = packed("vggface2", vggface2)
    assert set(pack.labels) == {"identity", "partition"}
    assert pack.x[2].min() > 105  # the only face in the middle
    assert pack.x[0].min() < 30
    assert pack.meta["notes"] == [
        "There is no label gender: identity_meta.csv is not there.",
        "loose_bb_train.csv is not there.",
        "loose_bb_test.csv is not there.",
        "4 images have no box; their default crop is the middle half of the image.",
    ]


def test_vggface2_of_one_part_and_people_without_a_row(vggface2):
    put(vggface2 / "test" / "n000004" / "0001_01.jpg", loose())
    (vggface2 / "train").rename(vggface2 / "elsewhere")
    pack = packed("vggface2", vggface2)
    assert words(pack, "gender") == {"test/n000001/0001_01.jpg": "male", "test/n000004/0001_01.jpg": None}
    assert words(pack, "identity")["test/n000004/0001_01.jpg"] == "n000004"
    assert pack.meta["warnings"][0] == "1 people have no row in identity_meta.csv; their gender is unknown."
    assert pack.meta["notes"][0] == "3 rows of identity_meta.csv name people without a folder."
    assert "gender is unknown in 1 of 2 rows." in pack.meta["warnings"]


def test_vggface2_images_that_are_unusable(vggface2):
    put(vggface2 / "train" / "n000002" / "0003_01.jpg", loose()[:900])
    put(vggface2 / "train" / "n000002" / "0004_01.jpg", loose())
    put(vggface2 / "train" / "stray.jpg", loose())
    put(vggface2 / "train" / "strangers" / "0001_01.jpg", loose())
    put(vggface2 / "train" / "n000003" / "notes.txt", "x")
    put(vggface2 / "train" / "list.txt", "x")
    (vggface2 / "train" / "n000008").symlink_to(vggface2 / "train" / "n000002")
    (vggface2 / "train" / "n000009").symlink_to(vggface2 / "train" / "n000009")
    boxes = vggface2 / "bb_landmark" / "loose_bb_train.csv"
    put(boxes, boxes.read_text() + '"n000002/0004_01",200,0,50,50\n')
    pack = packed("vggface2", vggface2)
    assert pack.sources.tolist() == FACES
    assert pack.meta["skipped"] == 6
    reasons = skipped(pack)
    assert reasons.pop("train/n000002/0003_01.jpg").startswith("cannot be decoded")
    assert reasons == {
        "train/n000002/0004_01.jpg": "its crop 200, 0 to 250, 50 has no pixel of 200 x 240",
        "train/n000008": "a link to a folder; links to folders are not followed",
        "train/n000009": "cannot be read (Too many levels of symbolic links)",
        "train/stray.jpg": "not in a person's folder nXXXXXX",
        "train/strangers/0001_01.jpg": "not in a person's folder nXXXXXX",
    }
    assert pack.meta["notes"][0] == "2 files are no images by their name's ending and were left aside."


def test_vggface2_is_split_by_person_and_not_by_partition(tmp_path):
    source = tmp_path / "vggface2"
    for person in range(1, 41):
        for i in range(3):
            place = source / ("test" if person > 30 else "train") / f"n{person:06d}"
            put(place / f"{i:04d}_01.jpg", loose())
    put(source / "identity_meta.csv", META.splitlines()[0] + "\n" + "".join(
        f'n{i:06d}, "P", 3, {int(i <= 30)}, {"fm"[i % 2]}\n' for i in range(1, 41)
    ))  # fmt: skip
    pack = packed("vggface2", source)
    people = [set(pack.label("identity")[pack.split == s].tolist()) for s in range(4)]
    assert sum(map(len, people)) == len(set.union(*people)) == 40
    assert pack.meta["splits"] == {"protect": 54, "attack": 24, "calibrate": 12, "test": 30}
    test = pack.classes["partition"].index("test")
    assert 0 < np.sum(pack.label("partition")[pack.split == 0] == test) < 54
    pack.require(private=["gender"], utility="identity")


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("identity_meta.csv", "", "identity_meta.csv: empty"),
        ("identity_meta.csv", "n000001, x, 1, 0, m\n", "its first line must be Class_ID,Name,Sample_Num,Flag,Gender"),
        ("identity_meta.csv", META + "n000004, x, 1, 0, female\n", r"line 6 must .*, got 'n000004', 'female' and 5"),
        ("identity_meta.csv", META[:80], r"line 3 must begin .*, got 'n00000', 'n00000' and 1"),
        ("identity_meta.csv", META + "n000001, x, 1, 0, m\n", "line 6 names n000001 a second time"),
        ("identity_meta.csv", META.splitlines()[0] + "\nn000009, x, 1, 0, m\n", r"names none .*\(the first: n000001\)"),
        ("bb_landmark/loose_bb_train.csv", "", "loose_bb_train.csv: empty"),
        ("bb_landmark/loose_bb_train.csv", "NAME,X\n", "its first line must be NAME_ID,X,Y,W,H"),
        ("bb_landmark/loose_bb_test.csv", "NAME_ID,X,Y,W,H\nn000001/0001_01,1,2,3\n", "line 2 must .* got 'n000001/00"),
        ("bb_landmark/loose_bb_test.csv", "NAME_ID,X,Y,W,H\nn000001/0001_01,1,2,3,nan\n", "line 2 must give a face"),
        ("bb_landmark/loose_bb_test.csv", "NAME_ID,X,Y,W,H\nn1/x,1,2,3,4\n", "such as n000002/0001_01 and four"),
        (
            "bb_landmark/loose_bb_test.csv",
            "NAME_ID,X,Y,W,H\n" + "n000012/0345_06,1,2,3,4\n" * 2,
            "names n000012/0345_06 more than once",
        ),
    ],
)
def test_vggface2_lists_that_are_malformed(vggface2, name, text, error):
    put(vggface2 / name, text)
    with pytest.raises(InputError, match=error) as caught:
        packed("vggface2", vggface2)
    assert "\n" not in str(caught.value)
    assert left(vggface2.parent) == ["vggface2"]


def test_vggface2_mistakes(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        packed("vggface2", tmp_path / "none")
    put(tmp_path / "v" / "vggface2_train.tar.gz", b"")
    with pytest.raises(InputError, match=r"holds no folder train or test; unpack vggface2_train.tar.gz first"):
        packed("vggface2", tmp_path / "v")
    put(tmp_path / "v" / "train" / "0001_01.jpg", loose())
    with pytest.raises(InputError, match=r"holds no image in a folder train/n000002/ or test/n000001/"):
        packed("vggface2", tmp_path / "v")
    with pytest.raises(InputError, match="takes no file of them"):
        packed("vggface2", tmp_path / "v", labels=tmp_path / "x.csv")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_in_pixels_is_the_same_crop_in_fractions(channels):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    crop, fractions = decode.Pixels(-5, 12, 32, 36), (0, 0.25, 0.5, 0.75)
    for form, options in [("PNG", {}), ("JPEG", {}), ("JPEG", {"turned": 6}), ("CMYK", {})]:
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = options.get("turned", 1)
        turned = image.transpose(Image.Transpose.ROTATE_90) if options else image  # upright again by the tag
        stored = turned.convert("CMYK") if form == "CMYK" else turned
        stored.save(file, "JPEG" if form == "CMYK" else form, exif=exif)
        ours = decode.decode(file.getvalue(), 16, channels, crop)
        assert np.array_equal(ours, decode.decode(file.getvalue(), 16, channels, fractions))
        assert not np.array_equal(ours, decode.decode(file.getvalue(), 16, channels))
    with pytest.raises(decode.DecodeError, match="has no pixel of 64 x 48"):
        decode.decode(file.getvalue(), 16, channels, decode.Pixels(0, 48, 10, 60))


# msceleb


def line(mid: str = "m.0107_f", rank: int = 0, face: int = 0, value: int = 100) -> bytes:
    """A line of MS-Celeb-1M's file of aligned faces."""
    rectangle = base64.b64encode(np.array([0.1, 0.2, 0.8, 0.9], "<f4").tobytes())
    words = [mid, str(rank), "http://example.org/a.jpg", "http://example.org/", f"FaceId-{face}"]
    image = base64.b64encode(picture(value, format="JPEG"))
    return b"\t".join([*(word.encode() for word in words), rectangle, image]) + b"\n"


def test_msceleb(tmp_path):
    lines = [line(rank=1, value=50), line(rank=1, face=1, value=90), line("m.05_x", 12, value=200)]
    put(tmp_path / "faces.tsv", b"".join(lines).rstrip(b"\n"))
    pack = packed("msceleb", tmp_path / "faces.tsv")
    assert pack.sources.tolist() == ["m.0107_f/1-FaceId-0", "m.0107_f/1-FaceId-1", "m.05_x/12-FaceId-0"]
    assert list(words(pack, "identity").values()) == ["m.0107_f", "m.0107_f", "m.05_x"]
    assert set(pack.labels) == {"identity"}
    assert pack.x[:, 8, 8].tolist() == [50, 90, 200]
    assert (pack.meta["skipped"], pack.meta["crop"], pack.meta["notes"]) == (0, None, [])


def test_msceleb_of_a_folder_split_by_person(tmp_path):
    for part in (2, 1):
        people = range(20 * part, 20 * part + 20)
        put(tmp_path / "ms" / f"part{part}.tsv", b"".join(line(f"m.{p}", i) for p in people for i in range(2)))
    put(tmp_path / "ms" / "readme.txt", "x")
    put(tmp_path / "ms" / "._part1.tsv", "\0\5\x16\7")  # as macOS leaves them on other systems' disks
    pack = packed("msceleb", tmp_path / "ms")
    assert len(pack) == 80
    assert pack.meta["notes"] == ["1 files are hidden (their names begin with a dot) and were left aside."]
    assert pack.sources[[0, -1]].tolist() == ["m.20/0-FaceId-0", "m.59/1-FaceId-0"]
    people = [set(pack.label("identity")[pack.split == s].tolist()) for s in range(4)]
    assert sum(map(len, people)) == len(set.union(*people)) == 40
    assert pack.meta["splits"] == {"protect": 36, "attack": 16, "calibrate": 8, "test": 20}


def test_msceleb_lines_that_are_unusable(tmp_path, monkeypatch):
    monkeypatch.setattr(msceleb, "MAX_LINE", 4096)
    good = line()
    columns = good.split(b"\t")
    cut = columns[-1].strip()[: len(columns[-1]) // 8 * 4]  # half of the image, and still base64
    lines = [
        good,
        b"\t".join(columns[:5]) + b"\n",
        b"\t".join([columns[0], b"query", *columns[1:]]),
        b"\t".join([*columns[:-1], cut[:-1]]) + b"\n",
        b"\t".join([*columns[:-1], b"!" + cut]) + b"\n",
        b"\t".join([*columns[:1], b"1", *columns[2:-1], cut]) + b"\n",
        b"\t".join([*columns[:-1], b""]) + b"\n",
        b"\t".join([b"", *columns[1:]]),
        b"\r\n",
        b"x" * 10_000 + b"\t" * 6 + b"\n",
        good,
        line("m.2").replace(b"\n", b"\r\n"),
        line("m.3")[:-40],
        line("m.4")[:-101],
    ]
    put(tmp_path / "f.tsv", b"".join(lines[:12]) + lines[12] + b"\n" + lines[13])
    pack = packed("msceleb", tmp_path / "f.tsv")
    assert pack.sources.tolist() == ["m.0107_f/0-FaceId-0", "m.2/0-FaceId-0"]
    reasons = skipped(pack)
    assert pack.meta["skipped"] == len(reasons) == 11
    assert reasons.pop("m.0107_f/1-FaceId-0").startswith("cannot be decoded")
    assert reasons["f.tsv:2"] == "5 columns where there must be 7"
    assert reasons["f.tsv:3"] == "8 columns where there must be 7"
    assert reasons["f.tsv:4"] == "its image is not valid base64 (Incorrect padding)"
    assert reasons["f.tsv:5"].startswith("its image is not valid base64 (")
    assert reasons["f.tsv:7"] == "its image is empty"
    assert reasons["f.tsv:8"] == "no Freebase MID, ImageSearchRank or FaceID"
    assert reasons["f.tsv:10"] == "a line of more than 0 MiB"
    assert reasons["f.tsv:11"] == "a second line of m.0107_f/0-FaceId-0"


def test_msceleb_with_labels_by_face_or_by_person(tmp_path):
    put(tmp_path / "f.tsv", b"".join([line("m.1"), line("m.1", 1), line("m.2"), line("m.3")]))
    put(tmp_path / "people.csv", "identity,gender,split\nm.1,female,protect\nm.2,male,test\nm.9,male,test\n")
    pack = packed("msceleb", tmp_path / "f.tsv", labels=tmp_path / "people.csv")
    assert words(pack, "gender") == {"m.1/0-FaceId-0": "female", "m.1/1-FaceId-0": "female", "m.2/0-FaceId-0": "male"}
    assert [SPLITS[s] for s in pack.split] == ["protect", "protect", "test"]
    assert list(words(pack, "identity").values()) == ["m.1", "m.1", "m.2"]
    assert skipped(pack) == {"m.3/0-FaceId-0": "no row in people.csv, which prescribes the splits"}
    put(tmp_path / "faces.csv", "source,smile\nm.1,no\nm.1/1-FaceId-0,yes\n")
    pack = packed("msceleb", tmp_path / "f.tsv", labels=tmp_path / "faces.csv", force=True)
    assert list(words(pack, "smile").values()) == ["no", "yes", None, None]
    put(tmp_path / "none.csv", "source,smile\n1.jpg,no\n")
    with pytest.raises(InputError, match=r"none of its rows names .* \(its column source holds '1.jpg'\)"):
        packed("msceleb", tmp_path / "f.tsv", labels=tmp_path / "none.csv", force=True)


def test_msceleb_with_a_pack_for_labels(tmp_path):
    put(tmp_path / "f.tsv", b"".join(line(f"m.{i // 2}", i) for i in range(40)))
    put(tmp_path / "people.csv", "identity,gender\n" + "".join(f"m.{i},{'fm'[i % 2]}\n" for i in range(20)))
    one = packed("msceleb", tmp_path / "f.tsv", labels=tmp_path / "people.csv")
    two = build.pack("msceleb", tmp_path / "f.tsv", tmp_path / "two", size=8, labels=one.path, seed=9)
    assert np.array_equal(one.split, two.split)
    assert words(one, "gender") == words(two, "gender")
    assert words(one, "identity") == words(two, "identity")


def test_msceleb_mistakes(tmp_path):
    def refuse(name: str, error: str, **options) -> None:
        with pytest.raises(InputError, match=error) as caught:
            packed("msceleb", tmp_path / name, **options)
        assert "\n" not in str(caught.value)

    refuse("none.tsv", "no such file or folder")
    (tmp_path / "empty").mkdir()
    refuse("empty", r"holds no file \*\.tsv")
    put(tmp_path / "empty.tsv", b"")
    refuse("empty.tsv", r"empty.tsv: no usable line, .* \(it is empty\)")
    put(tmp_path / "images.tsv", b"\t".join(line().split(b"\t")[:6]) + b"\n")  # the file of whole images has six
    refuse("images.tsv", r"no usable line, which has 7 columns, .* \(line 1: 6 columns where there must be 7\)")
    put(tmp_path / "both" / "a.tsv", line())
    put(tmp_path / "both" / "b.tsv", b"\n\nm.1\t0\n")
    refuse("both", r"b.tsv: no usable line, .* \(line 3: 2 columns")
    put(tmp_path / "twice" / "a.tsv", line() + line("m.2"))
    put(tmp_path / "twice" / "b.tsv", line())
    refuse("twice", "'m.0107_f/0-FaceId-0' stands in the data set more than once")
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_msceleb_is_read_line_by_line(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (250, 250), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=95)
    image = base64.b64encode(file.getvalue())
    with (tmp_path / "f.tsv").open("wb") as tsv:
        for i in range(400):
            tsv.write(b"\t".join([f"m.{i}".encode(), b"0", b"", b"", b"FaceId-0", b"", image]) + b"\n")
    size = (tmp_path / "f.tsv").stat().st_size
    tracemalloc.start()
    try:
        items = LAYOUTS["msceleb"](tmp_path / "f.tsv", Options()).items
        assert sum(item.data == file.getvalue() for item in items) == 400
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A line, its fields and its image, twice while the next ones are read: not the file.
    assert peak < 10 * len(image) < size / 30


def test_every_layout_refuses_settings_it_does_not_know(tmp_path):
    for name, read in LAYOUTS.items():
        with pytest.raises(InputError, match="'colour'"):
            read(Path() if name == "stylised" else tmp_path, Options(settings={"colour": "red"}))


def test_oversized_images_are_skipped(faces, monkeypatch):
    monkeypatch.setattr(decode.limits, "MAX_PIXELS", 1000)
    put(faces / "small.png", picture(3, (20, 20)))
    pack = packed("folder", faces)
    assert pack.sources.tolist() == ["small.png"]
    assert {why.partition(";")[0] for why in skipped(pack).values()} == {"32 x 32 pixels"}
    assert pack.meta["skipped"] == 5
