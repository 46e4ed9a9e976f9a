"""Searches of scikit-learn on the processes of a Dask cluster."""

import os

import joblib
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from small import make

from skmoe.datasets import make_circle_regression
from skmoe.search import BatchedGridSearchCV

GRID = {"n_experts": [2, 4], "learning_rate": [0.003, 0.03]}


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two processes of one thread each, on this machine; joblib finds them by itself."""
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            host="127.0.0.1",
        ) as cluster,
        Client(cluster),
    ):
        yield cluster


@pytest.fixture
def search_of():
    """Makes searches that also tell in which process a fit was, and its threads."""

    # Inside of a function, so that it travels by value: workers need not find this file.
    def scores(estimator, X, y):
        r2 = estimator.score(X, y)
        return {"r2": r2, "threads": torch.get_num_threads(), "process": os.getpid()}

    def search_of(kind):
        moe = make("shallow", max_epochs=5)
        if kind is HalvingGridSearchCV:  # which takes one score only
            return kind(moe, GRID, cv=3, random_state=0)
        return kind(moe, GRID, cv=3, scoring=scores, refit="r2")

    return search_of


@pytest.mark.parametrize("kind", [GridSearchCV, HalvingGridSearchCV, BatchedGridSearchCV])
def test_searches_find_what_they_find_without_a_cluster(search_of, kind):
    X, y = make_circle_regression(150, random_state=0)
    alone = search_of(kind).fit(X, y)
    with joblib.parallel_config("dask"):
        spread = search_of(kind).fit(X, y)
    assert spread.best_params_ == alone.best_params_
    (score,) = {"mean_test_r2", "mean_test_score"} & set(spread.cv_results_)
    np.testing.assert_allclose(
        spread.cv_results_[score], alone.cv_results_[score], rtol=0, atol=1e-10
    )
    np.testing.assert_allclose(spread.predict(X), alone.predict(X), rtol=0, atol=1e-10)


def test_fits_are_spread_over_workers_and_keep_to_their_threads(search_of):
    X, y = make_circle_regression(150, random_state=0)
    with joblib.parallel_config("dask"):
        found = search_of(GridSearchCV).fit(X, y).cv_results_
    processes = np.concatenate([found[f"split{fold}_test_process"] for fold in range(3)])
    assert len(set(processes)) == 2
    assert os.getpid() not in processes
    given = int(os.environ.get("OMP_NUM_THREADS", 1))  # Dask hands it on, and else sets one
    threads = [found[f"split{fold}_test_threads"] for fold in range(3)]
    assert np.max(threads) <= given


def test_a_batched_search_stays_in_this_process(search_of):
    X, y = make_circle_regression(150, random_state=0)
    with joblib.parallel_config("dask"):
        found = search_of(BatchedGridSearchCV).fit(X, y).cv_results_
    assert set(found["mean_test_process"]) == {os.getpid()}
