"""CSV files beside a data set that say something of its rows, by their names: where eyes are, what is to be hidden."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from veil.errors import InputError


def plain(name: str) -> str:
    """A path with ``/`` between its parts and no ``./`` before it, whatever system wrote it down."""
    return name.replace("\\", "/").removeprefix("./")


def read(path: Path, columns: Sequence[str], what: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The rows of a CSV file whose header names ``path`` and these columns, in any order and among any others.

    Args:
        path: The file.
        columns: Names of the columns that are wanted beside ``path``.
        what: What the file is, for messages.

    Yields:
        Where the row stands, for messages; its path, as :func:`plain` writes it; and the texts of its columns.

    Raises:
        InputError: The file cannot be read, lacks a column or holds no row, or a path is missing or stands there twice.
    """
    lines: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            where = _header(path, next(rows, []), ("path", *columns))
            for row in rows:
                if not row:
                    continue
                cells = {column: row[i].strip() if i < len(row) else "" for column, i in where.items()}
                line = f"{path}: line {rows.line_num}"
                name = plain(cells.pop("path"))
                if not name:
                    raise InputError(f"{line}: path must name an image, got nothing")
                if name in lines:
                    raise InputError(f"{line}: path must stand there once, got {name!r} as in line {lines[name]}")
                lines[name] = rows.line_num
                yield line, name, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        words = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(f"{path}: {what} cannot be read ({words})") from None
    if not lines:
        raise InputError(f"{path}: must have a row for each image, got none")


def _header(path: Path, header: list[str], columns: Sequence[str]) -> dict[str, int]:
    """The place of each column in a row."""
    names = [name.strip() for name in header]
    for column in columns:
        if names.count(column) != 1:
            got = "twice or more" if column in names else f"only {', '.join(names) or 'an empty line'}"
            raise InputError(f"{path}: its header must name the column {column} once, got {got}")
    return {column: names.index(column) for column in columns}
