"""Mutated and monstrous files for every reader of foreign files: each is read, or refused in one line.

    python benchmarks/hostile.py [--count 200000] [--only READER ...] [--seed 0] [--jobs 1]
    python benchmarks/hostile.py --bombs [--only BOMB ...]
    python benchmarks/hostile.py --only READER --one NUMBER

A reader is a function of Veil's that is given files of others, and goes far enough to use what it read. Its inputs are
small valid files of our own, mutated: bits, blocks and numbers anywhere; and, by their formats, values of JSON, headers
of arrays, members of archives, columns of tables, cells of text. Sums over what was changed are mended, or nothing
would get past them. An input is told by its reader, the seed and its number, and ``--one`` reads it once more.

Right is success, or an ``InputError`` of one line of at most 2,000 letters. Everything else is wrong: another
exception, a warning, words on stdout or stderr, the end of the process, more than 10 s of the processor or 1 GiB beyond
what the process had. A bomb is a file of a megabyte or so that asks for much more, or none at all, such as a pipe; none
may cost more than 512 MiB or 10 s.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import copy
import faulthandler
import functools
import gzip
import hashlib
import io
import json
import math
import operator
import os
import random
import re
import resource
import select
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, features
from safetensors.torch import load as load_tensors

import veil
from veil import findings
from veil.auditing.rosters import roster
from veil.auditing.setting import Setting
from veil.data import build, decode, sidecar
from veil.data.fitted import Fitted
from veil.data.landmarks import read_landmarks
from veil.data.layouts import table as tables
from veil.data.pack import SPLITS, Pack, flat
from veil.data.packfile import MARKS
from veil.data.scorefile import read_scores
from veil.data.vectors import open_vectors
from veil.engine import checkpoint
from veil.engine.player import Player
from veil.engine.run import Run, Saving, left_by
from veil.errors import MOST_LETTERS, InputError
from veil.methods import METHODS, base, fitting
from veil.methods.fitting import Order
from veil.nn.onnxfile import OnnxNetwork
from veil.nn.torchvision import load_torchvision
from veil.release import Release
from veil.release.contract import Contract
from veil.release.folder import card_check
from veil.report import page as html
from veil.workflows import described
from veil.workflows.apply import Options, apply
from veil.workflows.audit import _publish
from veil.workflows.fit import read_curves
from veil.workflows.framing import framing_doubt
from veil.workflows.named import read_vectors
from veil.workflows.subjects import Subject

SECONDS, MIB, LETTERS = 10.0, 1024.0, MOST_LETTERS
"""What an input may take: time of the processor, memory beyond the start, and letters of its refusal."""
BOMB_MIB = 512.0
PATIENCE = 40.0
"""Seconds by the clock after which a process is ended: what waits takes no time of the processor."""
_LIBTIFF = re.compile(r"_?TIFF|MissingRequired|tempfile\.tif|(LZW|Zip|ZIP|Fax|JPEG|PackBits|Pixar|LogL|Thunder)\w*:")
_ROOM = 4 << 30  # bytes of address space beyond the start: who asks for more is stopped, not this machine
_BATCH = 250  # inputs to a process
_QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)  # which nobody is shown

Files = dict[str, bytes]
"""A folder's files by their paths."""
Mutator = Callable[[random.Random, bytes, "Pool"], bytes]
Pool = Sequence[bytes]
"""Files to take parts from."""


# -- what is run, and what came of it ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Something that reads files of others.

    Attributes:
        seeds: Valid inputs.
        read: Reads what lies in a folder, and uses it.
        targets: Of the files those that are mutated, by beginnings of their paths.
        mend: Corrects the sums over the files, given as they were and as they are.
        share: Of the inputs of a run, relative to others': slow readers have few.
    """

    seeds: Sequence[Files]
    read: Callable[[Path], object]
    targets: tuple[str, ...] = ("",)
    mend: Callable[[Files, Files], None] | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Bomb:
    """A file that asks for more than it is worth: how it is made, and what reads it."""

    make: Callable[[Path], object]
    read: Callable[[Path], object]


@dataclass(frozen=True)
class Outcome:
    """What came of an input: ``success``, ``refused`` or ``wrong``; what kind of wrong, and the words for it."""

    number: int
    word: str
    kind: str = ""
    said: str = ""
    seconds: float = 0.0
    mib: float = 0.0


@dataclass
class Tally:
    """Outcomes of a reader."""

    words: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, list[Outcome]] = field(default_factory=dict)
    seconds: float = 0.0
    mib: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.words[outcome.word] += 1
        self.seconds, self.mib = max(self.seconds, outcome.seconds), max(self.mib, outcome.mib)
        if outcome.word == "wrong":
            self.kinds.setdefault(outcome.kind, []).append(outcome)

    @property
    def problems(self) -> list[str]:
        """A line for each kind of wrong: how often, the first inputs, and what one said."""
        return [
            f"{kind}: {len(some)} times, the first {', '.join(str(o.number) for o in some[:3])}; {some[0].said}"
            for kind, some in sorted(self.kinds.items(), key=lambda kind: -len(kind[1]))
        ]


def mutated(name: str, reader: Reader, seed: int, number: int) -> Files:
    """The files of an input."""
    rng = random.Random(f"{name} {seed} {number}")
    before = rng.choice(reader.seeds)
    files = dict(before)
    targets = [path for path in files if path.startswith(reader.targets)]
    pool = [data for files in reader.seeds for data in files.values()]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        target = rng.choice(targets)
        files[target] = mutate(rng, target, files[target], pool)
    if reader.mend is not None and rng.random() < 0.8:
        with contextlib.suppress(Exception):  # what is broken in form has no sums
            reader.mend(before, files)
    return files


def place(files: Files, folder: Path) -> None:
    """Writes files into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def judged(number: int, read: Callable[[], object], said: Path, mib: float | None = None) -> Outcome:
    """What comes of a call in this process."""
    word, kind, words, most = "success", "", "", MIB if mib is None else mib
    heard = said.stat().st_size
    before, start = _memory(reset=True), time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as the command line does
        for category in _QUIET:
            warnings.simplefilter("ignore", category)
        try:
            read()
        except (InputError, decode.DecodeError) as error:
            word, words = "refused", str(error)
            if "\n" in words or "\r" in words:
                kind = f"{type(error).__name__} of several lines at {_frame(error)}"
            elif len(words) > LETTERS:
                kind = f"{type(error).__name__} of more than {LETTERS} letters at {_frame(error)}"
            elif re.search(r"allocat|bad_alloc|[Oo]ut of memory|MemoryError", words):
                kind = f"{type(error).__name__} for want of memory at {_frame(error)}"
        except BaseException as error:
            kind, words = f"{type(error).__name__} at {_frame(error)}", str(error)
    seconds, more = time.process_time() - start, (_memory() - before) / 2**20
    if not kind and caught:
        kind, words = f"{caught[0].category.__name__} escapes at {_where(caught[0].filename)}", str(caught[0].message)
    if not kind and said.stat().st_size > heard:
        words = said.read_bytes()[heard:].decode(errors="replace")
        # The C library that reads TIFF for Pillow speaks by itself, and nobody can ask it to be quiet.
        kind = "" if _LIBTIFF.match(words) else "words on stdout or stderr"
    if not kind and seconds > SECONDS:
        kind = f"more than {SECONDS:g} s"
    if not kind and more > most:
        kind = f"more than {most:g} MiB"
    shown = repr(words if len(words) < 160 else f"{words[:100]}...{words[-50:]}")
    return Outcome(number, "wrong" if kind else word, kind, shown, seconds, max(more, 0.0))


_SOURCE = Path(veil.__file__).parent


def _where(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(_SOURCE)) if path.is_relative_to(_SOURCE) else path.name


def _frame(error: BaseException) -> str:
    """The last place in Veil that an exception came through, or in this file."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).is_relative_to(_SOURCE)] or frames
    return f"{_where(inside[-1].filename)}:{inside[-1].lineno} {inside[-1].name}"


def _memory(*, reset: bool = False) -> int:
    """Most bytes that the process had since that was last reset; at the reset, those that it has."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) * 1024  # type: ignore[index]
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclass
class _Worker:
    """A process that goes through some inputs, and where it is."""

    pid: int
    pipe: int
    log: Path
    next: int
    stop: int
    rest: bytes = b""


class Harness:
    """Runs inputs in processes of their own, which may end as they like.

    Args:
        folder: For files; on a disk in memory they are quicker.
        jobs: Processes at a time.
    """

    def __init__(self, folder: Path, jobs: int = 1) -> None:
        self.folder, self.jobs, self._count = folder, jobs, 0

    def read(self, name: str, reader: Reader, count: int, seed: int = 0, first: int = 0) -> Tally:
        """Gives a reader so many inputs."""

        def one(number: int, work: Path, said: Path) -> Outcome:
            place(mutated(name, reader, seed, number), work)
            return judged(number, lambda: reader.read(work), said)

        tally = Tally()
        for outcome in self._outcomes(one, first, first + count, _BATCH):
            tally.add(outcome)
        return tally

    def read_valid(self, reader: Reader) -> Tally:
        """Gives a reader its valid inputs, none of them mutated."""

        def one(number: int, work: Path, said: Path) -> Outcome:
            place(reader.seeds[number], work)
            return judged(number, lambda: reader.read(work), said)

        tally = Tally()
        for outcome in self._outcomes(one, 0, len(reader.seeds), _BATCH):
            tally.add(outcome)
        return tally

    def explode(self, bomb: Bomb) -> tuple[int, Outcome]:
        """Makes a bomb, in a process of its own, and reads it in another; its size, and what came of it."""
        work = self.folder / "bomb"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                bomb.make(work)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        if os.waitpid(pid, 0)[1]:
            raise SystemExit("a bomb could not be made")
        size = sum(path.stat().st_blocks * 512 for path in work.rglob("*") if path.is_file() and not path.is_symlink())

        def one(number: int, _: Path, said: Path) -> Outcome:
            return judged(number, lambda: bomb.read(work), said, BOMB_MIB)

        (outcome,) = self._outcomes(one, 0, 1, 1)
        return size, outcome

    def _outcomes(
        self, one: Callable[[int, Path, Path], Outcome], first: int, stop: int, batch: int
    ) -> Iterator[Outcome]:
        waiting = deque((start, min(start + batch, stop)) for start in range(first, stop, batch))
        workers: dict[int, _Worker] = {}
        while waiting or workers:
            while waiting and len(workers) < self.jobs:
                worker = self._begun(one, *waiting.popleft())
                workers[worker.pipe] = worker
            for pipe in select.select([*workers], [], [])[0]:
                worker = workers[pipe]
                data = os.read(pipe, 1 << 16)
                *lines, worker.rest = (worker.rest + data).split(b"\n")
                for line in lines:
                    yield Outcome(**json.loads(line))
                    worker.next += 1
                if not data:
                    yield from self._ended(workers.pop(pipe))
                    if worker.next + 1 < worker.stop:
                        waiting.appendleft((worker.next + 1, worker.stop))

    def _begun(self, one: Callable[[int, Path, Path], Outcome], start: int, stop: int) -> _Worker:
        self._count += 1
        log, said = (self.folder / f"{self._count}.{name}" for name in ("log", "said"))
        receive, send = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            try:
                os.close(receive)
                self._work(one, start, stop, send, log, said)
            finally:
                os._exit(0)
        os.close(send)
        return _Worker(pid, receive, log, start, stop)

    def _work(
        self, one: Callable[[int, Path, Path], Outcome], start: int, stop: int, send: int, log: Path, said: Path
    ) -> None:
        """In a process of its own: inputs one after another, and a line for each."""
        os.fsync = lambda fd: None  # nothing here need outlive the power
        heard = os.open(said, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(heard, 1)
        os.dup2(heard, 2)
        work = self.folder / f"{self._count}"
        os.chdir(self.folder)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, used + _ROOM))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with log.open("w") as file:
            faulthandler.enable(file)
            faulthandler.register(signal.SIGPROF, file, chain=True)  # says where it is, and ends the process
            for number in range(start, stop):
                signal.setitimer(signal.ITIMER_PROF, 1.2 * SECONDS)
                faulthandler.dump_traceback_later(PATIENCE, exit=True, file=file)
                outcome = one(number, work, said)
                faulthandler.cancel_dump_traceback_later()
                signal.setitimer(signal.ITIMER_PROF, 0)
                os.write(send, json.dumps(asdict(outcome)).encode() + b"\n")
        shutil.rmtree(work, ignore_errors=True)

    @staticmethod
    def _ended(worker: _Worker) -> Iterator[Outcome]:
        """What a process that has ended leaves to be said of the input that it was at."""
        os.close(worker.pipe)
        _, status, used = os.wait4(worker.pid, 0)
        said = worker.log.read_text(errors="replace")
        if worker.next == worker.stop:
            return
        more = max(used.ru_maxrss * 1024 - _memory(reset=True), 0) / 2**20  # of the process, and of that it came from
        files = re.findall(r'File "(.+?)", line (\d+) in (\S+)', said)
        inside = [f"{_where(f)}:{line} {name}" for f, line, name in files if Path(f).is_relative_to(_SOURCE)]
        code = os.waitstatus_to_exitcode(status)
        waited, worked = "Timeout" in said, code == -signal.SIGPROF
        kind = f"the process ended with {code}"
        if waited or worked:
            kind = f"no end after {PATIENCE:g} s by the clock" if waited else f"more than {SECONDS:g} s"
        words = "" if waited or worked else repr(said.partition("\n")[0])
        place = (inside or ["?"])[0]
        yield Outcome(worker.next, "wrong", f"{kind} at {place}", words, SECONDS if worked else 0.0, more)


# -- mutations of any bytes -------------------------------------------------------------------------------------------


def mutate(rng: random.Random, path: str, data: bytes, pool: Pool) -> bytes:
    """A file changed, by what its name says that it is or as bytes."""
    name = Path(path).name
    suffix = Path(path).suffix.lower() or name
    chosen = rng.choice(FORMATS[suffix]) if suffix in FORMATS and rng.random() < 0.7 else as_bytes
    try:
        return chosen(rng, data, pool)
    except Exception:  # what is no longer of its format, or cannot be made at all
        return as_bytes(rng, data, pool)


NUMBERS = (0, 1, -1, 2, 7, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1,
           2**63, 2**64 - 1, -(2**31), -(2**63))  # fmt: skip


def as_bytes(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """Flips, cuts, blocks removed, doubled and put in, numbers written over fields, parts of other files."""
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        data = rng.choice(_BYTES)(rng, data, pool)
    return data


def _block(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 2, 4, 16, 64, 256, 4096)))


def _flip(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 32))):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _number(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    width = rng.choice((1, 2, 4, 8))
    order: Any = rng.choice(("little", "big"))
    value = (rng.choice(NUMBERS) % (1 << 8 * width)).to_bytes(width, order)
    start = rng.randrange(len(data) + 1)
    return data[:start] + value + data[start + width :]


def _cut(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _removed(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    start, stop = _block(rng, data)
    return data[:start] + data[stop:]


def _doubled(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    start, stop = _block(rng, data)
    return data[:stop] + data[start:stop] * rng.choice((1, 1, 2, 100)) + data[stop:]


def _put_in(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    start, stop = _block(rng, data)
    return data[:start] + rng.choice((bytes(stop - start), rng.randbytes(stop - start), b"\xff" * 8)) + data[start:]


def _spliced(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    other = rng.choice(pool)
    start = rng.randrange(len(other) + 1)
    if rng.random() < 0.5:
        return data[: rng.randrange(len(data) + 1)] + other[start:]
    place, part = rng.randrange(len(data) + 1), other[start : start + rng.choice((8, 64, 512))]
    return data[:place] + part + data[place + len(part) :]


_BYTES = (_flip, _flip, _flip, _number, _number, _number, _cut, _removed, _doubled, _put_in, _spliced)


# -- JSON -------------------------------------------------------------------------------------------------------------


class _Raw(str):
    """JSON that Python would not write."""


HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 2**31, 2**63, 2**64, 10**23, 10**400, -(10**400), 1e308, 5e-324, "",
    "x", "\ud800", "a\nb", "\x1b[2J", "\u202e", "../../x", "/etc/passwd", "pictures/..", "curves/\0", "x" * 70_000,
    [], {}, [None], [0, 0], [True, 4], [-1, 4], [30_000, 30_000], [2**40], [0.5, 0.5], ["x"], [[]], [[1]], [{}],
    {"a": 1}, {"": {}}, {"x": []}, _Raw("1e400"), _Raw("-1e400"), _Raw("NaN"), _Raw("Infinity"), _Raw("1E5"),
    _Raw("1.0"), _Raw("9" * 5000), _Raw("[" * 3000 + "]" * 3000), _Raw("[" * 100_000),
    _Raw('{"a":' * 900 + "1" + "}" * 900),
)  # fmt: skip
"""Values that stand where others are meant to."""


def _way(rng: random.Random, tree: Any) -> list[Any]:
    """The keys that lead to some value inside another; at each level one is as likely as the others."""
    way: list[Any] = []
    while isinstance(tree, dict | list) and tree and (not way or rng.random() < 0.85):
        way.append(rng.choice([*tree] if isinstance(tree, dict) else range(len(tree))))
        tree = tree[way[-1]]
    return way


def in_tree(rng: random.Random, tree: Any, hostile: Sequence[Any] = HOSTILE) -> Any:
    """A value with one inside it replaced, removed, renamed, wrapped, doubled, or exchanged with another."""
    way = _way(rng, tree)
    if not way or rng.random() < 0.02:
        return rng.choice(hostile)
    parent = functools.reduce(operator.getitem, way[:-1], tree)
    key, how = way[-1], rng.choice(("replace",) * 6 + ("type", "type", "remove", "rename", "wrap", "double", "other"))
    if how == "replace":
        parent[key] = rng.choice(hostile)
    elif how == "type":
        parent[key] = _retyped(rng, parent[key])
    elif how == "remove":
        del parent[key]
    elif how == "rename" and isinstance(parent, dict):
        parent[rng.choice((f"{key}x", "", "\ud800", str(key).upper()))] = parent.pop(key)
    elif how == "wrap":
        parent[key] = rng.choice(([parent[key]], {"x": parent[key]}))
    elif how == "double" and isinstance(parent, list):
        parent[key:key] = [parent[key]] * rng.choice((1, 2, 1000))
    else:
        parent[key] = copy.deepcopy(functools.reduce(operator.getitem, _way(rng, tree), tree))
    return tree


def _retyped(rng: random.Random, value: Any) -> Any:
    """A value of another type that looks alike, or of another size."""
    if isinstance(value, bool):
        return rng.choice((int(value), str(value), None))
    if isinstance(value, int | float):
        return rng.choice((float(value), str(value), bool(value), -value, value + 1, value * 2, [value], value * 10**6))
    if isinstance(value, str):
        return rng.choice((value.upper(), value + "\0", value * 2, list(value[:9]), value.encode().hex(), value[:-1]))
    if isinstance(value, list):
        return rng.choice((value[:1], value * 2, value[::-1], {str(i): v for i, v in enumerate(value)}, value[1:]))
    return list(value) if isinstance(value, dict) else rng.choice(([], {}, 0, ""))


def as_json(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """JSON with other values."""
    return _json(in_tree(rng, json.loads(data)))


def _json(tree: Any) -> bytes:
    raw: list[str] = []

    def plain(value: Any) -> Any:
        if isinstance(value, _Raw):
            raw.append(str(value))
            return f"@raw{len(raw) - 1}@"
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    text = json.dumps(plain(tree), indent=1)
    return re.sub(r'"@raw(\d+)@"', lambda found: raw[int(found[1])], text).encode()


# -- arrays and archives ----------------------------------------------------------------------------------------------

_DESCRIPTIONS = (
    "'<f4'", "'>f4'", "'<f2'", "'<f8'", "'<f16'", "'<c8'", "'|O'", "'|u1'", "'<i8'", "'|b1'", "'<U16777216'", "'<U4'",
    "'|S16777216'", "'|S0'", "'|V8'", "'<M8[ns]'", "'<m8'", "'<U-1'", "'<U99999999999'", "'<f4,<f4'", "'x'", "''", "5",
    "None", "[('a', '<f4')]", "[('a', '<f4', (2,))]", "['<f4']", "('<f4', (2,))", "{'a': 1}", "'\\ud800'", "b'<f4'",
)  # fmt: skip
_SHAPES = (
    "(6, 4)", "(6, 4", "(", "()", "(24,)", "(6, 4,)", "(4, 6)", "(6, 5)", "(True, 4)", "(6, True)", "(-6, -4)",
    "(-1, 4)", "(0, 4)", "(6, 0)", "(6.0, 4)", "[6, 4]", "'x'", "None", "6", "(6L, 4L)", "((6, 4),)", "(6, None)",
    "(6, 'x')", f"({10**23}, 4)", f"({2**63}, 1)", f"({2**62}, 4)", f"({2**40}, 4)", f"(6, {2**31})", "(1, 1, 24)",
    f"({10**400},)",
    "(" * 3000 + "6" + ")" * 3000, "(" * 90 + ")" * 90, "(1," * 70 + "1" + ")" * 70, "(1," + "1," * 69 + ")", "(6, 4 #",
    "(6, '''", "(6, 4)\n", "(6, 4), 'x': 1", "-6", "(6, 4) if 1 else 2", "(6j, 4)", "(1e400, 4)", "(6, 4)\0",
)  # fmt: skip


def as_npy(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """An array with another header."""
    length = struct.unpack("<H", data[8:10])[0]
    known = data[10 : 10 + length].decode("latin-1")
    described = re.search(r"'descr': ('.*?')", known)
    shape = re.search(r"'shape': (\(.*?\))", known)
    descr, shaped, fortran = described[1], shape[1], "False"  # type: ignore[index]
    which = rng.randrange(5)
    if which in (0, 4):
        descr = rng.choice(_DESCRIPTIONS)
    if which in (1, 4):
        shaped = rng.choice(_SHAPES)
    if which == 2:
        fortran = rng.choice(("True", "1", "'x'", "None", "False,", "[]"))
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shaped}, }}"
    if which == 3:
        text = rng.choice((
            text[: rng.randrange(len(text))], text + " " * 70_000, text.replace("'shape'", "'shapes'"), f"({text}",
            text.replace("'descr'", "5"), "", "{}", "[]", "5", "{" * 3000, text * 2, text + "\n'", "'''", "\\", "\xff",
            f"{{**{text}}}", text.replace(",", ",\n\t"), "(" * 200 + ")" * 200, "-" * 3000 + "1",
        ))  # fmt: skip
    version = rng.choice((1,) * 6 + (2, 3, 0, 4, 255))
    head = text.encode("latin-1", "replace")
    size = len(head) if rng.random() < 0.9 else rng.choice((0, 1, 65_535, len(head) + 9))
    said = struct.pack("<H", min(size, 65_535)) if version < 2 else struct.pack("<I", size)
    return b"\x93NUMPY" + bytes([version, rng.choice((0,) * 9 + (1,))]) + said + head + data[10 + length :]


def as_zip(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """An archive of changed members, or with another word about them."""
    if rng.random() < 0.5:
        return _zip_fields(rng, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    i = rng.randrange(len(members))
    name, inner = members[i]
    how = rng.randrange(8)
    if how == 0:
        members.append((rng.choice((name, name + "x", "", "/", "../x.npy", "\0.npy", "x.npy", "ü.npy")), inner))
    elif how == 1:
        members[i] = (rng.choice(("x", "vectors", "name.npy", "", "x/y.npy", "\x1b[2J.npy", "n" * 60_000)), inner)
    elif how == 2:
        del members[i]
    else:
        members[i] = (name, mutate(rng, name, inner, pool))
    method = rng.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    )
    packed = _zipped(members, method)
    if method != zipfile.ZIP_STORED and rng.random() < 0.5:  # damaged inside of what was packed
        start = rng.randrange(40, max(len(packed) // 2, 41))
        packed = packed[:start] + bytes([packed[start] ^ 1 << rng.randrange(8)]) + packed[start + 1 :]
    return packed


def _zipped(members: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names that stand there twice
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def _zip_fields(rng: random.Random, data: bytes) -> bytes:
    """Fields of the headers: flags, method, time, sum, sizes, lengths, place."""
    out = bytearray(data)
    local = {"version": (4, 2), "flags": (6, 2), "method": (8, 2), "crc": (14, 4), "packed": (18, 4), "size": (22, 4),
             "name": (26, 2), "extra": (28, 2)}  # fmt: skip
    central = {"version": (6, 2), "flags": (8, 2), "method": (10, 2), "crc": (16, 4), "packed": (20, 4),
               "size": (24, 4), "name": (28, 2), "extra": (30, 2), "comment": (32, 2), "place": (42, 4)}  # fmt: skip
    end = {"disk": (4, 2), "entries": (8, 2), "all": (10, 2), "bytes": (12, 4), "start": (16, 4), "comment": (20, 2)}
    kinds = {b"PK\x03\x04": local, b"PK\x01\x02": central, b"PK\x05\x06": end}
    name = rng.choice([*central, *central, *end])
    value = rng.choice(NUMBERS)
    if name == "flags":
        value = rng.choice(
            (1, 0x41, 0x20, 0x800, 8, 0xFFFF)
        )  # encrypted, strongly; patched; names in UTF-8; sizes behind
    elif name == "method":
        value = rng.choice((8, 9, 12, 14, 93, 95, 97, 99, 1, 6))
    where = rng.choice(((b"PK\x03\x04",), (b"PK\x01\x02",), tuple(kinds), tuple(kinds)))
    every = rng.random() < 0.5
    for signature in where:
        for found in re.finditer(re.escape(signature), data):
            if name in kinds[signature] and (every or rng.random() < 0.4):
                offset, width = kinds[signature][name]
                start = found.start() + offset
                out[start : start + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(out)


def as_tar(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """An archive with another header, whose sum is right."""
    heads = _tar_heads(data)
    start = rng.choice(heads)
    if rng.random() < 0.3:
        return data[:start] + _extension(rng) + data[start:]
    fields = {"name": (0, 100), "mode": (100, 8), "uid": (108, 8), "size": (124, 12), "mtime": (136, 12),
              "type": (156, 1), "link": (157, 100), "magic": (257, 8), "major": (329, 8), "prefix": (345, 155),
              "sparse": (386, 96)}  # fmt: skip
    head = bytearray(data[start : start + 512])
    for name in rng.sample([*fields, "size", "size", "type", "type"], rng.choice((1, 1, 2))):
        offset, width = fields[name]
        if name == "type":
            value = rng.choice((*b"0123456789gxLKSDNVMAZ", 0, 255)).to_bytes(1, "big")
        elif width in (8, 12):
            number = rng.choice((2**80, 2**63, -1, 2**33, 10**9, 0, 512, 8**11 - 1)) % (1 << 8 * (width - 1))
            value = rng.choice((
                b"\x80" + number.to_bytes(width - 1, "big"), b"\xff" * width, b"7" * width, b"\0" * width, b" " * width,
                b"-1" + b"\0" * (width - 2), b"9" * width, b"0x10" + b"\0" * (width - 4), rng.randbytes(width),
                b"0_1" + b"\0" * (width - 3), b"\x80" + b"\0" * (width - 1),
            ))  # fmt: skip
        else:
            value = rng.choice((
                b"", b"/etc/passwd", b"../../a/x.jpg", b"a/\xff\xfe.jpg", b"a/\x1b[2J.jpg", b"a" * width, b"a/b/c.jpg",
                b"\0a/x.jpg", b"a/\n.jpg", b"ustar  \0", rng.randbytes(width),
            )).ljust(width, b"\0")[:width]  # fmt: skip
        head[offset : offset + width] = value
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return data[:start] + bytes(head) + data[start + 512 :]


def _tar_heads(data: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        return [member.offset for member in archive]


def _extension(rng: random.Random) -> bytes:
    """A header of GNU's or POSIX's that says something of the next member."""
    if rng.random() < 0.3:
        name = rng.choice((b"a/" + b"x" * 5000 + b".jpg", b"", b"\0", b"\xff\xfe/\xff.jpg", b"../" * 100 + b"x.jpg"))
        return _tar_member(
            b"././@LongLink", name, rng.choice((b"L", b"K")), claimed=rng.choice((None, None, 2**80, -1))
        )
    keys = (b"size", b"path", b"linkpath", b"mtime", b"uid", b"hdrcharset", b"GNU.sparse.map", b"GNU.sparse.major",
            b"GNU.sparse.minor", b"GNU.sparse.size", b"GNU.sparse.numblocks", b"GNU.sparse.offset", b"GNU.sparse.name",
            b"", b"\xff", b"x=y")  # fmt: skip
    values = (b"", b"abc", b"-1", b"1e400", str(10**30).encode(), str(10**400).encode(), b"\xff\xfe", b"a/\0.jpg",
              b"nan", b"BINARY", b"0,1,2", b"0,x", b"1", b"0", b"9" * 5000, b"../x.jpg", b"a/x.jpg\nb",
              b"1_0")  # fmt: skip
    records = b""
    for _ in range(rng.choice((1, 2, 3))):
        body = b" " + rng.choice(keys) + b"=" + rng.choice(values) + b"\n"
        length = len(body) + len(str(len(body) + 2))
        said = rng.choice((length,) * 8 + (0, 1, 3, 10**9, 10**30, length + 5))
        records += str(said).encode() + body
    return _tar_member(
        b"pax", records, rng.choice((b"x", b"x", b"g", b"X")), claimed=rng.choice((None,) * 5 + (2**80, 0))
    )


def _tar_member(name: bytes, data: bytes, kind: bytes = b"0", claimed: int | None = None) -> bytes:
    """A member of an archive, which may claim another size than its own."""
    size = len(data) if claimed is None else claimed
    number = b"%011o\0" % size if 0 <= size < 8**11 else b"\x80" + (size % (1 << 88)).to_bytes(11, "big")
    head = name.ljust(100, b"\0")[:100] + b"0000644\0" + b"0000000\0" * 2 + number + b"0" * 11 + b"\0"
    head += b" " * 8 + kind + b"\0" * 100 + b"ustar\x0000" + b"\0" * 247
    head = head[:148] + b"%06o\0 " % sum(head[:512]) + head[156:512]
    return head + data + b"\0" * (-len(data) % 512)


def as_tgz(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """A compressed archive with another one inside."""
    return gzip.compress(mutate(rng, "x.tar", gzip.decompress(data), pool), mtime=0)


def as_safetensors(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """Tensors with another header, of the right length."""
    length = int.from_bytes(data[:8], "little")
    head = _json(in_tree(rng, json.loads(data[8 : 8 + length])))
    return len(head).to_bytes(8, "little") + head + data[8 + length :]


def as_checkpoint(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """Tensors, and another value in the JSON that stands in their header."""
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    head["__metadata__"]["run"] = _json(in_tree(rng, json.loads(head["__metadata__"]["run"]))).decode(errors="replace")
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def mend_checkpoint(before: Files, files: Files) -> None:
    """The digest of what a checkpoint holds now."""
    data = files["x.checkpoint"]
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    head["__metadata__"]["digest"] = checkpoint._digest(head["__metadata__"]["run"], load_tensors(data))
    text = json.dumps(head).encode()
    files["x.checkpoint"] = len(text).to_bytes(8, "little") + text + data[8 + length :]


def as_pickle(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """What PyTorch saved, with another value in it."""
    tree = torch.load(io.BytesIO(data), weights_only=True)
    values = [value for value in HOSTILE if not isinstance(value, _Raw)]
    odd = (torch.zeros(3), torch.zeros(0), torch.ones(2, dtype=torch.int8), torch.tensor(math.nan), (1, 2), 1e400, b"x")
    file = io.BytesIO()
    torch.save(in_tree(rng, tree, (*values, *odd, *odd)), file)
    return file.getvalue()


def as_png(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """A PNG with a changed chunk, whose sum is right."""
    chunks, start = [], 8
    while start < len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        chunks.append((data[start + 4 : start + 8], data[start + 8 : start + 8 + length]))
        start += 12 + length
    i = rng.randrange(len(chunks))
    kind, body = chunks[i]
    how = rng.randrange(6)
    if how == 0:
        chunks.insert(i, chunks[i])
    elif how == 1:
        del chunks[i]
    elif how == 2:
        chunks[i] = (
            rng.choice((b"tRNS", b"PLTE", b"eXIf", b"iTXt", b"zTXt", b"acTL", b"fcTL", b"iCCP", b"IDAT")),
            body,
        )
    elif how == 3 and kind == b"IDAT":
        chunks[i] = (kind, zlib.compress(as_bytes(rng, zlib.decompress(body), pool)))
    else:
        chunks[i] = (kind, as_bytes(rng, body, pool))
    return _png(chunks)


def _png(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A PNG of chunks, each with its sum."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )


# -- tables -----------------------------------------------------------------------------------------------------------


def _odd_columns(rng: random.Random, n: int) -> pa.Array:
    """A column of a type that few expect, or of values that Python cannot hold."""
    number = rng.choice((0, 1, -1, 10**6, 2**31 - 1, 2**62, -(2**62)))
    texts = [
        rng.choice(("a", "", "\x1b[2J", "\u202e", "x" * 5000, "NA", "1", "é", "a\nb", "protect", "../x"))
        for _ in range(n)
    ]
    not_utf8 = b"\xff\xfe\x80a" * n
    offsets = np.arange(0, 4 * n + 1, 4, dtype=np.int32)
    made: list[Callable[[], pa.Array]] = [
        *(
            lambda kind=kind: pa.array([number] * n, pa.int64()).cast(kind)
            for kind in (
                pa.timestamp("ns"), pa.timestamp("us"), pa.timestamp("s"), pa.timestamp("ns", "UTC"),
                pa.timestamp("us", "Nowhere/Town"), pa.time64("ns"), pa.duration("ns"), pa.date64(), pa.float64(),
            )
        ),
        lambda: pa.array([number] * n, pa.uint64() if number >= 0 else pa.int64()),
        lambda: pa.array([number % 2**31] * n, pa.int32()).cast(pa.date32()),
        lambda: pa.array([number % 2**31] * n, pa.int32()).cast(pa.time32("ms")),
        lambda: pa.array([math.nan, math.inf, -math.inf, 1e300][:1] * n, pa.float64()),
        lambda: pa.array(np.full(n, 60_000, np.float16)),
        lambda: pa.array([number % 99] * n, pa.decimal128(38, rng.choice((0, 5)))),
        lambda: pa.array([number] * n, pa.decimal256(76, 0)),
        lambda: pa.array([[1.0, 2.0]] * n, pa.list_(pa.float32())),
        lambda: pa.array([[1.0, None]] * n, pa.list_(pa.float64(), 2)),
        lambda: pa.array([[]] * n, pa.list_(pa.float32())),
        lambda: pa.array([None] * n, pa.list_(pa.float32())),
        lambda: pa.array([["a"]] * n, pa.list_(pa.string())),
        lambda: pa.array([[[1.0]]] * n, pa.large_list(pa.list_(pa.float32()))),
        lambda: pa.array([{"path": "a", "bytes": b"x"}] * n),
        lambda: pa.array([{"path": 5}] * n),
        lambda: pa.array([{"path": {"path": "a"}}] * n),
        lambda: pa.array([{"x": 1}] * n),
        lambda: pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
        lambda: pa.array(texts).dictionary_encode(),
        lambda: pa.array(texts, pa.large_string()),
        lambda: pa.array([text.encode() for text in texts], pa.binary()),
        lambda: pa.array([b"\xff\xfe"] * n, pa.binary()),
        lambda: pa.array([b"0123456789abcdef"] * n, pa.binary(16)),
        lambda: pa.array([None] * n, pa.null()),
        lambda: pa.array([None] * n, pa.string()),
        lambda: pa.array([None, *texts][:n]),
        lambda: pa.array([True, None] * n)[:n],
        lambda: pa.Array.from_buffers(pa.string(), n, [None, pa.py_buffer(offsets), pa.py_buffer(not_utf8)]),
        lambda: pa.DictionaryArray.from_arrays(
            pa.array([0] * n, pa.int32()),
            pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(offsets[:2]), pa.py_buffer(not_utf8)]),
        ),
        lambda: pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int8()), pa.array([number])),
        lambda: pa.DictionaryArray.from_arrays(
            pa.array([0] * n, pa.int8()), pa.array([number]).cast(pa.timestamp("ns"))
        ),
        lambda: pa.DictionaryArray.from_arrays(pa.array([None] * n, pa.int8()), pa.array([], pa.string())),
        lambda: pa.array(texts),
    ]  # fmt: skip
    return rng.choice(made)()


_NAMES = ("", " ", "source", "split", "identity", "name", "path", "vectors", "v0", "x.y", "\x1b[2J", "é", "e\u0301",
          "a\nb", "__index_level_0__", "x" * 5000, "image", "step", "loss")  # fmt: skip


def _odd_table(rng: random.Random, table: pa.Table) -> tuple[pa.Table, bytes]:
    """A table with other columns; and a name of one that is to be written over by what is not UTF-8."""
    names, columns, n = table.column_names, table.columns, table.num_rows
    i, how, odd = rng.randrange(len(names)), rng.randrange(9), b""
    if how < 4:
        columns[i] = pa.chunked_array([_odd_columns(rng, n)])
    elif how == 4:
        names[i] = rng.choice(_NAMES)
    elif how == 5:
        names.append(rng.choice((*names, *_NAMES)))
        columns.append(pa.chunked_array([_odd_columns(rng, n)]))
    elif how == 6 and len(names) > 1:
        del names[i], columns[i]
    elif how == 7:
        odd = b"zqzq"
        names[i] = "zqzq"
    else:
        columns = [rng.choice((c.slice(0, 0), pa.concat_arrays(c.chunks * 2), c.slice(1))) for c in columns[:1]] * len(
            names
        )
    return pa.Table.from_arrays(columns, names=names), odd


def as_parquet(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """A table with other columns, or with a changed footer."""
    if rng.random() < 0.3:
        start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        foot = as_bytes(rng, data[start:-8], pool)
        return data[:start] + foot + len(foot).to_bytes(4, "little") + b"PAR1"
    table, odd = _odd_table(rng, pq.read_table(io.BytesIO(data)))
    file = io.BytesIO()
    pq.write_table(
        table, file, compression=rng.choice(("none", "snappy", "zstd")), store_schema=not odd and rng.random() < 0.7,
        use_dictionary=rng.random() < 0.5, version=rng.choice(("1.0", "2.6")),
        data_page_version=rng.choice(("1.0", "2.0")),
    )  # fmt: skip
    written = file.getvalue()
    return written.replace(odd, rng.choice((b"\xff\xfe\x80a", b"a\0b\0"))) if odd else written


def as_arrow(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """A file of Arrow's with other columns, or another word about them."""
    with pa.ipc.open_file(pa.py_buffer(data)) as reader:
        table = reader.read_all()
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    odd = b""
    if rng.random() < 0.5:
        table, odd = _odd_table(rng, table)
    else:
        key = rng.choice([*about])
        value = (
            _json(in_tree(rng, json.loads(about[key])))
            if key == "skipped"
            else str(rng.choice(HOSTILE[:29])).encode(errors="replace")
        )
        about[key] = value.decode()
        if rng.random() < 0.1:
            del about[key]
    table = table.replace_schema_metadata(about)
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)
    written = file.getvalue()
    return written.replace(odd, b"\xff\xfe\x80a") if odd else written


# -- text -------------------------------------------------------------------------------------------------------------

TOKENS = (
    "", " ", '"', '""', '"a', 'a"b', '"a"b', "'", "\0", "x" * 100_000, "9" * 5000, "²", "٣", "1e400", "-1e400", "nan",
    "inf", "-0", "-1", "0", "0.5", "1_000", "0x10", "=1+1", "\x1b[2J", "\u202e", "\ud800", "\r", "\n", "\r\n", "\x0b",
    "\x1c", "\x85", "\u2028", ",", ",,,,", ";", "\t", "\t\t", "../../x", "/etc/passwd", "e\u0301", str(2**31),
    str(2**63), str(10**23), "true", "[1,2", "[1 2]", "[" * 3000, "[]", "...", "NA", "NULL", "\ufeff", "protect",
    "identity", "source", "--", "1 2 3", "1\xa02", "-" * 3000, "+1", "1.", ".", "0,5", "%s", "\\n", "{}", "#",
)  # fmt: skip
_CODINGS = (
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-8-sig",
    "utf-32",
    "cp1252",
    "latin-1",
    "cp037",
    "utf-7",
    "shift_jis",
)


def as_text(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """Text with other cells, lines, ends of lines or coding."""
    text = data.decode("utf-8", "surrogateescape")
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        how = rng.randrange(10)
        if how < 6:
            cells = [*re.finditer(r"[^,;\t\n ]+", text)] or [*re.finditer("", text)]
            found = rng.choice(cells if rng.random() < 0.6 else cells[:12])
            token = rng.choice(TOKENS)
            text = text[: found.start()] + token + text[found.end() if rng.random() < 0.7 else found.start() :]
        elif how < 8:
            lines = text.split("\n")
            i = rng.randrange(len(lines))
            line = lines[i]
            others: Sequence[list[str]] = (
                [],
                [line] * 2,
                [line, ""],
                [f"{line},{line}"],
                lines[i : i + 2][::-1],
                [line * 50],
                [lines[0]],
            )
            lines[i : i + 1] = rng.choice(others)
            text = "\n".join(lines)
        elif how == 8:
            text = text.replace("\n", rng.choice(("\r", "\r\n", "\n\n", "\x85", "\u2028", "", "\0\n")))
        else:
            text = text.replace(rng.choice((",", "\t", " ", ".")), rng.choice((";", ",", "\t", "|", '"', " ", "\0")))
    coding = rng.choice(_CODINGS) if rng.random() < 0.15 else "utf-8"
    errors = "surrogateescape" if coding == "utf-8" and not re.search("[\ud800-\udbff]", text) else "replace"
    return text.encode(coding, "surrogatepass" if coding == "utf-8" and errors == "replace" else errors)


# -- ONNX -------------------------------------------------------------------------------------------------------------


def as_onnx(rng: random.Random, data: bytes, pool: Pool) -> bytes:
    """A network with another field."""
    import onnx

    model = onnx.load_from_string(data)
    fields: list[tuple[Any, Any]] = []

    def walk(message: Any) -> None:
        for kind, value in message.ListFields():
            fields.append((message, kind))
            if kind.message_type is not None:
                for part in [value] if hasattr(value, "ListFields") else value:
                    walk(part)

    walk(model)
    message, kind = rng.choice(fields)
    values: dict[int, Sequence[Any]] = {
        kind.CPPTYPE_INT32: (0, -1, 2**31 - 1, 7, 99),
        kind.CPPTYPE_INT64: (0, -1, 2**31, 2**40, 2**63 - 1, -(2**63), 3),
        kind.CPPTYPE_STRING: (b"", b"x", b"\xff", b"Loop", b"../../etc/passwd", b"x" * 70_000, b"r", b"Add"),
        kind.CPPTYPE_FLOAT: (0.0, math.inf, math.nan, -1e38), kind.CPPTYPE_ENUM: (0, 1, 7, 10, 99),
    }  # fmt: skip
    repeated = hasattr(getattr(message, kind.name), "append") or hasattr(getattr(message, kind.name), "add")
    if kind.cpp_type not in values or rng.random() < 0.2:
        message.ClearField(kind.name)
        return bytes(model.SerializeToString())
    value = rng.choice(values[kind.cpp_type])
    if isinstance(value, bytes) and kind.type != kind.TYPE_BYTES:
        value = value.decode("latin-1")
    if repeated:
        inner = getattr(message, kind.name)
        inner[rng.randrange(len(inner))] = value
    else:
        setattr(message, kind.name, value)
    return bytes(model.SerializeToString())


FORMATS: Mapping[str, Sequence[Mutator]] = {
    ".json": (as_json,),
    ".npy": (as_npy,),
    ".npz": (as_zip,),
    ".pth": (as_pickle, as_pickle, as_zip),
    ".checkpoint": (as_checkpoint, as_checkpoint, as_safetensors),
    ".tar": (as_tar,),
    ".tgz": (as_tgz,),
    ".safetensors": (as_safetensors,),
    ".fitted": (as_safetensors,),
    ".png": (as_png,),
    ".parquet": (as_parquet,),
    ".arrow": (as_arrow,),
    ".onnx": (as_onnx,),
    **dict.fromkeys((".csv", ".txt", ".tsv", ".tra", ".tes", ".ppm"), (as_text,)),
}
"""What is changed in a file of a kind, beside its bytes."""


# -- valid files ------------------------------------------------------------------------------------------------------

_KEY = bytes(range(32))
_SIDE = 16
_PICTURES = {"shape": [0.9, 1.0, 1.1], "short_side": [16.0, 16.0, 16.0]}


def tree(folder: Path) -> Files:
    """The files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def picture(form: str, size: tuple[int, int] = (24, 20), mode: str = "RGB", **options: Any) -> bytes:
    """A picture of noise."""
    rng = np.random.default_rng(0)
    channels = len(Image.new(mode, (1, 1)).getbands())
    kind = np.uint16 if mode == "I;16" else np.uint8
    values = rng.integers(0, np.iinfo(kind).max, (size[1], size[0], channels), kind).squeeze()
    image = Image.fromarray(values, mode) if mode in ("CMYK", "LA") else Image.fromarray(values)
    file = io.BytesIO()
    if mode == "P":
        image = image.convert("P")
    image.save(file, form, **options)
    return file.getvalue()


def pictures() -> dict[str, list[bytes]]:
    """Pictures of every format that is read, of some of its kinds."""
    exif = Image.Exif()
    exif[0x0112] = 6
    more = [Image.new("RGB", (24, 20), colour) for colour in ("red", "blue")]
    grey = np.random.default_rng(0).integers(0, 256, (20, 24), np.uint8)
    bits = Image.fromarray(grey > 99)
    one = io.BytesIO()
    bits.save(one, "TIFF", compression="group4")
    long = io.BytesIO()
    Image.fromarray(grey.astype(np.int32) * 100).convert("I;16").save(long, "PNG")
    palette = io.BytesIO()
    Image.fromarray(grey).convert("P").save(palette, "PNG", transparency=3)
    return {
        "jpg": [
            picture("JPEG"),
            picture("JPEG", progressive=True, exif=exif),
            picture("JPEG", mode="L"),
            picture("JPEG", mode="CMYK"),
            picture("JPEG", (250, 180), restart_marker_blocks=3),
        ],
        "png": [
            picture("PNG"),
            picture("PNG", mode="RGBA", exif=exif),
            long.getvalue(),
            palette.getvalue(),
            picture("PNG", save_all=True, append_images=more),
        ],
        "bmp": [picture("BMP"), picture("BMP", mode="L")],
        "webp": [
            picture("WEBP"),
            picture("WEBP", lossless=True, exif=exif),
            picture("WEBP", save_all=True, append_images=more),
        ],
        "tif": [
            picture("TIFF"),
            *(picture("TIFF", compression=c) for c in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
            picture("TIFF", mode="I;16"),
            one.getvalue(),
            picture("TIFF", exif=exif, save_all=True, append_images=more),
        ],
        "gif": [picture("GIF"), picture("GIF", save_all=True, append_images=more)],
        "avif": [picture("AVIF"), picture("AVIF", exif=exif)] if features.check("avif") else [],
        "jp2": [picture("JPEG2000"), picture("JPEG2000", mode="L", no_jp2=True), picture("JPEG2000", tile_size=(8, 8))],
        "ppm": [
            picture("PPM"),
            b"P3\n# a\n2 2\n255\n0 0 0 1 2 3 255 255 255 9 9 9\n",
            b"P2 2 2 65535 1 2 3 65535\n",
            b"P1\n4 2\n0 1 0 1\n1010\n",
            b"P4\n8 2\n\xf0\x0f",
            b"P5\n2 2\n65535\n" + bytes(8),
        ],
        "tga": [picture("TGA"), picture("TGA", compression="tga_rle"), picture("TGA", mode="L")],
    }


def rows(n: int = 24, d: int = 4) -> dict[str, Any]:
    """People as vectors, with names and labels."""
    rng = np.random.default_rng(0)
    return {
        "name": [f"p{i // 2}/{i}.png" for i in range(n)],
        "identity": [f"p{i // 2}" for i in range(n)],
        "gender": ["mf"[i // 8 % 2] for i in range(n)],
        "age": [i % 3 for i in range(n)],
        "split": [SPLITS[i // 2 % 4] for i in range(n)],
        "x": rng.normal(size=(n, d)).astype(np.float32),
    }


ROWS = rows()
COMPARED: Mapping[str, Sequence[Any]] = {
    "mated": [1, 0, 1, 0], "score": [0.9, 0.2, 0.7, -0.1], "person_a": list("abba"), "person_b": list("aabc"),
}  # fmt: skip
EYES: Mapping[str, Sequence[Any]] = {
    "path": ["a", "b"],
    "left_eye_x": [1, 2],
    "left_eye_y": [5, 6],
    "right_eye_x": [9, 8],
    "right_eye_y": [5, 6],
}


def csv_of(columns: Mapping[str, Sequence[Any]]) -> bytes:
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    return ("\n".join(lines) + "\n").encode()


def parquet_of(columns: Mapping[str, Any] | pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    pq.write_table(table, file, compression="none", **options)
    return file.getvalue()


def embedded() -> bytes:
    """What `veil embed` writes: vectors with a label that was guessed."""
    mark = {"gender": {"file": "a.onnx", "sha256": "0" * 64, "confidence": 0.9}}
    columns = {"source": list("abcd"), "vector": np.eye(4, dtype=np.float32).tolist(), "gender": list("mfmf")}
    file = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata({MARKS: json.dumps(mark)}), file, compression="none")
    return file.getvalue()


def npy_of(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values))
    return file.getvalue()


def vectors() -> dict[str, list[bytes]]:
    """Files of vectors with names and labels, by their endings."""
    x, words = ROWS["x"], {name: ROWS[name] for name in ("name", "identity", "gender", "age", "split")}
    numbered = {f"v{i}": x[:, i].tolist() for i in range(x.shape[1])}
    npz = [("vectors.npy", npy_of(x)), *((f"{name}.npy", npy_of(value)) for name, value in words.items())]
    return {
        "npy": [npy_of(x), npy_of(np.asfortranarray(x)), npy_of(x.astype(np.float64))],
        "npz": [_zipped(npz), _zipped(npz, zipfile.ZIP_DEFLATED), _zipped(npz[:1])],
        "csv": [
            csv_of(words | numbered),
            csv_of(numbered),
            csv_of({"name": words["name"], "v": [f'"{row.tolist()}"' for row in x]}),
        ],
        "parquet": [
            parquet_of(words | {"v": pa.array(list(x), pa.list_(pa.float32()))}),
            parquet_of(words | numbered),
            parquet_of({"v": pa.array(list(x), pa.list_(pa.float32(), 4))}, use_dictionary=False),
        ],
    }


def labels() -> dict[str, list[bytes]]:
    """Files of labels, by their endings."""
    words = {"path": ROWS["name"], **{name: ROWS[name] for name in ("gender", "age", "identity")}}
    full = words | {"split": ROWS["split"]}
    return {
        "csv": [
            csv_of(full),
            csv_of(words),
            csv_of({"path": [f'"{name}"' for name in ROWS["name"]], "gender": ROWS["gender"]}),
        ],
        "parquet": [
            parquet_of(full),
            parquet_of(words, use_dictionary=False),
            parquet_of({n: pa.array([str(v) for v in w]).dictionary_encode() for n, w in full.items()}),
        ],
    }


def packs(folder: Path) -> dict[str, Files]:
    """A pack of images with pairs, and one of vectors."""
    source = folder / "source"
    place({f"people/{name}": picture("PNG", (_SIDE, _SIDE), "L") for name in ROWS["name"]}, source)
    (source / "vectors.csv").write_bytes(vectors()["csv"][0])
    (source / "labels.csv").write_bytes(labels()["csv"][0])
    build.pack("folder", source / "people", source / "images", labels=source / "labels.csv", size=_SIDE, jobs=1)
    build.pack("embeddings", source / "vectors.csv", source / "table", jobs=1)
    found = {"images": tree(source / "images"), "vectors": tree(source / "table")}
    pairs = npy_of(np.array([[0, 1, 1, 0], [0, 2, 0, 0]]))
    card = json.loads(found["images"]["pack.json"])
    card["files"]["pairs.npy"] = {"bytes": len(pairs), "sha256": hashlib.sha256(pairs).hexdigest()}
    card["predicted"] = {next(iter(card["classes"])): {"file": "a.onnx", "sha256": "0" * 64, "confidence": 0.9}}
    found["images"] |= {"pairs.npy": pairs, "pack.json": json.dumps(card, indent=1).encode()}
    for files in found.values():
        files["checked.json"] = re.sub(rb"\d{19}", b"1" * 19, files["checked.json"])  # times, which differ
        del files["skipped.csv"]
    return found


def releases(folder: Path, only: Sequence[str] = tuple(METHODS)) -> dict[str, Files]:
    """A release of every method, or of some, of weights as they come."""
    shape = (_SIDE, _SIDE)
    pair = {"gender": ("f", "m")}
    plain = Contract(kind="vectors", shape=(4,), k=4)
    images = Contract(kind="images", shape=shape, k=256, image=shape)
    below = {"method": "input", "config": {}, "contract": asdict(plain)}
    config = {name: asdict(method.algorithm.configured()) for name, method in METHODS.items()}
    config["aia"] |= {"features": 8}
    config["deep"] |= {"features": 8, "networks": 1}
    config["mi"] |= {"features": 8}
    config["inversion"] |= {"features": 8}
    contracts = {
        "template": Contract(
            kind="vectors",
            shape=(4,),
            k=4,
            noise=0.5,
            direction=True,
            columns=("v0", "v1", "v2", "v3"),
            classes=pair,
            asks=True,
        ),
        "leace": plain,
        "random": Contract(kind="vectors", shape=(4,), k=4, replace=0.5),
        "substitution": Contract(kind="vectors", shape=(4,), k=4, support=3, draw=True),
        "aia": Contract(kind="images", shape=shape, k=192, feature_map=(12, 4, 4), crop=(0.1, 0.1, 0.9, 0.9)),
        "deep": Contract(kind="images", shape=shape, k=8, noise=0.5, crop=(0.1, 0.1, 0.9, 0.9), classes=pair),
        "mi": images,
        "san": Contract(kind="images", shape=shape, k=256, image=shape, classes=pair, asks=True, chooses=True),
        "inversion": None,
    }
    config["leace"] |= {"rank": 1, "base": below}
    config["random"] |= {"base": below}
    found = {}
    for name in only:
        contract, algorithm = contracts[name], METHODS[name].algorithm
        settings = algorithm.read(config[name])
        torch.manual_seed(0)
        if contract is None:  # whose k is its network's
            contract = Contract(kind="images", shape=shape, k=1, keeps=pair)
            encoder = algorithm.build(settings, contract)
            part = tuple(encoder(torch.zeros(1, 1, *shape)).shape[1:])
            contract = Contract(kind="images", shape=shape, k=math.prod(part), keeps=pair)
        classifier = algorithm.build_classifier
        release = Release(
            method=name,
            config=config[name],
            contract=contract,
            encoder=algorithm.build(settings, contract).eval(),
            made={"private": ["gender"], "utility": "identity", "seed": 0, "data": "0" * 16, "pictures": _PICTURES},
            key=_KEY if contract.keyed else None,
            fitted=Fitted(salt=bytes(16), rows=np.arange(9, dtype=np.uint64), people=np.arange(5, dtype=np.uint64)),
            classifier=None if classifier is None else classifier(settings, contract).eval(),
        )
        release.save(folder / name / "r")
        found[name] = tree(folder / name)
    return found


def mend_pack(before: Files, files: Files) -> None:
    """Sizes and sums in ``pack.json``."""
    for path in [*files]:
        for name in ("images.npy", "vectors.npy", "labels.parquet", "pairs.npy"):
            if path.endswith(name) and files[path] != before[path]:
                card = path.removesuffix(name) + "pack.json"
                old, new = (hashlib.sha256(some[path]).hexdigest().encode() for some in (before, files))
                sizes = (b'"bytes": %d' % len(before[path]), b'"bytes": %d' % len(files[path]))
                start = files[card].find(b'"files"')
                files[card] = files[card].replace(old, new)
                place = files[card].find(name.encode(), start)
                files[card] = files[card][:place] + files[card][place:].replace(*sizes, 1)


def mend_release(before: Files, files: Files) -> None:
    """Sums in ``release.json``, and what binds ``.fitted`` to it."""
    card, weights = "r/release.json", "r/weights.safetensors"
    old, new = (hashlib.sha256(some[weights]).hexdigest().encode() for some in (before, files))
    files[card] = files[card].replace(old, new)
    old = json.loads(before[card])["card_sha256"].encode()
    new = card_check(json.loads(files[card])).encode()
    files[card] = files[card].replace(old, new)
    if "r.fitted" in files:
        files["r.fitted"] = files["r.fitted"].replace(old, new)


def report() -> Files:
    """Findings, and what they name."""

    def finding(
        code: str, release: str, target: str, attacker: str, value: float | None, role: str, **more: Any
    ) -> Any:
        spread = {"low": None, "high": None} if value is None else {"low": value - 0.05, "high": value + 0.05}
        return findings.Finding(
            **{
                "code": code,
                "release": release,
                "target": target,
                "attacker": attacker,
                "value": value,
                "role": role,
                "chance": 0.5,
                "n": 100,
                **spread,
                **more,
            }
        )

    found = []
    for release, attack, use in (("Input", 0.9, 0.95), ("A", 0.6, 0.8)):
        found += [
            finding("attribute.balanced_accuracy", release, "gender", "mlp", attack, "attack", worst=True),
            finding("attribute.auc", release, "gender", "mlp", attack, "attack"),
            finding("attribute.balanced_accuracy", release, "gender", "shuffled labels (mlp)", 0.5, "control"),
            finding("verification.auc", release, "identity", "cosine", use, "utility", worst=True),
            finding("verification.eer", release, "identity", "cosine", 1 - use, "utility"),
        ]
    document = findings.document(
        seed=0, command="veil audit",
        data={
            "layout": "folder", "kind": "images", "shape": [16, 16], "n": 24, "identities": 12, "fingerprint": "ab",
            "splits": {name: {"n": 6, "identities": 3} for name in SPLITS}, "private": ["gender"],
            "labels": {"gender": {"classes": ["f", "m"], "counts": {name: [3, 3] for name in SPLITS}}},
            "utility": ["identity"], "skipped": 0, "notes": ["A note."], "attack_on": ["attack"],
        },
        releases=[
            {"name": "Input", "method": "input", "role": "input", "k": 256, "seed": 0, "config": {}},
            {"name": "A", "method": "deep", "preset": "default", "role": "method", "k": 8, "seed": 0, "note": "",
             "config": {"alpha": 0.5, "inner": {"depth": 3, "hidden": [4, 4]}}, "data": "ab"},
        ],
        findings=found,
        pictures=[{"file": "pictures/a.png", "title": "A", "caption": "B"}],
        curves=[{"file": "curves/a.parquet", "release": "A"}],
        maps=[{"release": "A", "x": [0.0, 1.0, 2.0], "y": [0.0, 1.0, 0.5], "person": [0, 0, 1]}],
    ) | {"veil": "0", "created": "2026-01-01"}  # fmt: skip
    curves = {"step": [0, 1, 2, 0, 1], "stage": ["s"] * 3 + ["t"] * 2, "player": ["a", "a", "b", "a", "b"],
              "loss": [1.0, 0.5, 0.2, 3.0, 2.0]}  # fmt: skip
    return {
        "findings.json": json.dumps(document, indent=1).encode(),
        "curves/a.parquet": parquet_of(curves),
        "pictures/a.png": picture("PNG", (40, 20)),
    }


def network(side: int = 8) -> bytes:
    """A network of ONNX that gives four sums of a picture's values."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(3 * side * side, 4)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["m"]),
             helper.make_node("Relu", ["m"], ["y"])]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 4])], [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    about = {
        "veil.colours": "bgr",
        "veil.std": "128",
        "veil.eyes": "0.3:0.4:0.7:0.4",
        "classes": '["a", "b", "c", "d"]',
    }
    helper.set_model_props(model, about)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


# -- what reads them --------------------------------------------------------------------------------------------------


def _one_of(folder: Path, stem: str) -> Path:
    return next(path for path in folder.iterdir() if path.name.startswith(f"{stem}."))


def read_picture(folder: Path) -> None:
    data = decode.read(_one_of(folder, "x"))
    _, (width, height) = decode.header(data)
    decode.decode(data, 16, 3)
    decode.decode(data, 16, 1, eyes=decode.Eyes(width / 3, height / 3, width / 2, height / 3))


def read_vector_file(folder: Path) -> None:
    file = open_vectors(_one_of(folder, "x"))
    file.repeated()
    for block in file.blocks(columns=file.others):
        str(block.names), str(block.problems)
    file.columns(file.others)
    pack = Pack.from_arrays(ROWS["x"], {"gender": ROWS["gender"]}, sources=ROWS["name"])
    read_vectors(file.path, pack)


def read_labels(folder: Path) -> None:
    table = tables.read(_one_of(folder, "x"), rows=len(ROWS["name"]))
    found = tables.join(table, ROWS["name"])
    for row in found.tolist():
        table.row(row), table.split_of(row)
    table.pairs_of(ROWS["name"], found)


def read_eyes(folder: Path) -> None:
    read_landmarks(folder / "x.csv").of("a")


def packed(layout: str, **options: Any) -> Callable[[Path], None]:
    """Packs ``in`` by a layout, with labels and landmarks where they lie beside it."""

    def read(folder: Path) -> None:
        given = dict(options)
        for path in (*folder.glob("labels.*"), *folder.glob("landmarks.*")):
            given[path.stem] = path
        source = folder / "in"
        source = source if source.exists() else _one_of(folder, "in")
        use_pack(build.pack(layout, source, folder / "out", size=8, jobs=1, **given))

    return read


def use_pack(pack: Pack) -> None:
    """Looks at all that a pack holds, as who fits or audits with it does."""
    str(pack.fingerprint), str(pack.framing), str(pack.knows_people), str(pack.kind)
    for name in SPLITS:
        some = pack.rows(name, known=[*pack.labels][:1])
        flat(np.asarray(pack.x[some[:2]]))
    for name, codes in pack.labels.items():
        [pack.classes[name][code] for code in codes.tolist() if code >= 0]
    framing_doubt(base.input_release(pack), "x", pack)


def read_pack(folder: Path) -> None:
    pack = Pack.open(folder / "p")
    use_pack(pack)
    tables.read(folder / "p").pairs_of(ROWS["name"], np.arange(len(pack)))
    pack.require(private=["gender"], utility="identity", among=["protect"])
    fitting.fit(Order(method="leace", pack=pack, private=["gender"]))
    described.data(Setting(pack=pack, private=("gender",), utility=("identity",), roster=roster("quick")))


def apply_pack(folder: Path) -> None:
    pack = Pack.open(folder / "p")
    apply(base.input_release(pack), folder / "p", folder / "x.npz", remark=lambda kind, words: None)
    apply(base.input_release(pack), folder / "p", folder / "out", remark=lambda kind, words: None)


def read_release(folder: Path) -> None:
    release = Release.load(folder / "r")
    contract = release.contract
    rng = np.random.default_rng(0)
    known = isinstance(contract.shape, tuple) and all(type(side) is int and side > 0 for side in contract.shape)
    vectors = len(contract.shape) == 1 if known else contract.kind == "vectors"
    shape = contract.shape if known and math.prod(contract.shape) <= 2**20 else (4,) if vectors else (_SIDE, _SIDE)
    x: Any = rng.random((2, *shape), np.float32) if vectors else rng.integers(0, 256, (2, *shape), np.uint8)
    release.transform(x, told={name: np.array([0, -1]) for name in [*contract.told][:1]})
    if contract.support:
        release.codes(x)
    pack = Pack.from_arrays(x, {"gender": ["f", "m"]})
    framing_doubt(release, "x", pack, {"shape": [2.0] * 3, "short_side": [99.0] * 3})
    contract.check_framing(pack, "x")
    if release.fitted is not None and not release.fitted.problem:
        release.fitted.has_rows(x, np.arange(2)), release.fitted.has_people(["a"])
    release.lineage()
    subject = Subject(name="A", release=release)
    subject.overlap(Pack.from_arrays(ROWS["x"], {"gender": ROWS["gender"], "identity": ROWS["identity"]}),
                    ["gender"], ["attack"])  # fmt: skip
    said = json.loads(report()["findings.json"])
    findings.write(folder / "audit", said | {"releases": [said["releases"][0], described.audited(subject)]})
    if vectors:
        np.savez(folder / "x.npz", vectors=x)
        apply(release, folder / "x.npz", folder / "y.npz", remark=lambda kind, words: None)


def read_earlier(folder: Path) -> None:
    """An audit takes the place of another."""
    place(report(), folder / "staged")
    _publish(folder / "staged", folder)


def redraw(folder: Path) -> None:
    apply(
        Release.load(folder / "r"), folder / "in", folder / "out", Options(images=True), remark=lambda kind, words: None
    )


def read_key(folder: Path) -> None:
    Release.load(folder / "r", key=folder / "r.key").transform(ROWS["x"][:2])


def read_network(folder: Path) -> None:
    OnnxNetwork(folder / "x.onnx")(np.zeros((3, 12, 12, 3), np.uint8))


def read_weights(folder: Path) -> None:
    load_torchvision(_module(), _one_of(folder, "x"), spared=("2.",))


def _module() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))


def begin_run(folder: Path, *, resume: bool = True) -> None:
    """A short fit that can be resumed."""
    path = folder / "x.checkpoint"
    if resume:
        left_by(path)
    saving = Saving(file=path, every=2, resume=resume, identity="x", method="mi")
    run = Run(seed=0, precision="fp32", saving=saving)
    player = Player("p", _module(), lr=0.1)
    run.enter(player)
    for name, count in (("one", 2), ("two", 2 + resume)):
        for _ in run.stage(name, count):
            run.update(player, player.module(torch.ones(2, 3)).square().mean())


def resume_apply(folder: Path, *, resume: bool = True) -> None:
    """A release of a file of vectors, in parts, of which some are there."""
    release = Release.load(folder / "r")
    apply(release, folder / "x.npz", folder / "y.npz", resume=resume, remark=lambda kind, words: None)


def interrupted(folder: Path) -> Files:
    """What a run of :func:`resume_apply` that was killed leaves behind."""
    work = folder / "interrupted"
    made = releases(folder / "again", ["template"])["template"]
    place(made | {"x.npz": vectors()["npz"][0]}, work)
    pid = os.fork()
    if not pid:
        from veil.workflows.apply import run as module

        module.join = lambda *_, **__: os._exit(0)  # type: ignore[attr-defined]
        try:
            resume_apply(work, resume=False)
        finally:
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("an interrupted run could not be made")
    return tree(work)


def layouts() -> dict[str, Reader]:
    """A reader for each layout: its lists, its archives, or what else it holds beside pictures."""
    face = picture("JPEG", (_SIDE, _SIDE))
    names = [f"{person}/{person}_{i:04d}.jpg" for person in ("Al", "Bo", "Cy", "Di") for i in (1, 2)]
    archive = b"".join(_tar_member(name.encode(), face) for name in names) + bytes(1024)
    lists = {
        "male_names.txt": "\n".join(Path(name).name for name in names[:4]),
        "female_names.txt": "\n".join(Path(n).name for n in names[4:]),
        "smile_labels.txt": "\n".join(f"{Path(name).name} {i % 2}" for i, name in enumerate(names)),
        "pairs.txt": "1\t2\nAl\t1\t2\nBo\t1\t2\nAl\t1\tBo\t1\nCy\t1\tDi\t2\n",
    }
    pen = '.SEGMENT DIGIT 17 ? "8"\n.COMMENT 8 12 224\n.PEN_DOWN\n 267 333\n 250 310\n 100 90\n.PEN_UP\n.DT 100\n'
    digits = "".join(pen.replace("8", str(i % 10)).replace("12", str(10 + i)) for i in range(12)).encode()
    celeba = {
        "list_attr_celeba.txt": "8\nMale Smiling\n" + "\n".join(f"{i:06d}.jpg {1 - i % 2 * 2} 1" for i in range(8)),
        "identity_CelebA.txt": "\n".join(f"{i:06d}.jpg {i // 2}" for i in range(8)),
        "list_eval_partition.txt": "\n".join(f"{i:06d}.jpg {i % 3}" for i in range(8)),
    }
    vgg = {
        "identity_meta.csv": "Class_ID, Name, Sample_Num, Flag, Gender\n"
        + "\n".join(f'n00000{i}, "A, b", 2, 1, {"mf"[i % 2]}' for i in range(1, 5)),
        "bb_landmark/loose_bb_train.csv": "NAME_ID,X,Y,W,H\n"
        + "\n".join(f'"n00000{i}/000{j}_01",1,2,{9 + i},10' for i in range(1, 5) for j in (1, 2)),
    }
    tsv = "\n".join(
        "\t".join(
            (f"m.{i // 2}", str(i), "http://a", "http://b", f"FaceId-{i}", "AAAA", base64.b64encode(face).decode())
        )
        for i in range(8)
    ).encode()

    def under(folder: str, files: Mapping[str, Any]) -> Files:
        return {f"{folder}/{name}": data if isinstance(data, bytes) else data.encode() for name, data in files.items()}

    photos = {name.replace(".jpg", ".png"): picture("PNG", (_SIDE, _SIDE)) for name in names}
    words = {"path": [*photos], "gender": ["m", "f"] * 4, "identity": [name[:2] for name in photos]}
    eyes: Mapping[str, Sequence[Any]] = {
        "path": [*photos],
        "left_eye_x": [4] * 8,
        "left_eye_y": [5] * 8,
        "right_eye_x": [10.5] * 8,
        "right_eye_y": [5.5] * 8,
    }
    lines = [f"train/{i}.jpg,{i}0-{i}9,{('Male', 'Female')[i % 2]},White,True\n" for i in range(8)]
    fair = {"fairface_label_train.csv": "".join(["file,age,gender,race,service_test\n", *lines]).encode()}
    structs = [{"bytes": data, "path": name} for name, data in photos.items()]
    table = {"image": structs, "gender": [i % 2 for i in range(8)], "identity": words["identity"]}
    features = {"image": {"_type": "Image"}, "gender": {"_type": "ClassLabel", "names": ["f", "m"]}}
    said = pa.table(table).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder = under("in", photos)
    named = parquet_of({"name": ROWS["name"], "v": pa.array(list(ROWS["x"]))})
    return {
        "lfw, archive": Reader(
            seeds=[under("in", {"lfw.tar": archive}), under("in", {"lfw.tgz": gzip.compress(archive, mtime=0)})],
            read=packed("lfw"),
            targets=("in/lfw",),
            share=0.5,
        ),
        "lfw, lists": Reader(
            seeds=[under("in", {"lfw.tar": archive, **lists})],
            read=packed("lfw"),
            targets=tuple(f"in/{name}" for name in lists),
            share=0.4,
        ),
        "pendigits": Reader(
            seeds=[under("in", {"pendigits-orig.tra": digits, "pendigits-orig.tes": digits})],
            read=packed("pendigits"),
            share=0.4,
        ),
        "celeba": Reader(
            seeds=[under("in", celeba | {f"img_align_celeba/{i:06d}.jpg": face for i in range(8)})],
            read=packed("celeba"),
            targets=("in/list", "in/ident"),
            share=0.4,
        ),
        "fairface": Reader(
            seeds=[under("in", fair | {f"train/{i}.jpg": face for i in range(8)})],
            read=packed("fairface"),
            targets=("in/fair",),
            share=0.4,
        ),
        "vggface2": Reader(
            seeds=[under("in", vgg | {f"train/n00000{i}/000{j}_01.jpg": face for i in range(1, 5) for j in (1, 2)})],
            read=packed("vggface2"),
            targets=("in/ident", "in/bb"),
            share=0.4,
        ),
        "msceleb": Reader(seeds=[{"in/a.tsv": tsv}], read=packed("msceleb"), share=0.4),
        "folder, pictures": Reader(seeds=[folder], read=packed("folder", settings={"identity": "folder"}), share=0.4),
        "folder, labels": Reader(
            seeds=[folder | {"labels.csv": csv_of(words)}, folder | {"labels.parquet": parquet_of(words)}],
            read=packed("folder"),
            targets=("labels",),
            share=0.4,
        ),
        "parquet": Reader(
            seeds=[
                {"in.parquet": parquet_of(said)},
                {"in.parquet": parquet_of({"image": [*photos.values()], **words}, use_dictionary=False)},
                under("in", {"a.parquet": parquet_of(said[:5]), "b/c.parquet": parquet_of(said[5:])}),
            ],
            read=packed("parquet"),
            share=0.4,
        ),
        "landmarks": Reader(
            seeds=[folder | {"landmarks.csv": csv_of(eyes)}], read=packed("folder"), targets=("landmarks",), share=0.4
        ),
        "embeddings": Reader(
            seeds=[{f"in.{ending}": data} for ending, some in vectors().items() for data in some]
            + [{"in.parquet": embedded()}]
            + [{"in.parquet": named, f"labels.{ending}": data} for ending, some in labels().items() for data in some],
            read=packed("embeddings"),
            share=0.8,
        ),
    }


def readers(folder: Path) -> dict[str, Reader]:
    """All readers of foreign files that Veil has, by names for them.

    Args:
        folder: Where valid files are made.
    """
    torch.set_num_threads(1)
    packs_made, releases_made = packs(folder / "packs"), releases(folder / "releases")
    first = folder / "first"
    first.mkdir()
    begin_run(first, resume=False)
    weights = io.BytesIO()
    torch.save(_module().state_dict(), weights)
    from safetensors.torch import save

    found = {
        f"picture, {ending}": Reader(seeds=[{f"x.{ending}": data} for data in some], read=read_picture)
        for ending, some in pictures().items()
        if some
    }
    found |= {
        f"vectors, {ending}": Reader(seeds=[{f"x.{ending}": data} for data in some], read=read_vector_file)
        for ending, some in vectors().items()
    }
    found |= {
        f"labels, {ending}": Reader(seeds=[{f"x.{ending}": data} for data in some], read=read_labels)
        for ending, some in labels().items()
    }
    hide: Mapping[str, Sequence[Any]] = {"path": ["a", "b"], "hide": ["gender;age", ""]}
    found |= {
        "landmarks, csv": Reader(seeds=[{"x.csv": csv_of(EYES)}], read=read_eyes),
        "choices, csv": Reader(
            seeds=[{"x.csv": csv_of(hide)}], read=lambda folder: [*sidecar.read(folder / "x.csv", ("hide",), "x")]
        ),
        **layouts(),
    }
    found |= {
        f"pack, {kind}": Reader(
            seeds=[{f"p/{name}": data for name, data in files.items()}], read=read_pack, mend=mend_pack, share=0.8
        )
        for kind, files in packs_made.items()
    }
    found["pack, applied"] = Reader(
        seeds=[{f"p/{name}": data for name, data in files.items()} for files in packs_made.values()],
        read=apply_pack,
        mend=mend_pack,
        share=0.2,
    )
    found |= {
        f"release, {method}": Reader(
            seeds=[files],
            read=read_release,
            targets=("r/", "r/", "r.fitted"),
            mend=mend_release,
            share={"aia": 0.1, "deep": 0.1, "mi": 0.2, "san": 0.1, "inversion": 0.02}.get(method, 0.5),
        )
        for method, files in releases_made.items()
    }
    found |= {
        "key": Reader(seeds=[releases_made["template"]], read=read_key, targets=("r.key",), share=0.3),
        "report": Reader(seeds=[report()], read=html.write, share=0.2),
        "earlier audit": Reader(seeds=[report()], read=read_earlier, targets=("findings.json",), share=0.5),
        "pictures, redrawn": Reader(
            seeds=[
                releases_made["mi"] | {f"in/{ending}.{ending}": some[0] for ending, some in pictures().items() if some}
            ],
            read=redraw,
            targets=("in/",),
            share=0.1,
        ),
        "curves": Reader(
            seeds=[{"x.parquet": report()["curves/a.parquet"]}],
            read=lambda folder: read_curves(folder / "x.parquet"),
        ),
        "scores, csv": Reader(seeds=[{"x.csv": csv_of(COMPARED)}], read=lambda folder: read_scores(folder / "x.csv")),
        "scores, parquet": Reader(
            seeds=[{"x.parquet": parquet_of(COMPARED)}], read=lambda folder: read_scores(folder / "x.parquet")
        ),
        "weights": Reader(
            seeds=[{"x.pth": weights.getvalue()}, {"x.safetensors": save(_module().state_dict())}], read=read_weights
        ),
        "checkpoint": Reader(
            seeds=[tree(first)], read=begin_run, targets=("x.checkpoint",), mend=mend_checkpoint, share=0.6
        ),
        "parts": Reader(seeds=[interrupted(folder)], read=resume_apply, targets=("y.npz.partial",), share=0.4),
        "onnx": Reader(seeds=[{"x.onnx": network()}], read=read_network, share=0.8),
    }
    return found


# -- bombs ------------------------------------------------------------------------------------------------------------

_CHUNK = bytes(1 << 20)
Make = Callable[[Path], object]
"""Makes a bomb in a folder."""


@functools.cache
def bombs() -> Mapping[str, Bomb]:
    """Files that ask for more than they are worth, by what they are."""
    return {name: Bomb(make, read) for read, some in _bombs() for name, make in some.items()}


def _bombs() -> Iterator[tuple[Callable[[Path], object], Mapping[str, Make]]]:
    """What reads bombs, and how these are made."""
    gib, deep, x = 1 << 30, b"[" * 1_000_000, (npy_of(ROWS["x"][:12]), 0)
    yield (
        read_pack,
        {
            "pack: labels of 10^8 null rows": a_pack(
                lambda pack: nulls(pack / "labels.parquet", ["source", "split", "identity", "gender", "age"])
            ),
            "pack: vectors of 2^40 rows": a_pack(lambda pack: _claim_rows(pack, 2**40)),
            "pack: deep JSON": a_pack(lambda pack: (pack / "pack.json").write_bytes(deep)),
            **in_place_of(
                ("p/pack.json", "p/labels.parquet", "p/vectors.npy", "p/checked.json"),
                lambda made: {f"p/{name}": data for name, data in packs(made)["vectors"].items()},
            ),
        },
    )
    yield (
        lambda folder: read_scores(_one_of(folder, "x")),
        {
            "scores: 10^8 null rows": lambda folder: nulls(folder / "x.parquet", ["mated", "score"]),
            "scores: a person of 2^20 letters in 3,000 rows": _long_person,
            "scores: a quote that never ends": a_file("x.csv", b'mated,score\n"' + b"x\n" * 500_000),
        },
    )
    yield (
        read_labels,
        {
            "labels: 10^8 null rows": lambda folder: nulls(folder / "x.parquet", ["path", "gender"]),
            "labels: a text of 2^20 letters in 3,000 rows": _long_text,
            "labels: 10^5 columns": a_file("x.csv", lambda: csv_of({f"path{i or ''}": [1] for i in range(10**5)})),
            "labels: a quote that never ends": a_file("x.csv", b'path,gender\n"' + b"x\n" * 500_000),
            "labels: a quote on every line": a_file("x.csv", b"path,gender\n" + b'a,"\n' * 250_000),
            "labels: 10^6 blank lines": a_file("x.csv", b"path,gender\n" + b"\n" * 10**6),
            "labels: a cell of 10^6 letters": a_file("x.csv", b"path,gender\na," + b"x" * 10**6),
            **in_place_of(("x.csv",), lambda made: {}, what="labels"),
        },
    )
    yield (
        read_eyes,
        {
            "landmarks: a number of 10^6 digits": a_file("x.csv", csv_of({**EYES, "left_eye_x": [1, "9" * 10**6]})),
            **in_place_of(("x.csv",), lambda made: {}, what="landmarks"),
        },
    )
    yield (
        read_vector_file,
        {
            "vectors: lists of 2^24 values": _long_lists,
            "vectors: 10^8 null rows": lambda folder: nulls(folder / "x.parquet", ["name", "v0", "v1"]),
            "vectors: 10^5 columns": a_file("x.csv", lambda: csv_of({f"v{i}": [0.5] for i in range(10**5)})),
            "vectors: a column's name of 5 10^5 digits": a_file("x.csv", b"1" * 500_000 + b"x,v0,v1\n1.5,0.5,0.5\n"),
            "vectors: an npy of 2^40 rows": a_file("x.npy", npy_head("<f4", (2**40, 4)) + bytes(999)),
            "vectors: an npz of a gigabyte": an_npz({"vectors": (npy_head("<f4", (2**20, 256)), gib)}),
            "vectors: an npz of a gigabyte, in Fortran order": an_npz(
                {"vectors": (npy_head("<f4", (2**20, 256), True), gib)}
            ),
            "vectors: one row of a gigabyte": an_npz({"vectors": (npy_head("<f4", (1, 2**28)), gib)}),
            "vectors: names of 2^24 letters": an_npz({"vectors": x, "name": (npy_head("<U16777216", (12,)), 12 << 26)}),
            "vectors: labels of 2^24 letters": an_npz({"vectors": x, "sex": (npy_head("<U16777216", (12,)), 12 << 26)}),
            "vectors: an npz of 10^4 members": an_npz({"vectors": x, **{str(i): (b"", 0) for i in range(10**4)}}),
            "vectors: a header of npy of a gigabyte": an_npz(
                {"vectors": (b"\x93NUMPY\x02\0" + (gib - 1).to_bytes(4, "little"), gib)}
            ),
            **in_place_of(("x.npz",), lambda made: {}, what="vectors"),
        },
    )
    yield (
        read_release,
        {
            "release: a shape of 30,000 x 30,000": a_release(
                "leace", lambda card: card["contract"].update(shape=[30_000, 30_000])
            ),
            "release: images of 30,000 x 30,000": a_release(
                "leace",
                lambda card: card["contract"].update(shape=[30_000, 30_000], k=9 * 10**8, kind="images"),
            ),
            "release: k of 10^10": a_release("leace", lambda card: card["contract"].update(k=10**10)),
            "release: a rank of 10^9": a_release("leace", lambda card: card["config"].update(rank=10**9)),
            "release: 10^6 features": a_release("mi", lambda card: card["config"].update(features=10**6)),
            "release: 10^9 substitutes": a_release("substitution", lambda card: card["contract"].update(support=10**9)),
            "release: 10^6 networks": a_release("deep", lambda card: card["config"].update(networks=10**6)),
            "release: 2^60 classes": a_release(
                "template", lambda card: card["contract"].update(classes={str(i): ["a", "b"] for i in range(60)})
            ),
            "release: deep JSON": lambda folder: place(
                releases(folder / "made", ["leace"])["leace"] | {"r/release.json": deep}, folder
            ),
            "release: weights that claim 2^40 bytes": _claiming_weights,
            **in_place_of(
                ("r/release.json", "r/weights.safetensors", "r.key", "r.fitted"),
                lambda made: releases(made, ["template"])["template"],
            ),
        },
    )
    yield (
        read_weights,
        {
            "weights: a gigabyte, deflated": a_saved("x.pth"),
            "weights: a header of 2^60 bytes": a_file("x.safetensors", (2**60).to_bytes(8, "little") + b"{}"),
            **in_place_of(("x.pth",), lambda made: {}, what="weights"),
        },
    )
    yield (
        begin_run,
        {
            "checkpoint: a header of 2^60 bytes": a_file("x.checkpoint", (2**60).to_bytes(8, "little") + b"{}"),
            **in_place_of(("x.checkpoint",), lambda made: {}, what="a checkpoint"),
        },
    )
    yield (
        read_network,
        {
            "onnx: a tensor of 2^40 bytes": a_graph(lambda graph: graph.initializer[0].dims.__setitem__(0, 2**36)),
            "onnx: a constant of 2^34 values": a_graph(_huge_constant),
            "onnx: 2^62 turns of a loop": a_graph(_endless_loop),
            **in_place_of(("x.onnx",), lambda made: {}, what="a network"),
        },
    )
    yield (
        packed("parquet"),
        {
            "parquet: 10^8 null rows": lambda folder: nulls(folder / "in.parquet", ["name", "gender"]),
            "parquet: a picture of 2^25 bytes in 3,000 rows": _long_picture,
            **in_place_of(("in.parquet",), lambda made: {}, what="parquet"),
        },
    )
    image, other = (_tar_member(f"a/a_0001.{ending}".encode(), b"") for ending in ("jpg", "txt"))
    yield (
        packed("lfw"),
        {
            "lfw: a member of 2^80 bytes": a_tgz(_tar_member(b"a/a_0001.jpg", b"", claimed=2**80), 1 << 20),
            "lfw: a member of 2^33 bytes": a_tgz(_tar_member(b"a/a_0001.txt", b"", claimed=2**33), gib),
            "lfw: 2^20 members": a_tgz(b"", gib // 2, unit=image * 2048),
            "lfw: 2^20 members that are no images": a_tgz(b"", gib // 2, unit=other * 2048),
            "lfw: a long name of a gigabyte": a_tgz(_tar_member(b"L", b"", b"L", claimed=gib), gib, image),
            "lfw: a pax header of a gigabyte": a_tgz(_tar_member(b"x", b"", b"x", claimed=gib), gib, image),
            "lfw: a global pax header of a gigabyte": a_tgz(_tar_member(b"g", b"", b"g", claimed=gib), gib, image),
            "lfw: a long name that claims a gigabyte": a_file(
                "in/lfw.tar", _tar_member(b"L", b"", b"L", claimed=gib) + bytes(999)
            ),
        },
    )
    pen = b'.SEGMENT DIGIT 17 ? "8"\n.COMMENT 8 12 224\n.PEN_DOWN\n' + b" 9 9\n 499 499\n" * 60_000 + b".PEN_UP\n"
    yield packed("pendigits"), {"pendigits: a stroke of 10^5 points": a_file("in/pendigits-orig.tra", pen)}
    yield (
        packed("folder"),
        in_place_of(("in/a/b.png",), lambda made: {"in/a/c.png": picture("PNG")}, what="a picture of a folder"),
    )
    tga = struct.pack("<BBBHHBHHHHBB", 0, 0, 11, 0, 0, 0, 0, 0, 8192, 7808, 8, 0) + b"\xff\0" * 500_000
    bmp = (
        b"BM" + struct.pack("<IHHIIiiHHII", 0, 0, 0, 1078, 40, 8000, 8000, 1, 8, 1, 0) + bytes(1040) + b"\1\2" * 500_000
    )
    tags = struct.pack("<IHHII", 60_000, 257, 4, 1, 60_000)  # of width and height
    tiles = struct.pack(">8I", 8000, 8000, 0, 0, 1, 1, 0, 0)
    yield (
        read_picture,
        {
            "picture: a PNG of 64 megapixels, 16 bits": a_file("x.png", lambda: png_of(8000, 0, 16, 1)),
            "picture: a PNG of 64 megapixels, 16 bits, four channels": a_file("x.png", lambda: png_of(8000, 6, 16, 4)),
            "picture: a PNG of 64 megapixels, four channels": a_file("x.png", lambda: png_of(8000, 6, 8, 4)),
            "picture: a PNG of 60,000 x 60,000": a_file("x.png", lambda: png_of(60_000, 0, 1, 1, lines=8)),
            "picture: a JPEG of 882 scans": a_file("x.jpg", jpeg_of_scans),
            "picture: a JPEG of 64 megapixels, progressive": a_large(
                "x.jpg", "JPEG", progressive=True, quality=10, subsampling=0
            ),
            "picture: a JPEG of 65,000 x 65,000": patched("x.jpg", "JPEG", b"\xff\xc0", 5, b"\xfd\xe8" * 2),
            "picture: a GIF of 65,000 x 65,000": patched("x.gif", "GIF", b"GIF8", 6, b"\xe8\xfd" * 2),
            "picture: a GIF's frame of 65,000 x 65,000": patched("x.gif", "GIF", b"\x2c\0\0\0\0", 5, b"\xe8\xfd" * 2),
            "picture: a GIF of 64 megapixels": a_large("x.gif", "GIF", "P"),
            "picture: a WebP of 16,000 x 16,000": patched("x.webp", "WEBP", b"\x9d\x01\x2a", 3, b"\x80\x3e" * 2),
            "picture: a WebP of 64 megapixels": a_large("x.webp", "WEBP", lossless=True, quality=0, method=0),
            "picture: a TIFF of 60,000 x 60,000": patched("x.tif", "TIFF", b"\0\x01\x04\0\x01", 8, tags),
            "picture: a TIFF of 64 megapixels": a_large("x.tif", "TIFF", compression="tiff_adobe_deflate"),
            "picture: an AVIF of 16,000 x 16,000": patched("x.avif", "AVIF", b"ispe", 8, b"\0\0\x3e\x80" * 2),
            "picture: a JPEG 2000 of 64 megapixels, a tile each": patched(
                "x.jp2", "JPEG2000", b"\xff\x4f\xff\x51", 8, tiles
            ),
            "picture: a PPM of 60,000 x 60,000": a_file("x.ppm", b"P6 60000 60000 255\n"),
            "picture: a PPM of 64 megapixels, in words": a_file("x.ppm", b"P3 8000 8000 255\n" + b"1 " * 500_000),
            "picture: a TGA of 64 megapixels": a_file("x.tga", tga),
            "picture: a BMP of 64 megapixels": a_file("x.bmp", bmp),
        },
    )
    many = [str(i) for i in range(10**4)]
    yield (
        html.write,
        {
            "report: deep JSON": a_file("findings.json", deep),
            "report: 3,000 findings": a_report(lambda said: said.update(findings=said["findings"] * 300)),
            "report: 3,000 releases": a_report(
                lambda said: said["releases"].extend({"name": name, "role": "method"} for name in many[:3000])
            ),
            "report: 300 private labels and as many uses": a_report(
                lambda said: said["data"].update(private=many[:300], utility=many[300:600])
            ),
            "report: a picture of a megabyte named 4,000 times": a_report(
                lambda said: said.update(pictures=said["pictures"] * 4000),
                **{"pictures/a.png": png_of(64, 0, 8, 1) + bytes(900_000)},
            ),
            "report: curves named 4,000 times": a_report(lambda said: said.update(curves=said["curves"] * 4000)),
            "report: a picture of 4 GiB": _sparse_picture,
            "report: curves of 10^7 rows": lambda folder: place(
                report() | {"curves/a.parquet": curves_of([0] * 10**7, ["s"] * 10**7)}, folder
            ),
            "report: curves of 10^4 stages and players": lambda folder: place(
                report() | {"curves/a.parquet": curves_of([*range(10**4)], many)}, folder
            ),
            **in_place_of(("findings.json", "curves/a.parquet", "pictures/a.png"), lambda made: report()),
        },
    )


def a_file(path: str, data: bytes | Callable[[], bytes]) -> Make:
    """One file."""
    return lambda folder: place({path: data() if callable(data) else data}, folder)


def in_place_of(paths: Sequence[str], files: Callable[[Path], Files], *, what: str = "") -> dict[str, Make]:
    """In place of some of a valid input's files: a pipe that nobody writes to, a link to zeros without end, a loop."""

    def put(path: str, link: str | None, work: Path) -> None:
        place(files(work / "made"), work)
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).unlink(missing_ok=True)
        if link is None:
            os.mkfifo(work / path)
        else:
            (work / path).symlink_to(link)

    found: dict[str, Make] = {}
    for path in paths:
        for kind, link in (("pipe", None), ("zeros", "/dev/zero"), ("loop", Path(path).name)):
            found[f"{kind}: {what or path}"] = functools.partial(put, path, link)
    return found


def a_pack(change: Callable[[Path], object]) -> Make:
    """A pack of vectors, its folder changed and its sums mended."""

    def make(folder: Path) -> None:
        before = {f"p/{name}": data for name, data in packs(folder / "made")["vectors"].items()}
        place(before, folder)
        change(folder / "p")
        files = {f"p/{name}": data for name, data in tree(folder / "p").items()}
        mend_pack(before, files)
        place(files, folder)

    return make


def _claim_rows(folder: Path, n: int) -> None:
    (folder / "vectors.npy").write_bytes(npy_head("<f4", (n, 4)) + bytes(999))
    said = json.loads((folder / "pack.json").read_text())
    (folder / "pack.json").write_text(json.dumps(said | {"shape": [n, 4]}, indent=1))


def nulls(path: Path, names: Sequence[str], rows: int = 10**8) -> None:
    """A table of nulls alone."""
    group = 1_000_000
    empty = pa.DictionaryArray.from_arrays(pa.nulls(group, pa.int32()), pa.array([], pa.string()))
    table = pa.table(dict.fromkeys(names, empty))
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(rows // group):
            writer.write_table(table, group)


def _long_text(folder: Path) -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * 2**20]))
    table = pa.table({"path": [str(i) for i in range(3000)], "w": words})
    pq.write_table(table, folder / "x.parquet", compression="zstd", store_schema=False)


def _long_person(folder: Path) -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * 2**20]))
    numbers = {"mated": [1] * 2999 + [0], "score": [0.5] * 3000}
    table = pa.table({**numbers, "person_a": words, "person_b": words})
    pq.write_table(table, folder / "x.parquet", compression="zstd", store_schema=False)


def _long_picture(folder: Path) -> None:
    image = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array([b"\xff\xd8\xff" + bytes(2**25)]))
    table = pa.table({"path": [str(i) for i in range(3000)], "image": image})
    pq.write_table(table, folder / "in.parquet", compression="zstd", store_schema=False)


def _long_lists(folder: Path) -> None:
    row = pa.ListArray.from_arrays(pa.array([0, 2**24], pa.int32()), pa.array(np.zeros(2**24, np.float32)))
    table = pa.table({"v": row})
    with pq.ParquetWriter(folder / "x.parquet", table.schema, compression="zstd") as writer:
        for _ in range(40):
            writer.write_table(table)


def npy_head(dtype: str, shape: tuple[int, ...], fortran: bool = False) -> bytes:
    """What stands before an array's values."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": fortran, "shape": shape})
    return file.getvalue()


def an_npz(arrays: Mapping[str, tuple[bytes, int]]) -> Make:
    """Arrays, each what stands before its values and how many bytes of zeros these are."""
    return lambda folder: zipped_zeros(folder / "x.npz", {f"{name}.npy": array for name, array in arrays.items()})


def zipped_zeros(path: Path, members: Mapping[str, tuple[bytes, int]]) -> None:
    """An archive of members that are a head and so many zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (head, size) in members.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(head)
                for start in range(0, size, len(_CHUNK)):
                    file.write(_CHUNK[: size - start])


def a_tgz(head: bytes, size: int, tail: bytes = b"", *, unit: bytes = _CHUNK) -> Make:
    """A compressed archive: a head, so many bytes of a unit over and over, and a tail."""

    def make(folder: Path) -> None:
        (folder / "in").mkdir()
        with gzip.open(folder / "in/lfw.tgz", "wb") as file:
            file.write(head)
            for _ in range(size // len(unit)):
                file.write(unit)
            file.write(tail)

    return make


def a_release(method: str, change: Callable[[Any], object]) -> Make:
    """A release whose ``release.json`` says something else."""

    def make(folder: Path) -> None:
        before = releases(folder / "made", [method])[method]
        card = json.loads(before["r/release.json"])
        change(card)
        files = before | {"r/release.json": json.dumps(card).encode()}
        mend_release(before, files)
        place(files, folder)

    return make


def _claiming_weights(folder: Path) -> None:
    before = releases(folder / "made", ["leace"])["leace"]
    head = json.dumps({"encoder.1.mean": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}).encode()
    files = before | {"r/weights.safetensors": len(head).to_bytes(8, "little") + head}
    mend_release(before, files)
    place(files, folder)


def a_saved(name: str) -> Make:
    """What PyTorch saved: a tensor of a gigabyte of zeros, deflated."""

    def make(folder: Path) -> None:
        small, count = io.BytesIO(), (1 << 28).to_bytes(4, "little")
        torch.save({"0.weight": torch.zeros(1)}, small)
        with zipfile.ZipFile(small) as archive:
            parts = {name: (archive.read(name), 0) for name in archive.namelist()}
        for path, (data, _) in parts.items():
            if path.endswith("data.pkl"):  # where the 1 of its size stands as K\x01
                sized = data.replace(b"K\x01tq", b"J" + count + b"tq").replace(b"K\x01\x85q", b"J" + count + b"\x85q")
                parts[path] = (sized, 0)
            elif path.endswith("data/0"):
                parts[path] = (b"", 1 << 30)
        zipped_zeros(folder / name, parts)

    return make


def a_graph(change: Callable[[Any], object]) -> Make:
    """A network of ONNX whose graph is changed."""

    def make(folder: Path) -> None:
        import onnx

        model = onnx.load_from_string(network())
        change(model.graph)
        place({"x.onnx": model.SerializeToString()}, folder)

    return make


def _huge_constant(graph: Any) -> None:
    from onnx import helper, numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.array([1, 1 << 34], np.int64), "s"))
    graph.node.append(helper.make_node("ConstantOfShape", ["s"], ["c"]))
    graph.node.append(helper.make_node("ReduceSum", ["c"], ["d"], keepdims=0))
    graph.node.append(helper.make_node("Add", ["y", "d"], ["z"]))
    graph.output[0].name = "z"


def _endless_loop(graph: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper

    for name, value in (("n", np.array(2**62)), ("go", np.array(True))):
        graph.initializer.append(numpy_helper.from_array(value, name))
    u, v = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "uv")
    c, k = (helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in "ck")
    turn = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    nodes = [helper.make_node("Identity", ["c"], ["k"]), helper.make_node("Relu", ["u"], ["v"])]
    body = helper.make_graph(nodes, "body", [turn, c, u], [k, v])
    graph.node.append(helper.make_node("Loop", ["n", "go", "y"], ["z"], body=body))
    graph.output[0].name = "z"


def patched(path: str, form: str, mark: bytes, offset: int, value: bytes) -> Make:
    """A small picture that says that it is a large one: what stands so far behind a mark is another value."""

    def data() -> bytes:
        small = bytearray(picture(form))
        start = small.find(mark) + offset
        small[start : start + len(value)] = value
        return bytes(small)

    return a_file(path, data)


def a_large(path: str, form: str, mode: str = "RGB", **options: Any) -> Make:
    """A black picture of 64 megapixels."""

    def data() -> bytes:
        file = io.BytesIO()
        Image.new(mode, (8000, 8000)).save(file, form, **options)
        return file.getvalue()

    return a_file(path, data)


def png_of(side: int, kind: int, depth: int, channels: int, lines: int | None = None) -> bytes:
    """A black PNG, or so many lines of it; kinds and depths as in its header."""
    line = bytes(1 + side * channels * depth // 8)
    packer = zlib.compressobj()
    packed = b"".join(packer.compress(line) for _ in range(lines or side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0)
    return _png([(b"IHDR", head), (b"IDAT", packed), (b"IEND", b"")])


def jpeg_of_scans(width: int = 8192, height: int = 4096) -> bytes:
    """A valid progressive JPEG of 882 scans: each of 63 coefficients bit by bit, and all of them 0."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body

    blocks = width * height // 64
    one = bytes([1, *[0] * 15])  # one code of one bit, 0
    out = b"\xff\xd8" + segment(0xDB, bytes([0, *[1] * 64]))
    out += segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00")
    out += segment(0xC4, b"\x00" + one + b"\x00") + segment(0xC4, b"\x10" + one + b"\xe0")
    out += segment(0xDA, b"\x01\x01\x00\x00\x00\x00") + bytes(blocks // 8)
    run = bytes(15 * (blocks >> 14) // 8)  # of 2**14 blocks without anything: a code, and 14 bits more
    for place in range(1, 64):
        for bit in range(13, -1, -1):
            before = 0 if bit == 13 else bit + 1
            out += segment(0xDA, bytes([1, 1, 0, place, place, before << 4 | bit])) + run
    return out + b"\xff\xd9"


def a_report(change: Callable[[Any], object], **files: bytes) -> Make:
    """Findings that say something else, and files that they name."""

    def make(folder: Path) -> None:
        there = report()
        said = json.loads(there["findings.json"])
        change(said)
        place(there | {"findings.json": json.dumps(said).encode()} | files, folder)

    return make


def curves_of(steps: Sequence[int], words: Sequence[str]) -> bytes:
    """Losses of stages and players of these names."""
    return parquet_of({"step": steps, "stage": words, "player": words, "loss": np.zeros(len(steps))})


def _sparse_picture(folder: Path) -> None:
    place(report(), folder)
    with (folder / "pictures/a.png").open("r+b") as file:
        file.truncate(4 << 30)


# -- the command ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200_000, help="inputs of all readers together")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="readers, or bombs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--bombs", action="store_true", help="read bombs instead")
    parser.add_argument(
        "--one", type=int, metavar="NUMBER", help="read this input of the only reader, and keep its files"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hostile-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as made:
        folder = Path(made)
        if asked.bombs:
            explode_all(Harness(folder), asked.only)
            return
        there = readers(folder)
        chosen = {name: there[name] for name in asked.only or there}
        if asked.one is not None:
            ((name, reader),) = chosen.items()
            work = Path("hostile-input")
            place(mutated(name, reader, asked.seed, asked.one), work)
            print(f"{name} {asked.seed} {asked.one}: {work}")
            reader.read(work)
            return
        harness, shares = Harness(folder, asked.jobs), sum(reader.share for reader in chosen.values())
        print("| reader | inputs | success | refused | wrong | longest s | most MiB | inputs a s |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        kinds: list[str] = []
        total: Counter[str] = Counter()
        for name, reader in chosen.items():
            start = time.perf_counter()
            tally = harness.read(name, reader, math.ceil(asked.count * reader.share / shares), asked.seed)
            rate = tally.words.total() / (time.perf_counter() - start)
            print(_row(name, tally, f"{tally.seconds:.1f} | {tally.mib:.0f} | {rate:.0f}"), flush=True)
            kinds += [f"{name}: {problem}" for problem in tally.problems]
            total += tally.words
        print(_row("all", Tally(words=total), " | | "))
        print("\n".join(("", *kinds)))


def explode_all(harness: Harness, only: Sequence[str]) -> None:
    """Reads bombs, and prints a line for each."""
    torch.set_num_threads(1)
    there = bombs()
    print("| bomb | KiB | outcome | MiB | s | words |\n| --- | --- | --- | --- | --- | --- |")
    words: Counter[str] = Counter()
    for name in only or there:
        size, outcome = harness.explode(there[name])
        words[outcome.word] += 1
        what = outcome.kind or outcome.word
        print(
            f"| {name} | {size / 1024:,.0f} | {what} | {outcome.mib:.0f} | {outcome.seconds:.1f} | {outcome.said} |",
            flush=True,
        )
    print(f"\n{words.total()} bombs: {', '.join(f'{count} {word}' for word, count in sorted(words.items()))}")


def _row(name: str, tally: Tally, rest: str) -> str:
    words = " | ".join(f"{tally.words[word]:,}" for word in ("success", "refused", "wrong"))
    return f"| {name} | {tally.words.total():,} | {words} | {rest} |"


if __name__ == "__main__":
    main()
