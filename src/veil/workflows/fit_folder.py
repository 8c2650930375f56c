"""Fit a method and save its release with what lies beside it; a fit that was killed goes on, one that is done stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from veil import files
from veil.data.columns import nfc
from veil.data.pack import Pack
from veil.engine.run import is_main_process, left_by
from veil.errors import InputError
from veil.methods.fitting import Curves, Fit
from veil.methods.registry import METHODS
from veil.release import Release
from veil.release.beside import check_key, fitted_path, key_path, named, read_key_file
from veil.release.folder import CARD, check_target
from veil.workflows import fit as fitting
from veil.workflows.fit import AuditProgress, FitProgress


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What a release is fitted for, and how; most as :func:`veil.fit` takes it.

    Attributes:
        method: Its name.
        private: Labels to hide.
        utility: ``"identity"``, or a label to keep.
        preset: Named settings; the method's default if None.
        settings: Changes to the preset.
        seed: Seeds the whole fit.
        base: Folder of a release that a baseline works on.
        key: Key file; if None the one that is beside the release, or a fresh key.
        budget: As for :func:`veil.workflows.fit.fit_measured`.
        frontier: Whether to measure what noise buys; if None for presets that the
            registry names, where they carry noise.
        precision: ``"auto"``, ``"bf16"`` or ``"fp32"``.
        every: Steps between checkpoints; None for one a minute.
        keep_decoder: Ship the decoder, which redraws inputs.
    """

    method: str
    private: Sequence[str] = ()
    utility: str = "identity"
    preset: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    base: Path | None = None
    key: Path | None = None
    budget: Mapping[str, float] = field(default_factory=dict)
    frontier: bool | None = None
    precision: str = "auto"
    every: int | None = None
    keep_decoder: bool = False

    def frontier_is_due(self) -> bool:
        """Whether a frontier belongs to it where nobody says so."""
        method = METHODS.get(self.method)
        return method is not None and (self.preset or method.presets[0]) in method.frontier


@dataclass(frozen=True, kw_only=True)
class FolderFit:
    """What a fit made.

    Attributes:
        release: The release.
        folder: Where it is.
        fitted: Hashes of what it was fitted on; None where nothing says so.
        curves: Losses of its training; None where there are none.
        key: Its secret key; None where it has none.
        noiseless: Whether a frontier that was due was left out, as there is no noise to measure.
    """

    release: Release
    folder: Path
    fitted: Path | None
    curves: Path | None
    key: Path | None
    noiseless: bool


@dataclass(frozen=True, kw_only=True)
class _Target:
    """The files of a fit, and what may become of those that are there."""

    folder: Path
    resume: bool
    force: bool

    @property
    def curves(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.curves.parquet")

    @property
    def checkpoint(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.checkpoint")

    @property
    def replaces(self) -> bool:
        return self.force or self.resume

    def made(self, release: Release, noiseless: bool) -> FolderFit:
        return FolderFit(
            release=release,
            folder=self.folder,
            fitted=fitted_path(self.folder) if fitted_path(self.folder).exists() else None,
            curves=self.curves if self.curves.exists() else None,
            key=None if release.key is None else key_path(self.folder),
            noiseless=noiseless,
        )


def fit_into(
    options: FitOptions,
    pack: Path,
    folder: Path,
    *,
    resume: bool = False,
    force: bool = False,
    jobs: int | None = None,
    progress: FitProgress | None = None,
    measured: AuditProgress | None = None,
) -> FolderFit | None:
    """Fit a method on a pack and save its release; what stands in its way is told before anything is trained.

    Beside the folder go the key (``FOLDER.key``), if there is one, hashes of what it was fitted on (``FOLDER.fitted``),
    losses (``FOLDER.curves.parquet``) and, until it is done, its state (``FOLDER.checkpoint``).

    Args:
        options: What it is fitted for, and how.
        pack: What ``veil pack`` made.
        folder: Of the release.
        resume: Go on with a fit of the same options that was killed; one that is done stays as it is.
        force: Replace what is there.
        jobs: Processes of the attackers that measure a frontier, or a budget; as many as processors if None.
        progress: Told the stage, steps done, steps in all and the losses.
        measured: Told points of a frontier done, points in all and what was done last.

    Returns:
        What it made; None in all processes that share the fit but the first, which writes it.

    Raises:
        InputError: For anything that does not fit, and where files are in the way.
    """
    target = _Target(folder=named(folder), resume=resume, force=force)
    # What stands there is of this fit, perhaps, which was killed while it saved its release.
    standing = _cleared(target, options.method)
    files.check_place(target.folder)
    key = _key(target, options.key)
    options = replace(options, private=list(dict.fromkeys(map(nfc, options.private))), utility=nfc(options.utility))
    noiseless = options.frontier is None and _is_noiseless(options)
    if options.frontier is None:
        options = replace(options, frontier=options.frontier_is_due() and not noiseless)
    base = None if options.base is None else Release.load(options.base)
    data = Pack.open(pack)
    identity = _identity(options, data, base)
    release = Release.load(target.folder) if standing else None
    if release is not None and release.made.get("asked") != identity:
        raise InputError(f"{target.folder}: already exists, and is of another fit; choose another name or force")
    if release is not None and not target.checkpoint.exists():  # which goes last
        return target.made(release, noiseless) if is_main_process() else None
    fit = _fitted(options, data, base, key, target, jobs=jobs, progress=progress, measured=measured)
    if not is_main_process():  # of several, which all have the release, one writes it
        return None
    release = replace(fit.release, made={**fit.release.made, "asked": identity})
    _save(release, fit.curves, target, options.keep_decoder)
    return target.made(release, noiseless)


def _cleared(target: _Target, method: str) -> bool:
    """Removes what killed processes left, and refuses what would be lost; whether a release may be of this fit."""
    folder = target.folder
    for path in (folder, key_path(folder), fitted_path(folder), target.curves, target.checkpoint):
        files.sweep(path)
    standing = target.resume and not target.force and (folder / CARD).exists()
    if not target.replaces:
        _check_checkpoint(method, target.checkpoint)
    check_target(folder, target.replaces)
    if target.curves.exists() and not target.replaces:
        raise InputError(
            f"{target.curves}: training losses of another fit stand where this one's will; move them away, choose "
            "another name for the release, or replace them by --force"
        )
    return standing


def _check_checkpoint(method: str, checkpoint: Path) -> None:
    """Raises InputError where what an earlier fit left would be replaced; it says whose it is."""
    if not checkpoint.exists():
        return
    whose = left_by(checkpoint)
    if not whose:
        raise InputError(f"{checkpoint}: is no checkpoint, but stands where one will; move it away, or --force")
    way = "go on with the same command and --resume" if whose.startswith(f"{method} ") else f"{method} would replace it"
    raise InputError(
        f"{checkpoint}: an interrupted fit of {whose} left it; {way}, choose another name for the release, or start "
        "anew by --force"
    )


def _key(target: _Target, given: Path | None) -> bytes | None:
    """The key that is given, or else that is there: releases made with another would no longer match those already out.

    Raises:
        InputError: If it is no key, or another one would be replaced.
    """
    path = given if given is not None or not key_path(target.folder).exists() else key_path(target.folder)
    key = None if path is None else read_key_file(path)
    if key is not None and not target.force:
        check_key(target.folder, key)
    return key


def _is_noiseless(options: FitOptions) -> bool:
    """Whether a frontier is due, and there is no noise to measure."""
    due = options.frontier_is_due() and not options.budget
    return due and not fitting.has_noise(options.method, options.preset, options.settings)


def _shared(options: FitOptions) -> dict[str, Any]:
    """What the identity of a fit and the fit itself take alike."""
    names = ("private", "utility", "preset", "settings", "seed", "precision")
    return {name: getattr(options, name) for name in names}


def _identity(options: FitOptions, pack: Pack, base: Release | None) -> str:
    return fitting.fit_identity(
        options.method, pack, budget=options.budget, frontier=options.frontier, decoder=options.keep_decoder, base=base,
        **_shared(options),
    )  # fmt: skip


def _fitted(
    options: FitOptions,
    pack: Pack,
    base: Release | None,
    key: bytes | None,
    target: _Target,
    *,
    jobs: int | None,
    progress: FitProgress | None,
    measured: AuditProgress | None,
) -> Fit:
    common = {
        **_shared(options), "base": base, "key": key, "checkpoint": target.checkpoint, "every": options.every,
        "resume": target.resume, "progress": progress,
    }  # fmt: skip
    if options.budget or options.frontier:
        return fitting.fit_measured(options.method, pack, budget=options.budget, jobs=jobs, measured=measured, **common)
    return fitting.fit(options.method, pack, **common)


def _save(release: Release, curves: Curves, target: _Target, keep_decoder: bool) -> None:
    release.save(target.folder, force=target.replaces, with_decoder=keep_decoder)
    if curves:
        fitting.write_curves(target.curves, curves)
    else:
        target.curves.unlink(missing_ok=True)  # those of a release that this one replaces
    target.checkpoint.unlink(missing_ok=True)  # last: as long as it is there, the rest may not be whole
