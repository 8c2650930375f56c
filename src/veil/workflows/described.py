"""What findings say of the data and of those who were audited."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veil.auditing.setting import Setting
from veil.data.pack import SPLITS, Pack
from veil.workflows.subjects import INPUT, Subject


def data(setting: Setting) -> dict[str, Any]:
    """What findings say of the data."""
    pack, private, utility = setting.pack, setting.private, setting.utility
    identity = pack.label("identity") if pack.knows_people else None
    splits = {}
    for split in SPLITS:
        rows = pack.rows(split)
        known = identity[rows][identity[rows] >= 0] if identity is not None else None
        splits[split] = {"n": len(rows), "identities": None if known is None else len(np.unique(known))}
    labels = {
        name: {
            "classes": list(pack.classes[name]),
            "counts": {
                split: np.bincount(
                    pack.label(name)[pack.rows(split, known=(name,))], minlength=len(pack.classes[name])
                ).tolist()
                for split in SPLITS
            },
            **({"predicted": dict(pack.predicted[name])} if name in pack.predicted else {}),
        }
        for name in dict.fromkeys([*private, *utility])
        if name != "identity"
    }
    return {
        "layout": pack.meta.get("layout", ""),
        "kind": pack.kind,
        "shape": list(pack.x.shape[1:]),
        "n": len(pack),
        "identities": None if identity is None else len(np.unique(identity[identity >= 0])),
        "fingerprint": pack.fingerprint,
        "splits": splits,
        "labels": labels,
        "private": list(private),
        "utility": list(utility),
        "skipped": pack.meta.get("skipped", 0),
        "attack_on": list(setting.attack_on),
        **({"about": told} if (told := pack.meta.get("about")) else {}),
    }


def unprotected(pack: Pack) -> dict[str, Any]:
    """What findings say of the unprotected input."""
    return {
        "name": INPUT, "method": "", "preset": "", "k": int(np.prod(pack.x.shape[1:])), "seed": None, "role": "input",
        "config": {}, "data": None, "note": "the unprotected input",
    }  # fmt: skip


def audited(subject: Subject) -> dict[str, Any]:
    """What findings say of a subject."""
    common = {"name": subject.name, "role": subject.stands_for, "named": subject.named}
    release = subject.release
    if release is None:
        assert subject.vectors is not None
        note = subject.note or "vectors from outside"
        return common | {"method": "", "preset": "", "k": subject.vectors.shape[1], "seed": None, "config": {},
                         "data": None, "note": note, "fingerprint": _hash(subject.vectors)}  # fmt: skip
    return common | {
        "method": release.method,
        "preset": subject.preset,
        "k": release.contract.k,
        "seed": release.made.get("seed"),
        "config": dict(release.config),
        "data": release.made.get("data"),
        "fingerprint": release.fingerprint,
        "note": " ".join([subject.note, *release.made.get("warnings", ())]).strip(),
    }


def _hash(vectors: NDArray[Any]) -> str:
    """SHA-256 of vectors, by which a file of them is told: of their float32 values, row by row, little-endian."""
    digest = hashlib.sha256()
    for start in range(0, len(vectors), 4096):
        digest.update(np.ascontiguousarray(vectors[start : start + 4096], "<f4").data)
    return digest.hexdigest()
