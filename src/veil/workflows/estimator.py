"""A scikit-learn adapter: any method as a transformer that can be cloned, searched and put in a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from veil.data.pack import SPLITS, Pack
from veil.errors import InputError
from veil.methods import METHODS, fitting
from veil.methods.fitting import Order
from veil.release import Release


class Protector(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """``Protector("aia", alpha=0.5).fit(X, private=gender, identity=people).transform(X)``.

    A pickle of a fitted protector holds the key of its release, if there is one; ``release_.save`` keeps the two apart.

    Args:
        method: A name in ``veil.methods.METHODS``.
        preset: Named settings; the method's default if None.
        seed: Seeds the whole fit.
        settings: Changes to the preset, by field name; checked by ``fit``, as scikit-learn wants it.

    Attributes:
        release_: The frozen :class:`veil.Release`, after ``fit``.
        n_features_in_: Width of the vectors that ``fit`` saw; images have none.
        feature_names_in_: Names of a data frame's columns, where all are strings; the release asks files for the same.
    """

    def __init__(self, method: str = "aia", *, preset: str | None = None, seed: int = 0, **settings: Any) -> None:
        self.method = method
        self.preset = preset
        self.seed = seed
        self._settings = settings

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"method": self.method, "preset": self.preset, "seed": self.seed, **self._settings}

    def set_params(self, **params: Any) -> Protector:
        for name, value in params.items():
            if name in ("method", "preset", "seed"):
                setattr(self, name, value)
            else:
                self._settings = {**self._settings, name: value}
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.release_.contract.k

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        private: ArrayLike | Mapping[str, ArrayLike] | None = None,
        identity: ArrayLike | None = None,
        key: bytes | None = None,
    ) -> Protector:
        """Train on all rows.

        Args:
            X: uint8 images ``(N, H, W[, 3])`` or vectors ``(N, d)``.
            y: With ``private`` the label to keep, ``(N,)``. Without it the label to hide, like ``private``: that is
                what a search or a pipeline that passes nothing but X and y asks for.
            private: Label to hide, ``(N,)``; or several, as columns ``(N, m)`` or by name. A search over folds splits
                arrays and data frames, but not mappings. None, "" and NaN are unknown.
            identity: Who is seen in each row, ``(N,)``; matching them 1 to 1 is kept where ``y`` is not. Without both,
                every row counts as another person: enough for methods that learn nothing from matching. Averages of
                several people, the default of method ``substitution``, ask for it.
            key: Secret of a release with keyed noise; fresh if None.

        Raises:
            InputError: For anything that does not fit, all problems in one line.
        """
        if private is None:
            private, y = y, None
        hidden = {} if private is None else _labels(private)
        others = {"identity": identity, "utility": y}
        kept = {name: _column(name, values) for name, values in others.items() if values is not None}
        problems = []
        if not isinstance(self.method, str) or self.method not in METHODS:
            problems.append(f"method: must be one of {', '.join(METHODS)}, got {self.method!r}")
        if private is None:
            problems.append("private: without it fit requires y to be passed, but the target y is None")
        elif not hidden:
            problems.append("private: at least one label must be given, got none")
        problems += [
            f"private: a label to hide cannot be named {name!r} where {'y' if name == 'utility' else name} is given"
            for name in hidden
            if name in kept
        ]
        if problems:
            raise InputError("; ".join(problems))
        config = METHODS[self.method].algorithm.configured(self.preset, self._settings)
        if getattr(config, "substitutes", "") == "average" and config.person not in hidden | kept:
            raise InputError(
                f"{config.person}: averages of several people need to know who is seen in each row, got none"
            )
        data = self._validated(X, fitting=True)
        use = "utility" if "utility" in kept else "identity"
        given = use in kept
        if not kept and "identity" not in hidden:
            kept = {"identity": np.arange(len(data))}
        columns = getattr(self, "feature_names_in_", None) if data.ndim == 2 else None  # of a data frame
        pack = Pack.from_arrays(data, {**hidden, **kept}, split=[SPLITS[0]] * len(data), columns=columns)
        if same := [name for name in hidden if given and np.array_equal(pack.label(name), pack.label(use))]:
            what = "y" if use == "utility" else "identity"
            raise InputError(f"private: must not tell the same as what is kept, and {same[0]!r} does so of {what}")
        order = Order(
            method=self.method,
            pack=pack,
            private=list(hidden),
            utility=use if use in kept else "",
            preset=self.preset,
            settings=self._settings,
            seed=self.seed,
            # Without ``identity`` the pack's is made up, or there is none: its names are nobody's.
            people="identity" in hidden or identity is not None,
        )
        self.release_: Release = fitting.fit(order, key=key).release
        return self

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Release rows: float32 ``(N, k)``, or uint8 images where the method releases images.

        Vectors of any type of numbers are taken.

        Raises:
            sklearn.exceptions.NotFittedError: Before ``fit``.
            InputError: For rows of another shape or kind than those of ``fit``, and for vectors that are not finite or
                hold only zeros.
        """
        check_is_fitted(self, "release_")
        return self.release_.transform(self._validated(X, fitting=False))

    def _validated(self, X: Any, *, fitting: bool) -> NDArray[Any]:
        """Images as they are; vectors as float32, without any that no direction can be told of."""
        if getattr(X, "dtype", None) == np.uint8 and np.ndim(X) > 2:
            return np.asarray(X)
        least = 2 if fitting else 1  # later the width is what counts
        try:
            with np.errstate(over="ignore"):  # what is too large for float32 is told below, with its row
                x: NDArray[np.float32] = validate_data(
                    self, X, reset=fitting, dtype=np.float32, ensure_all_finite=False, ensure_min_features=least
                )
        except ValueError as error:
            lines = str(error).splitlines()
            said = [line for line in lines if line[:1].isupper() or line[:2] == "- "]  # the others show the array
            raise InputError(f"X: {' '.join(said or lines[:1])}") from None
        for bad, what in ((~np.isfinite(x).all(1), "NaN or infinity"), (~x.any(1), "only zeros")):
            if bad.any():
                raise InputError(f"X: row {int(bad.argmax())} holds {what} ({int(bad.sum())} such rows)")
        return x


def _labels(private: Any) -> dict[str, NDArray[Any]]:
    """Labels to hide by name: a mapping's or a data frame's; else ``private``, numbered where there are several."""
    if isinstance(private, Mapping) or hasattr(private, "columns"):
        names = private if isinstance(private, Mapping) else private.columns
        return {str(name): _column(str(name), private[name]) for name in names}
    values = np.asarray(private, dtype=object)
    if values.ndim != 2:
        return {"private": _column("private", values)}
    if values.shape[1] == 1:
        return {"private": values[:, 0]}
    return {f"private_{i}": column for i, column in enumerate(values.T)}


def _column(name: str, values: Any) -> NDArray[Any]:
    """A label's values as Python objects: an array of strings would turn an unknown NaN into the class "nan"."""
    column = np.asarray(values, dtype=object)
    if column.ndim != 1:
        raise InputError(f"{name}: must be one value a row, got shape {column.shape}")
    return column
