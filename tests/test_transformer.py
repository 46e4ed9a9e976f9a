"""Routing as features: what the mixture tells, under names, in scikit-learn's manners."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline, make_union
from sklearn.utils.estimator_checks import parametrize_with_checks
from small import make

from skmoe import DeepMoERegressor, MoERegressor, MoETransformer

CHECKED = [
    MoETransformer(MoERegressor(2, solver="ridge", hidden_dim=4, random_state=0)),
    MoETransformer(
        DeepMoERegressor(2, 2, model_dim=4, hidden_dim=4, max_epochs=2, random_state=0),
        features="both",
    ),
]
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning"),
]
KINDS = ["shallow", "parallel", "stack", "ensemble"]


@pytest.fixture(scope="module")
def problem():
    X = np.random.default_rng(0).normal(size=(60, 3))
    return X, np.abs(X[:, 0]) + X[:, 1]


@parametrize_with_checks(CHECKED, xfail_strict=True)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_outputs", [0, 2])
def test_features_are_what_the_mixture_tells(kind, n_outputs, problem):
    X, y = problem
    y = np.column_stack([y, -y]) if n_outputs else y
    moe = make(kind, max_epochs=2)
    fitted = clone(moe).fit(X, y)
    gates, answers = fitted.predict_gates(X), fitted.predict_experts(X)
    if kind == "shallow":
        gates, answers = [gates], [answers]
    gates, answers = (
        np.concatenate([layer.reshape(len(X), -1) for layer in layers], 1)
        for layers in (gates, answers)
    )
    both = np.concatenate([gates, answers], 1)
    for features, table in (("gates", gates), ("answers", answers), ("both", both)):
        transformer = MoETransformer(moe, features=features).fit(X, y)
        assert np.array_equal(transformer.transform(X), table)
        assert len(set(transformer.get_feature_names_out())) == table.shape[1]
    assert not hasattr(moe, "net_")  # a copy was fitted


def test_names_tell_layer_expert_and_output(problem):
    X, y = problem
    two = np.column_stack([y, -y])
    shallow = MoETransformer(make("shallow", n_experts=2, max_epochs=2), features="both")
    names = shallow.fit(X, two).get_feature_names_out().tolist()
    assert names == ["gate0", "gate1", "answer0_0", "answer0_1", "answer1_0", "answer1_1"]
    deep = MoETransformer(make("stack", n_experts=2, n_layers=2, max_epochs=2)).fit(X, y)
    names = deep.get_feature_names_out().tolist()
    assert names == ["layer0_gate0", "layer0_gate1", "layer1_gate0", "layer1_gate1"]


def test_frames_in_and_out(problem):
    X, y = problem
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    transformer = MoETransformer(make("shallow", max_epochs=2)).set_output(transform="pandas")
    out = transformer.fit(frame, y).transform(frame)
    assert out.columns.tolist() == ["gate0", "gate1", "gate2", "gate3"]
    assert out.index.equals(frame.index)
    assert transformer.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="input_features is not equal to feature_names_in_"):
        transformer.get_feature_names_out(["c", "b", "a"])


def test_routing_helps_a_linear_model_in_a_pipeline_and_a_search(problem):
    X, y = problem
    moe = make("shallow", max_epochs=200, solver="adam")
    features = make_union(MoETransformer(moe, features="both"), "passthrough")
    pipeline = make_pipeline(features, Ridge(1e-3)).fit(X, y)
    assert pipeline.score(X, y) > LinearRegression().fit(X, y).score(X, y) + 0.1
    pipeline = make_pipeline(MoETransformer(make("shallow", max_epochs=2)), Ridge())
    grid = {"moetransformer__estimator__n_experts": [2, 3]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    best = search.best_params_["moetransformer__estimator__n_experts"]
    assert search.best_estimator_[0].transform(X).shape == (60, best)


def test_a_frozen_mixture_is_used_as_it_is(problem):
    X, y = problem
    moe = make("parallel", max_epochs=2).fit(X, y)
    transformer = MoETransformer(FrozenEstimator(moe)).fit(X[:5], y[:5])
    assert np.array_equal(transformer.transform(X)[:, :4], moe.predict_gates(X, layer=0))
    assert transformer.get_feature_names_out()[0] == "layer0_gate0"


def test_weights_reach_the_mixture(problem):
    X, y = problem
    weight = np.linspace(0.1, 1, len(y))
    moe = make("shallow", max_epochs=3)
    weighted = MoETransformer(moe).fit(X, y, sample_weight=weight).transform(X)
    assert np.array_equal(weighted, clone(moe).fit(X, y, weight).predict_gates(X))


def test_what_is_no_mixture_is_refused(problem):
    with pytest.raises(ValueError, match=r"must be a mixture of experts\. Got Ridge"):
        MoETransformer(Ridge()).fit(*problem)
    with pytest.raises(ValueError, match="'features' parameter of MoETransformer"):
        MoETransformer(MoERegressor(), features="all").fit(*problem)
    with pytest.raises(NotFittedError):
        MoETransformer(MoERegressor()).transform(problem[0])
