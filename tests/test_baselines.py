"""Baselines: LEACE against its theorem and its authors' package, Random against what it says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from conftest import faces_pack, vectors_pack
from methods_matrix import BRIEF, brief, train
from veil.data.pack import Pack
from veil.errors import InputError
from veil.methods import aia, random
from veil.methods.base import input_release
from veil.methods.leace import leace
from veil.release import Release
from veil.workflows import fit as fitting


def fit_leace(pack: Pack, **options) -> Release:
    return train("leace", brief("leace"), pack, **options)


def fit_random(pack: Pack, share: float = 0.5, **options) -> Release:
    return train("random", random.Config(share=share), pack, **options)


def data(n: int, k: int, classes: tuple[int, ...], rank: int | None = None, seed: int = 0):
    """x ``(n, k)`` correlated, of the given rank, its mean moved by every class; z the classes' indicators."""
    rng = np.random.default_rng(seed)
    rank = rank or k
    codes = [rng.integers(c, size=n) for c in classes]
    x = rng.normal(size=(n, rank)) * np.linspace(1, 3, rank)
    for c, code in zip(classes, codes, strict=True):
        x += rng.normal(size=(c, rank))[code]
    x = x @ np.linalg.qr(rng.normal(size=(k, k)))[0][:rank] + rng.normal(size=k)
    return x, np.concatenate([np.eye(c)[code] for c, code in zip(classes, codes, strict=True)], 1), codes


def erase(x: np.ndarray, z: np.ndarray, at: np.ndarray | None = None) -> np.ndarray:
    mean, left, right = leace(x, z)
    at = x if at is None else at
    return at - (at - mean) @ right.T @ left.T


CASES = {
    "plain": ((400, 12, (2,)), {}),
    "several attributes": ((600, 12, (2, 5)), {}),
    "rank-deficient": ((400, 30, (3,)), {"rank": 7}),
    "fewer rows than values": ((20, 60, (2,)), {}),
    "one value": ((300, 1, (2,)), {}),
    "more classes than values": ((500, 3, (6,)), {}),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # when the package is imported
@pytest.mark.parametrize("case", CASES)
def test_leace_equals_its_authors_package(case):
    """With shrinkage and the trace constraint off, which are the package's own departures from the theorem.

    Ours adds 1e-10 of the mean variance to the covariance: relative to the smallest variance that counts, times the
    change that erasure makes, that is what the two may differ by; and rounding in float64 of the same condition.
    """
    from concept_erasure import LeaceFitter

    arguments, options = CASES[case]
    x, z, _ = data(*arguments, **options)
    fitter = LeaceFitter.fit(
        torch.from_numpy(x), torch.from_numpy(z), shrinkage=False, constrain_cov_trace=False, svd_tol=1e-6
    )
    theirs = fitter.eraser(torch.from_numpy(x)).numpy()
    ours = erase(x, z)
    change = np.abs(theirs - x).max()
    assert change > 0.1
    variances = np.linalg.eigvalsh(np.cov(x.T).reshape(x.shape[1], -1))
    smallest = variances[variances > 1e-9 * variances.max()].min()
    tolerance = change * (10 * 1e-10 * variances.mean() + 1e-13 * variances.max()) / smallest
    assert tolerance < 1e-6
    np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=0)


def accuracy_of_lines(x: np.ndarray, z: np.ndarray) -> float:
    """How much of the classes' variance least squares explains on the data it is fitted on: R^2."""
    a = np.c_[np.ones(len(x)), x]
    fitted = a @ np.linalg.lstsq(a, z, rcond=1e-9)[0]
    return 1 - float(np.square(z - fitted).sum() / np.square(z - z.mean(0)).sum())


@pytest.mark.parametrize("case", [c for c in CASES if c != "fewer rows than values"])
def test_no_line_reads_anything_after_leace(case):
    """Theorem 3.1: zero cross-covariance is the same as every linear attacker being at its best constant."""
    arguments, options = CASES[case]
    x, z, codes = data(*arguments, **options)
    r = erase(x, z)
    assert accuracy_of_lines(x, z) > 0.05
    assert accuracy_of_lines(r, z) < 1e-6
    covariance = (r - r.mean(0)).T @ (z - z.mean(0)) / len(x)
    assert np.abs(covariance).max() < 1e-8
    np.testing.assert_allclose(r.mean(0), x.mean(0), atol=1e-10)
    for y in codes:
        balanced = LogisticRegression(class_weight="balanced", C=1e4, max_iter=2000)
        before = balanced_accuracy_score(y, balanced.fit(x, y).predict(x))
        after = balanced_accuracy_score(y, balanced.fit(r, y).predict(r))
        assert before > 1 / len(np.unique(y)) + 0.05
        assert after < before
        plain = LogisticRegression(C=1e4, max_iter=2000).fit(r, y)
        assert plain.score(r, y) <= np.bincount(y).max() / len(y) + 1e-9


def test_leace_changes_as_little_as_can_be():
    """Theorem 4.3: of all affine maps that erase, the one with the least mean squared change, whatever the norm.

    A map x -> A (x - mean) + mean erases if and only if A Cov(x, z) = 0, that is A = M (1 - P) with LEACE's P.
    """
    x, z, _ = data(800, 10, (3,))
    mean, left, right = leace(x, z)
    rng = np.random.default_rng(0)
    change = erase(x, z) - x
    for size in (0.01, 0.1, 1.0) * 5:
        a = (np.eye(10) + size * rng.normal(size=(10, 10))) @ (np.eye(10) - left @ right)
        other = (x - mean) @ a.T + mean
        assert np.abs((other - mean).T @ (z - z.mean(0)) / len(x)).max() < 1e-8  # it erases too
        norm = rng.normal(size=(10, 10))
        assert np.square(change @ norm).sum() < np.square((other - x) @ norm).sum()


def test_leace_leaves_data_without_the_concept_alone():
    x, _, _ = data(500, 6, (2,))
    half = np.repeat(x[:250], 2, axis=0)  # every row once in each class: no covariance at all
    z = np.eye(2)[np.tile([0, 1], 250)]
    np.testing.assert_allclose(erase(half, z), half, atol=1e-9)


def test_leace_of_wide_rows_is_that_of_their_covariance():
    """Fewer rows than values: against the theorem written out with the whole covariance, whose ridge is 1e-10, too."""
    x, z, _ = data(50, 80, (3,))
    centred, indicators = x - x.mean(0), (z - z.mean(0)) / len(x)
    whole = centred.T @ centred / len(x)
    solved = np.linalg.solve(whole + 1e-10 * np.trace(whole) / 80 * np.eye(80), centred.T @ indicators)
    cross = centred.T @ indicators
    expected = x - centred @ solved @ np.linalg.pinv(cross.T @ solved, rcond=1e-6, hermitian=True) @ cross.T
    assert np.abs(expected - x).max() > 0.1
    np.testing.assert_allclose(erase(x, z), expected, atol=1e-6)


def test_leace_needs_no_covariance_of_all_values():
    """128x128 in RGB: it would take 18 GiB."""
    x, z = np.random.default_rng(0).random((40, 49152), np.float32), np.eye(2)[np.arange(40) % 2]
    x[::2] += np.float32(0.1)
    left = erase(x, z).T @ (z - z.mean(0)) / len(x)
    assert np.abs(x.T @ (z - z.mean(0)) / len(x)).max() > 0.02
    assert np.abs(left).max() < 1e-12


# As a method


def gender_attack(release: Release, pack: Pack, label: str = "gender") -> float:
    """A linear attacker at its best: fitted and measured on the rows that the eraser was fitted on."""
    rows = pack.rows("protect")
    r, y = release.transform(pack.x[rows]).astype(np.float64), pack.label(label)[rows]
    attacker = LogisticRegression(C=1e3, max_iter=5000)
    return float(balanced_accuracy_score(y, attacker.fit(r, y).predict(r)))


def test_leace_release_stops_lines_on_every_attribute():
    """Values are kept in float32, so the covariance left is some 1e-7 of what was there."""
    pack = vectors_pack()
    plain = input_release(pack)
    for private in (["gender"], ["gender", "age"]):
        release = fit_leace(pack, private=private)
        assert release.config["rank"] == len(private)  # Z - 1 directions each
        for label in private:
            assert gender_attack(plain, pack, label) > 0.9
            assert gender_attack(release, pack, label) == pytest.approx(0.5, abs=0.02)
        rest = {"gender", "age"} - set(private)
        assert all(gender_attack(release, pack, label) > 0.9 for label in rest)


def test_leace_of_images_leaves_no_covariance():
    """1024 pixels, some 200 rows: the covariance is singular, and before erasure a line is never wrong."""
    pack = faces_pack()
    rows = pack.rows("protect")
    z = np.concatenate([np.eye(len(pack.classes[n]))[pack.label(n)[rows]] for n in ("gender", "expression")], 1)
    release = fit_leace(pack, private=["gender", "expression"])

    def left(release: Release) -> float:
        r = release.transform(pack.x[rows]).astype(np.float64)
        return float(np.abs((r - r.mean(0)).T @ (z - z.mean(0)) / len(rows)).max())

    assert gender_attack(input_release(pack), pack) > 0.95
    assert left(input_release(pack)) > 0.01
    assert left(release) < 1e-5
    assert release.config["rank"] == 1 + 6
    assert release.contract.feature_map == (1, 32, 32)


def test_leace_is_fitted_on_protect_alone():
    pack = vectors_pack()
    x, elsewhere = pack.x.copy(), pack.rows("attack", "calibrate", "test")
    x[elsewhere] *= -3
    a, b = (fit_leace(p, private=["gender"]) for p in (pack, replace(pack, x=x)))
    assert all(torch.equal(p, q) for p, q in zip(a.encoder.buffers(), b.encoder.buffers(), strict=True))


def paper() -> Release:
    config = aia.Config(batch=16, steps_alone=1, steps_joint=1)
    return train("aia", config, faces_pack())


def test_leace_on_a_base_starts_from_its_releases(tmp_path):
    pack, base = faces_pack(), paper()
    release = fit_leace(pack, private=["gender"], base=base)
    rows = pack.rows("protect")
    inside = base.transform(pack.x[rows]).astype(np.float64)
    z = np.eye(2)[pack.label("gender")[rows]]
    # float32 maps of condition some 1e3 on values of about 0.5
    np.testing.assert_allclose(release.transform(pack.x[rows]), erase(inside, z), atol=1e-4)
    twice = fit_leace(pack, private=["smile"], base=release)
    again = Release.load(twice.save(tmp_path / "r"))
    assert (again.transform(pack.x[:9]) == twice.transform(pack.x[:9])).all()


@pytest.mark.parametrize("share", [0.5, 0.13, 1.0])
def test_random_replaces_the_share_and_keeps_the_rest(share):
    pack, base = faces_pack(), paper()
    release = fit_random(pack, share, private=["gender"], base=base)
    clean, out = base.transform(pack.x), release.transform(pack.x)
    k = release.contract.k
    changed = clean != out
    # A draw equals the value it replaces once in 2^23.
    assert np.abs(changed.sum(1) - round(share * k)).max() <= 1
    assert (changed.sum(1) == round(share * k)).mean() > 0.99
    assert out.min() >= 0
    assert out.max() <= 1
    assert (release.transform(pack.x) == out).all()
    # Which values are replaced is drawn afresh for every row, each as often as any other; and uniformly refilled.
    n = len(pack)
    if share < 1:
        assert np.abs(changed.mean(0) - share).max() < 5 * math.sqrt(share * (1 - share) / n)
        assert len({row.tobytes() for row in changed}) == n
    drawn = out[changed]
    assert drawn.mean() == pytest.approx(0.5, abs=5 / math.sqrt(12 * drawn.size))
    assert drawn.var() == pytest.approx(1 / 12, abs=5 * math.sqrt(1 / 180 / drawn.size))
    # Places and values are drawn apart: a value does not tell where it stands.
    other = fit_random(pack, share, private=["gender"], key=bytes(32), base=base)
    assert (other.transform(pack.x) != out).any(1).all()


def test_random_on_the_input():
    pack = faces_pack()
    release = fit_random(pack, private=["gender"])
    kept = release.transform(pack.x[:20]) == input_release(pack).transform(pack.x[:20])
    assert (np.abs(kept.sum(1) - 512) <= 5).all()


@pytest.mark.parametrize("centre", [0.0, 40.0])
def test_random_scales_values_that_lie_elsewhere(tmp_path, centre):
    """Draws come from where the values lie, whatever their range, and do not show among them."""
    rng = np.random.default_rng(0)
    x = (centre + rng.normal(size=(2000, 6)) * np.array([0.1, 1, 10, 1, 1, 0])).astype(np.float32)
    pack = Pack.from_arrays(x, {"gender": np.arange(2000) % 2}, split=["protect"] * 1000 + ["test"] * 1000)
    release = fit_random(pack, private=["gender"])
    out = release.transform(x)
    assert out.min() >= 0
    assert out.max() <= 1
    clean = (x - x[:1000].mean(0)) / np.maximum(6 * x[:1000].std(0), 1e-9) + 0.5
    kept = np.abs(out - clean.clip(0, 1)) < 1e-3
    assert (kept[:, :5].sum(1) <= 3).mean() > 0.9
    assert kept[:, :5].mean() == pytest.approx(0.5, abs=0.02)
    assert "outside [0, 1]" in release.made["warnings"][0]
    again = Release.load(release.save(tmp_path / "r"))
    assert (again.transform(x) == out).all()


def test_random_refuses_values_whose_range_is_no_number():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32) * np.float32(1e38)
    pack = Pack.from_arrays(x, {"gender": np.arange(40) % 2}, split=["protect"] * 40)
    with pytest.raises(InputError, match=r"random: values to be scaled must lie within 1e\+30 of 0, got"):
        fit_random(pack, private=["gender"])


@pytest.mark.parametrize("row", [1000, 1300, 1999])
def test_random_looks_at_every_row_that_it_releases(row):
    """Far beyond the first 256, in fitting and afterwards."""
    x = np.random.default_rng(0).random((2000, 6), np.float32)
    labels = {"gender": np.arange(2000) % 2}
    fine = Pack.from_arrays(x, labels, split=["protect"] * 1000 + ["test"] * 1000)
    release = fit_random(fine, private=["gender"])
    for value in (-0.5, 1.5):
        bad = x.copy()
        bad[row, 3] = value
        pack = Pack.from_arrays(bad, labels, split=["protect"] * 1000 + ["test"] * 1000)
        with pytest.raises(InputError, match=rf"random: values must lie in \[0, 1\], got .* in row {row}$"):
            fit_random(pack, private=["gender"])
        with pytest.raises(InputError, match=rf"random: values must lie in \[0, 1\], got .* in row {row}$"):
            release.transform(bad)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_random_refuses_other_shares(share):
    with pytest.raises(InputError, match=r"share: must lie in \(0, 1\]"):
        random.Config(share=share)


@pytest.mark.parametrize("method", ["leace", "random"])
def test_keyed_base_is_refused(method):
    pack = faces_pack()
    base = fit_random(pack, private=["gender"])
    with pytest.raises(InputError, match="without keyed noise or a choice, got 'random' with keyed noise"):
        train(method, brief(method), pack, base=base)


BASES = {
    "codes": (
        "substitution",
        {"steps": 1, "codes": 4, "draw": False, "substitutes": "code"},
        "a choice among substitutes",
    ),
    "averages": ("substitution", {"steps": 1, "codes": 4, "draw": False}, "a choice among substitutes"),
    "images": ("mi", BRIEF["mi"], "images"),
}


@pytest.mark.parametrize("method", ["leace", "random"])
@pytest.mark.parametrize("case", BASES)
def test_base_that_releases_no_vectors_is_refused(method, case):
    under, settings, words = BASES[case]
    pack = faces_pack()
    base = fitting.fit(under, pack, private=["gender"], utility="smile", settings=settings).release
    with pytest.raises(InputError, match=f"base: must release vectors, .* got '{under}' with {words}"):
        fitting.fit(method, pack, private=["gender"], base=base)


def test_leace_on_a_base_that_may_be_told_guesses(tmp_path):
    pack = vectors_pack()
    base = fitting.fit("template", pack, private=["gender"], preset="aligned", settings={"steps_guess": 2}).release
    release = fit_leace(pack, private=["gender"], base=base)
    again = Release.load(release.save(tmp_path / "r"))
    rows = pack.rows("protect")
    inside, z = base.transform(pack.x[rows]).astype(np.float64), np.eye(2)[pack.label("gender")[rows]]
    np.testing.assert_allclose(again.transform(pack.x[rows]), erase(inside, z), atol=1e-5)
    with pytest.raises(InputError, match=r"nothing \(it guesses\), got 'gender'"):
        again.transform(pack.x[:2], told={"gender": np.zeros(2, int)})


def test_leace_names_a_missing_label():
    with pytest.raises(InputError, match="beard"):
        fit_leace(vectors_pack(), private=["gender", "beard"])
