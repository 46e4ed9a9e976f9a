"""Dispatch and combine: run the asked experts, ``sum_k w_k f_{e_k}(x)``.

Contract. A dispatcher takes (experts, ``x_BTD``, routing) and returns ``y_BTO``. All of them
compute every routed row (dropless) and agree to rounding; they differ in what they cost:

=========  ===================================================================
dense      all experts on all rows; the fastest when nearly all are asked
sorted     rows sorted by expert; products of few experts at once, as `sorting` lays out
blocks     rows sorted by expert; one batched product for blocks of rows, whose
           number is known before the rows are: without a wait for a GPU
=========  ===================================================================
"""

import torch
from torch import Tensor

from skmoe._registry import Registry
from skmoe.nn.base_experts import Experts
from skmoe.nn.base_routers import Routing
from skmoe.nn.sorting import BlockSorting, Sorting

# What sorting costs beside the products, in multiply-adds that would take as long (measured
# forward and backward, on a CPU and on an H200 that replays its steps).
SORTING, SORTING_ON_CUDA = 4_000_000, 60_000_000


def dispatch(experts: Experts, x_BTD: Tensor, routing: Routing, how: str = "auto") -> Tensor:
    """Weighted sum of the asked experts' outputs, by the cheapest dispatcher.

    Parameters
    ----------
    experts : Experts
        The experts of all blocks.
    x_BTD : Tensor
        Their input.
    routing : Routing
        Who is asked and with what weight.
    how : {"auto", "dense", "sorted", "blocks"}, default="auto"
        "auto" decides by the multiply-adds that sorting saves.

    Returns
    -------
    y_BTO : Tensor
    """
    if how != "auto":
        return DISPATCHERS[how](experts, x_BTD, routing)
    # While a graph is made for export, no numbers of rows are known.
    of_all = routing.expert_ids_BTK is None or torch.compiler.is_exporting()
    if of_all or not experts.slices:
        return dense(experts, x_BTD, routing)
    n_saved = routing.logits_BTE.numel() - routing.weights_BTK.numel()
    if not pays_to_sort(n_saved, multiply_adds(experts), x_BTD.device):
        return dense(experts, x_BTD, routing)
    by_expert = by_blocks if sorts_in_blocks(x_BTD.device) else by_sorting
    return by_expert(experts, x_BTD, routing)


def multiply_adds(experts: Experts) -> int:
    """Of one expert for one row."""
    return sum(tensor[0].numel() for tensor in experts.stacked())


def pays_to_sort(n_saved: int, per_row: int, device: torch.device) -> bool:
    """Whether rows should be sorted to save experts from answering so many."""
    return n_saved * per_row > (SORTING_ON_CUDA if device.type == "cuda" else SORTING)


def sorts_in_blocks(device: torch.device) -> bool:
    """Whether rows are sorted into blocks, as to count them would be to wait for the device."""
    return device.type == "cuda"


def dense(experts: Experts, x_BTD: Tensor, routing: Routing) -> Tensor:
    """All experts on all rows."""
    return experts.mix_all(x_BTD, routing.dense_weights())


def by_sorting(experts: Experts, x_BTD: Tensor, routing: Routing) -> Tensor:
    """Each expert on the rows that ask it."""
    plan = Sorting(_asked(routing), routing.n_experts, multiply_adds(experts))
    return _mix(experts, x_BTD, routing, plan)


def by_blocks(experts: Experts, x_BTD: Tensor, routing: Routing) -> Tensor:
    """The same, without a wait for the device."""
    n_groups, ids_BTK = experts.n_blocks * routing.n_experts, _asked(routing)
    firsts_B11 = torch.arange(0, n_groups, routing.n_experts, device=ids_BTK.device)
    groups_BTK = ids_BTK + firsts_B11.view(-1, 1, 1)
    return _mix(experts, x_BTD, routing, BlockSorting(groups_BTK, n_groups))


def _asked(routing: Routing) -> Tensor:
    """Who is asked, ``ids_BTK``."""
    if routing.expert_ids_BTK is not None:
        return routing.expert_ids_BTK
    everyone = torch.arange(routing.n_experts, device=routing.logits_BTE.device)
    return everyone.expand_as(routing.weights_BTK)


def _mix(
    experts: Experts, x_BTD: Tensor, routing: Routing, plan: Sorting | BlockSorting
) -> Tensor:
    x_SD = x_BTD.flatten(0, 1).index_select(0, plan.rows_S)
    return experts.mix_sorted(x_SD, routing.weights_BTK, plan.slots_N, plan.layout)


DISPATCHERS: Registry = Registry(
    "dispatcher", {"dense": dense, "sorted": by_sorting, "blocks": by_blocks}
)
