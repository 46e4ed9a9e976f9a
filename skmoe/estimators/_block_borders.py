"""Borders of blocks that tell a piece together, placed so that rows change to the right side.

Which region of a block a row belongs to cannot be told from this block alone: where another one
is wrong by a jump, hardly any region here is right, and a wrong one may be the best. But a row
on the wrong side of a border is near to it, and little of its error is left once it has changed
sides. So a row with an unusual error is given to the other side of the nearest border that
explains it, or of two; if none does, though some are near, it has no say. The same rows tell
what a block should see: the plane of the normals of its borders.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations
from typing import cast

import numpy as np
import torch
from torch import Tensor

from skmoe.batches import Rows
from skmoe.estimators._border_regression import (
    LARGEST_REGRET,
    answers_by_region,
    as_array,
    between_regions,
    borders_between,
    normals_of_borders,
    regions_between,
    set_borders,
    telling_rows,
)
from skmoe.nn.experts import LatentExperts
from skmoe.nn.layers import MoELayer
from skmoe.nn.networks import ParallelMoENetwork
from skmoe.nn.patches import PatchGate
from skmoe.nn.region_gates import RegionGate

# In units of the median error: above ten standard deviations of normal ones, it is unusual.
FAR_OFF = 10.0 / 0.6745
# What is left of an error at most if borders explain it.
LEFT = 0.2
# A border is near to a row below this share of the median distance to one.
NEAR = 0.05
# Most borders that a row may be on the wrong side of.
MAX_CROSSED = 2
CHUNK = 8192


@torch.no_grad()
def place_borders_of_blocks(network: ParallelMoENetwork, rows: Rows) -> None:
    """Put the borders of each block where rows are on the right side of them.

    Those of a block stay if it has fewer than three regions, as descent finds a single border
    by itself, or if rows are not predicted better by the others.
    """
    told = _Told.by(network, rows)
    if told is None:
        return
    gate = cast(RegionGate | PatchGate, network.blocks.gate)
    found = {}
    regions_BT1 = told.rivals_BT2[..., :1].clone()
    for block, z_TD in enumerate(told.z_BTD):
        z, sides = as_array(z_TD), told.sides_in(block)
        borders = borders_between(z, *sides, gate.n_regions, gate.regions.degree)
        if borders is not None:
            found[block] = borders
            regions_BT1[block, :, 0] = torch.from_numpy(regions_between(z, *borders))
    answers_BTO = _answers_in_regions(network.blocks, told.z_BTD, regions_BT1)[:, :, 0]
    for block, borders in found.items():
        errors_T = told.sides.errors_with(block, answers_BTO)
        if told.weight_T @ errors_T < told.weight_T @ told.sides.errors_now_T:
            set_borders(gate, block, *borders)


@torch.no_grad()
def turn_encoders(network: ParallelMoENetwork, rows: Rows) -> None:
    """Let each block see along the normals of its borders, and nothing else.

    What a rough fit took for a factor lets a little of others through, and no border can be
    exact there. A regression in all that encoders see tells normals more exactly. The encoder
    of a block with fewer normals than outputs stays as it is.
    """
    encoder_BDR = cast(LatentExperts, network.blocks.experts).encoder.weight
    n_seen, n_outputs = encoder_BDR.shape[1:]
    told = _Told.by(network, rows) if n_seen > n_outputs else None
    if told is None:
        return
    seen_BTD = network.seen_by_blocks(rows.x[told.rows_T])
    for block, (seen_TD, encoder_DR) in enumerate(zip(seen_BTD, encoder_BDR, strict=True)):
        normals = normals_of_borders(as_array(seen_TD), *told.sides_in(block))
        if len(normals) >= n_outputs:
            plane_RD = torch.from_numpy(normals[:n_outputs]).to(encoder_DR)
            encoder_DR.copy_(plane_RD.T @ (plane_RD @ encoder_DR))


@dataclass(frozen=True)
class _Told:
    """Rows that tell where borders are, and on which side of them these are."""

    rows_T: Tensor
    weight_T: Tensor
    z_BTD: Tensor
    rivals_BT2: Tensor  # the region of each row in each block, and the next one
    sides: "_Sides"

    @classmethod
    def by(cls, network: ParallelMoENetwork, rows: Rows) -> "_Told | None":
        """None if no block has three regions."""
        layer = network.blocks
        gate = cast(RegionGate | PatchGate, layer.gate)
        if gate.n_regions < 3:
            return None
        z_BTD, margin_BT, rivals_BT2 = between_regions(network, rows.x)
        rivals_BT2, margin_BT = _relative(rivals_BT2, margin_BT)
        telling = telling_rows(margin_BT.amin(0))
        telling = telling[rows.weight[telling] > 0]  # as others have no usual error
        z_BTD, rivals_BT2 = z_BTD[:, telling], rivals_BT2[:, telling]
        answers_BT2O = _answers_in_regions(layer, z_BTD, rivals_BT2)
        sides = _Sides(network, rows.y[telling], answers_BT2O, margin_BT[:, telling])
        return cls(telling, rows.weight[telling], z_BTD, rivals_BT2, sides)

    @cached_property
    def _labels_and_regrets(self) -> tuple[Tensor, Tensor]:
        crossed_BT, explained_T = self.sides.explanation()
        regret_BT = self.sides.regret(crossed_BT) * explained_T * self.weight_T
        return self.rivals_BT2.gather(2, crossed_BT.long().unsqueeze(2)).squeeze(2), regret_BT

    def sides_in(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """The region where each row belongs, and what another one costs it."""
        labels_BT, regret_BT = self._labels_and_regrets
        return labels_BT[block].cpu().numpy(), as_array(regret_BT[block])


def _relative(rivals_BT2: Tensor, margin_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Region of each row and the next one, ``(B, T, 2)``, and the distance to the border.

    Distances are in units of the median one of a block. In a block of one region the next one
    is the same, infinitely far away.
    """
    alone_BT = margin_BT.isinf()
    rivals_BT2[..., 1] = rivals_BT2[..., 1].where(~alone_BT, rivals_BT2[..., 0])
    relative_BT = margin_BT / margin_BT.median(1, keepdim=True).values
    return rivals_BT2, relative_BT.masked_fill(alone_BT, torch.inf)


def _answers_in_regions(layer: MoELayer, z_BTD: Tensor, regions_BTK: Tensor) -> Tensor:
    """What each block answers for rows that were in these regions, ``(B, T, K, O)``."""
    chunks = []
    for z, regions in zip(z_BTD.split(CHUNK, 1), regions_BTK.split(CHUNK, 1), strict=True):
        answers_BTRO = answers_by_region(layer, z)
        ids_BTKO = regions.unsqueeze(3).expand(-1, -1, -1, answers_BTRO.shape[3])
        chunks.append(answers_BTRO.gather(2, ids_BTKO))
    return torch.cat(chunks, 1)


@dataclass(frozen=True)
class _Sides:
    """Rows on this side of the nearest border of each block, and what if they changed sides."""

    network: ParallelMoENetwork
    y_TO: Tensor
    answers_BT2O: Tensor  # on this side, and on the other one
    margin_BT: Tensor

    @cached_property
    def errors_now_T(self) -> Tensor:
        return self.errors(self.answers_BT2O[:, :, 0])

    def errors(self, answers_BTO: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Squared error of each row, if the blocks answer this."""
        predicted_TO = self.network.predicted(answers_BTO)
        return (predicted_TO - self.y_TO[rows]).square().mean(-1)

    def errors_with(self, block: int, answers_BTO: Tensor) -> Tensor:
        """Squared error of each row, if this block alone answers this."""
        changed_BTO = self.answers_BT2O[:, :, 0].clone()
        changed_BTO[block] = answers_BTO[block]
        return self.errors(changed_BTO)

    def explanation(self) -> tuple[Tensor, Tensor]:
        """Borders that each row is to cross, ``(B, T)``, and whether that explains its error.

        Rows with a usual error, or far from all borders, stay; others cross what is nearest.
        """
        near_BT = self.margin_BT < NEAR
        usual = FAR_OFF**2 * self.errors_now_T.median()
        stays_T = (self.errors_now_T <= usual) | ~near_BT.any(0)
        least_T = torch.where(stays_T, 0.0, torch.inf)
        crossed_BT = torch.zeros_like(near_BT)
        for blocks in self._crossings():
            way_T = self.margin_BT[blocks].sum(0)
            rows = torch.nonzero(near_BT[blocks].all(0) & (way_T < least_T)).squeeze(1)
            crossing_BT = torch.zeros_like(crossed_BT[:, rows])
            crossing_BT[blocks] = True
            left_T = self._errors_beyond(crossing_BT, rows) / self.errors_now_T[rows]
            rows = rows[left_T < LEFT**2]
            crossed_BT[:, rows] = crossing_BT[:, : len(rows)]
            least_T[rows] = way_T[rows]
        return crossed_BT, least_T.isfinite()

    def regret(self, crossed_BT: Tensor) -> Tensor:
        """What the other side of each border costs rows that have crossed these, ``(B, T)``."""
        errors_T = self._errors_beyond(crossed_BT)
        regrets = []
        for block in range(len(crossed_BT)):
            other_BT = crossed_BT.clone()
            other_BT[block] ^= True
            regrets.append(self._errors_beyond(other_BT) - errors_T)
        return torch.stack(regrets).clamp(0, LARGEST_REGRET)

    def _crossings(self) -> Iterator[list[int]]:
        blocks = range(len(self.margin_BT))
        sizes = range(1, MAX_CROSSED + 1)
        return map(list, chain.from_iterable(combinations(blocks, size) for size in sizes))

    def _errors_beyond(self, crossed_BT: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Squared error of rows that have crossed these borders."""
        answers_BT2O = self.answers_BT2O[:, rows]
        answers_BTO = answers_BT2O[:, :, 0].where(
            ~crossed_BT.unsqueeze(2), answers_BT2O[:, :, 1]
        )
        return self.errors(answers_BTO, rows)
