"""Mutated files for every reader of foreign files, and bombs: some of each; `benchmarks/hostile.py` has many more."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
READERS = (
    *(f"picture, {ending}" for ending in ("jpg", "png", "bmp", "webp", "tif", "gif", "avif", "jp2", "ppm", "tga")),
    *(f"vectors, {ending}" for ending in ("npy", "npz", "csv", "parquet")), "labels, csv", "labels, parquet",
    "landmarks, csv", "choices, csv", "lfw, archive", "lfw, lists", "pendigits", "celeba", "fairface", "vggface2",
    "msceleb", "folder, pictures", "folder, labels", "parquet", "landmarks", "embeddings", "pack, images",
    "pack, vectors", "pack, applied",
    *(f"release, {method}" for method in
      ("template", "leace", "random", "substitution", "aia", "deep", "mi", "san", "inversion")),
    "scores, csv", "scores, parquet",
    "key", "report", "curves", "earlier audit", "pictures, redrawn", "weights", "checkpoint", "parts", "onnx",
)  # fmt: skip
BOMBS = (
    "pack: vectors of 2^40 rows", "pack: deep JSON", "labels: a quote that never ends", "vectors: an npy of 2^40 rows",
    "parquet: a picture of 2^25 bytes in 3,000 rows",
    "vectors: a column's name of 5 10^5 digits", "release: a shape of 30,000 x 30,000", "release: deep JSON",
    "release: weights that claim 2^40 bytes", "lfw: a member of 2^80 bytes", "picture: a PNG of 60,000 x 60,000",
    "picture: a GIF's frame of 65,000 x 65,000", "report: deep JSON", "pipe: pictures/a.png", "pipe: a network",
    "zeros: r/release.json", "loop: labels", "scores: 10^8 null rows",
    "scores: a person of 2^20 letters in 3,000 rows",
)  # fmt: skip
EACH = 8
"""Inputs to a reader, fewer to a slow one."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork, and what Linux says of memory")


@pytest.fixture(scope="module")
def hostile() -> Iterator[ModuleType]:
    pytest.importorskip("onnx")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("hostile")


@pytest.fixture(scope="module")
def readers(hostile: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    found: Mapping[str, Any] = hostile.readers(tmp_path_factory.mktemp("valid"))
    return found


def test_every_reader_is_tried(readers: Mapping[str, Any]) -> None:
    assert sorted(readers) == sorted(READERS)


@pytest.mark.parametrize("name", READERS)
def test_what_is_mutated_could_be_read(
    hostile: ModuleType, readers: Mapping[str, Any], name: str, tmp_path: Path
) -> None:
    tally = hostile.Harness(tmp_path).read_valid(readers[name])
    assert (tally.problems, tally.words["refused"]) == ([], 0)


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_read_or_refused(
    hostile: ModuleType, readers: Mapping[str, Any], name: str, tmp_path: Path
) -> None:
    count = max(round(EACH * min(readers[name].share, 1)), 1)
    tally = hostile.Harness(tmp_path).read(name, readers[name], count)
    assert tally.problems == []
    assert tally.words.total() == count


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_put_out(hostile: ModuleType, name: str, tmp_path: Path) -> None:
    _, outcome = hostile.Harness(tmp_path).explode(hostile.bombs()[name])
    assert outcome.kind == ""


@pytest.mark.large
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", READERS)
def test_many_mutated_files_are_read_or_refused(
    hostile: ModuleType, readers: Mapping[str, Any], name: str, tmp_path: Path
) -> None:
    tally = hostile.Harness(tmp_path).read(name, readers[name], round(2000 * readers[name].share), seed=1)
    assert tally.problems == []


@pytest.mark.large
@pytest.mark.timeout(0)
def test_all_bombs_are_put_out(hostile: ModuleType, tmp_path: Path) -> None:
    harness = hostile.Harness(tmp_path)
    assert {name: kind for name, bomb in hostile.bombs().items() if (kind := harness.explode(bomb)[1].kind)} == {}


# -- the harness itself -----------------------------------------------------------------------------------------------


def _take(count: int) -> None:
    bytes(bytearray(count))


def _wait(folder: Path) -> None:
    time.sleep(60)


def _work(folder: Path) -> None:
    while True:
        pass


WRONG: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "an exception": (lambda folder: {}["x"], "KeyError at"),
    "memory": (lambda folder: _take(100 << 20), "more than 64 MiB"),
    "much more memory": (lambda folder: _take(1 << 40), "MemoryError at"),
    "a warning": (lambda folder: warnings.warn("x", stacklevel=1), "UserWarning escapes at"),
    "words": (lambda folder: os.write(2, b"x"), "words on stdout or stderr"),
    "a signal": (lambda folder: os.kill(os.getpid(), signal.SIGSEGV), "the process ended with -11 at"),
    "an end": (lambda folder: os._exit(3), "the process ended with 3 at"),
    "work without end": (_work, "more than 0.5 s at"),
    "a wait": (_wait, "no end after 1.5 s by the clock at"),
}


@pytest.mark.parametrize("what", WRONG)
def test_the_harness_sees_what_is_wrong(
    hostile: ModuleType, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostile, "MIB", 64.0)
    if what in ("work without end", "a wait"):
        monkeypatch.setattr(hostile, "SECONDS", 0.5)
        monkeypatch.setattr(hostile, "PATIENCE", 1.5 if what == "a wait" else 30.0)
    wrong, kind = WRONG[what]

    def read(folder: Path) -> None:
        if (folder / "x").read_bytes() == b"wrong":
            wrong(folder)

    reader = hostile.Reader(seeds=[{"x": b"wrong"}, {"x": b"right"}], read=read)
    tally = hostile.Harness(tmp_path).read_valid(reader)
    assert list(tally.words.items()) == [("wrong", 1), ("success", 1)]
    assert next(iter(tally.kinds)).startswith(kind)


def test_an_input_is_told_by_its_number(hostile: ModuleType) -> None:
    reader = hostile.Reader(seeds=[{"x.json": b'{"a": [1, 2]}', "y.csv": b"a,b\n1,2\n"}], read=print)
    one, again, other = (hostile.mutated("x", reader, 0, number) for number in (7, 7, 8))
    assert one == again != other
