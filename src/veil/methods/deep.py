"""AIA's aim with a deep encoder, whose representation is protected as templates are: ours.

Each value of the paper's g (:mod:`veil.methods.aia`) sees 10x10 pixels, so it can hide local cues but not global ones.
Here each value sees the whole image:

    stage 1   residual networks, one that sees grey values and one that sees orientation maps, to unit vectors; each
              learns the task alone (supervised contrastive loss); z is their outputs side by side
    stage 2   template protection of z (:mod:`veil.methods.guard`): alignment of the private classes, a guard against
              several adversaries that are replaced by fresh ones in turn
    stage 3   a decoder looks at the finished releases, to show what they still give away
    release   r = normalise(g + noise * n / sqrt(k)), n a secret smooth field of g: see :mod:`veil.release.draws`

- Where the use is a label, all networks learn it together, with the cross-entropy of a small task network.
- From stage 2 on the networks stay as they are, each its mean over an image and its mirror image.
- The private class is always guessed: images are not told one.
- Input vectors use MLPs in place of the convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.data.pack import Pack
from veil.data.sampling import Couples
from veil.engine import Player, Step
from veil.engine.run import one_cycle, seeded
from veil.errors import InputError
from veil.methods import guard, template
from veil.methods.guard import Classes, Plan, TemplateEncoder, joint_classes
from veil.methods.labels import known, people, refuse_people, require_classes
from veil.methods.protocol import Algorithm, Fitted, Task
from veil.methods.settings import EVEN, Count, Rate, Steps, Weight, at_least, at_most, checked
from veil.nn.augment import augment
from veil.nn.losses import cross_entropy, reconstruction, supervised_contrastive
from veil.nn.nets import ResidualEncoder, UpsamplingDecoder, mlp, to_input
from veil.release.contract import Contract
from veil.release.draws import normalised_noise


@dataclass(frozen=True, kw_only=True)
@checked("deep")
class Config:
    """Settings of deep."""

    features: Count = 128
    """Width of each network's output."""
    networks: Annotated[int, at_least(1), at_most(64)] = 2
    """Networks side by side: grey values, orientation maps, grey values, ... A release is as wide as all of them
    together."""
    hide: Weight = 1.0
    """Weight of hiding in stage 2, >= 0; 0 protects nothing."""
    noise: Weight = 0.5
    """Norm of the keyed noise relative to the unit vector, >= 0."""
    temperature: Rate = 0.1
    """Temperature of the supervised contrastive loss, > 0."""
    augment: bool = True
    """Train on random views of the images."""
    batch: Annotated[int, at_least(1), EVEN] = 192
    """Images a step, even; the guard takes twice as many vectors."""
    steps_alone: Count = 1000
    """Steps of the networks (stage 1); the decoder has a quarter as many (stage 3)."""
    steps_joint: Steps = 1500
    """Steps of the guard (stage 2); the guess has a third as many."""
    lr: Rate = 1e-3
    """Peak learning rate of networks, guard and decoder."""
    lr_opponents: Rate = 2e-3
    """Learning rate of task, guess and adversaries."""
    renew: bool = False
    """Turn releases by an orthogonal matrix of the key: those of another key do not match them."""

    @property
    def protection(self) -> template.Config:
        """Settings of the second stage; the others are the defaults there."""
        return template.Config(
            hide=self.hide,
            steps=self.steps_joint,
            steps_guess=max(self.steps_joint // 3, 1),
            batch=2 * self.batch,
            lr=self.lr,
            lr_opponents=self.lr_opponents,
        )


PRESETS: dict[str, Config] = {
    "default": Config(),
    "unprotected": Config(hide=0.0, noise=0.0),
}
"""``unprotected`` is the reference that says what protecting cost."""


# -- networks ---------------------------------------------------------------------------------------------------------


class DeepEncoder(nn.Module):
    """Networks that know people side by side, and the protection of what they say.

    z = normalise([normalise(network_1(x)), normalise(network_2(x)), ...]); g = protection(z). Once trained, each
    network's output is the mean over an image and its mirror image.
    """

    def __init__(self, networks: Sequence[nn.Module], protection: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.protection = protection

    def parts(self, x: Tensor) -> list[Tensor]:
        """``(B, 1, H, W)`` or ``(B, d)`` -> unit vectors ``(B, features)`` of each network."""
        out = []
        for network in self.networks:
            z = network(x).float()
            if x.dim() == 4 and not self.training:
                z = z + network(x.flip(3)).float()
            out.append(F.normalize(z, dim=1))
        return out

    def represent(self, x: Tensor) -> Tensor:
        """z, unit vectors ``(B, k)``."""
        return torch.cat(self.parts(x), 1) / math.sqrt(len(self.networks))

    def forward(self, x: Tensor) -> Tensor:
        """g, unit vectors ``(B, k)``."""
        out: Tensor = self.protection(self.represent(x))
        return out


def build(config: Config, contract: Contract) -> DeepEncoder:
    """The encoder of a release, without its weights."""
    networks: list[nn.Module] = []
    for i in range(config.networks):
        if contract.kind == "vectors":
            networks.append(mlp([contract.shape[0], 512, 512, config.features]))
        else:
            height, width = contract.shape[:2]
            networks.append(ResidualEncoder(1, height, width, config.features, oriented=i % 2 == 1))
    return DeepEncoder(networks, _new_protection(config, contract) if config.hide else nn.Identity())


def _new_protection(config: Config, contract: Contract) -> TemplateEncoder:
    return template.new_encoder(config.protection, contract.k, contract.k, joint_classes(contract))


def build_decoder(config: Config, contract: Contract) -> nn.Module:
    """The decoder of a release; outputs logits of images, or vectors."""
    if contract.kind == "vectors":
        return mlp([contract.k, 512, contract.shape[0]])
    return UpsamplingDecoder(contract.k, 1, contract.shape[0], contract.shape[1])


# -- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """What one step sees: this process's images, and the people of the whole batch."""

    x: Tensor  # (b, C, H, W) or (b, d)
    utility: Tensor  # (b,) identities or codes
    everyone: Tensor  # (B,) identities of the whole batch


class Data:
    """The ``protect`` split, and what a step draws from it."""

    def __init__(self, config: Config, task: Task, contract: Contract) -> None:
        self.config, self.run, self.contract, self.pack = config, task.run, contract, task.pack
        self.matching = task.utility == "identity"
        self.rows = task.pack.rows("protect", known=(*task.private, task.utility))
        require_classes(task.pack, self.rows, list(dict.fromkeys([*task.private, task.utility])))
        self.codes = [task.pack.label(name)[self.rows] for name in task.private]
        self.sizes = [len(task.pack.classes[name]) for name in task.private]
        self.target = task.pack.label(task.utility)
        self.outputs = len(task.pack.classes[task.utility])
        if self.matching:
            # Couples are drawn from each joint private class equally: a rare one is seen as often as the others.
            group = np.ravel_multi_index(self.codes, self.sizes)
            self.couples = Couples(self.rows, self.target[self.rows], group)

    def batch(self, step: Step) -> Batch:
        """Draw couples of one person, or of anybody where the use is a label; this process's share of them."""
        half = self.config.batch // 2
        if self.matching:
            couples = self.couples.genuine(half, step.rng, singles=0.25)
        else:
            couples = step.rng.choice(self.rows, (half, 2))
        rows = self.run.share(couples).reshape(-1)
        x = self.inputs(rows)
        if self.config.augment and x.dim() == 4:
            x = augment(x, step.uniform)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        to = self.run.tensor
        return Batch(x=x, utility=to(self.target[rows]), everyone=to(self.target[couples.reshape(-1)]))

    def inputs(self, rows: NDArray[np.int64]) -> Tensor:
        return to_input(self.pack.x[rows], self.contract.kind).to(self.run.device)


class Training:
    """The players and the schedule."""

    def __init__(self, config: Config, data: Data) -> None:
        run, contract = data.run, data.contract
        self.config, self.data, self.run = config, data, run
        with seeded(run.seed, "aia", "networks"):
            self.encoder = build(config, contract)
            run.place(self.encoder)
            self.decoder = run.place(build_decoder(config, contract))
            task = None if data.matching else run.place(_task(contract.k, data.outputs))
        self.representation = Player(
            "networks", self.encoder.networks, lr=config.lr, optimizer="adamw", weight_decay=0.05,
            schedule=one_cycle(config.steps_alone),
        )  # fmt: skip
        self.task = None if task is None else Player("task", task, lr=config.lr_opponents)
        self.redrawer = Player("decoder", self.decoder, lr=config.lr)
        self.guard: guard.Training | None = None
        if config.hide:
            who = people(data.pack, data.rows), known(data.pack, data.rows)
            self.classes = Classes.of("deep", data.codes, data.sizes, *who)
            with seeded(run.seed, "template", "networks"):
                protection = _new_protection(config, contract)
                run.place(protection)
                self.guard = guard.Training(Plan.of(config.protection), run, protection, self.classes)
            self.encoder.protection = protection

    def train(self) -> None:
        """The networks learn the task; what they say of the ``protect`` split is protected; a decoder looks at it."""
        own = [self.representation, self.redrawer, *([] if self.task is None else [self.task])]
        self.run.enter(*own, *([] if self.guard is None else self.guard.players))
        for step in self.run.stage("representation", self.config.steps_alone):
            self.representation_step(step)
        self.encoder.eval()
        if self.guard is not None:
            self.protect(self.guard, self.represented())
        for step in self.run.stage("decoder", self.config.steps_alone // 4):
            self.decoder_step(step)

    def representation_step(self, step: Step) -> None:
        """Every network learns the task by itself (supervised contrastive); all together where it is a label."""
        batch = self.data.batch(step)
        with self.run.autocast():
            parts = self.encoder.parts(batch.x)
        if self.task is None:
            temperature = self.config.temperature
            losses = [supervised_contrastive(self.run.gather(z), batch.everyone, temperature) for z in parts]
            loss = torch.stack(losses).sum()
        else:
            z = torch.cat(parts, 1)
            self.run.update(self.task, self.task_loss(self.task, z.detach(), batch))
            loss = self.task_loss(self.task, z, batch)
        self.run.update(self.representation, loss)

    def task_loss(self, task: Player, z: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the label to keep."""
        with self.run.autocast():
            out: Tensor = task.module(z).float()
        return cross_entropy(out, batch.utility)

    def represented(self) -> Tensor:
        """z ``(n, k)`` of all rows of the ``protect`` split; from now on the networks stay as they are."""
        parts = []
        for start in range(0, len(self.data.rows), 512):
            with torch.no_grad(), self.run.autocast():
                parts.append(self.encoder.represent(self.data.inputs(self.data.rows[start : start + 512])))
        return torch.cat(parts)

    def protect(self, training: guard.Training, z: Tensor) -> None:
        """Guess, alignment and guard of z around the classes' mean direction."""
        training.encoder.origin.copy_(self.classes.origin(z))
        with torch.no_grad():
            centred = training.encoder.erased(z)
        training.train(centred)

    def decoder_step(self, step: Step) -> None:
        """L_AE of a decoder for the finished release, which the protector never feels."""
        batch = self.data.batch(step)
        with torch.no_grad(), self.run.autocast():
            g = self.encoder(batch.x).float()
        if self.config.noise:
            g = normalised_noise(g, step.normal(*g.shape).to(g.device), self.config.noise)
        with self.run.autocast():
            redrawn = self.decoder(g).float()
        self.run.update(self.redrawer, reconstruction(redrawn, batch.x))


def _task(k: int, outputs: int) -> nn.Module:
    last = nn.Linear(500, outputs)  # drawn first, as AIA's is
    return nn.Sequential(nn.Linear(k, 500), nn.LeakyReLU(), last)


def train(config: Config, task: Task) -> Fitted:
    """Train deep: on grey images with sides divisible by 16, or on vectors; any labels, and any use."""
    if config.hide:
        refuse_people("deep", task.private)
    task.pack.require(private=task.private, utility=task.utility, among=["protect"])
    contract = contract_of(config, task.pack, task.private)
    training = Training(config, Data(config, task, contract))
    training.train()
    made = {} if training.guard is None else training.guard.made
    return Fitted(encoder=training.encoder, contract=contract, decoder=training.decoder, made=made)


def contract_of(config: Config, pack: Pack, private: Sequence[str]) -> Contract:
    """What releases of a pack take and give."""
    shape = tuple(int(n) for n in pack.x.shape[1:])
    if pack.kind == "images":
        multiple = ResidualEncoder.multiple
        if len(shape) != 2:
            raise InputError(f"deep: needs grey images (pack with 1 channel), got shape {shape}")
        if shape[0] % multiple or shape[1] % multiple:
            raise InputError(f"deep: height and width must be divisible by {multiple}, got {shape}")
    return Contract(
        kind=pack.kind,
        shape=shape,
        k=config.features * config.networks,
        noise=config.noise,
        classes={name: tuple(pack.classes[name]) for name in private} if config.hide else {},
        **pack.framing,
    ).turned(config.renew)


ALGORITHM = Algorithm(config=Config, presets=PRESETS, train=train, build=build, build_decoder=build_decoder, unit=2)
