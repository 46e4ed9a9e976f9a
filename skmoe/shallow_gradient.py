"""The gradient of a shallow mixture by hand: what a step of its training computes.

Of a step of a small network, the calls of modules and autograd cost several times what the
arithmetic does. So the step of the usual network is written out here: one layer of plain nets
behind a softmax, its gate linear or a net. Whatever this file does not know is left to
autograd, which computes the same, up to rounding: `gradient_by_hand` decides.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from skmoe.nn.base import Network
from skmoe.nn.base_routers import Routing, softmax_over_experts
from skmoe.nn.dispatch import multiply_adds, pays_to_sort
from skmoe.nn.gates import Gate, LinearGate, MLPGate
from skmoe.nn.layers import MoELayer
from skmoe.nn.losses import FitLoss, SquaredError
from skmoe.nn.mlp_experts import MLPExperts
from skmoe.nn.networks import MoENetwork
from skmoe.nn.routers import SoftmaxRouter
from skmoe.nn.soft_mixture import (
    GRADIENTS,
    Hidden,
    Mixed,
    Room,
    answers_of,
    make_hidden,
    pull_back_answers,
    pull_back_hidden,
    pull_back_maps,
)
from skmoe.nn.sorting import Sorting
from skmoe.nn.sparse_mixture import SparselyMixed
from skmoe.nn.stacked import ACTIVATIONS, StackedLinear

softmax_backward = torch._softmax_backward_data


class Outcome(NamedTuple):
    """What a batch showed, beside the gradients."""

    loss: Tensor
    prediction_TO: Tensor


class ShallowGradient:
    """Loss of a batch and its gradients, written where the weights keep theirs.

    Parameters
    ----------
    network : MoENetwork
        One that `gradient_by_hand` accepts; its weights must stay where they are.
    criterion : FitLoss
        The loss of the predictions.
    room : Room
        Memory to be used in each step.
    """

    def __init__(self, network: MoENetwork, criterion: FitLoss, room: Room):
        self.network, self.criterion = network, criterion
        layer, top_k = network.layer, network.layer.router.top_k
        n_experts = layer.experts.n_experts
        kind: type[_Mixture]
        if n_experts == 1:
            kind = _OneExpert
        else:
            kind = _All if top_k is None or top_k >= n_experts else _Some
        self.mixture = kind(layer, room)

    def __call__(self, x: Tensor, y_TO: Tensor, weight: Tensor) -> Outcome:
        # No tensor here asks for a gradient; so autograd looks away.
        z_TD = self.network.embedding(self.network.on_axes(x))
        prediction_TO = self.mixture.answer(z_TD)
        loss, dprediction_TO = self._loss(prediction_TO, y_TO, weight.view(-1))
        self.mixture.pull_back(dprediction_TO)
        return Outcome(loss, prediction_TO)

    def routing(self) -> Routing:
        """Of the last batch."""
        return self.mixture.routing()

    def _loss(self, prediction_TO, y_TO, weight_T) -> tuple[Tensor, Tensor]:
        """The loss, and its gradient for the predictions."""
        if type(self.criterion) is SquaredError:
            error_TO = prediction_TO - y_TO
            weighted_TO = error_TO * weight_T.unsqueeze(1)
            n = error_TO.numel()
            loss = torch.dot(error_TO.reshape(-1), weighted_TO.reshape(-1)) / n
            return loss, weighted_TO.mul_(2 / n)
        leaf = prediction_TO.requires_grad_()
        loss = (self.criterion(leaf, y_TO) * weight_T).mean()
        (dprediction_TO,) = torch.autograd.grad(loss, leaf)
        leaf.requires_grad_(False)
        return loss.detach(), dprediction_TO


class _Mixture(ABC):
    """Predictions of a layer, ``y_TO``, then the gradients of its weights."""

    def __init__(self, layer: MoELayer, room: Room):
        self.experts, self.router, self.room = layer.experts, layer.router, room
        experts = cast(MLPExperts, layer.experts)
        self.activation = experts.activation_name
        self.maps = tuple(map_.detach() for map_ in experts.stacked())
        self.gradients = tuple(cast(Tensor, map_.grad) for map_ in experts.stacked())

    @abstractmethod
    def answer(self, z_TD: Tensor) -> Tensor:
        """Predictions ``y_TO``."""

    @abstractmethod
    def pull_back(self, dy_TO: Tensor) -> None:
        """Write the gradients of all weights."""

    @abstractmethod
    def routing(self) -> Routing:
        """What the router said."""


class _OneExpert(_Mixture):
    """A plain net. Its weight is always 1: the gate's gradients stay zero."""

    def answer(self, z_TD):
        self.z_BTD = z_TD.unsqueeze(0)
        shape = 1, z_TD.shape[0], self.maps[0].shape[2]
        self.hidden = Hidden.empty(shape, self.activation, z_TD, self.room)
        make_hidden(self.z_BTD, self.maps, self.activation, self.hidden)
        return answers_of(self.hidden.features, self.maps)[0]

    def pull_back(self, dy_TO):
        dy_BTO, known = dy_TO.unsqueeze(0), self.hidden.known
        dhidden = self.room.take("dhidden", known.shape, dy_TO)
        pull_back_hidden(dy_BTO, self.maps[2], known, self.activation, dhidden)
        pull_back_maps(self.z_BTD, dhidden, *self.gradients[:2])
        pull_back_answers(dy_BTO, self.hidden.features, self.gradients)

    def routing(self):
        certain = self.z_BTD.new_ones(1, self.z_BTD.shape[1], 1)
        return Routing(certain, None, certain, torch.zeros_like(certain))


class _All(_Mixture):
    """All experts, by the softmax of the gate's logits."""

    def __init__(self, layer, room):
        super().__init__(layer, room)
        self.gate = _Gate(layer.gate, room)

    def answer(self, z_TD):
        shape_ET = self.maps[0].shape[0], z_TD.shape[0]
        # Experts come first: the softmax then is several times faster.
        self.logits_ET = self.room.take("logits", shape_ET, z_TD)
        self.gate.logits(z_TD, self.logits_ET.T)
        self.weights_ET = self.room.take("weights", shape_ET, z_TD)
        torch.softmax(self.logits_ET, 0, out=self.weights_ET)
        given = z_TD.unsqueeze(0), self.weights_ET, self.maps, self.activation
        self.mixed = Mixed.of(*given, self.room)
        return self.mixed.y_BTO[0]

    def pull_back(self, dy_TO):
        dweights_ET = self.mixed.pull_back(dy_TO.unsqueeze(0), self.gradients, self.room)
        dlogits_ET = softmax_backward(dweights_ET, self.weights_ET, 0, dweights_ET.dtype)
        self.gate.pull_back(dlogits_ET.T)

    def routing(self):
        weights_BTE, logits_BTE = (t.T.unsqueeze(0) for t in (self.weights_ET, self.logits_ET))
        return Routing(weights_BTE, None, weights_BTE, logits_BTE)


class _Some(_Mixture):
    """The experts of the largest logits, by the softmax of these."""

    def __init__(self, layer, room):
        super().__init__(layer, room)
        self.mixed: Mixed | SparselyMixed
        self.gate = _Gate(layer.gate, room)
        self.per_row = multiply_adds(layer.experts)
        self.top_k = cast(int, layer.router.top_k)

    def answer(self, z_TD):
        shape_TE = z_TD.shape[0], self.maps[0].shape[0]
        self.logits_TE = self.room.take("logits", shape_TE, z_TD)
        self.gate.logits(z_TD, self.logits_TE)
        self.ids_BTK = self.router.choose(self.logits_TE.unsqueeze(0), self.top_k)
        kept_TK = self.logits_TE.gather(1, self.ids_BTK[0])
        self.weights_BTK = softmax_over_experts(kept_TK.unsqueeze(0))
        n_saved = self.logits_TE.numel() - kept_TK.numel()
        mixed = self._sorted if pays_to_sort(n_saved, self.per_row) else self._unsorted
        self.mixed = mixed(z_TD)
        return self.mixed.y_BTO[0]

    def _sorted(self, z_TD) -> SparselyMixed:
        plan = Sorting(self.ids_BTK, self.maps[0].shape[0], self.per_row)
        x_SD = z_TD.index_select(0, plan.rows_S)
        places = self.weights_BTK, plan.slots_N, plan.tiers
        return SparselyMixed.of(x_SD, *places, self.maps, self.activation, self.room)

    def _unsorted(self, z_TD) -> Mixed:
        weights_ET = z_TD.new_zeros(self.maps[0].shape[0], z_TD.shape[0])
        weights_ET.scatter_(0, self.ids_BTK[0].T, self.weights_BTK[0].T)
        given = z_TD.unsqueeze(0), weights_ET, self.maps, self.activation
        return Mixed.of(*given, self.room)

    def pull_back(self, dy_TO):
        dweights = self.mixed.pull_back(dy_TO.unsqueeze(0), self.gradients, self.room)
        if isinstance(self.mixed, Mixed):
            dweights_KT = dweights.gather(0, self.ids_BTK[0].T)
        else:
            dweights_KT = dweights[0].T.contiguous()
        weights_KT = self.weights_BTK[0].T
        dkept_KT = softmax_backward(dweights_KT, weights_KT, 0, dweights_KT.dtype)
        dlogits_TE = self.room.take("dlogits", self.logits_TE.shape, dy_TO).zero_()
        self.gate.pull_back(dlogits_TE.scatter_(1, self.ids_BTK[0], dkept_KT.T))

    def routing(self):
        return self.router(self.logits_TE.unsqueeze(0))


class _Affine:
    """A map of a gate, and its gradients."""

    def __init__(self, linear: StackedLinear):
        self.weight, self.bias = linear.weight.detach()[0], linear.bias.detach()[0]
        self.dweight = cast(Tensor, linear.weight.grad)[0]
        self.dbias = cast(Tensor, linear.bias.grad)[0]

    def apply(self, x: Tensor, into: Tensor) -> None:
        torch.addmm(self.bias, x, self.weight, out=into)

    def pull_back(self, x: Tensor, dout: Tensor) -> None:
        torch.mm(x.T, dout, out=self.dweight)
        torch.sum(dout, 0, keepdim=True, out=self.dbias)


class _Gate:
    """Logits of a linear gate or a net with one hidden layer; then its gradients."""

    def __init__(self, gate: Gate, room: Room):
        self.gate, self.room = gate, room
        self.linear = _Affine(cast(LinearGate | MLPGate, gate).linear)
        self.hidden = _Affine(gate.hidden) if isinstance(gate, MLPGate) else None
        if isinstance(gate, MLPGate):
            self.activation = cast(str, activation_name(gate))
        start, end = gate.schedule
        self.is_plain = start == end and not bool(gate.log_temperature.any())

    def logits(self, z_TD: Tensor, into_TE: Tensor) -> None:
        self.z_TD = self.seen = z_TD
        if self.hidden is not None:
            shape = z_TD.shape[0], self.hidden.weight.shape[1]
            self.known = self.room.take("gate known", shape, z_TD)
            self.hidden.apply(z_TD, self.known)
            self.seen = GRADIENTS[self.activation].apply(self.known)
        self.linear.apply(self.seen, into_TE)
        if not self.is_plain:
            self.sharpness_11 = torch.exp(-self.gate.log_temperature)[0]
            into_TE.mul_(self.sharpness_11)

    def pull_back(self, dlogits_TE: Tensor) -> None:
        if not self.is_plain:
            dlogits_TE = dlogits_TE * self.sharpness_11
        self.linear.pull_back(self.seen, dlogits_TE)
        if self.hidden is not None:
            dhidden = self.room.take("gate dhidden", self.known.shape, dlogits_TE)
            torch.mm(dlogits_TE, self.linear.weight.T, out=dhidden)
            GRADIENTS[self.activation].pull_back(dhidden, self.known)
            self.hidden.pull_back(self.z_TD, dhidden)


def gradient_by_hand(
    network: Network, criterion: nn.Module, auxiliary_losses, room: Room
) -> ShallowGradient | None:
    """The gradient of a network as it is now; None if it is autograd's to find."""
    if type(network) is not MoENetwork or not isinstance(criterion, FitLoss):
        return None
    layer = network.layer
    known = _is_plain(layer) and _is_known(layer.gate) and not auxiliary_losses
    learned = list(layer.parameters())
    # What lies before the layer has no gradient here; all of the layer must have one.
    only_layer_learns = len(learned) == sum(w.requires_grad for w in network.parameters())
    if not known or not only_layer_learns or any(w.grad is None for w in learned):
        return None
    if any(_is_watched(module) for module in network.modules()):
        return None
    return ShallowGradient(network, criterion, room)


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


def _is_known(gate: Gate) -> bool:
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
