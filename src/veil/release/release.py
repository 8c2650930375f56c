"""The release: an encoder's weights, its contract, and how it was made."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from veil import notebook
from veil.data import fitted
from veil.data.fitted import UNDERNEATH, Fitted
from veil.data.pack import Pack
from veil.errors import InputError, check_type, checked_path
from veil.nn.nets import to_input, to_pixels
from veil.release import folder
from veil.release.beside import KEY_BYTES, named, renewed_key, wrong_key
from veil.release.contract import Contract
from veil.release.draws import Field, check_unit_range, chosen, keyed_uniform, normalised_noise, orthogonal
from veil.threads import in_order

BATCH = {"images": 128, "vectors": 1024}
"""Rows that each thread releases at a time; divides :data:`veil.workflows.apply.parts.PART`: no batch is in two."""
_FEW, _PIXELS = 8, 1 << 17  # images, and their pixels in all, that are redrawn at a time


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
        if self.key is not None and not isinstance(self.key, bytes):
            raise InputError(f"key: must be {KEY_BYTES} bytes, got {type(self.key).__name__}")
        if self.key is not None and (wrong := wrong_key(self.key)):
            raise InputError(f"key: {wrong}")

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
        check_type("x", x, np.ndarray, "an array")
        asked = self._asked(told, hide, len(x))
        self.need_key()
        return self._all(x, 0, asked, batch)

    def _all(
        self, x: NDArray[Any], first_row: int, asked: Sequence[Tensor | None], batch: int | None = None
    ) -> NDArray[Any]:
        """Releases of all inputs, some at a time; messages number rows from ``first_row``."""
        out = self.contract.empty(len(x))
        size = self._rows_at_a_time(batch)
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

    def _rows_at_a_time(self, batch: int | None) -> int:
        if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1):
            raise InputError(f"batch: must be a whole number of at least 1, got {batch!r}")
        return BATCH[self.contract.kind] if batch is None else int(batch)

    def codes(self, x: NDArray[Any], *, batch: int | None = None) -> NDArray[np.int64]:
        """Which of its finitely many values each input is released as: ``(N,)`` in 0 .. K - 1.

        Raises:
            InputError: As for :meth:`transform`, or where the release can take any number of values.
        """
        if not self.contract.support:
            raise InputError(f"{self.method}: its releases take no finite number of values, so they have no codes")
        self.need_key()
        size = self._rows_at_a_time(batch)
        out = np.empty(len(x), np.int64)
        for start in range(0, len(x), size):
            part = self._checked(x[start : start + size], start)
            out[start : start + size] = self._code(part, self._clean(part, (), start))
        return out

    @cached_property
    def substitutes(self) -> NDArray[Any]:
        """The values ``(K, ...)`` of a release that takes finitely many, in the order of its codes."""
        table: Tensor = self.encoder.substitutes  # type: ignore[assignment]
        return self._turned(table.numpy()) if self.contract.renew else table.numpy()

    def stream(self, batches: Iterable[NDArray[Any]], *, first_row: int = 0) -> Iterator[NDArray[Any]]:
        """Release one batch after another; nothing is held back."""
        self.need_key()
        for x in batches:
            yield self._all(x, first_row, ())
            first_row += len(x)

    @cached_property
    def draw_key(self) -> bytes:
        """Secret of the draws: of the key, what the release was made with, and its weights.

        Raises:
            InputError: Without a key.
        """
        self.need_key()
        assert self.key is not None
        return self._digest(self.key[:KEY_BYTES])

    @cached_property
    def matrix(self) -> Tensor:
        """The orthogonal matrix ``(k, k)`` by which releases are turned, as secret as the key.

        Raises:
            InputError: Without a key.
        """
        self.need_key()
        assert self.key is not None
        return orthogonal(self._digest(self.key[-KEY_BYTES:]), self.contract.k)

    @property
    def fingerprint(self) -> str:
        """A SHA-256 that tells releases apart which may release one input differently: weights, settings and key."""
        self.need_key()
        key = self.key if self.contract.keyed else None
        return hashlib.sha256(b"fingerprint" + self._digest(key or b"")).hexdigest()

    def _digest(self, key: bytes) -> bytes:
        made = json.dumps([self.method, dict(self.config), asdict(self.contract)], sort_keys=True)
        digest = hashlib.blake2b(made.encode(), key=key, digest_size=KEY_BYTES)
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

    def need_key(self, name: str = "release") -> None:
        """Raises InputError, in the release's name, where it cannot release anything for want of its key."""
        if self.contract.keyed and self.key is None:
            does = "adds keyed noise" if self.contract.draws else "turns releases by its key"
            raise InputError(f"{name}: it {does}, so its key must be given, got none")

    def _release(self, x: NDArray[Any], first_row: int, asked: Sequence[Tensor | None]) -> NDArray[Any]:
        x = self._checked(x, first_row)
        values = self._clean(x, asked, first_row)
        if self.contract.support:
            return self.substitutes[self._code(x, values)]
        if self.contract.image is not None:
            return to_pixels(values, self.contract.image)
        if self.contract.draws:
            values = self._keyed(x, values, first_row)
        return self._turned(values) if self.contract.renew else values

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
            for part in torch.split(self._read(r), batch):
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
            parts = [self.classifier(part) for part in torch.split(self._read(r), batch)]
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

    def _turned(self, r: NDArray[Any], *, back: bool = False) -> NDArray[np.float32]:
        """Vectors ``(B, k)`` turned by the key's matrix, or turned back."""
        turned: NDArray[np.float32] = (torch.tensor(r) @ (self.matrix.T if back else self.matrix)).numpy()
        return turned

    def _read(self, r: NDArray[Any]) -> Tensor:
        """Releases as the release's own decoder and classifier take them."""
        return torch.from_numpy(self._turned(r, back=True) if self.contract.renew else np.ascontiguousarray(r))

    def _repr_html_(self) -> str:
        """What it hides, keeps, takes and gives, for notebooks."""
        c, made = self.contract, self.made
        noise = f", keyed noise {c.noise:g}" * bool(c.noise) + ", turned by its key" * c.renew
        values = f"one of {c.support} values" if c.support else "an image" if c.image else f"{c.k} values"
        about = {
            "hides": ", ".join(made.get("private", ())) or "-",
            "keeps": made.get("utility") or "-",
            "takes": f"{c.kind} {c.shape}",
            "releases": f"{values}{noise}",
            "key": "-" if not c.keyed else "there" if self.key is not None else "missing",
        }
        return notebook.facts(f"{self.method}, {made.get('preset') or 'no preset'}", about)

    # -- under another key ---------------------------------------------------------------------------------------

    def rekeyed(self) -> Release:
        """The same release with a fresh matrix: releases of one do not match those of the other.

        Its noise stays as it was, so that stored releases can be moved (:meth:`moving`), and match what is released
        from then on as if all had been released anew.

        Raises:
            InputError: If it was not fitted with the setting ``renew``, or has no key.
        """
        self._need_matrix(self.method)
        assert self.key is not None
        return replace(self, key=renewed_key(self.key))

    def moving(self, to: Release) -> Release:
        """What turns stored releases of this one into those of ``to``, vector by vector, without their inputs.

        Raises:
            InputError: Unless ``to`` is this release under another key, with the same noise.
        """
        for name, release in ((self.method, self), ("to", to)):
            release._need_matrix(name)
        if self._digest(b"") != to._digest(b"") or (self.contract.draws and self.draw_key != to.draw_key):
            raise InputError("to: must be the same release rekeyed, got one of other weights, settings or noise")
        k = self.contract.k
        turn = nn.Linear(k, k, bias=False)
        with torch.no_grad():  # r is turned back by the one matrix and turned by the other
            turn.weight.copy_(to.matrix.double().T @ self.matrix.double())
        return Release(method="rekey", config={}, contract=Contract(kind="vectors", shape=(k,), k=k), encoder=turn)

    def _need_matrix(self, name: str) -> None:
        if not self.contract.renew:
            raise InputError(f"{name}: must have been fitted with the setting renew, which this release was not")
        self.need_key(name)

    # -- what it was fitted on ------------------------------------------------------------------------------------

    def recorded(self, pack: Pack, *, splits: Sequence[str] = ("protect",), people: bool = True) -> Release:
        """The same release, which knows that it was fitted on some splits of a pack, beside what it knows already.

        Args:
            pack: With the rows.
            splits: Those that were looked at.
            people: Whether the label ``identity``, where there is one, tells people.
        """
        others = sorted(set(self.made.get(UNDERNEATH, ())) - {pack.fingerprint})
        record = fitted.recorded(
            pack, self.fitted, others=others, direction=self.contract.direction, splits=splits, people=people
        )
        return replace(self, fitted=record)

    def lineage(self) -> dict[str, Any]:
        """What ``made`` says of a release that is built upon this one: the fingerprints of all data before."""
        if self.method == "input":  # which learned nothing
            return {}
        return {UNDERNEATH: [*self.made.get(UNDERNEATH, ()), str(self.made.get("data", ""))]}

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
        networks = {"encoder": self.encoder, "decoder": self.decoder if with_decoder else None}
        return folder.write(
            named(checked_path("path", path)),
            {
                "method": self.method,
                "config": dict(self.config),
                "contract": asdict(self.contract),
                "made": dict(self.made),
            },
            {**networks, "classifier": self.classifier},
            key=self.key,
            record=self.fitted,
            force=force,
        )

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
        key = None if key is None else checked_path("key", key)
        return Release(**folder.read(checked_path("release", path), key=key))

    def export(self, path: str | Path, *, force: bool = False) -> Path:
        """Write a bundle: a folder with the release as ONNX, and all that it takes to use it without Veil.

        What the network needs of a keyed release's key is in it, in files for their owner alone.

        Args:
            path: The folder to make.
            force: Replace a bundle that is there.

        Raises:
            InputError: If something else is there, or a bundle and ``force`` is False; if the key is missing, or the
                extra ``onnx`` is not installed; or if the release replaces values at random.
        """
        path = checked_path("path", path)
        from veil.release import bundle  # whoever loads a release need not wait for image decoders

        c = self.contract
        if c.replace:
            raise InputError(f"{self.method}: values replaced at random cannot be exported")
        self.need_key()
        secret: dict[str, NDArray[Any]] = {}
        if c.noise:
            secret = {name: array.numpy() for name, array in self.field.arrays().items()}
        elif c.draw:
            secret = {"draw_key": np.frombuffer(self.draw_key, np.uint8)}
        if c.renew:
            secret["matrix"] = self.matrix.numpy()
        made = {
            "method": self.method,
            "fingerprint": self.fingerprint,
            "private": self.made.get("private", ()),
            "utility": self.made.get("utility", ""),
        }
        return bundle.write(named(path), self.encoder, c, made, secret, self.transform, force=force)
