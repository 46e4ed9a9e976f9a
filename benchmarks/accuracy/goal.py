"""What a goal is: tasks, contestants, and how rows become tables and verdicts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy import loop
from benchmarks.accuracy.results import Line, Results, compose
from benchmarks.protocol import Contestant
from benchmarks.store import write_text
from benchmarks.tasks import Task

TRIAL_ROWS = 240


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Parameters
    ----------
    seeds : int
        Number of seeds or splits.
    tasks, contestants : str
        Patterns of what is measured, "" for all.
    again : str or None
        Pattern of contestants to measure anew.
    retry_failed : bool
        Whether failed rows are measured anew.
    threads : int
        Threads of every contestant.
    data : Path or None
        Folder of real tables.
    largest : int
        Tasks with more training rows are left out.
    level : {"full", "smoke"}
        "smoke" shrinks tasks and fits to see that everything runs.
    """

    seeds: int = 5
    tasks: str = ""
    contestants: str = ""
    again: str | None = None
    retry_failed: bool = False
    threads: int = 1
    data: Path | None = None
    largest: int = 100_000
    level: str = "full"

    def rows(self, n: int) -> int:
        """So many rows, or few in a trial."""
        return n if self.level == "full" else min(n, TRIAL_ROWS)


@dataclass(frozen=True)
class Goal:
    """One goal.

    Parameters
    ----------
    number : int
    title, note : str
        Heading of the report, and what a reader has to know.
    tasks : callable
        `Options` -> list of `Task`.
    contestants : callable
        `Task` -> list of `Contestant`.
    lines : callable
        `Results` -> list of `Line`, one for each claim.
    tables : callable
        `Results` -> list of Markdown blocks.
    """

    number: int
    title: str
    note: str
    tasks: Callable[[Options], list[Task]]
    contestants: Callable[[Task], list[Contestant]]
    lines: Callable[[Results], list[Line]]
    tables: Callable[[Results], list[str]]

    def measure(self, folder: Path, options: Options) -> None:
        """Measure what is missing."""
        tasks = [t for t in self.tasks(options) if t.spec.get("n_train", 0) <= options.largest]
        loop.run(self.number, tasks, self.contestants, folder, options)

    def report(self, folder: Path) -> str:
        """Write the report; its text."""
        store = loop.store_of(folder)
        text = compose(self, Results.of(store), store.run()["sessions"])
        write_text(folder / "report.md", text)
        return text
