"""The release, the only thing that ships: an encoder's weights, its contract, and how it was made; nothing private.

Where a release adds noise, the noise is a secret smooth field (:mod:`veil.release.draws`): one input has one release,
near-duplicates have nearly the same, and their mean has as much noise as one. What draws it is a key, a secret file
*beside* the folder (``NAME.key``), never inside. Releases of other weights or settings draw other noise under the same
key, so that two of them cannot be solved for what they share.
"""

from veil.release.beside import fitted_path, key_path
from veil.release.contract import Contract
from veil.release.release import Release

__all__ = ["Contract", "Release", "fitted_path", "key_path"]
