"""Goal 2: 64 and 1,024 pieces, against tuned peers and controls of equal active cost."""

from benchmarks.accuracy import ours, peers
from benchmarks.accuracy.goal import Goal, Options
from benchmarks.accuracy.results import Line, Results, per_task
from benchmarks.protocol import Contestant
from benchmarks.tasks import Task, synthetic

# Few rows beside borders make up the error: of 20,000 test rows it is chance how many.
N_TRAIN, N_TEST = 50_000, 100_000
D_ROTATED = 32
AXIS_ALIGNED, ROTATED = "axis-aligned", "rotated"
# What our error may be, in units of the best peer's, and of each control's.
OF_PEERS = {AXIS_ALIGNED: 0.3, ROTATED: 0.15}
OF_CONTROLS = 0.6
COLUMNS = {
    "NRMSE": "nrmse",
    "multiply-adds per row": "active_multiply_adds",
    "search s": "search_seconds",
    "fit s": "fit_seconds",
}


def composition(options: Options, combine: str, embedding: str, n_blocks: int = 3) -> Task:
    """Blocks of dimension 2 with 4 regions each, and jumps between them."""
    cells = 4**n_blocks
    n_features = D_ROTATED if embedding == ROTATED else None
    return synthetic(
        f"{combine}, {cells:,} pieces, {embedding}",
        "compositional",
        options.rows(N_TRAIN),
        n_test=options.rows(N_TEST),
        facts={"D": n_features or 2 * n_blocks, "d": 2 * n_blocks, "cells": cells},
        n_blocks=n_blocks,
        n_regions=4,
        combine=combine,
        n_features=n_features,
    )


def tasks(options: Options) -> list[Task]:
    small = [
        composition(options, combine, embedding)
        for combine in ("product", "sine")
        for embedding in (ROTATED, AXIS_ALIGNED)
    ]
    large = [composition(options, "product", e, n_blocks=5) for e in (ROTATED, AXIS_ALIGNED)]
    return small + large


def contestants(task: Task) -> list[Contestant]:
    deep = ours.deep()
    return [deep, *ours.controls(deep), *peers.tuned_trees(), *peers.tuned_kernels()]


def outsiders(results: Results, task: str) -> list[str]:
    """Measured contestants outside skmoe."""
    of_skmoe = {ours.DEEP, *controls(results, task)}
    return [name for name in results.measured(task) if name not in of_skmoe]


def controls(results: Results, task: str) -> list[str]:
    """Measured controls."""
    return [name for name in results.measured(task) if name.endswith(" cost")]


def lines(results: Results) -> list[Line]:
    found = []
    for task in results.tasks:
        limit = OF_PEERS[ROTATED if ROTATED in task else AXIS_ALIGNED]
        ratios = results.ratios_to_best(task, ours.DEEP, outsiders(results, task))
        found.append(Line(f"{task}: error / best peer of each seed", ratios, limit))
        found += [
            Line(f"{task}: error / {c}", results.ratios(task, ours.DEEP, c), OF_CONTROLS)
            for c in controls(results, task)
            if c != ours.DENSE_BLOCKS
        ]
    return found


def tables(results: Results) -> list[str]:
    return [per_task(results, task, COLUMNS, ours.DEEP) for task in results.tasks]


GOAL = Goal(
    2,
    "compositional targets",
    f"NRMSE on {N_TEST:,} noise-free test rows after {N_TRAIN:,} training rows; blocks of "
    "dimension 2 with 4 regions each and jumps between them, another target for every seed. "
    "*Equal cost*: the dense twin, a residual net without blocks, has the multiply-adds per "
    "row of our fitted network, and a learning rate chosen among a third, one and three times "
    "ours on validation rows of the first seed. *Higher cost*: one expert, and dense blocks "
    "with a residual net of three layers in place of gate and experts, have the multiply-adds "
    "of our network before it has found regions, many times as many, and our learning rate, "
    "which is not tuned either. Nothing is claimed of dense blocks: they show what regions "
    "save. Peers are tuned on a tenth of the training rows.",
    tasks,
    contestants,
    lines,
    tables,
)
