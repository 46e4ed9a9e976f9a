"""Starting points depend on the weighted distribution only."""

import numpy as np
import pytest
import torch

from skmoe.batches import Rows
from skmoe.initialization import MIN_BIN_WIDTH, kmeans, quantile_bins
from skmoe.nn.networks import MoENetwork


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize("n_bins", [1, 2, 24])
def test_bins_count_a_row_of_weight_two_as_two_rows(n_bins, random):
    X = np.c_[random.normal(size=150), random.gamma(1.0, size=150), random.integers(0, 9, 150)]
    repeats = random.integers(0, 5, 150)
    repeated = X[random.permutation(np.repeat(np.arange(150), repeats))]
    assert quantile_bins(X, repeats.astype(float), n_bins) == quantile_bins(
        repeated, np.ones(len(repeated)), n_bins
    )


def test_bins_hold_equal_shares_of_the_rows(random):
    X = random.gamma(1.0, size=(2400, 1))
    (edges,) = quantile_bins(X, np.ones(2400), 24)
    assert len(edges) == 25
    counts, _ = np.histogram(X, edges)
    assert abs(counts - 100).max() <= 1


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0])
def test_edges_increase_by_more_than_the_smallest_width(scale, random):
    X = scale * np.c_[random.normal(size=500), random.integers(0, 3, 500)]
    for edges in quantile_bins(X, np.ones(500), 24):
        assert len(edges) >= 1
        assert (np.diff(edges) > MIN_BIN_WIDTH).all()


def test_first_edge_is_the_smallest_value_and_all_edges_occur(random):
    X = random.normal(size=(500, 2))
    for column, edges in zip(X.T, quantile_bins(X, np.ones(500), 10), strict=True):
        assert edges[0] == column.min()
        assert edges[-1] == column.max()
        assert set(edges) <= set(column)


def test_constant_column_has_one_edge_and_so_no_bin():
    X = np.c_[np.full(50, 3.5), np.arange(50.0)]
    constant, other = quantile_bins(X, np.ones(50), 24)
    assert constant == [3.5]
    assert len(other) == 25


def test_a_column_of_few_values_has_them_as_edges(random):
    X = random.integers(0, 4, (500, 1)).astype(float)
    assert quantile_bins(X, np.ones(500), 24) == [[0.0, 1.0, 2.0, 3.0]]


def test_edges_are_plain_numbers_that_travel_in_a_saved_model(random):
    for edges in quantile_bins(random.normal(size=(50, 2)), np.ones(50), 5):
        assert all(type(edge) is float for edge in edges)


def small_network(gate="linear", n_inputs=3, **layer):
    generator = torch.Generator().manual_seed(0)
    settings = {"n_experts": 5, "hidden_dim": 4, "gate": gate, "generator": generator, **layer}
    return MoENetwork(n_inputs, 1, **settings).double().eval()


def some_rows(random, n=200, weight=None):
    x = torch.from_numpy(random.normal(size=(n, 3)))
    weight = torch.ones(n) if weight is None else torch.from_numpy(weight)
    return Rows(x, x[:, :1], weight.double())


@pytest.mark.parametrize("gate", ["linear", "prototype"])
def test_regions_of_a_kmeans_start_are_voronoi_cells(gate, random):
    network, rows = small_network(gate), some_rows(random)
    kmeans(network, rows, seed=0)
    centers = small_network("prototype")
    kmeans(centers, rows, seed=0)
    nearest = torch.cdist(rows.x, centers.layer.gate.centers[0]).argmin(1)
    _, (step,) = network(rows.x)
    assert torch.equal(step.routing.logits_BTE[0].argmax(1), nearest)
    assert len(nearest.unique()) == 5


@pytest.mark.parametrize("layer", [{}, {"n_shared_experts": 2}, {"expert": "latent"}])
def test_a_kmeans_start_counts_a_row_of_weight_two_as_two_rows(layer, random):
    counts = random.integers(0, 4, 200)
    rows = some_rows(random, weight=counts.astype(float))
    kept = Rows(*(values[rows.weight > 0] for values in (rows.x, rows.y, rows.weight)))
    order = random.permutation(np.repeat(np.arange(200), counts))
    repeated = Rows(rows.x[order], rows.y[order], torch.ones(len(order)).double())
    one, other = small_network(**layer), small_network(**layer)
    kmeans(one, kept, seed=3)
    kmeans(other, repeated, seed=3)
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(weight, other.state_dict()[name], rtol=1e-9, atol=1e-9)


def test_a_kmeans_start_follows_its_seed(random):
    rows, networks = some_rows(random), [small_network() for _ in range(3)]
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        kmeans(network, rows, seed)
    weights = [network.layer.experts.hidden.weight for network in networks]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_gates_without_such_a_start_keep_their_random_one(random):
    network, fresh = small_network("mlp"), small_network("mlp")
    kmeans(network, some_rows(random), seed=0)
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, fresh.state_dict()[name])


@pytest.mark.parametrize("n", [1, 3, 5, 6])
def test_a_kmeans_start_from_few_rows_is_finite(n, random):
    network = small_network()
    kmeans(network, some_rows(random, n), seed=0)
    assert all(weight.isfinite().all() for weight in network.parameters())
