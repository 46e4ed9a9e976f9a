"""Pieces told by rows alone: found exactly, neither with noise nor where there are none."""

import numpy as np
import pytest

from skmoe.datasets import make_manifold_regression
from skmoe.pieces import find_pieces, grown, merged, share_out, with_islands

N = 3000


@pytest.fixture(scope="module")
def z():
    return np.random.RandomState(0).rand(N, 2) * 2 - 1


def smooth(z):
    return np.stack([np.sin(3 * z[:, 0]) + z[:, 1], np.cos(2 * z[:, 1])], axis=1)


def stripes(z):
    return (z[:, 0] > -0.3).astype(int) + (z[:, 0] > 0.3)


def quarters(z):
    return (z[:, 0] > 0.1) + 2 * (z[:, 1] > -0.2)


def right(found, true):
    """Share of rows in a piece most of whose rows are of the same true one."""
    return sum(np.bincount(true[found == piece]).max() for piece in np.unique(found)) / N


@pytest.mark.parametrize(("true", "n_pieces"), [(quarters, 4), (stripes, 3)])
@pytest.mark.parametrize("n_values", [1, 2])
def test_pieces_are_those_between_jumps(z, true, n_pieces, n_values):
    pieces = true(z)
    values = smooth(z)[:, :n_values] + pieces[:, None]
    found = find_pieces(z, values)
    assert found.max() + 1 == n_pieces
    assert right(found, pieces) > 0.985


def test_pieces_do_not_depend_on_the_order_of_rows_or_on_units(z):
    values = smooth(z)[:, :1] + quarters(z)[:, None]
    order = np.random.RandomState(1).permutation(N)
    found = find_pieces(z, values)
    again = find_pieces(10 * z[order], 5 - 3 * values[order])
    assert right(found[order], again) > 0.995


def test_a_smooth_function_has_no_pieces(z):
    assert find_pieces(z, smooth(z)) is None


def test_noise_hides_pieces(z):
    noise = 0.2 * np.random.RandomState(1).standard_normal((N, 1))
    assert find_pieces(z, quarters(z)[:, None] + noise) is None


@pytest.mark.parametrize("n", [2, 9])
def test_few_rows_have_no_pieces(z, n):
    assert find_pieces(z[:n], quarters(z[:n])[:, None].astype(float)) is None


def test_many_coordinates_are_refused():
    z = np.random.RandomState(0).rand(100, 9)
    assert find_pieces(z, (z[:, :1] > 0.5) * 1.0) is None


def test_a_constant_and_rows_at_one_place_are_no_trouble():
    z = np.zeros((100, 2))
    assert find_pieces(z, np.ones((100, 1))) is None
    assert find_pieces(z, (np.arange(100) % 2)[:, None] * 1.0) is None


def test_pieces_of_a_manifold_are_the_true_ones():
    bunch = make_manifold_regression(
        4000, manifold="torus", n_features=4, n_pieces=4, random_state=7005, return_X_y=False
    )
    found = find_pieces(bunch.data, bunch.target[:, None] / bunch.target.std())
    true = np.ravel(bunch.regions)
    agree = sum(np.bincount(true[found == piece]).max() for piece in np.unique(found)) / 4000
    assert 4 <= found.max() + 1 <= 6
    assert agree > 0.98


def test_rows_join_along_the_way_of_least_misses():
    """Row 2 is nearer to the region on its left, but a row that fits leads to the right."""
    neighbours = np.array([[1], [2], [3], [4], [3]])
    missed = np.array([[0.1], [1.0], [0.2], [0.9], [0.9]])
    labels = np.array([0, -1, -1, -1, 1])
    assert grown(labels, neighbours, missed).tolist() == [0, 0, 1, 1, 1]


def test_rows_that_no_edge_reaches_stay_without_a_region():
    neighbours = np.array([[1], [0], [3], [2], [5], [4]])
    labels = np.array([0, -1, 1, 1, -1, -1])
    grown_labels = grown(labels, neighbours, np.zeros((6, 1)))
    assert grown_labels.tolist() == [0, 0, 1, 1, -1, -1]


def test_what_is_connected_without_a_label_is_a_region():
    neighbours = np.array([[1], [0], [3], [2], [3]])
    cut = np.array([[False], [False], [False], [False], [True]])
    # The last row is one of five, which is enough as well.
    labels = with_islands(np.array([0, -1, -1, -1, -1]), neighbours, cut)
    assert labels.tolist() == [0, -1, 1, 1, 2]


def test_regions_that_hardly_touch_are_not_merged():
    """0 and 2 touch by one edge of many, which is not cut; all others are."""
    neighbours = np.repeat([[1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 2, 2], [1, 1, 1, 1, 1, 1]], 2, 0)
    neighbours *= 2
    cut = np.ones((6, 6), dtype=bool)
    labels = np.repeat([0, 1, 2], 2)
    neighbours[0, 0], cut[0, 0] = 4, False
    assert merged(labels, neighbours, cut).tolist() == labels.tolist()
    cut[:2] = cut[2:4, :4] = False
    assert merged(labels, neighbours, cut).tolist() == [0, 0, 0, 0, 1, 1]


def test_neighbours_have_different_experts_and_all_experts_some_rows(z):
    cells = np.floor((z + 1) * 2).astype(int)
    labels = 4 * cells[:, 0] + cells[:, 1]
    experts = share_out(z, labels, 4)
    assert sorted(np.unique(experts)) == [0, 1, 2, 3]
    of_cell = experts.reshape(4, 4)
    assert (of_cell[1:] != of_cell[:-1]).all()
    assert (of_cell[:, 1:] != of_cell[:, :-1]).all()
    shares = np.bincount(experts[labels]) / N
    assert shares.min() > 0.1
