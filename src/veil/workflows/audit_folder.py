"""Audit what lies in files: releases, and anybody's vectors, of a pack or of a file of vectors with labels."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from veil.data import build
from veil.data.layouts.folder import is_table
from veil.data.pack import Pack
from veil.errors import InputError
from veil.findings import NAME, Finding
from veil.workflows import audit
from veil.workflows.named import NamedPath, release_subject, vectors_subject

Remark = Callable[[str, str], None]
"""Called with "warning", of what is lost, "note" or "aside", and a sentence that the user should know."""


@dataclass(frozen=True, kw_only=True)
class AuditedFiles:
    """What is audited.

    Attributes:
        source: A pack, or a file of unprotected vectors with labels; None where nothing unprotected is there, and the
            first file of vectors brings the labels.
        labels: Labels of a file of vectors, where they are in another file, or another pack.
        releases: Folders of releases.
        vectors: Files of anybody's releases of the source's rows.

    Raises:
        InputError: If there is neither source nor vectors.
    """

    source: Path | None
    labels: Path | None = None
    releases: Sequence[NamedPath] = ()
    vectors: Sequence[NamedPath] = ()

    def __post_init__(self) -> None:
        if self.source is None and not self.vectors:
            raise InputError("audit: needs a PACK, or a file of vectors with labels (--vectors), got neither")

    @property
    def data(self) -> Path:
        """Where rows and labels come from."""
        return self.source or self.vectors[0].path


@dataclass(frozen=True, kw_only=True)
class FolderAudit:
    """What an audit made.

    Attributes:
        findings: The findings.
        path: Their file.
        use: The first use that was measured; "" where none was.
        warnings: Of the data and the releases.
    """

    findings: Sequence[Finding]
    path: Path
    use: str
    warnings: Sequence[str]


@contextmanager
def opened(source: Path, *, labels: Path | None = None, private: Sequence[str] = (), seed: int = 0) -> Iterator[Pack]:
    """A pack; or a file of vectors with their labels, packed into a folder that is removed at the end.

    Args:
        source: A pack's folder, or a file, or a folder of Parquet files, that the layout ``embeddings`` reads.
        labels: Labels of a file of vectors, where they are in another file, or another pack.
        private: Where identity is among them, it may straddle splits that are drawn.
        seed: Of the splits, where the file prescribes none.

    Raises:
        InputError: If the source is neither, or the labels do not fit.
    """
    if not source.exists():
        raise InputError(f"{source}: there is no such pack or file of vectors")
    if not is_table(source):
        if labels is not None:
            raise InputError(f"labels: are for a file of vectors, and {source} is none")
        yield Pack.open(source)
        return
    with tempfile.TemporaryDirectory(prefix="veil-") as folder:
        pack = build.pack(
            "embeddings", source, Path(folder) / "pack", labels=labels, seed=seed, disjoint="identity" not in private
        )
        yield replace(pack, path=source)  # messages name the file, not a folder that is gone


def audit_into(
    folder: Path,
    files: AuditedFiles,
    *,
    private: Sequence[str],
    utility: Sequence[str] = (),
    attack_on: Sequence[str] | None = None,
    seed: int = 0,
    remark: Remark = lambda kind, sentence: None,
    **options: Any,
) -> FolderAudit:
    """Audit what lies in files, and write ``findings.json`` with its pictures into a folder.

    Args:
        folder: Where findings go.
        files: What is audited.
        private: Labels to attack.
        utility: ``"identity"``, or labels to read; if empty identity, where the data say who is seen and it is not
            private.
        attack_on: Splits that attackers train on; if None ``attack`` of a pack, ``protect`` and ``attack`` of files.
        seed: Seeds attackers and pairs, and the splits of a file.
        remark: Told, before the audit begins, what is lost, what is left out, and what may be wrong.
        **options: As for :func:`veil.workflows.audit.audit`.

    Raises:
        InputError: For anything that does not fit.
    """
    data = files.data
    tabular = is_table(data)
    if attack_on is None:
        attack_on = ("protect", "attack") if tabular else ("attack",)
    if files.source is None:  # nothing unprotected is there to attack, or to put a control on
        options |= {"baselines": (), "with_input": False}
    with opened(data, labels=files.labels, private=private, seed=seed) as pack:
        warnings = list(pack.meta["warnings"]) if tabular else []
        if tabular:
            _remark_rows(pack, data, remark)
        subjects = []
        for named in files.releases:
            subjects.append(release_subject(named, pack))
            if doubt := subjects[-1].note:
                remark("warning", doubt)
                warnings.append(doubt)
        subjects += [vectors_subject(named, pack) for named in files.vectors]
        uses = list(utility) or [use for use in pack.known_use("identity") if use not in private]
        if not pack.knows_people:
            unmeasured = "" if uses else ", and no use is measured, for --utility names none"
            remark("aside", f"{data}: does not say who is seen: each row counts as a person{unmeasured}")
        measured = audit.audit(
            pack, subjects, folder, private=private, utility=uses, attack_on=attack_on, seed=seed, **options
        )
    return FolderAudit(findings=measured.findings, path=folder / NAME, use=uses[0] if uses else "", warnings=warnings)


def labels_in(source: Path | None) -> str:
    """What may be asked of a pack, as the end of a message; "" of what is none."""
    try:
        pack = None if source is None or source.is_file() else Pack.open(source)
    except InputError:
        pack = None
    if pack is None:
        return ""
    return f"; {pack.labels_there}"


def _remark_rows(pack: Pack, file: Path, remark: Remark) -> None:
    """What became of the rows of a file of vectors."""
    for kind in ("warning", "note"):
        for sentence in pack.meta[f"{kind}s"]:
            remark(kind, sentence)
    if pack.meta["skipped"]:
        remark("aside", f"{file}: {pack.meta['skipped']} rows cannot be used and are left out")
