"""Files of vectors: where they are found, that they are read piece by piece, and what is wrong with them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from veil.data.vectors import open_vectors
from veil.errors import InputError


def vectors(n: int = 12, d: int = 4) -> NDArray[np.float32]:
    return (1 + np.arange(n * d).reshape(n, d)).astype(np.float32)


def read(path: Path, start: int = 0, size: int = 5, **kwargs: Any) -> tuple[list[str], NDArray[np.float32]]:
    blocks = list(open_vectors(path).blocks(start, size, **kwargs))
    assert [len(block.vectors) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
    assert [block.start for block in blocks] == list(range(start, start + size * len(blocks), size))
    names = [name for block in blocks for name in block.names.to_pylist()]
    return names, np.concatenate([block.vectors for block in blocks])


def put(path: Path, kind: str, x: NDArray[Any]) -> Path:
    """The same vectors, and names where there is room, in a file of each kind."""
    names = [f"\u00e4{i}" for i in range(len(x))]
    if kind == "npy":
        np.save(path, x)
    elif kind == "npy Fortran":
        np.save(path, np.asfortranarray(x))
    elif kind == "npz":
        np.savez(path, vectors=x, name=np.array(names), age=np.ones(len(x)))
    elif kind == "npz compressed":
        np.savez_compressed(path, vectors=x, name=np.array(names))
    elif kind == "csv":
        rows = (f"{name};{';'.join(map(str, row))}" for name, row in zip(names, x.tolist(), strict=True))
        path.write_text("\n".join([f"name;{';'.join(f'v{i}' for i in range(x.shape[1]))}", *rows]))
    elif kind == "csv of lists":
        path.write_text(
            "\n".join(["name,v", *(f'{name},"{row}"' for name, row in zip(names, x.tolist(), strict=True))])
        )
    elif kind == "columns":
        pq.write_table(pa.table({"name": names, **{str(i): x[:, i] for i in range(x.shape[1])}}), path)
    else:
        column = pa.array(list(x), pa.list_(pa.float32(), 4) if kind == "fixed" else pa.large_list(pa.float64()))
        pq.write_table(pa.table({"v": column, "name": names}), path, row_group_size=7)
    return path


SUFFIX = {
    "npy": "npy", "npy Fortran": "npy", "npz": "npz", "npz compressed": "npz", "csv": "csv", "csv of lists": "tsv"
}  # fmt: skip
KINDS = (*SUFFIX, "columns", "fixed", "list")


@pytest.mark.parametrize("start", [0, 5, 10, 15])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_read_from_anywhere(tmp_path: Path, kind: str, start: int) -> None:
    x = vectors(23)
    path = put(tmp_path / f"v.{SUFFIX.get(kind, 'parquet')}", kind, x)
    file = open_vectors(path)
    assert (file.n, file.width) == (23, 4)
    names, values = read(path, start)
    np.testing.assert_array_equal(values, x[start:])
    numbers = [str(i) for i in range(start, 23)]
    assert names == (numbers if "npy" in kind else [f"\u00e4{i}" for i in numbers])
    assert read(path, start, named=False)[0] == numbers
    assert list(file.names())[start:] == names


@pytest.mark.parametrize("start", [0, 35_000])
def test_a_row_group_is_not_read_whole(tmp_path: Path, start: int) -> None:
    x = np.random.default_rng(0).random((40_000, 64), np.float32)  # 10 MB in one row group
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 64)
    pq.write_table(pa.table({"v": column}), tmp_path / "v.parquet", use_dictionary=False, data_page_size=1 << 16)
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.system_memory_pool())
    pa.set_memory_pool(pool)
    try:
        blocks = open_vectors(tmp_path / "v.parquet").blocks(start, size=1024)
        total = sum(float(block.vectors.sum()) for block in blocks)
    finally:
        pa.set_memory_pool(before)
    assert total == pytest.approx(float(x[start:].sum()), rel=1e-4)
    assert 0 < pool.max_memory() < x.nbytes / 4


def test_numbered_columns_are_the_vector_and_other_floats_are_labels(tmp_path: Path) -> None:
    columns = {"age": [1.5] * 3, **{f"v{i}": vectors(3)[:, i] for i in range(4)}, "height": [2.0] * 3}
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    np.testing.assert_array_equal(read(tmp_path / "v.parquet")[1], vectors(3))
    assert open_vectors(tmp_path / "v.parquet").others == ("age", "height")
    pq.write_table(pa.table({**columns, "w1": [1.0] * 3, "w2": [2.0] * 3}), tmp_path / "two.parquet")
    with pytest.raises(InputError, match=r"several rows of numbered columns hold floats \(v0..., w1...\); set column"):
        open_vectors(tmp_path / "two.parquet")
    assert open_vectors(tmp_path / "two.parquet", "w").width == 2
    pq.write_table(pa.table({"x": [1.0], "y": [2.0], "label": ["a"]}), tmp_path / "plain.parquet")
    assert open_vectors(tmp_path / "plain.parquet").width == 2


def test_numbered_columns_are_taken_by_their_numbers(tmp_path: Path) -> None:
    x = vectors(3, 12)
    for order in (range(12), sorted(range(12), key=str), range(11, -1, -1)):
        pq.write_table(pa.table({f"v{i}": x[:, i] for i in order}), tmp_path / "v.parquet")
        np.testing.assert_array_equal(read(tmp_path / "v.parquet")[1], x)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_columns_are_put_in_the_order_that_is_known(tmp_path: Path, suffix: str) -> None:
    def put(stem: str, /, **columns: Any) -> Path:
        path = tmp_path / f"{stem}.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.table(columns), path)
        else:
            lines = zip(*([str(v) for v in values] for values in columns.values()), strict=True)
            path.write_text("\n".join(map(",".join, [columns, *lines])))
        return path

    known = ("yaw", "pitch", "iod")
    x = {name: [i + 0.5, i + 1.25] for i, name in enumerate(known)}
    expected = np.array(list(x.values()), np.float32).T
    other = put("other", iod=x["iod"], name=["a", "b"], yaw=x["yaw"], pitch=x["pitch"])
    assert open_vectors(other).dimensions == ("iod", "yaw", "pitch")
    file = open_vectors(other, dimensions=known)
    assert (file.dimensions, file.key) == (known, "name")
    np.testing.assert_array_equal(next(file.blocks()).vectors, expected)
    # Whole numbers: of a table of few rows, say.
    whole = put("whole", **{name: [1, 2] for name in known}, count=[3, 4])
    assert open_vectors(whole, dimensions=known).others == ("count",)
    rule = r"its vectors must be the columns yaw, pitch, iod that the release was fitted on; "
    for columns, words in (
        ({"age": x["yaw"], "yaw": x["yaw"], "pitch": x["pitch"]}, "missing: iod; none of them: age; set column to"),
        ({"yaw": x["yaw"], "pitch": x["pitch"]}, "missing: iod; set column to"),
        ({**x, "age": x["yaw"]}, "none of them: age; set column to the right ones, A,B,..."),
        ({"v0": x["yaw"], "v1": x["yaw"], "v2": x["yaw"]}, "missing: yaw, pitch, iod; none of them: v0, v1, v2"),
    ):
        with pytest.raises(InputError, match=rule + words):
            open_vectors(put("bad", **columns), dimensions=known)
    more = put("more", age=[1.5, 2.5], **dict(reversed(x.items())))
    chosen = open_vectors(more, "iod,yaw,pitch", dimensions=known)
    assert chosen.others == ("age",)
    np.testing.assert_array_equal(next(chosen.blocks()).vectors, expected)


def test_columns_of_csv_are_floats_if_some_of_their_cells_or_their_neighbours_are(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text("id,v0,v1,v10,v2,age,height\n7,0.5,1,1e-2,3,41,1.8\n8,1,2,3,4,,\n")
    file = open_vectors(path)
    assert (file.dimensions, file.others) == (("v0", "v1", "v2", "v10"), ("id", "age", "height"))
    np.testing.assert_allclose(next(file.blocks()).vectors, [[0.5, 1, 3, 0.01], [1, 2, 4, 3]])
    path.write_text('file,emb,bbox\na,"[0.5, 1]","[1, 2, 3, 4]"\nb,"[1, 2]","[5, 6, 7, 8]"\n')
    file = open_vectors(path)
    assert (file.form, file.width, file.others, file.aside) == ("list", 2, (), (("bbox", "lists"),))


def test_a_decimal_comma_makes_no_list(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("name;score\na;1,5e-3\nb;2,5e-3\n")
    with pytest.raises(InputError, match="numbers of column score have decimal commas"):
        open_vectors(tmp_path / "v.csv")


def test_one_column_of_lists_among_several_is_known_by_its_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"bbox": [[1.0] * 4] * 2, "Embedding": [[1.0, 2.0]] * 2}), tmp_path / "v.parquet")
    assert open_vectors(tmp_path / "v.parquet").width == 2


def test_names_of_an_npz_file_must_be_as_many_as_its_vectors(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", vectors=vectors(4), source=np.array(list("abc")))
    with pytest.raises(InputError, match=r"source must name the rows by text, .*, got <U1 \(3,\)"):
        open_vectors(tmp_path / "v.npz")


def test_names_that_repeat_are_found_across_blocks(tmp_path: Path) -> None:
    n = 9000
    names = np.array([f"n{i}" for i in range(n)])
    np.savez(tmp_path / "v.npz", vectors=vectors(n), name=names)
    assert open_vectors(tmp_path / "v.npz").repeated() is None
    names[8500] = "n3"
    np.savez(tmp_path / "v.npz", vectors=vectors(n), name=names)
    assert open_vectors(tmp_path / "v.npz").repeated() == "n3"
    np.save(tmp_path / "v.npy", vectors(3))
    assert open_vectors(tmp_path / "v.npy").repeated() is None


def test_what_cannot_be_used_is_said_row_by_row(tmp_path: Path) -> None:
    rows: list[Any] = vectors(6).tolist()
    rows[0], rows[2], rows[3], rows[5] = [1.0, 2.0], [0.0] * 4, None, [float("inf")] * 4
    pq.write_table(pa.table({"v": rows}), tmp_path / "v.parquet")
    found = {
        b.start + row: why
        for b in open_vectors(tmp_path / "v.parquet").blocks(size=4)
        for row, why in b.problems.items()
    }
    assert found == {
        0: "2 values where others have 4",
        2: "only zeros",
        3: "0 values where others have 4",
        5: "a NaN or infinite value",
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "csv" not in kind])  # text does not say how long it is
def test_a_file_that_was_cut_short_is_one_line(tmp_path: Path, kind: str) -> None:
    path = put(tmp_path / f"v.{SUFFIX.get(kind, 'parquet')}", kind, vectors(500))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="cannot be read") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("a.npy", np.arange(4.0), r"must hold floats with two axes, got float64 \(4,\)"),
        ("a.npy", np.ones((2, 3), int), r"must hold floats with two axes, got int64 \(2, 3\)"),
        ("a.npy", np.ones((0, 3)), r"the array is \(0, 3\) and holds nothing"),
        ("a.npy", np.array([{}]), "cannot be read .pickled objects, which are never loaded"),
        ("a.npz", np.ones((3, 0)), r"array arr_0 is \(3, 0\) and holds nothing"),
        (
            "a.npz",
            np.array([{}]),
            r"with two axes to take \(there are: arr_0: pickled objects, which are never loaded\)",
        ),
    ],
)
def test_arrays_that_are_no_vectors(tmp_path: Path, name: str, array: NDArray[Any], message: str) -> None:
    (np.savez if name == "a.npz" else np.save)(tmp_path / name, array)
    with pytest.raises(InputError, match=message):
        open_vectors(tmp_path / name)


@pytest.mark.parametrize(
    ("shape", "fortran", "message"),
    [
        ((10**15, 4), False, "it ends before its last row"),
        ((2, 10**15), True, "it ends before its last row"),
        ((7, 4), False, "it ends before its last row"),
        ((-5, 4), False, r"its shape must be whole numbers of at least 0, got \(-5, 4\)"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_header_is_not_believed(
    tmp_path: Path, suffix: str, shape: tuple[int, int], fortran: bool, message: str
) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": fortran, "shape": shape})
    file.write(bytes(6 * 4 * 4))
    path = tmp_path / f"v{suffix}"
    if suffix == ".npy":
        path.write_bytes(file.getvalue())
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("vectors.npy", file.getvalue())
    with pytest.raises(InputError, match=rf"v\{suffix}: cannot be read \({message}\)"):
        open_vectors(path)


def test_a_row_without_a_name_where_others_have_one(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["a", None], "v": vectors(2).tolist()}), tmp_path / "v.parquet")
    with pytest.raises(InputError, match="row 1 names no name"):
        read(tmp_path / "v.parquet")
    np.save(tmp_path / "v.npy", vectors(2))
    with pytest.raises(InputError, match="is one array and has no column 'v' to choose"):
        open_vectors(tmp_path / "v.npy", "v")
