"""Outcomes of tasks on disk, by their keys: what an audit that was killed, or one of fewer releases, has done already.

A folder holds ``KEY.json`` for each task, and ``KEY.npy`` where it drew a picture. A file that is damaged, or of a
finding that would mislead, counts as missing: its task is done again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from veil.auditing.task import Outcome
from veil.data.classes import nameless
from veil.errors import printable_json
from veil.files import sweep_folder, written
from veil.findings import Finding
from veil.findings.contributions import Contribution
from veil.findings.rates import Rates
from veil.foreign import is_finite, read_bytes, read_json

_MOST = 1 << 24  # bytes of a picture


class Outcomes:
    """A folder of outcomes; of none, nothing is kept.

    Args:
        folder: Where they are; made where need be.
        names: Whether notes keep names of rows and files. Outcomes with and without do not stand for each other.
        fresh: Whether those that are there are passed over.
    """

    def __init__(self, folder: Path | None = None, *, names: bool = False, fresh: bool = False) -> None:
        self._folder, self._names, self._fresh = folder, names, fresh

    def get(self, key: str) -> Outcome | None:
        """The outcome of a task that was done before; None where there is none."""
        if self._folder is None or not key or self._fresh:
            return None
        outcome = None
        with suppress(OSError, ValueError, KeyError, TypeError):
            outcome = self._read(self._path(key))
        return outcome

    def put(self, key: str, outcome: Outcome) -> None:
        """Keep an outcome. Nobody's failure is kept: it may not happen again; nor are scores, which are many."""
        if (
            self._folder is None
            or not key
            or outcome.scores is not None
            or any(f.status == "did_not_converge" for f in outcome.findings)
        ):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        findings = [asdict(f if self._names else replace(f, note=nameless(f.note))) for f in outcome.findings]
        path, picture = self._path(key), None
        if outcome.picture is not None:
            content = io.BytesIO()
            np.save(content, outcome.picture)
            picture = hashlib.sha256(content.getvalue()).hexdigest()
            with written(path.with_suffix(".npy")) as file:
                file.write(content.getvalue())
        body: dict[str, Any] = {"quality": outcome.quality, "findings": findings, "picture": picture}
        body["contributions"] = [
            {**vars(each), "people": base64.b64encode(each.people.astype("<f4").tobytes()).decode()}
            for each in outcome.contributions
        ]
        body["rates"] = [vars(each) for each in outcome.rates]
        text = printable_json(json.dumps({**body, "digest": _digest(body)}, ensure_ascii=False))
        with written(path) as file:
            file.write(text.encode())

    def keep(self, keys: Sequence[str]) -> None:
        """Remove the outcomes of all other tasks; the folder, too, where it is empty then."""
        if self._folder is None or not self._folder.is_dir():
            return
        sweep_folder(self._folder)
        kept = {self._path(key).stem for key in keys}
        for path in self._folder.iterdir():
            if _OWN.fullmatch(path.name) and path.stem not in kept and path.is_file():
                path.unlink(missing_ok=True)
        with suppress(OSError):  # some are left
            self._folder.rmdir()

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}{'-names' * self._names}.json"

    def _read(self, path: Path) -> Outcome:
        body = read_json(path)
        if not isinstance(body, dict) or body.pop("digest") != _digest(body) or not is_finite(body["quality"]):
            raise ValueError("damaged")
        picture = None
        if body["picture"] is not None:
            content = read_bytes(path.with_suffix(".npy"), _MOST)
            if hashlib.sha256(content).hexdigest() != body["picture"]:
                raise ValueError("another picture")
            picture = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
            if picture.dtype != np.uint8:
                raise ValueError("no picture")
        return Outcome(
            findings=tuple(Finding(**f) for f in body["findings"]),
            quality=float(body["quality"]),
            picture=picture,
            contributions=tuple(
                Contribution(**{**each, "people": np.frombuffer(base64.b64decode(each["people"]), "<f4")})
                for each in body["contributions"]
            ),
            rates=tuple(Rates(**each) for each in body["rates"]),
        )


_OWN = re.compile(r"[0-9a-f]{32}(-names)?\.(json|npy)")
"""Names of what is kept here; other files are somebody's."""


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
