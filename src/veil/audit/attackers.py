"""Attackers: classifiers trained from scratch on releases to read a label, and matchers trained to tell people apart.

An attacker is one function ``attack(problem) -> score`` where ``score(x)`` gives class scores ``(n, Z)``, larger for
likelier; a matcher is one function ``match(problem) -> embed`` where ``embed(x)`` gives vectors to compare by cosine.
Both see a :class:`Problem` and nothing else. To add one, write the function and name it in :data:`ATTACKERS` or
:data:`MATCHERS`.

Attackers count every class the same (class weights, or class-balanced votes): the figure is balanced accuracy. The
strong ones (residual MLPs with mixup, several restarts averaged) follow what beat simpler ones on face templates.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC
from torch import Tensor, nn

from veil.data.pack import flat
from veil.data.sampling import Couples
from veil.engine.augment import Draw, augment, warp
from veil.engine.run import Diverged, has_bf16
from veil.errors import InputError
from veil.losses import balanced_weights, supervised_contrastive
from veil.metrics import auc, balanced_accuracy, best_threshold, macro_auc
from veil.nets import GroupNorm, ResidualBlock, SixConvolutions, folded, mlp

Floats = NDArray[np.float32]
Score = Callable[[NDArray[np.generic]], Floats]
Embed = Callable[[NDArray[np.generic]], Floats]
View = Callable[[NDArray[np.generic]], Floats]
"""What an attacker sees of releases."""

EFFORTS = ("quick", "standard", "strong")

_WIDE = 256  # kernel, neighbour and tree attackers see this many principal components of wider releases
_EXACT_SVM = (2000, 8000, 8000)  # training rows up to which the RBF SVM is exact, for each effort; then Nystroem
_MATCHED = 1000  # validation rows, all of whose pairs choose between matchers
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


def compact(problem: Problem, wide: int = _WIDE) -> View:
    """Standardised columns; of a wide release its first principal components, so that kernels and trees can cope."""
    standard = Standardiser.fit(flat(problem.x))
    x = standard(problem.x)
    if x.shape[1] <= _WIDE:
        return standard
    if not standard.inverse.any():  # a constant release has no components
        return lambda new: standard(new)[:, :1]
    pca = PCA(min(wide, len(x) - 1), svd_solver="randomized", random_state=problem.seed).fit(x)
    scale = np.float32(1 / math.sqrt(max(pca.explained_variance_[0], 1e-12)))
    return lambda new: (pca.transform(standard(new)) * scale).astype(np.float32)


def _whitened(problem: Problem, view: View | None = None) -> View:
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


def _best(problem: Problem, candidates: Sequence[Score]) -> Score:
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


def _full(scores: NDArray[np.floating], present: NDArray[np.int64], classes: int) -> Floats:
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


# -- attackers of scikit-learn ----------------------------------------------------------------------------------------


def logistic(problem: Problem) -> Score:
    """Logistic regression on standardised and on whitened columns, several strengths of L2."""
    standard: View = Standardiser.fit(flat(problem.x))
    wide = math.prod(problem.x.shape[1:]) > _WIDE
    strengths = (0.01,) if problem.effort == "quick" and wide else (0.001, 0.03, 1.0)
    candidates = []
    for view, settings in ((standard, strengths), (_whitened(problem), (0.001, 0.1))):
        x = view(problem.x)
        for c in settings:
            model = LogisticRegression(C=c, class_weight="balanced", max_iter=2000, tol=1e-3)
            with warnings.catch_warnings():
                warnings.simplefilter("error", ConvergenceWarning)
                try:
                    model.fit(x, problem.y)
                except ConvergenceWarning:
                    continue
            candidates.append(_linear_score(model, view, problem.classes))
    if not candidates:
        raise DidNotConverge("logistic regression did not reach its tolerance in 2000 iterations")
    return _best(problem, candidates)


def _linear_score(model: LogisticRegression, view: View, classes: int) -> Score:
    return lambda new: _full(model.predict_proba(view(new)), model.classes_, classes)


def nearest_neighbours(problem: Problem) -> Score:
    """15 nearest neighbours, votes weighted by distance and balanced by class."""
    view = compact(problem)
    x = view(problem.x)
    neighbours = NearestNeighbors(n_neighbors=min(15, len(x))).fit(x)
    votes = np.eye(problem.classes, dtype=np.float32)[problem.y]
    votes /= np.maximum(votes.sum(0), 1)

    def score(new: NDArray[np.generic]) -> Floats:
        distance, index = neighbours.kneighbors(view(new))
        weight = 1 / np.maximum(distance, 1e-6)
        total: Floats = (votes[index] * weight[:, :, None]).sum(1).astype(np.float32)
        share: Floats = total / np.maximum(total.sum(1, keepdims=True), 1e-30)
        return share

    return score


def rbf_svm(problem: Problem) -> Score:
    """Support vector machine with an RBF kernel, exact up to some thousand training rows, Nystroem features beyond."""
    view = compact(problem)
    x = view(problem.x)
    gamma = 1 / (x.shape[1] * max(float(x.var()), 1e-12))
    exact = len(x) <= problem.pick(*_EXACT_SVM)
    settings = ((1.0, 0.2), (1.0, 1.0), (4.0, 0.5))[: problem.pick(2, 3, 3)]

    def fit(c: float, width: float) -> Score:
        if exact:
            model = SVC(C=c, gamma=gamma * width, class_weight="balanced", cache_size=500)
        else:
            components = min(problem.pick(400, 1000, 2000), len(x))
            kernel = Nystroem(gamma=gamma * width, n_components=components, random_state=problem.seed)
            linear = LinearSVC(C=c, class_weight="balanced", random_state=problem.seed, dual=False)
            model = make_pipeline(kernel, linear)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(x, problem.y)
            except ConvergenceWarning as warning:
                raise DidNotConverge("the linear machine on Nystroem features did not reach its tolerance") from warning

        def score(new: NDArray[np.generic]) -> Floats:
            margin = model.decision_function(view(new))
            both = np.stack([-margin, margin], 1) if margin.ndim == 1 else margin
            return _full(both, model.classes_, problem.classes)

        return score

    return _best(problem, [fit(c, width) for c, width in settings])


def boosted_trees(problem: Problem) -> Score:
    """Histogram gradient-boosted trees."""
    view = compact(problem, problem.pick(64, _WIDE, _WIDE))
    model = HistGradientBoostingClassifier(
        max_iter=problem.pick(60, 200, 400),
        learning_rate=0.08,
        l2_regularization=1.0,
        max_features=0.25,
        max_bins=63,  # a quarter of the time that 255 take, and no worse on hundreds of smooth columns
        early_stopping=False,
        class_weight="balanced",
        random_state=problem.seed,
    ).fit(view(problem.x), problem.y)
    return lambda new: _full(model.predict_proba(view(new)), model.classes_, problem.classes)


# -- attackers of finite releases -------------------------------------------------------------------------------------


def recurs(x: NDArray[np.generic], sample: int = 2000) -> bool:
    """Whether the rows of a release take so few values that a table of them can be learned: half of them recur.

    All rows are compared only if some recur in a sample, which those of continuous releases do not.
    """
    drawn = np.random.default_rng(0).choice(len(x), min(sample, len(x)), replace=False)  # any: rows may come in periods
    rows = _packed(x[drawn])
    if len(rows) < len(x) and len(np.unique(rows)) < len(rows):
        rows = _packed(x)
    return len(np.unique(rows)) <= len(rows) / 2


def lookup_table(problem: Problem) -> Score:
    """The exact best attack on a release of finitely many values: how often each class was released as each of them.

    Bayes' rule on counts, every class counting the same; a value that was not seen in training says nothing.
    """
    values, place = np.unique(_packed(problem.x), return_inverse=True)
    cells = np.bincount(place * problem.classes + problem.y, minlength=len(values) * problem.classes)
    counts = cells.reshape(len(values), problem.classes).astype(np.float64)
    rates = counts / np.maximum(counts.sum(0), 1)
    table = np.concatenate([rates / rates.sum(1, keepdims=True), np.full((1, problem.classes), 1 / problem.classes)])

    def score(new: NDArray[np.generic]) -> Floats:
        rows = _packed(new)
        found = np.minimum(np.searchsorted(values, rows), len(values) - 1)
        found[values[found] != rows] = len(values)
        return table[found].astype(np.float32)

    return score


def _packed(x: NDArray[np.generic]) -> NDArray[np.void]:
    """Rows as opaque bytes ``(n,)``, which can be compared and sorted."""
    rows = np.ascontiguousarray(x).reshape(len(x), -1)
    return rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))[:, 0]


# -- attackers of torch -----------------------------------------------------------------------------------------------


class ResidualMLP(nn.Module):
    """Linear stem, pre-normalised residual blocks of two linear layers, linear head."""

    def __init__(self, features: int, outputs: int, *, width: int = 512, blocks: int = 3, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), mlp([width, width, width], normalise=False, dropout=dropout))
            for _ in range(blocks)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, k)`` -> ``(B, outputs)``."""
        h = self.stem(x)
        for block in self.blocks:
            h = h + block(h)
        out: Tensor = self.head(h)
        return out


class SmallResNet(nn.Module):
    """Three residual blocks on patches of 4x4 pixels (8x8 from 96 on, 2x2 below 48, none below 24: feature maps)."""

    def __init__(self, channels_in: int, size: int, outputs: int) -> None:
        super().__init__()
        self.patch = 8 if size >= 96 else 4 if size >= 48 else 2 if size >= 24 else 1
        self.layers = nn.Sequential(
            nn.Conv2d(channels_in * self.patch**2, 64, 3, 1, 1),
            ResidualBlock(64, 64),
            ResidualBlock(64, 128, halve=True),
            ResidualBlock(128, 256, halve=True),
            GroupNorm(8, 256),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(4 * 256, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, outputs)``; edges are repeated until patches and both halvings come out whole."""
        out: Tensor = self.layers(folded(x, self.patch, 4 * self.patch))
        return out


class PlainCNN(nn.Module):
    """Convolutions 64, 128 and 128 on patches of 4x4 pixels (2x2 below 48, none below 24), two poolings, two linear
    layers on the map."""

    def __init__(self, channels_in: int, height: int, width: int, outputs: int) -> None:
        super().__init__()
        self.patch = 4 if min(height, width) >= 48 else 2 if min(height, width) >= 24 else 1
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise([channels_in * self.patch**2, 64, 128, 128])):
            layers += [nn.Conv2d(a, b, 3, 1, 1), *([nn.MaxPool2d(2, ceil_mode=True)] if i < 2 else [])]
            layers += [GroupNorm(8, b), nn.ReLU()]
        cells = math.prod(-(-side // (4 * self.patch)) for side in (height, width))
        dense = [nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * cells, 256), nn.ReLU(), nn.Dropout(0.3)]
        self.layers = nn.Sequential(*layers, *dense, nn.Linear(256, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, outputs)``; edges are repeated until patches come out whole."""
        out: Tensor = self.layers(folded(x, self.patch))
        return out


def _as_images(x: NDArray[np.generic], feature_map: tuple[int, int, int] | None) -> Floats:
    """``(n, C, H, W)`` from images or from flattened maps."""
    if feature_map is not None:
        return flat(x).reshape(len(x), *feature_map)
    if x.ndim == 3:
        return flat(x).reshape(len(x), 1, *x.shape[1:])
    return np.ascontiguousarray(np.moveaxis(flat(x).reshape(x.shape), 3, 1))


def image_view(problem: Problem) -> View:
    """Images or maps ``(n, C, H, W)``, every channel at a common scale: low contrast must not escape attackers.

    Maps get zero mean and unit deviation. Images get mean 1/2 and deviation 1/4, so that they fill [0, 1], which the
    random views expect.
    """
    mean, inverse = _moments(_as_images(problem.x, problem.feature_map), (0, 2, 3))
    centre, spread = (
        (np.float32(0.5), np.float32(0.25)) if problem.feature_map is None else (np.float32(0), np.float32(1))
    )

    def view(x: NDArray[np.generic]) -> Floats:
        standard = (_as_images(x, problem.feature_map) - mean) * inverse
        out: Floats = np.clip(standard, -_CLIP, _CLIP) * spread + centre
        return out

    return view


def train(
    build: Callable[[], nn.Module],
    loss: Callable[[nn.Module, np.random.Generator, torch.Generator], Tensor],
    *,
    steps: int,
    lr: float,
    seed: int,
    bf16: bool,
) -> nn.Module:
    """AdamW with a one-cycle schedule; everything random follows ``seed``; a loss must stay finite."""
    rng, torch_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # initial weights and dropout draw from torch's global generator
        torch.manual_seed(seed)
        module = build().train()
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.02, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.15)
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                value = loss(module, rng, torch_rng)
            if not math.isfinite(value.item()):
                raise DidNotConverge(f"its training loss became {value.item()}")
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    return module.eval()


def _uniform(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=rng)


def directions(x: Floats) -> Floats:
    """Vectors ``(n, d)`` at length 1; those of zeros stay."""
    out: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return out


def apply(module: nn.Module, x: Floats) -> Floats:
    with torch.no_grad():
        out: Floats = torch.cat([module(part) for part in torch.split(torch.from_numpy(x), 1024)]).float().numpy()
    return out


def _classifier(
    problem: Problem,
    view: View,
    builders: Sequence[Callable[[int, int], nn.Module]],
    *,
    epochs: int,
    lr: float = 2e-3,
    mixup: float = 0.4,
    views: Callable[[Tensor, Draw], Tensor] | None = None,
) -> Score:
    """Train each builder's network with balanced cross-entropy and mixup (Zhang et al. 2018; 0: none); average them."""
    x, y = torch.from_numpy(view(problem.x)), torch.from_numpy(problem.y)
    bf16 = (x.dim() == 4 or problem.x.ndim > 2) and has_bf16(x.device)
    if bf16 and x.dim() == 2:
        x = x.bfloat16()  # pixels, which have eight bits themselves; reading them takes most of an MLP's time
    weight = balanced_weights(torch.bincount(y, minlength=problem.classes))
    size = min(128 if x.dim() == 4 and (problem.effort == "quick" or not mixup) else 256, len(x))
    # Few rows still need their steps, narrow ones more of them; where a step is dear and others attack too, fewer do.
    least = (60 if problem.feature_map else 100) if x.dim() == 4 else 200 if x.shape[1] <= 2 * _WIDE else 100

    def loss(module: nn.Module, rng: np.random.Generator, torch_rng: torch.Generator) -> Tensor:
        rows = torch.from_numpy(rng.integers(len(x), size=size))
        other = torch.from_numpy(rng.permutation(size))
        share = float(rng.beta(mixup, mixup)) if mixup else 1.0
        batch, code = x[rows], y[rows]
        batch = batch if views is None else views(batch, partial(_uniform, torch_rng))
        if mixup:
            batch = torch.lerp(batch[other], batch, share)
        if batch.dim() == 4:
            batch = batch.contiguous(memory_format=torch.channels_last)
        out = module(batch).float()
        return share * F.cross_entropy(out, code, weight) + (1 - share) * F.cross_entropy(out, code[other], weight)

    members = [
        train(
            lambda build=build: build(x.shape[1], problem.classes),  # type: ignore[misc]
            loss,
            steps=max(epochs * len(x) // size, least),
            lr=lr,
            seed=problem.seed + i,
            bf16=bf16,
        )
        for i, build in enumerate(builders)
    ]

    def score(new: NDArray[np.generic]) -> Floats:
        seen = view(new)
        mean: Floats = np.mean([torch.from_numpy(apply(m, seen)).softmax(1).numpy() for m in members], axis=0)
        return mean

    return score


def mlps(problem: Problem) -> Score:
    """MLPs of one, two and three hidden layers, restarted and averaged."""
    depths = (1, 2, 3) * problem.pick(1, 1, 2)
    return _classifier(
        problem,
        Standardiser.fit(flat(problem.x)),
        [lambda k, z, d=depth: mlp([k, *[384] * d, z], dropout=0.2) for depth in depths],  # type: ignore[misc]
        epochs=problem.pick(15, 30, 50),
    )


def residual_mlps(problem: Problem) -> Score:
    """Residual MLPs with mixup, restarted and averaged, half of them (the smaller half) on whitened columns.

    The strongest attackers of face templates that we know.
    """
    restarts, epochs = problem.pick(2, 3, 5), problem.pick(15, 40, 60)
    plain, whitened = Standardiser.fit(flat(problem.x)), _whitened(problem)
    first = _classifier(problem, plain, [ResidualMLP] * (restarts - restarts // 2), epochs=epochs, lr=1e-3)
    other = _classifier(problem, whitened, [ResidualMLP] * (restarts // 2), epochs=epochs, lr=1e-3)
    share = np.float32(restarts // 2 / restarts)
    return lambda new: (1 - share) * first(new) + share * other(new)


def _image_classifier(problem: Problem, network: Callable[[int, int, int], nn.Module], *, mirror: bool) -> Score:
    view = image_view(problem)
    size = min(view(problem.x[:1]).shape[2:])
    return _classifier(
        problem,
        view,
        [lambda c, z: network(c, size, z)] * problem.pick(1, 1, 2),
        epochs=problem.pick(8, 20, 30),
        mixup=0.2,
        views=augment if mirror else None,
    )


def plain_cnn(problem: Problem) -> Score:
    """Three convolutions on images, which hardly move: what random views wash out (a hand, say) is read too."""
    view = image_view(problem)
    height, width = view(problem.x[:1]).shape[2:]
    return _classifier(
        problem,
        view,
        [lambda c, z: PlainCNN(c, height, width, z)] * problem.pick(1, 1, 2),
        epochs=problem.pick(12, 40, 60),
        mixup=0.0,
        views=partial(warp, rotation=0.05, scale=0.05, shift=0.05, shear=0.05),
    )


def six_convolutions(problem: Problem) -> Score:
    """AIA's own gender classifier, trained from scratch on images or feature maps."""
    return _image_classifier(problem, SixConvolutions, mirror=problem.feature_map is None)


def residual_cnn(problem: Problem) -> Score:
    """A residual network on images (with random views) or feature maps."""
    return _image_classifier(problem, SmallResNet, mirror=problem.feature_map is None)


# -- matchers ---------------------------------------------------------------------------------------------------------


def lda(problem: Problem) -> Embed:
    """Linear discriminants of the people, of columns as they are and whitened: whichever matches validation better.

    Raises InputError where there are fewer than two people, or nobody has two rows.
    """
    _check_people(np.unique(problem.y, return_counts=True)[1])
    plain = compact(problem)
    candidates = [_discriminants(problem, view) for view in (plain, _whitened(problem, plain))]
    chosen = np.random.default_rng(problem.seed).permutation(len(problem.x_validation))[:_MATCHED]
    a, b = np.triu_indices(len(chosen), 1)
    who = problem.y_validation[chosen]

    def matching(embed: Embed) -> float:  # NaN without pairs of both kinds: then the first is taken
        vectors = directions(embed(problem.x_validation[chosen]))
        return float(np.nan_to_num(auc((vectors @ vectors.T)[a, b], who[a] == who[b])))

    return max(candidates, key=matching)


def _discriminants(problem: Problem, view: View) -> Embed:
    """Fisher's discriminants from pooled covariances, the one within people shrunk (Ledoit and Wolf 2004).

    Each direction counts by its share of real variation between people, b / (b + 1) with b in units of the variation
    within, as in probabilistic LDA (Ioffe 2006): noise fades out.
    """
    _, person, count = np.unique(problem.y, return_inverse=True, return_counts=True)
    x = view(problem.x).astype(np.float64)
    means = np.zeros((len(count), x.shape[1]))
    np.add.at(means, person, x)
    means /= count[:, None]
    several = count[person] > 1
    grown = np.sqrt(count / np.maximum(count - 1, 1))  # what the means have taken out of the variation
    within, _ = ledoit_wolf(((x - means[person]) * grown[person, None])[several], assume_centered=True)
    values, axes = np.linalg.eigh(within)
    whiten = axes / np.sqrt(np.maximum(values, max(values.max(), 1e-30) * 1e-9))
    centre = x.mean(0)
    spread = (means - centre) @ whiten
    between, turn = np.linalg.eigh(spread.T @ spread / len(count))
    real = np.maximum(between - (1 / count).mean(), 0)
    if not real.any():
        real = np.maximum(between, 1e-12)  # nothing stands out of the noise: compare as they are
    project = (whiten @ turn) * np.sqrt(real / (1 + real))
    return lambda new: ((view(new) - centre) @ project).astype(np.float32)


def _check_people(count: NDArray[np.int64]) -> None:
    if len(count) < 2 or count.max() < 2:
        raise InputError(
            f"needs at least two people to train on, and one with two rows; there are {len(count)} people, of at most "
            f"{count.max() if len(count) else 0} rows"
        )


def siamese(problem: Problem) -> Embed:
    """An MLP to 128 values, or a residual network where releases are images or maps; supervised contrastive loss.

    Raises InputError where there are fewer than two people, or nobody has two rows.
    """
    _check_people(np.unique(problem.y, return_counts=True)[1])
    as_images = problem.image_like
    view = image_view(problem) if as_images else Standardiser.fit(flat(problem.x))
    x = torch.from_numpy(view(problem.x))
    couples = Couples(np.arange(len(x)), problem.y)
    people = min(problem.pick(64, 96, 96), len(np.unique(problem.y)))

    def build() -> nn.Module:
        if as_images:
            return SmallResNet(x.shape[1], min(x.shape[2:]), 128)
        return mlp([x.shape[1], 384, 128], dropout=0.2)

    def loss(module: nn.Module, rng: np.random.Generator, torch_rng: torch.Generator) -> Tensor:
        rows = couples.genuine(people, rng).T.reshape(-1)
        batch = x[torch.from_numpy(rows)]
        if problem.x.ndim > 2:
            batch = augment(batch, partial(_uniform, torch_rng))
        if as_images:
            batch = batch.contiguous(memory_format=torch.channels_last)
        out = F.normalize(module(batch).float(), dim=1)
        return supervised_contrastive(out, torch.from_numpy(problem.y[rows]), 0.1)

    module = train(
        build,
        loss,
        steps=problem.pick(100 if as_images else 200, 400, 800),
        lr=1e-3,
        seed=problem.seed,
        bf16=as_images and has_bf16(x.device),
    )
    return lambda new: apply(module, view(new))


ATTACKERS: dict[str, Callable[[Problem], Score]] = {
    "lookup table": lookup_table,
    "logistic regression": logistic,
    "15 nearest neighbours": nearest_neighbours,
    "RBF SVM": rbf_svm,
    "boosted trees": boosted_trees,
    "MLPs": mlps,
    "residual MLPs": residual_mlps,
    "six convolutions": six_convolutions,
    "residual CNN": residual_cnn,
    "plain CNN": plain_cnn,
}
"""Every attribute attacker by the name that findings give it."""

CONVOLUTIONAL = ("six convolutions", "residual CNN", "plain CNN")
"""Attackers that need images or feature maps."""

FINITE = ("lookup table",)
"""Attackers of releases whose values recur."""

MATCHERS: dict[str, Callable[[Problem], Embed]] = {"LDA": lda, "siamese": siamese}
"""Learned matchers; the audit adds cosine and Euclidean distance of the releases themselves."""
