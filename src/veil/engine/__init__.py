"""Pieces of a training loop: players and their updates, precision, checkpoints that resume bit-equal, processes."""

from veil.engine.player import Diverged, Player
from veil.engine.run import Run, Step

__all__ = ["Diverged", "Player", "Run", "Step"]
