"""Applying a release: rows in their source's order, from images, packs and files of vectors to files and packs.

Rows are streamed: memory does not grow with their number. A run that was killed can be resumed, with the same result as
one that was not. Files appear whole or not at all. Releases that are images can go into image files instead, a tree
like that of their source.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from veil.data import framing
from veil.data.layouts.listing import LOSS
from veil.errors import InputError, check_type, checked_path
from veil.release import Release
from veil.workflows.apply.batches import Progress, released, unchanged, write_parts
from veil.workflows.apply.image_files import write_images
from veil.workflows.apply.options import Options
from veil.workflows.apply.outputs import Form, join, join_shards, write_pack
from veil.workflows.apply.parts import (
    Parts,
    exposed_file,
    list_remarked,
    list_skipped,
    partial_folder,
    skipped_file,
)
from veil.workflows.apply.plan import Plan, planned
from veil.workflows.framing import framing_doubt

Remark = Callable[[str, str], None]
"""Called with "warning", of what is lost, or "note", and a sentence that the user should know."""


class Applied(NamedTuple):
    """What was released.

    Attributes:
        rows: Rows written.
        skipped: Rows that could not be read, which are listed in ``OUT.skipped.csv``.
        exposed: Whole photographs among the rows in which no face was found, or a place may be one that was left as it
            was; they are listed in ``OUT.unprotected.csv``.
    """

    rows: int
    skipped: int
    exposed: int = 0


def apply(
    release: Release,
    source: str | Path,
    out: str | Path,
    options: Options | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    remark: Remark | None = None,
) -> Applied:
    """Release every row of a source.

    With ``options.images``, every image file of the source becomes one in ``out``: of the same path (or, with
    ``options.row_numbers``, called by its number), format and size,
    upright, in grey or RGB as it was released, and without Exif, colour profile, comments or any other metadata. The
    network sees what it would in a pack: the crop of the training pack, cut to its largest centred square, at the
    contract's size. Its release is resized (Lanczos) to the pixels that the crop has in the file, and where there is
    none to the file's own size, and so stretched where these are not square. What lies outside the crop is **not**
    written: it would give away who is seen. Of an aligned face the aligned square is written, and not turned back: as
    large as it is in the file (three times the eyes' distance), but at least 1 pixel and at most the file's shorter
    side.

    With ``options.images`` and ``options.faces`` whole photographs are written instead, of the same path, format and
    size, and as free of metadata: every face that is found is released, and set back where it was
    (:mod:`veil.data.compose`); faces too small or too far beyond the border to be aligned are covered; all else stays
    as it was. So do faces that were not found: photographs without one, or with places that may be faces, are listed
    in ``OUT.unprotected.csv``.

    Args:
        release: With its key, if it is keyed.
        source: A pack, a folder of images, a Parquet file of images (:mod:`veil.data.imagetable`), a Parquet, npz, npy
            or CSV file of vectors (:mod:`veil.data.vectors`), or a folder of Parquet files of either. Where the release
            knows the columns that its vectors stood in, a table's are put in their order.
        out: ``NAME.parquet``: columns ``source`` and ``release``, a fixed-size list; where the source is a table with a
            column a value, ``release_0``, ``release_1`` and so on instead; with ``options.shard_rows`` a folder of
            files ``part-00000.parquet`` and so on. With ``options.images`` it is
            a table of images, as Hugging Face keeps them: ``image``, a struct of ``bytes`` (PNG) and ``path``.
            ``NAME.npz``: arrays ``releases`` and ``source``. ``NAME.npy``: the
            releases alone. In files images are rows of values in [0, 1]. Or a folder: a pack of vectors, or of images,
            that keeps the labels and splits of the pack it came from. No label or other column of a file is copied: it
            may be private.
        options: How the source is read and released.
        resume: Go on with a run of the same release, source and target that was killed. Where files of the source have
            other times, rows that are done are read again and compared. Where the target is there already, it must be
            what the run gives.
        force: Whether to replace ``out``, or image files in it, and the parts of a run that is not resumed.
        progress: Told after every batch.
        remark: Told, at the end, what was left aside, what is lost, and what may be wrong: pictures of other shapes or
            sizes than the training pack's, say.

    Returns:
        How many rows were written, and how many could not be. In an npy file nothing tells which rows are missing, so
        for one the first such row is an error.

    Raises:
        InputError: Where source, release and target do not fit together, nothing could be read, two rows have one name,
            a told class is not one of the release's, a table lacks a column that the release was fitted on or has
            another, landmarks or choices are malformed, missing or not called for, or a run to resume had another
            release, source or target; if a file to be written exists; or, with ``images``, if the release gives
            vectors, or ``out`` and ``source`` lie one in the other.
    """
    check_type("release", release, Release, "a veil.Release")
    source, out = checked_path("source", source), checked_path("out", out)
    plan = planned(release, source, out, options or Options(), resume=resume, force=force)
    run = plan.run()
    try:
        applied = _written(plan, run, progress)
    except OSError as error:
        left = partial_folder(plan.out)
        rest = f"what was done waits in {left.name} to be resumed" if left.exists() else "nothing was left behind"
        raise InputError(f"{plan.out}: cannot be written ({error.strerror or error}); {rest}") from error
    if remark is not None:
        for warning in _warnings(plan, applied):
            remark("warning", warning)
        for note in plan.rows.notes:
            remark("note", note)
    return applied


def _written(plan: Plan, run: dict[str, str], progress: Progress | None) -> Applied:
    """Writes the parts that are missing, and what they make up."""
    rows, images = plan.rows, plan.image_files
    with (
        Parts(
            plan.out, plan.division, run=run, resume=plan.resume, force=plan.force, images=images,
            unchanged=partial(unchanged, rows, plan.source if images else None, progress),
        ) as parts,
        warnings.catch_warnings(),
    ):  # fmt: skip
        # Pillow warns of oddities (damaged Exif, say) in images that it decodes; what it cannot decode is listed.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        if images:
            write_images(plan, parts, progress)
        else:
            write_parts(partial(released, plan.release, plan.choices), rows, parts, progress)
        n, skipped = parts.totals()
        if n == 0:
            first = f"the first of {skipped} is {': '.join(parts.read(0).skipped[0])}" if skipped else "it is empty"
            reason = " ".join([f"{plan.source}: no row could be read; {first}.", *rows.notes])
            raise InputError(reason.removesuffix("."))
        exposed = 0
        if images:
            list_skipped(plan.out, parts.skipped())
            list_remarked(exposed_file(plan.out), parts.exposed())
            exposed = sum(1 for _ in parts.exposed())
        elif plan.pack is not None and not plan.out.suffix:
            write_pack(
                plan.pack, parts, plan.out, image=plan.release.contract.image, row_numbers=plan.options.row_numbers,
                force=plan.force, same=plan.same and plan.out.exists(),
            )  # fmt: skip
        else:
            image = plan.release.contract.image if plan.options.images else None
            form = Form(k=plan.division.k, columns=rows.columns, image=image)
            if (shard_rows := plan.options.shard_rows) is not None:
                join_shards(parts, plan.out, shard_rows, form, same=plan.same)
            else:
                join(parts, plan.out, form, same=plan.same)
    return Applied(n, skipped, exposed)


def _warnings(plan: Plan, applied: Applied) -> Iterator[str]:
    """What may be wrong with the rows, what is lost, and whether pictures were cut as those of the fit."""
    yield from plan.rows.warnings
    n, skipped, exposed = applied
    if skipped >= LOSS * (n + skipped):
        yield f"{skipped:,} of {n + skipped:,} were left out; {skipped_file(plan.out).name} says why."
    if exposed:
        yield (
            f"{exposed:,} of {n:,} photographs may hold faces that are unprotected: none was found in them, or a place "
            f"may be one; {exposed_file(plan.out).name} names them."
        )
    pictures = framing.described(plan.rows.uprights) if plan.rows.uprights else None
    if doubt := framing_doubt(plan.release, plan.source.name, plan.pack, pictures):
        yield doubt
