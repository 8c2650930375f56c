"""Applying a release: every kind of source and target, row by row, and what is left behind when something fails."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.ExifTags import Base as Tag
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from veil.cli import process
from veil.data import build, decode, decoding
from veil.data.decode import Eyes
from veil.data.layouts.folder import walk
from veil.data.layouts.listing import Item, Listing
from veil.data.pack import Pack
from veil.data.vectors import VectorFile
from veil.errors import InputError
from veil.release import Release
from veil.release.contract import Contract
from veil.workflows.apply import Options, image_files, sources
from veil.workflows.apply import apply as run_apply
from veil.workflows.apply.parts import Division, Part, Parts
from veil.workflows.audit import audit
from veil.workflows.fit import fit
from veil.workflows.named import read_vectors
from veil.workflows.subjects import Subject

SIZE, D, K = 16, 5, 3
KEY = bytes(range(32))
ROWS: dict[str, int] = {}
"""Rows of a batch and of a part, where they are not the usual ones."""


def apply(release: Release, source: Path, out: Path, **options: Any) -> tuple[int, int]:
    """The workflow, with its options by name."""
    call = {name: options.pop(name) for name in ("resume", "force", "progress", "remark") if name in options}
    return run_apply(release, source, out, Options(**ROWS, **options), **call)[:2]


class First(nn.Module):
    """The first K values of the flattened input: what was released can be told from what went in.

    Args:
        unit: Whether they are brought into [0, 1], where values may be replaced.
    """

    def __init__(self, unit: bool = False) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        first = x.flatten(1)[:, :K]
        return first.sigmoid() if self.unit else first


class Counting(First):
    """Counts the batches that it releases."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


def images_release(**contract: Any) -> Release:
    return Release(
        method="aia", config={}, contract=Contract(kind="images", shape=(SIZE, SIZE), k=K, **contract), encoder=First()
    )


def vectors_release(**contract: Any) -> Release:
    c = Contract(kind="vectors", shape=(D,), k=K, **contract)
    encoder = First(unit=c.replace > 0)
    return Release(method="aia", config={}, contract=c, encoder=encoder, key=KEY if c.keyed else None)


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


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows a batch, two batches a part."""
    monkeypatch.setitem(ROWS, "batch", 7)
    monkeypatch.setitem(ROWS, "part", 14)


def vectors(n: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(n, D)).astype(np.float32)


def put(path: Path, x: NDArray[np.float32], names: list[str] | None = None, *, columns: bool = False) -> Path:
    """Vectors in a file of the kind that its name says; labels beside them, where the kind has room."""
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".npz":
        np.savez(
            path, vectors=x, gender=np.arange(len(x)) % 2, **({} if names is None else {"source": np.array(names)})
        )
    else:
        table: dict[str, Any] = {} if names is None else {"source": names}
        table |= {f"v{i}": x[:, i] for i in range(x.shape[1])} if columns else {"face": list(x)}
        pq.write_table(pa.table({"gender": np.arange(len(x)) % 2, **table}), path, row_group_size=11)
    return path


def _read(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    if path.suffix == ".npy":
        x = np.load(path)
        assert (x.dtype, x.shape[1:]) == (np.float32, (K,))
        return [str(i) for i in range(len(x))], x
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            assert sorted(file.files) == ["releases", "source"]
            return file["source"].tolist(), file["releases"]
    table = pq.read_table(path)
    if table.num_columns > 2:
        assert table.column_names == ["source", *(f"release_{i}" for i in range(K))]
        return table["source"].to_pylist(), np.stack([table[f"release_{i}"] for i in range(K)], axis=1)
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


@pytest.mark.parametrize("images", [False, True])
def test_images_of_other_kinds_are_listed_and_what_is_none_is_left_aside(tmp_path: Path, images: bool) -> None:
    source, out = tmp_path / "in", tmp_path / ("out" if images else "out.npz")
    picture = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    for name in ("a.png", ".thumbnails/x.png", "b/@eaDir/x.png", "._a.png", "b/c.jfif"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(source / name, "JPEG" if name.endswith("jfif") else "PNG")
    (source / "b" / "d.jxl").write_bytes(b"x")
    (source / "e.dng").write_bytes(b"II*\0")
    (source / "notes.txt").write_text("x")
    shutil.copy(source / "a.png", source / "a.png_original")
    remarks: list[tuple[str, str]] = []
    release = picture_release() if images else images_release()
    assert apply(release, source, out, images=images, remark=lambda *m: remarks.append(m)) == (2, 3)
    with (tmp_path / f"{out.name}.skipped.csv").open(newline="") as file:
        assert dict(list(csv.reader(file))[1:]) == {
            "b/d.jxl": "an image of a kind that is not read (.jxl); convert it",
            "e.dng": "an image of a kind that is not read (.dng); convert it",
            "a.png_original": "an image by its first bytes, but not by its name's ending",
        }
    assert remarks == [
        ("warning", f"3 of 5 were left out; {out.name}.skipped.csv says why."),
        ("note", "1 files are no images by their name's ending and were left aside."),
        ("note", "1 files are hidden (their names begin with a dot) and were left aside."),
        ("note", "2 folders are of systems or tools and were left aside: '.thumbnails', 'b/@eaDir'."),
    ]
    if images:
        assert _tree(out) == ["a.png", "b/c.jfif"]


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


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
@pytest.mark.parametrize("contract", [{}, {"noise": 0.5}, {"replace": 0.5}])
def test_a_pack_is_released_as_transform_would(
    people: Path, tmp_path: Path, suffix: str, contract: dict[str, float]
) -> None:
    pack, release = Pack.open(people), vectors_release(**contract)
    out = tmp_path / f"out{suffix}"
    assert apply(release, people, out) == (50, 0)
    names, values = _read(out)
    assert names == pack.sources.tolist()
    # As many rows at a time: sums of other numbers of rows round otherwise.
    np.testing.assert_array_equal(values, release.transform(np.asarray(pack.x), batch=7))
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


class Negative(nn.Module):
    """An image to its negative, ``(B, C, H, W)`` in [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return 1 - x


class Halves(nn.Module):
    """Which half of an image is brighter, as one of two substitutes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("substitutes", torch.arange(2)[:, None, None].expand(2, 16, 16).mul(200).byte())

    def forward(self, x: Tensor) -> Tensor:
        left = x[..., :8].mean((1, 2, 3)) - x[..., 8:].mean((1, 2, 3))
        return torch.stack([left, -left], 1)


@pytest.mark.parametrize("encoder", [Negative(), Halves()], ids=["images", "substitutes"])
def test_images_are_released_as_images(album: Path, tmp_path: Path, encoder: nn.Module) -> None:
    people = tmp_path / "people"
    pack = build.pack("folder", album, people, size=16, settings={"identity": "folder"})
    support = 2 if isinstance(encoder, Halves) else 0
    contract = Contract(kind="images", shape=(16, 16), k=256, image=(16, 16), support=support)
    release = Release(method="mi", config={}, contract=contract, encoder=encoder)
    expected = release.transform(np.asarray(pack.x))
    if not support:
        np.testing.assert_array_equal(expected, 255 - pack.x)
    n, _ = apply(release, people, tmp_path / "redrawn")
    again = Pack.open(tmp_path / "redrawn", verify=True)
    assert (n, again.kind, again.x.dtype) == (len(pack), "images", np.uint8)
    np.testing.assert_array_equal(again.x, expected)
    assert again.classes == pack.classes
    apply(release, people, tmp_path / "redrawn.npz")
    with np.load(tmp_path / "redrawn.npz") as file:
        np.testing.assert_allclose(file["releases"], expected.reshape(n, -1) / 255, atol=1e-6)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".npy"])
@pytest.mark.parametrize("n", [5, 14, 33])
def test_vectors_come_out_in_the_form_in_which_they_went_in(tmp_path: Path, suffix: str, columns: bool, n: int) -> None:
    x, names = vectors(n), [f"{i % 3}/\u00e4{i}.jpg" for i in range(n)]
    source = put(tmp_path / f"in{suffix}", x, names, columns=columns)
    out = tmp_path / f"out{suffix}"
    assert apply(vectors_release(noise=0.5), source, out) == (n, 0)
    got, values = _read(out)
    assert got == ([str(i) for i in range(n)] if suffix == ".npy" else names)
    np.testing.assert_array_equal(values, vectors_release(noise=0.5).transform(x))
    if suffix == ".parquet":
        assert pq.read_table(out).num_columns == (1 + K if columns else 2)  # no label goes along
    assert _left(tmp_path) == [source.name, out.name]


@pytest.mark.usefixtures("small")
def test_threads_keep_the_order_and_the_bytes(tmp_path: Path) -> None:
    source = put(tmp_path / "in.npz", vectors(200), [str(i) for i in range(200)])
    apply(vectors_release(noise=0.5), source, tmp_path / "one.npz")
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        apply(vectors_release(noise=0.5), source, tmp_path / "four.npz")
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "four.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_rows_go_by_numbers_if_names_may_say_who_they_are(tmp_path: Path, suffix: str) -> None:
    x = vectors(4)
    x[1] = 0
    source = put(tmp_path / f"in{suffix}", x, ["ann", "bob", "ann", "eve"])
    assert "'ann' stands in source more than once" in _refused(vectors_release(), source, tmp_path / "out.npz")
    assert apply(vectors_release(), source, tmp_path / "out.npz", row_numbers=True) == (3, 1)
    assert _read(tmp_path / "out.npz")[0] == ["0", "2", "3"]
    assert (tmp_path / "out.npz.skipped.csv").read_text().splitlines() == ["source,reason", "1,only zeros"]


def test_names_of_images_and_packs_can_be_left_out_too(album: Path, people: Path, tmp_path: Path) -> None:
    apply(images_release(), album, tmp_path / "a.npz", row_numbers=True)
    assert _read(tmp_path / "a.npz")[0] == ["0", "1", "2", "3", "4", "6"]  # b/broken.png is number 5
    apply(vectors_release(), people, tmp_path / "out", row_numbers=True)
    made, pack = Pack.open(tmp_path / "out"), Pack.open(people)
    assert made.sources.tolist() == [str(i) for i in range(50)]
    np.testing.assert_array_equal(made.pairs, pack.pairs)


PICTURE = bytes(range(256)) * 8


def test_a_pictures_bytes_never_become_a_name(tmp_path: Path) -> None:
    paths = [f"{i}.jpg" for i in range(6)]
    struct = pa.array([{"bytes": PICTURE, "path": path} for path in paths])
    pq.write_table(pa.table({"image": struct, "emb": list(vectors(6))}), tmp_path / "struct.parquet")
    apply(vectors_release(), tmp_path / "struct.parquet", tmp_path / "out.parquet")
    assert _read(tmp_path / "out.parquet")[0] == paths
    assert PICTURE[:100] not in (tmp_path / "out.parquet").read_bytes()
    pq.write_table(pa.table({"image": [PICTURE] * 6, "emb": list(vectors(6))}), tmp_path / "bytes.parquet")
    message = _refused(vectors_release(), tmp_path / "bytes.parquet", tmp_path / "b.parquet")
    assert "image must name the rows by text, whole numbers, UUIDs or a struct with a path, got binary" in message
    assert "go by row numbers" in message
    apply(vectors_release(), tmp_path / "bytes.parquet", tmp_path / "b.parquet", row_numbers=True)
    assert _read(tmp_path / "b.parquet")[0] == [str(i) for i in range(6)]
    pq.write_table(pa.table({"source": [*"abcde", "x" * 1025], "emb": list(vectors(6))}), tmp_path / "long.parquet")
    assert "source of row 5 has 1,025 characters; names have at most 1,024" in _refused(
        vectors_release(), tmp_path / "long.parquet", tmp_path / "l.parquet"
    )


def test_vectors_in_csv_are_released_as_others(tmp_path: Path) -> None:
    x = vectors(30)
    names = [f"n{i}" for i in range(30)]
    lists = (f'{name},"{row}"' for name, row in zip(names, x.tolist(), strict=True))
    (tmp_path / "lists.csv").write_text("\n".join(["name,emb", *lists]))
    cells = (f"{name}\t" + "\t".join(map(str, row)) for name, row in zip(names, x.tolist(), strict=True))
    (tmp_path / "columns.tsv").write_text("\n".join(["name\t" + "\t".join(f"v{i}" for i in range(D)), *cells]))
    put(tmp_path / "in.npz", x, names)
    apply(vectors_release(noise=0.5), tmp_path / "in.npz", tmp_path / "out.npz")
    for source in ("lists.csv", "columns.tsv"):
        assert apply(vectors_release(noise=0.5), tmp_path / source, tmp_path / f"{source}.npz") == (30, 0)
        for got, wanted in zip(_read(tmp_path / f"{source}.npz"), _read(tmp_path / "out.npz"), strict=True):
            np.testing.assert_array_equal(got, wanted)
    apply(vectors_release(), tmp_path / "columns.tsv", tmp_path / "out.parquet")
    assert pq.read_schema(tmp_path / "out.parquet").names == ["source", *(f"release_{i}" for i in range(K))]


def test_columns_are_put_in_the_order_of_the_training_packs(tmp_path: Path) -> None:
    names = ("yaw", "pitch", "roll", "iod", "nose")
    release = vectors_release(columns=names)
    x = vectors(20)
    shuffled = {name: x[:, names.index(name)] for name in sorted(names)}
    pq.write_table(pa.table({"source": [f"{i}" for i in range(20)], **shuffled}), tmp_path / "in.parquet")
    build.pack("embeddings", tmp_path / "in.parquet", tmp_path / "pack")
    remarks: list[tuple[str, str]] = []
    for source in ("in.parquet", "pack"):
        apply(release, tmp_path / source, tmp_path / "out.npz", force=True, remark=lambda *m: remarks.append(m))
        np.testing.assert_array_equal(_read(tmp_path / "out.npz")[1], x[:, :K])
    assert remarks == [("note", "Vectors are 5 columns of 'in.parquet': yaw, pitch, roll, iod, nose.")]
    missing = {name if name != "iod" else "age": column for name, column in shuffled.items()}
    pq.write_table(pa.table(missing), tmp_path / "age.parquet")
    assert "missing: iod; none of them: age" in _refused(release, tmp_path / "age.parquet", tmp_path / "age.npz")
    build.pack("embeddings", tmp_path / "age.parquet", tmp_path / "age")
    assert "the release was fitted on the columns yaw, pitch" in _refused(release, tmp_path / "age", tmp_path / "a.npz")
    remarks.clear()
    apply(release, put(tmp_path / "bare.npy", x), tmp_path / "out.npz", force=True, remark=lambda *m: remarks.append(m))
    np.testing.assert_array_equal(_read(tmp_path / "out.npz")[1], x[:, :K])
    assert [kind for kind, _ in remarks] == ["warning"]


def test_the_column_of_vectors_can_be_named(tmp_path: Path) -> None:
    x = vectors(6)
    pq.write_table(pa.table({"a": list(x), "b": list(-x)}), tmp_path / "in.parquet")
    assert "set column to one" in _refused(vectors_release(), tmp_path / "in.parquet", tmp_path / "out.npy")
    apply(vectors_release(), tmp_path / "in.parquet", tmp_path / "out.npy", column="b")
    np.testing.assert_array_equal(_read(tmp_path / "out.npy")[1], -x[:, :K])


class Says(nn.Module):
    """Releases which joint classes are allowed, as ones and zeros."""

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        return torch.ones(len(x), 4) if allowed is None else allowed.float()


def telling_release() -> Release:
    classes = {"gender": ("f", "m"), "age": ("old", "young")}
    contract = Contract(kind="vectors", shape=(D,), k=4, classes=classes, asks=True)
    return Release(method="aia", config={}, contract=contract, encoder=Says())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_a_column_can_tell_the_class_that_would_be_guessed(tmp_path: Path, suffix: str) -> None:
    x, gender = vectors(20), ["m", "f", "", "m"] * 5
    x[2] = 0  # a row that is left out must not shift the others' classes
    if suffix == ".npz":
        np.savez(tmp_path / "in.npz", vectors=x, gender=np.array(gender))
    else:
        pq.write_table(pa.table({"face": list(x), "gender": [g or None for g in gender]}), tmp_path / "in.parquet")
    source, out = tmp_path / f"in{suffix}", tmp_path / "out.npz"
    assert apply(telling_release(), source, out, told=["gender"]) == (19, 1)
    allowed = {"m": [0, 0, 1, 1], "f": [1, 1, 0, 0], "": [1, 1, 1, 1]}
    np.testing.assert_array_equal(np.load(out)["releases"], [allowed[g] for i, g in enumerate(gender) if i != 2])


def test_classes_are_told_in_the_words_of_any_file(tmp_path: Path) -> None:
    classes = {"smile": ("no", "yes"), "person": ("Bob", "Jos\u00e9")}
    contract = Contract(kind="vectors", shape=(D,), k=4, classes=classes, asks=True)
    release = Release(method="aia", config={}, contract=contract, encoder=Says())
    rows = [("True", "Jose\u0301"), ("FALSE", "Bob"), ("NULL", "-")]
    lines = [
        f"{smile},{person},{row}"
        for (smile, person), row in zip(rows, [f'"{x}"' for x in vectors(3).tolist()], strict=True)
    ]
    (tmp_path / "in.csv").write_text("\n".join(["smile,person,emb", *lines]), "utf-8")
    apply(release, tmp_path / "in.csv", tmp_path / "out.npz", told=["smile", "person"])
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["releases"], [[0, 0, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]])
    table = pa.table({"smile": [True, False, None], "emb": list(vectors(3))})
    pq.write_table(table, tmp_path / "in.parquet")
    apply(release, tmp_path / "in.parquet", tmp_path / "out.npz", told=["smile"], force=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["releases"], [[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]])


def test_a_pack_can_tell_the_class(people: Path, tmp_path: Path) -> None:
    pack = Pack.open(people)
    apply(telling_release(), people, tmp_path / "out.npz", told=["gender"])
    allowed = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]])  # the last for -1, unknown
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["releases"], allowed[pack.labels["gender"]])


def test_a_class_that_the_release_does_not_know_is_refused(album: Path, people: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    np.savez(tmp_path / "in.npz", vectors=vectors(3), gender=np.array(["f", "m", "fm"]))
    message = _refused(telling_release(), tmp_path / "in.npz", out, told=["gender"])
    assert "in.npz: row 2: gender must be one of f, m or unknown, got 'fm'" in message
    assert "has no column 'age' that tells a class; it has gender" in _refused(
        telling_release(), tmp_path / "in.npz", out, told=["age"]
    )
    assert "can be told (gender, age), got 'height'" in _refused(telling_release(), people, out, told=["height"])
    assert "can be told (none), got 'gender'" in _refused(vectors_release(), people, out, told=["gender"])
    assert "label 'age': the pack has" in _refused(telling_release(), people, out, told=["age"])
    assert "images have no labels" in _refused(telling_release(), album, out, told=["gender"])


def test_npy_has_no_way_to_say_that_a_row_is_missing(tmp_path: Path) -> None:
    x = vectors(6)
    x[4, 1] = np.inf
    source = put(tmp_path / "in.npy", x)
    assert "row 4 has a NaN or infinite value; an npy file cannot tell" in _refused(
        vectors_release(), source, tmp_path / "out.npy"
    )
    assert _left(tmp_path) == ["in.npy"]


def test_npy_has_no_way_to_say_that_an_image_is_missing(album: Path, tmp_path: Path) -> None:
    assert "an npy file cannot tell that it is left out" in _refused(images_release(), album, tmp_path / "out.npy")


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


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["images", "vectors", "image files"])
def test_rows_are_read_as_they_are_released(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Two batches are read ahead, of a file of any length; of images also those in the threads that decode."""
    read, ahead = 0, []
    if kind == "vectors":
        whole = VectorFile.blocks

        def blocks(self: VectorFile, *args: Any, **kwargs: Any) -> Iterator[Any]:
            nonlocal read
            for block in whole(self, *args, **kwargs):
                read += len(block.vectors)
                yield block

        monkeypatch.setattr(VectorFile, "blocks", blocks)
        source, release, most = put(tmp_path / "in.npy", vectors(700)), vectors_release(), 2 * 7
    else:
        decode, picture = decoding._decode_item, (album / "c.png").read_bytes()
        source, most = tmp_path / "in", 2 * 7 + (2 * 1 + 2) * decoding.CHUNK_ITEMS
        release = images_release() if kind == "images" else picture_release()
        source.mkdir()
        for i in range(700):
            (source / f"{i:03d}.png").write_bytes(picture)

        def decoded(*args: Any) -> Any:
            nonlocal read
            read += 1
            return decode(*args)

        monkeypatch.setattr(decoding, "_decode_item", decoded)
        monkeypatch.setattr(decoding.os, "cpu_count", lambda: 1)
    files = kind == "image files"
    out = tmp_path / ("out" if files else "out.parquet")
    apply(release, source, out, images=files, progress=lambda n, *_: ahead.append(read - n))
    assert len(ahead) == 100
    assert max(ahead) <= most


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
    assert "must end in .parquet, .npz or .npy" in _refused(vectors_release(), people, tmp_path / "out.csv")
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
def test_a_run_that_is_interrupted_before_its_first_part_leaves_nothing(
    people: Path, tmp_path: Path, name: str, error: type[BaseException]
) -> None:
    release = Release(method="aia", config={}, contract=Contract(kind="vectors", shape=(D,), k=K), encoder=Stops(error))
    with pytest.raises(error):
        apply(release, people, tmp_path / name, batch=7, part=700)
    assert _left(tmp_path) == []


def test_a_full_disk_leaves_nothing(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    message = _refused(vectors_release(), people, tmp_path / "out.npz")
    assert "(No space left on device); nothing was left behind" in message
    assert _left(tmp_path) == []


def test_a_part_is_whole_batches() -> None:
    with pytest.raises(InputError, match="part: must be whole batches of 7 rows, got 15"):
        Options(batch=7, part=15)


# -- resuming ---------------------------------------------------------------------------------------------------------

# A run of 16 parts of 14 rows that kills itself, unmercifully, while it releases batch BATCH; told by its arguments.
KILLED = textwrap.dedent("""
    import os, signal, sys
    sys.path.insert(0, sys.argv[1])
    import test_apply as t
    t.ROWS.update(batch=7, part=14)
    t.torch.set_num_threads(1)
    source, out, batch = t.Path(sys.argv[2]), t.Path(sys.argv[3]), int(sys.argv[4])

    class Killing(t.Counting):
        def forward(self, x):
            first = super().forward(x)
            if self.calls == batch:
                os.kill(os.getpid(), signal.SIGKILL)
            return first

    t.apply(t.replace(t.vectors_release(noise=0.5), encoder=Killing()), source, out)
""")


def _killed(source: Path, out: Path, batch: int) -> None:
    arguments = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(source), str(out), str(batch)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source of 223 vectors, bad ones among them, and what a run killed in batch 17 left of it."""
    folder = tmp_path_factory.mktemp("cut")
    x = vectors(223)
    x[[0, 40, 41, 200], 2] = np.nan
    put(folder / "in.parquet", x, [f"n{i}" for i in range(223)])
    _killed(folder / "in.parquet", folder / "out.parquet", 17)
    return folder


@pytest.fixture
def killed(cut: Path, tmp_path: Path) -> Path:
    shutil.copytree(cut, tmp_path / "cut")
    return tmp_path / "cut"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.usefixtures("small")
def test_a_killed_run_is_resumed_without_a_row_lost_or_doubled(killed: Path, tmp_path: Path) -> None:
    release, source, out = vectors_release(noise=0.5), killed / "in.parquet", killed / "out.parquet"
    counting = Counting()
    parts = sorted((killed / "out.parquet.partial").glob("part-*"))
    assert 5 <= len(parts) <= 8  # batches 1 to 16 are eight parts; the last may not have been on the disk yet
    assert not out.exists()
    assert "an unfinished run left it; resume to go on with it" in _refused(release, source, out)

    done, told = len(parts), []
    resumed = replace(release, encoder=counting)
    assert apply(resumed, source, out, resume=True, progress=lambda *m: told.append(m)) == (219, 4)
    assert counting.calls == 32 - 2 * done  # what was there was not released again
    assert told[0] == (14 * done + 7 - 3, 223, 3)
    assert told[-1] == (219, 223, 4)
    assert _left(killed) == ["in.parquet", "out.parquet", "out.parquet.skipped.csv"]

    apply(release, source, tmp_path / "whole.parquet")
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    with (killed / "out.parquet.skipped.csv").open() as file:
        listed = [row["source"] for row in csv.DictReader(file)]
    assert listed == ["n0", "n40", "n41", "n200"]
    assert _read(out)[0] == [f"n{i}" for i in range(223) if f"n{i}" not in listed]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["out.npz", "out.npy", "out"])
def test_every_target_can_be_resumed(people: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stops = Release(
        method="aia", config={}, contract=Contract(kind="vectors", shape=(D,), k=K), encoder=Stops(KeyboardInterrupt)
    )
    source = people if name == "out" else put(tmp_path / "in.npz", vectors(50), [str(i) for i in range(50)])
    with pytest.raises(KeyboardInterrupt):
        apply(stops, source, tmp_path / name)
    assert (tmp_path / f"{name}.partial").is_dir()
    assert not (tmp_path / name).exists()
    apply(vectors_release(), source, tmp_path / name, resume=True)
    assert not (tmp_path / f"{name}.partial").exists()
    apply(vectors_release(), source, tmp_path / "whole" / name)
    if name == "out":
        np.testing.assert_array_equal(Pack.open(tmp_path / name).x, Pack.open(tmp_path / "whole" / name).x)
    else:
        assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.usefixtures("small")
def test_what_changed_since_is_refused_and_the_parts_stay(killed: Path) -> None:
    release, source, out = vectors_release(noise=0.5), killed / "in.parquet", killed / "out.parquet"
    before = [name for name in _left(killed / "out.parquet.partial") if not name.startswith(".")]  # which goes

    def refused(what: str, release: Release, *, out: Path = out, **options: Any) -> None:
        message = _refused(release, source, out, resume=True, **options)
        assert f"was begun with another {what}; force to start anew" in message
        assert _left(killed / "out.parquet.partial") == before

    refused("release", vectors_release(noise=0.6))
    refused("release", replace(release, key=bytes(32)))
    refused("way to name rows", release, row_numbers=True)
    refused("column of vectors", release, column="face")
    rows = pq.read_table(source)
    pq.write_table(rows.slice(1), source)
    refused("source", release)
    refused("source and release", vectors_release(noise=0.6))
    (killed / "out.parquet.partial" / "run.json").write_text("{")
    assert "run.json: cannot be read" in _refused(release, source, out, resume=True)
    # Anew, with the source as it is now.
    assert apply(release, source, out, force=True) == (219, 3)
    assert _left(killed) == ["in.parquet", "out.parquet", "out.parquet.skipped.csv"]


def _later(folder: Path) -> None:
    """Other times of change for a file, or all in a folder."""
    for path in [folder, *folder.rglob("*")]:
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


@pytest.mark.usefixtures("small")
def test_a_source_of_other_times_is_the_same_where_its_rows_are(killed: Path, tmp_path: Path) -> None:
    release, source, out = vectors_release(noise=0.5), killed / "in.parquet", killed / "out.parquet"
    done = len(list((killed / "out.parquet.partial").glob("part-*")))
    _later(source)
    told: list[tuple[int, int | None, int]] = []
    assert apply(release, source, out, resume=True, progress=lambda *m: told.append(m)) == (219, 4)
    assert told[0] == (6, 223, 1)  # the rows that are done are read again,
    assert told[2 * done][0] == 14 * done + 7 - 3  # and the others released
    apply(release, source, tmp_path / "whole.parquet")
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("row", "refused"), [(5, True), (200, False)])
def test_a_changed_row_is_noticed_whatever_the_files_size_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int, refused: bool
) -> None:
    """Of rows that were released already; others are released as they are now."""
    monkeypatch.setattr(sources, "_END", 64)
    x = vectors(223)
    source, out = put(tmp_path / "in.npy", x), tmp_path / "out.npz"
    stops = replace(vectors_release(), encoder=Stops(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        apply(stops, source, out)
    assert len(list((tmp_path / "out.npz.partial").glob("part-*"))) == 1  # of 14 rows
    x[row, 1] += 1
    _later(put(source, x))
    if refused:
        message = _refused(vectors_release(), source, out, resume=True)
        assert "was begun with another source; force to start anew" in message
    else:
        assert apply(vectors_release(), source, out, resume=True) == (223, 0)
        apply(vectors_release(), source, tmp_path / "whole.npz")
        assert out.read_bytes() == (tmp_path / "whole.npz").read_bytes()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("changed", [True, False])
def test_images_of_other_times_are_read_again(many: Path, tmp_path: Path, changed: bool) -> None:
    for path in many.rglob("*.png"):
        if path.name != "03.png":
            Image.open(path).convert("L").save(path, "BMP")  # of one size, whatever it shows
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        apply(picture_release(encoder=Interrupted()), many, out, images=True)
    victim = many / "0" / "06.png"
    size = victim.stat().st_size
    if changed:
        Image.fromarray(255 - np.asarray(Image.open(victim))).save(victim, "BMP")
    _later(many)
    assert victim.stat().st_size == size
    if changed:
        message = _refused(picture_release(), many, out, images=True, resume=True)
        assert "was begun with another source; force to start anew" in message
        return
    encoder = Interrupted(np.inf)
    assert apply(picture_release(encoder=encoder), many, out, images=True, resume=True) == (29, 1)
    assert encoder.calls == 3
    apply(picture_release(), many, tmp_path / "whole", images=True)
    assert _bytes(out) == _bytes(tmp_path / "whole")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("damage", ["cut", "zeros"])
def test_a_part_that_was_damaged_is_made_again(killed: Path, tmp_path: Path, damage: str) -> None:
    release, source, out = vectors_release(noise=0.5), killed / "in.parquet", killed / "out.parquet"
    part = killed / "out.parquet.partial" / "part-000002.arrow"
    run = json.loads((part.parent / "run.json").read_text())
    values = Parts(out, Division(rows=223, k=K, each=14), run=run, resume=True)
    held = values.read(2).values[5].tobytes()
    values.__exit__(KeyboardInterrupt)  # others may go on with the parts
    whole = part.read_bytes()
    assert whole.count(held) == 1
    part.write_bytes(whole[:-40] if damage == "cut" else whole.replace(held, bytes(len(held))))
    assert apply(release, source, out, resume=True) == (219, 4)
    apply(release, source, tmp_path / "whole.parquet")
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.parametrize("options", [{}, {"force": True}, {"resume": True}])
def test_a_folder_that_is_no_runs_is_left_alone(tmp_path: Path, options: dict[str, bool]) -> None:
    source = put(tmp_path / "in.npy", vectors(5))
    (tmp_path / "out.npy.partial").mkdir()
    (tmp_path / "out.npy.partial" / "diary").touch()
    assert "it is not an earlier run's" in _refused(vectors_release(), source, tmp_path / "out.npy", **options)
    assert _left(tmp_path / "out.npy.partial") == ["diary"]


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("options", [{}, {"force": True}, {"resume": True}])
def test_of_two_runs_at_a_time_the_second_is_refused(tmp_path: Path, options: dict[str, bool]) -> None:
    source, out = put(tmp_path / "in.npy", vectors(50)), tmp_path / "out.npz"
    messages = []

    def second(done: int, *rest: object) -> None:
        if not messages:
            messages.append(_refused(vectors_release(noise=0.5), source, out, **options))

    assert apply(vectors_release(), source, out, progress=second) == (50, 0)
    assert "out.npz.partial: another run is writing there now" in messages[0]
    assert _left(tmp_path) == ["in.npy", "out.npz"]
    with np.load(out) as made:
        np.testing.assert_array_equal(made["releases"], vectors_release().transform(vectors(50)))


@pytest.mark.parametrize("options", [{}, {"resume": True}])
def test_a_run_that_was_killed_before_it_said_what_it_was_is_in_nobodys_way(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    source = put(tmp_path / "in.npy", vectors(5))
    (tmp_path / "out.npy.partial").mkdir()
    (tmp_path / "out.npy.partial" / ".run.json.0123456789abcdef.part").touch()
    assert apply(vectors_release(), source, tmp_path / "out.npy", **options) == (5, 0)
    assert _left(tmp_path) == ["in.npy", "out.npy"]


def test_resuming_what_was_never_begun_begins_it(tmp_path: Path) -> None:
    source = put(tmp_path / "in.npy", vectors(5))
    assert apply(vectors_release(), source, tmp_path / "out.npy", resume=True) == (5, 0)


@pytest.mark.usefixtures("small")
def test_what_was_done_before_the_disk_was_full_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out, write = put(tmp_path / "in.npy", vectors(50)), tmp_path / "out.npz", Parts.write

    def full(self: Parts, number: int, part: Part) -> None:
        if number == 2:
            raise OSError(28, "No space left on device")
        write(self, number, part)

    monkeypatch.setattr(Parts, "write", full)
    message = _refused(vectors_release(), source, out)
    assert "out.npz: cannot be written (No space left on device); what was done waits in out.npz.partial" in message
    monkeypatch.undo()
    assert json.loads((tmp_path / "out.npz.partial" / "run.json").read_text())["kind of target"] == ".npz"


# -- image files ------------------------------------------------------------------------------------------------------

# -- aligned faces ----------------------------------------------------------------------------------------------------


EYES = {"b/2.png": Eyes(5, 6, 9, 7), "a/1.png": Eyes(4, 9, 6, 2), "c.png": Eyes(1, 3, 15, 3), "e.png": Eyes(5, 5, 6, 5)}


@pytest.fixture
def eyes(tmp_path: Path) -> Path:
    return _landmarks(tmp_path / "eyes.csv", EYES)


def _landmarks(path: Path, eyes: dict[str, Eyes]) -> Path:
    rows = [f"{name},{e.left_x},{e.left_y},{e.right_x},{e.right_y}" for name, e in eyes.items()]
    path.write_text("\n".join(["path,left_eye_x,left_eye_y,right_eye_x,right_eye_y", *rows]))
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
@pytest.mark.parametrize("row_numbers", [False, True])
def test_faces_are_aligned_as_in_the_training_pack(
    album: Path, eyes: Path, tmp_path: Path, suffix: str, row_numbers: bool
) -> None:
    release, out = images_release(aligned=True), tmp_path / f"out{suffix}"
    assert apply(release, album, out, landmarks=eyes, row_numbers=row_numbers) == (4, 3)
    names, values = _read(out)
    packed = build.pack("folder", album, tmp_path / "pack", size=SIZE, landmarks=eyes)
    assert packed.sources.tolist() == ["c.png", "e.png", "a/1.png", "b/2.png"]
    assert names == (["0", "1", "2", "4"] if row_numbers else packed.sources.tolist())
    np.testing.assert_array_equal(values, release.transform(np.asarray(packed.x)))
    with (tmp_path / f"out{suffix}.skipped.csv").open() as file:
        reasons = {row["source"]: row["reason"] for row in csv.DictReader(file)}
    lost = "no row in eyes.csv, which tells where eyes are"
    assert reasons == dict.fromkeys(["3", "5", "6"] if row_numbers else ["b/1.png", "b/broken.png", "d/x.png"], lost)


def test_landmarks_are_asked_for_where_faces_were_aligned_and_nowhere_else(
    album: Path, people: Path, eyes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.npz"
    for release, options in ((images_release(aligned=True), {}), (picture_release(aligned=True), {"images": True})):
        target = tmp_path / "out" if options else out
        assert _refused(release, album, target, **options) == (
            f"{album}: the release was fitted on aligned faces, so faces must be found (--faces), or a file of "
            "landmarks must say where eyes are, got neither"
        )
        assert _refused(replace(release, contract=replace(release.contract, aligned=False)), album, target,
                        landmarks=eyes, **options) == (
            f"landmarks {eyes}: must not be given, as the release was not fitted on aligned faces"
        )  # fmt: skip
    vectors = put(tmp_path / "in.npy", np.ones((3, D), np.float32))
    only = "only a folder or a table of images is aligned, got"
    assert f"{only} a file" in _refused(vectors_release(), vectors, out, landmarks=eyes)
    assert f"{only} a pack" in _refused(vectors_release(), people, out, landmarks=eyes)
    eyes.write_text("path,left_eye_x\n")
    assert "its header must name the column left_eye_y once" in _refused(
        images_release(aligned=True), album, out, landmarks=eyes
    )
    assert _left(tmp_path) == ["eyes.csv", "in.npy"]


def test_packs_are_aligned_as_the_training_pack_was(album: Path, eyes: Path, tmp_path: Path) -> None:
    out, aligned, plain = tmp_path / "out.npz", tmp_path / "aligned", tmp_path / "plain"
    build.pack("folder", album, aligned, size=SIZE, landmarks=eyes)
    build.pack("folder", album, plain, size=SIZE)
    was = "the release was fitted on faces that were"
    for pack, other, rule in (
        (aligned, False, "not aligned by their eyes, the pack's aligned"),
        (plain, True, "aligned by their eyes, the pack's not aligned"),
    ):
        release = images_release(aligned=other)
        assert _refused(release, pack, out) == f"{pack}: {was} {rule}"
        opened = Pack.open(pack)
        with pytest.raises(InputError, match=f"^A: {was} {rule}$"):
            audit(opened, [Subject(name="A", release=release)], tmp_path / "audit", private=[], utility=["identity"])
        with pytest.raises(InputError, match=f"^base: {was} {rule}$"):
            fit("random", opened, private=["identity"], base=release)
        assert apply(images_release(aligned=not other), pack, tmp_path / f"{other}.npz")[0] >= 4
        images_release(aligned=other).contract.check_framing(replace(opened, meta={}), "made in memory")
    assert not (tmp_path / "audit").exists()


def test_image_files_of_aligned_faces_are_their_squares(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    _smooth(60, 44, "RGB").save(source / "a.png")
    _smooth(60, 44, "RGB").save(source / "turned.tif", tiffinfo={Tag.Orientation: 6})  # upright it is 44 by 60
    _smooth(60, 44, "L").save(source / "large.png")
    _smooth(60, 44, "L").save(source / "small.bmp")
    _smooth(60, 44, "L").save(source / "none.bmp")
    eyes = {
        "a.png": (Eyes(20, 20, 26, 28), 30),  # 6 across and 8 down: 10 apart
        "turned.tif": (Eyes(20, 50, 29, 50), 27),
        "large.png": (Eyes(2, 20, 58, 20), 44),  # its square is larger than the file
        "small.bmp": (Eyes(20, 20, 20.35, 20), 1),
    }
    landmarks = _landmarks(tmp_path / "eyes.csv", {name: e for name, (e, _) in eyes.items()})
    release = picture_release(3, aligned=True)
    assert apply(release, source, out, images=True, landmarks=landmarks) == (4, 1)
    assert _tree(out) == sorted(eyes)
    for name, (places, side) in eyes.items():
        x = decode.decode((source / name).read_bytes(), SIZE, 3, eyes=places)
        want = Image.fromarray(release.transform(x[None])[0]).resize((side, side), Image.Resampling.LANCZOS)
        with Image.open(out / name) as image:
            assert image.size == (side, side), name
            np.testing.assert_array_equal(np.asarray(image), np.asarray(want), err_msg=name)


@pytest.mark.usefixtures("small")
def test_a_run_is_not_resumed_with_other_landmarks(many: Path, tmp_path: Path) -> None:
    places = {path.relative_to(many).as_posix(): Eyes(3, 4, 5, 4) for path in sorted(many.rglob("*.png"))}
    release, out = images_release(aligned=True), tmp_path / "out.npz"
    landmarks = _landmarks(tmp_path / "eyes.csv", places)

    def stop(done: int, *_: object) -> None:
        if done > 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(release, many, out, landmarks=landmarks, progress=stop)
    whole = landmarks.read_text()
    _landmarks(landmarks, {name: replace(e, left_x=2) for name, e in places.items()})
    message = _refused(release, many, out, landmarks=landmarks, resume=True)
    assert "was begun with another file of landmarks; force to start anew" in message
    landmarks.write_text(whole)
    n, skipped = apply(release, many, out, landmarks=landmarks, resume=True)
    assert (n, skipped) == (29, 1)
    assert _read(out)[0] == [name for name in places if name != "0/03.png"]


def test_the_command_takes_landmarks(
    album: Path, eyes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Release, "load", staticmethod(lambda *_, **__: picture_release(aligned=True)))
    monkeypatch.setattr(process.signal, "signal", lambda *_: None)

    def command(*options: object) -> tuple[int, str]:
        arguments = ["veil", "apply", "release", album, tmp_path / "out", "--images", *options]
        monkeypatch.setattr(sys, "argv", [str(a) for a in arguments])
        with pytest.raises(SystemExit) as caught:
            process.main()
        shown = capsys.readouterr()
        return int(caught.value.code or 0), shown.out + shown.err

    status, shown = command()
    assert (status, shown.count("\n"), "a file of landmarks must say where eyes are" in shown) == (2, 1, True)
    status, shown = command("--landmarks", eyes)
    assert (status, "4 images; 3 skipped, listed in" in shown.replace("\n", " ")) == (0, True)
    assert _tree(tmp_path / "out") == sorted(EYES)


SECRET = "Jane Doe"
MARKS = [SECRET.encode(), b"Exif", b"ICC_PROFILE", b"acsp", b"ns.adobe.com", b"xmpmeta"]  # acsp: of any ICC profile


def picture_release(channels: int = 1, encoder: nn.Module | None = None, **contract: Any) -> Release:
    shape = (SIZE, SIZE) if channels == 1 else (SIZE, SIZE, 3)
    c = Contract(kind="images", shape=shape, k=SIZE * SIZE * channels, image=shape, **contract)
    return Release(method="mi", config={}, contract=c, encoder=encoder or Negative())


def _smooth(width: int, height: int, mode: str) -> Image.Image:
    """A picture of which JPEG loses little."""
    y, x = np.mgrid[:height, :width]
    planes = [200 * x / width + 20, 200 * y / height + 20, 100 * (x / width + y / height) + 20]
    return Image.fromarray(np.round(np.dstack(planes) if mode == "RGB" else planes[0]).astype(np.uint8))


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[Tag.Orientation] = 6
    exif[Tag.Artist] = SECRET
    exif[Tag.GPSInfo] = {1: "N", 2: (48.0, 51.0, 30.0)}
    return exif


PICTURES = {
    "a/turned.jpg": ("JPEG", "RGB", (40, 24)),
    "a/words.png": ("PNG", "RGB", (33, 20)),
    "b/deep/grey.JPG": ("JPEG", "L", (50, 50)),
    "b/grey.png": ("PNG", "L", (16, 16)),
    "b/large.png": ("PNG", "RGB", (90, 91)),
    "c.webp": ("WEBP", "RGB", (21, 30)),
    "d.bmp": ("BMP", "RGB", (20, 20)),
    "e.tif": ("TIFF", "RGB", (24, 40)),
    "f.gif": ("GIF", "L", (30, 31)),
    "named.jpg": ("PNG", "RGB", (18, 19)),  # what a file is counts, not its name
}
TURNED = ("a/turned.jpg", "c.webp", "e.tif")


@pytest.fixture(scope="module")
def holiday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all formats that hold more than a picture; one that is cut short, and one of text."""
    root = tmp_path_factory.mktemp("holiday") / "holiday"
    xmp = f"<x:xmpmeta><dc:creator>{SECRET}</dc:creator></x:xmpmeta>"
    words = PngInfo()
    words.add_text("Author", SECRET)
    words.add_text("Comment", SECRET, zip=True)
    words.add_itxt("XML:com.adobe.xmp", xmp)
    more: dict[str, dict[str, Any]] = {
        "JPEG": {"exif": _exif(), "comment": SECRET, "xmp": xmp.encode(), "dpi": (300, 300)},
        "PNG": {"pnginfo": words, "dpi": (300, 300)},
        "WEBP": {"exif": _exif(), "xmp": xmp.encode()},
        "TIFF": {"tiffinfo": {Tag.Orientation: 6, Tag.ImageDescription: SECRET, 700: xmp.encode()}},
        "GIF": {"comment": SECRET},
        "BMP": {"dpi": (300, 300)},
    }
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, (form, mode, size) in PICTURES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        icc = {} if form in ("BMP", "GIF") else {"icc_profile": profile}
        _smooth(*size, mode).save(root / name, form, **more[form], **icc)
        held = (root / name).read_bytes()
        assert form == "BMP" or SECRET.encode() in held
        assert not icc or form == "PNG" or b"acsp" in held  # PNG compresses it
    whole = (root / "b" / "large.png").read_bytes()
    (root / "b" / "broken.png").write_bytes(whole[: len(whole) // 2])
    (root / "notes.txt").write_text(SECRET)
    return root


def _tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def _bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in _tree(folder)}


def _segments(jpeg: bytes) -> list[int]:
    """The markers of a JPEG up to its pixels."""
    at, found = 2, []
    while not found or found[-1] != 0xDA:
        assert jpeg[at] == 0xFF
        found.append(jpeg[at + 1])
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return found


def _chunks(png: bytes) -> list[bytes]:
    at, found = 8, []
    while at < len(png):
        found.append(png[at + 4 : at + 8])
        at += 12 + int.from_bytes(png[at : at + 4], "big")
    return found


def _expected(release: Release, path: Path, size: tuple[int, int]) -> Image.Image:
    channels = 3 if len(release.contract.shape) == 3 else 1
    x = decode.decode(path.read_bytes(), SIZE, channels, release.contract.crop)
    return Image.fromarray(release.transform(x[None])[0]).resize(size, Image.Resampling.LANCZOS)


@pytest.mark.parametrize("channels", [1, 3])
def test_image_files_are_those_of_the_source_without_what_they_say(
    holiday: Path, tmp_path: Path, channels: int
) -> None:
    release, out = picture_release(channels), tmp_path / "out"
    before = _bytes(holiday)
    told: list[tuple[int, int | None, int]] = []
    assert apply(release, holiday, out, images=True, progress=lambda *m: told.append(m)) == (10, 1)
    assert told[-1] == (10, 11, 1)
    assert _bytes(holiday) == before
    assert _tree(out) == sorted(PICTURES)
    assert _left(tmp_path) == ["out", "out.skipped.csv"]
    with (tmp_path / "out.skipped.csv").open() as file:
        assert [row["source"] for row in csv.DictReader(file)] == ["b/broken.png"]
    for name, (form, _, size) in PICTURES.items():
        data = (out / name).read_bytes()
        for mark in MARKS:
            assert mark not in data, (name, mark)
        with Image.open(out / name) as image:
            assert (image.format, image.size) == (form, size[::-1] if name in TURNED else size), name
            grey = "RGB" if form == "WEBP" else "L"  # WebP has no grey
            assert image.mode == ("P" if form == "GIF" else grey if channels == 1 else "RGB"), name
            assert not {"exif", "icc_profile", "xmp", "comment", "photoshop"} & image.info.keys(), name
            if form == "JPEG":
                assert set(_segments(data)) <= {0xE0, 0xDB, 0xC0, 0xC4, 0xDA}, name  # JFIF, tables, frame and scan
                assert data[6:11] == b"JFIF\0"
            elif form == "PNG":
                assert set(_chunks(data)) == {b"IHDR", b"IDAT", b"IEND"}, name
            elif form == "TIFF":
                assert image.getexif().get(Tag.Orientation, 1) == 1
                assert not image.tag_v2.keys() & {Tag.ImageDescription, Tag.Artist, Tag.Software, Tag.ExifOffset, 700}
            wanted = _expected(release, holiday / name, image.size)
            got, want = (np.asarray(i.convert("RGB")).astype(int) for i in (image, wanted))
        if form in ("PNG", "BMP", "TIFF") or (form == "GIF" and channels == 1):
            np.testing.assert_array_equal(got, want, err_msg=name)
        else:
            assert np.abs(got - want).mean() < 3, name


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("how", ["Exif", "XMP"])
def test_sizes_are_upright_whatever_says_so(tmp_path: Path, form: str, how: str) -> None:
    (tmp_path / "in").mkdir()
    for turn in range(1, 9):
        exif, words = Image.Exif(), PngInfo()
        exif[Tag.Orientation] = turn
        xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{turn}"/></x:xmpmeta>'
        words.add_itxt("XML:com.adobe.xmp", xmp)
        options: dict[str, Any] = {"exif": exif}
        if how == "XMP":
            options = {"PNG": {"pnginfo": words}, "TIFF": {"tiffinfo": {700: xmp.encode()}}}.get(
                form, {"xmp": xmp.encode()}
            )
        _smooth(30, 20, "RGB").save(tmp_path / "in" / f"{turn}.png", form, **options)
    apply(picture_release(), tmp_path / "in", tmp_path / "out", images=True)
    for turn in range(1, 9):
        turned = turn > 4 and (how, form) != ("XMP", "JPEG")  # of JPEGs Exif alone counts
        with Image.open(tmp_path / "out" / f"{turn}.png") as image:
            assert (image.format, image.size) == (form, (20, 30) if turned else (30, 20))


def test_of_a_crop_only_the_crop_is_written(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    _smooth(40, 24, "RGB").save(source / "a.jpg", exif=_exif())  # upright it is 24 by 40
    _smooth(41, 32, "L").save(source / "b.png")
    release = picture_release(crop=(0.25, 0.25, 0.75, 0.5))
    assert apply(release, source, out, images=True) == (2, 0)
    for name, size in (("a.jpg", (12, 10)), ("b.png", (20, 8))):
        with Image.open(out / name) as image:
            assert image.size == size
            got = np.asarray(image).astype(int)
        assert np.abs(got - np.asarray(_expected(release, source / name, size))).max() <= (0 if name == "b.png" else 8)


def test_image_files_can_be_named_by_number(holiday: Path, tmp_path: Path) -> None:
    """No name goes along, in lists neither; such a run resumes, and is not one of other names."""
    release, plain, out = picture_release(), tmp_path / "plain", tmp_path / "out"
    ask: dict[str, Any] = {"images": True, "row_numbers": True, "batch": 2}
    apply(release, holiday, plain, images=True)
    assert apply(release, holiday, out, **ask) == (10, 1)
    names = [name for name, _ in walk(holiday)[0]]
    numbers = {name: f"{i:06d}{Path(name).suffix.lower()}" for i, name in enumerate(names)}
    assert _tree(out) == sorted(numbers[name] for name in PICTURES)
    for name in PICTURES:
        assert (out / numbers[name]).read_bytes() == (plain / name).read_bytes()
    listed = (tmp_path / "out.skipped.csv").read_text()
    assert listed.startswith(f"source,reason\n{names.index('b/broken.png')},")
    assert "broken" not in listed
    assert apply(release, holiday, out, **ask, resume=True) == (10, 1)
    before = _bytes(out)
    for path in [*out.iterdir(), tmp_path / "out.skipped.csv"]:
        path.unlink()
    with pytest.raises(KeyboardInterrupt):
        apply(release, holiday, out, **ask, progress=_stop_at(6))
    assert 0 < len(_tree(out)) < 10
    assert "another way to name rows" in _refused(release, holiday, out, images=True, batch=2, resume=True)
    (out / _tree(out)[0]).unlink()
    assert apply(release, holiday, out, **ask, resume=True) == (10, 1)
    assert _bytes(out) == before
    assert "000000" in _refused(release, holiday, out, **ask)


def _stop_at(rows: int) -> Callable[[int, int | None, int], None]:
    def stop(done: int, total: int | None, skipped: int) -> None:
        if done >= rows:
            raise KeyboardInterrupt

    return stop


def test_what_stands_in_the_way_of_image_files_is_kept_unless_forced(holiday: Path, tmp_path: Path) -> None:
    release, out = picture_release(), tmp_path / "out"
    (out / "b").mkdir(parents=True)
    (out / "b" / "grey.png").write_text("mine")
    (out / "mine.txt").write_text("mine")
    before = _bytes(tmp_path)
    message = _refused(release, holiday, out, images=True)
    assert message == f"{out / 'b' / 'grey.png'}: already exists; choose another folder or force"
    assert _bytes(tmp_path) == before
    assert "is not what this run gives" in _refused(release, holiday, out, images=True, resume=True)
    assert _bytes(tmp_path) == before
    assert apply(release, holiday, out, images=True, force=True) == (10, 1)
    assert _tree(out) == sorted([*PICTURES, "mine.txt"])
    assert (out / "mine.txt").read_text() == "mine"
    done = _bytes(tmp_path)
    assert done["out/b/grey.png"] != b"mine"
    assert "already exists" in _refused(release, holiday, out, images=True)
    assert apply(release, holiday, out, images=True, resume=True) == (10, 1)  # a run that is done
    assert _bytes(tmp_path) == done
    (out / "b" / "grey.png").write_text("mine")
    assert "b/grey.png: is not what this run gives" in _refused(release, holiday, out, images=True, resume=True)
    assert (out / "b" / "grey.png").read_text() == "mine"
    assert apply(release, holiday, out, images=True, force=True) == (10, 1)
    assert _bytes(tmp_path) == done
    # The list of another source's skipped files is not replaced either.
    (tmp_path / "in").mkdir()
    _smooth(9, 9, "L").save(tmp_path / "in" / "new.png")
    assert "out.skipped.csv: already exists" in _refused(release, tmp_path / "in", out, images=True)
    assert _bytes(out) == {name.removeprefix("out/"): data for name, data in done.items() if name[:4] == "out/"}


def test_what_cannot_be_written_as_image_files_is_refused(holiday: Path, people: Path, tmp_path: Path) -> None:
    release, out, album = picture_release(), tmp_path / "out", tmp_path / "in" / "album"
    shutil.copytree(holiday, album)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(album)
    (tmp_path / "led" / "a").mkdir(parents=True)
    (tmp_path / "led" / "b").symlink_to(album / "b")
    (tmp_path / "way" / "d.bmp").mkdir(parents=True)
    before = _bytes(tmp_path)

    def refused(release: Release, source: Path, out: Path, **options: Any) -> str:
        message = _refused(release, source, out, images=True, **options)
        assert _bytes(tmp_path) == before
        return message

    assert refused(images_release(), album, out) == (
        "images: the release must give images, got one that gives vectors of 3 values"
    )
    assert "got one that gives vectors" in refused(vectors_release(), people, out)
    assert "from a folder of images, got a pack" in refused(release, people, out)
    assert "from a folder of images, got a file" in refused(release, tmp_path / "file", out)
    assert "does not exist" in refused(release, tmp_path / "nowhere", out)
    assert "images have no labels" in refused(release, album, out, told=["gender"])
    for force in (False, True):
        assert "is the source itself" in refused(release, album, album, force=force)
        assert "is the source itself" in refused(release, album, tmp_path / "link", force=force)
        assert "lies inside the source" in refused(release, album, album / "out", force=force)
        assert "lies inside the source" in refused(release, album, tmp_path / "link" / "b" / "out", force=force)
        assert "could be overwritten" in refused(release, album, tmp_path / "in", force=force)
        assert f"{tmp_path / 'file'}: is a file" in refused(release, album, tmp_path / "file", force=force)
        assert "got one that ends in .npz" in refused(release, album, tmp_path / "out.npz", force=force)
        assert "not a name for a folder" in refused(release, album, Path(), force=force)
    assert "led/b: leads out of" in refused(release, album, tmp_path / "led", force=True)
    assert "d.bmp: is a folder where an image file is to be" in refused(release, album, tmp_path / "way", force=True)
    assert "cannot be written (Not a directory); nothing was left" in refused(release, album, tmp_path / "file" / "out")


def test_a_folder_without_a_readable_image_leaves_no_image_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert "it is empty" in _refused(picture_release(), tmp_path / "in", tmp_path / "out", images=True)
    (tmp_path / "in" / "a.png").write_bytes(b"no image")
    assert "the first of 1 is a.png: " in _refused(picture_release(), tmp_path / "in", tmp_path / "out", images=True)
    assert _left(tmp_path) == ["in"]


def test_formats_that_pillow_cannot_write_are_skipped(
    holiday: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(Image.SAVE, "BMP")
    assert apply(picture_release(), holiday, tmp_path / "out", images=True) == (9, 2)
    assert _tree(tmp_path / "out") == sorted(PICTURES.keys() - {"d.bmp"})
    assert "d.bmp,Pillow cannot write BMP" in (tmp_path / "out.skipped.csv").read_text().splitlines()


def test_a_list_of_skipped_images_does_not_outlive_them(holiday: Path, tmp_path: Path) -> None:
    shutil.copytree(holiday, tmp_path / "in")
    apply(picture_release(), tmp_path / "in", tmp_path / "out", images=True)
    (tmp_path / "in" / "b" / "broken.png").unlink()
    assert apply(picture_release(), tmp_path / "in", tmp_path / "out", images=True, force=True) == (10, 0)
    assert _left(tmp_path) == ["in", "out"]


def test_names_may_be_as_long_as_the_system_allows_and_of_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = ["x" * 251 + ".png", os.fsdecode(b"\xff.png")]
    for name in names:
        try:
            _smooth(9, 9, "L").save(tmp_path / "in" / name)
        except OSError:
            pytest.skip("the file system takes no such name")
    assert apply(picture_release(), tmp_path / "in", tmp_path / "out", images=True) == (2, 0)
    assert sorted(_left(tmp_path / "out")) == sorted(names)


class Interrupted(nn.Module):
    """Redraws two batches, then is interrupted; counts them."""

    def __init__(self, after: float = 2) -> None:
        super().__init__()
        self.after, self.calls = after, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > self.after:
            raise KeyboardInterrupt
        return 1 - x


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """30 images, one of them unreadable: five batches where these are small."""
    folder = tmp_path / "many"
    for i in range(30):
        path = folder / f"{i % 3}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 9), dtype=np.uint8)).save(path)
    (folder / "0" / "03.png").write_bytes(b"no image")
    return folder


@pytest.mark.usefixtures("small")
def test_image_files_of_an_interrupted_run_are_resumed(many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        apply(picture_release(encoder=Interrupted()), many, out, images=True)
    assert len(_tree(out)) == 13  # two batches less the unreadable one
    before = _bytes(tmp_path)
    assert "an unfinished run left it; resume to go on with it" in _refused(picture_release(), many, out, images=True)
    other = picture_release(crop=(0.0, 0.0, 0.5, 0.5))
    assert "another release" in _refused(other, many, out, images=True, resume=True)
    assert _bytes(tmp_path) == before
    encoder = Interrupted(np.inf)
    told: list[tuple[int, int | None, int]] = []
    done = apply(picture_release(encoder=encoder), many, out, images=True, resume=True,
                 progress=lambda *m: told.append(m))  # fmt: skip
    assert (done, encoder.calls, told[0]) == ((29, 1), 3, (20, 30, 1))
    assert _left(tmp_path) == ["many", "out", "out.skipped.csv"]
    apply(picture_release(), many, tmp_path / "whole", images=True)
    assert _bytes(out) == _bytes(tmp_path / "whole")
    assert (tmp_path / "out.skipped.csv").read_bytes() == (tmp_path / "whole.skipped.csv").read_bytes()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_image_files_that_were_damaged_since_are_made_again(many: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        apply(picture_release(encoder=Interrupted()), many, out, images=True)
    victim = out / "0" / "27.png"  # the tenth: in the second batch
    victim.unlink() if damage == "gone" else victim.write_bytes(victim.read_bytes()[:-1])
    encoder = Interrupted(np.inf)
    assert apply(picture_release(encoder=encoder), many, out, images=True, resume=True) == (29, 1)
    assert encoder.calls == 4
    apply(picture_release(), many, tmp_path / "whole", images=True)
    assert _bytes(out) == _bytes(tmp_path / "whole")


def test_image_files_written_before_the_disk_was_full_are_known(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, place = tmp_path / "out", image_files.place

    def full(path: Path, data: bytes) -> None:
        if path.name == "21.png":
            path.with_name(".21.png.0123456789abcdef.part").write_bytes(b"half a file that a kill has left")
            raise OSError(28, "No space left on device")
        place(path, data)

    monkeypatch.setattr(image_files, "place", full)
    message = _refused(picture_release(), many, out, images=True)
    assert "cannot be written (No space left on device); what was done waits in out.partial to be resumed" in message
    assert len(_tree(out)) == 6 + 1  # no batch was whole, but these files are there, and the half of one
    monkeypatch.undo()
    assert "resume to go on with it" in _refused(picture_release(), many, out, images=True)
    with pytest.raises(KeyboardInterrupt):  # the record outlives another failure, before anything was written
        apply(picture_release(encoder=Interrupted(0)), many, out, images=True, resume=True)
    assert apply(picture_release(), many, out, images=True, resume=True) == (29, 1)
    apply(picture_release(), many, tmp_path / "whole", images=True)
    assert _bytes(out) == _bytes(tmp_path / "whole")  # what was left half is gone


def test_an_interrupted_run_that_wrote_no_image_file_leaves_nothing(many: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        apply(picture_release(encoder=Interrupted(0)), many, tmp_path / "out", images=True)
    assert _left(tmp_path) == ["many"]


def test_the_command_writes_image_files(
    holiday: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Release, "load", staticmethod(lambda *_, **__: picture_release()))
    handler = signal.getsignal(signal.SIGTERM)

    def command(*options: str, out: str = "out") -> tuple[int, str]:
        arguments = ["veil", "apply", "release", str(holiday), str(tmp_path / out), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as caught:
            process.main()
        shown = capsys.readouterr()
        return int(caught.value.code or 0), shown.out + shown.err

    try:
        status, shown = command()  # a folder is a pack unless image files are asked for
        assert (status, "or ask for images" in shown) == (2, True)
        status, shown = command("--images")
        assert (status, "10 images; 1 skipped, listed in" in shown.replace("\n", " ")) == (0, True)
        status, shown = command("--images")
        assert (status, shown.count("\n"), "already exists" in shown) == (2, 1, True)
        assert command("--images", "--force")[0] == 0
        status, shown = command("--images", "--strict", out="strict")
        assert (status, "--strict was asked for" in shown) == (2, True)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert _bytes(tmp_path / "strict") == _bytes(tmp_path / "out")


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
    path = _saved(tmp_path / "v.npz", np.vstack([x[[2, 1, 3, 0]], x[:1]]), ["0", "1", "2", "3", "4"])
    np.testing.assert_array_equal(read_vectors(path, pack), x)


def test_without_names_the_order_is_the_packs_even_if_its_sources_are_numbers(tmp_path: Path) -> None:
    x = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    pack = Pack.from_arrays(x, {"gender": list("abab")}, sources=["3", "1", "0", "2"])
    np.save(tmp_path / "v.npy", x)
    np.testing.assert_array_equal(read_vectors(tmp_path / "v.npy", pack), x)
    # Are these sources, or the row numbers that `apply --row-numbers` writes?
    path = _saved(tmp_path / "v.npz", x, ["0", "1", "2", "3"])
    with pytest.raises(InputError, match="must tell sources from row numbers, but holds 0 to 3"):
        read_vectors(path, pack)
    # The first rows of a longer file, some of which were left out when the pack was made.
    some = Pack.from_arrays(x[[0, 2]], {"gender": list("ab")}, sources=["0", "2"])
    np.testing.assert_array_equal(read_vectors(tmp_path / "v.npy", some), x[[0, 2]])


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
