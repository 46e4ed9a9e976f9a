"""The optimiser: which weights decay, how the step follows progress, its state as arrays.

All weights of a network are laid out in two long vectors, one that decays and one that does
not. A step then is a few operations instead of a few for each of some thirty weights, which
for nets of this size would cost as much as the gradient.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from skmoe.nn.base import Network

WARMUP = 0.05
MAX_GRADIENT_NORM = 1.0


class FlatAdamW(torch.optim.AdamW):
    """AdamW with clipped gradients on a network's weights, laid out in two vectors.

    Parameters
    ----------
    network : Network
        Its weights become views of the vectors; frozen ones are left alone.
    learning_rate : float
        Step size.
    weight_decay : float
        Decoupled decay of maps; biases and scales are not decayed.
    state : dict, optional
        To go on from, as `optimizer_arrays` gives it.
    """

    def __init__(
        self,
        network: Network,
        learning_rate: float,
        weight_decay: float,
        state: dict[str, Any] | None = None,
    ):
        decayed, kept = learning_weights(network)
        groups = [
            (flatten(group), decay)
            for group, decay in ((decayed, weight_decay), (kept, 0.0))
            if group
        ]
        self.vectors = [vector for vector, _ in groups]
        super().__init__(
            [{"params": [vector], "weight_decay": decay} for vector, decay in groups],
            lr=learning_rate,
            fused=True,
        )
        if state is not None:
            _load(self, state)

    def zero_grad(self, set_to_none: bool = False) -> None:
        # Never to None: the weights' gradients are views of the vectors' gradients.
        super().zero_grad(set_to_none=False)

    def step(self, closure=None):
        nn.utils.clip_grad_norm_(self.vectors, MAX_GRADIENT_NORM)
        return super().step(closure)


def learning_weights(network: Network) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights that learn: those that decay, and the others."""
    weights = [(name, w) for name, w in network.named_parameters() if w.requires_grad]
    decayed = [w for name, w in weights if decays(name, w)]
    return decayed, [w for name, w in weights if not decays(name, w)]


def decays(name: str, weight: nn.Parameter) -> bool:
    """Whether weight decay acts on a weight: on maps, not on biases and scales."""
    return weight.ndim >= 2 and not name.endswith("bias")


def flatten(weights: list[nn.Parameter]) -> nn.Parameter:
    """One vector that holds all weights; they, and their gradients, become views of it."""
    vector = nn.Parameter(torch.cat([weight.detach().flatten() for weight in weights]))
    vector.grad = torch.zeros_like(vector)
    start = 0
    for weight in weights:
        stop = start + weight.numel()
        weight.data = vector.data[start:stop].view_as(weight)
        weight.grad = vector.grad[start:stop].view_as(weight)
        start = stop
    return vector


def schedule(progress: float) -> float:
    """Share of the learning rate: a linear rise, then half a cosine down to zero."""
    if progress < WARMUP:
        return (progress + 0.1 * WARMUP) / (1.1 * WARMUP)
    return 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))


def optimizer_arrays(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """State of the optimiser as arrays, one dict for each weight."""
    state = optimizer.state_dict()["state"]
    return {
        str(index): {name: np.asarray(value.cpu()) for name, value in entry.items()}
        for index, entry in state.items()
    }


def _load(optimizer: torch.optim.Optimizer, arrays: dict[str, Any]) -> None:
    state = {
        int(index): {name: torch.tensor(value) for name, value in entry.items()}
        for index, entry in arrays.items()
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
