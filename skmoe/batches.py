"""Rows that lie on the device, handed out in batches, and averages over them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skmoe.nn.base_routers import Routing

Batch = tuple[tuple[Tensor, Tensor], Tensor]
"""``((x, weight), y)``: the form in which skorch's callbacks find x and y."""

# Values of x that are put in order at once: one call for many short batches.
GATHERED = 2**18
# Of so many batches, one is looked at for what its routings show.
BATCHES_PER_LOOK = 8


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
        return Rows(*(spread(part, most) for part in (self.x, self.y, self.weight)))


def spread(rows: Any, most: int) -> Any:
    """At most so many of the rows of an array or a tensor, evenly spread over their order."""
    return rows[:: max(1, -(-len(rows) // most))]


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
        size, n_longer = divmod(len(rows), self.n_batches)
        together = max(1, GATHERED // ((size + 1) * max(rows.x.shape[1], 1)))
        order, start = self._order(), 0
        for first in range(0, self.n_batches, together):
            sizes = [
                size + (batch < n_longer)
                for batch in range(first, min(first + together, self.n_batches))
            ]
            chosen = slice(start, start + sum(sizes))
            start = chosen.stop
            yield from self._cut(chosen if order is None else order[chosen], sizes)

    def _order(self) -> Tensor | None:
        if self.generator is None:
            return None
        device = self.rows.x.device
        return torch.randperm(len(self.rows), generator=self.generator, device=device)

    def _cut(self, chosen: Tensor | slice, sizes: list[int]) -> Iterator[Batch]:
        """Some rows in batches of these sizes."""
        x, weight, y = (
            values[chosen] if isinstance(chosen, slice) else values.index_select(0, chosen)
            for values in (self.rows.x, self.rows.weight, self.rows.y)
        )
        parts = zip(x.split(sizes), weight.split(sizes), y.split(sizes), strict=True)
        for x_part, weight_part, y_part in parts:
            yield (x_part, weight_part), y_part


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

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}
        self.n_rows: dict[str, list[int]] = {}
        self.n_batches = 0

    def add(
        self, values: dict[str, Tensor], look: Callable[[], list[Routing]], batch: Batch
    ) -> None:
        """Add a batch's values, and what its routings show if it is time for a look."""
        (_, weight), _ = batch
        n_rows = weight.shape[0]
        self._add(values, n_rows)
        if self.n_batches % BATCHES_PER_LOOK == 0 and (routings := look()):
            self._add(shown_by(routings, of_rows(weight)), n_rows)
        self.n_batches += 1

    def _add(self, values: dict[str, Tensor], n_rows: int) -> None:
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)
            self.n_rows.setdefault(name, []).append(n_rows)

    def averages(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {name: self._average(name).tolist() for name in self.values}

    def _average(self, name: str) -> Tensor:
        values = torch.stack(self.values[name])
        shares = torch.tensor(self.n_rows[name]).to(values)
        return torch.tensordot(shares / shares.sum(), values, 1)


@torch.no_grad()
def shown_by(routings: list[Routing], weight_T: Tensor) -> dict[str, Tensor]:
    """Usage of the experts and entropy of the gates, for each block."""
    return {
        "usage": torch.cat([routing.usage(weight_T) for routing in routings]),
        "gate_entropy": torch.cat([gate_entropy(routing) for routing in routings]),
    }


def gate_entropy(routing: Routing) -> Tensor:
    """Mean entropy of the scores in each block, as a share of that of a uniform choice."""
    if routing.n_experts == 1:
        return routing.scores_BTE.new_zeros(routing.scores_BTE.shape[0])
    return entropies(routing).mean(-1) / math.log(routing.n_experts)


def entropies(routing: Routing) -> Tensor:
    """Entropy of the scores for each row, ``(B, T)``."""
    total_BT1 = routing.scores_BTE.sum(-1, keepdim=True)  # not one, of sigmoids
    shares_BTE = routing.scores_BTE / total_BT1.clamp_min(torch.finfo(total_BT1.dtype).tiny)
    return torch.special.entr(shares_BTE).sum(-1)
