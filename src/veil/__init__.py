"""Veil: releases of images of people that keep a declared use and hide declared private attributes, and their audit."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from veil._version import __version__
from veil.errors import InputError

if TYPE_CHECKING:
    from veil.audit.findings import Finding
    from veil.audit.run import Subject
    from veil.data.build import pack
    from veil.data.pack import Pack
    from veil.estimator import Protector
    from veil.pipeline import Entry, audit_pack, fit
    from veil.release import Release

_HOMES = {
    "Entry": "veil.pipeline",
    "Finding": "veil.audit.findings",
    "Pack": "veil.data.pack",
    "Protector": "veil.estimator",
    "Release": "veil.release",
    "Subject": "veil.audit.run",
    "audit_pack": "veil.pipeline",
    "fit": "veil.pipeline",
    "pack": "veil.data.build",
}

__all__ = [
    "Entry",
    "Finding",
    "InputError",
    "Pack",
    "Protector",
    "Release",
    "Subject",
    "__version__",
    "audit_pack",
    "fit",
    "pack",
]


def __getattr__(name: str) -> Any:
    """Names are imported when first used, so that ``import veil`` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'veil' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
