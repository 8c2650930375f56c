"""Layouts: one function per way in which data sets lie on disks, all in one dict.

A layout reads what users have, unchanged, and returns a :class:`~veil.data.layouts.listing.Listing`. It decodes
nothing, reports what it must leave out, and refuses options that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from veil.data.layouts import (
    celeba,
    embeddings,
    fairface,
    ferg,
    folder,
    lfw,
    msceleb,
    parquet,
    pendigits,
    stylised,
    utkface,
    vggface2,
)
from veil.data.layouts.listing import Listing, Options

LAYOUTS: dict[str, Callable[[Path, Options], Listing]] = {
    "stylised": stylised.read,
    "folder": folder.read,
    "parquet": parquet.read,
    "lfw": lfw.read,
    "celeba": celeba.read,
    "utkface": utkface.read,
    "fairface": fairface.read,
    "ferg": ferg.read,
    "pendigits": pendigits.read,
    "embeddings": embeddings.read,
    "vggface2": vggface2.read,
    "msceleb": msceleb.read,
}
