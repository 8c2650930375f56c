"""The demo: both ways in, photographs and stored templates, on faces that are drawn here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from veil.data import build
from veil.data.pack import Pack
from veil.report import document, page
from veil.report.verdict import spoken
from veil.workflows.audit import Audit, Progress, audit
from veil.workflows.fit import AuditProgress, FitProgress, fit, fit_measured
from veil.workflows.subjects import Subject


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


@dataclass(frozen=True, kw_only=True)
class Way:
    """One of the ways in.

    Attributes:
        name: What it begins with: photographs, or templates.
        audit: What was measured.
        verdict: What its page says first, as lines of text.
        page: The path of its page.
    """

    name: str
    audit: Audit
    verdict: Sequence[str]
    page: Path


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who is told how far the demo is; nobody, unless somebody is named.

    Attributes:
        pack: Rows done, expected and skipped.
        fit: From a name to what is told of its training.
        frontier: Points of a frontier done, points in all and what was done last.
        audit: As :func:`veil.workflows.audit.audit` tells it.
    """

    pack: Callable[[int, int | None, int], None] | None = None
    fit: Callable[[str], FitProgress | None] = lambda name: None
    frontier: AuditProgress | None = None
    audit: Progress | None = None


def demo(
    out: Path,
    *,
    seed: int = 0,
    jobs: int | None = None,
    command: str = "veil demo",
    watch: Watch | None = None,
    scale: Scale | None = None,
) -> list[Way]:
    """Hide gender, and keep face matching: in vectors of photographs, and in templates that a matcher stored.

    The matcher of the second way is one that the demo trains on half of the people; its templates of everybody are a
    file, ``templates.npz``, as somebody might have it.

    Args:
        out: Folder for packs, releases, findings and pages; earlier ones are replaced.
        seed: Seeds everything but the keys of the releases.
        jobs: Processes of audits.
        command: For the report.
        watch: Told how far it is.
        scale: How large it is; :data:`STANDARD` if None.
    """
    watch, scale = watch or Watch(), scale or STANDARD
    drawn = f"identities={scale.people},images={scale.images}"
    faces = build.pack("stylised", drawn, out / "faces", size=scale.side, seed=seed, force=True, progress=watch.pack)
    asked: dict[str, Any] = {
        "private": ["gender"], "utility": ["identity"], "baselines": (), "seed": seed, "effort": "quick", "jobs": jobs,
        "command": command, "progress": watch.audit,
    }  # fmt: skip
    protector = fit(
        "deep", faces, private=["gender"], settings=scale.protector, seed=seed,
        progress=watch.fit("protector"),
    )  # fmt: skip
    protector.release.save(out / "protector", force=True)
    photographs = Subject(name="Protected photographs", release=protector.release, curves=protector.curves)
    ways = [_way("Photographs", audit(faces, [photographs], out / "photographs", **asked), out / "photographs")]
    templates = _templates(faces, out, seed, watch, scale.matcher)
    budget = {"gender": scale.budget}
    protected = fit_measured(
        "template", templates, private=["gender"], budget=budget, settings=scale.template, seed=seed, jobs=jobs,
        measured=watch.frontier, progress=watch.fit("template"),
    )  # fmt: skip
    protected.release.save(out / "template", force=True)
    subject = Subject(name="Protected templates", release=protected.release, curves=protected.curves)
    return [*ways, _way("Templates", audit(templates, [subject], out / "templates", **asked), out / "templates")]


def _templates(faces: Pack, out: Path, seed: int, watch: Watch, settings: Mapping[str, Any]) -> Pack:
    """Templates of all faces by a matcher that hides nothing, as a pack."""
    matcher = fit(
        "deep", faces, private=["gender"], preset="unprotected", settings=settings, seed=seed,
        progress=watch.fit("matcher"),
    ).release  # fmt: skip
    table = out / "templates.npz"
    columns: dict[str, Any] = {
        label: np.array(faces.classes[label])[faces.labels[label]] for label in ("identity", "gender")
    }
    names = np.array([f"face {i}" for i in range(len(faces))])
    np.savez(table, vectors=matcher.transform(faces.x), name=names, **columns)
    return build.pack("embeddings", str(table), out / "table", seed=seed, force=True, progress=watch.pack)


def _way(name: str, measured: Audit, folder: Path) -> Way:
    return Way(name=name, audit=measured, verdict=spoken(document.read(folder)), page=page.write(folder))
