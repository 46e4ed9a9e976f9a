"""Displays of the routing: who is asked how much, and where."""

import numpy as np

from skmoe._validation import check_is_fitted
from skmoe.inspection import expert_usage
from skmoe.plotting._matplotlib import axes, pyplot


class ExpertUsageDisplay:
    """Share of the routing weight of each expert, a group of bars for each layer.

    Parameters
    ----------
    usage : ndarray of shape (n_experts,) or (n_layers, n_experts)
        As `expert_usage_` or `skmoe.inspection.expert_usage` give it.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of it.
    bars_ : list of matplotlib BarContainer
        One for each layer.
    lines_ : list of matplotlib Line2D
        The even share, and that below which an expert is dead.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.plotting import ExpertUsageDisplay
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(4, solver="ridge", random_state=0).fit(X, y)
    >>> len(ExpertUsageDisplay.from_estimator(moe).bars_[0])
    4
    """

    def __init__(self, usage):
        self.usage = usage

    @classmethod
    def from_estimator(
        cls, estimator, X=None, *, sample_weight=None, ax=None
    ) -> "ExpertUsageDisplay":
        """Draw the usage on given rows, or on those of the fit.

        Parameters
        ----------
        estimator : MoERegressor or DeepMoERegressor
            Fitted.
        X : array-like of shape (n, n_features), optional
            Rows; by default those of the fit.
        sample_weight : array-like of shape (n,), optional
            How much each row counts.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        display : ExpertUsageDisplay
            What was drawn is in its `usage`.
        """
        check_is_fitted(estimator)
        given = (
            estimator.expert_usage_ if X is None else expert_usage(estimator, X, sample_weight)
        )
        return cls(given).plot(ax=ax)

    def plot(self, ax=None) -> "ExpertUsageDisplay":
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        self : ExpertUsageDisplay
            The display.
        """
        ax = axes(ax)
        layers = np.atleast_2d(self.usage)
        n_layers, n_experts = layers.shape
        width = 0.8 / n_layers
        places = np.arange(n_experts) - 0.4 + width / 2
        self.ax_, self.figure_ = ax, ax.figure
        self.bars_ = [
            ax.bar(places + layer * width, shares, width, label=f"layer {layer + 1}")
            for layer, shares in enumerate(layers)
        ]
        self.lines_ = [
            ax.axhline(1 / n_experts, color="gray", lw=1, label="even share"),
            ax.axhline(0.1 / n_experts, color="gray", lw=1, ls=":", label="dead below"),
        ]
        ax.set(xlabel="expert", ylabel="share of the routing weight")
        ax.set_xticks(range(n_experts))
        ax.legend()
        return self


class RoutingMapDisplay:
    """Which expert has the largest weight, over two features.

    Parameters
    ----------
    points : ndarray of shape (n, 2)
        The two features of each row.
    experts : ndarray of shape (n,)
        Expert of each row.
    n_experts : int
        Number of experts.
    names : (str, str), default=("feature 0", "feature 1")
        Of the features.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of it.
    points_ : matplotlib PathCollection
        The rows.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.plotting import RoutingMapDisplay
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(4, solver="ridge", random_state=0).fit(X, y)
    >>> len(RoutingMapDisplay.from_estimator(moe, X).points_.get_offsets())
    200
    """

    def __init__(self, points, experts, n_experts, names=("feature 0", "feature 1")):
        self.points = points
        self.experts = experts
        self.n_experts = n_experts
        self.names = names

    @classmethod
    def from_estimator(
        cls, estimator, X, *, features=(0, 1), layer=0, ax=None
    ) -> "RoutingMapDisplay":
        """Route the rows, and draw them.

        Parameters
        ----------
        estimator : MoERegressor or DeepMoERegressor
            Fitted.
        X : array-like of shape (n, n_features)
            Rows.
        features : (int, int), default=(0, 1)
            Columns to draw.
        layer : int, default=0
            Which layer of a deep mixture.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        display : RoutingMapDisplay
            What was drawn is in its `points` and `experts`.
        """
        check_is_fitted(estimator)
        experts = estimator.apply(X)
        experts = experts if experts.ndim == 1 else experts[:, layer]
        names = getattr(X, "columns", [f"feature {i}" for i in range(np.shape(X)[1])])
        points = np.asarray(X, dtype=float)[:, list(features)]
        n_experts = np.atleast_2d(estimator.expert_usage_).shape[1]
        titles = tuple(str(names[feature]) for feature in features)
        return cls(points, experts, n_experts, titles).plot(ax=ax)

    def plot(self, ax=None) -> "RoutingMapDisplay":
        """Draw the rows, coloured by their expert.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        self : RoutingMapDisplay
            The display.
        """
        ax = axes(ax)
        self.ax_, self.figure_ = ax, ax.figure
        colors = pyplot().get_cmap("tab20" if self.n_experts <= 20 else "turbo", self.n_experts)
        limits = {"vmin": -0.5, "vmax": self.n_experts - 0.5}
        self.points_ = ax.scatter(*self.points.T, c=self.experts, cmap=colors, s=12, **limits)
        ax.set(xlabel=self.names[0], ylabel=self.names[1])
        ticks = range(self.n_experts) if self.n_experts <= 20 else None
        ax.figure.colorbar(self.points_, ax=ax, label="expert", ticks=ticks)
        return self
