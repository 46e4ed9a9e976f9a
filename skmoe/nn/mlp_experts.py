"""Nets as experts: `MLPExperts`, of which others are made, and `MergedExperts`."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Generator, Tensor, nn

from skmoe._settings import check_integer, check_number
from skmoe.nn.base_experts import EndInMap, Experts, with_one
from skmoe.nn.soft_mixture import soft_mixture
from skmoe.nn.sorting import Layout
from skmoe.nn.sparse_mixture import sparse_mixture
from skmoe.nn.stacked import ACTIVATIONS, StackedLinear, StackedResidual


class MLPExperts(EndInMap):
    """Two-layer nets, the experts of Wang & E (2025); or deeper ones.

    Parameters
    ----------
    hidden_dim : int, default=32
        Width H of one expert.
    activation : {"relu", "gelu", "silu", "tanh"}, default="relu"
        Nonlinearity of its hidden layer.
    hidden_gain : float, default=1.0
        Scale of the initial weights of the hidden layer: with more, an expert is less smooth
        at first and learns functions that oscillate faster.
    depth : int, default=0
        Residual layers between the hidden layer and the output.

    Examples
    --------
    >>> import torch
    >>> experts = MLPExperts(1, n_experts=4, n_inputs=3, n_outputs=2, hidden_dim=8)
    >>> experts.answer_all(torch.zeros(1, 5, 3)).shape  # block, row, expert, output
    torch.Size([1, 5, 4, 2])
    """

    def __init__(
        self,
        n_blocks: int,
        n_experts: int,
        n_inputs: int,
        n_outputs: int,
        *,
        hidden_dim: int = 32,
        activation: str = "relu",
        hidden_gain: float = 1.0,
        depth: int = 0,
        generator: Generator | None = None,
    ):
        super().__init__(n_blocks, n_experts, n_inputs, n_outputs)
        n_maps, hidden_dim = n_blocks * n_experts, check_integer("hidden_dim", hidden_dim)
        gain = check_number("hidden_gain", hidden_gain, open_=True)
        self.hidden = StackedLinear(
            n_maps, n_inputs, hidden_dim, generator=generator, gain=gain
        )
        self.layers = nn.ModuleList(
            StackedResidual(n_maps, hidden_dim, generator=generator)
            for _ in range(check_integer("depth", depth, smallest=0))
        )
        self.output = StackedLinear(n_maps, hidden_dim, n_outputs, generator=generator)
        self.activation: Callable[[Tensor], Tensor] = ACTIVATIONS[activation]
        self.activation_name = activation

    def stacked(self) -> tuple[Tensor, ...]:
        maps = [self.hidden]
        for layer in self._residuals():
            maps += [layer.hidden, layer.output]
        return tuple(t for map_ in [*maps, self.output] for t in (map_.weight, map_.bias))

    def evaluate(self, x_GCD: Tensor, *stacked: Tensor) -> Tensor:
        *_, w_output, b_output = stacked
        return torch.baddbmm(b_output, self._hidden(x_GCD, *stacked), w_output)

    def features(self, x_GCD: Tensor, *stacked: Tensor) -> Tensor:
        return with_one(self._hidden(x_GCD, *stacked))

    def _residuals(self) -> list[StackedResidual]:
        return [cast(StackedResidual, layer) for layer in self.layers]

    def _hidden(
        self, x_GCD: Tensor, w_hidden: Tensor, b_hidden: Tensor, *rest: Tensor
    ) -> Tensor:
        h_GCH = self.activation(torch.baddbmm(b_hidden, x_GCD, w_hidden))
        for layer, start in zip(self._residuals(), range(0, len(rest), 4), strict=False):
            h_GCH = layer.evaluate(h_GCH, *rest[start : start + 4])
        return h_GCH

    def output_map(self) -> Tensor | None:
        return super().output_map() if self._evaluates_a_net else None

    @property
    def hidden_shape(self) -> tuple[int, int] | None:
        if not self._evaluates_a_net:
            return None
        _, n_inputs, n_hidden = self.hidden.weight.shape
        return n_inputs, n_hidden

    @torch.no_grad()
    def set_hidden_map(self, weight_GDH: Tensor, bias_GH: Tensor) -> None:
        self.hidden.weight.copy_(weight_GDH)
        self.hidden.bias.copy_(bias_GH[:, None])

    @property
    def _evaluates_a_net(self) -> bool:
        """False in a subclass that computes something else."""
        return type(self).evaluate is MLPExperts.evaluate

    def mix_all(self, x_BTD: Tensor, weights_BTE: Tensor) -> Tensor:
        if not self._has_gradient_by_hand:
            return super().mix_all(x_BTD, weights_BTE)
        return soft_mixture(x_BTD, weights_BTE, self.stacked(), self.activation_name)

    def mix_sorted(
        self, x_SD: Tensor, weights_BTK: Tensor, slots_N: Tensor, layout: Layout
    ) -> Tensor:
        if not self._has_gradient_by_hand:
            return super().mix_sorted(x_SD, weights_BTK, slots_N, layout)
        maps = self.stacked()
        return sparse_mixture(x_SD, weights_BTK, slots_N, layout, maps, self.activation_name)

    @property
    def _has_gradient_by_hand(self) -> bool:
        plain = not self.layers and self._evaluates_a_net
        return plain and not torch.compiler.is_exporting()


class MergedExperts(MLPExperts):
    """Nets of which each row gets one, by the mean of their weights, not of what they say.

    ``y(x) = V (act(W x + b)) + c`` with ``W = sum_e w_e(x) W_e`` and likewise for b, V and c:
    soft merging of experts (Muqeeth et al., SMEAR, 2023; section 3.3 of the survey of Cai et
    al., 2024), for each row by itself. As the net is not linear in W, a prediction is no longer
    the sum of experts' answers: `predict_experts` has what each would say alone, and no last
    map is solved for after training. It costs what a soft mixture costs.

    Parameters
    ----------
    hidden_dim : int, default=32
        Width H of one expert.
    activation : {"relu", "gelu", "silu", "tanh"}, default="relu"
        Nonlinearity of its hidden layer.
    hidden_gain : float, default=1.0
        Scale of the initial weights of the hidden layer.
    depth : int, default=0
        Residual layers between the hidden layer and the output, merged as well.

    Examples
    --------
    >>> import torch
    >>> experts = MergedExperts(1, 4, 3, 2)
    >>> experts.mix_all(torch.zeros(1, 5, 3), torch.full((1, 5, 4), 0.25)).shape
    torch.Size([1, 5, 2])
    """

    asks_some = False
    sums = False

    def mix_all(self, x_BTD: Tensor, weights_BTE: Tensor) -> Tensor:
        def merged(map_: StackedLinear, x_BTD: Tensor) -> Tensor:
            """Every row by the mean of the experts' maps, as one wide product."""
            w_BED, b_BEO = (
                t.unflatten(0, (self.n_blocks, -1)) for t in (map_.weight, map_.bias)
            )
            weighted_BTED = weights_BTE[..., None] * x_BTD[:, :, None]
            bias_BTO = torch.bmm(weights_BTE, b_BEO.squeeze(2))
            return torch.baddbmm(bias_BTO, weighted_BTED.flatten(2), w_BED.flatten(1, 2))

        h_BTH = self.activation(merged(self.hidden, x_BTD))
        for layer in self._residuals():
            inner_BTH = layer.activation(merged(layer.hidden, layer.norm(h_BTH)))
            h_BTH = h_BTH + merged(layer.output, inner_BTH)
        return merged(self.output, h_BTH)

    def output_map(self) -> None:
        return None

    @classmethod
    def on_encoded_input(cls) -> type[Experts]:
        return MLPExperts
