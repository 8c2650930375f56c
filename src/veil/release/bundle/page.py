"""The README of a bundle: what goes in, what comes out, what is secret, and how its script is run, for that release."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_REFUSED = """What does not fit (a file that is missing or damaged, an array of another shape, another release's secret,
a target that is there already) is one line on stderr, and the exit status 2."""


def text(about: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """The page, in Markdown.

    Args:
        about: What the metadata of the network say; see :func:`veil.release.bundle.described`.
        made: ``private`` and ``utility`` of the release.
    """
    images, secret = about["kind"] == "images", about["secret"]
    parts = [
        _head(about, made),
        _files(images, secret),
        _in_images(about) if images else _in_vectors(about),
        _out(about),
        _steps(about) if images else "",
        _network(about),
        _secret(secret),
        _run(about),
        _check(about),
    ]
    blocks = "\n\n".join(part for part in parts if part).split("\n\n")
    return "\n\n".join(map(_wrapped, blocks)) + "\n"


def _wrapped(block: str) -> str:
    """A paragraph, or a list's items, in lines of 120 columns; what has lines of its own as it is."""
    if block.startswith(("#", "|", "```")):
        return block
    items = re.split(r"\n(?=\d+\. )", block)
    indent = "   " if len(items) > 1 else ""
    fill = textwrap.TextWrapper(120, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False).fill
    return "\n".join(fill(" ".join(item.split())) for item in items)


def _head(about: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    aim = f"It is meant to hide {', '.join(made['private'])}" if made["private"] else "Nothing says what it hides"
    kept = f" and to keep {made['utility']}" if made["utility"] else ""
    goes = "pictures" if about["kind"] == "images" else "vectors"
    return f"""# A release: {goes} in, {about["output"]["kind"].replace("images", "pictures")} out

Made with Veil {about["veil"]} by the method `{about["method"]}`. {aim}{kept}; how well it does is for an audit to say,
not for this page. It runs with Python 3.11 or newer, numpy, Pillow and onnxruntime; Veil is not needed:

```sh
pip install numpy pillow onnxruntime
python release.py --check
```

SHA-256 fingerprint of the release, as `veil.Release.load(...).fingerprint` gives it:
`{about["fingerprint"]}`"""


def _files(images: bool, secret: Sequence[str]) -> str:
    inputs = "what the network sees of the pictures there" if images else "random vectors"
    rows = [
        ("release.onnx", "the network; its metadata hold what this page says, each value as JSON"),
        ("release.py", "a script that releases files; to be run, read and copied from"),
        *([("check/*.jpg, check/*.png", "drawn pictures, of nobody")] if images else []),
        ("check/inputs.npy", f"inputs: {inputs}"),
        ("check/releases.npy", "what Veil released of them" + (" (for its owner alone)" if secret else "")),
        *([("secret.npz", "**the secret** (for its owner alone); nothing is released without it")] if secret else []),
    ]
    return "\n".join(["| file | content |", "|---|---|", *(f"| `{name}` | {what} |" for name, what in rows)])


def _in_images(about: Mapping[str, Any]) -> str:
    height, width = about["shape"][:2]
    colour = "grey" if about["channels"] == 1 else "RGB"
    if height != width:
        return f"""## What goes in

Arrays of pictures, {colour}, uint8 `(N, {", ".join(map(str, about["shape"]))})`, in an npy file."""
    part = "the largest centred square"
    if about["crop"]:
        left, top, right, bottom = (f"{100 * f:.4g} %" for f in about["crop"])
        part = f"""{left} to {right} of the upright picture's width and {top} to {bottom} of its height, and of that the
largest centred square"""
    if about["eyes"]:
        part = "the face, turned, scaled and shifted so that its eyes, which must be known, lie where those of all do"
    return f"""## What goes in

JPEG and PNG pictures of faces, of any size. The network sees {width} x {height} pixels in {colour}: {part}. Of pictures
that show something else there than those that it was trained on, releases are worth nothing."""


def _in_vectors(about: Mapping[str, Any]) -> str:
    (width,) = about["shape"]
    columns = f" Their values are, in this order: {', '.join(about['columns'])}." if about["columns"] else ""
    direction = " Only their direction counts; zeros alone have none and are refused." if about["direction"] else ""
    return f"""## What goes in

Vectors of {width} finite values of the very kind that the release was fitted on: floats `(N, {width})` in an npy
file.{columns}{direction}"""


def _out(about: Mapping[str, Any]) -> str:
    shape = ", ".join(map(str, about["output"]["shape"]))
    held = "float32" if about["output"]["kind"] == "vectors" else "pictures, uint8"
    return f"""## What comes out

`OUT.npy`: {held} `(N, {shape})`, a row for each input. `OUT.names.csv`: their names in that order, which are paths of
pictures inside a folder, or numbers of rows; delete it where names say who somebody is."""


def _steps(about: Mapping[str, Any]) -> str:
    """How pixels are made of a file; as :mod:`veil.data.decode` does."""
    if about["shape"][0] != about["shape"][1]:
        return ""
    size, grey, places = about["size"], about["channels"] == 1, about["eyes"]
    mode, luma = ("L", ", which is ITU-R 601 luma") if grey else ("RGB", "")
    brightness = "Its grey is its brightness. " * grey
    side = "the eyes' distance times three" if places else "the square's side in the file's pixels"
    square = f"""Where the square's side is 6 times {size} pixels or more by now, `image.reduce(f)` averages f x f of
them, f the integer part of its side / {size} / 3. Then the square, whose corners may lie between pixels, is resized to
{size} x {size} by Pillow's `LANCZOS` along the rows, and then along the columns: `resized` in `release.py`."""
    if places:
        (x0, y0), (x1, _) = places
        square = f"""It is turned, scaled and shifted, not mirrored, so that the eye on the left of the picture lies at
{x0:.4f} of the width and {y0:.4f} of the height, the other at {x1:.4f} and {y0:.4f}: `aligned` in `release.py`."""
    return f"""## Before the network

`Network.pixels` in `release.py` does this, to the pixel:

1. A JPEG is decoded by Pillow at 1/n of its sides, `image.draft("{mode}", (width // n, height // n))`, with the largest
   n of 8, 4, 2 and 1 for which {side} is at least {size} n. {brightness}A PNG is decoded as it is.
2. Of 16-bit samples the upper 8 bits count. What is transparent lies on white. Colour profiles are not applied. Then
   `image.convert("{mode}")`{luma}.
3. The picture is turned upright as its Exif says. A JPEG's sides that n does not divide were rounded up, by part of a
   pixel at the right and at the lower edge of what was not turned yet.
4. {square}
5. Values are divided by 255."""


def _network(about: Mapping[str, Any]) -> str:
    x = f"`x` float32 `(B, {about['shape'][0]})`"
    if about["kind"] == "images":
        x = f"`x` float32 `(B, {about['channels']}, {about['shape'][0]}, {about['shape'][1]})` in [0, 1]"
    more = ""
    if "draw" in about["secret"]:
        more += (
            " Its input `uniform` `(B, 1)` comes from `Network.uniform`, never from a generator of random numbers: of "
            "many draws for one input the protection is averaged away."
        )
    if {"field", "matrix"} & set(about["secret"]):
        more += " Its further inputs are the arrays of `secret.npz`, by their names."
    drawn = " in [0, 1], to be multiplied by 255 and rounded" if about["output"]["kind"] == "images" else ""
    return f"""## The network

Input {x}; output `release` `(B, ...)`{drawn}. The batch is free.{more}"""


def _secret(secret: Sequence[str]) -> str:
    if not secret:
        return """## What is secret

Nothing in this folder. What it releases is as protected as the method makes it: whoever has the network can release
guesses of an input, and compare."""
    each = {
        "field": "The noise of a release is a secret function of what the network makes of the input, and `secret.npz` "
        "is that function: whoever has it can take the noise away from every release.",
        "draw": "What is drawn for an input follows from `secret.npz`: whoever has it can tell which inputs a release "
        "may come from.",
        "matrix": "Releases are turned by a matrix that is in `secret.npz`: whoever has it can turn them back, and "
        "match them with those of another key.",
    }
    what = " ".join(each[name] for name in secret)
    return f"""## What is secret

{what} Keep it where releases are made, apart from them, readable by its owner alone as it is now; never give it to
those who get releases. `check/releases.npy` holds releases of known inputs, which teach some of it: treat it likewise.
The rest of the folder is no secret."""


def _run(about: Mapping[str, Any]) -> str:
    if about["kind"] == "vectors" or about["shape"][0] != about["shape"][1]:
        return f"""## How to run it

```sh
python release.py inputs.npy releases.npy
```

Nothing is left out: where a row cannot be released, nothing is written. {_REFUSED}"""
    eyes = """ `eyes.csv` has the columns `path`, `left_eye_x`, `left_eye_y`, `right_eye_x`, `right_eye_y`: a picture's
path inside the folder (or as it is given), and where its eyes are, in pixels of the upright picture from the middle of
its upper left one. The left eye is the one on the left of the picture.""" * bool(about["eyes"])
    return f"""## How to run it

```sh
python release.py photos releases.npy{" --eyes eyes.csv" * bool(about["eyes"])}
```

`photos` is a folder, or pictures one by one.{eyes} What is no picture by its name's ending (.jpg, .jpeg, .png: WebP and
others are not read), cannot be read{", or has no row in the file of eyes," * bool(about["eyes"])} is left out: a
line on stderr names each such file and says why, the last line counts them, and the exit status is 1. So it is of every
file in the folder but of those whose names begin with a dot, which are passed over.

{_REFUSED}"""


def _check(about: Mapping[str, Any]) -> str:
    allowed = "1e-5 of the largest value, or of 1 where that is smaller"
    if about["output"]["kind"] == "images":
        allowed = "one level of 255"
    decoded = """ It decodes the pictures of `check/`, too: they should be those of `inputs.npy` to the pixel, and may
differ by one level of 255 where another version of Pillow or of its JPEG decoder rounds otherwise."""
    return f"""## How to check it

`python release.py --check` releases `check/inputs.npy`, which must give `check/releases.npy` to {allowed}.{
        decoded * (about["kind"] == "images")
    } It prints how far they are apart, and ends with status 1 where that is too far."""
