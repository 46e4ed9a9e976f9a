"""Goal 3: errors on combinations of regions that had no training rows."""

import numpy as np

from benchmarks.accuracy import ours
from benchmarks.accuracy.compositional import (
    D_ROTATED,
    N_TEST,
    N_TRAIN,
    contestants,
    controls,
    outsiders,
)
from benchmarks.accuracy.goal import Goal, Options
from benchmarks.accuracy.results import Line, Results, per_task
from benchmarks.tasks import FIRST_DATA_SEED, Split, Task
from skmoe.datasets import make_compositional_regression

SHARE = 0.25
OF_OTHERS, OF_SEEN = 0.5, 1.5
COLUMNS = {"NRMSE, seen cells": "nrmse", "unseen cells": "nrmse_unseen", "fit s": "fit_seconds"}


def _task(options: Options, combine: str) -> Task:
    n_train, n_test = options.rows(N_TRAIN), options.rows(N_TEST)
    settings = {"combine": combine, "n_features": D_ROTATED, "holdout_cells": SHARE}

    def make(seed: int) -> Split:
        data = make_compositional_regression(
            n_train + n_test, **settings, return_X_y=False, random_state=FIRST_DATA_SEED + seed
        )
        seen, unseen = ~data.holdout, data.holdout
        X, y = data.data[seen], data.target[seen]
        return Split(
            *(X[:n_train], y[:n_train], X[n_train:], y[n_train:]),
            *(data.data[unseen], data.target[unseen]),
        )

    spec = {"n_train": n_train, "n_test": n_test, **settings}
    facts = {"D": D_ROTATED, "d": 6, "cells": 64}
    return Task(f"{combine}, rotated", "compositional", make, spec, facts)


def tasks(options: Options) -> list[Task]:
    return [_task(options, combine) for combine in ("product", "sine")]


def lines(results: Results) -> list[Line]:
    found = []
    for task in results.tasks:
        others = [*outsiders(results, task), *controls(results, task)]
        unseen = results.ratios_to_best(task, ours.DEEP, others, "nrmse_unseen")
        found.append(
            Line(f"{task}: unseen cells, error / best other of each seed", unseen, OF_OTHERS)
        )
        to_seen = results.ratios(task, ours.DEEP, ours.DEEP, "nrmse_unseen", "nrmse")
        found.append(Line(f"{task}: error on unseen / on seen cells", to_seen, OF_SEEN))
    return found


def tables(results: Results) -> list[str]:
    return [
        per_task(results, task, COLUMNS, ours.DEEP) + _gap(results, task)
        for task in results.tasks
    ]


def _gap(results: Results, task: str) -> str:
    """How much of the error on unseen cells each has on seen ones."""
    parts = [
        f"{name} {np.median(ratios):.2f}"
        for name in results.measured(task)
        if (ratios := results.ratios(task, name, name, "nrmse_unseen", "nrmse"))
    ]
    return f"\n\nUnseen over seen, medians: {', '.join(parts)}." if parts else ""


GOAL = Goal(
    3,
    "recombination",
    f"A quarter of the 64 cells has no training rows; {N_TRAIN:,} training rows in the others. "
    "An unseen cell only combines regions of blocks that were all seen. Contestants and their "
    "tuning are those of goal 2; validation rows lie in seen cells, as a user would have them. "
    "The last column compares errors on seen cells.",
    tasks,
    contestants,
    lines,
    tables,
)
