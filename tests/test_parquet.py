"""Parquet files within bounds: what real files hold is read, whatever wrote it; what a few bytes stand for is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from veil import parquet
from veil.data.layouts import table
from veil.data.vectors import open_vectors
from veil.errors import InputError
from veil.foreign import FREE_BYTES


def names(n: int) -> list[str]:
    return [f"person{i // 3}/{i}.png" for i in range(n)]


def genders(n: int) -> list[str | None]:
    return [("female", "male", None)[i % 3] for i in range(n)]


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", ""])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("group", [7, 1000])
def test_text_is_read_however_it_is_written(tmp_path: Path, encoding: str, kind: pa.DataType, group: int) -> None:
    path = tmp_path / "x.parquet"
    columns = pa.table({"path": pa.array(names(100)), "gender": pa.array(genders(100)).cast(kind)})
    how = {"column_encoding": dict.fromkeys(columns.column_names, encoding)} if encoding else {}
    pq.write_table(columns, path, use_dictionary=not encoding, row_group_size=group, **how)
    found = table.read(path)
    assert found.names == names(100)
    assert [found.row(i)["gender"] for i in range(100)] == genders(100)


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "lz4"])
def test_vectors_and_their_names_survive_every_codec(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "x.parquet"
    x = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    columns = {"name": names(300), "vector": list(x), "gender": genders(300)}
    pq.write_table(pa.table(columns), path, compression=codec, row_group_size=64)
    file = open_vectors(path)
    assert list(file.names()) == names(300)
    assert np.array_equal(np.concatenate([block.vectors for block in file.blocks(size=50)]), x)
    assert file.columns(["gender"])["gender"].to_pylist() == genders(300)


def test_a_row_for_each_byte_of_a_file(tmp_path: Path) -> None:
    path, n = tmp_path / "x.parquet", parquet.FREE_ROWS
    for more, refused in ((0, False), (n // 2, True)):
        pq.write_table(pa.table({"path": pa.nulls(n + more), "gender": pa.nulls(n + more)}), path)
        with pytest.raises(InputError) as told:
            table.read(path)
        assert ("rows in" in str(told.value)) == refused


def test_a_file_unpacks_to_what_its_size_may(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    text = "x" * (FREE_BYTES // 4)
    pq.write_table(
        pa.table({"path": ["a", "b", "c", "d", "e"], "note": [f"{text}{i}" for i in range(5)]}), path,
        use_dictionary=False, compression="zstd",
    )  # fmt: skip
    with pytest.raises(
        InputError, match=r"x\.parquet: must unpack to at most 1\d\d,\d{3},\d{3} bytes from [\d,]+, got"
    ):
        table.read(path)


def test_texts_that_share_all_they_have_are_counted(tmp_path: Path) -> None:
    path, text = tmp_path / "x.parquet", "x" * (1 << 20)
    columns = pa.table({"path": names(300), "note": [f"{text}{i}" for i in range(300)]})
    pq.write_table(
        columns, path, use_dictionary=False, column_encoding=dict.fromkeys(columns.column_names, "DELTA_BYTE_ARRAY")
    )
    assert path.stat().st_size < 1 << 17
    with pytest.raises(InputError, match=r"must unpack to at most [\d,]+ bytes from [\d,]+, got more"):
        table.read(path)


def test_one_long_text_in_many_rows_is_held_once(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    note = pa.DictionaryArray.from_arrays(pa.array([0] * 3000), pa.array(["x" * (1 << 20)]))
    pq.write_table(pa.table({"path": names(3000), "note": note}), path, store_schema=False)
    found = table.read(path)
    assert found.names == names(3000)
    assert found.notes == (
        "Left aside of 'x.parquet', as neither vectors, names nor labels: note (text of more than 1,024 letters).",
    )


@pytest.mark.parametrize("group", [1, 64])
def test_lists_are_counted_over_groups_of_rows(tmp_path: Path, group: int) -> None:
    path = tmp_path / "x.parquet"
    value = pa.array(np.zeros(1 << 21, np.float32))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(25) << 21, pa.int32()), pa.concat_arrays([value] * 24))
    pq.write_table(pa.table({"name": names(24), "vector": lists}), path, row_group_size=group)
    assert path.stat().st_size < 1 << 17
    with pytest.raises(InputError, match=r"vector must have at most [\d,]+ values in groups"):
        open_vectors(path)


def test_curves_of_other_types_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    right = pa.table({"step": [1], "stage": ["a"], "player": ["b"], "loss": [0.5]})
    pq.write_table(right, path)
    assert parquet.read_curves(path).to_pylist() == right.to_pylist()
    pq.write_table(right.set_column(0, "step", pa.array([1 << 60], pa.timestamp("ns"))), path)
    assert parquet.read_curves(path).to_pylist()[0]["step"] == 1 << 60  # as many as they are
    pq.write_table(right.set_column(0, "step", pa.array([7]).dictionary_encode()), path)
    assert parquet.read_curves(path).to_pylist()[0]["step"] == 7
    pq.write_table(right, path, use_dictionary=False, column_encoding={"stage": "DELTA_BYTE_ARRAY"})
    assert parquet.read_curves(path)["stage"].type == parquet.read_curves(path)["player"].type
    pq.write_table(right.set_column(0, "step", pa.array([1.5])), path)
    with pytest.raises(InputError, match="cannot be read"):
        parquet.read_curves(path)
    pq.write_table(right.drop_columns(["loss"]), path)
    with pytest.raises(InputError, match="has no column loss"):
        parquet.read_curves(path)


@pytest.mark.parametrize("more", [1, 2, 16])
def test_no_byte_of_what_a_file_says_of_itself_ends_the_process(tmp_path: Path, more: int) -> None:
    """Arrow's own metadata do, where a chunk contradicts itself and is asked for."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"t": ["a", "b", None], "v": [[1.0], [2.0, 3.0], [4.0]]}), path, store_schema=False)
    whole, refused = path.read_bytes(), 0
    length = int.from_bytes(whole[-8:-4], "little")
    for i in range(len(whole) - 8 - length, len(whole) - 8):
        path.write_bytes(whole[:i] + bytes([(whole[i] + more) % 256]) + whole[i + 1 :])
        try:
            with parquet.open_parquet(path) as (file, _):
                file.read()
        except InputError:
            refused += 1
    assert refused > length // 5
