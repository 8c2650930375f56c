"""Transfer: what attackers, and matchers, that know only originals make of releases that are images.

Releases that look like ordinary faces meet systems that were never told of them: classifiers and matchers trained on
originals, and those of ONNX files that the user names. They show what a protector does to such systems, off the shelf;
the other attackers of the audit, trained on releases, show what it does to somebody who knows it. A release that turns
a class around takes in the former alone: their figure falls below chance, and whoever knows that reads its opposite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.auditing import metrics, restoration, verification
from veil.auditing import pairs as pairing
from veil.auditing.exhibit import Exhibit
from veil.auditing.intervals import (
    auc_interval,
    auc_sums,
    balanced_accuracy_interval,
    balanced_accuracy_sums,
    rate_interval,
)
from veil.auditing.matchers import siamese
from veil.auditing.pretrained import readers
from veil.auditing.problem import Embed, Problem, Score, decision, failure, largest, quality, undecided
from veil.auditing.setting import Networks, Setting, without
from veil.auditing.task import Outcome, Task, contribution, rows_of, signatures
from veil.data.pack import Pack
from veil.errors import InputError
from veil.findings import Finding, Measurement
from veil.findings.contributions import Contribution
from veil.nn.embedders import Network, laid_before, matcher_of
from veil.nn.onnxfile import FROM_FILE, OnnxNetwork

CLASSIFIERS = ("RBF SVM", "six convolutions", "residual CNN", "plain CNN")
"""Attackers of :data:`veil.auditing.attackers.ATTACKERS` that learn from originals."""
MATCHER = "siamese, of originals"
_CENTRED = 2000
_READ = ("attribute.transfer_balanced_accuracy", "attribute.transfer_auc")
_MATCHED = ("verification.transfer_auc", "verification.mixed_auc")


@dataclass(frozen=True, kw_only=True)
class Given:
    """Networks that the user names for an audit.

    Attributes:
        matcher: ``"dlib"`` for the bundled embedder, or the ONNX file of a face matcher: images to ``(B, d)``.
        matcher_settings: What is declared of it, as for :class:`veil.nn.onnxfile.OnnxNetwork`.
        classifiers: For labels their files: images to logits ``(B, Z)``.
        classifier_settings: What is declared of all of them.
    """

    matcher: str | Path | None = None
    matcher_settings: Mapping[str, str] = field(default_factory=dict)
    classifiers: Mapping[str, Sequence[str | Path]] = field(default_factory=dict)
    classifier_settings: Mapping[str, str] = field(default_factory=dict)


def opened(
    pack: Pack,
    *,
    private: Sequence[str],
    utility: Sequence[str],
    given: Given,
    shown: bool,
    inverted: bool,
) -> Networks:
    """Open the networks that an audit was given, before anything heavy starts.

    Args:
        pack: Labels and their classes.
        private: Labels that are attacked.
        utility: Labels that are used.
        given: What the user named.
        shown: Whether transfer is measured: there are releases that :func:`pass_for` originals.
        inverted: Whether originals are redrawn.

    Raises:
        InputError: Where a file does not serve, or nothing would use it; all problems in one line.
    """
    if problems := _unfit(pack, private, utility, given, shown=shown, inverted=inverted):
        raise InputError("; ".join(problems))
    matcher = None if given.matcher is None else matcher_of(pack, given.matcher, given.matcher_settings)
    opened = {
        name: [OnnxNetwork(path, declared=given.classifier_settings) for path in paths]
        for name, paths in given.classifiers.items()
    }
    for name, networks in opened.items():
        classes = pack.classes[name]
        problems += [
            f"{network.path}: must give a logit for each class of {name!r} ({', '.join(classes)}), so {len(classes)}, "
            f"got {network.width}"
            for network in networks
            if network.width != len(classes)
        ]
    if problems:
        raise InputError("; ".join(problems))
    laid = {name: tuple(laid_before(each, pack) for each in networks) for name, networks in opened.items()}
    return Networks(matcher=matcher, classifiers=laid)


def _unfit(
    pack: Pack, private: Sequence[str], utility: Sequence[str], given: Given, *, shown: bool, inverted: bool
) -> list[str]:
    """What was given that nothing would use, or that could not be told apart."""
    classifiers = {name: list(paths) for name, paths in given.classifiers.items()}
    problems = []
    labels = [name for name in private if name != "identity"]
    for name, paths in classifiers.items():
        if name not in labels:
            known = ", ".join(labels) or "none is"
            problems.append(f"classifier: must be of a label that is attacked ({known}), got {name!r}")
        if len({Path(path).name for path in paths}) < len(paths):
            problems.append(f"classifiers of {name!r}: the names of their files must differ, got {_listed(paths)}")
    files = [path for paths in classifiers.values() for path in paths]
    if files and not shown:
        problems.append(
            "classifier: reads releases that are images like the unprotected originals, and there are none to show to "
            f"{_listed(files)}"
        )
    if given.classifier_settings and not files:
        problems.append("classifier settings: are of classifiers, and none is named")
    if given.matcher_settings and given.matcher is None:
        problems.append("matcher settings: are of a matcher, and none is named")
    faces = (inverted and pack.kind == "images") or (shown and "identity" in (*private, *utility))
    if given.matcher is not None and not faces:
        problems.append(
            "matcher: compares redrawn faces (by inversion) or, where identity is used, releases that are images like "
            f"the unprotected originals, and there are none to show to {given.matcher}"
        )
    return problems


def _listed(paths: Sequence[str | Path]) -> str:
    return ", ".join(map(str, paths))


def pass_for(x: NDArray[Any], originals: NDArray[Any]) -> bool:
    """Whether releases ``(n, ...)`` are images that could pass for originals ``(N, H, W[, 3])``."""
    return x.ndim > 2 and x.dtype == originals.dtype and x.shape[1:] == originals.shape[1:]


def tasks(setting: Setting, exhibits: Sequence[Exhibit]) -> Iterator[Task]:
    """What those who know originals alone make of releases that :func:`pass_for` them, and how alike both look."""
    reference = next((s for s in exhibits if s.role == "input"), None)
    if reference is None:
        return
    # The originals are read, too: what the same networks make of them is what a release is compared with.
    lookalikes = [s for s in exhibits if not s.finite and s.images and s.shape == reference.shape]
    if len(lookalikes) < 2:
        return
    everybody = tuple(s.name for s in lookalikes)
    who = [(s.name, s.fingerprint) for s in lookalikes]
    restorers = {name: r for name, r in setting.roster.restorers.items() if name in restoration.OF_IMAGES}
    names = [signatures(setting.roster.classifiers), signatures(restorers)]

    def call(function: Callable[..., Outcome], *arguments: Any) -> Callable[[], Callable[[], Outcome]]:
        return lambda: partial(function, setting, reference.x, {s.name: s.x for s in lookalikes}, *arguments)

    for target in dict.fromkeys([*setting.private, *["identity"] * ("identity" in setting.utility)]):
        matching = target == "identity"
        code, role = (_MATCHED[0], "utility") if matching else (_READ[0], "attack")
        yield Task(
            name=f"transfer of {target}",
            key=setting.key("transfer", who, target, names, setting.networks.fingerprint),
            prepare=call(matched) if matching else call(classified, target, restorers),
            missing=partial(_missing, [setting.nobody(release, target, role) for release in everybody], code),
            releases=everybody,
            first=True,
        )
    for s in lookalikes:
        if s is not reference:
            yield Task(
                name=f"{s.name}: likeness",
                key=setting.key("likeness", s.fingerprint, s.name, reference.fingerprint),
                prepare=lambda s=s: partial(likeness, setting, reference.x, s.x, s.name),  # type: ignore[misc]
                missing=partial(without, setting.nobody(s.name, "image", "utility"), "utility.ssim"),
                releases=(reference.name, s.name),
            )


def _missing(nobody: Sequence[Measurement], code: str, status: str, note: str) -> list[Finding]:
    return [each.missing(code, status, note) for each in nobody]


def classified(
    setting: Setting,
    originals: NDArray[Any],
    releases: Mapping[str, NDArray[Any]],
    target: str,
    restorers: Mapping[str, restoration.Restorer] | None = None,
) -> Outcome:
    """What classifiers that learned a label from originals read from releases, for each of them; as they are, and, but
    for the originals, restored.

    Thresholds are set on originals, those of ``calibrate``, as whoever runs such a system sets them: for the user's own
    classifiers, too, whose logits may have been made for other data. The classifier that reads the ``calibrate``
    originals best (:func:`veil.auditing.problem.quality`, which does not depend on the threshold) is marked.

    Args:
        setting: Labels, and who learns.
        originals: uint8 images ``(N, H, W[, 3])``.
        releases: By name, of the same shape; the originals may be among them.
        target: The label.
        restorers: By name; None for none.
    """
    pack, files, level = setting.pack, setting.networks.classifiers.get(target, ()), setting.level
    y, classes = pack.label(target), len(pack.classes[target])
    train, check, test = setting.rows(target)
    everybody = setting.people(target)
    people = None if everybody is None else everybody[test]
    problem = Problem(
        x=originals[train], y=y[train], x_validation=originals[check], y_validation=y[check], classes=classes,
        seed=setting.seed, effort=setting.effort,
    )  # fmt: skip
    learned: dict[str, Score] = {}
    scored: dict[str, dict[str, NDArray[np.float32]]] = {}
    decide: dict[str, Callable[[NDArray[Any]], NDArray[np.int64]]] = {}
    reads: dict[str, float] = {}
    failed: dict[str, tuple[str, str]] = {}
    theirs = ((file.name, _given(file, pack.classes[target])) for file in files)
    classifiers = dict(setting.roster.classifiers)
    if (embedder := setting.embedder_of(originals.shape[1:])) is not None:
        classifiers |= readers(embedder, setting.roster.of_templates)
    for name, attack in (*classifiers.items(), *theirs):
        try:
            score = attack(problem)
            seen = score(problem.x_validation)
            learned[name] = score
            scored[name] = {release: score(x[test]) for release, x in releases.items()}
            decide[name], reads[name] = decision(seen, y[check], classes), quality(seen, y[check], classes)
        except Exception as error:  # the others stand
            failed[name] = failure(error)
    best = max(reads, key=lambda name: reads[name], default=None)
    chance = 1 / len(np.unique(y[test]))
    options: dict[str, Any] = {"classes": classes, "level": level}
    findings: list[Finding] = []
    contributions: list[Contribution | None] = []
    rows = rows_of(test, y[test], people)
    for release in releases:
        by = Measurement(release=release, target=target, attacker="", role="attack", n=len(test), level=level)
        for name in reads:
            reader, worst = replace(by, attacker=name), name == best
            scores, from_file = scored[name][release], name not in classifiers
            predicted = decide[name](scores)
            notes = [FROM_FILE] * from_file
            if from_file and classes == 2:
                own = metrics.balanced_accuracy(y[test], largest(scores), classes=classes)
                notes.append(f"by its largest logit, without the threshold, {own:.3f}")
                if reads[name] < 0.5:
                    notes.append(f"AUC on originals {reads[name]:.3f}: are its classes in the pack's order?")
            if why := undecided(predicted, y[test]):
                note = "; ".join([why, *notes])
                findings.append(reader.missing(_READ[0], "not_applicable", note, chance=chance, worst=worst))
            else:
                interval = balanced_accuracy_interval(y[test], predicted, people, **options)
                opposite = ": its opposite is right more often" * (classes == 2)
                note = "; ".join([f"below chance{opposite}"] * (interval.high < chance) + notes)
                findings.append(reader.measured(_READ[0], interval, chance=chance, worst=worst, note=note))
                contributions.append(
                    contribution(findings[-1], rows, balanced_accuracy_sums(y[test], predicted, people))
                )
            interval = auc_interval(y[test], scores, people, **options)
            findings.append(reader.measured(_READ[1], interval, chance=0.5, worst=worst, note="; ".join(notes[:1])))
            contributions.append(contribution(findings[-1], rows, auc_sums(y[test], scores, people, classes=classes)))
        findings += [
            replace(by, attacker=name).missing(_READ[0], status, why, chance=chance)
            for name, (status, why) in failed.items()
        ]
    marked = {f.attacker for f in findings if f.worst}
    kept = tuple(each for each in contributions if each is not None and each.attacker in marked)
    if not learned or not restorers:
        return Outcome(findings=tuple(findings), contributions=kept)
    reading = restoration.Reading(setting=setting, target=target, readers=learned, restorers=restorers)
    protected = {name: x for name, x in releases.items() if x is not originals}
    restored = restoration.read(reading, originals, protected)
    return Outcome(findings=(*findings, *restored.findings), contributions=(*kept, *restored.contributions))


def _given(network: Network, classes: Sequence[str]) -> Callable[[Problem], Score]:
    """The user's classifier as an attacker that has learned already; its logits in the order of the pack's classes.

    Where it does not call its classes as the pack does, they are taken to be in that order.
    """
    if sorted(network.classes) != sorted(classes):
        return lambda problem: network
    places = [network.classes.index(each) for each in classes]
    return lambda problem: lambda x: network(x)[:, places]


def matched(setting: Setting, originals: NDArray[Any], releases: Mapping[str, NDArray[Any]]) -> Outcome:
    """How well a matcher that learned from originals compares releases with each other, and with originals.

    Arguments as for :func:`classified`; the user's own matcher, or else the bundled one where it can take part, stands
    beside the trained one. Each compares by the
    metric, and the matcher is marked, that serves best on the ``calibrate`` originals.
    """
    identity, seed, level = setting.pack.label("identity"), setting.seed, setting.level
    file = setting.networks.matcher or setting.embedder_of(originals.shape[1:])
    train, check, test = setting.rows("identity")
    problem = Problem(
        x=originals[train], y=identity[train], x_validation=originals[check], y_validation=identity[check],
        classes=len(setting.pack.classes["identity"]), seed=seed, effort=setting.effort,
    )  # fmt: skip
    learned: dict[str, Callable[[Problem], Embed]] = {MATCHER: siamese}
    if file is not None:
        learned[file.name] = lambda problem: file
    pairs = pairing.sample_pairs(test, identity, seed=seed, max_pairs=50_000)
    known, (first, second) = _places(pairs)
    moved = replace(pairs, a=first, b=second + len(known))
    findings: dict[str, list[Finding]] = {}
    reads: dict[str, float] = {}
    for name, learn in learned.items():
        findings[name] = []
        try:
            embed = learn(problem)
            metric, by, serves = _compared(embed, originals, train, check, identity, seed)
            real = embed(originals[known])
            for release, x in releases.items():
                drawn = embed(x[known])
                for code, other in zip(_MATCHED, (drawn, real), strict=True):
                    both = np.concatenate([drawn, other])
                    alike = pairing.scores(both, moved, kind=metric.kind, centre=metric.centre)
                    figure = verification.verify(alike, moved, None, None, level=level, fars=())[0].finding(
                        release=release, attacker=name
                    )
                    notes = [figure.note, f"by {by}", file.origin if file is not None and embed is file else ""]
                    findings[name].append(replace(figure, code=code, note="; ".join(filter(None, notes))))
            reads[name] = serves
        except Exception as error:  # the other stands
            status, why = failure(error)
            findings[name] = [
                Measurement(
                    release=release, target="identity", attacker=name, role="utility", n=len(pairs), level=level
                ).missing(code, status, why)
                for release in releases
                for code in _MATCHED
            ]
    best = max(reads, key=lambda name: reads[name], default=None)
    figures = [replace(f, worst=f.attacker == best and f.ok) for each in findings.values() for f in each]
    return Outcome(findings=tuple(figures))


def _places(pairs: pairing.Pairs) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The rows that pairs are of, and the places of both sides among them."""
    known = np.unique(np.concatenate([pairs.a, pairs.b]))
    return known, (np.searchsorted(known, pairs.a), np.searchsorted(known, pairs.b))


def _compared(
    embed: Embed, originals: NDArray[Any], train: NDArray[np.int64], check: NDArray[np.int64],
    identity: NDArray[np.int64], seed: int,
) -> tuple[pairing.Metric, str, float]:  # fmt: skip
    """The metric that serves a matcher best on pairs of ``check`` originals, its name and AUC, 0 without such pairs.

    The mean over ``train`` originals, :data:`_CENTRED` at most, is the centre.
    """
    some = np.sort(np.random.default_rng(seed).permutation(train)[:_CENTRED])
    features = embed(originals[some])
    known = embed(originals[check])
    candidates = pairing.metrics_of(features, np.arange(len(features)))
    return pairing.serving(known, candidates, identity[check], seed=seed + 1)


def likeness(setting: Setting, originals: NDArray[Any], x: NDArray[Any], release: str) -> Outcome:
    """SSIM and PSNR of releases ``x`` to their originals, on ``test``."""
    rows, everybody, level = setting.pack.rows("test"), setting.people(), setting.level
    people = None if everybody is None else everybody[rows]
    a, b = x[rows], np.asarray(originals[rows])
    pixels = Measurement(release=release, target="image", attacker="pixels", role="utility", n=len(rows), level=level)
    figures = (
        ("utility.ssim", metrics.ssim(a, b), (-1.0, 1.0)),
        ("utility.psnr", metrics.psnr(a, b), (0.0, metrics.PSNR_MOST)),
    )
    return Outcome(
        findings=tuple(
            pixels.measured(code, rate_interval(values, people, level=level, within=within), chance=0.0, worst=True)
            for code, values, within in figures
        )
    )
