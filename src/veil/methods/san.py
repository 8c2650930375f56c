"""Semi-adversarial networks: Mirjalili, Raschka, Namboodiri and Ross, "Semi-Adversarial Networks: Convolutional
Autoencoders for Imparting Privacy to Face Images", ICB 2018.

An auto-encoder redraws a face beside a prototype, the average face of a class. Its release is a face image that should
still match its original, and from which classifiers that know only ordinary faces read the wrong class. Classifier and
matcher are trained first and then frozen: hence semi-adversarial.

    x_s, x_o      what is redrawn beside the prototype of the image's own, and of the opposite class
    J_D           x_s must look like x: binary cross-entropy, or mean absolute error, of the pixels
    J_G           the classifier must say the class on x_s, and the opposite one on x_o
    J_M           the matcher's features must stay those of x
    minimised     J_D + weigh_class J_G + weigh_match J_M

    stage 1       the classifiers, alone; stage 2: the matcher, alone; all are frozen
    stage 3       the auto-encoder
    transport     (preset ``hardened``, ours) before it is redrawn, an image moves from its class's Gaussian to the
                  classes' barycentre
    rounds        (the same) a fresh classifier learns the class from x_o and goes on learning beside stage 3, which
                  goes on too; x_o must confuse it

The release is x_o, or the image beside the neutral prototype (the classes' mean), or x_s; ``strength`` goes from x to
it.

What is ours, in every preset but ``paper``, because releases of the published networks neither looked like faces nor
took in classifiers of other kinds:

- The network that redraws adds to the image at half its resolution (:class:`Retoucher`), where the paper's makes the
  image anew from 12 maps of a quarter of it. It adds light and shade, no more than ``amplitude`` to a pixel, and faint
  tints, no more than ``tint`` to a colour of it. Of images of more than 64 pixels it (and in every preset the
  classifiers and the matcher) sees averages: what is added is smooth, fine detail is left alone, and costs nothing.
- Classifiers of several kinds are frozen, each with its share of J_G, and see what is redrawn in random views.
- Structural similarity to x below ``likeness`` is paid for, of x_s and x_o: what is redrawn has a budget.
- Prototypes are means of classes. With ``transport`` they are Gaussians, of so many principal components of the images
  (:class:`Transport`): what is released has one mean for all classes, and one covariance as far as the shrinkage of
  covariances lets it, before anything is learned.

One file over 500 lines: two networks, a transport and the schedule make one algorithm, which is read as a whole.

Where the text (its abstract is what we have, with the authors' code and a later report) leaves a choice open:

- J_D: the code has binary cross-entropy (the default here, as it is what the networks were published with), a later
  report the mean absolute error. J_M: on the mean of both images' errors, or on x_s alone; the default is the mean, for
  x_o is what is released.
- A classifier that learned from releases is not to be told the opposite, which it would turn around, but nothing of
  what changes: J_G for those of ``rounds`` is their cross-entropy to all joint classes that differ in nothing else
  alike (with one attribute, their confusion). They are not frozen: each auto-encoder's step is followed by one of
  theirs, for what is hidden from a classifier that stands still another finds.
- The class of an image, which says which prototype is opposite, is told where it is known, else the first frozen
  classifier guesses it. It ships inside the release.
- The matcher is the run's own, or (``matcher``) the one of an ONNX file. A file gives no gradient, which J_M needs: in
  stage 2 the run's matcher then learns, in place of telling people apart, to give the file's features of images in
  random views (distillation: it minimises 1 - cosine); J_M keeps those features as far as it follows.
- Several attributes of two classes each: prototypes of joint classes; the opposite is opposite in all of ``change``.
  With ``choose`` each image of a batch is redrawn with another choice of them, and releases may choose for each image.
- Prototypes mean nothing where faces are not aligned: packs whose average face is too blurred are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor, nn

from veil.data.sampling import Couples
from veil.engine import Player, Run, Step
from veil.engine.run import one_cycle, seeded
from veil.errors import InputError
from veil.methods.labels import people, refuse_many, refuse_people, require_classes
from veil.methods.protocol import Algorithm, Fitted, Task
from veil.methods.settings import EVEN, Count, Rate, Share, Steps, Weight, at_least, checked, listed, within
from veil.nn.augment import augment
from veil.nn.embedders import Network, laid_before
from veil.nn.losses import balanced_weights, cross_entropy, structural_similarity, supervised_contrastive
from veil.nn.nets import (
    GroupNorm,
    ResidualBlock,
    ResidualEncoder,
    SixConvolutions,
    convolve_doubled,
    folded,
    mlp,
    to_input,
    to_pixels,
)
from veil.nn.onnxfile import OnnxNetwork
from veil.nn.transport import transport_maps
from veil.release.contract import Contract


@dataclass(frozen=True, kw_only=True)
@checked("san")
class Config:
    """Settings of semi-adversarial networks."""

    prototype: Literal["opposite", "neutral", "same"] = "opposite"
    """Prototype beside which releases are redrawn."""
    strength: Annotated[float, within("[0, 1]")] = 1.0
    """How far a release goes from the input (0) to what is redrawn (1)."""
    change: str = ""
    """Attributes whose class releases change, separated by commas; all private ones if empty."""
    choose: bool = False
    """Learn to change any of the private attributes, so that it can be chosen for each image."""
    network: Literal["retouch", "paper"] = "retouch"
    """What redraws: a network that adds to the image, or the paper's auto-encoder, which makes it anew."""
    amplitude: Weight = 1.0
    """Light and shade that the former adds to a pixel's logit lie between minus this and this, >= 0; 0 for no bound."""
    tint: Weight = 0.05
    """What it adds to each colour's logit beside them lies between minus this and this, >= 0; 0 for nothing."""
    classifiers: str = "residual,strided,blurred"
    """Kinds of the frozen classifiers (residual, strided, blurred, six), separated by commas; the first tells the class
    of an image."""
    views: bool = True
    """Show redrawn images to the classifiers in random views, so that they are taken in by more than single pixels."""
    likeness: Share = 0.95
    """Structural similarity to the input that redrawn images should have, in [0, 1); 0 to ask none."""
    weigh_likeness: Weight = 20.0
    """Weight of what is missing to it, >= 0."""
    pixels: Literal["entropy", "absolute"] = "entropy"
    """J_D: binary cross-entropy, or mean absolute error."""
    matcher: str = ""
    """File of an ONNX face matcher; the run's own learns to give its features, and is frozen then. One of its own if
    empty."""
    match: Literal["mean", "same"] = "mean"
    """J_M on both redrawn images, or on the one beside the same prototype."""
    weigh_class: Weight = 1.0
    """Weight of J_G, >= 0."""
    weigh_match: Weight = 5.0
    """Weight of J_M, >= 0."""
    transport: Steps = 0
    """Principal components of images in which they move from their class's Gaussian to the classes' barycentre before
    they are redrawn, >= 0; 0: none do. Needs the neutral prototype, and no choice for each image."""
    rounds: Steps = 0
    """Rounds in which a fresh classifier begins to learn from releases, >= 0."""
    aligned: Share = 0.12
    """Least share of an image's pixel variance that the average face of `protect` has, in [0, 1)."""
    batch: Annotated[int, at_least(4), EVEN] = 32
    """Images a step, even."""
    steps_classifier: Count = 300
    """Steps of each classifier."""
    steps_matcher: Count = 600
    """Steps of the matcher."""
    steps: Count = 800
    """Steps of the auto-encoder, over all rounds."""
    lr: Rate = 1e-3
    """Peak learning rate of the auto-encoder."""
    lr_frozen: Rate = 2e-3
    """Peak learning rate of classifiers and matcher."""

    def problems(self) -> Iterator[str]:
        """Kinds that there are not, and what does not fit together."""
        if not self.kinds or (unknown := [kind for kind in self.kinds if kind not in KINDS]):
            got = repr(unknown[0]) if self.kinds else "none"
            yield f"classifiers: must be kinds of {', '.join(KINDS)}, got {got}"
        if self.transport and (self.prototype != "neutral" or self.choose):
            got = "a choice for each image" if self.choose else f"prototype={self.prototype}"
            yield f"transport: moves images to the middle of their classes (prototype=neutral), got {got}"

    @property
    def kinds(self) -> list[str]:
        """Those of the frozen classifiers."""
        return listed(self.classifiers)


KINDS = ("residual", "strided", "blurred", "six")
PRESETS: dict[str, Config] = {
    "default": Config(),
    "hardened": Config(
        prototype="neutral",
        amplitude=0.0,
        tint=0.0,
        transport=256,
        likeness=0.96,
        steps_classifier=800,
        rounds=2,
        steps=900,
    ),
    "paper": Config(network="paper", classifiers="six", views=False, likeness=0.0, batch=64),
}
"""``hardened`` hides from who learns from releases, too, and draws too little to need a bound; ``paper`` is what was
published."""


# -- networks ---------------------------------------------------------------------------------------------------------


class AutoEncoder(nn.Module):
    """Convolutions 8 and 12 with poolings, 256 and 128 with up-samplings; a 1x1 convolution combines the 128 maps and
    the prototype."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(2 * channels, 8, 3, 1, 1), nn.Conv2d(8, 12, 3, 1, 1)])
        self.up = nn.ModuleList([nn.Conv2d(12, 256, 3, 1, 1), nn.Conv2d(256, 128, 3, 1, 1)])
        self.combine = nn.Conv2d(128 + channels, channels, 1)

    def forward(self, x: Tensor, prototype: Tensor) -> Tensor:
        """Images and prototypes ``(B, C, H, W)`` in [0, 1] -> logits of the redrawn images; H and W in fours."""
        prototype = prototype.to(x)
        h = torch.cat([x, prototype], 1)
        for convolution in self.down:
            h = F.avg_pool2d(F.leaky_relu(convolution(h)), 2)
        first, second = self.up
        h = F.leaky_relu(convolve_doubled(second, F.leaky_relu(first(h))))  # type: ignore[arg-type]
        # A 1x1 convolution and a doubling may change places: 128 maps of full size are never made.
        of_maps, of_prototype = torch.split(self.combine.weight, [h.shape[1], prototype.shape[1]], 1)
        h = F.interpolate(F.conv2d(h, of_maps), scale_factor=2)
        out: Tensor = h + F.conv2d(prototype, of_prototype, self.combine.bias)
        return out


class Retoucher(nn.Module):
    """Adds to the image, at half the resolution of its average: what it leaves stays sharp, what it adds is smooth.

    It adds light and shade, the same to all colours, and a tint to each. Both are bounded. To structural similarity,
    the budget, a patch whose structure is lost costs the same however bright it is: without a bound noses became white
    spots. Tints it hardly sees: without a bound eyes became blue and mouths green; without any tint, classifiers that
    read colours still read the class.

    Two halvings by residual blocks and as many doublings, whose maps meet those of the same size; it begins with
    nothing to add.

    Args:
        channels: Of the images.
        amplitude: The bound of light and shade on a pixel's logit, >= 0; 0 for none.
        tint: The bound of tints, >= 0; with 0, and in grey, there are none.
    """

    def __init__(self, channels: int, amplitude: float, tint: float) -> None:
        super().__init__()
        self.amplitude, self.tint = amplitude, tint if channels > 1 else 0.0
        self.stem = nn.Conv2d(8 * channels, 32, 3, 1, 1)
        self.down = nn.ModuleList([ResidualBlock(32, 64, halve=True), ResidualBlock(64, 128, halve=True)])
        self.bottom = ResidualBlock(128, 128)
        self.up = nn.ModuleList([nn.Conv2d(128, 64, 3, 1, 1), nn.Conv2d(64, 32, 3, 1, 1)])
        self.last = nn.Conv2d(32, 1 + channels if self.tint else 1, 3, 1, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, prototype: Tensor) -> Tensor:
        """Images and prototypes ``(B, C, H, W)`` in [0, 1] -> logits of the redrawn images; H and W in fours."""
        seen = averaged(torch.cat([x, prototype.to(x)], 1))
        h = self.stem(folded(seen, 2, 8))  # two halvings follow
        maps = [h]
        for block in self.down:
            maps.append(block(maps[-1]))
        h = self.bottom(maps.pop())
        for convolution in self.up:
            h = F.leaky_relu(_doubled(convolution(h)) + maps.pop())
        added = _doubled(self.last(h))[..., : seen.shape[2], : seen.shape[3]].float()
        light, tints = added[:, :1], added[:, 1:]
        if self.amplitude:
            light = _bounded(light, self.amplitude)
        added = light + _bounded(tints, self.tint) if self.tint else light
        out: Tensor = torch.logit(x.float(), 0.01) + enlarged(added, x)
        return out


def _bounded(h: Tensor, bound: float) -> Tensor:
    return bound * torch.tanh(h / bound)


def _doubled(h: Tensor) -> Tensor:
    return F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)


def averaged(x: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` -> those of a half, a third, ... of the sides, so that the shorter has 64 at most."""
    shrink = math.ceil(min(x.shape[2:]) / 64)
    return x if shrink == 1 else F.avg_pool2d(x, shrink)


def enlarged(added: Tensor, x: Tensor) -> Tensor:
    """What is to be added to averages, for images ``x`` themselves."""
    if added.shape[2:] == x.shape[2:]:
        return added
    return F.interpolate(added, x.shape[2:], mode="bilinear", align_corners=False)


def classifier(kind: str, channels: int, height: int, width: int, outputs: int) -> nn.Module:
    """A classifier ``(B, C, H, W)`` -> ``(B, outputs)`` of one of :data:`KINDS`: frozen ones should err differently."""
    if kind == "blurred":
        blurred = nn.Sequential(nn.AdaptiveAvgPool2d(16), nn.Flatten(), nn.LayerNorm(256 * channels))
        return nn.Sequential(blurred, mlp([256 * channels, 256, outputs]))
    if kind == "six":
        return SixConvolutions(channels, min(height, width), outputs)
    if kind == "strided":
        layers: list[nn.Module] = []
        for a, b in pairwise((channels, 32, 64, 128)):
            layers += [nn.Conv2d(a, b, 5, 2, 2), GroupNorm(b // 16, b), nn.LeakyReLU(0.2)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * 128, outputs))
    down, across = (-side % ResidualEncoder.multiple for side in (height, width))
    residual = ResidualEncoder(channels, height + down, width + across, outputs, base=16)
    return nn.Sequential(nn.ReplicationPad2d((0, across, 0, down)), residual)


class Transport(nn.Module):
    """Moves images from their classes' Gaussians to a barycentre, in principal components of their averages.

    Args:
        components: Their number, k.
        shape: (C, H, W) of the averages.
        classes: J.
    """

    basis: Tensor
    means: Tensor
    maps: Tensor
    centres: Tensor

    def __init__(self, components: int, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.register_buffer("basis", torch.zeros(components, math.prod(shape)))
        self.register_buffer("means", torch.zeros(classes, components))
        self.register_buffer("maps", torch.eye(components).repeat(classes, 1, 1))
        self.register_buffer("centres", torch.zeros(classes, components))

    def learn(self, x: NDArray[np.float32], joint: NDArray[np.int64], alike: NDArray[np.bool_], seed: int) -> None:
        """Components, Gaussians and maps.

        Args:
            x: ``(n, C H W)`` averages in [0, 1].
            joint: ``(n,)`` their joint classes.
            alike: ``(J, J)`` between which classes releases shall not tell.
            seed: Seeds the components.
        """
        pca = PCA(len(self.basis), svd_solver="randomized", random_state=seed).fit(x)
        components = x @ pca.components_.T
        self.basis.copy_(torch.from_numpy(pca.components_))
        for group in np.unique(alike, axis=0):
            among = np.flatnonzero(group)
            rows = np.isin(joint, among)
            codes = np.searchsorted(among, joint[rows])
            centre, means, maps = transport_maps(components[rows], codes, len(among), _SHRINKAGE)
            for place, value in ((self.centres, centre), (self.means, means), (self.maps, maps)):
                place[among] = torch.from_numpy(value).to(place)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` of joint classes ``(B,)`` -> moved ones, in [0, 1]."""
        seen = averaged(x)
        with torch.autocast(x.device.type, enabled=False):
            components = seen.float().flatten(1) @ self.basis.T
            # By the maps of all classes, which are few, in place of a map for each image: much less to hold.
            moved = torch.einsum("bjk,jkl->bjl", components[:, None] - self.means, self.maps) + self.centres
            moved = (F.one_hot(z, len(self.means))[:, None].float() @ moved)[:, 0]
            added = ((moved - components) @ self.basis).reshape(seen.shape)
        return (x + enlarged(added, x)).clamp(0, 1)


class Protector(nn.Module):
    """What ships: auto-encoder, prototypes (and their Gaussians), and the classifier that says an image's class."""

    prototypes: Tensor
    partner: Tensor
    choices: Tensor

    def __init__(self, config: Config, contract: Contract, prototypes: Tensor) -> None:
        super().__init__()
        channels, height, width = averaged(prototypes).shape[1:]
        self.strength = config.strength
        self.autoencoder = (
            AutoEncoder(channels) if config.network == "paper" else Retoucher(channels, config.amplitude, config.tint)
        )
        self.classifier = classifier(config.kinds[0], channels, height, width, len(prototypes))
        self.transport = (
            Transport(config.transport, (channels, height, width), len(prototypes)) if config.transport else None
        )
        self.register_buffer("prototypes", prototypes)  # (J, C, H, W), one of each joint class
        private = list(contract.classes)
        self.register_buffer("partner", partners(config.prototype, changed(config, private)))
        # What a release may change (A,): one choice, or all of them, by the number that their bits make.
        every = product((False, True), repeat=len(private))
        self.changes = list(every) if config.choose else [tuple(changed(config, private))]
        mixtures = torch.stack([partners(config.prototype, some) for some in self.changes])
        self.register_buffer("choices", mixtures if config.choose else mixtures[:0], persistent=False)

    def redrawn(self, x: Tensor, weights: Tensor) -> Tensor:
        """Logits of images ``(B, C, H, W)`` redrawn beside mixtures ``(B, J)`` of prototypes."""
        out: Tensor = self.autoencoder(x, torch.einsum("bj,jchw->bchw", weights, self.prototypes))
        return out

    def guessed(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        """The likeliest joint class ``(B,)`` of images ``(B, C, H, W)``, of those ``allowed`` ``(B, J)``."""
        logits: Tensor = self.classifier(averaged(x)).float()
        return (logits if allowed is None else logits.masked_fill(~allowed, float("-inf"))).argmax(1)

    def moved(self, x: Tensor, classes: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` of joint classes ``(B,)``, moved to where classes are alike, or as they are."""
        return x if self.transport is None else self.transport(x, classes)

    def chosen(self, hide: Tensor, classes: Tensor) -> Tensor:
        """Mixtures ``(B, J)`` for images of joint classes ``(B,)`` in which attributes ``(B, A)`` are hidden."""
        place = 2 ** torch.arange(hide.shape[1] - 1, -1, -1, device=hide.device)
        return self.choices[(hide * place).sum(1), classes]

    def forward(self, x: Tensor, allowed: Tensor | None = None, hide: Tensor | None = None) -> Tensor:
        """``(B, C, H, W)`` in [0, 1] -> releases of that shape.

        Args:
            x: Images.
            allowed: Mask ``(B, J)`` of the joint classes that may be.
            hide: Mask ``(B, A)`` of the attributes to hide, where this can be chosen.
        """
        classes = self.guessed(x, allowed)
        weights = self.partner[classes] if hide is None else self.chosen(hide, classes)
        return x + self.strength * (self.redrawn(self.moved(x, classes), weights).float().sigmoid() - x)


def changed(config: Config, private: Sequence[str]) -> list[bool]:
    """Which attributes ``(A,)`` releases change."""
    names = listed(config.change) or list(private)
    if unknown := [name for name in names if name not in private]:
        raise InputError(f"change: must be private attributes ({', '.join(private)}), got {unknown[0]!r}")
    return [name in names for name in private]


def partners(prototype: Literal["opposite", "neutral", "same"], change: Sequence[bool]) -> Tensor:
    """Weights ``(J, J)`` of the prototypes for releases of each joint class of A attributes of two classes each.

    Args:
        prototype: The kind of prototype.
        change: ``(A,)`` which attributes releases change.
    """
    count = 2 ** len(change)
    codes = np.stack(np.unravel_index(np.arange(count), [2] * len(change)), 1)
    own = np.array(change)
    weights = np.eye(count, dtype=np.float32)
    if prototype == "opposite":
        other = np.where(own, 1 - codes, codes)
        weights = weights[np.ravel_multi_index(tuple(other.T), [2] * len(change))]
    elif prototype == "neutral":
        alike = (codes[:, None, ~own] == codes[None][..., ~own]).all(2)
        weights = (alike / alike.sum(1, keepdims=True)).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(weights))


# -- training ---------------------------------------------------------------------------------------------------------

_MOST = 10_000  # images of which components and Gaussians are made
_SHRINKAGE = 0.1  # of covariances of classes; likelihood asks for far more, and then they still tell the class
_GOES_ON = 0.25  # of its peak learning rate: with what a classifier of ``rounds`` learns beside the auto-encoder


def sharpness(x: NDArray[np.uint8], rows: NDArray[np.int64]) -> float:
    """Share of the images' variance over pixels that their mean has, in [0, 1]; little where faces are not aligned.

    Each image is brought to mean 0 and deviation 1 first, so that light does not count.
    """
    total: Any = 0.0
    for part in np.array_split(rows, -(-len(rows) // 512)):
        values = np.asarray(x[part], np.float32).reshape(len(part), -1)
        values -= values.mean(1, keepdims=True)
        total = total + (values / np.maximum(values.std(1, keepdims=True), 1e-3)).sum(0, dtype=np.float64)
    return float(np.square(total / len(rows)).mean())


@dataclass(frozen=True, kw_only=True)
class Portraits:
    """The faces that are learned from.

    Attributes:
        x: uint8 images ``(N, H, W[, 3])``, read a batch at a time.
        rows: ``(n,)`` those to learn from.
        joint: ``(n,)`` joint class of each.
        who: ``(n,)`` person of each.
    """

    x: NDArray[np.uint8]
    rows: NDArray[np.int64]
    joint: NDArray[np.int64]
    who: NDArray[np.int64]


class Training:
    """The players and the schedule.

    Args:
        config: Settings.
        run: Gives updates, stages and precision.
        faces: What is learned from.
        protector: What will ship.
        teacher: What the matcher learns to follow; without one it learns to tell people apart.
        alone: Whether it will do that nobody has two images: views of one then tell it from the others.
    """

    def __init__(
        self, config: Config, run: Run, faces: Portraits, protector: Protector, teacher: Network | None = None,
        *, alone: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.run, self.faces = config, run, faces
        self.teacher = teacher
        self.joint, self.protector = run.tensor(faces.joint), protector
        self.nothing = torch.stack([partners("neutral", some) for some in protector.changes]).to(run.device)
        self.couples = Couples(np.arange(len(faces.rows)), faces.who, faces.joint, alone=alone)
        channels, height, width = averaged(protector.prototypes).shape[1:]
        multiple = ResidualEncoder.multiple
        self.padding = (-height % multiple, -width % multiple)
        with seeded(run.seed, "san", "networks"):
            features = 128 if teacher is None else teacher.width
            matcher = ResidualEncoder(channels, height + self.padding[0], width + self.padding[1], features)
            # Of the other kinds, then of all in turn, one for each round.
            kinds = [config.kinds[i % len(config.kinds)] for i in range(1, len(config.kinds) + config.rounds)]
            others = [classifier(kind, channels, height, width, len(protector.prototypes)) for kind in kinds]
        for module in (protector, matcher, *others):
            run.place(module)
        self.autoencoder = Player(
            "auto-encoder", protector.autoencoder, lr=config.lr, schedule=one_cycle(config.steps), clip=5.0
        )

        def frozen(name: str, module: nn.Module, steps: int) -> Player:
            cycle = one_cycle(steps)
            return Player(
                name, module, lr=config.lr_frozen, optimizer="adamw", weight_decay=0.02,
                schedule=lambda update: cycle(update) if update < steps else _GOES_ON,
            )  # fmt: skip

        self.classifiers = [
            frozen(f"classifier {i + 1}", module, config.steps_classifier)
            for i, module in enumerate([protector.classifier, *others])
        ]
        self.matcher = frozen("matcher", matcher, config.steps_matcher)
        self.players = [*self.classifiers, self.matcher, self.autoencoder]
        self.known = len(config.kinds)  # classifiers that have learned

    def train(self) -> None:
        """The stages, in the order of the file's head."""
        for step in self.run.stage("classifiers", self.config.steps_classifier):
            self.classifier_step(self.classifiers[: self.known], step, released=False)
        for step in self.run.stage("matcher", self.config.steps_matcher):
            self.matcher_step(step)
        parts = self.config.rounds + 1
        for part in range(parts):
            if part:
                for step in self.run.stage(f"classifier {self.known + 1}", self.config.steps_classifier):
                    self.classifier_step([self.classifiers[self.known]], step, released=True)
                self.known += 1
            for step in self.run.stage(f"auto-encoder {part + 1}", self.config.steps // parts):
                self.autoencoder_step(step)

    def drawn(self, step: Step) -> NDArray[np.int64]:
        """Places of a batch: couples of one person, joint classes equally often; this process's share."""
        couples = self.couples.genuine(self.config.batch // 2, step.rng, singles=0.25)
        return self.run.share(couples).reshape(-1)

    def images(self, places: NDArray[np.int64]) -> Tensor:
        x = to_input(self.faces.x[self.faces.rows[places]], "images").to(self.run.device)
        return x.contiguous(memory_format=torch.channels_last)

    def redrawn(self, x: Tensor, weights: Tensor) -> Tensor:
        """Images beside mixtures ``(B, J)`` of prototypes."""
        with self.run.autocast():
            out = self.protector.redrawn(x, weights)
        return out.float().sigmoid()

    def seen(self, x: Tensor, z: Tensor) -> Tensor:
        """Classes ``(B,)`` that x_o is made for: the images' own; with ``rounds`` those that a release guesses."""
        if not self.config.rounds:
            return z
        with torch.no_grad(), self.run.autocast():
            return self.protector.guessed(x)

    def other(self, step: Step, *classes: Tensor) -> list[Tensor]:
        """Mixtures ``(B, J)`` of prototypes beside which images of joint classes ``(B,)`` are released.

        What they change is chosen for each, at random, if that can be chosen; for all ``classes`` the same.

        Returns:
            The mixtures for each of ``classes``; for the last, those of classes between which releases shall not tell.
        """
        if not self.config.choose:
            return [*(self.protector.partner[z] for z in classes), self.nothing[0, classes[-1]]]
        drawn = step.rng.integers(1, len(self.protector.choices), (self.config.batch // 2, 2))
        number = self.run.tensor(self.run.share(drawn).reshape(-1))
        return [*(self.protector.choices[number, z] for z in classes), self.nothing[number, classes[-1]]]

    def features(self, x: Tensor) -> Tensor:
        """The matcher's unit features ``(B, d)``."""
        x = averaged(x)
        with self.run.autocast():
            out: Tensor = self.matcher.module(F.pad(x, (0, self.padding[1], 0, self.padding[0]), mode="replicate"))
        return F.normalize(out.float(), dim=1)

    def said(self, classifier: Player, x: Tensor) -> Tensor:
        with self.run.autocast():
            out: Tensor = classifier.module(averaged(x))
        return out.float()

    def classifier_step(self, learners: Sequence[Player], step: Step, *, released: bool) -> None:
        """On views of images, or of what is released as it is now."""
        places = self.drawn(step)
        x, z = self.images(places), self.joint[self.run.tensor(places)]
        if released:
            seen = self.seen(x, z)
            with torch.no_grad():
                x = self.redrawn(self.protector.moved(x, seen), self.other(step, seen)[0])
        self.learn(learners, augment(x, step.uniform).contiguous(memory_format=torch.channels_last), z)

    def learn(self, learners: Sequence[Player], x: Tensor, z: Tensor) -> None:
        """A step of classifiers: cross-entropy, each joint class counting the same."""
        weights = balanced_weights(torch.bincount(self.run.gather(z), minlength=len(self.protector.prototypes)))
        for learner in learners:
            self.run.update(learner, cross_entropy(self.said(learner, x), z, weights))

    def matcher_step(self, step: Step) -> None:
        """Supervised contrastive loss of the people; with a teacher, 1 - cosine to its features."""
        places = self.drawn(step)
        x = augment(self.images(places), step.uniform).contiguous(memory_format=torch.channels_last)
        if self.teacher is not None:
            pixels = to_pixels(x.cpu().numpy(), self.faces.x.shape[1:])
            truth = self.run.tensor(self.teacher(pixels))
            self.run.update(self.matcher, 1 - F.cosine_similarity(self.features(x), truth).mean())
            return
        who = self.run.gather(self.run.tensor(self.faces.who[places]))
        self.run.update(self.matcher, supervised_contrastive(self.run.gather(self.features(x)), who, 0.1))

    def autoencoder_step(self, step: Step) -> None:
        """J_D + weigh_class J_G + weigh_match J_M, and what likeness is missing; against the frozen networks."""
        config = self.config
        places = self.drawn(step)
        x, z = self.images(places), self.joint[self.run.tensor(places)]
        seen = self.seen(x, z)
        beside, target, nothing = self.other(step, seen, z)  # of the neutral prototype: mixtures of classes
        own = F.one_hot(z, len(self.protector.partner)).float()
        same, other = self.redrawn(x, own), self.redrawn(self.protector.moved(x, seen), beside)
        pixels = F.binary_cross_entropy(same, x) if config.pixels == "entropy" else (same - x).abs().mean()
        views = [augment(averaged(drawn), step.uniform) if config.views else drawn for drawn in (same, other)]
        views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        class_loss = torch.zeros((), device=x.device)
        for i, known in enumerate(self.classifiers[: self.known]):
            if i < len(config.kinds):
                class_loss = class_loss + cross_entropy(self.said(known, views[0]), z) / len(config.kinds)
                class_loss = class_loss + F.cross_entropy(self.said(known, views[1]), target) / len(config.kinds)
            else:  # it learned from releases
                class_loss = class_loss + F.cross_entropy(self.said(known, views[1]), nothing)
        with torch.no_grad():
            truth = self.features(x)
        errors = [(self.features(drawn) - truth).square().sum(1).mean() for drawn in (same, other)]
        match = errors[0] if config.match == "same" else (errors[0] + errors[1]) / 2
        self.run.log("pixels", pixels)
        self.run.log("class", class_loss)
        self.run.log("match", match)
        loss = pixels + config.weigh_class * class_loss + config.weigh_match * match
        if config.likeness:
            alike = torch.stack([structural_similarity(drawn, x) for drawn in (same, other)])
            self.run.log("likeness", alike.mean())
            loss = loss + config.weigh_likeness * F.relu(config.likeness - alike).mean()
        self.run.update(self.autoencoder, loss)
        if self.known > len(config.kinds):
            self.learn(self.classifiers[len(config.kinds) : self.known], views[1].detach(), z)


def train(config: Config, task: Task) -> Fitted:
    """Learn to redraw aligned faces so that they match and tell another class.

    Where the pack does not say who is seen, each image counts as a person, and views of it teach the matcher to tell it
    from others.

    Raises:
        InputError: Also where faces are not aligned, or for a matcher's file that does not serve.
    """
    _check(config, task)
    pack, private, run = task.pack, task.private, task.run
    file = OnnxNetwork(config.matcher, threads=torch.get_num_threads()) if config.matcher else None
    teacher = None if file is None else laid_before(file, pack)
    rows = pack.rows("protect", known=tuple(private))
    require_classes(pack, rows, private)
    codes = [pack.label(name)[rows] for name in private]
    joint = np.ravel_multi_index(codes, [2] * len(private)).astype(np.int64)
    shape = tuple(pack.x.shape[1:])
    contract = Contract(
        kind="images",
        shape=shape,
        k=math.prod(shape),
        image=shape,
        **pack.framing,
        classes={name: tuple(pack.classes[name]) for name in private},
        asks=True,
        chooses=config.choose,
    )
    if config.transport:
        some = np.random.default_rng(run.seed).permutation(len(rows))[:_MOST]
        means = averages(pack.x, rows[some])
        config = replace(config, transport=min(config.transport, len(some) // 4, means.shape[1]))
    with seeded(run.seed, "san", "protector"):
        protector = Protector(config, contract, prototypes(pack.x, rows, joint, 2 ** len(private)))
    if protector.transport is not None:
        alike = partners("neutral", protector.changes[0]).numpy() > 0
        protector.transport.learn(means, joint[some], alike, run.seed)
    faces = Portraits(x=pack.x, rows=rows, joint=joint, who=people(pack, rows))
    training = Training(config, run, faces, protector, teacher, alone=not pack.knows_people)
    run.enter(*training.players)
    training.train()
    made = {} if file is None else {"matcher": file.digest}
    return Fitted(encoder=protector, contract=contract, made=made, config=config)


def _check(config: Config, task: Task) -> None:
    """Raises InputError where faces, labels or the use do not fit."""
    pack, private = task.pack, task.private
    refuse_people("san", private)
    pack.require(private=private, utility=pack.known_use("identity"), among=["protect"])
    refuse_many("san", pack, private)
    problems = [
        f"label {name!r}: the opposite needs two classes, got {len(pack.classes[name])}"
        for name in private
        if len(pack.classes[name]) != 2
    ]
    if task.utility != "identity":
        problems.append(f"utility: what this method keeps is identity, got {task.utility!r}")
    height, width = pack.x.shape[1:3]
    if height % 4 or width % 4 or min(height, width) < 12:
        problems.append(f"san: height and width must be 12 or more and divisible by 4, got {height}x{width}")
    if not problems:
        detail = sharpness(pack.x, pack.rows("protect"))
        if detail < config.aligned:
            problems.append(
                f"san: faces must be aligned, so that the average face has at least {config.aligned:g} of an image's "
                f"variance, got {detail:.3f}; align them (pack them with landmarks of the eyes), or lower aligned"
            )
    changed(config, private)
    if problems:
        raise InputError("; ".join(problems))


def prototypes(x: NDArray[np.uint8], rows: NDArray[np.int64], joint: NDArray[np.int64], count: int) -> Tensor:
    """The average face ``(J, C, H, W)`` in [0, 1] of each joint class; a class without images has that of all.

    Args:
        x: uint8 images ``(N, H, W[, 3])``.
        rows: ``(n,)`` those to average.
        joint: ``(n,)`` their joint classes.
        count: J.
    """
    sums, counts = np.zeros((count, *x.shape[1:])), np.bincount(joint, minlength=count)
    for part in np.array_split(np.arange(len(rows)), -(-len(rows) // 512)):
        np.add.at(sums, joint[part], x[rows[part]])
    shape = (-1, *(1 for _ in x.shape[1:]))
    every = sums.sum(0) / len(rows)
    means = np.where(counts.reshape(shape) > 0, sums / np.maximum(counts, 1).reshape(shape), every)
    t = torch.from_numpy((means / 255).astype(np.float32))
    return t[:, None] if t.dim() == 3 else t.permute(0, 3, 1, 2).contiguous()


def averages(x: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """What is seen of images ``(N, H, W[, 3])``, as float32 ``(n, C H W)`` in [0, 1]."""
    parts = np.array_split(rows, -(-len(rows) // 512))
    return np.concatenate([averaged(to_input(x[part], "images")).flatten(1).numpy() for part in parts])


def build(config: Config, contract: Contract) -> Protector:
    """The protector of a release, without its weights."""
    channels = 3 if len(contract.shape) == 3 else 1
    return Protector(config, contract, torch.zeros(2 ** len(contract.classes), channels, *contract.shape[:2]))


ALGORITHM = Algorithm(config=Config, presets=PRESETS, train=train, build=build, unit=2)
