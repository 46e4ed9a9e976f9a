"""Numbers about a fitted model: who is asked, how that changes, what it does to a prediction.

The measures of routing are those of Nguyen et al., "On DeepSeekMoE: statistical benefits of
shared experts and normalized sigmoid gating" (2025, arXiv:2505.10860), appendix H. Gates are
what `predict_gates` returns: an array for one layer, a list of arrays for several, of which
each gets a number of its own. To be had from here as well: what adds up to a prediction
(`skmoe.explanation`), what experts say along a feature (`skmoe.response`), where errors are
(`skmoe.region_errors`), linear probes of the layers' states (`skmoe.probing`), and the distance
from the true experts (`skmoe.voronoi`).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length, column_or_1d

from skmoe._validation import check_weight
from skmoe.explanation import Explanation, explain
from skmoe.probing import concept_depth, hidden_states, layer_probe
from skmoe.region_errors import RegionErrors, error_by_region
from skmoe.response import ExpertResponse, expert_response
from skmoe.voronoi import voronoi_loss

__all__ = [
    "ExpertResponse",
    "Explanation",
    "RegionErrors",
    "concept_depth",
    "error_by_region",
    "expert_response",
    "expert_usage",
    "explain",
    "hidden_states",
    "jain_fairness",
    "layer_probe",
    "router_saturation",
    "routing_change_rate",
    "routing_flow",
    "routing_table",
    "voronoi_loss",
]

Gates = ArrayLike | Sequence[np.ndarray]
"""Of one layer, or of several."""


def expert_usage(
    estimator: Any, X: ArrayLike, sample_weight: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Share of the routing weight that each expert gets on given rows.

    Parameters
    ----------
    estimator : MoERegressor or DeepMoERegressor
        Fitted.
    X : array-like of shape (n, n_features)
        Rows.
    sample_weight : array-like of shape (n,), optional
        How much each row counts.

    Returns
    -------
    usage : ndarray of shape (n_experts,), or (n_layers, n_experts) if deep
        Sums to one for each layer. `expert_usage_` is the same on training rows.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.inspection import expert_usage
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(n_experts=4, solver="ridge", random_state=0).fit(X, y)
    >>> expert_usage(moe, X).shape
    (4,)
    """
    gates = estimator.predict_gates(X)
    layers = _layers(gates)
    weight = check_weight(sample_weight, layers[0])
    totals = [weight @ layer for layer in layers]
    usage: NDArray[np.float64] = _like(
        gates, np.stack([total / max(total.sum(), np.finfo(float).tiny) for total in totals])
    )
    return usage


def routing_table(
    estimator: Any, X: ArrayLike, labels: ArrayLike, layer: int | None = None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """How the rows of each label are shared out among the experts.

    Labels may be true regions, a categorical feature or bins of the target: a row with a single
    large entry is a label with an expert of its own.

    Parameters
    ----------
    estimator : MoERegressor or DeepMoERegressor
        Fitted.
    X : array-like of shape (n, n_features)
        Rows.
    labels : array-like of shape (n,)
        Label of each row.
    layer : int, optional
        Which layer of a deep mixture; None: all of them.

    Returns
    -------
    names : ndarray of shape (n_labels,)
        The labels, sorted.
    table : ndarray of shape (n_labels, n_experts), or (n_layers, n_labels, n_experts)
        Mean routing weight of each expert on the rows of each label.

    Raises
    ------
    ValueError
        If there are not as many labels as rows.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.inspection import routing_table
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(n_experts=4, solver="ridge", random_state=0).fit(X, y)
    >>> names, table = routing_table(moe, X, y > 0)
    >>> names.tolist(), table.shape
    ([False, True], (2, 4))
    """
    labels = column_or_1d(labels)
    gates = estimator.predict_gates(X) if layer is None else estimator.predict_gates(X, layer)
    layers = _layers(gates)
    check_consistent_length(layers[0], labels)
    names, codes = np.unique(labels, return_inverse=True)
    member = (codes == np.arange(len(names))[:, None]) / np.bincount(codes)[:, None]
    return names, _like(gates, np.stack([member @ weights for weights in layers]))


def routing_flow(
    estimator: Any, X: ArrayLike, sample_weight: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Paths through the layers of a deep mixture: which expert follows which.

    Parameters
    ----------
    estimator : DeepMoERegressor
        Fitted, with two layers or more.
    X : array-like of shape (n, n_features)
        Rows.
    sample_weight : array-like of shape (n,), optional
        How much each row counts.

    Returns
    -------
    flow : ndarray of shape (n_layers - 1, n_experts, n_experts)
        Entry ``[l, i, j]`` is the share of rows whose expert, that with the largest weight, is
        i in layer l and j in the next. Blocks and members stand side by side: of them, it
        tells which experts answer the same rows.

    Raises
    ------
    ValueError
        If there is only one layer.

    Examples
    --------
    >>> from skmoe import DeepMoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.inspection import routing_flow
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = DeepMoERegressor(3, 4, arrangement="stack", random_state=0).fit(X, y)
    >>> flow = routing_flow(moe, X)
    >>> flow.shape, flow.sum(axis=(1, 2)).round(6).tolist()
    ((2, 4, 4), [1.0, 1.0])
    """
    paths = estimator.apply(X)
    if paths.ndim == 1 or paths.shape[1] == 1:
        raise ValueError("Paths need two layers or more. Got 1.")
    weight = check_weight(sample_weight, paths)
    n_experts = estimator.expert_usage_.shape[1]
    flow = np.zeros((paths.shape[1] - 1, n_experts, n_experts))
    for step, (before, after) in enumerate(pairwise(paths.T)):
        np.add.at(flow[step], (before, after), weight / weight.sum())
    return flow


def jain_fairness(usage: ArrayLike) -> Any:
    """Evenness of the experts' usage, ``(sum_e u_e)^2 / (E sum_e u_e^2)`` (Jain et al., 1984).

    Parameters
    ----------
    usage : array-like of shape (n_experts,) or (n_layers, n_experts)
        Shares or counts, such as `expert_usage_`; not all zero.

    Returns
    -------
    fairness : float, or ndarray of shape (n_layers,)
        From ``1 / E``, if one expert gets all, to 1, if all get the same.

    Raises
    ------
    ValueError
        If a share is negative, or all of a layer are zero.

    Examples
    --------
    >>> from skmoe.inspection import jain_fairness
    >>> jain_fairness([1, 0, 0, 0]), jain_fairness([3, 3, 3, 3])
    (0.25, 1.0)
    """
    shares = check_array(usage, ensure_2d=False, dtype=np.float64, input_name="usage")
    if (shares < 0).any() or not (shares.sum(-1) > 0).all():
        raise ValueError("usage must be non-negative, and not all zero in a layer.")
    shares = shares / shares.max(-1, keepdims=True)  # squares then neither over- nor underflow
    fairness = shares.sum(-1) ** 2 / (shares.shape[-1] * (shares**2).sum(-1))
    return float(fairness) if fairness.ndim == 0 else fairness


def routing_change_rate(gates: Gates, later: Gates, top_k: int | None = None) -> Any:
    """Share of the experts asked later that were not asked before, ``|E' minus E| / |E'|``.

    Parameters
    ----------
    gates, later : array-like of shape (n, n_experts), or list of them
        Routing weights of the same rows at two moments, such as two calls of `predict_gates`
        between calls of `partial_fit`.
    top_k : int, optional
        A row's experts are the `top_k` with the largest weights. None: all with a weight.

    Returns
    -------
    rate : float, or ndarray of shape (n_layers,)
        Mean over the rows, in [0, 1]; 0 if each row asks the same experts as before.

    Raises
    ------
    ValueError
        If shapes differ, or `top_k` is not in [1, n_experts].

    Examples
    --------
    >>> from skmoe.inspection import routing_change_rate
    >>> routing_change_rate([[0.5, 0.5, 0.0]], [[0.5, 0.0, 0.5]])
    0.5
    """
    before, after = _layers(gates), _layers(later)
    if [layer.shape for layer in before] != [layer.shape for layer in after]:
        raise ValueError(
            "Both gates must be of the same shape. Got "
            f"{[layer.shape for layer in before]} and {[layer.shape for layer in after]}."
        )
    rates = []
    for old, new in zip(before, after, strict=True):
        asked = _asked(new, top_k)
        added = asked & ~_asked(old, top_k)
        rates.append((added.sum(1) / asked.sum(1).clip(1)).mean())
    rate = _like(gates, np.array(rates))
    return rate if isinstance(rate, np.ndarray) else float(rate)


def router_saturation(gates: Gates, final: Gates, top_k: int | None = None) -> Any:
    """Share of the experts asked in the end that are asked already, ``|E and E'| / |E'|``.

    One minus the `routing_change_rate` from now to the end.

    Parameters
    ----------
    gates, final : array-like of shape (n, n_experts), or list of them
        Routing weights of the same rows now and at the end of training.
    top_k : int, optional
        A row's experts are the `top_k` with the largest weights. None: all with a weight.

    Returns
    -------
    saturation : float, or ndarray of shape (n_layers,)
        Mean over the rows, in [0, 1]; 1 if the routing is the final one.

    Raises
    ------
    ValueError
        If shapes differ, or `top_k` is not in [1, n_experts].

    Examples
    --------
    >>> from skmoe.inspection import router_saturation
    >>> router_saturation([[0.6, 0.3, 0.1]], [[0.1, 0.6, 0.3]], top_k=2)
    0.5
    """
    return 1 - routing_change_rate(gates, final, top_k)


def _is_list_of_tables(values: Any) -> bool:
    return isinstance(values, list) and np.ndim(values[0]) == 2


def _layers(gates: Any) -> list[np.ndarray]:
    """Gates of each layer."""
    layers = gates if _is_list_of_tables(gates) else [gates]
    return [check_array(layer, input_name="gates") for layer in layers]


def _like(gates: Any, values: np.ndarray) -> Any:
    """One value for each layer, or the only one."""
    return values if _is_list_of_tables(gates) else values[0]


def _asked(weights: np.ndarray, top_k: int | None) -> NDArray[np.bool_]:
    """Which experts each row asks."""
    if top_k is None:
        return weights > 0
    n_experts = weights.shape[1]
    if not 1 <= top_k <= n_experts:
        raise ValueError(f"top_k must be in [1, {n_experts}]. Got {top_k!r}.")
    ranks = np.argsort(np.argsort(-weights, axis=1, kind="stable"), axis=1)
    return ranks < top_k
