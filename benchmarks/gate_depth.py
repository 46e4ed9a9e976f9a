"""Does a nonlinear gate save half of the layers?

Run ``python -m benchmarks.gate_depth [--seeds 5]``. Wang & E (2025), section 6: with a gate
that is a two-layer net, L layers represent what takes 2 L layers with linear gates. Here both
are trained, as stacks of layers on a product of two factors of four regions each, with the same
steps and defaults but for depth and gate. Results are test RMSE over the standard deviation of
the target.
"""

from functools import partial

import numpy as np

from benchmarks.environment import describe
from benchmarks.frame import command_line, measure_missing, run_and_report, spread
from benchmarks.headline import measure
from benchmarks.store import Store, read_rows
from skmoe import DeepMoERegressor
from skmoe.datasets import make_compositional_regression

COLUMNS = ("task", "seed", "contestant", "status", "nrmse", "seconds")
N_TRAIN, N_TEST = 4000, 5000
TASK = "product of two factors"
CONTESTANTS = {
    f"{gate} gate, {n_layers} layers": {"gate": gate, "n_layers": n_layers}
    for gate in ("linear", "mlp")
    for n_layers in (1, 2, 4)
}
FIRST_SEED = 1000


def run(store: Store, seed: int) -> None:
    """What is missing of one seed."""
    X, y = make_compositional_regression(
        N_TRAIN + N_TEST, n_blocks=2, random_state=FIRST_SEED + seed
    )
    split = X[:N_TRAIN], y[:N_TRAIN], X[N_TRAIN:], y[N_TRAIN:]
    models = {
        name: DeepMoERegressor(arrangement="stack", random_state=seed, **settings)
        for name, settings in CONTESTANTS.items()
    }
    measure_missing(store, TASK, seed, models, partial(measure, split=split))


def report(store: Store) -> str:
    """The table in Markdown, and the claim."""
    rows = {(row["seed"], row["contestant"]): row for row in read_rows(store.table)}
    seeds = sorted({seed for seed, _ in rows})
    errors = {
        name: np.array([float(rows[seed, name]["nrmse"]) for seed in seeds])
        for name in CONTESTANTS
    }
    lines = [
        "# A nonlinear gate, or twice the layers",
        "",
        f"`python -m benchmarks.gate_depth`: stacks on a {TASK}, {N_TRAIN} rows. NRMSE, median "
        f"of {len(seeds)} seeds [smallest, largest].",
        "",
        describe(store.run()["sessions"][-1]),
        "",
        "| contestant | NRMSE | fit s |",
        "|---|---|---|",
    ]
    for name, values in errors.items():
        seconds = np.median([float(rows[seed, name]["seconds"]) for seed in seeds])
        lines.append(f"| {name} | {spread(values, 3)} | {seconds:.0f} |")
    lines += [
        "",
        "| mlp gate, L layers / linear gate, 2 L layers | ratio of errors |",
        "|---|---|",
    ]
    for n_layers in (1, 2):
        ratios = (
            errors[f"mlp gate, {n_layers} layers"]
            / errors[f"linear gate, {2 * n_layers} layers"]
        )
        lines.append(f"| L = {n_layers} | {spread(ratios, 3)} |")
    return "\n".join(lines) + "\n"


def main(arguments=None) -> None:
    """Read the command line, run, report."""
    options = command_line(__doc__, "gate_depth").parse_args(arguments)

    def work(store: Store) -> None:
        for seed in range(options.seeds):
            run(store, seed)

    run_and_report(options, COLUMNS, work, report)


if __name__ == "__main__":
    main()
