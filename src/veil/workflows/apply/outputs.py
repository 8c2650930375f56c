"""What parts make up: a file of vectors, a folder of Parquet files, or a pack; and the list of rows that were left out.

Files and folders are written beside ``OUT`` and take its name when they are whole.
"""

from __future__ import annotations

import filecmp
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from veil import files
from veil.data import build
from veil.data.classes import few
from veil.data.layouts.listing import Item, Listing
from veil.data.pack import SPLITS, Pack
from veil.errors import InputError
from veil.files import written
from veil.workflows.apply.parts import Part, Parts, list_skipped, lists

_GROUP = 4
"""Part files in a row group of Parquet."""
_SHARD = re.compile(r"part-\d{5,}\.parquet", re.ASCII)
OTHER = "{}: already exists, and is not what this run gives; choose another name or force"


@dataclass(frozen=True, kw_only=True)
class Form:
    """How rows stand in Parquet.

    Attributes:
        k: Values of a release.
        columns: Give every one its own column.
        image: Shape of the images that the releases are, to be written as such; None for rows of values.
    """

    k: int
    columns: bool = False
    image: tuple[int, ...] | None = None

    @property
    def schema(self) -> pa.Schema:
        """Its columns; of images with what tells readers of Hugging Face's tables that they are some."""
        if self.image is not None:
            encoded = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            features = {"source": {"dtype": "string", "_type": "Value"}, "image": {"_type": "Image"}}
            told = {"huggingface": json.dumps({"info": {"features": features}})}
            return pa.schema([("source", pa.string()), ("image", encoded)], metadata=told)
        each = [(f"release_{i}", pa.float32()) for i in range(self.k)]
        release = [("release", pa.list_(pa.float32(), self.k))]
        return pa.schema([("source", pa.string()), *(each if self.columns else release)])

    def batch(self, part: Part) -> pa.RecordBatch:
        """The rows of a part."""
        if self.image is not None:
            pixels = np.round(part.values * 255).astype(np.uint8).reshape(-1, *self.image)
            values = [_pictures(pixels, part.names.to_pylist())]
        elif self.columns:
            values = list(np.ascontiguousarray(part.values.T))
        else:
            values = [lists(part.values)]
        return pa.record_batch([part.names, *values], schema=self.schema)


def join(parts: Parts, out: Path, form: Form, *, same: bool = False) -> None:
    """Make the target of its parts, and ``OUT.skipped.csv`` where rows were left out.

    Args:
        parts: All written.
        out: ``NAME.parquet``, ``NAME.npz`` or ``NAME.npy``.
        form: How rows stand in Parquet.
        same: A target that is there must hold what it would be made to hold.

    Raises:
        InputError: If it does not.
    """
    n, skipped = parts.totals()
    writers: dict[str, Callable[[IO[bytes]], None]] = {
        ".parquet": lambda file: _write_parquet(file, parts, form),
        ".npz": lambda file: _write_npz(file, parts, n, form.k),
        ".npy": lambda file: _write_npy(file, parts, n, form.k),
    }
    if skipped:
        list_skipped(out, parts.skipped())
    try:
        with written(out, same=same) as file:
            writers[out.suffix](file)
    except FileExistsError:
        raise InputError(OTHER.format(out)) from None
    if not skipped:
        list_skipped(out, parts.skipped())


# Floats that carry noise neither repeat nor compress: to try costs more time than all else here.
_OPTIONS: Mapping[str, Any] = {"compression": {"source": "zstd"}, "use_dictionary": False, "write_statistics": False}


def _write_parquet(file: IO[bytes], parts: Parts, form: Form) -> None:
    schema = form.schema
    with pq.ParquetWriter(file, schema, **_OPTIONS) as writer:
        held: list[pa.RecordBatch] = []
        for number, part in enumerate(parts, 1):
            held.append(form.batch(part))
            if number % _GROUP == 0 or number == parts.division.count:
                writer.write_table(pa.Table.from_batches(held, schema))
                held = []


def _pictures(pixels: NDArray[np.uint8], names: Sequence[str]) -> pa.Array:
    """Images ``(n, H, W[, 3])`` as PNG, with names that end so."""
    encoded = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        encoded.append(file.getvalue())
    paths = [name if name.endswith(".png") else f"{name}.png" for name in names]
    return pa.StructArray.from_arrays([pa.array(encoded, pa.binary()), pa.array(paths, pa.string())], ["bytes", "path"])


def join_shards(parts: Parts, out: Path, rows: int, form: Form, *, same: bool = False) -> None:
    """Make the folder ``NAME.parquet`` of files of so many rows, the last aside; otherwise as :func:`join`."""
    n, skipped = parts.totals()
    schema = form.schema
    if skipped:
        list_skipped(out, parts.skipped())
    with files.staged(out) as hidden:
        folder = hidden / "new"
        folder.mkdir()
        batches = map(form.batch, parts)
        rest = next(batches)
        for number in range(-(-n // rows)):
            left = min(rows, n - number * rows)
            with pq.ParquetWriter(folder / f"part-{number:05d}.parquet", schema, **_OPTIONS) as writer:
                while left:
                    some = rest.slice(0, left)
                    if len(some):
                        writer.write_batch(some)
                    left -= len(some)
                    rest = rest.slice(len(some)) if len(some) < len(rest) or not left else next(batches)
        if not same or not os.path.lexists(out):
            files.publish(folder, out)
        elif not _alike(folder, out):
            raise InputError(OTHER.format(out))
    if not skipped:
        list_skipped(out, parts.skipped())


def check_shards(out: Path) -> None:
    """Raises InputError for a folder of which something would be lost that is none of :func:`join_shards`' files."""
    inside = out.iterdir() if out.is_dir() and not out.is_symlink() else ()
    if strange := sorted(path.name for path in inside if not _SHARD.fullmatch(path.name)):
        raise InputError(f"{out}: holds what is no part of a table and would be lost ({few(strange, 2)}); move it")


def _alike(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files."""
    names = sorted(path.name for path in one.iterdir())
    return (
        other.is_dir()
        and names == sorted(path.name for path in other.iterdir())
        and all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)
    )


def _write_npy(file: IO[bytes], parts: Parts, n: int, k: int) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (n, k)})
    for part in parts:
        file.write(np.ascontiguousarray(part.values, "<f4").data)


def _write_npz(file: IO[bytes], parts: Parts, n: int, k: int) -> None:
    width = max((pc.max(pc.utf8_length(part.names)).as_py() or 1 for part in parts), default=1)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("releases.npy", "w", force_zip64=True) as entry:
            _write_npy(entry, parts, n, k)
        with archive.open("source.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array_header_1_0(entry, {"descr": f"<U{width}", "fortran_order": False, "shape": (n,)})
            for part in parts:
                entry.write(np.array(part.names.to_pylist(), dtype=f"<U{width}").tobytes())


# -- packs of releases ------------------------------------------------------------------------------------------------


def write_pack(
    pack: Pack,
    parts: Parts,
    out: Path,
    *,
    image: tuple[int, ...] | None,
    row_numbers: bool,
    force: bool,
    same: bool,
) -> None:
    """The pack with its releases in place of the inputs, images where they are; labels, splits and pairs stay.

    ``same``: a pack that is there must be the same.
    """

    def named(row: int) -> str:
        return str(row) if row_numbers else str(pack.sources[row])

    def items() -> Iterator[Item]:
        row = 0
        for part in parts:
            pixels = part.values if image is None else np.round(part.values * 255).astype(np.uint8)
            for value in pixels.reshape(-1, *(image or (parts.division.k,))):
                labels = {n: pack.classes[n][c[row]] if c[row] >= 0 else None for n, c in pack.labels.items()}
                yield Item(source=named(row), data=value, labels=labels, split=SPLITS[pack.split[row]])
                row += 1

    pairs = None
    if pack.pairs is not None:
        pairs = [(named(a), named(b), bool(same), int(fold)) for a, b, same, fold in pack.pairs]
    notes = ("Releases of another pack.", *pack.meta.get("notes", ()))
    lost = pack.meta.get("warnings", ())
    listing = Listing(
        items=items(), count=len(pack), attributes=tuple(pack.labels), kind="vectors" if image is None else "images",
        pairs=pairs, notes=notes, warnings=lost, predicted=pack.predicted,
    )  # fmt: skip
    plan = build.Plan(
        size=image[0] if image else 0, channels=3 if image and len(image) == 3 else 1,
        seed=int(pack.meta.get("seed", 0)), disjoint=pack.meta.get("disjoint_by") is not None,
    )  # fmt: skip
    write = partial(build.write, listing, layout=str(pack.meta.get("layout")), plan=plan)
    if not same:
        write(out, force=force)
        return
    with files.staged(out) as hidden:
        if write(hidden / "pack").fingerprint != Pack.open(out).fingerprint:
            raise InputError(OTHER.format(out))
