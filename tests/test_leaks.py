"""What must not be in what Veil writes: the machine's folders, keys, names of people and files; nor text that acts."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import signal
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from conftest import attacked_by, brightness_file, only, onnx_file, short_decoders, short_networks, vectors_pack
from veil import cli
from veil.auditing.matchers import MATCHERS
from veil.cli.show import Bars
from veil.cli.tables import print_attacks
from veil.data import build
from veil.data.classes import nameless
from veil.data.csvfile import cell
from veil.data.pack import Pack
from veil.errors import InputError, printable, printable_json
from veil.report import page as html
from veil.workflows import fit as fitting
from veil.workflows.audit import OUTCOMES, audit
from veil.workflows.demo import Scale
from veil.workflows.subjects import Subject

KEY = hashlib.sha256(b"of nobody").digest()  # such as stands in no file by chance
SECRETS = [KEY, KEY.hex().encode(), KEY.hex().upper().encode(), base64.b64encode(KEY), str(list(KEY))[1:-1].encode()]
PEOPLE, FILES = ("zelda", "quentin"), ("qportrait", "qguestlist", "qtemplates", "qsnapshot", "qunlocker")
"""Beginnings of names of people, and of files; none is a word of Veil's."""
QUICK = {
    "deep": ("steps_alone=1", "steps_joint=1", "batch=16", "networks=1"),
    "mi": ("steps_views=1", "steps_alone=1", "steps_discriminator=1", "steps_joint=1", "batch=16", "features=8",
           "least_variety=0"),
    "template": ("steps=1", "steps_guess=1", "batch=16", "adversaries=1"),
}  # fmt: skip


def _short(method: str) -> list[str]:
    return [word for setting in QUICK[method] for word in ("--set", setting)]


@pytest.fixture
def veil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs commands with relative paths in a folder of a telling name, and gives what they print."""
    folder, home = tmp_path / "cellar-of-wilma", tmp_path / "home-of-xaver"
    folder.mkdir()
    home.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(home))
    alone = only("RBF SVM")["attackers"]
    attacked_by(monkeypatch, "logistic regression", matchers={"LDA": MATCHERS["LDA"]}, classifiers=alone)
    short_networks(monkeypatch, 3)
    handler = signal.getsignal(signal.SIGTERM)

    def call(*words: object, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["veil", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capfd.readouterr()
        assert caught.value.code == status, err
        return out + err

    yield call
    signal.signal(signal.SIGTERM, handler)


def _people(folder: Path, count: int = 60, each: int = 3) -> None:
    """Pictures, named after who is seen and labelled but for one, one of which is broken; and templates of them."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        for j in range(each):
            name = f"{PEOPLE[i % 2]}{i:02d}/qportrait{j}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 100, (16, 16)) + 100 * (i % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            rows.append((name, f"{PEOPLE[i % 2]}{i:02d}", "fm"[i % 2]))
    (folder / "zelda00" / "qsnapshot.png").write_bytes(b"no picture")
    rows[0] = ("zelda77/qportrait.png", "zelda77", "f")  # names no image, and one image has no row
    with Path("qguestlist.csv").open("w") as file:
        csv.writer(file).writerows([("source", "identity", "gender"), *rows])
    with Path("qtemplates.csv").open("w") as file:
        vectors = rng.normal(size=(len(rows), 4)).round(3).tolist()
        named = [(*row, *vector) for row, vector in zip(rows, vectors, strict=True)]
        csv.writer(file).writerows([("source", "identity", "gender", "v0", "v1", "v2", "v3"), *named])
    Path("qunlocker.key").write_bytes(KEY)


def _contents(path: Path) -> bytes:
    """A file's bytes, and what they hold packed, coded or compressed."""
    parts = [path.read_bytes()]
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        parts += [json.dumps(table.to_pydict()).encode(), str(table.schema.metadata).encode()]
    if path.suffix in (".npz", ".npy"):
        found = np.load(path)
        arrays = dict(found) if path.suffix == ".npz" else {"": found}
        for name, array in arrays.items():
            parts += [
                name.encode(),
                array.tobytes(),
                *(str(text).encode() for text in array.ravel() if array.dtype.kind == "U"),
            ]
    if path.suffix == ".png":
        with Image.open(path) as image:
            parts.append(repr(image.info).encode())
    return b"\n".join(parts)


def _found(content: bytes, words: list[bytes]) -> list[bytes]:
    """Which words are there, in whatever case or coding."""
    lowered = content.lower()
    return [
        w for w in words if w in content or w.lower() in lowered or w.decode("latin-1").encode("utf-16-le") in content
    ]


@pytest.mark.parametrize("kind", ["pictures", "vectors"])
def test_nothing_written_names_folders_people_files_or_keys(
    veil: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pytest.importorskip("onnxscript")
    photos = Path("photos")
    _people(photos)
    inputs = {path for path in Path().rglob("*") if path.is_file()}
    told = []
    ask = ("--private", "gender", "--key", "qunlocker.key")
    if kind == "pictures":
        told.append(veil("pack", "folder", photos, "album", "--size", 16, "--labels", "qguestlist.csv"))
        told.append(
            veil(
                "fit",
                "deep",
                "album",
                "deep",
                *ask,
                *_short("deep"),
                "--keep-decoder",
            )
        )
        told.append(veil("fit", "mi", "album", "redrawn", "--private", "gender", *_short("mi")))
        told.append(veil("apply", "redrawn", photos, "shown", "--images"))
        told.append(veil("apply", "redrawn", "album", "again"))
        source, labels = photos, ()
    else:
        told.append(veil("pack", "embeddings", "qtemplates.csv", "album"))
        told.append(veil("fit", "template", "album", "deep", *ask, "--no-frontier", *_short("template")))
        source, labels = Path("qtemplates.csv"), ("--vectors", "mine=rows.npy")
    for name in ("rows.parquet", "rows.npz", "rows.npy"):
        told.append(veil("apply", "deep", "album" if name == "rows.npy" else source, name, "--row-numbers"))
    told.append(veil("apply", "deep", source, "named.parquet"))
    told.append(veil("export", "deep", "bundle"))
    told.append(veil("audit", "album", "found", "--private", "gender", "--release", "deep", "--key",
                     "deep=qunlocker.key", *labels, "--effort", "quick", "--jobs", 1))  # fmt: skip
    told.append(veil("report", "found"))
    if kind == "vectors":  # audits of a file alone read its labels from it, or from another file
        told.append(
            veil(
                "audit",
                "--vectors",
                "mine=qtemplates.csv",
                "--out",
                "alone",
                "--private",
                "gender",
                "--effort",
                "quick",
            )
        )
        told.append(veil("report", "alone"))
    else:
        short_decoders(monkeypatch)
        nets = Path("qguestlist-nets")
        nets.mkdir()
        brightness_file(nets / "judge.onnx")
        onnx_file(nets / "matcher.onnx", ("Flatten", (), {}), shape=["B", 1, 8, 8])
        inputs |= {*nets.iterdir()}
        told.append(veil("audit", "album", "redrawn-found", "--private", "gender", "--release", "redrawn",
                         "--classifier", f"gender={nets / 'judge.onnx'}", "--matcher", nets / "matcher.onnx",
                         "--inversion", "--effort", "quick", "--jobs", 1))  # fmt: skip
        told.append(veil("report", "redrawn-found"))
        brief = {"networks": 1, "steps_alone": 1, "batch": 16}
        scale = Scale(
            people=60, images=3, side=32, matcher=brief, protector={**brief, "steps_joint": 3},
            template={"steps": 2, "steps_guess": 2, "batch": 16}, budget=1.0,
        )  # fmt: skip
        monkeypatch.setattr("veil.workflows.demo.STANDARD", scale)
        told.append(veil("demo", "--out", "shown-all", "--jobs", 1))
    written = sorted({path for path in Path().rglob("*") if path.is_file()} - inputs)
    there = {path.suffix for path in written}
    assert {".onnx", ".npz", ".npy", ".parquet", ".json", ".html", ".safetensors", ".key"} <= there
    assert {".csv", ".png"} <= there or kind == "vectors"
    kept = {path.suffix for path in written if path.parent.name == OUTCOMES}
    assert kept == ({".json"} if kind == "vectors" else {".json", ".npy"})

    machine = [os.fsencode(folder) for folder in (Path.cwd(), Path.home(), Path(cli.__file__).parents[2], sys.prefix)]
    machine += [b"cellar-of-wilma", b"home-of-xaver"]
    names = [word.encode() for word in (*PEOPLE, *FILES)]
    # A pack is where names are kept; its rows' names go where they are to be joined, and images keep their names.
    with_names = {"album", "again", "shown", "named.parquet", "rows.parquet.skipped.csv"}
    for path in written:
        content = _contents(path)
        assert _found(content, machine) == [], path
        if path.suffix != ".key":
            assert _found(content, SECRETS) == [], path
        if path.parts[0] not in with_names and not path.name.endswith(".skipped.csv"):
            assert _found(content + str(path).encode(), names) == [], path
    screen = "\n".join(told).encode()
    assert _found(screen, [*machine, *SECRETS]) == []


def test_names_stay_where_they_are_asked_for(veil: Any) -> None:
    """By default neither findings nor page name a row, and both say what the warnings say, which they did not."""
    _people(Path("photos"))
    veil("pack", "folder", "photos", "album", "--size", 16, "--labels", "qguestlist.csv")
    ask = ("--private", "gender", "--effort", "quick", "--jobs", 1, "--baseline", "none")
    notes = Pack.open("album").meta["notes"]
    assert "1 rows of 'qguestlist.csv' name none of the images (the first: 'zelda77/qportrait.png')." in notes
    for words, name, first in (((), "\u2026", "\u2026"), (("--names",), "'qguestlist.csv'", "'zelda77/qportrait.png'")):
        veil("audit", "album", Path("found"), *ask, *words)
        document = json.loads(Path("found/findings.json").read_text())
        assert f"1 rows of {name} name none of the images (the first: {first})." in document["data"]["notes"]
        assert any("have no row in" in note for note in document["data"]["notes"])
        placed = "album found" if words else "PACK OUT"
        options = (
            " ".join(map(str, (*ask, *words))) if words else "--private gender --baseline none --effort quick --jobs 1"
        )
        assert document["command"] == f"veil audit {placed} {options}"
        veil("report", "found")
        assert (b"zelda" in Path("found/report.html").read_bytes()) == bool(words)


def test_warnings_of_a_pack_are_in_its_audit(tmp_path: Path) -> None:
    pack = vectors_pack()
    pack.meta["warnings"], pack.meta["notes"] = ["Half of it is lost."], ["A note."]  # type: ignore[index]
    audit(
        pack, [], tmp_path, private=["gender"], utility=[], baselines=(), effort="quick", jobs=1,
        roster=only("logistic regression"),
    )  # fmt: skip
    assert json.loads((tmp_path / "findings.json").read_text())["data"]["notes"] == ["Half of it is lost.", "A note."]


@pytest.mark.parametrize(
    ("note", "bare"),
    [
        ("2 of the images have no row in 'l.csv' (the first: 'a/b c.png').",
         "2 of the images have no row in … (the first: …)."),
        (f"Left: {'it' + chr(39) + 's.png'!r}, {chr(34) + chr(39)!r} and 3 more.", "Left: …, … and 3 more."),
        ("1 files are no images by their name's ending: 'x'.", "1 files are no images by their name's ending: …."),
        ("[Errno 2] No such file: '/home/x y/0.npy'", "[Errno 2] No such file: …"),
        ("models/a.onnx: cannot be read", "…: cannot be read"),
        ("Load model from /srv/a.onnx failed.", "Load model from … failed."),
        (r"at C:\people\a.onnx, or ~/a.", "at …, or …."),
        ("MLPs: 1/2 of the rows, 1 / Z, users' own", "MLPs: 1/2 of the rows, 1 / Z, users' own"),
        ("always male: plain accuracy 0.774", "always male: plain accuracy 0.774"),
    ],
)  # fmt: skip
def test_notes_without_names(note: str, bare: str) -> None:
    assert nameless(note) == bare


# -- text that acts ---------------------------------------------------------------------------------------------------

HOSTILE = ("\x1b[2J\x1b]0;owned\x07.png", "a\u202egnp.exe.png", "=cmd|' !A0'.png", "@SUM(1).png", "b\u2066c\x9b31m.png")


def _acts(text: str) -> list[str]:
    """Letters that command a terminal or turn the direction of text."""
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return [c for c in set(text) - {"\n"} if unicodedata.category(c) == "Cc" or unicodedata.bidirectional(c) in turning]


def test_names_command_no_terminal_and_are_no_formulas(veil: Any) -> None:
    photos = Path("photos")
    _people(photos, 20)
    for name in HOSTILE:
        (photos / name).write_bytes(b"no picture")
    with Path("qguestlist.csv").open("a") as file:
        csv.writer(file).writerows([(f"x{name}", "z", "f") for name in HOSTILE])
    (photos / "\x1b[3m").mkdir()
    rows = [line.replace("zelda77/", "\x1b[5m/") for line in Path("qguestlist.csv").read_text().splitlines()]
    Path("\x1b[2J.csv").write_text("\n".join(rows))
    told = veil("pack", "folder", photos, "album", "--size", 16, "--labels", "\x1b[2J.csv")
    told += veil("pack", "folder", "\x1b[9m", "album2", status=2)
    assert "\\x1b" in told
    assert _acts(told) == []
    for path in (Path("album/pack.json"), Path("album/skipped.csv")):
        assert _acts(path.read_bytes().decode().replace("\r\n", "\n")) == [], path
    with Path("album/skipped.csv").open(newline="") as file:
        listed = [row["source"] for row in csv.DictReader(file)]
    assert len(listed) == 6
    assert sorted(name[:2] for name in listed if name[0] == "'") == ["'=", "'@"]
    assert not [name for name in listed if name[0] in "=+-@"]


def test_what_was_skipped_while_applying_is_no_formula(veil: Any) -> None:
    vectors = np.ones((6, 4), np.float32)
    vectors[3:] = 0
    names = ["a", "b", "c", "=1+1", "+1", "\x1b[2J"]
    np.savez("in.npz", vectors=vectors, source=names)
    fitting.fit("leace", vectors_pack(d=4), private=["gender"]).release.save(Path("r"))
    assert _acts(veil("apply", "r", "in.npz", "out.npz")) == []
    text = Path("out.npz.skipped.csv").read_text()
    assert [line.split(",")[0] for line in text.splitlines()[1:]] == ["'=1+1", "'+1", "\\x1b[2J"]


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_cells_are_no_formulas(first: str) -> None:
    assert cell(f"{first}1") == "'" + printable(f"{first}1")
    assert cell("a" + first) == printable("a" + first)


def test_a_page_turns_no_text_round(tmp_path: Path) -> None:
    pack, name = vectors_pack(), "fine \u202ednuob on\u2069\x9b31m"
    subjects = [Subject(name=name, vectors=np.asarray(pack.x), note=name, curves=[(0, name, name, 0.5)])]
    ask: dict[str, Any] = {"private": ["gender"], "utility": [], "baselines": (), "effort": "quick", "jobs": 1}
    audit(pack, subjects, tmp_path, command=f"veil {name}", roster=only("logistic regression"), **ask)
    written = (tmp_path / "findings.json").read_text()
    assert _acts(written) == []
    assert json.loads(written)["releases"][1]["name"] == name  # as JSON means it
    page = html.write(tmp_path).read_text()
    script = page.index("plotly.js v")  # whose own text is not ours
    assert _acts(page[:script]) == []
    assert "fine \\u202ednuob on\\u2069\\x9b31m" in page
    assert name not in page
    figures = page[page.index('"figures":') :]
    assert "\\u202e" not in figures.replace("\\\\u202e", "")  # which a browser would read as the letter


def test_progress_and_tables_show_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither commands of terminals nor rich's own mark-up, of which an odd bracket ended the command."""
    shown = io.StringIO()
    with Progress(console=Console(file=shown, force_terminal=False)) as display:
        bars = Bars(display)
        bars.show("a\x1b[2J", 1, 2, "b\u202e")
        assert [(t.description, t.fields["text"]) for t in display.tasks] == [("a\\x1b[2J", "b\\u202e")]
    figure = SimpleNamespace(value=0.5, low=0.4, high=0.6, code="attribute.auc", attacker="[bold]", level=0.95)
    row = SimpleNamespace(name="[/red] :smile: \x1b[2J", attack=figure, transfer=None, utility=None)
    print_attacks("\x1bgender", [row], "")
    out = capsys.readouterr().out
    assert "[/red] :smile: \\x1b[2J" in out
    assert "[bold]" in out
    assert "\\x1bgender" in out
    assert _acts(out) == []


def test_text_is_printable() -> None:
    assert printable("Zoë 王 \U0001f600 שלום a\tb\n") == "Zoë 王 \U0001f600 שלום a\\tb\\n"
    text = json.dumps({"a": "\x1b\x9b\u202e\u2028é"}, ensure_ascii=False, indent=1)
    assert json.loads(printable_json(text)) == json.loads(text)
    assert _acts(printable_json(text)) == []


# -- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "picture", "listed"),
    [
        ("folder", "a/1.jpg", "labels.csv"),
        ("folder", "a/1.jpg", "labels.parquet"),
        ("celeba", "img_align_celeba/000001.jpg", "list_attr_celeba.txt"),
        ("celeba", "img_align_celeba/000001.jpg", "Anno/identity_CelebA.txt"),
        ("vggface2", "train/n000001/0001_01.jpg", "identity_meta.csv"),
        ("lfw", "A_B/A_B_0001.jpg", "smile_labels.txt"),
        ("lfw", "A_B/A_B_0001.jpg", "pairs.txt"),
        ("msceleb", "", "faces.tsv"),
        ("pendigits", "", "pendigits-orig.tra"),
    ],
)
def test_no_list_is_read_through_a_link_out_of_the_data_set(
    tmp_path: Path, layout: str, picture: str, listed: str
) -> None:
    secret, tree = tmp_path / "secret", tmp_path / "tree"
    secret.write_text('keeper:x:"0\nthe password is swordfish\n')
    tree.mkdir()
    if picture:
        (tree / picture).parent.mkdir(parents=True)
        Image.new("L", (20, 20)).save(tree / picture)
    if listed.startswith("Anno"):
        (tree / "list_attr_celeba.txt").write_text("1\nMale\n000001.jpg 1\n")
    (tree / listed).parent.mkdir(exist_ok=True)
    (tree / listed).symlink_to(secret)
    with pytest.raises(InputError, match="leads out of its folder, and is not followed") as caught:
        build.pack(layout, tree, tmp_path / "pack", size=16)
    assert str(tree / listed) in str(caught.value)
    assert "swordfish" not in str(caught.value)
    assert "keeper" not in str(caught.value)


def test_a_list_inside_the_data_set_may_be_linked(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "lists").mkdir(parents=True)
    Image.new("L", (20, 20)).save(tree / "1.png")
    (tree / "lists" / "mine.csv").write_text("file,gender\n1.png,f\n")
    (tree / "labels.csv").symlink_to(tree / "lists" / "mine.csv")
    (tmp_path / "way").symlink_to(tree)
    assert build.pack("folder", tmp_path / "way", tmp_path / "pack", size=16).classes["gender"] == ("f",)
