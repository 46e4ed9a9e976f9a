"""What a fitted estimator tells: predictions, routing, experts, and the distribution."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skmoe._settings import check_integer
from skmoe._validation import check_features, check_is_fitted, random_of
from skmoe.distribution import Distribution, draw, moments
from skmoe.model import FittedModel
from skmoe.nn.base import Network


class Views(ABC):
    """`predict` and other looks at a `FittedModel`."""

    loss: Any
    _model: FittedModel
    _y_ndim: int

    def predict(self, X: ArrayLike, return_std: bool = False) -> Any:
        """Predict the targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        return_std : bool, default=False
            Whether to return the standard deviation of the target as well; only with
            ``loss="gaussian_nll"``.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Predictions in the units of y: float32 for float32 features, else float64.
        std : ndarray of the same shape
            If asked for: that of the predicted distribution, in the units of y.
        """
        model, X = self._ready(X)
        if not return_std:
            return self._as_y(model.predict(X), X)
        mean, std = moments(self._distribution(model, X))
        return self._as_y(mean, X), self._as_y(std, X)

    def sample(
        self, X: ArrayLike, n_samples: int = 1, random_state: Any = None
    ) -> NDArray[np.float64]:
        """Draw targets from the predicted distribution; only with ``loss="gaussian_nll"``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        n_samples : int, default=1
            Number of draws for each row.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        draws : ndarray of shape (n_rows, n_samples) or (n_rows, n_samples, n_outputs)
            In the units of y. Outputs of one draw come from one component of the mixture.
        """
        n_draws = check_integer("n_samples", n_samples)
        model, X = self._ready(X)
        random = random_of(random_state)
        drawn = draw(self._distribution(model, X), n_draws, random)
        return drawn[..., 0] if self._y_ndim == 1 else drawn

    def predict_gates(self, X: ArrayLike, layer: int | None = None) -> Any:
        """Weight of each expert, 0 for those that are not asked.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        layer : int, optional
            Only this layer of a deep mixture.

        Returns
        -------
        weights : ndarray of shape (n_samples, n_experts), or a list of them
            A list with one array for each layer if the mixture is deep and `layer` is None.
        """
        model, X = self._ready(X)
        return self._layers(model.gates(X), layer)

    def predict_experts(self, X: ArrayLike, layer: int | None = None) -> Any:
        """What each expert says, whether it is asked or not.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        layer : int, optional
            Only this layer of a deep mixture.

        Returns
        -------
        answers : ndarray of shape (n_samples, n_experts[, n_outputs]), or a list of them
            In the units of y if the mixture is shallow: then ``predict`` is
            ``predict_shared`` plus the sum of these weighted by ``predict_gates``. Layers of
            a deep mixture answer in the units of its hidden state. Experts that are "merged"
            answer each by itself, and add up to nothing.
        """
        model, X = self._ready(X)
        return self._layers(self._expert_answers(model, X), layer)

    def apply(self, X: ArrayLike) -> Any:
        """The expert with the largest weight.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        experts : ndarray of shape (n_samples,), or (n_samples, n_layers) if deep
            Indices of experts.
        """
        model, X = self._ready(X)
        return self._layers(list(model.top_experts(X).T), None, stack=True).T

    @property
    def net_(self) -> Network:
        """The trained torch module, in evaluation mode."""
        check_is_fitted(self)
        return self._model.net

    # Their steps.

    def _ready(self, X: Any) -> tuple[FittedModel, np.ndarray]:
        """The model, and X. All is read once: a refit in another thread cannot mix in."""
        check_is_fitted(self)
        now = object.__new__(type(self))
        now.__dict__ = self.__dict__  # which the end of a fit replaces, and does not change
        return now._model, check_features(now, X)

    def _like_y(self, y: Any) -> Any:
        return y.ravel() if self._y_ndim == 1 else y

    def _as_y(self, y: Any, X: Any) -> Any:
        """In the shape of y and the precision of X."""
        return self._like_y(y).astype(X.dtype, copy=False)

    def _distribution(self, model: FittedModel, X: Any) -> Distribution:
        if not model.is_distribution:
            raise ValueError(
                "The predicted distribution is known of models that were fitted with "
                "loss='gaussian_nll' only. Got one that was fitted with another loss."
            )
        return model.distribution(X)

    @abstractmethod
    def _layers(self, arrays: list[Any], layer: int | None, stack: bool = False) -> Any:
        """One array for each layer in the form that users get."""

    @abstractmethod
    def _expert_answers(self, model: FittedModel, X: Any) -> list[np.ndarray]:
        """Answers of the experts, for each layer."""
