"""The report: one self-contained page made from ``findings.json`` and the pictures and curves it names.

Here: the document as it is read and checked, the choice of the findings that speak for a release, and how figures are
named and written. ``plots`` draws, ``html`` lays out. Needs neither data nor models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from veil.audit import findings as files
from veil.audit.findings import Finding
from veil.errors import printable

ATTACK = "attribute.balanced_accuracy"
GAIN = "attribute.normalised_gain"
POOLED = "attribute.pooled_balanced_accuracy"
REPEATED = "attribute.repeated_balanced_accuracy"
SEEN = "training.seen"
"""The control that says how much of what a release is measured on it was fitted on."""
TRANSFER = "attribute.transfer_balanced_accuracy"
AREAS = {
    ATTACK: "attribute.auc",
    POOLED: "attribute.pooled_auc",
    REPEATED: "attribute.repeated_auc",
    TRANSFER: "attribute.transfer_auc",
    "utility.balanced_accuracy": "utility.auc",
}
"""What speaks for the picked attacker, or probe, whose decision has no figure, for it names one class for everybody."""
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
    "attribute.transfer_auc": Metric(title="AUC", short="Knows only originals, AUC", style="fraction"),
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
    SEEN: Metric(title="share", short="Seen in training", style="percent"),
    "utility.bits": Metric(title="bits", short="Bits of its codes", style="plain"),
    CERTIFICATE: Metric(title="balanced accuracy", short="Certified bound", style="percent"),
    "certificate.accuracy": Metric(title="accuracy", short="Certified bound on plain accuracy", style="percent"),
}
"""All kinds of figures, in the order in which tables show them."""

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
    """How figures of ``code`` are written."""
    return METRICS[code]


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
class Release:
    """One audited release: its name, how it was made, and whether it is the input, a baseline or a method.

    ``named`` says whether somebody asked for it; the audit adds controls of its own. ``data`` is the fingerprint of
    what it was fitted on; None where that is not known.
    """

    name: str
    role: str
    named: bool | None = None
    method: str = ""
    preset: str = ""
    k: int | None = None
    seed: int | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    data: str | None = None
    note: str = ""

    @property
    def judged(self) -> bool:
        """Whether the verdict is about it: what somebody asked for, or, where that is not said, what protects."""
        return self.role != "input" and (self.role == "method" if self.named is None else self.named)


@dataclass(frozen=True, kw_only=True)
class Label:
    """The classes of one label and, for each split, how many rows each class has."""

    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Data:
    """What was audited: the pack's layout, size, splits and labels, and the names declared private and of use."""

    layout: str = ""
    kind: str = ""
    shape: tuple[int, ...] = ()
    n: int | None = None
    identities: int | None = None
    fingerprint: str = ""
    splits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    labels: Mapping[str, Label] = field(default_factory=dict)
    private: tuple[str, ...] = ()
    utility: tuple[str, ...] = ()
    skipped: int | None = None
    notes: tuple[str, ...] = ()
    attack_on: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG beside ``findings.json``, with its words."""

    file: str
    title: str = ""
    caption: str = ""


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
            for f in (self.findings if release is None else self.of(release))
            if f.role == role and (target is None or f.target == target) and (code is None or f.code == code)
        ]

    def of(self, release: str) -> Sequence[Finding]:
        """The findings about a release, in their order."""
        return self._by_release.get(release, ())

    @cached_property
    def _by_release(self) -> Mapping[str, Sequence[Finding]]:
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.release, []).append(finding)
        return found

    @property
    def input(self) -> Release | None:
        """The unprotected input, where it was audited."""
        return next((r for r in self.releases if r.role == "input"), None)

    def attack(self, release: str, target: str, code: str = ATTACK) -> Finding | None:
        """The worst attack on ``target``: the attacker picked on validation data, else the strongest that is there.

        Where its decision has no figure, its AUC (:data:`AREAS`).
        """
        return self._speaker("attack", release, target, code)

    def inversion(self, release: str) -> Finding | None:
        """What speaks for the worst attack by inversion on a release; None where none gave a figure."""
        found = (self.attack(release, "image", code) for code in INVERSION)
        return next((f for f in found if f is not None), None)

    def use(self, release: str, target: str, code: str | None = None) -> Finding | None:
        """The figure for a use by the matcher or probe picked on validation data; ``code`` None: the primary one.

        Where its decision has no figure, its AUC (:data:`AREAS`).
        """
        code = code or self.primary_use(target)
        return None if code is None else self._speaker("utility", release, target, code)

    def bound(self, release: str, target: str) -> Finding | None:
        """The certificate, whose value no attacker's balanced accuracy exceeds; None where there is none."""
        found = [f for f in self.select(role="bound", release=release, target=target, code=CERTIFICATE) if f.ok]
        return found[0] if found else None

    def primary_use(self, target: str) -> str | None:
        """The code of the figure that speaks for the use ``target``; None where nothing of it was measured."""
        there = {f.code for f in self.select(role="utility", target=target)}
        return next((code for code in _PRIMARY_USES if code in there), None)

    def _speaker(self, role: str, release: str, target: str, code: str) -> Finding | None:
        found = self.select(role=role, release=release, target=target, code=code)
        flagged = [f for f in found if f.worst]
        if flagged and not flagged[0].ok:  # another's figure must not speak for it
            return self._speaker(role, release, target, AREAS[code]) if code in AREAS else None
        if flagged:
            return flagged[0]
        usable = [f for f in found if f.ok]
        # A figure of an attacker that was picked by another code belongs to that attacker.
        picked = {f.attacker for f in self.of(release) if f.worst and f.target == target}
        usable = [f for f in usable if f.attacker in picked] or usable
        if not usable:
            return None
        sign = -1 if metric(usable[0].code).low_is_good else 1
        return max(usable, key=lambda f: sign * (f.value or 0.0))


def read(out: Path) -> Document:
    """``out/findings.json`` as :func:`veil.audit.findings.read` gives it, which says what is wrong with it."""
    found = _shown(files.read(out))
    return Document(
        **{key: found[key] for key in ("veil", "seed", "created", "command")},
        data=_data(found["data"]),
        releases=tuple(Release(**entry) for entry in found["releases"]),
        findings=tuple(Finding(**entry) for entry in found["findings"]),
        pictures=tuple(Picture(**entry) for entry in found["pictures"]),
        curves=tuple(Curves(**entry) for entry in found["curves"]),
        maps=tuple(Map(**_tuples(entry)) for entry in found.get("maps", [])),
    )


def _shown(value: Any) -> Any:
    """A value of the file, its texts as they can be shown; but for names of files, which are read by them."""
    if isinstance(value, dict):
        return {printable(key): each if key == "file" else _shown(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shown(each) for each in value]
    return printable(value) if isinstance(value, str) else value


def _data(raw: Mapping[str, Any]) -> Data:
    splits = {
        name: {key: size for key, size in sizes.items() if size is not None}
        for name, sizes in raw.get("splits", {}).items()
    }
    labels = {
        name: Label(classes=tuple(label["classes"]), counts=_tuples(label["counts"]))
        for name, label in raw.get("labels", {}).items()
    }
    return Data(**_tuples(raw) | {"splits": splits, "labels": labels})


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An object of the file, its lists as tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
