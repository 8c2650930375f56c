"""Tables of images as Hugging Face keeps them, and folders of Parquet files that are one table."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import dataset
from torch import Tensor, nn

from veil.data import build
from veil.data.imagetable import open_images
from veil.data.pack import SPLITS, Pack
from veil.data.vectors import open_vectors
from veil.errors import InputError
from veil.release import Release
from veil.release.contract import Contract
from veil.workflows import audit_folder
from veil.workflows.apply import Applied, Options, apply
from veil.workflows.named import read_vectors

N, D = 24, 5
GENDERS = ["female", "male"]


def picture(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (24, 20), value).save(file, "PNG")
    return file.getvalue()


def rows(n: int = N) -> dict[str, Any]:
    """The columns of a table of images, a value a row."""
    return {
        "image": [{"bytes": picture(10 * i), "path": f"{i:03d}.png"} for i in range(n)],
        "gender": [i // 2 % 2 for i in range(n)],
        "identity": [f"p{i // 2}" for i in range(n)],
        "age": list(range(n)),
        "wears": [i % 3 == 0 for i in range(n)],
        "score": [0.5] * n,
        "tags": [["a"]] * n,
    }


FEATURES = {
    "image": {"_type": "Image"},
    "gender": {"names": GENDERS, "_type": "ClassLabel"},
    "identity": {"dtype": "string", "_type": "Value"},
    "age": {"dtype": "int64", "_type": "Value"},
    "wears": {"dtype": "bool", "_type": "Value"},
    "score": {"dtype": "float64", "_type": "Value"},
    "tags": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
}


def put(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = FEATURES, **options: Any) -> Path:
    """A file with the schema and the metadata that ``datasets`` writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, **options)
    return path


def cut(columns: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    return {name: values[start:stop] for name, values in columns.items()}


def repository(root: Path, columns: dict[str, Any], features: dict[str, Any] | None = FEATURES) -> Path:
    """Two shards and what lies beside them, as repositories of data sets have it."""
    put(root / "data" / "train-00001-of-00002.parquet", cut(columns, 10, N), features, row_group_size=4)
    put(root / "data" / "train-00000-of-00002.parquet", cut(columns, 0, 10), features, row_group_size=3)
    (root / "README.md").write_text("A data set.")
    put(root / ".cache" / "data" / "train-00000-of-00002.parquet", {"other": [1]})
    return root


def packed(source: Path, **options: Any) -> Pack:
    return build.pack("parquet", source, source.with_name(source.name + ".pack"), size=16, force=True, **options)


def words(pack: Pack, label: str) -> list[str | None]:
    return [pack.classes[label][code] if code >= 0 else None for code in pack.label(label).tolist()]


def skipped(pack: Pack) -> dict[str, str]:
    with (pack.path / "skipped.csv").open(encoding="utf-8", newline="") as file:
        return dict(list(csv.reader(file))[1:])


def check(pack: Pack) -> None:
    assert pack.sources.tolist() == [f"{i:03d}.png" for i in range(N)]
    assert pack.x[:, 0, 0].tolist() == [10 * i for i in range(N)]
    assert words(pack, "gender") == [GENDERS[i // 2 % 2] for i in range(N)]
    assert words(pack, "identity") == [f"p{i // 2}" for i in range(N)]
    assert words(pack, "age") == [str(i) for i in range(N)]
    assert words(pack, "wears") == ["yes" if i % 3 == 0 else "no" for i in range(N)]
    assert set(pack.labels) == {"gender", "identity", "age", "wears"}


def test_a_file_of_images(tmp_path: Path) -> None:
    pack = packed(put(tmp_path / "a.parquet", rows()))
    check(pack)
    aside = "score (double), tags (list<element: string>)"
    assert pack.meta["notes"] == [
        "Images are the column 'image' of 'a.parquet'.",
        "Rows are named by the column 'image'.",
        f"Left aside of 'a.parquet', as neither vectors, names nor labels: {aside}.",
    ]


def test_a_folder_of_shards_is_one_table_in_the_order_of_their_paths(tmp_path: Path) -> None:
    pack = packed(repository(tmp_path / "people", rows()))
    check(pack)
    assert "'people', 2 files" in pack.meta["notes"][0]


def test_a_file_that_datasets_wrote(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "gender": datasets.ClassLabel(names=GENDERS),
            "identity": datasets.Value("string"),
            "age": datasets.Value("int32"),
            "wears": datasets.Value("bool"),
            "score": datasets.Value("float32"),
            "tags": datasets.List(datasets.Value("string")),
        }
    )
    datasets.Dataset.from_dict(rows(), features=features).to_parquet(str(tmp_path / "a.parquet"))
    check(packed(tmp_path / "a.parquet"))


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_images_of_bytes_alone(tmp_path: Path, kind: pa.DataType) -> None:
    columns = rows() | {"image": pa.array([row["bytes"] for row in rows()["image"]], kind)}
    pack = packed(put(tmp_path / "a.parquet", columns, None))
    assert pack.sources.tolist() == [str(i) for i in range(N)]
    assert pack.x[:, 0, 0].tolist() == [10 * i for i in range(N)]
    assert words(pack, "gender") == [str(i // 2 % 2) for i in range(N)]  # nothing says what the numbers stand for
    assert "'a.parquet' does not name its rows; their numbers do." in pack.meta["notes"]


@pytest.mark.parametrize("odd", [None, "000.png", "", "x" * 1025])
def test_rows_are_named_where_each_has_a_name_of_its_own(tmp_path: Path, odd: str | None) -> None:
    columns = rows()
    columns["image"][17] = {"bytes": picture(170), "path": odd}
    pack = packed(repository(tmp_path / "people", columns))
    assert pack.sources.tolist() == [str(i) for i in range(N)]
    assert "No column gives every row a name of its own (image do not); numbers do." in pack.meta["notes"]
    columns["image_id"] = [f"id{i}" for i in range(N)]
    pack = packed(repository(tmp_path / "people", columns))
    assert pack.sources.tolist() == columns["image_id"]
    assert "image_id" not in pack.labels
    pack = packed(tmp_path / "people", settings={"names": "numbers"})
    assert pack.sources.tolist() == [str(i) for i in range(N)]
    assert "image_id" not in pack.labels


def test_images_that_are_not_there_are_listed_and_paths_are_never_opened(tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(picture(77))
    columns = rows()
    columns["image"][1] = None
    columns["image"][2] = {"bytes": None, "path": str(outside)}
    columns["image"][3] = {"bytes": b"", "path": "003.png"}
    columns["image"][4] = {"bytes": picture(1)[:40], "path": "004.png"}
    pack = packed(put(tmp_path / "a.parquet", columns))
    listed = skipped(pack)
    assert len(pack) == N - 4
    assert list(listed) == ["1", "2", "3", "4"]
    assert (listed["1"], listed["3"]) == ("no image", "empty")
    assert listed["2"] == "no bytes of an image; a file that its path names is never opened"
    assert listed["4"].startswith("cannot be decoded")


def test_several_columns_of_images_are_refused_with_their_names(tmp_path: Path) -> None:
    columns = rows() | {"thumb": [{"bytes": picture(i), "path": None} for i in range(N)], "hash": [b"x"] * N}
    source = put(tmp_path / "a.parquet", columns, None)
    with pytest.raises(InputError, match=r"several columns hold images \(image, thumb\); set image to one$"):
        packed(source)
    with pytest.raises(InputError, match=r"column 'age' is none of images \(image, thumb\)$"):
        packed(source, settings={"image": "age"})
    pack = packed(source, settings={"image": "thumb"})
    assert pack.x[:, 0, 0].tolist() == list(range(N))
    assert any("image (struct" in note and "hash (binary)" in note for note in pack.meta["notes"])
    # Sounds are kept in the same way; what the columns are stands in the metadata.
    sounds = {"image": {"_type": "Image"}, "thumb": {"_type": "Audio"}}
    assert packed(put(source, columns, sounds)).x[1, 0, 0] == 10


def test_a_table_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no column holds images.*it has age \(int64\)$"):
        packed(put(tmp_path / "a.parquet", {"age": [1, 2]}, None))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: is a folder that holds no file \*\.parquet$"):
        packed(tmp_path / "empty")
    with pytest.raises(InputError, match="no such file or folder"):
        packed(tmp_path / "nowhere")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(InputError, match=r"b\.parquet: cannot be read"):
        packed(tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"holds no vectors, but images \(image\); the layout parquet packs them$"):
        open_vectors(put(tmp_path / "c.parquet", rows()))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"age": [str(i) for i in range(N)]}, "age is string, and is int64 in train-00000-of-00002.parquet"),
        ({"more": [1] * N}, "more is int64, and is missing in train-00000-of-00002.parquet"),
        ({"wears": None}, "wears is missing, and is bool in train-00000-of-00002.parquet"),
    ],
)
def test_shards_must_have_the_same_columns(tmp_path: Path, change: dict[str, Any], error: str) -> None:
    source = repository(tmp_path / "people", rows())
    columns = {name: values for name, values in (rows() | change).items() if values is not None}
    put(source / "data" / "train-00001-of-00002.parquet", cut(columns, 10, N))
    with pytest.raises(InputError, match=rf"00001-of-00002\.parquet: must have the columns .*: {error}$"):
        packed(source)


def test_numbers_of_classes_mean_the_same_in_all_shards(tmp_path: Path) -> None:
    source = repository(tmp_path / "people", rows())
    turned = FEATURES | {"gender": {"names": GENDERS[::-1], "_type": "ClassLabel"}}
    put(source / "data" / "train-00001-of-00002.parquet", cut(rows(), 10, N), turned)
    with pytest.raises(InputError, match=r"must name the classes that train-00000-of-00002\.parquet names"):
        packed(source)


def test_numbers_that_stand_for_no_class(tmp_path: Path) -> None:
    columns = rows()
    columns["gender"][5] = -1  # Hugging Face's number for an unknown class
    assert words(packed(put(tmp_path / "a.parquet", columns)), "gender")[5] is None
    columns["gender"][5] = 2
    with pytest.raises(InputError, match=r"row 5: gender must be -1 to 1, as it has 2 classes, got 2$"):
        packed(put(tmp_path / "a.parquet", columns))


@pytest.mark.parametrize("said", [b"{", b"[1]", b'{"info": {"features": {"gender": 3}}}', b"\xff", b'{"info": 7}'])
def test_metadata_that_cannot_be_understood_cost_no_image(tmp_path: Path, said: bytes) -> None:
    table = pa.table(rows()).replace_schema_metadata({"huggingface": said})
    pq.write_table(table, tmp_path / "a.parquet")
    assert words(packed(tmp_path / "a.parquet"), "gender")[:4] == ["0", "0", "1", "1"]


def test_a_column_prescribes_the_splits(tmp_path: Path) -> None:
    columns = rows() | {"split": [SPLITS[i // 2 % 4] for i in range(N)]}
    pack = packed(put(tmp_path / "a.parquet", columns))
    assert [SPLITS[code] for code in pack.split.tolist()] == columns["split"]


def test_a_table_of_images_may_bring_the_labels_of_a_folder(tmp_path: Path) -> None:
    for i in range(N):
        (tmp_path / f"{i:03d}.png").write_bytes(picture(i))
    labels = put(tmp_path / "labels.parquet", rows(), row_group_size=5)
    pack = build.pack("folder", tmp_path, tmp_path / "pack", labels=labels, size=16)
    assert words(pack, "identity") == [f"p{i // 2}" for i in range(N)]
    assert words(pack, "gender") == [GENDERS[i // 2 % 2] for i in range(N)]


def test_labels_apart_are_joined_by_name_or_by_number(tmp_path: Path) -> None:
    columns = {name: values for name, values in rows().items() if name in ("image", "age")}
    source = repository(tmp_path / "people", columns, None)
    lines = [f"{i:03d}.png,{GENDERS[i % 2]}" for i in reversed(range(N))]
    (tmp_path / "l.csv").write_text("\n".join(["file,gender", *lines]))
    assert words(packed(source, labels=tmp_path / "l.csv"), "gender") == [GENDERS[i % 2] for i in range(N)]
    (tmp_path / "l.csv").write_text("\n".join(["gender", *(GENDERS[i % 2] for i in range(N))]))
    pack = packed(source, labels=tmp_path / "l.csv", settings={"names": "numbers"})
    assert words(pack, "gender") == [GENDERS[i % 2] for i in range(N)]


def test_links_that_lead_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    source = repository(tmp_path / "people", rows())
    put(tmp_path / "other.parquet", rows())
    (source / "data" / "z.parquet").symlink_to(tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"z\.parquet: is a link that leads out of \S+people, and is not followed"):
        packed(source)
    (source / "data" / "z.parquet").unlink()
    (tmp_path / "more").mkdir()
    (source / "more").symlink_to(tmp_path / "more")
    with pytest.raises(InputError, match="more: is a link to a folder, and is not followed"):
        packed(source)


def test_images_are_read_one_at_a_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    large = [{"bytes": rng.bytes(1 << 20), "path": f"{i}"} for i in range(48)]
    path = put(tmp_path / "a.parquet", {"image": large}, None, row_group_size=4)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    most = 0
    for i, (data, _) in enumerate(open_images(path).images(3)):
        assert data == large[3 + i]["bytes"]
        most = max(most, pa.total_allocated_bytes() - before)
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert i == 44
    assert most < 16 << 20
    assert python < 4 << 20


# vectors


def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(N, D)).astype(np.float32)


def templates(root: Path, *, columns: bool = False, name: str = "name") -> Path:
    """A folder of three files of vectors, one without a row, the last in a folder of its own."""
    x = vectors()
    people = [f"p{i // 2}" for i in range(N)]
    for file, (start, stop) in {"a.parquet": (0, 7), "b.parquet": (7, 7), "c/d.pq": (7, N)}.items():
        values: dict[str, Any] = {"v": pa.array(list(x[start:stop]), pa.list_(pa.float32()))}
        if columns:
            values = {f"v{i}": x[start:stop, i] for i in range(D)}
        some = {
            name: pa.array([f"n{i}" for i in range(start, stop)], pa.string()),
            "identity": pa.array(people[start:stop], pa.string()),
        }
        put(
            root / file,
            some | {"gender": pa.array([GENDERS[i // 2 % 2] for i in range(start, stop)], pa.string())} | values,
            None,
        )
    return root


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("start", [0, 5, 10, 20])
def test_a_folder_of_vectors_is_read_as_one_file(tmp_path: Path, columns: bool, start: int) -> None:
    file = open_vectors(templates(tmp_path / "t", columns=columns))
    assert (file.n, file.width, file.key) == (N, D, "name")
    blocks = list(file.blocks(start, 5))
    assert [len(block.vectors) for block in blocks[:-1]] == [5] * (len(blocks) - 1)  # across the files' borders
    assert [name for block in blocks for name in block.names.to_pylist()] == [f"n{i}" for i in range(start, N)]
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), vectors()[start:])
    assert list(file.names()) == [f"n{i}" for i in range(N)]


def test_a_folder_of_vectors_is_packed_and_audited(tmp_path: Path) -> None:
    source = templates(tmp_path / "t")
    pack = build.pack("embeddings", source, tmp_path / "pack")
    np.testing.assert_array_equal(pack.x, vectors())
    assert words(pack, "identity") == [f"p{i // 2}" for i in range(N)]
    np.testing.assert_array_equal(read_vectors(source, pack), vectors())
    with audit_folder.opened(source) as opened:
        np.testing.assert_array_equal(opened.x, vectors())
    with audit_folder.opened(tmp_path / "pack") as opened:  # which holds Parquet files, too
        assert opened.path == tmp_path / "pack"


def test_text_that_is_written_in_other_ways_in_other_files_is_the_same(tmp_path: Path) -> None:
    source = templates(tmp_path / "t")
    table = pq.read_table(source / "a.parquet")
    pq.write_table(table, source / "a.parquet", use_dictionary=False, column_encoding={"name": "DELTA_BYTE_ARRAY"})
    assert list(open_vectors(source).names()) == [f"n{i}" for i in range(N)]
    pack = build.pack("embeddings", source, tmp_path / "pack")
    assert pack.sources.tolist() == [f"n{i}" for i in range(N)]


def test_names_must_differ_through_all_files(tmp_path: Path) -> None:
    source = templates(tmp_path / "t")
    table = pq.read_table(source / "a.parquet")
    pq.write_table(table.set_column(0, "name", [["n20", *(f"n{i}" for i in range(1, 7))]]), source / "a.parquet")
    assert open_vectors(source).repeated() == "n20"
    with pytest.raises(InputError, match="'n20' stands in column name more than once"):
        build.pack("embeddings", source, tmp_path / "pack")
    pack = build.pack("embeddings", source, tmp_path / "pack", settings={"names": "numbers"})
    assert pack.sources.tolist() == [str(i) for i in range(N)]


def test_files_of_vectors_in_a_folder_must_agree(tmp_path: Path) -> None:
    source = templates(tmp_path / "t")
    table = pq.read_table(source / "a.parquet")
    narrow = pa.array([row[:3] for row in table["v"].to_pylist()], pa.list_(pa.float32()))
    pq.write_table(table.set_column(3, "v", narrow), source / "a.parquet")
    with pytest.raises(InputError, match=r"d\.pq: v must have 3 values as in \S+a\.parquet, got 5$"):
        open_vectors(source)
    pq.write_table(table.drop_columns(["gender"]), source / "a.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: must have the columns .*: gender is string, and is missing in"):
        open_vectors(source)


# released


class First(nn.Module):
    """The first two values: what was released can be told from what went in."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :2]


def release(kind: str, shape: tuple[int, ...]) -> Release:
    return Release(method="aia", config={}, contract=Contract(kind=kind, shape=shape, k=2), encoder=First())


def released(path: Path) -> tuple[list[str], np.ndarray]:
    table = pq.read_table(path)
    return table["source"].to_pylist(), np.array(table["release"].to_pylist(), np.float32)


@pytest.mark.parametrize("numbered", [False, True])
def test_a_folder_of_vectors_is_released_as_one_file(tmp_path: Path, numbered: bool) -> None:
    source = templates(tmp_path / "t")
    options = Options(batch=5, part=10, row_numbers=numbered)
    apply(release("vectors", (D,)), source, tmp_path / "out.parquet", options)
    names, values = released(tmp_path / "out.parquet")
    assert names == [f"{'' if numbered else 'n'}{i}" for i in range(N)]
    np.testing.assert_array_equal(values, vectors()[:, :2])
    with pytest.raises(InputError, match="whose files are one table, and would be one of them"):
        apply(release("vectors", (D,)), source, source / "out.parquet", options)


def test_a_run_over_a_folder_of_vectors_is_not_resumed_when_a_file_has_changed(tmp_path: Path) -> None:
    source, out = templates(tmp_path / "t"), tmp_path / "out.parquet"
    options = Options(batch=5, part=5)

    def interrupted(done: int, count: int | None, skipped: int) -> None:
        if done == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(release("vectors", (D,)), source, out, options, progress=interrupted)
    (source / "c" / "d.pq").rename(source / "c" / "e.pq")
    with pytest.raises(InputError, match="was begun with another source"):
        apply(release("vectors", (D,)), source, out, options, resume=True)
    (source / "c" / "e.pq").rename(source / "c" / "d.pq")
    assert apply(release("vectors", (D,)), source, out, options, resume=True) == (N, 0, 0)
    assert released(out)[0] == [f"n{i}" for i in range(N)]


def test_a_folder_that_holds_images_is_one_of_images(tmp_path: Path) -> None:
    source = templates(tmp_path / "t")
    (source / "a.png").write_bytes(picture(1))
    with pytest.raises(InputError, match="the release takes vectors, got a folder, which holds images"):
        apply(release("vectors", (D,)), source, tmp_path / "out.parquet")
    assert apply(release("images", (16, 16)), source, tmp_path / "out.parquet") == (1, 0, 0)


@pytest.mark.parametrize("folder", [False, True])
def test_a_table_of_images_is_released_as_a_folder_of_them(tmp_path: Path, folder: bool) -> None:
    columns = rows()
    columns["image"][5] = {"bytes": b"", "path": "005.png"}
    source = repository(tmp_path / "people", columns) if folder else put(tmp_path / "people.parquet", columns)
    out = tmp_path / "out.parquet"
    options = Options(batch=4, part=8)
    assert apply(release("images", (16, 16)), source, out, options) == (N - 1, 1, 0)
    names, values = released(out)
    there = [i for i in range(N) if i != 5]
    assert names == [f"{i:03d}.png" for i in there]
    assert values[:, 0].tolist() == [10 * i for i in there] or np.allclose(values[:, 0], [10 * i / 255 for i in there])
    assert (tmp_path / "out.parquet.skipped.csv").read_text().splitlines()[1:] == ["005.png,empty"]
    apply(release("images", (16, 16)), source, tmp_path / "numbers.parquet", Options(row_numbers=True))
    assert released(tmp_path / "numbers.parquet")[0] == [str(i) for i in there]


def test_a_run_over_a_table_of_images_is_resumed(tmp_path: Path) -> None:
    source, out = repository(tmp_path / "people", rows()), tmp_path / "out.parquet"
    options = Options(batch=4, part=4)

    def interrupted(done: int, count: int | None, skipped: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(release("images", (16, 16)), source, out, options, progress=interrupted)
    assert apply(release("images", (16, 16)), source, out, options, resume=True) == (N, 0, 0)
    apply(release("images", (16, 16)), source, tmp_path / "whole.parquet", options)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    told = Contract(kind="images", shape=(16, 16), k=2, classes={"gender": ["f", "m"]}, asks=True)
    telling = replace(release("images", (16, 16)), contract=told)
    with pytest.raises(InputError, match="classes are told of vectors and packs"):
        apply(telling, source, out, Options(told=["gender"]), force=True)


# releases in several files


def shards(folder: Path) -> dict[str, int]:
    return {path.name: pq.ParquetFile(path).metadata.num_rows for path in sorted(folder.iterdir())}


def sharded(source: Path, out: Path, rows: int, part: int = 5, **run: Any) -> Applied:
    return apply(release("vectors", (D,)), source, out, Options(batch=5, part=part, shard_rows=rows), **run)


@pytest.mark.parametrize(("rows", "expected"), [(7, [7, 7, 7, 3]), (12, [12, 12]), (1, [1] * N), (100, [N])])
@pytest.mark.parametrize("columns", [False, True])
def test_releases_may_go_into_files_of_so_many_rows(
    tmp_path: Path, rows: int, expected: list[int], columns: bool
) -> None:
    source, out = templates(tmp_path / "t", columns=columns), tmp_path / "out.parquet"
    assert sharded(source, out, rows) == (N, 0, 0)
    assert shards(out) == {f"part-{i:05d}.parquet": count for i, count in enumerate(expected)}
    apply(release("vectors", (D,)), source, tmp_path / "whole.parquet")
    whole = pq.read_table(tmp_path / "whole.parquet")
    assert dataset.dataset(out).to_table().equals(whole)
    np.testing.assert_array_equal(np.concatenate([b.vectors for b in open_vectors(out).blocks()]), vectors()[:, :2])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_files_of_releases_are_read_by_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    sharded(templates(tmp_path / "t"), tmp_path / "out.parquet", 7)
    read = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "out.parquet" / "*.parquet"), split="train", cache_dir=tmp_path / "cache"
    )
    assert read["source"][:] == [f"n{i}" for i in range(N)]
    np.testing.assert_array_equal(np.array(read["release"][:], np.float32), vectors()[:, :2])


def test_rows_that_are_left_out_leave_no_gap_in_files_of_releases(tmp_path: Path) -> None:
    x = vectors()
    x[[0, 6, 7, 8, 9, 10, 23]] = 0
    source = put(tmp_path / "in.parquet", {"name": [f"n{i}" for i in range(N)], "v": pa.array(list(x))}, None)
    assert sharded(source, tmp_path / "out.parquet", 8) == (N - 7, 7, 0)
    assert list(shards(tmp_path / "out.parquet").values()) == [8, 8, 1]
    assert (tmp_path / "out.parquet.skipped.csv").is_file()


def test_files_of_releases_appear_together_and_replace_only_themselves(tmp_path: Path) -> None:
    source, out = templates(tmp_path / "t"), tmp_path / "out.parquet"

    def interrupted(done: int, count: int | None, skipped: int) -> None:
        if done == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sharded(source, out, 7, progress=interrupted)
    assert not out.exists()
    assert sharded(source, out, 7, resume=True) == (N, 0, 0)
    made = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError, match="already exists; choose another name or force"):
        sharded(source, out, 7)
    assert sharded(source, out, 7, resume=True) == (N, 0, 0)  # of a run that is done
    assert {path.name: path.read_bytes() for path in out.iterdir()} == made
    with pytest.raises(InputError, match="is not what this run gives"):
        sharded(source, out, 9, resume=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == made
    sharded(source, out, 20, force=True)
    assert list(shards(out).values()) == [20, 4]
    (out / "mine.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds what is no part of a table and would be lost \(mine\.txt\)"):
        sharded(source, out, 7, force=True)


def test_files_of_so_many_rows_are_parquet(tmp_path: Path) -> None:
    source = templates(tmp_path / "t")
    with pytest.raises(InputError, match=r"out\.npz: must end in \.parquet, as files of so many rows were asked for"):
        sharded(source, tmp_path / "out.npz", 7)
    with pytest.raises(InputError, match="shard rows: must be 1 or more, got 0"):
        sharded(source, tmp_path / "out.parquet", 0)
    with pytest.raises(InputError, match="shard rows: are of tables, and image files were asked for"):
        apply(release("images", (16, 16)), source, tmp_path / "out", Options(shard_rows=3, images=True))


# -- tables of released images ----------------------------------------------------------------------------------------


class Negative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1 - x


def negatives(channels: int) -> Release:
    shape = (16, 16) if channels == 1 else (16, 16, 3)
    contract = Contract(kind="images", shape=shape, k=256 * channels, image=shape)
    return Release(method="mi", config={}, contract=contract, encoder=Negative())


@pytest.mark.parametrize("channels", [1, 3])
def test_released_images_become_a_table_of_images(tmp_path: Path, channels: int) -> None:
    pack = build.pack("parquet", put(tmp_path / "in.parquet", rows()), tmp_path / "pack", size=16, channels=channels)
    for source in ("pack", "in.parquet"):
        out = tmp_path / f"{source}.out.parquet"
        assert apply(negatives(channels), tmp_path / source, out, Options(images=True)) == (N, 0, 0)
        again = build.pack("parquet", out, tmp_path / f"{source} again", size=16, channels=channels)
        np.testing.assert_array_equal(again.x, 255 - pack.x)
        assert again.sources.tolist() == pack.sources.tolist()
        table = pq.read_table(out)
        assert table.column_names == ["source", "image"]  # and no label
        assert all(image["path"].endswith(".png") for image in table["image"].to_pylist())
        assert json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["image"] == {"_type": "Image"}


def test_a_table_of_images_has_as_many_shards_as_are_asked_for(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    put(tmp_path / "in.parquet", rows())
    apply(negatives(3), tmp_path / "in.parquet", tmp_path / "out.parquet", Options(images=True, shard_rows=5))
    files = sorted(map(str, (tmp_path / "out.parquet").iterdir()))
    assert len(files) == -(-N // 5)
    read = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert read.num_rows == N
    assert read[0]["image"].size == (16, 16)


def test_a_table_of_images_needs_a_release_that_gives_them(tmp_path: Path) -> None:
    put(tmp_path / "in.parquet", rows())
    with pytest.raises(InputError, match="images: the release must give images, got one that gives vectors"):
        apply(release("images", (16, 16)), tmp_path / "in.parquet", tmp_path / "out.parquet", Options(images=True))
