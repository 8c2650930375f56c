"""Two audits side by side, as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from veil.findings import CODES, Finding
from veil.report import threats, words
from veil.report.document import Document, Release, moment
from veil.report.html import template
from veil.report.plain import WORDS
from veil.report.verdict import Check, Sentence, controls, verdicts

SIDES = ("A", "B")
"""What the page calls the two audits."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of two audits.

    Attributes:
        target, code: Those of the findings.
        findings: Of A and of B; None where there is none.
        change: By how much B's is above A's, and its interval's limits; None where persons could not be paired.
        says: What that means, in words.
        why: What speaks against it, or why persons could not be paired.
    """

    target: str
    code: str
    findings: tuple[Finding | None, Finding | None]
    change: tuple[float, float, float] | None = None
    says: str = ""
    why: str = ""

    @property
    def of_both(self) -> bool:
        """Whether both audits measured it."""
        return None not in self.findings

    @property
    def texts(self) -> list[tuple[str, str, str]]:
        """For each audit the figure, its interval, and who got it."""
        shown = []
        for f in self.findings:
            if f is None:
                shown.append(("not measured", "", ""))
            else:
                by = "" if f.attacker == "none" else f.attacker
                shown.append((words.number(f.code, f.value), words.interval(f.code, f.low, f.high), by))
        return shown

    @property
    def difference(self) -> tuple[str, str]:
        """B less A, with its sign, and its interval."""
        now, then = self.findings[1], self.findings[0]
        if now is None or then is None:
            return "", ""
        value = now.figures()[0] - then.figures()[0]
        sign = "+" if value > 0 else ""
        return sign + words.number(self.code, value), words.interval(self.code, *(self.change or (None,) * 3)[1:])


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A release of A beside one of B, and the figures of both."""

    releases: tuple[Release, Release]
    figures: Sequence[Figure]

    @property
    def name(self) -> str:
        """What both are called, or each."""
        names = [release.name for release in self.releases]
        return names[0] if names[0] == names[1] else f"{names[0]} (A) and {names[1]} (B)"

    @property
    def same(self) -> str:
        """Whether they are one release, in words."""
        marks = [release.fingerprint for release in self.releases]
        if not all(marks):
            return "not known, for not both have a fingerprint" if any(marks) else ""
        return "yes: one fingerprint" if marks[0] == marks[1] else "no: their fingerprints differ"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two audits.

    Attributes:
        documents: What they say.
        fingerprints: SHA-256 of their findings.
        pairs: Their releases, the unprotected input among them.
    """

    documents: tuple[Document, Document]
    fingerprints: tuple[str, str]
    pairs: Sequence[Pair]

    @cached_property
    def checks(self) -> list[list[Check]]:
        """The controls of each."""
        return [controls(document) for document in self.documents]

    @cached_property
    def sentences(self) -> list[Mapping[str, list[Sentence]]]:
        """The verdict of each, by release."""
        both = zip(self.documents, self.checks, strict=True)
        return [{release.name: each for release, each in verdicts(document, checks)} for document, checks in both]


def render(comparison: Comparison) -> str:
    """The page of a comparison."""
    judged = [pair for pair in comparison.pairs if all(release.judged for release in pair.releases)]
    private = dict.fromkeys(name for document in comparison.documents for name in document.data.private)
    return template("compared.html").render(
        title=f"Two audits side by side: hiding {words.listed(list(private)) or 'no private attribute'}",
        c=comparison,
        sides=SIDES,
        judged=judged,
        plain={pair.name: list(_plain(comparison, pair)) for pair in judged},
        doubts=list(_doubts(comparison)),
        facts=list(_facts(comparison)),
        failed=list(_failed(comparison)),
        verdicts={pair.name: _verdicts(comparison, pair) for pair in judged},
        threats={pair.name: rows for pair in comparison.pairs if (rows := _threats(comparison, pair))},
        alone=[_alone(comparison, side) for side in (0, 1)],
        figure_name=lambda figure: CODES[figure.code].meaning,
        moment=moment,
    )


def _plain(comparison: Comparison, pair: Pair) -> Iterator[Markup]:
    """What a release hides and keeps in both audits, as numbers of 100."""
    told = [_trusted(each, release) for each, release in zip(comparison.sentences, pair.releases, strict=True)]
    for figure in pair.figures:
        if figure.code not in WORDS or not all(figure.findings) or not all(figure.target in each for each in told):
            continue
        numbers = [100 * f.figures()[0] for f in figure.findings if f is not None]
        shown = [Markup("<b>{:.0f}</b> in {}").format(n, side) for n, side in zip(numbers, SIDES, strict=True)]
        sentence = Markup(WORDS[figure.code]).format(Markup(" and ").join(shown))
        of = f"{figure.target}: " if figure.target != "identity" else ""
        yield Markup("{}{} {}.").format(words.capitalised(of), sentence, words.capitalised(figure.says))


def _failed(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    """The audits of which controls failed, and what that means."""
    for side, checks in zip(SIDES, comparison.checks, strict=True):
        if meanings := [check.meaning for check in checks if check.outcome == "failed"]:
            yield side, meanings


def _trusted(sentences: Mapping[str, Sequence[Sentence]], release: Release) -> set[str]:
    """The labels and uses of which the verdict speaks in plain words: nothing speaks against their figures."""
    return {each.plain.target for each in sentences.get(release.name, ()) if each.plain is not None}


def _doubts(comparison: Comparison) -> Iterator[str]:
    """In sentences, what besides the releases may be why figures differ."""
    a, b = comparison.documents
    if not a.data.fingerprint or a.data.fingerprint != b.data.fingerprint:
        known = a.data.fingerprint and b.data.fingerprint
        yield (
            f"{'They are' if known else 'It is not known whether they are'} of different data. A difference may come "
            "from the people as well as from the releases, and persons cannot be paired."
        )
    if a.data.attack_on != b.data.attack_on:
        yield (
            f"Attackers learned from other splits ({', '.join(a.data.attack_on) or 'not recorded'} in A, "
            f"{', '.join(b.data.attack_on) or 'not recorded'} in B): who has more learns more."
        )
    if a.made.effort != b.made.effort:
        yield (
            f"Attackers\N{RIGHT SINGLE QUOTATION MARK} effort differs ({a.made.effort or 'not recorded'} in A, "
            f"{b.made.effort or 'not recorded'} in B): who tries harder finds more."
        )
    if a.veil != b.veil:
        yield (
            f"Veil differs ({a.veil or 'not recorded'} in A, {b.veil or 'not recorded'} in B): the attackers may be "
            "others, and a release that gives more away to them may be what it was."
        )


def _facts(comparison: Comparison) -> Iterator[tuple[str, list[str], bool]]:
    """What each audit is of, and how it was made: a name, a text of each, and whether they differ."""
    rows: dict[str, list[str]] = {}
    for document in comparison.documents:
        data, made = document.data, document.made
        told = {
            "Data": data.fingerprint,
            "Rows": "" if data.n is None else f"{data.n:,} {data.kind or 'rows'}",
            "People": "not known" if data.identities is None else f"{data.identities:,}",
            "To hide": ", ".join(data.private) or "nothing",
            "To keep": ", ".join(data.utility) or "nothing",
            "Attackers learned on": ", ".join(data.attack_on),
            "Effort": made.effort,
            "Seed": "" if document.seed is None else str(document.seed),
            "Level of intervals": "" if made.level is None else words.share(made.level),
            "Audited": moment(document),
            "By": made.by,
            "Veil": document.veil,
            "System": made.system,
        }
        for name, text in told.items():
            rows.setdefault(name, []).append(text or "not recorded")
    for name in dict.fromkeys(name for document in comparison.documents for name in document.data.about):
        rows[f"Declared {name}"] = [d.data.about.get(name, "not declared") for d in comparison.documents]
    versions = [document.made.versions for document in comparison.documents]
    for name in dict.fromkeys([*versions[0], *versions[1]]):
        both = [each.get(name, "not recorded") for each in versions]
        if both[0] != both[1]:
            rows[name] = both
    yield from ((name, both, both[0] != both[1]) for name, both in rows.items())
    yield "Fingerprint of its findings (SHA-256)", list(comparison.fingerprints), False


def _verdicts(comparison: Comparison, pair: Pair) -> list[tuple[str, list[list[Markup]]]]:
    """By goal the sentences of both audits."""
    goals: dict[str, list[list[Markup]]] = {}
    for side, release in enumerate(pair.releases):
        for sentence in comparison.sentences[side].get(release.name, ()):
            goals.setdefault(sentence.goal or "Its training", [[], []])[side].append(sentence.exact)
    return list(goals.items())


def _threats(comparison: Comparison, pair: Pair) -> list[tuple[str, str, list[threats.Answer]]]:
    """By threat model what the worst attack got in each; none where it is not of both that there are such tables."""
    answers = []
    for document, release in zip(comparison.documents, pair.releases, strict=True):
        names = [r.name for r in threats.judged(document)]
        if release.name not in names:
            return []
        answers.append([threat.answers[names.index(release.name)] for threat in threats.threats(document)])
    return [
        (code, who, list(both))
        for (code, who), both in zip(threats.MODELS.items(), zip(*answers, strict=True), strict=True)
    ]


def _alone(comparison: Comparison, side: int) -> list[str]:
    """What one audit measured and the other did not."""
    paired = {pair.releases[side].name for pair in comparison.pairs}
    others = [r.name for r in comparison.documents[side].releases if r.name not in paired]
    alone = [f"{name}: the release, with all its figures" for name in others]
    for pair in comparison.pairs:
        missing = [f for f in pair.figures if f.findings[side] is not None and f.findings[1 - side] is None]
        listed = [f"{CODES[f.code].title} of {f.target}" for f in missing]
        alone += [f"{pair.releases[side].name}: {'; '.join(listed)}"] if listed else []
    return alone
