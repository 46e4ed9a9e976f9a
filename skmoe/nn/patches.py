"""A gate with more regions than experts: `PatchGate`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from skmoe._settings import check_integer
from skmoe.nn.base_gates import Gate
from skmoe.nn.polynomials import StackedPolynomial


class PatchGate(Gate):
    """Many regions, shared out among fewer experts.

    ``logit_e = max_{r of e} s_r(x) / T`` with ``s_r(x) = a_r.x + b_r``, over the regions r of
    expert e. Regions that do not touch can share an expert, as colours are shared by the
    countries of a map: the expert then need not jump.

    Parameters
    ----------
    n_regions : int, optional
        Number of regions, by default twice as many as experts. Region r belongs to expert
        ``r % n_experts`` at first.
    degree : int, default=1
        Of the polynomials s_r, for borders that are curved.

    Examples
    --------
    >>> import torch
    >>> gate = PatchGate(1, n_inputs=1, n_experts=2, n_regions=3)
    >>> maps = torch.tensor([[[-4.0], [0.0], [4.0]]]), torch.tensor([[-2.0, 0.0, -2.0]])
    >>> gate.set_regions(torch.tensor([[0, 1, 0]]), maps)
    >>> gate(torch.tensor([[[-1.0], [0.1], [1.0]]])).argmax(-1)  # left, middle, right
    tensor([[0, 1, 0]])
    """

    def __init__(
        self,
        n_blocks: int,
        n_inputs: int,
        n_experts: int,
        *,
        n_regions: int | None = None,
        degree: int = 1,
        generator: Generator | None = None,
        **shared: Any,
    ):
        super().__init__(n_blocks, n_inputs, n_experts, generator=generator, **shared)
        n_regions = (
            2 * n_experts if n_regions is None else check_integer("n_regions", n_regions)
        )
        if n_regions < n_experts:
            raise ValueError(
                "n_regions must be at least n_experts. "
                f"Got n_regions={n_regions} and n_experts={n_experts}."
            )
        self.regions = StackedPolynomial(
            n_blocks, n_inputs, n_regions, degree=degree, generator=generator
        )
        in_turn = torch.arange(n_regions).expand(n_blocks, -1) % n_experts
        self.expert_ids_BR: Tensor
        self.register_buffer("expert_ids_BR", in_turn.clone())

    @torch.no_grad()
    def set_regions(self, expert_ids_BR: Tensor, regions: Sequence[Tensor]) -> None:
        """Start here: expert of each region; slopes ``(B, R, D)`` and offsets ``(B, R)``."""
        slopes_BRD, offsets_BR = regions
        self.expert_ids_BR.copy_(expert_ids_BR)
        self.regions.weight.copy_(slopes_BRD.mT)
        self.regions.bias.copy_(offsets_BR.unsqueeze(1))

    @property
    def n_regions(self) -> int:
        return self.expert_ids_BR.shape[1]

    def scores_of_regions(self, x_BTD: Tensor) -> Tensor:
        """Scores ``(B, T, R)`` without a temperature."""
        return self.regions(x_BTD)

    def experts_in_regions(self, x_BTD: Tensor) -> Tensor:
        """Weights ``(B, 1, R, E)`` of the experts for rows that were in each region."""
        owners = torch.nn.functional.one_hot(self.expert_ids_BR, self.shape[2])
        return owners.unsqueeze(1).to(x_BTD)

    def best_in_regions(self, x_BTD: Tensor) -> Tensor:
        """Logits ``(B, T, R)`` of experts but for scores of regions: there is nothing else."""
        return x_BTD.new_zeros((*x_BTD.shape[:2], self.n_regions))

    def score(self, x_BTD: Tensor) -> Tensor:
        scores_BTR = self.regions(x_BTD)
        ids_BTR = self.expert_ids_BR.unsqueeze(1).expand(scores_BTR.shape)
        lowest = scores_BTR.new_full((*scores_BTR.shape[:2], self.shape[2]), -torch.inf)
        return lowest.scatter_reduce(-1, ids_BTR, scores_BTR, "amax")
