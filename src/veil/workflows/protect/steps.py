"""The steps of protecting a source, each of which is whole or not done, and is not done twice."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from veil import files
from veil._version import __version__
from veil.data import build
from veil.data.faces import detector_of
from veil.data.layouts.folder import is_table, walk
from veil.data.pack import Pack
from veil.errors import InputError
from veil.nn.embedders import BUNDLED
from veil.parquet import shards
from veil.release import Release
from veil.release.beside import fitted_path, key_path
from veil.workflows.apply import Applied, apply
from veil.workflows.apply import Options as ApplyOptions
from veil.workflows.apply.parts import exposed_file, partial_folder, skipped_file
from veil.workflows.audit import Audit, audit
from veil.workflows.audit import Progress as AuditProgress
from veil.workflows.embed import embed
from veil.workflows.fit import AuditProgress as FrontierProgress
from veil.workflows.fit import FitProgress, question
from veil.workflows.fit_folder import FitOptions, fit_into
from veil.workflows.named import NamedPath, release_subject
from veil.workflows.protect.ways import WITHOUT_LABELS, Asked, Way, is_pack

SIDE = 64
"""Of aligned faces, in pixels, where nothing else is asked for."""


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


_WHOLE = "whole"


@dataclass(frozen=True)
class Place:
    """Where things go."""

    out: Path

    @property
    def private(self) -> Path:
        return self.out / "private"

    @property
    def asked(self) -> Path:
        """A hash of all that was asked for, so that nothing else goes on with it; there once all was checked."""
        return self.private / "asked.json"

    @property
    def packed(self) -> Path:
        """A hash of what the pack was made of, so that no other data are learned from."""
        return self.private / "packed.json"

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

    @property
    def results(self) -> tuple[Path, ...]:
        """Where what is made of the pack lies, with all that stands beside it."""
        released = [self.out / "released", self.out / "released.parquet"]
        lists = [list_of(path) for path in released for list_of in (skipped_file, exposed_file, partial_folder)]
        beside = [self.release.with_name(self.release.name + end) for end in (".curves.parquet", ".checkpoint")]
        secrets = [key_path(self.release), fitted_path(self.release)]
        return (*released, *lists, self.audit, self.release, *beside, *secrets)

    @property
    def earlier(self) -> Path:
        """Where results of an earlier run wait until those that replace them are certain."""
        return self.private / "earlier"

    @property
    def returning(self) -> Path:
        """The same, on their way back."""
        return self.private / "returning"

    @property
    def unprotected(self) -> tuple[Path, ...]:
        """What was read of the source, what says of which last."""
        return (self.pack, skipped_file(self.pack), self.templates, skipped_file(self.templates), self.packed)

    @property
    def own(self) -> tuple[Path, ...]:
        """All that is written, what says whose it is last."""
        return (*self.results, self.earlier, self.returning, *self.unprotected, self.asked)

    def strangers(self) -> list[Path]:
        """What lies there, or in ``private``, and is none of its own."""
        if not self.out.is_dir():
            return [self.out] if os.path.lexists(self.out) else []
        own = {self.private, *self.own}
        there = [*self.out.iterdir(), *(self.private.iterdir() if self.private.is_dir() else ())]
        return [path for path in there if path not in own and not files.is_hidden(path.name)]

    def set_aside(self, *, reread: bool) -> None:
        """Moves the results of an earlier run, and what says what was asked for, into :attr:`earlier`.

        Of a finished run what was read of its source, too, where the source is ``reread``.
        """
        read = self.unprotected if reread and self.asked.is_file() else ()
        for path in (*self.results, *read, self.asked):
            if os.path.lexists(path):
                aside = self.earlier / path.relative_to(self.out)
                aside.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                path.rename(aside)
        if self.earlier.exists():
            (self.earlier / _WHOLE).touch()

    def put_back(self) -> None:
        """Undoes :meth:`set_aside`, whole or half done; what has been made since goes, but not what was read.

        It may be killed at any time, and done again: nothing that waits is removed before it is back.
        """
        if not self.returning.exists():
            if not self.earlier.exists() or self.is_set_aside():
                for path in (*self.results, self.asked):
                    gone(path)
            if not self.earlier.exists():
                return
            self.earlier.rename(self.returning)
        for path in (*self.results, *self.unprotected, self.asked):
            if os.path.lexists(waiting := self.returning / path.relative_to(self.out)):
                gone(path)
                waiting.rename(path)
        gone(self.returning)

    def is_set_aside(self) -> bool:
        """Whether all of an earlier run waits, and not the part of it that was moved before a kill."""
        return (self.earlier / _WHOLE).exists()


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

    @cached_property
    def identity(self) -> str:
        """Changes with what is asked for, and with the source."""
        return self._hash(**asdict(self.asked))

    @cached_property
    def identity_of_pack(self) -> str:
        """Changes with what the pack is made of."""
        names = ("labels", "landmarks", "matcher", "by_folder", "size", "seed")
        return self._hash(disjoint=self._disjoint, **{name: getattr(self.asked, name) for name in names})

    @cached_property
    def _read_from(self) -> str:
        """Changes with the source."""
        return _stamp(self.source)

    def _hash(self, **asked: Any) -> str:
        for name in ("labels", "landmarks", "matcher", "key"):
            if isinstance(path := asked.get(name), str | Path) and Path(path).exists():
                asked[name] = _stamp(Path(path))
        if "matcher" in asked:
            asked["matcher"] = getattr(self.asked.matcher, "name", asked["matcher"])
        found = self.way.source == "photographs" and self.asked.landmarks is None
        finder = detector_of(self.detector).name if found else ""
        what = {"veil": __version__, "way": asdict(self.way), "detector": finder, "source": self._read_from} | asked
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def _disjoint(self) -> bool:
        """Whether a person is in one split only: not where identity is attacked, for which all must be known."""
        return "identity" not in self.asked.hide

    def is_read(self) -> bool:
        """Whether what was read of a source is of this one, read in this way."""
        packed = self.place.packed
        return packed.is_file() and packed.read_text("utf-8") == self.identity_of_pack

    def packed(self) -> Pack:
        """The pack that is learned from and measured on."""
        if self.way.source != "photographs" and is_pack(self.source):
            return Pack.open(self.source)
        place = self.place
        if not self.is_read():
            for path in (place.pack, place.templates, skipped_file(place.templates)):  # made of something else
                gone(path)
            with files.written(place.packed) as file:
                file.write(self.identity_of_pack.encode())
        if is_pack(place.pack):
            return Pack.open(place.pack)
        try:
            return self._pack()
        except InputError:
            if not place.asked.is_file():  # so that nothing is left of what could not be read
                for path in (place.templates, skipped_file(place.templates), place.packed):
                    gone(path)
            raise

    def _pack(self) -> Pack:
        common: dict[str, Any] = {
            "seed": self.asked.seed, "jobs": self.jobs, "disjoint": self._disjoint,
        }  # fmt: skip
        if self.way.source == "photographs" and not self.way.templates:
            faces = self.detector if self.asked.landmarks is None else False
            made = build.pack(
                "folder", self.source, self.place.pack, labels=self.asked.labels, settings=self._layout,
                size=self.asked.size or SIDE, channels=3 if self.way.form == "photos" else 1, faces=faces,
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
                self.source, self.place.templates, matcher=self.asked.matcher or BUNDLED, labels=self.asked.labels,
                settings=self._layout, landmarks=self.asked.landmarks,
                detector=None if isinstance(self.detector, bool) else self.detector, jobs=self.jobs,
                progress=self.watch.rows("embed"), remark=self.watch.remark,
            )  # fmt: skip
        return self.place.templates

    def check(self, pack: Pack) -> None:
        """Raises InputError for what the fit, or the audit, would refuse of these data."""
        hide, keep = self.asked.hide, self.asked.keep
        if missing := [name for name in hide if name not in pack.labels]:
            there = ", ".join(pack.labels) or "none"
            raise InputError(
                f"hide {missing[0]}: the data have no such label (they have: {there}); name a file of labels "
                f"(--labels). {WITHOUT_LABELS}"
            )
        pack.require(private=hide, utility=pack.known_use(keep))
        if self.asked.budget:
            options = {"private": hide, "utility": keep, "preset": self.way.preset or None}
            question(self.way.method, pack, self.asked.settings, self.asked.budget, self.jobs, options)

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
            row_numbers=self.asked.row_numbers,
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
        if pack.kind == "images" and self.asked.pictures:  # some of which its page shows
            self.place.audit.mkdir(mode=0o700, exist_ok=True)
        name = self.asked.name or f"Protected {'templates' if self.way.templates else self.way.source}"
        return audit(
            pack,
            [release_subject(NamedPath(name=name, path=self.place.release), pack)],
            self.place.audit,
            private=self.asked.hide,
            utility=pack.known_use(self.asked.keep),
            seed=self.asked.seed,
            effort=self.asked.effort,
            pictures=self.asked.pictures or None,
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
                "they were, and neither attacks nor certificates reach them."
            )
        if not pack.knows_people:
            remarks.append(
                "The data do not say who is seen: each row counts as a person, and matching is not measured."
            )
        if not self.asked.row_numbers:
            where = "file names" if self.way.form == "photos" else f"{self.target.name}, column source,"
            remarks.append(f"Names go along in {where} and may say who is seen; --row-numbers writes numbers.")
        return remarks


def gone(path: Path) -> None:
    """Removes a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        files.remove(path)
    else:
        path.unlink(missing_ok=True)


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
