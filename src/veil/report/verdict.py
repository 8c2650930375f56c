"""The verdict: whether the audit can be trusted, by its controls, and what each release hides and keeps, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from veil.findings import CODES, NO_BETTER, Finding
from veil.findings.codes import ATTACK, SEEN
from veil.report.document import Document, Release
from veil.report.plain import Plain, plain
from veil.report.words import FURTHER, capitalised, chance, interval, limit, listed, number, share, use_name


@dataclass(frozen=True, kw_only=True)
class Check:
    """One control of the audit itself.

    Attributes:
        name: The control.
        release: Whose control it is; "" for the audit's.
        target: The private attribute or the use whose figures rest on it.
        finding: What was measured; None where nothing was.
        expected: What the figure must be, in words.
        outcome: ``"passed"``, ``"failed"``, ``"missing"`` (it cannot be judged) or ``"reference"`` (a figure to compare
            with).
        meaning: What follows, where it did not pass.
    """

    name: str
    release: str = ""
    target: str
    finding: Finding | None = None
    expected: str
    outcome: str
    meaning: str = ""

    @property
    def of_training(self) -> bool:
        """Whether it asks if a release was fitted on whom it is measured on."""
        return self.finding is not None and self.finding.code == SEEN

    @property
    def of_inversion(self) -> bool:
        """Whether its figure is a decoder's."""
        return self.finding is not None and self.finding.family == "inversion"


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """What the verdict says of one release and one goal.

    Attributes:
        goal: What should be hidden, or kept; "" where it is about neither.
        plain: The figure as a number of 100, where it has such words and can be trusted.
        exact: The figure with its interval, and all that goes with it.
    """

    goal: str = ""
    plain: Plain | None = None
    exact: Markup


# -- controls ---------------------------------------------------------------------------------------------------------


def controls(document: Document) -> list[Check]:
    """Whether the audit can be trusted: releases must not have been fitted on the people that they are measured on, and
    attacks must work on the input and fail on shuffled labels."""
    measured = document.select(role="control")
    others = [f for f in measured if f.code != SEEN and f.family != "inversion"]
    return [
        *(_training_check(document, f) for f in measured if f.code == SEEN),
        *(_input_check(document, target, private=True) for target in document.data.private),
        *(
            _input_check(document, target, private=False)
            for target in (() if document.of_scores else document.data.utility)
        ),
        *(
            _no_shuffled_check(private)
            for private in document.data.private
            if not any(is_shuffled(f) for f in measured if f.target == private)
        ),
        *(_shuffled_check(f) for f in others if is_shuffled(f)),
        *_references([f for f in others if not is_shuffled(f)]),
        *(check for release in document.releases for check in _inversion_checks(document, release)),
    ]


def failures(document: Document) -> list[str]:
    """What controls that failed mean; that a release has seen those it is measured on is told elsewhere."""
    return [check.meaning for check in controls(document) if check.outcome == "failed" and not check.of_training]


def guessed(document: Document) -> list[str]:
    """A sentence for each label that was not observed but predicted, and by what."""
    return [
        f"The label {name} was predicted by {by['file']} (SHA-256 {by['sha256'][:16]}\N{HORIZONTAL ELLIPSIS}), not "
        "observed: figures are about its guesses, and where these are wrong an attack may learn less, or more, of the "
        "truth."
        for name, label in document.data.labels.items()
        if (by := label.predicted)
    ]


def doubt(finding: Finding, checks: Sequence[Check], holds: bool) -> str:
    """Why a figure may mean nothing; "" where nothing speaks against it. ``holds`` says whether it is as is hoped.

    A control that is missing leaves open whether an attack could have worked; one that did work needs no control.
    """
    for check in checks:
        if check.of_training:
            about = check.release == finding.release and finding.code != SEEN
        elif check.of_inversion:
            about = check.release == finding.release and finding.family == "inversion"
        else:
            about = check.target == finding.target
        missing = check.outcome == "missing" and finding.role == "attack" and holds
        if about and (check.outcome == "failed" or missing):
            return f"a control {'is missing' if missing else 'failed'}: {check.meaning}"
    return ""


def doubted(checks: Sequence[Check]) -> str:
    """Whose figures rest on these checks."""
    return ", ".join(dict.fromkeys(f"the release {c.release}" if c.of_training else c.target for c in checks))


def share_of_luck(checks: Sequence[Check]) -> str:
    """How often a shuffled-label control fails by luck alone; "" unless one of several did."""
    shuffled = [c for c in checks if c.finding is not None and is_shuffled(c.finding) and c.outcome != "missing"]
    failed = [c for c in shuffled if c.outcome == "failed"]
    if not failed or len(shuffled) < 2 or failed[0].finding is None:
        return ""
    level = failed[0].finding.level
    return (
        f"{len(failed)} of {len(shuffled)} shuffled-label controls failed; of intervals at {share(level)}, about "
        f"{share(1 - level)} miss by luck, more where people are few. Audit again with another seed to tell luck from "
        "a fault."
    )


def is_shuffled(finding: Finding) -> bool:
    """Whether it is of an attacker that learned from shuffled labels, or of a decoder from shuffled pairs."""
    return finding.attacker.lower().startswith("shuffled")


def _training_check(document: Document, finding: Finding) -> Check:
    """Nothing that a release is measured on may have been in its training; of vectors from outside nobody can know."""
    outcome, meaning = "passed", ""
    if not finding.ok:
        made_here = any(release.name == finding.release and release.method for release in document.releases)
        outcome = "missing" if made_here else "reference"
        meaning = f"{finding.release}: {finding.note}."
    elif finding.value:
        outcome = "failed"
        meaning = f"{finding.release} is measured on people, or rows, that it was fitted on: {finding.note}."
    return Check(
        name="Training data", release=finding.release, target="any", finding=finding, expected="none seen",
        outcome=outcome, meaning=meaning,
    )  # fmt: skip


def _input_check(document: Document, target: str, *, private: bool) -> Check:
    source = document.input
    figure = None
    if source is not None:
        figure = document.attack(source.name, target) if private else document.use(source.name, target)
    what = f"the attack on {target}" if private else use_name(target).lower()
    if source is None:
        outcome, meaning = "missing", f"The unprotected input was not audited, so nothing shows that {what} can work."
    elif figure is None:
        outcome, meaning = "missing", f"On the unprotected input {what} has no figure."
    elif (figure.low or 0.0) > (figure.chance or 0.0):
        outcome, meaning = "passed", ""
    else:
        outcome, meaning = "failed", f"On the unprotected input {what} is not above chance ({_measured(figure)})."
    return Check(
        name="Attack on the unprotected input" if private else "Use of the unprotected input",
        release="" if source is None else source.name, target=target, finding=figure,
        expected="interval above chance", outcome=outcome, meaning=meaning,
    )  # fmt: skip


def _no_shuffled_check(private: str) -> Check:
    return Check(
        name="Shuffled labels", target=private, expected="interval covers chance", outcome="missing",
        meaning=f"No attack on shuffled labels of {private} was measured.",
    )  # fmt: skip


def _shuffled_check(finding: Finding) -> Check:
    where = f"The {finding.attacker} control for {finding.target}" + (f" on {finding.release}" * bool(finding.release))
    if not finding.ok:
        outcome, meaning = "missing", f"{where} has no figure ({finding.note})."
    elif (finding.low or 0.0) <= (finding.chance or 0.0) <= (finding.high or 0.0):
        outcome, meaning = "passed", ""
    else:
        outcome, meaning = "failed", f"{where} is off chance ({_measured(finding)}), though nothing is there to learn."
    return Check(
        name=capitalised(finding.attacker), release=finding.release, target=finding.target, finding=finding,
        expected="interval covers chance", outcome=outcome, meaning=meaning,
    )  # fmt: skip


def _references(findings: Sequence[Finding]) -> list[Check]:
    """Controls that are only compared with, such as the majority class; one row where releases agree."""
    alike: dict[tuple[object, ...], list[Finding]] = {}
    for f in findings:
        alike.setdefault((f.attacker, f.code, f.target, f.value, f.low, f.high, f.status), []).append(f)
    return [
        Check(
            name=capitalised(same[0].attacker), target=same[0].target, finding=same[0], expected="for comparison",
            release=listed([f.release for f in same]) if len(same) < 3 else f"{len(same)} releases",
            outcome="reference",
        )
        for same in alike.values()
    ]  # fmt: skip


def _inversion_checks(document: Document, release: Release) -> list[Check]:
    """A decoder that learned from pairs dealt at random must find people by luck only."""
    dealt = document.select(role="control", release=release.name, code="inversion.rank1")
    checks = []
    for f in dealt:
        if is_shuffled(f) and f.low is not None and f.chance is not None:
            fine = f.low <= f.chance
            meaning = f"The {f.attacker} control on {f.release} finds people ({_measured(f)}): decoders cheat."
            checks.append(
                Check(
                    name=capitalised(f.attacker), release=f.release, target=CODES[f.code].title, finding=f,
                    expected="no better than chance", outcome="passed" if fine else "failed",
                    meaning="" if fine else meaning,
                )
            )  # fmt: skip
    return checks


def _measured(finding: Finding) -> str:
    both = interval(finding.code, finding.low, finding.high)
    return f"{number(finding.code, finding.value)}, interval {both}, chance {chance(finding)}"


# -- sentences --------------------------------------------------------------------------------------------------------


def verdicts(document: Document, checks: Sequence[Check]) -> list[tuple[Release, list[Sentence]]]:
    """For each release that was asked for its sentences: one per private attribute, then one per use."""
    failed = [check for check in checks if check.outcome == "failed"]
    broken = {check.target for check in failed if not check.of_training}
    training = {c.release: c for c in checks if c.of_training and c.outcome in ("failed", "missing")}
    cheated = {check.release for check in failed if check.of_inversion}
    verdicts = []
    for release in document.releases:
        if release.judged:
            check = training.get(release.name)
            seen = check is not None and check.outcome == "failed"
            sentences = [] if check is None else [Sentence(exact=_training_sentence(check))]
            for private in document.data.private:
                doubt = seen or private in broken
                exact = _attack_sentence(document, release, private, doubt)
                worst = None if doubt else document.attack(release.name, private)
                sentences.append(_sentence(document, f"To hide: {private}", worst, exact))
            redrawn = _inversion_sentence(document, release, seen or release.name in cheated)
            sentences += [] if redrawn is None else [Sentence(goal="To hide: the picture itself", exact=redrawn)]
            for use in document.data.utility:
                doubt = seen or use in broken
                exact = _use_sentence(document, release, use, doubt)
                kept = None if doubt else document.use(release.name, use)
                name = use_name(use)
                sentences.append(_sentence(document, f"To keep: {name[0].lower()}{name[1:]}", kept, exact))
            verdicts.append((release, sentences))
    return verdicts


def spoken(document: Document) -> list[str]:
    """The verdicts as lines of text, in plain words where there are any."""
    lines = []
    for release, sentences in verdicts(document, controls(document)):
        for each in sentences:
            words = each.exact if each.plain is None else each.plain.words
            goal = f" {each.goal}." if each.goal else ""
            lines.append(f"{release.name}.{goal} {capitalised(words.striptags())}")
    return lines


def _sentence(document: Document, goal: str, figure: Finding | None, exact: Markup) -> Sentence:
    return Sentence(goal=goal, plain=None if figure is None else plain(document, figure), exact=exact)


def _training_sentence(check: Check) -> Markup:
    """What a release knows of those that it is measured on, where that is something, or not known."""
    assert check.finding is not None
    words = '<em class="distrust">{}.</em>' if check.outcome == "failed" else "{}."
    return Markup(words).format(check.finding.note)


def _attack_sentence(document: Document, release: Release, private: str, broken: bool) -> Markup:
    """How far the worst attack gets, and what else is known of attacks on an attribute."""
    worst = document.attack(release.name, private)
    tried = document.select(role="attack", release=release.name, target=private, code=ATTACK)
    if worst is None:
        why = "every attacker failed to converge or does not apply" if tried else "no attacker was tried"
        return Markup("no attack on {} gave a figure ({}), so nothing is known.").format(private, why)
    sentence = Markup("the worst tested attack on {} ({}) reaches {} {}{}.").format(
        private, worst.attacker, _amount(worst), _qualified(document, worst, True), _attack_on_input(document, worst)
    )
    if worst.code != ATTACK:
        sentence += Markup(
            " At its threshold it names one class for everybody: a balanced accuracy would tell nothing of what it "
            "knows."
        )
    sentence += _certificate(document, release, private) + _higher(document, worst)
    broke_off = [f.attacker for f in tried if f.status == "did_not_converge"]
    if broke_off:
        sentence += Markup(" {} did not converge: what they would find is not known.").format(listed(broke_off))
    for code in FURTHER:
        sentence += _further(document, worst, code)
    return sentence + _distrust(broken)


def _attack_on_input(document: Document, worst: Finding) -> Markup:
    """What the worst attack reaches without protection."""
    source = document.input
    before = None if source is None else document.attack(source.name, worst.target, worst.code)
    if before is None:
        return Markup("")
    who = "it" if before.attacker == worst.attacker else f"the worst ({before.attacker})"
    unit = "" if before.code == worst.code else f" {CODES[before.code].title}"
    return Markup("; on the unprotected input {} reaches {}{}").format(who, number(before.code, before.value), unit)


def _certificate(document: Document, release: Release, private: str) -> Markup:
    bound = document.bound(release.name, private)
    if bound is None:
        return Markup("")
    return Markup(
        " Certified: from one release of a person, no attacker of any kind exceeds <strong>{}</strong> on fresh "
        "data of the same population ({} confidence)."
    ).format(number(ATTACK, limit(bound)), share(bound.level))


def _higher(document: Document, worst: Finding) -> Markup:
    """Who measures higher on the test data than who was picked on validation data."""
    alike = document.select(role="attack", release=worst.release, target=worst.target, code=worst.code)
    top = max((f for f in alike if f.ok), key=lambda f: f.value or 0.0, default=worst)
    if (top.value or 0.0) <= (worst.value or 0.0):
        return Markup("")
    return Markup(" On the test data another attacker measures higher still ({}, {}).").format(
        top.attacker, number(top.code, top.value)
    )


def _further(document: Document, worst: Finding, code: str) -> Markup:
    """What an attack reaches on means of releases, or restored ones, where that is more than on one as it is."""
    figure, single = document.attack(worst.release, worst.target, code), worst
    if figure is not None and (figure.code, worst.code) != (code, ATTACK):  # like is compared with like
        figure = document.attack(worst.release, worst.target, CODES[code].stand_in)
        single = document.attack(worst.release, worst.target, CODES[ATTACK].stand_in) or worst
    if figure is None or (figure.value or 0.0) <= (single.value or 0.0):
        return Markup("")
    amount = _amount(figure) if figure.code != code else number(figure.code, figure.value)
    return Markup(" {} an attack ({}) reaches {} {}.").format(
        FURTHER[code], figure.attacker, amount, _qualified(document, figure, True)
    )


def _inversion_sentence(document: Document, release: Release, broken: bool) -> Markup | None:
    """What the worst decoder redraws; None where no inversion was tried."""
    tried = [f for f in document.select(role="attack", release=release.name) if f.family == "inversion"]
    worst = document.inversion(release.name)
    if worst is None:
        return Markup("attacks by inversion gave no figure, so nothing is known of them.") if tried else None
    sentence = Markup("the worst tested decoder ({}) redraws the original with a {} of <strong>{}</strong>").format(
        worst.attacker, CODES[worst.code].title, number(worst.code, worst.value)
    )
    if worst.chance is not None and worst.low is not None:
        better = "; it does not clearly better" if worst.note.startswith(NO_BETTER) else ""
        sentence += Markup(" (without releases: {}{})").format(number(worst.code, worst.chance), better)
    person = document.attack(release.name, "identity", "inversion.rank1")
    if person is not None:
        sentence += Markup("; from that picture the person is found first in {} {}").format(
            number(person.code, person.value), _qualified(document, person, True)
        )
    return sentence + Markup(".") + _distrust(broken)


def _use_sentence(document: Document, release: Release, use: str, broken: bool) -> Markup:
    kept = document.use(release.name, use)
    if kept is None:
        return Markup("{} has no figure.").format(use_name(use))
    sentence = Markup("{} keeps {} {}").format(use_name(use), _amount(kept), _qualified(document, kept, False))
    source = document.input
    before = None if source is None else document.use(source.name, use, kept.code)
    if before is not None:
        sentence += Markup(", input\u00a0{}").format(number(before.code, before.value))
    return sentence + Markup(".") + _distrust(broken)


def _amount(finding: Finding) -> Markup:
    """A figure with its unit, in words that follow a verb: "61.2 % balanced accuracy", "an AUC of .914"."""
    code = CODES[finding.code]
    value = Markup("<strong>{}</strong>").format(number(finding.code, finding.value))
    return (Markup("{} {}") if code.style == "percent" else Markup("an {1} of {0}")).format(value, code.title)


def _qualified(document: Document, finding: Finding, with_chance: bool) -> Markup:
    """The interval of a figure, and its chance, in brackets."""
    both = interval(finding.code, finding.low, finding.high)
    # A line must not break inside a range: half of it would read as another figure.
    words = Markup('{} interval <span class="range">{}</span>').format(share(finding.level), both)
    unit = "pair taken for itself" if document.of_scores else "row a person"
    rows = f", each {unit}" if document.data.identities is None else ""
    return Markup("({}{}{})").format(words, rows, f"; chance {chance(finding)}" if with_chance else "")


def _distrust(broken: bool) -> Markup:
    return Markup(' <em class="distrust">A control failed: this figure means nothing.</em>') if broken else Markup("")
