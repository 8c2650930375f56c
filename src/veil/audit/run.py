"""The audit: fresh attackers, matchers and controls against any set of releases, as findings.

Everything here sees arrays and labels alone, so a method's releases, baselines and strangers' vectors are attacked
identically. Attackers train on the ``attack_on`` splits, the worst of them is picked on ``calibrate``, and every figure
is measured on ``test``, which neither the protector nor an attacker has seen.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from veil import metrics
from veil.audit import intervals, inversion, transfer, verification
from veil.audit.attackers import (
    ATTACKERS,
    CONVOLUTIONAL,
    EFFORTS,
    FINITE,
    MATCHERS,
    DidNotConverge,
    Problem,
    decision,
    failure,
    largest,
    quality,
    recurs,
    undecided,
)
from veil.audit.certificate import certify
from veil.audit.findings import Finding, normalised_gain
from veil.audit.intervals import Interval, auc_interval, balanced_accuracy_interval, mcc_interval
from veil.audit.linkage import identification, linkage
from veil.audit.pools import Pools, pool
from veil.audit.repeats import Repeats
from veil.audit.verification import COSINE, metrics_of
from veil.audit.workers import end_with
from veil.data.pack import SPLITS, Pack
from veil.engine.run import keeps_memory, kept_memory
from veil.errors import InputError, checked_seed
from veil.threads import one_thread

CONTROL_LEVEL = 0.999
"""Coverage of the shuffled-label controls: with one a release, 95 % would raise a false alarm in most long audits."""

_QUICK = ("lookup table", "logistic regression", "RBF SVM", "boosted trees", "MLPs", "residual CNN", "plain CNN")
_SHUFFLED = (
    "RBF SVM"  # the attacker that the shuffled-label control trains: it memorises, is quick, and takes any width
)
_POOLS = {
    "quick": ("logistic regression", "MLPs"),
    **dict.fromkeys(("standard", "strong"), ("logistic regression", "RBF SVM", "MLPs", "residual MLPs")),
}
"""Attackers of the means of several releases."""
_WIDEST = 1024  # values of a map up to which residual MLPs attack it too
_KINDS_ABOUT = ("transfer", "likeness", "matching", "linkage", "inversion")
_MOST = 1e15  # largest value of a release
_PAIRS = {"quick": (25_000, 50_000), "standard": (100_000, 200_000), "strong": (100_000, 200_000)}
"""Most genuine, and most impostor, pairs of the calibrate and of the test split."""


_Role = Literal["attack", "utility", "control", "pooled", "repeated"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Status and note of a task that broke off; it comes back from a worker process in place of a result."""

    status: str
    note: str

    @staticmethod
    def of(error: Exception) -> Failure:
        status, note = failure(error)
        return Failure(status=status, note=note)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Something to audit: one array of releases for all rows of the pack.

    Attributes:
        name: What findings call it.
        x: float32 ``(N, k)`` or uint8 images ``(N, H, W[, 3])``, row i released from row i of the pack.
        role: ``"input"`` for the unprotected input (one subject has this role), ``"baseline"`` or ``"method"``.
        feature_map: ``(C, H, W)`` where the vectors are flattened maps.
        codes: int64 ``(N,)``, which of finitely many values, fixed beforehand, each row was released as; None for a
            release of any number of values. Such a release is certified.
        seen: bool ``(N,)``, rows that its protector, or its table of values, has seen, or whose person; those of
            ``protect`` do not matter. None where that is not known.
        repeats: Means of the releases of near-duplicates, which are attacked too; or why there are none; None where
            that is of no interest.
    """

    name: str
    x: NDArray[Any]
    role: Literal["input", "baseline", "method"]
    feature_map: tuple[int, int, int] | None = None
    codes: NDArray[np.int64] | None = None
    seen: NDArray[np.bool_] | None = None
    repeats: Repeats | Failure | str | None = None


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One attacker against one label of one subject. What a worker process gets."""

    subject: str
    target: str
    attacker: str
    role: _Role
    problem_x: NDArray[Any]
    y: NDArray[np.int64]
    classes: int
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    feature_map: tuple[int, int, int] | None
    effort: str
    seed: int
    level: float


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What a job found. It names its job, for the job holds the releases, which must not travel back.

    ``validation`` is how well it did on validation data, below 0 where it failed.
    """

    subject: str
    target: str
    attacker: str
    role: str
    validation: float
    findings: tuple[Finding, ...]


_About = tuple[str, str, list[Finding]]
"""Findings about a release, under the heading of a kind."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """Something to do, here or in a worker process, and the result that stands in its place where it breaks off.

    Attributes:
        call: Function, arguments and options.
        failed: From the status and the note of an outcome without a figure to that result.
    """

    call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
    failed: Callable[[str, str], _Outcome | list[_About]]


def audit(
    subjects: Sequence[Subject],
    pack: Pack,
    *,
    private: Sequence[str],
    utility: Sequence[str],
    seed: int = 0,
    effort: str = "standard",
    jobs: int | None = None,
    attack_on: Sequence[str] = ("attack",),
    level: float = 0.95,
    together: bool = True,
    invert: inversion.Options | None = None,
    matcher: str | Path | None = None,
    classifiers: Mapping[str, Sequence[str | Path]] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Finding]:
    """Attack and use every subject; all findings, worst attackers marked.

    What breaks off, for whatever reason, has a finding without a figure that says why; the others go on.

    Args:
        subjects: At least one; one of role ``"input"`` is the reference for normalised gains.
        pack: Labels and splits; its ``x`` is read for inversion alone.
        private: Labels to attack.
        utility: ``"identity"`` for verification, or labels to read.
        seed: Seeds attackers and pairs.
        effort: ``"quick"``, ``"standard"`` or ``"strong"``.
        jobs: Processes; the number of processors if None. 1 runs everything in this process.
        attack_on: Splits that attackers and matchers train on. ``("protect", "attack")`` gives them the protector's own
            data too, the strongest case.
        level: Coverage of intervals, both sides together.
        together: Also attack pools of one person's releases and link releases to the input, where identities are known.
        invert: Also redraw the pack's ``x`` from releases, with these options.
        matcher: ONNX file of a face matcher (:class:`veil.engine.onnxfile.OnnxNetwork`), which compares releases that
            are images, beside one that is trained, and judges redrawn faces, in place of it.
        classifiers: For private labels ONNX files of classifiers, which are shown releases that are images; they give
            a logit for each of the label's classes, in their order in the pack.
        progress: Called as ``progress(done, total, what)``.

    Raises:
        InputError: For an unknown label, effort or split, an empty class, subjects that do not fit the pack, or a file
            that does not serve.
    """
    private, utility, seed = list(dict.fromkeys(private)), list(dict.fromkeys(utility)), checked_seed(seed)
    wrong = wrong_options(
        private, utility, effort=effort, attack_on=attack_on, level=level, jobs=jobs, inverted=invert is not None
    )
    if wrong := wrong + _wrong_data(subjects, pack, private, utility, attack_on):
        raise InputError("; ".join(wrong))
    reference = next((s for s in subjects if s.role == "input"), None)
    shown = {s.name: s.x for s in subjects if s.codes is None and reference and transfer.pass_for(s.x, reference.x)}
    files = transfer.opened(
        pack, private=private, utility=utility, matcher=matcher, classifiers=classifiers, shown=len(shown) > 1,
        inverted=invert is not None,
    )  # fmt: skip
    labels = [name for name in utility if name != "identity"]
    about: dict[str, dict[str, list[Finding]]] = {s.name: {} for s in subjects}
    queue: list[_Job] = []
    asked: dict[_Role, list[str]] = {
        "attack": private, "utility": labels, "control": private, "repeated": private,
    }  # fmt: skip
    if together:
        asked["pooled"] = private
    common: dict[str, Any] = {"attack_on": attack_on, "effort": effort, "seed": seed, "level": level}
    for subject in subjects:
        for role, names in asked.items():
            for name in names:
                try:
                    queue += _jobs(subject, pack, name, role, **common)
                except _NoMeans as error:
                    nothing = _without(subject.name, f"attribute.{role}_balanced_accuracy", name, "attack", level)
                    about[subject.name][f"{role} {name}"] = [nothing(error.status, str(error))]
    # The longest first, so that no process is left with one of them at the end.
    tasks: list[_Task] = []

    def add(call: Any, kind: str, code: str, target: str, role: str, names: Sequence[str]) -> None:
        """A task about some releases; where it breaks off, each of them has a finding of this code that says so."""
        blank = [(name, _without(name, code, target, role, level)) for name in names]
        tasks.append(_Task(call=call, failed=lambda *why: [(name, kind, [finding(*why)]) for name, finding in blank]))

    if "identity" in utility:
        for s in subjects:
            call = delayed(_match)(s, pack, tuple(private), tuple(attack_on), effort, seed, level)
            add(call, "matching", "verification.auc", "identity", "utility", [s.name])
    for s in subjects if together else ():
        if reference is None:
            why = "needs the unprotected input, which was not audited"
            nothing = _without(s.name, "linkability.auc", "identity", "attack", level)
            about[s.name]["linkage"] = [nothing("not_applicable", why)]
        elif s is not reference:
            call = delayed(_link)(s, reference, pack, tuple(attack_on), effort, seed, level)
            add(call, "linkage", "linkability.auc", "identity", "attack", [s.name])
    if invert is not None:
        code = "inversion.ssim" if pack.kind == "images" else "inversion.similarity"
        options: dict[str, Any] = {"attack_on": attack_on, "seed": seed, "effort": effort, "matcher": files.matcher}
        who = _attempt(delayed(inversion.judges)(pack, invert, **options))
        for s in subjects:
            if isinstance(who, Failure):
                nothing = _without(s.name, code, "image", "attack", level)
                about[s.name]["inversion"] = [nothing(who.status, f"nobody to judge by: {who.note}")]
            else:
                call = delayed(_invert)(s, pack, who, tuple(attack_on), effort, seed, level, invert)
                add(call, "inversion", code, "image", "attack", [s.name])
    targets = list(dict.fromkeys([*private, *["identity"] * ("identity" in utility)]))
    if reference is not None and len(shown) > 1:
        for name in targets:
            read = ("attribute.transfer_balanced_accuracy", name, "attack")
            kept = ("verification.transfer_auc", name, "utility")
            call = delayed(_transfer)(reference, shown, pack, name, tuple(attack_on), effort, seed, level, files)
            add(call, "transfer", *(kept if name == "identity" else read), list(shown))
        alike = [name for name in shown if name != reference.name]
        call = delayed(_likeness)(reference, shown, pack, level)
        add(call, "likeness", "utility.ssim", "image", "utility", alike)
    tasks += [
        _Task(call=delayed(_attack)(job), failed=_failed(job))
        for job in sorted(queue, key=lambda j: j.attacker not in CONVOLUTIONAL)
    ]
    outcomes: list[_Outcome] = []
    for done, result in enumerate(_execute(tasks, jobs), 1):
        if isinstance(result, _Outcome):
            outcomes.append(result)
            what = f"{result.subject}: {result.attacker} on {result.target}"
        else:
            for name, kind, figures in result:
                about[name].setdefault(kind, []).extend(figures)
                what = f"{name}: {kind}"
        if progress is not None:
            progress(done, len(tasks), what)
    order: dict[tuple[str, ...], int] = {(j.subject, j.target, j.attacker, j.role): i for i, j in enumerate(queue)}
    outcomes.sort(key=lambda o: order[o.subject, o.target, o.attacker, o.role])
    for kinds in about.values():  # of several tasks, which may end in any order
        kinds.get("transfer", []).sort(key=lambda f: targets.index(f.target))

    findings: list[Finding] = []
    for subject in subjects:
        for name in private:
            findings += _worst_marked([o for o in outcomes if _is(o, subject.name, name, "attack")])
            for role in ("pooled", "repeated"):
                findings += _worst_marked([o for o in outcomes if _is(o, subject.name, name, role)])
                findings += about[subject.name].get(f"{role} {name}", [])
            findings.append(_majority(pack, subject.name, name, level))
            if subject.codes is not None:
                blank = _without(subject.name, "certificate.balanced_accuracy", name, "bound", level)
                findings += _told(delayed(_certified)(subject, subject.codes, pack, name, level), blank)
        findings += [f for o in outcomes if (o.subject, o.role) == (subject.name, "control") for f in o.findings]
        for name in labels:
            findings += _worst_marked([o for o in outcomes if _is(o, subject.name, name, "utility")])
        findings += _mean_mcc(subject.name, labels, [f for f in findings if f.release == subject.name], level)
        findings += [f for kind in _KINDS_ABOUT for f in about[subject.name].get(kind, [])]
        if subject.codes is not None:
            blank = _without(subject.name, "utility.bits", "any", "utility", level)
            findings += _told(delayed(_bits)(subject.name, subject.codes, pack, level), blank)
    return findings + _gains(findings, subjects, private)


def _without(release: str, code: str, target: str, role: str, level: float) -> Callable[[str, str], Finding]:
    """From status and note to the finding that stands where nobody has a figure."""

    def finding(status: str, note: str) -> Finding:
        return Finding(
            code=code, release=release, target=target, attacker="none", role=role, level=level, n=0, status=status,
            note=note,
        )  # fmt: skip

    return finding


# -- attribute attackers ----------------------------------------------------------------------------------------------


class _NoMeans(Exception):
    """Why nobody attacks means of several releases here."""

    def __init__(self, why: str, status: str = "not_applicable") -> None:
        super().__init__(why)
        self.status = status


def _jobs(
    subject: Subject,
    pack: Pack,
    target: str,
    role: _Role,
    *,
    attack_on: Sequence[str],
    effort: str,
    seed: int,
    level: float,
) -> Iterator[_Job]:
    y = pack.label(target)
    groups = None if target == "identity" or "identity" not in pack.labels else pack.label("identity")
    level = CONTROL_LEVEL if role == "control" else level
    names = [n for n in ATTACKERS if effort != "quick" or n in _QUICK]
    if subject.codes is None and not recurs(subject.x):
        names = [n for n in names if n not in FINITE]
    if not (subject.x.ndim > 2 or (subject.feature_map and effort != "quick")):
        names = [n for n in names if n not in CONVOLUTIONAL]
    elif subject.x.ndim > 2 or subject.x.shape[1] > _WIDEST:
        names = [n for n in names if n != "residual MLPs"]  # the convolutional attackers stand in
    x = subject.x
    rows = [pack.rows(*splits, known=(target,)) for splits in (tuple(attack_on), ("calibrate",), ("test",))]
    if role == "control":
        names = [_SHUFFLED]
        y = _shuffled(y, groups, pack.split, [seed, *subject.name.encode()])  # another deal for each release
    elif role == "pooled":
        pools = _pools(subject, pack, target, rows, seed)
        names = [n for n in _POOLS[effort] if n in ATTACKERS]
        x, y, groups, rows = pools.x, pools.y, pools.groups, list(pools.parts)
    elif role == "repeated":
        if subject.repeats is None:
            return
        if isinstance(subject.repeats, str):
            raise _NoMeans(subject.repeats)
        if isinstance(subject.repeats, Failure):
            raise _NoMeans(subject.repeats.note, subject.repeats.status)
        names = [n for n in _POOLS[effort] if n in ATTACKERS]
        x, places, rows = _with_singles(subject.repeats, rows)
        y, groups = y[places], None if groups is None else groups[places]
        if any(len(np.unique(y[part])) < 2 for part in rows):
            raise _NoMeans("there are near-duplicates of one class alone")
    for name in names:
        yield _Job(
            subject=subject.name,
            target=target,
            attacker=name,
            role=role,
            problem_x=x,
            y=y,
            classes=len(pack.classes[target]),
            train=rows[0],
            validation=rows[1],
            test=rows[2],
            groups=groups,
            feature_map=subject.feature_map,
            effort=effort,
            seed=seed,
            level=level,
        )


def _pools(subject: Subject, pack: Pack, target: str, rows: Sequence[NDArray[np.int64]], seed: int) -> Pools:
    """The means of several releases of one person; raises _NoMeans, with the reason, where there can be none."""
    if subject.x.ndim > 2:
        raise _NoMeans("releases are images, whose mean is hardly an image of anybody: means are not attacked")
    if target == "identity":
        raise _NoMeans("the releases of one person go into a mean, so it cannot be asked who that is")
    if "identity" not in pack.labels:
        raise _NoMeans("the pack does not say who is seen, so nobody knows which releases are of one person")
    try:
        return pool(subject.x, pack.label(target), pack.label("identity"), rows, seed=seed)
    except InputError as error:
        raise _NoMeans(str(error)) from None


def _with_singles(
    repeats: Repeats, rows: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.float32], NDArray[np.int64], list[NDArray[np.int64]]]:
    """Releases, their rows of the pack, and the places among them to learn from, to choose on and to measure on: means
    over near-duplicates, of which attackers learn beside single releases, for there are more of those."""
    train = rows[0]
    places = np.concatenate([train, repeats.rows])
    x = np.concatenate([repeats.singles[train], repeats.means])
    parts = [len(train) + np.flatnonzero(np.isin(repeats.rows, part)) for part in rows]
    return x, places, [np.concatenate([np.arange(len(train)), parts[0]]), *parts[1:]]


def _common(job: _Job) -> dict[str, Any]:
    """What the findings of a job share."""
    return {
        "release": job.subject,
        "target": job.target,
        "attacker": f"shuffled labels ({job.attacker})" if job.role == "control" else job.attacker,
        "role": "attack" if job.role in ("pooled", "repeated") else job.role,
        "level": job.level,
        "n": len(job.test),
    }


def _code(job: _Job, figure: str) -> str:
    codes = {"utility": "utility.", "pooled": "attribute.pooled_", "repeated": "attribute.repeated_"}
    return codes.get(job.role, "attribute.") + figure


def _chance(job: _Job) -> float:
    """Of a balanced accuracy: people of the pack need not be among those of the test split."""
    return 1 / len(np.unique(job.y[job.test]))


def _failed(job: _Job) -> Callable[[str, str], _Outcome]:
    """From status and note to the outcome of a job that broke off."""

    def outcome(status: str, note: str) -> _Outcome:
        control = job.role == "control"
        code, chance = ("auc", 0.5) if control else ("balanced_accuracy", _chance(job))
        finding = Finding(code=_code(job, code), chance=chance, status=status, note=note, **_common(job))
        return _Outcome(**_names(job), validation=-1.0, findings=(finding,))

    return outcome


def _names(job: _Job) -> dict[str, str]:
    return {"subject": job.subject, "target": job.target, "attacker": job.attacker, "role": job.role}


def _attack(job: _Job) -> _Outcome:
    """Train one attacker, set its threshold on validation data, measure it on test data."""
    x = job.problem_x
    problem = Problem(
        x=x[job.train],
        y=job.y[job.train],
        x_validation=x[job.validation],
        y_validation=job.y[job.validation],
        classes=job.classes,
        seed=job.seed,
        effort=job.effort,
        feature_map=job.feature_map,
    )
    score = ATTACKERS[job.attacker](problem)
    seen, test = score(problem.x_validation), score(x[job.test])
    if not (np.isfinite(seen).all() and np.isfinite(test).all()):
        raise DidNotConverge("its scores are not finite")
    y, groups = job.y[job.test], None if job.groups is None else job.groups[job.test]

    def finding(figure: str, interval: Interval, chance: float) -> Finding:
        value, low, high = interval
        return Finding(code=_code(job, figure), value=value, low=low, high=high, chance=chance, **_common(job))

    if job.role == "control":
        # Its scores, not its decision: a threshold set on shuffled labels may give away nothing of a leak.
        interval = auc_interval(y, test, groups, classes=job.classes, level=job.level)
        return _Outcome(**_names(job), validation=-1.0, findings=(finding("auc", interval, 0.5),))

    # A table's own decision is Bayes' rule already.
    decide = largest if job.attacker in FINITE else decision(seen, problem.y_validation, job.classes)
    predicted = decide(test)
    kwargs: dict[str, Any] = {"classes": job.classes, "level": job.level}
    why = undecided(predicted, y)

    def decided(figure: str, interval: Callable[..., Interval], chance: float) -> Finding:
        if why:
            return Finding(code=_code(job, figure), chance=chance, status="not_applicable", note=why, **_common(job))
        return finding(figure, interval(y, predicted, groups, **kwargs), chance)

    found = [
        decided("balanced_accuracy", balanced_accuracy_interval, _chance(job)),
        finding("auc", auc_interval(y, test, groups, **kwargs), 0.5),
    ]
    if job.role == "utility":
        found.append(decided("mcc", mcc_interval, 0.0))
    validation = quality(seen, problem.y_validation, job.classes)
    return _Outcome(**_names(job), validation=validation, findings=tuple(found))


def _shuffled(
    y: NDArray[np.int64], groups: NDArray[np.int64] | None, split: NDArray[np.int8], seed: Sequence[int]
) -> NDArray[np.int64]:
    """Labels dealt anew among the known rows of each split, which so keeps its classes.

    Where a person's label never changes it is dealt among persons, so that a person keeps one; else among rows.
    """
    rng = np.random.default_rng(seed)
    out = y.copy()
    known = np.flatnonzero(y >= 0)
    unit = np.arange(len(known)) if groups is None else intervals.units(groups[known], len(known))
    _, first, person = np.unique(unit, return_index=True, return_inverse=True)
    if not np.array_equal(y[known][first][person], y[known]):
        first = person = np.arange(len(known))
    dealt = y[known][first]
    place = split[known][first]
    for code in np.unique(place):
        members = np.flatnonzero(place == code)
        dealt[members] = rng.permutation(dealt[members])
    out[known] = dealt[person]
    return out


def _is(outcome: _Outcome, subject: str, target: str, role: str) -> bool:
    return (outcome.subject, outcome.target, outcome.role) == (subject, target, role)


def _worst_marked(outcomes: Sequence[_Outcome]) -> list[Finding]:
    """The findings of all attackers, those of the best on validation data marked (ties: the first).

    One whose decision has no figure (:func:`undecided`) may be the best: its AUC then speaks for it.
    """
    best = max((o for o in outcomes if any(f.ok for f in o.findings)), key=lambda o: o.validation, default=None)
    return [replace(finding, worst=outcome is best) for outcome in outcomes for finding in outcome.findings]


def _majority(pack: Pack, subject: str, target: str, level: float) -> Finding:
    """What guessing the most frequent class gets: exactly chance, in balanced accuracy; the note gives its accuracy."""
    y = pack.label(target)[pack.rows("test", known=(target,))]
    counts = np.bincount(y, minlength=len(pack.classes[target]))
    chance = 1 / np.count_nonzero(counts)
    name = pack.classes[target][int(counts.argmax())]
    return Finding(
        code="attribute.balanced_accuracy",
        release=subject,
        target=target,
        attacker="majority",
        role="control",
        value=chance,
        low=chance,
        high=chance,
        level=level,
        n=len(y),
        chance=chance,
        worst=False,
        status="ok",
        note=f"always {name}: plain accuracy {counts.max() / len(y):.3f}",
    )


def _certified(subject: Subject, codes: NDArray[np.int64], pack: Pack, target: str, level: float) -> list[Finding]:
    """Bounds on every attacker of a finite release, from ``calibrate``; or why there are none."""
    rows = pack.rows("calibrate", known=(target,))
    by_person = target != "identity" and "identity" in pack.labels
    found = []
    for figure in ("balanced_accuracy", "accuracy"):
        common: dict[str, Any] = {
            "code": f"certificate.{figure}", "release": subject.name, "target": target, "attacker": "any",
            "role": "bound", "level": level, "n": len(rows),
        }  # fmt: skip
        try:
            if subject.seen is None:
                raise InputError(
                    "certificate: calibration samples must not have been seen in training, and this release was fitted "
                    "on data that the audit does not know"
                )
            c = certify(
                codes[rows],
                pack.label(target)[rows],
                classes=len(pack.classes[target]),
                people=pack.label("identity")[rows] if by_person else None,
                figure=figure,
                confidence=level,
                seen=subject.seen[rows],
            )
        except InputError as error:
            found.append(Finding(status="not_applicable", note=str(error), chance=None, **common))
            continue
        what = f"{c.units:,} people" if by_person else "images"
        note = (
            f"{c.codes} codes on {c.n:,} images of calibrate ({what} the units); plug-in {c.plug_in:.4f}; by "
            f"McDiarmid's inequality {c.mcdiarmid:.4f}"
        )
        found.append(Finding(value=c.bound, low=c.bound, high=c.bound, chance=c.chance, note=note, **common))
    return found


def _bits(name: str, codes: NDArray[np.int64], pack: Pack, level: float) -> list[Finding]:
    """What a finite release says at all: the entropy of its codes on ``test``, in bits."""
    rows = pack.rows("test")
    groups = pack.label("identity")[rows] if "identity" in pack.labels else None
    most = float(np.log2(max(len(np.unique(codes)), 2)))  # a code that was never seen may be there, too
    used = np.unique(codes[rows])
    value, low, high = intervals.entropy_interval(codes[rows], groups, most=most, level=level)
    bits = Finding(
        code="utility.bits", release=name, target="any", attacker="counts", role="utility", value=value, low=low,
        high=high, level=level, n=len(rows), chance=0.0, note=f"{len(used)} codes in use",
    )  # fmt: skip
    return [bits]


def _mean_mcc(name: str, labels: Sequence[str], findings: Sequence[Finding], level: float) -> list[Finding]:
    """Matthews' correlation of the picked probes, averaged over several labels."""
    each = [f for f in findings if f.code == "utility.mcc" and f.worst and f.ok and f.target in labels]
    if len(labels) < 2 or len(each) < len(labels):
        return []
    value, low, high, _ = np.mean([f.figures() for f in each], axis=0)
    return [
        Finding(
            code="utility.mean_mcc", release=name, target=f"{len(each)} labels", attacker="picked probes",
            role="utility", value=value, low=low, high=high, level=level, n=min(f.n for f in each), chance=0.0,
            worst=True, note=f"of {', '.join(f.target for f in each)}; limits are the means of theirs, so too wide",
        )
    ]  # fmt: skip


def _gains(findings: Sequence[Finding], subjects: Sequence[Subject], private: Sequence[str]) -> list[Finding]:
    reference = next((s.name for s in subjects if s.role == "input"), None)
    out = []
    for name in private:
        worst = {
            f.release: f
            for f in findings
            if f.worst and f.role == "attack" and f.target == name and f.code == "attribute.balanced_accuracy"
        }
        if reference in worst:
            out += [normalised_gain(f, worst[reference]) for release, f in worst.items() if release != reference]
    return out


# -- verification -----------------------------------------------------------------------------------------------------


def _match(
    subject: Subject,
    pack: Pack,
    private: tuple[str, ...],
    attack_on: tuple[str, ...],
    effort: str,
    seed: int,
    level: float,
) -> list[_About]:
    """How well releases match: by several metrics as they are, and by matchers trained on releases.

    The matcher that is best on ``calibrate`` is marked; for it, pairs of one private class are measured too.
    """
    identity = pack.label("identity")
    train = pack.rows(*attack_on, known=("identity",))
    rows = {split: pack.rows(split, known=("identity",)) for split in ("calibrate", "test")}
    pairs = {
        split: verification.sample_pairs(rows[split], identity, seed=seed + i, max_pairs=_PAIRS[effort][i])
        for i, split in enumerate(rows)
    }
    problem = Problem(
        x=subject.x[train],
        y=identity[train],
        x_validation=subject.x[rows["calibrate"]],
        y_validation=identity[rows["calibrate"]],
        classes=len(pack.classes["identity"]),
        seed=seed,
        effort=effort,
        feature_map=subject.feature_map,
    )
    used = np.union1d(rows["calibrate"], rows["test"])
    compare = metrics_of(subject.x, train)
    vectors: dict[str, NDArray[Any]] = dict.fromkeys(compare, subject.x)
    failures: list[Finding] = []
    for name, match in MATCHERS.items():
        try:
            embedded = match(problem)(subject.x[used])
            if not np.isfinite(embedded).all():
                raise DidNotConverge("its vectors are not finite")
        except Exception as error:  # the others stand
            status, note = failure(error)
            failed = Finding(
                code="verification.auc",
                release=subject.name,
                target="identity",
                attacker=name,
                role="utility",
                level=level,
                n=len(pairs["test"]),
                chance=0.5,
                status=status,
                note=note,
            )
            failures.append(failed)
        else:
            vectors[name] = _placed(embedded, used, len(pack))

    def alike(name: str, pairs: verification.Pairs) -> NDArray[np.float32]:
        metric = compare.get(name, COSINE)
        return verification.scores(vectors[name], pairs, kind=metric.kind, centre=metric.centre)

    scores = {name: {split: alike(name, p) for split, p in pairs.items()} for name in vectors}

    def quality(name: str) -> float:  # NaN where calibrate lacks genuine or impostor pairs: then the first is taken
        return float(np.nan_to_num(metrics.auc(scores[name]["calibrate"], pairs["calibrate"].same)))

    best = max(scores, key=quality)
    findings = []
    for name, found in scores.items():
        figures = verification.verify(
            found["test"],
            pairs["test"],
            found["calibrate"],
            pairs["calibrate"],
            level=level,
        )
        findings += [f.finding(release=subject.name, attacker=name, worst=name == best) for f in figures]
    for attribute in private:
        if attribute == "identity":
            continue
        masks = {s: verification.same_attribute(p, pack.label(attribute)) for s, p in pairs.items()}
        figures = verification.verify(
            scores[best]["test"][masks["test"]],
            pairs["test"].where(masks["test"]),
            scores[best]["calibrate"][masks["calibrate"]],
            pairs["calibrate"].where(masks["calibrate"]),
            level=level,
        )
        target = f"identity|same {attribute}"
        findings += [f.finding(release=subject.name, attacker=best, target=target, worst=True) for f in figures]
    if pack.pairs is not None:
        listed, fold = verification.listed_pairs(pack.pairs, rows["test"], identity)
        figure = verification.ten_fold(alike(best, listed), listed.same, fold, level=level)
        findings.append(figure.finding(release=subject.name, attacker=best, worst=True))

    def compared(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        values: NDArray[np.float32] = vectors[best][rows].reshape(len(rows), -1).astype(np.float32, copy=False)
        return values

    rank1 = identification(
        compared, compared, rows["test"], identity, among="releases", release=subject.name, attacker=best, seed=seed,
        level=level, metric=compare.get(best, COSINE),
    )  # fmt: skip
    findings.append(rank1)
    return [(subject.name, "matching", findings + failures)]


def _link(
    subject: Subject,
    reference: Subject,
    pack: Pack,
    attack_on: tuple[str, ...],
    effort: str,
    seed: int,
    level: float,
) -> list[_About]:
    """What a release gives away of the original that it was made of, and of its owner among originals.

    Where the pack does not say who is seen, each row counts as a person.
    """
    splits = (attack_on, ("calibrate",), ("test",))
    known = ("identity",) if "identity" in pack.labels else ()
    identity = pack.label("identity") if known else np.arange(len(pack))
    rows = [pack.rows(*names, known=known) for names in splits]
    if empty := [" and ".join(names) for names, part in zip(splits, rows, strict=True) if not len(part)]:
        nothing = _without(subject.name, "linkability.auc", "identity", "attack", level)
        note = f"nobody's identity is known in split {empty[0]}"
        return [(subject.name, "linkage", [nothing("not_applicable", note)])]
    found = linkage(
        subject.x, reference.x, identity, *rows, release=subject.name, seed=seed, effort=effort, level=level
    )
    return [(subject.name, "linkage", found)]


def _invert(
    subject: Subject,
    pack: Pack,
    judges: inversion.Judges,
    attack_on: tuple[str, ...],
    effort: str,
    seed: int,
    level: float,
    options: inversion.Options,
) -> list[_About]:
    """What fresh decoders redraw from a release."""
    found = inversion.invert(
        subject.x, pack, judges, release=subject.name, role=subject.role, feature_map=subject.feature_map,
        attack_on=attack_on, effort=effort, seed=seed, level=level, pictures=options.pictures,
    )  # fmt: skip
    return [(subject.name, "inversion", found)]


def _transfer(
    reference: Subject,
    releases: Mapping[str, NDArray[Any]],
    pack: Pack,
    target: str,
    attack_on: tuple[str, ...],
    effort: str,
    seed: int,
    level: float,
    files: transfer.Files,
) -> list[_About]:
    """What classifiers of a label, or matchers, that know originals alone make of releases."""
    options: dict[str, Any] = {"attack_on": attack_on, "effort": effort, "seed": seed, "level": level}
    if target != "identity":
        given = files.classifiers.get(target, ())
        found = transfer.classified(reference.x, releases, pack, target, files=given, **options)
    else:
        found = transfer.matched(reference.x, releases, pack, file=files.matcher, **options)
    return [(name, "transfer", figures) for name, figures in found.items()]


def _likeness(reference: Subject, releases: Mapping[str, NDArray[Any]], pack: Pack, level: float) -> list[_About]:
    """How alike releases and originals look."""
    return [
        (name, "likeness", transfer.likeness(reference.x, x, pack, release=name, level=level))
        for name, x in releases.items()
        if name != reference.name
    ]


def _placed(values: NDArray[Any], rows: NDArray[np.int64], n: int) -> NDArray[np.float32]:
    """``values`` at their rows of an array of n rows; the others, zeros that are never touched, take no memory."""
    out = np.zeros((n, values.shape[1]), np.float32)
    out[rows] = values
    return out


# -- running ----------------------------------------------------------------------------------------------------------


def _execute(tasks: Sequence[_Task], jobs: int | None) -> Iterator[_Outcome | list[_About]]:
    """Results as they come; worker processes share the arrays through memory-mapped files.

    A worker that is killed, by the system where memory runs out, say, takes the others down. What they were at is done
    again, each alone; what then kills its worker again has failed.
    """
    jobs = jobs or os.cpu_count() or 1
    if jobs == 1:
        for task in tasks:
            yield _finished(task, _attempt(task.call))
        return
    left, alone = dict(enumerate(tasks)), 0
    while left:
        batch = list(left)[:1] if alone else list(left)
        alone = max(alone - 1, 0)
        try:
            for number, result in _in_workers({number: left[number].call for number in batch}, jobs):
                yield _finished(left.pop(number), result)
        except BrokenProcessPool as error:
            if len(batch) > 1:
                alone = _AHEAD * jobs  # so many at most had been given out
            else:
                note = f"{type(error).__name__}: its process was killed, for want of memory perhaps"
                yield left.pop(batch[0]).failed("did_not_converge", note)


_AHEAD = 2  # tasks for each worker that joblib gives out before they are asked for


def _in_workers(calls: Mapping[int, Any], jobs: int) -> Iterator[tuple[int, Any]]:
    """The number of each call and what :func:`_attempt` makes of it, as they come; in a worker also where it is one."""
    with warnings.catch_warnings():
        # loky replaces a worker whose memory grew, which costs a second and loses nothing.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        parallel = Parallel(
            n_jobs=jobs, return_as="generator_unordered", max_nbytes="1M", mmap_mode="r", batch_size=1,
            pre_dispatch=_AHEAD * jobs, initializer=end_with, initargs=(os.getpid(),),
        )  # fmt: skip
        own = keeps_memory()
        yield from parallel(delayed(_numbered)(number, call, own) for number, call in calls.items())


def _numbered(number: int, call: Any, own: bool) -> tuple[int, Any]:
    return number, _attempt(call, own)


def _attempt(call: Any, own: bool = False) -> Any:
    """What a call gives, or a :class:`Failure` where it raises; ``own`` as for :func:`_single`."""
    try:
        return _single(call, own)
    except Exception as error:  # whatever it is: the others must not be lost with it
        return Failure.of(error)


def _told(call: Any, blank: Callable[[str, str], Finding]) -> list[Finding]:
    """The findings that a call gives, or, where it raises, from status and note the one that says so."""
    result = _attempt(call)
    return [blank(result.status, result.note)] if isinstance(result, Failure) else result


def _finished(task: _Task, result: Any) -> Any:
    return task.failed(result.status, result.note) if isinstance(result, Failure) else result


def _single(task: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]], own: bool = False) -> Any:
    """One task on one thread, wherever it runs: sums in another order would give other figures.

    ``own``: in a worker of a process that keeps its memory, which may do so, too.
    """
    function, arguments, options = task
    with one_thread(), kept_memory() if own else nullcontext():
        return function(*arguments, **options)


def _wrong_data(
    subjects: Sequence[Subject], pack: Pack, private: Sequence[str], utility: Sequence[str], attack_on: Sequence[str]
) -> list[str]:
    """What is wrong with releases and labels."""
    problems = ["releases: at least one is needed, got none"] * (not subjects)
    splits = [split for split in SPLITS if split in attack_on]
    names = [s.name for s in subjects]
    problems += [
        f"release {n!r}: names must differ, got {names.count(n)} of this name"
        for n in dict.fromkeys(names)
        if names.count(n) > 1
    ]
    inputs = [s.name for s in subjects if s.role == "input"]
    if len(inputs) > 1:
        problems.append(f"releases: one may have the role 'input', got {', '.join(inputs)}")
    problems += [f"release {s.name!r}: {problem}" for s in subjects if (problem := _problem(s, len(pack)))]
    try:
        pack.require(private=list(private), utility=list(utility), among=sorted({*splits, "calibrate", "test"}))
    except InputError as error:
        problems.append(str(error))
    else:
        problems += strangers(pack, private, splits, "test")
    return problems


def strangers(pack: Pack, private: Sequence[str], attack_on: Sequence[str], measured: str) -> list[str]:
    """What is wrong with splits that keep people apart, where it is attacked who somebody is: none could be named."""
    if "identity" not in private:
        return []
    known, asked = (np.unique(pack.label("identity")[pack.rows(*s, known="identity")]) for s in (attack_on, [measured]))
    if np.isin(asked, known).any():
        return []
    return [
        f"private: identity can only be attacked where people stand in several splits, and nobody of {measured} is in "
        f"{' or '.join(attack_on)}; pack the data so (--no-disjoint)"
    ]


def wrong_options(
    private: Sequence[str],
    utility: Sequence[str],
    *,
    effort: str,
    attack_on: Sequence[str],
    level: float,
    jobs: int | None,
    inverted: bool,
) -> list[str]:
    """What is wrong with the options of an audit, whatever the data; they are those of :func:`audit`."""
    problems = []
    if not private and not utility and not inverted:
        problems.append("labels: at least one private or utility label must be named, got none")
    if effort not in EFFORTS:
        problems.append(f"effort: must be one of {', '.join(EFFORTS)}, got {effort!r}")
    if not 0.5 <= level < 1:
        problems.append(f"level: must lie in [0.5, 1), got {level}")
    if jobs is not None and jobs < 1:
        problems.append(f"jobs: must be at least 1, got {jobs}")
    if not attack_on or not set(attack_on) <= {"protect", "attack"}:
        problems.append(f"attackers: must train on 'attack' or 'protect', got {list(attack_on)}")
    return problems


def _problem(subject: Subject, n: int) -> str:
    """What is wrong with a subject's array; "" if nothing is."""
    x = subject.x
    images = x.dtype == np.uint8 and (x.ndim == 3 or (x.ndim == 4 and x.shape[3] in (1, 3)))
    if not images and not (x.ndim == 2 and np.issubdtype(x.dtype, np.floating)):
        return f"must be uint8 images (N, H, W[, 3]) or floats (N, k), got {x.dtype} {x.shape}"
    if len(x) != n:
        return f"needs one row for each of the pack's {n}, got {len(x)}"
    if 0 in x.shape:
        return f"must hold values, got shape {x.shape}"
    if not images:
        most = np.max([np.abs(part).max() for part in np.array_split(x, -(-n // 4096))])
        if not np.isfinite(most):
            return "values must be finite, got NaN or infinity"
        if most > _MOST:
            return f"values must lie within +-{_MOST:g}, whose squares float32 can add up, got {most:g}"
    c_h_w, codes = subject.feature_map, subject.codes
    if codes is not None:
        if codes.shape != (n,) or codes.dtype.kind not in "iu":
            return f"needs one integer code for each of the pack's {n} rows, got {codes.dtype} {codes.shape}"
        # A certificate speaks of codes alone: a row must say no more than its code does.
        _, first, code = np.unique(codes, return_index=True, return_inverse=True)
        unlike = (i for i in range(0, n, 4096) if not np.array_equal(x[i : i + 4096], x[first[code[i : i + 4096]]]))
        if (start := next(unlike, None)) is not None:
            return f"rows of one code must be alike, and of rows {start} to {min(start + 4096, n) - 1} some are not"
    if c_h_w is not None and (images or int(np.prod(c_h_w)) != x.shape[1]):
        return f"its feature map {c_h_w} must hold as many values as a row of its array {x.shape}"
    return ""
