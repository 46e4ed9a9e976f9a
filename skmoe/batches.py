"""Rows that lie on the device, handed out in batches, and averages over them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skmoe.nn.base_routers import Routing

Batch = tuple[tuple[Tensor, Tensor], Tensor]
"""``((x, weight), y)``: the form in which skorch's callbacks find x and y."""

# Of so many batches, one is looked at for what its routings show.
BATCHES_PER_LOOK = 4


@dataclass(frozen=True)
class Rows:
    """Scaled rows on the device. Weights are relative to the mean weight.

    They are of shape ``(T,)``, or ``(T, M)`` where members of a network learn from different
    rows.
    """

    x: Tensor
    y: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def spread(self, most: int) -> "Rows":
        """At most so many of the rows, evenly spread over their order."""
        step = -(-len(self) // most)
        return Rows(self.x[::step], self.y[::step], self.weight[::step])


class Batches:
    """Batches of nearly equal size; all rows at once if they fit.

    Parameters
    ----------
    rows : Rows
        What to hand out.
    size : int
        Largest size of a batch.
    generator : torch.Generator or None
        Source of a new order for each pass; None keeps the order.
    """

    def __init__(self, rows: Rows, size: int, generator: torch.Generator | None):
        self.rows, self.generator = rows, generator
        self.n_batches = count_batches(len(rows), size)

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        rows = self.rows
        if self.n_batches == 1:
            yield (rows.x, rows.weight), rows.y
            return
        # Equal sizes rather than a short last batch, whose gradient would be mostly noise.
        for index in self._indices().tensor_split(self.n_batches):
            yield (rows.x[index], rows.weight[index]), rows.y[index]

    def _indices(self) -> Tensor:
        device = self.rows.x.device
        if self.generator is None:
            return torch.arange(len(self.rows), device=device)
        return torch.randperm(len(self.rows), generator=self.generator, device=device)


def of_rows(weight: Tensor) -> Tensor:
    """Weights of rows, ``(T,)``, also where members of a network have weights of their own."""
    return weight if weight.ndim == 1 else weight.mean(1)


def count_batches(n_rows: int, size: int) -> int:
    """Number of batches of at most `size` rows."""
    return max(1, math.ceil(n_rows / size))


class Tally:
    """Averages over an epoch, kept on the device until its end: no wait per batch.

    Routings are looked at in every few batches only, as that costs up to a tenth of a step.
    """

    def __init__(self):
        self.sums: dict[str, Tensor] = {}
        self.n_rows: dict[str, int] = {}
        self.n_batches = 0

    @torch.no_grad()
    def add(self, values: dict[str, Tensor], routings: list[Routing], batch: Batch) -> None:
        """Add a batch's values and what its routings show."""
        (_, weight), _ = batch
        weight = of_rows(weight)
        if routings and self.n_batches % BATCHES_PER_LOOK == 0:
            usage = torch.cat([routing.usage(weight) for routing in routings])
            entropy = torch.cat([gate_entropy(routing) for routing in routings])
            values = {**values, "usage": usage, "gate_entropy": entropy}
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value * len(weight)
            self.n_rows[name] = self.n_rows.get(name, 0) + len(weight)
        self.n_batches += 1

    def averages(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {name: (total / self.n_rows[name]).tolist() for name, total in self.sums.items()}


def gate_entropy(routing: Routing) -> Tensor:
    """Mean entropy of the scores in each block, as a share of that of a uniform choice."""
    total_BT1 = routing.scores_BTE.sum(-1, keepdim=True)  # not one, of sigmoids
    shares_BTE = routing.scores_BTE / total_BT1.clamp_min(torch.finfo(total_BT1.dtype).tiny)
    entropy_BT = torch.special.entr(shares_BTE).sum(-1)
    return entropy_BT.mean(-1) / math.log(max(routing.n_experts, 2))
