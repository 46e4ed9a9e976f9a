"""Experts with one hidden layer, summed by weight, with a gradient by hand.

``y(x) = sum_e w_e(x) (V_e act(W_e x + b_e) + c_e)``, over all experts or those that are asked.

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
        known_GTH, hidden_GTH = _room(x_BTD, (n_groups, x_BTD.shape[1], width), activation)
        for group, x_GTD in _runs(x_BTD, n_groups):
            maps = w_hidden[group], b_hidden[group]
            _make_hidden(x_GTD, *maps, activation, known_GTH[group], hidden_GTH[group])
        answers_GTO = torch.baddbmm(b_output, hidden_GTH, w_output)
        y_BETO = (_by_expert(weights_BTE) * answers_GTO).unflatten(0, (len(x_BTD), -1))
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
        dw_hidden, db_hidden = _room_for_gradients(w_hidden)
        dx_BTD = torch.zeros_like(x_BTD) if ctx.needs_input_grad[0] else None
        for group, x_GTD in _runs(x_BTD, n_groups):
            dhidden = _pull_back(
                danswers_GTO[group], w_output[group], known[group], ctx.activation
            )
            _gradients(x_GTD, dhidden, dw_hidden[group], db_hidden[group])
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


def sparse_mixture(
    x_GCD: Tensor,
    weights_BTK: Tensor,
    slots: Tensor,
    maps: tuple[Tensor, ...],
    activation: str,
) -> Tensor:
    """The weighted sum of the answers of those experts that are asked, ``y_BTO``.

    Parameters
    ----------
    x_GCD : Tensor
        Rows of each expert, padded to the longest.
    weights_BTK : Tensor
        Weight of each asked expert for each row.
    slots : Tensor
        Where, in the first two axes of `x_GCD` together, the row of each weight stands.
    maps, activation
        As of `soft_mixture`.
    """
    return _SparseMixture.apply(x_GCD, weights_BTK, slots, *maps, activation)


class _SparseMixture(Function):
    """The same for rows that are sorted by expert."""

    @staticmethod
    def forward(
        ctx, x_GCD, weights_BTK, slots, w_hidden, b_hidden, w_output, b_output, activation
    ):
        shape = (*x_GCD.shape[:2], w_hidden.shape[2])
        known_GCH, hidden_GCH = _room(x_GCD, shape, activation)
        _make_hidden(x_GCD, w_hidden, b_hidden, activation, known_GCH, hidden_GCH)
        answers_GCO = torch.baddbmm(b_output, hidden_GCH, w_output)
        asked_BTKO = answers_GCO.flatten(0, 1)[slots].view(*weights_BTK.shape, -1)
        ctx.activation = activation
        ctx.save_for_backward(
            x_GCD, weights_BTK, slots, w_hidden, w_output, known_GCH, hidden_GCH, asked_BTKO
        )
        return (weights_BTK.unsqueeze(-1) * asked_BTKO).sum(-2)

    @staticmethod
    def backward(ctx, dy_BTO):
        x_GCD, weights_BTK, slots, w_hidden, w_output, known, hidden, asked_BTKO = (
            ctx.saved_tensors
        )
        dy_BT1O = dy_BTO.unsqueeze(-2)
        dasked_BTKO = weights_BTK.unsqueeze(-1) * dy_BT1O
        # Slots of the padding have no gradient.
        danswers = dy_BTO.new_zeros(x_GCD.shape[0] * x_GCD.shape[1], dy_BTO.shape[-1])
        danswers[slots] = dasked_BTKO.reshape(-1, dy_BTO.shape[-1])
        danswers_GCO = danswers.view(*x_GCD.shape[:2], -1)
        dhidden = _pull_back(danswers_GCO, w_output, known, ctx.activation)
        dw_hidden, db_hidden = _room_for_gradients(w_hidden)
        _gradients(x_GCD, dhidden, dw_hidden, db_hidden)
        return (
            torch.bmm(dhidden, w_hidden.mT) if ctx.needs_input_grad[0] else None,
            (asked_BTKO * dy_BT1O).sum(-1),
            None,
            dw_hidden,
            db_hidden,
            torch.bmm(hidden.mT, danswers_GCO),
            danswers_GCO.sum(1, keepdim=True),
            None,
        )


def _room(x: Tensor, shape: tuple[int, ...], activation: str) -> tuple[Tensor, Tensor]:
    """Tensors for what the gradient of an activation is known by, and for hidden features."""
    known = x.new_empty(shape)
    return known, known if GRADIENTS[activation].by_output else torch.empty_like(known)


def _make_hidden(x, weight, bias, activation: str, known: Tensor, hidden: Tensor) -> None:
    """Hidden features of these rows, into the tensors made for them."""
    torch.baddbmm(bias, x, weight, out=known)
    made = GRADIENTS[activation].apply(known)
    if made is not known:
        hidden.copy_(made)


def _pull_back(danswers: Tensor, w_output: Tensor, known: Tensor, activation: str) -> Tensor:
    """The gradient before the activation."""
    if danswers.shape[2] == 1:
        dhidden = danswers * w_output.mT  # the product, without a call of matrices
    else:
        dhidden = torch.bmm(danswers, w_output.mT)
    return GRADIENTS[activation].pull_back(dhidden, known)


def _room_for_gradients(weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(weight), weight.new_empty(len(weight), 1, weight.shape[2])


def _gradients(x: Tensor, dhidden: Tensor, dweight: Tensor, dbias: Tensor) -> None:
    """Gradients of the hidden map, into the tensors made for them."""
    torch.bmm(x.mT, dhidden, out=dweight)
    torch.sum(dhidden, 1, keepdim=True, out=dbias)
