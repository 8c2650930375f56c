"""What an apply releases, with what and where to: checked before anything is written, and the identity of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath

from safetensors.torch import save as to_bytes

from veil import files
from veil._version import __version__
from veil.data.faces import EyeFinder
from veil.data.landmarks import Landmarks
from veil.data.layouts.folder import is_table
from veil.data.layouts.listing import check_utf8, clean
from veil.data.pack import Pack
from veil.data.packfile import sha256
from veil.errors import InputError
from veil.release import Release
from veil.workflows.apply import parts
from veil.workflows.apply.choices import Choices, eyes_for, read_choices
from veil.workflows.apply.options import Options
from veil.workflows.apply.outputs import check_shards
from veil.workflows.apply.parts import Division, exposed_file, partial_folder, skipped_file
from veil.workflows.apply.photographs import open_photographs
from veil.workflows.apply.sources import Source, open_source

MOST_VALUES = 1 << 23
"""In a part, of which some are in memory at a time: rows of images have thousands each."""
SUFFIXES = ("", ".parquet", ".npz", ".npy")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is released, with what and where to.

    Attributes:
        release: With its key, if it is keyed.
        source: A pack, a folder of images, or a file of vectors.
        out: What will be made.
        options: How the source is read and released.
        resume: Go on with the run of the same plan that was killed.
        force: Replace what is there.
        pack: The pack, if the source is one.
        rows: The source's rows.
        eyes: Where eyes are in its images.
        choices: What is to be hidden in its images.
        same: Whether what stands where something will be written must be what this run gives, and stays.
    """

    release: Release
    source: Path
    out: Path
    options: Options
    resume: bool
    force: bool
    pack: Pack | None
    rows: Source
    eyes: Landmarks | EyeFinder | None
    choices: Choices | None
    same: bool

    @property
    def image_files(self) -> bool:
        """Whether image files are written, and not one file or pack."""
        return _are_files(self.options, self.out)

    @property
    def whole(self) -> bool:
        """Whether whole photographs are written, with every face in them released."""
        return _are_whole(self.options, self.out)

    @cached_property
    def targets(self) -> Mapping[str, tuple[str, str]]:
        """Of image files, by the path of each in the source: how lists name it, and its path in ``out``."""
        paths = [path for path, _ in self.rows.images]
        if not self.options.row_numbers:
            return {path: (clean(path), path) for path in paths}
        return {path: (str(i), f"{i:06d}{PurePath(path).suffix.lower()}") for i, path in enumerate(paths)}

    @property
    def readable(self) -> list[str]:
        """Paths in ``out`` of the image files that are to be made."""
        return [self.targets[path][1] for path in self.rows.readable]

    @property
    def division(self) -> Division:
        """How the source's rows are divided into parts.

        Of image files a part holds the sizes, and a few rows at most: little is made again after a run was killed.
        """
        if self.image_files:
            kind = "photographs" if self.whole else "images"
            return Division(rows=self.rows.count, k=1, each=self.options.rows_at_a_time(kind))
        k, batch = self.release.contract.k, self.options.rows_at_a_time(self.release.contract.kind)
        most = max(batch, MOST_VALUES // k // batch * batch)
        return Division(rows=self.rows.count, k=k, each=min(self.options.part, most))

    def run(self) -> dict[str, str]:
        """What the releases depend on: words for a message, each with its fingerprint."""
        options = self.options
        return {
            "source": self.rows.fingerprint,
            parts.TIMES: self.rows.times,
            "column of vectors": options.column or "",
            "choice of told labels": ", ".join(dict.fromkeys(options.told)),
            "file of landmarks": "" if self.eyes is None else self.eyes.digest,
            "choice of what to hide": "" if self.choices is None else sha256(self.choices.path),
            "release": _fingerprint(self.release),
            "kind of target": _kind_of_target(options, self.out),
            "way to name rows": "numbers" if options.row_numbers else "names",
            "version of Veil": f"{__version__}, {self.division.each} rows a part",
        }


def planned(release: Release, source: Path, out: Path, options: Options, *, resume: bool, force: bool) -> Plan:
    """The plan, after all is checked that can be before rows are read.

    What killed runs left half-written at the target is removed.

    Raises:
        InputError: Where source, release, target and options do not fit together, or something is in the way.
    """
    check_utf8(out)
    pack = Pack.open(source) if (source / "pack.json").exists() else None
    image_files = _are_files(options, out)
    if image_files and options.shard_rows is not None:
        raise InputError("shard rows: are of tables, and image files were asked for")
    if options.images and release.contract.image is None:
        raise InputError(
            f"images: the release must give images, got one that gives vectors of {release.contract.k} values"
        )
    if image_files:
        _check_images(source, out, pack)
    else:
        files.sweep(out)
        _check_target(source, out, pack, force or resume, options.shard_rows is not None)
        if skipped_file(out).exists() and not (force or resume):
            raise InputError(f"{skipped_file(out)}: already exists; choose another name or force")
    _check_told(release, source, pack, options.told)
    eyes = eyes_for(release, source, pack, options.landmarks, options.faces)
    choices = None if options.hide is None else read_choices(release, Path(options.hide))
    if _are_whole(options, out):
        rows = open_photographs(release, source, options)
    else:
        rows = open_source(release, source, pack, options, eyes, named=out.suffix != ".npy")
    if choices is not None:
        choices.check(pack.sources if pack is not None else [path for path, _ in rows.images])
    plan = Plan(
        release=release, source=source, out=out, options=options, resume=resume, force=force, pack=pack, rows=rows,
        eyes=eyes, choices=choices, same=resume and not force,
    )  # fmt: skip
    return replace(plan, same=_cleared(plan)) if image_files else plan


def _are_files(options: Options, out: Path) -> bool:
    return options.images and out.suffix != ".parquet"


def _are_whole(options: Options, out: Path) -> bool:
    return bool(_are_files(options, out) and options.faces)


def _cleared(plan: Plan) -> bool:
    """Refuses what is in the way of image files, and removes what killed runs left of them; whether they must be there.

    An unfinished run's files may stand there: whether it may go on is for its parts to say.
    """
    begun = (partial_folder(plan.out) / parts.RUN).exists()
    standing = any((plan.out / path).exists() for path in plan.readable)
    same = plan.resume and standing and not (plan.force or begun)  # of a run that is done, perhaps
    _check_files(plan.out, plan.readable, replace=plan.force or begun or same)
    for folder in {(plan.out / path).parent for path in plan.readable}:
        files.sweep_folder(folder)
    return same


def _check_target(source: Path, out: Path, pack: Pack | None, force: bool, shards: bool) -> None:
    if not out.name or out.name == "..":
        raise InputError(f"{out}: not a name for a file or folder")
    files.check_place(out)
    if out.suffix not in SUFFIXES:
        raise InputError(f"{out}: must end in .parquet, .npz or .npy, or have no suffix for a pack, got {out.suffix!r}")
    if not source.exists():
        raise InputError(f"{source}: does not exist")
    if out.exists() and not force:
        raise InputError(f"{out}: already exists; choose another name or force")
    if shards and out.suffix != ".parquet":
        raise InputError(f"{out}: must end in .parquet, as files of so many rows were asked for")
    if shards:
        check_shards(out)
    elif out.is_dir() and out.suffix:
        raise InputError(f"{out}: is a folder; name a file that ends in {out.suffix}, or a folder without a suffix")
    if out.resolve() == source.resolve():
        raise InputError(f"{out}: is the source itself; choose another name")
    if pack is None and source.is_dir() and out.resolve().is_relative_to(source.resolve()) and is_table(source):
        raise InputError(f"{out}: lies in {source}, whose files are one table, and would be one of them; move it out")
    if not out.suffix and pack is None:
        raise InputError(
            f"{out}: a pack can only be made from a pack, got {source}; name a .parquet, .npz or .npy file, "
            "or ask for images"
        )


def _check_images(source: Path, out: Path, pack: Pack | None) -> None:
    if not source.exists():
        raise InputError(f"{source}: does not exist")
    if pack is not None or is_table(source):
        got = "a pack" if pack is not None else "a table" if source.is_dir() else "a file"
        raise InputError(
            f"{source}: image files can only be made from a folder of images, got {got}; name a .parquet "
            "file for a table of images"
        )
    if not out.name or out.name == "..":
        raise InputError(f"{out}: not a name for a folder")
    if out.suffix in SUFFIXES[1:]:
        raise InputError(f"{out}: must be the name of a folder for image files, got one that ends in {out.suffix}")
    if not out.is_dir() and (out.exists() or out.is_symlink()):
        raise InputError(f"{out}: is a file; name a folder for image files")
    root = source.resolve()
    if out.resolve() == root:
        raise InputError(f"{out}: is the source itself; choose another name")
    # Where the folder is a link, the list of skipped files and the parts lie beside the link.
    if out.resolve().is_relative_to(root) or out.parent.resolve().is_relative_to(root):
        raise InputError(f"{out}: lies inside the source {source}; choose another place")
    if root.is_relative_to(out.resolve()):
        raise InputError(f"{out}: the source {source} lies inside it and could be overwritten; choose another place")


def _check_files(out: Path, paths: Sequence[str], *, replace: bool) -> None:
    """Refuses what is in the way of image files; and links that lead them out of their folder: to the source, say."""
    if not out.exists():
        return
    root, last = out.resolve(), out
    for path in (out / name for name in paths):
        if path.parent != last and not path.parent.resolve().is_relative_to(root):
            raise InputError(f"{path.parent}: leads out of {out}, where image files are to be; remove that link")
        last = path.parent
        if path.is_dir() and not path.is_symlink():
            raise InputError(f"{path}: is a folder where an image file is to be; remove it")
        if not replace and (path.is_symlink() or path.exists()):
            raise InputError(f"{path}: already exists; choose another folder or force")
    for beside in (skipped_file(out), exposed_file(out)):
        if not replace and beside.exists():
            raise InputError(f"{beside}: already exists; choose another folder or force")


def _check_told(release: Release, source: Path, pack: Pack | None, told: Sequence[str]) -> None:
    if told and pack is None and not is_table(source):
        raise InputError(f"{source}: images have no labels that could tell a class; name a pack")
    for name in told:
        if name not in release.contract.told:
            there = ", ".join(release.contract.told) or "none"
            raise InputError(f"told: must be a private label that the release can be told ({there}), got {name!r}")


def _kind_of_target(options: Options, out: Path) -> str:
    if _are_whole(options, out):
        return "photographs" + ", blurred where there may be faces" * options.blur_rest
    return (
        "image files"
        if _are_files(options, out)
        else f"{out.suffix}, images"
        if options.images
        else out.suffix or "pack"
    )


def _fingerprint(release: Release) -> str:
    """Changes with all that a release depends on, its key included, which does not follow from it."""
    weights = {name: value.detach().cpu().contiguous() for name, value in release.encoder.state_dict().items()}
    total = hashlib.sha256(to_bytes(weights))
    total.update(json.dumps([release.method, dict(release.config), asdict(release.contract)], sort_keys=True).encode())
    total.update(release.key or b"")
    return total.hexdigest()
