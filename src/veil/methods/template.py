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
    release   r = normalise(g + noise * n / sqrt(k)), n a secret smooth field of g: see :mod:`veil.draws`

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

Guard. L_Keep is the change of the cosines between people of one private class: angles between classes carry the private
attribute itself. L_Confusion is the adversaries' cross-entropy to the uniform prior, which is bounded.

- p is a probability, not a decision: of two images of one person near the border both are moved alike.
- The protector learns from out-of-fold guesses: on its own people the classifier errs less often than on strangers,
  and a guard that never saw a wrong guess gives the wrongly guessed away.
- The guard is the mean of its weights over the second half of its steps: what it does to its own people alone
  averages out.

With several private attributes the class is the joint one. One of fewer than five people counts as one that nobody
has, for its mean and map, which ship, would be theirs.

Alignment: see :mod:`veil.transport`. Confusion and refreshed adversaries: see :mod:`veil.methods.aia`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.data.pack import Pack
from veil.draws import normalised_noise
from veil.engine import Player, Run, Step
from veil.engine.run import by_first, one_cycle, seeded
from veil.errors import InputError
from veil.losses import confusion, cross_entropy, gram_change
from veil.methods.protocol import refuse_many, refuse_people, require_classes, too_small
from veil.nets import mlp
from veil.release import Contract, Release, new_key
from veil.transport import choose_shrinkage, transport_maps


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of template protection."""

    noise: float = 0.6
    """Norm of the keyed noise of a release, relative to the unit vector, >= 0."""
    keep: float = 1.0
    """Share of the dimensions that hold the vectors' variance that erasure leaves, in (0, 1]; 1 erases nothing."""
    rounds: int = 48
    """Rounds of the erasure; each drops as many dimensions as the others."""
    readers: int = 2
    """Classifiers that say in each round what to drop."""
    steps_erase: int = 300
    """Steps of the classifiers in each round."""
    training_noise: float = 0.7
    """Norm of the noise under which the guard learns, >= 0; noise keeps it from fitting its own people."""
    hide: float = 1.0
    """Weight of the confusion, > 0, or 0 to leave the guard out (alignment and noise alone)."""
    align: bool = True
    """Move every class to the barycentre before the guard."""
    guess: int = 256
    """Width of the classifiers' two hidden layers."""
    steps_guess: int = 600
    """Steps of the classifier of the private class."""
    folds: int = 4
    """Parts of the people for the out-of-fold guesses, >= 2."""
    adversaries: int = 6
    """Number of adversaries; they differ in depth and width."""
    refresh: int = 60
    """Steps after which the next adversary in turn is replaced by a fresh one; 0 for never."""
    batch: int = 384
    """Vectors a step of the guard."""
    steps: int = 3000
    """Steps of the guard."""
    lr: float = 1e-3
    """Peak learning rate of the guard."""
    lr_opponents: float = 2e-3
    """Learning rate of adversaries and classifier."""

    def __post_init__(self) -> None:
        least = {
            **dict.fromkeys(("noise", "training_noise", "hide", "refresh", "steps"), 0),
            **dict.fromkeys(("guess", "steps_guess", "adversaries", "batch", "rounds", "readers", "steps_erase"), 1),
            **dict.fromkeys(("lr", "lr_opponents"), 1e-8),
            "folds": 2,
        }
        problems = too_small(self, least)
        if not 0 < self.keep <= 1:
            problems.append(f"keep: must lie in (0, 1], got {self.keep!r}")
        if problems:
            raise InputError("template: " + "; ".join(problems))

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

_KEEP = 20.0  # brings the change of squared cosines, hundredths, to the scale of a cross-entropy
_MIXUP = 0.4  # both parameters of mixup's beta distribution (Zhang et al. 2018)
_GUESS_BATCH = 256  # vectors a step of the classifier
ENOUGH = 400
"""People from whom on a fit is not warned of.

Measured on the templates of LFW (gender, one seed, preset ``erased``, which kept 29 % then, without noise, attackers
of effort quick on people held out): 50, 100, 200, 400, 800 and 1,600 people to learn from left balanced accuracies of
.696, .731, .705, .676, .659 and .624. Up to 400 of them left at least 1.4 times as much above chance as 1,600 did.
"""
_FEWEST = 5  # people of a class whose mean and map may ship
_MOST = 500_000  # vectors to learn from; more would only cost memory


# -- the network ------------------------------------------------------------------------------------------------------


class TemplateEncoder(nn.Module):
    """Centre, erasure, guess, alignment and guard of vectors ``(B, k)``. A new one changes but their length and width.

    Args:
        k: Width of the vectors.
        kept: Dimensions that are left, 1 .. k.
        classes: Number Z of joint private classes.
        guess: Width of the classifier's hidden layers; None where nothing is guessed, aligned or guarded.
    """

    origin: Tensor
    basis: Tensor
    centre: Tensor
    means: Tensor
    maps: Tensor
    present: Tensor

    def __init__(self, k: int, kept: int, classes: int, guess: int | None) -> None:
        super().__init__()
        self.register_buffer("origin", torch.zeros(k))
        self.erases = kept < k
        if self.erases:
            self.register_buffer("basis", torch.eye(kept, k))
        self.guess: nn.Module | None = None
        if guess is None:
            return
        self.guess = mlp([kept, guess, guess, classes])
        self.register_buffer("centre", torch.zeros(kept))
        self.register_buffer("means", torch.zeros(classes, kept))
        self.register_buffer("maps", torch.eye(kept).repeat(classes, 1, 1))
        self.register_buffer("present", torch.ones(classes, dtype=torch.bool))  # classes that were learned
        self.guard = mlp([kept + classes, 512, kept])
        nn.init.zeros_(self.guard[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.guard[-1].bias)  # type: ignore[arg-type]

    def erased(self, x: Tensor) -> Tensor:
        """normalise(B (x - origin)) ``(B, kept)`` of unit vectors; without B where nothing is erased."""
        centred = x - self.origin
        return F.normalize(centred @ self.basis.T if self.erases else centred, dim=1)

    def probabilities(self, e: Tensor, allowed: Tensor | None = None) -> Tensor:
        """p(c | e) ``(B, Z)``; of the allowed classes alone where a mask ``(B, Z)`` tells some that were learned."""
        assert self.guess is not None
        logits: Tensor = self.guess(_spread(e)).float()
        if allowed is not None:
            allowed = allowed & self.present
            allowed = allowed | ~allowed.any(1, keepdim=True)
            logits = logits.masked_fill(~allowed, float("-inf"))
        return F.softmax(logits, dim=1)

    def aligned(self, e: Tensor, p: Tensor) -> Tensor:
        """normalise(sum_c p_c T_c(e)), T_c(e) = centre + maps_c (e - means_c)."""
        moved = torch.einsum("bzk,zkl->bzl", p[..., None] * (e[:, None] - self.means), self.maps).sum(1)
        return F.normalize(self.centre + moved, dim=1)

    def guarded(self, a: Tensor, p: Tensor) -> Tensor:
        """normalise(a + guard(a, p))."""
        return F.normalize(a + self.guard(torch.cat([_spread(a), 2 * p - 1], 1)).float(), dim=1)

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        """``(B, k)`` of any length > 0 -> unit vectors ``(B, kept)``."""
        x = F.normalize(x / x.abs().amax(1, keepdim=True), dim=1)  # squares of what is tiny or huge are 0 or infinite
        e = self.erased(x)
        if self.guess is None:
            return e
        p = self.probabilities(e, allowed)
        g: Tensor = self.guarded(self.aligned(e, p), p)
        return g


def _spread(x: Tensor) -> Tensor:
    """Unit vectors with values of unit variance, as networks like them."""
    return x * math.sqrt(x.shape[1])


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
        p = reader(_spread(inputs)).float().softmax(1)
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


# -- training ---------------------------------------------------------------------------------------------------------


class Training:
    """The players that protect a table of unit vectors; AIA's ``deep`` protects its own representation with it.

    Args:
        config: Settings.
        run: Gives updates, stages and precision.
        k: Width of the vectors.
        erased: Dimensions that erasure begins with and those that it leaves (:func:`kept_dimensions`); None for none.
        codes: ``(n,)`` for each private attribute, known for every row.
        sizes: Number of classes of each.
        people: ``(n,)`` who is seen; rows of one person are never on both sides of a fold.
        known: ``(n,)`` whether that is known; all if None. Others do not count as people of a class.

    Raises:
        InputError: If all vectors are one person's, or classes are to be moved and too few have people enough.
    """

    def __init__(
        self,
        config: Config,
        run: Run,
        *,
        k: int,
        erased: tuple[int, int] | None = None,
        codes: Sequence[NDArray[np.int64]],
        sizes: Sequence[int],
        people: NDArray[np.int64],
        known: NDArray[np.bool_] | None = None,
    ) -> None:
        self.config, self.run, self.sizes, self.people = config, run, list(sizes), people
        self.codes = list(codes)
        if len(np.unique(people)) < 2:
            raise InputError("template: needs vectors of at least 2 people to learn from, got 1")
        self.joint = np.ravel_multi_index(self.codes, self.sizes)
        self.classes = math.prod(self.sizes)
        held, self.kept = erased or (k, k)
        self.guessing = config.moves
        self.made: dict[str, float] = {}
        """What a user should know of the result: the shrinkage of the covariances."""
        present = self._present(np.ones(len(people), bool) if known is None else known)
        self.members = [np.flatnonzero(self.joint == c) for c in present]
        # Dimensions that are left before each round of the erasure, and after the last.
        self.widths = np.unique(np.linspace(held, self.kept, config.rounds + 1).round().astype(int))[::-1]
        with seeded(run.seed, "template", "networks"):
            self.encoder = run.place(new_encoder(config, k, self.kept, self.classes))
            assert isinstance(self.encoder, TemplateEncoder)
            readers = [self._fresh_reader(k) for _ in range(config.readers if self.kept < k else 0)]
            if self.guessing:
                guesses = [self._fresh_reader(self.kept) for _ in range(config.folds)]
                count = config.adversaries if config.hide else 0
                adversaries = [self._fresh_adversary(self.kept, i) for i in range(count)]
        self.readers = [
            self._classifier(f"reader {i + 1}", reader, config.steps_erase) for i, reader in enumerate(readers)
        ]
        self.players = [*self.readers]
        if readers:
            # Never updated by a gradient: a player so that checkpoints hold it. Of its rows the first so many are left.
            holder = nn.Linear(k, k, bias=False)
            nn.init.zeros_(holder.weight)
            self.players.append(Player("basis", run.place(holder), lr=config.lr))
            self.basis = self.players[-1].parameters[0]
        if self.guessing:
            self._enter_guessing(self.encoder, guesses, adversaries)

    def _present(self, known: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Joint classes that are learned; where something of each ships, those of people enough."""
        present = np.unique(self.joint)
        if not self.guessing:
            return present
        counts = [len(np.unique(self.people[known & (self.joint == c)])) for c in present]
        enough = present[np.array(counts) >= _FEWEST]
        if len(enough) < 2:
            raise InputError(
                f"template: needs two private classes of at least {_FEWEST} people each, for the mean of each ships, "
                f"got {len(enough)}"
            )
        return enough

    def _enter_guessing(
        self, encoder: TemplateEncoder, guesses: Sequence[nn.Module], adversaries: Sequence[nn.Module]
    ) -> None:
        """The players of guess and guard; the guesses given are those that each do without one fold of the people."""
        config = self.config
        assert encoder.guess is not None
        encoder.present.fill_(False)
        encoder.present[torch.from_numpy(self.joint[[rows[0] for rows in self.members]])] = True
        _, person = np.unique(self.people, return_inverse=True)
        self.fold = np.random.default_rng(self.run.seed).permutation(person.max() + 1)[person] % config.folds
        # What each classifier may learn from: everybody, then all but one fold (a class within one fold stays whole).
        self.learned = [self.members]
        for fold in range(config.folds):
            others = [rows[self.fold[rows] != fold] for rows in self.members]
            self.learned.append([o if len(o) else rows for o, rows in zip(others, self.members, strict=True)])
        self.guesses = [
            self._classifier("guess" if i == 0 else f"guess without fold {i}", network, config.steps_guess)
            for i, network in enumerate([encoder.guess, *guesses])
        ]
        self.guard = Player(
            "guard", encoder.guard, lr=config.lr, optimizer="adamw", weight_decay=0.01,
            schedule=one_cycle(config.steps, warm_up=0.2),
        )  # fmt: skip
        # Never updated by a gradient either.
        self.average = Player("mean guard", copy.deepcopy(encoder.guard), lr=config.lr)
        self.adversaries = [
            Player(f"adversary {i + 1}", a, lr=config.lr_opponents, optimizer="adamw", weight_decay=1e-3)
            for i, a in enumerate(adversaries)
        ]
        self.players += [*self.guesses, self.guard, self.average, *self.adversaries]

    def _classifier(self, name: str, network: nn.Module, steps: int) -> Player:
        return Player(
            name, network, lr=self.config.lr_opponents, optimizer="adamw", weight_decay=0.01, schedule=one_cycle(steps)
        )

    def _fresh_reader(self, k: int) -> nn.Module:
        return self.run.place(mlp([k, self.config.guess, self.config.guess, self.classes]))

    def train(self, x: Tensor) -> TemplateEncoder:
        """All stages on unit vectors ``(n, k)``; the finished encoder."""
        assert isinstance(self.encoder, TemplateEncoder)
        origin = torch.stack([x[self.run.tensor(rows)].mean(0) for rows in self.members]).mean(0)
        self.encoder.origin.copy_(origin)
        if self.readers:
            self.erase(F.normalize(x - origin, dim=1))
        if self.guessing:
            with torch.no_grad():
                e = self.encoder.erased(x)
            self.protect(e)
        return self.encoder

    def erase(self, centred: Tensor) -> None:
        """Rounds of readers and of dropped directions; what is left, in principal axes, becomes the encoder's basis."""
        assert isinstance(self.encoder, TemplateEncoder)
        worth = (centred.T.double() @ centred.double() / len(centred)).cpu().numpy()
        self.axes = torch.from_numpy(principal_axes(np.eye(len(worth)), worth)).to(centred)
        for step in self.run.stage("erase", (len(self.widths) - 1) * self.config.steps_erase):
            self.erase_step(step, centred, worth)
        self.encoder.basis.copy_(self._left(len(self.widths) - 1))

    def erase_step(self, step: Step, centred: Tensor, worth: NDArray[Any]) -> None:
        """Readers learn on what is left; the last step of a round drops what they found."""
        turn, number = divmod(step.number, self.config.steps_erase)
        left = self._left(turn)

        def of(rows: Tensor) -> Tensor:
            return F.normalize(centred[rows] @ left.T @ left, dim=1)

        for reader in self.readers:
            self._learn(reader, of, self.members, step)
        if number < self.config.steps_erase - 1:
            return
        generator = torch.Generator().manual_seed(self.run.seed + turn)
        everything = of(torch.arange(len(centred), device=centred.device))
        tells = sum(what_tells(reader.module, everything, generator) for reader in self.readers)
        assert isinstance(tells, Tensor)
        count = int(self.widths[turn] - self.widths[turn + 1])
        rows = drop(left.double().cpu().numpy(), tells.numpy(), worth, count)
        with torch.no_grad():
            self.basis[: len(rows)] = torch.from_numpy(rows).to(self.basis)
        with seeded(self.run.seed, "template", "readers", turn):
            for reader in self.readers:
                reader.restart(self._fresh_reader(centred.shape[1]))

    def _left(self, turn: int) -> Tensor:
        """Orthonormal rows of what is left before a round of the erasure."""
        return (self.basis.detach() if turn else self.axes)[: self.widths[turn]]

    def protect(self, x: Tensor) -> None:
        """Guess, alignment and guard of unit vectors ``(n, kept)``."""
        assert isinstance(self.encoder, TemplateEncoder)
        for step in self.run.stage("guess", self.config.steps_guess):
            for player, members in zip(self.guesses, self.learned, strict=True):
                self._learn(player, lambda rows: x[rows], members, step)
        p = self.out_of_fold(x)
        if self.config.align:
            self.align(x)
        with torch.no_grad():
            a = self.encoder.aligned(x, p)
        for step in self.run.stage("guard", self.config.steps if self.config.hide else 0):
            self.guard_step(step, x, a, p)
            self.average_guard(step)
        self.encoder.guard.load_state_dict(self.average.module.state_dict())

    def _learn(
        self, player: Player, vectors: Callable[[Tensor], Tensor], members: Sequence[NDArray[np.int64]], step: Step
    ) -> None:
        """A classifier of the joint class learns from a balanced batch of its own, mixed up (Zhang et al. 2018)."""
        chosen = self._balanced(self.run.batch(_GUESS_BATCH), step, members)
        partner = step.rng.permutation(chosen)
        weight = float(step.rng.beta(_MIXUP, _MIXUP))
        mine, other = self.run.share(chosen), self.run.share(partner)
        mixed = weight * vectors(self.run.tensor(mine)) + (1 - weight) * vectors(self.run.tensor(other))
        with self.run.autocast():
            logits = player.module(_spread(mixed)).float()
        losses = [cross_entropy(logits, self.run.tensor(self.joint[rows])) for rows in (mine, other)]
        self.run.update(player, weight * losses[0] + (1 - weight) * losses[1])

    def out_of_fold(self, x: Tensor) -> Tensor:
        """p(c | x) ``(n, Z)``, each row's from the classifier that did not learn from its person."""
        p = torch.empty(len(x), self.classes, device=x.device)
        for i, player in enumerate(self.guesses[1:]):
            rows = self.run.tensor(np.flatnonzero(self.fold == i))
            with torch.no_grad():
                p[rows] = player.module(_spread(x[rows])).softmax(1)
        return p

    def align(self, x: Tensor) -> None:
        """Set the maps: closed form, so nothing is left of them to checkpoint."""
        assert isinstance(self.encoder, TemplateEncoder)
        rows = np.sort(np.concatenate(self.members))
        vectors, joint = x.cpu().numpy()[rows], self.joint[rows]
        shrinkage = choose_shrinkage(vectors, joint, self.people[rows], np.random.default_rng(self.run.seed))
        self.made["shrinkage"] = shrinkage
        values = transport_maps(vectors, joint, self.classes, shrinkage)
        for name, value in zip(("centre", "means", "maps"), values, strict=True):
            getattr(self.encoder, name).copy_(torch.from_numpy(value))

    def guard_step(self, step: Step, x: Tensor, a: Tensor, p: Tensor) -> None:
        """Adversaries learn on noisy releases; the guard confuses them and keeps the angles within a class."""
        assert isinstance(self.encoder, TemplateEncoder)
        chosen = self._balanced(self.config.batch, step, self.members)
        mine = self.run.share(chosen)
        rows, everyone = self.run.tensor(mine), self.run.tensor(chosen)
        with self.run.autocast():
            g = self.encoder.guarded(a[rows], p[rows])
        normal = step.normal(*g.shape).to(g.device)
        released = normalised_noise(g, normal, self.config.training_noise)
        labels = [self.run.tensor(c[mine]) for c in self.codes]
        for adversary in self.adversaries:
            self.run.update(adversary, self._adversary_loss(adversary, released.detach(), labels))
        hiding = torch.stack([confusion(o) for b in self.adversaries for o in self._logits(b, released)]).mean()
        kept = gram_change(self.run.gather(g), x[everyone], self.run.tensor(self.joint[chosen]))
        self.run.update(self.guard, _KEEP * kept + self.config.hide * hiding)
        if self.config.refresh and (step.number + 1) % self.config.refresh == 0:
            turn = (step.number + 1) // self.config.refresh - 1
            which = turn % len(self.adversaries)
            with seeded(self.run.seed, "template", "refresh", turn):
                self.adversaries[which].restart(self._fresh_adversary(x.shape[1], which))

    def average_guard(self, step: Step) -> None:
        """Mean of the guard's weights over the second half of its steps (Izmailov et al. 2018).

        A guard chases adversaries that see its own people; what it does to them alone averages out.
        """
        if step.number < step.count // 2:
            return
        self.average.updates += 1
        with torch.no_grad():
            for mean, now in zip(self.average.parameters, self.guard.parameters, strict=True):
                mean.lerp_(now, 1 / self.average.updates)

    def _fresh_adversary(self, k: int, which: int) -> nn.Module:
        return self.run.place(mlp([k, *[(256, 512)[which % 2]] * (1 + which % 3), sum(self.sizes)]))

    def _adversary_loss(self, adversary: Player, r: Tensor, labels: Sequence[Tensor]) -> Tensor:
        """Mean cross-entropy of the private attributes; batches are balanced by joint class."""
        losses = [cross_entropy(o, z) for o, z in zip(self._logits(adversary, r), labels, strict=True)]
        return torch.stack(losses).mean()

    def _logits(self, adversary: Player, r: Tensor) -> tuple[Tensor, ...]:
        with self.run.autocast():
            out: Tensor = adversary.module(_spread(r))
        return torch.split(out.float(), self.sizes, dim=1)

    def _balanced(self, size: int, step: Step, members: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Rows of one batch, as many of every joint class."""
        each = -(-size // len(members))
        return step.rng.permutation(np.concatenate([step.rng.choice(rows, each) for rows in members]))[:size]


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
    """Learn to protect vectors on the ``protect`` split.

    Args:
        config: Settings; see :data:`PRESETS`.
        pack: Vectors; their lengths do not matter, only their directions.
        private: Labels to hide, one or more.
        utility: What the audit will measure. The protector keeps the geometry, whatever it is.
        seed: Seeds weights, batches and noise; ignored where ``run`` is given.
        run: Precision, checkpoints and progress; a plain run if None.
        key: Secret of the noise; a fresh one from the operating system if None.
        base: Must be None: this method reads the input itself.

    Raises:
        InputError: With all problems of data and labels in one line, or where the run diverges.
    """
    if base is not None:
        raise InputError(f"template: reads the input itself and takes no base, got a release of {base.method!r}")
    if not private:
        raise InputError("template: private must name at least one label, got none")
    if config.moves:
        refuse_people("template", private)
    if pack.kind != "vectors":
        raise InputError("template: needs a pack of vectors, got images; method aia makes vectors of images")
    pack.require(private=list(private), utility=pack.known_use(utility), among=["protect"])
    if config.moves:
        refuse_many("template", pack, private)
    run = run or Run(seed=seed)
    run.check_batch(config.batch)
    rows = pack.rows("protect", known=tuple(private))
    if len(rows) > _MOST:
        rows = np.sort(np.random.default_rng(run.seed).choice(rows, _MOST, replace=False))
    require_classes(pack, rows, private)
    if pack.x.shape[1] < 2:
        raise InputError("template: vectors need at least 2 values to have directions, got 1 feature(s)")
    x = unit_rows(np.asarray(pack.x[rows], np.float32), rows)
    training = Training(
        config,
        run,
        k=x.shape[1],
        erased=kept_dimensions(x, config.keep) if config.keep < 1 else None,
        codes=[pack.label(name)[rows] for name in private],
        sizes=[len(pack.classes[name]) for name in private],
        people=people(pack, rows),
        known=known(pack, rows),
    )
    run.enter(*training.players)
    training.train(run.tensor(x))
    contract = Contract(
        kind="vectors",
        shape=(x.shape[1],),
        k=training.kept,
        noise=config.noise,
        direction=True,
        columns=pack.framing["columns"],
        classes={name: tuple(pack.classes[name]) for name in private} if training.guessing else {},
        asks=training.guessing,
    )
    return Release(
        method="template",
        config=asdict(config),
        contract=contract,
        encoder=run.collect(training.encoder),
        made={
            "private": list(private),
            "utility": utility,
            "seed": run.seed,
            "data": pack.fingerprint,
            **training.made,
            **_doubts(training),
        },
        key=(key or by_first(new_key)) if contract.keyed else None,
    )


def _doubts(training: Training) -> dict[str, list[str]]:
    """Warnings where fewer people than :data:`ENOUGH` were there to learn from, or nothing to erase; else nothing."""
    warnings = []
    if (count := len(np.unique(training.people))) < ENOUGH:
        warnings.append(
            f"template learned from {count} people; the fewer they are, the less it hides of other people's vectors, "
            f"and below {ENOUGH} that shows: audit it on others, or pack more people."
        )
    if training.config.keep < 1 and len(training.widths) == 1:
        warnings.append(f"template erased nothing: all {training.kept} dimensions that hold variance stay.")
    return {"warnings": warnings} if warnings else {}


def build(config: Config | Mapping[str, Any], contract: Contract) -> TemplateEncoder:
    """The encoder of a release; what :meth:`veil.release.Release.load` fills with weights."""
    c = config if isinstance(config, Config) else Config(**config)
    return new_encoder(c, contract.shape[0], contract.k, joint_classes(contract))


def new_encoder(config: Config, k: int, kept: int, classes: int) -> TemplateEncoder:
    """An encoder without trained weights; see :class:`TemplateEncoder`."""
    return TemplateEncoder(k, kept, classes, config.guess if config.moves else None)


def joint_classes(contract: Contract) -> int:
    """Number of joint private classes of a release."""
    return math.prod(len(names) for names in contract.classes.values())


def people(pack: Pack, rows: NDArray[np.int64], label: str = "identity") -> NDArray[np.int64]:
    """Codes ``(n,)`` of who is seen in each row; whoever is unknown counts as a person of their own."""
    if label not in pack.labels:
        return np.arange(len(rows))
    codes = pack.label(label)[rows]
    return np.where(codes < 0, codes.max() + 1 + np.arange(len(rows)), codes)


def known(pack: Pack, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether it is known ``(n,)`` who is seen in each row; without identity every row counts as another person's."""
    return pack.label("identity")[rows] >= 0 if "identity" in pack.labels else np.ones(len(rows), bool)


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
