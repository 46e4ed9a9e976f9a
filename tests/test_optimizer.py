"""The flat optimiser is AdamW on the weights themselves."""

import copy
import sys

import numpy as np
import pytest
import torch
from torch import nn

from skmoe.nn.networks import MoENetwork
from skmoe.optimizer import (
    AT_ONCE,
    N_PARTS,
    FlatAdamW,
    cut,
    load_arrays,
    optimizer_arrays,
    schedule,
)

DECAY = 0.1


def network():
    generator = torch.Generator().manual_seed(0)
    return MoENetwork(3, 2, n_experts=4, generator=generator, gate="mlp").double()


def loss(net, seed):
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(seed)).double()
    return (net(x)[0] - x[:, :2]).square().mean() * 100


def textbook(net):
    """AdamW on one tensor each, with clipping over all of them."""
    named = list(net.named_parameters())
    kept = [w for name, w in named if name.endswith("bias") or w.ndim < 2]
    decayed = [w for name, w in named if not name.endswith("bias") and w.ndim >= 2]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": kept, "weight_decay": 0}]
    return torch.optim.AdamW(groups, lr=0.01)


@pytest.fixture(params=[False, True], ids=["whole", "in parts"])
def in_parts(request, monkeypatch):
    """Whether vectors are cut, and gradients clipped, as on CUDA."""
    if request.param:
        module = sys.modules["skmoe.optimizer"]
        monkeypatch.setattr(module, "is_cuda", lambda device: True)
        monkeypatch.setattr(module, "AT_ONCE", 8)
        monkeypatch.setattr(module, "N_PARTS", 4)
    return request.param


def test_steps_are_those_of_adamw_with_clipped_gradients(in_parts):
    flat_net, plain_net = network(), network()
    flat, plain = FlatAdamW(flat_net, 0.01, DECAY), textbook(plain_net)
    for seed in range(5):
        for net, optimizer in ((flat_net, flat), (plain_net, plain)):
            optimizer.zero_grad()
            loss(net, seed).backward()
            if optimizer is plain:
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
    for one, other in zip(flat_net.parameters(), plain_net.parameters(), strict=True):
        # In parts, what a gradient is divided by is a float32.
        close = {"rtol": 1e-6, "atol": 1e-8} if in_parts else {"rtol": 1e-9, "atol": 1e-12}
        torch.testing.assert_close(one, other, **close)


@pytest.mark.parametrize("n_weights", [1, 2048, 2049, 209_040, 1_081_344])
def test_parts_of_vectors_are_as_many_as_keep_a_gpu_busy(n_weights):
    vectors = torch.arange(n_weights), torch.arange(n_weights) + 1
    parts = cut(vectors)
    assert len(parts) <= N_PARTS
    assert len(parts) > N_PARTS / 2 or n_weights <= AT_ONCE * len(parts)
    for vector, own in zip(vectors, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(own), vector)
        assert own[0].data_ptr() == vector.data_ptr()


def test_making_it_changes_no_weight():
    net = network()
    before = copy.deepcopy(net.state_dict())
    FlatAdamW(net, 0.01, DECAY)
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, before[name])


def test_it_goes_on_from_its_state(in_parts):
    net = network()
    optimizer = FlatAdamW(net, 0.01, DECAY)

    def step(net, optimizer, seed):
        optimizer.zero_grad()
        loss(net, seed).backward()
        optimizer.step()

    step(net, optimizer, 0)
    other = network()
    other.load_state_dict(net.state_dict())
    again = FlatAdamW(other, 0.01, DECAY, optimizer_arrays(optimizer))
    step(net, optimizer, 1)
    step(other, again, 1)
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_it_takes_up_another_state_between_steps(in_parts):
    net = network()
    optimizer = FlatAdamW(net, 0.01, DECAY)
    weights = copy.deepcopy(net.state_dict())
    found = []
    for _ in range(2):
        net.load_state_dict(weights)
        load_arrays(optimizer, optimizer_arrays(FlatAdamW(network(), 0.01, DECAY)))
        optimizer.zero_grad()
        loss(net, 0).backward()
        optimizer.step()
        found.append(copy.deepcopy(net.state_dict()))
    for name, weight in found[0].items():
        assert torch.equal(weight, found[1][name])
    assert not torch.equal(weights["layer.gate.linear.weight"], net.layer.gate.linear.weight)


def test_state_is_arrays():
    net = network()
    optimizer = FlatAdamW(net, 0.01, DECAY)
    loss(net, 0).backward()
    optimizer.step()
    for entry in optimizer_arrays(optimizer).values():
        assert all(isinstance(value, np.ndarray) for value in entry.values())


def test_schedule_rises_to_one_and_falls_to_zero():
    steps = np.array([schedule(progress) for progress in np.linspace(0, 1, 1001)])
    assert 0 < steps[0] < 0.2
    assert steps.max() == pytest.approx(1, abs=1e-3)
    assert steps[-1] == pytest.approx(0, abs=1e-12)
    peak = steps.argmax()
    assert np.all(np.diff(steps[: peak + 1]) > 0)
    assert np.all(np.diff(steps[peak:]) <= 0)


def test_frozen_weights_stay_bitwise():
    net = network()
    frozen = net.layer.gate.linear.weight.requires_grad_(False)
    before = frozen.clone()
    optimizer = FlatAdamW(net, learning_rate=0.1, weight_decay=0.5)
    net(torch.ones(3, 3, dtype=torch.float64))[0].sum().backward()
    optimizer.step()
    assert torch.equal(frozen, before)
