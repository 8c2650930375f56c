"""Two audits side by side: what became of every figure, and when that cannot be said."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import veil
from conftest import attacked_by, vectors_pack
from veil import cli, findings
from veil.data.pack import Pack
from veil.errors import InputError
from veil.report.compared import Comparison, Figure, Pair
from veil.workflows.against import Measured
from veil.workflows.audit import audit
from veil.workflows.compare import compare, compared
from veil.workflows.subjects import Subject

ATTACK = "attribute.balanced_accuracy"


def audited(pack: Pack, folder: Path, hidden: float, name: str = "R", effort: str = "quick") -> Path:
    """An audit of the pack's vectors, of which what tells gender is taken away by so much."""
    gender = pack.label("gender").astype(bool)
    gap = pack.x[gender].mean(0) - pack.x[~gender].mean(0)
    x = pack.x - hidden * np.where(gender[:, None], 0.5, -0.5) * gap
    subject = Subject(name=name, vectors=x.astype(np.float32))
    audit(pack, [subject], folder, private=["gender"], utility=["identity"], jobs=1, baselines=[], effort=effort,
          together=False, by="A. Person")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    with pytest.MonkeyPatch.context() as patch:
        attacked_by(patch, "logistic regression")
        pack, folder = vectors_pack(people=200), tmp_path_factory.mktemp("audits")
        return {
            "open": audited(pack, folder / "open", 0.0),
            "hidden": audited(pack, folder / "hidden", 1.0),
            "renamed": audited(pack, folder / "renamed", 1.0, name="Newer"),
            "other": audited(vectors_pack(people=200, seed=1), folder / "other", 1.0),
        }


def of(first: Path, second: Path) -> Comparison:
    return compared(Measured.read(first), Measured.read(second))


def attack(made: Comparison, number: int = 0) -> Figure:
    return next(f for f in made.pairs[number].figures if (f.code, f.target) == (ATTACK, "gender"))


def text(page: Path) -> str:
    body = page.read_text().partition("<body>")[2]
    return " ".join(re.sub(r"<[^>]*>", "", body.replace("><", "> <")).replace("\N{NO-BREAK SPACE}", " ").split())


def test_what_differs_beyond_chance_is_said_and_agrees_with_the_gate(audits):
    figure = attack(of(audits["open"], audits["hidden"]))
    assert figure.says == "B gives less away, beyond chance"
    assert (figure.change is not None, figure.why) == (True, "")
    line = next(line for line in veil.check(audits["hidden"], against=audits["open"]).lines if line.code == ATTACK)
    assert figure.change == line.change
    back = attack(of(audits["hidden"], audits["open"]))
    assert back.says == "B gives more away, beyond chance"
    assert back.change[1] == pytest.approx(-figure.change[2])
    unprotected = attack(of(audits["open"], audits["hidden"]), -1)
    assert (unprotected.says, unprotected.change[0]) == ("no difference beyond chance", 0)


def test_other_people_cannot_be_paired_but_intervals_may_lie_apart(audits):
    made = of(audits["open"], audits["other"])
    figure = attack(made)
    assert (figure.change, figure.says) == (None, "B gives less away, beyond chance")
    assert figure.why == "not paired: their intervals lie apart"
    assert attack(made, -1).says == "their intervals overlap: that may be chance"
    page = text(compare(audits["open"], audits["other"]))
    assert "They are of different data. A difference may come from the people" in page


def test_the_page_speaks_plainly_first(audits, tmp_path):
    page = text(compare(audits["open"], audits["hidden"], tmp_path / "two.html"))
    places = [page.index(words) for words in ("In plain words", "Both verdicts", "Who was tried", "To sign")]
    assert places == sorted(places)
    a, b = (attack(of(audits["open"], audits["hidden"])).findings[i] for i in (0, 1))
    said = f"the worst tested attack names {100 * a.value:.0f} in A and {100 * b.value:.0f} in B rightly"
    assert said in page
    assert "different data" not in page
    for folder in (audits["open"], audits["hidden"]):
        assert findings.fingerprint(folder) in page
    assert page.count("by A. Person") == 2


def test_single_releases_stand_beside_each_other_whatever_they_are_called(audits):
    made = of(audits["hidden"], audits["renamed"])
    assert [pair.name for pair in made.pairs] == ["R (A) and Newer (B)", "Input"]
    assert made.pairs[0].same == "yes: one fingerprint"
    assert attack(made).change == (0.0, 0.0, 0.0)
    assert attack(made).says == "no difference beyond chance"


def test_what_one_alone_measured_and_how_they_were_made(audits, tmp_path):
    shutil.copytree(audits["hidden"], tmp_path / "less")
    document = findings.read(audits["hidden"])
    document["findings"] = [f for f in document["findings"] if f["code"] != "verification.eer"]
    document["made"]["effort"] = "strong"
    document["veil"] = "0.0.9"
    findings.write(tmp_path / "less", document)
    page = text(compare(audits["open"], tmp_path / "less"))
    assert "Only A: R: EER of identity" in page
    assert "effort differs (quick in A, strong in B)" in page
    assert "Veil differs" in page
    assert "Only B: nothing." in page


def test_a_control_that_failed_comes_first_and_leaves_differences_open(audits, tmp_path):
    document = findings.read(audits["hidden"])
    for f in document["findings"]:
        if f["role"] == "control" and f["attacker"].startswith("shuffled"):
            f.update(value=0.9, low=0.8, high=0.95)
    shutil.copytree(audits["hidden"], tmp_path / "failed")
    findings.write(tmp_path / "failed", document)
    figure = attack(of(audits["open"], tmp_path / "failed"))
    assert figure.says == "it cannot be said whether they differ"
    assert "a control failed" in figure.why
    page = text(compare(audits["open"], tmp_path / "failed"))
    assert page.index("Controls of B failed") < page.index("In plain words")
    assert "names" not in page[page.index("In plain words") : page.index("Both verdicts")].split("choices")[0]


def test_names_are_texts_and_the_page_loads_nothing(audits, tmp_path):
    document = findings.read(audits["hidden"])
    evil = "<script>alert(1)</script>"
    document["releases"] = [r | {"name": evil} if r["name"] == "R" else r for r in document["releases"]]
    for key in ("findings", "rates"):
        document[key] = [f | {"release": evil} if f["release"] == "R" else f for f in document[key]]
    document["made"]["by"] = "<img src=x onerror=alert(1)>"
    findings.write(tmp_path, document)
    page = compare(audits["hidden"], tmp_path).read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert not re.search(r"(?:src|href)=[\"']?https?:", page)


def test_what_cannot_be_set_side_by_side_is_refused(audits, tmp_path):
    def changed(name: str, **data: Any) -> Path:
        document = findings.read(audits["hidden"])
        document["data"] |= data
        findings.write(tmp_path / name, document)
        return tmp_path / name

    with pytest.raises(InputError, match="must be another audit than the first"):
        compare(audits["open"], audits["open"] / "findings.json")
    with pytest.raises(InputError, match="must both be of releases, or both of scores"):
        compare(audits["open"], changed("scores", kind="scores"))
    with pytest.raises(InputError, match="must share a label or a use, got gender, identity and glasses"):
        compare(audits["open"], changed("asked", private=["glasses"], utility=[]))
    with pytest.raises(InputError, match=r"ends in \.html"):
        compare(audits["open"], audits["hidden"], tmp_path / "page.txt")
    with pytest.raises(InputError, match="no findings here"):
        compare(audits["open"], tmp_path / "nothing")
    document = findings.read(audits["hidden"])
    document |= {"releases": [], "findings": [], "curves": [], "maps": [], "rates": []}
    findings.write(tmp_path / "none", document)
    with pytest.raises(InputError, match="must have a release of one name"):
        compare(audits["open"], tmp_path / "none")


def test_the_command_writes_beside_the_second_or_where_it_is_told(audits, tmp_path, capsys, monkeypatch):
    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["veil", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out + said.err

    status, said = run("report", audits["open"], audits["hidden"], "--json")
    assert (status, json.loads(said)) == (0, {"compared": str(audits["hidden"] / "compared.html")})
    assert run("report", audits["open"], audits["hidden"], "--out", tmp_path / "a.html")[0] == 0
    assert (tmp_path / "a.html").read_bytes() == (audits["hidden"] / "compared.html").read_bytes()
    assert "--out is for the page of two audits" in run("report", audits["open"], "--out", "a.html")[1]
    assert "--card is for one audit" in run("report", audits["open"], audits["hidden"], "--card")[1]


def test_figures_know_whether_both_are_there():
    assert not Figure(target="gender", code=ATTACK, findings=(None, None)).of_both
    release = veil.report.document.Release(name="R", role="method")
    assert Pair(releases=(release, release), figures=()).same == ""
