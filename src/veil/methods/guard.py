"""A guard for unit vectors, which :mod:`veil.methods.template` and :mod:`veil.methods.deep` share.

    guess     p(c | e), the private class of e: a classifier trained with mixup; or told at release time
    align     a = normalise(sum_c p_c T_c(e)), T_c the optimal-transport map from class c's Gaussian to the barycentre
              of the classes' Gaussians: means no longer tell the classes apart, nor covariances as far as their
              shrinkage lets them
    guard     g = normalise(a + guard(a, p)) minimises   L_Keep + hide * L_Confusion   on noisy releases, while several
              adversaries, replaced by fresh ones in turn, keep learning

L_Keep is the change of the cosines between people of one private class: angles between classes carry the private
attribute itself. L_Confusion is the adversaries' cross-entropy to the uniform prior, which is bounded.

- p is a probability, not a decision: of two images of one person near the border both are moved alike.
- The protector learns from out-of-fold guesses: on its own people the classifier errs less often than on strangers,
  and a guard that never saw a wrong guess gives the wrongly guessed away.
- The guard is the mean of its weights over the second half of its steps: what it does to its own people alone
  averages out.

With several private attributes the class is the joint one. One of fewer than five people counts as one that nobody
has, for its mean and map, which ship, would be theirs.

Alignment: see :mod:`veil.nn.transport`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.engine import Player, Run, Step
from veil.engine.run import one_cycle, seeded
from veil.errors import InputError
from veil.nn.losses import confusion, cross_entropy, gram_change
from veil.nn.nets import mlp
from veil.nn.transport import choose_shrinkage, transport_maps
from veil.release.contract import Contract
from veil.release.draws import normalised_noise

_KEEP = 20.0  # brings the change of squared cosines, hundredths, to the scale of a cross-entropy
_MIXUP = 0.4  # both parameters of mixup's beta distribution (Zhang et al. 2018)
_GUESS_BATCH = 256  # vectors a step of the classifier
_FEWEST = 5  # people of a class whose mean and map may ship


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What of a method's settings guess, alignment and guard read; see :class:`veil.methods.template.Config`."""

    training_noise: float
    hide: float
    align: bool
    guess: int
    steps_guess: int
    folds: int
    adversaries: int
    refresh: int
    batch: int
    steps: int
    lr: float
    lr_opponents: float

    @staticmethod
    def of(settings: Any) -> Plan:
        """Those of settings that have all of them, among others."""
        return Plan(**{f.name: getattr(settings, f.name) for f in fields(Plan)})


# -- private classes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The joint private classes of rows to learn from.

    Attributes:
        codes: ``(n,)`` for each private attribute.
        sizes: Number of classes of each.
        joint: ``(n,)`` joint classes.
        people: ``(n,)`` who is seen.
        members: Rows of each joint class that is learned.
    """

    codes: Sequence[NDArray[np.int64]]
    sizes: Sequence[int]
    joint: NDArray[np.int64]
    people: NDArray[np.int64]
    members: Sequence[NDArray[np.int64]]

    @property
    def count(self) -> int:
        """Number of joint classes, learned or not."""
        return math.prod(self.sizes)

    @staticmethod
    def of(
        method: str,
        codes: Sequence[NDArray[np.int64]],
        sizes: Sequence[int],
        people: NDArray[np.int64],
        known: NDArray[np.bool_] | None = None,
        *,
        ship: bool = True,
    ) -> Classes:
        """Those of rows ``(n,)``.

        Args:
            method: Whose rows they are, for messages.
            codes: ``(n,)`` for each private attribute, known for every row.
            sizes: Number of classes of each.
            people: ``(n,)`` who is seen; rows of one person are never on both sides of a fold.
            known: ``(n,)`` whether that is known; all if None. Others do not count as people of a class.
            ship: Whether something of each class ships: then classes of too few people are not learned.

        Raises:
            InputError: If all rows are one person's, or too few classes have people enough.
        """
        if len(np.unique(people)) < 2:
            raise InputError(f"{method}: needs vectors of at least 2 people to learn from, got 1")
        joint = np.ravel_multi_index(list(codes), list(sizes))
        present = np.unique(joint)
        if ship:
            usable = np.ones(len(people), bool) if known is None else known
            counts = [len(np.unique(people[usable & (joint == c)])) for c in present]
            present = present[np.array(counts) >= _FEWEST]
            if len(present) < 2:
                raise InputError(
                    f"{method}: needs two private classes of at least {_FEWEST} people each, for the mean of each "
                    f"ships, got {len(present)}"
                )
        members = [np.flatnonzero(joint == c) for c in present]
        return Classes(codes=codes, sizes=sizes, joint=joint, people=people, members=members)

    def origin(self, x: Tensor) -> Tensor:
        """The mean ``(k,)`` of the means of the classes of vectors ``(n, k)``."""
        return torch.stack([x[torch.from_numpy(rows).to(x.device)].mean(0) for rows in self.members]).mean(0)


def joint_classes(contract: Contract) -> int:
    """Number of joint private classes of a release."""
    return math.prod(len(names) for names in contract.classes.values())


def balanced(size: int, step: Step, members: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Rows of one batch, as many of every joint class."""
    each = -(-size // len(members))
    return step.rng.permutation(np.concatenate([step.rng.choice(rows, each) for rows in members]))[:size]


def learn(
    run: Run,
    player: Player,
    vectors: Callable[[Tensor], Tensor],
    classes: Classes,
    step: Step,
    members: Sequence[NDArray[np.int64]] | None = None,
) -> None:
    """A classifier of the joint class learns from a balanced batch, mixed up (Zhang et al. 2018).

    Args:
        run: Gives updates and precision.
        player: The classifier.
        vectors: Gives those of some rows.
        classes: Of all rows.
        step: Gives the draws.
        members: Rows that it may learn from, where these are not all.
    """
    chosen = balanced(run.batch(_GUESS_BATCH), step, classes.members if members is None else members)
    partner = step.rng.permutation(chosen)
    weight = float(step.rng.beta(_MIXUP, _MIXUP))
    mine, other = run.share(chosen), run.share(partner)
    mixed = weight * vectors(run.tensor(mine)) + (1 - weight) * vectors(run.tensor(other))
    with run.autocast():
        logits = player.module(spread(mixed)).float()
    losses = [cross_entropy(logits, run.tensor(classes.joint[rows])) for rows in (mine, other)]
    run.update(player, weight * losses[0] + (1 - weight) * losses[1])


def classifier(name: str, network: nn.Module, lr: float, steps: int) -> Player:
    """The player of a classifier of the joint class."""
    return Player(name, network, lr=lr, optimizer="adamw", weight_decay=0.01, schedule=one_cycle(steps))


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
        logits: Tensor = self.guess(spread(e)).float()
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
        return F.normalize(a + self.guard(torch.cat([spread(a), 2 * p - 1], 1)).float(), dim=1)

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        """``(B, k)`` of any length > 0 -> unit vectors ``(B, kept)``."""
        x = F.normalize(x / x.abs().amax(1, keepdim=True), dim=1)  # squares of what is tiny or huge are 0 or infinite
        e = self.erased(x)
        if self.guess is None:
            return e
        p = self.probabilities(e, allowed)
        g: Tensor = self.guarded(self.aligned(e, p), p)
        return g


def spread(x: Tensor) -> Tensor:
    """Unit vectors with values of unit variance, as networks like them."""
    return x * math.sqrt(x.shape[1])


# -- training ---------------------------------------------------------------------------------------------------------


class Training:
    """The players of guess, alignment and guard of a table of unit vectors.

    Its networks are drawn when it is made: within ``seeded``.

    Args:
        plan: Settings.
        run: Gives updates, stages and precision.
        encoder: The network whose guess and guard learn; it erases nothing more.
        classes: Of the rows.
    """

    def __init__(self, plan: Plan, run: Run, encoder: TemplateEncoder, classes: Classes) -> None:
        assert encoder.guess is not None
        self.plan, self.run, self.encoder, self.classes = plan, run, encoder, classes
        self.made: dict[str, float] = {}
        """What a user should know of the result: the shrinkage of the covariances."""
        kept = len(encoder.centre)
        guesses = [run.place(mlp([kept, plan.guess, plan.guess, classes.count])) for _ in range(plan.folds)]
        adversaries = [self._fresh_adversary(kept, i) for i in range(plan.adversaries if plan.hide else 0)]
        encoder.present.fill_(False)
        encoder.present[torch.from_numpy(classes.joint[[rows[0] for rows in classes.members]])] = True
        _, person = np.unique(classes.people, return_inverse=True)
        self.fold = np.random.default_rng(run.seed).permutation(person.max() + 1)[person] % plan.folds
        # What each classifier may learn from: everybody, then all but one fold (a class within one fold stays whole).
        self.learned = [classes.members]
        for fold in range(plan.folds):
            others = [rows[self.fold[rows] != fold] for rows in classes.members]
            self.learned.append([o if len(o) else rows for o, rows in zip(others, classes.members, strict=True)])
        self.guesses = [
            classifier("guess" if i == 0 else f"guess without fold {i}", network, plan.lr_opponents, plan.steps_guess)
            for i, network in enumerate([encoder.guess, *guesses])
        ]
        self.guard = Player(
            "guard", encoder.guard, lr=plan.lr, optimizer="adamw", weight_decay=0.01,
            schedule=one_cycle(plan.steps, warm_up=0.2),
        )  # fmt: skip
        # Never updated by a gradient: a player so that checkpoints hold it.
        self.average = Player("mean guard", copy.deepcopy(encoder.guard), lr=plan.lr)
        self.adversaries = [
            Player(f"adversary {i + 1}", a, lr=plan.lr_opponents, optimizer="adamw", weight_decay=1e-3)
            for i, a in enumerate(adversaries)
        ]
        self.players = [*self.guesses, self.guard, self.average, *self.adversaries]

    def train(self, x: Tensor) -> None:
        """All stages on unit vectors ``(n, k)``, centred and, where that is to be, erased."""
        for step in self.run.stage("guess", self.plan.steps_guess):
            for player, members in zip(self.guesses, self.learned, strict=True):
                learn(self.run, player, lambda rows: x[rows], self.classes, step, members)
        p = self.out_of_fold(x)
        if self.plan.align:
            self.align(x)
        with torch.no_grad():
            a = self.encoder.aligned(x, p)
        for step in self.run.stage("guard", self.plan.steps if self.plan.hide else 0):
            self.guard_step(step, x, a, p)
            self.average_guard(step)
        self.encoder.guard.load_state_dict(self.average.module.state_dict())

    def out_of_fold(self, x: Tensor) -> Tensor:
        """p(c | x) ``(n, Z)``, each row's from the classifier that did not learn from its person."""
        p = torch.empty(len(x), self.classes.count, device=x.device)
        for i, player in enumerate(self.guesses[1:]):
            rows = self.run.tensor(np.flatnonzero(self.fold == i))
            with torch.no_grad():
                p[rows] = player.module(spread(x[rows])).softmax(1)
        return p

    def align(self, x: Tensor) -> None:
        """Set the maps: closed form, so nothing is left of them to checkpoint."""
        classes = self.classes
        rows = np.sort(np.concatenate(classes.members))
        vectors, joint = x.cpu().numpy()[rows], classes.joint[rows]
        shrinkage = choose_shrinkage(vectors, joint, classes.people[rows], np.random.default_rng(self.run.seed))
        self.made["shrinkage"] = shrinkage
        values = transport_maps(vectors, joint, classes.count, shrinkage)
        for name, value in zip(("centre", "means", "maps"), values, strict=True):
            getattr(self.encoder, name).copy_(torch.from_numpy(value))

    def guard_step(self, step: Step, x: Tensor, a: Tensor, p: Tensor) -> None:
        """Adversaries learn on noisy releases; the guard confuses them and keeps the angles within a class."""
        plan, classes = self.plan, self.classes
        chosen = balanced(plan.batch, step, classes.members)
        mine = self.run.share(chosen)
        rows, everyone = self.run.tensor(mine), self.run.tensor(chosen)
        with self.run.autocast():
            g = self.encoder.guarded(a[rows], p[rows])
        normal = step.normal(*g.shape).to(g.device)
        released = normalised_noise(g, normal, plan.training_noise)
        labels = [self.run.tensor(c[mine]) for c in classes.codes]
        for adversary in self.adversaries:
            self.run.update(adversary, self._adversary_loss(adversary, released.detach(), labels))
        hiding = torch.stack([confusion(o) for b in self.adversaries for o in self._logits(b, released)]).mean()
        kept = gram_change(self.run.gather(g), x[everyone], self.run.tensor(classes.joint[chosen]))
        self.run.update(self.guard, _KEEP * kept + plan.hide * hiding)
        if plan.refresh and (step.number + 1) % plan.refresh == 0:
            turn = (step.number + 1) // plan.refresh - 1
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
        return self.run.place(mlp([k, *[(256, 512)[which % 2]] * (1 + which % 3), sum(self.classes.sizes)]))

    def _adversary_loss(self, adversary: Player, r: Tensor, labels: Sequence[Tensor]) -> Tensor:
        """Mean cross-entropy of the private attributes; batches are balanced by joint class."""
        losses = [cross_entropy(o, z) for o, z in zip(self._logits(adversary, r), labels, strict=True)]
        return torch.stack(losses).mean()

    def _logits(self, adversary: Player, r: Tensor) -> tuple[Tensor, ...]:
        with self.run.autocast():
            out: Tensor = adversary.module(spread(r))
        return torch.split(out.float(), list(self.classes.sizes), dim=1)
