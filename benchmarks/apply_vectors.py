"""`veil apply` on large files of vectors: speed end to end and peak memory, which must not grow with the rows.

    OMP_NUM_THREADS=2 python benchmarks/apply_vectors.py --rows 2000000 4000000 --folder /somewhere/with/room

Generates unit vectors with names, fits a small release with keyed noise on vectors of its own, and runs `veil apply` as
a process of its own for each number of rows, so that its peak memory is its own. Row groups have a million rows, which
is what pyarrow writes if it is not told otherwise. With --kill the run is killed (SIGKILL) half-way and resumed, and
the result compared with that of the whole run, byte by byte. Files are removed at the end. Nothing is asserted about
time.
"""

from __future__ import annotations

import argparse
import filecmp
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import veil
from veil.workflows.apply.parts import PART

GROUP = 1 << 20
COMMAND = [sys.executable, "-c", "from veil.cli import main; main()", "apply"]


def generate(path: Path, rows: int, d: int, form: str) -> None:
    """Unit vectors in all directions, named; as a column of lists, or a column a value."""
    rng = np.random.default_rng(0)
    vectors = [("face", pa.list_(pa.float32(), d))] if form == "list" else [(f"v{i}", pa.float32()) for i in range(d)]
    schema = pa.schema([("source", pa.string()), *vectors])
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for start in range(0, rows, GROUP):
            n = min(GROUP, rows - start)
            x = rng.standard_normal((n, d), np.float32)
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            names = pa.array([f"album/{i // 4:07d}/{i:08d}.jpg" for i in range(start, start + n)])
            values = [pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), d)] if form == "list" else list(x.T.copy())
            writer.write_table(pa.table([names, *values], schema=schema), row_group_size=GROUP)


def fitted(folder: Path, method: str, settings: dict[str, str], d: int) -> Path:
    """A release fitted briefly on 400 people: what it hides does not matter here."""
    rng = np.random.default_rng(1)
    people = np.repeat(np.arange(400), 4)
    x = rng.normal(size=(400, d))[people] + 0.5 * rng.normal(size=(1600, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    pack = veil.Pack.from_arrays(x.astype(np.float32), {"identity": people, "gender": people % 2})
    release = veil.fit(method, pack, private=["gender"], settings=settings).release
    return release.save(folder / method)


def run(arguments: list[str | Path], kill_at: Path | None = None) -> tuple[float, float, float, int]:
    """Seconds, seconds of processors, peak memory in GiB and exit status of `veil apply`; killed at ``kill_at``."""
    start = time.perf_counter()
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL)
    while kill_at is not None and not kill_at.exists() and process.poll() is None:
        time.sleep(0.01)
    if kill_at is not None:
        process.send_signal(signal.SIGKILL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 2**30, process.returncode


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's value from a process of its own: a process passes its peak memory on to those it starts."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(release: Path, folder: Path, rows: int, options: argparse.Namespace) -> None:
    source, out = folder / "in.parquet", folder / "out.parquet"
    apart(generate, source, rows, options.d, options.form)
    seconds, busy, peak, status = run([release, source, out])
    assert status == 0, f"veil apply: exit status {status}"
    speed = f"{seconds:.1f} | {busy:.1f} | {rows / seconds:,.0f}"
    print(f"| {rows:,} | {options.d} | {options.form} | {speed} | {peak:.2f} |", flush=True)
    if options.kill:
        again = folder / "again.parquet"
        half = folder / "again.parquet.partial" / f"part-{rows // PART // 2:06d}.arrow"
        assert run([release, source, again], kill_at=half)[3] == -signal.SIGKILL
        assert not again.exists()
        *_, peak, status = run([release, source, again, "--resume"])
        assert status == 0
        assert filecmp.cmp(out, again, shallow=False), "the resumed run differs"
        print(f"  killed half-way and resumed: the same bytes; peak {peak:.2f} GiB", flush=True)
        again.unlink()
    for path in (source, out):
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000_000, 4_000_000])
    parser.add_argument("--d", type=int, default=128, help="values in a vector")
    parser.add_argument("--form", choices=("list", "columns"), default="list")
    parser.add_argument("--method", default="deep")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the method")
    parser.add_argument("--kill", action="store_true", help="kill a second run half-way, resume it and compare")
    parser.add_argument(
        "--folder", type=Path, help="where files of about 1.5 KB a row have room; a temporary one if none"
    )
    options = parser.parse_args()
    settings = dict(pair.split("=", 1) for pair in options.set)
    if options.method == "deep":
        settings = {"noise": "0.5", "steps_alone": "1", "steps_joint": "1"} | settings
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        release = apart(fitted, folder, options.method, settings, options.d)
        threads = os.environ.get("OMP_NUM_THREADS", "")
        print(f"{platform.machine()}, {os.cpu_count()} processors, OMP_NUM_THREADS={threads}")
        print(f"method {options.method}, {settings}\n")
        print(
            "| rows | values | Parquet | seconds | CPU seconds | rows / s | peak GiB |\n|---|---|---|---|---|---|---|"
        )
        for rows in options.rows:
            measure(release, folder, rows, options)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
