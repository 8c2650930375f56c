"""What several test files share: one thread on the CPU, seeded draws, and two small populations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from veil.auditing import decoders, matchers, networks, run
from veil.auditing.attackers import ATTACKERS
from veil.auditing.exhibit import Exhibit
from veil.auditing.outcomes import Outcomes
from veil.auditing.rosters import roster
from veil.auditing.setting import Setting
from veil.data import stylised
from veil.data.pack import Pack
from veil.engine import Player, Run, perceptual
from veil.findings import Finding

torch.set_num_threads(1)

PEOPLE, IMAGES = 120, 4
SLOW = ("test_bundle.py", "test_engine.py", "test_kills.py", "test_examples.py")
"""Files of few tests that take minutes: they come first, so that processes which share the files end together."""


def pytest_configure() -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # tests compare bits, which GPUs do not repeat; test_gpu.py has its own way


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOW.index(item.path.name) if item.path.name in SLOW else len(SLOW))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@cache
def faces_pack() -> Pack:
    """120 stylised people, 4 grey images of 32x32 each; gender, expression, smile and glasses."""
    faces = stylised.population(PEOPLE, IMAGES, seed=1)
    names = [faces.names(row) for row in range(len(faces))]
    pack = Pack.from_arrays(
        stylised.render(faces, size=32, threads=1),
        {label: [n[label] for n in names] for label in names[0]},
        sources=[f"album/{n['identity']}/shot-{row}.png" for row, n in enumerate(names)],
    )
    pack.x.setflags(write=False)  # all tests of a process share it
    return pack


@cache
def vectors_pack(people: int = 400, images: int = 3, d: int = 16, seed: int = 0) -> Pack:
    """People as vectors with a known answer: values 0-2 tell their gender and 3 their age, the others who they are.

    Gender moves values 0-2 by 2 within-person standard deviations each side of 0, age moves value 3 so; nothing else
    depends on them. Every person's own values 4.. are N(0, 1), every image of a person adds N(0, 0.3^2).
    """
    rng = np.random.default_rng(seed)
    gender, age = rng.permutation(people) % 2, rng.permutation(people) % 2
    own = rng.normal(size=(people, d))
    own[:, :3] = 0.6 * (2 * gender[:, None] - 1)
    own[:, 3] = 0.6 * (2 * age - 1)
    who = np.repeat(np.arange(people), images)
    x = own[who] + rng.normal(scale=0.3, size=(len(who), d))
    labels = {
        "identity": [f"visitor-{i:03d}" for i in who],
        "gender": np.array(["female", "male"])[gender[who]],
        "age": np.array(["old", "young"])[age[who]],
    }
    pack = Pack.from_arrays(x.astype(np.float32), labels)
    pack.x.setflags(write=False)  # all tests of a process share it
    return pack


def onnx_file(
    path: Path,
    *nodes: tuple[str, Sequence[str], Mapping[str, Any]],
    shape: Sequence[Any],
    kind: str = "FLOAT",
    **weights: Any,
) -> Path:
    """A tiny ONNX model: nodes ``(operator, further inputs, attributes)`` one after the other, from ``x`` to ``y``."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, numbers = onnx.helper, getattr(onnx.TensorProto, kind)
    names = ["x", *(f"h{i}" for i in range(1, len(nodes))), "y"]
    graph = helper.make_graph(
        [
            helper.make_node(op, [names[i], *more], [names[i + 1]], **options)
            for i, (op, more, options) in enumerate(nodes)
        ],
        "g",
        [helper.make_tensor_value_info("x", numbers, list(shape))],
        [helper.make_tensor_value_info("y", numbers, None)],
        [onnx.numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def brightness_file(path: Path, weights: Sequence[Sequence[float]] = ((-1.0, 1.0),)) -> Path:
    """A classifier of grey images: the second class where the mean is above the middle of the range."""
    mean = ("ReduceMean", (), {"axes": [2, 3], "keepdims": 0})
    return onnx_file(path, mean, ("MatMul", ("w",), {}), shape=["B", 1, 4, 4], w=weights)


def only(*names: str, **changes: Any) -> dict[str, Any]:
    """Changes to a roster: attackers of these names alone, on means, too, and no matchers that are trained.

    Other attributes of :class:`veil.auditing.setting.Roster` are as given.
    """
    known = {name: ATTACKERS[name] for name in names}
    return {"attackers": known, "of_means": known, "of_templates": {}, "matchers": {}, **changes}


def attacked_by(monkeypatch: pytest.MonkeyPatch, *names: str, **changes: Any) -> None:
    """Audits of releases and commands, and frontiers, are by these attackers alone; changes as for :func:`only`."""
    own = only(*names, **changes)
    for workflow in ("audit", "frontier"):
        monkeypatch.setattr(f"veil.workflows.{workflow}.roster", lambda effort, **more: roster("quick", **(own | more)))


def short_decoders(monkeypatch: pytest.MonkeyPatch, steps: int = 2) -> None:
    """Decoders that are trained, and the network of perceptual distances, learn for a moment only."""
    for name in decoders.STEPS:
        monkeypatch.setitem(decoders.STEPS, name, (steps,) * 3)
    learn = perceptual.learn

    def briefly(run: Run, learner: Player, x: Any, rows: Any, steps: int) -> Any:
        return learn(run, learner, x, rows, 3 if steps > 100 else steps)  # tests ask for fewer

    monkeypatch.setattr(perceptual, "learn", briefly)


def short_networks(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Attackers, classifiers and matchers that are networks take so many steps at most, in this process."""
    train = networks.train

    def briefly(*args: Any, steps: int, **more: Any) -> Any:
        return train(*args, steps=min(steps, most), **more)

    for module in (networks, matchers):
        monkeypatch.setattr(module, "train", briefly)


def audited(
    exhibits: Sequence[Exhibit],
    pack: Pack,
    *,
    effort: str = "quick",
    changes: Mapping[str, Any] | None = None,
    jobs: int | None = 1,
    outcomes: Outcomes | None = None,
    progress: run.Progress | None = None,
    **asked: Any,
) -> list[Finding]:
    """The findings of an audit by a roster with changes; what is asked goes by the names of ``Setting``."""
    setting = Setting(pack=pack, roster=roster(effort, **(changes or {})), effort=effort, **asked)
    return run.audit(exhibits, setting, jobs=jobs, outcomes=outcomes, progress=progress).findings


@pytest.fixture(scope="session")
def faces() -> Pack:
    return faces_pack()


@pytest.fixture(scope="session")
def vectors() -> Pack:
    return vectors_pack()
