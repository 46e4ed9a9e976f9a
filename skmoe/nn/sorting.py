"""Rows sorted by the expert that they ask, padded in a few tiers.

A batched product needs as many rows of each expert. Were all experts padded to the busiest one,
memory would grow with the number of experts, however few rows there are. So the first rows of
all experts make up a tier; of those experts that have more, the next rows make up another one,
and so on. There are as many tiers as pay for their calls.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from operator import neg
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# What the calls of a tier cost, in multiply-adds that would take as long (measured on a CPU,
# forward and backward).
TIER = 1_500_000
# So many rows of an expert take as long as copies of its maps, and of their gradients: tiers
# beyond the first need them.
COPIED = 16


class Tier(NamedTuple):
    """Some experts, with as many rows each."""

    experts: Tensor | None
    """Which they are, in order; None for all."""
    start: int
    """The first of their slots, which they fill one after the other."""
    shape: tuple[int, int]
    """How many experts, and rows of each."""

    def rows(self, of_all: Tensor) -> Tensor:
        """From what stands at all slots, ``(S, F)``, that of this tier, ``(G, C, F)``."""
        n_experts, n_rows = self.shape
        own = of_all.narrow(0, self.start, n_experts * n_rows)
        return own.view(n_experts, n_rows, of_all.shape[1])

    def own(self, of_all: Tensor) -> Tensor:
        """From a stacked tensor of all experts, that of this tier's."""
        return of_all if self.experts is None else of_all.index_select(0, self.experts)


class Sorting:
    """Where each assignment (row, asked expert) goes when sorted by expert.

    Assignments are numbered ``(b T + t) K + k``; experts block by block.

    Parameters
    ----------
    expert_ids_BTK : Tensor
        The asked experts of each row.
    n_experts : int or sequence of int
        Number of experts in each block.
    per_row : int
        Multiply-adds of an expert for one row: what padding costs.

    Attributes
    ----------
    tiers : list of Tier
        The slots, one tier after the other.
    rows_S : Tensor
        Which row, blocks flattened, stands at each slot; any at those that are left over.
    slots_N : Tensor
        The slot of each assignment.
    """

    def __init__(self, expert_ids_BTK: Tensor, n_experts: int | Sequence[int], per_row: int):
        device = expert_ids_BTK.device
        n_blocks, n_rows, n_kept = expert_ids_BTK.shape
        counts_B = np.broadcast_to(n_experts, n_blocks)
        n_groups = int(counts_B.sum())
        # With numpy, as its short operations take half as long, and its sort a third.
        groups = expert_ids_BTK.cpu().numpy().reshape(n_blocks, -1)
        if n_blocks > 1:
            groups = groups + (counts_B.cumsum() - counts_B)[:, None]
        groups_N = groups.ravel().astype(np.int16 if n_groups < 2**15 else np.int64)
        counts_G = np.bincount(groups_N, minlength=n_groups)
        places_S = self._lay_out(counts_G, per_row, device)
        # A place after the last is that of a slot left over.
        n_assigned = len(groups_N)
        assigned_S = np.append(groups_N.argsort(kind="stable"), n_assigned)[places_S]
        slots_N = np.empty(n_assigned + 1, dtype=np.int64)
        slots_N[assigned_S] = np.arange(len(assigned_S))
        rows_S = np.minimum(assigned_S // n_kept, n_blocks * n_rows - 1)
        self.slots_N = torch.from_numpy(slots_N[:-1]).to(device)
        self.rows_S = torch.from_numpy(rows_S).to(device)

    def _lay_out(self, counts_G: np.ndarray, per_row: int, device: torch.device) -> np.ndarray:
        """The tiers; for each slot, the place of its assignment among the sorted ones."""
        n_groups, n_assigned = len(counts_G), counts_G.sum()
        starts_G = counts_G.cumsum() - counts_G
        # How many experts have more than so many rows: a falling sequence.
        left = (n_groups - np.bincount(counts_G).cumsum()[:-1]).tolist()
        cuts = best_cuts(left, TIER / per_row)
        self.tiers: list[Tier] = []
        places, slot = [], 0
        for start, stop in zip([0, *cuts], cuts, strict=False):
            everyone = start == 0 and left[0] > n_groups / 2
            chosen = np.flatnonzero(counts_G >= 0 if everyone else counts_G > start)
            experts = None if everyone else torch.from_numpy(chosen).to(device)
            ranks = np.arange(start, stop)
            places_GC = starts_G[chosen, None] + ranks
            places_GC[ranks >= counts_G[chosen, None]] = n_assigned
            places.append(places_GC.ravel())
            self.tiers.append(Tier(experts, slot, places_GC.shape))
            slot += places_GC.size
        return np.concatenate(places)


def best_cuts(left: list[int], worth: float) -> list[int]:
    """Ranks at which tiers end, the last one that of the longest.

    Parameters
    ----------
    left : list of int
        How many experts have more rows than 0, 1, ...; the length is that of the longest.
    worth : float
        Number of slots that take as long as the calls of one more tier.
    """
    if left[0] * len(left) - sum(left) <= worth:
        return [len(left)]
    # Cuts may be where half of the experts, a quarter, and so on are left.
    ends, n_left = [0], left[0]
    while ends[-1] < len(left):
        n_left //= 2
        ends.append(bisect_left(left, -n_left, lo=ends[-1], key=neg))
    cheapest, before = [0.0] + [math.inf] * (len(ends) - 1), [0] * len(ends)
    for j, stop in enumerate(ends):
        for i, start in enumerate(ends[:j]):
            copied = COPIED * left[start] if start else 0
            cost = cheapest[i] + left[start] * (stop - start) + worth + copied
            if cost < cheapest[j]:
                cheapest[j], before[j] = cost, i
    cuts, j = [], len(ends) - 1
    while j > 0:
        cuts.append(ends[j])
        j = before[j]
    return cuts[::-1]
