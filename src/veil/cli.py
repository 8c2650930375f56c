"""The command line: ``veil demo | pack | fit | apply | audit | report | export``.

Exit status: 0 done, 2 the user's mistake (one line on stderr says which), 1 our fault, 4 an audit that is done but for
attempts that broke off, 130 interrupted. Results go to stdout, progress to stderr. Nothing heavy is imported before a
command needs it: ``veil --help`` must be quick.
"""

# ruff: noqa: T201 (to print is this file's task)

from __future__ import annotations

import errno
import functools
import inspect
import io
import json
import logging
import math
import os
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TextIO, get_args

import typer

from veil._version import __version__
from veil.errors import InputError, printable

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from veil.pipeline import Entry

app = typer.Typer(
    help="Releases of images of people that keep a declared use and hide declared private attributes, and audits of "
    "what any release still gives away.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seeds everything random but secret keys.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Key = Annotated[Path | None, typer.Option(help="Key file; RELEASE.key if none.")]
Private = Annotated[list[str] | None, typer.Option("--private", help="Label to hide and attack; repeat for several.")]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="How much to do at a time; as much as there are processors by default.")
]


class Show:
    """How a command speaks: progress on stderr, its result on stdout, as words or as JSON."""

    def __init__(self, quiet: bool, as_json: bool, command: Callable[[], str]) -> None:
        self.quiet = quiet or as_json
        self.as_json = as_json
        self.command = command  # tells what was asked for, without paths

    def progress(self) -> AbstractContextManager[_Progress]:
        return _progress(self.quiet)

    def remarks(self, warnings: Sequence[str], notes: Sequence[str] = ()) -> None:
        """What the user should know of the data, on stderr: first what is lost, which --quiet does not silence."""
        if not self.as_json:
            for warning in warnings:
                _say(f"warning: {warning}", sys.stderr)
        if not self.quiet:
            for note in notes:
                _say(f"  note: {note}", sys.stderr)

    def result(self, value: Mapping[str, Any], *lines: str) -> None:
        if self.as_json:
            print(json.dumps(value, allow_nan=False))
        for line in () if self.as_json else lines:
            _say(line)


def _say(line: str, file: TextIO | None = None) -> None:
    """Prints one line, whatever the names of files and labels in it."""
    print(printable(line), file=file)


@contextmanager
def _noted(show: Show) -> Iterator[None]:
    """What Veil logs inside, of what killed runs had left, is a note."""
    handler = logging.Handler()
    handler.emit = lambda record: show.remarks((), [record.getMessage()])  # type: ignore[method-assign]
    logger = logging.getLogger("veil.files")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def command(run: Callable[..., None]) -> Callable[..., None]:
    """Registers a command; ``--quiet`` and ``--json``, which all commands take, make up its first argument."""

    @functools.wraps(run)
    def shown(*, quiet: bool, as_json: bool, **arguments: Any) -> None:
        asked = functools.partial(_without_paths, run.__name__, parameters, arguments)
        show = Show(quiet, as_json, asked)
        with _noted(show):
            run(show, **arguments)

    def told(
        *,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
        as_json: Annotated[
            bool, typer.Option("--json", help="Print the result as one JSON object, without progress.")
        ] = False,
    ) -> None: ...

    own = inspect.signature(run, eval_str=True)
    common = inspect.signature(told, eval_str=True)
    parameters = [*list(own.parameters.values())[1:], *common.parameters.values()]
    shown.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    shown.__annotations__ = {p.name: p.annotation for p in parameters}
    return app.command()(shown)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


BROKE_OFF = 4
"""Exit status of an audit of which some attempts have no figure, for they did not converge."""


@command
def demo(
    show: Show,
    out: Annotated[
        Path, typer.Option(help="Folder for all of it; what an earlier demo left there is replaced.")
    ] = Path("demo"),
    seed: Seed = 0,
    jobs: Jobs = None,
) -> None:
    """The whole way on built-in stylised faces: fit AIA, its baselines and substitution, audit them, write a report."""
    from veil import pipeline
    from veil.engine.run import kept_memory

    with show.progress() as bars, kept_memory():
        found = pipeline.demo(
            out,
            seed=seed,
            jobs=jobs,
            command=show.command(),
            pack_progress=bars.rows("pack"),
            fit_progress=bars.fit,
            audit_progress=bars.count("audit"),
        )
    _print_summary(found, ["gender"], "identity", out / "report.html", show)


@command
def pack(
    show: Show,
    layout: Annotated[
        str,
        typer.Argument(
            metavar="LAYOUT", help="stylised, folder, lfw, celeba, ferg, pendigits, embeddings, vggface2 or msceleb."
        ),
    ],
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Folder or file; for stylised, identities=1000,images=6.")
    ],
    out: Annotated[Path, typer.Argument(metavar="PACK", help="Folder to make.")],
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    channels: Annotated[int, typer.Option(help="1 (grey) or 3 (RGB).")] = 1,
    labels: Annotated[Path | None, typer.Option(help="CSV or Parquet file of labels, or another pack.")] = None,
    crop: Annotated[
        str | None, typer.Option(help="Left,top,right,bottom as fractions of the image; the layout's own by default.")
    ] = None,
    landmarks: Annotated[
        Path | None,
        typer.Option(help="CSV file that says where eyes are; faces are then aligned by them, in place of a crop."),
    ] = None,
    fractions: Annotated[
        str, typer.Option(help="Shares of the splits protect,attack,calibrate,test.")
    ] = "0.45,0.20,0.10,0.25",
    by_identity: Annotated[
        bool,
        typer.Option("--disjoint/--no-disjoint", help="Keep the splits' people apart; not where identity is private."),
    ] = True,
    options: Annotated[list[str] | None, typer.Option("--set", help="The layout's own setting, NAME=VALUE.")] = None,
    seed: Seed = 0,
    jobs: Jobs = None,
    force: Force = False,
) -> None:
    """Decode a data set once into a pack: images or vectors, labels and splits in one folder."""
    from veil.data import build

    with show.progress() as bars:
        made = build.pack(
            layout,
            source,
            out,
            size=size,
            channels=channels,
            labels=labels,
            seed=seed,
            crop=None if crop is None else _floats("crop", crop),
            landmarks=landmarks,
            fractions=_floats("fractions", fractions),
            force=force,
            progress=bars.rows("pack"),
            disjoint=by_identity,
            jobs=jobs,
            settings=_settings(options),
        )
    meta = dict(made.meta)
    show.remarks(meta["warnings"])
    splits = ", ".join(f"{name} {n:,}" for name, n in meta["splits"].items())
    show.result(
        {
            "pack": str(out),
            **{k: meta[k] for k in ("layout", "kind", "shape", "splits", "skipped", "warnings", "notes")},
        },
        f"{out}: {len(made):,} {made.kind} ({splits}); {meta['skipped']} skipped",
        *(f"  note: {note}" for note in meta["notes"]),
    )


@command
def fit(
    show: Show,
    method: Annotated[
        str, typer.Argument(metavar="METHOD", help="aia, mi, inversion, san, substitution, template, leace or random.")
    ],
    source: Annotated[Path, typer.Argument(metavar="PACK", help="What `veil pack` made.")],
    out: Annotated[Path, typer.Argument(metavar="RELEASE", help="Folder to make.")],
    private: Private = None,
    utility: Annotated[
        str,
        typer.Option(
            help="identity (1-to-1 matching), or a label to keep; inversion takes more with --set labels=A,B. aia, "
            "substitution and inversion need a label where the pack does not say who is seen."
        ),
    ] = "identity",
    preset: Annotated[
        str | None,
        typer.Option(
            help="For aia: paper, original, without-task, deep, deep-original; for mi: default, paper; for "
            "inversion: default, adversarial, unprotected, paper; for san: default, hardened, paper; for "
            "substitution: default, unguided, handwriting; for template: default, erased, aligned, noise."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting of the preset, NAME=VALUE.")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=LIMIT: choose the noise so that the worst attack's balanced accuracy on "
            "held-out people stays at or below the limit.",
        ),
    ] = None,
    frontier: Annotated[
        bool | None,
        typer.Option(
            help="Measure what each noise hides and keeps; by default for template's presets default and erased."
        ),
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Release that a baseline works on; the input itself if none.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="Key file of 32 bytes for keyed noise; RELEASE.key if it is there, else a fresh one."),
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints; one a minute by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted fit of the same settings.")] = False,
    keep_decoder: Annotated[
        bool, typer.Option("--keep-decoder", help="Ship the decoder, which redraws inputs.")
    ] = False,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Train a protector on a pack and save its release. Beside it go its secret key, if any (RELEASE.key), and hashes
    of the rows and people that it was fitted on, for audits (RELEASE.fitted)."""
    from veil import pipeline
    from veil.data.columns import nfc
    from veil.data.pack import Pack
    from veil.engine.run import is_main_process, kept_memory
    from veil.frontier import parse_budget
    from veil.release import Release, check_key, check_target, fitted_path, key_path, named, read_key_file

    out = named(out)
    _sweep(out, key_path(out), fitted_path(out))
    losses, checkpoint = (out.with_name(f"{out.name}.{what}") for what in ("curves.parquet", "checkpoint"))
    _sweep(losses, checkpoint)
    # What stands there is of this fit, perhaps, which was killed while it saved its release.
    standing = resume and not force and (out / "release.json").exists()
    if not (force or resume):
        _check_checkpoint(method, checkpoint)
    check_target(out, force or resume)
    if losses.exists() and not (force or resume):
        raise InputError(
            f"{losses}: training losses of another fit stand where this one's will; move them away, choose another "
            "name for the release, or replace them by --force"
        )
    private, utility = [nfc(name) for name in private or []], nfc(utility)
    # A key that is there stays in use: releases made with another one would no longer match those already out.
    kept = key if key is not None or not key_path(out).exists() else key_path(out)
    secret = read_key_file(kept) if kept is not None else None
    if secret is not None and not force:
        check_key(out, secret)
    chosen, limits = _settings(settings), dict(parse_budget(text) for text in budget or [])
    silent = False  # whether a frontier that is due is left out, as there is nothing to measure
    if frontier is None:
        due = method == "template" and preset in (None, "default", "erased")
        silent = due and not limits and not pipeline.has_noise(method, preset, chosen)
        frontier = due and not silent
    options: dict[str, Any] = {
        "private": private,
        "utility": utility,
        "preset": preset,
        "settings": chosen,
        "seed": seed,
        "base": None if base is None else Release.load(base),
        "key": secret,
        "precision": precision,
        "checkpoint": checkpoint,
        "every": checkpoint_every,
        "resume": resume,
    }
    pack = Pack.open(source)
    asked = pipeline.asked(
        method, pack, budget=limits, frontier=frontier, decoder=keep_decoder,
        **{n: options[n] for n in ("private", "utility", "preset", "settings", "seed", "base", "precision")},
    )  # fmt: skip
    release = Release.load(out) if standing else None
    if release is not None and release.made.get("asked") != asked:
        raise InputError(f"{out}: already exists, and is of another fit; choose another name or force")
    if release is not None and not checkpoint.exists():  # which goes last
        if is_main_process():
            _show_fit(show, release, out, losses, silent=silent, key=key)
        return
    with show.progress() as bars, kept_memory():
        options["progress"] = bars.fit(method)
        if limits or frontier:
            release, curves = pipeline.fit_measured(
                method, pack, budget=limits, measured=bars.count("frontier"), **options
            )
        else:
            release, curves = pipeline.fit(method, pack, **options)
    if not is_main_process():  # of several, which all have the release, one writes it
        return
    release = replace(release, made={**release.made, "asked": asked})
    release.save(out, force=force or resume, with_decoder=keep_decoder)
    if curves:
        pipeline.write_curves(losses, curves)
    else:
        losses.unlink(missing_ok=True)  # those of a release that this one replaces
    checkpoint.unlink(missing_ok=True)
    _show_fit(show, release, out, losses, silent=silent, key=key)


def _show_fit(show: Show, release: Any, out: Path, losses: Path, *, silent: bool, key: Path | None) -> None:
    from veil.release import fitted_path, key_path

    written = {"release": str(out)}
    if fitted_path(out).exists():
        written["fitted"] = str(fitted_path(out))
    if losses.exists():
        written["curves"] = str(losses)
    lines = [f"{out}: {release.method} release of {release.contract.k} values"]
    lines += ["  no frontier, as there is no noise to measure"] * silent
    lines += [_frontier_line(point) for point in release.made.get("frontier", [])]
    if "fitted" in written:
        lines.append(f"{written['fitted']}: hashes of what it was fitted on, for audits; keep it from strangers")
    if release.key is not None:
        written["key"] = str(key_path(out))
        lines.append(f"{written['key']}: its secret key; keep it apart from the release")
    elif key is not None:
        lines.append(f"  {key}: not used, as the release draws nothing")
    doubts = list(release.made.get("warnings", ()))
    show.remarks(doubts)
    show.result({**written, "warnings": doubts}, *lines)


@command
def apply(
    show: Show,
    release: Annotated[Path, typer.Argument(metavar="RELEASE", help="What `veil fit` made.")],
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="Folder of images, pack, or Parquet, npz, npy or CSV file of vectors."),
    ],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="NAME.parquet, NAME.npz, NAME.npy, or a folder for a pack or --images."),
    ],
    key: Key = None,
    column: Annotated[
        str | None,
        typer.Option(
            help="Column or array of vectors, where the file has several; of v0, v1, ... it is v; or several, A,B,C."
        ),
    ] = None,
    told: Annotated[
        list[str] | None,
        typer.Option(
            help="Private label whose class a column of that name, or the pack, tells, so that it is not guessed."
        ),
    ] = None,
    row_numbers: Annotated[
        bool, typer.Option("--row-numbers", help="Name rows by number: the source's names may say who they are.")
    ] = False,
    landmarks: Annotated[
        Path | None,
        typer.Option(help="CSV file that says where eyes are in a folder's images, if the release needs them aligned."),
    ] = None,
    hide: Annotated[
        Path | None,
        typer.Option(help="CSV file that says what to hide in which images, if the release lets you choose."),
    ] = None,
    images: Annotated[
        bool,
        typer.Option("--images", help="Write image files, in SOURCE's tree, formats and sizes, without metadata."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a killed run of the same release and source.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 if a row could not be read.")] = False,
    force: Force = False,
) -> None:
    """Release every row of a source, in its order; rows that cannot be read are listed in OUT.skipped.csv."""
    from veil.apply import apply as run_apply
    from veil.data.columns import nfc
    from veil.release import Release

    told_of: dict[str, list[str]] = {"warning": [], "note": []}
    with show.progress() as bars:
        n, skipped = run_apply(
            Release.load(release, key=key),
            source,
            out,
            column=column,
            told=[nfc(name) for name in told or []],
            row_numbers=row_numbers,
            landmarks=landmarks,
            hide=hide,
            images=images,
            resume=resume,
            force=force,
            progress=bars.rows("apply"),
            remark=lambda kind, sentence: told_of[kind].append(sentence),
        )
    show.remarks(told_of["warning"])
    show.result(
        {"out": str(out), "rows": n, "skipped": skipped, "warnings": told_of["warning"], "notes": told_of["note"]},
        f"{out}: {n:,} {'images' if images else 'rows'}"
        + (f"; {skipped:,} skipped, listed in {out}.skipped.csv" if skipped else ""),
        *(f"  note: {note}" for note in told_of["note"]),
    )
    if strict and skipped:
        raise InputError(f"{source}: {skipped} rows could not be read, and --strict was asked for")


@command
def audit(
    show: Show,
    *,
    source: Annotated[
        Path | None,
        typer.Argument(metavar="PACK", help="What `veil pack` made, or a file of unprotected vectors with labels."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            help="Folder for findings.json, pictures, curves, in place of an earlier audit's; audit by default.",
        ),
    ] = None,
    private: Private = None,
    utility: Annotated[
        list[str] | None,
        typer.Option(
            help="identity, or a label; repeat for several. By default identity, where the pack says who is seen."
        ),
    ] = None,
    release: Annotated[
        list[str] | None, typer.Option("--release", help="Release folder, or NAME=FOLDER; repeat for several.")
    ] = None,
    vectors: Annotated[
        list[str] | None,
        typer.Option(
            "--vectors",
            help="Parquet, npz, npy or CSV file of anybody's releases of the pack's rows, or NAME=FILE. Without a PACK "
            "the first one brings the labels.",
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE: the key of a release, where it is not RELEASE.key; repeat for several."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV or Parquet file, or pack, with the labels of a file of vectors.")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="OUT, where no PACK stands before it.")] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="Control on the unprotected input: leace (by default), random, or none; repeat for both."),
    ] = None,
    effort: Annotated[str, typer.Option(help="quick, standard or strong.")] = "standard",
    attack_on: Annotated[
        str | None,
        typer.Option(
            help="Splits that attackers train on: attack (by default of a pack), or protect,attack (of files)."
        ),
    ] = None,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Coverage of the intervals.")] = 0.95,
    invert: Annotated[
        bool, typer.Option("--inversion", help="Also redraw the originals from releases with fresh decoders.")
    ] = False,
    matcher: Annotated[
        Path | None,
        typer.Option(
            help="ONNX face matcher: it judges redrawn faces in place of one trained on the attackers' splits, and "
            "compares releases that are images, beside one."
        ),
    ] = None,
    classifier: Annotated[
        list[str] | None,
        typer.Option(
            help="LABEL=FILE.onnx: a classifier of a private label that releases that are images are shown to; it "
            "gives a logit for each of the label's classes, in their order in pack.json; repeat for several."
        ),
    ] = None,
    perceptual: Annotated[
        Path | None, typer.Option(help="File of torchvision's VGG-16 weights, for perceptual distances.")
    ] = None,
    names: Annotated[
        bool,
        typer.Option(
            "--names",
            help="Leave names of rows and files, and paths, in the notes and the command that findings.json and the "
            "report hold; without it they hold none, but what releases and ONNX files are called.",
        ),
    ] = False,
    seed: Seed = 0,
    jobs: Jobs = None,
) -> None:
    """Attack releases with fresh attackers, measure what use is left, and write findings.json.

    Exit status 4: done, but for attempts that broke off; findings.json and a line on stderr say which, and why.
    """
    from veil import pipeline
    from veil.apply import framing_doubt
    from veil.audit.inversion import Options
    from veil.data.columns import nfc
    from veil.data.vectors import SUFFIXES
    from veil.engine.run import kept_memory
    from veil.release import Release

    private, utility = ([nfc(name) for name in each or []] for each in (private, utility))
    if not private and not utility and not invert:
        raise InputError(
            "audit: name what to attack (--private LABEL, --inversion) or what to measure (--utility identity, or a "
            "label), got nothing"
        )
    others = [_named(text, SUFFIXES) for text in vectors or []]
    if source is None and not others:
        raise InputError("audit: needs a PACK, or a file of vectors with labels (--vectors), got neither")
    if source is None and (release or baseline):
        raise InputError("audit: releases and baselines are made of unprotected data, so a PACK must be named")
    if invert and source is None:
        raise InputError("audit: --inversion redraws unprotected originals, so a PACK that holds them must be named")
    if not invert and perceptual:
        raise InputError("audit: --perceptual is for --inversion, which was not asked for")
    classifiers = _classifiers(classifier, private)
    releases = [_named(text) for text in release or []]
    keys = dict(_pairs("--key", "NAME=FILE", key, [name for name, _ in releases]))
    if strange := [name for name in keys if name not in dict(releases)]:
        known = ", ".join(dict(releases)) or "there is none"
        raise InputError(f"--key: must name a release ({known}), got {strange[0]!r}")
    if out is not None and folder is not None:
        raise InputError(f"OUT: must be named once, got {out} and --out {folder}")
    out = out or folder or Path("audit")
    data = source or others[0][1]
    attackers = attack_on or ("protect,attack" if data.is_file() else "attack")
    with pipeline.opened(data, labels=labels, private=private, seed=seed) as pack:
        doubts: list[str] = []
        if data.is_file():
            doubts += pack.meta["warnings"]
            show.remarks(doubts, pack.meta["notes"])
            if pack.meta["skipped"] and not show.quiet:
                _say(f"{data}: {pack.meta['skipped']} rows cannot be used and are left out", sys.stderr)
        entries = []
        for name, path in releases:
            curves = pipeline.read_curves(path.with_name(path.name + ".curves.parquet"))
            loaded = Release.load(path, key=keys.get(name))
            doubt = framing_doubt(loaded, name, pack)
            show.remarks([doubt] if doubt else [])
            doubts += [doubt] if doubt else []
            entries.append(pipeline.Entry(name=name, release=loaded, curves=curves, note=doubt))
        entries += [_outside(name, path, pack) for name, path in others]
        uses = utility or [use for use in pack.known_use("identity") if use not in private]
        if not show.quiet and not pack.knows_people:
            least = "" if uses else ", and no use is measured, for --utility names none"
            _say(f"{data}: does not say who is seen: each row counts as a person{least}", sys.stderr)
        with show.progress() as bars, kept_memory():
            found = pipeline.audit_pack(
                pack,
                out,
                entries,
                private=private,
                utility=uses,
                baselines=_baselines(baseline) if source is not None else [],
                seed=seed,
                effort=effort,
                jobs=jobs,
                attack_on=[part.strip() for part in attackers.split(",")],
                level=level,
                with_input=source is not None,
                invert=Options(perceptual=perceptual) if invert else None,
                matcher=matcher,
                classifiers=classifiers,
                command=_command() if names else show.command(),
                names=names,
                released=bars.count("release"),
                progress=bars.count("audit"),
            )
    use = uses[0] if uses else ""
    _print_summary(found, list(dict.fromkeys(private)), use, out / "findings.json", show, doubts)


@command
def report(
    show: Show,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder with findings.json; its report.html is replaced.")],
) -> None:
    """Write report.html, one self-contained page, from findings.json and what lies beside it."""
    from veil.report import html

    path = html.write(out)
    show.result({"report": str(path)}, str(path))


@command
def export(
    show: Show,
    release: Annotated[Path, typer.Argument(metavar="RELEASE", help="What `veil fit` made.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="NAME.onnx.")],
    force: Force = False,
) -> None:
    """Write a release's encoder as ONNX (extra 'onnx'); keyed noise becomes its second input."""
    from veil.release import Release

    path = Release.load(release).export_onnx(out, force=force)
    show.result({"onnx": str(path)}, str(path))


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
        _fail(f"{error.format_message()} (see `{_asked()} --help`)", 2)  # type: ignore[attr-defined]
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
        if _stopped:  # torch, for one, wraps what stops it
            _fail("interrupted", 130)
        _internal(error)
    if status == 130:  # typer's word for an interruption, in some of its versions
        _fail("interrupted", 130)
    sys.exit(status if isinstance(status, int) else 0)


# typer raises click's exceptions, its own copy of them in later versions.
_USAGE: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def _asked() -> str:
    """The command that was asked for, as far as there is one of that name."""
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    return " ".join(["veil", *(word for word in sys.argv[1:2] if word in known)])


_stopped: list[int] = []
"""Signals that asked the process to stop."""


def _terminated(number: int, frame: object) -> NoReturn:
    _stopped.append(number)
    raise KeyboardInterrupt  # so that half-written files are removed


def _internal(error: Exception) -> NoReturn:
    _fail(f"internal error, please report it: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}", 1)


def _fail(message: str, status: int) -> NoReturn:
    _say(f"veil: {' '.join(message.split())}", sys.stderr)
    sys.exit(status)


def _sweep(*targets: Path) -> None:
    """Removes what runs left of targets that were killed while they wrote them."""
    from veil import files

    for target in targets:
        files.sweep(target)


def _check_checkpoint(method: str, checkpoint: Path) -> None:
    """Raises InputError where what an earlier fit left would be replaced; it says whose it is."""
    from veil.engine.run import left_by

    if not checkpoint.exists():
        return
    whose = left_by(checkpoint)
    if not whose:
        raise InputError(f"{checkpoint}: is no checkpoint, but stands where one will; move it away, or --force")
    way = "go on with the same command and --resume" if whose.startswith(f"{method} ") else f"{method} would replace it"
    raise InputError(
        f"{checkpoint}: an interrupted fit of {whose} left it; {way}, choose another name for the release, or start "
        "anew by --force"
    )


def _frontier_line(point: Mapping[str, Any]) -> str:
    attacks = ", ".join(
        f"{n} {a['value']:.3f}{' AUC' * a['code'].endswith('auc')} (to {a['high']:.3f})"
        for n, a in point["attacks"].items()
    )
    left = f"; left {point['utility']['value']:.4f}" if point["utility"] else ""
    return f"  noise {point['noise']:g}: worst attack on {attacks}{left}"


# -- reading arguments ------------------------------------------------------------------------------------------------


def _command() -> str:
    return shlex.join(["veil", *sys.argv[1:]])


_WORDS = frozenset({"private", "utility", "baseline", "effort", "attack_on"})
"""Parameters whose texts are names of labels, or words of Veil; any other's text may be a path."""


def _without_paths(command: str, parameters: Sequence[inspect.Parameter], arguments: Mapping[str, Any]) -> str:
    """The command that was asked for, as far as it is not the default, with words such as PACK in place of paths."""
    from veil.data.vectors import SUFFIXES

    words = ["veil", command]
    for parameter in parameters:
        name, value = parameter.name, arguments.get(parameter.name)
        if value in (parameter.default, None, []):
            continue
        info = next(part for part in get_args(parameter.annotation) if hasattr(part, "param_decls"))
        declared = [text for text in info.param_decls or () if text.startswith("--")]
        option = [] if info.metavar else declared[:1] or [f"--{name.replace('_', '-')}"]
        for each in value if isinstance(value, list) else [value]:
            shown = str(each)
            if name not in _WORDS and isinstance(each, str | Path):
                shown = info.metavar or option[0].strip("-").upper()
                if name in ("release", "vectors"):
                    shown = f"{_named(str(each), SUFFIXES if name == 'vectors' else ())[0]}={shown}"
                elif isinstance(each, str) and "=" in each:
                    shown = f"{each.partition('=')[0]}={shown}"
            words += option if each is True else [*option, shown]
    return shlex.join(words)


def _floats(name: str, text: str) -> tuple[float, float, float, float]:
    try:
        a, b, c, d = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{name}: must be four numbers separated by commas, got {text!r}") from None
    return a, b, c, d


def _settings(pairs: list[str] | None) -> dict[str, str]:
    out = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--set: must be NAME=VALUE, got {pair!r}")
        out[name.strip()] = value.strip()
    return out


def _classifiers(pairs: list[str] | None, labels: Sequence[str]) -> dict[str, list[Path]]:
    """From LABEL=FILE to each label's files."""
    out: dict[str, list[Path]] = {}
    for label, path in _pairs("--classifier", "LABEL=FILE", pairs, labels):
        out.setdefault(label, []).append(path)
    return out


def _pairs(option: str, form: str, texts: list[str] | None, names: Sequence[str]) -> list[tuple[str, Path]]:
    """NAME=PATH, both of which may hold a ``=``: read so that one of the ``names`` stands before it, if that can be."""
    found = []
    for text in texts or []:
        halves = _halves(text)
        if not halves:
            raise InputError(f"{option}: must be {form}, got {text!r}")
        name, path = next((half for half in halves if half[0] in names), halves[0])
        found.append((name, Path(path)))
    return found


def _named(text: str, suffixes: Sequence[str] = ()) -> tuple[str, Path]:
    """NAME=PATH, or a path that names itself by its last part, without a suffix of a file of vectors.

    Both may hold a ``=``: read so that the path exists, if that can be.
    """
    from veil.release import named

    if "=" not in text or Path(text).exists():
        path = named(text)
        return path.stem if path.suffix.lower() in suffixes else path.name, path
    halves = _halves(text)
    if not halves:
        raise InputError(f"release: must be NAME=PATH or a path, got {text!r}")
    name, there = next((half for half in halves if Path(half[1]).exists()), halves[0])
    return name, named(there)


def _halves(text: str) -> list[tuple[str, str]]:
    """What may stand before a ``=`` and what behind it; the shortest name first."""
    halves = [(text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == "="]
    return [(name, value) for name, value in halves if name and value]


def _baselines(names: list[str] | None) -> list[str] | None:
    """The controls that were asked for; None where nothing was."""
    return None if not names else [name for name in names if name != "none"]


def _outside(name: str, path: Path, pack: Any) -> Entry:
    """Vectors that somebody else made, joined to the pack's rows by source name, or row by row."""
    from veil.apply import read_vectors
    from veil.data.vectors import open_vectors
    from veil.pipeline import Entry

    note = open_vectors(path).note
    return Entry(name=name, vectors=read_vectors(path, pack), note=f"vectors from {path.name!r}. {note}".strip(". "))


# -- showing progress and results -------------------------------------------------------------------------------------


class _Progress:
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


class _Bars(_Progress):
    """Bars on a terminal, one for each thing that is done."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._tasks: dict[str, Any] = {}

    def show(self, name: str, done: int, total: int | None, text: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._display.add_task(printable(name), total=total, text="")
        self._display.update(self._tasks[name], completed=done, total=total, text=printable(text))


class _Lines(_Progress):
    """A line on stderr now and then, where nobody watches a terminal: in a log, say.

    The first comes after 5 seconds. Then no two come within 10; one does where something else has begun, a tenth of it
    is done, or 30 seconds are over. They come as work is done: a long piece of it is silent.
    """

    FIRST, LEAST, MOST, SHARE = 5.0, 10.0, 30.0, 0.1

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = clock() + self.FIRST
        self._said: tuple[str, float, int] = ("", -math.inf, 0)  # of what, when, how many of it
        self._begun: tuple[str, float, int] = ("", 0.0, 0)

    def show(self, name: str, done: int, total: int | None, text: str) -> None:
        now = self._clock()
        if name != self._begun[0]:
            self._begun = (name, now, done)
        what, when, many = self._said
        news = name != what or (total is not None and done - many >= self.SHARE * total) or now - when >= self.MOST
        if now < self._due or not news:
            return
        self._due, self._said = now + self.LEAST, (name, now, done)
        words = f"{name}: {done:,}" + (f" of {total:,} ({100 * done // max(total, 1)} %)" if total is not None else "")
        _, since, first = self._begun
        if total is not None and done > first:
            left = (now - since) * (total - done) / (done - first)
            words += f", about {_duration(left)} left"
        with suppress(OSError):  # nobody reads any more: no reason to stop
            _say(f"{words}; {text}" if text else words, sys.stderr)
            sys.stderr.flush()


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds: ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def _progress(quiet: bool) -> Iterator[_Progress]:
    if quiet:
        yield _Progress()
        return
    if not sys.stderr.isatty():
        yield _Lines()
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
    with Display(*columns, console=Console(stderr=True)) as display:
        yield _Bars(display)


def _print_summary(
    found: Any, private: list[str], utility: str, path: Path, show: Show, doubts: Sequence[str] = ()
) -> None:
    """The end of an audit: its table, or its JSON, and the exit status where attempts broke off."""
    from veil.audit.leakage import CODE, OUTSIDE
    from veil.pipeline import redrawn, summary

    training = {f.release: f for f in found if f.code == CODE}
    rows = {name: summary(found, name, utility) for name in private or [""]}  # without an attack, of the use alone
    pictures = redrawn(found)
    lost = [finding for finding in found if finding.status == "did_not_converge"]
    if show.as_json:
        from dataclasses import asdict

        inversion = {name: {code: asdict(f) for code, f in each.items()} for name, each in pictures.items()}
        show.result(
            {
                "out": str(path),
                "rows": [{"private": n or None, **asdict(row)} for n, each in rows.items() for row in each],
                "training": {name: {"seen": f.value, "note": f.note} for name, f in training.items()},
                **({"inversion": inversion} if pictures else {}),
                "broke_off": [asdict(finding) for finding in lost],
                "warnings": list(doubts),
            }
        )
    else:
        for name, f in training.items():
            if f.value:
                _say(f"{name}: CONTROL FAILED: {f.note}; its figures mean nothing")
            elif f.status != "ok" and f.note != OUTSIDE:
                _say(f"{name}: {f.note}")
        for name in private:
            _print_attacks(name, rows[name], _use(utility))
        if utility and not private:
            _print_uses(rows[""], _use(utility))
        if pictures:
            _print_pictures(pictures)
        _say(str(path))
    if lost:
        from veil.data.pack import few

        means = {"attribute.pooled": ", means of a person's", "attribute.repeated": ", means of near-duplicates"}
        of = [next((words for code, words in means.items() if f.code.startswith(code)), "") for f in lost]
        who = [f"{f.release}: {f.attacker} on {f.target}{o} ({f.note})" for f, o in zip(lost, of, strict=True)]
        count = f"{len(lost)} attempt{'s' * (len(lost) > 1)} broke off"
        message = f"veil: {count}, and what would have been found is not known: {few(who)}"
        _say(" ".join(message.split()), sys.stderr)
        raise typer.Exit(BROKE_OFF)


def _use(utility: str) -> str:
    """What is measured of a use, as tables call it; "" where none is."""
    return {"": "", "identity": "matching AUC"}.get(utility, f"{utility} balanced accuracy")


def _print_attacks(private: str, rows: Any, use: str) -> None:
    """The worst attacks on a label and the use that is left, a line for each release."""
    from rich.table import Table

    shown = any(row.transfer is not None for row in rows)
    known = [f for row in rows for f in (row.attack, row.utility) if f is not None]
    level = f"{known[0].level:.3g}" if known else "0.95"
    table = Table(
        title=printable(f"Worst tested attack on {private} (balanced accuracy)")
        + printable(f" and {use} that is left" if use else "")
        + f"; {level} intervals"
        + ("; beside it, what is read by who knows only originals" if shown else "")
    )
    columns = ["release", f"{private} attack", "interval", "attacker"]
    columns += ["from originals", "by"] * shown + [use, "interval", "by"] * bool(use)
    for heading in columns:
        justify: Literal["left", "right"] = "left" if heading in ("release", "attacker", "by") else "right"
        table.add_column(printable(heading), justify=justify)
    for row in rows:
        cells = [row.name, *_cells(row.attack, 3)]
        cells += _cells(row.transfer, 2) if shown else []
        table.add_row(*map(printable, [*cells, *(_cells(row.utility, 3) if use else [])]))
    _print_table(table, 120 + 30 * shown)


def _cells(finding: Any, count: int) -> list[str]:
    """A figure, where there is room for three its interval, and by whom."""
    if finding is None or finding.value is None:
        return ["-"] * count
    name = "AUC " * (finding.code.endswith("auc") and not finding.code.startswith("verification"))
    between = [f"{finding.low:.3f} - {finding.high:.3f}"] * (count == 3)
    return [f"{name}{finding.value:.3f}", *between, finding.attacker]


def _print_uses(rows: Any, use: str) -> None:
    """The use that is left, a line for each release, where nothing was attacked."""
    from rich.table import Table

    shown = [(row.name, row.utility) for row in rows if row.utility is not None and row.utility.value is not None]
    table = Table(
        title=printable(f"Use that is left: {use}") + (f"; {shown[0][1].level:.3g} intervals" if shown else "")
    )
    for heading in ("release", printable(use), "interval", "by"):
        table.add_column(heading, justify="left" if heading in ("release", "by") else "right")
    for name, finding in shown:
        table.add_row(*map(printable, [name, *_cells(finding, 3)]))
    _print_table(table)


def _print_pictures(pictures: Any) -> None:
    """The worst attack by inversion, a line for each release."""
    from rich.table import Table

    table = Table(title="Worst tested attack by inversion, and in brackets what is got without releases")
    codes = list(dict.fromkeys(code for each in pictures.values() for code in each))
    for heading in ("release", "decoder", *(code.removeprefix("inversion.").replace("_", " ") for code in codes)):
        table.add_column(heading, justify="left" if heading in ("release", "decoder") else "right")
    for name, each in pictures.items():
        decoder = next(f.attacker for f in each.values())
        shown = [each.get(code) for code in codes]
        figures = ["-" if f is None else f"{f.value:.3f} ({f.chance:.3f})" for f in shown]
        table.add_row(*map(printable, [name, decoder, *figures]))
    _print_table(table)


def _print_table(table: Table, width: int = 120) -> None:
    """Prints a table as wide as the terminal, or so many columns; names are no mark-up and no emoji."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else width, markup=False, emoji=False).print(table)
