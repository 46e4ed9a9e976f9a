"""The display of errors in each region."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skmoe.inspection import RegionErrors, error_by_region
from skmoe.plotting._matplotlib import BESIDE, GREY, SAFE_COLOURS, axes, pyplot


class ErrorByRegionDisplay:
    """Errors in each region, or of the rows of each expert, in the units of the target.

    Parameters
    ----------
    errors : RegionErrors
        As `skmoe.inspection.error_by_region` returns them.
    region_label : str, default="region"
        What the regions are.
    target_name : str, default="y"
        Name of the target, best with its unit.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of it.
    bars_ : matplotlib BarContainer
        Root mean squared errors.
    lines_ : list of matplotlib Line2D
        Mean errors, and the root mean squared error of all rows.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.plotting import ErrorByRegionDisplay
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(4, solver="ridge", random_state=0).fit(X, y)
    >>> display = ErrorByRegionDisplay.from_estimator(moe, X, y, X[:, 0] > 0)
    >>> len(display.bars_)
    2
    """

    def __init__(
        self, errors: RegionErrors, region_label: str = "region", target_name: str = "y"
    ) -> None:
        self.errors = errors
        self.region_label = region_label
        self.target_name = target_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike,
        regions: ArrayLike | None = None,
        *,
        layer: int = 0,
        sample_weight: ArrayLike | None = None,
        output: int = 0,
        region_label: str | None = None,
        target_name: str = "y",
        ax: Any = None,
    ) -> "ErrorByRegionDisplay":
        """Measure the errors, and draw them.

        Parameters
        ----------
        estimator : object
            Fitted regressor; with `regions`, any.
        X, y : array-like
            Rows and their targets, best those that it was not fitted on.
        regions : array-like of shape (n,), optional
            Region of each row. By default the expert with the largest weight.
        layer : int, default=0
            Whose experts, of a deep mixture and without `regions`.
        sample_weight : array-like of shape (n,), optional
            How much each row counts.
        output, ax
            As in `plot`.
        region_label : str, optional
            What the regions are; by default "region" or "expert".
        target_name : str, default="y"
            Name of the target, best with its unit.

        Returns
        -------
        display : ErrorByRegionDisplay
            What was drawn is in its `errors`.
        """
        pyplot()
        errors = error_by_region(
            estimator, X, y, regions, layer=layer, sample_weight=sample_weight
        )
        label = region_label or ("expert" if regions is None else "region")
        return cls(errors, label, target_name).plot(output=output, ax=ax)

    def plot(self, ax: Any = None, *, output: int = 0) -> "ErrorByRegionDisplay":
        """Draw a bar for each region, above its share of the rows, and the mean error.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        output : int, default=0
            Which target, if there are several.

        Returns
        -------
        self : ErrorByRegionDisplay
            The display.
        """
        ax = axes(ax)
        rmse, bias, total = (
            np.asarray(values) if np.ndim(self.errors.rmse) == 1 else values[..., output]
            for values in (self.errors.rmse, self.errors.bias, self.errors.total_rmse)
        )
        places = range(len(rmse))
        self.ax_, self.figure_ = ax, ax.figure
        self.bars_ = ax.bar(places, rmse, 0.7, color=SAFE_COLOURS[4], label="RMSE")
        style = {"color": SAFE_COLOURS[5], "ls": "none", "marker": "D", "ms": 6}
        (means,) = ax.plot(places, bias, label="mean error\n(prediction - target)", **style)
        line = ax.axhline(total, color="black", ls="--", lw=1, label="RMSE of all rows")
        self.lines_ = [means, line]
        ax.axhline(0, color=GREY, lw=0.8)
        many = len(rmse) > 8
        pattern = "{} ({:.0%})" if many else "{}\n({:.0%})"
        pairs = zip(self.errors.names, self.errors.share, strict=True)
        ax.set_xticks(
            places, [pattern.format(*pair) for pair in pairs], rotation=90 if many else 0
        )
        ax.set(
            xlabel=f"{self.region_label} (share of rows)",
            ylabel=f"error of {self.target_name}",
        )
        ax.legend(fontsize="small", **BESIDE)
        return self
