"""Transfer: what attackers, and matchers, that know only originals make of releases that are images.

Releases that look like ordinary faces meet systems that were never told of them: classifiers and matchers trained on
originals, and those of ONNX files that the user names. They show what a protector does to such systems, off the shelf;
the other attackers of the audit, trained on releases, show what it does to somebody who knows it. A release that turns
a class around takes in the former alone: their figure falls below chance, and whoever knows that reads its opposite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil import metrics
from veil.audit import verification
from veil.audit.attackers import (
    ATTACKERS,
    Embed,
    Problem,
    Score,
    decision,
    failure,
    largest,
    quality,
    siamese,
    undecided,
)
from veil.audit.findings import Finding
from veil.audit.intervals import auc_interval, balanced_accuracy_interval, rate_interval
from veil.data.pack import Pack
from veil.engine.onnxfile import OnnxNetwork
from veil.errors import InputError

CLASSIFIERS = ("RBF SVM", "six convolutions", "residual CNN", "plain CNN")
"""Attackers of :data:`veil.audit.attackers.ATTACKERS` that learn from originals."""
MATCHER = "siamese, of originals"
_CENTRED = 2000
_READ = ("attribute.transfer_balanced_accuracy", "attribute.transfer_auc")
_MATCHED = ("verification.transfer_auc", "verification.mixed_auc")
_THEIRS = "a file of the user's"


@dataclass(frozen=True, kw_only=True)
class Files:
    """Networks of ONNX files that the user names; findings call them by their files' names.

    Attributes:
        matcher: A face matcher.
        classifiers: For each label its classifiers; they give logits in the order of the label's classes in the pack.
    """

    matcher: OnnxNetwork | None = None
    classifiers: Mapping[str, Sequence[OnnxNetwork]] = field(default_factory=dict)


def opened(
    pack: Pack,
    *,
    private: Sequence[str],
    utility: Sequence[str],
    matcher: str | Path | None,
    classifiers: Mapping[str, Sequence[str | Path]] | None,
    shown: bool,
    inverted: bool,
) -> Files:
    """Open the files that an audit was given, before anything heavy starts.

    Args:
        pack: Labels and their classes.
        private: Labels that are attacked.
        utility: Labels that are used.
        matcher: File of a face matcher: float32 ``(B, 3 or 1, H, W)`` in [-1, 1] to ``(B, d)``.
        classifiers: For labels their files: images as for the matcher to logits ``(B, Z)``.
        shown: Whether transfer is measured: there are releases that :func:`pass_for` originals.
        inverted: Whether originals are redrawn.

    Raises:
        InputError: Where a file does not serve, or nothing would use it; all problems in one line.
    """
    classifiers = {name: list(paths) for name, paths in (classifiers or {}).items()}
    problems = []
    labels = [name for name in private if name != "identity"]
    for name, paths in classifiers.items():
        if name not in labels:
            known = ", ".join(labels) or "none is"
            problems.append(f"classifier: must be of a label that is attacked ({known}), got {name!r}")
        if len({Path(path).name for path in paths}) < len(paths):
            problems.append(f"classifiers of {name!r}: the names of their files must differ, got {_listed(paths)}")
    given = [path for paths in classifiers.values() for path in paths]
    if given and not shown:
        problems.append(
            "classifier: reads releases that are images like the unprotected originals, and there are none to show to "
            f"{_listed(given)}"
        )
    faces = (inverted and pack.kind == "images") or (shown and "identity" in (*private, *utility))
    if matcher is not None and not faces:
        problems.append(
            "matcher: compares redrawn faces (by inversion) or, where identity is used, releases that are images like "
            f"the unprotected originals, and there are none to show to {matcher}"
        )
    if problems:
        raise InputError("; ".join(problems))
    files = Files(
        matcher=None if matcher is None else OnnxNetwork(matcher),
        classifiers={name: tuple(OnnxNetwork(path) for path in paths) for name, paths in classifiers.items()},
    )
    for name, networks in files.classifiers.items():
        classes = pack.classes[name]
        problems += [
            f"{network.path}: must give a logit for each class of {name!r} ({', '.join(classes)}), so {len(classes)}, "
            f"got {network.width}"
            for network in networks
            if network.width != len(classes)
        ]
    if problems:
        raise InputError("; ".join(problems))
    return files


def _listed(paths: Sequence[str | Path]) -> str:
    return ", ".join(map(str, paths))


def pass_for(x: NDArray[Any], originals: NDArray[Any]) -> bool:
    """Whether releases ``(n, ...)`` are images that could pass for originals ``(N, H, W[, 3])``."""
    return x.ndim > 2 and x.dtype == originals.dtype and x.shape[1:] == originals.shape[1:]


def classified(
    originals: NDArray[Any],
    releases: Mapping[str, NDArray[Any]],
    pack: Pack,
    target: str,
    *,
    attack_on: Sequence[str],
    effort: str,
    seed: int,
    level: float,
    files: Sequence[OnnxNetwork] = (),
) -> dict[str, list[Finding]]:
    """What classifiers that learned a label from originals read from releases, for each of them.

    Thresholds are set on originals, those of ``calibrate``, as whoever runs such a system sets them: for the user's own
    classifiers, too, whose logits may have been made for other data. The classifier that reads the ``calibrate``
    originals best (:func:`veil.audit.attackers.quality`, which does not depend on the threshold) is marked.

    Args:
        originals: uint8 images ``(N, H, W[, 3])``.
        releases: By name, of the same shape; the originals may be among them.
        pack: Labels and splits.
        target: The label.
        attack_on: Splits whose originals they learn from.
        effort: ``"quick"``, ``"standard"`` or ``"strong"``.
        seed: Seeds classifiers.
        level: Coverage of the intervals.
        files: The user's own.
    """
    y, classes = pack.label(target), len(pack.classes[target])
    train, check, test = (pack.rows(*s, known=(target,)) for s in (tuple(attack_on), ("calibrate",), ("test",)))
    people = pack.label("identity")[test] if "identity" in pack.labels and target != "identity" else None
    problem = Problem(
        x=originals[train], y=y[train], x_validation=originals[check], y_validation=y[check], classes=classes,
        seed=seed, effort=effort,
    )  # fmt: skip
    scored: dict[str, dict[str, NDArray[np.float32]]] = {}
    decide: dict[str, Callable[[NDArray[Any]], NDArray[np.int64]]] = {}
    reads: dict[str, float] = {}
    failed: dict[str, tuple[str, str]] = {}
    for name, attack in (*((n, ATTACKERS[n]) for n in CLASSIFIERS), *((f.name, _given(f)) for f in files)):
        try:
            score = attack(problem)
            seen = score(problem.x_validation)
            scored[name] = {release: score(x[test]) for release, x in releases.items()}
            decide[name], reads[name] = decision(seen, y[check], classes), quality(seen, y[check], classes)
        except Exception as error:  # the others stand
            failed[name] = failure(error)
    best = max(reads, key=lambda name: reads[name], default=None)
    chance = 1 / len(np.unique(y[test]))
    common: dict[str, Any] = {"target": target, "role": "attack", "level": level, "n": len(test)}
    options: dict[str, Any] = {"classes": classes, "level": level}
    found: dict[str, list[Finding]] = {}
    for release in releases:
        figures = []
        for name in reads:
            scores, theirs = scored[name][release], name not in CLASSIFIERS
            predicted = decide[name](scores)
            value, low, high = balanced_accuracy_interval(y[test], predicted, people, **options)
            notes = [_THEIRS] * theirs
            if theirs and classes == 2:
                own = metrics.balanced_accuracy(y[test], largest(scores), classes=classes)
                notes.append(f"by its largest logit, without the threshold, {own:.3f}")
                if reads[name] < 0.5:
                    notes.append(f"AUC on originals {reads[name]:.3f}: are its classes in the pack's order?")
            share: dict[str, Any] = {"release": release, "attacker": name, "worst": name == best, **common}
            of_decision = {"code": _READ[0], "chance": chance, **share}
            if why := undecided(predicted, y[test]):
                note = "; ".join([why, *notes])
                figures.append(Finding(status="not_applicable", note=note, **of_decision))
            else:
                below = ["below chance" + ": its opposite is right more often" * (classes == 2)] * (high < chance)
                figures.append(Finding(value=value, low=low, high=high, note="; ".join(below + notes), **of_decision))
            value, low, high = auc_interval(y[test], scores, people, **options)
            note = "; ".join(notes[:1])
            figures.append(Finding(code=_READ[1], value=value, low=low, high=high, chance=0.5, note=note, **share))
        figures += [
            Finding(code=_READ[0], release=release, attacker=name, chance=chance, status=status, note=why, **common)
            for name, (status, why) in failed.items()
        ]
        found[release] = figures
    return found


def _given(network: OnnxNetwork) -> Callable[[Problem], Score]:
    """The user's classifier as an attacker that has learned already."""
    return lambda problem: network


def matched(
    originals: NDArray[Any],
    releases: Mapping[str, NDArray[Any]],
    pack: Pack,
    *,
    attack_on: Sequence[str],
    effort: str,
    seed: int,
    level: float,
    file: OnnxNetwork | None = None,
) -> dict[str, list[Finding]]:
    """How well a matcher that learned from originals compares releases with each other, and with originals.

    Arguments as for :func:`classified`; ``file`` is the user's own matcher, beside the trained one. Each compares by
    the metric, and the matcher is marked, that serves best on the ``calibrate`` originals.
    """
    identity = pack.label("identity")
    train, check, test = (pack.rows(*s, known=("identity",)) for s in (tuple(attack_on), ("calibrate",), ("test",)))
    problem = Problem(
        x=originals[train], y=identity[train], x_validation=originals[check], y_validation=identity[check],
        classes=len(pack.classes["identity"]), seed=seed, effort=effort,
    )  # fmt: skip
    learned: dict[str, Callable[[Problem], Embed]] = {MATCHER: siamese}
    if file is not None:
        learned[file.name] = lambda problem: file
    pairs = verification.sample_pairs(test, identity, seed=seed, max_pairs=50_000)
    known, (first, second) = _places(pairs)
    moved = replace(pairs, a=first, b=second + len(known))
    found: dict[str, list[Finding]] = {}
    reads: dict[str, float] = {}
    for name, learn in learned.items():
        found[name] = []
        try:
            embed = learn(problem)
            metric, by, serves = _compared(embed, originals, train, check, identity, seed)
            real = embed(originals[known])
            for release, x in releases.items():
                drawn = embed(x[known])
                for code, other in zip(_MATCHED, (drawn, real), strict=True):
                    both = np.concatenate([drawn, other])
                    alike = verification.scores(both, moved, kind=metric.kind, centre=metric.centre)
                    figure = verification.verify(alike, moved, None, None, level=level, fars=())[0].finding(
                        release=release, attacker=name
                    )
                    notes = [figure.note] * bool(figure.note) + [f"by {by}"] + [_THEIRS] * (embed is file)
                    found[name].append(replace(figure, code=code, note="; ".join(notes)))
            reads[name] = serves
        except Exception as error:  # the other stands
            status, why = failure(error)
            common: dict[str, Any] = {"target": "identity", "attacker": name, "role": "utility", "level": level}
            found[name] = [
                Finding(code=code, release=release, n=len(pairs), status=status, note=why, **common)
                for release in releases
                for code in _MATCHED
            ]
    best = max(reads, key=lambda name: reads[name], default=None)
    figures = [replace(f, worst=f.attacker == best and f.ok) for each in found.values() for f in each]
    return {release: [f for f in figures if f.release == release] for release in releases}


def _places(pairs: verification.Pairs) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The rows that pairs are of, and the places of both sides among them."""
    known = np.unique(np.concatenate([pairs.a, pairs.b]))
    return known, (np.searchsorted(known, pairs.a), np.searchsorted(known, pairs.b))


def _compared(
    embed: Embed, originals: NDArray[Any], train: NDArray[np.int64], check: NDArray[np.int64],
    identity: NDArray[np.int64], seed: int,
) -> tuple[verification.Metric, str, float]:  # fmt: skip
    """The metric that serves a matcher best on pairs of ``check`` originals, its name and AUC, 0 without such pairs.

    The mean over ``train`` originals, :data:`_CENTRED` at most, is the centre.
    """
    some = np.sort(np.random.default_rng(seed).permutation(train)[:_CENTRED])
    features = embed(originals[some])
    known = embed(originals[check])
    candidates = verification.metrics_of(features, np.arange(len(features)))
    return verification.serving(known, candidates, identity[check], seed=seed + 1)


def likeness(originals: NDArray[Any], x: NDArray[Any], pack: Pack, *, release: str, level: float) -> list[Finding]:
    """SSIM and PSNR of releases ``x`` to their originals, on ``test``."""
    rows = pack.rows("test")
    people = pack.label("identity")[rows] if "identity" in pack.labels else None
    a, b = x[rows], np.asarray(originals[rows])
    out = []
    ssim, psnr = (
        ("utility.ssim", metrics.ssim(a, b), (-1.0, 1.0)),
        ("utility.psnr", metrics.psnr(a, b), (0.0, metrics.PSNR_MOST)),
    )
    for code, values, within in (ssim, psnr):
        value, low, high = rate_interval(values, people, level=level, within=within)
        out.append(
            Finding(code=code, release=release, target="image", attacker="pixels", role="utility", value=value,
                    low=low, high=high, level=level, n=len(rows), chance=0.0, worst=True)
        )  # fmt: skip
    return out
