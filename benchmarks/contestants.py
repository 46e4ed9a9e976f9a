"""Who takes part: one entry per method, with what it is and the grid it is tuned over.

All methods get standardised features where scale matters to them, and a standardised target
where they cannot find its level themselves. Grids of kernels are in units of the data:
`PerFeature` values c mean ``c / D``, which for standardised features is scikit-learn's
``gamma="scale"`` times c. To add a method, add an entry to `CONTESTANTS` at the bottom.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from benchmarks.protocol import Contestant, Matched, PerFeature, Situation

LANDMARKS = 1000  # of the Nystroem approximation, where there are as many rows


def scaled(**steps: Any) -> Pipeline:
    """A pipeline that standardises the features first."""
    return Pipeline([("scale", StandardScaler()), *steps.items()])


def on_scaled_target(regressor: Any) -> TransformedTargetRegressor:
    """The regressor on a standardised target."""
    return TransformedTargetRegressor(regressor, transformer=StandardScaler())


# Our estimators and everything heavy are imported where they are built: a plain listing of
# the contestants stays quick.


def _deep(s: Situation) -> Pipeline:
    from skmoe import DeepMoERegressor

    return scaled(moe=DeepMoERegressor(random_state=s.seed))


def _shallow(s: Situation) -> Pipeline:
    from skmoe import MoERegressor

    return scaled(moe=MoERegressor(random_state=s.seed))


def _kernel_ridge(s: Situation) -> Pipeline:
    return scaled(model=on_scaled_target(KernelRidge(kernel="rbf")))


def _svr(s: Situation) -> Pipeline:
    return scaled(model=on_scaled_target(SVR(cache_size=500)))


def _gaussian_process(s: Situation) -> Pipeline:
    return scaled(model=GaussianProcessRegressor(normalize_y=True, random_state=s.seed))


@dataclass(frozen=True)
class Processes:
    """Kernels of Gaussian processes: by the smoothness of a Matern kernel, inf for RBF."""

    smoothness: tuple[float, ...]

    def resolve(self, s: Situation) -> list[Any]:
        # The typical distance of standardised rows is a start from which all scales are found.
        length = np.sqrt(s.n_features)
        return [
            ConstantKernel(1.0, (1e-3, 1e4)) * Matern(length, (1e-2, 1e4), nu=nu)
            + WhiteKernel(1e-2, (1e-9, 1e1))
            for nu in self.smoothness
        ]


def _nystroem(s: Situation) -> Pipeline:
    landmarks = min(LANDMARKS, s.fold_rows)
    return scaled(map=Nystroem(n_components=landmarks, random_state=s.seed), model=Ridge())


def _forest(s: Situation) -> Pipeline:
    return Pipeline([("model", RandomForestRegressor(n_jobs=s.threads, random_state=s.seed))])


def _hist_gradient_boosting(s: Situation) -> Pipeline:
    return Pipeline([("model", HistGradientBoostingRegressor(random_state=s.seed))])


def _lightgbm(s: Situation) -> Pipeline:
    from lightgbm import LGBMRegressor

    model = LGBMRegressor(subsample_freq=1, n_jobs=s.threads, random_state=s.seed, verbosity=-1)
    return Pipeline([("model", model)])


def _xgboost(s: Situation) -> Pipeline:
    from xgboost import XGBRegressor

    return Pipeline(
        [("model", XGBRegressor(n_jobs=s.threads, random_state=s.seed, verbosity=0))]
    )


def _neighbours(s: Situation) -> Pipeline:
    return scaled(model=KNeighborsRegressor(n_jobs=s.threads))


def _mlp(s: Situation) -> Pipeline:
    model = MLPRegressor(max_iter=500, early_stopping=False, random_state=s.seed)
    return scaled(model=on_scaled_target(model))


RATES = [1e-3, 3e-3, 1e-2]  # learning rates of all nets of ours and of their controls

# Likewise, in the demo, where ours have the sizes that they take by default: a search would
# take most of its time.
QUICK = {"moe__dtype": ["float32"]}
DEEP = Contestant(
    "DeepMoERegressor",
    "ours",
    _deep,
    {
        "smoke": {"moe__n_experts": [4], "moe__n_layers": [2], "moe__max_epochs": [20]},
        "demo": QUICK,
        "full": {
            "moe__n_experts": [4, 8, 16],
            "moe__n_layers": [3, 6, 12],
            "moe__learning_rate": RATES,
        },
    },
)
SHALLOW = Contestant(
    "MoERegressor",
    "ours",
    _shallow,
    {
        "smoke": {"moe__n_experts": [4], "moe__top_k": [2], "moe__max_epochs": [20]},
        "demo": QUICK,
        "full": {
            "moe__n_experts": [4, 16, 64],
            "moe__top_k": [None, 2],
            "moe__learning_rate": RATES,
        },
    },
)


def _control(
    name: str, ours: Contestant, control: str, measured: str | None = None
) -> Contestant:
    """A control runs over the grid of the estimator that it is compared with."""
    grids = {k: Matched(control, ours.build, grid, measured) for k, grid in ours.grids.items()}
    return Contestant(name, "control", ours.build, grids)


CONTESTANTS: tuple[Contestant, ...] = (
    DEEP,
    _control("one expert (deep)", DEEP, "one expert"),
    _control("dense twin", DEEP, "dense twin", DEEP.name),
    SHALLOW,
    _control("one expert (shallow)", SHALLOW, "one expert"),
    Contestant(
        "KernelRidge",
        "kernel",
        _kernel_ridge,
        {
            "demo": {
                "model__regressor__alpha": [1e-6, 1e-3, 1e-1],
                "model__regressor__gamma": PerFeature((0.1, 1.0, 10.0)),
            },
            "full": {
                "model__regressor__kernel": ["rbf", "laplacian"],
                "model__regressor__alpha": [1e-8, 1e-6, 1e-4, 1e-2, 1e0],
                "model__regressor__gamma": PerFeature((0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)),
            },
        },
        max_rows=8000,
    ),
    Contestant(
        "SVR",
        "kernel",
        _svr,
        {
            "demo": {
                "model__regressor__C": [1.0, 30.0],
                "model__regressor__gamma": PerFeature((0.3, 1.0, 3.0)),
                "model__regressor__epsilon": [0.03],
            },
            "full": {
                "model__regressor__C": [0.3, 3.0, 30.0, 300.0],
                "model__regressor__gamma": PerFeature((0.1, 0.3, 1.0, 3.0, 10.0)),
                "model__regressor__epsilon": [0.01, 0.1],
            },
        },
        max_rows=10_000,
    ),
    Contestant(
        "GaussianProcess",
        "kernel",
        _gaussian_process,
        {
            "demo": {"model__kernel": Processes((2.5,))},
            "full": {
                "model__kernel": Processes((1.5, 2.5, np.inf)),
                "model__n_restarts_optimizer": [1],
            },
        },
        max_rows=1500,
    ),
    Contestant(
        "Nystroem + ridge",
        "kernel",
        _nystroem,
        {
            "demo": {
                "map__gamma": PerFeature((0.1, 1.0, 10.0)),
                "model__alpha": [1e-6, 1e-3, 1e-1],
            },
            "full": {
                "map__gamma": PerFeature((0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)),
                "model__alpha": [1e-8, 1e-6, 1e-4, 1e-2, 1e0],
            },
        },
    ),
    Contestant(
        "RandomForest",
        "tree",
        _forest,
        {
            "demo": {"model__max_features": [0.5, 1.0]},
            "full": {
                "model__n_estimators": [300],
                "model__max_features": [0.33, 0.66, 1.0],
                "model__min_samples_leaf": [1, 3],
            },
        },
    ),
    Contestant(
        "HistGradientBoosting",
        "tree",
        _hist_gradient_boosting,
        {
            "demo": {"model__max_iter": [200], "model__max_leaf_nodes": [8, 31]},
            "full": {
                "model__max_iter": [300, 1000, 2000],
                "model__learning_rate": [0.03, 0.1],
                "model__max_leaf_nodes": [15, 63],
                "model__early_stopping": [False],
            },
        },
    ),
    Contestant(
        "LightGBM",
        "tree",
        _lightgbm,
        {
            "demo": {"model__n_estimators": [300], "model__num_leaves": [8, 31]},
            "full": {
                "model__n_estimators": [300, 1000, 2000],
                "model__learning_rate": [0.03, 0.1],
                "model__num_leaves": [15, 63],
                "model__subsample": [0.8],
            },
        },
        package="lightgbm",
    ),
    Contestant(
        "XGBoost",
        "tree",
        _xgboost,
        {
            "demo": {"model__n_estimators": [300], "model__max_depth": [3, 6]},
            "full": {
                "model__n_estimators": [300, 1000, 2000],
                "model__learning_rate": [0.03, 0.1],
                "model__max_depth": [4, 7],
                "model__subsample": [0.8],
            },
        },
        package="xgboost",
    ),
    Contestant(
        "KNeighbors",
        "neighbours",
        _neighbours,
        {
            "demo": {
                "model__n_neighbors": [2, 5, 10],
                "model__weights": ["uniform", "distance"],
            },
            "full": {
                "model__n_neighbors": [1, 2, 3, 5, 10, 20],
                "model__weights": ["uniform", "distance"],
            },
        },
    ),
    Contestant(
        "MLPRegressor",
        "net",
        _mlp,
        {
            "demo": {
                "model__regressor__hidden_layer_sizes": [(64, 64)],
                "model__regressor__learning_rate_init": [1e-3, 1e-2],
            },
            "full": {
                "model__regressor__hidden_layer_sizes": [(128, 128), (256, 256, 256)],
                "model__regressor__learning_rate_init": RATES,
                "model__regressor__alpha": [1e-5, 1e-2],
            },
        },
    ),
)


def by_name(name: str) -> Contestant:
    """The contestant of this name."""
    for contestant in CONTESTANTS:
        if contestant.name == name:
            return contestant
    raise ValueError(f"contestants are {[c.name for c in CONTESTANTS]}. Got {name!r}.")
