"""Template protection: ours. Vectors that users already store, a face template of any matcher say, in; vectors out.

    centre    c = normalise(x / |x| - origin), origin the mean direction of the private classes: angles around it tell
              people apart, of vectors that are compared by cosine and of those that lie far from 0, all on one side
    erase     e = normalise(B c), B the directions that are left after rounds of: train classifiers of the private
              class on what is left, and drop the directions that tell most of it for what they are worth
    guess     p(c | e), the private class of e: a classifier trained with mixup; or told at release time
    align     a = normalise(sum_c p_c T_c(e)), T_c the optimal-transport map from class c's Gaussian to the barycentre
              of the classes' Gaussians: means no longer tell the classes apart, nor covariances as far as their
              shrinkage lets them
    guard     g = normalise(a + guard(a, p)) minimises   L_Keep + hide * L_Confusion   on noisy releases, while several
              adversaries, replaced by fresh ones in turn, keep learning
    release   r = normalise(g + noise * n / sqrt(k)), n a secret smooth field of g: see :mod:`veil.release.draws`

The default preset aligns, guards and adds noise. ``erased`` erases and adds noise: a release is one linear map for
everybody, to fewer dimensions, which guesses nothing and ships no classifier. It reaches about the same on dlib's
vectors, and leaves more to read on MobileFaceNet's (docs/templates.md); a guard on top of erasure added nothing.

Erase. M = mean(grad f grad f^T), f a classifier's random combination of class probabilities, is the average outer
product of gradients (Xia et al., "An adaptive estimation of dimension reduction space", J. R. Stat. Soc. B 64, 2002; as
what networks learn: Radhakrishnan et al., Science 383, 2024). v'Mv is what a step along v tells, so a direction of
variance v'Sv tells about v'Mv v'Sv. What it is worth is v'Sv, for cosines are made of it. So a round drops the v of
largest v'Mv, which tell most for their worth. Ravfogel et al., "Null it out" (2020), drop what linear classifiers read,
round by round; these rounds drop what networks read. They begin with the dimensions that hold the variance: of others
readers know nothing, and would have them dropped first.

Guess, alignment and guard: :mod:`veil.methods.guard`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.engine import Player, Run, Step
from veil.engine.run import seeded
from veil.errors import InputError
from veil.methods import guard
from veil.methods.guard import Classes, Plan, TemplateEncoder, joint_classes, spread
from veil.methods.labels import known, people, refuse_many, refuse_people, require_classes
from veil.methods.protocol import Algorithm, Fitted, Task
from veil.methods.settings import Count, Rate, Steps, Weight, at_least, checked, within
from veil.nn.nets import mlp
from veil.release.contract import Contract


@dataclass(frozen=True, kw_only=True)
@checked("template")
class Config:
    """Settings of template protection."""

    noise: Weight = 0.6
    """Norm of the keyed noise of a release, relative to the unit vector, >= 0."""
    keep: Annotated[float, within("(0, 1]")] = 1.0
    """Share of the dimensions that hold the vectors' variance that erasure leaves, in (0, 1]; 1 erases nothing."""
    rounds: Count = 48
    """Rounds of the erasure; each drops as many dimensions as the others."""
    readers: Count = 2
    """Classifiers that say in each round what to drop."""
    steps_erase: Count = 300
    """Steps of the classifiers in each round."""
    training_noise: Weight = 0.7
    """Norm of the noise under which the guard learns, >= 0; noise keeps it from fitting its own people."""
    hide: Weight = 1.0
    """Weight of the confusion, > 0, or 0 to leave the guard out (alignment and noise alone)."""
    align: bool = True
    """Move every class to the barycentre before the guard."""
    guess: Count = 256
    """Width of the classifiers' two hidden layers."""
    steps_guess: Count = 600
    """Steps of the classifier of the private class."""
    folds: Annotated[int, at_least(2)] = 4
    """Parts of the people for the out-of-fold guesses, >= 2."""
    adversaries: Count = 6
    """Number of adversaries; they differ in depth and width."""
    refresh: Steps = 60
    """Steps after which the next adversary in turn is replaced by a fresh one; 0 for never."""
    batch: Count = 384
    """Vectors a step of the guard."""
    steps: Steps = 3000
    """Steps of the guard."""
    lr: Rate = 1e-3
    """Peak learning rate of the guard."""
    lr_opponents: Rate = 2e-3
    """Learning rate of adversaries and classifier."""
    renew: bool = False
    """Turn releases by an orthogonal matrix of the key: those of another key do not match them."""

    @property
    def moves(self) -> bool:
        """Whether vectors are moved by their private class, which must then be guessed or told."""
        return self.align or self.hide > 0


PRESETS: dict[str, Config] = {
    "default": Config(),
    "erased": Config(noise=0.35, keep=0.5, align=False, hide=0.0),
    "aligned": Config(hide=0.0, noise=0.0),
    "noise": Config(align=False, hide=0.0, noise=1.2),
}
"""``aligned`` and ``noise`` are references: alignment alone, and noise alone."""

ENOUGH = 400
"""People from whom on a fit is not warned of.

Measured on the templates of LFW (gender, one seed, preset ``erased``, which kept 29 % then, without noise, attackers
of effort quick on people held out): 50, 100, 200, 400, 800 and 1,600 people to learn from left balanced accuracies of
.696, .731, .705, .676, .659 and .624. Up to 400 of them left at least 1.4 times as much above chance as 1,600 did.
"""
_MOST = 500_000  # vectors to learn from; more would only cost memory


# -- erasure ----------------------------------------------------------------------------------------------------------


def kept_dimensions(x: NDArray[Any], keep: float) -> tuple[int, int]:
    """Dimensions of vectors ``(n, k)`` that erasure begins with, and how many of them it leaves.

    It begins with the principal axes that hold 99 % of the variance: of 128 values 125 for one matcher of faces and 71
    for another. It leaves the share ``keep`` of them, but no fewer than 2, for one has no angles.
    """
    variances = np.linalg.eigvalsh(np.cov(x, rowvar=False))[::-1]
    held = np.cumsum(variances)
    dimensions = max(2, 1 + int(np.searchsorted(held, 0.99 * held[-1])))
    return dimensions, max(2, round(keep * dimensions))


def what_tells(reader: nn.Module, e: Tensor, generator: torch.Generator) -> Tensor:
    """M ``(k, k)``, the mean outer product of the gradients of a classifier's probabilities at unit vectors ``(n, k)``.

    Each row's gradient is of a random combination of the class probabilities, so that one pass does for all classes.
    """
    total = torch.zeros(e.shape[1], e.shape[1], dtype=torch.float64)
    for part in torch.split(e, 4096):
        inputs = part.detach().requires_grad_()
        p = reader(spread(inputs)).float().softmax(1)
        mixture = torch.randn(p.shape, generator=generator).to(p.device)
        (gradient,) = torch.autograd.grad((p * mixture).sum(), inputs)
        total += (gradient.T @ gradient).double().cpu()
    return total / len(e)


def drop(basis: NDArray[Any], tells: NDArray[Any], worth: NDArray[Any], count: int) -> NDArray[Any]:
    """What is left of orthonormal rows ``(d, k)`` without the ``count`` directions that tell most for their worth.

    Args:
        basis: Directions that are left so far.
        tells: ``(k, k)`` positive semidefinite, what a step along directions tells.
        worth: ``(k, k)`` positive semidefinite, the variance along directions.
        count: How many of them go, 0 .. d.
    """
    order = np.linalg.eigh(basis @ tells @ basis.T)[1]  # rising v'Mv
    return principal_axes(order[:, : len(order) - count].T @ basis, worth)


def principal_axes(basis: NDArray[Any], worth: NDArray[Any]) -> NDArray[Any]:
    """Orthonormal rows ``(d, k)`` that span what ``basis`` does, those of most worth first.

    The largest value of each is positive: of two signs that do as well, libraries of linear algebra choose either.
    """
    axes: NDArray[Any] = np.linalg.eigh(basis @ worth @ basis.T)[1][:, ::-1].T @ basis
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    return axes


class Eraser:
    """The players of the erasure.

    Its networks are drawn when it is made: within ``seeded``.

    Args:
        config: Settings.
        run: Gives updates, stages and precision.
        k: Width of the vectors.
        dimensions: Those that it begins with and those that it leaves (:func:`kept_dimensions`).
        classes: Of the rows.
    """

    def __init__(self, config: Config, run: Run, k: int, dimensions: tuple[int, int], classes: Classes) -> None:
        self.config, self.run, self.classes = config, run, classes
        # Dimensions that are left before each round, and after the last.
        self.widths = np.unique(np.linspace(*dimensions, config.rounds + 1).round().astype(int))[::-1]
        self.readers = [
            guard.classifier(f"reader {i + 1}", self._fresh(k), config.lr_opponents, config.steps_erase)
            for i in range(config.readers)
        ]
        # Never updated by a gradient: a player so that checkpoints hold it. Of its rows the first so many are left.
        holder = Player("basis", run.place(nn.ParameterList([torch.zeros(k, k)])), lr=config.lr)
        self.basis = holder.parameters[0]
        self.players = [*self.readers, holder]

    def train(self, x: Tensor) -> Tensor:
        """Rounds of readers and of dropped directions, of unit vectors; orthonormal rows of what is left, in principal
        axes."""
        worth = (x.T.double() @ x.double() / len(x)).cpu().numpy()
        self.axes = torch.from_numpy(principal_axes(np.eye(len(worth)), worth)).to(x)
        for step in self.run.stage("erase", (len(self.widths) - 1) * self.config.steps_erase):
            self.step(step, x, worth)
        return self._left(len(self.widths) - 1)

    def step(self, step: Step, x: Tensor, worth: NDArray[Any]) -> None:
        """Readers learn on what is left; the last step of a round drops what they found."""
        turn, number = divmod(step.number, self.config.steps_erase)
        left = self._left(turn)

        def of(rows: Tensor) -> Tensor:
            return F.normalize(x[rows] @ left.T @ left, dim=1)

        for reader in self.readers:
            guard.learn(self.run, reader, of, self.classes, step)
        if number < self.config.steps_erase - 1:
            return
        generator = torch.Generator().manual_seed(self.run.seed + turn)
        everything = of(torch.arange(len(x), device=x.device))
        tells = sum(what_tells(reader.module, everything, generator) for reader in self.readers)
        assert isinstance(tells, Tensor)
        count = int(self.widths[turn] - self.widths[turn + 1])
        rows = drop(left.double().cpu().numpy(), tells.numpy(), worth, count)
        with torch.no_grad():
            self.basis[: len(rows)] = torch.from_numpy(rows).to(self.basis)
        with seeded(self.run.seed, "template", "readers", turn):
            for reader in self.readers:
                reader.restart(self._fresh(x.shape[1]))

    def _left(self, turn: int) -> Tensor:
        """Orthonormal rows of what is left before a round."""
        return (self.basis.detach() if turn else self.axes)[: self.widths[turn]]

    def _fresh(self, k: int) -> nn.Module:
        return self.run.place(mlp([k, self.config.guess, self.config.guess, self.classes.count]))


# -- training ---------------------------------------------------------------------------------------------------------


class Training:
    """The encoder of unit vectors, and what trains its parts.

    Args:
        config: Settings.
        run: Gives updates, stages and precision.
        k: Width of the vectors.
        dimensions: Those that erasure begins with and those that it leaves (:func:`kept_dimensions`); None for none.
        classes: Of the rows.
    """

    def __init__(self, config: Config, run: Run, k: int, dimensions: tuple[int, int] | None, classes: Classes) -> None:
        self.classes = classes
        self.kept = k if dimensions is None else dimensions[1]
        self.eraser: Eraser | None = None
        self.guard: guard.Training | None = None
        with seeded(run.seed, "template", "networks"):
            self.encoder = new_encoder(config, k, self.kept, classes.count)
            run.place(self.encoder)
            if dimensions is not None and self.kept < k:
                self.eraser = Eraser(config, run, k, dimensions, classes)
            if config.moves:
                self.guard = guard.Training(Plan.of(config), run, self.encoder, classes)
        parts = [part for part in (self.eraser, self.guard) if part is not None]
        self.players = [player for part in parts for player in part.players]

    def train(self, x: Tensor) -> TemplateEncoder:
        """All stages on unit vectors ``(n, k)``; the finished encoder."""
        origin = self.classes.origin(x)
        self.encoder.origin.copy_(origin)
        if self.eraser is not None:
            self.encoder.basis.copy_(self.eraser.train(F.normalize(x - origin, dim=1)))
        if self.guard is not None:
            with torch.no_grad():
                e = self.encoder.erased(x)
            self.guard.train(e)
        return self.encoder


def train(config: Config, task: Task) -> Fitted:
    """Learn to protect vectors, of which only directions matter.

    The geometry is kept, whatever the use.
    """
    pack, private, run = task.pack, task.private, task.run
    if config.moves:
        refuse_people("template", private)
    pack.require(private=private, utility=pack.known_use(task.utility), among=["protect"])
    if config.moves:
        refuse_many("template", pack, private)
    rows = pack.rows("protect", known=tuple(private))
    if len(rows) > _MOST:
        rows = np.sort(np.random.default_rng(run.seed).choice(rows, _MOST, replace=False))
    require_classes(pack, rows, private)
    if pack.x.shape[1] < 2:
        raise InputError("template: vectors need at least 2 values to have directions, got 1 feature(s)")
    x = unit_rows(np.asarray(pack.x[rows], np.float32), rows)
    classes = Classes.of(
        "template",
        [pack.label(name)[rows] for name in private],
        [len(pack.classes[name]) for name in private],
        people(pack, rows),
        known(pack, rows),
        ship=config.moves,
    )
    dimensions = kept_dimensions(x, config.keep) if config.keep < 1 else None
    training = Training(config, run, x.shape[1], dimensions, classes)
    run.enter(*training.players)
    encoder = training.train(run.tensor(x))
    contract = Contract(
        kind="vectors",
        shape=(x.shape[1],),
        k=training.kept,
        noise=config.noise,
        direction=True,
        columns=pack.framing["columns"],
        classes={name: tuple(pack.classes[name]) for name in private} if config.moves else {},
        asks=config.moves,
    ).turned(config.renew)
    made: dict[str, Any] = {} if training.guard is None else dict(training.guard.made)
    if warnings := _doubts(classes, dimensions):
        made["warnings"] = warnings
    return Fitted(encoder=encoder, contract=contract, made=made)


def _doubts(classes: Classes, dimensions: tuple[int, int] | None) -> list[str]:
    """Warnings where fewer people than :data:`ENOUGH` were there to learn from, or nothing to erase."""
    warnings = []
    if (count := len(np.unique(classes.people))) < ENOUGH:
        warnings.append(
            f"template learned from {count} people; the fewer they are, the less it hides of other people's vectors, "
            f"and below {ENOUGH} that shows: audit it on others, or pack more people."
        )
    if dimensions is not None and dimensions[0] == dimensions[1]:
        warnings.append(f"template erased nothing: all {dimensions[1]} dimensions that hold variance stay.")
    return warnings


def build(config: Config, contract: Contract) -> TemplateEncoder:
    """The encoder of a release, without its weights."""
    return new_encoder(config, contract.shape[0], contract.k, joint_classes(contract))


def new_encoder(config: Config, k: int, kept: int, classes: int) -> TemplateEncoder:
    """An encoder without trained weights; see :class:`veil.methods.guard.TemplateEncoder`."""
    return TemplateEncoder(k, kept, classes, config.guess if config.moves else None)


def unit_rows(x: NDArray[np.float32], rows: NDArray[Any]) -> NDArray[np.float32]:
    """Rows of length 1.

    Raises:
        InputError: Naming the first row, by its number in the pack, that has no direction.
    """
    largest = np.abs(x).max(1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(largest[:, 0]) & (largest[:, 0] > 0)))
    if len(bad):
        raise InputError(
            f"vectors: row {rows[bad[0]]} must be finite and not zero, got a largest value of {largest[bad[0], 0]:g}"
        )
    unit: NDArray[np.float32] = x / largest  # first, because squares of what is tiny or huge are 0 or infinite
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit


ALGORITHM = Algorithm(config=Config, presets=PRESETS, train=train, build=build)
