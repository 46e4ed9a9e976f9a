"""Few rows, and noisy ones: who learns them without learning the noise.

Run ``python -m benchmarks.few_rows [--seeds 5]``. Everyone has default parameters, and ours
also all the epochs there may be, and more experts, all of them asked or two. Tasks: the first
function of Friedman, with noise of a tenth and a half of its standard deviation on training
targets only; diabetes, concrete and airfoil, of whose rows three tenths are for testing.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV

from benchmarks.environment import describe
from benchmarks.frame import command_line, measure_missing, ratios, run_tasks, spread
from benchmarks.headline import Split, held_out, measure
from benchmarks.store import Row, Store, read_rows
from skmoe import DeepMoERegressor, MoERegressor
from skmoe.datasets import load_airfoil, load_concrete

COLUMNS = ("task", "seed", "contestant", "status", "nrmse", "seconds", "dead")
N_TEST = 5000
FIRST_SEED = 1000
DEFAULT = "MoERegressor"


def _friedman(n_rows: int, noise: float) -> Callable[[int], Split]:
    def draw(seed: int) -> Split:
        X, y = make_friedman1(n_rows + N_TEST, random_state=FIRST_SEED + seed)
        random = np.random.RandomState(FIRST_SEED + seed)
        noisy = y[:n_rows] + noise * y.std() * random.standard_normal(n_rows)
        return X[:n_rows], noisy, X[n_rows:], y[n_rows:]

    return draw


def _table(load: Callable) -> Callable[[int], Split]:
    return lambda seed: held_out(load, FIRST_SEED + seed)


TASKS: dict[str, Callable[[int], Split]] = {
    f"Friedman, {n_rows:,} rows, noise {noise}": _friedman(n_rows, noise)
    for n_rows in (200, 1000, 3000)
    for noise in (0.1, 0.5)
} | {
    "diabetes": _table(load_diabetes),
    "concrete": _table(load_concrete),
    "airfoil": _table(load_airfoil),
}


def contestants(seed: int) -> dict[str, Any]:
    """Everyone."""
    found: dict[str, Any] = {
        DEFAULT: MoERegressor(random_state=seed),
        f"{DEFAULT}, all epochs": MoERegressor(early_stopping=False, random_state=seed),
    }
    for n_experts in (16, 32):
        name = f"{DEFAULT}, {n_experts} experts"
        found[name] = MoERegressor(n_experts, random_state=seed)
        found[f"{name}, top 2"] = MoERegressor(n_experts, top_k=2, random_state=seed)
    return found | {
        "DeepMoERegressor": DeepMoERegressor(random_state=seed),
        "HistGradientBoosting": HistGradientBoostingRegressor(random_state=seed),
        "RidgeCV": RidgeCV(np.logspace(-3, 3, 13)),
    }


def run(store: Store, task: str, seed: int) -> None:
    """What is missing of one task and seed."""
    split = TASKS[task](seed)

    def figures(model: Any) -> Row:
        return {**measure(model, split), "dead": share_of_dead(model)}

    measure_missing(store, task, seed, contestants(seed), figures)


def share_of_dead(model: Any) -> float:
    """Of the experts, in units of one; none without experts."""
    usage = getattr(model, "expert_usage_", np.ones(1))
    return float(np.mean(usage < 0.1 / usage.shape[-1]))


def report(store: Store) -> str:
    """The table in Markdown."""
    rows = read_rows(store.table)
    tasks = [task for task in TASKS if any(row["task"] == task for row in rows)]
    n_seeds = len({row["seed"] for row in rows})
    lines = [
        "# Few rows, and noisy ones",
        "",
        f"`python -m benchmarks.few_rows`: NRMSE, median of {n_seeds} seeds "
        f"[smallest, largest]; over that of `{DEFAULT}`, the geometric mean of all ratios. "
        "Noise is in units of the target's standard deviation; test targets of Friedman's "
        "function have none. *Dead*: mean share of experts with less than a tenth of an even "
        "share of the routing weight.",
        "",
        describe(store.run()["sessions"][-1]),
        "",
        "| contestant | " + " | ".join(tasks) + f" | over `{DEFAULT}` | dead | fit s |",
        "|---|" + "---|" * (len(tasks) + 3),
    ]
    for name in contestants(0):
        own = [row for row in rows if row["contestant"] == name]
        errors = {
            task: [float(row["nrmse"]) for row in own if row["task"] == task] for task in tasks
        }
        over = np.exp(np.mean(np.log(ratios(rows, tasks, name, DEFAULT, "nrmse"))))
        dead = np.mean([float(row["dead"]) for row in own])
        seconds = np.median([float(row["seconds"]) for row in own])
        cells = [*(spread(errors[task], 3) for task in tasks), f"{over:.2f}", f"{dead:.2f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {seconds:.1f} |")
    return "\n".join(lines) + "\n"


def main(arguments=None) -> None:
    """Read the command line, run, report."""
    options = command_line(__doc__, "few_rows").parse_args(arguments)
    run_tasks(options, COLUMNS, TASKS, run, report)


if __name__ == "__main__":
    main()
