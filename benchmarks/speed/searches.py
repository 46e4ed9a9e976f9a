"""A grid search: batched, plain, and over a net of skorch."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from benchmarks.speed.case import Case, Contestants, Goal
from skmoe import DeepMoERegressor, MoERegressor
from skmoe.datasets import make_compositional_regression
from skmoe.search import BatchedGridSearchCV

PLAIN, BATCHED = "GridSearchCV", "BatchedGridSearchCV"
N_ROWS, N_FOLDS = 5000, 5
RATES = [0.003, 0.01, 0.03]


def cases() -> Iterator[Case]:
    """Twelve candidates in five folds: sixty fits."""
    grid = {"n_experts": [2, 4, 8, 16], "learning_rate": RATES}
    small = MoERegressor(hidden_dim=16, embedding=None, solver="adam", max_epochs=20)
    yield _search("experts of 16 units, no embedding", small, grid, at_least=3)
    yield _search("default MoERegressor, 20 epochs", MoERegressor(max_epochs=20), grid)
    deep = DeepMoERegressor(arrangement="ensemble", max_epochs=10)
    grid = {"n_experts": [2, 4], "learning_rate": [0.01, 0.02, 0.04], "weight_decay": [0, 0.01]}
    yield _search("ensemble of 8, 10 epochs", deep, grid)


def _search(name: str, estimator: Any, grid: dict, at_least: float | None = None) -> Case:
    def make(seed: int) -> Contestants:
        X, y = make_compositional_regression(N_ROWS, n_blocks=2, random_state=seed)
        X, y = X.astype(np.float32), y.astype(np.float32)
        scores: dict[str, np.ndarray] = {}

        def run(kind) -> None:
            search = kind(
                estimator.set_params(random_state=seed), grid, cv=N_FOLDS, refit=False
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                search.fit(X, y)
            scores[kind.__name__] = search.cv_results_["mean_test_score"]
            if len(scores) == 2:  # the same models, up to rounding that training magnifies
                np.testing.assert_allclose(*scores.values(), atol=0.05)

        return {PLAIN: lambda: run(GridSearchCV), BATCHED: lambda: run(BatchedGridSearchCV)}

    goal = Goal(PLAIN, BATCHED, at_least=at_least)
    return Case(f"search, 60 fits of {N_ROWS:,} rows, {name}", make, [goal], turns=3)
