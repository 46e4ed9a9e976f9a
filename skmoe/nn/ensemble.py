"""An ensemble in one network: L small nets side by side, whose mean is the prediction.

Nets that were started differently, or have seen different rows, err differently; their mean
is better than they are, most of all on few or noisy rows. Side by side they cost little more
than one, as with few rows most of the time goes into calling operations.
"""

from typing import Any

import torch
from torch import Generator, Tensor, nn

from skmoe._registry import Spec
from skmoe.nn.base import Network, Step
from skmoe.nn.base_experts import with_one
from skmoe.nn.layers import Design, MoELayer
from skmoe.nn.stacked import StackedLinear, StackedResidual


class EnsembleMoENetwork(Network):
    """L members, each a residual net on the embedded input with one MoE block of its own.

    The block sees the raw input and adds to the first state of its member from zero, so that
    a member starts as a plain dense net.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Dimensions of x and y.
    n_layers : int
        Number of members, each with one block.
    model_dim : int, default=32
        Width of a member.
    block_outputs : int, default=8
        Outputs of one block.
    n_dense : int, default=1
        Residual layers of a member.
    embedding : str, part(...) or None, default=None
        Numeric embedding in front of the members.
    activation : {"relu", "gelu", "silu", "tanh"}, default="silu"
        Nonlinearity of the residual layers.
    generator : torch.Generator, optional
        Source of the initial weights.
    **layer
        Parameters of `MoELayer`.
    """

    is_ensemble = True

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        n_layers: int,
        model_dim: int = 32,
        block_outputs: int = 8,
        n_dense: int = 1,
        embedding: Spec | None = None,
        activation: str = "silu",
        generator: Generator | None = None,
        **layer: Any,
    ):
        super().__init__(n_inputs, embedding, generator)
        self.n_members = n_layers
        self.blocks = MoELayer(n_layers, n_inputs, block_outputs, generator=generator, **layer)
        self.mix = StackedLinear(
            n_layers, block_outputs, model_dim, generator=generator, gain=0.0
        )
        embedded = self.embedding.output_dim
        self.trunk = StackedLinear(n_layers, embedded, model_dim, generator=generator)
        self.dense = nn.Sequential(
            *(
                StackedResidual(n_layers, model_dim, activation=activation, generator=generator)
                for _ in range(n_dense)
            )
        )
        self.heads = StackedLinear(n_layers, model_dim, n_outputs, generator=generator)

    def states(self, x_TD: Tensor) -> tuple[Tensor, list[Step]]:
        """What the members' heads read, ``h_BTM``, and the step of their blocks."""
        x_BTD = x_TD.expand(self.n_members, -1, -1)
        blocks_BTO, routing = self.blocks(x_BTD)
        e_BTF = self.embedding(x_TD).expand(self.n_members, -1, -1)
        h_BTM = self.dense(self.trunk(e_BTF) + self.mix(blocks_BTO))
        return h_BTM, [Step(self.blocks, x_BTD, routing, h_BTM)]

    def answers(self, x_TD: Tensor) -> tuple[Tensor, list[Step]]:
        h_BTM, steps = self.states(x_TD)
        return self.heads(h_BTM), steps

    def design(self, x_TD: Tensor) -> Design:
        # A mean of maps: each member's features count for one of L.
        h_BTM, _ = self.states(x_TD)
        return Design(with_one(h_BTM).transpose(0, 1) / self.n_members, None)

    def output_map(self) -> Tensor:
        return torch.cat([self.heads.weight, self.heads.bias], 1).detach()

    @torch.no_grad()
    def set_output_map(self, w_GFO: Tensor) -> None:
        self.heads.weight.copy_(w_GFO[:, :-1])
        self.heads.bias.copy_(w_GFO[:, -1:])
