"""The built-in stylised faces as a data set: nothing to download, and a known best attack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from veil.data import stylised
from veil.data.layouts.listing import Item, Listing, Options
from veil.errors import InputError

DEFAULTS = {"identities": 1000, "images": 6}
"""People, and images of each."""


def read(source: str | Path, options: Options) -> Listing:
    """Draw a population with ``options.seed``: images uint8 ``(H, W)`` or ``(H, W, 3)`` at the size asked for.

    Args:
        source: ``"identities=600,images=10"``, either alone, or just the number of identities; what is left out, or
            all of it where ``source`` is empty, comes from :data:`DEFAULTS`. ``options.settings`` takes the same names.
        options: ``seed``, ``size``, ``channels`` and ``settings`` are used.

    Raises:
        InputError: an unknown name, a value that is no number or out of range, or a file of labels.
    """
    if options.labels is not None:
        raise InputError(f"stylised faces: they come with their labels and take no file of them, not {options.labels}")
    text = "" if str(source) == "." else str(source)  # Path("") is "."
    chosen = dict(DEFAULTS)
    for name, value in [*_parts(text), *options.settings.items()]:
        if name not in DEFAULTS:
            raise InputError(f"stylised faces: {name!r} is not a setting; there are {', '.join(DEFAULTS)}")
        try:
            chosen[name] = int(value)
        except ValueError:
            raise InputError(f"stylised faces: {name} must be a whole number, not {value!r}") from None
    faces = stylised.population(chosen["identities"], chosen["images"], options.seed)
    images = stylised.stream(faces, size=options.size, channels=options.channels)
    best = stylised.gender_bayes_accuracy()
    return Listing(
        items=_items(faces, images),
        count=len(faces),
        attributes=tuple(faces.labels),
        notes=(f"By construction no attack finds gender in more than {best:.1%} of people on average.",),
    )


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """The settings in ``name=value,name=value``; a lone value is the number of identities."""
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        yield (name.strip(), value.strip()) if equals else ("identities", part)


def _items(faces: stylised.Faces, images: Iterator[stylised.Images]) -> Iterator[Item]:
    row = 0
    for chunk in images:
        for image in chunk:
            labels = faces.names(row)
            yield Item(source=f"{labels['identity']}/{row:07d}", data=image, labels=labels)
            row += 1
