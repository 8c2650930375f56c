"""`veil protect` on a folder of photographs as people keep them: what comes out, what it gives away, what it costs.

    python benchmarks/protect.py --lfw DIR --names DIR [--effort standard] [--seed 0] [--jobs N]
        [--results FILE.md]

The first DIR holds LFW's photographs of 250 x 250 (folders of people, anywhere below), the second its lists of names
by gender, ``male_names.txt`` and ``female_names.txt``. The folder that is protected has 300 of them, half of them of
women, three of each of some people; 160 are written anew with Exif in four orientations. Beside them lie 20 group
photographs of 1600 x 1200, composed of others, and five damaged files. Nobody has labels of the groups.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from veil.findings import Finding
from veil.report import document
from veil.report.document import Document

EACH, IMAGES, MOST, GROUPS = 150, 3, 90, 20
"""Photographs of each gender; of each person of whom there are several; of such people; and of groups."""
WIDTH, HEIGHT = 1600, 1200
TURNS = {
    1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip
DAMAGED = {
    "empty.jpg": b"", "text.jpg": b"no image", "head.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    "zero.webp": b"RIFF\0\0\0\0WEBP",
}  # fmt: skip
COMMAND = "python benchmarks/protect.py --lfw DIR --names DIR --results docs/results/protect.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--names", type=Path, required=True)
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, help="where everything is written, and stays")
    parser.add_argument("--results", type=Path)
    asked = parser.parse_args()
    work = asked.work or Path(tempfile.mkdtemp())
    photos = work / "photos"
    compose(photos, asked.lfw, gender_of(asked.names), np.random.default_rng(asked.seed))
    runs = {form: run(work, photos, form, asked) for form in ("vectors", "photos")}
    page = "\n".join(told(runs, asked))
    print(page)
    if asked.results is not None:
        asked.results.write_text(page + "\n", "utf-8")


# -- the folder -------------------------------------------------------------------------------------------------------


def gender_of(names: Path) -> dict[str, str]:
    """From the name of a photograph to the gender that LFW's lists give."""
    return {
        line.strip(): gender
        for gender in ("male", "female")
        for line in (names / f"{gender}_names.txt").read_text("utf-8").splitlines()
    }


def compose(photos: Path, lfw: Path, gender: Mapping[str, str], rng: np.random.Generator) -> None:
    """Writes the folder, and the labels of those photographs whose gender is known beside it."""
    people: dict[str, list[Path]] = {}
    for path in sorted(lfw.rglob("*.jpg")):
        if path.name in gender:
            people.setdefault(path.parent.name, []).append(path)
    chosen: list[Path] = []
    rest: list[Path] = []
    for each in ("female", "male"):
        theirs = [images for images in people.values() if gender[images[0].name] == each]
        order = [theirs[i] for i in rng.permutation(len(theirs))]
        several = [path for images in order if IMAGES <= len(images) <= 2 * IMAGES for path in images[:IMAGES]][:MOST]
        single = [images[0] for images in order if len(images) == 1]
        chosen += several + single[: EACH - len(several)]
        rest += single[EACH - len(several) :]
    photos.mkdir(parents=True)
    for place, path in enumerate(chosen):
        _copy(path, photos / path.name, list(TURNS)[place % 4] if place < 160 else None)
    with photos.with_name("labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "gender", "identity"])
        table.writerows([path.name, gender[path.name], path.parent.name] for path in chosen)
    for number in range(GROUPS):
        group(rest, rng).save(photos / f"group {number:02d}.{'jpg' if number % 5 else 'png'}", quality=92)
    for name, content in DAMAGED.items():
        (photos / name).write_bytes(content)
    whole = (photos / chosen[-1].name).read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])


def _copy(source: Path, target: Path, orientation: int | None) -> None:
    """A photograph as it is, or turned, with Exif that says how to turn it back."""
    if orientation is None:
        target.write_bytes(source.read_bytes())
        return
    image = Image.open(source)
    if (turn := TURNS[orientation]) is not None:
        image = image.transpose(turn)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0132] = orientation, "A camera", "2026:01:01 10:00:00"
    image.save(target, quality=92, exif=exif)


def group(faces: Sequence[Path], rng: np.random.Generator) -> Image.Image:
    """Two rows of people, some of whom overlap, before one of them out of focus."""
    first = faces[int(rng.integers(len(faces)))]
    canvas = Image.open(first).convert("RGB").resize((WIDTH, HEIGHT)).filter(ImageFilter.GaussianBlur(40))
    for top in (60, 640):
        left = 20
        while left < WIDTH - 260:
            side = int(rng.integers(150, 330))
            tile = Image.open(faces[int(rng.integers(len(faces)))]).convert("RGB").resize((side, side))
            canvas.paste(tile, (left, min(HEIGHT - side, top + int(rng.integers(0, 120)))))
            left += int(side * (0.8 if rng.random() < 0.3 else 1.05))
    return canvas


# -- what becomes of it -----------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """One run of the command.

    Attributes:
        said: What it printed, as JSON.
        wall: Seconds.
        cpu: Seconds of all its processes.
        peak: Bytes of memory that the largest of them held.
        audit: What was measured.
    """

    said: Mapping[str, Any]
    wall: float
    cpu: float
    peak: int
    audit: Document


def run(work: Path, photos: Path, form: str, asked: argparse.Namespace) -> Outcome:
    """The command on the folder, timed."""
    out = work / f"as {form}"
    labels = str(photos.with_name("labels.csv"))
    words = ["protect", str(photos), str(out), "--hide", "gender", "--labels", labels]
    words += ["--as", form, "--effort", asked.effort, "--seed", str(asked.seed)]
    words += ["--jobs", str(asked.jobs), "--json"]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "veil", *words], check=False, stdout=subprocess.PIPE, text=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{shlex.join(words)} ended with {done.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Outcome(json.loads(done.stdout), wall, cpu, 1024 * after.ru_maxrss, document.read(out / "audit"))


def told(runs: Mapping[str, Outcome], asked: argparse.Namespace) -> list[str]:
    """The page."""
    made = datetime.datetime.now(datetime.UTC).date()
    lines = [
        "# Photographs, protected by one command",
        "",
        f"300 photographs of LFW (150 women; three photographs each of some people), 20 group photographs of {WIDTH} x "
        f"{HEIGHT}, and five damaged files; 160 of the first have Exif in four orientations. `veil protect photos out "
        "--hide gender --labels labels.csv`, and the same with `--as photos`; "
        f"effort {asked.effort}, seed {asked.seed}, {asked.jobs} process{'es' * (asked.jobs > 1)}.",
        "",
        f"Measured {made} on {platform.machine()}, {platform.system()}, by `{COMMAND}`. "
        "Minutes are those of the clock, whatever else ran; CPU minutes are the command's own.",
        "",
        "| as | method | released | left out | maybe unprotected | minutes | CPU minutes | peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for form, each in runs.items():
        said = each.said
        lines.append(
            f"| {form} | {said['method']} | {said['rows']} | {said['skipped']} | {said['unprotected']} | "
            f"{each.wall / 60:.1f} | {each.cpu / 60:.1f} | {each.peak / 2**30:.2f} GiB |"
        )
    for form, each in runs.items():
        lines += ["", f"## As {form}", "", *(f"> {line}" for line in each.said["verdict"]), ""]
        lines += ["| release | figure | target | by | value | interval | n |", "|---|---|---|---|---|---|---|"]
        lines += [_row(f) for f in each.audit.findings if f.ok and f.worst and f.code in SHOWN]
    return lines


SHOWN = (
    "attribute.balanced_accuracy", "attribute.transfer_balanced_accuracy", "verification.auc",
    "verification.transfer_auc", "verification.mixed_auc",
)  # fmt: skip


def _row(f: Finding) -> str:
    value, low, high, _ = f.figures()
    cells = (f.release, f"`{f.code}`", f.target, f.attacker, f"{value:.3f}", f"{low:.3f} - {high:.3f}", f"{f.n:,}")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    main()
