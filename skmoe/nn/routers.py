"""Routers: the weightless rule from logits to a choice, ``logits -> Routing``.

Contract. A router is a `Router` with a method `scores`, from ``logits_BTE`` to the weight
that every expert would have if all were asked. Keeping only the best `top_k` is the same
for all routers and done once, in the base class.

To add a router, copy the nearest one and name it in `ROUTERS` at the bottom.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from skmoe._optional import import_optional
from skmoe._registry import Registry
from skmoe._settings import check_number


class Routing(NamedTuple):
    """A router's answer for a batch: which experts answer, and with what weight."""

    weights_BTK: Tensor
    """Weight of each asked expert."""
    expert_ids_BTK: Tensor | None
    """Asked experts of each sample; None when all are asked, in order (K = E)."""
    scores_BTE: Tensor
    """Weights that all experts would have had: what balance losses look at."""
    logits_BTE: Tensor
    """What the gate said."""
    reconstruction_BT: Tensor | None = None
    """Squared error of an encoder with decoder, weighted; None without one."""

    @property
    def n_experts(self) -> int:
        return self.logits_BTE.shape[-1]

    def dense_weights(self) -> Tensor:
        """The weights as ``weights_BTE``, zero for experts that were not asked."""
        if self.expert_ids_BTK is None:
            return self.weights_BTK
        dense = torch.zeros_like(self.scores_BTE)
        return dense.scatter(-1, self.expert_ids_BTK, self.weights_BTK)

    def usage(self, sample_weight_T: Tensor | None = None) -> Tensor:
        """Share of the routing weight that each expert got, ``usage_BE``; sums to one."""
        load_BTE = self.dense_weights().detach()
        if sample_weight_T is not None:
            load_BTE = load_BTE * sample_weight_T[:, None]
        load_BE = load_BTE.sum(1)
        return load_BE / load_BE.sum(-1, keepdim=True).clamp_min(1e-30)


class Router(ABC):
    """Weigh the experts by `scores`; with `top_k`, keep only the best ones.

    Parameters
    ----------
    top_k : int, optional
        Experts kept per sample. None asks all of them.
    renormalize : bool or None, default=None
        Whether the weights of the kept experts are scaled to sum to one. None: yes for
        ``top_k >= 2``, no for ``top_k = 1``, where the weight then is the chosen expert's
        score among all (the form of the Switch transformer). Renormalised, that weight is
        exactly 1, as in Wang & E (2025), eq. (1) with K = 1: right for hand-set weights,
        but its gradient is zero, so the gate cannot learn.
    """

    sums_to_one = True  # whether `scores` sum to one over the experts

    def __init__(self, top_k: int | None = None, *, renormalize: bool | None = None):
        self.top_k = top_k
        self.renormalize = top_k != 1 if renormalize is None else renormalize

    @abstractmethod
    def scores(self, logits_BTE: Tensor) -> Tensor:
        """Weight of every expert if all were asked; not negative."""

    @property
    def weights_sum_to_one(self) -> bool:
        return self.sums_to_one if self.top_k is None else self.renormalize

    @property
    def gate_can_learn(self) -> bool:
        return not (self.top_k == 1 and self.renormalize)

    def __call__(self, logits_BTE: Tensor) -> Routing:
        scores_BTE = self.scores(logits_BTE)
        if self.top_k is None:
            return Routing(scores_BTE, None, scores_BTE, logits_BTE)
        if self.top_k >= logits_BTE.shape[-1]:
            weights_BTE = scores_BTE if self.sums_to_one else self._scale(scores_BTE)
            return Routing(weights_BTE, None, scores_BTE, logits_BTE)
        # Chosen by logits: scores can tie where they are rounded to 0 or 1.
        expert_ids_BTK = largest(logits_BTE.detach(), self.top_k)
        weights_BTK = self._scale(scores_BTE.gather(-1, expert_ids_BTK))
        return Routing(weights_BTK, expert_ids_BTK, scores_BTE, logits_BTE)

    def _scale(self, weights_BTK: Tensor) -> Tensor:
        if not self.renormalize:
            return weights_BTK
        return weights_BTK / weights_BTK.sum(-1, keepdim=True)


def largest(values_BTE: Tensor, k: int) -> Tensor:
    """Indices of the k largest values, in no particular order.

    `torch.topk` is slow on the CPU: for k of 1 and 2, passes of `max` are several times
    faster and break ties towards the first expert.
    """
    first = values_BTE.argmax(-1, keepdim=True)
    if k == 1:
        return first
    if k == 2:
        second = values_BTE.scatter(-1, first, -torch.inf).argmax(-1, keepdim=True)
        return torch.cat([first, second], -1)
    return values_BTE.topk(k, sorted=False).indices


def softmax_over_experts(logits_BTE: Tensor) -> Tensor:
    """The softmax along the last axis, which is short.

    On the CPU, `torch.softmax` is six times as fast along an axis that is not the last.
    """
    return torch.softmax(logits_BTE.mT.contiguous(), -2).mT


class SoftmaxRouter(Router):
    """``exp(logit_e) / sum_j exp(logit_j)``; a constant added to all logits changes nothing."""

    def scores(self, logits_BTE: Tensor) -> Tensor:
        return softmax_over_experts(logits_BTE)


class NormalizedSigmoidRouter(Router):
    """``sigmoid(logit_e) / sum_j sigmoid(logit_j)`` (DeepSeek-V3; Nguyen et al., 2025).

    Estimates experts at better rates than softmax (arXiv 2505.10860, theorem 4), and is
    not invariant to a constant added to all logits.
    """

    def scores(self, logits_BTE: Tensor) -> Tensor:
        # The softmax of log-sigmoids is the same number, and 0/0 cannot happen.
        return softmax_over_experts(F.logsigmoid(logits_BTE))


class EntmaxRouter(Router):
    """Weights of exactly zero for all but the likeliest experts, as many as a row needs.

    Maximises ``w.logits + H_alpha(w)`` over weights that sum to one, where H is Tsallis'
    entropy (Peters, Niculae & Martins, 2019); the gate of the multilinear mixture (Oldfield
    et al., 2024). As with softmax, a constant added to all logits changes nothing. An expert
    whose weight is zero learns nothing from that row, nor does its gate. Computed by the
    package entmax.

    Parameters
    ----------
    top_k : int, optional
        Experts kept per sample; their weights may be zero, too.
    alpha : float, default=1.5
        Above 1. Towards 1 it becomes softmax; 2 is sparsemax (Martins & Astudillo, 2016).
    renormalize : bool or None, default=None
        As of every router.
    """

    def __init__(
        self, top_k: int | None = None, *, alpha: float = 1.5, renormalize: bool | None = None
    ):
        super().__init__(top_k, renormalize=renormalize)
        self._weigh = _entmax(check_number("alpha", alpha, smallest=1.0, open_=True))

    def scores(self, logits_BTE: Tensor) -> Tensor:
        return self._weigh(logits_BTE, dim=-1)


def _entmax(alpha: float) -> Callable[..., Tensor]:
    """The fastest exact form that there is."""
    entmax = import_optional("entmax", "router='entmax' needs entmax", "parts")
    exact = {1.5: entmax.entmax15, 2.0: entmax.sparsemax}
    return exact.get(alpha) or partial(entmax.entmax_bisect, alpha=alpha)


ROUTERS = Registry(
    "router",
    {
        "softmax": SoftmaxRouter,
        "normalized_sigmoid": NormalizedSigmoidRouter,
        "entmax": EntmaxRouter,
    },
)
