"""Scores of regions: straight borders where rows do not tell that they are curved."""

import numpy as np
import pytest

from skmoe.region_borders import (
    MAX_UNKNOWNS,
    most_curved,
    polynomials,
    straight_or_curved,
)
from skmoe.regions import NOWHERE


@pytest.fixture
def square():
    return np.random.RandomState(0).uniform(-1, 1, (4000, 2))


def in_thirds(z):
    """Three regions that meet in a point."""
    return np.digitize(np.arctan2(z[:, 1], z[:, 0] - 0.1), [-1.0, 1.2])


def in_rings(z):
    """A disc, and two halves of what is around it."""
    return np.where((z**2).sum(1) < 0.4, 0, 1 + (z[:, 0] > 0.1))


def behind_a_wave(z):
    """Three stripes whose borders turn twice."""
    return np.digitize(z[:, 1] - z[:, 0] ** 3 + z[:, 0] / 2, [-0.3, 0.3])


@pytest.mark.parametrize(
    ("regions", "degree"), [(in_thirds, 1), (in_rings, 2), (behind_a_wave, 3)]
)
def test_borders_are_those_of_the_regions(square, regions, degree):
    truth = regions(square)
    slopes, offsets = straight_or_curved(square, truth, most=3)
    products = polynomials(square, degree)
    assert slopes.shape == (3, products.shape[1])
    assert np.mean((products @ slopes.T + offsets).argmax(1) == truth) > 0.99
    slopes, offsets = straight_or_curved(square, truth)
    right = np.mean((square @ slopes.T + offsets).argmax(1) == truth)
    assert (right > 0.99) == (degree == 1)


def test_between_two_regions_they_are_the_border(square):
    truth = (square @ [1.0, 2.0] > 0.3).astype(int)
    slopes, offsets = straight_or_curved(square, truth)
    difference = slopes[1] - slopes[0]
    np.testing.assert_allclose(np.linalg.norm(difference), 1 / square.std(), rtol=0.05)
    np.testing.assert_allclose(difference[1] / difference[0], 2.0, rtol=0.02)
    np.testing.assert_allclose((offsets[0] - offsets[1]) / difference[0], 0.3, atol=0.01)


def test_rows_in_wrong_regions_make_no_border_curved(square):
    random = np.random.RandomState(0)
    labels = np.where(random.rand(len(square)) < 0.02, 2, in_thirds(square))
    assert straight_or_curved(square, labels, most=3)[0].shape == (3, 2)


def test_rows_of_no_region_do_not_count(square):
    told = np.random.RandomState(0).rand(len(square)) < 0.8
    truth = in_rings(square)
    slopes, offsets = straight_or_curved(square, np.where(told, truth, NOWHERE), most=2)
    known, known_offsets = straight_or_curved(square[told], truth[told], most=2)
    assert slopes.shape == known.shape == (3, 5)
    scale = np.sqrt(square.var(0).mean() / square[told].var(0).mean())
    np.testing.assert_allclose(slopes * scale, known)
    np.testing.assert_allclose(offsets * scale, known_offsets)


@pytest.mark.parametrize(("n_coordinates", "n_regions"), [(2, 4), (4, 4), (4, 16), (8, 30)])
def test_degrees_have_so_many_coefficients_at_most(n_coordinates, n_regions):
    def n_coefficients(degree):
        return n_regions * (polynomials(np.zeros((1, n_coordinates)), degree).shape[1] + 1)

    most = most_curved(n_coordinates, n_regions)
    assert most == 1 or n_coefficients(most) <= MAX_UNKNOWNS
    assert most == 3 or n_coefficients(most + 1) > MAX_UNKNOWNS
