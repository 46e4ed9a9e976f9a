"""A gate of two levels, regions and the experts within them: `RegionGate`."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from skmoe.nn.base_gates import Gate
from skmoe.nn.polynomials import StackedPolynomial
from skmoe.nn.stacked import StackedLinear


class RegionGate(Gate):
    """Sharp borders between regions, soft ones between the experts of a region.

    ``logit_e = s_r(x) / T + c_e.x + d_e`` for expert e in region r, with ``s_r(x) = a_r.x +
    b_r``: a hierarchy of two levels (Jordan & Jacobs, 1994). The temperature T sharpens the
    choice of a region only, so that the experts of one region all go on learning, however
    sharp its borders become.

    Parameters
    ----------
    degree : int, default=1
        Of the polynomials s_r, for borders that are curved.

    Examples
    --------
    >>> import torch
    >>> gate = RegionGate(1, n_inputs=1, n_experts=4)
    >>> slopes, offsets = torch.tensor([[[-9.0], [9.0], [0.0], [0.0]]]), torch.zeros(1, 4)
    >>> cells = torch.zeros(1, 4, 1), offsets
    >>> gate.set_regions(torch.tensor([[0, 0, 1, 1]]), (slopes, offsets), cells)
    >>> gate(torch.ones(1, 1, 1)).softmax(-1).round(decimals=2)  # two regions of two experts
    tensor([[[0.0000, 0.0000, 0.5000, 0.5000]]], grad_fn=<RoundBackward1>)
    """

    def __init__(
        self,
        n_blocks: int,
        n_inputs: int,
        n_experts: int,
        *,
        degree: int = 1,
        generator: Generator | None = None,
        **shared: Any,
    ):
        super().__init__(n_blocks, n_inputs, n_experts, generator=generator, **shared)
        self.regions = StackedPolynomial(
            n_blocks, n_inputs, n_experts, degree=degree, generator=generator
        )
        self.cells = StackedLinear(n_blocks, n_inputs, n_experts, generator=generator)
        each_its_own = torch.arange(n_experts).expand(n_blocks, -1).clone()
        self.region_ids_BE: Tensor
        self.register_buffer("region_ids_BE", each_its_own)

    @torch.no_grad()
    def set_regions(
        self, region_ids_BE: Tensor, regions: Sequence[Tensor], cells: Sequence[Tensor]
    ) -> None:
        """Start here: region of each expert; slopes ``(B, E, D)`` and offsets ``(B, E)``.

        Of the maps of regions, the first ones are used, as many as there are regions. Their
        slopes are those of all products in a polynomial.
        """
        self.region_ids_BE.copy_(region_ids_BE)
        for maps, (slopes_BED, offsets_BE) in ((self.regions, regions), (self.cells, cells)):
            maps.weight.copy_(slopes_BED.mT)
            maps.bias.copy_(offsets_BE.unsqueeze(1))

    @property
    def n_regions(self) -> int:
        return int(self.region_ids_BE.max()) + 1

    def scores_of_regions(self, x_BTD: Tensor) -> Tensor:
        """Scores ``(B, T, R)`` without a temperature; the lowest of regions without experts."""
        has_experts_BR = self._experts_of_regions().any(-1)
        scores_BTR = self.regions(x_BTD)[..., : self.n_regions]
        return scores_BTR.masked_fill(~has_experts_BR.unsqueeze(1), -torch.inf)

    def experts_in_regions(self, x_BTD: Tensor) -> Tensor:
        """Weights ``(B, T, R, E)`` of the experts for rows that were in each region.

        Not a number for regions whose experts have been given others.
        """
        return self._cells_in_regions(x_BTD).softmax(-1)

    def best_in_regions(self, x_BTD: Tensor) -> Tensor:
        """Logits ``(B, T, R)`` of the best expert of each region but for the region's score."""
        return self._cells_in_regions(x_BTD).amax(-1)

    def _cells_in_regions(self, x_BTD: Tensor) -> Tensor:
        """Logits ``(B, T, R, E)`` but for scores of regions; the lowest of others' experts."""
        elsewhere_BRE = ~self._experts_of_regions()
        cells_BT1E = self.cells(x_BTD).unsqueeze(2)
        return cells_BT1E.masked_fill(elsewhere_BRE.unsqueeze(1), -torch.inf)

    def _experts_of_regions(self) -> Tensor:
        """Whether each expert is one of each region, ``(B, R, E)``."""
        names = torch.arange(self.n_regions, device=self.region_ids_BE.device)
        return self.region_ids_BE.unsqueeze(1) == names.unsqueeze(1)

    @torch.no_grad()
    def split(self, block: int, old: int, new: int, slope_D: Tensor, middle: Tensor) -> None:
        """Share the rows of expert `old` with `new`, evenly where ``slope.x = middle``."""
        self.region_ids_BE[block, new] = self.region_ids_BE[block, old]
        weight_DE, bias_E = self.cells.weight[block], self.cells.bias[block, 0]
        weight_DE[:, new] = weight_DE[:, old] - slope_D
        weight_DE[:, old] += slope_D
        half = bias_E[old] - math.log(2)
        bias_E[new] = half + middle
        bias_E[old] = half - middle

    def score(self, x_BTD: Tensor) -> Tensor:
        temperature = self.log_temperature.exp()
        ids_B1E = self.region_ids_BE.unsqueeze(1)
        n_products = self.regions.weight.shape[1] - self.cells.weight.shape[1]
        weight, bias = (
            region.gather(2, ids_B1E.expand(-1, region.shape[1], -1)) + temperature * cell
            for region, cell in (
                (self.regions.weight, pad(self.cells.weight, (0, 0, 0, n_products))),
                (self.regions.bias, self.cells.bias),
            )
        )
        return torch.baddbmm(bias, self.regions.lift(x_BTD), weight)
