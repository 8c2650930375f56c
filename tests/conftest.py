"""What several test files share: one thread, seeded draws, and two small populations."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from veil.data import stylised
from veil.data.pack import Pack

torch.set_num_threads(1)

PEOPLE, IMAGES = 120, 4


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@cache
def faces_pack() -> Pack:
    """120 stylised people, 4 grey images of 32x32 each; gender, expression, smile and glasses."""
    faces = stylised.population(PEOPLE, IMAGES, seed=1)
    names = [faces.names(row) for row in range(len(faces))]
    return Pack.from_arrays(
        stylised.render(faces, size=32, threads=1),
        {label: [n[label] for n in names] for label in names[0]},
        sources=[f"album/{n['identity']}/shot-{row}.png" for row, n in enumerate(names)],
    )


@cache
def vectors_pack(people: int = 400, images: int = 3, d: int = 16, seed: int = 0) -> Pack:
    """People as vectors with a known answer: values 0-2 tell their gender and 3 their age, the others who they are.

    Gender moves values 0-2 by 2 within-person standard deviations each side of 0, age moves value 3 so; nothing else
    depends on them. Every person's own values 4.. are N(0, 1), every image of a person adds N(0, 0.3^2).
    """
    rng = np.random.default_rng(seed)
    gender, age = rng.permutation(people) % 2, rng.permutation(people) % 2
    own = rng.normal(size=(people, d))
    own[:, :3] = 0.6 * (2 * gender[:, None] - 1)
    own[:, 3] = 0.6 * (2 * age - 1)
    who = np.repeat(np.arange(people), images)
    x = own[who] + rng.normal(scale=0.3, size=(len(who), d))
    labels = {
        "identity": [f"visitor-{i:03d}" for i in who],
        "gender": np.array(["female", "male"])[gender[who]],
        "age": np.array(["old", "young"])[age[who]],
    }
    return Pack.from_arrays(x.astype(np.float32), labels)


@pytest.fixture(scope="session")
def faces() -> Pack:
    return faces_pack()


@pytest.fixture(scope="session")
def vectors() -> Pack:
    return vectors_pack()
