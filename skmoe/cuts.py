"""A function on a graph of neighbouring rows, cut where it jumps: what stays connected.

The steps of `skmoe.regions` and `skmoe.pieces`, in their order: edges and by how much gradients
miss their rise, what lies in between the cuts, narrow regions, rows beside a border, and
regions that are one.
"""

import numpy as np
from numpy.typing import NDArray

# Neighbours of a row: so many and two for each dimension.
NEIGHBOURS = 4
# Most edges, that no border cuts; least miss of a cut one in units of the spread of the values.
MOST = 0.8
SMALLEST_CUT = 1e-4
# Two peaks are one region if the saddle is higher than this share of the lower peak.
SADDLE = 0.5
# Rows beside a border have no region at first. If those are too many, there are no regions.
SMALLEST_COVER = 0.5
# Regions are one if less than this share of the edges between them is cut, or if there are too
# many regions and less than that share is. Where they touch along less than a share of their
# borders, they stay two.
HARDLY_ANY, FEW, CONTACT = 0.1, 0.3, 0.1
# Where borders are to be clear: regions of fewer rows than this share are one with a neighbour
# if less than that share of the edges is cut.
SMALL, CLEAR = 0.03, 0.6
NOWHERE = -1


def neighbours_of(coordinates: np.ndarray) -> NDArray[np.intp]:
    """The rows that edges lead to from each row, ``(n, k)``, the nearest first."""
    return nearest(coordinates, NEIGHBOURS + 2 * coordinates.shape[1])


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


def largest_miss(missed: np.ndarray, values: np.ndarray, cut_factor: float) -> float:
    """Of an edge that no border cuts, for values ``(n, q)``."""
    return max(cut_factor * np.quantile(missed, MOST), SMALLEST_CUT * spread_of(values))


def spread_of(values: np.ndarray) -> float:
    """Standard deviation of values ``(n, q)``, of all their columns together."""
    return float(np.sqrt(values.var(axis=0).sum()))


def between_cuts(
    coordinates: np.ndarray, neighbours: np.ndarray, cut: np.ndarray, smallest: float
) -> NDArray[np.intp] | None:
    """What stays connected if these edges are cut, but for leaks; None if that is one region.

    Labels count from 0, the largest region first; -1 beside a border. `neighbours` and `cut`
    are of shape ``(n, k)``. Regions of fewer rows than `smallest` are part of a neighbour.
    """
    if not cut.any():
        return None
    heights = _distances_to_cuts(coordinates, neighbours, cut)
    labels = largest_first(_watershed(heights, neighbours, cut, smallest), smallest)
    covered = np.mean(labels != NOWHERE)
    return labels if labels.max() > 0 and covered >= SMALLEST_COVER else None


def _distances_to_cuts(
    coordinates: np.ndarray, neighbours: np.ndarray, cut: np.ndarray
) -> NDArray[np.float64]:
    """Distance of each row to the middle of the nearest cut edge; 0 for its ends."""
    from sklearn.neighbors import NearestNeighbors

    rows, slots = np.nonzero(cut)
    middles = (coordinates[rows] + coordinates[neighbours[rows, slots]]) / 2
    search = NearestNeighbors(n_neighbors=1).fit(middles)
    distances = search.kneighbors(coordinates)[0].ravel()
    distances[rows] = 0.0
    return distances


def _watershed(
    heights: np.ndarray, neighbours: np.ndarray, cut: np.ndarray, smallest: float
) -> NDArray[np.intp]:
    """Flood the rows from the highest down; basins meet at saddles, and stay apart at low ones.

    Returns the row at the peak of each row's basin; `NOWHERE` for rows of height 0.
    """
    n = len(heights)
    starts, ends = _uncut_edges(neighbours, cut)
    leader = np.full(n, NOWHERE)
    size = np.zeros(n, dtype=np.intp)

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
            if heights[row] > SADDLE * heights[lower] or size[lower] < smallest:
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


def largest_first(labels: np.ndarray, smallest: float) -> NDArray[np.intp]:
    """Labels numbered by falling size; those of fewer rows become `NOWHERE`."""
    found, counts = np.unique(labels[labels != NOWHERE], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    result = np.full(len(labels), NOWHERE)
    for number, index in enumerate(order):
        if counts[index] >= smallest:
            result[labels == found[index]] = number
    return result


def with_islands(
    labels: NDArray[np.intp], neighbours: np.ndarray, cut: np.ndarray, smallest: float
) -> NDArray[np.intp]:
    """Labels with those of narrow regions, in which each row is beside a border.

    Such a region is all that is connected and has no label yet, of `smallest` rows at least.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(labels)
    rows, slots = np.nonzero(~cut)
    edges = coo_array((np.ones(len(rows)), (rows, neighbours[rows, slots])), (n, n))
    _, components = connected_components(edges.tocsr(), directed=False)
    sizes = np.bincount(components)
    sizes[components[labels != NOWHERE]] = 0
    islands = np.flatnonzero(sizes >= smallest)
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
    labels: NDArray[np.intp],
    neighbours: np.ndarray,
    cut: np.ndarray,
    most: int = 1,
    clear: bool = False,
) -> NDArray[np.intp]:
    """Labels in which regions are one if hardly any of the edges between them are cut.

    If there are more than `most` regions, also if few are. A piece cut in two only asks for one
    more expert, where two in one leave an expert with a jump. Of small regions borders are to
    be `clear`, if that is asked: most of the edges cut.

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
        edges = edges_between(labels, neighbours, n_regions)
        cuts = edges_between(labels, neighbours, n_regions, cut)
        np.fill_diagonal(edges, 0)
        around = edges.sum(1)
        between = edges > CONTACT * np.minimum(around[:, None], around)
        least = np.full(edges.shape, FEW if n_regions > most else HARDLY_ANY)
        if clear:
            sizes = np.bincount(labels[labels != NOWHERE])
            least[np.minimum(sizes[:, None], sizes) < SMALL * len(labels)] = CLEAR
        share = np.where(between, cuts / np.maximum(edges, 1), 1.0) / least
        kept, gone = sorted(np.unravel_index(share.argmin(), share.shape))
        if share[kept, gone] >= 1:
            return labels
        labels = np.where(labels == gone, kept, labels)
        labels = labels - (labels > gone)


def edges_between(
    labels: NDArray[np.intp], neighbours: np.ndarray, n: int, counted: np.ndarray | None = None
) -> NDArray[np.float64]:
    """Number of edges between each pair of n regions, ``(n, n)``; of those that are counted."""
    known = (labels[:, None] != NOWHERE) & (labels[neighbours] != NOWHERE)
    rows, slots = np.nonzero(known if counted is None else known & counted)
    pairs = labels[rows] * n + labels[neighbours[rows, slots]]
    edges = np.bincount(pairs, minlength=n * n).reshape(n, n)
    return (edges + edges.T).astype(float)
