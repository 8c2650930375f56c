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
from veil import report
from veil.audit import attackers, findings
from veil.audit import inversion as attacks
from veil.audit import run as audit_run
from veil.cli import app
from veil.data import decode
from veil.data.columns import IMAGE_KEYS
from veil.data.layouts import LAYOUTS
from veil.data.pack import NOTHING
from veil.methods import METHODS, aia, inversion, mi, san, substitution, template

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [page.name for page in PAGES]
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
    for name, preset in aia.PRESETS.items():
        short = {"steps_alone": 2, "steps_joint": 2, "batch": 32}
        monkeypatch.setitem(aia.PRESETS, name, replace(preset, **short))
    for name, protection in template.PRESETS.items():
        short = {"steps_guess": 2, "steps": 2, "batch": 32}
        monkeypatch.setitem(template.PRESETS, name, replace(protection, **short))
    train = attackers.train
    monkeypatch.setattr(attackers, "train", lambda *a, **k: train(*a, **{**k, "steps": min(k["steps"], 3)}))
    monkeypatch.setattr(attackers, "_WIDE", 16)


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
        METHODS[got["method"]].configured(got["preset"], settings)
    elif got["command"] == "pack":
        assert got["layout"] in LAYOUTS
    elif got["command"] == "audit":
        assert got["effort"] in attackers.EFFORTS
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


@pytest.mark.parametrize("page", PAGES, ids=IDS)
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


def test_logged_losses_of_aia() -> None:
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
    for preset, utility in (("paper", "identity"), ("deep", "identity"), ("deep", "smile")):
        _, losses = _fit_on_protect(pack, preset, utility, {"steps_alone": 4, "steps_joint": 1, "batch": 8})
        logged |= {(stage, player.split()[0]) for _, stage, player, _ in losses}
    assert logged_losses("aia.md") == logged


def test_logged_losses_of_template() -> None:
    from veil.engine import Run

    x = torch.randn(64, 4).numpy()
    pack = veil.Pack.from_arrays(x, {"gender": ["f", "m"] * 32, "identity": [*range(64)]}, split=["protect"] * 64)
    run = Run(seed=0, precision="fp32")
    template.fit(
        template.Config(keep=0.5, rounds=1, steps_erase=1, steps_guess=1, steps=1, batch=8),
        pack,
        private=["gender"],
        run=run,
    )
    assert logged_losses("templates.md") == {(stage, player.split()[0]) for _, stage, player, _ in run.curves}


def test_logged_losses_of_methods_for_images() -> None:
    from veil.engine import Run

    x = torch.arange(64 * 256).reshape(64, 16, 16).remainder(251).byte().numpy()
    labels = {"gender": ["f", "m"] * 32, "smile": ["no"] * 32 + ["yes"] * 32, "identity": [*range(64)]}
    pack = veil.Pack.from_arrays(x, labels, split=["protect"] * 64)
    short = {"steps_alone": 1, "steps_joint": 1, "batch": 8}
    for page, method, config in (
        ("mi.md", mi, mi.Config(keep=1.0, steps_views=1, steps_discriminator=1, least_variety=0.0, **short)),
        ("san.md", san, san.Config(steps_classifier=1, steps_matcher=1, steps=4, rounds=3, batch=8, aligned=0.0)),
        ("substitution.md", substitution, substitution.Config(steps=1, batch=8, people=2)),
        ("inversion.md", inversion, inversion.Config(steps_perceptual=1, steps_decoder=1, **short)),
    ):
        run = Run(seed=0, precision="fp32")
        if method is san:  # which needs couples
            pack = veil.Pack.from_arrays(x, {**labels, "identity": [i // 4 for i in range(64)]}, split=["protect"] * 64)
        method.fit(config, pack, private=["gender"], utility="identity" if method is san else "smile", run=run)
        logged = {(stage.rstrip(" 0123456789"), player.split()[0]) for _, stage, player, _ in run.curves}
        assert logged_losses(page) == logged


def _fit_on_protect(pack: veil.Pack, preset: str, utility: str, settings: dict[str, Any]) -> tuple[veil.Release, Any]:
    from veil.engine import Run

    run = Run(seed=0, precision="fp32")
    config = METHODS["aia"].configured(preset, settings)
    return aia.fit(config, pack, private=["gender"], utility=utility, run=run), run.curves


def test_attackers() -> None:
    printed = rows(section("audit.md", "Attackers"))
    assert [row[0] for row in printed] == list(attackers.ATTACKERS)
    assert {row[0] for row in printed if row[2] == "yes"} == set(audit_run._QUICK)
    assert {row[0] for row in printed if row[3] == "images, feature maps"} == set(attackers.CONVOLUTIONAL)
    words = section("audit.md", "Attackers")
    assert all(f"`{name}`" in words for name in attackers.MATCHERS)
    decoders = [row[0] for row in rows(section("audit.md", "Inversion"))]
    assert decoders == [*attacks.DECODERS, attacks.MORE_DATA]


def test_codes_of_findings() -> None:
    printed = {code.strip("`"): meaning for code, meaning, _ in rows(section("audit.md", "Figures and intervals"))}
    assert printed == findings.CODES


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


def test_layouts_and_public_names() -> None:
    assert re.findall(r"^### `(\w+)`$", section("data.md", "Layouts"), re.M) == list(LAYOUTS)
    names = re.findall(r"`(\w+)`", section("index.md", "Python names").strip().split("\n\n")[0])
    assert set(names) == set(veil.__all__)


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
    shown = {"JPEG2000": "JPEG 2000", "WEBP": "WebP"}
    for form in ("JPEG", *decode._CLASSES):
        assert shown.get(form, form) in text, form
