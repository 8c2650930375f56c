"""A scikit-learn adapter: any method as a transformer that can be cloned and put in a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from veil.data.pack import SPLITS, Pack
from veil.errors import InputError
from veil.methods import METHODS
from veil.release import Release


class Protector(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """``Protector("aia", alpha=0.5).fit(X, private=gender, identity=people).transform(X)``.

    Args:
        method: A name in ``veil.methods.METHODS``.
        preset: Named settings; the method's default if None.
        seed: Seeds the whole fit.
        settings: Changes to the preset, by field name.

    Attributes:
        release_: The frozen :class:`veil.Release`, after ``fit``.
    """

    def __init__(self, method: str = "aia", *, preset: str | None = None, seed: int = 0, **settings: Any) -> None:
        self.method = method
        self.preset = preset
        self.seed = seed
        self.settings = settings

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"method": self.method, "preset": self.preset, "seed": self.seed, **self.settings}

    def set_params(self, **params: Any) -> Protector:
        for name, value in params.items():
            if name in ("method", "preset", "seed"):
                setattr(self, name, value)
            else:
                self.settings = {**self.settings, name: value}
        return self

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        private: ArrayLike | Mapping[str, Sequence[Any]],
        identity: ArrayLike | None = None,
        key: bytes | None = None,
    ) -> Protector:
        """Train on all rows.

        Args:
            X: uint8 images ``(N, H, W[, 3])`` or vectors ``(N, d)``.
            y: Label to keep, ``(N,)``; None to keep 1-to-1 matching, which needs ``identity``.
            private: Label to hide, ``(N,)``, or several by name; None, "" and NaN are unknown.
            identity: Who is seen in each row, ``(N,)``.
            key: Secret of a release with keyed noise; fresh if None.

        Raises:
            InputError: For anything that does not fit, all problems in one line.
        """
        hidden = dict(private) if isinstance(private, Mapping) else {"private": private}
        others = {"identity": identity, "utility": y}
        kept = {name: values for name, values in others.items() if values is not None}
        problems = []
        if self.method not in METHODS:
            problems.append(f"method: must be one of {', '.join(METHODS)}, got {self.method!r}")
        if not kept:
            problems.append("fit: needs identity, to keep matching, or y, the label to keep; got neither")
        if not hidden:
            problems.append("private: at least one label must be given, got none")
        problems += [
            f"private: a label to hide cannot be named {name!r} where {'y' if name == 'utility' else name} is given"
            for name in hidden
            if name in kept
        ]
        if problems:
            raise InputError("; ".join(problems))
        data = np.asarray(X)
        labels = {name: _column(name, values) for name, values in {**hidden, **kept}.items()}
        pack = Pack.from_arrays(data, labels, split=[SPLITS[0]] * len(data))
        method = METHODS[self.method]
        config = method.configured(self.preset, self.settings)
        self.release_: Release = method.fit(
            config,
            pack,
            private=list(hidden),
            utility="identity" if y is None else "utility",
            seed=self.seed,
            key=key,
        )
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Release rows: float32 ``(N, k)``; vectors of any floating type are taken.

        Raises:
            sklearn.exceptions.NotFittedError: Before ``fit``.
            InputError: For rows of another shape or kind than those of ``fit``.
        """
        check_is_fitted(self, "release_")
        data = np.asarray(X)
        if self.release_.contract.kind == "vectors" and np.issubdtype(data.dtype, np.floating):
            data = data.astype(np.float32, copy=False)
        return self.release_.transform(data)


def _column(name: str, values: Any) -> NDArray[Any]:
    """A label's values as Python objects: an array of strings would turn an unknown NaN into the class "nan"."""
    column = np.asarray(values, dtype=object)
    if column.ndim != 1:
        raise InputError(f"{name}: must be one value a row, got shape {column.shape}")
    return column
