"""What default parameters give: skmoe, its controls of equal active cost, and boosting.

Run ``python -m benchmarks.headline [--data FILE.npz ...] [--seeds 3]``. Without data the task
is a compositional target with 64 pieces, rotated into 32 features; a file holds ``X``, ``y``
and ``test_mask``, a boolean column for each split. Nobody is tuned but the dense net. The
controls are those of `benchmarks.dense_twin`: the same network with one expert, and a dense
net, both as costly per row as ours before a fit finds regions. Results are NRMSE, test RMSE
over the standard deviation of the test targets, as medians over seeds or splits with their
range.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GridSearchCV, ShuffleSplit, train_test_split

from benchmarks.accuracy.ours import AUTO_RATE, RATE_FACTORS
from benchmarks.dense_twin import matched_grid
from benchmarks.environment import describe
from benchmarks.frame import command_line, measure_missing, run_and_report
from benchmarks.protocol import VALIDATION_SHARE
from benchmarks.store import Store, read_rows
from skmoe import DeepMoERegressor, MoERegressor
from skmoe.datasets import make_compositional_regression

COLUMNS = ("task", "seed", "contestant", "status", "nrmse", "seconds")
N_TRAIN, N_TEST = 10_000, 5_000

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def composition(seed: int) -> Split:
    """Three blocks of four regions, rotated into 32 features."""
    X, y = make_compositional_regression(
        N_TRAIN + N_TEST, n_features=32, random_state=1000 + seed
    )
    return X[:N_TRAIN], y[:N_TRAIN], X[N_TRAIN:], y[N_TRAIN:]


def table(file: Path) -> Callable[[int], Split]:
    """The fixed splits of a file."""

    def split(seed: int) -> Split:
        content = np.load(file)
        X, y = content["X"], content["y"].ravel()
        test = content["test_mask"][:, seed].astype(bool)
        return X[~test], y[~test], X[test], y[test]

    return split


def held_out(load: Callable, seed: int) -> Split:
    """Three tenths of a table of `skmoe.datasets` or scikit-learn to test on."""
    X, y = load(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        np.asarray(X), np.asarray(y), test_size=0.3, random_state=seed
    )
    return X_train, y_train, X_test, y_test


def contestants(seed: int, X: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Everyone, with default parameters."""
    deep = DeepMoERegressor(random_state=seed)
    (one_expert,) = matched_grid("one expert", deep, [{}], X, y)
    everyone: dict[str, Any] = {
        "DeepMoERegressor": deep,
        "one expert, equal cost": DeepMoERegressor(random_state=seed, **one_expert),
        "dense twin, equal cost, tuned": dense_twin(seed, X, y),
        "MoERegressor": MoERegressor(random_state=seed),
        "HistGradientBoosting": HistGradientBoostingRegressor(random_state=seed),
    }
    try:
        from lightgbm import LGBMRegressor
    except ImportError:
        return everyone
    return everyone | {"LightGBM": LGBMRegressor(random_state=seed, verbose=-1)}


def dense_twin(seed: int, X: np.ndarray, y: np.ndarray) -> GridSearchCV:
    """The dense twin; its depth, embedding and learning rate are chosen on validation rows."""
    deep = DeepMoERegressor(random_state=seed)
    rates = [{"learning_rate": AUTO_RATE * factor} for factor in RATE_FACTORS]
    grid = [
        {name: [value] for name, value in one.items()}
        for one in matched_grid("dense twin", deep, rates, X, y)
    ]
    rows = ShuffleSplit(1, test_size=VALIDATION_SHARE, random_state=seed)
    return GridSearchCV(deep, grid, scoring="neg_mean_squared_error", cv=rows)


def measure(model, split: Split) -> dict[str, float]:
    """Test error and seconds of the fit."""
    X, y, X_test, y_test = split
    started = time.perf_counter()
    model.fit(X, y)
    seconds = time.perf_counter() - started
    return {"nrmse": nrmse(model, X_test, y_test), "seconds": seconds}


def nrmse(model, X, y) -> float:
    """RMSE over the standard deviation of the targets."""
    rmse = np.sqrt(np.mean((model.predict(X) - y) ** 2))
    return float(rmse / np.std(y))


def run(store: Store, name: str, draw: Callable[[int], Split], n_seeds: int) -> None:
    """Measure what is missing of one task, contestants interleaved within each seed."""
    for seed in range(n_seeds):
        split = draw(seed)
        everyone = contestants(seed, *split[:2])
        measure_missing(store, name, seed, everyone, partial(measure, split=split))


def report(store: Store) -> str:
    """The table in Markdown."""
    rows = read_rows(store.table)
    lines = [
        "# Default parameters",
        "",
        "NRMSE, median [range]; `python -m benchmarks.headline`. Last column: error over "
        "that of `DeepMoERegressor`, median over seeds.",
        "",
        describe(store.run()["sessions"][-1]),
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        lines += ["", f"## {task}", "", "| contestant | NRMSE | fit s | error / ours |"]
        lines.append("|---|---|---|---|")
        ours = _errors(rows, task, "DeepMoERegressor")
        for contestant in dict.fromkeys(row["contestant"] for row in rows):
            errors = _errors(rows, task, contestant)
            seconds = _errors(rows, task, contestant, "seconds")
            ratio = np.median([errors[seed] / ours[seed] for seed in errors if seed in ours])
            values = list(errors.values())
            lines.append(
                f"| {contestant} | {np.median(values):.4f} [{min(values):.4f}, "
                f"{max(values):.4f}] | {np.median(list(seconds.values())):.0f} | {ratio:.2f} |"
            )
    return "\n".join(lines) + "\n"


def _errors(rows, task: str, contestant: str, column: str = "nrmse") -> dict[str, float]:
    return {
        row["seed"]: float(row[column])
        for row in rows
        if row["task"] == task and row["contestant"] == contestant
    }


def main(arguments=None) -> None:
    """Read the command line, run, report."""
    parser = command_line(__doc__, "headline", seeds=3)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    options = parser.parse_args(arguments)
    tasks = {file.stem: table(file) for file in options.data}
    tasks = tasks or {f"composition, 64 pieces, n = {N_TRAIN:,}, D = 32": composition}

    def work(store: Store) -> None:
        for name, draw in tasks.items():
            run(store, name, draw, options.seeds)

    run_and_report(options, COLUMNS, work, report)


if __name__ == "__main__":
    main()
