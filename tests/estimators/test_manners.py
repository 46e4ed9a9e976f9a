"""Parameters, state and company: what scikit-learn users expect beyond the checks."""

import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import estimator_html_repr
from small import make

import skmoe
from skmoe import DeepMoERegressor, MoERegressor, part
from skmoe.estimators import _pickling

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def test_clone_keeps_parts_with_settings():
    moe = MoERegressor(gate=part("mlp", hidden_dim=7))
    copied = clone(moe)
    assert copied.gate == moe.gate
    assert copied.gate is not moe.gate


def test_settings_of_parts_are_reached_by_set_params_and_searches(problem):
    X, y = problem
    moe = make("shallow", gate=part("mlp", hidden_dim=4), max_epochs=2)
    assert moe.set_params(gate__hidden_dim=5).gate == part("mlp", hidden_dim=5)
    search = GridSearchCV(moe, {"gate__hidden_dim": [2, 3]}, cv=2).fit(X, y)
    gate = search.best_estimator_.net_.layer.gate
    assert gate.hidden.weight.shape[-1] == search.best_params_["gate__hidden_dim"]


@pytest.mark.parametrize("estimator", [MoERegressor, DeepMoERegressor])
def test_repr_shows_what_differs_from_the_defaults(estimator):
    assert repr(estimator()) == f"{estimator.__name__}()"
    moe = estimator(n_experts=3, gate=part("mlp", hidden_dim=4))
    assert repr(moe) == f"{estimator.__name__}(gate=part('mlp', hidden_dim=4), n_experts=3)"
    assert estimator.__name__ in estimator_html_repr(moe)


@pytest.mark.parametrize("estimator", [MoERegressor, DeepMoERegressor])
@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"gate": "liner"},
            "'gate' parameter of .* Got 'liner' instead. Did you mean 'linear'",
        ),
        ({"router": part("softmx")}, "Did you mean 'softmax'"),
        ({"gate": part("mlp", hiden_dim=3)}, "takes the settings .* Did you mean 'hidden_dim'"),
        ({"auxiliary_losses": {"swich": 0.1}}, "Did you mean 'switch'"),
        ({"callbacks": ["print"]}, "callbacks must be callbacks of skorch. Got 'print'"),
        ({"device": "meta"}, "device must be 'auto', 'cpu', 'cuda'.* Got 'meta'"),
        ({"auxiliary_losses": {"switch": -1}}, "must be a number of at least 0. Got -1"),
        ({"n_experts": 0}, "'n_experts' parameter of .* Got 0"),
        ({"n_experts": 2.5}, "'n_experts' parameter of .* Got 2.5"),
        ({"n_experts": True}, "'n_experts' parameter of .* Got True"),
        ({"learning_rate": float("nan")}, "'learning_rate' parameter"),
        ({"gate": part("linear", temperature=-1.0)}, "temperature must be a positive number"),
        ({"expert": part("mlp", activation="rellu")}, "Did you mean 'relu'"),
    ],
    ids=str,
)
def test_wrong_parameters_are_refused_by_name_in_fit(estimator, params, message, problem):
    moe = estimator(**params)
    with pytest.raises((ValueError, TypeError), match=message):
        moe.fit(*problem)


def test_parts_may_be_classes_of_ones_own(problem):
    class Squares(skmoe.nn.gates.Gate):
        def __init__(self, n_blocks, n_inputs, n_experts, *, generator=None):
            super().__init__(n_blocks, n_inputs, n_experts)
            shape = (n_blocks, n_inputs, n_experts)
            self.weight = torch.nn.Parameter(torch.randn(shape, generator=generator))

        def score(self, x_BTD):
            return torch.bmm(x_BTD**2, self.weight)

    X, y = problem
    moe = make("shallow", gate=Squares).fit(X, y)
    assert isinstance(moe.net_.layer.gate, Squares)


@pytest.mark.parametrize("gate", ["linear", "region"])
def test_pickles_hold_arrays_and_predict_the_same(kind, gate, problem, tmp_path):
    X, y = problem
    moe = make(kind, gate=gate, warm_start=True, embedding="piecewise_linear").fit(X, y)
    data = pickle.dumps(moe)
    assert b"torch" not in data
    assert b"skorch" not in data
    assert np.array_equal(pickle.loads(data).predict(X), moe.predict(X))
    joblib.dump(moe, tmp_path / "moe.joblib")
    mapped = joblib.load(tmp_path / "moe.joblib", mmap_mode="r")
    assert np.array_equal(mapped.predict(X), moe.predict(X))


def test_a_pickle_goes_on_where_the_fit_was(kind, problem):
    X, y = problem
    moe = make(kind).partial_fit(X, y)
    again = pickle.loads(pickle.dumps(moe))
    assert np.array_equal(moe.partial_fit(X, y).predict(X), again.partial_fit(X, y).predict(X))


@pytest.mark.parametrize(
    ("asked", "n_devices", "place"),
    [
        ("cuda:1", 2, "cuda:1"),
        ("cuda:1", 1, "cuda"),
        ("cuda", 1, "cuda"),
        ("cuda:1", 0, "cpu"),
        ("auto", 1, "cpu"),
    ],
)
def test_a_pickle_goes_to_a_device_that_there_is(asked, n_devices, place, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: n_devices > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: n_devices)
    assert _pickling._place(asked) == place


def test_copies_are_independent(kind, problem):
    X, y = problem
    moe = make(kind, warm_start=True).fit(X, y)
    before = moe.predict(X)
    copy.deepcopy(moe).fit(X, -y)
    assert np.array_equal(moe.predict(X), before)


def test_validation_rows_pass_through_a_pipeline(kind, problem):
    X, y = problem
    with sklearn.config_context(enable_metadata_routing=True):
        moe = make(kind).set_fit_request(X_val=True, y_val=True, sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=True)
        pipeline = Pipeline([("scale", scaler), ("moe", moe)], transform_input=["X_val"])
        weight = np.ones(80)
        pipeline.fit(X[:80], y[:80], sample_weight=weight, X_val=X[80:], y_val=y[80:])
        scaled = StandardScaler().fit(X[:80])
        direct = make(kind).fit(
            scaled.transform(X[:80]),
            y[:80],
            X_val=scaled.transform(X[80:]),
            y_val=y[80:],
        )
    np.testing.assert_allclose(pipeline.predict(X), direct.predict(scaled.transform(X)))


def test_validation_rows_are_checked(problem):
    X, y = problem
    with pytest.raises(ValueError, match="y_val is required"):
        make("shallow").fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="X has 2 features, but MoERegressor is expecting 3"):
        make("shallow").fit(X, y, X_val=X[:, :2], y_val=y)
    with pytest.raises(ValueError, match=r"as many outputs as y\. Got 2 and 1"):
        make("shallow").fit(X, y, X_val=X, y_val=np.column_stack([y, y]))


def test_grid_search_over_experts_and_layers_in_a_pipeline_on_a_frame(problem):
    X, y = problem
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    frame["site"] = np.where(X[:, 0] > 0, "north", "south")
    encode = make_column_transformer(
        (OneHotEncoder(drop="first"), ["site"]), remainder="passthrough"
    )
    pipeline = make_pipeline(encode, make("parallel", max_epochs=10, learning_rate=0.02))
    grid = {
        "deepmoeregressor__n_experts": [2, 4],
        "deepmoeregressor__n_layers": [1, 2],
    }
    search = GridSearchCV(pipeline, grid, cv=2).fit(frame, y)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_estimator_.predict(frame).shape == (120,)


def test_workers_give_the_same_scores_without_oversubscription(problem):
    X, y = problem
    moe = make("parallel", max_epochs=5)
    alone = cross_val_score(moe, X, y, cv=2, n_jobs=1)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        together = cross_val_score(moe, X, y, cv=2, n_jobs=2)
        threads = joblib.Parallel(n_jobs=2)(
            joblib.delayed(torch.get_num_threads)() for _ in range(2)
        )
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    assert threads == [1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y, w: (X * np.nan, y, w), "Input X contains NaN"),
        (lambda X, y, w: (X, y * np.inf, w), "Input y contains infinity"),
        (lambda X, y, w: (X, y, w * np.nan), "sample_weight contains NaN"),
        (lambda X, y, w: (X, y, w * 0), "at least one non-zero"),
        (lambda X, y, w: (X, y, w - 2), "[Nn]egative values"),
        (lambda X, y, w: (X[:0], y[:0], None), "0 sample"),
        (lambda X, y, w: (X[:5], y, None), "inconsistent numbers of samples"),
        (lambda X, y, w: (X.astype(complex), y, None), "Complex data not supported"),
        (lambda X, y, w: (np.full(X.shape, "a"), y, None), "convert string to float"),
    ],
)
def test_bad_rows_are_refused(kind, problem, change, message):
    X, y = problem
    X, y, weight = change(X, y, np.ones(len(y)))
    with pytest.raises(ValueError, match=message):
        make(kind).fit(X, y, sample_weight=weight)


@pytest.mark.filterwarnings("error")
def test_a_pickle_of_another_version_is_read_with_a_warning(problem, monkeypatch):
    X, y = problem
    moe = make("shallow", solver="ridge").fit(X, y)
    data = pickle.dumps(moe)
    assert vars(pickle.loads(data)).keys() == vars(moe).keys()
    monkeypatch.setattr(_pickling, "__version__", "99.0")
    with pytest.warns(UserWarning, match=r"made by version .* is read by 99\.0.*save_model"):
        again = pickle.loads(data)
    np.testing.assert_array_equal(again.predict(X), moe.predict(X))
