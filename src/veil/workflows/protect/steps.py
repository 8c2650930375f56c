"""The steps of protecting a source, each of which is whole or not done, and is not done twice."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from veil import files
from veil._version import __version__
from veil.data import build
from veil.data.layouts.folder import is_table, walk
from veil.data.pack import Pack
from veil.parquet import shards
from veil.release import Release
from veil.workflows.apply import Applied, apply
from veil.workflows.apply import Options as ApplyOptions
from veil.workflows.apply.parts import skipped_file
from veil.workflows.audit import Audit, audit
from veil.workflows.audit import Progress as AuditProgress
from veil.workflows.embed import embed
from veil.workflows.fit import AuditProgress as FrontierProgress
from veil.workflows.fit import FitProgress
from veil.workflows.fit_folder import FitOptions, fit_into
from veil.workflows.named import NamedPath, release_subject
from veil.workflows.protect.ways import Asked, Way, is_pack


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who is told how far it is; nobody, unless somebody is named.

    Attributes:
        rows: From the name of a step to what is told of its rows: done, expected and skipped.
        fit: Told of the training.
        frontier: Told of points of a frontier.
        audit: Told of the audit.
        remark: Told what is lost ("warning"), or how something was read ("note").
    """

    rows: Callable[[str], Callable[[int, int | None, int], None] | None] = lambda step: None
    fit: FitProgress | None = None
    frontier: FrontierProgress | None = None
    audit: AuditProgress | None = None
    remark: Callable[[str, str], None] = lambda kind, sentence: None


@dataclass(frozen=True)
class Place:
    """Where things go."""

    out: Path

    @property
    def private(self) -> Path:
        return self.out / "private"

    @property
    def begun(self) -> Path:
        """What was asked for, so that nothing else goes on with it."""
        return self.private / "asked.json"

    @property
    def pack(self) -> Path:
        return self.private / "pack"

    @property
    def templates(self) -> Path:
        return self.private / "templates.parquet"

    @property
    def release(self) -> Path:
        return self.private / "release"

    @property
    def audit(self) -> Path:
        return self.out / "audit"

    def is_blank(self) -> bool:
        """Whether it is a folder in which nothing has been written yet."""
        held = [path for path in self.out.iterdir() if path != self.private] if self.out.is_dir() else [self.out]
        inside = self.private.iterdir() if self.private.is_dir() else ()
        return not held and all(files.is_hidden(path.name) for path in inside)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps, each of which is whole or not done, and is not done twice."""

    source: Path
    place: Place
    way: Way
    asked: Asked
    detector: Any
    jobs: int | None
    watch: Watch

    @property
    def target(self) -> Path:
        return self.place.out / ("released.parquet" if self.way.form == "vectors" else "released")

    def identity(self) -> str:
        """Changes with what is asked for, and with the source."""
        asked = {name: str(value) for name, value in asdict(self.asked).items()}
        asked["matcher"] = getattr(self.asked.matcher, "name", asked["matcher"])
        for name in ("labels", "landmarks", "key"):
            if (path := getattr(self.asked, name)) is not None and Path(path).exists():
                asked[name] = _stamp(Path(path))
        finder = getattr(self.detector, "name", "")
        what = {"veil": __version__, "way": asdict(self.way), "detector": finder, "source": _stamp(self.source)} | asked
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def packed(self) -> Pack:
        """The pack that is learned from and measured on."""
        if self.way.source != "photographs" and is_pack(self.source):
            return Pack.open(self.source)
        if is_pack(self.place.pack):
            return Pack.open(self.place.pack)
        common: dict[str, Any] = {
            "seed": self.asked.seed, "jobs": self.jobs, "disjoint": "identity" not in self.asked.hide,
        }  # fmt: skip
        if self.way.source == "photographs" and not self.way.templates:
            faces = self.detector if self.asked.landmarks is None else False
            made = build.pack(
                "folder", self.source, self.place.pack, labels=self.asked.labels, settings=self._layout,
                size=self.asked.size, channels=3 if self.way.form == "photos" else 1, faces=faces,
                landmarks=self.asked.landmarks, progress=self.watch.rows("pack"), **common,
            )  # fmt: skip
        else:
            labels = self.asked.labels
            made = build.pack(
                "embeddings", self._vectors(), self.place.pack, labels=None if self.way.templates else labels,
                progress=self.watch.rows("pack"), **common,
            )  # fmt: skip
        for kind in ("warning", "note"):
            for sentence in made.meta[f"{kind}s"]:
                self.watch.remark(kind, sentence)
        return made

    @property
    def _layout(self) -> dict[str, str]:
        """Settings of the layout of photographs."""
        return {"identity": "folder"} if self.asked.by_folder else {}

    def _vectors(self) -> Path:
        """The file of vectors: the source, or templates of its faces."""
        if not self.way.templates:
            return self.source
        if not self.place.templates.exists():
            embed(
                self.source, self.place.templates, matcher=self.asked.matcher, labels=self.asked.labels,
                settings=self._layout, landmarks=self.asked.landmarks,
                detector=None if isinstance(self.detector, bool) else self.detector, jobs=self.jobs,
                progress=self.watch.rows("embed"), remark=self.watch.remark,
            )  # fmt: skip
        return self.place.templates

    def fitted(self) -> Release:
        """The release, with its key beside it."""
        options = FitOptions(
            method=self.way.method, private=self.asked.hide, utility=self.asked.keep, preset=self.way.preset or None,
            settings=self.asked.settings, seed=self.asked.seed, budget=self.asked.budget, frontier=False,
            key=None if self.asked.key is None else Path(self.asked.key),
        )  # fmt: skip
        pack = self.source if is_pack(self.source) else self.place.pack
        fit_into(
            options, pack, self.place.release, resume=True, jobs=self.jobs, progress=self.watch.fit,
            measured=self.watch.frontier,
        )  # fmt: skip
        release = Release.load(self.place.release)
        for warning in release.made.get("warnings", ()):
            self.watch.remark("warning", warning)
        return release

    def released(self, release: Release) -> Applied:
        """The releases of all rows of the source."""
        photographs = self.way.source == "photographs" and not self.way.templates
        found = photographs and self.asked.landmarks is None
        options = ApplyOptions(
            images=photographs and self.way.form == "photos",
            faces=self.detector if found else False,
            landmarks=self.asked.landmarks if photographs else None,
            blur_rest=self.asked.blur_rest,
        )
        source = self.place.templates if self.way.templates else self.source
        rows = apply(
            release, source, self.target, options, resume=True, progress=self.watch.rows("apply"),
            remark=self.watch.remark,
        )  # fmt: skip
        if self.way.templates and self.left_out is not None:  # photographs without a face have no template
            with self.left_out.open(encoding="utf-8", newline="") as file:
                rows = rows._replace(skipped=sum(1 for _ in csv.reader(file)) - 1)
        return rows

    @property
    def left_out(self) -> Path | None:
        """Where rows are listed that were not released."""
        listed = skipped_file(self.place.templates if self.way.templates else self.target)
        return listed if listed.exists() else None

    def audited(self, pack: Pack, command: str) -> Audit:
        """What is left to attack, and to use."""
        name = self.asked.name or f"Protected {'templates' if self.way.templates else self.way.source}"
        return audit(
            pack,
            [release_subject(NamedPath(name=name, path=self.place.release), pack)],
            self.place.audit,
            private=self.asked.hide,
            utility=pack.known_use(self.asked.keep),
            seed=self.asked.seed,
            effort=self.asked.effort,
            resume=True,
            jobs=self.jobs,
            command=command,
            progress=self.watch.audit,
        )

    def secrets(self, measured: Audit) -> dict[Path, str]:
        """What to keep, and why."""
        held = "unprotected faces" if self.way.source != "vectors" and not self.way.templates else "unprotected vectors"
        key = ", the key" if Release.load(self.place.release).contract.keyed else ""
        why = f"it holds {held} and labels, the release{key}, and hashes of those it was fitted on"
        secrets = {self.place.private: why}
        if measured.sheets:
            secrets[self.place.audit] = "its page shows some faces as they were"
        return secrets

    def remarks(self, rows: Applied, pack: Pack) -> list[str]:
        """What the verdict does not say."""
        remarks = []
        if self.way.source == "photographs" and self.way.form == "photos":
            remarks.append(
                "Faces were attacked, cut out as they were aligned; hair, clothes and all that surrounds them stay as "
                "they were, and were not attacked."
            )
        if not pack.knows_people:
            remarks.append(
                "The data do not say who is seen: each row counts as a person, and matching is not measured."
            )
        return remarks


def _stamp(source: Path) -> str:
    """Changes with the names, sizes and times of a source's files."""
    if is_pack(source):
        return Pack.open(source).fingerprint
    total = hashlib.sha256()
    photographs = [] if is_table(source) else walk(source)[0]
    paths = [source / name for name, problem in photographs if not problem] if photographs else shards(source)
    for path in paths:
        stat = path.stat()
        total.update(f"{str(path)!r} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return total.hexdigest()
