"""Learning from data that come in chunks: `partial_fit`."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Self

from numpy.typing import ArrayLike

from skmoe._validation import check_rows, fit_context, random_of
from skmoe.estimators import _auto
from skmoe.model import FittedModel
from skmoe.plan import TrainingPlan, TrainingResult

# Of the learning rate, where a fit has ended. At it, R^2 of six fitted models on new rows fell
# by at most 0.015 in a call with a tenth of the rows; at a tenth of the rate, by up to 1.9; at
# all of it, by up to 186.
SMALLEST_RATE = 0.01


class ByChunks:
    """`partial_fit`, of an estimator with these steps of a fit."""

    random_state: Any
    dtype: str
    history_: list[dict[str, Any]]
    _arithmetic: Callable[[int], AbstractContextManager[None]]
    _start: Callable[..., tuple[FittedModel, Any]]
    _plan: Callable[..., TrainingPlan]
    _train: Callable[..., TrainingResult]
    _finish: Callable[..., Any]

    @fit_context
    def partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Take one pass over a chunk of data, by gradient descent whatever the solver.

        The first call fixes scaling and architecture; later ones go on from there with a
        constant learning rate. It is that which the last call ended with, between a hundredth
        of `learning_rate` and all of it: a `fit` ends in small steps or a closed form, which
        larger steps would undo.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_samples,), optional
            Weights.

        Returns
        -------
        self : object
            The estimator.
        """
        first = not hasattr(self, "_model")
        X, y, weight, seen = check_rows(self, X, y, sample_weight, reset=first)
        random = random_of(self.random_state)
        with self._arithmetic(len(X)):
            model, rows = self._start(X, y, weight, random, "adam", keep=True)
            plan = replace(self._plan(len(X), model.net), max_epochs=1, scheduled=False)
            if first:
                _warn_of_constants(model)
            else:
                plan = replace(plan, learning_rate=self._rate_to_go_on_with(plan))
            result = self._train(model, rows, None, plan, random, keep=True)
        model.net.to(_auto.predicted_dtype(self.dtype, X, model.device))
        return self._finish(model, result, X, weight, seen, keep_optimizer=True)

    def _rate_to_go_on_with(self, plan: TrainingPlan) -> float:
        last = self.history_[-1].get("learning_rate", 0.0) if self.history_ else 0.0
        return min(max(last, SMALLEST_RATE * plan.learning_rate), plan.learning_rate)


def _warn_of_constants(model: FittedModel) -> None:
    """Say so if a first chunk without variation leaves nothing to learn from later ones."""
    scales = {"targets": model.y_scaling.scale, "features": model.x_scaling.scale}
    constant = [name for name, scale in scales.items() if not scale.any()]
    if constant:
        warnings.warn(
            f"In the first chunk, all {' and '.join(constant)} are constant, so that nothing "
            "is learned from later ones: the scaling stays. Start with a chunk that varies.",
            UserWarning,
            stacklevel=4,
        )
