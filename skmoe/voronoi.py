"""How far fitted experts are from the true ones, if there may be more of them than these.

The Voronoi loss of Nguyen et al., "On DeepSeekMoE: statistical benefits of shared experts and
normalized sigmoid gating" (2025, arXiv:2505.10860), section 3.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length


def voronoi_loss(
    weights: ArrayLike,
    parameters: Any,
    true_weights: ArrayLike,
    true_parameters: Any,
    *,
    exponents: Any = 2.0,
) -> float:
    """Distance of fitted experts from the true ones, if there may be more of them than these.

    Each fitted expert i belongs to the true one j whose parameters are nearest, in the cell
    ``V_j``. With differences ``d_ij`` of their parameters,

        ``sum_j |sum_{i in V_j} w_i - w*_j| + sum_{|V_j| = 1} w_i |d_ij|
        + sum_{|V_j| > 1} w_i |d_ij|^2``.

    Squares stand where several experts share a true one, as these converge more slowly (Nguyen
    et al., 2025, section 3). It is 0 exactly if the fitted mixture is the true one, up to a
    permutation and to experts that were split.

    Parameters
    ----------
    weights : array-like of shape (n_fitted,)
        Mixture weights, or ``exp`` of the offsets of a gate.
    parameters : array-like of shape (n_fitted, n_parameters), or list of them
        Parameters of each fitted expert, and of its gate. In a list, each array is a group
        with a norm of its own, and these are added.
    true_weights, true_parameters : array-like or list of them
        Likewise, of the true experts.
    exponents : float, callable, or list of these, default=2.0
        In place of the square, for all groups or, in a list, for each. A callable is given
        ``|V_j|``, the number of fitted experts in a cell (an int array): linear experts behind
        a softmax converge the more slowly the more of them share a true one.

    Returns
    -------
    loss : float
        Not negative.

    Raises
    ------
    ValueError
        If numbers of experts, parameters or exponents do not fit together, or a weight is
        negative.

    Examples
    --------
    >>> from skmoe.inspection import voronoi_loss
    >>> voronoi_loss([0.3, 0.5, 0.2], [[1.0], [4.0], [1.0]], [0.5, 0.5], [[4.0], [1.0]])
    0.0
    """
    w_N, groups = _atoms(weights, parameters, "weights")
    true_w_M, true_groups = _atoms(true_weights, true_parameters, "true_weights")
    if [g.shape[1] for g in groups] != [g.shape[1] for g in true_groups]:
        raise ValueError(
            "parameters and true_parameters must have the same numbers of columns. Got "
            f"{[g.shape[1] for g in groups]} and {[g.shape[1] for g in true_groups]}."
        )
    distances_GNM = np.stack(
        [
            np.linalg.norm(fitted[:, None] - true, axis=-1)
            for fitted, true in zip(groups, true_groups, strict=True)
        ]
    )
    nearest_N = (distances_GNM**2).sum(0).argmin(1)
    own_GN = distances_GNM[:, np.arange(len(w_N)), nearest_N]
    in_cell_N = np.bincount(nearest_N, minlength=len(true_w_M))[nearest_N]
    exponents_GN = np.stack(
        [
            np.where(in_cell_N == 1, 1.0, power)
            for power in _powers(exponents, groups, in_cell_N)
        ]
    )
    mass_M = np.bincount(nearest_N, w_N, minlength=len(true_w_M))
    apart_N = (own_GN**exponents_GN).sum(0)
    return float(np.abs(mass_M - true_w_M).sum() + w_N @ apart_N)


def _atoms(weights: Any, parameters: Any, name: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Weights and groups of parameters, checked."""
    w_N = check_array(weights, ensure_2d=False, dtype=np.float64, input_name=name)
    if w_N.ndim != 1 or (w_N < 0).any():
        raise ValueError(f"{name} must be non-negative, of shape (n,). Got {weights!r}.")
    in_groups = isinstance(parameters, list) and np.ndim(parameters[0]) == 2
    groups = parameters if in_groups else [parameters]
    groups = [check_array(group, dtype=np.float64) for group in groups]
    check_consistent_length(w_N, *groups)
    return w_N, groups


def _powers(exponents: Any, groups: list[np.ndarray], in_cell_N: np.ndarray) -> list[Any]:
    """The exponents of each group in cells of several experts."""
    powers = exponents if isinstance(exponents, list) else [exponents] * len(groups)
    if len(powers) != len(groups):
        raise ValueError(
            "exponents must be one for all groups of parameters or a list of one for each. Got "
            f"{len(powers)} for {len(groups)} groups."
        )
    return [power(in_cell_N) if callable(power) else power for power in powers]
