"""What the site of mkdocs needs beyond docs/: the two pages of the folder above, and links that lead there."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

import veil

ROOT = Path(__file__).parent.parent
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
INTERVAL = re.compile(r"\([\d.]+ - [\d.]+\)")
FETCHED = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*\s(?:src|href)=["\']?((?:https?:)?//[^\s"\'>]+)')
SHALLOW = re.compile(r"^```.*?^```$|^ {2,3}(?=\S)", re.M | re.S)
"""Blocks of code, and what stands two or three blanks in: inside a list; mkdocs asks for four there."""

log = logging.getLogger("mkdocs.hooks")


def on_files(files: Any, config: Any) -> None:
    """Adds the pages that lie above docs/."""
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        files.append(File.generated(config, PAGES[name], content=(ROOT / name).read_text(encoding="utf-8")))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links, and lists, as mkdocs wants them; the start page has the whole width."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation", "toc"]
    return SHALLOW.sub(lambda match: "    " if match[0].isspace() else match[0], linked(markdown, page))


def linked(markdown: str, page: Any) -> str:
    """Links to pages by their place in the site; what exists outside it, such as code, becomes plain text.

    What leads nowhere stays as it is, for mkdocs to complain of.
    """
    source = {to: ROOT / name for name, to in PAGES.items() if to != "index.md"}.get(
        page.file.src_uri, ROOT / "docs" / page.file.src_uri
    )
    here = (ROOT / "docs" / page.file.src_uri).parent

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = (source.parent / target).resolve()
        if "://" in target or not path.is_relative_to(ROOT) or not path.exists():
            return match[0]
        inside = path.relative_to(ROOT).as_posix()
        if inside in PAGES:
            path = ROOT / "docs" / PAGES[inside]
        elif not inside.startswith("docs/"):
            return text
        return f"[{text}]({Path(os.path.relpath(path, here)).as_posix()}{anchor})"

    return LINK.sub(link, markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Intervals stay on one line; roles of docstrings (``:class:``, say) go; every public name has its entry."""
    html = INTERVAL.sub(r'<span class="interval">\g<0></span>', html)
    if page.file.src_uri != "api.md":
        return html
    for name in veil.__all__:
        if f'id="veil.{name}"' not in html and name != "__version__":
            log.warning("api.md has no entry for veil.%s, which veil.__all__ names", name)
    return re.sub(r":[a-z]+:(?=<code>|<a )", "", html)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """No page makes a reader's browser ask another host; links that a reader follows may lead there."""
    for match in FETCHED.finditer(output):
        log.warning("%s fetches %s from another host", page.file.src_uri, match[1])
    return output
