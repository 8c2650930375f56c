"""A finding: one figure about one release, and what makes findings of measurements. Nothing heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from veil.findings.codes import ATTACK, CODES, GAIN
from veil.foreign import Rule, among, is_finite, is_number, is_whole, shown

ROLES = ("attack", "utility", "control", "bound")
STATUSES = ("ok", "not_applicable", "did_not_converge")

ROUNDING = 1e-9

_TEXT: Rule = ("a text", lambda x: isinstance(x, str))
_RULES: Sequence[tuple[str, Rule]] = (
    *((name, _TEXT) for name in ("code", "release", "target", "attacker", "role", "status", "note")),
    ("code", ("a code of a figure that is known", lambda x: x in CODES)),
    ("role", among(*ROLES)),
    ("status", among(*STATUSES)),
    ("worst", ("true or false", lambda x: isinstance(x, bool | np.bool_))),
    ("n", ("a whole number of at least 0", lambda x: is_whole(x, 0))),
)
"""What the fields of a finding must be, in the order in which they are looked at."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One figure of an audit. Raises ValueError, naming the field, for a combination that would mislead a reader.

    ``value``, ``low``, ``high`` and ``chance`` are finite where ``status`` is ``"ok"``; elsewhere they may be None, and
    NaN becomes None. Audits make theirs by :class:`Measurement`.

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
        for name, (rule, holds) in _RULES:
            if not holds(getattr(self, name)):
                raise self._error(f"{name} must be {rule}, got {shown(getattr(self, name))}")
        if not self.ok and not self.note:
            raise self._error(f"note must say why the status is {self.status!r}, got ''")
        if not (is_number(self.level) and 0 < self.level < 1):
            raise self._error(f"level must lie between 0 and 1, got {shown(self.level)}")
        plain: dict[str, float | None] = {name: self._finite(name) for name in ("value", "low", "high", "chance")}
        plain |= {"worst": bool(self.worst), "n": int(self.n), "level": float(self.level)}
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        self._check_interval()

    @property
    def ok(self) -> bool:
        """Whether there is a figure."""
        return self.status == "ok"

    @property
    def family(self) -> str:
        """The first part of its code: ``"attribute"``, ``"verification"``, ``"inversion"``, ..."""
        return self.code.partition(".")[0]

    def figures(self) -> tuple[float, float, float, float]:
        """Value, low, high and chance; ValueError where the status is not ``"ok"``."""
        if self.value is None or self.low is None or self.high is None or self.chance is None:
            raise ValueError(f"finding {self.code!r} of {self.attacker!r} on {self.release!r} has no figure")
        return self.value, self.low, self.high, self.chance

    def _finite(self, name: str) -> float | None:
        """A number of the finding as float64 has it; None where there is none, and need not be."""
        number = getattr(self, name)
        if number is not None and not is_number(number):
            raise self._error(f"{name} must be a number, got {shown(number)}")
        if number is not None and is_finite(number):
            return float(number)
        if self.ok:
            raise self._error(f"{name} must be finite where the status is 'ok', got {shown(number)}")
        return None

    def _check_interval(self) -> None:
        if self.value is None:
            if self.low is not None or self.high is not None:
                raise self._error("value must be a number where there is an interval, got None")
            return
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        slack = ROUNDING * max(1.0, abs(self.value))
        if not low - slack <= self.value <= high + slack:
            raise self._error(f"value must lie within its interval {low}..{high}, got {self.value}")

    def _error(self, problem: str) -> ValueError:
        return ValueError(f"finding {self.code!r} of {self.attacker!r} on {self.release!r}: {problem}")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One attempt to measure something on one release, and the findings that come of it.

    ``replace(measurement, attacker=...)`` is the same with another attacker.

    Attributes:
        release, target, attacker, role, n, level: As in :class:`Finding`.
    """

    release: str
    target: str
    attacker: str
    role: str
    n: int
    level: float = 0.95

    def measured(
        self,
        code: str,
        interval: tuple[float, float, float],
        *,
        chance: float | None = None,
        worst: bool = False,
        note: str = "",
    ) -> Finding:
        """A figure: its value, lower and upper limit. ``chance`` None: as the code has it, where it is a constant."""
        value, low, high = interval
        chance = CODES[code].chance if chance is None else chance
        return Finding(code=code, value=value, low=low, high=high, chance=chance, worst=worst, note=note, **vars(self))

    def missing(
        self, code: str, status: str, note: str, *, chance: float | None = None, worst: bool = False
    ) -> Finding:
        """That there is no figure, and why: ``status`` is ``"not_applicable"`` or ``"did_not_converge"``."""
        return Finding(code=code, chance=chance, worst=worst, status=status, note=note, **vars(self))


def normalised_gain(attack: Finding, reference: Finding) -> Finding:
    """What is left of an attack: (attack - chance) / (attack on the unprotected input - chance).

    0 is chance, 1 as good as without protection. The interval is the attack's, carried through with the reference's
    value held fixed. Not applicable where the attack has no figure, or the reference's interval reaches down to chance:
    there was nothing to hide that the attackers could find, and the quotient would be noise.

    Raises ValueError unless both are figures of the same ``attribute.`` code, target and chance.
    """
    if attack.code != reference.code or attack.code not in (ATTACK, CODES[ATTACK].stand_in):
        raise ValueError(f"normalised gain needs two attribute figures of one code: {attack.code}, {reference.code}")
    if attack.target != reference.target:
        raise ValueError(f"normalised gain needs one target, got {attack.target!r} and {reference.target!r}")

    what_is_left = Measurement(
        release=attack.release, target=attack.target, attacker=attack.attacker, role=attack.role, n=attack.n,
        level=attack.level,
    )  # fmt: skip

    def missing(why: str) -> Finding:
        return what_is_left.missing(GAIN, "not_applicable", why, chance=0.0, worst=attack.worst)

    for which, figure in (("the attack", attack), ("the attack on the unprotected input", reference)):
        if not figure.ok:
            return missing(f"{which} has no figure ({figure.status}: {figure.note})")
    value, low, high, chance = attack.figures()
    unprotected, unprotected_low, _, unprotected_chance = reference.figures()
    if not math.isclose(chance, unprotected_chance, abs_tol=ROUNDING):
        raise ValueError(f"normalised gain needs one chance, got {chance} and {unprotected_chance}")
    if unprotected_low <= chance:
        return missing(
            f"the attack on the unprotected input ({unprotected:.3f}) is not clearly above chance ({chance:.3f})"
        )
    gain = unprotected - chance
    note = (
        f"of {attack.code}, relative to {reference.attacker} on the unprotected input at {unprotected:.3f}, held fixed "
        "in the interval"
    )
    interval = ((value - chance) / gain, (low - chance) / gain, (high - chance) / gain)
    return what_is_left.measured(GAIN, interval, worst=attack.worst, note=note)
