"""All that an audit says of stored templates, on Labeled Faces in the Wild, as one table.

    python examples/evidence_lfw.py --lfw DIR --out DIR [--seeds 0 1 2] [--results docs/results/evidence-lfw.md]

DIR holds templates.npz (`vectors` (13233, 128) and `name`), and the archive (or tree) and gender lists of LFW. Methods
are `template`, preset `default`, and its preset `erased`, each as it is and with the setting `renew`: the same weights
and, as `renew` is one of the settings, other noise. Each seed draws its own people for the splits. What is already in
OUT is kept, so an interrupted run continues. The tables are written from the findings alone.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tables import measures
from veil import findings as files
from veil.auditing.setting import Inversion
from veil.data import build
from veil.data.pack import Pack
from veil.release import Release
from veil.report import page as html
from veil.workflows import fit as fitting
from veil.workflows.audit import audit
from veil.workflows.subjects import INPUT, Subject

FRACTIONS = (0.5, 0.2, 0.1, 0.2)
PRESETS = {"template": "default", "erased": "erased"}
RENEWED = ", renew"
COMMAND = "python examples/evidence_lfw.py --lfw DIR --out DIR --results docs/results/evidence-lfw.md"


def one_seed(lfw: Path, out: Path, seed: int, *, jobs: int, effort: str) -> None:
    """Everything for one seed, in OUT/seed-N; steps that are done already are skipped."""
    pack = _pack(lfw, out, seed)
    subjects = []
    for name, preset in PRESETS.items():
        folder = out / "releases" / name
        if not folder.exists():
            start = time.perf_counter()
            fitted = fitting.fit("template", pack, private=["gender"], preset=preset, seed=seed)
            print(f"seed {seed}: {name} fitted in {time.perf_counter() - start:.0f} s", flush=True)
            fitted.release.save(folder)
        release = Release.load(folder)
        subjects += [Subject(name=name, release=release), Subject(name=name + RENEWED, release=renewed(release))]
    if not (out / effort / files.NAME).exists():
        audit(
            pack, subjects, out / effort, private=["gender"], utility=["identity"], seed=seed, effort=effort,
            inversion=Inversion(), jobs=jobs, resume=True, command=COMMAND,
            progress=lambda stage, done, total, what: print(f"  {stage} {done}/{total} {what}", flush=True),
        )  # fmt: skip
        html.write(out / effort)


def renewed(release: Release) -> Release:
    """The same network, with releases that are turned by a matrix of the key."""
    config = {**release.config, "renew": True}
    return replace(release, config=config, contract=release.contract.turned(True))


def _pack(lfw: Path, out: Path, seed: int) -> Pack:
    """Templates with the labels and splits of the images they were made of."""
    path, images = out / "pack", out / "images"
    if not (images / "pack.json").exists():
        build.pack("lfw", lfw, images, size=16, seed=seed, fractions=FRACTIONS)
    if not (path / "pack.json").exists():
        build.pack("embeddings", lfw / "templates.npz", path, labels=images)
    return Pack.open(path)


def write_results(path: Path, out: Path, seeds: Sequence[int], effort: str) -> None:
    """The table, from the findings of every seed."""
    documents = [files.read(out / f"seed-{seed}" / effort) for seed in seeds]
    names = [INPUT, f"{INPUT} + LEACE", *(name + more for name in PRESETS for more in ("", RENEWED))]
    lines = [
        "# Stored templates on LFW: all that is measured",
        "",
        "Private: gender. Kept use: 1-to-1 matching. 13,233 stored templates (MobileFaceNet, 128 values, compared",
        f"by cosine) of 5,749 people, split by people into protect {FRACTIONS[0]:.0%}, attack {FRACTIONS[1]:.0%},",
        f"calibrate {FRACTIONS[2]:.0%} and test {FRACTIONS[3]:.0%}, anew for each seed. `template` and `erased` are",
        "presets of the method `template`; with `renew` they are turned by a matrix of the key, and their noise is",
        f"another. Attackers of effort `{effort}` learn from `attack`; the worst is picked on `calibrate` and measured",
        "on `test`.",
        "Figures are means over the seeds, with the mean limits of the seeds' 95 % intervals (clustered by person) in",
        "brackets; `-` is not measured, or does not apply, and the audit's page says why. A0 to A8: what an attacker",
        "has ([the audit](../audit.md#figures-and-intervals)). Nothing was chosen on `test`.",
        "",
        f"    {COMMAND} --seeds {' '.join(map(str, seeds))} --effort {effort}",
        "",
        f"Seeds {', '.join(map(str, seeds))}; {datetime.datetime.now(datetime.UTC).date()}; torch {torch.__version__},",
        f"{platform.machine()}.",
        "",
        *measures(names, documents),
        "",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True, help="folder with the templates, the archive and the lists")
    parser.add_argument("--out", type=Path, required=True, help="folder for packs, releases, findings and reports")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--jobs", type=int, default=2, help="processes of the audit")
    parser.add_argument("--results", type=Path, help="Markdown file for the table")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        one_seed(arguments.lfw, arguments.out / f"seed-{seed}", seed, jobs=arguments.jobs, effort=arguments.effort)
    if arguments.results is not None:
        write_results(arguments.results, arguments.out, arguments.seeds, arguments.effort)


if __name__ == "__main__":
    main()
