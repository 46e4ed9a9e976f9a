"""Error on combinations that were never seen, against depth.

Run ``python -m benchmarks.unseen_combinations [--seeds 5]``. Two targets that are composed step
by step (Zubić et al., 2024): three functions of three pieces one after the other, and the
product of two numbers whose digits are given. A quarter of the cells, combinations of pieces or
of leading digits, is held out. Contestants are stacks of one, two and four layers, with eight
experts and with one, which is a dense net of the same shape, and boosting, all by default
parameters. Results are RMSE over the standard deviation of the target, on fresh rows of seen
and of held-out cells.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from benchmarks.environment import describe
from benchmarks.frame import command_line, measure_missing, run_tasks, spread
from benchmarks.store import Row, Store, read_rows
from skmoe import DeepMoERegressor
from skmoe.datasets import make_iterated_regression, make_multiplication_regression

COLUMNS = ("task", "seed", "contestant", "status", "seen", "unseen")
N_TRAIN, N_TEST = 5000, 5000
FIRST_SEED = 1000
TASKS: dict[str, Callable] = {
    "three functions of three pieces": lambda n, **seeds: make_iterated_regression(
        n, n_steps=3, n_regions=3, holdout_cells=0.25, return_X_y=False, **seeds
    ),
    "product of two numbers of two digits": lambda n, **seeds: make_multiplication_regression(
        n, holdout_cells=0.25, return_X_y=False, **seeds
    ),
}
DEPTHS = (1, 2, 4)


def contestants(seed: int) -> dict:
    """Everyone, unfitted."""
    everyone: dict = {
        f"{name}, {depth} layers": DeepMoERegressor(
            depth, n_experts, arrangement="stack", random_state=seed
        )
        for name, n_experts in (("mixture", 8), ("dense", 1))
        for depth in DEPTHS
    }
    return everyone | {"HistGradientBoosting": HistGradientBoostingRegressor(random_state=seed)}


def run(store: Store, task: str, seed: int) -> None:
    """What is missing of one task and seed."""
    draw = TASKS[task]
    train = draw(N_TRAIN, task_random_state=FIRST_SEED + seed, random_state=seed)
    test = draw(N_TEST, task_random_state=FIRST_SEED + seed, random_state=10_000 + seed)
    X, y = train.data[~train.holdout], train.target[~train.holdout]

    def figures(model: Any) -> Row:
        errors = (model.fit(X, y).predict(test.data) - test.target) / y.std()
        seen, unseen = (
            float(np.sqrt(np.mean(errors[mask] ** 2))) for mask in (~test.holdout, test.holdout)
        )
        return {"seen": seen, "unseen": unseen}

    measure_missing(store, task, seed, contestants(seed), figures)


def report(store: Store) -> str:
    """The table in Markdown."""
    rows = read_rows(store.table)
    n_seeds = len({row["seed"] for row in rows})
    lines = [
        "# Combinations that were never seen",
        "",
        "`python -m benchmarks.unseen_combinations`: stacks of layers with eight experts or "
        f"one (dense), {N_TRAIN} rows, a quarter of the cells held out. NRMSE, median of "
        f"{n_seeds} seeds [smallest, largest].",
        "",
        describe(store.run()["sessions"][-1]),
    ]
    for task in TASKS:
        lines += [
            "",
            f"## {task}",
            "",
            "| contestant | seen cells | unseen cells | unseen / seen |",
        ]
        lines.append("|---|---|---|---|")
        for name in contestants(0):
            own = [r for r in rows if r["task"] == task and r["contestant"] == name]
            seen, unseen = (np.array([float(r[c]) for r in own]) for c in ("seen", "unseen"))
            if own:
                cells = " | ".join(
                    spread(values, 3) for values in (seen, unseen, unseen / seen)
                )
                lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def main(arguments=None) -> None:
    """Read the command line, run, report."""
    options = command_line(__doc__, "unseen_combinations").parse_args(arguments)
    run_tasks(options, COLUMNS, TASKS, run, report)


if __name__ == "__main__":
    main()
