"""The display of where each expert answers."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmoe._features import feature_column, feature_names
from skmoe._validation import check_features, check_is_fitted
from skmoe.plotting._matplotlib import axes, colours, pyplot

# Colours of areas are the paler ones.
PALE = 0.3
MARGIN = 0.03
MOST_TICKS = 20


class RoutingMapDisplay:
    """Which expert has the largest weight, over two features or a projection.

    Parameters
    ----------
    points : ndarray of shape (n, 2)
        Where each row is drawn.
    experts : ndarray of shape (n,)
        Expert of each row.
    n_experts : int
        Number of experts.
    names : (str, str), default=("feature 0", "feature 1")
        Of the axes.
    areas : tuple of (x, y, experts), optional
        Where each expert answers: ndarrays of shape (n_x,), (n_y,) and (n_y, n_x).
    regions : array-like of shape (n,), optional
        True region of each row, drawn beside.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where experts were drawn.
    regions_ax_ : matplotlib Axes or None
        Where true regions were drawn.
    figure_ : matplotlib Figure
        The figure of it.
    points_ : matplotlib PathCollection
        The rows.
    areas_ : matplotlib QuadMesh or None
        The areas.

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

    def __init__(
        self,
        points: Any,
        experts: Any,
        n_experts: Any,
        names: Any = ("feature 0", "feature 1"),
        areas: Any = None,
        regions: ArrayLike | None = None,
    ) -> None:
        self.points = points
        self.experts = experts
        self.n_experts = n_experts
        self.names = names
        self.areas = areas
        self.regions = regions

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        features: Any = (0, 1),
        layer: int = 0,
        regions: ArrayLike | None = None,
        grid_resolution: int = 150,
        ax: Any = None,
    ) -> "RoutingMapDisplay":
        """Route the rows, and draw them.

        Parameters
        ----------
        estimator : MoERegressor or DeepMoERegressor
            Fitted.
        X : array-like of shape (n, n_features)
            Rows.
        features : (int or str, int or str) or "pca", default=(0, 1)
            Columns to draw, by number or name; "pca" draws the first two principal
            components of the standardised rows.
        layer : int, default=0
            Which layer of a deep mixture.
        regions : array-like of shape (n,), optional
            True region of each row, to be drawn beside.
        grid_resolution : int, default=150
            If X has just two features, the areas in which each expert answers are drawn,
            from a grid of so many points in each direction. 0 draws none.
        ax : matplotlib Axes or two of them, optional
            Where to draw; two with `regions`. By default a new figure.

        Returns
        -------
        display : RoutingMapDisplay
            What was drawn is in its `points`, `experts` and `areas`.

        Raises
        ------
        ValueError
            If there is no such feature or layer, or a pair is needed and not given.
        """
        check_is_fitted(estimator)
        pyplot()
        rows = check_features(estimator, X)
        points, names = _placed(estimator, rows, features)
        n_experts = np.atleast_2d(estimator.expert_usage_).shape[1]
        areas = None
        if rows.shape[1] == 2 and grid_resolution and not isinstance(features, str):
            columns = [feature_column(estimator, feature) for feature in features]
            areas = _areas(estimator, points, columns, layer, grid_resolution)
        experts = _top(estimator, rows, layer)
        return cls(points, experts, n_experts, names, areas, regions).plot(ax=ax)

    def plot(self, ax: Any = None) -> "RoutingMapDisplay":
        """Draw the rows, coloured by their expert, and the true regions beside them.

        Parameters
        ----------
        ax : matplotlib Axes or two of them, optional
            Where to draw; two with `regions`. By default a new figure.

        Returns
        -------
        self : RoutingMapDisplay
            The display.
        """
        ax, beside = self._axes(ax)
        self.ax_, self.regions_ax_, self.figure_ = ax, beside, ax.figure
        shades = _colour_map(self.n_experts)
        limits = {"cmap": shades, "vmin": -0.5, "vmax": self.n_experts - 0.5}
        self.areas_ = None
        outline: dict[str, Any] = {"s": 12}
        if self.areas is not None:
            self.areas_ = ax.pcolormesh(*self.areas, alpha=PALE, rasterized=True, **limits)
            outline = {"s": 16, "ec": "white", "lw": 0.3}
        self.points_ = ax.scatter(*self.points.T, c=self.experts, **outline, **limits)
        ax.set(xlabel=self.names[0], ylabel=self.names[1])
        ticks = range(self.n_experts) if self.n_experts <= MOST_TICKS else None
        ax.figure.colorbar(self.points_, ax=ax, label="expert", ticks=ticks)
        if beside is not None:
            self._draw_regions(beside)
        return self

    def _axes(self, ax: Any) -> tuple[Any, ...]:
        """Those of experts, and of true regions if there are any."""
        if self.regions is None:
            return axes(ax), None
        if ax is None:
            size = {"figsize": (11, 4.2), "layout": "constrained"}
            _, ax = pyplot().subplots(1, 2, sharex=True, sharey=True, **size)
        if np.size(ax) != 2:
            raise ValueError(f"ax must be two axes with regions. Got {np.size(ax)}.")
        return tuple(np.ravel(ax))

    def _draw_regions(self, ax: Any) -> None:
        names, codes = np.unique(np.asarray(self.regions), return_inverse=True)
        limits = {"cmap": _colour_map(len(names)), "vmin": -0.5, "vmax": len(names) - 0.5}
        points = ax.scatter(*self.points.T, c=codes, s=12, **limits)
        bar = ax.figure.colorbar(points, ax=ax, label="true region")
        if len(names) <= MOST_TICKS:
            bar.set_ticks(range(len(names)), labels=[str(name) for name in names])
        ax.set(xlabel=self.names[0])


def _placed(estimator: Any, X: Any, features: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Where rows are drawn, and the names of the axes."""
    if isinstance(features, str):
        if features != "pca" or X.shape[1] < 2:
            raise ValueError(
                f"features must be a pair of columns, or 'pca' of two columns or more. "
                f"Got {features!r} and {X.shape[1]} columns."
            )
        places = make_pipeline(StandardScaler(), PCA(2)).fit_transform(X)
        return places, ("principal component 0", "principal component 1")
    if len(features) != 2:
        raise ValueError(f"features must be a pair of columns, or 'pca'. Got {features!r}.")
    columns = [feature_column(estimator, feature) for feature in features]
    names = feature_names(estimator)
    return X[:, columns].astype(np.float64), tuple(names[column] for column in columns)


def _top(estimator: Any, X: Any, layer: int) -> Any:
    """The expert of each row of an array in this layer."""
    paths = estimator._model.top_experts(X)
    if layer not in range(paths.shape[1]):
        raise ValueError(f"layer must be in [0, {paths.shape[1] - 1}]. Got {layer!r}.")
    return paths[:, layer]


def _areas(
    estimator: Any, points: Any, columns: list[int], layer: int, n_points: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The expert at each point of a grid over the rows."""
    low, high = points.min(0), points.max(0)
    low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)
    x, y = np.linspace(low, high, n_points).T
    grid = np.empty((n_points**2, 2))
    grid[:, columns[0]], grid[:, columns[1]] = (part.ravel() for part in np.meshgrid(x, y))
    return x, y, _top(estimator, grid, layer).reshape(n_points, n_points)


def _colour_map(number: int) -> Any:
    from matplotlib.colors import ListedColormap

    return ListedColormap(colours(number))
