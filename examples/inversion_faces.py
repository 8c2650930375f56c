"""Inversion: the three tables of its paper, on stylised faces and LFW.

    python examples/inversion_faces.py --out DIR [--rows DIR] [--lfw DIR] [--seeds 0 1 2] [--quick] [--results FILE]
        [--figures DIR]

Table 1: representations that are not protected, protected against a decoder in training (the paper), or of bounded
capacity (the default), under decoders of three strengths, and of one label alone; Table 2: the weight mu2 of the
perceptual distance; Table 3: where the network is cut. Labels: expression, smile and glasses of stylised faces; gender
and smile of LFW; 40x40 pixels, ResNet-18. One unprotected network of each seed serves every cut, and protected ones
begin with it. Rows are JSON files; those in `--rows` (OUT by default) are not measured again, so an interrupted run
continues, and seeds may run side by side as processes. `--quick` does a few rows of Tables 1 and 3, with fewer steps.
`--large` is for a GPU: ResNet-50, 112 pixels.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probes import mean
from veil.auditing import inversion as attacks
from veil.auditing import judges as judging
from veil.auditing.decoders import DECODERS, MORE_DATA
from veil.auditing.intervals import mcc_interval
from veil.auditing.rosters import roster
from veil.auditing.setting import Inversion, Networks, Setting
from veil.data import build
from veil.data.pack import Pack
from veil.methods import inversion
from veil.nn.onnxfile import OnnxNetwork
from veil.release import Release
from veil.workflows import fit as fitting
from veil.workflows.pictures import picture_sheet

CUTS = ("conv1", "layer1", "layer2", "layer3", "pool", "fc")
WEIGHTS = (0.0, 3.0, 10.0)
KINDS = ("unprotected", "adversarial", "default")
"""Presets that are compared."""
LABELS = {"stylised": ("expression", "smile", "glasses"), "lfw": ("gender", "smile")}
SINGLE = "glasses"
PROTECTED = {"conv1": KINDS[:2], "layer1": KINDS[::2], "fc": KINDS}
"""What is compared at a cut; where nothing is said, how much is redrawn without protection."""
STEPS = {"unprotected": 1200, "adversarial": 100, "default": 400, "longer": 2000}
"""Of encoder and classifier; protected ones begin where the unprotected one ends. `longer` is of `default` at layer1,
where the encoder has few layers to tell labels with; of LFW, which is small, not."""
QUICK = {"unprotected": 300, "adversarial": 50, "default": 100, "longer": 400}
QUICK_ROWS = {
    "stylised": (("fc", "unprotected"), ("fc", "adversarial"), ("fc", "default"), ("layer1", "default")),
    "lfw": (("fc", "unprotected"), ("fc", "default")),
}
AS_LONG = "unprotected as long"
"""The unprotected network after as many steps more: what labels would gain by the steps alone."""
SHORT = {"steps_decoder": 100, "steps_perceptual": 100, "ahead": 1}
SIZE = 40
COMMAND = (
    "python examples/inversion_faces.py --out DIR --lfw DIR --rows docs/results/rows/inversion "
    "--results docs/results/inversion.md --figures docs/figures"
)
FIGURES = ("face_similarity", "rank1", "feature_similarity", "ssim", "psnr", "perceptual", "lda")


@dataclass(frozen=True)
class Row:
    """One representation: where it was cut, how it was protected, what it keeps."""

    name: str
    preset: str
    cut: str
    labels: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    decoders: tuple[str, ...] = ("linear decoder", "strong decoder")


def rows(data: str, *, quick: bool) -> list[Row]:
    """All that the tables need; rows that two tables share are made once."""
    labels, every = LABELS[data], tuple(DECODERS)
    if quick:
        return [Row(f"{cut} {kind}", kind, cut, labels) for cut, kind in QUICK_ROWS[data]]
    if data == "lfw":
        return [Row(f"{cut} {kind}", kind, cut, labels) for cut in ("fc", "layer1") for kind in PROTECTED[cut]]
    made = [Row(f"fc {kind}", kind, "fc", labels, decoders=every) for kind in PROTECTED["fc"]]
    for cut in CUTS[:-1]:
        made += [Row(f"{cut} {kind}", kind, cut, labels) for kind in PROTECTED.get(cut, ("unprotected",))]
    made += [Row(f"single {kind}", kind, "fc", (SINGLE,)) for kind in ("unprotected", "default")]
    for mu2 in WEIGHTS:  # without any weight there is no adversary, and so no stage beside one
        alone = {} if mu2 else {"steps_alone": STEPS["adversarial"]}
        made.append(Row(f"mu2 {mu2:g}", "adversarial", "fc", labels, {"mu1": 0.0, "mu2": mu2, **alone}))
    made.append(Row(AS_LONG, "unprotected", "fc", labels, {"steps_alone": STEPS["longer"]}, decoders=()))
    return made


def one_seed(
    pack: Pack, data: str, out: Path, place: Path, seed: int, options: argparse.Namespace, common: dict[str, Any]
) -> None:
    """Every row of a data set and a seed, as a JSON file in ``place``, and a strip of redrawn pictures in ``out``."""
    judges: judging.Judges | None = None
    matcher = None if options.matcher is None else OnnxNetwork(options.matcher)
    effort = "quick" if options.quick else options.effort
    some = np.concatenate([pack.rows(split) for split in ("attack", "calibrate", "test")])
    used = some if effort == "quick" else np.arange(len(pack.x))
    setting = Setting(
        pack=pack, private=(), utility=(), roster=roster(effort), effort=effort, seed=seed,
        inversion=Inversion(perceptual=options.perceptual), networks=Networks(matcher=matcher),
    )  # fmt: skip
    for row in rows(data, quick=options.quick):
        path = place / f"{row.name.replace(' ', '-')}.json"
        if path.exists():
            continue
        if row.decoders and judges is None:
            judges = judging.judges(setting)
        start = time.perf_counter()
        release = fitted_as(row, pack, out, seed, QUICK if options.quick else STEPS, common)
        fitted = time.perf_counter() - start
        x = np.zeros((len(pack.x), release.contract.k), np.float32)  # what is never read stays 0
        x[used] = release.transform(np.asarray(pack.x[used]))
        document: dict[str, Any] = {"name": row.name, "fitted": fitted, "k": release.contract.k}
        if row.decoders:
            assert judges is not None
            by = replace(setting, roster=roster(effort, decoders={name: DECODERS[name] for name in row.decoders}))
            redrawn = attacks.invert(
                by, judges, x, release=row.name, role="method", feature_map=release.contract.feature_map
            )
            if redrawn.picture is not None:
                np.save(out / f"{path.stem}.npy", redrawn.picture)
            people = len(np.unique(pack.label("identity")[pack.rows("test")]))
            document |= {"judges": judges.about, "people": people, "findings": [asdict(f) for f in redrawn.findings]}
        scores = release.predict(x[pack.rows("test")])
        document["mcc"] = {label: kept(pack, label, scores[label]) for label in row.labels}
        document["seconds"] = time.perf_counter() - start
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document) + "\n")
        print(f"{data}, seed {seed}: {row.name} in {document['seconds']:.0f} s", flush=True)


def fitted_as(row: Row, pack: Pack, out: Path, seed: int, steps: Mapping[str, int], common: dict[str, Any]) -> Release:
    """The row's release: the unprotected network, which is fitted once, or one that begins with it."""
    if (row.cut, row.labels) == ("layer1", LABELS["stylised"]):
        steps = {**steps, "default": steps["longer"]}

    def fit(preset: str, settings: dict[str, Any]) -> Release:
        stage = "steps_joint" if preset == "adversarial" else "steps_alone"
        chosen: dict[str, Any] = {"steps_alone": 0, stage: steps[preset], "labels": ",".join(row.labels[1:])}
        return fitting.fit(
            "inversion", pack, private=[], utility=row.labels[0], preset=preset,
            settings={**chosen, **settings, **common}, seed=seed,
        ).release  # fmt: skip

    plain = out / f"unprotected-{'-'.join(row.labels)}"
    if not plain.exists():
        fit("unprotected", {}).save(plain)
    if row.preset == "unprotected" and not row.settings:
        return inversion.recut(Release.load(plain), row.cut)
    return fit(row.preset, {"cut": row.cut, "weights": str(plain), **row.settings})


def kept(pack: Pack, label: str, p: Any) -> tuple[float, float, float]:
    """Matthews' correlation of the server's own classifier on test people, with its interval."""
    test = pack.rows("test")
    y = pack.label(label)[test]
    known = y >= 0
    return mcc_interval(
        y[known], p[known].argmax(1), pack.label("identity")[test][known], classes=len(pack.classes[label])
    )


# -- tables -----------------------------------------------------------------------------------------------------------


def read(out: Path, data: str, name: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    paths = [out / f"{data}-{seed}" / f"{name.replace(' ', '-')}.json" for seed in seeds]
    return [json.loads(p.read_text()) for p in paths if p.exists()]


def figure(row: dict[str, Any], code: str, attacker: str | None = None) -> dict[str, Any] | None:
    """The finding of an attacker, or of the worst."""
    found = [f for f in row["findings"] if f["code"] == f"inversion.{code}" and f["status"] == "ok"]
    if code == "lda":
        return found[0] if found else None
    return next((f for f in found if (f["worst"] if attacker is None else f["attacker"] == attacker)), None)


def averaged(figures: Sequence[dict[str, Any] | None], digits: int = 3) -> str:
    """Mean over the seeds, with the mean limits of their intervals."""
    there = [f for f in figures if f is not None]
    return mean(there, digits) if there else "none"


def mean_mcc(found: Sequence[dict[str, Any]]) -> str:
    """Mean over labels and seeds; in brackets the mean limits of the labels' intervals, which are too wide for it."""
    each = np.array([np.mean(list(row["mcc"].values()), axis=0) for row in found]).mean(0)
    return f"{each[0]:.3f} ({each[1]:.3f} - {each[2]:.3f})"


def line(first: str, found: Sequence[dict[str, Any]], attacker: str | None = None) -> str:
    cells = [averaged([figure(r, code, attacker) for r in found], 2 if code == "psnr" else 3) for code in FIGURES]
    return f"| {first} | {len(found)} | {mean_mcc(found)} | {' | '.join(cells)} |"


def write_results(path: Path, out: Path, seeds: Sequence[int], options: argparse.Namespace) -> None:
    steps = QUICK if options.quick else STEPS
    names = ("seeds", "mean MCC", "face similarity", "person found first", "feature similarity", "SSIM", "PSNR")
    head = f"| {' | '.join((*names, 'perceptual', 'LDA'))} |"
    rule = "|---" * 10 + "|"
    lines = [
        "# Representations that resist inversion",
        "",
        f"    {COMMAND} --seeds {' '.join(map(str, seeds))}" + " --quick" * options.quick,
        "",
        f"Method `inversion`; {datetime.datetime.now(datetime.UTC).date()}; torch {torch.__version__}, "
        f"{platform.machine()}; {'quick' if options.quick else options.effort} decoders. Figures are means over the",
        "seeds of test people that neither protector nor attackers saw, with the mean limits of their 95 % intervals",
        "(clustered by person). MCC is of the release's own classifier. Unless a decoder is named, the one with the",
        "highest face similarity on `calibrate` is shown. Mean image and shuffled pairs: what is got without",
        f"releases. Protected networks begin with the unprotected one and learn on: by {steps['adversarial']} steps",
        f"(`adversarial`) or {steps['default']} (`default`; at layer1 of stylised faces {steps['longer']:,}). Rows",
        "that are not here have not been run.",
    ]
    for data, title in (("stylised", "Stylised faces"), ("lfw", "LFW")):
        first = [r for cut in CUTS for kind in KINDS for r in read(out, data, f"{cut} {kind}", seeds)]
        if not first:
            continue
        single = [f"{where} {kind}" for where in ("fc", "single") for kind in KINDS]
        lines += [
            "", f"## {title}", "",
            f"Labels: {', '.join(LABELS[data])}. Judged by: {first[0]['judges']}. People in the test split: "
            f"{first[0]['people']:,}.",
            "", "Table 1, at fc, by decoder; and what is got without releases:", "",
            f"| representation, decoder {head}", rule,
        ]  # fmt: skip
        for name in single:
            found = read(out, data, name, seeds)
            shown = name.replace("single", f"{SINGLE} alone,").replace("fc ", "all labels, ")
            for attacker in (*DECODERS, MORE_DATA):
                there = [r for r in found if figure(r, "ssim", attacker) is not None]
                lines += [line(f"{shown}: {attacker}", there, attacker)] if there else []
        for control in (attacks.MEAN, attacks.DEALT):  # the same of every row of a seed, or nearly so
            there = [r for r in read(out, data, "fc unprotected", seeds) if figure(r, "ssim", control) is not None]
            nothing = {code: averaged([figure(r, code, control) for r in there]) for code in FIGURES[:-1]}
            if control == attacks.MEAN:
                guesses = [figure(r, "feature_similarity", "mean feature") for r in there]
                nothing["feature_similarity"] = averaged(guesses)
            lines += [f"| {control} | {len(there)} | | {' | '.join(nothing.values())} | |"] if there else []
        weights = [(w, read(out, data, f"mu2 {w:g}", seeds)) for w in WEIGHTS]
        if any(found for _, found in weights):
            lines += ["", "Table 2, the paper's objective (bounded, without noise) at fc:", "", f"| mu2 {head}", rule]
            lines += [line(f"{w:g}", found) for w, found in weights if found]
        lines += ["", "Table 3, where the network is cut:", "", f"| cut {head}", rule]
        for cut in CUTS:
            for kind in KINDS:
                found = read(out, data, f"{cut} {kind}", seeds)
                lines += [line(f"{cut}, {kind}", found)] if found else []
        if longer := read(out, data, AS_LONG, seeds):
            lines += [
                "",
                f"The unprotected network after {steps['longer']:,} steps more, as many as layer1's default had: mean "
                f"MCC {mean_mcc(longer)}, {len(longer)} seeds.",
            ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))
    print(path)


def draw(folder: Path, out: Path) -> None:
    """Stylised faces above what decoders redraw from every cut, without and with protection; and the series of mu2."""
    place = out / "stylised-0"
    pack = Pack.open(place / "pack")
    x = np.asarray(pack.x[attacks.shown(pack)])
    for name, wanted in (
        ("inversion-cuts", [f"{cut}-{kind}" for cut in CUTS for kind in KINDS]),
        ("inversion-mu2", [f"mu2-{w:g}" for w in WEIGHTS]),
    ):
        strips = [np.load(place / f"{w}.npy") for w in wanted if (place / f"{w}.npy").exists()]
        if strips:
            folder.mkdir(parents=True, exist_ok=True)
            picture_sheet([x, *strips]).save(folder / f"{name}.png", optimize=True)
            print(folder / f"{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for packs, networks and pictures")
    parser.add_argument("--rows", type=Path, help="folder for the rows of the tables; OUT by default")
    parser.add_argument("--lfw", type=Path, help="folder with the archive and the lists; without it no LFW")
    parser.add_argument("--seeds", type=int, nargs="+", help="0 1 2 by default; 0 with --quick")
    parser.add_argument("--quick", action="store_true", help="fewer rows and steps, quick decoders")
    parser.add_argument("--large", action="store_true", help="ResNet-50 and 112 pixels, for a GPU")
    parser.add_argument("--effort", default="quick", choices=["quick", "standard", "strong"], help="of the decoders")
    parser.add_argument("--matcher", type=Path, help="ONNX face matcher")
    parser.add_argument("--perceptual", type=Path, help="torchvision's VGG-16 weights")
    parser.add_argument("--set", nargs="*", default=[], dest="settings", help="NAME=VALUE, settings of every fit")
    parser.add_argument("--people", type=int, default=1500, help="stylised people, of six images each")
    parser.add_argument("--results", type=Path, help="Markdown file for the tables")
    parser.add_argument("--figures", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    common: dict[str, Any] = {**({"depth": 50} if options.large else SHORT)}
    common |= dict(pair.split("=", 1) for pair in options.settings)
    size, rows_at = 112 if options.large else SIZE, options.rows or options.out
    seeds = options.seeds or ([0] if options.quick else [0, 1, 2])
    for seed in seeds:
        for data in ("stylised", *(("lfw",) if options.lfw is not None else ())):
            place = options.out / f"{data}-{seed}"
            source: Any = f"identities={options.people},images=6" if data == "stylised" else options.lfw
            if not (place / "pack" / "pack.json").exists():
                build.pack(data, source, place / "pack", size=size, seed=seed)
            one_seed(Pack.open(place / "pack"), data, place, rows_at / place.name, seed, options, common)
    if options.results is not None:
        write_results(options.results, rows_at, seeds, options)
    if options.figures is not None:
        draw(options.figures, options.out)


if __name__ == "__main__":
    main()
