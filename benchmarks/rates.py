"""How fast fitted experts come to the true ones, if there are more of them than these.

Run ``python -m benchmarks.rates [--seeds 20] [--largest 100000]``. The synthetic experiments of
Nguyen et al., "On DeepSeekMoE" (2025), appendix G.1: data of one shared and two routed experts
in one dimension, of which two and three are fitted by expectation-maximisation, started near
the truth; the Voronoi loss to the truth over the number of rows, and its slope in a log-log
plot. The paper reports slopes of 0.451 (ReLU experts, softmax), 0.517 (linear, softmax), 0.46
(ReLU, sigmoids over their sum, gate constant) and 0.552 (linear, sigmoids, gate not constant);
theory has 0.5.

What was to be read into the paper's text:

- ReLU experts are ``c ReLU(a x + b)`` with c held at the truth, as a scale can move between
  c and (a, b).
- A softmax does not see a vector that is added to all (offset, slope): the fitted gate is
  compared with the same sum of ``exp(offset)`` and the same mean slope as the true one. With
  slopes of zero, sigmoids do not see a common factor: their sum is likewise made the true one.
- Linear experts behind a softmax converge as slowly as the number m of them in a cell has it:
  exponents are r(m) for intercepts and gates, r(m) / 2 for slopes and variances (routed), and
  for shared ones r(m), 2 and r(m) / 2, with r(2) = 4 and r(3) = 6.
- With sigmoids and slopes that are not zero, three experts cannot be two: the fit goes to the
  nearest mixture of three (a projection). It is approached by fits to a million rows from both
  ways to split a true expert; distances are to the nearer one, without squares.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.environment import describe
from benchmarks.frame import command_line, run_and_report, spread
from benchmarks.mixture_em import Array, Experts, Gate, Mixture, fit
from benchmarks.store import Store, read_rows
from skmoe.inspection import voronoi_loss

COLUMNS = ("task", "seed", "contestant", "status", "loss", "iterations")
SIZES = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
N_PROJECTION = 1_000_000
N_SHARED, N_ROUTED = 2, 3
JITTER = 0.1
FIRST_SEED = 1000
# Rows from which on the second slope is taken: losses of fewer have large squares.
MANY_ROWS = 1000


def _r(counts):
    """Exponents of linear experts that share a cell (2.1 of the paper)."""
    return np.where(counts > 2, 6.0, 4.0)


def _half_r(counts):
    return _r(counts) / 2


@dataclass(frozen=True)
class Case:
    """One experiment."""

    name: str
    truth: Mixture
    paper: float
    shared_exponents: list | float = 2.0
    routed_exponents: list | float = 2.0
    projected: bool = False


def _mixture(gate: str, slope: float, shared: Experts, routed: Experts) -> Mixture:
    offsets, slopes = np.array([-0.5, 0.5]), np.full(2, slope)
    return Mixture(np.ones(1), shared, Gate(gate, offsets, slopes), routed)


def _experts(lines: list, variance: float, outer: float | None = None) -> Experts:
    return Experts(np.array(lines), np.full(len(lines), variance), outer)


RELU_SHARED = _experts([[6.0, 0.0]], 0.25, -8.0)
RELU_ROUTED = _experts([[-12.0, 0.0], [12.0, 0.0]], 0.4, 4.0)
LINEAR_SHARED = _experts([[2.0, 0.0]], 0.2)
LINEAR_ROUTED = _experts([[8.0, 2.0], [-6.0, 1.0]], 0.4)


CASES = (
    Case("ReLU, softmax", _mixture("softmax", 5.0, RELU_SHARED, RELU_ROUTED), 0.451),
    Case(
        "linear, softmax",
        _mixture("softmax", 5.0, LINEAR_SHARED, LINEAR_ROUTED),
        0.517,
        [2.0, _r, _half_r],
        [_half_r, _r, _half_r, _r],
    ),
    Case(
        "ReLU, sigmoids, constant gate",
        _mixture("sigmoid", 0.0, RELU_SHARED, RELU_ROUTED),
        0.46,
    ),
    Case(
        "linear, sigmoids",
        _mixture("sigmoid", 5.0, RELU_SHARED, LINEAR_ROUTED),
        0.552,
        routed_exponents=1.0,
        projected=True,
    ),
)


def start(truth: Mixture, random: np.random.Generator) -> Mixture:
    """Each true expert, and copies of some, near the truth."""
    shared, routed = (
        np.append(np.arange(k), random.integers(k, size=n - k))
        for k, n in ((1, N_SHARED), (2, N_ROUTED))
    )
    return truth.take(shared, routed).jitter(JITTER, random)


def distance(case: Case, fitted: Mixture, truth: Mixture) -> float:
    """Voronoi loss of the shared experts and of the routed ones with their gate."""
    masses, slopes = _comparable(fitted.gate, truth.gate)
    true_masses = _masses(truth.gate)
    return voronoi_loss(
        fitted.shared_weights,
        _columns(fitted.shared, case.shared_exponents),
        truth.shared_weights,
        _columns(truth.shared, case.shared_exponents),
        exponents=case.shared_exponents,
    ) + voronoi_loss(
        masses,
        [*_columns(fitted.routed, case.routed_exponents), slopes[:, None]],
        true_masses,
        [*_columns(truth.routed, case.routed_exponents), truth.gate.slopes[:, None]],
        exponents=case.routed_exponents,
    )


def _columns(experts: Experts, exponents: list | float) -> list[Array]:
    """Groups of parameters: maps and variances, or, by own exponents, a, b and variances."""
    lines = experts.lines
    groups = [lines[:, :1], lines[:, 1:]] if isinstance(exponents, list) else [lines]
    return [*groups, experts.variances[:, None]]


def _masses(gate: Gate) -> Array:
    """Weights at x = 0, not normalised."""
    if gate.kind == "softmax":
        return np.exp(gate.offsets)
    return 1 / (1 + np.exp(-gate.offsets))


def _comparable(gate: Gate, truth: Gate) -> tuple[Array, Array]:
    """Masses and slopes, after what the gate does not see was made that of the true one."""
    masses, true_masses = _masses(gate), _masses(truth)
    constant = not truth.slopes.any()
    if gate.kind == "sigmoid" and not constant:
        return masses, gate.slopes
    masses = masses * true_masses.sum() / masses.sum()
    if constant:
        return masses, gate.slopes
    shift = np.average(truth.slopes, weights=true_masses) - np.average(
        gate.slopes, weights=masses
    )
    return masses, gate.slopes + shift


def projections(case: Case) -> list[Mixture]:
    """What fits approach with ever more rows: the truth, or the nearest mixtures of three."""
    if not case.projected:
        return [case.truth]
    random = np.random.default_rng(FIRST_SEED - 1)
    x, y = case.truth.sample(N_PROJECTION, random)
    ways = [np.array([0, 1, extra]) for extra in (0, 1)]
    starts = [case.truth.take(np.array([0]), way).jitter(JITTER, random) for way in ways]
    few = slice(N_PROJECTION // 20)  # most of the way on few rows
    near = [fit(model, x[few], y[few], tol=1e-8)[0] for model in starts]
    return [fit(model, x, y, tol=1e-7)[0] for model in near]


def run(store: Store, case: Case, n: int, seed: int, targets: Callable) -> None:
    """One fit."""
    random = np.random.default_rng([FIRST_SEED + seed, n])
    x, y = case.truth.sample(n, random)
    model, likelihoods = fit(start(case.truth, random), x, y)
    loss = min(distance(case, model, target) for target in targets(case))
    row = {"task": case.name, "seed": seed, "contestant": f"{n} rows", "status": "ok"}
    store.add({**row, "loss": loss, "iterations": len(likelihoods)})


def slope(sizes: Array, losses: Array, logs: bool) -> float:
    """Of the logarithm of losses over that of 1 / n or log(n) / n."""
    over = np.log(sizes) / sizes if logs else 1 / sizes
    return float(np.polyfit(np.log(over), np.log(losses), 1)[0])


def report(store: Store) -> str:
    """Slopes first, then losses."""
    losses: dict[str, dict[int, list[float]]] = {case.name: {} for case in CASES}
    for row in read_rows(store.table):
        n = int(row["contestant"].split()[0])
        losses[row["task"]].setdefault(n, []).append(float(row["loss"]))
    losses = {name: dict(sorted(own.items())) for name, own in losses.items() if own}
    n_seeds = min(len(values) for own in losses.values() for values in own.values())
    lines = [
        "# Rates at which experts are found",
        "",
        "`python -m benchmarks.rates`: Voronoi loss of two shared and three routed experts, "
        f"fitted to data of one and two, medians of {n_seeds} data sets.",
        "",
        describe(store.run()["sessions"][-1]),
        "",
        "| case | paper | slope over 1/n | over log(n)/n | "
        f"over 1/n, n >= {MANY_ROWS:,} | over log(n)/n, n >= {MANY_ROWS:,} |",
        "|---|---|---|---|---|---|",
    ]
    for case in CASES:
        if len(losses.get(case.name, {})) > 1:
            lines.append(f"| {case.name} | {case.paper} | {_slopes(losses[case.name])} |")
    sizes = sorted({n for own in losses.values() for n in own})
    lines += ["", "| loss at n rows | " + " | ".join(f"{n:,}" for n in sizes) + " |"]
    lines.append("|---" * (len(sizes) + 1) + "|")
    for name, own in losses.items():
        lines.append(
            f"| {name} | " + " | ".join(spread(own.get(n, ()), 3) for n in sizes) + " |"
        )
    return "\n".join(lines) + "\n"


def _slopes(own: dict[int, list[float]]) -> str:
    sizes = np.array(list(own), dtype=float)
    medians = np.array([np.median(values) for values in own.values()])
    cells = []
    for mask in (sizes > 0, sizes >= MANY_ROWS):
        for logs in (False, True):
            enough = mask.sum() > 1
            cells.append(f"{slope(sizes[mask], medians[mask], logs):.3f}" if enough else "-")
    return " | ".join(cells)


def main(arguments=None) -> None:
    """Read the command line, run, report."""
    parser = command_line(__doc__, "rates", seeds=20)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    options = parser.parse_args(arguments)
    found: dict[str, list[Mixture]] = {}

    def targets(case: Case) -> list[Mixture]:
        if case.name not in found:
            found[case.name] = projections(case)
        return found[case.name]

    def work(store: Store) -> None:
        for n in (n for n in SIZES if n <= options.largest):
            for case in CASES:
                for seed in range(options.seeds):
                    if store.status(case.name, seed, f"{n} rows") is None:
                        run(store, case, n, seed, targets)

    run_and_report(options, COLUMNS, work, report)


if __name__ == "__main__":
    main()
