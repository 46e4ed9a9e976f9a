"""Displays: arrays that were computed elsewhere, and how they are drawn.

Contract. A display holds what it draws, has `plot(ax=None)`, and leaves axes, figure and
lines in ``ax_``, ``figure_`` and ``lines_``; `from_estimator` computes and draws. matplotlib
is imported when something is drawn, not before.
"""

from skmoe.plotting.curves import ExpertsCurveDisplay, LearningCurveDisplay
from skmoe.plotting.probes import LayerProbeDisplay
from skmoe.plotting.routing import ExpertUsageDisplay, RoutingMapDisplay

__all__ = [
    "ExpertUsageDisplay",
    "ExpertsCurveDisplay",
    "LayerProbeDisplay",
    "LearningCurveDisplay",
    "RoutingMapDisplay",
]
