"""HEIC, the pictures of many phones, where the plug-in ``pillow_heif`` is installed: its reader, and no more of it.

The plug-in is not registered with Pillow, so that its reader sees the files that begin as HEIC and no others. It turns
pictures upright as the container says, and tells Exif that this is done: they are not turned twice.
"""

from __future__ import annotations

from typing import Any

try:
    from pillow_heif import HeifImageFile
    from pillow_heif import __version__ as _version
except ImportError:
    READER: Any = None
    VERSIONS: dict[str, str] = {}
else:
    READER = HeifImageFile
    VERSIONS = {"pillow_heif": _version}

BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
"""What the first box of such a file names (ISO/IEC 23008-12, annex B)."""
NEEDED = "is read where pillow_heif is installed"
