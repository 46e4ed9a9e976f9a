"""`MoETransformer`: routing as features for other models."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, TransformerMixin, clone
from sklearn.utils import get_tags

from skmoe._validation import (
    check_feature_names_in,
    check_is_fitted,
    fit_context,
    fitted_estimator,
    one_of,
)
from skmoe.estimators._glance import Documented

PARTS = {"gates": ("gate",), "answers": ("answer",), "both": ("gate", "answer")}


class MoETransformer(Documented, MetaEstimatorMixin, TransformerMixin, BaseEstimator):
    """The routing of a mixture of experts, as features for another model.

    Parameters
    ----------
    estimator : MoERegressor or DeepMoERegressor
        The mixture; a copy of it is fitted. A fitted one in scikit-learn's `FrozenEstimator` is
        used as it is.
    features : {"gates", "answers", "both"}, default="gates"
        "gates": the weight of each expert, of all layers. "answers": what each expert says, in
        the units of y if there is one layer, else in units of the hidden state. "both": gates,
        then answers.

    Attributes
    ----------
    estimator_ : MoERegressor or DeepMoERegressor
        The fitted mixture.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if X was a data frame with string column names.

    See Also
    --------
    MoERegressor : Predicts by itself.

    Notes
    -----
    In a pipeline, the model behind learns from routings of rows that the mixture has learned
    from itself; these are surer than those of new rows, the more so the fewer rows there are.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from skmoe import MoERegressor, MoETransformer
    >>> from skmoe.datasets import make_circle_regression
    >>> X, y = make_circle_regression(300, random_state=0)
    >>> routing = MoETransformer(MoERegressor(4, random_state=0))
    >>> make_pipeline(routing, Ridge(0.1)).fit(X, y).score(X, y) > Ridge().fit(X, y).score(X, y)
    True
    >>> routing.fit(X, y).get_feature_names_out()
    array(['gate0', 'gate1', 'gate2', 'gate3'], dtype=object)
    """

    _parameter_constraints: dict[str, Any] = {
        "estimator": [fitted_estimator()],
        "features": [one_of(*PARTS)],
    }

    def __init__(self, estimator: Any, *, features: Any = "gates") -> None:
        self.estimator = estimator
        self.features = features

    @fit_context
    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> "MoETransformer":
        """Fit the mixture.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features; numeric, without missing values.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_samples,), optional
            Weights.

        Returns
        -------
        self : MoETransformer
            Fitted transformer.

        Raises
        ------
        ValueError
            If `estimator` is no mixture of experts, or refuses X and y.
        """
        if not hasattr(self.estimator, "predict_gates"):
            raise ValueError(
                f"estimator must be a mixture of experts. Got {type(self.estimator).__name__}."
            )
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.estimator_ = clone(self.estimator).fit(X, y, **weights)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Routing weights, or answers, of each expert.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        routing : ndarray of shape (n_samples, n_features_out)
            Layer by layer, float64.
        """
        check_is_fitted(self)
        views = {"gate": "predict_gates", "answer": "predict_experts"}
        tables = [getattr(self.estimator_, views[kind])(X) for kind in PARTS[self.features]]
        layers = [table for view in tables for table in _layers(view)]
        return np.concatenate([layer.reshape(len(layer), -1) for layer in layers], axis=1)

    def get_feature_names_out(
        self, input_features: ArrayLike | None = None
    ) -> NDArray[np.object_]:
        """Names of the features.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names of the features of X; only checked.

        Returns
        -------
        names : ndarray of str
            "gate0" and "answer0" for the first expert; "layer1_gate0" in a deep mixture, and
            "answer0_1" for the second output.
        """
        check_is_fitted(self)
        check_feature_names_in(self, input_features)
        names = [name for kind in PARTS[self.features] for name in self._names(kind)]
        return np.array(names, dtype=object)

    def _names(self, kind: str) -> Iterator[str]:
        """Names of what all layers tell of this kind."""
        one_row = np.zeros((1, self.n_features_in_))
        deep = hasattr(self.estimator_, "n_layers")
        # The model has no names of features, of which a row without any would warn.
        model = self.estimator_._model
        if kind == "gate":
            layers = model.gates(one_row)
        else:
            layers = self.estimator_._expert_answers(model, one_row)
        for number, layer in enumerate(layers):
            for place in np.ndindex(layer.shape[1:]):
                own = kind + "_".join(map(str, place))
                yield f"layer{number}_{own}" if deep else own

    @property
    def n_features_in_(self) -> int:
        """Number of features seen in `fit`."""
        return int(self._of_fitted("n_features_in_"))

    @property
    def feature_names_in_(self) -> Any:
        """Names of the features seen in `fit`."""
        return self._of_fitted("feature_names_in_")

    def _of_fitted(self, name: str) -> Any:
        if "estimator_" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no {name} before it is fitted.")
        return getattr(self.estimator_, name)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.target_tags.required = True
        tags.target_tags.multi_output = inner.target_tags.multi_output
        tags.input_tags = inner.input_tags
        return tags


def _layers(view: Any) -> list[Any]:
    """What each layer tells."""
    return view if isinstance(view, list) else [view]
