"""Fit a method on a pack, measure its frontier, keep its losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import pyarrow as pa
import pyarrow.parquet as pq

from veil import parquet
from veil._version import __version__
from veil.auditing.setting import strangers
from veil.data.pack import Pack
from veil.engine.run import by_first, run_identity
from veil.errors import InputError
from veil.files import written
from veil.methods import fitting
from veil.methods.fitting import Curves, Fit, Order, Progress, Running
from veil.methods.registry import METHODS, method_named
from veil.release import Release
from veil.workflows import frontier

FitProgress = Progress
AuditProgress = Callable[[int, int, str], None]


def fit(
    method: str,
    pack: Pack,
    *,
    private: Sequence[str],
    utility: str = "identity",
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    base: Release | None = None,
    **running: Unpack[Running],
) -> Fit:
    """Fit a method of :data:`veil.methods.METHODS`; its release and the losses of its training.

    Args:
        method: Its name.
        pack: Trains on its ``protect`` split.
        private: Labels to hide.
        utility: ``"identity"``, or a label to keep; "" where the method keeps none. Methods that never look at it do
            without identity.
        preset: Named settings; the method's default if None.
        settings: Changes to the preset, by field name; strings are read as the field's type.
        seed: Seeds the whole fit.
        base: A release that a baseline works on.
        **running: ``key``, ``precision``, ``checkpoint``, ``every``, ``resume`` and ``progress``; see
            :class:`veil.methods.fitting.Running`.

    Raises:
        InputError: For anything that does not fit, all problems in one line.
    """
    order = Order(
        method=method, pack=pack, private=private, utility=utility, preset=preset, seed=seed, base=base,
        settings={} if settings is None else settings,
    )  # fmt: skip
    return fitting.fit(order, **running)


def fit_identity(
    method: str, pack: Pack, *, preset: str | None, settings: Mapping[str, Any], base: Release | None, **options: Any
) -> str:
    """What tells fits apart that give different releases: all that is asked for but the key, and Veil's version."""
    order = Order(method=method, pack=pack, private=(), preset=preset, settings=settings)
    below = None if base is None else [base.method, base.made, repr(base.contract)]
    return run_identity(
        veil=__version__, method=method, config=order.contents, data=pack.fingerprint, base=below, **options
    )


def has_noise(method: str, preset: str | None, settings: Mapping[str, Any]) -> bool:
    """Whether releases of these settings carry noise, of which a frontier can be measured; checks them, too."""
    return bool(METHODS[method].algorithm.configured(preset, settings).noise)


STRENGTHS = (1.0, 3.0)
"""Factors of a method's weight of hiding that are tried under a budget."""


def fit_measured(
    method: str,
    pack: Pack,
    *,
    budget: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    measured: AuditProgress | None = None,
    **options: Any,
) -> Fit:
    """:func:`fit`, then the frontier of noise, written into the release's ``made``; a budget chooses the noise.

    Args:
        method: One with a setting ``noise``, of keyed noise.
        pack: As for :func:`fit`; fresh attackers learn on ``attack`` and are measured on ``calibrate``.
        budget: For some private labels the highest balanced accuracy that the worst attack may reach. The release is
            the one, of several strengths of hiding and norms of noise, that keeps most of the use while the attack's
            upper limit stays at or below it, with 95 % for all that are tried together. Without one the settings'
            noise stays.
        settings: Changes to the preset.
        jobs: Processes of the attackers.
        measured: Told points of a frontier done, points in all and what was done last.
        **options: As for :func:`fit`.

    Raises:
        InputError: If the budget cannot be had, or for anything that does not fit.
    """
    asked = question(method, pack, settings or {}, budget or {}, jobs, options)
    settings, strength = dict(settings or {}), method_named(method).strength
    tried: list[tuple[Fit, list[frontier.Point]]] = []
    for factor in STRENGTHS if budget and strength else STRENGTHS[:1]:
        if tried and strength:
            first = tried[0][0].release
            if not first.config[strength]:
                break  # nothing to strengthen
            options = {**options, "checkpoint": None, "key": first.key}
            settings[strength] = factor * float(first.config[strength])
        made = fit(method, pack, settings=settings, **options)
        measure = partial(frontier.measure, made.release, pack, asked, budget=budget or None, progress=measured)
        tried.append((made, by_first(measure)))
    best, points = tried[0]
    if budget:
        best, points = max(tried, key=lambda one: frontier.kept(one[1], budget))
        release = frontier.with_noise(best.release, frontier.meet(points, budget).noise)
        best = replace(best, release=release.recorded(pack, splits=("attack", "calibrate")))  # which chose the noise
    limits = {name: float(limit) for name, limit in (budget or {}).items()}
    made_of = {**best.release.made, "frontier": frontier.as_plain(points), **({"budget": limits} if budget else {})}
    return replace(best, release=replace(best.release, made=made_of))


def question(
    method: str, pack: Pack, settings: Mapping[str, Any], budget: Mapping[str, float], jobs: int | None,
    options: Mapping[str, Any],
) -> frontier.Question:  # fmt: skip
    """What the frontier will measure; raises InputError, before anything is fitted, where that cannot be."""
    private, utility = list(dict.fromkeys(options["private"])), options.get("utility", "identity")
    if not method_named(method).noise:
        raise InputError(f"{method}: a frontier chooses the setting noise, and this method has none")
    if not has_noise(method, options.get("preset"), settings):
        raise InputError(f"{method}: a frontier needs a release with keyed noise, got noise 0; leave it out")
    for name in budget:
        if name not in private:
            raise InputError(f"budget: must name a private label ({', '.join(private)}), got {name!r}")
        if budget[name] <= (chance := 1 / max(len(pack.classes.get(name, ())), 1)):
            raise InputError(f"budget: {name} must lie above chance ({chance:.3g}), got {budget[name]:g}")
    use = pack.known_use(utility)
    pack.require(private=private, utility=use, among=["protect"])  # what the fit itself asks for comes first
    try:
        pack.require(private=private, utility=use, among=["attack", "calibrate"])
        if wrong := strangers(pack, private, ["attack"], "calibrate"):
            raise InputError("; ".join(wrong))
    except InputError as error:
        raise InputError(f"frontier: {error}; or leave it out (--no-frontier)") from None
    looks = len(STRENGTHS) * (len(frontier.STEPS) + 1) * len(budget) if budget else 1
    return frontier.Question(private=private, utility=utility, seed=options.get("seed", 0), jobs=jobs, looks=looks)


def write_curves(path: Path, curves: Curves) -> Path:
    """Losses as Parquet: columns ``step``, ``stage``, ``player``, ``loss``."""
    columns = list(zip(*curves, strict=True)) or [()] * len(parquet.CURVES)
    table = pa.table(
        [pa.array(c, t) for c, t in zip(columns, parquet.CURVES.types, strict=True)], schema=parquet.CURVES
    )
    with written(path) as file:
        pq.write_table(table, file)
    return path


def read_curves(path: Path) -> Curves:
    """What :func:`write_curves` wrote; nothing where there is no such file."""
    if not path.exists():
        return ()
    table = parquet.read_curves(path)
    return list(zip(*(table[name].to_pylist() for name in parquet.CURVES.names), strict=True))
