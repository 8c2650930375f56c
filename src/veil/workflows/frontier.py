"""What noise buys and what it costs, measured: the frontier of a release with keyed noise, and a budget met on it.

Fresh attackers learn from the ``attack`` split, and the worst of them on ``calibrate`` counts: as it is picked on the
people that it is measured on, the figure errs towards caution, if anywhere. Matching, or the label that should stay, is
measured beside it. The ``test`` split stays unseen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.auditing.exhibit import Exhibit
from veil.auditing.rosters import roster
from veil.auditing.run import audit
from veil.auditing.setting import Setting
from veil.data.pack import SPLITS, Pack
from veil.errors import InputError, checked_seed
from veil.findings import CODES, Finding
from veil.findings.codes import ATTACK
from veil.release import Release

NOISES = (0.0, 0.4, 0.8, 1.2)
"""Norms of the noise, relative to the unit vector, at which a frontier is measured."""
STEPS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.7)
"""Norms at which a budget is looked for."""
LEVEL = 0.9
"""Coverage of a frontier's intervals, both sides: the upper limit alone holds with 95 %."""
_MOST = {
    "protect": 1,
    "attack": 20_000,
    "calibrate": 10_000,
}  # rows that take part; more would cost hours, not tell more


@dataclass(frozen=True, kw_only=True)
class Point:
    """A release at one noise.

    Attributes:
        noise: Norm of the noise relative to the unit vector.
        attacks: For each private attribute the worst attack's balanced accuracy, its limits and the attacker.
        utility: What is left: matching AUC, or balanced accuracy of the label, with limits; empty where no use can be
            measured, for the pack does not say who is seen and no label was named.
    """

    noise: float
    attacks: Mapping[str, Mapping[str, Any]]
    utility: Mapping[str, Any]

    def within(self, budget: Mapping[str, float]) -> bool:
        """Whether the upper limit of every budgeted attack stays at or below its budget."""
        return all(self.attacks[name]["high"] <= limit for name, limit in budget.items())

    @property
    def keeps(self) -> float:
        """What is left, in (0, 1]; of a use that was not measured noise takes, so the more the less there is of it."""
        return float(self.utility["value"]) if self.utility else 1 / (1 + self.noise)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is measured at each point.

    Attributes:
        private: Labels to attack.
        utility: ``"identity"``, or a label to read. Identity is not measured where the pack does not say who is seen.
        seed: Seeds attackers and pairs.
        jobs: Processes; the number of processors if None.
        looks: Points among which a choice will be made by their upper limits. Each limit then holds with a miss rate
            so many times smaller (Bonferroni): the least noise that seems to do was looked for, and luck found it.
    """

    private: Sequence[str]
    utility: str
    seed: int = 0
    jobs: int | None = None
    looks: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_seed(self.seed))


def measure(
    release: Release,
    pack: Pack,
    question: Question,
    *,
    noises: Sequence[float] | None = None,
    budget: Mapping[str, float] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Point]:
    """The frontier of a release: one point for each noise, in rising order.

    Args:
        release: With keyed noise in its contract, and its key.
        pack: Attackers learn on its ``attack`` split; ``calibrate`` is measured.
        question: What is attacked and kept.
        noises: Norms to measure, >= 0; :data:`NOISES` if None, :data:`STEPS` under a budget.
        budget: Stop at the first noise that meets it; then also measure half-way to the one before.
        progress: Told points done, points in all and what was done last.
    """
    if release.key is None:
        raise InputError("frontier: the release needs a key to add noise with, got none")
    seen = _view(pack, question)
    noises = noises or (NOISES if budget is None else STEPS)
    points: list[Point] = []
    for number, noise in enumerate(sorted(noises)):
        points.append(_point(release, seen, noise, question))
        if progress is not None:
            progress(number + 1, len(noises), f"noise {noise:g}")
        if budget is not None and points[-1].within(budget):
            break
    if budget is not None and len(points) > 1 and points[-1].within(budget):
        between = (points[-2].noise + points[-1].noise) / 2
        points.insert(-1, _point(release, seen, between, question))
    return points


def meet(points: Sequence[Point], budget: Mapping[str, float]) -> Point:
    """The point with the least noise that meets the budget.

    Raises:
        InputError: If none does; it says how near the nearest came.
    """
    for point in points:
        if point.within(budget):
            return point
    nearest = min(points, key=lambda p: max(p.attacks[name]["high"] - limit for name, limit in budget.items()))
    reached = ", ".join(f"{name} {nearest.attacks[name]['high']:.3f}" for name in budget)
    wanted = ", ".join(f"{name} {limit:g}" for name, limit in budget.items())
    raise InputError(
        f"budget: {wanted} cannot be had; the nearest is {reached} (upper limit of the worst attack on `calibrate`) at "
        f"noise {nearest.noise:g}"
    )


def kept(points: Sequence[Point], budget: Mapping[str, float]) -> float:
    """What the best point within the budget keeps of the use; minus how far the nearest is off where none is."""
    inside = [point.keeps for point in points if point.within(budget)]
    if inside:
        return max(inside)
    return -float(min(max(p.attacks[name]["high"] - limit for name, limit in budget.items()) for p in points))


def with_noise(release: Release, noise: float) -> Release:
    """The same release with another noise; its key stays, though its draws are others."""
    contract = replace(release.contract, noise=noise)
    return replace(
        release,
        config={**release.config, "noise": noise},
        contract=contract,
        key=release.key if contract.keyed else None,
    )


def parse_budget(text: str) -> tuple[str, float]:
    """``NAME=LIMIT`` as a label, whose name may hold a ``=``, and a balanced accuracy in (0, 1]."""
    name, equals, value = text.rpartition("=")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if not equals or not name or not 0 < limit <= 1:
        raise InputError(f"budget: must be NAME=LIMIT with a balanced accuracy in (0, 1], got {text!r}")
    return name, limit


def as_plain(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Points as JSON keeps them."""
    return [asdict(point) for point in points]


def _view(pack: Pack, question: Question) -> Pack:
    """The pack with ``calibrate`` in place of ``test`` too; attackers have as many people as an audit gives them."""
    rng = np.random.default_rng(question.seed)
    pack.require(private=list(question.private), among=["attack", "calibrate"])
    rows = {name: pack.rows(name) for name in _MOST}
    rows = {name: np.sort(rng.choice(r, min(len(r), _MOST[name]), replace=False)) for name, r in rows.items()}
    chosen = np.concatenate([rows["protect"], rows["attack"], rows["calibrate"], rows["calibrate"]])
    counts = [len(rows[name]) for name in ("protect", "attack", "calibrate", "calibrate")]
    return Pack(
        x=pack.x[chosen],
        labels={name: codes[chosen] for name, codes in pack.labels.items()},
        classes=pack.classes,
        split=np.repeat(np.arange(len(SPLITS), dtype=np.int8), counts),
        sources=pack.sources[chosen],
        meta=pack.meta,
    )


def _point(release: Release, seen: Pack, noise: float, question: Question) -> Point:
    x: NDArray[np.float32] = with_noise(release, noise).transform(seen.x)
    uses = seen.known_use(question.utility)
    setting = Setting(
        pack=seen, private=tuple(question.private), utility=uses, roster=roster("quick"), effort="quick",
        seed=question.seed, level=1 - (1 - LEVEL) / question.looks, together=False,
    )  # fmt: skip
    findings = audit([Exhibit.of("release", x, "method")], setting, jobs=question.jobs).findings
    code = "verification.auc" if question.utility == "identity" else "utility.balanced_accuracy"
    return Point(
        noise=noise,
        attacks={name: _picked(findings, ATTACK, name) for name in question.private},
        utility=_picked(findings, code, question.utility) if uses else {},
    )


def _picked(findings: Sequence[Finding], code: str, target: str) -> dict[str, Any]:
    """The best figure of a code; the best AUC where every attacker's decision names one class for everybody.

    No threshold on scores whose ROC curve bulges everywhere gets a balanced accuracy above their AUC: so a limit that
    the AUC keeps, the balanced accuracy keeps.
    """
    about = [f for f in findings if f.ok and f.target == target and f.role != "control"]
    hits = [f for f in about if f.code == code] or [f for f in about if f.code == CODES[code].stand_in]
    if not hits:
        raise InputError(f"frontier: {target} could not be measured on `calibrate`; see `veil audit`")
    best = max(hits, key=lambda f: f.value or 0)  # of all: here the data that picks is the data that measures
    return {"code": best.code, "value": best.value, "low": best.low, "high": best.high, "n": best.n,
            "chance": best.chance, "attacker": best.attacker}  # fmt: skip
