"""Goal 1: a tenth of the errors of Wang & E (2025), by `benchmarks.paper`."""

from pathlib import Path

import numpy as np

from benchmarks.accuracy.results import NOTHING, Line
from benchmarks.report import markdown
from benchmarks.store import Row, Store, read_rows, write_text

SHARE = 0.1
# Table of the paper -> the model that the goal is about, and the sizes of its entries.
MODELS = {"I": "1-4-MoE", "II": "2-3-MoE"}


class PaperGoal:
    """The goal whose tasks, loop and tables are those of `benchmarks.paper`."""

    number = 1
    title = "the paper's experiments"

    def measure(self, folder: Path, options) -> None:
        """Measure what is missing; `options` gives seeds and threads."""
        from benchmarks import paper
        from benchmarks.environment import record

        with Store(folder, paper.COLUMNS) as store:
            store.start_session({"goal": self.number}, record(options.threads))
            paper.run(store, options.seeds, paper.TRAININGS)

    def report(self, folder: Path) -> str:
        """Write the report; its text."""
        from benchmarks import paper

        store = Store(folder, paper.COLUMNS)
        rows = read_rows(store.table)
        if not rows:
            return f"# Goal 1: {self.title}\n\nNothing was measured yet.\n"
        header = ["claim", "measured", "goal", "verdict"]
        verdicts = markdown(header, [line.cells() for line in lines(rows)])
        text = f"{paper.report(store)}\n## Verdicts of goal 1\n\n{verdicts}\n"
        write_text(folder / "report.md", text)
        return text


def lines(rows: list[Row]) -> list[Line]:
    """Our error over the paper's, for each of its entries."""
    from benchmarks import paper

    found = []
    for table, sizes in (("I", paper.DIMENSIONS), ("II", paper.WIDTHS)):
        model = MODELS[table]
        for size, published in zip(sizes, paper.PAPER[model], strict=True):
            task = f"{table}: {size}"
            name = _best(rows, task, model)
            ratios = [error / published for error in _errors(rows, task, name)]
            found.append(Line(f"{task}: error of {name} / the paper's", ratios, SHARE))
    return found


def _best(rows: list[Row], task: str, model: str) -> str:
    """Our training of the model that has the lowest median; *plain* is not ours."""
    names = {
        row["contestant"]
        for row in rows
        if row["contestant"].startswith(model) and not row["contestant"].endswith("plain")
    }
    medians = {n: np.median(e) for n in sorted(names) if len(e := _errors(rows, task, n))}
    return min(medians, key=medians.__getitem__) if medians else NOTHING


def _errors(rows: list[Row], task: str, contestant: str) -> list[float]:
    return [
        float(row["mse"])
        for row in rows
        if row["task"] == task and row["contestant"] == contestant and row["status"] == "ok"
    ]


GOAL = PaperGoal()
