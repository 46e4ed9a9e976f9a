"""The sum of those experts that are asked, with a gradient by hand.

As `soft_mixture`, for rows that `sorting` has sorted by expert.
"""

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
from skmoe.nn.sorting import Layout


class SparselyMixed(NamedTuple):
    """A weighted sum over asked experts, and what it was made of."""

    y_BTO: Tensor
    x_SD: Tensor
    weights_BTK: Tensor
    slots_N: Tensor
    layout: Layout
    maps: Maps
    activation: str
    hidden_SH: Hidden
    asked_BTKO: Tensor

    @classmethod
    def of(
        cls,
        x_SD: Tensor,
        weights_BTK: Tensor,
        slots_N: Tensor,
        layout: Layout,
        maps: Maps,
        activation: str,
        room: Room,
    ) -> "SparselyMixed":
        """Ask the experts.

        Parameters
        ----------
        x_SD : Tensor
            The row at each slot.
        weights_BTK : Tensor
            Weight of each asked expert for each row.
        slots_N : Tensor
            Slot of each of these weights.
        layout : Layout
            Whose slots these are.
        maps : tuple of Tensor
            Of all experts.
        activation : {"relu", "gelu", "silu", "tanh"}
            Nonlinearity of the hidden layer.
        room : Room
            For hidden features.
        """
        n_slots, (width, n_outputs) = len(x_SD), maps[2].shape[1:]
        hidden_SH = Hidden.empty((n_slots, width), activation, x_SD, room)
        answers_SO = room.take("answers", (n_slots, n_outputs), x_SD)
        groups = zip(
            *map(layout.rows, (x_SD, *hidden_SH, answers_SO)),
            *map(layout.own, maps),
            strict=True,
        )
        for x, features, known, answers, *own in groups:
            made = Hidden(features, known)
            make_hidden(x, tuple(own), activation, made)
            answers_of(made.features, tuple(own), answers)
        asked_BTKO = answers_SO.index_select(0, slots_N).view(*weights_BTK.shape, n_outputs)
        y_BTO = weights_BTK[..., :1] * asked_BTKO[..., 0, :]
        for k in range(1, weights_BTK.shape[2]):
            y_BTO.addcmul_(weights_BTK[..., k, None], asked_BTKO[..., k, :])
        places = weights_BTK, slots_N, layout
        return cls(y_BTO, x_SD, *places, maps, activation, hidden_SH, asked_BTKO)

    def pull_back(
        self, dy_BTO: Tensor, gradients: Maps, room: Room, dx_SD: Tensor | None = None
    ) -> Tensor:
        """Gradient ``dweights_BTK``; fills in those of the maps, and of the rows if asked."""
        dy_BT1O, layout = dy_BTO.unsqueeze(2), self.layout
        products_BTKO = room.take("products", self.asked_BTKO.shape, dy_BTO)
        torch.mul(self.weights_BTK.unsqueeze(3), dy_BT1O, out=products_BTKO)
        n_slots, n_outputs = len(self.x_SD), dy_BTO.shape[2]
        danswers_SO = room.take("danswers", (n_slots, n_outputs), dy_BTO)
        if n_slots > len(self.slots_N):
            danswers_SO.zero_()  # slots that are left over have no gradient
        danswers_SO.index_copy_(0, self.slots_N, products_BTKO.flatten(0, 2))
        dhidden_SH = room.take("dhidden", self.hidden_SH.known.shape, dy_BTO)
        rooms = [layout.room(gradient) for gradient in gradients]
        given = self.x_SD, danswers_SO, *self.hidden_SH, dhidden_SH
        groups = zip(
            *map(layout.rows, given),
            layout.own(self.maps[2]),
            zip(*rooms, strict=True),
            strict=True,
        )
        for x, danswers, features, known, dhidden, w_output, own in groups:
            pull_back_hidden(danswers, w_output, known, self.activation, dhidden)
            pull_back_maps(x, dhidden, own[0], own[1])
            pull_back_answers(danswers, features, own)
        for parts, gradient in zip(rooms, gradients, strict=True):
            layout.add_up(parts, gradient)
        if dx_SD is not None:
            rows = map(layout.rows, (dhidden_SH, dx_SD))
            for dhidden, dx, w_hidden in zip(*rows, layout.own(self.maps[0]), strict=True):
                torch.bmm(dhidden, w_hidden.mT, out=dx)
        torch.mul(self.asked_BTKO, dy_BT1O, out=products_BTKO)
        return products_BTKO[..., 0] if n_outputs == 1 else products_BTKO.sum(3)


def sparse_mixture(
    x_SD: Tensor,
    weights_BTK: Tensor,
    slots_N: Tensor,
    layout: Layout,
    maps: Maps,
    activation: str,
) -> Tensor:
    """The weighted sum of the asked experts' answers, ``y_BTO``, known to autograd.

    Parameters are those of `SparselyMixed.of`.
    """
    places = weights_BTK, slots_N, layout
    if torch.is_inference_mode_enabled():
        return SparselyMixed.of(x_SD, *places, maps, activation, Room()).y_BTO
    return _SparseMixture.apply(x_SD, *places, *maps, activation)


class _SparseMixture(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_SD: Tensor,
        weights_BTK: Tensor,
        slots_N: Tensor,
        layout: Layout,
        w_hidden: Tensor,
        b_hidden: Tensor,
        w_output: Tensor,
        b_output: Tensor,
        name: str,
    ) -> Tensor:
        maps = w_hidden, b_hidden, w_output, b_output
        mixed = SparselyMixed.of(x_SD, weights_BTK, slots_N, layout, maps, name, Room())
        ctx.layout, ctx.activation = layout, name
        ctx.save_for_backward(
            x_SD, weights_BTK, slots_N, *maps, *mixed.hidden_SH, mixed.asked_BTKO
        )
        return mixed.y_BTO

    @staticmethod
    def backward(ctx: Any, dy_BTO: Tensor) -> tuple[Tensor | None, ...]:
        x_SD, weights_BTK, slots_N, *maps, features, known, asked_BTKO = ctx.saved_tensors
        hidden_SH = Hidden(features, known)
        mixed = SparselyMixed(
            dy_BTO,
            x_SD,
            weights_BTK,
            slots_N,
            ctx.layout,
            tuple(maps),
            ctx.activation,
            hidden_SH,
            asked_BTKO,
        )
        gradients = tuple(torch.empty_like(map_) for map_ in maps)
        dx_SD = torch.empty_like(x_SD) if ctx.needs_input_grad[0] else None
        dweights_BTK = mixed.pull_back(dy_BTO, gradients, Room(), dx_SD)
        return dx_SD, dweights_BTK, None, None, *gradients, None
