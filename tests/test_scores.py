"""Files of scores: written by audits, and audited where they are all that is there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

import veil
from veil import cli
from veil.auditing.attackers import ATTACKERS
from veil.data.scorefile import MOST_PAIRS, Scores, read_scores, write_scores
from veil.errors import InputError
from veil.findings import Finding, read
from veil.findings.codes import BIOMETRIC, PIC, RATIOS, SUPPRESSION
from veil.report import page
from veil.workflows.audit_scores import audit_scores


def normal_scores(seed: int, distance: float, n: int = 60_000) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    mated = rng.random(n) < 0.2
    return mated, rng.normal(size=n) + distance * mated


def written(path: Path, mated: NDArray[Any], score: NDArray[Any], people: NDArray[Any] | None = None) -> Path:
    with path.open("w") as file:
        write_scores(file, Scores(mated=mated, score=score, people=people))
    return path


def one(found: veil.Audit, code: str) -> Finding:
    (hit,) = [f for f in found.findings if f.code == code]
    return hit


def test_normal_scores_have_the_figures_of_the_closed_form(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", *normal_scores(0, 3.0))
    found = audit_scores({"Theirs": path})
    truths = {
        "verification.auc": norm.cdf(3 / np.sqrt(2)),
        "verification.eer": norm.cdf(-1.5),
        "verification.tar_at_far_0.01": norm.sf(norm.isf(0.01) - 3),
        "verification.fnmr_at_fmr_0.001": norm.cdf(norm.isf(0.001) - 3),
    }
    for code, truth in truths.items():
        _, low, high, _ = one(found, code).figures()
        assert low - 0.002 < truth < high + 0.002, code
        assert high - low < 0.1, code
        assert "taken as independent" in one(found, code).note
    assert one(found, "verification.fnmr_at_fmr_0.0001").status == "not_applicable"
    (curve,) = found.document["rates"]
    for fmr, fnmr in zip(curve["x"], curve["y"], strict=True):
        if fmr < 1:
            truth, z = norm.cdf(norm.isf(fmr) - 3), norm.isf(fmr)
            slope = norm.pdf(z - 3) / norm.pdf(z)  # by which the luck of the threshold moves it
            error = np.sqrt(truth * (1 - truth) / 12_000 + slope**2 * fmr * (1 - fmr) / 48_000)
            assert abs(fnmr - truth) < 4 * error + 1e-4


def test_independent_pairs_have_the_interval_of_a_rate(tmp_path: Path) -> None:
    """TAR at a fixed threshold would have p (1 - p) / M; that of a threshold that moves is a little wider."""
    mated, score = normal_scores(1, 2.0)
    found = one(audit_scores({"Theirs": written(tmp_path / "x.csv", mated, score)}), "verification.tar_at_far_0.01")
    value, low, high, _ = found.figures()
    fixed = 2 * 1.96 * np.sqrt(value * (1 - value) / mated.sum())
    assert fixed < high - low < 2 * fixed


def test_people_who_are_known_widen_intervals(tmp_path: Path) -> None:
    """Of 40 people each mated pair is seen ten times over."""
    rng = np.random.default_rng(2)
    a, b = np.triu_indices(40)
    mated, score = np.repeat(a == b, 10), np.repeat(rng.normal(size=len(a)) + 2 * (a == b), 10)
    people = np.repeat(np.column_stack([a, b]), 10, axis=0)
    alone = one(audit_scores({"A": written(tmp_path / "a.csv", mated, score)}), "verification.auc")
    known = one(audit_scores({"B": written(tmp_path / "b.csv", mated, score, people)}), "verification.auc")
    assert alone.value == known.value
    width = [f.figures()[2] - f.figures()[1] for f in (alone, known)]
    assert width[1] > 2 * width[0]
    assert "40 people" in known.note


def test_what_an_audit_writes_gives_the_same_figures_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    who = np.repeat(np.arange(160), 4)
    x = (rng.normal(size=(160, 12))[who] + 0.8 * rng.normal(size=(640, 12))).astype(np.float32)
    pack = veil.Pack.from_arrays(x, {"identity": who, "gender": who % 2})
    out = tmp_path / "audit"
    attackers = {"attackers": {"logistic regression": ATTACKERS["logistic regression"]}}
    made = veil.audit(
        pack, [veil.Subject(name="A b/c", vectors=x[:, :6])], out, private=["gender"], utility=["identity"],
        effort="quick", jobs=1, baselines=[], together=False, roster=attackers, scores=True,
    )  # fmt: skip
    curves = [(curve["release"], curve["kind"]) for curve in read(out)["rates"]]
    assert curves == [("Input", "det"), ("Input", "cmc"), ("A b/c", "det"), ("A b/c", "cmc")]
    codes = {f.code for f in made.findings if f.release == "A b/c"}
    assert {*BIOMETRIC, *RATIOS.values(), SUPPRESSION, PIC} <= codes
    listed = read(out)["scores"]
    assert listed == [{"file": "scores/00-input.csv", "release": "Input"},
                      {"file": "scores/01-a-b-c.csv", "release": "A b/c"}]  # fmt: skip
    again = audit_scores({entry["release"]: out / entry["file"] for entry in listed})
    for f in again.findings:
        if f.code in ("verification.auc", "verification.eer", "verification.tar_at_far_0.01"):
            before = next(g for g in made.findings if g.worst and (g.code, g.release, g.target) ==
                          (f.code, f.release, "identity"))  # fmt: skip
            assert f.figures() == pytest.approx(before.figures(), abs=1e-6)
    veil.audit(pack, [], out, private=["gender"], utility=["identity"], effort="quick", jobs=1, baselines=[],
               together=False, roster=attackers)  # fmt: skip
    assert not (out / "scores").exists()  # of an earlier audit nothing stays


def test_the_page_says_how_systems_match_and_speaks_of_no_attack(tmp_path: Path) -> None:
    paths = {name: written(tmp_path / f"{name}.csv", *normal_scores(i, 2.0 + i)) for i, name in enumerate("AB")}
    audit_scores(paths, tmp_path / "out")
    text = page.write(tmp_path / "out").read_text()
    assert "Audit of scores: how well 2 systems match" in text
    assert 'id="rates-det"' in text
    assert "pairs are taken as independent" in text
    for strange in ("Who was tried", "No attacker was tried", "Some controls are missing", "CMC is"):
        assert strange not in text


def _parquet(table: pa.Table) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        pq.write_table(table, folder / "x.parquet")
        return folder / "x.parquet"

    return make


def _csv(text: str | bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "x.csv").write_bytes(text.encode() if isinstance(text, str) else text)
        return folder / "x.csv"

    return make


HOSTILE = [
    (_csv("mated,score\n1,nan\n0,1\n"), "score must be a finite number, got nan in row 1"),
    (_csv("mated,score\n1,2\n0,inf\n"), "score must be a finite number, got inf in row 2"),
    (_csv("mated,score\n1,2\n1,3\n"), "mated must be 1 in some rows and 0 in others, got 1 in all"),
    (_csv("mated,score\n1,2\n2,3\n"), "mated must be 1 (one person) or 0 (two), got 2 in row 2"),
    (_csv("mated,score\n1,2\n0,high\n"), "score must be a number, got 'high' in row 2"),
    (_csv("score\n1\n2\n"), "needs the columns mated and score, its columns are score"),
    (_csv("mated,score\n1,2\n0\n"), "line 3 must have 2 cells"),
    (_csv("mated,score\n"), "holds no comparisons"),
    (_csv(""), "x.csv"),
    (_csv(b"PAR1 and more"), "Parquet: let its name end in .parquet"),
    (_csv("mated,score,person_a\n1,2,a\n0,1,b\n"), "person_a and person_b must both be there"),
    (_csv("mated,score,person_a,person_b\n1,2,a,a\n0,1,b,b\n"), "got 0 in row 2, whose people are one"),
    (_csv("mated,score,person_a,person_b\n1,2,a,b\n0,1,a,b\n"), "got 1 in row 1, whose people are not one"),
    (_parquet(pa.table({"mated": ["1", "0"], "score": [1.0, 2.0]})), "mated must be numbers, got string"),
    (_parquet(pa.table({"mated": [1, 0], "score": [1.0, None]})), "score must be there in each row"),
    (_parquet(pa.table({"mated": [1, 0], "score": [1.0, 2.0], "person_a": [1.5, 2], "person_b": [1.5, 3]})),
     "person_a must be texts or whole numbers, got double"),
    (_parquet(pa.table({"mated": [1, 0], "x": [1.0, 2.0]})), "its columns are mated, x"),
    (_parquet(pa.table({"mated": pa.array(np.zeros(MOST_PAIRS + 1, np.int8)), "score": np.zeros(MOST_PAIRS + 1)})),
     "x.parquet"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "why"), HOSTILE)
def test_what_is_no_file_of_scores_is_refused_in_one_line(
    make: Callable[[Path], Path], why: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        audit_scores({"X": make(tmp_path)}, tmp_path / "out")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_parquet_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    mated, score = normal_scores(4, 2.0, 500)
    path = _parquet(pa.table({"mated": mated, "score": score}))(tmp_path)
    np.testing.assert_array_equal(read_scores(path).mated, mated)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot be read"):
        read_scores(path)


def test_the_command_audits_scores_and_its_figures_can_be_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "theirs.csv", *normal_scores(5, 4.0))

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["veil", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0)

    out = tmp_path / "out"
    assert run("audit", "--scores", path, "--scores", f"Again={path}", "--out", out) == 0
    assert "theirs" in capsys.readouterr().out
    assert read(out)["command"] == "veil audit --out OUT --scores theirs=SCORES --scores Again=SCORES"
    assert run("check", out, "--require", "identity.fnmr_at_fmr_0.001 <= 0.3") == 0
    assert run("check", out, "--require", "identity.fnmr_at_fmr_0.001 <= 0.05") == 3
    assert run("check", out, "--require", "identity.fnmr_at_fmr_0.001 >= 0.05") == 2
    capsys.readouterr()
    assert run("audit", path, "--scores", path) == 2
    said = capsys.readouterr().err
    assert "PACK" in said
    assert len(said.strip().splitlines()) == 1
