"""How a source is read and released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from veil.data.faces import Detector
from veil.errors import InputError
from veil.release.release import BATCH
from veil.workflows.apply.parts import PART

PHOTOGRAPHS = 32
"""Whole photographs in a batch: of some there are dozens of faces."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a source is read and released.

    Attributes:
        column: The source's column, or array, of vectors, or of images, where it is not clear; or several columns of
            vectors, ``A,B,...``.
        told: Private labels of the release whose classes the source's columns, or the pack, tell by name, so that they
            need not be guessed; where a row's is unknown (None, "" or NaN) it is guessed all the same.
        row_numbers: Name rows by their numbers in the source: its names may say who they are. Image files then lie in
            one folder, as ``000000.jpg`` and so on, with the endings that they had.
        landmarks: Where the eyes are in images of a folder (:mod:`veil.data.landmarks`); for releases that were fitted
            on aligned faces, which need it, and for no others. Images without a row are skipped.
        faces: In place of that the eyes of each image's largest face are found, by the bundled detector (the extra
            ``faces``) or one of your own (:class:`veil.data.faces.Detector`). Images without a face are skipped. With
            ``images`` every face is released, and set back into the whole photograph.
        blur_rest: Cover what may be a face in these photographs, too.
        hide: A CSV file that says which attributes to hide in which images, for releases that let this be chosen: its
            columns are ``path`` and ``hide``, names separated by ``;`` or none. Where an image has no row, all are.
        images: Write image files, from a folder of images, into a folder, which may exist and hold others; or a
            Parquet file of images.
        shard_rows: Rows of each of the Parquet files that a folder ``NAME.parquet`` is made of; one file if None.
        batch: Rows that are read and released at a time; by their kind if None.
        part: Rows of the source that a run which is killed loses at most; batches divide it. With ``images`` it is one
            batch.

    Raises:
        InputError: If a part is not whole batches, or a shard has no rows.
    """

    column: str | None = None
    told: Sequence[str] = ()
    row_numbers: bool = False
    landmarks: str | Path | None = None
    faces: bool | Detector = False
    hide: str | Path | None = None
    images: bool = False
    blur_rest: bool = False
    shard_rows: int | None = None
    batch: int | None = None
    part: int = PART

    def __post_init__(self) -> None:
        if self.shard_rows is not None and self.shard_rows < 1:
            raise InputError(f"shard rows: must be 1 or more, got {self.shard_rows}")
        if self.batch is not None and (self.batch < 1 or self.part < 1 or self.part % self.batch):
            raise InputError(f"part: must be whole batches of {self.batch} rows, got {self.part}")
        if self.blur_rest and not (self.images and self.faces):
            raise InputError("blur_rest: is of whole photographs, for which faces and images must be asked for, too")

    def rows_at_a_time(self, kind: str) -> int:
        """Rows in a batch of "images", "photographs" or "vectors"."""
        return self.batch or (PHOTOGRAPHS if kind == "photographs" else BATCH[kind])
