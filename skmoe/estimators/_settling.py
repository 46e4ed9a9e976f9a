"""How a start at regions is trained: rows on the wrong side of a border count less.

As long as borders move, some rows are on the wrong side of one and off by a whole jump: few
rows, but most of the squared error, and what experts would bend themselves for. So errors far
above the usual one can count linearly, as in Huber's loss. What is usual falls in training.
Errors on validation rows stay squared ones.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from skmoe.batches import Rows
from skmoe.estimators._borders import (
    AT_LAST,
    HeldBorders,
    borders_at_last,
    placing_borders,
)
from skmoe.estimators._brief import shortened
from skmoe.estimators._splits import sharing_out
from skmoe.nn.base import Network
from skmoe.nn.losses import SquaredError
from skmoe.plan import TrainingPlan

# Share of the epochs of a fit that goes on from a rough one.
SETTLED = 0.4
# Standard deviations from which on errors count linearly, and those of a normal distribution
# in its median absolute deviation. Rows that this is measured on.
FAR_OFF, PER_DEVIATION = 3.0, 0.6745
MAX_ROWS = 2000
SMALLEST_LIMIT = 1e-6


class ResistantError(SquaredError):
    """``(y - f)^2``, which in training goes on linearly from a limit."""

    limit: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("limit", torch.tensor(torch.inf))

    def forward(self, prediction_TO: Tensor, target_TO: Tensor) -> Tensor:
        if not self.training:
            return super().forward(prediction_TO, target_TO)
        errors_TO = (prediction_TO - target_TO).abs()
        squared_TO = errors_TO.minimum(self.limit)  # the part of an error that is squared
        return (squared_TO * (2 * errors_TO - squared_TO)).mean(-1)


def settling(
    plan: TrainingPlan,
    rows: Rows,
    share: float = SETTLED,
    resistant: bool = False,
    told: bool = False,
) -> TrainingPlan:
    """The plan of a fit that goes on from a rough one, at its regions.

    If it is to be `resistant`, a squared error becomes a `ResistantError`; other losses stay
    as they are. Borders are placed now and then. If they were `told` by rows, they stay where
    they are at first, and small regions keep their experts. They are sharp at last.
    """
    before = placing_borders(rows, sharing_out(rows, told))
    after: Callable[[Network, int, int], None] | None = None
    if told:
        held = HeldBorders(before)
        before, after = held.before_epoch, held.after_epoch
    after = borders_at_last(rows, after)
    plan = replace(shortened(plan, share), best_from=AT_LAST)
    plan = replace(plan, before_epoch=before, after_epoch=after)
    if not resistant or not isinstance(plan.fit_loss, SquaredError):
        return plan
    loss = ResistantError().to(rows.y)
    return replace(plan, fit_loss=loss, before_epoch=_following(loss, rows, before))


def _following(
    loss: ResistantError, rows: Rows, first: Callable[[Network, int, int], None]
) -> Callable[[Network, int, int], None]:
    """`first`, then the limit of the loss in units of the usual error."""
    rows = rows.spread(MAX_ROWS)
    counted = rows.weight > 0
    x, y = rows.x[counted], rows.y[counted]

    def before_epoch(network: Network, done: int, in_all: int) -> None:
        first(network, done, in_all)
        loss.limit.fill_(FAR_OFF * usual_error(network, x, y))

    return before_epoch


@torch.no_grad()
def usual_error(network: Network, x_TD: Tensor, y_TO: Tensor) -> float:
    """Standard deviation of the errors, had they a normal distribution."""
    prediction_TO, _ = network.look(x_TD)
    median = (prediction_TO - y_TO).abs().median()
    # In this order, as a diverged fit has no median.
    return max(SMALLEST_LIMIT, float(median) / PER_DEVIATION)
