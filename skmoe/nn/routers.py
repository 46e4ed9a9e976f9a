"""Routers: the rule from logits to a choice, ``logits -> Routing``, which learns nothing.

Contract. A router is a `Router` (`base_routers`) with a method `scores`, from what the gate
says to the weight that every expert would have if all were asked. Keeping only the best `top_k`
is the same for all routers and done once, in the base class. A router has no weights; what it
counts in training, such as a threshold, is a buffer. If it needs more of a gate than a score
for each expert, it says so in `n_scores`, and in `gate_settings`.

To add a router, copy the nearest one and name it in `ROUTERS` at the bottom. The one by which
experts choose rows has a file of its own, `expert_choice`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from skmoe._optional import import_optional
from skmoe._registry import Registry
from skmoe._settings import check_integer, check_number
from skmoe.nn.base_routers import Router, largest, softmax_over_experts
from skmoe.nn.expert_choice import ExpertChoiceRouter


class SoftmaxRouter(Router):
    """``exp(logit_e) / sum_j exp(logit_j)``; a constant added to all logits changes nothing.

    Examples
    --------
    >>> import torch
    >>> router = SoftmaxRouter(top_k=2)
    >>> router(torch.tensor([[[0.0, 0.0, -1.0]]])).weights_BTK
    tensor([[[0.5000, 0.5000]]])
    """

    def scores(self, said_BTS: Tensor) -> Tensor:
        return softmax_over_experts(self.logits(said_BTS))


class NoisyTopKRouter(SoftmaxRouter):
    """Softmax of the largest logits, to which noise was added in training.

    Shazeer et al. (2017), eqs. 3 to 5, with a noise of fixed size, as Riquelme et al. (2021).
    An expert that is nearly as good as another one is asked as well now and then, and
    both go on learning. Predictions are without noise.

    Parameters
    ----------
    top_k : int, optional
        Experts kept per sample; "auto" is 2.
    noise : float, optional
        Standard deviation, in logits; ``1 / n_experts`` by default. That of the gate is used
        instead if it is given there.
    renormalize : bool or None, default=None
        As of every router.

    Examples
    --------
    >>> NoisyTopKRouter(2).gate_settings(n_experts=4)
    {'noise': 0.25}
    """

    usual_top_k = 2

    def __init__(
        self,
        top_k: int | None = None,
        *,
        noise: float | None = None,
        renormalize: bool | None = None,
    ):
        super().__init__(top_k, renormalize=renormalize)
        self.noise = None if noise is None else check_number("noise", noise)

    def gate_settings(self, n_experts: int) -> dict[str, Any]:
        return {"noise": 1 / n_experts if self.noise is None else self.noise}


class HierarchicalRouter(SoftmaxRouter):
    """Softmax over groups of experts, times a softmax over the experts of a group.

    ``w_e = softmax(group logits)_g(e) softmax(logits of group g(e))_e`` (Jordan & Jacobs, 1994;
    Nguyen, Ho & Rinaldo, 2025, section 4). The gate scores the groups besides the experts.
    Experts ``0, 1, ...`` form the first group, and so on; with one group it is the softmax.

    Parameters
    ----------
    top_k : int, optional
        Experts kept per sample, whatever their groups.
    n_groups : int, optional
        Number of groups, of one size. By default the largest number up to the root of
        `n_experts` that divides it.
    renormalize : bool or None, default=None
        As of every router.

    Examples
    --------
    >>> import torch
    >>> router = HierarchicalRouter(n_groups=2)
    >>> router.prepare(n_blocks=1, n_experts=4)
    >>> router(torch.zeros(1, 1, router.n_scores(4))).weights_BTK
    tensor([[[0.2500, 0.2500, 0.2500, 0.2500]]])
    """

    def __init__(
        self,
        top_k: int | None = None,
        *,
        n_groups: int | None = None,
        renormalize: bool | None = None,
    ):
        super().__init__(top_k, renormalize=renormalize)
        self.n_groups = None if n_groups is None else check_integer("n_groups", n_groups)

    def prepare(self, n_blocks: int, n_experts: int) -> None:
        if n_experts % self._groups(n_experts):
            raise ValueError(
                "n_groups must divide n_experts. "
                f"Got n_groups={self.n_groups} and n_experts={n_experts}."
            )
        self.n_experts = n_experts

    def n_scores(self, n_experts: int) -> int:
        n_groups = self._groups(n_experts)
        return n_experts + n_groups if n_groups > 1 else n_experts

    def logits(self, said_BTS: Tensor) -> Tensor:
        logits_BTE, groups_BTG = said_BTS.tensor_split([self.n_experts], -1)
        if groups_BTG.shape[-1] == 0:
            return logits_BTE
        within_BTGE = logits_BTE.unflatten(-1, (groups_BTG.shape[-1], -1)).log_softmax(-1)
        return (groups_BTG.log_softmax(-1).unsqueeze(-1) + within_BTGE).flatten(-2)

    def _groups(self, n_experts: int) -> int:
        if self.n_groups is not None:
            return self.n_groups
        return max(g for g in range(1, math.isqrt(n_experts) + 1) if n_experts % g == 0)


class NormalizedSigmoidRouter(Router):
    """``sigmoid(logit_e) / sum_j sigmoid(logit_j)`` (DeepSeek-V3; Nguyen et al., 2025).

    Estimates experts at better rates than softmax (arXiv 2505.10860, theorem 4), and is
    not invariant to a constant added to all logits.

    Parameters
    ----------
    top_k : int, optional
        Experts kept per sample.
    balance_rate : float, default=0.0
        If positive, experts are chosen by ``sigmoid(logit_e) + bias_e``, and after each batch
        the bias of those that were asked by less than the mean grows by this, that of the
        others falls. It balances the load without a loss (Wang et al., 2024, as in
        DeepSeek-V3, with 0.001) and never enters a weight. Needs `top_k`.
    renormalize : bool or None, default=None
        As of every router.

    Examples
    --------
    >>> import torch
    >>> NormalizedSigmoidRouter()(torch.zeros(1, 1, 2)).weights_BTK
    tensor([[[0.5000, 0.5000]]])
    """

    bias_B1E: Tensor

    def __init__(
        self,
        top_k: int | None = None,
        *,
        balance_rate: float = 0.0,
        renormalize: bool | None = None,
    ):
        super().__init__(top_k, renormalize=renormalize)
        self.balance_rate = check_number("balance_rate", balance_rate)
        if self.balance_rate > 0 and top_k is None:
            raise ValueError(
                "balance_rate steers which experts are asked, and needs top_k. Got "
                f"balance_rate={balance_rate!r} and top_k=None, which asks all."
            )

    def prepare(self, n_blocks: int, n_experts: int) -> None:
        if self.balance_rate > 0:
            self.register_buffer("bias_B1E", torch.zeros(n_blocks, 1, n_experts))

    def scores(self, said_BTS: Tensor) -> Tensor:
        # The softmax of log-sigmoids is the same number, and 0/0 cannot happen.
        return softmax_over_experts(F.logsigmoid(said_BTS))

    def choose(self, logits_BTE: Tensor, k: int) -> Tensor:
        if self.balance_rate == 0:
            return super().choose(logits_BTE, k)
        ids_BTK = largest(logits_BTE.sigmoid() + self.bias_B1E, k)
        if self.training:
            load_BE = F.one_hot(ids_BTK, logits_BTE.shape[-1]).sum((1, 2)).to(self.bias_B1E)
            missing_BE = load_BE.mean(-1, keepdim=True) - load_BE
            self.bias_B1E += self.balance_rate * missing_BE.sign().unsqueeze(1)
        return ids_BTK


class SigmoidRouter(Router):
    """``relu(sigmoid(logit_e) - threshold)``, each expert for itself; weights have no sum.

    The router of the mixture of adapters (Cao et al., 2025). Experts below the threshold are
    not asked, so that each row asks as many as it needs, from none to all; the published rule
    keeps the whole sigmoid above the threshold, which jumps there and gives a learned one
    no gradient.

    Parameters
    ----------
    top_k : int, optional
        Experts kept per sample at most.
    threshold : float or "learn", default=0.0
        A number in [0, 1). "learn" makes it a function of the input,
        ``max_threshold * sigmoid(score)``, with one more score of the gate.
    max_threshold : float, default=0.5
        Largest value of a learned threshold.
    renormalize : bool, default=False
        Whether the weights are scaled to sum to one, if there are any.

    Examples
    --------
    >>> import torch
    >>> SigmoidRouter(threshold=0.5)(torch.tensor([[[-1.0, 0.0, 2.0]]])).weights_BTK
    tensor([[[0.0000, 0.0000, 0.3808]]])
    """

    sums_to_one = False

    def __init__(
        self,
        top_k: int | None = None,
        *,
        threshold: float | str = 0.0,
        max_threshold: float = 0.5,
        renormalize: bool | None = False,
    ):
        super().__init__(top_k, renormalize=bool(renormalize))
        self.learns = threshold == "learn"
        self.threshold = 0.0 if self.learns else check_number("threshold", threshold, below=1.0)
        self.max_threshold = check_number("max_threshold", max_threshold, below=1.0, open_=True)

    def n_scores(self, n_experts: int) -> int:
        return n_experts + self.learns

    def logits(self, said_BTS: Tensor) -> Tensor:
        return said_BTS[..., :-1] if self.learns else said_BTS

    def scores(self, said_BTS: Tensor) -> Tensor:
        sigmoid_BTE = self.logits(said_BTS).sigmoid()
        if self.learns:
            return F.relu(sigmoid_BTE - self.max_threshold * said_BTS[..., -1:].sigmoid())
        return F.relu(sigmoid_BTE - self.threshold)


class HashRouter(Router):
    """Experts by a hash of the row, with equal weights; nothing about choosing is learned.

    Roller et al. (2021): a yardstick for what a learned gate is worth. The gate is
    `HashGate`.

    Parameters
    ----------
    top_k : int, optional
        Experts per sample; "auto" is 1.
    renormalize : bool or None, default=None
        False leaves each weight at ``1 / n_experts``; otherwise they sum to one.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(4, router="hash", max_epochs=5, random_state=0).fit(X, y)
    >>> (moe.predict_gates(X) == 1).sum(axis=1).max()
    np.int64(1)
    """

    usual_top_k = 1
    own_gate = "hash"
    gate_can_learn = True  # there is nothing to learn

    def __init__(self, top_k: int | None = None, *, renormalize: bool | None = None):
        super().__init__(top_k, renormalize=renormalize is not False)

    def scores(self, said_BTS: Tensor) -> Tensor:
        return torch.full_like(said_BTS, 1 / said_BTS.shape[-1])


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

    Examples
    --------
    >>> import torch
    >>> EntmaxRouter()(torch.tensor([[[0.0, 0.0, -4.0]]])).weights_BTK
    tensor([[[0.5000, 0.5000, 0.0000]]])
    """

    def __init__(
        self, top_k: int | None = None, *, alpha: float = 1.5, renormalize: bool | None = None
    ):
        super().__init__(top_k, renormalize=renormalize)
        self._weigh = _entmax(check_number("alpha", alpha, smallest=1.0, open_=True))

    def scores(self, said_BTS: Tensor) -> Tensor:
        return self._weigh(said_BTS, dim=-1)


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
        "sigmoid": SigmoidRouter,
        "entmax": EntmaxRouter,
        "hierarchical": HierarchicalRouter,
        "noisy_top_k": NoisyTopKRouter,
        "expert_choice": ExpertChoiceRouter,
        "hash": HashRouter,
    },
)
