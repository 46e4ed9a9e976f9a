"""The one loop of all goals: seeds, then tasks, then contestants, a row for each fit."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.environment import record
from benchmarks.protocol import MEASURES, Contestant, Situation, measure
from benchmarks.store import KEY, Row, Store
from benchmarks.tasks import Split, Task

if TYPE_CHECKING:
    from benchmarks.accuracy.goal import Options

EXTRA = ("fit_cpu_seconds", "nrmse_unseen", "choice", "n_layers", "n_experts", "dead_experts")
SAID_BY_NRMSE = ("rmse", "mse", "r2")
COLUMNS = (
    *(*KEY, "n_train", "D", "threads"),
    *(name for name in MEASURES if name not in SAID_BY_NRMSE),
    *EXTRA,
)

Job = tuple[Task, int, Contestant]


def store_of(folder: Path) -> Store:
    """The folder of a goal; several processes may fill it."""
    return Store(folder, COLUMNS, shared=True)


def run(
    number: int,
    tasks: list[Task],
    contestants: Callable[[Task], list[Contestant]],
    folder: Path,
    options: "Options",
) -> None:
    """Measure what is missing.

    Parameters
    ----------
    number : int
        Number of the goal.
    tasks : list of Task
    contestants : callable
        `Task` -> list of `Contestant`.
    folder : Path
        Where rows are kept.
    options : Options
    """
    plan = list(_plan(tasks, contestants, options))
    if not plan:
        raise ValueError("--tasks and --contestants must match something. They match nothing.")
    store = store_of(folder)
    if options.again is not None:
        names = {job[2].name for job in plan if re.search(options.again, job[2].name)}
        store.forget({job[0].name for job in plan}, names)
    store.start_session(_settings(number, plan, options), record(options.threads))
    again = {None, "not installed"} | ({"failed"} if options.retry_failed else set())
    rows = Rows()
    for task, seed, contestant in plan:
        # Asked now, not before: another process may have measured it meanwhile.
        if store.status(task.name, seed, contestant.name) in again:
            row = _measured(store, task, seed, contestant, rows.of(task, seed), options)
            store.add(row)
            _say(row)


def _plan(tasks, contestants, options: "Options") -> Iterator[Job]:
    """Seeds outermost: an interrupted run has something on every task."""
    chosen = [task for task in tasks if re.search(options.tasks, task.name)]
    for seed in range(options.seeds):
        for task in chosen:
            if task.n_splits is not None and seed >= task.n_splits:
                continue
            for contestant in contestants(task):
                if re.search(options.contestants, contestant.name):
                    yield task, seed, contestant


def _settings(number: int, plan: list[Job], options: "Options") -> dict:
    """What defines the numbers: rows under other settings must not be mixed in."""
    return {
        "goal": number,
        "level": options.level,
        "tasks": {task.name: _plain(task.spec) for task, _, _ in plan},
        "contestants": {c.name: repr(c.grids.get(options.level, "first")) for _, _, c in plan},
    }


def _plain(spec: dict) -> dict:
    """The definition as JSON gives it back."""
    return {k: v if isinstance(v, int | float | str) else repr(v) for k, v in spec.items()}


class Rows:
    """The rows of one task and seed, made once for all contestants."""

    def __init__(self) -> None:
        self._key: tuple[str, int] | None = None
        self._split: Split | None = None

    def of(self, task: Task, seed: int) -> Split:
        if self._split is None or self._key != (task.name, seed):
            self._split = None  # large tasks do not fit twice
            self._split, self._key = task.make(seed), (task.name, seed)
        return self._split


def _measured(
    store: Store, task: Task, seed: int, contestant: Contestant, split: Split, options
) -> Row:
    costs = store.measured(task.name, seed, "active_multiply_adds")
    situation = Situation(split.X_train, split.y_train, seed, options.threads, 1, costs)
    unseen = None if split.X_unseen is None else (split.X_unseen, split.y_unseen)
    choice = _earlier_choice(store, task, seed, contestant) if contestant.search_once else None
    found = measure(
        contestant, situation, split.X_test, split.y_test, options.level, unseen, choice
    )
    n_train, n_features = split.X_train.shape
    return {
        "task": task.name,
        "seed": seed,
        "contestant": contestant.name,
        "n_train": n_train,
        "D": n_features,
        "threads": options.threads,
        **found,
    }


def _earlier_choice(store: Store, task: Task, seed: int, contestant: Contestant) -> int | None:
    """The candidate that an earlier seed chose, if there is one."""
    for earlier in range(seed):
        row = store.row(task.name, earlier, contestant.name)
        if row and row["status"] == "ok":
            return int(row["choice"])
    return None


def _say(row: Row) -> None:
    """A line of progress."""
    result = row["message"] if row["status"] != "ok" else f"{row['nrmse']:.4g}"
    seconds = row.get("search_seconds", 0) + row.get("fit_seconds", 0)
    sys.stderr.write(
        f"seed {row['seed']}, {row['task']}, {row['contestant']}: {row['status']} {result} "
        f"({seconds:.0f} s)\n"
    )
    sys.stderr.flush()
