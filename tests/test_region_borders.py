"""Scores of regions, and how curved their borders are."""

import numpy as np
import pytest

from skmoe.region_borders import (
    CURVED,
    LEAST_WRONG,
    MAX_DEGREE,
    MAX_UNKNOWNS,
    degree_of,
    least_curved,
    most_curved,
    polynomials,
    straight_borders,
)


@pytest.fixture
def square():
    return np.random.RandomState(0).uniform(-1, 1, (4000, 2))


def test_straight_borders_are_those_of_the_regions(square):
    truth = np.digitize(np.arctan2(square[:, 1], square[:, 0] - 0.1), [-1.0, 1.2])
    slopes, offsets = straight_borders(square, truth)
    region = (square @ slopes.T + offsets).argmax(axis=1)
    assert np.mean(region == truth) > 0.99


def test_straight_borders_between_two_regions_are_the_border(square):
    truth = (square @ [1.0, 2.0] > 0.3).astype(int)
    slopes, offsets = straight_borders(square, truth)
    difference = slopes[1] - slopes[0]
    np.testing.assert_allclose(np.linalg.norm(difference), 1 / square.std(), rtol=0.05)
    np.testing.assert_allclose(difference[1] / difference[0], 2.0, rtol=0.02)
    np.testing.assert_allclose((offsets[0] - offsets[1]) / difference[0], 0.3, atol=0.01)


@pytest.mark.parametrize(
    ("wrong", "degree"),
    [
        ((0.1, 0.04, 0.03), 2),
        ((0.1, 0.06, 0.04), 3),
        ((0.1, 0.06, 0.055), 1),
        ((0.1, 0.04, 0.01), 3),
        ((LEAST_WRONG, 0.0, 0.0), 1),
        ((0.1, LEAST_WRONG, 0.0), 2),
    ],
)
def test_borders_are_no_more_curved_than_pays(wrong, degree):
    assert CURVED == 0.5
    asked = []

    def fit(degree):
        asked.append(degree)
        return wrong[degree - 1]

    assert least_curved(fit, lambda share, _: share, 3) == (wrong[degree - 1], degree)
    assert least_curved(fit, lambda share, _: share, 1) == (wrong[0], 1)
    assert asked[0] == 1
    assert len(asked) == (2 if wrong[0] == LEAST_WRONG else 3 if wrong[1] == LEAST_WRONG else 4)


@pytest.mark.parametrize(("n_coordinates", "n_regions"), [(2, 4), (4, 4), (4, 16), (8, 30)])
def test_degrees_have_so_many_coefficients_at_most(n_coordinates, n_regions):
    def n_products(degree):
        return polynomials(np.zeros((1, n_coordinates)), degree).shape[1]

    most = most_curved(n_coordinates, n_regions)
    assert most == 1 or n_regions * (n_products(most) + 1) <= MAX_UNKNOWNS
    assert most == MAX_DEGREE or n_regions * (n_products(most + 1) + 1) > MAX_UNKNOWNS
    for degree in range(1, MAX_DEGREE + 1):
        assert degree_of(n_products(degree), n_coordinates) == degree
