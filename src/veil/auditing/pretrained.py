"""Attackers that see images through a pretrained face embedder, and learn from its templates of them.

Networks that are trained from scratch need many images before they read a face; an embedder that has seen millions of
other faces needs few. So does whoever attacks: the embedder is on everybody's disk. It reads releases of a pack of
aligned faces, and the unprotected input beside them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.auditing.problem import Problem, Score
from veil.auditing.setting import Attack
from veil.data.pack import Pack
from veil.errors import InputError
from veil.nn.embedders import BUNDLED, Network, matcher_of

_MOST = (500, 2000, 10**9)  # faces to learn from, at each effort: a template takes a tenth of a second
_REMEMBERED = 50_000  # templates, of 128 values each


@dataclass(frozen=True)
class Pretrained:
    """An attacker that learns from templates of images.

    Attributes:
        network: Makes them.
        attack: Learns from them.
    """

    network: Network
    attack: Attack

    @property
    def fingerprint(self) -> str:
        """What its answers depend on beside the version of Veil."""
        return self.network.fingerprint

    def __call__(self, problem: Problem) -> Score:
        """Learns from some of the images at random, as many of each class as the shares of classes have it."""
        some = np.sort(np.random.default_rng(problem.seed).permutation(len(problem.x))[: problem.pick(*_MOST)])
        templates = Problem(
            x=self._templates(problem.x[some]), y=problem.y[some],
            x_validation=self._templates(problem.x_validation), y_validation=problem.y_validation,
            classes=problem.classes, seed=problem.seed, effort=problem.effort,
        )  # fmt: skip
        score = self.attack(templates)
        return lambda x: score(self._templates(x))

    def _templates(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """The templates of images; those that this process has made before are not made again."""
        names = [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in x]
        held = _TEMPLATES.setdefault(self.fingerprint, OrderedDict())
        new = {name: row for row, name in enumerate(names) if name not in held}
        if new:
            made = self.network(x[list(new.values())])
            held.update(zip(new, made, strict=True))
        templates = np.stack([held[name] for name in names])
        while len(held) > _REMEMBERED:
            held.popitem(last=False)
        return templates


_TEMPLATES: dict[str, OrderedDict[bytes, NDArray[np.float32]]] = {}


def bundled(pack: Pack) -> Network | str:
    """The bundled embedder as it sees a pack's images; or why there is none."""
    try:
        return matcher_of(pack, BUNDLED)
    except InputError as error:
        return str(error)


def readers(network: Network, attacks: Mapping[str, Attack]) -> dict[str, Attack]:
    """Attackers of templates as attackers of images, by the names that findings give them."""
    return {f"{name} on {network.name}": Pretrained(network, attack) for name, attack in attacks.items()}
