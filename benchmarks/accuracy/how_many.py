"""Goal 8: errors over the number of experts and of layers, and what the default took."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sklearn.pipeline import Pipeline

from benchmarks.accuracy import ours
from benchmarks.accuracy.compositional import ROTATED
from benchmarks.accuracy.goal import Goal, Options
from benchmarks.accuracy.results import Line, Results, per_task
from benchmarks.protocol import Contestant, Situation
from benchmarks.tasks import Task, folder, packaged, synthetic
from skmoe.search import search_space

EXPERTS = (1, 2, 4, 8, 16, 32)
LAYERS = (1, 2, 4, 8, 16)
N_TRAIN, N_TEST = 10_000, 5000
OF_BEST = 1.1
REAL = ("concrete", "kin40k")
DEFAULT = {ours.DEEP: "deep, default", ours.SHALLOW: "shallow, default"}
COLUMNS = {
    "NRMSE": "nrmse",
    "experts": "n_experts",
    "layers": "n_layers",
    "fit s": "fit_seconds",
}


def tasks(options: Options) -> list[Task]:
    sizes = {"n_train": options.rows(N_TRAIN), "n_test": options.rows(N_TEST)}
    made = [
        synthetic(
            f"product, 64 pieces, {ROTATED}",
            "compositional",
            facts={"D": 32, "d": 6, "cells": 64},
            n_features=32,
            **sizes,
        ),
        synthetic(
            "torus in 4 pieces, D=50",
            "manifold",
            facts={"D": 50, "d": 2, "cells": 4},
            n_features=50,
            **sizes,
        ),
    ]
    if options.data is None:
        return [*made, packaged("concrete"), packaged("airfoil")]
    return made + [task for task in folder(options.data) if task.name in REAL]


def contestants(task: Task) -> list[Contestant]:
    """Curves over E and over layers; what chooses sizes by itself joins in `searches`."""
    return [
        ours.deep(DEFAULT[ours.DEEP]),
        *(ours.deep(f"deep, E={n}", n_experts=n) for n in EXPERTS),
        *(ours.deep(f"deep, L={n}", n_layers=n) for n in LAYERS),
        ours.shallow(DEFAULT[ours.SHALLOW]),
        *(ours.shallow(f"shallow, E={n}", n_experts=n) for n in EXPERTS),
        *searches(),
    ]


@dataclass(frozen=True)
class Space:
    """Candidates of the documented grid for the shape of the rows."""

    build: Callable[[Situation], Pipeline]

    def resolve(self, s: Situation) -> list[dict[str, list]]:
        return [search_space(self.build(s), *s.X.shape)]


def searches() -> list[Contestant]:
    """Searches over the documented spaces of `skmoe.search`."""
    named = (ours.deep("deep, searched"), ours.shallow("shallow, searched"))
    return [
        replace(one, grids={**one.grids, "full": Space(one.build)}, search_once=True)
        for one in named
    ]


def lines(results: Results) -> list[Line]:
    found = []
    for task in results.tasks:
        for default in DEFAULT.values():
            depth = default.split(",")[0]
            curve = [
                n for n in results.measured(task) if n.startswith(f"{depth}, ") and "=" in n
            ]
            best = results.best(task, curve)
            claim = f"{task}: error of {default} / best of the curves ({best})"
            found.append(Line(claim, results.ratios(task, default, best), OF_BEST))
    return found


def tables(results: Results) -> list[str]:
    return [per_task(results, task, COLUMNS, DEFAULT[ours.DEEP]) for task in results.tasks]


GOAL = Goal(
    8,
    "how many experts, how many layers",
    "Default parameters but for `n_experts` (E) or `n_layers` (L). The columns *experts* and "
    "*layers* say what the fitted network has, so also what a default or a search picked; "
    "*searched* is a grid search over `skmoe.search.search_space`, on the first seed. The "
    "claim, ours: a default within a tenth of the best point of the curves, in hindsight.",
    tasks,
    contestants,
    lines,
    tables,
)
