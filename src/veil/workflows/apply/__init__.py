"""Applying a release to a source of any size."""

from veil.workflows.apply.options import Options
from veil.workflows.apply.run import Applied, apply

__all__ = ["Applied", "Options", "apply"]
