"""Affine maps side by side, and how their weights are drawn.

Random numbers come from a generator that is passed along, never from torch's global one.
"""

import inspect
import math
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.autograd import Function

from skmoe._registry import Registry


def gelu(x: Tensor) -> Tensor:
    """``x Phi(x)``."""
    if x.dtype == torch.float64 and torch.compiler.is_exporting():
        return nn.functional.gelu(x.float()).double()  # ONNX Runtime has no erf in float64
    return nn.functional.gelu(x)


ACTIVATIONS = Registry(
    "activation",
    {
        "relu": nn.functional.relu,
        "gelu": gelu,
        "silu": nn.functional.silu,
        "tanh": torch.tanh,
    },
)


def draw_uniform(shape: tuple[int, ...], bound: float, generator: Generator | None) -> Tensor:
    """A tensor of uniform numbers on [-bound, bound]."""
    return (2 * torch.rand(shape, generator=generator) - 1) * bound


def draw_normal(shape: tuple[int, ...], scale: float, generator: Generator | None) -> Tensor:
    """A tensor of normal numbers with standard deviation `scale`."""
    return torch.randn(shape, generator=generator) * scale


class StackedLinear(nn.Module):
    """N affine maps at once: ``y[n] = x[n] @ weight[n] + bias[n]``.

    Parameters
    ----------
    n_maps : int
        Number of maps N.
    n_inputs, n_outputs : int
        Dimensions of one map.
    generator : torch.Generator, optional
        Source of the initial weights, uniform within ``gain / sqrt(n_inputs)``.
    gain : float, default=1.0
        Scale of the initial weights; 0 starts the maps at zero.

    Examples
    --------
    >>> import torch
    >>> maps = StackedLinear(3, 4, 2)
    >>> maps(torch.zeros(3, 10, 4)).shape
    torch.Size([3, 10, 2])
    """

    def __init__(
        self,
        n_maps: int,
        n_inputs: int,
        n_outputs: int,
        *,
        generator: Generator | None = None,
        gain: float = 1.0,
    ):
        super().__init__()
        bound = gain / math.sqrt(max(n_inputs, 1))
        self.weight = nn.Parameter(
            draw_uniform((n_maps, n_inputs, n_outputs), bound, generator)
        )
        self.bias = nn.Parameter(draw_uniform((n_maps, 1, n_outputs), bound, generator))

    def forward(self, x_NTD: Tensor) -> Tensor:
        n_maps, _, n_outputs = self.weight.shape
        if n_maps > 1 and x_NTD.stride(0) == 0:
            # All maps read the same rows: one wide product instead of N copies of x.
            y_TNO = (x_NTD[0] @ self.weight.transpose(0, 1).flatten(1)).view(
                -1, n_maps, n_outputs
            )
            return y_TNO.transpose(0, 1) + self.bias
        return torch.baddbmm(self.bias, x_NTD, self.weight)


class StackedResidual(nn.Module):
    """N residual layers at once: ``h + W2 act(W1 norm(h))``, starting as nearly the identity.

    Parameters
    ----------
    n_maps : int
        Number of layers N side by side.
    dim : int
        Width of one.
    activation : {"relu", "gelu", "silu", "tanh"}, default="silu"
        Their nonlinearity.
    generator : torch.Generator, optional
        Source of the initial weights.
    """

    def __init__(
        self,
        n_maps: int,
        dim: int,
        *,
        activation: str = "silu",
        generator: Generator | None = None,
    ):
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.hidden = StackedLinear(n_maps, dim, dim, generator=generator)
        self.output = StackedLinear(n_maps, dim, dim, generator=generator, gain=0.1)

    def forward(self, h_NTW: Tensor) -> Tensor:
        maps = (self.hidden, self.output)
        return self.evaluate(h_NTW, *(t for map_ in maps for t in (map_.weight, map_.bias)))

    def evaluate(
        self,
        h_NTW: Tensor,
        w_hidden: Tensor,
        b_hidden: Tensor,
        w_output: Tensor,
        b_output: Tensor,
    ) -> Tensor:
        """The layers with these weights, which may be those of some of them."""
        inner = torch.baddbmm(b_hidden, self.norm(h_NTW), w_hidden)
        return h_NTW + torch.baddbmm(b_output, self.activation(inner), w_output)


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` whose gradients do not depend on the number of threads."""

    def forward(self, x_TM: Tensor) -> Tensor:
        if torch.compiler.is_exporting() or not torch.is_grad_enabled():
            return super().forward(x_TM)
        return _LayerNorm.apply(x_TM, self.weight, self.bias, self.eps)[0]


class _LayerNorm(Function):
    """Gradients of weight and bias are sums over all rows; torch adds up those of threads."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x_TM: Tensor, weight_M: Tensor, bias_M: Tensor, eps: float
    ) -> tuple[Tensor, ...]:
        return torch.native_layer_norm(x_TM, weight_M.shape, weight_M, bias_M, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, *moments = output
        ctx.mark_non_differentiable(*moments)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:3], *moments)

    @staticmethod
    def backward(ctx: Any, dy_TM: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if dy_TM is None:
            return (None,) * 4
        x_TM, weight_M, bias_M, mean_T1, inverse_T1 = ctx.saved_tensors
        dx_TM, _, _ = torch.ops.aten.native_layer_norm_backward(
            dy_TM,
            x_TM,
            weight_M.shape,
            mean_T1,
            inverse_T1,
            weight_M,
            bias_M,
            [True, False, False],
        )
        normed_TM = (x_TM - mean_T1) * inverse_T1
        return dx_TM, (normed_TM * dy_TM).sum(0), dy_TM.sum(0), None


# Torch looks for it in each call; so it finds it at once.
_LayerNorm.forward.__signature__ = inspect.signature(  # type: ignore[attr-defined]
    _LayerNorm.forward
)


class Linear(nn.Linear):
    """`torch.nn.Linear` whose weights come from a generator of one's own."""

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        generator: Generator | None = None,
        gain: float = 1.0,
    ):
        # Empty on the meta device first: drawing would move torch's global generator.
        super().__init__(n_inputs, n_outputs, device="meta")
        bound = gain / math.sqrt(max(n_inputs, 1))
        self.weight = nn.Parameter(draw_uniform((n_outputs, n_inputs), bound, generator))
        self.bias = nn.Parameter(draw_uniform((n_outputs,), bound, generator))
