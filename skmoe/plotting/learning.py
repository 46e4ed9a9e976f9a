"""The display of a fit, epoch by epoch."""

from typing import Any

import numpy as np

from skmoe._validation import check_is_fitted
from skmoe.plotting._matplotlib import GREY, axes, colours, pyplot

LABELS = {
    "loss": "loss, on standardised targets",
    "auxiliary": "auxiliary loss, times its weight",
    "usage": "share of the routing weight",
    "entropy": "entropy of the gates",
}


class LearningCurveDisplay:
    """What happened in the epochs of a fit: losses, usage of the experts, entropy of the gates.

    Parameters
    ----------
    history : list of dict
        As `history_` of a fitted estimator.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where the first panel was drawn.
    axes_ : dict of str to matplotlib Axes
        Where each panel was drawn.
    figure_ : matplotlib Figure
        The figure of it.
    lines_ : list of matplotlib Line2D
        Loss on training rows, and on validation rows if there were any.
    panel_lines_ : dict of str to list of matplotlib Line2D
        Lines of each panel.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.plotting import LearningCurveDisplay
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(4, solver="adam", max_epochs=20, random_state=0).fit(X, y)
    >>> list(LearningCurveDisplay.from_estimator(moe, panels="all").axes_)
    ['loss', 'auxiliary', 'usage', 'entropy']
    """

    def __init__(self, history: list[dict[str, Any]]) -> None:
        self.history = history

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, panels: str | list[str] = "loss", ax: Any = None
    ) -> "LearningCurveDisplay":
        """Draw the last fit.

        Parameters
        ----------
        estimator : MoERegressor or DeepMoERegressor
            Fitted by gradient descent.
        panels, ax
            As in `plot`.

        Returns
        -------
        display : LearningCurveDisplay
            What was drawn is in its `history`.
        """
        check_is_fitted(estimator)
        return cls(estimator.history_).plot(panels=panels, ax=ax)

    def plot(
        self, ax: Any = None, *, panels: str | list[str] = "loss"
    ) -> "LearningCurveDisplay":
        """Draw the panels, losses on a logarithmic scale if all are positive.

        Parameters
        ----------
        ax : matplotlib Axes or list of them, optional
            Where to draw, one for each panel; by default a new figure.
        panels : str or list of str, default="loss"
            Of "loss"; "auxiliary", the auxiliary losses; "usage", the share of each expert, of
            a deep mixture the largest and smallest of each layer; and "entropy" of each
            layer's gate, 1 if all experts weigh the same. "all": those that the fit has.

        Returns
        -------
        self : LearningCurveDisplay
            The display.

        Raises
        ------
        ValueError
            If there is no such panel, or there are not as many axes as panels.
        """
        names = self._panels(panels)
        given = _axes(ax, len(names))
        self.axes_ = dict(zip(names, given, strict=True))
        self.ax_, self.figure_ = given[0], given[0].figure
        self.panel_lines_ = {}
        for name, panel in self.axes_.items():
            self.panel_lines_[name] = getattr(self, f"_plot_{name}")(panel)
            panel.set(xlabel="epoch", ylabel=LABELS[name])
            panel.xaxis.get_major_locator().set_params(integer=True)
            if any(not line.get_label().startswith("_") for line in panel.lines):
                panel.legend(fontsize="small")
        self.lines_ = self.panel_lines_.get("loss", [])
        return self

    def _panels(self, panels: str | list[str]) -> list[str]:
        if panels == "all":
            has = {
                "loss": True,
                "auxiliary": bool(self._auxiliary()),
                "usage": bool(self._known("usage")[0]),
                "entropy": bool(self._known("gate_entropy")[0]),
            }
            return [name for name in LABELS if has[name]]
        names = [panels] if isinstance(panels, str) else list(panels)
        for name in names:
            if name not in LABELS:
                raise ValueError(f"panels must be of {list(LABELS)} or 'all'. Got {name!r}.")
        return names

    def _known(self, key: str) -> tuple[list[int], list[Any]]:
        """Epochs that have this entry, and what it was."""
        epochs = [i for i, epoch in enumerate(self.history) if key in epoch]
        return [i + 1 for i in epochs], [self.history[i][key] for i in epochs]

    def _auxiliary(self) -> list[str]:
        keys = {key for epoch in self.history for key in epoch if key.endswith("_loss")}
        return sorted(keys - {"train_loss", "valid_loss", "lbfgs_loss"})

    def _draw(self, ax: Any, keys: dict[str, str]) -> list[Any]:
        """A line for each of these entries, and a scale that fits them."""
        lines, lowest = [], np.inf
        for (key, label), colour in zip(keys.items(), colours(len(keys)), strict=True):
            epochs, losses = self._known(key)
            if epochs:
                marker = "o" if len(epochs) == 1 else None
                lines += ax.plot(epochs, losses, color=colour, label=label, marker=marker)
                lowest = min(lowest, *losses)
        if 0 < lowest < np.inf:
            ax.set_yscale("log")
        return lines

    def _plot_loss(self, ax: Any) -> list[Any]:
        return self._draw(ax, {"train_loss": "training", "valid_loss": "validation"})

    def _plot_auxiliary(self, ax: Any) -> list[Any]:
        return self._draw(ax, {key: key.removesuffix("_loss") for key in self._auxiliary()})

    def _plot_usage(self, ax: Any) -> list[Any]:
        epochs, usage = self._known("usage")
        if not epochs:
            return []
        shares = np.array(usage)  # epochs, layers, experts
        n_layers, n_experts = shares.shape[1:]
        lines = []
        if n_layers == 1:
            for expert, colour in enumerate(colours(n_experts)):
                label = f"expert {expert}"
                lines += ax.plot(epochs, shares[:, 0, expert], color=colour, label=label)
        else:
            for layer, colour in enumerate(colours(n_layers)):
                label = f"layer {layer}"
                lines += ax.plot(epochs, shares[:, layer].max(1), color=colour, label=label)
                lines += ax.plot(epochs, shares[:, layer].min(1), color=colour, ls="--")
            ax.plot([], [], color=GREY, label="largest share")
            ax.plot([], [], color=GREY, ls="--", label="smallest share")
        ax.axhline(0.1 / n_experts, color=GREY, lw=1, ls=":", label="dead below")
        ax.set_ylim(bottom=0)
        return lines

    def _plot_entropy(self, ax: Any) -> list[Any]:
        epochs, entropy = self._known("gate_entropy")
        lines = []
        values = np.array(entropy).reshape(len(epochs), -1)
        for layer, colour in enumerate(colours(values.shape[1])):
            label = f"layer {layer}" if values.shape[1] > 1 else "_"
            lines += ax.plot(epochs, values[:, layer], color=colour, label=label)
        ax.set_ylim(0, 1.05)
        return lines


def _axes(ax: Any, number: int) -> list[Any]:
    """One for each panel: those given, or those of a new figure."""
    if ax is None and number > 1:
        size = (4.5 * number, 4)
        return list(pyplot().subplots(1, number, figsize=size, layout="constrained")[1])
    several = isinstance(ax, list | tuple | np.ndarray)
    given = list(np.ravel(np.asarray(ax))) if several else [axes(ax)]
    if len(given) != number:
        raise ValueError(
            f"ax must hold one axes for each panel. Got {len(given)} for {number}."
        )
    return given
