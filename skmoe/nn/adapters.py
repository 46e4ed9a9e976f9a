"""Adapters: small trainable maps around a frozen network, mixed by a router.

``y(x) = base(x + w_0(x) b) + w_1(x) x A B + w_2(x) act(x U) V``: a bias of the input, a map of
low rank and a bottleneck, three adapters of different make, each with a weight of its own (Cao
et al., "MoA: Heterogeneous Mixture of Adapters", 2025, arXiv:2506.05928). b, B and V start at
zero, so that nothing changes at first.
"""

import inspect
from typing import Any

import torch
from torch import Generator, Tensor, nn

from skmoe._registry import Registry, Spec
from skmoe._settings import check_integer
from skmoe.nn.base import Network, Step
from skmoe.nn.gates import GATES
from skmoe.nn.layers import Design
from skmoe.nn.networks import NETWORKS as PLAIN_NETWORKS
from skmoe.nn.routers import ROUTERS
from skmoe.nn.stacked import ACTIVATIONS, Linear

N_ADAPTERS = 3


class AdaptedNetwork(Network):
    """A network with adapters around it.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Dimensions of x and y.
    base : str
        Name of the network inside.
    base_arguments : dict
        Its arguments.
    rank : int, default=8
        Rank of the linear adapter.
    bottleneck : int, default=16
        Width of the nonlinear one.
    router : str, part(...) or class, default="sigmoid"
        What turns the gate's scores into the adapters' weights.
    generator : torch.Generator, optional
        Source of the initial weights.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        base: str,
        base_arguments: dict[str, Any],
        rank: int = 8,
        bottleneck: int = 16,
        router: Spec = "sigmoid",
        generator: Generator | None = None,
    ):
        super().__init__(n_inputs, None, generator)
        self.base: Network = PLAIN_NETWORKS[base](**base_arguments, generator=generator)
        self.base.requires_grad_(False)
        self.n_members, self.is_ensemble = self.base.n_members, self.base.is_ensemble
        self.router = ROUTERS.build(router, None)
        self.router.prepare(1, N_ADAPTERS)
        n_scores = self.router.n_scores(N_ADAPTERS)
        self.gate = GATES.build("linear", 1, n_inputs, n_scores, generator=generator)
        self.input_bias = nn.Parameter(torch.zeros(n_inputs))
        rank = check_integer("rank", rank)
        self.low_rank = nn.Sequential(
            Linear(n_inputs, rank, generator=generator),
            Linear(rank, n_outputs, generator=generator, gain=0.0),
        )
        width = check_integer("bottleneck", bottleneck)
        self.inner = Linear(n_inputs, width, generator=generator)
        self.outer = Linear(width, n_outputs, generator=generator, gain=0.0)
        self.activation = ACTIVATIONS["silu"]

    def weights(self, x_TD: Tensor) -> Tensor:
        """Weights of the adapters, ``w_TA``."""
        return self.router(self.gate(x_TD.unsqueeze(0))).dense_weights()[0]

    def added(self, x_TD: Tensor, weights_TA: Tensor) -> Tensor:
        """What the adapters add to the base's answer with these weights, ``y_TO``."""
        bottleneck_TO = self.outer(self.activation(self.inner(x_TD)))
        return weights_TA[:, 1:2] * self.low_rank(x_TD) + weights_TA[:, 2:] * bottleneck_TO

    def answers(self, x_TD: Tensor) -> tuple[Tensor, list[Step]]:
        weights_TA = self.weights(x_TD)
        y_MTO, steps = self.base.answers(x_TD + weights_TA[:, :1] * self.input_bias)
        return y_MTO + self.added(x_TD, weights_TA), steps

    def adapters(self) -> list[nn.Parameter]:
        """All that is trained."""
        base = {id(weight) for weight in self.base.parameters()}
        return [weight for weight in self.parameters() if id(weight) not in base]

    def design(self, x_TD: Tensor) -> Design:
        raise NotImplementedError("Adapted networks are trained by gradient descent.")

    def output_map(self) -> None:
        return None

    def set_output_map(self, w_GFO: Tensor) -> None:
        raise NotImplementedError("Adapted networks are trained by gradient descent.")


def check_same_settings(settings: dict[str, Any], there: dict[str, Any]) -> None:
    """Refuse settings that adapters of an earlier call do not have."""
    usual = inspect.signature(AdaptedNetwork).parameters
    for name, value in settings.items():
        has = there.get(name, usual[name].default)
        if value != has:
            raise ValueError(
                f"adapters must be those of the first call, which go on learning: the model "
                f"has {name}={has!r}. Got {name}={value!r}."
            )


NETWORKS = Registry("network", {**PLAIN_NETWORKS, "adapted": AdaptedNetwork})
