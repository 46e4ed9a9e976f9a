"""Dispatch and combine: run the asked experts, ``sum_k w_k f_{e_k}(x)``.

Contract. A dispatcher takes (experts, ``x_BTD``, routing) and returns ``y_BTO``. All of them
compute every routed row (dropless) and agree to rounding; they differ in what they cost:

=========  ===================================================================
dense      all experts on all rows; the fastest when nearly all are asked
padded     rows sorted by expert, padded to the longest, one batched product
sliced     rows sorted by expert, one product per expert; for uneven routing
=========  ===================================================================
"""

import torch
from torch import Tensor

from skmoe._registry import Registry
from skmoe.nn.base_experts import Experts, weighted_sum
from skmoe.nn.base_routers import Routing

# What calls cost beside the products, in multiply-adds that would take as long (measured on
# a CPU, forward and backward): sorting and padding once, and one slice of its own.
SORTING = 4_000_000
SLICING = 1_000_000


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
    how : {"auto", "dense", "padded", "sliced"}, default="auto"
        "auto" decides by the numbers of rows that the experts really got.

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
    per_row = sum(tensor[0].numel() for tensor in experts.stacked())
    n_asked, n_all = routing.weights_BTK.numel(), routing.logits_BTE.numel()
    if (n_all - n_asked) * per_row <= SORTING:
        return dense(experts, x_BTD, routing)
    plan = _Plan(routing)
    n_padded = len(plan.counts) * max(plan.counts)
    if (n_padded - n_asked) * per_row <= len(plan.counts) * SLICING:
        return _run_padded(experts, x_BTD, routing, plan)
    return _run_sliced(experts, x_BTD, routing, plan)


def dense(experts: Experts, x_BTD: Tensor, routing: Routing) -> Tensor:
    """All experts on all rows."""
    return experts.mix_all(x_BTD, routing.dense_weights())


def padded(experts: Experts, x_BTD: Tensor, routing: Routing) -> Tensor:
    """One batched product over experts, rows padded to the longest."""
    return _run_padded(experts, x_BTD, routing, _Plan(routing))


def sliced(experts: Experts, x_BTD: Tensor, routing: Routing) -> Tensor:
    """One product for each expert that got rows."""
    return _run_sliced(experts, x_BTD, routing, _Plan(routing))


class _Plan:
    """Where each assignment (sample, asked expert) goes when sorted by expert.

    Assignments are numbered ``(b T + t) K + k``; experts ``g = b E + e``.
    """

    def __init__(self, routing: Routing):
        ids_BTK = routing.expert_ids_BTK
        if ids_BTK is None:
            everyone = torch.arange(routing.n_experts, device=routing.logits_BTE.device)
            ids_BTK = everyone.expand_as(routing.weights_BTK)
        n_blocks, _, self.n_kept = ids_BTK.shape
        self.n_groups = n_blocks * routing.n_experts
        offsets = torch.arange(0, self.n_groups, routing.n_experts, device=ids_BTK.device)
        groups = (ids_BTK + offsets[:, None, None]).flatten()
        self.counts_G = torch.bincount(groups, minlength=self.n_groups)
        self.order = torch.argsort(groups, stable=True)
        self.sorted_groups = groups[self.order]
        self.counts = self.counts_G.tolist()

    @property
    def rows(self) -> Tensor:
        """Row of ``x`` (blocks flattened) that each sorted assignment reads."""
        return self.order // self.n_kept

    def slots(self, length: int) -> Tensor:
        """Slot ``g * length + i`` of the i-th row of expert g, for sorted assignments."""
        starts_G = self.counts_G.cumsum(0) - self.counts_G
        ranks = torch.arange(len(self.order), device=self.order.device)
        ranks = ranks - starts_G[self.sorted_groups]
        return self.sorted_groups * length + ranks


def _run_padded(experts: Experts, x_BTD: Tensor, routing: Routing, plan: _Plan) -> Tensor:
    length = max(plan.counts)
    slots = plan.slots(length)
    # Slots of the padding read row 0; nobody reads their answer, so no gradient flows.
    rows = torch.zeros(plan.n_groups * length, dtype=torch.long, device=x_BTD.device)
    rows[slots] = plan.rows
    x_GCD = x_BTD.flatten(0, 1)[rows].view(plan.n_groups, length, -1)
    slot_of = torch.empty_like(slots)
    slot_of[plan.order] = slots
    return experts.mix_sorted(x_GCD, routing.weights_BTK, slot_of)


def _run_sliced(experts: Experts, x_BTD: Tensor, routing: Routing, plan: _Plan) -> Tensor:
    x_slices = x_BTD.flatten(0, 1)[plan.rows].split(plan.counts)
    # `split` once, not an index per expert: its backward is one concatenation, while that
    # of an index fills a zero tensor of the full size for each expert.
    tensors = zip(*(tensor.split(1) for tensor in experts.stacked()), strict=True)
    answers = [
        experts.evaluate(x_CD.unsqueeze(0), *one).squeeze(0)
        for x_CD, one in zip(x_slices, tensors, strict=True)
        if len(x_CD)
    ]
    position_of = torch.empty_like(plan.order)
    position_of[plan.order] = torch.arange(len(plan.order), device=plan.order.device)
    return weighted_sum(torch.cat(answers)[position_of], routing.weights_BTK)


DISPATCHERS: Registry = Registry(
    "dispatcher", {"dense": dense, "padded": padded, "sliced": sliced}
)
