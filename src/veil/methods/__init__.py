"""The methods by name. A method is one file that reads top to bottom like its paper."""

from __future__ import annotations

from veil.methods import aia, baselines, inversion, mi, san, substitution, template
from veil.methods.protocol import Method

METHODS: dict[str, Method] = {
    "aia": Method(
        summary="Adversarial Image Anonymizer: a vector that matches, or keeps a label, and hides attributes",
        config=aia.Config,
        presets=aia.PRESETS,
        fit=aia.fit,
        build=aia.build,
        build_decoder=aia.build_decoder,
        references=frozenset({"original", "without-task", "deep-original"}),
    ),
    "template": Method(
        summary="protects stored vectors (face templates): aligns and guards, or erases what tells; keyed noise",
        config=template.Config,
        presets=template.PRESETS,
        fit=template.fit,
        build=template.build,
        references=frozenset({"aligned", "noise"}),
        strength="hide",
    ),
    "mi": Method(
        summary="redraws images without mutual information with private labels; a discriminator keeps their kind",
        config=mi.Config,
        presets=mi.PRESETS,
        fit=mi.fit,
        build=mi.build,
    ),
    "substitution": Method(
        summary="releases one of finitely many substitutes, averages of several people, with a certified bound",
        config=substitution.Config,
        presets=substitution.PRESETS,
        fit=substitution.fit,
        build=substitution.build,
    ),
    "inversion": Method(
        summary="a network's representation that keeps labels and from which the picture cannot be redrawn",
        config=inversion.Config,
        presets=inversion.PRESETS,
        fit=inversion.fit,
        build=inversion.build,
        build_classifier=inversion.build_classifier,
        references=frozenset({"unprotected"}),
        hides=False,
    ),
    "san": Method(
        summary="face images that still match, redrawn beside the average face of the opposite class",
        config=san.Config,
        presets=san.PRESETS,
        fit=san.fit,
        build=san.build,
    ),
    "leace": Method(
        summary="baseline: exact linear erasure of the attributes from the input or from --base's releases",
        config=baselines.LeaceConfig,
        presets={"default": baselines.LeaceConfig()},
        fit=baselines.fit_leace,
        build=baselines.build_leace,
        build_decoder=baselines.build_decoder,
        references=frozenset({"default"}),
    ),
    "random": Method(
        summary="baseline: half of the values of the input, or of --base's releases, replaced at random",
        config=baselines.RandomConfig,
        presets={"default": baselines.RandomConfig()},
        fit=baselines.fit_random,
        build=baselines.build_random,
        build_decoder=baselines.build_decoder,
        references=frozenset({"default"}),
    ),
}
"""What ``veil fit`` offers."""

__all__ = ["METHODS", "Method"]
