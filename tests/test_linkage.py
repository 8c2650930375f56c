"""Linkage and pools: what releases give away together with the originals, or with others of the same person."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import audited, only
from veil.auditing.exhibit import Exhibit
from veil.auditing.linkage import Search, firsts, identification, link
from veil.auditing.pairs import Metric
from veil.auditing.pools import LARGEST, deal
from veil.auditing.problem import DidNotConverge
from veil.auditing.rosters import roster
from veil.auditing.setting import Setting
from veil.data.pack import Pack
from veil.errors import InputError
from veil.findings import Finding

PEOPLE, IMAGES, WIDTH = 240, 4, 16


@cache
def population() -> tuple[Pack, NDArray[np.float32]]:
    """People with gender along one axis; each image is its person plus a little."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(PEOPLE), IMAGES)
    gender = np.arange(PEOPLE) % 2
    means = rng.normal(size=(PEOPLE, WIDTH))
    means[:, 0] = 2.0 * (2 * gender - 1)
    x = (means[who] + 0.2 * rng.normal(size=(len(who), WIDTH))).astype(np.float32)
    return Pack.from_arrays(x, {"identity": who, "gender": gender[who]}), x


def rows(pack: Pack) -> list[NDArray[np.int64]]:
    return [pack.rows(split) for split in ("attack", "calibrate", "test")]


def findings(
    releases: NDArray[Any],
    originals: NDArray[Any] | None = None,
    pack: Pack | None = None,
    effort: str = "quick",
    **changes: Any,
) -> tuple[Finding, ...]:
    own, x = population()
    setting = Setting(
        pack=pack or own, private=(), utility=("identity",), roster=roster(effort, **changes), effort=effort
    )
    return link(setting, "r", releases, x if originals is None else originals).findings


def linked(releases: NDArray[Any], originals: NDArray[Any] | None = None, **options: Any) -> dict[str, Finding]:
    return {f.code: f for f in findings(releases, originals, **options)}


# -- nearest records --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cosine", "centred cosine", "euclidean"])
def test_firsts_finds_the_nearest_as_a_search_of_all_does(kind: str) -> None:
    rng = np.random.default_rng(1)
    probes, gallery = rng.normal(size=(300, 5)).astype(np.float32), rng.normal(size=(40, 5)).astype(np.float32)
    own = rng.integers(40, size=300)
    centre = np.float32([1, 0, -1, 0, 2]) if kind == "centred cosine" else None
    if kind == "euclidean":
        near = -np.linalg.norm(probes[:, None] - gallery, axis=2)
        metric = Metric(kind="euclidean")
    else:
        a, b = (side - (0 if centre is None else centre) for side in (probes, gallery))
        near = (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
        metric = Metric(centre=centre)
    assert (firsts(probes, gallery, own, metric) == (near.argmax(1) == own)).all()


def test_records_that_are_all_alike_are_found_by_chance() -> None:
    alike = np.ones((8, 3), np.float32)
    assert firsts(alike, alike, np.arange(8)) == pytest.approx(np.full(8, 1 / 8))


# -- linkage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effort", ["quick", "standard"])
def test_a_secret_rotation_does_not_part_a_release_from_its_original(effort: str) -> None:
    _, x = population()
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    found = linked(x @ turn, effort=effort)
    assert found["linkability.auc"].value == pytest.approx(1, abs=0.002)
    assert found["linkability.rank1"].value is not None
    assert found["linkability.rank1"].value > 0.95
    assert found["identification.rank1_originals"].value > 0.95  # type: ignore[operator]
    assert all(f.worst and f.role == "attack" and f.target == "identity" for f in found.values())


@pytest.mark.parametrize(("width", "least"), [(1, 0.1), (2, 0.8)])
def test_a_release_of_a_value_or_two_is_linked_by_them(width: int, least: float) -> None:
    """The sign, which is all that the cosine sees of one value, finds one of 120."""
    _, x = population()
    assert linked(x[:, :width].copy())["linkability.rank1"].value > least  # type: ignore[operator]


def test_the_same_record_is_found_by_its_cosine() -> None:
    _, x = population()
    found = linked(x, linkers={})
    assert (found["linkability.rank1"].attacker, found["linkability.rank1"].value) == ("cosine", 1.0)
    assert found["linkability.rank1"].low < 1  # type: ignore[operator]


def test_records_around_other_points_are_found_without_their_centres() -> None:
    """Releases and originals lie around different points: what they share is what is left without those."""
    pack, x = population()
    rng = np.random.default_rng(5)
    moved = (x + 0.8 * rng.normal(size=x.shape) + 5 * rng.normal(size=WIDTH)).astype(np.float32)
    originals = x - np.float32(5)
    test = rows(pack)[2]
    plain = firsts(moved[test], originals[test], np.arange(len(test))).mean()
    less = firsts(moved[test] - moved.mean(0), originals[test] - originals.mean(0), np.arange(len(test))).mean()
    found = linked(moved, originals, linkers={})["linkability.rank1"]
    assert (found.attacker, found.value) == ("centred cosine", pytest.approx(less, abs=0.05))
    assert less > 2 * plain


def test_linkers_that_fail_have_a_finding_each() -> None:
    def singular(problem: Any) -> Any:
        raise np.linalg.LinAlgError("Singular matrix")

    def lost(problem: Any) -> Any:
        raise DidNotConverge("its training loss became nan")

    linkers = {"canonical correlations": singular, "two towers": lost}
    _, x = population()
    for releases, stands in ((x, True), (x[:, :3].copy(), False)):  # of another width nothing else is there
        found = findings(releases, linkers=linkers)
        failed = {f.attacker: (f.code, f.status, f.note, f.worst) for f in found if not f.ok}
        assert failed == {
            "canonical correlations": ("linkability.auc", "did_not_converge", "LinAlgError: Singular matrix", False),
            "two towers": ("linkability.auc", "did_not_converge", "its training loss became nan", False),
        }
        assert [f.code for f in found if f.ok] == stands * [
            "linkability.auc", "linkability.rank1", "identification.rank1_originals",
        ]  # fmt: skip


def test_originals_that_are_images_are_linked_too() -> None:
    _, x = population()
    images = np.clip(128 + 30 * x, 0, 255).astype(np.uint8).reshape(-1, 4, 4)
    assert linked(x[:, ::-1].copy(), images)["linkability.auc"].value > 0.99  # type: ignore[operator]


@pytest.mark.parametrize("effort", ["quick", "standard"])
def test_noise_is_linked_to_nothing(effort: str) -> None:
    noise = np.random.default_rng(3).normal(size=(PEOPLE * IMAGES, WIDTH)).astype(np.float32)
    found = linked(noise, effort=effort)
    auc = found["linkability.auc"]
    assert auc.low - 0.03 < 0.5 < auc.high + 0.03  # type: ignore[operator]
    for code in ("linkability.rank1", "identification.rank1_originals"):
        assert found[code].low <= found[code].chance + 0.01  # type: ignore[operator]
        assert found[code].value < 0.1  # type: ignore[operator]


def test_a_release_of_the_person_alone_names_the_person_and_not_the_image() -> None:
    pack, x = population()
    who = pack.label("identity")
    means = np.stack([x[who == person].mean(0) for person in range(PEOPLE)])
    found = linked(means[who])
    assert found["identification.rank1_originals"].value > 0.95  # type: ignore[operator]
    assert found["linkability.rank1"].value < 0.6  # type: ignore[operator]  # four images of one release


def test_identification_needs_two_people_and_a_second_image() -> None:
    _, x = population()
    for test, identity in ((np.arange(4), np.zeros(4, int)), (np.arange(4), np.arange(4))):
        search = Search(release="r", attacker="cosine", seed=0, level=0.95)
        found = identification(search, lambda r: x[r], lambda r: x[r], test, identity, "releases")
        assert (found.status, found.value) == ("not_applicable", None)
        assert "two images" in found.note


def test_a_test_split_of_one_person_has_no_linkability() -> None:
    _, x = population()
    identity = np.repeat(np.arange(PEOPLE), IMAGES)
    split = np.repeat(["attack", "calibrate", "test", "protect"], [400, 80, 4, len(x) - 484])
    found = findings(x, pack=Pack.from_arrays(x, {"identity": identity}, split=list(split)))
    assert {f.status for f in found} == {"not_applicable"}


# -- pools ------------------------------------------------------------------------------------------------------------


def test_pools_are_means_of_one_persons_releases_in_one_split() -> None:
    pack, x = population()
    sets = rows(pack)
    who = pack.label("identity")
    pools = deal(pack.label("gender"), who, sets, seed=0)
    for part, members in zip(pools.parts, sets, strict=True):
        assert set(pools.groups[part]) == set(who[members])
    gender_of = dict(zip(who, pack.label("gender"), strict=True))
    assert pools.y.tolist() == [gender_of[person] for person in pools.groups]
    test = pools.parts[2]
    assert len(test) == len(np.unique(pools.groups[test]))  # four images make one pool of at most four
    assert LARGEST == IMAGES
    means = pools.means(x)
    assert means[test[0]] == pytest.approx(x[who == pools.groups[test[0]]].mean(0), abs=1e-5)
    single = pools.parts[0][: len(sets[0])]  # in training the releases themselves come first
    assert len(np.unique(means[single].round(3), axis=0)) == len(sets[0])


def test_pools_have_one_size_or_noise_would_tell_how_many_images_there_are() -> None:
    """People of four images on one side, of two on the other: their means must vary alike."""
    rng = np.random.default_rng(0)
    gender = np.arange(400) % 2
    who = np.repeat(np.arange(400), 2 + 2 * gender)
    x = rng.normal(size=(len(who), 32)).astype(np.float32)
    pack = Pack.from_arrays(x, {"identity": who, "gender": gender[who]})
    pools = deal(gender[who], who, rows(pack), seed=0)
    test = pools.parts[2]
    means = pools.means(x)
    spread = [means[test][pools.y[test] == z].var() for z in (0, 1)]
    assert spread == pytest.approx([0.5, 0.5], rel=0.15)  # pools of two; those of four would have 0.25


def test_who_changes_the_attribute_or_is_unknown_is_in_no_pool() -> None:
    pack, _ = population()
    gender, who = pack.label("gender").copy(), pack.label("identity").copy()
    test = rows(pack)[2]
    fickle, unknown = np.unique(who[test])[:2]
    gender[np.flatnonzero(who == fickle)[0]] ^= 1
    who[who == unknown] = -1
    owners = deal(gender, who, rows(pack), seed=0).groups
    assert fickle not in owners
    assert -1 not in owners


def test_single_releases_cannot_be_pooled() -> None:
    _, x = population()
    alone = np.arange(len(x))
    with pytest.raises(InputError, match="two classes, with two releases each"):
        deal(alone % 2, alone, [alone[:400], alone[400:600], alone[600:]], seed=0)


def test_noise_of_every_image_averages_out_of_a_pool() -> None:
    """Known answer: Phi(2 / s) of one release, Phi(2 / sqrt(s^2 / 4)) of the mean of four, s^2 = .04 + 9."""
    pack, x = population()
    noisy = x + 3 * np.random.default_rng(4).normal(size=x.shape).astype(np.float32)
    subjects = [Exhibit.of("Input", x, "input"), Exhibit.of("noisy", noisy, "method")]
    found = audited(subjects, pack, private=["gender"], utility=["identity"], changes=only("logistic regression"))
    figures = {f.code: f.value for f in found if f.release == "noisy" and f.worst and f.role == "attack"}
    assert figures["attribute.balanced_accuracy"] == pytest.approx(0.747, abs=0.06)
    assert figures["attribute.pooled_balanced_accuracy"] == pytest.approx(0.908, abs=0.09)
    assert {"linkability.auc", "identification.rank1_originals", "identification.rank1_releases"} <= set(figures)
    assert not [f for f in found if f.release == "Input" and f.code.startswith("linkability")]


def test_records_far_from_zero_are_compared_by_their_differences() -> None:
    x = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    assert firsts(x + np.float32(1e4), x + np.float32(1e4), np.arange(200), Metric(kind="euclidean")).mean() == 1
