"""The ensemble: its members one by one, and their mean."""

import pytest
import torch
from torch.testing import assert_close

from skmoe.nn.ensemble import EnsembleMoENetwork

D, OUT, L = 4, 2, 3


def build(generator, n_layers=L):
    network = EnsembleMoENetwork(
        D,
        OUT,
        n_layers=n_layers,
        model_dim=6,
        n_experts=3,
        hidden_dim=5,
        expert="latent",
        embedding="piecewise_linear",
        generator=generator,
    ).double()
    with torch.no_grad():
        for weight in network.parameters():  # those that start at zero included
            weight += 0.3 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return network


def test_prediction_is_the_mean_of_the_answers(randn, generator):
    network, x_TD = build(generator), randn(7, D)
    answers_MTO, _ = network.answers(x_TD)
    assert answers_MTO.shape == (L, 7, OUT)
    assert_close(network(x_TD)[0], answers_MTO.mean(0))


@pytest.mark.parametrize("member", range(L))
def test_a_member_answers_as_it_would_alone(member, randn, generator):
    network, alone, x_TD = build(generator), build(generator, n_layers=1), randn(7, D)
    # Maps are stacked on the first axis, one or some for each member.
    weights = {
        name: tensor if name.startswith("embedding") else tensor.chunk(L)[member]
        for name, tensor in network.state_dict().items()
    }
    alone.load_state_dict(weights)
    assert_close(alone(x_TD)[0], network.answers(x_TD)[0][member], rtol=1e-12, atol=1e-12)


def test_a_members_weights_get_no_gradient_from_the_others(randn, generator):
    network = build(generator)
    answers_MTO, _ = network.answers(randn(7, D))
    answers_MTO[1].square().sum().backward()
    for weight in network.parameters():
        first, second, third = weight.grad.chunk(L)
        assert first.abs().sum() == third.abs().sum() == 0 < second.abs().sum()
