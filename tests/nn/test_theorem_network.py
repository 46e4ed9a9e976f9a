"""The network of the theorem is its piecewise affine target, exactly."""

import numpy as np
import pytest
import torch

from skmoe.nn.networks import theorem_network


def piecewise_affine(x, slopes, offsets):
    """f_l(x_l) = offsets[l, i] + slopes[l, i] (x_l - i) for x_l in [i, i + 1]."""
    piece = np.minimum(np.floor(x).astype(int), slopes.shape[1] - 1)
    columns = np.arange(x.shape[1])
    return offsets[columns, piece] + slopes[columns, piece] * (x - piece), piece


def default_pieces(n_blocks, n_regions):
    layer, region = np.indices((n_blocks, n_regions))
    return (-1.0) ** region * (layer + region + 1), region.astype(float)


def paths(steps):
    return torch.cat([step.routing.expert_ids_BTK[0] for step in steps], -1).numpy()


SIZES = [(3, 4), (1, 5), (2, 3), (4, 2), (2, 1)]


@pytest.mark.parametrize(("n_blocks", "n_regions"), SIZES)
def test_theorem_network_is_its_piecewise_affine_target(n_blocks, n_regions):
    x = np.random.default_rng(0).uniform(0, n_regions, (20_000, n_blocks))
    y, _ = theorem_network(n_blocks, n_regions)(torch.from_numpy(x))
    target, _ = piecewise_affine(x, *default_pieces(n_blocks, n_regions))
    assert np.abs(y.numpy() - target).max() < 1e-6


@pytest.mark.parametrize(("n_blocks", "n_regions"), [(3, 4), (1, 5), (2, 3), (4, 2)])
def test_theorem_network_routes_each_coordinate_by_its_interval(n_blocks, n_regions):
    x = np.random.default_rng(0).uniform(0, n_regions, (20_000, n_blocks))
    taken = paths(theorem_network(n_blocks, n_regions)(torch.from_numpy(x))[1])
    assert np.array_equal(taken, np.floor(x))
    assert len(np.unique(taken, axis=0)) == n_regions**n_blocks


def test_three_layers_of_four_experts_have_64_paths():
    x = 4 * torch.rand(5000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, steps = theorem_network(3, 4)(x)
    assert len(steps) == 3
    assert len(np.unique(paths(steps), axis=0)) == 64


def test_theorem_network_takes_pieces_of_ones_own():
    random = np.random.default_rng(1)
    slopes, offsets = random.normal(size=(2, 3, 4))
    x = random.uniform(0, 4, (5000, 3))
    network = theorem_network(
        3, 4, slopes=torch.from_numpy(slopes), offsets=torch.from_numpy(offsets)
    )
    target, _ = piecewise_affine(x, slopes, offsets)
    assert np.abs(network(torch.from_numpy(x))[0].numpy() - target).max() < 1e-6


def test_theorem_network_weighs_the_chosen_expert_with_exactly_one():
    x = torch.linspace(0.1, 2.9, 50, dtype=torch.float64)[:, None].expand(-1, 2)
    _, steps = theorem_network(2, 3)(x)
    assert all((step.routing.weights_BTK == 1).all() for step in steps)


def test_theorem_network_is_ready_to_predict():
    network = theorem_network(2, 3)
    assert not network.training
    assert {weight.dtype for weight in network.parameters()} == {torch.float64}
    assert not any(weight.requires_grad for weight in network.parameters())


def test_top_k_one_with_switch_weights_would_not_be_the_theorem():
    # The paper's form is needed: the default weight is a probability below one.
    network, x = theorem_network(2, 3), torch.full((1, 2), 0.5, dtype=torch.float64)
    paper = network(x)[0]
    for layer in network.moe_layers():
        layer.router = type(layer.router)(1)
    assert (network(x)[0] - paper).abs().min() > 0.01
