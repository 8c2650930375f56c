"""Protect a source: steps in their order, begun or gone on with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veil import files
from veil.data.pack import Pack
from veil.errors import InputError, checked_jobs
from veil.report import document, page
from veil.report.verdict import spoken
from veil.workflows.apply import Applied
from veil.workflows.audit import Audit
from veil.workflows.protect.steps import Place, Steps, Watch
from veil.workflows.protect.ways import WITHOUT_LABELS, Asked, Way, way_of


@dataclass(frozen=True, kw_only=True)
class Protected:
    """What was made.

    Attributes:
        way: How.
        released: What may be handed out: a folder of photographs, a pack, or a file of vectors.
        rows: How many were released, how many were left out, and how many photographs may hold unprotected faces.
        left_out: Where those that were left out are listed; None where none were.
        audit: What was measured.
        verdict: What its page says first, as lines of text.
        page: The path of its page.
        secrets: What to keep from whoever gets the releases, and why.
        remarks: What else should be known of the releases.
    """

    way: Way
    released: Path
    rows: Applied
    left_out: Path | None
    audit: Audit
    verdict: Sequence[str]
    page: Path
    secrets: Mapping[Path, str]
    remarks: Sequence[str]


def protect(
    source: str | Path,
    out: str | Path,
    *,
    detector: Any = True,
    resume: bool = False,
    force: bool = False,
    jobs: int | None = None,
    command: str = "",
    watch: Watch | None = None,
    **asked: Any,
) -> Protected:
    """Protect photographs or vectors, and audit what comes out.

    Which method does it is said by :data:`WAYS`; for any other the steps are there one by one.

    Args:
        source: A folder of photographs, a pack, or a file of vectors (:mod:`veil.data.vectors`) with labels.
        out: A folder. ``released`` (photographs or a pack) or ``released.parquet`` may be handed out; ``audit`` holds
            the findings and the page; ``private`` holds all that must stay: unprotected faces or templates with their
            labels, the release, its key, and hashes of what it was fitted on.
        detector: Finds faces; the bundled one (extra ``faces``) if True (:class:`veil.data.faces.Detector`).
        resume: Go on with the same, which was killed; steps that are done are not done again.
        force: Replace what an earlier one left in ``out``.
        jobs: Threads and processes.
        command: For the page.
        watch: Told how far it is.
        **asked: Attributes of :class:`Asked`: ``hide``, ``keep``, ``form``, ``budget``, ``labels``, ``landmarks``,
            ``matcher``, ``by_folder``, ``blur_rest``, ``size``, ``settings``, ``key``, ``effort``, ``seed``, ``name``.

    Raises:
        InputError: Where source and what is asked for do not fit together, nothing could be read, or something is in
            the way.
    """
    wanted, watch = Asked(**asked), watch or Watch()
    checked_jobs(jobs)
    source, out = Path(source), Path(out)
    way = way_of(source, wanted)
    steps = Steps(source=source, place=Place(out), way=way, asked=wanted, detector=detector, jobs=jobs, watch=watch)
    goes_on = _begin(steps, resume=resume, force=force)
    try:
        pack = steps.packed()
        _check_labels(pack, wanted)
    except InputError:
        if not goes_on:  # so that the same folder can be named with what was missing
            files.remove(steps.place.private)
            with suppress(OSError):
                out.rmdir()
        raise
    release = steps.fitted()
    rows = steps.released(release)
    measured = steps.audited(pack, command)
    return Protected(
        way=way,
        released=steps.target,
        rows=rows,
        left_out=steps.left_out,
        audit=measured,
        verdict=spoken(document.read(steps.place.audit)),
        page=page.write(steps.place.audit),
        secrets=steps.secrets(measured),
        remarks=steps.remarks(rows, pack),
    )


def _begin(steps: Steps, *, resume: bool, force: bool) -> bool:
    """Makes the folders; refuses what is in the way, or is of another command. Whether an earlier one goes on."""
    place, identity = steps.place, steps.identity()
    files.check_place(place.out)
    if steps.source.is_dir() and place.out.resolve().is_relative_to(steps.source.resolve()):
        raise InputError(f"{place.out}: lies inside the source {steps.source}; choose another place")
    targets = (place.out / "released", place.audit, place.private)
    for path in targets if place.out.is_dir() else ():
        files.sweep(path)
    begun = place.begun.is_file()
    if not begun and os.path.lexists(place.out) and not place.is_blank():
        raise InputError(f"{place.out}: already exists, and is not of `veil protect`; choose another name")
    if begun and force:
        (place.out / "released.parquet").unlink(missing_ok=True)
        for path in targets:  # the last says whose the others are
            if path.exists():
                files.remove(path)
        begun = False
    if begun and not resume:
        raise InputError(f"{place.out}: already exists; go on with it (--resume), replace it (--force), or choose "
                         "another name")  # fmt: skip
    if begun and place.begun.read_text("utf-8") != identity:
        raise InputError(f"{place.out}: was begun with other options or another source; choose another name, or force")
    place.private.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.private.chmod(0o700)
    if not begun:
        with files.written(place.begun) as file:
            file.write(identity.encode())
    return begun


def _check_labels(pack: Pack, asked: Asked) -> None:
    """Raises InputError, with what can be done, where a private label is not there."""
    if missing := [name for name in asked.hide if name not in pack.labels]:
        there = ", ".join(pack.labels) or "none"
        raise InputError(
            f"hide {missing[0]}: the data have no such label (they have: {there}); name a file of labels (--labels). "
            f"{WITHOUT_LABELS}"
        )
