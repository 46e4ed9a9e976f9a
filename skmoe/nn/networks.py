"""Whole networks: one layer, or blocks in parallel or in a stack.

Contract. A network maps ``x_TD`` to ``y_TO`` and returns what happened beside it: one
`Step` for each `MoELayer`. A layer may hold several blocks side by side, so a network with
L layers or blocks has L gates in all, whatever its arrangement.
"""

from abc import abstractmethod
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from skmoe._registry import Registry, Spec, part
from skmoe.nn.base import Network, Step
from skmoe.nn.base_experts import with_one
from skmoe.nn.base_routers import Routing
from skmoe.nn.ensemble import EnsembleMoENetwork
from skmoe.nn.experts import LinearExperts
from skmoe.nn.gates import LinearGate
from skmoe.nn.layers import Design, MoELayer
from skmoe.nn.stacked import ACTIVATIONS, LayerNorm, Linear, StackedLinear


class MoENetwork(Network):
    """A shallow mixture: the layer's output is the prediction.

    Gate and experts see the embedded features.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Dimensions of x and y.
    embedding : str, part(...) or None, default=None
        Numeric embedding in front of gate and experts.
    n_axes : int, optional
        If given, the embedding sees so many fixed linear coordinates of x, set by
        `set_axes`, in place of x itself. What is learned then does not depend on how many
        features carry these coordinates.
    generator : torch.Generator, optional
        Source of the initial weights.
    **layer
        Parameters of `MoELayer`.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        embedding: Spec | None = None,
        n_axes: int | None = None,
        generator: Generator | None = None,
        **layer: Any,
    ):
        super().__init__(n_inputs if n_axes is None else n_axes, embedding, generator)
        if n_axes is not None:
            self.axes = Linear(n_inputs, n_axes, generator=generator).requires_grad_(False)
        embedded = self.embedding.output_dim
        self.layer = MoELayer(1, embedded, n_outputs, generator=generator, **layer)

    def answers(self, x_TD: Tensor) -> tuple[Tensor, list[Step]]:
        e_BTF = self.seen_by_blocks(x_TD)
        y_BTO, routing = self.layer(e_BTF)
        return y_BTO, [Step(self.layer, e_BTF, routing, y_BTO)]

    def routings(self, x_TD: Tensor) -> list[Routing]:
        return [self.layer.route(self.seen_by_blocks(x_TD))]

    def mixture(self, answers_MTO: Tensor, steps: list[Step]) -> tuple[Tensor, Tensor]:
        """Components are the experts."""
        (step,) = steps
        outputs_BTEO = self.layer.expert_outputs(step.x_BTD)
        outputs_BTEO = outputs_BTEO + self.layer.shared_output(step.x_BTD).unsqueeze(2)
        return step.routing.dense_weights(), outputs_BTEO

    def design(self, x_TD: Tensor) -> Design:
        return self.layer.design(self.seen_by_blocks(x_TD)[0])

    def seen_by_blocks(self, x_TD: Tensor) -> Tensor:
        return self.embedding(self.on_axes(x_TD)).unsqueeze(0)

    def predicted(self, g_BTO: Tensor) -> Tensor:
        return g_BTO[0]

    def output_map(self) -> Tensor | None:
        return self.layer.output_map()

    def set_output_map(self, w_GFO: Tensor) -> None:
        self.layer.set_output_map(w_GFO)


class ResidualLayer(nn.Module):
    """``h + W2 act(W1 norm(h))``, starting as the identity."""

    def __init__(self, dim: int, activation: str, generator: Generator | None):
        super().__init__()
        self.norm = LayerNorm(dim)
        self.hidden = Linear(dim, dim, generator=generator)
        self.output = Linear(dim, dim, generator=generator, gain=0.0)
        self.activation = ACTIVATIONS[activation]

    def forward(self, h_TM: Tensor) -> Tensor:
        return h_TM + self.output(self.activation(self.hidden(self.norm(h_TM))))


class HeadedNetwork(Network):
    """A network whose last map, `head`, reads a state ``h_TM``."""

    head: Linear

    @abstractmethod
    def state(self, x_TD: Tensor) -> tuple[Tensor, list[Step]]:
        """What the head reads, and one step for each layer."""

    def answers(self, x_TD: Tensor) -> tuple[Tensor, list[Step]]:
        h_TM, steps = self.state(x_TD)
        return self.head(h_TM).unsqueeze(0), steps

    def design(self, x_TD: Tensor) -> Design:
        h_TM, _ = self.state(x_TD)
        return Design(with_one(h_TM).unsqueeze(1), None)

    def output_map(self) -> Tensor:
        return torch.cat([self.head.weight.T, self.head.bias[None]]).unsqueeze(0).detach()

    @torch.no_grad()
    def set_output_map(self, w_GFO: Tensor) -> None:
        self.head.weight.copy_(w_GFO[0, :-1].T)
        self.head.bias.copy_(w_GFO[0, -1])


class ParallelMoENetwork(HeadedNetwork):
    """L blocks side by side on the raw input, combined by a dense head.

    The shape of Wang & E (2025), theorem 5.2: block l finds out in which piece its
    coordinates lie and answers with that piece's function; the head computes f_out from
    the blocks' answers. With a trunk, the head is a residual net on the embedded input to
    which the blocks add from zero: it starts as a plain dense net and is never worse off.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Dimensions of x and y.
    n_layers : int
        Number of blocks L.
    model_dim : int, default=128
        Width of the head.
    block_outputs : int, default=8
        Outputs of one block.
    n_dense : int, default=3
        Residual layers of the head.
    trunk : bool, default=True
        Whether the head sees the embedded input beside the blocks.
    embedding : str, part(...) or None, default=None
        Numeric embedding in front of the trunk; not used without one.
    activation : {"relu", "gelu", "silu", "tanh"}, default="silu"
        Nonlinearity of the head.
    n_axes : int, optional
        If given, the blocks see so many fixed linear coordinates of x, set by `set_axes`,
        in place of x itself. What is learned then does not depend on how many features
        carry these coordinates.
    n_factors : int, optional
        If given, blocks are combined by products: with block b in factor ``b % n_factors``,
        the head starts from ``h = prod_l (1 + sum_b W_b g_b)``, a sum of products of
        functions of one factor each (a canonical polyadic decomposition of f_out). Without,
        from ``sum_b W_b g_b``.
    generator : torch.Generator, optional
        Source of the initial weights.
    **layer
        Parameters of `MoELayer`.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        n_layers: int,
        model_dim: int = 128,
        block_outputs: int = 8,
        n_dense: int = 3,
        trunk: bool = True,
        n_axes: int | None = None,
        n_factors: int | None = None,
        embedding: Spec | None = None,
        activation: str = "silu",
        generator: Generator | None = None,
        **layer: Any,
    ):
        super().__init__(n_inputs, embedding if trunk else None, generator)
        if n_axes is not None:
            self.axes = Linear(n_inputs, n_axes, generator=generator).requires_grad_(False)
        seen = n_inputs if n_axes is None else n_axes
        self.blocks = MoELayer(n_layers, seen, block_outputs, generator=generator, **layer)
        self.trunk = (
            Linear(self.embedding.output_dim, model_dim, generator=generator) if trunk else None
        )
        self.n_factors = n_factors
        self.mix = Linear(
            n_layers * block_outputs, model_dim, generator=generator, gain=1.0 - trunk
        )
        self.dense = nn.Sequential(
            *(ResidualLayer(model_dim, activation, generator) for _ in range(n_dense))
        )
        self.head = Linear(model_dim, n_outputs, generator=generator)

    def _combine(self, g_BTO: Tensor) -> Tensor:
        if self.n_factors is None:
            return self.mix(g_BTO.transpose(0, 1).flatten(1))
        terms_BTM = self.terms(g_BTO)
        h_TM = 1 + self.mix.bias + terms_BTM[:: self.n_factors].sum(0)
        for factor in range(1, self.n_factors):
            h_TM = h_TM * (1 + terms_BTM[factor :: self.n_factors].sum(0))
        return h_TM

    def terms(self, g_BTO: Tensor) -> Tensor:
        """What each block adds to its factor if the blocks answer ``g_BTO``, ``terms_BTM``."""
        return torch.bmm(g_BTO, self.mix.weight.T.unflatten(0, (len(g_BTO), -1)))

    def seen_by_blocks(self, x_TD: Tensor) -> Tensor:
        """What all blocks see of x, before their encoders, ``x_BTD``."""
        return self.on_axes(x_TD).expand(self.blocks.experts.n_blocks, -1, -1)

    @torch.no_grad()
    def answer_by_mean(self) -> None:
        """Start as the mean of what the blocks answer; needs a head without a net."""
        n_blocks, n_outputs = self.blocks.experts.n_blocks, self.head.out_features
        self.mix.weight.copy_(torch.eye(n_outputs).repeat(1, n_blocks) / n_blocks)
        self.head.weight.copy_(torch.eye(n_outputs))
        for bias in (self.mix.bias, self.head.bias):
            bias.zero_()

    def predicted(self, g_BTO: Tensor) -> Tensor:
        """The prediction if the blocks answer ``g_BTO``; needs a head without a trunk."""
        return self.head(self.dense(self._combine(g_BTO)))

    def state_after(self, g_BTO: Tensor, x_TD: Tensor) -> Tensor:
        """What the head reads if the blocks answer ``g_BTO``."""
        h_TM = self._combine(g_BTO)
        if self.trunk is not None:
            h_TM = h_TM + self.trunk(self.embedding(x_TD))
        return self.dense(h_TM)

    def state(self, x_TD: Tensor) -> tuple[Tensor, list[Step]]:
        x_BTD = self.seen_by_blocks(x_TD)
        g_BTO, routing = self.blocks(x_BTD)
        return self.state_after(g_BTO, x_TD), [Step(self.blocks, x_BTD, routing, g_BTO)]


class StackMoENetwork(HeadedNetwork):
    """L layers one after the other on a residual state, between dense layers.

    Wang & E (2025), sections 5 and 6: dense and MoE layers alternate. The state carries
    what earlier layers found; gates and experts see it together with the raw input.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Dimensions of x and y.
    n_layers : int
        Number of MoE layers L.
    model_dim : int, default=128
        Width of the state.
    embedding : str, part(...) or None, default=None
        Numeric embedding in front of the first state.
    dense : bool, default=True
        Whether a dense residual layer comes before each MoE layer.
    activation : {"relu", "gelu", "silu", "tanh"}, default="silu"
        Nonlinearity of the dense layers.
    generator : torch.Generator, optional
        Source of the initial weights.
    **layer
        Parameters of `MoELayer`.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        n_layers: int,
        model_dim: int = 128,
        dense: bool = True,
        embedding: Spec | None = None,
        activation: str = "silu",
        generator: Generator | None = None,
        **layer: Any,
    ):
        super().__init__(n_inputs, embedding, generator)
        self.first = Linear(self.embedding.output_dim, model_dim, generator=generator)
        self.dense = nn.ModuleList(
            ResidualLayer(model_dim, activation, generator) if dense else nn.Identity()
            for _ in range(n_layers)
        )
        self.layers = nn.ModuleList(
            MoELayer(1, model_dim + n_inputs, model_dim, generator=generator, **layer)
            for _ in range(n_layers)
        )
        self.head = Linear(model_dim, n_outputs, generator=generator)

    def state(self, x_TD: Tensor) -> tuple[Tensor, list[Step]]:
        h_TM = self.first(self.embedding(x_TD))
        steps = []
        for dense, layer in zip(self.dense, self.moe_layers(), strict=True):
            h_TM = dense(h_TM)
            seen_BTD = torch.cat([h_TM, x_TD], -1).unsqueeze(0)
            y_BTM, routing = layer(seen_BTD)
            h_TM = h_TM + y_BTM.squeeze(0)
            steps.append(Step(layer, seen_BTD, routing, h_TM.unsqueeze(0)))
        return h_TM, steps


ARRANGEMENTS = Registry(
    "arrangement",
    {"parallel": ParallelMoENetwork, "stack": StackMoENetwork, "ensemble": EnsembleMoENetwork},
)
NETWORKS = Registry("network", {"shallow": MoENetwork, **ARRANGEMENTS})


@torch.no_grad()
def theorem_network(
    n_blocks: int,
    n_regions: int,
    *,
    slopes: Tensor | None = None,
    offsets: Tensor | None = None,
) -> StackMoENetwork:
    """The network of the warm-up theorem with weights set by hand.

    Wang & E (2025), theorem 5.3: on the cube ``[0, E]^L``, cut into unit cubes, L layers of
    E experts represent ``f(x) = (f_1(x_1), ..., f_L(x_L))``, where ``f_l`` has E pieces and
    f therefore ``E^L``. Layer l routes by coordinate ``x_l`` and its experts write
    ``f_{l,i}(x_l)`` into slot l of the state.

    The theorem uses 2 L layers, as its gates have no bias and need a layer in front that
    computes indicators of the intervals. A linear gate *with* bias cuts ``[0, E]`` at the
    integers by itself, ``logit_i = i x_l - i (i + 1) / 2`` for i from 0, so L layers
    are enough here.

    Parameters
    ----------
    n_blocks : int
        Number of coordinates and layers L.
    n_regions : int
        Number of intervals and experts E.
    slopes, offsets : Tensor of shape (L, E), optional
        The pieces ``f_{l,i}(z) = offsets[l, i] + slopes[l, i] (z - i)`` on ``[i, i + 1]``,
        i from 0. By default slopes ``(-1)^i (l + i + 1)`` and offsets ``i``, which jump at
        the borders.

    Returns
    -------
    StackMoENetwork
        In float64 and evaluation mode, its weights frozen.

    Examples
    --------
    >>> import torch
    >>> network = theorem_network(n_blocks=2, n_regions=3)
    >>> y, steps = network(torch.tensor([[0.5, 2.25]], dtype=torch.float64))
    >>> y
    tensor([[0.5000, 3.0000]], dtype=torch.float64)
    """
    layer_L1, region_E = torch.arange(n_blocks)[:, None], torch.arange(n_regions)
    signs_E = 1.0 - 2.0 * (region_E % 2)
    slopes_LE = signs_E * (layer_L1 + region_E + 1) if slopes is None else slopes
    offsets_LE = region_E.expand(n_blocks, -1) if offsets is None else offsets
    network = StackMoENetwork(
        n_blocks,
        n_blocks,
        n_layers=n_blocks,
        model_dim=n_blocks,
        n_experts=n_regions,
        top_k=1,
        gate="linear",
        expert="linear",
        dense=False,
        generator=torch.Generator(),  # torch's global one is left alone
        router=part("softmax", renormalize=True),  # weight exactly 1, as in the paper
    ).double()
    for weight in network.parameters():
        weight.zero_()
    network.head.weight.copy_(torch.eye(n_blocks))
    for block, layer in enumerate(network.moe_layers()):
        x_l = n_blocks + block  # a layer sees the state, then the raw input
        scores, pieces = _affine_maps(layer)
        scores.weight[0, x_l] = region_E.double()
        scores.bias[0, 0] = -(region_E * (region_E + 1)) / 2
        pieces.weight[:, x_l, block] = slopes_LE[block].double()
        pieces.bias[:, 0, block] = offsets_LE[block] - slopes_LE[block] * region_E
    return network.eval().requires_grad_(False)


def _affine_maps(layer: MoELayer) -> tuple[StackedLinear, StackedLinear]:
    """The maps of a linear gate and of linear experts."""
    return cast(LinearGate, layer.gate).linear, cast(LinearExperts, layer.experts).output
