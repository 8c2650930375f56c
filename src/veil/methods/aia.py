"""Adversarial Image Anonymizer: Mosallanezhad, Silva, Mancenido and Liu, "Toward Privacy and Utility Preserving Image
Representation" (2020).

An encoder turns a grey image x into a vector g (Eq. 1-3); a decoder redraws x from g (Eq. 4-5); an adversary reads the
private attribute from g (Eq. 6, Sec. 5.2); a task network keeps the use, 1-to-1 matching or an attribute (Eq. 7).

    stage 1   encoder and decoder, then adversary and task on the frozen release, each alone
    stage 2   encoder and decoder minimise   L_AE + alpha L_Task - beta L_Adv      (Eq. 8)
              while adversary and task keep learning

Where this file departs from the text, or the text leaves a choice open:

- Eq. 5 swaps x and x' and drops the sign; L_AE here is the binary cross-entropy of x' against x.
- The Random baseline needs every value of g in [0, 1]: the encoder ends with a sigmoid.
- Adversary and task read g as the feature map (C, H/4, W/4) that it flattens, because g is what is released.
- Sec. 5.2's adversary is the default ("conv"); Eq. 6's is ``adversary="mlp"``. The text gives no pooling: halved twice.
- ``-beta L_Adv`` has no lower bound: a run can win by making one adversary confidently wrong, which a fresh attacker
  undoes. It stays the objective of preset ``paper``; ``objective="confusion"`` is bounded.
- Several private attributes at once (the paper's future work): each adversary has one output per attribute and L_Adv
  is their mean. Input vectors (face templates) use MLPs in place of the convolutions.

Each value of the paper's g sees 10x10 pixels, so it can hide local cues but not global ones: see
:mod:`veil.methods.deep`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.data.pack import Pack
from veil.data.sampling import Couples
from veil.engine import Player, Step
from veil.engine.run import seeded
from veil.errors import InputError
from veil.methods.labels import require_classes
from veil.methods.protocol import Algorithm, Fitted, Task
from veil.methods.settings import EVEN, Count, Rate, Steps, Weight, at_least, checked
from veil.nn.augment import augment
from veil.nn.losses import balanced_weights, confusion, contrastive, cross_entropy, reconstruction
from veil.nn.nets import SixConvolutions, mlp, to_input
from veil.release.contract import Contract


@dataclass(frozen=True, kw_only=True)
@checked("aia")
class Config:
    """Settings of AIA; the defaults are the paper's."""

    features: Count = 128
    """Width of a release of vectors."""
    alpha: Weight = 0.5
    """Weight of the task (Eq. 8), >= 0."""
    beta: Weight = 0.5
    """Weight of the adversary (Eq. 8), >= 0. With alpha = beta = 0 the auto-encoder is trained alone (Original)."""
    objective: Literal["unbounded", "confusion"] = "unbounded"
    """``unbounded``: - L_Adv (Eq. 8). ``confusion``: cross-entropy of the adversary's output to the uniform prior."""
    adversary: Literal["conv", "mlp"] = "conv"
    """``conv``: six convolutions and a linear layer (Sec. 5.2). ``mlp``: one tanh layer (Eq. 6)."""
    margin: Rate = 1.0
    """Margin m of the contrastive loss (Eq. 7), > 0."""
    augment: bool = False
    """Train on random views of the images."""
    batch: Annotated[int, at_least(1), EVEN] = 256
    """Images a step, even."""
    steps_alone: Count = 400
    """Steps of each part alone (stage 1)."""
    steps_joint: Steps = 800
    """Steps of adversarial training (stage 2)."""
    lr: Rate = 1e-3
    """Learning rate of the protector."""
    lr_opponents: Rate = 1e-3
    """Learning rate of adversary and task."""
    renew: bool = False
    """Turn releases by an orthogonal matrix of the key: those of another key do not match them."""


PRESETS: dict[str, Config] = {
    "paper": Config(),
    "original": Config(alpha=0.0, beta=0.0),
    "without-task": Config(alpha=0.0),
}
"""``original`` and ``without-task`` are the paper's baselines Original and AIA\\T."""


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


class OnMap(nn.Module):
    """Lets a convolutional network read a flattened feature map."""

    def __init__(self, feature_map: tuple[int, int, int], network: nn.Module) -> None:
        super().__init__()
        self.feature_map, self.network = feature_map, network

    def forward(self, g: Tensor) -> Tensor:
        h = g.reshape(-1, *self.feature_map)
        out: Tensor = self.network(h.contiguous(memory_format=torch.channels_last))
        return out


def build(config: Config, contract: Contract) -> nn.Module:
    """The encoder of a release, without its weights."""
    if contract.kind == "vectors":
        return nn.Sequential(mlp([contract.shape[0], 512, 512, config.features]), nn.Sigmoid())
    return PaperEncoder()


def build_decoder(config: Config, contract: Contract) -> nn.Module:
    """The decoder of a release; outputs logits of images, or vectors."""
    if contract.feature_map is None:
        return mlp([contract.k, 512, contract.shape[0]])
    return PaperDecoder(contract.feature_map)


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
class Batch:
    """What one step sees: this process's couples of images, and the labels of the whole batch."""

    x: Tensor  # (b, C, H, W) or (b, d); rows 2i and 2i + 1 are a couple
    private: list[Tensor]  # one (b,) per private attribute
    weights: list[Tensor]  # one (Z,) per private attribute: every class counts the same in the whole batch
    utility: Tensor  # (b,) identities or codes
    everyone: Tensor  # (B,) identities of the whole batch


class Data:
    """The ``protect`` split, and the couples that a step draws from it."""

    def __init__(self, config: Config, task: Task, contract: Contract) -> None:
        pack, private, utility = task.pack, task.private, task.utility
        self.config, self.run, self.contract, self.pack = config, task.run, contract, pack
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

    def batch(self, step: Step) -> Batch:
        """Draw the step's couples and keep this process's share of them."""
        half = self.config.batch // 2
        if not self.matching:
            couples = step.rng.choice(self.rows, (half, 2))
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
        return Batch(
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


class Training:
    """The players and the schedule."""

    def __init__(self, config: Config, data: Data) -> None:
        run = data.run
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

    def update_opponents(self, g: Tensor, batch: Batch) -> None:
        """Adversary and task learn on a release that they cannot change."""
        self.run.update(self.adversary, self.adversary_loss(g, batch))
        self.run.update(self.task, self.task_loss(g, batch))

    def release(self, x: Tensor) -> Tensor:
        with self.run.autocast():
            g: Tensor = self.encoder(x)
        return g.float()

    def reconstruction_loss(self, g: Tensor, x: Tensor) -> Tensor:
        """L_AE (Eq. 5): binary cross-entropy of x' against x; squared error where x is a vector."""
        with self.run.autocast():
            redrawn = self.decoder(g).float()
        return reconstruction(redrawn, x)

    def task_loss(self, g: Tensor, batch: Batch) -> Tensor:
        """L_Siamese (Eq. 7) on couples, or cross-entropy for a label, of the task network."""
        with self.run.autocast():
            out: Tensor = self.task.module(g).float()
        if not self.data.matching:
            return cross_entropy(out, batch.utility)
        a, b = out[0::2], out[1::2]
        other = batch.utility[0::2] != batch.utility[1::2]
        return contrastive(F.pairwise_distance(a, b), other, self.config.margin)

    def adversary_loss(self, g: Tensor, batch: Batch) -> Tensor:
        """L_Adv: cross-entropy of the private attributes, each class counting the same; mean over attributes."""
        logits = self._private_logits(g)
        losses = [cross_entropy(o, z, w) for o, z, w in zip(logits, batch.private, batch.weights, strict=True)]
        return torch.stack(losses).mean()

    def hiding_loss(self, g: Tensor, batch: Batch) -> Tensor:
        """What beta weighs in the protector's loss: - L_Adv (Eq. 8), or confusion of the adversary."""
        if self.config.objective == "unbounded":
            return -self.adversary_loss(g, batch)
        return torch.stack([confusion(o) for o in self._private_logits(g)]).mean()

    def _private_logits(self, g: Tensor) -> tuple[Tensor, ...]:
        with self.run.autocast():
            out: Tensor = self.adversary.module(g)
        return torch.split(out.float(), self.data.sizes, dim=1)


def train(config: Config, task: Task) -> Fitted:
    """Train AIA: on grey images with sides divisible by 4, or on vectors; any labels, and any use."""
    pack = task.pack
    pack.require(private=task.private, utility=task.utility, among=["protect"])
    contract = contract_of(config, pack)
    training = Training(config, Data(config, task, contract))
    training.train()
    return Fitted(encoder=training.encoder, contract=contract, decoder=training.decoder)


def contract_of(config: Config, pack: Pack) -> Contract:
    """What releases of a pack take and give."""
    shape = tuple(int(n) for n in pack.x.shape[1:])
    if pack.kind == "vectors":
        return Contract(kind="vectors", shape=shape, k=config.features, **pack.framing).turned(config.renew)
    if len(shape) != 2:
        raise InputError(f"aia: needs grey images (pack with 1 channel), got shape {shape}")
    if shape[0] % 4 or shape[1] % 4:
        raise InputError(f"aia: height and width must be divisible by 4, got {shape}")
    feature_map = (12, shape[0] // 4, shape[1] // 4)
    contract = Contract(
        kind="images", shape=shape, k=int(np.prod(feature_map)), feature_map=feature_map, **pack.framing
    )
    return contract.turned(config.renew)


ALGORITHM = Algorithm(config=Config, presets=PRESETS, train=train, build=build, build_decoder=build_decoder, unit=2)
