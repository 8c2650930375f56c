"""One command for each way in: photographs or stored vectors in, protected ones out, with the evidence.

It does what ``veil pack``, ``embed``, ``fit``, ``apply``, ``audit`` and ``report`` do one by one, each step with their
checks, and goes on where it was killed. What may be handed out and what may not lie in different folders.
"""

from veil.workflows.protect.run import Protected, protect
from veil.workflows.protect.steps import Watch
from veil.workflows.protect.ways import WAYS, Asked, Way

__all__ = ["WAYS", "Asked", "Protected", "Watch", "Way", "protect"]
