"""Few axes hold all that rows in a subspace tell, however many features there are."""

import numpy as np
import pytest

from skmoe import MoERegressor
from skmoe.axes import FARTHEST, keep_straight, principal_axes
from skmoe.datasets import make_manifold_regression
from skmoe.scaling import LINEAR_RANGE, Scaling


@pytest.fixture
def random():
    return np.random.default_rng(0)


def in_a_subspace(random, n_rows=200, rank=3, n_features=8):
    return random.normal(size=(n_rows, rank)) @ random.normal(size=(rank, n_features)) + 5.0


def test_axes_hold_all_that_rows_in_a_subspace_tell(random):
    X = in_a_subspace(random)
    axes, offset = principal_axes(X, np.ones(200), 16)
    Z = X @ axes + offset
    assert Z.shape == (200, 3)
    assert np.abs(Z.mean(axis=0)).max() < 1e-12
    assert Z.var(axis=0).mean() == pytest.approx(1.0)
    centred = X - X.mean(axis=0)
    back, *_ = np.linalg.lstsq(Z, centred, rcond=None)
    assert np.abs(Z @ back - centred).max() < 1e-9


def test_axes_keep_distances_up_to_one_factor(random):
    X = in_a_subspace(random)
    axes, offset = principal_axes(X, np.ones(200), 16)
    Z = X @ axes + offset
    ratio = np.linalg.norm(Z[1:] - Z[0], axis=1) / np.linalg.norm(X[1:] - X[0], axis=1)
    assert ratio == pytest.approx(ratio[0])


def test_axes_are_found_behind_the_rounding_of_float32(random):
    X = in_a_subspace(random).astype(np.float32).astype(np.float64)
    assert principal_axes(X, np.ones(200), 16)[0].shape == (8, 3)


def test_axes_count_a_row_of_weight_two_as_two_rows(random):
    X, repeats = in_a_subspace(random), random.integers(0, 4, 200)
    axes, offset = principal_axes(X, repeats.astype(float), 16)
    again, offset_again = principal_axes(
        np.repeat(X, repeats, axis=0), np.ones(repeats.sum()), 16
    )
    signs = np.sign((axes * again).sum(axis=0))
    assert axes == pytest.approx(again * signs)
    assert offset == pytest.approx(offset_again * signs)


def test_features_stay_where_no_few_axes_hold_all(random):
    ones = np.ones(200)
    assert principal_axes(in_a_subspace(random, rank=5), ones, 16) is None  # more than half
    assert principal_axes(random.normal(size=(200, 8)), ones, 16) is None
    assert principal_axes(np.full((200, 8), 3.0), ones, 16) is None
    assert principal_axes(in_a_subspace(random), ones, 2) is None
    few = np.repeat(random.normal(size=(4, 8)), 50, axis=0)
    assert principal_axes(few, ones, 16) is None  # four rows span three axes, whatever they are


def reaching(random, farthest, n_rows=400):
    """Rows in a subspace, the first of them so many scaled units off where it is farthest."""
    X = random.uniform(-1, 1, (n_rows, 3)) @ random.normal(size=(3, 8))
    units = np.abs(Scaling.of_features(X, np.ones(n_rows)).apply(X[:1]))
    X[0] *= farthest / units.max()
    return X


def test_rows_in_a_subspace_are_not_bent_out_of_it(random):
    X, ones = reaching(random, 2 * LINEAR_RANGE), np.ones(400)
    scaling = Scaling.of_features(X, ones)
    assert principal_axes(scaling.apply_softly(X), ones, 16)[0].shape == (8, 4)
    wide = keep_straight(scaling, X, ones, 16)
    assert principal_axes(wide.apply_softly(X), ones, 16)[0].shape == (8, 3)
    assert np.abs(wide.apply(X)).max() == pytest.approx(LINEAR_RANGE)
    near = np.abs(scaling.apply(X)).max(axis=0) <= LINEAR_RANGE
    assert (wide.scale == scaling.scale)[near].all()


def test_scales_count_a_row_of_weight_two_as_two_rows(random):
    X, repeats = reaching(random, 2 * LINEAR_RANGE), random.integers(0, 4, 400)
    repeated = np.repeat(X, repeats, axis=0)
    scaling = Scaling.of_features(X, repeats.astype(float))
    wide = keep_straight(scaling, X, repeats.astype(float), 16)
    again = keep_straight(scaling, repeated, np.ones(len(repeated)), 16)
    assert np.array_equal(wide.scale, again.scale)


@pytest.mark.parametrize("farthest", [0.5 * LINEAR_RANGE, 1.2 * FARTHEST])
def test_scales_stay_if_no_row_is_far_off_or_one_is_an_outlier(farthest, random):
    X, ones = reaching(random, farthest), np.ones(400)
    scaling = Scaling.of_features(X, ones)
    assert keep_straight(scaling, X, ones, 16) is scaling


def test_scales_stay_where_no_few_axes_hold_all(random):
    X, ones = random.standard_t(5, size=(400, 8)), np.ones(400)
    scaling = Scaling.of_features(X, ones)
    assert LINEAR_RANGE < np.abs(scaling.apply(X)).max() <= FARTHEST
    assert keep_straight(scaling, X, ones, 16) is scaling


def test_rows_scaled_block_by_block_have_the_axes_of_scaled_rows(random):
    X, ones = in_a_subspace(random, n_rows=25_000), np.ones(25_000)
    X[:, 2] = 7.0  # constant: the network does not see it
    scaling = Scaling.of_features(X, ones)
    axes, offset = principal_axes(scaling.apply_softly(X), ones, 16)
    again, offset_again = principal_axes(X, ones, 16, scaling)
    signs = np.sign((axes * again).sum(axis=0))
    assert axes == pytest.approx(again * signs)
    assert offset == pytest.approx(offset_again * signs)


def test_a_mixture_sees_as_many_axes_however_many_features_a_surface_has():
    # Of 500 features of this surface some have rows that are far off in scaled units.
    X, y = make_manifold_regression(
        2000, manifold="surface", n_features=500, random_state=7000, task_random_state=7000
    )
    scaled = Scaling.of_features(X, np.ones(2000)).apply(X)
    assert np.abs(scaled).max() > LINEAR_RANGE
    est = MoERegressor(solver="ridge", random_state=0).fit(X, y)
    assert est.net_.axes.weight.shape == (3, 500)
