"""A training step of AIA's preset `paper` through Veil's engine against a plain PyTorch loop of the same networks.

    OMP_NUM_THREADS=2 python benchmarks/aia_step.py --out docs/results/aia-step.md

Veil: bf16 autocast, channels_last, one gradient per player, `veil.methods.aia`. Plain: float32, NCHW, the networks as
the paper writes them, zero_grad / backward / step in the same order. Both start from the same weights and see the same
batches. First their losses must agree within rounding, with Veil in fp32 and in bf16, else the benchmark stops; then
they are timed in turn, in one run, and the ratio of the medians is printed with its range over the rounds. Nothing is
asserted about time.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import os
import platform
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from veil.data import stylised
from veil.data.pack import Pack
from veil.engine import Run, Step
from veil.engine.memory import kept_memory
from veil.engine.run import Precision
from veil.methods import aia
from veil.methods.protocol import Task
from veil.nn.losses import contrastive

# What rounding does to a layer's output, relative: bf16 rounds to 8 significant bits; float32 rounds 2,304 partial sums
# (the widest layer's) to 24, and independent errors add up like the square root of their number.
ROUNDOFF = {"bf16": 2.0**-9, "fp32": 2304**0.5 * 2.0**-24}
LAYERS = {"L_AE": 5, "L_Adv": 9, "L_Siamese": 7}  # linear layers from the image to the loss, the encoder's 2 included
SECOND = {"joint": "joint step", "autoencoder": "auto-encoder alone"}


# -- the plain loop ---------------------------------------------------------------------------------------------------


class Plain:
    """The same networks and the same alternation, as a PyTorch loop is usually written."""

    def __init__(self, trainer: aia.Training) -> None:
        self.config, self.feature_map = trainer.config, trainer.data.contract.feature_map
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, 1, 1), nn.LeakyReLU(), nn.AvgPool2d(2),
            nn.Conv2d(8, 12, 3, 1, 1), nn.LeakyReLU(), nn.AvgPool2d(2), nn.Sigmoid(), nn.Flatten(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Unflatten(1, self.feature_map),
            nn.Conv2d(12, 256, 3, 1, 1), nn.LeakyReLU(), nn.Upsample(scale_factor=2),
            nn.Conv2d(256, 128, 3, 1, 1), nn.LeakyReLU(), nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 1, 3, 1, 1),
        )  # fmt: skip
        _copy_weights(trainer.encoder, self.encoder)
        _copy_weights(trainer.decoder, self.decoder)
        self.adversary, self.task = (
            nn.Sequential(nn.Unflatten(1, self.feature_map), _plain(player.module.network))
            for player in (trainer.adversary, trainer.task)
        )
        both = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizers = {
            "protector": torch.optim.Adam(both, lr=self.config.lr),
            "adversary": torch.optim.Adam(self.adversary.parameters(), lr=self.config.lr_opponents),
            "task": torch.optim.Adam(self.task.parameters(), lr=self.config.lr_opponents),
        }

    def reconstruction_loss(self, g: Tensor, batch: aia.Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.decoder(g), batch.x)

    def adversary_loss(self, g: Tensor, batch: aia.Batch) -> Tensor:
        return F.cross_entropy(self.adversary(g), batch.private[0], batch.weights[0])

    def task_loss(self, g: Tensor, batch: aia.Batch) -> Tensor:
        out, person = self.task(g), batch.utility
        distance = F.pairwise_distance(out[0::2], out[1::2])
        return contrastive(distance, person[0::2] != person[1::2], self.config.margin)

    def update(self, player: str, loss: Tensor) -> float:
        optimizer = self.optimizers[player]
        optimizer.zero_grad()
        loss.backward(inputs=[p for group in optimizer.param_groups for p in group["params"]])  # no gradient in vain
        optimizer.step()
        return loss.item()

    def autoencoder_step(self, batch: aia.Batch) -> dict[str, float]:
        return {"protector": self.update("protector", self.reconstruction_loss(self.encoder(batch.x), batch))}

    def joint_step(self, batch: aia.Batch) -> dict[str, float]:
        c = self.config
        g = self.encoder(batch.x)
        losses = {
            "adversary": self.update("adversary", self.adversary_loss(g.detach(), batch)),
            "task": self.update("task", self.task_loss(g.detach(), batch)),
        }
        total = self.reconstruction_loss(g, batch) + c.alpha * self.task_loss(g, batch)
        return losses | {"protector": self.update("protector", total - c.beta * self.adversary_loss(g, batch))}


def _copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Weights in the order of the layers, whatever their names."""
    with torch.no_grad():
        for a, b in zip(source.parameters(), target.parameters(), strict=True):
            b.copy_(a)


def _plain(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to(memory_format=torch.contiguous_format)


# -- do they agree? ---------------------------------------------------------------------------------------------------


class Tolerance:
    """How far rounding may move the losses of :class:`Plain`, to first order.

    Rounding input, weights and output of a layer moves each by a relative ROUNDOFF u at most, so d layers move a
    network's output o by 3 d u |o|. A loss then moves by at most

        L_AE        3 d u mean |o|                           as |dL/do| = |sigmoid(o) - x| <= 1
        L_Adv       3 d u max over rows of sum |o|           as cross-entropy changes by |do_1| + ... + |do_Z| at most
        L_Siamese   3 d u mean max(D, m - D) (|a| + |b|)     for outputs a, b of a couple and D = |a - b|

    Forward and backward together round a gradient 6 d times. A step of Adam moves a weight by its learning rate, so a
    loss by lr |gradient|_1; rounding changes that by a relative 6 d u, and these changes add up over the steps.
    """

    def __init__(self, plain: Plain, roundoff: float) -> None:
        self.plain, self.roundoff = plain, roundoff
        self.drift = dict.fromkeys(LAYERS, 0.0)

    def now(self, batch: aia.Batch) -> dict[str, float]:
        """The tolerance of each loss at the current weights."""
        with torch.no_grad():
            g = self.plain.encoder(batch.x)
            redrawn, guess, out = self.plain.decoder(g), self.plain.adversary(g), self.plain.task(g)
        a, b, margin = out[0::2], out[1::2], self.plain.config.margin
        distance = F.pairwise_distance(a, b)
        slope = torch.maximum(distance, (margin - distance).clamp_min(0))
        scale = {
            "L_AE": redrawn.abs().mean(),
            "L_Adv": guess.abs().sum(1).max(),
            "L_Siamese": (slope * (a.norm(dim=1) + b.norm(dim=1))).mean(),
        }
        return {name: 3 * LAYERS[name] * self.roundoff * float(scale[name]) + self.drift[name] for name in LAYERS}

    def step(self, batch: aia.Batch, names: Sequence[str]) -> None:
        """Add what one more step of Adam, of every player, can do."""
        plain, lr = self.plain, max(self.plain.config.lr, self.plain.config.lr_opponents)
        g = plain.encoder(batch.x)
        paths = {
            "L_AE": (plain.reconstruction_loss, plain.decoder),
            "L_Adv": (plain.adversary_loss, plain.adversary),
            "L_Siamese": (plain.task_loss, plain.task),
        }
        for name in names:
            loss, head = paths[name]
            weights = [*plain.encoder.parameters(), *head.parameters()]
            gradients = torch.autograd.grad(loss(g, batch), weights, retain_graph=True)
            move = lr * sum(float(v.abs().sum()) for v in gradients)
            self.drift[name] += 6 * LAYERS[name] * self.roundoff * move


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One loss of one step, by both."""

    precision: str
    stage: str
    step: int
    player: str
    plain: float
    veil: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        return abs(self.veil - self.plain) <= self.tolerance  # False for NaN


def autoencoder_step(trainer: aia.Training, step: Step) -> None:
    """A step of stage 1, which `veil.methods.aia` writes into its schedule."""
    batch = trainer.data.batch(step)
    trainer.run.update(trainer.protector, trainer.reconstruction_loss(trainer.release(batch.x), batch.x))


VEIL = {"autoencoder": autoencoder_step, "joint": aia.Training.joint_step}


def compare(trainer: aia.Training, plain: Plain, run: Run, stage: str, steps: int) -> list[Compared]:
    """The losses of the first steps of a stage, from the weights that both have now."""
    c = trainer.config
    precision = "bf16" if run.bf16 else "fp32"
    tolerance = Tolerance(plain, ROUNDOFF[precision])
    expected: list[tuple[int, str, float, float]] = []
    for step in run.stage(stage, steps):
        again = replace(step, rng=copy.deepcopy(step.rng))  # the trainer draws the same from its own
        batch = trainer.data.batch(again)
        before = tolerance.now(batch)
        if stage == "joint":
            tolerance.step(batch, tuple(LAYERS))
            after = {name: before[name] + tolerance.drift[name] for name in LAYERS}  # opponents move before Eq. 8
            allowed = {
                "adversary": before["L_Adv"],
                "task": before["L_Siamese"],
                "protector": after["L_AE"] + c.alpha * after["L_Siamese"] + c.beta * after["L_Adv"],
            }
            losses = plain.joint_step(batch)
        else:
            tolerance.step(batch, ("L_AE",))
            allowed = {"protector": before["L_AE"]}
            losses = plain.autoencoder_step(batch)
        VEIL[stage](trainer, step)
        expected += [(step.number, player, value, allowed[player]) for player, value in losses.items()]
    seen = {(number, player): value for number, name, player, value in run.curves if name == stage}
    return [
        Compared(
            precision=precision,
            stage=stage,
            step=n,
            player=player,
            plain=value,
            veil=seen[n, player],
            tolerance=allowed,
        )
        for n, player, value, allowed in expected
    ]


# -- how long do they take? -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds a step of one stage, ``(rounds, steps)`` each."""

    stage: str
    plain: np.ndarray
    veil: np.ndarray

    @property
    def ratio(self) -> float:
        return float(np.median(self.plain) / np.median(self.veil))

    @property
    def ratios(self) -> np.ndarray:
        """One for each round."""
        return np.median(self.plain, 1) / np.median(self.veil, 1)


def measure(trainer: aia.Training, plain: Plain, run: Run, stage: str, rounds: int, steps: int) -> Timing:
    """Both in turn, ``steps`` steps each a round, the first step of every turn left out; drawing batches included."""
    slow, fast = [], []
    for number in range(rounds):
        name = f"{stage}, timed, {number}"
        drawn = list(run.stage(f"{name}, plain", steps + 1))
        marks = [time.perf_counter()]
        for step in drawn:
            getattr(plain, f"{stage}_step")(trainer.data.batch(step))
            marks.append(time.perf_counter())
        slow.append(np.diff(marks)[1:])
        marks = []
        with kept_memory():  # as in the command `fit`
            for step in run.stage(name, steps + 1):
                marks.append(time.perf_counter())
                VEIL[stage](trainer, step)
        marks.append(time.perf_counter())  # the engine's own work between steps is a part of them
        fast.append(np.diff(marks)[1:])
    return Timing(stage=stage, plain=np.array(slow), veil=np.array(fast))


# -- report -----------------------------------------------------------------------------------------------------------


def machine() -> str:
    """Processor, cores, threads, bf16 units and versions, in one line."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        info = ""
    model = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "")
    units = [unit for unit in ("amx_bf16", "avx512_bf16") if unit in info] or ["no bf16 units"]
    return (
        f"{model or platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} "
        f"threads, {' and '.join(units)}; torch {torch.__version__}, Python {platform.python_version()}"
    )


def table(timings: Sequence[Timing], batch: int) -> list[str]:
    lines = [
        "| step | plain | Veil | ratio of medians (range over rounds) | images/s, plain | images/s, Veil |",
        "|---|---|---|---|---|---|",
    ]
    for t in timings:
        a, b = float(np.median(t.plain)), float(np.median(t.veil))
        lines.append(
            f"| {SECOND[t.stage]} | {1e3 * a:,.0f} ms | {1e3 * b:,.0f} ms | **{t.ratio:.1f}** ({t.ratios.min():.1f} - "
            f"{t.ratios.max():.1f}) | {batch / a:,.0f} | {batch / b:,.0f} |"
        )
    return lines


def losses_table(compared: Sequence[Compared]) -> list[str]:
    return [
        "| Veil in | stage | step | loss of | plain | Veil | difference | tolerance |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {c.precision} | {c.stage} | {c.step} | {c.player} | {c.plain:.5f} | {c.veil:.5f} | "
            f"{c.veil - c.plain:+.1e} | {c.tolerance:.1e} |"
            for c in compared
        ),
    ]


def write(path: Path, a: argparse.Namespace, run: Run, timings: Sequence[Timing], compared: Sequence[Compared]) -> None:
    """The results as Markdown."""
    given = " ".join(a.given)
    command = f"OMP_NUM_THREADS={torch.get_num_threads()} python benchmarks/aia_step.py {given}"
    what = (
        f"Images {a.size}x{a.size} grey, batch {a.batch}, private gender, use matching. Veil: its engine and "
        f"`veil.methods.aia` in {'bf16' if run.bf16 else 'fp32'} and channels_last. Plain: a float32 NCHW PyTorch loop "
        "of the same networks in the same order, without the engine. Joint step: adversary, task, then encoder and "
        "decoder on Eq. 8; a batch is drawn in every step of both. Both take turns in one run "
        f"({a.rounds} rounds of {a.steps} timed steps each, after one that is not timed)."
    )
    why = (
        "Three things make the difference: bf16 with channels_last; upsampling and the convolution after it as one "
        "transposed convolution, which needs 4 products a value instead of 9 and no map of four times the size; and "
        "freed tensors that stay with the process from step to step instead of being zeroed anew by the system."
    )
    same = (
        "Same initial weights, same batches. In fp32, Veil and the plain loop are the same computation up to the order "
        "of sums; in bf16, up to rounding to 8 bits. The benchmark stops where a difference exceeds its tolerance."
    )
    limits = (
        "Tolerances are limits to first order, not estimates: where rounding moves a layer's input, weights and "
        "output by a relative u at most, d layers move an output o by 3 d u |o|, and a loss by that times its slope; "
        "a step of Adam adds the loss's possible move, lr |gradient|_1, times 6 d u (forward and backward). u is 2^-9 "
        "in bf16, and in fp32 sqrt(2304) 2^-24 for sums of 2,304 products."
    )
    lines = [
        "# A training step of AIA, preset `paper`",
        "",
        *textwrap.wrap(what, 118),
        "",
        f"    {command.rstrip()}",
        "",
        f"{machine()}; seed {a.seed}; {datetime.datetime.now(datetime.UTC).date()}.",
        "",
        *table(timings, a.batch),
        "",
        *textwrap.wrap(why, 118),
        "",
        "## The losses of the first steps",
        "",
        *textwrap.wrap(same, 118),
        "",
        *losses_table(compared),
        "",
        *textwrap.wrap(limits, 118),
        "",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text("\n".join(lines))
    temporary.replace(path)
    print(path)


# -- the whole --------------------------------------------------------------------------------------------------------


def faces(people: int, size: int, seed: int) -> Pack:
    """Stylised people, 4 images each."""
    drawn = stylised.population(people, 4, seed=seed)
    names = [drawn.names(row) for row in range(len(drawn))]
    labels = {name: [n[name] for n in names] for name in ("identity", "gender")}
    return Pack.from_arrays(stylised.render(drawn, size=size), labels, seed=seed)


def players(pack: Pack, batch: int, seed: int, precision: Precision = "auto") -> tuple[aia.Training, Plain, Run]:
    """Both, with the same weights."""
    run = Run(seed=seed, precision=precision, device="cpu")
    config = replace(aia.PRESETS["paper"], batch=batch)
    task = Task(pack=pack, private=["gender"], run=run)
    trainer = aia.Training(config, aia.Data(config, task, aia.contract_of(config, pack)))
    run.enter(trainer.protector, trainer.adversary, trainer.task)
    return trainer, Plain(trainer), run


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="side of the images")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--people", type=int, default=400, help="stylised people to draw batches from")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each, a round")
    parser.add_argument("--checked", type=int, default=3, help="steps of each stage whose losses must agree")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="Markdown file for the results")
    a = parser.parse_args(argv)
    a.given = sys.argv[1:] if argv is None else argv
    print(machine(), flush=True)
    pack = faces(a.people, a.size, a.seed)
    compared: list[Compared] = []
    precisions: tuple[Precision, ...] = ("fp32", "auto")
    for precision in precisions:
        for stage in ("autoencoder", "joint"):  # each from fresh weights
            trainer, plain, run = players(pack, a.batch, a.seed, precision)
            compared += compare(trainer, plain, run, stage, a.checked)
    print("\n".join(losses_table(compared)), flush=True)
    wrong = [c for c in compared if not c.agrees]
    if wrong:
        print(f"{len(wrong)} losses differ by more than rounding: no times are worth taking", file=sys.stderr)
        return 1
    timings = [measure(trainer, plain, run, stage, a.rounds, a.steps) for stage in ("joint", "autoencoder")]
    print("\n".join(table(timings, a.batch)))
    if a.out is not None:
        write(a.out, a, run, timings, compared)
    return 0


if __name__ == "__main__":
    sys.exit(main())
