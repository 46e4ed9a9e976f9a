"""Starting points depend on the weighted distribution only."""

import numpy as np
import pytest

from skmoe.initialization import MIN_BIN_WIDTH, quantile_bins


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
