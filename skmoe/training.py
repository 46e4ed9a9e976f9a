"""Training: the only file that knows skorch, beside the callbacks in `monitors`.

skorch gives the loop, the history and the callbacks. What is ours: batches are slices of
tensors that lie on the device already (its data loader would cost several times the step
itself for nets of this size), losses carry sample weights and auxiliary terms, learning rate
and gate temperature follow a schedule by steps, and a fit that diverges starts again with
a smaller step.
"""

import copy
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping
from torch import Tensor

from skmoe.batches import Batches, Rows, Tally, count_batches, of_rows
from skmoe.monitors import monitors
from skmoe.nn.base import Network, Step
from skmoe.nn.base_routers import Routing
from skmoe.nn.losses import FitLoss, GaussianNLL
from skmoe.optimizer import FlatAdamW, optimizer_arrays, schedule

# On standardised targets the loss of saying nothing is 1: far above it, the fit is lost.
DIVERGED_LOSS = 1e4
MAX_RESTARTS = 6
RESTART_FACTOR = 0.1
# An epoch that still improves the loss by this share was not the last that paid.
STILL_IMPROVING = 0.1


@dataclass(frozen=True)
class AuxiliaryLoss:
    """One auxiliary loss with its weight."""

    name: str
    weight: float
    loss: Callable[[Routing, Tensor], Tensor]


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides how a network is trained."""

    fit_loss: FitLoss | GaussianNLL
    learning_rate: float
    weight_decay: float
    batch_size: int
    max_epochs: int
    patience: int | None = None  # epochs without a better validation loss; None: run all
    looks: int | None = None  # at the validation rows, about; None: after each epoch
    auxiliary_losses: Sequence[AuxiliaryLoss] = ()
    callbacks: Sequence[Callback] = ()
    monitors: Sequence[Callback] = ()  # called after all other callbacks
    before_epoch: Callable[[Network, int, int], None] | None = None  # epochs done, and in all
    at_rest: Sequence[torch.nn.Module] = ()  # stay in evaluation mode, and are not annealed
    scheduled: bool = True  # False: constant learning rate and temperature (partial_fit)
    verbose: int = 0


@dataclass(frozen=True)
class TrainingResult:
    """What a training run leaves beside the weights."""

    history: list[dict[str, Any]]
    best_loss: float
    optimizer_state: dict[str, Any] = field(repr=False)
    interrupted: bool = False


def is_due(shares: Sequence[float], done: int, in_all: int) -> bool:
    """Whether one of these shares of all epochs is done just now: for `before_epoch`."""
    return done in {round(share * in_all) for share in shares}


class Diverged(Exception):
    """The training loss is no longer a number, or far above that of a constant."""


class StopTraining(Exception):
    """A callback asked for the end of training."""


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
    start = copy.deepcopy(network.state_dict())
    for restart in range(MAX_RESTARTS + 1):
        try:
            result = _train_once(network, rows, validation, plan, generator, optimizer_state)
        except Diverged:
            network.load_state_dict(start)
            plan = replace(plan, learning_rate=plan.learning_rate * RESTART_FACTOR)
            optimizer_state = None
            continue
        if restart:
            _warn(f"The fit diverged and was repeated with learning_rate={plan.learning_rate}.")
        _warn_if_unfinished(result.history, plan)
        network.eval().zero_grad(set_to_none=True)
        return result
    raise FloatingPointError(
        f"The fit diverged: the loss was not finite or above {DIVERGED_LOSS:g} with every "
        f"learning_rate down to {plan.learning_rate / RESTART_FACTOR:g}."
    )


def _train_once(network, rows, validation, plan, generator, optimizer_state) -> TrainingResult:
    loop = _Loop(network, plan, validation, generator, optimizer_state).initialize()
    interrupted = False
    loop.notify("on_train_begin", X=rows)
    try:
        loop.fit_loop(rows)
    except StopTraining:
        pass
    except KeyboardInterrupt:
        interrupted = True
    except BaseException:
        loop.notify("on_train_end", X=rows)  # callbacks close what they opened
        raise
    loop.notify("on_train_end", X=rows)
    if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
        # Whoever pressed Ctrl-C does not want another try.
        raise KeyboardInterrupt if interrupted else Diverged
    history = [
        {key: value for key, value in epoch.items() if key != "batches"}
        for epoch in loop.history
        if "train_loss" in epoch
    ]
    losses = [epoch[loop.monitor] for epoch in history if loop.monitor in epoch]
    return TrainingResult(
        history, min(losses, default=math.nan), optimizer_arrays(loop.optimizer_), interrupted
    )


class _Loop(NeuralNet):
    """skorch's loop over resident tensors."""

    def __init__(self, module, plan, validation, generator, optimizer_state):
        super().__init__(
            module,
            criterion=plan.fit_loss,
            max_epochs=plan.max_epochs,
            lr=plan.learning_rate,
            batch_size=plan.batch_size,
            callbacks=_callbacks(plan, validation is not None),
            train_split=None,
            verbose=plan.verbose,
            device=None,
        )
        self.plan = plan
        self.validation = validation
        self.generator = generator
        self.optimizer_state = optimizer_state

    _default_callbacks: list = []

    @property
    def monitor(self) -> str:
        return "train_loss" if self.validation is None else "valid_loss"

    def initialize_optimizer(self, triggered_directly=None):
        self.optimizer_ = FlatAdamW(
            self.module_,
            self.plan.learning_rate,
            self.plan.weight_decay,
            self.optimizer_state,
        )
        return self

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        super().on_train_begin(net, X=X, y=y, **kwargs)
        self.step = 0
        self.n_steps = self.max_epochs * count_batches(len(X), self.batch_size)
        for module in self.module_.modules():
            if hasattr(module, "generator"):  # gates with noise, and others that draw
                module.generator = self.generator
        parts = *self.module_.gates(), *(t.loss for t in self.plan.auxiliary_losses)
        resting = set(self.plan.at_rest)
        self.annealed = [p for p in parts if hasattr(p, "anneal") and p not in resting]
        self.listeners = {
            name: [cb for _, cb in self.callbacks_ if _overrides(cb, name)]
            for name in ("on_batch_begin", "on_batch_end", "on_grad_computed")
        }

    def notify(self, method_name, **kwargs):
        # Callbacks that do nothing are not called: per batch, this is half of the cost.
        if method_name in getattr(self, "listeners", ()):
            for callback in self.listeners[method_name]:
                getattr(callback, method_name)(self, **kwargs)
            return
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt as stop:
            # skorch's callbacks stop a fit by raising what Ctrl-C raises.
            if _raised_by_callback(stop, [cb for _, cb in self.callbacks_]):
                raise StopTraining from None
            raise

    def check_data(self, X, y=None):
        """Rows were checked by the estimator."""

    def get_split_datasets(self, X, y=None, **fit_params):
        return X, self.validation

    def get_iterator(self, dataset, training=False):
        size = self.batch_size if training else max(self.batch_size, 8192)
        return Batches(dataset, size, self.generator if training else None)

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        if iterator is None:
            return
        if not training and not self._looks_now():
            self.history.record("valid_loss", self.history[-2, "valid_loss"])
            return
        started = time.perf_counter()
        if training and self.plan.before_epoch is not None:
            self.plan.before_epoch(self.module_, len(self.history) - 1, self.max_epochs)
        self._set_training(training)
        for module in self.plan.at_rest:
            module.eval()
        tally = Tally()
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch)
            tally.add(step.pop("values"), step.pop("routings"), batch)
            self.notify("on_batch_end", batch=batch, training=training, **step)
        averages = tally.averages()
        loss = averages.pop("loss")
        self.history.record(f"{prefix}_loss", loss)
        if training:
            if not loss < DIVERGED_LOSS:
                raise Diverged
            for name, value in averages.items():
                self.history.record(name, value)
            self.history.record("dead_experts", count_dead(averages["usage"]))
            self.history.record("learning_rate", self.optimizer_.param_groups[0]["lr"])
        self.history.record(f"{prefix}_seconds", time.perf_counter() - started)

    def train_step(self, batch, **fit_params):
        self._follow_schedule()
        (x, weight), y = batch
        self.optimizer_.zero_grad()
        answers, steps = self.module_.answers(x)
        fit_loss = self._fit_loss(answers, steps, y, weight)
        extra = self._auxiliary_losses(steps, of_rows(weight))
        sum(extra.values(), fit_loss).backward()
        if self.listeners["on_grad_computed"]:
            named = list(self.get_all_learnable_params())
            self.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
        self.optimizer_.step()
        values = {f"{name}_loss": value.detach() for name, value in extra.items()}
        return {
            "loss": fit_loss,
            "y_pred": answers.detach().mean(0),
            "values": {"loss": fit_loss.detach(), **values},
            "routings": [step.routing for step in steps],
        }

    @torch.no_grad()
    def validation_step(self, batch, **fit_params):
        (x, weight), y = batch
        answers, steps = self.module_.answers(x)
        prediction = answers.mean(0)
        together = weight.ndim == 1 and not isinstance(self.criterion_, GaussianNLL)
        judged = prediction.unsqueeze(0) if together else answers
        loss = self._fit_loss(judged, steps, y, weight)
        return {"loss": loss, "y_pred": prediction, "values": {"loss": loss}, "routings": []}

    def _fit_loss(self, answers_MTO: Tensor, steps, y_TO: Tensor, weight: Tensor) -> Tensor:
        """The mean of the members' losses, so that each of them learns for itself."""
        n_members, n_rows, _ = answers_MTO.shape
        if isinstance(self.criterion_, GaussianNLL):
            losses_MT = self.criterion_(*self.module_.mixture(answers_MTO, steps), y_TO)
        else:
            targets = y_TO.expand_as(answers_MTO).flatten(0, 1)
            losses_MT = self.criterion_(answers_MTO.flatten(0, 1), targets)
        return (losses_MT.view(n_members, n_rows).mT * weight.view(n_rows, -1)).mean()

    def _looks_now(self) -> bool:
        """Whether to look at the validation rows: seldom where epochs are short."""
        epoch, looks = len(self.history), self.plan.looks
        every = max(1, self.max_epochs // looks) if looks else 1
        return epoch % every == 1 % every or epoch == self.max_epochs

    def _auxiliary_losses(self, steps: list[Step], weight: Tensor) -> dict[str, Tensor]:
        losses = {
            term.name: term.weight
            * torch.stack([term.loss(s.routing, weight) for s in steps]).mean()
            for term in self.plan.auxiliary_losses
        }
        penalties = [
            (s.routing.reconstruction_BT * weight).mean()
            for s in steps
            if s.routing.reconstruction_BT is not None
        ]
        if penalties:
            losses["reconstruction"] = torch.stack(penalties).mean()
        return losses

    def _follow_schedule(self) -> None:
        if self.plan.scheduled:
            progress = self.step / max(self.n_steps - 1, 1)
            for group in self.optimizer_.param_groups:
                group["lr"] = self.plan.learning_rate * schedule(progress)
            for part in self.annealed:
                part.anneal(progress)
        self.step += 1


def count_dead(usage: list[list[float]]) -> int:
    """Experts of all layers with less than a tenth of an even share."""
    return sum(share < 0.1 / len(shares) for shares in usage for share in shares)


def _callbacks(plan: TrainingPlan, has_validation: bool) -> list[Callback]:
    callbacks = list(plan.callbacks)
    if has_validation:
        patience = plan.patience or plan.max_epochs + 1
        callbacks.append(
            EarlyStopping(patience=patience, threshold=0.0, load_best=True, sink=_silent)
        )
    return [*callbacks, *monitors(plan.verbose), *plan.monitors]


def _silent(*args, **kwargs) -> None:
    """Swallow a callback's message."""


def _overrides(callback: Callback, method: str) -> bool:
    return getattr(type(callback), method) is not getattr(Callback, method)


def _raised_by_callback(error: BaseException, callbacks: Sequence[Callback]) -> bool:
    """Whether a callback's own `on_epoch_end` raised, and not a signal inside of it."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    codes = {type(callback).on_epoch_end.__code__ for callback in callbacks}
    return traceback is not None and traceback.tb_frame.f_code in codes


def _warn_if_unfinished(history: list[dict[str, Any]], plan: TrainingPlan) -> None:
    *before, last = [epoch["train_loss"] for epoch in history] or [math.nan]
    if not before or len(history) < plan.max_epochs or not plan.scheduled:
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
