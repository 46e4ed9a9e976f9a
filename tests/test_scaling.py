"""Scaling: statistics of the weighted distribution, and maps that keep order and linearity."""

import numpy as np
import pytest

from skmoe.scaling import LINEAR_RANGE, NORMAL_IQR, Scaling, weighted_quantiles

STATISTICS = [Scaling.of_features, Scaling.of_targets]
every_statistic = pytest.mark.parametrize("of", STATISTICS, ids=["features", "targets"])


@pytest.fixture
def random():
    return np.random.default_rng(0)


def table(random, n=200):
    """Columns of different laws: normal, skewed, few values, two values."""
    return np.c_[
        random.normal(size=n),
        random.gamma(1.0, size=n),
        random.integers(0, 4, n),
        random.random(n) < 0.3,
    ].astype(float)


def repeated_and_shuffled(X, repeats, random):
    return X[random.permutation(np.repeat(np.arange(len(X)), repeats))]


@pytest.mark.parametrize("n_quantiles", [3, 25, 100])
def test_quantiles_count_a_row_of_weight_two_as_two_rows(n_quantiles, random):
    X, repeats = table(random), random.integers(0, 5, 200)
    levels = np.linspace(0, 1, n_quantiles)
    repeated = repeated_and_shuffled(X, repeats, random)
    np.testing.assert_array_equal(
        weighted_quantiles(X, repeats.astype(float), levels),
        weighted_quantiles(repeated, np.ones(len(repeated)), levels),
    )


def test_quantiles_of_many_equal_rows_are_those_of_their_distinct_rows(random):
    # More than 10,000 rows of equal weight take a path of their own.
    X, levels = random.normal(size=(6000, 2)), np.linspace(0, 1, 25)
    np.testing.assert_array_equal(
        weighted_quantiles(np.repeat(X, 2, axis=0), np.full(12_000, 3.0), levels),
        weighted_quantiles(X, np.full(6000, 2.0), levels),
    )


def test_quantiles_occur_in_the_data_and_end_at_its_extremes(random):
    X = table(random)
    quantiles = weighted_quantiles(X, np.ones(200), np.linspace(0, 1, 11))
    for column, of_column in zip(X.T, quantiles.T, strict=True):
        assert set(of_column) <= set(column)
        assert (np.diff(of_column) >= 0).all()
        assert of_column[0] == column.min()
        assert of_column[-1] == column.max()


@every_statistic
def test_a_row_of_weight_two_counts_as_two_rows(of, random):
    X, repeats = table(random), random.integers(0, 5, 200)
    weighted = of(X, repeats.astype(float))
    repeated = repeated_and_shuffled(X, repeats, random)
    repeated = of(repeated, np.ones(len(repeated)))
    np.testing.assert_allclose(weighted.center, repeated.center, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(weighted.scale, repeated.scale, rtol=1e-12)


@every_statistic
def test_only_relative_weights_matter(of, random):
    X, weight = table(random), random.random(200)
    once, often = of(X, weight), of(X, 1024 * weight)
    np.testing.assert_allclose(once.center, often.center, rtol=1e-12)
    np.testing.assert_allclose(once.scale, often.scale, rtol=1e-12)


def test_targets_are_centred_at_the_mean_and_divided_by_the_deviation(random):
    y = table(random)
    scaled = Scaling.of_targets(y, np.ones(200)).apply(y)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-12)


def test_features_are_centred_at_the_median_and_divided_by_the_quartile_range(random):
    X = random.normal(size=(201, 3)) * [1, 10, 0.1]
    scaled = Scaling.of_features(X, np.ones(201)).apply(X)
    low, middle, high = np.quantile(scaled, [0.25, 0.5, 0.75], axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(middle, 0)
    np.testing.assert_allclose(high - low, NORMAL_IQR, rtol=1e-12)


def test_normal_features_get_unit_deviation(random):
    X = 3 * random.normal(size=(50_000, 1)) + 7
    assert abs(Scaling.of_features(X, np.ones(50_000)).apply(X).std() - 1) < 0.02


@pytest.mark.parametrize("n_ones", [1, 10])
def test_nearly_constant_feature_keeps_a_moderate_scale(n_ones):
    X = np.r_[np.zeros(100 - n_ones), np.ones(n_ones)][:, None]
    scaling = Scaling.of_features(X, np.ones(100))
    assert 0.5 < scaling.scale / X.std() < 2


def test_one_outlier_does_not_squeeze_the_others(random):
    X = random.normal(size=(1000, 1))
    plain = Scaling.of_features(X, np.ones(1000))
    X[0] = 1e6
    np.testing.assert_allclose(Scaling.of_features(X, np.ones(1000)).scale, plain.scale, 0.01)


def test_constant_columns_are_left_out(random):
    X = np.c_[np.ones(20), random.normal(size=(20, 2)), np.zeros(20)]
    scaling = Scaling.of_features(X, np.ones(20))
    np.testing.assert_array_equal(scaling.apply_softly(X), scaling.apply(X)[:, 1:3])
    assert Scaling.of_features(X[:, :1], np.ones(20)).apply_softly(X[:, :1]).shape == (20, 1)


@every_statistic
@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e8 + 0.1, 1e-30, 1e300])
@pytest.mark.parametrize("weighted", [False, True])
def test_constant_column_is_mapped_to_zero_and_back_to_its_value(of, value, weighted, random):
    column = np.full((7, 1), value)
    scaling = of(column, random.random(7) + 0.1 if weighted else np.ones(7))
    scaled = scaling.apply(column)
    assert not scaled.any()
    np.testing.assert_allclose(scaling.invert(scaled), column, rtol=1e-15)
    assert not scaling.apply(column + 1).any()  # new values of it too


@every_statistic
@pytest.mark.parametrize("size", [1e-300, 1e-12, 1.0, 1e12, 1e300])
def test_invert_undoes_apply_at_any_size(of, size, random):
    values = size * table(random)
    scaling = of(values, np.ones(200))
    np.testing.assert_allclose(
        scaling.invert(scaling.apply(values)), values, rtol=1e-12, atol=1e-12 * size
    )


@every_statistic
@pytest.mark.parametrize(("size", "offset"), [(1e-12, 0), (1e12, 0), (1, 1e8), (1e-300, 0)])
def test_units_of_the_data_do_not_matter(of, size, offset, random):
    values, weight = table(random), random.random(200)
    plain = of(values, weight).apply(values)
    moved = of(size * values + offset, weight).apply(size * values + offset)
    np.testing.assert_allclose(moved, plain, rtol=1e-6, atol=1e-6)


@every_statistic
def test_a_spread_that_is_rounding_is_none(of):
    column = 0.1 + np.array([0, 1, 0, 1, 1, 0, 1])[:, None] * 1e-17 * 3
    column[1::2] = np.nextafter(0.1, 1)
    assert of(column, np.ones(7)).scale == 0


@every_statistic
def test_statistics_of_float32_are_taken_in_float64(of, random):
    values = table(random).astype(np.float32)
    single, double = of(values, np.ones(200)), of(values.astype(float), np.ones(200))
    np.testing.assert_array_equal(single.scale, double.scale)
    assert single.apply(values).dtype == np.float64


def test_apply_leaves_its_input_alone(random):
    X = table(random)
    before = X.copy()
    Scaling.of_features(X, np.ones(200)).apply_softly(100 * X)
    np.testing.assert_array_equal(X, before)


def test_quartiles_within_a_narrow_core_do_not_blow_up_the_other_values(random):
    core = 1e-6 * random.normal(size=60)
    X = np.r_[core, np.ones(20), -np.ones(20)][:, None]
    scaled = Scaling.of_features(X, np.ones(100)).apply(X)
    assert 1 < np.abs(scaled).max() < LINEAR_RANGE


# Outliers


UNIT = Scaling(np.zeros(1), np.ones(1))


def test_within_the_linear_range_nothing_is_bent():
    x = np.linspace(-LINEAR_RANGE, LINEAR_RANGE, 101)[:, None]
    np.testing.assert_array_equal(UNIT.apply_softly(x), x)


def test_an_outlier_of_a_million_deviations_stays_finite_and_outside():
    near, far, farther = UNIT.apply_softly(np.array([[LINEAR_RANGE], [1e6], [2e6]]))[:, 0]
    assert near < far < farther < 25


def test_drawing_outliers_in_keeps_order_and_sign():
    x = np.r_[np.linspace(0, 20, 2001), np.logspace(2, 300, 50)][:, None]
    drawn = UNIT.apply_softly(x)
    assert (np.diff(drawn, axis=0) > 0).all()
    assert np.isfinite(drawn).all()
    np.testing.assert_array_equal(UNIT.apply_softly(-x), -drawn)


def test_outliers_are_drawn_in_without_a_jump_or_a_kink():
    step = 1e-6
    x = LINEAR_RANGE + step * np.array([-1.0, 0.0, 1.0])[:, None]
    np.testing.assert_allclose(np.diff(UNIT.apply_softly(x), axis=0), step, rtol=1e-5)


@pytest.mark.parametrize("n_features", [1, 2, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_blocks_of_columns_give_the_very_same_scaling(monkeypatch, n_features, weighted):
    random = np.random.default_rng(0)
    X = random.normal(5, 2, (3000, n_features)).astype(np.float32)
    weight = random.uniform(size=3000) if weighted else np.ones(3000)
    whole = Scaling.of_features(X, weight)
    monkeypatch.setattr("skmoe.scaling.VALUES_AT_ONCE", 100)
    blocks = Scaling.of_features(X, weight)
    np.testing.assert_array_equal(blocks.center, whole.center)
    np.testing.assert_array_equal(blocks.scale, whole.scale)
