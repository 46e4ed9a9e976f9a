"""Goal 4: errors on manifolds over D and n, smooth, noisy and in pieces."""

from collections.abc import Iterator
from itertools import count

import numpy as np

from benchmarks.accuracy import ours, peers
from benchmarks.accuracy.goal import Goal, Options
from benchmarks.accuracy.results import Line, Results, across_tasks
from benchmarks.protocol import Contestant
from benchmarks.tasks import FIRST_DATA_SEED, Split, Task
from skmoe.datasets import make_manifold_regression

MANIFOLDS = ("torus", "sphere", "swiss_roll", "surface")
DIMENSIONS = (50, 500)
SIZES = (10_000, 100_000, 1_000_000)
N_TEST = 5000
# In pieces hardly any rows but those beside a border are wrong, the fewer the more rows there
# are to learn from: so many test rows, or so many for each of these, tell how many.
N_TEST_IN_PIECES, TEST_SHARE_IN_PIECES = 100_000, 0.5
CHUNK = 100_000  # rows drawn at once: a million of 500 features need 4 GB in float64
# Kind of target -> its generator's name, noise in units of the target's deviation.
KINDS = {
    "pieces": ("pieces", 0.0),
    "smooth": ("smooth", 0.0),
    "smooth, 5 % noise": ("smooth", 0.05),
}

MAX_SLOPE = 0.05
SMOOTH_ERROR, SMOOTH_SECONDS = 2e-3, 60
OF_NYSTROEM = 2.0
MILLION_SECONDS = 900


def name_of(manifold: str, kind: str, n_features: int, n: int) -> str:
    return f"{manifold}, {kind}, D={n_features}, n={n}"


def _task(manifold: str, kind: str, n_features: int, n: int, options: Options) -> Task:
    target, noise = KINDS[kind]
    at_borders = max(N_TEST_IN_PIECES, int(TEST_SHARE_IN_PIECES * n))
    n_train = options.rows(n)
    n_test = options.rows(at_borders if kind == "pieces" else N_TEST)
    settings = {"manifold": manifold, "target": target, "n_features": n_features}

    def make(seed: int) -> Split:
        task_seed = FIRST_DATA_SEED + seed

        def chunk(n_rows: int, rows_seed: int):
            X, y = make_manifold_regression(
                n_rows, **settings, task_random_state=task_seed, random_state=rows_seed
            )
            return X.astype(np.float32), y

        def draw(n_rows: int, rows_seeds: Iterator[int]):
            sizes = [min(CHUNK, n_rows - start) for start in range(0, n_rows, CHUNK)]
            X, y = zip(*map(chunk, sizes, rows_seeds), strict=True)
            return np.concatenate(X), np.concatenate(y)

        X_test, y_test = draw(n_test, count(task_seed, 10_000))
        X, y = draw(n_train, count(1_000_000 + task_seed * 1000))
        y += noise * y.std() * np.random.default_rng(task_seed).standard_normal(n_train)
        return Split(X, y, X_test, y_test)

    spec = {"n_train": n_train, "n_test": n_test, "noise": noise, **settings}
    facts = {"D": n_features, "d": 2}
    return Task(name_of(manifold, kind, n_features, n), "manifold", make, spec, facts)


def tasks(options: Options) -> list[Task]:
    """Small ones first."""
    return [
        _task(manifold, kind, n_features, n, options)
        for n in SIZES
        if n <= options.largest
        for n_features in DIMENSIONS
        for kind in KINDS
        for manifold in MANIFOLDS
    ]


def contestants(task: Task) -> list[Contestant]:
    nystroem = peers.tuned_kernels()[0]
    return [
        *(ours.shallow(), ours.deep(), ours.training_free()),
        *(*peers.fixed_trees(), peers.tuned_neighbours(), nystroem),
    ]


def _ours(results: Results, task: str) -> list[str]:
    return results.measured(task, (*ours.OURS, ours.RIDGE))


def _best_default(results: Results, task: str) -> str | None:
    return results.best(task, ours.OURS)


def _points(results: Results) -> list[tuple[str, str, int, int]]:
    """Manifold, kind, D and n of what was measured."""
    every = [
        (m, kind, D, n) for kind in KINDS for m in MANIFOLDS for D in DIMENSIONS for n in SIZES
    ]
    return [point for point in every if name_of(*point) in results.tasks]


def slopes(results: Results, name: str | None, low: str, high: str, span: float) -> list[float]:
    """Slope of log error between two tasks, for every seed."""
    if name is None:
        return []
    below, above = results.of_seed(low, name), results.of_seed(high, name)
    return [
        float(np.log(above[seed] / below[seed]) / np.log(span))
        for seed in above
        if seed in below
    ]


def lines(results: Results) -> list[Line]:
    return [*_over_dimension(results), *_over_rows(results), *_against_others(results)]


def _over_dimension(results: Results) -> list[Line]:
    found = []
    for manifold, kind, n_features, n in _points(results):
        low = name_of(manifold, kind, DIMENSIONS[0], n)
        if n_features != DIMENSIONS[1] or low not in results.tasks:
            continue
        high = name_of(manifold, kind, n_features, n)
        name = _best_default(results, high)
        values = slopes(results, name, low, high, DIMENSIONS[1] / DIMENSIONS[0])
        claim = f"{manifold}, {kind}, n={n}: slope of log error over log D ({name})"
        found.append(Line(claim, values, MAX_SLOPE))
    return found


def _over_rows(results: Results) -> list[Line]:
    found = []
    for manifold, kind, n_features, n in _points(results):
        more = name_of(manifold, kind, n_features, 10 * n)
        if more not in results.tasks:
            continue
        name = _best_default(results, more)
        low = name_of(manifold, kind, n_features, n)
        values = slopes(results, name, low, more, 10)
        claim = f"{manifold}, {kind}, D={n_features}: slope over log n from n={n} ({name})"
        found.append(Line(claim, values, 0))
    return found


def _against_others(results: Results) -> list[Line]:
    found = []
    for manifold, kind, n_features, n in _points(results):
        task = name_of(manifold, kind, n_features, n)
        name = _best_default(results, task)
        if kind == "pieces":
            mine = _ours(results, task)
            others = [c for c in results.measured(task) if c not in mine]
            ratios = results.ratios_to_best(task, name, others)
            found.append(Line(f"{task}: {name} / best peer of each seed", ratios, 1))
        elif kind == "smooth":
            found += _smooth(results, task)
        else:
            ratios = results.ratios(task, name, peers.NYSTROEM)
            found.append(Line(f"{task}: {name} / {peers.NYSTROEM}", ratios, OF_NYSTROEM))
        if n == SIZES[-1] and name is not None:
            seconds = list(results.of_seed(task, name, "fit_seconds").values())
            found.append(Line(f"{task}: fit seconds ({name})", seconds, MILLION_SECONDS))
    return found


def _smooth(results: Results, task: str) -> list[Line]:
    """The most accurate of ours among those that need at most a minute."""
    quick = [
        name
        for name in _ours(results, task)
        if results.median(task, name, "fit_seconds") <= SMOOTH_SECONDS
    ]
    name = results.best(task, quick)
    errors = [] if name is None else list(results.of_seed(task, name).values())
    return [Line(f"{task}: NRMSE within a minute ({name})", errors, SMOOTH_ERROR)]


def tables(results: Results) -> list[str]:
    blocks = []
    for manifold in MANIFOLDS:
        for kind in KINDS:
            points = [p for p in _points(results) if p[:2] == (manifold, kind)]
            columns = {
                f"D={D}, n={n:,}": name_of(manifold, kind, D, n) for _, _, D, n in points
            }
            if columns:
                names = results.contestants
                blocks.append(
                    f"### {manifold}, {kind}\n\n" + across_tasks(results, columns, names)
                )
                blocks.append(
                    "Fit seconds:\n\n" + across_tasks(results, columns, names, "fit_seconds")
                )
    return blocks


GOAL = Goal(
    4,
    "manifolds",
    f"NRMSE on {N_TEST:,} noise-free test rows, so with noise the excess error; in pieces on "
    "half as many as there are training rows; X in float32. "
    "d = 2, *pieces* are 4 with jumps between them, *smooth* is a sum of 40 waves. Verdicts "
    "are for the better of our two defaults on each task; for noise-free smooth targets, for "
    "the best of ours that fits within a minute. Trees have 500 iterations of 63 leaves, the "
    "number of neighbours and the Nystroem ridge (2,000 landmarks) are tuned on validation "
    "rows. Kernels stay ahead on smooth noise-free targets.",
    tasks,
    contestants,
    lines,
    tables,
)
