"""Methods outside skmoe: tuned on validation rows, or by default parameters.

Tuned ones choose on a tenth of the training rows and are fitted again on all of them.
Kernels cost too much on many rows: kernel ridge learns from some rows only, and the Nystroem
ridge searches on some.
"""

import logging
from dataclasses import replace

import numpy as np
from scipy.linalg import solve
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline

from benchmarks.contestants import by_name, on_scaled_target, scaled
from benchmarks.protocol import Contestant, PerFeature, Situation

KERNEL_RIDGE_ROWS = 8000
LANDMARKS = 2000
SEARCH_ROWS = 20_000  # of methods whose search would cost more than their fit is worth
BLOCK = 5000  # rows whose kernel is in memory at once
TREES = ("HistGradientBoosting", "LightGBM", "XGBoost")
NYSTROEM = "Nystroem + ridge"


class OnSomeRows(RegressorMixin, BaseEstimator):
    """A regressor that learns from at most `n_rows` random rows."""

    def __init__(self, regressor, n_rows=KERNEL_RIDGE_ROWS, random_state=0):
        self.regressor = regressor
        self.n_rows = n_rows
        self.random_state = random_state

    def fit(self, X, y):
        if len(X) > self.n_rows:
            rng = np.random.default_rng(self.random_state)
            rows = rng.choice(len(X), self.n_rows, replace=False)
            X, y = X[rows], y[rows]
        self.regressor_ = clone(self.regressor).fit(X, y)
        return self

    def predict(self, X):
        return _in_blocks(self.regressor_.predict, X)


class NystroemRidge(RegressorMixin, BaseEstimator):
    """Ridge regression on Nystroem features, whose products are summed block by block.

    The same function as ``Nystroem`` and ``Ridge`` in a row, in memory for one block.
    """

    def __init__(self, gamma=0.1, alpha=1e-3, n_components=LANDMARKS, random_state=0):
        self.gamma = gamma
        self.alpha = alpha
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X, y):
        n_components = min(self.n_components, len(X))
        order = np.random.RandomState(self.random_state).permutation(len(X))
        landmarks = X[order[:n_components]].astype(np.float64)
        self.map_ = Nystroem(gamma=self.gamma, n_components=n_components).fit(landmarks)
        mean = np.mean(y)
        gram, moments = np.zeros((n_components + 1,) * 2), np.zeros(n_components + 1)
        for start in range(0, len(X), BLOCK):
            block = slice(start, start + BLOCK)
            features = self._features(X[block])
            gram += features.T @ features
            moments += features.T @ (y[block] - mean)
        penalty = np.full(n_components + 1, self.alpha)
        penalty[-1] = 0.0
        gram[np.diag_indices_from(gram)] += penalty
        self.coef_, self.mean_ = solve(gram, moments, assume_a="sym"), mean
        return self

    def predict(self, X):
        return _in_blocks(lambda rows: self._features(rows) @ self.coef_ + self.mean_, X)

    def _features(self, X):
        # In float32 a smooth kernel keeps few of its eigenvalues: 3e-3 in place of 2e-8.
        features = self.map_.transform(X.astype(np.float64))
        return np.column_stack([features, np.ones(len(X))])


def _in_blocks(predict, X):
    starts = range(0, len(X), BLOCK)
    return np.concatenate([predict(X[start : start + BLOCK]) for start in starts])


def _kernel_ridge(s: Situation) -> Pipeline:
    some = OnSomeRows(on_scaled_target(KernelRidge(kernel="rbf")), random_state=s.seed)
    return scaled(model=some)


def _nystroem(s: Situation) -> Pipeline:
    return scaled(model=on_scaled_target(NystroemRidge(random_state=s.seed)))


def tuned_trees() -> list[Contestant]:
    """Boosted trees of up to 2,000 iterations and 255 leaves, chosen on validation rows."""
    grids = {
        "HistGradientBoosting": _trees("max_iter", "max_leaf_nodes", early_stopping=False),
        "LightGBM": _trees("n_estimators", "num_leaves"),
        "XGBoost": _trees("n_estimators", "max_leaves", max_depth=0, grow_policy="lossguide"),
    }
    return [_tuned(name, grid) for name, grid in grids.items()]


def _trees(iterations: str, leaves: str, **fixed) -> dict[str, list]:
    grid = {iterations: [500, 2000], leaves: [63, 255], "learning_rate": [0.05]}
    grid |= {name: [value] for name, value in fixed.items()}
    return {f"model__{name}": values for name, values in grid.items()}


def fixed_trees() -> list[Contestant]:
    """Boosted trees without a search, for tasks too many or too large for one."""
    boosting = {"max_iter": 500, "max_leaf_nodes": 63, "early_stopping": False}
    settings = {
        "HistGradientBoosting": boosting,
        "LightGBM": {"n_estimators": 500, "num_leaves": 63},
    }
    return [
        _tuned(name, {f"model__{k}": [v] for k, v in fixed.items()})
        for name, fixed in settings.items()
    ]


def _tuned(name: str, grid: dict, **more) -> Contestant:
    """A method of the menu over another grid; one short candidate in a trial."""
    trial = {key: values[:1] for key, values in grid.items()}
    for iterations in ("model__max_iter", "model__n_estimators"):
        if iterations in trial:
            trial[iterations] = [20]
    return replace(by_name(name), grids={"full": grid, "smoke": trial}, **more)


def tuned_kernels() -> list[Contestant]:
    """Nystroem ridge on all rows, and kernel ridge on some of them."""
    nystroem = {
        "model__regressor__gamma": PerFeature((0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
        "model__regressor__alpha": [1e-9, 1e-6, 1e-3],
    }
    ridge = {
        "model__regressor__regressor__gamma": PerFeature((0.03, 0.1, 0.3, 1.0, 3.0)),
        "model__regressor__regressor__alpha": [1e-6, 1e-3, 1e-1],
    }
    return [
        Contestant(NYSTROEM, "kernel", _nystroem, {"full": nystroem}, search_rows=SEARCH_ROWS),
        Contestant(
            f"kernel ridge, {KERNEL_RIDGE_ROWS:,} rows",
            "kernel",
            _kernel_ridge,
            {"full": ridge},
            search_rows=KERNEL_RIDGE_ROWS,
        ),
    ]


def tuned_neighbours() -> Contestant:
    """Neighbours, their number chosen."""
    grid = {"model__n_neighbors": [2, 5, 10], "model__weights": ["distance"]}
    return _tuned("KNeighbors", grid, search_rows=SEARCH_ROWS)


def _plain_boosting(s: Situation) -> Pipeline:
    return Pipeline([("model", HistGradientBoostingRegressor(random_state=s.seed))])


def _plain_mlp(s: Situation) -> Pipeline:
    return scaled(model=on_scaled_target(MLPRegressor(random_state=s.seed)))


def _plain_nystroem(s: Situation) -> Pipeline:
    landmarks = min(1000, len(s.X))
    features = Nystroem(n_components=landmarks, random_state=s.seed)
    return scaled(map=features, model=RidgeCV(alphas=10.0 ** np.arange(-6, 2)))


def _catboost(s: Situation) -> Pipeline:
    from catboost import CatBoostRegressor

    model = CatBoostRegressor(
        random_seed=s.seed, thread_count=s.threads, verbose=0, allow_writing_files=False
    )
    return Pipeline([("model", model)])


def _realmlp(s: Situation) -> Pipeline:
    from pytabkit import RealMLP_TD_Regressor

    return _pytabkit(RealMLP_TD_Regressor, s)


def _tabm(s: Situation) -> Pipeline:
    from pytabkit import TabM_D_Regressor

    return _pytabkit(TabM_D_Regressor, s)


def _pytabkit(kind: type, s: Situation) -> Pipeline:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    model = kind(device="cpu", random_state=s.seed, n_threads=s.threads)
    return Pipeline([("model", model)])


def default_peers() -> list[Contestant]:
    """Everyone by default parameters; boosted trees of other packages get 500 trees."""
    trees = {"model__n_estimators": [500]}
    epochs = {"full": {}, "smoke": {"model__n_epochs": [1]}}
    few_trees = {"full": {}, "smoke": {"model__iterations": [20]}}
    return [
        Contestant("HistGradientBoosting", "tree", _plain_boosting, {"full": {}}),
        _tuned("LightGBM", trees),
        _tuned("XGBoost", trees),
        Contestant("CatBoost", "tree", _catboost, few_trees, package="catboost"),
        Contestant("MLPRegressor", "net", _plain_mlp, {"full": {}}),
        Contestant(NYSTROEM, "kernel", _plain_nystroem, {"full": {}}),
        Contestant("RealMLP-TD", "net", _realmlp, epochs, package="pytabkit"),
        Contestant("TabM-D", "net", _tabm, epochs, package="pytabkit"),
    ]
