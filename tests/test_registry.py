"""The registry of methods: what it declares is what algorithms have; and settings keep to their bounds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, fields
from typing import Annotated, Literal

import pytest

from methods_matrix import brief, pack_of, train, use_of
from veil.errors import InputError
from veil.methods import METHODS
from veil.methods.settings import EVEN, Count, Share, at_most, checked, one_of, within


@pytest.mark.parametrize("name", METHODS)
def test_what_is_declared_is_what_the_algorithm_has(name: str) -> None:
    method, algorithm = METHODS[name], METHODS[name].algorithm
    settings = {f.name for f in fields(algorithm.config)}
    assert method.name == name
    assert method.presets == tuple(algorithm.presets)
    assert method.references | method.frontier <= set(method.presets)
    assert method.noise == ("noise" in settings)
    assert all(algorithm.presets[preset].noise for preset in method.frontier)
    assert method.files | ({method.strength} - {None}) <= settings
    assert all(type(config) is algorithm.config for config in algorithm.presets.values())


@pytest.mark.parametrize("name", METHODS)
def test_kinds_and_bases_that_a_method_does_not_take_are_refused(name: str) -> None:
    method = METHODS[name]
    for kind in {"images", "vectors"} - set(method.takes):
        with pytest.raises(InputError, match=f"^{name}: needs a pack of {method.takes[0]}, got {kind}; method "):
            train(name, brief(name), pack_of(kind), utility=use_of(name, kind))
    if not method.takes_base:
        base = train("leace", brief("leace"), pack_of(method.takes[0]))
        with pytest.raises(InputError, match=f"^{name}: reads the input itself and takes no base, got .* 'leace'$"):
            train(name, brief(name), pack_of(method.takes[0]), base=base)


def test_the_registry_does_not_wait_for_torch() -> None:
    code = "import sys; from veil.methods import METHODS; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@dataclass(frozen=True, kw_only=True)
@checked("method")
class Config:
    """Settings of every kind."""

    count: Annotated[Count, EVEN, at_most(9)] = 2
    share: Share = 0.0
    part: Annotated[float, within("(0, 1]")] = 1.0
    between: Annotated[float, within("(0, 1)")] = 0.5
    depth: Annotated[int, one_of(18, 50)] = 18
    kind: Literal["a", "b"] = "a"

    def problems(self) -> list[str]:
        return ["kind: b needs a share"] if self.kind == "b" and not self.share else []


NAN = float("nan")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"count": 0}, "count: must be >= 1, got 0"),
        ({"count": 3}, "count: must be even, got 3"),
        ({"count": 10}, "count: must be <= 9, got 10"),
        ({"share": 1.0}, "share: must lie in [0, 1), got 1.0"),
        ({"part": 0.0}, "part: must lie in (0, 1], got 0.0"),
        ({"between": 1.0}, "between: must lie between 0 and 1, got 1.0"),
        ({"depth": 34}, "depth: must be one of 18, 50, got 34"),
        (
            {"share": float("nan"), "kind": "c"},
            "share: must lie in [0, 1), got nan; kind: must be one of a, b, got 'c'",
        ),
        ({"kind": "b", "count": 0}, "count: must be >= 1, got 0; kind: b needs a share"),
    ],
)
def test_all_that_is_out_of_bounds_is_told_in_one_line(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        Config(**settings)
    assert str(caught.value) == f"method: {words}"


def test_ends_of_intervals_that_belong_to_them() -> None:
    assert Config(share=0.0, part=1.0, count=8, depth=50)
