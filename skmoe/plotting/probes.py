"""The display of linear probes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skmoe.plotting._matplotlib import axes, colours, pyplot
from skmoe.probing import concept_depth, layer_probe


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

    def __init__(self, scores: ArrayLike, target_names: list[str] | None = None) -> None:
        self.scores = scores
        self.target_names = target_names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        targets: ArrayLike,
        *,
        target_names: list[str] | None = None,
        ax: Any = None,
        **settings: Any,
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
        pyplot()  # before the probes, not after
        if target_names is None and hasattr(targets, "columns"):
            target_names = [str(name) for name in targets.columns]
        return cls(layer_probe(estimator, X, targets, **settings), target_names).plot(ax=ax)

    def plot(self, ax: Any = None) -> "LayerProbeDisplay":
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
        ax = axes(ax)
        table = np.asarray(self.scores)
        table = table.reshape(len(table), -1)
        names = self.target_names or [f"target {i}" for i in range(table.shape[1])]
        self.ax_, self.figure_, self.lines_ = ax, ax.figure, []
        drawn = zip(names, table.T, concept_depth(table), colours(len(names)), strict=True)
        for name, scores, depth, colour in drawn:
            style = {"marker": "o", "fillstyle": "none", "color": colour}
            (line,) = ax.plot(scores, label=name, **style)
            if depth >= 0:
                ax.plot(depth, scores[depth], marker="o", color=colour)
            self.lines_.append(line)
        ax.set(xlabel="layer", ylabel="score of a linear probe")
        ax.set_xticks(range(len(table)), ["X", *map(str, range(1, len(table)))])
        ax.legend()
        return self
