"""The parts, and when they help: each in place of the default one, all else alike.

Run ``python -m benchmarks.parts [--seeds 5] [--parts PATTERN]``. Every contestant is a
`MoERegressor` with eight experts trained by gradient descent for as many epochs, and differs
from the default by one part. Tasks: a torus and a Swiss roll in four pieces, a product of two
factors of three regions each and a sum of three, concrete and airfoil. Nobody is tuned; results
are test errors over that of the default, seed by seed.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.environment import describe
from benchmarks.frame import command_line, measure_missing, ratios, run_and_report, spread
from benchmarks.headline import Split, held_out, measure
from benchmarks.store import Row, Store, read_rows
from skmoe import MoERegressor, part
from skmoe.datasets import (
    load_airfoil,
    load_concrete,
    make_compositional_regression,
    make_manifold_regression,
)

COLUMNS = ("task", "seed", "contestant", "status", "nrmse", "seconds", "n_weights")
N_TRAIN, N_TEST = 1500, 5000
N_EXPERTS = 8
DEFAULT = "default"
FIRST_SEED = 1000

Settings = dict[str, Any]


def _parts() -> dict[str, Settings]:
    """What each contestant has in place of the default."""
    found: dict[str, Settings] = {DEFAULT: {}}
    for gate in ("mlp", "deep", "prototype", "cosine", "quadratic"):
        found[f"gate {gate}"] = {"gate": gate}
    found["gate of learned temperature"] = {"gate": part("linear", temperature="learn")}
    found["gate annealed from 3 to 0.1"] = {"gate": part("linear", temperature=(3.0, 0.1))}
    for router in ("normalized_sigmoid", "sigmoid", "entmax", "hierarchical"):
        found[f"router {router}"] = {"router": router}
    found["router sigmoid, learned threshold"] = {"router": part("sigmoid", threshold="learn")}
    found["top 2"] = {"top_k": 2}
    for router in ("noisy_top_k", "expert_choice"):
        found[f"top 2, router {router}"] = {"router": router, "top_k": 2}
    balanced = part("normalized_sigmoid", balance_rate=0.01)
    found["top 2, normalized_sigmoid"] = {"router": "normalized_sigmoid", "top_k": 2}
    found["top 2, normalized_sigmoid, balanced"] = {"router": balanced, "top_k": 2}
    found["top 1, router hash"] = {"router": "hash", "top_k": 1}
    found["one shared expert"] = {"n_shared_experts": 1}
    for expert in ("linear", "constant", "latent", "merged", "cp", "tensor_ring", "mpo"):
        found[f"expert {expert}"] = {"expert": expert}
    found["expert cp, 256 of them, entmax"] = {
        "expert": "cp",
        "n_experts": 256,
        "router": "entmax",
    }
    found["experts of four kinds"] = {"expert": 2 * ["mlp", "linear", "constant", "latent"]}
    for loss, weight in (
        ("switch", 0.01),
        ("importance", 0.1),
        ("z", 0.001),
        ("mutual_information", 0.01),
        ("group_sparsity", 0.1),
    ):
        found[f"{loss} loss"] = {"auxiliary_losses": {loss: weight}}
    for embedding in (None, "periodic"):
        found[f"embedding {embedding}"] = {"embedding": embedding}
    found["init kmeans"] = {"init": "kmeans"}
    return found


PARTS = _parts()


def _manifold(manifold: str) -> Callable[[int], Split]:
    def draw(seed: int) -> Split:
        X, y = make_manifold_regression(
            N_TRAIN + N_TEST,
            manifold=manifold,
            n_features=10,
            target="pieces",
            random_state=FIRST_SEED + seed,
        )
        return X[:N_TRAIN], y[:N_TRAIN], X[N_TRAIN:], y[N_TRAIN:]

    return draw


def _composition(n_blocks: int, combine: str) -> Callable[[int], Split]:
    def draw(seed: int) -> Split:
        X, y = make_compositional_regression(
            N_TRAIN + N_TEST,
            n_blocks=n_blocks,
            n_regions=3,
            combine=combine,
            random_state=FIRST_SEED + seed,
        )
        return X[:N_TRAIN], y[:N_TRAIN], X[N_TRAIN:], y[N_TRAIN:]

    return draw


def _table(load: Callable) -> Callable[[int], Split]:
    return lambda seed: held_out(load, seed)


TASKS: dict[str, Callable[[int], Split]] = {
    "torus": _manifold("torus"),
    "Swiss roll": _manifold("swiss_roll"),
    "product": _composition(2, "product"),
    "sum": _composition(3, "sum"),
    "concrete": _table(load_concrete),
    "airfoil": _table(load_airfoil),
}


def model_of(name: str, seed: int) -> MoERegressor:
    """The contestant of this name."""
    usual = {"n_experts": N_EXPERTS, "top_k": None, "solver": "adam"}
    return MoERegressor(**{**usual, **PARTS[name]}, random_state=seed)


def run(store: Store, task: str, seeds: int, pattern: str) -> None:
    """Measure what is missing of one task, contestants interleaved within each seed."""
    for seed in range(seeds):
        split = TASKS[task](seed)
        wanted = [name for name in PARTS if name == DEFAULT or re.search(pattern, name)]
        models = {name: model_of(name, seed) for name in wanted}
        measure_missing(store, task, seed, models, partial(_figures, split=split))


def _figures(model: MoERegressor, split: Split) -> Row:
    figures = measure(model, split)
    return {**figures, "n_weights": sum(weight.numel() for weight in model.net_.parameters())}


def report(store: Store) -> str:
    """The table in Markdown."""
    rows = read_rows(store.table)
    tasks = [task for task in TASKS if any(row["task"] == task for row in rows)]
    seeds = {row["seed"] for row in rows}
    lines = [
        "# The parts, and when they help",
        "",
        f"`python -m benchmarks.parts`: `MoERegressor` with {N_EXPERTS} experts trained by "
        "gradient descent, one part changed, all else alike, nothing tuned. Test error over "
        f"that of the default, median of {len(seeds)} seeds [smallest, largest]; below 1 the "
        "part helps. Time and number of weights over the default's, medians over all fits.",
        "",
        describe(store.run()["sessions"][-1]),
        "",
        "| part | " + " | ".join(tasks) + " | mean | time | weights |",
        "|---|" + "---|" * (len(tasks) + 3),
    ]
    for name in PARTS:
        cells, logs = [], []
        for task in tasks:
            errors = ratios(rows, [task], name, DEFAULT, "nrmse")
            cells.append(spread(errors, 2))
            logs += [np.log(np.median(errors))] if errors else []
        if logs:
            mean = f"{np.exp(np.mean(logs)):.2f}"
            rest = [
                np.median(ratios(rows, tasks, name, DEFAULT, column))
                for column in ("seconds", "n_weights")
            ]
            cells += [mean, *(f"{value:.2f}" for value in rest)]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "*mean*: geometric, over the tasks' medians.", ""]
    return "\n".join(lines)


def main(arguments=None) -> None:
    """Read the command line, run, report."""
    parser = command_line(__doc__, "parts")
    parser.add_argument("--parts", metavar="PATTERN", default="", help="only parts it matches")
    parser.add_argument("--tasks", metavar="PATTERN", default="", help="likewise, tasks")
    options = parser.parse_args(arguments)

    def work(store: Store) -> None:
        measure(model_of(DEFAULT, 0), TASKS["concrete"](0))  # what is slow the first time
        for task in TASKS:
            if re.search(options.tasks, task):
                run(store, task, options.seeds, options.parts)

    run_and_report(options, COLUMNS, work, report)


if __name__ == "__main__":
    main()
