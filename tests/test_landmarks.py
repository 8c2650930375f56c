"""Alignment: files of landmarks are read strictly, and packed eyes lie where they should, whatever way the face lay."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from methods_matrix import train
from veil.cli import process
from veil.data import build, stylised
from veil.data.columns import IMAGE_KEYS
from veil.data.decode import EYES, Eyes, Pixels
from veil.data.landmarks import PLACES, read_landmarks
from veil.data.layouts.listing import Item, Listing
from veil.data.pack import Pack
from veil.errors import InputError
from veil.methods import san
from veil.methods.san import sharpness

HEADER = ",".join(("path", *PLACES))


def table(path: Path, eyes: dict[str, Eyes]) -> Path:
    """A file of landmarks."""
    rows = [f"{name},{e.left_x!r},{e.left_y!r},{e.right_x!r},{e.right_y!r}" for name, e in eyes.items()]
    path.write_text("\n".join([HEADER, *rows, ""]))
    return path


def dots(width: int, height: int, eyes: Eyes) -> Image.Image:
    """Two soft bright dots for eyes on grey, a tenth of their distance wide."""
    y, x = np.mgrid[:height, :width].astype(float)
    wide = 0.1 * np.hypot(eyes.right_x - eyes.left_x, eyes.right_y - eyes.left_y)
    out = np.full((height, width), 60.0)
    for a, b in ((eyes.left_x, eyes.left_y), (eyes.right_x, eyes.right_y)):
        out += 180 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * wide**2))
    return Image.fromarray(out.clip(0, 255).astype(np.uint8))


def seen(image: np.ndarray) -> np.ndarray:
    """The places (left and right, across and down) of the dots in an image, in pixels from its corner."""
    grey = image.astype(float).mean(2) if image.ndim == 3 else image.astype(float)
    light = np.maximum(grey - 100, 0)
    y, x = np.mgrid[: len(grey), : len(grey)] + 0.5
    halves = [light * (x < len(grey) / 2), light * (x > len(grey) / 2)]
    return np.array([[(half * x).sum() / half.sum(), (half * y).sum() / half.sum()] for half in halves])


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures of dots of all sizes and turns, in folders; beside them their landmarks."""
    root = tmp_path_factory.mktemp("album")
    rng = np.random.default_rng(0)
    eyes = {}
    for i in range(24):
        name = f"p{i // 4}/{i}.{('png', 'jpg')[i % 2]}"
        width, height = (int(n) for n in rng.integers(120, 400, 2))
        middle = np.array([width, height]) * rng.uniform(0.35, 0.65, 2)
        turn, half = rng.uniform(-1.2, 1.2), rng.uniform(8, 35)
        (ax, ay), (bx, by) = (middle + s * half * np.array([np.cos(turn), np.sin(turn)]) for s in (-1, 1))
        eyes[name] = Eyes(float(ax), float(ay), float(bx), float(by))
        (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        dots(width, height, eyes[name]).save(root / "in" / name, quality=95)
    table(root / "eyes.csv", eyes)
    return root


# The file


def test_a_file_is_read_however_it_was_written(tmp_path):
    path = tmp_path / "eyes.csv"
    lines = [
        "score,right_eye_y,right_eye_x, left_eye_y ,left_eye_x,path",
        "0.9,4,3,2,1,./a/1.png",
        "",
        '0.8, 4.5,3e1,-2,.5,b\\"2"',
        '0.8,4,3,2,1,"c, d.png"',
    ]
    path.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    got = read_landmarks(path)
    assert list(got.eyes) == ["a/1.png", 'b/"2"', "c, d.png"]
    assert got.eyes["a/1.png"] == Eyes(1, 2, 3, 4)
    assert got.of("a/1.png") == got.of("./a/1.png") == got.of("a\\1.png") == (Eyes(1, 2, 3, 4), "")
    assert got.of('b/"2"')[0] == Eyes(0.5, -2, 30, 4.5)
    assert got.of("1.png") == (None, "no row in eyes.csv, which tells where eyes are")


@pytest.mark.parametrize("key", ["path", "File_Name", "image_id", "Source"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_images_are_named_as_in_files_of_labels(tmp_path, key, separator):
    (tmp_path / "eyes.csv").write_text(
        "\n".join(separator.join(row) for row in ((key, *(p.upper() for p in PLACES)), ("jose\u0301.png", *"1234"))),
        "utf-8",
    )
    assert read_landmarks(tmp_path / "eyes.csv").of("jos\u00e9.png") == (Eyes(1, 2, 3, 4), "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (
            f"which,{','.join(PLACES)}\na,1,2,3,4\n",
            f"its header must name the images ({', '.join(IMAGE_KEYS)}), got which, {', '.join(PLACES)}",
        ),
        ("path,left_eye_x\na,1\n", "its header must name the column left_eye_y once, got only path, left_eye_x"),
        (f"{HEADER},path\n", "column 'path' stands there more than once"),
        (f"{HEADER}\n", "must have a row for each image, got none"),
        (f"{HEADER}\na,1,2,3,4\nb,1,2,x,4\n", "row 1: right_eye_x must be a finite number of pixels, got 'x'"),
        (f"{HEADER}\na,1,nan,3,4\n", "row 0: left_eye_y must be a finite number of pixels, got 'nan'"),
        (f"{HEADER}\na,1,2,3,-inf\n", "row 0: right_eye_y must be a finite number of pixels, got '-inf'"),
        (f"{HEADER}\na,1,2\n", "line 2 must have 5 cells as the header, got 3"),
        (f"{HEADER}\n ,1,2,3,4\n", "row 0: path must name an image, got nothing"),
        (f"{HEADER}\na,1.5,2,1.5,2\n", "row 0: the eyes must lie at two places, got 1.5, 2 for both"),
        (f"{HEADER}\na,1,2,3,4\n\n./a,1,2,3,4\n", "row 1: path must stand there once, got 'a' as in row 0"),
        (
            f"{HEADER}\na,3,2,1,2\nb,3,2,1,2\nc,1,2,3,4\n",
            "left_eye must be the eye on the left of the picture, got one to the right of right_eye in 2 of 3 rows; "
            "exchange the two",
        ),
    ],
)
def test_a_malformed_file_is_one_line_and_nothing_is_written(tmp_path, text, words):
    path = tmp_path / "eyes.csv"
    path.write_text(text)
    (tmp_path / "in").mkdir()
    dots(60, 60, Eyes(20, 25, 40, 25)).save(tmp_path / "in" / "a.png")
    with pytest.raises(InputError) as caught:
        build.pack("folder", tmp_path / "in", tmp_path / "new" / "pack", landmarks=path)
    assert str(caught.value) == f"{path}: {words}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["eyes.csv", "in"]


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "picture.csv").write_bytes(b"\xff\xd8\xff")
    for path, words in ((tmp_path / "none.csv", "no such file"), (tmp_path / "picture.csv", "must be UTF-8 text")):
        with pytest.raises(InputError, match=f"{path.name}: .*cannot be read.*{words}"):
            read_landmarks(path)


# Packing


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (48, 3), (128, 1)])
def test_packed_eyes_lie_at_their_places(album, tmp_path, size, channels):
    pack = build.pack(
        "folder", album / "in", tmp_path / "pack", size=size, channels=channels, landmarks=album / "eyes.csv"
    )
    assert pack.x.shape == (24, size, size, 3)[: 3 + (channels == 3)]
    for source, image in zip(pack.sources, pack.x, strict=True):
        assert np.abs(seen(image) - size * np.array(EYES)).max() < 1, source
    assert pack.meta["skipped"] == 0


def test_the_pack_says_that_it_is_aligned(album, tmp_path):
    options = {"size": 32, "landmarks": album / "eyes.csv"}
    pack = build.pack("folder", album / "in", tmp_path / "a", **options)
    meta = json.loads((tmp_path / "a" / "pack.json").read_text())
    assert (meta["aligned"], meta["crop"]) == ([[1 / 3, 0.42], [2 / 3, 0.42]], None)
    assert pack.framing == {"crop": None, "aligned": True, "columns": ()}
    plain = build.pack("folder", album / "in", tmp_path / "b", size=32, crop=(0, 0, 0.5, 1))
    assert plain.meta["aligned"] is None
    assert plain.framing == {"crop": (0, 0, 0.5, 1), "aligned": False, "columns": ()}
    assert replace(plain, meta={}).framing == {
        "crop": None,
        "aligned": False,
        "columns": (),
    }  # a pack of an earlier version, say
    # The data's fingerprint tells landmarks from none, and from others.
    eyes = read_landmarks(album / "eyes.csv").eyes
    moved = table(tmp_path / "moved.csv", {n: replace(e, left_y=e.left_y + 2) for n, e in eyes.items()})
    others = [build.pack("folder", album / "in", tmp_path / n, size=32, landmarks=f) for n, f in
              (("c", album / "eyes.csv"), ("d", moved))]  # fmt: skip
    assert others[0].fingerprint == pack.fingerprint
    assert len({pack.fingerprint, plain.fingerprint, others[1].fingerprint}) == 3


def test_images_without_usable_landmarks_are_skipped_and_named(album, tmp_path):
    eyes = dict(read_landmarks(album / "eyes.csv").eyes)
    names = list(eyes)
    del eyes[names[3]]
    eyes[names[4]] = Eyes(10, 10, 5000, 10)
    eyes[names[5]] = Eyes(10, 10, 10.3, 10)
    eyes["p9/none.png"] = eyes["p9/gone.png"] = Eyes(1, 1, 2, 1)
    pack = build.pack("folder", album / "in", tmp_path / "pack", size=16, landmarks=table(tmp_path / "e.csv", eyes))
    assert (len(pack), pack.meta["skipped"]) == (21, 3)
    with (tmp_path / "pack" / "skipped.csv").open() as file:
        reasons = {row["source"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons.keys() == set(names[3:6])
    assert reasons[names[3]] == "no row in e.csv, which tells where eyes are"
    with Image.open(album / "in" / names[4]) as image:
        width, height = image.size
    assert reasons[names[4]] == f"its right eye 5000, 10 lies outside of its {width} x {height} pixels"
    assert reasons[names[5]] == "its eyes are 0.3 pixels apart; a third of a pixel is the least"
    assert "2 rows of 'e.csv' name no image." in pack.meta["notes"]
    other = table(tmp_path / "o.csv", {"in/p0/0.png": Eyes(1, 1, 9, 1)})
    with pytest.raises(InputError, match=r"nothing could be packed: 24 skipped, the first 'p0/0.png': no row in o.csv"):
        build.pack("folder", album / "in", tmp_path / "other", size=16, landmarks=other)
    assert not (tmp_path / "other").exists()


def test_landmarks_take_the_place_of_a_layouts_crops(tmp_path):
    eyes = Eyes(30, 50, 60, 40)
    dots(100, 100, eyes).save(tmp_path / "a.png")
    items = iter([Item("a.png", tmp_path / "a.png", crop=Pixels(0, 0, 9, 9))])
    listing = Listing(items=items, count=1, attributes=(), crop=(0, 0, 0.1, 0.1))
    plan = build.Plan(size=32, landmarks=table(tmp_path / "e.csv", {"a.png": eyes}))
    made = build.write(listing, tmp_path / "pack", layout="test", plan=plan)
    assert np.abs(seen(made.x[0]) - 32 * np.array(EYES)).max() < 1
    assert made.framing == {"crop": None, "aligned": True, "columns": ()}


def test_what_cannot_be_aligned_is_refused(album, tmp_path):
    with pytest.raises(InputError, match=r"landmarks: a face is aligned or cropped, got .*eyes.csv and the crop \(0, "):
        build.pack("folder", album / "in", tmp_path / "pack", landmarks=album / "eyes.csv", crop=(0, 0, 1, 1))
    with pytest.raises(InputError, match=r"only encoded images are aligned, and '.*' is an array"):
        build.pack("stylised", "identities=4", tmp_path / "pack", size=16, landmarks=album / "eyes.csv")
    np.savez(tmp_path / "in.npz", vectors=np.ones((4, 3), np.float32))
    with pytest.raises(InputError, match="only encoded images are aligned, and '0' is an array"):
        build.pack("embeddings", tmp_path / "in.npz", tmp_path / "pack", landmarks=album / "eyes.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["in.npz"]


def test_the_command_aligns(album, tmp_path, monkeypatch, capsys):
    def command(*options: object) -> tuple[int, str]:
        arguments = ["veil", "pack", "folder", album / "in", tmp_path / "pack", "--size", "48", *options]
        monkeypatch.setattr(sys, "argv", [str(a) for a in arguments])
        monkeypatch.setattr(process.signal, "signal", lambda *_: None)
        with pytest.raises(SystemExit) as caught:
            process.main()
        shown = capsys.readouterr()
        return int(caught.value.code or 0), shown.out + shown.err

    status, shown = command("--landmarks", album / "eyes.csv", "--crop", "0,0,1,1")
    assert (status, shown.count("\n"), "a face is aligned or cropped" in shown) == (2, 1, True)
    bad = tmp_path / "bad.csv"
    bad.write_text(f"{HEADER}\na,1,2,1,2\n")
    status, shown = command("--landmarks", bad)
    assert (status, shown.count("\n"), "bad.csv: row 0: the eyes must lie at two places" in shown) == (2, 1, True)
    status, shown = command("--landmarks", album / "eyes.csv")
    assert (status, "24 images" in shown) == (0, True)
    for image in Pack.open(tmp_path / "pack").x:
        assert np.abs(seen(image) - 48 * np.array(EYES)).max() < 1


# Average faces


def test_shaken_faces_are_sharp_again_once_aligned(tmp_path):
    """Stylised faces turned, scaled and shifted at random, and the same eyes' places in each: san takes them then."""
    rng = np.random.default_rng(0)
    size = 64
    faces = stylised.population(20, 3, seed=1)
    names = [faces.names(row) for row in range(len(faces))]
    middle = np.array([size / 2, size / 2])
    # All faces look about straight ahead: eyes 0.215 half widths beside the middle and 0.03 above it.
    straight = middle + size / 2 * np.array([[-0.215, -0.03], [0.215, -0.03]])
    eyes, lines = {}, ["file,identity,gender"]
    for row, image in enumerate(stylised.render(faces, size=size, threads=1)):
        turn, grow, shift = rng.uniform(-0.4, 0.4), np.exp(rng.uniform(-0.4, 0.4)), rng.uniform(-12, 12, 2)
        way = grow * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        back = np.linalg.inv(way)
        start = middle - back @ (middle + shift) + size  # the picture is padded by its own size
        shaken = Image.fromarray(np.pad(image, size, mode="edge")).transform(
            (size, size), Image.Transform.AFFINE, (*back[0], start[0], *back[1], start[1]),
            resample=Image.Resampling.BICUBIC,
        )  # fmt: skip
        (tmp_path / "in").mkdir(exist_ok=True)
        shaken.save(tmp_path / "in" / f"{row}.png")
        places = (straight - middle) @ way.T + middle + shift - 0.5
        eyes[f"{row}.png"] = Eyes(*places.ravel().tolist())
        lines.append(f"{row}.png,{names[row]['identity']},{names[row]['gender']}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    options = {"size": 32, "labels": tmp_path / "labels.csv"}
    before = build.pack("folder", tmp_path / "in", tmp_path / "before", **options)
    after = build.pack(
        "folder", tmp_path / "in", tmp_path / "after", **options, landmarks=table(tmp_path / "eyes.csv", eyes)
    )
    config = san.Config(batch=8, steps_classifier=1, steps_matcher=1, steps=1)
    limit = config.aligned
    assert sharpness(before.x, before.rows("protect")) < limit < sharpness(after.x, after.rows("protect"))
    with pytest.raises(InputError, match=r"faces must be aligned, .*pack them with landmarks of the eyes"):
        train("san", config, before)
    release = train("san", config, after)
    assert (release.contract.aligned, release.contract.crop) == (True, None)
