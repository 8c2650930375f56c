"""The data sheet: what may stand in it, and that it goes from the pack to the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import veil
from conftest import attacked_by
from veil import findings
from veil.data import build
from veil.data.about import FIELDS, LONGEST, sheet
from veil.data.pack import Pack
from veil.errors import InputError
from veil.report import card, document, page
from veil.workflows.audit import audit

TOLD = {"licence": "CC0", "source": "drawn by a computer", "contact": "<script>alert(1)</script> | a@b.c"}


def test_a_sheet_is_read_from_toml_and_json_and_texts(tmp_path: Path) -> None:
    toml, plain = tmp_path / "a.toml", tmp_path / "a.json"
    toml.write_text("".join(f"{name} = {json.dumps(text)}\n" for name, text in TOLD.items()))
    plain.write_text(json.dumps(TOLD))
    assert sheet(toml) == sheet(str(plain)) == sheet(TOLD) == TOLD
    assert list(sheet(TOLD)) == ["source", "licence", "contact"]  # the order of FIELDS
    assert sheet(None) == {}
    assert sheet({"consent": "  asked\n and agreed "}) == {"consent": "asked and agreed"}


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (
            {"license": "CC0"},
            "about: a data sheet has the fields source, collected, people, licence, .*, got 'license'",
        ),
        ({"licence": " "}, "licence must be a text of 1 to 2,000 letters, got ' '"),
        ({"licence": 3}, "licence must be a text of 1 to 2,000 letters, got 3"),
        ({"licence": "x" * (LONGEST + 1)}, "got 2,001 letters"),
        (3, "about: must be a TOML or JSON file, or texts by name, got int"),
        ('licence = "CC0', r"a\.toml: cannot be read as TOML"),
        ('[about]\nlicence = "CC0"', "has the fields .*, got 'about'"),
        (b"\xff\xfe", "cannot be read as TOML"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_sheet_is_one_line(tmp_path: Path, about: object, words: str) -> None:
    given = about
    if about is None or isinstance(about, str | bytes):
        given = tmp_path / "a.toml"
        if about is not None:
            given.write_bytes(about.encode() if isinstance(about, str) else about)
    with pytest.raises(InputError, match=words):
        sheet(given)  # type: ignore[arg-type]


def test_a_json_file_must_be_one(tmp_path: Path) -> None:
    for text, words in (("[1]", "texts by name"), ("[" * 50_000, "cannot be read as JSON"), ("{", "as JSON")):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(InputError, match=words):
            sheet(tmp_path / "a.json")


def test_a_pack_keeps_it_whatever_its_data_and_packs_without_it_load(tmp_path: Path) -> None:
    made = {name: build.pack("stylised", "identities=20,images=2", tmp_path / name, size=16, about=about)
            for name, about in (("told", TOLD), ("untold", None))}  # fmt: skip
    assert Pack.open(tmp_path / "told").meta["about"] == TOLD
    assert "about" not in Pack.open(tmp_path / "untold").meta
    assert made["told"].fingerprint == made["untold"].fingerprint
    told = json.loads((tmp_path / "told" / "pack.json").read_text())
    (tmp_path / "told" / "pack.json").write_text(json.dumps(told | {"about": {"owner": "me"}}))
    with pytest.raises(InputError, match=r"pack\.json: damaged \(a data sheet has the fields"):
        Pack.open(tmp_path / "told")
    with pytest.raises(InputError, match="got 'owner'"):
        build.pack("stylised", "identities=20,images=2", tmp_path / "new", size=16, about={"owner": "me"})
    assert not (tmp_path / "new").exists()


def test_it_goes_from_the_pack_to_findings_page_and_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attacked_by(monkeypatch, "logistic regression")
    rng = np.random.default_rng(0)
    gender = np.arange(120) % 2
    x = rng.normal(size=(120, 4)) + gender[:, None]
    pack = Pack.from_arrays(x, {"gender": gender}, about=TOLD)
    subject = veil.Subject(name="R", vectors=x.astype(np.float32))
    audit(pack, [subject], tmp_path, private=["gender"], utility=[], effort="quick", jobs=1)
    assert findings.read(tmp_path)["data"]["about"] == TOLD
    text = page.render(document.read(tmp_path), tmp_path)
    assert text.count("drawn by a computer") == 2  # Data, and To sign
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | a@b.c" in text
    assert "<script>alert" not in text
    assert r"- Contact (declared): &lt;script&gt;alert(1)&lt;/script&gt; \| a@b.c" in card.render(
        document.read(tmp_path)
    )
    whole = findings.read(tmp_path)
    whole["data"]["about"] = {"owner": "me"}
    (tmp_path / "findings.json").write_text(json.dumps(whole))
    with pytest.raises(InputError, match=r"data\.about: a data sheet has the fields"):
        findings.read(tmp_path)


def test_every_field_is_documented() -> None:
    said = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    section = said.partition("## A data sheet")[2].partition("\n## ")[0]
    assert [name for name in FIELDS if f"`{name}`" not in section] == []
