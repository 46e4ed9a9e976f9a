"""Rows sorted by the expert that they ask, padded in a few tiers.

A batched product needs as many rows of each expert. Were all experts padded to the busiest one,
memory would grow with the number of experts, however few rows there are. So the first rows of
all experts make up a tier; of those experts that have more, the next rows make up another one,
and so on. Each tier ends where most of its experts have no row left.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor

# A tier ends where at most this share of its experts has rows left.
LEFT = 0.25
# What the calls of a tier cost, in multiply-adds that would take as long (measured on a CPU,
# forward and backward).
TIER = 1_000_000


class Tier(NamedTuple):
    """Some experts, with as many rows each."""

    experts: Tensor | None
    """Which they are, in order; None for all."""
    slots: slice
    """Where their rows stand, expert by expert."""
    length: int
    """Rows of each."""

    def rows(self, of_all: Tensor) -> Tensor:
        """From what stands at all slots, ``(S, ...)``, that of this tier, ``(G, C, ...)``."""
        return of_all[self.slots].view(-1, self.length, of_all.shape[1])

    def tensors(self, of_all: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """From stacked tensors of all experts, those of this tier's."""
        if self.experts is None:
            return of_all
        return tuple(tensor.index_select(0, self.experts) for tensor in of_all)

    def add(self, of_all: tuple[Tensor, ...], own: tuple[Tensor, ...]) -> None:
        """Add this tier's tensors to those of all experts."""
        for tensor, part in zip(of_all, own, strict=True):
            tensor.index_add_(0, cast(Tensor, self.experts), part)


class Sorting:
    """Where each assignment (row, asked expert) goes when sorted by expert.

    Assignments are numbered ``(b T + t) K + k``; experts ``g = b E + e``.

    Parameters
    ----------
    expert_ids_BTK : Tensor
        The asked experts of each row.
    n_experts : int
        Number of experts E in each block.
    per_row : int
        Multiply-adds of an expert for one row: what padding costs.

    Attributes
    ----------
    tiers : list of Tier
        The slots, one tier after the other.
    rows_S : Tensor
        Which row, blocks flattened, stands at each slot; the first one at those left over.
    slots_N : Tensor
        The slot of each assignment.
    """

    def __init__(self, expert_ids_BTK: Tensor, n_experts: int, per_row: int):
        n_blocks, _, n_kept = expert_ids_BTK.shape
        groups_N = expert_ids_BTK.flatten()
        if n_blocks > 1:
            offsets = torch.arange(0, n_blocks * n_experts, n_experts, device=groups_N.device)
            groups_N = (expert_ids_BTK + offsets[:, None, None]).flatten()
        counts_G = torch.bincount(groups_N, minlength=n_blocks * n_experts)
        sorted_N, order_N = torch.sort(groups_N, stable=True)
        starts_G = counts_G.cumsum(0) - counts_G
        ranks_N = torch.arange(len(order_N), device=order_N.device)
        ranks_N = ranks_N - starts_G.index_select(0, sorted_N)
        bases, cuts = self._lay_out(counts_G, per_row)
        if len(self.tiers) == 1:
            bases_N = bases[0].index_select(0, sorted_N)
        else:
            tiers_N = torch.bucketize(ranks_N, cuts, right=True)
            bases_N = bases.flatten().index_select(0, tiers_N * len(counts_G) + sorted_N)
        sorted_slots_N = bases_N + ranks_N
        self.slots_N = torch.empty_like(order_N).scatter_(0, order_N, sorted_slots_N)
        self.rows_S = order_N.new_zeros(self.tiers[-1].slots.stop)
        self.rows_S.scatter_(0, sorted_slots_N, order_N // n_kept)

    def _lay_out(self, counts_G: Tensor, per_row: int) -> tuple[Tensor, Tensor]:
        """The tiers; in each, the slot of each expert's row of rank 0, were it there; cuts."""
        device, counts_G = counts_G.device, counts_G.cpu()
        # How many experts have more than so many rows: a falling sequence.
        left = len(counts_G) - torch.bincount(counts_G).cumsum(0)[:-1]
        longest = len(left)
        self.tiers: list[Tier] = []
        bases: list[Tensor] = []
        cuts: list[int] = []
        start = slot = 0
        while start < longest:
            stop, n_left = _end_of_tier(left, start, TIER / per_row)
            everyone = start == 0 and n_left > LEFT * len(counts_G)
            base = torch.arange(len(counts_G)) if everyone else (counts_G > start).cumsum(0) - 1
            n_experts = len(counts_G) if everyone else n_left
            length = stop - start
            bases.append(slot - start + length * base)
            cuts.append(stop)
            experts = None if everyone else torch.nonzero(counts_G > start)[:, 0].to(device)
            self.tiers.append(Tier(experts, slice(slot, slot + length * n_experts), length))
            start, slot = stop, self.tiers[-1].slots.stop
        return torch.stack(bases).to(device), torch.tensor(cuts[:-1], device=device)


def _end_of_tier(left: Tensor, start: int, worth: float) -> tuple[int, int]:
    """The rank at which a tier ends, and its experts; it is worth so many slots."""
    longest, n_experts = len(left), int(left[start])
    stop = int(torch.searchsorted(-left, -int(LEFT * n_experts)))
    if stop >= longest or (n_experts - int(left[stop])) * (longest - stop) <= worth:
        return longest, n_experts
    return stop, n_experts
