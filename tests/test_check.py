"""The gate: limits of intervals against what is required, and when it cannot be said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import attacked_by, vectors_pack
from veil import cli, findings
from veil.data.pack import Pack
from veil.errors import InputError
from veil.findings import Finding, contributions
from veil.findings.codes import ATTACK, CERTIFICATE, MATCHING, POOLED, SEEN, TRANSFER
from veil.findings.contributions import Contribution
from veil.workflows.audit import audit
from veil.workflows.check import Checked, Requirement, check
from veil.workflows.subjects import Subject


def figure(code: str, value: float | None, *, release: str = "R", target: str = "gender", **more: Any) -> Finding:
    """A finding with an interval of 2 points to either side; without a value one that broke off."""
    limits: dict[str, Any] = {"value": value, "low": value - 0.02, "high": value + 0.02} if value is not None else {}
    missing: dict[str, Any] = {"status": "did_not_converge", "note": "it ran away"} if value is None else {}
    own: dict[str, Any] = {"attacker": "MLPs", "role": "attack", "n": 100, "chance": 0.5, "worst": True}
    return Finding(code=code, release=release, target=target, **(own | limits | missing | more))


CONTROLS = (
    figure(ATTACK, 0.9, release="Input"),
    figure(MATCHING, 0.99, release="Input", target="identity", role="utility"),
    figure("attribute.auc", 0.5, release="R", attacker="shuffled labels (SVM)", role="control", worst=False),
    figure(SEEN, 0.0, target="any", attacker="none", role="control", low=0.0, high=0.0, worst=False),
)


def written(out: Path, *figures: Finding, controls: tuple[Finding, ...] = CONTROLS, **data: Any) -> Path:
    """An audit of a release R of a method, and the unprotected input."""
    of = {"name": "Input", "method": "", "preset": "", "k": 8, "seed": None, "config": {}, "data": None, "note": ""}
    releases = [{**of, "role": "input"}, {**of, "name": "R", "method": "template", "role": "method", "named": True}]
    about = {"private": ["gender"], "utility": ["identity"], "labels": {}, "splits": {}, "notes": []} | data
    out.mkdir(exist_ok=True)
    document = findings.document(
        seed=0,
        command="",
        data=about,
        releases=releases,
        maps=[],
        findings=[*figures, *controls],
        pictures=[],
        curves=[],
    )
    findings.write(out, document)
    return out


def outcome(made: Checked) -> tuple[str, list[str]]:
    return made.outcome, [line.outcome for line in made.lines]


@pytest.mark.parametrize(
    ("value", "require", "expected"),
    [
        (0.57, "gender <= 0.60", "met"),
        (0.58, "gender <= 0.60", "met"),  # the limit itself
        (0.59, "gender <= 0.60", "not met"),  # the value is below, its upper limit is not
        (0.72, "gender<=0.6", "not met"),
    ],
)
def test_limits_of_intervals_are_compared(tmp_path, value, require, expected):
    made = check(written(tmp_path / "a", figure(ATTACK, value)), [require])
    assert made.outcome == expected
    assert made.status == {"met": 0, "not met": 3}[expected]


def test_every_threat_model_that_was_measured_counts(tmp_path):
    figures = [figure(ATTACK, 0.55), figure(TRANSFER, 0.5), figure(POOLED, 0.62)]
    made = check(written(tmp_path / "a", *figures), ["gender <= 0.60"])
    assert [(line.code, line.outcome) for line in made.lines] == [
        (ATTACK, "met"), (TRANSFER, "met"), (POOLED, "not met"),
    ]  # fmt: skip
    assert made.outcome == "not met"


def test_the_picked_attacker_counts_and_not_the_mildest(tmp_path):
    figures = [figure(ATTACK, 0.55, attacker="SVM", worst=False), figure(ATTACK, 0.65)]
    assert check(written(tmp_path / "a", *figures), ["gender <= 0.60"]).outcome == "not met"


def test_what_was_not_picked_speaks_by_its_strongest(tmp_path):
    figures = [figure(ATTACK, v, attacker=f"{v}", worst=False) for v in (0.55, 0.7)]
    assert check(written(tmp_path / "a", *figures), ["gender <= 0.60"]).outcome == "not met"
    uses = [figure(MATCHING, v, target="identity", role="utility", attacker=f"{v}", worst=False) for v in (0.8, 0.99)]
    assert check(written(tmp_path / "b", *uses), ["identity >= 0.95"]).outcome == "met"


def test_uses_have_lower_limits(tmp_path):
    matching = figure(MATCHING, 0.99, target="identity", role="utility")
    error = figure("verification.eer", 0.03, target="identity", role="utility")
    out = written(tmp_path / "a", figure(ATTACK, 0.55), matching, error)
    assert check(out, ["identity >= 0.97", "identity.auc >= 0.97", "identity.eer <= 0.05"]).outcome == "met"
    assert check(out, ["identity.auc >= 0.98"]).outcome == "not met"
    assert check(out, ["identity.eer <= 0.04"]).outcome == "not met"


def test_codes_can_be_named(tmp_path):
    out = written(tmp_path / "a", figure(ATTACK, 0.55), figure("inversion.ssim", 0.2, target="image"))
    assert outcome(check(out, ["inversion.ssim <= 0.3"])) == ("met", ["met"])
    assert outcome(check(out, ["inversion.ssim <= 0.1"])) == ("not met", ["not met"])
    assert outcome(check(out, ["training.seen <= 0"])) == ("met", ["met"])
    assert outcome(check(out, ["linkability.rank1 <= 0.1"])) == ("cannot be said", ["cannot be said"])


@pytest.mark.parametrize(
    ("controls", "why"),
    [
        ((figure(ATTACK, 0.5, release="Input"), *CONTROLS[1:]), "On the unprotected input the attack on gender is not"),
        (CONTROLS[1:], "no figure"),
        ((*CONTROLS[:2], CONTROLS[3]), "No attack on shuffled labels"),
        (
            (
                *CONTROLS[:2],
                figure("attribute.auc", 0.6, attacker="shuffled labels (SVM)", role="control"),
                CONTROLS[3],
            ),
            "is off chance",
        ),
        (
            (*CONTROLS[:3], figure(SEEN, 0.4, target="any", attacker="none", role="control", note="4 of 10 rows")),
            "that it was fitted on",
        ),
    ],
    ids=["input", "no input", "no shuffled labels", "shuffled labels", "seen in training"],
)
def test_a_control_that_failed_leaves_it_open(tmp_path, controls, why):
    made = check(written(tmp_path / "a", figure(ATTACK, 0.55), controls=controls), ["gender <= 0.60"])
    assert outcome(made) == ("cannot be said", ["cannot be said"])
    assert why in made.lines[0].why
    assert made.status == 2


def test_an_attack_that_worked_needs_no_control_to_show_that_it_can(tmp_path):
    out = written(tmp_path / "a", figure(ATTACK, 0.75), controls=CONTROLS[1:2])
    assert check(out, ["gender <= 0.60"]).outcome == "not met"


def test_an_attempt_that_broke_off_leaves_open_what_it_would_have_found(tmp_path):
    figures = [figure(ATTACK, 0.55), figure(ATTACK, None, attacker="SVM", worst=False)]
    made = check(written(tmp_path / "a", *figures), ["gender <= 0.60"])
    assert outcome(made) == ("cannot be said", ["cannot be said"])
    assert "SVM broke off (it ran away)" in made.lines[0].why
    assert check(written(tmp_path / "b", figures[0]), ["gender <= 0.60"]).outcome == "met"
    worse = [figure(ATTACK, 0.75), figures[1]]
    assert check(written(tmp_path / "c", *worse), ["gender <= 0.60"]).outcome == "not met"


def test_a_decision_without_a_figure_asks_for_the_auc(tmp_path):
    silent = {"status": "not_applicable", "note": "names one class for everybody"}
    figures = [figure(ATTACK, None, **silent), figure("attribute.auc", 0.55)]
    out = written(tmp_path / "a", *figures)
    made = check(out, ["gender <= 0.60"])
    assert outcome(made) == ("cannot be said", ["cannot be said"])
    assert "require gender.auc" in made.lines[0].why
    assert check(out, ["gender.auc <= 0.60"]).outcome == "met"


@pytest.mark.parametrize(
    ("require", "words"),
    [
        ("gender >= 0.5", "gender gives away, so its limit must be <= LIMIT, got gender >= 0.5"),
        ("gender <= 60", r"gender lies in 0..1 \(0.6 for 60 %\), got the limit 60"),
        ("identity <= 0.9", "identity is of use, so its limit must be >= LIMIT"),
        ("identity.eer >= 0.1", "identity.eer is an error, so its limit must be <= LIMIT"),
        ("linkability.rank1 >= 0.1", "linkability.rank1 gives away"),
        ("identity.d_sys >= 0.1", "identity.d_sys gives away"),
        ("renewal.accepted >= 0.1", "renewal.accepted gives away"),
        ("membership.auc >= 0.6", "membership.auc gives away"),
    ],
)
def test_a_limit_on_the_wrong_side_is_refused(tmp_path, require, words):
    with pytest.raises(InputError, match=words):
        check(written(tmp_path / "a", figure(ATTACK, 0.55)), [require])


def test_an_attacker_that_was_not_picked_may_be_certainly_beyond(tmp_path):
    figures = [figure(ATTACK, 0.55), figure(ATTACK, 0.7, attacker="SVM", worst=False)]
    made = check(written(tmp_path / "a", *figures), ["gender <= 0.60"])
    assert outcome(made) == ("not met", ["not met"])
    assert (made.lines[0].finding.attacker, "which was picked" in made.lines[0].why) == ("SVM", True)
    near = [figures[0], figure(ATTACK, 0.61, attacker="SVM", worst=False)]  # its interval reaches below
    assert check(written(tmp_path / "b", *near), ["gender <= 0.60"]).outcome == "met"


def test_far_below_chance_is_read_in_reverse(tmp_path):
    made = check(written(tmp_path / "a", figure(ATTACK, 0.55), figure(TRANSFER, 0.05)), ["gender <= 0.60"])
    assert outcome(made) == ("not met", ["met", "not met"])
    assert "its opposite is right more often" in made.lines[1].why


def test_an_attack_on_single_releases_must_have_been_measured(tmp_path):
    made = check(written(tmp_path / "a", figure(POOLED, 0.5)), ["gender <= 0.60"])
    assert outcome(made) == ("cannot be said", ["cannot be said", "met"])


def test_each_release_needs_controls_of_its_own(tmp_path):
    elsewhere = figure("attribute.auc", 0.5, release="Input", attacker="shuffled labels", role="control", worst=False)
    controls = (*CONTROLS[:2], elsewhere, CONTROLS[3])
    assert check(written(tmp_path / "a", figure(ATTACK, 0.55), controls=controls), ["gender <= 0.60"]).status == 2
    assert check(written(tmp_path / "b", figure(ATTACK, 0.55), controls=CONTROLS[:3]), ["gender <= 0.60"]).status == 2


def test_a_name_that_may_mean_two_things_is_refused(tmp_path):
    figures = [figure(ATTACK, 0.55, target=name) for name in ("gender", "gender.auc", "training.seen", "ge\u0301nie")]
    out = written(tmp_path / "a", *figures, private=["gender", "gender.auc", "training.seen", "ge\u0301nie"])
    for what in ("gender.auc", "training.seen"):
        with pytest.raises(InputError, match="must name one thing"):
            check(out, [f"{what} <= 0.6"])
    assert [line.code for line in check(out, ["g\u00e9nie <= 0.60"]).lines] == [ATTACK]


def test_what_does_not_apply_is_shown_and_leaves_nothing_open(tmp_path):
    nobody = {"status": "not_applicable", "note": "nobody has two releases", "worst": False, "attacker": "none"}
    figures = [figure(ATTACK, 0.55), figure(POOLED, None, **nobody)]
    made = check(written(tmp_path / "a", *figures), ["gender <= 0.60"])
    assert outcome(made) == ("met", ["met", "not applicable"])
    made = check(written(tmp_path / "b", figures[1]), ["gender <= 0.60"])
    assert outcome(made) == ("cannot be said", ["cannot be said", "not applicable"])


def test_a_certificate_binds_every_attacker(tmp_path):
    bound = figure(CERTIFICATE, 0.58, attacker="any", role="bound", worst=False)
    figures = [figure(ATTACK, 0.55), figure(ATTACK, None, attacker="SVM", worst=False), bound]
    out = written(tmp_path / "a", *figures)
    assert outcome(check(out, ["gender <= 0.60"])) == ("met", ["met"])
    assert check(out, ["gender <= 0.59"]).outcome == "cannot be said"
    together = written(tmp_path / "b", *figures, figure(POOLED, 0.7))  # which no certificate of one release binds
    assert outcome(check(together, ["gender <= 0.60"])) == ("not met", ["met", "not met"])
    seen = figure(SEEN, 0.4, target="any", attacker="none", role="control", note="4 of 10 rows")
    knows = written(tmp_path / "c", *figures, controls=(*CONTROLS[:3], seen))
    assert check(knows, ["gender <= 0.60"]).outcome == "cannot be said"


def test_all_that_were_asked_for_are_judged_or_those_that_are_named(tmp_path):
    out = written(tmp_path / "a", figure(ATTACK, 0.55))
    assert check(out, ["gender <= 0.60"]).outcome == "met"
    assert check(out, ["gender <= 0.60"], releases=["Input"]).outcome == "not met"
    with pytest.raises(InputError, match=r"release: must be one of the audit's \(Input, R\), got 'S'"):
        check(out, ["gender <= 0.60"], releases=["S"])


def test_requirements_of_a_file(tmp_path):
    out, file = written(tmp_path / "a", figure(ATTACK, 0.55)), tmp_path / "veil.toml"
    file.write_text('[check]\nrequire = ["gender <= 0.60"]\nreleases = ["Input"]\n')
    assert check(out, file=file).outcome == "not met"
    for text, words in (
        ("[check\n", "cannot be read as TOML"),
        ("[checks]\n", r"must have a table \[check\]"),
        ("[check]\nrequire = 'gender <= 0.6'\n", "must be lists of texts"),
        ("[check]\nlimits = []\n", r"must have a table \[check\]"),
        ("[check]\n", "name what is required"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=words):
            check(out, file=file)
    with pytest.raises(InputError, match="cannot be read as TOML"):
        check(out, file=tmp_path / "none.toml")


@pytest.mark.parametrize(
    "text", ["", "gender", "gender < 0.6", "gender <= many", "<= 0.6", "gender <= nan", "a <= 0.6 x"]
)
def test_requirements_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="require: must be WHAT <= LIMIT"):
        Requirement.read(text)


@pytest.mark.parametrize(
    ("require", "words"),
    [
        ("age <= 0.6", r"a label that was audited \(gender, identity\), or a code"),
        ("gender.sharpness <= 0.6", "gender has no figure 'sharpness'"),
        ("identity.sharpness >= 0.6", "identity has no figure 'sharpness'"),
    ],
)
def test_what_no_audit_measures_is_refused(tmp_path, require, words):
    with pytest.raises(InputError, match=words):
        check(written(tmp_path / "a", figure(ATTACK, 0.55)), [require])


def test_labels_may_have_any_name(tmp_path):
    out = written(tmp_path / "a", figure(ATTACK, 0.55, target="a.b <= c"), private=["a", "a.b <= c"])
    made = check(out, ["a.b <= c <= 0.60"])
    assert [(line.code, line.finding.target) for line in made.lines if line.finding] == [(ATTACK, "a.b <= c")]


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["veil", "check", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr()
    return int(stopped.value.code or 0), said.out, said.err


def test_the_command_speaks_by_its_exit_status(tmp_path, capsys, monkeypatch):
    out = str(written(tmp_path / "a", figure(ATTACK, 0.57)))
    status, said, _ = run(capsys, monkeypatch, out, "--require", "gender <= 0.60")
    assert (status, said.splitlines()[-1]) == (0, "met")
    assert "0.550 - 0.590" in said
    status, said, _ = run(capsys, monkeypatch, out, "--require", "gender <= 0.50", "--json")
    made = json.loads(said)
    assert (status, made["outcome"]) == (3, "not met")
    assert made["lines"][0] | {"why": ""} == {
        "require": "gender <= 0.5", "release": "R", "outcome": "not met", "code": ATTACK, "threat": "A1",
        "attacker": "MLPs", "value": 0.57, "low": pytest.approx(0.55), "high": pytest.approx(0.59), "n": 100, "why": "",
        "change": None, "level": 0.95,
    }  # fmt: skip
    status, said, _ = run(capsys, monkeypatch, out, "--require", "identity >= 0.9")
    assert (status, said.splitlines()[-1]) == (2, "cannot be said")
    status, _, error = run(capsys, monkeypatch, out)
    assert status == 2
    assert error == "veil: require: name what is required, such as 'gender <= 0.60', got nothing\n"


def test_an_unprotected_pack_is_not_met_and_an_audit_can_ask_itself(tmp_path, monkeypatch):
    attacked_by(monkeypatch, "logistic regression")
    made = audit(vectors_pack(), [], tmp_path / "a", private=["gender"], utility=["identity"], jobs=1)
    assert check(tmp_path / "a", ["gender <= 0.60"]).status == 3
    own = made.check(["gender <= 0.60", "identity >= 0.6"])
    assert own.lines == check(tmp_path / "a", ["gender <= 0.60", "identity >= 0.6"]).lines


# -- against an earlier audit -----------------------------------------------------------------------------------------


def released(pack: Pack, folder: Path, hidden: float, seed: int = 0) -> Path:
    """An audit of the pack's vectors, of which what tells gender is left by so much, and noise of their own."""
    x = pack.x + 0.3 * np.random.default_rng(seed).normal(size=pack.x.shape)
    gender = pack.label("gender").astype(bool)
    gap = x[gender].mean(0) - x[~gender].mean(0)
    x -= hidden * np.where(gender[:, None], 0.5, -0.5) * gap
    subject = Subject(name="R", vectors=x.astype(np.float32))
    audit(pack, [subject], folder, private=["gender"], utility=["identity"], jobs=1, baselines=[])
    return folder


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    with pytest.MonkeyPatch.context() as patch:
        attacked_by(patch, "logistic regression")
        pack, folder = vectors_pack(), tmp_path_factory.mktemp("audits")
        return {
            "hidden": released(pack, folder / "hidden", 1.0),
            "again": released(pack, folder / "again", 1.0, seed=1),
            "open": released(pack, folder / "open", 0.0),
            "other": released(vectors_pack(seed=1), folder / "other", 1.0),
        }


def test_what_became_worse_is_said(audits):
    made = check(audits["open"], against=audits["hidden"])
    assert made.status == 3
    line = next(line for line in made.lines if line.code == ATTACK)
    assert (line.requirement, line.outcome) == ("gender no worse than before", "not met")
    before = next(f for f in findings_of(audits["hidden"]) if f.worst and f.code == ATTACK and f.release == "R")
    assert line.change is not None
    assert line.change.value == pytest.approx(line.finding.value - before.value)
    assert line.change.low > 0


def test_what_became_better_or_differs_by_chance_is_no_worse(audits):
    assert check(audits["hidden"], against=audits["hidden"]).status == 0
    attacks = [line for line in check(audits["hidden"], against=audits["open"]).lines if line.finding.role == "attack"]
    assert {line.outcome for line in attacks} == {"met"}
    assert all(line.change.high < 0 for line in attacks if line.code == ATTACK)
    made = check(audits["again"], against=audits["hidden"])
    assert {line.outcome for line in made.lines} == {"met"}
    assert any(line.change.value != 0 for line in made.lines)


def test_pairing_tells_more_than_two_intervals(audits):
    line = next(line for line in check(audits["again"], against=audits["hidden"]).lines if line.code == MATCHING)
    before = next(f for f in findings_of(audits["hidden"]) if f.worst and f.code == MATCHING and f.release == "R")
    apart = np.hypot(line.finding.high - line.finding.low, before.high - before.low)
    assert line.change.high - line.change.low < 0.9 * apart


def test_other_data_rows_and_releases_cannot_be_compared(audits, tmp_path):
    with pytest.raises(InputError, match="must be of the same data, but their fingerprints"):
        check(audits["other"], against=audits["hidden"])
    bare = tmp_path / "bare"
    shutil.copytree(audits["hidden"], bare)
    (bare / "contributions.parquet").unlink()
    made = check(audits["hidden"], against=bare)
    assert made.status == 2
    assert {line.why for line in made.lines} == {"was not measured before"}
    made = check(bare, against=audits["hidden"])
    assert {(line.outcome, line.why) for line in made.lines} == {
        ("cannot be said", "was measured before, and is not now")
    }
    other = tmp_path / "other"
    shutil.copytree(bare, other)
    made = check(bare, against=other)
    assert [line.outcome for line in made.lines] == ["cannot be said"]
    assert "no contributions.parquet lies in" in made.lines[0].why
    table = pq.read_table(audits["hidden"] / "contributions.parquet").to_pylist()
    pq.write_table(pa.Table.from_pylist([row | {"rows": "others"} for row in table]), bare / "contributions.parquet")
    assert {line.why for line in check(bare, against=audits["hidden"]).lines} == {"was measured on other rows before"}
    for value in (float("nan"), 1e30):
        pq.write_table(
            pa.Table.from_pylist([row | {"contribution": value} for row in table]), bare / "contributions.parquet"
        )
        with pytest.raises(InputError, match="contributions must be numbers of at most 2"):
            check(bare, against=audits["hidden"])
    (bare / "contributions.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"contributions\.parquet"):
        check(bare, against=audits["hidden"])


def test_requirements_and_an_earlier_audit_go_together(audits, capsys, monkeypatch):
    words = [str(audits["hidden"]), "--against", str(audits["hidden"]), "--require", "gender <= 0.99"]
    status, said, _ = run(capsys, monkeypatch, *words)
    assert (status, said.splitlines()[-1]) == (0, "met")
    assert "gender no worse than before" in said


def test_contributions_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    about = {"target": "gender", "code": ATTACK, "attacker": "MLPs", "rows": "ab"}
    several = [
        Contribution(release=f"R{i}", people=rng.uniform(-1, 1, n).astype(np.float32), **about)
        for i, n in enumerate((5, 9))
    ]
    for given in (several, []):
        contributions.write(tmp_path / "c.parquet", given)
        read = contributions.read(tmp_path / "c.parquet")
        assert [vars(each) | {"people": None} for each in read] == [vars(each) | {"people": None} for each in given]
        for one, other in zip(read, given, strict=True):
            np.testing.assert_array_equal(one.people, other.people)


def findings_of(folder: Path) -> list[Finding]:
    return [Finding(**entry) for entry in findings.read(folder)["findings"]]
