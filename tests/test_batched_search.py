"""A search whose fits are one program is the search that it would be without."""

import time
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from small import DEEP, SHALLOW, make

import skmoe.side_by_side
from skmoe import DeepMoERegressor, MoERegressor, part
from skmoe.batched_search import BatchedGridSearchCV
from skmoe.nn.gates import LinearGate
from skmoe.side_by_side import train_requests

GRID = {"n_experts": [2, 3], "learning_rate": [0.003, 0.03]}
TIMES = ("fit_time", "score_time")


@pytest.fixture(scope="module")
def data():
    X = np.random.RandomState(0).normal(size=(90, 3))
    return X, np.sin(2 * X[:, 0]) * X[:, 1] + np.abs(X[:, 2])


def both(estimator, grid, data, **settings):
    """A plain and a batched search."""
    settings = {"cv": 3, **settings}
    kinds = GridSearchCV, BatchedGridSearchCV
    return [kind(clone(estimator), grid, **settings).fit(*data) for kind in kinds]


def assert_same(plain, batched):
    assert list(plain.cv_results_) == list(batched.cv_results_)
    for name, values in plain.cv_results_.items():
        if name == "params":
            assert values == batched.cv_results_[name]
        elif not name.endswith(TIMES) and values.dtype != object:
            assert_allclose(batched.cv_results_[name], values, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["shallow", "parallel", "stack", "ensemble"])
def test_results_are_those_of_a_plain_search(kind, data):
    plain, batched = both(make(kind, max_epochs=6), GRID, data, return_train_score=True)
    assert_same(plain, batched)
    assert batched.best_params_ == plain.best_params_
    assert_allclose(batched.predict(data[0]), plain.predict(data[0]))


@pytest.mark.parametrize(
    "estimator", [MoERegressor(**SHALLOW | {"max_epochs": "auto"}), DeepMoERegressor(**DEEP)]
)
def test_with_starts_and_finishes(estimator, data):
    estimator.set_params(random_state=0)
    grid = {"init": ["random", "kmeans"], "weight_decay": [0.0, 0.1]}
    assert_same(*both(estimator, grid, data))


def test_with_early_stopping_and_several_scores(data):
    moe = make("shallow", max_epochs=30, early_stopping=True, n_iter_no_change=2)
    scoring = {"r2": "r2", "mae": "neg_mean_absolute_error"}
    assert_same(*both(moe, GRID, data, scoring=scoring, refit="mae"))


def test_unequal_folds(data):
    X, y = data
    assert_same(*both(make("shallow", max_epochs=5), GRID, (X[:88], y[:88])))


def test_numbers_of_experts_and_unequal_folds_are_one_program(data, monkeypatch):
    together = []

    def watched(requests):
        train_requests(requests)
        together.extend(request.together for request in requests)

    monkeypatch.setattr("skmoe.together.train_requests", watched)
    moe, (X, y) = make("shallow", max_epochs=5), data
    BatchedGridSearchCV(moe, GRID, cv=3, refit=False).fit(X[:88], y[:88])
    assert together == [12] * 12


def test_sample_weights_and_frames(data):
    X, y = pd.DataFrame(data[0], columns=list("abc")), data[1]
    weight = np.random.RandomState(0).uniform(size=len(y))
    searches = [
        kind(make("shallow", max_epochs=5), GRID, cv=3).fit(X, y, sample_weight=weight)
        for kind in (GridSearchCV, BatchedGridSearchCV)
    ]
    assert_same(*searches)
    assert list(searches[1].feature_names_in_) == ["a", "b", "c"]


def test_all_shapes_are_trained_together(data, capsys):
    BatchedGridSearchCV(make("shallow", max_epochs=5), GRID, cv=3, verbose=1).fit(*data)
    printed = capsys.readouterr().out
    assert "totalling 12 fits" in printed
    assert "by themselves" not in printed


def test_what_cannot_be_is_trained_alone_and_told(data, capsys):
    grid = {"router": ["noisy_top_k", "softmax"], "learning_rate": [0.003, 0.03]}
    plain, batched = both(make("shallow", max_epochs=5), grid, data, verbose=1)
    assert_same(plain, batched)
    assert "6 of 12 networks were trained by themselves" in capsys.readouterr().out


def test_silent_by_default(data, capsys):
    BatchedGridSearchCV(make("shallow", max_epochs=5), GRID, cv=3).fit(*data)
    assert capsys.readouterr() == ("", "")


def test_bad_candidates_get_error_score_and_the_others_go_on(data):
    grid = {"learning_rate": [0.01, -1.0, 0.02]}
    with pytest.warns(FitFailedWarning), pytest.warns(UserWarning, match="non-finite"):
        search = BatchedGridSearchCV(make("shallow", max_epochs=5), grid, cv=3).fit(*data)
    scores = search.cv_results_["mean_test_score"]
    assert np.isnan(scores).tolist() == [False, True, False]


def test_parts_of_the_same_name_are_not_mixed_up(data):
    grid = {"gate": [gate_times(1.0), gate_times(30.0)]}
    plain, batched = both(make("shallow", max_epochs=10), grid, data)
    assert_same(plain, batched)
    assert len(set(plain.cv_results_["mean_test_score"])) == 2
    losses = [{lambda routing, weight: routing.scores_BTE.var(): w} for w in (0.1, 10.0)]
    assert_same(*both(make("shallow", max_epochs=10), {"auxiliary_losses": losses}, data))


def gate_times(factor):
    class Scaled(LinearGate):
        def forward(self, x_BTD):
            return factor * super().forward(x_BTD)

    return Scaled


def test_what_fails_in_the_program_is_left_to_its_own_fit(data):
    """A map for four experts has no place for six."""
    losses = {part("group_sparsity", shape=(2, 2)): 0.01}
    moe = make("shallow", max_epochs=5, auxiliary_losses=losses)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, batched = both(moe, {"n_experts": [4, 6]}, data, error_score=np.nan)
    assert np.isnan(plain.cv_results_["mean_test_score"]).tolist() == [False, True]
    assert_same(plain, batched)


def test_products_are_as_precise_as_each_candidate_asks(data, monkeypatch):
    seen = []

    def watched(group):
        seen.append((len(group), torch.backends.cuda.matmul.fp32_precision))
        train_group(group)

    train_group = skmoe.side_by_side._train_group
    monkeypatch.setattr(skmoe.side_by_side, "_train_group", watched)
    before = torch.backends.cuda.matmul.fp32_precision
    grid = {"dtype": ["float32", "tf32"]}
    BatchedGridSearchCV(make("shallow", max_epochs=2), grid, cv=2, refit=False).fit(*data)
    assert sorted(seen) == sorted([(2, before), (2, "tf32")])
    assert torch.backends.cuda.matmul.fp32_precision == before


def test_diverging_candidates_are_tried_again_as_in_a_plain_search(data):
    grid = {"learning_rate": [0.01, 1e8]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(*both(make("shallow", max_epochs=5), grid, data))


def test_an_error_that_is_to_be_raised_is_raised(data):
    grid = {"learning_rate": [0.01, -1.0]}
    search = BatchedGridSearchCV(make("shallow"), grid, cv=3, error_score="raise")
    with pytest.raises(ValueError, match="learning_rate"):
        search.fit(*data)
    assert not hasattr(search, "cv_results_")


class Counting(TransformerMixin, BaseEstimator):
    """Counts its fits."""

    fits = 0

    def __init__(self, factor=1.0):
        self.factor = factor

    def fit(self, X, y=None):
        type(self).fits += 1
        return self

    def transform(self, X):
        return self.factor * X


def test_transformers_of_a_pipeline_are_fitted_once_for_each_fold(data):
    pipeline = make_pipeline(StandardScaler(), Counting(), make("shallow", max_epochs=5))
    grid = {f"moeregressor__{name}": values for name, values in GRID.items()}
    Counting.fits = 0
    batched = BatchedGridSearchCV(pipeline, grid, cv=3).fit(*data)
    assert Counting.fits == 3 + 1  # the folds, and all rows
    assert_same(GridSearchCV(pipeline, grid, cv=3).fit(*data), batched)
    assert batched.estimator is pipeline
    assert batched.best_estimator_.memory is None
    assert pipeline.memory is None


def test_transformers_that_no_file_can_hold_work_as_well(data):
    double = FunctionTransformer(lambda X: 2 * X)
    grid = {"moeregressor__learning_rate": [0.003, 0.03]}
    assert_same(*both(make_pipeline(double, make("shallow", max_epochs=5)), grid, data))


def test_candidates_may_change_transformers(data):
    pipeline = make_pipeline(Counting(), make("shallow", max_epochs=5))
    grid = {"counting__factor": [1.0, 2.0], "moeregressor__learning_rate": [0.003, 0.03]}
    Counting.fits = 0
    batched = BatchedGridSearchCV(pipeline, grid, cv=3, refit=False).fit(*data)
    assert Counting.fits == 3 * 2
    assert_same(GridSearchCV(pipeline, grid, cv=3, refit=False).fit(*data), batched)


def test_fit_times_add_up_to_what_they_took(data):
    search = BatchedGridSearchCV(make("shallow", max_epochs=20), GRID, cv=3, refit=False)
    started = time.perf_counter()
    search.fit(*data)
    seconds = time.perf_counter() - started
    total = 3 * search.cv_results_["mean_fit_time"].sum()
    assert 0 < total <= 1.05 * seconds
    assert (search.cv_results_["std_fit_time"] < search.cv_results_["mean_fit_time"]).all()


def test_other_estimators_work(data):
    plain, batched = both(Ridge(), {"alpha": [0.1, 10.0]}, data)
    assert_same(plain, batched)


def test_an_interrupt_ends_the_search(data, monkeypatch):
    def interrupted(requests):
        raise KeyboardInterrupt

    monkeypatch.setattr("skmoe.together.train_requests", interrupted)
    search = BatchedGridSearchCV(make("shallow", max_epochs=5), GRID, cv=3)
    with pytest.raises(KeyboardInterrupt):
        search.fit(*data)
    assert isinstance(search.estimator, MoERegressor)
