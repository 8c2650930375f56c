"""Adversarial Image Anonymizer: Mosallanezhad, Silva, Mancenido and Liu, "Toward Privacy and Utility Preserving Image
Representation" (2020).

An encoder turns a grey image x into a vector g (Eq. 1-3); a decoder redraws x from g (Eq. 4-5); an adversary reads the
private attribute from g (Eq. 6, Sec. 5.2); a task network keeps the use, 1-to-1 matching or an attribute (Eq. 7).

    stage 1   encoder and decoder, then adversary and task on the frozen release, each alone
    stage 2   encoder and decoder minimise   L_AE + alpha L_Task - beta L_Adv      (Eq. 8)
              while adversary and task keep learning

Preset ``deep`` is ours. Each value of the paper's g sees 10x10 pixels, so it can hide local cues but not global ones:

    stage 1   a residual network to unit vectors z learns the task alone (supervised contrastive loss)
    stage 2   a guard g = normalise(z + guard(z)) minimises   alpha L_Keep + beta L_Confusion   on noisy releases, while
              several adversaries, replaced by fresh ones in turn, keep learning; L_Keep is the change of the cosines
              between people of one private class
    release   g plus Gaussian noise from a keyed hash of the input, scaled to unit length

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
from veil.engine import Player, Run, Step
from veil.engine.augment import augment
from veil.engine.run import one_cycle, seeded
from veil.errors import InputError
from veil.losses import (
    balanced_weights,
    confusion,
    contrastive,
    cross_entropy,
    gram_change,
    supervised_contrastive,
)
from veil.nets import ResidualEncoder, SixConvolutions, UpsamplingDecoder, mlp
from veil.release import Contract, Release, new_key, normalised_noise, to_input


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of AIA; the defaults are the paper's."""

    encoder: Literal["paper", "deep"] = "paper"
    """``paper``: two convolution blocks, release in [0, 1]. ``deep``: residual network, release on the unit sphere."""
    features: int = 128
    """Width k of a ``deep`` release, and of a ``paper`` release of vectors."""
    alpha: float = 0.5
    """Weight of the task (Eq. 8), >= 0."""
    beta: float = 0.5
    """Weight of the adversary (Eq. 8), >= 0; with alpha = beta = 0 the auto-encoder is trained alone (Original)."""
    objective: Literal["unbounded", "confusion"] = "unbounded"
    """``unbounded``: - L_Adv (Eq. 8). ``confusion``: cross-entropy of the adversary's output to the uniform prior."""
    noise: float = 0.0
    """Norm of the keyed noise relative to the unit vector (``deep`` only); the guard is trained with it."""
    adversary: Literal["conv", "mlp"] = "conv"
    """``conv``: six convolutions and a linear layer (Sec. 5.2). ``mlp``: one tanh layer (Eq. 6)."""
    adversaries: int = 1
    """Number of adversaries; beyond the first (``deep`` only) they differ in depth and width."""
    refresh: int = 0
    """Steps after which the next adversary in turn is replaced by a fresh one; 0 for never."""
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
        problems = [
            f"{name}: must be >= {least:g}, got {getattr(self, name)!r}"
            for name, least in _LEAST.items()
            if not getattr(self, name) >= least
        ]
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                problems.append(f"{name}: must be one of {choices}, got {getattr(self, name)!r}")
        if self.batch % 2:
            problems.append(f"batch: must be even, got {self.batch}")
        if self.encoder == "paper" and (self.noise or self.adversaries > 1):
            problems.append("noise and several adversaries need encoder='deep'")
        if problems:
            raise InputError("aia: " + "; ".join(problems))


_KEEP = 20.0  # brings the change of squared cosines, hundredths, to the scale of a cross-entropy
_CHOICES = {"encoder": ("paper", "deep"), "objective": ("unbounded", "confusion"), "adversary": ("conv", "mlp")}
_LEAST = {
    **dict.fromkeys(("alpha", "beta", "noise", "refresh", "steps_joint"), 0.0),
    **dict.fromkeys(("features", "adversaries", "batch", "steps_alone"), 1.0),
    **dict.fromkeys(("margin", "temperature", "lr", "lr_opponents"), 1e-8),
}

_DEEP = Config(
    encoder="deep",
    alpha=1.0,
    beta=1.0,
    objective="confusion",
    adversaries=6,
    refresh=60,
    noise=0.7,
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
    """A network that knows people, and a guard that changes its output as little as hiding needs.

    z = normalise(network(x)); g = normalise(z + guard(z)). A new guard changes nothing. Once trained, z is the mean
    over an image and its mirror image.
    """

    def __init__(self, network: nn.Module, features: int) -> None:
        super().__init__()
        self.network = network
        self.guard = mlp([features, 512, features])
        nn.init.zeros_(self.guard[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.guard[-1].bias)  # type: ignore[arg-type]

    def represent(self, x: Tensor) -> Tensor:
        """``(B, 1, H, W)`` or ``(B, d)`` -> z, unit vectors ``(B, k)``."""
        z = self.network(x).float()
        if x.dim() == 4 and not self.training:
            z = z + self.network(x.flip(3)).float()
        return F.normalize(z, dim=1)

    def guarded(self, z: Tensor) -> Tensor:
        """z -> g, unit vectors ``(B, k)``."""
        return F.normalize(z + self.guard(z).float(), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.guarded(self.represent(x))


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
    if contract.kind == "vectors":
        network = mlp([contract.shape[0], 512, 512, c.features])
        return DeepEncoder(network, c.features) if c.encoder == "deep" else nn.Sequential(network, nn.Sigmoid())
    if c.encoder == "deep":
        return DeepEncoder(ResidualEncoder(1, contract.shape[0], contract.shape[1], c.features), c.features)
    return PaperEncoder()


def build_decoder(config: Config | Mapping[str, Any], contract: Contract) -> nn.Module:
    """The decoder of a release; outputs logits of images, or vectors."""
    if contract.kind == "vectors":
        return mlp([contract.k, 512, contract.shape[0]])
    if contract.feature_map is not None:
        return PaperDecoder(contract.feature_map)
    return UpsamplingDecoder(contract.k, 1, contract.shape[0], contract.shape[1])


def _adversary(config: Config, contract: Contract, outputs: int, which: int) -> nn.Module:
    """Sec. 5.2 on feature maps, Eq. 6 on vectors; further adversaries differ in depth and width."""
    if config.encoder == "deep":
        return mlp([contract.k, *[(256, 512)[which % 2]] * (1 + which % 3), outputs])
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
    group: Tensor  # (B,) joint private class of the whole batch


class _Trainer:
    """The players of one run and the data they see."""

    def __init__(
        self, config: Config, pack: Pack, private: Sequence[str], utility: str, contract: Contract, run: Run
    ) -> None:
        self.config, self.run, self.contract = config, run, contract
        self.pack = pack
        self.matching = utility == "identity"
        self.rows = pack.rows("protect", known=(*private, utility))
        self.codes = [pack.label(name) for name in private]
        self.sizes = [len(pack.classes[name]) for name in private]
        self.target = pack.label(utility)
        # Joint private class; couples are drawn from each equally, so that a rare class is seen as often as the others.
        self.group = np.ravel_multi_index([c.clip(0) for c in self.codes], self.sizes) if private else 0 * self.target
        self.members = [np.flatnonzero(self.group[self.rows] == c) for c in np.unique(self.group[self.rows])]
        if self.matching:
            self.couples = Couples(self.rows, self.target[self.rows], self.group[self.rows])

        deep = config.encoder == "deep"
        hides = config.beta > 0
        with seeded(run.seed, "aia", "networks"):
            self.encoder = run.place(build(config, contract))
            self.decoder = run.place(build_decoder(config, contract))
            adversaries = [self._fresh_adversary(i) for i in range(config.adversaries if hides or not deep else 0)]
            heads = 128 if self.matching else len(pack.classes[utility])
            task = None if self.matching and deep else run.place(_task(contract, heads))
        self.adversaries = [
            Player(f"adversary {i + 1}" if len(adversaries) > 1 else "adversary", a, lr=config.lr_opponents)
            for i, a in enumerate(adversaries)
        ]
        self.task = None if task is None else Player("task", task, lr=config.lr_opponents)
        if isinstance(self.encoder, DeepEncoder):
            self.protector = Player(
                "encoder", self.encoder.network, lr=config.lr, optimizer="adamw", weight_decay=0.05,
                schedule=one_cycle(config.steps_alone),
            )  # fmt: skip
            self.guard = Player(
                "guard", self.encoder.guard, lr=config.lr, optimizer="adamw", weight_decay=0.01,
                schedule=one_cycle(config.steps_joint, warm_up=0.2),
            )  # fmt: skip
            own = [self.protector, self.guard, Player("decoder", self.decoder, lr=config.lr)]
            self.redrawer = own[-1]
        else:
            self.protector = Player("protector", nn.ModuleList([self.encoder, self.decoder]), lr=config.lr)
            own = [self.protector]
        run.enter(*own, *self.adversaries, *([] if self.task is None else [self.task]))

    def _fresh_adversary(self, which: int) -> nn.Module:
        return self.run.place(_adversary(self.config, self.contract, sum(self.sizes), which))

    def batch(self, step: Step) -> _Batch:
        """Draw the step's couples and keep this process's share of them."""
        half = self.config.batch // 2
        if not self.matching:
            couples = step.rng.choice(self.rows, (half, 2))
        elif self.task is None:  # supervised contrastive: every couple shows one person
            couples = self.couples.genuine(half, step.rng, singles=0.25)
        else:  # contrastive (Eq. 7): as many couples of one person as of two
            couples = np.concatenate(
                [self.couples.genuine(half - half // 2, step.rng), self.couples.impostor(half // 2, step.rng)]
            )
            couples = step.rng.permutation(couples)
        everyone = couples.reshape(-1)
        rows = self.run.share(couples).reshape(-1)
        x = to_input(self.pack.x[rows], self.contract.kind).to(self.run.device)
        if self.config.augment and x.dim() == 4:
            x = augment(x, step.uniform)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return self._labelled(x, rows, everyone)

    def _labelled(self, x: Tensor, rows: NDArray[np.int64], everyone: NDArray[np.int64]) -> _Batch:
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
            group=to(self.group[everyone]),
        )

    def release(self, x: Tensor, step: Step) -> Tensor:
        """What an outsider would get of x: g, with noise where the release has it."""
        with self.run.autocast():
            g: Tensor = self.encoder(x)
        return self.noisy(g.float(), step)

    def noisy(self, g: Tensor, step: Step) -> Tensor:
        if not self.config.noise:
            return g
        return normalised_noise(g, step.normal(*g.shape).to(g.device), self.config.noise)

    def reconstruction_loss(self, g: Tensor, x: Tensor) -> Tensor:
        """L_AE (Eq. 5): binary cross-entropy of x' against x; squared error where x is a vector."""
        with self.run.autocast():
            redrawn = self.decoder(g).float()
        if x.dim() == 2:
            return F.mse_loss(redrawn, x)
        return F.binary_cross_entropy_with_logits(redrawn, x.clamp(0, 1))

    def adversary_loss(self, adversary: Player, g: Tensor, batch: _Batch) -> Tensor:
        """L_Adv: cross-entropy of the private attributes, each class counting the same; mean over attributes."""
        logits = self._private_logits(adversary, g)
        losses = [cross_entropy(o, z, w) for o, z, w in zip(logits, batch.private, batch.weights, strict=True)]
        return torch.stack(losses).mean()

    def hiding_loss(self, g: Tensor, batch: _Batch) -> Tensor:
        """What beta weighs in the protector's loss: - L_Adv (Eq. 8), or confusion of the adversaries."""
        if self.config.objective == "unbounded":
            return torch.stack([-self.adversary_loss(a, g, batch) for a in self.adversaries]).mean()
        logits = [o for a in self.adversaries for o in self._private_logits(a, g)]
        return torch.stack([confusion(o) for o in logits]).mean()

    def _private_logits(self, adversary: Player, g: Tensor) -> tuple[Tensor, ...]:
        with self.run.autocast():
            out: Tensor = adversary.module(g)
        return torch.split(out.float(), self.sizes, dim=1)

    def task_loss(self, g: Tensor, batch: _Batch) -> Tensor:
        """L_Siamese (Eq. 7) on couples, or cross-entropy for a label, of the task network."""
        assert self.task is not None
        with self.run.autocast():
            out = self.task.module(g).float()
        if not self.matching:
            return cross_entropy(out, batch.utility)
        a, b = out[0::2], out[1::2]
        return contrastive(F.pairwise_distance(a, b), batch.utility[0::2] != batch.utility[1::2], self.config.margin)

    def update_opponents(self, g: Tensor, batch: _Batch) -> None:
        """Adversaries and task learn on a release that they cannot change."""
        for adversary in self.adversaries:
            self.run.update(adversary, self.adversary_loss(adversary, g, batch))
        if self.task is not None:
            self.run.update(self.task, self.task_loss(g, batch))

    # The paper's schedule

    def autoencoder_step(self, step: Step) -> None:
        """Stage 1: encoder and decoder alone."""
        batch = self.batch(step)
        self.run.update(self.protector, self.reconstruction_loss(self.release(batch.x, step), batch.x))

    def opponents_step(self, step: Step) -> None:
        """Stage 1: adversary and task alone, on the release as it is."""
        batch = self.batch(step)
        with torch.no_grad():
            g = self.release(batch.x, step)
        self.update_opponents(g, batch)

    def joint_step(self, step: Step) -> None:
        """Stage 2: opponents learn, then the protector minimises Eq. 8 against them as they are now."""
        batch = self.batch(step)
        g = self.release(batch.x, step)
        self.update_opponents(g.detach(), batch)
        loss = self.reconstruction_loss(g, batch.x)
        if self.config.alpha:
            loss = loss + self.config.alpha * self.task_loss(g, batch)
        if self.config.beta:
            loss = loss + self.config.beta * self.hiding_loss(g, batch)
        self.run.update(self.protector, loss)

    # The schedule of `deep`

    def representation_step(self, step: Step) -> None:
        """Stage 1: the encoder learns its task: supervised contrastive, or a label's cross-entropy."""
        assert isinstance(self.encoder, DeepEncoder)
        batch = self.batch(step)
        with self.run.autocast():
            z = self.encoder.represent(batch.x)
        if self.task is None:
            loss = supervised_contrastive(self.run.gather(z), batch.everyone, self.config.temperature)
        else:
            self.run.update(self.task, self.task_loss(z.detach(), batch))
            loss = self.task_loss(z, batch)
        self.run.update(self.protector, loss)

    def represented(self) -> Tensor:
        """z ``(n, k)`` of all rows of the ``protect`` split; from now on the encoder stays as it is."""
        assert isinstance(self.encoder, DeepEncoder)
        self.encoder.eval()
        parts = []
        for start in range(0, len(self.rows), 512):
            x = to_input(self.pack.x[self.rows[start : start + 512]], self.contract.kind).to(self.run.device)
            with torch.no_grad(), self.run.autocast():
                parts.append(self.encoder.represent(x))
        return torch.cat(parts)

    def guard_step(self, step: Step, z: Tensor) -> None:
        """Stage 2: opponents learn on noisy releases; the guard confuses them and keeps what the task needs.

        To keep matching is to keep the angles between people of one class: angles between classes carry the private
        attribute itself. A label is kept through its task network.
        """
        assert isinstance(self.encoder, DeepEncoder)
        each = -(-self.config.batch // len(self.members))
        drawn = np.concatenate([step.rng.choice(rows, each) for rows in self.members])
        chosen = step.rng.permutation(drawn)[: self.config.batch]
        mine = self.run.share(chosen)
        batch = self._labelled(z[self.run.tensor(mine)], self.rows[mine], self.rows[chosen])
        g = self.encoder.guarded(batch.x)
        released = self.noisy(g, step)
        self.update_opponents(released.detach(), batch)
        if self.task is None:
            kept = _KEEP * gram_change(self.run.gather(g), z[self.run.tensor(chosen)], batch.group)
        else:
            kept = self.task_loss(released, batch)
        self.run.update(self.guard, self.config.alpha * kept + self.config.beta * self.hiding_loss(released, batch))
        if self.config.refresh and (step.number + 1) % self.config.refresh == 0:
            self.refresh((step.number + 1) // self.config.refresh - 1)

    def refresh(self, turn: int) -> None:
        """Replace one adversary by a fresh one: what only fools the old ones is undone."""
        which = turn % len(self.adversaries)
        with seeded(self.run.seed, "aia", "refresh", turn):
            self.adversaries[which].restart(self._fresh_adversary(which))

    def decoder_step(self, step: Step) -> None:
        """A decoder for the finished release, which the protector never feels: what it still shows."""
        batch = self.batch(step)
        with torch.no_grad():
            g = self.release(batch.x, step)
        self.run.update(self.redrawer, self.reconstruction_loss(g, batch.x))


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
    contract = _contract(config, pack)
    pack.require(private=list(private), utility=utility, among=["protect"])
    run = run or Run(seed=seed)
    trainer = _Trainer(config, pack, private, utility, contract, run)
    if config.encoder == "deep":
        for step in run.stage("representation", config.steps_alone):
            trainer.representation_step(step)
        z = trainer.represented()
        for step in run.stage("guard", config.steps_joint if config.beta else 0):
            trainer.guard_step(step, z)
        for step in run.stage("decoder", config.steps_alone // 4):
            trainer.decoder_step(step)
    else:
        for step in run.stage("auto-encoder", config.steps_alone):
            trainer.autoencoder_step(step)
        if config.alpha or config.beta:
            for step in run.stage("opponents", config.steps_alone):
                trainer.opponents_step(step)
            for step in run.stage("joint", config.steps_joint):
                trainer.joint_step(step)
    made = {"private": list(private), "utility": utility, "seed": run.seed, "data": pack.fingerprint}
    return Release(
        method="aia",
        config=asdict(config),
        contract=contract,
        encoder=run.collect(trainer.encoder),
        decoder=run.collect(trainer.decoder),
        made=made,
        key=(key or new_key()) if contract.keyed else None,
    )


def _contract(config: Config, pack: Pack) -> Contract:
    shape = tuple(int(n) for n in pack.x.shape[1:])
    if pack.kind == "vectors":
        return Contract(kind="vectors", shape=shape, k=config.features, noise=config.noise)
    deep = config.encoder == "deep"
    multiple = ResidualEncoder.multiple if deep else 4
    if len(shape) != 2:
        raise InputError(f"aia: needs grey images (pack with 1 channel), got shape {shape}")
    if shape[0] % multiple or shape[1] % multiple:
        raise InputError(f"aia: height and width must be divisible by {multiple}, got {shape}")
    feature_map = None if deep else (12, shape[0] // 4, shape[1] // 4)
    k = config.features if deep else int(np.prod(feature_map or ()))
    return Contract(
        kind="images", shape=shape, k=k, feature_map=feature_map, noise=config.noise, crop=pack.meta.get("crop")
    )
