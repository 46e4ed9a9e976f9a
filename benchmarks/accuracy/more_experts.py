"""Goal 6: errors and dead experts over the number of experts, at two experts per row."""

from itertools import pairwise

import numpy as np

from benchmarks.accuracy import ours
from benchmarks.accuracy.compositional import N_TEST, N_TRAIN, ROTATED, composition
from benchmarks.accuracy.goal import Goal, Options
from benchmarks.accuracy.results import Line, Results, across_tasks
from benchmarks.protocol import Contestant
from benchmarks.tasks import Task, synthetic

COUNTS = (2, 4, 8, 16, 32, 64)
TOP_K = 2
MAX_DEAD = 0.05
MAX_RISE = 1.0


def tasks(options: Options) -> list[Task]:
    torus = synthetic(
        "torus in 16 pieces, D=50",
        "manifold",
        options.rows(N_TRAIN),
        n_test=options.rows(N_TEST),
        facts={"D": 50, "d": 2, "cells": 16},
        n_features=50,
        n_pieces=16,
    )
    return [composition(options, "product", ROTATED), torus]


def _name(estimator: str, n_experts: int) -> str:
    return f"{estimator}, E={n_experts}"


def contestants(task: Task) -> list[Contestant]:
    makers = {ours.DEEP: ours.deep}
    if task.family == "manifold":
        makers[ours.SHALLOW] = ours.shallow
    return [
        make(_name(estimator, n), n_experts=n, top_k=TOP_K)
        for estimator, make in makers.items()
        for n in COUNTS
    ]


def lines(results: Results) -> list[Line]:
    found = []
    for task in results.tasks:
        for estimator in ours.OURS:
            names = [_name(estimator, n) for n in COUNTS]
            if results.measured(task, names):
                found += _lines(results, task, estimator, names)
    return found


def _lines(results: Results, task: str, estimator: str, names: list[str]) -> list[Line]:
    """Monotone within the spread: no step at which three quarters of the seeds get worse."""
    steps = [
        (f"{a} to {b}", results.ratios(task, high, low))
        for (a, low), (b, high) in pairwise(zip(COUNTS, names, strict=True))
    ]
    rises = {step: float(np.quantile(ratios, 0.25)) for step, ratios in steps if ratios}
    where = f"{task}, {estimator}"
    dead = [
        value
        for name in names
        for value in results.of_seed(task, name, "dead_experts").values()
    ]
    worst = max(rises, key=rises.__getitem__) if rises else None
    return [
        Line(
            f"{where}: worst step ({worst}), lower quartile of error / error before",
            [rises[worst]] if worst is not None else [],
            MAX_RISE,
        ),
        Line(
            f"{where}: error of E={COUNTS[-1]} / E={COUNTS[0]}",
            results.ratios(task, names[-1], names[0]),
            MAX_RISE,
        ),
        Line(f"{where}: largest share of dead experts", [max(dead)] if dead else [], MAX_DEAD),
    ]


def tables(results: Results) -> list[str]:
    columns = {task: task for task in results.tasks}
    names = results.contestants
    headings = {
        "NRMSE": "nrmse",
        "Share of dead experts": "dead_experts",
        "Fit seconds": "fit_seconds",
    }
    return [
        f"### {heading}\n\n{across_tasks(results, columns, names, column)}"
        for heading, column in headings.items()
    ]


GOAL = Goal(
    6,
    "more experts help",
    f"Default parameters but for `n_experts` E and `top_k={TOP_K}`; {N_TRAIN:,} training rows. "
    "An expert is dead if its share of the routing weight on training rows is below 1/(10 E). "
    "*Monotone within spread*: from one E to the next, the error may not rise for three "
    "quarters of the seeds.",
    tasks,
    contestants,
    lines,
    tables,
)
