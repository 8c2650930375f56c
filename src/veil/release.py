"""The release: the only thing that ships. An encoder's weights, its contract, and how it was made; nothing private.

A folder with ``weights.safetensors`` and ``release.json``. Loading never unpickles; a folder that was tampered with,
truncated or made by something else is refused in one line. What a release was fitted on lies beside it
(:mod:`veil.fitted`). Where the release adds noise, the noise is a secret smooth field (:mod:`veil.draws`): one input
has one release, near-duplicates have nearly the same, and their mean has as much noise as one. What draws it is a key,
a secret file *beside* the folder (``NAME.key``), never inside. Releases of other weights or settings draw other noise
under the same key, so that two of them cannot be solved for what they share.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import secrets
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from veil import fitted
from veil._version import __version__
from veil.data import framing
from veil.data.pack import CROP, Pack, few
from veil.draws import LENGTH, Field, chosen, keyed_uniform, normalised_noise, position
from veil.errors import InputError
from veil.files import publish, staged, sweep, written
from veil.fitted import UNDERNEATH, Fitted
from veil.foreign import (
    FLAG,
    LIST,
    LISTS_OF_TEXTS,
    OBJECT,
    SHA256,
    TEXT,
    TEXTS,
    Rule,
    among,
    check_fields,
    either,
    is_whole,
    one_line,
    opened,
    read_json,
    real,
    shown,
    whole,
)
from veil.nets import tensors_under, to_input, to_pixels
from veil.threads import SETTABLE, keep_to_one

T = TypeVar("T")
U = TypeVar("U")

SCHEMA = 1
KEY_BYTES = 32
BATCH = {"images": 128, "vectors": 1024}
"""Rows that each thread releases at a time; divides :data:`veil.outputs.PART`, so that no batch is in two parts."""
_FEW, _PIXELS = 8, 1 << 17  # images, and their pixels in all, that are redrawn at a time
WEIGHTS, _CARD = "weights.safetensors", "release.json"


MOST_JOINT = 1024
"""Joint classes of private labels for each of which a release can hold something of its own."""


def _sides(least: int, most: int) -> Rule:
    """Sides of an array of so many axes."""

    def fits(x: Any) -> bool:
        sides = isinstance(x, list | tuple) and least <= len(x) <= most and all(is_whole(side, 1) for side in x)
        return sides and math.prod(x) <= _MOST_VALUES

    return f"{least} to {most} whole numbers that make at most {_MOST_VALUES:,} values", fits


_MOST_VALUES = 3 * 2**26  # of one input, or one release: those of the largest picture that is decoded
_CONTRACT: Mapping[str, Rule] = {
    "kind": among("images", "vectors"),
    "shape": _sides(1, 3),
    "k": whole(1, _MOST_VALUES),
    "image": either(_sides(2, 3)),
    "support": whole(0, 2**31),
    "feature_map": either(_sides(3, 3)),
    "noise": real(0, 1e6),
    "length": real(1e-6, 1e6),
    "replace": real(0, 1),
    "crop": either(CROP),
    "columns": TEXTS,
    **dict.fromkeys(("draw", "aligned", "direction", "asks", "chooses"), FLAG),
    **dict.fromkeys(("classes", "keeps"), LISTS_OF_TEXTS),
}
"""The fields of a contract in ``release.json``."""
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


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What goes in and what comes out.

    Attributes:
        kind: ``"images"`` (uint8) or ``"vectors"`` (float32).
        shape: Of one input: ``(H, W)``, ``(H, W, 3)`` or ``(d,)``.
        k: Width of a released vector; values of a released image.
        image: Shape of a released image, ``(H, W)`` or ``(H, W, 3)``, uint8; None where vectors are released.
        support: Number K of values that a release can take at all; 0 where there is no such number. The encoder then
            gives log-probabilities ``(B, K)`` and holds the values as ``substitutes`` ``(K, ...)``.
        draw: Whether a keyed draw from the probabilities chooses among the substitutes; else the likeliest is released.
        feature_map: ``(C, H, W)`` where the vector is a flattened map, so that attackers may use convolutions.
        noise: Norm of the keyed noise relative to the unit-length release; 0 for a deterministic encoder.
        length: Distance of unit-length releases over which that noise changes; see :mod:`veil.draws`.
        replace: Share of each vector's values that a keyed draw from U[0, 1] replaces (the Random baseline).
        crop: The crop of the training pack (left, top, right, bottom as fractions of the image), for files to come.
        aligned: Whether the faces of the training pack were aligned by their eyes, as files to come must then be.
        columns: Names of the columns that the training pack's vectors stood in, a value each, in their order; files to
            come must have the same. Empty where they stood in none of their own.
        direction: Whether only the direction of an input vector counts; one of length 0 is then refused.
        classes: Class names of the private attributes, where the encoder moves each class by itself.
        asks: Whether the encoder takes those classes with an input where they are known; it guesses them otherwise.
        chooses: Whether it may be chosen for each input which of those attributes are hidden.
        keeps: Labels that the release's own classifier reads, and their class names; none where it has no classifier.
    """

    kind: Literal["images", "vectors"]
    shape: tuple[int, ...]
    k: int
    image: tuple[int, ...] | None = None
    support: int = 0
    draw: bool = False
    feature_map: tuple[int, int, int] | None = None
    noise: float = 0.0
    length: float = LENGTH
    replace: float = 0.0
    crop: tuple[float, float, float, float] | None = None
    aligned: bool = False
    columns: tuple[str, ...] = ()
    direction: bool = False
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    asks: bool = False
    chooses: bool = False
    keeps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @staticmethod
    def read(raw: Any) -> Contract:
        """A contract from the plain values that JSON keeps; raises ValueError for what cannot be one."""
        check_fields(raw, "contract", _CONTRACT, ("kind", "shape", "k"))
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
        for key in ("classes", "keeps"):
            values[key] = {name: tuple(names) for name, names in raw.get(key, {}).items()}
        contract = Contract(**values)
        contract._check()
        return contract

    def _check(self) -> None:
        """Raises ValueError where its parts contradict each other."""
        fits = len(self.shape) == 1 if self.kind == "vectors" else len(self.shape) == 2 or self.shape[2:] == (3,)
        if not fits:
            raise ValueError(f"contract.shape must be that of {self.kind}, got {self.shape}")
        for name, shape in (("image", self.image), ("feature_map", self.feature_map)):
            if shape is not None and math.prod(shape) != self.k:
                raise ValueError(f"contract.{name} must hold {self.k:,} values, got {shape}")
        if self.columns and (len(self.columns),) != self.shape:
            raise ValueError(f"contract.columns must name {self.shape} values, got {len(self.columns)}")
        if self.draw and not self.support:
            raise ValueError("contract.draw needs a support of finitely many values, got none")
        if (self.asks or self.chooses) and not self.classes:
            raise ValueError("contract.asks and contract.chooses need classes, got none")
        if (self.noise or self.replace) and (self.support or self.image is not None):
            raise ValueError("contract.noise and contract.replace are of vectors, got images or finitely many values")
        if not 1 <= (joint := math.prod(len(names) for names in self.classes.values())) <= MOST_JOINT:
            raise ValueError(f"contract.classes must make 1 to {MOST_JOINT:,} joint classes, got {joint:,}")

    @property
    def told(self) -> Mapping[str, tuple[str, ...]]:
        """Private attributes that may be told with an input, and their class names."""
        return self.classes if self.asks else {}

    @property
    def keyed(self) -> bool:
        return self.noise > 0 or self.replace > 0 or self.draw

    def check_framing(self, pack: Pack, name: str) -> None:
        """Refuse a pack that was cut otherwise than the training pack; of one made in memory nothing need be known.

        Raises:
            InputError: Where eyes were aligned in either and not in the other, or the values of vectors stood in other
                columns, or in another order; it begins with ``name``.
        """
        if "aligned" in pack.meta and pack.framing["aligned"] != self.aligned:
            here, there = ("aligned", "not aligned") if self.aligned else ("not aligned", "aligned")
            raise InputError(
                f"{name}: the release was fitted on faces that were {here} by their eyes, the pack's {there}"
            )
        columns = pack.framing["columns"]
        if columns and self.columns and columns != self.columns:
            raise InputError(
                f"{name}: the release was fitted on the columns {few(self.columns)}, the pack's are {few(columns)}; "
                "pack those columns, in their order (--set column=A,B,...)"
            )

    def empty(self, n: int) -> NDArray[Any]:
        """Room for n releases: uint8 ``(n, H, W[, 3])`` or float32 ``(n, k)``."""
        return np.empty((n, self.k), np.float32) if self.image is None else np.empty((n, *self.image), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Release:
    """A trained protector, ready to use: ``transform(images)`` gives float32 ``(N, k)``, or images.

    Attributes:
        method: Name in ``veil.methods.METHODS``.
        config: The method's configuration, as plain values.
        contract: Input and output.
        encoder: The network; takes float32 ``(B, C, H, W)`` in [0, 1] or ``(B, d)``.
        made: What it was fitted for and on: private attributes, utility, seed, fingerprint of the data.
        key: The secret of a keyed release; None otherwise.
        fitted: Hashes of what it was fitted on; None where nothing says so.
        decoder: Redraws the input from a release, as logits; never saved unless asked for.
        classifier: Reads the labels to keep from a release: the half of a network that runs where releases are sent.
    """

    method: str
    config: Mapping[str, Any]
    contract: Contract
    encoder: nn.Module
    made: Mapping[str, Any] = field(default_factory=dict)
    key: bytes | None = field(default=None, repr=False)
    fitted: Fitted | None = field(default=None, repr=False)
    decoder: nn.Module | None = field(default=None, repr=False)
    classifier: nn.Module | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.key is not None and len(self.key) != KEY_BYTES:
            raise InputError(f"key: must have {KEY_BYTES} bytes, got {len(self.key)}")

    def transform(
        self,
        x: NDArray[Any],
        *,
        told: Mapping[str, NDArray[Any]] | None = None,
        hide: Mapping[str, NDArray[Any]] | None = None,
        batch: int | None = None,
    ) -> NDArray[Any]:
        """Release inputs.

        Args:
            x: uint8 ``(N, H, W[, 3])`` or float32 ``(N, d)``, as :attr:`contract` says.
            told: ``(N,)`` class codes for some of the contract's ``told``, -1 where unknown; the encoder then need
                not guess them.
            hide: ``(N,)`` true where an attribute is to be hidden, for some of the contract's ``classes``, and of the
                others none, where the contract says that this can be chosen. None: as the release was trained.
            batch: Rows at a time; :data:`BATCH` if None. Memory does not grow with N beyond the result.

        Returns:
            float32 ``(N, k)``, or uint8 images ``(N, H, W[, 3])`` where the contract says so, in the order of the rows.

        Raises:
            InputError: On another shape or dtype, non-finite vectors, zero vectors where only the direction counts, a
                label that cannot be told or chosen, or a missing key.
        """
        asked = self._asked(told, hide, len(x))
        self._need_key()
        return self._all(x, 0, asked, batch)

    def _all(
        self, x: NDArray[Any], first_row: int, asked: Sequence[Tensor | None], batch: int | None = None
    ) -> NDArray[Any]:
        """Releases of all inputs, some at a time; messages number rows from ``first_row``."""
        out = self.contract.empty(len(x))
        size = batch or BATCH[self.contract.kind]
        if batch is None and self.contract.image is not None:
            # Networks that redraw large images keep many maps of them: of few images at a time they stay in the cache.
            size = min(size, max(_FEW, _PIXELS // math.prod(self.contract.image[:2])))

        def one(start: int) -> NDArray[Any]:
            part = slice(start, start + size)
            return self._release(x[part], first_row + start, [None if t is None else t[part] for t in asked])

        if 0 < len(x) <= size:
            return one(0)
        start = 0
        for values in in_order(one, iter(range(0, len(x), size))):
            out[start : start + len(values)] = values
            start += len(values)
        return out

    def codes(self, x: NDArray[Any], *, batch: int | None = None) -> NDArray[np.int64]:
        """Which of its finitely many values each input is released as: ``(N,)`` in 0 .. K - 1.

        Raises:
            InputError: As for :meth:`transform`, or where the release can take any number of values.
        """
        if not self.contract.support:
            raise InputError(f"{self.method}: its releases take no finite number of values, so they have no codes")
        self._need_key()
        size = batch or BATCH[self.contract.kind]
        out = np.empty(len(x), np.int64)
        for start in range(0, len(x), size):
            part = self._checked(x[start : start + size], start)
            out[start : start + size] = self._code(part, self._clean(part, (), start))
        return out

    @property
    def substitutes(self) -> NDArray[Any]:
        """The values ``(K, ...)`` of a release that takes finitely many, in the order of its codes."""
        table: NDArray[Any] = self.encoder.substitutes.numpy()  # type: ignore[operator]
        return table

    def stream(self, batches: Iterable[NDArray[Any]], *, first_row: int = 0) -> Iterator[NDArray[Any]]:
        """Release one batch after another; nothing is held back."""
        self._need_key()
        for x in batches:
            yield self._all(x, first_row, ())
            first_row += len(x)

    @cached_property
    def draw_key(self) -> bytes:
        """Secret of the draws: of the key, what the release was made with, and its weights.

        Raises:
            InputError: Without a key.
        """
        self._need_key()
        assert self.key is not None
        made = json.dumps([self.method, dict(self.config), asdict(self.contract)], sort_keys=True)
        digest = hashlib.blake2b(made.encode(), key=self.key, digest_size=KEY_BYTES)
        for name, value in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.digest()

    @cached_property
    def field(self) -> Field:
        """The noise of a release, as secret as its key.

        Raises:
            InputError: Without a key.
        """
        return Field.draw(self.draw_key, self.contract.k, self.contract.length)

    def _need_key(self) -> None:
        if self.contract.keyed and self.key is None:
            raise InputError("release: it adds keyed noise, so its key must be given, got none")

    def _release(self, x: NDArray[Any], first_row: int, asked: Sequence[Tensor | None]) -> NDArray[Any]:
        x = self._checked(x, first_row)
        values = self._clean(x, asked, first_row)
        if self.contract.support:
            return self.substitutes[self._code(x, values)]
        if self.contract.image is not None:
            return to_pixels(values, self.contract.image)
        return self._keyed(x, values, first_row) if self.contract.keyed else values

    def _clean(self, x: NDArray[Any], asked: Sequence[Tensor | None], first_row: int) -> NDArray[np.float32]:
        """What the encoder gives, before anything keyed.

        Raises:
            InputError: For NaN or infinity, which whole weights do not make of valid rows; a class that is ruled out
                has a log-probability of minus infinity.
        """
        with torch.no_grad():
            out: Tensor = self.encoder(to_input(x, self.contract.kind), *asked)
        values: NDArray[np.float32] = out.float().numpy()
        wrong = np.isnan(values) if self.contract.support else ~np.isfinite(values)
        if wrong.any():
            row = first_row + int(wrong.reshape(len(x), -1).any(1).argmax())
            raise InputError(f"{self.method}: the release of row {row} must be finite, got NaN or infinity")
        return values

    def _code(self, x: NDArray[Any], log_p: NDArray[np.float32]) -> NDArray[np.int64]:
        """The likeliest code of each row, or one drawn by its keyed hash."""
        if not self.contract.draw:
            likeliest: NDArray[np.int64] = log_p.argmax(1)
            return likeliest
        return chosen(log_p, keyed_uniform(x, 1, self.draw_key))

    def _asked(
        self, told: Mapping[str, NDArray[Any]] | None, hide: Mapping[str, NDArray[Any]] | None, n: int
    ) -> list[Tensor | None]:
        """What the encoder takes beside the inputs: the mask of classes that may be, and what is to be hidden."""
        asked = [self._allowed(told, n) if told else None]
        if hide is not None:
            return [*asked, self._hidden(hide, n)]
        return asked if told else []

    def _hidden(self, hide: Mapping[str, NDArray[Any]], n: int) -> Tensor:
        """Which attributes ``(n, A)`` are to be hidden."""
        if not self.contract.chooses:
            raise InputError(f"hide: must not be given, as this release of {self.method} leaves nothing to choose")
        names = list(self.contract.classes)
        hidden = np.zeros((n, len(names)), bool)
        for name, values in hide.items():
            if name not in names:
                raise InputError(f"hide: must be one of {', '.join(names)}, got {name!r}")
            values = np.asarray(values)
            if values.shape != (n,) or values.dtype != bool:
                raise InputError(f"hide: {name} must be {n} booleans, got {values.dtype} of shape {values.shape}")
            hidden[:, names.index(name)] = values
        return torch.from_numpy(hidden)

    def _allowed(self, told: Mapping[str, NDArray[Any]], n: int) -> Tensor:
        """Mask ``(n, Z)`` of the joint classes that agree with what is told."""
        sizes = {name: len(names) for name, names in self.contract.told.items()}
        count = math.prod(sizes.values())
        joint = dict(zip(sizes, np.unravel_index(np.arange(count), [*sizes.values()]), strict=True)) if sizes else {}
        allowed = np.ones((n, count), bool)
        for name, codes in told.items():
            if name not in sizes:
                raise InputError(f"told: must be one of {', '.join(sizes) or 'nothing (it guesses)'}, got {name!r}")
            codes = np.asarray(codes)
            if codes.shape != (n,) or codes.dtype.kind not in "iu":
                raise InputError(f"told: {name} must be {n} integer codes, got {codes.dtype} of shape {codes.shape}")
            wrong = codes[(codes < -1) | (codes >= sizes[name])]
            if len(wrong):
                raise InputError(f"told: {name} must be codes from -1 to {sizes[name] - 1}, got {wrong[0]}")
            allowed &= (codes[:, None] < 0) | (codes[:, None] == joint[name])
        return torch.from_numpy(allowed)

    def redraw(self, r: NDArray[np.float32], *, batch: int = 512) -> NDArray[Any]:
        """What the method's own decoder makes of releases: uint8 ``(N, H, W)`` images, or float32 ``(N, d)`` vectors.

        Raises:
            InputError: If the release was loaded, or saved, without its decoder.
        """
        if self.decoder is None:
            raise InputError("release: it has no decoder; keep the one that fit returns, or save it with the release")
        parts = []
        with torch.no_grad():
            for part in torch.split(torch.from_numpy(r), batch):
                out = self.decoder(part)
                parts.append((out.sigmoid() * 255).round().byte()[:, 0] if self.contract.kind == "images" else out)
        return torch.cat(parts).numpy()

    def predict(self, r: NDArray[np.float32], *, batch: int = 512) -> dict[str, NDArray[np.float32]]:
        """What the release's classifier reads from releases ``(N, k)``: probabilities ``(N, Z)`` of each label kept.

        Raises:
            InputError: If the method trains no classifier of its own.
        """
        if self.classifier is None:
            raise InputError(f"{self.method}: its releases have no classifier of their own; train one on releases")
        with torch.no_grad():
            parts = [self.classifier(part) for part in torch.split(torch.from_numpy(np.ascontiguousarray(r)), batch)]
        each = torch.split(torch.cat(parts), [len(names) for names in self.contract.keeps.values()], dim=1)
        return {name: logits.softmax(1).numpy() for name, logits in zip(self.contract.keeps, each, strict=True)}

    def _checked(self, x: NDArray[Any], first_row: int) -> NDArray[Any]:
        wanted = np.uint8 if self.contract.kind == "images" else np.float32
        x = np.asarray(x)
        if x.shape[1:] != self.contract.shape:
            raise InputError(f"input: rows must have shape {self.contract.shape}, got {x.shape[1:]}")
        if x.dtype != wanted:
            raise InputError(f"input: must be {np.dtype(wanted)}, got {x.dtype}")
        if self.contract.kind == "vectors":
            bad = np.flatnonzero(~np.isfinite(x).all(1))
            if len(bad):
                raise InputError(f"input: row {first_row + bad[0]} must be finite, got NaN or infinity")
            zero = np.flatnonzero(~x.astype(bool).any(1))
            if len(zero) and self.contract.direction:
                raise InputError(f"input: row {first_row + zero[0]} must have a direction, got zeros")
        return x

    def _keyed(self, x: NDArray[Any], clean: NDArray[np.float32], first_row: int) -> NDArray[np.float32]:
        c = self.contract
        if c.replace:
            check_unit_range(clean, first_row)
            u = keyed_uniform(x, 2 * c.k, self.draw_key)
            order = np.argsort(u[:, : c.k], axis=1, kind="stable")
            chosen = order[:, : round(c.replace * c.k)]
            out = clean.copy()
            np.put_along_axis(out, chosen, np.take_along_axis(u[:, c.k :], chosen, 1), 1)
            return out
        z = torch.tensor(clean)  # a copy, which lies as all do: sums of what lies elsewhere round otherwise
        return normalised_noise(z, self.field(z), c.noise).numpy()

    # -- on disk -------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, *, force: bool = False, with_decoder: bool = False) -> Path:
        """Write the folder; beside it ``NAME.key``, if the release is keyed, and ``NAME.fitted``, if it knows what it
        was fitted on, both readable by their owner alone.

        Args:
            path: The folder to make.
            force: Replace it if it exists.
            with_decoder: Ship the decoder too. It redraws inputs from releases: leave it out unless that is wanted.

        Raises:
            InputError: If the folder, or in the places of key and hashes those of another release, exists and ``force``
                is False; if the folder holds something else; or if it cannot be written.
        """
        path = named(path)
        sweep(path)
        check_target(path, force)
        if self.key is not None and not force:
            check_key(path, self.key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with staged(path) as hidden:
                new = hidden / "new"
                new.mkdir()
                card = self._write(new, with_decoder)
                self._put(new, path, card)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); nothing was left behind") from error
        return path

    def _write(self, folder: Path, with_decoder: bool) -> dict[str, Any]:
        """Writes weights and card into a folder; the card."""
        from safetensors.torch import save as to_bytes

        parts = {"encoder": self.encoder} | ({"decoder": self.decoder} if with_decoder and self.decoder else {})
        parts |= {} if self.classifier is None else {"classifier": self.classifier}
        weights = to_bytes(
            {f"{p}.{k}": v.detach().cpu().contiguous() for p, m in parts.items() for k, v in m.state_dict().items()}
        )
        card: dict[str, Any] = {
            "schema": SCHEMA,
            "veil": __version__,
            "method": self.method,
            "config": dict(self.config),
            "contract": asdict(self.contract),
            "made": dict(self.made),
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "key_check": None if self.key is None else _key_check(self.key),
        }
        card["card_sha256"] = _card_check(card)
        (folder / WEIGHTS).write_bytes(weights)
        (folder / _CARD).write_text(json.dumps(card, indent=2) + "\n")
        return card

    def _put(self, folder: Path, path: Path, card: Mapping[str, Any]) -> None:
        """Gives a written folder its name, so that whoever is killed leaves no release without its key.

        The key goes first: beside that of the release that stands there, as long as that stands there.
        """
        beside, record = key_path(path), fitted_path(path)
        before = {file: file.read_bytes() if file.exists() else None for file in (beside, record)}
        there = _standing_key(path) if self.key is not None else b""
        try:
            if self.key is not None:
                _write_secret(beside, self.key + there.replace(self.key, b""))
            if self.fitted is not None and not self.fitted.problem:
                _write_secret(record, fitted.serialised(self.fitted, card["card_sha256"]))
            else:
                record.unlink(missing_ok=True)  # of the release that was there
            publish(folder, path)
        except BaseException:
            for file, data in before.items():
                with suppress(OSError):  # of two keys one is the old one's
                    if data is None:
                        file.unlink(missing_ok=True)
                    else:
                        _write_secret(file, data)
            raise
        if there and self.key is not None:
            with suppress(OSError):  # two keys do as well
                _write_secret(beside, self.key)

    @staticmethod
    def load(path: str | Path, *, key: str | Path | None = None) -> Release:
        """Read a folder that :meth:`save` wrote; never unpickles.

        Args:
            path: The folder.
            key: The key file of a keyed release; ``NAME.key`` beside the folder if None. Without a key the release
                loads, but only :meth:`transform` of a release that adds no noise works.

        Raises:
            InputError: If the folder is missing, foreign, truncated or tampered with, or the key is another release's,
                or given for one that takes none.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load as from_bytes

        from veil.methods import METHODS  # methods make releases, so this import must wait

        path = Path(path)
        card = _read_card(path)
        try:
            with opened(path / WEIGHTS) as file:
                weights = file.read()
        except OSError as error:
            raise InputError(f"{path / WEIGHTS}: cannot be read ({error.strerror})") from error
        if hashlib.sha256(weights).hexdigest() != card["weights_sha256"]:
            raise InputError(f"{path / WEIGHTS}: SHA-256 differs from release.json: truncated or tampered with")
        if card["method"] not in METHODS:
            raise InputError(f"{path / _CARD}: method must be one of {sorted(METHODS)}, got {shown(card['method'])}")
        method = METHODS[card["method"]]
        try:
            contract = Contract.read(card["contract"])
            method.read(card["config"])
            tensors = from_bytes(weights)

            def network(build: Callable[[Any, Contract], nn.Module], name: str) -> nn.Module:
                return _filled(lambda: build(card["config"], contract), tensors_under(tensors, f"{name}."))

            encoder = network(method.build, "encoder")
            _check_network(encoder, contract)
            others: dict[str, nn.Module | None] = {"decoder": None, "classifier": None}
            for name, builder in (("decoder", method.build_decoder), ("classifier", method.build_classifier)):
                if not tensors_under(tensors, f"{name}."):
                    continue
                if builder is None:
                    raise ValueError(f"{card['method']} has no {name}")
                others[name] = network(builder, name)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, SafetensorError) as error:
            reason = one_line(error)
            raise InputError(f"{path / _CARD}: config, contract and weights must fit together ({reason})") from error
        return Release(
            method=card["method"],
            config=card["config"],
            contract=contract,
            encoder=encoder,
            made=card["made"],
            key=_read_key(path, key, card["key_check"]),
            fitted=fitted.read(fitted_path(path), card["card_sha256"]),
            **others,
        )

    def export_onnx(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the encoder as ONNX: input ``x`` as the encoder takes it, output ``release``; equal to 1e-4.

        The file holds what is computed and no more: PyTorch's notes of how it was traced name folders of this machine.
        The secret of keyed noise is no part of the file: the arrays of its :class:`veil.draws.Field` are further inputs
        of the network, by their names, and are written to ``NAME.field.npz`` beside it, which is as secret as the key,
        where the key is there. A release that draws among substitutes has a second input ``uniform`` ``(B, 1)``.
        Images come out as floats in [0, 1], ``(B, C, H, W)`` from the encoder or flattened substitutes. The Random
        baseline is refused.

        Args:
            path: ``NAME.onnx``.
            force: Replace it if it exists.

        Raises:
            InputError: If the file's name does not end in ``.onnx``, or it exists and ``force`` is False; if the extra
                ``onnx`` is not installed, or the release replaces values at random.
        """
        path = Path(path)
        if path.suffix != ".onnx":
            raise InputError(f"{path}: must end in .onnx, got {path.suffix!r}")
        secret = field_path(path) if self.contract.noise and self.key is not None else None
        arrays = b"" if secret is None else self._field_file()
        sweep(path)
        for target in filter(None, (path, secret)):
            # The arrays of this very field may be there: whoever writes both may be killed between.
            if target.exists() and not force and (target == path or target.read_bytes() != arrays):
                raise InputError(f"{target}: already exists; choose another name or force")
        if self.contract.replace:
            raise InputError(f"{self.method}: values replaced at random cannot be exported to ONNX")
        try:
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise InputError("export needs the extra 'onnx': pip install '.[onnx]' in Veil's folder") from error
        blank = np.zeros((2, *self.contract.shape), np.uint8 if self.contract.kind == "images" else np.float32)
        example = to_input(blank, self.contract.kind)
        module: nn.Module = self.encoder
        arguments: tuple[Tensor, ...] = (example,)
        names = ["x"]
        if self.contract.support:
            module = _Substituted(self.encoder, self.contract)
            if self.contract.draw:
                arguments, names = (example, torch.full((2, 1), 0.5)), ["x", "uniform"]
        shapes: tuple[Any, ...] = tuple({0: torch.export.Dim("batch", min=1)} for _ in names)
        if self.contract.noise:
            module = _Noisy(self.encoder, self.contract.noise)
            # Of a key of no release: the field is an input, and its values are not in the file.
            stand_in = Field.draw(bytes(KEY_BYTES), self.contract.k).arrays()
            arguments, names = (example, *stand_in.values()), ["x", *stand_in]
            shapes = (*shapes, tuple({} for _ in stand_in))
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
        network = program.model_proto
        _strip(network)
        if secret is not None:  # first, as a network without it is of no use
            _write_secret(secret, arrays)
        with written(path) as file:
            file.write(network.SerializeToString())
        return path

    def _field_file(self) -> bytes:
        file = io.BytesIO()
        arrays: dict[str, Any] = {name: array.numpy() for name, array in self.field.arrays().items()}
        np.savez(file, **arrays)
        return file.getvalue()


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


class _Noisy(nn.Module):
    """An encoder and its noise as one graph, for export."""

    def __init__(self, encoder: nn.Module, noise: float) -> None:
        super().__init__()
        self.encoder, self.noise = encoder, noise

    def forward(self, x: Tensor, *field: Tensor) -> Tensor:
        z = self.encoder(x)
        return normalised_noise(z, Field(*field)(z), self.noise)


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


def in_order(function: Callable[[T], U], items: Iterator[T]) -> Generator[U, None, None]:
    """A function of items, in their order, by as many threads as PyTorch would use for one of them.

    Networks and noise take turns in a batch, and noise keeps to one thread: whole batches side by side are quicker. And
    what one thread computes does not depend on how many there are, so a run may be resumed where there are others. The
    threads are of our own, and no other's count changes. Where that cannot be had, items are taken one by one.
    """
    threads = torch.get_num_threads()
    if not SETTABLE:
        yield from map(function, items)
        return
    waiting: deque[Future[U]] = deque()
    with ThreadPoolExecutor(threads, initializer=keep_to_one) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def check_unit_range(values: NDArray[np.float32], first_row: int) -> None:
    """Raises InputError unless values ``(B, k)`` lie in [0, 1]: draws from there would show among others."""
    outside = np.flatnonzero(~((values >= 0) & (values <= 1)).all(1))
    if len(outside):
        row = values[outside[0]]
        raise InputError(
            f"random: values must lie in [0, 1], got {row.min():.3g} to {row.max():.3g} in row {first_row + outside[0]}"
        )


def new_key() -> bytes:
    """A fresh secret from the operating system: the one draw that must not follow a seed."""
    return secrets.token_bytes(KEY_BYTES)


def read_key_file(path: Path) -> bytes:
    """The secret in a key file; raises InputError unless it holds 32 bytes.

    Of a release that was about to take another's place when it was killed the file holds both keys, the new one first.
    """
    return _keys(path)[0]


def _standing_key(path: Path) -> bytes:
    """The key of the release that stands somewhere; nothing where there is none, or none that is its."""
    try:
        check = _read_card(path)["key_check"]
        return next((key for key in _keys(key_path(path)) if _key_check(key) == check), b"")
    except InputError:
        return b""


def _keys(path: Path) -> list[bytes]:
    try:
        with opened(path) as file:
            data = file.read(2 * KEY_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: the key cannot be read ({error.strerror})") from error
    if len(data) not in (KEY_BYTES, 2 * KEY_BYTES):
        size = len(data) if len(data) <= 2 * KEY_BYTES else path.stat().st_size
        raise InputError(f"{path}: a key must have {KEY_BYTES} bytes, got {size}")
    return [data[i : i + KEY_BYTES] for i in range(0, len(data), KEY_BYTES)]


def named(path: str | Path) -> Path:
    """A path whose last part is a name, for files beside it to share; ``.`` and ``..`` are written out.

    Raises:
        InputError: For the root, which has none, and a name that is not UTF-8.
    """
    from veil.data.layouts.listing import check_utf8  # whoever loads a release need not wait for image decoders

    path = Path(path)
    check_utf8(path)
    if path.name in ("", ".."):
        path = path.resolve()
    if not path.name:
        raise InputError(f"{path}: not a name for a folder")
    return path


def check_key(path: Path, key: bytes) -> None:
    """Raises InputError where another key is in the place of a release's."""
    beside = key_path(path)
    if beside.exists() and read_key_file(beside) != key:
        raise InputError(f"{beside}: holds another key, which releases that are out may need; move it, or force")


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
    if not (path / _CARD).exists():
        raise InputError(f"{path}: only a release is replaced by force, and this holds no {_CARD}")
    if strange := sorted({item.name for item in path.iterdir()} - {WEIGHTS, _CARD}):
        lost = few(strange, 2)
        raise InputError(f"{path}: holds what is no part of a release and would be lost ({lost}); move it away")


def key_path(release: Path) -> Path:
    release = named(release)
    return release.with_name(release.name + ".key")


def fitted_path(release: Path) -> Path:
    """Where hashes of what a release was fitted on lie."""
    release = named(release)
    return release.with_name(release.name + fitted.SUFFIX)


def _key_check(key: bytes) -> str:
    """Tells whether a key is this release's without giving the key away."""
    return hashlib.blake2b(b"veil key check", key=key, digest_size=8).hexdigest()


def _card_check(card: Mapping[str, Any]) -> str:
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


def field_path(onnx: Path) -> Path:
    """Where the secret of an exported release's noise lies."""
    return onnx.with_name(f"{onnx.stem}.field.npz")


def _write_secret(path: Path, data: bytes) -> None:
    with written(path, secret=True) as file:
        file.write(data)


def _read_key(path: Path, given: str | Path | None, check: str | None) -> bytes | None:
    if check is None:
        if given is not None:
            raise InputError(f"{given}: {path} is a release without keyed noise or draws, and takes no key")
        return None
    source = Path(given) if given is not None else key_path(path)
    if given is None and not source.exists():
        return None
    key = next((key for key in _keys(source) if _key_check(key) == check), None)
    if key is None:
        raise InputError(f"{source}: is not the key of {path}")
    return key


def _read_card(path: Path) -> dict[str, Any]:
    card = path / _CARD
    try:
        found = read_json(card)
    except OSError as error:
        raise InputError(f"{path}: must be a release folder, but {_CARD} cannot be read ({error.strerror})") from error
    if not isinstance(found, dict) or not (_CARD_FIELDS.keys() - {"veil"}) <= found.keys():
        raise InputError(f"{card}: must hold {sorted(_CARD_FIELDS)}; is this a Veil release?")
    if found["schema"] != SCHEMA or isinstance(found["schema"], bool):
        raise InputError(f"{card}: schema must be {SCHEMA}, got {shown(found['schema'])}")
    if found["card_sha256"] != _card_check(found):
        raise InputError(f"{card}: differs from its own SHA-256: edited or damaged")
    try:
        check_fields(found, "", _CARD_FIELDS)
        check_fields(found["made"], "made", _MADE, others=True)
        if "pictures" in found["made"]:
            check_fields(found["made"]["pictures"], "made.pictures", framing.RULES, list(framing.RULES))
    except ValueError as error:
        raise InputError(f"{card}: {one_line(error)}") from None
    return found
