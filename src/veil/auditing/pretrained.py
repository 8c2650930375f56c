"""Those who see images through a pretrained face embedder: attackers that learn from its templates, and a matcher.

Networks that are trained from scratch need many images before they read a face; an embedder that has seen millions of
other faces needs few. Whoever attacks has one, and so has who matches faces. Of a pack of aligned faces they see the
unprotected input, and releases that are such images themselves.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.auditing.problem import Embed, Problem, Score
from veil.auditing.setting import Attack
from veil.auditing.task import signature
from veil.data.pack import Pack
from veil.errors import InputError
from veil.nn.embedders import BUNDLED, Network, matcher_of

_MOST = (500, 2000, 10**9)  # faces to learn from, at each effort: a template takes a tenth of a second
_REMEMBERED = 50_000  # templates, of 128 values each


@dataclass(frozen=True)
class Reader:
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
        return f"{self.network.fingerprint} {signature(self.attack)}"

    def __call__(self, problem: Problem) -> Score:
        """Learns from some of the images, drawn at random."""
        some = _some(problem)
        seen = Problem(
            x=_templates(self.network, problem.x[some]), y=problem.y[some],
            x_validation=_templates(self.network, problem.x_validation), y_validation=problem.y_validation,
            classes=problem.classes, seed=problem.seed, effort=problem.effort,
        )  # fmt: skip
        score = self.attack(seen)
        return lambda x: score(_templates(self.network, x))


@dataclass(frozen=True)
class Matcher:
    """A matcher that compares templates of images, by their cosine about the mean of some.

    Attributes:
        network: Makes them.
    """

    network: Network

    @property
    def fingerprint(self) -> str:
        """What its answers depend on beside the version of Veil."""
        return self.network.fingerprint

    def __call__(self, problem: Problem) -> Embed:
        """Learns where the middle of templates lies: an embedder's own lie far from it."""
        centre = _templates(self.network, problem.x[_some(problem)]).mean(0)
        return lambda x: _templates(self.network, x) - centre


def _some(problem: Problem) -> NDArray[np.int64]:
    """Rows to learn from, no more than the effort allows."""
    order = np.random.default_rng(problem.seed).permutation(len(problem.x))
    return np.sort(order[: problem.pick(*_MOST)])


def _templates(network: Network, x: NDArray[Any]) -> NDArray[np.float32]:
    """The templates of images; those that this process has made before are not made again."""
    names = [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in x]
    held = _TEMPLATES.setdefault(network.fingerprint, OrderedDict())
    new = {name: row for row, name in enumerate(names) if name not in held}
    if new:
        held.update(zip(new, network(x[list(new.values())]), strict=True))
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
    return {f"{name} on {network.name}": Reader(network, attack) for name, attack in attacks.items()}
