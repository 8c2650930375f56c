"""The methods by name. A method is one file that reads top to bottom like its paper."""

from __future__ import annotations

from veil.methods import aia, baselines, inversion, mi, san, substitution, template
from veil.methods.protocol import Method

METHODS: dict[str, Method] = {
    "aia": Method(
        config=aia.Config,
        presets=aia.PRESETS,
        fit=aia.fit,
        build=aia.build,
        build_decoder=aia.build_decoder,
        references=frozenset({"original", "without-task", "deep-original"}),
    ),
    "template": Method(
        config=template.Config,
        presets=template.PRESETS,
        fit=template.fit,
        build=template.build,
        references=frozenset({"aligned", "noise"}),
        strength="hide",
    ),
    "mi": Method(
        config=mi.Config,
        presets=mi.PRESETS,
        fit=mi.fit,
        build=mi.build,
    ),
    "substitution": Method(
        config=substitution.Config,
        presets=substitution.PRESETS,
        fit=substitution.fit,
        build=substitution.build,
    ),
    "inversion": Method(
        config=inversion.Config,
        presets=inversion.PRESETS,
        fit=inversion.fit,
        build=inversion.build,
        build_classifier=inversion.build_classifier,
        references=frozenset({"unprotected"}),
        hides=False,
        files=frozenset({"weights", "perceptual_weights"}),
    ),
    "san": Method(
        config=san.Config,
        presets=san.PRESETS,
        fit=san.fit,
        build=san.build,
        files=frozenset({"matcher"}),
    ),
    "leace": Method(
        config=baselines.LeaceConfig,
        presets={"default": baselines.LeaceConfig()},
        fit=baselines.fit_leace,
        build=baselines.build_leace,
        build_decoder=baselines.build_decoder,
        references=frozenset({"default"}),
    ),
    "random": Method(
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
