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
instead. The sums over rows are in `normal_equations`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skmoe.batches import Rows
from skmoe.damped_solve import reduced
from skmoe.nn.base import Network
from skmoe.normal_equations import Features

# Unknowns up to which the Gram matrix is reduced.
MAX_DIRECT = 4096
# Penalties tried, relative to the largest eigenvalue of the Gram matrix: two per power of ten.
LARGEST_ALPHA = 1.0
ALPHAS_PER_DECADE = 2
# Of all that score nearly as well as the best, the strongest penalty is taken.
TOLERANCE = 1.001
# Cross-validation counts each degree of freedom as so many, against overfitting (Kim & Gu,
# 2004), and errors below this share of the start as rounding.
FREEDOM_COST = 1.4
ROUNDING = 1e-13
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
    features = Features(network, rows)
    held_out = None if validation is None else Features(network, validation)
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


def _relative_alphas(smallest: float, per_decade: float) -> list[float]:
    """From `LARGEST_ALPHA` down to `smallest`, evenly spaced in their logarithm."""
    n_steps = max(round(math.log10(LARGEST_ALPHA / smallest) * per_decade), 1)
    return [LARGEST_ALPHA * 10 ** (-step / per_decade) for step in range(n_steps + 1)]


def _solve_directly(features: Features, smallest_alpha: float) -> Iterator[_Path]:
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


def _solve_iteratively(features: Features, smallest_alpha: float) -> Iterator[_Path]:
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
    features: Features, diagonal: Tensor, targets: Tensor, alpha: float, start: Tensor
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
