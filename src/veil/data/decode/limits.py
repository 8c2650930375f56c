"""How large an image may be, and the error of those that are not decoded."""

from __future__ import annotations

from pathlib import Path

from veil.errors import InputError
from veil.foreign import one_line, opened

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
MAX_SIDE = 65_535
_SMALL, _MOST_IN_SMALL = 1 << 20, 28_000_000  # bytes of a file, and pixels in a smaller one of a format that is dear


class DecodeError(Exception):
    """This image cannot be decoded, or must not be; the message says why."""


def check_bytes(n: int) -> None:
    if n > MAX_BYTES:
        raise DecodeError(f"more than {MAX_BYTES // 2**20} MiB")
    if n == 0:
        raise DecodeError("empty")


def check_pixels(width: int, height: int) -> None:
    if width < 1 or height < 1 or width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise DecodeError(f"{width} x {height} pixels; at most {MAX_PIXELS // 10**6} million are decoded")


def check_dear(data: bytes, width: int, height: int) -> None:
    """Refuses what few bytes would cost where decoders take 16 bytes for each pixel."""
    if len(data) < _SMALL and width * height > _MOST_IN_SMALL:
        most = f"at most {_MOST_IN_SMALL // 10**6} million are decoded from less than {_SMALL // 2**20} MiB"
        raise DecodeError(f"{width} x {height} pixels; {most} of this format")


def read(path: Path) -> bytes:
    """A file's bytes; raises DecodeError where it is too large (by its size, before it is read) or cannot be read."""
    try:
        with opened(path) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DecodeError(f"cannot be read ({one_line(error)})") from None
    except InputError:
        raise DecodeError("no file, but a folder, pipe or device") from None
    check_bytes(len(data))
    return data
