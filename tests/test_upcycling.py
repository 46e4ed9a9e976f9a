"""Mixtures that start as copies of a dense net."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor

from skmoe import DeepMoERegressor, MoERegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
# Nothing is learned: the start is what is left.
STILL = {"solver": "adam", "max_epochs": 1, "learning_rate": 1e-15, "random_state": 0}


def data(n_outputs=1):
    """Features in several units, one of them constant, within five deviations."""
    random = np.random.RandomState(0)
    X = random.uniform(-1, 1, (150, 4)) * [1, 20, 0.01, 0] + [0, 300, 1, 7]
    y = 40 + 3 * np.sin(3 * X[:, 0]) + X[:, 1] / 20
    return X, y if n_outputs == 1 else np.c_[y, -2 * y]


def dense_nets(n_outputs=1):
    X, y = data(n_outputs)
    for activation in ("relu", "tanh"):
        yield MLPRegressor(
            hidden_layer_sizes=(9,), activation=activation, max_iter=50, random_state=0
        ).fit(X, y)
    yield MoERegressor(1, embedding=None, max_epochs=50, hidden_dim=9, random_state=0).fit(X, y)


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("settings", [{}, {"top_k": 2}, {"gate": "mlp", "router": "entmax"}])
def test_a_mixture_predicts_what_the_dense_net_does_before_training(n_outputs, settings):
    X, y = data(n_outputs)
    for dense in dense_nets(n_outputs):
        moe = MoERegressor(6, init=dense, **settings, **STILL).fit(X, y)
        assert_allclose(moe.predict(X), dense.predict(X), rtol=1e-6)
        assert moe.predict_experts(X).shape[1] == 6


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_of_a_distribution_the_means_are_those_of_the_dense_net(n_outputs):
    X, y = data(n_outputs)
    dense = next(dense_nets(n_outputs))
    moe = MoERegressor(3, init=dense, loss="gaussian_nll", **STILL).fit(X, y)
    mean, std = moe.predict(X, return_std=True)
    assert_allclose(mean, dense.predict(X), rtol=1e-6)
    assert_allclose(std, np.broadcast_to(y.std(axis=0), std.shape), rtol=0.2)


def test_experts_become_different_and_better():
    X, y = data()
    dense = next(dense_nets())
    moe = MoERegressor(4, init=dense, top_k=2, max_epochs=150, random_state=0).fit(X, y)
    experts = moe.predict_experts(X)
    assert np.abs(experts - experts[:, :1]).max() > 0.1
    assert moe.score(X, y) > dense.score(X, y)


def test_a_frozen_net_survives_clone_and_search():
    X, y = data()
    dense = next(dense_nets())
    moe = MoERegressor(init=FrozenEstimator(dense), **STILL)
    assert_allclose(clone(moe).fit(X, y).predict(X), dense.predict(X), rtol=1e-6)
    search = GridSearchCV(moe, {"n_experts": [2, 3]}, cv=2).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_closed_form_starts_from_the_hidden_layers_too():
    X, y = data()
    moe = MoERegressor(4, init=next(dense_nets()), solver="ridge", random_state=0).fit(X, y)
    assert moe.score(X, y) > 0.8


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        (MLPRegressor(hidden_layer_sizes=(5, 5)), "one hidden layer"),
        (
            MLPRegressor(hidden_layer_sizes=(5,), activation="logistic"),
            "activation 'relu' or 'tanh'",
        ),
        (MoERegressor(2, embedding=None, max_epochs=2), "with n_experts=1"),
        (MoERegressor(1, max_epochs=2), "and embedding=None"),
        (DeepMoERegressor(1, 1, max_epochs=2), "with n_experts=1"),
        (Ridge(), "init must be a fitted MLPRegressor"),
    ],
)
def test_other_nets_are_refused(dense, message):
    X, y = data()
    with pytest.raises(ValueError, match=message):
        MoERegressor(init=dense.fit(X, y)).fit(X, y)


def test_nets_of_other_data_are_refused():
    X, y = data()
    with pytest.raises(ValueError, match=r"init has 4 features and 1 outputs, X and y have 3"):
        MoERegressor(init=next(dense_nets())).fit(X[:, :3], y)


def test_nets_must_be_fitted():
    with pytest.raises(NotFittedError):
        MoERegressor(init=MLPRegressor()).fit(*data())


def test_deep_mixtures_take_no_dense_net():
    with pytest.raises(ValueError, match="The 'init' parameter of DeepMoERegressor must be"):
        DeepMoERegressor(init=next(dense_nets())).fit(*data())
