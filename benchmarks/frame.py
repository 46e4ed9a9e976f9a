"""What small benchmarks share: the command line, the session, and cells of their tables."""

import argparse
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from benchmarks.environment import default_threads, record, set_threads
from benchmarks.store import Row, Store, write_text


def command_line(description: str, folder: str, seeds: int = 5) -> argparse.ArgumentParser:
    """A parser with the options that all of them have."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results") / folder)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--threads", type=int, default=default_threads())
    return parser


def run_and_report(
    options: argparse.Namespace,
    columns: Sequence[str],
    work: Callable[[Store], None],
    report: Callable[[Store], str],
) -> None:
    """Measure what is missing; write and print the report."""
    set_threads(options.threads)
    with Store(options.output, columns) as store:
        store.start_session({}, record(options.threads))
        work(store)
        text = report(store)
    write_text(options.output / "report.md", text)
    print(text)


def run_tasks(
    options: argparse.Namespace,
    columns: Sequence[str],
    tasks: Iterable[str],
    run: Callable[[Store, str, int], None],
    report: Callable[[Store], str],
) -> None:
    """Likewise, with a `run` of each task and seed."""

    def work(store: Store) -> None:
        for seed in range(options.seeds):
            for task in tasks:
                run(store, task, seed)

    run_and_report(options, columns, work, report)


def measure_missing(
    store: Store,
    task: str,
    seed: int,
    contestants: Mapping[str, Any],
    figures: Callable[[Any], Row],
) -> None:
    """Store the figures of the contestants that have none yet for this task and seed."""
    for name, contestant in contestants.items():
        if store.status(task, seed, name) is None:
            row = {"task": task, "seed": seed, "contestant": name, "status": "ok"}
            with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
                store.add({**row, **figures(contestant)})


def ratios(
    rows: Iterable[Row], tasks: Sequence[str], contestant: str, other: str, column: str
) -> list[float]:
    """A contestant's figures over those of another one, task by task and seed by seed."""
    figures = {
        (row["task"], row["seed"], row["contestant"]): float(row[column]) for row in rows
    }
    return [
        value / figures[task, seed, other]
        for (task, seed, name), value in figures.items()
        if name == contestant and task in tasks and (task, seed, other) in figures
    ]


def spread(values: Sequence[float] | np.ndarray, digits: int) -> str:
    """Median [smallest, largest]; a dash without any."""
    if len(values) == 0:
        return "-"
    low, middle, high = (f"{f(values):.{digits}f}" for f in (min, np.median, max))
    return f"{middle} [{low}, {high}]"
