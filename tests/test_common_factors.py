"""Few coordinates behind features that each have a noise of their own."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from skmoe import MoERegressor
from skmoe.axes import principal_axes
from skmoe.common_factors import STANDING_OUT, common_factors, few_axes
from skmoe.datasets import make_manifold_regression

N_ROWS, N_FEATURES, RANK = 2000, 16, 3


@pytest.fixture
def random():
    return np.random.default_rng(0)


class Noisy:
    """Features that tell of three coordinates, some with ten times the noise of others."""

    def __init__(self, random, noise=0.1):
        self.Z = random.uniform(-1, 1, (N_ROWS, RANK))
        self.told = self.Z @ random.normal(size=(RANK, N_FEATURES))
        self.noise = random.normal(size=self.told.shape) * np.geomspace(0.1, 1, N_FEATURES)
        self.X = self.told + noise * self.noise + 5.0
        self.y = np.sin(3 * self.Z[:, :1]) * self.Z[:, 1:2]
        self.weight = np.ones(N_ROWS)

    def factors(self, **changed):
        given = {"X": self.X, "y": self.y, "weight": self.weight, "most": 16} | changed
        return common_factors(**given)


def left_of(Z, U):
    """What no linear map of U tells of Z, root mean square."""
    U = np.column_stack([U, np.ones(len(U))])
    return np.sqrt(np.square(Z - U @ np.linalg.lstsq(U, Z, rcond=None)[0]).mean())


def test_coordinates_are_told_as_well_as_by_the_best_linear_map(random):
    data = Noisy(random)
    axes, offset = data.factors()
    U = data.X @ axes + offset
    assert U.shape == (N_ROWS, RANK)
    assert np.abs(U.mean(0)).max() < 1e-12
    assert U.var(0).mean() == pytest.approx(1.0)
    assert left_of(data.Z, U) < 1.02 * left_of(data.Z, data.X)
    _, _, principal = np.linalg.svd(data.X - data.X.mean(0), full_matrices=False)
    assert left_of(data.Z, U) < 0.6 * left_of(data.Z, data.X @ principal[:RANK].T)


def test_units_of_features_do_not_matter(random):
    data = Noisy(random)
    units = np.geomspace(0.5, 2, N_FEATURES)
    U, V = data.X @ data.factors()[0], (data.X * units) @ data.factors(X=data.X * units)[0]
    assert left_of(U, V) < 0.01 * left_of(data.Z, U)


def test_distances_are_those_without_noise(random):
    data = Noisy(random, noise=0.01)
    axes, offset = data.factors()
    ratio = pdist((data.X @ axes + offset)[:200]) / pdist(data.told[:200])
    assert ratio.std() < 0.01 * ratio.mean()


def test_with_hardly_any_noise_they_are_the_principal_axes(random):
    data = Noisy(random, noise=1e-4)
    U = data.X @ data.factors()[0]
    V = data.told @ principal_axes(data.told, data.weight, 16)[0]
    signs = np.sign((U * V).sum(0))
    np.testing.assert_allclose(U - U.mean(0), signs * (V - V.mean(0)), atol=1e-3)


def test_what_noise_tells_of_y_is_no_noise(random):
    data = Noisy(random)
    told = data.y + 0.3 * data.noise[:, -1:]
    assert data.factors(y=told) is None
    assert data.factors(y=np.hstack([data.y, told])) is None


def test_what_features_have_in_common_besides_is_no_noise(random):
    data = Noisy(random)
    weak = random.normal(size=(N_ROWS, 5)) @ random.normal(size=(5, N_FEATURES))
    assert data.factors(X=data.X + 0.05 * weak) is None


def test_a_weak_factor_behind_strong_ones_is_one(random):
    data = Noisy(random)
    weak = random.uniform(-1, 1, (N_ROWS, 1)) @ random.normal(size=(1, N_FEATURES))
    variances = np.linalg.eigvalsh(np.cov((data.X + 0.1 * weak).T))[::-1]
    assert variances[RANK] < STANDING_OUT * variances[RANK + 1]  # not by itself
    axes, _ = data.factors(X=data.X + 0.1 * weak)
    assert axes.shape == (N_FEATURES, RANK + 1)


def test_features_stay_where_nothing_stands_out(random):
    data = Noisy(random)
    assert data.factors(X=random.normal(size=data.X.shape)) is None
    assert data.factors(most=2) is None
    assert data.factors(X=data.X[:, : 4 * RANK - 1]) is None
    assert data.factors(X=data.told) is None  # without noise
    few = slice(500)
    assert common_factors(data.X[few], data.y[few], data.weight[few], 16) is None


def test_rows_count_by_their_weight(random):
    data = Noisy(random)
    weight = np.repeat([1.0, 2.0, 0.0, 1.0], N_ROWS // 4)
    axes, offset = data.factors(weight=weight)
    repeats = weight.astype(int)
    again, offset_again = common_factors(
        np.repeat(data.X, repeats, axis=0),
        np.repeat(data.y, repeats, axis=0),
        np.ones(repeats.sum()),
        16,
    )
    signs = np.sign((axes * again).sum(0))
    np.testing.assert_allclose(axes, again * signs, atol=1e-8)
    np.testing.assert_allclose(offset, offset_again * signs, atol=1e-8)


def test_few_axes_are_exact_ones_if_there_are_any(random):
    data = Noisy(random)
    exact = few_axes(data.told, data.y, data.weight, 16)
    np.testing.assert_array_equal(exact[0], principal_axes(data.told, data.weight, 16)[0])
    noisy = few_axes(data.X, data.y, data.weight, 16)
    np.testing.assert_array_equal(noisy[0], data.factors()[0])


def on_a_torus(noise):
    rows = {"n_samples": 3000, "manifold": "torus", "n_features": 20, "target": "smooth"}
    X, y = make_manifold_regression(
        **rows, off_manifold_noise=noise, random_state=7000, task_random_state=7000
    )
    return X[:2000], y[:2000], X[2000:], y[2000:]


def test_a_mixture_sees_the_factors_behind_noise():
    X, y, X_test, y_test = on_a_torus(0.01)
    moe = MoERegressor(solver="ridge", random_state=0)
    noisy = moe.fit(X, y).score(X_test, y_test)
    assert moe.net_.axes.weight.shape == (4, 20)
    all_features = moe.set_params(embedding=None).fit(X, y).score(X_test, y_test)
    assert moe.net_.axes is None
    assert 1 - noisy < 0.5 * (1 - all_features)
