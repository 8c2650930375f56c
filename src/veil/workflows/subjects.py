"""What is audited: releases, and vectors that somebody else made; and what attackers see of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from veil.auditing import leakage, transfer
from veil.auditing.exhibit import Arrays, Exhibit
from veil.auditing.leakage import Overlap
from veil.auditing.repeats import Repeats, released_means
from veil.auditing.setting import Setting
from veil.auditing.task import Failure
from veil.data.pack import Pack, flat
from veil.errors import InputError, checked_path
from veil.methods import METHODS
from veil.methods.fitting import Curves
from veil.release import Release
from veil.release.beside import KEY_BYTES, renewed_key
from veil.workflows.fit import fit

INPUT = "Input"
"""What findings call the unprotected input."""

KEYLESS = "it has no key: whoever uses it gets the same releases of a person"

Role = Literal["baseline", "method"]

LEAVE_OUT = "; --baseline none leaves it out"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A release to audit, and what the report says of it; or vectors.

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

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"subject: its name must be a text, not empty, got {self.name!r}")
        if (self.release is None) == (self.vectors is None):
            raise InputError(f"{self.name}: needs a release or vectors, and not both")
        if self.release is not None and not isinstance(self.release, Release):
            raise InputError(f"{self.name}: needs a veil.Release, got {type(self.release).__name__}; see Subject.of")
        if self.vectors is not None:
            array = np.asarray(self.vectors)
            if array.dtype.kind not in "fiu" or array.ndim != 2:
                raise InputError(f"{self.name}: vectors must be numbers (N, k), got {array.dtype} {array.shape}")
            object.__setattr__(self, "vectors", array)
        if self.role not in (None, *get_args(Role)):
            raise InputError(f"{self.name}: role must be one of {', '.join(get_args(Role))}, got {self.role!r}")
        if not isinstance(self.note, str) or not isinstance(self.named, bool):
            raise InputError(f"{self.name}: note must be a text and named a boolean, got {self.note!r}, {self.named!r}")

    @staticmethod
    def of(release: Release | str | Path, *, name: str = "", **about: Any) -> Subject:
        """A release, or the one in a folder, as a subject.

        Args:
            release: The release, or its folder.
            name: What findings call it; that of its folder, or of its method, if "".
            **about: Further attributes.
        """
        if isinstance(release, Release):
            return Subject(name=name or release.method, release=release, **about)
        folder = checked_path("release", release)
        return Subject(name=name or folder.name, release=Release.load(folder), **about)

    @property
    def preset(self) -> str:
        return "" if self.release is None else str(self.release.made.get("preset", ""))

    @property
    def stands_for(self) -> Role:
        """``role``, or what the release's method calls this preset; vectors from outside are taken for a method."""
        if self.role is not None:
            return self.role
        if self.release is None or self.release.method not in METHODS:
            return "method"
        return METHODS[self.release.method].role(self.preset)

    def may_pass_for(self, originals: NDArray[Any]) -> bool:
        """Whether its releases will be images, of any number of values, that could pass for originals."""
        if self.release is None or self.release.contract.support:
            return False
        return transfer.pass_for(self.release.contract.empty(0), originals)

    def overlap(self, pack: Pack, private: Sequence[str], attack_on: Sequence[str]) -> Overlap:
        """What of a pack's splits its release was fitted on."""
        if self.release is None:
            return Overlap(rows=None, note=leakage.OUTSIDE)
        return leakage.overlap(self.release.made, self.release.fitted, pack, private=private, attack_on=attack_on)

    def exhibit(self, setting: Setting, seen: NDArray[np.bool_] | None, path: Path, hint: str = "") -> Exhibit:
        """What attackers see of it.

        Args:
            setting: The pack, and what is asked.
            seen: Rows that its protector has seen.
            path: File for its releases, which worker processes share.
            hint: What ends the message of an error in releasing.

        Raises:
            InputError: Where vectors are not as many as the pack's rows.
        """
        if self.release is None:
            assert self.vectors is not None
            if len(self.vectors) != len(setting.pack):
                raise InputError(
                    f"{self.name}: needs one vector for each of the pack's {len(setting.pack)} rows, got "
                    f"{len(self.vectors)}"
                )
            x = np.ascontiguousarray(self.vectors, dtype=np.float32)
            why = "near-duplicates are released by who has the release, and here are its vectors alone"
            other = "releases under another key are made by who has the release, and here are its vectors alone"
            return Exhibit.of(
                self.name, x, self.stands_for, seen=seen, near_duplicates=why, rekeyed=other, fitted_on=leakage.OUTSIDE
            )
        contract = self.release.contract
        near_duplicates: Any = "it draws nothing, so there is nothing that the mean over near-duplicates averages out"
        if contract.draws:
            near_duplicates = partial(_repeats, self.release, setting)
        return Exhibit(
            name=self.name,
            role=self.stands_for,
            make=partial(_arrays, self.name, self.release, setting.pack, path, hint),
            shape=contract.empty(0).shape[1:],
            finite=bool(contract.support),
            fingerprint=self.release.fingerprint,
            feature_map=None if contract.renew else contract.feature_map,
            seen=seen,
            near_duplicates=near_duplicates,
            fitted_on=leakage.members(self.release.made, self.release.fitted, setting.pack) if self.named else None,
            rekeyed=partial(_rekeyed, self.release, setting) if contract.keyed else KEYLESS,
        )


def _arrays(name: str, release: Release, pack: Pack, path: Path, hint: str) -> Arrays:
    """Releases of a whole pack, in a memory-mapped file that worker processes share."""
    try:
        codes = release.codes(pack.x) if release.contract.support else None
        room = release.contract.empty(0)
        x = np.lib.format.open_memmap(path, "w+", room.dtype, (len(pack), *room.shape[1:]))
        if hasattr(os, "posix_fallocate"):  # of a full disk now: a mapping would end in SIGBUS
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        starts, start = range(0, len(pack), 1024), 0
        parts: Iterator[NDArray[Any]] = release.stream(pack.x[i : i + 1024] for i in starts)
        if codes is not None:  # the network has spoken already
            parts = (release.substitutes[codes[i : i + 1024]] for i in starts)
        for part in parts:
            x[start : start + len(part)] = part
            start += len(part)
        x.flush()
    except InputError as error:
        raise InputError(f"{name}: {error}{hint}") from None
    return Arrays(x=np.load(path, mmap_mode="r"), codes=codes)


def _repeats(release: Release, setting: Setting, rows: NDArray[np.int64], arrays: Arrays) -> Repeats:
    """Means of the releases of near-duplicates of some rows, and single releases of all."""
    singles = flat(arrays.x) if arrays.codes is None else _indicators(arrays.codes, release.contract.support)
    means = released_means(partial(_told_apart, release), setting.pack, rows, setting.attack_on, setting.seed)
    return Repeats(rows=rows, means=means, singles=singles)


def _rekeyed(release: Release, setting: Setting, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Releases of some rows under another key, drawn from the audit's seed: so it can be done again.

    Of a release that can be renewed it is one that ``veil rekey`` might give, whose noise is the same.
    """
    drawn = hashlib.blake2b(b"another key %d" % setting.seed, digest_size=KEY_BYTES).digest()
    key = renewed_key(release.key, drawn) if release.contract.renew and release.key is not None else drawn
    other, x = replace(release, key=key), setting.pack.x
    return np.concatenate([*other.stream(x[rows[i : i + 1024]] for i in range(0, len(rows), 1024))])


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


def controls(
    names: Sequence[str], pack: Pack, private: Sequence[str], seed: int
) -> tuple[list[Subject], dict[str, Failure]]:
    """Baselines on the unprotected input, and which of them broke off; raises InputError for one that does not fit."""
    subjects, broken = [], {}
    for name in dict.fromkeys(names):
        called = "LEACE" if name == "leace" else name
        try:
            release = fit(name, pack, private=private, utility=_free_use(pack, private), seed=seed).release
        except InputError as error:
            raise InputError(f"the control {called}: {error}{LEAVE_OUT}") from None
        except Exception as error:  # whatever it is: the audit must not be lost with it
            broken[called] = Failure.of(error)
        else:
            note = "control: a baseline on the unprotected input"
            subjects.append(Subject(name=f"{INPUT} + {called}", release=release, note=note, named=False))
    return subjects, broken


def _free_use(pack: Pack, private: Sequence[str]) -> str:
    """What controls are said to keep: identity, or another label that is not private; "" where none can be kept.

    A label that nobody asked for, and of which a split lacks a class, must not end an audit.
    """
    for name in ("identity", *pack.labels):
        if name in pack.labels and name not in private:
            with suppress(InputError):
                pack.require(private=private, utility=name)
                return name
    return ""
