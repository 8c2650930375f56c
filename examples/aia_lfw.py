"""AIA on Labeled Faces in the Wild: pack, fit the paper's rows and `deep`, audit, report, and the table of the results.

    python examples/aia_lfw.py --lfw DIR --out DIR [--seeds 0 1 2] [--results docs/results/aia-lfw.md]

DIR holds lfw-deepfunneled.tar (or its tree), male_names.txt, female_names.txt and pairs.txt. Each seed draws its own
people for the splits. What is already in OUT is kept, so an interrupted run continues. The table is written from the
findings alone.
"""

from __future__ import annotations

import argparse
import datetime
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tables import by_seed, table
from veil import findings as files
from veil.data import build
from veil.data.pack import Pack
from veil.methods import METHODS
from veil.methods.fitting import Fit
from veil.release import Release
from veil.report import page as html
from veil.workflows import fit as fitting
from veil.workflows.audit import audit
from veil.workflows.fit import read_curves, write_curves
from veil.workflows.subjects import INPUT, Subject

FRACTIONS = (0.5, 0.2, 0.1, 0.2)
ROWS = {
    "Original": ("aia", "original"),
    "Random": ("random", "default"),
    "AIA\\T": ("aia", "without-task"),
    "AIA": ("aia", "paper"),
    "LEACE": ("leace", "default"),
    "AIA deep": ("deep", "default"),
    "deep, unprotected": ("deep", "unprotected"),
}
SETTINGS = {"steps_alone": 120, "steps_joint": 160, "batch": 128}  # of the paper's rows, to fit two cores' patience
PAPER = {  # Table 1: privacy and utility accuracy in per cent on CelebA, on VGG
    "Original": (78.01, 88.87, 81.21, 91.31),
    "Random": (52.12, 56.89, 51.34, 53.67),
    "AIA\\T": (62.53, 69.34, 65.67, 66.29),
    "AIA": (64.96, 78.64, 68.13, 77.96),
}
COMMAND = "python examples/aia_lfw.py --lfw DIR --out DIR --results docs/results/aia-lfw.md"
DEEP = ("deep, unprotected", "AIA deep")
AUDITS: tuple[tuple[str, Sequence[str], Sequence[str], str], ...] = (
    ("audit-paper", tuple(name for name in ROWS if name not in DEEP), ("attack",), "quick"),
    ("audit-deep", DEEP, ("attack",), "quick"),
    ("audit-strong", DEEP, ("protect", "attack"), "standard"),
)
"""Folder, releases, what attackers learn from, effort."""
COLUMNS = (
    ("gender, worst attack", "attribute.balanced_accuracy", "gender"),
    ("matching AUC", "verification.auc", "identity"),
    ("AUC, same gender", "verification.auc", "identity|same gender"),
    ("TAR at FAR 1 %", "verification.tar_at_far_0.01", "identity"),
    ("accuracy", "verification.accuracy", "identity"),
)


def one_seed(lfw: Path, out: Path, seed: int, jobs: int, *, quick: bool) -> None:
    """Everything for one seed, in OUT/seed-N; steps that are done already are skipped."""
    pack = _pack(lfw, out / "pack", seed)
    subjects: list[Subject] = []
    for name, (method, preset) in ROWS.items():
        folder = out / "releases" / name.replace("\\", "-without-").replace(", ", "-").replace(" ", "-").lower()
        curves = folder.with_name(folder.name + ".curves.parquet")
        if not folder.exists():
            base = subjects[0].release if METHODS[method].takes_base else None
            settings = SETTINGS if method == "aia" else {}
            print(f"seed {seed}: fitting {name}", flush=True)
            if preset == "unprotected":
                fitted = Fit(release=_unguarded(subjects[-1].release))
            else:
                fitted = fitting.fit(
                    method, pack, private=["gender"], preset=preset, settings=settings, seed=seed, base=base,
                    progress=_progress,
                )  # fmt: skip
            fitted.release.save(folder, with_decoder=True)
            if fitted.curves:
                write_curves(curves, fitted.curves)
        release = Release.load(folder)
        subjects.append(Subject(name=name, release=release, curves=read_curves(curves)))
    for folder_name, names, attack_on, effort in AUDITS:
        if effort != "quick" and quick:
            continue
        if not (out / folder_name / files.NAME).exists():
            print(f"seed {seed}: {folder_name}", flush=True)
            audit(
                pack, [s for s in subjects if s.name in names], out / folder_name, private=["gender"],
                utility=["identity"], baselines=(), seed=seed, effort=effort, attack_on=attack_on, jobs=jobs,
                with_input=folder_name == "audit-paper", resume=True, command=COMMAND, progress=_audited,
            )  # fmt: skip
        html.write(out / folder_name)


def _unguarded(deep: Release | None) -> Release:
    """`deep` as its first stage left it: what preset unprotected trains with the same seed, without training it."""
    assert deep is not None
    config, contract = {**deep.config, "hide": 0.0, "noise": 0.0}, replace(deep.contract, noise=0.0, classes={})
    made = {**deep.made, "preset": "unprotected"}
    algorithm = METHODS["deep"].algorithm
    encoder = algorithm.build(algorithm.read(config), contract)
    encoder.networks.load_state_dict(deep.encoder.networks.state_dict())
    return Release(method="deep", config=config, contract=contract, encoder=encoder.eval(), made=made)


def _pack(lfw: Path, path: Path, seed: int) -> Pack:
    if not (path / "pack.json").exists():
        build.pack("lfw", lfw, path, size=64, seed=seed, fractions=FRACTIONS)
    return Pack.open(path)


def _audited(stage: str, done: int, total: int, what: str) -> None:
    print(f"  {stage} {done}/{total} {what}", flush=True)


def _progress(stage: str, done: int, count: int, losses: object) -> None:
    if done % 100 == 0 or done == count:
        print(f"  {stage} {done}/{count} {losses}", flush=True)


def write_results(path: Path, out: Path, seeds: Sequence[int]) -> None:
    """The table, from the findings of every seed."""
    names = [INPUT, *ROWS]
    documents = [_joined(out / f"seed-{s}") for s in seeds]
    lines = [
        "# AIA on Labeled Faces in the Wild",
        "",
        "Private: gender. Kept use: 1-to-1 matching. 13,233 images of 5,749 people at 64x64 grey (deep-funneled,",
        f"columns and rows 65 to 185), split by people into protect {FRACTIONS[0]:.0%}, attack {FRACTIONS[1]:.0%},",
        f"calibrate {FRACTIONS[2]:.0%} and test {FRACTIONS[3]:.0%}, anew for each seed.",
        "Figures are means over the seeds, with the mean limits of the seeds' 95 % intervals (clustered by person) in",
        "brackets. Gender: balanced accuracy of the worst fresh attacker, picked on `calibrate`, measured on `test`;",
        "chance is .500. Matching: the best of cosine, Euclidean distance and fresh matchers, picked on `calibrate`.",
        "The settings of `deep` were chosen on `attack` and `calibrate` people of seed 0 and of another split.",
        "",
        f"    {COMMAND} --seeds {' '.join(map(str, seeds))}",
        "",
        f"Seeds {', '.join(map(str, seeds))}; {datetime.datetime.now(datetime.UTC).date()}; torch {torch.__version__},",
        f"{platform.machine()}. The paper's rows: {_words(SETTINGS)}; `deep`: its preset.",
        "",
        "## Attackers trained on the `attack` split",
        "",
        "Effort `quick`.",
        "",
        *table(names, documents, COLUMNS),
        "",
        *_strong(out, seeds),
        "## Each seed",
        "",
        *by_seed(names, documents, seeds),
        "",
        "## The paper's Table 1",
        "",
        "Accuracy in per cent of the gender classifier / of the matching task, as published:",
        "",
        "| method | CelebA | VGG |",
        "|---|---|---|",
        *(f"| {name} | {a} / {b} | {c} / {d} |" for name, (a, b, c, d) in PAPER.items()),
        "",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    print(path)


def _strong(out: Path, seeds: Sequence[int]) -> list[str]:
    """The section on stronger attackers, of the seeds that have them."""
    done = [s for s in seeds if (out / f"seed-{s}" / "audit-strong" / files.NAME).exists()]
    if not done:
        return []
    return [
        "## Stronger attackers, trained on the protector's own data too",
        "",
        "All attackers with longer training (effort `standard`), and the `protect` split's releases besides; seeds",
        f"{', '.join(map(str, done))}.",
        "",
        *table(DEEP, [files.read(out / f"seed-{s}" / "audit-strong") for s in done], COLUMNS),
        "",
    ]


def _joined(seed: Path) -> dict[str, Any]:
    """The findings of one seed's two audits with the same attackers."""
    both = [files.read(seed / folder) for folder in ("audit-paper", "audit-deep")]
    return {"findings": [finding for document in both for finding in document["findings"]]}


def _words(settings: dict[str, int]) -> str:
    return ", ".join(f"{k}={v}" for k, v in settings.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True, help="folder with the tar or tree and the lists")
    parser.add_argument("--out", type=Path, required=True, help="folder for packs, releases, findings and reports")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="processes of the audit")
    parser.add_argument("--quick", action="store_true", help="leave out the stronger attackers")
    parser.add_argument("--results", type=Path, help="Markdown file for the table")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        one_seed(arguments.lfw, arguments.out / f"seed-{seed}", seed, arguments.jobs, quick=arguments.quick)
    if arguments.results is not None:
        write_results(arguments.results, arguments.out, arguments.seeds)


if __name__ == "__main__":
    main()
