"""Whether pictures were cut as those that a release was fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from veil.data import framing
from veil.data.pack import Pack
from veil.release import Release


def framing_doubt(
    release: Release, what: str, pack: Pack | None, pictures: Mapping[str, Sequence[float]] | None = None
) -> str:
    """A warning where pictures were not cut as those that a release was fitted on; else "".

    Args:
        release: The release.
        what: What the warning calls the pictures.
        pack: Where they are, if in a pack, which says how they were cut and what they were like.
        pictures: What they are like (:func:`veil.data.framing.described`), where they are in no pack.
    """
    crop = release.contract.crop
    if pack is not None and "crop" in pack.meta and pack.kind == "images" and not release.contract.aligned:
        pictures = pack.meta.get("pictures")
        if pack.framing["crop"] != crop:
            return (
                f"{what}: its images were cropped to {pack.framing['crop'] or 'their centred square'}, those that the "
                f"release was fitted on to {crop or 'their centred square'}; pack them alike (--crop)."
            )
    fitted_on = release.made.get("pictures")
    return "" if fitted_on is None or pictures is None else framing.doubt(what, fitted_on, pictures, crop)
