"""A model card for every release that was judged, in Markdown: Mitchell et al., "Model cards for model reporting"
(FAT* 2019).
"""

from __future__ import annotations

import re
from pathlib import Path

import jinja2

from veil.files import write_text
from veil.report import tables, threats
from veil.report.document import Document, read
from veil.report.verdict import controls, guessed, verdicts
from veil.report.words import capitalised, use_name

NAME = "card.md"


def write(out: Path) -> Path:
    """Write ``out/card.md`` from ``out/findings.json``; the same file gives the same bytes.

    Raises InputError for a missing, broken or foreign ``findings.json``, and where the card cannot be written.
    """
    return write_text(out / NAME, render(read(out)), "card")


def render(document: Document) -> str:
    """The card of a document."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("veil.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    checks = controls(document)
    sentences = {release.name: each for release, each in verdicts(document, checks)}
    answers = {
        release.name: [(threat, threat.answers[number]) for threat in threats.threats(document)]
        for number, release in enumerate(threats.judged(document))
    }
    return environment.get_template("card.md").render(
        document=document,
        releases=threats.judged(document),
        sentences={name: [_spoken(s.exact) for s in each] for name, each in sentences.items()},
        answers=answers,
        failed=[check.meaning for check in checks if check.outcome == "failed"],
        missing=[check.meaning for check in checks if check.outcome == "missing"],
        guessed=guessed(document),
        settings=tables.settings,
        use_name=use_name,
    )


def _spoken(sentence: object) -> str:
    return capitalised(re.sub(r"<[^>]*>", "", str(sentence)))


def plain(text: object) -> str:
    """A text as Markdown shows it: what would be mark-up, or HTML, is not."""
    escaped = re.sub(r"([\\`*_{}\[\]|~#])", r"\\\1", str(text))
    return " ".join(escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())
