"""Substitution on faces: stylised characters shown as one of them, and LFW's smiles without gender.

    python examples/substitution_faces.py --out DIR [--lfw DIR] [--seeds 0 1 2] [--results FILE]

Characters: 6, then 60, with seven expressions; private: who it is; use: the expression. Every release is an image of
one target character, for five targets, as in Table 1 of the mutual-information paper. LFW: private: gender; use: smile;
people disjoint; the whole audit, with its certificate, once a seed. What is already in OUT is kept.
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

from probes import mean, read
from tables import picked
from veil import findings as files
from veil.auditing.certificate import certify
from veil.data import build
from veil.data.pack import Pack
from veil.report import page as html
from veil.workflows import fit as fitting
from veil.workflows.audit import audit
from veil.workflows.pictures import picture_sheet
from veil.workflows.subjects import INPUT, Subject

CHARACTERS: dict[int, tuple[int, int, dict[str, float]]] = {6: (500, 0, {}), 60: (60, 1, {"hide": 2.0, "keep": 1.0})}
"""Characters: images of each, seed of the population, settings (compared on another population)."""
FRACTIONS = (0.5, 0.2, 0.15, 0.15)
TARGETS = 5
LFW = {"hide": 60.0}
"""Settings of LFW: of 20 and 60, the one that gave away less on `calibrate`."""
COMMAND = "python examples/substitution_faces.py --out DIR --lfw DIR --results docs/results/substitution-faces.md"


def characters(out: Path, count: int, settings: dict[str, Any]) -> None:
    """One row for each target, as a JSON file in OUT."""
    path = out / f"characters-{count}"
    if not (path / "pack.json").exists():
        images, seed, _ = CHARACTERS[count]
        source = f"identities={count},images={images}"
        build.pack("stylised", source, path, size=50, fractions=FRACTIONS, disjoint=False, seed=seed)
    pack = Pack.open(path)
    x = np.asarray(pack.x)
    for number in range(TARGETS):
        done = out / f"characters-{count}-{number}.json"
        if not done.exists():
            target = pack.classes["identity"][number]
            start = time.perf_counter()
            release = fitting.fit(
                "substitution", pack, private=["identity"], utility="expression", seed=number,
                settings={"target": target, "expose": True, **CHARACTERS[count][2], **settings},
            ).release  # fmt: skip
            released = release.transform(x)
            options: dict[str, Any] = {"learn": ("protect", "attack"), "seed": number}
            calibrate = pack.rows("calibrate")
            bound = certify(
                release.codes(x[calibrate]), pack.label("identity")[calibrate], classes=count, confidence=0.95
            )
            done.write_text(
                json.dumps(
                    {
                        "target": target,
                        "codes": release.contract.support,
                        "identity": read(released, pack, "identity", ("lookup table", "plain CNN"), **options),
                        "expression": read(released, pack, "expression", ("lookup table",), **options),
                        "bound": bound.bound,
                    }
                )
            )
            picture_sheet([x[calibrate[:12]], released[calibrate[:12]]]).save(done.with_suffix(".png"))
            print(f"{count} characters, {target}: {time.perf_counter() - start:.0f} s", flush=True)


def lfw(source: Path, out: Path, seed: int, settings: dict[str, Any]) -> None:
    """Pack, fit, audit and report of one seed."""
    path = out / f"lfw-{seed}"
    if not (path / "pack" / "pack.json").exists():
        build.pack("lfw", source, path / "pack", size=48, seed=seed)
    if (path / "audit" / files.NAME).exists():
        return
    pack = Pack.open(path / "pack")
    start = time.perf_counter()
    fitted = fitting.fit(
        "substitution", pack, private=["gender"], utility="smile", settings={**LFW, **settings}, seed=seed
    )
    print(f"lfw, seed {seed}: fitted in {time.perf_counter() - start:.0f} s", flush=True)
    fitted.release.save(path / "release", force=True)
    subject = Subject(name="Substitution", release=fitted.release, curves=fitted.curves)
    audit(
        pack, [subject], path / "audit", private=["gender"], utility=["smile"], baselines=(), seed=seed, effort="quick",
        command=COMMAND,
    )  # fmt: skip
    html.write(path / "audit")


def told(pack: Pack, split: str) -> float:
    """Balanced accuracy on gender of the best guess from the true label of the smile."""
    rows = pack.rows(split, known=("gender", "smile"))
    gender, smile = pack.label("gender")[rows], pack.label("smile")[rows]
    smiling = [float(np.mean(smile[gender == z] == 1)) for z in (0, 1)]
    return 0.5 + abs(smiling[0] - smiling[1]) / 2


def write_results(path: Path, out: Path, seeds: Sequence[int]) -> None:
    lines = [
        "# Substitution on faces",
        "",
        f"    {COMMAND} --seeds {' '.join(map(str, seeds))}",
        "",
        f"Method `substitution`; {datetime.datetime.now(datetime.UTC).date()}; torch {torch.__version__}, "
        f"{platform.machine()}. 95 % intervals",
        "in brackets.",
        "",
        "## Stylised characters shown as one of them",
        "",
        "Grey images, 50x50, split at random: 50 % to protect, 20 % to attack, 15 % to calibrate, 15 % to test.",
        "Private: who it is. Use: one of seven expressions (chance .143). Every release is one of a few images of the",
        "target. Attackers, a table and a network (plain CNN), learn on protect and attack; shown is the one picked on",
        "calibrate. One seed for each target; images are the units. Certificate: on every attacker, 95 %. Preset",
        "`default`; for 60 characters with hide=2 and keep=1, which were compared with it on another population.",
        "",
        "| characters | target | codes | who it is | chance | certificate | expression |",
        "|---|---|---|---|---|---|---|",
    ]
    for count in CHARACTERS:
        rows = [json.loads(p.read_text()) for p in sorted(out.glob(f"characters-{count}-*.json"))]
        for row in rows:
            lines.append(
                f"| {count} | {row['target']} | {row['codes']} | {mean([row['identity']])} | {1 / count:.3f} | "
                f"{row['bound']:.3f} | {mean([row['expression']])} |"
            )
    done = [s for s in seeds if (out / f"lfw-{s}" / "audit" / files.NAME).exists()]
    if done:
        lines += [
            "",
            "## Smiles of LFW without gender",
            "",
            "Preset `default` with hide=60, chosen on `calibrate`. 48x48 grey, people disjoint; attackers of effort",
            "quick learn on `attack`, the worst is picked on `calibrate` and measured on `test`. Normalised gain: what",
            "is left of the attack's gain over chance on the input. The certificate takes people, of whom `calibrate`",
            "has few, for units. Women smile more often here: last, what the true label of the smile tells of gender",
            "in `protect`, where a protector can learn to make up for it, and in `test` (images of known smile).",
            "",
            "| seed | gender, input | gender, release | normalised gain | certificate | smile, input | smile, release "
            "| gender from the smile itself |",
            "|---|---|---|---|---|---|---|---|",
        ]
    for seed in done:
        document = files.read(out / f"lfw-{seed}" / "audit")

        def cell(release: str, code: str, target: str, document: dict[str, Any] = document) -> str:
            return mean([picked(document, release, code, target)])

        def one(code: str, document: dict[str, Any] = document) -> dict[str, Any]:
            return next(f for f in document["findings"] if (f["release"], f["code"]) == ("Substitution", code))

        attack, use = "attribute.balanced_accuracy", "utility.balanced_accuracy"
        cells = [
            cell(INPUT, attack, "gender"), cell("Substitution", attack, "gender"),
            f"{one('attribute.normalised_gain')['value']:.3f}", f"{one('certificate.balanced_accuracy')['value']:.3f}",
            cell(INPUT, use, "smile"), cell("Substitution", use, "smile"),
        ]  # fmt: skip
        pack = Pack.open(out / f"lfw-{seed}" / "pack")
        cells.append(", ".join(f"{told(pack, split):.3f}" for split in ("protect", "test")))
        lines.append(f"| {seed} | {' | '.join(cells)} |")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for packs, rows and audits")
    parser.add_argument("--lfw", type=Path, help="folder with the archive and the lists; without it no LFW")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="a few steps: to see that it runs")
    parser.add_argument("--results", type=Path, help="Markdown file for the tables")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {"steps": 5} if arguments.quick else {}
    for count in CHARACTERS:
        characters(arguments.out, count, settings)
    for seed in arguments.seeds if arguments.lfw is not None else []:
        lfw(arguments.lfw, arguments.out, seed, settings)
    if arguments.results is not None:
        write_results(arguments.results, arguments.out, arguments.seeds)


if __name__ == "__main__":
    main()
