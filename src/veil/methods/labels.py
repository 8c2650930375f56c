"""What methods ask of the labels that they learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from veil.data.classes import few
from veil.data.pack import Pack
from veil.errors import InputError
from veil.release.contract import MOST_JOINT


def require_classes(pack: Pack, rows: NDArray[np.int64], labels: Sequence[str]) -> None:
    """Whether every class occurs among the rows to learn from, which know all of some labels; of people, two.

    ``Pack.require`` looks at each label by itself: rows that know one of them may be those that do not know another.

    Raises:
        InputError: With the label, and the classes that are not there.
    """
    problems = []
    for name in labels:
        there = np.unique(pack.label(name)[rows])
        missing = [repr(c) for code, c in enumerate(pack.classes[name]) if code not in there]
        if missing if name != "identity" else len(there) < 2:
            problems.append(f"label {name}: no row of class {few(missing)}")
    if problems:
        raise InputError(f"{'; '.join(problems)} among the rows of split protect that know all of {', '.join(labels)}")


def refuse_people(method: str, private: Sequence[str]) -> None:
    """Who somebody is cannot be hidden by what is shipped for each class: it would be each person's own, with a name.

    Raises:
        InputError: If identity is among the private labels.
    """
    if "identity" in private:
        raise InputError(
            f"{method}: private must not be identity where a release holds something of each class, for a class is one "
            "person; method substitution, or template with preset erased, can hide it"
        )


def refuse_many(method: str, pack: Pack, private: Sequence[str]) -> None:
    """What is shipped for each joint class of private labels must fit: their number is the product of the classes'.

    Raises:
        InputError: For more than :data:`veil.release.contract.MOST_JOINT` joint classes.
    """
    joint = math.prod(len(pack.classes[name]) for name in private)
    if joint > MOST_JOINT:
        raise InputError(
            f"{method}: private labels make at most {MOST_JOINT:,} joint classes, each with something of its own; the "
            f"{len(private)} named make {joint:,}"
        )


def people(pack: Pack, rows: NDArray[np.int64], label: str = "identity") -> NDArray[np.int64]:
    """Codes ``(n,)`` of who is seen in each row; whoever is unknown counts as a person of their own."""
    if label not in pack.labels:
        return np.arange(len(rows))
    codes = pack.label(label)[rows]
    return np.where(codes < 0, codes.max() + 1 + np.arange(len(rows)), codes)


def known(pack: Pack, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether it is known ``(n,)`` who is seen in each row; without identity every row counts as another person's."""
    return pack.label("identity")[rows] >= 0 if "identity" in pack.labels else np.ones(len(rows), bool)
