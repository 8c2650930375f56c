"""Attackers: classifiers trained from scratch on releases to read a label, and matchers trained to tell people apart.

An attacker is one function ``attack(problem) -> score`` where ``score(x)`` gives class scores ``(n, Z)``, larger for
likelier; a matcher is one function ``match(problem) -> embed`` where ``embed(x)`` gives vectors to compare by cosine.
Both see a :class:`Problem` and nothing else. To add one, write the function and name it in :data:`ATTACKERS` or
:data:`MATCHERS`.

Attackers count every class the same (class weights, or class-balanced votes): the figure is balanced accuracy. The
strong ones (residual MLPs with mixup, several restarts averaged) follow what beat simpler ones on face templates.
"""

from __future__ import annotations

from collections.abc import Callable

from veil.auditing.classical import best_match, boosted_trees, logistic, lookup_table, nearest_neighbours, rbf_svm
from veil.auditing.networks import mlps, plain_cnn, residual_cnn, residual_mlps, six_convolutions
from veil.auditing.problem import Problem, Score

ATTACKERS: dict[str, Callable[[Problem], Score]] = {
    "lookup table": lookup_table,
    "logistic regression": logistic,
    "15 nearest neighbours": nearest_neighbours,
    "best match": best_match,
    "RBF SVM": rbf_svm,
    "boosted trees": boosted_trees,
    "MLPs": mlps,
    "residual MLPs": residual_mlps,
    "six convolutions": six_convolutions,
    "residual CNN": residual_cnn,
    "plain CNN": plain_cnn,
}
"""Every attribute attacker by the name that findings give it."""

CONVOLUTIONAL = ("six convolutions", "residual CNN", "plain CNN")
"""Attackers that need images or feature maps."""

FINITE = ("lookup table",)
"""Attackers of releases whose values recur."""
