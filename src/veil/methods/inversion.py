"""Representations that resist model inversion: Xiao, Tsai, Sohn, Chandraker and Yang, "Adversarial Learning of
Privacy-Preserving and Task-Oriented Representations", AAAI 2020.

A ResNet is cut in two: the encoder E is the client's; the rest f, with two fully connected layers, the server's. E and
f learn labels; a decoder D, which plays the attacker, learns to redraw x from r = E(x), and E learns that it cannot. No
private attribute is named, no label of one is needed.

    D minimises        pixel error + lambda1 perceptual distance + lambda2 GAN         on public data    (Eq. 5, 7, 8)
    E and f minimise   utility - mu1 min(pixel error, 1) - mu2 min(perceptual distance, 1)    on private    (Eq. 6, 9)

    stage 1   E and f alone
    stage 2   D against E as it is
    stage 3   D, then E and f, in turn

Where this file departs from the text, or the text leaves a choice open:

- Errors that E maximises are bounded. Each image's is divided by what the mean image gets from it, and counts up to 1:
  worse than the mean image, which an attacker draws from nothing, no redrawing can hide. Weights mu1 and mu2 are
  relative to that, not to the paper's units. ``bounded=false`` (preset ``paper``) takes min away; errors are bounded
  then by what images in [0, 1] and unit features allow (:func:`veil.nn.losses.perceptual_distance`).
- The private and the public data, X1 and X2, are the people of ``protect`` in two parts: ``attack`` is the audit's.
  Without an adversary all of them are private data.
- ``capacity`` (ours, and the default in place of the adversary): r is centred, has length 1, gets keyed Gaussian noise,
  and length 1 again, in training and in releases. k values with noise of norm s relative to theirs carry at most
  (k / 2) log2(1 + 1 / s^2) bits (Shannon 1948: k Gaussian channels of that power), whatever decoder reads them; s is
  what makes that ``capacity``. E learns to spend the bits on the labels.
- Maps are normalised by group; weights of a file keep its statistics (:class:`veil.nn.torchvision.ResNet`).
- Perceptual distances come from VGG-16 where ``perceptual_weights`` names a file of it, else from a network that the
  run trains on the public part without labels (:mod:`veil.engine.perceptual`).
- D's GAN term is the non-saturating one (Eq. 2, 3).

One file over 500 lines: two players, four stages and the cut of a network make one algorithm.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.data.pack import Pack
from veil.engine import Player, Run, Step, perceptual
from veil.engine.run import one_cycle, seeded
from veil.errors import InputError
from veil.methods.labels import people
from veil.methods.protocol import Algorithm, Fitted, Task
from veil.methods.settings import Count, Rate, Steps, Weight, at_least, checked, listed, one_of, within
from veil.nn.augment import relight, warp
from veil.nn.losses import cross_entropy, perceptual_distance, pixel_error
from veil.nn.nets import ImageDiscriminator, MirrorDecoder, map_shape, to_input
from veil.nn.torchvision import ResNet, load_torchvision
from veil.release import Release
from veil.release.contract import Contract
from veil.release.draws import normalised_noise
from veil.release.folder import WEIGHTS


@dataclass(frozen=True, kw_only=True)
@checked("inversion")
class Config:
    """Settings of representations that resist inversion."""

    depth: Annotated[int, one_of(18, 50)] = 18
    """Layers of the ResNet: 18 or 50."""
    cut: Literal["conv1", "layer1", "layer2", "layer3", "pool", "fc"] = "fc"
    """Where the network is cut; conv1 is behind the first pooling, pool behind the last."""
    features: Count = 128
    """Width of fc."""
    norm: Literal["group", "batch"] = "group"
    """Normalisation: by group, or by the stored statistics of a weight file."""
    weights: str = ""
    """File of torchvision's weights to begin with, needs norm=batch, its fc is left out where it has another width; or
    folder of a release of this method without noise, of the same network and labels, cut anywhere."""
    perceptual_weights: str = ""
    """File of torchvision's VGG-16 weights, for perceptual distances; a network of this run's own if empty."""
    labels: str = ""
    """Labels to keep beside the utility, separated by commas."""
    lambda1: Weight = 1.0
    """Weight of the perceptual distance for the decoder, >= 0."""
    lambda2: Weight = 0.0
    """Weight of the GAN term for the decoder, >= 0."""
    mu1: Weight = 1.0
    """Weight of the pixel error that the encoder maximises, relative to the mean image's, >= 0."""
    mu2: Weight = 1.0
    """Weight of the perceptual distance that the encoder maximises, relative to the mean image's, >= 0."""
    bounded: bool = True
    """Count errors up to the mean image's only."""
    capacity: Weight = 0.0
    """Bits that a representation carries at most, by keyed noise, >= 0; 0 for no noise, and no bound."""
    public: Annotated[float, within("(0, 1)")] = 0.25
    """Share of the people of `protect` who stand for public data, in (0, 1)."""
    ahead: Count = 2
    """Steps of the decoder for each of the encoder, >= 1."""
    augment: bool = True
    """Random views for the encoder: mirrored, turned, scaled, shifted and in other light."""
    batch: Annotated[int, at_least(2)] = 64
    """Images a step."""
    steps_alone: Steps = 500
    """Steps of encoder and classifier alone."""
    steps_perceptual: Count = 150
    """Steps of the network of perceptual distances, where the run trains one."""
    steps_decoder: Steps = 200
    """Steps of the decoder against the encoder as it then is."""
    steps_joint: Steps = 400
    """Steps of encoder and classifier against the decoder."""
    lr: Rate = 1e-3
    """Peak learning rate of encoder and classifier."""
    lr_decoder: Rate = 1e-3
    """Learning rate of the decoder."""
    lr_discriminator: Rate = 2e-4
    """Learning rate of the decoder's discriminator."""
    renew: bool = False
    """Turn releases by an orthogonal matrix of the key: those of another key do not match them."""

    def problems(self) -> Iterator[str]:
        """What does not fit together."""
        path = Path(self.weights)
        if (path.is_file() or (path.suffix and not path.is_dir())) and self.norm != "batch":
            yield f"norm: a weight file holds statistics of batches, so it must be batch, got {self.norm!r}"

    @property
    def adversarial(self) -> bool:
        """Whether the encoder hears of the decoder at all."""
        return bool(self.mu1 or self.mu2) and self.steps_joint > 0


_PAPER = Config(
    depth=50, lambda2=0.01, mu1=1.0, mu2=0.0, bounded=False, features=1000, ahead=1, batch=128, steps_alone=5000,
    steps_decoder=2000, steps_joint=10_000,
)  # fmt: skip
PRESETS: dict[str, Config] = {
    "default": Config(capacity=64.0, mu1=0, mu2=0, steps_alone=2000),
    "adversarial": Config(),
    "unprotected": Config(mu1=0, mu2=0, steps_alone=1000),
    "paper": _PAPER,
}
"""``default`` bounds the bits, ``adversarial`` is the paper's idea at a size for two cores, ``unprotected`` neither."""


_RAMP = 0.5  # share of stage 1 over which the noise rises to its norm


# -- networks ---------------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """A ResNet up to its cut; the map is flattened, and centred and of length 1 where noise is to come.

    Behind a ReLU all values are positive: most of the length is the same for every image, and would say nothing beside
    the noise. So a centre is taken away, which is learned.
    """

    def __init__(self, config: Config, image: Sequence[int]) -> None:
        super().__init__()
        self.network = ResNet(config.depth, config.features, config.norm, ResNet.stages[: _place(config)])
        with torch.no_grad():
            self.shape = tuple(self.network(torch.zeros(1, *image)).shape[1:])
        self.centre = nn.Parameter(torch.zeros(math.prod(self.shape))) if config.capacity > 0 else None

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` in [0, 1] -> ``(B, k)``."""
        r = self.network(x).float().flatten(1)
        return r if self.centre is None else F.normalize(r - self.centre, dim=1)


class Classifier(nn.Module):
    """f: the rest of the ResNet and two fully connected layers."""

    def __init__(self, config: Config, shape: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.unflatten = Unflatten(shape, unit=config.capacity > 0)
        self.network = ResNet(config.depth, config.features, config.norm, ResNet.stages[_place(config) :])
        self.dense = nn.Sequential(nn.ReLU(), nn.Linear(config.features, 256), nn.ReLU(), nn.Linear(256, outputs))

    def forward(self, r: Tensor) -> Tensor:
        """``(B, k)`` -> logits ``(B, outputs)`` of all labels, one after the other."""
        out: Tensor = self.dense(self.network(self.unflatten(r)))
        return out.float()


class Unflatten(nn.Module):
    """``(B, k)`` back to its shape; of length 1, to values of about 1."""

    def __init__(self, shape: Sequence[int], *, unit: bool) -> None:
        super().__init__()
        self.shape, self.scale = tuple(shape), math.sqrt(math.prod(shape)) if unit else 1.0

    def forward(self, r: Tensor) -> Tensor:
        return self.scale * r.view(len(r), *self.shape)


def noise_of(capacity: float, k: int) -> float:
    """Norm of noise, relative to that of k values, beside which they carry so many bits at most; 0 for capacity 0."""
    if capacity > 64 * k:
        raise InputError(f"capacity: must be at most 64 bits for each of {k:,} values, got {capacity:g}")
    return math.expm1(2 * capacity / k * math.log(2)) ** -0.5 if capacity else 0.0


def _place(config: Config) -> int:
    """How many stages are the encoder's."""
    return ResNet.stages.index(config.cut) + 1


# -- training ---------------------------------------------------------------------------------------------------------


class Training:
    """The players and the schedule.

    Args:
        config: Settings.
        run: Gives updates, stages and precision.
        x: uint8 images ``(N, H, W[, 3])``, read a batch at a time.
        private: Rows ``(n,)`` that encoder and classifier learn from, X1.
        public: Rows that the decoder learns from, X2.
        labels: Codes ``(N,)`` of each label to keep, -1 for unknown.
        keeps: Name and classes of each.
    """

    def __init__(
        self,
        config: Config,
        run: Run,
        x: NDArray[np.uint8],
        private: NDArray[np.int64],
        public: NDArray[np.int64],
        labels: Sequence[NDArray[np.int64]],
        keeps: Mapping[str, Sequence[str]],
    ) -> None:
        self.config, self.run, self.x = config, run, x
        self.sizes = [len(names) for names in keeps.values()]
        self.private, self.public, self.labels = private, public, labels
        image = map_shape(x.shape[1:])
        with seeded(run.seed, "inversion", "networks"):
            self.encoder = Encoder(config, image)
            self.shape = self.encoder.shape
            self.noise = noise_of(config.capacity, math.prod(self.shape))
            self.classifier = Classifier(config, self.shape, sum(self.sizes))
            decoder = nn.Sequential(Unflatten(self.shape, unit=config.capacity > 0), MirrorDecoder(self.shape, *image))
            discriminator = ImageDiscriminator(*image)
        self.made: dict[str, Any] = {}
        self.before: Release | None = None
        if config.weights and Path(config.weights).is_dir():
            self.before = begin(config, self.encoder, self.classifier, keeps)
            self.made["weights"] = hashlib.sha256((Path(config.weights) / WEIGHTS).read_bytes()).hexdigest()
        elif config.weights:
            for half in (self.encoder.network, self.classifier.network):
                self.made["weights"] = load_torchvision(half, Path(config.weights), spared=("fc.",))
        for module in (self.encoder, self.classifier, decoder, discriminator):
            run.place(module)
        if self.encoder.centre is not None:
            self.encoder.centre.data = self.centre()
        total = config.steps_alone + (config.steps_joint if config.adversarial else 0)
        self.protector = Player(
            "protector", nn.ModuleList([self.encoder, self.classifier]), lr=config.lr, optimizer="adamw",
            weight_decay=0.05, schedule=one_cycle(total), clip=5.0,
        )  # fmt: skip
        self.decoder = Player("decoder", decoder, lr=config.lr_decoder, clip=5.0)
        self.discriminator = Player("discriminator", discriminator, lr=config.lr_discriminator)
        self.players = [self.protector]
        self.looks: nn.Module | None = None
        self.learner: Player | None = None
        if config.adversarial:
            self.players.append(self.decoder)
            self.players += [self.discriminator] if config.lambda2 else []
            if config.perceptual_weights:
                self.looks, self.made["perceptual"] = perceptual.from_file(Path(config.perceptual_weights))
                run.place(self.looks)
            elif config.lambda1 or config.mu2:
                self.learner = perceptual.player(run, image[0], config.steps_perceptual)
                self.players.append(self.learner)
                self.made["perceptual"] = "a network of this run's own"

    def centre(self) -> Tensor:
        """What the encoder as it is gives on average ``(k,)``, of private images."""
        some = np.sort(np.random.default_rng(self.run.seed).permutation(self.private)[:512])
        parts = [self.images(part) for part in np.array_split(some, -(-len(some) // 64))]
        with torch.no_grad(), self.run.autocast():
            total = sum(self.encoder.network(part).float().flatten(1).sum(0) for part in parts)
        mean: Tensor = total / len(some)
        return mean

    def train(self) -> None:
        """The stages; without an adversary the first alone."""
        config = self.config
        for step in self.run.stage("utility", config.steps_alone):
            x, labels = self.batch(step)
            noise = self.noise * min(step.progress / _RAMP, 1.0)
            self.run.update(self.protector, self.utility_loss(self.represented(x, step, noise), labels))
        if not config.adversarial:
            return
        if self.learner is not None:
            self.looks = perceptual.learn(self.run, self.learner, self.x, self.public, config.steps_perceptual)
        some = np.random.default_rng(self.run.seed).permutation(self.public)[:2000]
        self.mean = to_input(self.x[some], "images").mean(0, keepdim=True).to(self.run.device)
        for step in self.run.stage("decoder", config.steps_decoder):
            self.decoder_step(step)
        for step in self.run.stage("joint", config.steps_joint):
            for _ in range(config.ahead):
                self.decoder_step(step)
            x, labels = self.batch(step)
            self.run.update(self.protector, self.protector_loss(x, labels, step))

    def batch(self, step: Step) -> tuple[Tensor, list[Tensor]]:
        """Private images ``(b, C, H, W)``, in a random view, and their labels ``(b,)``."""
        rows = self.run.share(step.rng.choice(self.private, self.config.batch))
        x = self.images(rows)
        if self.config.augment:
            x = warp(x, step.uniform, rotation=0.1, scale=0.1, shift=0.06, mirror=True)
            x = relight(x, step.uniform).clamp(0, 1)
        return x.contiguous(memory_format=torch.channels_last), [self.run.tensor(codes[rows]) for codes in self.labels]

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        x = to_input(self.x[rows], "images").to(self.run.device)
        return x.contiguous(memory_format=torch.channels_last)

    def represented(self, x: Tensor, step: Step, noise: float | None = None) -> Tensor:
        """r ``(b, k)``, with its noise, or with another."""
        noise = self.noise if noise is None else noise
        with self.run.autocast():
            r: Tensor = self.encoder(x)
        return normalised_noise(r, step.normal(*r.shape).to(r.device), noise) if noise else r

    def utility_loss(self, r: Tensor, labels: Sequence[Tensor]) -> Tensor:
        """Eq. 6: cross-entropy, mean over the labels."""
        with self.run.autocast():
            out: Tensor = self.classifier(r)
        each = torch.split(out.float(), self.sizes, dim=1)
        return torch.stack([cross_entropy(o, u) for o, u in zip(each, labels, strict=True)]).mean()

    def redrawn(self, r: Tensor) -> Tensor:
        """x^ ``(b, C, H, W)`` in [0, 1]."""
        with self.run.autocast():
            out: Tensor = self.decoder.module(r)
        return out.float().sigmoid()

    def maps(self, x: Tensor) -> list[Tensor]:
        assert self.looks is not None
        with self.run.autocast():
            maps: list[Tensor] = self.looks.maps(x)  # type: ignore[operator]
        return maps

    def decoder_step(self, step: Step) -> None:
        """Eq. 5 and 7, on public images; before it the discriminator learns (Eq. 3)."""
        config = self.config
        x = self.images(self.run.share(step.rng.choice(self.public, config.batch)))
        with torch.no_grad():
            r = self.represented(x, step)
        drawn = self.redrawn(r)
        loss = pixel_error(drawn, x).mean()
        if config.lambda1:
            with torch.no_grad():
                real = self.maps(x)
            loss = loss + config.lambda1 * perceptual_distance(self.maps(drawn), real).mean()
        if config.lambda2:
            judge = self.discriminator.module
            real_or_drawn = F.softplus(-judge(x)).mean() + F.softplus(judge(drawn.detach())).mean()
            self.run.update(self.discriminator, real_or_drawn / 2)
            loss = loss + config.lambda2 * F.softplus(-judge(drawn)).mean()
        self.run.update(self.decoder, loss)

    def protector_loss(self, x: Tensor, labels: Sequence[Tensor], step: Step) -> Tensor:
        """Eq. 9, against the decoder as it is now; 1 stands for what the mean image gets."""
        config = self.config
        r = self.represented(x, step)
        loss = self.utility_loss(r, labels)
        drawn, mean = self.redrawn(r), self.mean.expand_as(x)
        if config.mu1:
            share = pixel_error(drawn, x) / pixel_error(mean, x).clamp_min(1e-6)
            loss = loss - config.mu1 * self.counted("pixel error", share)
        if config.mu2:
            with torch.no_grad():
                real, known = self.maps(x), self.maps(mean)
            share = perceptual_distance(self.maps(drawn), real) / perceptual_distance(known, real).clamp_min(1e-6)
            loss = loss - config.mu2 * self.counted("perceptual distance", share)
        return loss

    def counted(self, name: str, share: Tensor) -> Tensor:
        """The mean of errors ``(b,)`` relative to the mean image's, each up to 1 where they are bounded."""
        self.run.log(name, share.mean())
        return (share.clamp_max(1.0) if self.config.bounded else share).mean()


def train(config: Config, task: Task) -> Fitted:
    """Learn a representation that keeps labels, the use and ``config.labels``, and is hard to invert.

    No label is hidden: the picture itself is what is private. The release's classifier is f.
    """
    pack, run = task.pack, task.run
    kept = list(dict.fromkeys([task.utility, *listed(config.labels)]))
    if "identity" in kept:
        raise InputError(
            "utility: this method keeps labels, got 'identity'; name a label (--utility LABEL; more with labels=...), "
            f"or use method aia; {pack.labels_there}"
        )
    for name in kept:
        pack.require(private=task.private, utility=name, among=["protect"])
    x1, x2 = _parts(config, pack, run.seed) if config.adversarial else (pack.rows("protect"), np.arange(0))
    keeps = {name: tuple(pack.classes[name]) for name in kept}
    training = Training(config, run, pack.x, x1, x2, [pack.label(name) for name in kept], keeps)
    run.enter(*training.players)
    contract = Contract(
        kind="images",
        shape=tuple(pack.x.shape[1:]),
        k=math.prod(training.shape),
        feature_map=_as_map(training.shape),
        **pack.framing,
        keeps=keeps,
    ).turned(config.renew)
    training.train()
    return Fitted(
        encoder=training.encoder,
        contract=replace(contract, noise=training.noise),
        classifier=training.classifier,
        made={"utility": ", ".join(kept), **training.made},
        upon=training.before,
    )


def recut(release: Release, cut: str) -> Release:
    """The same network, cut elsewhere: what was learned without noise and without an adversary does not depend on it.

    Args:
        release: One of this method.
        cut: A stage of :class:`veil.nn.torchvision.ResNet`.

    Raises:
        InputError: If the release adds noise, heard of a decoder in training, or there is no such cut.
    """
    if release.method != "inversion":
        raise InputError(f"recut: needs a release of method inversion, got one of {release.method!r}")
    config = Config(**release.config)
    if config.capacity or config.adversarial:
        why = "adds noise" if config.capacity else "heard of a decoder in training"
        raise InputError(f"recut: the release must be unprotected, got one that {why}: it belongs to its cut")
    config = replace(config, cut=cut)  # type: ignore[arg-type]  # which says what is wrong with it
    weights = whole(release)
    encoder = Encoder(config, map_shape(release.contract.shape))
    shape = encoder.shape
    classifier = Classifier(config, shape, sum(len(names) for names in release.contract.keeps.values()))
    for half in (encoder, classifier):
        half.load_state_dict({name: weights[name] for name in half.state_dict()})
    contract = replace(release.contract, k=math.prod(shape), feature_map=_as_map(shape)).turned(config.renew)
    return replace(
        release, config=asdict(config), contract=contract, encoder=encoder.eval(), classifier=classifier.eval()
    )


def whole(release: Release) -> dict[str, Tensor]:
    """The weights of both halves of a release's network, which have the same names wherever it is cut."""
    assert release.classifier is not None
    return {**release.encoder.state_dict(), **release.classifier.state_dict()}


def begin(config: Config, encoder: Encoder, classifier: Classifier, keeps: Mapping[str, Sequence[str]]) -> Release:
    """Take over the network of a release, to protect what is there already.

    Args:
        config: Settings; ``weights`` is the folder of the release, which may be cut elsewhere.
        encoder: The new encoder.
        classifier: The new classifier.
        keeps: Name and classes of each label that the classifier tells, in its order.

    Returns:
        That release.

    Raises:
        InputError: If it is of another method, keeps other labels or in another order, adds noise, or is another
            network.
    """
    path = Path(config.weights)
    release = Release.load(path)
    if release.method != "inversion":
        raise InputError(f"weights: {path} must be a release of method inversion, got one of {release.method!r}")
    if list(release.contract.keeps.items()) != list(keeps.items()):
        wanted, kept = (
            ", ".join(f"{k} ({len(v)})" for k, v in each.items()) for each in (keeps, release.contract.keeps)
        )
        raise InputError(f"weights: {path} must keep the labels {wanted}, got {kept}")
    if release.contract.noise:
        raise InputError(f"weights: {path} must add no noise, got noise of norm {release.contract.noise:g}")
    if release.config["norm"] != config.norm:  # its parameters have the same names and shapes
        raise InputError(f"weights: {path} must have norm {config.norm}, got {release.config['norm']}")
    weights = whole(release)
    for half in (encoder, classifier):
        needed = {name: value for name, value in half.state_dict().items() if name != "centre"}  # which noise asks for
        for name, value in needed.items():
            if name not in weights or weights[name].shape != value.shape:
                got = tuple(weights[name].shape) if name in weights else "none"
                raise InputError(f"weights: {name} of {path} must have shape {tuple(value.shape)}, got {got}")
        half.load_state_dict({name: weights[name] for name in needed}, strict=False)
    return release


def _as_map(shape: Sequence[int]) -> tuple[int, int, int] | None:
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else None


def _parts(config: Config, pack: Pack, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of ``protect`` in two parts without a common person: X1, private, and X2, public."""
    rows = pack.rows("protect")
    who = people(pack, rows)
    everyone = np.unique(who)
    count = min(max(round(config.public * len(everyone)), 1), len(everyone) - 1)
    if count < 1:
        raise InputError(
            f"public: split protect must show two people, to stand for private and public data, got {len(everyone)}"
        )
    chosen = np.random.default_rng(seed).permutation(everyone)[:count]
    public = np.isin(who, chosen)
    return rows[~public], rows[public]


def build(config: Config, contract: Contract) -> Encoder:
    """The encoder of a release, without its weights."""
    return Encoder(config, map_shape(contract.shape))


def build_classifier(config: Config, contract: Contract) -> Classifier:
    """The classifier of a release, likewise."""
    outputs = sum(len(names) for names in contract.keeps.values())
    return Classifier(config, contract.feature_map or (contract.k,), outputs)


ALGORITHM = Algorithm(config=Config, presets=PRESETS, train=train, build=build, build_classifier=build_classifier)
