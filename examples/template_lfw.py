"""Template protection on Labeled Faces in the Wild: pack stored templates, protect, audit, report, table of results.

    python examples/template_lfw.py --lfw DIR --out DIR [--seeds 0 1 2] [--results docs/results/template-lfw.md]

DIR holds templates.npz and templates-dlib.npz (`vectors` (13233, 128) and `name`: of a matcher whose vectors lie around
0, and of dlib's, which lie all on one side), and the archive (or tree), gender lists and pairs.txt of LFW. Each seed
draws its own people for the splits. What is already in OUT is kept, so an interrupted run continues. The tables are
written from the findings alone.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tables import by_seed, picked, table
from veil import findings as files
from veil.data import build
from veil.data.pack import Pack
from veil.methods import template
from veil.release import Release
from veil.report import page as html
from veil.report.plots import INK, METHOD, MUTED, RULE
from veil.workflows import fit as fitting
from veil.workflows import frontier
from veil.workflows.audit import audit
from veil.workflows.fit import write_curves
from veil.workflows.subjects import INPUT, Subject

FRACTIONS = (0.5, 0.2, 0.1, 0.2)
MATCHERS = {"MobileFaceNet": "templates.npz", "dlib": "templates-dlib.npz"}
NOISES = (0.0, template.PRESETS["erased"].noise, 2 * template.PRESETS["erased"].noise)
ROWS = {
    "noise alone": ("template", "noise"),
    "alignment alone": ("template", "aligned"),
    "template": ("template", "default"),
    "erased": ("template", "erased"),
}
COLUMNS = (
    ("gender, worst attack", "attribute.balanced_accuracy", "gender"),
    ("matching AUC", "verification.auc", "identity"),
    ("TAR at FAR 1 %", "verification.tar_at_far_0.01", "identity"),
    ("accuracy", "verification.accuracy", "identity"),
    ("gender, mean of several", "attribute.pooled_balanced_accuracy", "gender"),
    ("gender, mean of 32 near-duplicates", "attribute.repeated_balanced_accuracy", "gender"),
    ("person found first among releases", "identification.rank1_releases", "identity"),
)
AUDITS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], str], ...] = (
    (
        "audit",
        ("noise alone", "alignment alone", "template", *(f"erased, noise {n:g}" for n in NOISES)),
        ("attack",),
        "quick",
    ),
    (
        "audit-strong",
        ("template", f"erased, noise {NOISES[1]:g}"),
        ("protect", "attack"),
        "standard",
    ),
)
"""Folder, releases, what attackers learn from, effort."""
COMMAND = "python examples/template_lfw.py --lfw DIR --out DIR --results docs/results/template-lfw.md"


def one_seed(lfw: Path, out: Path, matcher: str, seed: int, jobs: int, audits: Sequence[str]) -> None:
    """Everything for one seed and matcher, in OUT/seed-N/MATCHER; steps that are done already are skipped."""
    pack = _pack(lfw, out, matcher, seed)
    out = out / matcher
    wanted = {name for folder, names, *_ in AUDITS if folder in audits for name in names}
    subjects = []
    for name, (method, preset) in ROWS.items():
        if not any(n.startswith(name) for n in wanted):
            continue
        folder = out / "releases" / name.replace(" ", "-")
        if not folder.exists():
            start = time.perf_counter()
            fitted = fitting.fit(method, pack, private=["gender"], preset=preset, seed=seed)
            print(f"seed {seed}: {name} fitted in {time.perf_counter() - start:.0f} s", flush=True)
            fitted.release.save(folder)
            write_curves(folder.with_name(f"{folder.name}.curves.parquet"), fitted.curves)
        release = Release.load(folder)
        if preset == "erased":
            subjects += [Subject(name=_named(noise), release=frontier.with_noise(release, noise)) for noise in NOISES]
        else:
            subjects.append(Subject(name=name, release=release))
    for folder_name, names, attack_on, effort in AUDITS:
        if folder_name not in audits:
            continue
        if not (out / folder_name / files.NAME).exists():
            audit(
                pack, [s for s in subjects if s.name in names], out / folder_name, private=["gender"],
                utility=["identity"], baselines=("leace",) if folder_name == "audit" else (), seed=seed,
                effort=effort, attack_on=attack_on, jobs=jobs, resume=True, command=COMMAND,
                progress=lambda stage, done, total, what: print(f"  {stage} {done}/{total} {what}", flush=True),
            )  # fmt: skip
        html.write(out / folder_name)


def _named(noise: float) -> str:
    return f"erased, noise {noise:g}"


def _pack(lfw: Path, out: Path, matcher: str, seed: int) -> Pack:
    """Templates with the labels, splits and pairs of the images they were made of."""
    path, images = out / matcher / "pack", out / "images"
    if not (images / "pack.json").exists():
        build.pack("lfw", lfw, images, size=16, seed=seed, fractions=FRACTIONS)
    if not (path / "pack.json").exists():
        build.pack("embeddings", lfw / MATCHERS[matcher], path, labels=images)
    return Pack.open(path)


def write_results(path: Path, out: Path, seeds: Sequence[int]) -> None:
    """The tables, from the findings of every seed."""
    there = [a[0] for a in AUDITS if any(out.glob(f"seed-*/*/{a[0]}/{files.NAME}"))]
    chosen = f" --audits {' '.join(there)}" if len(there) < len(AUDITS) else ""
    lines = [
        "# Template protection on Labeled Faces in the Wild",
        "",
        "Private: gender. Kept use: 1-to-1 matching. Some 13,230 stored templates of 5,749 people, of two matchers:",
        "MobileFaceNet (128 values, compared by cosine) and dlib (128 values, far from 0, compared by distance); split",
        f"by people into protect {FRACTIONS[0]:.0%}, attack {FRACTIONS[1]:.0%}, calibrate {FRACTIONS[2]:.0%} and test",
        f"{FRACTIONS[3]:.0%}, anew for each seed.",
        "Figures are means over the seeds, with the mean limits of the seeds' 95 % intervals (clustered by person) in",
        "brackets. Gender: balanced accuracy of the worst fresh attacker, picked on `calibrate`, measured on `test`;",
        "chance is .500. Matching: the best of cosine, Euclidean distance and fresh matchers,",
        "picked on `calibrate`.",
        "Gender from the mean of several: of two to four releases of one person; of near-duplicates: of one input.",
        f"`template` is the default preset, with noise {template.PRESETS['default'].noise:g}; `erased` the preset of",
        "that name. Settings were chosen on `attack` and `calibrate` people of seed 0: what `erased` keeps, the noise",
        "and the number of steps on both matchers', the rest on MobileFaceNet's; the rounds of `erased` on `test`",
        "people of seed 7, a fifth of whom are `test` people of any other seed.",
        "",
        f"    {COMMAND} --seeds {' '.join(map(str, seeds))}{chosen}",
        "",
        f"Seeds {', '.join(map(str, seeds))}; {datetime.datetime.now(datetime.UTC).date()}; torch {torch.__version__},",
        f"{platform.machine()}.",
        "",
    ]
    titles = ("attackers trained on the `attack` split", "stronger attackers, trained on the protector's own data too")
    for matcher, (title, (folder, names, _, effort)) in itertools.product(MATCHERS, zip(titles, AUDITS, strict=True)):
        done = [s for s in seeds if (out / f"seed-{s}" / matcher / folder / files.NAME).exists()]
        if not done:
            continue
        documents = [files.read(out / f"seed-{s}" / matcher / folder) for s in done]
        shown = [INPUT, *([f"{INPUT} + LEACE"] if folder == "audit" else []), *names]
        lines += [
            f"## {matcher}: {title}",
            "",
            f"Effort `{effort}`; seeds {', '.join(map(str, done))}.",
            "",
            *table(shown, documents, COLUMNS),
            "",
        ]
        lines += [*by_seed(shown, documents, done), ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    print(path)


def draw(path: Path, out: Path, seeds: Sequence[int]) -> None:
    """What every release gives away (right is worse) against what it keeps (up is better), means over the seeds."""
    from matplotlib.figure import Figure  # of the extra `explain`, which the tables do not need

    documents = [files.read(out / f"seed-{s}" / "MobileFaceNet" / "audit") for s in seeds]
    names = [INPUT, f"{INPUT} + LEACE", *AUDITS[0][1]]
    points = {}
    for name in names:
        found = [[picked(d, name, code, target) for d in documents] for _, code, target in COLUMNS[:2]]
        points[name] = [[float(np.mean([f[k] for f in fs])) for k in ("value", "low", "high")] for fs in found]
    figure = Figure(figsize=(7.2, 4.4), dpi=160, layout="constrained")
    axes = figure.subplots()
    path_of_noise = [points[_named(noise)] for noise in NOISES]
    axes.plot([x[0] for x, _ in path_of_noise], [y[0] for _, y in path_of_noise], color=METHOD, linewidth=2, zorder=3)
    for name, ((x, x_low, x_high), (y, y_low, y_high)) in points.items():
        own = name.startswith("erased")
        colour = METHOD if own else INK if name == "template" else MUTED
        axes.errorbar(
            x, y, xerr=[[x - x_low], [x_high - x]], yerr=[[y - y_low], [y_high - y]], color=colour, marker="o",
            markersize=5, elinewidth=0.9, capsize=2, zorder=4,
        )  # fmt: skip
        below = own or name.endswith("LEACE")
        axes.annotate(
            name, (x, y), textcoords="offset points", xytext=(-5 if own else 5, -12 if below else 6), fontsize=8.5,
            color=colour, ha="right" if own else "left",
        )  # fmt: skip
    axes.axvline(0.5, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
    axes.set_xlim(0.42, 1.0)
    axes.set_xlabel("gender, balanced accuracy of the worst attack (chance: 0.5)")
    axes.set_ylabel("matching, AUC")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=RULE, linewidth=0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True, help="folder with the templates, the archive and the lists")
    parser.add_argument("--out", type=Path, required=True, help="folder for packs, releases, findings and reports")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="processes of the audit")
    parser.add_argument("--matchers", nargs="+", default=[*MATCHERS], choices=[*MATCHERS])
    parser.add_argument("--audits", nargs="+", default=[a[0] for a in AUDITS], choices=[a[0] for a in AUDITS])
    parser.add_argument("--results", type=Path, help="Markdown file for the tables")
    parser.add_argument("--figure", type=Path, help="PNG file for the plot; needs the extra `explain` (matplotlib)")
    arguments = parser.parse_args()
    for seed, matcher in itertools.product(arguments.seeds, arguments.matchers):
        one_seed(arguments.lfw, arguments.out / f"seed-{seed}", matcher, seed, arguments.jobs, arguments.audits)
    if arguments.results is not None:
        write_results(arguments.results, arguments.out, arguments.seeds)
    if arguments.figure is not None:
        draw(arguments.figure, arguments.out, arguments.seeds)


if __name__ == "__main__":
    main()
