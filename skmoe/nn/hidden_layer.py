"""The hidden layer of stacked experts, with a gradient by hand.

What soft, sparse and block mixtures share: ``act(W_e x + b_e)`` of G experts at once, the last
map behind it, and the gradients of both, written where there is room for them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

aten = torch.ops.aten

# With fewer outputs, batched products are several times faster the other way round.
NARROW = 16

Maps = tuple[Tensor, ...]
"""Of G experts, weights and biases of hidden layers, ``(G, D, H)`` and ``(G, 1, H)``, and of
outputs, ``(G, H, O)`` and ``(G, 1, O)``; or the gradients of these."""


class Activation(NamedTuple):
    """A nonlinearity and its gradient, the latter in place."""

    apply: Callable[[Tensor], Tensor]
    """From ``W x + b`` to hidden features; overwrites its argument if `by_output`."""
    pull_back: Callable[..., Tensor]
    """From (gradient, what it is known by) to the gradient before; overwrites the gradient, or
    another tensor `into`."""
    fill: Callable[..., Tensor] | None = None
    """As `apply`, into `out`; None if its gradient is known by what came out, which then takes
    the place of what went in."""

    @property
    def by_output(self) -> bool:
        """Whether its gradient is known by what came out; else by what went in."""
        return self.fill is None

    def slopes(self, known: Tensor) -> Tensor:
        """Its derivatives, in the place of what they are known by."""
        return self.pull_back(known.new_ones(()), known, known)


def _by(kernel: Callable[..., Tensor], *settings: float) -> Callable[..., Tensor]:
    """The gradient that a kernel of torch finds, in place of the one that it is given."""

    def pull_back(grad: Tensor, known: Tensor, into: Tensor | None = None) -> Tensor:
        return kernel(grad, known, *settings, grad_input=grad if into is None else into)

    return pull_back


GRADIENTS = {
    "relu": Activation(torch.relu_, _by(aten.threshold_backward.grad_input, 0)),
    "tanh": Activation(torch.tanh_, _by(aten.tanh_backward.grad_input)),
    "silu": Activation(
        torch.nn.functional.silu, _by(aten.silu_backward.grad_input), aten.silu.out
    ),
    "gelu": Activation(
        torch.nn.functional.gelu, _by(aten.gelu_backward.grad_input), aten.gelu.out
    ),
}


class Room:
    """Memory for what a step makes, which the next one uses again."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}
        self._tensors: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A tensor of this shape, its values those of anything; the only one of its name."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.shape != shape:
            size = math.prod(shape)
            memory = self._memory.get(name)
            if memory is None or memory.shape[0] < size:
                memory = self._memory[name] = like.new_empty(size)
            tensor = self._tensors[name] = memory[:size].view(shape)
        return tensor


class Hidden(NamedTuple):
    """Hidden features of all experts, ``features_GTH``, and what their gradient is known by."""

    features: Tensor
    known: Tensor

    @classmethod
    def empty(
        cls, shape: tuple[int, ...], activation: str, like: Tensor, room: Room
    ) -> "Hidden":
        """Tensors to be filled by `make_hidden`."""
        known = room.take("known", shape, like)
        by_output = GRADIENTS[activation].by_output
        return cls(known if by_output else room.take("features", shape, like), known)

    def fill(self, activation: str) -> None:
        """Fill in features, from what goes into the nonlinearity."""
        apply, _, fill = GRADIENTS[activation]
        if fill is None:
            apply(self.known)
        else:
            fill(self.known, out=self.features)

    def part(self, part_of: Callable[[Tensor], Tensor]) -> "Hidden":
        """Those of some experts or rows."""
        known = part_of(self.known)
        # One tensor stays one: what came out of a nonlinearity is not copied.
        is_one = self.features is self.known
        return Hidden(known if is_one else part_of(self.features), known)


def make_hidden(x_GTD: Tensor, maps: Maps, activation: str, into: Hidden) -> None:
    """Fill in the hidden features of these rows."""
    torch.baddbmm(maps[1], x_GTD, maps[0], out=into.known)
    into.fill(activation)


def answers_of(features_GTH: Tensor, maps: Maps, into: Tensor | None = None) -> Tensor:
    """What the experts say, ``answers_GTO``."""
    *_, w_output, b_output = maps
    if w_output.shape[2] >= NARROW:
        return torch.baddbmm(b_output, features_GTH, w_output, out=into)
    answers_GTO = torch.baddbmm(b_output.mT, w_output.mT, features_GTH.mT).mT
    return answers_GTO if into is None else into.copy_(answers_GTO)


def pull_back_answers(danswers_GTO: Tensor, features_GTH: Tensor, gradients: Maps) -> None:
    """Fill in the gradients of the output maps."""
    *_, dw_output, db_output = gradients
    n_outputs = danswers_GTO.shape[2]
    if n_outputs == 1:
        torch.bmm(danswers_GTO.mT, features_GTH, out=dw_output.mT)
    elif n_outputs < NARROW:
        dw_output.copy_(torch.bmm(danswers_GTO.mT, features_GTH).mT)
    else:
        torch.bmm(features_GTH.mT, danswers_GTO, out=dw_output)
    torch.sum(danswers_GTO, 1, keepdim=True, out=db_output)


def pull_back_hidden(
    danswers_GTO: Tensor, w_output: Tensor, known_GTH: Tensor, activation: str, into_GTH: Tensor
) -> Tensor:
    """The gradient before the activation."""
    if danswers_GTO.shape[2] == 1:  # the product, without a call of matrices
        torch.mul(danswers_GTO, w_output.mT, out=into_GTH)
    else:
        torch.bmm(danswers_GTO, w_output.mT, out=into_GTH)
    return GRADIENTS[activation].pull_back(into_GTH, known_GTH)


def pull_back_maps(x_GTD: Tensor, dhidden_GTH: Tensor, dweight: Tensor, dbias: Tensor) -> None:
    """Fill in the gradients of the hidden maps."""
    torch.bmm(x_GTD.mT, dhidden_GTH, out=dweight)
    torch.sum(dhidden_GTH, 1, keepdim=True, out=dbias)
