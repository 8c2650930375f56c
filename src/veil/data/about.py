"""A data sheet: what those who collected a data set declare of it (after Gebru et al., "Datasheets for datasets",
Communications of the ACM 64(12), 2021). Nobody checks it; it is kept with the pack, and shown with what is measured on
it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from veil.errors import InputError, check_type, checked_path
from veil.foreign import one_line, parsed_json, read_bytes, shown

FIELDS: Mapping[str, str] = {
    "source": "where the data come from",
    "collected": "when, and how",
    "people": "who is seen",
    "licence": "under which terms they may be used",
    "consent": "what those who are seen were asked, and agreed to",
    "purpose": "what they were collected for",
    "restrictions": "what they must not be used for",
    "retention": "until when they are kept",
    "contact": "whom to ask",
}
"""What a data sheet may say: a name, and what it is about."""
LONGEST = 2000
"""Letters of a text."""
_MOST = 1 << 16  # bytes of a file


def sheet(about: str | Path | Mapping[str, str] | None) -> dict[str, str]:
    """A data sheet, in the order of :data:`FIELDS`, of a TOML or JSON file or of texts by name; nothing of None.

    Raises:
        InputError: In one line, for a file that cannot be read, a field that there is not, and what is no text of 1 to
            :data:`LONGEST` letters.
    """
    if about is None:
        return {}
    check_type("about", about, (str, Path, Mapping), "a TOML or JSON file, or texts by name")
    if isinstance(about, Mapping):
        where, told = "about", dict(about)
    else:
        where, told = str(about), _read(checked_path("about", about))
    try:
        check(told)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    return {name: " ".join(told[name].split()) for name in FIELDS if name in told}


def check(told: Any) -> None:
    """Raises ValueError for the first thing in which an object is no data sheet."""
    if not isinstance(told, Mapping):
        raise ValueError(f"a data sheet must be texts by name, got {shown(told)}")
    if strange := [name for name in told if name not in FIELDS]:
        raise ValueError(f"a data sheet has the fields {', '.join(FIELDS)}, got {shown(strange[0])}")
    for name, text in told.items():
        if not isinstance(text, str) or not text.strip() or len(text) > LONGEST:
            got = f"{len(text):,} letters" if isinstance(text, str) and text.strip() else shown(text)
            raise ValueError(f"{name} must be a text of 1 to {LONGEST:,} letters, got {got}")


def _read(path: Path) -> Any:
    """What a file says."""
    try:
        text = read_bytes(path, _MOST).decode("utf-8")
        return parsed_json(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: the data sheet cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError, TOMLDecodeError and JSONDecodeError are such
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
        raise InputError(f"{path}: cannot be read as {kind} ({one_line(error)})") from None
