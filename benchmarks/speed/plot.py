"""How far each ratio is from what was asked, as a picture."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.speed.case import Case, Goal

MET, MISSED = (
    "#009E73",
    "#D55E00",
)  # of Okabe and Ito, which colour-blind readers can tell apart
ROW_INCHES = 0.27


class Found(NamedTuple):
    """What was measured of a goal: a ratio for each turn."""

    case: Case
    goal: Goal
    ratios: list[float]

    @property
    def met(self) -> bool | None:
        """Whether the median is as it should be; None where nothing was asked for."""
        return self.goal.met(statistics.median(self.ratios))

    @property
    def of_goal(self) -> np.ndarray:
        """Ratios in units of what was asked: up to 1 where it was met."""
        if self.goal.at_most is not None:
            return np.array(self.ratios) / self.goal.at_most
        return (self.goal.at_least or 1.0) / np.array(self.ratios)


def draw(found: Sequence[Found], path: Path) -> None:
    """Median and range of each ratio that something was asked of; nothing without any."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

    shown = [one for one in found if one.met is not None and np.isfinite(one.of_goal).all()]
    if not shown:
        return
    figure = Figure(figsize=(11, 1.2 + ROW_INCHES * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for height, one in enumerate(reversed(shown)):
        values, color = one.of_goal, MET if one.met else MISSED
        axis.plot([values.min(), values.max()], [height, height], color=color, linewidth=3)
        axis.plot(np.median(values), height, "o", color=color)
    axis.set_xscale("log")
    axis.axvline(1, color="0.3", linewidth=1)
    low, high = axis.get_xlim()
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low <= tick <= high]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_yticks(range(len(shown)), [_label(one) for one in reversed(shown)], fontsize=7)
    axis.set_ylim(-0.6, len(shown) - 0.4)
    axis.grid(axis="x", color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel("time over what was asked: met up to 1\nmedian and range of turns")
    figure.savefig(path, dpi=110)


def _label(one: Found) -> str:
    return f"{one.case.name}: {one.goal.numerator} / {one.goal.denominator}"
