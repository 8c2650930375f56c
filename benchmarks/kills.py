"""Kills every command at every file-system event, runs it again, and looks at what is left.

    python benchmarks/kills.py [--every 1] [--only pack fit ...]

A command runs in a process of its own, which ends without a word (SIGKILL) before its n-th event among its targets: a
file or folder opened, made, renamed or removed. Then it is run again, with ``--resume`` where it has that, and must
give, bit for bit, what it gives undisturbed; nothing hidden may be left, and in between no release may be without its
key, nor anything that is replaced be gone. n is 1, 1 + every, ... until the command ends by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from veil import cli, files
from veil.auditing.attackers import ATTACKERS
from veil.auditing.rosters import roster
from veil.data.landmarks import PLACES
from veil.errors import InputError
from veil.release import Release
from veil.release.beside import key_path
from veil.workflows import audit as workflow

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.chmod")
EXCHANGE = "ctypes.dlsym"
"""What precedes an exchange of two names, which is no event of Python's own."""


DEAR = ("torch._dynamo", "onnx.reference", "onnxscript", "networkx", "plotly.graph_objects", "jinja2", "pydantic")
"""What commands import when they come to it: here once, as every one of them is a fork."""


@dataclass(frozen=True)
class Case:
    """A command, and what is to be looked at.

    Attributes:
        arguments: Of the command line; ``in/`` holds sources, ``out/`` targets.
        before: Commands whose targets it finds there; without them ``out/`` is empty.
        resumes: Whether it goes on by ``--resume``.
        random: Files that differ from run to run: salted hashes.
        standing: What must be there all the time.
    """

    arguments: str
    before: tuple[str, ...] = ()
    resumes: bool = False
    random: tuple[str, ...] = ()
    standing: tuple[str, ...] = ()


_FIT = (
    "fit template in/vectors out/r --private gender --preset aligned --set noise=0.5 --set steps_guess=2 --no-frontier"
)
_OTHER = "pack embeddings in/table.npz out/x"
_AUDIT = "audit in/vectors out/a --private gender --effort quick --jobs 1"
_PACK = "pack embeddings in/table.npz out/p"
_IMAGES = "pack folder in/photos out/p --labels in/labels.csv --size 16"
_LABEL = "label out/p light --classifier in/network.onnx --classes light,dark"
_EMBED = "embed in/photos out/t.parquet --landmarks in/eyes.csv --matcher in/network.onnx"
_PROTECT = (
    "protect in/table.npz out/o --hide gender --key in/key --effort quick --jobs 1 --set steps=1 --set steps_guess=1 "
    "--set noise=0.5"
)
CASES = {
    "pack": Case("pack folder in/photos out/p --labels in/labels.csv --size 16"),
    "pack --force": Case(f"{_PACK} --force", before=("pack folder in/photos out/p --size 16",), standing=("out/p",)),
    "label": Case(f"{_LABEL} --force", before=(_IMAGES,), standing=("out/p",)),
    "label --force": Case(
        f"{_LABEL} --force", before=(_IMAGES, f"{_LABEL.replace('light,dark', 'day,night')}"), standing=("out/p",)
    ),
    "embed": Case(f"{_EMBED} --labels in/labels.csv"),
    "embed --force": Case(f"{_EMBED} --labels in/labels.csv --force", before=(_EMBED,), standing=("out/t.parquet",)),
    "fit": Case(f"{_FIT} --key in/key --checkpoint-every 1", resumes=True, random=("r.fitted",)),
    "fit --force": Case(
        f"{_FIT} --key in/key --seed 1 --force",
        before=(f"{_FIT} --key in/other",),
        random=("r.fitted",),
        standing=("out/r",),
    ),
    "apply": Case("apply in/release in/vectors out/x.npz", resumes=True),
    "apply --force": Case(
        "apply in/release in/table.npz out/x.parquet --force",
        before=("apply in/release in/table.npz out/x.parquet --row-numbers",),
        standing=("out/x.parquet",),
    ),
    "apply, a pack": Case("apply in/release in/vectors out/x", resumes=True),
    "apply, a pack --force": Case("apply in/release in/vectors out/x --force", before=(_OTHER,), standing=("out/x",)),
    "apply --images": Case("apply in/redrawing in/photos out/x --images", resumes=True),
    "apply --images --force": Case(
        "apply in/redrawing in/photos out/x --images --force",
        before=("apply in/redrawing in/photos out/x --images",),
        standing=("out/x",),
    ),
    "audit": Case(f"{_AUDIT} --release R=in/release"),
    "audit --resume": Case(f"{_AUDIT} --release R=in/release", resumes=True),
    "audit, again": Case(f"{_AUDIT} --release R=in/release", before=(f"{_AUDIT} --seed 1",)),
    "protect": Case(_PROTECT, resumes=True, random=("o/private/release.fitted",)),
    "protect --force": Case(
        f"{_PROTECT} --force", before=(f"{_PROTECT} --seed 1",), random=("o/private/release.fitted",)
    ),
    "report": Case("report out/a", before=(_AUDIT,)),
    "report, again": Case("report out/a", before=(_AUDIT, "report out/a")),
    "export": Case("export in/release out/x"),
    "export --force": Case(
        "export in/release out/x --force", before=("export in/redrawing out/x",), standing=("out/x",)
    ),
}


_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")  # of day, which audits tell


class Harness:
    """Sources for every case, in a folder; made once."""

    def __init__(self, folder: Path) -> None:
        for name in DEAR:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        self.folder = folder
        self.source = folder / "in"
        self.source.mkdir()
        rng = np.random.default_rng(0)
        names = [f"person{i // 4:02d}/{i}.png" for i in range(96)]
        for name in names:
            path = self.source / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (20, 20), dtype=np.uint8)).save(path)
        rows = [f"{name},{'mf'[i // 4 % 2]}" for i, name in enumerate(names)]
        (self.source / "labels.csv").write_text("\n".join(["path,gender", *rows]) + "\n")
        eyes = [f"{name},6,8,13,8" for name in names[:-1]]
        (self.source / "eyes.csv").write_text("\n".join([",".join(["path", *PLACES]), *eyes]) + "\n")
        (self.source / "network.onnx").write_bytes(_network())
        people = np.repeat(np.arange(120), 2)
        x = rng.normal(size=(240, 8)) + rng.normal(size=(120, 8))[people]
        gender = np.array(["female", "male"])[people % 2]
        np.savez(self.source / "table.npz", vectors=x.astype(np.float32), name=np.arange(240).astype(str),
                 identity=people.astype(str), gender=gender)  # fmt: skip
        for name in ("key", "other"):
            (self.source / name).write_bytes(rng.bytes(32))
        self._run("pack embeddings in/table.npz in/vectors")
        self._run("pack folder in/photos in/images --labels in/labels.csv --size 16")
        self._run(f"{_FIT.replace('out/r', 'in/release')} --key in/key")
        self._run(
            "fit mi in/images in/redrawing --private gender --set batch=8 --set features=8 --set steps_views=1 "
            "--set steps_alone=1 --set steps_discriminator=1 --set steps_joint=1 --set keep=0 --set least_variety=0"
        )

    def kills(self, case: Case, *, every: int = 1, first: int = 1) -> tuple[int, list[str]]:
        """How often the command was killed, and what was wrong."""
        wanted = self._undisturbed(case)
        count, problems = 0, []
        for number in range(first, 100_000, every):
            self._begin(case)
            status = self._child(case.arguments, kill=number)
            if status == 0:
                break
            if status != -signal.SIGKILL:
                problems.append(f"event {number}: ended with {status} before it was killed: {self._said}")
                break
            count += 1
            problems += [f"event {number}: {problem}" for problem in self._look(case, wanted)]
        return count, problems

    def _look(self, case: Case, wanted: dict[str, bytes]) -> Iterator[str]:
        out = self.folder / "out"
        for name in case.standing:
            if not (self.folder / name).exists():
                yield f"{name} is gone"
        for folder in (out / "r",) if (out / "r").exists() else ():
            try:
                if Release.load(folder).key is None:
                    yield f"the release is without its key; {key_path(folder).exists()}"
            except InputError as error:
                yield f"the release does not load: {error}"
        again = case.arguments + " --resume" * case.resumes
        status = self._child(again)
        if status and not ("already exists" in self._said and not case.resumes and "--force" not in again):
            yield f"again: status {status}: {self._said}"
        if hidden := [str(p.relative_to(out)) for p in out.rglob("*") if files.is_hidden(p.name)]:
            yield f"left behind: {hidden}"
        found = self._tree(case)
        if found != wanted:
            differ = [n for n in {*found, *wanted} if found.get(n) != wanted.get(n)]
            yield f"other than undisturbed: {sorted(differ)}"

    def _undisturbed(self, case: Case) -> dict[str, bytes]:
        self._begin(case)
        if status := self._child(case.arguments):
            raise SystemExit(f"{case.arguments}: status {status}: {self._said}")
        return self._tree(case)

    def _begin(self, case: Case) -> None:
        out, kept = self.folder / "out", self.folder / f"before-{abs(hash(case.before))}"
        shutil.rmtree(out, ignore_errors=True)
        if not kept.exists():
            out.mkdir()
            for command in case.before:
                self._run(command)
            out.rename(kept)
        shutil.copytree(kept, out)

    def _tree(self, case: Case) -> dict[str, bytes]:
        """Files by name; of a pack without when they were written, which it notes for itself."""
        out = self.folder / "out"
        names = {str(p.relative_to(out)): p for p in out.rglob("*") if p.is_file()}
        skipped = {n for n, p in names.items() if n in case.random or p.name == "checked.json"}
        return {n: b"" if n in skipped else _TIME.sub(b"", p.read_bytes()) for n, p in names.items()}

    def _run(self, command: str) -> None:
        if self._child(command):
            raise SystemExit(f"{command}: {self._said}")

    def _child(self, command: str, kill: int = 0) -> int:
        """Runs a command in a process of its own; its status, negative for a signal. What it said is kept."""
        said = self.folder / "said"
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            with said.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.chdir(self.folder)
            if kill:
                _arm(self.folder / "out", kill)
            status = 1
            try:
                sys.argv = ["veil", *command.split(), "--quiet"]
                sys.stdout = sys.stderr = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), write_through=True)
                cli.main()
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 1
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                os._exit(status)
        _, ended = os.waitpid(pid, 0)
        self._said = said.read_text().strip()
        return os.waitstatus_to_exitcode(ended)


def _network() -> bytes:
    """An ONNX file that gives two products of 16 x 16 grey values."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(256, 2)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 1, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 2])], [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _arm(folder: Path, number: int) -> None:
    """From now on the process is killed before its n-th event in a folder."""
    left = number

    def inside(event: str, arguments: tuple[object, ...]) -> bool:
        if event in ("os.remove", "os.rmdir") and isinstance(arguments[1], int) and arguments[1] >= 0:
            return True  # of a folder that is removed with all that it holds
        paths = [Path(os.fsdecode(a)) for a in arguments[:2] if isinstance(a, (str, bytes, os.PathLike))]
        return any(path.absolute().is_relative_to(folder) for path in paths)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if (event == EXCHANGE and arguments[1] == "renameat2") or (event in EVENTS and inside(event, arguments)):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def quick_audits() -> None:
    """Audits of one attacker: how good it is does not matter here."""
    name = "logistic regression"
    alone = {name: ATTACKERS[name]}
    changes: dict[str, Any] = {"attackers": alone, "of_means": alone, "control": (name, alone[name]), "matchers": {}}
    workflow.roster = lambda effort, **more: roster(effort, **(changes | more))  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="kill at every so manieth event")
    parser.add_argument("--only", nargs="+", default=[*CASES], choices=[*CASES])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quick_audits()
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(Path(folder))
        for name in arguments.only:
            start = time.perf_counter()
            count, problems = harness.kills(CASES[name], every=arguments.every)
            print(f"{name}: {count} kills, {len(problems)} problems, {time.perf_counter() - start:.0f} s", flush=True)
            for problem in problems:
                print(f"  {problem}")


if __name__ == "__main__":
    main()
