"""A scikit-learn adapter: any method as a transformer that can be cloned and put in a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin

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
        if self.method not in METHODS:
            raise InputError(f"method: must be one of {', '.join(METHODS)}, got {self.method!r}")
        if y is None and identity is None:
            raise InputError("fit: needs identity, to keep matching, or y, the label to keep; got neither")
        hidden = dict(private) if isinstance(private, Mapping) else {"private": private}
        labels = dict(hidden)
        if identity is not None:
            labels["identity"] = identity
        if y is not None:
            labels["utility"] = y
        pack = Pack.from_arrays(
            np.asarray(X), {k: np.asarray(v) for k, v in labels.items()}, split=[SPLITS[0]] * len(np.asarray(X))
        )
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
        """Release rows: float32 ``(N, k)``."""
        return self.release_.transform(np.asarray(X))
