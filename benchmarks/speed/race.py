"""How long until the validation error is that of boosted trees, on real tables."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback

from benchmarks.speed.case import DID_NOT_GET_THERE, Case, Contestants, Goal
from benchmarks.tasks import Task, folder
from skmoe import MoERegressor

TREES, OURS = "LightGBM", "skmoe, default"
# Features as they are, and rates that fall sooner: the cheapest way to a fair error, where the
# default is made for a low one.
BRIEF = "skmoe, no embedding, 5 epochs"
LEAST_ROWS = 10_000
# The data's splits are numbered from 0, seeds of turns from here.
FIRST_SEED = 1000


def cases(data: Path | None) -> Iterator[Case]:
    """One for each large table of a folder."""
    for task in folder(data) if data is not None else []:
        if task.facts["rows"] >= LEAST_ROWS:
            yield _race(task)


class Arrived(Exception):
    """The validation error is small enough."""


class Finish(Callback):
    """Ends a fit as soon as the validation error is small enough."""

    def __init__(self, target: float) -> None:
        self.target = target

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        if net.history[-1]["valid_loss"] <= self.target:
            raise Arrived


def _race(task: Task) -> Case:
    def make(seed: int) -> Contestants:
        from lightgbm import LGBMRegressor

        split = task.make(seed - FIRST_SEED)
        X, X_val, y, y_val = train_test_split(
            split.X_train, split.y_train, test_size=0.2, random_state=seed
        )
        trees = LGBMRegressor(n_jobs=1, random_state=seed, verbosity=-1).fit(X, y)
        error = np.mean((trees.predict(X_val) - y_val) ** 2)
        finish = Finish(float(error / np.var(y)))  # a loss is one of the scaled target

        def race(moe: MoERegressor) -> object:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    moe.fit(X, y, X_val=X_val, y_val=y_val)
            except Arrived:
                return None
            return DID_NOT_GET_THERE

        moe = MoERegressor(callbacks=[finish], solver="adam", random_state=seed)
        brief = clone(moe).set_params(embedding=None, max_epochs=5)
        race(MoERegressor(2, callbacks=[Finish(np.inf)], solver="adam"))  # late imports
        return {
            OURS: lambda: race(moe),
            BRIEF: lambda: race(brief),
            TREES: lambda: trees.fit(X, y),
        }

    goals = [Goal(OURS, TREES, at_most=1), Goal(BRIEF, TREES, at_most=1)]
    return Case(f"to the validation error of default LightGBM, {task.name}", make, goals)
