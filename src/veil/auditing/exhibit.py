"""What attackers see of a release: for every row of a pack what was released of it, and no more."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from veil.auditing.repeats import Repeats

Role = Literal["input", "baseline", "method"]

_MOST = 1e15  # largest value of a release


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Releases of all rows.

    Attributes:
        x: float32 ``(N, k)`` or uint8 images ``(N, H, W[, 3])``, row i released from row i of the pack.
        codes: int64 ``(N,)``, which of finitely many values, fixed beforehand, each row was released as; None for a
            release of any number of values. Such a release is certified.
    """

    x: NDArray[Any]
    codes: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """Something to audit. Its releases are made when a task first needs them.

    Attributes:
        name: What findings call it.
        role: ``"input"`` for the unprotected input (one exhibit has this role), ``"baseline"`` or ``"method"``.
        make: Gives the releases.
        shape: Of one release: ``(k,)`` or ``(H, W[, 3])``.
        finite: Whether releases have codes.
        fingerprint: Tells releases that may differ from each other apart.
        feature_map: ``(C, H, W)`` where the vectors are flattened maps.
        seen: bool ``(N,)``, rows that its protector, or its table of values, has seen, or whose person; those of
            ``protect`` do not matter. None where that is not known.
        fitted_on: bool ``(N,)``, rows that its protector was fitted on, or whose person; or why that is not known; None
            where it is of no interest.
        rekeyed: From rows of the pack to releases of them under another key; or why there are none; None where that is
            of no interest.
        near_duplicates: From rows of the pack, and all releases, to means of the releases of their near-duplicates,
            which are attacked too; or why there are none; None where that is of no interest.
    """

    name: str
    role: Role
    make: Callable[[], Arrays]
    shape: tuple[int, ...]
    finite: bool = False
    fingerprint: str
    feature_map: tuple[int, int, int] | None = None
    seen: NDArray[np.bool_] | None = None
    near_duplicates: Callable[[NDArray[np.int64], Arrays], Repeats] | str | None = None
    rekeyed: Callable[[NDArray[np.int64]], NDArray[Any]] | str | None = None
    fitted_on: NDArray[np.bool_] | str | None = None

    @staticmethod
    def of(
        name: str,
        x: NDArray[Any],
        role: Role,
        *,
        codes: NDArray[np.int64] | None = None,
        feature_map: tuple[int, int, int] | None = None,
        fingerprint: str = "",
        **known: Any,
    ) -> Exhibit:
        """An exhibit whose releases are there already, as :class:`Arrays` has them; further attributes by name."""
        return Exhibit(
            name=name, role=role, make=lambda: Arrays(x=x, codes=codes), shape=x.shape[1:], finite=codes is not None,
            fingerprint=fingerprint or _content(x, codes, feature_map), feature_map=feature_map, **known,
        )  # fmt: skip

    @cached_property
    def arrays(self) -> Arrays:
        return self.make()

    def repeats(self, rows: NDArray[np.int64]) -> Repeats:
        """Means of the releases of near-duplicates of some rows, made once, for all labels that are attacked."""
        assert callable(self.near_duplicates)
        made: dict[bytes, Repeats] = self.__dict__.setdefault("_repeats", {})
        name = rows.tobytes()
        if name not in made:
            made[name] = self.near_duplicates(rows, self.arrays)
        return made[name]

    @property
    def x(self) -> NDArray[Any]:
        return self.arrays.x

    @property
    def images(self) -> bool:
        return len(self.shape) > 1


def _content(x: NDArray[Any], codes: NDArray[np.int64] | None, feature_map: tuple[int, int, int] | None) -> str:
    """A hash of arrays, some rows at a time, as they may be mapped, and of their form."""
    digest = hashlib.blake2b(f"{x.dtype}{x.shape}{codes is None}{feature_map}".encode(), digest_size=16)
    for array in (x, codes):
        for start in range(0, 0 if array is None else len(array), 4096):
            assert array is not None
            digest.update(np.ascontiguousarray(array[start : start + 4096]).data)
    return digest.hexdigest()


def problem(exhibit: Exhibit, n: int) -> str:
    """What is wrong with an exhibit's releases for a pack of n rows; "" if nothing is."""
    x, codes = exhibit.x, exhibit.arrays.codes
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
    if codes is not None:
        if codes.shape != (n,) or codes.dtype.kind not in "iu":
            return f"needs one integer code for each of the pack's {n} rows, got {codes.dtype} {codes.shape}"
        # A certificate speaks of codes alone: a row must say no more than its code does.
        _, first, code = np.unique(codes, return_index=True, return_inverse=True)
        unlike = (i for i in range(0, n, 4096) if not np.array_equal(x[i : i + 4096], x[first[code[i : i + 4096]]]))
        if (start := next(unlike, None)) is not None:
            return f"rows of one code must be alike, and of rows {start} to {min(start + 4096, n) - 1} some are not"
    c_h_w = exhibit.feature_map
    if c_h_w is not None and (images or int(np.prod(c_h_w)) != x.shape[1]):
        return f"its feature map {c_h_w} must hold as many values as a row of its array {x.shape}"
    return ""
