"""The methods by name. A method is one file that reads top to bottom like its paper."""

from veil.methods.registry import METHODS, Method

__all__ = ["METHODS", "Method"]
