"""Figures of merit, all of which take sample weights.

A row of integer weight w counts exactly as w copies of it would. Where a figure is undefined (no weight on one of the
two sides of a ROC curve, say) it is NaN; the callers turn that into "not applicable".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from veil.errors import InputError

Floats = NDArray[np.float64]


def _weights(weights: NDArray[Any] | None, n: int) -> Floats:
    """The weights as float64 ``(n,)``, ones by default; refuses other lengths and weights below zero."""
    if weights is None:
        return np.ones(n)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n,):
        raise InputError(f"weights must have one entry for each of the {n} rows, got shape {w.shape}")
    if n and not w.min() >= 0:  # written so that NaN is refused too
        raise InputError(f"weights must be at least 0, got {w.min()}")
    return w


def _codes(name: str, codes: NDArray[Any], classes: int) -> NDArray[np.intp]:
    """Class codes ``(n,)`` as indices; refuses codes outside 0..classes - 1 (-1 means unknown: drop such rows)."""
    c = np.asarray(codes).astype(np.intp, copy=False)
    if c.size and not (c.min() >= 0 and c.max() < classes):
        raise InputError(f"{name} must lie in 0..{classes - 1}, got {c.min()}..{c.max()}")
    return c


def _same_length(y: NDArray[Any], other: NDArray[Any], name: str) -> None:
    if len(y) != len(other):
        raise InputError(f"{name} must have as many rows as the labels: {len(other)} rows, {len(y)} labels")


# Labels -------------------------------------------------------------------------------------------------------------


def accuracy(y: NDArray[Any], predicted: NDArray[Any], *, weights: NDArray[Any] | None = None) -> float:
    """The weighted share of rows whose prediction is right; ``y`` and ``predicted`` are ``(n,)``."""
    _same_length(y, predicted, "predictions")
    w = _weights(weights, len(y))
    total = w.sum()
    return float(w[np.asarray(y) == np.asarray(predicted)].sum() / total) if total > 0 else float("nan")


def balanced_accuracy(
    y: NDArray[Any], predicted: NDArray[Any], *, classes: int, weights: NDArray[Any] | None = None
) -> float:
    """The mean over classes of the share of the class's rows that are predicted right.

    ``y`` and ``predicted`` hold codes 0..classes - 1, ``(n,)``. Classes without weight in ``y`` are left out of the
    mean. Chance, for any predictor that knows nothing about y, is 1 / (number of classes present).
    """
    _same_length(y, predicted, "predictions")
    y, predicted = _codes("labels", y, classes), _codes("predictions", predicted, classes)
    w = _weights(weights, len(y))
    total = np.bincount(y, weights=w, minlength=classes)
    right = np.bincount(y, weights=w * (y == predicted), minlength=classes)
    present = total > 0
    return float(np.mean(right[present] / total[present])) if present.any() else float("nan")


def mcc(y: NDArray[Any], predicted: NDArray[Any], *, classes: int, weights: NDArray[Any] | None = None) -> float:
    """Matthews' correlation coefficient for any number of classes, in [-1, 1]; 0 for a constant prediction.

    With c the weight predicted right, s the whole weight, t_k the weight of class k and p_k that predicted as k:
    (c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2)). Gorodkin, Comput. Biol. Chem. 28, 2004.
    """
    _same_length(y, predicted, "predictions")
    y, predicted = _codes("labels", y, classes), _codes("predictions", predicted, classes)
    w = _weights(weights, len(y))
    s = w.sum()
    if s <= 0:
        return float("nan")
    # Shares rather than sums: squares of large sums would cancel badly.
    t = np.bincount(y, weights=w, minlength=classes) / s
    p = np.bincount(predicted, weights=w, minlength=classes) / s
    c = w[y == predicted].sum() / s
    spread = (1 - p @ p) * (1 - t @ t)
    # One class holds everything up to rounding: the correlation is 0 / 0, by convention 0.
    return float(np.clip((c - p @ t) / np.sqrt(spread), -1, 1)) if spread > 1e-24 else 0.0


# Scores -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Roc:
    """A ROC curve: a row is accepted when its score is at least the threshold.

    Attributes:
        thresholds: ``(L + 1,)``, falling: +inf, then the L distinct scores.
        far: ``(L + 1,)`` share of the impostors (negatives) accepted at each threshold, rising from 0 to 1.
        tar: ``(L + 1,)`` share of the genuine (positives) accepted, rising from 0 to 1.

    ``far`` or ``tar`` is all NaN where there is no impostor or no genuine weight; the figures are NaN then.
    """

    thresholds: Floats
    far: Floats
    tar: Floats

    def defined(self) -> bool:
        return bool(np.isfinite(self.far[-1]) and np.isfinite(self.tar[-1]))

    def auc(self) -> float:
        """Area under the curve: P(genuine score > impostor score) + P(equal) / 2."""
        if not self.defined():
            return float("nan")
        # The trapezium over a run of tied scores gives them their half. As a share of both areas, that under and that
        # above the curve, scores that separate perfectly have 0 or 1 exactly, however their shares were rounded.
        step, height = np.diff(self.far), (self.tar[1:] + self.tar[:-1]) / 2
        under, above = float(step @ height), float(step @ (1 - height))
        return under / (under + above)

    def eer(self) -> float:
        """Equal error rate: where FAR = 1 - TAR on the curve, its points joined by straight lines."""
        if not self.defined():
            return float("nan")

        def excess(k: int) -> float:  # FAR - FRR: rises from -1 to 1
            return float(self.far[k] + self.tar[k] - 1)

        k = bisect_left(range(len(self.far)), 0.0, key=excess)
        step = excess(k - 1) / (excess(k - 1) - excess(k))
        return float(self.far[k - 1] + step * (self.far[k] - self.far[k - 1]))

    def tar_at_far(self, far: float) -> float:
        """The highest TAR of the thresholds whose FAR is at most ``far``: no interpolation, never flattering."""
        if not self.defined():
            return float("nan")
        return float(self.tar[np.searchsorted(self.far, far, side="right") - 1])

    def best_threshold(self) -> float:
        """The threshold of the highest mean of TAR and 1 - FAR: the middle of the gap between the scores around it.

        The highest such threshold where several are equally good; +-inf where it is best to accept none or all.
        """
        if not self.defined():
            return float("nan")
        k = int(np.argmax(self.tar - self.far))
        if k == 0:
            return float("inf")
        if k == len(self.far) - 1:
            return float("-inf")
        high, low = float(self.thresholds[k]), float(self.thresholds[k + 1])
        middle = low + (high - low) / 2
        return middle if middle > low else high  # neighbours in floating point: the middle may round down


@dataclass(frozen=True)
class Ranking:
    """Scores sorted once, for the curves of many weightings.

    Attributes:
        order: ``(n,)`` the rows by falling score.
        genuine: ``(n,)`` 1.0 for genuine rows, 0.0 for impostors, in that order.
        impostor: ``(n,)`` the opposite.
        ends: ``(L,)`` the position of the last row of each distinct score; None where all scores are distinct.
        thresholds: ``(L + 1,)`` as in :class:`Roc`.
    """

    order: NDArray[np.intp]
    genuine: Floats
    impostor: Floats
    ends: NDArray[np.intp] | None
    thresholds: Floats

    def roc(self, weights: NDArray[Any] | None = None) -> Roc:
        """The curve under weights ``(n,)`` in the order of the rows that were ranked."""
        return self.roc_ordered(_weights(weights, len(self.order))[self.order])

    def roc_ordered(self, weights: Floats) -> Roc:
        """The curve under weights ``(n,)`` given by falling score, as ``w[ranking.order]`` would be."""
        tar = self._shares(weights * self.genuine)
        far = self._shares(weights * self.impostor)
        return Roc(thresholds=self.thresholds, far=far, tar=tar)

    def placements(self) -> Floats:
        """For each row ``(n,)``, in the rows' order, the share of the other side that it is in order with, ties half.

        Genuine rows should lie above impostors. The mean over either side is the AUC; NaN where a side is empty.
        """
        roc = self.roc_ordered(np.ones(len(self.order)))
        level = np.arange(len(self.order)) if self.ends is None else np.searchsorted(self.ends, range(len(self.order)))
        far, tar = ((shares[1:] + shares[:-1]) / 2 for shares in (roc.far, roc.tar))
        placed = np.empty(len(self.order))
        placed[self.order] = np.where(self.genuine > 0, 1 - far[level], tar[level])
        return placed

    def _shares(self, weights: Floats) -> Floats:
        sums = np.empty(len(weights) + 1)
        sums[0] = 0
        np.cumsum(weights, out=sums[1:])
        if not sums[-1] > 0:
            return np.full(len(self.thresholds), np.nan)
        sums /= sums[-1]
        return sums if self.ends is None else sums[np.append(0, self.ends + 1)]


def rank(scores: NDArray[Any], same: NDArray[Any]) -> Ranking:
    """Sorts scores ``(n,)``, higher meaning more alike; ``same`` ``(n,)`` is true for genuine (positive) rows.

    Raises InputError for scores that are not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    _same_length(np.asarray(same), scores, "scores")
    if not np.isfinite(scores).all():
        raise InputError(f"scores must be finite: {int((~np.isfinite(scores)).sum())} of {len(scores)} are not")
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.append(falling[1:] != falling[:-1], True) if len(falling) else np.zeros(0, dtype=bool)
    ends = np.flatnonzero(last)
    genuine = np.asarray(same).astype(bool)[order].astype(np.float64)
    return Ranking(
        order=order,
        genuine=genuine,
        impostor=1 - genuine,
        ends=None if len(ends) == len(falling) else ends,
        thresholds=np.concatenate([[np.inf], falling[ends]]),
    )


def roc(scores: NDArray[Any], same: NDArray[Any], *, weights: NDArray[Any] | None = None) -> Roc:
    """The ROC curve of scores ``(n,)``, higher meaning more alike, with ``same`` ``(n,)`` true for genuine rows."""
    return rank(scores, same).roc(weights)


def auc(scores: NDArray[Any], same: NDArray[Any], *, weights: NDArray[Any] | None = None) -> float:
    """Area under the ROC curve; see :meth:`Roc.auc`."""
    return roc(scores, same, weights=weights).auc()


def eer(scores: NDArray[Any], same: NDArray[Any], *, weights: NDArray[Any] | None = None) -> float:
    """Equal error rate, interpolated; see :meth:`Roc.eer`."""
    return roc(scores, same, weights=weights).eer()


def tar_at_far(scores: NDArray[Any], same: NDArray[Any], far: float, *, weights: NDArray[Any] | None = None) -> float:
    """True-accept rate where at most ``far`` of the impostors are accepted; see :meth:`Roc.tar_at_far`."""
    return roc(scores, same, weights=weights).tar_at_far(far)


def best_threshold(scores: NDArray[Any], same: NDArray[Any], *, weights: NDArray[Any] | None = None) -> float:
    """The threshold with the highest mean of true-accept and true-reject rate; see :meth:`Roc.best_threshold`."""
    return roc(scores, same, weights=weights).best_threshold()


def accuracy_at(
    scores: NDArray[Any], same: NDArray[Any], threshold: float, *, weights: NDArray[Any] | None = None
) -> float:
    """The mean of the true-accept and the true-reject rate when scores of at least ``threshold`` are accepted."""
    _same_length(np.asarray(same), np.asarray(scores), "scores")
    right = (np.asarray(scores) >= threshold) == np.asarray(same).astype(bool)
    w = _weights(weights, len(right))
    genuine = w * np.asarray(same).astype(bool)
    impostor = w - genuine
    if genuine.sum() <= 0 or impostor.sum() <= 0:
        return float("nan")
    return float((genuine @ right / genuine.sum() + impostor @ right / impostor.sum()) / 2)


def one_vs_rest(y: NDArray[Any], scores: NDArray[Any], *, classes: int) -> list[Ranking]:
    """One ranking per class against the others; a single one (class 1 against 0) for two classes.

    ``y`` holds codes 0..classes - 1, ``(n,)``; ``scores`` is ``(n, classes)``, or for two classes ``(n,)``: the score
    of class 1. From two columns the difference ranks, which serves probabilities, logits and votes alike.
    """
    y = _codes("labels", y, classes)
    scores = np.asarray(scores, dtype=np.float64)
    _same_length(y, scores, "scores")
    if scores.ndim == 1 and classes == 2:
        return [rank(scores, y == 1)]
    if scores.ndim != 2 or scores.shape[1] != classes:
        raise InputError(f"scores must have one column for each of the {classes} classes, got shape {scores.shape}")
    if classes == 2:
        return [rank(scores[:, 1] - scores[:, 0], y == 1)]
    return [rank(scores[:, z], y == z) for z in range(classes)]


def mean_auc(rankings: list[Ranking], weights: NDArray[Any] | None = None) -> float:
    """The mean AUC of the rankings under weights ``(n,)``, without those that lack one of their two sides."""
    areas = np.array([ranking.roc(weights).auc() for ranking in rankings])
    defined = np.isfinite(areas)
    return float(areas[defined].mean()) if defined.any() else float("nan")


def macro_auc(y: NDArray[Any], scores: NDArray[Any], *, classes: int, weights: NDArray[Any] | None = None) -> float:
    """AUC of class scores: binary, or the unweighted mean of each class against the rest.

    Shapes as in :func:`one_vs_rest`. Classes without weight on one side are left out; NaN where all are.
    """
    return mean_auc(one_vs_rest(y, scores, classes=classes), weights)


# Images -------------------------------------------------------------------------------------------------------------

PSNR_MOST = 60.0
"""dB that the PSNR of equal images is given; 8-bit rounding alone leaves about 59."""
_SOME = 16
"""Images that are compared at a time."""


def psnr(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Peak signal-to-noise ratio ``(n,)`` in dB of uint8 images ``(n, H, W[, 3])``, at most :data:`PSNR_MOST`."""
    error = _by_parts(lambda x, y: np.square(x - y).mean((1, 2, 3)), a, b)
    decibels: Floats = -10 * np.log10(np.maximum(error, 10 ** (-PSNR_MOST / 10)))
    return decibels


def ssim(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Structural similarity ``(n,)`` of uint8 images ``(n, H, W[, 3])``, in [-1, 1]; colours are averaged.

    Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 13(4), 2004: Gaussian windows of 11x11 (deviation 1.5), K1 = 0.01,
    K2 = 0.03, windows that lie whole inside the image; of images below 11 pixels all windows, edges mirrored.
    """
    radius = 5
    inside = slice(radius, -radius) if min(a.shape[1:3]) > 2 * radius else slice(None)
    c1, c2 = 0.01**2, 0.03**2

    def local(values: Floats) -> Floats:
        out: Floats = gaussian_filter(values, (0, 0, 1.5, 1.5), radius=[0, 0, radius, radius])
        return out[..., inside, inside]

    def alike(x: Floats, y: Floats) -> Floats:
        mx, my = local(x), local(y)
        vx, vy, covariance = local(x * x) - mx * mx, local(y * y) - my * my, local(x * y) - mx * my
        index = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
        means: Floats = index.mean((1, 2, 3))
        return means

    return _by_parts(alike, a, b)


def _by_parts(figure: Callable[[Floats, Floats], Floats], a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """A figure ``(n,)`` of uint8 images, a few at a time as float64 ``(m, C, H, W)`` in [0, 1].

    Together they would take dozens of times their memory.
    """

    def planes(images: NDArray[Any]) -> Floats:
        out: Floats = np.moveaxis(images.reshape(*images.shape[:3], -1), 3, 1) / 255.0
        return out

    starts = range(0, len(a), _SOME)
    parts = [figure(planes(a[i : i + _SOME]), planes(b[i : i + _SOME])) for i in starts]
    return np.concatenate([np.empty(0), *parts])


# Vectors of people --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scatter:
    """How vectors of people spread.

    Attributes:
        within: Mean squared distance of a vector from its person's mean, over rows less people.
        between: Mean squared distance of a person's mean from the mean of all persons' means, less the part that is the
            noise of few vectors (within / number); at least 0.
    """

    within: float
    between: float

    @property
    def lda(self) -> float:
        """Fisher's ratio between / within, the LDA score; NaN where vectors of one person do not vary."""
        return self.between / self.within if self.within > 0 else float("nan")


@dataclass(frozen=True)
class People:
    """What the scatter of vectors by people is made of, summed once.

    Attributes:
        count: ``(P,)`` vectors of each person.
        squares: ``(P,)`` their summed squared distances from the person's mean.
        gram: ``(P, P)`` inner products of the persons' means.
    """

    count: Floats
    squares: Floats
    gram: Floats

    @staticmethod
    def of(x: NDArray[Any], identity: NDArray[Any]) -> People:
        """From vectors ``(n, d)`` and the people ``(n,)`` whose they are."""
        _same_length(np.asarray(identity), x, "vectors")
        x = np.asarray(x, np.float64).reshape(len(x), -1)
        _, person, count = np.unique(identity, return_inverse=True, return_counts=True)
        means = np.zeros((len(count), x.shape[1]))
        np.add.at(means, person, x)
        means /= count[:, None]
        squares = np.bincount(person, np.square(x - means[person]).sum(1), minlength=len(count))
        spread = means - means.mean(0)
        return People(np.asarray(count, np.float64), np.asarray(squares, np.float64), spread @ spread.T)

    def scatter(self, weights: NDArray[Any] | None = None) -> Scatter:
        """Their scatter, persons ``(P,)`` so many times each; NaN without two, or if nobody has two vectors."""
        w = _weights(weights, len(self.count))
        free = w @ (self.count - 1)
        if free <= 0 or (w > 0).sum() < 2:
            return Scatter(float("nan"), float("nan"))
        within = float(w @ self.squares / free)
        share = w / w.sum()
        # Means spread less around their own mean than around that of all people, by 1 - 1 / P.
        spread = float(share @ self.gram.diagonal() - share @ self.gram @ share) / (1 - 1 / float(w.sum()))
        return Scatter(within, max(spread - within * float(share @ (1 / self.count)), 0.0))

    def lda_influence(self) -> Floats:
        """By how much the LDA score moves with each person's weight ``(P,)``; where it is 0, that of what was cut."""
        people = len(self.count)
        free, once = self.count.sum() - people, (1 / self.count).mean()
        within = self.squares.sum() / free
        spread = self.gram.diagonal().mean()
        ratio = spread / (1 - 1 / people) / within - once
        moved = (self.squares - within * (self.count - 1)) / free
        between = (
            (self.gram.diagonal() - spread) / (people - 1) - moved * once - within * (1 / self.count - once) / people
        )
        influence: Floats = (between - ratio * moved) / within
        return influence
