"""The second-order finish of a fit."""

import time
from dataclasses import replace
from typing import cast

from skmoe.batches import Rows
from skmoe.nn.base import Network
from skmoe.nn.losses import FitLoss
from skmoe.plan import TrainingPlan, TrainingResult
from skmoe.precision import with_float64
from skmoe.second_order import polish

MAX_ITERATIONS = 300
# Of AdamW's decoupled decay, what the objective of L-BFGS has as its penalty: 1e-4 by default,
# best of 0, 1e-4 and 1e-3 on three of four small tables.
PENALTY_SHARE = 0.01


def finish(
    network: Network,
    rows: Rows,
    held_out: Rows | None,
    result: TrainingResult,
    plan: TrainingPlan,
) -> TrainingResult:
    """Polish all weights, and tell of it in the last entry of the history."""

    def work() -> TrainingResult:
        with with_float64(network, rows, held_out) as there:
            return _finish(network, *there, result, plan)

    return plan.stage(network, work)


def _finish(
    network: Network,
    rows: Rows,
    held_out: Rows | None,
    result: TrainingResult,
    plan: TrainingPlan,
) -> TrainingResult:
    started = time.perf_counter()
    record = polish(
        network,
        rows,
        held_out,
        cast(FitLoss, plan.fit_loss),
        weight_decay=PENALTY_SHARE * plan.weight_decay,
        max_iter=MAX_ITERATIONS,
    )
    entry = {
        "lbfgs_iterations": record.n_iter,
        "lbfgs_loss_before": record.loss_before,
        "lbfgs_loss": record.loss,
        "lbfgs_seconds": time.perf_counter() - started,
    }
    best = record.loss if held_out is None else record.valid_loss
    return replace(
        result,
        history=[*result.history[:-1], {**result.history[-1], **entry}],
        best_loss=best if record.improved else result.best_loss,
        interrupted=result.interrupted or record.interrupted,
    )
