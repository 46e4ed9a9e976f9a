"""The sum of asked experts in blocks of rows, with few passes over their hidden features.

As `sparse_mixture`, for nets with one output. With many rows, a GPU takes less time for
products than for passes over what they make. So a bias is a row of its map, for a column of
ones beside the inputs: it is added, and its gradient summed up, by products. And the gradient
of a hidden feature is the slope of its nonlinearity, times a number of the row and one of the
feature: inputs and the sum take these instead. With inputs and one ``z`` of rows t, slopes
``s``, gradients ``d`` of answers, and the last map v,

    M = sum_t d_t z_t s_t',   dW = M v (by columns).

The row of M of the one is a product of its own: with it, that of the inputs would take half as
long again. A rectifier is its argument times its slope. So there, ``dv = sum_z W M``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from skmoe.nn.hidden_layer import GRADIENTS, Hidden, Maps, Room
from skmoe.nn.sorting import BlockSorting, Tier

softmax_backward = torch._softmax_backward_data


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
    activation: str
    hidden_GCH: Hidden
    asked_BTK: Tensor

    @classmethod
    def of(
        cls,
        x_BTD: Tensor,
        weights_BTK: Tensor,
        plan: BlockSorting,
        maps: Maps,
        activation: str,
        room: Room,
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
        activation : {"relu", "gelu", "silu", "tanh"}
            Nonlinearity of the hidden layer.
        room : Room
            For hidden features and inputs.
        """
        tier = plan.tier
        w_hidden, b_hidden, w_output, b_output = maps
        n_experts, n_inputs, width = w_hidden.shape
        z_SZ = room.take("sorted", (len(plan.rows_S), n_inputs + 1), x_BTD)
        torch.index_select(x_BTD.flatten(0, 1), 0, plan.rows_S, out=z_SZ[:, :n_inputs])
        z_SZ[:, n_inputs:] = 1
        map_EZH = room.take("with bias", (n_experts, n_inputs + 1, width), x_BTD)
        map_EZH[:, :n_inputs] = w_hidden
        map_EZH[:, n_inputs:] = b_hidden
        z_GCZ = z_SZ.view(*tier.shape, n_inputs + 1)
        hidden_GCH = Hidden.empty((*tier.shape, width), activation, x_BTD, room)
        torch.bmm(z_GCZ, tier.own(map_EZH), out=hidden_GCH.known)
        hidden_GCH.fill(activation)
        answers_GC1 = torch.bmm(hidden_GCH.features, tier.own(w_output))
        answers_GC1 += tier.own(b_output)
        asked_BTK = answers_GC1.flatten().index_select(0, plan.slots_N).view_as(weights_BTK)
        y_BTO = (weights_BTK * asked_BTK).sum(2, keepdim=True)
        made = map_EZH, activation, hidden_GCH, asked_BTK
        return cls(y_BTO, z_GCZ, weights_BTK, plan.slots_N, tier, maps, *made)

    def pull_back(self, dy_BTO: Tensor, gradients: Maps) -> tuple[Tensor, Tensor]:
        """Fill in gradients of the maps; hidden features and rows are lost.

        Returns
        -------
        dkept_BTK : Tensor
            Gradient of the logits of the asked experts, of which the weights are the softmax.
        dgate_EZ : Tensor
            Gradient of a linear map to these logits, and of its bias, which comes last.
        """
        dkept_BTK = softmax_backward(self.asked_BTK * dy_BTO, self.weights_BTK, 2, dy_BTO.dtype)
        n_inputs, n_blocks = self.z_GCZ.shape[2] - 1, len(self.z_GCZ)
        both_2N = torch.stack([dkept_BTK, self.weights_BTK * dy_BTO]).view(2, -1)
        both_2GC = dy_BTO.new_zeros(2, *self.tier.shape)  # zero where no row stands
        both_2GC.view(2, -1).index_copy_(1, self.slots_N, both_2N)
        dkept_G1C, d_G1C = both_2GC.unsqueeze(2)
        dw_hidden, db_hidden, dw_output, db_output = gradients
        features_GCH, known_GCH = self.hidden_GCH
        is_rectifier = self.activation == "relu"
        if not is_rectifier:
            dlast_G1H = torch.bmm(d_G1C, features_GCH)
            dw_output.copy_(self.tier.summed(dlast_G1H).mT)
        # Of the gate, and behind them the sums of d.
        sums_G1S = dy_BTO.new_empty(n_blocks, 1, n_inputs + 2)
        torch.bmm(dkept_G1C, self.z_GCZ, out=sums_G1S[..., :-1])
        torch.sum(d_G1C, 2, keepdim=True, out=sums_G1S[..., -1:])
        sums_E1S = self.tier.summed(sums_G1S)
        dx_GCD = self.z_GCZ[..., :n_inputs].mul_(d_G1C.mT)
        # The sign of what came out of a rectifier is its slope, in less time.
        slopes_of = Tensor.sign_ if is_rectifier else GRADIENTS[self.activation].slopes
        slopes_GCH = slopes_of(known_GCH)
        products_GZH = dy_BTO.new_empty(n_blocks, n_inputs + 1, known_GCH.shape[2])
        torch.bmm(dx_GCD.mT, slopes_GCH, out=products_GZH[:, :n_inputs])
        torch.bmm(d_G1C, slopes_GCH, out=products_GZH[:, n_inputs:])
        products_EZH, v_E1H = self.tier.summed(products_GZH), self.maps[2].mT
        torch.mul(products_EZH[:, :n_inputs], v_E1H, out=dw_hidden)
        torch.mul(products_EZH[:, n_inputs:], v_E1H, out=db_hidden)
        if is_rectifier:
            torch.sum(products_EZH.mul_(self.map_EZH), 1, out=dw_output[..., 0])
        db_output.copy_(sums_E1S[..., -1:])
        return dkept_BTK, sums_E1S[:, 0, :-1]
