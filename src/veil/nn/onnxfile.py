"""Networks of ONNX files that users name: face matchers and classifiers, whatever made them.

A file takes float32 images ``(B, C, H, W)``, in [-1, 1] unless it is declared otherwise (:mod:`veil.nn.declared`), and
gives float32 ``(B, d)``; of several outputs the first counts. Only its answers are at hand, no gradient.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veil.errors import InputError
from veil.foreign import one_line, opened
from veil.nn.declared import COLOURS, MOST_SIDE, Declaration, declaration

FROM_FILE = "a file of the user's"
"""What findings say of one."""
_BATCH = 64
_SECONDS, _SECONDS_EACH = 5.0, 1.0  # that a batch may take, and more for each image


class OnnxNetwork:
    """From uint8 images ``(n, H, W[, 3])`` of any size to what an ONNX file makes of them: float32 ``(n, width)``.

    It holds no session: one of each file is made in each process that asks, however often the network is sent there.

    Args:
        path: The file. It takes float32 ``(B, 3, H, W)`` or ``(B, 1, H, W)``: RGB or grey in [-1, 1], unless its
            metadata or ``declared`` say otherwise. Images are brought to its size and colours. B may be fixed.
        declared: Texts of :data:`veil.nn.declared.SETTINGS`, which count for more than the file's own.
        threads: Processors that it may use; sums in another order give other last digits.

    Attributes:
        name: The file's name, without its folder.
        digest: SHA-256 of the file.
        fingerprint: Changes with the file, and with what is declared of it.
        width: d.
        size: Width and height of the images that it sees.
        eyes: Where the eyes of the faces that it sees must lie; None where that is not declared.
        classes: What its logits stand for; empty where that is not declared.

    Raises:
        InputError: If the file, or the extra ``onnx``, is missing, it does not take and give what it should, or a
            declaration does not fit it.
    """

    origin = FROM_FILE

    def __init__(self, path: str | Path, *, declared: Mapping[str, str] | None = None, threads: int = 1) -> None:
        self.path, self.name, self.threads = Path(path), Path(path).name, threads
        try:
            with opened(self.path) as file:
                self.digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        about = declaration(path, self._metadata(), declared or {})
        self.eyes, self.classes = about.eyes, about.classes
        self.fingerprint = f"{self.digest} {about}"
        channels, self.size = self._shape(about)
        self._colours = about.colours or ("rgb" if channels == 3 else "grey")
        self._mean, self._std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (about.mean, about.std))
        for name, values in (("mean", about.mean), ("std", about.std)):
            if len(values) > channels:
                raise InputError(f"{path}: {name} must be one number, as it sees grey, got {len(values)}")
        if self.eyes is not None and self.size[0] != self.size[1]:
            raise InputError(f"{path}: eyes are declared of a square, got {self.size[0]} x {self.size[1]} pixels")
        count = self._fixed or 2
        out = self._run(np.zeros((count, channels, self.size[1], self.size[0]), np.float32))
        if out.ndim != 2 or len(out) != count or out.dtype != np.float32:
            raise InputError(f"{path}: must give float32 (B, d), got {out.dtype} {out.shape} of B = {count}")
        self.width = out.shape[1]

    def _shape(self, about: Declaration) -> tuple[int, tuple[int, int]]:
        """Channels, and width and height, as the file fixes them or, where it does not, as they are declared."""
        inputs = self._session().get_inputs()
        kind, shape = inputs[0].type, list(inputs[0].shape)
        images = len(shape) == 4 and (shape[1] in (1, 3) or not _fixed(shape[1]))
        if len(inputs) != 1 or kind != "tensor(float)" or not images:
            got = ", ".join(f"{i.type} {tuple(i.shape)}" for i in inputs)
            raise InputError(f"{self.path}: must take float32 images (B, 3, H, W) or (B, 1, H, W), got {got}")
        self._input, self._fixed = inputs[0].name, shape[0] if _fixed(shape[0]) else 0
        channels = shape[1] if _fixed(shape[1]) else COLOURS[about.colours or "rgb"]
        if about.colours and COLOURS[about.colours] != channels:
            raise InputError(
                f"{self.path}: takes images of {channels} channels, so colours must not be {about.colours}"
            )
        sides = [side if _fixed(side) else None for side in (shape[3], shape[2])]
        declared = about.size or (None, None)
        if any(side and other and side != other for side, other in zip(sides, declared, strict=True)):
            size = " x ".join(map(str, declared))
            raise InputError(f"{self.path}: takes images of {sides[0]} x {sides[1]} pixels, so size must not be {size}")
        width, height = (side or other for side, other in zip(sides, declared, strict=True))
        if width is None or height is None:
            raise InputError(
                f"{self.path}: takes images of any size {tuple(shape)}, so their size must be declared (size=PIXELS)"
            )
        if max(width, height) > MOST_SIDE:
            raise InputError(f"{self.path}: must take images of at most {MOST_SIDE} pixels a side, got {tuple(shape)}")
        return channels, (width, height)

    def _metadata(self) -> dict[str, str]:
        """Texts that the file says of itself, by their names."""
        try:
            return dict(self._session().get_modelmeta().custom_metadata_map)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: its metadata must be UTF-8 ({one_line(error)})") from None

    def _session(self) -> Any:
        return _session(self.path, self.digest, self.threads)

    def _run(self, values: NDArray[np.float32]) -> NDArray[Any]:
        session = self._session()
        from onnxruntime import RunOptions  # which is there where there is a session

        options = RunOptions()
        seconds = _SECONDS + _SECONDS_EACH * len(values)
        clock = threading.Timer(seconds, setattr, (options, "terminate", True))  # a network may hold an endless loop
        clock.daemon = True
        clock.start()
        try:
            out: NDArray[Any] = np.asarray(session.run(None, {self._input: values}, options)[0])
        except Exception as error:  # whatever is wrong with a stranger's network ends here, in one line
            why = f"it took more than {seconds:g} s" if options.terminate else type(error).__name__
            raise InputError(f"{self.path}: cannot be run on images ({why})") from error
        finally:
            clock.cancel()
        return out

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """uint8 ``(n, H, W[, 3])`` -> float32 ``(n, width)``. Raises InputError for values that are not finite."""
        out = np.empty((len(x), self.width), np.float32)
        size = self._fixed or _BATCH
        for start in range(0, len(x), size):
            images = [self._seen(image) for image in x[start : start + size]]
            padding = [images[0]] * (self._fixed - len(images))
            values = np.stack([*images, *padding]).astype(np.float32)
            values = values[:, None] if values.ndim == 3 else values.transpose(0, 3, 1, 2)
            values = (values[:, ::-1] if self._colours == "bgr" else values) - self._mean
            values /= self._std
            out[start : start + size] = self._run(np.ascontiguousarray(values))[: len(images)]
        if not np.isfinite(out).all():
            raise InputError(f"{self.path}: its values must be finite, got NaN or infinity")
        return out

    def _seen(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        mode = "L" if self._colours == "grey" else "RGB"
        picture = Image.fromarray(np.ascontiguousarray(image)).convert(mode)
        return np.asarray(picture.resize(self.size, Image.Resampling.BILINEAR))


def _fixed(side: object) -> bool:
    """Whether a side of a shape is a number, not a name or nothing."""
    return isinstance(side, int) and side > 0


@lru_cache(maxsize=8)
def _session(path: Path, digest: str, threads: int) -> Any:
    """The session of a file as it was when it had this digest."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"{path}: a network of an ONNX file needs the extra 'onnx': pip install 'veil[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; stderr is for progress
    try:
        # Without its fallback, which prints what went wrong and tries the same again.
        return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:
        raise InputError(f"{path}: not a readable ONNX file ({type(error).__name__})") from error
