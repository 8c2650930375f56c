"""Where commands come in: what all of them take, and how one is registered."""

# ruff: noqa: T201 (to print is this file's task)

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from veil._version import __version__
from veil.cli import arguments, texts
from veil.cli.show import Show

app = typer.Typer(
    help="Releases of images of people that keep a declared use and hide declared private attributes, and audits of "
    "what any release still gives away.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(run: Callable[..., None]) -> Callable[..., None]:
    """Registers a command; ``--quiet`` and ``--json``, which all commands take, make up its first argument."""

    def common(*, quiet: arguments.Quiet = False, as_json: arguments.Json = False) -> None: ...

    own = inspect.signature(run, eval_str=True)
    parameters = [
        *list(own.parameters.values())[1:],
        *inspect.signature(common, eval_str=True).parameters.values(),
    ]

    @functools.wraps(run)
    def registered(*, quiet: bool, as_json: bool, **values: Any) -> None:
        repeat = functools.partial(texts.command_without_paths, run.__name__, parameters, values)
        show = Show(quiet, as_json, repeat)
        with show.logged():
            run(show, **values)

    registered.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    registered.__annotations__ = {p.name: p.annotation for p in parameters}
    return app.command()(registered)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass
