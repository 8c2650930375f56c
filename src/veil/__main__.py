"""``python -m veil``: the command line."""

from __future__ import annotations

from veil.cli import main

main()
