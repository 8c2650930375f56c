"""A release under another key, and stored releases moved to it."""

from __future__ import annotations

from pathlib import Path

from veil.errors import InputError, checked_path
from veil.release import Release
from veil.workflows.apply import Applied, Options, apply
from veil.workflows.apply.batches import Progress
from veil.workflows.apply.plan import planned
from veil.workflows.apply.run import Remark


def rekey(
    release: str | Path,
    new: str | Path,
    *,
    stored: str | Path | None = None,
    out: str | Path | None = None,
    key: str | Path | None = None,
    column: str | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    remark: Remark | None = None,
) -> Applied | None:
    """Give a release another key, and move to it what was released under the old one.

    The new key draws another matrix, so that releases of the two do not match; its noise stays. Stored releases are
    turned back by the old matrix and turned by the new one, which takes neither their inputs nor the network. What was
    checked before anything is written cannot be half done; whoever is killed says the same command again.

    Args:
        release: Folder of a release of vectors that was fitted with the setting ``renew``, its key beside it.
        new: Folder of the same release under another key: made, with a fresh one, where there is none.
        stored: Releases to move: what :func:`veil.workflows.apply.apply` wrote, or any file of such vectors.
        out: Where moved releases go, in a form of :func:`veil.workflows.apply.apply`.
        key: File of the release's key, if it is not beside it.
        column: Column, or array, of the vectors in ``stored``, where it is not clear.
        resume: Go on with a move that was killed.
        force: Whether to replace ``out``.
        progress: Told after every batch.
        remark: Told what was left aside, or may be wrong.

    Returns:
        How many were moved; None where nothing was to be.

    Raises:
        InputError: If the release was fitted without ``renew``, ``new`` is something else or there already and nothing
            is to be moved, or ``stored`` does not fit.
    """
    folder, target = checked_path("release", release), checked_path("new", new)
    old = Release.load(folder, key=key)
    if (stored is None) != (out is None):
        missing, there = ("out", "stored") if out is None else ("stored", "out")
        raise InputError(f"{missing}: must be named with {there}: what is moved, and where it goes")
    is_there = target.exists()
    if is_there and stored is None:
        raise InputError(f"{target}: already exists; choose another name, or name stored releases to move to its key")
    second = Release.load(target) if is_there else old.rekeyed()
    if stored is None or out is None:
        second.save(target)
        return None
    try:
        mover = old.moving(second)
    except InputError as error:
        raise InputError(f"{folder}, {target}: {error}") from None
    source, moved = checked_path("stored", stored), checked_path("out", out)
    options = Options(column=column)
    planned(mover, source, moved, options, resume=resume, force=force)
    if not is_there:
        second.save(target)
    return apply(mover, source, moved, options, resume=resume, force=force, progress=progress, remark=remark)
