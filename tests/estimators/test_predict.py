"""Predictions, and the views of the routing that explain them."""

import threading

import numpy as np
import pandas as pd
import polars as pl
import pytest
from small import make

from skmoe import part
from skmoe.datasets import make_circle_regression

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ROUTINGS = [
    {},
    {"top_k": 1},
    {"top_k": 2},
    {"n_shared_experts": 2},
    {"top_k": 1, "n_shared_experts": 1},
    {"router": "normalized_sigmoid", "top_k": 2},
    {"router": "entmax"},
    {"expert": "latent"},
    {"expert": "linear", "gate": "mlp"},
    {"expert": "constant", "gate": "prototype"},
    {"gate": "cosine", "embedding": "periodic"},
    {"gate": "quadratic", "embedding": "piecewise_linear"},
]


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("params", ROUTINGS, ids=str)
def test_prediction_is_shared_plus_weighted_experts(problem, params, n_outputs):
    X, y = problem
    y = y if n_outputs == 1 else np.column_stack([y, -y])
    moe = make("shallow", max_epochs=5, **params).fit(X, y)
    experts = moe.predict_experts(X).reshape(len(X), 4, n_outputs)
    by_hand = np.einsum("ne,neo->no", moe.predict_gates(X), experts)
    by_hand = by_hand.reshape(y.shape) + moe.predict_shared(X)
    np.testing.assert_allclose(by_hand, moe.predict(X), rtol=1e-10)


def test_nothing_is_shared_without_shared_experts(problem):
    X, y = problem
    assert np.all(make("shallow", top_k=2).fit(X, y).predict_shared(X) == 0)
    intercept = make("shallow", top_k=1).fit(X, y).predict_shared(X)
    np.testing.assert_allclose(intercept, y.mean(), rtol=1e-12)


def test_gates_are_weights_of_the_asked_experts(kind, problem):
    X, y = problem
    for top_k in (None, 1, 2):
        moe = make(kind, top_k=top_k).fit(X, y)
        for weights in np.atleast_3d(
            moe.predict_gates(X) if kind != "shallow" else [moe.predict_gates(X)]
        ):
            assert weights.shape == (len(X), 4)
            assert np.all((weights > 0).sum(axis=1) == (top_k or 4))
            if top_k != 1:
                np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_layers_of_deep_views(problem):
    X, y = problem
    for arrangement in ("parallel", "stack", "ensemble"):
        moe = make(arrangement).fit(X, y)
        gates, experts = moe.predict_gates(X), moe.predict_experts(X)
        assert len(gates) == len(experts) == moe.apply(X).shape[1] == moe.n_layers
        assert np.array_equal(gates[1], moe.predict_gates(X, layer=1))
        assert np.array_equal(experts[2], moe.predict_experts(X, layer=2))
        assert moe.expert_usage_.shape == (3, 4)
        with pytest.raises(ValueError, match=r"layer must be in \[0, 2\]. Got 3"):
            moe.predict_gates(X, layer=3)


def test_apply_names_the_expert_with_the_largest_weight(kind, problem):
    X, y = problem
    moe = make(kind, top_k=2).fit(X, y)
    gates = [moe.predict_gates(X)] if kind == "shallow" else moe.predict_gates(X)
    top = np.stack([weights.argmax(axis=1) for weights in gates], axis=1)
    assert np.array_equal(moe.apply(X), top[:, 0] if kind == "shallow" else top)


def test_usage_is_the_mean_weight(kind, problem):
    X, y = problem
    moe = make(kind, top_k=2).fit(X, y)
    gates = [moe.predict_gates(X)] if kind == "shallow" else moe.predict_gates(X)
    mean = np.stack([weights.mean(axis=0) for weights in gates])
    np.testing.assert_allclose(np.atleast_2d(moe.expert_usage_), mean)


def test_rows_do_not_influence_each_other(kind, problem):
    X, y = problem
    moe = make(kind, top_k=2, n_experts=12).fit(X, y)
    alone = np.concatenate([moe.predict(row[None]) for row in X])
    np.testing.assert_allclose(alone, moe.predict(X), rtol=1e-12)
    np.testing.assert_allclose(moe.predict(X[::-1]), moe.predict(X)[::-1], rtol=1e-12)


def test_chunks_change_nothing(kind, problem, monkeypatch):
    X, y = problem
    moe = make(kind, top_k=2).fit(X, y)
    before = moe.predict(X), moe.apply(X)
    monkeypatch.setattr("skmoe.model.CPU_CHUNKS", (7, 7))
    np.testing.assert_allclose(moe.predict(X), before[0], rtol=1e-12)
    assert np.array_equal(moe.apply(X), before[1])


def test_frames_of_pandas_and_polars(kind, problem):
    X, y = problem
    columns = ["chord", "speed", "angle"]
    pandas, polars = pd.DataFrame(X, columns=columns), pl.DataFrame(X, schema=columns)
    moe = make(kind).fit(pandas, pd.Series(y, index=np.arange(len(y))[::-1]))
    assert list(moe.feature_names_in_) == columns
    expected = make(kind).fit(X, y).predict(X)
    assert np.array_equal(moe.predict(pandas), expected)
    assert np.array_equal(make(kind).fit(polars, y).predict(polars), expected)
    with pytest.raises(ValueError, match="feature names should match"):
        moe.predict(pandas[columns[::-1]])


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8", "i1", "u8", "?", "O"])
def test_dtypes_of_features(kind, dtype):
    X = np.random.default_rng(0).integers(0, 2, size=(40, 3))
    y = X.sum(axis=1)
    expected = make(kind).fit(X.astype(float), y).predict(X)
    tolerance = 1e-3 if dtype == "f4" else 1e-9
    fitted = make(kind).fit(X.astype(dtype), y)
    np.testing.assert_allclose(fitted.predict(X.astype(dtype)), expected, rtol=tolerance)


@pytest.mark.parametrize(
    "view",
    [
        lambda X: np.asfortranarray(X),
        lambda X: X[::-1][::-1],
        lambda X: np.repeat(X, 2, axis=1)[:, ::2],
        lambda X: np.lib.stride_tricks.as_strided(X, writeable=False),
    ],
)
def test_memory_layouts_of_features(kind, problem, view):
    X, y = problem
    moe = make(kind).fit(X, y)
    kept = X.copy()
    assert np.array_equal(moe.predict(view(X)), moe.predict(X))
    assert np.array_equal(make(kind).fit(view(X), y).predict(X), moe.predict(X))
    assert np.array_equal(X, kept)


def test_threads_may_predict_at_the_same_time(kind, problem):
    X, y = problem
    moe = make(kind, top_k=2).fit(X, y)
    expected, answers = moe.predict(X), []

    def ask():
        answers.extend(np.array_equal(moe.predict(X), expected) for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 40


def test_gate_noise_is_off_when_predicting(kind, problem):
    X, y = problem
    moe = make(kind, gate=part("linear", noise=1.0)).fit(X, y)
    assert np.array_equal(moe.predict(X), moe.predict(X))


def test_rows_that_are_scaled_a_few_at_a_time_are_the_same(monkeypatch):
    X, y = make_circle_regression(300, random_state=0)
    whole = make("shallow", max_epochs=3).fit(X, y)
    monkeypatch.setattr("skmoe.model.SCALED_AT_ONCE", 7 * X.shape[1])
    parts = make("shallow", max_epochs=3).fit(X, y)
    np.testing.assert_array_equal(parts.predict(X), whole.predict(X))
