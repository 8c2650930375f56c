"""Restoration: a known blur, noise and map are undone, nothing is made better where there is nothing to restore."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from conftest import faces_pack
from veil.auditing import restoration, transfer
from veil.auditing.attackers import ATTACKERS
from veil.auditing.exhibit import Exhibit
from veil.auditing.linkage import Linking
from veil.auditing.problem import Problem
from veil.auditing.rosters import roster
from veil.auditing.setting import Setting
from veil.data.pack import Pack
from veil.findings import Finding
from veil.findings.codes import RESTORED, TRANSFER


def linking(releases: NDArray[Any], originals: NDArray[Any], effort: str = "standard") -> Linking:
    n = len(releases) * 3 // 4
    y = np.zeros(len(releases), np.int64)
    sides = (
        Problem(x=x[:n], y=y[:n], x_validation=x[n:], y_validation=y[n:], classes=1, seed=0, effort=effort)
        for x in (releases, originals)
    )
    return Linking(releases=next(sides), originals=next(sides))


def shapes(n: int = 300, side: int = 16) -> NDArray[np.uint8]:
    """Images of smooth shapes, that have nothing finer than their edges."""
    rng = np.random.default_rng(0)
    fields = gaussian_filter(rng.normal(size=(n, side, side)), sigma=(0, 2.5, 2.5))
    return np.where(fields > 0, 200, 50).astype(np.uint8)


def error(x: NDArray[Any], originals: NDArray[Any]) -> float:
    return float(np.square(x.astype(np.float32) - originals).mean())


# -- restorers --------------------------------------------------------------------------------------------------------


def test_noise_of_single_pixels_is_taken_away() -> None:
    x = shapes()
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(x.shape) < 0.1, rng.integers(0, 256, x.shape), x).astype(np.uint8)
    (restored,) = restoration.denoised(linking(noisy, x))(noisy)
    assert error(restored, x) < 0.4 * error(noisy, x)


def test_a_network_learns_to_undo_a_known_blur() -> None:
    x = shapes(400, 24)
    blurred = gaussian_filter(x, sigma=(0, 1.2, 1.2), mode="nearest")
    (restored,) = restoration.redrawn(linking(blurred, x))(blurred[300:])
    assert restored.dtype == np.uint8
    assert restored.shape == blurred[300:].shape
    assert error(restored, x[300:]) < 0.6 * error(blurred[300:], x[300:])


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3)])
def test_restorers_keep_the_form_of_images(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, *shape), dtype=np.uint8)
    for name, restorer in restoration.OF_IMAGES.items():
        for version in restorer(linking(x, x, "quick"))(x[:5]):
            assert (version.dtype, version.shape) == (np.uint8, (5, *shape)), name
    # Colours are not mixed with each other.
    plain = np.full((1, 9, 7, 3), (10, 100, 200), np.uint8)
    for restorer in (restoration.denoised, restoration.blurred):
        assert (restorer(linking(x, x))(plain)[0] == plain).all()


def test_perturbed_copies_differ_and_follow_the_seed() -> None:
    x = np.asarray(faces_pack().x)[:4]
    restore = restoration.perturbed(linking(x, x))
    one, two = restore(x), restore(x)
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    assert len({version.tobytes() for version in one}) == len(one) == 4


def test_vectors_are_mapped_back() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 10)).astype(np.float32)
    releases = (x @ rng.normal(size=(10, 14)) + 3 + 0.01 * rng.normal(size=(800, 14))).astype(np.float32)
    (restored,) = restoration.mapped_back(linking(releases, x))(releases[600:])
    assert np.abs(restored - x[600:]).mean() < 0.03
    nothing = np.ones((800, 14), np.float32)  # of what tells nothing the answer is the mean
    (restored,) = restoration.mapped_back(linking(nothing, x))(nothing[600:])
    np.testing.assert_allclose(restored, np.tile(x[:600].mean(0), (200, 1)), atol=1e-5)


# -- the families -----------------------------------------------------------------------------------------------------


@cache
def vectors() -> Pack:
    """Gender along one axis of several; the best reader is right in 97.7 of 100."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 8)).astype(np.float32)
    gender = np.arange(1500) % 2
    x[:, 0] += 4.0 * gender - 2.0
    return Pack.from_arrays(x, {"identity": np.arange(1500), "gender": gender})


def restored(pack: Pack, releases: NDArray[Any], effort: str = "quick") -> list[Finding]:
    setting = Setting(pack=pack, private=("gender",), utility=(), roster=roster(effort), effort=effort)
    exhibits = [Exhibit.of("Input", np.asarray(pack.x), "input"), Exhibit.of("r", releases, "method")]
    (task,) = restoration.tasks(setting, exhibits)
    return [f for f in task.prepare()().findings if f.code == RESTORED]


@pytest.mark.parametrize("effort", ["quick", "standard"])
def test_a_map_of_vectors_hides_nothing_from_who_undoes_it(effort: str) -> None:
    pack = vectors()
    rng = np.random.default_rng(1)
    (finding,) = restored(pack, (pack.x @ rng.normal(size=(8, 8))).astype(np.float32), effort)
    assert finding.low > 0.93
    assert finding.attacker.endswith(", mapped back")
    assert finding.worst


def test_what_is_gone_is_not_restored() -> None:
    (finding,) = restored(vectors(), np.random.default_rng(1).normal(size=(1500, 8)).astype(np.float32))
    assert finding.low < 0.5 < finding.high


def test_releases_of_another_kind_are_not_restored() -> None:
    pack = faces_pack()
    setting = Setting(pack=pack, private=("gender",), utility=(), roster=roster("quick"), effort="quick")
    codes = np.zeros((len(pack), 4), np.float32)
    exhibits = [Exhibit.of("Input", np.asarray(pack.x), "input"), Exhibit.of("r", codes, "method")]
    (task,) = restoration.tasks(setting, exhibits)
    (finding,) = task.prepare()().findings
    assert finding.status == "not_applicable"
    assert finding.note.startswith("releases are not of the originals' kind")


def test_classifiers_of_originals_read_restored_images() -> None:
    """Salt and pepper misleads a classifier of originals; after the median it reads as it did."""
    pack = faces_pack()
    x = np.asarray(pack.x)
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(x.shape) < 0.3, rng.integers(0, 256, x.shape), x).astype(np.uint8)
    own = roster("quick", classifiers={"RBF SVM": ATTACKERS["RBF SVM"]})
    setting = Setting(pack=pack, private=("glasses",), utility=(), roster=own, effort="quick")
    exhibits = [Exhibit.of("Input", x, "input"), Exhibit.of("r", noisy, "method")]
    (task,) = [t for t in transfer.tasks(setting, exhibits) if t.name.startswith("transfer of")]
    findings = task.prepare()().findings
    as_is = next(f for f in findings if f.code == TRANSFER and f.release == "r")
    after = {f.attacker: f for f in findings if f.code == RESTORED}
    assert set(after) == {"RBF SVM, denoised", "RBF SVM, blurred"}
    assert {f.release for f in after.values()} == {"r"}
    assert sum(f.worst for f in after.values()) == 1
    assert max(f.value for f in after.values()) > as_is.value
