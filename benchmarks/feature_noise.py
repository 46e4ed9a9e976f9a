"""Noise in the features: rows beside their manifold, or off the span of their factors.

Run ``python -m benchmarks.feature_noise [--seeds 3]``. Features of training and test rows have
normal noise, of so much of their standard deviation; targets have none. Everyone has default
parameters. ``embedding="piecewise_linear"`` lets the shallow mixture see all features, in
place of what they have in common. Boosting is also given the true number of principal axes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline

from benchmarks.environment import describe
from benchmarks.frame import command_line, measure_missing, run_tasks, spread
from benchmarks.headline import Split, measure
from benchmarks.store import Store, read_rows
from skmoe import DeepMoERegressor, MoERegressor
from skmoe.datasets import make_compositional_regression, make_manifold_regression

COLUMNS = ("task", "seed", "contestant", "status", "nrmse", "seconds")
N_TRAIN, N_TEST = 10_000, 5_000
FIRST_SEED = 1000
# Coordinates that the features are linear maps of, but for their noise.
N_AXES = {"torus": 4, "sphere": 3, "product": 6}


def _noisy(make: Callable, noise: float, **settings: Any) -> Callable[[int], Split]:
    def draw(seed: int) -> Split:
        seed = FIRST_SEED + seed
        X, y = make(N_TRAIN + N_TEST, random_state=seed, task_random_state=seed, **settings)
        random = np.random.RandomState(seed)
        X = X + noise * X.std() * random.standard_normal(X.shape)
        return X[:N_TRAIN], y[:N_TRAIN], X[N_TRAIN:], y[N_TRAIN:]

    return draw


def _manifold(manifold: str, target: str, noise: float) -> Callable[[int], Split]:
    settings = {"manifold": manifold, "target": target, "n_features": 50}
    return _noisy(make_manifold_regression, noise, **settings)


TASKS: dict[str, Callable[[int], Split]] = {
    "torus, pieces, noise 5 %": _manifold("torus", "pieces", 0.05),
    "torus, smooth, noise 5 %": _manifold("torus", "smooth", 0.05),
    "sphere, pieces, noise 20 %": _manifold("sphere", "pieces", 0.2),
    "product of 64 pieces, noise 5 %": _noisy(
        make_compositional_regression, 0.05, n_features=32
    ),
}


def contestants(task: str, seed: int) -> dict[str, Any]:
    """Ours for such a task, and others."""
    if task.startswith("product"):
        ours: dict[str, Any] = {"DeepMoERegressor": DeepMoERegressor(random_state=seed)}
    else:
        features = MoERegressor(embedding="piecewise_linear", random_state=seed)
        ours = {
            "MoERegressor": MoERegressor(random_state=seed),
            "MoERegressor, all features": features,
        }
    boosting = HistGradientBoostingRegressor(random_state=seed)
    true_axes = PCA(N_AXES[task.split()[0].strip(",")])
    return ours | {
        "HistGradientBoosting": boosting,
        "HistGradientBoosting, true number of axes": make_pipeline(true_axes, boosting),
        "5 neighbours": KNeighborsRegressor(),
    }


def run(store: Store, task: str, seed: int) -> None:
    """What is missing of one task and seed."""
    split = TASKS[task](seed)
    everyone = contestants(task, seed)
    measure_missing(store, task, seed, everyone, partial(measure, split=split))


def report(store: Store) -> str:
    """The table in Markdown."""
    rows = read_rows(store.table)
    tasks = [task for task in TASKS if any(row["task"] == task for row in rows)]
    lines = [
        "# Noise in the features",
        "",
        f"`python -m benchmarks.feature_noise`: NRMSE, median of "
        f"{len({row['seed'] for row in rows})} seeds [smallest, largest]; {N_TRAIN:,} training "
        "rows. Noise is in units of the standard deviation of the features.",
        "",
        describe(store.run()["sessions"][-1]),
        "",
        "| contestant | " + " | ".join(tasks) + " |",
        "|---|" + "---|" * len(tasks),
    ]
    for name in dict.fromkeys(row["contestant"] for row in rows):
        cells = []
        for task in tasks:
            own = [r for r in rows if r["contestant"] == name and r["task"] == task]
            cells.append(spread([float(row["nrmse"]) for row in own], 3))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments=None) -> None:
    """Read the command line, run, report."""
    options = command_line(__doc__, "feature_noise", seeds=3).parse_args(arguments)
    run_tasks(options, COLUMNS, TASKS, run, report)


if __name__ == "__main__":
    main()
