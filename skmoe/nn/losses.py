"""Losses: how wrong a prediction is, and what a routing costs.

Contract. A *fit loss* takes (prediction ``y_TO``, target ``y_TO``) and returns the loss of
each sample, ``loss_T``; `GaussianNLL` looks at the components of a mixture instead. An
*auxiliary loss* takes (routing, ``sample_weight_T``) and returns one number for all blocks
together, averaged with the samples' weights. It is a function, or, if it has settings, a class
of such functions; one with a method ``anneal(progress)`` is told the progress of training, from
0 to 1. Registries at the bottom.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skmoe._registry import Registry, Spec
from skmoe._settings import check_integer, check_number
from skmoe.nn.base_routers import Routing, largest

# Of the standard deviations that a mixture tells, in units of that of the target.
LARGEST_LOG_STD = 7.0


class FitLoss(nn.Module, ABC):
    """Loss of each sample, averaged over the outputs."""

    outputs_per_target = 1

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
    """Squared for small residuals, absolute for large ones (Huber, 1964).

    Parameters
    ----------
    delta : float, default=1.345
        Where the two meet, in standard deviations of the target.

    Examples
    --------
    >>> import torch
    >>> Huber(delta=1.0)(torch.zeros(2, 1), torch.tensor([[0.5], [3.0]]))
    tensor([0.1250, 2.5000])
    """

    def __init__(self, *, delta: float = 1.345):
        super().__init__()
        self.delta = check_number("delta", delta, open_=True)

    def forward(self, prediction_TO: Tensor, target_TO: Tensor) -> Tensor:
        return F.huber_loss(prediction_TO, target_TO, reduction="none", delta=self.delta).mean(
            -1
        )


class Quantile(FitLoss):
    """Pinball loss: predicts a quantile (Koenker & Bassett, 1978).

    Parameters
    ----------
    quantile : float, default=0.5
        Which one, strictly between 0 and 1.

    Examples
    --------
    >>> import torch
    >>> Quantile(quantile=0.9)(torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]]))
    tensor([0.9000, 0.1000])
    """

    def __init__(self, *, quantile: float = 0.5):
        super().__init__()
        self.quantile = check_number("quantile", quantile, below=1.0, open_=True)

    def forward(self, prediction_TO: Tensor, target_TO: Tensor) -> Tensor:
        residual = target_TO - prediction_TO
        return torch.maximum(self.quantile * residual, (self.quantile - 1) * residual).mean(-1)


class GaussianNLL(nn.Module):
    """``-log sum_k w_k prod_o N(y_o; mean_ko, std_ko^2)``: predicts the distribution.

    The likelihood of a mixture of Gaussian experts (Jacobs et al., 1991; Nguyen, Ho & Rinaldo,
    2025). Of one layer, components are the experts and w their routing weights; of a deep
    mixture, each member has one. Half of the outputs are means, the other half tells the
    logarithms of the standard deviations, which stay between ``exp(-7)`` and ``exp(7)`` times
    that of the target.
    """

    outputs_per_target = 2

    def forward(self, weights_MTK: Tensor, outputs_MTKO: Tensor, target_TO: Tensor) -> Tensor:
        """Loss ``loss_MT`` of each sample and member."""
        mean_MTKO, log_std_MTKO = self.components(outputs_MTKO)
        z_MTKO = (target_TO.unsqueeze(1) - mean_MTKO) * torch.exp(-log_std_MTKO)
        constant = math.log(2 * math.pi) / 2
        log_density_MTK = -(z_MTKO.square() / 2 + log_std_MTKO + constant).sum(-1)
        # The smallest number in place of 0: the gradient of log 0 is not finite.
        log_weights_MTK = weights_MTK.clamp_min(torch.finfo(weights_MTK.dtype).tiny).log()
        return -torch.logsumexp(log_weights_MTK + log_density_MTK, -1)

    @staticmethod
    def components(outputs_MTKO: Tensor) -> tuple[Tensor, Tensor]:
        """Means and logarithms of the standard deviations."""
        mean_MTKO, raw_MTKO = outputs_MTKO.chunk(2, -1)
        return mean_MTKO, LARGEST_LOG_STD * torch.tanh(raw_MTKO / LARGEST_LOG_STD)


def switch(routing: Routing, sample_weight_T: Tensor) -> Tensor:
    """``E sum_e usage_e score_e``: 1 when balanced, up to E at collapse.

    `usage` is the share of samples whose first choice is e, `score` their mean score
    (Fedus et al., 2022, eq. 4). Only the scores pass a gradient.

    Examples
    --------
    >>> import torch
    >>> from skmoe.nn.routers import SoftmaxRouter
    >>> collapsed = SoftmaxRouter()(torch.tensor([[[99.0, 0.0, 0.0, 0.0]]]))
    >>> switch(collapsed, torch.ones(1))
    tensor(4.)
    """
    weight_T = sample_weight_T / sample_weight_T.sum()
    scores_BE = torch.einsum("bte,t->be", routing.scores_BTE, weight_T)
    chosen = F.one_hot(routing.logits_BTE.argmax(-1), routing.n_experts).to(weight_T)
    usage_BE = torch.einsum("bte,t->be", chosen, weight_T)
    return routing.n_experts * (usage_BE * scores_BE).sum(-1).mean()


def pull_back_switch(
    logits_BTE: Tensor, sample_weight_BT: Tensor, n_experts: int | Tensor
) -> Tensor:
    """The gradient of `switch` for the scores of each block: ``dscores_BTE``.

    `n_experts` is the number of experts in all blocks, or those in each, ``(B, 1, 1)``. The
    product of the gradient with the scores sums to the loss, which is linear in them.
    """
    weight_BT1 = (sample_weight_BT / sample_weight_BT.sum(1, keepdim=True)).unsqueeze(2)
    chosen_BTE = torch.zeros_like(logits_BTE).scatter_(2, largest(logits_BTE, 1), weight_BT1)
    usage_B1E = chosen_BTE.sum(1, keepdim=True)
    return n_experts * usage_B1E * weight_BT1


def importance(routing: Routing, sample_weight_T: Tensor) -> Tensor:
    """Squared coefficient of variation of the experts' total score: 0 when equal.

    Shazeer et al. (2017), eq. 7.

    Examples
    --------
    >>> import torch
    >>> from skmoe.nn.routers import SoftmaxRouter
    >>> importance(SoftmaxRouter()(torch.zeros(1, 5, 4)), torch.ones(5))
    tensor(0.)
    """
    scores_BE = torch.einsum("bte,t->be", routing.scores_BTE, sample_weight_T)
    mean_B1 = scores_BE.mean(-1, keepdim=True)
    # Of scores that are all zero, as below a threshold, there is nothing to balance.
    tiny = torch.finfo(mean_B1.dtype).tiny
    shares_BE = torch.where(mean_B1 > 0, scores_BE / mean_B1.clamp_min(tiny), 1.0)
    return (shares_BE - 1).square().mean()


def z(routing: Routing, sample_weight_T: Tensor) -> Tensor:
    """Mean of ``logsumexp(logits)^2``, which keeps logits small (Zoph et al., 2022).

    Examples
    --------
    >>> import torch
    >>> from skmoe.nn.routers import SoftmaxRouter
    >>> z(SoftmaxRouter()(torch.zeros(1, 5, 4)), torch.ones(5))  # log(4)^2
    tensor(1.9218)
    """
    squares_BT = torch.logsumexp(routing.logits_BTE, -1).square()
    return (squares_BT @ (sample_weight_T / sample_weight_T.sum())).mean()


def mutual_information(routing: Routing, sample_weight_T: Tensor) -> Tensor:
    """``mean_t H(p_t) - H(mean_t p_t)``, minus the information that a row has of its expert.

    From ``-log E``, if each row is sure of its expert and all experts get the same, to 0, if
    all rows are routed alike: evenly or to one expert (Chen et al., Mod-Squad, 2023, with rows
    in place of tasks). So it asks for balance and for decisions at once.

    Examples
    --------
    >>> import torch
    >>> from skmoe.nn.routers import SoftmaxRouter
    >>> sure = SoftmaxRouter()(99 * torch.eye(4).unsqueeze(0))
    >>> mutual_information(sure, torch.ones(4))  # minus the logarithm of 4
    tensor(-1.3863)
    """
    scores_BTE = routing.scores_BTE
    tiny = torch.finfo(scores_BTE.dtype).tiny
    p_BTE = scores_BTE / scores_BTE.sum(-1, keepdim=True).clamp_min(tiny)
    weight_T = sample_weight_T / sample_weight_T.sum()
    mean_BE = torch.einsum("bte,t->be", p_BTE, weight_T)
    given_B = _entropy(p_BTE) @ weight_T
    return (given_B - _entropy(mean_BE)).mean()


def _entropy(p: Tensor) -> Tensor:
    """``-sum p log p`` along the last axis, with a finite gradient at 0."""
    return -(p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum(-1)


class GroupSparsity:
    """Experts that are neighbours on a map are asked together, far ones apart.

    The probabilities ``softmax(logits)`` are laid out as a map Z of r x c experts. With a
    normal filter G of h x h, the loss is the mean over rows of
    ``1 / (h^2 P) sum_p sqrt((G * Z^2)(p))`` over the P places p where the filter fits (Kang et
    al., Mixture of Group Experts, 2025). The root of a sum of squares is small where what
    there is lies together. The published code adds up the rows of a batch; here it is
    their mean, so that the size of a batch does not matter. Fewer filters reach an expert
    at the edge of the map, so that it costs less.

    Parameters
    ----------
    shape : (int, int), optional
        Rows r and columns c of the map; their product is the number of experts. By default
        the two divisors that are nearest to a square.
    filter_size : int, default=3
        Side h of the filter; less where the map has fewer rows or columns.
    width : (float, float), default=(10.0, 1.0)
        Standard deviation of the filter at the start and at the end of training, in experts;
        it falls fast at first, ``start - (start - end) t^0.2``.

    Examples
    --------
    >>> from skmoe import MoERegressor, part
    >>> from skmoe.datasets import make_circle_regression
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> losses = {part("group_sparsity", shape=(2, 4)): 0.01}
    >>> moe = MoERegressor(8, solver="adam", auxiliary_losses=losses, random_state=0).fit(X, y)
    >>> "group_sparsity_loss" in moe.history_[-1]
    True
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int] | None = None,
        filter_size: int = 3,
        width: tuple[float, float] = (10.0, 1.0),
    ):
        self.shape = None if shape is None else tuple(check_integer("shape", s) for s in shape)
        self.filter_size = check_integer("filter_size", filter_size)
        self.widths = tuple(check_number("width", w, open_=True) for w in width)
        self.anneal(0.0)

    def anneal(self, progress: float) -> None:
        """Set the filter's width for `progress` in [0, 1] through training."""
        start, end = self.widths
        self.width = start - (start - end) * progress**0.2

    def __call__(self, routing: Routing, sample_weight_T: Tensor) -> Tensor:
        shape = self.shape or _nearest_to_square(routing.n_experts)
        if math.prod(shape) != routing.n_experts:
            raise ValueError(
                "The map of group_sparsity must have a place for each expert. Got "
                f"shape={shape} and n_experts={routing.n_experts}."
            )
        squares_BTE = routing.logits_BTE.softmax(-1).square()
        n_blocks, n_rows, _ = squares_BTE.shape
        maps_N1RC = squares_BTE.reshape(n_blocks * n_rows, 1, *shape)
        sides = [_normal(min(self.filter_size, s), self.width, squares_BTE) for s in shape]
        filter_RC = torch.outer(*sides)
        means_NRC = F.conv2d(maps_N1RC, filter_RC[None, None])[:, 0]
        costs_BT = (means_NRC + 1e-8).sqrt().mean((1, 2)).view(n_blocks, n_rows)
        weight_T = sample_weight_T / sample_weight_T.sum()
        return (costs_BT @ weight_T).mean() / filter_RC.numel()


def _nearest_to_square(n: int) -> tuple[int, int]:
    """Two divisors whose product is n, the first the smaller one."""
    rows = max(r for r in range(1, math.isqrt(n) + 1) if n % r == 0)
    return rows, n // rows


def _normal(size: int, width: float, like: Tensor) -> Tensor:
    """Normal weights around the middle, which sum to one."""
    places = torch.arange(size).to(like) - (size - 1) / 2
    return torch.softmax(-((places / width) ** 2) / 2, 0)


LOSSES = Registry(
    "loss",
    {
        "squared_error": SquaredError,
        "absolute_error": AbsoluteError,
        "huber": Huber,
        "quantile": Quantile,
        "gaussian_nll": GaussianNLL,
    },
)
AUXILIARY_LOSSES = Registry(
    "auxiliary loss",
    {
        "switch": switch,
        "importance": importance,
        "z": z,
        "mutual_information": mutual_information,
        "group_sparsity": GroupSparsity,
    },
)


def outputs_per_target(loss: Spec) -> int:
    """How many outputs of a network a loss reads for each column of y."""
    return getattr(LOSSES.resolve(loss)[0], "outputs_per_target", 1)


def build_auxiliary(spec: Spec) -> Callable[[Routing, Tensor], Tensor]:
    """The function ``(routing, sample_weight_T) -> loss`` that `spec` names."""
    loss, settings = AUXILIARY_LOSSES.resolve(spec)
    return loss(**settings) if isinstance(loss, type) else loss
