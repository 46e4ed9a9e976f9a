"""The last maps of a network as a least-squares problem: features of rows, and their sums.

Row t of the matrix A holds ``w_te [h_te, 1]`` for each expert e that it asks, 0 for the others.
It is made one block of rows after the other, over which ``A'A`` and ``A'r`` are added up. All
sums are in float64 and of bounded memory.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from skmoe.batches import Rows
from skmoe.nn.base import Network
from skmoe.nn.layers import Design

# Numbers in the features of one block of rows: 64 MB in float64.
BLOCK_VALUES = 8_000_000
# Rows of the Gram matrix that are computed at once, from their diagonal on.
GRAM_ROWS = 128
# The bias is penalised less than other weights by the square of this.
BIAS_SCALE = 3.0


def output_map_of(network: Network) -> Tensor:
    """The network's last maps ``w_GFO``; a `ValueError` if it has none."""
    w_GFO = network.output_map()
    if w_GFO is None:
        raise ValueError(
            "The closed form needs experts whose last step is a linear map. Got a network "
            "without one."
        )
    return w_GFO


class Features:
    """Weighted features of all rows, block by block, and their sums.

    P unknowns per output: G maps of F features. Rows are scaled by the square root of their
    share of the total weight, so that sums over rows are weighted means.
    """

    def __init__(self, network: Network, rows: Rows) -> None:
        self.network, self.rows = network, rows
        map_GFO = output_map_of(network)
        self.n_maps, self.n_features, self.n_outputs = map_GFO.shape
        self.map_PO = map_GFO.double().flatten(0, 1)
        self.n_unknowns = self.n_maps * self.n_features
        self.scale_P = self.map_PO.new_ones(self.n_maps, self.n_features)
        self.scale_P[:, -1] = BIAS_SCALE
        self.scale_P = self.scale_P.flatten()
        self.share_T = rows.weight.double() / rows.weight.double().sum()
        self.whole: tuple[_Block, Tensor] | None = None  # if one block has all rows

    def blocks(self) -> Iterator[tuple["_Block", Tensor]]:
        """Features and scaled residuals ``r_TO`` of one block of rows after the other."""
        if self.whole is not None:
            yield self.whole
            return
        probe = self.network.design(self.rows.x[:1]).values_TKF
        size = max(BLOCK_VALUES // max(probe[0].numel(), 1), 64)
        for start in range(0, len(self.rows), size):
            part = slice(start, start + size)
            design = self.network.design(self.rows.x[part])
            root_T1 = self.share_T[part].sqrt()[:, None]
            block = _Block(design, root_T1, self.n_maps)
            y_TO = root_T1 * self.rows.y[part]
            found = block, y_TO - block.times(self.map_PO)
            if size >= len(self.rows):
                self.whole = found
            yield found

    def error(self) -> float:
        """Mean squared error of the maps that are there."""
        return float(sum(r_TO.square().sum() for _, r_TO in self.blocks()) / self.n_outputs)

    def rounding(self) -> float:
        """Mean squared error of targets that were rounded to float64."""
        y_TO = self.rows.y.double()
        mean_square = (self.share_T[:, None] * y_TO.square()).sum() / self.n_outputs
        return float(mean_square) * torch.finfo(torch.float64).eps ** 2

    def errors(self, changes_APO: Tensor) -> Tensor:
        """Mean squared error after each of the changes."""
        n_changes, n_unknowns, _ = changes_APO.shape
        scaled = changes_APO * self.scale_P[:, None]
        wide = scaled.transpose(0, 1).reshape(n_unknowns, -1)
        total_A = wide.new_zeros(n_changes)
        for block, r_TO in self.blocks():
            answers_TAO = block.times(wide).unflatten(1, (n_changes, -1))
            total_A += (r_TO[:, None] - answers_TAO).square().sum((0, 2))
        return total_A / self.n_outputs

    def normal_equations(self) -> tuple[Tensor, Tensor]:
        """Gram matrix ``A'A``, of which the upper triangle counts, and ``A'r``."""
        gram = self.map_PO.new_zeros(self.n_unknowns, self.n_unknowns)
        right_PO = torch.zeros_like(self.map_PO)
        for block, r_TO in self.blocks():
            block.add_gram(gram)
            right_PO += block.transposed_times(r_TO)
        gram *= self.scale_P
        gram *= self.scale_P[:, None]
        return gram, right_PO * self.scale_P[:, None]

    def add_to_map(self, change_PO: Tensor) -> None:
        """Put the changed maps in place."""
        map_PO = self.map_PO + change_PO * self.scale_P[:, None]
        self.network.set_output_map(map_PO.unflatten(0, (self.n_maps, -1)))


class _Block:
    """Features of some rows, those of a map next to each other if rows ask few maps."""

    def __init__(self, design: Design, root_T1: Tensor, n_maps: int) -> None:
        values_TKF = design.values_TKF * root_T1[:, None]  # in float64, as the root is
        self.n_rows, n_asked, self.n_features = values_TKF.shape
        self.n_maps = n_maps
        self.wide: Tensor | None = None
        ids_TK = design.ids_TK
        if ids_TK is None:
            self.wide = values_TKF.flatten(1)
        elif 2 * n_asked >= n_maps:
            wide_TGF = values_TKF.new_zeros(self.n_rows, n_maps, self.n_features)
            index = ids_TK.unsqueeze(-1).expand_as(values_TKF)
            self.wide = wide_TGF.scatter(1, index, values_TKF).flatten(1)
        else:
            self.values_TKF, self.ids_TK = values_TKF, ids_TK
            order = ids_TK.flatten().argsort()
            counts = torch.bincount(ids_TK.flatten(), minlength=n_maps).tolist()
            self.row_of = order // n_asked
            self.of_map = values_TKF.flatten(0, 1)[order].split(counts)
            self.rows_of_map = self.row_of.split(counts)

    def times(self, c_PO: Tensor) -> Tensor:
        """``A c``."""
        if self.wide is not None:
            return self.wide @ c_PO
        c_GFO = c_PO.unflatten(0, (self.n_maps, -1))
        answers = torch.cat([v @ c for v, c in zip(self.of_map, c_GFO, strict=True)])
        return c_PO.new_zeros(self.n_rows, c_PO.shape[1]).index_add(0, self.row_of, answers)

    def transposed_times(self, r_TO: Tensor) -> Tensor:
        """``A' r``."""
        if self.wide is not None:
            return self.wide.T @ r_TO
        pairs = zip(self.of_map, self.rows_of_map, strict=True)
        return torch.cat([v.T @ r_TO[rows] for v, rows in pairs])

    def add_gram(self, gram_PP: Tensor) -> None:
        """Add ``A'A``, at least to the upper triangle."""
        if self.wide is not None:
            for first in range(0, len(gram_PP), GRAM_ROWS):
                own_TR = self.wide[:, first : first + GRAM_ROWS]
                upper = gram_PP[first : first + GRAM_ROWS, first:]
                upper.addmm_(own_TR.T, self.wide[:, first:])
            return
        blocks = gram_PP.view(self.n_maps, self.n_features, self.n_maps, self.n_features)
        for g, values in enumerate(self.of_map):
            blocks[g, :, g] += values.T @ values
        for (g, h), rows, left, right in self._pairs():
            block = self.values_TKF[rows, left].T @ self.values_TKF[rows, right]
            blocks[g, :, h] += block
            blocks[h, :, g] += block.T

    def add_diagonal(self, gram_GFF: Tensor) -> None:
        """Add the diagonal blocks of ``A'A``, one for each map."""
        if self.wide is not None:
            wide_GTF = self.wide.unflatten(1, (self.n_maps, -1)).transpose(0, 1)
            gram_GFF += wide_GTF.mT @ wide_GTF
            return
        for g, values in enumerate(self.of_map):
            gram_GFF[g] += values.T @ values

    def _pairs(self) -> Any:
        """For each pair of maps: the rows that ask both, and where in the row they stand."""
        n_asked = self.ids_TK.shape[1]
        ids_TK, slots_TK = self.ids_TK.sort(1)
        first, second = torch.triu_indices(n_asked, n_asked, 1, device=ids_TK.device)
        keys = (ids_TK[:, first] * self.n_maps + ids_TK[:, second]).flatten()
        order = keys.argsort()
        found, counts = keys[order].unique_consecutive(return_counts=True)
        rows, column = order // len(first), order % len(first)
        left, right = slots_TK[rows, first[column]], slots_TK[rows, second[column]]
        split = [index.split(counts.tolist()) for index in (rows, left, right)]
        for key, *where in zip(found.tolist(), *split, strict=True):
            yield divmod(key, self.n_maps), *where
