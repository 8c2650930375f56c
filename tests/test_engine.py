"""The engine: who changes in an update, what a run repeats, what it refuses, and that N processes equal one."""

from __future__ import annotations

import ast
import errno
import hashlib
import inspect
import json
import math
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from conftest import faces_pack, vectors_pack
from methods_matrix import BRIEF, kind_of, pack_of, train, use_of
from veil import cli
from veil.cli.texts import four_floats
from veil.data import build
from veil.data.pack import Pack
from veil.engine import Diverged, Player, Run, Step
from veil.engine import run as engine
from veil.engine.checkpoint import read
from veil.engine.run import Saving, by_first, left_by, one_cycle, run_identity, seeded, step_seed
from veil.errors import InputError
from veil.methods import METHODS, aia, deep, inversion, mi, san, substitution, template
from veil.nn.augment import augment
from veil.nn.losses import balanced_weights, cross_entropy
from veil.release import Release
from veil.workflows import fit as fitting
from veil.workflows import frontier

TESTS = Path(__file__).parent

SMALL = {"batch": 16, "steps_alone": 4, "steps_joint": 8}
DEEP = deep.Config(features=16, networks=2, noise=0.5, augment=True, **SMALL)
TEMPLATE = template.Config(
    batch=16, guess=32, steps_guess=4, folds=2, adversaries=2, refresh=3, steps=8, keep=0.75, rounds=2, steps_erase=3
)
SUBSTITUTION = substitution.Config(batch=16, codes=6, heads=2, steps=8, people=2, guide=0.0, keep=1.0, hide=2.0)
MI = mi.Config(
    batch=16,
    features=8,
    steps_views=3,
    steps_alone=3,
    steps_discriminator=2,
    steps_joint=8,
    tie=1.0,
    keep=1.0,
    least_variety=0.0,
)
INVERSION = inversion.Config(
    batch=16, features=16, labels="gender", lambda2=0.1, capacity=16.0, steps_alone=3, steps_perceptual=3,
    steps_decoder=2, steps_joint=8,
)  # fmt: skip
SAN = san.Config(batch=16, steps_classifier=3, steps_matcher=3, steps=8, aligned=0.0)
MODULE = {module.Config: module for module in (aia, deep, inversion, mi, san, substitution, template)}


def toy(*parts: int | str) -> nn.Module:
    with seeded("toy", *parts):
        return nn.Linear(4, 4)


def copied(module: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def gradients_of(player: Player) -> list[list[torch.Tensor]]:
    """Fills with the gradients that each later step of the player's optimiser sees."""
    seen: list[list[torch.Tensor]] = []
    player.optimizer.register_step_pre_hook(lambda *_: seen.append([p.grad.clone() for p in player.parameters]))
    return seen


# One player's update


def test_update_changes_its_player_alone():
    run = Run(seed=0, precision="fp32")
    first, second = Player("first", toy(1), lr=0.1), Player("second", toy(2), lr=0.1)
    before = copied(first.module), copied(second.module)
    seen = gradients_of(first)
    x = torch.randn(8, 4)
    loss = second.module(first.module(x)).square().mean()
    expected = torch.autograd.grad(loss, first.parameters, retain_graph=True)
    run.update(first, loss)
    assert same(copied(second.module), before[1])
    assert all(p.grad is None for p in [*first.module.parameters(), *second.module.parameters()])
    assert same(seen[0], list(expected))
    # Adam's first step is the learning rate times the gradient's sign, up to its epsilon of 1e-8.
    for now, old, gradient in zip(first.parameters, before[0], expected, strict=True):
        assert gradient.abs().min() > 1e-4
        torch.testing.assert_close(now.detach(), old - 0.1 * gradient.sign(), atol=1e-4, rtol=0)
    assert (first.updates, second.updates) == (1, 0)


def test_parameter_that_takes_no_part_raises():
    run = Run(seed=0, precision="fp32")
    both = nn.ModuleList([toy(1), toy(2)])
    player = Player("both", both, lr=0.1)
    before = copied(both)
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        run.update(player, both[0](torch.ones(2, 4)).sum())
    assert same(copied(both), before)


def test_frozen_parameters_are_no_part_of_a_player():
    module = toy(1)
    module.bias.requires_grad_(False)
    player = Player("weights", module, lr=0.1)
    bias = module.bias.detach().clone()
    Run(seed=0, precision="fp32").update(player, module(torch.ones(2, 4)).square().sum())
    assert torch.equal(module.bias, bias)


def test_clip_and_schedule():
    run = Run(seed=0, precision="fp32")
    player = Player("p", toy(1), lr=0.5, clip=1e-3, schedule=lambda n: 1 / (1 + n))
    seen = gradients_of(player)
    rates = []
    for _ in range(3):
        run.update(player, 1e3 * player.module(torch.ones(2, 4)).square().sum())
        rates.append(player.optimizer.param_groups[0]["lr"])
    assert rates == [0.5, 0.25, 0.5 / 3]
    for gradients in seen:
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        assert norm == pytest.approx(1e-3, rel=1e-4)


def test_restart_takes_fresh_weights_and_forgets():
    run = Run(seed=0, precision="fp32")
    player, fresh = Player("p", toy(1), lr=0.1), toy(2)
    run.update(player, player.module(torch.ones(2, 4)).square().sum())
    assert player.optimizer.state
    player.restart(fresh)
    assert same(copied(player.module), copied(fresh))
    assert player.updates == 0
    assert not player.optimizer.state


def test_one_cycle_shape():
    factor = one_cycle(100, 0.1)
    values = [factor(n) for n in range(101)]
    assert values[0] == pytest.approx(1 / 25)
    assert values[10] == 1.0
    assert values[55] == pytest.approx(0.5)
    assert values[100] == pytest.approx(0.0)
    assert (np.diff(values[:11]) > 0).all()
    assert (np.diff(values[10:]) < 0).all()
    assert factor(101) == pytest.approx(0.0)


# Draws


def draws(seed: int, stage: str = "s", count: int = 3) -> list[np.ndarray]:
    return [
        np.concatenate([step.rng.random(3), step.uniform(2, 3).ravel().numpy(), step.normal(2, 3).ravel().numpy()])
        for step in Run(seed=seed).stage(stage, count)
    ]


def test_draws_follow_seed_stage_and_step_alone():
    torch.manual_seed(5)
    first = draws(1)
    torch.manual_seed(6)
    assert all((a == b).all() for a, b in zip(first, draws(1), strict=True))
    # A later step's draws do not depend on whether the earlier ones were made: what a resumed run relies on.
    run = Run(seed=1)
    last = list(run.stage("s", 3))[2]
    assert (last.rng.random(3) == first[2][:3]).all()
    others = [*first[1:], draws(2)[0], draws(1, "t")[0]]
    assert all(not np.isin(first[0], other).any() for other in others)


def test_draws_do_not_depend_on_the_number_of_processes():
    def step(rank: int, world: int) -> Step:
        return Step(0, 1, np.random.default_rng(0), torch.Generator().manual_seed(3), rank, world)

    whole, parts = step(0, 1), [step(rank, 2) for rank in range(2)]
    for name, shape in (("uniform", (3,)), ("normal", (2, 5)), ("uniform", ())):
        expected = getattr(whole, name)(8, *shape)
        got = torch.cat([getattr(part, name)(4, *shape) for part in parts])
        assert torch.equal(got, expected)


def test_seeded_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    a = toy(7)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(99)
    assert same(copied(a), copied(toy(7)))
    assert not same(copied(a), copied(toy(8)))
    assert step_seed("a", 12) != step_seed("a1", 2)


def test_augment_draws_each_row_from_its_own_numbers():
    x = torch.rand(8, 1, 32, 32)

    def stepped(rank: int, world: int) -> Step:
        return Step(0, 1, np.random.default_rng(0), torch.Generator().manual_seed(3), rank, world)

    whole = augment(x, stepped(0, 1).uniform)
    halves = torch.cat([augment(half, stepped(rank, 2).uniform) for rank, half in enumerate(x.split(4))])
    assert whole.shape == x.shape
    assert not torch.equal(whole, x)
    # Sampling coordinates of a 32-pixel row round to 32 * 2^-24 pixels, a pixel's slope is below 1.35 a pixel.
    torch.testing.assert_close(halves, whole, atol=4 * 32 * 2**-24, rtol=0)
    # Contrast of at most 1.35 about a mean in [0, 1] and brightness of 0.15 bound what may leave [0, 1].
    assert whole.min() >= -0.35 - 0.15 - 1e-6
    assert whole.max() <= 1.35 + 0.15 + 1e-6


def test_augment_without_change_is_the_identity():
    """Draws of 1/2 are the middle of every range: no turn, scale 1, no shift, no contrast or brightness, no mirror."""
    x = torch.rand(2, 1, 32, 32)

    def middle(*shape: int) -> torch.Tensor:
        return torch.full(shape, 0.5)

    view = augment(x, middle)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    patch = ((rows - 16).abs() < 0.095 * 32) & ((columns - 16).abs() < 0.095 * 32)
    torch.testing.assert_close(view[:, :, ~patch], x[:, :, ~patch], atol=1e-5, rtol=0)
    assert (view[:, 0, patch].std(1) < 1e-6).all()


# Divergence


BAD = {
    "nan": lambda p: p.module(torch.ones(1, 4)).sum() * float("nan"),
    "infinite": lambda p: p.module(torch.ones(1, 4)).sum() * float("inf"),
    "unbounded": lambda p: p.module(torch.ones(1, 4)).sum() * 0.0 - 1e7,
    "gradient": lambda p: (p.module(torch.ones(1, 4)).square().sum() * 0.0).sqrt(),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("checkpointed", [True, False], ids=["checkpoint due", "stage ends"])
def test_divergence_names_stage_step_and_player(tmp_path, kind, checkpointed):
    """A finite loss with a NaN gradient counts: its weights must not reach a checkpoint or the end of a stage."""
    file = tmp_path / "run.ckpt"
    run = Run(seed=0, precision="fp32", saving=Saving(file=file, every=4) if checkpointed else None)
    healthy, player = Player("healthy", toy(1), lr=0.01), Player("culprit", toy(2), lr=0.01)
    run.enter(healthy, player)

    def duel() -> None:
        for step in run.stage("duel", 40 if checkpointed else 4):
            run.update(healthy, healthy.module(torch.ones(1, 4)).square().sum())
            good = player.module(torch.ones(1, 4)).square().sum()
            run.update(player, BAD[kind](player) if step.number == 3 else good)

    with pytest.raises(Diverged) as caught:
        duel()
    message = str(caught.value)
    assert "\n" not in message
    assert "duel" in message
    assert "step 3" in message
    assert "'culprit'" in message
    assert isinstance(caught.value, InputError)
    assert list(tmp_path.iterdir()) == []  # step 3's checkpoint would have been the first


def test_healthy_checkpoint_survives_a_later_divergence(tmp_path):
    file = tmp_path / "run.ckpt"
    run = Run(seed=0, precision="fp32", saving=Saving(file=file, every=2))
    player = Player("p", toy(1), lr=0.01)
    run.enter(player)

    def train() -> None:
        for step in run.stage("s", 10):
            scale = float("nan") if step.number == 3 else 1.0
            run.update(player, scale * player.module(torch.ones(1, 4)).square().sum())

    with pytest.raises(Diverged):
        train()
    state = read(file)
    assert state.done == {"s": 2}
    assert all(torch.isfinite(value).all() for value in state.tensors.values())
    assert [path.name for path in tmp_path.iterdir()] == ["run.ckpt"]


def test_fit_that_runs_away_ends_in_one_line(faces):
    config = aia.Config(beta=1e6, lr=10.0, lr_opponents=10.0, **{**SMALL, "steps_joint": 40})
    with pytest.raises(Diverged, match=r"^(auto-encoder|opponents|joint), step \d+: .*(protector|adversary|task)"):
        train("aia", config, faces)


# Resuming


class Fitted(NamedTuple):
    run: Run
    release: Release


def fitted(
    config: object,
    pack: Pack,
    private: tuple[str, ...] = ("gender",),
    **options,
) -> Fitted:
    kept = {name: options.pop(name) for name in ("every", "resume") if name in options}
    file, identity = options.pop("checkpoint", None), run_identity(config=vars(config))
    saving = None if file is None else Saving(file=file, identity=identity, **kept)
    run = Run(**{"seed": 3, "precision": "fp32", **options}, saving=saving)
    use = "identity"
    if isinstance(config, inversion.Config):
        use, private = "smile", tuple(name for name in private if name != config.labels)  # which it keeps
    return Fitted(run, train(name_of(config), config, pack, private=private, utility=use, run=run))


def name_of(config: object) -> str:
    return MODULE[type(config)].__name__.split(".")[-1]


def weights(fit: Fitted) -> dict[str, torch.Tensor]:
    """Of every player, opponents and all, and of the release, with what it computed in closed form."""
    players = {f"{p.name}.{k}": v for p in fit.run.players for k, v in p.module.state_dict().items()}
    return players | {f"release.{k}": v for k, v in fit.release.encoder.state_dict().items()}


def assert_bit_equal(a: Fitted, b: Fitted) -> None:
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    assert [k for k in one if not torch.equal(one[k], other[k])] == []
    assert a.run.curves == b.run.curves
    assert len(a.run.curves) > 10


KILLED = {
    "deep": (DEEP, faces_pack, {"representation": 4, "guess": 2, "guard": 3}),
    "template": (TEMPLATE, vectors_pack, {"erase": 6, "guess": 4, "guard": 3}),
    "substitution": (SUBSTITUTION, faces_pack, {"codes": 3}),
    "mi": (MI, faces_pack, {"perceptual": 3, "auto-encoder": 3, "discriminator": 2, "joint": 3}),
    "inversion": (INVERSION, faces_pack, {"utility": 3, "perceptual": 3, "decoder": 2, "joint": 3}),
    "san": (SAN, faces_pack, {"classifiers": 3, "matcher": 3, "auto-encoder 1": 3}),
}
"""Settings, data, and the last checkpoint of a run that is killed in the middle of its last stage."""
LAST = ("guard", "codes", "joint", "auto-encoder 1")


def killed_child(name: str, checkpoint: str) -> None:
    """Fits and kills its own process, some steps after a checkpoint."""

    def progress(stage: str, done: int, count: int, losses: object) -> None:
        if stage in LAST and done == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    config, pack, _ = KILLED[name]
    fitted(config, pack(), checkpoint=Path(checkpoint), every=3, progress=progress)


def python(code: str, **environment: str) -> subprocess.Popen[bytes]:
    """Another Python that can import what this one can, and these tests."""
    path = os.pathsep.join([str(TESTS), *(p for p in sys.path if p)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)


def resuming_child(name: str, checkpoint: str) -> None:
    """Resumes where another was killed; equal to a run in one go, of this process, which has run nothing else."""
    config, pack, done = KILLED[name]
    file = Path(checkpoint)
    assert read(file).done == done
    whole, resumed = fitted(config, pack()), fitted(config, pack(), checkpoint=file, every=3, resume=True)
    assert_bit_equal(whole, resumed)
    players = ("guard", "encoder", "auto-encoder", "protector")
    steps = [step for step, stage, player, _ in resumed.run.curves if stage in LAST and player in players]
    assert steps == [*range(8)]


@pytest.mark.parametrize("name", KILLED)
def test_killed_run_resumes_bit_equal(tmp_path, name):
    file = str(tmp_path / "run.ckpt")
    child = python(f"import test_engine; test_engine.killed_child({name!r}, {file!r})")
    _, errors = child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL, errors.decode()
    child = python(f"import test_engine; test_engine.resuming_child({name!r}, {file!r})")
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors.decode()


def test_interrupted_paper_run_resumes_bit_equal(tmp_path, faces):
    """The paper's preset, with its task player and its reconstructions, stopped between two checkpoints."""
    config = aia.Config(**SMALL)
    file = tmp_path / "paper.ckpt"

    def progress(stage: str, done: int, count: int, losses: object) -> None:
        if stage == "joint" and done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(config, faces, checkpoint=file, every=3, progress=progress)
    whole, resumed = fitted(config, faces), fitted(config, faces, checkpoint=file, every=3, resume=True)
    assert_bit_equal(whole, resumed)
    # A run resumed after its last step does nothing and gives the same.
    assert_bit_equal(whole, fitted(config, faces, checkpoint=file, every=3, resume=True))


def test_checkpoint_is_ignored_without_resume(tmp_path):
    file = tmp_path / "c"
    file.write_bytes(b"not a checkpoint")
    assert Run(seed=0, saving=Saving(file=file)).curves == []


def checkpoint(folder: Path, identity: str = "this", method: str = "") -> Path:
    saving = Saving(file=folder / "c", every=1, identity=identity, method=method)
    run = Run(seed=0, precision="fp32", saving=saving)
    player = Player("p", toy(1), lr=0.01)
    run.enter(player)
    for _ in run.stage("s", 1):
        run.update(player, player.module(torch.ones(1, 4)).square().sum())
    return folder / "c"


def test_a_checkpoint_on_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError) as caught:
        checkpoint(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'c'}: the checkpoint cannot be written (No space left on device)"
    assert list(tmp_path.iterdir()) == []


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.file),)


def test_checkpoint_of_another_run_is_refused(tmp_path):
    file = checkpoint(tmp_path)
    assert Run(seed=0, precision="fp32", saving=Saving(file=file, resume=True, identity="this")) is not None
    with pytest.raises(InputError, match="other settings, files, precision or data"):
        Run(seed=0, precision="bf16", saving=Saving(file=file, resume=True, identity="this"))
    with pytest.raises(InputError, match="other settings, files, precision or data") as caught:
        Run(seed=0, precision="fp32", saving=Saving(file=file, resume=True, identity="that"))
    assert str(file) in str(caught.value)
    a, b = aia.Config(), aia.Config(beta=0.4)
    assert run_identity(config=vars(a)) == run_identity(config=vars(aia.Config())) != run_identity(config=vars(b))


def test_checkpoint_follows_what_files_hold_and_veils_version(tmp_path, faces, monkeypatch):
    settings = {"features": 8, "batch": 16, "steps_alone": 3}
    options: dict[str, Any] = {"private": [], "utility": "smile", "precision": "fp32"}
    unprotected = {"preset": "unprotected", "settings": settings, **options}
    for seed, name in enumerate("ab"):
        fitting.fit("inversion", faces, seed=seed, **unprotected).release.save(tmp_path / name)
    file = tmp_path / "run.ckpt"

    def stop(stage: str, done: int, *rest: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    def begun(weights: str, **more: Any) -> Release:
        options = {**unprotected, "settings": {**settings, "weights": str(tmp_path / weights)}}
        return fitting.fit("inversion", faces, checkpoint=file, every=1, **options, **more).release

    with pytest.raises(KeyboardInterrupt):
        begun("a", progress=stop)
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    resumed = begun("moved", resume=True)
    with pytest.raises(KeyboardInterrupt):
        begun("a", progress=stop)
    whole = begun("a").encoder.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in resumed.encoder.state_dict().items())
    with pytest.raises(KeyboardInterrupt):
        begun("a", progress=stop)
    with monkeypatch.context() as patched:
        patched.setattr("veil.methods.fitting.__version__", "0.0.0")
        with pytest.raises(InputError, match="another version of Veil"):
            begun("a", resume=True)
    shutil.rmtree(tmp_path / "a")
    shutil.copytree(tmp_path / "b", tmp_path / "a")
    with pytest.raises(InputError, match="run with other settings, files"):
        begun("a", resume=True)


@pytest.mark.parametrize("name", METHODS)
def test_settings_that_name_files_are_those_whose_docstring_begins_so(name):
    body = ast.parse(inspect.getsource(METHODS[name].algorithm.config)).body[0].body
    texts = [
        (a.target.id, b.value.value)
        for a, b in pairwise(body)
        if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)
    ]
    assert {field for field, text in texts if text.startswith("File ")} == METHODS[name].files


@pytest.mark.parametrize("how", ["a bit", "steps", "names"])
def test_a_checkpoint_that_was_changed_is_refused(tmp_path, how):
    """Also where it is whole in form: its weights would be other ones without a word."""
    file = checkpoint(tmp_path)
    whole = file.read_bytes()
    changed = {
        "a bit": whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:],
        "steps": whole.replace(b's\\": 1', b's\\": 0'),
        "names": whole.replace(b"module.weight", b"module.weighs"),
    }[how]
    assert changed != whole
    file.write_bytes(changed)
    with pytest.raises(InputError, match=r"not a readable checkpoint \(it was changed, or is none\); remove it$"):
        Run(seed=0, precision="fp32", saving=Saving(file=file, resume=True, identity="this"))


def test_only_ones_own_tensors_are_taken_up():
    player = Player("p", toy(1), lr=0.01)
    run = Run(seed=0, precision="fp32")
    for _ in run.stage("s", 1):
        run.update(player, player.module(torch.ones(1, 4)).square().sum())
    own = player.tensors()
    player.restore(own, 1)
    name = next(name for name in own if name.startswith("module."))
    moment = next(name for name in own if name.endswith("exp_avg"))
    for wrong in (
        {**own, name: own[name].double()},
        {**own, name: own[name][:1]},
        {**own, "module.more": own[name]},
        {n: x for n, x in own.items() if n != name},
        {**own, moment: own[moment].long()},
        {n: x for n, x in own.items() if n != moment},
    ):
        with pytest.raises(ValueError, match=r"must be|another's"):
            player.restore(wrong, 1)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "pickle", "other"])
def test_damaged_checkpoint_is_refused_in_one_line(tmp_path, damage):
    file = checkpoint(tmp_path)
    whole = file.read_bytes()
    if damage == "other":
        save_file({"p/module.weight": torch.zeros(3, 4)}, file)
    else:
        file.write_bytes(
            {
                "truncated": whole[: len(whole) // 2],
                "empty": b"",
                "text": b"hello",
                "pickle": pickle.dumps({"identity": "this", "trap": Trap(tmp_path / "sprung")}),
            }[damage]
        )
    with pytest.raises(InputError) as caught:
        Run(seed=0, saving=Saving(file=file, resume=True, identity="this"))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_progress_is_told_stage_and_losses():
    told = []
    run = Run(seed=0, precision="fp32", progress=lambda *a: told.append((a[0], a[1], a[2], dict(a[3]))))
    player = Player("p", toy(1), lr=0.01)
    run.enter(player)
    for _ in run.stage("s", 30):
        run.update(player, player.module(torch.ones(1, 4)).square().sum())
    assert [t[:3] for t in told] == [("s", 20, 30), ("s", 30, 30)]
    assert told[-1][3] == {"p": run.curves[-1][3]}
    assert [(c[0], c[1], c[2]) for c in run.curves] == [(n, "s", "p") for n in range(30)]


def test_losses_that_are_told_are_the_stages_own():
    told = []
    run = Run(seed=0, precision="fp32", progress=lambda *a: told.append((a[0], set(a[3]))))
    for name in ("first", "second"):
        player = Player(name, toy(1), lr=0.01)
        for _ in run.stage(name, 1):
            run.update(player, player.module(torch.ones(1, 4)).square().sum())
    assert told == [("first", {"first"}), ("second", {"second"})]


class Clock:
    """In place of the module ``time``: every look is some seconds later than the one before."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 0.0, seconds

    def monotonic(self) -> float:
        self.now += self.seconds
        return self.now


def checkpoints(folder: Path, steps: int, **options: object) -> list[int]:
    """Steps after which a checkpoint was written."""
    file, seen = folder / "c", []
    run = Run(seed=0, precision="fp32", saving=Saving(file=file, **options))
    player = Player("p", toy(1), lr=0.01)
    run.enter(player)
    for step in run.stage("s", steps):
        run.update(player, player.module(torch.ones(1, 4)).square().sum())
        if file.exists():
            seen.append(step.number)
            file.unlink()
    assert file.exists()  # at the end of the stage
    return seen


def test_checkpoints_come_by_time_where_steps_are_slow(tmp_path, monkeypatch):
    """A step takes two looks at the clock: 14 seconds, so that each fifth is a minute after the last checkpoint."""
    monkeypatch.setattr(engine, "time", Clock(7.0))
    seen = checkpoints(tmp_path, 40)
    assert 3 <= seen[0] <= 6
    assert len(seen) >= 6
    assert max(np.diff(seen)) <= 6


def test_quick_steps_write_no_checkpoint_but_at_the_end(tmp_path):
    assert checkpoints(tmp_path, 450) == []


def test_checkpoints_come_by_steps_where_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "time", Clock(100.0))
    assert checkpoints(tmp_path, 10, every=4) == [4, 8]


def test_slow_steps_are_told_before_twenty_are_done(monkeypatch):
    told = []
    monkeypatch.setattr(engine, "time", Clock(2.0))
    run = Run(seed=0, precision="fp32", progress=lambda *a: told.append(a[1]))
    list(run.stage("s", 10))
    assert told[0] <= 3
    assert told[-1] == 10


def test_a_checkpoint_says_whose_it_is(tmp_path):
    file = checkpoint(tmp_path, method="aia")
    assert left_by(file) == "aia (s 1 steps)"
    with pytest.raises(InputError, match="is of an interrupted fit of 'aia', not of 'mi'; finish that one") as caught:
        Run(seed=0, precision="fp32", saving=Saving(file=file, resume=True, identity="this", method="mi"))
    assert str(file) in str(caught.value)
    odd = checkpoint(tmp_path, method="a\x1b[31mia\n")
    assert left_by(odd) == r"a\x1b[31mia\n (s 1 steps)"
    assert left_by(tmp_path / "nowhere") == ""
    for content in (b"", b"hello", file.read_bytes()[:99], pickle.dumps({"trap": Trap(tmp_path / "sprung")})):
        file.write_bytes(content)
        assert left_by(file) == ""
    assert not (tmp_path / "sprung").exists()


# Several processes


def test_batches_are_such_that_processes_share_them_equally():
    run = Run(seed=0)
    run.state = SimpleNamespace(num_processes=3, process_index=1)
    assert run.share(np.arange(6)).tolist() == [2, 3]
    assert [run.batch(256), run.batch(258), run.batch(256, 1000), run.batch(256, 100)] == [258, 258, 258, 99]
    run.check_batch(258)
    run.check_batch(258, each=2)
    with pytest.raises(InputError, match=r"^batch: must be a multiple of 3 where 3 processes share it, got 256"):
        run.check_batch(256)
    with pytest.raises(InputError, match=r"multiple of 6 where 3 processes share it, got 256; near are 252 and 258"):
        run.check_batch(256, each=2)
    with pytest.raises(InputError, match=r"3 processes need at least as many to learn from, got 2"):
        run.batch(256, 2)
    run.state = SimpleNamespace(num_processes=1, process_index=0)
    run.check_batch(7, each=2)
    assert [run.batch(7), run.batch(7, 5)] == [7, 5]


PAPER = aia.Config(**{**SMALL, "steps_alone": 2, "steps_joint": 3})
PAIRED = {  # settings, data, private labels
    "paper": (PAPER, faces_pack, ("gender", "expression")),
    "deep": (replace(DEEP, steps_alone=2, steps_joint=3), faces_pack, ("gender", "expression")),
    "template": (replace(TEMPLATE, steps_guess=2, steps=4), vectors_pack, ("gender", "age")),
    "substitution": (
        replace(SUBSTITUTION, steps=4, heads=1, substitutes="code", lr=2e-4),
        faces_pack,
        ("gender", "expression"),
    ),
    "mi": (replace(MI, steps_joint=3), faces_pack, ("gender", "expression")),
    "inversion": (replace(INVERSION, steps_joint=3, lr=2e-4, lr_decoder=2e-4), faces_pack, ("gender", "expression")),
    "san": (replace(SAN, steps=3), faces_pack, ("gender", "glasses")),
}
"""Up to fourteen joint classes in a batch of 16: the processes' shares differ."""


def toy_gradients(run: Run) -> dict[str, np.ndarray]:
    """Gradients in float64 of a loss that is a mean over rows and of one over all pairs of rows of the batch."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(12, 4)), rng.integers(3, size=12)
    mine = run.share(np.arange(12))
    player = Player("toy", run.place(toy(1).double()), lr=0.0)
    seen = gradients_of(player)
    out = player.module(run.tensor(x[mine]))
    class_weights = balanced_weights(run.tensor(np.bincount(z, minlength=4)))
    run.update(player, out.square().mean())
    run.update(player, torch.cdist(run.gather(player.module(run.tensor(x[mine]))), torch.eye(4).double()).prod(1).sum())
    everyone = run.gather(player.module(run.tensor(x[mine])))
    run.update(player, (everyone @ everyone.T).logsumexp(1).mean())
    run.update(player, cross_entropy(player.module(run.tensor(x[mine])), run.tensor(z[mine]), class_weights))
    names = ("rows", "gathered", "pairs", "weighted")
    return {f"toy.{n}.{i}": g.numpy() for n, step in zip(names, seen, strict=True) for i, g in enumerate(step)}


def results() -> dict[str, np.ndarray]:
    out = toy_gradients(Run(seed=0, precision="fp32"))
    for name, (config, pack, private) in PAIRED.items():
        out |= {f"{name}.{k}": v.numpy() for k, v in weights(fitted(config, pack(), private)).items()}
    return out


def rank(folder: str) -> None:
    """One of two processes."""
    out = results()
    assert torch.distributed.get_world_size() == 2
    np.savez(Path(folder) / f"{os.environ['RANK']}.npz", **out)


def launched(code: str, count: int) -> list[subprocess.Popen[bytes]]:
    """Processes as ``torchrun`` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    size = str(count)
    alike = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [python(code, RANK=str(i), LOCAL_RANK=str(i), CUDA_VISIBLE_DEVICES="", **alike) for i in range(count)]


def finished(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    try:
        for process in processes:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors.decode()
    finally:  # one that failed leaves others that wait for it
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    folder = tmp_path_factory.mktemp("ranks")
    ranks = launched(f"import test_engine; test_engine.rank({str(folder)!r})", 2)
    one = results()
    finished(ranks)
    return one, [dict(np.load(folder / f"{i}.npz")) for i in range(2)]


def test_ranks_hold_the_same_weights(one_and_two):
    _, (first, second) = one_and_two
    assert [k for k in first if not (first[k] == second[k]).all()] == []


@pytest.mark.parametrize("loss", ["rows", "gathered", "pairs", "weighted"])
def test_gradients_of_two_processes_equal_those_of_one(one_and_two, loss):
    """In float64: a dozen additions each, so some 1e-15 of the largest term."""
    one, (two, _) = one_and_two
    names = [k for k in one if k.startswith(f"toy.{loss}.")]
    assert len(names) == 2
    tolerance = 1e-7 if loss == "weighted" else 1e-12  # cross_entropy computes in float32 (2^-24 a term)
    for k in names:
        assert np.abs(one[k]).max() > 1e-3
        assert np.abs(two[k] - one[k]).max() <= tolerance * np.abs(one[k]).max()


@pytest.mark.parametrize("name", PAIRED)
def test_fit_on_two_processes_equals_one(one_and_two, monkeypatch, name):
    """Two processes differ from one by no more than five times what a rounding error in every input does to one.

    A deep network rounds in every layer, so for inversion's ResNet the error in the input is 16 times as large.

    Both only change the last bit of sums. How far that carries depends on the network (Adam divides by the gradient's
    size, so a weight with a gradient near 0 may step either way), so it is measured. A wrong share,
    weight or mean moves all weights: over 10,000 times (deep, template) and 40 times (paper) as far.
    """
    one, (two, _) = one_and_two
    config, pack, private = PAIRED[name]
    module = MODULE[type(config)]
    function = "unit_rows" if name == "template" else "to_input"
    exact = getattr(module, function)
    rng = np.random.default_rng(0)

    def rounded(*arguments: object) -> object:
        x = exact(*arguments)
        size = 2**-20 if name == "inversion" else 2**-24
        nudge = (1 + size * rng.choice([-1, 1], x.shape)).astype(np.float32)
        return x * nudge if isinstance(x, np.ndarray) else x * torch.from_numpy(nudge)

    monkeypatch.setattr(module, function, rounded)
    nudged = {f"{name}.{k}": v.numpy() for k, v in weights(fitted(config, pack(), private)).items()}

    def gap(other: dict[str, np.ndarray]) -> float:
        return math.sqrt(sum(float(np.square(np.subtract(other[k], one[k], dtype=np.float64)).sum()) for k in nudged))

    assert 0 < gap(nudged) < 0.3
    assert gap(two) <= 5 * gap(nudged)


def rank_of_three(folder: str) -> None:
    """Fits every method as one of three processes, and writes the key and a digest of each release."""
    out: dict[str, object] = {"told": by_first(lambda: os.environ["RANK"])}
    with pytest.raises(InputError) as caught:
        by_first(lambda: four_floats("crop", f"rank {os.environ['RANK']}"))
    out["raised"] = str(caught.value)
    for name, settings in BRIEF.items():
        use, pack = use_of(name, kind_of(name)), pack_of(kind_of(name))
        more = {"keep": 0.75} if name == "template" else {}  # it erases, too
        release = fitting.fit(
            name, pack, private=["gender"], utility=use, settings={**settings, **more}, precision="fp32"
        ).release
        assert (release.key is not None) == release.contract.keyed
        values = b"".join(v.numpy().tobytes() for _, v in sorted(release.encoder.state_dict().items()))
        out[name] = (hashlib.sha256(values).hexdigest(), release.key.hex() if release.key else "")
    assert torch.distributed.get_world_size() == 3
    (Path(folder) / f"{os.environ['RANK']}.json").write_text(json.dumps(out))


def test_three_processes_fit_every_method_to_one_release_with_one_key(tmp_path):
    finished(launched(f"import test_engine; test_engine.rank_of_three({str(tmp_path)!r})", 3))
    ranks = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(3)]
    assert ranks[0] == ranks[1] == ranks[2]
    assert (ranks[0].pop("told"), ranks[0].pop("raised")[-8:]) == ("0", "'rank 0'")
    assert [name for name, (_, key) in ranks[0].items() if key] == [
        "deep", "template", "substitution", "inversion", "random",
    ]  # fmt: skip


def rank_with_a_frontier(folder: str) -> None:
    """``veil fit template`` as one of two processes; notes who measures the frontier."""
    measure = frontier.measure

    def noted(*arguments: object, **options: object) -> object:
        (Path(folder) / f"measured-{os.environ['RANK']}").touch()
        return measure(*arguments, **options)

    frontier.measure = noted
    frontier.NOISES = (0.5,)
    sys.argv = ["veil", "fit", "template", f"{folder}/pack", f"{folder}/r", "--private=gender", "--quiet"]
    sys.argv += [f"--set={pair}" for pair in ("steps=1", "steps_guess=1", "folds=2", "adversaries=1", "guess=16")]
    cli.main()


def test_of_two_processes_one_measures_the_frontier_and_writes_the_release(tmp_path):
    pack = vectors_pack(people=100, images=2)
    table = pa.table({"v": list(pack.x), **{n: [pack.classes[n][c] for c in pack.labels[n]] for n in pack.labels}})
    pq.write_table(table, tmp_path / "vectors.parquet")
    build.pack("embeddings", tmp_path / "vectors.parquet", tmp_path / "pack", seed=0)
    finished(launched(f"import test_engine; test_engine.rank_with_a_frontier({str(tmp_path)!r})", 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "measured-0", "pack", "r", "r.curves.parquet", "r.fitted", "r.key", "vectors.parquet",
    ]  # fmt: skip
    release = Release.load(tmp_path / "r")
    assert [point["noise"] for point in release.made["frontier"]] == [0.5]
