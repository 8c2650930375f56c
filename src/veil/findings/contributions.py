"""By how much each person moves a figure: what two audits of the same people are compared by.

A figure's error is the sum of what persons contribute to it (:mod:`veil.auditing.intervals`). So the error of a
difference of two figures on the same people is the sum of the differences, person by person: what both attackers find
hard about one person cancels. Persons stand in the order of their codes, without names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from veil import parquet
from veil.errors import InputError

NAME = "contributions.parquet"
_LARGEST = 2.0  # of a person to a figure in [-1, 1], with its correction
_COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in ("release", "target", "code", "attacker", "rows")),
        ("person", pa.int64()),
        ("contribution", pa.float32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What persons contribute to one figure.

    Attributes:
        release, target, code, attacker: Those of the finding.
        rows: A hash of the rows, or pairs, and their persons: only figures on the same ones are paired.
        people: float32 ``(U,)``, their sums of influence, corrected for their small number.
    """

    release: str
    target: str
    code: str
    attacker: str
    rows: str
    people: NDArray[np.float32]


def write(path: Path, contributions: Sequence[Contribution]) -> None:
    """Contributions as a table, a row a person."""
    counts = [len(each.people) for each in contributions]
    texts = {
        name: pa.array(np.repeat([getattr(each, name) for each in contributions], counts).tolist(), pa.string())
        for name in _COLUMNS.names[:5]
    }
    people = [np.arange(count) for count in counts]
    values = [each.people for each in contributions]
    numbers = {
        "person": pa.array(np.concatenate([np.empty(0, np.int64), *people])),
        "contribution": pa.array(np.concatenate([np.empty(0, np.float32), *values])),
    }
    pq.write_table(pa.table(texts | numbers, schema=_COLUMNS), path)


def read(path: Path) -> list[Contribution]:
    """What :func:`write` wrote; raises InputError for anything else."""
    table = parquet.read_typed(path, _COLUMNS)
    names = _COLUMNS.names[:5]
    codes = np.stack([np.asarray(table[name].combine_chunks().indices, np.int64) for name in names], axis=1)
    values = np.asarray(table["contribution"], np.float32)
    if (wrong := values[~(np.abs(values) <= _LARGEST)]).size:
        raise InputError(f"{path}: contributions must be numbers of at most {_LARGEST:g}, got {wrong[0]}")
    contributions = []
    for part in np.split(np.arange(len(table)), np.flatnonzero((codes[1:] != codes[:-1]).any(1)) + 1):
        if len(part):
            texts = {name: table[name][int(part[0])].as_py() for name in names}
            contributions.append(Contribution(**texts, people=values[part]))
    return contributions
