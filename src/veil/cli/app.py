"""The command line: ``veil demo | protect | pack | label | embed | fit | apply | rekey | audit | check | report`` and
``export``.

Each command reads its options, calls one workflow and shows what it made. Nothing heavy is imported before a command
needs it: ``veil --help`` must be quick.
"""

from __future__ import annotations

from pathlib import Path

import typer

from veil.cli import arguments, texts
from veil.cli.entry import app, command
from veil.cli.scores import audit_scores
from veil.cli.show import Show, show_fit, show_label, show_rekeyed
from veil.cli.tables import show_audit, show_check, show_demo, show_protected
from veil.errors import InputError

__all__ = ["app"]

BROKE_OFF = 4
"""Exit status of an audit of which some attempts have no figure, for they did not converge."""


@command
def demo(
    show: Show, out: arguments.DemoFolder = Path("demo"), seed: arguments.Seed = 0, jobs: arguments.Jobs = None
) -> None:
    """Both ways in, on built-in stylised faces: photographs, and stored templates under a budget. Hides gender, keeps
    face matching, audits what is released, and writes a page on each."""
    from veil.engine.memory import kept_memory
    from veil.workflows.demo import demo

    with show.progress() as bars, kept_memory():
        ways = demo(out, seed=seed, jobs=jobs, command=show.command(), watch=bars.protect())
    if show_demo(show, ways):
        raise typer.Exit(BROKE_OFF)


@command
def protect(
    show: Show,
    source: arguments.ProtectedSource,
    out: arguments.NewFolder,
    hide: arguments.HiddenLabels = None,
    keep: arguments.OneUse = "identity",
    form: arguments.ReleasedForm = "vectors",
    budget: arguments.Budget = None,
    labels: arguments.PackLabels = None,
    landmarks: arguments.EmbedLandmarks = None,
    matcher: arguments.Embedder = None,
    by_folder: arguments.PeopleByFolder = False,
    blur_rest: arguments.BlurRest = False,
    row_numbers: arguments.RowNumbers = False,
    pictures: arguments.Pictures = False,
    size: arguments.SideOfFaces = None,
    settings: arguments.MethodSettings = None,
    key: arguments.FitKey = None,
    effort: arguments.Effort = "standard",
    seed: arguments.Seed = 0,
    resume: arguments.ResumeProtect = False,
    force: arguments.ForceProtect = False,
    jobs: arguments.Jobs = None,
) -> None:
    """Protect photographs, or a table of vectors, in one go: pack, fit, apply, audit and report, by the method that
    suits them. Ends with the verdict, the path of its page, what to hand out and what to keep secret."""
    from veil.engine.memory import kept_memory
    from veil.workflows.frontier import parse_budget
    from veil.workflows.protect import protect

    with show.progress() as bars, kept_memory():
        made = protect(
            source,
            out,
            hide=hide or [],
            keep=keep,
            form=form,
            budget=dict(parse_budget(text) for text in budget or []),
            labels=labels,
            landmarks=landmarks,
            matcher=matcher,
            by_folder=by_folder,
            blur_rest=blur_rest,
            row_numbers=row_numbers,
            pictures=pictures,
            size=size,
            settings=texts.settings(settings),
            key=key,
            effort=effort,
            seed=seed,
            resume=resume,
            force=force,
            jobs=jobs,
            command=show.command(),
            watch=bars.protect(show.remark),
        )
    if show_protected(show, made):
        raise typer.Exit(BROKE_OFF)


@command
def pack(
    show: Show,
    layout: arguments.Layout,
    source: arguments.DataSet,
    out: arguments.NewPack,
    size: arguments.Side = 64,
    channels: arguments.Channels = 1,
    labels: arguments.PackLabels = None,
    crop: arguments.Crop = None,
    landmarks: arguments.PackLandmarks = None,
    faces: arguments.PackFaces = False,
    all_faces: arguments.AllFaces = False,
    fractions: arguments.Fractions = "0.45,0.20,0.10,0.25",
    by_identity: arguments.Disjoint = True,
    options: arguments.LayoutSettings = None,
    about: arguments.DataSheet = None,
    seed: arguments.Seed = 0,
    jobs: arguments.Jobs = None,
    force: arguments.Force = False,
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
            crop=None if crop is None else texts.four_floats("crop", crop),
            landmarks=landmarks,
            faces=faces or all_faces,
            all_faces=all_faces,
            fractions=texts.four_floats("fractions", fractions),
            force=force,
            progress=bars.rows("pack"),
            disjoint=by_identity,
            about=about,
            jobs=jobs,
            settings=texts.settings(options),
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
def label(
    show: Show,
    pack: arguments.LabelledPack,
    name: arguments.LabelName,
    classifier: arguments.LabelClassifier,
    classes: arguments.ClassNames = None,
    settings: arguments.ClassifierSettings = None,
    force: arguments.Force = False,
) -> None:
    """Have a classifier of yours guess a label that nobody has, and write it into a pack of images. It is marked as
    predicted, and releases, audits and reports say so."""
    from veil.workflows.label import label

    with show.progress() as bars:
        made = label(
            pack,
            name,
            classifier=classifier,
            classes=None if classes is None else [each.strip() for each in classes.split(",")],
            settings=texts.declared("--classifier-settings", settings),
            force=force,
            progress=bars.rows("label"),
        )
    show_label(show, made, name)


@command
def embed(
    show: Show,
    source: arguments.Photographs,
    out: arguments.Templates,
    matcher: arguments.Embedder = None,
    matcher_settings: arguments.MatcherSettings = None,
    labels: arguments.EmbedLabels = None,
    settings: arguments.FolderSettings = None,
    landmarks: arguments.EmbedLandmarks = None,
    jobs: arguments.Jobs = None,
    strict: arguments.Strict = False,
    force: arguments.Force = False,
) -> None:
    """Make templates of faces, vectors by which they are compared; photographs without one are in OUT.skipped.csv."""
    from veil.nn.embedders import BUNDLED
    from veil.workflows.embed import embed

    with show.progress() as bars:
        n, skipped = embed(
            source,
            out,
            matcher=matcher or BUNDLED,
            matcher_settings=texts.declared("--matcher-settings", matcher_settings),
            labels=labels,
            settings=texts.settings(settings),
            landmarks=landmarks,
            jobs=jobs,
            force=force,
            progress=bars.rows("embed"),
            remark=show.remark,
        )
    show.result(
        {"out": str(out), "rows": n, "skipped": skipped},
        f"{out}: {n:,} templates" + (f"; {skipped:,} skipped, listed in {out}.skipped.csv" if skipped else ""),
    )
    _check_all(strict, source, skipped)


@command
def fit(
    show: Show,
    method: arguments.MethodName,
    source: arguments.PackFolder,
    out: arguments.NewRelease,
    private: arguments.PrivateLabels = None,
    utility: arguments.KeptUse = "identity",
    preset: arguments.Preset = None,
    settings: arguments.MethodSettings = None,
    budget: arguments.Budget = None,
    frontier: arguments.Frontier = None,
    base: arguments.Base = None,
    key: arguments.FitKey = None,
    precision: arguments.Precision = "auto",
    checkpoint_every: arguments.CheckpointEvery = None,
    resume: arguments.ResumeFit = False,
    keep_decoder: arguments.KeepDecoder = False,
    seed: arguments.Seed = 0,
    force: arguments.Force = False,
) -> None:
    """Train a protector on a pack and save its release. Beside it go its secret key, if any (RELEASE.key), and hashes
    of the rows and people that it was fitted on, for audits (RELEASE.fitted)."""
    from veil.engine.memory import kept_memory
    from veil.workflows.fit_folder import FitOptions, fit_into
    from veil.workflows.frontier import parse_budget

    options = FitOptions(
        method=method,
        private=private or [],
        utility=utility,
        preset=preset,
        settings=texts.settings(settings),
        seed=seed,
        base=base,
        key=key,
        budget=dict(parse_budget(text) for text in budget or []),
        frontier=frontier,
        precision=precision,
        every=checkpoint_every,
        keep_decoder=keep_decoder,
    )
    with show.progress() as bars, kept_memory():
        progress, measured = bars.fit(method), bars.count("frontier")
        made = fit_into(options, source, out, resume=resume, force=force, progress=progress, measured=measured)
    if made is not None:
        show_fit(show, made, key)


@command
def apply(
    show: Show,
    release: arguments.ReleaseFolder,
    source: arguments.Rows,
    out: arguments.Target,
    key: arguments.Key = None,
    column: arguments.Column = None,
    told: arguments.ToldLabels = None,
    row_numbers: arguments.RowNumbers = False,
    landmarks: arguments.ImageLandmarks = None,
    faces: arguments.ImageFaces = False,
    hide: arguments.Hide = None,
    images: arguments.ImageFiles = False,
    blur_rest: arguments.BlurRest = False,
    shard_rows: arguments.ShardRows = None,
    resume: arguments.ResumeApply = False,
    strict: arguments.Strict = False,
    force: arguments.Force = False,
) -> None:
    """Release every row of a source, in its order; rows that cannot be read are listed in OUT.skipped.csv."""
    from veil.release import Release
    from veil.workflows.apply import Options, apply

    remarks: dict[str, list[str]] = {"warning": [], "note": []}
    options = Options(
        column=column,
        told=texts.labels(told),
        row_numbers=row_numbers,
        landmarks=landmarks,
        faces=faces,
        hide=hide,
        images=images,
        blur_rest=blur_rest,
        shard_rows=shard_rows,
    )
    with show.progress() as bars:
        made = apply(
            Release.load(release, key=key),
            source,
            out,
            options,
            resume=resume,
            force=force,
            progress=bars.rows("apply"),
            remark=lambda kind, sentence: remarks[kind].append(sentence),
        )
    if note := texts.names_note(out, images, row_numbers):
        remarks["note"].append(note)
    show.remarks(remarks["warning"])
    show.result(
        {
            "out": str(out),
            "rows": made.rows,
            "skipped": made.skipped,
            "unprotected": made.exposed,
            "warnings": remarks["warning"],
            "notes": remarks["note"],
        },
        f"{out}: {made.rows:,} {'images' if images else 'rows'}"
        + (f"; {made.skipped:,} skipped, listed in {out}.skipped.csv" if made.skipped else ""),
        *(f"  note: {note}" for note in remarks["note"]),
    )
    _check_all(strict, source, made.skipped, made.exposed)


@command
def rekey(
    show: Show,
    release: arguments.ReleaseFolder,
    new: arguments.RekeyedRelease,
    stored: arguments.Stored = None,
    out: arguments.Moved = None,
    key: arguments.Key = None,
    column: arguments.Column = None,
    resume: arguments.ResumeApply = False,
    force: arguments.Force = False,
) -> None:
    """Give a release that was fitted with renew=true another key, and move stored releases to it: they then match what
    the new one releases, and nothing that was made under the old key."""
    from veil.workflows.rekey import rekey

    remarks: dict[str, list[str]] = {"warning": [], "note": []}
    with show.progress() as bars:
        moved = rekey(
            release,
            new,
            stored=stored,
            out=out,
            key=key,
            column=column,
            resume=resume,
            force=force,
            progress=bars.rows("rekey"),
            remark=lambda kind, sentence: remarks[kind].append(sentence),
        )
    show_rekeyed(show, release, new, key, moved=moved, out=out, remarks=remarks)


def _check_all(strict: bool, source: Path, skipped: int, exposed: int = 0) -> None:
    """Raises InputError where all was to be released, and to be protected, and was not."""
    for count, what in ((skipped, "rows could not be read"), (exposed, "photographs may hold unprotected faces")):
        if strict and count:
            raise InputError(f"{source}: {count} {what}, and --strict was asked for")


@command
def audit(
    show: Show,
    *,
    source: arguments.AuditedData = None,
    out: arguments.AuditFolder = None,
    private: arguments.PrivateLabels = None,
    utility: arguments.MeasuredUses = None,
    release: arguments.Releases = None,
    vectors: arguments.Vectors = None,
    key: arguments.Keys = None,
    labels: arguments.VectorLabels = None,
    folder: arguments.AuditFolderAlone = None,
    scores: arguments.ScoreFiles = None,
    baseline: arguments.Baselines = None,
    effort: arguments.Effort = "standard",
    attack_on: arguments.AttackOn = None,
    level: arguments.Level = 0.95,
    invert: arguments.Inversion = False,
    matcher: arguments.Matcher = None,
    matcher_settings: arguments.MatcherSettings = None,
    classifier: arguments.Classifiers = None,
    classifier_settings: arguments.ClassifierSettings = None,
    pictures: arguments.Pictures = False,
    perceptual: arguments.Perceptual = None,
    names: arguments.Names = False,
    by: arguments.Auditor = "",
    write_scores: arguments.WriteScores = False,
    resume: arguments.ResumeAudit = False,
    seed: arguments.Seed = 0,
    jobs: arguments.Jobs = None,
) -> None:
    """Attack releases with fresh attackers, measure what use is left, and write findings.json.

    Exit status 4: done, but for attempts that broke off; findings.json and a line on stderr say which, and why.
    """
    from veil.engine.memory import kept_memory
    from veil.workflows.audit_folder import AuditedFiles, audit_into, labels_in

    if out is not None and folder is not None:
        raise InputError(f"OUT: must be named once, got {out} and --out {folder}")
    if scores:
        others = {"PACK (OUT is --out)": source, "--private": private, "--release": release, "--vectors": vectors,
                  "--labels": labels, "--inversion": invert, "--write-scores": write_scores}  # fmt: skip
        audit_scores(show, scores, out or folder or Path("audit"), level=level, by=by, names=names, others=others)
        return
    private, utility = texts.labels(private), texts.labels(utility)
    if not private and not utility and not invert:
        raise InputError(
            "audit: name what to attack (--private LABEL, --inversion) or what to measure (--utility identity, or a "
            f"label), got nothing{labels_in(source)}"
        )
    files = AuditedFiles(
        source=source,
        labels=labels,
        releases=texts.named_releases(release, key),
        vectors=texts.named_vectors(vectors),
    )
    if source is None and (release or baseline):
        raise InputError("audit: releases and baselines are made of unprotected data, so a PACK must be named")
    if invert and source is None:
        raise InputError("audit: --inversion redraws unprotected originals, so a PACK that holds them must be named")
    if not invert and perceptual:
        raise InputError("audit: --perceptual is for --inversion, which was not asked for")
    with show.progress() as bars, kept_memory():
        made = audit_into(
            out or folder or Path("audit"),
            files,
            private=private,
            utility=utility,
            attack_on=None if attack_on is None else [part.strip() for part in attack_on.split(",")],
            seed=seed,
            remark=show.remark,
            baselines=texts.baselines(baseline),
            effort=effort,
            jobs=jobs,
            level=level,
            inversion=invert,
            pictures=pictures or None,
            scores=write_scores,
            perceptual=perceptual,
            matcher=matcher,
            matcher_settings=texts.declared("--matcher-settings", matcher_settings),
            classifiers=texts.classifiers(classifier, private),
            classifier_settings=texts.declared("--classifier-settings", classifier_settings),
            command=texts.whole_command() if names else show.command(),
            names=names,
            by=by,
            resume=resume,
            progress=bars.stage,
        )
    if show_audit(show, made.findings, list(dict.fromkeys(private)), made.use, made.path, made.warnings):
        raise typer.Exit(BROKE_OFF)


@command
def check(
    show: Show,
    out: arguments.CheckedAudit,
    require: arguments.Requirements = None,
    require_file: arguments.RequirementFile = None,
    release: arguments.CheckedReleases = None,
    against: arguments.EarlierAudit = None,
) -> None:
    """Compare the limits of an audit's intervals with what is required, and the audit with an earlier one.

    Exit status 0: all is met. 3: something is not. 2: it cannot be said: not measured, or a control failed."""
    from veil.workflows.check import check

    made = check(out, require or [], file=require_file, releases=release or [], against=against)
    show_check(show, made)
    if made.status:
        raise typer.Exit(made.status)


@command
def report(
    show: Show,
    out: arguments.ReportFolder,
    other: arguments.OtherAudit = None,
    card: arguments.Card = False,
    page: arguments.ComparedPage = None,
) -> None:
    """Write report.html, one self-contained page, from findings.json and what lies beside it; or a page that sets two
    audits beside each other."""
    if other is not None:
        from veil.workflows.compare import compare

        if card:
            raise InputError("report: --card is for one audit, and two were named")
        made = compare(out, other, page)
        show.result({"compared": str(made)}, str(made))
        return
    if page is not None:
        raise InputError(f"report: --out is for the page of two audits, and one was named, got {page}")
    from veil.report import card as cards
    from veil.report import page as html

    paths = {"report": str(html.write(out)), **({"card": str(cards.write(out))} if card else {})}
    show.result(paths, *paths.values())


@command
def export(
    show: Show,
    release: arguments.ReleaseFolder,
    out: arguments.BundleFolder,
    key: arguments.Key = None,
    force: arguments.Force = False,
) -> None:
    """Write a bundle (extra 'onnx'): a folder to use a release without Veil, by numpy, Pillow and onnxruntime alone.

    Its README.md says how. Of a keyed release it holds what is as secret as the key, in files for their owner alone."""
    from veil.release import Release

    loaded = Release.load(release, key=key)
    loaded.need_key(str(release))
    path = loaded.export(out, force=force)
    show.result({"bundle": str(path)}, str(path))
