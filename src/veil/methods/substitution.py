"""Substitution: ours, after the protocol of ``mi``. A release is one of K substitutes, drawn with learned chances.

    codes       P(c | x) = softmax(h(x)), c = 1 .. K
    keep        I(c; c'), c and c' the codes of two random views of x: what changes of view do not change
    guide       I(u; c), where a label u to keep is named and ``guide`` > 0, and a reader of u on h's features
    hide        I(z; c) for every private attribute z
    objective   h minimises   -I(c; c') - guide I(u; c) + hide sum_z I(z; c)
    release     the substitute of a code that a keyed hash of x draws from P(. | x): one input has one release

All terms are sums over small tables, in closed form: no adversary is trained, none can be fooled. A release says which
of K codes it is and nothing more, so what any attacker can do with it has a bound: ``veil.auditing.certificate``. That
hiding by substitution outdoes adversarial training against fresh attackers is what PASS found (ICML 2025).

- I(c; c') from the K x K table of a batch is invariant information clustering (Ji, Henriques and Vedaldi, ICCV 2019,
  Eq. 3).
- I(z; c) comes from running averages of P(c | z), all classes counting the same. Its derivative by P(c | x) is
  log p(c | z) / p(c), so that is the price of a code for one of class z. I(u; c) is the batch's.
- A table's own noise adds about (K - 1)(Z - 1) / 2n nats to I(z; c), and to be rid of that the codes would merge into
  one. So each half of the people pays the prices that the other half's table tells: noise that is not in both costs
  nothing, on average, and a leak does.
- Afterwards rare codes are dropped, for each costs some of the certificate.

A substitute is the average of one image each of at least ``people`` people whom ``person`` names, those nearest to the
mean of the code's images; or the code itself, as a vector. A single person's images (``substitutes=single``, or those
of one ``target``) expose that person, so they ask for ``expose``.

One file over 500 lines: its tables, their losses and the choice of substitutes make one algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.data.pack import Pack, flat
from veil.engine import Player, Run, Step
from veil.engine.run import one_cycle, seeded
from veil.errors import InputError
from veil.methods.labels import people
from veil.methods.protocol import Algorithm, Fitted, Task
from veil.methods.settings import Count, Rate, Share, Weight, at_least, checked
from veil.nn.augment import relight, warp
from veil.nn.losses import cross_entropy
from veil.nn.nets import GroupNorm, ResidualEncoder, mlp, to_input
from veil.release.contract import Contract

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
@checked("substitution")
class Config:
    """Settings of substitution."""

    codes: Annotated[int, at_least(2)] = 16
    """Number K of codes to begin with, >= 2; those that hardly occur are dropped at the end."""
    heads: Count = 3
    """Last layers that learn side by side, >= 1; the one of the best objective ships. How codes fall is partly luck."""
    hide: Weight = 20.0
    """Weight of the leak I(z; c), >= 0."""
    guide: Weight = 1.0
    """Weight of the information about the label to keep, >= 0; 0 never looks at it."""
    keep: Weight = 0.1
    """Weight of what two views share, >= 0."""
    spread: Weight = 0.0
    """Weight of the entropy H(c), >= 0: more codes stay in use, at the price of codes that views share less."""
    substitutes: Literal["average", "code", "single"] = "average"
    """What stands for a code: the average of several people's images, the code as a vector, or one real image."""
    people: Annotated[int, at_least(2)] = 10
    """People, at least, in an average, >= 2."""
    person: str = "identity"
    """Label that says who is seen, for averages and for the halves."""
    target: str = ""
    """Class of the first private attribute whose images alone become substitutes; all if empty."""
    expose: bool = False
    """Allow substitutes that show a single person."""
    draw: bool = True
    """Draw the code by the keyed hash; else the likeliest is released, without a key."""
    rare: Share = 0.004
    """Codes of a smaller share of the people to protect are dropped, in [0, 1)."""
    rotation: Weight = 0.17
    """Largest rotation of a view, in radians, >= 0."""
    shear: Weight = 0.0
    """Largest shear of a view, >= 0."""
    scale: Share = 0.12
    """Largest change of size of a view, in [0, 1)."""
    shift: Weight = 0.1
    """Largest shift of a view, in half widths, >= 0."""
    face: bool = True
    """Views are mirrored and change in light, and keep their proportions; else width and height are scaled apart."""
    jitter: Weight = 0.3
    """Norm of what a view adds to a vector, relative to the deviation of each value, >= 0."""
    memory: Share = 0.93
    """Share of the running averages that each step keeps, in [0, 1)."""
    batch: Count = 384
    """Images, or vectors, a step."""
    steps: Count = 300
    """Steps."""
    lr: Rate = 2e-3
    """Peak learning rate."""
    renew: bool = False
    """Turn releases by an orthogonal matrix of the key: those of another key do not match them."""

    def problems(self) -> Iterator[str]:
        """What shows a person without leave."""
        if (self.substitutes == "single" or self.target) and not self.expose:
            yield (
                "substitutes: single images, or those of one target, show a real person to everybody; set expose=true "
                "to allow that, or release averages"
            )


PRESETS: dict[str, Config] = {
    "default": Config(),
    "unguided": Config(hide=4.0, guide=0.0, keep=1.0),
    "handwriting": Config(
        codes=40,
        heads=5,
        hide=2.0,
        guide=0.0,
        keep=1.0,
        person="writer",
        rotation=0.3,
        shear=0.4,
        scale=0.2,
        shift=0.12,
        face=False,
        batch=500,
        steps=450,
    ),
}
"""``unguided`` and ``handwriting`` never look at a label to keep; the former is for faces too."""

_SHRINK = 0.2  # weight of independence in the running averages, so that cells of next to nothing have no wild prices
_RAMP = (0.2, 0.45)  # shares of the steps between which the weight of the leak rises: codes must form first
_SMALL = 32  # images below this side get a plain convolutional network


# -- networks ---------------------------------------------------------------------------------------------------------


class CodeEncoder(nn.Module):
    """An image or vector to log P(c | x), and the substitutes ``(K, ...)``: uint8 images or float32 vectors.

    While it learns it has several heads.
    """

    substitutes: Tensor

    def __init__(self, shape: Sequence[int], kind: str, codes: int, substitutes: Tensor, heads: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("substitutes", substitutes)
        self.multiple = 1
        channels = 3 if len(shape) == 3 else 1
        if kind == "vectors":
            self.body: nn.Module = mlp([shape[0], 256, 256])
            width = 256
        elif min(shape[:2]) >= _SMALL:
            self.multiple, width = ResidualEncoder.multiple, 128
            height, breadth = (side + -side % self.multiple for side in shape[:2])
            self.body = ResidualEncoder(channels, height, breadth, width, base=16)
        else:
            layers: list[nn.Module] = []
            for a, b in ((channels, 32), (32, 64), (64, 128)):
                layers += [
                    nn.Conv2d(a, b, 3, 1, 1),
                    GroupNorm(b // 8, b),
                    nn.ReLU(),
                    nn.MaxPool2d(2, ceil_mode=True),
                ]
            height, breadth = (-(-side // 4) for side in shape[:2])
            width = 128
            self.body = nn.Sequential(*layers[:-1], nn.Flatten(), nn.Linear(128 * height * breadth, width))
        self.head = nn.Linear(width, heads * codes)

    def features(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` in [0, 1], or ``(B, d)`` -> ``(B, width)``."""
        if self.multiple > 1:
            height, breadth = (-side % self.multiple for side in x.shape[2:])
            x = F.pad(x, (0, breadth, 0, height), mode="replicate") if height or breadth else x
        return F.relu(self.body(x))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` in [0, 1], or ``(B, d)`` -> ``(B, K)``; ``(B, heads, K)`` of several heads."""
        return self.log_p(self.features(x))

    def log_p(self, features: Tensor) -> Tensor:
        """log P(c | x) of features ``(B, width)``."""
        logits: Tensor = self.head(features).float()
        return F.log_softmax(logits.view(len(logits), self.heads, -1) if self.heads > 1 else logits, dim=-1)

    def keep(self, head: int, codes: Tensor) -> None:
        """Drop all logits but some codes' of one head."""
        rows = codes + head * (self.head.out_features // self.heads)
        smaller = nn.Linear(self.head.in_features, len(rows))
        smaller.load_state_dict({name: value[rows] for name, value in self.head.state_dict().items()})
        self.head, self.heads = smaller, 1


# -- information, in closed form --------------------------------------------------------------------------------------


def information(joint: Tensor) -> Tensor:
    """I = sum p(a, b) log p(a, b) / (p(a) p(b)) of tables of non-negative weights ``(..., A, B)``, in nats."""
    p = joint / joint.sum((-2, -1), keepdim=True)
    tiny = torch.finfo(p.dtype).tiny
    independent = p.sum(-1, keepdim=True) * p.sum(-2, keepdim=True)
    return (p * ((p + tiny).log() - (independent + tiny).log())).sum((-2, -1))


def shared(p: Tensor, q: Tensor) -> Tensor:
    """I(c; c') ``(H,)`` of the codes of two views, from P(c | view), both ``(B, H, K)`` for H heads (Ji et al.)."""
    joint = torch.einsum("nhc,nhd->hcd", p, q)
    return information(joint + joint.transpose(1, 2))


def prices(table: Tensor) -> Tensor:
    """log p(c | z) / p(c) ``(..., Z, K)``, the derivative of I(z; c) by P(c | x), x of class z; classes count the same.

    Args:
        table: ``(..., Z, K)`` non-negative, a row for each class, proportional to P(c | z).
    """
    p = table / table.sum(-1, keepdim=True)
    mean = p.mean(-2, keepdim=True)
    return (((p + _SHRINK * mean) / ((1 + _SHRINK) * mean + torch.finfo(p.dtype).tiny)) + 1e-12).log()


class Averages(nn.Module):
    """Running averages of P(c | z) of each half of the people; no gradient ever changes them."""

    def __init__(self, classes: int, heads: int, codes: int) -> None:
        super().__init__()
        self.classes = classes
        self.rows = nn.Parameter(torch.full((2 * classes, heads, codes), 1 / codes))

    @property
    def table(self) -> Tensor:
        """``(2, H, Z, K)``."""
        return self.rows.detach().view(2, self.classes, *self.rows.shape[1:]).transpose(1, 2)

    def update(self, p: Tensor, label: Tensor, half: Tensor, memory: float) -> None:
        """Take up P(c | x) ``(B, H, K)`` of rows of known label ``(B,)`` and half 0 or 1 ``(B,)``."""
        new = torch.zeros_like(self.rows)
        cell = half * self.classes + label
        new.index_add_(0, cell, p.detach())
        seen = torch.bincount(cell, minlength=len(new))[:, None, None]
        with torch.no_grad():
            self.rows.copy_(
                torch.where(seen > 0, memory * self.rows + (1 - memory) * new / seen.clamp_min(1), self.rows)
            )


class Losses(nn.Module):
    """Running average of every head's loss ``(H,)``; no gradient ever changes it."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(heads))

    def update(self, loss: Tensor, memory: float) -> None:
        with torch.no_grad():
            self.mean.lerp_(loss.detach(), 1 - memory)


# -- training ---------------------------------------------------------------------------------------------------------


def view(x: Tensor, config: Config, step: Step, deviation: Tensor | None) -> Tensor:
    """A random view of images ``(B, C, H, W)``, or of vectors ``(B, d)`` whose values deviate by ``(d,)``."""
    if deviation is not None:
        return x + config.jitter * deviation * step.normal(*x.shape).to(x.device)
    x = warp(
        x, step.uniform, rotation=config.rotation, scale=config.scale, shift=config.shift, shear=config.shear,
        stretch=not config.face, mirror=config.face,
    )  # fmt: skip
    return relight(x, step.uniform) if config.face else x


class Training:
    """The player and the running averages, and one step of them.

    Args:
        config: Settings.
        run: Gives updates, stages and precision.
        encoder: The network.
        private: Codes ``(n,)`` of each private attribute, -1 for unknown.
        sizes: Number of classes of each.
        utility: Codes ``(n,)`` of the label to keep, -1 for unknown; None where none guides.
        classes: Number of its classes.
        half: ``(n,)`` 0 or 1; all rows of one person have the same.
    """

    def __init__(
        self,
        config: Config,
        run: Run,
        encoder: CodeEncoder,
        *,
        private: Sequence[NDArray[np.int64]],
        sizes: Sequence[int],
        utility: NDArray[np.int64] | None,
        classes: int,
        half: NDArray[np.int64],
    ) -> None:
        self.config, self.run, self.network, self.classes = config, run, encoder, classes
        self.private = [run.tensor(codes) for codes in private]
        self.half = run.tensor(half)
        self.averages = [Averages(size, config.heads, config.codes) for size in sizes]
        self.losses = Losses(config.heads)
        for module in (*self.averages, self.losses):
            run.place(module)
        learner: nn.Module = encoder
        self.utility = None if utility is None else run.tensor(utility)
        if utility is not None:
            # Codes of a label form sooner on features that tell it: a last layer of its own, which never ships.
            with seeded(run.seed, "substitution", "reader"):
                self.reader = run.place(nn.Linear(encoder.head.in_features, classes))
            learner = nn.ModuleList([encoder, self.reader])
        self.encoder = Player(
            "encoder", learner, lr=config.lr, optimizer="adamw", weight_decay=0.01, schedule=one_cycle(config.steps)
        )
        tables = [Player(f"averages {i}", a, lr=config.lr) for i, a in enumerate(self.averages)]
        self.players = [self.encoder, *tables, Player("losses", self.losses, lr=config.lr)]

    def step(self, step: Step, inputs: Callable[[NDArray[np.int64]], Tensor], deviation: Tensor | None) -> None:
        """One batch of two views; ``inputs`` gives those of some of the n rows."""
        config = self.config
        everyone = step.rng.permutation(len(self.half))[: self.run.batch(config.batch, len(self.half))]
        mine, rows = self.run.tensor(self.run.share(everyone)), self.run.tensor(everyone)
        x = inputs(self.run.share(everyone))
        views = torch.cat([view(x, config, step, deviation) for _ in range(2)])
        with self.run.autocast():
            features = self.network.features(views)
            log_p = self.network.log_p(features)
        # Every process sees the whole batch's tables; the gradient of its own rows is what it adds.
        p = log_p.exp().view(len(views), config.heads, config.codes)
        first, second = (self.run.gather(part) for part in torch.split(p, len(mine)))
        kept, mean = shared(first, second), (first + second) / 2
        ramp = min(max((step.progress - _RAMP[0]) / (_RAMP[1] - _RAMP[0]), 0.0), 1.0)
        loss = -config.keep * kept - ramp * config.spread * torch.special.entr(mean.mean(0)).sum(1)
        for i, (labels, averages) in enumerate(zip(self.private, self.averages, strict=True)):
            known = labels[rows] >= 0
            leak = self.leak(averages, mean[known], labels[rows][known], self.half[rows][known])
            loss = loss + ramp * config.hide * leak
            self.run.log(f"leak {i + 1}", leak.mean())
        if self.utility is not None:
            known = self.utility[rows] >= 0
            guided = self.guidance(mean[known], self.utility[rows][known])
            with self.run.autocast():
                read = self.reader(features)
            loss = loss - config.guide * guided + config.guide * cross_entropy(read, self.utility[mine].repeat(2))
            self.run.log("guide", guided.mean())
        self.run.log("shared", kept.mean())
        self.losses.update(loss, config.memory)
        self.run.update(self.encoder, loss.mean())

    def leak(self, averages: Averages, p: Tensor, z: Tensor, half: Tensor) -> Tensor:
        """I(z; c) ``(H,)`` as each half of the people pays it, at the prices of the other half's table."""
        averages.update(p, z, half, self.config.memory)
        return torch.einsum("n,nhk,nhk->h", _balanced(z), p, prices(averages.table)[1 - half, :, z])

    def guidance(self, p: Tensor, u: Tensor) -> Tensor:
        """I(u; c) ``(H,)`` of the batch, all classes counting the same; 0 where no row's class is known."""
        if not len(u):
            return p.sum((0, 2))
        table = torch.zeros(self.classes, *p.shape[1:], device=p.device)
        return information(table.index_add(0, u, _balanced(u)[:, None, None] * p).transpose(0, 1))


def _balanced(z: Tensor) -> Tensor:
    """Weights ``(n,)`` with which all classes that occur count the same; they add up to 1."""
    weight = 1 / torch.bincount(z)[z]
    return weight / weight.sum()


def train(config: Config, task: Task) -> Fitted:
    """Learn codes and their substitutes; the label to keep is not looked at where ``guide`` is 0."""
    pack, private = task.pack, task.private
    guided = config.guide > 0
    if guided and task.utility == "identity":
        raise InputError(
            "utility: a release of few values cannot keep identity, got 'identity'; name the label to keep, or set "
            "guide=0 (presets unguided and handwriting)"
        )
    if config.renew and pack.kind == "images":
        raise InputError("renew: only vectors can be turned, and of images this method releases images")
    pack.require(private=private, utility=task.utility if guided else (), among=["protect"])
    rows = pack.rows("protect")
    who = _people(config, pack, rows)
    candidates, needed = _candidates(config, pack, private[0], rows, who)  # before training: it may refuse
    encoder = _coded(config, task, rows, who)
    share = probabilities(encoder, pack, rows).mean(0)
    encoder.keep(0, torch.from_numpy(np.flatnonzero(share >= min(config.rare, share.max()))))
    p = probabilities(encoder, pack, rows)
    table = _substitutes(config, pack, rows, who, p, candidates, needed)
    encoder.substitutes = torch.from_numpy(table)
    contract = Contract(
        kind=pack.kind,
        shape=tuple(pack.x.shape[1:]),
        k=math.prod(table.shape[1:]),
        image=tuple(table.shape[1:]) if table.dtype == np.uint8 else None,
        support=p.shape[1],
        draw=config.draw,
        **pack.framing,
    ).turned(config.renew)
    share = p.mean(0)
    made = {
        "bits": float(-(share * np.log2(share)).sum()),
        "leak_bits": {name: _leak(p, pack.label(name)[rows], len(pack.classes[name])) for name in private},
    }
    return Fitted(encoder=encoder, contract=contract, made=made)


def _coded(config: Config, task: Task, rows: NDArray[np.int64], who: NDArray[np.int64]) -> CodeEncoder:
    """The trained encoder, with the head of the best objective alone."""
    pack, private, run = task.pack, task.private, task.run
    deviation = run.tensor(np.asarray(pack.x[rows]).std(0)) if pack.kind == "vectors" else None

    def inputs(some: NDArray[np.int64]) -> Tensor:
        return to_input(pack.x[rows[some]], pack.kind).to(run.device)

    with seeded(run.seed, "substitution", "networks"):
        encoder = CodeEncoder(pack.x.shape[1:], pack.kind, config.codes, torch.empty(0), config.heads)
        run.place(encoder)
    # The person who is hidden stands in both halves, each image on its own.
    units = np.arange(len(rows)) if config.person in private else who
    training = Training(
        config,
        run,
        encoder,
        private=[pack.label(name)[rows] for name in private],
        sizes=[len(pack.classes[name]) for name in private],
        utility=pack.label(task.utility)[rows] if config.guide else None,
        classes=len(pack.classes[task.utility]) if config.guide else 0,
        half=np.random.default_rng(run.seed).permutation(units.max() + 1)[units] % 2,
    )
    run.enter(*training.players)
    for step in run.stage("codes", config.steps):
        training.step(step, inputs, deviation)
    run.collect(encoder)
    encoder.keep(int(training.losses.mean.argmin()), torch.arange(config.codes))
    return encoder


def build(config: Config, contract: Contract) -> CodeEncoder:
    """The encoder of a release, without its weights."""
    shape = (contract.support, *(contract.image or (contract.k,)))
    blank = torch.zeros(shape, dtype=torch.uint8 if contract.image is not None else torch.float32)
    return CodeEncoder(contract.shape, contract.kind, contract.support, blank)


def probabilities(encoder: nn.Module, pack: Pack, rows: NDArray[np.int64]) -> Floats:
    """P(c | x) ``(n, K)`` of some rows of a pack."""
    with torch.no_grad():
        parts = [
            encoder(to_input(pack.x[rows[i : i + 1000]], pack.kind)).double().exp().numpy()
            for i in range(0, len(rows), 1000)
        ]
    return np.concatenate(parts)


def _leak(p: Floats, z: NDArray[np.int64], classes: int) -> float:
    """I(z; c) in bits of drawn codes, all classes counting the same, on rows of known class; plug-in, so too high."""
    known = z >= 0
    table = np.zeros((classes, p.shape[1]))
    np.add.at(table, z[known], p[known])
    table /= np.maximum(table.sum(1, keepdims=True), 1e-300)
    return float(information(torch.from_numpy(table))) / math.log(2)


def _people(config: Config, pack: Pack, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Codes ``(n,)``, without gaps, of who is seen in each row; averages need the label that tells."""
    if config.person not in pack.labels and config.substitutes == "average":
        there = ", ".join(sorted(pack.labels)) or "no labels"
        raise InputError(
            f"person: averages need the label that says who is seen, and {config.person!r} is none; the pack has "
            f"{there}; name it (person=LABEL), or release codes (substitutes=code)"
        )
    return np.unique(people(pack, rows, config.person), return_inverse=True)[1]


def _candidates(
    config: Config, pack: Pack, private: str, rows: NDArray[np.int64], who: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """Places among the rows whose images may become substitutes, and how many people make up one."""
    if config.substitutes == "code":
        return np.arange(0), 0
    # An average must not be of one stranger's many images: of people, only those that are known are told apart.
    allowed = pack.label(config.person)[rows] >= 0 if config.substitutes == "average" else np.ones(len(rows), bool)
    if config.target:
        if config.target not in pack.classes[private]:
            raise InputError(f"target: must be a class of {private}, got {config.target!r}")
        allowed = pack.label(private)[rows] == pack.classes[private].index(config.target)
        if not allowed.any():
            raise InputError(f"target: {private} {config.target!r} has no row in split protect")
    needed = 1 if config.substitutes == "single" or config.target else config.people
    there = len(np.unique(who[allowed]))
    if there < needed:
        raise InputError(
            f"people: an average needs {needed} people whose {config.person} is known, and split protect has {there}"
        )
    return np.flatnonzero(allowed), needed


def _substitutes(
    config: Config,
    pack: Pack,
    rows: NDArray[np.int64],
    who: NDArray[np.int64],
    p: Floats,
    candidates: NDArray[np.int64],
    needed: int,
) -> NDArray[Any]:
    """What stands for each code: uint8 images or float32 vectors, ``(K, ...)``."""
    if config.substitutes == "code":
        return np.eye(p.shape[1], dtype=np.float32)
    out = np.empty((p.shape[1], *pack.x.shape[1:]), pack.x.dtype)
    likeliest = p[candidates].argmax(1)
    for code in range(len(out)):
        own = candidates[likeliest == code]
        if len(np.unique(who[own])) < needed:  # the likeliest for this code, then, whatever else they could be
            order = candidates[np.argsort(-p[candidates, code], kind="stable")]
            own = _one_each(order, who)[:needed]
        values, weight = flat(pack.x[rows[own]]), p[own, code, None]
        centre = (weight * values).sum(0) / weight.sum()
        near = own[np.argsort(np.square(values - centre).sum(1), kind="stable")]
        chosen = _one_each(near, who)[:needed]  # the nearest image of each of the nearest people
        mean = pack.x[rows[chosen]].astype(np.float64).mean(0)
        out[code] = np.round(mean) if out.dtype == np.uint8 else mean
    return out


def _one_each(places: NDArray[np.int64], who: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first place of each person, in their order."""
    first = np.unique(who[places], return_index=True)[1]
    return places[np.sort(first)]


ALGORITHM = Algorithm(config=Config, presets=PRESETS, train=train, build=build)
