"""CSV files beside a data set that say something of its rows, by their names: where eyes are, what is to be hidden."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from veil.data.columns import IMAGE_KEYS, key_columns, plain
from veil.data.csvfile import open_csv
from veil.errors import InputError


def read(path: Path, columns: Sequence[str], what: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The rows of a CSV file that names images and has these columns, in any order and among any others.

    Args:
        path: The file; its dialect is as :mod:`veil.data.csvfile` reads it, and a column names the images as in a file
            of labels.
        columns: Names of the columns that are wanted beside the images' names; the file may write them without ``_``.
        what: What the file is, for messages.

    Yields:
        Where the row stands, for messages; its image, as :func:`veil.data.columns.plain` writes it; and the texts of
        its columns.

    Raises:
        InputError: The file cannot be read, lacks a column or holds no row, or an image is missing or stands there
            twice.
    """
    if not path.is_file():
        raise InputError(f"{path}: {what} cannot be read ({'a folder' if path.is_dir() else 'no such file'})")
    table = open_csv(path)
    keys = key_columns(table.header, IMAGE_KEYS)
    if not keys:
        raise InputError(
            f"{path}: its header must name the images ({', '.join(IMAGE_KEYS)}), got {_got(table.header)}{table.doubt}"
        )
    names = [name.casefold().replace("_", "") for name in table.header]
    wanted = {column: column.replace("_", "") for column in columns}
    for column, name in wanted.items():
        if names.count(name) != 1:
            got = "twice or more" if name in names else f"only {_got(table.header)}"
            raise InputError(f"{path}: its header must name the column {column} once, got {got}")
    key, places = table.places[keys[0]], {column: names.index(name) for column, name in wanted.items()}
    seen: dict[str, int] = {}
    for number, cells in enumerate(table.records(keyed=True)):
        row, name = f"{path}: row {number}", plain(cells[key])
        if not name:
            raise InputError(f"{row}: {keys[0]} must name an image, got nothing")
        if name in seen:
            raise InputError(f"{row}: {keys[0]} must stand there once, got {name!r} as in row {seen[name]}")
        seen[name] = number
        yield row, name, {column: cells[place] for column, place in places.items()}
    if not seen:
        raise InputError(f"{path}: must have a row for each image, got none")


def _got(header: Sequence[str]) -> str:
    return ", ".join(name for name in header if name)
