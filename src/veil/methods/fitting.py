"""The one shell around all methods: what is asked for is checked, an algorithm learns, and a release is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, Unpack, get_args

from veil._version import __version__
from veil.data.pack import SPLITS, Pack
from veil.data.packfile import sha256
from veil.engine import Run
from veil.engine.run import Precision, Saving, by_first, run_identity
from veil.errors import InputError, check_type, checked_names, checked_seed
from veil.methods.protocol import Algorithm, Fitted, Task
from veil.methods.registry import METHODS, Method, method_named
from veil.release import Release
from veil.release.beside import new_key
from veil.release.folder import WEIGHTS

Curves = Sequence[tuple[int, str, str, float]]
"""Step, stage, player and loss."""
Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What fitting gives.

    Attributes:
        release: The release.
        curves: The losses of its training.
    """

    release: Release
    curves: Curves = ()


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be fitted.

    Attributes:
        method: Name in :data:`veil.methods.METHODS`.
        pack: Trains on its ``protect`` split.
        private: Labels to hide; one that is named twice is hidden once.
        utility: ``"identity"``, or a label to keep; "" where the method keeps none.
        preset: Named settings; the method's default if None.
        settings: Changes to the preset, by field name; strings are read as the field's type.
        seed: Seeds the whole fit.
        base: A release that a baseline works on.
        people: Whether the pack's ``identity`` tells people.
    """

    method: str
    pack: Pack
    private: Sequence[str]
    utility: str = "identity"
    preset: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    base: Release | None = None
    people: bool = True

    @cached_property
    def config(self) -> Any:
        """The method's settings."""
        return method_named(self.method).algorithm.configured(self.preset, self.settings)

    @cached_property
    def contents(self) -> dict[str, Any]:
        """The settings by what their files hold; those that are not there are for the algorithm to refuse."""
        values = dict(vars(self.config))
        for name in method_named(self.method).files:
            if values[name]:
                path = Path(values[name])
                path = path / WEIGHTS if path.is_dir() else path  # a release
                values[name] = sha256(path) if path.is_file() else ""
        return values


class Running(TypedDict, total=False):
    """How a fit runs.

    Attributes:
        key: Secret of a release with keyed noise; a fresh one if None.
        precision: ``"auto"``, ``"bf16"`` or ``"fp32"``.
        checkpoint: File for the state of an unfinished run.
        every: Steps between checkpoints; one a minute if None.
        resume: Whether to go on from the checkpoint, if it is there.
        progress: Told the stage, steps done, steps in all and the losses.
    """

    key: bytes | None
    precision: Precision
    checkpoint: Path | None
    every: int | None
    resume: bool
    progress: Progress | None


def fit(order: Order, **running: Unpack[Running]) -> Fit:
    """Fit a method: what the command, :func:`veil.fit` and :class:`veil.Protector` go through.

    Args:
        order: What is to be fitted.
        **running: See :class:`Running`.

    Raises:
        InputError: For anything that does not fit, all problems in one line.
    """
    if unknown := sorted(running.keys() - Running.__annotations__.keys()):
        raise TypeError(f"fit() got an unexpected keyword argument {unknown[0]!r}")
    method, pack = method_named(order.method), order.pack
    if not isinstance(pack, Pack):
        raise InputError(f"pack: must be a veil.Pack, got {type(pack).__name__}")
    private = list(dict.fromkeys(checked_names("private", order.private)))
    check_type("utility", order.utility, str, "identity, or the name of a label")
    _check_private(method, private, pack)
    if (key := running.get("key")) is not None:
        check_type("key", key, bytes, "32 bytes")
    if order.base is not None:
        check_type("base", order.base, Release, "a veil.Release")
        order.base.contract.check_framing(pack, "base")
    every, precision = running.get("every"), running.get("precision", "auto")
    if every is not None and every < 1:
        raise InputError(f"every: must be at least 1 step, got {every}")
    if precision not in get_args(Precision):
        raise InputError(f"precision: must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    seed = checked_seed(order.seed)
    there = [split for split in SPLITS if len(pack.rows(split))]
    use = pack.known_use(order.utility)
    pack.require(private=private, utility=use, among=list(dict.fromkeys(["protect", *there])))
    identity = run_identity(
        veil=__version__, method=method.name, config=order.contents, seed=seed, data=pack.fingerprint,
        private=private, utility=order.utility,
    )  # fmt: skip
    file = running.get("checkpoint")
    resume = running.get("resume", False)
    saving = Saving(file=file, every=every, resume=resume, identity=identity, method=method.name) if file else None
    run = Run(seed=seed, precision=precision, saving=saving, progress=running.get("progress"))
    task = Task(pack=pack, private=private, utility=order.utility, run=run, base=order.base)
    release = trained(method, order.config, task, key=key)
    made = {**release.made, "preset": order.preset or method.presets[0]}
    if pack.meta.get("pictures"):
        made["pictures"] = pack.meta["pictures"]
    kept = {name: dict(mark) for name, mark in pack.predicted.items() if name in (*private, order.utility)}
    if kept:
        made["predicted"] = kept
    return Fit(release=replace(release, made=made).recorded(pack, people=order.people), curves=run.curves)


def trained(method: Method, config: Any, task: Task, *, key: bytes | None = None) -> Release:
    """The release that a method's algorithm makes of a task; the losses are in ``task.run.curves``.

    Raises:
        InputError: With all problems of data and labels in one line, or where the run diverges.
    """
    name, pack = method.name, task.pack
    algorithm: Algorithm = method.algorithm
    if task.base is not None and not method.takes_base:
        raise InputError(f"{name}: reads the input itself and takes no base, got a release of {task.base.method!r}")
    _check_private(method, task.private, pack)
    if pack.kind not in method.takes:
        other = "method template protects vectors" if pack.kind == "vectors" else "method aia makes vectors of images"
        raise InputError(f"{name}: needs a pack of {method.takes[0]}, got {pack.kind}; {other}")
    if hasattr(config, "batch"):
        task.run.check_batch(config.batch, each=algorithm.unit)
    fitted = algorithm.train(config, task)
    networks = {
        part: None if network is None else task.run.collect(network)
        for part, network in (("decoder", fitted.decoder), ("classifier", fitted.classifier))
    }
    return Release(
        method=name,
        config=asdict(fitted.config or config) | dict.fromkeys(method.files, ""),  # what was loaded is in ``made``
        contract=fitted.contract,
        encoder=task.run.collect(fitted.encoder),
        made=_made(task, fitted),
        fitted=None if fitted.upon is None else fitted.upon.fitted,
        key=(key or by_first(new_key)) if fitted.contract.keyed else None,
        **networks,
    )


def _made(task: Task, fitted: Fitted) -> dict[str, Any]:
    """How a release was made; what the algorithm says of it comes last, and counts."""
    return {
        "private": list(task.private),
        "utility": task.utility,
        "seed": task.run.seed,
        "data": task.pack.fingerprint,
        **({} if fitted.upon is None else fitted.upon.lineage()),
        **fitted.made,
    }


def _check_private(method: Method, private: Sequence[str], pack: Pack) -> None:
    if not method.hides or private:
        return
    others = " and ".join(other.name for other in METHODS.values() if not other.hides and pack.kind in other.takes)
    without = f"; {others} hides the picture itself, and keeps a label" * bool(others)
    raise InputError(
        f"private: at least one label must be named, got none; {pack.labels_there}{without}; what the pack gives away "
        "as it is, `veil audit PACK --inversion` and `--utility identity` measure without one"
    )
