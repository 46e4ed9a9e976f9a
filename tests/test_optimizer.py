"""The flat optimiser is AdamW on the weights themselves."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from skmoe.nn.networks import MoENetwork
from skmoe.optimizer import FlatAdamW, optimizer_arrays, schedule

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


def test_steps_are_those_of_adamw_with_clipped_gradients():
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
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_making_it_changes_no_weight():
    net = network()
    before = copy.deepcopy(net.state_dict())
    FlatAdamW(net, 0.01, DECAY)
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, before[name])


def test_it_goes_on_from_its_state():
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
