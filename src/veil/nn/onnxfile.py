"""Networks of ONNX files that users name: face matchers and classifiers, whatever made them.

A file takes float32 images ``(B, C, H, W)`` in [-1, 1], C and the sides fixed, and gives float32 ``(B, d)``; of several
outputs the first counts. Only its answers are at hand, no gradient.
"""

from __future__ import annotations

import hashlib
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veil.errors import InputError
from veil.foreign import opened

_BATCH = 64
_SECONDS, _SECONDS_EACH = 5.0, 1.0  # that a batch may take, and more for each image


class OnnxNetwork:
    """From uint8 images ``(n, H, W[, 3])`` of any size to what an ONNX file makes of them: float32 ``(n, width)``.

    It holds no session: one of each file is made in each process that asks, however often the network is sent there.

    Args:
        path: The file. It takes float32 ``(B, 3, H, W)`` (RGB) or ``(B, 1, H, W)`` (grey) in [-1, 1] and gives float32
            ``(B, d)``. Images are brought to its size and colours. B may be fixed.
        threads: Processors that it may use; sums in another order give other last digits.

    Attributes:
        name: The file's name, without its folder.
        digest: SHA-256 of the file.
        width: d.
        size: Width and height of the images that it sees.

    Raises:
        InputError: If the file, or the extra ``onnx``, is missing, or it does not take and give what it should.
    """

    def __init__(self, path: str | Path, *, threads: int = 1) -> None:
        self.path, self.name, self.threads = Path(path), Path(path).name, threads
        try:
            with opened(self.path) as file:
                self.digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        inputs = self._session().get_inputs()
        kind, shape = inputs[0].type, list(inputs[0].shape)
        fixed = len(shape) == 4 and all(isinstance(side, int) for side in shape[1:])
        if len(inputs) != 1 or kind != "tensor(float)" or not fixed or shape[1] not in (1, 3):
            got = ", ".join(f"{i.type} {tuple(i.shape)}" for i in inputs)
            raise InputError(f"{path}: must take float32 images (B, 3, H, W) or (B, 1, H, W) of one size, got {got}")
        self._input = inputs[0].name
        self._mode, self.size = ("RGB" if shape[1] == 3 else "L"), (shape[3], shape[2])
        self._fixed = shape[0] if isinstance(shape[0], int) else 0
        out = self._run(np.zeros((self._fixed or 2, *shape[1:]), np.float32))
        if out.ndim != 2 or len(out) != (self._fixed or 2) or out.dtype != np.float32:
            raise InputError(f"{path}: must give float32 (B, d), got {out.dtype} {out.shape} of B = {self._fixed or 2}")
        self.width = out.shape[1]

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
            values = np.stack([*images, *padding]).astype(np.float32) / np.float32(127.5) - 1
            values = values[:, None] if values.ndim == 3 else values.transpose(0, 3, 1, 2)
            out[start : start + size] = self._run(np.ascontiguousarray(values))[: len(images)]
        if not np.isfinite(out).all():
            raise InputError(f"{self.path}: its values must be finite, got NaN or infinity")
        return out

    def _seen(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        picture = Image.fromarray(np.ascontiguousarray(image)).convert(self._mode)
        return np.asarray(picture.resize(self.size, Image.Resampling.BILINEAR))


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
