"""Inversion: what fresh decoders redraw from a release, and what they find of the face.

A decoder is one function ``invert(problem) -> redraw``; ``redraw(x)`` gives what it takes the originals of releases to
be, uint8 images or float32 vectors. It trains on releases beside their originals, as somebody does who may use the
protector on data of their own. To add one, name it in :data:`DECODERS`.

Redrawn images are judged by structural similarity, signal-to-noise ratio and a perceptual distance; and by a matcher
that took no part in any training here: how alike the faces are (cosine), and how often the person comes first among
other images of everybody (rank-1). The feature-level attack (Xiao et al., Eq. 10) goes for the matcher's features
straight. Every figure stands beside what is got without releases: by the mean image, or by a decoder that learned from
releases and originals dealt at random, whichever is closer to the originals.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor, nn

from veil import metrics
from veil.audit import verification
from veil.audit.attackers import (
    DidNotConverge,
    Embed,
    Floats,
    Problem,
    SmallResNet,
    Standardiser,
    apply,
    directions,
    failure,
    image_view,
    siamese,
    train,
)
from veil.audit.findings import NO_BETTER, Finding
from veil.audit.intervals import Persons, positive, rate_interval
from veil.audit.linkage import firsts
from veil.data.pack import Pack, flat
from veil.engine import Player, Run, perceptual
from veil.engine.onnxfile import OnnxNetwork
from veil.engine.run import Diverged, has_bf16, seeded
from veil.losses import perceptual_distance, pixel_error
from veil.nets import ImageDiscriminator, MirrorDecoder, map_shape, mlp, to_input, to_pixels

Redraw = Callable[[NDArray[Any]], NDArray[Any]]
Values = dict[str, NDArray[np.float64]]  # for each figure its value of every image, (n,)

WITHIN: Mapping[str, tuple[float, float]] = {
    "ssim": (-1.0, 1.0),
    "psnr": (0.0, metrics.PSNR_MOST),
    "perceptual": (0.0, 4.0),
    "face_similarity": (-1.0, 1.0),
    "similarity": (-1.0, 1.0),
}
"""Least and largest value of each figure of an image."""
_MEASURED = 2000  # images of the test split that are redrawn and judged
_LINEAR = (1500, 4000, 4000)  # rows that the linear decoder learns from, for each effort
_BATCH = 64
_STEPS_PERCEPTUAL = 150
_STEPS = {"weak": (250, 800, 2500), "strong": (350, 1200, 4000), "features": (300, 800, 2500)}  # for each effort
_PERCEPTUAL, _GAN = 1.0, 0.01  # weights of a strong decoder's terms beside the pixel error (lambda1, lambda2)
MEAN, DEALT, ITSELF = "mean image", "shuffled pairs (weak decoder)", "the picture itself"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an audit by inversion may be given.

    Attributes:
        perceptual: File of torchvision's VGG-16 weights. None: a network is trained on the ``attack`` split.
        pictures: Folder for what the worst decoders redraw of :func:`shown` images, ``RELEASE.npy``; None for none.
    """

    perceptual: Path | None = None
    pictures: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Who says how alike an original and what was redrawn are; none for vectors, which their cosine judges.

    Attributes:
        looks: Network of perceptual distances, and what it is.
        matcher: From images to features ``(n, d)``; None where nobody is known by name.
        about: What findings say of both.
        centre: float32 ``(d,)``, what vectors lose before their cosine is taken, where that tells people apart better.
    """

    looks: nn.Module | None
    matcher: Embed | None
    about: str
    centre: Floats | None = None
    _known: dict[bytes, Floats] = field(default_factory=dict, repr=False)

    def features(self, originals: NDArray[Any]) -> Floats:
        """The matcher's features ``(n, d)`` of originals, kept: every decoder of every release is judged by them."""
        assert self.matcher is not None
        name = hashlib.blake2b(np.ascontiguousarray(originals).data, digest_size=16).digest()
        if name not in self._known:
            self._known[name] = self.matcher(originals)
        return self._known[name]


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """What a decoder may know.

    Attributes:
        releases: To train on, and the rest of what an attacker knows.
        originals: ``(n, ...)`` what they were made of: uint8 images or float32 vectors.
        originals_validation: Those of the validation releases.
        looks: Network of perceptual distances.
    """

    releases: Problem
    originals: NDArray[Any]
    originals_validation: NDArray[Any]
    looks: nn.Module | None


# -- judges -----------------------------------------------------------------------------------------------------------


def judges(
    pack: Pack,
    options: Options,
    *,
    attack_on: Sequence[str],
    seed: int,
    effort: str,
    matcher: OnnxNetwork | None = None,
) -> Judges:
    """Load or train them, once for all releases of an audit.

    Args:
        pack: Originals and people.
        options: A file for perceptual distances.
        attack_on: Splits that they train on.
        seed: Seeds their training.
        effort: ``"quick"``, ``"standard"`` or ``"strong"``.
        matcher: A face matcher; one is trained if None.

    Raises:
        InputError: If a file that is named does not serve.
    """
    rows = pack.rows(*attack_on)
    if pack.kind != "images":
        centre = _centre(pack.x[rows], pack, pack.x, seed)
        about = "" if centre is None else "vectors less the mean of the attackers'"
        return Judges(looks=None, matcher=None, about=about, centre=centre)
    if options.perceptual is not None:
        looks, _ = perceptual.from_file(options.perceptual)
        words = f"perceptual distances by {options.perceptual.name}"
    else:
        run = Run(seed=seed, device="cpu")
        learner = perceptual.player(run, 3 if pack.x.ndim == 4 else 1, _STEPS_PERCEPTUAL)
        looks = Run.collect(perceptual.learn(run, learner, pack.x, rows, _STEPS_PERCEPTUAL))
        words = f"perceptual distances by a network trained on {' and '.join(attack_on)} without labels"
    if matcher is not None:
        of_check = pack.rows("calibrate")
        seen = np.zeros((len(pack), matcher.width), np.float32)
        seen[of_check] = matcher(pack.x[of_check])
        some = np.sort(np.random.default_rng(seed).permutation(rows)[:_MEASURED])
        centre = _centre(matcher(pack.x[some]), pack, seen, seed)
        less = "" if centre is None else ", features less their mean"
        return Judges(looks=looks, matcher=_centred(matcher, centre), about=f"matcher {matcher.name}{less}; {words}")
    if "identity" not in pack.labels:
        return Judges(looks=looks, matcher=None, about=words)
    known, check = pack.rows(*attack_on, known=("identity",)), pack.rows("calibrate", known=("identity",))
    identity = pack.label("identity")
    problem = Problem(
        x=pack.x[known], y=identity[known], x_validation=pack.x[check], y_validation=identity[check],
        classes=len(pack.classes["identity"]), seed=seed + 1, effort=effort,
    )  # fmt: skip
    try:
        trained = siamese(problem)
    except Exception as error:  # the other figures stand
        return Judges(looks=looks, matcher=None, about=f"no matcher ({failure(error)[1]}); {words}")
    learned = f"matcher: siamese, trained on originals of {' and '.join(attack_on)}"
    return Judges(looks=looks, matcher=trained, about=f"{learned}; {words}")


def _centre(train: NDArray[Any], pack: Pack, x: NDArray[Any], seed: int) -> Floats | None:
    """The mean of ``train`` vectors, where the people of ``calibrate`` are told apart better without it, else None.

    Args:
        train: ``(n, d)``.
        pack: Who is seen.
        x: ``(N, d)``, for all rows; those of ``calibrate`` are read.
        seed: Draws the pairs.
    """
    if "identity" not in pack.labels:
        return None
    check = pack.rows("calibrate", known=("identity",))
    candidates = verification.metrics_of(train, np.arange(len(train)))
    del candidates["euclidean"]  # what is judged is how alike two directions are
    return verification.serving(x[check], candidates, pack.label("identity")[check], seed=seed)[0].centre


def _centred(matcher: Embed, centre: Floats | None) -> Embed:
    return matcher if centre is None else lambda x: matcher(x) - centre


# -- decoders ---------------------------------------------------------------------------------------------------------


def linear(problem: Inversion) -> Redraw:
    """Ridge regression from standardised releases to originals; inverts a linear encoder that can be inverted at all.

    The ridge is the one that is best on validation data: of the least error for images, the highest cosine for vectors.
    """
    n = min(len(problem.originals), problem.releases.pick(*_LINEAR))
    rows = np.sort(np.random.default_rng(problem.releases.seed).permutation(len(problem.originals))[:n])
    view = Standardiser.fit(flat(problem.releases.x[rows]))
    x, y = view(problem.releases.x[rows]).astype(np.float64), flat(problem.originals[rows]).astype(np.float64)
    centre_x, centre_y = x.mean(0), y.mean(0)
    x, y = x - centre_x, y - centre_y
    wide = x.shape[1] > n  # then in the space of the rows
    values, axes = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    values = np.maximum(values, 0)
    target = axes.T @ (y if wide else x.T @ y)

    def basis(new: NDArray[Any]) -> NDArray[np.float64]:
        centred = view(new) - centre_x
        out: NDArray[np.float64] = centred @ x.T @ axes if wide else centred @ axes
        return out

    shape, images = problem.originals.shape[1:], problem.originals.dtype == np.uint8
    check = slice(0, _MEASURED)
    known, seen = flat(problem.originals_validation[check]), basis(problem.releases.x_validation[check])
    best, least = target, math.inf
    for ridge in (1e-8, 1e-4, 1e-2, 1.0, 100.0):
        weights = target / (values + ridge * max(values.mean(), 1e-12))[:, None]
        drawn = seen @ weights + centre_y
        error = float((np.square(drawn - known) if images else -_cosine(drawn, known)).mean())
        if error < least:
            best, least = weights, error

    def redraw(new: NDArray[Any]) -> NDArray[Any]:
        drawn: NDArray[np.float64] = basis(new) @ best + centre_y
        if images:
            return np.round(np.clip(drawn * 255, 0, 255)).astype(np.uint8).reshape(len(new), *shape)
        return drawn.astype(np.float32)

    return redraw


def weak(problem: Inversion) -> Redraw:
    """A network that minimises the pixel error (Eq. 1); of vectors, an MLP that minimises their squared error."""
    return _network(problem, strong=False)


def strong(problem: Inversion) -> Redraw:
    """Pixel error, perceptual distance and a GAN term together, and longer (Eq. 5)."""
    return _network(problem, strong=True)


def _convolved(releases: Problem) -> bool:
    """Whether releases are images or maps, at any effort."""
    return releases.x.ndim > 2 or releases.feature_map is not None


def _view(releases: Problem) -> Embed:
    return image_view(releases) if _convolved(releases) else Standardiser.fit(flat(releases.x))


def _network(problem: Inversion, *, strong: bool) -> Redraw:
    releases = problem.releases
    steps = releases.pick(*_STEPS["strong" if strong else "weak"])
    view = _view(releases)
    if problem.originals.dtype != np.uint8:
        return _vectors(problem, view, steps)
    shape = problem.originals.shape[1:]
    image = map_shape(shape)
    run = Run(seed=releases.seed)
    with seeded(run.seed, "inversion", "strong" if strong else "weak"):
        network = run.place(MirrorDecoder(view(releases.x[:1]).shape[1:], *image))
        judge = run.place(ImageDiscriminator(*image))
    decoder = Player(
        "decoder", network, lr=1e-3, optimizer="adamw", weight_decay=0.01, schedule=_decay(steps), clip=5.0
    )
    discriminator = Player("discriminator", judge, lr=2e-4)
    looks = None if problem.looks is None or not strong else problem.looks.to(run.device)

    def redrawn(new: NDArray[Any]) -> Tensor:
        with run.autocast():
            out: Tensor = network(run.tensor(view(new)).contiguous())
        return out.float().sigmoid()

    try:
        for step in run.stage("decoder", steps):
            rows = np.sort(step.rng.choice(len(problem.originals), min(_BATCH, len(problem.originals)), replace=False))
            x = to_input(problem.originals[rows], "images").to(run.device)
            drawn = redrawn(releases.x[rows])
            loss = pixel_error(drawn, x).mean()
            if looks is not None:
                with run.autocast():
                    maps, real = looks.maps(drawn), looks.maps(x)  # type: ignore[operator]
                    run.update(
                        discriminator, (F.softplus(-judge(x)).mean() + F.softplus(judge(drawn.detach())).mean()) / 2
                    )
                    fooled = F.softplus(-judge(drawn)).mean()
                loss = loss + _PERCEPTUAL * perceptual_distance(maps, real).mean() + _GAN * fooled
            run.update(decoder, loss)
    except Diverged as error:
        raise DidNotConverge(str(error)) from error
    network.eval()

    def redraw(new: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            parts = [redrawn(new[i : i + 256]).cpu().numpy() for i in range(0, len(new), 256)]
        return to_pixels(np.concatenate(parts), shape)

    return redraw


def _vectors(problem: Inversion, view: Embed, steps: int) -> Redraw:
    """An MLP back to vectors, which only their directions judge: it minimises 1 - cosine."""
    y = torch.from_numpy(np.array(problem.originals, np.float32))
    module = _regressor(problem.releases, view, y, images=problem.releases.x.ndim > 2, steps=steps)
    return lambda new: apply(module, view(new))


def _regressor(releases: Problem, view: Embed, y: Tensor, *, images: bool, steps: int) -> nn.Module:
    """From releases to the directions of ``y`` ``(n, d)``: a residual network for images, else an MLP."""
    size = min(_BATCH if images else 256, len(y))

    def build() -> nn.Module:
        first = view(releases.x[:1])
        if images:
            return SmallResNet(first.shape[1], min(first.shape[2:]), y.shape[1])
        return mlp([math.prod(first.shape[1:]), 512, 512, y.shape[1]], dropout=0.1)

    def loss(module: nn.Module, rng: np.random.Generator, _: torch.Generator) -> Tensor:
        rows = np.sort(rng.choice(len(y), size, replace=False))
        out = module(torch.from_numpy(np.ascontiguousarray(view(releases.x[rows]))))
        return 1 - F.cosine_similarity(out.float(), y[torch.from_numpy(rows)]).mean()

    bf16 = images and has_bf16(torch.device("cpu"))
    return train(build, loss, steps=steps, lr=1e-3, seed=releases.seed, bf16=bf16)


def _decay(steps: int) -> Callable[[int], float]:
    """Constant learning rate, then a line to 0 over the last half of the steps."""
    return lambda update: min(1.0, 2 * (1 - update / steps))


DECODERS: Mapping[str, Callable[[Inversion], Redraw]] = {
    "linear decoder": linear,
    "weak decoder": weak,
    "strong decoder": strong,
}
"""Every decoder by the name that findings give it."""
MORE_DATA = "strong decoder, more data"
"""The strong decoder again, with the protector's own images too; not at effort quick."""


# -- figures ----------------------------------------------------------------------------------------------------------


def alike(drawn: NDArray[Any], originals: NDArray[Any], judges: Judges, features: Floats | None = None) -> Values:
    """How alike each original ``(n, ...)`` and what was redrawn of it are: ``(n,)`` for each figure.

    Args:
        drawn: What was redrawn.
        originals: Of what.
        judges: Who compares.
        features: The matcher's, of what was redrawn, where they are known.
    """
    if originals.dtype != np.uint8:
        centre = 0 if judges.centre is None else judges.centre
        return {"similarity": _cosine(flat(drawn) - centre, flat(originals) - centre)}
    figures = {"ssim": metrics.ssim(drawn, originals), "psnr": metrics.psnr(drawn, originals)}
    if judges.looks is not None:
        figures["perceptual"] = _perceptual(judges.looks, drawn, originals)
    if judges.matcher is not None:
        features = judges.matcher(drawn) if features is None else features
        figures["face_similarity"] = _cosine(features, judges.features(originals))
    return figures


def _cosine(a: Floats, b: Floats) -> NDArray[np.float64]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    out: NDArray[np.float64] = np.einsum("nd,nd->n", a, b).astype(np.float64) / np.maximum(lengths, 1e-12)
    return np.clip(out, -1, 1)


def _perceptual(looks: nn.Module, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    looks.cpu()
    with torch.no_grad():
        parts = [
            perceptual_distance(*(looks.maps(to_input(s[i : i + 128], "images")) for s in (a, b)))  # type: ignore[operator]
            for i in range(0, len(a), 128)
        ]
    return torch.cat(parts).double().numpy()


@dataclass(frozen=True, kw_only=True)
class _Test:
    """The images that are redrawn and judged, and the records among which their people are looked for."""

    rows: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    gallery: NDArray[np.int64]  # one row of everybody
    own: NDArray[np.int64]  # (n,) place in the gallery of each row's person; -1 where it is that very image


def _test(pack: Pack, seed: int) -> _Test:
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(pack.rows("test"))[:_MEASURED])
    if "identity" not in pack.labels:
        return _Test(rows=rows, groups=None, gallery=np.arange(0), own=np.full(len(rows), -1))
    identity = pack.label("identity")
    known = rng.permutation(pack.rows("test", known=("identity",)))
    people, first = np.unique(identity[known], return_index=True)
    gallery = known[first]
    place = np.searchsorted(people, identity[rows])
    found = (identity[rows] >= 0) & ~np.isin(rows, gallery)
    return _Test(rows=rows, groups=identity[rows], gallery=gallery, own=np.where(found, place, -1))


def invert(
    x: NDArray[Any],
    pack: Pack,
    judges: Judges,
    *,
    release: str,
    role: Literal["input", "baseline", "method"],
    feature_map: tuple[int, int, int] | None,
    attack_on: Sequence[str],
    effort: str,
    seed: int,
    level: float,
    pictures: Path | None = None,
    decoders: Sequence[str] = tuple(DECODERS),
) -> list[Finding]:
    """Attack one release with decoders, the feature-level attack and the controls.

    Args:
        x: Releases of all rows of the pack.
        pack: Originals, people and splits.
        judges: Who compares.
        release: The release's name.
        role: The unprotected input is not attacked: it is the picture itself.
        feature_map: ``(C, H, W)`` where releases are flattened maps.
        attack_on: Splits that decoders train on.
        effort: ``"quick"``, ``"standard"`` or ``"strong"``.
        seed: Seeds decoders and draws.
        level: Coverage of the intervals.
        pictures: Folder for what the worst decoder redraws of :func:`shown` images.
        decoders: Which of :data:`DECODERS`; without the weak one the control of shuffled pairs, another, is left out.

    Returns:
        Findings ``inversion.*``; the decoder that is best on ``calibrate`` is marked as the worst attacker.
    """
    test, calibrate = _test(pack, seed), pack.rows("calibrate")[:_MEASURED]
    common: dict[str, Any] = {"release": release, "level": level}
    average = _mean(pack, attack_on)

    def nothing(rows: NDArray[np.int64]) -> NDArray[Any]:
        return np.broadcast_to(average, (len(rows), *average.shape))

    figures: Callable[..., tuple[list[Finding], Values]] = partial(
        _figures, pack=pack, test=test, judges=judges, **common
    )
    lda = _lda(x, pack, test, **common)
    controls, without = figures(nothing(test.rows), attacker=MEAN, role="control", without={})
    if role == "input":
        itself = np.asarray(pack.x[test.rows])
        found, _ = figures(itself, attacker=ITSELF, role="attack", without=without, worst=True)
        return controls + lda + found
    train_rows, everything = pack.rows(*attack_on), pack.rows("protect", "attack")

    def learned(attack: Callable[[Inversion], Redraw], rows: NDArray[np.int64], *, shuffled: bool = False) -> Redraw:
        return attack(_problem(x, pack, rows, calibrate, judges, feature_map, effort, seed, shuffled=shuffled))

    tasks = [(name, DECODERS[name], train_rows) for name in decoders]
    failed: list[Finding] = []

    def without_figure(attacker: str, role: str, error: Exception) -> None:
        code = "inversion.ssim" if pack.kind == "images" else "inversion.similarity"
        status, note = failure(error)
        failed.append(
            Finding(code=code, target="image", attacker=attacker, role=role, n=len(test.rows), status=status,
                    note=note, **common)
        )  # fmt: skip

    if any(attack is weak for _, attack, _ in tasks):
        try:
            dealt = learned(weak, train_rows, shuffled=True)
            found, values = figures(dealt(x[test.rows]), attacker=DEALT, role="control", without={})
            controls += found
            without = {name: _closer(name, without[name], values[name]) for name in values}
        except Exception as error:
            without_figure(DEALT, "control", error)  # the mean image stands in
    chance = {f"inversion.{name}": float(values.mean()) for name, values in without.items()}
    if effort != "quick" and len(everything) > len(train_rows):
        tasks.append((MORE_DATA, strong, everything))
    redraws: dict[str, Redraw] = {}
    quality: dict[str, float] = {}
    measured: dict[str, list[Finding]] = {}
    for name, attack, rows in tasks:
        try:
            redraws[name] = learned(attack, rows)
            judged = alike(redraws[name](x[calibrate]), np.asarray(pack.x[calibrate]), judges)
            measured[name] = figures(redraws[name](x[test.rows]), attacker=name, role="attack", without=without)[0]
            key = next(k for k in ("face_similarity", "ssim", "similarity") if k in judged)
            quality[name] = float(judged[key].mean())
        except Exception as error:  # the others stand
            without_figure(name, "attack", error)
    worst = max(quality, key=lambda name: quality[name], default=None)
    found = [replace(f, chance=chance.get(f.code, f.chance)) for f in controls] + lda + failed
    for name in quality:
        found += [replace(f, worst=name == worst and f.ok) for f in measured[name]]
    if worst is not None and pictures is not None:
        np.save(picture(pictures, release), redraws[worst](x[shown(pack)]))
    if judges.matcher is not None:
        found += _features(x, pack, judges, test, train_rows, calibrate, feature_map, effort, seed=seed, **common)
    return found


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


def picture(folder: Path, release: str) -> Path:
    """The file in which :func:`invert` keeps its pictures of a release."""
    return folder / f"{hashlib.blake2b(release.encode(), digest_size=8).hexdigest()}.npy"


def _problem(
    x: NDArray[Any], pack: Pack, rows: NDArray[np.int64], calibrate: NDArray[np.int64], judges: Judges,
    feature_map: tuple[int, int, int] | None, effort: str, seed: int, *, shuffled: bool = False,
) -> Inversion:  # fmt: skip
    originals = np.random.default_rng(seed).permutation(rows) if shuffled else rows
    nobody = np.zeros(len(rows), np.int64)
    releases = Problem(
        x=x[rows], y=nobody, x_validation=x[calibrate], y_validation=nobody[: len(calibrate)], classes=1, seed=seed,
        effort=effort, feature_map=feature_map,
    )  # fmt: skip
    return Inversion(
        releases=releases, originals=np.asarray(pack.x[originals]),
        originals_validation=np.asarray(pack.x[calibrate]), looks=judges.looks,
    )  # fmt: skip


def _mean(pack: Pack, attack_on: Sequence[str]) -> NDArray[Any]:
    """The mean image, or vector, of the attackers' splits."""
    rows = pack.rows(*attack_on)
    total = sum(np.asarray(pack.x[part], np.float64).sum(0) for part in np.array_split(rows, -(-len(rows) // 1024)))
    mean: NDArray[np.float64] = total / len(rows)
    return np.round(mean).astype(np.uint8) if pack.kind == "images" else mean.astype(np.float32)


def _figures(
    drawn: NDArray[Any], *, pack: Pack, test: _Test, judges: Judges, attacker: str, role: str,
    without: Values, level: float, release: str, worst: bool = False,
) -> tuple[list[Finding], Values]:  # fmt: skip
    """Findings of what was redrawn of the test images, and their values; ``without`` are those got without releases.

    Whether an attack does better is asked image by image: what images differ by would drown a small gain.
    """
    originals = np.asarray(pack.x[test.rows])
    images = originals.dtype == np.uint8
    features = flat(drawn) if not images else None if judges.matcher is None else judges.matcher(drawn)
    out, figures = [], alike(drawn, originals, judges, features)
    for name, values in figures.items():
        value, low, high = rate_interval(values, test.groups, level=level, within=WITHIN[name])
        known, note = value, judges.about
        if name in without:
            known = float(without[name].mean())
            note = _said(name, _gain(name, values, without[name]), test, note, level=level)
        out.append(
            Finding(code=f"inversion.{name}", release=release, target="image", attacker=attacker, role=role,
                    value=value, low=low, high=high, level=level, n=len(values), chance=known, worst=worst, note=note)
        )  # fmt: skip
    out.append(_rank1(features, pack, test, judges, attacker, role, level, release, worst))
    return out, figures


def _said(figure: str, gain: NDArray[np.float64], test: _Test, note: str, *, level: float) -> str:
    """The note of an attack, which begins with :data:`NO_BETTER` unless the gain ``(n,)`` has an interval above 0."""
    most = WITHIN[figure][1] - WITHIN[figure][0]
    _, least, _ = rate_interval(gain, test.groups, level=level, within=(-most, most))
    return note if least > 0 else "; ".join(filter(None, (NO_BETTER, note)))


def _rank1(
    features: Floats | None, pack: Pack, test: _Test, judges: Judges, attacker: str, role: str, level: float,
    release: str, worst: bool,
) -> Finding:  # fmt: skip
    """How often a redrawn image's person comes first among another image of everybody."""
    common: dict[str, Any] = {
        "code": "inversion.rank1", "release": release, "target": "identity", "attacker": attacker, "role": role,
        "level": level,
    }  # fmt: skip
    probes = np.flatnonzero(test.own >= 0)
    if features is None or len(test.gallery) < 2 or not len(probes):
        why = "needs a matcher, two people, and one of two images"
        return Finding(n=0, status="not_applicable", note=why, **common)
    others = np.asarray(pack.x[test.gallery])
    gallery = judges.features(others) if pack.kind == "images" else flat(others)
    metric = verification.Metric(centre=judges.centre)
    hits = firsts(features[probes], gallery, test.own[probes], metric)
    assert test.groups is not None
    value, low, high = rate_interval(hits, test.groups[probes], level=level)
    return Finding(
        value=value, low=low, high=high, n=len(probes), chance=1 / len(test.gallery), worst=worst,
        note=f"{len(probes):,} redrawn images among another image of {len(test.gallery):,} people", **common,
    )  # fmt: skip


def _lda(x: NDArray[Any], pack: Pack, test: _Test, *, release: str, level: float) -> list[Finding]:
    """How far people stand apart in the releases: between / within their scatter."""
    known = np.flatnonzero(test.groups >= 0) if test.groups is not None else np.arange(0)
    common: dict[str, Any] = {
        "code": "inversion.lda", "release": release, "target": "identity", "attacker": "scatter", "role": "attack",
        "level": level, "n": len(known),
    }  # fmt: skip
    if test.groups is None or not len(known):
        return [Finding(status="not_applicable", note="needs to know who is seen", **common)]
    people = metrics.People.of(flat(x[test.rows[known]]), test.groups[known])
    scatter = people.scatter()
    if not math.isfinite(scatter.lda):
        return [Finding(status="not_applicable", note="needs people of two images each, which differ", **common)]
    number = len(people.count)
    spread = Persons.of(None, number).spread(people.lda_influence())
    value, low, high = positive(scatter.lda, spread, number, level=level)
    note = f"within {scatter.within:.6g}, between {scatter.between:.6g}, {number:,} people"
    return [Finding(value=value, low=low, high=high, chance=0.0, note=note, **common)]


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
    found, counts = np.unique(pack.label("identity")[rows], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:people]
    chosen = [rows[pack.label("identity")[rows] == who][:each] for who in found[order[counts[order] > 1]]]
    if len(chosen) < 2:
        return {}
    values = flat(np.asarray(x[np.concatenate(chosen)])).astype(np.float64)
    values = PCA(min(50, *values.shape), random_state=seed).fit_transform(values)
    at = TSNE(perplexity=min(15, len(values) / 4), init="random", random_state=seed).fit_transform(values)
    person = np.repeat(np.arange(len(chosen)), [len(part) for part in chosen])
    return {"x": np.round(at[:, 0], 3).tolist(), "y": np.round(at[:, 1], 3).tolist(), "person": person.tolist()}


def _features(
    x: NDArray[Any], pack: Pack, judges: Judges, test: _Test, rows: NDArray[np.int64], calibrate: NDArray[np.int64],
    feature_map: tuple[int, int, int] | None, effort: str, *, release: str, seed: int, level: float,
) -> list[Finding]:  # fmt: skip
    """The feature-level attack (Eq. 10): a map from releases to the matcher's features, judged by cosine."""
    y, truth, check = (directions(judges.features(np.asarray(pack.x[some]))) for some in (rows, test.rows, calibrate))
    problem = _problem(x, pack, rows, calibrate, judges, feature_map, effort, seed)
    releases = problem.releases
    images, view = _convolved(releases), _view(releases)
    steps = releases.pick(*_STEPS["features"])

    def network() -> Embed:
        module = _regressor(releases, view, torch.from_numpy(y), images=images, steps=steps)
        return lambda new: apply(module, view(new))

    learned: dict[str, Callable[[], Embed]] = {
        "linear features": lambda: linear(replace(problem, originals=y, originals_validation=check)),
        "network features": network,
    }
    out = []
    common: dict[str, Any] = {
        "code": "inversion.feature_similarity", "release": release, "target": "identity", "level": level,
        "n": len(test.rows),
    }  # fmt: skip
    judged: dict[str, tuple[NDArray[np.float64], str]] = {}
    quality: dict[str, float] = {}
    for name, learn in learned.items():
        try:
            embed = learn()
            judged[name] = (_cosine(embed(x[test.rows]), truth), "attack")
            quality[name] = float(_cosine(embed(x[calibrate]), check).mean())
        except Exception as error:  # the other stands
            judged.pop(name, None)
            status, note = failure(error)
            out.append(Finding(attacker=name, role="attack", status=status, note=note, **common))
    worst = max(quality, key=lambda name: quality[name], default=None)
    guess = _cosine(np.broadcast_to(y.mean(0), truth.shape), truth)
    chance = float(guess.mean())
    judged["mean feature"] = (guess, "control")
    for name, (values, role) in judged.items():
        value, low, high = rate_interval(values, test.groups, level=level, within=WITHIN["similarity"])
        note = "cosine to the matcher's features of the original"
        if role == "attack":
            note = _said("similarity", values - guess, test, note, level=level)
        out.append(
            Finding(attacker=name, role=role, value=value, low=low, high=high, chance=chance, worst=name == worst,
                    note=note, **common)
        )  # fmt: skip
    return out
