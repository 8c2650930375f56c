"""Whether a budget holds on people that nobody has seen: a synthetic population of known leakage, seed after seed.

    python benchmarks/budget.py [--seeds 10] [--budget 0.65] [--results docs/results/template-budget.md]

Each seed draws people, images, splits, protector and attackers anew. Gender widens half of a person's values and
narrows the others: no mean and no linear classifier tells it, no direction is free of it, and the best attack on the
vectors has a known accuracy. `fit --budget` chooses strength and noise on `attack` and `calibrate`; then fresh
attackers learn on `attack` and are measured on `test`.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from veil import InputError
from veil.auditing import run
from veil.auditing.exhibit import Exhibit
from veil.auditing.rosters import roster
from veil.auditing.setting import Setting
from veil.data.pack import Pack
from veil.findings import Finding
from veil.workflows.fit import fit_measured

PEOPLE, IMAGES, WIDTH = 2400, 2, 32
FACTOR, WITHIN = 1.35, 0.3
"""By how much gender widens or narrows values, and deviation of a person's images, in deviations of people."""
SETTINGS = {"steps": 300, "steps_guess": 200}
COMMAND = "python benchmarks/budget.py"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One seed: what was chosen, the attack on `calibrate` with its upper limit, the figures on `test`; or why not."""

    seed: int
    noise: float = 0.0
    calibrate: tuple[float, float] = (0.0, 0.0)
    attack: Finding | None = None
    use: Finding | None = None
    unprotected: Finding | None = None
    refused: str = ""


def deviations(gender: NDArray[np.int64]) -> NDArray[np.float64]:
    """``(n, WIDTH)`` standard deviations of people's values, from gender 0 or 1."""
    sign = (2 * gender[:, None] - 1) * np.where(np.arange(WIDTH) < WIDTH // 2, 1, -1)
    return FACTOR ** sign.astype(np.float64)


def population(seed: int) -> Pack:
    """Vectors of people whose gender changes how far their values spread."""
    rng = np.random.default_rng(seed)
    gender = rng.permutation(PEOPLE) % 2
    centre = rng.standard_normal((PEOPLE, WIDTH)) * deviations(gender)
    who = np.repeat(np.arange(PEOPLE), IMAGES)
    x = (centre[who] + WITHIN * rng.standard_normal((len(who), WIDTH))).astype(np.float32)
    return Pack.from_arrays(x, {"identity": who, "gender": gender[who]}, seed=seed)


def bayes(people: int = 200_000) -> float:
    """Accuracy of the likelihood ratio of one vector, before it is scaled to unit length, by simulation."""
    rng = np.random.default_rng(0)
    gender = np.arange(people) % 2
    x = np.hypot(deviations(gender), WITHIN) * rng.standard_normal((people, WIDTH))
    variances = [deviations(np.full(1, g)) ** 2 + WITHIN**2 for g in (0, 1)]
    fits = [-(np.square(x) / v + np.log(v)).sum(1) for v in variances]
    return float(((fits[1] > fits[0]) == gender).mean())


def one_seed(seed: int, limit: float) -> Outcome:
    pack = population(seed)
    try:
        release = fit_measured(
            "template", pack, private=["gender"], budget={"gender": limit}, settings=SETTINGS, seed=seed
        ).release
    except InputError as error:
        return Outcome(seed=seed, refused=str(error))
    exhibits = [Exhibit.of("Input", pack.x, "input"), Exhibit.of("template", release.transform(pack.x), "method")]
    setting = Setting(
        pack=pack, private=("gender",), utility=("identity",), roster=roster("quick"), seed=seed, effort="quick",
        together=False,
    )  # fmt: skip
    found = run.audit(exhibits, setting).findings

    def picked(name: str, code: str) -> Finding:
        return next(f for f in found if f.worst and (f.release, f.code) == (name, code))

    chosen = next(p for p in release.made["frontier"] if p["noise"] == release.contract.noise)["attacks"]["gender"]
    return Outcome(
        seed=seed,
        noise=release.contract.noise,
        calibrate=(chosen["value"], chosen["high"]),
        attack=picked("template", "attribute.balanced_accuracy"),
        use=picked("template", "verification.auc"),
        unprotected=picked("Input", "attribute.balanced_accuracy"),
    )


def page(outcomes: list[Outcome], limit: float) -> str:
    """The results as Markdown."""
    given = [o for o in outcomes if o.attack is not None]
    met = [o for o in given if o.attack is not None and (o.attack.value or 1.0) <= limit]
    settings = ", ".join(f"{k}={v}" for k, v in SETTINGS.items())
    lines = [
        "# A budget on a population of known leakage",
        "",
        f"{PEOPLE:,} people with {IMAGES} vectors of {WIDTH} values each; gender widens half of the values by a",
        f"factor of {FACTOR:g} and narrows the others, so the best attack on a vector, before it is scaled, is right",
        f"{bayes():.1%} of the time. `fit --budget gender={limit:g}` of `template` with {settings}",
        "chose strength and noise on `attack` and `calibrate`; the worst of fresh attackers (effort quick, learned on",
        "`attack`) was then measured on `test`, whose people nobody had seen. 95 % intervals clustered by person.",
        "",
        f"    {COMMAND} --seeds {len(outcomes)} --budget {limit:g}",
        "",
        f"{datetime.datetime.now(datetime.UTC).date()}; torch {torch.__version__}, {platform.machine()}.",
        "",
        f"**Met on `test` by {len(met)} of the {len(given)} releases that were given; refused "
        f"{len(outcomes) - len(given)} of {len(outcomes)} times.**",
        "",
        "| seed | noise | attack on `calibrate`, limit | attack on `test` | matching AUC | unprotected |",
        "|---|---|---|---|---|---|",
    ]
    for o in outcomes:
        if o.attack is None or o.use is None or o.unprotected is None:
            lines.append(f"| {o.seed} | refused: {o.refused} | | | | |")
            continue
        value, low, high, _ = o.attack.figures()
        chosen = f"{o.noise:g} | {o.calibrate[0]:.3f}, {o.calibrate[1]:.3f}"
        rest = f"{o.use.figures()[0]:.3f} | {o.unprotected.figures()[0]:.3f}"
        lines.append(f"| {o.seed} | {chosen} | {value:.3f} ({low:.3f} - {high:.3f}) | {rest} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=float, default=0.65)
    parser.add_argument("--results", type=Path, help="Markdown file for the table")
    arguments = parser.parse_args()
    outcomes = []
    for seed in range(arguments.seeds):
        start = time.perf_counter()
        outcomes.append(one_seed(seed, arguments.budget))
        print(outcomes[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
    text = page(outcomes, arguments.budget)
    print(text)
    if arguments.results is not None:
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        arguments.results.write_text(text)


if __name__ == "__main__":
    main()
