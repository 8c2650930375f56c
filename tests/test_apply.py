"""Applying a release: every kind of source and target, row by row, and what is left behind when something fails."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from veil import apply as module
from veil.apply import apply, read_vectors
from veil.data import build
from veil.data.layouts import LAYOUTS
from veil.data.layouts.listing import Item, Listing, Options
from veil.data.pack import Pack
from veil.errors import InputError
from veil.release import Contract, Release

SIZE, D, K = 16, 5, 3
KEY = bytes(range(32))


class First(nn.Module):
    """The first K values of the flattened input: what was released can be told from what went in."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :K]


def images_release(**contract: Any) -> Release:
    return Release(
        method="aia", config={}, contract=Contract(kind="images", shape=(SIZE, SIZE), k=K, **contract), encoder=First()
    )


def vectors_release(**contract: Any) -> Release:
    c = Contract(kind="vectors", shape=(D,), k=K, **contract)
    return Release(method="aia", config={}, contract=c, encoder=First(), key=KEY if c.keyed else None)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images in folders, one of them cut short."""
    root = tmp_path_factory.mktemp("album") / "album"
    rng = np.random.default_rng(0)
    for name in ("b/2.png", "b/1.png", "a/1.png", "c.png", "d/x.png", "e.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)).save(path)
    whole = (root / "c.png").read_bytes()
    (root / "b" / "broken.png").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of 50 vectors with labels, some unknown, and pairs."""
    folder = tmp_path_factory.mktemp("people") / "pack"
    x = np.random.default_rng(0).normal(size=(50, D)).astype(np.float32)

    def items() -> Iterator[Item]:
        for row in range(50):
            labels = {"identity": f"p{row // 2:02d}", "gender": ("f", "m", None)[row // 2 % 3]}
            yield Item(f"row-{49 - row}", x[row], labels)

    pairs = [("row-0", "row-1", True, 0), ("row-5", "row-30", False, 1)]
    listing = Listing(items=items(), count=50, attributes=("identity", "gender"), kind="vectors", pairs=pairs)
    build.write(listing, folder, layout="embeddings")
    return folder


def _read(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            assert sorted(file.files) == ["releases", "source"]
            return file["source"].tolist(), file["releases"]
    table = pq.read_table(path)
    assert table.column_names == ["source", "release"]
    assert table.schema.field("release").type == pa.list_(pa.float32(), K)
    return table["source"].to_pylist(), np.array(table["release"].to_pylist(), np.float32)


def _left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# -- sources and targets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_a_folder_keeps_its_order_and_lists_what_is_corrupt(album: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    told: list[tuple[int, int | None, int]] = []
    assert apply(images_release(), album, out, progress=lambda *m: told.append(m)) == (6, 1)
    names, values = _read(out)
    packed = build.pack("folder", album, tmp_path / "pack", size=SIZE)
    assert names == packed.sources.tolist()
    np.testing.assert_array_equal(values, images_release().transform(np.asarray(packed.x)))
    assert told[-1] == (6, 7, 1)
    with (tmp_path / f"out{suffix}.skipped.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == ["b/broken.png"]
    assert rows[0]["reason"]
    assert _left(tmp_path) == [f"out{suffix}", f"out{suffix}.skipped.csv", "pack"]


def test_labels_beside_the_images_do_not_matter(album: Path, tmp_path: Path) -> None:
    copy = tmp_path / "album"
    for name in ("a/1.png", "e.png"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((album / name).read_bytes())
    (copy / "labels.csv").write_text("file,split,gender\ne.png,test,f\n")  # a/1.png has no row and no split
    assert apply(images_release(), copy, tmp_path / "out.npz") == (2, 0)


def test_the_crop_of_the_training_pack_is_used(album: Path, tmp_path: Path) -> None:
    crop = (0.25, 0.25, 0.75, 0.75)
    apply(images_release(crop=crop), album, tmp_path / "out.npz")
    packed = build.pack("folder", album, tmp_path / "pack", size=SIZE, crop=crop)
    np.testing.assert_array_equal(_read(tmp_path / "out.npz")[1], images_release().transform(np.asarray(packed.x)))


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
@pytest.mark.parametrize("contract", [{}, {"noise": 0.5}, {"replace": 0.5}])
def test_a_pack_is_released_as_transform_would(
    people: Path, tmp_path: Path, suffix: str, contract: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 7)
    pack, release = Pack.open(people), vectors_release(**contract)
    out = tmp_path / f"out{suffix}"
    assert apply(release, people, out) == (50, 0)
    names, values = _read(out)
    assert names == pack.sources.tolist()
    np.testing.assert_array_equal(values, release.transform(np.asarray(pack.x)))
    assert _left(tmp_path) == [out.name]
    # A file of vectors is as good a source as the pack.
    again = tmp_path / "again.npz"
    np.savez(tmp_path / "in.npz", vectors=np.asarray(pack.x), source=pack.sources)
    apply(release, tmp_path / "in.npz", again)
    assert _read(again)[0] == names
    np.testing.assert_array_equal(_read(again)[1], values)


def test_a_pack_of_releases_keeps_labels_splits_and_pairs(people: Path, tmp_path: Path) -> None:
    pack, release = Pack.open(people), vectors_release()
    assert apply(release, people, tmp_path / "out") == (50, 0)
    made = Pack.open(tmp_path / "out", verify=True)
    assert made.kind == "vectors"
    np.testing.assert_array_equal(made.x, release.transform(np.asarray(pack.x)))
    assert made.sources.tolist() == pack.sources.tolist()
    assert made.classes == pack.classes
    for name in pack.labels:
        np.testing.assert_array_equal(made.labels[name], pack.labels[name])
    np.testing.assert_array_equal(made.split, pack.split)
    assert pack.pairs is not None
    np.testing.assert_array_equal(made.pairs, pack.pairs)


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_bad_rows_of_vectors_are_skipped_and_listed(tmp_path: Path, kind: str) -> None:
    x = np.arange(1, 31, dtype=np.float32).reshape(6, D)
    x[2, 1] = np.nan
    x[4] = 0
    source = tmp_path / f"in.{kind}"
    if kind == "npz":
        np.savez(source, vectors=x)
    else:
        pq.write_table(pa.table({"vector": [*x.tolist()[:5], [1.0, 2.0]]}), source)  # the last row is short
    bad = ["2", "4"] + (["5"] if kind == "parquet" else [])
    out = tmp_path / "out.parquet"
    assert apply(vectors_release(), source, out) == (6 - len(bad), len(bad))
    names, values = _read(out)
    assert names == [str(i) for i in range(6) if str(i) not in bad]
    np.testing.assert_array_equal(values, x[[int(n) for n in names], :K])
    with (tmp_path / "out.parquet.skipped.csv").open() as file:
        assert [row["source"] for row in csv.DictReader(file)] == bad


def test_a_list_of_skipped_rows_does_not_outlive_them(tmp_path: Path) -> None:
    x = np.ones((3, D), np.float32)
    out, listed = tmp_path / "out.npz", tmp_path / "out.npz.skipped.csv"
    np.savez(tmp_path / "bad.npz", vectors=np.concatenate([x, np.full((1, D), np.inf, np.float32)]))
    np.savez(tmp_path / "good.npz", vectors=x)
    apply(vectors_release(), tmp_path / "bad.npz", out)
    assert listed.exists()
    apply(vectors_release(), tmp_path / "good.npz", out, force=True)
    assert not listed.exists()


# -- memory -----------------------------------------------------------------------------------------------------------


def test_rows_are_read_as_they_are_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    def layout(source: Path, options: Options) -> Listing:
        def items() -> Iterator[Item]:
            nonlocal read
            for row in range(6000):
                read += 1
                yield Item(str(row), np.full(D, row + 1, np.float32))

        return Listing(items=items(), count=6000, attributes=(), kind="vectors")

    monkeypatch.setitem(LAYOUTS, "embeddings", layout)
    monkeypatch.setattr(module, "BATCH", 64)
    monkeypatch.setattr(build.os, "cpu_count", lambda: 2)
    (tmp_path / "in.npz").touch()
    ahead = []
    apply(
        vectors_release(), tmp_path / "in.npz", tmp_path / "out.parquet", progress=lambda n, *_: ahead.append(read - n)
    )
    # Under way are 2 x 2 + 1 chunks of 32 rows that are being decoded, one that is being filled, and less than a batch.
    assert len(ahead) == -(-6000 // 64)
    assert max(ahead) <= 6 * 32 + 64
    names, values = _read(tmp_path / "out.parquet")
    assert names == [str(row) for row in range(6000)]
    np.testing.assert_array_equal(values[:, 0], np.arange(1, 6001))


# -- refusals ---------------------------------------------------------------------------------------------------------


def _refused(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(InputError) as caught:
        apply(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["out.npz", "out.parquet", "out"])
def test_an_existing_target_is_kept_unless_forced(people: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    apply(vectors_release(), people, out)
    before = out.read_bytes() if out.is_file() else (out / "pack.json").read_bytes()
    assert "already exists" in _refused(vectors_release(), people, out)
    assert (out.read_bytes() if out.is_file() else (out / "pack.json").read_bytes()) == before
    apply(vectors_release(), people, out, force=True)


def test_what_does_not_fit_is_refused(album: Path, people: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", vectors=np.ones((4, D + 1), np.float32))
    folder = tmp_path / "folder.npz"
    folder.mkdir()
    before = _left(tmp_path)
    out = tmp_path / "out.npz"
    assert "must have shape (5,) as the release says, got (6,)" in _refused(
        vectors_release(), tmp_path / "wide.npz", out
    )
    assert f"{people}: its rows must have shape (16, 16)" in _refused(images_release(), people, out)
    assert "the release takes vectors, got a folder" in _refused(vectors_release(), album, out)
    assert "the release takes images, got a file" in _refused(images_release(), tmp_path / "wide.npz", out)
    assert "does not exist" in _refused(images_release(), tmp_path / "nowhere", out)
    assert "must end in .parquet or .npz" in _refused(vectors_release(), people, tmp_path / "out.csv")
    assert "only be made from a pack" in _refused(images_release(), album, tmp_path / "out")
    assert "is a folder" in _refused(vectors_release(), people, folder, force=True)
    assert "is the source itself" in _refused(vectors_release(), people, people, force=True)
    keyless = Release(
        method="aia", config={}, contract=Contract(kind="vectors", shape=(D,), k=K, noise=0.1), encoder=First()
    )
    assert "its key must be given" in _refused(keyless, people, out)
    (tmp_path / "file").touch()
    before = sorted([*before, "file"])
    assert "cannot be written" in _refused(vectors_release(), people, tmp_path / "file" / "out.npz")
    assert _left(tmp_path) == before


def test_a_folder_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert "it is empty" in _refused(images_release(), tmp_path / "in", tmp_path / "out.npz")
    (tmp_path / "in" / "a.png").write_bytes(b"no image")
    assert "the first of 1 is a.png: " in _refused(images_release(), tmp_path / "in", tmp_path / "out.npz")
    assert _left(tmp_path) == ["in"]


class Stops(nn.Module):
    """Releases two batches, then is interrupted."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error, self.calls = error, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 2:
            raise self.error
        return x[:, :K]


@pytest.mark.parametrize("name", ["out.npz", "out.parquet", "out"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_nothing(
    people: Path, tmp_path: Path, name: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 7)
    release = Release(method="aia", config={}, contract=Contract(kind="vectors", shape=(D,), k=K), encoder=Stops(error))
    with pytest.raises(error):
        apply(release, people, tmp_path / name)
    assert _left(tmp_path) == []


def test_a_full_disk_leaves_nothing(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert "No space left on device" in _refused(vectors_release(), people, tmp_path / "out.npz")
    assert _left(tmp_path) == []


# -- strangers' vectors -----------------------------------------------------------------------------------------------


def _saved(path: Path, rows: NDArray[np.float32], names: list[str] | None) -> Path:
    np.savez(path, vectors=rows, **({} if names is None else {"source": np.array(names)}))
    return path


def test_vectors_are_joined_by_name(people: Path, tmp_path: Path) -> None:
    pack = Pack.open(people)
    order = np.random.default_rng(0).permutation(50)
    path = _saved(tmp_path / "v.npz", np.asarray(pack.x)[order], pack.sources[order].tolist())
    np.testing.assert_array_equal(read_vectors(path, pack), pack.x)
    plain = _saved(tmp_path / "plain.npz", np.asarray(pack.x), None)
    np.testing.assert_array_equal(read_vectors(plain, pack), pack.x)


def test_names_that_are_numbers_are_names_all_the_same(tmp_path: Path) -> None:
    x = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    pack = Pack.from_arrays(x, {"gender": list("abab")}, sources=["3", "1", "0", "2"])
    path = _saved(tmp_path / "v.npz", x[[2, 1, 3, 0]], ["0", "1", "2", "3"])
    np.testing.assert_array_equal(read_vectors(path, pack), x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, names: (x[:-1], names[:-1]), "has no vector for 1 of the pack's 50 rows, 'row-0' first"),
        (lambda x, names: (x[:-1], None), "has no vector for 50 of the pack's 50 rows"),
        (lambda x, names: (np.where(np.arange(50)[:, None] == 3, np.nan, x), names), "row 'row-46' cannot be used"),
    ],
)
def test_vectors_that_do_not_fit_the_pack_are_refused(
    people: Path, tmp_path: Path, change: Callable[..., Any], message: str
) -> None:
    pack = Pack.open(people)
    path = _saved(tmp_path / "v.npz", *change(np.asarray(pack.x), pack.sources.tolist()))
    with pytest.raises(InputError) as caught:
        read_vectors(path, pack)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
