"""Losses: how wrong a prediction is, and what a routing costs.

Contract. A *fit loss* takes (prediction ``y_TO``, target ``y_TO``) and returns the loss of
each sample, ``loss_T``. An *auxiliary loss* takes (routing, ``sample_weight_T``) and returns
one number for all blocks together, averaged with the samples' weights. Registries at the
bottom.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skmoe._registry import Registry
from skmoe._settings import check_number
from skmoe.nn.routing import Routing


class FitLoss(nn.Module, ABC):
    """Loss of each sample, averaged over the outputs."""

    @abstractmethod
    def forward(self, prediction_TO: Tensor, target_TO: Tensor) -> Tensor:
        """``loss_T``."""


class SquaredError(FitLoss):
    """``(y - f)^2``: predicts the mean."""

    def forward(self, prediction_TO: Tensor, target_TO: Tensor) -> Tensor:
        return (prediction_TO - target_TO).square().mean(-1)


class AbsoluteError(FitLoss):
    """``|y - f|``: predicts the median."""

    def forward(self, prediction_TO: Tensor, target_TO: Tensor) -> Tensor:
        return (prediction_TO - target_TO).abs().mean(-1)


class Huber(FitLoss):
    """Squared for small residuals, absolute for large ones.

    Parameters
    ----------
    delta : float, default=1.345
        Where the two meet, in standard deviations of the target.
    """

    def __init__(self, *, delta: float = 1.345):
        super().__init__()
        self.delta = check_number("delta", delta, open_=True)

    def forward(self, prediction_TO: Tensor, target_TO: Tensor) -> Tensor:
        return F.huber_loss(prediction_TO, target_TO, reduction="none", delta=self.delta).mean(
            -1
        )


class Quantile(FitLoss):
    """Pinball loss: predicts a quantile.

    Parameters
    ----------
    quantile : float, default=0.5
        Which one, strictly between 0 and 1.
    """

    def __init__(self, *, quantile: float = 0.5):
        super().__init__()
        self.quantile = check_number("quantile", quantile, below=1.0, open_=True)

    def forward(self, prediction_TO: Tensor, target_TO: Tensor) -> Tensor:
        residual = target_TO - prediction_TO
        return torch.maximum(self.quantile * residual, (self.quantile - 1) * residual).mean(-1)


def switch(routing: Routing, sample_weight_T: Tensor) -> Tensor:
    """``E sum_e usage_e score_e``: 1 when balanced, up to E at collapse.

    `usage` is the share of samples whose first choice is e, `score` their mean score
    (Fedus et al., 2022, eq. 4). Only the scores pass a gradient.
    """
    weight_T = sample_weight_T / sample_weight_T.sum()
    scores_BE = torch.einsum("bte,t->be", routing.scores_BTE, weight_T)
    chosen = F.one_hot(routing.logits_BTE.argmax(-1), routing.n_experts).to(weight_T)
    usage_BE = torch.einsum("bte,t->be", chosen, weight_T)
    return routing.n_experts * (usage_BE * scores_BE).sum(-1).mean()


def importance(routing: Routing, sample_weight_T: Tensor) -> Tensor:
    """Squared coefficient of variation of the experts' total score: 0 when equal.

    Shazeer et al. (2017), eq. 7.
    """
    scores_BE = torch.einsum("bte,t->be", routing.scores_BTE, sample_weight_T)
    mean_B1 = scores_BE.mean(-1, keepdim=True)
    return (scores_BE / mean_B1 - 1).square().mean()


def z(routing: Routing, sample_weight_T: Tensor) -> Tensor:
    """Mean of ``logsumexp(logits)^2``, which keeps logits small (Zoph et al., 2022)."""
    squares_BT = torch.logsumexp(routing.logits_BTE, -1).square()
    return (squares_BT @ (sample_weight_T / sample_weight_T.sum())).mean()


LOSSES = Registry(
    "loss",
    {
        "squared_error": SquaredError,
        "absolute_error": AbsoluteError,
        "huber": Huber,
        "quantile": Quantile,
    },
)
AUXILIARY_LOSSES = Registry(
    "auxiliary loss", {"switch": switch, "importance": importance, "z": z}
)
