"""Compare skmoe with kernels, trees, neighbours and dense nets, tuned alike.

    python -m benchmarks.compare --profile demo --output results/demo
    python -m benchmarks.compare --profile full --data FOLDER --output results/full
    python -m benchmarks.compare --csv mine.csv --target price --output results/mine

The folder of results gets ``results.csv`` (one row per task, seed and contestant),
``report.md`` and plots. Rows are kept as they are measured: interrupt at any time and give
the same command again to go on. Contestants are interleaved: for each task and seed, one
after the other in one process, all with the same number of threads.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import command, environment, report
from benchmarks.contestants import CONTESTANTS, by_name
from benchmarks.protocol import MEASURES, Contestant, Situation, measure
from benchmarks.store import KEY, Store
from benchmarks.tasks import FAMILIES, Split, Task, tasks_of, user_table

TASK_COLUMNS = ("family", "kind", "n_train", "n_test", "D", "d", "cells", "sweeps", "threads")
COLUMNS = (*KEY, *TASK_COLUMNS, *MEASURES)


@dataclass(frozen=True)
class Profile:
    """How much is measured: the tasks and the grids of a level, seeds and folds."""

    level: str
    seeds: int
    folds: int
    grids: str = ""  # level of the grids, if another one
    optional_packages: bool = True
    without: tuple[str, ...] = ()
    families: tuple[str, ...] = FAMILIES
    threads: int | None = None  # None: all cores

    @property
    def grid_level(self) -> str:
        return self.grids or self.level


PROFILES = {
    "smoke": Profile("smoke", 1, 2, optional_packages=False, families=("circle",), threads=1),
    # One thread: a second gains little on small data, and on a busy machine it makes nets
    # many times slower, as the two wait for each other at every product.
    "demo": Profile(
        "demo",
        1,
        1,
        optional_packages=False,
        without=("one expert (deep)", "one expert (shallow)"),
        threads=1,
    ),
    # The curves of the full profile over D, d, n and the number of pieces, in small grids, ours
    # with default sizes.
    "curves": Profile("full", 1, 2, grids="demo", optional_packages=False, threads=1),
    "full": Profile("full", 5, 3),
}


@dataclass(frozen=True)
class Plan:
    """All that is to be measured."""

    profile: Profile
    tasks: list[Task]
    contestants: list[Contestant]
    seeds: int
    threads: int

    def __iter__(self) -> Iterator[tuple[Task, int, Contestant]]:
        for task in self.tasks:
            for seed in range(min(self.seeds, task.n_splits or self.seeds)):
                for contestant in self.contestants:
                    yield task, seed, contestant

    def settings(self) -> dict:
        """What defines the numbers: rows under other settings must not be mixed in."""
        level = self.profile.grid_level
        return {
            "level": self.profile.level,
            "folds": self.profile.folds,
            "threads": self.threads,
            "tasks": {task.name: task.spec for task in self.tasks},
            "contestants": {
                c.name: repr(c.grids.get(level, c.grids["demo"])) for c in self.contestants
            },
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)

    def work() -> None:
        plan = _plan(args)
        with Store(args.output, COLUMNS) as store:
            if args.restart:
                store.restart()
            if not args.report_only:
                session = {"command": _command(arguments)} | environment.record(plan.threads)
                store.start_session(plan.settings(), session)
                _run(plan, store, args.retry_failed)
            sys.stdout.write(report.write(store.path))

    return command.run(parser, work)


def _command(arguments: Sequence[str] | None) -> str:
    """The command line, as a user would repeat it."""
    given = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", "-m", "benchmarks.compare", *map(str, given)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--profile", choices=PROFILES, default="demo", help="how much is measured")
    add("--output", type=Path, required=True, help="folder of results")
    add("--data", type=Path, help="folder of .npz files with X, y and test_mask")
    add("--csv", type=Path, help="a table of your own: run on it alone")
    add("--parquet", type=Path, help="likewise, from a Parquet file")
    add("--target", help="its column to predict (default: the last one)")
    add("--families", nargs="+", choices=FAMILIES, help="only these families of tasks")
    add("--tasks", nargs="+", metavar="NAME", help="only these tasks")
    add("--contestants", nargs="+", metavar="NAME", help="only these, by name")
    add("--seeds", type=int, help="number of seeds")
    add(
        "--threads",
        type=int,
        help="threads of every contestant (default: demo 1, full all cores)",
    )
    add("--restart", action="store_true", help="begin anew, setting earlier results aside")
    add("--retry-failed", action="store_true", help="run failed contestants again")
    add("--report-only", action="store_true", help="write report and plots again")
    return parser


def _plan(args: argparse.Namespace) -> Plan:
    profile = PROFILES[args.profile]
    given = ((args.csv, False), (args.parquet, True))
    tables = [user_table(path, args.target, parquet) for path, parquet in given if path]
    families = tuple(args.families or (() if tables else profile.families))
    tasks = tables + tasks_of(profile.level, families, args.data)
    if args.tasks:
        unknown = set(args.tasks) - {task.name for task in tasks}
        if unknown:
            raise ValueError(f"tasks are {[t.name for t in tasks]}. Got {sorted(unknown)}.")
        tasks = [task for task in tasks if task.name in args.tasks]
    contestants = [
        c
        for c in CONTESTANTS
        if c.name not in profile.without and (profile.optional_packages or not c.package)
    ]
    if args.contestants:
        contestants = [by_name(name) for name in args.contestants]
    threads = args.threads or profile.threads or environment.default_threads()
    return Plan(profile, tasks, contestants, args.seeds or profile.seeds, threads)


def _run(plan: Plan, store: Store, retry_failed: bool) -> None:
    """Measure what is missing, one row after the other."""
    environment.set_threads(plan.threads)
    again = {None, "not installed"} | ({"failed"} if retry_failed else set())
    jobs = [
        (task, seed, contestant)
        for task, seed, contestant in plan
        if store.status(task.name, seed, contestant.name) in again
    ]
    rows = Rows()
    with _progress() as progress:
        bar = progress.add_task("", total=len(jobs))
        for task, seed, contestant in jobs:
            progress.update(bar, description=f"{task.name}, seed {seed}: {contestant.name}")
            split = rows.of(task, seed)
            costs = store.measured(task.name, seed, "active_multiply_adds")
            store.add(_measured(plan, task, seed, contestant, split, costs))
            progress.advance(bar)


class Rows:
    """The rows of one task and seed, made once for all contestants."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[str, int], Split] | None = None

    def of(self, task: Task, seed: int) -> Split:
        key = (task.name, seed)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, task.make(seed))
        return self._kept[1]


def _measured(
    plan: Plan,
    task: Task,
    seed: int,
    contestant: Contestant,
    split: Split,
    costs: dict[str, int],
) -> dict:
    """One row of the table."""
    rows = split.X_train, split.y_train
    situation = Situation(*rows, seed, plan.threads, plan.profile.folds, costs)
    level = plan.profile.grid_level
    found = measure(contestant, situation, split.X_test, split.y_test, level)
    return {
        "task": task.name,
        "seed": seed,
        "contestant": contestant.name,
        "family": task.family,
        "kind": contestant.kind,
        "n_train": len(split.X_train),
        "n_test": len(split.X_test),
        "D": split.X_train.shape[1],
        "d": task.facts.get("d"),
        "cells": task.facts.get("cells"),
        "sweeps": " ".join(task.sweeps),
        "threads": plan.threads,
        **found,
    }


def _progress() -> Progress:
    """A bar on a terminal, silence elsewhere."""
    console = Console(stderr=True)
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not console.is_terminal,
    )


if __name__ == "__main__":
    sys.exit(main())
