"""Findings, and the file they are kept in: ``findings.json``, schema 1. All that reads the file reads it here.

A finding is one figure about one release: what was attacked or used, by whom, how well that went, with chance, the
number of samples and an interval. "Not applicable" and "did not converge" are findings too. Nothing heavy is imported.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from veil.errors import InputError, printable_json
from veil.files import written
from veil.foreign import (
    ANYTHING,
    FLAG,
    LIST,
    OBJECT,
    REALS,
    TEXT,
    TEXTS,
    WHOLE,
    WHOLES,
    Rule,
    among,
    check_fields,
    either,
    is_finite,
    is_number,
    is_whole,
    one_line,
    read_json,
    shown,
)

SCHEMA = 1
NAME = "findings.json"
KEYS = ("schema", "veil", "seed", "created", "command", "data", "releases", "findings", "pictures", "curves", "maps")
ROLES = ("attack", "utility", "control", "bound")
RELEASE_ROLES = ("input", "baseline", "method")
STATUSES = ("ok", "not_applicable", "did_not_converge")
CODES = {
    "attribute.balanced_accuracy": "Balanced accuracy of an attribute attacker",
    "attribute.auc": "AUC of an attribute attacker",
    "attribute.normalised_gain": "Share of the unprotected attack's gain over chance that is left",
    "attribute.transfer_balanced_accuracy": "Balanced accuracy of a classifier that knows originals alone",
    "attribute.transfer_auc": "AUC of a classifier that knows originals alone",
    "attribute.pooled_balanced_accuracy": "Balanced accuracy of an attack on means of releases of one person",
    "attribute.pooled_auc": "AUC of an attack on means of releases of one person",
    "attribute.repeated_balanced_accuracy": "Balanced accuracy of an attack on means over near-duplicates of one input",
    "attribute.repeated_auc": "AUC of an attack on means over near-duplicates of one input",
    "verification.auc": "Verification: area under the ROC curve",
    "verification.eer": "Verification: equal error rate",
    "verification.tar_at_far_0.01": "Verification: true-accept rate at a false-accept rate of 1 %",
    "verification.tar_at_far_0.001": "Verification: true-accept rate at a false-accept rate of 0.1 %",
    "verification.accuracy": "Verification: mean of true-accept and true-reject rate at a calibrated threshold",
    "verification.lfw10_accuracy": "Verification: accuracy over the ten folds of the LFW protocol",
    "verification.transfer_auc": "Verification of releases by a matcher that knows originals alone: AUC",
    "verification.mixed_auc": "Verification of a release against originals, by that matcher: AUC",
    "utility.ssim": "Structural similarity of releases and their originals",
    "utility.psnr": "Peak signal-to-noise ratio of releases to their originals, in dB",
    "utility.balanced_accuracy": "Balanced accuracy of a utility probe",
    "utility.mcc": "Matthews' correlation of a utility probe",
    "utility.mean_mcc": "Matthews' correlation of the utility probes, mean over the labels",
    "utility.auc": "AUC of a utility probe",
    "utility.bits": "Bits that a release of finitely many values says at all: the entropy of its codes",
    "training.seen": "Share of the rows that the release was fitted on, or on their people",
    "certificate.balanced_accuracy": "Certified bound on every attacker's balanced accuracy",
    "certificate.accuracy": "Certified bound on every attacker's plain accuracy",
    "linkability.auc": "Telling a release's own original from another person's: AUC",
    "linkability.rank1": "Share of releases whose own original is found first among all",
    "inversion.ssim": "Inversion: structural similarity of the original and what a decoder redraws",
    "inversion.psnr": "Inversion: peak signal-to-noise ratio of what a decoder redraws, in dB",
    "inversion.perceptual": "Inversion: perceptual distance of the original and what a decoder redraws",
    "inversion.face_similarity": "Inversion: cosine of a matcher's features of the original and what is redrawn",
    "inversion.similarity": "Inversion: cosine of the original vector and what a decoder makes of its release",
    "inversion.rank1": "Inversion: share of redrawn images whose person is found first among other images",
    "inversion.feature_similarity": "Inversion: cosine of the matcher's features and what is mapped from a release",
    "inversion.lda": "Scatter of releases between people relative to that within a person's",
    "identification.rank1_originals": "Share of releases whose person is found first among originals",
    "identification.rank1_releases": "Share of releases whose person is found first among releases",
}
"""All codes, and what they say to a reader."""

NO_BETTER = "not clearly better than without a release"
"""How the note begins of what was redrawn by somebody who may as well have seen no release."""

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One figure of an audit. Raises ValueError, naming the field, for a combination that would mislead a reader.

    ``value``, ``low``, ``high`` and ``chance`` are finite where ``status`` is ``"ok"``; elsewhere they may be None, and
    NaN becomes None.

    Attributes:
        code: What was measured: one of :data:`CODES`.
        release: The name of the release.
        target: The label that was attacked or used; ``"identity"``, ``"identity|same gender"`` for verification.
        attacker: The attacker, matcher, probe or control.
        role: ``"attack"``, ``"utility"``, ``"control"`` or ``"bound"``.
        value: The figure.
        low: Lower limit of its interval.
        high: Upper limit of its interval.
        level: Coverage of the interval, both sides together.
        n: Number of samples or pairs behind the figure.
        chance: What the figure would be without any knowledge.
        worst: True on the attacker (for utility: the matcher or probe) picked on validation data.
        status: ``"ok"``, ``"not_applicable"`` or ``"did_not_converge"``.
        note: Anything the reader must know; required where the status is not ``"ok"``.
    """

    code: str
    release: str
    target: str
    attacker: str
    role: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    n: int
    chance: float | None = None
    worst: bool = False
    status: str = "ok"
    note: str = ""

    def __post_init__(self) -> None:
        what = f"finding {self.code!r} of {self.attacker!r} on {self.release!r}"
        for name in ("code", "release", "target", "attacker", "role", "status", "note"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{what}: {name} must be a text, got {shown(getattr(self, name))}")
        for name, known in (("code", tuple(CODES)), ("role", ROLES), ("status", STATUSES)):
            if getattr(self, name) not in known:
                rule = "a code of a figure that is known" if name == "code" else f"one of {', '.join(known)}"
                raise ValueError(f"{what}: {name} must be {rule}, got {shown(getattr(self, name))}")
        if self.status != "ok" and not self.note:
            raise ValueError(f"{what}: note must say why the status is {self.status!r}, got ''")
        if not isinstance(self.worst, bool | np.bool_):
            raise ValueError(f"{what}: worst must be true or false, got {shown(self.worst)}")
        object.__setattr__(self, "worst", bool(self.worst))
        if not is_whole(self.n, 0):
            raise ValueError(f"{what}: n must be a whole number of at least 0, got {shown(self.n)}")
        object.__setattr__(self, "n", int(self.n))
        if not (is_number(self.level) and 0 < self.level < 1):
            raise ValueError(f"{what}: level must lie between 0 and 1, got {shown(self.level)}")
        object.__setattr__(self, "level", float(self.level))
        for name in ("value", "low", "high", "chance"):
            object.__setattr__(self, name, self._number(what, name))
        if self.value is None and (self.low is not None or self.high is not None):
            raise ValueError(f"{what}: value must be a number where there is an interval, got None")
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if self.value is not None and low is not None and high is not None:
            slack = _ROUNDING * max(1.0, abs(self.value))
            if not low - slack <= self.value <= high + slack:
                raise ValueError(f"{what}: value must lie within its interval {low}..{high}, got {self.value}")

    @property
    def ok(self) -> bool:
        """Whether there is a figure."""
        return self.status == "ok"

    def figures(self) -> tuple[float, float, float, float]:
        """Value, low, high and chance; ValueError where the status is not ``"ok"``."""
        if self.value is None or self.low is None or self.high is None or self.chance is None:
            raise ValueError(f"finding {self.code!r} of {self.attacker!r} on {self.release!r} has no figure")
        return self.value, self.low, self.high, self.chance

    def _number(self, what: str, name: str) -> float | None:
        given = getattr(self, name)
        if given is not None and not is_number(given):
            raise ValueError(f"{what}: {name} must be a number, got {shown(given)}")
        if given is not None and is_finite(given):
            return float(given)
        if self.status == "ok":
            raise ValueError(f"{what}: {name} must be finite where the status is 'ok', got {shown(given)}")
        return None


def normalised_gain(attack: Finding, reference: Finding) -> Finding:
    """What is left of an attack: (attack - chance) / (attack on the unprotected input - chance).

    0 is chance, 1 as good as without protection. The interval is the attack's, carried through with the reference's
    value held fixed. Not applicable where the attack has no figure, or the reference's interval reaches down to chance:
    there was nothing to hide that the attackers could find, and the quotient would be noise.

    Raises ValueError unless both are figures of the same ``attribute.`` code, target and chance.
    """
    if attack.code != reference.code or attack.code not in ("attribute.balanced_accuracy", "attribute.auc"):
        raise ValueError(f"normalised gain needs two attribute figures of one code: {attack.code}, {reference.code}")
    if attack.target != reference.target:
        raise ValueError(f"normalised gain needs one target, got {attack.target!r} and {reference.target!r}")

    def finding(**changes: Any) -> Finding:
        return Finding(
            code="attribute.normalised_gain", release=attack.release, target=attack.target, attacker=attack.attacker,
            role=attack.role, level=attack.level, n=attack.n, chance=0.0, worst=attack.worst, **changes,
        )  # fmt: skip

    for which, figure in (("the attack", attack), ("the attack on the unprotected input", reference)):
        if figure.status != "ok":
            return finding(status="not_applicable", note=f"{which} has no figure ({figure.status}: {figure.note})")
    value, low, high, chance = attack.figures()
    unprotected, unprotected_low, _, unprotected_chance = reference.figures()
    if not math.isclose(chance, unprotected_chance, abs_tol=_ROUNDING):
        raise ValueError(f"normalised gain needs one chance, got {chance} and {unprotected_chance}")
    if unprotected_low <= chance:
        why = f"the attack on the unprotected input ({unprotected:.3f}) is not clearly above chance ({chance:.3f})"
        return finding(status="not_applicable", note=why)
    gain = unprotected - chance
    return finding(
        value=(value - chance) / gain,
        low=(low - chance) / gain,
        high=(high - chance) / gain,
        note=f"of {attack.code}, relative to {reference.attacker} on the unprotected input at {unprotected:.3f}, "
        "held fixed in the interval",
    )


def document(
    *,
    version: str,
    seed: int,
    command: str,
    data: Mapping[str, Any],
    releases: Sequence[Mapping[str, Any]],
    findings: Sequence[Finding],
    pictures: Sequence[Mapping[str, Any]] = (),
    curves: Sequence[Mapping[str, Any]] = (),
    maps: Sequence[Mapping[str, Any]] = (),
    created: str | None = None,
) -> dict[str, Any]:
    """The document that :func:`write` takes, and checks; ``created`` is today's date (UTC, ISO 8601) by default."""
    return {
        "schema": SCHEMA,
        "veil": version,
        "seed": seed,
        "created": created or datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": command,
        "data": dict(data),
        "releases": [dict(release) for release in releases],
        "findings": [asdict(finding) for finding in findings],
        "pictures": [dict(picture) for picture in pictures],
        "curves": [dict(curve) for curve in curves],
        "maps": [dict(one) for one in maps],
    }


def _plain(x: Any) -> Any:
    """The same in JSON's own types; numbers that are not finite become None."""
    if isinstance(x, Mapping):
        return {str(key): _plain(value) for key, value in x.items()}
    if isinstance(x, np.ndarray):
        return _plain(x.tolist())
    if isinstance(x, list | tuple):
        return [_plain(value) for value in x]
    if isinstance(x, np.generic):
        return _plain(x.item())
    if isinstance(x, float) and not math.isfinite(x):
        return None
    if isinstance(x, Path):
        return x.as_posix()
    return x


# -- the rules of the file --------------------------------------------------------------------------------------------

_DOCUMENT: Mapping[str, Rule] = {
    **dict.fromkeys(("schema", "seed"), either(WHOLE)),
    **dict.fromkeys(("veil", "created", "command"), TEXT),
    "data": OBJECT,
    **dict.fromkeys(("releases", "findings", "pictures", "curves", "maps"), LIST),
}
_DATA: Mapping[str, Rule] = {
    **dict.fromkeys(("layout", "kind", "fingerprint"), TEXT),
    **dict.fromkeys(("n", "identities", "skipped"), either(WHOLE)),
    **dict.fromkeys(("private", "utility", "attack_on", "notes"), TEXTS),
    **dict.fromkeys(("splits", "labels"), OBJECT),
    "shape": WHOLES,
}
_LABEL: Mapping[str, Rule] = {"classes": TEXTS, "counts": OBJECT}
_ENTRIES: Mapping[str, tuple[Mapping[str, Rule], Sequence[str]]] = {
    "releases": (
        {
            **dict.fromkeys(("name", "method", "preset", "note"), TEXT),
            **dict.fromkeys(("k", "seed"), either(WHOLE)),
            "role": among(*RELEASE_ROLES),
            "config": OBJECT,
            "data": either(TEXT),
            "named": FLAG,
        },
        ("name", "role"),
    ),
    "pictures": ({"file": TEXT, "title": TEXT, "caption": TEXT}, ("file",)),
    "curves": ({"file": TEXT, "release": TEXT}, ("file", "release")),
    "maps": ({"release": TEXT, "x": REALS, "y": REALS, "person": WHOLES}, ("release", "x", "y", "person")),
}
"""The fields of an entry of each list, and those that it needs; findings have the fields of :class:`Finding`, all."""


def _check(document: Any) -> None:
    """Raises ValueError, without a file's name, for the first thing in which a document is not one of this schema."""
    if not isinstance(document, dict) or "schema" not in document:
        raise ValueError("not a file of findings: schema is missing")
    if document["schema"] != SCHEMA or isinstance(document["schema"], bool):
        got = shown(document["schema"])
        raise ValueError(f"schema must be {SCHEMA}, got {got}; another version of Veil wrote it")
    check_fields(document, "", _DOCUMENT, [key for key in KEYS if key != "maps"])  # earlier versions had none
    check_fields(document["data"], "data", _DATA)
    for split, sizes in document["data"].get("splits", {}).items():
        place = f"data.splits.{split}"
        check_fields(sizes, place, dict.fromkeys(sizes, either(WHOLE)) if isinstance(sizes, dict) else {})
    for name, label in document["data"].get("labels", {}).items():
        check_fields(label, f"data.labels.{name}", _LABEL, list(_LABEL))
        check_fields(label["counts"], f"data.labels.{name}.counts", dict.fromkeys(label["counts"], WHOLES))
    for key, (rules, needed) in _ENTRIES.items():
        for i, entry in enumerate(document.get(key, [])):
            check_fields(entry, f"{key}[{i}]", rules, needed)
    names: list[str] = []
    for i, release in enumerate(document["releases"]):
        if release["name"] in names:
            raise ValueError(f"releases[{i}].name must be unique, got {shown(release['name'])}")
        names.append(release["name"])
    own = {field.name for field in fields(Finding)}
    for i, entry in enumerate(document["findings"]):
        check_fields(entry, f"findings[{i}]", dict.fromkeys(own, ANYTHING), [f.name for f in fields(Finding)])
        try:
            Finding(**entry)
        except ValueError as error:
            raise ValueError(f"findings[{i}]: {error}") from None
    for key in ("findings", "curves", "maps"):
        for i, entry in enumerate(document.get(key, [])):
            if entry["release"] not in names:
                got = shown(entry["release"])
                raise ValueError(f"{key}[{i}].release must be the name of a release in releases, got {got}")
    for key in ("pictures", "curves"):
        named = [entry["file"] for entry in document[key]]
        if len(set(named)) < len(named):
            raise ValueError(f"{key}: each must be of a file of its own, got {len(named) - len(set(named))} again")
    for i, entry in enumerate(document.get("maps", [])):
        if not len(entry["x"]) == len(entry["y"]) == len(entry["person"]):
            rule = f"as many as x ({len(entry['x'])}) and y ({len(entry['y'])})"
            raise ValueError(f"maps[{i}].person must be {rule}, got {len(entry['person'])}")


def write(out: Path, document: Mapping[str, Any]) -> Path:
    """Writes ``out/findings.json`` whole or not at all, and returns its path; makes the folder where need be.

    Keys keep a fixed order; numbers that are not finite become null. Raises ValueError for what :func:`read` would
    refuse.
    """
    plain = _plain({key: document[key] for key in KEYS if key in document})
    _check(plain)
    order = [field.name for field in fields(Finding)]
    plain["findings"] = [{name: entry[name] for name in order} for entry in plain["findings"]]
    text = printable_json(json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / NAME
    with written(path) as file:
        file.write(text.encode())
    return path


def read(out: Path) -> dict[str, Any]:
    """The document in ``out/findings.json``, checked.

    Every object has the fields that docs/audit.md lists and no others, each of its type; findings are such as
    :class:`Finding` takes, of releases that are listed.

    Raises:
        InputError: In one line, for a file that is missing, cut short, foreign or of another schema, and for the first
            field that breaks a rule, with the place of its finding.
    """
    path = Path(out) / NAME
    try:
        found = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no findings here; `veil audit` writes them") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        _check(found)
    except ValueError as error:
        raise InputError(f"{path}: {one_line(error, 400)}") from None
    assert isinstance(found, dict)
    return found
