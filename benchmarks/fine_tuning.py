"""Expert-specialised tuning against tuning of all weights, on tasks that shifted somewhere.

Run ``python -m benchmarks.fine_tuning [--seeds 5]``. A `MoERegressor` with 16 experts, two of
them asked, is fitted; then the function changes in one region, and rows of that region are
learned by the experts that they ask (`fine_tune`), for several thresholds, by adapters or by
all weights, in as many steps of the same size. *Gain* is the fall of the error on new test rows
over that of tuning all weights; *forgotten* the rise of the error on test rows elsewhere, over
the old error.
"""

import copy
from collections.abc import Callable

import numpy as np

from benchmarks.environment import describe
from benchmarks.frame import command_line, run_tasks, spread
from benchmarks.store import Store, read_rows
from skmoe import MoERegressor
from skmoe.datasets import make_compositional_regression, make_manifold_regression

COLUMNS = ("task", "seed", "contestant", "status", "error", "elsewhere", "weights")
N_TRAIN, N_NEW, N_TEST = 4000, 400, 4000
N_EXPERTS, TOP_K = 16, 2
BEFORE, ALL = "before", "all weights"
TUNED: dict[str, dict] = {
    f"{score}, threshold {threshold}": {"score": score, "threshold": threshold}
    for score, thresholds in (("gate", (0.1, 0.3, 0.6, 0.9)), ("token", (0.2, 0.6, 0.9)))
    for threshold in thresholds
}
TUNED["adapters"] = {"method": "adapters"}
FIRST_SEED = 1000


def torus(seed: int):
    """Four pieces on a torus."""
    return make_manifold_regression(
        N_TRAIN + 4 * N_NEW + N_TEST,
        manifold="torus",
        n_features=20,
        target="pieces",
        random_state=FIRST_SEED + seed,
        return_X_y=False,
    )


def product(seed: int):
    """A product of two factors of four regions each."""
    return make_compositional_regression(
        N_TRAIN + 4 * N_NEW + N_TEST,
        n_blocks=2,
        random_state=FIRST_SEED + seed,
        return_X_y=False,
    )


TASKS: dict[str, Callable] = {"torus": torus, "product": product}


def shifted(data):
    """Rows, old and new targets, and where these differ: in the first region."""
    region = np.asarray(data.regions).reshape(len(data.data), -1)[:, 0] == 0
    bump = data.target.std() * (1 + np.sin(3 * data.data[:, 0] / data.data[:, 0].std()))
    return data.data, data.target, np.where(region, data.target + bump, data.target), region


def run(store: Store, task: str, seed: int) -> None:
    """All contestants, from one fit."""
    missing = [n for n in (BEFORE, ALL, *TUNED) if store.status(task, seed, n) is None]
    if not missing:
        return
    X, old, new, region = shifted(TASKS[task](seed))
    moe = MoERegressor(N_EXPERTS, top_k=TOP_K, random_state=seed)
    moe.fit(X[:N_TRAIN], old[:N_TRAIN])
    rest = np.arange(N_TRAIN, len(X))
    learned, test = np.flatnonzero(region[rest])[:N_NEW] + N_TRAIN, rest[-N_TEST:]
    here, elsewhere = test[region[test]], test[~region[test]]
    here = np.setdiff1d(here, learned)
    for name in missing:
        tuned = copy.deepcopy(moe)
        weights = 0.0
        if name != BEFORE:
            settings = {"method": "all"} if name == ALL else TUNED[name]
            tuned.fine_tune(X[learned], new[learned], **settings)
            weights = tuned.n_tuned_weights_ / sum(w.numel() for w in tuned.net_.parameters())
        store.add(
            {
                "task": task,
                "seed": seed,
                "contestant": name,
                "status": "ok",
                "error": _error(tuned, X, new, here) / old.std(),
                "elsewhere": _error(tuned, X, new, elsewhere) / old.std(),
                "weights": weights,
            }
        )


def _error(model, X, y, rows) -> float:
    return float(np.sqrt(np.mean((model.predict(X[rows]) - y[rows]) ** 2)))


def report(store: Store) -> str:
    """The table in Markdown."""
    rows = read_rows(store.table)
    figures = {(row["task"], row["seed"], row["contestant"]): row for row in rows}
    lines = [
        "# Expert-specialised tuning",
        "",
        f"`python -m benchmarks.fine_tuning`: {N_EXPERTS} experts, {TOP_K} asked; {N_NEW} rows "
        "of a region in which the function changed. Medians [smallest, largest] over seeds. "
        "*Gain*: fall of the error there over that of tuning all weights. *Forgotten*: rise "
        "of the error elsewhere over the error of before.",
        "",
        describe(store.run()["sessions"][-1]),
    ]
    for task in TASKS:
        seeds = sorted({seed for t, seed, _ in figures if t == task})
        lines += ["", f"## {task}", "", "| tuned | error | gain | weights | forgotten |"]
        lines.append("|---|---|---|---|---|")
        for name in (BEFORE, ALL, *TUNED):
            own = [figures[task, seed, name] for seed in seeds]
            cells = [spread([float(row["error"]) for row in own], 3)]
            if name != BEFORE:
                start = [figures[task, seed, BEFORE] for seed in seeds]
                full = [figures[task, seed, ALL] for seed in seeds]
                gains = [
                    (float(b["error"]) - float(o["error"]))
                    / (float(b["error"]) - float(a["error"]))
                    for b, o, a in zip(start, own, full, strict=True)
                ]
                lost = [
                    float(o["elsewhere"]) / float(b["elsewhere"]) - 1
                    for o, b in zip(own, start, strict=True)
                ]
                weights = [float(row["weights"]) for row in own]
                cells += [spread(values, 2) for values in (gains, weights, lost)]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments=None) -> None:
    """Read the command line, run, report."""
    options = command_line(__doc__, "fine_tuning").parse_args(arguments)
    run_tasks(options, COLUMNS, TASKS, run, report)


if __name__ == "__main__":
    main()
