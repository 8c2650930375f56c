"""Restoration: attackers that repair releases first, and then read them with what they know of originals.

Rozsa et al. and others hide attributes by small changes that mislead classifiers; PrivacyProber (Rot et al., arXiv
2211.08864) showed that much comes back once images are denoised, blurred, or redrawn by a network, for every method it
tried. Here restored releases are read by the classifiers that learned from originals
(:mod:`veil.auditing.transfer`), and restored vectors by attackers that learned from original vectors.

A restorer is one function ``restorer(problem) -> restore``, where ``restore(x)`` gives one or several versions of each
release, in the form of originals; a reader's scores are averaged over them. It may learn from releases beside their
originals, as somebody does who can use the protector. To add one, name it in :data:`OF_IMAGES` or :data:`OF_VECTORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter
from torch import Tensor, nn

from veil.auditing.exhibit import Exhibit
from veil.auditing.intervals import auc_interval, auc_sums, balanced_accuracy_interval, balanced_accuracy_sums
from veil.auditing.linkage import Linking
from veil.auditing.networks import train
from veil.auditing.problem import Problem, Score, compact, decision, failure, quality, undecided
from veil.auditing.setting import Setting, without
from veil.auditing.task import Outcome, Task, contribution, given, rows_of, signatures
from veil.data.pack import flat
from veil.engine.run import has_bf16
from veil.findings import Finding, Measurement
from veil.findings.codes import CODES, RESTORED
from veil.nn.nets import map_shape, to_input, to_pixels

Restore = Callable[[NDArray[Any]], Sequence[NDArray[Any]]]
Restorer = Callable[[Linking], Restore]

_WINDOW, _SIGMA = 3, 1.0  # pixels: of the median, and of the blur
_COPIES, _LEVELS = 4, 8.0  # perturbed copies of an image, and the deviation of their noise in levels of 255
_BATCH = 32
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0)


# -- images -----------------------------------------------------------------------------------------------------------


def denoised(problem: Linking) -> Restore:
    """The median of 3 x 3 pixels."""
    return lambda x: [median_filter(x, size=(1, _WINDOW, _WINDOW, *(1,) * (x.ndim - 3)), mode="nearest")]


def blurred(problem: Linking) -> Restore:
    """A Gaussian blur of one pixel."""
    return lambda x: [gaussian_filter(x, sigma=(0, _SIGMA, _SIGMA, *(0,) * (x.ndim - 3)), mode="nearest")]


def perturbed(problem: Linking) -> Restore:
    """Copies with a little noise each, and shifted by a pixel or none: changes made to mislead seldom survive that."""
    seed = problem.releases.seed

    def restore(x: NDArray[Any]) -> list[NDArray[Any]]:
        versions = []
        for number in range(_COPIES):
            rng = np.random.default_rng([seed, number])
            moved = np.roll(x, rng.integers(-1, 2, size=2), axis=(1, 2)).astype(np.float32)
            noisy = moved + _LEVELS * rng.standard_normal(x.shape, dtype=np.float32)
            versions.append(np.clip(np.round(noisy), 0, 255).astype(np.uint8))
        return versions

    return restore


class Redrawer(nn.Module):
    """Four convolutions that say what to add to an image, each seeing 3 x 3 cells of half the resolution."""

    def __init__(self, channels: int, width: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        for a, b in ((4 * channels, width), (width, width), (width, width)):
            layers += [nn.Conv2d(a, b, 3, 1, 1), nn.GELU()]
        last = nn.Conv2d(width, 4 * channels, 3, 1, 1)
        nn.init.zeros_(last.weight)
        self.layers = nn.Sequential(*layers, last, nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same; odd sides are repeated by a pixel meanwhile."""
        height, width = x.shape[2:]
        padded = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        added: Tensor = self.layers(padded)
        return x + added[:, :, :height, :width]


def redrawn(problem: Linking) -> Restore:
    """A network that learned to undo the protector, from releases beside their originals."""
    releases, originals = problem.releases, problem.originals
    shape = releases.x.shape[1:]
    device = torch.device("cpu")

    def loss(module: nn.Module, rng: np.random.Generator, _: torch.Generator) -> Tensor:
        rows = rng.choice(len(releases.x), min(_BATCH, len(releases.x)), replace=False)
        given, wanted = (to_input(side.x[rows], "images") for side in (releases, originals))
        return F.l1_loss(module(given).float(), wanted)

    module = train(
        lambda: Redrawer(map_shape(shape)[0]), loss, steps=releases.pick(100, 300, 1000), lr=4e-3, seed=releases.seed,
        bf16=has_bf16(device),
    )  # fmt: skip

    def restore(x: NDArray[Any]) -> list[NDArray[Any]]:
        parts = []
        with torch.no_grad():
            for start in range(0, len(x), 64):
                parts.append(to_pixels(module(to_input(x[start : start + 64], "images")).float().numpy(), shape))
        return [np.concatenate(parts)]

    return restore


OF_IMAGES: Mapping[str, Restorer] = {
    "denoised": denoised, "blurred": blurred, "perturbed": perturbed, "redrawn": redrawn
}  # fmt: skip
"""Restorers of images by the names that findings give them."""


# -- vectors ----------------------------------------------------------------------------------------------------------


def mapped_back(problem: Linking) -> Restore:
    """The ridge regression from releases to their originals whose answers are nearest to originals of validation."""
    view = compact(problem.releases)
    x, y = view(problem.releases.x).astype(np.float64), flat(problem.originals.x).astype(np.float64)
    centre, mean = x.mean(0), y.mean(0)
    gram, cross = (x - centre).T @ (x - centre) / len(x), (x - centre).T @ (y - mean) / len(x)
    scale = max(float(np.trace(gram)) / len(gram), 1e-12)
    wanted = _directions(flat(problem.originals.x_validation) - mean)

    def answers(new: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = ((view(new) - centre) @ weights + mean).astype(np.float32)
        return answer

    def near(weights: NDArray[np.float64]) -> float:
        return float((_directions(answers(problem.releases.x_validation, weights) - mean) * wanted).sum(1).mean())

    best = max((np.linalg.solve(gram + ridge * scale * np.eye(len(gram)), cross) for ridge in _RIDGES), key=near)
    return lambda new: [answers(new, best)]


def _directions(x: NDArray[Any]) -> NDArray[Any]:
    out: NDArray[Any] = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return out


OF_VECTORS: Mapping[str, Restorer] = {"mapped back": mapped_back}
"""Restorers of vectors by the names that findings give them."""


# -- figures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What is read from restored releases.

    Attributes:
        setting: Labels, people, effort and seed.
        target: The label.
        readers: By name, what learned the label from originals.
        restorers: By name.
    """

    setting: Setting
    target: str
    readers: Mapping[str, Score]
    restorers: Mapping[str, Restorer]


def read(reading: Reading, originals: NDArray[Any], releases: Mapping[str, NDArray[Any]]) -> Outcome:
    """The label read from releases after each restoration, by the reader that reads restored ``calibrate`` rows best.

    Thresholds are set there, too. The restoration that is best on ``calibrate`` is marked.

    Args:
        reading: Who reads what, after which restorations.
        originals: ``(N, ...)``.
        releases: By name, ``(N, ...)``.
    """
    outcomes = [_read(reading, originals, x, name) for name, x in releases.items()]
    return Outcome(
        findings=tuple(finding for each in outcomes for finding in each.findings),
        contributions=tuple(part for each in outcomes for part in each.contributions),
    )


def _read(reading: Reading, originals: NDArray[Any], x: NDArray[Any], release: str) -> Outcome:
    setting, target = reading.setting, reading.target
    y, classes = setting.pack.label(target), len(setting.pack.classes[target])
    train_rows, check, test = setting.rows(target)
    everybody = setting.people(target)
    people = None if everybody is None else everybody[test]
    linking = Linking(
        releases=_side(setting, x, y, train_rows, check, classes),
        originals=_side(setting, originals, y, train_rows, check, classes),
    )
    by = Measurement(release=release, target=target, attacker="", role="attack", n=len(test), level=setting.level)
    tried: list[tuple[float, list[Finding], list[Any]]] = []
    failed: list[Finding] = []
    chance = 1 / len(np.unique(y[test]))
    options: dict[str, Any] = {"classes": classes, "level": setting.level}
    rows = rows_of(test, y[test], people)
    for restoration, restorer in reading.restorers.items():
        try:
            restore = restorer(linking)
            versions = [restore(x[part]) for part in (check, test)]
            scores = {
                name: [np.mean([score(v) for v in part], axis=0) for part in versions]
                for name, score in reading.readers.items()
            }
            reads = {name: quality(seen, y[check], classes) for name, (seen, _) in scores.items()}
            best = max(reads, key=lambda name: reads[name])
            (seen, answers), attacker = scores[best], replace(by, attacker=f"{best}, {restoration}")
            predicted = decision(seen, y[check], classes)(answers)
        except Exception as error:  # the others stand
            failed.append(replace(by, attacker=restoration).missing(RESTORED, *failure(error), chance=chance))
            continue
        sums = [auc_sums(y[test], answers, people, classes=classes)]
        findings = [attacker.measured(_AUC, auc_interval(y[test], answers, people, **options), chance=0.5)]
        if why := undecided(predicted, y[test]):
            findings.append(attacker.missing(RESTORED, "not_applicable", why, chance=chance))
        else:
            interval = balanced_accuracy_interval(y[test], predicted, people, **options)
            findings.append(attacker.measured(RESTORED, interval, chance=chance))
            sums.append(balanced_accuracy_sums(y[test], predicted, people))
        tried.append((reads[best], findings, sums))
    findings, contributions = [], []
    worst = max(range(len(tried)), key=lambda i: tried[i][0], default=None)
    for number, (_, figures, sums) in enumerate(tried):
        own = [replace(f, worst=number == worst) for f in figures]
        findings += own[::-1]
        if number == worst:
            contributions = [contribution(f, rows, part) for f, part in zip(own, sums, strict=False)]
    kept = tuple(each for each in contributions if each is not None)
    return Outcome(findings=(*findings, *failed), contributions=kept)


_AUC = CODES[RESTORED].stand_in


def _side(
    setting: Setting, x: NDArray[Any], y: NDArray[Any], rows: NDArray[Any], check: NDArray[Any], classes: int
) -> Problem:
    return Problem(
        x=x[rows], y=y[rows], x_validation=x[check], y_validation=y[check], classes=classes, seed=setting.seed,
        effort=setting.effort,
    )  # fmt: skip


# -- tasks of vectors -------------------------------------------------------------------------------------------------


def tasks(setting: Setting, exhibits: Sequence[Exhibit]) -> Iterator[Task]:
    """Attacks on restored vectors, where originals are vectors; images are restored where classifiers that know
    originals are trained (:func:`veil.auditing.transfer.tasks`)."""
    reference = next((s for s in exhibits if s.role == "input"), None)
    restorers = {n: r for n, r in setting.roster.restorers.items() if n in OF_VECTORS}
    if reference is None or not restorers or not setting.together:
        return
    parts = [signatures(setting.roster.of_restored), signatures(restorers)]
    for s in exhibits:
        for target in setting.private if s is not reference else ():
            missing = partial(without, setting.nobody(s.name, target, "attack"), RESTORED)
            if not s.images and not reference.images:
                yield Task(
                    name=f"{s.name}: {target}, restored",
                    key=setting.key("restoration", s.fingerprint, s.name, reference.fingerprint, target, parts),
                    prepare=partial(_prepared, setting, target, reference, s, restorers),
                    missing=missing,
                    releases=(reference.name, s.name),
                )
            elif s.shape != reference.shape:
                why = "releases are not of the originals' kind; what decoders redraw of them is under inversion"
                yield given(missing("not_applicable", why))


def _prepared(
    setting: Setting, target: str, reference: Exhibit, exhibit: Exhibit, restorers: Mapping[str, Restorer]
) -> Callable[[], Outcome]:
    return partial(attacked, setting, target, reference.x, exhibit.x, exhibit.name, restorers)


def attacked(
    setting: Setting,
    target: str,
    originals: NDArray[Any],
    releases: NDArray[Any],
    release: str,
    restorers: Mapping[str, Restorer],
) -> Outcome:
    """What attackers that learned a label from original vectors read from restored ones.

    Args:
        setting: Labels, and who learns.
        target: The label.
        originals: ``(N, d)``.
        releases: ``(N, k)``.
        release: Their name.
        restorers: By name.
    """
    y = setting.pack.label(target)
    train_rows, check, _ = setting.rows(target)
    problem = _side(setting, originals, y, train_rows, check, len(setting.pack.classes[target]))
    readers: dict[str, Score] = {}
    broken: list[tuple[str, str]] = []
    for name, attack in setting.roster.of_restored.items():
        try:
            readers[name] = attack(problem)
        except Exception as error:  # the others stand
            broken.append(failure(error))
    if not readers:
        return Outcome(findings=(setting.nobody(release, target, "attack").missing(RESTORED, *broken[0]),))
    reading = Reading(setting=setting, target=target, readers=readers, restorers=restorers)
    return read(reading, originals, {release: releases})
