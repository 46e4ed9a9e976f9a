"""What each expert says along a feature, and where it is asked."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skmoe._features import feature_column, feature_names
from skmoe._settings import check_integer
from skmoe._validation import check_features, check_is_fitted
from skmoe.batches import spread
from skmoe.model import FittedModel
from skmoe.nn.layers import MoELayer

# Rows that answers are averaged over: enough for a smooth mean, and quick.
MAX_ROWS = 200


@dataclass(frozen=True, eq=False)
class ExpertResponse:
    """What `expert_response` tells; answers and predictions in the units of the target."""

    grid: NDArray[np.float64]
    """Values of the feature, of shape (n_points,)."""
    answers: NDArray[np.float64]
    """What would be predicted if this expert answered alone, of shape (n_points, n_experts)."""
    weights: NDArray[np.float64]
    """Mean routing weight of each expert, likewise."""
    prediction: NDArray[np.float64]
    """Mean prediction, of shape (n_points,)."""
    feature_name: str
    """Name of the feature."""


def expert_response(
    estimator: Any,
    X: ArrayLike,
    feature: int | str,
    *,
    layer: int = 0,
    output: int = 0,
    grid_resolution: int = 100,
) -> ExpertResponse:
    """Each expert's function along a feature.

    As in a partial dependence plot, the feature takes each value of a grid in all rows, and
    means over the rows are told.

    Parameters
    ----------
    estimator : MoERegressor or DeepMoERegressor
        Fitted.
    X : array-like of shape (n, n_features)
        Rows; of more than 200, 200 evenly spaced ones are taken.
    feature : int or str
        Which column, by its number or, in a data frame, its name.
    layer : int, default=0
        Whose experts, of a deep mixture. What they say by themselves is a hidden state; so
        what is told is the prediction if each of them answered alone, with weight one, for
        its layer, while the other layers go on as usual.
    output : int, default=0
        Which target, if there are several.
    grid_resolution : int, default=100
        Number of values, from the smallest to the largest of the feature in X.

    Returns
    -------
    response : ExpertResponse
        Its arrays; `skmoe.plotting.ExpertResponseDisplay` draws them.

    Raises
    ------
    ValueError
        If there is no such feature, layer or output.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.inspection import expert_response
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(4, solver="ridge", random_state=0).fit(X, y)
    >>> response = expert_response(moe, X, 0, grid_resolution=20)
    >>> response.answers.shape, response.feature_name
    ((20, 4), 'feature 0')
    """
    check_is_fitted(estimator)
    rows = check_features(estimator, X)
    column = feature_column(estimator, feature)
    n_points = check_integer("grid_resolution", grid_resolution, smallest=2)
    model = estimator._model
    if output not in range(model.n_targets):
        raise ValueError(f"output must be in [0, {model.n_targets - 1}]. Got {output!r}.")
    some = spread(rows, MAX_ROWS)
    grid = np.linspace(rows[:, column].min(), rows[:, column].max(), n_points)
    moved = np.tile(some, (n_points, 1))
    moved[:, column] = np.repeat(grid, len(some))

    def means(values: NDArray[Any]) -> Any:
        return values.reshape(n_points, len(some), -1).mean(axis=1)

    gates = model.gates(moved)
    if layer not in range(len(gates)):
        raise ValueError(f"layer must be in [0, {len(gates) - 1}]. Got {layer!r}.")
    n_experts = gates[layer].shape[1]
    alone = [_alone(model, layer, expert).predict(moved) for expert in range(n_experts)]
    answers, prediction = np.stack(alone, axis=1), model.predict(moved)
    return ExpertResponse(
        grid=grid,
        answers=means(answers[..., output]),
        weights=means(gates[layer]),
        prediction=means(prediction[:, output])[:, 0],
        feature_name=feature_names(estimator)[column],
    )


def _alone(model: FittedModel, layer: int, expert: int) -> FittedModel:
    """The model in which an expert answers alone for its layer, beside shared experts."""

    def change(first: int, of: MoELayer, x_BTD: Tensor, y_BTO: Tensor) -> Tensor:
        block = layer - first
        if block not in range(len(y_BTO)):
            return y_BTO
        answers_TO = of.expert_outputs(x_BTD)[block, :, expert]
        y_BTO = y_BTO.clone()
        y_BTO[block] = answers_TO + of.shared_output(x_BTD)[block]
        return y_BTO

    return model.with_answers(change)
