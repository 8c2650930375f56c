"""Attackers of scikit-learn, and a table that looks values up."""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC

from veil.auditing.problem import (
    WIDE,
    DidNotConverge,
    Floats,
    Problem,
    Score,
    Standardiser,
    View,
    best_of,
    compact,
    full_scores,
    whitened,
)
from veil.data.pack import flat

_EXACT_SVM = (2000, 8000, 8000)  # training rows up to which the RBF SVM is exact, for each effort; then Nystroem


# -- attackers of scikit-learn ----------------------------------------------------------------------------------------


def logistic(problem: Problem) -> Score:
    """Logistic regression on standardised and on whitened columns, several strengths of L2."""
    standard: View = Standardiser.fit(flat(problem.x))
    wide = math.prod(problem.x.shape[1:]) > WIDE
    strengths = (0.01,) if problem.effort == "quick" and wide else (0.001, 0.03, 1.0)
    candidates = []
    for view, settings in ((standard, strengths), (whitened(problem), (0.001, 0.1))):
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
    return best_of(problem, candidates)


def _linear_score(model: LogisticRegression, view: View, classes: int) -> Score:
    return lambda new: full_scores(model.predict_proba(view(new)), model.classes_, classes)


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


def best_match(problem: Problem) -> Score:
    """The class of the closest releases whose class is known, as the system itself compares them.

    Osorio-Roig et al., "An attack on facial soft-biometric privacy enhancement" (arXiv 2111.12405, 2021): a release
    that still matches leads to others like it, of which many have the same gender, say. A class scores by the mean
    similarity of its closest release, or releases; metric and number are chosen on validation data.
    """
    metrics = {"cosine": None, "centred": flat(problem.x).mean(0, dtype=np.float64).astype(np.float32)}
    order = np.argsort(problem.y, kind="stable")
    known, (present, starts) = problem.y[order], np.unique(problem.y[order], return_index=True)
    counts = np.diff([*starts, len(known)])
    numbers = _CLOSEST if len(present) <= _FEW_CLASSES else (1,)

    def score_by(centre: Floats | None, euclidean: bool, number: int) -> Score:
        train = _unit(flat(problem.x)[order], centre, euclidean)
        squares = np.einsum("ij,ij->i", train, train) / 2 if euclidean else np.zeros(len(train), np.float32)

        def score(new: NDArray[np.generic]) -> Floats:
            out = np.empty((len(new), len(present)), np.float32)
            for start in range(0, len(new), _ROWS):
                part = _unit(flat(new[start : start + _ROWS]), centre, euclidean)
                alike = part @ train.T - squares  # of distances: -d^2 / 2 but for what is the same for all
                if number == 1:
                    out[start : start + len(part)] = np.maximum.reduceat(alike, starts, axis=1)
                    continue
                for column, (first, count) in enumerate(zip(starts, counts, strict=True)):
                    of_class, most = alike[:, first : first + count], min(number, int(count))
                    closest = np.partition(of_class, count - most, axis=1)[:, count - most :]
                    out[start : start + len(part), column] = closest.mean(1)
            return full_scores(out, present, problem.classes)

        return score

    ways = [(centre, False) for centre in metrics.values()] + [(None, True)]
    return best_of(problem, [score_by(*way, number) for way in ways for number in numbers])


def _unit(x: NDArray[np.generic], centre: Floats | None, euclidean: bool) -> Floats:
    """Rows ``(n, k)`` as they are compared: as they are for distances, else less a centre and of length 1."""
    rows: Floats = x.astype(np.float32)
    if euclidean:
        return rows
    if centre is not None:
        rows = rows - centre
    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


_CLOSEST = (1, 10, 50)  # releases of each class that are looked at
_FEW_CLASSES = 20  # up to which several are
_ROWS = 1024  # at a time


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
            return full_scores(both, model.classes_, problem.classes)

        return score

    return best_of(problem, [fit(c, width) for c, width in settings])


def boosted_trees(problem: Problem) -> Score:
    """Histogram gradient-boosted trees."""
    view = compact(problem, problem.pick(64, WIDE, WIDE))
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
    return lambda new: full_scores(model.predict_proba(view(new)), model.classes_, problem.classes)


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
        places = np.minimum(np.searchsorted(values, rows), len(values) - 1)
        places[values[places] != rows] = len(values)
        return table[places].astype(np.float32)

    return score


def _packed(x: NDArray[np.generic]) -> NDArray[np.void]:
    """Rows as opaque bytes ``(n,)``, which can be compared and sorted."""
    rows = np.ascontiguousarray(x).reshape(len(x), -1)
    return rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))[:, 0]
