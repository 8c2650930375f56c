"""Pictures that were not cut as a release's training pack was: said once, with what to do about it; else nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from veil import fit
from veil.data import build, framing
from veil.data.pack import Pack
from veil.release import Release
from veil.workflows.apply import apply
from veil.workflows.framing import framing_doubt


def pictures(folder: Path, *sizes: tuple[int, int], each: int = 6) -> Path:
    """PNG files of these widths and heights, half of them of class ``a``."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(each * len(sizes)):
        width, height = sizes[number % len(sizes)]
        label = "ab"[number // len(sizes) % 2]
        (folder / label).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width), np.uint8)).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture
def faces(tmp_path: Path) -> Pack:
    source = pictures(tmp_path / "faces", (40, 40), (50, 50), each=16)
    return build.pack("folder", source, tmp_path / "pack", size=16, settings={"identity": "folder"}, disjoint=False)


@pytest.fixture
def release(faces: Pack) -> Release:
    return fit("leace", faces, private=["identity"], utility="").release


def told(release: Release, source: Path, out: Path) -> list[str]:
    said: list[tuple[str, str]] = []
    apply(release, source, out, remark=lambda kind, words: said.append((kind, words)))
    assert {kind for kind, _ in said} <= {"warning"}
    return [words for _, words in said]


def test_a_pack_and_its_releases_know_the_shapes_of_pictures(faces: Pack, release: Release, tmp_path: Path) -> None:
    expected = {"shape": [1.0, 1.0, 1.0], "short_side": [40.0, 45.0, 50.0]}
    assert faces.meta["pictures"] == expected
    assert Release.load(release.save(tmp_path / "r")).made["pictures"] == expected
    vectors = build.pack("stylised", "identities=8,images=1", tmp_path / "drawn", size=16)
    assert vectors.meta["pictures"] is None


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((45, 45), ""),
        ((40, 50), ""),  # 4 to 5 is as far as it goes
        ((150, 150), ""),
        ((30, 60), "width to height 0.50 (there 1.00), shorter side 30 pixels (there 40 to 50)"),
        ((500, 400), "width to height 1.25 (there 1.00), shorter side 400 pixels (there 40 to 50)"),
        ((9, 9), "width to height 1.00 (there 1.00), shorter side 9 pixels (there 40 to 50)"),
    ],
)
def test_photographs_of_another_shape_or_size_are_told(
    release: Release, tmp_path: Path, size: tuple[int, int], words: str
) -> None:
    said = told(release, pictures(tmp_path / "photos", size), tmp_path / "out.npz")
    if not words:
        assert said == []
        return
    (warning,) = said
    assert warning.startswith(
        "photos: its pictures differ in shape or size from those that the release was fitted on: "
    )
    assert words in warning
    assert "Faces are not looked for: the largest centred square is taken of each" in warning
    assert "\n" not in warning


def test_a_few_odd_pictures_among_many_are_no_matter(release: Release, tmp_path: Path) -> None:
    assert told(release, pictures(tmp_path / "photos", (45, 45), (45, 45), (30, 90)), tmp_path / "out.npz") == []


def test_turned_photographs_count_upright(release: Release, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    image = Image.fromarray(np.zeros((60, 30), np.uint8))
    for number in range(4):
        image.save(tmp_path / "photos" / f"{number}.jpg", exif=exif)
    (warning,) = told(release, tmp_path / "photos", tmp_path / "out.npz")
    assert "width to height 2.00" in warning


def test_packs_that_were_cropped_otherwise_are_told(release: Release, faces: Pack, tmp_path: Path) -> None:
    assert framing_doubt(release, "p", faces) == ""
    tight = build.pack("folder", tmp_path / "faces", tmp_path / "tight", size=16, crop=(0.1, 0.1, 0.9, 0.9))
    wide = build.pack("folder", pictures(tmp_path / "wide", (90, 30)), tmp_path / "p", size=16)
    assert "pack: its images were cropped to (0.1, 0.1, 0.9, 0.9), those that" in framing_doubt(release, "pack", tight)
    assert "pack: its pictures differ in shape" in framing_doubt(release, "pack", wide)
    assert told(release, tmp_path / "p", tmp_path / "out.npz") == [framing_doubt(release, "p", wide)]
    assert framing_doubt(release, "p", replace(wide, meta={})) == ""  # made in memory: nothing is known


def test_the_words_name_the_crop() -> None:
    known = framing.described([[250, 250]])
    words = framing.doubt("x", known, framing.described([[3000, 4000]]), (0.26, 0.26, 0.74, 0.74))
    assert "what lies from 26 to 74 % across and from 26 to 74 % down is taken of each" in words
