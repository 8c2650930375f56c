"""How commands speak: progress and remarks on stderr, the result on stdout, as words or as JSON."""

# ruff: noqa: T201 (to print is this file's task)

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from veil.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Display

    from veil.data.pack import Pack
    from veil.workflows.apply import Applied
    from veil.workflows.fit_folder import FolderFit
    from veil.workflows.protect import Watch


def say(line: str, file: TextIO | None = None) -> None:
    """Prints one line, whatever the names of files and labels in it."""
    print(printable(line), file=file)


class Show:
    """How one command speaks.

    Args:
        quiet: No progress, no notes.
        as_json: The result is one JSON object; nothing else is said.
        command: Gives the command that was asked for, without paths.
    """

    def __init__(self, quiet: bool, as_json: bool, command: Callable[[], str]) -> None:
        self.quiet = quiet or as_json
        self.as_json = as_json
        self.command = command

    def progress(self) -> AbstractContextManager[Progress]:
        return _progress(self.quiet)

    def remarks(self, warnings: Sequence[str], notes: Sequence[str] = ()) -> None:
        """What the user should know of the data, on stderr: first what is lost, which --quiet does not silence."""
        if not self.as_json:
            for warning in warnings:
                say(f"warning: {warning}", sys.stderr)
        if not self.quiet:
            for note in notes:
                say(f"  note: {note}", sys.stderr)

    def remark(self, kind: str, sentence: str) -> None:
        """A "warning" or a "note", or else a line that --quiet silences."""
        self.remarks([sentence] if kind == "warning" else [], [sentence] if kind == "note" else [])
        if kind not in ("warning", "note") and not self.quiet:
            say(sentence, sys.stderr)

    def result(self, value: Mapping[str, Any], *lines: str) -> None:
        if self.as_json:
            print(json.dumps(value, allow_nan=False))
        for line in () if self.as_json else lines:
            say(line)

    @contextmanager
    def logged(self) -> Iterator[None]:
        """What Veil logs inside, of what killed runs had left, is a note."""
        handler = logging.Handler()
        handler.emit = lambda record: self.remarks((), [record.getMessage()])  # type: ignore[method-assign]
        logger = logging.getLogger("veil.files")
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


def show_fit(show: Show, made: FolderFit, key: Path | None) -> None:
    """What a fit made; ``key`` is the file that was given for its key."""
    release, out = made.release, made.folder
    files = {"release": out, "fitted": made.fitted, "curves": made.curves, "key": made.key}
    written = {name: str(path) for name, path in files.items() if path is not None}
    lines = [f"{out}: {release.method} release of {release.contract.k} values"]
    lines += ["  no frontier, as there is no noise to measure"] * made.noiseless
    lines += [_frontier_line(point) for point in release.made.get("frontier", [])]
    if made.fitted is not None:
        lines.append(f"{made.fitted}: hashes of what it was fitted on, for audits; keep it from strangers")
    if made.key is not None:
        lines.append(f"{made.key}: its secret key; keep it apart from the release")
    elif key is not None:
        lines.append(f"  {key}: not used, as the release draws nothing")
    warnings = list(release.made.get("warnings", ()))
    show.remarks(warnings)
    show.result({**written, "warnings": warnings}, *lines)


def show_rekeyed(
    show: Show, release: Path, new: Path, key: Path | None, *, moved: Applied | None, out: Path | None,
    remarks: Mapping[str, Sequence[str]],
) -> None:  # fmt: skip
    """A release under another key, what was moved to it, and what the old key still opens."""
    show.remarks(remarks["warning"])
    lines = [f"{new}: {release} under another key, {new}.key"]
    if moved is not None:
        listed = f"; {moved.skipped:,} skipped, listed in {out}.skipped.csv" if moved.skipped else ""
        lines.append(f"{out}: {moved.rows:,} releases moved to it{listed}")
    lines.append(f"  note: {key or f'{release}.key'} still opens what was released under it")
    show.result(
        {
            "release": str(new),
            "out": None if out is None else str(out),
            "rows": 0 if moved is None else moved.rows,
            "skipped": 0 if moved is None else moved.skipped,
            **{f"{kind}s": list(sentences) for kind, sentences in remarks.items()},
        },
        *lines,
        *(f"  note: {note}" for note in remarks["note"]),
    )


def show_label(show: Show, pack: Pack, name: str) -> None:
    """A label that was guessed: by what, how sure it was, and how many rows have each class."""
    from veil.data.columns import nfc

    name = nfc(name).strip()
    by, codes, classes = pack.predicted[name], pack.label(name), pack.classes[name]
    counts = {each: int((codes == code).sum()) for code, each in enumerate(classes)}
    shares = ", ".join(f"{each} {n:,} ({100 * n / len(pack):.1f} %)" for each, n in counts.items())
    show.remarks((), [note for note in pack.meta["notes"] if note.startswith(f"{name}: ")])
    show.result(
        {"pack": str(pack.path), "label": name, **by, "counts": counts},
        f"{pack.path}: {name} predicted by {by['file']} (SHA-256 {by['sha256'][:16]}\N{HORIZONTAL ELLIPSIS})",
        f"  {shares}; mean confidence {by['confidence']:.3f}",
    )


def _frontier_line(point: Mapping[str, Any]) -> str:
    attacks = ", ".join(
        f"{n} {a['value']:.3f}{' AUC' * a['code'].endswith('auc')} (to {a['high']:.3f})"
        for n, a in point["attacks"].items()
    )
    left = f"; left {point['utility']['value']:.4f}" if point["utility"] else ""
    return f"  noise {point['noise']:g}: worst attack on {attacks}{left}"


# -- progress ---------------------------------------------------------------------------------------------------------


class Progress:
    """Callbacks that tell how far a command has come; this one tells nobody."""

    def show(self, name: str, done: int, total: int | None, text: str) -> None:
        """Told that ``done`` of ``total`` are done of what is called ``name``, and what else there is to say."""

    def rows(self, name: str) -> Callable[[int, int | None, int], None]:
        return lambda done, total, skipped: self.show(name, done, total, f"{skipped} skipped" if skipped else "")

    def fit(self, name: str) -> Callable[[str, int, int, Mapping[str, float]], None]:
        def show(stage: str, done: int, count: int, losses: Mapping[str, float]) -> None:
            text = "  ".join(f"{player} {loss:.3f}" for player, loss in losses.items())
            self.show(f"{name}: {stage}", done, count, text)

        return show

    def count(self, name: str) -> Callable[[int, int, str], None]:
        return lambda done, total, what: self.show(name, done, total, what)

    def stage(self, name: str, done: int, total: int, what: str) -> None:
        """Told how far one of several stages has come."""
        self.show(name, done, total, what)

    def protect(self, remark: Callable[[str, str], None] = lambda kind, sentence: None) -> Watch:
        """Told how far `protect` is; ``remark`` hears what is lost."""
        from veil.workflows.protect import Watch

        frontier = self.count("frontier")
        return Watch(rows=self.rows, fit=self.fit("fit"), frontier=frontier, audit=self.stage, remark=remark)


class Bars(Progress):
    """Bars on a terminal, one for each thing that is done; the first of them starts the display."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._tasks: dict[str, Any] = {}

    def show(self, name: str, done: int, total: int | None, text: str) -> None:
        if not self._tasks:
            self._display.start()
        if name not in self._tasks:
            self._tasks[name] = self._display.add_task(printable(name), total=total, text="")
        self._display.update(self._tasks[name], completed=done, total=total, text=printable(text))

    def stop(self) -> None:
        if self._tasks:
            self._display.stop()


class Lines(Progress):
    """A line on stderr now and then, where nobody watches a terminal: in a log, say.

    The first comes after 5 seconds. Then no two come within 10; one does where something else has begun, a tenth of it
    is done, or 30 seconds are over. They come as work is done: a long piece of it is silent.
    """

    FIRST, LEAST, MOST, SHARE = 5.0, 10.0, 30.0, 0.1

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = clock() + self.FIRST
        self._last: tuple[str, float, int] = ("", -math.inf, 0)  # line: of what, when, how many of it
        self._begun: tuple[str, float, int] = ("", 0.0, 0)

    def show(self, name: str, done: int, total: int | None, text: str) -> None:
        now = self._clock()
        if name != self._begun[0]:
            self._begun = (name, now, done)
        last_name, last_time, last_done = self._last
        share = total is not None and done - last_done >= self.SHARE * total
        if now < self._due or not (name != last_name or share or now - last_time >= self.MOST):
            return
        self._due, self._last = now + self.LEAST, (name, now, done)
        line = f"{name}: {done:,}" + (f" of {total:,} ({100 * done // max(total, 1)} %)" if total is not None else "")
        _, since, first = self._begun
        if total is not None and done > first:
            left = (now - since) * (total - done) / (done - first)
            line += f", about {_duration(left)} left"
        with suppress(OSError):  # nobody reads any more: no reason to stop
            say(f"{line}; {text}" if text else line, sys.stderr)
            sys.stderr.flush()


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds: ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    if quiet:
        yield Progress()
        return
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Display
    from rich.table import Column
    from rich.text import Text

    class Rest(ProgressColumn):
        """What else there is to say, as far as there is room on the line: it must not crowd out the bar."""

        def render(self, task: Task) -> Text:
            return Text(task.fields["text"], no_wrap=True, overflow="ellipsis")

    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=16), MofNCompleteColumn(),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
               Rest(table_column=Column(no_wrap=False)))  # fmt: skip
    bars = Bars(Display(*columns, console=Console(stderr=True)))
    try:
        yield bars
    finally:
        bars.stop()
