"""Judges: who says how alike an original and what was redrawn of it are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from veil.auditing import metrics
from veil.auditing import pairs as pairing
from veil.auditing.decoders import (
    MEASURED,
    cosine,
)
from veil.auditing.matchers import siamese
from veil.auditing.problem import Embed, Floats, Problem, failure
from veil.auditing.setting import Setting
from veil.data.pack import Pack, flat
from veil.engine import Run, perceptual
from veil.nn.losses import perceptual_distance
from veil.nn.nets import to_input

_STEPS_PERCEPTUAL = 150
Values = dict[str, NDArray[np.float64]]  # for each figure its value of every image, (n,)


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


# -- judges -----------------------------------------------------------------------------------------------------------


def judges(setting: Setting) -> Judges:
    """Load or train them, once for all releases of an audit.

    Raises:
        InputError: If a file that is named does not serve.
    """
    pack, seed, matcher = setting.pack, setting.seed, setting.networks.matcher
    rows = pack.rows(*setting.attack_on)
    if pack.kind != "images":
        centre = _centre(pack.x[rows], pack, pack.x, seed)
        about = "" if centre is None else "vectors less the mean of the attackers'"
        return Judges(looks=None, matcher=None, about=about, centre=centre)
    assert setting.inversion is not None
    if (file := setting.inversion.perceptual) is not None:
        looks, _ = perceptual.from_file(file)
        words = f"perceptual distances by {file.name}"
    else:
        run = Run(seed=seed, device="cpu")
        learner = perceptual.player(run, 3 if pack.x.ndim == 4 else 1, _STEPS_PERCEPTUAL)
        looks = Run.collect(perceptual.learn(run, learner, pack.x, rows, _STEPS_PERCEPTUAL))
        words = f"perceptual distances by a network trained on {' and '.join(setting.attack_on)} without labels"
    if matcher is not None:
        of_check = pack.rows("calibrate")
        seen = np.zeros((len(pack), matcher.width), np.float32)
        seen[of_check] = matcher(pack.x[of_check])
        some = np.sort(np.random.default_rng(seed).permutation(rows)[:MEASURED])
        centre = _centre(matcher(pack.x[some]), pack, seen, seed)
        less = "" if centre is None else ", features less their mean"
        return Judges(looks=looks, matcher=_centred(matcher, centre), about=f"matcher {matcher.name}{less}; {words}")
    if "identity" not in pack.labels:
        return Judges(looks=looks, matcher=None, about=words)
    known, check, _ = setting.rows("identity")
    identity = pack.label("identity")
    problem = Problem(
        x=pack.x[known], y=identity[known], x_validation=pack.x[check], y_validation=identity[check],
        classes=len(pack.classes["identity"]), seed=seed + 1, effort=setting.effort,
    )  # fmt: skip
    try:
        trained = siamese(problem)
    except Exception as error:  # the other figures stand
        return Judges(looks=looks, matcher=None, about=f"no matcher ({failure(error)[1]}); {words}")
    learned = f"matcher: siamese, trained on originals of {' and '.join(setting.attack_on)}"
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
    candidates = pairing.metrics_of(train, np.arange(len(train)))
    del candidates["euclidean"]  # what is judged is how alike two directions are
    return pairing.serving(x[check], candidates, pack.label("identity")[check], seed=seed)[0].centre


def _centred(matcher: Embed, centre: Floats | None) -> Embed:
    return matcher if centre is None else lambda x: matcher(x) - centre


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
        return {"similarity": cosine(flat(drawn) - centre, flat(originals) - centre)}
    figures = {"ssim": metrics.ssim(drawn, originals), "psnr": metrics.psnr(drawn, originals)}
    if judges.looks is not None:
        figures["perceptual"] = _perceptual(judges.looks, drawn, originals)
    if judges.matcher is not None:
        features = judges.matcher(drawn) if features is None else features
        figures["face_similarity"] = cosine(features, judges.features(originals))
    return figures


def _perceptual(looks: nn.Module, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    looks.cpu()
    with torch.no_grad():
        parts = [
            perceptual_distance(*(looks.maps(to_input(s[i : i + 128], "images")) for s in (a, b)))  # type: ignore[operator]
            for i in range(0, len(a), 128)
        ]
    return torch.cat(parts).double().numpy()
