"""Fits on a GPU begin as those on the CPU do, and end as releases that any machine loads; skipped where none is."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import faces_pack, vectors_pack
from veil.engine import Run
from veil.methods import METHODS
from veil.release import Release

NONE = 77


@pytest.mark.skipif(not any(Path("/dev").glob("nvidia[0-9]*")), reason="no GPU")
@pytest.mark.parametrize(
    ("name", "preset", "private", "utility"),
    [
        ("aia", "paper", "gender", "identity"),
        ("aia", "deep", "gender", "identity"),
        ("inversion", "default", "", "glasses"),
        ("mi", "default", "gender", "smile"),
        ("san", "default", "gender", "identity"),
        ("san", "hardened", "gender", "identity"),
        ("substitution", "default", "gender", "smile"),
        ("template", "default", "gender", "identity"),
        ("template", "erased", "gender", "identity"),
    ],
)
def test_fits_begin_as_on_the_cpu(name: str, preset: str, private: str, utility: str, tmp_path: Path) -> None:
    """In a process of its own, for this one sees no GPU."""
    seen = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    line = [sys.executable, __file__, name, preset, private, utility, str(tmp_path / "release")]
    done = subprocess.run(line, env=seen, capture_output=True, text=True)
    if done.returncode == NONE:
        pytest.skip("torch finds no GPU")
    assert done.returncode == 0, done.stdout + done.stderr


def fit_on_both(name: str, preset: str, private: str, utility: str, path: str) -> None:
    method, pack = METHODS[name], vectors_pack() if name == "template" else faces_pack()
    short = {field.name: 4 for field in fields(method.config) if field.name.startswith("steps")} | {"batch": 16}
    short |= {"mi": {"least_variety": 0}, "san": {"aligned": 0}}.get(name, {})
    kinds, losses = [], []
    for device in ("cpu", None):  # the CPU first: what it leaves behind must not keep the GPU from being used
        run = Run(seed=0, precision="fp32", device=device)
        release = method.fit(
            method.configured(preset, short), pack, private=[private] if method.hides else [], utility=utility,
            seed=0, run=run, key=b"0" * 32,
        )  # fmt: skip
        kinds.append(run.device.type)
        losses.append([loss for *_, loss in run.curves])
    assert kinds[0] == "cpu" != kinds[1], kinds
    assert len(losses[0]) == len(losses[1]) > 0
    assert np.isfinite(losses).all()
    np.testing.assert_allclose(losses[1][:2], losses[0][:2], rtol=0.05)  # convolutions round to 10 bits there
    x = np.asarray(pack.x[:32])
    release.save(path)
    np.testing.assert_array_equal(Release.load(path).transform(x), release.transform(x))


if __name__ == "__main__":
    if not torch.accelerator.is_available():
        sys.exit(NONE)
    fit_on_both(*sys.argv[1:])
