"""Steps that networks of one kind take together, on rows of their own.

Their weights are rows of one matrix, a gradient by hand or `torch.vmap` takes all of them
through the same operations, and the optimiser steps on the whole matrix. Learning rate, decay
and the norm that its gradient is clipped to are each network's own.
"""

from collections.abc import Hashable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from skmoe.batches import BATCHES_PER_LOOK, Rows, count_batches, entropies
from skmoe.embedded_rows import embedded, have_room, sight
from skmoe.kinds import Request
from skmoe.nn.base import Network
from skmoe.nn.base_gates import Gate
from skmoe.nn.hidden_layer import Room
from skmoe.nn.losses import FitLoss
from skmoe.nn.networks import MoENetwork
from skmoe.optimizer import schedule
from skmoe.plan import TrainingPlan
from skmoe.resident import ResidentEpochs, repeats_steps
from skmoe.shallow_gradient import ShallowGradient
from skmoe.stacked_objective import Objective, run
from skmoe.stacked_optimizer import StackedAdamW
from skmoe.stacked_rows import EpochMeans, StackedBatch, StackedRows


class StackedSteps:
    """The steps of M networks, and their best weights so far.

    Parameters
    ----------
    group : sequence of Request
        Of one kind. The weights of their networks become views of common ones.
    """

    resident: ResidentEpochs | None = None

    def __init__(self, group: Sequence[Request]):
        self.plan, self.plans = group[0].plan, [request.plan for request in group]
        self.networks = [request.network for request in group]
        self.generators = [request.generator for request in group]
        rows = [request.rows for request in group]
        self.n_batches = count_batches(len(rows[0]), self.plan.batch_size)
        self.step = 0
        self.is_known = all(request.is_known_by_hand for request in group)
        sights = [sight(network) for network in self.networks] if self.is_known else []
        self.embeds = self.is_known and have_room(self.networks, sights, rows)
        self.rows = self._stacked(rows, sights, self.n_batches)
        judged = [request.validation for request in group]
        self.validation = self._validation(judged, sights)
        decays = [plan.weight_decay for plan in self.plans]
        self.optimizer = StackedAdamW(self.networks, decays)
        self.best_RP: list[Tensor] = []
        self.best_of_others: list[list[Tensor]] = [[] for _ in group]
        self.room = Room()
        self._stack()

    def epoch(self) -> dict[str, list[Any]]:
        """Take the steps of an epoch; means over it, for each network."""
        if not self.is_known:
            for network in self.networks:
                network.train()
        if self.resident is not None:
            means = self.resident.run(self.generators, self.step - self.first_line)
            self.step += self.n_batches
            self.optimizer.n_steps += self.n_batches
        else:
            told, rates = EpochMeans(), self._rates(self.n_batches)
            for index, batch in enumerate(self.rows.batches(self.generators)):
                look = index % BATCHES_PER_LOOK == 0
                told.add(self._take_step(batch, rates[index], look), batch.sizes_M)
            means = told.means()
        lists = {name: mean.tolist() for name, mean in means.items()}
        if self.is_known:
            own = zip(lists["usage"], self.by_hand.counts, strict=True)
            lists["usage"] = [[usage[:count]] for usage, count in own]
        return lists

    def last_rate(self, m: int) -> float:
        """The learning rate of a network in the last step."""
        return self.plans[m].learning_rate * self._share(self.plans[m], self.step - 1)

    def losses(self) -> list[float]:
        """Of networks that are known by hand, the losses on their validation rows."""
        rows, criterion = cast(StackedRows, self.validation), self.plan.fit_loss.eval()
        totals = [
            self.judge.losses(batch.x_MTD, batch.y_MTO, batch.weight_MT) * batch.sizes_M
            for batch in rows.batches()
        ]
        criterion.train()
        n_rows_M = totals[0].new_tensor(rows.lengths)
        return (torch.stack(totals).sum(0) / n_rows_M).tolist()

    # Best weights, and what becomes of networks that end.

    @torch.no_grad()
    def remember(self, better: Sequence[bool]) -> None:
        """Keep the weights of these networks as their best ones so far."""
        weights_RP = self.optimizer.weights_RP
        if not self.best_RP:
            self.best_RP = [weights.clone() for weights in weights_RP]
        elif all(better):
            for best, weights in zip(self.best_RP, weights_RP, strict=True):
                best.copy_(weights)
        else:
            better_M1 = torch.tensor(better, device=self.rows.x.device)[:, None]
            piles = zip(self.optimizer.piles, self.best_RP, weights_RP, strict=True)
            for pile, best, weights in piles:
                torch.where(pile.spread(better_M1), weights, best, out=best)
        for m, network in enumerate(self.networks):
            if better[m]:
                self.best_of_others[m] = [value.clone() for value in self._others(network)]

    def _others(self, network: Network) -> list[Tensor]:
        """What changes in training beside weights that have a gradient."""
        if self.is_known:
            return [gate.log_temperature for gate in network.gates() if gate.is_annealed]
        return [tensor for _, tensor in _untrained(network)]

    @torch.no_grad()
    def recall(self, places: Sequence[int]) -> None:
        """Give networks their best weights again."""
        best = self._best()
        for m in places:
            named = dict(self.networks[m].named_parameters())
            for name, parts in zip(self.optimizer.stacked, best, strict=True):
                named[name].copy_(parts[m])
            others = zip(self._others(self.networks[m]), self.best_of_others[m], strict=True)
            for tensor, value in others:
                tensor.copy_(value)

    def _best(self) -> list[list[Tensor]]:
        """The best weights of each name, of each network."""
        blocks = zip(self.optimizer.piles, self.best_RP, strict=False)
        return [pile.parts(block.view(pile.shape)) for pile, block in blocks]

    def are_finite(self) -> list[bool]:
        """Whether all weights of each network are numbers."""
        lost_M = torch.zeros(len(self.networks), device=self.rows.x.device)
        for pile, weights in zip(self.optimizer.piles, self.optimizer.weights_RP, strict=True):
            lost_M += pile.norms((~weights.isfinite()).any(1).to(lost_M))
        return (lost_M == 0).tolist()

    def release(self, m: int) -> None:
        """Give a network tensors of its own again."""
        network = self.networks[m]
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.data = tensor.data.clone()

    @torch.no_grad()
    def keep(self, kept: Sequence[int]) -> None:
        """Go on with the networks at these places."""
        best = self._best()
        for name in ("plans", "networks", "generators", "best_of_others"):
            of_all = getattr(self, name)
            setattr(self, name, [of_all[m] for m in kept])
        self.rows.keep(kept)
        if self.validation is not None:
            self.validation.keep(kept)
        self.optimizer.keep(kept, self.networks)
        if best:
            self.best_RP = [torch.zeros_like(weights) for weights in self.optimizer.weights_RP]
            for parts, before in zip(self._best(), best, strict=True):
                for part, m in zip(parts, kept, strict=True):
                    part.copy_(before[m])
        self._stack()

    def close(self) -> None:
        """Give back what a device has recorded."""
        if self.resident is not None:
            self.resident.close()
            self.resident = None

    # How a step is taken.

    def _stack(self) -> None:
        """Let the gradient see the weights of all networks as one, and so their buffers."""
        self.close()
        annealed = [
            _annealed(*of_one) for of_one in zip(self.networks, self.plans, strict=True)
        ]
        self.annealed = [
            (plan, part)
            for plan, parts in zip(self.plans, annealed, strict=True)
            for part in parts
            if plan.scheduled
        ]
        if self.is_known:
            self.by_hand, self.judge = self._by_hand(self.room), self._by_hand(Room())
            counts = self.by_hand.counts
            self.choices_M = torch.tensor(counts, device=self.rows.x.device).log()
        else:
            self._stack_for_autograd()
        self.resident = self._resident_epochs()

    def _by_hand(self, room: Room) -> ShallowGradient:
        """The gradient of all networks, as known by hand."""
        maps = self.optimizer.maps()
        weights = {name: weight for name, (weight, _) in maps.items()}
        gradients = {name: gradient for name, (_, gradient) in maps.items()}
        networks = [cast(MoENetwork, network) for network in self.networks]
        losses = cast(FitLoss, self.plan.fit_loss), self.plan.auxiliary_losses
        return ShallowGradient(networks, weights, gradients, *losses, room, self.embeds)

    def _stack_for_autograd(self) -> None:
        self.parameters = {f"network.{k}": v for k, v in self.optimizer.stacked.items()}
        self.buffers = {}
        for own in zip(*(_untrained(network) for network in self.networks), strict=True):
            name = own[0][0]
            stack = torch.stack([tensor.detach() for _, tensor in own])
            self.buffers[f"network.{name}"] = stack
            for m, (_, tensor) in enumerate(own):
                tensor.data = stack[m]
        self.objective = Objective(self.networks[0], self.plan)

    def _resident_epochs(self) -> ResidentEpochs | None:
        """Epochs whose steps the device repeats by itself, from this step on."""
        device = self.rows.x.device
        if not repeats_steps(device) or not all(isinstance(x, Gate) for _, x in self.annealed):
            return None
        self.first_line = self.step
        last = max(plan.max_epochs for plan in self.plans) * self.n_batches
        lines = []
        for step, rates in enumerate(self._rates(last - self.step), self.step):
            temperatures = [
                gate.log_temperature_at(self._progress(plan, step))
                for plan, gate in self.annealed
            ]
            lines.append([*self.optimizer.line(rates, step + 1), *temperatures])
        table = torch.tensor(lines, dtype=torch.float64).to(device, self.rows.x.dtype)
        if self.is_known:  # each with memory that stays where it is
            self.gradients = {width: self._by_hand(Room()) for width in self.rows.widths}
        return ResidentEpochs(self.rows, table, self._take_resident_step)

    def _take_resident_step(
        self, batch: StackedBatch, line: Tensor, look: bool
    ) -> dict[str, Tensor]:
        numbers, temperatures = line.tensor_split([len(line) - len(self.annealed)])
        for (_, gate), temperature in zip(self.annealed, temperatures, strict=True):
            gate.log_temperature.copy_(temperature)
        if self.is_known:
            self.by_hand = self.gradients[batch.x_MTD.shape[1]]
        record = self._find_gradients(batch, look)
        self.optimizer.follow_line(numbers)
        return record

    def _take_step(
        self, batch: StackedBatch, rates: Sequence[float], look: bool
    ) -> dict[str, Tensor]:
        for plan, part in self.annealed:
            part.anneal(self._progress(plan, self.step))
        record = self._find_gradients(batch, look)
        self.optimizer.step(rates)
        self.step += 1
        return record

    def _find_gradients(self, batch: StackedBatch, look: bool) -> dict[str, Tensor]:
        """Fill in the gradients of all weights; what to keep a record of."""
        if not self.is_known:
            self.optimizer.zero_grad()
            tensors = batch.x_MTD, batch.y_MTO, batch.weight_MT
            losses, record = run(self.objective, self.parameters, self.buffers, tensors, look)
            losses.sum().backward()
            return record
        record = self.by_hand(batch.x_MTD, batch.y_MTO, batch.weight_MT).record()
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

    def _rates(self, n_steps: int) -> list[tuple[float, ...]]:
        """Learning rates of all networks, for each of the next steps."""
        steps = range(self.step, self.step + n_steps)
        # Most have as many epochs as others.
        shares = {
            plan.max_epochs: [self._share(plan, step) for step in steps]
            for plan in {plan.max_epochs: plan for plan in self.plans}.values()
        }
        columns = [[p.learning_rate * s for s in shares[p.max_epochs]] for p in self.plans]
        return list(zip(*columns, strict=True))

    def _share(self, plan: TrainingPlan, step: int) -> float:
        """Of its learning rate, what a network takes."""
        return schedule(self._progress(plan, step)) if plan.scheduled else 1.0

    def _progress(self, plan: TrainingPlan, step: int) -> float:
        """In [0, 1], through the training of a network."""
        return step / max(plan.max_epochs * self.n_batches - 1, 1)

    # Rows.

    def _validation(
        self, judged: Sequence[Rows | None], sights: Sequence[Hashable]
    ) -> StackedRows | None:
        """Rows to judge by, in batches of the size of those to learn from."""
        rows = [rows for rows in judged if rows is not None]
        if not rows or not self.is_known:
            return None
        size = max(self.rows.widths)
        n_batches = max(count_batches(len(part), size) for part in rows)
        return self._stacked(rows, sights, n_batches)

    def _stacked(
        self, all_rows: Sequence[Rows], sights: Sequence[Hashable], n_batches: int
    ) -> StackedRows:
        """Rows of all networks, as their layers see them if these have room."""
        if self.embeds:
            all_rows = embedded(self.networks, sights, all_rows)
        return StackedRows(all_rows, n_batches)


def _annealed(network: Network, plan: TrainingPlan) -> list[Any]:
    """Parts of a network that change with the progress of its training."""
    losses = (term.loss for term in plan.auxiliary_losses)
    gates = (gate for gate in network.gates() if gate.is_annealed)
    return [*gates, *(loss for loss in losses if hasattr(loss, "anneal"))]


def _untrained(network: Network) -> list[tuple[str, Tensor]]:
    """Buffers and frozen weights."""
    frozen = [(name, w) for name, w in network.named_parameters() if not w.requires_grad]
    return [*network.named_buffers(), *frozen]
