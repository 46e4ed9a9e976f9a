"""Idle experts get half of the rows of the busiest one, and the function stays as it was."""

from dataclasses import replace

import pytest
import torch

from skmoe.batches import Rows
from skmoe.estimators import _splits
from skmoe.estimators._settling import settling
from skmoe.estimators._splits import share_out_busiest, sharing_out
from skmoe.nn.losses import SquaredError
from skmoe.nn.networks import MoENetwork
from skmoe.plan import TrainingPlan
from skmoe.training import train

N_EXPERTS = 4


@pytest.fixture
def x():
    return torch.randn(2000, 3, generator=torch.Generator().manual_seed(1)).double()


def network(gate="region", n_experts=N_EXPERTS, **settings):
    """Experts 0 and 1 have a region each, and the others hardly anything."""
    generator = torch.Generator().manual_seed(0)
    net = MoENetwork(3, 1, n_experts=n_experts, gate=gate, generator=generator, **settings)
    if gate == "region":
        slopes, offsets = torch.zeros(1, n_experts, 3), torch.zeros(1, n_experts)
        slopes[0, 1, 0] = 30.0
        offsets[0, 2:] = -1000.0
        cells = torch.zeros(1, n_experts, 3), torch.zeros(1, n_experts)
        net.layer.gate.set_regions(torch.arange(n_experts), (slopes, offsets), cells)
    return net.double()


def test_idle_experts_are_given_rows(x):
    net = network()
    assert (net(x)[1][0].routing.usage()[0] < 0.01).sum() == 2
    share_out_busiest(net, x)
    usage = net(x)[1][0].routing.usage()[0]
    assert usage.min() > 0.15
    assert sorted(net.layer.gate.region_ids_BE[0].tolist()) == [0, 0, 1, 1]


def test_experts_that_have_just_been_given_rows_may_have_to_share_them(x):
    """With two regions and six idle experts, some of them get a quarter of a region."""
    net = network(n_experts=8)
    share_out_busiest(net, x)
    assert all(bool(weight.isfinite().all()) for weight in net.parameters())
    usage = net(x)[1][0].routing.usage()[0]
    assert usage.min() > 0.3 / 8
    assert sorted(net.layer.gate.region_ids_BE[0].tolist()) == [0] * 4 + [1] * 4


@pytest.mark.parametrize("told", [True, False])
def test_an_expert_keeps_a_small_region_that_was_told_but_no_empty_one(x, told):
    net = network()
    gate = net.layer.gate
    with torch.no_grad():
        gate.regions.weight[0, 1] = gate.regions.weight.new_tensor([0.0, 0.0, 30.0, 0.0])
        gate.regions.bias[0, 0, 2] = -57.0  # where x_1 > 1.9: 3 % of the rows
    before = net(x)[1][0].routing.usage()[0]
    assert 0.01 < before[2] < 0.05
    assert before[3] < 0.005
    share_out_busiest(net, x, told)
    assert (gate.region_ids_BE[0, 2] == 2) == told
    assert gate.region_ids_BE[0, 3] in (0, 1)


def test_the_function_stays_as_it_was(x):
    net = network()
    before = net(x)[0]
    share_out_busiest(net, x)
    # Up to what the idle experts said, and what two halves weigh more than the whole.
    change = (net(x)[0] - before).abs()
    assert change.median() < 1e-6
    assert change.mean() < 1e-2 * before.std()


def test_borders_of_regions_stay_where_they_were(x):
    net = network()
    before = net(x)[1][0].routing.dense_weights()[0, :, 1]
    share_out_busiest(net, x)
    ids = net.layer.gate.region_ids_BE[0]
    after = net(x)[1][0].routing.dense_weights()[0][:, ids == 1].sum(1)
    assert ((after > 0.5) == (before > 0.5)).double().mean() > 0.98


@pytest.mark.parametrize("training", [True, False])
def test_nothing_changes_where_all_are_busy_or_another_gate_decides(x, training):
    busy = network()
    share_out_busiest(busy, x)
    for net in (busy, network(gate="linear")):
        net.train(training)
        before = {name: weight.clone() for name, weight in net.state_dict().items()}
        share_out_busiest(net, x)
        assert net.training == training
        assert all(torch.equal(before[name], w) for name, w in net.state_dict().items())


def test_rows_that_are_all_the_same_are_not_shared_out(x):
    net = network()
    share_out_busiest(net, x[:1].expand(50, -1))
    assert all(bool(weight.isfinite().all()) for weight in net.parameters())
    assert net.layer.gate.region_ids_BE[0].tolist() == [0, 1, 2, 3]


def test_idle_experts_learn_once_they_have_rows(x):
    rows = Rows(x, x.square().sum(1, keepdim=True), torch.ones(len(x)).double())
    plan = TrainingPlan(SquaredError(), 1e-2, 0.0, 500, max_epochs=10)
    losses = {}
    for name, settled in (("as it is", plan), ("shared out", settling(plan, rows))):
        generator = torch.Generator().manual_seed(0)
        net = network(top_k=2, hidden_dim=4)
        settled = replace(settled, max_epochs=plan.max_epochs)
        losses[name] = train(net, rows, None, settled, generator).best_loss
        idle = (net(x)[1][0].routing.usage()[0] < 0.01).sum()
        assert idle == (2 if settled.before_epoch is None else 0)
    assert losses["shared out"] < losses["as it is"]


def test_the_looks_are_spread_over_the_fit(x, monkeypatch):
    seen = []
    monkeypatch.setattr(_splits, "share_out_busiest", lambda net, *given: seen.append(net))
    before_epoch = sharing_out(Rows(x, x[:, :1], torch.ones(len(x))))
    for done in range(8):
        before_epoch(done, done, 8)
    assert seen == [0, 1, 2, 4, 6]
