"""Detectors of faces compared: on LFW's photographs, and on group photographs that are composed of them.

    python benchmarks/faces.py --lfw DIR [--photos 1000] [--groups 60] [--large 12]
        [--seed 0] [--results docs/results/faces.md]

DIR holds LFW's photographs of 250 x 250 (folders of people, anywhere below). Each shows one face in its middle. A group
photograph of 1152 x 864 has twelve of them, each on a tile, with faces of 24 to 128 pixels. Nobody marked the eyes:
they are compared with those that are found in the mirrored picture (how steady they are), and, in groups, with those
that dlib's detector and landmarks find in the photographs that groups are composed of, which are larger.
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
from veil.data.faces import LOOKED_AT, SMALLEST, Face, bundled, packaged

Photo = NDArray[np.uint8]
Find = Callable[[Photo], Sequence[Face]]
SIDE, WIDTH, HEIGHT = 250, 1152, 864
COLUMNS, ROWS = 4, 3
HEIGHTS = (24, 32, 40, 56, 80, 104, 128)
"""Of faces in groups, in pixels: about .45 of the side of an LFW photograph is its face."""
FACE = 0.45
LARGE, SMALL = 6000, (20, 24, 28, 32, 40, 56, 80, 120, 160, 320)
"""Width of large photographs, and the heights of the faces in them."""
COMMAND = "python benchmarks/faces.py --lfw DIR --results docs/results/faces.md"


def bundled_alone() -> Find:
    """The faces that `--faces` aligns."""
    find = bundled()
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True, help="folder with LFW's photographs, anywhere below")
    parser.add_argument("--photos", type=int, default=1000, help="photographs of one face")
    parser.add_argument("--groups", type=int, default=60, help="group photographs of twelve faces")
    parser.add_argument("--large", type=int, default=12, help="large photographs of 24 faces")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="Markdown file for the tables")
    a = parser.parse_args()
    rng = np.random.default_rng(a.seed)
    everything = sorted(a.lfw.rglob("*.jpg"))
    detectors: dict[str, Find] = {
        "CenterFace and dlib": bundled_alone(), "dlib": dlib_alone(0), "dlib, upsampled": dlib_alone(1),
    }  # fmt: skip
    photos = [everything[i] for i in rng.choice(len(everything), min(a.photos, len(everything)), replace=False)]
    alone = singles(photos, detectors)
    many = [group(rng, [everything[i] for i in rng.choice(len(everything), COLUMNS * ROWS)]) for _ in range(a.groups)]
    sizes = " | ".join(map(str, HEIGHTS))
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
        "|---|" + "---:|" * (len(HEIGHTS) + 5), *groups(many, detectors), "",
        f"{a.large} photographs of {LARGE} x {LARGE * 2 // 3} with 24 faces each: faces found, by their height in",
        f"pixels, in one look at {LOOKED_AT} pixels of the longer side, and where small faces are searched, too;",
        "places in a photograph that may be a face; and processor seconds for one, of that size and smaller.", "",
        f"| search | {' | '.join(map(str, SMALL))} | may be one | 24 megapixels | 12 | 1 |",
        "|---|" + "---:|" * (len(SMALL) + 4), *large_ones(rng, everything, a.large), "",
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


def large_ones(rng: np.random.Generator, everything: Sequence[Path], count: int) -> list[str]:
    """A row for each search: recall by height in large photographs, places that may be faces, and time."""
    photos = [large(rng, everything) for _ in range(count)]
    rows = []
    for name, find in (("one look", one_look()), ("small faces, too", bundled(thorough=True))):
        hits, all_of, doubts, seconds = dict.fromkeys(SMALL, 0), dict.fromkeys(SMALL, 0), 0, []
        for number, (photo, inside) in enumerate(photos):
            begun = time.process_time()
            faces = find(photo)
            seconds.append(time.process_time() - begun)
            doubts += sum(not face.is_certain for face in faces)
            certain = [face for face in faces if face.is_certain]
            for left, top, side, height in inside:
                all_of[height] += 1
                hits[height] += at(certain, left + side / 2, top + side / 2) is not None
            if number == 0:
                smaller = [_seconds(find, photo, width) for width in (4243, 1224)]
        recall = " | ".join(f"{hits[height] / max(all_of[height], 1):.2f}" for height in SMALL)
        times = " | ".join(f"{each:.2f}" for each in (np.mean(seconds), *smaller))
        rows.append(f"| {name} | {recall} | {doubts / count:.1f} | {times} |")
    return rows


def one_look() -> Find:
    """The bundled detector's first look, of photographs with larger faces or not."""
    find: Any = bundled()
    return lambda photo: [
        Face(left=b[0], top=b[1], right=b[2], bottom=b[3], eyes=Eyes(b[0], b[1], b[2], b[1]), score=float(score))
        for b, score in zip(*find._boxes(photo), strict=True)
    ]


def large(rng: np.random.Generator, faces: Sequence[Path]) -> tuple[Photo, list[tuple[int, int, int, int]]]:
    """A large photograph; left, top and side of each tile, and the height of the face on it."""
    behind = Image.open(faces[rng.integers(len(faces))]).convert("RGB").resize((18, 12))
    canvas = np.asarray(behind.resize((LARGE, LARGE * 2 // 3), Image.Resampling.BICUBIC)).astype(np.int16)
    canvas += rng.integers(-8, 9, canvas.shape, dtype=np.int16)
    photo = canvas.clip(0, 255).astype(np.uint8)
    inside = []
    for i in range(24):
        height = int(rng.choice(SMALL))
        side = round(height / FACE)
        path = faces[rng.integers(len(faces))]
        tile = np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.LANCZOS))
        left, top = (1000 * place + int(rng.integers(1000 - side)) for place in (i % 6, i // 6))
        photo[top : top + side, left : left + side] = tile
        inside.append((left, top, side, height))
    return photo, inside


def _seconds(find: Find, photo: Photo, width: int) -> float:
    """Processor seconds for the same photograph, smaller."""
    smaller = np.asarray(Image.fromarray(photo).resize((width, width * 2 // 3)))
    begun = time.process_time()
    find(smaller)
    return time.process_time() - begun


if __name__ == "__main__":
    main()
