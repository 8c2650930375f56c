"""A task: the smallest piece of an audit that is done, kept and done again by itself."""

from __future__ import annotations

import hashlib
import json
import marshal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.auditing.problem import failure
from veil.findings import Finding
from veil.findings.contributions import Contribution
from veil.findings.rates import Rates


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a task gives.

    Attributes:
        findings: Of one release, or of several.
        quality: How well an attacker did on validation data, by which the worst of a contest is chosen; below 0 where
            it failed.
        picture: uint8 ``(n, H, W[, 3])``, what a decoder redraws; None of other tasks.
        contributions: What persons contribute to some of the findings.
        rates: Curves of a comparator.
        scores: float64 ``(P, 4)``, for each pair whether it is mated, its score and the numbers of its two persons,
            which are drawn; None where nobody asked.
    """

    findings: tuple[Finding, ...]
    quality: float = -1.0
    picture: NDArray[np.uint8] | None = None
    contributions: tuple[Contribution, ...] = ()
    rates: tuple[Rates, ...] = ()
    scores: NDArray[np.float64] | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Status and note of what broke off; it comes back from a worker process in place of an outcome."""

    status: str
    note: str

    @staticmethod
    def of(error: Exception) -> Failure:
        status, note = failure(error)
        return Failure(status=status, note=note)


class Missing(Exception):
    """Raised where a task turns out to have nothing to do; its status and note become a finding."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.note)
        self.failure = failure


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to do, here or in a worker process.

    Attributes:
        name: What progress calls it.
        key: Hash of all that its outcome depends on (:func:`key`); "" for an outcome that is not worth keeping.
        prepare: Gives the call that a worker process gets: a ``functools.partial`` of a function of a module. It is
            called here, and alone may read releases.
        missing: From status and note to the findings that stand in the outcome's place where the task breaks off.
        releases: Names of the releases that it needs.
        contest: Release, label and kind of a contest, whose best attacker on validation data is marked; () of others.
        first: Whether it takes long: no process should be left with it at the end.
    """

    name: str
    key: str
    prepare: Callable[[], Callable[[], Outcome]]
    missing: Callable[[str, str], list[Finding]]
    releases: tuple[str, ...]
    contest: tuple[str, ...] = ()
    first: bool = False


def key(*parts: Any) -> str:
    """A hash of plain values, by which an outcome is found again."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def signature(function: Callable[..., Any]) -> str:
    """Tells functions of one name apart, for keys: where it is defined, and, of a user's own, what it does.

    Veil's own follow its version, which every key holds.
    """
    if own := getattr(function, "fingerprint", ""):
        return f"{type(function).__qualname__} {own}"
    if isinstance(function, partial):
        return f"{signature(function.func)} {function.args!r} {sorted(function.keywords.items())!r}"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    module = getattr(function, "__module__", "") or ""
    code = getattr(function, "__code__", None)
    if code is None or module.partition(".")[0] == "veil":
        return f"{module}:{name}"
    return f"{module}:{name} {hashlib.sha256(marshal.dumps(code)).hexdigest()}"


def signatures(functions: Mapping[str, Callable[..., Any]]) -> list[list[str]]:
    """Names, in order, and what tells their functions apart."""
    return [[name, signature(function)] for name, function in functions.items()]


def rows_of(*arrays: NDArray[Any] | None) -> str:
    """A hash of what says which rows, or pairs, a figure is of, and of whom."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def contribution(finding: Finding, rows: str, people: NDArray[Any] | None) -> Contribution | None:
    """What persons contribute ``(U,)`` to a finding on those rows; None where there is no figure."""
    if people is None or not finding.ok:
        return None
    return Contribution(
        release=finding.release, target=finding.target, code=finding.code, attacker=finding.attacker, rows=rows,
        people=np.asarray(people, np.float32),
    )  # fmt: skip


def given(findings: list[Finding], name: str = "") -> Task:
    """A task whose findings are known, for they cost nothing or cannot be had."""

    def known() -> Outcome:
        return Outcome(findings=tuple(findings))

    return Task(name=name, key="", prepare=lambda: known, missing=lambda status, note: [], releases=())


def marked(outcomes: list[Outcome]) -> list[Outcome]:
    """A contest's outcomes, the findings of the best on validation data marked as the worst (ties: the first).

    One whose decision has no figure may be the best: its AUC then speaks for it.
    """
    best = max((o for o in outcomes if any(f.ok for f in o.findings)), key=lambda o: o.quality, default=None)
    return [replace(o, findings=tuple(replace(f, worst=o is best) for f in o.findings)) for o in outcomes]
