"""How time and memory grow with rows, features, experts, layers and outputs.

Run ``python -m benchmarks.growth [--only rows experts]``. One quantity is varied at a time, the
others stay as they are; time is that of the processor, with one thread, memory is the peak of a
process beyond imports and data (`benchmarks.costs`). Exponents are slopes of the logarithm of
time over that of size, on the three largest sizes: what growth comes to, without what is paid
once.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.command import run
from benchmarks.costs import Cost, Size, cost_of_fit, cost_of_prediction
from benchmarks.environment import describe
from benchmarks.frame import command_line, run_and_report
from benchmarks.store import Row, Store, read_rows

COLUMNS = (
    "task",
    "seed",
    "contestant",
    "status",
    "size",
    "seconds",
    "other_seconds",
    "peak_bytes",
    "n_weights",
)
FIT, PREDICT = "fit", "prediction"
MEASURED: dict[str, Callable[[Size], Cost]] = {FIT: cost_of_fit, PREDICT: cost_of_prediction}
# Sizes that an exponent is read off.
LARGEST = 3
# What "hardly more" is: in time, over the smallest size.
HARDLY = 1.5
# Of a weight.
BYTES = 4
EPOCHS, HOUR = 100, 3600.0
# Colours are those of Okabe and Ito, and grey; one for each curve.
COLORS = (
    "#000000",
    "#0072B2",
    "#56B4E9",
    "#D55E00",
    "#E69F00",
    "#CC79A7",
    "#009E73",
    "#999999",
)
MARKERS = ("o", "s", "s", "^", "^", "v", "D", "P")
TITLES = {
    ("seconds", FIT): "An epoch of a fit",
    ("seconds", PREDICT): "A prediction",
    ("peak_bytes", FIT): "A fit",
    ("peak_bytes", PREDICT): "A prediction",
}


@dataclass(frozen=True)
class Curve:
    """A quantity, its sizes, and how they make a `Size`."""

    name: str
    what: str
    sizes: tuple[int, ...]
    at: Callable[[int], Size]
    only_predicted: tuple[int, ...] = ()


BASE = Size()
CURVES = [
    Curve(
        "rows",
        "rows",
        (1000, 10_000, 100_000, 1_000_000),
        lambda n: replace(BASE, n_rows=n),
        only_predicted=(10_000_000,),
    ),
    Curve(
        "features",
        "features",
        (2, 8, 32, 125, 500, 1000),
        lambda n: replace(BASE, n_features=n),
    ),
    Curve(
        "embedded features",
        "features, with the default embedding",
        (2, 8, 32, 125),
        lambda n: replace(BASE, n_features=n, embedding="auto"),
    ),
    Curve(
        "experts",
        "experts, two of them asked",
        (1, 4, 16, 64, 256, 1024),
        lambda n: replace(BASE, n_experts=n),
    ),
    Curve(
        "experts and batch",
        "experts, two of them asked, with 64 rows of a batch for each",
        (4, 16, 64, 256, 1024),
        lambda n: replace(BASE, n_rows=65_536, n_experts=n, batch_size=32 * n),
    ),
    Curve(
        "experts asked",
        "experts asked, of 64",
        (1, 4, 16, 64),
        lambda n: replace(BASE, n_experts=64, top_k=n),
    ),
    Curve("layers", "layers, stacked", (1, 2, 4, 8, 16), lambda n: replace(BASE, n_layers=n)),
    Curve("outputs", "outputs", (1, 3, 10, 30, 100), lambda n: replace(BASE, n_outputs=n)),
]


def measure(store: Store, curve: Curve, seed: int) -> None:
    """What is missing of a curve."""
    for name, cost_of in MEASURED.items():
        sizes = curve.sizes + (curve.only_predicted if name == PREDICT else ())
        for size in sizes:
            contestant = f"{name}, {size}"
            if store.status(curve.name, seed, contestant) is not None:
                continue
            cost = cost_of(curve.at(size))
            row = {"task": curve.name, "seed": seed, "contestant": contestant, "status": "ok"}
            store.add({**row, "size": size, **_columns(cost)})


def _columns(cost: Cost) -> Row:
    return {
        "seconds": cost.seconds,
        "other_seconds": cost.others,
        "peak_bytes": cost.peak,
        "n_weights": cost.n_weights,
    }


def points(rows: list[Row], curve: Curve, name: str, column: str) -> tuple[Any, Any]:
    """Sizes of a curve and medians of a column over the seeds, in order."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if row["task"] == curve.name and row["contestant"].startswith(f"{name},"):
            found.setdefault(int(row["size"]), []).append(float(row[column]))
    sizes = sorted(found)
    return np.array(sizes), np.array([np.median(found[size]) for size in sizes])


def exponent(sizes: Any, values: Any) -> float:
    """Slope in a log-log plot over the largest sizes."""
    large = np.log(sizes[-LARGEST:]), np.log(values[-LARGEST:])
    return float(np.polyfit(*large, 1)[0])


def hardly_more(sizes: Any, values: Any) -> int:
    """Up to where a curve stays within 1.5 times its smallest size."""
    above = values > HARDLY * values[0]
    return int(sizes[above.argmax() - 1] if above.any() else sizes[-1])


def report(store: Store) -> str:
    """Tables, picture, and where to stop."""
    rows = read_rows(store.table)
    curves = [curve for curve in CURVES if len(points(rows, curve, FIT, "size")[0]) > 1]
    draw(rows, curves, store.path / "growth.png")
    lines = [
        "# How cost grows",
        "",
        f"`python -m benchmarks.growth`: {_base()}. One quantity is varied at a time. Time is "
        "that of the processor, with one thread; memory is the peak beyond imports and data. "
        "Exponents are slopes of log time over log size on the largest sizes, in brackets.",
        "",
        describe(store.run()["sessions"][-1]),
        "",
        "![Time and memory over sizes](growth.png)",
        "",
        "## Exponents",
        "",
        "| quantity | time of an epoch | of a prediction | memory of a fit | of a prediction |",
        "|---|---|---|---|---|",
        *(_exponents(rows, curve) for curve in curves),
        "",
        "## Where to stop",
        "",
        *(_where_to_stop(rows, curve) for curve in curves),
        *_memory_of_rows(rows, curves),
        "",
        "## Measured",
    ]
    for curve in curves:
        lines += ["", *_table(rows, curve)]
    return "\n".join(lines) + "\n"


def _base() -> str:
    return (
        f"{BASE.n_rows:,} rows, {BASE.n_features} features without embedding, "
        f"{BASE.n_experts} experts of 64 units, {BASE.top_k} of them asked"
    )


def _exponents(rows: list[Row], curve: Curve) -> str:
    cells = []
    for column in ("seconds", "peak_bytes"):
        for name in MEASURED:
            sizes, values = points(rows, curve, name, column)
            used = sizes[-LARGEST:]
            if (values[-LARGEST:] <= 0).any():  # less memory than what was there before
                cells.append("-")
                continue
            cells.append(f"{exponent(sizes, values):.2f} [{used[0]:,} to {used[-1]:,}]")
    return f"| {curve.what} | {' | '.join(cells)} |"


def _where_to_stop(rows: list[Row], curve: Curve) -> str:
    """A sentence for users, from the numbers."""
    sizes, seconds = points(rows, curve, FIT, "seconds")
    slope, far = exponent(sizes, seconds), hardly_more(sizes, seconds)
    start = f"- *{curve.what[0].upper()}{curve.what[1:]}*: "
    doubling = f"beyond, twice as many take {2**slope:.1f} times as long"
    if curve.name == "rows":
        hour = int(float(f"{_rows_in_an_hour(sizes, seconds):.1g}"))
        return (
            f"{start}twice as many take {2**slope:.1f} times as long. {EPOCHS} epochs take an "
            f"hour of one thread at some {hour:,} rows."
        )
    if far == sizes[-1]:
        return f"{start}up to {far:,}, the most measured, an epoch takes hardly longer."
    if far == sizes[0]:
        return f"{start}each costs from the start; on the largest sizes {doubling[8:]}."
    return f"{start}up to {far:,}, an epoch takes hardly longer; {doubling}."


def _rows_in_an_hour(sizes: Any, seconds: Any) -> float:
    """From the largest size on, at least in proportion: batches grow no more."""
    slope = max(exponent(sizes, seconds), 1.0)
    return float(sizes[-1] * (HOUR / EPOCHS / seconds[-1]) ** (1 / slope))


def _memory_of_rows(rows: list[Row], curves: list[Curve]) -> list[str]:
    """What a row or an expert takes, from the two largest numbers of them."""
    sentences = []
    for curve in curves:
        if curve.name not in ("rows", "experts"):
            continue
        for name in MEASURED:
            sizes, peaks = points(rows, curve, name, "peak_bytes")
            _, weights = points(rows, curve, name, "n_weights")
            each, n_own = (
                np.diff(v[-2:])[0] / np.diff(sizes[-2:])[0] for v in (peaks, weights)
            )
            if each <= 0:
                continue
            own = f", {BYTES * n_own:,.0f} of them for its weights" if n_own else ""
            sentences.append(
                f"- *Memory, {name}*: from {sizes[-2]:,} to {sizes[-1]:,} {curve.name}, each "
                f"takes {each:,.0f} bytes{own}."
            )
    return sentences


def _table(rows: list[Row], curve: Curve) -> list[str]:
    def at(name: str, column: str) -> dict[int, float]:
        return dict(zip(*points(rows, curve, name, column), strict=True))

    weights = at(PREDICT, "n_weights")
    columns = [
        (at(FIT, "seconds"), 1.0),
        (at(FIT, "other_seconds"), 1.0),
        (at(PREDICT, "seconds"), 1.0),
        (at(FIT, "peak_bytes"), 1e-6),
        (at(PREDICT, "peak_bytes"), 1e-6),
    ]
    lines = [
        f"| {curve.what} | epoch, s | rest of the fit, s | prediction, s | fit, MB | "
        "prediction, MB | weights |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in weights:
        cells = [_number(values.get(size), factor) for values, factor in columns]
        lines.append(f"| {size:,} | {' | '.join(cells)} | {weights[size]:,.0f} |")
    return lines


def _number(value: float | None, factor: float = 1.0) -> str:
    """Two digits, or all before the point."""
    if value is None:
        return "-"
    value *= factor
    digits = max(1 - math.floor(math.log10(value)), 0) if value > 0 else 0
    return f"{value:,.{digits}f}"


def draw(rows: list[Row], curves: list[Curve], path: Any) -> None:
    """Time and memory of all curves, over sizes, in log-log plots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for axis, (column, name) in zip(axes.flat, TITLES, strict=True):
        for curve, color, marker in zip(curves, COLORS, MARKERS, strict=False):
            sizes, values = points(rows, curve, name, column)
            scaled = values / (1e6 if column == "peak_bytes" else 1)
            seen = scaled > 0  # less memory than a small fit before took is 0
            axis.loglog(sizes[seen], scaled[seen], f"{marker}-", color=color, label=curve.what)
        axis.set_title(TITLES[column, name])
        axis.grid(color="0.92")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel("size")
    for axis, label in zip(axes[:, 0], ("time, s", "peak memory, MB"), strict=True):
        axis.set_ylabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, measure what is missing, report."""
    commands = command_line(__doc__ or "", "growth", seeds=1)
    names = [curve.name for curve in CURVES]
    commands.add_argument("--only", nargs="*", choices=names, default=names)
    options = commands.parse_args(arguments)

    def work(store: Store) -> None:
        for seed in range(options.seeds):
            for curve in CURVES:
                if curve.name in options.only:
                    measure(store, curve, seed)

    return run(commands, lambda: run_and_report(options, COLUMNS, work, report))


if __name__ == "__main__":
    sys.exit(main())
