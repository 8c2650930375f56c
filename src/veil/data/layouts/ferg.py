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

from veil.data.layouts.folder import inner_folders, systems_in, walk
from veil.data.layouts.listing import Item, Listing, Options, check_options, clean, only
from veil.errors import InputError

EXPRESSIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")


def read(source: Path, options: Options) -> Listing:
    """Lists the images of the characters' folders; raises InputError where there is none."""
    check_options("ferg", options, {}, labels=False)
    root = _root(source)
    entries, aside = walk(root)
    aside = aside if root == source else systems_in(source) + aside
    if not any(_labels(clean(name)) for name, _ in entries):
        raise InputError(f"{source}: holds no image in a folder <character>/<character>_<expression>/")

    def items() -> Iterator[Item]:
        for name, problem in entries:
            labels = _labels(clean(name))
            lost = "" if labels else "not in a folder <character>/<character>_<expression>/ of a known expression"
            yield Item(clean(name), root / name, labels, None, problem or lost)

    return Listing(items=items(), count=len(entries), attributes=("character", "expression"), notes=aside.notes())


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
    """The folder of the characters' folders: the source, or a folder in it; where neither is one, the source."""
    if not source.is_dir():
        raise InputError(f"{source}: {'not a folder' if source.exists() else 'no such folder'}")
    there = [folder for folder in (source, *inner_folders(source)) if _holds_characters(folder)]
    return only(source, there) if there else source


def _holds_characters(folder: Path) -> bool:
    return any(
        _labels(f"{character.name}/{expression.name}/")
        for character in inner_folders(folder)
        for expression in inner_folders(character)
    )
