"""Experts: all functions of a layer as stacked tensors.

Contract. `Experts` holds G = n_blocks * n_experts functions from D to O dimensions. A class
states its tensors, first axis G, in `stacked` and the function itself in `evaluate`, from
``x_GCD``, the C rows of each expert, to ``y_GCO``. `evaluate` reads no weights of its own,
so that a dispatcher can run it on a slice of the experts.

Experts that end in a linear map say so: `features` are what this map reads, `output_map` and
`set_output_map` are its weights. A solver then finds the best map in closed form.

To add a kind of expert, copy the nearest one and name it in `EXPERTS` at the bottom.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from torch import Generator, Tensor, nn

from skmoe._registry import Registry
from skmoe._settings import check_integer, check_number
from skmoe.nn.stacked import ACTIVATIONS, StackedLinear, StackedResidual


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

    @abstractmethod
    def stacked(self) -> tuple[Tensor, ...]:
        """The tensors of all experts, each with G experts on its first axis."""

    @abstractmethod
    def evaluate(self, x_GCD: Tensor, *stacked: Tensor) -> Tensor:
        """Outputs ``y_GCO`` of the experts with these tensors; reads no weight of `self`."""

    def forward(self, x_GCD: Tensor) -> Tensor:
        return self.evaluate(x_GCD, *self.stacked())

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


def with_one(x: Tensor) -> Tensor:
    """Append a feature that is 1, for the bias."""
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], -1)


class _EndInMap(Experts):
    """Experts whose last step is the affine map `output`."""

    output: StackedLinear

    def output_map(self) -> Tensor | None:
        return torch.cat([self.output.weight, self.output.bias], 1).detach()

    @torch.no_grad()
    def set_output_map(self, w_GFO: Tensor) -> None:
        self.output.weight.copy_(w_GFO[:, :-1])
        self.output.bias.copy_(w_GFO[:, -1:])


class MLPExperts(_EndInMap):
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
    """

    def __init__(
        self,
        n_blocks,
        n_experts,
        n_inputs,
        n_outputs,
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

    def stacked(self) -> tuple[Tensor, ...]:
        maps = [self.hidden]
        for layer in self._residuals():
            maps += [layer.hidden, layer.output]
        return tuple(t for map_ in [*maps, self.output] for t in (map_.weight, map_.bias))

    def evaluate(self, x_GCD, *stacked):
        *_, w_output, b_output = stacked
        return torch.baddbmm(b_output, self._hidden(x_GCD, *stacked), w_output)

    def features(self, x_GCD, *stacked):
        return with_one(self._hidden(x_GCD, *stacked))

    def _residuals(self) -> list[StackedResidual]:
        return [cast(StackedResidual, layer) for layer in self.layers]

    def _hidden(self, x_GCD, w_hidden, b_hidden, *rest) -> Tensor:
        h_GCH = self.activation(torch.baddbmm(b_hidden, x_GCD, w_hidden))
        for layer, start in zip(self._residuals(), range(0, len(rest), 4), strict=False):
            h_GCH = layer.evaluate(h_GCH, *rest[start : start + 4])
        return h_GCH

    def output_map(self):
        return super().output_map() if self._evaluates_a_net else None

    @property
    def hidden_shape(self):
        return tuple(self.hidden.weight.shape[1:]) if self._evaluates_a_net else None

    @torch.no_grad()
    def set_hidden_map(self, weight_GDH, bias_GH):
        self.hidden.weight.copy_(weight_GDH)
        self.hidden.bias.copy_(bias_GH[:, None])

    @property
    def _evaluates_a_net(self) -> bool:
        """False in a subclass that computes something else."""
        return type(self).evaluate is MLPExperts.evaluate

    def mix_all(self, x_BTD: Tensor, weights_BTE: Tensor) -> Tensor:
        if self.layers or not self._evaluates_a_net:
            return super().mix_all(x_BTD, weights_BTE)
        # The experts of a block as one net of width F = E H, weighted in its hidden layer:
        # two wide products instead of 2 E narrow ones.
        w_hidden, b_hidden, w_output, b_output = (
            tensor.unflatten(0, (self.n_blocks, -1)) for tensor in self.stacked()
        )
        w_BDF = w_hidden.transpose(1, 2).flatten(2)
        hidden_BTF = self.activation(torch.baddbmm(b_hidden.flatten(1)[:, None], x_BTD, w_BDF))
        hidden_BTEH = hidden_BTF.unflatten(-1, (self.n_experts, -1)) * weights_BTE[..., None]
        bias_BTO = torch.bmm(weights_BTE, b_output.squeeze(2))
        return torch.baddbmm(bias_BTO, hidden_BTEH.flatten(2), w_output.flatten(1, 2))


class LinearExperts(_EndInMap):
    """Affine functions: with a gate, a piecewise linear model.

    Softmax gates estimate linear experts slowly (arXiv 2503.03213); the
    ``normalized_sigmoid`` router does not have this defect.
    """

    def __init__(
        self,
        n_blocks,
        n_experts,
        n_inputs,
        n_outputs,
        *,
        generator: Generator | None = None,
    ):
        super().__init__(n_blocks, n_experts, n_inputs, n_outputs)
        self.output = StackedLinear(
            n_blocks * n_experts, n_inputs, n_outputs, generator=generator
        )

    def stacked(self) -> tuple[Tensor, ...]:
        return (self.output.weight, self.output.bias)

    def evaluate(self, x_GCD, *stacked):
        weight, bias = stacked
        return torch.baddbmm(bias, x_GCD, weight)

    def features(self, x_GCD, *stacked):
        return with_one(x_GCD)


class ConstantExperts(Experts):
    """One number for each output: the gate does all the work."""

    def __init__(
        self,
        n_blocks,
        n_experts,
        n_inputs,
        n_outputs,
        *,
        generator: Generator | None = None,
    ):
        super().__init__(n_blocks, n_experts, n_inputs, n_outputs)
        self.value = nn.Parameter(
            torch.randn((n_blocks * n_experts, 1, n_outputs), generator=generator)
        )

    def stacked(self) -> tuple[Tensor, ...]:
        return (self.value,)

    def evaluate(self, x_GCD, *stacked):
        (value,) = stacked
        return value.expand(-1, x_GCD.shape[1], -1)

    def features(self, x_GCD, *stacked):
        return with_one(x_GCD[..., :0])

    def output_map(self):
        return self.value.detach()

    @torch.no_grad()
    def set_output_map(self, w_GFO):
        self.value.copy_(w_GFO)


class LatentExperts(MLPExperts):
    """Two-layer nets on a low-dimensional encoding of the input.

    Wang & E (2025), section 6, suggestion 4: ``expert = f_low o Enc``. One linear encoder
    for each block; gate and experts see the encoded input.

    Parameters
    ----------
    latent_dim : int, default=3
        Dimension of the encoded input; at most that of the input is used.
    reconstruction : float, default=0.0
        Weight of the loss ``|Dec(Enc(x)) - x|^2 / D``; above 0 a linear decoder is added.
    hidden_dim : int, default=32
        Width H of one expert.
    activation : {"relu", "gelu", "silu", "tanh"}, default="silu"
        Nonlinearity of its hidden layer.
    hidden_gain : float, default=1.0
        Scale of the initial weights of the hidden layer.
    depth : int, default=0
        Residual layers between the hidden layer and the output.
    """

    def __init__(
        self,
        n_blocks,
        n_experts,
        n_inputs,
        n_outputs,
        *,
        latent_dim: int = 3,
        reconstruction: float = 0.0,
        hidden_dim: int = 32,
        activation: str = "silu",
        hidden_gain: float = 1.0,
        depth: int = 0,
        generator: Generator | None = None,
    ):
        latent_dim = min(check_integer("latent_dim", latent_dim), n_inputs)
        super().__init__(
            n_blocks,
            n_experts,
            latent_dim,
            n_outputs,
            hidden_dim=hidden_dim,
            activation=activation,
            hidden_gain=hidden_gain,
            depth=depth,
            generator=generator,
        )
        # sqrt(3): encoded inputs have unit variance when the features do.
        self.encoder = StackedLinear(
            n_blocks, n_inputs, latent_dim, generator=generator, gain=3**0.5
        )
        self.reconstruction = check_number("reconstruction", reconstruction)
        self.decoder = (
            StackedLinear(n_blocks, latent_dim, n_inputs, generator=generator)
            if reconstruction > 0
            else None
        )

    def encode(self, x_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        z_BTD = self.encoder(x_BTD)
        if self.decoder is None:
            return z_BTD, None
        error_BT = (self.decoder(z_BTD) - x_BTD).square().mean(-1)
        return z_BTD, self.reconstruction * error_BT

    @torch.no_grad()
    def place_encoder(self, weight_BDR: Tensor) -> None:
        """Start the encoder of each block as this map, ``z = x W``."""
        self.encoder.weight.copy_(weight_BDR)
        self.encoder.bias.zero_()

    @classmethod
    def on_encoded_input(cls) -> type[Experts]:
        return MLPExperts


EXPERTS = Registry(
    "expert",
    {
        "mlp": MLPExperts,
        "linear": LinearExperts,
        "constant": ConstantExperts,
        "latent": LatentExperts,
    },
)
