"""The layer of a shallow mixture: what it answers, and the gradients of all its weights.

One `Mixture` for each way to ask: a plain net, all experts, or some of them. Networks side by
side are blocks, which may have more or fewer experts.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from skmoe.known_by_hand import activation_name, asks_all
from skmoe.nn.base_routers import Routing, softmax_over_experts
from skmoe.nn.block_mixture import BlockMixed
from skmoe.nn.dispatch import multiply_adds, pays_to_sort, sorts_in_blocks
from skmoe.nn.gates import MLPGate
from skmoe.nn.hidden_layer import (
    GRADIENTS,
    Hidden,
    Room,
    answers_of,
    make_hidden,
    pull_back_answers,
    pull_back_hidden,
    pull_back_maps,
)
from skmoe.nn.layers import MoELayer
from skmoe.nn.losses import pull_back_switch
from skmoe.nn.mlp_experts import MLPExperts
from skmoe.nn.networks import MoENetwork
from skmoe.nn.soft_mixture import Blocks, Mixed
from skmoe.nn.sorting import BlockSorting, Sorting
from skmoe.nn.sparse_mixture import SparselyMixed

# Of experts, as `stacked` gives them.
MAPS = "hidden.weight", "hidden.bias", "output.weight", "output.bias"
# From so many rows on, a GPU needs no longer for a gate's logits with experts first in memory.
MANY_ROWS = 2**15
softmax_backward = torch._softmax_backward_data

Tensors = Mapping[str, tuple[Tensor, Tensor]]
"""Weights and their gradients, by name."""


class Mixture(ABC):
    """Predictions of the layers, ``y_BTO``, then the gradients of their weights.

    In between, experts may be balanced.
    """

    balancing: tuple[Tensor, Tensor] | None = None
    """Of what balances them, the gradient for the scores, and these: ``(B, T, E)``."""

    def __init__(self, layers: Sequence[MoELayer], tensors: Tensors, room: Room):
        self.router, self.room = layers[0].router, room
        self.activation = cast(MLPExperts, layers[0].experts).activation_name
        names = [f"layer.experts.{map_}" for map_ in MAPS]
        self.maps, self.gradients = zip(*(tensors[name] for name in names), strict=True)
        counts = [layer.experts.n_experts for layer in layers]
        self.blocks = Blocks(counts, self.maps[0].device)
        self.n_experts = self.blocks.n_experts

    @abstractmethod
    def answer(self, z_BTD: Tensor) -> Tensor:
        """Predictions ``y_BTO``."""

    def balance(self, weight: float, weight_BT: Tensor) -> Tensor:
        """The loss `switch` of this weight in each block; its gradient is kept."""
        routing = self.routing()
        given = routing.logits_BTE, weight_BT, self.blocks.count
        dscores_BTE = weight * pull_back_switch(*given)
        self.balancing = dscores_BTE, routing.scores_BTE
        return (dscores_BTE * routing.scores_BTE).sum((1, 2))

    @abstractmethod
    def pull_back(self, dy_BTO: Tensor) -> None:
        """Write the gradients of all weights."""

    @abstractmethod
    def routing(self) -> Routing:
        """What the routers said."""


class _OneExpert(Mixture):
    """Plain nets. The weight of the expert is always 1: the gate's gradients stay zero."""

    def answer(self, z_BTD: Tensor) -> Tensor:
        self.z_BTD = z_BTD
        shape = *z_BTD.shape[:2], self.maps[0].shape[2]
        self.hidden = Hidden.empty(shape, self.activation, z_BTD, self.room)
        make_hidden(z_BTD, self.maps, self.activation, self.hidden)
        return answers_of(self.hidden.features, self.maps)

    def pull_back(self, dy_BTO: Tensor) -> None:
        known = self.hidden.known
        dhidden = self.room.take("dhidden", known.shape, dy_BTO)
        pull_back_hidden(dy_BTO, self.maps[2], known, self.activation, dhidden)
        pull_back_maps(self.z_BTD, dhidden, *self.gradients[:2])
        pull_back_answers(dy_BTO, self.hidden.features, self.gradients)

    def routing(self) -> Routing:
        certain = self.z_BTD.new_ones(*self.z_BTD.shape[:2], 1)
        return Routing(certain, None, certain, torch.zeros_like(certain))


class _All(Mixture):
    """All experts, by the softmax of the gate's logits."""

    def __init__(self, layers: Sequence[MoELayer], tensors: Tensors, room: Room):
        super().__init__(layers, tensors, room)
        self.gate = _Gate(tensors, layers, self.blocks, room)

    def answer(self, z_BTD: Tensor) -> Tensor:
        n_blocks, n_rows, _ = z_BTD.shape
        shape_BET = n_blocks, self.n_experts, n_rows
        # Experts come before rows: the softmax then is several times faster.
        self.logits_BET = self.room.take("logits", shape_BET, z_BTD)
        self.gate.logits(z_BTD, self.logits_BET.mT)
        self.weights_BET = self.room.take("weights", shape_BET, z_BTD)
        torch.softmax(self.logits_BET, 1, out=self.weights_BET)
        weights_GT = self.blocks.part(self.weights_BET)
        given = z_BTD, weights_GT, self.maps, self.activation, self.room
        self.mixed = Mixed.of(*given, self.blocks)
        return self.mixed.y_BTO

    def pull_back(self, dy_BTO: Tensor) -> None:
        dweights_GT = self.mixed.pull_back(dy_BTO, self.gradients, self.room)
        dweights_BET = self.blocks.join(dweights_GT, "dweights")
        if self.balancing is not None:
            dweights_BET = dweights_BET + self.balancing[0].mT
        dlogits_BET = softmax_backward(dweights_BET, self.weights_BET, 1, dy_BTO.dtype)
        self.gate.pull_back(dlogits_BET.mT)

    def routing(self) -> Routing:
        weights_BTE, logits_BTE = self.weights_BET.mT, self.logits_BET.mT
        return Routing(weights_BTE, None, weights_BTE, logits_BTE)


class _Some(Mixture):
    """The experts of the largest logits, by the softmax of these."""

    def __init__(self, layers: Sequence[MoELayer], tensors: Tensors, room: Room):
        super().__init__(layers, tensors, room)
        self.mixed: Mixed | SparselyMixed | BlockMixed
        self.gate = _Gate(tensors, layers, self.blocks, room)
        self.per_row = multiply_adds(layers[0].experts)
        top_ks = [cast(int, layer.router.top_k) for layer in layers]
        self.top_k, self.too_many_B1K = max(top_ks), None
        if min(top_ks) < self.top_k:
            ranks_K = torch.arange(self.top_k, device=self.maps[0].device)
            self.too_many_B1K = ranks_K >= torch.tensor(top_ks).to(ranks_K)[:, None, None]

    def answer(self, z_BTD: Tensor) -> Tensor:
        self.logits_BTE = self._room_of_logits(z_BTD)
        self.gate.logits(z_BTD, self.logits_BTE)
        self.ids_BTK = self.router.choose(self.logits_BTE, self.top_k)
        kept_BTK = self.logits_BTE.gather(2, self.ids_BTK)
        if self.too_many_B1K is not None:
            kept_BTK, order_BTK = kept_BTK.sort(2, descending=True)
            self.ids_BTK = self.ids_BTK.gather(2, order_BTK)
            kept_BTK.masked_fill_(self.too_many_B1K, -torch.inf)
        self.weights_BTK = softmax_over_experts(kept_BTK)
        n_saved = self.logits_BTE.numel() - kept_BTK.numel()
        pays = pays_to_sort(n_saved, self.per_row, z_BTD.device)
        mixed = self._sorted if pays else self._unsorted
        self.mixed = mixed(z_BTD)
        return self.mixed.y_BTO

    def _room_of_logits(self, z_BTD: Tensor) -> Tensor:
        n_blocks, n_rows, _ = z_BTD.shape
        # With experts first in memory, the largest are found in a third of the time.
        if z_BTD.is_cuda and self.top_k <= 2 and n_rows >= MANY_ROWS:
            return self.room.take("logits", (n_blocks, self.n_experts, n_rows), z_BTD).mT
        return self.room.take("logits", (n_blocks, n_rows, self.n_experts), z_BTD)

    def _sorted(self, z_BTD: Tensor) -> SparselyMixed | BlockMixed:
        ids_BTK = self.ids_BTK
        if self.too_many_B1K is not None:  # they have no weight, whoever they are
            ids_BTK = ids_BTK.masked_fill(self.too_many_B1K, 0)
        plan: Sorting | BlockSorting
        if sorts_in_blocks(z_BTD.device):
            plan = BlockSorting(self.blocks.numbered(ids_BTK), self.blocks.n_groups)
            if self.maps[2].shape[2] == 1:
                own = self.maps, self.activation, self.room
                return BlockMixed.of(z_BTD, self.weights_BTK, plan, *own)
        else:
            plan = Sorting(ids_BTK, self.blocks.counts, self.per_row)
        x_SD = z_BTD.flatten(0, 1).index_select(0, plan.rows_S)
        places = self.weights_BTK, plan.slots_N, plan.layout
        return SparselyMixed.of(x_SD, *places, self.maps, self.activation, self.room)

    def _unsorted(self, z_BTD: Tensor) -> Mixed:
        n_blocks, n_rows, _ = z_BTD.shape
        weights_BET = z_BTD.new_zeros(n_blocks, self.n_experts, n_rows)
        weights_BET.scatter_(1, self.ids_BTK.mT, self.weights_BTK.mT)
        given = z_BTD, self.blocks.part(weights_BET), self.maps, self.activation, self.room
        return Mixed.of(*given, self.blocks)

    def pull_back(self, dy_BTO: Tensor) -> None:
        if isinstance(self.mixed, BlockMixed):
            dkept_BTK, dgate_GZ = self.mixed.pull_back(dy_BTO, self.gradients)
            if self.gate.hidden is None and self.balancing is None:
                self.gate.fill_in(self.blocks.join(dgate_GZ, "dgate"))
                return
        else:
            dkept_BTK = self._pull_back_weights(dy_BTO, self.mixed)
        dlogits_BTE = self.room.take("dlogits", self.logits_BTE.shape, dy_BTO).zero_()
        dlogits_BTE.scatter_(2, self.ids_BTK, dkept_BTK)
        if self.balancing is not None:
            dlogits_BTE += softmax_backward(*self.balancing, 2, dy_BTO.dtype)
        self.gate.pull_back(dlogits_BTE)

    def _pull_back_weights(self, dy_BTO: Tensor, mixed: Mixed | SparselyMixed) -> Tensor:
        """Gradient of the logits of the asked experts, ``dkept_BTK``."""
        dweights = mixed.pull_back(dy_BTO, self.gradients, self.room)
        ids_BKT, weights_BKT = self.ids_BTK.mT, self.weights_BTK.mT
        if isinstance(mixed, Mixed):
            dweights_BKT = self.blocks.join(dweights, "dweights").gather(1, ids_BKT)
        else:
            dweights_BKT = dweights.mT.contiguous()
        return softmax_backward(dweights_BKT, weights_BKT, 1, dy_BTO.dtype).mT

    def routing(self) -> Routing:
        scores_BTE = softmax_over_experts(self.logits_BTE)
        return Routing(self.weights_BTK, self.ids_BTK, scores_BTE, self.logits_BTE)


class _Affine:
    """Maps of gates, and their gradients."""

    def __init__(self, tensors: Tensors, name: str):
        self.weight, self.dweight = tensors[f"{name}.weight"]
        self.bias, self.dbias = tensors[f"{name}.bias"]

    def apply(self, x_BTD: Tensor, into: Tensor, bias: Tensor | None = None) -> None:
        bias = self.bias if bias is None else bias
        if x_BTD.is_cuda and len(x_BTD) == 1:
            x, weight, out = x_BTD[0], self.weight[0], into[0]
            if out.stride(1) == 1 or len(x) >= MANY_ROWS:  # adds the bias within the product
                torch.addmm(bias[0, 0], x, weight, out=out)
            else:  # few outputs of few rows the other way round would take four times as long
                torch.add(torch.mm(x, weight), bias[0, 0], out=out)
        elif len(x_BTD) > 1 and into.mT.is_contiguous():
            # Blocks then are one batched product, and not one product each.
            torch.baddbmm(bias.mT, self.weight.mT, x_BTD.mT, out=into.mT)
        else:
            torch.baddbmm(bias, x_BTD, self.weight, out=into)

    def pull_back(self, x_BTD: Tensor, dout: Tensor) -> None:
        if x_BTD.is_cuda and len(x_BTD) == 1:  # cuts a sum over many rows into parts
            torch.mm(x_BTD[0].mT, dout[0], out=self.dweight[0])
        else:
            torch.bmm(x_BTD.mT, dout, out=self.dweight)
        torch.sum(dout, 1, keepdim=True, out=self.dbias)


class _Gate:
    """Logits of linear gates or nets with one hidden layer; then their gradients."""

    def __init__(
        self, tensors: Tensors, layers: Sequence[MoELayer], blocks: Blocks, room: Room
    ):
        self.gates = gates = [layer.gate for layer in layers]
        self.blocks, self.room = blocks, room
        self.linear = _Affine(tensors, "layer.gate.linear")
        self.hidden = None
        if isinstance(gates[0], MLPGate):
            self.hidden = _Affine(tensors, "layer.gate.hidden")
            self.activation = cast(str, activation_name(gates[0]))
        sharp = torch.cat([gate.log_temperature for gate in gates]).any()
        self.is_plain = not (gates[0].is_annealed or bool(sharp))

    def logits(self, z_BTD: Tensor, into_BTE: Tensor) -> None:
        self.z_BTD = self.seen = z_BTD
        if self.hidden is not None:
            shape = *z_BTD.shape[:2], self.hidden.weight.shape[2]
            self.known = self.room.take("gate known", shape, z_BTD)
            self.hidden.apply(z_BTD, self.known)
            self.seen = GRADIENTS[self.activation].apply(self.known)
        bias = None
        if not self.blocks.are_even:  # experts that are not there are never asked
            bias = self.linear.bias.masked_fill(self.blocks.missing_BE.unsqueeze(1), -torch.inf)
        self.linear.apply(self.seen, into_BTE, bias)
        if not self.is_plain:
            self.sharpness_B11 = torch.exp(
                -torch.cat([gate.log_temperature for gate in self.gates])
            )
            into_BTE.mul_(self.sharpness_B11)

    def pull_back(self, dlogits_BTE: Tensor) -> None:
        if not self.is_plain:
            dlogits_BTE = dlogits_BTE * self.sharpness_B11
        self.linear.pull_back(self.seen, dlogits_BTE)
        if self.hidden is not None:
            dhidden = self.room.take("gate dhidden", self.known.shape, dlogits_BTE)
            torch.bmm(dlogits_BTE, self.linear.weight.mT, out=dhidden)
            GRADIENTS[self.activation].pull_back(dhidden, self.known)
            self.hidden.pull_back(self.z_BTD, dhidden)

    def fill_in(self, dmaps_BEZ: Tensor) -> None:
        """Take gradients of the linear map, and then of its bias, from elsewhere."""
        if not self.is_plain:
            dmaps_BEZ = dmaps_BEZ * self.sharpness_B11
        n_inputs = self.linear.dweight.shape[1]
        self.linear.dweight.copy_(dmaps_BEZ[..., :n_inputs].mT)
        self.linear.dbias.copy_(dmaps_BEZ[..., n_inputs : n_inputs + 1].mT)


def mixture_of(networks: Sequence[MoENetwork], tensors: Tensors, room: Room) -> Mixture:
    """The layers of these networks as blocks."""
    layers = [network.layer for network in networks]
    kind: type[Mixture]
    if all(layer.experts.n_experts == 1 for layer in layers):
        kind = _OneExpert
    else:
        kind = _All if asks_all(networks[0]) else _Some
    return kind(layers, tensors, room)
