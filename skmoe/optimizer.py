"""The optimiser: which weights decay, how the step follows progress, its state as arrays.

All weights of a network are laid out in one long vector, first those that decay. A step then
is a few operations instead of a few for each of some thirty weights, which for nets of this
size would cost as much as the gradient. So would the checks that torch's own optimisers make
in each step.
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
    """

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
        if state is not None:
            load_arrays(self, state)

    def zero_grad(self, set_to_none: bool = False) -> None:
        # Never to None: the weights' gradients are views of the vector's gradient.
        self.gradient.zero_()

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # needs no loss
        """One step on all weights."""
        _clip(self.gradient)
        for group in self.param_groups:
            (part,) = group["params"]
            state = self.state[part]
            # One pass over the weights; the checks around it would cost as much again.
            torch._fused_adamw_(
                [part.data],
                [part.grad],
                [state["exp_avg"]],
                [state["exp_avg_sq"]],
                [],
                [state["step"].add_(self.one)],  # a number would be made a tensor each time
                lr=group["lr"],
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=group["weight_decay"],
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )

    step.hooked = True  # type: ignore[attr-defined]  # torch would wrap it in a profiler's mark


def _part(vector: nn.Parameter, part: slice) -> nn.Parameter:
    """Some of the weights of a vector, and their gradients."""
    weights = nn.Parameter(vector.detach()[part])
    weights.grad = cast(Tensor, vector.grad)[part]
    return weights


def _clip(gradient: Tensor) -> None:
    """Shorten a gradient that is too long."""
    if gradient.device.type != "cpu":  # where to read a number would be to wait for it
        gradient.mul_(_clipping(gradient))
        return
    factor = MAX_GRADIENT_NORM / (float(torch.linalg.vector_norm(gradient)) + 1e-6)
    if factor < 1:
        gradient.mul_(factor)


class StackedAdamW:
    """The same steps for M networks of one shape, each with a learning rate of its own.

    Parameters
    ----------
    networks : sequence of Network
        Their weights become views of `stacked`.
    weight_decays : sequence of float
        One for each network.

    Attributes
    ----------
    stacked : dict of str to Tensor
        By name, the weights of all networks, with M on the first axis: leaves for autograd.
    """

    def __init__(self, networks: Sequence[Network], weight_decays: Sequence[float]):
        self.n_steps = 0
        self.decays_M1 = torch.tensor(weight_decays, dtype=torch.float64)[:, None]
        self._lay_out(networks)
        self.moments = torch.zeros_like(self.gradient), torch.zeros_like(self.gradient)

    def _lay_out(self, networks: Sequence[Network]) -> None:
        """Weights that decay come first; those of one name lie next to each other."""
        named = [by_decay(network) for network in networks]
        self.n_decayed = len(named[0][0])
        weights = [{**decayed, **kept} for decayed, kept in named]
        stacks = [torch.stack([own[name].detach() for own in weights]) for name in weights[0]]
        vector = torch.cat([stack.flatten() for stack in stacks])
        self.gradient = torch.zeros_like(vector)
        self.sizes = [stack.numel() for stack in stacks]
        self.weights_MP, self.gradients_MP = self._blocks(vector), self._blocks(self.gradient)
        self.stacked = {}
        for name, stack, values, gradient in zip(
            weights[0], stacks, self.weights_MP, self.gradients_MP, strict=True
        ):
            leaf = self.stacked[name] = values.detach().view_as(stack).requires_grad_()
            leaf.grad = gradient.view_as(stack)
            for own, row in zip(weights, leaf.detach(), strict=True):
                own[name].data = row

    def _blocks(self, vector: Tensor) -> list[Tensor]:
        """The part of each name, with a row for each network."""
        return [part.view(len(self.decays_M1), -1) for part in vector.split(self.sizes)]

    def keep(self, kept: Sequence[int], networks: Sequence[Network]) -> None:
        """Go on with some of the networks: those at these places."""
        mean, square = (
            torch.cat([block[kept].flatten() for block in self._blocks(moment)])
            for moment in self.moments
        )
        self.moments = mean, square
        self.decays_M1 = self.decays_M1[kept]
        self._lay_out(networks)

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self.gradient.zero_()

    @torch.no_grad()
    def step(self, learning_rates: Sequence[float]) -> None:
        """One step, with a learning rate for each network."""
        self.n_steps += 1
        norms = [torch.linalg.vector_norm(block, dim=1) for block in self.gradients_MP]
        factor_M1 = _clipping(torch.stack(norms))[:, None]
        for block in self.gradients_MP:
            block.mul_(factor_M1)
        rates_M1 = torch.tensor(learning_rates, dtype=torch.float64)[:, None]
        shrink_M1 = (1 - rates_M1 * self.decays_M1).to(self.gradient)
        rates_M1 = rates_M1.to(self.gradient)
        changes_MP = self._blocks(direction(self.gradient, self.moments, self.n_steps))
        for weights in self.weights_MP[: self.n_decayed]:
            weights.mul_(shrink_M1)
        for weights, change in zip(self.weights_MP, changes_MP, strict=True):
            weights.sub_(change.mul_(rates_M1))

    def arrays(self, m: int) -> dict[str, Any]:
        """State of one network's optimiser, as `optimizer_arrays` has it."""
        moments = [self._blocks(moment) for moment in self.moments]
        parts = slice(0, self.n_decayed), slice(self.n_decayed, None)
        groups = [
            [torch.cat([b[m] for b in bs[part]]) for bs in moments]
            for part in parts
            if self.weights_MP[part]
        ]
        return {
            str(number): {
                "step": np.float32(self.n_steps),
                "exp_avg": mean.cpu().numpy(),
                "exp_avg_sq": square.cpu().numpy(),
            }
            for number, (mean, square) in enumerate(groups)
        }


def direction(
    gradient: Tensor,
    moments: tuple[Tensor, Tensor],
    n_steps: int,
    betas: tuple[float, float] = BETAS,
    eps: float = EPSILON,
) -> Tensor:
    """Where AdamW steps: ``m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + eps)``.

    Parameters
    ----------
    gradient : Tensor
        Of a vector of weights.
    moments : (Tensor, Tensor)
        Running means m of the gradient and s of its square, which are updated.
    n_steps : int
        Number t of this step, from 1.
    betas : (float, float)
        What the running means keep in each step.
    eps : float
        Keeps weights without a gradient where they are.
    """
    mean, square = moments
    first, second = (1 - beta**n_steps for beta in betas)
    mean.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    size = (square / second).sqrt_().add_(eps)
    return torch.div(mean, size, out=size).div_(first)


def _clipping(norms: Tensor) -> Tensor:
    """Factor of gradients, from them or the norms of their parts, along the first axis."""
    # The sum keeps a gradient of zero from making a factor of infinity.
    norm = torch.linalg.vector_norm(norms, dim=0)
    return (MAX_GRADIENT_NORM / (norm + 1e-6)).clamp_(max=1.0)


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
