"""Protect a source: steps in their order, begun or gone on with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from veil import files
from veil.data.pack import Pack
from veil.errors import InputError, checked_jobs, checked_path
from veil.release import Release
from veil.report import document, page, verdict
from veil.workflows.apply import Applied
from veil.workflows.audit import Audit
from veil.workflows.protect.steps import Place, Steps, Watch, gone
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
        failed_controls: What controls that failed mean; until it is known why, the verdict means nothing.
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
    failed_controls: Sequence[str]
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
        force: Replace what an earlier one left in ``out``, once its own release is fitted; until then what was there
            comes back where something is refused.
        jobs: Threads and processes.
        command: For the page.
        watch: Told how far it is.
        **asked: Attributes of :class:`Asked`: ``hide``, ``keep``, ``form``, ``budget``, ``labels``, ``landmarks``,
            ``matcher``, ``by_folder``, ``blur_rest``, ``size``, ``settings``, ``key``, ``effort``, ``seed``,
            ``row_numbers``, ``pictures``, ``name``.

    Raises:
        InputError: Where source and what is asked for do not fit together, nothing could be read, or something is in
            the way.
    """
    wanted, watch = _asked(asked), watch or Watch()
    checked_jobs(jobs)
    source, out = checked_path("source", source), checked_path("out", out)
    way = way_of(source, wanted)
    steps = Steps(source=source, place=Place(out), way=way, asked=wanted, detector=detector, jobs=jobs, watch=watch)
    with _held(steps):
        if _goes_on(steps, resume=resume, force=force):
            pack = steps.packed()
            release = steps.fitted()
        else:
            pack, release = _begun(steps)
        gone(steps.place.earlier)
        rows = steps.released(release)
        measured = steps.audited(pack, command)
        written = document.read(steps.place.audit)
        return Protected(
            way=way,
            released=steps.target,
            rows=rows,
            left_out=steps.left_out,
            audit=measured,
            verdict=verdict.spoken(written),
            failed_controls=verdict.failures(written),
            page=page.write(steps.place.audit),
            secrets=steps.secrets(measured),
            remarks=steps.remarks(rows, pack),
        )


def _asked(asked: Mapping[str, Any]) -> Asked:
    """What is asked for; raises InputError for an option that there is not."""
    there = [field.name for field in fields(Asked)]
    if unknown := [name for name in asked if name not in there]:
        raise InputError(f"protect: options are {', '.join(there)}, got {unknown[0]!r}")
    if "hide" not in asked:
        raise InputError(f"hide: must name a private label, got none. {WITHOUT_LABELS}")
    return Asked(**asked)


@contextmanager
def _held(steps: Steps) -> Iterator[None]:
    """Holds the place, so that no other run writes there; raises InputError where one does, or others' files lie there.

    Folders that hold nothing in the end are removed.
    """
    place = steps.place
    files.check_place(place.out)
    if steps.source.is_dir() and place.out.resolve().is_relative_to(steps.source.resolve()):
        raise InputError(f"{place.out}: lies inside the source {steps.source}; choose another place")
    ours = place.asked.is_file() or place.packed.is_file()
    strange = place.strangers() or ([] if ours else [path for path in place.results if os.path.lexists(path)])
    if strange:
        raise InputError(
            f"{strange[0]}: already exists, and is not of `veil protect`; choose another name than {place.out}"
        )
    place.private.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.private.chmod(0o700)
    lock = files.held(place.private)
    try:
        yield
    finally:
        for folder in (place.private, place.out):
            with suppress(OSError):  # it holds something
                folder.rmdir()
        if lock is not None:
            os.close(lock)


def _goes_on(steps: Steps, *, resume: bool, force: bool) -> bool:
    """Whether an earlier run goes on; raises InputError where it may neither go on nor be replaced."""
    place = steps.place
    if resume and force:
        raise InputError("resume and force: either an earlier run goes on, or it is replaced; leave one out")
    for path in place.own:
        if path.parent.is_dir():
            files.sweep(path)
    half = place.earlier.exists() and not (place.is_set_aside() and place.asked.is_file())
    if place.returning.exists() or half or (force and place.earlier.exists()):  # what was to replace it was killed
        place.put_back()
    if not place.asked.is_file() or force:
        return False
    if not resume:
        raise InputError(f"{place.out}: already exists; go on with it (--resume), replace it (--force), or choose "
                         "another name")  # fmt: skip
    if place.asked.read_text("utf-8") != steps.identity:
        raise InputError(f"{place.out}: was begun with other options or another source; choose another name, or force")
    return True


def _begun(steps: Steps) -> tuple[Pack, Release]:
    """Reads the source and fits a release, in place of an earlier run's, which comes back where anything is refused."""
    place = steps.place
    place.set_aside(reread=not steps.is_read())
    try:
        pack = steps.packed()
        steps.check(pack)
        with files.written(place.asked) as file:
            file.write(steps.identity.encode())
        return pack, steps.fitted()
    except InputError:
        place.put_back()
        raise
