"""The router by which experts choose rows, instead of rows experts: `ExpertChoiceRouter`."""

import torch
from torch import Tensor
from torch.nn import functional as F

from skmoe.nn.base_routers import Router, Routing, softmax_over_experts

# Share of a batch in the running mean of the score that a row needs to be chosen.
MOMENTUM = 0.05


class ExpertChoiceRouter(Router):
    """Experts choose rows: in training, each the same number of those that it scores highest.

    Zhou et al. (2022): of a batch of T rows, each of E experts takes ``T top_k / E``, so that
    loads are even by construction, and a row is answered by as many experts as chose it. One
    that nobody chose is not learned from in this step. As predictions must not depend on
    which rows come together, an expert then answers the rows above a threshold instead: the
    running mean of the least score that got a row chosen; a row that nobody chooses
    goes to its likeliest expert. All experts are evaluated for all rows.

    Parameters
    ----------
    top_k : int, optional
        Experts per sample, in the mean; "auto" is 2.
    renormalize : bool or None, default=None
        As of every router.

    Examples
    --------
    >>> import torch
    >>> router = ExpertChoiceRouter(2)
    >>> router.prepare(n_blocks=1, n_experts=4)
    >>> logits = torch.arange(32.0).sin().view(1, 8, 4)
    >>> (router(logits).weights_BTK > 0).sum(1).tolist()  # 8 rows, 2 of 4 experts each
    [[4, 4, 4, 4]]
    """

    usual_top_k = 2
    threshold_BE: Tensor

    def prepare(self, n_blocks: int, n_experts: int) -> None:
        # Before any training, every row goes to its likeliest expert.
        self.register_buffer("threshold_BE", torch.full((n_blocks, n_experts), torch.inf))

    def scores(self, said_BTS: Tensor) -> Tensor:
        return softmax_over_experts(said_BTS)

    def forward(self, said_BTS: Tensor) -> Routing:
        if self.top_k is None or self.top_k >= said_BTS.shape[-1]:
            return super().forward(said_BTS)
        scores_BTE = self.scores(said_BTS)
        known_BTE = scores_BTE.detach()
        if self.training:
            share = self.top_k / said_BTS.shape[-1]
            chosen_BTE = self._in_batch(known_BTE, share)
        else:
            chosen_BTE = self._alone(known_BTE)
        return Routing(self._scale(scores_BTE * chosen_BTE), None, scores_BTE, said_BTS)

    def _in_batch(self, scores_BTE: Tensor, share: float) -> Tensor:
        """The share of the rows that each expert chooses; thresholds follow."""
        capacity = max(1, round(scores_BTE.shape[1] * share))
        best_BCE, rows_BCE = scores_BTE.topk(capacity, dim=1)
        least_BE = best_BCE[:, -1]
        known_BE = self.threshold_BE.isfinite()
        moved_BE = self.threshold_BE + MOMENTUM * (least_BE - self.threshold_BE)
        self.threshold_BE.copy_(torch.where(known_BE, moved_BE, least_BE))
        return torch.zeros_like(scores_BTE).scatter_(1, rows_BCE, 1.0)

    def _alone(self, scores_BTE: Tensor) -> Tensor:
        """The experts that choose each row, whatever the other rows are."""
        chosen_BTE = scores_BTE >= self.threshold_BE.unsqueeze(1)
        likeliest_BTE = F.one_hot(scores_BTE.argmax(-1), scores_BTE.shape[-1]).bool()
        return chosen_BTE | (likeliest_BTE & ~chosen_BTE.any(-1, keepdim=True))
