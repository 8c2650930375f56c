"""Labels that nobody has: a classifier of the user's guesses them, and the pack says that they were guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from veil.data.pack import Pack, Predicted
from veil.data.predicted import class_names, label_name, write_label
from veil.errors import InputError, check_type, checked_names, checked_path
from veil.nn.embedders import laid_before
from veil.nn.onnxfile import OnnxNetwork

Progress = Callable[[int, int | None, int], None]
_BATCH = 256
_SUMS = 1e-3
"""How far rows of probabilities may sum to something else than 1."""
NO_CLASS = "-"
"""What stands in place of a class for a value that is none: an age beside two logits, say."""


def label(
    pack: str | Path,
    name: str,
    *,
    classifier: str | Path,
    classes: Sequence[str] | None = None,
    settings: Mapping[str, str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Pack:
    """Have a classifier guess a label of a pack's images, and write its guesses into the pack; the pack then.

    They are marked as predicted, and by what; releases, findings and reports say so. The folder is replaced whole or
    not at all.

    Args:
        pack: The folder of a pack of images.
        name: The label to write.
        classifier: ONNX file: float32 images ``(B, 3 or 1, H, W)``, in [-1, 1] unless it is declared otherwise, to a
            logit for each class, or to one, of the second of two classes.
        classes: Names of the classes, in the order of the logits, ``"-"`` for a value that is no logit; None for those
            in the file's metadata.
        settings: What is declared of the file, as for :class:`veil.nn.onnxfile.OnnxNetwork`.
        force: Whether a label of that name is replaced.
        progress: Told about rows done, rows in all, and 0.

    Raises:
        InputError: If the file or the pack does not serve, or all images are called one class.
    """
    if classes is not None:
        checked_names("classes", classes)
    check_type("name", name, str, "a text")
    classifier = checked_path("classifier", classifier)
    opened = Pack.open(pack, verify=True)  # all of it is read anyway, and its hashes are taken over
    if opened.kind != "images":
        raise InputError(f"{pack}: must be a pack of images, which a classifier can be shown, got vectors")
    name = label_name(opened, name, force=force)
    network = OnnxNetwork(classifier, declared=settings)
    names, logits = _told(network, name, list(classes or network.classes))
    see = laid_before(network, opened)
    guesses, sure = np.empty(len(opened), np.int64), np.empty(len(opened))
    shares = network.width == 1
    for start in range(0, len(opened), _BATCH):
        out = see(opened.x[start : start + _BATCH]).astype(np.float64)
        here = slice(start, start + len(out))
        shares = shares and bool(((out >= 0) & (out <= 1)).all())
        guesses[here], sure[here] = _read(out[:, logits])
        if progress is not None:
            progress(here.stop, len(opened), 0)
    if len(np.unique(guesses)) < 2:
        doubt = "; a single value must be a logit, above 0 for the second class, and not a probability" * shares
        raise InputError(
            f"{classifier}: calls all {len(opened):,} images {names[guesses[0]]!r}, which tells nobody apart{doubt}; "
            "does it see them as it was trained to (colours, mean, std, eyes)?"
        )
    by = Predicted(file=network.name, sha256=network.digest, confidence=round(float(sure.mean()), 4))
    return write_label(opened, name, guesses, names, by, force=force)


def _told(network: OnnxNetwork, label: str, told: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """The classes of a label by what the values of a network are called, and which of these are logits.

    Raises:
        InputError: If they are called nothing, or there are not as many.
    """
    if not told:
        raise InputError(
            f"{network.path}: does not say what its classes are called; name them in the order of its logits "
            "(--classes A,B), or in its metadata (classes)"
        )
    logits = [i for i, each in enumerate(told) if each != NO_CLASS]
    names = class_names(label, [told[i] for i in logits])
    if network.width == 1 and len(told) == len(names) == 2:
        return names, [0]
    if network.width != len(told):
        raise InputError(
            f"{network.path}: must give a logit for each of {', '.join(told)}, so {len(told)}"
            f"{' or 1' * (len(names) == 2)}, got {network.width} (- stands for a value that is no logit)"
        )
    return names, logits


def _read(out: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The class of each row of logits ``(n, Z or 1)``, and how sure it is, by the softmax; probabilities stay."""
    are_shares = out.shape[1] > 1 and (out >= 0).all() and (np.abs(out.sum(1) - 1) <= _SUMS).all()
    if out.shape[1] == 1:
        out = np.concatenate([np.zeros_like(out), out], 1)
    guesses: NDArray[np.int64] = out.argmax(1)
    if not are_shares:
        powers = np.exp(out - out.max(1, keepdims=True))
        out = powers / powers.sum(1, keepdims=True)
    return guesses, out.max(1)
