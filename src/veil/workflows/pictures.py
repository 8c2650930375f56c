"""Pictures of an audit: what releases look like, and what decoders make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veil.auditing import inversion
from veil.data.pack import Pack
from veil.findings import Finding
from veil.findings.codes import CERTIFICATE
from veil.report.words import certified
from veil.workflows.subjects import Subject


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A picture that goes beside findings.

    Attributes:
        file: Its path in their folder.
        title: A few words.
        caption: What is to be seen.
        image: The picture.
    """

    file: str
    title: str
    caption: str
    image: Image.Image


def decoded(pack: Pack, subjects: Sequence[Subject]) -> list[Sheet]:
    """Test images above what each release's own decoder redraws from it."""
    releases = {s.name: s.release for s in subjects if s.release is not None and s.release.decoder is not None}
    if pack.kind != "images" or not releases:
        return []
    x = _some(pack, 8)
    strips = [x, *(release.redraw(release.transform(x)) for release in releases.values())]
    caption = (
        f"Row 1: images of the test split. Below, what each method's own decoder redraws from their releases "
        f"({_numbered(releases)}). A decoder trained with the protector is not an attack: a fresh one may redraw more."
    )
    title = "Originals and reconstructions"
    return [Sheet(file="pictures/reconstructions.png", title=title, caption=caption, image=picture_sheet(strips))]


def inverted(pack: Pack, pictures: Mapping[str, NDArray[np.uint8]]) -> list[Sheet]:
    """Test images above what the worst fresh decoder redraws from each release."""
    if pack.kind != "images" or not pictures:
        return []
    strips = [np.asarray(pack.x[inversion.shown(pack)]), *pictures.values()]
    caption = (
        f"Row 1: images of the test split. Below, what the worst fresh decoder redraws from releases "
        f"({_numbered(pictures)})."
    )
    title = "Inversion by fresh decoders"
    return [Sheet(file="pictures/inversion.png", title=title, caption=caption, image=picture_sheet(strips))]


def released(pack: Pack, subjects: Sequence[Subject], findings: Sequence[Finding]) -> list[Sheet]:
    """For each release that is an image, test images above what is released in their place."""
    releases = {s.name: s.release for s in subjects if s.release is not None and s.release.contract.image is not None}
    if pack.kind != "images" or not releases:
        return []
    x = _some(pack, 12)
    sheets = []
    for number, (name, release) in enumerate(releases.items()):
        words = f"Above: images of the test split. Below: what {name} releases in their place."
        if release.contract.support:
            words += f" It is always one of the same {release.contract.support} images."
        bounds = [f for f in findings if (f.release, f.code, f.ok) == (name, CERTIFICATE, True)]
        words += "".join(map(_certificate, bounds))
        image = picture_sheet([x, release.transform(x)])
        title = f"What {name} releases"
        sheets.append(Sheet(file=f"pictures/releases-{number}.png", title=title, caption=words, image=image))
    return sheets


def _some(pack: Pack, columns: int) -> NDArray[Any]:
    """Some images of the test split, evenly spaced."""
    rows = pack.rows("test")
    return np.asarray(pack.x[rows[np.linspace(0, len(rows) - 1, min(columns, len(rows))).astype(int)]])


def _numbered(names: Mapping[str, Any]) -> str:
    """Which row of a sheet is whose."""
    return ", ".join(f"{i + 2}: {name}" for i, name in enumerate(names))


def _certificate(bound: Finding) -> str:
    """A certificate in words."""
    return (
        f" Certified at {_percent(bound.level)} confidence: whoever sees one release of a person, and knows all about "
        f"how it was made, guesses {bound.target} with a balanced accuracy of at most "
        f"{_percent(certified(bound.value or 0.0))} (chance {_percent(bound.chance)})."
    )


def _percent(value: float | None) -> str:
    assert value is not None
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def picture_sheet(strips: Sequence[NDArray[Any]], *, scale: int = 2, gap: int = 4) -> Image.Image:
    """Strips of uint8 images ``(n, H, W[, 3])`` under one another, on white."""
    rows = []
    for strip in strips:
        colours = ((0, 0),) * (strip.ndim - 3)
        padded = np.pad(strip, ((0, 0), (gap, 0), (gap, 0), *colours), constant_values=255)
        rows.append(np.concatenate(list(padded), axis=1))
    sheet = np.pad(np.concatenate(rows, axis=0), ((0, gap), (0, gap), *colours), constant_values=255)
    image = Image.fromarray(sheet)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
