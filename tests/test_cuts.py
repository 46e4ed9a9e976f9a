"""Steps on a graph of neighbours, each on a graph that can be looked through."""

import numpy as np

from skmoe.cuts import grown, merged, with_islands


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
    labels = with_islands(np.array([0, -1, -1, -1, -1]), neighbours, cut, smallest=1)
    assert labels.tolist() == [0, -1, 1, 1, 2]
    labels = with_islands(np.array([0, -1, -1, -1, -1]), neighbours, cut, smallest=2)
    assert labels.tolist() == [0, -1, 1, 1, -1]


def test_a_border_of_which_a_part_is_told_is_given_up_only_if_there_are_too_many_regions():
    # Regions 0, 1, 2 in a row; a fifth of the edges between 0 and 1 is cut, half of those
    # between 1 and 2.
    labels = np.repeat([0, 1, 2], 10)
    neighbours = np.r_[np.arange(10, 20), np.arange(20, 30), np.arange(10, 20)][:, None]
    cut = np.zeros((30, 1), dtype=bool)
    cut[[0, 1, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24]] = True
    assert merged(labels, neighbours, cut, most=3).tolist() == labels.tolist()
    assert merged(labels, neighbours, cut, most=2).tolist() == [0] * 20 + [1] * 10


def test_small_regions_need_clear_borders_where_that_is_asked():
    """Half of the edges between two are cut; the second is small in the first case."""
    for n_small, n_regions in ((2, 1), (50, 2)):
        labels = np.repeat([0, 1], [100 - n_small, n_small])
        neighbours = np.r_[np.full(100 - n_small, 99), np.zeros(n_small, dtype=int)][:, None]
        cut = (np.arange(100) % 2 == 0)[:, None]
        assert merged(labels, neighbours, cut).max() == 1
        assert merged(labels, neighbours, cut, clear=True).max() + 1 == n_regions


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
