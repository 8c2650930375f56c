"""Veil: releases of images of people that keep a declared use and hide declared private attributes, and their audit."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from veil._version import __version__
from veil.errors import InputError

if TYPE_CHECKING:
    from veil.data.build import pack
    from veil.data.pack import Pack
    from veil.findings import Finding
    from veil.methods.fitting import Fit
    from veil.release import Release
    from veil.workflows.audit import Audit, audit
    from veil.workflows.audit_scores import audit_scores
    from veil.workflows.check import Checked, check
    from veil.workflows.compare import compare
    from veil.workflows.estimator import Protector
    from veil.workflows.fit import fit
    from veil.workflows.label import label
    from veil.workflows.protect import Protected, protect
    from veil.workflows.rekey import rekey
    from veil.workflows.subjects import Subject

_HOMES = {
    "Audit": "veil.workflows.audit",
    "Checked": "veil.workflows.check",
    "Finding": "veil.findings",
    "Fit": "veil.methods.fitting",
    "Pack": "veil.data.pack",
    "Protected": "veil.workflows.protect",
    "Protector": "veil.workflows.estimator",
    "Release": "veil.release",
    "Subject": "veil.workflows.subjects",
    "audit": "veil.workflows.audit",
    "audit_scores": "veil.workflows.audit_scores",
    "check": "veil.workflows.check",
    "compare": "veil.workflows.compare",
    "fit": "veil.workflows.fit",
    "label": "veil.workflows.label",
    "pack": "veil.data.build",
    "protect": "veil.workflows.protect",
    "rekey": "veil.workflows.rekey",
}

__all__ = [
    "Audit",
    "Checked",
    "Finding",
    "Fit",
    "InputError",
    "Pack",
    "Protected",
    "Protector",
    "Release",
    "Subject",
    "__version__",
    "audit",
    "audit_scores",
    "check",
    "compare",
    "fit",
    "label",
    "pack",
    "protect",
    "rekey",
]


def __getattr__(name: str) -> Any:
    """Names are imported when first used, so that ``import veil`` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'veil' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
