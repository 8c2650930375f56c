"""Detectors of faces compared: on LFW's photographs, and on group photographs that are composed of them.

    python benchmarks/faces.py --lfw DIR [--photos 1000] [--groups 60] [--large 10] [--seed 0]
                               [--results docs/results/faces.md]

DIR holds LFW's photographs of 250 x 250 (folders of people, anywhere below). Each shows one face in its middle. A group
photograph of 1152 x 864 has twelve of them, each on a tile, with faces of 24 to 128 pixels. Nobody marked the eyes:
they are compared with those that are found in the mirrored picture (how steady they are), and, in groups, with those
that dlib's detector and landmarks find in the photographs that groups are composed of, which are larger.

A large photograph is one of LFW enlarged, with grain, so that it shows one large face; into it 20 others are set whose
faces have 24 to 56 pixels. One look at the whole is compared with the thorough search in tiles.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veil.data.decode import Eyes
from veil.data.faces import SMALLEST, Face, bundled, packaged

Photo = NDArray[np.uint8]
Find = Callable[[Photo], Sequence[Face]]
SIDE, WIDTH, HEIGHT = 250, 1152, 864
COLUMNS, ROWS = 4, 3
HEIGHTS = (24, 32, 40, 56, 80, 104, 128)
"""Of faces in groups, in pixels: about .45 of the side of an LFW photograph is its face."""
FACE = 0.45
LARGE = {"12": (4000, 3000), "24": (6000, 4000)}
"""Width and height of large photographs, by their megapixels."""
SMALL_HEIGHTS = (24, 32, 40, 56)
"""Of faces in large photographs, in pixels."""
GRAIN, CORNER = 4, 50
"""Standard deviation of a large photograph's grain, in grey levels; and side of the corners that one is composed of."""
COMMAND = "python benchmarks/faces.py --lfw DIR --results docs/results/faces.md"


def bundled_alone(*, thorough: bool = False) -> Find:
    """The faces that `--faces` aligns."""
    find = bundled(thorough=thorough)
    return lambda photo: [face for face in find(photo) if face.is_certain and face.bottom - face.top >= SMALLEST]


def dlib_alone(upsampled: int) -> Find:
    """dlib's own detector (histograms of oriented gradients) and its five landmarks."""
    detector = dlib.get_frontal_face_detector()
    name = "shape_predictor_5_face_landmarks.dat"
    predictor = dlib.shape_predictor(str(packaged("face_recognition_models", "models", name)))

    def find(photo: Photo) -> list[Face]:
        boxes, scores, _ = detector.run(photo, upsampled, 0.0)
        return [_face(predictor(photo, box), box, score) for box, score in zip(boxes, scores, strict=True)]

    return find


def _face(five: Any, box: Any, score: float) -> Face:
    eyes = np.array([(five.part(i).x, five.part(i).y) for i in range(4)], float).reshape(2, 2, 2).mean(1)
    eyes = eyes[np.argsort(eyes[:, 0])]
    return Face(
        left=box.left(), top=box.top(), right=box.right(), bottom=box.bottom(), eyes=Eyes(*eyes.ravel().tolist()),
        score=score,
    )  # fmt: skip


def at(faces: Sequence[Face], x: float, y: float) -> Face | None:
    """The smallest face around a place."""
    around = [face for face in faces if face.left < x < face.right and face.top < y < face.bottom]
    return min(around, key=lambda face: face.area, default=None)


def places(face: Face) -> NDArray[np.float64]:
    """Left and right eye ``(2, 2)``."""
    e = face.eyes
    return np.array([(e.left_x, e.left_y), (e.right_x, e.right_y)])


def error(eyes: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Mean distance of both eyes, as a share of the distance between them."""
    return float(np.linalg.norm(eyes - truth, axis=1).mean() / np.linalg.norm(truth[1] - truth[0]))


def group(rng: np.random.Generator, faces: Sequence[Path]) -> tuple[Photo, list[tuple[float, float, int, Path]]]:
    """A group photograph, and the middle, height and source of each face."""
    canvas = np.asarray(Image.open(faces[0]).resize((WIDTH, HEIGHT)).convert("RGB")).copy()
    canvas = np.asarray(
        Image.fromarray(canvas).resize((18, 13)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    ).copy()
    inside = []
    for i, path in enumerate(faces):
        height = int(rng.choice(HEIGHTS))
        side = min(round(height / FACE), WIDTH // COLUMNS, HEIGHT // ROWS)
        tile = np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.LANCZOS))
        left = i % COLUMNS * (WIDTH // COLUMNS) + int(rng.integers(WIDTH // COLUMNS - side + 1))
        top = i // COLUMNS * (HEIGHT // ROWS) + int(rng.integers(HEIGHT // ROWS - side + 1))
        canvas[top : top + side, left : left + side] = tile
        inside.append((left, top, side, path))
    return canvas, inside


def enlarged(rng: np.random.Generator, path: Path, size: tuple[int, int]) -> Photo:
    """The middle of an LFW photograph at that width and height, with grain."""
    band = round(SIDE * size[1] / size[0])
    box = (0, (SIDE - band) // 2, SIDE, (SIDE - band) // 2 + band)
    large = Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC, box=box)
    grain = rng.normal(0, GRAIN, (size[1], size[0], 1)).astype(np.int16)
    return (np.asarray(large) + grain).clip(0, 255).astype(np.uint8)


def crowded(
    rng: np.random.Generator, canvas: Photo, faces: Sequence[Path]
) -> tuple[Photo, list[tuple[float, float, int]]]:
    """A copy of a large photograph with small faces around its middle: middles and heights."""
    canvas, inside = canvas.copy(), []
    high, wide = canvas.shape[0] // 6, canvas.shape[1] // 6
    around = [(y, x) for y in range(6) for x in range(6) if not (1 <= y <= 4 and 1 <= x <= 4)]  # 20 cells
    for number, path in enumerate(faces):
        height = int(rng.choice(SMALL_HEIGHTS))
        side = round(height / FACE)
        row, column = around[number]
        tile = np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.LANCZOS))
        left = column * wide + int(rng.integers(wide - side))
        top = row * high + int(rng.integers(high - side))
        canvas[top : top + side, left : left + side] = tile
        inside.append((left + side / 2, top + side / 2, height))
    return canvas, inside


def corners(rng: np.random.Generator, everything: Sequence[Path], size: tuple[int, int]) -> Photo:
    """Texture: a photograph composed of upper left corners of LFW's photographs."""
    canvas = np.empty((size[1], size[0], 3), np.uint8)
    for top in range(0, size[1], CORNER):
        for left in range(0, size[0], CORNER):
            image = Image.open(everything[rng.integers(len(everything))]).convert("RGB")
            canvas[top : top + CORNER, left : left + CORNER] = np.asarray(image.crop((0, 0, CORNER, CORNER)))
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True, help="folder with LFW's photographs, anywhere below")
    parser.add_argument("--photos", type=int, default=1000, help="photographs of one face")
    parser.add_argument("--groups", type=int, default=60, help="group photographs of twelve faces")
    parser.add_argument("--large", type=int, default=10, help="large photographs of twenty small faces, of each size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="Markdown file for the tables")
    a = parser.parse_args()
    rng = np.random.default_rng(a.seed)
    everything = sorted(a.lfw.rglob("*.jpg"))
    detectors: dict[str, Find] = {
        "CenterFace and dlib": bundled_alone(), "dlib": dlib_alone(0), "dlib, upsampled": dlib_alone(1),
    }  # fmt: skip
    tiled = {"CenterFace and dlib, thorough": bundled_alone(thorough=True)}
    photos = [everything[i] for i in rng.choice(len(everything), min(a.photos, len(everything)), replace=False)]
    alone = singles(photos, detectors)
    many = [group(rng, [everything[i] for i in rng.choice(len(everything), COLUMNS * ROWS)]) for _ in range(a.groups)]
    per_group = [seconds(bundled(thorough=thorough), [photo for photo, _ in many[:20]]) for thorough in (False, True)]
    in_large, of_texture = larger(rng, everything, a.large)
    sizes, small = (" | ".join(map(str, heights)) for heights in (HEIGHTS, SMALL_HEIGHTS))
    lines = [
        "# Detectors of faces", "",
        f"{len(photos):,} photographs of LFW (250 x 250, one face in the middle), and {a.groups} group photographs of "
        f"{WIDTH} x {HEIGHT} with {COLUMNS * ROWS} of them each; seed {a.seed}. Made by", "", f"    {COMMAND}", "",
        f"on {datetime.datetime.now(datetime.UTC).date()}, {platform.machine()}, {os.cpu_count()} processors. "
        f"The first is what `--faces` uses: {bundled().name}. The others are dlib's own detector, on the picture and "
        "on one twice as large.", "",
        "How far eyes lie from those found in the mirrored picture, as a share of the distance between the eyes, says",
        "how steady they are; nobody marked LFW's eyes.", "",
        "| detector | faces found | eyes against the mirrored, mean | 95 % of them below |", "|---|---:|---:|---:|",
        *alone, "",
        "Group photographs: faces found, by their height in pixels; other places that were taken for a face (some are:",
        "people stand in the background of LFW's photographs); and how far eyes lie from those that dlib finds in the",
        "larger photographs of which groups are composed.", "",
        f"| detector | {sizes} | other places | eyes, mean | 95 % below | photographs a second | two threads |",
        "|---|" + "---:|" * (len(HEIGHTS) + 5), *groups(many, detectors | tiled), "",
        "## Large photographs", "",
        f"{a.large} photographs of LFW enlarged to 12 megapixels and {a.large} to 24, with grain (deviation {GRAIN}), "
        "each of which shows one large face, and the same with 20 more set into it whose faces have 24 to 56 pixels. "
        "One look at 960 pixels is what finds the largest face; the thorough search in tiles is what whole photographs "
        "and `--all-faces` get. Small faces found, by their height in pixels; other places that were taken for a face, "
        "in all photographs; places that may be one, in a photograph before and after small faces were set into it; "
        "seconds of one processor for a photograph. A group photograph, of 1 megapixel, takes "
        f"{per_group[0]:.2f} by one look and {per_group[1]:.2f} by the thorough search.", "",
        f"| megapixels | search | {small} | other places | may be, without small faces | with | seconds |",
        "|---|---|" + "---:|" * (len(SMALL_HEIGHTS) + 4), *in_large, "",
        f"A photograph of 24 megapixels that is all texture, composed of {CORNER} x {CORNER} corners of LFW's "
        "photographs, some of which show people of the background: the thorough search took "
        f"{of_texture[0]} places for faces, and {of_texture[1]} may be some.", "",
    ]  # fmt: skip
    print("\n".join(lines))
    if a.results is not None:
        a.results.write_text("\n".join(lines), "utf-8")


def singles(photos: Sequence[Path], detectors: dict[str, Find]) -> list[str]:
    """A row for each detector: recall, and how steady its eyes are."""
    rows = []
    for name, find in detectors.items():
        hits, errors = 0, []
        for path in photos:
            photo = np.asarray(Image.open(path).convert("RGB"))
            face = at(find(photo), SIDE / 2, SIDE / 2)
            hits += face is not None
            other = at(find(np.ascontiguousarray(photo[:, ::-1])), SIDE / 2, SIDE / 2)
            if face is not None and other is not None:
                back = places(other)[::-1] * (-1, 1) + (SIDE - 1, 0)
                errors.append(error(places(face), back))
        rows.append(f"| {name} | {hits} of {len(photos)} | {np.mean(errors):.3f} | {np.quantile(errors, 0.95):.3f} |")
    return rows


def groups(many: Sequence[tuple[Photo, Any]], detectors: dict[str, Find]) -> list[str]:
    """A row for each detector: recall by height, false faces, error of eyes, speed."""
    reference, truths = dlib_alone(0), {}
    for _, inside in many:
        for *_, path in inside:
            face = at(reference(np.asarray(Image.open(path).convert("RGB"))), SIDE / 2, SIDE / 2)
            truths[path] = None if face is None else places(face)
    rows = []
    for name, find in detectors.items():
        hits, all_of, errors, false = dict.fromkeys(HEIGHTS, 0), dict.fromkeys(HEIGHTS, 0), [], 0
        for photo, inside in many:
            faces = find(photo)
            true = 0
            for left, top, side, path in inside:
                height = min(HEIGHTS, key=lambda h: abs(h - side * FACE))
                face = at(faces, left + side / 2, top + side / 2)
                all_of[height] += 1
                hits[height] += face is not None
                true += face is not None
                if face is not None and truths[path] is not None:
                    truth = (truths[path] + 0.5) * side / SIDE - 0.5 + (left, top)
                    errors.append(error(places(face), truth))
            false += len(faces) - true
        speeds = []
        for threads in (1, 2):
            begun = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(find, [photo for photo, _ in many[:20]]))
            speeds.append(len(many[:20]) / (time.perf_counter() - begun))
        recall = " | ".join(f"{hits[h] / max(all_of[h], 1):.2f}" for h in HEIGHTS)
        rows.append(
            f"| {name} | {recall} | {false} | {np.mean(errors):.3f} | {np.quantile(errors, 0.95):.3f} | "
            f"{speeds[0]:.1f} | {speeds[1]:.1f} |"
        )
    return rows


def seconds(find: Find, photos: Sequence[Photo]) -> float:
    """Of one processor, for a photograph."""
    begun = time.process_time()
    for photo in photos:
        find(photo)
    return (time.process_time() - begun) / len(photos)


def larger(rng: np.random.Generator, everything: Sequence[Path], count: int) -> tuple[list[str], tuple[int, int]]:
    """A row for each size and search; and of a photograph of texture places that are, and that may be, faces."""
    searches = {"one look": bundled(), "thorough": bundled(thorough=True)}
    rows = []
    for megapixels, size in LARGE.items():
        hits = {name: dict.fromkeys(SMALL_HEIGHTS, 0) for name in searches}
        all_of = dict.fromkeys(SMALL_HEIGHTS, 0)
        other, before, after, took = (dict.fromkeys(searches, 0.0) for _ in range(4))
        for _ in range(count):
            paths = [everything[i] for i in rng.choice(len(everything), 21, replace=False)]
            plain = enlarged(rng, paths[0], size)
            crowd, inside = crowded(rng, plain, paths[1:])
            for *_, height in inside:
                all_of[height] += 1
            for name, find in searches.items():
                alone = find(plain)
                before[name] += sum(not face.is_certain for face in alone)
                begun = time.process_time()
                faces = find(crowd)
                took[name] += time.process_time() - begun
                after[name] += sum(not face.is_certain for face in faces)
                certain = [face for face in faces if face.is_certain]
                small = [face for face in certain if face.bottom - face.top < 2 * max(SMALL_HEIGHTS)]
                found = [at(small, x, y) is not None for x, y, _ in inside]
                for (*_, height), hit in zip(inside, found, strict=True):
                    hits[name][height] += hit
                other[name] += len(certain) - sum(found) - (at(certain, size[0] / 2, size[1] / 2) is not None)
        for name in searches:
            recall = " | ".join(f"{hits[name][h] / max(all_of[h], 1):.2f}" for h in SMALL_HEIGHTS)
            rows.append(
                f"| {megapixels} | {name} | {recall} | {other[name]:.0f} | {before[name] / count:.1f} | "
                f"{after[name] / count:.1f} | {took[name] / count:.2f} |"
            )
    texture = searches["thorough"](corners(rng, everything, LARGE["24"]))
    certain = sum(face.is_certain for face in texture)
    return rows, (certain, len(texture) - certain)


if __name__ == "__main__":
    main()
