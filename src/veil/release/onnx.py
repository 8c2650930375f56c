"""A release's encoder as an ONNX file, without its secret."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from veil.nn.nets import to_input
from veil.release.beside import KEY_BYTES
from veil.release.contract import Contract
from veil.release.draws import Field, normalised_noise, position


def network(encoder: nn.Module, contract: Contract, about: Mapping[str, Any]) -> bytes:
    """An encoder as an ONNX file: input ``x`` as the encoder takes it, output ``release``; equal to 1e-5.

    The file holds what is computed, and ``about`` as its metadata, and no more: PyTorch's notes of how it was traced
    name folders of this machine. What is secret is no part of the file: the arrays of the noise's
    :class:`veil.release.draws.Field` are further inputs of the network, by their names, and so is the ``matrix``
    ``(k, k)`` by which releases are turned. A release that draws among
    substitutes has an input ``uniform`` ``(B, 1)``. Images come out as floats in [0, 1], ``(B, C, H, W)`` from
    the encoder or flattened substitutes.

    Args:
        encoder: Of the release.
        contract: Without values replaced at random.
        about: Plain values by name; they are written as JSON.
    """
    message = _traced(encoder, contract)
    _strip(message)
    for name, value in about.items():
        message.metadata_props.add(key=name, value=json.dumps(value))
    content: bytes = message.SerializeToString()
    return content


def _traced(encoder: nn.Module, contract: Contract) -> Any:
    """The network that computes releases, as a message of ONNX."""
    blank = np.zeros((2, *contract.shape), np.uint8 if contract.kind == "images" else np.float32)
    example = to_input(blank, contract.kind)
    module = encoder
    arguments: tuple[Tensor, ...] = (example,)
    names = ["x"]
    if contract.support:
        module = _Substituted(encoder, contract)
        if contract.draw:
            arguments, names = (example, torch.full((2, 1), 0.5)), ["x", "uniform"]
    shapes: tuple[Any, ...] = tuple({0: torch.export.Dim("batch", min=1)} for _ in names)
    # Of a key of no release: what is secret is an input, and its values are not in the file.
    stand_in = Field.draw(bytes(KEY_BYTES), contract.k).arrays() if contract.noise else {}
    if contract.renew:
        stand_in["matrix"] = torch.eye(contract.k)
    if stand_in:
        module = _Keyed(module, contract, [*names[1:], *stand_in])
        arguments, names = (*arguments, *stand_in.values()), [*names, *stand_in]
        shapes = (shapes[0], (*shapes[1:], *({} for _ in stand_in)))
    # Deprecations inside torch, and what it could export besides, are not the caller's concern.
    with warnings.catch_warnings(), _errors_only("torch.onnx"), _errors_only("onnxscript"):
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            module.eval(),
            arguments,
            input_names=names,
            output_names=["release"],
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
    return program.model_proto


def _strip(message: Any) -> None:
    """Takes the notes of whoever made it out of a message of ONNX, and out of all that it holds."""
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for kind, value in message.ListFields():
        if kind.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:  # one message, or several
                _strip(part)


@contextmanager
def _errors_only(name: str) -> Iterator[None]:
    """Loggers of that name say nothing below an error inside."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Keyed(nn.Module):
    """An encoder, its noise and the matrix that turns its releases as one graph, for export.

    Args:
        encoder: Takes x, and ``uniform`` where that is given.
        contract: Says which there are.
        names: Of what is given beside x, in its order.
    """

    def __init__(self, encoder: nn.Module, contract: Contract, names: Sequence[str]) -> None:
        super().__init__()
        self.encoder, self.noise, self.names = encoder, contract.noise, tuple(names)

    def forward(self, x: Tensor, *keyed: Tensor) -> Tensor:
        given = dict(zip(self.names, keyed, strict=True))
        matrix, uniform = given.pop("matrix", None), given.pop("uniform", None)
        out: Tensor = self.encoder(x) if uniform is None else self.encoder(x, uniform)
        if self.noise:
            out = normalised_noise(out, Field(**given)(out), self.noise)
        return out if matrix is None else out @ matrix


class _Substituted(nn.Module):
    """An encoder of codes and the table of their substitutes as one graph, for export."""

    def __init__(self, encoder: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.encoder = encoder
        table: Tensor = encoder.substitutes.flatten(1)  # type: ignore[operator]
        self.register_buffer("table", table.float() / (255 if contract.image is not None else 1))

    def forward(self, x: Tensor, uniform: Tensor | None = None) -> Tensor:
        log_p = self.encoder(x)
        code = log_p.argmax(1) if uniform is None else position(log_p.softmax(1), uniform)
        return self.table[code]  # type: ignore[index]
