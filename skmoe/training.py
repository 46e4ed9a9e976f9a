"""Training by gradient descent: a fit that diverges starts again with a smaller step."""

import math
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning

from skmoe.batches import Rows
from skmoe.loop import DIVERGED_LOSS, Diverged, Loop, StopTraining
from skmoe.nn.base import Network
from skmoe.nn.losses import GaussianNLL
from skmoe.optimizer import optimizer_arrays
from skmoe.plan import TrainingPlan, TrainingResult

MAX_RESTARTS = 6
RESTART_FACTOR = 0.1
# An epoch that still improves the loss by this share was not the last that paid.
STILL_IMPROVING = 0.1


def train(
    network: Network,
    rows: Rows,
    validation: Rows | None,
    plan: TrainingPlan,
    generator: torch.Generator,
    optimizer_state: dict[str, Any] | None = None,
) -> TrainingResult:
    """Train `network` in place and leave it in evaluation mode.

    Parameters
    ----------
    network : Network
        The network, on the device of the rows.
    rows, validation : Rows
        To learn from, and to choose the best epoch by (optional). Weights of shape (T, M)
        give each member of the network rows of its own.
    plan : TrainingPlan
        How.
    generator : torch.Generator
        Source of batch order and gate noise, on the same device.
    optimizer_state : dict, optional
        To go on from, as an earlier result holds it.

    Raises
    ------
    FloatingPointError
        If the fit diverges with every one of the smaller steps that are tried.
    """

    def work() -> TrainingResult:
        return _train_with_restarts(network, rows, validation, plan, generator, optimizer_state)

    result = plan.stage(network, work)
    _warn_if_unfinished(result.history, plan)
    return result


def _train_with_restarts(
    network: Network,
    rows: Rows,
    validation: Rows | None,
    plan: TrainingPlan,
    generator: torch.Generator,
    optimizer_state: dict[str, Any] | None,
) -> TrainingResult:
    start = {name: value.clone() for name, value in network.state_dict().items()}
    train_once = TRAINER.get()
    progress = plan.checkpoint.take_progress() if plan.checkpoint else None
    for restart in range(progress["restart"] if progress else 0, MAX_RESTARTS + 1):
        rate = plan.learning_rate * RESTART_FACTOR**restart
        slower = replace(plan, learning_rate=rate)
        given = optimizer_state if restart == 0 else None
        try:
            result = train_once(
                network, rows, validation, slower, generator, given, restart, progress
            )
        except Diverged:
            network.load_state_dict(start)
            progress = None
            continue
        if restart:
            _warn(f"The fit diverged and was repeated with learning_rate={rate:g}.")
        network.eval().zero_grad(set_to_none=True)
        return result
    raise FloatingPointError(
        f"The fit diverged: the loss was not finite or above {DIVERGED_LOSS:g} with every "
        f"learning_rate down to {rate:g}. Give a smaller learning_rate."
    )


def train_alone(
    network: Network,
    rows: Rows,
    validation: Rows | None,
    plan: TrainingPlan,
    generator: torch.Generator,
    optimizer_state: dict[str, Any] | None = None,
    restart: int = 0,
    progress: dict[str, Any] | None = None,
) -> TrainingResult:
    """`train` without another try: raises `Diverged`.

    Two more arguments are for checkpoints: the number of this try, and the progress from which
    it goes on.
    """
    loop = Loop(network, plan, validation, generator, optimizer_state, restart).initialize()
    interrupted = False
    loop.notify("on_train_begin", X=rows)
    if progress is not None:
        loop.go_on_from(progress)
    try:
        loop.fit_loop(rows, epochs=loop.max_epochs - len(loop.history))
    except StopTraining:
        pass
    except KeyboardInterrupt:
        interrupted = True
        if not loop.epochs_done():
            raise  # a model that has seen nothing is of no use
        if "epoch" not in loop.history[-1]:
            loop.history.pop()
    except BaseException:
        loop.notify("on_train_end", X=rows)  # callbacks close what they opened
        raise
    loop.notify("on_train_end", X=rows)
    if not all(bool(weight.isfinite().all()) for weight in loop.module_.parameters()):
        # Whoever pressed Ctrl-C does not want another try.
        raise KeyboardInterrupt if interrupted else Diverged
    history = loop.epochs_done()
    measured = [epoch for epoch in history if loop.is_measured(epoch)]
    late = [epoch for epoch in measured if epoch["epoch"] >= plan.first_best]
    losses = [epoch[loop.monitor] for epoch in late or measured]
    return TrainingResult(
        history, min(losses, default=math.nan), optimizer_arrays(loop.optimizer_), interrupted
    )


# Who trains. Fits that run side by side put something in place that trains their networks
# together.
TRAINER: ContextVar[Callable[..., TrainingResult]] = ContextVar("TRAINER", default=train_alone)


def _warn_if_unfinished(history: list[dict[str, Any]], plan: TrainingPlan) -> None:
    *before, last = [epoch["train_loss"] for epoch in history] or [math.nan]
    if not before or len(history) < plan.max_epochs or not plan.scheduled or plan.chosen:
        return
    best = min(before)  # noise of a gate alone moves the last one up and down
    unit = 1.0 if isinstance(plan.fit_loss, GaussianNLL) else best  # logarithms have no zero
    if last < best - STILL_IMPROVING * unit:
        _warn(
            f"The fit stopped at max_epochs={plan.max_epochs} while the loss was still "
            "falling. Consider raising max_epochs."
        )


def _warn(message: str) -> None:
    warnings.warn(message, ConvergenceWarning, stacklevel=6)
