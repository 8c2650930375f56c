"""How well releases match: by several metrics as they are, and by matchers trained on releases.

The matcher that is best on ``calibrate`` is marked; for it, pairs of one private class, the pack's listed pairs and the
search among releases are measured, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.auditing import biometric, metrics, verification
from veil.auditing import pairs as pairing
from veil.auditing.exhibit import Exhibit
from veil.auditing.linkage import Search, identification
from veil.auditing.pairs import COSINE, Metric, metrics_of
from veil.auditing.pretrained import Matcher
from veil.auditing.problem import DidNotConverge, Problem, failure
from veil.auditing.setting import Match, Setting, without
from veil.auditing.task import Outcome, Task, signatures
from veil.findings import Finding, Measurement
from veil.findings.codes import MATCHING
from veil.findings.contributions import Contribution

_PAIRS = {"quick": (25_000, 50_000), "standard": (100_000, 200_000), "strong": (100_000, 200_000)}
"""Most genuine, and most impostor, pairs of the calibrate and of the test split."""


def tasks(setting: Setting, exhibits: Sequence[Exhibit]) -> Iterator[Task]:
    """Verification of each exhibit, where identity is a use."""
    if "identity" not in setting.utility:
        return
    for s in exhibits:
        yield Task(
            name=f"{s.name}: matching",
            key=setting.key(
                "matching",
                s.fingerprint,
                s.name,
                setting.private,
                signatures(_trained(setting, s.shape)),
                setting.scores,
            ),
            prepare=lambda s=s: partial(match, setting, s.name, s.x, s.feature_map),  # type: ignore[misc]
            missing=partial(without, setting.nobody(s.name, "identity", "utility"), MATCHING),
            releases=(s.name,),
            first=True,
        )


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """What is compared: vectors of a matcher for all rows, by a metric.

    Attributes:
        vectors: ``(N, d)`` for each matcher.
        metric: Of those that compare releases as they are; trained matchers compare by cosine.
        scores: For each matcher, and each split, of the split's pairs.
        best: The matcher that is best on ``calibrate``.
    """

    vectors: Mapping[str, NDArray[Any]]
    metric: Mapping[str, Metric]
    scores: Mapping[str, Mapping[str, NDArray[np.float32]]]
    best: str

    def alike(self, name: str, pairs: pairing.Pairs) -> NDArray[np.float32]:
        return _alike(self.vectors[name], self.metric.get(name, COSINE), pairs)


def _alike(vectors: NDArray[Any], metric: Metric, pairs: pairing.Pairs) -> NDArray[np.float32]:
    return pairing.scores(vectors, pairs, kind=metric.kind, centre=metric.centre)


def match(setting: Setting, release: str, x: NDArray[Any], feature_map: tuple[int, int, int] | None) -> Outcome:
    """Verification figures of releases ``x`` ``(N, ...)``.

    Args:
        setting: Who is seen, and who compares.
        release: Its name.
        x: For all rows.
        feature_map: ``(C, H, W)`` where releases are flattened maps.
    """
    pack, identity = setting.pack, setting.pack.label("identity")
    train, *measured = setting.rows("identity")
    rows = dict(zip(("calibrate", "test"), measured, strict=True))
    pairs = {
        split: pairing.sample_pairs(rows[split], identity, seed=setting.seed + i, max_pairs=_PAIRS[setting.effort][i])
        for i, split in enumerate(rows)
    }
    problem = Problem(
        x=x[train], y=identity[train], x_validation=x[rows["calibrate"]], y_validation=identity[rows["calibrate"]],
        classes=len(pack.classes["identity"]), seed=setting.seed, effort=setting.effort, feature_map=feature_map,
    )  # fmt: skip
    metric = metrics_of(x, train)
    embedded, failures = _embedded(setting, release, x, problem, np.union1d(*rows.values()), len(pairs["test"]))
    compared = _compared(dict.fromkeys(metric, x) | embedded, metric, pairs)
    measured_by: list[tuple[Finding, Contribution | None]] = []
    for name in compared.scores:
        measured_by += _verified(compared, name, pairs, setting.level, release=release)
    for attribute in setting.private:
        if attribute != "identity":
            masks = {split: pairing.same_attribute(p, pack.label(attribute)) for split, p in pairs.items()}
            target = f"identity|same {attribute}"
            measured_by += _verified(
                compared, compared.best, pairs, setting.level, masks=masks, release=release, target=target
            )
    findings = [finding for finding, _ in measured_by]
    if pack.pairs is not None:
        listed, fold = pairing.listed_pairs(pack.pairs, rows["test"], identity)
        figure = verification.ten_fold(compared.alike(compared.best, listed), listed.same, fold, level=setting.level)
        findings.append(figure.finding(release=release, attacker=compared.best, worst=True))
    best = compared.vectors[compared.best]

    def flattened(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        values: NDArray[np.float32] = best[rows].reshape(len(rows), -1).astype(np.float32, copy=False)
        return values

    search = Search(
        release=release, attacker=compared.best, metric=compared.metric.get(compared.best, COSINE), seed=setting.seed,
        level=setting.level,
    )  # fmt: skip
    rank1 = identification(search, flattened, flattened, rows["test"], identity, "releases")
    performance = biometric.Performance(
        release=release, attacker=compared.best, metric=search.metric, level=setting.level, seed=setting.seed
    )
    labels = {name: (pack.label(name), pack.classes[name]) for name in setting.private if name != "identity"}
    at_all_rates, rates = biometric.measured(performance, best, rows["test"], identity, labels)
    contributions = tuple(each for finding, each in measured_by if each is not None and finding.worst)
    return Outcome(
        findings=(*findings, rank1, *at_all_rates, *failures), contributions=contributions, rates=tuple(rates),
        scores=_numbered(compared, pairs["test"], setting.seed) if setting.scores else None,
    )  # fmt: skip


def _numbered(compared: _Compared, pairs: pairing.Pairs, seed: int) -> NDArray[np.float64]:
    """The test pairs as :class:`Outcome` has them. Codes follow names, so people's numbers are drawn."""
    known, people = np.unique([pairs.group_a, pairs.group_b], return_inverse=True)
    numbers = np.random.default_rng(seed).permutation(len(known))[people.reshape(2, len(pairs))]
    scores = compared.scores[compared.best]["test"]
    return np.column_stack([pairs.same, scores, *numbers]).astype(np.float64)


def _trained(setting: Setting, shape: tuple[int, ...]) -> dict[str, Match]:
    """The matchers, by name, that learn, or have learned, to compare releases of that shape."""
    embedder = setting.embedder_of(shape)
    pretrained = {} if embedder is None else {embedder.name: Matcher(embedder)}
    return {**setting.roster.matchers, **pretrained}


def _embedded(
    setting: Setting, release: str, x: NDArray[Any], problem: Problem, rows: NDArray[np.int64], pairs: int
) -> tuple[dict[str, NDArray[Any]], list[Finding]]:
    """Vectors of the trained matchers at some rows, and findings of those that failed on so many pairs."""
    vectors: dict[str, NDArray[Any]] = {}
    failures = []
    for name, learn in _trained(setting, x.shape[1:]).items():
        try:
            embedded = learn(problem)(x[rows])
            if not np.isfinite(embedded).all():
                raise DidNotConverge("its vectors are not finite")
            if not np.isfinite(np.einsum("ij,ij->i", embedded, embedded)).all():
                raise DidNotConverge("its vectors are too long to be compared")
        except Exception as error:  # the others stand
            failed = Measurement(
                release=release, target="identity", attacker=name, role="utility", n=pairs, level=setting.level
            )
            failures.append(failed.missing(MATCHING, *failure(error), chance=0.5))
        else:
            vectors[name] = _placed(embedded, rows, len(x))
    return vectors, failures


def _compared(
    vectors: Mapping[str, NDArray[Any]], metric: Mapping[str, Metric], pairs: Mapping[str, pairing.Pairs]
) -> _Compared:
    """Pairs scored by every matcher, and the matcher that is best on ``calibrate``."""
    scores = {
        name: {split: _alike(values, metric.get(name, COSINE), p) for split, p in pairs.items()}
        for name, values in vectors.items()
    }

    def quality(name: str) -> float:  # NaN where calibrate lacks genuine or impostor pairs: then the first is taken
        return float(np.nan_to_num(metrics.auc(scores[name]["calibrate"], pairs["calibrate"].same)))

    return _Compared(vectors=vectors, metric=metric, scores=scores, best=max(scores, key=quality))


def _verified(
    compared: _Compared,
    name: str,
    pairs: Mapping[str, pairing.Pairs],
    level: float,
    *,
    masks: Mapping[str, NDArray[np.bool_]] | None = None,
    **about: Any,
) -> list[tuple[Finding, Contribution | None]]:
    """Figures of one matcher, of all pairs or of some in each split, and what persons contribute to them."""
    parts: dict[str, tuple[NDArray[Any], pairing.Pairs]] = {}
    for split, all_pairs in pairs.items():
        scores = compared.scores[name][split]
        parts[split] = (scores, all_pairs) if masks is None else (scores[masks[split]], all_pairs.where(masks[split]))
    figures = verification.verify(*parts["test"], *parts["calibrate"], level=level)
    findings = [f.finding(attacker=name, worst=name == compared.best, **about) for f in figures]
    return [(finding, f.contribution(finding)) for f, finding in zip(figures, findings, strict=True)]


def _placed(values: NDArray[Any], rows: NDArray[np.int64], n: int) -> NDArray[np.float32]:
    """``values`` at their rows of an array of n rows; the others, zeros that are never touched, take no memory."""
    out = np.zeros((n, values.shape[1]), np.float32)
    out[rows] = values
    return out
