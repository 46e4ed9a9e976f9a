"""The pieces of a function between its jumps, told by its values alone, without a fit.

Where rows are dense and values hardly noisy, neighbours tell the gradients of a function: the
slopes of a plane through a row that fits most of its neighbours well, and those across a
border not at all. With these gradients `skmoe.regions` finds what lies in between the cuts.
Three steps make its regions exact:

1. Rows beside a border join the region that continues to them with the least miss.
2. Slopes are fitted anew, to neighbours of the same region, and regions found again.
3. Neighbouring regions are one piece unless many of the edges between them are cut.

A rough fit (`skmoe.regions.find_regions`) bears more noise, but blurs jumps over the distance
of a few rows, which is where borders are told.
"""

import numpy as np
from numpy.typing import NDArray

from skmoe.regions import (
    NEIGHBOURS,
    NOWHERE,
    SMALLEST_REGION,
    between_cuts,
    largest_miss,
    misses,
    nearest,
    spread_of,
)

# Neighbours that tell a gradient, for each coordinate. In more coordinates they are far away.
NEAR = 4
MAX_COORDINATES = 8
# Steps of the robust fit of the first slopes, which counts absolute errors; ridge penalties of
# it and of the others, in units of the mean square of a coordinate.
ROBUST_STEPS, ROBUST_RIDGE, RIDGE = 8, 1e-2, 1e-3
# Errors of the robust fit that count alike: in units of the spread of rises, and of the median.
SMALL, USUAL = 1e-3, 0.1
READINGS = 3
# An edge is cut if gradients miss its rise by this many times what they miss on most edges, and
# by that share of the spread of the values: lower jumps do no harm. If the former is a large
# part of the spread, there is noise, or rows are too few.
CUT_FACTOR = 3.0
SMALLEST_CUT, LARGEST_CUT = 0.02, 0.15
# Least share of cut edges between two pieces: a piece cut in two costs less than two in one.
REAL = 0.3
# Regions that touch along less than this share of a border of theirs are not compared.
CONTACT = 0.1


def find_pieces(coordinates: np.ndarray, values: np.ndarray) -> NDArray[np.intp] | None:
    """The pieces of a function with jumps.

    Parameters
    ----------
    coordinates : ndarray of shape (n, d)
        Rows of the function's domain.
    values : ndarray of shape (n, q)
        Its values, in units in which all of them count the same.

    Returns
    -------
    ndarray of shape (n,) or None
        Piece of each row, from 0; -1 for rows that no piece reaches. None if the function
        has no jumps, or if noise or the distance of rows hide them.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.RandomState(0).rand(2000, 2)
    >>> step = z[:, 0] > 0.25
    >>> pieces = find_pieces(z, np.sin(z[:, 1:]) + step[:, None])
    >>> print(pieces.max(), np.mean((pieces == 0) == step).round(2))
    1 1.0
    """
    n, d = coordinates.shape
    if d > MAX_COORDINATES or n <= NEAR * d:
        return None
    near = nearest(coordinates, NEAR * d)
    steps, rises = coordinates[near] - coordinates[:, None], values[near] - values[:, None]
    slopes = _robust_slopes(steps, rises)
    neighbours = near[:, : NEIGHBOURS + 2 * d]
    spread = spread_of(values)
    best, most = None, 0
    for _ in range(READINGS):
        missed = misses(coordinates, values, slopes, neighbours)
        limit = max(largest_miss(missed, values, CUT_FACTOR), SMALLEST_CUT * spread)
        cut = missed > limit
        labels = between_cuts(coordinates, neighbours, cut)
        if labels is None:
            break
        labels = grown(with_islands(labels, neighbours, cut), neighbours, missed)
        if labels.max() >= most and limit <= LARGEST_CUT * spread:
            best, most = merged(labels, neighbours, cut), labels.max()
        slopes = _slopes(labels[near] == labels[:, None], steps, rises, RIDGE)
    return best if best is not None and best.max() > 0 else None


def _slopes(
    weight: np.ndarray, steps: np.ndarray, rises: np.ndarray, ridge: float
) -> NDArray[np.float64]:
    """Slopes ``(n, q, d)`` of the planes through each row that fit its neighbours best."""
    squares = np.einsum("nk,nkd,nke->nde", weight, steps, steps)
    d = steps.shape[2]
    size = np.trace(squares, axis1=1, axis2=2) / d
    smallest = np.finfo(float).tiny ** 0.5  # for rows at one place, or without a neighbour
    squares += (ridge * size + smallest)[:, None, None] * np.eye(d)
    products = np.einsum("nk,nkd,nkq->ndq", weight, steps, rises)
    return np.linalg.solve(squares, products).transpose(0, 2, 1)


def _robust_slopes(steps: np.ndarray, rises: np.ndarray) -> NDArray[np.float64]:
    """Slopes with the least absolute errors, by weights that fall with the error."""
    slopes = []
    for rise in rises.transpose(2, 0, 1):
        weight = np.ones_like(rise)
        for _ in range(ROBUST_STEPS):
            slope = _slopes(weight, steps, rise[..., None], ROBUST_RIDGE)
            error = np.abs(rise - np.einsum("nqd,nkd->nk", slope, steps))
            small = SMALL * rise.std() + USUAL * np.median(error)
            weight = 1 / np.maximum(error + small, np.finfo(float).tiny)
        slopes.append(slope)
    return np.concatenate(slopes, axis=1)


def with_islands(
    labels: NDArray[np.intp], neighbours: np.ndarray, cut: np.ndarray
) -> NDArray[np.intp]:
    """Labels with those of narrow regions, in which each row is beside a border.

    Such a region is all that is connected and has no label yet, if that has enough rows.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(labels)
    rows, slots = np.nonzero(~cut)
    edges = coo_array((np.ones(len(rows)), (rows, neighbours[rows, slots])), (n, n))
    _, components = connected_components(edges.tocsr(), directed=False)
    sizes = np.bincount(components)
    sizes[components[labels != NOWHERE]] = 0
    islands = np.flatnonzero(sizes >= SMALLEST_REGION * n)
    names = np.full(len(sizes), NOWHERE)
    names[islands] = labels.max() + 1 + np.arange(len(islands))
    return np.where(labels == NOWHERE, names[components], labels)


def grown(
    labels: NDArray[np.intp], neighbours: np.ndarray, missed: np.ndarray
) -> NDArray[np.intp]:
    """Labels in which each row has one: that of the region to which misses are least.

    Of all ways from a row to a region, the one counts whose largest miss is the smallest: the
    ways of a minimum spanning tree (Meyer, 1994; Cousty et al., 2009).

    Examples
    --------
    >>> import numpy as np
    >>> neighbours = np.array([[1], [2], [3], [2]])
    >>> grown(np.array([0, -1, -1, 1]), neighbours, np.array([[0.1], [5.0], [0.2], [0.2]]))
    array([0, 0, 1, 1])
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

    n, k = neighbours.shape
    n_regions = int(labels.max()) + 1
    nodes = np.where(labels == NOWHERE, n_regions + np.arange(n), labels)
    ends = np.sort(np.stack([np.repeat(nodes, k), nodes[neighbours.ravel()]]), axis=0)
    # Regions are joined before all else, so that no way leads from one to another.
    first, second = np.hstack([ends[:, ends[1] >= n_regions], _chain(n_regions)])
    miss = np.r_[missed.ravel()[ends[1] >= n_regions], np.full(n_regions - 1, -1.0)]
    order = np.lexsort((miss, second, first))
    first, second, miss = first[order], second[order], miss[order]
    best = np.r_[True, (np.diff(first) != 0) | (np.diff(second) != 0)] & (first != second)
    # Ranks have the same tree, and none of them is a zero, which would be no edge.
    ranks = np.argsort(np.argsort(miss[best], kind="stable")) + 1.0
    shape = (n_regions + n, n_regions + n)
    tree = minimum_spanning_tree(coo_array((ranks, (first[best], second[best])), shape).tocsr())
    tree = tree.tocoo()
    kept = tree.col >= n_regions
    forest = coo_array((tree.data[kept], (tree.row[kept], tree.col[kept])), shape)
    _, components = connected_components(forest.tocsr(), directed=False)
    region_of = np.full(len(components), NOWHERE)
    region_of[components[:n_regions]] = np.arange(n_regions)
    return region_of[components[nodes]]


def _chain(n: int) -> NDArray[np.intp]:
    """Edges 0-1, 1-2, ... of n nodes."""
    return np.stack([np.arange(n - 1), np.arange(1, n)])


def merged(
    labels: NDArray[np.intp], neighbours: np.ndarray, cut: np.ndarray
) -> NDArray[np.intp]:
    """Labels in which regions are one unless many of the edges between them are cut.

    Examples
    --------
    >>> import numpy as np
    >>> neighbours = np.array([[1], [2], [3], [4], [3]])
    >>> cut = np.array([[False], [True], [False], [False], [False]])
    >>> merged(np.array([0, 0, 1, 1, 2]), neighbours, cut)
    array([0, 0, 1, 1, 1])
    """
    while True:
        n_regions = int(labels.max()) + 1
        edges = _edges_between(labels, neighbours, n_regions)
        cuts = _edges_between(labels, neighbours, n_regions, cut)
        np.fill_diagonal(edges, 0)
        around = edges.sum(1)
        between = edges > CONTACT * np.minimum(around[:, None], around)
        share = np.where(between, cuts / np.maximum(edges, 1), 1.0)
        kept, gone = sorted(np.unravel_index(share.argmin(), share.shape))
        if share[kept, gone] >= REAL:
            return labels
        labels = np.where(labels == gone, kept, labels)
        labels = labels - (labels > gone)


def share_out(
    coordinates: np.ndarray, labels: NDArray[np.intp], n_experts: int
) -> NDArray[np.intp]:
    """An expert for each piece, where there are fewer of them, so that neighbours have others.

    As colours of a map (Brélaz, 1979): the piece with the fewest free experts is next, and
    gets the one that it touches least, and of these the one with the fewest rows so far.

    Parameters
    ----------
    coordinates : ndarray of shape (n, d)
        Rows.
    labels : ndarray of shape (n,)
        Piece of each row, from 0; -1 for rows without one.
    n_experts : int
        Number of experts.

    Returns
    -------
    ndarray of shape (n_pieces,)
        Expert of each piece. Neighbours may share one if there are very few.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.linspace(0, 1, 100)[:, None]
    >>> share_out(z, np.repeat([0, 1, 2, 3], 25), 2)
    array([0, 1, 0, 1])
    """
    neighbours = nearest(coordinates, NEIGHBOURS + 2 * coordinates.shape[1])
    n_pieces = int(labels.max()) + 1
    touching = _edges_between(labels, neighbours, n_pieces)
    np.fill_diagonal(touching, 0)
    sizes = np.bincount(labels[labels != NOWHERE])
    experts = np.full(n_pieces, NOWHERE)
    contact = np.zeros((n_pieces, n_experts))
    rows = np.zeros(n_experts)
    for _ in range(n_pieces):
        taken = (contact > 0).sum(1)
        piece = max(np.flatnonzero(experts == NOWHERE), key=lambda p: (taken[p], sizes[p]))
        expert = min(range(n_experts), key=lambda e: (contact[piece, e], rows[e]))
        experts[piece] = expert
        contact[:, expert] += touching[piece]
        rows[expert] += sizes[piece]
    return experts


def _edges_between(
    labels: NDArray[np.intp], neighbours: np.ndarray, n: int, counted: np.ndarray | None = None
) -> NDArray[np.float64]:
    """Number of edges between each pair of n regions, ``(n, n)``; of those that are counted."""
    known = (labels[:, None] != NOWHERE) & (labels[neighbours] != NOWHERE)
    rows, slots = np.nonzero(known if counted is None else known & counted)
    pairs = labels[rows] * n + labels[neighbours[rows, slots]]
    edges = np.bincount(pairs, minlength=n * n).reshape(n, n)
    return (edges + edges.T).astype(float)
