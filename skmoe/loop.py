"""The loop of a training: the only file that knows skorch, beside the callbacks in `monitors`.

skorch gives the loop, the history and the callbacks. What is ours: batches are slices of
tensors that lie on the device already (its data loader would cost several times the step
itself for nets of this size), losses carry sample weights and auxiliary terms, learning rate
and gate temperature follow a schedule by steps, and on a GPU steps are repeated by the device.
"""

import time
from collections.abc import Callable
from typing import Any, cast

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping
from torch import Tensor

from skmoe.batches import Batch, Batches, Rows, Tally, count_batches, of_rows, shown_by
from skmoe.checkpoint import tensors
from skmoe.course import Course
from skmoe.monitors import BestEpoch, monitors, overrides, raised_by_callback
from skmoe.nn.base import Network
from skmoe.nn.base_routers import Routing
from skmoe.nn.hidden_layer import Room
from skmoe.objective import auxiliary_losses, fit_loss, validation_loss
from skmoe.optimizer import FlatAdamW, load_arrays, optimizer_arrays
from skmoe.plan import TrainingPlan
from skmoe.resident import ResidentEpochs, repeats_steps
from skmoe.shallow_gradient import ShallowGradient, gradient_by_hand
from skmoe.short_memory import Parts
from skmoe.stacked_rows import StackedBatch, StackedRows

# On standardised targets the loss of saying nothing is 1: far above it, the fit is lost.
DIVERGED_LOSS = 1e4
# Validation rows that are looked at together, at least.
VALIDATION_BATCH = 2048
# What skorch's early stopping remembers.
EARLY_STOPPING = ("misses_", "dynamic_threshold_", "best_epoch_", "best_model_weights_")

Told = tuple[dict[str, Tensor], Callable[[], list[Routing]], Batch]
"""What a tally takes of a batch, or of a part of it."""
Done = tuple[float, Tensor, Told]
"""Of a batch, or of a part of it: its share of the rows, prediction, and what a tally takes."""


class Diverged(Exception):
    """The training loss is no longer a number, or far above that of a constant."""


class StopTraining(Exception):
    """A callback asked for the end of training."""


class Loop(NeuralNet):
    """skorch's loop over resident tensors."""

    def __init__(
        self,
        module: Network,
        plan: TrainingPlan,
        validation: Rows | None,
        generator: torch.Generator,
        optimizer_state: dict[str, Any] | None,
        restart: int,
    ):
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
        self.restart = restart
        self.room = Room()

    _default_callbacks: list[Any] = []

    @property
    def monitor(self) -> str:
        return "train_loss" if self.validation is None else "valid_loss"

    def is_measured(self, epoch: dict[str, Any]) -> bool:
        """Whether the monitored loss is of this epoch, not of one before it."""
        return self.validation is None or "valid_seconds" in epoch

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> "Loop":
        self.optimizer_ = FlatAdamW(
            self.module_,
            self.plan.learning_rate,
            self.plan.weight_decay,
            self.optimizer_state,
        )
        return self

    def on_train_begin(
        self, net: NeuralNet, X: Rows | None = None, y: None = None, **kwargs: Any
    ) -> None:
        super().on_train_begin(net, X=X, y=y, **kwargs)
        self.parts = Parts()
        for module in self.module_.modules():
            if hasattr(module, "generator"):  # gates with noise, and others that draw
                module.generator = self.generator
        parts = *self.module_.gates(), *(t.loss for t in self.plan.auxiliary_losses)
        resting = set(self.plan.at_rest)
        annealed = [p for p in parts if hasattr(p, "anneal") and p not in resting]
        n_steps = self.max_epochs * count_batches(len(cast(Rows, X)), self.batch_size)
        self.course = Course(self.plan, self.optimizer_, annealed, n_steps)
        # Callbacks that do nothing are not called: per batch, this would be half of the cost.
        self.listeners = {
            name: [cb for _, cb in self.callbacks_ if overrides(cb, name)]
            for name in ("on_batch_begin", "on_batch_end", "on_grad_computed")
        }
        self.resident = self._resident_epochs(cast(Rows, X))

    def on_train_end(
        self, net: NeuralNet, X: Rows | None = None, y: None = None, **kwargs: Any
    ) -> None:
        super().on_train_end(net, X=X, y=y, **kwargs)
        if self.resident is not None:
            self.resident.close()

    def _resident_epochs(self, rows: Rows) -> ResidentEpochs | None:
        """Epochs whose steps the device repeats by itself, if nothing comes in between."""
        if not repeats_steps(rows.x.device) or any(self.listeners.values()):
            return None
        table = self.course.table(rows.x.device)
        if table is None:
            return None
        rows_of_one = StackedRows([rows], count_batches(len(rows), self.batch_size))
        # Each with memory that stays where it is; and made now, as that waits for the device.
        self.gradients = {size: self._gradient_by_hand(Room()) for size in rows_of_one.widths}
        draws = any(getattr(module, "noise", 0) for module in self.module_.modules())
        generators = [self.generator] if draws else []
        return ResidentEpochs(rows_of_one, table, self._take_resident_step, generators)

    def notify(self, method_name: str, **kwargs: Any) -> None:
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt as stop:
            # skorch's callbacks stop a fit by raising what Ctrl-C raises.
            if raised_by_callback(stop, [cb for _, cb in self.callbacks_]):
                raise StopTraining from None
            raise
        if method_name == "on_epoch_end" and self.plan.checkpoint is not None:
            self.plan.checkpoint.write(self.progress)

    def epochs_done(self) -> list[dict[str, Any]]:
        """The history of whole epochs."""
        return [
            {key: value for key, value in epoch.items() if key != "batches"}
            for epoch in self.history
            if "train_loss" in epoch
        ]

    def progress(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        return {
            "restart": self.restart,
            "step": self.course.step,
            "weights": self.module_.state_dict(),
            "optimizer": optimizer_arrays(self.optimizer_),
            "generator": self.generator.get_state(),
            "history": self.epochs_done(),
            "early_stopping": [
                {name: getattr(stopping, name) for name in EARLY_STOPPING}
                for stopping in self._early_stopping()
            ],
        }

    def go_on_from(self, progress: dict[str, Any]) -> None:
        """Take up `progress`, at the start of the epoch after it."""
        self.course.step = progress["step"]
        self.module_.load_state_dict(tensors(progress["weights"]))
        load_arrays(self.optimizer_, progress["optimizer"])
        self.generator.set_state(torch.tensor(progress["generator"]))
        self.history.extend({**epoch, "batches": []} for epoch in progress["history"])
        for stopping, state in zip(
            self._early_stopping(), progress["early_stopping"], strict=True
        ):
            vars(stopping).update(state)
            if stopping.best_model_weights_ is not None:
                stopping.best_model_weights_ = tensors(stopping.best_model_weights_)

    def _early_stopping(self) -> list[EarlyStopping]:
        return [cb for _, cb in self.callbacks_ if isinstance(cb, EarlyStopping)]

    def check_data(self, X: Rows, y: None = None) -> None:
        """Rows were checked by the estimator."""

    def get_split_datasets(
        self, X: Rows, y: None = None, **fit_params: Any
    ) -> tuple[Rows, Rows | None]:
        return X, self.validation

    def get_iterator(self, dataset: Rows, training: bool = False) -> Batches:
        size = self.batch_size if training else max(self.batch_size, VALIDATION_BATCH)
        return Batches(dataset, size, self.generator if training else None)

    def run_single_epoch(
        self,
        iterator: Batches | None,
        training: bool,
        prefix: str,
        step_fn: Callable[..., dict[str, Any]],
        **fit_params: Any,
    ) -> None:
        if iterator is None:
            return
        if not training and not looks_now(len(self.history), self.plan):
            self.history.record("valid_loss", self.history[-2, "valid_loss"])
            return
        started = time.perf_counter()
        epochs = len(self.history) - 1, self.max_epochs
        if training and self.plan.before_epoch is not None:
            self.plan.before_epoch(self.module_, *epochs)
        self._set_training(training)
        for module in self.plan.at_rest:
            module.eval()
        if training and self.resident is not None:
            averages = self._resident_averages(self.resident)
        else:
            averages = self._averages(iterator, training, step_fn)
        if training and self.plan.after_epoch is not None:
            self.plan.after_epoch(self.module_, *epochs)
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

    def _averages(
        self, iterator: Batches, training: bool, step_fn: Callable[..., dict[str, Any]]
    ) -> dict[str, Any]:
        """Over an epoch, batch by batch."""
        if training:
            self.by_hand = self._gradient_by_hand(self.room)
        tally = Tally()
        for batch in iterator:
            for callback in self.listeners["on_batch_begin"]:
                callback.on_batch_begin(self, batch=batch, training=training)
            step = step_fn(batch)
            for values, routings, part in step.pop("told"):
                tally.add(values, routings, part)
            for callback in self.listeners["on_batch_end"]:
                callback.on_batch_end(self, batch=batch, training=training, **step)
        return tally.averages()

    def _gradient_by_hand(self, room: Room) -> ShallowGradient | None:
        given = self.module_, self.criterion_, self.plan.auxiliary_losses
        return gradient_by_hand(*given, room)

    def _resident_averages(self, epochs: ResidentEpochs) -> dict[str, Any]:
        """Over an epoch that the device goes through by itself."""
        means = epochs.run([self.generator], self.course.step)
        self.course.skip(epochs.rows.n_batches)
        return {name: mean[0].tolist() for name, mean in means.items()}

    def _take_resident_step(
        self, batch: StackedBatch, line: Tensor, look: bool
    ) -> dict[str, Tensor]:
        x, y, weight = batch.x_MTD[0], batch.y_MTO[0], batch.weight_MT[0]
        self.course.follow_line(line)
        self.by_hand = self.gradients[len(y)]
        parts = self.parts.of(((x, weight), y), self._find_gradients, self._begin_gradients)
        self.optimizer_.step()
        return {name: mean.unsqueeze(0) for name, mean in _means(parts, look).items()}

    def train_step(self, batch: Batch, **fit_params: Any) -> dict[str, Any]:
        self.course.follow()
        parts = self.parts.of(batch, self._find_gradients, self._begin_gradients)
        for callback in self.listeners["on_grad_computed"]:
            named = list(self.get_all_learnable_params())
            callback.on_grad_computed(self, named_parameters=named, batch=batch, training=True)
        self.optimizer_.step()
        return _together(parts)

    def _begin_gradients(self) -> None:
        # One that is found by hand is written over what was there.
        if self.by_hand is None or self.parts.n > 1:
            self.optimizer_.zero_grad()

    def _find_gradients(self, batch: Batch, share: float) -> Done:
        """Add up the gradients of a batch, or of a part of it."""
        (x, weight), y = batch
        if share == 1 and (by_hand := self.by_hand) is not None:
            found = by_hand(x[None], y[None], weight.view(1, -1))
            values = {name: value_B[0] for name, value_B in found.record().items()}
            return share, found.predictions_BTO[0], (values, lambda: [by_hand.routing()], batch)
        answers, steps = self.module_.answers(x)
        loss = fit_loss(self.criterion_, self.module_, answers, steps, y, weight)
        extra = auxiliary_losses(self.plan.auxiliary_losses, steps, of_rows(weight))
        total = sum(extra.values(), loss)
        (total if share == 1 else share * total).backward()
        values = {f"{name}_loss": value.detach() for name, value in extra.items()}
        told = (
            {"loss": loss.detach(), **values},
            lambda: [step.routing for step in steps],
            batch,
        )
        return share, answers.detach().mean(0), told

    @torch.no_grad()
    def validation_step(self, batch: Batch, **fit_params: Any) -> dict[str, Any]:
        return _together(self.parts.of(batch, self._validate, lambda: None))

    def _validate(self, batch: Batch, share: float) -> Done:
        (x, weight), y = batch
        loss, prediction = validation_loss(self.criterion_, self.module_, x, y, weight)
        return share, prediction, ({"loss": loss}, list, batch)


def _means(parts: list[Done], look: bool) -> dict[str, Tensor]:
    """What a tally takes of a batch, as means over its parts."""
    means: dict[str, Tensor] = {}
    for share, _, (values, look_at_routings, batch) in parts:
        if look and (routings := look_at_routings()):
            values = values | shown_by(routings, of_rows(batch[0][1]))
        for name, value in values.items():
            part = value if share == 1 else share * value
            means[name] = means[name] + part if name in means else part
    return means


def _together(parts: list[Done]) -> dict[str, Any]:
    """What a step tells, of the parts of its batch."""
    if len(parts) == 1:
        (_, prediction, told), *_ = parts
        return {"loss": told[0]["loss"], "y_pred": prediction, "told": [told]}
    losses = [share * told[0]["loss"] for share, _, told in parts]
    return {
        "loss": sum(losses[1:], losses[0]),
        "y_pred": torch.cat([prediction for _, prediction, _ in parts]),
        "told": [told for *_, told in parts],
    }


def looks_now(epoch: int, plan: TrainingPlan) -> bool:
    """Whether to look at the validation rows: seldom where epochs are short."""
    every = max(1, plan.max_epochs // plan.looks) if plan.looks else 1
    return epoch % every == 1 % every or epoch == plan.max_epochs


def count_dead(usage: list[list[float]]) -> int:
    """Experts of all layers with less than a tenth of an even share."""
    return sum(share < 0.1 / len(shares) for shares in usage for share in shares)


def _callbacks(plan: TrainingPlan, has_validation: bool) -> list[Callback]:
    callbacks = list(plan.callbacks)
    if has_validation:
        patience = plan.patience or plan.max_epochs + 1
        callbacks.append(
            BestEpoch(
                plan.first_best, patience=patience, threshold=0.0, load_best=True, sink=_silent
            )
        )
    return [*callbacks, *monitors(plan.verbose), *plan.monitors]


def _silent(*args: Any, **kwargs: Any) -> None:
    """Swallow a callback's message."""
