"""Networks side by side step as each would alone."""

import pytest
import torch
from torch.testing import assert_close

from skmoe.nn.networks import MoENetwork
from skmoe.optimizer import FlatAdamW, optimizer_arrays
from skmoe.stacked_optimizer import StackedAdamW


def loss(net, seed):
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(seed)).double()
    return (net(x)[0] - x[:, :1]).square().mean() * 100


def test_networks_step_together_as_one_by_one():
    """By two ways: one for CPUs, one for GPUs."""
    counts, rates, decays = (2, 4, 3), (0.1, 0.02, 0.02), (0.0, 0.3, 0.3)

    def networks():
        generator = torch.Generator().manual_seed(0)
        return [
            MoENetwork(3, 1, n_experts=n, hidden_dim=5, generator=generator).double()
            for n in counts
        ]

    alone = networks()
    optimizers = [
        FlatAdamW(net, rate, decay)
        for net, rate, decay in zip(alone, rates, decays, strict=True)
    ]
    ways = networks(), networks()
    stacks = [StackedAdamW(nets, decays) for nets in ways]

    def at_once(rates):
        line = stacks[1].line(rates, stacks[1].n_steps)
        stacks[1].follow_line(torch.tensor(line, dtype=torch.float64))

    steps = stacks[0]._step_by_runs, at_once
    for number in range(5):
        for m, (net, optimizer) in enumerate(zip(alone, optimizers, strict=True)):
            optimizer.zero_grad()
            loss(net, number).backward()
            own = dict(net.named_parameters())
            for stack in stacks:
                for (name, leaf), pile in zip(stack.stacked.items(), stack.piles, strict=True):
                    pile.parts(leaf.grad)[m].copy_(own[name].grad)
            optimizer.step()
        for stack, step in zip(stacks, steps, strict=True):
            stack.n_steps += 1
            step(rates)
    for nets, stack in zip(ways, stacks, strict=True):
        for m, (net, other) in enumerate(zip(alone, nets, strict=True)):
            assert_close(other.state_dict(), net.state_dict(), rtol=1e-10, atol=1e-12)
            for number, state in optimizer_arrays(optimizers[m]).items():
                for name, array in state.items():
                    assert stack.arrays()[m][number][name] == pytest.approx(array, abs=1e-12)
