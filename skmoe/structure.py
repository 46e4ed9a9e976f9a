"""Which features belong together: the blocks of ``f(x) = f_out(g_1(x_1), ..., g_L(x_L))``.

Nothing in a squared error tells a network to give each of its blocks one factor of such a
function: blocks that mix the factors fit nearly as well, and fail on combinations that were
not seen. Two properties of the function and its inputs tell the factors apart:

1. If the factors' inputs are independent, independent component analysis finds their axes
   behind any invertible linear map (Hyvärinen & Oja, 2000). What there is of noise in single
   features is left out before (`skmoe.common_factors`).
2. By the chain rule, the gradient in the coordinates of one factor is
   ``f_out'(g) grad g_l(x_l)``: whatever the other factors do, it keeps its direction. For
   two axes i, j of one factor, ``(df/du_i, df/du_j)`` therefore has a direction that
   ``(u_i, u_j)`` decides; for axes of two factors it has none. The *coherence*::

       c_ij = sum_cells |E[G_i G_j | cell]| / sum_cells sqrt(E[G_i^2 | cell] E[G_j^2 | cell])

   over cells of the plane ``(u_i, u_j)``, for gradients G, is near 1 for the former and
   near 0 for the latter. A network trained briefly is accurate enough to give the gradients.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from skmoe.batches import Rows
from skmoe.common_factors import common_factors
from skmoe.nn.base import Network

# Rows that axes and gradients are looked at on.
MAX_ROWS = 20_000
# More axes than this are not looked for: their pairs are too many for the rows there are.
MAX_AXES = 40
# Directions of less spread than this share of the largest are rounding.
SMALLEST_SPREAD = 1e-6
# Largest gradients are drawn in to this quantile: a jump is one edge, not all there is.
CLIPPED = 0.99
# Cells along each axis of a plane, and least mean number of rows in one.
CELLS = 12
ROWS_PER_CELL = 10
# Axes are grouped if coherence within groups is larger than between them by this much, and
# at least as large as that.
SMALLEST_GAP = 0.15
SMALLEST_COHERENCE = 0.4
MAX_BLOCK_DIM = 4
# Of more outputs than this, sums are looked at.
MAX_OUTPUTS = 4


@dataclass(frozen=True)
class Blocks:
    """Axes, and which of them belong together."""

    axes_DA: NDArray[np.float64]
    """Directions in the scaled features; a coordinate ``x @ axes`` has unit variance."""
    center_A: NDArray[np.float64]
    """Means of these coordinates."""
    groups: list[list[int]]
    """Indices of the axes of each block."""
    coherence_AA: NDArray[np.float64]
    """Coherence of every pair of axes."""

    @property
    def dim(self) -> int:
        """Number of axes of the largest block."""
        return max(len(group) for group in self.groups)

    def encoders(self, n_blocks: int) -> NDArray[np.float64]:
        """Maps ``(B, A, R)`` from all axes to those of the groups, in turn.

        A block of fewer axes than `dim` gets zeros.
        """
        maps = np.zeros((n_blocks, self.axes_DA.shape[1], self.dim))
        for block in range(n_blocks):
            group = self.groups[block % len(self.groups)]
            maps[block, group, range(len(group))] = 1.0
        return maps


def find_blocks(network: Network, rows: Rows, seed: int) -> Blocks | None:
    """The blocks of the function that `network` has learned.

    Parameters
    ----------
    network : Network
        A network that has learned the function roughly.
    rows : Rows
        Rows of its inputs.
    seed : int
        Decides the start of the search for axes, and the rows that are looked at.

    Returns
    -------
    Blocks or None
        None if there are no such axes, or if they do not fall into groups.
    """
    generator = np.random.RandomState(seed)
    chosen = np.arange(len(rows))
    if len(rows) > MAX_ROWS:
        chosen = np.sort(generator.choice(len(rows), MAX_ROWS, replace=False))
    index = torch.from_numpy(chosen).to(rows.x.device)
    x = rows.x[index]
    X, y, weight = (
        part.cpu().double().numpy() for part in (x, rows.y[index], rows.weight[index])
    )
    axes_DA = _axes_without_noise(X, y, weight, generator)
    if axes_DA is None:
        return None
    U = X @ axes_DA
    center_A = np.average(U, axis=0, weights=weight)
    slopes_NOD = gradients(network, x)
    n_rows, n_outputs, n_inputs = slopes_NOD.shape
    G = slopes_NOD.reshape(-1, n_inputs) @ _features_by_axes(X, U - center_A, weight).T
    coherence_AA = coherence(U, G.reshape(n_rows, n_outputs, -1), weight)
    groups = group_axes(coherence_AA)
    return None if groups is None else Blocks(axes_DA, center_A, groups, coherence_AA)


def _axes_without_noise(
    X: np.ndarray, y: np.ndarray, weight: np.ndarray, generator: np.random.RandomState
) -> NDArray[np.float64] | None:
    """Independent axes of what the features have in common, if all else in them is noise."""
    factors = common_factors(X, y, weight, MAX_AXES)
    if factors is None:
        return independent_axes(X, weight, generator)
    axes = independent_axes(X @ factors[0], weight, generator)
    return None if axes is None else factors[0] @ axes


def _features_by_axes(X: np.ndarray, U: np.ndarray, weight: np.ndarray) -> NDArray[np.float64]:
    """What features change by with each of these coordinates, of mean 0: ``(A, D)``."""
    return np.linalg.solve((weight[:, None] * U).T @ U, (weight[:, None] * U).T @ X)


def independent_axes(
    X: np.ndarray, weight: np.ndarray, generator: np.random.RandomState
) -> NDArray[np.float64] | None:
    """Directions ``(D, A)`` in which X is as independent as can be; None without any.

    There are as many as X has dimensions, which may be fewer than it has columns.
    """
    from sklearn.decomposition import FastICA

    share = (weight / weight.sum())[:, None]
    centred = X - (share * X).sum(0)
    spread, directions = np.linalg.eigh(centred.T @ (share * centred))
    kept = spread > SMALLEST_SPREAD**2 * max(spread[-1], np.finfo(float).tiny)
    if not 2 <= kept.sum() <= MAX_AXES:
        return None
    whitening = directions[:, kept] / np.sqrt(spread[kept])
    # The fourth moment (fun="cube") is the sharpest contrast for inputs without long tails,
    # and those of the scaled features are drawn in.
    ica = FastICA(whiten=False, fun="cube", max_iter=500, tol=1e-5, random_state=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica.fit(centred @ whitening)
    axes = whitening @ ica.components_.T
    return axes if np.isfinite(axes).all() else None


def gradients(network: Network, x: Tensor) -> NDArray[np.float64]:
    """Gradients of the network's outputs with respect to its inputs, ``(n, O, D)``.

    Of many outputs, those of some sums of them: see `few_outputs`.
    """
    parts = []
    with torch.enable_grad():
        for chunk in x.split(4096):
            chunk = chunk.detach().clone().requires_grad_(True)
            parts.append(slopes(few_outputs(network(chunk)[0]), chunk))
    return torch.cat(parts).cpu().double().numpy()


def few_outputs(y_TO: Tensor) -> Tensor:
    """The outputs, or sums of many with random weights, which tell the same of them."""
    n_outputs = y_TO.shape[-1]
    if n_outputs <= MAX_OUTPUTS:
        return y_TO
    weights = torch.randn(n_outputs, MAX_OUTPUTS, generator=torch.Generator().manual_seed(0))
    return y_TO @ (weights / MAX_OUTPUTS**0.5).to(y_TO)


def slopes(y: Tensor, z: Tensor) -> Tensor:
    """Gradients of the last axis of y by z, put in front of the last axis of z."""
    parts = [
        torch.autograd.grad(y[..., o].sum(), z, retain_graph=True)[0]
        for o in range(y.shape[-1])
    ]
    return torch.stack(parts, -2)


def coherence(U: np.ndarray, G: np.ndarray, weight: np.ndarray) -> NDArray[np.float64]:
    """Coherence ``(A, A)`` in coordinates U ``(n, A)`` of gradients G ``(n, O, A)``.

    Sums go over the outputs as well, each of which may see a factor in a direction of its own.
    """
    n, n_axes = U.shape
    cells = min(CELLS, int(np.sqrt(n / ROWS_PER_CELL)))
    bins = np.argsort(np.argsort(U, axis=0, kind="stable"), axis=0) * cells // n
    limit = np.quantile(np.abs(G), CLIPPED, axis=0)
    G = np.clip(G, -limit, limit)
    result = np.eye(n_axes)
    for i in range(n_axes):
        for j in range(i):
            cell = bins[:, i] * cells + bins[:, j]
            whole = related = 0.0
            for g_i, g_j in zip(G[..., i].T, G[..., j].T, strict=True):
                squares_i, squares_j, products = (
                    np.bincount(cell, weight * values) for values in (g_i**2, g_j**2, g_i * g_j)
                )
                whole += np.sqrt(squares_i * squares_j).sum()
                related += np.abs(products).sum()
            if whole > 0:
                result[i, j] = result[j, i] = related / whole
    return result


def group_axes(coherence_AA: np.ndarray) -> list[list[int]] | None:
    """Groups of axes, cut where the coherence of merged groups falls most; None if unclear.

    Groups are merged by their mean coherence. They are clear if it falls by at least
    `SMALLEST_GAP` from the last merge inside a group to the first one between groups.
    """
    merged = 1 - _merge(coherence_AA, distance_threshold=0.0).distances_  # falling
    gaps = merged[:-1] - merged[1:]
    for cut in np.argsort(-gaps):
        if gaps[cut] < SMALLEST_GAP or merged[cut] < SMALLEST_COHERENCE:
            continue
        labels = _merge(coherence_AA, n_clusters=len(coherence_AA) - int(cut) - 1).labels_
        groups = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
        if max(map(len, groups)) <= MAX_BLOCK_DIM:
            return groups
    return None


def _merge(
    coherence_AA: np.ndarray,
    n_clusters: int | None = None,
    distance_threshold: float | None = None,
) -> Any:
    """A fitted `AgglomerativeClustering`."""
    from sklearn.cluster import AgglomerativeClustering

    merging = AgglomerativeClustering(
        n_clusters,
        metric="precomputed",
        linkage="average",
        distance_threshold=distance_threshold,
    )
    return merging.fit(1 - coherence_AA)
