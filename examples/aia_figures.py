"""The figures of AIA's paper on stylised faces: AUC against alpha and beta (Fig. 2), pictures and Grad-CAM (Fig. 3).

    python examples/aia_figures.py [--quick] [--seeds 0 1 2] [--out docs]

Needs the extra `explain` (captum, matplotlib). Writes OUT/figures/aia-fig2.png, OUT/figures/aia-fig3.png and
OUT/results/aia-figures.md. `--quick` is a small run to see that it works.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.auditing.metrics import balanced_accuracy
from veil.data import stylised
from veil.data.pack import Pack
from veil.findings import Finding
from veil.nn.losses import balanced_weights
from veil.nn.nets import SixConvolutions
from veil.release import Release
from veil.report.plots import INK, METHOD, MUTED, PLAYERS, RULE
from veil.workflows import fit as fitting
from veil.workflows.audit import audit
from veil.workflows.subjects import Subject

PRIVATE, FIXED, LOW_ALPHA = "gender", 0.5, 0.2
LONGER = 3  # times the steps alone for Fig. 3, whose decoder should draw as well as it can
ROWS = (  # of Fig. 2: what, code, target
    ("Gender inference, AUC", "attribute.auc", PRIVATE),
    ("Matching, AUC", "verification.auc", "identity"),
)
LEVELS = {"Original": PLAYERS[1], "Random": PLAYERS[5], "AIA\\T": PLAYERS[2]}
STYLE = {
    "font.size": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}

Setting = tuple[float, float]
"""alpha, beta"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A figure with its interval, the mean over seeds of each, and who reached it for each seed."""

    value: float
    low: float
    high: float
    who: tuple[str, ...]


Results = dict[str, dict[str, Measured]]
"""By release name, then by code."""


# -- fits and attacks -------------------------------------------------------------------------------------------------


def settings_of(values: Sequence[float]) -> list[Setting]:
    """Those of Fig. 2: each of alpha and beta over the values with the other at FIXED."""
    return sorted({(FIXED, v) for v in values} | {(v, FIXED) for v in values} | {(0.0, FIXED)})


def name_of(setting: Setting) -> str:
    """AIA\\T is AIA without its task: alpha = 0 at the usual beta."""
    return "AIA\\T" if setting == (0.0, FIXED) else f"alpha {setting[0]:g}, beta {setting[1]:g}"


def faces(a: argparse.Namespace, seed: int) -> Pack:
    drawn = stylised.population(a.people, a.images, seed=seed)
    names = [drawn.names(row) for row in range(len(drawn))]
    labels = {label: [n[label] for n in names] for label in ("identity", PRIVATE)}
    return Pack.from_arrays(stylised.render(drawn, size=a.size), labels, seed=seed)


def fit(a: argparse.Namespace, pack: Pack, setting: Setting, seed: int, *, longer: int = 1) -> Release:
    """Preset `paper`; ``longer`` times the steps alone."""
    alpha, beta = setting
    settings = {
        "alpha": alpha, "beta": beta, "batch": a.batch, "steps_alone": longer * a.steps_alone,
        "steps_joint": a.steps_joint,
    }  # fmt: skip
    started = time.perf_counter()
    release = fitting.fit("aia", pack, private=[PRIVATE], preset="paper", settings=settings, seed=seed).release
    print(f"  alpha {alpha:g}, beta {beta:g}: {time.perf_counter() - started:.0f} s", flush=True)
    return release


def one_seed(a: argparse.Namespace, pack: Pack, seed: int) -> list[Finding]:
    """The findings of every release of Fig. 2."""
    print(f"seed {seed}: fitting", flush=True)
    original = fit(a, pack, (0.0, 0.0), seed)
    releases = {
        "Original": original,
        "Random": fitting.fit("random", pack, private=[PRIVATE], seed=seed, base=original).release,
        **{name_of(s): fit(a, pack, s, seed) for s in settings_of(a.values)},
    }
    print(f"seed {seed}: attacking {len(releases)} releases", flush=True)
    subjects = [Subject(name=name, release=release, role="method") for name, release in releases.items()]
    made = audit(
        pack, subjects, private=[PRIVATE], utility=["identity"], baselines=(), with_input=False, seed=seed,
        effort="quick", jobs=a.jobs,
    )  # fmt: skip
    return list(made.findings)


def collected(found: Sequence[Sequence[Finding]]) -> Results:
    """The picked attacker's and the picked matcher's figures, over seeds."""
    results: Results = {}
    for name in dict.fromkeys(f.release for f in found[0]):
        results[name] = {}
        for _, code, target in ROWS:
            hits = [
                f for seed in found for f in seed if f.worst and (f.release, f.code, f.target) == (name, code, target)
            ]
            value, low, high = (float(np.mean([getattr(f, k) for f in hits])) for k in ("value", "low", "high"))
            results[name][code] = Measured(value=value, low=low, high=high, who=tuple(f.attacker for f in hits))
    return results


# -- Fig. 2 -----------------------------------------------------------------------------------------------------------


def figure2(results: Results, values: Sequence[float], path: Path) -> None:
    """Upper row: what an attacker gets (lower is better); lower row: what the use keeps (higher is better)."""
    figure = Figure(figsize=(8.4, 5.6), dpi=160, layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey="row")
    for row, (title, code, _) in enumerate(ROWS):
        for column, moved in enumerate(("beta", "alpha")):
            axes = grid[row, column]
            settings = [(FIXED, v) if moved == "beta" else (v, FIXED) for v in values]
            _curve(axes, values, [results[name_of(s)][code] for s in settings])
            _levels(axes, {name: results[name][code] for name in LEVELS})
            axes.axhline(0.5, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
            axes.grid(axis="y", color=RULE, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.tick_params(length=3)
            axes.set_xlim(-0.06, 1.23)
            axes.set_xticks(values)
            if row == 1:
                symbol, other = ("β", "α") if moved == "beta" else ("α", "β")
                axes.set_xlabel(f"{symbol}   ({other} = {FIXED:g})")
            if column == 0:
                axes.set_ylabel(title)
        lows = [m.low for r in results.values() for c, m in r.items() if c == code]
        highs = [m.high for r in results.values() for c, m in r.items() if c == code]
        low, high = min(0.49, *lows), max(highs)
        pad = 0.05 * (high - low)
        grid[row, 0].set_ylim(low - pad, high + pad)
        _names(grid[row, 1], {"AIA": results[name_of((max(values), FIXED))][code].value} | {
            name: results[name][code].value for name in LEVELS} | {"chance": 0.5})  # fmt: skip
    grid[0, 0].set_title("weight of the adversary", fontsize=10, color=MUTED)
    grid[0, 1].set_title("weight of the task", fontsize=10, color=MUTED)
    figure.savefig(path)


def _curve(axes: Axes, values: Sequence[float], measured: Sequence[Measured]) -> None:
    axes.errorbar(
        values, [m.value for m in measured], yerr=_bars(measured), color=METHOD, linewidth=2, marker="o",
        markersize=4.5, elinewidth=1.1, capsize=2.5, zorder=4,
    )  # fmt: skip


def _levels(axes: Axes, measured: dict[str, Measured]) -> None:
    """Level lines; their intervals stand beside one another at the right edge, not to hide the lines."""
    for place, (name, m) in enumerate(measured.items()):
        axes.axhline(m.value, color=LEVELS[name], linewidth=1.3, zorder=3)
        axes.errorbar(
            1.07 + 0.05 * place, m.value, yerr=_bars([m]), color=LEVELS[name], elinewidth=1.1, capsize=2.5, zorder=3
        )


def _bars(measured: Sequence[Measured]) -> list[list[float]]:
    """Lengths below and above; no bar is negative, however figures were rounded."""
    return [[max(m.value - m.low, 0) for m in measured], [max(m.high - m.value, 0) for m in measured]]


def _names(axes: Axes, values: dict[str, float]) -> None:
    """Names at the right edge, each at its line's height, moved apart where they would overlap."""
    colours = {"AIA": METHOD, "chance": MUTED, **LEVELS}
    low, high = axes.get_ylim()
    gap = 0.075 * (high - low)
    names = sorted(values, key=lambda n: values[n])
    places = [values[n] for n in names]
    for _ in range(200):  # push neighbours apart until none overlap
        for i in range(len(places) - 1):
            short = gap - (places[i + 1] - places[i])
            if short > 1e-9:
                places[i] -= short / 2
                places[i + 1] += short / 2
    for name, at in zip(names, places, strict=True):
        axes.annotate(
            name, (1, values[name]), xytext=(1.06, at), xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"), color=colours[name], va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colours[name], "linewidth": 0.7, "shrinkA": 1, "shrinkB": 1},
        )  # fmt: skip


# -- Fig. 3 -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What Fig. 3 shows, for chosen test images and for the mean of each class."""

    titles: tuple[str, ...]
    original: NDArray[np.float32]  # (n, H, W) in [0, 1]
    redrawn: NDArray[np.float32]  # (n, H, W) in [0, 1]
    heat: NDArray[np.float32]  # (n, H, W) in [0, 1]
    attack: float  # the attacker's balanced accuracy on the test split


def pictures(a: argparse.Namespace, pack: Pack, seed: int, each: int = 3) -> Pictures:
    """Fit at a low alpha, train a fresh six-convolution attacker on releases, and explain it by Grad-CAM."""
    release = fit(a, pack, (LOW_ALPHA, FIXED), seed, longer=LONGER)
    y, test = pack.label(PRIVATE), pack.rows("test", known=(PRIVATE,))
    assert release.contract.feature_map is not None
    released = release.transform(pack.x)
    train = pack.rows("attack", known=(PRIVATE,))
    maps = torch.from_numpy(released).reshape(-1, *release.contract.feature_map)
    maps = (maps - maps[train].mean(0)) / maps[train].std(0).clamp_min(1e-6)  # as any attacker would
    attacker = six_convolutions(maps[train], torch.from_numpy(y[train]), a.attack_steps, seed)
    with torch.no_grad():
        predicted = attacker(maps[test]).argmax(1).numpy()
    heat = grad_cam(attacker, maps[test], torch.from_numpy(predicted), a.size)

    rng = np.random.default_rng(seed)
    classes = pack.classes[PRIVATE]
    groups: dict[str, NDArray[np.int64]] = {}
    for code, name in enumerate(classes):
        rows = np.flatnonzero(y[test] == code)
        for i in rng.choice(rows, min(each, len(rows)), replace=False):
            guess = classes[predicted[i]]
            groups[f"{name}\n(read as {guess}) {i}"] = np.array([i])
    for code, name in enumerate(classes):
        groups[f"all {name}\n(mean)"] = np.flatnonzero(y[test] == code)
    original = np.asarray(pack.x[test], np.float32) / 255
    redrawn = np.asarray(release.redraw(released[test]), np.float32) / 255
    return Pictures(
        titles=tuple(title.rstrip("0123456789 ") for title in groups),
        original=np.stack([original[g].mean(0) for g in groups.values()]),
        redrawn=np.stack([redrawn[g].mean(0) for g in groups.values()]),
        heat=np.stack([heat[g].mean(0) for g in groups.values()]),
        attack=balanced_accuracy(y[test], predicted, classes=len(classes)),
    )


def six_convolutions(x: Tensor, y: Tensor, steps: int, seed: int) -> nn.Module:
    """A fresh classifier of the paper's shape on releases as maps ``(n, C, H, W)``; every class counts the same."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = SixConvolutions(x.shape[1], min(x.shape[2:]), 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    weight = balanced_weights(torch.bincount(y, minlength=2))
    for _ in range(steps):
        rows = torch.from_numpy(rng.integers(len(x), size=min(128, len(x))))
        optimizer.zero_grad()
        F.cross_entropy(module(x[rows]), y[rows], weight).backward()
        optimizer.step()
        schedule.step()
    return module.eval()


def grad_cam(attacker: nn.Module, x: Tensor, target: Tensor, size: int) -> NDArray[np.float32]:
    """Heat ``(n, size, size)`` in [0, 1]: which places of the map speak for ``target`` (Selvaraju et al. 2017).

    Of the fourth convolution, the last before maps shrink to a quarter of the release's sides.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    layer = [m for m in attacker.modules() if isinstance(m, nn.Conv2d)][3]
    cam = LayerGradCam(attacker, layer)
    parts = [
        cam.attribute(part, target=codes, relu_attributions=True).detach()
        for part, codes in zip(x.split(256), target.split(256), strict=True)
    ]
    heat = LayerAttribution.interpolate(torch.cat(parts), (size, size), interpolate_mode="bilinear")[:, 0]
    return (heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)).numpy()


def figure3(shown: Pictures, path: Path) -> None:
    columns = len(shown.titles)
    figure = Figure(figsize=(1.18 * columns + 1.1, 4.3), dpi=160, layout="constrained")
    grid = figure.subplots(3, columns)
    rows = ("image", "redrawn from\nits release", "what the\nattacker uses")
    for column in range(columns):
        for row in range(3):
            axes = grid[row, column]
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            picture = shown.redrawn if row == 1 else shown.original
            axes.imshow(picture[column], cmap="gray", vmin=0, vmax=1, interpolation="bicubic")
            if row == 2:
                heat = shown.heat[column] - shown.heat[column].min()
                heat = heat / max(float(heat.max()), 1e-12)
                axes.imshow(heat, cmap="plasma", alpha=0.75 * heat, vmin=0, vmax=1)
            if column == 0:
                axes.set_ylabel(rows[row], rotation=0, ha="right", va="center", labelpad=6)
        grid[0, column].set_title(shown.titles[column], fontsize=8.5)
    figure.savefig(path)


# -- the page ---------------------------------------------------------------------------------------------------------


def page(a: argparse.Namespace, results: Results, shown: Pictures) -> list[str]:
    means = "" if len(a.seeds) == 1 else "; means over the seeds of figures and limits"
    intro = (
        f"Private: gender. Kept use: 1-to-1 matching. {a.people:,} people, {a.images} images of each at "
        f"{a.size}x{a.size} grey, people disjoint between the splits. Preset `paper` with steps_alone={a.steps_alone}, "
        f"steps_joint={a.steps_joint}, batch={a.batch}. AUC of the fresh attacker, or matcher, that is best on "
        f"`calibrate`, measured on `test`; effort quick; 95 % intervals clustered by person{means}."
    )
    made = (
        f"Seed{'s' * (len(a.seeds) > 1)} {', '.join(map(str, a.seeds))}; {datetime.datetime.now(datetime.UTC).date()}; "
        f"torch {torch.__version__}, {platform.machine()}."
    )
    second = (
        "Points: AIA; level lines: the baselines, their intervals at the right edge. Chance is .500. By "
        f"construction no attack finds the gender of more than {stylised.gender_bayes_accuracy():.1%} of people on "
        "average."
    )
    third = (
        f"alpha = {LOW_ALPHA:g}, beta = {FIXED:g}, steps_alone={LONGER * a.steps_alone}, seed {a.seeds[0]}. Test "
        "images; what the release's own decoder redraws from their releases; and the Grad-CAM of a six-convolution "
        "gender classifier, trained afresh on releases of the `attack` split, for the class that it reads: "
        "bright is what "
        "speaks for it. The last columns are means over all test images of a class. This classifier's balanced "
        f"accuracy on `test` is {shown.attack:.3f}."
    )
    return [
        "# The figures of AIA's paper, on stylised faces",
        "",
        *textwrap.wrap(intro, 118),
        "",
        f"    {' '.join(['python examples/aia_figures.py', *a.given])}",
        "",
        made,
        "",
        "## Fig. 2: AUC against alpha and beta",
        "",
        "![AUC of gender inference and of matching against beta and alpha](../figures/aia-fig2.png)",
        "",
        *textwrap.wrap(second, 118),
        "",
        "| release | alpha | beta | gender, AUC | by | matching, AUC | by |",
        "|---|---|---|---|---|---|---|",
        *_table(results, settings_of(a.values)),
        "",
        "## Fig. 3: reconstruction and Grad-CAM",
        "",
        "![Test images, their reconstructions and the attacker's Grad-CAM](../figures/aia-fig3.png)",
        "",
        *textwrap.wrap(third, 118),
        "",
    ]


def _table(results: Results, settings: Iterable[Setting]) -> list[str]:
    rows: list[tuple[str, str, str]] = [("Original", "0", "0"), ("Random", "0", "0")]
    rows += [(name_of(s), f"{s[0]:g}", f"{s[1]:g}") for s in settings]
    lines = []
    for name, alpha, beta in rows:
        cells = []
        for _, code, _ in ROWS:
            m = results[name][code]
            cells += [f"{m.value:.3f} ({m.low:.3f} - {m.high:.3f})", ", ".join(dict.fromkeys(m.who))]
        shown = "AIA" if name.startswith("alpha") else name
        lines.append(f"| {shown} | {alpha} | {beta} | {' | '.join(cells)} |")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three values, few people and steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder with figures/ and results/")
    parser.add_argument("--values", type=float, nargs="+", help="of alpha and of beta")
    parser.add_argument("--people", type=int)
    parser.add_argument("--images", type=int, default=4, help="of each person")
    parser.add_argument("--size", type=int, default=48, help="side of the images")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps-alone", type=int)
    parser.add_argument("--steps-joint", type=int)
    parser.add_argument("--attack-steps", type=int, default=300, help="training of Fig. 3's attacker")
    parser.add_argument("--jobs", type=int, help="processes of the audit; one for each processor by default")
    a = parser.parse_args(argv)
    a.given = sys.argv[1:] if argv is None else list(argv)
    a.values = sorted(a.values or ([0.0, 0.5, 1.0] if a.quick else [0.0, 0.25, 0.5, 0.75, 1.0]))
    a.people = a.people or (400 if a.quick else 1200)
    a.steps_alone = a.steps_alone or (40 if a.quick else 120)
    a.steps_joint = a.steps_joint or (40 if a.quick else 160)

    packs = {seed: faces(a, seed) for seed in a.seeds}
    results = collected([one_seed(a, pack, seed) for seed, pack in packs.items()])
    shown = pictures(a, packs[a.seeds[0]], a.seeds[0])
    for folder in ("figures", "results"):
        (a.out / folder).mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure2(results, a.values, a.out / "figures" / "aia-fig2.png")
        figure3(shown, a.out / "figures" / "aia-fig3.png")
    (a.out / "results" / "aia-figures.md").write_text("\n".join(page(a, results, shown)))
    print(a.out / "results" / "aia-figures.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
