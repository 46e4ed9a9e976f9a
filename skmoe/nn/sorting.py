"""Rows sorted by the expert that they ask: in a few padded tiers, one by one, or in blocks.

A batched product needs as many rows of each expert. Were all experts padded to the busiest one,
memory would grow with the number of experts, however few rows there are. So the first rows of
all experts make up a tier; of those experts that have more, the next rows make up another one,
and so on. There are as many tiers as pay for their calls. Experts with much to do are asked one
by one: then no row is padded, and no map copied.

How many rows each expert has is known on the GPU only, and to wait for it takes longer than the
products. There, each expert fills blocks of as many rows, the last of them in part: how many
blocks there may be is known beforehand, and a batched product takes a block with the maps of
its expert.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
from operator import neg
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

# What the calls of a tier cost, in multiply-adds that would take as long (measured on a CPU,
# forward and backward).
TIER = 1_500_000
# So many rows of an expert take as long as copies of its maps, and of their gradients: tiers
# beyond the first need them.
COPIED = 16
# Experts with so many multiply-adds each, of a forward pass, are asked one by one.
MUCH = 2_000_000
# Numbers of experts to sort by: the shorter, the faster.
KEYS = torch.uint8, torch.int16, torch.int64
# Rows of a block on a GPU, at least and at most.
BLOCK_ROWS = 16, 128


class Tier(NamedTuple):
    """Some experts, with as many rows each."""

    experts: Tensor | None
    """Which they are, in order; None for all."""
    start: int
    """The first of their slots, which they fill one after the other."""
    shape: tuple[int, int]
    """How many experts, and rows of each."""
    ends_G1: Tensor | None = None
    """Where these are blocks: where those of each of all experts start, and the last end."""

    def rows(self, of_all: Tensor) -> Tensor:
        """From what stands at all slots, ``(S, F)``, that of this tier, ``(G, C, F)``."""
        n_experts, n_rows = self.shape
        own = of_all.narrow(0, self.start, n_experts * n_rows)
        return own.view(n_experts, n_rows, of_all.shape[1])

    def own(self, of_all: Tensor) -> Tensor:
        """From a stacked tensor of all experts, that of this tier's."""
        if self.experts is None:
            return of_all
        if self.ends_G1 is not None and torch.is_grad_enabled():
            return _Own.apply(of_all, self)
        return of_all.index_select(0, self.experts)

    def add_up(self, own: Tensor, into: Tensor) -> None:
        """Add to a stacked tensor of all experts what there is for this tier's."""
        if self.ends_G1 is None:
            into.index_add_(0, cast(Tensor, self.experts), own)
        else:
            into.add_(self.summed(own))

    def summed(self, own: Tensor) -> Tensor:
        """What there is for blocks, added up by expert."""
        # In their order, so that sums are the same each time.
        return torch.segment_reduce(own, "sum", offsets=self.ends_G1, unsafe=True)


class _Own(Function):
    """`Tier.own` of blocks, with a gradient that is the same each time."""

    @staticmethod
    def forward(ctx: Any, of_all: Tensor, tier: Tier) -> Tensor:
        ctx.tier, ctx.shape = tier, of_all.shape
        return of_all.index_select(0, cast(Tensor, tier.experts))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        into = grad.new_zeros(ctx.shape)
        ctx.tier.add_up(grad.contiguous(), into)
        return into, None


class Layout(ABC):
    """Groups of experts that are asked together, and their slots, one group after the other."""

    @abstractmethod
    def rows(self, of_all: Tensor) -> Sequence[Tensor]:
        """From what stands at all slots, ``(S, F)``, that of each group, ``(G, C, F)``."""

    @abstractmethod
    def own(self, of_all: Tensor) -> Sequence[Tensor]:
        """From a stacked tensor of all experts, those of each group."""

    @abstractmethod
    def room(self, of_all: Tensor) -> Sequence[Tensor]:
        """Where to write what `add_up` makes such a stacked tensor of."""

    @abstractmethod
    def add_up(self, own: Sequence[Tensor], into: Tensor) -> None:
        """From what each group wrote into its `room`, a stacked tensor of all experts."""


class Tiers(Layout):
    """Experts of a tier are asked together.

    Parameters
    ----------
    tiers : sequence of Tier
        If the first of several is that of all experts, it writes where the sum will be.
    """

    def __init__(self, tiers: Sequence[Tier]):
        self.tiers = tiers

    def rows(self, of_all: Tensor) -> list[Tensor]:
        return [tier.rows(of_all) for tier in self.tiers]

    def own(self, of_all: Tensor) -> list[Tensor]:
        return [tier.own(of_all) for tier in self.tiers]

    def room(self, of_all: Tensor) -> list[Tensor]:
        return [
            of_all
            if tier.experts is None
            else of_all.new_empty(tier.shape[0], *of_all.shape[1:])
            for tier in self.tiers
        ]

    def add_up(self, own: Sequence[Tensor], into: Tensor) -> None:
        if self.tiers[0].experts is not None:
            into.zero_()
        for tier, part in zip(self.tiers, own, strict=True):
            if tier.experts is not None:
                tier.add_up(part, into)


class OneByOne(Layout):
    """Each expert is asked alone, with as many rows as there are.

    Parameters
    ----------
    counts : list of int
        Numbers of the experts' rows.
    """

    def __init__(self, counts: list[int]):
        self.counts = counts

    def rows(self, of_all: Tensor) -> Sequence[Tensor]:
        return of_all.unsqueeze(0).split_with_sizes(self.counts, 1)

    def own(self, of_all: Tensor) -> Sequence[Tensor]:
        return of_all.unsqueeze(1).unbind()

    def room(self, of_all: Tensor) -> Sequence[Tensor]:
        return of_all.unsqueeze(1).unbind()

    def add_up(self, own: Sequence[Tensor], into: Tensor) -> None:
        """Nothing is left to do: each expert's own part was its room."""


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
    layout : Layout
        Whose the slots are.
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
        """The layout; for each slot, the place of its assignment among the sorted ones."""
        n_groups, n_assigned = len(counts_G), counts_G.sum()
        if n_assigned * per_row >= MUCH * n_groups:
            self.layout: Layout = OneByOne(counts_G.tolist())
            return np.arange(n_assigned)
        starts_G = counts_G.cumsum() - counts_G
        # How many experts have more than so many rows: a falling sequence.
        left = (n_groups - np.bincount(counts_G).cumsum()[:-1]).tolist()
        cuts = best_cuts(left, TIER / per_row)
        tiers: list[Tier] = []
        places, slot = [], 0
        for start, stop in zip([0, *cuts], cuts, strict=False):
            everyone = start == 0 and left[0] > n_groups / 2
            chosen = np.flatnonzero(counts_G >= 0 if everyone else counts_G > start)
            experts = None if everyone else torch.from_numpy(chosen).to(device)
            ranks = np.arange(start, stop)
            places_GC = starts_G[chosen, None] + ranks
            places_GC[ranks >= counts_G[chosen, None]] = n_assigned
            places.append(places_GC.ravel())
            tiers.append(Tier(experts, slot, places_GC.shape))
            slot += places_GC.size
        self.layout = Tiers(tiers)
        return np.concatenate(places)


class BlockSorting:
    """The same, found without a wait: each expert fills blocks of as many rows.

    Parameters
    ----------
    groups_BTK : Tensor
        Numbers of the asked experts of each row, among those of all blocks of a layer.
    n_groups : int
        How many experts these blocks have.
    n_rows : int, optional
        Of a block of rows; by default about half of what an expert has in the mean.

    Attributes
    ----------
    layout, rows_S, slots_N
        As of `Sorting`.
    tier : Tier
        The only one of the layout.
    """

    def __init__(self, groups_BTK: Tensor, n_groups: int, n_rows: int | None = None):
        device = groups_BTK.device
        short = next(kind for kind in KEYS if n_groups <= torch.iinfo(kind).max)
        n_kept, n_assigned = groups_BTK.shape[2], groups_BTK.numel()
        if n_rows is None:
            n_rows = block_rows(n_assigned, n_groups)
        sorted_N, order_N = groups_BTK.flatten().to(short).sort(stable=True)
        numbers_G1 = torch.arange(n_groups + 1, dtype=short, device=device)
        starts_G1 = torch.searchsorted(sorted_N, numbers_G1)
        ends_G1 = torch.zeros_like(starts_G1)
        n_blocks_G = (starts_G1.diff() + (n_rows - 1)).floor_divide_(n_rows)
        torch.cumsum(n_blocks_G, 0, out=ends_G1[1:])
        # Moves the place of an assignment among the sorted ones to its slot.
        moved_G1 = torch.add(ends_G1 * n_rows, starts_G1, alpha=-1)
        slots = moved_G1.index_select(0, sorted_N.int()) + torch.arange(
            n_assigned, device=device
        )
        self.slots_N = torch.empty_like(slots).scatter_(0, order_N, slots)
        # The last block of each expert may be filled in part.
        n_blocks = (n_assigned + min(n_groups, n_assigned) * (n_rows - 1)) // n_rows
        self.rows_S = torch.zeros(n_blocks * n_rows, dtype=torch.long, device=device)
        self.rows_S.scatter_(0, slots, order_N // n_kept)
        numbers = torch.arange(n_blocks, device=device)
        experts = torch.searchsorted(ends_G1[1:], numbers, right=True)
        experts.clamp_(max=n_groups - 1)  # those left over
        self.tier = Tier(experts, 0, (n_blocks, n_rows), ends_G1)
        self.layout = Tiers([self.tier])


def block_rows(n_assigned: int, n_groups: int) -> int:
    """Rows of a block: the power of two next to half of those of an expert in the mean."""
    least, most = BLOCK_ROWS
    half = max(n_assigned / (2 * n_groups), 1.0)
    return min(max(2 ** round(math.log2(half)), least), most)


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
