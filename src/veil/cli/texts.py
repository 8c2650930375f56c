"""What the words of a command mean: settings, labels, names of releases; and how a page repeats a command."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from veil.errors import InputError

if TYPE_CHECKING:
    from veil.workflows.named import NamedPath

# -- methods and presets, for the help of `fit` -----------------------------------------------------------------------


def four_floats(name: str, text: str) -> tuple[float, float, float, float]:
    try:
        a, b, c, d = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{name}: must be four numbers separated by commas, got {text!r}") from None
    return a, b, c, d


def settings(texts: Sequence[str] | None) -> dict[str, str]:
    """From NAME=VALUE to values by name."""
    values = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set: must be NAME=VALUE, got {text!r}")
        values[name.strip()] = value.strip()
    return values


def declared(option: str, text: str | None) -> dict[str, str]:
    """What is declared of networks of ONNX files: NAME=VALUE, separated by commas."""
    values: dict[str, str] = {}
    for part in filter(None, (text or "").split(",")):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or name.strip() in values:
            raise InputError(f"{option}: must be NAME=VALUE,... with each name once, got {text!r}")
        values[name.strip()] = value
    return values


def labels(names: Sequence[str] | None) -> list[str]:
    """Names of labels, as packs write them."""
    from veil.data.columns import nfc

    return [nfc(name) for name in names or []]


def names_note(out: Path, images: bool, row_numbers: bool) -> str:
    """What should be known of the names in what `apply` made; "" where there are none, or it is a pack, to be kept."""
    if row_numbers or out.suffix == ".npy" or not (images or out.suffix):
        return ""
    what = f"Rows keep the names that they had, in {'column' if out.suffix == '.parquet' else 'array'} source"
    if images and out.suffix != ".parquet":
        what = "Files keep the names that they had"
    return f"{what}; --row-numbers leaves them out."


def classifiers(texts: Sequence[str] | None, private: Sequence[str]) -> dict[str, list[Path]]:
    """From LABEL=FILE to each label's files."""
    files: dict[str, list[Path]] = {}
    for label, path in named_files("--classifier", "LABEL=FILE", texts, private):
        files.setdefault(label, []).append(path)
    return {label: list(dict.fromkeys(paths)) for label, paths in files.items()}


def named_vectors(texts: Sequence[str] | None) -> list[NamedPath]:
    """Files of vectors, each with its name."""
    from veil.data.vectors import SUFFIXES
    from veil.workflows.named import NamedPath

    pairs = list(dict.fromkeys(named_path(text, SUFFIXES) for text in texts or []))
    return [NamedPath(name=name, path=path) for name, path in pairs]


def named_releases(texts: Sequence[str] | None, keys: Sequence[str] | None) -> list[NamedPath]:
    """Releases, each with its name and, where one of NAME=FILE gives it, its key; refuses keys of none of them."""
    from veil.workflows.named import NamedPath

    pairs = list(dict.fromkeys(named_path(text) for text in texts or []))
    names = list(dict(pairs))
    files = dict(named_files("--key", "NAME=FILE", keys, names))
    if strange := [name for name in files if name not in names]:
        raise InputError(f"--key: must name a release ({', '.join(names) or 'there is none'}), got {strange[0]!r}")
    return [NamedPath(name=name, path=path, key=files.get(name)) for name, path in pairs]


def named_files(option: str, form: str, texts: Sequence[str] | None, names: Sequence[str]) -> list[tuple[str, Path]]:
    """NAME=PATH, both of which may hold a ``=``: read so that one of the ``names`` stands before it, if that can be."""
    files = []
    for text in texts or []:
        halves = _halves(text)
        if not halves:
            raise InputError(f"{option}: must be {form}, got {text!r}")
        name, path = next((half for half in halves if half[0] in names), halves[0])
        files.append((name, Path(path)))
    return files


def named_path(text: str, suffixes: Sequence[str] = ()) -> tuple[str, Path]:
    """NAME=PATH, or a path that names itself by its last part, without a suffix of a file of vectors.

    Both may hold a ``=``: read so that the path exists, if that can be.
    """
    from veil.release.beside import named

    if "=" not in text or Path(text).exists():
        path = named(text)
        return path.stem if path.suffix.lower() in suffixes else path.name, path
    halves = _halves(text)
    if not halves:
        raise InputError(f"release: must be NAME=PATH or a path, got {text!r}")
    name, value = next((half for half in halves if Path(half[1]).exists()), halves[0])
    return name, named(value)


def _halves(text: str) -> list[tuple[str, str]]:
    """What may stand before a ``=`` and what behind it; the shortest name first."""
    halves = [(text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == "="]
    return [(name, value) for name, value in halves if name and value]


def baselines(names: Sequence[str] | None) -> list[str] | None:
    """The controls that were asked for; None where nothing was."""
    if names and "none" in names and set(names) != {"none"}:
        raise InputError(f"baseline: none stands alone, got {', '.join(names)}")
    return None if not names else [name for name in names if name != "none"]


# -- the command itself -----------------------------------------------------------------------------------------------


def whole_command() -> str:
    """The command as it was typed, but for ``--resume``: what comes out is the same with it."""
    return shlex.join(["veil", *(word for word in sys.argv[1:] if word != "--resume")])


_NO_PATH = re.compile(r"[\w.-]+=[\w.+-]*")
_WORDS = frozenset(
    {
        "private", "utility", "baseline", "effort", "attack_on", "matcher_settings", "classifier_settings", "hide",
        "keep", "form", "budget",
    }
)  # fmt: skip
"""Parameters whose texts are names of labels, or words of Veil; any other's text may be a path."""


def command_without_paths(command: str, parameters: Sequence[inspect.Parameter], arguments: Mapping[str, Any]) -> str:
    """The command that was asked for, as far as it is not the default, with words such as PACK in place of paths."""
    from veil.data.vectors import SUFFIXES

    words = ["veil", command]
    for parameter in parameters:
        name, value = parameter.name, arguments.get(parameter.name)
        if value in (parameter.default, None, []) or name == "resume":  # with it the same comes out
            continue
        info = next(part for part in get_args(parameter.annotation) if hasattr(part, "param_decls"))
        texts = (info.default, *(info.param_decls or ()))  # of Annotated options the first name is taken for a default
        declared = [text for text in texts if isinstance(text, str) and text.startswith("--")]
        option = [] if info.metavar else declared[:1] or [f"--{name.replace('_', '-')}"]
        for each in value if isinstance(value, list) else [value]:
            word = str(each)
            number = name == "settings" and re.fullmatch(r"[\w.-]+=[\w.+-]*", word)
            if (
                name not in _WORDS
                and not number
                and isinstance(each, str | Path)
                and (name, each) != ("matcher", "dlib")
            ):
                word = info.metavar or option[0].strip("-").upper()
                if name in ("release", "vectors", "scores"):
                    word = f"{named_path(str(each), SUFFIXES if name != 'release' else ())[0]}={word}"
                elif isinstance(each, str) and "=" in each:
                    word = f"{each.partition('=')[0]}={word}"
            words += option if each is True else [*option, word]
    return shlex.join(words)
