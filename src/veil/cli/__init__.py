"""The command line."""

from veil.cli.process import main

__all__ = ["main"]
