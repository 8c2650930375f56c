"""Whether a budget holds on people that nobody has seen: a synthetic population of known leakage, seed after seed.

    python benchmarks/budget.py [--seeds 10] [--budget 0.65] [--results docs/results/template-budget.md]

Each seed draws people, images, splits, protector and attackers anew. Gender moves one direction of a person's position
by a known amount, so the best attack on the vectors has a known accuracy. `fit --budget` chooses strength and noise on
`attack` and `calibrate`; then fresh attackers learn on `attack` and are measured on `test`.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch

from veil import InputError, pipeline
from veil.audit.findings import Finding
from veil.audit.run import Subject, audit
from veil.data.pack import Pack

PEOPLE, IMAGES, WIDTH = 2400, 2, 32
SHIFT, WITHIN = 2.0, 0.3
"""Distance of the genders' means along one direction, and deviation of a person's images, in deviations of people."""
SETTINGS = {"steps": 300, "steps_guess": 200}
BAYES = NormalDist().cdf(SHIFT / 2 / (1 + WITHIN**2) ** 0.5)
COMMAND = "python benchmarks/budget.py"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One seed: the noise chosen, the attack on `calibrate` with its upper limit, the figures on `test`; or why not."""

    seed: int
    noise: float = 0.0
    calibrate: tuple[float, float] = (0.0, 0.0)
    attack: Finding | None = None
    use: Finding | None = None
    unprotected: Finding | None = None
    refused: str = ""


def population(seed: int) -> Pack:
    """Vectors of people whose gender moves the first value."""
    rng = np.random.default_rng(seed)
    gender = rng.integers(2, size=PEOPLE)
    centre = rng.standard_normal((PEOPLE, WIDTH))
    centre[:, 0] += SHIFT * (gender - 0.5)
    who = np.repeat(np.arange(PEOPLE), IMAGES)
    x = (centre[who] + WITHIN * rng.standard_normal((len(who), WIDTH))).astype(np.float32)
    return Pack.from_arrays(x, {"identity": who, "gender": gender[who]}, seed=seed)


def one_seed(seed: int, limit: float) -> Outcome:
    pack = population(seed)
    try:
        release, _ = pipeline.fit_measured(
            "template", pack, private=["gender"], budget={"gender": limit}, settings=SETTINGS, seed=seed
        )
    except InputError as error:
        return Outcome(seed=seed, refused=str(error))
    subjects = [
        Subject(name="Input", x=pack.x, role="input"),
        Subject(name="template", x=release.transform(pack.x), role="method"),
    ]
    found = audit(subjects, pack, private=["gender"], utility=["identity"], seed=seed, effort="quick", together=False)

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
        f"{PEOPLE:,} people with {IMAGES} vectors of {WIDTH} values each; gender moves one value by {SHIFT:g}",
        f"deviations, so the best attack on the unprotected vectors is right {BAYES:.1%} of the time, before they are",
        "scaled to length 1.",
        f"`fit --budget gender={limit:g}` of `template` with {settings} chose the noise on",
        "`attack` and `calibrate`; the worst of fresh attackers (effort quick, learned on `attack`) was then measured",
        "on `test`, whose people nobody had seen. 95 % intervals by bootstrap of people in brackets.",
        "",
        f"    {COMMAND} --seeds {len(outcomes)} --budget {limit:g}",
        "",
        f"{datetime.datetime.now(datetime.UTC).date()}; torch {torch.__version__}, {platform.machine()}.",
        "",
        f"**Met on `test` by {len(met)} of the {len(given)} releases that were given; refused "
        f"{len(outcomes) - len(given)} of {len(outcomes)} times.**",
        "",
        "| seed | noise | attack on `calibrate`, upper limit | attack on `test` | matching AUC | unprotected attack |",
        "|---|---|---|---|---|---|",
    ]
    for o in outcomes:
        if o.attack is None or o.use is None or o.unprotected is None:
            lines.append(f"| {o.seed} | refused: {o.refused} | | | | |")
            continue
        value, low, high, _ = o.attack.figures()
        lines.append(
            f"| {o.seed} | {o.noise:g} | {o.calibrate[0]:.3f}, {o.calibrate[1]:.3f} | {value:.3f} ({low:.3f} - "
            f"{high:.3f}) | {o.use.figures()[0]:.3f} | {o.unprotected.figures()[0]:.3f} |"
        )
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
