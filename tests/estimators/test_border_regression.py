"""Borders that a regression finds are those between the regions, without slivers of others."""

import numpy as np
import pytest

from skmoe.datasets import make_manifold_regression
from skmoe.estimators import _border_regression
from skmoe.estimators._border_regression import borders_between, regions_between
from skmoe.region_borders import degree_of


def on_a_torus(n, n_pieces, seed):
    settings = {"manifold": "torus", "n_features": 4, "n_pieces": n_pieces}
    bunch = make_manifold_regression(n, **settings, random_state=seed, return_X_y=False)
    return bunch.data, bunch.regions[:, 0]


def middles_given_away(z, labels, slopes, offsets):
    """Whether the third region has rows nearby, for each such middle of two that meet."""
    nearby = np.linalg.norm(z[:, None] - z, axis=-1).argsort(1)[:, 1:33]
    foreign = labels[nearby[:, :8]] != labels[:, None]
    one = np.flatnonzero(foreign.any(1))
    pairs = np.column_stack([one, nearby[one, foreign[one].argmax(1)]])
    told = (z[pairs].mean(1) @ slopes.T + offsets).argmax(1)
    third = (told[:, None] != labels[pairs]).all(1)
    return (labels[nearby[one]] == told[:, None]).any(1)[third]


@pytest.mark.parametrize("seed", [2, 7, 16, 17])
def test_no_third_region_from_afar_lies_between_two_that_meet(seed):
    z, labels = on_a_torus(1000, 16, seed)
    plain = _border_regression._regression((z, labels, np.ones(1000)), degree=1)
    assert not middles_given_away(z, labels, plain.coef_, plain.intercept_).all()
    slopes, offsets = borders_between(z, labels, np.ones(1000), 16)
    assert middles_given_away(z, labels, slopes, offsets).all()
    assert np.array_equal((z @ slopes.T + offsets).argmax(1), labels)


@pytest.mark.parametrize("seed", [1, 6, 7])
def test_where_three_regions_meet_borders_stay_as_rows_tell_them(seed):
    """A middle of two of them may be the third one's own."""
    z, labels = on_a_torus(5000, 4, seed)
    plain = _border_regression._regression((z, labels, np.ones(5000)), degree=1)
    assert len(middles_given_away(z, labels, plain.coef_, plain.intercept_))
    slopes, offsets = borders_between(z, labels, np.ones(5000), 4)
    np.testing.assert_array_equal(slopes, plain.coef_)
    np.testing.assert_array_equal(offsets, plain.intercept_)


def test_regions_may_lie_far_apart():
    z = np.array([[-0.5, -0.5], [0.6, -0.4], [-0.3, 0.6], [0.5, 0.5]]).repeat(20, 0)
    labels = np.arange(4).repeat(20)
    slopes, offsets = borders_between(z, labels, np.ones(80), 4)
    assert np.array_equal((z @ slopes.T + offsets).argmax(1), labels)


def in_thirds(z):
    """Three regions that meet in a point."""
    return np.digitize(np.arctan2(z[:, 1], z[:, 0] - 0.1), [-1.0, 1.2])


def in_rings(z):
    """A disc, and two halves of what is around it."""
    return np.where((z**2).sum(1) < 0.4, 0, 1 + (z[:, 0] > 0.1))


def in_a_disc(z):
    return 1 - ((z**2).sum(1) < 0.4)


def behind_a_wave(z):
    """Three stripes whose borders turn twice."""
    return np.digitize(z[:, 1] - z[:, 0] ** 3 + z[:, 0] / 2, [-0.3, 0.3])


@pytest.mark.parametrize(
    ("regions", "degree"), [(in_thirds, 1), (in_rings, 2), (in_a_disc, 2), (behind_a_wave, 3)]
)
def test_borders_are_as_curved_as_rows_say(regions, degree):
    random = np.random.RandomState(0)
    z, new = random.uniform(-1, 1, (2, 4000, 2))
    weight = np.where(random.rand(4000) < 0.1, 0.0, 1.0)
    labels = np.where(weight > 0, regions(z), 0)  # rows without weight have no say
    slopes, offsets = borders_between(z, labels, weight, 4, most=3)
    assert degree_of(slopes.shape[1], 2) == degree
    told = regions_between(new, slopes, offsets)
    assert np.mean(told == regions(new)) > 0.99
    if degree > 1:
        straight = borders_between(z, labels, weight, 4)
        assert (
            straight is None or np.mean(regions_between(new, *straight) == regions(new)) < 0.95
        )


def test_products_of_wide_coordinates_are_tried_in_silence():
    """Their regression is too near to singular for Newton steps, and a warning is an error."""
    z = np.random.default_rng(0).uniform(-1, 1, (1000, 4))
    labels = behind_a_wave(z)
    slopes, offsets = borders_between(100 * z, labels, np.ones(1000), 3, most=3)
    assert slopes.shape == (3, 4)
    assert np.mean(regions_between(100 * z, slopes, offsets) == labels) > 0.85
