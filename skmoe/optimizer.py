"""The optimiser: which weights decay, how the step follows progress, its state as arrays.

All weights of a network are laid out in one long vector, first those that decay. A step then
is a few operations instead of a few for each of some thirty weights, which for nets of this
size would cost as much as the gradient. So would the checks that torch's own optimisers make
in each step. Networks side by side have theirs in `stacked_optimizer`.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from skmoe.nn.base import Network

WARMUP = 0.05
MAX_GRADIENT_NORM = 1.0
# Those of torch.
BETAS, EPSILON = (0.9, 0.999), 1e-8
# On a GPU, a block of threads takes so many numbers at once, and torch's fused step gives it up
# to 65,536 of a tensor. So a vector comes in parts, about as many as there are multiprocessors.
AT_ONCE, N_PARTS = 2048, 128


class FlatAdamW(torch.optim.AdamW):
    """AdamW with clipped gradients on a network's weights, laid out in one vector.

    Parameters
    ----------
    network : Network
        Its weights become views of the vector; frozen ones are left alone.
    learning_rate : float
        Step size.
    weight_decay : float
        Decoupled decay of maps; biases and scales are not decayed.
    state : dict, optional
        To go on from, as `optimizer_arrays` gives it.

    Attributes
    ----------
    rate : Tensor or None
        A learning rate on the device, to be used in place of that of the groups.
    """

    rate: Tensor | None = None

    def __init__(
        self,
        network: Network,
        learning_rate: float,
        weight_decay: float,
        state: dict[str, Any] | None = None,
    ):
        decayed, kept = (list(named.values()) for named in by_decay(network))
        vector = flatten([*decayed, *kept])
        self.gradient = cast(Tensor, vector.grad)
        self.one = torch.ones((), device=vector.device)
        n_decayed = sum(weight.numel() for weight in decayed)
        parts = slice(0, n_decayed), slice(n_decayed, None)
        groups = [
            {"params": [_part(vector, part)], "weight_decay": decay}
            for part, decay in zip(parts, (weight_decay, 0.0), strict=True)
            if vector[part].numel()
        ]
        super().__init__(groups, lr=learning_rate, fused=True)
        for group in self.param_groups:
            (part,) = group["params"]
            self.state[part] = {
                "step": torch.zeros((), device=part.device),
                "exp_avg": torch.zeros_like(part),
                "exp_avg_sq": torch.zeros_like(part),
            }
        self.pieces: list[list[tuple[Tensor, ...]]] = []
        if state is not None:
            load_arrays(self, state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.pieces.clear()  # the moments are others now

    def zero_grad(self, set_to_none: bool = False) -> None:
        # Never to None: the weights' gradients are views of the vector's gradient.
        self.gradient.zero_()

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # needs no loss
        """One step on all weights."""
        length = None
        if is_cuda(self.gradient.device):
            length = (_norm(self.gradient) / MAX_GRADIENT_NORM).clamp_(min=1.0).float()
        else:
            _clip(self.gradient)
        self.pieces = self.pieces or [self._pieces_of(group) for group in self.param_groups]
        for group, pieces in zip(self.param_groups, self.pieces, strict=True):
            (part,) = group["params"]
            n_steps = self.state[part]["step"]
            n_steps.add_(self.one)  # a number would be made a tensor each time
            rate = group["lr"] if self.rate is None else self.rate
            pass_over(pieces, n_steps, rate, group["weight_decay"], length)

    step.hooked = True  # type: ignore[attr-defined]  # torch would wrap it in a profiler's mark

    def _pieces_of(self, group: dict[str, Any]) -> list[tuple[Tensor, ...]]:
        """Weights, gradients and moments, which stay where they are."""
        (part,) = group["params"]
        state = self.state[part]
        tensors = part.data, part.grad, state["exp_avg"], state["exp_avg_sq"]
        return cut(tensors) if is_cuda(part.device) else [tensors]


def is_cuda(device: torch.device) -> bool:
    """Whether torch's fused step is that of CUDA devices."""
    return device.type == "cuda"


def cut(vectors: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """The same parts of vectors of one length, as many as keep a GPU busy."""
    n_at_once = math.ceil(len(vectors[0]) / (AT_ONCE * N_PARTS))
    parts = (vector.split(AT_ONCE * n_at_once) for vector in vectors)
    return list(zip(*parts, strict=True))


def pass_over(
    tensors: Sequence[tuple[Tensor, ...]],
    step: Tensor,
    rate: float | Tensor,
    decay: float,
    length: Tensor | None = None,
) -> None:
    """AdamW in one pass over weights, gradients and moments, without torch's many checks.

    Gradients are divided by `length`, a float32, if there is one.
    """
    weights, gradients, means, squares = zip(*tensors, strict=True)
    torch._fused_adamw_(
        weights,
        gradients,
        means,
        squares,
        [],
        [step] * len(tensors),
        lr=rate,
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=decay,
        eps=EPSILON,
        amsgrad=False,
        maximize=False,
        grad_scale=length,
    )


def _part(vector: nn.Parameter, part: slice) -> nn.Parameter:
    """Some of the weights of a vector, and their gradients."""
    weights = nn.Parameter(vector.detach()[part])
    weights.grad = cast(Tensor, vector.grad)[part]
    return weights


def _clip(gradient: Tensor) -> None:
    """Shorten a gradient that is too long."""
    if gradient.device.type != "cpu":  # where to read a number would be to wait for it
        gradient.mul_(clipping(gradient))
        return
    factor = MAX_GRADIENT_NORM / (float(torch.linalg.vector_norm(gradient)) + 1e-6)
    if factor < 1:
        gradient.mul_(factor)


def clipping(norms: Tensor) -> Tensor:
    """Factor of gradients, from them or the norms of their parts, along the first axis."""
    return (MAX_GRADIENT_NORM / _norm(norms)).clamp_(max=1.0)


def _norm(norms: Tensor) -> Tensor:
    """Along the first axis."""
    # The sum keeps a gradient of zero from making a factor of infinity.
    return torch.linalg.vector_norm(norms, dim=0) + 1e-6


def by_decay(network: Network) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """The weights that are trained: those that decay, and those that do not."""
    named = {name: w for name, w in network.named_parameters() if w.requires_grad}
    return (
        {name: w for name, w in named.items() if decays(name, w)},
        {name: w for name, w in named.items() if not decays(name, w)},
    )


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


def load_arrays(optimizer: torch.optim.Optimizer, arrays: dict[str, Any]) -> None:
    """Give the optimiser a state that `optimizer_arrays` has told."""
    state = {
        int(index): {name: torch.tensor(value) for name, value in entry.items()}
        for index, entry in arrays.items()
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
