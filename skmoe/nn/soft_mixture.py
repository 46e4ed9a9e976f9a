"""Experts with one hidden layer, summed by weight, with a gradient by hand.

``y(x) = sum_e w_e(x) (V_e act(W_e x + b_e) + c_e)``, over all experts; `sparse_mixture` sums
over those that are asked.

Most time of a fit goes into this sum. Its operations are short, and what lies between them, a
copy of the hidden features for each step of the gradient and the bookkeeping of autograd, costs
more than they do. By hand, hidden features are written once forward and once backward; in a
layer of several blocks that halves the time of a step.
"""

import inspect
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from skmoe.nn.hidden_layer import (
    Hidden,
    Maps,
    Room,
    answers_of,
    make_hidden,
    pull_back_answers,
    pull_back_hidden,
    pull_back_maps,
)

# From so many inputs on, blocks come one after the other: the rows of a block are then not
# copied for each of its experts, and hidden features stay in a CPU's cache.
MANY_INPUTS = 32
# On a GPU they do not unless the copies would be of more values than these.
COPIED_ON_CUDA = 2**27


class Blocks:
    """Whose the experts are: block b has so many of them, one after the other.

    What blocks have for each expert, ``BE``, has as many places in each of them; those of
    experts that a block does not have are zero.

    Parameters
    ----------
    counts : sequence of int
        Of each block, the number of its experts.
    device : torch.device
        Where their weights are.
    """

    def __init__(self, counts: Sequence[int], device: torch.device):
        self.counts, self.n_experts, self.n_groups = counts, max(counts), sum(counts)
        self.are_even = min(counts) == self.n_experts
        self.count: int | Tensor = self.n_experts  # of each block's experts, ``(B, 1, 1)``
        if not self.are_even:
            self.counts_B = torch.tensor(counts, device=device)
            self.count = self.counts_B[:, None, None]
            everyone_E = torch.arange(self.n_experts, device=device)
            self.missing_BE = everyone_E >= self.counts_B[:, None]
            self.places_G = (~self.missing_BE).flatten().nonzero()[:, 0]
            self.owners_G = self.places_G // self.n_experts
            self._joined: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def runs(self, x_BTD: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Groups of experts that are asked together, and their rows ``x_GTD``."""
        if len(self.counts) > 1 and self._copies(x_BTD):
            yield slice(0, self.n_groups), self.spread(x_BTD)
            return
        stop = 0
        for count, x_TD in zip(self.counts, x_BTD, strict=True):
            start, stop = stop, stop + count
            yield slice(start, stop), x_TD.expand(count, -1, -1)

    def _copies(self, x_BTD: Tensor) -> bool:
        """Whether rows are copied for each expert, to ask all of them in one call."""
        if x_BTD.is_cuda:
            return x_BTD[0].numel() * self.n_groups <= COPIED_ON_CUDA
        return x_BTD.shape[2] < MANY_INPUTS

    def spread(self, of_blocks: Tensor) -> Tensor:
        """From what blocks have, what their experts have."""
        if not self.are_even:
            return of_blocks.index_select(0, self.owners_G)
        return of_blocks.repeat_interleave(self.n_experts, 0)

    def join(self, of_experts: Tensor, name: str = "joined") -> Tensor:
        """From what experts have, ``G``, the same by blocks, ``BE``.

        It stays what it is until others of its name and shape are joined.
        """
        if self.are_even:
            return of_experts.unflatten(0, (-1, self.n_experts))
        shape = len(self.counts), self.n_experts, *of_experts.shape[1:]
        joined = self._joined.get((name, shape))
        if joined is None:  # zeros stay where no expert is
            joined = self._joined[name, shape] = of_experts.new_zeros(shape)
        joined.flatten(0, 1).index_copy_(0, self.places_G, of_experts)
        return joined

    def numbered(self, ids_BTK: Tensor) -> Tensor:
        """From numbers of experts in their blocks, those among all experts."""
        if len(self.counts) == 1:
            return ids_BTK
        if self.are_even:
            firsts_B = torch.arange(0, self.n_groups, self.n_experts, device=ids_BTK.device)
        else:
            firsts_B = self.counts_B.cumsum(0) - self.counts_B
        return ids_BTK + firsts_B[:, None, None]

    def part(self, of_blocks: Tensor) -> Tensor:
        """From what blocks have for each expert, ``BE``, the same by experts, ``G``."""
        joined = of_blocks.flatten(0, 1)
        return joined if self.are_even else joined.index_select(0, self.places_G)


class Mixed(NamedTuple):
    """The weighted sums of all experts, and what they were made of."""

    y_BTO: Tensor
    runs: list[tuple[slice, Tensor]]
    """As of `Blocks`."""
    weights_GT: Tensor
    maps: Maps
    activation: str
    hidden: Hidden
    answers_GTO: Tensor
    blocks: Blocks

    @classmethod
    def of(
        cls,
        x_BTD: Tensor,
        weights_GT: Tensor,
        maps: Maps,
        activation: str,
        room: Room,
        blocks: Blocks | None = None,
    ) -> "Mixed":
        """Ask the experts.

        Parameters
        ----------
        x_BTD : Tensor
            Rows of each block.
        weights_GT : Tensor
            Weight of each expert for each row.
        maps : tuple of Tensor
            Of the experts.
        activation : {"relu", "gelu", "silu", "tanh"}
            Nonlinearity of the hidden layer.
        room : Room
            For hidden features.
        blocks : Blocks, optional
            Whose experts they are; by default, each block has as many.
        """
        n_groups, _, width = maps[0].shape
        blocks = blocks or _even(x_BTD, n_groups)
        hidden = Hidden.empty((n_groups, x_BTD.shape[1], width), activation, x_BTD, room)
        runs = list(blocks.runs(x_BTD))
        for group, x_GTD in runs:
            own = hidden.part(itemgetter(group))
            make_hidden(x_GTD, some(maps, group), activation, own)
        answers_GTO = answers_of(hidden.features, maps)
        y_BTO = blocks.join(weights_GT.unsqueeze(2) * answers_GTO).sum(1)
        return cls(y_BTO, runs, weights_GT, maps, activation, hidden, answers_GTO, blocks)

    def pull_back(
        self, dy_BTO: Tensor, gradients: Maps, room: Room, dx_BTD: Tensor | None = None
    ) -> Tensor:
        """Gradient ``dweights_GT``; fills in those of the maps, and of the rows if asked."""
        dy_GTO = dy_BTO if len(dy_BTO) == 1 else self.blocks.spread(dy_BTO)
        danswers_GTO = self.weights_GT.unsqueeze(2) * dy_GTO
        dhidden_GTH = room.take("dhidden", self.hidden.known.shape, dy_BTO)
        for group, x_GTD in self.runs:
            maps, dhidden = some(self.maps, group), dhidden_GTH[group]
            known = self.hidden.known[group]
            pull_back_hidden(danswers_GTO[group], maps[2], known, self.activation, dhidden)
            pull_back_maps(x_GTD, dhidden, gradients[0][group], gradients[1][group])
            if dx_BTD is not None:
                n_experts = self.blocks.n_experts
                blocks = slice(group.start // n_experts, group.stop // n_experts)
                dx = torch.bmm(dhidden, maps[0].mT)
                dx_BTD[blocks] = dx.unflatten(0, (-1, n_experts)).sum(1)
        pull_back_answers(danswers_GTO, self.hidden.features, gradients)
        dweights_GTO = self.answers_GTO * dy_GTO
        return dweights_GTO[..., 0] if dy_BTO.shape[2] == 1 else dweights_GTO.sum(2)


def soft_mixture(x_BTD: Tensor, weights_BTE: Tensor, maps: Maps, activation: str) -> Tensor:
    """The weighted sum of all experts' answers, ``y_BTO``, known to autograd.

    Parameters
    ----------
    x_BTD : Tensor
        Rows of each block.
    weights_BTE : Tensor
        Weight of each expert for each row.
    maps : tuple of Tensor
        Of the experts.
    activation : {"relu", "gelu", "silu", "tanh"}
        Nonlinearity of the hidden layer.
    """
    if torch.is_inference_mode_enabled():
        return Mixed.of(x_BTD, _by_expert(weights_BTE), maps, activation, Room()).y_BTO
    return _SoftMixture.apply(x_BTD, weights_BTE, *maps, activation)[0]


class _SoftMixture(Function):
    """Gradients of the first order, also where `torch.vmap` puts models side by side."""

    @staticmethod
    def forward(
        x_BTD: Tensor,
        weights_BTE: Tensor,
        w_hidden: Tensor,
        b_hidden: Tensor,
        w_output: Tensor,
        b_output: Tensor,
        activation: str,
    ) -> tuple[Tensor, ...]:
        maps = w_hidden, b_hidden, w_output, b_output
        mixed = Mixed.of(x_BTD, _by_expert(weights_BTE), maps, activation, Room())
        return mixed.y_BTO, *mixed.hidden, mixed.answers_GTO

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.activation = inputs
        _, *made = output
        ctx.mark_non_differentiable(*made)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *made)

    @staticmethod
    def backward(ctx: Any, dy_BTO: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if dy_BTO is None:  # nobody reads the sum; what else was made has no gradient
            return (None,) * 7
        x_BTD, weights_BTE, *maps, features, known, answers_GTO = ctx.saved_tensors
        made = Hidden(features, known), answers_GTO
        weights_GT = _by_expert(weights_BTE)
        blocks = _even(x_BTD, len(weights_GT))
        given = weights_GT, tuple(maps), ctx.activation, *made, blocks
        mixed = Mixed(dy_BTO, list(blocks.runs(x_BTD)), *given)
        gradients = tuple(torch.empty_like(map_) for map_ in maps)
        dx_BTD = torch.empty_like(x_BTD) if ctx.needs_input_grad[0] else None
        dweights_GT = mixed.pull_back(dy_BTO, gradients, Room(), dx_BTD)
        dweights_BTE = dweights_GT.unflatten(0, (len(x_BTD), -1)).mT
        return dx_BTD, dweights_BTE, *gradients, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
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


def some(maps: Maps, group: slice) -> Maps:
    """The maps of some experts."""
    return tuple(map_[group] for map_ in maps)


def _even(x_BTD: Tensor, n_groups: int) -> Blocks:
    return Blocks([n_groups // len(x_BTD)] * len(x_BTD), x_BTD.device)


def _by_expert(weights_BTE: Tensor) -> Tensor:
    return weights_BTE.mT.flatten(0, 1)
