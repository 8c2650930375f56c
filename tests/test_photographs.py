"""Whole photographs: faces are set back where they were, what cannot be released is covered, the rest is listed."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from veil import cli
from veil.data import compose
from veil.data.decode import Eyes
from veil.data.decode.crops import Upright, align
from veil.data.faces import Face, Sighting
from veil.errors import InputError
from veil.release import Contract, Release
from veil.workflows.apply import Options, apply

SIDE = 32


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A photograph without fine detail."""
    few = np.random.default_rng(seed).integers(60, 200, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC))


def distance(eyes: Eyes, height: int, width: int) -> np.ndarray:
    """Of each pixel from the middle of the eyes' square, in half sides, the larger of across and down."""
    a, b = np.array([eyes.left_x, eyes.left_y]), np.array([eyes.right_x, eyes.right_y])
    across = (b - a) * 3
    down = np.array([-across[1], across[0]])
    middle = a - across / 3 - 0.42 * down + across / 2 + down / 2
    y, x = np.mgrid[:height, :width]
    offset = np.stack([x, y], -1) - middle
    half = across @ across / 2
    return np.maximum(abs(offset @ across), abs(offset @ down)) / half


@pytest.mark.parametrize("eyes", [Eyes(60, 70, 90, 70), Eyes(70, 60, 90, 80), Eyes(100, 90, 60, 85)])
def test_what_was_cut_out_comes_back_where_it_was(eyes):
    photograph = smooth(160, 150)
    image = Image.fromarray(photograph)
    square = np.asarray(align(Upright(image, *image.size), 96, eyes))
    back = compose.set_back(photograph, [eyes], square[None]).astype(int)
    assert abs(back - photograph).max() <= 4
    assert np.array_equal(back[distance(eyes, 160, 150) > 1.03], photograph[distance(eyes, 160, 150) > 1.03])


def test_nothing_of_a_face_comes_through():
    """Two photographs that differ in the face alone are the same afterwards."""
    eyes, plain = Eyes(60, 60, 90, 60), smooth(160, 150)
    other = plain.copy()
    inside = distance(eyes, 160, 150) < 0.6
    other[inside] = np.random.default_rng(1).integers(0, 256, other[inside].shape)
    release = smooth(SIDE, SIDE, 5)[None]
    one, two = (compose.set_back(photograph, [eyes], release) for photograph in (plain, other))
    assert np.array_equal(one, two)
    assert (one[inside] != plain[inside]).mean() > 0.5


def test_where_squares_overlap_each_pixel_is_of_the_nearer_face():
    photograph = np.full((120, 240, 3), 128, np.uint8)
    eyes = [Eyes(80, 60, 110, 60), Eyes(130, 60, 160, 60)]
    shades = np.random.default_rng(0).permuted(np.tile(np.linspace(-40, 40, SIDE * SIDE), (2, 1)), axis=1)
    faces = (128 + shades).reshape(2, SIDE, SIDE, 1).repeat(3, 3).astype(np.uint8)
    both, first, second = (
        compose.set_back(photograph, [eyes[i] for i in which], faces[list(which)]).astype(int)
        for which in ((0, 1), (0,), (1,))
    )
    near = [distance(each, 120, 240) for each in eyes]
    for own, alone, other in ((0, first, 1), (1, second, 0)):
        where = (near[own] < 0.35) & (near[other] > 0.7)
        assert where.any()
        assert abs(both - alone)[where].max() <= 2


def test_a_photograph_keeps_its_tint_and_grain_about_a_grey_release():
    rng = np.random.default_rng(0)
    photograph = (np.array([150, 110, 80]) + rng.normal(0, 6, (160, 150, 1))).clip(0, 255).astype(np.uint8)
    eyes = Eyes(60, 60, 90, 60)
    back = compose.set_back(photograph, [eyes], np.full((1, SIDE, SIDE), 200, np.uint8)).astype(float)
    inside = back[distance(eyes, 160, 150) < 0.6]
    assert abs(inside.mean(0) - photograph.mean((0, 1))).max() < 4
    assert inside.mean(1).std() == pytest.approx(6, rel=0.2)


def test_what_is_covered_is_averages():
    flat = smooth(100, 100)
    pattern = flat.copy()
    pattern[40:60, 40:60] += (10 * (np.indices((20, 20)).sum(0) % 2)[..., None]).astype(np.uint8)
    box = (36.0, 36.0, 64.0, 64.0)
    one, two = (compose.cover(photograph, [box]).astype(int) for photograph in (flat + np.uint8(5), pattern))
    texture = [np.diff(each[44:56, 44:56], axis=1).std() for each in (one, two)]
    assert texture[1] < texture[0] + 0.5 < 4
    assert np.array_equal(one[:20], flat[:20] + 5)
    assert compose.cover(flat, [(-80.0, 0.0, -60.0, 20.0)]).tolist() == flat.tolist()  # beyond the border


def face(x: float, y: float, apart: float, score: float = 1.0) -> Face:
    return Face(
        left=x - apart, top=y - apart, right=x + 2 * apart, bottom=y + 2 * apart, eyes=Eyes(x, y, x + apart, y),
        score=score,
    )  # fmt: skip


class Marks:
    """Sees what its marks say of photographs of that width: a face for each."""

    name = "marks 1"

    def __init__(self, **faces: list[Face]) -> None:
        self.faces = {int(width.removeprefix("w")): each for width, each in faces.items()}

    def __call__(self, photograph: np.ndarray) -> list[Face]:
        return self.faces.get(photograph.shape[1], [])


MARKS = Marks(
    w150=[face(30, 40, 20), face(100, 90, 20)],
    w151=[face(50, 60, 20), face(110, 30, 10, score=0.3)],
    w152=[face(-8, 40, 20), face(80, 60, 20)],
    w154=[face(40, 60, 25)],
)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two faces; one and a place that may be one; one, and one cut off; nobody; one on its side; a damaged file."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name, width in (("two.png", 150), ("maybe.png", 151), ("sub/cut.jpg", 152), ("nobody.png", 153)):
        exif = Image.Exif()
        exif[271] = "a camera"
        Image.fromarray(smooth(140, width, width)).save(folder / name, exif=exif)
    grey = Image.fromarray(smooth(140, 154, 4)[..., 0])
    exif = Image.Exif()
    exif[274] = 6
    grey.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif, quality=95)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


class Negative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1 - x


@pytest.fixture
def release() -> Release:
    """Negatives of aligned faces in colour."""
    shape = (SIDE, SIDE, 3)
    contract = Contract(kind="images", shape=shape, k=3 * SIDE**2, image=shape, aligned=True)
    return Release(method="mi", config={}, contract=contract, encoder=Negative())


def listed(path: Path) -> dict[str, str]:
    with path.open() as file:
        return {row["source"]: row["reason"] for row in csv.DictReader(file)}


def test_whole_photographs_are_written(album, release, tmp_path):
    out = tmp_path / "out"
    said = []
    made = apply(release, album, out, Options(images=True, faces=MARKS), remark=lambda *words: said.append(words))
    assert made == (5, 1, 2)
    assert listed(tmp_path / "out.unprotected.csv") == {
        "maybe.png": "a place may be a face (score 0.30)", "nobody.png": "no face was found in it",
    }  # fmt: skip
    assert set(listed(tmp_path / "out.skipped.csv")) == {"broken.png"}
    assert any("2 of 5 photographs may hold faces that are unprotected" in words for _, words in said)
    for name in ("two.png", "maybe.png", "nobody.png"):
        with Image.open(out / name) as image:
            assert image.size == np.asarray(Image.open(album / name)).shape[1::-1]
            assert not image.getexif()
    assert np.array_equal(np.asarray(Image.open(out / "nobody.png")), np.asarray(Image.open(album / "nobody.png")))
    with Image.open(out / "turned.jpg") as image:  # upright, without Exif, and grey
        assert (image.size, image.mode, dict(image.getexif())) == ((154, 140), "L", {})
    changes = np.abs(np.asarray(Image.open(out / "two.png"), int) - np.asarray(Image.open(album / "two.png")))
    squares = [distance(each.eyes, 140, 150) < 1.05 for each in MARKS.faces[150]]
    assert changes[~(squares[0] | squares[1])].max() == 0
    assert all(changes[square].max() > 0 for square in squares)


def test_photographs_can_be_named_by_number(album, release, tmp_path):
    plain, out = tmp_path / "plain", tmp_path / "out"
    apply(release, album, plain, Options(images=True, faces=MARKS))
    assert apply(release, album, out, Options(images=True, faces=MARKS, row_numbers=True)) == (5, 1, 2)
    at = {name: str(i) for i, name in enumerate(["broken.png", "maybe.png", "nobody.png", "turned.jpg", "two.png"])}
    assert set(listed(tmp_path / "out.unprotected.csv")) == {at["maybe.png"], at["nobody.png"]}
    assert set(listed(tmp_path / "out.skipped.csv")) == {at["broken.png"]}
    files = {"000001.png": "maybe.png", "000002.png": "nobody.png", "000003.jpg": "turned.jpg", "000004.png": "two.png",
             "000005.jpg": "sub/cut.jpg"}  # fmt: skip
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        number: (plain / name).read_bytes() for number, name in files.items()
    }


def test_a_face_that_is_cut_off_is_covered(album, release, tmp_path):
    apply(release, album, tmp_path / "out", Options(images=True, faces=MARKS))
    out, before = (np.asarray(Image.open(folder / "sub" / "cut.jpg"), int) for folder in (tmp_path / "out", album))
    assert np.abs(out - before)[35:60, :15].mean() > 4 * np.abs(out - before)[110:, 120:].mean()


def test_what_may_be_a_face_is_covered_where_that_is_asked_for(album, release, tmp_path):
    made = apply(release, album, tmp_path / "out", Options(images=True, faces=MARKS, blur_rest=True))
    assert made.exposed == 1
    assert set(listed(tmp_path / "out.unprotected.csv")) == {"nobody.png"}
    out, before = (np.asarray(Image.open(folder / "maybe.png"), int) for folder in (tmp_path / "out", album))
    assert np.abs(out - before)[25:45, 105:125].max() > 0


def test_the_same_in_batches_and_after_a_stop(album, release, tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    options = Options(images=True, faces=MARKS, batch=1)
    apply(release, album, once, Options(images=True, faces=MARKS))

    def stop(done: int, expected: int | None, skipped: int) -> None:
        if done + skipped == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(release, album, twice, options, progress=stop)
    assert apply(release, album, twice, options, resume=True) == (5, 1, 2)
    files = sorted(path.relative_to(once) for path in once.rglob("*.*g"))
    assert [(once / path).read_bytes() for path in files] == [(twice / path).read_bytes() for path in files]
    for kind in ("skipped", "unprotected"):
        assert listed(tmp_path / f"once.{kind}.csv") == listed(tmp_path / f"twice.{kind}.csv")
    with pytest.raises(InputError, match="is not what this run gives"):
        apply(release, album, twice, Options(images=True, faces=MARKS, blur_rest=True), resume=True)


def test_strict_refuses_what_may_be_unprotected(album, release, tmp_path, monkeypatch, capsys):
    (album / "broken.png").unlink()
    monkeypatch.setattr("veil.data.faces.bundled", lambda *, thorough=False: MARKS if thorough else Marks())
    monkeypatch.setattr(Release, "load", lambda *where, **how: release)
    words = ["apply", "release", str(album), str(tmp_path / "out"), "--images", "--faces", "--strict"]
    monkeypatch.setattr("sys.argv", ["veil", *words])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "2 photographs may hold unprotected faces" in capsys.readouterr().err
    assert (tmp_path / "out" / "two.png").exists()


def test_blurring_is_of_whole_photographs():
    with pytest.raises(InputError, match="blur_rest: is of whole photographs"):
        Options(images=True, blur_rest=True)


def test_a_sighting_parts_faces_by_what_can_be_done_with_them():
    small = face(50, 50, 5)
    sighting = Sighting.of([face(10, 10, 8, score=0.3), small, face(20, 20, 30), face(-5, 20, 20)], 100, 100)
    assert [len(each) for each in (sighting.faces, sighting.covered, sighting.uncertain)] == [1, 2, 1]
    assert len(sighting.covering().covered) == 3
