"""The closed-form finish: the last maps of a network as one ridge regression.

Given routing and hidden features, a prediction is linear in the last maps of all experts:
row t has the features ``w_te [h_te, 1]`` for each expert e that it asks, 0 for the others.
So the best maps solve one ridge regression in E (H + 1) unknowns per output,

    min_c  mean_t w_t |r_t - A_t c|^2 + alpha |c|^2,

for the change c of the maps and the residual r of the network as it is: however strong the
penalty, the answer lies between the maps that were there and the least-squares solution.

Up to `MAX_DIRECT` unknowns, the Gram matrix is put together from blocks of rows, in
O(n (K H)^2) for K asked experts, and one reduction of it gives the solutions for all alphas at
once. Beyond, conjugate gradients with one block per map as preconditioner pass over the rows
instead. All sums are in float64 and of bounded memory.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from skmoe.batches import Rows
from skmoe.damped_solve import reduced
from skmoe.nn.base import Network
from skmoe.nn.layers import Design

# Unknowns up to which the Gram matrix is reduced
MAX_DIRECT = 4096
# Numbers in the features of one block of rows: 64 MB in float64.
BLOCK_VALUES = 8_000_000
# Rows of the Gram matrix that are computed at once, from their diagonal on.
GRAM_ROWS = 128
# Penalties tried, relative to the largest eigenvalue of the Gram matrix: two per power of ten.
LARGEST_ALPHA = 1.0
ALPHAS_PER_DECADE = 2
# Of all that score nearly as well as the best, the strongest penalty is taken.
TOLERANCE = 1.001
# Cross-validation counts each degree of freedom as so many, against overfitting (Kim & Gu,
# 2004), and errors below this share of the start as rounding.
FREEDOM_COST = 1.4
ROUNDING = 1e-13
# The bias is penalised less than other weights by the square of this.
BIAS_SCALE = 3.0
# Conjugate gradients take a pass for each step, so fewer penalties, none too hard to solve for.
CG_ALPHAS_PER_DECADE = 0.5
CG_SMALLEST = 1e-10
CG_STEPS = 200
CG_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Solution:
    """What a solve found."""

    alpha: float
    """Penalty that was chosen; inf: the maps stayed as they were."""
    score: float
    """Mean squared error on validation rows, or generalised cross-validation without them."""
    score_before: float
    """The same for the maps that were there."""
    residual: float
    """Relative residual of the normal equations; 0 for a direct solve."""

    @property
    def improved(self) -> bool:
        """Whether the new maps were better, and so were put in place."""
        return self.score < self.score_before


@torch.no_grad()
def solve_output(
    network: Network,
    rows: Rows,
    validation: Rows | None = None,
    *,
    n_distinct: int | None = None,
    smallest_alpha: float = 1e-12,
    max_direct: int = MAX_DIRECT,
) -> Solution:
    """Replace the last maps of `network` by the best ones, if those are better.

    The penalty is chosen by the error on validation rows, or without them by generalised
    cross-validation, ``mean r^2 / (1 - 1.4 df / n)^2`` (Golub, Heath & Wahba, 1979; the
    factor is that of Kim & Gu, 2004).

    Parameters
    ----------
    network : Network
        A network whose `output_map` is not None, in evaluation mode.
    rows, validation : Rows
        To solve on, and to choose the penalty by (optional).
    n_distinct : int, optional
        Number n of different rows, for cross-validation: a row of weight two, or twice the
        same row, tells no more than one. By default all rows.
    smallest_alpha : float, default=1e-12
        Smallest penalty to try, relative to the largest eigenvalue of the Gram matrix. The
        solution magnifies rounding errors in the features by up to the inverse of it.
    max_direct : int, default=4096
        Unknowns up to which the solve is direct.

    Returns
    -------
    Solution
        Penalty, scores and residual.
    """
    features = _Features(network, rows)
    held_out = None if validation is None else _Features(network, validation)
    n = n_distinct or len(rows)
    before = features.error()
    start = before if held_out is None else held_out.error()
    best, change = Solution(math.inf, start, start, 0.0), None
    if start <= features.rounding():
        return best
    direct = features.n_unknowns <= max_direct
    solver = _solve_directly if direct else _solve_iteratively
    for path in solver(features, smallest_alpha):
        if held_out is None:
            scores = path.cross_validation(before, n)
        else:
            scores = held_out.errors(path.changes_APO)
        scores = torch.where(scores.isfinite(), scores, torch.inf)
        if scores.min() < best.score:
            i = int((scores <= TOLERANCE * scores.min()).nonzero()[0])
            if scores[i] < best.score:
                best = replace(
                    best, alpha=path.alphas[i], score=float(scores[i]), residual=path.residual
                )
                change = path.changes_APO[i]
    if change is not None:
        features.add_to_map(change)
    return best


def output_map_of(network: Network) -> Tensor:
    """The network's last maps ``w_GFO``; a `ValueError` if it has none."""
    w_GFO = network.output_map()
    if w_GFO is None:
        raise ValueError(
            "The closed form needs experts whose last step is a linear map. Got a network "
            "without one."
        )
    return w_GFO


@dataclass(frozen=True)
class _Path:
    """Solutions for several penalties."""

    alphas: list[float]
    changes_APO: Tensor
    gains_A: Tensor  # by which each lowers the mean squared error on the rows
    freedom_A: Tensor  # trace of the hat matrix
    residual: float = 0.0

    def cross_validation(self, before: float, n: int) -> Tensor:
        left_A = 1 - FREEDOM_COST * self.freedom_A / n
        errors_A = (before - self.gains_A).clamp_min(ROUNDING * before)
        return torch.where(left_A > 0, errors_A / left_A.square(), torch.inf)


class _Features:
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


def _relative_alphas(smallest: float, per_decade: float) -> list[float]:
    """From `LARGEST_ALPHA` down to `smallest`, evenly spaced in their logarithm."""
    n_steps = max(round(math.log10(LARGEST_ALPHA / smallest) * per_decade), 1)
    return [LARGEST_ALPHA * 10 ** (-step / per_decade) for step in range(n_steps + 1)]


def _solve_directly(features: _Features, smallest_alpha: float) -> Iterator[_Path]:
    """All penalties at once, from one reduction of the Gram matrix."""
    gram, right_PO = features.normal_equations()
    normal = reduced(gram)
    del gram
    alphas = [
        share * float(normal.values_P[-1])
        for share in _relative_alphas(smallest_alpha, ALPHAS_PER_DECADE)
    ]
    if not alphas[0] > 0:
        return
    changes_APO = normal.solve(right_PO, alphas)
    # c' (2 b - A'A c) with A'A c = b - alpha c.
    alphas_A11 = right_PO.new_tensor(alphas)[:, None, None]
    gains_A = (changes_APO * (right_PO + alphas_A11 * changes_APO)).sum((1, 2))
    yield _Path(alphas, changes_APO, gains_A / features.n_outputs, normal.freedom(alphas))


def _solve_iteratively(features: _Features, smallest_alpha: float) -> Iterator[_Path]:
    """One penalty after the other, by conjugate gradients that start from the last one."""
    shape = (features.n_maps, features.n_features, features.n_features)
    diagonal = features.map_PO.new_zeros(shape)
    right_PO = torch.zeros_like(features.map_PO)
    for block, r_TO in features.blocks():
        block.add_diagonal(diagonal)
        right_PO += block.transposed_times(r_TO)
    scale_GF = features.scale_P.view(features.n_maps, -1)
    diagonal *= scale_GF[:, :, None] * scale_GF[:, None]
    right_PO *= features.scale_P[:, None]
    size = float(torch.linalg.matrix_norm(diagonal, 2).max())
    if not size > 0:
        return
    # The trace of (A'A + alpha)^-1 is estimated with one random vector of signs.
    generator = torch.Generator().manual_seed(0)
    signs_P1 = torch.randint(0, 2, (features.n_unknowns, 1), generator=generator) * 2.0 - 1
    targets = torch.cat([right_PO, signs_P1.to(right_PO)], 1)
    found = torch.zeros_like(targets)
    for share in _relative_alphas(max(smallest_alpha, CG_SMALLEST), CG_ALPHAS_PER_DECADE):
        alpha = share * size
        found, residual = _conjugate_gradients(features, diagonal, targets, alpha, found)
        change_PO, inverse_P = found[:, :-1], found[:, -1:]
        freedom = features.n_unknowns - alpha * (signs_P1.to(found) * inverse_P).sum()
        # c' (2 b - A'A c) with A'A c = b - alpha c up to the residual.
        gain = (change_PO * (right_PO + alpha * change_PO)).sum() / features.n_outputs
        yield _Path([alpha], change_PO[None], gain[None], freedom[None], residual)


def _conjugate_gradients(
    features: _Features, diagonal: Tensor, targets: Tensor, alpha: float, start: Tensor
) -> tuple[Tensor, float]:
    """Solve ``(A'A + alpha) c = target`` for each column; also the largest residual."""
    identity = torch.eye(diagonal.shape[-1], dtype=diagonal.dtype, device=diagonal.device)
    factors = torch.linalg.cholesky(diagonal + alpha * identity)

    def precondition(r: Tensor) -> Tensor:
        r_GFO = r.unflatten(0, (features.n_maps, -1))
        return torch.cholesky_solve(r_GFO, factors).flatten(0, 1)

    def product(c: Tensor) -> Tensor:
        scaled, total = features.scale_P[:, None] * c, alpha * c
        for block, _ in features.blocks():
            image = block.transposed_times(block.times(scaled))
            total += features.scale_P[:, None] * image
        return total

    norms = targets.norm(dim=0).clamp_min(torch.finfo(targets.dtype).tiny)
    x, r = start.clone(), targets - product(start)
    z = precondition(r)
    p, rz = z, (r * z).sum(0)
    for _ in range(CG_STEPS):
        if (r.norm(dim=0) <= CG_TOLERANCE * norms).all():
            break
        image = product(p)
        # A column that is solved already has p = 0.
        step = rz / (p * image).sum(0).clamp_min(1e-300)
        x, r = x + step * p, r - step * image
        z = precondition(r)
        rz, last = (r * z).sum(0), rz
        p = z + rz / last.clamp_min(1e-300) * p
    return x, float((r.norm(dim=0) / norms).max())
