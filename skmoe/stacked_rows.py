"""Rows of several models, handed out side by side.

Each model has rows, batches and an order of its own, those that it would have alone. Models may
have unequal numbers of rows, as long as they have as many batches: shorter batches are filled
up with rows that count for nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skmoe.batches import Rows


class StackedBatch(NamedTuple):
    """A batch of each of M models."""

    x_MTD: Tensor
    y_MTO: Tensor
    weight_MT: Tensor
    """Such that means over T are means over a model's own rows."""
    share_MT: Tensor | None
    """What a row counts in a mean; None if all count the same."""
    sizes_M: Tensor
    """Rows of each model's own."""


class EpochMeans:
    """Means over an epoch of what its batches tell, of each model's own rows."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.n_rows: dict[str, Tensor] = {}

    def clear(self) -> None:
        """Start from nothing, in the same memory."""
        for total in (*self.sums.values(), *self.n_rows.values()):
            total.zero_()

    def add(self, told: dict[str, Tensor], sizes_M: Tensor) -> None:
        """Means over a batch, with the models on their first axis, and its rows."""
        for name, mean in told.items():
            sizes = sizes_M.view(-1, *[1] * (mean.ndim - 1))
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(mean)
                self.n_rows[name] = torch.zeros_like(sizes)
            self.sums[name].addcmul_(mean, sizes.to(mean.dtype))
            self.n_rows[name].add_(sizes)

    def means(self) -> dict[str, Tensor]:
        """Of all that was added."""
        return {name: total / self.n_rows[name] for name, total in self.sums.items()}


class StackedRows:
    """Rows of M models in nearly equal batches, as `Batches` would give them to each.

    Parameters
    ----------
    all_rows : sequence of Rows
        Of each model.
    n_batches : int
        Number of batches.
    """

    def __init__(self, all_rows: Sequence[Rows], n_batches: int):
        # Models that learn from the very same rows share them.
        places: dict[tuple[Any, ...], int] = {}
        different, stop, self.starts = list[tuple[Tensor, ...]](), 0, list[int]()
        for rows in all_rows:
            parts = rows.x, rows.y, rows.weight
            key = tuple(map(id, parts))
            if key not in places:
                places[key], stop = stop, stop + len(rows)
                different.append(parts)
            self.starts.append(places[key])
        self.x, self.y, self.weight = (
            torch.cat(column) if len(column) > 1 else column[0]
            for column in zip(*different, strict=True)
        )
        self.lengths, self.n_batches = [len(rows) for rows in all_rows], n_batches
        self._plan()

    def keep(self, kept: Sequence[int]) -> None:
        """Go on with the models at these places."""
        self.lengths = [self.lengths[m] for m in kept]
        self.starts = [self.starts[m] for m in kept]
        self._plan()

    def _plan(self) -> None:
        """Where in its order each model finds its batches; what fills them up counts zero."""
        device, n_batches = self.x.device, self.n_batches
        lengths_M = torch.tensor(self.lengths)
        batches_B1 = torch.arange(n_batches)[:, None]
        size_M, longer_M = lengths_M // n_batches, lengths_M % n_batches
        sizes_BM = size_M + (batches_B1 < longer_M)
        starts_BM = size_M * batches_B1 + torch.minimum(batches_B1, longer_M)
        self.widths = sizes_BM.amax(1).tolist()
        ranks_T = torch.arange(max(self.widths))
        places_BMT = starts_BM[..., None] + ranks_T
        counts_BMT = ranks_T < sizes_BM[..., None]
        places_BMT = torch.minimum(places_BMT, lengths_M[:, None] - 1).clamp_min(0)
        self.are_full = (sizes_BM == sizes_BM[:, :1]).all(1).tolist()
        # All orders stand one after the other.
        places_BMT += (lengths_M.cumsum(0) - lengths_M)[:, None]
        self.places_BMT = places_BMT.to(device)
        self.sizes_BM = sizes_BM.to(device, self.x.dtype)
        self.share_BMT = (counts_BMT / sizes_BM.clamp_min(1)[..., None]).to(self.sizes_BM)

    def batches(
        self, generators: Sequence[torch.Generator | None] | None = None
    ) -> Iterator[StackedBatch]:
        """One batch of each after the other, in the order that its generator draws."""
        index_BMT = self.index(generators or [None] * len(self.lengths))
        for b, shape in enumerate(self.shapes):
            yield self.batch(index_BMT[b], self.share_BMT[b], self.sizes_BM[b], *shape)

    @property
    def shapes(self) -> list[tuple[int, bool]]:
        """Of each batch, its rows, and whether these are of all models their own."""
        return list(zip(self.widths, self.are_full, strict=True))

    def batch(
        self, index_MT: Tensor, share_MT: Tensor, sizes_M: Tensor, width: int, is_full: bool
    ) -> StackedBatch:
        """The batch of these rows of all."""
        index_N = index_MT[:, :width].flatten()
        x, y, weight = (
            of_all.index_select(0, index_N).unflatten(0, (-1, width))
            for of_all in (self.x, self.y, self.weight)
        )
        if is_full:
            return StackedBatch(x, y, weight, None, sizes_M)
        share_MT = share_MT[:, :width]
        return StackedBatch(x, y, weight * (share_MT * width), share_MT, sizes_M)

    def index(self, generators: Sequence[torch.Generator | None]) -> Tensor:
        """Which of all rows stands where, ``(B, M, T)``, in orders that these draw."""
        device = self.x.device
        orders = []
        for n, start, generator in zip(self.lengths, self.starts, generators, strict=True):
            if generator is None or self.n_batches == 1:
                order = torch.arange(n, device=device)
            else:
                order = torch.randperm(n, generator=generator, device=device)
            orders.append(order + start)
        places_N = self.places_BMT.flatten()
        return torch.cat(orders).index_select(0, places_N).view(self.places_BMT.shape)
