"""Why a row is predicted so: what each part of a mixture adds to the prediction.

One layer of experts is a sum, ``shared(x) + sum_k w_k(x) f_k(x)``, and its terms are what there
is to tell, in the units of the target. Layers of a deep mixture act on a hidden state, and what
combines them is not linear, so that no expert adds so many units by itself. What is true of a
layer is what the prediction gains when it speaks that was silent before, its answer replaced
by zero. As this depends on which others speak already, the mean of two gains is told: in
the order of the layers, and in the reverse order. These add up to the prediction whatever the
network is. They are Shapley values (Shapley, 1953) if no more than pairs of layers work
together, and so always of up to two layers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skmoe._optional import import_optional
from skmoe._validation import check_features, check_is_fitted
from skmoe.estimators import MoERegressor
from skmoe.model import FittedModel


@dataclass(frozen=True, eq=False)
class Explanation:
    """What `explain` tells; all but the weights in the units of the target.

    Arrays end in an axis of outputs if the targets were two-dimensional; in brackets below.
    """

    prediction: NDArray[np.float64]
    """The predictions, of shape (n[, n_outputs])."""
    base: NDArray[np.float64]
    """What does not come from routed parts, of the same shape: shared experts and adapters;
    if layers are told of, the prediction with all of them silent."""
    contributions: NDArray[np.float64]
    """What each expert or layer adds, of shape (n, n_parts[, n_outputs]). Together with
    `base`, they add up to `prediction`."""
    weights: NDArray[np.float64]
    """Routing weights, of shape (n, n_experts), or (n, n_layers, n_experts); 0 for experts that
    were not asked."""
    answers: NDArray[np.float64] | None
    """What each expert says, of shape (n, n_experts[, n_outputs]); None if layers are told
    of, as their experts answer in hidden units."""
    rows: NDArray[Any]
    """Names of the rows: the index of a data frame, else 0 to n - 1."""

    @property
    def of_layers(self) -> bool:
        """Whether contributions are those of layers, not of experts."""
        return self.answers is None

    def to_frame(self) -> Any:
        """A table with a line for each row and part, whose contributions visibly add up.

        Returns
        -------
        frame : pandas.DataFrame
            Columns: `row`; `output`, the index of the target, if there are several; `part`,
            such as "expert 3" (those that the row asks), "shared" (if there is anything in it),
            or "base" and "layer 0"; `expert`, of layers the one with the largest weight;
            `weight`; `answer`, of experts; `contribution`; and `prediction`, the same for all
            lines of a row. ``frame.groupby("row")["contribution"].sum()`` is the prediction;
            with several outputs, group by `output` as well.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = import_optional("pandas", "Tables need pandas", "data")
        n_outputs = 1 if self.prediction.ndim == 1 else self.prediction.shape[1]
        tables = [self._of_output(pandas, output, n_outputs > 1) for output in range(n_outputs)]
        frame = pandas.concat(tables).sort_values(["_place", "_order"], kind="stable")
        return frame.drop(columns=["_place", "_order"]).reset_index(drop=True)

    def _of_output(self, pandas: Any, output: int, several: bool) -> Any:
        """Lines of one output; `_place` and `_order` say where they belong."""
        prediction, base, contributions = (
            values if self.prediction.ndim == 1 else values[..., output]
            for values in (self.prediction, self.base, self.contributions)
        )
        told = np.ones_like(contributions) if self.of_layers else self.weights
        places, parts = np.nonzero(told)
        columns = self._columns_of_parts(places, parts, output)
        columns |= {"contribution": contributions[places, parts]}
        lines = pandas.DataFrame({**columns, "_place": places, "_order": parts})
        if self.of_layers or np.any(self.base):
            name = "base" if self.of_layers else "shared"
            first = {"part": name, "contribution": base, "_order": -1}
            first = pandas.DataFrame({**first, "_place": range(len(base))})
            lines = pandas.concat([first.reindex(columns=lines.columns), lines])
        if self.of_layers:
            lines["expert"] = lines["expert"].astype("Int64")  # integers that may be missing
        lines.insert(0, "row", self.rows[lines["_place"]])
        if several:
            lines.insert(1, "output", output)
        return lines.assign(prediction=prediction[lines["_place"]])

    def _columns_of_parts(self, places: Any, parts: Any, output: int) -> dict[str, Any]:
        """What is told of parts beside what they add."""
        if self.answers is None:
            weights = self.weights[places, parts]
            top = weights.argmax(1)
            names = [f"layer {layer}" for layer in parts]
            weight = np.take_along_axis(weights, top[:, None], 1)[:, 0]
            return {"part": names, "expert": top, "weight": weight}
        answers = self.answers if self.answers.ndim == 2 else self.answers[..., output]
        names = [f"expert {expert}" for expert in parts]
        weight, answer = self.weights[places, parts], answers[places, parts]
        return {"part": names, "weight": weight, "answer": answer}


def explain(estimator: Any, X: ArrayLike) -> Explanation:
    """What each part of a mixture adds to the prediction of each row.

    Of `MoERegressor`, parts are the experts: each adds its weight times its answer, and
    shared experts and adapters add `base`. Of `DeepMoERegressor`, parts are the layers, blocks
    or members, and `base` is the prediction with all of them silent, their answers replaced by
    zero. A layer adds what the prediction gains when it speaks: the mean of its gains in the
    order of the layers and in the reverse order. Members of an ensemble do not depend on each
    other, so that there the order does not matter. One layer of "merged" experts, which add up
    to nothing, is told of as a layer.

    Parameters
    ----------
    estimator : MoERegressor or DeepMoERegressor
        Fitted.
    X : array-like of shape (n, n_features)
        Rows. Each is explained for itself.

    Returns
    -------
    explanation : Explanation
        Arrays, and `to_frame()` for a table of them. `base` and the sum of `contributions`
        are the prediction, up to rounding.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.inspection import explain
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(8, top_k=2, solver="ridge", random_state=0).fit(X, y)
    >>> explanation = explain(moe, X)
    >>> total = explanation.base + explanation.contributions.sum(axis=1)
    >>> bool(abs(total - moe.predict(X)).max() < 1e-6)
    True
    >>> frame = explanation.to_frame()
    >>> frame.columns.tolist()
    ['row', 'part', 'weight', 'answer', 'contribution', 'prediction']
    >>> frame.groupby("row").size().unique().tolist()
    [2]
    """
    check_is_fitted(estimator)
    index = getattr(X, "index", None)  # a method, if X is a list
    checked = check_features(estimator, X)
    rows = np.arange(len(checked)) if index is None or callable(index) else np.asarray(index)
    # Asked by what it has: a frozen one is of another class.
    is_sum = hasattr(estimator, "predict_shared") and _experts_add_up(estimator)
    if is_sum:
        return _of_experts(estimator, X, rows)
    return _of_layers(estimator, checked, rows)


def _experts_add_up(estimator: MoERegressor) -> bool:
    """Whether the prediction is the weighted sum of what experts say."""
    return all(layer.experts.sums for layer in estimator.net_.moe_layers())


def _of_experts(estimator: Any, X: Any, rows: Any) -> Explanation:
    weights, answers = estimator.predict_gates(X), estimator.predict_experts(X)
    scale = weights if answers.ndim == 2 else weights[..., None]
    return Explanation(
        prediction=estimator.predict(X).astype(np.float64),
        base=estimator.predict_shared(X),
        contributions=scale * answers,
        weights=weights,
        answers=answers,
        rows=rows,
    )


def _of_layers(estimator: Any, X: Any, rows: Any) -> Explanation:
    model = estimator._model
    weights = np.stack(model.gates(X), axis=1)
    n_layers = weights.shape[1]
    predict = _predict_with_some(model, X, n_layers)
    layers = np.arange(n_layers)
    # What is predicted by none, the first, the first two and so on; and by the last ones.
    up = np.stack([predict(layers < n) for n in range(n_layers + 1)], axis=1)
    down = np.stack([up[:, 0], *(predict(layers >= n) for n in layers[:0:-1]), up[:, -1]], 1)
    gains = (np.diff(up, axis=1) + np.diff(down, axis=1)[:, ::-1]) / 2
    base, prediction = up[:, 0], up[:, -1]
    if estimator._y_ndim == 1:
        prediction, base, gains = prediction[:, 0], base[:, 0], gains[..., 0]
    return Explanation(prediction, base, gains, weights, None, rows)


def _predict_with_some(
    model: FittedModel, X: Any, n_layers: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Predictions ``(n, n_outputs)`` of the layers that a mask lets speak."""
    speaks_L11 = torch.ones(n_layers, 1, 1, dtype=model.dtype, device=model.device)
    changed = model.with_answers(
        lambda first, layer, x_BTD, y_BTO: y_BTO * speaks_L11[first : first + len(y_BTO)]
    )

    def predict(mask: np.ndarray) -> np.ndarray:
        speaks_L11[:, 0, 0] = torch.as_tensor(mask)
        return changed.predict(X)

    return predict
