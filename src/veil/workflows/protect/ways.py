"""Which method protects what, and what may be asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from veil.auditing.problem import EFFORTS
from veil.data.columns import nfc
from veil.data.layouts.folder import is_table
from veil.data.pack import Pack
from veil.errors import InputError, checked_seed
from veil.methods.registry import METHODS
from veil.nn.embedders import Embedder
from veil.release.beside import read_key_file

Kind = Literal["photographs", "images", "vectors"]
"""What a source holds: photographs in a folder, images of a pack, or vectors of a file or a pack."""
Form = Literal["photos", "vectors"]
"""What comes out."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a source is protected.

    Attributes:
        source: What it holds.
        form: What comes out.
        keeps: The use that is kept: ``"identity"``, or any ``"label"``.
        method: What protects it.
        preset: Named settings of the method; its default if "".
        templates: Whether faces become templates first, which are then protected.
    """

    source: Kind
    form: Form
    keeps: Literal["identity", "label"]
    method: str
    preset: str = ""
    templates: bool = False


WAYS = (
    Way(source="photographs", form="vectors", keeps="identity", method="template", templates=True),
    Way(source="photographs", form="vectors", keeps="label", method="deep"),
    Way(source="photographs", form="photos", keeps="identity", method="san", preset="hardened"),
    Way(source="photographs", form="photos", keeps="label", method="substitution"),
    Way(source="images", form="vectors", keeps="identity", method="deep"),
    Way(source="images", form="vectors", keeps="label", method="deep"),
    Way(source="images", form="photos", keeps="identity", method="san", preset="hardened"),
    Way(source="images", form="photos", keeps="label", method="substitution"),
    Way(source="vectors", form="vectors", keeps="identity", method="template"),
    Way(source="vectors", form="vectors", keeps="label", method="deep"),
)
"""Which method protects what: the one place that says so."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked for.

    Attributes:
        hide: Private labels.
        keep: ``"identity"``, so that faces can still be matched, or a label.
        form: What comes out, ``"photos"`` or ``"vectors"``.
        budget: For some of the private labels the highest balanced accuracy that the worst attack may reach, in (0, 1];
            vectors.
        labels: A CSV or Parquet file of labels, or a pack.
        landmarks: A CSV file that says where eyes are in photographs, in place of finding faces.
        matcher: What makes templates of faces, where these are protected: ``"dlib"``, which the extra ``faces`` brings
            (None says the same), an ONNX file, or an embedder of your own.
        by_folder: Whether the folder that a photograph lies in says who is seen.
        blur_rest: Cover what may be a face in photographs that are written, too.
        size: Side, in pixels, of aligned faces, where photographs are protected as images; 64 if None.
        settings: Changes to the method's preset.
        key: A file of 32 bytes for keyed noise; a fresh key if None.
        effort: Of the audit.
        seed: Of all but the key.
        row_numbers: Name the releases by the numbers of their rows, also photographs. Their names, which may say who is
            seen, go along otherwise.
        pictures: Whether the page shows some faces as they were, beside what became of them.
        name: What the findings call the releases; by what they are of if "".
    """

    hide: Sequence[str]
    keep: str = "identity"
    form: Form = "vectors"
    budget: Mapping[str, float] = field(default_factory=dict)
    labels: str | Path | None = None
    landmarks: str | Path | None = None
    matcher: str | Path | Embedder | None = None
    by_folder: bool = False
    blur_rest: bool = False
    size: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    key: str | Path | None = None
    effort: str = "standard"
    seed: int = 0
    row_numbers: bool = False
    pictures: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.hide, str):
            raise InputError(f"hide: must be a list of labels, got the text {self.hide!r}")
        for kind, names in (("hide", self.hide), ("keep", [self.keep])):
            if strange := [name for name in names if not isinstance(name, str) or not name]:
                raise InputError(f"{kind}: must be a label's name, got {strange[0]!r}")
        if not self.hide:
            raise InputError(f"hide: must name a private label, got none. {WITHOUT_LABELS}")
        if self.form not in get_args(Form):
            raise InputError(f"as: must be one of {', '.join(get_args(Form))}, got {self.form!r}")
        if self.effort not in EFFORTS:
            raise InputError(f"effort: must be one of {', '.join(EFFORTS)}, got {self.effort!r}")
        object.__setattr__(self, "hide", tuple(dict.fromkeys(nfc(name) for name in self.hide)))
        object.__setattr__(self, "keep", nfc(self.keep))
        object.__setattr__(self, "seed", checked_seed(self.seed))
        if self.keep in self.hide:
            raise InputError(f"keep {self.keep}: must not be hidden, too")
        self._check_budget()
        if self.blur_rest and (self.form != "photos" or self.landmarks is not None):
            raise InputError("blur_rest: is of photographs in which faces are found, and come out as photographs")

    def _check_budget(self) -> None:
        if not isinstance(self.budget, Mapping):
            raise InputError(f"budget: must be limits by label, got {self.budget!r}")
        for name, limit in self.budget.items():
            if name not in self.hide:
                raise InputError(f"budget: must name a label to hide ({', '.join(self.hide)}), got {name!r}")
            number = isinstance(limit, int | float) and not isinstance(limit, bool)
            if not number or math.isnan(limit) or not 0 < limit <= 1:
                raise InputError(f"budget: {name} must be a balanced accuracy in (0, 1], got {limit!r}")


WITHOUT_LABELS = (
    "Without one, a classifier of yours can guess it (`veil label`), `veil fit inversion` hides the picture itself, "
    "and `veil audit --utility identity` says how well people are matched and linked"
)


def way_of(source: Path, asked: Asked) -> Way:
    """How a source is protected; raises InputError where it cannot be, or where an option does not fit.

    All is checked here that needs no row of the source.
    """
    kind = kind_of(source)
    keeps = "identity" if asked.keep == "identity" else "label"
    ways = [way for way in WAYS if (way.source, way.form, way.keeps) == (kind, asked.form, keeps)]
    if not ways:
        raise InputError(f"{source}: holds {kind}, which cannot come out as {asked.form}")
    way = ways[0]
    method = METHODS[way.method]
    if asked.budget and not method.noise:
        raise InputError(
            f"budget: {method.name}, which protects {kind} as {asked.form}, has no noise that a budget could choose; "
            "leave it out, and look at the verdict"
        )
    for name, value in (("labels", asked.labels), ("landmarks", asked.landmarks)):
        if value is not None and is_pack(source):
            raise InputError(f"{name} {value}: {source} is a pack, which has its own")
    if kind != "photographs" and (asked.landmarks is not None or asked.by_folder):
        raise InputError(f"{source}: landmarks and people by folder are of photographs, got {kind}")
    if asked.matcher is not None and not way.templates:
        raise InputError(
            f"matcher: makes templates of photographs, and {kind} as {asked.form} are protected without any"
        )
    if asked.size is not None and (kind != "photographs" or way.templates):
        raise InputError(
            f"size: is of aligned faces that are images, and {kind} as {asked.form} are not made into such"
        )
    method.algorithm.configured(way.preset or None, asked.settings)
    if asked.key is not None:
        read_key_file(Path(asked.key))
    return way


def kind_of(source: Path) -> Kind:
    if not source.exists():
        raise InputError(f"{source}: does not exist")
    if is_pack(source):
        return "images" if Pack.open(source).kind == "images" else "vectors"
    return "photographs" if source.is_dir() and not is_table(source) else "vectors"


def is_pack(folder: Path) -> bool:
    return (folder / "pack.json").is_file()
