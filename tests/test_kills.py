"""Commands that are killed, at some of their file-system events; `benchmarks/kills.py` does it at all of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from veil import files
from veil.workflows import audit

ROOT = Path(__file__).parents[1]
EVERY = {
    "pack": 9, "export": 60, "export --force": 90, "audit": 60, "audit --resume": 50, "audit, again": 80, "report": 3,
    "protect": 150, "protect --force": 200, "report, again": 5, "apply --images": 40, "apply --images --force": 60,
}  # fmt: skip
NAMES = (
    "pack", "pack --force", "label", "label --force", "embed", "embed --force", "fit", "fit --force", "apply",
    "apply --force", "apply, a pack", "apply, a pack --force", "apply --images", "apply --images --force", "audit",
    "audit --resume", "audit, again", "protect", "protect --force", "report", "report, again", "export",
    "export --force",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not files.LOCKS or sys.platform == "win32", reason="needs fork and locks")


@pytest.fixture(scope="module")
def kills() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("kills")


@pytest.fixture(scope="module")
def harness(kills: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("veil.workflows.audit.roster", audit.roster)  # as it is now, for what follows
        kills.quick_audits()
        yield kills.Harness(tmp_path_factory.mktemp("kills"))


def test_every_case_is_tried(kills: ModuleType) -> None:
    assert sorted(kills.CASES) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_command_that_is_killed_is_made_good(kills: ModuleType, harness: object, name: str) -> None:
    count, problems = harness.kills(kills.CASES[name], every=EVERY.get(name, 12), first=3)  # type: ignore[attr-defined]
    assert problems == []
    assert count
