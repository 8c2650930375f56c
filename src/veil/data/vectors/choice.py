"""Which columns of a table, Parquet or CSV, are its vectors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from veil.data.classes import few
from veil.data.columns import nfc
from veil.data.vectors.file import USUAL, Wanted
from veil.errors import InputError


def vector_columns(
    path: Path, lists: Sequence[str], floats: Sequence[str], numbers: Sequence[str], wanted: Wanted
) -> list[str]:
    """The columns of a table that are its vectors, in the order that is wanted.

    Args:
        path: For messages.
        lists: Columns of lists of floats.
        floats: Columns of floats.
        numbers: Columns of any numbers, which may be chosen by their names.
        wanted: What is asked of the file.
    """
    there = {nfc(name).strip(): name for name in numbers}
    dimensions = [there.get(name, "") for name in wanted.dimensions]
    try:
        chosen = _chosen(path, lists, floats, numbers, wanted.column)
    except InputError:
        if not dimensions or "" in dimensions or wanted.column is not None:
            raise
        chosen = dimensions  # of whole numbers, say: their names say enough
    if not dimensions or chosen[0] in lists:
        return chosen
    missing = [name for name in wanted.dimensions if name not in there]
    if wanted.column is not None:
        missing = [name for name in wanted.dimensions if there.get(name) not in chosen]
    wanted_names = set(dimensions)
    foreign = [name for name in chosen if name not in wanted_names]
    if missing or foreign:
        said = [f"missing: {few(missing)}"] * bool(missing) + [f"none of them: {few(foreign)}"] * bool(foreign)
        raise InputError(
            f"{path}: its vectors must be the columns {few(wanted.dimensions)} that the release was fitted on; "
            f"{'; '.join(said)}; set column to the right ones, A,B,..."
        )
    return dimensions


def _chosen(
    path: Path, lists: Sequence[str], floats: Sequence[str], numbers: Sequence[str], column: str | None
) -> list[str]:
    """The columns that are vectors by what the user chose, or by themselves."""
    groups = {stem: names for stem, names in numbered(floats).items() if len(names) > 1}
    if column is not None and column not in lists and "," in column:
        chosen = [name.strip() for name in column.split(",")]
        known = set(numbers)
        if strange := [name for name, count in Counter(chosen).items() if count > 1 or name not in known]:
            raise InputError(
                f"{path}: columns {column}: each must be one of numbers, named once ({few(list(numbers)) or 'none'}), "
                f"got {strange[0]!r}"
            )
        return chosen
    if column is not None:
        if column not in lists and column not in groups:
            there = ", ".join([*lists, *(f"{stem}0..." for stem in groups)]) or "none"
            raise InputError(f"{path}: column {column!r} is not one of lists of floats, or several numbered ({there})")
        return [column] if column in lists else groups[column]
    if len(lists) > 1:
        usual = [name for name in lists if name.casefold() in USUAL]
        if len(usual) == 1:
            return usual
        raise InputError(f"{path}: several columns hold lists of floats ({', '.join(lists)}); set column to one")
    if not lists and len(groups) > 1:
        names = ", ".join(f"{group[0]}..." for group in groups.values())
        raise InputError(f"{path}: several rows of numbered columns hold floats ({names}); set column to one's name")
    if not lists and len(floats) < 2:
        raise InputError(f"{path}: no column of lists of floats, and not two columns of floats or more")
    return list(lists) or next(iter(groups.values()), list(floats))


def numbered(columns: Iterable[str]) -> dict[str, list[str]]:
    """Columns whose names end in a number, by what stands before it.

    In the order of their numbers, which say what dimension they are, wherever the columns stand.
    """
    groups: dict[str, list[str]] = {}
    for name in columns:
        if number := re.fullmatch(r"(.*?)\d+", name, re.S):
            groups.setdefault(number[1], []).append(name)
    return {stem: sorted(names, key=lambda name: int(name[len(stem) :])) for stem, names in groups.items()}


def dimensions_of(chosen: Sequence[str], lists: bool) -> tuple[str, ...]:
    return () if lists else tuple(nfc(name).strip() for name in chosen)
