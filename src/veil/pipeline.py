"""The whole way for callers that have folders: fit a method on a pack, audit releases of a pack, run the demo.

The command line and the examples call these; each writes its files whole or not at all.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from veil import frontier, parquet
from veil._version import __version__
from veil.audit import findings as files
from veil.audit import inversion, leakage, transfer
from veil.audit.attackers import failure
from veil.audit.findings import Finding
from veil.audit.leakage import Overlap
from veil.audit.repeats import Repeats, chosen_rows, released_means
from veil.audit.run import Failure, Subject, audit, strangers, wrong_options
from veil.data import build
from veil.data.pack import SPLITS, Pack, flat, nameless, sha256
from veil.engine import Run
from veil.engine.run import Precision, by_first, run_identity
from veil.errors import InputError, checked_seed
from veil.files import staged, written
from veil.fitted import recorded
from veil.methods import METHODS, Method
from veil.release import WEIGHTS, Release
from veil.report import certified

INPUT = "Input"
"""What findings call the unprotected input."""

Role = Literal["baseline", "method"]
FitProgress = Callable[[str, int, int, Mapping[str, float]], None]
AuditProgress = Callable[[int, int, str], None]
Curves = Sequence[tuple[int, str, str, float]]
"""Step, stage, player and loss."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A release to audit, and what the report says of it.

    Attributes:
        name: What findings call it.
        release: The release; None for vectors that somebody else made.
        vectors: float32 ``(N, k)``, row i for row i of the pack, where there is no release.
        role: ``"method"`` or ``"baseline"``; by the release's own method and preset if None.
        curves: Losses of its training.
        note: Anything a reader should know.
        named: Whether somebody asked for it: then it has a verdict, whatever its role.
    """

    name: str
    release: Release | None = None
    vectors: NDArray[np.float32] | None = None
    role: Role | None = None
    curves: Curves = ()
    note: str = ""
    named: bool = True

    @property
    def preset(self) -> str:
        return "" if self.release is None else str(self.release.made.get("preset", ""))

    def shown_role(self) -> Role:
        """``role``, or what the release's method calls this preset; vectors from outside are taken for a method."""
        if self.role is not None:
            return self.role
        if self.release is None or self.release.method not in METHODS:
            return "method"
        return METHODS[self.release.method].role(self.preset)


def fit(
    method: str,
    pack: Pack,
    *,
    private: Sequence[str],
    utility: str = "identity",
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    base: Release | None = None,
    key: bytes | None = None,
    precision: Precision = "auto",
    checkpoint: Path | None = None,
    every: int | None = None,
    resume: bool = False,
    progress: FitProgress | None = None,
) -> tuple[Release, Curves]:
    """Fit a method of :data:`veil.methods.METHODS`; its release and the losses of its training.

    Args:
        method: Its name.
        pack: Trains on its ``protect`` split.
        private: Labels to hide.
        utility: ``"identity"``, or a label to keep; "" where the method keeps none. Methods that never look at it do
            without identity.
        preset: Named settings; the method's default if None.
        settings: Changes to the preset, by field name; strings are read as the field's type.
        seed: Seeds the whole fit.
        base: A release that a baseline works on.
        key: Secret of a release with keyed noise; fresh if None.
        precision: ``"auto"``, ``"bf16"`` or ``"fp32"``.
        checkpoint: File for the state of an unfinished run.
        every: Steps between checkpoints; None for one a minute.
        resume: Continue from the checkpoint if there is one.
        progress: Told the stage, steps done, steps in all and the losses.

    Raises:
        InputError: For anything that does not fit, all problems in one line.
    """
    if _method(method).hides and not private:
        raise InputError("private: at least one label must be named, got none")
    if base is not None:
        base.contract.check_framing(pack, "base")
    if every is not None and every < 1:
        raise InputError(f"every: must be at least 1 step, got {every}")
    if precision not in get_args(Precision):
        raise InputError(f"precision: must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    seed = checked_seed(seed)
    private = list(dict.fromkeys(private))  # a label that is named twice is hidden once
    there = [split for split in SPLITS if len(pack.rows(split))]
    pack.require(private=private, utility=pack.known_use(utility), among=list(dict.fromkeys(["protect", *there])))
    chosen = METHODS[method].configured(preset, settings or {})
    run = Run(
        seed=seed,
        precision=precision,
        checkpoint=checkpoint,
        every=every,
        resume=resume,
        identity=run_identity(
            veil=__version__,
            method=method,
            config=_contents(METHODS[method], chosen),
            seed=seed,
            data=pack.fingerprint,
            private=private,
            utility=utility,
        ),
        method=method,
        progress=progress,
    )
    release = METHODS[method].fit(
        chosen, pack, private=private, utility=utility, seed=seed, run=run, key=key, base=base
    )
    made = {**release.made, "preset": preset or next(iter(METHODS[method].presets))}
    if pack.meta.get("pictures"):
        made["pictures"] = pack.meta["pictures"]
    return recorded(replace(release, made=made), pack), run.curves


def _method(name: str) -> Method:
    if name not in METHODS:
        raise InputError(f"method: must be one of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]


def asked(
    method: str, pack: Pack, *, preset: str | None, settings: Mapping[str, Any], base: Release | None, **options: Any
) -> str:
    """What tells fits apart that give different releases: all that is asked for but the key, and Veil's version."""
    chosen = _method(method).configured(preset, settings)
    below = None if base is None else [base.method, base.made, repr(base.contract)]
    return run_identity(
        veil=__version__, method=method, config=_contents(METHODS[method], chosen), data=pack.fingerprint, base=below,
        **options,
    )  # fmt: skip


def _contents(method: Method, config: Any) -> dict[str, Any]:
    """A configuration by what its files hold; those that are not there are for the method to refuse."""
    values = dict(vars(config))
    for name in method.files:
        if values[name]:
            path = Path(values[name])
            path = path / WEIGHTS if path.is_dir() else path  # a release
            values[name] = sha256(path) if path.is_file() else ""
    return values


def has_noise(method: str, preset: str | None, settings: Mapping[str, Any]) -> bool:
    """Whether releases of these settings carry noise, of which a frontier can be measured; checks them, too."""
    return bool(METHODS[method].configured(preset, settings).noise)


STRENGTHS = (1.0, 3.0)
"""Factors of a method's weight of hiding that are tried under a budget."""


def fit_measured(
    method: str,
    pack: Pack,
    *,
    budget: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    measured: AuditProgress | None = None,
    **options: Any,
) -> tuple[Release, Curves]:
    """:func:`fit`, then the frontier of noise, written into the release's ``made``; a budget chooses the noise.

    Args:
        method: One with a setting ``noise``, of keyed noise.
        pack: As for :func:`fit`; fresh attackers learn on ``attack`` and are measured on ``calibrate``.
        budget: For some private labels the highest balanced accuracy that the worst attack may reach. The release is
            the one, of several strengths of hiding and norms of noise, that keeps most of the use while the attack's
            upper limit stays at or below it, with 95 % for all that are tried together. Without one the settings'
            noise stays.
        settings: Changes to the preset.
        jobs: Processes of the attackers.
        measured: Told points of a frontier done, points in all and what was done last.
        **options: As for :func:`fit`.

    Raises:
        InputError: If the budget cannot be had, or for anything that does not fit.
    """
    private = list(dict.fromkeys(options["private"]))
    utility, seed = options.get("utility", "identity"), options.get("seed", 0)
    if method in METHODS and "noise" not in {field.name for field in fields(METHODS[method].config)}:
        raise InputError(f"{method}: a frontier chooses the setting noise, and this method has none")
    settings = dict(settings or {})
    if method in METHODS and not has_noise(method, options.get("preset"), settings):
        raise InputError(f"{method}: a frontier needs a release with keyed noise, got noise 0; leave it out")
    for name in budget or {}:
        if name not in private:
            raise InputError(f"budget: must name a private label ({', '.join(private)}), got {name!r}")
    use = pack.known_use(utility)
    pack.require(private=private, utility=use, among=["protect"])  # what the fit itself asks for comes first
    try:
        pack.require(private=private, utility=use, among=["attack", "calibrate"])
        if wrong := strangers(pack, private, ["attack"], "calibrate"):
            raise InputError("; ".join(wrong))
    except InputError as error:
        raise InputError(f"frontier: {error}; or leave it out (--no-frontier)") from None
    strength = METHODS[method].strength if method in METHODS else None
    fitted: list[tuple[Release, Curves, list[frontier.Point]]] = []
    for factor in STRENGTHS if budget and strength else STRENGTHS[:1]:
        if fitted and strength:
            if not fitted[0][0].config[strength]:
                break  # nothing to strengthen
            options = {**options, "checkpoint": None, "key": fitted[0][0].key}
            settings[strength] = factor * float(fitted[0][0].config[strength])
        release, curves = fit(method, pack, settings=settings, **options)
        measure = partial(
            frontier.measure,
            release,
            pack,
            private=private,
            utility=utility,
            budget=budget or None,
            seed=seed,
            jobs=jobs,
            looks=len(STRENGTHS) * (len(frontier.STEPS) + 1) * len(budget) if budget else 1,
            progress=measured,
        )
        points = by_first(measure)
        fitted.append((release, curves, points))
    release, curves, points = fitted[0]
    if budget:
        release, curves, points = max(fitted, key=lambda f: frontier.kept(f[2], budget))
        release = frontier.with_noise(release, frontier.meet(points, budget).noise)
        release = recorded(release, pack, splits=("attack", "calibrate"))  # by which the noise was chosen
    limits = {name: float(limit) for name, limit in (budget or {}).items()}
    made = {**release.made, "frontier": frontier.as_plain(points), **({"budget": limits} if budget else {})}
    return replace(release, made=made), curves


def write_curves(path: Path, curves: Curves) -> Path:
    """Losses as Parquet: columns ``step``, ``stage``, ``player``, ``loss``."""
    columns = list(zip(*curves, strict=True)) or [()] * len(parquet.CURVES)
    table = pa.table(
        [pa.array(c, t) for c, t in zip(columns, parquet.CURVES.types, strict=True)], schema=parquet.CURVES
    )
    with written(path) as file:
        pq.write_table(table, file)
    return path


def read_curves(path: Path) -> Curves:
    """What :func:`write_curves` wrote; nothing where there is no such file."""
    if not path.exists():
        return ()
    table = parquet.read_curves(path)
    return list(zip(*(table[name].to_pylist() for name in parquet.CURVES.names), strict=True))


@contextmanager
def opened(source: Path, *, labels: Path | None = None, private: Sequence[str] = (), seed: int = 0) -> Iterator[Pack]:
    """A pack; or a file of vectors with their labels, packed into a folder that is removed at the end.

    Args:
        source: A pack's folder, or a file that the layout ``embeddings`` reads.
        labels: Labels of a file of vectors, where they are in another file, or another pack.
        private: Where identity is among them, it may straddle splits that are drawn.
        seed: Of the splits, where the file prescribes none.

    Raises:
        InputError: If the source is neither, or the labels do not fit.
    """
    if not source.exists():
        raise InputError(f"{source}: there is no such pack or file of vectors")
    if not source.is_file():
        if labels is not None:
            raise InputError(f"labels: are for a file of vectors, and {source} is none")
        yield Pack.open(source)
        return
    with tempfile.TemporaryDirectory(prefix="veil-") as folder:
        pack = build.pack(
            "embeddings", source, Path(folder) / "pack", labels=labels, seed=seed, disjoint="identity" not in private
        )
        yield replace(pack, path=source)  # messages name the file, not a folder that is gone


def audit_pack(
    pack: Pack,
    out: str | Path,
    entries: Sequence[Entry],
    *,
    private: Sequence[str],
    utility: Sequence[str],
    baselines: Sequence[str] | None = None,
    seed: int = 0,
    effort: str = "standard",
    jobs: int | None = None,
    attack_on: Sequence[str] = ("attack",),
    level: float = 0.95,
    with_input: bool = True,
    invert: inversion.Options | None = None,
    matcher: str | Path | None = None,
    classifiers: Mapping[str, Sequence[str | Path]] | None = None,
    command: str = "",
    names: bool = False,
    progress: AuditProgress | None = None,
    released: AuditProgress | None = None,
) -> list[Finding]:
    """Audit the unprotected input, baselines on it and the given releases; write ``findings.json`` with its pictures.

    Args:
        pack: The data; every split is used.
        out: Folder for ``findings.json``, ``pictures/`` and ``curves/``; made where need be.
        entries: Releases, or vectors that somebody else made.
        private: Labels to attack.
        utility: ``"identity"``, or labels to read.
        baselines: Methods of :data:`veil.methods.METHODS` to put on the unprotected input as controls; if None LEACE
            where a label is private.
        seed: Seeds attackers and pairs.
        effort: ``"quick"``, ``"standard"`` or ``"strong"``.
        jobs: Processes; one for each processor if None.
        attack_on: Splits that attackers train on.
        level: Coverage of the intervals.
        with_input: Attack the unprotected input too. Without it an audit has no reference: only for one that adds to
            another audit of the same pack.
        invert: Also redraw the pack's images, or vectors, from every release.
        matcher: ONNX file of a face matcher: float32 ``(B, 3 or 1, H, W)`` in [-1, 1] to ``(B, d)``. It compares
            releases that are images, beside a matcher that is trained, and judges redrawn faces, in place of one.
        classifiers: For private labels ONNX files of classifiers that releases that are images are shown to: images as
            for the matcher to a logit for each of the label's classes, in the order of ``pack.classes``.
        command: How to repeat this, for the report.
        names: Leave names of rows and files, and paths, in the notes that are written: of those who get findings not
            all may know who is in the data. Releases, and networks of files, are called by their names all the same.
        progress: Told jobs done, jobs in all and what was done last.
        released: Before that, told releases made of the pack, how many there will be, and which comes next.

    Raises:
        InputError: For anything that does not fit, all problems in one line.
    """
    private, utility, seed = list(dict.fromkeys(private)), list(dict.fromkeys(utility)), checked_seed(seed)
    if wrong := wrong_options(
        private, utility, effort=effort, attack_on=attack_on, level=level, jobs=jobs, inverted=invert is not None
    ):
        raise InputError("; ".join(wrong))
    called = [INPUT, *(e.name for e in entries)]
    if len(set(called)) < len(called):
        raise InputError(f"releases: names must differ and not be {INPUT!r}, got {', '.join(called[1:])}")
    for entry in entries:
        if entry.release is not None:
            entry.release.contract.check_framing(pack, entry.name)
    pack.require(private=private, utility=utility)
    if wrong := strangers(pack, private, attack_on, "test"):
        raise InputError("; ".join(wrong))
    networks: dict[str, Any] = {"matcher": matcher, "classifiers": classifiers}
    transfer.opened(  # before anything heavy starts, so that a mistake is told at once
        pack, private=private, utility=utility, shown=with_input and any(_pass_for(e, pack) for e in entries),
        inverted=invert is not None, **networks,
    )  # fmt: skip
    told = released or (lambda done, total, what: None)
    controls, broken = _controls(("leace",) * bool(private) if baselines is None else baselines, pack, private, seed)
    out = Path(out)
    everything = [*controls, *entries]
    overlaps = {entry.name: _overlap(entry, pack, private, attack_on) for entry in everything}
    with _folder(out), staged(out / files.NAME) as work:
        subjects = [Subject(name=INPUT, x=pack.x, role="input")] if with_input else []
        for number, entry in enumerate(everything):
            told(number, len(everything), entry.name)
            path, seen = work / f"{number}.npy", overlaps[entry.name].rows
            try:
                subjects.append(_subject(entry, pack, path, seen, attack_on=attack_on, effort=effort, seed=seed))
            except InputError as error:
                raise InputError(f"{entry.name}: {error}{_LEAVE * (number < len(controls))}") from None
        told(len(everything), len(everything), "")
        found = audit(
            subjects, pack, private=private, utility=utility, seed=seed, effort=effort, jobs=jobs,
            attack_on=attack_on, level=level, progress=progress,
            invert=None if invert is None else replace(invert, pictures=work), **networks,
        )  # fmt: skip
        found += [each.finding(pack, name, level) for name, each in overlaps.items()]
        for name, why in broken.items():
            target = private[0] if private else "identity"
            common: dict[str, Any] = {"release": subjects[0].name, "target": target, "attacker": name, "level": level}
            found.append(
                Finding(
                    code="attribute.balanced_accuracy", role="control", n=0, status=why.status, note=why.note, **common
                )
            )
        whole = work / "out"
        for folder in ("pictures", "curves"):
            (whole / folder).mkdir(parents=True)
        sheets: list[dict[str, str]] = []
        maps: list[dict[str, Any]] = []
        notes = [*pack.meta.get("warnings", ()), *pack.meta.get("notes", ())]
        if invert is not None:
            redrawn = [s.name for s in subjects]
            sheets += _to_look_at("what is redrawn", notes, _redrawn, pack, whole, redrawn, work)
            for s in subjects:
                points = _to_look_at(f"a map of {s.name}", notes, inversion.people_map, s.x, pack, seed=seed)
                maps += [{"release": s.name, **points}] if points else []
        sheets = _to_look_at("what decoders redraw", notes, _pictures, pack, whole, entries) + sheets
        sheets += _to_look_at("releases", notes, _releases_shown, pack, whole, entries, private, found)
        unprotected: dict[str, Any] = {
            "name": INPUT, "method": "", "preset": "", "k": int(np.prod(pack.x.shape[1:])), "seed": None,
            "role": "input", "config": {}, "data": None, "note": "the unprotected input",
        }  # fmt: skip
        document = files.document(
            version=__version__,
            seed=seed,
            command=command,
            data=_data(pack, private, utility, attack_on) | {"notes": notes},
            releases=[*([unprotected] if with_input else []), *(_described(entry) for entry in everything)],
            findings=found,
            pictures=sheets,
            curves=_curves(whole, entries),
            maps=maps,
        )
        files.write(whole, document if names else _without_names(document))
        _publish(whole, out)
    return found


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """A folder to write into; one that is made for it goes again where nothing came of it."""
    there = path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if not there:
            with suppress(OSError):  # others' files are in it
                path.rmdir()
        raise


_LEAVE = "; --baseline none leaves it out"


def _controls(
    names: Sequence[str], pack: Pack, private: Sequence[str], seed: int
) -> tuple[list[Entry], dict[str, Failure]]:
    """Baselines on the unprotected input, and which of them broke off; raises InputError for one that does not fit."""
    entries, broken = [], {}
    for name in names:
        called = "LEACE" if name == "leace" else name
        try:
            release, _ = fit(name, pack, private=private, utility=_free_use(pack, private), seed=seed)
        except InputError as error:
            raise InputError(f"the control {called}: {error}{_LEAVE}") from None
        except Exception as error:  # whatever it is: the audit must not be lost with it
            broken[called] = Failure.of(error)
        else:
            note = "control: a baseline on the unprotected input"
            entries.append(Entry(name=f"{INPUT} + {called}", release=release, note=note, named=False))
    return entries, broken


def _to_look_at(what: str, notes: list[str], make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What the call makes; nothing, and a note, where it breaks off: figures must not be lost with what is to look at.

    That its disk is full it raises, as nothing else will be written either.
    """
    try:
        return make(*arguments, **options)
    except OSError:
        raise
    except Exception as error:
        notes.append(f"The page does not show {what}: {failure(error)[1]}.")
        return []


def _without_names(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with no name of a row or file, nor a path, in a note."""

    def bare(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{**entry, "note": nameless(entry["note"])} for entry in entries]

    data = {**document["data"], "notes": [nameless(note) for note in document["data"]["notes"]]}
    return {**document, "data": data, **{key: bare(document[key]) for key in ("releases", "findings")}}


def _free_use(pack: Pack, private: Sequence[str]) -> str:
    """What controls are said to keep: identity, or another label that is not private; "" where there is none."""
    return next((name for name in ("identity", *pack.labels) if name in pack.labels and name not in private), "")


def _publish(staged: Path, out: Path) -> None:
    """Moves an audit to its place, the findings last: where the disk was full before, all is as it was.

    What an earlier audit wrote there and this one does not is removed, its report, too: they speak of other figures.
    """
    earlier = _written(out)
    beside = [path for folder in ("pictures", "curves") for path in sorted((staged / folder).iterdir())]
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
    """The files of an audit in a folder, as its findings name them, and of their report; none where there is none."""
    try:
        document = files.read(out)
    except InputError:
        return set()
    named = [entry["file"] for key in ("pictures", "curves") for entry in document[key]]
    own = {out / name for name in named if re.fullmatch(r"(pictures|curves)/\w[\w.-]*", name, re.ASCII)}
    return {*own, out / "report.html"}


def _pass_for(entry: Entry, pack: Pack) -> bool:
    """Whether an entry's releases will be images, of any number of values, that could pass for the pack's."""
    if entry.release is None or entry.release.contract.support:
        return False
    return transfer.pass_for(entry.release.contract.empty(0), pack.x)


def _overlap(entry: Entry, pack: Pack, private: Sequence[str], attack_on: Sequence[str]) -> Overlap:
    """What of the pack's splits an entry's release was fitted on."""
    if entry.release is None:
        return Overlap(rows=None, note=leakage.OUTSIDE)
    release = entry.release
    return leakage.overlap(release.made, release.fitted, pack, private=private, attack_on=attack_on)


def _subject(
    entry: Entry, pack: Pack, path: Path, seen: NDArray[np.bool_] | None, *, attack_on: Sequence[str], effort: str,
    seed: int,
) -> Subject:  # fmt: skip
    """An entry's rows, and what the audit may know of how they came about."""
    codes, feature_map = None, None
    if (release := entry.release) is not None:
        feature_map = release.contract.feature_map
        if release.contract.support:
            codes = release.codes(pack.x)
    x = _released(entry, pack, path, codes)
    repeats: Repeats | Failure | str = (
        "near-duplicates are released by who has the release, and here are its vectors alone"
    )
    if release is not None:
        repeats = "it draws nothing, so there is nothing that the mean over near-duplicates averages out"
        if release.contract.keyed:
            singles = flat(x) if codes is None else _indicators(codes, release.contract.support)
            rows = chosen_rows(pack, attack_on, effort, seed)
            try:
                means = released_means(partial(_told_apart, release), pack, rows, attack_on, seed)
                repeats = Repeats(rows=rows, means=means, singles=singles)
            except Exception as error:  # whatever it is: the other attacks must not be lost with it
                repeats = Failure.of(error)
    return Subject(
        name=entry.name, x=x, role=entry.shown_role(), feature_map=feature_map, codes=codes, seen=seen,
        repeats=repeats,
    )  # fmt: skip


def _told_apart(release: Release, x: NDArray[Any]) -> NDArray[np.float32]:
    """Releases ``(n, k)``, or where they are of finitely many values the indicators ``(n, K)`` of their codes."""
    if release.contract.support:
        return _indicators(release.codes(x), release.contract.support)
    unscaled = release.contract.replace and not release.config["scaled"]
    if unscaled and release.contract.kind == "vectors" and release.config["base"]["method"] == "input":
        x = x.clip(0, 1)  # Random takes no other values
    return flat(release.transform(x))


def _indicators(codes: NDArray[np.int64], support: int) -> NDArray[np.float32]:
    return np.eye(support, dtype=np.float32)[codes]


def _released(entry: Entry, pack: Pack, path: Path, codes: NDArray[np.int64] | None) -> NDArray[Any]:
    """An entry's rows for the whole pack, in a memory-mapped file that worker processes share."""
    if entry.release is None:
        if entry.vectors is None or len(entry.vectors) != len(pack):
            got = 0 if entry.vectors is None else len(entry.vectors)
            raise InputError(f"{entry.name}: needs one vector for each of the pack's {len(pack)} rows, got {got}")
        return np.ascontiguousarray(entry.vectors, dtype=np.float32)
    room = entry.release.contract.empty(0)
    x = np.lib.format.open_memmap(path, "w+", room.dtype, (len(pack), *room.shape[1:]))
    if hasattr(os, "posix_fallocate"):  # where the disk has no room for it, say so now: a mapping would end in SIGBUS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    starts, start = range(0, len(pack), 1024), 0
    parts: Iterator[NDArray[Any]] = entry.release.stream(pack.x[i : i + 1024] for i in starts)
    if codes is not None:  # the network has spoken already
        parts = (entry.release.substitutes[codes[i : i + 1024]] for i in starts)
    for part in parts:
        x[start : start + len(part)] = part
        start += len(part)
    x.flush()
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def _data(pack: Pack, private: Sequence[str], utility: Sequence[str], attack_on: Sequence[str]) -> dict[str, Any]:
    identity = pack.label("identity") if pack.knows_people else None
    splits = {}
    for split in SPLITS:
        rows = pack.rows(split)
        known = identity[rows][identity[rows] >= 0] if identity is not None else None
        splits[split] = {"n": len(rows), "identities": None if known is None else len(np.unique(known))}
    shown = [n for n in dict.fromkeys([*private, *utility]) if n != "identity"]
    labels = {
        name: {
            "classes": list(pack.classes[name]),
            "counts": {
                split: np.bincount(
                    pack.label(name)[pack.rows(split, known=(name,))], minlength=len(pack.classes[name])
                ).tolist()
                for split in SPLITS
            },
        }
        for name in shown
    }
    return {
        "layout": pack.meta.get("layout", ""),
        "kind": pack.kind,
        "shape": list(pack.x.shape[1:]),
        "n": len(pack),
        "identities": None if identity is None else len(np.unique(identity[identity >= 0])),
        "fingerprint": pack.fingerprint,
        "splits": splits,
        "labels": labels,
        "private": list(private),
        "utility": list(utility),
        "skipped": pack.meta.get("skipped", 0),
        "attack_on": list(attack_on),
    }


def _described(entry: Entry) -> dict[str, Any]:
    release = entry.release
    if release is None:
        assert entry.vectors is not None
        return {"name": entry.name, "method": "", "preset": "", "k": entry.vectors.shape[1], "seed": None,
                "role": entry.shown_role(), "config": {}, "data": None, "note": entry.note or "vectors from outside",
                "named": entry.named}  # fmt: skip
    return {
        "name": entry.name,
        "method": release.method,
        "preset": entry.preset,
        "k": release.contract.k,
        "seed": release.made.get("seed"),
        "role": entry.shown_role(),
        "config": dict(release.config),
        "data": release.made.get("data"),
        "note": " ".join([entry.note, *release.made.get("warnings", ())]).strip(),
        "named": entry.named,
    }


def _pictures(pack: Pack, out: Path, entries: Sequence[Entry], columns: int = 8) -> list[dict[str, str]]:
    """Test images above what each release's own decoder redraws from it."""
    shown = [e for e in entries if e.release is not None and e.release.decoder is not None]
    if pack.kind != "images" or not shown:
        return []
    rows = pack.rows("test")
    rows = rows[np.linspace(0, len(rows) - 1, min(columns, len(rows))).astype(int)]
    x = np.asarray(pack.x[rows])
    strips = [x]
    for entry in shown:
        assert entry.release is not None
        strips.append(entry.release.redraw(entry.release.transform(x)))
    sheet = picture_sheet(strips)
    sheet.save(out / "pictures" / "reconstructions.png", optimize=True)
    names = ", ".join(f"{i + 2}: {entry.name}" for i, entry in enumerate(shown))
    caption = (
        f"Row 1: images of the test split. Below, what each method's own decoder redraws from their releases "
        f"({names}). A decoder trained with the protector is not an attack: a fresh one may redraw more."
    )
    return [{"file": "pictures/reconstructions.png", "title": "Originals and reconstructions", "caption": caption}]


def _redrawn(pack: Pack, out: Path, names: Sequence[str], work: Path) -> list[dict[str, str]]:
    """Test images above what the worst fresh decoder redraws from each release."""
    there = [name for name in names if inversion.picture(work, name).exists()]
    if pack.kind != "images" or not there:
        return []
    strips = [np.asarray(pack.x[inversion.shown(pack)]), *(np.load(inversion.picture(work, name)) for name in there)]
    picture_sheet(strips).save(out / "pictures" / "inversion.png", optimize=True)
    listed = ", ".join(f"{i + 2}: {name}" for i, name in enumerate(there))
    caption = f"Row 1: images of the test split. Below, what the worst fresh decoder redraws from releases ({listed})."
    return [{"file": "pictures/inversion.png", "title": "Inversion by fresh decoders", "caption": caption}]


def _releases_shown(
    pack: Pack, out: Path, entries: Sequence[Entry], private: Sequence[str], found: Sequence[Finding], columns: int = 12
) -> list[dict[str, str]]:
    """For each release that is an image, test images above what is released in their place."""
    shown = [e for e in entries if e.release is not None and e.release.contract.image is not None]
    if pack.kind != "images" or not shown:
        return []
    rows = pack.rows("test")
    rows = rows[np.linspace(0, len(rows) - 1, min(columns, len(rows))).astype(int)]
    x = np.asarray(pack.x[rows])
    pictures = []
    for number, entry in enumerate(shown):
        assert entry.release is not None
        picture_sheet([x, entry.release.transform(x)]).save(out / "pictures" / f"releases-{number}.png", optimize=True)
        words = f"Above: images of the test split. Below: what {entry.name} releases in their place."
        if entry.release.contract.support:
            words += f" It is always one of the same {entry.release.contract.support} images."
        for f in found:
            if (f.release, f.code, f.status) == (entry.name, "certificate.balanced_accuracy", "ok"):
                words += (
                    f" Certified at {_percent(f.level)} confidence: whoever sees one release of a person, and knows "
                    f"all about how it was made, guesses {f.target} with a balanced accuracy of at most "
                    f"{_percent(certified(f.value or 0.0))} (chance {_percent(f.chance)})."
                )
        pictures.append(
            {"file": f"pictures/releases-{number}.png", "title": f"What {entry.name} releases", "caption": words}
        )
    return pictures


def _percent(value: float | None) -> str:
    assert value is not None
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def picture_sheet(strips: Sequence[NDArray[Any]], *, scale: int = 2, gap: int = 4) -> Image.Image:
    """Strips of uint8 images ``(n, H, W[, 3])`` under one another, on white."""
    rows = []
    for strip in strips:
        colours = ((0, 0),) * (strip.ndim - 3)
        padded = np.pad(strip, ((0, 0), (gap, 0), (gap, 0), *colours), constant_values=255)
        rows.append(np.concatenate(list(padded), axis=1))
    sheet = np.pad(np.concatenate(rows, axis=0), ((0, gap), (0, gap), *colours), constant_values=255)
    image = Image.fromarray(sheet)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def _curves(out: Path, entries: Sequence[Entry]) -> list[dict[str, str]]:
    listed = []
    for number, entry in enumerate(entries):
        if entry.curves:
            slug = "".join(c if c.isalnum() else "-" for c in entry.name.lower()).strip("-")
            path = write_curves(out / "curves" / f"{number:02d}-{slug}.parquet", entry.curves)
            listed.append({"file": f"curves/{path.name}", "release": entry.name})
    return listed


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One row of the table that an audit ends with, as findings.

    Attributes:
        name: The release.
        attack: The worst attack by who learned from releases.
        transfer: What the classifier reads that knows originals alone and reads those best; None where none was shown
            the release.
        utility: The use that is left.
    """

    name: str
    attack: Finding | None
    transfer: Finding | None
    utility: Finding | None


def summary(found: Sequence[Finding], private: str, utility: str = "identity") -> list[Outcome]:
    """For each release the worst attacks on ``private`` and the picked matcher's AUC (or probe's balanced accuracy).

    An attacker, or a probe, that names one class for everybody has its AUC here.
    """

    def picked(release: str, codes: Sequence[str], target: str, role: str) -> Finding | None:
        hits = [f for f in found if f.worst and (f.release, f.target, f.role) == (release, target, role)]
        hits = [f for code in codes for f in hits if f.code == code]
        return next((f for f in hits if f.ok), hits[0] if hits else None)

    use = ["verification.auc"] if utility == "identity" else ["utility.balanced_accuracy", "utility.auc"]
    read, shown = ([f"attribute.{kind}balanced_accuracy", f"attribute.{kind}auc"] for kind in ("", "transfer_"))
    return [
        Outcome(
            name=name,
            attack=picked(name, read, private, "attack"),
            transfer=picked(name, shown, private, "attack"),
            utility=picked(name, use, utility, "utility"),
        )
        for name in dict.fromkeys(f.release for f in found)
    ]


def redrawn(found: Sequence[Finding]) -> dict[str, dict[str, Finding]]:
    """For each release that was attacked by inversion, what the worst decoder and the feature-level attack get."""
    out: dict[str, dict[str, Finding]] = {}
    for f in found:
        if f.worst and f.code.startswith("inversion."):
            out.setdefault(f.release, {})[f.code] = f
    return out


DEMO_ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("Original", "aia", "original", "identity"),
    ("Random", "random", "default", "identity"),
    ("AIA\\T", "aia", "without-task", "identity"),
    ("AIA", "aia", "paper", "identity"),
    ("AIA deep", "aia", "deep", "identity"),
    ("LEACE", "leace", "default", "identity"),
    ("Substitution", "substitution", "default", "smile"),
)
"""Rows of the demo: name, method, preset, the use to keep. Random and LEACE work on Original's releases."""

DEMO_PEOPLE, DEMO_IMAGES, DEMO_SIZE = 1500, 4, 48
DEMO_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "original": {"steps_alone": 120, "batch": 128},
    "without-task": {"steps_alone": 80, "steps_joint": 100, "batch": 128},
    "paper": {"steps_alone": 80, "steps_joint": 100, "batch": 128},
    "deep": {"networks": 1, "steps_alone": 130, "steps_joint": 250, "batch": 128},
    "substitution": {"codes": 8, "heads": 2, "steps": 150, "batch": 256},
}
"""Shorter than the presets, so that the demo takes minutes; figures of the presets are in ``docs/results``."""


def demo(
    out: Path,
    *,
    seed: int = 0,
    jobs: int | None = None,
    command: str = "veil demo",
    pack_progress: Callable[[int, int | None, int], None] | None = None,
    fit_progress: Callable[[str], FitProgress | None] = lambda name: None,
    audit_progress: AuditProgress | None = None,
) -> list[Finding]:
    """The whole way on stylised faces: pack, fit the paper's four rows, ``deep``, LEACE, substitution, audit, report.

    Args:
        out: Folder for the pack, the releases, ``findings.json`` and ``report.html``; earlier ones are replaced.
        seed: Seeds everything but the keys of the releases.
        jobs: Processes of the audit.
        command: For the report.
        pack_progress: Told rows done, expected and skipped.
        fit_progress: From a row's name to what is told its progress.
        audit_progress: Told jobs done, jobs in all and what was done last.
    """
    from veil.report import html

    pack = build.pack(
        "stylised", f"identities={DEMO_PEOPLE},images={DEMO_IMAGES}", out / "pack", size=DEMO_SIZE, seed=seed,
        force=True, progress=pack_progress,
    )  # fmt: skip
    entries: list[Entry] = []
    original: Release | None = None
    for name, method, preset, use in DEMO_ROWS:
        release, curves = fit(
            method, pack, private=["gender"], utility=use, preset=preset, seed=seed,
            settings=DEMO_SETTINGS.get(preset, DEMO_SETTINGS.get(method)),
            base=original if method in ("random", "leace") else None, progress=fit_progress(name),
        )  # fmt: skip
        original = original or release
        release.save(out / "releases" / name.replace("\\", "-without-").replace(" ", "-").lower(), force=True)
        named = METHODS[method].role(preset) == "method"  # the others stand beside, to be compared with
        entries.append(Entry(name=name, release=release, curves=curves, named=named))
    found = audit_pack(
        pack, out, entries, private=["gender"], utility=["identity", "smile"], baselines=(), seed=seed, effort="quick",
        jobs=jobs, command=command, progress=audit_progress,
    )  # fmt: skip
    html.write(out)
    return found
