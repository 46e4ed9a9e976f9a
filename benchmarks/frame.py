"""What small benchmarks share: the command line, the session, and cells of their tables."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.environment import default_threads, record, set_threads
from benchmarks.store import Store, write_text


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


def spread(values: Sequence[float] | np.ndarray, digits: int) -> str:
    """Median [smallest, largest]; a dash without any."""
    if len(values) == 0:
        return "-"
    low, middle, high = (f"{f(values):.{digits}f}" for f in (min, np.median, max))
    return f"{middle} [{low}, {high}]"
