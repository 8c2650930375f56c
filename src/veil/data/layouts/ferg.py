"""The layout ``ferg``: the Facial Expression Research Group's stylised characters (Aneja et al. 2016).

The source holds a folder for each character, and in it one for each expression::

    aia/aia_anger/aia_anger_1.png
    aia/aia_joy/aia_joy_1.png
    bonnie/bonnie_anger/bonnie_anger_1.png

(or one folder that does, as the archive unpacks). Labels: ``character`` and ``expression``. Files that lie elsewhere
are skipped by name. The published pre-processing is ``--size 50``, grey.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from veil.data.layouts.folder import walk
from veil.data.layouts.listing import Item, Listing, Options, check_options, clean
from veil.errors import InputError

EXPRESSIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")


def read(source: Path, options: Options) -> Listing:
    """Lists the images of the characters' folders; raises InputError where there is none."""
    check_options("ferg", options, {}, labels=False)
    root = _root(source)
    found, others = walk(root)
    notes = [f"{others} files are no images by their name's ending and were left aside."] if others else []
    if not any(_labels(clean(name)) for name, _ in found):
        raise InputError(f"{source}: holds no image in a folder <character>/<character>_<expression>/")

    def items() -> Iterator[Item]:
        for name, problem in found:
            labels = _labels(clean(name))
            lost = "" if labels else "not in a folder <character>/<character>_<expression>/ of a known expression"
            yield Item(clean(name), root / name, labels, None, problem or lost)

    return Listing(items=items(), count=len(found), attributes=("character", "expression"), notes=tuple(notes))


def _labels(name: str) -> dict[str, str | None]:
    """Character and expression of an image's path; nothing where the path does not tell both."""
    parts = name.split("/")
    if len(parts) != 3:
        return {}
    character, _, expression = parts[1].rpartition("_")
    if character.lower() != parts[0].lower() or expression.lower() not in EXPRESSIONS:
        return {}
    return {"character": character.lower(), "expression": expression.lower()}


def _root(source: Path) -> Path:
    """The folder of the characters' folders: the source, or the one folder in it."""
    if not source.is_dir():
        raise InputError(f"{source}: {'not a folder' if source.exists() else 'no such folder'}")
    inner = [p for p in source.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))]
    if len(inner) == 1 and not any("_" in p.name for p in inner[0].iterdir() if p.is_dir()):
        return inner[0]
    return source
