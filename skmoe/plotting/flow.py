"""The display of paths through the layers of a deep mixture."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skmoe.inspection import routing_flow
from skmoe.plotting._matplotlib import axes, colours, pyplot

# Width of a node in units of the distance between layers, space between nodes, points on a
# ribbon's edge, and the least share of rows that a node is labelled from.
NODE, GAP, N_POINTS, LABELLED = 0.08, 0.02, 50, 0.03


class RoutingFlowDisplay:
    """Paths of the rows through the layers, from expert to expert.

    Parameters
    ----------
    flow : ndarray of shape (n_layers - 1, n_experts, n_experts)
        As `skmoe.inspection.routing_flow` returns it.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of it.
    nodes_ : list of dict of int to matplotlib Rectangle
        For each layer, the experts with rows; as high as their share of the rows.
    ribbons_ : list of matplotlib PolyCollection
        One for each pair of experts with rows, as high as their share, in the colour of
        the expert that they come from.

    Examples
    --------
    >>> from skmoe import DeepMoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.plotting import RoutingFlowDisplay
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = DeepMoERegressor(3, 4, arrangement="stack", random_state=0).fit(X, y)
    >>> len(RoutingFlowDisplay.from_estimator(moe, X).nodes_)
    3
    """

    def __init__(self, flow: ArrayLike) -> None:
        self.flow = flow

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        ax: Any = None,
    ) -> "RoutingFlowDisplay":
        """Follow the rows, and draw their paths.

        Parameters
        ----------
        estimator : DeepMoERegressor
            Fitted, with two layers or more.
        X : array-like of shape (n, n_features)
            Rows.
        sample_weight : array-like of shape (n,), optional
            How much each row counts.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        display : RoutingFlowDisplay
            What was drawn is in its `flow`.
        """
        pyplot()
        return cls(routing_flow(estimator, X, sample_weight)).plot(ax=ax)

    def plot(self, ax: Any = None) -> "RoutingFlowDisplay":
        """Draw a column of experts for each layer, and ribbons between them.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        self : RoutingFlowDisplay
            The display.
        """
        flow = np.asarray(self.flow)
        ax = axes(ax, figsize=(max(6.4, 2.0 * (len(flow) + 1)), 4.8))
        n_experts = flow.shape[1]
        shares = np.concatenate([flow[:1].sum(2), flow.sum(1)])
        bottoms = np.cumsum(shares, axis=1) - shares + GAP * np.arange(n_experts)
        shades = colours(n_experts)
        self.ax_, self.figure_ = ax, ax.figure
        self.ribbons_: list[Any] = []
        self.nodes_ = [
            self._nodes(ax, layer, *column, shades)
            for layer, column in enumerate(zip(shares, bottoms, strict=True))
        ]
        for layer, step in enumerate(flow):
            self._ribbons(ax, layer, step, bottoms[layer], bottoms[layer + 1], shades)
        layers = range(len(shares))
        ax.set_xticks(layers, [f"layer {layer}" for layer in layers])
        ax.set(ylabel="share of rows", xlim=(-0.15, len(shares) - 0.85))
        ax.set_yticks([])
        ax.spines[["top", "right", "left", "bottom"]].set_visible(False)
        ax.tick_params(length=0)
        return self

    def _nodes(
        self, ax: Any, layer: int, shares: Any, bottoms: Any, shades: Any
    ) -> dict[int, Any]:
        nodes = {}
        for expert in np.flatnonzero(shares):
            (nodes[int(expert)],) = ax.bar(
                layer, shares[expert], NODE, bottoms[expert], color=shades[expert]
            )
            if shares[expert] >= LABELLED:
                middle = bottoms[expert] + shares[expert] / 2
                ax.annotate(
                    f"{expert} ({shares[expert]:.0%})",
                    (layer - NODE / 2 if layer else layer + NODE / 2, middle),
                    xytext=(-3 if layer else 3, 0),
                    textcoords="offset points",
                    ha="right" if layer else "left",
                    va="center",
                    fontsize="small",
                )
        return nodes

    def _ribbons(
        self, ax: Any, layer: int, step: Any, left: Any, right: Any, shades: Any
    ) -> None:
        """From each expert of a layer to those of the next, stacked in their order."""
        t = np.linspace(0, 1, N_POINTS)
        x = layer + NODE / 2 + (1 - NODE) * t
        bend = t**2 * (3 - 2 * t)
        starts = left[:, None] + np.cumsum(step, 1) - step
        ends = right[None] + np.cumsum(step, 0) - step
        for before, after in zip(*np.nonzero(step), strict=True):
            low = starts[before, after] + bend * (ends[before, after] - starts[before, after])
            high = low + step[before, after]
            shade = shades[before]
            self.ribbons_.append(ax.fill_between(x, low, high, color=shade, alpha=0.4, lw=0))
