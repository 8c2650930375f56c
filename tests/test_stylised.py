"""The stylised faces: same bytes for the same seed, true labels, gender as hard to tell as the closed form says."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from veil.data import portraits, stylised
from veil.data.layouts import stylised as layout
from veil.data.layouts.listing import Options
from veil.errors import InputError


@pytest.fixture(scope="module")
def faces() -> stylised.Faces:
    return stylised.population(12, 6, seed=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_do_not_depend_on_chunks_threads_or_neighbours(faces, channels):
    whole = stylised.render(faces, size=64, channels=channels, threads=1)
    assert np.array_equal(whole, stylised.render(faces, size=64, channels=channels, threads=3))
    for chunk in (1, 7, 50):
        pieces = list(stylised.stream(faces, size=64, channels=channels, chunk=chunk))
        assert max(map(len, pieces)) == chunk
        assert np.array_equal(whole, np.concatenate(pieces))
    rows = [70, 3, 3, 41]
    assert np.array_equal(whole[rows], stylised.render(faces, rows, size=64, channels=channels))


def test_seed_decides_everything(faces):
    again, other = stylised.population(12, 6, seed=3), stylised.population(12, 6, seed=4)
    images = stylised.render(faces, size=32)
    assert np.array_equal(images, stylised.render(again, size=32))
    assert all(np.array_equal(faces.labels[name], again.labels[name]) for name in faces.labels)
    assert not (images == stylised.render(other, size=32)).all(axis=(1, 2)).any()


@pytest.mark.parametrize(("size", "channels", "shape"), [(16, 1, (16, 16)), (33, 3, (33, 33, 3)), (200, 1, (200, 200))])
def test_any_size_in_grey_or_rgb(faces, size, channels, shape):
    images = stylised.render(faces, range(4), size=size, channels=channels)
    assert images.shape == (4, *shape)
    assert images.dtype == np.uint8
    assert (images.reshape(4, -1).std(axis=1) > 20).all()  # something is drawn: a plain background has about 10


def test_grey_is_the_luma_of_rgb(faces):
    grey, rgb = (stylised.render(faces, size=48, channels=channels).astype(float) for channels in (1, 3))
    unclipped = ((rgb > 0) & (rgb < 255)).all(axis=-1)
    # Each of the four values is rounded once, by at most 0.5, and the weights of luma sum to 1; float32 adds < 0.01.
    assert np.abs(grey - rgb @ (0.299, 0.587, 0.114))[unclipped].max() < 1.01


def test_no_rows(faces):
    assert stylised.render(faces, [], size=32, channels=3).shape == (0, 32, 32, 3)


def test_labels_are_consistent():
    faces = stylised.population(101, 20, seed=0)
    labels = faces.labels
    gender = labels["gender"].reshape(101, 20)
    assert (gender == gender[:, :1]).all()
    assert np.bincount(gender[:, 0]).tolist() == [51, 50]
    assert np.abs(np.diff(gender[:, 0])).sum() > 20  # in random order: 50 changes expected, standard deviation 5
    assert labels["identity"].tolist() == np.repeat(np.arange(101), 20).tolist()
    smiling = [set(labels["smile"][labels["expression"] == code].tolist()) for code in range(7)]
    assert dict(zip(stylised.EXPRESSIONS, smiling, strict=True)) == {
        "anger": {0}, "disgust": {0}, "fear": {0}, "joy": {1}, "neutral": {0, 1}, "sadness": {0}, "surprise": {0, 1},
    }  # fmt: skip
    # 2,020 draws of 1/7 each: standard deviation 0.0078; five of them.
    assert np.abs(np.bincount(labels["expression"]) / 2020 - 1 / 7).max() < 0.039
    worn = labels["glasses"].reshape(101, 20).mean(axis=1)
    assert worn.std() > 0.2  # a habit of the person: independent coins would give about 0.1
    names = faces.names(2019)
    assert re.fullmatch("person-00100-[0-9a-f]{8}", names["identity"])
    other = stylised.population(101, 20, seed=1)  # whose number 100 is somebody else
    assert other.names(2019)["identity"][:12] == names["identity"][:12]
    assert other.names(2019)["identity"] != names["identity"]
    assert faces.names(2000)["identity"] == names["identity"]
    assert stylised.population(101, 2, seed=0).names(201)["identity"] == names["identity"]
    assert names["gender"] == ("female", "male")[labels["gender"][2019]]


def test_only_identities_depend_on_gender():
    """Glasses and smiles are independent of gender: their rates differ by sampling error alone."""
    faces = stylised.population(4000, 5, seed=1)
    male = faces.labels["gender"] == 1
    for label in ("glasses", "smile"):
        rate = faces.labels[label]
        error = rate.reshape(4000, 5).mean(axis=1).std() * math.sqrt(4 / 4000)  # of the difference of two halves
        assert abs(rate[male].mean() - rate[~male].mean()) < 4.5 * error


def test_closed_form_of_the_best_attack():
    """A linear discriminant on the true parameters reaches Phi(d'/2) and no parameter alone comes near."""
    bayes = stylised.gender_bayes_accuracy()
    assert 0.93 < bayes < 0.95
    train, test = (stylised.population(4000, 1, seed=seed) for seed in (10, 11))
    # Fitted on n people, the discriminant of p parameters loses about phi(d'/2) * (p / n) * (d'^2 + 4) / (4 d')
    # (Okamoto 1963, leading term, doubled below for the rest). Measured on n others, it also has sampling
    # noise: 4.5 standard errors.
    model = LinearDiscriminantAnalysis().fit(train.identities, train.labels["gender"])
    accuracy = model.score(test.identities, test.labels["gender"])
    n, p, distance = 4000, len(stylised.PARAMETERS), 2 * NormalDist().inv_cdf(bayes)
    noise = 4.5 * math.sqrt(bayes * (1 - bayes) / n)
    excess = NormalDist().pdf(distance / 2) * (p / n) * (distance**2 + 4) / (4 * distance)
    assert bayes - noise - 2 * excess < accuracy < bayes + noise

    for i, (shift, _, _) in enumerate(stylised.PARAMETERS.values()):
        exact = NormalDist().cdf(abs(shift) / 2)
        assert exact < 0.68
        side = test.identities[:, i] * math.copysign(1, shift) > 0
        assert (side == test.labels["gender"]).mean() == pytest.approx(exact, abs=4.5 * 0.5 / math.sqrt(n))


def test_small_images_show_the_smile():
    """Logistic regression on 24 x 24 pixels of other people finds the smile and glasses far above chance."""
    faces = stylised.population(600, 6, seed=5)
    x = StandardScaler().fit_transform(stylised.render(faces, size=24).reshape(len(faces), -1))
    train = np.arange(len(faces)) < 2700
    for label in ("smile", "glasses"):
        code = faces.labels[label]
        model = LogisticRegression(C=1e-3, class_weight="balanced", max_iter=200).fit(x[train], code[train])
        hit = model.predict(x[~train]) == code[~train]
        recall = [hit[code[~train] == c].mean() for c in (0, 1)]
        # A guess has mean 0.5 and standard deviation sqrt(1 / n_no + 1 / n_yes) / 4, below 0.02 for 900 images of which
        # 30 % smile; one person's images may move together, which at most multiplies it by sqrt(6): five of those.
        assert np.mean(recall) > (0.5 + 5 * 0.02 if label == "smile" else 0.5 + 5 * 0.02 * math.sqrt(6))


def test_windows_cut_nothing(faces, monkeypatch):
    """Shapes are evaluated where they can reach: drawing them everywhere gives the same bytes, at extremes too."""
    rng = np.random.default_rng(0)
    far = rng.choice([-9, 9], faces.identities.shape).astype(np.float32)  # clipped where the faces stop changing
    poses = rng.choice([-1, 1], faces.draws.shape).astype(np.float32)
    extreme = dataclasses.replace(faces, identities=far, draws=poses)
    alone = np.concatenate([stylised.render(extreme, [row], size=40) for row in range(len(extreme))])
    narrow = portraits._Easel.window
    monkeypatch.setattr(portraits._Easel, "window", lambda easel, *box: narrow(easel, 0, 0, 9, 9))
    assert np.array_equal(alone, stylised.render(extreme, size=40))


def test_identity_stands_out():
    """Two images of one person are nearer than images of two, once each image's own mean and contrast are removed."""
    faces = stylised.population(60, 8, seed=7)
    x = stylised.render(faces, size=32).reshape(480, -1).astype(float)
    x -= x.mean(axis=1, keepdims=True)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    likeness, same = x @ x.T, np.equal.outer(faces.labels["identity"], faces.labels["identity"])
    other = ~np.eye(480, dtype=bool)
    within, between = likeness[same & other], likeness[~same]
    better = np.mean([np.mean(value > between[::97]) for value in within])
    assert better > 0.65  # the area under the curve of raw pixels; 0.5 if identity did not show


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: stylised.population(1, 5), "identities must be at least 2, not 1"),
        (lambda f: stylised.population(4, 0), "images must be at least 1, not 0"),
        (lambda f: stylised.population(4, 2, seed=-1), "seed: must be a whole number"),
        (lambda f: stylised.render(f, size=15), "size must be at least 16 pixels, not 15"),
        (lambda f: stylised.render(f, channels=2), "channels must be 1 (grey) or 3 (RGB), not 2"),
        (lambda f: stylised.render(f, threads=0), "threads must be at least 1, not 0"),
        (lambda f: stylised.render(f, [0, 72]), "rows must lie in 0..71, not 0..72"),
        (lambda f: stylised.render(f, [-1]), "rows must lie in 0..71, not -1..-1"),
        (lambda f: next(stylised.stream(f, chunk=0)), "chunk must be at least 1 image, not 0"),
        (lambda f: layout.read("people=3", Options()), "'people' is not a setting; there are identities, images"),
        (lambda f: layout.read("", Options(labels=Path("x.csv"))), "take no file of them, not x.csv"),
        (lambda f: layout.read("identities=many", Options()), "identities must be a whole number, not 'many'"),
    ],
)
def test_mistakes_are_named(faces, call, message):
    with pytest.raises(InputError) as error:
        call(faces)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("source", "settings", "count"),
    [("", {}, 6000), ("30", {}, 180), ("identities=8, images=3", {}, 24), ("images=2", {"identities": "5"}, 10)],
)
def test_layout_settings(source, settings, count):
    assert layout.read(source, Options(settings=settings)).count == count


def test_layout_lists_the_images_of_the_population():
    listing = layout.read("identities=6,images=4", Options(size=24, channels=3, seed=9))
    items = list(listing.items)
    faces = stylised.population(6, 4, seed=9)
    assert np.array_equal(np.stack([item.data for item in items]), stylised.render(faces, size=24, channels=3))
    assert [item.labels for item in items] == [faces.names(row) for row in range(24)]
    assert len({item.source for item in items}) == listing.count == 24
    assert listing.attributes == ("identity", "gender", "expression", "smile", "glasses")
