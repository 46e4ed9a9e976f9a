"""Many networks of the same kind, trained as one program.

A step of a small network is many short operations; what they cost is mostly the calls. Networks
of one shape take their steps together: their weights are rows of one matrix, a gradient by hand
or `torch.vmap` takes all of them through the same operations, and the optimiser steps on the
whole matrix. Each network keeps what is its own: rows, batches and their order, learning rate,
decay, the norm its gradient is clipped to, the moment it stops. So it ends as it would alone,
up to rounding. Where the gradient is known by hand, they may have more or fewer experts, of
which more or fewer are asked, and a few rows more or less.
"""

import math
import time
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from operator import mul
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from skmoe.batches import (
    BATCHES_PER_LOOK,
    Batches,
    Rows,
    count_batches,
    entropies,
    of_rows,
    shown_by,
)
from skmoe.gradients import gradients
from skmoe.kinds import Request, is_known_by_hand, kind_of
from skmoe.loop import DIVERGED_LOSS, VALIDATION_BATCH, Diverged, count_dead, looks_now
from skmoe.nn.base import Network
from skmoe.nn.base_gates import Gate
from skmoe.nn.losses import FitLoss
from skmoe.nn.networks import MoENetwork
from skmoe.nn.soft_mixture import Room
from skmoe.objective import auxiliary_losses, fit_loss, validation_loss
from skmoe.optimizer import schedule
from skmoe.plan import TrainingPlan, TrainingResult
from skmoe.resident import ResidentEpochs, repeats_steps
from skmoe.shallow_gradient import ShallowGradient
from skmoe.stacked_optimizer import StackedAdamW
from skmoe.stacked_rows import StackedBatch, StackedRows
from skmoe.threads import threads
from skmoe.training import train_alone

# Values of rows as the layers see them that are kept throughout a training.
EMBEDDED = 2**27


def train_requests(requests: Sequence[Request]) -> None:
    """Train all networks in place, those of the same kind together."""
    groups: dict[Hashable, list[Request]] = {}
    for request in requests:
        groups.setdefault(kind_of(request), []).append(request)
    for group in groups.values():
        started = time.perf_counter()
        with gradients(), threads(sum(len(request.rows) for request in group)):
            _train_group(group)
        for request in group:
            request.seconds = (time.perf_counter() - started) / len(group)


def _train_group(group: list[Request]) -> None:
    if len(group) > 1 and _Program.can_run(group):
        _Program(group).run()
        for request in group:
            request.together = len(group)
        return
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


class _Objective(nn.Module):
    """A network with its losses, so that one call of it is a step's forward pass."""

    def __init__(self, network: Network, plan: TrainingPlan):
        super().__init__()
        self.network, self.criterion = network, plan.fit_loss
        self.terms = plan.auxiliary_losses

    def forward(
        self, x: Tensor, y: Tensor, weight: Tensor, look: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to follow, and what to keep a record of."""
        answers, steps = self.network.answers(x)
        loss = fit_loss(self.criterion, self.network, answers, steps, y, weight)
        extra = auxiliary_losses(self.terms, steps, of_rows(weight))
        record = {"loss": loss, **{f"{name}_loss": value for name, value in extra.items()}}
        if look:
            record |= shown_by([step.routing for step in steps], of_rows(weight))
        return sum(extra.values(), loss), {name: v.detach() for name, v in record.items()}


@dataclass(eq=False)
class _Model:
    """One of the networks, and how its fit goes."""

    request: Request
    history: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0
    best_state: dict[str, Tensor] | None = None
    misses: int = 0

    def __post_init__(self) -> None:
        self.network, self.rows = self.request.network, self.request.rows
        self.plan = self.request.plan
        gates = [g for g in self.network.gates() if g.is_annealed]
        losses = (term.loss for term in self.plan.auxiliary_losses)
        self.annealed: list[Any] = [*gates, *(x for x in losses if hasattr(x, "anneal"))]

    def judge(self, loss: float) -> bool:
        """Take note of a validation loss; whether it has been too long without a better one."""
        if loss < self.best_loss:
            self.best_loss, self.best_epoch, self.misses = loss, len(self.history), 0
            state = self.network.state_dict()
            self.best_state = {name: tensor.clone() for name, tensor in state.items()}
        else:
            self.misses += 1
        return self.misses == self.plan.patience

    def finish(self, optimizer_state: dict[str, Any]) -> None:
        """Weights of the best epoch, as tensors of the network's own; and the result."""
        self.release()
        if self.best_state is not None and self.best_epoch != len(self.history):
            self.network.load_state_dict(self.best_state)
        if not all(bool(weight.isfinite().all()) for weight in self.network.parameters()):
            self.request.outcome = Diverged()
            return
        monitor = "train_loss" if self.request.validation is None else "valid_loss"
        losses = [epoch[monitor] for epoch in self.history]
        best = min(losses, default=math.nan)
        self.request.outcome = TrainingResult(self.history, best, optimizer_state)

    def release(self) -> None:
        """Give the network tensors of its own again."""
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            tensor.data = tensor.data.clone()


class _Program:
    """The training of networks of one kind."""

    def __init__(self, group: Sequence[Request]):
        self.models = [_Model(request) for request in group]
        first = group[0]
        self.plan = first.plan
        self.n_batches = count_batches(len(first.rows), self.plan.batch_size)
        self.step = 0
        self.is_known = all(is_known_by_hand(request) for request in group)
        self.embeds = self.is_known and _have_room(group)
        self.rows = self._stacked([request.rows for request in group], self.n_batches)
        self.validation = self._validation() if self.is_known else None
        decays = [model.plan.weight_decay for model in self.models]
        self.optimizer = StackedAdamW([model.network for model in self.models], decays)
        self.room = Room()
        self.stack()

    @staticmethod
    def can_run(group: Sequence[Request]) -> bool:
        """Whether the parts of these networks can be run side by side: some draw numbers."""
        if all(is_known_by_hand(request) for request in group):
            return True
        probe = _Objective(group[0].network.train(), group[0].plan)
        weights, buffers = (
            {name: tensor.detach()[None].clone() for name, tensor in named}
            for named in (probe.named_parameters(), probe.named_buffers())
        )
        # A batch of the usual size: with more rows, few experts are asked in another way.
        batches = Batches(group[0].rows, group[0].plan.batch_size, None)
        (x, weight), y = next(iter(batches))
        try:
            # What has no rule to be run side by side fails, or warns that it is slow.
            with torch.no_grad(), warnings.catch_warnings(action="error"):
                _run(probe, weights, buffers, (x[None], y[None], weight[None]), look=True)
        except (RuntimeError, NotImplementedError, UserWarning):
            return False
        return True

    resident: ResidentEpochs | None = None

    def stack(self) -> None:
        """Let autograd see the weights of all models as one, and so their buffers."""
        self.close()
        self.by_hand = None
        if self.is_known:
            self.by_hand, self.judge = self._by_hand(self.room), self._by_hand(Room())
            counts = self.by_hand.counts
            self.choices_M = torch.tensor(counts, device=self.rows.x.device).log()
        else:
            self._stack_for_autograd()
        self.resident = self._resident_epochs()

    def _stack_for_autograd(self) -> None:
        networks = [model.network for model in self.models]
        self.parameters = {f"network.{k}": v for k, v in self.optimizer.stacked.items()}
        self.buffers = {}
        for own in zip(*(_untrained(network) for network in networks), strict=True):
            name = own[0][0]
            stack = torch.stack([tensor.detach() for _, tensor in own])
            self.buffers[f"network.{name}"] = stack
            for m, (_, tensor) in enumerate(own):
                tensor.data = stack[m]
        self.objective = _Objective(networks[0], self.plan)

    def close(self) -> None:
        """Give back what a device has recorded."""
        if self.resident is not None:
            self.resident.close()

    def _resident_epochs(self) -> ResidentEpochs | None:
        """Epochs whose steps the device repeats by itself, from this step on."""
        device = self.rows.x.device
        gates = [(model, gate) for model in self.models for gate in model.annealed]
        if not repeats_steps(device) or not all(isinstance(gate, Gate) for _, gate in gates):
            return None
        self.gates = [gate for _, gate in gates if self.plan.scheduled]
        last = max(model.plan.max_epochs for model in self.models) * self.n_batches
        lines = []
        for step in range(self.step, last):
            rates = [self._rate(model, step) for model in self.models]
            temperatures = [
                gate.log_temperature_at(self._progress(model, step))
                for model, gate in gates[: len(self.gates)]
            ]
            lines.append([*self.optimizer.line(rates, step + 1), *temperatures])
        self.first_line = self.step
        table = torch.tensor(lines, dtype=torch.float64).to(device, self.rows.x.dtype)
        if self.is_known:  # each with memory that stays where it is
            self.gradients = {width: self._by_hand(Room()) for width in self.rows.widths}
        return ResidentEpochs(self.rows, table, self._take_resident_step)

    def _take_resident_step(
        self, batch: StackedBatch, line: Tensor, look: bool
    ) -> dict[str, Tensor]:
        numbers, temperatures = line.tensor_split([len(line) - len(self.gates)])
        for gate, temperature in zip(self.gates, temperatures, strict=True):
            gate.log_temperature.copy_(temperature)
        if self.is_known:
            self.by_hand = self.gradients[batch.x_MTD.shape[1]]
        record = self._find_gradients(batch, look)
        self.optimizer.follow_line(numbers)
        return record

    def _by_hand(self, room: Room) -> ShallowGradient:
        """The gradient of all networks, as known by hand."""
        maps = self.optimizer.maps()
        weights = {name: weight for name, (weight, _) in maps.items()}
        gradients = {name: gradient for name, (_, gradient) in maps.items()}
        networks = [cast(MoENetwork, model.network) for model in self.models]
        losses = cast(FitLoss, self.plan.fit_loss), self.plan.auxiliary_losses
        return ShallowGradient(networks, weights, gradients, *losses, room, self.embeds)

    def _validation(self) -> StackedRows | None:
        """Rows to judge by, in batches of the size of those to learn from."""
        judged = [model.request.validation for model in self.models]
        rows = [rows for rows in judged if rows is not None]
        if not rows:
            return None
        size = max(self.rows.widths)
        return self._stacked(rows, max(count_batches(len(part), size) for part in rows))

    def _stacked(self, all_rows: Sequence[Rows], n_batches: int) -> StackedRows:
        """Rows of all models, as their layers see them if these have room."""
        if self.embeds:
            all_rows = [
                _embedded(cast(MoENetwork, model.network), rows)
                for model, rows in zip(self.models, all_rows, strict=True)
            ]
        return StackedRows(all_rows, n_batches)

    def run(self) -> None:
        for epoch in count(1):
            self._train_epoch(epoch)
            losses = self._validation_losses(epoch)
            stopped = {
                model
                for model, loss in zip(self.models, losses, strict=True)
                if self._has_ended(model, epoch, loss)
            }
            if stopped:
                self._let_go(stopped)
            if not self.models:
                self.close()
                return

    def _train_epoch(self, epoch: int) -> None:
        started = time.perf_counter()
        for model in self.models:
            model.network.train()
        averages = {name: mean.tolist() for name, mean in self._averages().items()}
        seconds = (time.perf_counter() - started) / len(self.models)
        for m, model in enumerate(self.models):
            own = {name: values[m] for name, values in averages.items()}
            if self.by_hand is not None:
                own["usage"] = [own["usage"][: self.by_hand.counts[m]]]
            entry = {"epoch": epoch, "train_loss": own.pop("loss"), **own}
            entry["dead_experts"] = count_dead(own["usage"])
            entry["learning_rate"] = self._rate(model, self.step - 1)
            model.history.append({**entry, "train_seconds": seconds})

    def _averages(self) -> dict[str, Tensor]:
        """Over an epoch, for each model."""
        generators = [model.request.generator for model in self.models]
        if self.resident is not None:
            means = self.resident.run(generators, self.step - self.first_line)
            self.step += self.n_batches
            self.optimizer.n_steps += self.n_batches
            return means
        sums: dict[str, Tensor] = {}
        n_rows: dict[str, Tensor] = {}
        for index, batch in enumerate(self.rows.batches(generators)):
            look = index % BATCHES_PER_LOOK == 0
            for name, value in self._take_step(batch, look).items():
                size = batch.sizes_M.view(-1, *[1] * (value.ndim - 1))
                sums[name] = sums.get(name, 0) + value * size
                n_rows[name] = n_rows.get(name, 0) + size
        return {name: total / n_rows[name] for name, total in sums.items()}

    def _take_step(self, batch: StackedBatch, look: bool) -> dict[str, Tensor]:
        if self.plan.scheduled:
            for model in self.models:
                for part in model.annealed:
                    part.anneal(self._progress(model, self.step))
        record = self._find_gradients(batch, look)
        self.optimizer.step([self._rate(model, self.step) for model in self.models])
        self.step += 1
        return record

    def _find_gradients(self, batch: StackedBatch, look: bool) -> dict[str, Tensor]:
        """Fill in the gradients of all weights; what to keep a record of."""
        if self.by_hand is None:
            self.optimizer.zero_grad()
            tensors = batch.x_MTD, batch.y_MTO, batch.weight_MT
            losses, record = _run(self.objective, self.parameters, self.buffers, tensors, look)
            losses.sum().backward()
            return record
        by_hand = self.by_hand(batch.x_MTD, batch.y_MTO, batch.weight_MT)
        record = by_hand.record()
        if look:
            routing = self.by_hand.routing()
            record["usage"] = routing.usage(batch.weight_MT)
            record["gate_entropy"] = self._entropy(entropies(routing), batch.share_MT)
        return record

    def _entropy(self, entropies_MT: Tensor, share_MT: Tensor | None) -> Tensor:
        """Mean entropy of the gates, as a share of that of a uniform choice."""
        means = entropies_MT.mean(1) if share_MT is None else (entropies_MT * share_MT).sum(1)
        # One expert leaves no choice.
        return torch.where(self.choices_M > 0, means / self.choices_M, 0.0).unsqueeze(1)

    def _rate(self, model: _Model, step: int) -> float:
        share = schedule(self._progress(model, step)) if self.plan.scheduled else 1.0
        return model.plan.learning_rate * share

    def _progress(self, model: _Model, step: int) -> float:
        """In [0, 1], through the training of a model."""
        n_steps = model.plan.max_epochs * self.n_batches
        return step / max(n_steps - 1, 1)

    def _validation_losses(self, epoch: int) -> Sequence[float | None]:
        """Those of all models that are looked at now."""
        judged = {model for model in self.models if looks_now(epoch, model.plan)}
        nothing = self.models[0].request.validation is None
        if nothing or not judged:
            return [None] * len(self.models)
        started = time.perf_counter()
        if self.validation is not None:
            losses = self._losses_by_hand(self.validation)
        else:
            losses = [_mean_validation_loss(model) for model in self.models]
        seconds = (time.perf_counter() - started) / len(self.models)
        for model in judged:
            model.history[-1]["valid_seconds"] = seconds
        return [
            loss if model in judged else None
            for model, loss in zip(self.models, losses, strict=True)
        ]

    def _losses_by_hand(self, rows: StackedRows) -> list[float]:
        criterion = self.plan.fit_loss.eval()
        totals = [
            self.judge.losses(batch.x_MTD, batch.y_MTO, batch.weight_MT) * batch.sizes_M
            for batch in rows.batches()
        ]
        criterion.train()
        n_rows_M = totals[0].new_tensor(rows.lengths)
        return (torch.stack(totals).sum(0) / n_rows_M).tolist()

    def _has_ended(self, model: _Model, epoch: int, loss: float | None) -> bool:
        """Whether a model diverged, has done all epochs, or hardly gets better."""
        if not model.history[-1]["train_loss"] < DIVERGED_LOSS:
            model.request.outcome = Diverged()
            return True
        waits_in_vain = False
        if model.request.validation is not None:
            if loss is None:
                loss = model.history[-2]["valid_loss"] if epoch > 1 else math.nan
            model.history[-1]["valid_loss"] = loss
            waits_in_vain = model.judge(loss)
        return waits_in_vain or epoch == model.plan.max_epochs

    def _let_go(self, stopped: set[_Model]) -> None:
        """End these models' fits, and go on with the others."""
        states = self.optimizer.arrays()
        for model, state in zip(self.models, states, strict=True):
            if model not in stopped:
                continue
            if isinstance(model.request.outcome, Diverged):
                model.release()
            else:
                model.finish(state)
        kept = [m for m, model in enumerate(self.models) if model not in stopped]
        self.models = [self.models[m] for m in kept]
        if self.models:
            self.rows.keep(kept)
            if self.validation is not None:
                self.validation.keep(kept)
            self.optimizer.keep(kept, [model.network for model in self.models])
            self.stack()


def _have_room(group: Sequence[Request]) -> bool:
    """Whether what the layers see of all rows fits into memory."""
    widths = [cast(MoENetwork, request.network).embedding.output_dim for request in group]
    lengths = [len(request.rows) for request in group]
    return sum(map(mul, widths, lengths)) <= EMBEDDED


@torch.no_grad()
def _embedded(network: MoENetwork, rows: Rows) -> Rows:
    """Rows as the layers see them."""
    return replace(rows, x=network.embedding(network.on_axes(rows.x)))


def _run(
    objective: nn.Module,
    parameters: dict[str, Tensor],
    buffers: dict[str, Tensor],
    batch: tuple[Tensor, ...],
    look: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses of all models, and their records."""

    def one(
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        x: Tensor,
        y: Tensor,
        weight: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return functional_call(objective, (parameters, buffers), (x, y, weight, look))

    return torch.vmap(one)(parameters, buffers, *batch)


def _untrained(network: Network) -> list[tuple[str, Tensor]]:
    """Buffers and frozen weights."""
    frozen = [(name, w) for name, w in network.named_parameters() if not w.requires_grad]
    return [*network.named_buffers(), *frozen]


@torch.no_grad()
def _mean_validation_loss(model: _Model) -> float:
    network, criterion = model.network.eval(), model.plan.fit_loss.eval()
    validation = cast(Rows, model.request.validation)
    total = torch.zeros(())
    for (x, weight), y in Batches(
        validation, max(model.plan.batch_size, VALIDATION_BATCH), None
    ):
        loss, _ = validation_loss(criterion, network, x, y, weight)
        total = total + loss * len(x)
    criterion.train()
    return float(total) / len(validation)
