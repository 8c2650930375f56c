"""What the baselines share: the release that they work on, another method's or the input itself.

It must release plain vectors: without keyed noise, and neither images nor one of a few substitutes. It ships inside the
baseline's release, and guesses what it could be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from veil.data.pack import Pack
from veil.errors import InputError
from veil.methods.protocol import Algorithm, Task
from veil.methods.registry import METHODS
from veil.nn.nets import map_shape
from veil.release.contract import Contract
from veil.release.release import Release

INPUT = "input"
"""The method of the release that is the input itself."""


class Flatten(nn.Module):
    """The input itself as a release."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def input_release(pack: Pack) -> Release:
    """The unprotected input as vectors: pixels in [0, 1], or the vectors themselves."""
    shape = tuple(int(n) for n in pack.x.shape[1:])
    feature_map = map_shape(shape) if pack.kind == "images" else None
    contract = Contract(kind=pack.kind, shape=shape, k=int(np.prod(shape)), feature_map=feature_map, **pack.framing)
    return Release(method=INPUT, config={}, contract=contract, encoder=Flatten())


def underneath(task: Task) -> Release:
    """The release to work on.

    Raises:
        InputError: If it does not release plain vectors, which may be changed value by value.
    """
    base, got = task.base or input_release(task.pack), ""
    if base.contract.keyed:
        got = "keyed noise, or draws"
    elif base.contract.support:
        got = "a choice among substitutes"
    elif base.contract.image is not None:
        got = "images"
    if got:
        raise InputError(f"base: must release vectors, without keyed noise or a choice, got {base.method!r} with {got}")
    return base


def described(base: Release) -> dict[str, Any]:
    """What a baseline's settings hold of its base, so that its network can be built again."""
    return {"method": base.method, "config": dict(base.config), "contract": asdict(base.contract)}


def guessing(contract: Contract) -> Contract:
    """The base's contract for what is put on top: what only its own encoder and classifier take or read is left out."""
    return replace(contract, classes={}, asks=False, chooses=False, keeps={})


def build_base(base: Mapping[str, Any]) -> nn.Module:
    """The base's encoder, of what :func:`described` gave."""
    if base["method"] == INPUT:
        return Flatten()
    algorithm: Algorithm = METHODS[base["method"]].algorithm
    return algorithm.build(algorithm.read(base["config"]), Contract.read(base["contract"]))


def build_decoder(config: Any, contract: Contract) -> nn.Module:
    """The base's decoder."""
    base = config.base
    algorithm: Algorithm | None = METHODS[base["method"]].algorithm if base["method"] in METHODS else None
    if algorithm is None or algorithm.build_decoder is None:
        raise InputError(f"{base['method']}: has no decoder")
    return algorithm.build_decoder(algorithm.read(base["config"]), Contract.read(base["contract"]))
