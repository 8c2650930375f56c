"""Audit releases of a pack: what is measured, and how it is written into a folder, whole or not at all."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from veil import findings as files
from veil import notebook
from veil.auditing import pretrained, run, transfer
from veil.auditing.exhibit import Exhibit
from veil.auditing.inversion import people_map
from veil.auditing.leakage import Overlap
from veil.auditing.outcomes import Outcomes
from veil.auditing.problem import failure
from veil.auditing.rosters import roster
from veil.auditing.setting import Inversion, Setting
from veil.auditing.task import Failure
from veil.data.classes import nameless
from veil.data.pack import Pack
from veil.data.scorefile import Scores, write_scores
from veil.errors import InputError, check_type, checked_jobs, checked_names, checked_path
from veil.files import check_place, staged
from veil.findings import Finding, contributions
from veil.findings.codes import ATTACK
from veil.findings.contributions import Contribution
from veil.methods.fitting import Curves
from veil.workflows import described, pictures
from veil.workflows.fit import write_curves
from veil.workflows.pictures import Sheet
from veil.workflows.subjects import INPUT, LEAVE_OUT, Subject, controls
from veil.workflows.summary import Row, summary

if TYPE_CHECKING:
    from veil.workflows.check import Checked

OUTCOMES = "outcomes"
"""Folder beside findings for what need not be measured again."""

PAGES = ("report.html", "card.md", "compared.html")
"""What is made of findings, and speaks of them alone."""

BESIDE = ("pictures", "curves", "scores")
"""Folders of files that findings name."""

Progress = Callable[[str, int, int, str], None]
"""Told of a stage, ``"release"`` or ``"audit"``: how much of it is done, how much there is, and what was done last."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked of an audit.

    Attributes:
        private: Labels to attack.
        utility: ``"identity"``, or labels to read.
        baselines: Methods of :data:`veil.methods.METHODS` to put on the unprotected input as controls; if None LEACE
            where a label is private.
        seed: Seeds attackers and pairs.
        effort: ``"quick"``, ``"standard"`` or ``"strong"``.
        attack_on: Splits that attackers train on.
        level: Coverage of the intervals.
        with_input: Attack the unprotected input too. Without it an audit has no reference: only for one that adds to
            another audit of the same pack.
        together: Attack the means of several releases of one person, and link releases to the input.
        inversion: Redraw the pack's images, or vectors, from every release.
        scores: Also write the scores of the pairs of verification, by the comparator that was picked.
        pictures: Whether the page shows some test images beside what is released and redrawn of them; None: of drawn
            faces (the layout ``stylised``) alone, for these show nobody.
        perceptual: File of torchvision's VGG-16 weights, which then judges what is redrawn.
        matcher: ``"dlib"`` for the bundled embedder (extra ``faces``; packs of aligned faces), or the ONNX file of a
            face matcher: float32 ``(B, 3 or 1, H, W)`` in [-1, 1] to ``(B, d)``. It compares releases that are images,
            beside a matcher that is trained, and judges redrawn faces, in place of one.
        matcher_settings: What is declared of that file, as for :class:`veil.nn.onnxfile.OnnxNetwork`.
        classifiers: For private labels ONNX files of classifiers that releases that are images are shown to: images as
            for the matcher to a logit for each of the label's classes, in the order of ``pack.classes`` unless the
            file names its classes.
        classifier_settings: What is declared of those files.
        roster: Changes to those who attack at this effort, by the names of :class:`veil.auditing.setting.Roster`.
    """

    private: Sequence[str]
    utility: Sequence[str]
    baselines: Sequence[str] | None = None
    seed: int = 0
    effort: str = "standard"
    attack_on: Sequence[str] = ("attack",)
    level: float = 0.95
    with_input: bool = True
    together: bool = True
    inversion: bool = False
    scores: bool = False
    pictures: bool | None = None
    perceptual: Path | None = None
    matcher: str | Path | None = None
    matcher_settings: Mapping[str, str] = field(default_factory=dict)
    classifiers: Mapping[str, Sequence[str | Path]] = field(default_factory=dict)
    classifier_settings: Mapping[str, str] = field(default_factory=dict)
    roster: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("private", "utility", "attack_on", "baselines"):
            if name != "baselines" or self.baselines is not None:
                checked_names(name, getattr(self, name))

    def setting(self, pack: Pack, subjects: Sequence[Subject]) -> Setting:
        """What attackers are asked, once all is checked; raises InputError with what is wrong."""
        if not isinstance(pack, Pack):
            raise InputError(f"pack: must be a veil.Pack, got {type(pack).__name__}")
        check_type("subjects", subjects, Sequence, "a list of veil.Subject")
        if strange := [type(s).__name__ for s in subjects if not isinstance(s, Subject)]:
            raise InputError(f"subjects: each must be a veil.Subject, got {strange[0]}")
        called = [INPUT, *(s.name for s in subjects)]
        if len(set(called)) < len(called):
            raise InputError(f"releases: names must differ and not be {INPUT!r}, got {', '.join(called[1:])}")
        for s in subjects:
            if s.release is not None:
                s.release.contract.check_framing(pack, s.name)
                s.release.need_key(s.name)
        setting = Setting(
            pack=pack,
            private=tuple(self.private),
            utility=tuple(self.utility),
            roster=roster(self.effort, **self.roster),
            attack_on=tuple(self.attack_on),
            effort=self.effort,
            seed=self.seed,
            level=self.level,
            together=self.together,
            inversion=Inversion(perceptual=self.perceptual) if self.inversion else None,
            scores=self.scores,
        )
        pack.require(private=list(setting.private), utility=list(setting.utility))  # in every split
        given = transfer.Given(
            matcher=self.matcher, matcher_settings=self.matcher_settings, classifiers=self.classifiers,
            classifier_settings=self.classifier_settings,
        )  # fmt: skip
        networks = transfer.opened(
            pack, private=setting.private, utility=setting.utility, given=given,
            shown=self.with_input and any(s.may_pass_for(pack.x) for s in subjects), inverted=self.inversion,
        )  # fmt: skip
        images = pack.kind == "images" and setting.roster.of_templates and (setting.private or setting.utility)
        return replace(setting, networks=replace(networks, embedder=pretrained.bundled(pack) if images else ""))


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit measured, and what goes beside it.

    Attributes:
        findings: All figures.
        document: Everything else that ``findings.json`` holds.
        sheets: Pictures.
        curves: Losses of training, by subject.
        contributions: What persons contribute to figures, by which another audit is compared with it.
        scores: By release, for each pair of verification whether it is mated, its score, and numbers of its two persons
            ``(P, 4)``; of audits that were asked for them.
    """

    findings: Sequence[Finding]
    document: Mapping[str, Any]
    sheets: Sequence[Sheet] = ()
    curves: Mapping[str, Curves] = field(default_factory=dict)
    contributions: Sequence[Contribution] = ()
    scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def summary(self, private: str = "", utility: str = "") -> list[Row]:
        """A row for each release: the worst attacks on a private label, and the use that is left.

        Args:
            private: The label; the first that was attacked if "".
            utility: The use; the first that was measured if "".
        """
        data = self.document["data"]
        for kind, name in (("private", private), ("utility", utility)):
            if name and name not in data[kind]:
                there = ", ".join(data[kind]) or "none"
                raise InputError(f"{kind}: must be one of those that were audited ({there}), got {name!r}")
        return summary(
            self.findings, private or next(iter(data["private"]), ""), utility or next(iter(data["utility"]), "")
        )

    def write(self, folder: str | Path, *, names: bool = False) -> Path:
        """Write ``findings.json`` and all that goes beside it into a folder, whole or not at all; its path.

        Args:
            folder: Made where need be. What an earlier audit wrote there goes, its report, too.
            names: Leave names of rows and files, and paths, in the notes that are written: of those who get findings
                not all may know who is in the data. Releases, and networks of files, are called by their names all the
                same.
        """
        out = checked_path("folder", folder)
        with _folder(out), staged(out / files.NAME) as work:
            self._write(work, out, names)
        return out

    def _write(self, work: Path, out: Path, names: bool) -> None:
        """Write into ``work`` and move it to ``out``."""
        whole = work / "out"
        for folder in BESIDE:
            (whole / folder).mkdir(parents=True)
        for sheet in self.sheets:
            sheet.image.save(whole / sheet.file, optimize=True)
        curves, scores = _write_curves(whole, self.curves), _write_scores(whole, self.scores)
        sheets = [{"file": s.file, "title": s.title, "caption": s.caption} for s in self.sheets]
        document = files.document(
            **self.document, findings=self.findings, pictures=sheets, curves=curves, scores=scores
        )
        if self.contributions:
            contributions.write(whole / contributions.NAME, self.contributions)
        files.write(whole, document if names else _without_names(document))
        _publish(whole, out)

    def check(
        self, require: Sequence[str] = (), *, file: str | Path | None = None, releases: Sequence[str] = ()
    ) -> Checked:
        """Compare it with what is required, as :func:`veil.check` does with an audit in a folder."""
        from veil.report import document
        from veil.workflows.check import judged

        whole = files.document(**self.document, findings=self.findings, pictures=[], curves=[])
        return judged(document.of(whole), require, file=file, releases=releases)

    def report(self, folder: str | Path) -> Path:
        """Write the audit and its page into a folder; the page's path."""
        from veil.report import page

        return page.write(self.write(folder))

    def _repr_html_(self) -> str:
        """The summary as a table, for notebooks."""
        data = self.document["data"]
        heads = ["release", f"worst attack on {next(iter(data['private']), '-')}", "attacker", "use that is left"]
        rows = [
            (row.name, _figure(row.attack), "" if row.attack is None else row.attack.attacker, _figure(row.utility))
            for row in self.summary()
        ]
        return notebook.table(heads, rows)


def _figure(finding: Finding | None) -> str:
    if finding is None or not finding.ok:
        return "-"
    value, low, high, _ = finding.figures()
    return f"{value:.3f} ({low:.3f} \u2013 {high:.3f})"


def audit(
    pack: Pack,
    subjects: Sequence[Subject],
    out: str | Path | None = None,
    *,
    resume: bool = False,
    names: bool = False,
    command: str = "",
    by: str = "",
    jobs: int | None = None,
    progress: Progress | None = None,
    **asked: Any,
) -> Audit:
    """Audit the unprotected input, baselines on it and the given subjects.

    Args:
        pack: The data; every split is used.
        subjects: Releases, or vectors that somebody else made.
        out: Folder for :meth:`Audit.write`, and for what need not be measured again; nothing is written if None.
        resume: Take what an earlier audit measured there, which was killed or of other releases; else all is measured
            anew.
        names: As for :meth:`Audit.write`.
        command: How to repeat this, for the report.
        by: Who audits, for the report.
        jobs: Processes; one for each processor if None.
        progress: Told how far it is.
        **asked: Attributes of :class:`Plan`.

    Raises:
        InputError: For anything that does not fit, all problems in one line.
    """
    plan = Plan(**asked)
    checked_jobs(jobs)
    out = None if out is None else checked_path("out", out)
    setting = plan.setting(pack, subjects)
    default = ("leace",) * bool(setting.private)
    baselined, broken = controls(
        default if plan.baselines is None else plan.baselines, pack, setting.private, setting.seed
    )
    everything = [*baselined, *subjects]
    with _workplace(out) as work:
        outcomes = Outcomes(None if out is None else Path(out) / OUTCOMES, names=names, fresh=not resume)
        exhibits, overlaps = _exhibits(setting, plan, baselined, subjects, work)
        tell = progress or (lambda stage, done, total, what: None)
        result = run.audit(
            exhibits, setting, jobs=jobs, outcomes=outcomes, released=partial(tell, "release"),
            progress=partial(tell, "audit"),
        )  # fmt: skip
        findings = [*result.findings, *(o.finding(pack, name, setting.level) for name, o in overlaps.items())]
        findings += [_broken(setting, exhibits[0].name, name, why) for name, why in broken.items()]
        notes = [*pack.meta.get("warnings", ()), *pack.meta.get("notes", ())]
        if why := isinstance(setting.networks.embedder, str) and setting.networks.embedder:
            notes.append(f"Nobody sees images through a pretrained face embedder ({why}).")
        shown = plan.pictures if plan.pictures is not None else pack.meta.get("layout") == "stylised"
        sheets, maps = _to_look_at(setting, exhibits, subjects, findings, result.pictures, notes, shown=shown)
        releases = [described.unprotected(pack)] * plan.with_input + [described.audited(s) for s in everything]
        document = {
            "seed": setting.seed,
            "command": command,
            "made": files.how(effort=setting.effort, level=setting.level, by=by),
            "data": described.data(setting) | {"notes": notes},
            "releases": releases,
            "maps": maps,
            "rates": [vars(each) for each in result.rates],
        }
        curves = {s.name: s.curves for s in subjects if s.curves}
        made = Audit(
            findings=findings,
            document=document,
            sheets=sheets,
            curves=curves,
            contributions=result.contributions,
            scores=result.scores,
        )
        if out is not None:
            made._write(work, Path(out), names)
    return made


@contextmanager
def _workplace(out: str | Path | None) -> Iterator[Path]:
    """A folder for releases while they are measured: beside what will be written, if anything will."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="veil-") as folder:
            yield Path(folder)
        return
    with _folder(Path(out)), staged(Path(out) / files.NAME) as work:
        yield work


def _exhibits(
    setting: Setting, plan: Plan, baselined: Sequence[Subject], subjects: Sequence[Subject], work: Path
) -> tuple[list[Exhibit], dict[str, Overlap]]:
    """What attackers see, and what of it every subject has seen in training."""
    pack = setting.pack
    exhibits = [Exhibit.of(INPUT, pack.x, "input", fingerprint=pack.fingerprint)] if plan.with_input else []
    overlaps = {}
    for number, s in enumerate([*baselined, *subjects]):
        overlaps[s.name] = s.overlap(pack, setting.private, setting.attack_on)
        hint = LEAVE_OUT if number < len(baselined) else ""
        exhibits.append(s.exhibit(setting, overlaps[s.name].rows, work / f"{number}.npy", hint))
    return exhibits, overlaps


def _broken(setting: Setting, release: str, control: str, why: Failure) -> Finding:
    """A control that broke off; findings are of releases that are listed, and it is none."""
    target = next(iter(setting.private), "identity")
    return replace(setting.nobody(release, target, "control"), attacker=control).missing(ATTACK, why.status, why.note)


def _to_look_at(
    setting: Setting, exhibits: Sequence[Exhibit], subjects: Sequence[Subject], findings: Sequence[Finding],
    redrawn: Mapping[str, NDArray[np.uint8]], notes: list[str], *, shown: bool,
) -> tuple[list[Sheet], list[dict[str, Any]]]:  # fmt: skip
    """Pictures, where they may be shown, and maps.

    What breaks off has a note, which is added: figures must not be lost with what is to look at.

    That the disk is full is raised, as nothing else will be written either.
    """
    pack = setting.pack

    def made(what: str, make: Callable[..., list[Any]], *arguments: Any) -> list[Any]:
        try:
            return make(*arguments)
        except OSError:
            raise
        except Exception as error:
            notes.append(f"The page does not show {what}: {failure(error)[1]}.")
            return []

    def mapped(e: Exhibit) -> list[dict[str, Any]]:
        points = people_map(e.x, pack, seed=setting.seed)
        return [{"release": e.name, **points}] if points else []

    sheets, maps = [], []
    if setting.inversion is not None:
        maps = [point for e in exhibits for point in made(f"a map of {e.name}", mapped, e)]
    if not shown:
        return [], maps
    if setting.inversion is not None:
        sheets += made("what is redrawn", pictures.inverted, pack, redrawn)
    sheets = made("what decoders redraw", pictures.decoded, pack, subjects) + sheets
    sheets += made("releases", pictures.released, pack, subjects, findings)
    return sheets, maps


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """A folder to write into; one that is made for it goes again where nothing came of it."""
    there = path.exists()
    check_place(path / "findings.json")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made a folder ({error.strerror or error})") from None
    try:
        yield
    except BaseException:
        if not there:
            with suppress(OSError):  # others' files are in it
                path.rmdir()
        raise


def _without_names(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with no name of a row or file, nor a path, in a note."""

    def bare(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{**entry, "note": nameless(entry["note"])} for entry in entries]

    data = {**document["data"], "notes": [nameless(note) for note in document["data"]["notes"]]}
    return {**document, "data": data, **{key: bare(document[key]) for key in ("releases", "findings")}}


def _publish(staged: Path, out: Path) -> None:
    """Moves an audit to its place, the findings last: where the disk was full before, all is as it was.

    What an earlier audit wrote there and this one does not is removed, its report, too: they speak of other figures.
    """
    earlier = _written(out)
    beside = [path for folder in BESIDE for path in sorted((staged / folder).glob("*"))]
    beside += [path for path in [staged / contributions.NAME] if path.exists()]
    for path in [*beside, staged / files.NAME]:
        target = out / path.relative_to(staged)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
        earlier.discard(target)
    for path in earlier:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # the folder may hold others' files, or some of this audit
            path.parent.rmdir()


def _written(out: Path) -> set[Path]:
    """The files of an audit in a folder, as its findings name them, and its pages; none where there is none."""
    try:
        document = files.read(out)
    except InputError:
        return set()
    named = [entry["file"] for key in BESIDE for entry in document.get(key, [])]
    own = {out / name for name in named if re.fullmatch(rf"({'|'.join(BESIDE)})/\w[\w.-]*", name, re.ASCII)}
    return {*own, *(out / name for name in PAGES), out / contributions.NAME}


def _write_curves(out: Path, curves: Mapping[str, Curves]) -> list[dict[str, str]]:
    listed = []
    for number, (name, losses) in enumerate(curves.items()):
        path = write_curves(out / "curves" / f"{number:02d}-{_slug(name)}.parquet", losses)
        listed.append({"file": f"curves/{path.name}", "release": name})
    return listed


def _write_scores(out: Path, scores: Mapping[str, NDArray[np.float64]]) -> list[dict[str, str]]:
    listed = []
    for number, (name, pairs) in enumerate(scores.items()):
        file = f"scores/{number:02d}-{_slug(name)}.csv"
        mated, score, *people = pairs.T
        with (out / file).open("w", encoding="utf-8", newline="") as target:
            who = np.column_stack(people).astype(np.int64)
            write_scores(target, Scores(mated=mated == 1, score=score, people=who))
        listed.append({"file": file, "release": name})
    return listed


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
