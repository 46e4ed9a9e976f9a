"""Displays of curves: scores over the number of experts, losses over the epochs."""

import numpy as np

from skmoe._validation import check_is_fitted
from skmoe.plotting._matplotlib import axes, pyplot
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

    def __init__(self, curve: ExpertsCurve):
        self.curve = curve

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, n_experts=DEFAULT_CURVE, ax=None, **settings
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

    def plot(self, ax=None) -> "ExpertsCurveDisplay":
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
        self.ax_, self.figure_, self.lines_ = ax, ax.figure, []
        for scores, label in ((curve.train_scores, "training"), (curve.test_scores, "test")):
            mean, error = scores.mean(axis=1), _standard_error(scores)
            (line,) = ax.plot(curve.n_experts, mean, marker="o", label=label)
            ax.fill_between(
                curve.n_experts, mean - error, mean + error, color=line.get_color(), alpha=0.2
            )
            self.lines_.append(line)
        choice = curve.best_n_experts_
        self.lines_.append(ax.axvline(choice, ls=":", color="gray", label=f"choice: {choice}"))
        ax.set(xlabel="number of experts", ylabel="score", xscale="log")
        ax.set_xticks(curve.n_experts, [str(number) for number in curve.n_experts])
        ax.minorticks_off()
        ax.legend()
        return self


def _standard_error(scores):
    n_folds = scores.shape[1]
    return scores.std(axis=1, ddof=1) / np.sqrt(n_folds) if n_folds > 1 else 0.0


class LearningCurveDisplay:
    """Losses over the epochs of a fit.

    Parameters
    ----------
    history : list of dict
        As `history_` of a fitted estimator.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of it.
    lines_ : list of matplotlib Line2D
        Loss on training rows, and on validation rows if there were any.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.plotting import LearningCurveDisplay
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(4, solver="adam", max_epochs=20, random_state=0).fit(X, y)
    >>> len(LearningCurveDisplay.from_estimator(moe).lines_)
    1
    """

    def __init__(self, history):
        self.history = history

    @classmethod
    def from_estimator(cls, estimator, *, ax=None) -> "LearningCurveDisplay":
        """Draw the losses of the last fit.

        Parameters
        ----------
        estimator : MoERegressor or DeepMoERegressor
            Fitted by gradient descent.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        display : LearningCurveDisplay
            What was drawn is in its `history`.
        """
        check_is_fitted(estimator)
        return cls(estimator.history_).plot(ax=ax)

    def plot(self, ax=None) -> "LearningCurveDisplay":
        """Draw the losses, on a logarithmic scale if all are positive.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        self : LearningCurveDisplay
            The display.
        """
        ax = axes(ax)
        self.ax_, self.figure_, self.lines_ = ax, ax.figure, []
        lowest = np.inf
        for key, label in (("train_loss", "training"), ("valid_loss", "validation")):
            known = [
                (i + 1, epoch[key]) for i, epoch in enumerate(self.history) if key in epoch
            ]
            if known:
                epochs, losses = zip(*known, strict=True)
                self.lines_ += ax.plot(epochs, losses, label=label)
                lowest = min(lowest, *losses)
        if 0 < lowest < np.inf:
            ax.set_yscale("log")
        ax.set(xlabel="epoch", ylabel="loss, on standardised targets")
        if self.lines_:
            ax.legend()
        return self
