"""How pages are made of templates: every text is escaped, and nothing that is not given is passed over."""

from __future__ import annotations

import jinja2


def template(name: str) -> jinja2.Template:
    """A template of the package, by its file's name."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("veil.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
