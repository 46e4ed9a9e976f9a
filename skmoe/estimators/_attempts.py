"""Starts that are trained one after another, the boldest first, until one is good enough."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from skmoe.model import FittedModel
from skmoe.plan import TrainingPlan, TrainingResult


@dataclass(frozen=True)
class Attempt:
    """A start, and how to train from there."""

    model: FittedModel
    plan: TrainingPlan
    good_enough: float = math.inf
    """Largest loss with which no other start is tried."""


def first_good(
    attempts: Iterable[Attempt], train: Callable[[FittedModel, TrainingPlan], TrainingResult]
) -> tuple[FittedModel, TrainingResult]:
    """The first good one of these fits; without any, that with the smallest loss.

    Parameters
    ----------
    attempts : iterable of Attempt
        At least one. The next is asked for only if those before were not good enough.
    train : callable
        (model, plan) -> `TrainingResult`; trains the model in place.
    """
    best = None
    for attempt in attempts:
        result = train(attempt.model, attempt.plan)
        if best is None or result.best_loss < best[1].best_loss:
            best = attempt.model, result
        if result.interrupted:
            return best[0], replace(best[1], interrupted=True)
        if not result.best_loss > attempt.good_enough:
            break
    if best is None:
        raise ValueError("There is nothing to train: no attempts.")
    return best
