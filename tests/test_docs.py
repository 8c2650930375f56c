"""The documentation is executed: Python blocks run, commands parse, links lead somewhere, tables match the code."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import veil
from methods_matrix import BRIEF
from veil import findings
from veil.auditing import attackers, networks
from veil.auditing import matchers as matchers_module
from veil.auditing import problem as problem_module
from veil.auditing.decoders import DECODERS, MORE_DATA
from veil.auditing.rosters import roster
from veil.cli.app import app
from veil.data import decode
from veil.data.classes import NOTHING
from veil.data.columns import IMAGE_KEYS
from veil.data.layouts import LAYOUTS
from veil.methods import METHODS, aia, deep, inversion, mi, san, substitution, template
from veil.nn import declared
from veil.report import document as report

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, *sorted((ROOT / "docs" / "results").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)

# What makes an example small enough for a test; the blocks are otherwise run as they are printed.
SMALLER = {
    r"identities=\d+": "identities=80",
    r"\bsize=\d+": "size=16",
    r"\b(steps\w*)(\": |=)\d+": r"\1\g<2>2",
    r"\bbatch(\": |=)\d+": r"batch\g<1>32",
}


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(page.read_text()) if language in languages]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def section(name: str, heading: str) -> str:
    """The text below a heading of a page in docs, up to the next of the same or a higher rank."""
    text = (ROOT / "docs" / name).read_text()
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.M | re.S)
    assert found, f"{name} has no heading {heading!r}"
    return found[2]


def rows(text: str) -> list[list[str]]:
    """The cells of the first table, without its heading."""
    table = re.search(r"(?:^\|.*\n)+", text, re.M)
    assert table, "no table"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[0].splitlines()[2:]]


# -- Python -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A temporary directory, one process, and short trainings."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # the audit then stays in this process, where trainings are short
    for method in (aia, deep):
        for name, preset in method.PRESETS.items():
            short = {"steps_alone": 2, "steps_joint": 2, "batch": 32}
            monkeypatch.setitem(method.PRESETS, name, replace(preset, **short))
    for name, protection in template.PRESETS.items():
        short = {"steps_guess": 2, "steps": 2, "batch": 32}
        monkeypatch.setitem(template.PRESETS, name, replace(protection, **short))
    train = networks.train
    monkeypatch.setattr(networks, "train", lambda *a, **k: train(*a, **{**k, "steps": min(k["steps"], 3)}))
    monkeypatch.setattr(problem_module, "WIDE", 16)


def execute(page: Path) -> None:
    """Runs the blocks of a page one after the other, in one namespace."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(page, "python"), 1):
        for pattern, smaller in SMALLER.items():
            block = re.sub(pattern, smaller, block)
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("page", [p for p in PAGES[1:] if blocks(p, "python")], ids=lambda p: p.name)
def test_python_blocks_run(page: Path) -> None:
    execute(page)


@pytest.mark.usefixtures("small")
def test_readme_example_leaves_what_it_says() -> None:
    execute(ROOT / "README.md")
    assert {p.name for p in Path("release").iterdir()} == {"release.json", "weights.safetensors"}
    assert "<html" in Path("findings/report.html").read_text()


# -- commands ---------------------------------------------------------------------------------------------------------


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every ``veil`` command in a block of shell; output and other programs are passed over."""
    for line in text.replace("\\\n", " ").splitlines():
        words = line.removeprefix("$ ").strip()
        if re.match(r"(\w+=\S+ )*(\S*/)?veil( |$)", words):
            parts = shlex.split(words, comments=True)
            yield parts[next(i for i, part in enumerate(parts) if part.endswith("veil")) + 1 :]


@cache
def command_line() -> Any:
    return typer.main.get_command(app)


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What the command line makes of arguments, without running the command; fails as it would."""
    group = command_line()
    name, command, rest = group.resolve_command(group.make_context("veil", list(arguments)), list(arguments))
    return {"command": name, **command.make_context(name, rest).params}


COMMANDS = [(page.name, " ".join(c), c) for page in PAGES for b in blocks(page, "sh", "console") for c in commands(b)]


@pytest.mark.parametrize("arguments", [c for *_, c in COMMANDS], ids=[f"{page}: {text}" for page, text, _ in COMMANDS])
def test_commands_parse(arguments: list[str]) -> None:
    got = parsed(arguments)
    settings = dict(pair.split("=", 1) for pair in got.get("settings") or [])
    if got["command"] == "fit":
        METHODS[got["method"]].algorithm.configured(got["preset"], settings)
    elif got["command"] == "pack":
        assert got["layout"] in LAYOUTS
    elif got["command"] == "audit":
        assert got["effort"] in problem_module.EFFORTS
        assert set((got["attack_on"] or "attack").split(",")) <= {"protect", "attack"}
        assert all(b in METHODS or b == "none" for b in got["baseline"] or [])


def test_the_parser_of_commands_refuses_what_the_command_line_refuses() -> None:
    """The test above can fail."""
    for wrong in (["fit", "aia", "pack"], ["audit", "pack", "out", "--private", "x", "--no-such"], ["nothing"]):
        with pytest.raises(Exception, match=r"(?i)missing|no such"):
            parsed(wrong)
    assert list(commands("$ veil report out\n$ OMP_NUM_THREADS=1 .venv/bin/veil demo \\\n  --seed 1\nveils")) == [
        ["report", "out"],
        ["demo", "--seed", "1"],
    ]


def test_every_command_is_shown_and_every_option_named_in_the_text_exists() -> None:
    group = command_line()
    real = {o for c in group.commands.values() for p in c.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
    text = "\n".join(prose(page) for page in PAGES if page.name not in ("CHANGELOG.md", "CONTRIBUTING.md"))
    named = set(re.findall(r"`(--[a-z-]+)", text))
    assert named <= real
    assert {c[0] for *_, c in COMMANDS} >= set(group.commands) - {"demo"}


# -- links ------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            lost.append(target)
    assert lost == []


# -- tables -----------------------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


DOCUMENTED = pytest.mark.parametrize(
    ("page", "method"),
    [
        ("aia.md", aia),
        ("deep.md", deep),
        ("templates.md", template),
        ("mi.md", mi),
        ("substitution.md", substitution),
        ("inversion.md", inversion),
        ("san.md", san),
    ],
)


@DOCUMENTED
def test_settings(page: str, method: Any) -> None:
    printed = {name.strip("`"): default for name, default, _ in rows(section(page, "Settings"))}
    assert printed == {f.name: shown(f.default) for f in fields(method.Config)}


@DOCUMENTED
def test_presets(page: str, method: Any) -> None:
    printed = {name.strip("`"): changes for name, changes, _ in rows(section(page, "Presets"))}
    default = method.Config()
    changed = {
        name: ", ".join(
            f"`{f.name}={shown(getattr(preset, f.name))}`"
            for f in fields(preset)
            if getattr(preset, f.name) != getattr(default, f.name)
        )
        for name, preset in method.PRESETS.items()
    }
    assert printed == {name: changes or "none" for name, changes in changed.items()}


def logged_losses(page: str) -> set[tuple[str, str]]:
    """The stages and the players' kinds that a page names."""
    printed = rows(section(page, "Logged losses"))
    return {(stage.strip("`"), p) for stage, who, _ in printed for p in re.findall(r"`([a-z-]+)[ `]", who)}


@pytest.mark.parametrize(("page", "uses"), [("aia.md", ("identity",)), ("deep.md", ("identity", "smile"))])
def test_logged_losses_of_aia_and_deep(page: str, uses: tuple[str, ...]) -> None:
    """The table names the stages and players that a run logs, over the ways in which they differ."""
    pack = veil.Pack.from_arrays(
        torch.arange(64 * 256).reshape(64, 16, 16).remainder(251).byte().numpy(),
        {
            "identity": [i // 4 for i in range(64)],
            "gender": ["fm"[i // 4 % 2] for i in range(64)],
            "smile": [i % 2 for i in range(64)],
        },
        split=["protect"] * 64,
    )
    logged = set()
    for utility in uses:
        settings = {"steps_alone": 4, "steps_joint": 1, "batch": 8}
        losses = veil.fit(page.removesuffix(".md"), pack, private=["gender"], utility=utility, settings=settings).curves
        logged |= {(stage, player.split()[0]) for _, stage, player, _ in losses}
    assert logged_losses(page) == logged


def test_logged_losses_of_template() -> None:
    x = torch.randn(64, 4).numpy()
    pack = veil.Pack.from_arrays(x, {"gender": ["f", "m"] * 32, "identity": [*range(64)]}, split=["protect"] * 64)
    settings = {"keep": 0.5, "rounds": 1, "steps_erase": 1, "steps_guess": 1, "steps": 1, "batch": 8}
    losses = veil.fit("template", pack, private=["gender"], settings=settings).curves
    assert logged_losses("templates.md") == {(stage, player.split()[0]) for _, stage, player, _ in losses}


def test_logged_losses_of_methods_for_images() -> None:
    x = torch.arange(64 * 256).reshape(64, 16, 16).remainder(251).byte().numpy()
    labels = {"gender": ["f", "m"] * 32, "smile": ["no"] * 32 + ["yes"] * 32, "identity": [*range(64)]}
    pack = veil.Pack.from_arrays(x, labels, split=["protect"] * 64)
    for name, preset, settings in (
        ("mi", "default", {}),
        ("san", "default", {"steps": 4, "rounds": 3}),
        ("substitution", "default", {}),
        ("inversion", "adversarial", {}),
    ):
        if name == "san":  # which needs couples
            pack = veil.Pack.from_arrays(x, {**labels, "identity": [i // 4 for i in range(64)]}, split=["protect"] * 64)
        use = "identity" if name == "san" else "smile"
        losses = veil.fit(
            name, pack, private=["gender"], utility=use, preset=preset, settings={**BRIEF[name], "batch": 8, **settings}
        ).curves
        logged = {(stage.rstrip(" 0123456789"), player.split()[0]) for _, stage, player, _ in losses}
        assert logged_losses(f"{name}.md") == logged


def test_attackers() -> None:
    printed = rows(section("audit.md", "Attackers"))
    assert [row[0] for row in printed] == list(attackers.ATTACKERS)
    assert {row[0] for row in printed if row[2] == "yes"} == set(roster("quick").attackers)
    assert {row[0] for row in printed if row[3] == "images, feature maps"} == set(attackers.CONVOLUTIONAL)
    words = section("audit.md", "Attackers")
    assert all(f"`{name}`" in words for name in matchers_module.MATCHERS)
    decoders = [row[0] for row in rows(section("audit.md", "Inversion"))]
    assert decoders == [*DECODERS, MORE_DATA]


def test_codes_of_findings() -> None:
    printed = {code.strip("`"): more for code, *more in rows(section("audit.md", "Figures and intervals"))}
    assert list(printed) == list(findings.CODES)
    for name, (meaning, chance, threat) in printed.items():
        code = findings.CODES[name]
        assert (meaning, threat) == (code.meaning, code.threat), name
        assert code.chance is None or float(chance) == code.chance, name


def test_example_of_findings_is_read(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "docs" / "audit.md", "json")
    (tmp_path / "findings.json").write_text(text)
    assert findings.read(tmp_path) == json.loads(text)
    assert report.read(tmp_path).data.private == ("gender",)
    printed = [name.strip() for row in rows(text_after_example()) for name in re.findall(r"`(\w+)`", row[0])]
    assert printed == sorted(printed, key=[f.name for f in fields(findings.Finding)].index)
    assert set(printed) == {f.name for f in fields(findings.Finding)}


def text_after_example() -> str:
    return FENCE.sub("", section("audit.md", "findings.json"))


def test_what_is_declared_of_networks() -> None:
    text = section("audit.md", "What a network sees")
    assert [name.strip("`") for name, _ in rows(text)] == [*declared.SETTINGS, "form"]
    for form in declared.FORMS:
        assert f"`form={form}`" in text


def test_layouts() -> None:
    assert re.findall(r"^### `(\w+)`$", section("data.md", "Layouts"), re.M) == list(LAYOUTS)


def test_splits() -> None:
    from veil.data import splits

    printed = [(name.strip("`"), share) for name, share, _ in rows(section("data.md", "Splits"))]
    assert printed == [(n, f"{f:.0%}".replace("%", " %")) for n, f in zip(splits.SPLITS, splits.FRACTIONS, strict=True)]


def test_words_for_nothing_and_names_of_key_columns() -> None:
    for heading, words in (("Labels", NOTHING), ("Names of rows", {*IMAGE_KEYS, "name"})):
        text = section("data.md", heading)
        listed = {word.casefold() for word in re.findall(r"`([^`]+)`", text)}
        assert words <= listed | {word.replace("_", "") for word in listed}, heading


def test_formats_of_images() -> None:
    text = section("data.md", "Images, and limits")
    shown = {"JPEG2000": "JPEG 2000", "WEBP": "WebP", "HEIF": "HEIC"}  # the last where its reader is installed
    for form in ("JPEG", *decode.pillow._CLASSES):
        assert shown.get(form, form) in text, form
