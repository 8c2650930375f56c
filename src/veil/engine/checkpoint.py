"""What an unfinished run keeps in a file: tensors as safetensors, and what else there is as JSON in their header.

The file may be damaged, or a stranger's: nothing in it is unpickled, and what is no tensor is checked by rules. Whoever
takes up tensors of a player compares them with its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from veil.files import written
from veil.foreign import TEXT, Rule, check_fields, is_whole, opened, parsed_json

Curve = tuple[int, str, str, float]
"""A loss of training: step, stage, player, value."""

_ABOUT, _DIGEST = "run", "digest"  # entries of the header
_CURVES, _COLUMNS = "curves/", {"step": torch.int64, "series": torch.int64, "loss": torch.float64}
_PLAIN = torch.contiguous_format
_COUNTS: Rule = (
    "an object of counts",
    lambda x: isinstance(x, dict) and all(is_whole(count, 0) for count in x.values()),
)
_PAIRS: Rule = (
    "a list of pairs of texts",
    lambda x: isinstance(x, list) and all(isinstance(y, list) and len(y) == 2 and all(map(TEXT[1], y)) for y in x),
)
_RULES: Mapping[str, Rule] = {"identity": TEXT, "method": TEXT, "done": _COUNTS, "updates": _COUNTS, "series": _PAIRS}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of an unfinished run.

    Attributes:
        identity: What makes two runs the same.
        method: Whose run it is; "" where nobody said.
        done: Steps that are done, of each stage.
        curves: Losses up to then.
        updates: That each player has made.
        tensors: Of each player (:meth:`veil.engine.Player.tensors`), by ``PLAYER/NAME``.
    """

    identity: str
    method: str
    done: Mapping[str, int]
    curves: Sequence[Curve]
    updates: Mapping[str, int]
    tensors: Mapping[str, Tensor]

    def write(self, path: Path) -> None:
        """Put it in a file that its owner alone may read.

        Raises:
            OSError: If it cannot be written; what stood there before is as it was.
        """
        steps, stages, players, losses = zip(*self.curves, strict=True) if self.curves else ((), (), (), ())
        series = dict.fromkeys(zip(stages, players, strict=True))
        codes = {pair: code for code, pair in enumerate(series)}
        columns = {"step": steps, "series": [codes[pair] for pair in zip(stages, players, strict=True)], "loss": losses}
        # Clones, as tensors of two players that share memory are two.
        tensors = {name: x.detach().cpu().clone(memory_format=_PLAIN) for name, x in self.tensors.items()}
        tensors |= {f"{_CURVES}{name}": torch.tensor(columns[name], dtype=kind) for name, kind in _COLUMNS.items()}
        about = {
            "identity": self.identity,
            "method": self.method,
            "done": self.done,
            "updates": self.updates,
            "series": list(series),
        }
        text = json.dumps(about)
        with written(path, secret=True) as file:
            file.write(to_bytes(tensors, metadata={_ABOUT: text, _DIGEST: _digest(text, tensors)}))


def read(path: Path) -> Checkpoint:
    """The state in a file, whose tensors are mapped.

    Raises:
        OSError: If there is no such file.
        ValueError: For what is no checkpoint; the message, which may have several lines, says why.
    """
    opened(path).close()  # raises for a pipe, at which the library would wait
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    if _digest(header.get(_ABOUT, ""), tensors) != header.get(_DIGEST):
        raise ValueError("it was changed, or is none")
    about = parsed_json(header[_ABOUT])
    check_fields(about, "", _RULES, [*_RULES])
    return Checkpoint(
        identity=about["identity"],
        method=about["method"],
        done=about["done"],
        updates=about["updates"],
        curves=_curves(about["series"], {name: tensors.pop(f"{_CURVES}{name}", None) for name in _COLUMNS}),
        tensors=tensors,
    )


def _digest(about: str, tensors: Mapping[str, Tensor]) -> str:
    """Of all that a file holds: a bit that fell over would go into the weights without a word."""
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _curves(series: Sequence[Sequence[str]], columns: Mapping[str, Tensor | None]) -> list[Curve]:
    values: dict[str, list[Any]] = {}
    for name, column in columns.items():
        if column is None or column.ndim != 1 or column.dtype != _COLUMNS[name]:
            raise ValueError(f"{_CURVES}{name} must be a column of {_COLUMNS[name]}")
        values[name] = column.tolist()
    if not all(0 <= code < len(series) for code in values["series"]):
        raise ValueError(f"{_CURVES}series must be places in a list of {len(series)}")
    rows = zip(values["step"], values["series"], values["loss"], strict=True)
    return [(step, *series[code], loss) for step, code, loss in rows]
