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

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC
from torch import Tensor, nn

from veil.engine.augment import augment
from veil.engine.run import has_bf16
from veil.losses import balanced_weights, supervised_contrastive
from veil.metrics import balanced_accuracy
from veil.nets import ResidualBlock, SixConvolutions, mlp

Floats = NDArray[np.float32]
Score = Callable[[NDArray[np.generic]], Floats]
Embed = Callable[[NDArray[np.generic]], Floats]

EFFORTS = ("quick", "standard", "strong")

_WIDE = 256  # kernel, neighbour and tree attackers see this many principal components of wider releases
_EXACT_SVM = 8000  # training rows up to which the RBF SVM is exact; beyond, its kernel is approximated (Nystroem)


class DidNotConverge(Exception):
    """The attacker's training failed; its figure must not be read as safety."""


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
        return self.x.ndim > 2 or self.feature_map is not None


# -- views of the releases --------------------------------------------------------------------------------------------


def flat(x: NDArray[np.generic]) -> Floats:
    """``(n, ...)`` -> float32 ``(n, k)``; images in [0, 1]."""
    scale = np.float32(1 / 255) if x.dtype == np.uint8 else np.float32(1)
    return x.reshape(len(x), -1).astype(np.float32) * scale


@dataclass(frozen=True)
class Standardiser:
    """Zero mean and unit deviation by the training rows; constant columns stay zero."""

    mean: Floats
    inverse: Floats

    @staticmethod
    def fit(x: Floats) -> Standardiser:
        deviation = x.std(0)
        return Standardiser(x.mean(0), np.where(deviation > 1e-8, 1 / np.maximum(deviation, 1e-8), 0).astype(np.float32))

    def __call__(self, x: NDArray[np.generic]) -> Floats:
        return (flat(x) - self.mean) * self.inverse


def _compact(problem: Problem) -> Callable[[NDArray[np.generic]], Floats]:
    """Standardised columns; of a wide release its first principal components, so that kernels and trees can cope."""
    standard = Standardiser.fit(flat(problem.x))
    x = standard(problem.x)
    if x.shape[1] <= _WIDE:
        return standard
    pca = PCA(min(_WIDE, len(x) - 1), svd_solver="randomized", random_state=problem.seed).fit(x)
    scale = np.float32(1 / math.sqrt(pca.explained_variance_[0]))
    return lambda new: (pca.transform(standard(new)) * scale).astype(np.float32)


def _best(problem: Problem, candidates: Sequence[Score]) -> Score:
    """The candidate with the best balanced accuracy on validation data."""

    def quality(score: Score) -> float:
        predicted = score(problem.x_validation).argmax(1)
        return balanced_accuracy(problem.y_validation, predicted, classes=problem.classes)

    return max(candidates, key=quality)


def _full(scores: NDArray[np.floating], present: NDArray[np.int64], classes: int) -> Floats:
    """Scores ``(n, Z)`` from those of the classes seen in training; the others score lowest."""
    out = np.full((len(scores), classes), scores.min() - 1 if scores.size else -1, np.float32)
    out[:, present] = scores
    return out


# -- attackers of scikit-learn ----------------------------------------------------------------------------------------


def logistic(problem: Problem) -> Score:
    """Logistic regression on all columns, three strengths of L2."""
    standard = Standardiser.fit(flat(problem.x))
    x = standard(problem.x)
    settings = (0.01,) if problem.effort == "quick" else (0.001, 0.03, 1.0)
    candidates = []
    for c in settings:
        model = LogisticRegression(C=c, class_weight="balanced", max_iter=2000, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(x, problem.y)
            except ConvergenceWarning:
                continue
        candidates.append(_linear_score(model, standard, problem.classes))
    if not candidates:
        raise DidNotConverge("logistic regression did not reach its tolerance in 2000 iterations")
    return _best(problem, candidates)


def _linear_score(model: LogisticRegression, view: Callable[[NDArray[np.generic]], Floats], classes: int) -> Score:
    return lambda new: _full(model.predict_proba(view(new)), model.classes_, classes)


def nearest_neighbours(problem: Problem) -> Score:
    """15 nearest neighbours, votes weighted by distance and balanced by class."""
    view = _compact(problem)
    x = view(problem.x)
    neighbours = NearestNeighbors(n_neighbors=min(15, len(x))).fit(x)
    votes = np.eye(problem.classes, dtype=np.float32)[problem.y]
    votes /= np.maximum(votes.sum(0), 1)

    def score(new: NDArray[np.generic]) -> Floats:
        distance, index = neighbours.kneighbors(view(new))
        weight = 1 / np.maximum(distance, 1e-6)
        total: Floats = (votes[index] * weight[:, :, None]).sum(1).astype(np.float32)
        return total / np.maximum(total.sum(1, keepdims=True), 1e-30)

    return score


def rbf_svm(problem: Problem) -> Score:
    """Support vector machine with an RBF kernel, exact up to 8,000 training rows, Nystroem features beyond."""
    view = _compact(problem)
    x = view(problem.x)
    gamma = 1 / (x.shape[1] * max(float(x.var()), 1e-12))
    exact = len(x) <= _EXACT_SVM and problem.effort != "quick"
    settings = ((1.0, 1.0),) if problem.effort == "quick" else ((1.0, 1.0), (4.0, 0.5), (2.0, 2.0))

    def fit(c: float, width: float) -> Score:
        if exact:
            model = SVC(C=c, gamma=gamma * width, class_weight="balanced", cache_size=500)
        else:
            kernel = Nystroem(gamma=gamma * width, n_components=min(problem.pick(400, 1000, 2000), len(x)),
                              random_state=problem.seed)  # fmt: skip
            linear = LinearSVC(C=c, class_weight="balanced", random_state=problem.seed, dual=False)
            model = make_pipeline(kernel, linear)
        model.fit(x, problem.y)

        def score(new: NDArray[np.generic]) -> Floats:
            margin = model.decision_function(view(new))
            both = np.stack([-margin, margin], 1) if margin.ndim == 1 else margin
            return _full(both, model.classes_, problem.classes)

        return score

    return _best(problem, [fit(c, width) for c, width in settings])


def boosted_trees(problem: Problem) -> Score:
    """Histogram gradient-boosted trees."""
    view = _compact(problem)
    model = HistGradientBoostingClassifier(
        max_iter=problem.pick(60, 200, 400),
        learning_rate=0.08,
        l2_regularization=1.0,
        max_features=0.25,
        early_stopping=False,
        class_weight="balanced",
        random_state=problem.seed,
    ).fit(view(problem.x), problem.y)
    return lambda new: _full(model.predict_proba(view(new)), model.classes_, problem.classes)


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
    """Three residual blocks on 4x4 patches (images) or on the map itself (feature maps up to 16x16)."""

    def __init__(self, channels_in: int, size: int, outputs: int) -> None:
        super().__init__()
        self.patch = 4 if size >= 48 else 2 if size >= 24 else 1
        self.layers = nn.Sequential(
            nn.Conv2d(channels_in * self.patch**2, 64, 3, 1, 1),
            ResidualBlock(64, 64),
            ResidualBlock(64, 128, halve=True),
            ResidualBlock(128, 256, halve=True),
            nn.GroupNorm(8, 256),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(4 * 256, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, outputs)``; height and width are cropped to whole patches."""
        height, width = (n - n % self.patch for n in x.shape[2:])
        out: Tensor = self.layers(F.pixel_unshuffle(x[:, :, :height, :width], self.patch))
        return out


def _as_images(x: NDArray[np.generic], feature_map: tuple[int, int, int] | None) -> Floats:
    """``(n, C, H, W)`` from images or from flattened maps."""
    if feature_map is not None:
        return flat(x).reshape(len(x), *feature_map)
    values = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)
    return values[:, None] if values.ndim == 3 else np.moveaxis(values, 3, 1)


def _train(
    build: Callable[[], nn.Module],
    loss: Callable[[nn.Module, np.random.Generator, torch.Generator], Tensor],
    *,
    steps: int,
    lr: float,
    seed: int,
    bf16: bool,
) -> nn.Module:
    """AdamW with a one-cycle schedule; everything random follows ``seed``, and a loss that is not finite is an error."""
    rng, torch_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # initial weights and dropout draw from torch's global generator
        torch.manual_seed(seed)
        module = build().to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.15)
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                value = loss(module, rng, torch_rng)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    if not math.isfinite(value.item()):
        raise DidNotConverge(f"training loss is {value.item()}")
    return module.eval()


def _uniform(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=rng)


def _apply(module: nn.Module, x: Floats) -> Floats:
    with torch.no_grad():
        return torch.cat([module(part) for part in torch.from_numpy(x).split(1024)]).float().numpy()


def _classifier(
    problem: Problem,
    view: Callable[[NDArray[np.generic]], Floats],
    builders: Sequence[Callable[[int, int], nn.Module]],
    *,
    epochs: int,
    lr: float = 2e-3,
    mixup: float = 0.4,
    views: bool = False,
) -> Score:
    """Train each builder's network with class-balanced cross-entropy and mixup (Zhang et al. 2018); average them all."""
    x, y = torch.from_numpy(view(problem.x)), torch.from_numpy(problem.y)
    weight = balanced_weights(torch.bincount(y, minlength=problem.classes))
    size = min(256, len(x))

    def loss(module: nn.Module, rng: np.random.Generator, torch_rng: torch.Generator) -> Tensor:
        rows = torch.from_numpy(rng.integers(len(x), size=size))
        other = torch.from_numpy(rng.permutation(size))
        share = float(rng.beta(mixup, mixup))
        batch, code = x[rows], y[rows]
        batch = augment(batch, partial(_uniform, torch_rng)) if views else batch
        batch = share * batch + (1 - share) * batch[other]
        if batch.dim() == 4:
            batch = batch.contiguous(memory_format=torch.channels_last)
        out = module(batch).float()
        return share * F.cross_entropy(out, code, weight) + (1 - share) * F.cross_entropy(out, code[other], weight)

    members = [
        _train(
            lambda build=build: build(x.shape[1], problem.classes),  # type: ignore[misc]
            loss,
            steps=max(epochs * len(x) // size, 100),
            lr=lr,
            seed=problem.seed + i,
            bf16=x.dim() == 4 and has_bf16(x.device),
        )
        for i, build in enumerate(builders)
    ]

    def score(new: NDArray[np.generic]) -> Floats:
        seen = view(new)
        return np.mean([torch.from_numpy(_apply(m, seen)).softmax(1).numpy() for m in members], axis=0)

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
    """Residual MLPs with mixup, restarted and averaged: the strongest attackers of face templates that we know."""
    return _classifier(
        problem,
        Standardiser.fit(flat(problem.x)),
        [ResidualMLP] * problem.pick(1, 3, 5),
        epochs=problem.pick(15, 40, 60),
        lr=1e-3,
    )


def _image_classifier(problem: Problem, network: Callable[[int, int, int], nn.Module], *, mirror: bool) -> Score:
    def view(x: NDArray[np.generic]) -> Floats:
        return _as_images(x, problem.feature_map)

    size = min(view(problem.x[:1]).shape[2:])
    return _classifier(
        problem,
        view,
        [lambda c, z: network(c, size, z)] * problem.pick(1, 1, 2),
        epochs=problem.pick(8, 20, 30),
        mixup=0.2,
        views=mirror,
    )


def six_convolutions(problem: Problem) -> Score:
    """AIA's own gender classifier, trained from scratch on images or feature maps."""
    return _image_classifier(problem, SixConvolutions, mirror=problem.feature_map is None)


def residual_cnn(problem: Problem) -> Score:
    """A residual network on images (with random views) or feature maps."""
    return _image_classifier(problem, SmallResNet, mirror=problem.feature_map is None)


# -- matchers ---------------------------------------------------------------------------------------------------------


def lda(problem: Problem) -> Embed:
    """Linear discriminants of the people (whitened within-person variation): the classical learned matcher."""
    view = _compact(problem)
    _, person, count = np.unique(problem.y, return_inverse=True, return_counts=True)
    several = count[person] > 1
    x, y = view(problem.x[several]), person[several]
    components = min(len(np.unique(y)) - 1, x.shape[1], 128)
    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=components).fit(x, y)
    return lambda new: model.transform(view(new)).astype(np.float32)


def siamese(problem: Problem) -> Embed:
    """An MLP to 128 values, or a residual network where releases are images or maps; supervised contrastive loss."""
    from veil.data.sampling import Couples

    as_images = problem.image_like
    standard = Standardiser.fit(flat(problem.x))

    def view(x: NDArray[np.generic]) -> Floats:
        return _as_images(x, problem.feature_map) if as_images else standard(x)

    x = torch.from_numpy(view(problem.x))
    couples = Couples(np.arange(len(x)), problem.y)
    people = min(96, len(np.unique(problem.y)) // 2)

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

    module = _train(
        build,
        loss,
        steps=problem.pick(150, 400, 800),
        lr=1e-3,
        seed=problem.seed,
        bf16=as_images and has_bf16(x.device),
    )
    return lambda new: _apply(module, view(new))


ATTACKERS: dict[str, Callable[[Problem], Score]] = {
    "logistic regression": logistic,
    "15 nearest neighbours": nearest_neighbours,
    "RBF SVM": rbf_svm,
    "boosted trees": boosted_trees,
    "MLPs": mlps,
    "residual MLPs": residual_mlps,
    "six convolutions": six_convolutions,
    "residual CNN": residual_cnn,
}
"""Every attribute attacker by the name that findings give it."""

CONVOLUTIONAL = ("six convolutions", "residual CNN")
"""Attackers that need images or feature maps."""

MATCHERS: dict[str, Callable[[Problem], Embed]] = {"LDA": lda, "siamese": siamese}
"""Learned matchers; the audit adds cosine and Euclidean distance of the releases themselves."""
