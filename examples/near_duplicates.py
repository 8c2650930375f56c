"""What the mean over near-duplicates gives away, under noise that is one smooth field and under noise drawn for each.

    python examples/near_duplicates.py --lfw DIR --out DIR [--seed 0] [--results docs/results/repeated.md]

DIR holds templates.npz and the archive, lists and pairs of LFW, as for examples/template_lfw.py. A release is fitted on
each of three data sets: LFW's templates (`template`), LFW's images and stylised faces (`deep`). It then
gets no noise; noise of its own for every input, as a keyed hash gave it; and the field that it ships with. Fresh
attackers learn from one release each, and from means over 32 near-duplicates beside them; matching is measured, too.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tables import Column, table
from veil.auditing import run
from veil.auditing.exhibit import Arrays, Exhibit
from veil.auditing.repeats import Repeats, released_means
from veil.auditing.rosters import roster
from veil.auditing.setting import Setting
from veil.data import build
from veil.data.pack import Pack
from veil.release import Release
from veil.release.beside import KEY_BYTES
from veil.release.draws import normalised_noise
from veil.workflows import fit as fitting

FRACTIONS = (0.5, 0.2, 0.1, 0.2)
COLUMNS: Sequence[Column] = (
    ("gender, one release", "attribute.balanced_accuracy", "gender"),
    ("its AUC", "attribute.auc", "gender"),
    ("gender, mean of 32 near-duplicates", "attribute.repeated_balanced_accuracy", "gender"),
    ("its AUC", "attribute.repeated_auc", "gender"),
    ("matching AUC", "verification.auc", "identity"),
    ("accuracy", "verification.accuracy", "identity"),
)
DEEP = {"steps_alone": 400, "steps_joint": 500, "batch": 128}
"""Shorter than the preset, which takes an hour."""
COMMAND = "python examples/near_duplicates.py --lfw DIR --out DIR --results docs/results/repeated.md"

Transform = Callable[[NDArray[Any]], NDArray[np.float32]]


def templates(lfw: Path, out: Path, seed: int) -> tuple[Pack, Release]:
    images = _packed("lfw", str(lfw), out / "small", size=16, seed=seed, fractions=FRACTIONS)
    pack = _packed("embeddings", str(lfw / "templates.npz"), out / "templates", labels=images.path)
    return pack, _fitted("template", pack, out / "template", seed, {})


def lfw_images(lfw: Path, out: Path, seed: int) -> tuple[Pack, Release]:
    pack = _packed("lfw", str(lfw), out / "images", size=64, seed=seed, fractions=FRACTIONS)
    return pack, _fitted("deep", pack, out / "deep", seed, DEEP)


def stylised(lfw: Path, out: Path, seed: int) -> tuple[Pack, Release]:
    pack = _packed("stylised", "identities=2000,images=4", out / "stylised", size=64, seed=seed, fractions=FRACTIONS)
    return pack, _fitted("deep", pack, out / "stylised-deep", seed, DEEP)


DATA: dict[str, Callable[[Path, Path, int], tuple[Pack, Release]]] = {
    "LFW, templates (`template`)": templates,
    "LFW, images (`deep`)": lfw_images,
    "Stylised faces (`deep`)": stylised,
}


def _packed(layout: str, source: str, out: Path, **options: Any) -> Pack:
    return Pack.open(out) if (out / "pack.json").exists() else build.pack(layout, source, out, **options)


def _fitted(method: str, pack: Pack, out: Path, seed: int, settings: dict[str, Any]) -> Release:
    if not out.exists():
        fitting.fit(method, pack, private=["gender"], settings=settings, seed=seed).release.save(out)
    key = hashlib.blake2b(f"near-duplicates {seed}".encode(), digest_size=KEY_BYTES).digest()
    return replace(Release.load(out), key=key)  # not its own, which is random: another key draws another field


def ways(release: Release, own: Sequence[float], fields: Sequence[float]) -> dict[str, Transform]:
    """The release with each kind and norm of noise, as functions of its inputs."""
    clean = replace(release, contract=replace(release.contract, noise=0.0))
    rng = np.random.default_rng(0)

    def drawn(noise: float) -> Transform:
        def transform(x: NDArray[Any]) -> NDArray[np.float32]:
            z = torch.from_numpy(clean.transform(x))
            normal = torch.from_numpy(rng.standard_normal(z.shape, dtype=np.float32))
            return normalised_noise(z, normal, noise).numpy()

        return transform

    def smooth(noise: float) -> Transform:
        return replace(release, contract=replace(release.contract, noise=noise)).transform

    return {
        "no noise": clean.transform,
        **{f"own noise for each, {noise:g}": drawn(noise) for noise in own},
        **{f"field, {noise:g}": smooth(noise) for noise in fields},
    }


def measured(
    pack: Pack, transforms: dict[str, Transform], seed: int, effort: str, attack_on: Sequence[str], jobs: int
) -> dict[str, Any]:
    """Findings of all ways, as a document that tables are made of."""
    setting = Setting(
        pack=pack, private=("gender",), utility=("identity",), roster=roster(effort), attack_on=tuple(attack_on),
        effort=effort, seed=seed, together=False,
    )  # fmt: skip

    def repeated(transform: Transform, rows: NDArray[np.int64], arrays: Arrays) -> Repeats:
        return Repeats(rows=rows, means=released_means(transform, pack, rows, attack_on, seed), singles=arrays.x)

    exhibits = []
    for name, transform in transforms.items():
        x = transform(np.asarray(pack.x))
        exhibits.append(Exhibit.of(name, x, "method", near_duplicates=partial(repeated, transform)))
        print(f"  released: {name}", flush=True)
    findings = run.audit(
        exhibits, setting, jobs=jobs, progress=lambda done, total, what: print(f"  {done}/{total} {what}", flush=True)
    ).findings
    return {"findings": [asdict(f) for f in findings]}


def write_results(path: Path, out: Path, seed: int) -> None:
    lines = [
        "# The mean over near-duplicates",
        "",
        "Keyed noise was once drawn anew for every input, from a hash of its bytes; now it is one secret smooth field",
        "([keyed noise](../releases.md#keyed-noise)). Each table has one release without noise, with noise of its own",
        "for each input, and with the field, at norms that cost about the same matching. Gender is read from one",
        "release, and from the mean over the releases of 32 near-duplicates",
        "([what they are](../audit.md#several-releases-and-originals)), by the worst of fresh attackers, picked on",
        "`calibrate` and measured on `test`; in brackets 95 % intervals; chance is .500. People are disjoint.",
        "A mean over near-duplicates is a little easier to read where there is no noise at all; only what it gains",
        "beyond that is noise that averaged out.",
        "",
        f"    {COMMAND}",
        "",
        f"Seed {seed}; {datetime.datetime.now(datetime.UTC).date()}; torch {torch.__version__}, {platform.machine()}.",
    ]
    for number, title in enumerate(DATA):
        kept = out / f"findings-{number}.json"
        if kept.exists():
            document = json.loads(kept.read_text())
            lines += ["", f"## {title}", "", document["about"], ""]
            lines += table(list(dict.fromkeys(f["release"] for f in document["findings"])), [document], COLUMNS)
    path.write_text("\n".join(lines) + "\n")
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True, help="folder with templates.npz, the archive and the lists")
    parser.add_argument("--out", type=Path, required=True, help="folder for packs, releases and findings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", default=[*range(len(DATA))], help="data sets by number")
    parser.add_argument("--own", type=float, nargs="+", default=[0.5], help="norms of noise drawn for each input")
    parser.add_argument("--fields", type=float, nargs="+", default=[], help="norms of the field; the release's if none")
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--jobs", type=int, default=2, help="processes of the audit")
    parser.add_argument("--results", type=Path, help="Markdown file for the tables")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    attack_on = ("protect", "attack")
    for number in arguments.only:
        kept = arguments.out / f"findings-{number}.json"
        if kept.exists():
            continue
        pack, release = list(DATA.values())[number](arguments.lfw, arguments.out, arguments.seed)
        transforms = ways(release, arguments.own, arguments.fields or [release.contract.noise])
        document = measured(pack, transforms, arguments.seed, arguments.effort, attack_on, arguments.jobs)
        n = [f["n"] for f in document["findings"] if f["code"].endswith("repeated_auc")][:1]
        about = (
            f"Effort `{arguments.effort}`; attackers learn on `protect` and `attack`; n {len(pack.rows('test')):,} "
            f"releases, and {n[0]:,} means."
        )
        kept.write_text(json.dumps({**document, "about": about}))
    if arguments.results is not None:
        write_results(arguments.results, arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
