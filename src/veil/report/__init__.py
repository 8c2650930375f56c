"""The report: one self-contained page made from ``findings.json`` and the pictures and curves it names.

Here: the document as it is read and checked, the choice of the findings that speak for a release, and how figures are
named and written. ``plots`` draws, ``html`` lays out. Needs neither data nor models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from veil.errors import InputError

SCHEMA = 1
ATTACK = "attribute.balanced_accuracy"
GAIN = "attribute.normalised_gain"
POOLED = "attribute.pooled_balanced_accuracy"
REPEATED = "attribute.repeated_balanced_accuracy"
TRANSFER = "attribute.transfer_balanced_accuracy"
LINKAGE = (
    "linkability.auc",
    "linkability.rank1",
    "identification.rank1_originals",
    "identification.rank1_releases",
)
"""Figures of records and people found again, whatever is private."""
INVERSION = ("inversion.face_similarity", "inversion.similarity", "inversion.ssim")
"""Figures that speak for an attack by inversion, best first: the first one measured is taken."""
CERTIFICATE = "certificate.balanced_accuracy"
NO_BETTER = "not clearly better than without a release"
"""How the note of a figure of inversion begins whose gain over no release may be luck."""
RELEASE_ROLES = ("input", "baseline", "method")
FINDING_ROLES = ("attack", "utility", "control", "bound")
STATUSES = ("ok", "not_applicable", "did_not_converge")

_NBSP = "\u00a0"
_EN_DASH = "\u2013"
_MINUS = "\u2212"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a kind of figure is named and written.

    Attributes:
        title: Words that fit inside a sentence.
        short: A table heading.
        style: "percent" (61.2 %), "fraction" (.914) or "plain" (23.4).
        low_is_good: True where a smaller figure means a more useful release.
    """

    title: str
    short: str
    style: Literal["percent", "fraction", "plain"]
    low_is_good: bool = False


METRICS: Mapping[str, Metric] = {
    ATTACK: Metric(title="balanced accuracy", short="Balanced accuracy", style="percent"),
    "attribute.auc": Metric(title="AUC", short="AUC", style="fraction"),
    GAIN: Metric(title="normalised gain", short="Normalised gain", style="percent"),
    TRANSFER: Metric(title="balanced accuracy", short="Knows only originals", style="percent"),
    POOLED: Metric(title="balanced accuracy", short="Mean of several releases", style="percent"),
    "attribute.pooled_auc": Metric(title="AUC", short="Mean of several releases, AUC", style="fraction"),
    REPEATED: Metric(title="balanced accuracy", short="Mean over near-duplicates", style="percent"),
    "attribute.repeated_auc": Metric(title="AUC", short="Mean over near-duplicates, AUC", style="fraction"),
    "verification.auc": Metric(title="AUC", short="AUC", style="fraction"),
    "verification.eer": Metric(title="EER", short="EER", style="percent", low_is_good=True),
    "verification.tar_at_far_0.01": Metric(title="TAR at FAR 1 %", short="TAR at FAR 1 %", style="percent"),
    "verification.tar_at_far_0.001": Metric(title="TAR at FAR 0.1 %", short="TAR at FAR 0.1 %", style="percent"),
    "verification.accuracy": Metric(title="accuracy", short="Accuracy", style="percent"),
    "verification.lfw10_accuracy": Metric(title="LFW 10-fold accuracy", short="LFW 10-fold", style="percent"),
    "verification.transfer_auc": Metric(title="AUC", short="Release with release, AUC", style="fraction"),
    "verification.mixed_auc": Metric(title="AUC", short="Release with original, AUC", style="fraction"),
    "utility.ssim": Metric(title="SSIM", short="SSIM to the original", style="fraction"),
    "utility.psnr": Metric(title="PSNR", short="PSNR to the original, dB", style="plain"),
    "utility.balanced_accuracy": Metric(title="balanced accuracy", short="Balanced accuracy", style="percent"),
    "utility.auc": Metric(title="AUC", short="AUC", style="fraction"),
    "utility.mcc": Metric(title="MCC", short="MCC", style="fraction"),
    "linkability.auc": Metric(title="AUC", short="Own original told from others: AUC", style="fraction"),
    "linkability.rank1": Metric(title="rank 1", short="Own original found first", style="percent"),
    "identification.rank1_originals": Metric(
        title="rank 1", short="Person found first, among originals", style="percent"
    ),
    "identification.rank1_releases": Metric(
        title="rank 1", short="Person found first, among releases", style="percent"
    ),
    "utility.mean_mcc": Metric(title="mean MCC", short="Mean MCC", style="fraction"),
    "inversion.face_similarity": Metric(title="face similarity", short="Face similarity", style="fraction"),
    "inversion.similarity": Metric(title="cosine similarity", short="Cosine to the original", style="fraction"),
    "inversion.rank1": Metric(title="rank 1", short="Person found first", style="percent"),
    "inversion.ssim": Metric(title="SSIM", short="SSIM", style="fraction"),
    "inversion.psnr": Metric(title="PSNR", short="PSNR, dB", style="plain"),
    "inversion.perceptual": Metric(
        title="perceptual distance", short="Perceptual distance", style="fraction", low_is_good=True
    ),
    "inversion.feature_similarity": Metric(
        title="feature similarity", short="Feature similarity, straight from the release", style="fraction"
    ),
    "inversion.lda": Metric(title="LDA score", short="LDA score", style="plain"),
    "utility.bits": Metric(title="bits", short="Bits of its codes", style="plain"),
    CERTIFICATE: Metric(title="balanced accuracy", short="Certified bound", style="percent"),
    "certificate.accuracy": Metric(title="accuracy", short="Certified bound on plain accuracy", style="percent"),
}
"""The figures that the report knows by name, in the order in which tables show them."""

# The figure that speaks for a use, best first: the first one measured is taken.
_PRIMARY_USES = (
    "verification.auc",
    "verification.accuracy",
    "verification.lfw10_accuracy",
    "utility.balanced_accuracy",
    "utility.auc",
    "utility.mcc",
)


def metric(code: str) -> Metric:
    """How figures of ``code`` are written; a code that is not known by name is shown as it is."""
    return METRICS.get(code, Metric(title=code, short=code, style="plain"))


def use_name(target: str) -> str:
    """A use in words that begin a sentence."""
    base, _, within = target.partition("|")
    words = "Face matching" if base == "identity" else f"Recognising {base}"
    return f"{words} ({within})" if within else words


def number(code: str, value: float | None) -> str:
    """``value`` in the style of ``code``: "61.2 %", ".914" or "23.4"; "not measured" for None."""
    if value is None:
        return "not measured"
    return _digits(code, value) + (f"{_NBSP}%" if metric(code).style == "percent" else "")


def certified(value: float) -> float:
    """What a certificate certifies, rounded up to a tenth of a per cent: less is not certified."""
    return math.ceil(1000 * value - 1e-9) / 1000


def interval(code: str, low: float | None, high: float | None) -> str:
    """Both ends in the style of ``code``, the unit written once; "" where an end is missing."""
    if low is None or high is None:
        return ""
    joint = " to " if min(low, high) < 0 else _EN_DASH  # a dash beside a minus sign reads badly
    return f"{_digits(code, low)}{joint}{number(code, high)}"


def share(value: float) -> str:
    """A level or a chance rate in per cent with no needless decimals: "95 %", "33.3 %"."""
    return f"{100 * value:.1f}".removesuffix(".0") + f"{_NBSP}%"


def _digits(code: str, value: float) -> str:
    style = metric(code).style
    if style == "percent":
        text = f"{100 * value:.1f}"
    elif style == "fraction":
        text = f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:.3f}"
    else:
        text = f"{value:.4g}"
    return text.replace("-", _MINUS)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One figure of an audit; the fields are those of ``findings.json``."""

    code: str
    release: str
    target: str
    attacker: str
    role: str
    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int | None
    chance: float | None
    worst: bool
    status: str
    note: str

    @property
    def ok(self) -> bool:
        """Whether there is a figure."""
        return self.status == "ok" and self.value is not None


@dataclass(frozen=True, kw_only=True)
class Release:
    """One audited release: its name, how it was made, and whether it is the input, a baseline or a method."""

    name: str
    method: str
    preset: str
    k: int | None
    seed: int | None
    role: str
    config: Mapping[str, object]
    note: str


@dataclass(frozen=True, kw_only=True)
class Label:
    """The classes of one label and, for each split, how many rows each class has."""

    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Data:
    """What was audited: the pack's layout, size, splits and labels, and the names declared private and of use."""

    layout: str
    kind: str
    shape: tuple[int, ...]
    n: int | None
    identities: int | None
    fingerprint: str
    splits: Mapping[str, Mapping[str, int]]
    labels: Mapping[str, Label]
    private: tuple[str, ...]
    utility: tuple[str, ...]
    skipped: int | None
    attack_on: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG beside ``findings.json``, with its words."""

    file: str
    title: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Curves:
    """A Parquet file of training losses beside ``findings.json``, and whose they are."""

    file: str
    release: str


@dataclass(frozen=True, kw_only=True)
class Map:
    """Releases of some people on a plane, (x, y) and the number of the person of each."""

    release: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    person: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A checked ``findings.json``."""

    veil: str
    seed: int | None
    created: str
    command: str
    data: Data
    releases: tuple[Release, ...]
    findings: tuple[Finding, ...]
    pictures: tuple[Picture, ...]
    curves: tuple[Curves, ...]
    maps: tuple[Map, ...]

    def select(
        self, *, role: str, release: str | None = None, target: str | None = None, code: str | None = None
    ) -> list[Finding]:
        """The findings of ``role``, narrowed by what is given, in their order."""
        return [
            f
            for f in self.findings
            if f.role == role
            and (release is None or f.release == release)
            and (target is None or f.target == target)
            and (code is None or f.code == code)
        ]

    @property
    def input(self) -> Release | None:
        """The unprotected input, where it was audited."""
        return next((r for r in self.releases if r.role == "input"), None)

    def attack(self, release: str, target: str, code: str = ATTACK) -> Finding | None:
        """The worst attack on ``target``: the attacker picked on validation data, else the strongest that is there."""
        return self._speaker(self.select(role="attack", release=release, target=target, code=code), release, target)

    def inversion(self, release: str) -> Finding | None:
        """What speaks for the worst attack by inversion on a release; None where none gave a figure."""
        found = (self.attack(release, "image", code) for code in INVERSION)
        return next((f for f in found if f is not None), None)

    def use(self, release: str, target: str, code: str | None = None) -> Finding | None:
        """The figure for a use by the matcher or probe picked on validation data; ``code`` None: the primary one."""
        code = code or self.primary_use(target)
        if code is None:
            return None
        return self._speaker(self.select(role="utility", release=release, target=target, code=code), release, target)

    def bound(self, release: str, target: str) -> Finding | None:
        """The certificate, whose value no attacker's balanced accuracy exceeds; None where there is none."""
        found = [f for f in self.select(role="bound", release=release, target=target, code=CERTIFICATE) if f.ok]
        return found[0] if found else None

    def primary_use(self, target: str) -> str | None:
        """The code of the figure that speaks for the use ``target``; None where nothing of it was measured."""
        there = {f.code for f in self.select(role="utility", target=target)}
        return next((code for code in _PRIMARY_USES if code in there), None)

    def _speaker(self, found: Sequence[Finding], release: str, target: str) -> Finding | None:
        usable = [f for f in found if f.ok]
        flagged = [f for f in usable if f.worst]
        if flagged:
            return flagged[0]
        # A figure of an attacker that was picked by another code belongs to that attacker.
        picked = {f.attacker for f in self.findings if f.worst and (f.release, f.target) == (release, target)}
        usable = [f for f in usable if f.attacker in picked] or usable
        if not usable:
            return None
        sign = -1 if metric(usable[0].code).low_is_good else 1
        return max(usable, key=lambda f: sign * (f.value or 0.0))


def read(out: Path) -> Document:
    """Read and check ``out/findings.json``.

    Raises InputError, in one line, for a missing or broken file, an unknown schema, and the first field that is
    missing or of the wrong type. Fields that are not known are passed over.
    """
    path = out / "findings.json"
    try:
        raw: object = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; an audit writes it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InputError(f"{path}: must be whole JSON, broken at {where} ({error.msg})") from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: must be JSON in UTF-8 ({' '.join(str(error).split())[:120]})") from None
    return _document(_Table(raw, "the top level", path))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


class _Table:
    """A JSON object under checking: each getter names file, place, rule and value when it refuses."""

    def __init__(self, raw: object, where: str, path: Path) -> None:
        self.where, self.path = where, path
        if not isinstance(raw, dict):
            self.refuse(where, "an object", raw)
        assert isinstance(raw, dict)
        self.raw = raw

    def refuse(self, where: str, rule: str, value: object) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise InputError(f"{self.path}: {where} must be {rule}, got {shown}")

    def place(self, key: str) -> str:
        return key if self.where == "the top level" else f"{self.where}.{key}"

    def _get(self, key: str, required: bool) -> object:
        if required and key not in self.raw:
            raise InputError(f"{self.path}: {self.place(key)} is missing")
        return self.raw.get(key)

    def text(self, key: str, *, required: bool = False, of: Sequence[str] = ()) -> str:
        value = self._get(key, required)
        if value is None and not required:
            return ""
        if not isinstance(value, str):
            self.refuse(self.place(key), "a text", value)
        elif of and value not in of:
            self.refuse(self.place(key), "one of " + ", ".join(of), value)
        return str(value)

    def real(self, key: str) -> float | None:
        value = self._get(key, False)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            self.refuse(self.place(key), "a finite number or null", value)
        assert isinstance(value, int | float)
        return float(value)

    def whole(self, key: str) -> int | None:
        value = self._get(key, False)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            self.refuse(self.place(key), "a whole number or null", value)
        return value if isinstance(value, int) else None

    def flag(self, key: str) -> bool:
        value = self._get(key, False)
        if not isinstance(value, bool | None):
            self.refuse(self.place(key), "true or false", value)
        return bool(value)

    def table(self, key: str, *, required: bool = False) -> _Table:
        value = self._get(key, required)
        return _Table({} if value is None and not required else value, self.place(key), self.path)

    def items(self, key: str, *, required: bool = False) -> list[object]:
        value = self._get(key, required)
        if value is None and not required:
            return []
        if not isinstance(value, list):
            self.refuse(self.place(key), "a list", value)
        assert isinstance(value, list)
        return value

    def tables(self, key: str, *, required: bool = False) -> list[_Table]:
        place = self.place(key)
        return [_Table(raw, f"{place}[{i}]", self.path) for i, raw in enumerate(self.items(key, required=required))]

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.items(key)
        if not all(isinstance(value, str) for value in values):
            self.refuse(self.place(key), "a list of texts", values)
        return tuple(str(value) for value in values)

    def reals(self, key: str) -> tuple[float, ...]:
        values = self.items(key)
        if any(isinstance(v, bool) or not isinstance(v, int | float) or not _finite(v) for v in values):
            self.refuse(self.place(key), "a list of finite numbers", values)
        return tuple(float(value) for value in values if isinstance(value, int | float))

    def wholes(self, key: str) -> tuple[int, ...]:
        values = self.items(key)
        if any(isinstance(value, bool) or not isinstance(value, int) for value in values):
            self.refuse(self.place(key), "a list of whole numbers", values)
        return tuple(value for value in values if isinstance(value, int))


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _document(top: _Table) -> Document:
    if "schema" not in top.raw:
        raise InputError(f"{top.path}: schema is missing")
    if top.whole("schema") != SCHEMA:
        raise InputError(f"{top.path}: schema must be {SCHEMA}, got {top.raw['schema']!r}; another Veil wrote it")
    releases = tuple(_release(table) for table in top.tables("releases", required=True))
    names = [release.name for release in releases]
    for i, name in enumerate(names):
        if name in names[:i]:
            top.refuse(f"releases[{i}].name", "unique", name)
    findings = tuple(_finding(table, names) for table in top.tables("findings", required=True))
    return Document(
        veil=top.text("veil"),
        seed=top.whole("seed"),
        created=top.text("created"),
        command=top.text("command"),
        data=_data(top.table("data", required=True), findings),
        releases=releases,
        findings=findings,
        pictures=tuple(
            Picture(file=t.text("file", required=True), title=t.text("title"), caption=t.text("caption"))
            for t in top.tables("pictures")
        ),
        curves=tuple(
            Curves(file=t.text("file", required=True), release=t.text("release", required=True))
            for t in top.tables("curves")
        ),
        maps=tuple(_map(table) for table in top.tables("maps")),
    )


def _map(table: _Table) -> Map:
    found = Map(
        release=table.text("release", required=True), x=table.reals("x"), y=table.reals("y"),
        person=table.wholes("person"),
    )  # fmt: skip
    if not len(found.x) == len(found.y) == len(found.person):
        rule = f"as many as x ({len(found.x)}) and y ({len(found.y)})"
        table.refuse(table.place("person"), rule, len(found.person))
    return found


def _release(table: _Table) -> Release:
    return Release(
        name=table.text("name", required=True),
        method=table.text("method"),
        preset=table.text("preset"),
        k=table.whole("k"),
        seed=table.whole("seed"),
        role=table.text("role", required=True, of=RELEASE_ROLES),
        config=table.table("config").raw,
        note=table.text("note"),
    )


def _finding(table: _Table, releases: Sequence[str]) -> Finding:
    role = table.text("role", required=True, of=FINDING_ROLES)
    status = table.text("status", required=True, of=STATUSES)
    # A control such as the majority class may belong to the data and to no release.
    release = table.text("release", required=role != "control")
    if release not in releases and (role != "control" or release):
        table.refuse(table.place("release"), "the name of a release in releases", release)
    value = table.real("value")
    if status == "ok" and value is None:
        table.refuse(table.place("value"), "a number where status is ok", value)
    level = table.real("level")
    return Finding(
        code=table.text("code", required=True),
        release=release,
        target=table.text("target", required=True),
        attacker=table.text("attacker"),
        role=role,
        value=value,
        low=table.real("low"),
        high=table.real("high"),
        level=0.95 if level is None else level,
        n=table.whole("n"),
        chance=table.real("chance"),
        worst=table.flag("worst"),
        status=status,
        note=table.text("note"),
    )


def _data(table: _Table, findings: Sequence[Finding]) -> Data:
    splits = table.table("splits")
    labels = table.table("labels")
    return Data(
        layout=table.text("layout"),
        kind=table.text("kind"),
        shape=table.wholes("shape"),
        n=table.whole("n"),
        identities=table.whole("identities"),
        fingerprint=table.text("fingerprint"),
        splits={name: _sizes(splits.table(name)) for name in splits.raw},
        labels={name: _label(labels.table(name)) for name in labels.raw},
        private=table.texts("private") if "private" in table.raw else _targets(findings, "attack", ("attribute.",)),
        utility=table.texts("utility") if "utility" in table.raw else _targets(findings, "utility", _PRIMARY_USES),
        skipped=table.whole("skipped"),
        attack_on=table.texts("attack_on"),
    )


def _sizes(table: _Table) -> dict[str, int]:
    found = {key: table.whole(key) for key in table.raw}
    return {key: value for key, value in found.items() if value is not None}


def _label(table: _Table) -> Label:
    classes, counts = table.texts("classes"), table.table("counts")
    return Label(classes=classes, counts={split: counts.wholes(split) for split in counts.raw})


def _targets(findings: Sequence[Finding], role: str, codes: tuple[str, ...]) -> tuple[str, ...]:
    """Where the file names no labels: those of findings of codes that begin so."""
    named = (f.target for f in findings if f.role == role and f.code.startswith(codes) and "|" not in f.target)
    return tuple(dict.fromkeys(named))
