"""What a fit minimises: the loss of the predictions, and what routings cost beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skmoe.nn.base import Network, Step
from skmoe.nn.base_routers import Routing
from skmoe.nn.losses import FitLoss, GaussianNLL


@dataclass(frozen=True)
class AuxiliaryLoss:
    """One auxiliary loss with its weight."""

    name: str
    weight: float
    loss: Callable[[Routing, Tensor], Tensor]


def fit_loss(
    criterion: FitLoss | GaussianNLL,
    network: Network,
    answers_MTO: Tensor,
    steps: list[Step],
    y_TO: Tensor,
    weight: Tensor,
) -> Tensor:
    """The mean of the members' losses, so that each of them learns for itself."""
    n_members, n_rows, _ = answers_MTO.shape
    if isinstance(criterion, GaussianNLL):
        losses_MT = criterion(*network.mixture(answers_MTO, steps), y_TO)
    else:
        targets = y_TO.expand_as(answers_MTO).flatten(0, 1)
        losses_MT = criterion(answers_MTO.flatten(0, 1), targets)
    return (losses_MT.view(n_members, n_rows).mT * weight.view(n_rows, -1)).mean()


def validation_loss(
    criterion: FitLoss | GaussianNLL, network: Network, x: Tensor, y_TO: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of the members' mean, and that mean; of each member where they have own rows."""
    answers, steps = network.answers(x)
    prediction = answers.mean(0)
    together = weight.ndim == 1 and not isinstance(criterion, GaussianNLL)
    judged = prediction.unsqueeze(0) if together else answers
    return fit_loss(criterion, network, judged, steps, y_TO, weight), prediction


def auxiliary_losses(
    terms: Sequence[AuxiliaryLoss], steps: list[Step], weight: Tensor
) -> dict[str, Tensor]:
    """By name, already weighted; means over layers."""
    losses = {
        term.name: term.weight
        * torch.stack([term.loss(step.routing, weight) for step in steps]).mean()
        for term in terms
    }
    penalties = [
        (step.routing.reconstruction_BT * weight).mean()
        for step in steps
        if step.routing.reconstruction_BT is not None
    ]
    if penalties:
        losses["reconstruction"] = torch.stack(penalties).mean()
    return losses
