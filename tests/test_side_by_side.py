"""Networks that are trained as one program end as they would alone."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from skmoe._registry import part
from skmoe.batches import Rows
from skmoe.embedded_rows import sight
from skmoe.kinds import Request, kind_of
from skmoe.loop import Diverged
from skmoe.nn.embeddings import PiecewiseLinear
from skmoe.nn.losses import GaussianNLL, Huber, SquaredError, importance, switch, z
from skmoe.nn.networks import NETWORKS
from skmoe.objective import AuxiliaryLoss
from skmoe.plan import TrainingPlan, TrainingResult
from skmoe.side_by_side import train_requests
from skmoe.stacked_steps import StackedSteps
from skmoe.training import train_alone

LAYER = {"n_experts": 3, "hidden_dim": 5}
ARGUMENTS = {
    "shallow": {"embedding": part("piecewise_linear", n_bins=4)},
    "parallel": {"n_layers": 2, "model_dim": 6},
    "stack": {"n_layers": 2, "model_dim": 6},
    "ensemble": {"n_layers": 2, "model_dim": 6, "embedding": part("periodic")},
}
PLAN = TrainingPlan(SquaredError(), 0.02, 0.1, batch_size=16, max_epochs=6)


def rows(seed, n_rows=40):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_rows, 3, generator=generator).double()
    y = (x[:, :1] * x[:, 1:2]).sin() + x[:, 2:].abs()
    return Rows(x, y, 0.5 + torch.rand(n_rows, generator=generator).double())


def request(seed, kind="shallow", plan=PLAN, validation=False, n_rows=40, **arguments):
    generator = torch.Generator().manual_seed(seed)
    arguments = {**LAYER, **ARGUMENTS[kind], **arguments}
    network = NETWORKS[kind](
        3, plan.fit_loss.outputs_per_target, generator=generator, **arguments
    )
    held_out = rows(50 + seed, 20) if validation else None
    order = torch.Generator().manual_seed(99 + seed)
    return Request(network.double(), rows(seed, n_rows), held_out, plan, order)


def alone(asked):
    """A copy of the request, trained by itself."""
    generator = torch.Generator()
    generator.set_state(asked.generator.get_state())
    network = copy.deepcopy(asked.network)
    try:
        outcome = train_alone(network, asked.rows, asked.validation, asked.plan, generator)
    except Diverged as error:
        outcome = error
    return Request(
        network, asked.rows, asked.validation, asked.plan, generator, outcome=outcome
    )


def without_seconds(history):
    return [{k: v for k, v in epoch.items() if "seconds" not in k} for epoch in history]


def assert_same_as_alone(requests, together=True):
    expected = [alone(asked) for asked in requests]
    assert (len({kind_of(asked) for asked in requests}) == 1) is together
    train_requests(requests)
    for one, other in zip(requests, expected, strict=True):
        assert type(one.outcome) is type(other.outcome)
        if not isinstance(one.outcome, TrainingResult):
            continue
        assert_close(one.network.state_dict(), other.network.state_dict(), rtol=1e-6, atol=1e-9)
        assert one.outcome.best_loss == pytest.approx(other.outcome.best_loss, rel=1e-7)
        histories = (without_seconds(r.outcome.history) for r in (one, other))
        for epoch, same in zip(*histories, strict=True):
            assert list(epoch) == list(same)
            for name, value in epoch.items():
                expected_value = np.asarray(same[name])
                assert np.asarray(value) == pytest.approx(expected_value, rel=1e-6, abs=1e-9)
        for number, state in other.outcome.optimizer_state.items():
            for name, array in state.items():
                assert one.outcome.optimizer_state[number][name] == pytest.approx(
                    array, abs=1e-8
                )
        assert torch.equal(one.generator.get_state(), other.generator.get_state())


@pytest.mark.parametrize("validation", [False, True])
@pytest.mark.parametrize("kind", ARGUMENTS)
def test_each_ends_as_it_would_alone(kind, validation):
    assert_same_as_alone([request(seed, kind, validation=validation) for seed in range(3)])


def test_rates_and_decays_are_their_own():
    plans = [
        replace(PLAN, learning_rate=rate, weight_decay=decay)
        for rate, decay in ((0.001, 0.0), (0.02, 0.1), (0.1, 2.0))
    ]
    assert_same_as_alone([request(0, plan=plan) for plan in plans])


def test_each_stops_when_it_no_longer_gets_better():
    plan = replace(PLAN, max_epochs=40, patience=2, learning_rate=0.1)
    requests = [request(seed, plan=plan, validation=True) for seed in range(4)]
    assert_same_as_alone(requests)
    assert len({len(asked.outcome.history) for asked in requests}) > 1


@pytest.mark.parametrize("validation", [False, True])
def test_each_has_epochs_and_a_schedule_of_its_own(validation):
    gate = part("linear", temperature=(2.0, 0.1))
    plans = [replace(PLAN, max_epochs=epochs) for epochs in (1, 4, 6)]
    requests = [request(0, plan=plan, gate=gate, validation=validation) for plan in plans]
    assert_same_as_alone(requests)
    assert [len(asked.outcome.history) for asked in requests] == [1, 4, 6]


def test_validation_rows_may_be_looked_at_seldom():
    plan = replace(PLAN, max_epochs=12, looks=3)
    assert_same_as_alone([request(seed, plan=plan, validation=True) for seed in range(2)])


def test_one_that_diverges_leaves_the_others_alone():
    rates = (0.02, 1e12, 0.01)
    requests = [request(0, plan=replace(PLAN, learning_rate=rate)) for rate in rates]
    assert_same_as_alone(requests)
    assert isinstance(requests[1].outcome, Diverged)


def test_nor_does_it_keep_the_gradients_of_others_from_being_clipped():
    rates = (0.02, 1e200)
    requests = [request(0, plan=replace(PLAN, learning_rate=rate)) for rate in rates]
    requests[0].rows.y.mul_(20)
    assert_same_as_alone(requests)
    assert [type(asked.outcome) for asked in requests] == [TrainingResult, Diverged]


@pytest.mark.parametrize("loss", [Huber(), GaussianNLL()], ids=type)
def test_other_losses(loss):
    plan = replace(PLAN, fit_loss=loss)
    assert_same_as_alone([request(seed, plan=plan) for seed in range(2)])


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize(
    "losses", [[switch], [importance], [switch, z]], ids=["switch", "importance", "switch, z"]
)
def test_routing_losses(losses, top_k):
    terms = [AuxiliaryLoss(loss.__name__, 0.1, loss) for loss in losses]
    plan = replace(PLAN, auxiliary_losses=terms)
    requests = [request(seed, plan=plan, top_k=top_k) for seed in range(2)]
    assert_same_as_alone(requests)
    assert {f"{term.name}_loss" for term in terms} < set(requests[0].outcome.history[0])


def test_balanced_networks_are_those_that_autograd_makes(monkeypatch):
    plan = replace(PLAN, auxiliary_losses=[AuxiliaryLoss("switch", 0.1, switch)])
    by_hand, by_autograd = ([request(seed, plan=plan) for seed in range(2)] for _ in range(2))
    train_requests(by_hand)
    monkeypatch.setattr("skmoe.kinds.is_known", lambda *given: False)
    train_requests(by_autograd)
    for one, other in zip(by_hand, by_autograd, strict=True):
        assert_close(one.network.state_dict(), other.network.state_dict())
        records = ([epoch["switch_loss"] for epoch in r.outcome.history] for r in (one, other))
        assert next(records) == pytest.approx(next(records), rel=1e-10)


def test_temperatures_are_annealed():
    gate = part("linear", temperature=(2.0, 0.1))
    requests = [request(seed, gate=gate) for seed in range(2)]
    assert_same_as_alone(requests)
    assert requests[0].network.gates()[0].log_temperature.exp().item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    "layer",
    [
        {"router": "normalized_sigmoid", "top_k": 2},
        {"router": part("normalized_sigmoid", balance_rate=0.01), "top_k": 2},
        {"router": "expert_choice", "top_k": 2},
        {"gate": part("linear", noise=0.5)},
        {"expert": "cp"},
        {"expert": ["linear", "mlp", "mlp"]},
        {"n_shared_experts": 1},
    ],
    ids=str,
)
def test_whatever_the_parts(layer):
    assert_same_as_alone([request(seed, **layer) for seed in range(2)])


@pytest.mark.parametrize("embedding", [None, "piecewise_linear"])
def test_autograd_takes_them_together(embedding):
    requests = [
        request(seed, embedding=embedding, n_shared_experts=1, validation=True)
        for seed in range(2)
    ]
    assert_same_as_alone(requests)
    assert [asked.together for asked in requests] == [2, 2]


def test_few_of_many_wide_experts():
    """Rows that are sorted by expert are no program for all: such networks take turns."""
    wide = {"n_experts": 16, "hidden_dim": 2000, "top_k": 1, "embedding": None}
    plan = replace(PLAN, max_epochs=2, batch_size=40)
    assert_same_as_alone([request(seed, plan=plan, **wide) for seed in range(2)])


@pytest.mark.parametrize(
    "change",
    [
        {"scheduled": False},
        {"batch_size": 8},
        {"fit_loss": Huber()},
        {"auxiliary_losses": [AuxiliaryLoss("switch", 0.1, switch)]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_courses_that_differ_are_not_trained_together(change):
    assert_same_as_alone([request(0), request(0, plan=replace(PLAN, **change))], together=False)


@pytest.mark.parametrize(
    "layer",
    [{"top_k": 2}, {"hidden_dim": 4}, {"expert": part("mlp", activation="tanh")}],
    ids=str,
)
def test_nor_are_networks_that_differ(layer):
    assert_same_as_alone([request(0), request(0, **layer)], together=False)


# Rows that are sorted by expert, and not; few inputs and many.
@pytest.mark.parametrize("sorting", [-1, 10**9], ids=["sorted", "unsorted"])
@pytest.mark.parametrize("n_bins", [4, 12])
@pytest.mark.parametrize(
    "layers",
    [
        [(3, None), (1, None), (5, None), (2, 2)],
        [(4, 2), (3, 2), (7, 2)],
        [(4, 3), (3, 2), (7, 5)],
    ],
    ids=str,
)
def test_more_or_fewer_experts(layers, n_bins, sorting, monkeypatch):
    monkeypatch.setattr("skmoe.nn.dispatch.SORTING", sorting)
    embedding = part("piecewise_linear", n_bins=n_bins)
    plans = [replace(PLAN, weight_decay=decay) for decay in (0.0, 0.1, 1.0, 0.5)]
    gate = part("mlp", hidden_dim=4, temperature=0.5)
    requests = [
        request(0, n_experts=n, top_k=k, plan=plan, embedding=embedding, gate=gate)
        for (n, k), plan in zip(layers, plans, strict=False)
    ]
    assert_same_as_alone(requests)
    assert {asked.together for asked in requests} == {len(layers)}


@pytest.mark.parametrize("top_k", [None, 2])
def test_more_or_fewer_experts_stop_when_they_no_longer_get_better(top_k):
    plan = replace(PLAN, max_epochs=40, patience=2, learning_rate=0.1)
    requests = [
        request(seed, n_experts=n, plan=plan, validation=True, top_k=top_k)
        for seed, n in enumerate((3, 6, 4, 3))
    ]
    assert_same_as_alone(requests)
    assert len({len(asked.outcome.history) for asked in requests}) > 1


def test_a_gradient_too_long_is_that_of_its_network_alone():
    requests = [request(seed, n_experts=n) for seed, n in enumerate((2, 5, 3))]
    for asked, factor in zip(requests, (1.0, 100.0, 0.1), strict=True):
        asked.rows.y.mul_(factor)
    assert_same_as_alone(requests)


@pytest.mark.parametrize("n_rows", [(40, 39, 41), (33, 48, 40), (16, 14, 15)], ids=str)
def test_more_or_fewer_rows(n_rows):
    requests = [
        request(seed, n_rows=n, validation=True, n_experts=2 + seed)
        for seed, n in enumerate(n_rows)
    ]
    requests[0].validation = rows(7, 19)
    assert_same_as_alone(requests)


def test_rows_that_do_not_fit_into_memory_are_embedded_batch_by_batch(monkeypatch):
    monkeypatch.setattr("skmoe.embedded_rows.EMBEDDED", 100)
    requests = [request(seed, n_experts=2 + seed, validation=True) for seed in range(2)]
    assert_same_as_alone(requests)


def test_other_numbers_of_batches_are_not_trained_together():
    assert_same_as_alone([request(0), request(1, n_rows=49)], together=False)


@pytest.mark.parametrize("top_k", [None, 2])
def test_more_or_fewer_experts_are_balanced(top_k):
    plan = replace(PLAN, auxiliary_losses=[AuxiliaryLoss("switch", 0.1, switch)])
    requests = [
        request(0, plan=plan, n_experts=n, top_k=top_k, n_rows=n_rows)
        for n, n_rows in ((3, 48), (5, 47), (4, 48))
    ]
    assert_same_as_alone(requests)
    first, *others = (asked.outcome.history[-1]["switch_loss"] for asked in requests)
    assert all(other != first for other in others)


def test_frozen_weights_stay_bitwise():
    requests = [request(seed) for seed in range(2)]
    for asked in requests:
        asked.network.layer.gate.requires_grad_(False)
    before = [copy.deepcopy(asked.network.layer.gate.state_dict()) for asked in requests]
    assert_same_as_alone(requests)
    for asked, state in zip(requests, before, strict=True):
        assert_close(asked.network.layer.gate.state_dict(), state, rtol=0, atol=0)


@pytest.fixture
def memory(monkeypatch):
    """Room for so many networks at once, from the second step on."""
    room, find, together = {"networks": 2}, StackedSteps._find_gradients, []

    def limited(self, batch, look):
        together.append(len(self.networks))
        if self.step and len(self.networks) > room["networks"]:
            raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB.")
        return find(self, batch, look)

    monkeypatch.setattr(StackedSteps, "_find_gradients", limited)
    return together


@pytest.mark.parametrize("kind", ["shallow", "parallel"])
def test_fewer_at_once_if_memory_does_not_suffice(kind, memory):
    gate = part("linear", temperature=(2.0, 0.1))
    requests = [request(seed, kind, validation=True, gate=gate) for seed in range(5)]
    with pytest.warns(RuntimeWarning) as warned:
        assert_same_as_alone(requests)
    told = [str(warning.message) for warning in warned]
    assert ["5 networks at once" in told[0], "3 networks at once" in told[1]] == [True, True]
    assert [asked.together for asked in requests] == [2, 2, 1, 2, 2]
    assert set(memory) == {5, 3, 2}


def test_memory_that_does_not_suffice_for_one_is_its_own_matter(monkeypatch):
    def no_memory(*given):
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(StackedSteps, "_find_gradients", no_memory)
    requests = [request(seed) for seed in range(2)]
    with pytest.warns(RuntimeWarning, match="in groups of 1"):
        assert_same_as_alone(requests)
    assert [asked.together for asked in requests] == [1, 1]


def test_rows_of_a_fold_are_there_once(monkeypatch):
    embedded = []
    forward = PiecewiseLinear.forward
    monkeypatch.setattr(
        PiecewiseLinear, "forward", lambda self, x: embedded.append(len(x)) or forward(self, x)
    )
    requests = [request(seed, n_experts=2 + seed, validation=True) for seed in range(3)]
    for asked in requests[1:]:
        asked.rows, asked.validation = requests[0].rows, requests[0].validation
    other = part("piecewise_linear", n_bins=5)
    requests.append(request(0, embedding=other, validation=True))
    requests[3].rows = requests[0].rows
    steps = StackedSteps(requests[:3])
    assert embedded == [40, 20]
    assert (len(steps.rows.x), len(steps.validation.x)) == (40, 20)
    assert_same_as_alone(requests[:3])
    sights = [sight(asked.network) for asked in requests]
    assert sights[0] == sights[1] == sights[2] != sights[3]


def test_networks_share_no_memory_afterwards():
    requests = [request(seed) for seed in range(2)]
    train_requests(requests)
    storages = {
        weight.untyped_storage().data_ptr()
        for asked in requests
        for weight in asked.network.parameters()
    }
    assert len(storages) == sum(len(list(asked.network.parameters())) for asked in requests)
