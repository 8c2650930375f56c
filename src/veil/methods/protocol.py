"""What a method's algorithm is given, and what it gives back, to the shell around all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

import numpy as np
from torch import nn

from veil.data.pack import Pack
from veil.engine import Run
from veil.errors import InputError, check_type
from veil.foreign import is_whole, shown
from veil.methods.settings import from_text, is_text, of_kind
from veil.release import Release
from veil.release.contract import Contract


@dataclass(frozen=True, kw_only=True)
class Task:
    """What an algorithm learns from, and for.

    Attributes:
        pack: Trains on its ``protect`` split.
        private: Labels to hide.
        utility: ``"identity"``, or a label to keep; "" where nothing is to be kept.
        run: Updates, stages, precision, checkpoints and progress.
        base: A release to work on, for methods that take one.
    """

    pack: Pack
    private: Sequence[str]
    utility: str = "identity"
    run: Run
    base: Release | None = None


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What an algorithm has made.

    Attributes:
        encoder: The network that releases.
        contract: What it takes and gives.
        decoder: Redraws the input from a release.
        classifier: Reads what is kept from a release.
        made: What a user should know of how it was made, beside what is the same for all methods.
        config: The settings, where fitting set some of them; None: those that were asked for.
        upon: The release that it was built upon, whose data were learned from, too.
    """

    encoder: nn.Module
    contract: Contract
    decoder: nn.Module | None = None
    classifier: nn.Module | None = None
    made: Mapping[str, Any] = field(default_factory=dict)
    config: Any = None
    upon: Release | None = None


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """A method's algorithm.

    Attributes:
        config: Its frozen dataclass of settings (see :mod:`veil.methods.settings`).
        presets: Named settings; the first is the default.
        train: Learns; raises InputError with all problems of data and labels in one line, or where the run diverges.
        build: Makes an encoder without trained weights.
        build_decoder: Makes its decoder; None for a method without one.
        build_classifier: Makes the classifier of what it keeps; None for a method without one.
        unit: Rows of a batch that belong together: 2 where it draws couples.
    """

    config: type[Any]
    presets: Mapping[str, Any]
    train: Callable[[Any, Task], Fitted]
    build: Callable[[Any, Contract], nn.Module]
    build_decoder: Callable[[Any, Contract], nn.Module] | None = None
    build_classifier: Callable[[Any, Contract], nn.Module] | None = None
    unit: int = 1

    def configured(self, preset: str | None = None, settings: Mapping[str, Any] | None = None) -> Any:
        """A preset with some settings changed.

        Args:
            preset: Name of a preset; the first if None.
            settings: Values by field name; strings are read as the field's type, NumPy's numbers, which a search over
                settings draws, as Python's.

        Raises:
            InputError: For a preset, setting or value that does not exist.
        """
        preset = preset if preset is not None else next(iter(self.presets))
        if not isinstance(preset, str) or preset not in self.presets:
            raise InputError(f"preset: must be one of {', '.join(self.presets)}, got {preset!r}")
        values = {f.name: getattr(self.presets[preset], f.name) for f in fields(self.config)}
        hints = get_type_hints(self.config)
        check_type("settings", {} if settings is None else settings, Mapping, "values by name")
        for name, value in ({} if settings is None else settings).items():
            if name not in values:
                raise InputError(f"setting: must be one of {', '.join(values)}, got {name!r}")
            value = value.item() if isinstance(value, np.generic) else value  # what JSON can keep
            read = from_text if isinstance(value, str) else of_kind
            values[name] = read(name, value, hints[name])
        return self.config(**values)

    def read(self, raw: Mapping[str, Any]) -> Any:
        """The configuration that a release holds: each setting there, and of its kind.

        Raises:
            InputError: For a setting that is missing, foreign, of another kind or out of range.
        """
        hints = get_type_hints(self.config)
        if odd := sorted(hints.keys() ^ raw.keys()):
            raise InputError(f"config: must hold {', '.join(hints)}; {odd[0]} is missing, or none of them")
        for name, value in raw.items():
            text = is_text(hints[name])
            if isinstance(value, str) != text:
                raise InputError(f"{name}: must be {'' if text else 'no '}text, got {shown(value)}")
            if hints[name] is int and not is_whole(value):
                raise InputError(f"{name}: must be an integer, got {shown(value)}")
            if not text:
                of_kind(name, value, hints[name])
        return self.config(**raw)
