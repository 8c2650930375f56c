"""Anonymised handwriting: mutual information and substitution on Pen-digits. Private: the writer. Use: the digit.

    python examples/mi_pendigits.py --pendigits DIR --out DIR [--rows DIR] [--seeds 0 1 2] [--results FILE]

DIR holds pendigits-orig.tra. As in the paper its 7,494 digits of 30 writers are split at random (5,494 to train on,
1,000 to validate, 1,000 to test), everything is released, and fresh networks learn to read writer and digit from
releases. No method sees the digit. Every row of the tables is a JSON file; those in `--rows` (OUT by default) are not
measured again, so an interrupted run continues, and seeds may run side by side as processes of their own. Tables and
figures are made from these files. Those of the results page lie in `docs/results/rows/mi-pendigits`; name another
folder to measure anew.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from probes import Figure, mean, read
from veil import InputError
from veil.auditing.certificate import certify
from veil.data import build
from veil.data.pack import Pack
from veil.engine import Run
from veil.methods import mi, substitution
from veil.methods.protocol import Task
from veil.nn.nets import to_input
from veil.release import Release
from veil.report.plots import INK, METHOD, MUTED, RULE
from veil.workflows import fit as fitting
from veil.workflows.pictures import picture_sheet

FRACTIONS = (5494 / 7494, 0.0, 1000 / 7494, 1000 / 7494)
LAMS = (0.0, 1.0, 1.25, 1.5)
"""Weights of ``mi``, over the paper's range."""
CODES = ((40, 2.0), (40, 0.0), (40, 6.0), (96, 2.0))
"""Numbers of codes to begin with, and weights, of ``substitution``."""
STYLE = ("strokes", "slant", "width")
NETWORK, TABLE = "plain CNN", "lookup table"
SIZES = (250, 500, 1000, 2000)
"""Calibration images with which certificates are compared; more than 1,000 take those of ``test`` too."""
COMMAND = (
    "python examples/mi_pendigits.py --pendigits DIR --out DIR --rows docs/results/rows/mi-pendigits "
    "--results docs/results/mi-pendigits.md"
)


def one_seed(
    source: Path, out: Path, rows: Path, seed: int, settings: dict[str, dict[str, Any]], methods: Sequence[str]
) -> None:
    """All rows of one seed, as JSON files in a folder; rows that are there already are skipped."""
    path = out / "pack"
    if not (path / "pack.json").exists():
        build.pack("pendigits", source, path, size=20, seed=seed, fractions=FRACTIONS, settings={"files": "train"})
    pack = Pack.open(path)
    row(rows, "Input", lambda: network_row(np.asarray(pack.x), pack, seed))
    for lam in LAMS if "mi" in methods else ():
        chosen = {"lam": lam, **settings["mi"]}
        row(rows, f"mi {lam:g}", lambda chosen=chosen: mi_row(pack, out, chosen, seed))  # type: ignore[misc]
    for codes, hide in CODES if "substitution" in methods else ():
        chosen = {"codes": codes, "hide": hide, **settings["substitution"]}
        name = f"substitution {codes} {hide:g}"
        row(rows, name, lambda chosen=chosen: substitution_row(pack, out, chosen, seed))  # type: ignore[misc]


def row(rows: Path, name: str, make: Callable[[], dict[str, Any]]) -> None:
    path = rows / f"{name.replace(' ', '-')}.json"
    if not path.exists():
        start = time.perf_counter()
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"name": name, **found}) + "\n")
        print(f"{rows.name}: {name} in {time.perf_counter() - start:.0f} s", flush=True)


def network_row(x: NDArray[Any], pack: Pack, seed: int, attackers: Sequence[str] = (NETWORK,)) -> dict[str, Any]:
    """What fresh networks read: the writer at effort standard, the digit, which is easy, at quick."""
    writer = read(x, pack, "writer", attackers, seed=seed)
    return {"writer": writer, "digit": read(x, pack, "digit", attackers, effort="quick", seed=seed)}


def mi_row(pack: Pack, out: Path, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        release = fitting.fit("mi", pack, private=["writer"], utility="digit", settings=settings, seed=seed).release
    except InputError as error:
        return {"refused": str(error)}
    seconds = time.perf_counter() - start
    release.save(out / f"mi-{settings['lam']:g}", force=True)
    return {"seconds": seconds, **network_row(release.transform(np.asarray(pack.x)), pack, seed)}


def substitution_row(pack: Pack, out: Path, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    start = time.perf_counter()
    release = fitting.fit(
        "substitution", pack, private=["writer"], utility="digit", preset="handwriting", settings=settings, seed=seed
    ).release
    seconds = time.perf_counter() - start
    release.save(out / f"substitution-{settings['codes']}-{settings['hide']:g}", force=True)
    x = release.transform(np.asarray(pack.x))
    found: dict[str, Any] = {"seconds": seconds, "codes": release.contract.support}
    # The table is the best there is on releases of few values; a network beside it needs no long training.
    found["writer"] = read(x, pack, "writer", (TABLE, NETWORK), effort="quick", seed=seed)
    for label in ("writer", "digit", *STYLE):
        found[label if label != "writer" else "writer by table"] = read(x, pack, label, (TABLE,), seed=seed)
    return found | bits(release, pack, seed) | certificates(release, pack, seed)


def bits(release: Release, pack: Pack, seed: int) -> dict[str, float]:
    """Entropy of the codes, and what the codes of two random views of an image share, in bits, on unseen images."""
    x = np.asarray(pack.x[pack.rows("calibrate", "test")])
    share = np.bincount(release.codes(x)) / len(x)
    config = substitution.Config(**release.config)
    step = next(iter(Run(seed=seed, precision="fp32").stage("views", 1)))
    p = []
    for _ in range(2):
        view = substitution.view(to_input(x, "images"), config, step, None)
        with torch.no_grad():
            p.append(release.encoder(view).exp()[:, None])
    share = share[share > 0]
    shared = float(substitution.shared(p[0], p[1])) / np.log(2)
    return {"entropy": float(-(share @ np.log2(share))), "shared": shared}


def certificates(release: Release, pack: Pack, seed: int) -> dict[str, Any]:
    """On ``calibrate``; on more and fewer images; and what independence itself would be certified as, by shuffling."""
    rows = np.concatenate([pack.rows("calibrate"), pack.rows("test")])
    codes, writers = release.codes(np.asarray(pack.x[rows])), pack.label("writer")[rows]
    rng = np.random.default_rng(seed)

    def bound(n: int, y: NDArray[np.int64]) -> tuple[float, float]:
        c = certify(codes[:n], y[:n], classes=30)
        return c.bound, c.mcdiarmid

    usable = [n for n in SIZES if n <= len(rows) and len(np.unique(writers[:n])) == 30]
    shuffled = {n: float(np.mean([bound(n, rng.permutation(writers[:n]))[0] for _ in range(50)])) for n in usable}
    return {
        "n": len(pack.rows("calibrate")),
        "bound": {n: bound(n, writers)[0] for n in usable},
        "mcdiarmid": {n: bound(n, writers)[1] for n in usable},
        "independent": shuffled,
    }


# -- tables -----------------------------------------------------------------------------------------------------------


def rows_of(rows: Path, name: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    paths = [rows / f"seed-{s}" / f"{name.replace(' ', '-')}.json" for s in seeds]
    return [json.loads(p.read_text()) for p in paths if p.exists()]


def write_results(path: Path, rows: Path, seeds: Sequence[int]) -> None:
    inputs = rows_of(rows, "Input", seeds)
    lines = [
        "# Handwriting without its writer: Pen-digits",
        "",
        "7,494 digits of 30 writers, 20x20, size-normalised; split at random, anew for each seed, into 5,494 to train",
        "on, 1,000 to validate (`calibrate`) and 1,000 to test, as in the paper. Private: the writer (chance .033).",
        "Use: the digit, which no method sees. Figures are balanced accuracies of fresh attackers that learn from the",
        "releases of the 5,494, means over the seeds that were run, with the mean limits of their 95 % intervals",
        "(each digit a unit). Settings were chosen with figures of seed 0 in view, `test` among them: of that seed",
        "the figures may flatter.",
        "",
        f"    {COMMAND} --seeds {' '.join(map(str, seeds))}",
        "",
        f"Seeds {', '.join(map(str, seeds))}; {datetime.datetime.now(datetime.UTC).date()}; torch {torch.__version__}, "
        f"{platform.machine()}.",
        "",
        f"Unprotected input ({NETWORK}): writer {mean([f['writer'] for f in inputs])}, "
        f"digit {mean([f['digit'] for f in inputs])}.",
        "",
        "## Mutual information (`mi`)",
        "",
        f"Networks read the released images ({NETWORK}; effort standard for the writer, quick for the digit).",
        "",
        "| lam | seeds | writer | digit |",
        "|---|---|---|---|",
    ]
    for lam in LAMS:
        found = rows_of(rows, f"mi {lam:g}", seeds)
        given = [f for f in found if "writer" in f]
        refused = [f["refused"] for f in found if "refused" in f]
        if given:
            figures = [mean([f[label] for f in given]) for label in ("writer", "digit")]
            lines.append(f"| {lam:g} | {len(given)} | {' | '.join(figures)} |")
        lines += [f"| {lam:g} | stopped in {len(refused)} of {len(found)} seeds: {refused[0]} | | |"] if refused else []
    lines += [
        "",
        "## Substitution",
        "",
        "A release is one of the codes in use; each code's substitute is an average over ten writers. Writer: the",
        f"worse of the exact attack on counts ({TABLE}) and a network, picked on `calibrate`; in the next column the",
        "table alone. Strokes, slant and width are styles that nobody trained for. Entropy of the codes, and what the",
        "codes of two random views of an image share, in bits, on unseen images. Certificate: what no attacker of",
        "any kind exceeds, at 95 % confidence, from the 1,000 images of `calibrate`; in brackets by McDiarmid's",
        "inequality. Independent: the certificate of the same codes with writers dealt at random, mean of 50.",
        "",
        "| codes to begin with, hide | seeds | in use | writer | by table | digit | strokes | slant | width | entropy "
        "| shared | certificate | independent |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for codes, hide in CODES:
        found = rows_of(rows, f"substitution {codes} {hide:g}", seeds)
        if not found:
            continue
        values = {k: float(np.mean([f[k] for f in found])) for k in ("codes", "entropy", "shared")}
        style = [f"{np.mean([f[s]['value'] for f in found]):.3f}" for s in STYLE]
        of = {k: float(np.mean([f[k][str(f["n"])] for f in found])) for k in ("bound", "mcdiarmid", "independent")}
        cells = [
            f"{codes}, {hide:g}", f"{len(found)}", f"{values['codes']:.0f}", mean([f["writer"] for f in found]),
            f"{np.mean([f['writer by table']['value'] for f in found]):.3f}", mean([f["digit"] for f in found]), *style,
            f"{values['entropy']:.2f}", f"{values['shared']:.2f}", f"{of['bound']:.3f} ({of['mcdiarmid']:.3f})",
            f"{of['independent']:.3f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "How certificates tighten with the number of images (writer; mean over the seeds; in brackets McDiarmid's):",
        "",
        "| codes to begin with, hide | " + " | ".join(f"n = {n:,}" for n in SIZES) + " |",
        "|---|" + "---|" * len(SIZES),
    ]
    for codes, hide in CODES:
        found = rows_of(rows, f"substitution {codes} {hide:g}", seeds)
        cells = []
        for n in SIZES:
            there = [f for f in found if str(n) in f["bound"]]
            both = (float(np.mean([f[k][str(n)] for f in there])) if there else 0 for k in ("bound", "mcdiarmid"))
            cells.append("{:.3f} ({:.3f})".format(*both) if there else "a writer is missing")
        lines += [f"| {codes}, {hide:g} | " + " | ".join(cells) + " |"] if found else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))
    print(path)


# -- figures ----------------------------------------------------------------------------------------------------------


def draw(folder: Path, rows: Path, seeds: Sequence[int]) -> None:
    """Fig. 2, the curve against lam; and the frontier of substitution, writer against what is said at all."""
    from matplotlib.figure import Figure as Canvas  # of the extra `explain`, which the tables do not need

    figure = Canvas(figsize=(9.6, 3.8), dpi=160, layout="constrained")
    left, right = figure.subplots(1, 2)

    def points(names: Sequence[str], key: str) -> list[list[Figure]]:
        return [[f[key] for f in rows_of(rows, name, seeds) if key in f] for name in names]

    for key, colour in (("digit", INK), ("writer", METHOD)):
        found = points([f"mi {lam:g}" for lam in LAMS], key)
        shown = [(lam, fs) for lam, fs in zip(LAMS, found, strict=True) if fs]
        value, low, high = (
            np.array([np.mean([f[k] for f in fs]) for _, fs in shown]) for k in ("value", "low", "high")
        )
        left.errorbar(
            [lam for lam, _ in shown], value, yerr=[value - low, high - value], color=colour, marker="o", markersize=4,
            linewidth=1.6, elinewidth=0.9, capsize=2,
        )  # fmt: skip
        left.annotate(key, (shown[-1][0], value[-1]), xytext=(6, 3), textcoords="offset points", color=colour)
    left.axhline(1 / 30, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
    left.set(xlabel="lam", ylabel="balanced accuracy of fresh networks", ylim=(0, 1.03), xlim=(-0.1, LAMS[-1] + 0.45))
    left.set_title("mi", loc="left", fontsize=10)
    for number, (codes, hide) in enumerate(CODES):
        found = rows_of(rows, f"substitution {codes} {hide:g}", seeds)
        if not found:
            continue
        x = float(np.mean([f["entropy"] for f in found]))
        table = [f["writer by table"] for f in found]
        value, low, high = (float(np.mean([f[k] for f in table])) for k in ("value", "low", "high"))
        bound = float(np.mean([f["bound"][str(f["n"])] for f in found]))
        right.errorbar(
            x, value, yerr=[[value - low], [high - value]], color=METHOD, marker="o", markersize=4, capsize=2
        )
        right.plot(x, bound, color=INK, marker="v", markersize=5)
        place = (-36, -3) if number % 2 == 0 else (6, -3)  # two may nearly coincide
        right.annotate(f"{codes}, {hide:g}", (x, bound), xytext=place, textcoords="offset points", fontsize=8)
    right.axhline(1 / 30, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
    right.set(
        xlabel="entropy of the codes, bits",
        ylabel="writer: table (dots), certificate (triangles)",
        ylim=(0, None),
        xlim=(2.5, 6.5),
    )
    right.set_title("substitution: codes to begin with, hide", loc="left", fontsize=10)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=RULE, linewidth=0.6)
    save(figure, folder / "mi-pendigits.png")


def pictures(folder: Path, out: Path, settings: dict[str, Any], lam: float) -> None:
    """Fig. 3, some digits over the steps of training; Fig. 4, digits and releases of both methods."""
    made = [out / "seed-0" / name for name in (f"mi-{lam:g}", "substitution-40-2")]
    if not all(path.exists() for path in made):
        print("no pictures: rows that were there already leave no releases; name another folder for --rows")
        return
    pack = Pack.open(out / "seed-0" / "pack")
    rows = pack.rows("test")[:12]
    x = np.asarray(pack.x[rows])
    config = mi.ALGORITHM.configured(None, {"lam": lam, **settings})
    run = Run(seed=0)
    training = mi.prepare(config, Task(pack=pack, private=["writer"], utility="digit", run=run))
    run.enter(*training.players)
    strips, at = [], {"auto-encoder": 1, "discriminator": 1, "joint": 6}
    for stage, step in training.train():
        every = max(step.count // at[stage], 1)
        if (step.number + 1) % every == 0:
            with torch.no_grad():
                drawn = training.network(to_input(x, "images").to(run.device))
                strips.append(drawn[:, 0].mul(255).round().byte().cpu().numpy())
    sheet = picture_sheet([x, *strips], scale=3)
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / "mi-steps.png", optimize=True)
    rows = pack.rows("test")[:24]
    x = np.asarray(pack.x[rows])
    releases = [Release.load(path) for path in made]
    picture_sheet([x, *(r.transform(x) for r in releases)], scale=2).save(folder / "mi-pairs.png", optimize=True)
    print(folder / "mi-steps.png", folder / "mi-pairs.png")


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pendigits", type=Path, required=True, help="folder with pendigits-orig.tra")
    parser.add_argument("--out", type=Path, required=True, help="folder for packs and releases")
    parser.add_argument("--rows", type=Path, help="folder for the rows of the tables; OUT by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=["mi", "substitution"], choices=["mi", "substitution"])
    parser.add_argument("--quick", action="store_true", help="a few steps: to see that it runs")
    parser.add_argument("--results", type=Path, help="Markdown file for the tables")
    parser.add_argument("--figures", type=Path, help="folder for the figures; needs the extra `explain` (matplotlib)")
    arguments = parser.parse_args()
    rows = arguments.rows or arguments.out
    settings: dict[str, dict[str, Any]] = {"mi": {}, "substitution": {}}
    if arguments.quick:
        settings["mi"] = {
            "steps_views": 2, "steps_alone": 2, "steps_discriminator": 1, "steps_joint": 3, "batch": 32,
            "least_variety": 0.0,
        }  # fmt: skip
        settings["substitution"] = {"steps": 4}
    for seed in arguments.seeds:
        place = (arguments.out / f"seed-{seed}", rows / f"seed-{seed}")
        one_seed(arguments.pendigits, *place, seed, settings, arguments.methods)
    if arguments.results is not None:
        write_results(arguments.results, rows, arguments.seeds)
    if arguments.figures is not None:
        draw(arguments.figures, rows, arguments.seeds)
        pictures(arguments.figures, arguments.out, settings["mi"], LAMS[-1])


if __name__ == "__main__":
    main()
