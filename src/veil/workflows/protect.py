"""One command for each way in: photographs or stored vectors in, protected ones out, with the evidence.

It does what ``veil pack``, ``embed``, ``fit``, ``apply``, ``audit`` and ``report`` do one by one, each step with their
checks, and goes on where it was killed. What may be handed out and what may not lie in different folders.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from veil import files
from veil._version import __version__
from veil.data import build
from veil.data.columns import nfc
from veil.data.layouts.folder import walk
from veil.data.pack import Pack
from veil.errors import InputError, checked_jobs, checked_seed
from veil.methods.registry import METHODS
from veil.nn.embedders import BUNDLED, Embedder
from veil.release import Release
from veil.report import document, page
from veil.report.verdict import spoken
from veil.workflows.apply import Applied, apply
from veil.workflows.apply import Options as ApplyOptions
from veil.workflows.apply.parts import skipped_file
from veil.workflows.audit import Audit, audit
from veil.workflows.audit import Progress as AuditProgress
from veil.workflows.embed import embed
from veil.workflows.fit import AuditProgress as FrontierProgress
from veil.workflows.fit import FitProgress
from veil.workflows.fit_folder import FitOptions, fit_into
from veil.workflows.subjects import Subject

Kind = Literal["photographs", "images", "vectors"]
"""What a source holds: photographs in a folder, images of a pack, or vectors of a file or a pack."""
Form = Literal["photos", "vectors"]
"""What comes out."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a source is protected.

    Attributes:
        source: What it holds.
        form: What comes out.
        keeps: The use that is kept: ``"identity"``, or any ``"label"``.
        method: What protects it.
        preset: Named settings of the method; its default if "".
        templates: Whether faces become templates first, which are then protected.
    """

    source: Kind
    form: Form
    keeps: Literal["identity", "label"]
    method: str
    preset: str = ""
    templates: bool = False


WAYS = (
    Way(source="photographs", form="vectors", keeps="identity", method="template", templates=True),
    Way(source="photographs", form="vectors", keeps="label", method="deep"),
    Way(source="photographs", form="photos", keeps="identity", method="san", preset="hardened"),
    Way(source="photographs", form="photos", keeps="label", method="substitution"),
    Way(source="images", form="vectors", keeps="identity", method="deep"),
    Way(source="images", form="vectors", keeps="label", method="deep"),
    Way(source="images", form="photos", keeps="identity", method="san", preset="hardened"),
    Way(source="images", form="photos", keeps="label", method="substitution"),
    Way(source="vectors", form="vectors", keeps="identity", method="template"),
    Way(source="vectors", form="vectors", keeps="label", method="deep"),
)
"""Which method protects what: the one place that says so."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked for.

    Attributes:
        hide: Private labels.
        keep: ``"identity"``, so that faces can still be matched, or a label.
        form: What comes out, ``"photos"`` or ``"vectors"``.
        budget: For some of the private labels the highest balanced accuracy that the worst attack may reach; vectors.
        labels: A CSV or Parquet file of labels, or a pack.
        landmarks: A CSV file that says where eyes are in photographs, in place of finding faces.
        matcher: What makes templates of faces, where these are protected: ``"dlib"``, which the extra ``faces`` brings,
            an ONNX file, or an embedder of your own.
        by_folder: Whether the folder that a photograph lies in says who is seen.
        blur_rest: Cover what may be a face in photographs that are written, too.
        size: Side, in pixels, of aligned faces, where images are protected.
        settings: Changes to the method's preset.
        effort: Of the audit.
        seed: Of all but the key.
    """

    hide: Sequence[str]
    keep: str = "identity"
    form: Form = "vectors"
    budget: Mapping[str, float] = field(default_factory=dict)
    labels: str | Path | None = None
    landmarks: str | Path | None = None
    matcher: str | Path | Embedder = BUNDLED
    by_folder: bool = False
    blur_rest: bool = False
    size: int = 64
    settings: Mapping[str, Any] = field(default_factory=dict)
    effort: str = "standard"
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.hide, str):
            raise InputError(f"hide: must be a list of labels, got the text {self.hide!r}")
        if not self.hide:
            raise InputError(f"hide: must name a private label, got none. {WITHOUT_LABELS}")
        if self.form not in get_args(Form):
            raise InputError(f"as: must be one of {', '.join(get_args(Form))}, got {self.form!r}")
        object.__setattr__(self, "hide", tuple(nfc(name) for name in self.hide))
        object.__setattr__(self, "keep", nfc(self.keep))
        object.__setattr__(self, "seed", checked_seed(self.seed))
        if self.keep in self.hide:
            raise InputError(f"keep {self.keep}: must not be hidden, too")
        if self.blur_rest and (self.form != "photos" or self.landmarks is not None):
            raise InputError("blur_rest: is of photographs in which faces are found, and come out as photographs")


WITHOUT_LABELS = (
    "Without one, a classifier of yours can guess it (`veil label`), `veil fit inversion` hides the picture itself, "
    "and `veil audit --utility identity` says how well people are matched and linked"
)


@dataclass(frozen=True, kw_only=True)
class Protected:
    """What was made.

    Attributes:
        way: How.
        released: What may be handed out: a folder of photographs, a pack, or a file of vectors.
        rows: How many were released, how many were left out, and how many photographs may hold unprotected faces.
        left_out: Where those that were left out are listed; None where none were.
        audit: What was measured.
        verdict: What its page says first, as lines of text.
        page: The path of its page.
        secrets: What to keep from whoever gets the releases, and why.
        remarks: What else should be known of the releases.
    """

    way: Way
    released: Path
    rows: Applied
    left_out: Path | None
    audit: Audit
    verdict: Sequence[str]
    page: Path
    secrets: Mapping[Path, str]
    remarks: Sequence[str]


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


def protect(
    source: str | Path,
    out: str | Path,
    *,
    detector: Any = True,
    resume: bool = False,
    force: bool = False,
    jobs: int | None = None,
    command: str = "",
    watch: Watch | None = None,
    **asked: Any,
) -> Protected:
    """Protect photographs or vectors, and audit what comes out.

    Which method does it is said by :data:`WAYS`; for any other the steps are there one by one.

    Args:
        source: A folder of photographs, a pack, or a file of vectors (:mod:`veil.data.vectors`) with labels.
        out: A folder. ``released`` (photographs or a pack) or ``released.parquet`` may be handed out; ``audit`` holds
            the findings and the page; ``private`` holds all that must stay: unprotected faces or templates with their
            labels, the release, its key, and hashes of what it was fitted on.
        detector: Finds faces; the bundled one (extra ``faces``) if True (:class:`veil.data.faces.Detector`).
        resume: Go on with the same, which was killed; steps that are done are not done again.
        force: Replace what an earlier one left in ``out``.
        jobs: Threads and processes.
        command: For the page.
        watch: Told how far it is.
        **asked: Attributes of :class:`Asked`: ``hide``, ``keep``, ``form``, ``budget``, ``labels``, ``landmarks``,
            ``matcher``, ``by_folder``, ``blur_rest``, ``size``, ``settings``, ``effort``, ``seed``.

    Raises:
        InputError: Where source and what is asked for do not fit together, nothing could be read, or something is in
            the way.
    """
    wanted, watch = Asked(**asked), watch or Watch()
    checked_jobs(jobs)
    source, out = Path(source), Path(out)
    way = _way(source, wanted)
    steps = _Steps(source=source, place=_Place(out), way=way, asked=wanted, detector=detector, jobs=jobs, watch=watch)
    goes_on = _begin(steps, resume=resume, force=force)
    try:
        pack = steps.packed()
        _check_labels(pack, wanted)
    except InputError:
        if not goes_on:  # so that the same folder can be named with what was missing
            files.remove(steps.place.private)
            with suppress(OSError):
                out.rmdir()
        raise
    release = steps.fitted()
    rows = steps.released(release)
    measured = steps.audited(pack, release, command)
    return Protected(
        way=way,
        released=steps.target,
        rows=rows,
        left_out=steps.left_out,
        audit=measured,
        verdict=spoken(document.read(steps.place.audit)),
        page=page.write(steps.place.audit),
        secrets=steps.secrets(measured),
        remarks=steps.remarks(rows, pack),
    )


@dataclass(frozen=True)
class _Place:
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


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """The steps, each of which is whole or not done, and is not done twice."""

    source: Path
    place: _Place
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
        finder = getattr(self.detector, "name", "")
        what = {"veil": __version__, "way": asdict(self.way), "detector": finder, "source": _stamp(self.source)} | asked
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def packed(self) -> Pack:
        """The pack that is learned from and measured on."""
        if self.way.source != "photographs" and _is_pack(self.source):
            return Pack.open(self.source)
        if _is_pack(self.place.pack):
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
        )  # fmt: skip
        pack = self.source if _is_pack(self.source) else self.place.pack
        fit_into(options, pack, self.place.release, resume=True, progress=self.watch.fit, measured=self.watch.frontier)
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

    def audited(self, pack: Pack, release: Release, command: str) -> Audit:
        """What is left to attack, and to use."""
        return audit(
            pack,
            [Subject(name="Protected " + ("photographs" if self.way.form == "photos" else "vectors"), release=release)],
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


def _begin(steps: _Steps, *, resume: bool, force: bool) -> bool:
    """Makes the folders; refuses what is in the way, or is of another command. Whether an earlier one goes on."""
    place, identity = steps.place, steps.identity()
    files.check_place(place.out)
    begun = place.begun.is_file()
    if place.out.exists() and not (place.out.is_dir() and (begun or not any(place.out.iterdir()))):
        raise InputError(f"{place.out}: already exists, and is not of `veil protect`; choose another name")
    if begun and force:
        for path in (place.private, place.audit, place.out / "released"):
            if path.exists():
                files.remove(path)
        (place.out / "released.parquet").unlink(missing_ok=True)
        begun = False
    if begun and not resume:
        raise InputError(f"{place.out}: already exists; go on with it (--resume), replace it (--force), or choose "
                         "another name")  # fmt: skip
    if begun and place.begun.read_text("utf-8") != identity:
        raise InputError(f"{place.out}: was begun with other options or another source; choose another name, or force")
    place.private.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.private.chmod(0o700)
    if not begun:
        with files.written(place.begun) as file:
            file.write(identity.encode())
    return begun


def _way(source: Path, asked: Asked) -> Way:
    """How a source is protected; raises InputError where it cannot be."""
    kind = _kind(source)
    keeps = "identity" if asked.keep == "identity" else "label"
    ways = [way for way in WAYS if (way.source, way.form, way.keeps) == (kind, asked.form, keeps)]
    if not ways:
        raise InputError(f"{source}: holds {kind}, which cannot come out as {asked.form}")
    method = METHODS[ways[0].method]
    if asked.budget and not method.noise:
        raise InputError(
            f"budget: {method.name}, which protects {kind} as {asked.form}, has no noise that a budget could choose; "
            "leave it out, and look at the verdict"
        )
    for name, value in (("labels", asked.labels), ("landmarks", asked.landmarks)):
        if value is not None and _is_pack(source):
            raise InputError(f"{name} {value}: {source} is a pack, which has its own")
    if kind != "photographs" and (asked.landmarks is not None or asked.by_folder):
        raise InputError(f"{source}: landmarks and people by folder are of photographs, got {kind}")
    return ways[0]


def _kind(source: Path) -> Kind:
    if not source.exists():
        raise InputError(f"{source}: does not exist")
    if _is_pack(source):
        return "images" if Pack.open(source).kind == "images" else "vectors"
    return "photographs" if source.is_dir() else "vectors"


def _is_pack(folder: Path) -> bool:
    return (folder / "pack.json").is_file()


def _stamp(source: Path) -> str:
    """Changes with the names, sizes and times of a source's files."""
    if _is_pack(source):
        return Pack.open(source).fingerprint
    total = hashlib.sha256()
    names = [""] if source.is_file() else [name for name, problem in walk(source)[0] if not problem]
    for name in names:
        stat = (source / name).stat()
        total.update(f"{name!r} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return total.hexdigest()


def _check_labels(pack: Pack, asked: Asked) -> None:
    """Raises InputError, with what can be done, where a private label is not there."""
    if missing := [name for name in asked.hide if name not in pack.labels]:
        there = ", ".join(pack.labels) or "none"
        raise InputError(
            f"hide {missing[0]}: the data have no such label (they have: {there}); name a file of labels (--labels). "
            f"{WITHOUT_LABELS}"
        )
