"""From rows to medians, ratios, verdicts and Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.environment import describe
from benchmarks.report import markdown, number
from benchmarks.store import Row, Store, read_rows

if TYPE_CHECKING:
    from benchmarks.accuracy.goal import Goal

ENOUGH_SEEDS = 5
NOTHING = "-"


@dataclass(frozen=True)
class Results:
    """The rows of a goal, in the order in which they were first measured."""

    rows: list[Row]

    @classmethod
    def of(cls, store: Store) -> "Results":
        return cls(read_rows(store.table))

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(row["task"] for row in self.rows))

    @property
    def contestants(self) -> list[str]:
        return list(dict.fromkeys(row["contestant"] for row in self.rows))

    def measured(self, task: str, names: Iterable[str] | None = None) -> list[str]:
        """Contestants of a task that have errors; of `names`, in their order, if given."""
        names = self.contestants if names is None else names
        return [name for name in names if self.of_seed(task, name)]

    def of_seed(self, task: str, contestant: str, column: str = "nrmse") -> dict[int, float]:
        """A number for each seed; empty if nothing was measured."""
        return {
            int(row["seed"]): float(row[column])
            for row in self.rows
            if row["task"] == task
            and row["contestant"] == contestant
            and row["status"] == "ok"
            and row[column] != ""
        }

    def median(self, task: str, contestant: str, column: str = "nrmse") -> float:
        """Median over seeds; nan if there is none."""
        values = list(self.of_seed(task, contestant, column).values())
        return float(np.median(values)) if values else np.nan

    def best(self, task: str, names: Iterable[str], column: str = "nrmse") -> str | None:
        """The contestant of the lowest median."""
        medians = {name: self.median(task, name, column) for name in names}
        medians = {name: value for name, value in medians.items() if np.isfinite(value)}
        return min(medians, key=medians.__getitem__) if medians else None

    def ratios(
        self,
        task: str,
        ours: str | None,
        other: str | None,
        column: str = "nrmse",
        other_column: str | None = None,
    ) -> list[float]:
        """Our number over that of another, for every seed that both have."""
        if ours is None or other is None:
            return []
        above = self.of_seed(task, ours, column)
        below = self.of_seed(task, other, other_column or column)
        return [above[seed] / below[seed] for seed in sorted(above) if seed in below]

    def ratios_to_best(
        self, task: str, ours: str | None, others: Iterable[str], column: str = "nrmse"
    ) -> list[float]:
        """Our number over the lowest that others have for the same seed.

        Not over that of one of them, which may be the best for the few seeds that it has.
        """
        if ours is None:
            return []
        above = self.of_seed(task, ours, column)
        found = [self.of_seed(task, other, column) for other in others]
        lowest = {
            seed: min(values)
            for seed in above
            if (values := [of_seed[seed] for of_seed in found if seed in of_seed])
        }
        return [above[seed] / lowest[seed] for seed in sorted(lowest)]

    def cell(self, task: str, contestant: str, column: str = "nrmse") -> str:
        """Median [min, max], or why there is none."""
        values = list(self.of_seed(task, contestant, column).values())
        if values:
            return spread(values)
        states = {
            row["status"]
            for row in self.rows
            if row["task"] == task and row["contestant"] == contestant
        } - {"ok"}
        return ", ".join(sorted(states)) or NOTHING


@dataclass(frozen=True)
class Line:
    """One claim of a goal.

    Parameters
    ----------
    claim : str
        What is compared.
    values : sequence of float
        One for each seed, or a single one.
    limit : float
        The claim holds if the median is at most this.
    """

    claim: str
    values: Sequence[float]
    limit: float

    @property
    def verdict(self) -> str:
        if not len(self.values):
            return "not measured"
        return "**met**" if np.median(self.values) <= self.limit else "not met"

    def cells(self) -> list[str]:
        measured = spread(self.values) if len(self.values) else NOTHING
        return [self.claim, measured, f"at most {self.limit:g}", self.verdict]


def spread(values: Sequence[float]) -> str:
    """Median [min, max]."""
    middle = number(float(np.median(values)))
    if len(values) == 1:
        return middle
    return f"{middle} [{number(min(values))}, {number(max(values))}]"


def per_task(
    results: Results, task: str, columns: dict[str, str], reference: str | None
) -> str:
    """Contestants x columns of one task, then the error over that of `reference`.

    `columns` maps headings to names of columns.
    """
    header = ["contestant", *columns]
    if reference is not None:
        header.append(f"error / {reference}")
    body = []
    for name in _present(results, task):
        line = [name, *(results.cell(task, name, column) for column in columns.values())]
        if reference is not None:
            ratios = results.ratios(task, name, reference)
            line.append(spread(ratios) if ratios else NOTHING)
        body.append(line)
    return f"### {task}\n\n{markdown(header, body)}"


def across_tasks(
    results: Results, tasks: dict[str, str], names: Sequence[str], column: str = "nrmse"
) -> str:
    """Contestants x tasks; `tasks` maps headings to names of tasks."""
    body = [
        [name, *(results.cell(task, name, column) for task in tasks.values())] for name in names
    ]
    return markdown(["contestant", *tasks], body)


def _present(results: Results, task: str) -> list[str]:
    return list(dict.fromkeys(r["contestant"] for r in results.rows if r["task"] == task))


def compose(goal: "Goal", results: Results, sessions: list[dict]) -> str:
    """The whole report."""
    parts = [f"# Goal {goal.number}: {goal.title}", goal.note, _machines(sessions)]
    if not results.rows:
        return "\n\n".join([*parts, "Nothing was measured yet."]) + "\n"
    lines = goal.lines(results)
    if lines:
        header = ["claim", "measured", "goal", "verdict"]
        parts += ["## Verdicts", markdown(header, [line.cells() for line in lines])]
    parts += ["## Measured", *goal.tables(results), *_gaps(results)]
    return "\n\n".join(parts) + "\n"


def _machines(sessions: list[dict]) -> str:
    """Machine and versions of every session, each once."""
    texts = list(dict.fromkeys(describe(session) for session in sessions))
    lead = "Median [min, max] over seeds or splits; ratios are taken seed by seed."
    return "\n\n".join([lead, *texts])


def _gaps(results: Results) -> list[str]:
    """What was not measured, and what has fewer seeds than a claim needs."""
    incidents: dict[str, list[str]] = {}
    for row in results.rows:
        if row["status"] != "ok":
            key = f"{row['contestant']}: {row['status']} ({row['message']})"
            incidents.setdefault(key, []).append(row["task"])
    lines = [f"- {key}: {', '.join(dict.fromkeys(on))}" for key, on in incidents.items()]
    few = [
        f"{name} on {task} ({len(seeds)})"
        for task in results.tasks
        for name in results.measured(task)
        if len(seeds := results.of_seed(task, name)) < ENOUGH_SEEDS
    ]
    if few:
        lines.append(f"- Fewer than {ENOUGH_SEEDS} seeds: {'; '.join(few)}.")
    return ["## Not measured", "\n".join(lines)] if lines else []
