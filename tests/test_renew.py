"""Renewal: releases turned by a matrix of the key, the same release under another key, and moving what is stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from conftest import faces_pack, vectors_pack
from methods_matrix import KEY, METHODS, brief, pack_of, train, use_of
from veil.errors import InputError
from veil.release import Release
from veil.release.beside import keys_in, renewed_key
from veil.release.contract import Contract
from veil.release.draws import orthogonal
from veil.workflows.apply import apply
from veil.workflows.rekey import rekey

TURNED = [
    (name, kind)
    for name, method in METHODS.items()
    for kind in method.takes
    if "renew" in method.algorithm.config.__annotations__ and (name, kind) != ("substitution", "images")
]
"""Methods, and kinds of packs of which they release vectors."""


def made(name: str, preset: str | None = None, kind: str = "vectors", **changes: object) -> Release:
    config = brief(name, preset, renew=True, **changes)
    return train(name, config, pack_of(kind), utility=use_of(name, kind))


def test_the_matrix_is_orthogonal_and_follows_the_key():
    q = orthogonal(KEY, 300)
    assert (q @ q.T - torch.eye(300)).abs().max() < 2e-6
    assert torch.equal(q, orthogonal(KEY, 300))
    assert (q - orthogonal(KEY[::-1], 300)).abs().max() > 0.1


def test_matrices_of_keys_are_spread_evenly():
    """Of the Haar measure every entry has mean 0 and variance 1 / k, and traces have mean 0 and variance 1."""
    drawn = np.stack([orthogonal(bytes([i, j]) + KEY, 4).numpy() for i in range(40) for j in range(50)])
    assert np.abs(drawn.mean(0)).max() < 5 * 0.5 / 2000**0.5
    assert np.abs(drawn.var(0) - 0.25).max() < 5 * 0.25 / 2000**0.5  # a square has mean 1/4 and a deviation below 1/4
    traces = np.trace(drawn, axis1=1, axis2=2)
    assert abs(traces.mean()) < 5 / 2000**0.5
    assert abs(traces.var() - 1) < 5 * 2**0.5 / 2000**0.5


@pytest.mark.parametrize(("name", "kind"), TURNED)
def test_releases_are_turned_and_nothing_else(name, kind, tmp_path):
    """Turned back, they are what the release gives without its matrix; read from disk it gives the same."""
    release = made(name, kind=kind)
    x = pack_of(kind).x[:12]
    r = release.transform(x)
    plain = replace(release, contract=replace(release.contract, renew=False))
    # Their noise and draws would follow the contract, of which the matrix is a part.
    plain.__dict__.update(draw_key=release.draw_key)
    np.testing.assert_allclose(r @ release.matrix.numpy().T, plain.transform(x), atol=2e-5)
    assert np.abs(r - plain.transform(x)).max() > 0.01
    loaded = Release.load(release.save(tmp_path / "release"))
    np.testing.assert_array_equal(loaded.transform(x), r)
    if release.decoder is not None:
        assert np.array_equal(release.redraw(r), plain.redraw(r @ release.matrix.numpy().T)) or kind == "vectors"
    if release.classifier is not None:
        for label, p in release.predict(r).items():
            np.testing.assert_allclose(p, plain.predict(plain.transform(x))[label], atol=1e-4)


def test_what_cannot_be_turned_is_refused_before_anything_is_learned():
    with pytest.raises(InputError, match=r"^renew: only vectors can be turned, and of images this method releases"):
        made("substitution", kind="images")
    with pytest.raises(InputError, match=r"^setting: must be one of .*, got 'renew'"):
        brief("san", renew=True)
    wide = Contract(kind="vectors", shape=(8,), k=5000)
    with pytest.raises(InputError, match=r"^renew: must be of 2 to 4,096 values, got 5,000$"):
        wide.turned(True)
    images = Contract(kind="images", shape=(8, 8), k=64, image=(8, 8))
    with pytest.raises(ValueError, match=r"^contract.renew: only vectors can be turned"):
        Contract.read({"kind": "images", "shape": [8, 8], "k": 64, "image": [8, 8], "renew": True})
    assert images.turned(False) == images


def test_another_key_gives_releases_that_do_not_match_the_old_ones():
    release = made("template", noise=0.0)
    x = vectors_pack().x[:300]
    old, new = release.transform(x), release.rekeyed().transform(x)
    np.testing.assert_allclose(old @ old.T, new @ new.T, atol=2e-5)  # within a key all is as it was
    k = release.contract.k
    # Of two random directions the cosine has mean 0 and variance 1 / k.
    assert abs((old * new).sum(1).mean()) < 5 / k**0.5


@pytest.mark.parametrize("settings", [{"noise": 0.5}, {"noise": 0.0}])
def test_stored_releases_move_to_another_key_as_if_they_were_made_anew(settings):
    release = made("template", **settings)
    x = vectors_pack().x[:50]
    second = release.rekeyed()
    third = second.rekeyed()
    stored = release.transform(x)
    moved = second.moving(third).transform(release.moving(second).transform(stored))
    np.testing.assert_allclose(moved, third.transform(x), atol=2e-5)
    back = third.moving(release).transform(moved)
    np.testing.assert_allclose(back, stored, atol=2e-5)


def test_only_the_same_release_under_another_key_is_moved_to():
    release = made("template", noise=0.5)
    others = {
        "other weights": train("template", brief("template", renew=True, noise=0.5, steps=3), vectors_pack()),
        "other noise": replace(release, key=KEY[::-1]),
    }
    for other in others.values():
        with pytest.raises(InputError, match=r"^to: must be the same release rekeyed, got one of other weights"):
            release.moving(other)
    plain = train("template", brief("template", noise=0.5), vectors_pack())
    for call in (plain.rekeyed, lambda: plain.moving(release), lambda: release.moving(plain)):
        with pytest.raises(
            InputError, match=r"must have been fitted with the setting renew, which this release was not"
        ):
            call()
    with pytest.raises(InputError, match=r"^template: it adds keyed noise, so its key must be given, got none"):
        replace(release, key=None).rekeyed()
    # Without noise there is nothing but the matrix, and any two keys do.
    silent = made("template", noise=0.0)
    other = replace(silent, key=KEY[::-1])
    x = vectors_pack().x[:9]
    moved = silent.moving(other).transform(silent.transform(x))
    np.testing.assert_allclose(moved, other.transform(x), atol=2e-5)


def test_key_files_hold_keys_of_either_length(tmp_path):
    """One key, or two behind each other, as a kill may leave them while a release takes another's place."""
    long, file = renewed_key(KEY), tmp_path / "k"
    assert len(long) == 48
    assert long[:32] == KEY
    for keys in ([KEY], [long], [KEY, KEY[::-1]], [KEY, long], [long, KEY], [long, long[::-1]]):
        file.write_bytes(b"".join(keys))
        assert set(keys) <= set(keys_in(file))
    for length in (0, 16, 31, 33, 47, 97, 1000):
        file.write_bytes(bytes(length))
        with pytest.raises(InputError, match=rf"must have 32 bytes, or 48 once it was renewed, got {length}$"):
            keys_in(file)


@pytest.mark.parametrize("renewed_first", [True, False])
def test_a_renewed_release_takes_the_place_of_its_former_self(tmp_path, renewed_first):
    first, second = made("template"), made("template").rekeyed()
    if renewed_first:
        first, second = second, first
    x = vectors_pack().x[:5]
    first.save(tmp_path / "release")
    second.save(tmp_path / "release", force=True)
    np.testing.assert_array_equal(Release.load(tmp_path / "release").transform(x), second.transform(x))


def test_bundles_of_turned_releases_give_the_same(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    for number, release in enumerate((made("template"), made("substitution"))):
        folder = release.export(tmp_path / str(number))  # which compares what the script gives with Veil's
        with np.load(folder / "secret.npz") as secret:
            np.testing.assert_array_equal(secret["matrix"], release.matrix.numpy())
        assert "turned by a matrix" in (folder / "README.md").read_text()


def test_a_turned_feature_map_is_none_to_attackers():
    from veil.auditing.rosters import roster
    from veil.auditing.setting import Setting
    from veil.workflows.subjects import Subject

    setting = Setting(pack=faces_pack(), private=("gender",), utility=(), roster=roster("quick"), effort="quick")
    for renew, shown in ((False, (12, 8, 8)), (True, None)):
        release = train("aia", brief("aia", renew=renew), faces_pack())
        assert release.contract.feature_map == (12, 8, 8)
        exhibit = Subject.of(release).exhibit(setting, None, Path("unused"))
        assert exhibit.feature_map == shown


# -- veil rekey -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    made("template", noise=0.5).save(tmp_path / "old")
    return tmp_path


@pytest.mark.parametrize("form", ["parquet", "npz", "npy"])
def test_stored_files_are_moved(folder, form):
    x = vectors_pack().x[:40]
    np.save(folder / "x.npy", x)
    stored, moved, anew = (folder / f"{name}.{form}" for name in ("stored", "moved", "anew"))
    apply(Release.load(folder / "old"), folder / "x.npy", stored)
    made = rekey(folder / "old", folder / "new", stored=stored, out=moved)
    assert made is not None
    assert made.rows == 40
    apply(Release.load(folder / "new"), folder / "x.npy", anew)
    read = {
        "parquet": lambda file: np.stack(pq.read_table(file)["release"].to_numpy()),
        "npz": lambda file: np.load(file)["releases"],
        "npy": np.load,
    }[form]
    np.testing.assert_allclose(read(moved), read(anew), atol=2e-5)
    assert np.abs(read(moved) - read(stored)).max() > 0.05
    # More of what is stored goes to the same key.
    rekey(folder / "old", folder / "new", stored=stored, out=folder / f"again.{form}")
    np.testing.assert_array_equal(read(folder / f"again.{form}"), read(moved))


def test_rekey_refuses_before_it_writes(folder):
    np.save(folder / "wide.npy", np.ones((3, 99), np.float32))
    train("template", brief("template"), vectors_pack()).save(folder / "plain")
    made("template", noise=0.3).save(folder / "other")
    np.save(folder / "stored.npy", np.ones((3, 16), np.float32))
    before = sorted(path.name for path in folder.iterdir())
    for arguments, words in (
        ({"new": "new", "stored": "wide.npy", "out": "out.npy"}, "99"),
        ({"new": "new", "stored": "none.npy", "out": "out.npy"}, "none.npy"),
        ({"new": "new", "stored": "stored.npy"}, "out: must be named with stored"),
        ({"new": "new", "out": "out.npy"}, "stored: must be named with out"),
        ({"new": "other"}, "already exists; choose another name, or name stored releases"),
        ({"new": "other", "stored": "stored.npy", "out": "out.npy"}, "must be the same release rekeyed"),
        ({"release": "plain", "new": "new"}, "must have been fitted with the setting renew"),
        ({"release": "nowhere", "new": "new"}, "nowhere"),
    ):
        paths = {name: folder / value for name, value in {"release": "old", **arguments}.items()}
        with pytest.raises(InputError) as refused:
            rekey(paths.pop("release"), paths.pop("new"), **paths)
        assert words in str(refused.value)
        assert sorted(path.name for path in folder.iterdir()) == before
