"""A release's folder: ``weights.safetensors`` and ``release.json``, written whole, read without unpickling."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from veil._version import __version__
from veil.data import fitted, framing
from veil.data.classes import few
from veil.data.fitted import UNDERNEATH, Fitted
from veil.errors import InputError
from veil.files import check_place, publish, staged, sweep
from veil.foreign import (
    LIST,
    OBJECT,
    SHA256,
    TEXT,
    TEXTS,
    Rule,
    check_fields,
    either,
    one_line,
    opened,
    read_json,
    shown,
    whole,
)
from veil.methods.registry import METHODS
from veil.nn.nets import tensors_under, to_input
from veil.release.beside import check_key, fitted_path, key_check, key_path, keys_in, read_key, write_secret
from veil.release.contract import Contract

SCHEMA = 1
WEIGHTS, CARD = "weights.safetensors", "release.json"
_MADE: Mapping[str, Rule] = {
    **dict.fromkeys(("private", "warnings", UNDERNEATH), TEXTS),
    **dict.fromkeys(("utility", "data", "preset", "asked"), TEXT),
    "seed": whole(0),
    "pictures": OBJECT,
    "frontier": LIST,
    "budget": OBJECT,
}
"""Those of how it was made, of which a method has others, too, that nothing reads."""
_CARD_FIELDS: Mapping[str, Rule] = {
    "schema": whole(SCHEMA, SCHEMA),
    **dict.fromkeys(("veil", "method"), TEXT),
    **dict.fromkeys(("config", "contract", "made"), OBJECT),
    **dict.fromkeys(("weights_sha256", "card_sha256"), SHA256),
    "key_check": either(TEXT),
}


def write(
    path: Path,
    made_of: Mapping[str, Any],
    networks: Mapping[str, nn.Module | None],
    *,
    key: bytes | None,
    record: Fitted | None,
    force: bool,
) -> Path:
    """Write a release: its folder, and beside it its key and what it was fitted on.

    Args:
        path: The folder to make.
        made_of: ``method``, ``config``, ``contract`` and ``made``, as plain values.
        networks: By name; None for one that is not shipped.
        key: Its secret, if it has one.
        record: Hashes of what it was fitted on, if they are known.
        force: Replace a release that is there.

    Raises:
        InputError: As :func:`check_target` and :func:`veil.release.beside.check_key`, or if it cannot be written.
    """
    check_place(path)
    sweep(path)
    check_target(path, force)
    if key is not None and not force:
        check_key(path, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged(path) as hidden:
            new = hidden / "new"
            new.mkdir()
            card = _write_parts(new, made_of, networks, key)
            _put(new, path, card, key, record)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); nothing was left behind") from error
    return path


def _write_parts(
    folder: Path, made_of: Mapping[str, Any], networks: Mapping[str, nn.Module | None], key: bytes | None
) -> dict[str, Any]:
    """Writes weights and card into a folder; the card."""
    tensors = {
        f"{name}.{weight}": value.detach().cpu().contiguous()
        for name, network in networks.items()
        if network is not None
        for weight, value in network.state_dict().items()
    }
    weights = to_bytes(tensors)
    card: dict[str, Any] = {
        "schema": SCHEMA,
        "veil": __version__,
        **made_of,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "key_check": None if key is None else key_check(key),
    }
    card["card_sha256"] = card_check(card)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n")
    return card


def _put(folder: Path, path: Path, card: Mapping[str, Any], key: bytes | None, record: Fitted | None) -> None:
    """Gives a written folder its name, so that whoever is killed leaves no release without its key.

    The key goes first: beside that of the release that stands there, as long as that stands there.
    """
    secret, hashes = key_path(path), fitted_path(path)
    before = {file: file.read_bytes() if file.exists() else None for file in (secret, hashes)}
    standing = _standing_key(path) if key is not None else b""
    try:
        if key is not None:
            write_secret(secret, key + standing * (standing != key))
        if record is not None and not record.problem:
            write_secret(hashes, fitted.serialised(record, card["card_sha256"]))
        else:
            hashes.unlink(missing_ok=True)  # of the release that was there
        publish(folder, path)
    except BaseException:
        for file, data in before.items():
            with suppress(OSError):  # of two keys one is the old one's
                if data is None:
                    file.unlink(missing_ok=True)
                else:
                    write_secret(file, data)
        raise
    if standing and key is not None:
        with suppress(OSError):  # two keys do as well
            write_secret(secret, key)


def _standing_key(path: Path) -> bytes:
    """The key of the release that stands somewhere; nothing where there is none, or none that is its."""
    try:
        check = read_card(path)["key_check"]
        return next((key for key in keys_in(key_path(path)) if key_check(key) == check), b"")
    except InputError:
        return b""


def read(path: Path, *, key: str | Path | None = None) -> dict[str, Any]:
    """What a folder that :func:`write` wrote holds, by the names of :class:`veil.release.Release`'s attributes.

    Nothing is unpickled.

    Args:
        path: The folder.
        key: The key file; ``NAME.key`` beside the folder if None.

    Raises:
        InputError: If the folder is missing, foreign, truncated or tampered with, or the key is another release's, or
            given for one that takes none.
    """
    card = read_card(path)
    try:
        with opened(path / WEIGHTS) as file:
            weights = file.read()
    except OSError as error:
        raise InputError(f"{path / WEIGHTS}: cannot be read ({error.strerror})") from error
    if hashlib.sha256(weights).hexdigest() != card["weights_sha256"]:
        raise InputError(f"{path / WEIGHTS}: SHA-256 differs from release.json: truncated or tampered with")
    if card["method"] not in METHODS:
        raise InputError(f"{path / CARD}: method must be one of {sorted(METHODS)}, got {shown(card['method'])}")
    algorithm = METHODS[card["method"]].algorithm
    try:
        contract = Contract.read(card["contract"])
        config = algorithm.read(card["config"])
        tensors = from_bytes(weights)

        def network(build: Callable[[Any, Contract], nn.Module], name: str) -> nn.Module:
            return _filled(lambda: build(config, contract), tensors_under(tensors, f"{name}."))

        encoder = network(algorithm.build, "encoder")
        _check_network(encoder, contract)
        networks = {"encoder": encoder}
        for name, builder in (("decoder", algorithm.build_decoder), ("classifier", algorithm.build_classifier)):
            if not tensors_under(tensors, f"{name}."):
                continue
            if builder is None:
                raise ValueError(f"{card['method']} has no {name}")
            networks[name] = network(builder, name)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, SafetensorError) as error:
        reason = one_line(error)
        raise InputError(f"{path / CARD}: config, contract and weights must fit together ({reason})") from error
    return {
        "method": card["method"],
        "config": card["config"],
        "contract": contract,
        "made": card["made"],
        "key": read_key(path, key, card["key_check"]),
        "fitted": fitted.read(fitted_path(path), card["card_sha256"]),
        **networks,
    }


def check_target(path: Path, force: bool) -> None:
    """Raises InputError where a release cannot be put: what exists is replaced by force, if it is a release."""
    record = fitted_path(path)
    if record.is_dir():
        raise InputError(f"{record}: is a folder, where hashes of what the release was fitted on go; move it")
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if there != path:
        if not there.is_dir():
            raise InputError(f"{path}: cannot be made, because {there} is a file")
        if not os.access(there, os.W_OK | os.X_OK):
            raise InputError(f"{path}: cannot be made, because nothing may be written into {there}")
        if not force and os.path.lexists(record):
            raise InputError(
                f"{record}: says what another release was fitted on, and is replaced; move it, or force, or, where a "
                "fit was killed here, go on by --resume"
            )
        return
    if not force:
        raise InputError(f"{path}: already exists; choose another name or force")
    if not (path / CARD).exists():
        raise InputError(f"{path}: only a release is replaced by force, and this holds no {CARD}")
    if strange := sorted({item.name for item in path.iterdir()} - {WEIGHTS, CARD}):
        lost = few(strange, 2)
        raise InputError(f"{path}: holds what is no part of a release and would be lost ({lost}); move it away")


def card_check(card: Mapping[str, Any]) -> str:
    """SHA-256 of the card without its own hash: an edited contract or config does not load."""
    rest = {k: v for k, v in card.items() if k != "card_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _filled(build: Callable[[], nn.Module], weights: Mapping[str, Tensor]) -> nn.Module:
    """A network with weights, which are all of its own and no others.

    It is built without memory first: a card may describe a network that none has room for.

    Raises:
        ValueError: The network that is described has other weights.
    """
    with torch.device("meta"):
        described = {name: (value.shape, value.dtype) for name, value in build().state_dict().items()}
    held = {name: (value.shape, value.dtype) for name, value in weights.items()}
    if described != held:
        name = next(n for n in [*described, *held] if described.get(n) != held.get(n))
        wanted, got = (f"{tuple(of[name][0])}" if name in of else "none" for of in (described, held))
        raise ValueError(f"weight {name} must have shape {wanted}, got {got}")
    for name, value in weights.items():
        if not value.isfinite().all():
            raise ValueError(f"weight {name} must be finite, got NaN or infinity")
    module = build()
    module.load_state_dict(weights)
    return module.eval()


def _check_network(encoder: nn.Module, contract: Contract) -> None:
    """Raises ValueError where an encoder gives something else than the contract says, by what it makes of nothing."""
    kind = contract.kind
    with torch.no_grad():
        out = encoder(to_input(np.zeros((1, *contract.shape), np.uint8 if kind == "images" else np.float32), kind))
    wanted = contract.support or contract.k
    if len(out) != 1 or out[0].numel() != wanted:
        raise ValueError(f"the network must give {wanted:,} values of a row, got {tuple(out.shape)}")
    if contract.support:
        table: Tensor = encoder.substitutes  # type: ignore[assignment]
        if table.shape != (contract.support, *(contract.image or (contract.k,))):
            raise ValueError(f"substitutes must be {contract.support:,} releases, got {tuple(table.shape)}")


def read_card(path: Path) -> dict[str, Any]:
    card = path / CARD
    try:
        content = read_json(card)
    except OSError as error:
        raise InputError(f"{path}: must be a release folder, but {CARD} cannot be read ({error.strerror})") from error
    if not isinstance(content, dict) or not (_CARD_FIELDS.keys() - {"veil"}) <= content.keys():
        raise InputError(f"{card}: must hold {sorted(_CARD_FIELDS)}; is this a Veil release?")
    if content["schema"] != SCHEMA or isinstance(content["schema"], bool):
        raise InputError(f"{card}: schema must be {SCHEMA}, got {shown(content['schema'])}")
    if content["card_sha256"] != card_check(content):
        raise InputError(f"{card}: differs from its own SHA-256: edited or damaged")
    try:
        check_fields(content, "", _CARD_FIELDS)
        check_fields(content["made"], "made", _MADE, others=True)
        if "pictures" in content["made"]:
            check_fields(content["made"]["pictures"], "made.pictures", framing.RULES, list(framing.RULES))
    except ValueError as error:
        raise InputError(f"{card}: {one_line(error)}") from None
    return content
