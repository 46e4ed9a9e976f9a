"""Pieces told by rows alone: found exactly, neither with noise nor where there are none."""

import numpy as np
import pytest

from skmoe.datasets import make_manifold_regression
from skmoe.pieces import find_pieces

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


def test_a_small_piece_is_one_although_most_of_its_rows_are_beside_its_border():
    z = np.random.RandomState(0).rand(10_000, 2)
    small = np.abs(z - 0.5).max(1) < 0.06  # 1.4 % of the rows
    found = find_pieces(z, np.sin(5 * z[:, :1]) + small[:, None])
    assert found.max() == 1
    assert (found == small).mean() > 0.998


def test_where_rows_are_dense_steep_waves_are_no_pieces():
    z = np.random.RandomState(0).rand(10_000, 2)
    left = z[:, 0] < 0.5
    waves = 0.2 * np.sin(25 * (z[:, 0] ** 2 + (z[:, 1] - 0.2) ** 2)) * left
    found = find_pieces(z, (waves - left)[:, None])
    assert found.max() == 1
    assert (found == left).mean() > 0.998


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
