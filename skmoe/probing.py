"""What each layer knows: linear probes on its state.

What can be told from a state by a linear map is what the layers after it can use. Jin et al.,
"Exploring Concept Depth" (2024, arXiv:2404.07066), probe the layers of language models so;
here the concepts are the target, coordinates of the inputs, or the true regions of a function.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length

from skmoe._settings import check_number
from skmoe._validation import check_features, check_is_fitted

# Probes are to be compared between layers, so that folds are the same whenever they are asked.
N_FOLDS, FOLD_SEED = 5, 0
MAX_STEPS = 1000


def hidden_states(estimator: Any, X: ArrayLike) -> list[NDArray[np.float64]]:
    """The rows as given, and the state that each layer leaves.

    Parameters
    ----------
    estimator : MoERegressor or DeepMoERegressor
        Fitted.
    X : array-like of shape (n, n_features)
        Rows.

    Returns
    -------
    states : list of ndarray of shape (n, dim)
        X itself first, then one for each layer: of one layer, its output; of a stack, the
        state after each layer; of parallel blocks, the answer of each; of an ensemble, what the
        head of each member reads.

    Examples
    --------
    >>> from skmoe import DeepMoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.probing import hidden_states
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = DeepMoERegressor(2, arrangement="stack", model_dim=12, random_state=0).fit(X, y)
    >>> [state.shape for state in hidden_states(moe, X)]
    [(200, 16), (200, 12), (200, 12)]
    """
    check_is_fitted(estimator)
    checked = check_features(estimator, X)
    return [checked.astype(np.float64), *estimator._model.states(checked)]


def layer_probe(
    estimator: Any,
    X: ArrayLike,
    targets: ArrayLike,
    *,
    probe: Any = None,
    cv: Any = None,
    scoring: Any = None,
) -> NDArray[np.float64]:
    """How well a linear probe tells each target from the state of each layer.

    Parameters
    ----------
    estimator : MoERegressor or DeepMoERegressor
        Fitted.
    X : array-like of shape (n, n_features)
        Rows, best those that it was not fitted on.
    targets : array-like of shape (n,) or (n, n_targets)
        What to tell. Columns of floats are numbers, others (integers, booleans, strings) are
        labels, such as the regions that `skmoe.datasets` return.
    probe : estimator, optional
        Fitted to each state. By default ``Ridge()`` for numbers and ``LogisticRegression()``
        for labels, both on standardised states.
    cv : int, cross-validation generator or iterable, optional
        How rows are split. By default five shuffled folds, always the same ones; stratified
        for labels that have five rows each.
    scoring : str or callable, optional
        As in `sklearn.model_selection.cross_val_score`. By default the score of the probe: R^2
        for numbers, accuracy for labels.

    Returns
    -------
    scores : ndarray of shape (n_layers + 1,) or (n_layers + 1, n_targets)
        Mean over the folds. The first one is that of X itself, without any layer.

    Raises
    ------
    ValueError
        If there are not as many targets as rows.

    See Also
    --------
    hidden_states : What is probed.
    concept_depth : The layer from which on a target is known.

    Examples
    --------
    >>> from skmoe import DeepMoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.inspection import layer_probe
    >>> X, y = make_circle_regression(300, random_state=0)
    >>> moe = DeepMoERegressor(2, arrangement="stack", random_state=0).fit(X, y)
    >>> scores = layer_probe(moe, X, y)
    >>> scores.shape, bool(scores[-1] > scores[0])
    ((3,), True)
    """
    states = hidden_states(estimator, X)
    columns = _columns(targets)
    check_consistent_length(states[0], *columns)
    scores = np.array(
        [[_score(state, column, probe, cv, scoring) for column in columns] for state in states]
    )
    return scores[:, 0] if np.ndim(targets) == 1 else scores


def concept_depth(scores: ArrayLike, share: float = 0.95) -> Any:
    """The first layer that tells a target nearly as well as the best one does.

    Parameters
    ----------
    scores : array-like of shape (n_layers + 1,) or (n_layers + 1, n_targets)
        As `layer_probe` returns them.
    share : float, default=0.95
        Share of the best score that counts as nearly as good, above 0 and at most 1.

    Returns
    -------
    depth : int, or ndarray of shape (n_targets,)
        0 if the features tell it already; l if layer l is the first. -1 if no score is
        positive, so that no layer tells it.

    Examples
    --------
    >>> from skmoe.inspection import concept_depth
    >>> concept_depth([0.1, 0.5, 0.97, 0.99])
    2
    """
    table = check_array(scores, ensure_2d=False, dtype=np.float64, input_name="scores")
    share = check_number("share", share, largest=1, open_=True)
    best = np.max(table, axis=0)
    depth = np.where(best > 0, (table >= share * best).argmax(axis=0), -1)
    return int(depth) if depth.ndim == 0 else depth


def _columns(targets: Any) -> list[np.ndarray]:
    """The targets, each in the type of its own that a data frame may give it."""
    frame = hasattr(targets, "iloc") and targets.ndim == 2
    columns = [targets.iloc[:, i] for i in range(targets.shape[1])] if frame else [targets]
    checked = [
        check_array(column, ensure_2d=False, dtype=None, input_name="targets")
        for column in columns
    ]
    return [column for table in checked for column in table.reshape(len(table), -1).T]


def _score(state: Any, target: Any, probe: Any, cv: Any, scoring: Any) -> float:
    labels = not np.issubdtype(target.dtype, np.floating)
    if probe is None:
        probe = LogisticRegression(max_iter=MAX_STEPS) if labels else Ridge()
        probe = make_pipeline(StandardScaler(), probe)
    if cv is None:
        rare = labels and np.unique(target, return_counts=True)[1].min() < N_FOLDS
        kind = StratifiedKFold if labels and not rare else KFold
        cv = kind(N_FOLDS, shuffle=True, random_state=FOLD_SEED)
    return float(cross_val_score(probe, state, target, cv=cv, scoring=scoring).mean())
