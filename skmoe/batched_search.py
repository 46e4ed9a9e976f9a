"""`BatchedGridSearchCV`: a grid search whose fits are trained as one program."""

from collections.abc import Callable, Sequence
from pickle import PicklingError
from typing import Any, Self

import joblib
import numpy as np
from joblib import parallel_config
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skmoe.kinds import Request
from skmoe.together import Fit, TogetherBackend

# Fits at the same time, and bytes that the rows of all of them may take: each fit has its own,
# although those of a fold are scaled, and trained on, once.
MOST_FITS = 256
MOST_BYTES = 2**30


class BatchedGridSearchCV(GridSearchCV):
    """`GridSearchCV` that trains all candidates and folds side by side.

    Networks of one shape take their steps together, whatever their learning rates, decays,
    seeds and folds; so do shallow ones with more or fewer experts, unless experts are balanced.
    Others, such as those with wider experts, make one program for each shape. The models are
    those of `GridSearchCV`, with the same seeds and batches, up to rounding, and so are
    `cv_results_`, `best_params_` and errors; a candidate that diverges gets `error_score` and
    the others go on. It gains most where networks are small or there is a GPU: there a step
    mostly waits for operations to be called.

    What cannot be trained together is trained one after the other, as with callbacks, noise in
    gates, or rows that are sorted by expert as few of many wide experts are asked;
    ``verbose=1`` tells how much that was. In a `Pipeline`, each transformer is fitted once for
    each fold, unless candidates change it. Where memory does not suffice for all networks at
    once, half as many are trained together, with a warning.

    Parameters
    ----------
    estimator : estimator
        `MoERegressor`, `DeepMoERegressor`, or one around them, such as a pipeline. Others work,
        but gain nothing.
    param_grid : dict or list of dicts
        As of `GridSearchCV`.
    scoring, refit, cv, error_score, return_train_score
        As of `GridSearchCV`.
    n_jobs, pre_dispatch
        There for the sake of the interface; all fits run in this process.
    verbose : int, default=0
        From 1 on, tells how many fits there are and how many networks were trained alone.

    Attributes
    ----------
    cv_results_, best_estimator_, best_score_, best_params_, best_index_, scorer_, n_splits_, \
refit_time_, multimetric_, n_features_in_, feature_names_in_
        As of `GridSearchCV`. ``cv_results_["mean_fit_time"]`` is amortised: what is done for
        many fits together counts in equal shares, so that all of them add up to the time taken.

    See Also
    --------
    skmoe.search.search_space : Parameters that are worth a search.
    skmoe.search.experts_curve : Scores over the number of experts.

    References
    ----------
    S. Wang, P. Yang, Y. Zheng, X. Li and G. Pekhimenko. "Horizontally Fused Training Array",
    MLSys 2021, arXiv:2102.02344.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> from skmoe.search import BatchedGridSearchCV
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(hidden_dim=8, max_epochs=20, random_state=0)
    >>> grid = {"n_experts": [2, 4], "learning_rate": [0.003, 0.03]}
    >>> search = BatchedGridSearchCV(moe, grid, cv=3).fit(X, y)
    >>> search.best_params_["learning_rate"]
    0.03
    >>> search.predict(X).shape
    (200,)
    """

    estimator: Any

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Run fit with all sets of parameters.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Targets.
        **params : dict of str -> object
            Passed to `fit` of the estimator, the scorer and the splitter, as by
            `GridSearchCV`.

        Returns
        -------
        self : object
            Fitted search.
        """
        given, alone = self.estimator, _Count()
        backend = TogetherBackend(_fits_at_once(X), _amortise, alone)
        self.estimator = _sharing_transformers(given)
        try:
            with parallel_config(backend=backend):
                super().fit(X, y, **params)
        finally:
            self.estimator = given
        if self.refit:
            _forget_transformers(self.best_estimator_)
        if self.verbose > 0 and alone.n_alone:
            print(
                f"{alone.n_alone} of {alone.n_trained} networks were trained by themselves, as "
                "their parameters do not go with those of others."
            )
        return self


class _Count:
    """How many networks were trained, and how many of them alone."""

    def __init__(self) -> None:
        self.n_trained = self.n_alone = 0

    def __call__(self, request: Request) -> None:
        self.n_trained += 1
        self.n_alone += request.together == 1


def _fits_at_once(X: np.ndarray) -> int:
    """As many as have room for their rows."""
    size = getattr(X, "nbytes", None) or 8 * np.size(X)
    return int(np.clip(MOST_BYTES // max(size, 1), 1, MOST_FITS))


def _amortise(fit: Fit) -> None:
    """A fit took its own time and its share of the training, and did not take its waiting."""
    for result in fit.outcome:
        if isinstance(result, dict) and "fit_time" in result:
            result["fit_time"] += fit.trained - fit.waited


class _OncePerFold:
    """A memory for a pipeline: transformers that were fitted to the same rows."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, ...], Any] = {}

    def __deepcopy__(self, memo: Any) -> Any:
        """Itself, so that clones of a pipeline share it."""
        return self

    def cache(self, func: Callable[..., Any], ignore: Sequence[str] = ()) -> Callable[..., Any]:
        """`func`, called once for the same arguments but for those to `ignore`."""

        def cached(*args: Any, **kwargs: Any) -> Any:
            told = [kwargs[name] for name in sorted(kwargs) if name not in ignore]
            # One by one: a hash of all of them depends on which objects are the same one.
            try:
                key = tuple(joblib.hash(value) for value in (*args, *told))
            except PicklingError:  # of classes and functions that have no place in a module
                return func(*args, **kwargs)
            if key not in self.known:
                self.known[key] = func(*args, **kwargs)
            return self.known[key]

        return cached


def _sharing_transformers(estimator: Any) -> Any:
    """A pipeline that fits its transformers once for each fold; others as they are."""
    if not isinstance(estimator, Pipeline) or estimator.memory is not None:
        return estimator
    return clone(estimator).set_params(memory=_OncePerFold())


def _forget_transformers(estimator: Any) -> None:
    if isinstance(estimator, Pipeline) and isinstance(estimator.memory, _OncePerFold):
        estimator.set_params(memory=None)
