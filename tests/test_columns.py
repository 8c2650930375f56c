"""What may name a row, and how names are compared: a picture's bytes never stand where a name should."""

from __future__ import annotations

import datetime
import io
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from veil.data import build
from veil.data.columns import IMAGE_KEYS, KEYS, MOST_LETTERS, key_columns, plain
from veil.data.vectors import open_vectors
from veil.errors import InputError

N = 24
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
PICTURE = bytes(range(256)) * 3
PATHS = [f"{i}.jpg" for i in range(N)]


def table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({"emb": list(X), "gender": ["f", "m"] * (N // 2), **columns}), path)
    return path


UUIDS = [uuid.UUID(int=i) for i in range(N)]
NAMES: dict[str, tuple[Any, list[str]]] = {
    "text": (PATHS, PATHS),
    "large text": (pa.array(PATHS, pa.large_string()), PATHS),
    "text by view": (pa.array(PATHS, pa.string_view()), PATHS),
    "dictionary": (pa.array(PATHS).dictionary_encode(), PATHS),
    "whole numbers": (pa.array(range(N), pa.uint16()), [str(i) for i in range(N)]),
    "whole decimals": (pa.array(range(N), pa.decimal128(38, 0)), [str(i) for i in range(N)]),
    "UUIDs": (pa.array([u.bytes for u in UUIDS], pa.uuid()), [str(u) for u in UUIDS]),
    "struct with a path": (pa.array([{"bytes": PICTURE, "path": p} for p in PATHS]), PATHS),
}


@pytest.mark.parametrize("kind", NAMES)
def test_text_whole_numbers_uuids_and_paths_name_rows(tmp_path: Path, kind: str) -> None:
    column, names = NAMES[kind]
    path = table(tmp_path / "v.parquet", image=column)
    assert list(open_vectors(path).names()) == names
    pack = build.pack("embeddings", path, tmp_path / "pack")
    assert pack.sources.tolist() == names
    assert list(pack.labels) == ["gender"]
    assert PICTURE[:200] not in b"".join(file.read_bytes() for file in (tmp_path / "pack").iterdir())


STRANGE: dict[str, Any] = {
    "bytes": [PICTURE] * N,
    "large bytes": pa.array([PICTURE] * N, pa.large_binary()),
    "bytes of 16": pa.array([u.bytes for u in UUIDS], pa.binary(16)),
    "struct of bytes": pa.array([{"bytes": PICTURE}] * N),
    "struct whose path is bytes": pa.array([{"path": PICTURE}] * N),
    "list of bytes": pa.array([list(PICTURE[:20])] * N),
    "floats": np.arange(N) + 0.5,
    "booleans": [True, False] * (N // 2),
    "times": [datetime.datetime(2020, 1, 1)] * N,
    "dictionary of bytes": pa.array([PICTURE] * N).dictionary_encode(),
}


@pytest.mark.parametrize("column", ["image", "File_Name", "source"])
@pytest.mark.parametrize("kind", STRANGE)
def test_anything_else_is_refused_by_name(tmp_path: Path, kind: str, column: str) -> None:
    path = table(tmp_path / "v.parquet", **{column: STRANGE[kind]})
    rule = rf"^\S+v\.parquet: {column} must name the rows by text, whole numbers, UUIDs or a struct with a path, got \w"
    with pytest.raises(InputError, match=rule):
        open_vectors(path)
    with pytest.raises(InputError, match=rule):
        build.pack("embeddings", path, tmp_path / "pack")
    assert list(open_vectors(path, named=False).names()) == [str(i) for i in range(N)]
    pack = build.pack("embeddings", path, tmp_path / "pack", settings={"names": "numbers"})
    assert (pack.sources.tolist(), list(pack.labels)) == ([str(i) for i in range(N)], ["gender"])


def test_a_column_that_can_name_rows_is_taken_before_one_that_cannot(tmp_path: Path) -> None:
    path = table(tmp_path / "v.parquet", image=[PICTURE] * N, image_id=list(range(N)))
    pack = build.pack("embeddings", path, tmp_path / "pack")
    assert pack.sources.tolist() == [str(i) for i in range(N)]
    assert pack.meta["notes"] == ["Left aside of 'v.parquet', as neither vectors, names nor labels: image (binary)."]


@pytest.mark.parametrize("array", [np.array([PICTURE[128:]] * N), np.zeros((N, 8, 8), np.uint8), np.ones(N)])
def test_arrays_that_are_no_names_are_refused_by_name(tmp_path: Path, array: np.ndarray) -> None:
    np.savez(tmp_path / "v.npz", vectors=X, image=array)
    with pytest.raises(InputError, match=r"v\.npz: (image must name the rows|array image holds bytes)"):
        list(open_vectors(tmp_path / "v.npz").names())


@pytest.mark.parametrize(("length", "fits"), [(MOST_LETTERS, True), (MOST_LETTERS + 1, False)])
def test_files_of_vectors_and_packs_have_one_limit_of_length(tmp_path: Path, length: int, fits: bool) -> None:
    names = [f"{i:0{length if i == 5 else 4}d}" for i in range(N)]
    path = table(tmp_path / "v.parquet", source=names)
    reads = (
        lambda: list(open_vectors(path).blocks()),
        lambda: list(open_vectors(path).names()),
        lambda: build.pack("embeddings", path, tmp_path / "pack"),
    )
    for read in reads:
        if fits:
            read()
            continue
        with pytest.raises(InputError, match=r"source of row 5 has 1,025 characters; names have at most 1,024$"):
            read()


@pytest.mark.parametrize("name", [None, "", "  "])
def test_a_row_without_a_name_is_told_by_its_number_from_0(tmp_path: Path, name: str | None) -> None:
    path = table(tmp_path / "v.parquet", source=[*PATHS[:7], name, *PATHS[8:]])
    for read in (lambda: list(open_vectors(path).blocks()), lambda: build.pack("embeddings", path, tmp_path / "pack")):
        with pytest.raises(InputError, match="row 7 names no source"):
            read()


def test_labels_whose_words_are_too_long_are_no_labels(tmp_path: Path) -> None:
    path = table(tmp_path / "v.parquet", source=PATHS, thumb=["A" * 5000] * N)
    pack = build.pack("embeddings", path, tmp_path / "pack")
    assert list(pack.labels) == ["gender"]
    assert "thumb (text of more than 1,024 letters)" in pack.meta["notes"][0]


def test_columns_that_name_rows_are_known_however_they_are_written() -> None:
    for name in ("file_name", "Filename", "FILE NAME", "file-name"):
        assert key_columns(["gender", name], IMAGE_KEYS) == [name]
    assert key_columns(["image_id", "ImageID2", "Source"], IMAGE_KEYS) == ["Source", "image_id"]
    assert key_columns(["name"], IMAGE_KEYS) == []
    assert key_columns(["name"], KEYS) == ["name"]


def test_names_are_compared_in_nfc() -> None:
    assert plain(".\\jose\u0301/a.jpg") == plain("jos\u00e9/a.jpg") == "jos\u00e9/a.jpg"


def test_two_spellings_of_a_name_are_one(tmp_path: Path) -> None:
    path = table(tmp_path / "v.parquet", source=["jos\u00e9.jpg", "jose\u0301.jpg", *PATHS[2:]])
    assert open_vectors(path).repeated() == "jos\u00e9.jpg"
    with pytest.raises(InputError, match="stands in column source more than once"):
        build.pack("embeddings", path, tmp_path / "pack")


def test_files_of_labels_name_images_as_files_of_vectors_do(tmp_path: Path) -> None:
    """A table as Hugging Face writes it: pictures' bytes with their paths, and labels."""
    np.savez(tmp_path / "v.npz", vectors=X, source=np.array(PATHS))
    labels = pa.table({"image": [{"bytes": PICTURE, "path": p} for p in PATHS], "age": list(range(N))})
    file = io.BytesIO()
    pq.write_table(labels, file)
    (tmp_path / "l.parquet").write_bytes(file.getvalue())
    pack = build.pack("embeddings", tmp_path / "v.npz", tmp_path / "pack", labels=tmp_path / "l.parquet")
    assert [pack.classes["age"][c] for c in pack.labels["age"]] == [str(i) for i in range(N)]
    pq.write_table(labels.set_column(0, "image", [[PICTURE] * N]), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="image must name the rows"):
        build.pack("embeddings", tmp_path / "v.npz", tmp_path / "pack", labels=tmp_path / "b.parquet", force=True)
