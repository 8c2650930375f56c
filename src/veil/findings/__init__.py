"""Findings: one figure about one release each, their codes, and the file that they are kept in."""

from veil.findings.codes import CODES, NO_BETTER, Code
from veil.findings.io import KEYS, NAME, document, fingerprint, how, read, write
from veil.findings.schema import Finding, Measurement, normalised_gain
from veil.findings.tradeoffs import pic, suppression_rate

__all__ = [
    "CODES",
    "KEYS",
    "NAME",
    "NO_BETTER",
    "Code",
    "Finding",
    "Measurement",
    "document",
    "fingerprint",
    "how",
    "normalised_gain",
    "pic",
    "read",
    "suppression_rate",
    "write",
]
