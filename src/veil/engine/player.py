"""A player: a network that a run trains, with its optimiser and schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from veil.errors import InputError
from veil.nn.nets import tensors_under

_MODULE, _OPTIMIZER = "module.", "optimizer."  # of tensors' names in a checkpoint


class Diverged(InputError):
    """A loss is no longer finite, or beyond any healthy value; the settings, not the machine, are at fault."""


class Player:
    """A network (or several) with the optimiser that alone may change it.

    Args:
        name: What the progress line and the curves call it.
        module: Its network.
        lr: Peak learning rate.
        optimizer: ``"adam"`` or ``"adamw"`` (decoupled weight decay).
        weight_decay: For ``"adamw"``.
        schedule: Factor of the learning rate as a function of the number of updates made so far; constant if None.
        clip: Largest norm of the gradient; None for no clipping.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        *,
        lr: float,
        optimizer: Literal["adam", "adamw"] = "adam",
        weight_decay: float = 0.0,
        schedule: Callable[[int], float] | None = None,
        clip: float | None = None,
    ) -> None:
        self.name = name
        self.module = module
        self.lr = lr
        self.schedule = schedule
        self.clip = clip
        self.updates = 0
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        kind = torch.optim.AdamW if optimizer == "adamw" else torch.optim.Adam
        # Fused: on a CPU a fifth of the time of PyTorch's default, which is a tenth of a step of a ResNet.
        self.optimizer = kind(self.parameters, lr=lr, weight_decay=weight_decay, fused=True)

    def restart(self, module: nn.Module) -> None:
        """Take over the fresh weights of ``module`` (same shapes) and forget the optimiser's state."""
        self.module.load_state_dict(module.state_dict())
        self.optimizer.state.clear()
        self.updates = 0

    def tensors(self) -> dict[str, Tensor]:
        """Its network's, and the moments of its optimiser, by names that say which they are."""
        moments = {
            f"{_OPTIMIZER}{i}.{name}": moment
            for i, parameter in enumerate(self.parameters)
            for name, moment in self.optimizer.state.get(parameter, {}).items()
        }
        return {f"{_MODULE}{name}": value for name, value in self.module.state_dict().items()} | moments

    def restore(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Takes up what :meth:`tensors` gave, after so many updates.

        Raises:
            ValueError: If they are of another network, or the moments another optimiser's.
        """
        given, own = tensors_under(tensors, _MODULE), self.module.state_dict()
        if wrong := next((n for n in {**own, **given} if _kind(given.get(n)) != _kind(own.get(n))), ""):
            raise ValueError(f"{wrong} must be {_kind(own.get(wrong))}, got {_kind(given.get(wrong))}")
        self.module.load_state_dict(given)
        moments = tensors_under(tensors, _OPTIMIZER)
        state = {}
        for i, parameter in enumerate(self.parameters):
            known = tensors_under(moments, f"{i}.")
            like = {"step": torch.zeros(()), **dict.fromkeys(("exp_avg", "exp_avg_sq"), parameter)}
            if moments and {name: _kind(x) for name, x in known.items()} != {n: _kind(x) for n, x in like.items()}:
                raise ValueError("the optimiser's state is another's")
            # A fused optimiser walks through memory: moments must lie there as the parameter does.
            state[i] = {
                name: moment.clone() if name == "step" else torch.empty_like(parameter).copy_(moment)
                for name, moment in known.items()
            }
        now = self.optimizer.state_dict()["param_groups"]  # the settings are those of now
        self.optimizer.load_state_dict({"state": {i: some for i, some in state.items() if some}, "param_groups": now})
        self.updates = updates


def _kind(tensor: Tensor | None) -> str:
    """Type and shape of a tensor, in words."""
    return "nothing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
