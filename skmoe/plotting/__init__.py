"""Displays: arrays that were computed elsewhere, and how they are drawn.

Contract. A display holds what it draws, has `plot(ax=None)`, and leaves axes, figure and
lines in ``ax_``, ``figure_`` and ``lines_``; `from_estimator` computes and draws. Colours are
such that everybody can tell them apart; experts and layers are counted from 0, as in `apply`.
matplotlib is imported when something is drawn, not before.
"""

from skmoe.plotting.curves import ExpertsCurveDisplay
from skmoe.plotting.errors import ErrorByRegionDisplay
from skmoe.plotting.flow import RoutingFlowDisplay
from skmoe.plotting.learning import LearningCurveDisplay
from skmoe.plotting.maps import RoutingMapDisplay
from skmoe.plotting.probes import LayerProbeDisplay
from skmoe.plotting.response import ExpertResponseDisplay
from skmoe.plotting.usage import ExpertUsageDisplay

__all__ = [
    "ErrorByRegionDisplay",
    "ExpertResponseDisplay",
    "ExpertUsageDisplay",
    "ExpertsCurveDisplay",
    "LayerProbeDisplay",
    "LearningCurveDisplay",
    "RoutingFlowDisplay",
    "RoutingMapDisplay",
]
