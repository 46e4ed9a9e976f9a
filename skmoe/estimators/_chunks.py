"""Learning from data that come in chunks: `partial_fit`."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Self

from numpy.typing import ArrayLike

from skmoe._validation import check_rows, fit_context, random_of
from skmoe.estimators import _auto
from skmoe.estimators._parameters import check_goes_on
from skmoe.model import FittedModel
from skmoe.plan import TrainingPlan, TrainingResult

# Shares of the learning rate, for chunks after a fit, which ended in small steps or was solved.
# So R^2 of six models on new rows fell by at most 0.015 by a chunk of a tenth of the rows;
# after closed forms, a tenth of the rate cost up to 1.9, and all of it up to 186.
SHARE, SHARE_AFTER_CLOSED_FORM = 0.1, 0.01


class ByChunks:
    """`partial_fit`, of an estimator with these steps of a fit."""

    loss: Any
    random_state: Any
    dtype: str
    history_: list[dict[str, Any]]
    _model: FittedModel
    _arithmetic: Callable[[int], AbstractContextManager[None]]
    _start: Callable[..., tuple[FittedModel, Any]]
    _plan: Callable[..., TrainingPlan]
    _train: Callable[..., TrainingResult]
    _finish: Callable[..., Any]

    @fit_context
    def partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Take one pass over a chunk of data, by gradient descent whatever the solver.

        The first call fixes scaling and architecture; later ones go on from there with a
        constant learning rate. After a `fit`, which ended in small steps, it is a tenth of
        `learning_rate`, and a hundredth where last maps were solved for in closed form: larger
        steps would undo it.

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
        if not first:
            check_goes_on(self.loss, self._model, y)
        random = random_of(self.random_state)
        with self._arithmetic(len(X)):
            model, rows = self._start(X, y, weight, random, "adam", keep=True)
            if first:
                _warn_of_constants(model)
                dtype = _auto.predicted_dtype(self.dtype, X, model.device)
            else:
                dtype = self._model.dtype
            share = 1.0 if first else _share_of_rate(self.history_)
            plan = self._plan(len(X), model.net)
            rate = share * plan.learning_rate
            plan = replace(plan, learning_rate=rate, max_epochs=1, scheduled=False)
            result = self._train(model, rows, None, plan, random, keep=True)
        model.net.to(dtype)
        for epoch in result.history:
            epoch["rate_share"] = share
        return self._finish(model, result, X, weight, seen, keep_optimizer=True)


def _share_of_rate(history: list[dict[str, Any]]) -> float:
    """That of the last chunk, or what a fit bears."""
    last = history[-1] if history else {}
    after_fit = SHARE_AFTER_CLOSED_FORM if "ridge_alpha" in last or not last else SHARE
    return last.get("rate_share", after_fit)


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
