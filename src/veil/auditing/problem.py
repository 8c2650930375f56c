"""What an attacker may know, how it sees releases, and how its scores become decisions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from veil.auditing.metrics import balanced_accuracy, best_threshold, macro_auc
from veil.data.pack import flat
from veil.engine.player import Diverged
from veil.errors import InputError

Floats = NDArray[np.float32]
Score = Callable[[NDArray[np.generic]], Floats]
Embed = Callable[[NDArray[np.generic]], Floats]
View = Callable[[NDArray[np.generic]], Floats]
"""What an attacker sees of releases."""

EFFORTS = ("quick", "standard", "strong")

WIDE = 256  # kernel, neighbour and tree attackers see this many principal components of wider releases
_CLIP = 10.0  # deviations at which standardised values stop: one wild value must not rule a linear or a neural attacker


class DidNotConverge(Exception):
    """The attacker's training failed; its figure must not be read as safety."""


def failure(error: Exception) -> tuple[str, str]:
    """Status and note of the finding that stands in place of a figure, whatever an attacker or its like raised.

    What does not fit the data (InputError) is not applicable. Everything else did not converge, also what nobody
    foresaw, a singular matrix or a lack of memory, say, whose class the note then names: an attack that broke off shows
    nothing of the release.
    """
    said = (str(error).strip().splitlines() or [""])[0][:200]
    if isinstance(error, DidNotConverge | Diverged):
        return "did_not_converge", said or type(error).__name__
    if isinstance(error, InputError):
        return "not_applicable", said
    return "did_not_converge", f"{type(error).__name__}: {said}" if said else type(error).__name__


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What an attacker may know.

    Attributes:
        x: Releases to train on: float32 ``(n, k)``, or uint8 images ``(n, H, W[, 3])``.
        y: int64 ``(n,)`` codes of the label (of the person, for matchers).
        x_validation: Releases to choose settings on.
        y_validation: Their codes.
        classes: Z.
        seed: Seeds every draw.
        effort: ``"quick"``, ``"standard"`` or ``"strong"``: training length, restarts and settings tried.
        feature_map: ``(C, H, W)`` where a release is a flattened map.
    """

    x: NDArray[np.generic]
    y: NDArray[np.int64]
    x_validation: NDArray[np.generic]
    y_validation: NDArray[np.int64]
    classes: int
    seed: int
    effort: str = "standard"
    feature_map: tuple[int, int, int] | None = None

    def pick(self, *settings: int) -> int:
        """The setting of this effort: one value for each of :data:`EFFORTS`."""
        return settings[EFFORTS.index(self.effort)]

    @property
    def image_like(self) -> bool:
        """Whether convolutions take part: on images always, on maps unless it must be quick (they are small)."""
        return self.x.ndim > 2 or (self.feature_map is not None and self.effort != "quick")


# -- views of the releases --------------------------------------------------------------------------------------------


def _moments(x: Floats, axes: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Mean over ``axes`` and 1 / deviation, or 0 where all values are equal.

    In float64: the float32 mean of 100,000 equal values is off by enough to make them look different. What varies at
    all is kept, however far from 0: a counter in millions tells as much as one that begins at 0.
    """
    n = len(x)
    mean = x.mean(axes, dtype=np.float64, keepdims=True)
    square = sum(
        np.square(part - mean).mean(axes, keepdims=True) * len(part) for part in np.array_split(x, -(-n // 1024))
    )
    deviation = np.sqrt(square / n)
    varies = x.min(axes, keepdims=True) < x.max(axes, keepdims=True)
    some = varies & (deviation > np.finfo(np.float32).tiny)
    inverse = np.divide(1, deviation, out=np.zeros_like(deviation), where=some)
    return mean.astype(np.float32), inverse.astype(np.float32)


@dataclass(frozen=True)
class Standardiser:
    """Zero mean and unit deviation by the training rows, cut at 10 deviations; constant columns become zero."""

    mean: Floats
    inverse: Floats

    @staticmethod
    def fit(x: Floats) -> Standardiser:
        return Standardiser(*_moments(x, (0,)))

    def __call__(self, x: NDArray[np.generic]) -> Floats:
        out: Floats = np.clip((flat(x) - self.mean) * self.inverse, -_CLIP, _CLIP)
        return out


def compact(problem: Problem, wide: int = WIDE) -> View:
    """Standardised columns; of a wide release its first principal components, so that kernels and trees can cope."""
    standard = Standardiser.fit(flat(problem.x))
    x = standard(problem.x)
    if x.shape[1] <= WIDE:
        return standard
    if not standard.inverse.any():  # a constant release has no components
        return lambda new: standard(new)[:, :1]
    pca = PCA(min(wide, len(x) - 1), svd_solver="randomized", random_state=problem.seed).fit(x)
    scale = np.float32(1 / math.sqrt(max(pca.explained_variance_[0], 1e-12)))
    return lambda new: (pca.transform(standard(new)) * scale).astype(np.float32)


def whitened(problem: Problem, view: View | None = None) -> View:
    """Uncorrelated columns of unit deviation, out of at most 256 principal components.

    A protector that fights attackers presses what they read into directions of little variation, which standardised
    columns, penalised weights and short training do not see. Here these weigh the same as all others. ``view`` is what
    :func:`compact` gives, where that is there already.
    """
    view = view or compact(problem)
    x = view(problem.x).astype(np.float64)
    centre = x.mean(0)
    values, axes = np.linalg.eigh((x - centre).T @ (x - centre) / len(x))
    kept = values > values.max(initial=0) * 1e-9  # less is rounding of float32
    kept[-1] = True  # of a constant release this column of zeros is left
    project = axes[:, kept] / np.sqrt(np.maximum(values[kept], 1e-30))
    return lambda new: np.clip((view(new) - centre) @ project, -_CLIP, _CLIP).astype(np.float32)


def best_of(problem: Problem, candidates: Sequence[Score]) -> Score:
    """The candidate that tells the classes of validation data best."""

    def found(score: Score) -> float:
        return quality(score(problem.x_validation), problem.y_validation, problem.classes)

    return candidates[0] if len(candidates) == 1 else max(candidates, key=found)


def quality(scores: NDArray[Any], y: NDArray[np.int64], classes: int) -> float:
    """How well scores ``(n, Z)`` tell the classes of validation data: AUC of two, balanced accuracy of more.

    AUC does not depend on a threshold. Balanced accuracy at a threshold that was set on the same data says more of the
    threshold's luck than of an attack that is weak.
    """
    if classes == 2 and len(np.unique(y)) == 2:
        return macro_auc(y, scores, classes=classes)
    return balanced_accuracy(y, scores.argmax(1), classes=classes)


def full_scores(scores: NDArray[np.floating], present: NDArray[np.int64], classes: int) -> Floats:
    """Scores ``(n, Z)`` from those of the classes seen in training; the others score lowest."""
    out = np.full((len(scores), classes), scores.min() - 1 if scores.size else -1, np.float32)
    out[:, present] = scores
    return out


def decision(scores: NDArray[Any], y: NDArray[np.int64], classes: int) -> Callable[[NDArray[Any]], NDArray[np.int64]]:
    """From scores to codes: of two classes by a threshold set on validation data, else the largest score.

    The threshold is where a class-balanced logistic curve, fitted to the validation scores, crosses 1/2. The curve is
    drawn over the scores' normal quantiles, so that their scale does not matter. The threshold that happens to be best
    on the validation data would cost more: simulated with Gaussian scores of 400 rows, 0.5 points of balanced accuracy
    on new data against 0.02. It serves where the curve does not rise, and where it is better than the curve by more
    than 1.5 standard errors: a curve runs through the middle of scores of which only some, far away, tell the class.
    """
    if classes != 2 or len(np.unique(y)) != 2:
        return largest
    known = scores[:, 1].astype(np.float64) - scores[:, 0]
    values, place, count = np.unique(known, return_inverse=True, return_counts=True)
    best = threshold = best_threshold(known, y == 1)
    if len(values) > 1:
        shares = (np.cumsum(count) - count / 2) / len(known)
        quantiles = np.array([NormalDist().inv_cdf(share) for share in shares])
        curve = LogisticRegression(C=100.0, class_weight="balanced").fit(quantiles[place][:, None], y)
        if curve.coef_[0, 0] > 0:
            threshold = float(np.interp(-curve.intercept_[0] / curve.coef_[0, 0], quantiles, values))
            right, other = (((known >= t) == y).astype(np.float64) for t in (best, threshold))
            gains = [(right - other)[y == z] for z in (0, 1)]
            error = math.sqrt(sum(gain.var() / len(gain) for gain in gains)) / 2
            if sum(gain.mean() for gain in gains) / 2 > 1.5 * error:
                threshold = best
    return lambda s: (s[:, 1].astype(np.float64) - s[:, 0] >= threshold).astype(np.int64)


def undecided(predicted: NDArray[Any], y: NDArray[Any]) -> str:
    """Why decisions ``(n,)`` have no figure, or "": all are one class, and ``y`` ``(n,)`` has several.

    Such a decision is right as often as a coin, whoever the people are: a figure would claim to know what only the
    threshold is to blame for.
    """
    if len(np.unique(y)) > 1 and (predicted == predicted[0]).all():
        return "names one class for everybody, so that its decision tells nothing of what it knows: see its AUC"
    return ""


def largest(scores: NDArray[Any]) -> NDArray[np.int64]:
    """From scores ``(n, Z)`` to the codes of the largest."""
    codes: NDArray[np.int64] = scores.argmax(1).astype(np.int64)
    return codes
