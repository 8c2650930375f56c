"""Linkage: which record a release was made of, and whose it is, for somebody who holds the originals or other releases.

- Linkability: of two originals, the one that a release was made of and another person's, which is it? And which of all
  originals of the test split? A release that cannot be linked stays apart from the database it came from (ISO/IEC 24745
  calls this unlinkability; Gomez-Barrero et al., IEEE TIFS 13(6), 2018, measure it by such pairs).
- Identification: whose is a release, among one original, or one release, of other images of every person? Rank-1: the
  share of releases whose own person comes first.

A linker is one function ``link(problem) -> (embed releases, embed originals)``; both sides' vectors are compared by
cosine. It trains on releases beside their originals, as somebody does who may use the protector. To add one, name it in
:data:`LINKERS`. Beside them stand three that train nothing (:func:`as_they_are`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from veil.auditing import pairs as pairing
from veil.auditing import verification
from veil.auditing.exhibit import Exhibit
from veil.auditing.intervals import rate_interval
from veil.auditing.networks import apply, directions, train
from veil.auditing.pairs import COSINE, Metric
from veil.auditing.problem import Embed, Floats, Problem, compact, failure
from veil.auditing.setting import Setting, without
from veil.auditing.task import Outcome, Task, given, signatures
from veil.findings import Finding, Measurement
from veil.nn.nets import mlp

Linker = tuple[Embed, Embed]

LINKABILITY = "linkability.auc"

_PROBES = 2000  # releases that are looked for
_GALLERY = 10_000  # records among which they are looked for
_OTHERS = 20  # other people's originals that each release is compared with


@dataclass(frozen=True, kw_only=True)
class Linking:
    """What a linker may know.

    Attributes:
        releases: To train on, and the rest of what an attacker knows.
        originals: What they were made of, row by row; a problem with the same codes.
    """

    releases: Problem
    originals: Problem


# -- linkers ----------------------------------------------------------------------------------------------------------


def canonical_correlations(problem: Linking) -> Linker:
    """Directions of releases and originals that vary together (Hotelling 1936), each counting by its correlation.

    Both covariances get a ridge; its size is the one that finds most originals of the validation releases.
    """
    views = compact(problem.releases), compact(problem.originals)
    sides = [view(p.x).astype(np.float64) for view, p in zip(views, (problem.releases, problem.originals), strict=True)]
    centres = [side.mean(0) for side in sides]
    centred = [side - centre for side, centre in zip(sides, centres, strict=True)]
    candidates = [linker for ridge in (0.01, 0.1, 1.0) for linker in _canonical(views, centres, centred, ridge)]
    return max(candidates, key=lambda linker: found(problem, linker))


def _canonical(
    views: tuple[Embed, Embed], centres: list[Any], centred: list[Any], ridge: float
) -> tuple[Linker, Linker]:
    """The linker as it is, and with a constant next to the vectors, as large as they are long: of one value the cosine
    alone would see no more than its sign; beside a constant those that are near have the smallest angle."""
    whiten = []
    for side in centred:
        values, axes = np.linalg.eigh(side.T @ side / len(side))
        whiten.append(axes / np.sqrt(np.maximum(values, 0) + ridge * max(float(values.mean()), 1e-12)))
    cross = (centred[0] @ whiten[0]).T @ (centred[1] @ whiten[1]) / len(centred[0])
    left, strength, right = np.linalg.svd(cross, full_matrices=False)
    maps = [whiten[0] @ left * strength, whiten[1] @ right.T * strength]
    length = max(float(np.sqrt(np.square(centred[1] @ maps[1]).sum(1).mean())), 1e-12)

    def embed(i: int, constant: float) -> Embed:
        def embedded(x: NDArray[Any]) -> Floats:
            embedding = (views[i](x) - centres[i]) @ maps[i]
            return np.column_stack([embedding, np.full(len(embedding), constant)]).astype(np.float32)

        return embedded

    return (embed(0, 0.0), embed(1, 0.0)), (embed(0, length), embed(1, length))


class _Towers(nn.Module):
    """One MLP for releases, one for originals."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.sides = nn.ModuleList(mlp([width, 512, 128], dropout=0.1) for width in widths)


def two_towers(problem: Linking) -> Linker:
    """An MLP on either side; in a batch each release must name its original and the other way round (InfoNCE)."""
    views = compact(problem.releases), compact(problem.originals)
    sides = [torch.from_numpy(view(p.x)) for view, p in zip(views, (problem.releases, problem.originals), strict=True)]
    size = min(256, len(sides[0]))

    def loss(module: nn.Module, rng: np.random.Generator, _: torch.Generator) -> Tensor:
        assert isinstance(module, _Towers)
        rows = torch.from_numpy(rng.choice(len(sides[0]), size, replace=False))
        out = [F.normalize(tower(x[rows]).float(), dim=1) for tower, x in zip(module.sides, sides, strict=True)]
        logits = out[0] @ out[1].T / 0.05
        own = torch.arange(size)
        return F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)

    module = train(
        lambda: _Towers(sides[0].shape[1], sides[1].shape[1]),
        loss,
        steps=problem.releases.pick(200, 600, 1500),
        lr=1e-3,
        seed=problem.releases.seed,
        bf16=False,
    )
    assert isinstance(module, _Towers)
    towers = list(module.sides)
    return (lambda x: apply(towers[0], views[0](x))), (lambda x: apply(towers[1], views[1](x)))


LINKERS: Mapping[str, Callable[[Linking], Linker]] = {
    "canonical correlations": canonical_correlations,
    "two towers": two_towers,
}
"""Every learned linker."""


def as_they_are(problem: Linking) -> dict[str, Linker]:
    """Release and original themselves, where both are vectors of one width: each side as it is, and less its mean."""
    sides = [p.x for p in (problem.releases, problem.originals)]
    if any(side.ndim != 2 for side in sides) or sides[0].shape[1] != sides[1].shape[1]:
        return {}
    left, right = (_less(pairing.mean(side, np.arange(len(side)))) for side in sides)
    return {"cosine": (plain, plain), "centred cosine": (left, right), "euclidean": (plain, plain)}


def plain(x: NDArray[Any]) -> Floats:
    """Vectors as they are."""
    return x.astype(np.float32, copy=False)


def _less(centre: Floats) -> Embed:
    return lambda x: plain(x) - centre


def metric_of(name: str) -> Metric:
    """How a linker's two sides are compared."""
    return Metric(kind="euclidean") if name == "euclidean" else COSINE


def found(problem: Linking, linker: Linker, metric: Metric = COSINE) -> float:
    """Share of validation releases whose own original is the nearest of all validation originals."""
    rows = np.arange(len(problem.releases.x_validation))[:_PROBES]
    probes = linker[0](problem.releases.x_validation[rows])
    return float(firsts(probes, linker[1](problem.originals.x_validation), rows, metric).mean())


# -- figures ----------------------------------------------------------------------------------------------------------


def firsts(probes: Floats, gallery: Floats, own: NDArray[np.int64], metric: Metric = COSINE) -> NDArray[np.float64]:
    """Whether each probe's own record is the nearest, ``(P,)``: 1, 0, or 1 / m where m records are equally near.

    Args:
        probes: ``(P, d)``.
        gallery: ``(G, d)``.
        own: ``(P,)`` rows of the gallery.
        metric: How two vectors are compared.
    """
    distances = metric.kind == "euclidean"
    centre = gallery.mean(0) if distances else metric.centre  # far from 0, float32 would lose differences
    if centre is not None:
        probes, gallery = probes - centre, gallery - centre
    if not distances:
        probes, gallery = directions(probes), directions(gallery)
    lengths = np.square(gallery).sum(1) / 2 if distances else np.zeros(len(gallery), np.float32)
    out = np.empty(len(probes))
    for start in range(0, len(probes), 256):
        part = slice(start, start + 256)
        near = probes[part] @ gallery.T - lengths
        best = near.max(1)
        mine = near[np.arange(len(near)), own[part]]
        out[part] = np.where(mine == best, 1 / (near == best[:, None]).sum(1), 0)
    return out


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search for the records of releases.

    Attributes:
        release: The release's name.
        attacker: Who compares.
        metric: How two vectors are compared.
        seed: Draws the records that stand in the gallery.
        level: Coverage of intervals.
    """

    release: str
    attacker: str
    metric: Metric = COSINE
    seed: int
    level: float

    def measurement(self, n: int) -> Measurement:
        """What its findings on n releases share."""
        return Measurement(
            release=self.release, target="identity", attacker=self.attacker, role="attack", n=n, level=self.level
        )

    def rank1(
        self, code: str, hits: NDArray[np.float64], people: NDArray[np.int64], records: int, among: str
    ) -> Finding:
        """The share of hits ``(P,)`` of releases of ``people`` ``(P,)`` that were looked for among so many records."""
        interval = rate_interval(hits, people, level=self.level)
        note = f"{len(hits):,} releases among {among}"
        return self.measurement(len(hits)).measured(code, interval, chance=1 / records, worst=True, note=note)


def identification(
    search: Search,
    probes: Callable[[NDArray[np.int64]], Floats],
    gallery: Callable[[NDArray[np.int64]], Floats],
    rows: NDArray[np.int64],
    identity: NDArray[np.int64],
    among: Literal["originals", "releases"],
) -> Finding:
    """Rank-1 of releases among one record of every person, of another image than the release's.

    Its interval's people are those of the releases that are looked for; the gallery stays.

    Args:
        search: Who looks.
        probes: Vectors of the releases at given rows.
        gallery: Vectors of the records at given rows.
        rows: Rows of the test split of known people.
        identity: ``(N,)`` codes, for all rows.
        among: What the records are.
    """
    rng = np.random.default_rng(search.seed)
    rows = rng.permutation(rows)
    _, first, person = np.unique(identity[rows], return_index=True, return_inverse=True)
    drawn = rng.permutation(len(first))  # codes follow names: who has a place in a full gallery must be drawn
    first, person = first[drawn], np.argsort(drawn)[person]
    kept = first[:_GALLERY]
    looked_for = np.setdiff1d(np.flatnonzero(person < len(kept)), kept)[:_PROBES]
    code = f"identification.rank1_{among}"
    if len(kept) < 2 or not len(looked_for):
        there = f"there are {len(kept)} people" if len(kept) < len(rows) else "each image counts as a person"
        why = f"needs two people, and one with two images; {there}"
        return search.measurement(0).missing(code, "not_applicable", why)
    hits = firsts(probes(rows[looked_for]), gallery(rows[kept]), person[looked_for], search.metric)
    return search.rank1(code, hits, identity[rows[looked_for]], len(kept), f"{among} of {len(kept):,} people")


def tasks(setting: Setting, exhibits: Sequence[Exhibit]) -> Iterator[Task]:
    """Linkage of each release with the unprotected input, where that is audited."""
    reference = next((s for s in exhibits if s.role == "input"), None)
    linkers = signatures(setting.roster.linkers)
    for s in exhibits if setting.together else ():
        missing = partial(without, setting.nobody(s.name, "identity", "attack"), LINKABILITY)
        if reference is None:
            yield given(missing("not_applicable", "needs the unprotected input, which was not audited"))
        elif s is not reference:
            yield Task(
                name=f"{s.name}: linkage",
                key=setting.key("linkage", s.fingerprint, s.name, reference.fingerprint, linkers),
                prepare=lambda s=s: partial(link, setting, s.name, s.x, reference.x),  # type: ignore[misc]
                missing=missing,
                releases=(s.name, reference.name),
            )


def link(setting: Setting, release: str, releases: NDArray[Any], originals: NDArray[Any]) -> Outcome:
    """What a release gives away of the original that it was made of, and of its owner among originals.

    The linker that finds most of the ``calibrate`` originals is measured; those that failed have a finding each, which
    says why. Where the pack does not say who is seen, each row counts as a person.

    Args:
        setting: Rows, people, linkers.
        release: Its name.
        releases: For all rows.
        originals: For all rows: images or vectors.
    """
    known = ("identity",) if setting.knows_people else ()
    identity = setting.pack.label("identity") if known else np.arange(len(setting.pack))
    rows = setting.rows(*known)
    splits = (setting.attack_on, ("calibrate",), ("test",))
    if empty := [" and ".join(names) for names, part in zip(splits, rows, strict=True) if not len(part)]:
        note = f"nobody's identity is known in split {empty[0]}"
        nobody = setting.nobody(release, "identity", "attack")
        return Outcome(findings=(nobody.missing(LINKABILITY, "not_applicable", note),))
    train_rows, calibrate, test = rows
    problem = Linking(
        releases=_side(setting, releases, identity, train_rows, calibrate),
        originals=_side(setting, originals, identity, train_rows, calibrate),
    )
    search: dict[str, Any] = {"release": release, "seed": setting.seed, "level": setting.level}
    linkers, failed = as_they_are(problem), []
    quality: dict[str, float] = {name: found(problem, linker, metric_of(name)) for name, linker in linkers.items()}
    for name, learn in setting.roster.linkers.items():
        try:
            linkers[name] = learn(problem)
            quality[name] = found(problem, linkers[name])
        except Exception as error:  # the others stand in
            attempt = Search(attacker=name, **search).measurement(len(test))
            failed.append(attempt.missing(LINKABILITY, *failure(error)))
    if not quality:
        return Outcome(findings=tuple(failed))
    best = max(quality, key=lambda name: quality[name])
    left, right = linkers[best]
    by = Search(attacker=best, metric=metric_of(best), **search)
    rank1 = identification(
        by, lambda rows: left(releases[rows]), lambda rows: right(originals[rows]), test, identity, "originals"
    )
    linked = _linkability(by, linkers[best], releases, originals, test, identity)
    return Outcome(findings=(*linked, rank1, *failed))


def _linkability(
    search: Search,
    linker: Linker,
    releases: NDArray[Any],
    originals: NDArray[Any],
    test: NDArray[np.int64],
    identity: NDArray[np.int64],
) -> list[Finding]:
    """A release's own original told from others' (AUC), and found first among all of ``test`` (rank 1)."""
    rng = np.random.default_rng(search.seed)
    rows = rng.permutation(test)[:_GALLERY]
    n = len(rows)
    if len(np.unique(identity[rows])) < 2:
        note = f"needs images of two people in the test split, there are {n} images of one"
        return [search.measurement(0).missing(LINKABILITY, "not_applicable", note)]
    gallery = linker[1](originals[rows])
    probes = linker[0](releases[rows[:_PROBES]])
    both = np.concatenate([probes, gallery])
    other = rng.integers(n, size=(len(probes), _OTHERS))
    mine = np.repeat(np.arange(len(probes)), _OTHERS)
    strangers = identity[rows[mine]] != identity[rows[other.ravel()]]
    a = np.concatenate([np.arange(len(probes)), mine[strangers]])
    b = np.concatenate([np.arange(len(probes)), other.ravel()[strangers]])
    own = np.arange(len(a)) < len(probes)
    pairs = pairing.Pairs(a=a, b=b + len(probes), same=own, group_a=identity[rows[a]], group_b=identity[rows[b]])
    alike = pairing.scores(both, pairs, kind=search.metric.kind)
    figures = verification.verify(alike, pairs, None, None, level=search.level, fars=())
    auc = next(f for f in figures if f.code == "verification.auc")
    hits = firsts(probes, gallery, np.arange(len(probes)), search.metric)
    note = f"{len(probes):,} releases with their originals, and with others'"
    return [
        replace(auc, code=LINKABILITY, note=note).finding(
            release=search.release, attacker=search.attacker, role="attack", worst=auc.status == "ok"
        ),
        search.rank1("linkability.rank1", hits, identity[rows[: len(probes)]], n, f"{n:,} originals"),
    ]


def _side(
    setting: Setting,
    x: NDArray[Any],
    identity: NDArray[np.int64],
    rows: NDArray[np.int64],
    calibrate: NDArray[np.int64],
) -> Problem:
    return Problem(
        x=x[rows], y=identity[rows], x_validation=x[calibrate], y_validation=identity[calibrate],
        classes=int(identity.max()) + 1, seed=setting.seed, effort=setting.effort,
    )  # fmt: skip
