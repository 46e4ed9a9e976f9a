"""The display of each expert's function along a feature."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skmoe.inspection import ExpertResponse, expert_response
from skmoe.plotting._matplotlib import BESIDE, axes, colours, pyplot

# Width of a line at weight 0 and at weight 1.
THIN, THICK = 0.8, 5.0


class ExpertResponseDisplay:
    """What each expert says along a feature, thick where it is asked, and the prediction.

    Parameters
    ----------
    response : ExpertResponse
        As `skmoe.inspection.expert_response` returns it.
    target_name : str, default="y"
        Name of the target, best with its unit.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of it.
    experts_ : list of matplotlib LineCollection
        One for each expert.
    lines_ : list of matplotlib Line2D
        The prediction.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.plotting import ExpertResponseDisplay
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(4, solver="ridge", random_state=0).fit(X, y)
    >>> display = ExpertResponseDisplay.from_estimator(moe, X, 0)
    >>> len(display.experts_), display.ax_.get_xlabel()
    (4, 'feature 0')
    """

    def __init__(self, response: ExpertResponse, target_name: str = "y") -> None:
        self.response = response
        self.target_name = target_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        feature: int | str,
        *,
        target_name: str = "y",
        ax: Any = None,
        **settings: Any,
    ) -> "ExpertResponseDisplay":
        """Compute the answers, and draw them.

        Parameters
        ----------
        estimator : MoERegressor or DeepMoERegressor
            Fitted.
        X : array-like of shape (n, n_features)
            Rows.
        feature : int or str
            Which column, by its number or name.
        target_name : str, default="y"
            Name of the target, best with its unit.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        **settings
            Further arguments of `skmoe.inspection.expert_response`: `layer`, `output`,
            `grid_resolution`.

        Returns
        -------
        display : ExpertResponseDisplay
            What was drawn is in its `response`.
        """
        pyplot()  # before the answers, not after
        return cls(expert_response(estimator, X, feature, **settings), target_name).plot(ax=ax)

    def plot(self, ax: Any = None) -> "ExpertResponseDisplay":
        """Draw a line for each expert, as thick as its weight.

        Lines of experts that are hardly asked there do not widen the axis.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        self : ExpertResponseDisplay
            The display.
        """
        from matplotlib.collections import LineCollection

        ax = axes(ax)
        grid, answers, weights = (
            self.response.grid,
            self.response.answers,
            self.response.weights,
        )
        self.ax_, self.figure_, self.experts_ = ax, ax.figure, []
        for expert, colour in enumerate(colours(answers.shape[1])):
            points = np.column_stack([grid, answers[:, expert]])
            lines = LineCollection(
                list(np.stack([points[:-1], points[1:]], axis=1)),
                linewidths=THIN + (THICK - THIN) * np.clip(weights[:-1, expert], 0, 1),
                color=colour,
                capstyle="round",
                label=f"expert {expert}",
            )
            self.experts_.append(ax.add_collection(lines, autolim=False))
        prediction = self.response.prediction
        self.lines_ = ax.plot(grid, prediction, color="black", ls="--", label="prediction")
        asked = weights > 0.1 / weights.shape[1]
        seen = np.concatenate([answers[asked], prediction])
        margin = 0.05 * (np.ptp(seen) or 1.0)
        ax.set(
            xlabel=self.response.feature_name,
            ylabel=f"answer alone: {self.target_name}",
            ylim=(seen.min() - margin, seen.max() + margin),
        )
        legend = ax.legend(fontsize="small", title="as thick\nas its weight", **BESIDE)
        for handle in legend.legend_handles:
            handle.set_linewidth(2)
        return self
