"""Semi-adversarial networks on LFW, or stylised faces: they match and tell another gender, to whom, and how far.

    python examples/san_faces.py --out DIR [--lfw DIR] [--rows DIR] [--seeds 0 1 2] [--size 64] [--channels 1]
        [--presets default hardened] [--effort quick] [--results FILE] [--figure FILE]

People disjoint. Releases meet classifiers and a matcher that know only originals, and attackers that learned from
releases: an audit for each seed. Its figures are kept as JSON in `--rows` (OUT by default); presets that are there are
not measured again, and the table shows all of them. What was fitted is kept in OUT, and not fitted again. Seeds may run
side by side as processes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probes import mean
from tables import picked
from veil import findings as files
from veil.auditing import transfer
from veil.data import build, stylised
from veil.data.pack import Pack
from veil.release import Release
from veil.report import page as html
from veil.workflows import fit as fitting
from veil.workflows.audit import audit
from veil.workflows.fit import read_curves, write_curves
from veil.workflows.pictures import picture_sheet
from veil.workflows.subjects import INPUT, Subject

PRESETS = ("default", "hardened", "paper")
PEOPLE = "identities=1500,images=4"
"""Stylised faces, where LFW is not given."""
RETRAINED = "attribute.balanced_accuracy"
CODES = ("verification.transfer_auc", "verification.mixed_auc", "utility.ssim")


def one_seed(out: Path, rows: Path, seed: int, options: argparse.Namespace) -> None:
    """Pack, fits with sheets of 24 pairs, one audit of all, report; the figures of each preset, and input, as JSON."""
    presets = [preset for preset in options.presets if not (rows / f"{preset}.json").exists()]
    if not presets:
        return
    if not (out / "pack" / "pack.json").exists():
        layout, source = ("stylised", PEOPLE) if options.lfw is None else ("lfw", options.lfw)
        build.pack(layout, source, out / "pack", size=options.size, channels=options.channels, seed=seed)
    pack = Pack.open(out / "pack")
    subjects = []
    for preset in presets:
        if not (out / preset).exists():
            fit(pack, out, preset, seed)
        curves = read_curves(out / f"{preset}.curves.parquet")
        subjects.append(Subject(name=preset, release=Release.load(out / preset), curves=curves))
    folder = out / f"audit-{options.effort}"
    audit(
        pack, subjects, folder, private=["gender"], utility=["identity"], baselines=(), seed=seed,
        effort=options.effort, command=command(options),
    )  # fmt: skip
    html.write(folder)
    document = files.read(folder)
    rows.mkdir(parents=True, exist_ok=True)
    for preset in presets:
        found = {name: figures(document, name) for name in (INPUT, preset)}
        (rows / f"{preset}.json").write_text(json.dumps({"found": found}) + "\n")


def fit(pack: Pack, out: Path, preset: str, seed: int) -> None:
    """Fit a preset, and save its losses, a sheet of pairs and, last, the release; what it took is printed."""
    start = time.perf_counter()
    fitted = fitting.fit("san", pack, private=["gender"], preset=preset, seed=seed)
    release, seconds = fitted.release, time.perf_counter() - start
    write_curves(out / f"{preset}.curves.parquet", fitted.curves)
    x = np.asarray(pack.x[pack.rows("test")[:: max(len(pack.rows("test")) // 24, 1)][:24]])
    start = time.perf_counter()
    drawn = release.transform(np.repeat(x, 10, 0))[::10]
    speed = 10 * len(x) / (time.perf_counter() - start)
    strips = [part[i : i + 12] for i in (0, 12) for part in (x, drawn)]
    picture_sheet(strips).save(out / f"{preset}.png")
    release.save(out / preset)
    print(f"seed {seed}: {preset}: fitted in {seconds:.0f} s; {speed:.0f} images a second", flush=True)


def figures(document: dict[str, Any], release: str) -> dict[str, dict[str, Any]]:
    """Those of the table, by column."""
    own = [f for f in document["findings"] if f["release"] == release and f["status"] == "ok"]
    found: dict[str, dict[str, Any]] = {
        f["attacker"]: f for f in own if f["code"] == "attribute.transfer_balanced_accuracy"
    }
    found[RETRAINED] = picked(document, release, RETRAINED, "gender")
    found |= {f["code"]: f for f in own if f["code"] in CODES and f["worst"]}
    return {name: {k: f[k] for k in ("value", "low", "high", "attacker", "n")} for name, f in found.items()}


def write_results(path: Path, rows: Path, options: argparse.Namespace) -> None:
    """A table for each size, number of channels and effort, of all that was measured."""
    columns = [*transfer.CLASSIFIERS, RETRAINED, *CODES]
    made = options.lfw is None
    every_seed = sorted({place.name[5:] for place in rows.glob("*x*-*-*/seed-*")})
    lines = [
        f"# Semi-adversarial networks on {'stylised faces' if made else 'LFW'}",
        "",
        f"    {command(options)}",
        f"        --seeds {' '.join(every_seed)} --size SIZE --channels CHANNELS --presets PRESETS --effort EFFORT "
        "--results FILE",
        "",
        f"Method `san`; {datetime.datetime.now(datetime.UTC).date()}; torch {torch.__version__}, "
        f"{platform.machine()}. People disjoint;",
        "figures are of the `test` split, with 95 % intervals (clustered by person) in brackets.",
        "Gender (balanced accuracy, chance .5): classifiers that learned from originals alone, each (below .5 the",
        "opposite of what they say is right more often); then the worst attacker that learned from releases, picked on",
        "`calibrate`. Matching: AUC of a matcher that learned from originals, release with release and release with",
        "original. Settings were chosen on `calibrate` of seed 0 of LFW, at 64x64; `amplitude` and `tint` at 128x128,",
        "in RGB.",
    ]
    if made:
        best = stylised.gender_bayes_accuracy()
        lines += ["", f"{PEOPLE}; by construction no attack finds gender in more than {best:.1%} of people on average."]
    for place in sorted(rows.glob("*x*-*-*")):
        size, channels, effort = place.name.split("-")
        lines += [
            "",
            f"## {size}, {'RGB' if channels == '3' else 'grey'}, effort {effort}",
            "",
            f"| release | seed | n | {' | '.join(transfer.CLASSIFIERS)} | trained on releases | release - release "
            "| release - original | SSIM |",
            "|---" * (len(columns) + 3) + "|",
        ]
        seeds = sorted(place.glob("seed-*"))
        for name in (INPUT, *PRESETS):
            measured: dict[str, dict[str, Any]] = {}
            for seed in seeds:
                paths = [seed / f"{preset}.json" for preset in (PRESETS if name == INPUT else (name,))]
                if known := [path for path in paths if path.exists()]:
                    measured[seed.name[5:]] = json.loads(known[0].read_text())
            every = {seed: [row] for seed, row in measured.items()}
            if len(measured) > 1:
                every["mean"] = list(measured.values())
            for seed, found in every.items():
                cells = [
                    mean([r["found"][name][c] for r in found]) if c in found[0]["found"][name] else "-" for c in columns
                ]
                worst = [r["found"][name][RETRAINED] for r in found]
                alone = len(found) == 1
                cells[columns.index(RETRAINED)] += f", {worst[0]['attacker']}" * alone
                lines.append(f"| {name} | {seed} | {worst[0]['n'] if alone else ''} | {' | '.join(cells)} |")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))
    print(path)


def command(options: argparse.Namespace) -> str:
    """What was called, without the folders of a machine."""
    if options.lfw is None:
        return "python examples/san_faces.py --out DIR --rows docs/results/rows/san-stylised"
    return "python examples/san_faces.py --lfw DIR --out DIR --rows docs/results/rows/san-lfw"


def draw(path: Path, place: Path, presets: Sequence[str]) -> None:
    """Faces of `test`, and under them what each preset makes of them."""
    pack = Pack.open(place / "pack")
    rows = pack.rows("test")
    some = np.asarray(pack.x[rows[:: max(len(rows) // 12, 1)][:12]])
    strips = [some, *(Release.load(place / preset).transform(some) for preset in presets)]
    path.parent.mkdir(parents=True, exist_ok=True)
    picture_sheet(strips, scale=1).save(path)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, help="folder with the archive and the lists; without it, stylised faces")
    parser.add_argument("--out", type=Path, required=True, help="folder for packs, releases and audits")
    parser.add_argument("--rows", type=Path, help="folder for the figures of the table; OUT by default")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS[:2]), choices=PRESETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--channels", type=int, default=1, choices=[1, 3], help="1 (grey) or 3 (RGB)")
    parser.add_argument("--effort", default="quick", choices=["quick", "standard", "strong"], help="of the attackers")
    parser.add_argument("--results", type=Path, help="Markdown file for the table")
    parser.add_argument("--figure", type=Path, help="PNG of some faces of the first seed, and their releases")
    options = parser.parse_args()
    rows = options.rows or options.out / "rows"
    kind = f"{options.size}x{options.size}-{options.channels}"
    for seed in options.seeds:
        place = f"seed-{seed}"
        one_seed(options.out / kind / place, rows / f"{kind}-{options.effort}" / place, seed, options)
    if options.results is not None:
        write_results(options.results, rows, options)
    if options.figure is not None:
        draw(options.figure, options.out / kind / f"seed-{options.seeds[0]}", options.presets)


if __name__ == "__main__":
    main()
