"""What files beside a folder of images say of each: where its eyes are, and what is to be hidden in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from veil.data import sidecar
from veil.data.classes import few
from veil.data.columns import nfc, plain
from veil.data.faces import Detector, EyeFinder
from veil.data.landmarks import Landmarks, read_landmarks
from veil.data.layouts.listing import clean
from veil.data.pack import Pack
from veil.errors import InputError
from veil.parquet import SUFFIXES
from veil.release import Release


def eyes_for(
    release: Release, source: Path, pack: Pack | None, file: str | Path | None, faces: bool | Detector
) -> Landmarks | EyeFinder | None:
    """What tells where eyes are, where the release needs that; refuses one too many or too few."""
    album = pack is None and (source.is_dir() or source.suffix.lower() in SUFFIXES)
    if file is None and not faces:
        if album and release.contract.aligned:
            raise InputError(
                f"{source}: the release was fitted on aligned faces, so faces must be found (--faces), or a file of "
                "landmarks must say where eyes are, got neither"
            )
        return None
    what = "faces" if file is None else f"landmarks {file}"
    if file is not None and faces:
        raise InputError(f"{what}: eyes are told by landmarks, or found; got faces, too")
    if not album:
        got = "a file" if pack is None else "a pack"
        raise InputError(f"{what}: only a folder or a table of images is aligned, got {got}")
    if not release.contract.aligned:
        raise InputError(f"{what}: must not be given, as the release was not fitted on aligned faces")
    return EyeFinder(faces) if file is None else read_landmarks(file)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Attributes that can be hidden, and which of them are, by the image's path; all where an image is not there.

    ``path`` is the file that says so.
    """

    path: Path
    names: tuple[str, ...]
    hidden: Mapping[str, frozenset[str]]

    def check(self, paths: Iterable[str]) -> None:
        """Raises InputError for rows that name none of these paths: what they choose would not be heard."""
        there = {plain(clean(path)) for path in paths}
        if strange := [path for path in self.hidden if path not in there]:
            raise InputError(f"hide {self.path}: every row must name an image, got {few(strange, 2)}")

    def of(self, paths: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
        """For each attribute ``(m,)``, whether it is hidden in the images of these paths."""
        each = [self.hidden.get(plain(clean(path)), frozenset(self.names)) for path in paths]
        return {name: np.array([name in some for some in each], bool) for name in self.names}


def read_choices(release: Release, path: Path) -> Choices:
    """Which attributes are hidden in which images; refuses a file that is not called for."""
    if not release.contract.chooses:
        raise InputError(f"hide {path}: must not be given, as the release leaves nothing to choose")
    names = tuple(release.contract.classes)
    hidden: dict[str, frozenset[str]] = {}
    for row, image, cells in sidecar.read(path, ("hide",), "the file of choices"):
        hidden[image] = frozenset(nfc(name.strip()) for name in cells["hide"].split(";") if name.strip())
        if unknown := sorted(hidden[image] - set(names)):
            raise InputError(f"{row}: hide must name some of {', '.join(names)}, got {unknown[0]!r}")
    return Choices(path=path, names=names, hidden=hidden)
