"""A grid search: batched, plain, and over a net of skorch."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetRegressor
from skorch.dataset import ValidSplit
from torch import Tensor, nn

from benchmarks.speed.case import Case, Contestants, Goal
from skmoe import DeepMoERegressor, MoERegressor
from skmoe.datasets import make_compositional_regression
from skmoe.search import BatchedGridSearchCV

PLAIN, BATCHED = "GridSearchCV", "BatchedGridSearchCV"
SKORCH = "GridSearchCV over skorch"
N_ROWS, N_FOLDS = 5000, 5
EXPERTS, RATES = [2, 4, 8, 16], [0.003, 0.01, 0.03]
GRID = {"n_experts": EXPERTS, "learning_rate": RATES}
WIDTH, EPOCHS, BATCH = 16, 20, 128


def cases() -> Iterator[Case]:
    """Twelve candidates in five folds: sixty fits."""
    (small_case, small), (default_case, default) = small_and_default().items()
    yield _search(small_case, small, GRID, at_least=3, skorch_at_least=20)
    yield _search(default_case, default, GRID, at_least=3)
    deep = DeepMoERegressor(arrangement="ensemble", max_epochs=10)
    grid = {"n_experts": [2, 4], "learning_rate": [0.01, 0.02, 0.04], "weight_decay": [0, 0.01]}
    yield _search("ensemble of 8, 10 epochs", deep, grid)


def small_and_default() -> dict[str, MoERegressor]:
    """By name: one that takes little beside calls, and the usual one."""
    small = MoERegressor(hidden_dim=WIDTH, embedding=None, solver="adam", max_epochs=EPOCHS)
    return {
        f"experts of {WIDTH} units, no embedding": small,
        f"default MoERegressor, {EPOCHS} epochs": MoERegressor(max_epochs=EPOCHS),
    }


def searching(
    estimator: Any, grid: dict, seed: int
) -> tuple[np.ndarray, np.ndarray, Callable[..., None]]:
    """Data, and a function that runs a search of a kind on them; all kinds find the same."""
    X, y = make_compositional_regression(N_ROWS, n_blocks=2, random_state=seed)
    X, y = X.astype(np.float32), y.astype(np.float32)
    scores: dict[str, np.ndarray] = {}

    def run(kind: Any, n_folds: int = N_FOLDS) -> None:
        search = kind(estimator.set_params(random_state=seed), grid, cv=n_folds, refit=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            search.fit(X, y)
        scores[kind.__name__] = search.cv_results_["mean_test_score"]
        if len(scores) == 2:  # the same models, up to rounding that training magnifies
            np.testing.assert_allclose(*scores.values(), atol=0.05)

    return X, y, run


def _search(
    name: str,
    estimator: Any,
    grid: dict,
    at_least: float | None = None,
    skorch_at_least: float | None = None,
) -> Case:
    def make(seed: int) -> Contestants:
        X, y, run = searching(estimator, grid, seed)
        return {
            PLAIN: lambda: run(GridSearchCV),
            BATCHED: lambda: run(BatchedGridSearchCV),
            SKORCH: lambda: _search_over_skorch(X, y, seed),
        }

    goals = [Goal(PLAIN, BATCHED, at_least=at_least)]
    if skorch_at_least is not None:
        goals.append(Goal(SKORCH, BATCHED, at_least=skorch_at_least))
    return Case(f"search, 60 fits of {N_ROWS:,} rows, {name}", make, goals, turns=3)


class Mixture(nn.Module):
    """All experts, by the softmax of a linear gate: as one would write it in torch."""

    def __init__(self, n_inputs: int, n_experts: int = 8):
        super().__init__()
        self.gate = nn.Linear(n_inputs, n_experts)
        self.hidden = nn.Linear(n_inputs, n_experts * WIDTH)
        self.output = nn.Parameter(torch.randn(n_experts, WIDTH) / WIDTH**0.5)
        self.bias = nn.Parameter(torch.zeros(n_experts))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.hidden(x)).unflatten(1, (-1, WIDTH))
        answers = (hidden * self.output).sum(2) + self.bias
        return (torch.softmax(self.gate(x), 1) * answers).sum(1, keepdim=True)


def _search_over_skorch(X: np.ndarray, y: np.ndarray, seed: int) -> None:
    """The candidates of small experts, with a tenth of the rows for validation."""
    torch.manual_seed(seed)
    net = NeuralNetRegressor(
        Mixture,
        module__n_inputs=X.shape[1],
        max_epochs=EPOCHS,
        batch_size=BATCH,
        optimizer=torch.optim.AdamW,
        train_split=ValidSplit(10),
        iterator_train__shuffle=True,
        verbose=0,
    )
    grid = {"module__n_experts": EXPERTS, "lr": RATES}
    GridSearchCV(net, grid, cv=N_FOLDS, refit=False).fit(X, y[:, None])
