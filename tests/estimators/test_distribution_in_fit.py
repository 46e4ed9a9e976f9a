"""``loss="gaussian_nll"`` behind the estimators: the distribution of the target."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from small import ESTIMATORS, every_estimator

from skmoe import DeepMoERegressor, MoERegressor, part
from skmoe.distribution import log_density

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def noisy(n, seed):
    """Rows, targets, and the true mean and deviation, in units far from one."""
    random = np.random.RandomState(seed)
    X = random.uniform(-2, 2, (n, 2))
    mean, std = 300 + 50 * np.sin(2 * X[:, 0]), 5.0 + 20 * (X[:, 1] > 0)
    return X, mean + std * random.randn(n), mean, std


def fitted(kind="shallow", n=200, **parameters):
    X, y, *_ = noisy(n, 0)
    usual = {"loss": "gaussian_nll", "max_epochs": 40, "random_state": 0}
    return ESTIMATORS[kind](**{**usual, **parameters}).fit(X, y)


# With 2,000 rows shares in intervals of `MoERegressor` are up to a twentieth off, by the seed
# and by how a processor rounds.
@pytest.mark.parametrize(("kind", "n"), [(MoERegressor, 8000), (DeepMoERegressor, 2000)])
def test_intervals_cover_what_they_say_on_heteroscedastic_data(kind, n):
    X, y, *_ = noisy(n, 0)
    moe = kind(loss="gaussian_nll", random_state=0).fit(X, y)
    X, y, *_ = noisy(20_000, 1)
    mean, std = moe.predict(X, return_std=True)
    for level, width in ((0.5, 0.6745), (0.9, 1.6449)):
        coverage = np.mean(np.abs(y - mean) < width * std)
        assert abs(coverage - level) < 0.02, (level, coverage)
    low, high = np.median(std[X[:, 1] < -0.2]), np.median(std[X[:, 1] > 0.2])
    assert_allclose([low, high], [5, 25], rtol=0.15)


@every_estimator
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_predict_and_sample_have_the_shapes_of_y(kind, n_outputs):
    X, y, *_ = noisy(100, 0)
    y = y if n_outputs == 1 else np.c_[y, -2 * y]
    moe = ESTIMATORS[kind](loss="gaussian_nll", max_epochs=3, random_state=0).fit(X, y)
    mean, std = moe.predict(X, return_std=True)
    assert mean.shape == std.shape == y.shape
    assert (std > 0).all()
    assert_allclose(moe.predict(X), mean)
    assert moe.sample(X, 5, random_state=0).shape == (100, 5, *y.shape[1:])
    assert np.array_equal(moe.sample(X, 5, random_state=0), moe.sample(X, 5, random_state=0))
    assert np.isfinite(moe.score(X, y))


@every_estimator
def test_draws_have_the_predicted_moments(kind):
    moe = fitted(kind)
    X = noisy(20, 1)[0]
    draws = moe.sample(X, 20_000, random_state=0)
    mean, std = moe.predict(X, return_std=True)
    assert_allclose(draws.mean(1), mean, atol=0.05 * std.max())
    assert_allclose(draws.std(1), std, rtol=0.05)


def test_components_of_one_layer_are_its_experts():
    moe, X = fitted(n_experts=3, n_shared_experts=1), noisy(20, 1)[0]
    weights, means, _ = moe._model.distribution(X)
    assert_allclose(weights, moe.predict_gates(X))
    parts = moe.predict_shared(X)[:, None] + moe.predict_experts(X)
    assert_allclose(means[..., 0], parts)
    assert_allclose(moe.predict(X), (weights * parts).sum(1))


def test_components_of_an_ensemble_are_its_members():
    weights, means, _ = fitted("ensemble")._model.distribution(noisy(20, 1)[0])
    assert means.shape == (20, 4, 1)
    assert_allclose(weights, 1 / 4)


def test_best_loss_is_that_of_standardised_targets():
    X, y, *_ = noisy(200, 0)
    moe = fitted(early_stopping=False)
    scale = moe._model.y_scaling.scale[0]
    expected = -log_density(moe._model.distribution(X), y[:, None]).mean() - np.log(scale)
    assert_allclose(moe.best_loss_, expected, atol=0.05)  # of the last epoch, as weights moved


def test_a_bimodal_target_has_two_experts():
    random = np.random.RandomState(0)
    X = random.uniform(-1, 1, (600, 1))
    y = np.where(random.rand(600) < 0.5, 1.0, -1.0) + 0.05 * random.randn(600)
    moe = MoERegressor(2, loss="gaussian_nll", max_epochs=300, random_state=0).fit(X, y)
    draws = moe.sample(X, 20, random_state=0)
    assert np.mean(np.abs(np.abs(draws) - 1) < 0.3) > 0.9
    _, std = moe.predict(X, return_std=True)
    assert_allclose(np.median(std), 1.0, rtol=0.1)


@pytest.mark.parametrize("kind", ["shallow", "parallel"])
def test_validation_rows_widen_what_was_learned_by_heart(kind):
    X, y, *_ = noisy(60, 0)
    X_val, y_val, *_ = noisy(400, 2)
    settings = {"loss": "gaussian_nll", "max_epochs": 150, "random_state": 0}
    plain = ESTIMATORS[kind](**settings).fit(X, y)
    judged = ESTIMATORS[kind](**settings).fit(X, y, X_val=X_val, y_val=y_val)
    assert plain._model.std_factor == 1
    assert judged._model.std_factor > 1
    X_test, y_test, *_ = noisy(2000, 3)

    def density(moe):
        return log_density(moe._model.distribution(X_test), y_test[:, None]).mean()

    assert density(judged) > density(plain)


@every_estimator
def test_distribution_travels_with_a_pickle(kind):
    X = noisy(50, 1)[0]
    moe = fitted(kind, early_stopping=True)
    again = pickle.loads(pickle.dumps(moe))
    for ours, theirs in zip(again.predict(X, True), moe.predict(X, True), strict=True):
        assert_allclose(ours, theirs)
    assert np.array_equal(again.sample(X, random_state=0), moe.sample(X, random_state=0))


@pytest.mark.parametrize(
    "ask", [lambda m, X: m.predict(X, return_std=True), MoERegressor.sample]
)
def test_other_losses_have_no_distribution(ask):
    X, y, *_ = noisy(50, 0)
    moe = MoERegressor(max_epochs=2, random_state=0).fit(X, y)
    with pytest.raises(
        ValueError, match=r"loss='gaussian_nll' only\. Got one that was fitted with another"
    ):
        ask(moe, X)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"router": "sigmoid"}, "needs weights that sum to one"),
        ({"top_k": 1}, "needs weights that sum to one"),
        ({"expert": "merged"}, "needs a distribution from each expert"),
        ({"solver": "ridge"}, "needs loss='squared_error'"),
        ({"solver": "adam+lbfgs"}, "needs a loss of predictions"),
    ],
)
def test_what_does_not_go_with_a_distribution_is_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        fitted(**parameters)


@pytest.mark.parametrize("n_samples", [0, 1.5])
def test_bad_numbers_of_draws_are_refused(n_samples):
    with pytest.raises(ValueError, match="n_samples must be an int of at least 1"):
        fitted(max_epochs=1).sample(noisy(5, 0)[0], n_samples)


@pytest.mark.parametrize(
    "router", ["normalized_sigmoid", "hierarchical", part("entmax", alpha=2)]
)
def test_routers_whose_weights_sum_to_one_go_with_it(router):
    moe = fitted(router=router)
    _, std = moe.predict(noisy(50, 1)[0], return_std=True)
    assert np.isfinite(std).all()
