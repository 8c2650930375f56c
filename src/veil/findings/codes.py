"""The codes of findings: what each figure is, how it is written, and which attacker it tells of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Code:
    """A kind of figure.

    Attributes:
        title: Words that fit inside a sentence.
        heading: The head of a table's column.
        meaning: What it says to a reader.
        style: How it is written: ``"percent"`` (61.2 %), ``"fraction"`` (.914) or ``"plain"`` (23.4).
        chance: What it would be without any knowledge, where that is the same for all data.
        lower_tells_more: Whether the lower figure is the stronger attack's, or the better use's.
        threat: The attacker whom it tells of, ``"A0"`` to ``"A8"`` (docs/audit.md); "" for uses and controls.
        stand_in: The code that speaks in its place where a decision has no figure, for it names one class for
            everybody; "" where none does.
    """

    title: str
    heading: str
    meaning: str
    style: Literal["percent", "fraction", "plain"]
    chance: float | None = None
    lower_tells_more: bool = False
    threat: str = ""
    stand_in: str = ""


ATTACK = "attribute.balanced_accuracy"
GAIN = "attribute.normalised_gain"
TRANSFER = "attribute.transfer_balanced_accuracy"
POOLED = "attribute.pooled_balanced_accuracy"
REPEATED = "attribute.repeated_balanced_accuracy"
RESTORED = "attribute.restored_balanced_accuracy"
MATCHING = "verification.auc"
EER = "verification.eer"
SEEN = "training.seen"
CERTIFICATE = "certificate.balanced_accuracy"
"""How often a bound on every attacker is right, whatever it does."""

USES = (
    MATCHING,
    "verification.accuracy",
    "verification.lfw10_accuracy",
    "utility.balanced_accuracy",
    "utility.auc",
    "utility.mcc",
)
"""Figures that speak for a use, best first: the first one measured is taken."""
INVERSION = ("inversion.face_similarity", "inversion.similarity", "inversion.ssim")
"""Figures that speak for an attack by inversion, best first."""
LINKAGE = (
    "linkability.auc",
    "linkability.rank1",
    "identification.rank1_originals",
    "identification.rank1_releases",
)
"""Figures of records and people found again, whatever is private."""
CROSSED = ("unlinkability.d_sys", "unlinkability.learned_d_sys", "renewal.accepted")
"""Figures of releases of the same people under two keys."""
MEMBERSHIP = "membership.auc"
FNMR_AT: Mapping[float, str] = {
    0.001: "verification.fnmr_at_fmr_0.001",
    0.0001: "verification.fnmr_at_fmr_0.0001",
    0.00001: "verification.fnmr_at_fmr_0.00001",
}
"""By the false match rate."""
GROUP_FMR, GROUP_FNMR = "verification.group_fmr", "verification.group_fnmr"
RATIOS: Mapping[str, str] = {
    GROUP_FMR: "verification.group_fmr_ratio",
    GROUP_FNMR: "verification.group_fnmr_ratio",
}
RANKS: Mapping[int, str] = {1: "search.cmc_rank_1", 20: "search.cmc_rank_20"}
FNIR = "search.fnir_at_fpir_0.01"
BIOMETRIC = (*FNMR_AT.values(), *RANKS.values(), FNIR)
"""Matching by ISO/IEC 19795-1."""
BY_GROUP = (*RATIOS, *RATIOS.values())
SUPPRESSION, PIC = "attribute.suppression_rate", "attribute.pic"
SCORES = "scores"
"""The kind of data of which scores alone are there."""
LOOKS = ("verification.transfer_auc", "verification.mixed_auc", "utility.ssim", "utility.psnr")
"""What images are still good for to whoever knows originals alone."""

CODES: Mapping[str, Code] = {
    ATTACK: Code(
        title="balanced accuracy", heading="Balanced accuracy", style="percent", threat="A1",
        stand_in="attribute.auc", meaning="Balanced accuracy of an attribute attacker",
    ),
    "attribute.auc": Code(
        title="AUC", heading="AUC", style="fraction", chance=0.5, threat="A1",
        meaning="AUC of an attribute attacker",
    ),
    GAIN: Code(
        title="normalised gain", heading="Normalised gain", style="percent", chance=0.0, threat="A1",
        meaning="Share of the unprotected attack's gain over chance that is left",
    ),
    SUPPRESSION: Code(
        title="suppression rate", heading="Suppression rate", style="percent", lower_tells_more=True, threat="A1",
        meaning="Share of the unprotected attack's balanced accuracy that is lost",
    ),
    PIC: Code(
        title="PIC", heading="PIC", style="plain", lower_tells_more=True, threat="A1",
        meaning="Privacy-gain identity-loss coefficient: growth of the attack's error less growth of the EER",
    ),
    TRANSFER: Code(
        title="balanced accuracy", heading="Knows only originals", style="percent", threat="A0",
        stand_in="attribute.transfer_auc",
        meaning="Balanced accuracy of a classifier that knows originals alone",
    ),
    "attribute.transfer_auc": Code(
        title="AUC", heading="Knows only originals, AUC", style="fraction", chance=0.5, threat="A0",
        meaning="AUC of a classifier that knows originals alone",
    ),
    POOLED: Code(
        title="balanced accuracy", heading="Mean of several releases", style="percent", threat="A3",
        stand_in="attribute.pooled_auc",
        meaning="Balanced accuracy of an attack on means of releases of one person",
    ),
    "attribute.pooled_auc": Code(
        title="AUC", heading="Mean of several releases, AUC", style="fraction", chance=0.5, threat="A3",
        meaning="AUC of an attack on means of releases of one person",
    ),
    REPEATED: Code(
        title="balanced accuracy", heading="Mean over near-duplicates", style="percent", threat="A3",
        stand_in="attribute.repeated_auc",
        meaning="Balanced accuracy of an attack on means over near-duplicates of one input",
    ),
    "attribute.repeated_auc": Code(
        title="AUC", heading="Mean over near-duplicates, AUC", style="fraction", chance=0.5, threat="A3",
        meaning="AUC of an attack on means over near-duplicates of one input",
    ),
    RESTORED: Code(
        title="balanced accuracy", heading="Restored first", style="percent", threat="A6",
        stand_in="attribute.restored_auc",
        meaning="Balanced accuracy of an attack that knows originals on restored releases",
    ),
    "attribute.restored_auc": Code(
        title="AUC", heading="Restored first, AUC", style="fraction", chance=0.5, threat="A6",
        meaning="AUC of an attack that knows originals on restored releases",
    ),
    MATCHING: Code(
        title="AUC", heading="AUC", style="fraction", chance=0.5,
        meaning="Verification: area under the ROC curve",
    ),
    EER: Code(
        title="EER", heading="EER", style="percent", chance=0.5, lower_tells_more=True,
        meaning="Verification: equal error rate",
    ),
    "verification.tar_at_far_0.01": Code(
        title="TAR at FAR 1 %", heading="TAR at FAR 1 %", style="percent", chance=0.01,
        meaning="Verification: true-accept rate at a false-accept rate of 1 %",
    ),
    "verification.tar_at_far_0.001": Code(
        title="TAR at FAR 0.1 %", heading="TAR at FAR 0.1 %", style="percent", chance=0.001,
        meaning="Verification: true-accept rate at a false-accept rate of 0.1 %",
    ),
    "verification.accuracy": Code(
        title="accuracy", heading="Accuracy", style="percent", chance=0.5,
        meaning="Verification: mean of true-accept and true-reject rate at a calibrated threshold",
    ),
    "verification.lfw10_accuracy": Code(
        title="LFW 10-fold accuracy", heading="LFW 10-fold", style="percent", chance=0.5,
        meaning="Verification: accuracy over the ten folds of the LFW protocol",
    ),
    **{
        code: Code(
            title=f"FNMR at FMR {100 * fmr:.3g} %", heading=f"FNMR at FMR {100 * fmr:.3g} %", style="percent",
            chance=1 - fmr, lower_tells_more=True,
            meaning=f"Verification: false non-match rate at a false match rate of {100 * fmr:.3g} %, of all pairs",
        )
        for fmr, code in FNMR_AT.items()
    },
    GROUP_FMR: Code(
        title="FMR", heading="FMR", style="percent", chance=0.001, lower_tells_more=True,
        meaning="False match rate within a class, at the threshold of FMR 0.1 % of all test pairs",
    ),
    GROUP_FNMR: Code(
        title="FNMR", heading="FNMR", style="percent", chance=0.999, lower_tells_more=True,
        meaning="False non-match rate within a class, at that threshold",
    ),
    RATIOS[GROUP_FMR]: Code(
        title="largest ratio of FMRs", heading="Largest ratio of FMRs", style="plain", chance=1.0,
        lower_tells_more=True, meaning="Largest false match rate of a label's classes over the smallest",
    ),
    RATIOS[GROUP_FNMR]: Code(
        title="largest ratio of FNMRs", heading="Largest ratio of FNMRs", style="plain", chance=1.0,
        lower_tells_more=True, meaning="Largest false non-match rate of a label's classes over the smallest",
    ),
    RANKS[1]: Code(
        title="CMC at rank 1", heading="CMC, rank 1", style="percent",
        meaning="Search: share of probes whose mate comes first in a closed set",
    ),
    RANKS[20]: Code(
        title="CMC at rank 20", heading="CMC, rank 20", style="percent",
        meaning="Search: share of probes whose mate is among the first 20 in a closed set",
    ),
    FNIR: Code(
        title="FNIR at FPIR 1 %", heading="FNIR at FPIR 1 %", style="percent", lower_tells_more=True,
        meaning="Search: false negative identification rate at a false positive one of 1 %, in an open set",
    ),
    "verification.transfer_auc": Code(
        title="AUC", heading="Release with release, AUC", style="fraction", chance=0.5,
        meaning="Verification of releases by a matcher that knows originals alone: AUC",
    ),
    "verification.mixed_auc": Code(
        title="AUC", heading="Release with original, AUC", style="fraction", chance=0.5,
        meaning="Verification of a release against originals, by that matcher: AUC",
    ),
    "utility.ssim": Code(
        title="SSIM", heading="SSIM to the original", style="fraction", chance=0.0,
        meaning="Structural similarity of releases and their originals",
    ),
    "utility.psnr": Code(
        title="PSNR", heading="PSNR to the original, dB", style="plain", chance=0.0,
        meaning="Peak signal-to-noise ratio of releases to their originals, in dB",
    ),
    "utility.balanced_accuracy": Code(
        title="balanced accuracy", heading="Balanced accuracy", style="percent", stand_in="utility.auc",
        meaning="Balanced accuracy of a utility probe",
    ),
    "utility.auc": Code(
        title="AUC", heading="AUC", style="fraction", chance=0.5,
        meaning="AUC of a utility probe",
    ),
    "utility.mcc": Code(
        title="MCC", heading="MCC", style="fraction", chance=0.0,
        meaning="Matthews' correlation of a utility probe",
    ),
    "linkability.auc": Code(
        title="AUC", heading="Own original told from others: AUC", style="fraction", chance=0.5, threat="A4",
        meaning="Telling a release's own original from another person's: AUC",
    ),
    "linkability.rank1": Code(
        title="rank 1", heading="Own original found first", style="percent", threat="A4",
        meaning="Share of releases whose own original is found first among all",
    ),
    "unlinkability.d_sys": Code(
        title="D_sys", heading="Linked as they are: D_sys", style="fraction", chance=0.0, threat="A8",
        meaning="Releases of one image under two keys, compared as they are: D_sys, 0 unlinkable, 1 all linked",
    ),
    "unlinkability.learned_d_sys": Code(
        title="D_sys", heading="Linked by a learned map: D_sys", style="fraction", chance=0.0, threat="A8",
        meaning="The same by a linear map learned from pairs of other people's releases: D_sys",
    ),
    "renewal.accepted": Code(
        title="taken", heading="Old release taken under a new key", style="percent", chance=0.01, threat="A8",
        meaning="Share of releases that match that of the same image under another key, where 1 % of strangers do",
    ),
    MEMBERSHIP: Code(
        title="AUC", heading="Who was in training: AUC", style="fraction", chance=0.5, threat="A7",
        meaning="Telling people whom the protector was fitted on from others: AUC",
    ),
    "membership.tpr_at_fpr_0.01": Code(
        title="found", heading="Found, where 1 % of others are", style="percent", chance=0.01, threat="A7",
        meaning="Share of people of the training data who are found, where 1 % of others are taken for such",
    ),
    "identification.rank1_originals": Code(
        title="rank 1", heading="Person found first, among originals", style="percent", threat="A5",
        meaning="Share of releases whose person is found first among originals",
    ),
    "identification.rank1_releases": Code(
        title="rank 1", heading="Person found first, among releases", style="percent", threat="A3",
        meaning="Share of releases whose person is found first among releases",
    ),
    "utility.mean_mcc": Code(
        title="mean MCC", heading="Mean MCC", style="fraction", chance=0.0,
        meaning="Matthews' correlation of the utility probes, mean over the labels",
    ),
    "inversion.face_similarity": Code(
        title="face similarity", heading="Face similarity", style="fraction", threat="A4",
        meaning="Inversion: cosine of a matcher's features of the original and what is redrawn",
    ),
    "inversion.similarity": Code(
        title="cosine similarity", heading="Cosine to the original", style="fraction", threat="A4",
        meaning="Inversion: cosine of the original vector and what a decoder makes of its release",
    ),
    "inversion.rank1": Code(
        title="rank 1", heading="Person found first", style="percent", threat="A4",
        meaning="Inversion: share of redrawn images whose person is found first among other images",
    ),
    "inversion.ssim": Code(
        title="SSIM", heading="SSIM", style="fraction", threat="A4",
        meaning="Inversion: structural similarity of the original and what a decoder redraws",
    ),
    "inversion.psnr": Code(
        title="PSNR", heading="PSNR, dB", style="plain", threat="A4",
        meaning="Inversion: peak signal-to-noise ratio of what a decoder redraws, in dB",
    ),
    "inversion.perceptual": Code(
        title="perceptual distance", heading="Perceptual distance", style="fraction", lower_tells_more=True,
        threat="A4", meaning="Inversion: perceptual distance of the original and what a decoder redraws",
    ),
    "inversion.feature_similarity": Code(
        title="feature similarity", heading="Feature similarity, straight from the release", style="fraction",
        threat="A4", meaning="Inversion: cosine of the matcher's features and what is mapped from a release",
    ),
    "inversion.lda": Code(
        title="LDA score", heading="LDA score", style="plain", chance=0.0, threat="A3",
        meaning="Scatter of releases between people relative to that within a person's",
    ),
    SEEN: Code(
        title="share", heading="Seen in training", style="percent", chance=0.0,
        meaning="Share of the rows that the release was fitted on, or on their people",
    ),
    "utility.bits": Code(
        title="bits", heading="Bits of its codes", style="plain", chance=0.0,
        meaning="Bits that a release of finitely many values says at all: the entropy of its codes",
    ),
    CERTIFICATE: Code(
        title="balanced accuracy", heading="Certified bound", style="percent", threat="A4",
        meaning="Certified bound on every attacker's balanced accuracy",
    ),
    "certificate.accuracy": Code(
        title="accuracy", heading="Certified bound on plain accuracy", style="percent", threat="A4",
        meaning="Certified bound on every attacker's plain accuracy",
    ),
}  # fmt: skip
"""All codes, in the order in which tables show them."""

NO_BETTER = "not clearly better than without a release"
"""How the note begins of what was redrawn by somebody who may as well have seen no release."""
