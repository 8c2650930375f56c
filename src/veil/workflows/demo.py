"""The demo: both ways in, photographs and stored templates, on faces that are drawn here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from veil.data import build
from veil.data.pack import Pack
from veil.workflows.fit import fit
from veil.workflows.protect import Protected, Watch, protect


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the demo is. All trainings are shorter than the presets', so that it takes minutes.

    Attributes:
        people: Drawn faces' people.
        images: Of each.
        side: Of an image, in pixels.
        matcher: Settings of the network that knows faces and hides nothing.
        protector: Settings of the one that hides gender.
        template: Settings of the protection of templates.
        budget: Balanced accuracy that the worst attack on protected templates may reach.
    """

    people: int = 900
    images: int = 4
    side: int = 48
    matcher: Mapping[str, Any] = field(default_factory=lambda: {"networks": 1, "steps_alone": 130, "batch": 128})
    protector: Mapping[str, Any] = field(
        default_factory=lambda: {"networks": 1, "steps_alone": 130, "steps_joint": 250, "batch": 128}
    )
    template: Mapping[str, Any] = field(default_factory=lambda: {"steps": 400, "steps_guess": 200})
    budget: float = 0.8


STANDARD = Scale()
"""What `veil demo` shows."""


def demo(
    out: Path,
    *,
    seed: int = 0,
    jobs: int | None = None,
    command: str = "veil demo",
    watch: Watch | None = None,
    scale: Scale | None = None,
) -> list[Protected]:
    """Hide gender, and keep face matching: in vectors of photographs, and in templates that a matcher stored.

    The matcher of the second way is one that the demo trains on half of the people; its templates of everybody are a
    file, ``templates.npz``, as somebody might have it.

    Args:
        out: Folder for the faces, the templates and what becomes of both; earlier ones are replaced.
        seed: Seeds everything but the keys of the releases.
        jobs: Processes of audits.
        command: For the report.
        watch: Told how far it is.
        scale: How large it is; :data:`STANDARD` if None.
    """
    watch, scale = watch or Watch(), scale or STANDARD
    drawn = f"identities={scale.people},images={scale.images}"
    faces = build.pack(
        "stylised", drawn, out / "faces", size=scale.side, seed=seed, force=True, progress=watch.rows("pack")
    )
    asked: dict[str, Any] = {
        "hide": ["gender"], "seed": seed, "effort": "quick", "jobs": jobs, "command": command, "watch": watch,
        "force": True,
    }  # fmt: skip
    photographs = protect(
        out / "faces", out / "photographs", name="Protected photographs", settings=scale.protector, **asked
    )
    _write_templates(faces, out / "templates.npz", seed, watch, scale.matcher)
    budget = {"gender": scale.budget}
    templates = protect(
        out / "templates.npz", out / "templates", name="Protected templates", budget=budget, settings=scale.template,
        **asked,
    )  # fmt: skip
    return [photographs, templates]


def _write_templates(faces: Pack, table: Path, seed: int, watch: Watch, settings: Mapping[str, Any]) -> None:
    """Templates of all faces by a matcher that hides nothing, with their labels."""
    matcher = fit(
        "deep", faces, private=["gender"], preset="unprotected", settings=settings, seed=seed, progress=watch.fit,
    ).release  # fmt: skip
    columns: dict[str, Any] = {
        label: np.array(faces.classes[label])[faces.labels[label]] for label in ("identity", "gender")
    }
    names = np.array([f"face {i}" for i in range(len(faces))])
    np.savez(table, vectors=matcher.transform(faces.x), name=names, **columns)
