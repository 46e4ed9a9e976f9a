"""What both estimators share: fit, predict, views of the routing, state that travels.

`fit` reads as its own table of contents; each step is a short method below it, and what it
starts from is in `_starting`. A fit builds a new `FittedModel` and puts it in place at the very
end, so an estimator holds either the old model or the new one.
"""

import warnings
from abc import ABC
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning

from skmoe._callbacks import CallbackSupportMixin
from skmoe._registry import Part
from skmoe._validation import (
    SEEN,
    check_rows,
    check_validation_rows,
    fit_context,
    refuse_without_rows,
    validate_parameters,
)
from skmoe.batches import Rows
from skmoe.estimators import _auto, _closed_form, _second_order
from skmoe.estimators._attempts import Attempt, first_good
from skmoe.estimators._checkpoint import open_checkpoint
from skmoe.estimators._chunks import ByChunks
from skmoe.estimators._epochs import with_best_epochs
from skmoe.estimators._exporting import Exporting
from skmoe.estimators._glance import Glance
from skmoe.estimators._nested import NestedSettings
from skmoe.estimators._parameters import (
    CONSTRAINTS,
    PARTS,
    auxiliary_losses,
    check_gate_and_router,
    check_gates_can_learn,
    check_goes_on,
)
from skmoe.estimators._pickling import Pickling
from skmoe.estimators._saving import Saving
from skmoe.estimators._starting import Starting
from skmoe.estimators._surgery import OF_AFTER_FIT, AfterFit
from skmoe.estimators._tasks import fit_tasks, watched
from skmoe.estimators._views import Views
from skmoe.folds import hold_out, leave_out
from skmoe.gradients import gradients
from skmoe.loop import count_dead
from skmoe.model import FittedModel
from skmoe.monitors import check_callbacks
from skmoe.nn.base import Network
from skmoe.nn.losses import LOSSES
from skmoe.plan import TrainingPlan, TrainingResult
from skmoe.precision import products_in
from skmoe.threads import threads
from skmoe.training import train


class BaseMoERegressor(
    ByChunks,
    AfterFit,
    Saving,
    Exporting,
    Views,
    Glance,
    Starting,
    Pickling,
    CallbackSupportMixin,
    MultiOutputMixin,
    RegressorMixin,
    NestedSettings,
    BaseEstimator,
    ABC,
):
    """Shared by `MoERegressor` and `DeepMoERegressor`."""

    _parameter_constraints: dict[str, Any] = CONSTRAINTS

    _networks: tuple[str, ...]  # that it may have

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Fit the mixture to data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features; numeric, without missing values.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_samples,), optional
            Weights, at least one of them positive. A weight of 2 counts like a row twice.
        X_val, y_val, sample_weight_val : array-like, optional
            Rows to choose the best epoch by, instead of a part of X.

        Returns
        -------
        self : object
            Fitted estimator.
        """
        goes_on = self._goes_on()
        X, y, weight, seen = check_rows(self, X, y, sample_weight, reset=not goes_on)
        if goes_on:
            check_goes_on(self.loss, self._model, y)
        given = X_val, y_val, sample_weight_val
        checkpoint, random = open_checkpoint(self, self._warm_start(), X, y, weight, *given)
        ensemble = self._model.net.is_ensemble if goes_on else self._is_ensemble(len(X))
        split = X, y, weight, given, seen, random, ensemble
        X, y, weight, held_out = self._with_validation(*split)
        with self._arithmetic(len(X)), fit_tasks(self, X, y, weight, seen):
            model, result = self._solve(X, y, weight, held_out, random, checkpoint)
            if checkpoint is not None and not result.interrupted:
                checkpoint.finish()
            model.net.to(_auto.predicted_dtype(self.dtype, X, model.device, result.is_trained))
            out_of_date = () if goes_on else OF_AFTER_FIT
            self._finish(model, result, X, weight, seen, self.warm_start, out_of_date)
            if not _auto.is_auto(self.n_experts):
                _warn_of_dead_experts(self.expert_usage_, self.top_k)
            return self

    # Steps of fit, in order.

    @contextmanager
    def _arithmetic(self, n_rows: int) -> Iterator[None]:
        """Gradients, threads and precision of a fit; of others' work none is changed."""
        with gradients(), threads(n_rows), products_in(self.dtype):
            yield

    def _validate_params(self) -> None:
        validate_parameters(self, super()._validate_params)
        for name, registry in PARTS.items():
            if isinstance(spec := getattr(self, name), Part):
                registry.resolve(spec)  # refuses unknown settings before anything is built
        if not isinstance(self.n_experts, str):
            _auto.top_k(self, self.n_experts)
        check_callbacks(self.callbacks)
        check_gate_and_router(self.gate, self.router)
        auxiliary_losses(self.auxiliary_losses)  # refuses unknown ones

    def _goes_on(self) -> bool:
        """Whether a fit is a warm start."""
        return self.warm_start and hasattr(self, "_model")

    def _warm_start(self) -> tuple[Any, ...] | None:
        """What a warm start goes on from."""
        return (self._model.to_arrays(), self._optimizer_state) if self._goes_on() else None

    def _with_validation(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
        given: tuple[Any, ...],
        seen: dict[str, Any],
        random: np.random.RandomState,
        ensemble: bool,
    ) -> Any:
        """Rows to learn from, and to judge by: those given for it, or some held out."""
        if given[0] is not None:
            return X, y, weight, check_validation_rows(self, seen, given, y.shape[1])
        refuse_without_rows(given)
        if not _auto.early_stopping(self, len(X), ensemble) or len(X) < 2:
            return X, y, weight, None
        return hold_out(X, y, weight, self.validation_fraction, random)

    def _solve(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
        held_out: tuple[np.ndarray, ...] | None,
        random: np.random.RandomState,
        checkpoint: Any,
    ) -> tuple[FittedModel, TrainingResult]:
        """The fitted model, by the solver that suits."""
        solver = _auto.solver(self.solver, self.loss)
        start = self._start(X, y, weight, random, solver, keep=self.warm_start)
        return self._solve_by(solver, *start, held_out, random, checkpoint)

    def _solve_by(
        self,
        solver: str,
        model: FittedModel,
        rows: Rows,
        held_out: Any,
        random: np.random.RandomState,
        checkpoint: Any,
    ) -> tuple[FittedModel, TrainingResult]:
        """The model after this solver."""
        solver = _auto.possible_solver(solver, self.solver, model.net)
        judges, n_rows = held_out, len(rows)
        held_out = None if held_out is None else model.rows(*held_out)
        balance = _auto.auxiliary_losses(self, n_rows, model.net)
        plan = replace(
            self._plan(n_rows, model.net),
            checkpoint=checkpoint,
            auxiliary_losses=auxiliary_losses(balance),
        )
        if "adam" in solver:
            model, result = self._descend(model, rows, held_out, plan, random)
        else:
            result = _closed_form.untrained(model.net)
        if "ridge" in solver and not result.interrupted:
            result = _closed_form.finish(model.net, rows, held_out, result, plan)
        if "lbfgs" in solver and not result.interrupted:
            result = _second_order.finish(model.net, rows, held_out, result, plan)
        if model.is_distribution and judges is not None and not result.interrupted:
            model = model.calibrated(*judges)
        return model, result

    def _descend(
        self,
        model: FittedModel,
        rows: Rows,
        held_out: Rows | None,
        plan: TrainingPlan,
        random: np.random.RandomState,
    ) -> tuple[FittedModel, TrainingResult]:
        """The model after gradient descent, from the first start that is good enough."""
        learned, judged = self._folds(model, rows, held_out, random)
        goes_on = self._goes_on()
        if judged is None and not goes_on and _auto.chooses_epochs(self):
            plan = with_best_epochs(model, rows, plan, int(random.randint(2**31 - 1)))
        given = model, rows, held_out, plan, random
        attempts = [Attempt(model, plan)] if goes_on else self._attempts(*given)

        def train_from(start: FittedModel, plan: TrainingPlan) -> TrainingResult:
            return self._train(start, learned, judged, plan, random, self.warm_start)

        return first_good(attempts, train_from)

    def _attempts(
        self,
        model: FittedModel,
        rows: Rows,
        held_out: Rows | None,
        plan: TrainingPlan,
        random: np.random.RandomState,
    ) -> Iterator[Attempt]:
        """What to train and how, after a look at what there is to learn."""
        yield Attempt(model, plan)

    def _folds(
        self,
        model: FittedModel,
        rows: Rows,
        held_out: Rows | None,
        random: np.random.RandomState,
    ) -> Any:
        """Rows to learn from and to choose the best epoch by: of members, each its own."""
        if held_out is None and _auto.leaves_out(self.early_stopping, model.net):
            seed = int(random.randint(2**31 - 1))
            generator = torch.Generator(model.device).manual_seed(seed)
            return leave_out(rows, model.net.n_members, generator) or (rows, None)
        return rows, held_out

    def _plan(self, n_rows: int, network: Network) -> TrainingPlan:
        return TrainingPlan(
            fit_loss=LOSSES.build(self.loss),
            weight_decay=self.weight_decay,
            patience=self.n_iter_no_change,
            auxiliary_losses=auxiliary_losses(self.auxiliary_losses),
            callbacks=self.callbacks or (),
            verbose=self.verbose,
            **_auto.pace(self, n_rows, network.is_ensemble, self._step_factor(n_rows, network)),
        )

    def _step_factor(self, n_rows: int, network: Network) -> float:
        """Steps of a fit, in units of the usual ones."""
        return 1.0

    def _train(
        self,
        model: FittedModel,
        rows: Rows,
        held_out: Rows | None,
        plan: TrainingPlan,
        random: np.random.RandomState,
        keep: bool,
    ) -> TrainingResult:
        check_gates_can_learn(model.net)
        generator = torch.Generator(model.device).manual_seed(int(random.randint(2**31 - 1)))
        state = getattr(self, "_optimizer_state", None) if keep else None
        plan = watched(self, plan, model)
        return train(model.net, rows, held_out, plan, generator, state or None)

    def _finish(
        self,
        model: FittedModel,
        result: TrainingResult,
        X: np.ndarray,
        weight: np.ndarray,
        seen: dict[str, Any],
        keep_optimizer: bool,
        out_of_date: Collection[str] = (),
        **more: Any,
    ) -> Any:
        """Put the fitted attributes in place, all at once; then pass on an interrupt."""
        dropped = {*SEEN, *out_of_date}
        fitted = {
            **{name: value for name, value in vars(self).items() if name not in dropped},
            **seen,
            **more,
            "_model": model,
            "_optimizer_state": result.optimizer_state if keep_optimizer else None,
            "n_samples_fit_": len(X),
            "n_iter_": len(result.history),
            "history_": result.history,
            "best_loss_": result.best_loss,
            "expert_usage_": self._layers(model.usage(X, weight), None, True),
        }
        # In one step, which neither a signal nor a thread that predicts can part.
        self.__dict__ = fitted
        if result.interrupted:
            raise KeyboardInterrupt
        return self

    # scikit-learn's manners.

    @classmethod
    def _get_param_names(cls) -> list[str]:
        # Each fit asks several times, and a look at a signature takes a tenth of a millisecond.
        return list(_parameter_names(cls))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_model")


@cache
def _parameter_names(kind: type[BaseMoERegressor]) -> tuple[str, ...]:
    return tuple(super(BaseMoERegressor, kind)._get_param_names())  # type: ignore[misc]


def _warn_of_dead_experts(usage: np.ndarray, top_k: int | str | None) -> None:
    """Say so if most of the experts that were asked for are hardly ever asked."""
    n_dead = count_dead(np.atleast_2d(usage).tolist())
    if n_dead > usage.size / 2:
        cure = "" if top_k is None else "Ask all of them with top_k=None, or balance them "
        warnings.warn(
            f"{n_dead} of {usage.size} experts are hardly ever asked: expert_usage_ is below a "
            f"tenth of an even share. {cure or 'Balance them '}with auxiliary_losses="
            "{'switch': 0.1}, or take fewer with n_experts.",
            ConvergenceWarning,
            stacklevel=4,
        )
