"""What callers get wrong in kind, give twice or call strangely: one line, the same result, or no matter."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import veil
from conftest import vectors_pack
from veil.auditing.attackers import ATTACKERS
from veil.cli import texts
from veil.data.pack import Pack
from veil.errors import InputError
from veil.methods.base import input_release
from veil.workflows.apply import Options, apply
from veil.workflows.embed import embed
from veil.workflows.fit_folder import FitOptions, fit_into
from veil.workflows.subjects import controls

PACK = vectors_pack(60, 2)
RELEASE = input_release(PACK)
ASKED = {"private": ["gender"], "utility": []}
PATHS: dict[str, Callable[[Any], Any]] = {
    "pack": Pack.open,
    "release": veil.Release.load,
    "key": lambda value: veil.Release.load("none", key=value),
    "path": RELEASE.export,
    "source": lambda value: veil.pack("folder", value, "out"),
    "out": lambda value: veil.pack("folder", "in", value),
    "labels": lambda value: veil.pack("folder", "in", "out", labels=value),
    "landmarks": lambda value: veil.pack("folder", "in", "out", landmarks=value),
    "classifier": lambda value: veil.label("pack", "name", classifier=value),
}
OTHERS: dict[str, Callable[[Any], Any]] = {
    "layout": lambda value: veil.pack(value, "in", "out"),
    "size": lambda value: veil.pack("folder", "in", "out", size=value),
    "channels": lambda value: veil.pack("folder", "in", "out", channels=value),
    "crop": lambda value: veil.pack("folder", "in", "out", crop=value),
    "fractions": lambda value: veil.pack("folder", "in", "out", fractions=value),
    "jobs": lambda value: embed("in", "out.parquet", jobs=value),
    "method": lambda value: veil.fit(value, PACK, private=["gender"]),
    "private": lambda value: veil.fit("leace", PACK, private=value),
    "utility": lambda value: veil.fit("leace", PACK, private=["gender"], utility=value),
    "preset": lambda value: veil.fit("leace", PACK, private=["gender"], preset=value),
    "settings": lambda value: veil.fit("leace", PACK, private=["gender"], settings=value),
    "base": lambda value: veil.fit("leace", PACK, private=["gender"], base=value),
    "subjects": lambda value: veil.audit(PACK, value, **ASKED),
    "release": lambda value: apply(value, "in", "out.npz"),
}


@pytest.mark.parametrize("name", PATHS)
def test_what_is_no_path_is_told_by_its_name(name: str) -> None:
    for value in (np.zeros((3, 2)), 5, ["a"], b"a", "", *([] if name in ("key", "labels", "landmarks") else [None])):
        with pytest.raises(InputError, match=f"^{name}: must be a path, got ") as caught:
            PATHS[name](value)
        assert str(caught.value).endswith("got nothing") == (value is None or isinstance(value, str))


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_of_another_kind_is_told_by_its_name(name: str) -> None:
    for value in (np.zeros((3, 2)), 5.5, b"a", [3], object()):
        with pytest.raises(InputError, match=f"^{name}.*: (each )?must be "):
            OTHERS[name](value)


def test_what_is_applied_must_be_a_path_too(tmp_path: Path) -> None:
    for source, out, name in ((None, tmp_path / "o.npz", "source"), (tmp_path, np.zeros(3), "out")):
        with pytest.raises(InputError, match=f"^{name}: must be a path, got "):
            apply(RELEASE, source, out)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=f"^{name}: must be a path, got "):
            embed(source, out)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^x: must be an array, got list$"):
        RELEASE.transform([[1.0]])  # type: ignore[arg-type]


def packed(folder: Path, name: str) -> Pack:
    """A pack whose label of gender has this name, from a CSV file."""
    with (folder / "in.csv").open("w", newline="", encoding="utf-8") as file:
        who, gender = PACK.label("identity"), PACK.label("gender")
        rows = [[i, who[i], f"{gender[i]} /;=", *x] for i, x in enumerate(np.asarray(PACK.x).tolist())]
        csv.writer(file).writerows([["source", "identity", name, *(f"v{i}" for i in range(16))], *rows])
    return veil.pack("embeddings", folder / "in.csv", folder / "pack")


def test_what_is_named_twice_counts_once(tmp_path: Path) -> None:
    packed(tmp_path, "gender")
    for name, private in (("once", ["gender"]), ("twice", ["gender", "gender"])):
        fit_into(FitOptions(method="leace", private=private), tmp_path / "pack", tmp_path / name)
    once, twice = ((tmp_path / name / "release.json").read_bytes() for name in ("once", "twice"))
    assert once == twice
    subjects, broken = controls(["leace", "leace"], PACK, ["gender", "gender"], 0)
    assert ([s.name for s in subjects], broken) == (["Input + LEACE"], {})
    same = ["a=x.onnx", "a=x.onnx", "a=y.onnx"]
    assert texts.classifiers(same, ["a"]) == {"a": [Path("x.onnx"), Path("y.onnx")]}
    releases = texts.named_releases(["r", "r", "s"], ["r=k"])
    assert [(each.name, each.key) for each in releases] == [("r", Path("k")), ("s", None)]
    assert [each.name for each in texts.named_vectors(["v.npz", "v.npz"])] == ["v"]


@pytest.mark.parametrize("name", ["a b/c", "../x", "a=b;c,d", '<b>"\x1b[31m', "."])
def test_a_label_may_be_called_anything_that_a_file_can_say(tmp_path: Path, name: str) -> None:
    pack = packed(tmp_path, name)
    assert set(pack.labels) == {"identity", name}
    veil.fit("leace", pack, private=[name]).release.save(tmp_path / "release")
    release = veil.Release.load(tmp_path / "release")
    assert release.made["private"] == [name]
    apply(release, tmp_path / "in.csv", tmp_path / "out.parquet", Options(row_numbers=True))
    one = {"attackers": {"logistic regression": ATTACKERS["logistic regression"]}, "of_means": {}}
    asked = {"private": [name], "utility": [], "effort": "quick", "together": False, "baselines": []}
    veil.audit(pack, [], jobs=1, roster=one, **asked).report(tmp_path / "audit")
    assert {path.name for path in tmp_path.iterdir()} == {
        "in.csv", "pack", "release", "release.fitted", "out.parquet", "audit",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["", " ", "x" * 1025])
def test_a_label_that_no_file_could_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^label name '.*': must have 1 to 1,024 letters, got "):
        Pack.from_arrays(np.zeros((4, 2), np.float32), {name: ["a", "b", "a", "b"]})
