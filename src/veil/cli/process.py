"""The command as a process: signals, streams, and an exit status for every outcome.

Exit status: 0 done, 2 the user's mistake (one line on stderr says which), 1 our fault, 4 an audit that is done but for
attempts that broke off, 130 interrupted. Results go to stdout, progress to stderr.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import warnings
from typing import NoReturn

import typer

from veil.cli.app import app
from veil.cli.show import say
from veil.errors import InputError


def main() -> None:
    """Entry point: runs a command and turns every outcome into an exit status."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no second
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _terminated)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged metadata, which nobody asked for
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no such letters must not fail the command
            stream.reconfigure(errors="backslashreplace")
    try:
        status = app(sys.argv[1:] or ["--help"], prog_name="veil", standalone_mode=False)
        sys.stdout.flush()  # here, where a closed pipe can still be handled
    except InputError as error:
        _fail(str(error), 2)
    except _USAGE as error:
        _fail(f"{error.format_message()} (see `{_command_asked_for()} --help`)", 2)  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", 130)
    except (BrokenPipeError, SystemExit) as error:  # typer leaves with 1 where the reader of a pipe has gone
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # else Python complains when it flushes at the end
        sys.exit(0)
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            _internal(error)
        _fail(f"{error.filename or 'writing'}: {error.strerror}", 2)
    except Exception as error:
        if _signals:  # torch, for one, wraps what stops it
            _fail("interrupted", 130)
        _internal(error)
    if status == 130:  # typer's word for an interruption, in some of its versions
        _fail("interrupted", 130)
    sys.exit(status if isinstance(status, int) else 0)


# typer raises click's exceptions, its own copy of them in later versions.
_USAGE: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def _command_asked_for() -> str:
    """``veil`` and the command, as far as there is one of that name."""
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    return " ".join(["veil", *(word for word in sys.argv[1:2] if word in commands)])


_signals: list[int] = []
"""Signals that asked the process to stop."""


def _terminated(number: int, frame: object) -> NoReturn:
    _signals.append(number)
    raise KeyboardInterrupt  # so that half-written files are removed


def _internal(error: Exception) -> NoReturn:
    _fail(f"internal error, please report it: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}", 1)


def _fail(message: str, status: int) -> NoReturn:
    say(f"veil: {' '.join(message.split())}", sys.stderr)
    sys.exit(status)
