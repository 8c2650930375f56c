"""Semi-adversarial networks on LFW: faces that match and tell another gender, to whom, and how far.

    python examples/san_lfw.py --lfw DIR --out DIR [--seeds 0 1 2] [--size 64] [--channels 1] [--results FILE]

People disjoint. Each preset's releases meet classifiers and a matcher that know only originals, and attackers that
learned from releases; the whole audit, once a seed. What is already in OUT is kept.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probes import mean
from tables import picked
from veil import pipeline
from veil.audit import findings as files
from veil.audit import transfer
from veil.data import build
from veil.data.pack import Pack
from veil.report import html

PRESETS = ("default", "hardened")
COMMAND = "python examples/san_lfw.py --lfw DIR --out DIR --results docs/results/san-lfw.md"


def one_seed(source: Path, out: Path, seed: int, options: argparse.Namespace) -> None:
    """Pack, fit both presets, audit, report and a sheet of 24 pairs."""
    if not (out / "pack" / "pack.json").exists():
        build.pack("lfw", source, out / "pack", size=options.size, channels=options.channels, seed=seed)
    if (out / "audit" / files.NAME).exists():
        return
    pack = Pack.open(out / "pack")
    entries = []
    settings = dict(pair.split("=", 1) for pair in options.settings)
    for preset in PRESETS:
        start = time.perf_counter()
        release, curves = pipeline.fit("san", pack, private=["gender"], preset=preset, settings=settings, seed=seed)
        print(f"seed {seed}: {preset} fitted in {time.perf_counter() - start:.0f} s", flush=True)
        release.save(out / preset, force=True)
        entries.append(pipeline.Entry(name=preset, release=release, curves=curves))
        x = np.asarray(pack.x[pack.rows("test")[:: max(len(pack.rows("test")) // 24, 1)][:24]])
        start = time.perf_counter()
        drawn = release.transform(np.repeat(x, 10, 0))[::10]
        print(f"  {10 * len(x) / (time.perf_counter() - start):.0f} images a second", flush=True)
        strips = [part[i : i + 12] for i in (0, 12) for part in (x, drawn)]
        pipeline.picture_sheet(strips).save(out / f"{preset}.png")
    pipeline.audit_pack(
        pack, out / "audit", entries, private=["gender"], utility=["identity"], baselines=(), seed=seed,
        effort=options.effort, command=COMMAND,
    )  # fmt: skip
    html.write(out / "audit")


def write_results(path: Path, out: Path, seeds: Sequence[int], options: argparse.Namespace) -> None:
    done = [s for s in seeds if (out / f"seed-{s}" / "audit" / files.NAME).exists()]
    lines = [
        "# Semi-adversarial networks on LFW",
        "",
        f"    {COMMAND} --seeds {' '.join(map(str, done))} --size {options.size} --channels {options.channels}",
        "",
        f"Method `san`; {datetime.datetime.now(datetime.UTC).date()}; torch {torch.__version__}, "
        f"{platform.machine()}; effort {options.effort}. {options.size}x{options.size} pixels,",
        f"{'RGB' if options.channels == 3 else 'grey'}; people disjoint; 95 % intervals in brackets.",
        "Gender (chance .5): classifiers that learned from originals alone, each; then the worst attacker that learned",
        "from releases, picked on `calibrate`. Matching: AUC of a matcher that learned from originals, release with",
        "release and release with original.",
        "",
        f"| seed | release | {' | '.join(transfer.CLASSIFIERS)} | trained on releases | release - release "
        "| release - original | SSIM |",
        "|---" * (len(transfer.CLASSIFIERS) + 6) + "|",
    ]
    for seed in done:
        document = files.read(out / f"seed-{seed}" / "audit")
        for name in (pipeline.INPUT, *PRESETS):
            own = [f for f in document["findings"] if f["release"] == name and f["status"] == "ok"]

            def of(code: str, attacker: str | None = None, own: list[dict[str, Any]] = own) -> str:
                found = [f for f in own if f["code"] == code and attacker in (None, f["attacker"])]
                return mean(found[:1]) if found else ""

            cells = [of("attribute.transfer_balanced_accuracy", a) for a in transfer.CLASSIFIERS]
            cells.append(mean([picked(document, name, "attribute.balanced_accuracy", "gender")]))
            cells += [of(c) for c in ("verification.transfer_auc", "verification.mixed_auc", "utility.ssim")]
            lines.append(f"| {seed} | {name} | {' | '.join(cells)} |")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True, help="folder with the archive and the lists")
    parser.add_argument("--out", type=Path, required=True, help="folder for packs, releases and audits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--channels", type=int, default=1, choices=[1, 3], help="1 (grey) or 3 (RGB)")
    parser.add_argument("--effort", default="quick", choices=["quick", "standard", "strong"], help="of the attackers")
    parser.add_argument("--set", nargs="*", default=[], dest="settings", help="NAME=VALUE, settings of both fits")
    parser.add_argument("--results", type=Path, help="Markdown file for the table")
    options = parser.parse_args()
    for seed in options.seeds:
        one_seed(options.lfw, options.out / f"seed-{seed}", seed, options)
    if options.results is not None:
        write_results(options.results, options.out, options.seeds, options)


if __name__ == "__main__":
    main()
