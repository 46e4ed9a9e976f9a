"""The gradient of shallow mixtures by hand: what a step of their training computes.

Of a step of a small network, the calls of modules and autograd cost several times what the
arithmetic does. So the step of the usual network is written out here: one layer of plain nets
behind a softmax, its gate linear or a net, with or without the loss that balances its experts.
Whatever it does not know is left to autograd, which computes the same, up to rounding:
`known_by_hand` decides. Networks of one kind may be trained side by side, as B blocks.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from skmoe.known_by_hand import is_known
from skmoe.layer_gradient import mixture_of
from skmoe.nn.base import Network
from skmoe.nn.base_routers import Routing
from skmoe.nn.embeddings import NoEmbedding
from skmoe.nn.hidden_layer import Room
from skmoe.nn.losses import FitLoss, SquaredError
from skmoe.nn.networks import MoENetwork
from skmoe.objective import AuxiliaryLoss


class Outcome(NamedTuple):
    """What a batch showed, beside the gradients."""

    losses_B: Tensor
    predictions_BTO: Tensor
    auxiliary: dict[str, Tensor]
    """Values of auxiliary losses in the blocks, weighted."""

    def record(self) -> dict[str, Tensor]:
        """All losses, as histories name them."""
        named = {f"{name}_loss": value_B for name, value_B in self.auxiliary.items()}
        return {"loss": self.losses_B, **named}


class ShallowGradient:
    """Losses of networks side by side and their gradients, written where these are kept.

    Parameters
    ----------
    networks : sequence of MoENetwork
        B networks of one kind, which `is_known` by hand. Their numbers of experts, and of
        those that are asked if these are not all, may differ.
    weights, gradients : mapping of str to Tensor
        By the names that they have in a network, with those of all networks on the first
        axis: of gates B maps, of experts their sum. Gates with fewer logits are filled up.
        They must stay where they are.
    criterion : FitLoss
        The loss of the predictions.
    auxiliary_losses : sequence of AuxiliaryLoss
        None, or `switch`.
    room : Room
        Memory to be used in each step.
    embedded : bool, default=False
        Whether rows come as the layers see them.
    """

    def __init__(
        self,
        networks: Sequence[MoENetwork],
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        criterion: FitLoss,
        auxiliary_losses: Sequence[AuxiliaryLoss],
        room: Room,
        embedded: bool = False,
    ):
        self.networks, self.criterion = networks, criterion
        self.terms = auxiliary_losses
        first = networks[0]
        is_plain = isinstance(first.embedding, NoEmbedding) and first.axes is None
        self.sees = self._same if is_plain or embedded else self._embedded
        tensors = {name: (w.detach(), gradients[name]) for name, w in weights.items()}
        self.mixture = mixture_of(networks, tensors, room)

    def __call__(self, x_BTD: Tensor, y_BTO: Tensor, weight_BT: Tensor) -> Outcome:
        # No tensor here asks for a gradient; so autograd looks away.
        predictions_BTO = self.mixture.answer(self.sees(x_BTD))
        losses_B, dpredictions_BTO = self._losses(predictions_BTO, y_BTO, weight_BT)
        auxiliary = {
            term.name: self.mixture.balance(term.weight, weight_BT) for term in self.terms
        }
        self.mixture.pull_back(dpredictions_BTO)
        return Outcome(losses_B, predictions_BTO, auxiliary)

    def losses(self, x_BTD: Tensor, y_BTO: Tensor, weight_BT: Tensor) -> Tensor:
        """Losses of the blocks alone."""
        predictions_BTO = self.mixture.answer(self.sees(x_BTD))
        losses = self.criterion(predictions_BTO.flatten(0, 1), y_BTO.flatten(0, 1))
        return (losses.view(weight_BT.shape) * weight_BT).mean(1)

    @property
    def counts(self) -> Sequence[int]:
        """Numbers of the networks' experts."""
        return self.mixture.blocks.counts

    def routing(self) -> Routing:
        """Of the last batch, each network a block."""
        return self.mixture.routing()

    def _same(self, x_BTD: Tensor) -> Tensor:
        return x_BTD

    def _embedded(self, x_BTD: Tensor) -> Tensor:
        """What the layers see."""
        seen = [
            network.embedding(network.on_axes(x_TD))
            for network, x_TD in zip(self.networks, x_BTD, strict=True)
        ]
        return seen[0].unsqueeze(0) if len(seen) == 1 else torch.stack(seen)

    def _losses(
        self, predictions_BTO: Tensor, y_BTO: Tensor, weight_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The losses, and their gradients for the predictions."""
        n_blocks, n_rows, n_outputs = predictions_BTO.shape
        if type(self.criterion) is SquaredError:
            errors_BTO = predictions_BTO - y_BTO
            weighted_BTO = errors_BTO * weight_BT.unsqueeze(2)
            n = n_rows * n_outputs
            losses_B = (errors_BTO * weighted_BTO).sum((1, 2)) / n
            return losses_B, weighted_BTO.mul_(2 / n)
        leaf = predictions_BTO.requires_grad_()
        losses = self.criterion(leaf.flatten(0, 1), y_BTO.flatten(0, 1))
        losses_B = (losses.view(n_blocks, n_rows) * weight_BT).mean(1)
        (dpredictions_BTO,) = torch.autograd.grad(losses_B.sum(), leaf)
        leaf.requires_grad_(False)
        return losses_B.detach(), dpredictions_BTO


def gradient_by_hand(
    network: Network,
    criterion: nn.Module,
    auxiliary_losses: Sequence[AuxiliaryLoss],
    room: Room,
) -> ShallowGradient | None:
    """The gradient of a network as it is now; None if it is autograd's to find.

    Weights must have the place of their gradient already.
    """
    learned = {name: w for name, w in network.named_parameters() if w.requires_grad}
    gradients = {name: w.grad for name, w in learned.items() if w.grad is not None}
    if len(gradients) < len(learned) or not is_known(network, criterion, auxiliary_losses):
        return None
    known = [cast(MoENetwork, network)], learned, gradients, cast(FitLoss, criterion)
    return ShallowGradient(*known, auxiliary_losses, room)
