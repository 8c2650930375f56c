"""Certificates: upper bounds on every possible attacker, for releases that take finitely many values.

A release with values ("codes") 1 .. K tells an attacker which code it is and nothing else. The best attacker, who knows
the protector, the population and all else but the person before it, guesses some class f*(c) for each code c and is
right at a rate S*. On n samples that neither the protector nor its codebook have seen, with n_cz of code c and class z,
f* is right at a rate T, and nobody who guesses by code is right more often than S^ = sum_c max_z n_cz / n, the plug-in.

T is a mean of independent units, E[T] = S* and T <= S^. So, whatever f* is,

    P(T <= t) <= inf_h exp(h t) prod_i E exp(-h Y_i) <= inf_h exp(h t + max_p sum_i log(1 - p_i (1 - exp(-h a_i))))

where Y_i in [0, a_i] is what unit i adds to T, and p runs over all 0 <= p_i <= 1 with sum_i a_i p_i = S* (Chernoff;
exp is convex, so two-point distributions are the worst; how the rates spread over the units is not known, so the worst
spread counts). The certificate is the largest S* for which the right side at t = S^ is above 1 - confidence.

The published alternative, McDiarmid's inequality on S^ itself (E[S^] >= S* by Jensen), has the slack
sqrt(ln(1 / delta) / 2 sum_i a_i^2). Hoeffding's lemma bounds each factor above by that of the same slack, so the
certificate is never above it; for S* far from 1/2, as with many classes, it is well below. Both are given.

For the accuracy of independent images T is binomial, and the exact binomial tail (Clopper and Pearson 1934) replaces
Chernoff's bound.

A unit is an image, or a person with all their images, which are not independent. For accuracy an image of n adds 1 / n.
For balanced accuracy, given the classes of the samples, one of class z adds 1 / (Z n_z).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import beta

from veil.auditing import intervals
from veil.auditing.exhibit import Exhibit
from veil.auditing.setting import Setting, without
from veil.auditing.task import Outcome, Task
from veil.errors import InputError
from veil.findings import Measurement
from veil.findings.codes import CERTIFICATE

Floats = NDArray[np.float64]
Figure = Literal["balanced_accuracy", "accuracy"]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What no attacker exceeds on fresh data of the same population, at ``confidence``.

    Attributes:
        figure: ``"balanced_accuracy"`` or ``"accuracy"``.
        bound: The certified upper bound, in [chance, 1].
        mcdiarmid: The bound by the published inequality, for comparison; never below ``bound``.
        plug_in: S^, what a lookup table fitted to the calibration samples themselves gets; no bound.
        chance: 1 / Z, or for accuracy the share of the largest class.
        confidence: 1 - delta.
        n: Calibration samples.
        units: Independent units among them: people, or samples.
        codes: Codes that occur among them.
    """

    figure: Figure
    bound: float
    mcdiarmid: float
    plug_in: float
    chance: float
    confidence: float
    n: int
    units: int
    codes: int


def certify(
    codes: NDArray[Any],
    y: NDArray[Any],
    *,
    classes: int,
    people: NDArray[Any] | None = None,
    figure: Figure = "balanced_accuracy",
    confidence: float = 0.95,
    seen: NDArray[Any] | None = None,
) -> Certificate:
    """Bound every attacker on a finite release from calibration samples.

    Args:
        codes: ``(n,)`` integers >= 0, the value that each sample was released as.
        y: ``(n,)`` class codes 0 .. classes - 1 of what must stay private.
        classes: Z >= 2.
        people: ``(n,)`` identity codes, so that a person is the unit; below 0 for a person of their own. None where the
            samples themselves are independent.
        figure: Which figure of an attacker is bounded.
        confidence: Of the bound, in (0, 1).
        seen: ``(n,)`` true for samples that took part in the fitting of the protector or of its codebook.

    Raises:
        InputError: If the release is not finite, samples were seen in training, a class is missing, or shapes do not
            fit.
    """
    codes, y = np.asarray(codes), np.asarray(y)
    n = len(y)
    _check(codes, y, classes, confidence, seen)
    used, code = np.unique(codes, return_inverse=True)
    counts = np.bincount(y, minlength=classes)
    if figure == "balanced_accuracy" and not counts.all():
        raise InputError(f"certificate: class {int(counts.argmin())} has no calibration sample; each needs one")
    # At most one entry per sample, whatever K and Z are.
    cells, size = np.unique(code * classes + y, return_counts=True)
    each = 1 / (classes * counts[cells % classes]) if figure == "balanced_accuracy" else np.full(len(cells), 1 / n)
    best = np.zeros(len(used))
    np.maximum.at(best, cells // classes, size * each)
    plug_in = min(float(best.sum()), 1.0)
    weight = 1 / (classes * counts[y]) if figure == "balanced_accuracy" else np.full(n, 1 / n)
    ranges: Floats = np.bincount(intervals.units(people, n), weights=weight).astype(np.float64)
    delta = 1 - confidence
    if figure == "accuracy" and len(ranges) == n:
        right = round(plug_in * n)
        limit = 1.0 if right == n else float(beta.ppf(confidence, right + 1, n - right))
    else:
        limit = upper_limit(plug_in, ranges, delta)
    chance = 1 / classes if figure == "balanced_accuracy" else float(counts.max() / n)
    return Certificate(
        figure=figure,
        bound=max(chance, limit),
        mcdiarmid=max(chance, min(1.0, plug_in + math.sqrt(math.log(1 / delta) / 2 * float(ranges @ ranges)))),
        plug_in=plug_in,
        chance=chance,
        confidence=confidence,
        n=n,
        units=len(ranges),
        codes=len(used),
    )


def _check(codes: NDArray[Any], y: NDArray[Any], classes: int, confidence: float, seen: NDArray[Any] | None) -> None:
    """Raises InputError for what :func:`certify` cannot bound."""
    n = len(y)
    if codes.dtype.kind not in "iu" or codes.ndim != 1:
        raise InputError(
            f"certificate: needs a finite release, that is one integer code for each sample; got {codes.dtype} of "
            f"shape {codes.shape}"
        )
    if len(codes) != n or not n:
        raise InputError(f"certificate: needs a code and a class for each sample, got {len(codes)} and {n}")
    if codes.min() < 0 or y.min() < 0 or y.max() >= classes:
        raise InputError(
            f"certificate: codes must be >= 0 and classes in 0..{classes - 1}, got codes from {codes.min()} and "
            f"classes from {y.min()} to {y.max()}"
        )
    if seen is not None and np.any(seen):
        raise InputError(
            f"certificate: calibration samples must not have been seen in training, but {int(np.sum(seen))} of {n} were"
        )
    if not 0 < confidence < 1:
        raise InputError(f"certificate: confidence must lie between 0 and 1, got {confidence}")
    used = len(np.unique(codes))
    if used > n / 2:
        raise InputError(
            f"certificate: needs a finite release, whose values recur; {n} samples have {used} different ones"
        )


def upper_limit(value: float, ranges: Floats, delta: float) -> float:
    """The largest mean of a sum of independent units that is compatible with a sum of ``value`` at level ``delta``.

    The maximum over p is at most sum_i log(1 - p_i g_i) + v (sum_i a_i p_i - S*) for any multiplier v > 0, with
    g_i = 1 - exp(-h a_i) and p_i = clip(1 / g_i - 1 / (v a_i), 0, 1), which maximise it. So every pair (h, v) excludes

        S* > (h t + sum_i [log(1 - p_i g_i) + v a_i p_i] + ln(1 / delta)) / v

    and the least of these limits is the certificate; an inexact minimum only loosens it.

    Args:
        value: The sum that was seen, in [0, sum of ranges].
        ranges: ``(U,)`` > 0; unit i adds between 0 and ``ranges[i]``.
        delta: Probability, at most, with which the limit may lie below the true mean.

    Returns:
        At least ``value``, and at most the sum of the ranges and Hoeffding's limit.
    """
    largest, total = float(ranges.max()), float(ranges.sum())
    sizes, count = np.unique(np.round(ranges / largest, 12), return_counts=True)
    t, log_inverse = value / largest, math.log(1 / delta)
    squares = float(count @ np.square(sizes))

    def limit(logs: Floats) -> float:
        h, v = np.exp(np.clip(logs, -30, 30))
        gain = -np.expm1(-h * sizes)
        p = np.clip(1 / gain - 1 / (v * sizes), 0, 1)
        # log(1 - p g) is -h a where p is 1: 1 - g may have been rounded to 0
        log = np.where(p < 1, np.log1p(-np.minimum(p * gain, 1 - 1e-15)), -h * sizes)
        return float((h * t + count @ (log + v * sizes * p) + log_inverse) / v)

    slack = math.sqrt(log_inverse * squares / 2)
    start = math.log(4 * slack / squares)  # Hoeffding's h; v comes close to it as h a falls
    optimum = minimize(
        limit, [start, start], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9 * len(ranges)}
    )
    return max(value, min(float(optimum.fun) * largest, value + slack * largest, total))


# -- in an audit ------------------------------------------------------------------------------------------------------


def tasks(setting: Setting, exhibits: Sequence[Exhibit]) -> Iterator[Task]:
    """Certificates of releases of finitely many values, and how many bits they say at all."""
    for s in exhibits:
        if not s.finite:
            continue
        seen = None if s.seen is None else hashlib.blake2b(s.seen.tobytes(), digest_size=16).hexdigest()
        for target in setting.private:
            yield Task(
                name=f"{s.name}: certificate of {target}",
                key=setting.key("certificate", s.fingerprint, s.name, target, seen),
                prepare=lambda s=s, target=target: partial(  # type: ignore[misc]
                    certified, setting, s.name, s.arrays.codes, target, s.seen
                ),
                missing=partial(without, setting.nobody(s.name, target, "bound"), CERTIFICATE),
                releases=(s.name,),
            )
        yield Task(
            name=f"{s.name}: bits",
            key=setting.key("bits", s.fingerprint, s.name),
            prepare=lambda s=s: partial(bits, setting, s.name, s.arrays.codes),  # type: ignore[misc]
            missing=partial(without, setting.nobody(s.name, "any", "utility"), "utility.bits"),
            releases=(s.name,),
        )


def certified(
    setting: Setting, release: str, codes: NDArray[np.int64], target: str, seen: NDArray[np.bool_] | None
) -> Outcome:
    """Bounds on every attacker of a finite release, from ``calibrate``; or why there are none."""
    pack, level = setting.pack, setting.level
    rows, people = pack.rows("calibrate", known=(target,)), setting.people(target)
    anybody = Measurement(release=release, target=target, attacker="any", role="bound", n=len(rows), level=level)
    findings = []
    for figure in ("balanced_accuracy", "accuracy"):
        code = f"certificate.{figure}"
        try:
            if seen is None:
                raise InputError(
                    "certificate: calibration samples must not have been seen in training, and this release was fitted "
                    "on data that the audit does not know"
                )
            c = certify(
                codes[rows],
                pack.label(target)[rows],
                classes=len(pack.classes[target]),
                people=None if people is None else people[rows],
                figure=figure,
                confidence=level,
                seen=seen[rows],
            )
        except InputError as error:
            findings.append(anybody.missing(code, "not_applicable", str(error)))
            continue
        what = "images" if people is None else f"{c.units:,} people"
        note = (
            f"{c.codes} codes on {c.n:,} images of calibrate ({what} the units); plug-in {c.plug_in:.4f}; by "
            f"McDiarmid's inequality {c.mcdiarmid:.4f}"
        )
        findings.append(anybody.measured(code, (c.bound, c.bound, c.bound), chance=c.chance, note=note))
    return Outcome(findings=tuple(findings))


def bits(setting: Setting, release: str, codes: NDArray[np.int64]) -> Outcome:
    """What a finite release says at all: the entropy of its codes on ``test``, in bits."""
    rows, people = setting.pack.rows("test"), setting.people()
    most = float(np.log2(max(len(np.unique(codes)), 2)))  # a code that was never seen may be there, too
    used = np.unique(codes[rows])
    interval = intervals.entropy_interval(
        codes[rows], None if people is None else people[rows], most=most, level=setting.level
    )
    counts = Measurement(
        release=release, target="any", attacker="counts", role="utility", n=len(rows), level=setting.level
    )
    note = f"{len(used)} codes in use"
    return Outcome(findings=(counts.measured("utility.bits", interval, chance=0.0, note=note),))
