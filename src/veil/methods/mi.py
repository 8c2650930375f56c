"""Anonymised images by mutual information: Feutry, Piantanida and Duhamel, "Learning Semi-Supervised Anonymized
Representations by Mutual Information".

An auto-encoder redraws an image x as x^; a discriminator D tells x from x^, which keeps x^ an image of its kind; a
private classifier q reads z from x^. No label of the use is ever seen.

    L_D         binary cross-entropy of D on x (y = 1) and x^ (y = 0)                                   (Eq. 13)
    L_private   cross-entropy of q(. | x^) to the private label                                         (Eq. 14)
    L_object    cross-entropy of q(. | x^) to the labels' empirical distribution                        (Eq. 15)
    auto-encoder minimises   -log D(x^) + lam |L_object - L_private|                                    (Eq. 12)

    stage 1   the auto-encoder alone, squared pixel error
    stage 2   D against the auto-encoder
    stage 3   the auto-encoder against D and q, in turn

The release is the image x^. Variants of the paper:

- intertwined (``target``): D's real samples are the images of one chosen private class alone;
- substitution protocol (``substitute``): x^ is replaced by the nearest training image of that class, by pixel distance.
  The release then has finitely many values, so it can be certified. They show one real person: it asks for ``expose``.

Where this file departs from the text, or the text leaves a choice open:

- "Minimising Eq. 13" means fooling D for the auto-encoder: the non-saturating -log D(x^).
- Nothing in Eq. 12 ties x^ to x but the first weights, and runs collapse to one image. D therefore sees statistics of
  the whole batch, lam rises slowly, and a run whose images lose their variety stops with a message. ``tie`` adds a
  squared pixel error of blurred images, ``keep`` the distance of x^ to x in a network that has learned, without labels,
  which random views (turned, slanted, stretched, ...) are of one image: it passes over how an image was drawn and knows
  what it shows. Both are 0 in preset ``paper``.
- |L_object - L_private| is also 0 for a q that has learned nothing: q takes ``ahead`` steps for each of the
  auto-encoder's. And players in turn go round in circles: over the last half of stage 3 the auto-encoder's learning
  rate falls to 0, so that q catches up and what it finds last is hidden too. Either helps; both together do most.
- Several private attributes: q has one output for each class of each, and the two losses are means over attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.data.pack import Pack
from veil.engine import Player, Run, Step, perceptual
from veil.engine.player import Diverged
from veil.engine.run import seeded
from veil.errors import InputError
from veil.methods.labels import require_classes
from veil.methods.protocol import Algorithm, Fitted, Task
from veil.methods.settings import Count, Rate, Share, Steps, Weight, at_least, checked
from veil.nn.augment import augment, warp
from veil.nn.losses import cross_entropy
from veil.nn.nets import GroupNorm, to_input
from veil.release.contract import Contract


@dataclass(frozen=True, kw_only=True)
@checked("mi")
class Config:
    """Settings of anonymisation by mutual information."""

    lam: Weight = 1.0
    """Weight of the mutual-information term (Eq. 12), >= 0."""
    tie: Weight = 0.0
    """Weight of the squared error between blurred x and x^, >= 0; the paper has none."""
    keep: Weight = 0.0
    """Weight of 1 - cosine of x and x^ in a network that finds the other view of an image, >= 0; the paper has none."""
    views: Literal["drawing", "face"] = "drawing"
    """Random views of that network: turned, slanted, stretched and shifted; or those of faces, mirrored and relit."""
    target: str = ""
    """Class of the first private attribute whose images are D's real samples (intertwined); all if empty."""
    substitute: bool = False
    """Release the target's training image nearest to x^ in place of x^."""
    expose: bool = False
    """Allow a substitution, which shows a real person's images."""
    features: Count = 64
    """Width of the auto-encoder's code."""
    ahead: Count = 4
    """Steps of the private classifier for each of the auto-encoder, >= 1."""
    least_variety: Share = 0.1
    """Variance of the released images, as a share of the input's, below which a run stops, in [0, 1)."""
    batch: Annotated[int, at_least(2)] = 128
    """Images a step."""
    steps_views: Count = 400
    """Steps of the network that finds views, where ``keep`` asks for it."""
    steps_alone: Count = 400
    """Steps of the auto-encoder alone (stage 1)."""
    steps_discriminator: Steps = 200
    """Steps of D against the auto-encoder (stage 2)."""
    steps_joint: Steps = 800
    """Steps of stage 3."""
    lr: Rate = 5e-4
    """Learning rate of the auto-encoder."""
    lr_discriminator: Rate = 2e-4
    """Learning rate of D."""
    lr_private: Rate = 1e-3
    """Learning rate of the private classifier."""

    def problems(self) -> Iterator[str]:
        """What does not fit together."""
        if self.substitute and not self.target:
            yield "substitute: needs the class whose images are released; set target"
        if self.substitute and not self.expose:
            yield (
                "substitute: shows a real person's images to everybody; set expose=true to allow that, or use method "
                "substitution, whose averages show nobody"
            )


PRESETS: dict[str, Config] = {
    "default": Config(tie=1.0, keep=8.0),
    "paper": Config(),
}
"""``paper`` is Eq. 12 and nothing else; ``default`` adds what keeps it from collapse, and says what is to stay."""

_RAMP = 0.5  # share of stage 3 over which lam rises to its value
_SETTLE = 0.5  # share of stage 3, at its end, over which the auto-encoder's learning rate falls
_LEAST_RATE = 0.02  # share of the learning rate at which it stays


# -- networks ---------------------------------------------------------------------------------------------------------


class AutoEncoder(nn.Module):
    """Convolutions 32, 64, 128, halved twice, to a code that sees the whole image; and the mirror of that.

    Args:
        channels: C.
        height: H.
        width: W.
        features: Width of the code.
    """

    def __init__(self, channels: int, height: int, width: int, features: int) -> None:
        super().__init__()
        self.size = (height, width)
        self.map = (128, -(-height // 4), -(-width // 4))
        flat = math.prod(self.map)
        self.down = nn.ModuleList(
            [nn.Conv2d(channels, 32, 3, 1, 1), nn.Conv2d(32, 64, 3, 1, 1), nn.Conv2d(64, 128, 3, 1, 1)]
        )
        self.to_code, self.from_code = nn.Linear(flat, features), nn.Linear(features, flat)
        self.up = nn.ModuleList([nn.Conv2d(128, 64, 3, 1, 1), nn.Conv2d(64, 32, 3, 1, 1)])
        self.last = nn.Conv2d(32, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` in [0, 1] -> ``(B, C, H, W)`` in [0, 1]."""
        h = x
        for i, convolution in enumerate(self.down):
            h = F.leaky_relu(convolution(h), 0.1)
            h = F.avg_pool2d(h, 2, ceil_mode=True) if i < 2 else h
        h = F.leaky_relu(self.from_code(self.to_code(h.flatten(1))), 0.1).view(-1, *self.map)
        for convolution in self.up:
            h = F.leaky_relu(convolution(F.interpolate(h, scale_factor=2)), 0.1)
        out: Tensor = self.last(h[..., : self.size[0], : self.size[1]]).float()
        return out.sigmoid()


class Discriminator(nn.Module):
    """D: convolutions 32, 64, 128, halved twice; its last layer also sees how much its batch varies in each feature."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        widths = (channels, 32, 64, 128)
        self.convolutions = nn.ModuleList(
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(a, b, 3, 1, 1)) for a, b in pairwise(widths)
        )
        self.dense = nn.Linear(128 * -(-height // 4) * -(-width // 4), 128)
        self.last = nn.Linear(256, 1)

    def features(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, 128)``."""
        h = x
        for i, convolution in enumerate(self.convolutions):
            h = F.leaky_relu(convolution(h), 0.1)
            h = F.avg_pool2d(h, 2, ceil_mode=True) if i < 2 else h
        out: Tensor = self.dense(h.flatten(1)).float()
        return out

    def judge(self, h: Tensor, batch: Tensor) -> Tensor:
        """Logit ``(B,)`` that images of features ``(B, 128)`` are real, beside all features of their batch."""
        spread = (batch.var(0, unbiased=False) + 1e-6).sqrt()
        out: Tensor = self.last(torch.cat([F.leaky_relu(h, 0.1), spread.expand_as(h)], 1))
        return out[:, 0]


def private_classifier(channels: int, height: int, width: int, outputs: int) -> nn.Module:
    """q: convolutions 64, 128, 128 with GroupNorm, halved twice, the first time at once; two linear layers."""
    layers: list[nn.Module] = []
    for a, b, halve in ((channels, 64, True), (64, 128, True), (128, 128, False)):
        layers += [nn.Conv2d(a, b, 3, 1, 1), *([nn.MaxPool2d(2, ceil_mode=True)] if halve else [])]
        layers += [GroupNorm(8, b), nn.LeakyReLU(0.1)]
    flat = 128 * -(-height // 4) * -(-width // 4)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, 256), nn.LeakyReLU(0.1), nn.Linear(256, outputs))


class Substituter(nn.Module):
    """An auto-encoder, and the images of which the nearest to what it draws is released."""

    substitutes: Tensor

    def __init__(self, autoencoder: nn.Module, substitutes: Tensor) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.register_buffer("substitutes", substitutes)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> minus the squared distances ``(B, K)``."""
        drawn = self.autoencoder(x).movedim(1, -1).flatten(1)
        return -torch.cdist(drawn, self.substitutes.flatten(1).to(drawn) / 255).square()


# -- training ---------------------------------------------------------------------------------------------------------


def mutual_information(logits: Sequence[Tensor], labels: Sequence[Tensor], priors: Sequence[Tensor]) -> Tensor:
    """|L_object - L_private| (Eq. 11, 14, 15), mean over attributes.

    Args:
        logits: ``(B, Z)`` of q for each attribute.
        labels: ``(B,)`` codes.
        priors: ``(Z,)`` empirical distribution of each.
    """
    terms = [
        (-(F.log_softmax(o, 1) @ prior).mean() - cross_entropy(o, z)).abs()
        for o, z, prior in zip(logits, labels, priors, strict=True)
    ]
    return torch.stack(terms).mean()


def _settling(config: Config) -> Callable[[int], float]:
    """Factor of the auto-encoder's learning rate by its updates so far."""
    before = config.steps_alone + config.steps_discriminator

    def factor(update: int) -> float:
        left = 1 - (update - before) / max(config.steps_joint, 1)
        return min(1.0, max(left / _SETTLE, _LEAST_RATE))

    return factor


def blurred(x: Tensor) -> Tensor:
    """Means over 5x5 pixels: where things are, not how exactly they were drawn."""
    return F.avg_pool2d(x, 5, 1, 2, count_include_pad=False)


class Training:
    """The players and the schedule.

    Args:
        config: Settings.
        run: Gives updates, stages and precision.
        x: uint8 images ``(N, H, W[, 3])``, read a batch at a time.
        rows: ``(n,)`` those to learn from.
        labels: Codes ``(n,)`` of each private attribute, all known.
        sizes: Number of classes of each.
        real: Places among the rows that are D's real samples.
    """

    def __init__(
        self,
        config: Config,
        run: Run,
        x: NDArray[np.uint8],
        rows: NDArray[np.int64],
        labels: Sequence[NDArray[np.int64]],
        sizes: Sequence[int],
        real: NDArray[np.int64],
    ) -> None:
        self.config, self.run, self.sizes, self.real = config, run, list(sizes), real
        self.x, self.rows = x, rows
        self.labels = [run.tensor(codes) for codes in labels]
        counts = [torch.bincount(z, minlength=size).float() for z, size in zip(self.labels, sizes, strict=True)]
        self.priors = [count / count.sum() for count in counts]
        height, width = x.shape[1:3]
        channels = 3 if x.ndim == 4 else 1
        with seeded(run.seed, "mi", "networks"):
            self.network = run.place(AutoEncoder(channels, height, width, config.features))
            self.judge = Discriminator(channels, height, width)
            run.place(self.judge)
            q = run.place(private_classifier(channels, height, width, sum(sizes)))
        self.autoencoder = Player("auto-encoder", self.network, lr=config.lr, clip=1.0, schedule=_settling(config))
        self.discriminator = Player("discriminator", self.judge, lr=config.lr_discriminator)
        self.private = Player("private classifier", q, lr=config.lr_private, optimizer="adamw", weight_decay=1e-3)
        self.players = [self.autoencoder, self.discriminator, self.private]
        self.finder: Player | None = None
        if config.keep:
            self.finder = perceptual.player(run, channels, config.steps_views)
            self.players.append(self.finder)

    def train(self) -> Iterator[tuple[str, Step]]:
        """The three stages; every step is told, with its stage, when it is done."""
        if self.finder is not None:
            self.perceptual = perceptual.learn(
                self.run, self.finder, self.x, self.rows, self.config.steps_views, view=self.view, batch=256,
                temperature=0.1,
            )  # fmt: skip
        for step in self.run.stage("auto-encoder", self.config.steps_alone):
            x = self.images(self.drawn(step))
            self.run.update(self.autoencoder, F.mse_loss(self.redrawn(x), x))
            yield "auto-encoder", step
        for step in self.run.stage("discriminator", self.config.steps_discriminator):
            self.discriminator_step(step)
            self.autoencoder_step(step, self.drawn(step), lam=None)
            yield "discriminator", step
        for step in self.run.stage("joint", self.config.steps_joint):
            redrawn = self.discriminator_step(step)
            lam = self.config.lam * min(step.progress / _RAMP, 1.0) if self.config.lam else None
            if lam is not None:  # else nobody asks q
                self.private_step(*redrawn)
                for _ in range(self.config.ahead - 1):
                    rows = self.drawn(step)
                    self.private_step(self.released(rows), rows)
            self.autoencoder_step(step, self.drawn(step), lam=lam)
            yield "joint", step

    def drawn(self, step: Step, among: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Rows of a batch, of all images or among some."""
        rows: NDArray[np.int64] = step.rng.choice(
            np.arange(len(self.rows)) if among is None else among, self.config.batch
        )
        return rows

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """This process's images of a batch."""
        x = to_input(self.x[self.rows[self.run.share(rows)]], "images")
        return x.to(self.run.device).contiguous(memory_format=torch.channels_last)

    def view(self, x: Tensor, step: Step) -> Tensor:
        """Random views of images ``(B, C, H, W)``, between which a use must not change."""
        if self.config.views == "face":
            return augment(x, step.uniform)
        return warp(x, step.uniform, rotation=0.3, shear=0.4, scale=0.2, shift=0.1, stretch=True)

    def kept(self, drawn: Tensor, x: Tensor) -> Tensor:
        """1 - cosine of x^ and x, as the network sees them that finds views."""
        with self.run.autocast():
            seen: Tensor = self.perceptual(drawn)
            with torch.no_grad():
                truth: Tensor = self.perceptual(x)
        return 1 - F.cosine_similarity(seen.float(), truth.float()).mean()

    def redrawn(self, x: Tensor) -> Tensor:
        """x^ ``(B, C, H, W)``."""
        with self.run.autocast():
            out: Tensor = self.network(x)
        return out

    def released(self, rows: NDArray[np.int64]) -> Tensor:
        """x^ of a batch, for the opponents: without a gradient."""
        with torch.no_grad():
            return self.redrawn(self.images(rows))

    def verdict(self, x: Tensor) -> Tensor:
        """D's logits ``(B,)``; what its batch is like is told of all processes' images."""
        with self.run.autocast():
            h = self.judge.features(x)
        return self.judge.judge(h.float(), self.run.gather(h.float()))

    def discriminator_step(self, step: Step) -> tuple[Tensor, NDArray[np.int64]]:
        """Eq. 13, on real images and on redrawn ones, which are returned with their rows."""
        rows = self.drawn(step)
        drawn = self.released(rows)
        real = self.verdict(self.images(self.drawn(step, self.real)))
        fake = self.verdict(drawn)
        self.run.update(self.discriminator, (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2)
        return drawn, rows

    def private_step(self, drawn: Tensor, rows: NDArray[np.int64]) -> None:
        """Eq. 14."""
        labels = self.labels_of(self.run.share(rows))
        losses = [cross_entropy(o, z) for o, z in zip(self.read(drawn), labels, strict=True)]
        self.run.update(self.private, torch.stack(losses).mean())

    def autoencoder_step(self, step: Step, rows: NDArray[np.int64], *, lam: float | None) -> None:
        """Eq. 12; without the private term where ``lam`` is None."""
        x = self.images(rows)
        drawn = self.redrawn(x)
        loss = F.softplus(-self.verdict(drawn)).mean()
        if self.config.tie:
            loss = loss + self.config.tie * F.mse_loss(blurred(drawn), blurred(x)) / self.scale(x)
        if self.config.keep:
            kept = self.kept(drawn, x)
            self.run.log("view", kept)
            loss = loss + self.config.keep * kept
        if lam is not None:
            logits = [self.run.gather(o) for o in self.read(drawn)]  # |mean| is not the mean of the processes' |means|
            known = mutual_information(logits, self.labels_of(rows), self.priors)
            self.run.log("mutual information", known)
            loss = loss + lam * known
        self.run.update(self.autoencoder, loss)
        if (step.number + 1) % 20 == 0 or step.number + 1 == step.count:
            self.check_variety(x, drawn.detach())

    def scale(self, x: Tensor) -> Tensor:
        """Variance of the blurred input, so that the tie's weight means the same for all data."""
        return self.run.gather(blurred(x)).var(0).mean().clamp_min(1e-6)

    def check_variety(self, x: Tensor, drawn: Tensor) -> None:
        """Stop a run whose releases have become nearly one image."""
        before, now = (float(self.run.gather(t).var(0).mean()) for t in (x, drawn))
        share = now / max(before, 1e-12)
        if share < self.config.least_variety:
            raise Diverged(
                f"mi: the released images must vary at least {self.config.least_variety:g} times as much as the input, "
                f"got {share:.3f}: they have collapsed to nearly one image; lower lam or raise tie"
            )

    def read(self, drawn: Tensor) -> tuple[Tensor, ...]:
        with self.run.autocast():
            out: Tensor = self.private.module(drawn)
        return torch.split(out.float(), self.sizes, dim=1)

    def labels_of(self, rows: NDArray[np.int64]) -> list[Tensor]:
        at = self.run.tensor(rows)
        return [z[at] for z in self.labels]


def prepare(config: Config, task: Task) -> Training:
    """The training on a pack's ``protect`` split, with all that does not fit in one InputError."""
    pack, private = task.pack, task.private
    pack.require(private=private, utility=pack.known_use(task.utility), among=["protect"])
    rows = pack.rows("protect", known=tuple(private))
    require_classes(pack, rows, private)
    real = np.arange(len(rows))
    if config.target:
        real = np.flatnonzero(np.isin(rows, _target_rows(config, pack, private[0])))
        if not len(real):  # of people, not every class need be there
            raise InputError(
                f"target: {private[0]} {config.target!r} has no row in split protect that knows all of "
                f"{', '.join(private)}"
            )
    labels = [pack.label(name)[rows] for name in private]
    return Training(config, task.run, pack.x, rows, labels, [len(pack.classes[n]) for n in private], real)


def _target_rows(config: Config, pack: Pack, private: str) -> NDArray[np.int64]:
    if config.target not in pack.classes[private]:
        raise InputError(f"target: must be a class of {private}, got {config.target!r}")
    rows = pack.rows("protect")
    rows = rows[np.flatnonzero(pack.label(private)[rows] == pack.classes[private].index(config.target))]
    if not len(rows):
        raise InputError(f"target: {private} {config.target!r} has no row in split protect")
    return rows


def train(config: Config, task: Task) -> Fitted:
    """Learn to redraw images without their private attribute, whatever their use, which is never seen here.

    Raises:
        Diverged: Where the released images collapse, or a loss runs away.
    """
    training = prepare(config, task)
    task.run.enter(*training.players)
    for _ in training.train():
        pass
    encoder = task.run.collect(training.network)
    shape = tuple(task.pack.x.shape[1:])
    support = 0
    if config.substitute:
        table = np.asarray(task.pack.x[_target_rows(config, task.pack, task.private[0])])
        encoder, support = Substituter(encoder, torch.from_numpy(table)), len(table)
    contract = Contract(
        kind="images", shape=shape, k=math.prod(shape), image=shape, support=support, **task.pack.framing
    )
    return Fitted(encoder=encoder, contract=contract)


def build(config: Config, contract: Contract) -> nn.Module:
    """The encoder of a release, without its weights."""
    channels = 3 if len(contract.shape) == 3 else 1
    autoencoder = AutoEncoder(channels, contract.shape[0], contract.shape[1], config.features)
    if not contract.support:
        return autoencoder
    return Substituter(autoencoder, torch.zeros(contract.support, *contract.shape, dtype=torch.uint8))


ALGORITHM = Algorithm(config=Config, presets=PRESETS, train=train, build=build)
