"""Losses of networks side by side as autograd sees them: `torch.vmap` of one network's."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from skmoe.batches import Batches, of_rows, shown_by
from skmoe.kinds import Request
from skmoe.nn.base import Network
from skmoe.objective import auxiliary_losses, fit_loss
from skmoe.plan import TrainingPlan


def can_be_taken(group: Sequence[Request]) -> bool:
    """Whether the parts of these networks can be run side by side: some draw numbers."""
    if all(request.is_known_by_hand for request in group):
        return True
    probe = Objective(group[0].network.train(), group[0].plan)
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
            run(probe, weights, buffers, (x[None], y[None], weight[None]), look=True)
    except Exception:  # also what a part refuses: trained alone, its own fit tells
        return False
    return True


class Objective(nn.Module):
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


def run(
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
