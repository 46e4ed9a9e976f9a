"""What is left of a mixture whose experts are factorised, and what a dense net is worth.

Run ``python -m benchmarks.surgery [--seeds 5]``. On the tasks of `benchmarks.parts`: a mixture
of eight experts is fitted; its experts' maps are factorised (`compress`), with ranks that are
shares of what would lose nothing, by the squares of the maps or by their effect on the training
rows. Some of these smaller mixtures, and the fitted one, go on learning for as many epochs as
the fit had. Besides, a mixture starts as copies of a fitted `MLPRegressor` with as many hidden
units as an expert has (`init=`). Results are test errors over that of the fitted mixture, seed
by seed.
"""

import copy
from collections.abc import Iterator
from itertools import chain

import numpy as np
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from benchmarks.environment import describe
from benchmarks.frame import command_line, ratios, run_tasks, spread
from benchmarks.headline import Split, nrmse
from benchmarks.parts import DEFAULT, TASKS, model_of
from benchmarks.store import Store, read_rows
from skmoe import MoERegressor

Regressor = MoERegressor | MLPRegressor

COLUMNS = ("task", "seed", "contestant", "status", "nrmse", "n_weights")
FITTED = "fitted mixture"
FITTED_AND_TUNED = "fitted mixture, tuned"
DENSE = "MLPRegressor"
UPCYCLED = "mixture that starts as MLPRegressor"
SHARES = {"1/8": 0.125, "1/4": 0.25, "1/2": 0.5}
TUNED = "1/4"
BONDS = (4, 16, 64)


def names() -> list[str]:
    """All contestants, in the order of the table."""
    found = [FITTED, FITTED_AND_TUNED]
    for share in SHARES:
        found += [f"latent, rank {share}", f"latent, rank {share}, by the rows"]
        if share == TUNED:
            found.append(f"latent, rank {share}, by the rows, tuned")
    for bond in BONDS:
        found.append(f"mpo, bonds up to {bond}")
    return [*found, f"mpo, bonds up to {BONDS[1]}, tuned", DENSE, UPCYCLED]


def factorised(moe: MoERegressor, X, y) -> Iterator[tuple[str, MoERegressor]]:
    """The fitted mixture and all that is made of it."""
    yield FITTED, moe
    yield FITTED_AND_TUNED, tuned(copy.deepcopy(moe), X, y)
    seen = moe.net_.moe_layers()[0].experts.input_dim
    for share, part_of_it in SHARES.items():
        rank = max(1, round(part_of_it * seen))
        yield f"latent, rank {share}", moe.compress(rank=rank)
        small = moe.compress(rank=rank, X=X)
        yield f"latent, rank {share}, by the rows", small
        if share == TUNED:
            yield f"latent, rank {share}, by the rows, tuned", tuned(small, X, y)
    for bond in BONDS:
        yield f"mpo, bonds up to {bond}", moe.compress("mpo", rank=bond)
    small = moe.compress("mpo", rank=BONDS[1])
    yield f"mpo, bonds up to {BONDS[1]}, tuned", tuned(small, X, y)


def tuned(moe: MoERegressor, X, y) -> MoERegressor:
    """This mixture, after all its weights went on learning."""
    return moe.fine_tune(X, y, method="all")


def dense(X, y, seed: int) -> Iterator[tuple[str, Regressor]]:
    """A dense net, and the mixture that starts as copies of it."""
    net = MLPRegressor(hidden_layer_sizes=(64,), max_iter=1000, random_state=seed).fit(X, y)
    yield DENSE, net
    yield UPCYCLED, model_of(DEFAULT, seed).set_params(init=net, embedding=None).fit(X, y)


def scaled(split: Split) -> Split:
    """Standardised, as a net of scikit-learn wants it."""
    X, y, X_test, y_test = split
    scaler = StandardScaler().fit(X)
    y, y_test = ((values - y.mean()) / y.std() for values in (y, y_test))
    return scaler.transform(X), y, scaler.transform(X_test), y_test


def run(store: Store, task: str, seed: int) -> None:
    """All contestants, from one fit."""
    if all(store.status(task, seed, name) is not None for name in names()):
        return
    X, y, *test = scaled(TASKS[task](seed))
    moe = model_of(DEFAULT, seed).fit(X, y)
    for name, model in chain(factorised(moe, X, y), dense(X, y, seed)):
        figures = {"nrmse": nrmse(model, *test), "n_weights": n_weights(model)}
        store.add({"task": task, "seed": seed, "contestant": name, "status": "ok", **figures})


def n_weights(model) -> int:
    """Numbers that were learned."""
    if isinstance(model, MLPRegressor):
        return sum(w.size for w in (*model.coefs_, *model.intercepts_))
    return sum(weight.numel() for weight in model.net_.parameters())


def report(store: Store) -> str:
    """The table in Markdown."""
    rows = read_rows(store.table)
    tasks = [task for task in TASKS if any(row["task"] == task for row in rows)]
    seeds = {row["seed"] for row in rows}
    lines = [
        "# Factorised experts, and dense nets as a start",
        "",
        "`python -m benchmarks.surgery`: test error over that of the fitted mixture, median of "
        f"{len(seeds)} seeds [smallest, largest], and share of its weights, over all tasks. A "
        "rank of 1/4 is a quarter of the dimension that experts see.",
        "",
        describe(store.run()["sessions"][-1]),
        "",
        "| contestant | " + " | ".join(tasks) + " | weights |",
        "|---|" + "---|" * (len(tasks) + 1),
    ]
    for name in names():
        cells = [spread(ratios(rows, [task], name, FITTED, "nrmse"), 2) for task in tasks]
        weights = np.median(ratios(rows, tasks, name, FITTED, "n_weights"))
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {weights:.2f} |")
    return "\n".join(lines) + "\n"


def main(arguments=None) -> None:
    """Read the command line, run, report."""
    options = command_line(__doc__, "surgery").parse_args(arguments)
    run_tasks(options, COLUMNS, TASKS, run, report)


if __name__ == "__main__":
    main()
