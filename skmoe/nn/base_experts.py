"""What experts are: `Experts`, all functions of a layer as stacked tensors.

The kinds of experts are in `experts`.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from skmoe.nn.sorting import Layout
from skmoe.nn.stacked import StackedLinear


class Experts(nn.Module, ABC):
    """All experts of a layer.

    Parameters
    ----------
    n_blocks, n_experts : int
        Number of blocks side by side, and of experts in each.
    n_inputs, n_outputs : int
        Dimensions D and O of one expert.

    Attributes
    ----------
    input_dim : int
        Dimension that gate and experts see, after `encode`.
    """

    def __init__(self, n_blocks: int, n_experts: int, n_inputs: int, n_outputs: int):
        super().__init__()
        self.n_blocks, self.n_experts = n_blocks, n_experts
        self.input_dim, self.output_dim = n_inputs, n_outputs

    slices = True  # whether a dispatcher may run some of them by themselves
    asks_some = True  # whether a router may ask some of them; else it asks all, softly
    sums = True  # whether a mixture is the weighted sum of what they say

    @abstractmethod
    def stacked(self) -> tuple[Tensor, ...]:
        """The tensors of all experts, each with G experts on its first axis."""

    @abstractmethod
    def evaluate(self, x_GCD: Tensor, *stacked: Tensor) -> Tensor:
        """Outputs ``y_GCO`` of the experts with these tensors; reads no weight of `self`."""

    def forward(self, x_GCD: Tensor) -> Tensor:
        return self.evaluate(x_GCD, *self.stacked())

    def own(self) -> tuple[Tensor, ...]:
        """The weights that each expert has to itself, G on the first axis."""
        return self.stacked()

    def encode(self, x_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        """What gate and experts see of x, and the encoder's penalty for each sample."""
        return x_BTD, None

    def answer_all(self, x_BTD: Tensor) -> Tensor:
        """What every expert says about every row, ``y_BTEO``."""
        x_BETD = x_BTD.unsqueeze(1).expand(-1, self.n_experts, -1, -1)
        y_GTO = self(x_BETD.flatten(0, 1))
        return y_GTO.unflatten(0, (self.n_blocks, -1)).transpose(1, 2)

    def mix_all(self, x_BTD: Tensor, weights_BTE: Tensor) -> Tensor:
        """Weighted sum of all experts' answers, ``y_BTO``."""
        return torch.einsum("bte,bteo->bto", weights_BTE, self.answer_all(x_BTD))

    def mix_sorted(
        self, x_SD: Tensor, weights_BTK: Tensor, slots_N: Tensor, layout: Layout
    ) -> Tensor:
        """Weighted sum ``y_BTO`` of the asked experts' answers to rows sorted by expert.

        ``x_SD`` are the rows at the slots of the layout, ``slots_N`` those of the weights.
        """
        answers = [
            self.evaluate(*given).flatten(0, 1)
            for given in zip(layout.rows(x_SD), *map(layout.own, self.stacked()), strict=True)
        ]
        return weighted_sum(torch.cat(answers).index_select(0, slots_N), weights_BTK)

    @classmethod
    def on_encoded_input(cls) -> type["Experts"]:
        """The same experts without an encoder: what shared experts are made of."""
        return cls

    def features(self, x_GCD: Tensor, *stacked: Tensor) -> Tensor:
        """Features ``f_GCF`` with ``evaluate(x) = f @ output_map``; the last of them is 1."""
        raise NotImplementedError(f"{type(self).__name__} end in no linear map.")

    def output_map(self) -> Tensor | None:
        """Last map ``w_GFO``, its bias in the last row; None if there is no such map."""
        return None

    def set_output_map(self, w_GFO: Tensor) -> None:
        """Replace the last map."""
        raise NotImplementedError(f"{type(self).__name__} end in no linear map.")

    @property
    def hidden_shape(self) -> tuple[int, int] | None:
        """Dimensions (D, H) of one expert's hidden layer; None without one."""
        return None

    def set_hidden_map(self, weight_GDH: Tensor, bias_GH: Tensor) -> None:
        """Replace the hidden layers."""
        raise NotImplementedError(f"{type(self).__name__} have no hidden layer.")


def weighted_sum(answers: Tensor, weights_BTK: Tensor) -> Tensor:
    """Sum over the K answers of each row, which follow each other."""
    return (answers.view(*weights_BTK.shape, -1) * weights_BTK.unsqueeze(-1)).sum(-2)


def with_one(x: Tensor) -> Tensor:
    """Append a feature that is 1, for the bias."""
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], -1)


class EndInMap(Experts):
    """Experts whose last step is the affine map `output`."""

    output: StackedLinear

    def output_map(self) -> Tensor | None:
        return torch.cat([self.output.weight, self.output.bias], 1).detach()

    @torch.no_grad()
    def set_output_map(self, w_GFO: Tensor) -> None:
        self.output.weight.copy_(w_GFO[:, :-1])
        self.output.bias.copy_(w_GFO[:, -1:])
