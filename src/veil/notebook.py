"""What notebooks show of packs, releases and audits: small tables and strips of pictures, as HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veil.errors import printable


def facts(title: str, about: Mapping[str, Any]) -> str:
    """A title above a table of names and values."""
    rows = "".join(f"<tr><th style='text-align:left'>{_text(k)}</th><td>{_text(v)}</td></tr>" for k, v in about.items())
    return f"<strong>{_text(title)}</strong><table>{rows}</table>"


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table with a row of headings."""
    head = "".join(f"<th style='text-align:left'>{_text(h)}</th>" for h in heads)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def strip(images: NDArray[np.uint8]) -> str:
    """Images ``(n, H, W[, 3])`` side by side."""
    file = io.BytesIO()
    Image.fromarray(np.concatenate(list(images), axis=1)).save(file, "png")
    data = base64.b64encode(file.getvalue()).decode()
    return f"<img alt='' src='data:image/png;base64,{data}' style='max-width:100%'>"


def _text(value: Any) -> str:
    return escape(printable(str(value)))
