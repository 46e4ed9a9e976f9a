"""Where a function jumps, and the regions in between: what the experts of a block should share.

A network with a deep gate learns a function with jumps roughly: it puts each jump where it is,
but blurs it, and its border is as crooked as the rows beside it are few. The regions can be
read off such a network:

1. *Cuts.* Between two neighbouring rows of one region a function is smooth, so the mean of
   their gradients tells their difference up to third order in the distance. Where it does
   not, a border runs between them: the edge of the neighbourhood graph is cut.
2. *Regions.* What stays connected is a region, up to leaks: where the height of a jump passes
   through zero, two regions are joined by a narrow passage. Their distance to the nearest
   cut has two peaks and a low saddle in between; the watershed of that distance (Vincent &
   Soille, 1991), the usual way to tell touching shapes apart, closes the passage.
3. *Borders.* Rows beside a border join the region that continues to them with the least miss,
   and regions are one if hardly any edge between them is cut.

With the regions known, a gate can be given their borders (`skmoe.region_borders`).
"""

import numpy as np
from numpy.typing import NDArray

from skmoe.cuts import (
    NOWHERE,
    between_cuts,
    edges_between,
    grown,
    largest_first,
    largest_miss,
    merged,
    misses,
    neighbours_of,
)

# Rows that take part; more only make the regions sharper.
MAX_ROWS = 40_000
# An edge is cut if the gradients fail to tell its difference by this many times what they fail
# by on most edges.
CUT_FACTOR = 8.0
# Regions of fewer rows than this share are part of a neighbour.
SMALLEST_SHARE = 0.01
# If there are too many regions, those of at most this share of the rows may be given up.
MOST_GIVEN_UP = 0.1


def find_regions(
    coordinates: np.ndarray,
    values: np.ndarray,
    slopes: np.ndarray,
    cut_factor: float = CUT_FACTOR,
    most: int = 1,
) -> NDArray[np.intp] | None:
    """The regions in between the jumps of a function.

    Parameters
    ----------
    coordinates : ndarray of shape (n, d)
        Rows of the function's domain.
    values : ndarray of shape (n, q)
        Its values, in units in which all of them count the same.
    slopes : ndarray of shape (n, q, d)
        Its gradients.
    cut_factor : float, default=8.0
        By how many times what gradients fail by on most edges they fail across a border. With
        less, low jumps are found as well, and places where a function bends.
    most : int, default=1
        If there are more regions than this, those with a border of which only a part is told
        are one; else only those with hardly any border.

    Returns
    -------
    ndarray of shape (n,) or None
        Region of each row, from 0, the largest first; -1 for rows that no region reaches. None
        if the function has no jumps, or nothing else.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.RandomState(0).rand(2000, 2)
    >>> step = z[:, 0] > 0.25
    >>> labels = find_regions(z, np.sin(z[:, 1:]) + step[:, None], np.stack(
    ...     [np.zeros((2000, 1)), np.cos(z[:, 1:])], axis=2))
    >>> np.unique(labels[step]).tolist(), np.unique(labels[~step]).tolist()
    ([0], [1])
    """
    neighbours = neighbours_of(coordinates)
    missed = misses(coordinates, values, slopes, neighbours)
    cut = missed > largest_miss(missed, values, cut_factor)
    smallest = SMALLEST_SHARE * len(coordinates)
    labels = between_cuts(coordinates, neighbours, cut, smallest)
    if labels is None:
        return None
    labels = merged(grown(labels, neighbours, missed), neighbours, cut, most)
    return largest_first(labels, smallest) if labels.max() > 0 else None


def largest_regions(labels: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """The `most` largest regions, if the others have few rows; else all of them.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Region of each row, from 0, the largest first; -1 for rows without one.
    most : int
        Number of regions to keep.

    Returns
    -------
    ndarray of shape (n,)
        Labels, -1 for rows of regions that were given up.

    Examples
    --------
    >>> import numpy as np
    >>> largest_regions(np.repeat([0, 1, 2], [50, 45, 5]), 2).max()
    np.int64(1)
    >>> largest_regions(np.repeat([0, 1, 2], [50, 30, 20]), 2).max()
    np.int64(2)
    """
    others = labels >= most
    return labels if others.mean() > MOST_GIVEN_UP else np.where(others, NOWHERE, labels)


def soft_cells(
    coordinates: np.ndarray, labels: np.ndarray, n_experts: int, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Experts of each region, and scores by which they share it out softly.

    Regions share the experts out by their size. Those of one region have cells of it, found
    by k-means; scores are the log-densities of normal distributions around their centres, as
    wide as a cell.

    Parameters
    ----------
    coordinates : ndarray of shape (n, d)
        What a gate sees.
    labels : ndarray of shape (n,)
        Region of each row, or -1; at most `n_experts` regions.
    n_experts : int
        Number of experts.
    seed : int
        Of k-means.

    Returns
    -------
    region_ids : ndarray of shape (n_experts,)
        Region of each expert.
    slopes : ndarray of shape (n_experts, d)
    offsets : ndarray of shape (n_experts,)
        Scores, up to a term that the experts of a region share.
    """
    from sklearn.cluster import KMeans

    known = labels != NOWHERE
    rows, labels = coordinates[known], labels[known]
    shares = _share_out(np.bincount(labels), n_experts)
    parts = []
    for region, n_cells in enumerate(shares):
        inside = rows[labels == region]
        kmeans = KMeans(n_cells, n_init=1, random_state=seed).fit(inside)
        # Twice the variance of a cell; of cells without any, whatever is positive.
        width = 2 * kmeans.inertia_ / inside.size or 1.0
        centers = kmeans.cluster_centers_
        parts.append((2 * centers / width, -(centers**2).sum(1) / width))
    slopes, offsets = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return np.repeat(np.arange(len(shares)), shares), slopes, offsets


def _share_out(sizes: np.ndarray, n_experts: int) -> NDArray[np.intp]:
    """Experts of each region: at least one, the others where rows per expert are most."""
    shares = np.ones(len(sizes), dtype=np.intp)
    while shares.sum() < n_experts:
        shares[np.argmax(sizes / shares)] += 1
    return shares


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
    neighbours = neighbours_of(coordinates)
    n_pieces = int(labels.max()) + 1
    touching = edges_between(labels, neighbours, n_pieces)
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
