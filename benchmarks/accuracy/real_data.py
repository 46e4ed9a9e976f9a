"""Goal 7: real tables, everyone by default parameters, no tuning."""

import numpy as np
from scipy.stats import rankdata

from benchmarks.accuracy import ours, peers
from benchmarks.accuracy.goal import Goal, Options
from benchmarks.accuracy.results import NOTHING, Line, Results, across_tasks
from benchmarks.protocol import Contestant
from benchmarks.report import markdown
from benchmarks.tasks import Task, folder


def tasks(options: Options) -> list[Task]:
    """Small tables first."""
    if options.data is None:
        raise ValueError("--goal 7 needs --data, a folder of .npz files.")
    found = folder(options.data)
    return sorted(found, key=lambda task: task.facts["rows"])


def contestants(task: Task) -> list[Contestant]:
    return [ours.shallow(), ours.deep(), *peers.default_peers()]


def shared_tasks(results: Results, names: list[str]) -> list[str]:
    """The tasks that all of `names` have."""
    return [task for task in results.tasks if len(results.measured(task, names)) == len(names)]


def ranks(results: Results, names: list[str]) -> dict[str, float]:
    """Mean rank of the median errors over the shared tasks; empty if there are none."""
    shared = shared_tasks(results, names)
    if not shared:
        return {}
    table = np.array([[results.median(task, name) for name in names] for task in shared])
    return dict(zip(names, rankdata(table, axis=1).mean(axis=0), strict=True))


def lines(results: Results) -> list[Line]:
    """Each of ours among the peers; the other one of ours takes no ranks away.

    Peers that are too slow for the large sets leave few sets to all: those that have every
    set are also ranked among themselves.
    """
    peers_of = [name for name in _measured(results) if name not in ours.OURS]
    complete = [n for n in peers_of if len(shared_tasks(results, [n])) == len(results.tasks)]
    fields = {"all peers": peers_of}
    if complete != peers_of:
        fields[f"the {len(complete)} peers that have all sets"] = complete
    return [
        _line(results, name, field, names)
        for name in ours.OURS
        for field, names in fields.items()
    ]


def _line(results: Results, name: str, field: str, others: list[str]) -> Line:
    everyone = [name, *others]
    rank = ranks(results, everyone) if others else {}
    if not rank:
        return Line(f"mean rank of {name} among {field}", [], 1)
    best = min(others, key=rank.__getitem__)
    n_sets = len(shared_tasks(results, everyone))
    claim = f"mean rank of {name} among {field}, {n_sets} sets (best of them: {best})"
    return Line(claim, [rank[name]], rank[best])


def _measured(results: Results) -> list[str]:
    return [name for name in results.contestants if shared_tasks(results, [name])]


def tables(results: Results) -> list[str]:
    columns = {task: task for task in results.tasks}
    names = results.contestants
    return [
        f"### NRMSE\n\n{across_tasks(results, columns, names)}",
        f"### Ranks\n\n{_ranks(results)}",
        f"### Fit seconds\n\n{across_tasks(results, columns, names, 'fit_seconds')}",
        f"### Fit, CPU seconds\n\n{across_tasks(results, columns, names, 'fit_cpu_seconds')}",
    ]


def _ranks(results: Results) -> str:
    """Mean rank on the tasks that all have, and the distance to the best on all tasks."""
    names = _measured(results)
    shared, rank = shared_tasks(results, names), ranks(results, names)
    body = []
    for name in sorted(names, key=lambda name: rank.get(name, np.inf)):
        own = shared_tasks(results, [name])
        distances = [
            results.median(task, name) / results.median(task, results.best(task, names) or name)
            for task in own
        ]
        mean = f"{rank[name]:.2f}" if rank else NOTHING
        distance = f"{np.exp(np.mean(np.log(distances))):.2f}"
        body.append([name, mean, distance, f"{len(own)}"])
    note = f"Ranks on the {len(shared)} sets that everyone has: {', '.join(shared) or 'none'}."
    header = ["contestant", "mean rank", "error / best of the set, geometric mean", "sets"]
    return f"{note}\n\n{markdown(header, body)}"


GOAL = Goal(
    7,
    "real data",
    "NRMSE on the test rows of fixed splits, default parameters for all; LightGBM and XGBoost "
    "have 500 trees, the Nystroem ridge 1,000 landmarks and a penalty by cross-validation, "
    "features (and targets of MLPRegressor) are standardised where a method does not do it "
    "itself. A rank is that of the median over splits; each of ours is ranked among the peers "
    "without the other one.",
    tasks,
    contestants,
    lines,
    tables,
)
