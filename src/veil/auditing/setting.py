"""The setting of an audit: what is asked, of which data, and who attacks. It is made once and handed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil._version import __version__
from veil.auditing.problem import EFFORTS, Embed, Problem, Score
from veil.auditing.task import key
from veil.data.pack import SPLITS, Pack
from veil.errors import InputError, checked_seed
from veil.findings import Finding, Measurement
from veil.nn.embedders import Network

Attack = Callable[[Problem], Score]
Match = Callable[[Problem], Embed]


@dataclass(frozen=True, kw_only=True)
class Roster:
    """Who attacks and who compares, by name.

    Attributes:
        attackers: Read a label from a release.
        of_means: Read a label from the mean of several releases.
        of_templates: Read a label from what a pretrained face embedder makes of releases that are images.
        restorers: Repair releases before they are read.
        of_restored: Read restored vectors, having learned from originals.
        of_members: Learn to tell who was in the training data.
        control: Learns from shuffled labels.
        classifiers: Learn a label from originals, and are shown releases that are images.
        matchers: Learn to compare releases, beside the metrics.
        linkers: Learn to find the original of a release.
        decoders: Redraw originals from releases.
    """

    attackers: Mapping[str, Attack]
    of_means: Mapping[str, Attack] = field(default_factory=dict)
    of_templates: Mapping[str, Attack] = field(default_factory=dict)
    restorers: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    of_restored: Mapping[str, Attack] = field(default_factory=dict)
    of_members: Mapping[str, Attack] = field(default_factory=dict)
    control: tuple[str, Attack]
    classifiers: Mapping[str, Attack] = field(default_factory=dict)
    matchers: Mapping[str, Match] = field(default_factory=dict)
    linkers: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    decoders: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Networks that were not trained here, of ONNX files or bundled; findings call them by their names.

    Attributes:
        matcher: A face matcher.
        classifiers: For each label its classifiers; they give logits in the order of the label's classes in the pack.
        embedder: Pretrained on faces of others, for attackers that see images through it; why there is none, or ""
            where none is of interest.
    """

    matcher: Network | None = None
    classifiers: Mapping[str, Sequence[Network]] = field(default_factory=dict)
    embedder: Network | str = ""

    @property
    def fingerprint(self) -> str:
        """Changes with whatever their answers depend on."""
        matcher = None if self.matcher is None else self.matcher.fingerprint
        embedder = self.embedder if isinstance(self.embedder, str) else self.embedder.fingerprint
        return key(
            matcher,
            embedder,
            {name: [each.fingerprint for each in several] for name, several in self.classifiers.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """How originals are redrawn.

    Attributes:
        perceptual: File of torchvision's VGG-16 weights, for perceptual distances. None: a network is trained on the
            splits that attackers train on.
    """

    perceptual: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an audit asks.

    Raises InputError, with all that is wrong in one line, for an unknown label, effort or split, an empty class, or
    labels that nobody could name.

    Attributes:
        pack: Labels and splits; its ``x`` is read for inversion alone.
        private: Labels to attack.
        utility: ``"identity"`` for verification, or labels to read.
        roster: Who attacks.
        attack_on: Splits that attackers and matchers train on. ``("protect", "attack")`` gives them the protector's own
            data too, the strongest case.
        effort: ``"quick"``, ``"standard"`` or ``"strong"``.
        seed: Seeds attackers and pairs.
        level: Coverage of intervals, both sides together.
        together: Also attack pools of one person's releases and link releases to the input.
        inversion: Also redraw the pack's ``x`` from releases; None: do not.
        scores: Also give the scores of the pairs of verification.
        networks: Of the user's.
    """

    pack: Pack
    private: tuple[str, ...]
    utility: tuple[str, ...]
    roster: Roster
    attack_on: tuple[str, ...] = ("attack",)
    effort: str = "standard"
    seed: int = 0
    level: float = 0.95
    together: bool = True
    inversion: Inversion | None = None
    scores: bool = False
    networks: Networks = Networks()

    def __post_init__(self) -> None:
        for name in ("private", "utility", "attack_on"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        object.__setattr__(self, "seed", checked_seed(self.seed))
        if problems := self._wrong_options() + self._wrong_data():
            raise InputError("; ".join(problems))

    def _wrong_options(self) -> list[str]:
        problems = []
        if not self.private and not self.utility and self.inversion is None:
            problems.append("labels: at least one private or utility label must be named, got none")
        if self.effort not in EFFORTS:
            problems.append(f"effort: must be one of {', '.join(EFFORTS)}, got {self.effort!r}")
        if not 0.5 <= self.level < 1:
            problems.append(f"level: must lie in [0.5, 1), got {self.level}")
        if not self.attack_on or not set(self.attack_on) <= {"protect", "attack"}:
            problems.append(f"attackers: must train on 'attack' or 'protect', got {list(self.attack_on)}")
        return problems

    def _wrong_data(self) -> list[str]:
        splits = [split for split in SPLITS if split in self.attack_on]
        try:
            self.pack.require(private=list(self.private), utility=list(self.utility),
                              among=sorted({*splits, "calibrate", "test"}))  # fmt: skip
        except InputError as error:
            return [str(error)]
        return strangers(self.pack, self.private, splits, "test")

    # -- what families read ------------------------------------------------------------------------------------------

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of use that are read, which identity is not."""
        return tuple(name for name in self.utility if name != "identity")

    @property
    def knows_people(self) -> bool:
        return "identity" in self.pack.labels

    def rows(self, *known: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Rows to learn from, to choose on and to measure on, of which some labels are known."""
        train, check, test = (
            self.pack.rows(*splits, known=known) for splits in (self.attack_on, ("calibrate",), ("test",))
        )
        return train, check, test

    def people(self, target: str = "") -> NDArray[np.int64] | None:
        """Codes ``(N,)`` of who is seen, by whom intervals are clustered; None where nobody knows, or it is asked."""
        return None if target == "identity" or not self.knows_people else self.pack.label("identity")

    def nobody(self, release: str, target: str, role: str) -> Measurement:
        """What findings share where nobody measured anything, and one says so."""
        return Measurement(release=release, target=target, attacker="none", role=role, n=0, level=self.level)

    def embedder_of(self, shape: tuple[int, ...]) -> Network | None:
        """The pretrained embedder, for releases of that shape; None where there is none, or they are no such images."""
        embedder = self.networks.embedder
        return None if isinstance(embedder, str) or shape != self.pack.x.shape[1:] else embedder

    @cached_property
    def _common(self) -> tuple[Any, ...]:
        return (__version__, self.pack.fingerprint, self.attack_on, self.effort, self.seed, self.level)

    def key(self, *parts: Any) -> str:
        """The key of a task that depends on these plain values beside the data, effort, seed and level."""
        return key(self._common, parts)


def without(nobody: Measurement, code: str, status: str, note: str) -> list[Finding]:
    """The finding in place of a task's, from status and note; for ``functools.partial``."""
    return [nobody.missing(code, status, note)]


def strangers(pack: Pack, private: Sequence[str], attack_on: Sequence[str], measured: str) -> list[str]:
    """What is wrong with splits that keep people apart, where it is attacked who somebody is: none could be named."""
    if "identity" not in private:
        return []
    known, asked = (np.unique(pack.label("identity")[pack.rows(*s, known="identity")]) for s in (attack_on, [measured]))
    if np.isin(asked, known).any():
        return []
    return [
        f"private: identity can only be attacked where people stand in several splits, and nobody of {measured} is in "
        f"{' or '.join(attack_on)}; pack the data so (--no-disjoint)"
    ]
