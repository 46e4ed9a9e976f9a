"""What bounds errors at borders: how well true regions of so many rows tell where these are.

Run ``python -m benchmarks.true_regions [--seeds 5]``. All is known about a target but where its
borders are. They are told by a logistic regression of the true regions of the training rows, in
coordinates in which they are straight, or nearly so on a torus. A row on the wrong side gets
the value of the piece that it is taken for. There are no pieces, axes or values to find here.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.utils import Bunch

from benchmarks.environment import describe
from benchmarks.frame import command_line, measure_missing, run_tasks, spread
from benchmarks.store import Row, Store, read_rows
from benchmarks.tasks import FIRST_DATA_SEED
from skmoe.datasets import make_compositional_regression, make_manifold_regression

FIGURES = ("nrmse", "wrong_side", "least", "most")
COLUMNS = ("task", "seed", "contestant", "status", *FIGURES)
CONTESTANT = "true regions"
# Test rows, and how many of them other benchmarks have had.
N_TEST, N_FEW = 200_000, 20_000
CERTAINTY = 1e9  # inverse penalty: regions do not overlap
MAX_STEPS = 100


class Problem(NamedTuple):
    """Rows to tell borders by, and how to draw them."""

    n_train: int
    draw: Callable[..., Bunch]


class Part(NamedTuple):
    """One piecewise function: what it sees, where its borders are straight, and its truth."""

    function: Any
    coordinates: np.ndarray
    straight: np.ndarray
    regions: np.ndarray


def _composition(combine: str) -> Problem:
    return Problem(50_000, partial(make_compositional_regression, combine=combine))


def _manifold(manifold: str, n_train: int, n_pieces: int = 4) -> Problem:
    settings = {"manifold": manifold, "target": "pieces", "n_pieces": n_pieces}
    return Problem(n_train, partial(make_manifold_regression, **settings))


TASKS: dict[str, Problem] = {
    "product, 64 pieces": _composition("product"),
    "sine, 64 pieces": _composition("sine"),
    "torus in 16 pieces": _manifold("torus", 50_000, n_pieces=16),
    **{
        f"{manifold} in 4 pieces, n = {n:,}": _manifold(manifold, n)
        for manifold in ("torus", "sphere")
        for n in (10_000, 100_000, 1_000_000)
    },
}


def _parts(data: Bunch) -> list[Part]:
    blocks = getattr(data.function, "blocks", None)
    if blocks is None:
        return [Part(data.function, data.coordinates, data.data, data.regions[:, 0])]
    columns = np.split(data.latent, len(blocks), axis=1)
    return [
        Part(block, seen, seen, regions)
        for block, seen, regions in zip(blocks, columns, data.regions.T, strict=True)
    ]


def _told(part: Part, n_train: int) -> np.ndarray:
    """The region of each row, as a regression of the first ones tells it."""
    regression = LogisticRegression(C=CERTAINTY, solver="newton-cholesky", max_iter=MAX_STEPS)
    regression.fit(part.straight[:n_train], part.regions[:n_train])
    return regression.predict(part.straight)


def figures(_: Any, data: Bunch, n_train: int) -> Row:
    """Errors on the rows after the first ones, and on parts of these."""
    parts = _parts(data)
    told = [_told(part, n_train) for part in parts]
    values = [
        np.take_along_axis(part.function.values(part.coordinates), regions[:, None], 1)
        for part, regions in zip(parts, told, strict=True)
    ]
    combine = getattr(data.function, "combine", np.ravel)
    errors = (combine(np.hstack(values)) - data.target)[n_train:] ** 2 / data.target.var()
    few = [np.sqrt(part.mean()) for part in np.split(errors, len(errors) // N_FEW)]
    wrong = [regions != part.regions for part, regions in zip(parts, told, strict=True)]
    return {
        "nrmse": np.sqrt(errors.mean()),
        "wrong_side": np.any(wrong, axis=0)[n_train:].mean(),
        "least": min(few),
        "most": max(few),
    }


def run(store: Store, task: str, seed: int) -> None:
    """What is missing of one task and seed."""
    if store.status(task, seed, CONTESTANT) is not None:
        return
    n_train, draw = TASKS[task]
    rows = {"random_state": FIRST_DATA_SEED + seed, "return_X_y": False}
    data = draw(n_train + N_TEST, **rows)
    measure_missing(
        store, task, seed, {CONTESTANT: None}, partial(figures, data=data, n_train=n_train)
    )


def report(store: Store) -> str:
    """The table in Markdown."""
    rows = read_rows(store.table)
    lines = [
        "# What bounds errors at borders",
        "",
        "`python -m benchmarks.true_regions`: NRMSE if all is known but where borders are, and "
        f"{CONTESTANT} of training rows tell these; {N_TEST:,} test rows. Median of "
        f"{len({row['seed'] for row in rows})} seeds [smallest, largest], in the last column "
        f"of the smallest and the largest error on {N_FEW:,} of the test rows.",
        "",
        describe(store.run()["sessions"][-1]),
        "",
        f"| target | NRMSE | rows on the wrong side, per 10,000 | NRMSE of {N_FEW:,} rows |",
        "|---|---|---|---|",
    ]
    for task in TASKS:
        own = [row for row in rows if row["task"] == task]
        if own:
            nrmse, wrong, least, most = (
                np.array([float(row[column]) for row in own]) for column in FIGURES
            )
            of_few = f"{np.median(least):.4f} to {np.median(most):.4f}"
            cells = [task, spread(nrmse, 4), spread(1e4 * wrong, 1), of_few]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments=None) -> None:
    """Read the command line, run, report."""
    options = command_line(__doc__, "true_regions").parse_args(arguments)
    run_tasks(options, COLUMNS, TASKS, run, report)


if __name__ == "__main__":
    main()
