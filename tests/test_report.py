"""The report: what the page says, what it refuses, and that it needs nothing but its own bytes."""

from __future__ import annotations

import base64
import cProfile
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from veil.errors import InputError
from veil.report import card, labels, plots
from veil.report.document import read
from veil.report.page import render, write
from veil.report.words import interval, number, share

ATTACKERS = ("logistic", "knn", "svm", "boosted trees", "mlp", "cnn")
MATCHERS = ("cosine", "siamese")
RELEASES = (
    # name, role, worst attack, matching AUC
    ("Input", "input", 0.910, 0.941),
    ("Random", "baseline", 0.503, 0.502),
    ("AIA\\T", "baseline", 0.862, 0.931),
    ("LEACE", "baseline", 0.838, 0.936),
    ("AIA", "method", 0.702, 0.921),
    ("AIA deep", "method", 0.612, 0.914),
)

Json = dict[str, Any]


def finding(code: str, release: str, target: str, attacker: str, value: float | None, **more: object) -> Json:
    """One finding with an interval of 2.2 points to either side."""
    ends = (None, None) if value is None else (round(value - 0.022, 4), round(value + 0.022, 4))
    base = {
        "code": code,
        "release": release,
        "target": target,
        "attacker": attacker,
        "role": "attack",
        "value": value,
        "low": ends[0],
        "high": ends[1],
        "level": 0.95,
        "n": 3363,
        "chance": 0.5,
        "worst": False,
        "status": "ok",
        "note": "",
    }
    return {**base, **more}


def build(
    *,
    releases: Sequence[tuple[str, str, float, float]] = RELEASES,
    private: Mapping[str, Sequence[str]] | None = None,
    utility: str = "identity",
) -> Json:
    """A realistic findings.json: attackers, matchers or probes, same-gender pairs, controls, two odd statuses."""
    private = private or {"gender": ("female", "male")}
    rng = np.random.default_rng(0)
    found = []
    for name, _, attack, use in releases:
        for i, target in enumerate(private):
            chance = 1 / len(private[target])
            worst = chance + (attack - 0.5) * 2 * (1 - chance) * (1 - 0.15 * i)
            for attacker in ATTACKERS:
                value = worst if attacker == "mlp" else chance + (worst - chance) * float(rng.uniform(0.4, 0.98))
                extra: Json = {"chance": chance, "worst": attacker == "mlp"}
                if attacker == "cnn" and name != "Input":
                    extra |= {"status": "not_applicable", "note": "a vector has no rows and columns"}
                elif attacker == "svm" and name == "LEACE":
                    extra |= {"status": "did_not_converge", "note": "the solver stopped at 10,000 iterations"}
                empty = "status" in extra
                found.append(
                    finding(
                        "attribute.balanced_accuracy",
                        name,
                        target,
                        attacker,
                        None if empty else round(value, 4),
                        **extra,
                    )
                )
                found.append(
                    finding(
                        "attribute.auc",
                        name,
                        target,
                        attacker,
                        None if empty else round(0.5 + (value - chance) * 0.9, 4),
                        **{**extra, "chance": 0.5},
                    )
                )
            gain = (worst - chance) / ((RELEASES[0][2] - 0.5) * 2 * (1 - chance) * (1 - 0.15 * i))
            if name != "Input":
                found.append(
                    finding("attribute.normalised_gain", name, target, "mlp", round(gain, 4), chance=0.0, worst=True)
                )
            if name in ("Input", "AIA deep"):
                found.append(
                    finding(
                        "attribute.balanced_accuracy",
                        name,
                        target,
                        "shuffled labels (mlp)",
                        chance + 0.004,
                        role="control",
                        chance=chance,
                    )
                )
        found.append(
            finding(
                "attribute.balanced_accuracy",
                name,
                next(iter(private)),
                "majority",
                0.5,
                low=0.5,
                high=0.5,
                role="control",
                note="always male: plain accuracy 0.774",
            )
        )
        found += _uses(name, use, utility, next(iter(private)))
    sizes = {"protect": 5955, "attack": 2646, "calibrate": 1323, "test": 3309}
    return {
        "schema": 1,
        "veil": "0.1.0",
        "seed": 0,
        "created": "2026-11-20",
        "command": "veil audit lfw.pack out --private gender --utility identity --release aia.release --release "
        "aia-deep.release",
        "data": {
            "layout": "lfw",
            "kind": "images",
            "shape": [64, 64],
            "n": 13233,
            "identities": 5749,
            "fingerprint": "ab12cd34ef56",
            "splits": {name: {"n": n, "identities": n // 2} for name, n in sizes.items()},
            "labels": {
                **{
                    target: {
                        "classes": list(names),
                        "counts": {s: [n // len(names)] * len(names) for s, n in sizes.items()},
                    }
                    for target, names in private.items()
                },
                "identity": {"classes": [f"Person {i}" for i in range(5749)], "counts": {}},
            },
            "private": list(private),
            "utility": [utility],
            "skipped": 3,
            "notes": ["Labels were read from labels.csv."],
            "attack_on": ["attack"],
        },
        "releases": [
            {
                "name": name,
                "method": "aia" if role == "method" else name.lower(),
                "preset": "deep",
                "k": 128,
                "seed": 0,
                "role": role,
                "config": {"alpha": 0.5, "adversary": {"depth": 3, "hidden": [256, 256]}},
                "note": "",
            }
            for name, role, _, _ in releases
        ],
        "findings": found,
        "pictures": [
            {
                "file": "pictures/reconstructions.png",
                "title": "Reconstructions beside originals",
                "caption": "Top: originals. Below: what a fresh decoder makes of each release.",
            }
        ],
        "curves": [
            {"file": "curves/aia-deep.parquet", "release": "AIA deep"},
            {"file": "curves/aia.parquet", "release": "AIA"},
        ],
        "maps": [],
    }


def _uses(name: str, use: float, utility: str, private: str) -> list[Json]:
    if utility != "identity":
        codes = {"utility.balanced_accuracy": use, "utility.mcc": 2 * use - 1, "utility.auc": min(use + 0.03, 0.99)}
        return [
            finding(
                code,
                name,
                utility,
                "logistic",
                round(value, 4),
                role="utility",
                worst=True,
                chance=0.0 if code == "utility.mcc" else 0.5,
            )
            for code, value in codes.items()
        ]
    found = []
    for target, loss in (("identity", 0.0), (f"identity|same {private}", 0.02)):
        for matcher, less in zip(MATCHERS, (0.015, 0.0), strict=True):
            auc = max(use - loss - less, 0.5)
            codes = {
                "verification.auc": auc,
                "verification.eer": 1 - auc + 0.07,
                "verification.accuracy": auc - 0.06,
                "verification.tar_at_far_0.01": max(2 * auc - 1.35, 0.01),
                "verification.tar_at_far_0.001": max(2 * auc - 1.6, 0.001),
            }
            found += [
                finding(
                    code,
                    name,
                    target,
                    matcher,
                    round(value, 4),
                    role="utility",
                    worst=matcher == "siamese",
                    low=round(value - 0.009, 4),
                    high=round(value + 0.009, 4),
                    chance=float(code.partition("_far_")[2] or 0.5),
                )
                for code, value in codes.items()
            ]
    return found


def place(out: Path, document: object, *, extras: bool = True) -> Path:
    """Write ``document`` into ``out`` with the picture and the curves that it names."""
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    (out / "curves").mkdir(exist_ok=True)
    (out / "findings.json").write_text(json.dumps(document), encoding="utf-8")
    if extras:
        rng = np.random.default_rng(1)
        faces = np.linspace(30, 220, 64)[None, :, None, None] + rng.normal(0, 20, (3, 1, 8, 1))
        sheet = np.broadcast_to(faces, (3, 64, 8, 64)).reshape(192, 512).clip(0, 255).astype(np.uint8)
        Image.fromarray(sheet).save(out / "pictures/reconstructions.png")
        for name in ("aia-deep", "aia"):
            pq.write_table(_training(), out / f"curves/{name}.parquet")
    return out


def _training() -> pa.Table:
    rng = np.random.default_rng(2)
    columns: dict[str, list[Any]] = {"step": [], "stage": [], "player": [], "loss": []}
    stages = {
        "1 reconstruct": {"auto-encoder": (0.4, 0.02)},
        "2 protect": {
            "encoder": (4.0, 0.8),
            "adversary gender": (0.5, 0.68),
            "siamese": (1.4, 0.7),
            "decoder": (0.06, 0.09),
        },
    }
    for stage, players in stages.items():
        for player, (first, last) in players.items():
            steps = np.arange(0, 2000, 2)
            loss = (last + (first - last) * np.exp(-steps / 300)) * np.exp(rng.normal(0, 0.08, len(steps)))
            columns["step"] += steps.tolist()
            columns["stage"] += [stage] * len(steps)
            columns["player"] += [player] * len(steps)
            columns["loss"] += loss.tolist()
    return pa.table(
        {
            "step": pa.array(columns["step"], pa.int64()),
            "stage": columns["stage"],
            "player": columns["player"],
            "loss": columns["loss"],
        }
    )


class Page(HTMLParser):
    """What the tests ask of a page: its text, by section, its tags and its figures' JSON."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.scripts: list[str] = []
        self._section, self._skip, self._open = "", "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._skip = tag
            self.scripts.append("")
        if tag == "section":
            self._section = dict(attrs).get("id") or dict(attrs).get("class") or ""
        if tag in ("td", "th", "p", "li", "h2", "h3", "small", "dt", "dd", "pre", "summary"):
            self._add(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._skip:
            self._skip = ""
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._skip:
            self.scripts[-1] += data
        else:
            self._add(data)

    def _add(self, data: str) -> None:
        self.sections[self._section] = self.sections.get(self._section, "") + data

    def text(self, section: str) -> str:
        """The section's text with plain blanks only."""
        return " ".join(self.sections.get(section, "").split())

    def ids(self) -> list[str]:
        return [str(attrs["id"]) for _, attrs in self.tags if "id" in attrs]

    def figures(self) -> Json:
        raw = next(s for s in self.scripts if s.startswith('{"dark"'))
        return dict(json.loads(raw)["figures"])


def page(out: Path, document: object, *, extras: bool = True) -> Page:
    return Page(write(place(out, document, extras=extras)).read_text(encoding="utf-8"))


def shuffle_control(document: Json, release: str, **values: float | None) -> Json:
    """Change the shuffled-label control on ``release``."""
    for f in document["findings"]:
        if f["role"] == "control" and f["release"] == release and f["attacker"].startswith("shuffled"):
            f.update(values)
    return document


def only(document: Json, release: str, code: str, role: str = "attack") -> list[Json]:
    return [f for f in document["findings"] if (f["release"], f["code"], f["role"]) == (release, code, role)]


# --- what the page says


def test_the_verdict_comes_first_and_in_words(tmp_path: Path) -> None:
    got = page(tmp_path, build())
    hidden = (
        "AIA deep To hide: gender Of 100 people, as many of each class, the worst tested attack names 61 rightly from "
        "one release. Guessing gets 50; without protection it is 91. {} the worst tested attack on gender (mlp) "
        "reaches 61.2 % balanced accuracy (95 % interval 59.0–63.4 %; chance 50 %); on the unprotected input it "
        "reaches 91.0 %."
    )
    kept = (
        "To keep: face matching Of 100 choices between a pair of one person and a pair of two, a matcher makes 91 "
        "rightly. Guessing gets 50; without protection it is 94. {} Face matching keeps an AUC of .914 (95 % interval "
        ".905–.923), input .941."
    )
    scale = "0 50 100"
    assert f"{hidden.format(scale)} {kept.format(scale)}" in got.text("verdict")
    assert "Controls: 4 of 4 passed." in got.text("verdict")
    assert [i for i in got.ids() if i in got.sections] == [
        "verdict",
        "plane",
        "threats",
        "releases",
        "attackers",
        "controls",
        "pictures",
        "curves",
        "data",
        "reproduce",
        "sign",
        "glossary",
    ]
    assert [name for name in got.sections if "alarm" in name] == ["alarm lost"]  # an attacker of LEACE


def test_every_threat_model_has_the_worst_attack_or_why_there_is_none(tmp_path: Path) -> None:
    document = build()
    missing = {"value": None, "low": None, "high": None, "status": "not_applicable", "note": "it has no likeness"}
    transfer = {**missing, "code": "attribute.transfer_balanced_accuracy"}
    document["findings"] += [{**f, **transfer} for f in only(document, "AIA deep", "attribute.balanced_accuracy")]
    got = page(tmp_path, document).text("threats")
    for code in ("A0", "A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8"):
        assert code in got
    worst = "gender: 61.2 % balanced accuracy (59.0–63.4 %) mlp"
    assert worst in got.partition("A2")[0]
    assert "not tried: it has no likeness" in got.partition("A1")[0]
    assert "not tried: not asked for: --attack-on protect,attack" in got
    assert "A7 asks who was in the protector’s training data not tried: this audit did not try it" in got
    document["data"]["attack_on"] = ["protect", "attack"]
    stronger = page(tmp_path, document).text("threats")
    assert "A1 has labelled releases of other people not tried: attackers had more: A2" in stronger
    assert worst in stronger.partition("A2 ")[2]


def test_what_is_signed_says_what_it_is_about(tmp_path: Path) -> None:
    document = build()
    document["made"] = {"at": "2026-11-20T10:00:00+00:00", "effort": "strong", "level": 0.95, "by": "A. <b>Auditor</b>",
                        "system": "Linux", "versions": {"python": "3.11.7", "torch": "2.9.0"}}  # fmt: skip
    document["releases"][-1]["fingerprint"] = "ab" * 32
    got = page(tmp_path, document)
    signed = got.text("sign")
    asked = ("to hide gender; to keep identity", "ab12cd34ef56", "ab" * 32, "by A. <b>Auditor</b>", "effort strong")
    for words in (*asked, "torch 2.9.0", "A7 (asks who was in", "Signature"):
        assert words in signed, words
    earlier = page(tmp_path / "earlier", build()).text("sign")
    assert "Audited 2026-11-20, seed 0 With Veil 0.1.0 Not tried" in earlier


def test_a_card_for_each_release_that_was_asked_for(tmp_path: Path) -> None:
    document = build()
    document["releases"][-1] |= {"fingerprint": "ab" * 32, "note": "a | pipe, <b>bold</b> and `code`"}
    text = card.write(place(tmp_path, document)).read_text("utf-8")
    assert re.findall("^# .*$", text, re.M) == ["# Model card: AIA", "# Model card: AIA deep"]
    deep = text.partition("# Model card: AIA deep")[2]
    for words in (
        "A release of Veil's method aia, preset deep, 128 values each.\n- SHA-256", "ab" * 32,
        "To keep identity; to hide gender.",
        "The worst tested attack on gender (mlp) reaches 61.2 % balanced accuracy",
        "| A1: has labelled releases of other people | gender: 61.2 % balanced accuracy (59.0–63.4 %), mlp |",
        "| A7: asks who was in the protector’s training data | not tried: this audit did not try it |",
        "- gender: female 1,654, male 1,654 in test", "adversary.depth: 3",
        "Audited 2026-11-20, seed 0, by Veil 0.1.0.",
        r"a \| pipe, &lt;b&gt;bold&lt;/b&gt; and \`code\`",
    ):  # fmt: skip
        assert words in deep, words
    assert all(line.count(" |") == 2 for line in text.splitlines() if line.startswith("| A"))
    assert card.render(read(tmp_path)) == text


def test_a_card_says_which_controls_failed(tmp_path: Path) -> None:
    document = shuffle_control(build(), "AIA deep", value=0.6, low=0.58, high=0.62)
    text = card.render(read(place(tmp_path, document)))
    assert "Controls failed, and figures mean nothing until it is known why" in text
    assert "is off chance" in text


def test_plain_words_are_for_figures_that_have_them_and_can_be_trusted(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    seven = page(tmp_path / "a", build(private={"expression": tuple("abcdefg")}))
    # 1/7 + 2 * (0.612 - 0.5) * 6/7 = 33.5 of 100; the input 1/7 + 0.82 * 6/7 = 84.6
    assert "names 33 rightly from one release. Guessing gets 14; without protection it is 85." in seven.text("verdict")
    starts = [str(a["style"]) for tag, a in seven.tags if tag == "i" and a["class"] == "release" and "style" in a]
    assert starts == ["left:48.9%", "left:92.1%", "left:33.5%", "left:91.4%"]
    smile = build(utility="smile")
    smile["findings"].append(
        finding("certificate.balanced_accuracy", "AIA deep", "gender", "any", 0.63, role="bound", low=0.6, high=0.6601)
    )
    verdict = page(tmp_path / "b", smile).text("verdict")
    assert "To keep: recognising smile Of 100 people, as many of each class, 91 are recognised rightly." in verdict
    assert "Certified: from one release no attack of any kind names more than 67." in verdict  # rounded up
    broken = page(tmp_path / "c", shuffle_control(build(), "Input", value=0.44, low=0.42, high=0.46)).text("verdict")
    assert "names" not in broken
    assert broken.count("a matcher makes") == 2  # which no control speaks against
    assert "Controls:" not in broken


def test_people_on_a_map(tmp_path: Path) -> None:
    document = build()
    document["findings"].append(finding("inversion.ssim", "AIA deep", "image", "strong decoder", 0.4))
    document["maps"] = [{"release": "AIA", "x": [0, 1.5, 2], "y": [0, 1, 2], "person": [0, 0, 1]}]
    got = page(tmp_path, document)
    assert "Where people lie" in got.text("inversion")
    assert "map-1" in got.ids()
    drawn = json.loads(got.scripts[-2])["figures"]["map-1"]
    assert "person 2" in json.dumps(drawn)


def test_no_release_is_called_private(tmp_path: Path) -> None:
    document = build(releases=[*RELEASES, ("Perfect", "method", 0.5, 0.94)])
    text = page(tmp_path, document).text("verdict").lower()
    assert "perfect to hide: gender" in text
    assert not re.search(r"\b(private|safe|anonymous|secure)\b", text)


def test_an_attacker_that_beats_the_picked_one_on_test_data_is_named(tmp_path: Path) -> None:
    document = build()
    svm = next(f for f in only(document, "AIA deep", "attribute.balanced_accuracy") if f["attacker"] == "svm")
    svm["value"] = 0.629
    text = page(tmp_path, document).text("verdict")
    assert "(mlp) reaches 61.2 %" in text
    assert "On the test data another attacker measures higher still (svm, 62.9 %)." in text


def test_a_release_without_any_figure_is_not_passed_over(tmp_path: Path) -> None:
    document = build()
    for f in only(document, "AIA deep", "attribute.balanced_accuracy"):
        f.update(value=None, low=None, high=None, status="did_not_converge", note="why", worst=False)
    got = page(tmp_path, document)
    assert "AIA deep To hide: gender no attack on gender gave a figure" in got.text("verdict")
    assert "Not drawn, for want of a figure: AIA deep." in got.text("plane")


def test_the_verdict_names_attackers_that_did_not_converge(tmp_path: Path) -> None:
    document = build()
    for f in only(document, "AIA deep", "attribute.balanced_accuracy"):
        if f["attacker"] in ("svm", "cnn"):
            f.update(value=None, low=None, high=None, status="did_not_converge", note="why", worst=False)
    text = page(tmp_path, document).text("verdict")
    assert text.count("svm and cnn did not converge: what they would find is not known.") == 1


def test_distances_without_releases_and_their_shades(tmp_path: Path) -> None:
    """A lower distance is the stronger attack; each release has its own decoder that learns nothing."""
    document = build()
    for release, value, chance in (("AIA", 0.1, 0.4), ("AIA deep", 0.6, 0.5)):
        for attacker in ("weak decoder", "strong decoder"):
            more = {"chance": chance, "worst": attacker == "weak decoder"}
            document["findings"].append(
                finding("inversion.perceptual", release, "image", attacker, value, low=value, high=value, **more)
            )
    got = page(tmp_path, document)
    heats = [float(str(a["style"]).split(":")[1]) for tag, a in got.tags if tag == "td" and "style" in a]
    assert heats.count(0.75) == 2  # (0.4 - 0.1) / 0.4; nothing of 0.6
    assert ".400 \N{EN DASH} .500" in got.text("inversion")


def test_a_bound_that_no_other_table_shows_is_among_further_figures(tmp_path: Path) -> None:
    document = build()
    more = {"role": "bound", "low": 0.7, "high": 0.7}
    document["findings"] += [
        finding("certificate.balanced_accuracy", "AIA", "gender", "any", 0.7, **more),
        finding("certificate.accuracy", "AIA", "gender", "any", 0.7, **more),
        finding("certificate.balanced_accuracy", "AIA deep", "gender", "any", None, role="bound",
                status="not_applicable", note="because of this"),
    ]  # fmt: skip
    got = page(tmp_path, document).text("others")
    assert "AIA certificate.accuracy gender any 70.0 %" in got
    assert "because of this" in got


@pytest.mark.parametrize(
    ("low", "high", "value"),
    [(0.54, 0.582, 0.561), (0.42, 0.46, 0.44)],
)
def test_shuffled_labels_off_chance_raise_the_alarm(tmp_path: Path, low: float, high: float, value: float) -> None:
    got = page(tmp_path, shuffle_control(build(), "Input", value=value, low=low, high=high))
    assert "controls failed" in got.text("alarm failed")
    assert "gender mean nothing" in got.text("alarm failed")
    assert "1 of 2 shuffled-label controls failed" in got.text("alarm failed")
    assert got.text("verdict").count("A control failed: this figure means nothing.") == 2  # both methods, gender only


def test_an_input_that_cannot_be_attacked_raises_the_alarm(tmp_path: Path) -> None:
    document = build(releases=[("Input", "input", 0.515, 0.941), *RELEASES[1:]])
    got = page(tmp_path, document)
    assert "the attack on gender is not above chance" in got.text("alarm failed")
    # Just above: the interval is 2.2 points to either side, so 52.3 % clears chance and 52.2 % does not.
    (tmp_path / "b").mkdir()
    above = page(tmp_path / "b", build(releases=[("Input", "input", 0.523, 0.941), *RELEASES[1:]]))
    assert "alarm failed" not in above.sections


def test_the_chance_of_a_control_is_written_as_its_figure(tmp_path: Path) -> None:
    document = build()
    for f in document["findings"]:
        if f["attacker"].startswith("shuffled"):
            f.update(code="attribute.auc", value=0.494, low=0.409, high=0.586, chance=0.5)
    got = page(tmp_path, document)
    assert ".494 .409\N{EN DASH}.586 .500 interval covers chance passed" in got.text("controls")
    assert "not above" not in got.text("controls")


def test_missing_controls_are_said_to_be_missing(tmp_path: Path) -> None:
    document = build()
    document["findings"] = [f for f in document["findings"] if f["role"] != "control"]
    got = page(tmp_path, document)
    assert "No attack on shuffled labels of gender was measured." in got.text("alarm")
    assert "alarm failed" not in got.sections
    document["releases"] = document["releases"][1:]
    document["findings"] = [f for f in document["findings"] if f["release"] != "Input"]
    (tmp_path / "b").mkdir()
    assert "The unprotected input was not audited" in page(tmp_path / "b", document).text("alarm")


def test_tables_show_every_attacker_and_why_some_have_no_figure(tmp_path: Path) -> None:
    got = page(tmp_path, build())
    text = got.text("attackers")
    for attacker in ATTACKERS:
        assert attacker in text
    for words in (
        "did not converge",
        "the solver stopped at 10,000 iterations",
        "not applicable",
        "a vector has no rows and columns",
    ):
        assert words in text
    assert text.count("91.0 % worst") == 1
    heats = [float(str(a["style"]).split(":")[1]) for tag, a in got.tags if tag == "td" and "style" in a]
    assert max(heats) == pytest.approx(0.82)  # (0.91 - 0.5) / 0.5
    assert "Attacks on gender: balanced accuracy (n = 3,363)" in text
    assert "always male: plain accuracy 0.774" in got.text("controls")
    assert "50.0–50.0" not in got.text("controls")  # exactly chance: nothing was estimated
    releases = got.text("releases")
    assert "Input unprotected 91.0 % mlp 93.2 % reference" in releases
    assert "AIA deep 61.2 % mlp 63.4 % 27.3 %" in releases  # worst, attacker, upper bound, gain
    for heading in ("AUC", "EER", "TAR at FAR 1 %", "TAR at FAR 0.1 %", "Accuracy", "Face matching (same gender)"):
        assert heading in releases


def test_a_gain_that_does_not_apply_says_so(tmp_path: Path) -> None:
    document = build()
    (gain,) = only(document, "AIA deep", "attribute.normalised_gain")
    gain.update(value=None, low=None, high=None, status="not_applicable", note="nothing was there to hide")
    assert "AIA deep 61.2 % mlp 63.4 % not applicable" in page(tmp_path, document).text("releases")


def test_a_label_may_be_the_use(tmp_path: Path) -> None:
    got = page(tmp_path, build(utility="smile"))
    assert "Recognising smile keeps 91.4 % balanced accuracy (95 % interval 89.2–93.6 %), input 94.1 %." in got.text(
        "verdict"
    )
    assert "MCC" in got.text("releases")
    assert ".828" in got.text("releases")


def test_a_control_that_broke_off_is_missing(tmp_path: Path) -> None:
    document = shuffle_control(build(), "AIA deep", value=None, low=None, high=None)
    for f in document["findings"]:
        if f["role"] == "control" and f["value"] is None:
            f.update(status="did_not_converge", note="LinAlgError: Singular matrix")
    got = page(tmp_path, document)
    alarms = got.text("alarm")
    assert "control for gender on AIA deep has no figure (LinAlgError: Singular matrix)" in alarms


def test_a_certificate_is_told_apart_from_attacks(tmp_path: Path) -> None:
    document = build()
    document["findings"].append(
        finding("certificate.balanced_accuracy", "AIA deep", "gender", "any", 0.63, role="bound", low=0.6, high=0.66)
    )
    got = page(tmp_path, document)
    assert (
        "Certified: from one release of a person, no attacker of any kind exceeds 66.0 % on fresh data of the same "
        "population (95 % confidence)." in got.text("verdict")
    )
    assert "Certified bound" in got.text("releases")
    assert "Certified bound" in got.text("glossary")


def test_pools_and_linkage_have_a_table_and_a_pool_that_gets_further_is_in_the_verdict(tmp_path: Path) -> None:
    document = build()
    together = "attribute.pooled_balanced_accuracy"
    document["findings"] += [
        finding(together, "AIA deep", "gender", "MLPs", 0.68, worst=True),
        finding(together, "AIA", "gender", "MLPs", 0.69, worst=True),
        finding("linkability.rank1", "AIA deep", "identity", "two towers", 0.412, worst=True, chance=0.001),
    ]
    got = page(tmp_path, document)
    verdict = got.text("verdict")
    # AIA's worst single attack gets further.
    assert verdict.count("From the mean of several releases of one person an attack (") == 1
    assert verdict.count("From the mean of several releases of one person an attack names 68.") == 1
    assert "person an attack (MLPs) reaches 68.0 % (95 % interval" in verdict
    table = got.text("together")
    assert "Own original found first" in table
    assert "41.2 %" in table
    assert "68.0 %" in table
    assert "What several releases of one person" not in got.text("glossary")


def test_near_duplicates_that_get_further_are_in_the_verdict(tmp_path: Path) -> None:
    document = build()
    repeated = "attribute.repeated_balanced_accuracy"
    why = "it draws nothing"
    document["findings"] += [
        finding(repeated, "AIA deep", "gender", "MLPs", 0.68, worst=True),
        finding(repeated, "AIA", "gender", "none", None, status="not_applicable", note=why),
    ]
    got = page(tmp_path, document)
    mean = "From the mean of the releases of 32 near-duplicates of one input an attack"
    assert [got.text("verdict").count(f"{mean} {words}") for words in ("names 68.", "(MLPs) reaches 68.0 %")] == [1, 1]
    assert "Mean over near-duplicates" in got.text("together")


def test_what_applies_to_no_release_has_no_column_but_a_reason(tmp_path: Path) -> None:
    document = build()
    pooled = "attribute.pooled_balanced_accuracy"
    more: Json = {"status": "not_applicable", "note": "releases are images"}
    document["findings"].append(finding(pooled, "AIA deep", "gender", "none", None, **more))
    got = page(tmp_path, document)
    assert "together" not in got.sections
    assert f"{pooled} gender none not applicable releases are images" in got.text("others")
    document["findings"].append(finding(pooled, "AIA", "gender", "MLPs", 0.69, worst=True))
    (tmp_path / "b").mkdir()
    table = page(tmp_path / "b", document).text("together")
    assert "69.0 %" in table
    assert "AIA deep not applicable" in table


def _decides_nothing(document: Json, release: str, *, prefix: str = "attribute.") -> Json:
    """The picked attacker's decision has no figure; its AUC is .478, the others stay."""
    for f in document["findings"]:
        if f["release"] == release and f["role"] != "control" and f["attacker"] == "mlp":
            if f["code"] in (f"{prefix}balanced_accuracy", "attribute.normalised_gain"):
                f.update(value=None, low=None, high=None, status="not_applicable", note="names one class for everybody")
            elif f["code"] == f"{prefix}auc":
                f.update(value=0.478, low=0.33, high=0.62, chance=0.5)
    return document


def test_a_decision_that_tells_nothing_gives_way_to_the_auc(tmp_path: Path) -> None:
    """Known: nothing of a "50.0 % (50.0-50.0 %)", nor of the figure of an attacker that was not picked."""
    got = page(tmp_path, _decides_nothing(build(), "AIA deep"))
    verdict = got.text("verdict")
    assert (
        "AIA deep To hide: gender the worst tested attack on gender (mlp) reaches an AUC of .478 (95 % interval "
        ".330–.620; chance .500); on the unprotected input it reaches .869. At its threshold it names one class for "
        "everybody" in verdict
    )
    assert "AIA deep .478 AUC mlp .620 AUC not applicable" in got.text("releases")
    attackers = got.text("attackers")
    assert "not applicable worst" in attackers  # it is still the picked one
    assert ".478 worst" in attackers
    assert "names one class for everybody" in attackers
    assert "Not drawn, for want of a figure: AIA deep." in got.text("plane")


def test_a_probe_that_tells_nothing_gives_way_to_its_auc(tmp_path: Path) -> None:
    document = build(utility="smile")
    for f in only(document, "AIA deep", "utility.balanced_accuracy", "utility"):
        f.update(value=None, low=None, high=None, status="not_applicable", note="names one class for everybody")
    got = page(tmp_path, document)
    assert "Recognising smile keeps an AUC of .944 (95 % interval" in got.text("verdict")
    assert "Not drawn, for want of a figure: AIA deep." in got.text("plane")


def test_what_somebody_asked_for_has_a_verdict_and_is_still_a_reference(tmp_path: Path) -> None:
    document = build(releases=[*RELEASES[:1], *RELEASES[3:4]]) | {"curves": []}  # the input, and LEACE
    assert "No protected release was audited" in page(tmp_path, document).text("verdict")
    document["releases"][1]["named"] = False
    assert "No protected release was audited" in page(tmp_path, document).text("verdict")
    document["releases"][1]["named"] = True
    got = page(tmp_path, document)
    said = "LEACE (a reference, which protects nothing or only in part) To hide: gender Of 100 people"
    assert said in got.text("verdict")
    assert "LEACE baseline" in got.text("releases")


def test_rows_that_count_as_people_are_said_to(tmp_path: Path) -> None:
    document = build()
    document["data"]["identities"] = None
    document["data"]["utility"] = []
    got = page(tmp_path, document)
    verdict = got.text("verdict")
    assert "61.2 % balanced accuracy (95 % interval 59.0–63.4 %, each row a person; chance 50 %)" in verdict
    assert "The data do not say who is seen, so each row counts as a person." in verdict
    assert "was not measured: no use was named, and who is seen, the use by default, is not known" in verdict
    (tmp_path / "b").mkdir()
    verdict = page(tmp_path / "b", build()).text("verdict")
    assert "row" not in verdict
    assert "not measured" not in verdict


def test_attempts_that_broke_off_are_listed(tmp_path: Path) -> None:
    document = build()
    more: Json = {"status": "did_not_converge", "note": "LinAlgError: Singular matrix"}
    document["findings"].append(finding("linkability.auc", "AIA", "identity", "none", None, **more))
    lost = page(tmp_path, document).text("alarm lost")
    assert "AIA: linkability.auc of identity (LinAlgError: Singular matrix)" in lost
    assert "LEACE: svm, attribute.balanced_accuracy of gender (the solver stopped at 10,000 iterations)" in lost


def test_figures_of_labels_that_nobody_asked_for_are_shown_too(tmp_path: Path) -> None:
    document = build()
    document["findings"].append(finding("utility.mcc", "AIA deep", "mood", "MLPs", 0.42, role="utility"))
    assert "utility.mcc mood MLPs .420" in page(tmp_path, document).text("others")


def test_data_and_the_way_to_reproduce_are_told(tmp_path: Path) -> None:
    got = page(tmp_path, build())
    data = got.text("data")
    for words in ("ab12cd34ef56", "64 × 64", "calibrate 1,323 661", "female 2,977 1,323 661 1,654", "5,749 classes",
                  "Notes Labels were read from labels.csv."):  # fmt: skip
        assert words in data
    reproduce = got.text("reproduce")
    for words in ("veil audit lfw.pack out --private gender", "2026-11-20", "adversary.hidden [256, 256]"):
        assert words in reproduce


# --- self-contained, escaped, the same each time


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    got = page(tmp_path, build())
    assert not [tag for tag, _ in got.tags if tag in ("link", "iframe", "object", "embed", "base", "form")]
    targets = [str(a[key]) for _, a in got.tags for key in ("src", "href", "srcset", "action", "poster") if key in a]
    assert targets
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in targets)
    policy = next(a["content"] for _, a in got.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy)
    assert not re.search(r"@import|url\(", "".join(s for s in got.scripts if "--paper" in s))
    assert sum("Plotly, Inc" in s for s in got.scripts) == 1
    source = next(str(a["src"]) for tag, a in got.tags if tag == "img")
    assert base64.b64decode(source.split(",")[1]) == (tmp_path / "pictures/reconstructions.png").read_bytes()


def test_every_text_is_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=http://a.example/x onerror=alert(2)>"
    document = build(releases=[*RELEASES, (evil, "method", 0.6, 0.9)], private={f"gender{evil}": ("a", "b")})
    for key in ("veil", "created", "command"):
        document[key] = evil
    document["data"] |= {"layout": evil, "fingerprint": evil, "kind": evil}
    document["releases"][0] |= {"method": evil, "preset": evil, "note": evil, "config": {evil: evil}}
    for f in document["findings"]:
        f["note"] = evil
        f["attacker"] = f["attacker"] + evil
    document["pictures"] += [{"file": evil, "title": evil, "caption": evil}]
    document["curves"] += [{"file": evil, "release": evil}, {"file": "curves/evil.parquet", "release": evil}]
    table = _training()
    names = pa.array([evil] * len(table))
    extras = place(tmp_path, document)
    pq.write_table(table.set_column(1, "stage", names).set_column(2, "player", names), extras / "curves/evil.parquet")
    got = Page(write(tmp_path).read_text(encoding="utf-8"))
    assert [tag for tag, _ in got.tags].count("script") == 3  # plotly, the figures, the drawing
    assert [tag for tag, _ in got.tags].count("img") == 1
    assert not [a for _, a in got.tags if "onerror" in a]
    assert "alert(1)" in got.text("verdict")
    annotations = got.figures()["plane-1"]["variants"][0]["layout"]["annotations"]
    assert not [a for a in annotations if "<script" in a["text"]]


def test_the_same_findings_give_the_same_bytes(tmp_path: Path) -> None:
    document = build()
    first = write(place(tmp_path / "a", document)).read_bytes()
    assert write(place(tmp_path / "b", document)).read_bytes() == first
    assert write(tmp_path / "a").read_bytes() == first
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["curves", "findings.json", "pictures", "report.html"]
    ids = Page(first.decode()).ids()
    assert len(ids) == len(set(ids))


def test_torch_is_not_imported() -> None:
    code = "import sys, veil.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0


# --- faults


def test_missing_and_broken_files_are_named_in_the_page(tmp_path: Path) -> None:
    document = build()
    place(tmp_path, document)
    (tmp_path / "pictures/text.png").write_text("no picture")
    (tmp_path / "pictures/short.png").write_bytes((tmp_path / "pictures/reconstructions.png").read_bytes()[:18])
    (tmp_path / "curves/aia.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"step": [1], "loss": [0.5]}), tmp_path / "curves/other.parquet")
    (tmp_path.parent / "secret.png").write_bytes((tmp_path / "pictures/reconstructions.png").read_bytes())
    document["pictures"] += [{"file": f"pictures/{n}.png"} for n in ("gone", "text", "short")]
    document["pictures"] += [{"file": "../secret.png"}, {"file": str(tmp_path.parent / "secret.png")}]
    document["curves"] += [{"file": f"curves/{n}.parquet", "release": "AIA"} for n in ("gone", "other")]
    (tmp_path / "findings.json").write_text(json.dumps(document))
    got = Page(write(tmp_path).read_text(encoding="utf-8"))
    pictures, curves = got.text("pictures"), got.text("curves")
    assert "pictures/gone.png: there is no such file" in pictures
    assert "pictures/text.png: is not a PNG picture" in pictures
    assert "pictures/short.png: " in pictures
    assert pictures.count("lies outside the report's folder and was not read") == 2
    assert "curves/gone.parquet: there is no such file" in curves
    assert "curves/aia.parquet: is not a table of step, stage, player and loss" in curves
    assert "curves/other.parquet: is not a table of step, stage, player and loss" in curves
    assert [tag for tag, _ in got.tags].count("img") == 1
    assert "curve-2" in got.ids()  # the curves that are whole are drawn


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b'{"schema": 1', b"\xff\xfe", b"[" * 100_000, b'{"schema": 1}', b"1e999"]
)
def test_a_broken_file_is_one_clear_line_and_leaves_the_old_report(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "report.html").write_text("before")
    (tmp_path / "findings.json").write_bytes(raw)
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "findings.json"))) as error:
        write(tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / "report.html").read_text() == "before"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no findings here; `veil audit` writes them"):
        write(tmp_path / "none")


def test_truncation_anywhere_is_an_input_error(tmp_path: Path) -> None:
    whole = json.dumps(build()).encode()
    for end in np.linspace(1, len(whole) - 1, 40).astype(int):
        (tmp_path / "findings.json").write_bytes(whole[:end])
        with pytest.raises(InputError):
            read(tmp_path)


def test_the_least_document_makes_a_page(tmp_path: Path) -> None:
    least: Json = {"schema": 1, "veil": "", "seed": None, "created": "", "command": "", "data": {}}
    least |= {key: [] for key in ("releases", "findings", "pictures", "curves")}
    got = page(tmp_path, least, extras=False)
    assert "No protected release was audited" in got.text("verdict")
    assert [tag for tag, _ in got.tags].count("script") == 0  # no figure, so no plotly


# --- figures


def test_many_releases_and_attributes_have_labels_that_do_not_overlap(tmp_path: Path) -> None:
    many = [("Input", "input", 0.91, 0.941), ("Random", "baseline", 0.503, 0.502), ("LEACE", "baseline", 0.838, 0.936)]
    many += [(f"AIA deep alpha={i / 10}", "method", 0.75 - 0.022 * i, 0.935 - 0.006 * i) for i in range(9)]
    private = {"gender": ("f", "m"), "glasses": ("no", "yes"), "expression": tuple("abcdefg")}
    place(tmp_path, {**build(releases=many, private=private), "curves": []})
    document = read(tmp_path)
    assert len(Page(render(document, tmp_path)).figures()) == 3
    for name in private:
        figure = plots.plane(document, name, "identity", width=680)
        shown = [a for a in figure.layout.annotations if a.showarrow]
        assert len(shown) == 12
        boxes = [_label_box(figure, label) for label in shown]
        for i, a in enumerate(boxes):
            assert a.left > 55.9
            assert a.right < 668.1
            assert a.top > 25.9
            assert a.bottom < figure.layout.height - 51.9
            assert all(_shared(a, b) < 1 for b in boxes[:i]), shown[i].text


def _shared(a: labels.Box, b: labels.Box) -> float:
    """The area of both boxes, in square pixels."""
    across, down = min(a.right, b.right) - max(a.left, b.left), min(a.bottom, b.bottom) - max(a.top, b.top)
    return max(across, 0.0) * max(down, 0.0)


def test_the_time_of_a_report_grows_with_its_releases_alone(tmp_path: Path) -> None:
    """Calls, which unlike seconds are the same everywhere: 40 releases took 50 times those of 5."""
    rng = np.random.default_rng(1)
    releases = [("Input", "input", 0.91, 0.941)]
    releases += [(f"Release {i}", "method", *rng.uniform((0.5, 0.7), (0.8, 0.93)).tolist()) for i in range(40)]
    calls = {}
    for n in (10, 40):
        place(tmp_path, {**build(releases=releases[: n + 1]), "curves": []})
        render(read(tmp_path), tmp_path)  # what is imported and compiled but once does not count
        with cProfile.Profile() as profile:
            render(read(tmp_path), tmp_path)
        calls[n] = sum(entry.callcount for entry in profile.getstats())
    assert calls[40] < 4.5 * calls[10]


def _label_box(figure: Any, label: Any) -> labels.Box:
    """Where a label lands, from the figure's axes and margins alone."""
    (x0, x1), (y0, y1), margin = figure.layout.xaxis.range, figure.layout.yaxis.range, figure.layout.margin
    wide, high = figure.layout.width - margin.l - margin.r, figure.layout.height - margin.t - margin.b
    x = margin.l + (label.x - x0) / (x1 - x0) * wide + label.ax
    y = margin.t + (y1 - label.y) / (y1 - y0) * high + label.ay
    width = labels.text_width(label.text, 12)
    left = x - {"left": 0.0, "center": width / 2, "right": width}[label.xanchor]
    return labels.Box(left=left, top=y - 7, right=left + width, bottom=y + 7)


def test_the_plane_holds_every_release_with_its_intervals(tmp_path: Path) -> None:
    document = read(place(tmp_path, build()))
    figure = plots.plane(document, "gender", "identity")
    marks = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    assert set(marks) == {name for name, *_ in RELEASES}
    deep = marks["AIA deep"]
    assert (deep.x[0], deep.y[0]) == (pytest.approx(61.2), 0.914)  # per cent, AUC
    assert (deep.error_x.array[0], deep.error_x.arrayminus[0]) == (pytest.approx(2.2), pytest.approx(2.2))
    assert (deep.error_y.array[0], deep.error_y.arrayminus[0]) == (pytest.approx(0.009), pytest.approx(0.009))
    symbols = {name: trace.marker.symbol for name, trace in marks.items()}
    assert (symbols["Input"], symbols["LEACE"], symbols["AIA"]) == ("square", "circle-open", "diamond")
    # Random's AUC would flatten the rest: it stands on the edge and its label tells the figure.
    assert symbols["Random"] == "triangle-down-open"
    assert "Random (.502)" in [a.text for a in figure.layout.annotations]
    assert figure.layout.yaxis.range[0] > 0.8
    assert [trace.x[0] for trace in figure.data if trace.mode == "lines"] == [50.0]


def test_every_colour_of_a_figure_has_its_dark_one(tmp_path: Path) -> None:
    figures = page(tmp_path, build()).figures()
    used = set(re.findall(r"#[0-9a-fA-F]{6}", json.dumps(figures)))
    assert used
    assert used <= set(plots.DARK)


def test_losses_are_logarithmic_only_where_they_can_be() -> None:
    steps = np.arange(100.0)
    falling = plots.Line(player="encoder", steps=steps, values=np.geomspace(10, 0.1, 100))
    signed = plots.Line(player="encoder", steps=steps, values=np.linspace(-1, 1, 100))
    flat = plots.Line(player="encoder", steps=steps[:1], values=np.array([0.7]))
    colours = plots.player_colours(["encoder"])
    assert plots.losses([falling], colours=colours).layout.yaxis.type == "log"
    assert plots.losses([signed], colours=colours).layout.yaxis.type != "log"
    single = plots.losses([flat], colours=colours)
    assert single.data[0].mode == "markers"
    low, high = single.layout.yaxis.range
    assert low < 0.7 < high


def test_long_labels_of_small_losses_get_room() -> None:
    line = plots.Line(player="encoder", steps=np.arange(100.0), values=np.geomspace(1e-5, 1, 100))
    axis = plots.losses([line], colours=plots.player_colours(["encoder"])).layout.yaxis
    assert axis.automargin
    assert axis.title.text is None  # an empty one would take room, too


def test_thinning_keeps_the_mean() -> None:
    rng = np.random.default_rng(0)
    line = plots.Line(player="a", steps=np.arange(6000.0), values=rng.normal(size=6000))
    thin = plots.thinned(line)
    assert len(thin.steps) == len(thin.values) == 150
    # 6000 points in 150 equal runs of 40: the mean of the run means is the mean, to rounding.
    assert thin.values.mean() == pytest.approx(line.values.mean(), abs=1e-12)
    assert thin.values[0] == pytest.approx(line.values[:40].mean(), abs=1e-12)


@pytest.mark.parametrize(
    ("code", "value", "shown"),
    [
        ("attribute.balanced_accuracy", 0.612, "61.2 %"),
        ("verification.auc", 0.914, ".914"),
        ("verification.auc", 1.0, "1.000"),
        ("verification.auc", 0.99996, "1.000"),
        ("utility.mcc", -0.12, "−.120"),
        ("inversion.psnr", 21.37, "21.37"),
        ("verification.eer", None, "not measured"),
    ],
)
def test_numbers_are_written_in_the_style_of_their_kind(code: str, value: float | None, shown: str) -> None:
    assert number(code, value).replace("\u00a0", " ") == shown


def test_intervals_and_shares_are_written_once_and_plainly() -> None:
    assert interval("attribute.balanced_accuracy", 0.59, 0.634).replace("\u00a0", " ") == "59.0–63.4 %"
    assert interval("utility.mcc", -0.05, 0.12) == "−.050 to .120"
    assert interval("verification.auc", None, 0.9) == ""
    assert [share(v).replace("\u00a0", " ") for v in (0.95, 1 / 3, 1 / 7)] == ["95 %", "33.3 %", "14.3 %"]


def test_a_certificate_is_rounded_up(tmp_path: Path) -> None:
    document = build()
    document["findings"].append(
        finding(
            "certificate.balanced_accuracy", "AIA deep", "gender", "any", 0.60049, role="bound", low=0.6, high=0.60049
        )
    )
    assert "exceeds 60.1 % on" in page(tmp_path, document).text("verdict")


def test_no_use_is_made_up_where_none_was_declared(tmp_path: Path) -> None:
    document = build()
    document["data"]["utility"] = []
    document["findings"].append(finding("utility.bits", "AIA deep", "any", "counts", 2.0, role="utility", chance=0.0))
    text = page(tmp_path, document).text("verdict")
    assert "Recognising any" not in text
    assert "Face matching" not in text
