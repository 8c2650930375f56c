"""Near-duplicates: how near they are, and that attackers read from their mean what its noise no longer hides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conftest import attacked_by, audited, faces_pack, only, vectors_pack
from veil.auditing.exhibit import Exhibit
from veil.auditing.repeats import COUNT, Repeats, chosen_rows, moved_images, moved_vectors, released_means
from veil.data.pack import Pack
from veil.workflows.audit import audit
from veil.workflows.fit import fit
from veil.workflows.subjects import Subject


def test_vectors_are_scaled_or_turned_about_the_centre() -> None:
    rng = np.random.default_rng(0)
    centre = np.full(40, 3, np.float32)
    x = (centre + rng.standard_normal((50, 40))).astype(np.float32)
    seen = []
    for number in range(COUNT):
        near = moved_vectors(x, number, centre, np.random.default_rng(number))
        assert near.dtype == np.float32
        if number < COUNT // 4:
            scale = near / x
            np.testing.assert_allclose(scale, scale[:, :1].repeat(40, 1), rtol=1e-5)
            assert (scale.min(), scale.max()) > (0.5, 1)
            assert scale.max() < 2
            continue
        a, b = x - centre, near - centre
        np.testing.assert_allclose(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1), rtol=1e-4)
        seen.append((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    turned = np.array(seen)
    np.testing.assert_allclose(turned[:12], 0.99, atol=1e-5)
    np.testing.assert_allclose(turned[12:], 0.95, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_shifted_lit_and_encoded(channels: int) -> None:
    ramp = np.linspace(40, 180, 24)
    image = np.round(ramp[:, None] / 2 + ramp[None] / 2).astype(np.uint8)  # 6 grey values a pixel, both ways in all
    x = np.repeat(image[None], 30, 0) if channels == 1 else np.repeat(image[None, ..., None], 30, 0).repeat(3, 3)
    near = moved_images(x, np.random.default_rng(0))
    assert (near.shape, near.dtype) == (x.shape, np.uint8)
    assert (moved_images(x, np.random.default_rng(0)) == near).all()
    light = near.reshape(30, -1).mean(1) / x.mean()
    assert light.min() > 0.85
    assert light.max() < 1.15
    assert light.std() > 0.02
    # Two pixels of a shift and a tenth of the light, and what JPEG loses of a ramp.
    assert np.abs(near.astype(int) - x).max() < 2 * 7 + 18 + 12
    assert len(np.unique(near.reshape(30, -1), axis=0)) > 25


PEOPLE = 600


def gendered() -> tuple[Pack, np.ndarray]:
    """Two vectors of each person, and what they would release without noise: gender in one value of 16."""
    rng = np.random.default_rng(0)
    gender = np.arange(PEOPLE) % 2
    clean = rng.standard_normal((PEOPLE, 16))
    clean[:, 0] = 2.0 * (2 * gender - 1)
    both = np.repeat(clean, 2, 0) + 0.1 * rng.standard_normal((2 * PEOPLE, 16))
    labels = {"gender": np.repeat(gender, 2), "identity": np.repeat(np.arange(PEOPLE), 2)}
    return Pack.from_arrays(both.astype(np.float32), labels), both.astype(np.float32)


def test_a_mean_tells_what_noise_of_its_own_for_each_hid() -> None:
    """The best that a single release, of noise 6, allows is Phi(2 / 6) = .63; 32 of them, Phi(2 sqrt(32) / 6) = .97."""
    pack, clean = gendered()
    rng = np.random.default_rng(1)
    singles = (clean + 6 * rng.standard_normal(clean.shape)).astype(np.float32)
    rows = chosen_rows(pack, ("attack",), "quick", 0)
    assert set(rows) == set(pack.rows("attack", "calibrate", "test"))
    same = singles[rows]
    own = released_means(
        lambda x: (x + 6 * rng.standard_normal(x.shape)).astype(np.float32), pack, rows, ("attack",), 0
    )

    def repeats(means: np.ndarray) -> Repeats:
        return Repeats(rows=rows, means=means, singles=singles)

    subjects = [
        Exhibit.of("own noise", singles, "method", near_duplicates=lambda *_: repeats(own)),
        Exhibit.of("one noise", singles, "method", near_duplicates=lambda *_: repeats(same)),
        Exhibit.of("strangers", singles, "method", near_duplicates="they gave vectors alone"),
        Exhibit.of("not asked", singles, "method"),
    ]
    best = only("logistic regression")  # for classes that are Gaussians of one covariance
    findings = audited(subjects, pack, private=["gender"], utility=[], together=False, changes=best)

    def worst(release: str, code: str) -> float:
        (finding,) = [f for f in findings if f.worst and (f.release, f.code) == (release, f"attribute.{code}")]
        assert finding.role == "attack"
        return float(finding.value or 0)

    # 300 test rows of 150 people: 3 standard errors are .09.
    assert worst("own noise", "balanced_accuracy") == pytest.approx(0.63, abs=0.1)
    assert worst("own noise", "repeated_balanced_accuracy") == pytest.approx(0.97, abs=0.06)
    assert worst("one noise", "repeated_balanced_accuracy") == pytest.approx(0.63, abs=0.1)
    rest = [f for f in findings if "repeated" in f.code and f.release in ("strangers", "not asked")]
    assert [(f.release, f.status, f.note) for f in rest] == [("strangers", "not_applicable", "they gave vectors alone")]


def test_releases_with_a_key_are_asked_for_near_duplicates(monkeypatch) -> None:
    attacked_by(monkeypatch, "logistic regression")  # who attacks does not matter here
    pack, images = vectors_pack(), faces_pack()
    noisy = fit("template", pack, private=["gender"], settings={"batch": 16, "steps": 2, "steps_guess": 2}).release
    subjects = [
        Subject(name="noisy", release=noisy),
        Subject(name="clean", release=replace(noisy, contract=replace(noisy.contract, noise=0.0))),
        Subject(name="outside", vectors=np.asarray(pack.x)),
    ]
    findings = audit(
        pack, subjects, private=["gender"], utility=["identity"], baselines=(), effort="quick", jobs=1
    ).findings
    states = {f.release: (f.status, f.note) for f in findings if f.code == "attribute.repeated_balanced_accuracy"}
    assert states["noisy"] == ("ok", "")
    assert states["clean"][0] == states["outside"][0] == "not_applicable"
    assert "draws nothing" in states["clean"][1]
    assert "vectors alone" in states["outside"][1]
    assert "Input" not in states

    # Of a draw among substitutes the indicators of codes are averaged: how often each comes tells its probability.
    drawn = fit("substitution", images, private=["gender"], utility="smile",
                settings={"batch": 16, "steps": 2, "codes": 4, "heads": 1, "person": "identity"}).release  # fmt: skip
    findings = audit(
        images, [Subject(name="drawn", release=drawn)], private=["gender"], utility=["smile"],
        baselines=(), effort="quick", jobs=1,
    ).findings  # fmt: skip
    assert [f.status for f in findings if f.code == "attribute.repeated_balanced_accuracy"] == ["ok"]
