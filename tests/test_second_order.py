"""The second-order finish finds minima, and never makes a network worse."""

import copy

import numpy as np
import pytest
import torch

from skmoe import part, second_order
from skmoe.batches import Rows
from skmoe.nn.losses import Huber, SquaredError
from skmoe.nn.networks import MoENetwork, StackMoENetwork
from skmoe.second_order import polish

SQUARED = SquaredError()
SMOOTH = part("mlp", activation="tanh")


def make_network(expert="mlp", dtype=torch.float64, **params):
    generator = torch.Generator().manual_seed(0)
    params = {"n_experts": 2, "hidden_dim": 4, **params}
    return MoENetwork(2, 1, expert=expert, generator=generator, **params).to(dtype)


def make_rows(n=200, seed=0, noise=0.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(n, 2, generator=generator) - 1
    y = torch.sin(3 * x[:, :1]) * x[:, 1:] + noise * torch.randn(n, 1, generator=generator)
    weight = 0.5 + torch.rand(n, generator=generator)
    return Rows(x.to(dtype), y.to(dtype), weight.to(dtype))


def weights_of(network):
    return torch.cat([w.detach().flatten() for w in network.parameters()])


def loss_of(network, rows, loss=SQUARED):
    with torch.no_grad():
        losses = loss(network(rows.x)[0], rows.y)
    return float((losses * rows.weight).sum() / rows.weight.sum())


def decayed(network):
    return torch.cat(
        [
            w.detach().flatten()
            for name, w in network.named_parameters()
            if w.ndim >= 2 and not name.endswith("bias")
        ]
    )


def test_one_linear_expert_becomes_weighted_ridge_regression():
    network, rows, decay = make_network("linear", n_experts=1), make_rows(noise=0.1), 0.3
    polish(network, rows, None, SQUARED, weight_decay=decay)
    share = rows.weight / rows.weight.sum()
    design = torch.cat([rows.x, torch.ones(len(rows), 1)], 1)
    gram = design.T @ (share[:, None] * design) + decay / 2 * torch.diag(
        torch.tensor([1.0, 1.0, 0.0])
    )
    expected = torch.linalg.solve(gram, design.T @ (share[:, None] * rows.y))
    found = torch.cat(
        [network.layer.experts.output.weight[0], network.layer.experts.output.bias[0]]
    )
    np.testing.assert_allclose(found.detach(), expected, atol=1e-5)


@pytest.mark.parametrize("loss", [SQUARED, Huber()])
def test_record_tells_the_losses(loss):
    network, rows = make_network(), make_rows()
    before = loss_of(network, rows, loss)
    record = polish(network, rows, None, loss, max_iter=50)
    assert record.loss_before == pytest.approx(before)
    assert record.loss == pytest.approx(loss_of(network, rows, loss))
    assert record.improved
    assert record.loss < 0.1 * record.loss_before
    assert record.n_iter <= 50 <= record.n_evaluations
    assert np.isnan(record.valid_loss)


def test_end_is_a_stationary_point_of_the_objective():
    network, rows, decay = make_network(SMOOTH), make_rows(noise=0.2), 0.01
    record = polish(network, rows, None, SQUARED, weight_decay=decay, max_iter=2000)
    share = rows.weight / rows.weight.sum()
    loss = (SQUARED(network(rows.x)[0], rows.y) * share).sum()
    maps = [w for n, w in network.named_parameters() if w.ndim >= 2 and not n.endswith("bias")]
    loss = loss + decay / 2 * sum(w.square().sum() for w in maps)
    assert float(loss.detach()) == pytest.approx(record.loss)
    slopes = torch.autograd.grad(loss, list(network.parameters()))
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-4


def test_weight_two_counts_as_a_row_twice_and_weight_zero_as_none():
    rows = make_rows(60, noise=0.1)
    weight = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).repeat(20)
    repeated = torch.repeat_interleave(torch.arange(60), weight.long())
    networks = [make_network(SMOOTH) for _ in range(2)]
    polish(networks[0], Rows(rows.x, rows.y, weight), None, SQUARED, max_iter=15)
    ones = torch.ones(len(repeated), dtype=torch.float64)
    polish(
        networks[1], Rows(rows.x[repeated], rows.y[repeated], ones), None, SQUARED, max_iter=15
    )
    np.testing.assert_allclose(weights_of(networks[0]), weights_of(networks[1]), rtol=1e-6)


def test_chunks_change_nothing(monkeypatch):
    networks, rows = [make_network(SMOOTH) for _ in range(2)], make_rows()
    polish(networks[0], rows, None, SQUARED, max_iter=10)
    monkeypatch.setattr(second_order, "CPU_CHUNK", 7)
    polish(networks[1], rows, None, SQUARED, max_iter=10)
    np.testing.assert_allclose(weights_of(networks[0]), weights_of(networks[1]), rtol=1e-7)


def test_same_call_gives_same_weights_and_leaves_global_state_alone():
    state = torch.get_rng_state()
    networks = [make_network(gate=part("linear", noise=0.5)) for _ in range(2)]
    for network in networks:
        polish(network, make_rows(), None, SQUARED, max_iter=30)
    assert torch.equal(weights_of(networks[0]), weights_of(networks[1]))
    assert torch.equal(state, torch.get_rng_state())


def test_validation_rows_stop_an_overfit(monkeypatch):
    monkeypatch.setattr(second_order, "ITERATIONS_PER_LOOK", 2)
    rows, held_out = make_rows(30, noise=0.5), make_rows(300, seed=1)
    free, watched = make_network(hidden_dim=32), make_network(hidden_dim=32)
    polish(free, rows, None, SQUARED, max_iter=500)
    record = polish(watched, rows, held_out, SQUARED, max_iter=500)
    assert record.n_iter < 500
    assert record.valid_loss == pytest.approx(loss_of(watched, held_out))
    assert record.valid_loss <= record.valid_loss_before
    assert loss_of(watched, held_out) < 0.5 * loss_of(free, held_out)


def test_network_is_unchanged_if_nothing_better_is_found():
    network, rows = make_network(), make_rows()
    polish(network, rows, None, SQUARED, max_iter=50)
    before, fitted = weights_of(network).clone(), make_rows()
    with torch.no_grad():
        fitted = Rows(fitted.x, network(fitted.x)[0], fitted.weight)
    # The validation rows are fitted exactly already.
    record = polish(network, rows, fitted, SQUARED, max_iter=20)
    assert not record.improved
    assert record.loss == record.loss_before
    assert torch.equal(weights_of(network), before)


def test_rows_left_out_have_a_say(monkeypatch):
    # The rows that take part are fitted at the cost of all others.
    rows = make_rows(200)
    y = rows.y.clone()
    y[::20] += 5
    network = make_network(hidden_dim=16)
    polish(network, rows, None, SQUARED, max_iter=200)
    before = weights_of(network).clone()
    record = polish(
        network, Rows(rows.x, y, rows.weight), None, SQUARED, max_iter=100, max_rows=10
    )
    assert not record.improved
    assert torch.equal(weights_of(network), before)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_not_finite_leaves_the_network_alone(value):
    network, rows = make_network(), make_rows()
    rows.y[3] = value
    before = weights_of(network).clone()
    record = polish(network, rows, None, SQUARED, max_iter=20)
    assert not record.improved
    assert torch.equal(weights_of(network), before)


def test_interrupt_keeps_the_best_weights():
    class Impatient(SquaredError):
        calls = 0

        def forward(self, prediction, target):
            self.calls += 1
            if self.calls == 20:
                raise KeyboardInterrupt
            return super().forward(prediction, target)

    network, rows = make_network(), make_rows()
    record = polish(network, rows, None, Impatient())
    assert record.interrupted
    assert record.improved
    assert loss_of(network, rows) == pytest.approx(record.loss)
    assert record.loss < record.loss_before


def test_float32_network_stays_float32_and_gets_better():
    network, rows = make_network(dtype=torch.float32), make_rows(dtype=torch.float32)
    record = polish(network, rows, None, SQUARED, max_iter=100)
    assert weights_of(network).dtype == torch.float32
    assert not network.training
    assert all(weight.grad is None for weight in network.parameters())
    assert loss_of(network, rows) == pytest.approx(record.loss, rel=1e-4)


def test_frozen_weights_stay():
    network = make_network()
    network.layer.gate.requires_grad_(False)
    gate = copy.deepcopy(network.layer.gate.state_dict())
    record = polish(network, make_rows(), None, SQUARED, max_iter=20)
    assert record.improved
    for name, tensor in network.layer.gate.state_dict().items():
        assert torch.equal(tensor, gate[name])


def test_sparse_stack_gets_better():
    generator = torch.Generator().manual_seed(0)
    network = StackMoENetwork(
        2, 1, n_layers=2, model_dim=4, n_experts=4, top_k=2, hidden_dim=4, generator=generator
    )
    record = polish(network, make_rows(dtype=torch.float32), None, SQUARED, max_iter=50)
    assert record.loss < 0.5 * record.loss_before
