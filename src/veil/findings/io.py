"""The file that findings are kept in: ``findings.json``, schema 1. All that reads the file reads it here."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from veil._version import __version__
from veil.data import about
from veil.errors import InputError, printable_json
from veil.files import written
from veil.findings.rates import KINDS
from veil.findings.schema import Finding
from veil.foreign import (
    ANYTHING,
    FLAG,
    LIST,
    OBJECT,
    REALS,
    SHA256,
    TEXT,
    TEXTS,
    WHOLE,
    WHOLES,
    Rule,
    among,
    check_fields,
    either,
    one_line,
    opened,
    read_json,
    real,
    shown,
)

SCHEMA = 1
NAME = "findings.json"
MOST_POINTS = 1000
"""Of a curve of rates."""
KEYS = (
    "schema", "veil", "seed", "created", "command", "made", "data", "releases", "findings", "pictures", "curves",
    "maps", "rates", "scores",
)  # fmt: skip
RELEASE_ROLES = ("input", "baseline", "method")


def document(
    *,
    seed: int,
    command: str,
    data: Mapping[str, Any],
    releases: Sequence[Mapping[str, Any]],
    findings: Sequence[Finding],
    pictures: Sequence[Mapping[str, Any]] = (),
    curves: Sequence[Mapping[str, Any]] = (),
    maps: Sequence[Mapping[str, Any]] = (),
    rates: Sequence[Mapping[str, Any]] = (),
    scores: Sequence[Mapping[str, Any]] = (),
    made: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document that :func:`write` takes, and checks: of this version of Veil and of today (UTC, ISO 8601).

    ``made`` says more of how it was made (:func:`how`).
    """
    return {
        "schema": SCHEMA,
        "veil": __version__,
        "seed": seed,
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": command,
        "made": dict(made or {}),
        "data": dict(data),
        "releases": [dict(release) for release in releases],
        "findings": [asdict(finding) for finding in findings],
        "pictures": [dict(picture) for picture in pictures],
        "curves": [dict(curve) for curve in curves],
        "maps": [dict(plane) for plane in maps],
        "rates": [dict(curve) for curve in rates],
        "scores": [dict(file) for file in scores],
    }


def how(*, effort: str, level: float, by: str = "") -> dict[str, Any]:
    """What ``made`` holds: the time, now (UTC), the effort, the intervals' level, who made it, and with what."""
    libraries = {name: version(name) for name in ("numpy", "scipy", "scikit-learn", "torch", "pyarrow", "pillow")}
    versions = {"python": platform.python_version(), **libraries}
    return {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "effort": effort,
        "level": level,
        "by": by,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
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
    **dict.fromkeys(("data", "made"), OBJECT),
    **dict.fromkeys(("releases", "findings", "pictures", "curves", "maps", "rates", "scores"), LIST),
}
_DATA: Mapping[str, Rule] = {
    **dict.fromkeys(("layout", "kind", "fingerprint"), TEXT),
    **dict.fromkeys(("n", "identities", "skipped"), either(WHOLE)),
    **dict.fromkeys(("private", "utility", "attack_on", "notes"), TEXTS),
    **dict.fromkeys(("splits", "labels", "about"), OBJECT),
    "shape": WHOLES,
}
_MADE: Mapping[str, Rule] = {
    **dict.fromkeys(("at", "effort", "by", "system"), TEXT), "level": real(0, 1), "versions": OBJECT,
}  # fmt: skip
_LABEL: Mapping[str, Rule] = {"classes": TEXTS, "counts": OBJECT, "predicted": OBJECT}
_PREDICTED: Mapping[str, Rule] = {"file": TEXT, "sha256": SHA256, "confidence": real(0, 1)}
_ENTRIES: Mapping[str, tuple[Mapping[str, Rule], Sequence[str]]] = {
    "releases": (
        {
            **dict.fromkeys(("name", "method", "preset", "note"), TEXT),
            **dict.fromkeys(("k", "seed"), either(WHOLE)),
            "role": among(*RELEASE_ROLES),
            "config": OBJECT,
            "data": either(TEXT),
            "named": FLAG,
            "fingerprint": TEXT,
        },
        ("name", "role"),
    ),
    "pictures": ({"file": TEXT, "title": TEXT, "caption": TEXT}, ("file",)),
    **dict.fromkeys(("curves", "scores"), ({"file": TEXT, "release": TEXT}, ("file", "release"))),
    "maps": ({"release": TEXT, "x": REALS, "y": REALS, "person": WHOLES}, ("release", "x", "y", "person")),
    "rates": (
        {"release": TEXT, "kind": among(*KINDS), "attacker": TEXT, "x": REALS, "y": REALS},
        ("release", "kind", "attacker", "x", "y"),
    ),
}
"""The fields of an entry of each list, and those that it needs; findings have the fields of :class:`Finding`, all."""


def _check(document: Any) -> None:
    """Raises ValueError, without a file's name, for the first thing in which a document is not one of this schema."""
    if not isinstance(document, dict) or "schema" not in document:
        raise ValueError("not a file of findings: schema is missing")
    if document["schema"] != SCHEMA or isinstance(document["schema"], bool):
        got = shown(document["schema"])
        raise ValueError(f"schema must be {SCHEMA}, got {got}; another version of Veil wrote it")
    check_fields(
        document, "", _DOCUMENT, [key for key in KEYS if key not in ("maps", "made", "rates", "scores")]
    )  # earlier: none
    check_fields(document.get("made", {}), "made", _MADE)
    versions = document.get("made", {}).get("versions", {})
    check_fields(versions, "made.versions", dict.fromkeys(versions, TEXT))
    check_fields(document["data"], "data", _DATA)
    try:
        about.check(document["data"].get("about", {}))
    except ValueError as error:
        raise ValueError(f"data.about: {error}") from None
    for split, sizes in document["data"].get("splits", {}).items():
        place = f"data.splits.{split}"
        check_fields(sizes, place, dict.fromkeys(sizes, either(WHOLE)) if isinstance(sizes, dict) else {})
    for name, label in document["data"].get("labels", {}).items():
        check_fields(label, f"data.labels.{name}", _LABEL, ["classes", "counts"])
        if "predicted" in label:
            check_fields(label["predicted"], f"data.labels.{name}.predicted", _PREDICTED, list(_PREDICTED))
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
    for key in ("findings", "curves", "maps", "rates", "scores"):
        for i, entry in enumerate(document.get(key, [])):
            if entry["release"] not in names:
                got = shown(entry["release"])
                raise ValueError(f"{key}[{i}].release must be the name of a release in releases, got {got}")
    for key in ("pictures", "curves", "scores"):
        files = [entry["file"] for entry in document.get(key, [])]
        if len(set(files)) < len(files):
            raise ValueError(f"{key}: each must be of a file of its own, got {len(files) - len(set(files))} again")
    for i, entry in enumerate(document.get("maps", [])):
        if not len(entry["x"]) == len(entry["y"]) == len(entry["person"]):
            rule = f"as many as x ({len(entry['x'])}) and y ({len(entry['y'])})"
            raise ValueError(f"maps[{i}].person must be {rule}, got {len(entry['person'])}")
    for i, entry in enumerate(document.get("rates", [])):
        for key in ("x", "y"):
            most = 1.0 if key == "y" or entry["kind"] == "det" else math.inf
            if wrong := [value for value in entry[key] if not 0 <= value <= most]:
                raise ValueError(f"rates[{i}].{key} must lie in 0..{most:g}, got {shown(wrong[0])}")
        if len(entry["x"]) != len(entry["y"]):
            raise ValueError(f"rates[{i}].y must be as many as x ({len(entry['x'])}), got {len(entry['y'])}")
        if len(entry["x"]) > MOST_POINTS:
            raise ValueError(f"rates[{i}].x must be at most {MOST_POINTS} points, got {len(entry['x']):,}")


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


def fingerprint(out: Path) -> str:
    """The SHA-256 of ``out/findings.json``, by which an audit is told from any other; raises InputError for none."""
    try:
        with opened(Path(out) / NAME) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{Path(out) / NAME}: cannot be read ({error.strerror})") from None


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
        document = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no findings here; `veil audit` writes them") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        _check(document)
    except ValueError as error:
        raise InputError(f"{path}: {one_line(error, 400)}") from None
    assert isinstance(document, dict)
    return document
