"""All experts with one hidden layer on all rows, summed by weight, with a gradient by hand.

``y(x) = sum_e w_e(x) (V_e act(W_e x + b_e) + c_e)``

Most time of a fit goes into this sum. Its operations are short, and what lies between them, a
copy of the hidden features for each step of the gradient and the bookkeeping of autograd, costs
more than they do. By hand, hidden features are written once forward and once backward; in a
layer of several blocks that halves the time of a step.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

aten = torch.ops.aten

# From so many inputs on, blocks come one after the other: the rows of a block are then not
# copied for each of its experts, and hidden features stay in a CPU's cache.
MANY_INPUTS = 32


class Activation(NamedTuple):
    """A nonlinearity and its gradient, both of them in place."""

    apply: Callable[[Tensor], Tensor]
    """From ``W x + b`` to hidden features; overwrites its argument if `by_output`."""
    pull_back: Callable[[Tensor, Tensor], Tensor]
    """From (gradient, what it is known by) to the gradient before; overwrites the gradient."""
    by_output: bool
    """Whether its gradient is known by what came out; else by what went in."""


def _relu_back(grad: Tensor, output: Tensor) -> Tensor:
    return aten.threshold_backward.grad_input(grad, output, 0, grad_input=grad)


def _tanh_back(grad: Tensor, output: Tensor) -> Tensor:
    return aten.tanh_backward.grad_input(grad, output, grad_input=grad)


def _silu_back(grad: Tensor, given: Tensor) -> Tensor:
    return aten.silu_backward.grad_input(grad, given, grad_input=grad)


def _gelu_back(grad: Tensor, given: Tensor) -> Tensor:
    return aten.gelu_backward.grad_input(grad, given, grad_input=grad)


GRADIENTS = {
    "relu": Activation(torch.relu_, _relu_back, True),
    "tanh": Activation(torch.tanh_, _tanh_back, True),
    "silu": Activation(torch.nn.functional.silu, _silu_back, False),
    "gelu": Activation(torch.nn.functional.gelu, _gelu_back, False),
}


def soft_mixture(
    x_BTD: Tensor, weights_BTE: Tensor, maps: tuple[Tensor, ...], activation: str
) -> Tensor:
    """The weighted sum of all experts' answers, ``y_BTO``.

    Parameters
    ----------
    x_BTD : Tensor
        Rows of each block.
    weights_BTE : Tensor
        Weight of each expert for each row.
    maps : tuple of Tensor
        Weights and biases of the hidden layers and of the outputs, of shapes (G, D, H),
        (G, 1, H), (G, H, O) and (G, 1, O), with ``G = B E``.
    activation : {"relu", "gelu", "silu", "tanh"}
        Nonlinearity of the hidden layer.
    """
    return _SoftMixture.apply(x_BTD, weights_BTE, *maps, activation)[0]


class _SoftMixture(Function):
    """Gradients of the first order, also where `torch.vmap` puts models side by side."""

    @staticmethod
    def forward(x_BTD, weights_BTE, w_hidden, b_hidden, w_output, b_output, activation):
        n_groups, _, width = w_hidden.shape
        function = GRADIENTS[activation]
        known_GTH = x_BTD.new_empty(n_groups, x_BTD.shape[1], width)
        hidden_GTH = known_GTH if function.by_output else torch.empty_like(known_GTH)
        for group, x in _runs(x_BTD, n_groups):
            torch.baddbmm(b_hidden[group], x, w_hidden[group], out=known_GTH[group])
            if function.by_output:
                function.apply(known_GTH[group])
            else:
                hidden_GTH[group] = function.apply(known_GTH[group])
        answers_GTO = torch.baddbmm(b_output, hidden_GTH, w_output)
        weights_GT1 = _by_expert(weights_BTE)
        y_BETO = (weights_GT1 * answers_GTO).unflatten(0, (len(x_BTD), -1))
        return y_BETO.sum(1), known_GTH, hidden_GTH, answers_GTO

    @staticmethod
    def setup_context(ctx, inputs, output):
        x_BTD, weights_BTE, w_hidden, _, w_output, _, ctx.activation = inputs
        _, *made = output
        ctx.mark_non_differentiable(*made)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x_BTD, weights_BTE, w_hidden, w_output, *made)

    @staticmethod
    def backward(ctx, dy_BTO, *_):
        if dy_BTO is None:  # nobody reads the sum; what else was made has no gradient
            return (None,) * 7
        x_BTD, weights_BTE, w_hidden, w_output, known, hidden, answers_GTO = ctx.saved_tensors
        n_blocks, _, n_experts = weights_BTE.shape
        n_groups = len(w_hidden)
        dy_GTO = dy_BTO.unsqueeze(1).expand(-1, n_experts, -1, -1).reshape(answers_GTO.shape)
        dweights_GT = (answers_GTO * dy_GTO).sum(-1)
        danswers_GTO = _by_expert(weights_BTE) * dy_GTO
        dw_hidden, dx_BTD = torch.empty_like(w_hidden), None
        db_hidden = w_hidden.new_empty(n_groups, 1, w_hidden.shape[2])
        if ctx.needs_input_grad[0]:
            dx_BTD = torch.zeros_like(x_BTD)
        w_back, pull_back = w_output.mT, GRADIENTS[ctx.activation].pull_back
        for group, x in _runs(x_BTD, n_groups):
            dhidden = pull_back(_outer(danswers_GTO[group], w_back[group]), known[group])
            torch.bmm(x.mT, dhidden, out=dw_hidden[group])
            torch.sum(dhidden, 1, keepdim=True, out=db_hidden[group])
            if dx_BTD is not None:
                blocks = slice(group.start // n_experts, group.stop // n_experts)
                dx = torch.bmm(dhidden, w_hidden[group].mT)
                dx_BTD[blocks] = dx.unflatten(0, (-1, n_experts)).sum(1)
        return (
            dx_BTD,
            dweights_GT.unflatten(0, (n_blocks, -1)).mT,
            dw_hidden,
            db_hidden,
            torch.bmm(hidden.mT, danswers_GTO),
            danswers_GTO.sum(1, keepdim=True),
            None,
        )

    @staticmethod
    def vmap(info, in_dims, *args):
        """Models side by side are blocks side by side."""
        *tensors, activation = args
        stacked = [
            tensor.expand(info.batch_size, *tensor.shape)
            if dim is None
            else tensor.movedim(dim, 0)
            for tensor, dim in zip(tensors, in_dims, strict=False)
        ]
        made = _SoftMixture.apply(*(t.flatten(0, 1) for t in stacked), activation)
        return tuple(t.unflatten(0, (info.batch_size, -1)) for t in made), (0,) * len(made)


# Torch looks for it in each call; so it finds it at once.
_SoftMixture.forward.__signature__ = inspect.signature(  # type: ignore[attr-defined]
    _SoftMixture.forward
)


def _runs(x_BTD: Tensor, n_groups: int) -> Iterator[tuple[slice, Tensor]]:
    """Groups of experts that are asked together, and their rows ``x_GTD``."""
    n_blocks, n_rows, n_inputs = x_BTD.shape
    n_experts = n_groups // n_blocks
    if n_blocks > 1 and n_inputs < MANY_INPUTS:
        copies = x_BTD.unsqueeze(1).expand(-1, n_experts, -1, -1)
        yield slice(0, n_groups), copies.reshape(n_groups, n_rows, n_inputs)
        return
    for block, x_TD in enumerate(x_BTD):
        first = block * n_experts
        yield slice(first, first + n_experts), x_TD.expand(n_experts, -1, -1)


def _by_expert(weights_BTE: Tensor) -> Tensor:
    return weights_BTE.mT.reshape(-1, weights_BTE.shape[1], 1)


def _outer(left_GTO: Tensor, right_GOH: Tensor) -> Tensor:
    """The product ``left @ right``; of one output, without a call of matrices."""
    if left_GTO.shape[2] == 1:
        return left_GTO * right_GOH
    return torch.bmm(left_GTO, right_GOH)
