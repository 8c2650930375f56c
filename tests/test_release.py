"""Releases: what is saved is loaded, what is damaged is refused, nothing private ships, and noise follows the key."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import math
import os
import pickle
import shutil
import stat
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from conftest import faces_pack, vectors_pack
from methods_matrix import EVERY, KEY, brief, train, use_of
from veil import files
from veil.data.pack import Pack, flat
from veil.engine import Run
from veil.errors import InputError
from veil.methods import METHODS
from veil.methods.base import input_release
from veil.nn.nets import to_input
from veil.release import Release
from veil.release import folder as release_folder
from veil.release.beside import key_path, new_key, read_key_file
from veil.release.contract import Contract
from veil.release.draws import keyed_uniform
from veil.workflows.fit import fit

CROP = (0.1, 0.2, 0.9, 1.0)


@cache
def framed_pack() -> Pack:
    """Faces that say how they were cut from their pictures."""
    pack = faces_pack()
    return replace(pack, meta={**pack.meta, "crop": list(CROP), "aligned": [[1 / 3, 0.42], [2 / 3, 0.42]]})


@cache
def made(method: str, preset: str | None = None, kind: str = "images", **settings: object) -> Release:
    """A release of any method after a step or two."""
    pack = framed_pack() if kind == "images" else vectors_pack()
    base = made("aia", "paper", kind) if METHODS[method].takes_base else None
    run = Run(seed=1, precision="fp32")
    return train(method, brief(method, preset, **settings), pack, utility=use_of(method, kind), run=run, base=base)


def noisy() -> Release:
    return made("deep", noise=0.5)


def inputs(release: Release, n: int = 40) -> np.ndarray:
    return (faces_pack() if release.contract.kind == "images" else vectors_pack()).x[:n]


def one_line(caught: pytest.ExceptionInfo[InputError], *words: str) -> None:
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# Every method keeps the contract


@pytest.mark.parametrize(("method", "preset", "kind"), EVERY)
def test_every_method_keeps_the_contract(tmp_path, method, preset, kind):
    release = made(method, preset, kind)
    pack = faces_pack() if kind == "images" else vectors_pack()
    assert (release.method, release.contract.kind) == (method, kind)
    assert release.contract.shape == pack.x.shape[1:]
    framing = (CROP, True) if kind == "images" else (None, False)
    assert (release.contract.crop, release.contract.aligned) == framing
    assert release.made["private"] == ["gender"]
    assert release.made["data"] == pack.fingerprint
    out = release.transform(inputs(release))
    assert (out.dtype, out[0].shape) == (
        (np.float32, (release.contract.k,)) if release.contract.image is None else (np.uint8, release.contract.image)
    )
    assert len(out) == 40
    assert np.isfinite(out).all()
    if not release.contract.support:
        assert out.std(0).max() > 0  # it depends on the input
    else:
        codes = release.codes(inputs(release))
        table = release.encoder.substitutes.numpy()
        assert len(table) == release.contract.support
        assert (out == table[codes]).all()
    if release.contract.feature_map is not None:
        assert math.prod(release.contract.feature_map) == release.contract.k
    assert len(release.transform(inputs(release)[:0])) == 0

    again = Release.load(release.save(tmp_path / "r", with_decoder=True))
    assert again.contract == release.contract
    for name in ("method", "config", "made"):
        assert getattr(again, name) == json.loads(json.dumps(getattr(release, name)))
    assert again.key == release.key == (KEY if release.contract.keyed else None)
    assert (again.transform(inputs(release)) == out).all()
    assert (release.decoder is None) == (METHODS[method].algorithm.build_decoder is None)
    if release.decoder is not None:
        assert (again.redraw(out) == release.redraw(out)).all()
    assert (release.classifier is None) == (METHODS[method].algorithm.build_classifier is None)
    if release.classifier is not None:
        read, once_more = release.predict(out), again.predict(out)
        assert {name: p.shape for name, p in read.items()} == {"smile": (40, 2)}
        assert all((once_more[name] == p).all() for name, p in read.items())
    assert not again.encoder.training


def test_save_leaves_nothing_else_and_load_takes_a_string(tmp_path):
    noisy().save(str(tmp_path / "r"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r", "r.key"]
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["release.json", "weights.safetensors"]
    assert Release.load(str(tmp_path / "r"), key=str(tmp_path / "r.key")).key == KEY


def test_releases_from_before_alignment_load(tmp_path):
    path = saved(tmp_path)
    contract = dict(card(path)["contract"])
    assert contract.pop("aligned") is True
    edit(path, contract=contract)
    again = Release.load(path)
    assert again.contract == replace(made("aia", "paper").contract, aligned=False)


def test_decoder_ships_only_when_asked_for(tmp_path):
    release = noisy()
    release.save(tmp_path / "without")
    again = Release.load(tmp_path / "without")
    assert again.decoder is None
    assert b"decoder" not in (tmp_path / "without" / "weights.safetensors").read_bytes()
    with pytest.raises(InputError, match="no decoder") as caught:
        again.redraw(again.transform(inputs(release)))
    one_line(caught)
    release.save(tmp_path / "with", with_decoder=True)
    assert b"decoder" in (tmp_path / "with" / "weights.safetensors").read_bytes()


def test_a_key_that_is_there_is_kept_unless_forced(tmp_path):
    """Who loses it cannot make releases again that match those that are out."""
    key_path(tmp_path / "r").write_bytes(b"k" * 32)
    with pytest.raises(InputError, match="holds another key") as caught:
        noisy().save(tmp_path / "r")
    one_line(caught, "r.key")
    assert not (tmp_path / "r").exists()
    assert key_path(tmp_path / "r").read_bytes() == b"k" * 32
    noisy().save(tmp_path / "r", force=True)
    assert Release.load(tmp_path / "r").key == KEY
    noisy().save(tmp_path / "s")
    shutil.rmtree(tmp_path / "s")
    noisy().save(tmp_path / "s")  # its own


def test_existing_folder_is_kept_unless_forced(tmp_path):
    path = made("aia", "paper").save(tmp_path / "r")
    before = (path / "release.json").read_bytes()
    with pytest.raises(InputError, match="already exists") as caught:
        noisy().save(path)
    one_line(caught, str(path))
    assert (path / "release.json").read_bytes() == before
    assert not key_path(path).exists()
    noisy().save(path, force=True)
    assert Release.load(path).contract.noise == 0.5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r", "r.key"]


def test_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match="No space"):
        noisy().save(tmp_path / "r")
    assert [p.name for p in tmp_path.iterdir()] == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["old", "new", "key"])
def test_a_replacement_that_fails_leaves_the_old_release_and_its_key(tmp_path, monkeypatch, error, where):
    path = noisy().save(tmp_path / "r")
    before = (path / "release.json").read_bytes()
    rename, replace_file, seen = Path.rename, Path.replace, []

    def renamed(self, target):
        seen.append(self)
        if len(seen) == {"old": 1, "new": 2}.get(where):
            raise error
        return rename(self, target)

    def replaced(self, target):
        if where == "key":
            raise error
        return replace_file(self, target)

    monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(Path, "replace", replaced)
    other = replace(noisy(), key=b"k" * 32, made={"other": True})
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        other.save(path, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r", "r.key"]
    assert (path / "release.json").read_bytes() == before
    assert Release.load(path).key == KEY
    monkeypatch.undo()
    other.save(path, force=True)
    assert Release.load(path).key == b"k" * 32
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r", "r.key"]


def test_a_release_that_takes_anothers_place_is_never_without_its_key(tmp_path, monkeypatch):
    """Whoever is killed before, in or after the exchange leaves a release that loads with the key that is there."""
    path = noisy().save(tmp_path / "r")
    publish, loaded = release_folder.publish, []

    def published(folder, target):
        loaded.append(Release.load(path).key)
        publish(folder, target)
        loaded.append(Release.load(path).key)
        assert read_key_file(tmp_path / "r.key") == b"k" * 32  # the new one's first

    monkeypatch.setattr(release_folder, "publish", published)
    replace(noisy(), key=b"k" * 32).save(path, force=True)
    assert loaded == [KEY, b"k" * 32]
    assert (tmp_path / "r.key").read_bytes() == b"k" * 32


def test_a_place_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be made, because .*file is a file") as caught:
        noisy().save(tmp_path / "file" / "r")
    one_line(caught, str(tmp_path / "file" / "r"))


def test_what_was_fitted_with_numbers_of_numpy_is_saved(tmp_path):
    release = fit("leace", vectors_pack(), private=["gender"], settings={"rank": np.int64(1)}, seed=np.int64(3)).release
    again = Release.load(release.save(tmp_path / "r"))
    assert (again.config["rank"], again.made["seed"]) == (1, 3)


def test_force_replaces_releases_only(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="only a release is replaced"):
        noisy().save(tmp_path / "r", force=True)
    assert (tmp_path / "r" / "thesis.txt").read_text() == "years of work"


# The key


def test_key_lies_beside_and_only_its_owner_reads_it(tmp_path):
    path = noisy().save(tmp_path / "r")
    file = tmp_path / "r.key"
    assert key_path(path) == file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes() == KEY
    # A key file that was there with wider permissions, an older release's say, does not keep them.
    file.chmod(0o644)
    noisy().save(path, force=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_fresh_keys_differ():
    assert new_key() != new_key()
    assert len(new_key()) == 32
    fits = [train("deep", brief("deep"), vectors_pack(), key=None) for _ in range(2)]
    assert fits[0].key != fits[1].key  # the same seed does not give the same secret
    assert all(torch.equal(a, b) for a, b in zip(*(f.encoder.parameters() for f in fits), strict=True))


@pytest.mark.parametrize("key", [b"", b"short", bytes(33)])
def test_key_of_another_length_is_refused(key):
    """At once: a release that was saved with it could not be loaded."""
    with pytest.raises(InputError, match="32 bytes") as caught:
        replace(noisy(), key=key)
    one_line(caught, f"got {len(key)}")


def test_missing_key(tmp_path):
    path = noisy().save(tmp_path / "r")
    (tmp_path / "r.key").unlink()
    again = Release.load(path)
    assert again.key is None
    with pytest.raises(InputError, match="key must be given") as caught:
        again.transform(inputs(again))
    one_line(caught)
    with pytest.raises(InputError, match="key cannot be read") as caught:
        Release.load(path, key=tmp_path / "elsewhere.key")
    one_line(caught, "elsewhere.key")


@pytest.mark.parametrize("content", [bytes(32), KEY[:-1], KEY + b"\n", b""])
def test_wrong_key_is_refused(tmp_path, content):
    path = noisy().save(tmp_path / "r")
    (tmp_path / "r.key").write_bytes(content)
    with pytest.raises(InputError, match="key") as caught:
        Release.load(path)
    one_line(caught, "r.key")


# Damaged, foreign, tampered with


def saved(folder: Path) -> Path:
    return made("aia", "paper").save(folder / "r")


def edit(path: Path, *, resign: bool = True, **changes: object) -> None:
    """Change the card; and its own hash, as somebody would who knows the format."""
    card = json.loads((path / "release.json").read_text()) | changes
    if resign:
        card["card_sha256"] = release_folder.card_check(card)
    (path / "release.json").write_text(json.dumps(card))


def put_weights(path: Path, content: bytes) -> None:
    (path / "weights.safetensors").write_bytes(content)
    edit(path, weights_sha256=hashlib.sha256(content).hexdigest())


def card(path: Path) -> dict[str, object]:
    return json.loads((path / "release.json").read_text())


DAMAGE = {
    "weights truncated": lambda p: os.truncate(p / "weights.safetensors", 500),
    "weights missing": lambda p: (p / "weights.safetensors").unlink(),
    "weights of another network": lambda p: put_weights(p, other_weights()),
    "weights garbage": lambda p: put_weights(p, b"\xff" * 100),
    "weights empty": lambda p: put_weights(p, b""),
    "card missing": lambda p: (p / "release.json").unlink(),
    "card truncated": lambda p: os.truncate(p / "release.json", 200),
    "card binary": lambda p: (p / "release.json").write_bytes(b"\xff\xfe\x00"),
    "card deep": lambda p: (p / "release.json").write_text("[" * 200_000),
    "card a list": lambda p: (p / "release.json").write_text("[1, 2]"),
    "card foreign": lambda p: (p / "release.json").write_text('{"name": "x"}'),
    "card edited": lambda p: edit(p, resign=False, made={"private": []}),
    "noise edited": lambda p: edit(p, resign=False, contract={**card(p)["contract"], "noise": 0.5}),
    "schema": lambda p: edit(p, schema=99),
    "method": lambda p: edit(p, method="nobody"),
    "method a list": lambda p: edit(p, method=["aia"]),
    "config unknown": lambda p: edit(p, config={"nothing": 1}),
    "config wrong": lambda p: edit(p, config={**card(p)["config"], "objective": "none"}),
    "config invalid": lambda p: edit(p, config={**card(p)["config"], "batch": -1}),
    "config a list": lambda p: edit(p, config=[1]),
    "contract a list": lambda p: edit(p, contract=[1]),
    "contract empty": lambda p: edit(p, contract={}),
    "contract null": lambda p: edit(p, contract=None),
    "classes a list": lambda p: edit(p, contract={**card(p)["contract"], "classes": ["female", "male"]}),
}


def other_weights() -> bytes:
    from safetensors.torch import save

    return save({"encoder.conv1.weight": torch.zeros(8, 1, 5, 5)})


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_in_one_line(tmp_path, damage):
    path = saved(tmp_path)
    DAMAGE[damage](path)
    with pytest.raises(InputError) as caught:
        Release.load(path)
    one_line(caught, str(path))


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "file", "empty"):
        with pytest.raises(InputError, match="must be a release folder") as caught:
            Release.load(tmp_path / name)
        one_line(caught, name)


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_pickles_are_never_executed(tmp_path, kind):
    path, sprung = saved(tmp_path), tmp_path / "sprung"
    if kind == "pickle":
        content = pickle.dumps({"encoder.conv1.weight": Trap(sprung)})
    else:
        torch.save({"encoder.conv1.weight": Trap(sprung)}, tmp_path / "w")
        content = (tmp_path / "w").read_bytes()
    put_weights(path, content)
    with pytest.raises(InputError) as caught:
        Release.load(path)
    one_line(caught)
    assert not sprung.exists()
    if kind == "pickle":
        pickle.loads(content)  # the trap does work
        assert sprung.exists()


def test_nothing_private_ships(tmp_path):
    pack = faces_pack()
    folder = tmp_path / "somebody-s-home"
    folder.mkdir()
    assert all(name.startswith("person-0") for name in pack.classes["identity"])
    assert all(name.startswith("album/") for name in pack.sources)
    secrets = ["person-0", "visitor-", "album/", "somebody-s-home", str(tmp_path), str(Path.cwd())]
    assert all(name.startswith("visitor-") for name in vectors_pack().classes["identity"])
    for release in (noisy(), made("random"), made("leace"), made("template", kind="vectors")):
        path = release.save(folder / f"{release.method}-{release.contract.keyed}", with_decoder=True)
        content = b"".join(p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file())
        assert [s for s in secrets if s.encode() in content] == []
        for form in (KEY, KEY.hex().encode(), base64.b64encode(KEY), str(list(KEY)).encode(), KEY[:8], KEY[::-1]):
            assert form not in content
        # Nor a plain hash of it that a dictionary of guessed keys could be held against.
        for name in ("sha256", "sha1", "md5", "blake2b"):
            assert hashlib.new(name, KEY).hexdigest()[:16].encode() not in content


# Inputs


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[:, :16], ("shape (32, 32)", "(16, 32)")),
        (lambda x: x[..., None].repeat(3, -1), ("shape (32, 32)", "(32, 32, 3)")),
        (lambda x: x[0], ("shape (32, 32)",)),
        (lambda x: x.astype(np.float32) / 255, ("uint8", "float32")),
        (lambda x: x.astype(np.int64), ("uint8", "int64")),
    ],
)
def test_wrong_images_are_refused(change, words):
    release = made("aia", "paper")
    with pytest.raises(InputError) as caught:
        release.transform(change(inputs(release)))
    one_line(caught, *words)


def test_wrong_vectors_are_refused():
    release = made("aia", "paper", "vectors")
    x = inputs(release)
    for wrong, words in ((x[:, :5], ("(16,)", "(5,)")), (x.astype(np.float64), ("float32", "float64"))):
        with pytest.raises(InputError) as caught:
            release.transform(wrong)
        one_line(caught, *words)
    for value in (np.nan, np.inf):
        bad = x.copy()
        bad[33, 2] = value
        with pytest.raises(InputError, match="row 33 must be finite") as caught:
            release.transform(bad, batch=8)
        one_line(caught)


@pytest.mark.parametrize("name", METHODS)
def test_weights_that_are_no_numbers_are_refused(name, tmp_path):
    whole = made(name, kind="vectors" if name == "template" else "images")
    release = replace(whole, encoder=copy.deepcopy(whole.encoder))
    with torch.no_grad():
        weight = next(w for w in release.encoder.state_dict().values() if w.is_floating_point())
        weight.reshape(-1)[0] = np.nan
    if not release.contract.support:  # else it may be a class that is never chosen
        with pytest.raises(InputError, match=f"^{release.method}: the release of row 0 must be finite"):
            release.transform(inputs(release))
    with pytest.raises(InputError, match=r"weight \S+ must be finite, got NaN") as caught:
        Release.load(release.save(tmp_path / "r"))
    one_line(caught)


@pytest.mark.parametrize("kind", ["images", "vectors"])
def test_read_only_inputs_are_taken_as_they_are(kind):
    """Packs are mapped read-only; warnings are errors here."""
    release = made("aia", "paper", kind)
    x = inputs(release).copy()
    out = release.transform(x)
    x.flags.writeable = False
    assert (release.transform(x) == out).all()


def test_to_input_scales_and_orders():
    grey = np.array([[[0, 255], [51, 102]]], np.uint8)
    torch.testing.assert_close(to_input(grey, "images"), torch.tensor([[[[0, 1], [0.2, 0.4]]]]))
    rgb = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert to_input(rgb, "images").shape == (1, 3, 2, 2)
    assert to_input(rgb, "images")[0, 2, 0, 1].item() * 255 == pytest.approx(5)
    v = np.ones((2, 3), np.float32)
    assert torch.equal(to_input(v, "vectors"), torch.ones(2, 3))


# Keyed noise


def test_one_input_has_one_release_whatever_its_neighbours():
    release = noisy()
    x = inputs(release)
    out = release.transform(x)
    assert (release.transform(x) == out).all()
    # Kernels for other batch sizes add in another order: some hundred terms of 2^-24 each, on unit vectors.
    np.testing.assert_allclose(release.transform(x[:1].repeat(3, 0)), out[[0, 0, 0]], atol=1e-5)
    for batch in (1, 7):
        np.testing.assert_allclose(release.transform(x, batch=batch), out, atol=1e-5)
    np.testing.assert_allclose(release.transform(x[::-1])[::-1], out, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-6)


def test_batches_side_by_side_equal_one_after_the_other():
    """And PyTorch has its threads back afterwards, where a batch was refused too."""
    release = made("deep", kind="vectors")
    x = vectors_pack().x
    one = release.transform(x, batch=50)
    bad = x.copy()
    bad[[77, 444]] = np.nan
    torch.set_num_threads(3)
    try:
        assert (release.transform(x, batch=50) == one).all()
        with pytest.raises(InputError, match="row 77 "):
            release.transform(bad, batch=50)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_averaging_repeated_releases_leaves_the_noise():
    release = noisy()
    x = inputs(release)[:1]
    clean = replace(release, contract=replace(release.contract, noise=0.0)).transform(x)[0]
    repeated = np.mean([release.transform(x)[0] for _ in range(100)], axis=0)
    # cos(clean, release) = 1 / sqrt(1 + 0.5^2) = 0.894 in expectation; k = 256 leaves it within 0.05.
    assert repeated @ clean / np.linalg.norm(repeated) == pytest.approx(0.894, abs=0.05)
    np.testing.assert_allclose(repeated, release.transform(x)[0], atol=1e-6)
    # With a fresh key each time averaging does remove it: the noise is what the key makes it.
    other = np.mean([replace(release, key=bytes([i] * 32)).transform(x)[0] for i in range(100)], axis=0)
    assert other @ clean / np.linalg.norm(other) > 0.99


def test_noise_follows_key_and_input():
    release = noisy()
    x = inputs(release)
    other = replace(release, key=bytes(32))
    clean = replace(release, contract=replace(release.contract, noise=0.0)).transform(x)
    a, b = release.transform(x) - clean, other.transform(x) - clean
    assert (np.abs(a - b).max(1) > 0.01).all()


@pytest.mark.parametrize("make", [noisy, lambda: made("template", "erased", "vectors")], ids=["images", "vectors"])
def test_the_mean_of_near_duplicates_keeps_the_noise(make):
    """Frames of a video, or rescaled and disturbed templates: with noise of their own, 32 of them had next to none."""
    release = make()
    clean = replace(release, contract=replace(release.contract, noise=0.0))
    x, rng = inputs(release), np.random.default_rng(0)
    moves = [rng.standard_normal(x.shape).astype(np.float32) for _ in range(32)]
    if release.contract.kind == "images":
        near = [np.clip(x + 2 * move, 0, 255).astype(np.uint8) for move in moves]
    else:
        near = [(1 + i) * (x + 0.05 * move) for i, move in enumerate(moves)]
    goals = clean.transform(x)
    # Only those count that are near-duplicates to the encoder, which here learned nothing.
    kept = [[(clean.transform(n[i : i + 1]) @ goals[i]).item() > 0.97 for n in near] for i in range(len(x))]
    assert np.mean(kept) > 0.5

    def nearness(values: np.ndarray) -> np.ndarray:
        return (values * goals).sum(1) / np.linalg.norm(values, axis=1)

    drawn = np.stack([release.transform(n) for n in near], 1)
    mean = np.stack([drawn[i, kept[i]].mean(0) for i in range(len(x))])
    one = nearness(release.transform(x)).mean()
    # Independent noise s leaves the mean of m at 1 / sqrt(1 + s^2 / m), all but 1.
    assert nearness(mean).mean() < one + 0.25 * (1 - one)


def test_a_photograph_decoded_in_two_ways_has_one_release():
    """Decoders differ by a grey value or two: a hash of pixels made other noise of that."""
    release = noisy()
    clean = replace(release, contract=replace(release.contract, noise=0.0))
    files = [simplejpeg.encode_jpeg(x[..., None], quality=90, colorspace="GRAY") for x in inputs(release)]
    one = np.stack([simplejpeg.decode_jpeg(data, "GRAY", fastdct=True)[..., 0] for data in files])
    other = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in files])
    assert (one != other).any((1, 2)).all()
    near = (clean.transform(one) * clean.transform(other)).sum(1) >= 0.99
    assert near.mean() > 0.5
    assert (release.transform(one) * release.transform(other)).sum(1)[near].min() >= 0.99


def test_releases_follow_what_the_encoder_reads():
    """Of directions alone: lengths, and the sign of zero, are no part of a release."""
    release = made("template", kind="vectors")
    x = inputs(release).copy()
    x[:, 3] = 0
    out = release.transform(x)
    for same in (2 * x, 3 * x, 1e-20 * x, np.where(x == 0, np.float32(-0.0), x)):
        np.testing.assert_allclose(release.transform(same), out, atol=1e-5)


def test_releases_of_one_key_cannot_be_solved_for_what_they_share():
    """z + s n and z + 2 s n give z away; with another noise, or other weights, n is another."""
    release = noisy()
    x = inputs(release)
    louder = replace(release, contract=replace(release.contract, noise=2 * release.contract.noise))
    other = copy.deepcopy(release.encoder)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    keys = {r.draw_key for r in (release, louder, replace(release, encoder=other))}
    assert len(keys) == 3
    assert release.draw_key == replace(release).draw_key
    clean = replace(release, contract=replace(release.contract, noise=0.0)).transform(x)
    s = release.contract.noise
    solved = 2 * math.sqrt(1 + s * s) * release.transform(x) - math.sqrt(1 + 4 * s * s) * louder.transform(x)
    cosine = (solved * clean).sum(1) / np.linalg.norm(solved, axis=1)
    assert cosine.max() < 0.9  # with the same noise it was above .99


# ONNX


def exported(release: Release, path: Path):
    """A session of a bundle's network, and what it takes beside its input."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert release.export(path) == path
    network = (path / "release.onnx").read_bytes()
    # PyTorch notes at each node where in which file it was traced: the folders of whoever exports.
    folders = {str(Path(torch.__file__).parent), str(Path.cwd()), str(Path.home()), str(path.parent)}
    assert not [word for word in (*folders, "stack_trace", "torch/") if word.encode() in network]
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing else beside it
    session = runtime.InferenceSession(str(path / "release.onnx"), providers=["CPUExecutionProvider"])
    return session, dict(np.load(path / "secret.npz")) if release.contract.keyed else {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: made("aia", "paper"),
        noisy,
        lambda: made("leace"),
        lambda: made("deep", kind="vectors"),
        lambda: made("template", kind="vectors"),
        lambda: made("template", kind="vectors", noise=0.0),
        lambda: made("mi"),
        lambda: made("substitution"),
        lambda: made("substitution", kind="vectors", draw=False),
        lambda: made("mi", target="male", substitute=True, expose=True),
        lambda: made("inversion", "default"),
        lambda: made("san"),
        lambda: made("san", "hardened", rounds=0),
    ],
    ids=[
        "paper",
        "deep with noise",
        "leace",
        "deep on vectors",
        "template with noise",
        "template",
        "mi",
        "substitution",
        "substitution of vectors",
        "mi with substitution",
        "inversion with noise",
        "san",
        "san with transport",
    ],
)
def test_onnx_equals_transform(tmp_path, make):
    release = make()
    session, secret = exported(release, tmp_path / "r")
    draw = secret.pop("draw_key", None)
    names = ["x", *secret, *(["uniform"] if release.contract.draw else [])]
    assert [i.name for i in session.get_inputs()] == names
    assert [o.name for o in session.get_outputs()] == ["release"]
    for n in (1, 5, 40):
        x = inputs(release, n)
        feed = {"x": to_input(x, release.contract.kind).numpy(), **secret}
        if draw is not None:
            feed["uniform"] = keyed_uniform(x, 1, draw.tobytes())
        (out,) = session.run(["release"], feed)
        released = release.transform(x)
        # Images come out of the network as numbers, and are stored as the nearest of 256.
        atol = 1e-5 if released.dtype == np.float32 or release.contract.support else 0.5 / 255 + 1e-5
        np.testing.assert_allclose(out.reshape(len(x), -1), flat(released), atol=atol)


def test_a_bundle_takes_the_place_of_bundles_alone(tmp_path):
    pytest.importorskip("onnxscript")
    release, path = made("leace"), tmp_path / "r"
    path.write_text("a")
    for force, words in ((False, "already exists; choose another name or force"), (True, "only a bundle is replaced")):
        with pytest.raises(InputError, match=words) as caught:
            release.export(path, force=force)
        one_line(caught, str(path))
        assert path.read_text() == "a"
    path.unlink()
    release.export(path)
    (path / "releases.npy").write_text("a")
    with pytest.raises(InputError, match=r"would be lost \(releases\.npy\)"):
        release.export(path, force=True)
    (path / "releases.npy").unlink()
    (path / "README.md").write_text("a")
    release.export(path, force=True)
    assert (path / "README.md").stat().st_size > 1000
    with pytest.raises(InputError, match=r"r\.onnx: names the folder of a bundle, .* leave \.onnx out"):
        release.export(tmp_path / "r.onnx")
    assert [item.name for item in tmp_path.iterdir()] == ["r"]


def test_a_bundle_without_its_key_is_refused(tmp_path):
    with pytest.raises(InputError, match="its key must be given") as caught:
        replace(noisy(), key=None).export(tmp_path / "r")
    one_line(caught)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [lambda: made("template", kind="vectors"), lambda: made("substitution")])
def test_what_is_secret_of_a_bundle_is_for_its_owner_alone(tmp_path, make):
    """Nothing of it is in another file, nor the key anywhere; and it is the same each time."""
    pytest.importorskip("onnxscript")
    release = make()
    path = release.export(tmp_path / "r")
    secret = {"secret.npz", "releases.npy"}
    files = [file for file in path.rglob("*") if file.is_file()]
    assert {file.name for file in files if stat.S_IMODE(file.stat().st_mode) == 0o600} == secret
    arrays = dict(np.load(path / "secret.npz"))
    if release.contract.draw:
        assert arrays.pop("draw_key").tobytes() == release.draw_key
    for name, array in arrays.items():
        assert np.array_equal(array, release.field.arrays()[name].numpy())
    for file in files:
        data = file.read_bytes()
        assert release.key not in data
        held = [release.draw_key, *(array.tobytes()[:64] for array in arrays.values())]
        assert file.name == "secret.npz" or not any(part in data for part in held)
    again = release.export(tmp_path / "again")
    assert all((again / file.relative_to(path)).read_bytes() == file.read_bytes() for file in files)


def test_an_export_of_random_values_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be exported") as caught:
        made("random").export(tmp_path / "r")
    one_line(caught)
    assert list(tmp_path.iterdir()) == []


# The contract


def test_contract_survives_json():
    contract = Contract(
        kind="images", shape=(32, 32, 3), k=10, feature_map=(1, 2, 5), noise=0.5, crop=(0.0, 0.1, 1.0, 0.9),
        aligned=True, direction=True, classes={"gender": ("female", "male"), "age": ("old",)}, asks=True,
    )  # fmt: skip
    plain = json.loads(json.dumps({f.name: getattr(contract, f.name) for f in fields(contract)}))
    assert Contract.read(plain) == contract
    assert contract.keyed
    assert replace(contract, noise=0.0, replace=0.1).keyed
    assert not replace(contract, noise=0.0).keyed
    assert contract.told == contract.classes
    assert replace(contract, asks=False).told == {}


def test_input_release_is_the_input():
    pack = faces_pack()
    out = input_release(pack).transform(pack.x[:5])
    np.testing.assert_allclose(out, pack.x[:5].reshape(5, -1) / 255, atol=1e-7)
    rgb = Pack.from_arrays(np.zeros((8, 16, 16, 3), np.uint8), {})
    assert input_release(rgb).contract.feature_map == (3, 16, 16)
