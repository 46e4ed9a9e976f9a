"""Which networks have a gradient that `shallow_gradient` knows by hand."""

from collections.abc import Hashable, Sequence
from typing import cast

from torch import nn

from skmoe.nn.base import Network
from skmoe.nn.base_gates import Gate
from skmoe.nn.gates import LinearGate, MLPGate
from skmoe.nn.hidden_layer import GRADIENTS
from skmoe.nn.layers import MoELayer
from skmoe.nn.losses import FitLoss, switch
from skmoe.nn.mlp_experts import MLPExperts
from skmoe.nn.networks import MoENetwork
from skmoe.nn.routers import SoftmaxRouter
from skmoe.nn.stacked import ACTIVATIONS, StackedLinear
from skmoe.objective import AuxiliaryLoss


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
