"""The display of scores over the number of experts."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skmoe.plotting._matplotlib import SAFE_COLOURS, axes, pyplot
from skmoe.search import DEFAULT_CURVE, ExpertsCurve, experts_curve


class ExpertsCurveDisplay:
    """Scores over the number of experts, with the choice of the one-standard-error rule.

    Parameters
    ----------
    curve : ExpertsCurve
        What `skmoe.search.experts_curve` returns.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of it.
    lines_ : list of matplotlib Line2D
        Mean scores on training and test rows, and the choice.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.plotting import ExpertsCurveDisplay
    >>> X, y = make_circle_regression(100, random_state=0)
    >>> moe = MoERegressor(solver="ridge", hidden_dim=8, random_state=0)
    >>> display = ExpertsCurveDisplay.from_estimator(moe, X, y, n_experts=(1, 2), cv=2)
    >>> display.ax_.get_xlabel()
    'number of experts'
    """

    def __init__(self, curve: ExpertsCurve) -> None:
        self.curve = curve

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike,
        *,
        n_experts: Any = DEFAULT_CURVE,
        ax: Any = None,
        **settings: Any,
    ) -> "ExpertsCurveDisplay":
        """Compute the curve, and draw it.

        Parameters
        ----------
        estimator : MoERegressor, DeepMoERegressor, or an estimator around one
            Not fitted itself.
        X, y : array-like
            Features and targets.
        n_experts : iterable of int, default=(1, 2, 4, 8, 16)
            Numbers to try.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        **settings
            Further arguments of `skmoe.search.experts_curve`.

        Returns
        -------
        display : ExpertsCurveDisplay
            The curve that was drawn is in its `curve`.
        """
        pyplot()  # before the fits, not after
        curve = experts_curve(estimator, X, y, n_experts=n_experts, **settings)
        return cls(curve).plot(ax=ax)

    def plot(self, ax: Any = None) -> "ExpertsCurveDisplay":
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        self : ExpertsCurveDisplay
            The display.
        """
        ax = axes(ax)
        curve = self.curve
        self.ax_, self.figure_ = ax, ax.figure
        self.lines_: list[Any] = []
        for scores, label in ((curve.train_scores, "training"), (curve.test_scores, "test")):
            mean, error = scores.mean(axis=1), _standard_error(scores)
            colour = SAFE_COLOURS[len(self.lines_)]
            (line,) = ax.plot(curve.n_experts, mean, marker="o", color=colour, label=label)
            ax.fill_between(
                curve.n_experts, mean - error, mean + error, color=colour, alpha=0.2
            )
            self.lines_.append(line)
        choice = curve.best_n_experts_
        self.lines_.append(ax.axvline(choice, ls=":", color="gray", label=f"choice: {choice}"))
        ax.set(xlabel="number of experts", ylabel="score", xscale="log")
        ax.set_xticks(curve.n_experts, [str(number) for number in curve.n_experts])
        ax.minorticks_off()
        ax.legend()
        return self


def _standard_error(scores: Any) -> Any:
    n_folds = scores.shape[1]
    return scores.std(axis=1, ddof=1) / np.sqrt(n_folds) if n_folds > 1 else 0.0
