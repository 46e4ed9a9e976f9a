"""The rules of the comparison: what a contestant is, and how one is tuned and measured.

Every contestant is a `Pipeline` and is tuned by the same `GridSearchCV` on the same folds of
the training rows, or on one tenth of them; the best candidate is fitted again on all of them
and asked once for the test rows. Test rows decide nothing.
"""

import hashlib
import importlib.util
import inspect
import json
import re
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, ParameterGrid, ShuffleSplit
from sklearn.pipeline import Pipeline

from benchmarks.dense_twin import active_multiply_adds, matched_grid

# What a measured row adds to those of the task; a table's columns are these in this order.
MEASURES = (
    "status",
    "nrmse",
    "rmse",
    "mse",
    "r2",
    "cv_nrmse",
    "search_seconds",
    "fit_seconds",
    "predict_seconds",
    "n_candidates",
    "n_parameters",
    "active_multiply_adds",
    "best_params",
    "warnings",
    "message",
)


# Share of the training rows that choose among candidates where there are no folds.
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Situation:
    """What a pipeline may know before it is tuned: training rows, seed, threads, folds.

    One fold stands for a single validation split, of `VALIDATION_SHARE` of the rows. `costs`
    are multiply-adds per row of contestants that were measured before on the same rows.
    """

    X: np.ndarray
    y: np.ndarray
    seed: int
    threads: int
    folds: int
    costs: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_features(self) -> int:
        return self.X.shape[1]

    @property
    def fold_rows(self) -> int:
        """Rows that a candidate is fitted on in the search."""
        n = len(self.X)
        if self.folds == 1:
            return n - int(np.ceil(n * VALIDATION_SHARE))
        return n - -(-n // self.folds)

    @property
    def splits(self) -> KFold | ShuffleSplit:
        """How candidates are compared."""
        if self.folds == 1:
            return ShuffleSplit(1, test_size=VALIDATION_SHARE, random_state=self.seed)
        return KFold(self.folds, shuffle=True, random_state=self.seed)


@dataclass(frozen=True)
class PerFeature:
    """Values of a kernel's gamma, each divided by the number of features."""

    values: tuple[float, ...]

    def resolve(self, s: Situation) -> list[float]:
        return [value / s.n_features for value in self.values]


@dataclass(frozen=True)
class Contestant:
    """One method.

    Parameters
    ----------
    name : str
        As tables show it.
    kind : {"ours", "control", "kernel", "tree", "neighbours", "net"}
        Colour in plots; "ours" and "control" are set apart in the report.
    build : callable
        `Situation` -> `Pipeline`.
    grids : dict
        Parameter grid of each level of effort, "demo" and "full"; of others, such as
        "smoke", the first point of "demo" where there is none. A list in a grid may be an
        object with a method ``resolve(situation)``, and so may a whole grid.
    max_rows : int or None
        Largest number of training rows at which the method is run.
    package : str or None
        Optional package that it needs.
    search_rows : int or None
        Largest number of rows for the search; the best candidate is fitted on all.
    search_once : bool
        Whether the candidate that won for the first seed of a task is kept for the others.
    """

    name: str
    kind: str
    build: Callable[[Situation], Pipeline]
    grids: dict[str, Any]
    max_rows: int | None = None
    package: str | None = None
    search_rows: int | None = None
    search_once: bool = False

    def grid(self, s: Situation, level: str) -> dict | list[dict]:
        """The grid for this situation, as `GridSearchCV` takes it."""
        if level not in self.grids:
            return _first(self.grid(s, "demo" if "demo" in self.grids else "full"))
        grid = self.grids[level]
        if not isinstance(grid, dict):
            return grid.resolve(s)
        return {k: v.resolve(s) if hasattr(v, "resolve") else v for k, v in grid.items()}

    def definition(self, level: str) -> str:
        """What the rows of this method depend on, as far as it is written here."""
        grid = self.grids.get(level, self.grids["demo"])
        source = inspect.getsource(self.build).encode()
        return f"{grid!r}, built by {hashlib.sha256(source).hexdigest()[:8]}"

    def obstacle(self, n_rows: int) -> tuple[str, str] | None:
        """Status and reason if the method cannot run on so many rows or is not installed."""
        if self.package and importlib.util.find_spec(self.package) is None:
            return "not installed", f"pip install {self.package}"
        if self.max_rows is not None and n_rows > self.max_rows:
            return "skipped", f"runs up to {self.max_rows} training rows, here {n_rows}"
        return None


@dataclass(frozen=True)
class Matched:
    """The grid of a control: each point of `grid` of one of ours, at equal active cost.

    That is the cost of the fit of `measured` on the same rows, if it was measured before; else
    what our network of the point costs.
    """

    control: str
    build: Callable[[Situation], Pipeline]
    grid: dict[str, list]
    measured: str | None = None

    def resolve(self, s: Situation) -> list[dict[str, list]]:
        ours = self.build(s).named_steps["moe"]
        points = [
            {name.removeprefix("moe__"): value for name, value in point.items()}
            for point in ParameterGrid(self.grid)
        ]
        # Sizes are matched on features as the estimator will see them, standardised.
        X = self.build(s)[:-1].fit_transform(s.X)
        cost = s.costs.get(self.measured)
        candidates = matched_grid(self.control, ours, points, X, s.y, cost)
        return [{f"moe__{k}": [v] for k, v in one.items()} for one in candidates]

    def __repr__(self) -> str:
        return f"Matched({self.control!r}, {self.grid!r}, {self.measured!r})"


def _first(grid: dict | list[dict]) -> dict:
    """A grid of one point."""
    one = grid if isinstance(grid, dict) else grid[0]
    return {name: values[:1] for name, values in one.items()}


def measure(
    contestant: Contestant,
    s: Situation,
    X_test: np.ndarray,
    y_test: np.ndarray,
    level: str,
    unseen: tuple[np.ndarray, np.ndarray] | None = None,
    choice: int | None = None,
) -> dict[str, Any]:
    """Tune, fit and test one contestant; an error becomes part of the row.

    Parameters
    ----------
    contestant : Contestant
    s : Situation
    X_test, y_test : ndarray
        Test rows.
    level : str
        Name of the grid.
    unseen : tuple of ndarray, optional
        More test rows, of cells that have no training rows: gives ``nrmse_unseen``.
    choice : int, optional
        Index of the candidate to take, without a search.

    Returns
    -------
    dict
        A value for each of `MEASURES` that there is.
    """
    obstacle = contestant.obstacle(len(s.X))
    if obstacle:
        return {"status": obstacle[0], "message": obstacle[1]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model, found = tuned(contestant, s, level, choice)
            row = {"status": "ok", **_tested(model, X_test, y_test), **found}
            if unseen is not None:
                row["nrmse_unseen"] = errors(unseen[1], model.predict(unseen[0]))["nrmse"]
        except Exception as error:
            row = {"status": "failed", "message": _last_line(error)}
    kinds = Counter(warning.category.__name__ for warning in caught)
    return row | {"warnings": "; ".join(f"{kind} x{n}" for kind, n in kinds.items())}


def tuned(
    contestant: Contestant, s: Situation, level: str, choice: int | None = None
) -> tuple[Pipeline, dict[str, Any]]:
    """The best candidate, fitted on all training rows, and what a row says of the search."""
    points = list(ParameterGrid(contestant.grid(s, level)))
    if choice is not None:
        points = [points[min(choice, len(points) - 1)]]
    found = {"n_candidates": len(points), "choice": choice or 0}
    pipeline = contestant.build(s)
    # A single candidate needs no validation rows; folds still tell its error.
    if len(points) > 1 or s.folds > 1:
        found |= _searched(contestant, pipeline, points, s)
    best = points[found["choice"] if choice is None else 0]
    model = clone(pipeline).set_params(**best)
    started, cpu_started = time.perf_counter(), time.process_time()
    model.fit(s.X, s.y)
    found["fit_seconds"] = time.perf_counter() - started
    # Does not grow when other programs use the machine, as the clock on the wall does.
    found["fit_cpu_seconds"] = time.process_time() - cpu_started
    found["best_params"] = json.dumps(best, default=str)
    return model, found | _sizes(model)


def _searched(contestant, pipeline, points, s: Situation) -> dict[str, Any]:
    """Which candidate is best, its error on held-out rows, and seconds of the search."""
    search = GridSearchCV(
        pipeline,
        [{name: [value] for name, value in point.items()} for point in points],
        scoring="neg_root_mean_squared_error",
        cv=s.splits,
        error_score="raise",
        refit=False,
    )
    X, y = s.X, s.y
    if contestant.search_rows is not None and len(X) > contestant.search_rows:
        rng = np.random.default_rng(s.seed)
        rows = rng.choice(len(X), contestant.search_rows, replace=False)
        X, y = X[rows], y[rows]
    started = time.perf_counter()
    search.fit(X, y)
    return {
        "choice": int(search.best_index_),
        "cv_nrmse": float(-search.best_score_ / np.std(y)),
        "search_seconds": time.perf_counter() - started,
    }


def _tested(model: Pipeline, X_test: np.ndarray, y_test: np.ndarray) -> dict[str, float]:
    started = time.perf_counter()
    predicted = model.predict(X_test)
    seconds = time.perf_counter() - started
    return {**errors(y_test, predicted), "predict_seconds": seconds}


def errors(y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """RMSE in units of y, its square, RMSE over the deviation of y, and R2."""
    if not np.isfinite(predicted).all():
        raise FloatingPointError("predictions are not finite")
    mse = float(np.mean((y - predicted) ** 2))
    variance = float(np.var(y))
    return {
        "nrmse": float(np.sqrt(mse / variance)),
        "rmse": float(np.sqrt(mse)),
        "mse": mse,
        "r2": 1 - mse / variance,
    }


def _sizes(pipeline: Pipeline) -> dict[str, Any]:
    """Size of a net, its multiply-adds per row and dead experts; nothing for other methods."""
    model = pipeline[-1]
    model = getattr(model, "regressor_", model)
    if hasattr(model, "net_"):
        usage = np.atleast_2d(model.expert_usage_)
        n_layers, n_experts = usage.shape
        return {
            "n_parameters": sum(tensor.numel() for tensor in model.net_.parameters()),
            "active_multiply_adds": active_multiply_adds(model.net_),
            "n_layers": n_layers,
            "n_experts": n_experts,
            "dead_experts": float(np.mean(usage < 1 / (10 * n_experts))),
        }
    if hasattr(model, "coefs_"):
        cost = sum(weight.size for weight in model.coefs_)
        n_biases = sum(bias.size for bias in model.intercepts_)
        return {"n_parameters": cost + n_biases, "active_multiply_adds": cost}
    return {}


def _last_line(error: BaseException) -> str:
    lines = traceback.format_exception_only(error)[-1].strip().splitlines()
    # Paths say nothing to a reader of the table.
    return re.sub(r"(/[^\s/'\":]+){2,}/?", "<path>", lines[0])[:300]
