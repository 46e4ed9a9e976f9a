"""The sum of those experts that are asked, with a gradient by hand.

As `soft_mixture`, for rows that `sorting` has sorted by expert.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from skmoe.nn.soft_mixture import (
    Hidden,
    Maps,
    Room,
    answers_of,
    make_hidden,
    pull_back_answers,
    pull_back_hidden,
    pull_back_maps,
)
from skmoe.nn.sorting import Tier


class SparselyMixed(NamedTuple):
    """A weighted sum over asked experts, and what it was made of."""

    y_BTO: Tensor
    x_SD: Tensor
    weights_BTK: Tensor
    slots_N: Tensor
    tiers: list[Tier]
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
        tiers: list[Tier],
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
        tiers : list of Tier
            Whose slots these are.
        maps : tuple of Tensor
            Of all experts.
        activation : {"relu", "gelu", "silu", "tanh"}
            Nonlinearity of the hidden layer.
        room : Room
            For hidden features.
        """
        width, n_outputs = maps[2].shape[1:]
        n_slots = x_SD.shape[0]
        hidden = Hidden.empty((n_slots, width), activation, x_SD, room)
        answers_SO = x_SD.new_empty(n_slots, n_outputs)
        for tier in tiers:
            own = tuple(map(tier.own, maps))
            into = hidden.part(tier.rows)
            make_hidden(tier.rows(x_SD), own, activation, into)
            tier.rows(answers_SO).copy_(answers_of(into.features, own))
        asked_BTKO = answers_SO.index_select(0, slots_N).view(*weights_BTK.shape, n_outputs)
        y_BTO = (weights_BTK.unsqueeze(3) * asked_BTKO).sum(2)
        return cls(
            y_BTO, x_SD, weights_BTK, slots_N, tiers, maps, activation, hidden, asked_BTKO
        )

    def pull_back(
        self, dy_BTO: Tensor, gradients: Maps, room: Room, dx_SD: Tensor | None = None
    ) -> Tensor:
        """Gradient ``dweights_BTK``; fills in those of the maps, and of the rows if asked."""
        dy_BT1O = dy_BTO.unsqueeze(2)
        dasked_BTKO = self.weights_BTK.unsqueeze(3) * dy_BT1O
        # Slots that are left over have no gradient.
        danswers_SO = dy_BTO.new_zeros(self.x_SD.shape[0], dy_BTO.shape[2])
        danswers_SO.index_copy_(0, self.slots_N, dasked_BTKO.flatten(0, 2))
        dhidden_SH = room.take("dhidden", self.hidden_SH.known.shape, dy_BTO)
        if self.tiers[0].experts is not None:
            for gradient in gradients:
                gradient.zero_()
        for tier in self.tiers:
            x, dhidden = tier.rows(self.x_SD), tier.rows(dhidden_SH)
            danswers, known = tier.rows(danswers_SO), tier.rows(self.hidden_SH.known)
            pull_back_hidden(danswers, tier.own(self.maps[2]), known, self.activation, dhidden)
            own = gradients
            if tier.experts is not None:
                own = tuple(g.new_empty(tier.shape[0], *g.shape[1:]) for g in gradients)
            pull_back_maps(x, dhidden, own[0], own[1])
            pull_back_answers(danswers, tier.rows(self.hidden_SH.features), own)
            if tier.experts is not None:
                for gradient, part in zip(gradients, own, strict=True):
                    tier.add_up(part, gradient)
            if dx_SD is not None:
                torch.bmm(dhidden, tier.own(self.maps[0]).mT, out=tier.rows(dx_SD))
        dweights_BTKO = self.asked_BTKO * dy_BT1O
        return dweights_BTKO[..., 0] if dy_BTO.shape[2] == 1 else dweights_BTKO.sum(3)


def sparse_mixture(
    x_SD: Tensor,
    weights_BTK: Tensor,
    slots_N: Tensor,
    tiers: list[Tier],
    maps: Maps,
    activation: str,
) -> Tensor:
    """The weighted sum of the asked experts' answers, ``y_BTO``, known to autograd.

    Parameters are those of `SparselyMixed.of`.
    """
    places = weights_BTK, slots_N, tiers
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
        tiers: list[Tier],
        w_hidden: Tensor,
        b_hidden: Tensor,
        w_output: Tensor,
        b_output: Tensor,
        name: str,
    ) -> Tensor:
        maps = w_hidden, b_hidden, w_output, b_output
        mixed = SparselyMixed.of(x_SD, weights_BTK, slots_N, tiers, maps, name, Room())
        ctx.tiers, ctx.activation = tiers, name
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
            ctx.tiers,
            tuple(maps),
            ctx.activation,
            hidden_SH,
            asked_BTKO,
        )
        gradients = tuple(torch.empty_like(map_) for map_ in maps)
        dx_SD = torch.empty_like(x_SD) if ctx.needs_input_grad[0] else None
        dweights_BTK = mixed.pull_back(dy_BTO, gradients, Room(), dx_SD)
        return dx_SD, dweights_BTK, None, None, *gradients, None
