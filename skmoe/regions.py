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

With the regions known, a linear gate can be given its borders, by logistic regression, and the
rest of the training moves them to where they belong: a straight border has so few weights that
all rows along it tell its place. That is what an expert for each region has over a dense net.
"""

import numpy as np
from numpy.typing import NDArray

# Rows that take part; more only make the regions sharper.
MAX_ROWS = 40_000
# Neighbours of a row: so many and two for each dimension.
NEIGHBOURS = 4
# An edge is cut if the gradients fail to tell its difference by this many times what they fail
# by on most edges, and by at least that share of the spread of the values.
CUT_FACTOR = 30.0
MOST = 0.8
SMALLEST_CUT = 1e-4
# Two peaks are one region if the saddle is higher than this share of the lower peak.
SADDLE = 0.5
# Regions of fewer rows than this share are part of a neighbour.
SMALLEST_REGION = 0.01
# If there are too many regions, those of at most this share of the rows may be given up.
MOST_GIVEN_UP = 0.1
# Rows beside a border have no region. If those are too many, there are no regions.
SMALLEST_COVER = 0.5
# Inverse penalty of the logistic regression: nearly none, as regions do not overlap.
CERTAINTY = 1e3
NOWHERE = -1


def find_regions(
    coordinates: np.ndarray,
    values: np.ndarray,
    slopes: np.ndarray,
    cut_factor: float = CUT_FACTOR,
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
    cut_factor : float, default=30.0
        By how many times what gradients fail by on most edges they fail across a border. With
        less, low jumps are found as well, and places where a function bends.

    Returns
    -------
    ndarray of shape (n,) or None
        Region of each row, from 0, the largest first; -1 beside a border. None if the
        function has no jumps, or nothing else.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.RandomState(0).rand(2000, 2)
    >>> step = z[:, 0] > 0.25
    >>> labels = find_regions(z, np.sin(z[:, 1:]) + step[:, None], np.stack(
    ...     [np.zeros((2000, 1)), np.cos(z[:, 1:])], axis=2))
    >>> np.unique(labels[step]).tolist(), np.unique(labels[~step]).tolist()
    ([-1, 0], [-1, 1])
    """
    neighbours = nearest(coordinates, NEIGHBOURS + 2 * coordinates.shape[1])
    missed = misses(coordinates, values, slopes, neighbours)
    cut = missed > largest_miss(missed, values, cut_factor)
    return between_cuts(coordinates, neighbours, cut)


def largest_miss(missed: np.ndarray, values: np.ndarray, cut_factor: float) -> float:
    """Of an edge that no border cuts, for values ``(n, q)``."""
    return max(cut_factor * np.quantile(missed, MOST), SMALLEST_CUT * spread_of(values))


def spread_of(values: np.ndarray) -> float:
    """Standard deviation of values ``(n, q)``, of all their columns together."""
    return float(np.sqrt(values.var(axis=0).sum()))


def between_cuts(
    coordinates: np.ndarray, neighbours: np.ndarray, cut: np.ndarray
) -> NDArray[np.intp] | None:
    """What stays connected if these edges are cut, but for leaks; None if that is one region.

    Labels are those of `find_regions`; `neighbours` and `cut` are of shape ``(n, k)``.
    """
    if not cut.any():
        return None
    labels = _watershed(_distances_to_cuts(coordinates, neighbours, cut), neighbours, cut)
    labels = _largest_first(labels)
    covered = np.mean(labels != NOWHERE)
    return labels if labels.max() > 0 and covered >= SMALLEST_COVER else None


def nearest(coordinates: np.ndarray, k: int) -> NDArray[np.intp]:
    """The k nearest other rows of each row, or all of them, ``(n, k)``."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(k, len(coordinates) - 1)).fit(coordinates)
    return search.kneighbors(return_distance=False)


def misses(
    coordinates: np.ndarray, values: np.ndarray, slopes: np.ndarray, neighbours: np.ndarray
) -> NDArray[np.float64]:
    """By how much gradients fail to tell the difference of two neighbours, ``(n, k)``."""
    steps = coordinates[neighbours] - coordinates[:, None]
    squares = np.zeros(neighbours.shape)
    for value, slope in zip(values.T, slopes.transpose(1, 0, 2), strict=True):
        told = ((slope[:, None] + slope[neighbours]) / 2 * steps).sum(-1)
        squares += (value[neighbours] - value[:, None] - told) ** 2
    return np.sqrt(squares)


def _distances_to_cuts(
    coordinates: np.ndarray, neighbours: np.ndarray, cut: np.ndarray
) -> NDArray[np.float64]:
    """Distance of each row to the middle of the nearest cut edge; 0 for its ends."""
    from sklearn.neighbors import NearestNeighbors

    rows, slots = np.nonzero(cut)
    middles = (coordinates[rows] + coordinates[neighbours[rows, slots]]) / 2
    nearest = NearestNeighbors(n_neighbors=1).fit(middles)
    distances = nearest.kneighbors(coordinates)[0].ravel()
    distances[rows] = 0.0
    return distances


def _watershed(
    heights: np.ndarray, neighbours: np.ndarray, cut: np.ndarray
) -> NDArray[np.intp]:
    """Flood the rows from the highest down; basins meet at saddles, and stay apart at low ones.

    Returns the row at the peak of each row's basin; `NOWHERE` for rows of height 0.
    """
    n = len(heights)
    starts, ends = _uncut_edges(neighbours, cut)
    leader = np.full(n, NOWHERE)
    size = np.zeros(n, dtype=np.intp)
    least = SMALLEST_REGION * n

    def basin(row: int) -> int:
        while leader[row] != row:
            leader[row] = row = leader[leader[row]]
        return row

    for row in np.argsort(-heights, kind="stable"):
        if heights[row] == 0:
            break
        around = ends[starts[row] : starts[row + 1]]
        basins = {basin(other) for other in around if leader[other] != NOWHERE}
        highest, *others = sorted(basins, key=lambda b: (-heights[b], b)) or [row]
        leader[row] = highest
        size[highest] += 1
        for lower in others:
            if heights[row] > SADDLE * heights[lower] or size[lower] < least:
                leader[lower] = highest
                size[highest] += size[lower]
    return np.array([basin(row) if leader[row] != NOWHERE else NOWHERE for row in range(n)])


def _uncut_edges(
    neighbours: np.ndarray, cut: np.ndarray
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows joined to row i, in either direction: ``ends[starts[i] : starts[i + 1]]``."""
    rows, slots = np.nonzero(~cut)
    others = neighbours[rows, slots]
    rows, others = np.r_[rows, others], np.r_[others, rows]
    order = np.argsort(rows, kind="stable")
    return np.searchsorted(rows[order], np.arange(len(cut) + 1)), others[order]


def _largest_first(labels: np.ndarray) -> NDArray[np.intp]:
    """Labels numbered by falling size; those of too few rows become `NOWHERE`."""
    found, counts = np.unique(labels[labels != NOWHERE], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    result = np.full(len(labels), NOWHERE)
    for number, index in enumerate(order):
        if counts[index] >= SMALLEST_REGION * len(labels):
            result[labels == found[index]] = number
    return result


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


def straight_borders(
    coordinates: np.ndarray, labels: np.ndarray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Linear scores of the regions, the largest in each of them its own.

    Parameters
    ----------
    coordinates : ndarray of shape (n, d)
        What a gate sees.
    labels : ndarray of shape (n,)
        Region of each row, at least two of them, or -1.

    Returns
    -------
    slopes : ndarray of shape (n_regions, d)
        In such units that the scores of two regions typically differ by one over one standard
        deviation of the coordinates.
    offsets : ndarray of shape (n_regions,)
        Scores at the origin.
    """
    from sklearn.linear_model import LogisticRegression

    known = labels != NOWHERE
    fit = LogisticRegression(C=CERTAINTY, max_iter=1000).fit(coordinates[known], labels[known])
    slopes, offsets = fit.coef_, fit.intercept_
    if len(slopes) == 1:
        slopes, offsets = np.vstack([-slopes, slopes]) / 2, np.r_[-offsets, offsets] / 2
    unit = typical_difference(slopes) * np.sqrt(coordinates.var(axis=0).mean())
    return slopes / unit, offsets / unit


def typical_difference(slopes: np.ndarray) -> float:
    """Median length of the difference between the slopes of two regions, ``(n_regions, d)``."""
    apart = np.linalg.norm(slopes[:, None] - slopes, axis=-1)
    return float(np.median(apart[np.triu_indices(len(apart), 1)]))


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
