"""Adversarial Image Anonymizer: Mosallanezhad, Silva, Mancenido and Liu, "Toward Privacy and Utility Preserving Image
Representation" (2020).

An encoder turns a grey image x into a vector g (Eq. 1-3); a decoder redraws x from g (Eq. 4-5); an adversary reads the
private attribute from g (Eq. 6, Sec. 5.2); a task network keeps the use, 1-to-1 matching or an attribute (Eq. 7).

    stage 1   encoder and decoder, then adversary and task on the frozen release, each alone
    stage 2   encoder and decoder minimise   L_AE + alpha L_Task - beta L_Adv      (Eq. 8)
              while adversary and task keep learning

Preset ``deep`` is ours. Each value of the paper's g sees 10x10 pixels, so it can hide local cues but not global ones:

    stage 1   residual networks, one that sees grey values and one that sees orientation maps, to unit vectors; each
              learns the task alone (supervised contrastive loss); z is their outputs side by side
    stage 2   template protection of z (:mod:`veil.methods.template`): alignment of the private classes, a guard
              against several adversaries that are replaced by fresh ones in turn, keyed noise

Where this file departs from the text, or the text leaves a choice open:

- Eq. 5 swaps x and x' and drops the sign; L_AE here is the binary cross-entropy of x' against x.
- The Random baseline needs every value of g in [0, 1]: the encoder ends with a sigmoid.
- Adversary and task read g as the feature map (C, H/4, W/4) that it flattens, because g is what is released.
- Sec. 5.2's adversary is the default ("conv"); Eq. 6's is ``adversary="mlp"``. The text gives no pooling: halved twice.
- ``-beta L_Adv`` has no lower bound: a run can win by making one adversary confidently wrong, which a fresh attacker
  undoes. It stays the objective of preset ``paper``; ``objective="confusion"`` is bounded.
- Several private attributes at once (the paper's future work): each adversary has one output per attribute and L_Adv
  is their mean. Input vectors (face templates) use MLPs in place of the convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.data.pack import Pack
from veil.data.sampling import Couples
from veil.draws import normalised_noise
from veil.engine import Player, Run, Step
from veil.engine.augment import augment
from veil.engine.run import by_first, one_cycle, seeded
from veil.errors import InputError
from veil.losses import (
    balanced_weights,
    confusion,
    contrastive,
    cross_entropy,
    supervised_contrastive,
)
from veil.methods import template
from veil.methods.protocol import refuse_people, require_classes, too_small
from veil.nets import ResidualEncoder, SixConvolutions, UpsamplingDecoder, mlp, to_input
from veil.release import Contract, Release, new_key


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of AIA; the defaults are the paper's."""

    encoder: Literal["paper", "deep"] = "paper"
    """``paper``: two convolution blocks, release in [0, 1]. ``deep``: residual network, release on the unit sphere."""
    features: int = 128
    """Width of each ``deep`` network's output, and of a ``paper`` release of vectors."""
    networks: int = 1
    """Networks side by side (``deep`` only): grey values, orientation maps, grey values, ... A release is as wide as
    all of them together."""
    alpha: float = 0.5
    """Weight of the task (Eq. 8), >= 0 (``paper``; ``deep`` learns the task first, then keeps what it learned)."""
    beta: float = 0.5
    """Weight of the adversary (Eq. 8), or of confusion (``deep``), >= 0. With alpha = beta = 0 the paper's auto-encoder
    is trained alone (Original); with beta = 0 ``deep`` protects nothing."""
    objective: Literal["unbounded", "confusion"] = "unbounded"
    """``unbounded``: - L_Adv (Eq. 8). ``confusion``: cross-entropy of the adversary's output to the uniform prior,
    which is ``deep``'s objective always."""
    noise: float = 0.0
    """Norm of the keyed noise relative to the unit vector (``deep`` only)."""
    adversary: Literal["conv", "mlp"] = "conv"
    """``conv``: six convolutions and a linear layer (Sec. 5.2). ``mlp``: one tanh layer (Eq. 6). ``deep`` has several
    of its own."""
    margin: float = 1.0
    """Margin m of the contrastive loss (Eq. 7), > 0."""
    temperature: float = 0.1
    """Temperature of the supervised contrastive loss (``deep``), > 0."""
    augment: bool = False
    """Train on random views of the images."""
    batch: int = 256
    """Images a step, even."""
    steps_alone: int = 400
    """Steps of each part alone (stage 1)."""
    steps_joint: int = 800
    """Steps of adversarial training (stage 2)."""
    lr: float = 1e-3
    """Peak learning rate of the protector."""
    lr_opponents: float = 1e-3
    """Learning rate of adversary and task."""

    def __post_init__(self) -> None:
        problems = too_small(self, _LEAST)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                problems.append(f"{name}: must be one of {choices}, got {getattr(self, name)!r}")
        if self.batch % 2:
            problems.append(f"batch: must be even, got {self.batch}")
        if self.encoder == "paper" and (self.noise or self.networks > 1):
            problems.append("noise and several networks need encoder='deep'")
        if self.networks > 64:
            problems.append(f"networks: must be <= 64, got {self.networks!r}")
        if problems:
            raise InputError("aia: " + "; ".join(problems))


_CHOICES = {"encoder": ("paper", "deep"), "objective": ("unbounded", "confusion"), "adversary": ("conv", "mlp")}
_LEAST = {
    **dict.fromkeys(("alpha", "beta", "noise", "steps_joint"), 0.0),
    **dict.fromkeys(("features", "networks", "batch", "steps_alone"), 1.0),
    **dict.fromkeys(("margin", "temperature", "lr", "lr_opponents"), 1e-8),
}

_DEEP = Config(
    encoder="deep",
    networks=2,
    alpha=1.0,
    beta=1.0,
    objective="confusion",
    noise=0.5,
    augment=True,
    batch=192,
    steps_alone=1000,
    steps_joint=1500,
    lr_opponents=2e-3,
)

PRESETS: dict[str, Config] = {
    "paper": Config(),
    "original": Config(alpha=0.0, beta=0.0),
    "without-task": Config(alpha=0.0),
    "deep": _DEEP,
    "deep-original": replace(_DEEP, beta=0.0, noise=0.0),
}
"""``original`` and ``without-task`` are the paper's baselines Original and AIA\\T; ``deep-original`` is ``deep``
without protection, the reference that says what protecting cost."""


# -- networks (Sec. 4.1, 4.3, 5.2) ------------------------------------------------------------------------------------


class PaperEncoder(nn.Module):
    """Eq. 2-3: two blocks of 3x3 convolution, LeakyReLU, average pooling; 8 and 12 channels; sigmoid; flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, 1, 1), nn.Conv2d(8, 12, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1, H, W)`` in [0, 1] -> ``(B, 12 H/4 W/4)`` in [0, 1]."""
        h = F.avg_pool2d(F.leaky_relu(self.conv1(x)), 2)
        h = F.avg_pool2d(F.leaky_relu(self.conv2(h)), 2)
        return torch.sigmoid(h).flatten(1)


class PaperDecoder(nn.Module):
    """Eq. 4: convolutions 256, 128, 1; LeakyReLU and upsampling by 2 after the first two; the sigmoid is the loss's."""

    def __init__(self, feature_map: tuple[int, int, int]) -> None:
        super().__init__()
        self.feature_map = feature_map
        self.conv1, self.conv2 = nn.Conv2d(feature_map[0], 256, 3, 1, 1), nn.Conv2d(256, 128, 3, 1, 1)
        self.conv3 = nn.Conv2d(128, 1, 3, 1, 1)

    def forward(self, g: Tensor) -> Tensor:
        """``(B, k)`` -> logits of the image, ``(B, 1, H, W)``."""
        h = F.leaky_relu(self.conv1(g.reshape(-1, *self.feature_map)), inplace=True)
        h = F.leaky_relu(_upsample_and_convolve(h, self.conv2), inplace=True)
        return _upsample_and_convolve(h, self.conv3)


def _upsample_and_convolve(h: Tensor, convolution: nn.Conv2d) -> Tensor:
    """``convolution(F.interpolate(h, scale_factor=2))`` for a 3x3 convolution with padding 1, in one operation.

    Upsampling is a transposed convolution with a kernel of 2x2 ones; with the convolution it is one with a 4x4 kernel:
    4 products a value instead of 9, and no map of four times the size (the last took nearly half of a step's time).
    """
    kernel = 4 * F.avg_pool2d(convolution.weight.flip(2, 3), 2, stride=1, padding=1)  # sums of 2x2, (out, in, 4, 4)
    out = F.conv_transpose2d(h, kernel.transpose(0, 1), stride=2, padding=1)
    if convolution.bias is not None:  # apart, because the bias's gradient in a transposed convolution is slow on CPUs
        out += convolution.bias.to(out.dtype)[:, None, None]
    return out


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


class OnMap(nn.Module):
    """Lets a convolutional network read a flattened feature map."""

    def __init__(self, feature_map: tuple[int, int, int], network: nn.Module) -> None:
        super().__init__()
        self.feature_map, self.network = feature_map, network

    def forward(self, g: Tensor) -> Tensor:
        h = g.reshape(-1, *self.feature_map)
        out: Tensor = self.network(h.contiguous(memory_format=torch.channels_last))
        return out


def build(config: Config | Mapping[str, Any], contract: Contract) -> nn.Module:
    """The encoder of a release; what :meth:`veil.release.Release.load` fills with weights."""
    c = config if isinstance(config, Config) else Config(**config)
    if c.encoder == "deep":
        networks = [_network(c, contract, oriented=i % 2 == 1) for i in range(c.networks)]
        classes = template.joint_classes(contract)
        protection = template.new_encoder(_protection(c), contract.k, contract.k, classes) if c.beta else nn.Identity()
        return DeepEncoder(networks, protection)
    if contract.kind == "vectors":
        return nn.Sequential(_network(c, contract), nn.Sigmoid())
    return PaperEncoder()


def _network(config: Config, contract: Contract, *, oriented: bool = False) -> nn.Module:
    if contract.kind == "vectors":
        return mlp([contract.shape[0], 512, 512, config.features])
    return ResidualEncoder(1, contract.shape[0], contract.shape[1], config.features, oriented=oriented)


def _protection(config: Config) -> template.Config:
    """Settings of ``deep``'s second stage."""
    return template.Config(
        noise=config.noise,
        hide=config.beta,
        steps=config.steps_joint,
        steps_guess=max(config.steps_joint // 3, 1),
        batch=2 * config.batch,
        lr=config.lr,
        lr_opponents=config.lr_opponents,
    )


def build_decoder(config: Config | Mapping[str, Any], contract: Contract) -> nn.Module:
    """The decoder of a release; outputs logits of images, or vectors."""
    if contract.kind == "vectors":
        return mlp([contract.k, 512, contract.shape[0]])
    if contract.feature_map is not None:
        return PaperDecoder(contract.feature_map)
    return UpsamplingDecoder(contract.k, 1, contract.shape[0], contract.shape[1])


def _adversary(config: Config, contract: Contract, outputs: int) -> nn.Module:
    """Sec. 5.2 on feature maps, Eq. 6 on vectors."""
    if config.adversary == "conv" and contract.feature_map is not None:
        channels, height, width = contract.feature_map
        return OnMap(contract.feature_map, SixConvolutions(channels, min(height, width), outputs, normalise=False))
    return nn.Sequential(nn.Linear(contract.k, 256), nn.Tanh(), nn.Linear(256, outputs))


def _task(contract: Contract, outputs: int) -> nn.Module:
    """Sec. 5.2: convolutions 4, 8 and 8 (on feature maps), then input -> 500 -> outputs."""
    dense = [nn.LeakyReLU(), nn.Linear(500, outputs)]
    if contract.feature_map is None:
        return nn.Sequential(nn.Linear(contract.k, 500), *dense)
    channels, height, width = contract.feature_map
    widths = [channels, 4, 8, 8]
    convolutions: list[nn.Module] = []
    for i in range(3):
        convolutions += [nn.Conv2d(widths[i], widths[i + 1], 3, 1, 1), nn.LeakyReLU()]
    first = nn.Linear(8 * height * width, 500)
    return OnMap(contract.feature_map, nn.Sequential(*convolutions, nn.Flatten(), first, *dense))


# -- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Batch:
    """What one step sees: this process's couples of images, and the labels of the whole batch."""

    x: Tensor  # (b, C, H, W) or (b, d); rows 2i and 2i + 1 are a couple
    private: list[Tensor]  # one (b,) per private attribute
    weights: list[Tensor]  # one (Z,) per private attribute: every class counts the same in the whole batch
    utility: Tensor  # (b,) identities or codes
    everyone: Tensor  # (B,) identities of the whole batch


class _Data:
    """The ``protect`` split, and the couples that a step draws from it."""

    def __init__(
        self, config: Config, pack: Pack, private: Sequence[str], utility: str, contract: Contract, run: Run
    ) -> None:
        self.config, self.run, self.contract, self.pack = config, run, contract, pack
        self.matching = utility == "identity"
        self.rows = pack.rows("protect", known=(*private, utility))
        require_classes(pack, self.rows, list(dict.fromkeys([*private, utility])))
        self.codes = [pack.label(name) for name in private]
        self.sizes = [len(pack.classes[name]) for name in private]
        self.target = pack.label(utility)
        self.heads = 128 if self.matching else len(pack.classes[utility])
        if self.matching:
            # Couples are drawn from each joint private class equally: a rare one is seen as often as the others.
            group = np.ravel_multi_index([c[self.rows] for c in self.codes], self.sizes)
            self.couples = Couples(self.rows, self.target[self.rows], group)

    def batch(self, step: Step) -> _Batch:
        """Draw the step's couples and keep this process's share of them."""
        half = self.config.batch // 2
        if not self.matching:
            couples = step.rng.choice(self.rows, (half, 2))
        elif self.config.encoder == "deep":  # supervised contrastive: every couple shows one person
            couples = self.couples.genuine(half, step.rng, singles=0.25)
        else:  # contrastive (Eq. 7): as many couples of one person as of two
            couples = np.concatenate(
                [self.couples.genuine(half - half // 2, step.rng), self.couples.impostor(half // 2, step.rng)]
            )
            couples = step.rng.permutation(couples)
        everyone = couples.reshape(-1)
        rows = self.run.share(couples).reshape(-1)
        x = self.inputs(rows)
        if self.config.augment and x.dim() == 4:
            x = augment(x, step.uniform)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        to = self.run.tensor
        return _Batch(
            x=x,
            private=[to(c[rows]) for c in self.codes],
            weights=[
                balanced_weights(to(np.bincount(c[everyone], minlength=z)))
                for c, z in zip(self.codes, self.sizes, strict=True)
            ],
            utility=to(self.target[rows]),
            everyone=to(self.target[everyone]),
        )

    def inputs(self, rows: NDArray[np.int64]) -> Tensor:
        return to_input(self.pack.x[rows], self.contract.kind).to(self.run.device)


def _reconstruction_loss(run: Run, decoder: nn.Module, g: Tensor, x: Tensor) -> Tensor:
    """L_AE (Eq. 5): binary cross-entropy of x' against x; squared error where x is a vector."""
    with run.autocast():
        redrawn = decoder(g).float()
    if x.dim() == 2:
        return F.mse_loss(redrawn, x)
    return F.binary_cross_entropy_with_logits(redrawn, x.clamp(0, 1))


def _task_loss(run: Run, task: nn.Module, g: Tensor, batch: _Batch, matching: bool, margin: float) -> Tensor:
    """L_Siamese (Eq. 7) on couples, or cross-entropy for a label, of the task network."""
    with run.autocast():
        out = task(g).float()
    if not matching:
        return cross_entropy(out, batch.utility)
    a, b = out[0::2], out[1::2]
    return contrastive(F.pairwise_distance(a, b), batch.utility[0::2] != batch.utility[1::2], margin)


class _Paper:
    """The paper's players and schedule."""

    def __init__(self, config: Config, data: _Data, run: Run) -> None:
        self.config, self.data, self.run = config, data, run
        with seeded(run.seed, "aia", "networks"):
            self.encoder = run.place(build(config, data.contract))
            self.decoder = run.place(build_decoder(config, data.contract))
            adversary = run.place(_adversary(config, data.contract, sum(data.sizes)))
            task = run.place(_task(data.contract, data.heads))
        self.protector = Player("protector", nn.ModuleList([self.encoder, self.decoder]), lr=config.lr)
        self.adversary = Player("adversary", adversary, lr=config.lr_opponents)
        self.task = Player("task", task, lr=config.lr_opponents)

    def train(self) -> None:
        """Stage 1, each alone; then stage 2, unless the auto-encoder is all that is wanted."""
        config = self.config
        self.run.enter(self.protector, self.adversary, self.task)
        for step in self.run.stage("auto-encoder", config.steps_alone):
            batch = self.data.batch(step)
            self.run.update(self.protector, self.reconstruction_loss(self.release(batch.x), batch.x))
        if not (config.alpha or config.beta):
            return
        for step in self.run.stage("opponents", config.steps_alone):
            batch = self.data.batch(step)
            with torch.no_grad():
                g = self.release(batch.x)
            self.update_opponents(g, batch)
        for step in self.run.stage("joint", config.steps_joint):
            self.joint_step(step)

    def joint_step(self, step: Step) -> None:
        """Opponents learn, then the protector minimises Eq. 8 against them as they are now."""
        batch = self.data.batch(step)
        g = self.release(batch.x)
        self.update_opponents(g.detach(), batch)
        loss = self.reconstruction_loss(g, batch.x)
        if self.config.alpha:
            loss = loss + self.config.alpha * self.task_loss(g, batch)
        if self.config.beta:
            loss = loss + self.config.beta * self.hiding_loss(g, batch)
        self.run.update(self.protector, loss)

    def update_opponents(self, g: Tensor, batch: _Batch) -> None:
        """Adversary and task learn on a release that they cannot change."""
        self.run.update(self.adversary, self.adversary_loss(g, batch))
        self.run.update(self.task, self.task_loss(g, batch))

    def release(self, x: Tensor) -> Tensor:
        with self.run.autocast():
            g: Tensor = self.encoder(x)
        return g.float()

    def reconstruction_loss(self, g: Tensor, x: Tensor) -> Tensor:
        return _reconstruction_loss(self.run, self.decoder, g, x)

    def task_loss(self, g: Tensor, batch: _Batch) -> Tensor:
        return _task_loss(self.run, self.task.module, g, batch, self.data.matching, self.config.margin)

    def adversary_loss(self, g: Tensor, batch: _Batch) -> Tensor:
        """L_Adv: cross-entropy of the private attributes, each class counting the same; mean over attributes."""
        logits = self._private_logits(g)
        losses = [cross_entropy(o, z, w) for o, z, w in zip(logits, batch.private, batch.weights, strict=True)]
        return torch.stack(losses).mean()

    def hiding_loss(self, g: Tensor, batch: _Batch) -> Tensor:
        """What beta weighs in the protector's loss: - L_Adv (Eq. 8), or confusion of the adversary."""
        if self.config.objective == "unbounded":
            return -self.adversary_loss(g, batch)
        return torch.stack([confusion(o) for o in self._private_logits(g)]).mean()

    def _private_logits(self, g: Tensor) -> tuple[Tensor, ...]:
        with self.run.autocast():
            out: Tensor = self.adversary.module(g)
        return torch.split(out.float(), self.data.sizes, dim=1)


class _Deep:
    """The players and schedule of ``deep``."""

    def __init__(self, config: Config, data: _Data, run: Run) -> None:
        self.config, self.data, self.run = config, data, run
        rows, contract = data.rows, data.contract
        with seeded(run.seed, "aia", "networks"):
            self.encoder = run.place(build(config, contract))
            self.decoder = run.place(build_decoder(config, contract))
            task = None if data.matching else run.place(_task(contract, data.heads))
        assert isinstance(self.encoder, DeepEncoder)
        self.representation = Player(
            "networks", self.encoder.networks, lr=config.lr, optimizer="adamw", weight_decay=0.05,
            schedule=one_cycle(config.steps_alone),
        )  # fmt: skip
        self.task = None if task is None else Player("task", task, lr=config.lr_opponents)
        self.redrawer = Player("decoder", self.decoder, lr=config.lr)
        self.protection: template.Training | None = None
        if config.beta:
            self.protection = template.Training(
                _protection(config), run, k=contract.k, codes=[c[rows] for c in data.codes], sizes=data.sizes,
                people=template.people(data.pack, rows), known=template.known(data.pack, rows),
            )  # fmt: skip
            self.encoder.protection = self.protection.encoder

    def train(self) -> None:
        """The networks learn the task; what they say of the ``protect`` split is protected; a decoder looks at it."""
        own = [self.representation, self.redrawer, *([] if self.task is None else [self.task])]
        self.run.enter(*own, *([] if self.protection is None else self.protection.players))
        for step in self.run.stage("representation", self.config.steps_alone):
            self.representation_step(step)
        self.encoder.eval()
        if self.protection is not None:
            self.protection.train(self.represented())
        for step in self.run.stage("decoder", self.config.steps_alone // 4):
            self.decoder_step(step)

    def representation_step(self, step: Step) -> None:
        """Every network learns the task by itself (supervised contrastive); all together where it is a label."""
        assert isinstance(self.encoder, DeepEncoder)
        batch = self.data.batch(step)
        with self.run.autocast():
            parts = self.encoder.parts(batch.x)
        if self.task is None:
            temperature = self.config.temperature
            losses = [supervised_contrastive(self.run.gather(z), batch.everyone, temperature) for z in parts]
            loss = torch.stack(losses).sum()
        else:
            z = torch.cat(parts, 1)
            self.run.update(self.task, self.task_loss(z.detach(), batch))
            loss = self.task_loss(z, batch)
        self.run.update(self.representation, loss)

    def task_loss(self, z: Tensor, batch: _Batch) -> Tensor:
        assert self.task is not None
        return _task_loss(self.run, self.task.module, z, batch, self.data.matching, self.config.margin)

    def represented(self) -> Tensor:
        """z ``(n, k)`` of all rows of the ``protect`` split; from now on the networks stay as they are."""
        assert isinstance(self.encoder, DeepEncoder)
        parts = []
        for start in range(0, len(self.data.rows), 512):
            with torch.no_grad(), self.run.autocast():
                parts.append(self.encoder.represent(self.data.inputs(self.data.rows[start : start + 512])))
        return torch.cat(parts)

    def decoder_step(self, step: Step) -> None:
        """A decoder for the finished release, which the protector never feels: what it still shows."""
        batch = self.data.batch(step)
        with torch.no_grad(), self.run.autocast():
            g = self.encoder(batch.x).float()
        if self.config.noise:
            g = normalised_noise(g, step.normal(*g.shape).to(g.device), self.config.noise)
        self.run.update(self.redrawer, _reconstruction_loss(self.run, self.decoder, g, batch.x))


def fit(
    config: Config,
    pack: Pack,
    *,
    private: Sequence[str],
    utility: str = "identity",
    seed: int = 0,
    run: Run | None = None,
    key: bytes | None = None,
    base: Release | None = None,
) -> Release:
    """Train AIA on the ``protect`` split.

    Args:
        config: Settings; see :data:`PRESETS`.
        pack: Grey images (sides divisible by 4, by 16 for ``deep``) or vectors.
        private: Labels to hide, one or more.
        utility: ``"identity"`` for 1-to-1 matching, or a label to keep.
        seed: Seeds weights, batches and noise; ignored where ``run`` is given.
        run: Precision, checkpoints and progress; a plain run if None. Its ``curves`` hold the losses afterwards.
        key: Secret of a release with noise; a fresh one from the operating system if None.
        base: Must be None: AIA reads the input itself.

    Returns:
        The release, its decoder in ``decoder``.

    Raises:
        InputError: With all problems of data and labels in one line, or where the run diverges.
    """
    if base is not None:
        raise InputError(f"aia: reads the input itself and takes no base, got a release of {base.method!r}")
    if not private:
        raise InputError("aia: private must name at least one label, got none")
    if config.encoder == "deep" and config.beta:
        refuse_people("aia", private)
    pack.require(private=list(private), utility=utility, among=["protect"])
    contract = _contract(config, pack, private)
    run = run or Run(seed=seed)
    run.check_batch(config.batch, each=2)
    data = _Data(config, pack, private, utility, contract, run)
    trainer = _Deep(config, data, run) if config.encoder == "deep" else _Paper(config, data, run)
    trainer.train()
    made = {"private": list(private), "utility": utility, "seed": run.seed, "data": pack.fingerprint}
    if isinstance(trainer, _Deep) and trainer.protection is not None:
        made |= trainer.protection.made
    return Release(
        method="aia",
        config=asdict(config),
        contract=contract,
        encoder=run.collect(trainer.encoder),
        decoder=run.collect(trainer.decoder),
        made=made,
        key=(key or by_first(new_key)) if contract.keyed else None,
    )


def _contract(config: Config, pack: Pack, private: Sequence[str]) -> Contract:
    shape = tuple(int(n) for n in pack.x.shape[1:])
    deep = config.encoder == "deep"
    k = config.features * config.networks
    classes = {name: tuple(pack.classes[name]) for name in private} if deep and config.beta else {}
    if pack.kind == "vectors":
        return Contract(kind="vectors", shape=shape, k=k, noise=config.noise, classes=classes, **pack.framing)
    multiple = ResidualEncoder.multiple if deep else 4
    if len(shape) != 2:
        raise InputError(f"aia: needs grey images (pack with 1 channel), got shape {shape}")
    if shape[0] % multiple or shape[1] % multiple:
        raise InputError(f"aia: height and width must be divisible by {multiple}, got {shape}")
    if deep:
        return Contract(kind="images", shape=shape, k=k, noise=config.noise, classes=classes, **pack.framing)
    feature_map = (12, shape[0] // 4, shape[1] // 4)
    return Contract(kind="images", shape=shape, k=int(np.prod(feature_map)), feature_map=feature_map, **pack.framing)
