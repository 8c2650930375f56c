"""One training run: ``update(player, loss)``, stages and steps, bf16, checkpoints, several processes.

The alternation between players *is* the algorithm, so methods write it themselves; a :class:`Run` supplies what all of
them need around it. Randomness is stateless: every draw of a step comes from (seed, stage, step), so a run that was
killed and resumed repeats the same bits without having saved a generator.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn

from veil.engine.checkpoint import Checkpoint, Curve, read
from veil.engine.memory import held_memory, keeps_memory
from veil.engine.player import Diverged, Player
from veil.errors import InputError, checked_seed, printable
from veil.foreign import one_line
from veil.nn.nets import tensors_under

Precision = Literal["auto", "bf16", "fp32"]
T = TypeVar("T")

_FLUSH_EVERY = 20  # steps between reads of the losses: each read waits for an accelerator to catch up
_FLUSH_SECONDS = 5.0  # but where steps are slow, no longer than this
_CHECKPOINT_SECONDS = 60.0  # between checkpoints: what is lost at most, but for a step
_PATIENCE = timedelta(days=30)  # processes wait for the first, which may measure a frontier; they see when it ends
_LOSS_LIMIT = 1e6  # no loss of a healthy run comes near; an unbounded objective that runs away passes it


@dataclass(frozen=True)
class Step:
    """One step of a stage: its number, the number of steps in the stage, and its own generators.

    ``rng`` draws what concerns the whole batch. :meth:`uniform` and :meth:`normal` draw values for this process's rows:
    on the CPU, so that a run draws the same on any device, and for the whole batch, so that it draws the same on any
    number of processes.
    """

    number: int
    count: int
    rng: np.random.Generator
    _torch_rng: torch.Generator
    _rank: int
    _world: int

    @property
    def progress(self) -> float:
        """How far the stage has come, from 0 (first step) towards 1."""
        return self.number / self.count

    def uniform(self, rows: int, *shape: int) -> Tensor:
        """``(rows, *shape)`` from U[0, 1)."""
        return torch.rand(rows * self._world, *shape, generator=self._torch_rng)[rows * self._rank :][:rows]

    def normal(self, rows: int, *shape: int) -> Tensor:
        """``(rows, *shape)`` from N(0, 1)."""
        return torch.randn(rows * self._world, *shape, generator=self._torch_rng)[rows * self._rank :][:rows]


def step_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a hash of its parts: distinct parts give unrelated generators."""
    text = "\x1f".join(str(p) for p in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def is_main_process() -> bool:
    """Whether this process is the only one, or the first of those that share a run."""
    return bool(_state().is_main_process)


def by_first(compute: Callable[[], T]) -> T:
    """What the first of the processes that share a run computes, in all of them; what it raises, too.

    For what must be drawn once, such as a key, and what is too costly to do in each.
    """
    state = _state()
    if state.num_processes == 1:
        return compute()
    made: list[Any] = [None, None]
    if state.is_main_process:
        try:
            made[0] = compute()
        except Exception as error:  # the others, which wait for it, must not wait for ever
            made[1] = error
    dist.broadcast_object_list(made, 0)
    if made[1] is not None:
        raise made[1]
    value: T = made[0]
    return value


def _state() -> PartialState:
    # Without cpu=True, accelerate ignores torchrun on a machine that has no accelerator: N runs instead of one.
    # What a process says here first holds for all that follows, so it is not the place for a run's own device.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Where the state of an unfinished run is kept, and whose it is.

    Attributes:
        file: The checkpoint.
        every: Steps between checkpoints; if None one is due a minute after the last, or after the run began. The end of
            a stage is always one.
        resume: Continue from the file if it is there.
        identity: What makes two runs the same (method, configuration, files and data, by what they hold, and Veil's
            version); a checkpoint of another run is refused.
        method: Whose run it is, for whoever finds the checkpoint.
    """

    file: Path
    every: int | None = None
    resume: bool = False
    identity: str = ""
    method: str = ""

    def due(self, done: int, seconds: float) -> bool:
        """Whether a checkpoint is, after that many steps of a stage and so long after the last."""
        return seconds >= _CHECKPOINT_SECONDS if self.every is None else done % self.every == 0

    def identity_of(self, precision: Precision) -> str:
        """What a run in that precision must agree in: half in each would be neither."""
        return f"{self.identity} {precision}"

    def read(self, precision: Precision) -> Checkpoint:
        """The state that was kept; raises InputError where it is another run's, or damaged."""
        try:
            state = read(self.file)
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"{self.file}: not a readable checkpoint ({one_line(error)}); remove it") from error
        if self.method and state.method not in ("", self.method):
            raise InputError(
                f"{self.file}: is of an interrupted fit of {state.method!r}, not of {self.method!r}; finish that one, "
                "or remove the file"
            )
        if state.identity != self.identity_of(precision):
            raise InputError(
                f"{self.file}: belongs to a run with other settings, files, precision or data, or of another version "
                "of Veil; remove it to restart"
            )
        return state


class Run:
    """What a method's ``fit`` needs around its alternation.

    Args:
        seed: Seeds every draw of the run.
        precision: ``"bf16"`` autocast, ``"fp32"``, or ``"auto"``: bf16 where the processor has bf16 matrix units.
        saving: Where its state is kept; None for a run that cannot be resumed.
        progress: Called as ``progress(stage, done, count, losses)`` every 20 steps, or where these take longer every
            five seconds.

    With several processes (``torchrun`` or ``accelerate launch``) every process draws the same global batch and works
    on its :meth:`share`; :meth:`update` averages gradients, so that N processes equal one up to rounding.
    """

    def __init__(
        self,
        *,
        seed: int,
        precision: Precision = "auto",
        saving: Saving | None = None,
        progress: Callable[[str, int, int, Mapping[str, float]], None] | None = None,
        device: str | None = None,
    ) -> None:
        self.seed = checked_seed(seed)
        self.state = _state()
        self.state.wait_for_everyone()  # so that none writes what another has yet to find free
        self.device = torch.device(device) if device else self.state.device
        self.bf16 = precision == "bf16" or (precision == "auto" and has_bf16(self.device))
        self._precision: Precision = "bf16" if self.bf16 else "fp32"
        self.players: list[Player] = []
        self.curves: list[Curve] = []
        self._saving = saving
        self._written = self._flushed = time.monotonic()
        self._progress = progress
        self._done: dict[str, int] = {}
        self._pending: list[tuple[int, str, Tensor]] = []
        self._latest: dict[str, float] = {}
        self._stage, self._number = "", 0
        self._restored: Checkpoint | None = None
        if saving is not None and saving.resume and saving.file.exists():
            self._restored = saving.read(self._precision)

    # -- devices, precision, processes --------------------------------------------------------------------------

    def place(self, module: nn.Module) -> nn.Module:
        """Move to the run's device, 4-d weights in channels_last; every process starts from process 0's weights."""
        module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.state.num_processes > 1:
            for tensor in [*module.parameters(), *module.buffers()]:
                dist.broadcast(tensor.data, 0)
        return module

    @staticmethod
    def collect(module: nn.Module) -> nn.Module:
        """A trained network as it will be when loaded (on the CPU, float32, plain layout): both give the same bits."""
        module.cpu().float().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return module.eval()

    def tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        """This process's copy of an array on the run's device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def share(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """This process's consecutive part of a global batch."""
        world, rank = self.state.num_processes, self.state.process_index
        assert len(rows) % world == 0, f"{len(rows)} rows for {world} processes"
        part = len(rows) // world
        return rows[rank * part : (rank + 1) * part]

    def check_batch(self, batch: int, *, each: int = 1) -> None:
        """Refuse a setting ``batch`` whose units of ``each`` rows the processes cannot share equally.

        Raises:
            InputError: Naming the nearest that they can.
        """
        world = self.state.num_processes
        if world > 1 and batch % (each * world):
            below = batch // (each * world) * each * world
            near = " and ".join(str(size) for size in (below, below + each * world) if size)
            raise InputError(
                f"batch: must be a multiple of {each * world} where {world} processes share it, got {batch}; near are "
                f"{near}"
            )

    def batch(self, size: int, rows: int | None = None) -> int:
        """A size of batches that processes can share equally: ``size``, rounded up, or of fewer ``rows`` the most.

        Raises:
            InputError: If there are fewer rows than processes.
        """
        world: int = self.state.num_processes
        size = -(-size // world) * world
        if rows is None or size <= rows:
            return size
        if rows < world:
            raise InputError(f"rows: {world} processes need at least as many to learn from, got {rows}")
        return rows - rows % world

    def gather(self, x: Tensor) -> Tensor:
        """All processes' rows of ``x`` in rank order, differentiable (for losses over all pairs of a batch).

        Every process then computes the same loss; the backward pass sums its gradients over processes and
        :meth:`update` averages them, which gives the gradient of the one loss.
        """
        if self.state.num_processes == 1:
            return x
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(x))  # type: ignore[no-untyped-call]

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    # -- the one way a player changes ----------------------------------------------------------------------------

    def update(self, player: Player, loss: Tensor) -> None:
        """Give ``player`` alone the gradient of ``loss`` and let it take one step.

        Raises:
            RuntimeError: If a parameter of the player does not take part in the loss.
        """
        gradients = torch.autograd.grad(loss, player.parameters)
        if self.state.num_processes > 1:
            gradients = _average(gradients, self.state.num_processes)
        for parameter, gradient in zip(player.parameters, gradients, strict=True):
            # A fused optimiser walks through memory: values must lie there as the parameter's do.
            alike = gradient.stride() == parameter.stride()
            parameter.grad = gradient if alike else torch.empty_like(parameter).copy_(gradient)
        if player.clip is not None:
            nn.utils.clip_grad_norm_(player.parameters, player.clip)
        if player.schedule is not None:
            for group in player.optimizer.param_groups:
                group["lr"] = player.lr * player.schedule(player.updates)
        player.optimizer.step()
        player.optimizer.zero_grad(set_to_none=True)
        player.updates += 1
        self.log(player.name, loss)

    def log(self, name: str, value: Tensor) -> None:
        """Record a value of the current step for the progress line and the curves."""
        self._pending.append((self._number, name, value.detach()))

    # -- stages and steps ----------------------------------------------------------------------------------------

    def enter(self, *players: Player) -> None:
        """Declare the players; on a resumed run they take up the state they had."""
        self.players = list(players)
        if self._restored is None:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of PyTorch, for what it can hardly use
                for player in players:
                    player.restore(
                        tensors_under(self._restored.tensors, f"{player.name}/"), self._restored.updates[player.name]
                    )
        except (ValueError, KeyError, TypeError, RuntimeError, Warning) as error:
            said = one_line(error)
            assert self._saving is not None, "nothing is restored without a file"
            raise InputError(f"{self._saving.file}: does not hold this run's state ({said}); remove it") from error
        self._done, self.curves = dict(self._restored.done), list(self._restored.curves)
        self._restored = None

    def stage(self, name: str, count: int) -> Iterator[Step]:
        """The steps of one stage that are still to be done; checkpoints, progress and divergence in between."""
        self._stage = name
        self._latest.clear()  # losses of the stage before would look like those of this one
        with held_memory() if keeps_memory() else nullcontext():
            for number in range(self._done.get(name, 0), count):
                self._number = number
                seed = step_seed(self.seed, name, number)
                torch_rng = torch.Generator().manual_seed(seed)
                rank, world = self.state.process_index, self.state.num_processes
                yield Step(number, count, np.random.default_rng(seed), torch_rng, rank, world)
                self._done[name] = number + 1
                last = number + 1 == count
                due = self._saving is not None and self._saving.due(number + 1, time.monotonic() - self._written)
                slow = time.monotonic() - self._flushed >= _FLUSH_SECONDS
                if last or due or slow or (number + 1) % _FLUSH_EVERY == 0:
                    self._flush(count)
                if last or due:
                    self._check_weights()
                if self._saving is not None and (due or last):
                    self._save(self._saving)

    def _flush(self, count: int) -> None:
        self._flushed = time.monotonic()
        if self._pending:
            values = torch.stack([v.float() for _, _, v in self._pending]).tolist()
            for (number, name, _), value in zip(self._pending, values, strict=True):
                if not math.isfinite(value) or abs(value) > _LOSS_LIMIT:
                    raise Diverged(
                        f"{self._stage}, step {number}: the loss of {name!r} must stay finite and below "
                        f"{_LOSS_LIMIT:g}, got {value:g}; lower its learning rate or its weight"
                    )
                self._latest[name] = value
                self.curves.append((number, self._stage, name, value))
            self._pending.clear()
        if self._progress is not None and self.state.is_main_process:
            self._progress(self._stage, self._done[self._stage], count, self._latest)

    def _check_weights(self) -> None:
        """A finite loss can have a gradient that is not: such weights are neither kept nor handed on."""
        for player in self.players:
            if not torch.stack([p.isfinite().all() for p in player.parameters]).all():
                raise Diverged(
                    f"{self._stage}, step {self._number}: the weights of {player.name!r} must stay finite, got NaN or "
                    "infinity; lower its learning rate or its weight"
                )

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _save(self, saving: Saving) -> None:
        self._written = time.monotonic()
        if not self.state.is_main_process:
            return
        state = Checkpoint(
            identity=saving.identity_of(self._precision),
            method=saving.method,
            done=self._done,
            curves=self.curves,
            updates={player.name: player.updates for player in self.players},
            tensors={f"{p.name}/{name}": value for p in self.players for name, value in p.tensors().items()},
        )
        try:
            saving.file.parent.mkdir(parents=True, exist_ok=True)
            state.write(saving.file)
        except OSError as error:
            reason = error.strerror or one_line(error)
            raise InputError(f"{saving.file}: the checkpoint cannot be written ({reason})") from error


_SEEDING = threading.RLock()


def left_by(checkpoint: Path) -> str:
    """The method whose run left a checkpoint, and how far it had come, in words; "" for a file that is none."""
    try:
        state = read(checkpoint)
    except (OSError, ValueError):
        return ""
    steps = ", ".join(f"{name} {count}" for name, count in state.done.items())
    return printable(f"{state.method or 'a method'} ({steps or 'no'} steps)")


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Initial weights drawn inside follow the parts alone; torch's global generator is left as it was.

    One thread at a time: two fits at once would draw from each other's seeds, and leave the generator at one of them.
    """
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(step_seed(*parts))
        yield


def one_cycle(total: int, warm_up: float = 0.1) -> Callable[[int], float]:
    """Factor of the peak learning rate: linear from 1/25 to 1 over the warm-up, then half a cosine to 0."""

    def factor(update: int) -> float:
        done = min(update / max(total, 1), 1.0)
        if done < warm_up:
            return 1 / 25 + (1 - 1 / 25) * done / warm_up
        return (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) / 2

    return factor


def run_identity(**parts: Any) -> str:
    """A short fingerprint of what makes two runs the same."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 pays: matrix units on the GPU, or AMX / AVX-512 BF16 on the CPU."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or sys.platform != "linux":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def _average(gradients: tuple[Tensor, ...], world: int) -> tuple[Tensor, ...]:
    """The mean over processes, in one flat all-reduce."""
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= world
    parts = torch.split(flat, [g.numel() for g in gradients])
    return tuple(p.view_as(g) for p, g in zip(parts, gradients, strict=True))
