"""Every method and preset, from the registry, with settings that make it brief: for all tests that run every method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conftest import faces_pack, vectors_pack
from veil.data.pack import Pack
from veil.engine import Run
from veil.methods import METHODS
from veil.methods.fitting import trained
from veil.methods.protocol import Task
from veil.release import Release

KEY = bytes(range(32))

BRIEF: dict[str, dict[str, Any]] = {
    "aia": {"batch": 18, "steps_alone": 2, "steps_joint": 2},
    "deep": {"batch": 18, "steps_alone": 4, "steps_joint": 3},
    "template": {
        "batch": 18, "guess": 16, "steps_guess": 2, "folds": 2, "adversaries": 1, "steps": 2, "rounds": 1,
        "steps_erase": 2,
    },
    "mi": {
        "batch": 18, "features": 8, "steps_views": 1, "steps_alone": 1, "steps_discriminator": 1, "steps_joint": 1,
        "least_variety": 0.0,
    },
    "substitution": {"batch": 18, "codes": 6, "heads": 2, "steps": 2, "people": 2, "person": "identity", "rare": 0.0},
    "inversion": {
        "batch": 18, "features": 16, "steps_alone": 1, "steps_perceptual": 1, "steps_decoder": 1, "steps_joint": 1,
    },
    "san": {"batch": 18, "steps_classifier": 1, "steps_matcher": 1, "steps": 3, "aligned": 0.0},
    "leace": {},
    "random": {},
}  # fmt: skip
"""Settings of every method that make it brief, whatever its preset; batches that three processes can share."""

LABELLED = ("inversion", "substitution")
"""Methods that keep a label, where others keep identity."""

if BRIEF.keys() != METHODS.keys():
    raise AssertionError(
        f"tests/methods_matrix.py: BRIEF must have brief settings of every method of veil.methods.registry, and is "
        f"apart in {', '.join(sorted(BRIEF.keys() ^ METHODS.keys()))}"
    )

PRESETS = [(name, preset) for name, method in METHODS.items() for preset in method.presets]
EVERY = [(name, preset, kind) for name, preset in PRESETS for kind in METHODS[name].takes]
"""Method, preset and kind of pack."""


def kind_of(name: str) -> str:
    """The kind of pack that a method is tried on where one will do."""
    return METHODS[name].takes[0]


def pack_of(kind: str) -> Pack:
    return faces_pack() if kind == "images" else vectors_pack()


def use_of(name: str, kind: str = "images") -> str:
    """What a method keeps."""
    if name not in LABELLED:
        return "identity"
    return "smile" if kind == "images" else "age"


def brief(name: str, preset: str | None = None, **changes: Any) -> Any:
    """A preset's settings, so changed that it is brief, and further."""
    return METHODS[name].algorithm.configured(preset, {**BRIEF[name], **changes})


def train(
    name: str,
    config: Any,
    pack: Pack,
    *,
    private: Sequence[str] = ("gender",),
    utility: str = "identity",
    run: Run | None = None,
    base: Release | None = None,
    key: bytes | None = KEY,
) -> Release:
    """What a method makes of settings, by way of the shell; seed 0 where no run is given."""
    run = run or Run(seed=0, precision="fp32")
    task = Task(pack=pack, private=list(private), utility=utility, run=run, base=base)
    return trained(METHODS[name], config, task, key=key)
