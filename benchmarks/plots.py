"""Plots of a comparison: error against time, dimension and pieces, and ranks.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; methods of one
kind share a colour and differ by their labels. A plot without data is not made.
"""

from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from benchmarks.labels import label_ends, label_points

COLORS = {
    "ours": "#D55E00",
    "control": "#E69F00",
    "kernel": "#0072B2",
    "tree": "#009E73",
    "neighbours": "#CC79A7",
    "net": "#56B4E9",
}
MARKERS = {
    "ours": "o",
    "control": "o",
    "kernel": "s",
    "tree": "^",
    "neighbours": "D",
    "net": "v",
}
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "0.92",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
}
NOISE_FLOOR = 1e-4  # smaller errors are drawn here: nobody needs to tell them apart
ERROR = "test NRMSE (drawn from 0.0001 on)"


def draw_all(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw each plot for which there are data; the files."""
    fine = rows[rows["status"] == "ok"]
    pictures = {
        "pareto.png": pareto,
        "dimension.png": dimension,
        "pieces.png": pieces,
        "ranks.png": ranks,
    }
    written = []
    with mpl.rc_context(STYLE):
        for name, draw in pictures.items():
            figure = draw(fine)
            if figure is not None:
                written.append(_save(figure, folder / name))
    return written


def _save(figure: Figure, path: Path) -> Path:
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=150)
    return temporary.replace(path)


def pareto(rows: pd.DataFrame) -> Figure | None:
    """Error against fit time, a panel for each family."""
    families = list(dict.fromkeys(rows["family"]))
    if not families:
        return None
    figure, axes = _panels(len(families), width=5.2, height=4.4)
    for ax, family in zip(axes, families, strict=True):
        _pareto_panel(ax, rows[rows["family"] == family], family)
    figure.suptitle("Error against time of one fit (lower left is better)")
    return figure


def _pareto_panel(ax, rows: pd.DataFrame, family: str) -> None:
    """Geometric means over the tasks of a family of medians over seeds."""
    by_task = rows.groupby(["contestant", "task"], observed=True)[["fit_seconds", "nrmse"]]
    points = by_task.median().clip(lower=NOISE_FLOOR).groupby("contestant", observed=True)
    points = points.agg(_geometric_mean)
    kinds = _kinds(rows)
    for name, point in points.iterrows():
        _dot(ax, kinds[name], point["fit_seconds"], point["nrmse"])
    front = _front(points)
    ax.plot(front["fit_seconds"], front["nrmse"], color="0.6", lw=1, ls="--", zorder=1)
    n_tasks = rows["task"].nunique()
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="fit time of the chosen candidate (s)",
        ylabel=ERROR,
        title=f"{family} ({n_tasks} task{'s' * (n_tasks > 1)})",
    )
    ax.margins(0.16)
    _plain_log_ticks(ax)
    colors = [COLORS[kinds[name]] for name in points.index]
    label_points(ax, points.to_numpy(), list(points.index), colors)


def _front(points: pd.DataFrame) -> pd.DataFrame:
    """The points that no other beats in both time and error."""
    ordered = points.sort_values("fit_seconds")
    return ordered[ordered["nrmse"] <= ordered["nrmse"].cummin()]


def dimension(rows: pd.DataFrame) -> Figure | None:
    """Error against ambient and intrinsic dimension."""
    return _curves(
        rows,
        [
            ("circle", "D", "D", "circle: ambient dimension D"),
            ("manifold", "D", "D", "manifold: ambient dimension D"),
            ("manifold", "d", "d", "manifold: intrinsic dimension d"),
        ],
        "Error against dimension",
    )


def pieces(rows: pd.DataFrame) -> Figure | None:
    """Error against the number of pieces of the target."""
    return _curves(
        rows,
        [
            ("compositional", "regions", "cells", "composition: pieces $E^L$ (more regions E)"),
            ("compositional", "blocks", "cells", "composition: pieces $E^L$ (more blocks L)"),
            ("cube", "cube", "cells", "cube: pieces $E^L$ (more blocks L)"),
        ],
        "Error against the number of pieces",
    )


Curve = tuple[str, str, str, str]


def _curves(rows: pd.DataFrame, curves: Iterable[Curve], title: str) -> Figure | None:
    """A panel for each (family, sweep, fact, label) with at least two points."""
    panels = []
    for family, sweep, fact, label in curves:
        on_curve = rows["sweeps"].str.split().map(lambda names, s=sweep: s in names)
        chosen = rows[on_curve & (rows["family"] == family)]
        if chosen[fact].nunique() > 1:
            panels.append((chosen, fact, label))
    if not panels:
        return None
    figure, axes = _panels(len(panels), width=5.2, height=5.2)
    for ax, (chosen, fact, label) in zip(axes, panels, strict=True):
        _curve_panel(ax, chosen, fact, label)
    figure.suptitle(f"{title} (median of seeds, min to max)")
    return figure


def _curve_panel(ax, rows: pd.DataFrame, fact: str, label: str) -> None:
    ends, names, colors = [], [], []
    kinds = _kinds(rows)
    for name, own in rows.groupby("contestant", observed=True):
        by_x = own.groupby(fact)["nrmse"].agg(["median", "min", "max"])
        by_x = by_x.clip(lower=NOISE_FLOOR)
        kind = kinds[name]
        _line(ax, by_x, kind)
        ends.append((by_x.index[-1], by_x["median"].iloc[-1]))
        names.append(name)
        colors.append(COLORS[kind])
    ax.set(xscale="log", yscale="log", xlabel=label, ylabel=ERROR)
    values = sorted(rows[fact].unique())
    ax.xaxis.set_major_locator(FixedLocator(values))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    ax.set_xlim(values[0] / 1.1, values[-1] * 1.1)
    _plain_log_ticks(ax, only="y")
    label_ends(ax, np.array(ends), names, colors)


def _line(ax, by_x: pd.DataFrame, kind: str) -> None:
    ours = kind in ("ours", "control")
    ax.plot(
        by_x.index,
        by_x["median"],
        color=COLORS[kind],
        marker=MARKERS[kind],
        markersize=5,
        markerfacecolor="white" if kind == "control" else COLORS[kind],
        lw=2.0 if ours else 1.2,
        ls="--" if kind == "control" else "-",
        zorder=3 if ours else 2,
    )
    if ours:
        ax.fill_between(
            by_x.index, by_x["min"], by_x["max"], color=COLORS[kind], alpha=0.15, lw=0
        )


def ranks(rows: pd.DataFrame) -> Figure | None:
    """Mean rank over tasks with quartiles; best on top."""
    wide = rows.pivot_table(
        values="nrmse", index="task", columns="contestant", aggfunc="median", observed=True
    )
    if len(wide) < 2 or wide.shape[1] < 2:
        return None
    table = wide.rank(axis=1)
    order = table.mean().sort_values(ascending=False).index
    kinds = _kinds(rows)
    figure, (ax,) = _panels(1, width=6.4, height=0.9 + 0.3 * len(order))
    for height, name in enumerate(order):
        own = table[name].dropna()
        low, high = own.quantile([0.25, 0.75])
        ax.plot([low, high], [height, height], color=COLORS[kinds[name]], lw=6, alpha=0.3)
        ax.plot(own, np.full(len(own), height), "|", color=COLORS[kinds[name]], ms=7)
        _dot(ax, kinds[name], own.mean(), height)
    labels = [f"{name} ({table[name].count()})" for name in order]
    ax.set_yticks(range(len(order)), labels)
    for text, name in zip(ax.get_yticklabels(), order, strict=True):
        text.set_fontweight("bold" if kinds[name] == "ours" else "normal")
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="rank of the test error (1 is best)", xlim=(0.5, wide.shape[1] + 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle("Mean rank over tasks (their number); bars: middle half, ticks: tasks")
    return figure


def _panels(n: int, width: float, height: float) -> tuple[Figure, list]:
    """A figure of n panels, at most three in a row."""
    n_columns = min(n, 3)
    n_rows = -(-n // n_columns)
    # A Figure of its own, not pyplot's: no window system and no global state.
    figure = Figure((width * n_columns, height * n_rows), layout="constrained")
    FigureCanvasAgg(figure)  # measures the labels
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for ax in axes[n:]:
        ax.remove()
    return figure, axes[:n]


def _dot(ax, kind: str, x: float, y: float) -> None:
    face = "white" if kind == "control" else COLORS[kind]
    size = 8 if kind == "ours" else 6
    ax.plot(
        x,
        y,
        MARKERS[kind],
        color=COLORS[kind],
        ms=size,
        markerfacecolor=face,
        mew=1.5,
        zorder=4,
    )


def _plain_log_ticks(ax, only: str = "xy") -> None:
    """Numbers such as 0.05 instead of powers of ten, and not too many."""
    for axis in (axis for axis in only):
        one = getattr(ax, f"{axis}axis")
        low, high = sorted(one.get_view_interval())
        decades = np.log10(high / low)
        steps = (1, 2, 5) if decades < 2.5 else (1,)
        one.set_major_locator(LogLocator(subs=steps))
        one.set_minor_formatter(NullFormatter())
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _geometric_mean(values: pd.Series) -> float:
    return float(np.exp(np.log(values).mean()))


def _kinds(rows: pd.DataFrame) -> dict[str, str]:
    return dict(zip(rows["contestant"], rows["kind"], strict=True))
