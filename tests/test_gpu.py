"""Fits on a GPU begin as those on the CPU do, and end as releases that any machine loads; skipped where none is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from methods_matrix import BRIEF, PRESETS, brief, kind_of, pack_of, train, use_of
from veil.engine import Run
from veil.methods import METHODS
from veil.release import Release

NONE = 77


@pytest.mark.skipif(not any(Path("/dev").glob("nvidia[0-9]*")), reason="no GPU")
@pytest.mark.parametrize(("name", "preset"), [pair for pair in PRESETS if BRIEF[pair[0]]])  # of those that train
def test_fits_begin_as_on_the_cpu(name: str, preset: str, tmp_path: Path) -> None:
    """In a process of its own, for this one sees no GPU."""
    seen = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    line = [sys.executable, __file__, name, preset, str(tmp_path / "release")]
    done = subprocess.run(line, env=seen, capture_output=True, text=True)
    if done.returncode == NONE:
        pytest.skip("torch finds no GPU")
    assert done.returncode == 0, done.stdout + done.stderr


def fit_on_both(name: str, preset: str, path: str) -> None:
    pack, config = pack_of(kind_of(name)), brief(name, preset)
    kinds, losses = [], []
    for device in ("cpu", None):  # the CPU first: what it leaves behind must not keep the GPU from being used
        run = Run(seed=0, precision="fp32", device=device)
        private = ["gender"] if METHODS[name].hides else []
        release = train(name, config, pack, private=private, utility=use_of(name, kind_of(name)), run=run)
        kinds.append(run.device.type)
        losses.append([loss for *_, loss in run.curves])
    assert kinds[0] == "cpu" != kinds[1], kinds
    assert len(losses[0]) == len(losses[1])
    assert losses[0] or (name, preset) == ("template", "noise")  # which learns nothing
    assert np.isfinite(losses).all()
    np.testing.assert_allclose(losses[1][:2], losses[0][:2], rtol=0.05)  # convolutions round to 10 bits there
    x = np.asarray(pack.x[:32])
    release.save(path)
    np.testing.assert_array_equal(Release.load(path).transform(x), release.transform(x))


if __name__ == "__main__":
    if not torch.accelerator.is_available():
        sys.exit(NONE)
    fit_on_both(*sys.argv[1:])
