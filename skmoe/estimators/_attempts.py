"""Starts that are trained one after another, the boldest first, until one is good enough."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from skmoe.batches import Rows
from skmoe.estimators._borders import loss_away_from_borders
from skmoe.model import FittedModel
from skmoe.plan import TrainingPlan, TrainingResult

# Share of the rows, those with the largest loss, that has no say about which fit is better.
TRIMMED = 0.01
# Rows that fits are compared by.
MAX_ROWS = 20_000
# Loss away from borders, in units of the variance of y, with which a fit at regions is nearly
# exact: what is wrong are rows beside borders, and no other gate has these sharper.
NEARLY_EXACT = 1e-4


def best_loss(model: FittedModel, result: TrainingResult) -> float:
    """What training says."""
    return result.best_loss


@dataclass(frozen=True)
class Attempt:
    """A start, and how to train from there."""

    model: FittedModel
    plan: TrainingPlan
    good_enough: float = math.inf
    """Largest loss with which no other start is tried, as its judge says."""
    judge: Callable[[FittedModel, TrainingResult], float] = best_loss
    """(trained model, result) -> loss; the same for all that are compared."""


def first_good(
    attempts: Iterable[Attempt], train: Callable[[FittedModel, TrainingPlan], TrainingResult]
) -> tuple[FittedModel, TrainingResult]:
    """The first good one of these fits; without any, the best one.

    Parameters
    ----------
    attempts : iterable of Attempt
        At least one. The next is asked for only if those before were not good enough.
    train : callable
        (model, plan) -> `TrainingResult`; trains the model in place.
    """
    best, least = None, math.nan
    for attempt in attempts:
        result = train(attempt.model, attempt.plan)
        loss = attempt.judge(attempt.model, result)
        if best is None or loss < least:
            best, least = (attempt.model, result), loss
        if result.interrupted:
            return best[0], replace(best[1], interrupted=True)
        if not loss > attempt.good_enough:
            break
    if best is None:
        raise ValueError("There is nothing to train: no attempts.")
    return best


def regions_first(
    at_regions: Iterable[Attempt], usual: Attempt, rows: Rows, loss: nn.Module
) -> Iterator[Attempt]:
    """Attempts at regions; then the usual one, unless one of these is nearly exact.

    All are compared by `trimmed_loss`. Whether a fit is nearly exact, that cannot tell: a
    hundredth of the rows may be what is between a straight border and a curved one.

    Parameters
    ----------
    at_regions, usual : iterable of Attempt, Attempt
        The former may depend on what became of those before.
    rows, loss : Rows, Module
        What they are compared by.
    """

    def judge(model: FittedModel, _: TrainingResult) -> float:
        return trimmed_loss(model, rows, loss)

    rows = rows.spread(MAX_ROWS)
    nearly_exact = False
    for attempt in at_regions:
        yield replace(attempt, good_enough=0.0, judge=judge)
        nearly_exact |= loss_away_from_borders(attempt.model.net, rows, loss) <= NEARLY_EXACT
    if not nearly_exact:
        yield replace(usual, judge=judge)


@torch.no_grad()
def trimmed_loss(model: FittedModel, rows: Rows, loss: nn.Module) -> float:
    """Mean loss but for the few rows where it is largest.

    A fit at borders has hardly any other errors than a few rows on the wrong side of one:
    of some hundred rows held out, it is chance whether there is one, and how far it is off.
    """
    prediction_TO, _ = model.net.look(rows.x)
    losses_T, order_T = loss(prediction_TO, rows.y).sort()
    weight_T = rows.weight[order_T]
    before_T = weight_T.cumsum(0) - weight_T
    kept_T = ((1 - TRIMMED) * weight_T.sum() - before_T).clamp(min=0).minimum(weight_T)
    return float((kept_T @ losses_T) / kept_T.sum())
