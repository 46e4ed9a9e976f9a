"""How a network is to be trained, and what a training leaves beside its weights."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from skmoe.checkpoint import Checkpoint
from skmoe.nn.base import Network
from skmoe.nn.losses import FitLoss, GaussianNLL
from skmoe.objective import AuxiliaryLoss


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides how a network is trained."""

    fit_loss: FitLoss | GaussianNLL
    learning_rate: float
    weight_decay: float
    batch_size: int
    max_epochs: int
    chosen: bool = False  # whether max_epochs is what rows left out tell to be best
    patience: int | None = None  # epochs without a better validation loss; None: run all
    best_from: float = 0.0  # share of the epochs, none of them the best if there are later ones
    looks: int | None = None  # at the validation rows, about; None: after each epoch
    auxiliary_losses: Sequence[AuxiliaryLoss] = ()
    callbacks: Sequence[Any] = ()  # of skorch
    monitors: Sequence[Any] = ()  # likewise, called after all other callbacks
    before_epoch: Callable[[Network, int, int], None] | None = None  # epochs done, and in all
    after_epoch: Callable[[Network, int, int], None] | None = None  # its steps; as before it
    at_rest: Sequence[torch.nn.Module] = ()  # stay in evaluation mode, and are not annealed
    scheduled: bool = True  # False: constant learning rate and temperature (partial_fit)
    verbose: int = 0
    checkpoint: Checkpoint | None = None  # to write what is done to, and to go on from

    @property
    def first_best(self) -> int:
        """The first epoch that is the best one although an earlier one had a smaller loss."""
        return _first_from(self.best_from, self.max_epochs)

    def stage(self, network: Network, work: Callable[[], "TrainingResult"]) -> "TrainingResult":
        """What `work` leaves, and does to the network; from the checkpoint if it is done."""
        if self.checkpoint is None:
            return work()
        return self.checkpoint.stage(network, work, TrainingResult)


@dataclass(frozen=True)
class TrainingResult:
    """What a training run leaves beside the weights."""

    history: list[dict[str, Any]]
    best_loss: float
    optimizer_state: dict[str, Any] = field(repr=False)
    interrupted: bool = False

    @property
    def is_trained(self) -> bool:
        """Whether there was any gradient descent."""
        return any("learning_rate" in epoch for epoch in self.history)


def is_due(shares: Sequence[float], done: int, in_all: int) -> bool:
    """Whether one of these shares of all epochs is done just now: for `before_epoch`."""
    return done in {min(round(share * in_all), in_all - 1) for share in shares}


def is_past(share: float, done: int, in_all: int) -> bool:
    """Whether the epoch after these is one of those from that share of all of them on."""
    return done + 1 >= _first_from(share, in_all)


def _first_from(share: float, in_all: int) -> int:
    """The first epoch, counted from one, at whose end that share of all of them is done."""
    return math.ceil(share * in_all)
