"""Inversion: what fresh decoders redraw from a release, and what they find of the face.

Decoders (:mod:`veil.auditing.decoders`) train on releases beside their originals, as somebody does who may use the
protector on data of their own.

Redrawn images are judged by structural similarity, signal-to-noise ratio and a perceptual distance; and by a matcher
that took no part in any training here: how alike the faces are (cosine), and how often the person comes first among
other images of everybody (rank-1). The feature-level attack (Xiao et al., Eq. 10) goes for the matcher's features
straight. Every figure stands beside what is got without releases: by the mean image, or by a decoder that learned from
releases and originals dealt at random, whichever is closer to the originals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from veil.auditing import metrics
from veil.auditing import pairs as pairing
from veil.auditing.decoders import (
    MEASURED,
    MORE_DATA,
    STEPS,
    Redraw,
    Redrawing,
    convolved,
    cosine,
    linear,
    regressor,
    strong,
    view_of,
    weak,
)
from veil.auditing.exhibit import Exhibit
from veil.auditing.intervals import Persons, positive, rate_interval
from veil.auditing.judges import Judges, Values, alike, judges
from veil.auditing.linkage import firsts
from veil.auditing.networks import apply, directions
from veil.auditing.problem import Embed, Floats, Problem, failure
from veil.auditing.setting import Setting, without
from veil.auditing.task import Failure, Missing, Outcome, Task, signatures
from veil.data.pack import Pack, flat
from veil.data.packfile import sha256
from veil.findings import Finding, Measurement
from veil.findings.codes import NO_BETTER
from veil.threads import one_thread

WITHIN: Mapping[str, tuple[float, float]] = {
    "ssim": (-1.0, 1.0),
    "psnr": (0.0, metrics.PSNR_MOST),
    "perceptual": (0.0, 4.0),
    "face_similarity": (-1.0, 1.0),
    "similarity": (-1.0, 1.0),
}
"""Least and largest value of each figure of an image."""
MEAN, DEALT, ITSELF = "mean image", "shuffled pairs (weak decoder)", "the picture itself"


@dataclass(frozen=True, kw_only=True)
class _Test:
    """The images that are redrawn and judged, and the records among which their people are looked for."""

    rows: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    gallery: NDArray[np.int64]  # one row of everybody
    own: NDArray[np.int64]  # (n,) place in the gallery of each row's person; -1 where it is that very image


def _test(pack: Pack, seed: int) -> _Test:
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(pack.rows("test"))[:MEASURED])
    if "identity" not in pack.labels:
        return _Test(rows=rows, groups=None, gallery=np.arange(0), own=np.full(len(rows), -1))
    identity = pack.label("identity")
    known = rng.permutation(pack.rows("test", known=("identity",)))
    people, first = np.unique(identity[known], return_index=True)
    gallery = known[first]
    place = np.searchsorted(people, identity[rows])
    in_gallery = (identity[rows] >= 0) & ~np.isin(rows, gallery)
    return _Test(rows=rows, groups=identity[rows], gallery=gallery, own=np.where(in_gallery, place, -1))


def tasks(setting: Setting, exhibits: Sequence[Exhibit]) -> Iterator[Task]:
    """Inversion of each exhibit, where that is asked for."""
    if setting.inversion is None:
        return
    code = "inversion.ssim" if setting.pack.kind == "images" else "inversion.similarity"
    perceptual_file = setting.inversion.perceptual

    @cache
    def who() -> Judges | Failure:
        try:
            with one_thread():
                return judges(setting)
        except Exception as error:  # whatever it is: the other attacks must not be lost with it
            return Failure.of(error)

    def prepare(exhibit: Exhibit) -> Callable[[], Outcome]:
        people = who()
        if isinstance(people, Failure):
            raise Missing(replace(people, note=f"nobody to judge by: {people.note}"))
        return partial(
            invert, setting, people, exhibit.x, release=exhibit.name, role=exhibit.role, feature_map=exhibit.feature_map
        )

    files = [setting.networks.fingerprint, None if perceptual_file is None else sha256(perceptual_file)]
    for s in exhibits:
        yield Task(
            name=f"{s.name}: inversion",
            key=setting.key("inversion", s.fingerprint, s.name, s.role, files, signatures(setting.roster.decoders)),
            prepare=partial(prepare, s),
            missing=partial(without, setting.nobody(s.name, "image", "attack"), code),
            releases=(s.name,),
            first=True,
        )


def invert(
    setting: Setting,
    judges: Judges,
    x: NDArray[Any],
    *,
    release: str,
    role: str,
    feature_map: tuple[int, int, int] | None = None,
) -> Outcome:
    """Attack one release with decoders, the feature-level attack and the controls.

    Args:
        setting: Originals, people and splits. Where its roster lacks the weak decoder, the control of shuffled pairs,
            which is another, is left out.
        judges: Who compares.
        x: Releases of all rows of the pack.
        release: The release's name.
        role: The unprotected input is not attacked: it is the picture itself.
        feature_map: ``(C, H, W)`` where releases are flattened maps.

    Returns:
        Findings ``inversion.*``; the decoder that is best on ``calibrate`` is marked as the worst attacker, and what it
        redraws of :func:`shown` images is the picture.
    """
    return _Attack(setting, judges, x, release, feature_map).outcome(role)


class _Attack:
    """One release under attack: what every figure of it is measured on."""

    def __init__(
        self, setting: Setting, judges: Judges, x: NDArray[Any], release: str, feature_map: tuple[int, int, int] | None
    ) -> None:
        self.setting, self.pack, self.judges, self.x = setting, setting.pack, judges, x
        self.release, self.feature_map = release, feature_map
        self.test = _test(self.pack, setting.seed)
        self.calibrate = self.pack.rows("calibrate")[:MEASURED]
        self.train = self.pack.rows(*setting.attack_on)
        self.failed: list[Finding] = []

    def outcome(self, role: str) -> Outcome:
        average = _mean(self.pack, self.setting.attack_on)
        nothing = np.broadcast_to(average, (len(self.test.rows), *average.shape))
        lda = self.lda()
        controls, without = self.figures(nothing, attacker=MEAN, role="control", without={})
        if role == "input":
            itself = np.asarray(self.pack.x[self.test.rows])
            findings, _ = self.figures(itself, attacker=ITSELF, role="attack", without=without, worst=True)
            return Outcome(findings=tuple(controls + lda + findings))
        decoders = self.setting.roster.decoders
        if weak in decoders.values():
            more, without = self.dealt(without)
            controls += more
        chance = {f"inversion.{name}": float(values.mean()) for name, values in without.items()}
        redraws, measured, quality = self.redrawn(decoders, without)
        worst = max(quality, key=lambda name: quality[name], default=None)
        findings = [replace(f, chance=chance.get(f.code, f.chance)) for f in controls] + lda + self.failed
        for name in quality:
            findings += [replace(f, worst=name == worst and f.ok) for f in measured[name]]
        if self.judges.matcher is not None:
            findings += self.features()
        picture = None if worst is None or self.pack.kind != "images" else redraws[worst](self.x[shown(self.pack)])
        return Outcome(findings=tuple(findings), picture=picture)

    def learned(
        self, attack: Callable[[Redrawing], Redraw], rows: NDArray[np.int64], *, shuffled: bool = False
    ) -> Redraw:
        return attack(self.problem(rows, shuffled=shuffled))

    def problem(self, rows: NDArray[np.int64], *, shuffled: bool = False) -> Redrawing:
        """Releases of some rows, and their originals, or others dealt at random."""
        x, pack, seed = self.x, self.pack, self.setting.seed
        originals = np.random.default_rng(seed).permutation(rows) if shuffled else rows
        nobody = np.zeros(len(rows), np.int64)
        releases = Problem(
            x=x[rows], y=nobody, x_validation=x[self.calibrate], y_validation=nobody[: len(self.calibrate)], classes=1,
            seed=seed, effort=self.setting.effort, feature_map=self.feature_map,
        )  # fmt: skip
        return Redrawing(
            releases=releases, originals=np.asarray(pack.x[originals]),
            originals_validation=np.asarray(pack.x[self.calibrate]), looks=self.judges.looks,
        )  # fmt: skip

    def dealt(self, without: Values) -> tuple[list[Finding], Values]:
        """The control of shuffled pairs, and what is got without releases by whichever comes closer."""
        try:
            redraw = self.learned(weak, self.train, shuffled=True)
            findings, values = self.figures(redraw(self.x[self.test.rows]), attacker=DEALT, role="control", without={})
        except Exception as error:  # the mean image stands in
            self.without_figure(DEALT, "control", error)
            return [], without
        return findings, {name: _closer(name, without[name], values[name]) for name in values}

    def redrawn(
        self, decoders: Mapping[str, Callable[[Redrawing], Redraw]], without: Values
    ) -> tuple[dict[str, Redraw], dict[str, list[Finding]], dict[str, float]]:
        """What decoders redraw, the findings of each, and how close each comes on ``calibrate``."""
        everything = self.pack.rows("protect", "attack")
        attacks = [(name, attack, self.train) for name, attack in decoders.items()]
        if self.setting.effort != "quick" and len(everything) > len(self.train):
            attacks.append((MORE_DATA, strong, everything))
        redraws: dict[str, Redraw] = {}
        quality: dict[str, float] = {}
        measured: dict[str, list[Finding]] = {}
        for name, attack, rows in attacks:
            try:
                redraws[name] = self.learned(attack, rows)
                originals = np.asarray(self.pack.x[self.calibrate])
                judged = alike(redraws[name](self.x[self.calibrate]), originals, self.judges)
                drawn = redraws[name](self.x[self.test.rows])
                measured[name] = self.figures(drawn, attacker=name, role="attack", without=without)[0]
                figure = next(k for k in ("face_similarity", "ssim", "similarity") if k in judged)
                quality[name] = float(judged[figure].mean())
            except Exception as error:  # the others stand
                self.without_figure(name, "attack", error)
        return redraws, measured, quality

    def without_figure(self, attacker: str, role: str, error: Exception) -> None:
        code = "inversion.ssim" if self.pack.kind == "images" else "inversion.similarity"
        by = self.measurement("image", attacker, len(self.test.rows), role)
        self.failed.append(by.missing(code, *failure(error)))

    def measurement(self, target: str, attacker: str, n: int, role: str = "attack") -> Measurement:
        """What findings of an attacker on n images share."""
        return Measurement(
            release=self.release, target=target, attacker=attacker, role=role, n=n, level=self.setting.level
        )

    def figures(
        self, drawn: NDArray[Any], *, attacker: str, role: str, without: Values, worst: bool = False
    ) -> tuple[list[Finding], Values]:
        """Findings of what was redrawn of the test images, and their values; ``without``: those got without releases.

        Whether an attack does better is asked image by image: what images differ by would drown a small gain.
        """
        test, judges, level = self.test, self.judges, self.setting.level
        originals = np.asarray(self.pack.x[test.rows])
        images = originals.dtype == np.uint8
        features = flat(drawn) if not images else None if judges.matcher is None else judges.matcher(drawn)
        out, figures = [], alike(drawn, originals, judges, features)
        for name, values in figures.items():
            interval = rate_interval(values, test.groups, level=level, within=WITHIN[name])
            known, note = interval.value, judges.about
            if name in without:
                known = float(without[name].mean())
                note = _said(name, _gain(name, values, without[name]), test, note, level=level)
            by = self.measurement("image", attacker, len(values), role)
            out.append(by.measured(f"inversion.{name}", interval, chance=known, worst=worst, note=note))
        out.append(self.rank1(features, attacker, role, worst))
        return out, figures

    def rank1(self, features: Floats | None, attacker: str, role: str, worst: bool) -> Finding:
        """How often a redrawn image's person comes first among another image of everybody."""
        test, code = self.test, "inversion.rank1"
        probes = np.flatnonzero(test.own >= 0)
        if features is None or len(test.gallery) < 2 or not len(probes):
            why = "needs a matcher, two people, and one of two images"
            return self.measurement("identity", attacker, 0, role).missing(code, "not_applicable", why)
        others = np.asarray(self.pack.x[test.gallery])
        gallery = self.judges.features(others) if self.pack.kind == "images" else flat(others)
        metric = pairing.Metric(centre=self.judges.centre)
        hits = firsts(features[probes], gallery, test.own[probes], metric)
        assert test.groups is not None
        interval = rate_interval(hits, test.groups[probes], level=self.setting.level)
        by = self.measurement("identity", attacker, len(probes), role)
        note = f"{len(probes):,} redrawn images among another image of {len(test.gallery):,} people"
        return by.measured(code, interval, chance=1 / len(test.gallery), worst=worst, note=note)

    def lda(self) -> list[Finding]:
        """How far people stand apart in the releases: between / within their scatter."""
        test = self.test
        known = np.flatnonzero(test.groups >= 0) if test.groups is not None else np.arange(0)

        scattered, code = self.measurement("identity", "scatter", len(known)), "inversion.lda"
        if test.groups is None or not len(known):
            return [scattered.missing(code, "not_applicable", "needs to know who is seen")]
        people = metrics.People.of(flat(self.x[test.rows[known]]), test.groups[known])
        scatter = people.scatter()
        if not math.isfinite(scatter.lda):
            why = "needs people of two images each, which differ"
            return [scattered.missing(code, "not_applicable", why)]
        number = len(people.count)
        spread = Persons.of(None, number).spread(people.lda_influence())
        interval = positive(scatter.lda, spread, number, level=self.setting.level)
        note = f"within {scatter.within:.6g}, between {scatter.between:.6g}, {number:,} people"
        return [scattered.measured(code, interval, chance=0.0, note=note)]

    def features(self) -> list[Finding]:
        """The feature-level attack (Eq. 10): a map from releases to the matcher's features, judged by cosine."""
        x, test, calibrate, level = self.x, self.test, self.calibrate, self.setting.level
        y, truth, check = (
            directions(self.judges.features(np.asarray(self.pack.x[rows])))
            for rows in (self.train, test.rows, calibrate)
        )
        problem = self.problem(self.train)
        releases = problem.releases
        images, view = convolved(releases), view_of(releases)
        steps = releases.pick(*STEPS["features"])

        def network() -> Embed:
            module = regressor(releases, view, torch.from_numpy(y), images=images, steps=steps)
            return lambda new: apply(module, view(new))

        learned: dict[str, Callable[[], Embed]] = {
            "linear features": lambda: linear(replace(problem, originals=y, originals_validation=check)),
            "network features": network,
        }
        code, out = "inversion.feature_similarity", []
        judged: dict[str, tuple[NDArray[np.float64], str]] = {}
        quality: dict[str, float] = {}
        for name, learn in learned.items():
            try:
                embed = learn()
                judged[name] = (cosine(embed(x[test.rows]), truth), "attack")
                quality[name] = float(cosine(embed(x[calibrate]), check).mean())
            except Exception as error:  # the other stands
                judged.pop(name, None)
                out.append(self.measurement("identity", name, len(test.rows)).missing(code, *failure(error)))
        worst = max(quality, key=lambda name: quality[name], default=None)
        guess = cosine(np.broadcast_to(y.mean(0), truth.shape), truth)
        judged["mean feature"] = (guess, "control")
        for name, (values, role) in judged.items():
            interval = rate_interval(values, test.groups, level=level, within=WITHIN["similarity"])
            note = "cosine to the matcher's features of the original"
            if role == "attack":
                note = _said("similarity", values - guess, test, note, level=level)
            by = self.measurement("identity", name, len(test.rows), role)
            chance = float(guess.mean())
            out.append(by.measured(code, interval, chance=chance, worst=name == worst, note=note))
        return out


def _closer(figure: str, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values of a figure that are closer to the originals, on average."""
    return a if _gain(figure, a, b).mean() >= 0 else b


def _gain(figure: str, values: NDArray[np.float64], without: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much closer to each original ``(n,)``; small perceptual distances are close."""
    return without - values if figure == "perceptual" else values - without


def shown(pack: Pack, count: int = 8) -> NDArray[np.int64]:
    """Rows of ``test`` whose redrawings are kept as pictures."""
    rows = pack.rows("test")
    spaced: NDArray[np.int64] = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    return spaced


def _mean(pack: Pack, attack_on: Sequence[str]) -> NDArray[Any]:
    """The mean image, or vector, of the attackers' splits."""
    rows = pack.rows(*attack_on)
    total = sum(np.asarray(pack.x[part], np.float64).sum(0) for part in np.array_split(rows, -(-len(rows) // 1024)))
    mean: NDArray[np.float64] = total / len(rows)
    return np.round(mean).astype(np.uint8) if pack.kind == "images" else mean.astype(np.float32)


def _said(figure: str, gain: NDArray[np.float64], test: _Test, note: str, *, level: float) -> str:
    """The note of an attack, which begins with :data:`NO_BETTER` unless the gain ``(n,)`` has an interval above 0."""
    most = WITHIN[figure][1] - WITHIN[figure][0]
    _, least, _ = rate_interval(gain, test.groups, level=level, within=(-most, most))
    return note if least > 0 else "; ".join(filter(None, (NO_BETTER, note)))


def people_map(x: NDArray[Any], pack: Pack, *, seed: int, people: int = 8, each: int = 30) -> dict[str, list[Any]]:
    """t-SNE (van der Maaten and Hinton 2008) of releases of those test people who have the most images.

    Args:
        x: Releases of all rows of the pack.
        pack: People and splits.
        seed: Seeds the projection.
        people: How many.
        each: Images of a person, at most.

    Returns:
        ``x``, ``y`` and ``person``, 0 .. people - 1, of each release; nothing where no two people have two images.
    """
    if "identity" not in pack.labels:
        return {}
    rows = pack.rows("test", known=("identity",))
    distinct, counts = np.unique(pack.label("identity")[rows], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:people]
    chosen = [rows[pack.label("identity")[rows] == who][:each] for who in distinct[order[counts[order] > 1]]]
    if len(chosen) < 2:
        return {}
    values = flat(np.asarray(x[np.concatenate(chosen)])).astype(np.float64)
    values = PCA(min(50, *values.shape), random_state=seed).fit_transform(values)
    at = TSNE(perplexity=min(15, len(values) / 4), init="random", random_state=seed).fit_transform(values)
    person = np.repeat(np.arange(len(chosen)), [len(part) for part in chosen])
    return {"x": np.round(at[:, 0], 3).tolist(), "y": np.round(at[:, 1], 3).tolist(), "person": person.tolist()}
