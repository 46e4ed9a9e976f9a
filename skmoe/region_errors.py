"""Where a model errs: region by region, or on each expert's rows."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length, column_or_1d

from skmoe._validation import check_weight


class RegionErrors(NamedTuple):
    """What `error_by_region` tells; errors are predictions minus targets, in their units."""

    names: np.ndarray
    """The regions, of shape (n_regions,), sorted."""
    rmse: NDArray[np.float64]
    """Root of the mean squared error in each, of shape (n_regions[, n_outputs])."""
    bias: NDArray[np.float64]
    """Mean error in each, likewise."""
    share: NDArray[np.float64]
    """Share of the rows' weight that each holds, of shape (n_regions,)."""
    total_rmse: NDArray[np.float64]
    """Root of the mean squared error of all rows, of shape () or (n_outputs,)."""


def error_by_region(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike,
    regions: ArrayLike | None = None,
    *,
    layer: int = 0,
    sample_weight: ArrayLike | None = None,
) -> RegionErrors:
    """Where a model errs: the errors of each region, or of each expert's rows.

    Parameters
    ----------
    estimator : object
        Fitted regressor; with `regions`, any.
    X : array-like of shape (n, n_features)
        Rows, best those that it was not fitted on.
    y : array-like of shape (n,) or (n, n_outputs)
        Their targets.
    regions : array-like of shape (n,), optional
        Region of each row: of a true cell, a category, a bin. By default the expert with the
        largest weight.
    layer : int, default=0
        Whose experts, of a deep mixture and without `regions`.
    sample_weight : array-like of shape (n,), optional
        How much each row counts.

    Returns
    -------
    errors : RegionErrors
        Names, errors and shares of the regions that hold rows.

    Raises
    ------
    ValueError
        If numbers of rows differ, or there is no such layer.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.inspection import error_by_region
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(4, solver="ridge", random_state=0).fit(X, y)
    >>> errors = error_by_region(moe, X, y, X[:, 0] > 0)
    >>> errors.names.tolist(), errors.rmse.shape
    ([False, True], (2,))
    """
    predicted = estimator.predict(X)
    targets = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
    if regions is None:
        paths = np.asarray(estimator.apply(X)).reshape(len(predicted), -1)
        if layer not in range(paths.shape[1]):
            raise ValueError(f"layer must be in [0, {paths.shape[1] - 1}]. Got {layer!r}.")
        regions = paths[:, layer]
    labels = column_or_1d(regions)
    check_consistent_length(predicted, targets, labels)
    weight = check_weight(sample_weight, predicted)
    if predicted.size != targets.size:
        raise ValueError(
            f"y must be of the shape {predicted.shape} of the predictions. Got {targets.shape}."
        )
    errors = predicted.reshape(targets.shape) - targets
    names, codes = np.unique(labels, return_inverse=True)
    member = (codes == np.arange(len(names))[:, None]) * weight
    share = member.sum(1)
    member = member / np.where(share > 0, share, 1.0)[:, None]
    return RegionErrors(
        names=names,
        rmse=np.sqrt(member @ errors**2),
        bias=member @ errors,
        share=share / share.sum(),
        total_rmse=np.sqrt(weight @ errors**2 / weight.sum()),
    )
