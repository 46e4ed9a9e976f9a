"""A model card: what a fitted mixture is, how it was fitted and how good it is, as Markdown."""

import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length

from skmoe._features import feature_names
from skmoe._optional import import_optional
from skmoe._validation import check_is_fitted, check_weight
from skmoe._version import __version__
from skmoe.estimators import DeepMoERegressor, MoERegressor
from skmoe.estimators._glance import at_a_glance
from skmoe.plotting.usage import ExpertUsageDisplay

__all__ = ["model_card"]

PACKAGES = ("scikit-learn", "torch", "skorch", "numpy")
# More features than this are counted, not listed.
MOST_LISTED = 30
SCORES = {
    "R^2": r2_score,
    "RMSE": root_mean_squared_error,
    "MAE": mean_absolute_error,
}


def model_card(
    estimator: Any,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    title: str | None = None,
    description: str = "",
    target_name: str = "y",
    usage_plot: str | Path | None = None,
) -> str:
    """What is to be known of a fitted mixture, as Markdown.

    Parameters
    ----------
    estimator : MoERegressor or DeepMoERegressor
        Fitted.
    X : array-like of shape (n, n_features), optional
        Rows to score, best those that it was not fitted on.
    y : array-like of shape (n,) or (n, n_outputs), optional
        Their targets; with X.
    sample_weight : array-like of shape (n,), optional
        How much each of these rows counts.
    title : str, optional
        By default the name of the class.
    description : str, default=""
        What the model is for, where its data come from, where it should not be used: what
        nobody but you can tell.
    target_name : str, default="y"
        Name of the target, best with its unit.
    usage_plot : str or path, optional
        A file to draw the usage of the experts into, such as "usage.png". The card shows it
        from where this path leads, so that a relative one asks for a card in this folder.

    Returns
    -------
    card : str
        Markdown, with tables of what the mixture is made of, its data, the parameters that
        are not the default ones, the fit, scores (if X and y are given), usage of the experts
        on training rows, and versions of what it runs on.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If it is no mixture of experts, or one of X and y is missing.
    ImportError
        If there is to be a plot, and matplotlib is not installed.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.model_card import model_card
    >>> X, y = make_circle_regression(300, random_state=0)
    >>> moe = MoERegressor(4, solver="ridge", random_state=0).fit(X[:200], y[:200])
    >>> card = model_card(moe, X[200:], y[200:], title="Circle", description="An example.")
    >>> print(card)
    # Circle
    <BLANKLINE>
    An example.
    <BLANKLINE>
    ## Model
    <BLANKLINE>
    |  |  |
    |---|---|
    | class | MoERegressor |
    | experts | 4 mlp |
    | asked per row | all |
    ...
    """
    if not isinstance(estimator, MoERegressor | DeepMoERegressor):
        raise ValueError(
            f"estimator must be a mixture of experts. Got {type(estimator).__name__}."
        )
    check_is_fitted(estimator)
    if (X is None) != (y is None):
        raise ValueError("X and y must be given together. Got only one of them.")
    name = type(estimator).__name__
    sections = {
        "Model": _table(["", ""], [["class", name], *at_a_glance(estimator).items()]),
        "Data": _data(estimator, target_name),
        "Parameters": _parameters(estimator),
        "Fit": _fit(estimator),
    }
    if X is not None:
        sections["Scores"] = _scores(estimator, X, y, sample_weight, target_name)
    sections |= {"Usage of the experts": _usage(estimator, usage_plot), "Versions": _versions()}
    parts = [f"# {title or name}", *([description] if description else [])]
    parts += [f"## {heading}\n\n{text}" for heading, text in sections.items()]
    return "\n\n".join(parts) + "\n"


def _table(head: list[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [head, *rows]
    first, *others = (f"| {' | '.join(map(_cell, line))} |" for line in lines)
    return "\n".join([first, f"|{'---|' * len(head)}", *others])


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _data(estimator: Any, target_name: str) -> str:
    """Shapes, and the centres and scales that the fit saw, in the user's units."""
    model = estimator._model
    names = feature_names(estimator)
    shape = [["features", len(names)], ["outputs", model.n_targets]]
    if (n_rows := getattr(estimator, "n_samples_fit_", None)) is not None:
        shape.insert(0, ["rows learned from", f"{n_rows:,}"])
    lines: list[Iterable[Any]] = [
        [_output(target_name, output, model.n_targets), center, scale]
        for output, (center, scale) in enumerate(
            zip(model.y_scaling.center, model.y_scaling.scale, strict=True)
        )
    ]
    if len(names) <= MOST_LISTED:
        scaling = model.x_scaling
        lines += zip(names, scaling.center, scaling.scale, strict=True)
    told = "Centres and scales on training rows; a scale of 0 is a constant feature."
    return "\n\n".join(
        [_table(["", "number"], shape), told, _table(["", "centre", "scale"], lines)]
    )


def _parameters(estimator: Any) -> str:
    default = type(estimator)().get_params(deep=False)
    given = estimator.get_params(deep=False)
    changed = [[name, repr(v)] for name, v in given.items() if repr(v) != repr(default[name])]
    return _table(["parameter", "value"], changed) if changed else "All are the default ones."


def _fit(estimator: Any) -> str:
    last = estimator.history_[-1] if estimator.history_ else {}
    seconds = sum(
        value
        for epoch in estimator.history_
        for key, value in epoch.items()
        if key.endswith("_seconds")
    )
    judged = "validation" if "valid_loss" in last else "training"
    lines = [
        ["epochs", estimator.n_iter_],
        [f"best {judged} loss, on standardised targets", float(estimator.best_loss_)],
        ["seconds in epochs and solves", float(seconds)],
    ]
    known = {"ridge_score": "mean squared error after the ridge regression"}
    known["lbfgs_loss"] = "loss after L-BFGS"
    lines += [[text, float(last[key])] for key, text in known.items() if key in last]
    return _table(["", ""], lines)


def _scores(estimator: Any, X: Any, y: Any, sample_weight: Any, target_name: str) -> str:
    predicted = estimator.predict(X)
    y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
    check_consistent_length(predicted, y)
    weight = check_weight(sample_weight, predicted)
    targets, predicted = y.reshape(len(y), -1), predicted.reshape(len(y), -1)
    n_outputs = targets.shape[1]
    lines = [
        [
            _output(target_name, output, n_outputs),
            *(
                float(score(targets[:, output], predicted[:, output], sample_weight=weight))
                for score in SCORES.values()
            ),
        ]
        for output in range(n_outputs)
    ]
    told = f"On {len(y):,} rows; errors in the units of the target."
    return f"{told}\n\n{_table(['target', *SCORES], lines)}"


def _usage(estimator: Any, plot: str | Path | None) -> str:
    layers = np.atleast_2d(estimator.expert_usage_)
    dead = 0.1 / layers.shape[1]
    head = ["expert", *map(str, range(layers.shape[1]))]
    rows = [
        [f"layer {layer}", *(f"{u:.1%}" + " (dead)" * bool(u < dead) for u in usage)]
        for layer, usage in enumerate(layers)
    ]
    parts = ["Share of the routing weight on training rows.", _table(head, rows)]
    if plot is not None:
        _draw_usage(estimator, plot)
        parts.append(f"![Usage of the experts]({Path(plot).as_posix()})")
    return "\n\n".join(parts)


def _draw_usage(estimator: Any, file: str | Path) -> None:
    """Without pyplot's list of figures, which it would be left in."""
    figures = import_optional("matplotlib.figure", "usage_plot needs matplotlib", "plot")
    figure = figures.Figure(layout="constrained")
    ExpertUsageDisplay.from_estimator(estimator, ax=figure.subplots())
    figure.savefig(file)


def _versions() -> str:
    lines = [["skmoe", __version__], ["Python", platform.python_version()]]
    lines += [[package, version(package)] for package in PACKAGES]
    return _table(["package", "version"], lines)


def _output(name: str, output: int, n_outputs: int) -> str:
    return name if n_outputs == 1 else f"{name} [{output}]"
