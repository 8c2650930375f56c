"""Bundles: what `veil apply` releases comes out of a folder that needs numpy, Pillow and onnxruntime alone."""

from __future__ import annotations

import csv
import io
import json
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import faces_pack, vectors_pack
from methods_matrix import brief, train, use_of
from veil.data import stylised
from veil.data.landmarks import PLACES
from veil.data.pack import Pack
from veil.engine import Run
from veil.errors import InputError
from veil.release import Release, bundle
from veil.workflows.apply import Options, apply

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ALONE = (
    "import runpy, sys; "
    "sys.modules |= dict.fromkeys(('veil', 'torch', 'simplejpeg', 'scipy', 'sklearn', 'pyarrow', 'onnx')); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""Runs a script where none of Veil, nor of what else it needs, can be imported."""
CROP = (0.1, 0.05, 0.9, 0.95)


@cache
def made(method: str, kind: str = "images", channels: int = 1, *, aligned: bool = False, **settings: object) -> Release:
    """A release after a step or two, of faces that were cropped or aligned."""
    pack = vectors_pack()
    if kind == "images":
        pack = faces_pack()
        x = pack.x if channels == 1 else np.repeat(np.asarray(pack.x)[..., None], 3, axis=3)
        framing = {"crop": None if aligned else list(CROP), "aligned": [[1 / 3, 0.42], [2 / 3, 0.42]] * aligned or None}
        pack = replace(pack, x=x, meta={**pack.meta, **framing})
    run = Run(seed=1, precision="fp32")
    return train(method, brief(method, None, **settings), pack, utility=use_of(method, kind), run=run)


def released(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The bundle's script, in a folder of its own without Veil on any path."""
    command = [sys.executable, "-I", "-c", ALONE, folder / "release.py", *arguments]
    return subprocess.run([str(each) for each in command], capture_output=True, text=True, cwd=folder.parent)


def told(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Status, stdout and stderr of the script within this process, which takes no second."""
    script = str(folder / "release.py")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", [script, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
    assert isinstance(ended.value.code, int)
    return ended.value.code, *capsys.readouterr()


def photographs(folder: Path) -> Path:
    """New pictures in the forms that photographs have; some in a folder inside, one that is none."""
    (folder / "inside").mkdir(parents=True)
    faces = stylised.population(28, 1, 7)
    rng = np.random.default_rng(0)

    def picture(i: int, width: int, height: int) -> Image.Image:
        face = Image.fromarray(stylised.render(faces, [i], size=120, channels=3)[0]).resize((width, height))
        grain = rng.normal(0, 8, (height, width, 3))
        return Image.fromarray((np.asarray(face) + grain).clip(0, 255).astype(np.uint8))

    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        picture(turn, 301 + turn, 203).save(folder / f"turned-{turn}.jpg", exif=exif, quality=88)
        picture(turn + 8, 83, 61 + turn).save(folder / "inside" / f"turned-{turn}.png", exif=exif)
    for sampling in range(3):
        picture(17 + sampling, 1203, 901).save(folder / f"large-{sampling}.jpg", subsampling=sampling, quality=90)
    picture(20, 131, 173).save(folder / "progressive.JPG", "JPEG", progressive=True)
    picture(21, 250, 250).convert("L").save(folder / "grey.jpeg")
    picture(22, 20, 24).save(folder / "tiny.jpg")
    picture(23, 90, 80).convert("CMYK").save(folder / "print.jpg")
    picture(24, 90, 80).quantize(50).save(folder / "palette.png", transparency=3)
    Image.fromarray(np.asarray(picture(25, 70, 95).convert("L")).astype(np.uint16) * 251).save(folder / "deep.png")
    seen_through = picture(26, 66, 99)
    seen_through.putalpha(seen_through.convert("L"))
    seen_through.save(folder / "inside" / "transparent.png")
    seen_through.convert("LA").save(folder / "both.png")
    picture(27, 90, 80).convert("1").save(folder / "two.png")
    (folder / "damaged.png").write_bytes((folder / "palette.png").read_bytes()[:300])
    for name in ("inside/other.webp", "inside/notes.txt", ".hidden"):
        (folder / name).write_bytes(b"RIFF")
    return folder


def eyes_of(folder: Path) -> Path:
    """A file of eyes somewhere in every picture but one, far apart or near, level or not."""
    path = folder.with_suffix(".csv")
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", *PLACES])
        for picture in sorted(folder.rglob("*.*")):
            if picture.suffix in (".JPG", ".webp", ".txt", "") or picture.name == ".hidden":
                continue
            with Image.open(picture) as image:
                turn = image.getexif().get(0x0112, 1) if "turned" in picture.name else 1
                width, height = image.size[::-1] if turn > 4 else image.size
            x, y, way = 0.3 * width, rng.uniform(0.3, 0.6) * height, rng.uniform(0.08, 0.5) * width
            name = picture.relative_to(folder).as_posix()
            rows.writerow([name, x, y, x + way, y + rng.uniform(-0.2, 0.2) * way])
    return path


@pytest.mark.parametrize(
    ("make", "tolerance"),
    [
        (lambda: made("aia"), 1e-5),
        (lambda: made("deep", noise=0.5), 1e-5),
        (lambda: made("deep", noise=0.5, aligned=True), 1e-5),
        (lambda: made("leace", channels=3), 1e-5),
        (lambda: made("leace", channels=3, aligned=True), 1e-5),
        (lambda: made("substitution"), 0.0),
        (lambda: made("san"), 1 / 255 + 1e-7),
    ],
    ids=["grey", "noise", "noise, aligned", "colour", "colour, aligned", "drawn", "pictures out"],
)
def test_photographs_are_released_as_veil_does(tmp_path, make, tolerance):
    release, photos = make(), photographs(tmp_path / "photos")
    eyes = eyes_of(photos) if release.contract.aligned else None
    folder = release.export(tmp_path / "bundle")
    apply(release, photos, tmp_path / "veil.npz", Options(landmarks=eyes))
    with np.load(tmp_path / "veil.npz") as wanted:
        by_name = dict(zip(wanted["source"].tolist(), wanted["releases"], strict=True))
    done = released(folder, photos, tmp_path / "out.npy", *(["--eyes", eyes] if eyes else []))
    with (tmp_path / "out.names.csv").open(newline="") as file:
        names = [row["source"] for row in csv.DictReader(file)]
    got = np.load(tmp_path / "out.npy")
    assert len(names) == len(got) == len(by_name) == (27 if eyes else 28)
    assert set(names) == set(by_name)
    assert done.returncode == 1
    assert done.stdout == f"{tmp_path / 'out.npy'}: {len(names)} releases, {31 - len(names)} left out\n"
    assert re.search(r"^damaged\.png: left out \(.+\)$", done.stderr, re.MULTILINE)
    assert "inside/other.webp: left out (is not read: its name must end in .jpg, .jpeg, .png)" in done.stderr
    assert ("progressive.JPG: left out (has no row in photos.csv)" in done.stderr) == bool(eyes)
    assert len(done.stderr.splitlines()) == 31 - len(names)
    values = got.reshape(len(got), -1) / np.float32(255 if got.dtype == np.uint8 else 1)
    wanted_rows = np.stack([by_name[name] for name in names])
    assert np.abs(values - wanted_rows).max() <= tolerance
    assert len(np.unique(wanted_rows.round(4), axis=0)) > 2  # they differ from each other by far more


def test_what_the_network_sees_is_what_veil_decodes(tmp_path):
    """To the pixel, with one library of Pillow; sampled by the check, too."""
    from veil.data import decode
    from veil.data.landmarks import read_landmarks
    from veil.release.bundle.script import Network

    photos = photographs(tmp_path / "photos")
    for name in ("damaged.png", "inside/other.webp", "inside/notes.txt", ".hidden"):
        (photos / name).unlink()
    eyes = read_landmarks(eyes_of(photos)).eyes
    for number, release in enumerate((made("aia"), made("leace", channels=3), made("deep", aligned=True, noise=0.5))):
        network = Network(release.export(tmp_path / f"{number}"))
        c = release.contract
        for path in sorted(photos.rglob("*.*")):
            at = eyes.get(path.relative_to(photos).as_posix())
            if c.aligned and at is None:
                continue
            wanted = decode.decode(path.read_bytes(), c.shape[0], 3 if len(c.shape) == 3 else 1, c.crop,
                                   at if c.aligned else None)  # fmt: skip
            places = (at.left_x, at.left_y, at.right_x, at.right_y) if c.aligned and at else None
            np.testing.assert_array_equal(network.pixels(path, places), wanted, err_msg=path.name)


@pytest.mark.parametrize(
    "make",
    [
        lambda: made("template", "vectors", noise=0.5),
        lambda: made("substitution", "vectors"),
        lambda: made("leace", "vectors"),
    ],
    ids=["noise", "drawn", "plain"],
)
def test_vectors_are_released_as_veil_does(tmp_path, make):
    release = make()
    folder = release.export(tmp_path / "bundle")
    x = np.random.default_rng(0).normal(size=(600, *release.contract.shape))
    x[:, 3] = np.where(x[:, 3] < 0, -0.0, x[:, 3])
    np.save(tmp_path / "in.npy", x)
    done = released(folder, tmp_path / "in.npy", tmp_path / "out.npy")
    assert (done.returncode, done.stderr) == (0, "")
    wanted = release.transform(x.astype(np.float32))
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), wanted, atol=1e-5)
    with (tmp_path / "out.names.csv").open() as file:
        assert file.read().split() == ["source", *map(str, range(600))]


def test_what_does_not_fit_is_one_line(tmp_path, capsys):
    vectors, photos = made("template", "vectors", noise=0.5), photographs(tmp_path / "photos")
    folder = vectors.export(tmp_path / "v")
    pictures = made("deep", noise=0.5, aligned=True).export(tmp_path / "p")
    eyes, header = eyes_of(photos), ",".join(["path", *PLACES]) + "\n"
    np.save(tmp_path / "one.npy", np.float32(1))
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "wide.npy", np.zeros((2, 99), np.float32))
    np.save(tmp_path / "nan.npy", np.full((2, 16), np.nan, np.float32))
    np.save(tmp_path / "zero.npy", np.zeros((2, 16), np.float32))
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    out = tmp_path / "out.npy"
    for bundled, words, *arguments in (
        (folder, "wide.npy: must be float32 (n, 16), got float32 (2, 99)", tmp_path / "wide.npy", out),
        (folder, "nan.npy: vectors must be finite", tmp_path / "nan.npy", out),
        (folder, "zeros alone", tmp_path / "zero.npy", out),
        (folder, "takes an array", photos, out),
        (folder, "object.npy: ", tmp_path / "object.npy", out),
        (folder, "one.npy: must hold rows", tmp_path / "one.npy", out),
        (folder, "text.npy: ", tmp_path / "text.npy", out),
        (folder, "none.npy: No such file", tmp_path / "none.npy", out),
        (folder, "an array is released alone", tmp_path / "zero.npy", tmp_path / "nan.npy", out),
        (folder, "its folder does not exist", tmp_path / "zero.npy", tmp_path / "no" / "out.npy"),
        (folder, "and then OUT.npy", tmp_path / "zero.npy"),
        (folder, "is there already", tmp_path / "nan.npy", tmp_path / "wide.npy"),
        (pictures, "asks for --eyes", photos, out),
        (pictures, "none.jpg: does not exist", tmp_path / "none.jpg", out, "--eyes", eyes),
        (pictures, "two pictures have this name", photos, photos, out, "--eyes", eyes),
        (pictures, "eyes.csv: No such file", photos, out, "--eyes", tmp_path / "none" / "eyes.csv"),
        (pictures, "eyes.csv: must have the columns path, left_eye_x", photos, out, "--eyes", text(tmp_path, "file,x")),
        (pictures, "eyes.csv: could not convert", photos, out, "--eyes", text(tmp_path, header + "a.jpg,1,2,3,four")),
    ):
        status, said, line = told(bundled, capsys, *arguments)
        assert (status, said) == (2, ""), line
        assert words in line
        assert len(line.splitlines()) == 1, line
        assert not out.exists()
    (tmp_path / "none").mkdir()
    ended = told(pictures, capsys, tmp_path / "none", out, "--eyes", eyes)
    assert ended == (2, "", f"{out}: nothing was released, 0 left out\n")


def text(folder: Path, words: str) -> Path:
    path = folder / f"{len(words)}" / "eyes.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(words + "\n")
    return path


@pytest.mark.parametrize(
    "make",
    [lambda: made("deep", noise=0.5), lambda: made("san"), lambda: made("substitution", "vectors")],
    ids=["noise", "pictures out", "drawn"],
)
def test_the_check_tells_a_bundle_that_works_from_one_that_does_not(tmp_path, make):
    folder = make().export(tmp_path / "bundle")
    done = released(folder, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    pictures = "pictures: at most 0 of 255 levels apart (1 is allowed)\n" * bool([*(folder / "check").glob("*.png")])
    assert re.fullmatch(re.escape(pictures) + r"releases: at most \S+ apart \(\de[-+]0[05] is allowed\)\n", done.stdout)

    def changed(name: str, change: object) -> int:
        other = tmp_path / "other"
        shutil.copytree(folder, other)
        array = np.load(other / name)
        np.save(other / name, change(array))
        status = released(other, "--check").returncode
        shutil.rmtree(other)
        return status

    byte = np.load(folder / "check" / "releases.npy").dtype == np.uint8
    assert changed("check/releases.npy", lambda r: r + np.array(2 if byte else 1e-3, r.dtype) * (r < 100)) == 1
    assert changed("check/inputs.npy", lambda x: x[::-1]) == 1
    (folder / "check" / "releases.npy").unlink()
    done = released(folder, "--check")
    assert (done.returncode, done.stderr) == (2, f"{folder / 'check' / 'releases.npy'}: No such file or directory\n")


def test_without_its_secret_nothing_is_released(tmp_path, capsys):
    folder = made("template", "vectors", noise=0.5).export(tmp_path / "bundle")
    drawn = made("substitution", "vectors").export(tmp_path / "drawn")
    other = (drawn / "secret.npz").read_bytes()
    for bundled, secret, words in (
        (folder, None, "No such file"),
        (folder, b"", "secret.npz: "),
        (folder, other, "must be this release's secret, got {'draw_key': "),
        (drawn, (folder / "secret.npz").read_bytes(), "must be this release's secret"),
    ):
        (bundled / "secret.npz").unlink()
        if secret is not None:
            (bundled / "secret.npz").write_bytes(secret)
        status, said, line = told(bundled, capsys, "--check")
        assert (status, said) == (2, "")
        assert words in line
        assert len(line.splitlines()) == 1, line
        (bundled / "secret.npz").write_bytes(b"")
    (folder / "release.onnx").write_bytes(b"none")
    status, _, line = told(folder, capsys, "--check")
    assert status == 2
    assert re.fullmatch(r"\S+release\.onnx: .+\n", line)


def test_metadata_say_what_the_contract_says(tmp_path):
    import onnxruntime

    for release in (made("deep", noise=0.5), made("leace", channels=3, aligned=True), made("template", "vectors")):
        path = release.export(tmp_path / release.method, force=True)
        session = onnxruntime.InferenceSession(str(path / "release.onnx"), providers=["CPUExecutionProvider"])
        about = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
        c = release.contract
        assert re.fullmatch("[0-9a-f]{64}", about["fingerprint"])
        assert about["fingerprint"] == release.fingerprint
        assert (about["method"], about["kind"], tuple(about["shape"])) == (release.method, c.kind, c.shape)
        assert about["output"] == {"kind": "vectors", "shape": [c.k]}
        assert about["secret"] == ["field"] * bool(c.noise)
        if c.kind == "images":
            assert (about["size"], about["channels"]) == (c.shape[0], 3 if len(c.shape) == 3 else 1)
            assert about["crop"] == (None if c.aligned else list(CROP))
            assert about["eyes"] == ([[1 / 3, 0.42], [2 / 3, 0.42]] if c.aligned else None)
        page = (path / "README.md").read_text()
        assert about["fingerprint"] in page
        assert max(map(len, page.splitlines())) <= 120
        assert "exit status 2." in page
        assert ("WebP" in page) == (c.kind == "images")
        assert ("secret.npz" in page) == bool(c.noise)
        assert ("--eyes" in page) == c.aligned


def test_arrays_of_pictures_that_are_not_square(tmp_path):
    pack = faces_pack()
    wide = Pack.from_arrays(np.asarray(pack.x)[:, 4:28], {name: pack.label(name) for name in ("gender", "identity")})
    release = train("leace", brief("leace", None), wide, run=Run(seed=1, precision="fp32"))
    folder = release.export(tmp_path / "bundle")
    np.save(tmp_path / "in.npy", wide.x[:9])
    assert released(folder, tmp_path / "in.npy", tmp_path / "out.npy").returncode == 0
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), release.transform(wide.x[:9]), atol=1e-4)
    assert not list((folder / "check").glob("*.png"))


def test_a_network_that_gives_something_else_is_not_written(tmp_path, monkeypatch):
    release = made("leace", "vectors")
    true = Release.transform
    monkeypatch.setattr(Release, "transform", lambda self, x: true(self, x) + np.float32(0.01))
    with pytest.raises(InputError, match="ONNX Runtime gives other releases") as caught:
        release.export(tmp_path / "bundle")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_script_is_the_file_that_veil_tests():
    from veil.release.bundle import script

    assert Path(script.__file__) == bundle._SOURCE
    wanted = {"__future__", "argparse", "collections", "contextlib", "csv", "hashlib", "json", "math", "pathlib", "sys"}
    imported = re.findall(
        r"^(?:from|import) ([a-zA-Z_]+)", io.StringIO(bundle._SOURCE.read_text()).read(), re.MULTILINE
    )
    assert set(imported) == {*wanted, "typing", "numpy", "onnxruntime", "PIL"}
