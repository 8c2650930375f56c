"""Two audits side by side on one page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from veil import findings
from veil.errors import InputError, checked_path
from veil.files import check_place, write_text
from veil.findings import CODES, Finding
from veil.report import verdict
from veil.report.compared import SIDES, Comparison, Figure, Pair, render
from veil.report.document import Document, Release
from veil.workflows.against import Difference, Measured, difference, rises_for_worse

NAME = "compared.html"
_ROLES = ("attack", "utility", "bound")


def compare(first: str | Path, second: str | Path, out: str | Path | None = None) -> Path:
    """Write a page that sets two audits beside each other; its path.

    Releases of one name stand beside each other; where each audit was asked for a single one, these do, whatever they
    are called. A difference of two figures is beyond chance by the interval of their paired difference, as for
    ``veil.check(..., against=...)``; where persons cannot be paired, it is where the intervals lie apart.

    Args:
        first: A folder with ``findings.json``, or that file: A on the page.
        second: Another: B, of which differences are said.
        out: The page, a file that ends in ``.html``; ``compared.html`` beside the second's findings if None.

    Raises:
        InputError: For what is no audit, for two that measured nothing alike, and where the page cannot be written.
    """
    folders = [_folder(name, path) for name, path in (("first", first), ("second", second))]
    target = folders[1] / NAME if out is None else checked_path("out", out)
    if target.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"out: must be a file that ends in .html, got {target}")
    check_place(target)
    if folders[0].resolve() == folders[1].resolve():
        raise InputError(f"{folders[1]}: must be another audit than the first, got the same folder")
    then, now = (Measured.read(folder) for folder in folders)
    made = compared(then, now)
    return write_text(target, render(made), "page")


def compared(then: Measured, now: Measured) -> Comparison:
    """What the page says; raises InputError for audits that measured nothing alike."""
    a, b = then.document, now.document
    if a.of_scores != b.of_scores:
        of = [
            f"{side} of {'scores alone' if d.of_scores else 'releases'}" for side, d in zip(SIDES, (a, b), strict=True)
        ]
        raise InputError(f"{now.folder}: two audits must both be of releases, or both of scores, got {of[0]}, {of[1]}")
    asked = [{*d.data.private, *d.data.utility} for d in (a, b)]
    if not asked[0] & asked[1] and any(asked):
        both = [", ".join(sorted(each)) or "nothing" for each in asked]
        raise InputError(f"{now.folder}: two audits must share a label or a use, got {both[0]} and {both[1]}")
    releases = list(_paired(a, b))
    if not releases:
        names = [", ".join(r.name for r in d.releases) for d in (a, b)]
        raise InputError(f"{now.folder}: two audits must have a release of one name, got {names[0]} and {names[1]}")
    pairs = [
        Pair(releases=(earlier, later), figures=list(_figures(then, now, earlier.name, later.name)))
        for earlier, later in releases
    ]
    marks = (findings.fingerprint(then.folder), findings.fingerprint(now.folder))
    return Comparison(documents=(a, b), fingerprints=marks, pairs=pairs)


def _folder(name: str, path: str | Path) -> Path:
    given = checked_path(name, path)
    return given.parent if given.name == findings.NAME and not given.is_dir() else given


def _paired(a: Document, b: Document) -> Iterator[tuple[Release, Release]]:
    """Releases that stand beside each other: those asked for first, the unprotected input last."""
    later = {release.name: release for release in b.releases}
    same = [(release, later[release.name]) for release in a.releases if release.name in later]
    judged = [[release for release in document.releases if release.judged] for document in (a, b)]
    if not any(x.judged and y.judged for x, y in same) and len(judged[0]) == len(judged[1]) == 1:
        same.insert(0, (judged[0][0], judged[1][0]))
    yield from sorted(same, key=lambda pair: (not (pair[0].judged and pair[1].judged), pair[0].role == "input"))


def _figures(then: Measured, now: Measured, earlier: str, later: str) -> Iterator[Figure]:
    """Every figure of a release that either audit measured, in the order of the codes."""
    there = dict.fromkeys(
        (f.code, f.target)
        for measured, name in ((then, earlier), (now, later))
        for f in measured.document.of(name)
        if f.role in _ROLES and f.ok
    )
    same_data = bool(now.document.data.fingerprint) and (
        now.document.data.fingerprint == then.document.data.fingerprint
    )
    order = list(CODES)
    for code, target in sorted(there, key=lambda key: order.index(key[0])):
        a, b = _speaks(then.document, earlier, target, code), _speaks(now.document, later, target, code)
        if a is None or b is None:
            if a is not None or b is not None:
                yield Figure(target=target, code=code, findings=(a, b))
            continue
        paired = difference(now, then, (later, target, code), earlier) if same_data else Difference(now=b, then=a)
        if paired.change is None:
            says, why = _apart(a, b)
            doubt = [verdict.doubt(f, of.checks, False) for f, of in ((a, then), (b, now))]
            why = next(filter(None, doubt), why)
        else:
            says, why = _says(b, worse=paired.is_worse, better=paired.is_better), paired.why
        yield Figure(
            target=target, code=code, findings=(a, b), change=paired.change, why=why,
            says="it cannot be said whether they differ" if why and paired.change is not None else says,
        )  # fmt: skip


def _speaks(document: Document, release: str, target: str, code: str) -> Finding | None:
    """The figure that counts: of who was picked on validation data, else the one that tells most."""
    tried = [f for f in document.of(release) if (f.code, f.target) == (code, target) and f.role in _ROLES]
    picked = [f for f in tried if f.worst]
    usable = [f for f in picked or tried if f.ok]
    sign = -1 if CODES[code].lower_tells_more else 1
    return max(usable, key=lambda f: sign * (f.value or 0.0), default=None)


def _apart(a: Finding, b: Finding) -> tuple[str, str]:
    """What two intervals say that are of other people, or of people who are not known."""
    (_, low, high, _), (_, before_low, before_high, _) = b.figures(), a.figures()
    if low <= before_high and before_low <= high:
        return "their intervals overlap: that may be chance", ""
    worse = (low > before_high) == rises_for_worse(b)
    return _says(b, worse=worse, better=not worse), "not paired: their intervals lie apart"


def _says(finding: Finding, *, worse: bool, better: bool) -> str:
    """What a difference means, beyond chance or not."""
    if not worse and not better:
        return "no difference beyond chance"
    if finding.role == "utility":
        return f"B is of {'less' if worse else 'more'} use, beyond chance"
    return f"B gives {'more' if worse else 'less'} away, beyond chance"
