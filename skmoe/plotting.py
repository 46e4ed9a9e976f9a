"""Displays: arrays that were computed elsewhere, and how they are drawn.

Contract. A display holds what it draws, has `plot(ax=None)`, and leaves axes, figure and
lines in ``ax_``, ``figure_`` and ``lines_``; `from_estimator` computes and draws. matplotlib
is imported when something is drawn, not before.
"""

from typing import Any

import numpy as np

from skmoe._optional import import_optional
from skmoe.probing import concept_depth, layer_probe
from skmoe.search import DEFAULT_CURVE, ExpertsCurve, experts_curve


def _pyplot() -> Any:
    return import_optional("matplotlib.pyplot", "Plots need matplotlib", "plot")


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
        _pyplot()  # before the fits, not after
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
        if ax is None:
            _, ax = _pyplot().subplots()
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


class LayerProbeDisplay:
    """Scores of linear probes over the layers, one line for each target.

    Parameters
    ----------
    scores : ndarray of shape (n_layers + 1, n_targets)
        As `skmoe.inspection.layer_probe` returns them.
    target_names : list of str, optional
        By default "target 0" and so on.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of it.
    lines_ : list of matplotlib Line2D
        One for each target; its marker is filled where the target is known first
        (`skmoe.inspection.concept_depth`).

    Examples
    --------
    >>> from skmoe import DeepMoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.plotting import LayerProbeDisplay
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = DeepMoERegressor(2, arrangement="stack", random_state=0).fit(X, y)
    >>> display = LayerProbeDisplay.from_estimator(moe, X, y)
    >>> [label.get_text() for label in display.ax_.get_xticklabels()]
    ['X', '1', '2']
    """

    def __init__(self, scores, target_names=None):
        self.scores = scores
        self.target_names = target_names

    @classmethod
    def from_estimator(
        cls, estimator, X, targets, *, target_names=None, ax=None, **settings
    ) -> "LayerProbeDisplay":
        """Probe the layers, and draw the scores.

        Parameters
        ----------
        estimator : MoERegressor or DeepMoERegressor
            Fitted.
        X, targets : array-like
            Rows, and what to tell of them.
        target_names : list of str, optional
            By default the names of the columns of a data frame, else "target 0" and so on.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        **settings
            Further arguments of `skmoe.inspection.layer_probe`.

        Returns
        -------
        display : LayerProbeDisplay
            The scores that were drawn are in its `scores`.
        """
        _pyplot()  # before the probes, not after
        if target_names is None and hasattr(targets, "columns"):
            target_names = [str(name) for name in targets.columns]
        return cls(layer_probe(estimator, X, targets, **settings), target_names).plot(ax=ax)

    def plot(self, ax=None) -> "LayerProbeDisplay":
        """Draw the scores.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        self : LayerProbeDisplay
            The display.
        """
        if ax is None:
            _, ax = _pyplot().subplots()
        table = np.asarray(self.scores)
        table = table.reshape(len(table), -1)
        names = self.target_names or [f"target {i}" for i in range(table.shape[1])]
        self.ax_, self.figure_, self.lines_ = ax, ax.figure, []
        for name, scores, depth in zip(names, table.T, concept_depth(table), strict=True):
            (line,) = ax.plot(scores, marker="o", fillstyle="none", label=name)
            if depth >= 0:
                ax.plot(depth, scores[depth], marker="o", color=line.get_color())
            self.lines_.append(line)
        ax.set(xlabel="layer", ylabel="score of a linear probe")
        ax.set_xticks(range(len(table)), ["X", *map(str, range(1, len(table)))])
        ax.legend()
        return self


def _standard_error(scores):
    n_folds = scores.shape[1]
    return scores.std(axis=1, ddof=1) / np.sqrt(n_folds) if n_folds > 1 else 0.0
