"""A bundle: a release as a folder that a stranger uses with numpy, Pillow and onnxruntime alone.

It holds the network (:mod:`veil.release.onnx`), a script that does what ``veil apply`` does, a page that says so for
this very release, inputs with their releases to check it by, and, of a keyed release, what the network needs of the key
(:attr:`SECRET`), which is as secret as the key itself.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from veil._version import __version__
from veil.data.classes import few
from veil.data.decode import EYES
from veil.errors import InputError
from veil.files import check_place, publish, staged, sweep
from veil.release import onnx
from veil.release.bundle import inputs, page
from veil.release.contract import Contract

NETWORK, SCRIPT, PAGE, SECRET, CHECK = "release.onnx", "release.py", "README.md", "secret.npz", "check"
_SOURCE = Path(__file__).with_name("script.py")


def write(
    path: Path,
    encoder: nn.Module,
    contract: Contract,
    made: Mapping[str, Any],
    secret: Mapping[str, NDArray[Any]],
    transform: Callable[[NDArray[Any]], NDArray[Any]],
    *,
    force: bool,
) -> Path:
    """Write a bundle, after its script has given the same releases as Veil.

    Args:
        path: The folder to make.
        encoder: Of the release.
        contract: Without values replaced at random.
        made: ``method``, ``fingerprint``, ``private`` and ``utility`` of the release.
        secret: Arrays of its noise, or the key of its draws, and the matrix that turns its releases; empty for a
            release without.
        transform: Releases inputs.
        force: Replace a bundle that is there.

    Raises:
        InputError: The place is taken, or cannot be written; the extra ``onnx`` is not installed; or ONNX Runtime gives
            other releases.
    """
    _check_target(path, force)
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError("export needs the extra 'onnx': pip install 'veil[onnx]'") from error
    about = described(contract, made)
    network = onnx.network(encoder, contract, about)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged(path) as hidden:
            new = hidden / "new"
            (new / CHECK).mkdir(parents=True)
            x = inputs.write(new / CHECK, contract)
            _put(new / CHECK / "releases.npy", _npy(transform(x)), secret=bool(secret))
            _put(new / NETWORK, network)
            _put(new / SCRIPT, _SOURCE.read_bytes())
            _put(new / PAGE, page.text(about, made).encode())
            if secret:
                _put(new / SECRET, _npz(secret), secret=True)
            _try(new, path)
            publish(new, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); nothing was left behind") from error
    return path


def described(contract: Contract, made: Mapping[str, Any]) -> dict[str, Any]:
    """What the metadata of a network say of a release, by name, as plain values."""
    c = contract
    given: dict[str, Any] = {"columns": c.columns, "direction": c.direction}
    if c.kind == "images":
        given = {"size": c.shape[0], "channels": 3 if len(c.shape) == 3 else 1, "crop": None, "eyes": None}
        given |= {"eyes": EYES} if c.aligned else {"crop": c.crop}
    out = {"kind": "vectors", "shape": [c.k]} if c.image is None else {"kind": "images", "shape": c.image}
    return {
        "veil": __version__,
        "method": made["method"],
        "fingerprint": made["fingerprint"],
        "kind": c.kind,
        "shape": c.shape,
        **given,
        "output": out,
        "secret": [name for name, is_there in (("field", c.noise), ("draw", c.draw), ("matrix", c.renew)) if is_there],
    }


def _check_target(path: Path, force: bool) -> None:
    """Raises InputError where a bundle cannot be put: what exists is replaced by force, if it is a bundle."""
    if path.suffix == ".onnx":
        raise InputError(f"{path}: names the folder of a bundle, in which the network is {NETWORK}; leave .onnx out")
    check_place(path)
    sweep(path)
    if not os.path.lexists(path):
        return
    if not force:
        raise InputError(f"{path}: already exists; choose another name or force")
    if not (path / NETWORK).is_file() or not (path / SCRIPT).is_file():
        raise InputError(f"{path}: only a bundle is replaced by force, and this holds no {NETWORK} and {SCRIPT}")
    if strange := sorted({item.name for item in path.iterdir()} - {NETWORK, SCRIPT, PAGE, SECRET, CHECK}):
        lost = few(strange, 2)
        raise InputError(f"{path}: holds what is no part of a bundle and would be lost ({lost}); move it away")


def _try(folder: Path, path: Path) -> None:
    """Raises InputError, in the name of ``path``, where the script does not give what Veil gave."""
    from veil.release.bundle import script  # which needs onnxruntime

    levels, most, allowed = script.check(folder)
    if levels > 1 or most > allowed:
        raise InputError(
            f"{path}: ONNX Runtime gives other releases (pictures {levels} levels apart, releases {most:.1e} where "
            f"{allowed:.1e} is allowed); nothing was written"
        )


def _put(path: Path, data: bytes, *, secret: bool = False) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o666), "wb") as file:
        file.write(data)


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **dict(arrays))  # type: ignore[arg-type]
    return file.getvalue()
