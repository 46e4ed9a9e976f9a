"""The tasks of a fit, as scikit-learn's callbacks see them.

    fit
        train    each start that is trained, and each repetition with smaller steps
            epoch
        train
        ...

What else a fit does, such as brief fits that choose among starts, or closed-form solves, is no
task of its own: it is over in a moment, or says nothing of the model that is to come. At the
end of the fit as a whole, the fitted estimator is the one that is returned.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from skmoe._callbacks import begin_fit, has_callbacks
from skmoe.estimators import _auto
from skmoe.model import FittedModel
from skmoe.monitors import EpochTasks
from skmoe.plan import TrainingPlan

# Where an estimator holds its tasks while it is fitted, if somebody looks on.
ATTRIBUTE = "_fit_tasks"


@contextmanager
def fit_tasks(
    estimator: Any, X: Any, y: Any, weight: Any, seen: dict[str, Any]
) -> Iterator[None]:
    """The tasks of a fit to these rows, in which `watched` adds those of training.

    `seen` is what the estimator is to remember of X and y.
    """
    root = begin_fit(estimator)
    if not has_callbacks(estimator):
        yield
        return
    tasks = _FitTasks(estimator, root, X, y, weight, seen)
    setattr(estimator, ATTRIBUTE, tasks)
    try:
        tasks.begin(root)
        yield
        tasks.end(root, dict)
    finally:
        delattr(estimator, ATTRIBUTE)


def watched(estimator: Any, plan: TrainingPlan, model: FittedModel) -> TrainingPlan:
    """The plan with those who are to look on while this model is trained."""
    tasks = getattr(estimator, ATTRIBUTE, None)
    return plan if tasks is None else replace(plan, monitors=[tasks.of_training(model)])


class _FitTasks:
    """How callbacks are told of the tasks of a fit."""

    def __init__(
        self, estimator: Any, root: Any, X: Any, y: Any, weight: Any, seen: dict[str, Any]
    ) -> None:
        self.estimator = estimator
        self.root = root
        self.X = X
        self.seen = seen
        metadata = None if np.all(weight == 1) else {"sample_weight": weight}
        self.told = {
            "X": lambda: _named(seen.get("feature_names_in_"), X),
            "y": y.ravel() if seen["_y_ndim"] == 1 else y,
            "metadata": metadata,
        }

    def of_training(self, model: FittedModel) -> EpochTasks:
        dtype = _auto.predicted_dtype(self.estimator.dtype, self.X, model.device)

        def fitted() -> dict[str, Any] | None:
            """Attributes of an estimator that predicts as if the fit had stopped here.

            None if it has diverged, and has no predictions.
            """
            if not all(bool(weight.isfinite().all()) for weight in model.net.parameters()):
                return None
            net = copy.deepcopy(model.net).to(dtype).eval()
            now = replace(model, net=net)
            return {"_model": now, **self.seen, ATTRIBUTE: None}

        return EpochTasks(self.root, self.begin, lambda context: self.end(context, fitted))

    def begin(self, context: Any) -> None:
        context.call_on_fit_task_begin(estimator=self.estimator, **self.told)

    def end(self, context: Any, fitted: Callable[[], dict[str, Any] | None]) -> bool:
        return bool(
            context.call_on_fit_task_end(
                estimator=self.estimator, **self.told, reconstruction_attributes=fitted
            )
        )


def _named(names: Any, X: Any) -> Any:
    """Rows with the names that they had, if they had any."""
    if names is None:
        return X
    try:
        import pandas
    except ImportError:
        return X
    return pandas.DataFrame(X, columns=names)
