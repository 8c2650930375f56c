"""The scikit-learn adapter: cloned, searched and piped like any transformer."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from veil import InputError, Protector

PEOPLE, IMAGES, D = 40, 4, 8


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, gender (column 0), age (column 1), and people."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(PEOPLE), IMAGES)
    gender, age = (rng.permutation(PEOPLE) % 2)[who], (rng.permutation(PEOPLE) % 2)[who]
    x = rng.normal(size=(PEOPLE, D))[who] + 0.2 * rng.normal(size=(len(who), D))
    x[:, 0] += 6 * gender
    x[:, 1] += 6 * age
    return x, gender, age, who


def test_parameters_go_in_and_out() -> None:
    protector = Protector("aia", preset="deep", seed=3, alpha=0.5)
    assert protector.get_params() == {"method": "aia", "preset": "deep", "seed": 3, "alpha": 0.5}
    assert protector.set_params(alpha=0.1, seed=4, features=9) is protector
    assert protector.get_params() == {"method": "aia", "preset": "deep", "seed": 4, "alpha": 0.1, "features": 9}
    assert repr(Protector("leace", rank=2)) == "Protector(method='leace', rank=2)"


def test_a_clone_has_the_settings_and_not_the_release(data: tuple[np.ndarray, ...]) -> None:
    x, gender, _, who = data
    fitted = Protector("leace", seed=1).fit(x, private=gender, identity=who)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "release_")
    one = clone(Protector("aia", alpha=0.5))
    one.set_params(alpha=0.1)
    assert Protector("aia", alpha=0.5).get_params()["alpha"] == 0.5


def test_erasure_hides_what_it_should_and_keeps_the_rest(data: tuple[np.ndarray, ...]) -> None:
    x, gender, age, who = data
    protector = Protector("leace").fit(x, private=gender, identity=who)
    released = protector.transform(x)
    assert released.shape == (len(x), D)
    assert released.dtype == np.float32

    def read(values: np.ndarray, label: np.ndarray) -> float:
        return float(LogisticRegression().fit(values, label).score(values, label))

    assert read(x, gender) > 0.95
    # LEACE leaves no linear trace on the data it saw: the refitted probe says one class, or coins where both tie.
    assert read(released, gender) < 0.6
    assert read(released, age) > 0.95


def test_several_private_labels_and_a_label_to_keep(data: tuple[np.ndarray, ...]) -> None:
    x, gender, age, _ = data
    words = np.where(gender == 1, "m", "f")
    protector = Protector("leace").fit(x, age, private={"gender": words, "smile": np.arange(len(x)) % 2})
    assert protector.release_.made["private"] == ["gender", "smile"]
    assert LogisticRegression().fit(protector.transform(x), age).score(protector.transform(x), age) > 0.95


def test_it_stands_in_a_pipeline(data: tuple[np.ndarray, ...]) -> None:
    x, gender, age, who = data
    pipeline = make_pipeline(Protector("leace"), LogisticRegression())
    pipeline.fit(x, age, protector__private=gender, protector__identity=who)
    assert pipeline.score(x, age) > 0.95
    assert clone(pipeline).set_params(protector__seed=7).get_params()["protector__seed"] == 7


def test_it_trains_aia_on_images() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, size=(24, 32, 32), dtype=np.uint8)
    who = np.arange(24) // 2
    protector = Protector("aia", steps_alone=1, steps_joint=1, batch=8).fit(x, private=who % 2, identity=who)
    assert protector.transform(x).shape == (24, protector.release_.contract.k)


def test_an_unknown_value_is_no_class(data: tuple[np.ndarray, ...]) -> None:
    x, gender, _, who = data
    words: list[object] = list(np.where(gender == 1, "m", "f"))
    words[:3] = [None, "", float("nan")]
    unknown = Protector("leace").fit(x, private=words, identity=who)
    known = Protector("leace").fit(x[3:], private=words[3:], identity=who[3:])
    np.testing.assert_allclose(unknown.transform(x), known.transform(x), atol=0.2)
    with pytest.raises(InputError, match="two are needed"):
        Protector("leace").fit(x, private=[float("nan")] * len(x), identity=who)


def test_transform_before_fit_is_sklearns_error(data: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(NotFittedError):
        Protector("leace").transform(data[0])


@pytest.mark.parametrize(
    ("settings", "kwargs", "message"),
    [
        ({"frobnicate": 3}, {}, "got 'frobnicate'"),
        ({"method": "magic"}, {}, "method: must be one of aia, leace, random, got 'magic'"),
        ({"preset": "huge"}, {}, "preset: must be one of default, got 'huge'"),
        ({}, {"identity": None}, "needs identity, to keep matching, or y"),
        ({}, {"private": {"identity": [0, 1] * 80}}, "cannot be named 'identity'"),
        ({}, {"private": np.zeros((160, 2))}, "private: must be one value a row, got shape (160, 2)"),
        ({}, {"private": [0, 1]}, "2 values for 160 rows"),
        ({"method": "magic"}, {"private": {}}, "got 'magic'; private: at least one label must be given"),
    ],
)
def test_mistakes_are_one_line_at_fit(
    data: tuple[np.ndarray, ...], settings: dict[str, object], kwargs: dict[str, object], message: str
) -> None:
    x, gender, _, who = data
    protector = Protector("leace").set_params(**settings)
    with pytest.raises(InputError) as caught:
        protector.fit(x, **{"private": gender, "identity": who, **kwargs})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
