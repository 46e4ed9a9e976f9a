"""The sum of asked experts in blocks of rows, with few passes over their hidden features.

As `sparse_mixture`, for nets with a rectifier and one output. With many rows, a GPU takes less
time for products than for passes over what they make. So a bias is a row of its map, for a
column of ones beside the inputs: it is added, and its gradient summed up, by products. And as
a rectifier multiplies by slopes of 0 or 1, one product tells the gradients of all maps of a
net: with inputs and one ``z`` of rows t, their slopes ``s``, and gradients ``d`` of answers,

    M = sum_t d_t z_t s_t',   dW = M v (by columns),   dv = sum_z W M.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from skmoe.nn.soft_mixture import Maps, Room
from skmoe.nn.sorting import BlockSorting, Tier

softmax_backward = torch._softmax_backward_data

# Inputs, with the one, are filled up to a multiple: products of such are faster.
MULTIPLE = 4


class BlockMixed(NamedTuple):
    """A weighted sum over asked experts, and what it was made of.

    Rows that stand at slots are ``(G, C)``, C of each of G blocks. Columns with inputs and ones
    are ``Z``.
    """

    y_BTO: Tensor
    z_GCZ: Tensor
    weights_BTK: Tensor
    slots_N: Tensor
    tier: Tier
    maps: Maps
    map_EZH: Tensor
    hidden_GCH: Tensor
    asked_BTK: Tensor

    @classmethod
    def of(
        cls, x_BTD: Tensor, weights_BTK: Tensor, plan: BlockSorting, maps: Maps, room: Room
    ) -> "BlockMixed":
        """Ask the experts.

        Parameters
        ----------
        x_BTD : Tensor
            Rows.
        weights_BTK : Tensor
            Weight of each asked expert for each row.
        plan : BlockSorting
            Where these are.
        maps : tuple of Tensor
            Of all experts.
        room : Room
            For hidden features and inputs.
        """
        (tier,) = plan.tiers
        w_hidden, b_hidden, w_output, b_output = maps
        n_experts, n_inputs, width = w_hidden.shape
        n_columns = MULTIPLE * (n_inputs // MULTIPLE + 1)
        z_NZ = room.take("with one", (x_BTD.shape[0] * x_BTD.shape[1], n_columns), x_BTD)
        z_NZ[:, :n_inputs] = x_BTD.flatten(0, 1)
        z_NZ[:, n_inputs:] = 1
        z_SZ = room.take("sorted", (len(plan.rows_S), n_columns), x_BTD)
        torch.index_select(z_NZ, 0, plan.rows_S, out=z_SZ)
        map_EZH = room.take("with bias", (n_experts, n_columns, width), x_BTD)
        map_EZH[:, :n_inputs] = w_hidden
        map_EZH[:, n_inputs:] = 0
        map_EZH[:, n_inputs] = b_hidden[:, 0]
        z_GCZ = z_SZ.view(*tier.shape, n_columns)
        hidden_GCH = room.take("known", (*tier.shape, width), x_BTD)
        torch.bmm(z_GCZ, tier.own(map_EZH), out=hidden_GCH).relu_()
        answers_GC = (
            torch.bmm(hidden_GCH, tier.own(w_output))[..., 0] + tier.own(b_output)[..., 0]
        )
        asked_BTK = answers_GC.flatten().index_select(0, plan.slots_N).view_as(weights_BTK)
        y_BTO = (weights_BTK * asked_BTK).sum(2, keepdim=True)
        made = map_EZH, hidden_GCH, asked_BTK
        return cls(y_BTO, z_GCZ, weights_BTK, plan.slots_N, tier, maps, *made)

    def pull_back(self, dy_BTO: Tensor, gradients: Maps) -> tuple[Tensor, Tensor]:
        """Fill in gradients of the maps; hidden features and rows are lost.

        Returns
        -------
        dkept_BTK : Tensor
            Gradient of the logits of the asked experts, of which the weights are the softmax.
        dgate_EZ : Tensor
            Gradient of a linear map to these logits, and of its bias, which comes first after
            the inputs.
        """
        dkept_BTK = softmax_backward(self.asked_BTK * dy_BTO, self.weights_BTK, 2, dy_BTO.dtype)
        both_N2 = torch.stack([dkept_BTK, self.weights_BTK * dy_BTO], 3).view(-1, 2)
        both_GC2 = dy_BTO.new_zeros(*self.tier.shape, 2)  # zero where no row stands
        both_GC2.view(-1, 2).index_copy_(0, self.slots_N, both_N2)
        sums_E2Z = self.tier.summed(torch.bmm(both_GC2.mT, self.z_GCZ))
        z_GCZ = self.z_GCZ.mul_(both_GC2[..., 1:])
        products_EZH = self.tier.summed(torch.bmm(z_GCZ.mT, self.hidden_GCH.sign_()))
        dw_hidden, db_hidden, dw_output, db_output = gradients
        n_inputs, v_E1H = dw_hidden.shape[1], self.maps[2].mT
        torch.mul(products_EZH[:, :n_inputs], v_E1H, out=dw_hidden)
        torch.mul(products_EZH[:, n_inputs : n_inputs + 1], v_E1H, out=db_hidden)
        torch.sum(products_EZH.mul_(self.map_EZH), 1, out=dw_output[..., 0])
        db_output.copy_(sums_E2Z[:, 1:, n_inputs : n_inputs + 1])
        return dkept_BTK, sums_E2Z[:, 0]
