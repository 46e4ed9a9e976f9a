"""What a router is, and what it answers: `Router` and `Routing`.

The routers themselves are in `routers`.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Routing(NamedTuple):
    """A router's answer for a batch: which experts answer, and with what weight."""

    weights_BTK: Tensor
    """Weight of each asked expert."""
    expert_ids_BTK: Tensor | None
    """Asked experts of each sample; None when all are asked, in order (K = E)."""
    scores_BTE: Tensor
    """Weights that all experts would have had: what balance losses look at."""
    logits_BTE: Tensor
    """What the gate said of each expert."""
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

    def usage(self, sample_weight: Tensor | None = None) -> Tensor:
        """Share of the routing weight that each expert got, ``usage_BE``; sums to one.

        Samples have weights of shape ``(T,)``, or ``(B, T)``.
        """
        load_BTE = self.dense_weights().detach()
        if sample_weight is not None:
            load_BTE = load_BTE * sample_weight.unsqueeze(-1)
        load_BE = load_BTE.sum(1)
        return load_BE / load_BE.sum(-1, keepdim=True).clamp_min(1e-30)


class Router(nn.Module, ABC):
    """Weigh the experts by `scores`; with `top_k`, keep only the best ones.

    Parameters
    ----------
    top_k : int, optional
        Experts kept per sample. None asks all of them.
    renormalize : bool or None, default=None
        Whether the weights of the kept experts, or of all if all are asked, are scaled to sum
        to one. None: yes for ``top_k >= 2``, no where all are asked, and no for ``top_k = 1``,
        where the weight then is the chosen expert's score among all (the form of the Switch
        transformer). Renormalised, that weight is exactly 1, as in Wang & E (2025), eq. (1)
        with K = 1: right for hand-set weights, but its gradient is zero, so the gate cannot
        learn.
    """

    sums_to_one = True  # whether `scores` sum to one over the experts
    usual_top_k: int | None = None  # what top_k="auto" means; None: that is for all the same
    own_gate: str | None = None  # the only gate that it goes with; None: any

    def __init__(self, top_k: int | None = None, *, renormalize: bool | None = None):
        super().__init__()
        self.top_k = top_k
        self.renormalize = top_k not in (None, 1) if renormalize is None else renormalize

    def prepare(self, n_blocks: int, n_experts: int) -> None:
        """Check settings against these numbers and make buffers, once, in a new layer."""

    def n_scores(self, n_experts: int) -> int:
        """How many scores the gate has to give: those of the experts come first."""
        return n_experts

    def gate_settings(self, n_experts: int) -> dict[str, Any]:
        """Settings of the gate, where the user gave no others."""
        return {}

    def logits(self, said_BTS: Tensor) -> Tensor:
        """``logits_BTE`` of the experts, from all that the gate said."""
        return said_BTS

    @abstractmethod
    def scores(self, said_BTS: Tensor) -> Tensor:
        """Weight ``scores_BTE`` of every expert if all were asked; not negative."""

    def choose(self, logits_BTE: Tensor, k: int) -> Tensor:
        """The experts ``ids_BTK`` that are asked."""
        # By logits: scores can tie where they are rounded to 0 or 1.
        return largest(logits_BTE, k)

    @property
    def weights_sum_to_one(self) -> bool:
        all_asked = self.top_k is None
        return (all_asked and self.sums_to_one) or self.renormalize

    @property
    def gate_can_learn(self) -> bool:
        return not (self.top_k == 1 and self.renormalize)

    def forward(self, said_BTS: Tensor) -> Routing:
        logits_BTE, scores_BTE = self.logits(said_BTS), self.scores(said_BTS)
        if self.top_k is None or self.top_k >= logits_BTE.shape[-1]:
            weights_BTE = scores_BTE if self.sums_to_one else self._scale(scores_BTE)
            return Routing(weights_BTE, None, scores_BTE, logits_BTE)
        expert_ids_BTK = self.choose(logits_BTE.detach(), self.top_k)
        weights_BTK = self._scale(scores_BTE.gather(-1, expert_ids_BTK))
        return Routing(weights_BTK, expert_ids_BTK, scores_BTE, logits_BTE)

    def _scale(self, weights_BTK: Tensor) -> Tensor:
        if not self.renormalize:
            return weights_BTK
        total_BT1 = weights_BTK.sum(-1, keepdim=True)
        # Zero only where all weights are.
        return weights_BTK / total_BT1.clamp_min(torch.finfo(total_BT1.dtype).tiny)


def largest(values_BTE: Tensor, k: int) -> Tensor:
    """Indices of the k largest values, in no particular order.

    `torch.topk` is slow on the CPU: for k of 1 and 2, passes of `argmax` are several times
    faster and break ties towards the first expert.
    """
    if k > 2:
        return values_BTE.topk(k, sorted=False).indices
    first = _argmax(values_BTE)
    if k == 1:
        return first
    if values_BTE.stride(-1) == 1:
        rest_BTE = values_BTE.scatter(-1, first, -torch.inf)
    else:  # experts come first in memory, and in that of the rest
        rest_BTE = values_BTE.mT.scatter(-2, first.mT, -torch.inf).mT
    return torch.cat([first, _argmax(rest_BTE)], -1)


def _argmax(values_BTE: Tensor) -> Tensor:
    """Index of the largest value along the last axis, which stays.

    On the CPU, numpy finds that of hundreds in a tenth of the time.
    """
    if values_BTE.device.type == "cpu" and not torch.compiler.is_exporting():
        try:
            return torch.from_numpy(values_BTE.numpy().argmax(-1, keepdims=True))
        except RuntimeError:  # models side by side have no memory of their own
            pass
    return values_BTE.argmax(-1, keepdim=True)


def softmax_over_experts(logits_BTE: Tensor) -> Tensor:
    """The softmax over experts.

    Along the last axis: along any other, what torch computes for a row depends on where in the
    rows of a thread it stands, and so on the number of threads.
    """
    return torch.softmax(logits_BTE.contiguous(), -1)
