"""A network that tells how alike two images are: from a weight file, or trained here without any label.

What is trained here learns to find, among a batch, the other random view of the same image (Chen et al., ICML 2020): it
needs no label and no other data. A network trained on ImageNet knows more; name its weight file where one is at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.engine.player import Player
from veil.engine.run import Run, Step, one_cycle, seeded
from veil.nn.augment import augment
from veil.nn.losses import supervised_contrastive
from veil.nn.nets import to_input
from veil.nn.torchvision import PerceptualNetwork, Vgg16, load_torchvision

View = Callable[[Tensor, Step], Tensor]
"""From images ``(B, C, H, W)`` to random views of them, drawn from the step."""

_BATCH = 96
_TEMPERATURE = 0.2


def from_file(path: Path) -> tuple[nn.Module, str]:
    """VGG-16 of a file of torchvision's weights, and the file's SHA-256.

    Raises:
        InputError: If the file does not hold them.
    """
    network = Vgg16()
    return network.requires_grad_(False), load_torchvision(network, path)


def player(run: Run, channels: int, steps: int) -> Player:
    """A fresh network and its optimiser, for so many steps."""
    with seeded(run.seed, "perceptual"):
        network = run.place(PerceptualNetwork(channels))
    return Player("perceptual", network, lr=2e-3, optimizer="adamw", weight_decay=0.01, schedule=one_cycle(steps))


def learn(
    run: Run,
    learner: Player,
    x: NDArray[np.uint8],
    rows: NDArray[np.int64],
    steps: int,
    *,
    view: View = lambda x, step: augment(x, step.uniform),
    batch: int = _BATCH,
    temperature: float = _TEMPERATURE,
) -> nn.Module:
    """Train the player's network on images ``x[rows]`` ``(n, H, W[, 3])``; afterwards it stays as it is.

    It sees two random views of each image of a batch, and learns which belong together: what views do not share it
    learns to pass over.
    """
    for step in run.stage("perceptual", steps):
        drawn = step.rng.choice(rows, run.batch(batch, len(rows)), replace=False)
        mine = to_input(x[run.share(drawn)], "images").to(run.device)
        views = torch.cat([view(mine, step) for _ in range(2)]).contiguous(memory_format=torch.channels_last)
        with run.autocast():
            z: Tensor = learner.module(views)
        first, second = (run.gather(part) for part in torch.split(F.normalize(z.float(), dim=1), len(mine)))
        who = torch.arange(len(first), device=run.device).repeat(2)
        run.update(learner, supervised_contrastive(torch.cat([first, second]), who, temperature))
    return learner.module.requires_grad_(False).eval()
