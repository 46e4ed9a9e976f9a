"""Regions between the jumps of a function, their borders, and how experts share them out."""

import numpy as np
import pytest

from skmoe.regions import (
    NOWHERE,
    find_regions,
    largest_regions,
    share_out,
    soft_cells,
)


@pytest.fixture
def square():
    return np.random.RandomState(0).uniform(-1, 1, (4000, 2))


def waves(z):
    """A smooth function of two coordinates and its gradient."""
    value = np.sin(3 * z[:, 0] + z[:, 1])
    slope = np.cos(3 * z[:, 0] + z[:, 1])[:, None] * [3.0, 1.0]
    return value[:, None], slope[:, None]


def purity(labels, truth):
    """Share of rows with a region that are in the true region most frequent there."""
    known = labels != NOWHERE
    counts = np.zeros((labels.max() + 1, truth.max() + 1))
    np.add.at(counts, (labels[known], truth[known]), 1)
    return counts.max(axis=1).sum() / known.sum()


def thirds(z):
    """Three regions that meet in a point."""
    angle = np.arctan2(z[:, 1], z[:, 0] - 0.1)
    return np.digitize(angle, [-1.0, 1.2])


def test_regions_are_those_between_jumps(square):
    value, slope = waves(square)
    truth = thirds(square)
    labels = find_regions(square, value + truth[:, None], slope)
    assert labels.max() == 2
    assert purity(labels, truth) == 1.0
    assert np.mean(labels == NOWHERE) < 0.2
    sizes = np.bincount(labels[labels != NOWHERE])
    assert (np.diff(sizes) <= 0).all()


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_regions_of_many_rows_are_not_given_up(most):
    labels = np.repeat([0, 1, 2, 3, NOWHERE], [40, 30, 18, 11, 1])
    assert np.array_equal(largest_regions(labels, most), labels)


def test_small_regions_are_given_up_if_there_are_too_many():
    labels = np.repeat([0, 1, 2, 3, NOWHERE], [40, 30, 21, 5, 4])
    fewer = largest_regions(labels, 3)
    assert np.array_equal(fewer[:91], labels[:91])
    assert (fewer[91:] == NOWHERE).all()


def test_regions_do_not_leak_where_a_jump_passes_through_zero(square):
    """Here the jump at ``z_0 = 0`` has the height ``z_1``."""
    value, slope = waves(square)
    right = square[:, :1] > 0
    value = value + right * square[:, 1:]
    slope = slope + right[:, :, None] * [0.0, 1.0]
    labels = find_regions(square, value, slope)
    assert purity(labels, right[:, 0].astype(int)) > 0.98


def test_a_smooth_function_has_no_regions(square):
    assert find_regions(square, *waves(square)) is None


def test_noise_has_no_regions(square):
    value, slope = waves(square)
    noise = np.random.RandomState(1).standard_normal(value.shape)
    assert find_regions(square, noise, slope) is None


def test_regions_do_not_depend_on_the_order_of_rows(square):
    value, slope = waves(square)
    value = value + thirds(square)[:, None]
    order = np.random.RandomState(1).permutation(len(square))
    labels = find_regions(square, value, slope)
    shuffled = find_regions(square[order], value[order], slope[order])
    np.testing.assert_array_equal(shuffled, labels[order])


def test_regions_do_not_depend_on_units(square):
    value, slope = waves(square)
    value = value + thirds(square)[:, None]
    labels = find_regions(square, value, slope)
    scaled = find_regions(100 * square, 7 * value, 0.07 * slope)
    np.testing.assert_array_equal(scaled, labels)


def test_larger_regions_get_more_experts(square):
    truth = (square[:, 0] > 0.5).astype(int)  # a quarter of the rows
    region_ids, _, _ = soft_cells(square, truth, 8, seed=0)
    assert np.bincount(region_ids).tolist() == [6, 2]


def test_soft_cells_are_normal_distributions_as_wide_as_cells(square):
    """Two cells of a square of side 2 have centres one apart, and the share of one is 1/2 in
    the middle; there it changes by the distance over four times the variance of a cell."""
    (_, slopes, offsets) = soft_cells(square, np.zeros(len(square), dtype=int), 2, seed=0)
    scores = square @ slopes.T + offsets
    share = 1 / (1 + np.exp(scores[:, 0] - scores[:, 1]))
    assert 0.4 < share.mean() < 0.6
    distance = np.linalg.norm(slopes[1] - slopes[0])
    variance = (1 / 12 * 4 + 1 / 12) / 2  # mean over the two axes of a cell of 2 x 1
    assert distance == pytest.approx(1 / variance, rel=0.1)


def test_cells_of_rows_that_are_all_the_same_have_finite_scores():
    """One cell for each of two points: nothing spreads around a centre."""
    rows = np.repeat([[0.0, 0.0], [1.0, 0.0]], 10, axis=0)
    _, slopes, offsets = soft_cells(rows, np.zeros(20, dtype=int), 2, seed=0)
    assert np.isfinite(slopes).all()
    assert sorted((rows @ slopes.T + offsets).argmax(axis=1)) == [0] * 10 + [1] * 10


def test_neighbours_have_different_experts_and_all_experts_some_rows(square):
    cells = np.floor((square + 1) * 2).astype(int)
    labels = 4 * cells[:, 0] + cells[:, 1]
    experts = share_out(square, labels, 4)
    assert sorted(np.unique(experts)) == [0, 1, 2, 3]
    of_cell = experts.reshape(4, 4)
    assert (of_cell[1:] != of_cell[:-1]).all()
    assert (of_cell[:, 1:] != of_cell[:, :-1]).all()
    shares = np.bincount(experts[labels]) / len(square)
    assert shares.min() > 0.1
