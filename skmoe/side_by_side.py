"""Many networks of the same kind, trained as one program.

A step of a small network is many short operations; what they cost is mostly the calls. Networks
of one shape take their steps together (`stacked_steps`). Each keeps what is its own: rows,
batches and their order, learning rate, decay, the moment it stops. So it ends as it would
alone, up to rounding. Where the gradient is known by hand, they may have more or fewer experts,
of which more or fewer are asked, and a few rows more or less.
"""

import gc
import math
import time
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

import torch

from skmoe.batches import Batches, Rows
from skmoe.gradients import gradients
from skmoe.kinds import Request, kind_of
from skmoe.loop import DIVERGED_LOSS, VALIDATION_BATCH, Diverged, count_dead, looks_now
from skmoe.objective import validation_loss
from skmoe.plan import TrainingResult
from skmoe.precision import products_in
from skmoe.stacked_objective import can_be_taken
from skmoe.stacked_steps import StackedSteps
from skmoe.threads import threads
from skmoe.training import train_alone


def train_requests(requests: Sequence[Request]) -> None:
    """Train all networks in place, those of the same kind together."""
    groups: dict[Hashable, list[Request]] = {}
    for request in requests:
        groups.setdefault(kind_of(request), []).append(request)
    for group in groups.values():
        started = time.perf_counter()
        n_rows = sum(len(request.rows) for request in group)
        with gradients(), threads(n_rows), products_in(group[0].products):
            _train_group(group)
        for request in group:
            request.seconds = (time.perf_counter() - started) / len(group)


def _train_group(group: list[Request]) -> None:
    """Together if that can be; fewer at once if memory does not suffice for all of them.

    If one of them fails, each is trained by itself, so that the others are not lost.
    """
    if len(group) == 1 or not can_be_taken(group):
        _train_in_turn(group)
        return
    starts = [_Start(request) for request in group]
    try:
        _train_together(group)
        return
    except Exception as error:
        out_of_memory = isinstance(error, torch.OutOfMemoryError)
    # Not in the handler: until it ends, there are still the tensors of what failed.
    gc.collect()
    for start in starts:
        start.restore()
    if not out_of_memory:
        _train_in_turn(group)
        return
    half = (len(group) + 1) // 2
    warnings.warn(
        f"Memory does not suffice to train {len(group)} networks at once: they are now "
        f"trained in groups of {half}.",
        RuntimeWarning,
        stacklevel=2,
    )
    _train_group(group[:half])
    _train_group(group[half:])


def _train_in_turn(group: Sequence[Request]) -> None:
    for request in group:
        try:
            request.outcome = train_alone(
                request.network,
                request.rows,
                request.validation,
                request.plan,
                request.generator,
                request.optimizer_state,
                request.restart,
                request.progress,
            )
        except Exception as error:
            request.outcome = error


class _Start:
    """What a training changes, as it was before."""

    def __init__(self, request: Request):
        self.request, self.state = request, request.generator.get_state()
        network = request.network
        # In a program, weights get other memory; what they had stays as it is.
        self.weights = [(weight, weight.data) for weight in network.parameters()]
        self.buffers = [(buffer, buffer.data.clone()) for buffer in network.buffers()]

    def restore(self) -> None:
        for tensor, values in (*self.weights, *self.buffers):
            tensor.data = values
            tensor.grad = None
        self.request.generator.set_state(self.state)
        self.request.outcome = None


@dataclass(eq=False)
class _Model:
    """One of the networks, and how its fit goes."""

    request: Request
    history: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0
    misses: int = 0

    def judge(self, loss: float) -> None:
        """Take note of a validation loss."""
        epoch = len(self.history)
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, epoch
        self.misses = epoch - self.best_epoch

    @property
    def is_best(self) -> bool:
        """Whether no epoch was better than the last one."""
        return self.best_epoch == len(self.history)

    @property
    def has_diverged(self) -> bool:
        return not self.history[-1]["train_loss"] < DIVERGED_LOSS

    @property
    def has_ended(self) -> bool:
        """Whether it diverged, has done all epochs, or was too long without a better loss."""
        plan = self.request.plan
        waits_in_vain = plan.patience is not None and self.misses >= plan.patience
        return self.has_diverged or waits_in_vain or len(self.history) == plan.max_epochs

    def finish(self, is_finite: bool, optimizer_state: dict[str, Any]) -> None:
        """Tell the result."""
        if self.has_diverged or not is_finite:
            self.request.outcome = Diverged()
            return
        monitor = "train_loss" if self.request.validation is None else "valid_loss"
        losses = [epoch[monitor] for epoch in self.history]
        best = min(losses, default=math.nan)
        self.request.outcome = TrainingResult(self.history, best, optimizer_state)


def _train_together(group: Sequence[Request]) -> None:
    """Train networks of one kind, each until its fit has ended."""
    steps = StackedSteps(group)
    try:
        _run([_Model(request) for request in group], steps)
    finally:
        steps.close()
    for request in group:
        request.together = len(group)


def _run(models: list[_Model], steps: StackedSteps) -> None:
    """Epoch by epoch, with those that have not ended."""
    judged = models[0].request.validation is not None
    for epoch in count(1):
        _train_epoch(models, steps, epoch)
        if judged:
            _judge(models, steps, epoch)
        ended = [m for m, model in enumerate(models) if model.has_ended]
        if ended:
            _end(models, steps, ended)
            kept = [m for m in range(len(models)) if m not in ended]
            models = [models[m] for m in kept]
            if not models:
                return
            steps.keep(kept)


def _train_epoch(models: Sequence[_Model], steps: StackedSteps, epoch: int) -> None:
    started = time.perf_counter()
    averages = steps.epoch()
    seconds = (time.perf_counter() - started) / len(models)
    for m, model in enumerate(models):
        own = {name: values[m] for name, values in averages.items()}
        entry = {"epoch": epoch, "train_loss": own.pop("loss"), **own}
        entry["dead_experts"] = count_dead(own["usage"])
        entry["learning_rate"] = steps.last_rate(m)
        model.history.append({**entry, "train_seconds": seconds})


def _judge(models: Sequence[_Model], steps: StackedSteps, epoch: int) -> None:
    """Validation losses of all models; of those that are not looked at now, the last ones."""
    looked_at = [looks_now(epoch, model.request.plan) for model in models]
    losses: Sequence[float] = []
    if any(looked_at):
        started = time.perf_counter()
        by_hand = steps.validation is not None
        losses = steps.losses() if by_hand else [_mean_validation_loss(x) for x in models]
        seconds = (time.perf_counter() - started) / len(models)
    for m, model in enumerate(models):
        if looked_at[m]:
            model.history[-1] |= {"valid_loss": losses[m], "valid_seconds": seconds}
            model.judge(losses[m])
        else:  # there is one before: all look at the first epoch
            model.history[-1]["valid_loss"] = model.history[-2]["valid_loss"]
    better = [model.is_best for model in models]
    if any(better):
        steps.remember(better)


def _end(models: Sequence[_Model], steps: StackedSteps, ended: Sequence[int]) -> None:
    """End these fits, at the weights of their best epochs."""
    steps.recall([m for m in ended if models[m].best_epoch and not models[m].is_best])
    are_finite, states = steps.are_finite(), steps.optimizer.arrays()
    for m in ended:
        steps.release(m)
        models[m].finish(are_finite[m], states[m])


@torch.no_grad()
def _mean_validation_loss(model: _Model) -> float:
    request = model.request
    network, criterion = request.network.eval(), request.plan.fit_loss.eval()
    validation = cast(Rows, request.validation)
    total = torch.zeros(())
    for (x, weight), y in Batches(
        validation, max(request.plan.batch_size, VALIDATION_BATCH), None
    ):
        loss, _ = validation_loss(criterion, network, x, y, weight)
        total = total + loss * len(x)
    criterion.train()
    return float(total) / len(validation)
