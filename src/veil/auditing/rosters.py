"""Who attacks at each effort."""

from __future__ import annotations

from typing import Any

from veil.auditing.attackers import ATTACKERS
from veil.auditing.decoders import DECODERS
from veil.auditing.linkage import LINKERS
from veil.auditing.matchers import MATCHERS
from veil.auditing.restoration import OF_IMAGES, OF_VECTORS
from veil.auditing.setting import Roster
from veil.auditing.transfer import CLASSIFIERS

_QUICK = (
    "lookup table", "logistic regression", "best match", "RBF SVM", "boosted trees", "MLPs", "residual CNN",
    "plain CNN",
)  # fmt: skip
_QUICK_LINKERS = ("canonical correlations",)
_OF_MEANS = ("logistic regression", "RBF SVM", "MLPs", "residual MLPs")
_QUICK_OF_MEANS = ("logistic regression", "MLPs")
_OF_TEMPLATES = "RBF SVM"
_QUICK_RESTORERS = ("denoised", "blurred", "mapped back")
_OF_RESTORED = ("best match", "MLPs")
_QUICK_OF_RESTORED = ("best match",)
_OF_MEMBERS = ("logistic regression", "RBF SVM", "boosted trees")
_QUICK_OF_MEMBERS = ("logistic regression",)
_CONTROL = "RBF SVM"  # it memorises, is quick, and takes any width


def roster(effort: str, **changes: Any) -> Roster:
    """Those who take part in an audit of this effort, but for changes, by the names of :class:`Roster`'s attributes."""
    quick = effort == "quick"
    own: dict[str, Any] = {
        "attackers": {n: a for n, a in ATTACKERS.items() if not quick or n in _QUICK},
        "of_means": {n: ATTACKERS[n] for n in (_QUICK_OF_MEANS if quick else _OF_MEANS)},
        "of_templates": {_OF_TEMPLATES: ATTACKERS[_OF_TEMPLATES]},
        "restorers": {n: r for n, r in {**OF_IMAGES, **OF_VECTORS}.items() if not quick or n in _QUICK_RESTORERS},
        "of_restored": {n: ATTACKERS[n] for n in (_QUICK_OF_RESTORED if quick else _OF_RESTORED)},
        "of_members": {n: ATTACKERS[n] for n in (_QUICK_OF_MEMBERS if quick else _OF_MEMBERS)},
        "control": (_CONTROL, ATTACKERS[_CONTROL]),
        "classifiers": {n: ATTACKERS[n] for n in CLASSIFIERS},
        "matchers": MATCHERS,
        "linkers": {n: a for n, a in LINKERS.items() if not quick or n in _QUICK_LINKERS},
        "decoders": DECODERS,
    }
    return Roster(**(own | changes))
