"""The display of how much each expert is asked."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skmoe._validation import check_is_fitted
from skmoe.inspection import expert_usage
from skmoe.plotting._matplotlib import BESIDE, GREY, SAFE_COLOURS, axes, colours

# Most experts that a legend or an axis lists.
MOST_LISTED = 16


class ExpertUsageDisplay:
    """Share of the routing weight of each expert, a group of bars for each layer; who is dead.

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
    dead_ : matplotlib Line2D or None
        Marks of dead experts; None without any.

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

    def __init__(self, usage: ArrayLike) -> None:
        self.usage = usage

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        ax: Any = None,
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
        if X is None and sample_weight is not None:
            raise ValueError("X is required when sample_weight is given. Got X=None.")
        given = (
            estimator.expert_usage_ if X is None else expert_usage(estimator, X, sample_weight)
        )
        return cls(given).plot(ax=ax)

    def plot(self, ax: Any = None) -> "ExpertUsageDisplay":
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
        single = n_layers == 1
        width = 0.8 if single else 0.9 / n_experts
        offsets = np.arange(n_experts) * (1 if single else width)
        offsets = offsets if single else offsets - offsets.mean()
        shades = SAFE_COLOURS[0] if single else colours(n_experts)
        self.ax_, self.figure_ = ax, ax.figure
        self.bars_ = [
            ax.bar(layer + offsets, shares, width, color=shades, ec="white", lw=0.5)
            for layer, shares in enumerate(layers)
        ]
        self.lines_ = [
            ax.axhline(1 / n_experts, color=GREY, lw=1, label="even share"),
            ax.axhline(0.1 / n_experts, color=GREY, lw=1, ls=":", label="dead below"),
        ]
        self._mark_dead(ax, layers, offsets)
        ax.set(ylabel="share of the routing weight")
        handles, labels = ax.get_legend_handles_labels()
        few = n_experts <= MOST_LISTED
        if single:
            ax.set(xlabel="expert", **({"xticks": range(n_experts)} if few else {}))
        else:
            ax.set_xticks(range(n_layers), [f"layer {layer}" for layer in range(n_layers)])
        if few and not single:
            handles += list(self.bars_[0])
            labels += [f"expert {expert}" for expert in range(n_experts)]
        ax.margins(y=0.1)
        ax.legend(handles, labels, fontsize="small", **({} if single else BESIDE))
        return self

    def _mark_dead(self, ax: Any, layers: Any, offsets: Any) -> None:
        n_experts = layers.shape[1]
        dead_layers, dead_experts = np.nonzero(layers < 0.1 / n_experts)
        self.dead_ = None
        if len(dead_layers):
            places = dead_layers + offsets[dead_experts]
            heights = layers[dead_layers, dead_experts]
            style = {"marker": "x", "ls": "none", "ms": 7, "mew": 2, "color": SAFE_COLOURS[5]}
            (self.dead_,) = ax.plot(
                places, heights, label="dead expert", clip_on=False, **style
            )
