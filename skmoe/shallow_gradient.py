"""The gradient of shallow mixtures by hand: what a step of their training computes.

Of a step of a small network, the calls of modules and autograd cost several times what the
arithmetic does. So the step of the usual network is written out here: one layer of plain nets
behind a softmax, its gate linear or a net, with or without the loss that balances its experts.
Whatever this file does not know is left to autograd, which computes the same, up to rounding:
`is_known` decides. Networks of one kind may be trained side by side, as B blocks.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from skmoe.nn.base import Network
from skmoe.nn.base_gates import Gate
from skmoe.nn.base_routers import Routing, softmax_over_experts
from skmoe.nn.block_mixture import BlockMixed
from skmoe.nn.dispatch import multiply_adds, pays_to_sort, sorts_in_blocks
from skmoe.nn.embeddings import NoEmbedding
from skmoe.nn.gates import LinearGate, MLPGate
from skmoe.nn.layers import MoELayer
from skmoe.nn.losses import FitLoss, SquaredError, pull_back_switch, switch
from skmoe.nn.mlp_experts import MLPExperts
from skmoe.nn.networks import MoENetwork
from skmoe.nn.routers import SoftmaxRouter
from skmoe.nn.soft_mixture import (
    GRADIENTS,
    Blocks,
    Hidden,
    Mixed,
    Room,
    answers_of,
    make_hidden,
    pull_back_answers,
    pull_back_hidden,
    pull_back_maps,
)
from skmoe.nn.sorting import BlockSorting, Sorting
from skmoe.nn.sparse_mixture import SparselyMixed
from skmoe.nn.stacked import ACTIVATIONS, StackedLinear
from skmoe.objective import AuxiliaryLoss

# Of experts, as `stacked` gives them.
MAPS = "hidden.weight", "hidden.bias", "output.weight", "output.bias"
# From so many rows on, a GPU needs no longer for a gate's logits with experts first in memory.
MANY_ROWS = 2**15
softmax_backward = torch._softmax_backward_data


class Outcome(NamedTuple):
    """What a batch showed, beside the gradients."""

    losses_B: Tensor
    predictions_BTO: Tensor
    auxiliary: dict[str, Tensor]
    """Values of auxiliary losses in the blocks, weighted."""

    def record(self) -> dict[str, Tensor]:
        """All losses, as histories name them."""
        named = {f"{name}_loss": value_B for name, value_B in self.auxiliary.items()}
        return {"loss": self.losses_B, **named}


class ShallowGradient:
    """Losses of networks side by side and their gradients, written where these are kept.

    Parameters
    ----------
    networks : sequence of MoENetwork
        B networks of one kind, which `is_known` by hand. Their numbers of experts, and of
        those that are asked if these are not all, may differ.
    weights, gradients : mapping of str to Tensor
        By the names that they have in a network, with those of all networks on the first
        axis: of gates B maps, of experts their sum. Gates with fewer logits are filled up.
        They must stay where they are.
    criterion : FitLoss
        The loss of the predictions.
    auxiliary_losses : sequence of AuxiliaryLoss
        None, or `switch`.
    room : Room
        Memory to be used in each step.
    embedded : bool, default=False
        Whether rows come as the layers see them.
    """

    def __init__(
        self,
        networks: Sequence[MoENetwork],
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        criterion: FitLoss,
        auxiliary_losses: Sequence[AuxiliaryLoss],
        room: Room,
        embedded: bool = False,
    ):
        self.networks, self.criterion = networks, criterion
        self.terms = auxiliary_losses
        first = networks[0]
        is_plain = isinstance(first.embedding, NoEmbedding) and first.axes is None
        self.sees = self._same if is_plain or embedded else self._embedded
        layers = [network.layer for network in networks]
        kind: type[_Mixture]
        if all(layer.experts.n_experts == 1 for layer in layers):
            kind = _OneExpert
        else:
            kind = _All if asks_all(first) else _Some
        tensors = {name: (w.detach(), gradients[name]) for name, w in weights.items()}
        self.mixture = kind(layers, tensors, room)

    def __call__(self, x_BTD: Tensor, y_BTO: Tensor, weight_BT: Tensor) -> Outcome:
        # No tensor here asks for a gradient; so autograd looks away.
        predictions_BTO = self.mixture.answer(self.sees(x_BTD))
        losses_B, dpredictions_BTO = self._losses(predictions_BTO, y_BTO, weight_BT)
        auxiliary = {
            term.name: self.mixture.balance(term.weight, weight_BT) for term in self.terms
        }
        self.mixture.pull_back(dpredictions_BTO)
        return Outcome(losses_B, predictions_BTO, auxiliary)

    def losses(self, x_BTD: Tensor, y_BTO: Tensor, weight_BT: Tensor) -> Tensor:
        """Losses of the blocks alone."""
        predictions_BTO = self.mixture.answer(self.sees(x_BTD))
        return self._losses(predictions_BTO, y_BTO, weight_BT)[0]

    @property
    def counts(self) -> Sequence[int]:
        """Numbers of the networks' experts."""
        return self.mixture.blocks.counts

    def routing(self) -> Routing:
        """Of the last batch, each network a block."""
        return self.mixture.routing()

    def _same(self, x_BTD: Tensor) -> Tensor:
        return x_BTD

    def _embedded(self, x_BTD: Tensor) -> Tensor:
        """What the layers see."""
        seen = [
            network.embedding(network.on_axes(x_TD))
            for network, x_TD in zip(self.networks, x_BTD, strict=True)
        ]
        return seen[0].unsqueeze(0) if len(seen) == 1 else torch.stack(seen)

    def _losses(
        self, predictions_BTO: Tensor, y_BTO: Tensor, weight_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The losses, and their gradients for the predictions."""
        n_blocks, n_rows, n_outputs = predictions_BTO.shape
        if type(self.criterion) is SquaredError:
            errors_BTO = predictions_BTO - y_BTO
            weighted_BTO = errors_BTO * weight_BT.unsqueeze(2)
            n = n_rows * n_outputs
            losses_B = (errors_BTO * weighted_BTO).sum((1, 2)) / n
            return losses_B, weighted_BTO.mul_(2 / n)
        leaf = predictions_BTO.requires_grad_()
        losses = self.criterion(leaf.flatten(0, 1), y_BTO.flatten(0, 1))
        losses_B = (losses.view(n_blocks, n_rows) * weight_BT).mean(1)
        (dpredictions_BTO,) = torch.autograd.grad(losses_B.sum(), leaf)
        leaf.requires_grad_(False)
        return losses_B.detach(), dpredictions_BTO


Tensors = Mapping[str, tuple[Tensor, Tensor]]
"""Weights and their gradients, by name."""


class _Mixture(ABC):
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


class _OneExpert(_Mixture):
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


class _All(_Mixture):
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
        dweights_BET = self.blocks.join(dweights_GT)
        if self.balancing is not None:
            dweights_BET = dweights_BET + self.balancing[0].mT
        dlogits_BET = softmax_backward(dweights_BET, self.weights_BET, 1, dy_BTO.dtype)
        self.gate.pull_back(dlogits_BET.mT)

    def routing(self) -> Routing:
        weights_BTE, logits_BTE = self.weights_BET.mT, self.logits_BET.mT
        return Routing(weights_BTE, None, weights_BTE, logits_BTE)


class _Some(_Mixture):
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
        places = self.weights_BTK, plan.slots_N, plan.tiers
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
                self.gate.fill_in(self.blocks.join(dgate_GZ))
                return
        else:
            dweights = self.mixed.pull_back(dy_BTO, self.gradients, self.room)
            ids_BKT, weights_BKT = self.ids_BTK.mT, self.weights_BTK.mT
            if isinstance(self.mixed, Mixed):
                dweights_BKT = self.blocks.join(dweights).gather(1, ids_BKT)
            else:
                dweights_BKT = dweights.mT.contiguous()
            dkept_BTK = softmax_backward(dweights_BKT, weights_BKT, 1, dy_BTO.dtype).mT
        dlogits_BTE = self.room.take("dlogits", self.logits_BTE.shape, dy_BTO).zero_()
        dlogits_BTE.scatter_(2, self.ids_BTK, dkept_BTK)
        if self.balancing is not None:
            dlogits_BTE += softmax_backward(*self.balancing, 2, dy_BTO.dtype)
        self.gate.pull_back(dlogits_BTE)

    def routing(self) -> Routing:
        scores_BTE = softmax_over_experts(self.logits_BTE)
        return Routing(self.weights_BTK, self.ids_BTK, scores_BTE, self.logits_BTE)


class _Affine:
    """Maps of gates, and their gradients."""

    def __init__(self, tensors: Tensors, name: str):
        self.weight, self.dweight = tensors[f"{name}.weight"]
        self.bias, self.dbias = tensors[f"{name}.bias"]

    def apply(self, x_BTD: Tensor, into: Tensor) -> None:
        if x_BTD.is_cuda and len(x_BTD) == 1:
            bias, x, weight, out = self.bias[0, 0], x_BTD[0], self.weight[0], into[0]
            if out.stride(1) == 1 or len(x) >= MANY_ROWS:  # adds the bias within the product
                torch.addmm(bias, x, weight, out=out)
            else:  # few outputs of few rows the other way round would take four times as long
                torch.add(torch.mm(x, weight), bias, out=out)
        else:
            torch.baddbmm(self.bias, x_BTD, self.weight, out=into)

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
        self.linear.apply(self.seen, into_BTE)
        if not self.is_plain:
            self.sharpness_B11 = torch.exp(
                -torch.cat([gate.log_temperature for gate in self.gates])
            )
            into_BTE.mul_(self.sharpness_B11)
        if not self.blocks.are_even:
            into_BTE.masked_fill_(self.blocks.missing_BE.unsqueeze(1), -torch.inf)

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


def asks_all(network: MoENetwork) -> bool:
    """Whether each row asks all experts."""
    top_k = network.layer.router.top_k
    return top_k is None or top_k >= network.layer.experts.n_experts


def common_shape(network: MoENetwork) -> tuple[Hashable, ...]:
    """What networks that are known by hand must share to be blocks side by side."""
    layer = network.layer
    experts, gate = cast(MLPExperts, layer.experts), layer.gate
    maps = [tuple(map_.shape[1:]) for map_ in experts.stacked()]
    of_gate: tuple[Hashable, ...] = type(gate), gate.schedule
    if isinstance(gate, MLPGate):
        of_gate += activation_name(gate), tuple(gate.hidden.weight.shape)
    return asks_all(network), *maps, experts.activation_name, *of_gate


def gradient_by_hand(
    network: Network,
    criterion: nn.Module,
    auxiliary_losses: Sequence[AuxiliaryLoss],
    room: Room,
) -> ShallowGradient | None:
    """The gradient of a network as it is now; None if it is autograd's to find.

    Weights must have the place of their gradient already.
    """
    learned = {name: w for name, w in network.named_parameters() if w.requires_grad}
    gradients = {name: w.grad for name, w in learned.items() if w.grad is not None}
    if len(gradients) < len(learned) or not is_known(network, criterion, auxiliary_losses):
        return None
    known = [cast(MoENetwork, network)], learned, gradients, cast(FitLoss, criterion)
    return ShallowGradient(*known, auxiliary_losses, room)


def is_known(
    network: Network, criterion: nn.Module, auxiliary_losses: Sequence[AuxiliaryLoss]
) -> bool:
    """Whether the gradient of a network is written out here."""
    if type(network) is not MoENetwork or not isinstance(criterion, FitLoss):
        return False
    layer = network.layer
    known = _is_plain(layer) and _is_gate_known(layer.gate)
    known = known and [term.loss for term in auxiliary_losses] in ([], [switch])
    # What lies before the layer has no gradient here; all of the layer must have one.
    n_learned = sum(weight.requires_grad for weight in network.parameters())
    only_layer_learns = len(list(layer.parameters())) == n_learned
    watched = any(_is_watched(module) for module in network.modules())
    return known and only_layer_learns and not watched


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer is one of plain nets behind a softmax."""
    if type(layer) is not MoELayer or layer.shared is not None:
        return False
    experts, router = layer.experts, layer.router
    plain = type(experts) is MLPExperts and not experts.layers
    maps = (experts.hidden, experts.output) if plain else ()
    if not plain or any(type(map_) is not StackedLinear for map_ in maps):
        return False
    all_asked = router.top_k is None or router.top_k >= experts.n_experts
    return type(router) is SoftmaxRouter and (all_asked or router.renormalize)


def _is_gate_known(gate: Gate) -> bool:
    """Whether a gate's gradient is written out here."""
    if type(gate) not in (LinearGate, MLPGate) or gate.noise > 0:
        return False
    if isinstance(gate, MLPGate) and (
        activation_name(gate) is None or type(gate.hidden) is not StackedLinear
    ):
        return False
    is_linear = type(cast(LinearGate, gate).linear) is StackedLinear
    return is_linear and not isinstance(gate.log_temperature, nn.Parameter)


def activation_name(gate: MLPGate) -> str | None:
    """Name of the gate's nonlinearity, if its gradient is known."""
    names = [name for name in GRADIENTS if ACTIVATIONS[name] is gate.activation]
    return names[0] if names else None


def _is_watched(module: nn.Module) -> bool:
    """Whether someone asked to be called with what the module computes."""
    hooks = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
    return any(getattr(module, name) for name in hooks)
