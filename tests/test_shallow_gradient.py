"""The gradient by hand is that of autograd, and left to it where it is not known."""

import math
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from skmoe import MoERegressor, part
from skmoe.nn.base_routers import Routing
from skmoe.nn.hidden_layer import GRADIENTS, Room
from skmoe.nn.losses import LOSSES, GaussianNLL, SquaredError, switch, z
from skmoe.nn.networks import MoENetwork
from skmoe.objective import AuxiliaryLoss, auxiliary_losses, fit_loss
from skmoe.optimizer import FlatAdamW
from skmoe.shallow_gradient import ShallowGradient, gradient_by_hand

N_INPUTS, T = 3, 20
BALANCED = [AuxiliaryLoss("switch", 0.3, switch)]
FIT_LOSSES = [name for name in LOSSES if LOSSES[name] is not GaussianNLL]


def network(n_outputs=1, **given):
    """In training, its gradients laid out as a fit does."""
    generator = torch.Generator().manual_seed(0)
    net = MoENetwork(N_INPUTS, n_outputs, hidden_dim=5, generator=generator, **given).double()
    FlatAdamW(net, 0.01, 0.0)
    return net.train()


def batch(n_outputs=1, n_rows=T):
    generator = torch.Generator().manual_seed(1)
    given = {"generator": generator, "dtype": torch.float64}
    x, y = torch.randn(n_rows, N_INPUTS, **given), torch.randn(n_rows, n_outputs, **given)
    return x, y, torch.rand(n_rows, **given)


def check(net, criterion=None, n_outputs=1, terms=()):
    """Loss, prediction, routing and gradients are those of autograd, batch after batch."""
    criterion = criterion or SquaredError()
    by_hand = gradient_by_hand(net, criterion, terms, Room())
    learned = [weight for weight in net.parameters() if weight.requires_grad]
    for n_rows in (T, T - 1, T):
        x, y, weight = batch(n_outputs, n_rows)
        answers, (step,) = net.answers(x)
        loss = fit_loss(criterion, net, answers, [step], y, weight)
        extra = auxiliary_losses(terms, [step], weight)
        expected = torch.autograd.grad(sum(extra.values(), loss), learned)
        losses_B, predictions_BTO, auxiliary = by_hand(x[None], y[None], weight[None])
        assert_close(losses_B[0], loss.detach(), rtol=1e-12, atol=1e-12)
        assert_close(predictions_BTO, answers.detach(), rtol=1e-10, atol=1e-12)
        assert auxiliary.keys() == extra.keys()
        for name, value in extra.items():
            assert_close(auxiliary[name][0], value.detach(), rtol=1e-12, atol=1e-12)
        for own, gradient in zip(learned, expected, strict=True):
            assert_close(own.grad, gradient, rtol=1e-10, atol=1e-12)
        routing, same = by_hand.routing(), step.routing
        assert_close(routing.dense_weights(), same.dense_weights().detach())
        if net.layer.experts.n_experts > 1:  # the scores of one expert say nothing
            assert_close(routing.logits_BTE, same.logits_BTE.detach())
        assert_close(routing.usage(weight), same.usage(weight))


@pytest.mark.parametrize("loss", FIT_LOSSES)
@pytest.mark.parametrize("n_outputs", [1, 3, 20])
@pytest.mark.parametrize("given", [(1, None), (4, None), (4, 4), (4, 2), (5, 3)], ids=str)
def test_gradients_are_those_of_autograd(given, n_outputs, loss):
    n_experts, top_k = given
    net = network(n_outputs, n_experts=n_experts, top_k=top_k)
    check(net, LOSSES.build(loss), n_outputs)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh"])
@pytest.mark.parametrize("top_k", [None, 2])
def test_gradients_of_all_nonlinearities(activation, top_k):
    expert = part("mlp", activation=activation)
    gate = part("mlp", activation=activation, hidden_dim=4)
    check(network(n_experts=4, top_k=top_k, expert=expert, gate=gate))


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("much", [0, math.inf], ids=["one by one", "together"])
@pytest.mark.parametrize("tier", [0, 10**9], ids=["tiers", "one tier"])
@pytest.mark.parametrize("terms", [(), BALANCED], ids=["plain", "balanced"])
def test_gradients_of_sorted_rows(n_outputs, top_k, tier, much, terms, monkeypatch):
    monkeypatch.setattr(sys.modules["skmoe.nn.dispatch"], "SORTING", -1)
    for cost in ("TIER", "COPIED"):
        monkeypatch.setattr(sys.modules["skmoe.nn.sorting"], cost, tier)
    monkeypatch.setattr(sys.modules["skmoe.nn.sorting"], "MUCH", much)
    router = part("softmax", renormalize=True)
    net = network(n_outputs, n_experts=6, top_k=top_k, router=router)
    check(net, n_outputs=n_outputs, terms=terms)


@pytest.fixture
def blocks(monkeypatch):
    """Rows are sorted into blocks, as on a GPU."""
    monkeypatch.setattr(sys.modules["skmoe.nn.dispatch"], "SORTING", -1)
    for module in ("skmoe.nn.dispatch", "skmoe.layer_gradient"):
        monkeypatch.setattr(sys.modules[module], "sorts_in_blocks", lambda device: True)


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("activation", list(GRADIENTS))
@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize(
    "gate", ["linear", part("linear", temperature=0.3), part("mlp", hidden_dim=4)]
)
@pytest.mark.parametrize("terms", [(), BALANCED], ids=["plain", "balanced"])
def test_gradients_of_rows_in_blocks(n_outputs, activation, top_k, gate, terms, blocks):
    given = {"router": part("softmax", renormalize=True), "gate": gate}
    expert = part("mlp", activation=activation)
    net = network(n_outputs, n_experts=6, top_k=top_k, expert=expert, **given)
    check(net, n_outputs=n_outputs, terms=terms)


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("terms", [(), BALANCED], ids=["plain", "balanced"])
def test_gradients_with_logits_by_expert(top_k, terms, blocks, monkeypatch):
    def room_of_logits(self, z_BTD):
        return z_BTD.new_empty(len(z_BTD), self.n_experts, z_BTD.shape[1]).mT

    mixture = sys.modules["skmoe.layer_gradient"]._Some
    monkeypatch.setattr(mixture, "_room_of_logits", room_of_logits)
    router = part("softmax", renormalize=True)
    check(network(n_experts=6, top_k=top_k, router=router), terms=terms)


@pytest.mark.parametrize("gate", ["linear", part("mlp", hidden_dim=4, temperature=0.3)])
@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("given", [(1, None), (4, None), (4, 4), (4, 2), (5, 3)], ids=str)
def test_gradients_of_what_balances_experts(given, n_outputs, gate):
    n_experts, top_k = given
    net = network(n_outputs, n_experts=n_experts, top_k=top_k, gate=gate)
    check(net, n_outputs=n_outputs, terms=BALANCED)


def test_balance_of_experts_that_are_level():
    net = network(n_experts=4)
    with torch.no_grad():
        for weight in net.layer.gate.parameters():
            weight.zero_()
    check(net, terms=BALANCED)


@pytest.mark.parametrize("gate", ["linear", "mlp"])
@pytest.mark.parametrize("top_k", [None, 2])
def test_gradients_follow_the_temperature(gate, top_k):
    net = network(n_experts=4, top_k=top_k, gate=part(gate, temperature=(2.0, 0.5)))
    by_hand = gradient_by_hand(net, SquaredError(), (), Room())
    given = [tensor[None] for tensor in batch()]
    before = by_hand(*given).losses_B
    net.layer.gate.anneal(1.0)
    assert by_hand(*given).losses_B != before
    check(net)
    check(network(n_experts=4, top_k=top_k, gate=part(gate, temperature=0.3)))


@pytest.mark.parametrize("n_experts", [1, 3])
def test_gradients_behind_what_does_not_learn(n_experts):
    net = network(n_experts=n_experts, embedding=part("piecewise_linear", n_bins=4), n_axes=2)
    check(net)


UNKNOWN = {
    "weight of the best of all": {"top_k": 1},
    "another router": {"router": "sigmoid"},
    "another gate": {"gate": "cosine"},
    "another expert": {"expert": "linear"},
    "deeper experts": {"expert": part("mlp", depth=1)},
    "noise": {"gate": part("linear", noise=0.1)},
    "learned temperature": {"gate": part("linear", temperature="learn")},
    "shared experts": {"n_shared_experts": 1},
    "learned embedding": {"embedding": "periodic"},
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_left_to_autograd(name):
    net = network(n_experts=4, **UNKNOWN[name])
    assert gradient_by_hand(net, SquaredError(), (), Room()) is None


def test_a_loss_of_components_and_most_auxiliary_ones_are_left_to_autograd():
    net, auxiliary = network(2, n_experts=4), AuxiliaryLoss("z", 0.1, z)
    assert gradient_by_hand(net, GaussianNLL(), (), Room()) is None
    assert gradient_by_hand(net, SquaredError(), (auxiliary,), Room()) is None
    assert gradient_by_hand(net, SquaredError(), [*BALANCED, auxiliary], Room()) is None
    assert gradient_by_hand(net, SquaredError(), [*BALANCED, *BALANCED], Room()) is None
    assert gradient_by_hand(net, SquaredError(), BALANCED, Room()) is not None
    assert gradient_by_hand(net, SquaredError(), (), Room()) is not None


def test_a_network_that_is_watched_or_partly_frozen_is_left_to_autograd():
    net = network(n_experts=4)
    handle = net.layer.experts.register_forward_hook(lambda *given: None)
    assert gradient_by_hand(net, SquaredError(), (), Room()) is None
    handle.remove()
    assert gradient_by_hand(net, SquaredError(), (), Room()) is not None
    net.layer.gate.requires_grad_(False)
    assert gradient_by_hand(net, SquaredError(), (), Room()) is None


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("loss", ["squared_error", "huber"])
@pytest.mark.parametrize("given", [{"n_experts": 1}, {"n_experts": 4}, {"top_k": 2}], ids=str)
@pytest.mark.parametrize("terms", [None, {"switch": 0.1}], ids=str)
def test_a_fit_is_the_same_by_autograd(terms, given, loss, monkeypatch):
    random = np.random.default_rng(0)
    X = random.standard_normal((300, N_INPUTS))
    y = np.sin(X[:, 0]) + X[:, 1] ** 2
    weight = random.uniform(0.5, 2, len(X))
    moe = MoERegressor(
        **{"n_experts": 4, **given},
        loss=loss,
        auxiliary_losses=terms,
        solver="adam",
        max_epochs=5,
        batch_size=64,
        dtype="float64",
        random_state=0,
    )
    by_hand = moe.fit(X, y, weight)
    predictions, history = by_hand.predict(X), by_hand.history_
    loop = sys.modules["skmoe.loop"]
    monkeypatch.setattr(loop, "gradient_by_hand", lambda *given: None)
    by_autograd = moe.fit(X, y, weight)
    assert_allclose(by_autograd.predict(X), predictions, rtol=1e-9, atol=1e-9)
    for one, other in zip(history, by_autograd.history_, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"train_seconds", "valid_seconds"}:
            assert_allclose(one[key], other[key], rtol=1e-9, atol=1e-12)


def test_routing_of_one_expert_is_certain():
    net = network(n_experts=1)
    by_hand = gradient_by_hand(net, SquaredError(), (), Room())
    by_hand(*(tensor[None] for tensor in batch()))
    routing = by_hand.routing()
    assert isinstance(routing, Routing)
    assert torch.equal(routing.weights_BTK, torch.ones(1, T, 1, dtype=torch.float64))


@pytest.mark.parametrize("given", [(1, None), (4, None), (4, 2)], ids=str)
@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("dispatcher", ["sorted", "blocks", "dense"])
@pytest.mark.parametrize("terms", [(), BALANCED], ids=["plain", "balanced"])
def test_networks_side_by_side_are_networks_one_by_one(
    terms, given, dispatcher, n_outputs, monkeypatch, request
):
    monkeypatch.setattr(
        sys.modules["skmoe.nn.dispatch"], "SORTING", 10**9 if dispatcher == "dense" else -1
    )
    if dispatcher == "blocks":
        request.getfixturevalue("blocks")
    n_experts, top_k = given
    gates = [part("mlp", hidden_dim=4, temperature=t) for t in (1.0, 0.5, 2.0)]
    nets = [network(n_outputs, n_experts=n_experts, top_k=top_k, gate=gate) for gate in gates]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in (w for net in nets for w in net.parameters()):
            weight.copy_(torch.randn(weight.shape, generator=generator))
    batches = [tuple(tensor + m for tensor in batch(n_outputs)) for m in range(3)]
    alone, routings = [], []
    for net, (x, y, weight) in zip(nets, batches, strict=True):
        by_hand = gradient_by_hand(net, SquaredError(), terms, Room())
        alone.append(by_hand(x[None], y[None], weight[None]).record())
        routings.append(by_hand.routing().dense_weights()[0])
    named = [dict(net.named_parameters()) for net in nets]
    weights = {name: torch.cat([own[name].detach() for own in named]) for name in named[0]}
    gradients = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    together = ShallowGradient(nets, weights, gradients, SquaredError(), terms, Room())
    found = together(*(torch.stack(tensors) for tensors in zip(*batches, strict=True)))
    assert len(found.record()) == 1 + len(terms)
    for name, values_B in found.record().items():
        assert_close(values_B, torch.cat([record[name] for record in alone]))
    assert_close(together.routing().dense_weights(), torch.stack(routings))
    for name, gradient in gradients.items():
        assert_close(gradient, torch.cat([own[name].grad for own in named]))
