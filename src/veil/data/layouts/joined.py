"""Labels of a table's rows: its own columns, and those of a file beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from veil.data.classes import few
from veil.data.columns import KEYS
from veil.data.layouts import table as tables
from veil.data.layouts.listing import Pair, Remarks
from veil.data.layouts.table import Table
from veil.data.pack import Predicted
from veil.data.packfile import marks_in
from veil.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The labels of rows.

    Attributes:
        own: Those of their table.
        other: Those of the file beside it, if there is one.
        rows: ``(N,)`` its row that speaks of each, or -1.
        pairs: Its pairs, by the rows' names.
    """

    own: Table
    other: Table | None
    rows: NDArray[np.int64]
    pairs: list[Pair] | None

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of all labels."""
        return (*self.own.codes, *(self.other.codes if self.other is not None else ()))

    @property
    def predicted(self) -> Mapping[str, Predicted]:
        """Of these labels those that a classifier guessed, and by what."""
        others = {} if self.other is None else self.other.predicted
        return marks_in(self.own.path, [*self.own.codes]) | dict(others)

    def of(self, i: int) -> tuple[dict[str, str | None], str | None, str]:
        """Labels and split of row i, and why it cannot be packed where splits are prescribed but not its own."""
        labels, split, missing = self.own.row(i), *self.own.split_of(i)
        if self.other is not None:
            labels |= self.other.row(int(self.rows[i]))
            if self.other.split is not None:
                split, missing = self.other.split_of(int(self.rows[i]))
        return labels, split, missing


def joined(own: Table, names: Sequence[str], path: Path | None, remarks: Remarks, *, named: bool, what: str) -> Joined:
    """The labels of a table's rows.

    Args:
        own: The table's own.
        names: ``(N,)`` the rows' names.
        path: A file of labels, or another pack, beside the table; it is joined by names, or row by row where neither
            it nor the table names rows.
        remarks: Takes what is said.
        named: Whether the table names its rows; else ``names`` are their numbers.
        what: What the rows are.

    Raises:
        InputError: The file cannot be read, speaks of no row, names rows by other numbers or has a label of the table.
    """
    remarks.notes.extend(own.notes)
    if path is None:
        return Joined(own=own, other=None, rows=np.full(len(names), -1, np.int64), pairs=None)
    other = tables.read(path, KEYS, rows=None if named else len(names))
    odd = set() if named else set(other.names) - set(names)
    if 0 < len(odd) < len(other.names):  # counted from 1, say: every label would be its neighbour's
        raise InputError(
            f"{path}: {own.path} does not name its rows, so {other.key} must be their numbers, 0 to {len(names) - 1}, "
            f"got {few(sorted(odd), 2)}"
        )
    rows = tables.join(other, names)
    remarks.notes.extend(other.notes)
    tables.tell_join(remarks, other, names, rows, what)
    both = sorted(own.codes.keys() & other.codes.keys())
    both += ["split"] if own.split is not None and other.split is not None else []
    if both:
        raise InputError(f"{path}: has a column {both[0]}, and so has {own.path}; keep one of them")
    return Joined(own=own, other=other, rows=rows, pairs=other.pairs_of(names, rows))
